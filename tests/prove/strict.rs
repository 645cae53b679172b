//! A file system stricter than any real one, simulated over the operations that the shim recorded.
//!
//! What a real file system happens to keep, this one may lose: data is durable once its file was
//! synced, a name once its directory was. When the power goes, every write that was not synced is
//! kept, lost, torn or replaced by zeros, and every new, removed or replaced name is kept or lost,
//! each by itself, as the seed says. That is more than POSIX allows a file system to do in some
//! places, and catches the missing sync of a directory that ext4 and xfs hide.
//!
//! The binary that is proved is the real one: it ran on a real file system, and every operation was
//! recorded in the order in which they ended. A sync covers what had ended when it began.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::shim::{Entry, Op};
use super::trial::{Done, answered};

/// A change of a file's bytes that may be lost.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Truncate(usize),
}

/// A change of a directory's names that may be lost.
#[derive(Debug, Clone)]
enum Naming {
    Add { name: String, ino: u64 },
    Remove { name: String },
    Rename { from: String, to: String, ino: u64 },
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    /// With the place of the operation in the log.
    pending: Vec<(u64, Change)>,
}

#[derive(Debug, Clone, Default)]
struct Dir {
    durable: BTreeMap<String, u64>,
    pending: Vec<(u64, Naming)>,
}

/// The simulated disk.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    files: HashMap<u64, File>,
    dirs: HashMap<u64, Dir>,
    root: u64,
    /// What a process sees: the inode behind each path.
    live: BTreeMap<String, u64>,
    /// The journals, by inode, with their paths.
    journals: BTreeMap<u64, String>,
    /// Rows whose answer was durable in a journal at some time, with the journal's path.
    answered: BTreeSet<(String, u64)>,
}

impl Disk {
    /// A disk that holds what is below a directory, all of it durable.
    pub fn load(root: &Path) -> Self {
        let mut disk = Self { root: ino(root), ..Self::default() };
        disk.load_dir(root);
        disk
    }

    fn load_dir(&mut self, path: &Path) {
        let number = ino(path);
        self.live.insert(text(path), number);
        let mut dir = Dir::default();
        for entry in fs::read_dir(path).expect("a directory").flatten() {
            let inner = entry.path();
            dir.durable.insert(entry.file_name().to_string_lossy().into_owned(), ino(&inner));
            if inner.is_dir() {
                self.load_dir(&inner);
            } else {
                let file = File { durable: fs::read(&inner).expect("a file"), pending: Vec::new() };
                self.live.insert(text(&inner), ino(&inner));
                self.files.insert(ino(&inner), file);
                self.note_journal(&text(&inner), ino(&inner));
            }
        }
        self.dirs.insert(number, dir);
    }

    /// Carries out one operation, the `place`-th of the log.
    pub fn apply(&mut self, place: u64, entry: &Entry) {
        match entry.op {
            Op::Write => {
                let change = Change::Write { offset: size(entry.offset), data: entry.data.clone() };
                self.change(entry.ino, place, change);
            }
            Op::Truncate => self.change(entry.ino, place, Change::Truncate(size(entry.offset))),
            Op::Create => self.create(place, entry),
            Op::Mkdir => {
                self.files.remove(&entry.ino);
                self.journals.remove(&entry.ino);
                self.dirs.insert(entry.ino, Dir::default());
                self.name(place, &entry.path, entry.ino);
            }
            Op::Unlink | Op::Rmdir => {
                self.live.remove(&entry.path);
                let (dir, name) = self.place_of(&entry.path);
                dir.pending.push((place, Naming::Remove { name }));
            }
            Op::Rename => {
                let Some(ino) = self.live.remove(&entry.path) else {
                    panic!("{} was never named", entry.path);
                };
                self.live.insert(entry.other.clone(), ino);
                let to = split(&entry.other).1;
                let (dir, from) = self.place_of(&entry.path);
                dir.pending.push((place, Naming::Rename { from, to, ino }));
            }
            Op::Link => panic!("rowmill makes no hard links"),
            Op::Sync => self.sync(entry),
            Op::Other => {}
        }
    }

    fn change(&mut self, ino: u64, place: u64, change: Change) {
        self.files.entry(ino).or_default().pending.push((place, change));
    }

    fn create(&mut self, place: u64, entry: &Entry) {
        if self.live.get(&entry.path) == Some(&entry.ino) {
            if entry.offset == 1 {
                self.change(entry.ino, place, Change::Truncate(0));
            }
            return;
        }
        // A file system gives the numbers of what is gone to what is new.
        self.dirs.remove(&entry.ino);
        self.journals.remove(&entry.ino);
        self.note_journal(&entry.path, entry.ino);
        self.files.insert(entry.ino, File::default());
        self.name(place, &entry.path, entry.ino);
    }

