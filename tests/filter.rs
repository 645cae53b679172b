//! Rows that pass by: `rowmill filter` between pipes, as other filters are used.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::server::{Call, Reply, Server, answer_to};
use crate::support::{Bench, Ended, assert_same, assert_text, rows, words};

const ASK: &str = "filter -m m -p {{text}} --id-field id";

/// A filter whose pipes are in the test's hands.
struct Open {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    // What it said so far.
    said: String,
}

impl Open {
    fn start(bench: &Bench, line: &str) -> Self {
        let mut command = bench.command(words(line));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Self { child, stdin, stdout, said: String::new() }
    }

    /// Starts one that reads a file.
    fn reading(bench: &Bench, input: &str, line: &str) -> Self {
        let mut command = bench.command(words(line));
        command.stdin(File::open(bench.path(input)).unwrap());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        Self { child, stdin: None, stdout, said: String::new() }
    }

    fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The next line out; waits for it.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?} is no line"))
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = std::process::Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Reads what it says until there is this text in it.
    fn wait_until_it_says(&mut self, text: &str) {
        let stderr = self.child.stderr.as_mut().unwrap();
        while !self.said.contains(text) {
            let mut byte = [0];
            assert_eq!(stderr.read(&mut byte).unwrap(), 1, "it ended with {}", self.said);
            self.said.push(char::from(byte[0]));
        }
    }

    /// The most memory it ever had, in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How far it has read in its input, a file, once it does not go on.
    fn stalls_at(&self) -> u64 {
        let (mut last, mut looks) = (0, 0);
        while looks < 3000 {
            let info = format!("/proc/{}/fdinfo/0", self.child.id());
            let info = std::fs::read_to_string(info).unwrap();
            let at = info.lines().find_map(|line| line.strip_prefix("pos:")).unwrap();
            let now = at.trim().parse().unwrap();
            looks = if now == last { looks + 1 } else { 0 };
            last = now;
            std::thread::yield_now();
        }
        last
    }

    /// Ends its input, and waits until it ends.
    fn end(mut self) -> Ended {
        drop(self.stdin.take());
        self.wait()
    }

    /// Waits until it ends by itself.
    fn wait(mut self) -> Ended {
        let (mut stdout, mut stderr) = (String::new(), std::mem::take(&mut self.said));
        if let Some(pipe) = &mut self.stdout {
            pipe.read_to_string(&mut stdout).unwrap();
        }
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        drop(self.stdin.take());
        Ended { code, stdout, stderr }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines out, by their ids.
fn lines(ended: &Ended) -> Vec<Value> {
    let mut lines: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["row_number"].as_u64());
    lines
}

/// Makes sure that there are the answers to so many rows, each once.
#[track_caller]
fn assert_answers(ended: &Ended, count: usize) {
    let lines = lines(ended);
    assert_eq!(lines.len(), count);
    for (line, number) in lines.iter().zip(1..) {
        assert_eq!(line["id"], format!("r{number}"));
        assert_eq!(line["result"], answer_to(&format!("text {number}")), "{line}");
    }
}

#[test]
fn lines_out_are_those_of_run_byte_for_byte() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "bad" => Reply::status(400),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let mut input = b"\xef\xbb\xbf{\"id\":\"a\\u0062\",\"text\":\"x\"}\r\n\n  \n".to_vec();
    for row in [
        &br#"{"id":1.50,"text":"x"}"#[..],
        br#"{"id":"1.50","text":"x"}"#,
        br#"{"id":12345678901234567890,"text":"x"}"#,
        br#"  {"id": -7 , "text":"bad", "n": 1.50}  "#,
        br#"{"text":"no id"}"#,
        br#"{"id":"no field"}"#,
        br#"["no object"]"#,
        br"{torn",
        b"{\"id\":\"no text\",\"text\":\"\xff\"}",
        br#"{"id":"large","text":"0123456789012345678901234567890123456789"}"#,
        br#"{"id":"last","text":"x"}"#,
    ] {
        input.extend_from_slice(row);
        input.push(b'\n');
    }
    input.pop();
    bench.write("in.jsonl", &input);
    for options in ["--id-field id", "--id-field id --include-input", "", "--id-from hash"] {
        let options = format!("-m m -p {{{{text}}}} --max-row-bytes 60 {options}");
        bench.run(&format!("run in.jsonl -o out.jsonl {options} --overwrite")).expect(3);
        let ended = bench.pipe(&format!("filter --ordered {options}"), &input).expect(3);
        assert_text(&ended.stdout, &bench.read("out.jsonl"));
        let ended = bench.pipe(&format!("filter {options}"), &input).expect(3);
        let (mut sorted, out) = (ended.stdout.lines().collect::<Vec<_>>(), bench.read("out.jsonl"));
        let mut expected: Vec<_> = out.lines().collect();
        sorted.sort_unstable();
        expected.sort_unstable();
        assert_eq!(sorted, expected);
    }
}

