//! Documents at URLs: inputs are fetched from there, outputs are put there, and both are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;

use super::depot::{Depot, Document, Say, Seen};
use super::shim::read_log;
use super::site::Site;

/// Stands for the signature in a URL; must never be found anywhere.
pub const SIGNATURE: &str = "sig-canary-4b8e2a";

/// A document that was asked for, or put there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    path: String,
    /// The bytes that were put there and taken.
    taken: Option<Vec<u8>>,
    /// Whether they were refused because the place was busy.
    is_busy: bool,
    /// Of what is asked for: from which byte on.
    range: Option<String>,
    is_get: bool,
    /// How many file operations the command had ended by then, where they are recorded.
    after: usize,
}

/// What is there.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    documents: BTreeMap<String, Vec<u8>>,
    requests: Vec<Request>,
    /// How many uploads are still to be refused for a while.
    busy: u64,
    /// Whether it takes nothing, and of what is asked for gives half, once.
    is_shut: bool,
    log: PathBuf,
}

/// The place. It keeps its address for as long as a site lives, for work directories remember it.
pub struct Away {
    depot: Depot,
    holdings: Arc<Mutex<Holdings>>,
    /// What was there before a scene's command.
    before: Mutex<Holdings>,
}

impl Away {
    pub fn start() -> Self {
        let holdings: Arc<Mutex<Holdings>> = Arc::default();
        let its = Arc::clone(&holdings);
        let depot = Depot::start(move |seen| its.lock().expect("no panic").meet(seen));
        Self { depot, holdings, before: Mutex::default() }
    }

    fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings.lock().expect("no panic")
    }

    pub fn url(&self) -> String {
        self.depot.url("")
    }

    /// Empties it.
    pub fn clear(&self) {
        *self.holdings() = Holdings::default();
    }

    /// Opens it, or shuts it.
    pub fn shut(&self, is_shut: bool) {
        self.holdings().is_shut = is_shut;
    }

    /// Puts a document there that can be asked for.
    pub fn provide(&self, name: &str, bytes: &str) {
        self.holdings().documents.insert(format!("/{name}"), bytes.into());
    }

    /// Remembers what is there, as what was before a scene's command.
    pub fn keep(&self, busy: u64) {
        let mut holdings = self.holdings();
        (holdings.busy, holdings.is_shut) = (busy, false);
        holdings.requests.clear();
        *self.before.lock().expect("no panic") = holdings.clone();
    }

    /// Brings back what was before a scene's command.
    pub fn restore(&self) {
        *self.holdings() = self.before.lock().expect("no panic").clone();
    }

    /// What is there, before a command whose file operations are recorded.
    pub fn watch(&self, log: &Path) -> Holdings {
        let mut holdings = self.holdings();
        holdings.log = log.to_owned();
        holdings.clone()
    }

    /// What came since.
    pub fn now(&self) -> Holdings {
        self.holdings().clone()
    }

    /// Brings it to where it was when so many file operations had ended.
    pub fn go_back(&self, before: &Holdings, after: &Holdings, operations: usize) {
        let mut holdings = before.clone();
        for request in &after.requests[before.requests.len()..] {
            if request.after <= operations {
                holdings.busy -= u64::from(request.is_busy);
                holdings.note(request.clone());
            }
        }
        *self.holdings() = holdings;
    }

    /// A document.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.holdings().documents.get(&format!("/{name}")).cloned()
    }

    /// A document by its URL.
    pub fn at(&self, url: &Path) -> Option<Vec<u8>> {
        self.get(url.to_str()?.strip_prefix(&self.url())?.strip_prefix('/')?)
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        self.holdings().requests.len()
    }
}

impl Holdings {
    fn meet(&mut self, seen: &Seen) -> Say {
        let after = if self.log.as_os_str().is_empty() { 0 } else { read_log(&self.log).len() };
        let mut request = Request {
            path: seen.path().to_owned(),
            taken: None,
            is_busy: false,
            range: seen.header("range").map(str::to_owned),
            is_get: seen.method == "GET",
            after,
        };
        let say = match seen.method.as_str() {
            "GET" => self.give(seen),
            _ if self.is_shut => Say::status(403),
            _ if self.busy > 0 => {
                self.busy -= 1;
                request.is_busy = true;
                Say::status(503)
            }
            _ => {
                request.taken = Some(seen.body.clone());
                Say::status(200)
            }
        };
        self.note(request);
        say
    }

    fn give(&self, seen: &Seen) -> Say {
        let asked_before = self.requests.iter().any(|it| it.path == seen.path());
        match self.documents.get(seen.path()) {
            Some(bytes) if self.is_shut && !asked_before => {
                let cut = Some(bytes.len() / 2);
                Say::Document(Document { cut, ..Document::new(bytes.clone()) })
            }
            Some(bytes) if !self.is_shut => Say::document(bytes.clone()),
            _ => Say::status(404),
        }
    }

