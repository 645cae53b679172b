//! Several inputs in one job: each has outputs of its own, and all that goes for one goes for each.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{self, Bench, assert_same};

const ASK: &str = "run in -o out --id-field id -p {{text}} --work-dir job -m m --shard-rows 3";

/// Rows with the ids `r1`, `r2`, … and the texts `NAME 1`, `NAME 2`, ….
fn input(name: &str, rows: usize) -> String {
    (1..=rows).map(|n| format!("{{\"id\":\"r{n}\",\"text\":\"{name} {n}\"}}\n")).collect()
}

/// Makes sure that an output has the answers to the texts, with ids and row numbers of their file.
#[track_caller]
fn assert_output(bench: &Bench, path: &str, texts: &[&str]) {
    let lines = bench.lines(path);
    let found: Vec<_> = lines.iter().map(|line| (&line["row_number"], &line["result"])).collect();
    let numbers: Vec<Value> = (1..=texts.len()).map(Value::from).collect();
    let answers: Vec<Value> = texts.iter().map(|text| answer_to(text).into()).collect();
    assert_eq!(found, numbers.iter().zip(&answers).collect::<Vec<_>>(), "{path}");
}

fn three() -> (Server, Bench) {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    for (name, rows) in [("b", 4), ("a", 7), ("c", 2)] {
        bench.write(&format!("in/{name}.jsonl"), input(name, rows));
    }
    (server, bench)
}

#[test]
fn a_directory_is_one_job_and_each_file_has_its_output() {
    let (server, bench) = three();
    bench.write("in/empty.jsonl", "");
    // None of these is an input.
    bench.write("in/.hidden.jsonl", "not JSON");
    bench.write("in/notes.txt", "not JSON");
    bench.write("in/deeper/d.jsonl", "not JSON");
    let sides = "--telemetry-output times/all --error-output errors --output-delta delta \
                 --summary-output summary.json";
    let ended = bench.run(&format!("{ASK} {sides}")).expect(0);
    assert_eq!(server.count(), 13);
    assert_output(&bench, "out/b.jsonl", &["b 1", "b 2", "b 3", "b 4"]);
    assert_output(&bench, "out/c.jsonl", &["c 1", "c 2"]);
    assert_eq!(bench.lines("out/a.jsonl")[6]["id"], "r7");
    assert_eq!(bench.read("out/empty.jsonl"), "");
    let mut names: Vec<_> =
        fs::read_dir(bench.path("out")).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.jsonl", "b.jsonl", "c.jsonl", "empty.jsonl"]);
    assert_eq!(bench.read("delta/a.jsonl"), bench.read("out/a.jsonl"));
    assert_eq!(bench.read("errors/b.jsonl"), "");
    let attempts = bench.lines("times/all/b.jsonl");
    let rows: Vec<_> = attempts.iter().map(|it| it["row_number"].as_u64().unwrap()).collect();
    assert_eq!(rows, [1, 2, 3, 4]);

    let summary = ended.summary();
    assert_eq!(summary, bench.json("summary.json"));
    assert_eq!(summary["input"], Value::Null);
    assert_eq!((&summary["rows"]["input"], &summary["rows"]["ok"]), (&json!(13), &json!(13)));
    let of = |key: &str| -> Vec<Value> {
        summary["inputs"].as_array().unwrap().iter().map(|it| it[key].clone()).collect()
    };
    assert_eq!(of("rows"), [7, 4, 2, 0]);
    assert_eq!(of("ok"), [7, 4, 2, 0]);
    let hash = blake3::hash(input("b", 4).as_bytes()).to_hex().to_string();
    assert_eq!(of("blake3")[1], hash);
    assert_eq!(of("path")[0], bench.path("in/a.jsonl").to_str().unwrap());
    assert_eq!(of("output")[2], bench.path("out/c.jsonl").to_str().unwrap());
    assert_eq!(summary["outputs"].as_array().unwrap().len(), 16);

    bench.run("check --work-dir job").expect(0);
    assert!(bench.run("status --work-dir job").expect(0).stdout.contains("13"));
    let before = bench.snapshot();
    bench.run(&format!("{ASK} {sides} --resume")).expect(0);
    assert_same(&bench.snapshot(), &before);
    assert_eq!(server.count(), 13);
}

