//! Config files: where they are looked for, whose they may be, and what they add to the arguments.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{
    ConfigArgs, EstimateArgs, FilterArgs, ModelArgs, PaceArgs, PlanArgs, RunArgs, SessionArgs,
    WorkArgs,
};
use super::model::has_base_url;
use super::names::{are_said, settle_names};
use super::pool::PoolArgs;
use super::question::variable;
use crate::config::{AUTO, Config, Endpoint, Limits};
use crate::input;
use crate::job::OWN_MODEL;
use crate::pipeline::Error;
use crate::provider::{ModelName, PASSTHROUGH};
use crate::store::{Manifest, OtherWriter, WorkDir};

/// The name of a config file.
const NAME: &str = "rowmill.toml";
/// Bytes of one.
const LARGEST: u64 = 1 << 20;

impl RunArgs {
    /// Fills in what the environment and config files say of what the arguments leave open.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        read(&mut self.config)?;
        let is_served = self.serve.serve.is_some();
        let has_timeout = self.pace.timeout.is_some();
        let limits = settle_models((&mut self.model, is_served), &self.config.read, has_timeout)?;
        self.pace.settle(&limits);
        self.session.settle(&limits);
        Ok(())
    }
}

impl FilterArgs {
    /// As for `run`.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        read(&mut self.config)?;
        let has_timeout = self.pace.timeout.is_some();
        let limits = settle_models((&mut self.model, false), &self.config.read, has_timeout)?;
        self.pace.settle(&limits);
        Ok(())
    }
}

impl PlanArgs {
    /// As for `run`.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        read(&mut self.config)?;
        let is_served = self.serve.serve.is_some();
        let limits = settle_models((&mut self.model, is_served), &self.config.read, false)?;
        self.lock_wait = self.lock_wait.or(limits.lock_wait);
        Ok(())
    }
}

impl EstimateArgs {
    /// As for `run`.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        read(&mut self.config)?;
        let is_served = self.serve.serve.is_some();
        settle_models((&mut self.model, is_served), &self.config.read, false)?;
        Ok(())
    }
}

impl WorkArgs {
    /// As for `run`; the plan says whose limits are meant.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        read(&mut self.config)?;
        // What cannot be read is told where it is needed.
        let manifest = WorkDir::open(&self.work_dir).ok().and_then(|dir| dir.manifest().ok()?);
        let has_several = |it: &Manifest| it.pool.is_some() || !it.job.names.is_empty();
        let is_pool = manifest.as_ref().is_some_and(has_several);
        let config = &self.config.read;
        self.has_timeout = self.pace.timeout.is_some();
        if is_pool {
            let limits = of_pool(config);
            self.pace.settle(&limits);
            self.session.settle(&limits);
            return Ok(());
        }
        let endpoint = |manifest: &Manifest, model| {
            manifest.route(model).provider.and_then(|name| config.endpoints.get(&name))
        };
        let endpoints = manifest.iter().flat_map(|manifest| {
            (0..manifest.job.model_count()).map(move |model| endpoint(manifest, model))
        });
        let limits = limits_of(endpoints, config);
        self.pace.settle(&limits);
        self.session.settle(&limits);
        Ok(())
    }
}

impl SessionArgs {
    fn settle(&mut self, limits: &Limits) {
        self.lock_wait = self.lock_wait.or(limits.lock_wait);
    }
}

impl PaceArgs {
    fn settle(&mut self, limits: &Limits) {
        self.concurrency = self.concurrency.or(limits.concurrency);
        self.rpm = self.rpm.or(limits.rpm);
        self.tpm = self.tpm.or(limits.tpm);
        self.timeout = self.timeout.or(limits.timeout);
        self.connect_timeout = self.connect_timeout.or(limits.connect_timeout);
        self.first_byte_timeout = self.first_byte_timeout.or(limits.first_byte_timeout);
        self.idle_timeout = self.idle_timeout.or(limits.idle_timeout);
        self.retries = self.retries.or(limits.retries);
        self.max_outage = self.max_outage.or(limits.max_outage);
        self.drain_timeout = self.drain_timeout.or(limits.drain_timeout);
    }
}

