//! Headers that a user adds to every call: where their values are.

use std::path::PathBuf;

use hyper::header::{HeaderName, HeaderValue};

/// A header, and where its value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: HeaderName,
    /// Where its value is.
    pub value: HeaderSource,
}

/// Where the value of a header is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderSource {
    /// It is said: nothing in it is secret.
    Plain(String),
    /// In a variable of the environment.
    Variable(String),
    /// In a file; a relative path in a config file is one from the config file's directory.
    File(PathBuf),
}

/// Parts of the names of headers whose values are secrets.
const SECRET: &[&str] =
    &["auth", "cookie", "credential", "key", "passw", "secret", "signature", "token"];
/// What rowmill or its HTTP library sets.
const OWN: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Header {
    /// Reads a header's name, and its value as `env:VARIABLE`, `file:PATH` or a plain text.
    ///
    /// # Errors
    /// In words that never show the value.
    pub fn parse(name: &str, value: &str) -> Result<Self, String> {
        let shown = name.trim();
        let name = HeaderName::try_from(shown)
            .map_err(|_| "expected NAME=VALUE with the name of a header".to_owned())?;
        let is_own = OWN.contains(&name.as_str());
        if is_own || name.as_str().starts_with("proxy-") || name.as_str().starts_with("sec-") {
            return Err(format!("the header {name} is one that rowmill sets itself"));
        }
        let value = value.trim();
        let prefixed = |prefix: &str| {
            let begin = value.get(..prefix.len())?;
            begin.eq_ignore_ascii_case(prefix).then(|| value[prefix.len()..].to_owned())
        };
        let value = match (prefixed("env:"), prefixed("file:")) {
            (Some(variable), _) if is_variable(&variable) => HeaderSource::Variable(variable),
            (Some(_), _) => {
                let what = "expected env:VARIABLE, with a name in capital letters like MY_TOKEN";
                return Err(format!("the header {name}: {what}"));
            }
            (_, Some(path)) if !path.is_empty() => HeaderSource::File(PathBuf::from(path)),
            (_, Some(_)) => return Err(format!("the header {name}: file: names no file")),
            _ if SECRET.iter().any(|part| name.as_str().contains(part)) => {
                return Err(format!(
                    "the value of the header {name} is a secret, which does not belong here: give \
                     {shown}=env:VARIABLE or {shown}=file:PATH"
                ));
            }
            _ if HeaderValue::from_str(value).is_err() || value.is_empty() => {
                return Err(format!("the header {name} has no value that a header may have"));
            }
            _ => HeaderSource::Plain(value.to_owned()),
        };
        Ok(Self { name, value })
    }
}

/// Small letters are refused because keys have them: one that was put here is not to be shown as the
/// name of a variable that is not set.
pub(super) fn is_variable(name: &str) -> bool {
    let is_upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_') && name.chars().all(is_upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_read_and_secrets_are_refused() {
        let source = |name: &str, value: &str| Header::parse(name, value).map(|it| it.value);
        assert_eq!(
            source("anthropic-beta", " a=b,c "),
            Ok(HeaderSource::Plain("a=b,c".to_owned()))
        );
        assert_eq!(source("api-key", "env:K_1"), Ok(HeaderSource::Variable("K_1".to_owned())));
        assert_eq!(source("Api-Key", "FILE:a/b"), Ok(HeaderSource::File("a/b".into())));
        for (name, value) in [
            ("api-key", "geheim"),
            ("Authorization", "Bearer geheim"),
            ("x-session-token", "geheim"),
            ("Cookie", "geheim"),
            ("x", "env:geheim"),
            ("x", "file:"),
            ("x", ""),
            ("x", "a\nb"),
            ("a b", "c"),
            ("", "c"),
            ("Host", "c"),
            ("Proxy-Authorization", "c"),
        ] {
            let error = Header::parse(name, value).unwrap_err();
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