#[test]
fn a_line_is_answered_while_the_pipe_stays_open() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let before = bench.snapshot();
    for options in ["", "--ordered"] {
        let mut open = Open::start(&bench, &format!("{ASK} {options}"));
        for number in 1..=5 {
            // Half a line is none.
            open.write(&format!("{{\"id\":\"r{number}\","));
            open.write(&format!("\"text\":\"text {number}\"}}\n"));
            assert_eq!(open.line()["result"], answer_to(&format!("text {number}")));
        }
        let ended = open.end().expect(0).says("5 rows: 5 ok · 5 calls · 90 tokens\n");
        assert_eq!(ended.stdout, "");
    }
    assert_same(&bench.snapshot(), &before);
    let nothing = bench.pipe(&format!("{ASK} --quiet"), b"").expect(0);
    assert_eq!((nothing.stdout, nothing.stderr), (String::new(), String::new()));
}

#[test]
fn lines_come_as_answers_do_unless_they_are_to_be_in_order() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 1" => Reply::Hold(answer_to("text 1")),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let mut open = Open::start(&bench, &format!("{ASK} -c 2"));
    open.write(&rows(40));
    let mut ids: Vec<_> = (2..=40).map(|_| open.line()["row_number"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (2..=40).collect::<Vec<_>>());
    server.release();
    assert_eq!(open.line()["id"], "r1");
    assert_eq!(open.end().expect(0).stdout, "");
}

