//! Which models an endpoint has: how it is asked, and what it says.
//!
//! `GET {base}/models`, as OpenAI has it (<https://platform.openai.com/docs/api-reference/models/list>)
//! and as Anthropic has it, in pages (<https://platform.claude.com/docs/en/api/models/list>). Some give
//! the bare list.

use hyper::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::api::headers_with;
use super::offer::{self, Task};
use super::{Access, BadKey, reply};
use crate::job::{Failure, Kinds, Protocol, Transport, rfc3339};

/// A model that an endpoint offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name there.
    pub id: String,
    /// Whose it is, where that is said.
    pub owner: Option<String>,
    /// When it was made, as RFC 3339 has it, where that is said.
    pub created: Option<String>,
    /// The most tokens it can look at, where that is said.
    pub context: Option<u64>,
    /// How many nodes serve it now, where that is said.
    pub nodes: Option<u32>,
    /// What it takes in, where that is said.
    pub kinds: Option<Kinds>,
    /// What it is for.
    pub task: Task,
}

/// Some of the models that an endpoint offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The models.
    pub models: Vec<Listed>,
    /// What the next page comes after, if there is one.
    pub next: Option<String>,
}

/// How one endpoint is asked.
#[derive(Debug, Clone)]
pub struct Listing {
    protocol: Protocol,
    access: Access,
    headers: HeaderMap,
}

#[derive(Deserialize)]
struct Body {
    data: Vec<Model>,
    #[serde(default)]
    has_more: bool,
    last_id: Option<String>,
}

// Only the name is needed, so nothing else that is odd is an error.
#[derive(Deserialize)]
struct Model {
    id: String,
    #[serde(default)]
    owned_by: Value,
    #[serde(default)]
    created: Value,
    #[serde(default)]
    created_at: Value,
    #[serde(default)]
    context_length: Value,
    #[serde(default)]
    context_window: Value,
    #[serde(default)]
    max_model_len: Value,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

impl Listing {
    /// Prepares to ask an endpoint that is spoken to in this protocol.
    ///
    /// # Errors
    /// When the key cannot be sent.
    pub fn new(protocol: Protocol, access: impl Into<Access>) -> Result<Self, BadKey> {
        let access = access.into();
        let mut headers = headers_with(protocol, Transport::Http, &access)?;
        headers.remove(hyper::header::CONTENT_TYPE);
        Ok(Self { protocol, access, headers })
    }

    /// The headers of every call.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The path and query of a call behind the base URL, for the page after this.
    #[must_use]
    pub fn path(&self, after: Option<&str>) -> String {
        const PATH: &str = "/models";
        if self.protocol != Protocol::Messages {
            return PATH.to_owned();
        }
        let mut path = format!("{PATH}?limit=1000");
        if let Some(after) = after {
            path.push_str("&after_id=");
            for byte in after.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    path.push(char::from(byte));
                } else {
                    path.push_str(&format!("%{byte:02X}"));
                }
            }
        }
        path
    }

    /// What a whole reply says.
    ///
    /// # Errors
    /// What the endpoint failed with, or that it says no list of models.
    pub fn decode(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Result<Page, Failure> {
        let page = match status {
            200..=299 => page(body),
            _ => Err(reply::refused(status, headers, body)),
        };
        let mask = self.access.mask();
        let mut page = page.map_err(|failure| reply::clean(failure.with_status(status), mask))?;
        for model in &mut page.models {
            model.id = mask.text(std::mem::take(&mut model.id));
            model.owner = model.owner.take().map(|owner| mask.text(owner));
            model.created = model.created.take().map(|created| mask.text(created));
        }
        Ok(page)
    }
}

fn page(body: &[u8]) -> Result<Page, Failure> {
    let is_bare = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let read = if is_bare {
        let bare = serde_json::from_slice(body);
        bare.map(|data| Body { data, has_more: false, last_id: None })
    } else {
        serde_json::from_slice(body)
    };
    let Body { data, has_more, last_id } =
        read.map_err(|error| reply::unreadable("list of models", &error, body))?;
    let models = data.into_iter().map(Listed::from).collect();
    Ok(Page { models, next: last_id.filter(|_| has_more) })
}

impl Listed {
    /// One of which nothing is said.
    #[must_use]
    pub fn unknown(id: String) -> Self {
        let (nodes, kinds, task) = (None, None, Task::default());
        Self { id, owner: None, created: None, context: None, nodes, kinds, task }
    }
}

impl From<Model> for Listed {
    fn from(model: Model) -> Self {
        let said = |text: &Value| text.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let at = |seconds: u64| seconds.checked_mul(1000).map(rfc3339);
        // Some say 0 where they do not know.
        let created = model.created.as_u64().filter(|seconds| *seconds > 0).and_then(at);
        let contexts = [&model.context_length, &model.context_window, &model.max_model_len];
        Self {
            nodes: offer::nodes(&model.rest),
            kinds: offer::kinds(&model.rest),
            task: offer::task(&model.id, &model.rest),
            id: model.id,
            owner: said(&model.owned_by),
            created: created.or_else(|| said(&model.created_at)),
            context: contexts.into_iter().find_map(Value::as_u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Secret;

    fn read(body: &str) -> Result<Page, Failure> {
        let listing = Listing::new(Protocol::Chat, Secret::new("sk-geheim")).unwrap();
        listing.decode(200, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn lists_of_every_shape_are_read() {
        let page = read(
            r#"{"object":"list","data":[{"id":"a","owned_by":"me","created":1700000000},
               {"id":"b","created":0,"created_at":"2025-01-02T03:04:05Z","context_length":9},
               {"id":"c","created":"odd","owned_by":null,"max_model_len":4096}],
               "has_more":false,"last_id":"c"}"#,
        );
        let page = page.unwrap();
        assert_eq!(page.next, None);
        let (a, b, c) = (&page.models[0], &page.models[1], &page.models[2]);
        assert_eq!((&*a.id, a.owner.as_deref()), ("a", Some("me")));
        assert_eq!(a.created.as_deref(), Some("2023-11-14T22:13:20.000Z"));
        assert_eq!((b.created.as_deref(), b.context), (Some("2025-01-02T03:04:05Z"), Some(9)));
        assert_eq!((&c.owner, &c.created, c.context), (&None, &None, Some(4096)));
        assert_eq!(read(" [{\"id\":\"x\"}]").unwrap().models[0].id, "x");
        assert_eq!(read("{\"data\":[]}").unwrap().models, []);
    }

    #[test]
    fn what_is_no_list_is_told_without_the_key() {
        for body in ["", "null", "{}", "<html>sk-geheim</html>", "{\"data\":[{\"name\":\"x\"}]}"] {
            let failure = read(body).unwrap_err();
            assert!(failure.message.contains("no list of models"), "{}", failure.message);
            assert!(!failure.message.contains("geheim"), "{}", failure.message);
        }
        assert_eq!(read("[{\"id\":\"m-sk-geheim\"}]").unwrap().models[0].id, "m-[key]");
    }

    #[test]
    fn pages_are_asked_for_where_there_are_some() {
        let chat = Listing::new(Protocol::Chat, Access::default()).unwrap();
        assert_eq!(chat.path(None), "/models");
        let messages = Listing::new(Protocol::Messages, Access::default()).unwrap();
        assert_eq!(messages.path(None), "/models?limit=1000");
        assert_eq!(messages.path(Some("a-1 &")), "/models?limit=1000&after_id=a-1%20%26");
    }
}
