//! Keys, kept out of everything that is shown or written.

use std::fmt;

/// A key. It is never printed, and taken out of texts that might repeat it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps a key, without the white space around it; nothing if there is nothing else.
    #[must_use]
    pub fn new(key: &str) -> Option<Self> {
        let key = key.trim();
        (!key.is_empty()).then(|| Self(key.to_owned()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// A text without the key.
    #[must_use]
    pub fn redact(&self, text: String) -> String {
        if text.contains(&self.0) { text.replace(&self.0, "[key]") } else { text }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}
