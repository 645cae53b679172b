//! Which files a command writes, and whether it may.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::inputs::Inputs;
use super::{Context, Error};
use crate::http::Link;
use crate::job::{Dialect, JobSpec};
use crate::merge;
use crate::store::{self, Held, Holder, KnownBy, OutputLock, Role, Target, real_dir};
use crate::telemetry::now_ms;

/// Outputs as the command line names them.
#[derive(Debug, Clone)]
pub struct OutputPaths {
    /// One line a row; `-` for standard output. Where there are several inputs, this, errors, telemetry
    /// and delta are directories.
    pub output: PathBuf,
    /// How lines are spelled; by default as those of the job's input.
    pub format: Option<Dialect>,
    /// The lines of the rows that failed.
    pub errors: Option<PathBuf>,
    /// One line an attempt.
    pub telemetry: Option<PathBuf>,
    /// The lines of the answers that no earlier generation published.
    pub delta: Option<PathBuf>,
    /// What the run was.
    pub summary: Option<PathBuf>,
    /// The URLs among them; in their places stands what may be shown of them.
    pub links: Vec<Link>,
    /// Where what goes to those is staged; by default in the work directory.
    pub staging: Option<PathBuf>,
}

impl OutputPaths {
    /// How the lines of a job's outputs are spelled.
    ///
    /// # Errors
    /// [`Error::Usage`] where they are to say what only envelopes do: the row, or which of several answers to it.
    pub fn format_of(&self, job: &JobSpec, include_input: bool) -> Result<Dialect, Error> {
        format_of(self.format, job, include_input)
    }

    fn all(&self) -> impl Iterator<Item = (Role, &Path)> {
        let sides = [
            (Role::Errors, &self.errors),
            (Role::Telemetry, &self.telemetry),
            (Role::Delta, &self.delta),
            (Role::Summary, &self.summary),
        ];
        let sides = sides.into_iter().filter_map(|(role, path)| Some((role, path.as_deref()?)));
        std::iter::once((Role::Output, &*self.output)).chain(sides)
    }
}

/// How lines of a job are spelled where they may be `given` a format of their own; else as those of its input.
///
/// # Errors
/// As [`OutputPaths::format_of`].
pub fn format_of(
    given: Option<Dialect>,
    job: &JobSpec,
    include_input: bool,
) -> Result<Dialect, Error> {
    let format = given.unwrap_or(job.dialect);
    let refuse = |what: &str, instead: &str| {
        let given = if given.is_some() { "" } else { ", as those of the input are," };
        Err(Error::Usage(format!(
            "{what}, and lines that are spelled as {format}{given} have no place for that: \
             {instead} --output-format rows"
        )))
    };
    match () {
        () if format.is_rows() => Ok(format),
        () if include_input => {
            refuse("--include-input puts each row into its envelope", "leave it out, or say")
        }
        () if job.is_varied() => refuse(
            "several answers to a row (several -m, --repeat) are told apart by the model and the \
             number of the answer",
            "ask for one, or say",
        ),
        () => Ok(format),
    }
}

/// Outputs, looked at.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    /// Those of each input, in order.
    pub(super) inputs: Vec<merge::Outputs>,
    pub(super) summary: Option<Target>,
    /// Where there are several inputs, the directories that their outputs stand in.
    dirs: Vec<PathBuf>,
}

