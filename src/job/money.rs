//! Money: what calls cost, exactly, and what is known of the cost of many.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// An amount of US dollars, in picodollars (1e-12 $): a token at a dollar a million is exactly
/// 1,000,000 of them. Sums end at the highest there is, 18 million dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

/// Picodollars of a dollar.
const DOLLAR: u64 = 1_000_000_000_000;
/// Digits behind the point that a dollar may have.
const DIGITS: usize = 12;

/// Why a text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an amount of dollars, like 12.50 or $12.50")]
pub struct NoMoney;

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many picodollars.
    #[must_use]
    pub const fn from_picodollars(amount: u64) -> Self {
        Self(amount)
    }

    /// In picodollars.
    #[must_use]
    pub const fn picodollars(self) -> u64 {
        self.0
    }

    /// The price of one token where a million of them cost so many dollars, rounded to a picodollar.
    /// Nothing for what is no price: less than nothing, not a number, or beyond what there is.
    #[must_use]
    pub fn per_million(dollars: f64) -> Option<Self> {
        let picodollars = (dollars * 1e6).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in bounds")]
        (0.0..1e18).contains(&picodollars).then_some(Self(picodollars as u64))
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left of it without another amount; nothing where that is more.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// So many times as much.
    #[must_use]
    pub const fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// In dollars, exactly, as JSON has it: `0.0000123`.
    #[must_use]
    pub fn to_decimal(self) -> String {
        decimal(self.0, DIGITS, 0)
    }

    /// Reads what [`Money::to_decimal`] wrote, or any number of dollars that JSON may have.
    #[must_use]
    pub fn from_decimal(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !whole.is_empty() && part.len() <= DIGITS && are_digits(whole) && are_digits(part) {
            let part: u64 = format!("{part:0<DIGITS$}").parse().ok()?;
            return Some(Self(whole.parse::<u64>().ok()?.checked_mul(DOLLAR)?.checked_add(part)?));
        }
        let dollars: f64 = text.parse().ok()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in bounds")]
        (0.0..1e7).contains(&dollars).then(|| Self((dollars * 1e12).round() as u64))
    }
}

/// So many picodollars with this many digits behind the point, of which zeros at the end go as long
/// as `least` are left.
fn decimal(amount: u64, digits: usize, least: usize) -> String {
    let unit = 10_u64.pow(u32::try_from(DIGITS - digits).unwrap_or_default());
    let rounded = (amount / unit).saturating_add(u64::from(amount % unit >= unit.div_ceil(2)));
    let whole = 10_u64.pow(u32::try_from(digits).unwrap_or_default());
    let mut text = format!("{}.{:0digits$}", rounded / whole, rounded % whole);
    while text.len() > text.find('.').unwrap_or_default() + 1 + least && text.ends_with('0') {
        text.pop();
    }
    if text.ends_with('.') {
        text.pop();
    }
    text
}

/// With a dollar sign, and as many digits as a person can use: `$1,234.57` is `$1234.57`, a small
/// amount has four digits that count, and only nothing is `$0.00`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const COUNT: usize = 4;
        let digits = match self.0 {
            0 => 2,
            amount if amount >= 1000 * DOLLAR => 2,
            amount if amount >= DOLLAR => COUNT,
            amount => DIGITS.min(DIGITS - 1 - amount.ilog10() as usize + COUNT),
        };
        write!(f, "${}", decimal(self.0, digits, 2))
    }
}

impl FromStr for Money {
    type Err = NoMoney;

    fn from_str(text: &str) -> Result<Self, NoMoney> {
        let number = text.trim().strip_prefix('$').unwrap_or(text.trim()).trim();
        let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let has_digits = number.bytes().any(|byte| byte.is_ascii_digit());
        let of_part = number.strip_prefix('.').map(|part| format!("0.{part}"));
        let number = of_part.as_deref().unwrap_or(number);
        Self::from_decimal(number).filter(|_| is_plain && has_digits).ok_or(NoMoney)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = RawValue::from_string(self.to_decimal());
        number.map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_decimal(number.get()).ok_or_else(|| D::Error::custom("no amount of dollars"))
    }
}

