//! Reading a config file. Whatever is wrong with it is told with its line; values are not shown where
//! they might be keys.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::header::{Header, is_variable};
use super::pool::{self, AUTO, PREFIX, Place};
use super::{Config, Endpoint, Key, Limits, price};
use crate::http;
use crate::job::{Protocol, duration, some_time};
use crate::provider::{KNOWN, ModelName, PASSTHROUGH, Provider};

/// Why a config file cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {what}", path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there, and what could stand there.
    pub what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Option<Spanned<String>>,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    endpoint: BTreeMap<String, Spanned<Table>>,
    #[serde(default)]
    pool: BTreeMap<String, Spanned<pool::Table>>,
    #[serde(default)]
    price: BTreeMap<String, Spanned<price::Table>>,
    #[serde(default)]
    models: BTreeMap<String, Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    concurrency: Option<Spanned<u32>>,
    rpm: Option<Spanned<u64>>,
    tpm: Option<Spanned<u64>>,
    timeout: Option<Spanned<Scalar>>,
    connect_timeout: Option<Spanned<Scalar>>,
    first_byte_timeout: Option<Spanned<Scalar>>,
    idle_timeout: Option<Spanned<Scalar>>,
    retries: Option<u32>,
    max_outage: Option<Spanned<Scalar>>,
    lock_wait: Option<Spanned<Scalar>>,
    drain_timeout: Option<Spanned<Scalar>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    base_url: Option<Spanned<String>>,
    provider: Option<Spanned<String>>,
    protocol: Option<Spanned<String>>,
    key_env: Option<Spanned<String>>,
    key_file: Option<Spanned<String>>,
    key_command: Option<Spanned<Words>>,
    model: Option<Spanned<String>>,
    kinds: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    parameters: BTreeMap<String, Spanned<Scalar>>,
    #[serde(default)]
    headers: BTreeMap<String, Spanned<String>>,
    concurrency: Option<Spanned<u32>>,
    rpm: Option<Spanned<u64>>,
    tpm: Option<Spanned<u64>>,
    timeout: Option<Spanned<Scalar>>,
    connect_timeout: Option<Spanned<Scalar>>,
    first_byte_timeout: Option<Spanned<Scalar>>,
    idle_timeout: Option<Spanned<Scalar>>,
    retries: Option<u32>,
    max_outage: Option<Spanned<Scalar>>,
}

/// A value without parts.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, a text, true or false")]
enum Scalar {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a command: a text for sh, or a list of words")]
enum Words {
    Line(String),
    List(Vec<String>),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            // As JSON has it; what JSON does not have is refused where it is checked.
            Self::Float(value) => serde_json::Number::from_f64(*value)
                .map_or_else(|| value.to_string(), |number| number.to_string()),
            Self::Text(text) => text.clone(),
        }
    }
}

pub(super) type Wrong = (Range<usize>, String);

impl Config {
    /// Reads the text of a config file; `path` is what errors and endpoints name.
    ///
    /// # Errors
    /// When it is no TOML, has a key or a value that is not known, or says something that cannot be
    /// meant.
    pub fn read(text: &str, path: &Path) -> Result<Self, Error> {
        let line_of = |span: &Range<usize>| {
            let before = text.as_bytes().get(..span.start).unwrap_or_default();
            1 + before.iter().filter(|byte| **byte == b'\n').count()
        };
        let wrong = |(span, what): Wrong| {
            let line = line_of(&span);
            Error { path: path.to_owned(), line, what }
        };
        let file: File = toml::from_str(text)
            .map_err(|error| wrong((error.span().unwrap_or(0..0), message(&error))))?;
        let mut endpoints = BTreeMap::new();
        for (name, table) in file.endpoint {
            let endpoint = endpoint(&name, table, path).map_err(wrong)?;
            endpoints.insert(name, endpoint);
        }
        let mut pools = BTreeMap::new();
        for (name, table) in file.pool {
            if endpoints.contains_key(&name) {
                let what =
                    format!("{name} is the name of an endpoint as well: give the pool another");
                return Err(wrong((table.span(), what)));
            }
            let pool = pool::pool(&name, table, path, line_of).map_err(wrong)?;
            pools.insert(name, pool);
        }
        let mut prices = BTreeMap::new();
        for (name, table) in file.price {
            let price = price::price(&name, table, path).map_err(wrong)?;
            prices.insert(name, price);
        }
        let mut models = BTreeMap::new();
        for (name, model) in file.models {
            let place = Place { path: path.to_owned(), line: line_of(&model.span()) };
            let model = said(model, &format!("the model for {name:?}")).map_err(wrong)?;
            models.insert(name, (model.into_inner(), place));
        }
        let model = file.model.map(|model| said(model, "model")).transpose().map_err(wrong)?;
        let defaults = limits(file.defaults).map_err(wrong)?;
        let model = model.map(Spanned::into_inner);
        Ok(Self { model, defaults, endpoints, pools, prices, models })
    }
}