impl Targets {
    /// Looks at the outputs, and refuses what would destroy an input, the work directory or
    /// another output.
    pub(super) fn resolve(
        paths: &OutputPaths,
        inputs: &Inputs,
        reads: &[(&'static str, PathBuf)],
        work_dir: &Path,
    ) -> Result<Self, Error> {
        // They are written down in records, and names in those are text.
        for (_, path) in paths.all() {
            if path.to_str().is_none() {
                let shown = path.display();
                return Err(Error::Usage(format!("the output's name is not UTF-8: {shown}")));
            }
        }
        let staging = match &paths.staging {
            Some(dir) => staging(dir)?,
            None => std::path::absolute(work_dir).unwrap_or_else(|_| work_dir.to_owned()),
        };
        let is_link = |path: &Path| paths.links.iter().any(|it| path.to_str() == Some(it.shown()));
        let resolve = |path: &Path| match is_link(path) {
            true => Ok(Target::Remote { url: path.to_owned(), staging: staging.clone() }),
            false => Target::resolve(path),
        };
        let mut dirs = Vec::new();
        for (role, path) in paths.all() {
            let is_dir = inputs.are_several() && role != Role::Summary;
            if is_dir && (path == Path::new("-") || is_link(path)) {
                let name = option(role);
                return Err(Error::Usage(format!(
                    "with several inputs, or a directory of them, {name} is a directory in which \
                     each has its own: it cannot be standard output or a URL"
                )));
            }
            if role != Role::Output && path == Path::new("-") {
                let name = option(role);
                let text = format!("{name} cannot be standard output; only --output can");
                return Err(Error::Usage(text));
            }
            if !is_dir && !is_link(path) && names_dir(path) {
                let (name, path) = (option(role), path.display());
                return Err(Error::Usage(format!(
                    "{name} must be a file, and {path} names a directory: those are for several \
                     inputs, or a directory of them"
                )));
            }
            dirs.extend(is_dir.then(|| path.to_owned()));
        }
        let of = |name: Option<&str>| -> Result<merge::Outputs, Error> {
            let place = |path: &Path| match name {
                Some(name) => Target::within(path, name),
                None => resolve(path),
            };
            let side = |path: &Option<PathBuf>| path.as_deref().map(place).transpose();
            Ok(merge::Outputs {
                output: place(&paths.output)?,
                errors: side(&paths.errors)?,
                telemetry: side(&paths.telemetry)?,
                delta: side(&paths.delta)?,
            })
        };
        let each = match inputs {
            Inputs::One(_) => vec![of(None)?],
            Inputs::Several { files, .. } => {
                files.iter().map(|it| of(Some(&it.name))).collect::<Result<_, _>>()?
            }
        };
        // It may stand among the outputs, in a directory that is still to be made.
        let among = |path: &Path| {
            let (parent, name) = (path.parent()?, path.file_name()?.to_str()?);
            let parent = real_dir(parent).ok()?;
            let is_there = dirs.iter().any(|dir| real_dir(dir).is_ok_and(|dir| dir == parent));
            is_there.then(|| Target::within(&parent, name))
        };
        let summary = |path: &Path| among(path).unwrap_or_else(|| resolve(path));
        let summary = paths.summary.as_deref().map(summary).transpose()?;
        let targets = Self { inputs: each, summary, dirs };
        targets.check(inputs, reads, work_dir)?;
        Ok(targets)
    }

    /// The output, or that of the first input.
    pub(super) fn output(&self) -> &Target {
        &self.inputs[0].output
    }

    /// All of them, each with its role.
    pub(super) fn all(&self) -> impl Iterator<Item = (Role, &Target)> {
        let of_inputs = self.inputs.iter().flat_map(|it| {
            let sides = [
                (Role::Errors, it.errors.as_ref()),
                (Role::Telemetry, it.telemetry.as_ref()),
                (Role::Delta, it.delta.as_ref()),
            ];
            let sides = sides.into_iter().filter_map(|(role, target)| Some((role, target?)));
            std::iter::once((Role::Output, &it.output)).chain(sides)
        });
        of_inputs.chain(self.summary.as_ref().map(|target| (Role::Summary, target)))
    }

    /// Refuses what would destroy the input, a file that is read, or another output, or be in a work directory.
    pub(super) fn check(
        &self,
        inputs: &Inputs,
        reads: &[(&'static str, PathBuf)],
        work_dir: &Path,
    ) -> Result<(), Error> {
        let paths = inputs.paths().filter(|path| *path != Path::new("-"));
        let input = |path: &Path| match inputs.are_several() {
            true => format!("the input {}", path.display()),
            false => "the input".to_owned(),
        };
        let reads = reads.iter().map(|(what, path)| ((*what).to_owned(), path.as_path()));
        let mut known: HashMap<KnownBy, String> = HashMap::new();
        for (what, path) in paths.map(|path| (input(path), path)).chain(reads) {
            // What cannot be looked at fails where it is read.
            let by = Target::resolve(path).map(|target| target.known_by()).unwrap_or_default();
            for it in by.into_iter().chain([KnownBy::Url(path.as_os_str().to_owned())]) {
                known.entry(it).or_insert_with(|| what.clone());
            }
        }
        let inside = real_dir(work_dir).ok();
        let holding = self.holding(inside.as_deref());
        for (role, target) in self.all() {
            target.check_name()?;
            let (name, by) = (option(role), target.known_by());
            if let Target::File(file) = target
                && let Some(what) = holding.get(file.as_path())
            {
                let file = file.display();
                return Err(Error::Usage(format!(
                    "{name} must not be {file}: that is a directory in which {what} is to stand"
                )));
            }
            if let Some(what) = by.iter().find_map(|it| known.get(it)) {
                return Err(Error::Usage(format!("{name} must not be {what}")));
            }
            for it in by {
                known.insert(it, format!("the file of {name}"));
            }
            if let Target::File(file) = target {
                inputs.stay_apart_from(name, file)?;
            }
            if let (Target::File(file), Some(inside)) = (target, &inside)
                && file.starts_with(inside)
            {
                return Err(Error::Usage(format!("{name} must not be in the work directory")));
            }
        }
        Ok(())
    }

    /// The directories in which outputs and the work directory stand, or will, with what that is.
    fn holding<'a>(&'a self, work_dir: Option<&'a Path>) -> HashMap<&'a Path, &'static str> {
        let mut holding = HashMap::new();
        let files = self.all().filter_map(|(role, target)| match target {
            Target::File(file) => Some((file.as_path(), option(role))),
            _ => None,
        });
        for (path, what) in files.chain(work_dir.map(|dir| (dir, "the work directory"))) {
            for dir in path.ancestors().skip(1) {
                // Those above one that is known are known.
                if holding.insert(dir, what).is_some() {
                    break;
                }
            }
        }
        holding
    }

    /// Makes sure that none is in another's directory.
    pub(super) fn stay_out_of(&self, theirs: &Path) -> Result<(), Error> {
        self.check(&Inputs::One("-".into()), &[], theirs)
    }

    /// The directories of outputs that are not there.
    pub(super) fn missing_dirs(&self) -> Vec<PathBuf> {
        self.dirs.iter().filter(|dir| !dir.exists()).cloned().collect()
    }

    /// Makes them.
    pub(super) fn make_dirs(&self) -> Result<(), store::Error> {
        self.dirs.iter().try_for_each(|dir| store::make_output_dir(dir))
    }

    /// Takes the lock of the output, or of the directory in which the outputs are.
    pub(super) fn lock(&self, context: &mut Context<'_>) -> Result<Option<OutputLock>, Error> {
        let holder = Holder::this_process(&context.command, now_ms());
        Ok(match self.dirs.first() {
            Some(dir) => Some(OutputLock::acquire_dir(dir, &holder, context.wait)?),
            None => OutputLock::acquire(self.output(), &holder, context.wait)?,
        })
    }

    /// An output that is there.
    pub(super) fn first_there(&self) -> Option<PathBuf> {
        self.all().find_map(|(_, target)| match target {
            Target::File(path) if target.is_there() => Some(path.clone()),
            _ => None,
        })
    }

    /// All outputs that are there.
    pub(super) fn there(&self) -> Vec<String> {
        self.all()
            .filter_map(|(_, target)| match target {
                Target::File(path) if target.is_there() => Some(path_text(path)),
                _ => None,
            })
            .collect()
    }

    /// The output, if it is a file.
    pub(super) fn output_file(&self) -> Option<&Path> {
        match self.output() {
            Target::File(path) => Some(path),
            Target::Stream(_) | Target::Stdout | Target::Remote { .. } => None,
        }
    }

    /// Removes what earlier processes of this run staged and did not publish.
    pub(super) fn sweep(&self, dir: &Held) -> Result<(), store::Error> {
        self.all().try_for_each(|(role, target)| dir.sweep(role, target))
    }
}

/// Removes directories that were made for outputs which do not come.
pub(super) fn remove_empty(dirs: &[PathBuf]) {
    for dir in dirs {
        // What led here is the error to tell, and one that holds something stays.
        let _ = std::fs::remove_dir(dir);
    }
}

/// Makes sure that a log is a file of its own: not one of `others`, each named as messages name it,
/// and not in the work directory. To be called before it is opened.
///
/// # Errors
/// [`Error::Usage`], or [`Error::Store`] where it cannot be a file.
pub fn check_log(
    log: &Path,
    others: &[(&'static str, PathBuf)],
    work_dir: &Path,
) -> Result<(), Error> {
    let refuse = |what: &str| Err(Error::Usage(format!("--log-file must not be {what}")));
    let log = Target::resolve(log)?;
    if log == Target::Stdout {
        return refuse("standard output");
    }
    let same = |path: &Path| Target::resolve(path).is_ok_and(|other| other.is_same_as(&log));
    if let Some((what, _)) = others.iter().find(|(_, path)| same(path)) {
        return refuse(what);
    }
    match (&log, work_dir.canonicalize()) {
        (Target::File(file), Ok(inside)) if file.starts_with(&inside) => {
            refuse("in the work directory")
        }
        _ => Ok(()),
    }
}

/// A directory in which outputs wait for their uploads.
fn staging(dir: &Path) -> Result<PathBuf, Error> {
    let refuse =
        |reason: &str| store::Error::Target { path: dir.to_owned(), reason: reason.into() };
    match dir.canonicalize() {
        Ok(dir) if dir.is_dir() && dir.to_str().is_some() => Ok(dir),
        Ok(_) => Err(refuse("cannot be a directory for outputs").into()),
        Err(error) => Err(refuse(&error.to_string()).into()),
    }
}

/// A path as manifests have it.
pub(super) fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Whether a path can only be that of a directory.
fn names_dir(path: &Path) -> bool {
    let path = path.as_os_str().as_encoded_bytes();
    path.ends_with(b"/") || path.ends_with(b"/.")
}

/// The option that names an output.
pub(super) fn option(role: Role) -> &'static str {
    match role {
        Role::Output => "--output",
        Role::Errors => "--error-output",
        Role::Telemetry => "--telemetry-output",
        Role::Delta => "--output-delta",
        Role::Summary => "--summary-output",
    }
}
