//! What the tokens of a model cost: what a config file says, else the table that comes with rowmill.

use super::model::Who;
use crate::config::Config;
use crate::job::JobSpec;
use crate::price::{Price, Prices};
use crate::provider::KNOWN;

/// The price of a job's tokens at a place; nothing where it is not known.
pub(super) fn price_of(who: &Who, base_url: &str, job: &JobSpec, config: &Config) -> Option<Price> {
    let tier = job.parameters.get("service_tier").map(|tier| tier.get().trim_matches('"'));
    prices_at(who, base_url, config).of(&job.model, tier)
}

/// The prices at a place. Who is at a place of one's own has those that a config file gives, and no others:
/// the table is of providers where they are.
pub(super) fn prices_at(who: &Who, base_url: &str, config: &Config) -> Prices {
    let at = KNOWN.iter().find(|known| {
        known.needs_key && known.base_url.trim_end_matches('/') == base_url.trim_end_matches('/')
    });
    let mut prefixes = vec![price_name(who, "")];
    // A model without a provider's name is OpenAI's, where that is whom it goes to.
    prefixes.extend(at.filter(|_| who.name().is_none()).map(|at| format!("{}.", at.name)));
    Prices { said: config.prices.clone(), prefixes, provider: at.map(|at| at.name) }
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
