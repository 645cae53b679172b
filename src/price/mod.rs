//! What tokens cost: a model's price, what a call with a known usage comes to, and the table of
//! prices that comes with rowmill.
//!
//! The table is data, `table.json`, made of litellm's by a recipe that stands in `docs/cost.md`; what
//! a config file says of a model comes before it. A model that neither knows has no price, which is
//! not a price of nothing.

mod place;
mod spent;
mod table;

use std::fmt;
use std::path::PathBuf;

pub use place::Prices;
pub use spent::{Spent, spent};
pub use table::{date, of_table, undated};

use crate::job::{Money, Usage};

/// What the tokens of a model cost, one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Of the prompt.
    pub input: Money,
    /// Of the answer, reasoning included.
    pub output: Money,
    /// Of the prompt where the endpoint had them in its cache; as others where nothing is said.
    pub cached_input: Option<Money>,
    /// Of the prompt where the endpoint put them in its cache; as others where nothing is said.
    pub cache_write: Option<Money>,
    /// Of the prompt in a batch; nothing where there are no batches, or nothing is said of them.
    pub batch_input: Option<Money>,
    /// Of the answer in a batch.
    pub batch_output: Option<Money>,
    /// Who says so.
    pub origin: Origin,
}

/// Where a price is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The table that comes with rowmill.
    Table,
    /// A config file.
    Config(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => write!(f, "the price table of {}", date()),
            Self::Config(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Price {
    /// What a call cost that used so much.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Money {
        let cached = usage.cached_input_tokens.min(usage.input_tokens);
        let written = usage.cache_write_tokens.min(usage.input_tokens - cached);
        let others = usage.input_tokens - cached - written;
        let cached = self.cached_input.unwrap_or(self.input).times(cached);
        let written = self.cache_write.unwrap_or(self.input).times(written);
        let input = self.input.times(others).plus(cached).plus(written);
        input.plus(self.output.times(usage.output_tokens))
    }

    /// What so many tokens cost where the endpoint has none of them in its cache: what a call may
    /// cost is estimated with this. Who puts a prompt in its cache may take more for that.
    #[must_use]
    pub fn estimate(&self, input_tokens: u64, output_tokens: u64) -> Money {
        let input = self.cache_write.unwrap_or(self.input).max(self.input);
        input.times(input_tokens).plus(self.output.times(output_tokens))
    }

    /// The prices in a batch, where they are known.
    #[must_use]
    pub fn in_batch(&self) -> Option<Self> {
        let input = self.batch_input?;
        let output = self.batch_output.unwrap_or(self.output);
        let none = Self { cached_input: None, cache_write: None, ..self.clone() };
        Some(Self { input, output, batch_input: None, batch_output: None, ..none })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price() -> Price {
        let dollars = |per_million: f64| Money::per_million(per_million).unwrap();
        Price {
            input: dollars(1.0),
            output: dollars(5.0),
            cached_input: Some(dollars(0.1)),
            cache_write: Some(dollars(1.25)),
            batch_input: Some(dollars(0.5)),
            batch_output: Some(dollars(2.5)),
            origin: Origin::Table,
        }
    }

    #[test]
    fn cached_and_written_tokens_are_part_of_the_input_and_have_their_prices() {
        let usage = Usage {
            input_tokens: 1000,
            output_tokens: 100,
            cached_input_tokens: 600,
            reasoning_tokens: 90,
            cache_write_tokens: 300,
        };
        // 100 at 1.00, 600 at 0.10, 300 at 1.25, 100 at 5.00, each a million.
        assert_eq!(price().cost(&usage), "0.001035".parse().unwrap());
        let plain = Price { cached_input: None, cache_write: None, ..price() };
        assert_eq!(plain.cost(&usage), "0.0015".parse().unwrap());
    }

    #[test]
    fn an_endpoint_that_counts_more_cached_than_there_are_gains_nothing() {
        let usage = Usage {
            input_tokens: 10,
            cached_input_tokens: u64::MAX,
            cache_write_tokens: u64::MAX,
            ..Usage::default()
        };
        assert_eq!(price().cost(&usage), "0.000001".parse().unwrap());
    }

    #[test]
    fn an_estimate_has_no_luck_with_caches_and_a_batch_has_prices_of_its_own() {
        assert_eq!(price().estimate(1000, 100), "0.00175".parse().unwrap());
        let batch = price().in_batch().unwrap();
        assert_eq!(batch.estimate(1000, 100), "0.00075".parse().unwrap());
        assert_eq!(Price { batch_input: None, ..price() }.in_batch(), None);
    }
}
