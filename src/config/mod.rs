//! What config files say: endpoints by name, the model that is asked by default, limits.
//!
//! Text goes in, values come out. Where files are looked for, who may write them, what the environment
//! says and how a key is come by are the command line's matter. `docs/config.md` has every key.

mod file;
mod header;
mod pool;
mod price;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use file::Error;
pub use header::{Header, HeaderSource};
pub use pool::{AUTO, Member, Place, Pool};

use crate::job::{Kinds, Protocol, Transport};
use crate::price::Price;
use crate::provider::Provider;

/// What config files say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The model string that is asked where none is given.
    pub model: Option<String>,
    /// Limits for all endpoints.
    pub defaults: Limits,
    /// Endpoints by their names.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Pools by their names.
    pub pools: BTreeMap<String, Pool>,
    /// What tokens cost, by `NAME.MODEL`, or the model alone where nobody is named.
    pub prices: BTreeMap<String, Price>,
    /// What names in the lines of request files stand for: model strings, and where that is said.
    pub models: BTreeMap<String, (String, Place)>,
}

/// How fast, and how patiently. What is not said is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most requests in flight.
    pub concurrency: Option<u32>,
    /// The most requests a minute.
    pub rpm: Option<u64>,
    /// The most tokens a minute.
    pub tpm: Option<u64>,
    /// How long one call may take.
    pub timeout: Option<Duration>,
    /// How long making a connection may take.
    pub connect_timeout: Option<Duration>,
    /// How long an answer may take to begin.
    pub first_byte_timeout: Option<Duration>,
    /// How long an answer that has begun may make no progress.
    pub idle_timeout: Option<Duration>,
    /// How often a row is tried again.
    pub retries: Option<u32>,
    /// How long the endpoint may be out of reach.
    pub max_outage: Option<Duration>,
    /// How long to wait for a work directory; not of endpoints.
    pub lock_wait: Option<Duration>,
    /// How long calls in flight may take to end; not of endpoints.
    pub drain_timeout: Option<Duration>,
}

/// Somebody who serves models, by a name that a user chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// The provider whose defaults it has; nothing for one that none is known of.
    pub provider: Option<&'static Provider>,
    /// Where it is; nothing where that is the provider's place.
    pub base_url: Option<String>,
    /// The protocol it is spoken to in; nothing where that is the provider's first.
    pub protocol: Option<Protocol>,
    /// Where its key is; nothing where it has none, or the provider's.
    pub key: Option<Key>,
    /// The model that its name alone stands for.
    pub model: Option<String>,
    /// What its models take in; nothing where that is not said.
    pub kinds: Option<Kinds>,
    /// Parameters of every call, by their names in [`PARAMETERS`](crate::provider::PARAMETERS), with
    /// checked values.
    pub parameters: Vec<(&'static str, String)>,
    /// How its calls travel.
    pub transport: Option<Transport>,
    /// Headers of every call.
    pub headers: Vec<Header>,
    /// Limits of its own.
    pub limits: Limits,
    /// The file that names it.
    pub file: PathBuf,
}

/// Where a key is. None of these is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// In a variable of the environment.
    Variable(String),
    /// In a file; a relative path is one from the config file's directory.
    File(PathBuf),
    /// On the standard output of a command: a program and its arguments.
    Command(Vec<String>),
}

impl Limits {
    /// These, and where they say nothing, others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            concurrency: self.concurrency.or(others.concurrency),
            rpm: self.rpm.or(others.rpm),
            tpm: self.tpm.or(others.tpm),
            timeout: self.timeout.or(others.timeout),
            connect_timeout: self.connect_timeout.or(others.connect_timeout),
            first_byte_timeout: self.first_byte_timeout.or(others.first_byte_timeout),
            idle_timeout: self.idle_timeout.or(others.idle_timeout),
            retries: self.retries.or(others.retries),
            max_outage: self.max_outage.or(others.max_outage),
            lock_wait: self.lock_wait.or(others.lock_wait),
            drain_timeout: self.drain_timeout.or(others.drain_timeout),
        }
    }
}

