//! Where an endpoint is.

use hyper::Uri;

/// A base URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    prefix: String,
    /// What stands behind the path of every call, without its question mark.
    query: String,
}

/// Paths of calls that people paste with their base URL.
const CALLS: &[&str] =
    &["/chat/completions", "/completions", "/embeddings", "/messages", "/responses"];
/// Parameters of a query that hold no secret.
const OPEN: &[&str] = &["api-version", "api_version", "deployment", "model", "region", "version"];
/// What stands in the place of a value that may be secret.
const HIDDEN: &str = "***";
/// The hosts of Azure's model services.
const AZURE: &[&str] =
    &[".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"];

/// Why a text is no base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} cannot be a base URL: {reason}")]
pub struct BadEndpoint {
    url: String,
    reason: &'static str,
}

impl Endpoint {
    /// Reads a base URL such as `https://api.openai.com/v1`. The paths of calls are put behind its
    /// path, and its query behind them. A path of a call at its end is taken off, and Azure's bare host
    /// means its `/openai/v1`.
    ///
    /// # Errors
    /// When it is no http or https URL, or holds a user name or a password.
    pub fn parse(url: &str) -> Result<Self, BadEndpoint> {
        let shown = hide_query(url.split('@').next_back().unwrap_or_default().trim());
        let bad = |reason| BadEndpoint { url: shown.clone(), reason };
        if url.contains('@') {
            return Err(bad("a user name or password does not belong in it"));
        }
        if url.contains('#') {
            return Err(bad("a fragment does not belong in it"));
        }
        if query_of(url).split('&').any(|it| it.ends_with(&format!("={HIDDEN}"))) {
            return Err(bad("its secrets were kept out of files; give the whole URL again"));
        }
        let uri: Uri = url.trim().parse().map_err(|_| bad("it is no URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("it should begin with http:// or https://"));
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        let mut prefix = uri.path().trim_end_matches('/');
        if let Some(base) = CALLS.iter().find_map(|call| prefix.strip_suffix(call)) {
            prefix = base.trim_end_matches('/');
        }
        let prefix = match prefix {
            "" | "/openai" if is_azure_host(&uri) => "/openai/v1",
            prefix => prefix,
        };
        let (prefix, query) = (prefix.to_owned(), uri.query().unwrap_or_default().to_owned());
        Ok(Self { uri, prefix, query })
    }

    /// Whether Azure serves it: its host, its paths or its `api-version` say so.
    #[must_use]
    pub fn is_azure(&self) -> bool {
        let has_version = self.query.split('&').any(|it| it.starts_with("api-version="));
        is_azure_host(&self.uri) || has_version || self.prefix.contains("/openai/deployments/")
    }

    /// Azure's `api-version`, where its query says one.
    #[must_use]
    pub fn api_version(&self) -> Option<&str> {
        self.query.split('&').find_map(|it| it.strip_prefix("api-version="))
    }

    /// The values in its query that may be secrets, as they are and decoded.
    pub fn secrets(&self) -> impl Iterator<Item = String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let secret = pairs.filter(|(name, _)| !OPEN.contains(name));
        secret.flat_map(|(_, value)| [value.to_owned(), decode_percent(value)])
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
        self.with_query(format!("{}{call}", self.prefix))
    }

    fn with_query(&self, path: String) -> String {
        match (self.query.as_str(), path.contains('?')) {
            ("", _) => path,
            (query, true) => format!("{path}&{query}"),
            (query, false) => format!("{path}?{query}"),
        }
    }

    /// The path of a call by a url that begins with the version (`/v1/…`), as those of OpenAI's Batch API
    /// do: it stands in the place of a `/v1` at the end of the base URL; behind any other base URL,
    /// without its own `/v1`, for that says its version itself, or has none. vLLM has some outside of any
    /// version (`/score`).
    #[must_use]
    pub fn path_of(&self, url: &str) -> String {
        self.with_query(self.bare_path_of(url))
    }

    fn bare_path_of(&self, url: &str) -> String {
        match self.prefix.strip_suffix("/v1") {
            Some(root) => format!("{root}{url}"),
            None => {
                let rest = url.strip_prefix("/v1").filter(|rest| rest.starts_with('/'));
                format!("{}{}", self.prefix, rest.unwrap_or(url))
            }
        }
    }

    /// The whole URL of a call, as [`Endpoint::path`] has its path, without secrets.
    #[must_use]
    pub fn url(&self, call: &str) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        hide_query(&format!("{scheme}://{}{}", self.authority(), self.path(call)))
    }