/// What the parser says, in one line.
fn message(error: &toml::de::Error) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text that says something.
fn said(text: Spanned<String>, key: &str) -> Result<Spanned<String>, Wrong> {
    if text.get_ref().trim().is_empty() {
        return Err((text.span(), format!("{key} is empty")));
    }
    Ok(text)
}

fn limits(table: Defaults) -> Result<Limits, Wrong> {
    let concurrency = table.concurrency.map(|number| match *number.get_ref() {
        wanted @ 1..=1_000_000 => Ok(wanted),
        _ => Err((number.span(), "concurrency should be 1 to 1000000".to_owned())),
    });
    Ok(Limits {
        concurrency: concurrency.transpose()?,
        rpm: rate(table.rpm, "rpm")?,
        tpm: rate(table.tpm, "tpm")?,
        timeout: time(table.timeout, "timeout", some_time)?,
        connect_timeout: time(table.connect_timeout, "connect_timeout", some_time)?,
        first_byte_timeout: time(table.first_byte_timeout, "first_byte_timeout", some_time)?,
        idle_timeout: time(table.idle_timeout, "idle_timeout", some_time)?,
        retries: table.retries,
        max_outage: time(table.max_outage, "max_outage", duration)?,
        lock_wait: time(table.lock_wait, "lock_wait", duration)?,
        drain_timeout: time(table.drain_timeout, "drain_timeout", duration)?,
    })
}

/// So much a minute.
fn rate(number: Option<Spanned<u64>>, key: &str) -> Result<Option<u64>, Wrong> {
    match number {
        Some(number) if *number.get_ref() == 0 => {
            Err((number.span(), format!("{key} should be 1 or more; without it there is no limit")))
        }
        number => Ok(number.map(Spanned::into_inner)),
    }
}

fn time(
    value: Option<Spanned<Scalar>>,
    key: &str,
    read: fn(&str) -> Result<Duration, String>,
) -> Result<Option<Duration>, Wrong> {
    let Some(value) = value else { return Ok(None) };
    match read(&value.get_ref().text()) {
        Ok(time) => Ok(Some(time)),
        Err(expected) => Err((value.span(), format!("{key}: {expected}"))),
    }
}

fn endpoint(name: &str, table: Spanned<Table>, path: &Path) -> Result<Endpoint, Wrong> {
    let span = table.span();
    let table = table.into_inner();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(is_plain) {
        let what = format!("{name:?} is no name of an endpoint: letters, digits, - and _ make one");
        return Err((span, what));
    }
    if [PASSTHROUGH, "local"].contains(&name) {
        return Err((span, format!("{name} is a model of rowmill's own, and no endpoint")));
    }
    if [AUTO, PREFIX].contains(&name) {
        return Err((
            span,
            format!("{name} stands for pools in -m: give the endpoint another name"),
        ));
    }
    let provider = provider(name, table.provider)?;
    if provider.is_none() && table.base_url.is_none() {
        let what = format!("the endpoint {name} has no base_url, and no provider that has one");
        return Err((span, what));
    }
    let protocol = protocol(table.protocol, provider)?;
    let base_url = table.base_url.map(|url| match http::Endpoint::parse(url.get_ref()) {
        Ok(_) => Ok(url.into_inner()),
        Err(error) => Err((url.span(), error.to_string())),
    });
    let (parameters, transport) = parameters(table.parameters)?;
    let model = table.model.map(|model| said(model, "model")).transpose()?;
    if let Some(model) = model.as_ref().filter(|model| model.get_ref().contains('?')) {
        let what = "parameters stand in the table `parameters`, not behind the model's name";
        return Err((model.span(), what.to_owned()));
    }
    let headers = table.headers.into_iter().map(|(name, value)| {
        Header::parse(&name, value.get_ref()).map_err(|what| (value.span(), what))
    });
    let kinds = table.kinds.map(|names| pool::kinds(names.get_ref(), &names.span()));
    Ok(Endpoint {
        name: name.to_owned(),
        provider,
        base_url: base_url.transpose()?,
        protocol,
        key: key(span, table.key_env, table.key_file, table.key_command)?,
        model: model.map(Spanned::into_inner),
        kinds: kinds.transpose()?,
        parameters,
        transport,
        headers: headers.collect::<Result<_, _>>()?,
        limits: limits(Defaults {
            concurrency: table.concurrency,
            rpm: table.rpm,
            tpm: table.tpm,
            timeout: table.timeout,
            connect_timeout: table.connect_timeout,
            first_byte_timeout: table.first_byte_timeout,
            idle_timeout: table.idle_timeout,
            retries: table.retries,
            max_outage: table.max_outage,
            ..Defaults::default()
        })?,
        file: path.to_owned(),
    })
}

