//! What schedulers and monitors see: quiet runs, deadlines, locks, the last run, the log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, Ended, assert_same, rows, words};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m";

fn bench(server: &Server, count: usize) -> Bench {
    let bench = Bench::with_server(server);
    bench.write("in.jsonl", rows(count));
    bench
}

/// Answers the first rows, and says nothing to the others until it is released.
fn holds_after(count: usize) -> Server {
    Server::start(move |call| {
        let number: usize = call.prompt.trim_start_matches("text ").parse().unwrap();
        let answer = answer_to(&call.prompt);
        if number <= count { Reply::Answer(answer) } else { Reply::Hold(answer) }
    })
}

fn status(bench: &Bench, dir: &str) -> Value {
    bench.run(&format!("status --work-dir {dir} --json")).expect(0).summary()
}

fn last_run(bench: &Bench, dir: &str) -> Value {
    status(bench, dir)["last_run"].clone()
}

#[track_caller]
fn assert_mute(ended: &Ended) {
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
}

#[test]
fn a_quiet_run_that_went_well_prints_nothing() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 3" => Reply::status(400),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = bench(&server, 10);
    // Rows that fail are told by the exit code, and not at all where they are allowed for.
    assert_mute(&bench.run(&format!("{ASK} --quiet --allow-failed 1")).expect(0));
    let ended = bench.run(&format!("{ASK} --quiet --resume")).expect(3);
    assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 1), "{}", ended.stderr);
    // Nor is what was to be expected: rows that cannot be asked about, ids that are there twice.
    bench.write("odd.jsonl", "{\"id\":1,\"text\":\"a\"}\n{\"id\":1,\"text\":\"b\"}\nnot json\n");
    let odd = "odd.jsonl --work-dir job --id-field id -p {{text}} -m m --on-duplicate first";
    assert_mute(&bench.run(&format!("plan {odd} -q")).expect(0));
    assert_mute(&bench.run("work --work-dir job -q --allow-failed 1").expect(0));
    assert_mute(&bench.run("merge --work-dir job -o odd.out -q --allow-failed 1").expect(0));
    assert_eq!(bench.lines("odd.out").len(), 2);
    // Nothing to resume, nothing to do.
    assert_mute(&bench.run("run odd.jsonl -o new.out -m passthrough -q --resume --allow-failed 1"));
    assert_mute(&bench.run("run odd.jsonl -o new.out -m passthrough -q --resume --allow-failed 1"));
    bench.run(&format!("{ASK} --quiet --final-summary")).expect(2).says("--summary-output");
}

#[test]
fn a_quiet_run_tells_what_needs_a_person() {
    let server = holds_after(5);
    let bench = bench(&server, 10);
    let running = bench.start(&format!("{ASK} --work-dir job --shard-rows 5 -c 4 --quiet"));
    server.wait_for_active(4);
    running.kill();
    server.release();
    let resume = format!("{ASK} --work-dir job --shard-rows 5 --quiet --resume");
    let ended = bench.run(&resume).expect(0).says("they are made, and paid for, again");
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);

    let journal = bench.path("job/shards/00000/journal");
    let mut bytes = fs::read(&journal).unwrap();
    bytes[100] ^= 1;
    fs::write(&journal, bytes).unwrap();
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    let ended = bench.run(&resume).expect(0).says("quarantine");
    assert!(ended.stderr.lines().all(|line| line.starts_with("warning: ")), "{}", ended.stderr);
    assert_eq!(bench.lines("out.jsonl").len(), 10);
}

#[test]
fn a_quiet_run_that_a_signal_ends_prints_its_closing_line_only() {
    let server = holds_after(0);
    let bench = bench(&server, 5);
    let running = bench.start(&format!("{ASK} --quiet --drain-timeout 0"));
    server.wait_for_active(5);
    running.signal("-TERM");
    let ended = running.wait().expect(143);
    assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 1), "{}", ended.stderr);
}

