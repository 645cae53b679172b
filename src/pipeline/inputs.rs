//! What a command names as its input: one file, or several of which each has outputs of its own.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::prepare::is_pipe;
use crate::input::{self, Source, Sources};
use crate::store::{Manifest, SourcePrint};

/// The input of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inputs {
    /// A file; `-` for standard input. Of a URL, what may be shown of it.
    One(PathBuf),
    /// Files that are each told apart by a name, which is that of their outputs in the directories
    /// that the command says.
    Several {
        /// The files, in order.
        files: Vec<NamedInput>,
        /// Where the directories are that the command names: all `.jsonl` files in them are inputs,
        /// whenever it is typed.
        dirs: Vec<PathBuf>,
    },
}

impl Default for Inputs {
    /// Standard input.
    fn default() -> Self {
        Self::One("-".into())
    }
}

/// One of several inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedInput {
    /// Where it is.
    pub path: PathBuf,
    /// What its outputs are called.
    pub name: String,
}

impl Inputs {
    /// The input of a command that names these paths. A directory stands for the `.jsonl` files that are
    /// directly in it, in the order of their names' bytes; hidden ones are left out.
    ///
    /// # Errors
    /// [`Error::Usage`] where several cannot be told apart, or cannot be read twice;
    /// [`Error::Input`] where one cannot be looked at, or a directory has none.
    pub fn of(paths: &[PathBuf]) -> Result<Self, Error> {
        if let [one] = paths
            && !one.is_dir()
        {
            return Ok(Self::One(one.clone()));
        }
        let (mut all, mut dirs) = (Vec::new(), Vec::new());
        for path in paths {
            match path.is_dir() {
                true => {
                    all.extend(files_in(path)?);
                    dirs.extend(path.canonicalize());
                }
                false => all.push(path.clone()),
            }
        }
        let mut inputs: Vec<NamedInput> = Vec::new();
        // Where each name was seen, and which files were.
        let (mut names, mut files) = (HashMap::new(), HashSet::new());
        for path in all {
            let shown = path.display();
            let refuse = |why: String| Err(Error::Usage(format!("{shown} {why}")));
            if is_pipe(&path) {
                return refuse("cannot be one of several inputs: they must be files".to_owned());
            }
            let unreadable = |source| input::Error::Unreadable { path: path.clone(), source };
            let meta = fs::metadata(&path).map_err(unreadable)?;
            if !files.insert((meta.dev(), meta.ino())) {
                return refuse("is named twice, or under two names".to_owned());
            }
            let Some(name) = output_name(&path) else {
                return refuse("has no name in UTF-8 that its outputs could have".to_owned());
            };
            if let Some(other) = names.insert(name.clone(), path.clone()) {
                let other = other.display();
                return refuse(format!("would have the output of {other}: both are called {name}"));
            }
            inputs.push(NamedInput { path, name });
        }
        Ok(Self::Several { files: inputs, dirs })
    }

    /// The input of a plan.
    pub(super) fn planned(manifest: &Manifest) -> Self {
        // What was copied is no file that an output could take the place of.
        let path = |it: &SourcePrint| it.path.as_ref().map_or("-".into(), PathBuf::from);
        if !manifest.is_split() {
            return Self::One(path(manifest.source()));
        }
        let named = |it: &SourcePrint| NamedInput {
            path: path(it),
            name: it.name.clone().unwrap_or_default(),
        };
        let files = manifest.sources.iter().map(named).collect();
        Self::Several { files, dirs: Vec::new() }
    }

    /// Where the files are.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let (one, several) = match self {
            Self::One(path) => (Some(path.as_path()), &[][..]),
            Self::Several { files, .. } => (None, &files[..]),
        };
        one.into_iter().chain(several.iter().map(|input| input.path.as_path()))
    }

    /// What the outputs of each are called, where there are several.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let several = match self {
            Self::One(_) => &[][..],
            Self::Several { files, .. } => files,
        };
        several.iter().map(|input| input.name.as_str())
    }

    /// Whether each has outputs of its own in a directory.
    #[must_use]
    pub fn are_several(&self) -> bool {
        matches!(self, Self::Several { .. })
    }

    /// Refuses a file that is to be written, by the option that says so, where the same command would
    /// read it as an input the next time.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn stay_apart_from(&self, option: &str, file: &Path) -> Result<(), Error> {
        let Self::Several { dirs, .. } = self else { return Ok(()) };
        let parent = file.parent().filter(|it| *it != Path::new("")).unwrap_or(Path::new("."));
        let Ok(parent) = parent.canonicalize() else { return Ok(()) };
        // One that is there is an input already, which is told as such.
        if !dirs.contains(&parent) || !is_taken(file) || file.exists() {
            return Ok(());
        }
        let (file, parent) = (file.display(), parent.display());
        Err(Error::Usage(format!(
            "{option} must not be {file}: all .jsonl files in {parent} are inputs, so it would be one \
             the next time"
        )))
    }

    /// Opens them.
    pub(super) fn open(&self) -> Result<Sources, Error> {
        Ok(match self {
            Self::One(path) => Source::open(path)?.into(),
            Self::Several { files, .. } => {
                let open = |NamedInput { path, name }: &NamedInput| {
                    Ok(Source { name: Some(name.clone()), ..Source::open(path)? })
                };
                Sources::several(files.iter().map(open).collect::<Result<_, Error>>()?)
            }
        })
    }
}

/// The `.jsonl` files directly in a directory, in order.
fn files_in(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| input::Error::Unreadable { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // What cannot be looked at, as a link to nowhere, is an input all the same: it is told where it
        // is opened, not passed over.
        if is_taken(&path) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    match files.is_empty() {
        true => Err(input::Error::NoInputs { path: dir.to_owned() }.into()),
        false => Ok(files),
    }
}

/// Whether a directory stands for a file of this name among others.
fn is_taken(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && path.extension().is_some_and(|it| it.eq_ignore_ascii_case("jsonl"))
}

/// What the outputs of an input are called: as it is, but for CSV, of which the answers are JSON Lines.
fn output_name(path: &Path) -> Option<String> {
    let is_ending = |it: &std::ffi::OsStr| {
        ["csv", "tsv", "tab"].iter().any(|ending| it.eq_ignore_ascii_case(ending))
    };
    let is_csv = path.extension().is_some_and(is_ending);
    let name = if is_csv { path.with_extension("jsonl") } else { path.to_owned() };
    Some(name.file_name()?.to_str()?.to_owned())
}
