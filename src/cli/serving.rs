//! Servers that rowmill starts: what the arguments ask for, and the hidden commands by which this
//! program becomes a server's guardian.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::args::{ModelArgs, ServeArgs, WorkArgs};
use super::exit;
use super::question::variable;
use super::surroundings::cores;
use crate::launch::{self, LOCAL_MODEL, Launcher, Local, LocalSource, Recipe, What};
use crate::pipeline::Error;
use crate::provider::ModelName;
use crate::store::Manifest;

/// The model that needs neither key nor server.
const LOCAL: &str = "local";
/// How many answers a local model works at at once, unless the command says so.
const LOCAL_SLOTS: usize = 4;
/// More threads than this seldom make a small model faster.
const LOCAL_THREADS: usize = 8;
/// Where requests go, as far as is known before the server's port is.
const SOMEWHERE: &str = "http://127.0.0.1/v1";

/// A server that is to be started once there are calls to make.
pub(super) struct Serving {
    what: What,
    /// The model's name in the plan.
    pub(super) model: String,
    /// The model string, without the file it may name.
    pub(super) spelled: String,
}

impl Serving {
    /// What `-m` and `--serve` ask for; nothing where the endpoint is somebody else's.
    pub(super) fn of(
        asked: &ModelArgs,
        args: &ServeArgs,
        concurrency: Option<u32>,
    ) -> Result<Option<Self>, Error> {
        // That there must be one is told elsewhere.
        let Some(model) = &asked.model else { return Ok(None) };
        if let Some(other) = asked.others.iter().find(|it| it.is_local()) {
            return Err(Error::Usage(format!(
                "-m {} starts a server for that model alone: it cannot be one of several",
                other.named
            )));
        }
        let (name, query) = model.split_once('?').unwrap_or((model, ""));
        if asked.endpoint.is_none()
            && let Some(source) = local_source(name)
        {
            if args.serve.is_some() || asked.base_url.is_some() {
                let text = format!(
                    "-m {model} starts a server of its own: leave --serve and --base-url out"
                );
                return Err(Error::Usage(text));
            }
            let serving = Self::local(source, args, concurrency)?;
            return Ok(Some(Self { spelled: format!("{LOCAL}?{query}"), ..serving }));
        }
        let Some(command) = &args.serve else { return Ok(None) };
        if local_source(command).is_some() {
            let text = format!("--serve {command} is for rowmill work; here it is -m {command}");
            return Err(Error::Usage(text));
        }
        let name = ModelName::parse(model, true).map_err(|it| Error::Usage(it.to_string()))?;
        let serving = Self::recipe(command, &name.model)?;
        Ok(Some(Self { spelled: model.clone(), ..serving }))
    }

    /// What a plan asks for that is worked by itself.
    pub(super) fn of_plan(asked: &WorkArgs, manifest: &Manifest) -> Result<Option<Self>, Error> {
        let (args, concurrency) = (&asked.serve, asked.pace.concurrency);
        if args.serve.is_some() && manifest.job.model_count() > 1 {
            let text = "--serve starts a server for one model, and the plan has several";
            return Err(Error::Usage(text.to_owned()));
        }
        let model = &manifest.job.model;
        let is_called = *model != crate::provider::PASSTHROUGH;
        // Only what is typed counts: an endpoint in the environment is none that was planned for.
        let has_names = !manifest.job.names.is_empty();
        let has_place = manifest.base_url.is_some() || manifest.pool.is_some() || has_names;
        let is_served = is_called && !has_place && asked.base_url.is_none();
        if let (Some(_), Some(command)) = (&manifest.pool, &args.serve) {
            let text = format!("--serve {command} is for one model, and the plan is for a pool");
            return Err(Error::Usage(text));
        }
        // Where no endpoint is asked for each line's own model, the plan's place is empty, and still nobody's to fill.
        if let (true, Some(command)) = (has_names, &args.serve) {
            let text = format!(
                "--serve {command} is for one model, and in the plan the names in lines say who answers"
            );
            return Err(Error::Usage(text));
        }
        match &args.serve {
            Some(command) => match local_source(command) {
                None => Self::recipe(command, model).map(Some),
                Some(source) => {
                    let serving = Self::local(source, args, concurrency)?;
                    if serving.model == *model {
                        return Ok(Some(serving));
                    }
                    Err(Error::Usage(format!(
                        "the plan is for the model {model}, and --serve {command} is {}",
                        serving.model
                    )))
                }
            },
            None if is_served && model == LOCAL_MODEL => {
                Self::local(LocalSource::Bundled, args, concurrency).map(Some)
            }
            None if is_served => Err(Error::Usage(format!(
                "the plan is for {model} on a server that rowmill starts: say which with --serve, or \
                 where there is one with --base-url"
            ))),
            None => Ok(None),
        }
    }