    /// The same, as [`Endpoint::path_of`] has its path.
    #[must_use]
    pub fn url_of(&self, url: &str) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        hide_query(&format!("{scheme}://{}{}", self.authority(), self.path_of(url)))
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
        let url = format!("{scheme}://{}{}", self.authority(), self.prefix);
        f.write_str(&hide_query(&self.with_query(url)))
    }
}

fn is_azure_host(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    AZURE.iter().any(|azure| host.ends_with(azure))
}

fn query_of(url: &str) -> &str {
    url.trim().split_once('?').map_or("", |(_, query)| query)
}

/// A URL without those values of its query that may be secrets.
#[must_use]
pub fn hide_query(url: &str) -> String {
    let Some((base, query)) = url.split_once('?') else { return url.to_owned() };
    let hidden = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if !OPEN.contains(&name) => format!("{name}={HIDDEN}"),
        Some(_) => pair.to_owned(),
        // A name alone may be a secret as well.
        None => HIDDEN.to_owned(),
    };
    format!("{base}?{}", query.split('&').map(hidden).collect::<Vec<_>>().join("&"))
}

/// A text without its percent codes.
fn decode_percent(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let code = text_of_code(rest).and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn text_of_code(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.strip_prefix(b"%")?.get(..2)?).ok()
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
            "http://host/v1?key=geheim#x",
            "http://host/v1?key=***",
            "host?key=geheim",
            "ftp://host",
            "host",
            "",
            "http://",
        ] {
            let error = Endpoint::parse(url).unwrap_err().to_string();
            assert!(!error.contains("u:geheim") && !error.contains("key=geheim"), "{error}");
        }
    }

    #[test]
    fn query_stands_behind_every_path_and_its_secrets_are_hidden() {
        let base = "https://h/openai/deployments/d/chat/completions?api-version=1&sig=a%2Fb+c";
        let endpoint = Endpoint::parse(base).unwrap();
        let query = "api-version=1&sig=a%2Fb+c";
        assert_eq!(
            endpoint.path("/chat/completions"),
            format!("/openai/deployments/d/chat/completions?{query}")
        );
        assert_eq!(
            endpoint.path("/models?limit=9"),
            format!("/openai/deployments/d/models?limit=9&{query}")
        );
        assert_eq!(
            endpoint.path_of("/v1/embeddings"),
            format!("/openai/deployments/d/embeddings?{query}")
        );
        let shown = "https://h/openai/deployments/d?api-version=1&sig=***";
        assert_eq!(endpoint.to_string(), shown);
        assert!(Endpoint::parse(shown).unwrap_err().to_string().contains("give the whole URL"));
        assert!(endpoint.url_of("/v1/x").ends_with("/d/x?api-version=1&sig=***"));
        assert_eq!(endpoint.secrets().collect::<Vec<_>>(), ["a%2Fb+c", "a/b c"]);
        assert!(endpoint.is_azure());
        assert_eq!(endpoint.api_version(), Some("1"));
        assert_eq!(hide_query("x?geheim"), "x?***");
    }

    #[test]
    fn base_url_is_read_as_people_set_it() {
        for (url, path) in [
            ("https://h/v1/chat/completions", "/v1/chat/completions"),
            ("https://h/v1/chat/completions/", "/v1/chat/completions"),
            (" https://h/v1// \n", "/v1/chat/completions"),
            ("https://h/v1/messages", "/v1/chat/completions"),
            ("https://r.openai.azure.com", "/openai/v1/chat/completions"),
            ("https://r.OpenAI.azure.com/openai/", "/openai/v1/chat/completions"),
            ("https://r.openai.azure.com/openai/v1", "/openai/v1/chat/completions"),
            ("https://r.services.ai.azure.com/models", "/models/chat/completions"),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().path("/chat/completions"), path, "{url}");
        }
        assert!(!Endpoint::parse("https://h/v1").unwrap().is_azure());
    }
}
