//! Structured answers: the schema of a job, the JSON in what a model says, and whether they agree.
//!
//! Nothing here calls anybody. What is kept of an answer is the model's own JSON text, so that its
//! numbers and strings come out as they were spelled; a parsed copy is judged beside it.

mod cost;
mod find;
mod given;
mod repair;
mod short;
mod thought;
mod value;

use std::str::FromStr;
use std::sync::Arc;

use jsonschema::{Retrieve, Uri, Validator};
use serde_json::Value;

use cost::{TooMuch, check_cost};
use find::NoAnswer;
pub use given::{BadGiven, read_given};
pub use short::{BadShort, from_short};

/// A JSON Schema, ready to judge answers. Drafts 4 to 2020-12; without `$schema` it is the last.
#[derive(Debug, Clone)]
pub struct Schema {
    text: Arc<str>,
    validator: Arc<Validator>,
    // Whether nothing but an object or a list can fit, as far as its root tells.
    is_of_parts: bool,
}

/// The JSON value that is the answer in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// Its text in one line: otherwise as the model spelled it, unless it was almost JSON.
    pub json: String,
    /// Whether nothing follows it that could have said something else.
    pub is_last: bool,
}

/// Why a text cannot be a job's schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSchema {
    /// It is no JSON.
    #[error("the schema is no JSON: {0}")]
    Syntax(String),
    /// It is JSON, but no object.
    #[error("the schema is no JSON object")]
    NotAnObject,
    /// No validator can be made of it.
    #[error("the schema is no valid JSON Schema: {0}")]
    Invalid(String),
    /// Its references multiply.
    #[error("the schema applies more than {0} subschemas to one value: its references multiply")]
    TooMuch(u64),
    /// A reference in it leads to itself.
    #[error("the schema has a reference that leads back to itself")]
    Endless,
}

/// How an endpoint is told the schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// In the field that its protocol has for it; in the instruction, once it has refused that.
    #[default]
    Auto,
    /// In the field that its protocol has for it, whatever it says.
    Native,
    /// In the instruction, as text.
    Prompt,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "prompt" => Ok(Self::Prompt),
            _ => Err("expected auto, native or prompt".to_owned()),
        }
    }
}

/// Characters of a reason: it stands in envelopes, and a model is shown it.
const LONGEST_REASON: usize = 400;

impl Schema {
    /// Reads a schema. References within it are followed; nothing is fetched.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &str) -> Result<Self, BadSchema> {
        let text = text.trim_start_matches('\u{feff}').trim();
        let value = value::parse(text).map_err(BadSchema::Syntax)?;
        if !value.is_object() {
            return Err(BadSchema::NotAnObject);
        }
        check_cost(&value).map_err(|it| match it {
            TooMuch::Steps => BadSchema::TooMuch(cost::MOST),
            TooMuch::Endless => BadSchema::Endless,
        })?;
        let options = jsonschema::options().with_retriever(Nothing);
        let validator = options.build(&value).map_err(|error| {
            let place = error.instance_path().to_string();
            let at = if place.is_empty() { String::new() } else { format!("at {place}: ") };
            BadSchema::Invalid(shortened(&format!("{at}{}", error.masked())))
        })?;
        let is_of_parts = is_of_parts(&value, &value, 0);
        let text = value::compact(text).into();
        Ok(Self { text, validator: Arc::new(validator), is_of_parts })
    }

    /// Its text without white space between tokens: what is fingerprinted and sent.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The JSON value that is the answer in what a model said, in one line; see [`Schema::find_answer`].
    ///
    /// # Errors
    /// As [`Schema::find_answer`].
    pub fn extract(&self, answer: &str) -> Result<String, String> {
        self.find_answer(answer).map(|found| found.json)
    }

    /// Finds the JSON value that is the answer in what a model said: the whole of it, or else the one value outside of
    /// thoughts that the schema allows.
    ///
    /// # Errors
    /// In one line, what the schema has against the first JSON in it, or why there is no answer.
    pub fn find_answer(&self, answer: &str) -> Result<Extracted, String> {
        let found = find::find(answer, &|value| self.allows(value));
        let found =
            found.map(|it| Extracted { json: value::compact(&it.json), is_last: it.is_last });
        found.map_err(|none| {
            match none {
                NoAnswer::Told(reason) => shortened(&reason),
                NoAnswer::Plain(_) if self.is_of_parts => {
                    "the answer holds no JSON object or list".to_owned()
                }
                // A text without its quotes, most likely.
                NoAnswer::Plain(error) => {
                    shortened(&format!("the answer is no JSON value: {error}"))
                }
            }
        })
    }

    /// What the schema has against a value: the first three places, each with what was expected.
    fn allows(&self, value: &Value) -> Result<(), String> {
        const PLACES: usize = 3;
        if self.validator.is_valid(value) {
            return Ok(());
        }
        let errors = self.validator.iter_errors(value).take(PLACES).map(|error| {
            /// A value longer than this is called what it is: a value.
            const SHOWN: usize = 80;
            let path = error.instance_path().to_string();
            let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
            let is_short = error.instance().to_string().len() <= SHOWN;
            let what = if is_short { error.to_string() } else { error.masked().to_string() };
            format!("{place}{what}")
        });
        Err(errors.collect::<Vec<_>>().join("; "))
    }
}

