//! What a job will come to before it is run: calls, tokens, money, and how each number was got.

use std::fmt;

use serde::Serialize;

use crate::job::{Money, Usage};
use crate::price::Price;

/// What a job will come to. Its fields stand in `--json` in this order.
#[derive(Debug, Clone, Serialize)]
pub struct Estimate {
    /// How the model was named by who asks for it, where there are several: their parameters may be all
    /// that tells them apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_model: Option<String>,
    /// The model asked for.
    pub model: String,
    /// Whose tokenizer and price these are, where a pool answers: its first member's, as `ENDPOINT.MODEL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priced_as: Option<String>,
    /// Rows in the input.
    pub rows: u64,
    /// Rows that would be asked about.
    pub selected: u64,
    /// Of those, rows that cannot be: they fail without a call.
    pub invalid: u64,
    /// Calls, if none is made again.
    pub calls: u64,
    /// Tokens of all prompts with what goes in around them.
    pub input_tokens: u64,
    /// How they were counted: the name of a tokenizer, or `approximation`.
    pub tokenizer: &'static str,
    /// Of how many rows the prompts were counted; what the others have follows from these.
    pub counted_rows: u64,
    /// Whether those are only some of the rows that are called for.
    #[serde(skip)]
    pub is_sample: bool,
    /// Whether rows have attachments, or requests images, sound or documents: those are not counted.
    pub leaves_out_attachments: bool,
    /// Answers, where calls ask for other than one each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
    /// Tokens of all answers.
    pub output_tokens: Range<u64>,
    /// Tokens of one answer.
    pub answer_tokens: Range<u64>,
    /// How those are known.
    pub answer_from: AnswerFrom,
    /// What tokens cost; nothing where that is not known.
    pub price: Option<Prices>,
    /// What the job costs.
    pub cost_usd: Option<Range<Money>>,
    /// What it would cost in a batch, where there are batches.
    pub batch_cost_usd: Option<Range<Money>>,
    /// How to give the model a price, where it has none.
    #[serde(skip)]
    pub hint: Option<String>,
}

/// From what to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range<T> {
    /// At least.
    pub low: T,
    /// At most, or as assumed.
    pub high: T,
}

/// How it is known how long answers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerFrom {
    /// The user said so.
    Expected,
    /// No answer may have more than `max_tokens`.
    MaxTokens,
    /// Those of this job had so many so far.
    MeanSoFar,
    /// Nobody knows.
    Assumed,
    /// There are none: vectors, scores, or no call at all.
    None,
}

/// Dollars for a million tokens, and who says so.
#[derive(Debug, Clone, Serialize)]
pub struct Prices {
    /// Of prompts.
    pub input: Money,
    /// Of answers.
    pub output: Money,
    /// Of prompts in a batch.
    pub batch_input: Option<Money>,
    /// Of answers in a batch.
    pub batch_output: Option<Money>,
    /// Where they are from.
    pub from: String,
}

/// Tokens of an answer of which nothing is known: a paragraph or two.
const ASSUMED: u64 = 300;

/// What is known of the answers' length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expecting {
    /// What the user expects of one.
    pub expected: Option<u64>,
    /// What one may have at most.
    pub most: Option<u64>,
    /// What those of this job had so far, on the average.
    pub mean: Option<u64>,
}

impl Expecting {
    /// The same, where what is known of calls so far is of several answers each.
    fn of_each(&self, calls: u64, answers: u64) -> Self {
        let each = |mean: u64| match answers {
            0 => mean,
            _ => mean.saturating_mul(calls).div_ceil(answers),
        };
        Self { mean: self.mean.map(each), ..*self }
    }

    /// The tokens of an answer, and how that is known. Where it is only known how many there may be at
    /// most, the least is what answers had so far, or one.
    #[must_use]
    pub fn answer(&self) -> (Range<u64>, AnswerFrom) {
        let exactly = |tokens| Range { low: tokens, high: tokens };
        match (self.expected, self.most, self.mean) {
            (Some(tokens), ..) => (exactly(tokens), AnswerFrom::Expected),
            (None, Some(0), _) => (exactly(0), AnswerFrom::None),
            (None, Some(most), mean) => {
                let low = mean.unwrap_or(1).min(most);
                (Range { low, high: most }, AnswerFrom::MaxTokens)
            }
            (None, None, Some(mean)) => (exactly(mean), AnswerFrom::MeanSoFar),
            (None, None, None) => (exactly(ASSUMED), AnswerFrom::Assumed),
        }
    }
}

/// Prompts, as far as they were counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Rows that are to have an outcome.
    pub selected: u64,
    /// Of those, rows that would be asked about; the others take the outcome of one that asks the same.
    pub asked: u64,
    /// How often each is asked about.
    pub repeats: u64,
    /// Rows that were looked at.
    pub rows: u64,
    /// Of those, rows that cannot be asked about.
    pub invalid: u64,
    /// Tokens of all others' prompts, with what goes in around them.
    pub tokens: u64,
    /// How many answers those ask for.
    pub answers: u64,
}

