//! Forward proxies: which one leads to an endpoint.

use std::sync::OnceLock;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;

/// The proxies of this process; none until [`Proxies::install`] is called.
static INSTALLED: OnceLock<Matcher> = OnceLock::new();

/// Which proxy leads where, as curl's variables say it.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// The proxy to http URLs (`http_proxy`).
    pub http: String,
    /// The proxy to https URLs (`https_proxy`).
    pub https: String,
    /// The proxy to all URLs that have none of their own (`all_proxy`).
    pub all: String,
    /// The hosts that are reached without a proxy (`no_proxy`).
    pub no: String,
}

/// A proxy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{variable} names no proxy that can be used: expected http://HOST:PORT or socks5h://HOST:PORT"
)]
pub struct BadProxy {
    variable: &'static str,
}

/// The proxy on the way to an endpoint.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    pub(super) uri: Uri,
    pub(super) kind: ProxyKind,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone)]
pub(super) enum ProxyKind {
    /// In HTTP, with this `Proxy-Authorization`.
    Http(Option<HeaderValue>),
    /// In SOCKS 5, with this user name and password; host names are resolved here or by the proxy.
    Socks { auth: Option<(String, String)>, resolves_here: bool },
}

impl Proxies {
    /// Makes these the proxies of all connections from now on. Only the first call counts.
    ///
    /// # Errors
    /// When one of them is no proxy that can be used.
    pub fn install(self) -> Result<(), BadProxy> {
        let named =
            [("http_proxy", &self.http), ("https_proxy", &self.https), ("all_proxy", &self.all)];
        for (variable, proxy) in named {
            if !proxy.is_empty() && !is_usable(proxy) {
                return Err(BadProxy { variable });
            }
        }
        // The matcher takes it for names only, and not for addresses.
        if self.no.split(',').any(|it| it.trim() == "*") {
            return Ok(());
        }
        let matcher =
            Matcher::builder().http(self.http).https(self.https).all(self.all).no(self.no);
        let _ = INSTALLED.set(matcher.build());
        Ok(())
    }
}

/// Whether a proxy's URL is one. A scheme may be missing, as for curl.
fn is_usable(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("http", |(scheme, _)| scheme);
    let is_known = ["http", "socks5", "socks5h"].iter().any(|it| scheme.eq_ignore_ascii_case(it));
    let uri = text.parse::<Uri>().ok();
    is_known && uri.and_then(|uri| uri.host().map(|host| !host.is_empty())).unwrap_or(false)
}

impl Proxy {
    /// The proxy to a URL, if there is one.
    pub(super) fn to(uri: &Uri) -> Option<Self> {
        let intercept = INSTALLED.get()?.intercept(uri)?;
        let scheme = intercept.uri().scheme_str().unwrap_or_default().to_ascii_lowercase();
        let kind = match scheme.as_str() {
            "socks5" | "socks5h" => ProxyKind::Socks {
                auth: intercept.raw_auth().map(|(user, password)| (user.into(), password.into())),
                resolves_here: scheme == "socks5",
            },
            _ => ProxyKind::Http(intercept.basic_auth().cloned()),
        };
        Some(Self { uri: intercept.uri().clone(), kind })
    }

    /// The proxy as messages name it: without its user and password.
    pub(super) fn shown(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}", self.uri.scheme_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_urls_are_http_or_socks() {
        for good in
            ["http://p:3128", "p:3128", "HTTP://u:x@p", "socks5://p:1080", "socks5h://u:p@p"]
        {
            assert!(is_usable(good), "{good}");
        }
        for bad in ["https://p", "socks4://p", "ftp://p", "http://", "a b"] {
            let proxies = Proxies { https: bad.to_owned(), ..Proxies::default() };
            let error = proxies.install().unwrap_err().to_string();
            assert!(error.starts_with("https_proxy names no proxy"), "{error}");
        }
    }
}
