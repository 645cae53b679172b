//! Hostile bytes for URLs, and for what servers say of where a document is.

use std::path::Path;

use crate::http::Link;

/// A URL shows neither its query nor a password, and leads to nothing that is not one, nor out of
/// encryption. A line end stands between it and where it is said to be instead.
pub(super) fn link(bytes: &[u8], _: &Path) {
    let text = String::from_utf8_lossy(bytes);
    let (url, place) = text.split_once('\n').unwrap_or((&text, ""));
    let shown = Link::without_secrets(url);
    assert!(!shown.contains(['?', '#']), "{shown}");
    assert_eq!(Link::without_secrets(&shown), shown);
    let link = match Link::parse(url) {
        Ok(link) => link,
        Err(error) => {
            assert!(error.to_string().starts_with(&shown), "{error}");
            return;
        }
    };
    assert!(Link::is_meant(url));
    assert_eq!((link.shown(), &*format!("{link:?}")), (&*shown, &*format!("Link({shown})")));
    if let Some(moved) = link.moved_to(place) {
        let is_encrypted = |link: &Link| link.shown().to_ascii_lowercase().starts_with("https:");
        assert!(!is_encrypted(&link) || is_encrypted(&moved), "{moved}");
        assert!(!moved.shown().contains(['?', '#']), "{moved}");
    }
}