    fn note_journal(&mut self, path: &str, ino: u64) {
        if path.contains("/shards/") && split(path).1.starts_with("journal") {
            self.journals.insert(ino, path.to_owned());
        }
    }

    fn name(&mut self, place: u64, path: &str, ino: u64) {
        self.live.insert(path.to_owned(), ino);
        let (dir, name) = self.place_of(path);
        dir.pending.push((place, Naming::Add { name, ino }));
    }

    /// The directory that holds a path, and the path's name in it.
    fn place_of(&mut self, path: &str) -> (&mut Dir, String) {
        let (parent, name) = split(path);
        let ino = self.live.get(parent).copied();
        let dir = ino.and_then(|ino| self.dirs.get_mut(&ino));
        (dir.unwrap_or_else(|| panic!("{parent} was never made")), name)
    }

    fn sync(&mut self, entry: &Entry) {
        if let Some(dir) = self.dirs.get_mut(&entry.ino) {
            for naming in take_covered(&mut dir.pending, entry.covers) {
                naming.carry_out(&mut dir.durable);
            }
        } else if let Some(file) = self.files.get_mut(&entry.ino) {
            for change in take_covered(&mut file.pending, entry.covers) {
                change.carry_out(&mut file.durable);
            }
            if let Some(path) = self.journals.get(&entry.ino) {
                self.answered
                    .extend(answered(&file.durable).into_iter().map(|it| (path.clone(), it)));
            }
        }
    }

    /// The answers that were durable in a journal, and so counted.
    pub fn answered(&self) -> Done {
        Done::count(self.answered.iter().map(|(_, row)| *row))
    }

    /// Takes the power away, and writes what is left into an empty directory.
    pub fn cut(&self, random: &mut fastrand::Rng, into: &Path) {
        // Some cuts lose all they may, some nothing; most of them something.
        let luck = [0.0, 0.1, 0.5, 0.5, 0.9, 1.0][random.usize(..6)];
        self.write_dir(self.root, into, luck, random);
    }

    fn write_dir(&self, ino: u64, into: &Path, luck: f64, random: &mut fastrand::Rng) {
        let dir = &self.dirs[&ino];
        let mut names = dir.durable.clone();
        for (_, naming) in &dir.pending {
            if random.f64() < luck {
                naming.clone().carry_out(&mut names);
            }
        }
        for (name, ino) in names {
            let path = into.join(name);
            if self.dirs.contains_key(&ino) {
                fs::create_dir(&path).expect("a place");
                self.write_dir(ino, &path, luck, random);
            } else {
                fs::write(&path, self.files[&ino].after_cut(luck, random)).expect("a place");
            }
        }
    }
}

impl File {
    fn after_cut(&self, luck: f64, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (_, change) in &self.pending {
            if random.f64() < luck {
                change.clone().carry_out(&mut bytes);
                continue;
            }
            if let Change::Write { offset, data } = change {
                let length = random.usize(..=data.len());
                let left = match random.u8(..4) {
                    0 => data[..length].to_vec(),
                    // The length was written, the data was not.
                    1 => vec![0; length],
                    _ => continue,
                };
                Change::Write { offset: *offset, data: left }.carry_out(&mut bytes);
            }
        }
        bytes
    }
}

impl Change {
    fn carry_out(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[offset..end].copy_from_slice(&data);
            }
            Self::Truncate(length) => bytes.resize(length, 0),
        }
    }
}

impl Naming {
    fn carry_out(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Add { name, ino } => {
                names.insert(name, ino);
            }
            Self::Remove { name } => {
                names.remove(&name);
            }
            Self::Rename { from, to, ino } => {
                names.remove(&from);
                names.insert(to, ino);
            }
        }
    }
}

fn take_covered<T>(pending: &mut Vec<(u64, T)>, covers: u64) -> Vec<T> {
    let (covered, left) = std::mem::take(pending).into_iter().partition(|(at, _)| *at < covers);
    *pending = left;
    let covered: Vec<(u64, T)> = covered;
    covered.into_iter().map(|(_, change)| change).collect()
}

fn split(path: &str) -> (&str, String) {
    let (parent, name) = path.rsplit_once('/').expect("an absolute path");
    (parent, name.to_owned())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn ino(path: &Path) -> u64 {
    fs::symlink_metadata(path).expect("it is there").ino()
}

fn size(value: u64) -> usize {
    usize::try_from(value).expect("a small file")
}