#[test]
fn files_are_named_one_by_one_and_may_be_of_different_kinds() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("x.jsonl", input("x", 2));
    bench.write("far/y.csv", "text,id\ny 1,r1\n\"y, 2\",r2\n");
    let options = "-o out/ -p {{text}} --id-field id -m m --no-final-summary";
    bench.run(&format!("run far/y.csv x.jsonl {options}")).expect(0);
    assert_output(&bench, "out/x.jsonl", &["x 1", "x 2"]);
    assert_output(&bench, "out/y.jsonl", &["y 1", "y, 2"]);
    // The work directory is beside that of the outputs, and stays: it tells what is an answer to what.
    bench.run("check --work-dir out.rowmill").expect(0);
    bench.run(&format!("run far/y.csv x.jsonl {options}")).expect(73).says("--resume");
    let again = format!("run -i far/y.csv -i x.jsonl {options} --resume");
    bench.run(&again).expect(0);
    assert_eq!(server.count(), 4);
    // Without it nothing is guessed.
    fs::remove_dir_all(bench.path("out.rowmill")).unwrap();
    bench.run(&again).expect(73).says("y.jsonl exists, and there is no work directory");
    bench.run(&again.replace(" --resume", "")).expect(73).says("begin anew");
    bench.run(&format!("run x.jsonl far/y.csv {options} --overwrite")).expect(0);
    assert_eq!(server.count(), 8);
}

