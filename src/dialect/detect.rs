//! Which dialect a file is in, and on which side: requests or what came of them.
//!
//! The first lines tell, by the names of their fields. Lines that are no JSON objects tell nothing.

use std::fmt;

use super::{Dialect, prompts, utf8};
use crate::format::json::Object;

/// How many lines are looked at.
pub const LINES: usize = 20;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Lines in.
    Requests,
    /// Lines out.
    Outcomes,
}

impl Side {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Outcomes => "results",
        }
    }
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Its dialect.
    pub dialect: Dialect,
    /// Its side.
    pub side: Side,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the dialect {}", self.side.name(), self.dialect)
    }
}

/// Two lines of a file look like different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {} looks like {}, line {} like {}", first.0, first.1, second.0, second.1)]
pub struct Mixed {
    /// A line, and what it looks like.
    pub first: (u64, Form),
    /// The first that looks otherwise.
    pub second: (u64, Form),
}

/// What the first lines of a file look like, given with their numbers; nothing where none of them is a JSON object.
/// CSV files are rows, and no matter of this.
///
/// Files of prompts in which some lines have further fields are rows, as long as each line has a `prompt`: see
/// [`further_in`]. One without a text there among prompts is rather a slip than a row.
///
/// # Errors
/// When they do not look alike.
pub fn detect<'a>(lines: impl IntoIterator<Item = (u64, &'a [u8])>) -> Result<Option<Form>, Mixed> {
    let mut found: Option<(u64, Form)> = None;
    let (mut prompt, mut row, mut asks_nothing) = (None, None, None);
    for (number, line) in lines.into_iter().take(LINES) {
        let Some(form) = form_of(line) else { continue };
        match found {
            None => found = Some((number, form)),
            Some((_, before)) if before == form => {}
            Some((_, before)) if [before, form] == [ROWS, PROMPTS] => {}
            Some((_, before)) if [before, form] == [PROMPTS, ROWS] => found = Some((number, ROWS)),
            Some(first) => return Err(Mixed { first, second: (number, form) }),
        }
        let seen = (number, form);
        match form {
            PROMPTS => _ = prompt.get_or_insert(seen),
            ROWS => _ = row.get_or_insert(seen),
            _ => continue,
        }
        if !has_prompt(line) {
            asks_nothing.get_or_insert(seen);
        }
        let other = asks_nothing.and_then(|(_, form)| if form == ROWS { prompt } else { row });
        if let (Some(one), Some(other)) = (asks_nothing, other) {
            let (first, second) = if one.0 < other.0 { (one, other) } else { (other, one) };
            return Err(Mixed { first, second });
        }
    }
    Ok(found.map(|(_, form)| form))
}

const ROWS: Form = Form { dialect: Dialect::Rows, side: Side::Requests };
const PROMPTS: Form = Form { dialect: Dialect::Prompts, side: Side::Requests };

fn has_prompt(line: &[u8]) -> bool {
    let object = utf8(line).ok().and_then(|text| Object::parse(text).ok());
    object.is_some_and(|it| it.get("prompt").is_some_and(|token| token.starts_with('"')))
}

/// Why the beginning of a file is rows and no prompts though all of its first lines have a text in `prompt`: the number of
/// the first line that has a further field, and that field's name.
#[must_use]
pub fn further_in(beginning: &[u8]) -> Option<(u64, String)> {
    let mut further = None;
    for (number, line) in lines_in(beginning).take(LINES) {
        let Some(form) = form_of(line) else { continue };
        if ![ROWS, PROMPTS].contains(&form) || !has_prompt(line) {
            return None;
        }
        if further.is_none() {
            let object = Object::parse(utf8(line).ok()?).ok()?;
            let name = object.names().find(|name| !prompts::FIELDS.contains(name));
            further = name.map(|name| (number, name.chars().take(100).collect()));
        }
    }
    further
}

/// What the beginning of a file looks like; of its last line there may be only a part. Blank lines are passed over.
///
/// # Errors
/// As [`detect`].
pub fn detect_in(beginning: &[u8]) -> Result<Option<Form>, Mixed> {
    detect(lines_in(beginning))
}

/// A batch API whose requests are no rows, though rows may be any object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Anthropic's Message Batches: `{"custom_id","params":{"messages"}}`.
    /// <https://platform.claude.com/docs/en/build-with-claude/batch-processing>
    Anthropic,
    /// Gemini's Batch API: `{"key","request":{"contents"}}`. <https://ai.google.dev/gemini-api/docs/batch-mode>
    Gemini,
    /// Amazon Bedrock's batch inference: `{"recordId","modelInput"}`.
    /// <https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-data.html>
    Bedrock,
}

