//! A directory in which jobs are run, and a model server that counts what it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use super::away::{Away, SIGNATURE};
use super::scene::spelled;
use super::server::{Reply, Server};

/// Stands in for an API key; must never be found anywhere.
pub const KEY: &str = "sk-canary-7f3a9c";
/// Stands in each row's text; must never be found but in the input, and the input's copies.
pub const PROMPT: &str = "canary-prompt-5e1d8b";

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// It answers.
    Good,
    /// It answers so often, and then refuses the key.
    RefusesAfter(u64),
    /// It answers, after a few milliseconds.
    Slow,
    /// It answers all rows but this one.
    FailsRow(u64),
    /// It answers so often, and then holds its answers back until it is released.
    HoldsAfter(u64),
    /// It answers, but what is away takes nothing, and gives half of what is asked for, once.
    ShutAway,
    /// It refuses so often for a second, by dates of its own clock, and then answers.
    AsksToWait(u64),
}

/// The model server: its answer to a row is a function of the row's id.
pub struct Model {
    server: Server,
}

impl Model {
    pub fn start(manners: Manners) -> Self {
        let calls = Arc::new(AtomicU64::new(0));
        let server = Server::start(move |call| {
            let nth = calls.fetch_add(1, Ordering::Relaxed);
            let id = id_of(&call.prompt);
            let answer = answer_of(id, call.body["model"].as_str().unwrap_or_default());
            if manners == Manners::Slow {
                std::thread::sleep(Duration::from_millis(2 + nth % 17));
            }
            match manners {
                Manners::RefusesAfter(most) if nth >= most => Reply::status(401),
                Manners::HoldsAfter(most) if nth >= most => Reply::Hold(answer),
                Manners::AsksToWait(most) if nth < most => Reply::Status(
                    429,
                    vec![
                        ("date", "Sat, 21 Nov 2026 12:00:00 GMT".to_owned()),
                        ("retry-after", "Sat, 21 Nov 2026 12:00:01 GMT".to_owned()),
                    ],
                    String::new(),
                ),
                Manners::FailsRow(row) if id == format!("r{row}") => Reply::status(400),
                _ => Reply::Answer(answer),
            }
        });
        Self { server }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// How often each row was asked about.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        let mut calls = BTreeMap::new();
        for (prompt, count) in self.server.counts() {
            *calls.entry(id_of(&prompt).to_owned()).or_default() += count as u64;
        }
        calls
    }

    /// The bodies of all calls, each with its row's id.
    pub fn bodies(&self) -> Vec<(String, Vec<u8>)> {
        let calls = self.server.calls().into_iter();
        calls.map(|call| (id_of(&call.prompt).to_owned(), call.raw)).collect()
    }

    pub fn count(&self) -> u64 {
        self.server.count() as u64
    }

    /// Waits until so many calls are under way.
    pub fn wait_for_active(&self, count: u64) {
        self.server.wait_for_active(count as usize);
    }

    /// Waits until so many calls have come in.
    pub fn wait_for_calls(&self, count: u64) {
        self.server.wait_for_calls(count as usize);
    }

    /// Lets the held answers go.
    pub fn release(&self) {
        self.server.release();
    }
}

/// What a model answers to a row.
pub fn answer_of(id: &str, model: &str) -> String {
    match model {
        "mock" => format!("the answer to {id}"),
        other => format!("the answer to {id} by {other}"),
    }
}

fn id_of(prompt: &str) -> &str {
    prompt.split(' ').next().unwrap_or_default()
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Minus the signal when one ended it.
    pub code: i32,
    pub said: String,
}

/// A directory that is below the shim's root, a place for documents that is away, and the binary that
/// is proved.
#[derive(Clone)]
pub struct Site {
    pub root: PathBuf,
    /// What its log and copies are named after: a path on a disk that keeps its power.
    pub aside: PathBuf,
    pub binary: PathBuf,
    /// A guard that the binary is to leave out, if it is a mutant.
    pub mutant: Option<&'static str>,
    pub away: Arc<Away>,
}