#[test]
fn a_directory_has_a_directory_of_outputs_also_with_one_file_or_none() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    fs::create_dir(bench.path("in")).unwrap();
    bench.run(ASK).expect(66).says("no .jsonl file directly in in");
    assert!(!bench.exists("out") && !bench.exists("job"));
    bench.write("in/a.jsonl", input("a", 3));
    bench.run(ASK).expect(0);
    assert_output(&bench, "out/a.jsonl", &["a 1", "a 2", "a 3"]);
    // A second one does not change the first.
    bench.write("in/0.jsonl", input("0", 1));
    bench.run(&format!("{ASK} --resume --on-change update")).expect(0).says("3 rows keep");
    assert_eq!(server.count(), 4);
    // One file has its output where the command says, and its rows are told apart otherwise.
    let one = ASK.replace("run in -o out", "run in/a.jsonl -o a.out --resume --on-change update");
    let ended = bench.run(&one).expect(78);
    let ended = ended.says("it was several files or a directory, and is one file now");
    assert!(
        !ended.stderr.contains("--on-change"),
        "what is refused is no advice: {}",
        ended.stderr
    );
    let ended = ended.says("name another output").says("or begin anew: rowmill run");
    let advice = ended.stderr.split("begin anew: rowmill ").nth(1).unwrap().trim().to_owned();
    assert_eq!(server.count(), 4);
    bench.run(&advice).expect(0);
    assert_output(&bench, "a.out", &["a 1", "a 2", "a 3"]);
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_made() {
    let (server, bench) = three();
    bench.write("other/a.csv", "id,text\nr1,x\n");
    bench.write("two/x.csv", "id,text\nr1,x\n");
    std::os::unix::fs::symlink("a.jsonl", bench.path("in/link.txt")).unwrap();
    std::os::unix::fs::symlink(bench.path("in/b.jsonl"), bench.path("other/again.jsonl")).unwrap();
    let before = bench.snapshot();
    for (words, told) in [
        ("in/a.jsonl other/a.csv -o out", "both are called a.jsonl"),
        ("in/b.jsonl in/a.jsonl in/b.jsonl -o out", "in/b.jsonl is named twice"),
        ("in other/again.jsonl -o out", "again.jsonl is named twice, or under two names"),
        ("in/a.jsonl - -o out", "- cannot be one of several inputs"),
        (
            "in/a.jsonl http://127.0.0.1:9/x.jsonl?key=secret -o out",
            "x.jsonl cannot be one of several",
        ),
        ("in/a.jsonl in/b.jsonl -o -", "--output is a directory"),
        ("in -o http://127.0.0.1:9/out", "--output is a directory"),
        ("in -o out --telemetry-output -", "--telemetry-output is a directory"),
        ("in -o in", "--output must not be the input in/a.jsonl"),
        ("in -o out --error-output in", "--error-output must not be the input in/a.jsonl"),
        ("in -o out --error-output out", "--error-output must not be the file of --output"),
        ("in -o job", "--output must not be in the work directory"),
        (
            "in -o out --summary-output out/a.jsonl",
            "--summary-output must not be the file of --output",
        ),
        ("in -o out --log-file in/log.jsonl", "--log-file must not be in/log.jsonl: all .jsonl"),
        ("in -o out --summary-output ./in/s.JSONL", "so it would be one the next time"),
        ("two/x.csv in -o two --telemetry-output in", "--telemetry-output must not be"),
        ("in -o so --error-output se --summary-output se", "in which --error-output is to stand"),
        ("in -o so --summary-output so", "--summary-output must not be"),
        ("in -o so --error-output so/a.jsonl", "--output must not be"),
        ("in -o so/a.jsonl/deep --error-output so", "--error-output must not be"),
        (
            "in -o so --summary-output up --work-dir up/job",
            "in which the work directory is to stand",
        ),
    ] {
        let place = if words.contains("--work-dir") { "" } else { "--work-dir job" };
        let ended = bench.run(&format!("run {words} -p {{{{text}}}} -m m {place}"));
        let ended = ended.expect(2).says(told);
        assert!(!ended.stderr.contains("secret"));
    }
    bench.run("run in nowhere.jsonl -o out -p {{text}} -m m").expect(66).says("nowhere.jsonl");
    bench.run("run in -o in/a.jsonl -p {{text}} -m m").expect(73).says("is not a directory");
    assert_same(&bench.snapshot(), &before);
    for name in ["out", "job", "so", "se", "up"] {
        assert!(!bench.exists(name), "{name}");
    }
    assert_eq!(server.count(), 0);
    // What is no input the next time is fine beside inputs, or deeper in their directory.
    let beside =
        "-o in/out --log-file in/log.txt --summary-output in/.s.jsonl --work-dir other/job";
    bench.run(&format!("run in {beside} -p {{{{text}}}} -m m")).expect(0);
    bench.run(&format!("run in {beside} -p {{{{text}}}} -m m --resume")).expect(0);
    // Beside an input, where it is not one.
    bench.run("run two/x.csv in/b.jsonl -o two -p {{text}} -m m").expect(0);
    assert_output(&bench, "two/x.jsonl", &["x"]);
}

#[test]
fn what_cannot_be_read_in_a_directory_is_told() {
    let (server, bench) = three();
    std::os::unix::fs::symlink("nowhere.jsonl", bench.path("in/aa.jsonl")).unwrap();
    bench.run(ASK).expect(66).says("in/aa.jsonl");
    fs::remove_file(bench.path("in/aa.jsonl")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, bench.path("in/p.jsonl"), fifo, mode, 0).unwrap();
    bench.run(ASK).expect(2).says("in/p.jsonl cannot be one of several inputs");
    fs::remove_file(bench.path("in/p.jsonl")).unwrap();
    // Directories are none, whatever they are called.
    fs::create_dir(bench.path("in/d.jsonl")).unwrap();
    bench.run(&format!("{ASK} --dry-run")).expect(0);
    assert!(!bench.exists("out") && !bench.exists("job"));
    assert_eq!(server.count(), 0);
}

