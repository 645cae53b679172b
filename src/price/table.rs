//! The price table that comes with rowmill: `table.json`, read when it is first asked.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::{Origin, Price};
use crate::job::Money;

/// The table's text; how it was made stands in `docs/cost.md`.
static TEXT: &str = include_str!("table.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table<'a> {
    date: &'a str,
    #[expect(dead_code, reason = "for those who read the file")]
    source: &'a str,
    models: HashMap<&'a str, HashMap<&'a str, Row>>,
}

/// Dollars for a million tokens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    input: f64,
    output: f64,
    cached_input: Option<f64>,
    cache_write: Option<f64>,
    batch_input: Option<f64>,
    batch_output: Option<f64>,
}

static TABLE: LazyLock<Option<Table<'static>>> = LazyLock::new(|| serde_json::from_str(TEXT).ok());

/// The day on which the table was made.
#[must_use]
pub fn date() -> &'static str {
    TABLE.as_ref().map_or("", |table| table.date)
}

/// What the table says of a provider's model: under its name, else under its name without the date
/// at its end.
#[must_use]
pub fn of_table(provider: &str, model: &str) -> Option<Price> {
    // The same place under two names.
    let provider = if provider == "responses" { "openai" } else { provider };
    let models = TABLE.as_ref()?.models.get(provider)?;
    let row = models.get(model).or_else(|| models.get(undated(model)))?;
    let some = |dollars: Option<f64>| dollars.and_then(Money::per_million);
    let batch_input = some(row.batch_input);
    Some(Price {
        input: Money::per_million(row.input)?,
        output: Money::per_million(row.output)?,
        cached_input: some(row.cached_input),
        cache_write: some(row.cache_write),
        batch_input,
        batch_output: some(row.batch_output).filter(|_| batch_input.is_some()),
        origin: Origin::Table,
    })
}

/// A model's name without a date at its end: `-2024-07-18`, `-20251001`, `@20251001`.
#[must_use]
pub fn undated(model: &str) -> &str {
    let digits = |text: &str, lengths: &[usize]| {
        let parts: Vec<&str> = text.split('-').collect();
        parts.len() == lengths.len()
            && parts.iter().zip(lengths).all(|(part, length)| {
                part.len() == *length && part.bytes().all(|byte| byte.is_ascii_digit())
            })
    };
    for (signs, lengths) in [(&['-', '@'][..], &[8][..]), (&['-'][..], &[4, 2, 2][..])] {
        let length: usize = lengths.iter().sum::<usize>() + lengths.len() - 1;
        let Some(at) = model.len().checked_sub(length + 1).filter(|at| model.is_char_boundary(*at))
        else {
            continue;
        };
        let (name, date) = model.split_at(at);
        if date.starts_with(signs) && digits(&date[1..], lengths) && !name.is_empty() {
            return name;
        }
    }
    model
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::KNOWN;

    #[test]
    fn the_table_is_of_providers_that_are_known_and_its_numbers_are_prices() {
        let table: Table<'_> = serde_json::from_str(TEXT).unwrap();
        assert_eq!(date().len(), "2026-11-21".len());
        let mut count = 0;
        for (provider, models) in &table.models {
            assert!(KNOWN.iter().any(|known| known.name == *provider), "{provider}");
            for name in models.keys() {
                let price = of_table(provider, name).unwrap();
                // A model that costs nothing is most likely one whose price was not known.
                assert!(price.input > Money::ZERO, "{name}");
                // A thousand dollars for a million tokens would be a slip of the comma.
                assert!(price.input < Money::per_million(1000.0).unwrap(), "{name}");
                count += 1;
            }
        }
        assert!(count > 100, "{count} models");
    }

    #[test]
    fn a_model_is_found_by_its_name_and_by_that_without_its_date() {
        let price = of_table("openai", "gpt-4o-mini").unwrap();
        assert_eq!(price.input, Money::per_million(0.15).unwrap());
        assert_eq!(price.batch_output, Money::per_million(0.3));
        assert_eq!(of_table("openai", "gpt-4o-mini-2024-07-18"), Some(price.clone()));
        assert_eq!(of_table("responses", "gpt-4o-mini"), Some(price));
        let haiku = of_table("anthropic", "claude-haiku-4-5").unwrap();
        assert_eq!(haiku.cache_write, Money::per_million(1.25));
        assert_eq!(of_table("anthropic", "claude-haiku-4-5-20251001"), Some(haiku));
        for (provider, model) in
            [("openai", "no-such-model"), ("ollama", "gpt-4o-mini"), ("", "gpt-4o-mini")]
        {
            assert_eq!(of_table(provider, model), None, "{provider}.{model}");
        }
    }

    #[test]
    fn only_dates_are_taken_off() {
        for (name, undated_so) in [
            ("gpt-4.1-2025-04-14", "gpt-4.1"),
            ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
            ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
            ("mistral-large-2411", "mistral-large-2411"),
            ("qwen3-235b-a22b", "qwen3-235b-a22b"),
            ("-20251001", "-20251001"),
            ("模型-20251001", "模型"),
            ("模型模型模型模型模型", "模型模型模型模型模型"),
            ("", ""),
        ] {
            assert_eq!(undated(name), undated_so);
        }
    }
}
