//! The `dria` dialect: lines of Dria's Batch API.
//!
//! In: `{"custom_id":…,"type":"completions","version":"v1","body":{"model":…,"max_tokens":…,"messages":[…]}}`.
//! Out: `{"custom_id":…,"model":…,"result":…,"token_count":…}`, or with `error` in the place of the last two.
//! Dria's own example of a line out has no `custom_id`, though its text says to match by it; ours has it.
//! Source: <https://docs.dria.co>.

use super::{
    Answer, AnswerLine, Body, Content, Outcome, Problem, Spelling, answered_id, shown, some_string,
    text, wrong_type,
};
use crate::format::json::Object;

/// A line in. All values are slices of the line; the body's bytes are never changed.
#[derive(Debug)]
pub struct Request<'a> {
    id: &'a str,
    body: Body<'a>,
}

impl<'a> Request<'a> {
    /// Reads a line. `has_model` says that the caller names a model, so that the body need not.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(line: &'a str, has_model: bool) -> Result<Self, Problem> {
        Self::of(&Object::parse(line).map_err(Problem::Json)?, has_model)
    }

    /// As [`Request::read`], of a line that was read as JSON already.
    ///
    /// # Errors
    /// As [`Request::read`].
    pub fn of(line: &Object<'a>, has_model: bool) -> Result<Self, Problem> {
        let id = some_string(line, "custom_id")?;
        for (name, expected, quoted) in
            [("type", "completions", "\"completions\""), ("version", "v1", "\"v1\"")]
        {
            let found = text(some_string(line, name)?);
            if found != expected {
                let found = shown(&found);
                return Err(Problem::WrongValue { field: name, found, expected: quoted });
            }
        }
        let body = super::object(line, "body")?;
        if !has_model || body.get("model").is_some() {
            some_string(&body, "body.model")?;
        }
        let messages = super::field(&body, "body.messages")?;
        if !messages.starts_with('[') {
            return Err(wrong_type("body.messages", "a list", messages));
        }
        if messages[1..].trim_ascii_start().starts_with(']') {
            return Err(Problem::Empty("body.messages"));
        }
        if let Some(most) = body.get("max_tokens")
            && !most.parse::<u64>().is_ok_and(|most| most > 0)
        {
            return Err(Problem::WrongValue {
                field: "body.max_tokens",
                found: shown(most),
                expected: "a positive integer",
            });
        }
        Ok(Self { id, body: Body(body) })
    }

    /// The `custom_id`, as the line spells it, quotes included.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// Whether the id is a UUID, as Dria's documentation has it.
    #[must_use]
    pub fn has_uuid(&self) -> bool {
        let id = text(self.id);
        let parts: Vec<_> = id.split('-').collect();
        let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
        let is_hex = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        is_hex && lengths == [8, 4, 4, 4, 12]
    }

    /// The body: one of Chat Completions.
    #[must_use]
    pub fn body(&self) -> &Body<'a> {
        &self.body
    }
}

/// The fields of a line out.
const SPELLING: Spelling = Spelling { id: "custom_id", answer: "result", tokens: "token_count" };

/// Appends the line of an answer, with its line end. `id` is as the line in spelled it; `tokens` are those of the answer,
/// null where they are not known.
pub fn write_answer(
    out: &mut Vec<u8>,
    id: &str,
    model: Option<&str>,
    answer: Answer<'_>,
    tokens: Option<u64>,
) {
    SPELLING.answer(out, (id, model), answer, tokens);
}

/// Appends the line of a failure, with its line end; `status` is that of the HTTP response, if there was one.
pub fn write_failure(
    out: &mut Vec<u8>,
    id: &str,
    model: Option<&str>,
    status: Option<u16>,
    message: &str,
) {
    SPELLING.failure(out, (id, model), status, message);
}

/// Reads a line out.
///
/// # Errors
/// When it is none.
pub fn read_outcome(line: &str) -> Result<Outcome<'_>, Problem> {
    let line = Object::parse(line).map_err(Problem::Json)?;
    let id = answered_id(&line)?;
    if let Some(error) = line.get("error").filter(|error| *error != "null") {
        return Ok(Outcome { id, result: Err(Content::of_token(error).text().into_owned()) });
    }
    match line.get("result") {
        Some(result) => Ok(Outcome { id, result: Ok(Content::of_token(result)) }),
        None => Err(Problem::NoOutcome),
    }
}

/// Reads what a line out holds for whoever goes on from it.
///
/// # Errors
/// When it is none.
pub fn read_answer(line: &str) -> Result<AnswerLine<'_>, Problem> {
    let line = Object::parse(line).map_err(Problem::Json)?;
    let id = answered_id(&line)?;
    SPELLING.answer_of(&line).map(|answer| AnswerLine { id, answer, named: [None; 2] })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"custom_id":"123e4567-e89b-12d3-a456-426614174000","type":"completions","version":"v1","body":{"model":"m", "max_tokens":99,"messages":[{"role":"user","content":"x"}]}}"#;

    #[test]
    fn lines_are_read_and_bad_ones_have_their_reason() {
        let request = Request::read(LINE, false).unwrap();
        assert!(request.has_uuid());
        assert_eq!(request.body().model().unwrap(), "m");
        assert!(request.body().spelled().starts_with("{\"model\":\"m\", \"max"));
        let changed = |from: &str, to: &str| {
            let line = LINE.replace(from, to);
            let result = Request::read(&line, false);
            result.map_or_else(|problem| problem.to_string(), |it| it.has_uuid().to_string())
        };
        for (from, to, expected) in [
            ("123e", "123x", "false"),
            ("custom_id", "id", "custom_id is missing"),
            ("completions", "chat", "type is \"chat\", not \"completions\""),
            ("\"v1\"", "1", "version is a number, not a string"),
            ("\"m\"", "null", "body.model is null, not a string"),
            ("\"model\"", "\"x\"", "body.model is missing"),
            ("messages", "prompt", "body.messages is missing"),
            (
                "[{\"role\":\"user\",\"content\":\"x\"}]",
                "\"x\"",
                "body.messages is a string, not a list",
            ),
            ("{\"role\":\"user\",\"content\":\"x\"}", " ", "body.messages is empty"),
            ("99", "1.5", "body.max_tokens is \"1.5\", not a positive integer"),
        ] {
            assert_eq!(changed(from, to), expected);
        }
        assert!(Request::read(&LINE.replace("\"model\":\"m\",", ""), true).is_ok());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = Vec::new();
        write_answer(&mut out, "\"a\"", Some("m"), Answer::Text("hi"), Some(1));
        write_failure(&mut out, "\"b\"", Some("m"), Some(503), "no nodes");
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "{\"custom_id\":\"a\",\"model\":\"m\",\"result\":\"hi\",\"token_count\":1}\n\
             {\"custom_id\":\"b\",\"model\":\"m\",\"error\":\"503: no nodes\"}\n"
        );
        let results: Vec<_> = text.lines().map(|line| read_outcome(line).unwrap().result).collect();
        let expected = [Ok(Content::Text("hi".to_owned())), Err("503: no nodes".to_owned())];
        assert_eq!(results, expected);
        let held: Vec<_> = text.lines().map(|line| read_answer(line).unwrap()).collect();
        let answers = held.iter().map(|held| (held.id, held.answer)).collect::<Vec<_>>();
        assert_eq!(answers, [("\"a\"", Some("\"hi\"")), ("\"b\"", None)]);
        assert!(read_answer(r#"{"model":"m","result":"x"}"#).is_err(), "it is not known of which");
    }
}
