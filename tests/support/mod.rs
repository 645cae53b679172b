//! What every test needs: a directory of its own, the built binary, a server that misbehaves.

pub mod depot;
pub mod proxy;
pub mod server;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// Stands in for an API key; must never be found anywhere.
pub const CANARY: &str = "sk-canary-7f3a9c";

/// A directory for one test, and the binary to run in it.
pub struct Bench {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("rowmill-test-").tempdir().unwrap();
        Self { dir, env: Vec::new() }
    }

    /// A bench with [`rows`] in `in.jsonl`.
    pub fn with_rows(count: usize) -> Self {
        let bench = Self::new();
        bench.write("in.jsonl", rows(count));
        bench
    }

    /// Makes sure that `out.jsonl` has the answers of [`server::Server::echo`] to so many [`rows`].
    pub fn assert_answers(&self, count: usize) {
        let lines = self.lines("out.jsonl");
        assert_eq!(lines.len(), count);
        for (number, line) in lines.iter().enumerate() {
            let answer = server::answer_to(&format!("text {}", number + 1));
            assert_eq!(line["result"], answer, "{line}");
        }
    }

    /// A bench on whose commands `OPENAI_BASE_URL` points to a server.
    pub fn with_server(server: &server::Server) -> Self {
        let mut bench = Self::new();
        bench.set("OPENAI_BASE_URL", &server.url());
        bench
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Whether the file system keeps what is noted on an output; says so when it does not.
    pub fn keeps_notes_on(&self, name: &str) -> bool {
        let keeps =
            rustix::fs::getxattr(self.path(name), "user.rowmill.job", &mut [0; 256]).is_ok();
        if !keeps {
            eprintln!("SKIPPED: this file system keeps no extended attributes");
        }
        keeps
    }

    /// The lines of a JSON Lines file.
    pub fn lines(&self, name: &str) -> Vec<Value> {
        let text = self.read(name);
        assert!(text.is_empty() || text.ends_with('\n'), "{name} ends with a line end");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// The binary, in this directory, with nothing of the outer environment that it looks at.
    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rowmill"));
        command.current_dir(self.root()).args(args).stdin(Stdio::null());
        for provider in rowmill::provider::KNOWN {
            let variables = provider.keys.iter().chain(provider.base_url_variable.as_ref());
            for variable in variables {
                command.env_remove(variable);
            }
        }
        for variable in ["ROWMILL_CONFIG", "ROWMILL_MODEL", "XDG_CONFIG_HOME"] {
            command.env_remove(variable);
        }
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(proxy).env_remove(proxy.to_ascii_uppercase());
        }
        command.env("HOME", self.root());
        command.env("OPENAI_API_KEY", CANARY);
        command.env("RUST_BACKTRACE", "0");
        for (name, value) in &self.env {
            command.env(name, value);
        }
        command
    }

    /// Runs a command line, given as one text whose words are parted by blanks.
    pub fn run(&self, line: &str) -> Ended {
        self.run_args(words(line))
    }

    pub fn run_args(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ended {
        let output = self.command(args).output().unwrap();
        let ended = Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        self.assert_no_secret();
        assert!(!ended.stdout.contains(CANARY) && !ended.stderr.contains(CANARY), "{ended:?}");
        ended
    }

    /// Runs a command line with something on standard input.
    pub fn pipe(&self, line: &str, input: &[u8]) -> Ended {
        let mut child = self
            .command(words(line))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        match child.stdin.take().unwrap().write_all(input) {
            // A command that is refused reads nothing.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            written => written.unwrap(),
        }
        let output = child.wait_with_output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts a command line and lets it run.
    pub fn start(&self, line: &str) -> Running {
        let child = self
            .command(words(line))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running(Some(child), String::new())
    }

    /// Every file below the directory, with its bytes.
    pub fn snapshot(&self) -> Snapshot {
        let mut files = BTreeMap::new();
        visit(self.root(), &mut |path| {
            files.insert(path.to_owned(), fs::read(path).unwrap());
        });
        files
    }

    /// The key must not be in any file.
    pub fn assert_no_secret(&self) {
        visit(self.root(), &mut |path| {
            let bytes = fs::read(path).unwrap_or_default();
            let found = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
            assert!(!found, "the key is in {}", path.display());
        });
    }
}

/// Files and their bytes.
pub type Snapshot = BTreeMap<PathBuf, Vec<u8>>;

/// Fails with the names of the files that differ, not with all their bytes.
#[track_caller]
pub fn assert_same(now: &Snapshot, before: &Snapshot) {
    let names = now.keys().chain(before.keys());
    let different: std::collections::BTreeSet<_> =
        names.filter(|name| now.get(*name) != before.get(*name)).collect();
    assert!(different.is_empty(), "changed: {different:?}");
}

/// Fails with the first lines that differ.
#[track_caller]
pub fn assert_text(text: &str, expected: &str) {
    if text == expected {
        return;
    }
    let differs = text.lines().zip(expected.lines()).position(|(a, b)| a != b);
    let at = differs.unwrap_or(text.lines().count().min(expected.lines().count()));
    let (a, b) = (text.lines().nth(at), expected.lines().nth(at));
    panic!("line {} is\n{a:?}\nand should be\n{b:?}", at + 1);
}

/// The words of a command line; quotes keep blanks.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut is_word) = (false, false);
    for character in line.chars() {
        match character {
            '\'' => {
                quoted = !quoted;
                is_word = true;
            }
            ' ' | '\n' if !quoted => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            character => {
                word.push(character);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

fn visit(dir: &Path, found: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            visit(&path, found);
        } else if path.is_file() {
            found(&path);
        }
    }
}

/// A command that was started; killed when the test is done with it.
pub struct Running(Option<Child>, String);

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// `kill -9`, and waits until it is dead.
    pub fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Reads what it says until there is this text in it.
    pub fn wait_until_it_says(&mut self, text: &str) {
        let stderr = self.0.as_mut().unwrap().stderr.as_mut().unwrap();
        while !self.1.contains(text) {
            let mut byte = [0];
            assert_eq!(stderr.read(&mut byte).unwrap(), 1, "it ended with {}", self.1);
            self.1.push(char::from(byte[0]));
        }
    }

    pub fn wait(mut self) -> Ended {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: std::mem::take(&mut self.1) + &String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ended {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        if code != 0 && code != 1 {
            let last = self.stderr.lines().last().unwrap_or_default();
            let is_usage = code == 2 && !last.starts_with("rowmill: ");
            assert!(is_usage || last.matches(" · ").count() >= 2, "last line: {last}");
        }
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not in\n{}", self.stderr);
        self
    }

    /// The summary on standard output.
    pub fn summary(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// Rows `{"id":"r1","text":"text 1"}`, ….
pub fn rows(count: usize) -> String {
    (1..=count).map(|n| format!("{{\"id\":\"r{n}\",\"text\":\"text {n}\"}}\n")).collect()
}