#[test]
fn what_waits_for_a_line_before_it_is_bounded() {
    const WINDOW: usize = 32;
    let server = Server::start(move |call| match call.prompt.as_str() {
        "text 1" => Reply::Hold(answer_to("text 1")),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    // Long rows, so that they are not all read ahead.
    let pad = "x".repeat(4000);
    let row = |n: usize| format!("{{\"id\":\"r{n}\",\"text\":\"text {n}\",\"pad\":\"{pad}\"}}\n");
    bench.write("in.jsonl", (1..=200).map(row).collect::<String>());
    let open = Open::reading(&bench, "in.jsonl", &format!("{ASK} -c 2 --ordered"));
    server.wait_for_calls(WINDOW);
    assert!(open.stalls_at() < 400_000);
    assert_eq!(server.count(), WINDOW);
    server.release();
    let ended = open.wait().expect(0);
    let number = |line: &str| serde_json::from_str::<Value>(line).unwrap()["row_number"].as_u64();
    let numbers: Vec<_> = ended.stdout.lines().filter_map(number).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
}

#[test]
fn rows_that_fail_for_good_have_lines_and_a_code() {
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("text 2", _) => Reply::status(400),
        ("text 3", 1) => Reply::status(429),
        ("text 4", _) => Reply::status(500),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let input = rows(50);
    let ended = bench.pipe(&format!("{ASK} --retries 2"), input.as_bytes()).expect(3);
    let ended = ended.says("50 rows: 48 ok, 2 failed · 53 calls").says("2 of 50 rows failed");
    let found = lines(&ended);
    assert_eq!(found.len(), 50);
    assert_eq!(found[1]["error"]["class"], "bad_request");
    assert_eq!(found[2]["ok"], true);
    assert_eq!(found[3]["error"]["attempts"], 3);
    bench.pipe(&format!("{ASK} --retries 0 --allow-failed 5%"), input.as_bytes()).expect(0);
    let ended = bench.pipe(&format!("{ASK} --retries 0 --max-errors 1 -c 1"), input.as_bytes());
    ended.expect(4).says("--max-errors").says(" rows read have no line out; ");
}

#[test]
fn rows_of_one_id_are_rows_of_their_own() {
    let server = Server::start(|call| match call.nth {
        1 => Reply::status(500),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let ended = bench.pipe(&format!("{ASK} -c 1"), rows(1).repeat(3).as_bytes()).expect(0);
    let lines = lines(&ended);
    assert!(lines.iter().all(|line| line["id"] == "r1" && line["ok"] == true));
    // An endpoint that knows calls by their keys must not take one for another.
    let mut keys: Vec<_> =
        server.calls().iter().map(|call| call.headers["idempotency-key"].clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((server.count(), keys.len(), lines.len()), (4, 4, 3));
}

#[test]
fn a_rate_limit_is_kept_and_fails_no_row() {
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("text 40", 1) => Reply::Status(429, vec![("retry-after", "2".into())], String::new()),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let ended = bench.pipe(&format!("{ASK} -c 16 --retries 0"), rows(400).as_bytes()).expect(0);
    assert_answers(&ended, 400);
    let calls = server.calls();
    let of_it: Vec<_> = calls.iter().filter(|call| call.prompt == "text 40").collect();
    assert!(of_it[1].at - of_it[0].at >= Duration::from_secs(2));
    // The wait is that row's alone: it comes last, and all others are called meanwhile.
    assert_eq!(calls.last().unwrap().prompt, "text 40");
    assert_eq!(calls.len(), 401);
}

#[test]
fn a_brown_out_fails_no_row() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |call| match count.fetch_add(1, Ordering::SeqCst) % 5 {
        1 | 3 => Reply::status(500),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let ended = bench.pipe(&format!("{ASK} -c 16 --retries 1"), rows(60).as_bytes()).expect(0);
    assert_answers(&ended, 60);
}

#[test]
fn an_outage_is_waited_for_and_one_that_lasts_ends_it() {
    // A port that nothing listens on: it was just given back.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bench = Bench::new();
    let ask = format!("{ASK} --base-url http://127.0.0.1:{port}/v1 --retries 0");
    let input = rows(10);
    let ended = bench.pipe(&format!("{ask} --max-outage 0.5"), input.as_bytes()).expect(69);
    assert_eq!(ended.stdout, "");
    ended.says("Connection refused").says("10 of 10 rows read have no line out; check --base-url");
    let mut open = Open::start(&bench, &format!("{ask} --log-file log.jsonl"));
    open.write(&input);
    while !bench.exists("log.jsonl") || !bench.read("log.jsonl").contains("\"paused\"") {
        std::thread::yield_now();
    }
    let server = Server::at(port, |call| Reply::Answer(answer_to(&call.prompt)));
    assert_answers(&open.end().expect(0), 10);
    assert_eq!(server.count(), 10);
}

#[test]
fn what_cannot_succeed_ends_it_and_fails_no_row() {
    let quota = json!({"error": {"type": "insufficient_quota", "message": "empty"}}).to_string();
    for (reply, code, text) in [
        (Reply::status(401), 77, "refused the key"),
        (Reply::Status(429, Vec::new(), quota), 77, "quota or credit"),
        (Reply::status(404), 78, "no row was answered"),
    ] {
        let server = Server::start(move |_| reply.clone());
        let bench = Bench::with_server(&server);
        // The input stays open: it ends all the same.
        let mut open = Open::start(&bench, &format!("{ASK} -c 2"));
        open.write(&rows(100));
        let ended = open.wait().expect(code).says(text);
        assert_eq!(ended.stdout, "");
        assert!(server.count() < 20, "{} calls", server.count());
        let ended = ended.says(" rows read have no line out; ");
        ended.says("rows without one are not kept, so feed them again");
    }
}

/// Whether this process does, and so what it starts, as under `nohup`.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1
}

#[test]
fn a_signal_ends_what_is_under_way_and_says_what_is_left() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 143)] {
        if signal == "-HUP" && ignores_hangups() {
            eprintln!(
                "SKIPPED: whoever started the tests ignores SIGHUP, and so does what they start"
            );
            continue;
        }
        let server = Server::start(|call| match call.prompt.as_str() {
            "text 1" | "text 3" => Reply::Hold(answer_to(&call.prompt)),
            _ => Reply::Answer(answer_to(&call.prompt)),
        });
        let bench = Bench::with_server(&server);
        // In order, what waits for those behind it goes out at the end as well.
        let mut open = Open::start(&bench, &format!("{ASK} -c 2 --ordered"));
        open.write(&rows(3));
        server.wait_for_calls(3);
        open.signal(signal);
        open.wait_until_it_says("ending: waiting");
        open.write(&rows(3));
        server.release();
        let numbers = [open.line(), open.line(), open.line()].map(|it| it["row_number"].clone());
        assert_eq!(numbers, [json!(1), json!(2), json!(3)]);
        let ended = open.wait().expect(code);
        let last = ended.stderr.lines().last().unwrap();
        assert!(last.starts_with("rowmill: ended by a signal · every line out is whole"), "{last}");
        assert_eq!(server.count(), 3, "nothing was started");
    }
}

#[test]
fn calls_that_do_not_end_after_a_signal_are_dropped() {
    for (options, signals) in [("--drain-timeout 0", 1), ("--drain-timeout 1h", 2)] {
        let server = Server::start(|call| match call.prompt.as_str() {
            "text 2" => Reply::Hold(String::new()),
            _ => Reply::Answer(answer_to(&call.prompt)),
        });
        let bench = Bench::with_server(&server);
        let mut open = Open::start(&bench, &format!("{ASK} -c 1 {options}"));
        open.write(&rows(5));
        assert_eq!(open.line()["id"], "r1");
        server.wait_for_calls(2);
        open.signal("-TERM");
        if signals > 1 {
            // Two at once may be one.
            open.wait_until_it_says("ending: waiting");
            open.signal("-TERM");
        }
        let ended = open.wait().expect(143);
        assert_eq!(ended.stdout, "");
        ended.says("4 of 5 rows read have no line out; ");
    }
}

#[test]
fn what_waited_for_a_line_that_does_not_come_goes_out_in_the_end() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 1" | "text 6" => Reply::Hold(String::new()),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let mut open = Open::start(&bench, &format!("{ASK} -c 2 --ordered --drain-timeout 0"));
    open.write(&rows(6));
    // All between them have ended: two are in flight at most.
    server.wait_for_calls(6);
    open.signal("-TERM");
    let ended = open.wait().expect(143).says("2 of 6 rows read have no line out; ");
    let ids: Vec<_> = ended.stdout.lines().map(|line| &line[..10]).collect();
    assert_eq!(ids, ["r2", "r3", "r4", "r5"].map(|id| format!("{{\"id\":\"{id}\"")));
}