#[test]
fn ids_are_unique_within_a_file() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in/a.jsonl", input("a", 3));
    bench.write("in/b.jsonl", input("b", 2) + "{\"id\":\"r1\",\"text\":\"once more\"}\n");
    bench.write("in/c.jsonl", input("c", 1) + "{\"id\":\"r1\",\"text\":\"c again\"}\n");
    let ended = bench.run(ASK).expect(65).says("2 rows have the id of an earlier row");
    ended.says("rows 1 and 3 of in/b.jsonl have \"r1\"").says("rows 1 and 2 of in/c.jsonl");
    assert!(!bench.exists("out") && !bench.exists("job"));
    fs::create_dir(bench.path("mine")).unwrap();
    bench.run(&ASK.replace("-o out", "-o mine")).expect(65);
    assert!(bench.exists("mine"), "what was there stays, also empty");
    let ended = bench.run(&format!("{ASK} --on-duplicate suffix")).expect(0);
    ended.says("and are given ids of their own; the first is row 3 of in/b.jsonl");
    assert_eq!(bench.lines("out/b.jsonl")[2]["id"], "r1-2");
    assert_eq!(bench.lines("out/c.jsonl")[1]["id"], "r1-2");
    // They keep their names, and their answers, when a file comes before them.
    bench.write("in/0.jsonl", input("0", 2));
    let update = format!("{ASK} --on-duplicate suffix --resume --on-change update");
    bench.run(&update).expect(0).says("8 rows keep their answers, 0 changed, 2 are new");
    assert_eq!(bench.lines("out/c.jsonl")[1]["id"], "r1-2");
    assert_eq!(server.count(), 10);
    let first = ASK.replace("-o out", "-o first").replace("job", "other");
    let ended = bench.run(&format!("{first} --on-duplicate first")).expect(0);
    ended.says(
        "2 rows have the id of an earlier row and are left out; the first is row 3 of in/b.jsonl",
    );
    assert_eq!(bench.lines("first/b.jsonl").len(), 2);
    assert_eq!(bench.lines("first/c.jsonl").len(), 1);
}

#[test]
fn messages_say_the_row_and_its_file() {
    let (_server, bench) = three();
    bench.write("in/b.jsonl", input("b", 2) + "no JSON\n{\"id\":\"r9\"}\n");
    let ended = bench.run(ASK).expect(3);
    let ended =
        ended.says("1 of 13 rows cannot be asked about").says("the first is row 3 of in/b.jsonl");
    ended.says("is missing in 1 of 12 rows, first in row 4 of in/b.jsonl");
    let lines = bench.lines("out/b.jsonl");
    assert_eq!((&lines[2]["id"], &lines[2]["row_number"]), (&Value::Null, &json!(3)));
    let ended = bench.run(&format!("{ASK} --resume")).expect(3);
    let inputs = &ended.summary()["inputs"];
    assert_eq!((&inputs[1]["ok"], &inputs[1]["failed"]), (&json!(2), &json!(2)));
    bench.write("in/b.jsonl", input("b", 4));
    bench
        .run(&format!("{ASK} --resume"))
        .expect(78)
        .says("the first file that differs is in/b.jsonl");
    let shown = bench.run("run in/c.jsonl in/a.jsonl -o x -p {{text}} -m m --dry-run").expect(0);
    assert!(shown.stdout.contains("in/c.jsonl") && shown.stderr.contains("9 rows in the input"));
    bench.run("estimate in -p {{text}} -m m").expect(0);
}