impl Counted {
    /// Rows that cannot be asked about, calls, tokens and answers, of all that are to be asked about.
    fn scaled(&self) -> (u64, u64, u64, u64) {
        let scaled = |part: u64, of: u64, whole: u64| {
            let exact = u128::from(part) * u128::from(whole) / u128::from(of.max(1));
            u64::try_from(exact).unwrap_or(u64::MAX)
        };
        let invalid = scaled(self.invalid, self.rows, self.asked);
        let calls = (self.asked - invalid).saturating_mul(self.repeats);
        let of_calls = |part| scaled(part, self.rows - self.invalid, calls);
        (invalid, calls, of_calls(self.tokens), of_calls(self.answers))
    }
}

impl Estimate {
    /// What a job comes to whose prompts were counted.
    #[must_use]
    pub fn new(
        (model, tokenizer, rows): (&str, &'static str, u64),
        counted: &Counted,
        expecting: &Expecting,
        price: Option<&Price>,
    ) -> Self {
        let (invalid, calls, input_tokens, answers) = counted.scaled();
        let (answer_tokens, answer_from) = expecting.of_each(calls, answers).answer();
        let output_tokens = Range {
            low: answer_tokens.low.saturating_mul(answers),
            high: answer_tokens.high.saturating_mul(answers),
        };
        let cost = |price: &Price| {
            let of = |output_tokens| {
                price.cost(&Usage { input_tokens, output_tokens, ..Usage::default() })
            };
            Range { low: of(output_tokens.low), high: of(output_tokens.high) }
        };
        Self {
            asked_model: None,
            model: model.to_owned(),
            priced_as: None,
            rows,
            selected: counted.selected,
            invalid,
            calls,
            input_tokens,
            tokenizer,
            counted_rows: counted.rows,
            is_sample: counted.rows < counted.asked,
            leaves_out_attachments: false,
            answers: (answers != calls).then_some(answers),
            output_tokens,
            answer_tokens,
            answer_from,
            price: price.map(prices),
            cost_usd: price.map(cost),
            batch_cost_usd: price.and_then(Price::in_batch).as_ref().map(cost),
            hint: None,
        }
    }

    /// That of a model that is not called.
    #[must_use]
    pub fn of_nothing(model: &str, rows: u64, counted: &Counted) -> Self {
        let none = Expecting { most: Some(0), ..Expecting::default() };
        let nothing = Range { low: Money::ZERO, high: Money::ZERO };
        let rest = Self::new((model, "none", rows), counted, &none, None);
        Self { calls: 0, input_tokens: 0, cost_usd: Some(nothing), ..rest }
    }
}

fn prices(price: &Price) -> Prices {
    const MILLION: u64 = 1_000_000;
    let batch = price.in_batch();
    Prices {
        input: price.input.times(MILLION),
        output: price.output.times(MILLION),
        batch_input: batch.as_ref().map(|batch| batch.input.times(MILLION)),
        batch_output: batch.as_ref().map(|batch| batch.output.times(MILLION)),
        from: price.origin.to_string(),
    }
}

/// One number where both are the same.
impl<T: fmt::Display + PartialEq> fmt::Display for Range<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.low == self.high {
            true => write!(f, "{}", self.low),
            false => write!(f, "{} to {}", self.low, self.high),
        }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, selected, invalid, calls, .. } = self;
        let word = if *calls == 1 { "call" } else { "calls" };
        write!(f, "rows           {rows} in the input, {selected} selected, {calls} {word}")?;
        match invalid {
            0 => writeln!(f)?,
            _ => writeln!(f, "; {invalid} cannot be asked about")?,
        }
        if self.tokenizer == "none" {
            return writeln!(f, "cost           $0.00: {} is not called", self.model);
        }
        let how = match self.tokenizer {
            "approximation" => "guessed by characters, for the tokenizer is not public".to_owned(),
            name => format!("counted with {name}"),
        };
        write!(f, "input tokens   {}, {how}", self.input_tokens)?;
        match self.is_sample {
            true => writeln!(f, ", from {} rows spread over all", self.counted_rows)?,
            false => writeln!(f)?,
        }
        if let Some(member) = &self.priced_as {
            writeln!(f, "               counted and priced as {member}, the first of the pool")?;
        }
        if self.leaves_out_attachments {
            writeln!(
                f,
                "               without images, sound and files, which nobody can count here"
            )?;
        }
        let answer = self.answer_tokens;
        let how = match self.answer_from {
            AnswerFrom::Expected => format!("{answer} an answer, as expected"),
            AnswerFrom::MaxTokens => {
                format!("{answer} an answer: more are not allowed (max_tokens)")
            }
            AnswerFrom::MeanSoFar => format!("{answer} an answer, the mean of those so far"),
            AnswerFrom::Assumed => {
                format!("{answer} an answer is only assumed: --expect-output says better")
            }
            AnswerFrom::None => "answers have none: they are vectors or scores".to_owned(),
        };
        let answers = self.answers.map(|it| format!(" of {it} answers")).unwrap_or_default();
        writeln!(f, "output tokens  {}{answers}, {how}", self.output_tokens)?;
        let (Some(price), Some(cost)) = (&self.price, &self.cost_usd) else {
            let hint = self.hint.as_deref().unwrap_or("no price is known");
            return writeln!(f, "cost           unknown: {hint}");
        };
        writeln!(
            f,
            "price          {} in, {} out for a million tokens ({})",
            price.input, price.output, price.from
        )?;
        writeln!(f, "cost           {cost}, without calls that are made again")?;
        match (&self.batch_cost_usd, price.batch_input, price.batch_output) {
            (Some(cost), Some(input), Some(output)) => {
                writeln!(f, "in a batch     {cost}, at {input} in, {output} out")
            }
            _ => writeln!(f, "in a batch     no price is known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::of_table;

    #[test]
    fn answers_are_as_long_as_is_known_best() {
        let exactly = |tokens| Range { low: tokens, high: tokens };
        let all = Expecting { expected: Some(7), most: Some(50), mean: Some(20) };
        assert_eq!(all.answer(), (exactly(7), AnswerFrom::Expected));
        let bound = Expecting { expected: None, ..all };
        assert_eq!(bound.answer(), (Range { low: 20, high: 50 }, AnswerFrom::MaxTokens));
        let unseen = Expecting { mean: None, ..bound };
        assert_eq!(unseen.answer(), (Range { low: 1, high: 50 }, AnswerFrom::MaxTokens));
        let seen = Expecting { most: None, ..bound };
        assert_eq!(seen.answer(), (exactly(20), AnswerFrom::MeanSoFar));
        assert_eq!(Expecting::default().answer(), (exactly(ASSUMED), AnswerFrom::Assumed));
    }

    #[test]
    fn a_sample_stands_for_all_and_invalid_rows_cost_nothing() {
        let price = of_table("openai", "gpt-4o-mini").unwrap();
        let counted = Counted {
            selected: 1000,
            asked: 1000,
            repeats: 1,
            rows: 100,
            invalid: 10,
            tokens: 9000,
            answers: 90,
        };
        let expecting = Expecting { expected: Some(10), ..Expecting::default() };
        let about = ("gpt-4o-mini", "o200k_base", 1200);
        let estimate = Estimate::new(about, &counted, &expecting, Some(&price));
        assert_eq!((estimate.invalid, estimate.calls), (100, 900));
        assert_eq!((estimate.input_tokens, estimate.output_tokens.high), (90_000, 9000));
        // 90,000 at 0.15 and 9,000 at 0.60 a million; half of that in a batch.
        let dollars = |text: &str| text.parse::<Money>().unwrap();
        assert_eq!(estimate.cost_usd.unwrap().low, dollars("0.0189"));
        assert_eq!(estimate.batch_cost_usd.unwrap().high, dollars("0.00945"));
        let text = estimate.to_string();
        for says in ["from 100 rows", "100 cannot", "$0.0189", "$0.00945", "$0.15 in, $0.60 out"] {
            assert!(text.contains(says), "{says}: {text}");
        }
        // Counted in full, with each row asked twice, or only some rows asked at all.
        for (asked, repeats, calls) in [(100, 2, 180), (50, 1, 45)] {
            let (rows, invalid) = (asked, asked / 10);
            let answers = rows - invalid;
            let counted = Counted { asked, repeats, rows, invalid, answers, ..counted };
            let estimate = Estimate::new(about, &counted, &expecting, None);
            assert_eq!((estimate.selected, estimate.calls), (1000, calls));
            assert!(!estimate.to_string().contains("spread"), "{estimate}");
        }
        // Several answers a call: what is known of calls so far is of all of them.
        let several = Counted { answers: 900, ..counted };
        let estimate = Estimate::new(about, &several, &expecting, None);
        assert_eq!((estimate.calls, estimate.answers), (900, Some(9000)));
        assert_eq!((estimate.output_tokens.low, estimate.answer_tokens.low), (90_000, 10));
        let so_far = Expecting { mean: Some(500), ..Expecting::default() };
        let estimate = Estimate::new(about, &several, &so_far, None);
        assert_eq!((estimate.output_tokens.low, estimate.answer_tokens.low), (450_000, 50));
        let unknown = Estimate::new(about, &counted, &expecting, None);
        assert!(unknown.to_string().contains("cost           unknown"), "{unknown}");
    }

    #[test]
    fn nothing_at_all_comes_to_nothing() {
        let about = ("m", "approximation", 0);
        let none = Expecting::default();
        let estimate = Estimate::new(about, &Counted::default(), &none, None);
        assert_eq!((estimate.calls, estimate.input_tokens, estimate.output_tokens.high), (0, 0, 0));
    }
}