/// Whether a deadline had to cut a command off that should have drained: this machine is very busy.
fn was_cut_off(ended: &Ended) -> bool {
    let was = ended.stderr.contains("did not end in time");
    if was {
        eprintln!("SKIPPED: this machine is too busy to drain a run in a second");
    }
    was
}

#[test]
fn a_deadline_drains_and_the_next_run_goes_on() {
    let server = holds_after(10);
    let bench = bench(&server, 20);
    let ended = bench.run(&format!("{ASK} --deadline 4s")).expect(4);
    let now = status(&bench, "out.jsonl.rowmill");
    let (ok, left) = (now["ok"].as_u64().unwrap(), now["left"].as_u64().unwrap());
    assert!(left >= 10 && ok + left == 20, "{now}");
    if !was_cut_off(&ended) {
        let left_told = format!("{left} rows are left");
        let line = ended.stderr.lines().last().unwrap();
        for part in ["--deadline 4s (2", &left_told, "all finished rows are kept", "--resume"] {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
        let last = &now["last_run"];
        assert_eq!((&last["end"], &last["code"]), (&json!("stopped:deadline"), &json!(4)));
        assert_eq!(last["done"], json!({"ok": ok, "failed": 0, "calls": ok}));
    }
    let calls = server.count() as u64;
    server.release();
    bench.run(&format!("{ASK} --deadline 2h --resume")).expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 20);
    assert_eq!(server.count() as u64, calls + left, "no answer was lost");
}

#[test]
fn work_has_a_deadline_as_well() {
    let server = holds_after(0);
    let bench = bench(&server, 5);
    bench.run("plan in.jsonl --work-dir job -p {{text}} -m m").expect(0);
    let ended = bench.run("work --work-dir job --deadline 4s").expect(4);
    if !was_cut_off(&ended) {
        assert_eq!(last_run(&bench, "job")["end"], "stopped:deadline");
    }
    ended.says("rowmill work --work-dir job");
    server.release();
    bench.run("work --work-dir job").expect(0);
    let last = last_run(&bench, "job");
    assert_eq!((&last["end"], &last["code"]), (&json!("worked"), &json!(0)));
}

#[test]
fn a_deadline_ends_every_kind_of_waiting() {
    // For an endpoint that asks to be left alone.
    let after = || vec![("retry-after", "600".to_owned())];
    let busy = Server::start(move |_| Reply::Status(429, after(), String::new()));
    let bench = bench(&busy, 5);
    bench.run(&format!("{ASK} --deadline 1s")).expect(4).says("stopped before --deadline");
    // For an endpoint that is not there.
    let nobody = format!("{ASK} --resume --base-url http://127.0.0.1:9/v1");
    bench.run(&format!("{nobody} --deadline 1s")).expect(4).says("stopped before --deadline");

    // For a lock.
    let server = holds_after(0);
    let bench = self::bench(&server, 5);
    let running = bench.start(ASK);
    server.wait_for_active(5);
    let waits = format!("{ASK} --resume --lock-wait 10m --deadline 1s");
    bench.run(&waits).expect(4).says("is in use by process").says("nothing was changed");
    server.release();
    running.wait().expect(0);
    assert_eq!(server.count(), 5);
}

#[test]
fn a_deadline_ends_a_run_whose_input_does_not_end() {
    let server = Server::echo();
    let bench = bench(&server, 1);
    let words = words("run - -o out.jsonl --id-field id -p {{text}} -m m --deadline 2s");
    let mut child = bench
        .command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Held open, and never written to.
    let input = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(input);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("did not end in time"), "{said}");
    let last = last_run(&bench, "out.jsonl.rowmill");
    assert_eq!((&last["end"], &last["code"]), (&json!("cut_off"), &Value::Null));
    let ended = bench
        .pipe("run - -o out.jsonl --id-field id -p {{text}} -m m --resume", rows(3).as_bytes());
    ended.expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 3);
}

