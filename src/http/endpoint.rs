//! Where an endpoint is.

use hyper::Uri;

/// A base URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    prefix: String,
}

/// Why a text is no base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} cannot be a base URL: {reason}")]
pub struct BadEndpoint {
    url: String,
    reason: &'static str,
}

impl Endpoint {
    /// Reads a base URL such as `https://api.openai.com/v1`. The paths of calls are put behind its
    /// path.
    ///
    /// # Errors
    /// When it is no http or https URL, or holds a user name, a password or a query: those would
    /// end up in files.
    pub fn parse(url: &str) -> Result<Self, BadEndpoint> {
        let shown = url.split('@').next_back().unwrap_or_default().to_owned();
        let bad = |reason| BadEndpoint { url: shown.clone(), reason };
        if url.contains('@') {
            return Err(bad("a user name or password does not belong in it"));
        }
        if url.contains(['?', '#']) {
            return Err(bad("a query or fragment does not belong in it"));
        }
        let uri: Uri = url.trim().parse().map_err(|_| bad("it is no URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("it should begin with http:// or https://"));
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { uri, prefix })
    }

    /// The URL that connections are made to.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The host and port, as the `Host` header has them.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// The path of a call, behind the base URL's.
    #[must_use]
    pub fn path(&self, call: &str) -> String {
        format!("{}{call}", self.prefix)
    }

    /// The path of a call by a url that begins with the version (`/v1/…`), as those of OpenAI's Batch API
    /// do: it stands in the place of a `/v1` at the end of the base URL; behind any other base URL,
    /// without its own `/v1`, for that says its version itself, or has none. vLLM has some outside of any
    /// version (`/score`).
    #[must_use]
    pub fn path_of(&self, url: &str) -> String {
        match self.prefix.strip_suffix("/v1") {
            Some(root) => format!("{root}{url}"),
            None => {
                let rest = url.strip_prefix("/v1").filter(|rest| rest.starts_with('/'));
                format!("{}{}", self.prefix, rest.unwrap_or(url))
            }
        }
    }

    /// The whole URL of a call, as [`Endpoint::path_of`] has its path.
    #[must_use]
    pub fn url_of(&self, url: &str) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        format!("{scheme}://{}{}", self.authority(), self.path_of(url))
    }

    /// Whether calls are encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_behind_the_base() {
        for base in ["http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/"] {
            let endpoint = Endpoint::parse(base).unwrap();
            assert_eq!(endpoint.path("/chat/completions"), "/v1/chat/completions");
            assert_eq!(endpoint.authority(), "127.0.0.1:8000");
            assert_eq!(endpoint.to_string(), "http://127.0.0.1:8000/v1");
        }
        let bare = Endpoint::parse("https://host").unwrap();
        assert_eq!(bare.path("/x"), "/x");
        assert!(bare.is_https());
    }

    #[test]
    fn urls_with_a_version_stand_in_the_place_of_the_base_urls_own() {
        for (base, url, path) in [
            ("http://h/v1", "/v1/chat/completions", "/v1/chat/completions"),
            ("http://h/v1/", "/v1/embeddings", "/v1/embeddings"),
            ("http://h/api/v1", "/v1/rerank", "/api/v1/rerank"),
            ("http://h/api/v1", "/v2/rerank", "/api/v2/rerank"),
            ("http://h/v1", "/score", "/score"),
            ("http://h", "/v1/messages", "/messages"),
            ("http://h", "/score", "/score"),
            ("http://h/v1beta/openai", "/v1/chat/completions", "/v1beta/openai/chat/completions"),
            ("http://h/xv1", "/v1x/score", "/xv1/v1x/score"),
        ] {
            let endpoint = Endpoint::parse(base).unwrap();
            assert_eq!(endpoint.path_of(url), path, "{base} {url}");
            assert_eq!(endpoint.url_of(url), format!("http://h{path}"));
        }
    }

    #[test]
    fn secrets_and_strange_schemes_are_refused_without_being_shown() {
        for url in [
            "http://u:geheim@host/v1",
            "http://host/v1?key=geheim",
            "ftp://host",
            "host",
            "",
            "http://",
        ] {
            let error = Endpoint::parse(url).unwrap_err().to_string();
            assert!(!error.contains("u:geheim"), "{error}");
        }
    }
}
