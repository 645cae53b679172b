//! How many tokens a call will take, before it is made.

/// What is known of a call before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The bytes of its prompt.
    pub bytes: usize,
    /// The most tokens of its answer, where it bounds them itself.
    pub answer: Option<u64>,
}

impl From<usize> for Size {
    fn from(bytes: usize) -> Self {
        Self { bytes, answer: None }
    }
}

/// An estimate that learns from what answers say they used.
#[derive(Debug, Clone)]
pub struct Estimate {
    a_byte: f64,
    answer: f64,
    most: Option<u64>,
    seen: u32,
}

impl Estimate {
    /// Tokens a byte of English text in what is common today, until it is known better.
    const A_BYTE: f64 = 0.25;
    /// Tokens of an answer, until it is known better.
    const ANSWER: f64 = 256.0;
    /// Calls that are remembered.
    const MEMORY: u32 = 64;

    /// For answers of at most so many tokens, if they are bounded. Until the first answer the bound
    /// is what is expected, as endpoints do that count a call when it comes.
    #[must_use]
    pub fn new(most: Option<u64>) -> Self {
        let answer = most.map_or(Self::ANSWER, float);
        Self { a_byte: Self::A_BYTE, answer, most, seen: 0 }
    }

    /// The tokens of a call, and of its answer.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is small")]
    pub fn tokens(&self, size: impl Into<Size>) -> u64 {
        let Size { bytes, answer } = size.into();
        let most = answer.or(self.most);
        // Until the first answer a call's own bound is what is expected of it, as it is of all.
        let expected = if self.seen == 0 { answer.map_or(self.answer, float) } else { self.answer };
        let answer = most.map_or(expected, |most| expected.min(float(most)));
        (float(bytes as u64) * self.a_byte + answer).ceil().max(1.0) as u64
    }

    /// What a call took.
    pub fn learn(&mut self, bytes: usize, input: u64, output: u64) {
        self.seen = (self.seen + 1).min(Self::MEMORY);
        let weight = 1.0 / f64::from(self.seen);
        let a_byte = float(input) / float(bytes.max(1) as u64);
        self.a_byte += (a_byte - self.a_byte) * weight;
        self.answer += (float(output) - self.answer) * weight;
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_guess_and_learns() {
        assert_eq!(Estimate::new(None).tokens(4000), 1256);
        let own = |answer| Size { bytes: 4000, answer: Some(answer) };
        assert_eq!(Estimate::new(None).tokens(own(3000)), 4000, "a call's own bound");
        assert_eq!(Estimate::new(Some(100)).tokens(own(0)), 1000);
        let mut estimate = Estimate::new(Some(100));
        assert_eq!(estimate.tokens(4000), 1100);
        estimate.learn(4000, 2000, 30);
        assert_eq!(estimate.tokens(400), 230, "the first one counts in full");
        (0..500).for_each(|_| estimate.learn(1000, 250, 10));
        assert!((259..=261).contains(&estimate.tokens(1000)));
        (0..500).for_each(|_| estimate.learn(0, u64::MAX, u64::MAX));
        assert!(estimate.tokens(0) >= 100);
    }
}