#[test]
fn a_reader_that_goes_ends_it_quietly_and_at_once() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 1" => Reply::Answer(answer_to(&call.prompt)),
        _ => Reply::Hold(String::new()),
    });
    let bench = Bench::with_server(&server);
    // Calls are held and the input stays open: nothing but the reader's end says that it is over.
    let mut open = Open::start(&bench, &format!("{ASK} -c 4"));
    open.write(&rows(100));
    assert_eq!(open.line()["id"], "r1");
    drop(open.stdout.take());
    let ended = open.wait().expect(0);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(server.count() <= 8);
    // One that goes while lines are written.
    let mut open = Open::start(&bench, "filter -m passthrough -p {{text}} --quiet");
    let mut stdin = open.stdin.take().unwrap();
    let writer =
        std::thread::spawn(move || while stdin.write_all(rows(1000).as_bytes()).is_ok() {});
    open.line();
    drop(open.stdout.take());
    assert_eq!(open.wait().expect(0).stderr, "");
    writer.join().unwrap();
    // A disk that is full is another matter.
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        eprintln!("SKIPPED: there is no /dev/full");
        return;
    };
    bench.write("in.jsonl", rows(3));
    let mut command = bench.command(words("filter -m passthrough -p {{text}}"));
    let input = File::open(bench.path("in.jsonl")).unwrap();
    let output = command.stdin(input).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let ended = Ended { code: output.status.code().unwrap(), stdout: String::new(), stderr };
    ended.expect(74).says("cannot write to standard output").says("3 of 3 rows read have no line");
}

#[test]
fn memory_does_not_grow_with_the_rows() {
    const ROWS: usize = 200_000;
    let bench = Bench::new();
    let mut open = Open::start(&bench, "filter -m passthrough -p {{text}} --include-input");
    let mut stdin = open.stdin.take().unwrap();
    let pad = "x".repeat(200);
    let feed = move |count: usize| {
        let row = format!("{{\"text\":\"{pad}\"}}\n");
        let rows = row.repeat(1000);
        (0..count / 1000).for_each(|_| stdin.write_all(rows.as_bytes()).unwrap());
        stdin
    };
    let writer = std::thread::spawn(move || feed(ROWS));
    let mut line = String::new();
    let mut after_few = 0;
    for number in 1..=ROWS {
        line.clear();
        open.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        if number == 10_000 {
            after_few = open.memory();
        }
    }
    let after_all = open.memory();
    drop(writer.join().unwrap());
    assert!(line.starts_with("{\"id\":200000,"), "{line}");
    assert!(after_all < after_few + 8 * 1024, "{after_few} KiB and then {after_all} KiB");
    open.wait().expect(0).says("200,000 rows: 200,000 ok\n");
}

/// A filter that calls nobody and has 100 MB before it, and read one line of what comes of them.
fn unread(bench: &Bench, options: &str) -> Open {
    let row = format!("{{\"text\":\"{}\"}}\n", "x".repeat(1000));
    bench.write("in.jsonl", row.repeat(100_000));
    let line = format!("filter -m passthrough -p {{{{text}}}} {options}");
    let mut open = Open::reading(bench, "in.jsonl", &line);
    open.line();
    open
}

#[test]
fn who_does_not_read_keeps_nothing_in_memory() {
    let bench = Bench::new();
    let open = unread(&bench, "");
    let last = open.stalls_at();
    assert!(last < 10_000_000, "{last} bytes were read");
    assert!(open.memory() < 60 * 1024, "{} KiB", open.memory());
    assert_eq!(open.wait().expect(0).stdout.lines().count(), 99_999);
}

#[test]
fn who_does_not_read_keeps_nobody_from_ending_it() {
    let bench = Bench::new();
    let mut open = unread(&bench, "--drain-timeout 0");
    open.stalls_at();
    open.signal("-TERM");
    let mut stderr = String::new();
    open.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let code = open.child.wait().unwrap().code().unwrap();
    let ended = Ended { code, stdout: String::new(), stderr };
    ended.expect(143).says(" rows read have no line out; ");
}

#[test]
fn lines_in_a_pipe_that_others_write_to_stay_whole() {
    const ATOMIC: usize = 4096;
    let bench = Bench::new();
    let row = |number: usize| {
        let length = if number.is_multiple_of(50) { 3 * ATOMIC } else { number * 37 % 900 };
        format!("{{\"text\":\"{}\"}}\n", "x".repeat(length))
    };
    bench.write("in.jsonl", (1..=20_000).map(row).collect::<String>());
    let (mut reader, writer) = std::io::pipe().unwrap();
    // What is written at once is read at once, up to what nobody can part.
    if rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::DIRECT).is_err() {
        eprintln!("SKIPPED: this kernel's pipes keep no packets");
        return;
    }
    let mut command = bench.command(words("filter -m passthrough -p {{text}} --quiet"));
    command.stdin(File::open(bench.path("in.jsonl")).unwrap()).stdout(writer);
    let child = command.spawn().unwrap();
    drop(command);
    let mut open = Open { child, stdin: None, stdout: None, said: String::new() };
    // Nobody reads, so that there is more than goes out at once.
    open.stalls_at();
    let (mut packet, mut begun, mut count) = (vec![0; 1 << 16], 0, 0);
    loop {
        let length = reader.read(&mut packet).unwrap();
        if length == 0 {
            break;
        }
        for (place, line) in packet[..length].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let is_whole = begun == 0 && line.ends_with(b"\n");
            begun += line.len();
            assert!(is_whole || place == 0 || begun > ATOMIC, "a line is parted");
            if line.ends_with(b"\n") {
                assert!(is_whole || begun > ATOMIC, "a line of {begun} bytes is parted");
                (begun, count) = (0, count + 1);
            }
        }
    }
    assert_eq!((begun, count), (0, 20_000));
    assert!(open.child.wait().unwrap().success());
}

