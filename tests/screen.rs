//! What people see while a run goes on: bars on a real terminal, lines elsewhere, and nothing that
//! moves a cursor it should not.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, rows};

/// A terminal of its own; ends with the test.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Starts a command in it; nothing where there is no tmux.
    fn start(bench: &Bench, command: &str) -> Option<Self> {
        let socket = bench.path("tmux").to_string_lossy().into_owned();
        let started = Command::new("tmux")
            .args(["-S", &socket, "-f", "/dev/null", "new-session", "-d", "-x", "140", "-y", "30"])
            .arg(format!("{command}; echo ended; cat"))
            .current_dir(bench.root())
            .env("TERM", "xterm-256color")
            .status();
        match started {
            Ok(status) if status.success() => Some(Self { socket }),
            _ => {
                eprintln!("SKIPPED: there is no tmux to show a terminal with");
                None
            }
        }
    }

    fn screen(&self) -> String {
        let output = Command::new("tmux")
            .args(["-S", &self.socket, "capture-pane", "-p", "-S", "-100"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the screen shows something.
    fn wait_for(&self, what: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let screen = self.screen();
            if screen.contains(what) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{what:?} did not come:\n{screen}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-S", &self.socket, "kill-server"]).status();
    }
}

#[test]
fn a_terminal_shows_a_bar_for_the_run_and_one_for_each_worker() {
    let server = Server::start(|call| match call.prompt.strip_prefix("text ").unwrap().parse() {
        Ok(0..=30_u32) => Reply::Answer(answer_to(&call.prompt)),
        _ => Reply::Hold(answer_to(&call.prompt)),
    });
    let bench = Bench::new();
    bench.write("in.jsonl", rows(40));
    let command = format!(
        "{} run in.jsonl -o out.jsonl -p '{{{{text}}}}' -m m -c 4 --parallel 2 --base-url {}",
        env!("CARGO_BIN_EXE_rowmill"),
        server.url()
    );
    let Some(terminal) = Terminal::start(&bench, &command) else { return };
    // Thirty rows are done and four are held: then all of this stands there, and stays.
    let parts = [
        "30/40 rows",
        "30 ok",
        "rows/s",
        "540 tokens",
        "4 in flight",
        "shard 0",
        "worker 1",
        "worker 2",
    ];
    for part in parts {
        terminal.wait_for(part);
    }
    server.release();
    let screen = terminal.wait_for("ended");
    assert!(!screen.contains("worker"), "the bars go when the run has ended:\n{screen}");
    assert!(screen.contains("\"ok\": 40"), "{screen}");
}

#[test]
fn elsewhere_there_is_a_plain_line_now_and_then() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(100));
    let ask = "run in.jsonl -o out.jsonl -p {{text}} -m m --overwrite --no-final-summary";
    let ended = bench.run(&format!("{ask} --progress-every 25")).expect(0);
    let lines: Vec<_> = ended.stderr.lines().filter(|line| line.contains("/100 rows · ")).collect();
    assert!((1..=4).contains(&lines.len()), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\u{1b}'), "no escape where there is no terminal");
    assert_eq!(bench.run(&format!("{ask} --no-progress")).expect(0).stderr, "");
    assert_eq!(ended.stdout, "");
}

#[test]
fn what_others_wrote_cannot_move_the_cursor() {
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}";
    let server = Server::start(move |_| {
        let body = serde_json::json!({"error": {"message": evil}}).to_string();
        Reply::Status(401, Vec::new(), body)
    });
    let bench = Bench::with_server(&server);
    let row = serde_json::json!({"id": evil, "text": 1});
    bench.write("in.jsonl", format!("{row}\n{row}\n"));
    let duplicate = bench.run("run in.jsonl -o out.jsonl --id-field id -m m").expect(65);
    let refused = bench.run("run in.jsonl -o out.jsonl -m m").expect(77);
    let missing =
        bench.run(&format!("run in.jsonl -o o -p {{{{{evil}}}}} -m passthrough")).expect(3);
    for text in [duplicate.stderr, refused.stderr, missing.stderr] {
        let unsafe_ones: Vec<char> =
            text.chars().filter(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}').collect();
        assert!(unsafe_ones.is_empty(), "{unsafe_ones:?} in {text:?}");
    }
}