#[test]
fn a_deadline_ends_a_run_whose_output_nobody_reads() {
    let server = Server::echo();
    let bench = bench(&server, 5);
    let made = Command::new("mkfifo").arg(bench.path("pipe")).status().unwrap();
    assert!(made.success());
    bench.run("plan in.jsonl --work-dir job --id-field id -p {{text}} -m m").expect(0);
    bench.run("work --work-dir job").expect(0);
    let ask = ASK.replace("out.jsonl", "pipe");
    let ended = bench.run(&format!("{ask} --work-dir job --resume --deadline 1s")).expect(4);
    ended.says("stopped before --deadline 1s");
    let ask = ASK.replace("out.jsonl", "-");
    let ended = bench.run(&format!("{ask} --work-dir job --resume")).expect(0);
    assert_eq!((ended.stdout.lines().count(), server.count()), (5, 5), "no answer was lost");
}

#[test]
fn a_deadline_that_has_passed_makes_no_call_and_changes_nothing() {
    let server = Server::echo();
    let bench = bench(&server, 5);
    let before = bench.snapshot();
    let past = "2020-01-01T06:00:00+01:00";
    let ended = bench.run(&format!("{ASK} --deadline {past}")).expect(4).says("it has passed");
    let line = ended.stderr.lines().last().unwrap();
    assert!(line.contains("with a later --deadline, or none: rowmill run in.jsonl"), "{line}");
    assert_eq!(line.matches(past).count(), 1, "it is not to be typed again: {line}");
    assert_same(&bench.snapshot(), &before);
    assert_eq!(server.count(), 0);
}

#[test]
fn a_deadline_may_be_a_time_on_the_clock() {
    let server = Server::echo();
    let mut bench = bench(&server, 5);
    bench.set("TZ", "UTC");
    let noon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(12);
    let clock = noon.strftime("%H:%M");
    bench.run(&format!("{ASK} --deadline {clock}")).expect(0);
    bench.set("TZ", "Nowhere/At-all");
    let lost = format!("{ASK} --overwrite --deadline");
    bench.run(&format!("{lost} {clock}")).expect(2).says("time zone is not known");
    bench.run(&format!("{lost} 2h")).expect(0);
    for zone in [":/dev/zero", "/dev/zero"] {
        bench.set("TZ", zone);
        bench.run(&format!("{lost} {clock}")).expect(2).says("/dev/zero, which is no file");
    }
    for text in ["0", "tomorrow", "25:00", "2026-11-22T06:00:00"] {
        bench.run(&format!("{lost} {text}")).expect(2).says("expected a time from now");
    }
}

#[test]
fn a_held_lock_is_told_at_once_or_waited_for() {
    let server = holds_after(0);
    let bench = bench(&server, 5);
    bench.run("plan in.jsonl --work-dir job -p {{text}} -m m").expect(0);
    let running = bench.start("work --work-dir job");
    server.wait_for_active(5);
    let commands = [
        "plan in.jsonl --work-dir job -p {{text}} -m m",
        "work --work-dir job",
        "merge --work-dir job -o out.jsonl",
        "run in.jsonl -o out.jsonl --work-dir job -p {{text}} -m m --resume",
        "check --work-dir job",
    ];
    for command in commands {
        bench.run(command).expect(75).says("--lock-wait");
        bench.run(&format!("{command} --lock-wait 0.1")).expect(75);
    }
    let waiting: Vec<_> =
        commands.iter().map(|it| bench.start(&format!("{it} --lock-wait 10m"))).collect();
    server.release();
    running.wait().expect(0);
    for command in waiting {
        // `run` and `merge` publish the same outputs: the later one finds nothing to do.
        command.wait().expect(0);
    }
    assert_eq!((bench.lines("out.jsonl").len(), server.count()), (5, 5));
}