    fn note(&mut self, request: Request) {
        if let Some(bytes) = &request.taken {
            self.documents.insert(request.path.clone(), bytes.clone());
        }
        self.requests.push(request);
    }

    /// What was put there and taken, in order.
    fn taken(&self) -> Vec<(&str, &[u8])> {
        let taken = self.requests.iter().filter_map(|it| Some((&*it.path, it.taken.as_deref()?)));
        taken.collect()
    }
}

/// What a work directory says after a crash of documents at URLs, and what was there then.
pub struct Transfers {
    there: Holdings,
    /// What is noted as uploaded: the paths and hashes.
    noted: BTreeSet<(String, String)>,
    /// Whether uploads wait.
    is_waiting: bool,
    /// Nothing where no input is at a URL.
    input: Option<Input>,
}

/// How far an input at a URL has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Input {
    /// Nothing is known of it.
    Unknown,
    /// The rest is to be asked for.
    Part(String),
    /// It is planned.
    Planned,
}

impl Transfers {
    /// Looks at a site before a command goes on.
    pub fn of(site: &Site) -> Self {
        let dir = site.work_dir();
        let commits = fs::read_dir(&dir).into_iter().flatten().flatten().map(|it| it.path());
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into();
        let is_commit = |path: &PathBuf| {
            let name: String = name(path);
            name.starts_with("commit-") && name.ends_with(".json")
        };
        let newest = commits.filter(is_commit).max();
        let commit: Value = newest.map(|path| json(&path)).unwrap_or_default();
        let files = commit["files"].as_array().cloned().unwrap_or_default();
        let uploads = files.iter().filter(|file| file["upload"].is_object());
        let is_noted = |file: &&Value| file["upload"]["done_at"].is_string();
        let path = |file: &Value| {
            let url = file["target"].as_str().unwrap_or_default();
            url.strip_prefix(&site.away.url()).unwrap_or_default().to_owned()
        };
        let hash = |file: &Value| file["blake3"].as_str().unwrap_or_default().to_owned();
        let noted = uploads.clone().filter(is_noted).map(|it| (path(it), hash(it))).collect();
        let is_waiting = commit["done"] == false && uploads.clone().any(|it| !is_noted(&it));
        let there = site.away.now();
        let input = there.documents.contains_key("/in.jsonl").then(|| Input::of(&dir));
        Self { there, noted, is_waiting, input }
    }

    /// I12: what is noted as uploaded is not sent again. What was taken and not noted is sent once more,
    /// and as it was; a crash leaves at most one such document.
    pub fn went_once(&self, site: &Site, wrong: &mut impl FnMut(String)) {
        let now = site.away.now();
        let (before, after) = (self.there.taken(), now.taken());
        let mut again = 0;
        for (path, bytes) in &after[before.len()..] {
            if self.noted.contains(&((*path).to_owned(), blake3::hash(bytes).to_string())) {
                wrong(format!("I12: {path} was noted as uploaded, and was uploaded again"));
            }
            let sent: Vec<_> = before.iter().filter(|(it, _)| it == path).collect();
            again += usize::from(!sent.is_empty());
            if self.is_waiting && sent.last().is_some_and(|(_, it)| it != bytes) {
                wrong(format!("I12: {path} was uploaded again, and as something else"));
            }
        }
        if again > 1 {
            wrong(format!("I12: {again} uploads were made again"));
        }
        for (path, bytes) in &now.documents {
            if after.iter().rfind(|(it, _)| it == path).is_some_and(|(_, it)| it != bytes) {
                wrong(format!("I12: {path} is not what was uploaded last"));
            }
        }
    }

    /// I13: of an input nothing is asked for that is here already.
    pub fn came_once(&self, site: &Site, wrong: &mut impl FnMut(String)) {
        let now = site.away.now();
        let gets = now.requests[self.there.requests.len()..].iter().filter(|it| it.is_get);
        let ranges: Vec<_> = gets.map(|it| it.range.clone()).collect();
        let expected: &[_] = match &self.input {
            None | Some(Input::Planned) => &[],
            Some(Input::Unknown) => &[None],
            Some(Input::Part(range)) => &[Some(range.clone())],
        };
        if ranges != expected {
            wrong(format!("I13: {:?}, and {ranges:?} was asked for", self.input));
        }
    }
}

impl Input {
    fn of(dir: &Path) -> Self {
        if dir.join("manifest.json").exists() {
            return Self::Planned;
        }
        let note = json(&dir.join("input.part.json"));
        let whole = note["of"]["bytes"].as_u64().map(|bytes| bytes.saturating_sub(1));
        match (note["synced"].as_u64(), whole) {
            (Some(synced), Some(most)) => Self::Part(format!("bytes={}-", synced.min(most))),
            _ => Self::Unknown,
        }
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_default()).unwrap_or_default()
}