#[test]
fn answers_that_do_not_fit_a_schema_are_asked_for_again() {
    let server = Server::start(|call| {
        let messages = call.body["messages"].as_array().unwrap().len();
        Reply::Answer(match (messages, call.prompt.as_str()) {
            (1, "text 2") => "no JSON".to_owned(),
            _ => r#"{"label":"pos"}"#.to_owned(),
        })
    });
    let bench = Bench::with_server(&server);
    let schema = "--schema label:pos|neg";
    let ended = bench.pipe(&format!("{ASK} {schema}"), rows(3).as_bytes()).expect(0);
    assert!(lines(&ended).iter().all(|line| line["result"] == json!({"label": "pos"})));
    assert_eq!(server.count(), 4);
    let ended = bench.pipe(&format!("{ASK} {schema} --schema-retries 0"), rows(3).as_bytes());
    assert_eq!(lines(&ended.expect(3))[1]["error"]["class"], "schema_mismatch");
}

#[test]
fn a_cap_on_the_cost_ends_it_before_it_is_passed() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    // Of the test server's answers, 11 tokens in and 7 out, each costs $0.0081.
    bench.write("rowmill.toml", "model = \"m\"\n[price.m]\ninput = 100\noutput = 1000\n");
    let ask = "filter -p {{text}} --id-field id --max-tokens 7";
    let ended = bench.pipe(&format!("{ask} --max-cost 0.05"), rows(50).as_bytes()).expect(4);
    let ended = ended.says("of the $0.05 of --max-cost are spent").says("--max-cost=");
    let count = server.count();
    assert!((3..=6).contains(&count), "{count} calls");
    assert_answers(&ended, count);
    let ended = bench.pipe(&format!("{ask} --max-cost 9"), rows(5).as_bytes()).expect(0);
    ended.says("5 rows: 5 ok · 5 calls · 90 tokens · $0.0405\n");
    std::fs::remove_file(bench.path("rowmill.toml")).unwrap();
    bench.pipe(&format!("{ASK} --max-cost 9"), b"").expect(2).says("--max-cost needs to know");
}