#[test]
fn status_tells_how_the_last_run_ended() {
    let server = holds_after(5);
    let bench = bench(&server, 10);
    let ask = format!("{ASK} --work-dir job");
    bench.run("plan in.jsonl --work-dir job --id-field id -p {{text}} -m m").expect(0);
    assert_eq!(last_run(&bench, "job"), Value::Null);

    let running = bench.start(&format!("{ask} --resume"));
    server.wait_for_active(5);
    let now = status(&bench, "job");
    assert_eq!((&now["is_running"], &now["generation"]), (&json!(true), &json!(1)));
    assert_eq!(now["last_run"]["pid"], running.pid());
    assert_eq!(now["last_run"]["end"], "running");
    running.kill();
    let now = status(&bench, "job");
    assert_eq!((&now["is_running"], &now["holder"]), (&json!(false), &Value::Null));
    let last = &now["last_run"];
    assert_eq!((&last["end"], &last["code"]), (&json!("cut_off"), &Value::Null));
    assert_eq!(last["ended"], Value::Null);

    let calls = server.count();
    let running = bench.start(&format!("{ask} --resume --drain-timeout 0"));
    server.wait_for_calls(calls + 5);
    running.signal("-TERM");
    running.wait().expect(143);
    let last = last_run(&bench, "job");
    assert_eq!((&last["end"], &last["code"]), (&json!("drained"), &json!(143)));
    assert!(last["ended"].as_str() >= last["started"].as_str(), "{last}");
    assert!(last["message"].as_str().unwrap().contains("ended by a signal"), "{last}");
    assert!(last["next"].as_str().unwrap().contains("--resume"), "{last}");

    server.release();
    bench.run(&format!("{ask} --resume")).expect(0);
    let now = status(&bench, "job");
    let last = &now["last_run"];
    assert_eq!((&last["end"], &last["code"]), (&json!("published"), &json!(0)));
    assert_eq!((&last["message"], &last["next"]), (&Value::Null, &Value::Null));
    assert_eq!(now["left"], 0);
    let plain = bench.run("status --work-dir job").expect(0).stdout;
    assert!(plain.contains("last run   published (code 0), from 2"), "{plain}");
    let formats = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/formats.md");
    let formats = fs::read_to_string(formats).unwrap();
    for name in now.as_object().unwrap().keys().chain(last.as_object().unwrap().keys()) {
        assert!(formats.contains(&format!("`{name}`")), "docs/formats.md has no {name}");
    }
    // What finds nothing to do leaves the note of who did it.
    let before = bench.snapshot();
    bench.run(&format!("{ask} --resume")).expect(0);
    bench.run("work --work-dir job").expect(0);
    bench.run("merge --work-dir job -o out.jsonl").expect(0);
    assert_same(&bench.snapshot(), &before);
}

#[test]
fn status_has_a_word_for_every_end() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 1" => Reply::status(400),
        _ => Reply::status(401),
    });
    let bench = bench(&server, 1);
    let ask = format!("{ASK} --work-dir job");
    bench.run(&format!("{ask} --max-errors 1")).expect(4);
    let last = last_run(&bench, "job");
    assert_eq!(last["end"], "stopped:max_errors");
    assert_eq!(last["done"], json!({"ok": 0, "failed": 1, "calls": 1}));
    bench.run(&format!("{ask} --resume")).expect(3);
    let last = last_run(&bench, "job");
    assert_eq!((&last["end"], &last["code"]), (&json!("published"), &json!(3)));
    assert!(last["message"].as_str().unwrap().starts_with("1 of 1 rows failed"), "{last}");

    bench.write("in.jsonl", rows(5));
    bench.run(&format!("{ask} --offset 1 --overwrite")).expect(77);
    assert_eq!(last_run(&bench, "job")["end"], "stopped:credentials");
    // What is refused before any work leaves no trace.
    let before = bench.snapshot();
    bench.run(&format!("{ask} --offset 2 --resume")).expect(78);
    assert_same(&bench.snapshot(), &before);
    let ask = ask.replace("-m m", "-m passthrough --overwrite");
    bench.run(&ask).expect(0);
    assert_eq!(last_run(&bench, "job")["done"], json!({"ok": 5, "failed": 0, "calls": 0}));
}

