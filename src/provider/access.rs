//! What lets calls in: an endpoint's key, which may be renewed, and further headers.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{BadKey, Mask, Secret};
use crate::job::Protocol;

/// Reads a key again; `None` where there is none.
pub type ReadKey = dyn Fn() -> Option<Secret> + Send + Sync;

/// What lets calls in.
#[derive(Debug, Clone, Default)]
pub struct Access {
    key: Option<Arc<Key>>,
    headers: Vec<ExtraHeader>,
    is_azure: bool,
    mask: Mask,
}

/// A header that a user adds to every call.
#[derive(Debug, Clone)]
pub struct ExtraHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: String,
    /// Whether the value is to be hidden.
    pub is_secret: bool,
}

/// A key that may be read again.
struct Key {
    current: RwLock<Secret>,
    /// How often it was renewed.
    version: AtomicU64,
    /// Whether calls with the current key were answered.
    has_answered: AtomicBool,
    read: Option<Box<ReadKey>>,
    /// Held while it is read again.
    renewing: Mutex<()>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(version {})", self.version.load(Ordering::Relaxed))
    }
}

impl Key {
    fn new(key: Secret, read: Option<Box<ReadKey>>) -> Self {
        Self {
            current: RwLock::new(key),
            version: AtomicU64::new(0),
            has_answered: AtomicBool::new(false),
            read,
            renewing: Mutex::new(()),
        }
    }

    fn current(&self) -> Secret {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<Option<Secret>> for Access {
    fn from(key: Option<Secret>) -> Self {
        let mask = Mask::new(key.clone());
        Self { key: key.map(|key| Arc::new(Key::new(key, None))), mask, ..Self::default() }
    }
}

impl Access {
    /// A key that can be read again when the endpoint does not take it any more.
    #[must_use]
    pub fn renewable(key: Secret, read: Box<ReadKey>) -> Self {
        let mask = Mask::new([key.clone()]);
        Self { key: Some(Arc::new(Key::new(key, Some(read)))), mask, ..Self::default() }
    }

    /// The same with headers that every call has.
    #[must_use]
    pub fn with_headers(mut self, headers: Vec<ExtraHeader>) -> Self {
        let secrets = headers.iter().filter(|header| header.is_secret);
        secrets.filter_map(|header| Secret::new(&header.value)).for_each(|it| self.mask.add(&it));
        self.headers.extend(headers);
        self
    }

    /// The same for an endpoint: what is secret in its base URL is hidden, and whether Azure serves it.
    #[must_use]
    pub fn at(mut self, endpoint: &crate::http::Endpoint) -> Self {
        endpoint.secrets().filter_map(|it| Secret::new(&it)).for_each(|it| self.mask.add(&it));
        self.is_azure = endpoint.is_azure();
        self
    }

    /// Whether there is anything that an endpoint may know its users by.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key.is_some() || self.headers.iter().any(|header| header.is_secret)
    }

    /// What hides the secrets.
    #[must_use]
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// How often the key was renewed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.key.as_ref().map_or(0, |key| key.version.load(Ordering::Acquire))
    }