fn provider(
    name: &str,
    named: Option<Spanned<String>>,
) -> Result<Option<&'static Provider>, Wrong> {
    let Some(named) = named else { return Ok(Provider::named(name)) };
    match Provider::named(named.get_ref()) {
        Some(provider) => Ok(Some(provider)),
        None => {
            let known: Vec<_> = KNOWN.iter().map(|provider| provider.name).collect();
            let named_so = named.get_ref();
            let what = format!("{named_so:?} is no provider; there are {}", known.join(", "));
            Err((named.span(), what))
        }
    }
}

fn protocol(
    named: Option<Spanned<String>>,
    provider: Option<&'static Provider>,
) -> Result<Option<Protocol>, Wrong> {
    let Some(named) = named else { return Ok(None) };
    let provider = provider.unwrap_or(Provider::unnamed());
    let found = provider.protocols.iter().find(|protocol| protocol.name() == named.get_ref());
    found.copied().map(Some).ok_or_else(|| {
        let spoken: Vec<_> = provider.protocols.iter().map(|it| it.name()).collect();
        let (who, named_so) = (provider.shown(), named.get_ref());
        let spoken = spoken.join(", ");
        (named.span(), format!("{who} does not speak {named_so:?}; it speaks {spoken}"))
    })
}

fn key(
    span: Range<usize>,
    variable: Option<Spanned<String>>,
    file: Option<Spanned<String>>,
    command: Option<Spanned<Words>>,
) -> Result<Option<Key>, Wrong> {
    match (variable, file, command) {
        (None, None, None) => Ok(None),
        (Some(name), None, None) => {
            if is_variable(name.get_ref()) {
                return Ok(Some(Key::Variable(name.into_inner())));
            }
            let what = "key_env should be the name of a variable, in capital letters like \
                        MY_API_KEY; a key itself does not belong into a config file";
            Err((name.span(), what.to_owned()))
        }
        (None, Some(path), None) => {
            let path = said(path, "key_file")?;
            Ok(Some(Key::File(path.into_inner().into())))
        }
        (None, None, Some(words)) => {
            let span = words.span();
            let words = match words.into_inner() {
                Words::Line(line) if line.trim().is_empty() => Vec::new(),
                Words::Line(line) => vec!["sh".to_owned(), "-c".to_owned(), line],
                Words::List(words) => words,
            };
            if words.first().is_none_or(String::is_empty) {
                return Err((span, "key_command is empty".to_owned()));
            }
            Ok(Some(Key::Command(words)))
        }
        _ => {
            let what = "an endpoint's key is in one place: key_env, key_file or key_command";
            Err((span, what.to_owned()))
        }
    }
}

type Parameters = (Vec<(&'static str, String)>, Option<crate::job::Transport>);

fn parameters(table: BTreeMap<String, Spanned<Scalar>>) -> Result<Parameters, Wrong> {
    let mut found = ModelName::default();
    for (name, value) in table {
        found
            .set(&name, value.get_ref().text(), "parameters")
            .map_err(|error| (value.span(), error.to_string()))?;
        if found.idle_timeout.is_some() {
            let what = "an endpoint says it as `idle_timeout`, beside the table `parameters`";
            return Err((value.span(), what.to_owned()));
        }
    }
    Ok((found.parameters, found.transport))
}