/// The limits of a pool, or of models by the names in lines: how many requests are in flight is for its endpoints to say.
fn of_pool(config: &Config) -> Limits {
    Limits { concurrency: None, rpm: None, tpm: None, ..config.limits(None) }
}

/// Finds out who is asked, and gives the limits that belong to them.
fn settle_models(
    (args, is_served): (&mut ModelArgs, bool),
    config: &Config,
    has_timeout: bool,
) -> Result<Limits, Error> {
    if args.dialect.is_request() && args.models.is_empty() && !is_served {
        return own_models(args, config, has_timeout);
    }
    if let Some((name, model)) = args.map_model.first() {
        return Err(Error::Usage(format!(
            "--map-model {name}={model} is for openai and dria files whose lines name their models: \
             {} answers these",
            if args.dialect.is_request() { "the one of -m" } else { "one for all" }
        )));
    }
    if args.models.is_empty() {
        let named = variable("ROWMILL_MODEL").or_else(|| config.model.clone());
        args.models.extend(named);
    }
    // Whoever says where the endpoint is has one model in mind.
    if args.models.is_empty() && !is_served && !has_base_url(args) {
        args.models.extend(of_config(config));
    }
    if args.is_idle && args.models.is_empty() && !is_served {
        args.models.push(PASSTHROUGH.to_owned());
    }
    let is_auto = args.models == [AUTO];
    let is_there = args.base_url.is_some() || config.endpoints.is_empty() && has_base_url(args);
    if !is_served && is_there && (is_auto || args.models.is_empty()) {
        args.models.clear();
        args.asks_server = true;
        return Ok(config.limits(None));
    }
    let names = std::mem::take(&mut args.models);
    if let Some(twice) = (1..names.len()).find(|it| names[..*it].contains(&names[*it])) {
        return Err(Error::Usage(format!(
            "-m {} is given twice: to ask a model several times, say --repeat N",
            names[twice]
        )));
    }
    for name in &names {
        let Some(pool) = config.pool_of(name).map_err(Error::Usage)? else { continue };
        let why = match (is_served, names.len()) {
            (true, _) => "--serve starts a server for one model",
            (false, 1) => "",
            _ => "beside another -m there can be none: its members answer in each other's place",
        };
        if !why.is_empty() {
            return Err(Error::Usage(format!("-m {name} is a pool, and {why}")));
        }
        (args.model, args.named) = (Some(name.clone()), name.clone());
        args.pool = Some(Arc::new(PoolArgs { pool, config: config.clone(), has_timeout }));
        return Ok(of_pool(config));
    }
    let mut all = names.iter().map(|name| settle_model(args, name, config)).collect::<Vec<_>>();
    let limits = limits_of(all.iter().map(|it| it.endpoint.as_deref()), config);
    share_out(&mut all)?;
    if !all.is_empty() {
        let others = all.split_off(1);
        all.into_iter().for_each(|first| *args = ModelArgs { others: others.clone(), ..first });
    }
    Ok(limits)
}

/// Requests that name their models themselves: only where they go must be said, by the base URL or the
/// default endpoint of a config file.
fn own_models(args: &mut ModelArgs, config: &Config, has_timeout: bool) -> Result<Limits, Error> {
    (args.model, args.named) = (Some(OWN_MODEL.to_owned()), OWN_MODEL.to_owned());
    let named = config.model.as_deref().and_then(|model| config.endpoint_of(model, false));
    let named = named.filter(|_| !has_base_url(args));
    if are_said(args, config) {
        let has_own = has_base_url(args) || named.is_some();
        args.endpoint = named.map(|(endpoint, _)| Arc::new(endpoint.clone()));
        args.maps = Some(Arc::new(settle_names(args, has_own, config, has_timeout)?));
        return Ok(of_pool(config));
    }
    if has_base_url(args) {
        return Ok(config.limits(None));
    }
    let only = || config.endpoints.values().next().filter(|_| config.endpoints.len() == 1);
    let Some(endpoint) = named.map(|(endpoint, _)| endpoint).or_else(only) else {
        let text = "the lines of the input name their models, and nothing says where those are: name the \
                    endpoint with --base-url, or a model with -m, or what each name stands for with --map-model";
        return Err(Error::Usage(text.to_owned()));
    };
    args.endpoint = Some(Arc::new(endpoint.clone()));
    Ok(config.limits(Some(endpoint)))
}