    fn recipe(command: &str, model: &str) -> Result<Self, Error> {
        let recipe = Recipe::parse(command, model);
        let what = What::Recipe(recipe.map_err(|error| Error::Usage(error.to_string()))?);
        Ok(Self { what, model: model.to_owned(), spelled: String::new() })
    }

    fn local(
        source: LocalSource,
        args: &ServeArgs,
        concurrency: Option<u32>,
    ) -> Result<Self, Error> {
        let cache = cache_dir(args)?;
        let (source, name) = match source {
            LocalSource::Bundled => (source, LOCAL_MODEL.to_owned()),
            LocalSource::File(path) => {
                let unreadable =
                    |source| crate::input::Error::Unreadable { path: path.clone(), source };
                let name = launch::name_of_file(&path, &cache).map_err(unreadable)?;
                let path = path.canonicalize().map_err(unreadable)?;
                (LocalSource::File(path), name)
            }
        };
        let slots = concurrency.map_or(LOCAL_SLOTS, |wanted| LOCAL_SLOTS.min(wanted as usize));
        // Where other work needs the cores, threads that wait for each other take many times as long.
        let threads = (cores() / 2).clamp(1, LOCAL_THREADS);
        let what =
            What::Local(Local { source, name: name.clone(), cache, slots: slots.max(1), threads });
        Ok(Self { what, model: name, spelled: String::new() })
    }

    /// How many requests are in flight unless the command says so.
    pub(super) fn default_concurrency(&self) -> Option<u32> {
        match self.what {
            // More would only wait in line, and each would seem to take longer.
            What::Local(_) => u32::try_from(LOCAL_SLOTS).ok(),
            What::Recipe(_) => None,
        }
    }

    /// The file that the model is in, where the command names one.
    pub(super) fn reads(&self) -> Option<PathBuf> {
        match &self.what {
            What::Local(Local { source: LocalSource::File(path), .. }) => Some(path.clone()),
            What::Local(_) | What::Recipe(_) => None,
        }
    }

    /// Where requests go, as far as is known before the server is there.
    pub(super) fn base_url() -> &'static str {
        SOMEWHERE
    }

    /// What starts it.
    pub(super) fn launcher(self, args: &ServeArgs) -> Launcher {
        Launcher::new(self.what, this_program(), args.serve_timeout)
    }
}

impl ModelArgs {
    /// Whether it names the model that rowmill serves itself.
    pub(super) fn is_local(&self) -> bool {
        let name = self.model.as_deref().map(|it| it.split_once('?').map_or(it, |it| it.0));
        self.endpoint.is_none() && name.and_then(local_source).is_some()
    }
}

/// `local` and `local:PATH`.
fn local_source(text: &str) -> Option<LocalSource> {
    match text.strip_prefix(LOCAL)? {
        "" => Some(LocalSource::Bundled),
        rest => rest.strip_prefix(':').map(|path| LocalSource::File(PathBuf::from(path))),
    }
}

fn cache_dir(args: &ServeArgs) -> Result<PathBuf, Error> {
    let named = |name: &str| variable(name).map(PathBuf::from);
    let found = args
        .cache_dir
        .clone()
        .or_else(|| named("ROWMILL_CACHE_DIR"))
        .or_else(|| named("XDG_CACHE_HOME").map(|dir| dir.join("rowmill")))
        .or_else(|| named("HOME").map(|dir| dir.join(".cache").join("rowmill")));
    let found = found.and_then(|dir| std::path::absolute(dir).ok());
    found.ok_or_else(|| Error::Usage("there is no home directory; give --cache-dir".to_owned()))
}

/// This program's file, also where another has taken its name since.
fn this_program() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { link } else { std::env::current_exe().unwrap_or(link) }
}

/// Becomes a guardian or a server, where that is what the command line says.
pub(super) fn become_another(arguments: &[OsString]) -> Option<ExitCode> {
    let command = arguments.get(1)?.to_str()?;
    match (command, arguments.get(2..)?) {
        (launch::GUARD, [program, log, words @ ..]) => {
            // It goes when rowmill does: a signal to all is no reason to go before.
            for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
                let ignored = Arc::new(AtomicUsize::new(0));
                let _ = signal_hook::flag::register_usize(signal, ignored, 1);
            }
            let mut reports = std::io::stdout();
            let guarded = launch::guard(Path::new(program), Path::new(log), words, &mut reports);
            if let Err(error) = guarded {
                // Whoever reads this takes it for how the server ended.
                let _ = writeln!(reports, "ended {error}");
                return Some(ExitCode::from(exit::UNAVAILABLE));
            }
            Some(ExitCode::SUCCESS)
        }
        (launch::EXEC, [guardian, words @ ..]) => {
            let guardian = guardian.to_str().and_then(|pid| pid.parse().ok()).unwrap_or(0);
            let error = launch::become_server(guardian, words);
            let program = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
            exit::say(&format!("{program}: {error}"));
            Some(ExitCode::from(127))
        }
        _ => None,
    }
}