impl Site {
    /// A site in a directory that is made.
    pub fn new(root: PathBuf, binary: &Path) -> Self {
        fs::create_dir_all(&root).expect("a directory");
        let root = root.canonicalize().expect("a directory");
        let (aside, away) = (root.clone(), Arc::new(Away::start()));
        Self { aside, root, binary: binary.to_owned(), mutant: None, away }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// An output, wherever it is.
    pub fn output(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)).ok().or_else(|| self.away.get(name))
    }

    /// The work directory.
    pub fn work_dir(&self) -> PathBuf {
        let named = self.path("wd");
        if named.exists() { named } else { self.path("out.jsonl.rowmill") }
    }

    /// Where the shim's log is: beside the site, so that it is not counted itself.
    pub fn log(&self) -> PathBuf {
        self.aside.with_extension("log")
    }

    /// Where the copy of what was there before a scene's command is.
    pub fn copy(&self) -> PathBuf {
        self.aside.with_extension("before")
    }

    /// Empties it, and what is away.
    pub fn clear(&self) {
        self.away.clear();
        for entry in fs::read_dir(&self.root).expect("a directory").flatten() {
            let path = entry.path();
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    /// The binary with the words of a command line, in this directory.
    pub fn command(&self, line: &str, model: &Model) -> Command {
        let mut command = Command::new(&self.binary);
        // A plan knows where its endpoint was; the next server listens elsewhere.
        let line = spelled(line).replace("HERE", &model.url()).replace("DEPOT", &self.away.url());
        command.args(line.split_whitespace()).current_dir(&self.root).stdin(Stdio::null());
        command.env("OPENAI_BASE_URL", model.url()).env("OPENAI_API_KEY", KEY);
        command.env("RUST_BACKTRACE", "0");
        for variable in ["HOME", "XDG_CONFIG_HOME", "ROWMILL_CONFIG", "ROWMILL_MODEL"] {
            command.env_remove(variable);
        }
        if line.contains("pool.pair") {
            let config = self.aside.with_extension("toml");
            fs::write(&config, pair(&model.url())).expect("a disk");
            command.env("ROWMILL_CONFIG", config).env_remove("OPENAI_BASE_URL");
        }
        if let Some(mutant) = self.mutant {
            command.env("ROWMILL_MUTANT", mutant);
        }
        command
    }

    pub fn run(&self, line: &str, model: &Model) -> Ended {
        end(start(&mut self.command(line, model)))
    }

    /// Files and directories below it, with their bytes and times.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
        let mut found = BTreeMap::new();
        visit(&self.root, &mut |path| {
            let time = fs::symlink_metadata(path).and_then(|meta| meta.modified());
            let bytes = fs::read(path).unwrap_or_default();
            found.insert(path.to_owned(), (bytes, time.unwrap_or(SystemTime::UNIX_EPOCH)));
        });
        found
    }

    /// The files in which a text is that must not be there.
    pub fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        visit(&self.root, &mut |path| {
            let bytes = fs::read(path).unwrap_or_default();
            let inputs = ["in.jsonl", "input.jsonl", "input.part"];
            let is_input = inputs.iter().any(|name| path.ends_with(name));
            let is_secret = contains(&bytes, KEY) || contains(&bytes, SIGNATURE);
            if is_secret || (!is_input && contains(&bytes, PROMPT)) {
                leaks.push(path.display().to_string());
            }
        });
        leaks
    }

    /// The names at its top.
    pub fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// Two endpoints of the same model, at one server.
fn pair(url: &str) -> String {
    let endpoint = |name: &str| {
        let url = url.replace("/v1", &format!("/{name}/v1"));
        format!("[endpoint.{name}]\nbase_url = \"{url}\"\nkey_env = \"OPENAI_API_KEY\"\n")
    };
    let pool = "[pool.pair]\nmembers = [\"one.mock\", \"two.mock\"]\n";
    [&endpoint("one"), &endpoint("two"), pool].concat()
}

pub fn contains(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

pub fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Kills a command after a while, if it has not ended by then, and waits for its end.
pub fn kill_after(child: Child, time: Duration) -> Ended {
    end_within(child, time, Signal::KILL)
}

/// How long a command may take; one that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a command's end, which is brought about by force when it hangs.
pub fn end(child: Child) -> Ended {
    end_within(child, PATIENCE, Signal::ABORT)
}

fn end_within(child: Child, time: Duration, signal: Signal) -> Ended {
    let pid = Pid::from_child(&child);
    let (ended, watch) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if watch.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, signal);
        }
    });
    let output = child.wait_with_output().expect("a child");
    drop(ended);
    watchdog.join().expect("no panic");
    let code = output.status.code().or(output.status.signal().map(|signal| -signal));
    let said = [output.stderr, output.stdout].concat();
    Ended { code: code.unwrap_or(-1), said: String::from_utf8_lossy(&said).into_owned() }
}

fn visit(dir: &Path, found: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_dir = path.is_dir() && !path.is_symlink();
        found(&path);
        if is_dir {
            visit(&path, found);
        }
    }
}