#[test]
fn attempts_and_what_happens_are_noted_where_that_is_wanted() {
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("text 2", 1) => Reply::status(500),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let ask = format!("{ASK} --telemetry-output tel.jsonl --log-file log.jsonl --quiet");
    for _ in 0..2 {
        let ended = bench.pipe(&ask, rows(3).as_bytes()).expect(0);
        assert_eq!(ended.stderr, "");
    }
    let attempts = bench.lines("tel.jsonl");
    assert_eq!(attempts.len(), 7, "the second adds to the first");
    let second: Vec<_> = attempts.iter().filter(|it| it["id"] == "r2").collect();
    assert_eq!((&second[0]["status"], &second[0]["attempt"]), (&json!(500), &json!(1)));
    assert_eq!((&second[1]["ok"], &second[1]["attempt"]), (&json!(true), &json!(2)));
    assert_eq!(second[1]["usage"]["turn"]["output_tokens"], 7);
    let log = bench.lines("log.jsonl");
    let end = log.last().unwrap();
    assert_eq!((&end["event"], &end["ok"], &end["calls"]), (&json!("end"), &json!(3), &json!(3)));
    // Somebody was cut off there: that line stays as it is, and no other is joined to it.
    bench.write("torn.jsonl", "{\"id\":\"r9");
    let torn = format!("{ASK} --telemetry-output torn.jsonl");
    bench.pipe(&torn, rows(2).as_bytes()).expect(0);
    let text = bench.read("torn.jsonl");
    let (first, rest) = text.split_once('\n').unwrap();
    assert_eq!((first, rest.lines().count()), ("{\"id\":\"r9", 2), "{text}");
    assert!(rest.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
    let same = format!("{ASK} --telemetry-output log.jsonl --log-file log.jsonl");
    bench.pipe(&same, b"").expect(2).says("--log-file must not be the file of --telemetry-output");
    let nowhere = format!("{ASK} --telemetry-output no/such/place");
    bench.pipe(&nowhere, b"").expect(73).says("nothing was read");
}

#[test]
fn a_file_that_is_read_is_not_written() {
    let server = Server::start(|call| Reply::Answer(answer_to(&call.prompt)));
    let bench = Bench::with_server(&server);
    let add =
        |name: &str| File::options().append(true).create(true).open(bench.path(name)).unwrap();
    let refused = |options: &str, output: File, text: &str| {
        let (rows, kept) = (rows(3), "kept\n");
        bench.write("in.jsonl", &rows);
        bench.write("out.jsonl", kept);
        let mut command = bench.command(words(&format!("{ASK} {options}")));
        command.stdin(File::open(bench.path("in.jsonl")).unwrap()).stdout(output);
        let output = command.stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let ended = Ended { code: output.status.code().unwrap(), stdout: String::new(), stderr };
        ended.expect(2).says(text).says("nothing was changed");
        assert_eq!((bench.read("in.jsonl"), &*bench.read("out.jsonl")), (rows, kept));
    };
    refused("", add("in.jsonl"), "standard output must not be the file of standard input");
    for option in ["--telemetry-output", "--log-file"] {
        let text = |of: &str| format!("{option} must not be the file of standard {of}");
        refused(&format!("{option} in.jsonl"), add("out.jsonl"), &text("input"));
        refused(&format!("{option} out.jsonl"), add("out.jsonl"), &text("output"));
        // Under another name as well.
        std::os::unix::fs::symlink("in.jsonl", bench.path(&option[2..])).unwrap();
        refused(&format!("{option} {}", &option[2..]), add("out.jsonl"), &text("input"));
    }
    assert_eq!(server.count(), 0);
    // What is no file may be both.
    let ask = "filter -m passthrough -p {{text}} --telemetry-output /dev/null --log-file /dev/null";
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap();
    let mut command = bench.command(words(ask));
    assert!(command.stdin(null()).stdout(null()).stderr(Stdio::null()).status().unwrap().success());
}

#[test]
fn what_makes_no_sense_in_a_pipe_is_refused() {
    let bench = Bench::new();
    bench.write("pool.toml", "[pool.all]\nmembers = [\"openai.a\", \"openai.b\"]\n");
    for (options, text) in [
        ("-m a -m b", "one model once about each row"),
        ("-m a --repeat 2", "one model once about each row"),
        ("-m all --config pool.toml", "-m all is a pool"),
        ("-m a --require-model a", "--require-model"),
        ("-m local", "start one yourself"),
        ("-m a --on-missing-field error", "row-error fails such a row"),
        ("-m a -p x --template t", "cannot be used with"),
        ("-m a --work-dir w", "unexpected argument"),
        ("-m a --parallel 2", "unexpected argument"),
    ] {
        bench.pipe(&format!("filter {options}"), b"").expect(2).says(text);
    }
    let ended = bench.pipe("filter -m passthrough", b"\x1f\x8b\x08\x00\x00\x00").expect(65);
    ended.says("standard input looks like gzip").says("decompress");
    let help = bench.run("filter --help").expect(0).stdout;
    assert!(help.contains("Examples:") && help.contains("survives a kill"), "{help}");
    assert!(help.contains("the calls of this process may have cost more"));
    assert!(!help.contains("--repeat") && !help.contains("--require-model"));
}

/// Requests as OpenAI's Batch API has them, by their ids and what they ask; each body is spelled in its own way.
fn requests(asked: &[(&str, &str)]) -> String {
    let line = |(id, text): &(&str, &str)| {
        format!(
            "{{\"custom_id\":\"{id}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{}}}\n",
            body(text)
        )
    };
    asked.iter().map(line).collect()
}

fn body(text: &str) -> String {
    format!(
        r#"{{"model":"own", "temperature":0.50,"messages":[ {{"role":"user","content":"{text}"}}]}}"#
    )
}

/// Lines out of the dialect openai with `ID` for the names that each run gives its lines. They are hashes.
#[track_caller]
fn unnamed(text: &str) -> String {
    const NAME: &str = "{\"id\":\"batch_req_";
    let of = |line: &str| {
        let (name, rest) = line.strip_prefix(NAME).unwrap().split_at(32);
        assert!(name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
        // A request without a name of the server's has one of the same hash.
        let rest = rest.replace(name, "…");
        format!("{{\"id\":\"ID{rest}\n")
    };
    text.lines().map(of).collect()
}

#[test]
fn requests_go_out_as_they_are_and_are_answered_in_their_dialect() {
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("bad", _) => Reply::status(400),
        ("slow", nth) if nth % 2 == 1 => Reply::status(500),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let bad = [
        "{torn\n",
        "[\"no object\"]\n",
        "{\"custom_id\":\"no url\",\"method\":\"POST\",\"body\":{\"model\":\"own\"}}\n",
        "{\"custom_id\":\"other url\",\"method\":\"POST\",\"url\":\"/v1/files\",\"body\":{\"model\":\"own\"}}\n",
        "{\"custom_id\":\"no model\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{}}\n",
        "{\"text\":\"a row\"}\n\n",
    ];
    let (first, last) = (&[("a", "x"), ("b", "bad"), ("c", "slow")], &[("d", "y")]);
    let input = format!("\u{feff}\n \n{}{}{}", requests(first), bad.concat(), requests(last));
    bench.write("in.jsonl", &input);
    let run = "run in.jsonl --dialect openai --skip-bad-lines";
    bench.run(&format!("{run} -o out.jsonl")).expect(3);
    let expected = unnamed(&bench.read("out.jsonl"));
    assert_eq!(expected.lines().count(), 10, "a line for each: {expected}");
    let before = server.count();
    let ended = bench.pipe("filter --ordered", input.as_bytes()).expect(3);
    let ended = ended.says("10 rows: 3 ok, 7 failed · 5 calls").says("their lines tell why; feed");
    assert_text(&unnamed(&ended.stdout), &expected);
    let calls = server.calls().split_off(before);
    assert_eq!(calls.len(), 5);
    for call in calls {
        assert_eq!((&*call.path, call.raw), ("/v1/chat/completions", body(&call.prompt).into()));
    }
    // As they come, and all by one model.
    let ended = bench.pipe("filter -m other", input.as_bytes()).expect(3);
    let id = |line: &Value| line["custom_id"].to_string();
    let mut ids: Vec<_> =
        ended.stdout.lines().map(|it| id(&serde_json::from_str(it).unwrap())).collect();
    ids.sort_unstable();
    let mut wanted: Vec<_> = bench.lines("out.jsonl").iter().map(id).collect();
    wanted.sort_unstable();
    assert_eq!(ids, wanted);
    let call = server.calls().pop().unwrap();
    assert_eq!(call.body["model"], "other");
    // In another dialect, without another call for who reads it.
    for format in ["rows", "prompts", "dria"] {
        let say = format!("--output-format {format}");
        bench.run(&format!("{run} -o {format}.jsonl {say}")).expect(3);
        let ended = bench.pipe(&format!("filter --ordered {say}"), input.as_bytes()).expect(3);
        assert_text(&ended.stdout, &bench.read(&format!("{format}.jsonl")));
    }
    // Each run has names of its own.
    let names = || bench.pipe("filter", requests(last).as_bytes()).expect(0).stdout;
    assert_ne!(names(), names());
}

#[test]
fn requests_go_to_where_their_lines_say_sound_as_a_form() {
    let server = Server::start(|call| {
        let answer = json!({"path": call.path, "text": "x", "data": [{"embedding": [1]}],
            "results": [{"index": 0}]});
        Reply::body(answer.to_string())
    });
    let bench = Bench::with_server(&server);
    let sound = r#"{"model":"w","file_url":"data:audio/mp3;base64,SUQz"}"#;
    let all = [
        ("/v1/audio/transcriptions", sound),
        ("/v1/embeddings", r#"{"model":"e","input":["x"]}"#),
        ("/v2/rerank", r#"{"model":"r","query":"a","documents":["b"]}"#),
    ];
    let line = |(url, body): &(&str, &str)| {
        format!(
            "{{\"custom_id\":\"{url}\",\"method\":\"POST\",\"url\":\"{url}\",\"body\":{body}}}\n"
        )
    };
    let input: String = all.iter().map(line).collect();
    let ended = bench.pipe("filter", input.as_bytes()).expect(0);
    for line in ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        assert_eq!(line["response"]["body"]["path"], line["custom_id"]);
    }
    let calls = server.calls();
    let sent = |url| calls.iter().find(|call| call.path == url).unwrap();
    assert!(sent(all[0].0).headers["content-type"].starts_with("multipart/form-data"));
    assert!(String::from_utf8_lossy(&sent(all[0].0).raw).contains("ID3"));
    assert_eq!(sent(all[1].0).raw, all[1].1.as_bytes());
    assert_eq!((sent(all[2].0).raw.as_slice(), calls.len()), (all[2].1.as_bytes(), 3));
}

#[test]
fn prompts_and_requests_of_dria_are_answered_as_run_answers_them() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "bad" => Reply::status(400),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("note.txt", "a note");
    let prompts = "{\"prompt\":\"x\"}\n{\"id\":7,\"prompt\":\"bad\"}\n{\"id\":\"p\",\"prompt\":\"\"}\n\
                   {\"id\":\"n\",\"prompt\":\"read\",\"attachment\":\"note.txt\"}\n{\"text\":\"none\"}\n";
    let dria = |id: &str, text: &str| {
        let body = body(text);
        format!(
            "{{\"custom_id\":\"{id}\",\"type\":\"completions\",\"version\":\"v1\",\"body\":{body}}}\n"
        )
    };
    let dria = [&*dria("a", "x"), &*dria("b", "bad"), "{\"custom_id\":\"c\"}\n", &*dria("d", "y")]
        .concat();
    for (name, input, options) in [("prompts", prompts, "-m m"), ("dria", &*dria, "")] {
        let start = server.count();
        bench.write("in.jsonl", input);
        let run = format!("run in.jsonl --dialect {name} --skip-bad-lines -o {name}.jsonl");
        bench.run(&format!("{run} {options}")).expect(3);
        let before = server.count();
        let ended = bench.pipe(&format!("filter --ordered {options}"), input.as_bytes()).expect(3);
        assert_text(&ended.stdout, &bench.read(&format!("{name}.jsonl")));
        let calls = server.calls();
        let sent = |calls: &[Call]| {
            let mut sent: Vec<_> = calls.iter().map(|call| call.raw.clone()).collect();
            sent.sort_unstable();
            sent
        };
        assert_eq!(sent(&calls[start..before]), sent(&calls[before..]));
        if name == "prompts" {
            let asked = &calls[before].body;
            assert_eq!((&asked["temperature"], &asked["max_tokens"]), (&json!(0.7), &json!(2048)));
        }
    }
    let ended = bench.pipe("filter -m m --output-format openai", b"{\"prompt\":\"x\"}\n").expect(0);
    let line: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(line["custom_id"], "1");
    assert_eq!(line["response"]["body"]["choices"][0]["message"]["content"], answer_to("x"));
    // Rows as well.
    let ended = bench.pipe(&format!("{ASK} --output-format dria"), rows(1).as_bytes()).expect(0);
    let line: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&line["custom_id"], &line["token_count"]), (&json!("r1"), &json!(7)));
}

