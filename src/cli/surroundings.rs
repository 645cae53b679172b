//! What a command has of the process it runs in: signals, screen, log, standard output, a lock to
//! wait for, a deadline.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::ProgressDrawTarget;

use super::args::{ScreenArgs, TellArgs};
use super::deadline::{self, Deadline, Kept};
use super::ending::Judge;
use super::exit::{self, Line};
use super::signals::{self, Caught};
use super::typed::Typed;
use crate::launch::Launcher;
use crate::pipeline::{self, Context, Error};
use crate::policy::Allowance;
use crate::shutdown::{self, Stage};
use crate::store;
use crate::telemetry::{Event, Log, LogError, Progress, Sink, Style, Tee};
use crate::work;

/// A command's error.
pub(super) struct Failed {
    pub(super) error: Error,
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into() }
    }
}

/// What the arguments say of a command's surroundings.
#[derive(Default)]
pub(super) struct Settings<'a> {
    /// The command, in a word.
    pub(super) command: &'static str,
    pub(super) screen: Option<&'a ScreenArgs>,
    pub(super) tell: Option<&'a TellArgs>,
    /// What is told first.
    pub(super) note: Option<String>,
    /// What is told of the input's lines.
    pub(super) lines: Option<String>,
    pub(super) lock_wait: Option<Duration>,
    /// How many rows may fail.
    pub(super) allowed: Option<Allowance>,
    /// When it is to have ended, and how long calls may take to end.
    pub(super) deadline: Option<(&'a Deadline, Duration)>,
    pub(super) work_dir: PathBuf,
    /// Files that the command reads or writes, each named as messages name it: the log is none of
    /// them.
    pub(super) files: Vec<(&'static str, PathBuf)>,
}

/// What a command has of its surroundings.
pub(super) struct Surroundings<'a> {
    trigger: shutdown::Trigger,
    shutdown: shutdown::Shutdown,
    caught: Caught,
    pub(super) progress: Tee,
    /// Starts the server that answers, where there is to be one.
    pub(super) launcher: Option<Launcher>,
    stdout: std::io::Stdout,
    typed: &'a Typed<'a>,
    lock_wait: Option<Duration>,
    allowed: Option<Allowance>,
    deadline: Option<Kept>,
    is_quiet: bool,
}

impl<'a> Surroundings<'a> {
    /// Opens the log, takes signals, and begins to watch over the deadline.
    ///
    /// # Errors
    /// When the log cannot be one, or the deadline means no moment here.
    pub(super) fn new(settings: Settings<'_>, typed: &'a Typed<'a>) -> Result<Self, Error> {
        let Settings { command, screen, tell, note, lines, work_dir, files, .. } = settings;
        let tell = tell.or(screen.map(|screen| &screen.tell));
        let is_quiet = tell.is_some_and(|tell| tell.quiet);
        let log = match tell.and_then(|tell| tell.log_file.as_deref()) {
            Some(path) => Some(open_log(path, &files, &work_dir)?),
            None => None,
        };
        let mut progress = Tee::new(Progress::new(style(screen, is_quiet)), log);
        progress.log(|log| log.begin(command, env!("CARGO_PKG_VERSION"), &work_dir));
        for note in note.into_iter().chain(lines) {
            progress.emit(&Event::Note(note));
        }
        let (trigger, shutdown) = shutdown::channel();
        let caught = signals::install(trigger.clone(), is_quiet);
        let mut it = Self {
            trigger,
            shutdown,
            caught,
            progress,
            launcher: None,
            stdout: std::io::stdout(),
            typed,
            lock_wait: settings.lock_wait,
            allowed: settings.allowed,
            deadline: None,
            is_quiet,
        };
        if let Some((deadline, drain_timeout)) = settings.deadline {
            it.deadline = Some(it.watch(deadline, drain_timeout)?);
        }
        Ok(it)
    }

    fn watch(&self, deadline: &Deadline, drain_timeout: Duration) -> Result<Kept, Error> {
        let words: Vec<OsString> = self.typed.0.to_vec();
        let late = move |kept: &Kept| {
            let what = "what was under way did not end in time";
            exit::of_deadline(kept, what, exit::KEPT, &Typed(&words))
        };
        let (trigger, caught) = (self.trigger.clone(), self.caught.clone());
        deadline::watch(deadline, drain_timeout, trigger, caught, late)
    }