#[test]
fn killed_it_goes_on_where_it_was() {
    const CONCURRENCY: usize = 4;
    let server = Server::start(|call| match call.prompt.as_str() {
        // Of the second file, whose rows come when the first is done.
        "b 3" | "b 4" if call.nth == 1 => Reply::Hold(answer_to(&call.prompt)),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    for (name, rows) in [("a", 20), ("b", 4), ("c", 20)] {
        bench.write(&format!("in/{name}.jsonl"), input(name, rows));
    }
    let ask = format!("{ASK} -c {CONCURRENCY} --parallel 1");
    let running = bench.start(&ask);
    server.wait("held calls", |calls| {
        calls.iter().filter(|it| it.prompt.starts_with('b')).count() == 4
    });
    running.kill();
    server.release();
    assert!(!bench.exists("out/a.jsonl"), "all is published at once");
    let ended = bench.run(&format!("{ask} --resume")).expect(0);
    assert!(server.count() <= 44 + CONCURRENCY, "{} calls", server.count());
    assert!(ended.summary()["rows"]["resumed"].as_u64().unwrap() >= 20);
    assert_output(&bench, "out/b.jsonl", &["b 1", "b 2", "b 3", "b 4"]);
    for name in ["a", "c"] {
        let texts: Vec<_> = (1..=20).map(|n| format!("{name} {n}")).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        assert_output(&bench, &format!("out/{name}.jsonl"), &texts);
    }
    bench.run("check --work-dir job").expect(0);
}

#[test]
fn a_publication_that_was_cut_off_is_finished_for_all() {
    let (server, bench) = three();
    bench.run(&format!("{ASK} --summary-output summary.json")).expect(0);
    let whole = bench.snapshot();
    // As a kill between two renames leaves it.
    let record = "job/commit-000001.json";
    let mut commit = bench.json(record);
    commit["done"] = false.into();
    for file in commit["files"].as_array().unwrap().iter().skip(1) {
        let target = std::path::PathBuf::from(file["target"].as_str().unwrap());
        let staged = target.with_file_name(file["staged"].as_str().unwrap());
        fs::rename(&target, staged).unwrap();
    }
    bench.write(record, serde_json::to_string_pretty(&commit).unwrap() + "\n");
    bench.run(&format!("{ASK} --summary-output summary.json --resume")).expect(0);
    let job = bench.path("job");
    let outputs = |all: support::Snapshot| -> support::Snapshot {
        all.into_iter().filter(|(path, _)| !path.starts_with(&job)).collect()
    };
    assert_same(&outputs(bench.snapshot()), &outputs(whole));
    assert_eq!(server.count(), 13);
}

#[test]
fn an_update_asks_only_what_is_new() {
    for identity in ["--id-field id", "--id-from hash", ""] {
        let server = Server::echo();
        let bench = Bench::with_server(&server);
        for (name, rows) in [("b", 5), ("d", 4), ("gone", 3)] {
            bench.write(&format!("in/{name}.jsonl"), input(name, rows));
        }
        let ask = ASK.replace("--id-field id", identity);
        bench.run(&ask).expect(0);
        assert_eq!(server.count(), 12);
        // One comes before all, one grows in the middle, one has another row, one goes.
        bench.write("in/a.jsonl", input("a", 2));
        bench.write("in/b.jsonl", input("b", 6));
        bench.write("in/d.jsonl", input("d", 4).replace("d 2", "another"));
        fs::remove_file(bench.path("in/gone.jsonl")).unwrap();
        let refused = bench.run(&format!("{ask} --resume")).expect(78);
        refused.says("input: a.jsonl is new, gone.jsonl is gone").says("--on-change update");
        assert_eq!(server.count(), 12);
        let update = format!("{ask} --resume --on-change update");
        bench.run(&update).expect(0).says("8 rows keep their answers");
        assert_eq!(server.count(), 16, "{identity}");
        assert_output(&bench, "out/a.jsonl", &["a 1", "a 2"]);
        assert_output(&bench, "out/b.jsonl", &["b 1", "b 2", "b 3", "b 4", "b 5", "b 6"]);
        assert_output(&bench, "out/d.jsonl", &["d 1", "another", "d 3", "d 4"]);
        assert!(bench.exists("out/gone.jsonl"), "what was published is not deleted");
        bench.run("check --work-dir job").expect(0);
        let before = bench.snapshot();
        bench.run(&update).expect(0);
        assert_same(&bench.snapshot(), &before);
        if identity == "--id-field id" {
            bench.write("in/d.jsonl", input("d", 5));
            bench.run(&format!("{ask} --resume --on-change new-only")).expect(0);
            assert_eq!(server.count(), 17, "the row that changed again keeps its answer");
        }
    }
}

#[test]
fn the_stages_are_commands_of_their_own_and_files_may_move() {
    let (server, bench) = three();
    let plan =
        "plan in --work-dir job --id-field id -p {{text}} -m m --shard-rows 3 --offset 5 --limit 7";
    bench.run(plan).expect(0).says("planned: 7 of 13 rows");
    fs::rename(bench.path("in"), bench.path("moved")).unwrap();
    bench.run("work --work-dir job").expect(66);
    bench.run("work --work-dir job --input moved/a.jsonl").expect(2).says("must be the directory");
    bench.run("work --work-dir job --input moved").expect(0);
    bench.run("merge --work-dir job -o out.jsonl/").expect(0);
    assert_eq!(server.count(), 7);
    let count = |name: &str| bench.lines(&format!("out.jsonl/{name}.jsonl")).len();
    assert_eq!((count("a"), count("b"), count("c")), (2, 4, 1));
    assert_eq!(bench.lines("out.jsonl/a.jsonl")[0]["row_number"], 6);
}

#[test]
fn rows_of_all_files_are_tried_again_and_asked_once() {
    let server = Server::start(|call| match call.prompt.as_str() {
        text if text.ends_with(" 2") && call.nth == 1 => Reply::status(400),
        text => Reply::Answer(answer_to(text)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in/a.jsonl", input("same", 3));
    bench.write("in/b.jsonl", input("same", 2).replace("same 2", "b 2"));
    bench.write("ids", "r2\n");
    let ask = format!("{ASK} --dedupe");
    bench.run(&ask).expect(3);
    assert_eq!(server.count(), 4, "the first row of both asks the same");
    assert_eq!(bench.lines("out/b.jsonl")[0]["row_number"], 1);
    bench.run(&format!("{ask} --resume --retry-ids ids")).expect(0);
    assert_eq!(server.count(), 6);
    assert_output(&bench, "out/a.jsonl", &["same 1", "same 2", "same 3"]);
    assert_output(&bench, "out/b.jsonl", &["same 1", "b 2"]);
    // Without ids rows that take another's outcome have the number of their own file.
    let ask = ask.replace("--id-field id", "").replace("out", "numbers").replace("job", "other");
    bench.run(&ask).expect(0);
    let lines = bench.lines("numbers/b.jsonl");
    assert_eq!((&lines[0]["id"], &lines[0]["row_number"]), (&json!(1), &json!(1)));
}

#[test]
fn variants_and_attachments_are_of_their_file() {
    let (server, bench) = three();
    bench.run(&format!("{ASK} --repeat 2")).expect(0);
    assert_eq!(server.count(), 26);
    let lines = bench.lines("out/b.jsonl");
    let found: Vec<_> = lines.iter().map(|it| (it["row_number"].as_u64(), &it["repeat"])).collect();
    let expected: Vec<_> =
        (1..=4).flat_map(|n| [(Some(n), json!(1)), (Some(n), json!(2))]).collect();
    assert_eq!(found, expected.iter().map(|(n, repeat)| (*n, repeat)).collect::<Vec<_>>());

    let pdf = "%PDF-1.1\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n";
    for dir in ["x", "y"] {
        let row = json!({"text": dir, "file": format!("of-{dir}.pdf")});
        bench.write(&format!("{dir}/{dir}.jsonl"), format!("{row}\n"));
        bench.write(&format!("{dir}/of-{dir}.pdf"), pdf);
    }
    let options = "-o both -p {{text}} --attachment-field file -m m";
    bench.run(&format!("run x/x.jsonl y/y.jsonl {options}")).expect(0);
    assert_output(&bench, "both/x.jsonl", &["x"]);
    assert_output(&bench, "both/y.jsonl", &["y"]);
}

#[test]
fn a_log_is_none_of_the_files() {
    let (server, bench) = three();
    fs::create_dir(bench.path("out")).unwrap();
    let log = |file: &str| bench.run(&format!("{ASK} --log-file {file}"));
    log("out/a.jsonl").expect(2).says("--log-file must not be an output");
    log("in/b.jsonl").expect(2).says("--log-file must not be the input");
    log("out/log").expect(0);
    assert_eq!(server.count(), 13);
    let merge = "merge --work-dir job -o other --log-file";
    bench.run(&format!("{merge} in/c.jsonl")).expect(2).says("--log-file must not be the input");
    bench.run(&format!("{merge} log")).expect(0);
    assert_eq!(bench.read("other/a.jsonl"), bench.read("out/a.jsonl"));
}

#[test]
fn a_file_that_changes_costs_no_call_for_another() {
    let gates: [Arc<AtomicBool>; 2] = Default::default();
    let [slow, slower] = gates.clone();
    let wait = |gate: &AtomicBool| {
        while !gate.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    };
    let server = Server::start(move |call| {
        match call.prompt.as_str() {
            "a 1" => wait(&slower),
            "b 1" => wait(&slow),
            _ => {}
        }
        Reply::Answer(answer_to(&call.prompt))
    });
    let bench = Bench::with_server(&server);
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for name in names {
        bench.write(&format!("in/{name}.jsonl"), input(name, 1));
    }
    let ask = format!("{ASK} --parallel 1 -c 2 --fixed-concurrency");
    let mut running = bench.start(&ask);
    server.wait_for_calls(2);
    bench.write("in/h.jsonl", input("other", 1));
    gates[0].store(true, Ordering::Release);
    running.wait_until_it_says("h.jsonl has changed since it was planned");
    gates[1].store(true, Ordering::Release);
    running.wait().expect(65).says("--resume --on-change update");
    bench.run(&format!("{ask} --resume --on-change update")).expect(0);
    assert_eq!(server.count(), names.len(), "{:?}", server.counts());
    assert_output(&bench, "out/a.jsonl", &["a 1"]);
    assert_output(&bench, "out/h.jsonl", &["other 1"]);
}

#[test]
fn status_lists_a_few_of_many_outputs_and_no_file_name_breaks_its_lines() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    for number in 0..40 {
        bench.write(&format!("in/{number:02}.jsonl"), input("x", 1));
    }
    bench.write("in/00\nfalse.jsonl", input("x", 1));
    bench.run(ASK).expect(0);
    let shown = bench.run("status --work-dir job").expect(0).stdout;
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines.len() < 30 && !lines.iter().any(|it| it.starts_with("false")), "{shown}");
    assert!(
        shown.contains("more (--json lists them)") && shown.contains("00\\u{a}false"),
        "{shown}"
    );
    let all: Value = bench.run("status --work-dir job --json").expect(0).summary();
    assert!(all["published"]["outputs"].as_array().unwrap().len() >= 41);
}

#[test]
fn it_is_said_that_outputs_of_files_that_are_gone_stay() {
    let (_server, bench) = three();
    bench.run(ASK).expect(0);
    for name in ["a", "b"] {
        fs::remove_file(bench.path(&format!("in/{name}.jsonl"))).unwrap();
    }
    let ended = bench.run(&format!("{ASK} --resume --on-change update")).expect(0);
    ended.says("11 of 13 rows are gone").says("outputs of the 2 files that are gone stay where");
    assert!(bench.exists("out/a.jsonl") && bench.exists("out/b.jsonl"));
}