impl Config {
    /// This one over another: its model, its limits, its endpoints, pools, prices and names; an endpoint
    /// or a pool that both have is this one's, with all that is said of it.
    #[must_use]
    pub fn over(self, other: Self) -> Self {
        let mut endpoints = other.endpoints;
        endpoints.extend(self.endpoints);
        let mut pools = other.pools;
        pools.extend(self.pools);
        let mut prices = other.prices;
        prices.extend(self.prices);
        let mut models = other.models;
        models.extend(self.models);
        let model = self.model.or(other.model);
        let defaults = self.defaults.or(other.defaults);
        Self { model, defaults, endpoints, pools, prices, models }
    }

    /// Whether some key is come by with a command.
    #[must_use]
    pub fn has_command(&self) -> bool {
        self.endpoints.values().any(|endpoint| matches!(endpoint.key, Some(Key::Command(_))))
    }

    /// The endpoint that a model string names, and what of the string is left for it:
    /// `model[?parameter=value&…]`. A name alone stands for the endpoint's own model, or for none.
    /// `NAME/model` names an endpoint as long as no base URL is given, as with providers.
    #[must_use]
    pub fn endpoint_of(&self, text: &str, has_base_url: bool) -> Option<(&Endpoint, String)> {
        let (name, query) = match text.find('?') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let name = name.trim();
        if let Some(endpoint) = self.endpoints.get(name) {
            let model = endpoint.model.as_deref().unwrap_or_default();
            return Some((endpoint, format!("{model}{query}")));
        }
        let prefix = |sign| {
            let (first, model) = name.split_once(sign)?;
            Some((self.endpoints.get(first)?, format!("{model}{query}")))
        };
        let by_slash = || if has_base_url { None } else { prefix('/') };
        prefix('.').or_else(by_slash)
    }

    /// The pool that a model string names: `NAME` or `pool.NAME`. [`AUTO`] is one whether or not a
    /// file says anything of it.
    ///
    /// # Errors
    /// When `pool.` names none; and when a file has an endpoint and another a pool of the same name.
    pub fn pool_of(&self, text: &str) -> Result<Option<Pool>, String> {
        let (name, query) = text.split_once('?').unwrap_or((text, ""));
        let (name, query) = (name.trim(), query.trim());
        let prefixed = name.strip_prefix(pool::PREFIX).and_then(|rest| rest.strip_prefix('.'));
        let name = prefixed.unwrap_or(name);
        let pool = match self.pools.get(name) {
            Some(pool) => pool.clone(),
            None if name == AUTO => {
                let place = Place { path: PathBuf::new(), line: 0 };
                let (members, endpoints) = (Vec::new(), Vec::new());
                Pool { name: AUTO.to_owned(), members, endpoints, place }
            }
            None if prefixed.is_some() => {
                let known: Vec<_> = self.pools.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Err(format!("{name:?} is no pool; there are {known}"));
            }
            None => return Ok(None),
        };
        if let Some(endpoint) = self.endpoints.get(name) {
            let (file, place) = (endpoint.file.display(), &pool.place);
            return Err(format!(
                "{place}: {name} is the name of an endpoint as well ({file}): give the pool another"
            ));
        }
        if !query.is_empty() {
            return Err(format!(
                "a pool has no parameters of its own: put {query:?} behind its members' models, or \
                 into options"
            ));
        }
        Ok(Some(pool))
    }

    /// The limits of an endpoint, or those of all.
    #[must_use]
    pub fn limits(&self, endpoint: Option<&Endpoint>) -> Limits {
        endpoint.map_or(self.defaults, |endpoint| endpoint.limits.or(self.defaults))
    }
}

impl Endpoint {
    /// Whether it stands in the place of the provider of its name.
    #[must_use]
    pub fn is_its_provider(&self) -> bool {
        self.provider.is_some_and(|provider| provider.name == self.name)
    }
}