#[test]
fn runs_append_what_happens_to_one_log() {
    let server = Server::start(|call| match (call.nth, call.prompt.as_str()) {
        // Nobody is answered at first: the endpoint is left alone for as long as it asks.
        (1, _) => Reply::Status(429, vec![("retry-after", "1".to_owned())], String::new()),
        (_, "text 4") => Reply::status(400),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = bench(&server, 6);
    let ask = format!("{ASK} --work-dir job --shard-rows 3 -c 1 --log-file log/rowmill.jsonl");
    bench.write("log/keep", "");
    bench.run(&ask).expect(3);
    let calls = server.count();
    bench.run(&format!("{ask} --resume")).expect(3);
    bench.run("merge --work-dir job -o two.jsonl --log-file log/rowmill.jsonl").expect(3);
    let mode = fs::metadata(bench.path("log/rowmill.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = bench.read("log/rowmill.jsonl");
    assert!(!text.contains("text 1") && !text.contains("{{text}}"), "{text}");
    let lines = bench.lines("log/rowmill.jsonl");
    let first: Vec<&Value> = lines.iter().filter(|line| line["pid"] == lines[0]["pid"]).collect();
    let events: Vec<_> = first.iter().map(|line| line["event"].as_str().unwrap()).collect();
    for event in ["begin", "started", "shard_opened", "shard_sealed", "paused", "recovered", "end"]
    {
        assert!(events.contains(&event), "{event} is not in {events:?}");
    }
    assert_eq!((events[0], *events.last().unwrap()), ("begin", "end"));
    assert_eq!(first[0]["command"], "run");
    assert_eq!(first[0]["version"], env!("CARGO_PKG_VERSION"));
    let end = first.last().unwrap();
    assert_eq!((&end["code"], &end["ok"], &end["failed"]), (&json!(3), &json!(5), &json!(1)));
    assert_eq!(end["calls"], calls);
    assert!(end["message"].as_str().unwrap().starts_with("1 of 6 rows failed"), "{end}");
    let ends = lines.iter().filter(|line| line["event"] == "end").count();
    assert_eq!((ends, &lines.last().unwrap()["event"]), (3, &json!("end")));
    let formats = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/formats.md");
    let formats = fs::read_to_string(formats).unwrap();
    for line in &lines {
        let event = line["event"].as_str().unwrap();
        for name in line.as_object().unwrap().keys().map(String::as_str).chain([event]) {
            assert!(formats.contains(&format!("`{name}`")), "docs/formats.md has no {name}");
        }
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}

#[test]
fn a_log_that_cannot_be_one_is_refused_before_any_call() {
    let server = Server::echo();
    let bench = bench(&server, 5);
    bench.write("prompt.txt", "{{text}}");
    bench.write("plain", "");
    bench.run("plan in.jsonl --work-dir job -p {{text}} -m m").expect(0);
    let before = bench.snapshot();
    for (path, code) in [("nowhere/log", 73), ("plain/log", 73), (".", 73)] {
        bench.run(&format!("{ASK} --log-file {path}")).expect(code);
    }
    let ask = "run in.jsonl -o out.jsonl --error-output ./e.jsonl --template prompt.txt -m m";
    for (path, what) in [
        ("in.jsonl", "the input"),
        ("out.jsonl", "the file of --output"),
        ("e.jsonl", "the file of --error-output"),
        ("prompt.txt", "the file of --template"),
        ("job/log", "in the work directory"),
        ("-", "standard output"),
    ] {
        let ended = bench.run(&format!("{ask} --work-dir job --resume --log-file {path}"));
        ended.expect(2).says(&format!("--log-file must not be {what}"));
    }
    for command in ["work --work-dir job", "merge --work-dir job -o o.jsonl"] {
        bench
            .run(&format!("{command} --log-file in.jsonl"))
            .expect(2)
            .says("must not be the input");
    }
    assert_same(&bench.snapshot(), &before);
    assert_eq!(server.count(), 0);
}

#[test]
fn a_log_on_a_full_disk_costs_no_row() {
    let server = Server::echo();
    let bench = bench(&server, 5);
    let ended = bench.run(&format!("{ASK} --log-file /dev/full --quiet")).expect(0);
    assert_eq!(ended.stderr.matches("cannot append to the log").count(), 1, "{}", ended.stderr);
    assert_eq!((bench.lines("out.jsonl").len(), server.count()), (5, 5));
}
