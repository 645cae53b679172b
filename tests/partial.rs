//! What is done of a run that ended early can be published, and the run goes on as if it had not been.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::server::{Call, Reply, Server, answer_to};
use crate::support::{Bench, assert_same, rows};

/// One call at a time, so that rows are asked about in their order.
const ONE: &str = "--work-dir job --parallel 1 -c 1 --fixed-concurrency --shard-rows 2";

/// A server that says the account is empty to calls for which `refuses` says so, until it is told to take them.
fn refusing(refuses: impl Fn(&Call) -> bool + Send + Sync + 'static) -> (Server, Arc<AtomicBool>) {
    let is_open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&is_open);
    let quota = json!({"error": {"code": "insufficient_quota", "message": "empty"}}).to_string();
    let server = Server::start(move |call| match !opened.load(Ordering::SeqCst) && refuses(call) {
        true => Reply::Status(429, Vec::new(), quota.clone()),
        false => Reply::Answer(answer_to(&call.prompt)),
    });
    (server, is_open)
}

/// Ten rows, of which the first five are answered before the account is empty.
fn stopped() -> (Server, Arc<AtomicBool>, Bench) {
    let is_late = |call: &Call| call.prompt.trim_start_matches("text ").parse().unwrap_or(9) > 5;
    let (server, is_open) = refusing(is_late);
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(10));
    bench
        .run(&format!("run in.jsonl -o out.jsonl --id-field id -p {{{{text}}}} -m m {ONE}"))
        .expect(77)
        .says("to publish what is done: rowmill merge --work-dir job --partial -o out.jsonl · ");
    (server, is_open, bench)
}

/// Goes on with the run of [`stopped`].
fn resume(bench: &Bench) {
    let ask =
        format!("run in.jsonl -o out.jsonl --id-field id -p {{{{text}}}} -m m {ONE} --resume");
    bench.run(&ask).expect(0);
}

fn ids(bench: &Bench, name: &str) -> Vec<String> {
    bench.lines(name).iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

/// Answered rows must be paid for once.
#[track_caller]
fn assert_asked_once(server: &Server, prompts: &[&str]) {
    let counts = server.counts();
    for prompt in prompts {
        assert_eq!(counts[*prompt], 1, "{prompt}");
    }
}

#[test]
fn partial_merge_leaves_out_unfinished_rows() {
    let (server, is_open, bench) = stopped();
    bench.run("merge --work-dir job -o out.jsonl").expect(78).says("--partial");
    let sides = "--telemetry-output times.jsonl --error-output errors.jsonl";
    let merge = format!("merge --work-dir job --partial -o out.jsonl {sides}");
    let ended = bench.run(&merge).expect(0).says("published 5 of 10 rows; 5 have no outcome yet");
    assert_eq!(ids(&bench, "out.jsonl"), ["r1", "r2", "r3", "r4", "r5"]);
    assert_eq!((bench.lines("times.jsonl").len(), bench.read("errors.jsonl")), (5, String::new()));
    let summary = ended.summary();
    assert_eq!(summary["partial"], true);
    assert_eq!((&summary["rows"]["ok"], &summary["rows"]["left"]), (&json!(5), &json!(5)));
    // It is the run's own, and no finished one.
    let status = bench.run("status --work-dir job --json").expect(0).summary();
    assert_eq!((&status["state"], &status["left"]), (&json!("open"), &json!(5)));
    assert_eq!(status["published"]["partial"], true);
    assert_eq!(status["last_run"]["end"], "published:partial");
    let before = bench.snapshot();
    bench.run(&merge).expect(0);
    assert_same(&bench.snapshot(), &before);
    is_open.store(true, Ordering::SeqCst);
    resume(&bench);
    bench.assert_answers(10);
    assert_asked_once(&server, &["text 1", "text 2", "text 3", "text 4", "text 5", "text 7"]);
    // Of a finished plan nothing is left out.
    let calls = server.count();
    let ended = bench.run("merge --work-dir job --partial -o whole.jsonl").expect(0);
    assert_eq!(ended.summary()["partial"], Value::Null);
    assert_eq!(bench.read("whole.jsonl"), bench.read("out.jsonl"));
    assert_eq!(server.count(), calls);
}

#[test]
fn partial_publication_cut_off_is_finished() {
    let (server, is_open, bench) = stopped();
    bench.run("merge --work-dir job --partial -o part.jsonl --summary-output s.json").expect(0);
    let part = bench.read("part.jsonl");
    // As if it had been killed between the decision and the renames.
    let mut commit = bench.json("job/commit-000001.json");
    commit["done"] = json!(false);
    for file in commit["files"].as_array().unwrap() {
        let target = file["target"].as_str().unwrap();
        let staged = bench.path(file["staged"].as_str().unwrap());
        fs::rename(target, staged).unwrap();
    }
    bench.write("job/commit-000001.json", commit.to_string());
    is_open.store(true, Ordering::SeqCst);
    resume(&bench);
    assert_eq!(bench.read("part.jsonl"), part);
    assert_eq!(bench.json("s.json")["partial"], true);
    bench.assert_answers(10);
    assert_asked_once(&server, &["text 1", "text 5"]);
}

#[test]
fn complete_work_after_partial_merge_is_unpublished() {
    let (_server, is_open, bench) = stopped();
    bench.run("merge --work-dir job --partial -o out.jsonl").expect(0);
    is_open.store(true, Ordering::SeqCst);
    bench.run("work --work-dir job").expect(0);
    let status = bench.run("status --work-dir job --json").expect(0).summary();
    assert_eq!(status["state"], "complete", "what is published is not all");
    bench.run("merge --work-dir job -o out.jsonl").expect(0);
    bench.assert_answers(10);
}

#[test]
fn partial_output_without_work_dir_is_taken_over() {
    let (server, is_open, bench) = stopped();
    bench.run("merge --work-dir job --partial -o out.jsonl").expect(0);
    fs::remove_dir_all(bench.path("job")).unwrap();
    is_open.store(true, Ordering::SeqCst);
    resume(&bench);
    bench.assert_answers(10);
    assert_asked_once(&server, &["text 1", "text 2", "text 3", "text 4", "text 5"]);
}

#[test]
fn partial_merge_beside_default_dir_needs_no_output() {
    let (server, _) = refusing(|call| call.prompt == "text 3");
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    let one = ONE.replace("--work-dir job ", "");
    bench.run(&format!("run in.jsonl -o out.jsonl -p {{{{text}}}} -m m {one}")).expect(77);
    bench.run("merge --work-dir out.jsonl.rowmill/ --partial").expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 2);
    bench.run("merge --work-dir out.jsonl.rowmill").expect(2);
}