    /// Whether only what needs a person is to be said.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Whether a signal has asked for the end.
    pub(super) fn is_asked_to_end(&self) -> bool {
        self.shutdown.stage() != Stage::Running
    }

    /// Why nothing is to be begun, if so: the deadline has passed.
    pub(super) fn is_too_late(&self) -> Option<Line> {
        let kept = self.deadline.as_ref()?;
        let what = "it has passed, or is too close to begin anything";
        (self.shutdown.stage() == Stage::Aborting)
            .then(|| exit::of_deadline(kept, what, exit::UNTOUCHED, self.typed))
    }

    /// What results are judged by.
    pub(super) fn judge(&self) -> Judge<'_> {
        Judge {
            typed: self.typed,
            caught: &self.caught,
            deadline: self.deadline.as_ref(),
            allowed: self.allowed,
        }
    }

    pub(super) fn with<T>(
        &mut self,
        body: impl FnOnce(&mut Context<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let deadline = self.lock_wait.map(|wait| Instant::now() + wait);
        let watched = self.shutdown.clone();
        let mut wait = move || {
            let may_wait = deadline.is_some_and(|deadline| Instant::now() < deadline);
            if !may_wait || watched.stage() != Stage::Running {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
            true
        };
        let judge = Judge {
            typed: self.typed,
            caught: &self.caught,
            deadline: self.deadline.as_ref(),
            allowed: self.allowed,
        };
        let mut launcher = self.launcher.take();
        let mut launch = launcher.as_mut().map(|launcher| {
            |log: &Path, shutdown: &shutdown::Shutdown, sink: &mut dyn Sink| {
                let launched = launcher.start(log, shutdown, sink);
                launched.map_err(|error| work::Error::Server { reason: error.to_string() })
            }
        });
        let mut context = Context {
            shutdown: &self.shutdown,
            sink: &mut self.progress,
            stdout: &mut self.stdout,
            wait: &mut wait,
            launch: launch.as_mut().map(|launch| launch as &mut work::Launch<'_>),
            command: self.typed.again(),
            judge: &|result| judge.session_end(result),
        };
        let result = body(&mut context);
        // Stops what was started, and waits until it is gone.
        drop(launcher);
        self.progress.emit(&Event::Ended);
        // Keeps the channel open for as long as anyone may look.
        let _ = &self.trigger;
        result
    }

    /// Ends a command: its closing line, in the log as well, and its code.
    pub(super) fn close(mut self, result: Result<Option<Line>, Failed>) -> ExitCode {
        if let Some(kept) = &self.deadline {
            kept.lift();
        }
        let line = match result {
            Ok(line) => line,
            Err(failed) => self.judge().line(Err(&failed.error)),
        };
        let code = line.as_ref().map_or(exit::OK, |line| line.code);
        let message = line.as_ref().map_or_else(|| "ended well".to_owned(), Line::message);
        self.progress.log(|log| log.end(code, &message));
        line.map_or(ExitCode::from(exit::OK), |line| line.print())
    }
}

fn open_log(path: &Path, files: &[(&'static str, PathBuf)], work_dir: &Path) -> Result<Log, Error> {
    let cannot_open = |path, source| Error::Store(store::Error::Io { what: "open", path, source });
    match pipeline::check_log(path, files, work_dir) {
        Err(Error::Store(store::Error::Io { path, source, .. })) => {
            return Err(cannot_open(path, source));
        }
        checked => checked?,
    }
    Log::open(path).map_err(|error| match error {
        LogError::Open { path, source } | LogError::Append { path, source } => {
            cannot_open(path, source)
        }
    })
}

fn style(screen: Option<&ScreenArgs>, is_quiet: bool) -> Style {
    let stderr = || Box::new(std::io::stderr());
    match screen {
        _ if is_quiet => Style::Alerts(stderr()),
        Some(args) if !args.no_progress => match args.progress_every {
            None if std::io::stderr().is_terminal() => {
                Style::Bars(ProgressDrawTarget::stderr_with_hz(10))
            }
            every => Style::Lines(stderr(), every),
        },
        _ => Style::Quiet(stderr()),
    }
}

/// Cores this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