/// What calls cost, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spending {
    /// What those cost of which it is known.
    pub usd: Money,
    /// How many those are.
    pub priced: u64,
    /// Calls that may have cost something, and nobody knows what: there is no price for the model, or
    /// the endpoint did not say what the answer used.
    pub unpriced: u64,
    /// What the dearest call cost of which it is known.
    pub dearest: Money,
    /// What some of the unpriced calls are taken to have cost: what a cap set aside for them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub assumed: Money,
    /// How many of the unpriced calls those are.
    #[serde(default, skip_serializing_if = "is_none")]
    pub assumed_calls: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(money: &Money) -> bool {
    *money == Money::ZERO
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl Spending {
    /// Adds what others cost.
    pub fn add(&mut self, other: &Self) {
        self.usd = self.usd.plus(other.usd);
        self.priced = self.priced.saturating_add(other.priced);
        self.unpriced = self.unpriced.saturating_add(other.unpriced);
        self.dearest = self.dearest.max(other.dearest);
        self.assumed = self.assumed.plus(other.assumed);
        self.assumed_calls = self.assumed_calls.saturating_add(other.assumed_calls);
    }

    /// What is left of it without what some of the calls cost.
    #[must_use]
    pub fn minus(&self, some: &Self) -> Self {
        Self {
            usd: self.usd.minus(some.usd),
            priced: self.priced.saturating_sub(some.priced),
            unpriced: self.unpriced.saturating_sub(some.unpriced),
            dearest: self.dearest,
            assumed: self.assumed.minus(some.assumed),
            assumed_calls: self.assumed_calls.saturating_sub(some.assumed_calls),
        }
    }

    /// Adds a call: what it cost, or whether it may have cost something that is not known, and what it
    /// is then taken to have cost, where somebody took it for something.
    pub fn note(&mut self, cost: Option<Money>, is_unpriced: bool, assumed: Option<Money>) {
        if let Some(assumed) = assumed.filter(|_| cost.is_none() && is_unpriced) {
            self.assumed = self.assumed.plus(assumed);
            self.assumed_calls += 1;
        }
        self.usd = self.usd.plus(cost.unwrap_or_default());
        self.dearest = self.dearest.max(cost.unwrap_or_default());
        self.priced += u64::from(cost.is_some());
        self.unpriced += u64::from(cost.is_none() && is_unpriced);
    }

    /// Adds so many calls that a crash took: they were made, and nobody heard what they cost.
    pub fn lose(&mut self, calls: u64) {
        self.unpriced = self.unpriced.saturating_add(calls);
    }

    /// What is known to have been spent; nothing where nothing is known of any call that may have
    /// cost something.
    #[must_use]
    pub fn known(&self) -> Option<Money> {
        (self.priced > 0 || self.unpriced == 0).then_some(self.usd)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn money(text: &str) -> Money {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_are_shown_with_the_digits_that_count() {
        for (amount, shown) in [
            ("0", "$0.00"),
            ("12.5", "$12.50"),
            ("$3", "$3.00"),
            (".25", "$0.25"),
            ("1.23456", "$1.2346"),
            ("999.99999", "$1000.00"),
            ("1234.5678", "$1234.57"),
            ("0.012345", "$0.01235"),
            ("0.1", "$0.10"),
            ("0.99999", "$1.00"),
            ("0.000000123456", "$0.0000001235"),
            ("0.000000000001", "$0.000000000001"),
            ("18000000", "$18000000.00"),
        ] {
            assert_eq!(money(amount).to_string(), shown, "{amount}");
        }
        for text in ["", "$", ".", "-1", "+1", "1e3", "a", "1,50", "1.2.3", "inf", "99999999999"] {
            assert_eq!(text.parse::<Money>(), Err(NoMoney), "{text}");
        }
    }

    #[test]
    fn prices_are_exact_to_the_picodollar_and_nonsense_is_none() {
        assert_eq!(Money::per_million(0.15), Some(Money::from_picodollars(150_000)));
        assert_eq!(Money::per_million(0.0), Some(Money::ZERO));
        for nonsense in [-0.1, f64::NAN, f64::INFINITY, 1e30] {
            assert_eq!(Money::per_million(nonsense), None);
        }
        assert_eq!(Money::from_picodollars(u64::MAX).plus(money("1")).picodollars(), u64::MAX);
        assert_eq!(Money::from_picodollars(u64::MAX).times(3).picodollars(), u64::MAX);
    }

    #[test]
    fn what_is_not_known_is_not_nothing() {
        let mut spending = Spending::default();
        assert_eq!(spending.known(), Some(Money::ZERO));
        spending.note(None, true, Some(money("0.25")));
        assert_eq!(spending.known(), None);
        spending.note(Some(money("0.5")), false, Some(money("7")));
        spending.note(None, false, Some(money("7")));
        assert_eq!(
            spending,
            Spending {
                usd: money("0.5"),
                priced: 1,
                unpriced: 1,
                dearest: money("0.5"),
                assumed: money("0.25"),
                assumed_calls: 1,
            }
        );
        assert_eq!(spending.minus(&spending).assumed_calls, 0);
        assert_eq!(spending.known(), Some(money("0.5")));
    }

    proptest! {
        #[test]
        fn amounts_are_written_and_read_back_to_the_picodollar(amount in any::<u64>()) {
            let money = Money::from_picodollars(amount);
            prop_assert_eq!(Money::from_decimal(&money.to_decimal()), Some(money));
            let json = serde_json::to_string(&money).unwrap();
            prop_assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), money);
            prop_assert!(amount == 0 || money.to_string() != "$0.00");
        }
    }
}
