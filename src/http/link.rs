//! URLs that somebody gives on a command line and whose queries are secrets, as those of pre-signed
//! URLs are.

use std::fmt;

use hyper::Uri;

/// An http or https URL of a document. What it shows of itself, to whoever asks for it as text, is
/// scheme, host and path; only this module sees the rest.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    uri: Uri,
    shown: String,
}

/// Why a text is no URL of a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shown} cannot be read or written: {reason}")]
pub struct BadLink {
    shown: String,
    reason: &'static str,
}

impl Link {
    /// Whether a text is meant as one.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        scheme_of(text).is_some()
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is no http or https URL, or holds a user name or a password, which do not belong on a
    /// command line.
    pub fn parse(text: &str) -> Result<Self, BadLink> {
        let shown = Self::without_secrets(text);
        let bad = |reason| BadLink { shown: shown.clone(), reason };
        let uri: Uri = text.parse().map_err(|_| bad("it is no URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("it should begin with http:// or https://"));
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(bad("a user name or password does not belong in it"));
        }
        Ok(Self { uri, shown })
    }

    /// What may be shown of a text that is meant as one, whether it is one or not.
    #[must_use]
    pub fn without_secrets(text: &str) -> String {
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let Some(scheme) = scheme_of(text) else { return text.to_owned() };
        let rest = &text[scheme.len()..];
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}{host}{path}")
    }

    /// Scheme, host and path.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The last part of its path; nothing where that ends in a slash.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        self.uri.path().rsplit('/').next().filter(|name| !name.is_empty())
    }

    /// Where it is said to be instead: another URL, or a part of one. Nothing where that is none, or
    /// where what was encrypted would not be any more.
    #[must_use]
    pub fn moved_to(&self, place: &str) -> Option<Self> {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let authority = self.authority();
        let text = if scheme_of(place).is_some() {
            place.to_owned()
        } else if let Some(rest) = place.strip_prefix("//") {
            format!("{scheme}://{rest}")
        } else {
            let (path, query) = place.split_at(place.find('?').unwrap_or(place.len()));
            let whole = match (path.strip_prefix('/'), self.uri.path().rsplit_once('/')) {
                (None, Some((folder, _))) if !path.is_empty() => format!("{folder}/{path}"),
                (None, _) => self.uri.path().to_owned(),
                (Some(_), _) => path.to_owned(),
            };
            format!("{scheme}://{authority}{}{query}", without_dots(&whole))
        };
        let link = Self::parse(&text).ok()?;
        (!self.is_https() || link.is_https()).then_some(link)
    }

    /// Whether another URL is at the same host: at the same port, or at any where that one alone is
    /// encrypted.
    pub(super) fn is_host_of(&self, other: &Self) -> bool {
        let host = |it: &Self| it.uri.host().unwrap_or_default().to_ascii_lowercase();
        let port = |it: &Self| it.uri.port_u16().unwrap_or(if it.is_https() { 443 } else { 80 });
        let is_port = port(self) == port(other) && self.is_https() == other.is_https();
        host(self) == host(other) && (is_port || !self.is_https() && other.is_https())
    }

    pub(super) fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Scheme and host.
    pub(super) fn base(&self) -> String {
        format!("{}://{}", self.uri.scheme_str().unwrap_or_default(), self.authority())
    }

    /// Host and port.
    pub(super) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// Path and query, as they were given.
    pub(super) fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }
}

/// How a text begins that is meant as a URL.
fn scheme_of(text: &str) -> Option<&str> {
    let begins = |scheme: &&str| {
        text.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    };
    let scheme = ["http://", "https://"].into_iter().find(begins)?;
    text.get(..scheme.len())
}

/// A path without `.` and `..` (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut parts = Vec::new();
    let mut given = path.split('/').skip(1).peekable();
    while let Some(part) = given.next() {
        let is_last = given.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    parts.pop();
                }
                if is_last {
                    parts.push("");
                }
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_used_and_never_shown() {
        let link = Link::parse("https://host:8443/a/b.csv?X-Sig=a%2Fb+c&d=/?#top").unwrap();
        assert_eq!(link.shown(), "https://host:8443/a/b.csv");
        assert_eq!(format!("{link} {link:?}").matches("Sig").count(), 0);
        assert_eq!(link.path(), "/a/b.csv?X-Sig=a%2Fb+c&d=/?");
        assert_eq!((link.base(), link.file_name()), ("https://host:8443".into(), Some("b.csv")));
        assert_eq!(Link::parse("http://host").unwrap().path(), "/");
        assert_eq!(Link::parse("http://host/a/").unwrap().file_name(), None);
        for bad in
            ["http://u:geheim@host/a", "http://?geheim", "https://ho st/?geheim", "HTTPS://?geheim"]
        {
            assert!(Link::is_meant(bad));
            let error = Link::parse(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
        }
        assert!(!Link::is_meant("a?http://b") && !Link::is_meant("httpé") && !Link::is_meant(""));
        assert_eq!(Link::without_secrets("out?.jsonl"), "out");
    }

    #[test]
    fn what_moved_is_followed_but_not_out_of_encryption() {
        let link = Link::parse("https://host/a/b/c?x").unwrap();
        for (place, to) in [
            ("https://other/d?y", "https://other/d?y"),
            ("//other/d", "https://other/d"),
            ("/d/./e?y", "https://host/d/e?y"),
            ("d?y=/..", "https://host/a/b/d?y=/.."),
            ("../d", "https://host/a/d"),
            ("../../../d/..", "https://host/"),
            ("?y", "https://host/a/b/c?y"),
        ] {
            let moved = link.moved_to(place).unwrap();
            assert_eq!(format!("{}{}", moved.base(), moved.path()), to, "{place}");
        }
        for nowhere in ["http://host/a", "https://", "https://u:p@host/", "a b"] {
            assert_eq!(link.moved_to(nowhere), None, "{nowhere}");
        }
        let plain = Link::parse("http://host/a").unwrap();
        assert!(plain.moved_to("https://host/a").unwrap().is_https());
    }
}
