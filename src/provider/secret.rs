//! Keys and other secrets, and the one step that takes them out of what others wrote.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use serde_json::value::RawValue;

use crate::format::json::{Object, write_string};
use crate::job::{Answer, Content, Failure};

/// A key, or another text that nobody may see. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What stands in the place of a secret.
const MASKED: &str = "[key]";

/// Keys that people set where a server wants none: to strike them out would hide words, and protects
/// nothing.
const PLACEHOLDERS: &[&str] = &[
    "api-key",
    "api_key",
    "apikey",
    "changeme",
    "default",
    "dummy-key",
    "dummy_key",
    "fake-key",
    "lm-studio",
    "lmstudio",
    "local-key",
    "no-key",
    "no-key-required",
    "no_key",
    "nokey",
    "not-needed",
    "not-required",
    "not-used",
    "not_needed",
    "notneeded",
    "ollama",
    "placeholder",
    "random",
    "sk-no-key-required",
    "test-key",
    "unused",
    "your-api-key",
    "your_api_key",
];
/// A word that is no longer than this is no secret.
const SHORTEST: usize = 6;

impl Secret {
    /// Keeps a secret, without the white space around it. `None` if there is nothing else.
    #[must_use]
    pub fn new(key: &str) -> Option<Self> {
        let key = key.trim();
        (!key.is_empty()).then(|| Self(key.to_owned()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is a word that people put where no key is wanted, such as `EMPTY`.
    #[must_use]
    pub fn is_placeholder(&self) -> bool {
        let word = self.0.to_ascii_lowercase();
        let bare = word.strip_prefix("sk-").unwrap_or(&word);
        let first = bare.chars().next();
        word.chars().count() < SHORTEST
            || PLACEHOLDERS.contains(&word.as_str())
            || bare.chars().all(|it| Some(it) == first)
    }

    /// The ways in which a text may have it: as it is, in JSON strings, and in URLs.
    fn forms(&self) -> Vec<String> {
        let mut quoted = Vec::new();
        write_string(&mut quoted, &self.0);
        let quoted = String::from_utf8_lossy(&quoted).trim_matches('"').to_owned();
        let slashed = quoted.replace('/', "\\/");
        let byte = |byte: u8| match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        };
        let encoded: String = self.0.bytes().map(byte).collect();
        let mut forms = vec![self.0.clone(), quoted, slashed, encoded];
        forms.dedup();
        forms
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASKED)
    }
}

/// The secrets of an endpoint. Whatever the endpoint says and rowmill keeps or shows passes through
/// here, except for the words of answers: those are the user's, byte for byte.
#[derive(Debug, Clone, Default)]
pub struct Mask(Arc<RwLock<Vec<String>>>);

/// Members of a reply that hold what the model said.
const ANSWERS: &[&str] = &[
    "arguments",
    "b64_json",
    "content",
    "embedding",
    "input",
    "reasoning",
    "reasoning_content",
    "refusal",
    "summary",
    "text",
    "thinking",
    "transcript",
];

impl Mask {
    /// The mask of some secrets.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        let mask = Self::default();
        secrets.into_iter().for_each(|secret| mask.add(&secret));
        mask
    }

    /// Hides another secret from now on.
    pub fn add(&self, secret: &Secret) {
        if secret.is_placeholder() {
            return;
        }
        let mut forms = self.0.write().unwrap_or_else(PoisonError::into_inner);
        forms.extend(secret.forms());
        // A key may begin with another.
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms.dedup();
    }

    /// A text without the secrets.
    #[must_use]
    pub fn text(&self, mut text: String) -> String {
        let forms = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for form in forms.iter() {
            if text.contains(form.as_str()) {
                text = text.replace(form.as_str(), MASKED);
            }
        }
        text
    }

    /// A body without the secrets, however its JSON spells them.
    #[must_use]
    pub fn body(&self, body: String) -> String {
        if self.is_empty() {
            return body;
        }
        let text = self.text(body);
        // An escape may spell any letter.
        if !text.contains("\\u") {
            return text;
        }
        let Ok(mut value) = serde_json::from_str::<Value>(&text) else { return text };
        if self.value(&mut value) { value.to_string() } else { text }
    }

    /// An answer whose content is a whole body, without the secrets in what is not the model's.
    fn whole(&self, content: Content) -> Content {
        let masked = match &content {
            Content::Json(body) if !self.is_empty() => self.members(body.get()),
            _ => None,
        };
        match masked.and_then(|body| RawValue::from_string(body).ok()) {
            Some(body) => Content::Json(body),
            None => content,
        }
    }

