//! The body of a request, whatever the dialect of its line.

use std::borrow::Cow;

use super::text;
use crate::format::json::Object;

/// The body of a request. All values are slices of its line; its bytes are never changed.
#[derive(Debug)]
pub struct Body<'a>(pub(super) Object<'a>);

impl<'a> Body<'a> {
    /// All of it, byte for byte as in the line.
    #[must_use]
    pub fn spelled(&self) -> &'a str {
        self.0.text()
    }

    /// A field, as it is spelled.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)
    }

    /// The text of a field, where it holds one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.parameter(name).filter(|token| token.starts_with('"')).map(text)
    }

    /// The model that it names.
    #[must_use]
    pub fn model(&self) -> Option<Cow<'a, str>> {
        self.text("model")
    }

    /// Whether it asks for a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.parameter("stream") == Some("true")
    }
}