/// Whether a schema's root says that what fits is an object or a list: by its `type`, its values,
/// its alternatives, what it refers to, or because it speaks of fields or items.
fn is_of_parts(schema: &Value, root: &Value, depth: usize) -> bool {
    /// References may go round in circles.
    const DEEPEST: usize = 8;
    if depth > DEEPEST {
        return false;
    }
    let is_of_parts = |schema: &Value| is_of_parts(schema, root, depth + 1);
    let is_list = |name: &str, test: &dyn Fn(&Value) -> bool| {
        schema[name].as_array().map(|list| list.iter().all(test))
    };
    let is_type = |kind: &Value| matches!(kind.as_str(), Some("object" | "array"));
    let is_value = |value: &Value| value.is_object() || value.is_array();
    let target = schema["$ref"].as_str().and_then(|it| root.pointer(it.strip_prefix('#')?));
    schema
        .get("type")
        .filter(|it| it.is_string())
        .map(is_type)
        .or_else(|| is_list("type", &is_type))
        .or_else(|| schema.get("const").map(is_value))
        .or_else(|| is_list("enum", &is_value))
        .or_else(|| is_list("anyOf", &is_of_parts))
        .or_else(|| is_list("oneOf", &is_of_parts))
        .or_else(|| target.map(is_of_parts))
        .unwrap_or_else(|| {
            ["properties", "required", "items", "prefixItems"]
                .iter()
                .any(|it| schema.get(it).is_some())
        })
}

/// Fetches no schema: a run depends on what it was given, not on a page that changes.
struct Nothing;

impl Retrieve for Nothing {
    fn retrieve(
        &self,
        uri: &Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri} is outside of the schema, and rowmill fetches nothing for a $ref")
            .into())
    }
}

