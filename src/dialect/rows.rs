//! The `rows` dialect: any JSON object in, the envelope of [`crate::format::envelope`] out.

use super::{Content, Outcome, Problem};
use crate::format::json::Object;

/// Reads a line in.
///
/// # Errors
/// When it is no JSON object.
pub fn read(line: &str) -> Result<Object<'_>, Problem> {
    Object::parse(line).map_err(Problem::Json)
}

/// Reads a line out.
///
/// # Errors
/// When it is no envelope.
pub fn read_outcome(line: &str) -> Result<Outcome<'_>, Problem> {
    let line = read(line)?;
    let id = super::field(&line, "id")?;
    match super::field(&line, "ok")? {
        "true" => {
            let result = super::field(&line, "result")?;
            Ok(Outcome { id, result: Ok(Content::of_token(result)) })
        }
        "false" => {
            let error = super::field(&line, "error")?;
            let message = Object::parse(error).ok().and_then(|error| error.get("message"));
            let message = Content::of_token(message.unwrap_or(error));
            Ok(Outcome { id, result: Err(message.text().into_owned()) })
        }
        token => Err(super::wrong_type("ok", "a boolean", token)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::envelope::{self, Verdict};
    use crate::job::{Failure, FailureKind, Id};

    #[test]
    fn envelopes_are_read() {
        let line = |verdict| {
            let mut out = Vec::new();
            envelope::write(&mut out, &Id::parse("\"a\"").unwrap(), 1, verdict);
            String::from_utf8(out).unwrap()
        };
        let failure = Failure::new(FailureKind::Server, "went away");
        let (text, failed) = (line(Verdict::Text("hi")), line(Verdict::Failed(&failure, 2)));
        let outcome = read_outcome(&text).unwrap();
        assert_eq!((outcome.id, outcome.result), ("\"a\"", Ok(Content::Text("hi".to_owned()))));
        assert_eq!(read_outcome(&failed).unwrap().result, Err("went away".to_owned()));
        assert!(read_outcome("{\"id\":1}").is_err() && read_outcome("[]").is_err());
    }
}