    /// Notes that calls with the current key are answered.
    pub fn note_answer(&self) {
        if let Some(key) = self.key.as_ref().filter(|key| key.read.is_some())
            && !key.has_answered.load(Ordering::Relaxed)
        {
            key.has_answered.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a key that was let in before, and is not any more, may be read again.
    #[must_use]
    pub fn may_renew(&self, version: u64) -> bool {
        let is_due = |key: &Arc<Key>| {
            key.version.load(Ordering::Acquire) != version
                || key.has_answered.load(Ordering::Relaxed)
        };
        self.key.as_ref().is_some_and(|key| key.read.is_some() && is_due(key))
    }

    /// Reads the key again that calls of this version had, unless somebody else did meanwhile. True when
    /// there is another key now. Waits for whoever reads it.
    #[must_use]
    pub fn renew(&self, version: u64) -> bool {
        let Some(key) = &self.key else { return false };
        let Some(read) = &key.read else { return false };
        let _alone = key.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        if key.version.load(Ordering::Acquire) != version {
            return true;
        }
        if !key.has_answered.load(Ordering::Relaxed) {
            return false;
        }
        let new = read().filter(|new| *new != key.current());
        let is_new = new.is_some();
        if let Some(new) = new {
            self.mask.add(&new);
            *key.current.write().unwrap_or_else(PoisonError::into_inner) = new;
            key.version.store(version + 1, Ordering::Release);
        }
        // Not before: calls that are refused meanwhile wait for the new key.
        key.has_answered.store(false, Ordering::Relaxed);
        is_new
    }

    /// The header that has the key in a protocol.
    ///
    /// # Errors
    /// When the key cannot stand in a header.
    pub fn key_header(
        &self,
        protocol: Protocol,
    ) -> Result<Option<(HeaderName, HeaderValue)>, BadKey> {
        let Some(key) = &self.key else { return Ok(None) };
        let key = key.current();
        let key = key.expose();
        // What Entra ID gives for an hour is a JSON Web Token.
        let is_token = key.starts_with("eyJ");
        let (name, text) = match protocol {
            _ if self.is_azure && !is_token => (HeaderName::from_static("api-key"), key.to_owned()),
            Protocol::Messages if !self.is_azure => {
                (HeaderName::from_static("x-api-key"), key.to_owned())
            }
            _ => (header::AUTHORIZATION, format!("Bearer {key}")),
        };
        if self.headers.iter().any(|header| header.name == name) {
            return Ok(None);
        }
        let mut value = HeaderValue::try_from(text).map_err(|_| BadKey)?;
        value.set_sensitive(true);
        Ok(Some((name, value)))
    }

    /// Puts the headers of every call into others.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) -> Result<(), BadKey> {
        for ExtraHeader { name, value, is_secret } in &self.headers {
            let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| BadKey)?;
            value.set_sensitive(*is_secret);
            headers.insert(name.clone(), value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn renewable(keys: &'static [&'static str]) -> Access {
        let read = AtomicUsize::new(1);
        let next =
            move || Secret::new(keys[read.fetch_add(1, Ordering::Relaxed).min(keys.len() - 1)]);
        Access::renewable(Secret::new(keys[0]).unwrap(), Box::new(next))
    }

    fn bearer(access: &Access) -> String {
        let (_, value) = access.key_header(Protocol::Chat).unwrap().unwrap();
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn key_is_read_again_once_after_answers() {
        let access = renewable(&["one-key", "two-key", "two-key"]);
        assert!(!access.may_renew(0) && !access.renew(0), "nobody was let in with it");
        access.note_answer();
        assert!(access.may_renew(0) && access.renew(0));
        assert_eq!((bearer(&access), access.version()), ("Bearer two-key".to_owned(), 1));
        assert!(access.renew(0), "who had the old one has the new one now");
        assert!(!access.renew(1), "the new one was not taken");
        access.note_answer();
        assert!(!access.renew(1), "it is the same key");
        assert_eq!(access.mask().text("one-key two-key".to_owned()), "[key] [key]");
        let plain = Access::from(Secret::new("a-key-1"));
        plain.note_answer();
        assert!(!plain.may_renew(0) && !plain.renew(0));
    }

    #[test]
    fn key_stands_in_the_header_of_its_place() {
        let name = |url: &str, key: &str, protocol| {
            let endpoint = crate::http::Endpoint::parse(url).unwrap();
            let access = Access::from(Secret::new(key)).at(&endpoint);
            access.key_header(protocol).unwrap().unwrap().0.to_string()
        };
        let azure = "https://r.openai.azure.com/openai/v1";
        assert_eq!(name("https://h/v1", "key-1234", Protocol::Chat), "authorization");
        assert_eq!(name("https://h/v1", "key-1234", Protocol::Messages), "x-api-key");
        assert_eq!(name(azure, "key-1234", Protocol::Responses), "api-key");
        assert_eq!(name(azure, "eyJ0eXAi", Protocol::Chat), "authorization");
        let own = ExtraHeader {
            name: header::AUTHORIZATION,
            value: "Basic geheim".to_owned(),
            is_secret: true,
        };
        let access = Access::from(Secret::new("key-1234")).with_headers(vec![own]);
        assert!(access.key_header(Protocol::Chat).unwrap().is_none());
        assert_eq!(access.mask().text("<Basic geheim>".to_owned()), "<[key]>");
    }
}
