//! Where in what a model says its JSON is.

use std::borrow::Cow;

use serde_json::Value;

use super::repair::{begins_json, broken_length, repair_prefix};
use super::thought::{Kind, final_channel, mark_at, thought_length};
use super::value::{parse, parse_prefix};

/// Why a text is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// It holds JSON that does not fit, something that was to be an object or a list, or more than one answer.
    Told(String),
    /// Nothing in it begins like an object or a list. The syntax error of the whole of it.
    Plain(String),
}

/// The JSON value that is the answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// Its text: the model's own, unless that was repaired.
    pub(super) json: Cow<'a, str>,
    /// Whether nothing follows it that could have said something else.
    pub(super) is_last: bool,
}

/// Judges a value: why it is not what is asked for.
type Fits<'f> = &'f dyn Fn(&Value) -> Result<(), String>;

/// A JSON value among other text, or what was to be one.
struct Candidate<'a> {
    json: Cow<'a, str>,
    /// The value, where it is one.
    value: Option<Value>,
    /// What is against it.
    misfit: Option<String>,
    start: usize,
    end: usize,
}

/// Finds the JSON in an answer: the whole of it, or else the one value in it that fits. What stands in thoughts is none;
/// of several values that differ the last counts where the text ends with it as its answer. JSON that is the whole answer
/// is the answer, fitting or not: nothing inside of it is taken in its place.
pub(super) fn find<'a>(answer: &'a str, fits: Fits<'_>) -> Result<Found<'a>, NoAnswer> {
    let mut text = trim(answer);
    let mut whole = match judge_whole(text, fits) {
        Ok(found) => return found,
        Err(error) => error,
    };
    if let Some(said) = final_channel(text) {
        text = trim(said);
        if text.is_empty() {
            return Err(NoAnswer::Told("the answer is a thought without an end".to_owned()));
        }
        whole = match judge_whole(text, fits) {
            Ok(found) => return found,
            Err(error) => error,
        };
    }
    let mut scan = Scan { text, fits, found: Vec::new(), from: 0 };
    scan.read()?;
    let behind = trim(&text[scan.from..]);
    if scan.from > 0 {
        whole = match judge_whole(behind, fits) {
            Ok(found) => return found,
            Err(error) => error,
        };
    }
    scan.choose(behind, whole)
}

/// Judges a text that is one JSON value; gives the syntax error of one that is not.
fn judge_whole<'a>(text: &'a str, fits: Fits<'_>) -> Result<Result<Found<'a>, NoAnswer>, String> {
    let value = parse(text)?;
    let found = Found { json: Cow::Borrowed(text), is_last: true };
    Ok(fits(&value).map(|()| found).map_err(NoAnswer::Told))
}

/// A byte order mark is none of the answer either.
fn trim(text: &str) -> &str {
    text.trim().trim_start_matches('\u{feff}').trim()
}

/// The values in a text, one behind the other.
struct Scan<'a, 'f> {
    text: &'a str,
    fits: Fits<'f>,
    found: Vec<Candidate<'a>>,
    /// Where the last thought ended.
    from: usize,
}

/// Values that are judged, and brackets that are tried which hold something else: nobody reads more than these.
const TRIED: usize = 1000;
const FENCE: &str = "```";

