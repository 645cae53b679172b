//! What lets calls in: keys and headers, from where the arguments, the environment and config files say
//! they are.

use std::path::{Path, PathBuf};

use super::config::home;
use super::key::from_command;
use super::model::{Route, Who, usage};
use super::question::{read_text, variable};
use crate::config::{self, Header, HeaderSource, Key};
use crate::pipeline::Error;
use crate::provider::{Access, ExtraHeader, ReadKey, Secret};

impl Who {
    /// The variables of the environment that may hold its key.
    fn key_variables(&self) -> &'static [&'static str] {
        match &self.endpoint {
            None => self.provider.keys,
            Some(endpoint) if endpoint.key.is_none() || endpoint.is_its_provider() => {
                endpoint.provider.map_or(&[], |provider| provider.keys)
            }
            Some(_) => &[],
        }
    }

    /// Its key, never that of another: from a file that was named, else from its variables, else from
    /// where the config file says it is. Where no call `is_made`, only what is at hand.
    pub(super) fn key(&self, file: Option<&Path>, is_made: bool) -> Result<Option<Secret>, Error> {
        if let Some(path) = file {
            return key_in(path).map(Some);
        }
        let mut keys = self.key_variables().iter().filter_map(|name| variable(name));
        if let Some(key) = keys.next().as_deref().and_then(Secret::new) {
            return Ok(Some(key));
        }
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        match &endpoint.key {
            None => Ok(None),
            Some(Key::Variable(name)) => match variable(name).as_deref().and_then(Secret::new) {
                None if is_made => {
                    let (provider, variables) = (endpoint.name.clone(), name.clone());
                    Err(Error::NoKey { provider, variables })
                }
                key => Ok(key),
            },
            Some(_) if !is_made => Ok(None),
            Some(Key::File(_)) => key_file(endpoint).as_deref().map(key_in).transpose(),
            Some(Key::Command(words)) => {
                let dir = endpoint.file.parent().unwrap_or(Path::new(""));
                from_command(words, dir).map(Some).map_err(|reason| Error::KeyNotGiven {
                    endpoint: endpoint.name.clone(),
                    reason,
                })
            }
        }
    }

    /// What lets calls in: its key, which is read again when it is not taken any more, and headers.
    pub(super) fn access(
        &self,
        file: Option<&Path>,
        headers: &[Header],
        is_made: bool,
    ) -> Result<Access, Error> {
        let access = match (self.key(file, is_made)?, self.key_reader(file)) {
            (Some(key), Some(read)) => Access::renewable(key, read),
            (key, _) => Access::from(key),
        };
        let config = self.config().map(|it| (it.headers.as_slice(), it.file.parent()));
        let (own, dir) = config.unwrap_or_default();
        let mut all = values_of(own, dir.unwrap_or(Path::new("")), is_made)?;
        all.extend(values_of(headers, Path::new(""), is_made)?);
        Ok(access.with_headers(all))
    }

    /// What reads the key again. `None` where it is in the environment, which does not change.
    fn key_reader(&self, file: Option<&Path>) -> Option<Box<ReadKey>> {
        let read_file = |path: PathBuf| -> Box<ReadKey> { Box::new(move || key_in(&path).ok()) };
        if let Some(path) = file {
            return Some(read_file(path.to_owned()));
        }
        if self.key_variables().iter().any(|name| variable(name).is_some()) {
            return None;
        }
        let endpoint = self.config()?;
        match &endpoint.key {
            Some(Key::File(_)) => key_file(endpoint).map(read_file),
            Some(Key::Command(words)) => {
                let dir = endpoint.file.parent().unwrap_or(Path::new("")).to_owned();
                let words = words.clone();
                Some(Box::new(move || from_command(&words, &dir).ok()))
            }
            _ => None,
        }
    }
}

impl Route {
    /// What lets calls in; see [`Who::access`]. A key of the environment is somebody else's, not that of a
    /// server that rowmill starts.
    pub(super) fn access(&self, file: Option<&Path>, is_made: bool) -> Result<Access, Error> {
        if self.is_served && file.is_none() {
            let headers = values_of(&self.headers, Path::new(""), is_made)?;
            return Ok(Access::default().with_headers(headers));
        }
        self.who.access(file, &self.headers, is_made)
    }
}

/// The values of headers; a relative file is one in `dir`. Where no call `is_made`, those that are at
/// hand.
fn values_of(headers: &[Header], dir: &Path, is_made: bool) -> Result<Vec<ExtraHeader>, Error> {
    let mut values = Vec::new();
    for Header { name, value } in headers {
        let (text, is_secret) = match value {
            HeaderSource::Plain(text) => (Some(text.clone()), false),
            HeaderSource::Variable(variable_name) => match variable(variable_name) {
                None if is_made => {
                    return Err(usage(format!(
                        "the header {name} is in the variable {variable_name}, which is not set"
                    )));
                }
                text => (text, true),
            },
            HeaderSource::File(path) => {
                let at_home = path.strip_prefix("~").ok().and_then(|it| Some(home()?.join(it)));
                (Some(read_text(&at_home.unwrap_or_else(|| dir.join(path)))?), true)
            }
        };
        if let Some(text) = text {
            let (name, value) = (name.clone(), text.trim().to_owned());
            values.push(ExtraHeader { name, value, is_secret });
        }
    }
    Ok(values)
}

/// The file that a config file says an endpoint's key is in.
pub(super) fn key_file(endpoint: &config::Endpoint) -> Option<PathBuf> {
    let Some(Key::File(path)) = &endpoint.key else { return None };
    let at_home = path.strip_prefix("~").ok().and_then(|rest| Some(home()?.join(rest)));
    let beside = || endpoint.file.parent().unwrap_or(Path::new("")).join(path);
    Some(at_home.unwrap_or_else(beside))
}

fn key_in(path: &Path) -> Result<Secret, Error> {
    let key = Secret::new(&read_text(path)?);
    key.ok_or_else(|| usage(format!("{} holds no key", path.display())))
}
