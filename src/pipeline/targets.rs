//! Which files a command writes, and whether it may.

use std::path::{Path, PathBuf};

use super::Error;
use crate::http::Link;
use crate::job::{Dialect, JobSpec};
use crate::store::{self, Held, Role, Target};

/// Outputs as the command line names them.
#[derive(Debug, Clone)]
pub struct OutputPaths {
    /// One line a row; `-` for standard output.
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
        let format = self.format.unwrap_or(job.dialect);
        let refuse = |what: &str, instead: &str| {
            let given = match self.format {
                Some(_) => "",
                None => ", as those of the input are,",
            };
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
}

/// Outputs, looked at.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    pub(super) output: Target,
    pub(super) errors: Option<Target>,
    pub(super) telemetry: Option<Target>,
    pub(super) delta: Option<Target>,
    pub(super) summary: Option<Target>,
}

impl Targets {
    /// Looks at the outputs, and refuses what would destroy the input, the work directory or
    /// another output.
    pub(super) fn resolve(
        paths: &OutputPaths,
        input: Option<&Path>,
        reads: &[(&'static str, PathBuf)],
        work_dir: &Path,
    ) -> Result<Self, Error> {
        // They are written down in records, and names in those are text.
        let sides = [&paths.errors, &paths.telemetry, &paths.delta, &paths.summary];
        for path in sides.into_iter().flatten().chain([&paths.output]) {
            if path.to_str().is_none() {
                let shown = path.display();
                return Err(Error::Usage(format!("the output's name is not UTF-8: {shown}")));
            }
        }
        let staging = match &paths.staging {
            Some(dir) => staging(dir)?,
            None => std::path::absolute(work_dir).unwrap_or_else(|_| work_dir.to_owned()),
        };
        let resolve =
            |path: &Path| match paths.links.iter().any(|it| path.to_str() == Some(it.shown())) {
                true => Ok(Target::Remote { url: path.to_owned(), staging: staging.clone() }),
                false => Target::resolve(path),
            };
        let side = |path: &Option<PathBuf>, option: &str| match path {
            Some(path) if path == Path::new("-") => {
                Err(Error::Usage(format!("{option} cannot be standard output; only --output can")))
            }
            Some(path) => Ok(Some(resolve(path)?)),
            None => Ok(None),
        };
        let targets = Self {
            output: resolve(&paths.output)?,
            errors: side(&paths.errors, "--error-output")?,
            telemetry: side(&paths.telemetry, "--telemetry-output")?,
            delta: side(&paths.delta, "--output-delta")?,
            summary: side(&paths.summary, "--summary-output")?,
        };
        targets.check(input, reads, work_dir)?;
        Ok(targets)
    }

    /// All of them, each with its role.
    pub(super) fn all(&self) -> impl Iterator<Item = (Role, &Target)> {
        let side = |role, target: &'_ Option<Target>| target.as_ref().map(|_| role);
        let sides = [
            (side(Role::Errors, &self.errors), &self.errors),
            (side(Role::Telemetry, &self.telemetry), &self.telemetry),
            (side(Role::Delta, &self.delta), &self.delta),
            (side(Role::Summary, &self.summary), &self.summary),
        ];
        let sides = sides.into_iter().filter_map(|(role, target)| Some((role?, target.as_ref()?)));
        std::iter::once((Role::Output, &self.output)).chain(sides)
    }

    /// Refuses what would destroy the input, a file that is read, or another output, or be in a work directory.
    pub(super) fn check(
        &self,
        input: Option<&Path>,
        reads: &[(&'static str, PathBuf)],
        work_dir: &Path,
    ) -> Result<(), Error> {
        let all: Vec<_> = self.all().collect();
        let input = input.filter(|path| *path != Path::new("-"));
        let input = input.map(|path| ("the input", path));
        let reads = reads.iter().map(|(option, path)| (*option, path.as_path()));
        // What cannot be looked at fails where it is read.
        let reads: Vec<_> = input
            .into_iter()
            .chain(reads)
            .filter_map(|(what, path)| Some((what, Target::resolve(path).ok()?)))
            .collect();
        let remote = input.map(|(_, path)| path);
        let inside = work_dir.canonicalize().ok();
        for (index, (role, target)) in all.iter().enumerate() {
            let name = option(*role);
            if let Some((what, _)) = reads.iter().find(|(_, file)| file.is_same_as(target)) {
                return Err(Error::Usage(format!("{name} must not be {what}")));
            }
            if let (Target::Remote { url, .. }, Some(input)) = (target, remote)
                && url.as_os_str() == input.as_os_str()
            {
                return Err(Error::Usage(format!("{name} must not be the input")));
            }
            for (other, earlier) in &all[..index] {
                if earlier.is_same_as(target) {
                    let other = option(*other);
                    return Err(Error::Usage(format!("{name} must not be the file of {other}")));
                }
            }
            if let (Target::File(file), Some(inside)) = (target, &inside)
                && file.starts_with(inside)
            {
                return Err(Error::Usage(format!("{name} must not be in the work directory")));
            }
        }
        Ok(())
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
        match &self.output {
            Target::File(path) => Some(path),
            Target::Stream(_) | Target::Stdout | Target::Remote { .. } => None,
        }
    }

    /// Removes what earlier processes of this run staged and did not publish.
    pub(super) fn sweep(&self, dir: &Held) -> Result<(), store::Error> {
        self.all().try_for_each(|(role, target)| dir.sweep(role, target))
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

fn option(role: Role) -> &'static str {
    match role {
        Role::Output => "--output",
        Role::Errors => "--error-output",
        Role::Telemetry => "--telemetry-output",
        Role::Delta => "--output-delta",
        Role::Summary => "--summary-output",
    }
}