impl<'a> Scan<'a, '_> {
    fn read(&mut self) -> Result<(), NoAnswer> {
        let (mut at, mut others) = (0, 0);
        while let Some(next) = self.text.get(at..).and_then(|it| it.find(['{', '[', '<', '◁', '`']))
        {
            at += next;
            let rest = &self.text[at..];
            if let Some(mark) = mark_at(rest) {
                match (mark.kind, thought_length(rest, mark)) {
                    (Kind::Begin(_), None) => {
                        let begin = &rest[..mark.length];
                        let told =
                            format!("the answer begins a thought ({begin}) and does not end it");
                        return Err(NoAnswer::Told(told));
                    }
                    (Kind::Begin(_), Some(length)) => at += length,
                    // A template had its beginning: all that was said so far was thought.
                    (Kind::End(_), _) => {
                        at += mark.length;
                        self.found.clear();
                    }
                }
                self.from = at;
                continue;
            }
            at += match rest.as_bytes()[0] {
                b'{' | b'[' => self.bracket(at, &mut others),
                b'`' if rest.starts_with(FENCE) => self.fence(at),
                _ => rest.chars().next().map_or(1, char::len_utf8),
            };
            if self.found.len() > TRIED {
                let told = format!("the answer holds more than {TRIED} JSON values");
                return Err(NoAnswer::Told(told));
            }
        }
        Ok(())
    }

    /// Reads what begins with a bracket; gives the bytes that are read with it.
    fn bracket(&mut self, at: usize, others: &mut usize) -> usize {
        let rest = &self.text[at..];
        let is_json = begins_json(rest);
        if !is_json {
            *others += 1;
            if *others > TRIED {
                return 1;
            }
        }
        let error = match parse_prefix(rest) {
            Ok((value, length)) => {
                self.add(Cow::Borrowed(&rest[..length]), value, at, length);
                return length;
            }
            Err(error) => error,
        };
        let repaired = repair_prefix(rest).and_then(|(json, length)| {
            let value = parse(&json).ok()?;
            Some((json, value, length))
        });
        if let Some((json, value, length)) = repaired {
            self.add(Cow::Owned(json), value, at, length);
            return length;
        }
        if !is_json {
            return 1;
        }
        let length = broken_length(rest);
        let end = at + length.unwrap_or(rest.len());
        let misfit = Some(format!("the answer is no JSON: {error}"));
        let json = Cow::Borrowed("");
        self.found.push(Candidate { json, value: None, misfit, start: at, end });
        end - at
    }

    /// Reads the beginning of a fenced block: its word for a language, and a text or a number that is all of it.
    fn fence(&mut self, at: usize) -> usize {
        let rest = self.text[at..].trim_start_matches('`');
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '.');
        let fence = self.text.len() - at - rest.len();
        for inner in [rest.trim_start(), rest.trim_start_matches(word).trim_start()] {
            if inner.starts_with(['{', '[']) {
                continue;
            }
            if let Ok((value, length)) = parse_prefix(inner)
                && inner[length..].trim_start().starts_with(FENCE)
            {
                let start = self.text.len() - inner.len();
                self.add(Cow::Borrowed(&inner[..length]), value, start, length);
                return start + length - at;
            }
        }
        fence
    }

    fn add(&mut self, json: Cow<'a, str>, value: Value, start: usize, length: usize) {
        let misfit = (self.fits)(&value).err();
        self.found.push(Candidate { json, value: Some(value), misfit, start, end: start + length });
    }

    /// Chooses the answer among the values.
    fn choose(mut self, behind: &str, whole: String) -> Result<Found<'a>, NoAnswer> {
        let Some(last) = self.found.iter().rposition(|it| it.misfit.is_none()) else {
            return Err(self.misfit(behind, whole));
        };
        let fitting = &self.found[last];
        let is_alone = self.found.iter().all(|it| it.misfit.is_some() || it.value == fitting.value);
        let kind = |value: &Value| (value.is_object(), value.is_array());
        // What stands behind it and was to be a value of its kind may have been its correction.
        let is_corrected =
            self.found[last + 1..].iter().any(|it| match (&it.value, &fitting.value) {
                (Some(other), Some(value)) => kind(other) == kind(value),
                _ => true,
            });
        let is_last = last + 1 == self.found.len() && is_end(&self.text[fitting.end..]);
        let is_clear = is_alone || is_last && self.is_presented(fitting.start);
        if is_corrected || !is_clear {
            let told =
                "the answer holds more than one JSON value, and which one counts is not clear";
            return Err(NoAnswer::Told(told.to_owned()));
        }
        Ok(Found { json: self.found.swap_remove(last).json, is_last })
    }

    /// Whether a value stands where an answer stands: on a line of its own, or behind a colon or a tag; and is not
    /// introduced as something else.
    fn is_presented(&self, start: usize) -> bool {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '.');
        let before = self.text[..start].trim_end_matches([' ', '\t', '*', '_']);
        let fenced = before.trim_end().trim_end_matches(word).strip_suffix(FENCE);
        let stands =
            before.is_empty() || before.ends_with(['\n', ':', '>', '=']) || fenced.is_some();
        let before = fenced.unwrap_or(before);
        let line = before.trim_end().rsplit(['\n', '}', ']']).next().unwrap_or_default();
        let line = line.to_lowercase();
        stands && !OTHERS.iter().any(|it| line.contains(it))
    }

    /// Why no value fits: what is against the first that is one, or the likeliest error.
    fn misfit(self, behind: &str, whole: String) -> NoAnswer {
        let is_value = |it: &&Candidate<'_>| it.value.is_some();
        let first = self.found.iter().find(is_value).or(self.found.first());
        match first.and_then(|it| it.misfit.clone()) {
            Some(reason) => NoAnswer::Told(reason),
            None if behind.starts_with(['{', '[']) => {
                NoAnswer::Told(format!("the answer is no JSON: {whole}"))
            }
            None => NoAnswer::Plain(whole),
        }
    }
}