/// The arguments of one model.
pub(super) fn settle_model(args: &ModelArgs, name: &str, config: &Config) -> ModelArgs {
    let (model, endpoint) = match config.endpoint_of(name, has_base_url(args)) {
        Some((endpoint, model)) => (model, Some(Arc::new(endpoint.clone()))),
        None => (name.to_owned(), None),
    };
    ModelArgs { model: Some(model), named: name.to_owned(), endpoint, ..args.clone() }
}

/// Where a base URL or the file of a key is given for several models, they belong to those without a
/// provider or an endpoint of their own; a key, where there are none such, to all if they are at one
/// endpoint. No key is sent to somebody else.
fn share_out(all: &mut [ModelArgs]) -> Result<(), Error> {
    if all.len() < 2 {
        return Ok(());
    }
    let owner = |args: &ModelArgs| match (&args.endpoint, &args.model) {
        (Some(endpoint), _) => Some(endpoint.name.clone()),
        (None, Some(model)) if model.as_str() == PASSTHROUGH => Some(PASSTHROUGH.to_owned()),
        (None, Some(model)) => {
            // What cannot be read is told where it is needed.
            let name = ModelName::parse(model, has_base_url(args)).ok();
            name.and_then(|name| name.provider).map(|provider| provider.name.to_owned())
        }
        (None, None) => None,
    };
    let owners: Vec<_> = all.iter().map(owner).collect();
    let is_any_unowned = owners.iter().any(Option::is_none);
    let mut called = owners.iter().filter(|owner| owner.as_deref() != Some(PASSTHROUGH));
    let first = called.next();
    let is_one = called.all(|owner| Some(owner) == first);
    if all[0].base_url.is_some() && !is_any_unowned {
        let text = "--base-url is for models without a provider of their own, and each of these has \
                    one: put the place into an endpoint of a config file";
        return Err(Error::Usage(text.to_owned()));
    }
    if !all[0].headers.is_empty() && !is_any_unowned && !is_one {
        let text = "--header is for the calls of one endpoint, and the models are at several: put \
                    `headers` into a config file";
        return Err(Error::Usage(text.to_owned()));
    }
    if all[0].api_key_file.is_some() && !is_any_unowned && !is_one {
        let text = "--api-key-file holds the key of one endpoint, and the models are at several: \
                    give each its key in the environment or in a config file";
        return Err(Error::Usage(text.to_owned()));
    }
    for (args, owner) in all.iter_mut().zip(&owners) {
        if owner.is_some() {
            args.base_url = None;
            args.api_key_file = args.api_key_file.take().filter(|_| !is_any_unowned);
            args.headers.retain(|_| !is_any_unowned);
        }
    }
    Ok(())
}

/// The limits of the one endpoint that all models are at, or those of all endpoints.
fn limits_of<'c>(endpoints: impl Iterator<Item = Option<&'c Endpoint>>, config: &Config) -> Limits {
    let mut endpoints: Vec<_> = endpoints.map(|it| it.map(|it| &it.name).zip(it)).collect();
    endpoints.dedup_by_key(|it| it.map(|(name, _)| name));
    match endpoints[..] {
        [Some((_, endpoint))] => config.limits(Some(endpoint)),
        _ => config.limits(None),
    }
}

/// What is asked where no model is named: the only pool there is, else whatever endpoints offer.
fn of_config(config: &Config) -> Option<String> {
    let mut pools = config.pools.keys();
    match (pools.next(), pools.next()) {
        (Some(only), None) => Some(only.clone()),
        (None, _) if config.endpoints.is_empty() => None,
        _ => Some(AUTO.to_owned()),
    }
}