#[test]
fn the_first_line_tells_what_comes_while_the_pipe_stays_open() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let request = requests(&[("a", "x")]);
    for (options, first, answer) in [
        ("", &*request, "/response/body/choices/0/message/content"),
        ("-m m", &*request, "/response/body/choices/0/message/content"),
        ("-m m", "{\"prompt\":\"x\"}\n", "/output"),
        ("-m m --dialect rows -p {{prompt}}", "{\"prompt\":\"x\"}\n", "/result"),
        ("-m m --id-field id -p {{prompt}}", "{\"id\":1,\"prompt\":\"x\"}\n", "/result"),
        // Envelopes are rows like any other.
        (
            "-m m -p {{result}}",
            "{\"id\":1,\"row_number\":1,\"ok\":true,\"result\":\"x\",\"error\":null}\n",
            "/result",
        ),
    ] {
        let mut open = Open::start(&bench, &format!("filter {options}"));
        // It comes in pieces, behind blank lines.
        let (head, tail) = first.split_at(5);
        open.write("\n \n");
        open.write(head);
        open.write(tail);
        let line = open.line();
        assert_eq!(line.pointer(answer), Some(&json!(answer_to("x"))), "{options}: {line}");
        // What comes behind it does not count.
        open.write("{\"text\":\"x\"}\n");
        let line = open.line();
        assert!(line.get("error").is_some_and(|error| !error.is_null()), "{options}: {line}");
        assert_eq!(open.end().expect(3).stdout, "");
    }
    // Without a line nobody is asked, and the arguments are looked at all the same.
    bench.pipe("filter -m m", b"\n\n").expect(0).says("0 rows: 0 ok");
    bench.pipe("filter", b"").expect(69).says("no endpoint offers a model");
    // Nor does it wait for a line where nobody waits for answers.
    let mut open = Open::start(&bench, "filter -m m");
    open.write("{\"pro");
    drop(open.stdout.take());
    let ended = open.wait().expect(0);
    assert_eq!(ended.stderr, "0 rows: 0 ok\n");
}