/// Words that introduce a value which is not the answer.
const OTHERS: [&str; 12] = [
    "example",
    "e.g.",
    "instance",
    "sample",
    "instead",
    "rather than",
    "not ",
    "wrong",
    "option",
    "alternativ",
    "schema",
    "format",
];

/// Whether a text says nothing more: white space, marks, and the tags and fences that end what began before.
fn is_end(text: &str) -> bool {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || "`*_.!~}".contains(c));
        match rest.strip_prefix("</").or_else(|| rest.strip_prefix("<|")).map(|it| it.find('>')) {
            Some(Some(end)) => rest = &rest[end + 3..],
            _ => return rest.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds an object with a field `a`.
    fn found(answer: &str) -> Result<String, String> {
        find(answer, &|value| match value.get("a") {
            Some(_) => Ok(()),
            None => Err(format!("no a in {value}")),
        })
        .map(|found| found.json.into_owned())
        .map_err(|none| match none {
            NoAnswer::Told(reason) => reason,
            NoAnswer::Plain(error) => format!("plain: {error}"),
        })
    }

    #[test]
    fn json_is_found_where_models_put_it() {
        for answer in [
            r#"{"a":1}"#,
            " \n{\"a\":1}\n",
            "```json\n{\"a\":1}\n```",
            "```\n{\"a\":1}\n```",
            "```JSON {\"a\":1}```",
            "````json\n{\"a\":1}\n````",
            "Sure!\n\n```json\n{\"a\":1}\n```\nAnything else?",
            "Here it is: {\"a\":1}. Is it what you want?",
            "(a) [1] or {b} or {\"b\":2}: {\"a\":1}",
            "```json\n{\"b\":2}\n```\nno, rather\n```json\n{\"a\":1}\n```",
            "<think>perhaps {\"a\":2}?</think>\n{\"a\":1}",
            "<think>perhaps {\"a\":2}?</think>\nSo: ```json\n{\"a\":1}\n```",
            "```json\n{\"a\":1}",
            "{{\"a\":1}}",
            "{\"a\":1,}",
            "Here: {'a': 1} // done",
            "<answer>{\"a\":1}</answer>",
            "{\"a\": 1} Again: {\"a\":1}",
            "```\n{\"a\":1}\n``` (see [2])",
        ] {
            assert_eq!(found(answer).as_deref(), Ok(r#"{"a":1}"#), "{answer}");
        }
        let fences = "```json\n{\"a\":\"```\\n\"}\n```";
        assert_eq!(found(fences).as_deref(), Ok("{\"a\":\"```\\n\"}"));
        let thought = r#"{"a":"</think>"}"#;
        assert_eq!(found(thought).as_deref(), Ok(thought));
    }

    #[test]
    fn nothing_is_taken_out_of_an_answer_that_is_json() {
        assert_eq!(found(r#"{"b":{"a":1}}"#), Err(r#"no a in {"b":{"a":1}}"#.to_owned()));
        assert_eq!(found(r#"[{"a":1}]"#), Err(r#"no a in [{"a":1}]"#.to_owned()));
        assert_eq!(found(r#"So: {"b":{"a":1}}"#), Err(r#"no a in {"b":{"a":1}}"#.to_owned()));
    }

    #[test]
    fn the_reason_is_that_of_the_likeliest_part() {
        assert_eq!(
            found("{\"a\":1,,}").unwrap_err(),
            "the answer is no JSON: key must be a string at line 1 column 8"
        );
        assert_eq!(
            found("Well:\n```json\n{\"a\":}\n```").unwrap_err(),
            "the answer is no JSON: expected value at line 1 column 6"
        );
        assert_eq!(found("See [1] for more").unwrap_err(), "no a in [1]");
        assert_eq!(found("a").unwrap_err(), "plain: expected value at line 1 column 1");
        let thought = "<think>\n\nb?</think> a";
        assert_eq!(found(thought).unwrap_err(), "plain: expected value at line 1 column 1");
    }

    const DRAFT: &str = r#"{"a":0}"#;
    const ANSWER: &str = r#"{"a":1}"#;

    #[test]
    fn thoughts_hold_no_answer() {
        for (begin, end) in [
            ("<think>", "</think>"),
            ("<thinking>", "</thinking>"),
            ("<reasoning>", "</reasoning>"),
            ("[THINK]", "[/THINK]"),
            ("◁think▷", "◁/think▷"),
            ("<|START_THINKING|>", "<|END_THINKING|>"),
            ("<|channel>thought", "<channel|>"),
            (
                "<|channel|>analysis<|message|>",
                "<|end|><|start|>assistant<|channel|>final<|message|>",
            ),
            ("analysisWe ", "assistantfinal"),
        ] {
            let closed = format!("{begin}{DRAFT}? No.{end}\n{ANSWER}");
            assert_eq!(found(&closed).as_deref(), Ok(ANSWER), "{closed}");
            let fenced = format!("{begin}{DRAFT}{end} ```json\n{ANSWER}\n```");
            assert_eq!(found(&fenced).as_deref(), Ok(ANSWER), "{fenced}");
            for open in [
                format!("{begin}perhaps {DRAFT}? No"),
                format!("{begin}x{end} <think>{DRAFT}"),
                format!("{begin}{DRAFT}{end}"),
                format!("{begin}{DRAFT}{end} I cannot tell."),
            ] {
                assert!(found(&open).is_err(), "{open}");
            }
        }
        for (text, answer) in [
            (format!("{DRAFT}? No.</think>{ANSWER}"), Ok(ANSWER)),
            (format!("<think>a</think>{ANSWER}<think>b {DRAFT}</think>"), Ok(ANSWER)),
            (format!("{ANSWER}<think>or {DRAFT}"), Err(())),
            (format!("<think>a <think>b</think> {DRAFT}"), Err(())),
            ("So: {\"a\":\"<think>\"}".to_owned(), Ok("{\"a\":\"<think>\"}")),
        ] {
            assert_eq!(found(&text).as_deref().map_err(|_| ()), answer, "{text}");
        }
    }

    #[test]
    fn of_several_values_the_last_counts_where_the_text_ends_with_it() {
        for text in [
            format!("Example: {DRAFT}. My answer: {ANSWER}"),
            format!("Example: {DRAFT}. My answer: {ANSWER}."),
            format!("```json\n{DRAFT}\n```\nNo, corrected:\n```json\n{ANSWER}\n```\n"),
            format!("{DRAFT}\n\n{ANSWER}"),
            format!("Draft {DRAFT} <answer>{ANSWER}</answer>"),
        ] {
            assert_eq!(found(&text).as_deref(), Ok(ANSWER), "{text}");
        }
        for text in [
            format!("{ANSWER}. An example of another: {DRAFT}"),
            format!("{ANSWER}\nFor example:\n```json\n{DRAFT}\n```"),
            format!("{ANSWER} is better than {DRAFT}"),
            format!("Option A: {ANSWER}\nOption B: {DRAFT}"),
            format!("First: {DRAFT}. Then: {ANSWER}. I am not sure which."),
            // The second was cut off, or does not fit: nobody knows what it would have said.
            format!("{ANSWER} No, rather {{\"a\":"),
            format!("{ANSWER} No, rather {{\"b\":1}}"),
            format!("[{ANSWER}, {{\"a\":2"),
        ] {
            assert!(found(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn text_of_brackets_takes_no_time() {
        for unit in
            ["<", "<think>", "{'", "{/*", "{", "[", "[[", "{\"a\":[", "[\"", "```", "```{", "[1,"]
        {
            assert!(found(&unit.repeat(200_000)).is_err(), "{unit}");
        }
    }
}
