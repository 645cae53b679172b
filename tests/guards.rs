//! What others wrote stays, what was paid for is not paid for twice, whatever is done to the files
//! around a run.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, rows, words};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m";

fn bench(server: &Server, count: usize) -> Bench {
    let bench = Bench::with_server(server);
    bench.write("in.jsonl", rows(count));
    bench
}

#[test]
fn a_work_dir_whose_plan_was_taken_away_keeps_its_answers() {
    let server = Server::echo();
    let bench = bench(&server, 10);
    bench.run(&format!("{ASK} --work-dir job")).expect(0);
    fs::remove_file(bench.path("job/manifest.json")).unwrap();
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    for option in ["", "--resume"] {
        let ended = bench.run(&format!("{ASK} --work-dir job {option}")).expect(70);
        assert!(ended.stderr.contains("manifest.json is gone"), "{}", ended.stderr);
        assert!(bench.exists("job/shards/00000/journal"));
    }
    let plan = ASK.replace("run in.jsonl -o out.jsonl", "plan in.jsonl");
    bench.run(&format!("{plan} --work-dir job")).expect(70);
    assert!(bench.exists("job/shards/00000/journal"));
    assert_eq!(server.count(), 10);
    bench.run(&format!("{ASK} --work-dir job --overwrite")).expect(0);
    assert_eq!(server.count(), 20);
}

#[test]
fn a_stream_gets_each_row_once_though_a_journal_is_damaged() {
    let server = Server::echo();
    let bench = bench(&server, 50);
    bench.run(&format!("{ASK} --work-dir job --shard-rows 10")).expect(0);
    let journal = bench.path("job/shards/00003/journal");
    let mut bytes = fs::read(&journal).unwrap();
    bytes[100] ^= 1;
    fs::write(&journal, bytes).unwrap();
    let ask = ASK.replace("-o out.jsonl", "-o -");
    let ended = bench.run(&format!("{ask} --work-dir job --resume --shard-rows 10")).expect(0);
    assert_eq!(ended.stdout.lines().count(), 50);
    assert_eq!(ended.stdout, bench.read("out.jsonl"));
}

#[test]
fn a_file_that_appears_while_rows_are_worked_is_not_replaced() {
    let server = Server::start(|call| Reply::Hold(answer_to(&call.prompt)));
    let bench = bench(&server, 5);
    let running = bench.start(ASK);
    server.wait_for_active(5);
    bench.write("out.jsonl", "somebody else's");
    server.release();
    running.wait().expect(73).says("not what this work directory published");
    assert_eq!(bench.read("out.jsonl"), "somebody else's");
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    bench.run(&format!("{ASK} --resume")).expect(0);
    assert_eq!((bench.lines("out.jsonl").len(), server.count()), (5, 5));
}

#[test]
fn answers_that_were_being_taken_over_are_taken_over_the_next_time() {
    let server = Server::echo();
    let bench = bench(&server, 20);
    bench.run(ASK).expect(0);
    bench.write("in.jsonl", rows(21));
    // As after a kill between the plan and the last answer taken over.
    let plan = ASK.replace("run in.jsonl -o out.jsonl", "plan in.jsonl");
    bench.run(&format!("{plan} --work-dir out.jsonl.rowmill")).expect(0);
    let named = |file: &str, name: &str| {
        let text = bench.read(&format!("out.jsonl.rowmill/{file}"));
        let at = text.find(&format!("\"{name}\": \"")).unwrap() + name.len() + 5;
        text[at..at + 32].to_owned()
    };
    let note = format!("{} {}\n", named("rowmill.json", "run"), named("manifest.json", "plan"));
    bench.write("out.jsonl.rowmill/adopting", note);
    bench.run(&format!("{ASK} --resume")).expect(0).says("took over 20 answers");
    assert_eq!(server.count(), 21);
}

#[test]
fn files_with_names_like_ours_are_not_ours() {
    let server = Server::echo();
    let bench = bench(&server, 5);
    bench.write("notes/lock", "precious");
    bench.run(&format!("{ASK} --work-dir notes")).expect(73);
    assert_eq!(bench.read("notes/lock"), "precious");
    bench.run(&format!("{ASK} --work-dir job")).expect(0);
    for name in ["job/commit-notes.txt", "job/ids.part-list.csv", "job/shards/00000/mine"] {
        bench.write(name, "precious");
        bench.run(&format!("{ASK} --work-dir job --overwrite")).expect(0).says("did not write");
        assert_eq!(bench.read(name), "precious");
        fs::remove_file(bench.path(name)).unwrap();
    }
    bench.run(&format!("{ASK} --work-dir job --overwrite")).expect(0);
}

#[test]
fn a_stray_file_in_a_default_work_dir_does_not_fail_a_run_that_is_published() {
    let server = Server::start(|call| Reply::Hold(answer_to(&call.prompt)));
    let bench = bench(&server, 5);
    let running = bench.start(ASK);
    server.wait_for_active(5);
    bench.write("out.jsonl.rowmill/.DS_Store", "stray");
    server.release();
    running.wait().expect(0).says("did not write it: .DS_Store");
    assert_eq!(bench.lines("out.jsonl").len(), 5);
}

#[test]
fn side_outputs_are_made_of_answers_taken_over() {
    let server = Server::echo();
    let bench = bench(&server, 5);
    bench.run(ASK).expect(0);
    bench.run(&format!("{ASK} --resume --summary-output s.json --error-output e.jsonl")).expect(0);
    assert_eq!(bench.json("s.json")["rows"]["adopted"], 5);
    assert_eq!(bench.read("e.jsonl"), "");
    assert_eq!(server.count(), 5);
}

#[test]
fn a_copy_of_an_output_without_ids_is_not_taken_for_answers_to_this_input() {
    let server = Server::echo();
    let bench = bench(&server, 5);
    let ask = "run in.jsonl -o out.jsonl -p {{text}} -m m";
    bench.run(ask).expect(0);
    let bytes = fs::read(bench.path("out.jsonl")).unwrap();
    if !bench.keeps_notes_on("out.jsonl") {
        return;
    }
    fs::write(bench.path("copy.jsonl"), bytes).unwrap();
    bench.run(&ask.replace("out.jsonl", "copy.jsonl --resume")).expect(78).says("--id-field");
}

#[test]
fn readers_that_go_away_do_not_change_the_exit_code() {
    let server = Server::echo();
    let bench = bench(&server, 5);
    let mut child =
        bench.command(words(ASK)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0), "the summary had no reader");

    let server = Server::start(|_| Reply::status(400));
    let bench = self::bench(&server, 5);
    let mut child =
        bench.command(words(ASK)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let mut summary = String::new();
    child.stdout.take().unwrap().read_to_string(&mut summary).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{summary}");
}

#[test]
fn too_few_open_files_are_told_and_are_not_taken_for_an_outage() {
    let server = Server::echo();
    let bench = bench(&server, 50);
    let limited = |files: u64| {
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &format!("ulimit -n {files}; exec \"$@\""), "-"]);
        let plain = bench.command(words(&format!("{ASK} --resume --parallel 4 -c 64")));
        command.arg(plain.get_program()).args(plain.get_args()).current_dir(bench.root());
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = limited(30);
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("30 open files are allowed") && said.contains("ulimit -n"), "{said}");
    assert_eq!(server.count(), 0);
    let (code, said) = limited(70);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("requests can be in flight"), "{said}");
    assert_eq!(server.count(), 50);
}