/// A text in one line, cut when it is long.
fn shortened(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schema() -> Schema {
        Schema::read(&from_short("label:pos|neg,score:number,note?").unwrap()).unwrap()
    }

    #[test]
    fn json_is_kept_as_it_is_spelled_in_one_line() {
        let answer =
            "\u{feff} {\n  \"score\" : 1.50 ,\r\n\t\"label\":\"p\\u006fs\",\"note\":\"a  b\"}\n";
        let kept = "{\"score\":1.50,\"label\":\"p\\u006fs\",\"note\":\"a  b\"}";
        assert_eq!(schema().extract(answer).as_deref(), Ok(kept));
        for number in
            ["12345678901234567890", "123456789012345678901234567890", "-0", "1E2", "1e-400"]
        {
            let answer = format!("{{\"label\":\"pos\",\"score\":{number}}}");
            assert_eq!(schema().extract(&answer), Ok(answer));
        }
        let null = Schema::read(r#"{"type":["object","null"]}"#).unwrap();
        assert_eq!(null.extract(" null\n").as_deref(), Ok("null"));
    }

    #[test]
    fn what_cannot_be_judged_is_not_taken() {
        let reason = |answer: &str| schema().extract(answer).unwrap_err();
        assert_eq!(
            reason(r#"{"label":"pos","score":1e400}"#),
            "the answer is no JSON: number out of range at line 1 column 28"
        );
        assert!(reason(r#"{"label":"pos","score":NaN}"#).starts_with("the answer is no JSON: "));
        assert_eq!(
            reason(r#"{"label":"pos","score":1,"label":"neg"}"#),
            "the answer is no JSON: the key \"label\" stands twice at line 1 column 32"
        );
        assert!(reason("{\"label\":\"pos\",\"score\":1").contains("EOF"));
    }

    #[test]
    fn reasons_name_the_place_and_what_was_expected() {
        let reason = |answer: &str| schema().extract(answer).unwrap_err();
        assert_eq!(
            reason(r#"{"label":"good","score":"high"}"#),
            "/label: \"good\" is not one of \"pos\" or \"neg\"; /score: \"high\" is not of type \"number\""
        );
        assert_eq!(reason(r#"{"label":"pos"}"#), "\"score\" is a required property");
        assert_eq!(
            reason("{\"label\":\"pos\",\"score\":1,\"x\\ny\":1}"),
            "Additional properties are not allowed ('x y' was unexpected)"
        );
        assert_eq!(reason("null"), "null is not of type \"object\"");
        assert_eq!(reason("it is positive"), "the answer holds no JSON object or list");
        assert_eq!(reason(""), "the answer holds no JSON object or list");
        let long = format!("{{\"label\":\"{}\",\"score\":1}}", "y".repeat(100_000));
        assert_eq!(reason(&long), "/label: value is not one of \"pos\" or \"neg\"");
        let many = format!("{{\"{}\":1,\"label\":\"pos\",\"score\":1}}", "z".repeat(100_000));
        assert_eq!(reason(&many).chars().count(), LONGEST_REASON + 1);
    }

    #[test]
    fn who_is_to_say_a_word_is_not_told_of_objects() {
        let plain = "the answer is no JSON value: expected value at line 1 column 1";
        let parts = "the answer holds no JSON object or list";
        for (schema, told) in [
            (r#"{"enum":["pos","neg"]}"#, plain),
            (r#"{"type":"string"}"#, plain),
            (r#"{"type":["object","null"]}"#, plain),
            (r#"{"anyOf":[{"type":"object"},{"type":"number"}]}"#, plain),
            (r##"{"$ref":"#/$defs/a","$defs":{"a":{"enum":["a"]}}}"##, plain),
            ("{}", plain),
            (r#"{"type":"array"}"#, parts),
            (r#"{"type":["object","array"]}"#, parts),
            (r#"{"enum":[[],{}]}"#, parts),
            (r#"{"oneOf":[{"type":"object"},{"properties":{"a":{}}}]}"#, parts),
            (r##"{"$ref":"#/$defs/a","$defs":{"a":{"type":"object"}}}"##, parts),
        ] {
            let schema = Schema::read(schema).unwrap();
            assert_eq!(schema.extract("pos").unwrap_err(), told, "{}", schema.text());
        }
        let schema = Schema::read(r#"{"enum":["pos"]}"#).unwrap();
        assert_eq!(schema.extract("\"pos\"").as_deref(), Ok("\"pos\""));
        let cut = schema.extract("\"po").unwrap_err();
        assert!(cut.starts_with("the answer is no JSON value: EOF"), "{cut}");
    }

    #[test]
    fn bad_schemas_are_told_with_their_place() {
        let error = |text: &str| Schema::read(text).unwrap_err().to_string();
        assert_eq!(
            error("{\"type\":"),
            "the schema is no JSON: EOF while parsing a value at line 1 column 8"
        );
        assert_eq!(error("[]"), "the schema is no JSON object");
        let endless = "the schema has a reference that leads back to itself";
        assert_eq!(error(r##"{"$ref":"#"}"##), endless);
        let place = error(r#"{"properties":{"a":{"type":"strnig"}}}"#);
        assert!(place.starts_with("the schema is no valid JSON Schema: at /properties/a/type: "));
        let remote = error(r#"{"$ref":"https://example.org/x.json"}"#);
        assert!(remote.contains("https://example.org/x.json is outside"), "{remote}");
        assert!(error(r#"{"$ref":"file:///etc/passwd"}"#).contains("is outside"));
        assert!(error(r#"{"pattern":"("}"#).contains("at /pattern"));
        assert!(error(r#"{"type":"object","type":"string"}"#).contains("stands twice"));
        let local =
            r##"{"$defs":{"n":{"type":"number"}},"properties":{"a":{"$ref":"#/$defs/n"}}}"##;
        let local = Schema::read(local).unwrap();
        assert!(local.extract(r#"{"a":1}"#).is_ok() && local.extract(r#"{"a":"1"}"#).is_err());
    }

    #[test]
    fn formats_are_checked_where_the_draft_says_so() {
        let schema = |draft: &str| {
            let text = format!(
                "{{\"$schema\":\"http://json-schema.org/{draft}schema#\",\"format\":\"ipv4\"}}"
            );
            Schema::read(&text).unwrap()
        };
        assert!(schema("draft-07/").extract("\"x\"").is_err());
        assert!(Schema::read(r#"{"format":"ipv4"}"#).unwrap().extract("\"x\"").is_ok());
    }

    #[test]
    fn a_pattern_that_never_ends_is_given_up() {
        let schema = Schema::read(r#"{"type":"string","pattern":"^(?=(a+)+$)(a|a)*b$"}"#).unwrap();
        let reason = schema.extract(&format!("\"{}\"", "a".repeat(40))).unwrap_err();
        assert!(!reason.is_empty());
    }

    proptest! {
        /// Whatever is written around it, and however it is fenced, an answer is found and is kept.
        #[test]
        fn answers_are_found_in_any_padding(
            before in "[^{\\[`]{0,40}", behind in "[^{\\[`]{0,40}", score in any::<f64>(),
            note in "\\PC{0,20}", fence in prop::sample::select(vec!["", "```", "```json\n", "~"]),
        ) {
            prop_assume!(score.is_finite());
            let note = Value::from(note).to_string();
            let json = format!("{{\"label\":\"neg\",\"score\":{score:?},\"note\":{note}}}");
            let close = if fence.starts_with('`') { "\n```\n" } else { "" };
            let answer = format!("{before}{fence}{json}{close}{behind}");
            prop_assert_eq!(schema().extract(&answer), Ok(json));
        }

        /// No cut of an answer passes for it.
        #[test]
        fn no_cut_passes(note in "\\PC{0,20}", cut in 0_usize..200) {
            let note = Value::from(note).to_string();
            let json = format!("{{\"note\":{note},\"label\":\"neg\",\"score\":2}}");
            let cut = json.floor_char_boundary(cut % json.len());
            prop_assert!(schema().extract(&json[..cut]).is_err());
            let fenced = format!("```json\n{}", &json[..cut]);
            prop_assert!(schema().extract(&fenced).is_err());
        }
    }
}