/// Reads the config files that are to be read.
pub(super) fn read(args: &mut ConfigArgs) -> Result<(), Error> {
    if args.no_config {
        return Ok(());
    }
    let named = args.config.clone().or_else(|| variable("ROWMILL_CONFIG").map(PathBuf::from));
    if let Some(path) = named {
        let unreadable = |source| unreadable(&path, source);
        let mut file = File::open(&path).map_err(unreadable)?;
        let config = parse(&mut file, &path)?;
        // Who names a file trusts what it says; a command in it is another matter.
        if config.has_command() {
            check(&file.metadata().map_err(unreadable)?, &path, &path, &[])?;
        }
        (args.read, args.used) = (config, vec![path]);
        return Ok(());
    }
    let project = std::env::current_dir().ok().and_then(|dir| in_work_tree(&dir));
    for path in project.into_iter().chain(of_user()) {
        // The user's own may lie in the work tree.
        let is_read = |used: &PathBuf| same(used, &path);
        if !args.used.iter().any(is_read)
            && let Some(config) = found(&path)?
        {
            args.read = std::mem::take(&mut args.read).over(config);
            args.used.push(path);
        }
    }
    Ok(())
}

fn same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    id(one).is_some_and(|one| Some(one) == id(other))
}

/// The nearest config file from a directory up to the root of its work tree: the directory that has
/// `.git`. Where there is none, only the directory itself is looked at: above it may be anybody's.
fn in_work_tree(dir: &Path) -> Option<PathBuf> {
    let root = dir.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(dir);
    let mut dirs = dir.ancestors().take_while(|dir| dir.starts_with(root));
    dirs.find_map(|dir| Some(dir.join(NAME)).filter(|path| path.is_file()))
}

/// Where the user's own config file is, if there is one.
fn of_user() -> Option<PathBuf> {
    let dir = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dir = dir.or_else(|| Some(home()?.join(".config")))?;
    Some(dir.join("rowmill").join(NAME))
}

/// The user's home directory.
pub(super) fn home() -> Option<PathBuf> {
    variable("HOME").map(PathBuf::from).filter(|dir| dir.is_absolute())
}

/// A config file that was not named but found, if it is there.
fn found(path: &Path) -> Result<Option<Config>, Error> {
    let unreadable = |source| unreadable(path, source);
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        file => file.map_err(unreadable)?,
    };
    let meta = file.metadata().map_err(unreadable)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let owner = fs::metadata(dir).map_err(unreadable)?;
    // Before it is parsed: not even an error is to show what somebody else's link leads to.
    check(&meta, path, dir, &[&owner])?;
    parse(&mut file, path).map(Some)
}

/// Whoever can write a config file says where keys go, and what is run for them.
fn check(
    meta: &fs::Metadata,
    path: &Path,
    dir: &Path,
    owners: &[&fs::Metadata],
) -> Result<(), Error> {
    let (path, dir) = (path.display(), dir.display());
    let of_dir = owners.iter().find_map(|dir| OtherWriter::of(dir));
    let why = match (OtherWriter::of(meta), of_dir) {
        (None, None) => return Ok(()),
        (Some(OtherWriter::Owner), _) => format!("{path} belongs to another user"),
        (_, Some(OtherWriter::Owner)) => {
            format!("{path} is in a directory of another user ({dir})")
        }
        (Some(OtherWriter::Everybody), _) => format!("everybody can write {path}; chmod o-w"),
        (Some(OtherWriter::Group), _) => {
            format!("another group than yours can write {path}; chmod g-w")
        }
        (None, Some(OtherWriter::Everybody)) => {
            format!("{path} is in a directory that everybody can write ({dir}); chmod o-w")
        }
        (None, Some(OtherWriter::Group)) => {
            format!(
                "{path} is in a directory that another group than yours can write ({dir}); chmod g-w"
            )
        }
    };
    Err(Error::Usage(format!(
        "{why}: a config file says where keys go, so it is not read (--no-config goes without, \
         --config FILE names another)"
    )))
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    input::Error::Unreadable { path: path.to_owned(), source }.into()
}

fn parse(file: &mut File, path: &Path) -> Result<Config, Error> {
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|source| unreadable(path, source))?;
    let bad = |what: &str| Error::Usage(format!("{}:1: {what}", path.display()));
    if bytes.len() as u64 > LARGEST {
        return Err(bad("more than a mebibyte is no config file"));
    }
    let text = String::from_utf8(bytes).map_err(|_| bad("a config file is UTF-8"))?;
    Config::read(&text, path).map_err(|error| Error::Usage(error.to_string()))
}
