//! The prices of the models of one place, by their names.

use std::collections::BTreeMap;

use super::{Price, of_table, undated};
use crate::job::OwnModels;

/// What stands in a price's name for all models of a place that nothing else is known of.
const ANY_MODEL: &str = "*";

/// What the models of one place cost.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    /// What a user says of models, by `NAME.MODEL`, or the model alone.
    pub said: BTreeMap<String, Price>,
    /// What may stand there before the models of this place: `NAME.`, or nothing.
    pub prefixes: Vec<String>,
    /// The provider whose own place this is, where it has prices that are known to all.
    pub provider: Option<&'static str>,
}

impl Prices {
    /// What a model costs that is asked in a service tier; nothing where that is not known.
    #[must_use]
    pub fn of(&self, model: &str, tier: Option<&str>) -> Option<Price> {
        let said = |model: &str| {
            let mut names = self.prefixes.iter().map(|prefix| format!("{prefix}{model}"));
            names.find_map(|name| self.said.get(&name).or_else(|| self.said.get(undated(&name))))
        };
        let known = said(model).cloned().or_else(|| self.of_table(model, tier));
        known.or_else(|| said(ANY_MODEL).cloned())
    }

    /// The first of the models that lines name whose price is not known. Where there are more than a
    /// plan notes, nobody knows of the others.
    #[must_use]
    pub fn unknown(&self, models: &OwnModels) -> Vec<String> {
        const SHOWN: usize = 20;
        let names = models.names.iter().filter(|name| self.of(name, None).is_none());
        let more = models.are_more.then(|| "others, for there are too many".to_owned());
        names.cloned().chain(more).take(SHOWN).collect()
    }

    fn of_table(&self, model: &str, tier: Option<&str>) -> Option<Price> {
        let provider = self.provider?;
        let price = of_table(provider, model)?;
        match tier {
            None | Some("auto" | "default" | "standard" | "on_demand") => Some(price),
            // What may wait costs what a batch does, at OpenAI and Google alike:
            // <https://platform.openai.com/docs/guides/flex-processing>,
            // <https://ai.google.dev/gemini-api/docs/pricing>.
            Some("flex") if ["openai", "google"].contains(&provider) => price.in_batch(),
            // Other tiers have prices that the table does not have.
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_says_comes_before_the_table_and_tiers_have_their_prices() {
        let here = Prices {
            prefixes: vec![String::new(), "openai.".into()],
            provider: Some("openai"),
            ..Prices::default()
        };
        let table = of_table("openai", "gpt-4o-mini").unwrap();
        assert_eq!(here.of("gpt-4o-mini-2024-07-18", Some("default")), Some(table.clone()));
        assert_eq!(here.of("gpt-4o-mini", Some("flex")), table.in_batch());
        assert_eq!(here.of("gpt-4o-mini", Some("priority")), None);
        assert_eq!(here.of("nobody", None), None);
        let own = of_table("openai", "gpt-4o").unwrap();
        let said = [("openai.gpt-4o-mini".to_owned(), own.clone())].into();
        let here = Prices { said, ..here };
        assert_eq!(here.of("gpt-4o-mini-2024-07-18", Some("priority")), Some(own.clone()));
        let models = OwnModels { names: vec!["gpt-4o".into(), "x".into()], are_more: false };
        assert_eq!(here.unknown(&models), ["x"]);
        let any = Prices { said: [("openai.*".to_owned(), own.clone())].into(), ..here.clone() };
        assert_eq!((any.of("x", None), any.of("gpt-4o-mini", None)), (Some(own), Some(table)));
        let nowhere = Prices { provider: None, ..here };
        assert_eq!(nowhere.of("gpt-4o", None), None);
    }
}
