//! Hostile bytes for structured answers: what a model says, and what a user types for a schema.

use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;

use crate::format::envelope;
use crate::job::Id;
use crate::schema::{Schema, from_short};

/// Characters that a reason may have; it is kept with every attempt.
const LONGEST_REASON: usize = 500;

/// Whatever a model says: what is taken for its JSON is in what it said, is valid, and makes one
/// line of an output; what is not is told in one short line.
pub(super) fn unwrap(bytes: &[u8], _: &Path) {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let text = from_short("label:pos|neg,score?:number,tags?:string[]").expect("it is one");
        Schema::read(&text).expect("it is a schema")
    });
    let text = String::from_utf8_lossy(bytes);
    match SCHEMA.extract(&text) {
        Ok(json) => {
            let value: Value = serde_json::from_str(&json).expect("it is JSON");
            assert!(matches!(value["label"].as_str(), Some("pos" | "neg")), "{json}");
            assert!(value.get("score").is_none_or(Value::is_number), "{json}");
            // As it was said, or as it was almost said: the same letters and digits.
            let words =
                |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
            let said = words(&text).to_ascii_lowercase();
            let is_spelled = said.contains(&words(&json).to_ascii_lowercase());
            assert!(is_spelled || text.contains(['\n', '\t', '\r', '/', '#', '\'']), "{json}");
            assert_eq!(SCHEMA.extract(&json).as_deref(), Ok(json.as_str()), "it is found again");
            let mut line = Vec::new();
            envelope::write(&mut line, &Id::from_row_number(1), 1, envelope::Verdict::Json(&json));
            assert!(!line.contains(&b'\n'));
            assert_eq!(envelope::read(&line).expect("an envelope can be read").result.get(), json);
        }
        Err(reason) => {
            assert!(!reason.is_empty() && reason.chars().count() <= LONGEST_REASON, "{reason}");
            assert!(!reason.contains(['\n', '\r']), "{reason}");
        }
    }
}

/// Whatever is typed for a schema is refused with a place in it, or makes a schema.
pub(super) fn short(bytes: &[u8], _: &Path) {
    let text = String::from_utf8_lossy(bytes);
    match from_short(&text) {
        Ok(schema) => {
            let read = Schema::read(&schema).expect("it is a schema");
            assert_eq!(read.text(), schema);
        }
        Err(error) => {
            let error = error.to_string();
            let at = error.rsplit(' ').next().and_then(|at| at.parse::<usize>().ok());
            assert!(at.is_some_and(|at| at <= text.chars().count() + 1), "{error}");
        }
    }
}
