//! The shim: built with the C compiler that Rust links with, preloaded into a command, its log read.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The shim's library.
#[derive(Debug, Clone)]
pub struct Shim(PathBuf);

/// What the shim does to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing but counting.
    Count,
    /// The process is killed before its N-th operation.
    Kill(u64),
    /// The N-th operation is carried out, a write by half, and the process is killed.
    Torn(u64),
    /// The N-th operation fails with this error.
    Once(u64, Errno),
    /// The N-th operation fails with this error, and all after it.
    Sticky(u64, Errno),
    /// All operations are logged with their data; the process is killed before its N-th, which for 0
    /// is never.
    Record(u64),
}

/// An error of the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    /// A device that fails.
    Io,
    /// No room.
    Full,
}

impl Errno {
    fn number(self) -> i32 {
        match self {
            Self::Io => 5,
            Self::Full => 28,
        }
    }
}

/// The kind of an operation, as in `shim.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Write,
    Create,
    Truncate,
    Sync,
    Rename,
    Unlink,
    Rmdir,
    Mkdir,
    /// Of no consequence for what is in a file.
    Other,
    Link,
}

/// One operation of the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number: threads may log in another order than they are counted.
    pub at: u64,
    pub op: Op,
    pub path: String,
    /// The new name of a rename.
    pub other: String,
    pub data: Vec<u8>,
    /// Of a sync: how many entries before it had ended when it began.
    pub covers: u64,
    pub ino: u64,
    /// Of a write; the length of a truncation; 1 for a creation that empties.
    pub offset: u64,
}

impl Shim {
    /// Builds it.
    pub fn build(within: &Path) -> Result<Self, String> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prove/shim.c");
        let library = within.join("shim.so");
        compile(&["-shared", "-fPIC"], &source, &library)?;
        Ok(Self(library))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Puts a fault on a command's operations below `root`, which are logged.
    pub fn put_on(&self, command: &mut Command, fault: Fault, root: &Path, log: &Path) {
        let (mode, at, errno) = match fault {
            Fault::Count => ("count", 0, 0),
            Fault::Kill(at) => ("kill", at, 0),
            Fault::Torn(at) => ("torn", at, 0),
            Fault::Once(at, errno) => ("once", at, errno.number()),
            Fault::Sticky(at, errno) => ("sticky", at, errno.number()),
            Fault::Record(at) => ("record", at, 0),
        };
        let _ = fs::remove_file(log);
        command.env("LD_PRELOAD", &self.0).env("SHIM_ROOT", root).env("SHIM_LOG", log);
        command.env("SHIM_MODE", mode).env("SHIM_AT", at.to_string());
        command.env("SHIM_ERRNO", errno.to_string());
    }
}

/// Compiles a C source.
pub fn compile(flags: &[&str], source: &Path, into: &Path) -> Result<(), String> {
    let output = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror"])
        .args(flags)
        .arg("-o")
        .args([into, source])
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Reads the log of a command that has ended.
pub fn read_log(path: &Path) -> Vec<Entry> {
    let bytes = fs::read(path).unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut entries = Vec::new();
    while let Some(entry) = read_entry(&mut rest) {
        entries.push(entry);
    }
    entries
}

fn read_entry(rest: &mut &[u8]) -> Option<Entry> {
    let op = match take_u32(rest)? {
        1 => Op::Write,
        2 => Op::Create,
        3 => Op::Truncate,
        4 => Op::Sync,
        5 => Op::Rename,
        6 => Op::Unlink,
        7 => Op::Rmdir,
        8 => Op::Mkdir,
        10 => Op::Link,
        _ => Op::Other,
    };
    let lengths = [take_u32(rest)?, take_u32(rest)?, take_u32(rest)?];
    let at = take_u64(rest)?;
    let (covers, ino, offset) = (take_u64(rest)?, take_u64(rest)?, take_u64(rest)?);
    let [path, other, data] = lengths.map(|length| take(rest, length as usize));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (path, other, data) = (text(path?), text(other?), data?.to_vec());
    Some(Entry { at, op, path, other, data, covers, ino, offset })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest, 8)?.try_into().ok().map(u64::from_le_bytes)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => write!(f, "no fault"),
            Self::Kill(at) => write!(f, "kill before operation {at}"),
            Self::Torn(at) => write!(f, "torn at operation {at}"),
            Self::Once(at, errno) => write!(f, "{errno:?} once, at operation {at}"),
            Self::Sticky(at, errno) => write!(f, "{errno:?} from operation {at} on"),
            Self::Record(0) => write!(f, "recorded"),
            Self::Record(at) => write!(f, "recorded, kill before operation {at}"),
        }
    }
}