    /// A JSON value with its texts masked but for the model's words. `None` if that changes nothing.
    fn members(&self, value: &str) -> Option<String> {
        if !value.contains("\\u") && !self.is_in(value) {
            return None;
        }
        let mut is_changed = false;
        let mut masked = |value: &str| match self.members(value) {
            Some(masked) => {
                is_changed = true;
                masked
            }
            None => value.to_owned(),
        };
        let text = match value.as_bytes().first() {
            Some(b'{') => {
                let object = Object::parse(value).ok()?;
                let fields = object.fields().map(|(name, value)| {
                    let is_answer = ANSWERS.contains(&name);
                    let mut field = Vec::new();
                    write_string(&mut field, name);
                    let name = String::from_utf8_lossy(&field).into_owned();
                    format!("{name}:{}", if is_answer { value.to_owned() } else { masked(value) })
                });
                format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
            }
            Some(b'[') => {
                let list: Vec<&RawValue> = serde_json::from_str(value).ok()?;
                let list: Vec<_> = list.iter().map(|value| masked(value.get())).collect();
                format!("[{}]", list.join(","))
            }
            _ => {
                let text = self.body(value.to_owned());
                is_changed = text != value;
                text
            }
        };
        is_changed.then_some(text)
    }

    /// An answer that may be kept: all of it but what the model said is masked.
    pub(super) fn answer(&self, answer: Answer, is_whole_body: bool) -> Answer {
        let Answer { content, model, finish_reason, usage } = answer;
        let content = if is_whole_body { self.whole(content) } else { content };
        let model = model.map(|model| self.text(model));
        let finish_reason = finish_reason.map(|reason| self.text(reason));
        Answer { content, model, finish_reason, usage }
    }

    /// A failure that may be kept and shown.
    pub(super) fn failure(&self, mut failure: Failure) -> Failure {
        failure.message = self.text(failure.message);
        failure.raw = failure.raw.map(|raw| self.body(raw.into()).into());
        if let Some(paid) = &mut failure.paid {
            paid.model = paid.model.take().map(|model| self.text(model));
            paid.finish_reason = paid.finish_reason.take().map(|reason| self.text(reason));
        }
        failure
    }

    fn is_in(&self, text: &str) -> bool {
        let forms = self.0.read().unwrap_or_else(PoisonError::into_inner);
        forms.iter().any(|form| text.contains(form.as_str()))
    }

    fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Masks the texts in a value. True if that changes it.
    fn value(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => {
                let masked = self.text(text.clone());
                let is_changed = masked != *text;
                *text = masked;
                is_changed
            }
            // None is passed over, though one is enough.
            Value::Array(list) => {
                list.iter_mut().filter_map(|it| self.value(it).then_some(())).count() > 0
            }
            Value::Object(object) => {
                object.values_mut().filter_map(|it| self.value(it).then_some(())).count() > 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(keys: &[&str]) -> Mask {
        Mask::new(keys.iter().filter_map(|key| Secret::new(key)))
    }

    #[test]
    fn placeholder_keys_are_not_masked() {
        for key in
            ["EMPTY", "0", "none", "x", "ollama", "no-key-required", "sk-xxxxxxxx", "---------"]
        {
            assert!(Secret::new(key).unwrap().is_placeholder(), "{key}");
            assert_eq!(mask(&[key]).text(format!("a {key} b")), format!("a {key} b"));
        }
        for key in ["k-1234", "sk-1234567890abcdef", "token-abc123", "geheim"] {
            assert!(!Secret::new(key).unwrap().is_placeholder(), "{key}");
        }
        assert!(Secret::new(" \n").is_none());
    }

    #[test]
    fn secrets_are_masked_however_they_are_spelled() {
        let mask = mask(&["ab/c+d\"e", "ab/c+d\"e-longer"]);
        for text in
            ["ab/c+d\"e", "ab/c+d\\\"e", "ab\\/c+d\\\"e", "ab%2Fc%2Bd%22e", "ab/c+d\"e-longer"]
        {
            assert_eq!(mask.text(format!("<{text}>")), "<[key]>");
        }
        let body = "{\"n\":1,\"x\":[\"\\u0061b/c+d\\\"e\"]}".to_owned();
        assert_eq!(mask.body(body), "{\"n\":1,\"x\":[\"[key]\"]}");
        assert_eq!(mask.body("{ \"\\u0061\": 1.50 }".to_owned()), "{ \"\\u0061\": 1.50 }");
    }

    #[test]
    fn words_of_the_answer_stay_as_they_are() {
        let mask = mask(&["sk-canary"]);
        let body = r#"{"model":"sk-canary","id":"\u0073k-canary","choices":[{"text":"sk-canary","x":["sk-canary"]}],"n":1.50}"#;
        let content = Content::json(serde_json::from_str(body).unwrap());
        let masked = mask.whole(content);
        assert_eq!(
            masked.as_str(),
            r#"{"model":"[key]","id":"[key]","choices":[{"text":"sk-canary","x":["[key]"]}],"n":1.50}"#
        );
        let same = r#"{ "choices":[ {"content" : "sk-canary"} ],"x":"\u00e9" }"#;
        assert_eq!(mask.whole(Content::json(serde_json::from_str(same).unwrap())).as_str(), same);
    }
}
