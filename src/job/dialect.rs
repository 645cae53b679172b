//! How lines of inputs and outputs are spelled, by name. The readers and writers are in
//! the module `dialect`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How lines are spelled.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Any JSON object in (or CSV record), the envelope out.
    #[default]
    Rows,
    /// OpenAI's Batch API.
    OpenAi,
    /// `dria batch`: a prompt a line.
    Prompts,
    /// Dria's Batch API.
    Dria,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rows, Self::OpenAi, Self::Prompts, Self::Dria];

    /// Its name, as options have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::OpenAi => "openai",
            Self::Prompts => "prompts",
            Self::Dria => "dria",
        }
    }

    /// Whether lines are rows of which a prompt is made; in all others they are requests.
    #[must_use]
    pub fn is_rows(&self) -> bool {
        *self == Self::Rows
    }

    /// Whether lines are whole requests, which say themselves what is sent: a body, and where it goes.
    #[must_use]
    pub fn is_request(self) -> bool {
        matches!(self, Self::OpenAi | Self::Dria)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("expected one of {names}")
        })
    }
}
