//! The `prompts` dialect: lines of `dria batch`.
//!
//! In: `{"prompt":…,"id"?:…,"attachment"?:…}`.
//! Out: `{"id":…,"model":…,"output":…,"tokens":…}`, or `{"id":…,"model":…,"error":"503: no nodes available"}`.
//! Source: <https://docs.dria.co>.

use std::borrow::Cow;

use super::{
    Answer, AnswerLine, Content, Outcome, Problem, Spelling, field, some_string, text, wrong_type,
};
use crate::format::json::Object;
use crate::job::{Id, IdProblem};

/// The fields that a line may have.
pub const FIELDS: [&str; 3] = ["id", "prompt", "attachment"];

/// A line in. All values are slices of the line.
#[derive(Debug)]
pub struct Request<'a> {
    id: Option<&'a str>,
    prompt: &'a str,
    attachment: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Reads a line. Fields that it need not have may be null; fields of other names are passed over.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(line: &'a str) -> Result<Self, Problem> {
        Self::of(&Object::parse(line).map_err(Problem::Json)?)
    }

    /// As [`Request::read`], of a line that was read as JSON already.
    ///
    /// # Errors
    /// As [`Request::read`].
    pub fn of(line: &Object<'a>) -> Result<Self, Problem> {
        let prompt = some_string(line, "prompt")?;
        let is_there = |token: &&str| *token != "null";
        let id = line.get("id").filter(is_there);
        if let Some(token) = id {
            check_id(token)?;
        }
        let attachment = line.get("attachment").filter(|token| !is_nothing(token));
        if attachment.is_some() {
            some_string(line, "attachment")?;
        }
        Ok(Self { id, prompt, attachment })
    }

    /// The id, as the line spells it: a string or an integer. Without one a line is known by its number.
    #[must_use]
    pub fn id(&self) -> Option<&'a str> {
        self.id
    }

    /// The prompt.
    #[must_use]
    pub fn prompt(&self) -> Cow<'a, str> {
        text(self.prompt)
    }

    /// A path, a URL or a data URI of what is sent along.
    #[must_use]
    pub fn attachment(&self) -> Option<Cow<'a, str>> {
        self.attachment.map(text)
    }
}

/// Whether a field that says what is attached says nothing: null, an empty text or an empty list, as in a row.
fn is_nothing(token: &str) -> bool {
    match token.as_bytes().first() {
        Some(b'"') => text(token).trim().is_empty(),
        Some(b'[') => token[1..].trim_start().starts_with(']'),
        _ => token == "null",
    }
}

fn check_id(token: &str) -> Result<(), Problem> {
    match Id::hash_of(token) {
        Ok(_) => Ok(()),
        Err(IdProblem::Empty) => Err(Problem::Empty("id")),
        Err(IdProblem::Null | IdProblem::WrongType) => {
            Err(wrong_type("id", "a string or an integer", token))
        }
    }
}

/// The fields of a line out.
const SPELLING: Spelling = Spelling { id: "id", answer: "output", tokens: "tokens" };

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
    match line.get("output") {
        Some(output) => Ok(Outcome { id, result: Ok(Content::of_token(output)) }),
        None => Err(Problem::NoOutcome),
    }
}

/// The id of a line out: null where that of the line in could not be read, which failed then.
fn answered_id<'a>(line: &Object<'a>) -> Result<&'a str, Problem> {
    let id = field(line, "id")?;
    let has_failed = line.get("error").is_some_and(|error| error != "null");
    if id != "null" || !has_failed {
        check_id(id)?;
    }
    Ok(id)
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

    fn problem(line: &str) -> String {
        Request::read(line).map_or_else(|problem| problem.to_string(), |_| "fine".to_owned())
    }

    #[test]
    fn lines_are_read_and_bad_ones_have_their_reason() {
        let request =
            Request::read(r#"{"prompt":"caf\u00e9","id":7,"attachment":"a.png","x":1}"#).unwrap();
        assert_eq!(request.prompt(), "café");
        assert_eq!((request.id(), request.attachment().as_deref()), (Some("7"), Some("a.png")));
        let bare = Request::read(r#"{"prompt":"x","id":null,"attachment":null}"#).unwrap();
        assert_eq!((bare.id(), bare.attachment()), (None, None));
        for nothing in ["\"\"", "\" \"", "[]", "[ ]"] {
            let line = format!("{{\"prompt\":\"x\",\"attachment\":{nothing}}}");
            assert_eq!(Request::read(&line).unwrap().attachment(), None, "{line}");
        }
        for (line, expected) in [
            ("{}", "prompt is missing"),
            (r#"{"prompt":""}"#, "prompt is empty"),
            (r#"{"prompt":["a"]}"#, "prompt is a list, not a string"),
            (r#"{"prompt":"a","id":1.5}"#, "id is a number, not a string or an integer"),
            (r#"{"prompt":"a","id":""}"#, "id is empty"),
            (r#"{"prompt":"a","attachment":{}}"#, "attachment is an object, not a string"),
            (r#"{"prompt":"a","attachment":["a"]}"#, "attachment is a list, not a string"),
            ("7", "expected a JSON object, got a number"),
        ] {
            assert_eq!(problem(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = Vec::new();
        write_answer(&mut out, "\"a\"", Some("m"), Answer::Text("hi \"you\"\n"), Some(4));
        write_answer(&mut out, "7", None, Answer::Json("{\"n\":1.50}"), None);
        write_failure(&mut out, "7", Some("m"), Some(503), "no nodes available");
        write_failure(&mut out, "7", Some("m"), None, "went away");
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "{\"id\":\"a\",\"model\":\"m\",\"output\":\"hi \\\"you\\\"\\n\",\"tokens\":4}\n\
             {\"id\":7,\"model\":null,\"output\":{\"n\":1.50},\"tokens\":null}\n\
             {\"id\":7,\"model\":\"m\",\"error\":\"503: no nodes available\"}\n\
             {\"id\":7,\"model\":\"m\",\"error\":\"went away\"}\n"
        );
        let results: Vec<_> = text.lines().map(|line| read_outcome(line).unwrap().result).collect();
        assert_eq!(results[0], Ok(Content::Text("hi \"you\"\n".to_owned())));
        assert_eq!(results[1], Ok(Content::Json(serde_json::json!({"n": 1.5}))));
        assert_eq!(results[2], Err("503: no nodes available".to_owned()));
        let held: Vec<_> = text.lines().map(|line| read_answer(line).unwrap()).collect();
        let answers = held.iter().map(|held| (held.id, held.answer)).collect::<Vec<_>>();
        let json = Some("{\"n\":1.50}");
        let said = Some("\"hi \\\"you\\\"\\n\"");
        assert_eq!(answers, [("\"a\"", said), ("7", json), ("7", None), ("7", None)]);
        assert_eq!(
            read_answer(r#"{"id":7,"output":""}"#).unwrap().answer,
            None,
            "nothing was said"
        );
        assert!(read_answer(r#"{"id":7,"model":"m"}"#).is_err());
        assert!(read_answer(r#"{"output":"x"}"#).is_err());
    }
}