#[test]
fn what_requests_say_themselves_no_option_says() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("names.toml", "[models]\nown = \"openai.other\"\n");
    let (openai, prompt) = (requests(&[("a", "x")]), "{\"prompt\":\"x\"}\n");
    let result = "{\"custom_id\":\"a\",\"response\":null,\"error\":{}}\n";
    for (options, input, code, text) in [
        ("--temperature 1", &*openai, 2, "leave --temperature out"),
        ("--schema a:string", &openai, 2, "leave --schema out"),
        ("-m m?temperature=1", &openai, 2, "behind the model's name"),
        ("-p {{x}} -m m", &openai, 2, "standard input holds requests of the dialect openai"),
        ("--id-field custom_id -m m", &openai, 2, "--dialect rows"),
        ("-p {{x}} -m m --dialect openai", &openai, 2, "leave --prompt out"),
        ("-p {{x}} -m m --dialect prompts", prompt, 2, "leave --prompt out"),
        ("--include-input", &openai, 2, "--output-format rows"),
        ("-m a -m b", &openai, 2, "one model once about each row"),
        ("--map-model own=openai.other", &openai, 2, "--map-model"),
        ("--config names.toml", &openai, 2, "[models] of a config file"),
        (
            "--map-model own=openai.other -m m",
            prompt,
            2,
            "--map-model own=openai.other is for openai",
        ),
        ("-m m", result, 65, "standard input is no file of rows or requests: it holds results"),
    ] {
        let ended = bench.pipe(&format!("filter {options}"), input.as_bytes()).expect(code);
        assert_eq!(ended.stdout, "", "{options}");
        ended.says(text);
    }
    assert_eq!(server.count(), 0);
    let mut bench = Bench::new();
    bench.set("OPENAI_BASE_URL", "");
    bench.pipe("filter", openai.as_bytes()).expect(2).says("name the endpoint with --base-url");
    let ended = bench.pipe("filter -m passthrough", openai.as_bytes()).expect(0);
    let line: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(line["response"]["body"]["messages"][0]["content"], "x");
}

#[test]
fn a_cap_holds_for_models_that_lines_name() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("rowmill.toml", "[price.own]\ninput = 100\noutput = 1000\n");
    let known = requests(&[("a", "x"), ("c", "y")]);
    let unknown = requests(&[("b", "z")]).replace("\"own\"", "\"unheard-of\"");
    let input = format!("{known}{unknown}");
    let ended = bench.pipe("filter --ordered --max-cost 9", input.as_bytes()).expect(3);
    let last: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["custom_id"], &last["error"]["code"]), (&json!("b"), &json!("no_model")));
    let message = last["error"]["message"].as_str().unwrap();
    assert!(message.contains("--max-cost") && message.ends_with("unheard-of"), "{message}");
    assert_eq!(server.count(), 2);
    ended.says("3 rows: 2 ok, 1 failed · 2 calls · 36 tokens · $0.0162\n");
    bench.pipe("filter --max-cost 0.0001", known.as_bytes()).expect(4);
    assert_eq!(server.count(), 2);
}