impl Foreign {
    /// Whose it is.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "Anthropic's Message Batches",
            Self::Gemini => "Gemini's Batch API",
            Self::Bedrock => "Bedrock's batch inference",
        }
    }

    /// The program for `jq -c` that makes lines of it which can be asked.
    #[must_use]
    pub fn conversion(self) -> &'static str {
        match self {
            Self::Anthropic => r#"{custom_id, method: "POST", url: "/v1/messages", body: .params}"#,
            Self::Gemini => {
                "{id: .key, prompt: ([.request.contents[].parts[].text] | join(\"\\n\"))}"
            }
            Self::Bedrock => {
                r#"{custom_id: .recordId, method: "POST", url: "/v1/messages", body: .modelInput}"#
            }
        }
    }
}

/// The batch API that the first line of a file is a request of, where that is none whose lines are read here.
#[must_use]
pub fn foreign_in(beginning: &[u8]) -> Option<Foreign> {
    let mut lines = lines_in(beginning).take(LINES);
    let line = lines.find_map(|(_, line)| Object::parse(utf8(line).ok()?).ok())?;
    let has = |object: &Object<'_>, name: &str| object.get(name).is_some();
    let inner = |name: &str| Object::parse(line.get(name)?).ok();
    let asks = |name: &str, field: &str| inner(name).is_some_and(|it| has(&it, field));
    match () {
        () if has(&line, "custom_id") && asks("params", "messages") => Some(Foreign::Anthropic),
        () if asks("request", "contents") => Some(Foreign::Gemini),
        () if has(&line, "recordId") && inner("modelInput").is_some() => Some(Foreign::Bedrock),
        () => None,
    }
}

/// The lines that are not blank, with their numbers.
fn lines_in(beginning: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let text = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning);
    let lines = (1..).zip(text.split(|byte| *byte == b'\n'));
    lines.filter(|(_, line)| !line.trim_ascii().is_empty())
}

/// What a line looks like; nothing where it is no JSON object.
#[must_use]
pub fn form_of(line: &[u8]) -> Option<Form> {
    let object = Object::parse(utf8(line).ok()?).ok()?;
    let has = |name: &str| object.get(name).is_some();
    let form = |dialect, side| Some(Form { dialect, side });
    if has("custom_id") {
        return match () {
            () if has("response") && has("error") => form(Dialect::OpenAi, Side::Outcomes),
            () if has("url") || has("method") => form(Dialect::OpenAi, Side::Requests),
            () if has("result") && has("model") => form(Dialect::Dria, Side::Outcomes),
            () if has("error") && has("model") => form(Dialect::Dria, Side::Outcomes),
            () if has("body") && (has("type") || has("version")) => {
                form(Dialect::Dria, Side::Requests)
            }
            () if has("body") => form(Dialect::OpenAi, Side::Requests),
            () => form(Dialect::Rows, Side::Requests),
        };
    }
    // Requests without their ids are bad requests, no rows.
    if has("body") && has("url") && has("method") {
        return form(Dialect::OpenAi, Side::Requests);
    }
    if has("body") && has("type") && has("version") {
        return form(Dialect::Dria, Side::Requests);
    }
    if has("id") && has("row_number") && has("ok") && has("result") && has("error") {
        return form(Dialect::Rows, Side::Outcomes);
    }
    let mut names = object.names();
    if has("prompt") && names.all(|name| prompts::FIELDS.contains(&name)) {
        return form(Dialect::Prompts, Side::Requests);
    }
    let mut names = object.names();
    if has("id") && has("model") && names.all(|name| OUTCOME.contains(&name)) {
        return form(Dialect::Prompts, Side::Outcomes);
    }
    form(Dialect::Rows, Side::Requests)
}

