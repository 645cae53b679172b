//! What the tokens of a model cost: what a config file says, else the table that comes with rowmill.

use super::model::Who;
use crate::config::Config;
use crate::job::JobSpec;
use crate::price::{self, Price};
use crate::provider::KNOWN;

/// The price of a job's tokens at a place; nothing where it is not known. Who is at a place of one's
/// own has the price that a config file gives it, and no other: the table is of providers where they
/// are.
pub(super) fn price_of(who: &Who, base_url: &str, job: &JobSpec, config: &Config) -> Option<Price> {
    let at = KNOWN.iter().find(|known| {
        known.needs_key && known.base_url.trim_end_matches('/') == base_url.trim_end_matches('/')
    });
    let mut names = vec![price_name(who, &job.model)];
    // A model without a provider's name is OpenAI's, where that is whom it goes to.
    names
        .extend(at.filter(|_| who.name().is_none()).map(|at| format!("{}.{}", at.name, job.model)));
    if let Some(price) = names.iter().find_map(|name| config.price(name)) {
        return Some(price.clone());
    }
    let price = price::of_table(at?.name, &job.model)?;
    match job.parameters.get("service_tier").map(|tier| tier.get().trim_matches('"')) {
        None | Some("auto" | "default" | "standard" | "on_demand") => Some(price),
        // What may wait costs what a batch does, at OpenAI and Google alike:
        // <https://platform.openai.com/docs/guides/flex-processing>,
        // <https://ai.google.dev/gemini-api/docs/pricing>.
        Some("flex") if ["openai", "google"].contains(&at?.name) => price.in_batch(),
        // Other tiers have prices that the table does not have.
        Some(_) => None,
    }
}

/// What a model's price is called in a config file.
pub(super) fn price_name(who: &Who, model: &str) -> String {
    match who.name() {
        Some(name) => format!("{name}.{model}"),
        None => model.to_owned(),
    }
}

/// That a model has no price, and how to give it one.
pub(super) fn no_price(who: &Who, model: &str) -> String {
    let name = price_name(who, model);
    format!(
        "no price of {name} is known: give it one in rowmill.toml, in dollars for a million tokens: \
         [price.{name:?}] with input and output"
    )
}
