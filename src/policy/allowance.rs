//! How many rows may fail in a run that still counts as a success.

use std::str::FromStr;

/// A number of rows, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Allowance {
    /// So many rows.
    Rows(u64),
    /// So many of a hundred.
    Percent(f64),
}

/// A text is no allowance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of rows like 10 or a share like 2.5%")]
pub struct ParseAllowanceError;

impl Allowance {
    /// Whether `failed` of `total` rows may have failed.
    #[must_use]
    pub fn allows(self, failed: u64, total: u64) -> bool {
        match self {
            Self::Rows(rows) => failed <= rows,
            // Row counts are far below the 2^53 that a float holds exactly.
            #[expect(clippy::cast_precision_loss, reason = "counts are small")]
            Self::Percent(percent) => failed as f64 * 100.0 <= percent * total as f64,
        }
    }
}

impl FromStr for Allowance {
    type Err = ParseAllowanceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_suffix('%') {
            Some(number) => match number.trim().parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Percent(percent)),
                _ => Err(ParseAllowanceError),
            },
            None => text.parse().map(Self::Rows).map_err(|_| ParseAllowanceError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_shares_are_read_and_kept_to() {
        let allows =
            |text: &str, failed, total| text.parse::<Allowance>().unwrap().allows(failed, total);
        assert!(allows("3", 3, 4) && !allows("3", 4, 4));
        assert!(allows("2.5%", 25, 1000) && !allows("2.5%", 26, 1000));
        assert!(allows("0%", 0, 0) && allows("0", 0, 10) && !allows("0%", 1, 1_000_000));
        for text in ["", "x", "-1", "101%", "NaN%", "5 %%", "1.5"] {
            assert!(text.parse::<Allowance>().is_err(), "{text}");
        }
    }
}
