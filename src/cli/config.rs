//! Config files: where they are looked for, whose they may be, and what they add to the arguments.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{getegid, geteuid};

use super::args::{ConfigArgs, EstimateArgs, ModelArgs, PaceArgs, PlanArgs, RunArgs, WorkArgs};
use super::model::has_base_url;
use super::question::variable;
use crate::config::{Config, Limits};
use crate::input;
use crate::pipeline::Error;
use crate::store::WorkDir;

/// The name of a config file.
const NAME: &str = "rowmill.toml";
/// Bytes of one.
const LARGEST: u64 = 1 << 20;

impl RunArgs {
    /// Fills in what the environment and config files say of what the arguments leave open.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        read(&mut self.config)?;
        let limits = settle_model(&mut self.model, &self.config.read);
        self.pace.settle(limits);
        Ok(())
    }
}

impl PlanArgs {
    /// As for `run`.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        read(&mut self.config)?;
        let limits = settle_model(&mut self.model, &self.config.read);
        self.lock_wait = self.lock_wait.or(limits.lock_wait);
        Ok(())
    }
}

impl EstimateArgs {
    /// As for `run`.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        read(&mut self.config)?;
        settle_model(&mut self.model, &self.config.read);
        Ok(())
    }
}

impl WorkArgs {
    /// As for `run`; the plan says whose limits are meant.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        read(&mut self.config)?;
        // What cannot be read is told where it is needed.
        let manifest = WorkDir::open(&self.work_dir).ok().and_then(|dir| dir.manifest().ok()?);
        let name = manifest.and_then(|manifest| manifest.provider);
        let config = &self.config.read;
        let endpoint = name.and_then(|name| config.endpoints.get(&name));
        self.pace.settle(config.limits(endpoint));
        Ok(())
    }
}

impl PaceArgs {
    fn settle(&mut self, limits: Limits) {
        self.concurrency = self.concurrency.or(limits.concurrency);
        self.rpm = self.rpm.or(limits.rpm);
        self.tpm = self.tpm.or(limits.tpm);
        self.timeout = self.timeout.or(limits.timeout);
        self.connect_timeout = self.connect_timeout.or(limits.connect_timeout);
        self.first_byte_timeout = self.first_byte_timeout.or(limits.first_byte_timeout);
        self.idle_timeout = self.idle_timeout.or(limits.idle_timeout);
        self.retries = self.retries.or(limits.retries);
        self.max_outage = self.max_outage.or(limits.max_outage);
        self.lock_wait = self.lock_wait.or(limits.lock_wait);
        self.drain_timeout = self.drain_timeout.or(limits.drain_timeout);
    }
}

/// Finds out who is asked, and gives the limits that belong to it.
fn settle_model(args: &mut ModelArgs, config: &Config) -> Limits {
    let named = args.model.take().or_else(|| variable("ROWMILL_MODEL"));
    args.model = named.or_else(|| config.model.clone());
    let text = args.model.as_deref().unwrap_or_default();
    let Some((endpoint, model)) = config.endpoint_of(text, has_base_url(args)) else {
        return config.limits(None);
    };
    args.model = Some(model);
    args.endpoint = Some(Arc::new(endpoint.clone()));
    config.limits(Some(endpoint))
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
    let is_ours = |meta: &fs::Metadata| [geteuid().as_raw(), 0].contains(&meta.uid());
    let (path, dir) = (path.display(), dir.display());
    let why = if !is_ours(meta) {
        format!("{path} belongs to another user")
    } else if !owners.iter().all(|owner| is_ours(owner)) {
        format!("{path} is in a directory of another user ({dir})")
    } else if meta.mode() & 0o002 != 0 {
        format!("everybody can write {path}; chmod o-w")
    } else if meta.mode() & 0o020 != 0 && meta.gid() != getegid().as_raw() {
        format!("another group than yours can write {path}; chmod g-w")
    } else {
        return Ok(());
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