/// The fields of a line out of `prompts`.
const OUTCOME: [&str; 5] = ["id", "model", "output", "tokens", "error"];

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(text: &str) -> String {
        match detect((1..).zip(text.lines().map(str::as_bytes))) {
            Ok(Some(form)) => form.to_string(),
            Ok(None) => "nothing".to_owned(),
            Err(mixed) => mixed.to_string(),
        }
    }

    #[test]
    fn fields_tell() {
        for (line, expected) in [
            (
                r#"{"custom_id":"a","method":"POST","url":"/v1/x","body":{}}"#,
                "requests of the dialect openai",
            ),
            (r#"{"custom_id":"a","body":{}}"#, "requests of the dialect openai"),
            (r#"{"method":"POST","url":"/v1/x","body":{}}"#, "requests of the dialect openai"),
            (r#"{"type":"completions","version":"v1","body":{}}"#, "requests of the dialect dria"),
            (r#"{"url":"/x","body":"an article"}"#, "requests of the dialect rows"),
            (
                r#"{"id":"b","custom_id":"a","response":null,"error":{}}"#,
                "results of the dialect openai",
            ),
            (
                r#"{"custom_id":"a","type":"completions","version":"v1","body":{}}"#,
                "requests of the dialect dria",
            ),
            (
                r#"{"custom_id":"a","model":"m","result":"x","token_count":1}"#,
                "results of the dialect dria",
            ),
            (r#"{"custom_id":"a","model":"m","error":"x"}"#, "results of the dialect dria"),
            (r#"{"prompt":"x"}"#, "requests of the dialect prompts"),
            (r#"{"id":1,"prompt":"x","attachment":"a.png"}"#, "requests of the dialect prompts"),
            (r#"{"id":1,"prompt":"x","label":"y"}"#, "requests of the dialect rows"),
            (r#"{"id":1,"model":"m","output":"x","tokens":3}"#, "results of the dialect prompts"),
            (r#"{"id":1,"model":"m","error":"x"}"#, "results of the dialect prompts"),
            (
                r#"{"id":1,"row_number":1,"ok":true,"result":"x","error":null}"#,
                "results of the dialect rows",
            ),
            (r#"{"id":1,"text":"x"}"#, "requests of the dialect rows"),
            (r#"{"custom_id":"a","text":"x"}"#, "requests of the dialect rows"),
            ("nonsense", "nothing"),
            ("", "nothing"),
        ] {
            assert_eq!(detected(line), expected, "{line}");
        }
    }

    #[test]
    fn requests_of_other_batch_apis_are_known() {
        for (line, expected) in [
            (r#"{"custom_id":"a","params":{"model":"m","messages":[]}}"#, Some(Foreign::Anthropic)),
            (
                r#"{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}"#,
                Some(Foreign::Gemini),
            ),
            (r#"{"request":{"contents":[]}}"#, Some(Foreign::Gemini)),
            (r#"{"recordId":"a","modelInput":{"messages":[]}}"#, Some(Foreign::Bedrock)),
            (r#"{"custom_id":"a","params":"x"}"#, None),
            (r#"{"key":"a","request":"x"}"#, None),
            (r#"{"id":1,"text":"x"}"#, None),
        ] {
            assert_eq!(foreign_in(format!("\n{line}\n").as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn lines_that_disagree_are_named() {
        let (batch, prompt, row) = (
            r#"{"custom_id":"a","method":"POST","url":"/v1/x","body":{}}"#,
            r#"{"prompt":"x"}"#,
            r#"{"prompt":"x","n":1}"#,
        );
        assert_eq!(
            detected(&format!("torn\n{batch}\n{batch}\n{row}\n")),
            "line 2 looks like requests of the dialect openai, line 4 like requests of the dialect rows"
        );
        assert_eq!(detected(&format!("{prompt}\n{row}\n")), "requests of the dialect rows");
        assert_eq!(detected(&format!("{row}\n{prompt}\n")), "requests of the dialect rows");
        let slip = r#"{"promt":"x"}"#;
        let mixed = "line 2 looks like requests of the dialect prompts, line 3 like requests of the dialect rows";
        assert_eq!(detected(&format!("{row}\n{prompt}\n{slip}\n")), mixed);
        let mixed = "line 1 looks like requests of the dialect rows, line 3 like requests of the dialect prompts";
        assert_eq!(detected(&format!("{slip}\n{row}\n{prompt}\n")), mixed);
        let mixed = "line 1 looks like requests of the dialect prompts, line 2 like requests of the dialect rows";
        assert_eq!(detected(&format!("{{\"prompt\":1}}\n{row}\n")), mixed);
        assert_eq!(detected(&format!("{row}\n{slip}\n")), "requests of the dialect rows");
        let further = |text: &str| further_in(text.as_bytes());
        assert_eq!(further(&format!("\n{prompt}\n{row}\n{row}")), Some((3, "n".to_owned())));
        assert_eq!(further(&format!("{row}\n{slip}\n")), None);
        assert_eq!(further(&format!("{prompt}\n")), None);
    }
}