#[test]
fn partial_merge_of_requests_keeps_dialect() {
    let (server, is_open) = refusing(|call| call.prompt == "c");
    let bench = Bench::with_server(&server);
    let line = |id: &str| {
        json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": [{"role": "user", "content": id}]}})
        .to_string()
    };
    bench.write("in.jsonl", ["a", "b", "c", "d"].map(line).join("\n"));
    let ask = format!("run in.jsonl -o out.jsonl {ONE}");
    bench.run(&ask).expect(77);
    bench.run("merge --work-dir job --partial -o out.jsonl").expect(0);
    let ids = |bench: &Bench| -> Vec<Value> {
        bench.lines("out.jsonl").iter().map(|line| line["custom_id"].clone()).collect()
    };
    assert_eq!(ids(&bench), ["a", "b"]);
    bench.run("merge --work-dir job --partial -o rows.jsonl --output-format rows").expect(0);
    assert_eq!(bench.lines("rows.jsonl")[1]["id"], "b");
    is_open.store(true, Ordering::SeqCst);
    bench.run(&format!("{ask} --resume")).expect(0);
    assert_eq!(ids(&bench), ["a", "b", "c", "d"]);
    assert_asked_once(&server, &["a", "b", "d"]);
}

#[test]
fn partial_merge_of_variants_and_inputs() {
    let (server, is_open) = refusing(|call| {
        call.body["model"] == "two" && call.prompt != "b 1" || call.prompt == "c 2"
    });
    let bench = Bench::with_server(&server);
    for name in ["b", "c", "d"] {
        let row = |n| format!("{{\"id\":{n},\"text\":\"{name} {n}\"}}\n");
        bench.write(&format!("in/{name}.jsonl"), [1, 2].map(row).concat());
    }
    let ask = format!("run in -o out --id-field id -p {{{{text}}}} -m one -m two {ONE}");
    bench.run(&ask).expect(77);
    let ended = bench.run("merge --work-dir job --partial -o out").expect(0);
    let told = |name: &str| -> Vec<String> {
        let lines = bench.lines(&format!("out/{name}.jsonl"));
        let told = |it: &Value| format!("{} {}", it["id"], it["model"].as_str().unwrap());
        lines.iter().map(told).collect()
    };
    assert_eq!(told("b")[0], "1 one");
    assert!(bench.exists("out/d.jsonl"));
    let summary = ended.summary();
    let [ok, left] = ["ok", "left"].map(|it| summary["rows"][it].as_u64().unwrap());
    assert_eq!((ok + left, left > 0), (12, true));
    let published: usize = ["b", "c", "d"].map(|name| told(name).len()).iter().sum();
    assert_eq!(published as u64, ok);
    is_open.store(true, Ordering::SeqCst);
    bench.run(&format!("{ask} --resume")).expect(0);
    assert_eq!(told("c"), ["1 one", "1 two", "2 one", "2 two"]);
}

#[test]
fn partial_merge_gives_twins_their_outcomes() {
    let (server, is_open) = refusing(|call| call.prompt == "late");
    let bench = Bench::with_server(&server);
    let texts = ["soon", "late", "late", "soon", "soon"];
    let row = |(n, text): (usize, &&str)| format!("{{\"id\":\"r{n}\",\"text\":\"{text}\"}}\n");
    bench.write("in.jsonl", texts.iter().enumerate().map(row).collect::<String>());
    let ask =
        format!("run in.jsonl -o out.jsonl --id-field id -p {{{{text}}}} -m m --dedupe {ONE}");
    bench.run(&ask).expect(77);
    bench.run("merge --work-dir job --partial -o out.jsonl").expect(0);
    assert_eq!(ids(&bench, "out.jsonl"), ["r0", "r3", "r4"]);
    is_open.store(true, Ordering::SeqCst);
    bench.run(&format!("{ask} --resume")).expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 5);
    assert_asked_once(&server, &["soon"]);
}
