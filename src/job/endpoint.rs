//! The endpoints that requests name which say themselves where they go: those of OpenAI's API and what
//! others serve beside them.

use std::fmt;

/// What a line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/completions`
    Completions,
    /// `/v1/responses`
    Responses,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/messages`
    Messages,
    /// `/v1/score`, or anything else that ends with `/score`, as vLLM has it
    Score,
    /// `/v1/rerank`, or anything else that ends with `/rerank`, as vLLM has it
    Rerank,
    /// `/v1/audio/transcriptions`
    Transcriptions,
    /// `/v1/audio/translations`
    Translations,
    /// `/v1/moderations`
    Moderations,
    /// `/v1/images/generations`
    ImageGenerations,
    /// `/v1/images/edits`
    ImageEdits,
    /// `/v1/videos`
    Videos,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Responses,
        Self::Embeddings,
        Self::Messages,
        Self::Score,
        Self::Rerank,
        Self::Transcriptions,
        Self::Translations,
        Self::Moderations,
        Self::ImageGenerations,
        Self::ImageEdits,
        Self::Videos,
    ];

    /// Its usual url.
    #[must_use]
    pub fn url(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
            Self::Messages => "/v1/messages",
            Self::Score => "/v1/score",
            Self::Rerank => "/v1/rerank",
            Self::Transcriptions => "/v1/audio/transcriptions",
            Self::Translations => "/v1/audio/translations",
            Self::Moderations => "/v1/moderations",
            Self::ImageGenerations => "/v1/images/generations",
            Self::ImageEdits => "/v1/images/edits",
            Self::Videos => "/v1/videos",
        }
    }

    /// The endpoint that a url names, spelled as in OpenAI's Batch API: from the slash on, without a host.
    #[must_use]
    pub fn of_url(url: &str) -> Option<Self> {
        let exact = Self::ALL.into_iter().find(|endpoint| endpoint.url() == url);
        exact.or_else(|| match url {
            _ if !url.starts_with('/') || !url.bytes().all(is_of_path) => None,
            _ if has_dot_segment(url) => None,
            _ if url.ends_with("/score") => Some(Self::Score),
            _ if url.ends_with("/rerank") => Some(Self::Rerank),
            _ => None,
        })
    }

    /// As [`Endpoint::of_url`], of a url as people write it: without `/v1`, as Azure's batch files have it; with a slash
    /// too many or too few; a whole URL, of which the path counts.
    #[must_use]
    pub fn of_any_url(url: &str) -> Option<Self> {
        let scheme = ["https://", "http://"].into_iter().find_map(|it| url.strip_prefix(it));
        let path = match scheme {
            Some(rest) => rest.find('/').map_or("", |at| &rest[at..]).split(['?', '#']).next()?,
            None => url,
        };
        let path = format!("/{}", path.trim_matches('/'));
        let is_named = |endpoint: &Self| {
            let (whole, short) = (endpoint.url(), endpoint.url().trim_start_matches("/v1"));
            let ends = |end: &str| if scheme.is_some() { path.ends_with(end) } else { path == end };
            ends(whole) || ends(short)
        };
        let named = Self::ALL.into_iter().find(is_named).filter(|_| !has_dot_segment(&path));
        Self::of_url(&path).or(named)
    }

    /// The url that a request goes to whose own names this endpoint: the usual one, but for those that are known by
    /// their end, which have a path of their own.
    #[must_use]
    pub fn url_of(self, url: &str) -> String {
        let is_own = matches!(self, Self::Score | Self::Rerank) && Self::of_url(url) == Some(self);
        if is_own { url.to_owned() } else { self.url().to_owned() }
    }

    /// Whether requests are forms with a file of sound in them.
    #[must_use]
    pub fn takes_sound(self) -> bool {
        matches!(self, Self::Transcriptions | Self::Translations)
    }

    /// Whether a model writes text there, so that there are a temperature and a largest number of tokens.
    #[must_use]
    pub fn writes_text(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions | Self::Responses | Self::Messages)
    }
}

/// Whether a path has a segment that leads out of what is before it: `.` or `..`, also where its characters are
/// encoded, or a slash or a backslash that is.
fn has_dot_segment(path: &str) -> bool {
    let mut path = path.to_ascii_lowercase();
    // What is encoded twice is decoded twice by some.
    while path.contains("%25") {
        path = path.replace("%25", "%");
    }
    let path = path.replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// What a path may have (RFC 3986, section 3.3).
fn is_of_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_known_by_their_whole_text_but_for_those_that_vllm_knows_by_their_end() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::of_url(endpoint.url()), Some(endpoint));
        }
        assert_eq!(Endpoint::of_url("/score"), Some(Endpoint::Score));
        assert_eq!(Endpoint::of_url("/v2/rerank"), Some(Endpoint::Rerank));
        assert_eq!(Endpoint::of_url("/v1.1/..x/a%20b/rerank"), Some(Endpoint::Rerank));
        let none = [
            "",
            "v1/score",
            "/v1/underscore",
            "/v2/embeddings",
            "/v1/chat/completions/",
            "https://api.openai.com/v1/chat/completions",
            "https://host/score",
            "/x?y=/score",
            "/é/score",
            "/a b/score",
            "/v1/../score",
            "/../admin/score",
            "/v1/./rerank",
            "/v1/%2e%2E/score",
            "/v1/.%2e/score",
            "/v1/..%2fadmin/score",
            "/v1/..%5cadmin/score",
            "/v1/..\\admin/score",
            "/v1/%252e%252e/score",
            "/x/..",
        ];
        for url in none {
            assert_eq!(Endpoint::of_url(url), None, "{url}");
        }
    }

    #[test]
    fn urls_as_people_write_them_name_their_endpoint() {
        for endpoint in Endpoint::ALL {
            let (url, short) = (endpoint.url(), endpoint.url().trim_start_matches("/v1"));
            for spelled in [
                url.to_owned(),
                short.to_owned(),
                format!("{url}/"),
                url.trim_start_matches('/').to_owned(),
                format!("https://api.openai.com{url}"),
                format!("http://host:8000/api{short}/?api-version=2024-10-21"),
            ] {
                assert_eq!(Endpoint::of_any_url(&spelled), Some(endpoint), "{spelled}");
                let usual = endpoint.url_of(&spelled);
                assert!(usual == url || Endpoint::of_url(&usual) == Some(endpoint), "{spelled}");
            }
        }
        assert_eq!(Endpoint::Rerank.url_of("/v2/rerank"), "/v2/rerank");
        assert_eq!(Endpoint::Rerank.url_of("https://h/v2/rerank"), "/v1/rerank");
        for none in
            ["", "/", "https://h", "/v1/chat", "/v2/chat/completions", "https://h/x/../embeddings"]
        {
            assert_eq!(Endpoint::of_any_url(none), None, "{none}");
        }
    }
}
