//! Structured answers at work: whether an answer fits its schema, and how the endpoint is told it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::value::RawValue;

use crate::job::{Answer, Content, Failure, FailureKind};
use crate::provider::refuses_schema;
use crate::schema::{Mode, Schema};
use crate::telemetry::Event;

/// What answers must be, and how that is brought about.
#[derive(Debug, Clone)]
pub struct Structured {
    /// What answers must fit.
    pub schema: Schema,
    /// How the endpoint is told.
    pub mode: Mode,
    /// How often a row is asked again whose answer does not fit, in a session.
    pub retries: u32,
}

/// [`Structured`] as all workers see it.
#[derive(Debug, Clone)]
pub(super) struct Form {
    structured: Structured,
    // Whether the schema is put into the instruction: from the beginning, or since the endpoint
    // refused the field that its protocol has for it.
    in_prompt: Arc<AtomicBool>,
}

impl Form {
    pub(super) fn new(structured: Structured) -> Self {
        let in_prompt = AtomicBool::new(structured.mode == Mode::Prompt);
        Self { structured, in_prompt: Arc::new(in_prompt) }
    }

    pub(super) fn retries(&self) -> u32 {
        self.structured.retries
    }

    /// Whether the next call has the schema in its instruction.
    pub(super) fn in_prompt(&self) -> bool {
        self.in_prompt.load(Ordering::Relaxed)
    }

    /// Whether a call whose schema was refused is made again with the schema in its instruction.
    /// Another may have had the same fate before; the first one is the one to tell of it.
    pub(super) fn falls_back(&self) -> Option<FirstToFall> {
        let may = self.structured.mode == Mode::Auto;
        may.then(|| FirstToFall(!self.in_prompt.swap(true, Ordering::Relaxed)))
    }

    /// What becomes of a call's result: an answer is one only if its JSON fits.
    pub(super) fn judge(
        &self,
        result: Result<Answer, Failure>,
        in_prompt: bool,
    ) -> Result<Answer, Failure> {
        match result {
            Ok(answer) => self.fit(answer),
            Err(mut failure) => {
                if !in_prompt && refuses_schema(&failure) {
                    failure.kind = FailureKind::SchemaRefused;
                }
                Err(failure)
            }
        }
    }

    fn fit(&self, answer: Answer) -> Result<Answer, Failure> {
        let said = answer.content.as_str();
        let is_cut = answer.finish_reason.as_deref() == Some("length");
        let found = self.structured.schema.find_answer(said);
        // What is closed by a bracket or a quote is whole, but what was cut off behind it may have been its correction; a
        // number may have had more digits.
        let is_whole = found.as_ref().is_ok_and(|found| found.is_last) || !is_cut;
        match found.map(|found| RawValue::from_string(found.json)) {
            Ok(Ok(json)) if is_whole && !(is_cut && is_number(&json)) => {
                Ok(Answer { content: Content::Json(json), ..answer })
            }
            _ if is_cut => {
                let message = "the answer was cut off at its longest and its JSON is not whole; a \
                               larger --max-tokens would let it end";
                Err(Failure::new(FailureKind::Truncated, message).with_raw(said))
            }
            Ok(Ok(_)) => Ok(answer),
            Ok(Err(error)) => Err(misfit(&error.to_string(), said)),
            Err(reason) => Err(misfit(&reason, said)),
        }
    }
}

/// What a person should know of an endpoint that refused a schema.
pub(super) fn schema_refused(why: &str) -> Event {
    Event::Warning(format!(
        "the endpoint takes no schema ({why}): from now on it stands in the instruction"
    ))
}

/// Whether nobody fell back before.
pub(super) struct FirstToFall(pub(super) bool);

fn misfit(reason: &str, said: &str) -> Failure {
    Failure::new(FailureKind::SchemaMismatch, reason).with_raw(said)
}

fn is_number(json: &RawValue) -> bool {
    json.get().starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(schema: &str, text: &str, finish_reason: &str) -> String {
        let schema = Schema::read(schema).unwrap();
        let form = Form::new(Structured { schema, mode: Mode::Auto, retries: 2 });
        let answer = Answer {
            content: Content::Text(text.to_owned()),
            model: None,
            finish_reason: Some(finish_reason.to_owned()),
            usage: None,
        };
        match form.judge(Ok(answer), false) {
            Ok(answer) => answer.content.as_str().to_owned(),
            Err(failure) => {
                assert_eq!(failure.raw.as_deref(), Some(text));
                failure.kind.class().to_owned()
            }
        }
    }

    #[test]
    fn an_answer_that_was_cut_off_is_not_one_that_does_not_fit() {
        assert_eq!(told("{}", "[1, 2]", "stop"), "[1,2]");
        assert_eq!(told("{}", "[1, 2", "stop"), "schema_mismatch");
        assert_eq!(told("{}", "[1, 2", "length"), "truncated");
        assert_eq!(told("{}", "[1, 2]", "length"), "[1,2]", "it is whole");
        assert_eq!(told("{}", "So: [1] or", "length"), "truncated", "it goes on");
        assert_eq!(told("{}", "So: [1] or", "stop"), "[1]");
        assert_eq!(told("{}", "<think>[1]? No", "length"), "truncated");
        assert_eq!(told("{}", "<think>[1]? No", "stop"), "schema_mismatch");
        assert_eq!(told("{}", "12", "stop"), "12");
        assert_eq!(told("{}", "12", "length"), "truncated", "it may have been 123");
        assert_eq!(told("{}", "null", "stop"), "null");
    }

    #[test]
    fn all_fall_back_together_and_one_tells() {
        let schema = Schema::read("{}").unwrap();
        let form = |mode| Form::new(Structured { schema: schema.clone(), mode, retries: 2 });
        let auto = form(Mode::Auto);
        let other = auto.clone();
        assert!(!auto.in_prompt());
        assert!(auto.falls_back().unwrap().0);
        assert!(!other.falls_back().unwrap().0);
        assert!(other.in_prompt());
        assert!(form(Mode::Prompt).in_prompt());
        assert!(form(Mode::Native).falls_back().is_none());
        let refusal = || Failure::new(FailureKind::BadRequest, "no response_format here");
        let kind = |in_prompt| auto.judge(Err(refusal()), in_prompt).unwrap_err().kind;
        assert_eq!(kind(false), FailureKind::SchemaRefused);
        assert_eq!(kind(true), FailureKind::BadRequest);
    }
}
