//! Going on: after kills, drains, moves and second thoughts, with no row lost and none paid twice.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, Snapshot, assert_same, assert_text, rows};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m";

/// The output of a run over these rows that nothing disturbed.
fn undisturbed(input: &str) -> String {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", input);
    bench.run(ASK).expect(0);
    bench.read("out.jsonl")
}

#[test]
fn killed_any_number_of_times_a_run_comes_to_the_same_output() {
    const ROWS: usize = 400;
    const CONCURRENCY: usize = 8;
    let input = rows(ROWS);
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", &input);
    let ask = format!("{ASK} -c {CONCURRENCY} --parallel 2 --shard-rows 40 --resume");
    let mut kills = 0;
    for calls in (20..ROWS).step_by(37) {
        let running = bench.start(&ask);
        server.wait_for_calls(calls);
        running.kill();
        kills += 1;
    }
    let ended = bench.run(&ask).expect(0);
    assert_text(&bench.read("out.jsonl"), &undisturbed(&input));
    let repeated = server.count() - ROWS;
    assert!(repeated <= kills * CONCURRENCY, "{repeated} calls repeated in {kills} kills");
    let told = ended.summary()["calls"]["repeated_after_crash"].as_u64().unwrap() as usize;
    assert!(told >= repeated, "{repeated} were repeated, {told} are told");
    assert!(told <= kills * CONCURRENCY, "{told} are told");
    assert!(server.counts().values().all(|count| *count >= 1));
}

#[test]
fn a_kill_while_calls_are_held_repeats_just_those() {
    let server =
        Server::start(|call| match call.prompt.strip_prefix("text ").unwrap().parse::<u32>() {
            Ok(n) if n > 20 && call.nth == 1 => Reply::Hold(answer_to(&call.prompt)),
            _ => Reply::Answer(answer_to(&call.prompt)),
        });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(40));
    let running = bench.start(&format!("{ASK} -c 5"));
    server.wait_for_calls(25);
    running.kill();
    server.release();
    let ended = bench.run(&format!("{ASK} -c 5 --resume")).expect(0);
    assert_eq!(server.count(), 40 + 5);
    let summary = ended.summary();
    assert_eq!(
        summary["calls"],
        json!({
            "made": 45, "in_this_generation": 45, "in_this_session": 20, "repeated_after_crash": 5,
            "saved": 0,
        })
    );
    assert_eq!(summary["rows"]["resumed"], 20);
    assert_text(&bench.read("out.jsonl"), &undisturbed(&rows(40)));
}

#[test]
fn the_first_signal_drains_and_nothing_is_repeated() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let server = Server::start(|call| Reply::Hold(answer_to(&call.prompt)));
        let bench = Bench::with_server(&server);
        bench.write("in.jsonl", rows(50));
        let mut running = bench.start(&format!("{ASK} -c 6"));
        server.wait_for_active(6);
        running.signal(signal);
        running.wait_until_it_says("ending");
        // What is in flight may end; nothing else is started.
        server.release();
        let ended = running.wait().expect(code).says("--resume");
        assert_eq!(server.count(), 6, "{}", ended.stderr);
        assert!(!bench.exists("out.jsonl"));
        let ended = bench.run(&format!("{ASK} --resume")).expect(0);
        assert_eq!(server.count(), 50, "no call is made twice");
        assert_eq!(ended.summary()["calls"]["repeated_after_crash"], 0);
        assert_eq!(ended.summary()["rows"]["resumed"], 6);
    }
}

#[test]
fn the_second_signal_stops_at_once_and_keeps_what_is_finished() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 4" | "text 5" | "text 6" | "text 7" if call.nth == 1 => {
            Reply::Hold("never seen".to_owned())
        }
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(30));
    let mut running = bench.start(&format!("{ASK} -c 4"));
    server.wait_for_calls(7);
    running.signal("-TERM");
    running.wait_until_it_says("ending");
    running.signal("-INT");
    running.wait().expect(143).says("27 rows are left");
    let ended = bench.run(&format!("{ASK} -c 4 --resume")).expect(0);
    assert_eq!(server.count(), 30 + 4);
    assert_eq!(ended.summary()["calls"]["repeated_after_crash"], 4);
    assert_text(&bench.read("out.jsonl"), &undisturbed(&rows(30)));
}

#[test]
fn calls_that_do_not_end_in_time_are_dropped_when_draining() {
    let server = Server::start(|_| Reply::Hold(String::new()));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(5));
    let running = bench.start(&format!("{ASK} --drain-timeout 0.1"));
    server.wait_for_active(5);
    running.signal("-TERM");
    running.wait().expect(143).says("5 rows are left");
}

#[test]
fn nothing_left_to_do_makes_no_call_and_changes_no_byte() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(25));
    let ask =
        format!("{ASK} --work-dir job --telemetry-output t.jsonl --summary-output s.json --resume");
    let first = bench.run(&ask).expect(0).says("nothing to resume");
    let (before, times) = (bench.snapshot(), modified(&bench));
    let again = bench.run(&ask).expect(0);
    assert_same_files(&bench, &before, &times);
    assert_eq!(server.count(), 25);
    assert_eq!(first.summary(), again.summary());
    // Without the work dir: answers are taken from the output, and again nothing changes.
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(25));
    bench.run(ASK).expect(0);
    let (before, times) = (bench.snapshot(), modified(&bench));
    bench.run(&format!("{ASK} --resume")).expect(0).says("took over 25 answers");
    assert_same_files(&bench, &before, &times);
    assert_eq!(server.count(), 50);
    // A work dir that a kill kept from being removed goes the next time.
    bench.run(&format!("{ASK} --overwrite --keep-work-dir")).expect(0);
    assert!(bench.exists("out.jsonl.rowmill"));
    bench.run(&format!("{ASK} --resume")).expect(0);
    assert_same_files(&bench, &before, &modified(&bench));
    assert_eq!(server.count(), 75);
}

type Times = HashMap<std::path::PathBuf, (i64, i64)>;

fn assert_same_files(bench: &Bench, before: &Snapshot, times: &Times) {
    assert_same(&bench.snapshot(), before);
    assert_eq!(&modified(bench), times);
}

fn modified(bench: &Bench) -> Times {
    let time = |path: &std::path::PathBuf| {
        let meta = fs::metadata(path).unwrap();
        (path.clone(), (meta.mtime(), meta.mtime_nsec()))
    };
    bench.snapshot().keys().map(time).collect()
}

#[test]
fn failed_rows_are_tried_again_and_their_lines_replaced() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 3" | "text 7" if call.nth <= 2 => Reply::status(422),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(10));
    let ask = format!("{ASK} --error-output e.jsonl --telemetry-output t.jsonl");
    bench.run(&ask).expect(3).says("2 of 10 rows failed").says("--resume");
    assert!(bench.exists("out.jsonl.rowmill"), "kept for another try");
    assert_eq!(bench.lines("e.jsonl").len(), 2);
    bench.run(&format!("{ask} --resume")).expect(3);
    assert_eq!(bench.lines("out.jsonl").len(), 10);
    bench.run(&format!("{ask} --resume")).expect(0);
    assert_eq!(server.count(), 10 + 2 + 2, "rows with an answer are not called again");
    assert_text(&bench.read("out.jsonl"), &undisturbed(&rows(10)));
    assert_eq!(bench.read("e.jsonl"), "");
    assert_eq!(bench.lines("t.jsonl").len(), 14, "every attempt is told");
    assert!(!bench.exists("out.jsonl.rowmill"));
}

#[test]
fn what_may_fail_can_be_allowed() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 3" => Reply::status(400),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(10));
    bench.run(&format!("{ASK} --allow-failed 1")).expect(0);
    bench.run(&format!("{ASK} --resume --allow-failed 9%")).expect(3);
    bench.run(&format!("{ASK} --resume --allow-failed 10%")).expect(0);
    bench.run(&format!("{ASK} --resume --allow-failed lots")).expect(2);
}

#[test]
fn a_run_stops_at_its_users_limit_and_goes_on_later() {
    let server = Server::start(|call| match call.nth {
        1 => Reply::status(400),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(300));
    bench
        .run(&format!("{ASK} -c 2 --max-errors 3"))
        .expect(4)
        .says("--max-errors")
        .says("--resume");
    assert!(server.count() <= 4, "{} calls", server.count());
    assert!(!bench.exists("out.jsonl"));
    bench.run(&format!("{ASK} --resume")).expect(3);
    bench.run(&format!("{ASK} --resume")).expect(0);
    assert_text(&bench.read("out.jsonl"), &undisturbed(&rows(300)));
}

/// Leaves a run of `rows` unfinished in `out.jsonl.rowmill`.
fn unfinished(bench: &Bench, server: &Server, options: &str) {
    let running = bench.start(&format!("{ASK} -c 3 {options}"));
    server.wait_for_calls(13);
    running.kill();
    server.release();
}

fn holding() -> Server {
    Server::start(|call| match call.prompt.as_str() {
        "text 11" | "text 12" | "text 13" if call.nth == 1 => Reply::Hold(answer_to(&call.prompt)),
        _ => Reply::Answer(answer_to(&call.prompt)),
    })
}

#[test]
fn unfinished_work_is_neither_overwritten_nor_resumed_unasked() {
    let server = holding();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(20));
    unfinished(&bench, &server, "");
    let before = bench.snapshot();
    let ended = bench.run(ASK).expect(73).says("holds a run already");
    let hint = "rowmill run in.jsonl -o out.jsonl --id-field id -p '{{text}}' -m m --resume";
    assert!(ended.stderr.contains(hint), "{}", ended.stderr);
    assert_same(&bench.snapshot(), &before);
    assert_eq!(server.count(), 13);
    bench.run(&format!("{ASK} --overwrite")).expect(0);
    assert_eq!(server.count(), 33, "everything is done anew");
}

#[test]
fn another_question_is_refused_with_what_differs() {
    let server = holding();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(20));
    bench.write("system.txt", "Be brief.");
    unfinished(&bench, &server, "--temperature 0.5");
    let sent = server.count();
    let same = format!("{ASK} --temperature 0.5 --resume");
    for (from, to, text) in [
        ("-m m", "-m n", "model: `m` → `n`"),
        ("{{text}}", "Q:{{text}}", "prompt: `{{text}}` → `Q:{{text}}`"),
        ("0.5", "0.7", "parameter temperature: `0.5` → `0.7`"),
        ("--temperature 0.5", "", "parameter temperature: `0.5` → (none)"),
        ("-m m", "-m m --top-p 1", "parameter top_p: (none) → `1`"),
        ("-m m", "-m m --instruction system.txt", "instruction: (none) → `Be brief.`"),
        ("-m m", "-m m --limit 5", "selection: `offset 0, no limit` → `offset 0, limit 5`"),
        ("--id-field id", "", "id-field: `id` → (none)"),
    ] {
        let changed = same.replace(from, to);
        bench.run(&changed).expect(78).says(text).says("--overwrite");
    }
    assert_eq!(server.count(), sent);
    bench.run(&same).expect(0);
}

#[test]
fn another_input_is_refused_with_what_happened_to_its_rows() {
    let server = holding();
    let bench = Bench::with_server(&server);
    let old = rows(20);
    bench.write("in.jsonl", &old);
    unfinished(&bench, &server, "");
    let sent = server.count();
    let lines: Vec<&str> = old.lines().collect();
    let reversed: Vec<&str> = lines.iter().rev().copied().collect();
    for (input, text) in [
        (old.replace("\"text 5\"", "\"text x\""), "1 rows changed, 0 new, 0 gone, 19 as they were"),
        (rows(23), "0 rows changed, 3 new, 0 gone, 20 as they were"),
        (rows(18), "0 rows changed, 0 new, 2 gone, 18 as they were"),
        (
            reversed.join("\n"),
            "0 rows changed, 0 new, 0 gone, 20 as they were (20 of them at another place)",
        ),
    ] {
        bench.write("in.jsonl", input);
        bench.run(&format!("{ASK} --resume")).expect(78).says(text);
    }
    // Without its index of ids it is refused all the same, with less to say.
    let ids = bench.path("out.jsonl.rowmill/ids");
    let bytes = fs::read(&ids).unwrap();
    fs::write(&ids, &bytes[..bytes.len() - 7]).unwrap();
    bench.run(&format!("{ASK} --resume")).expect(78).says("input: changed");
    fs::write(&ids, bytes).unwrap();
    assert_eq!(server.count(), sent);
    bench.write("in.jsonl", &old);
    bench.run(&format!("{ASK} --resume")).expect(0);
}

#[test]
fn without_ids_a_changed_input_is_refused_all_the_same() {
    let server = holding();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(20));
    let ask = "run in.jsonl -o out.jsonl -p {{text}} -m m -c 3";
    let running = bench.start(ask);
    server.wait_for_calls(13);
    running.kill();
    server.release();
    bench.write("in.jsonl", rows(21));
    bench.run(&format!("{ask} --resume")).expect(78).says("0 rows changed, 1 new, 0 gone, 20 as");
    bench.write("in.jsonl", rows(20).replace("text 9\"", "text 8\""));
    let ended = bench.run(&format!("{ask} --resume")).expect(78);
    ended.says("1 rows changed, 0 new, 0 gone, 19 as they were");
    // Without the hashes of its rows it is refused all the same, with less to say.
    std::fs::remove_file(bench.path("out.jsonl.rowmill/contents")).unwrap();
    bench.run(&format!("{ask} --resume")).expect(78).says("changed, first somewhere from row 1 on");
}

#[test]
fn an_input_changed_while_it_is_worked_is_noticed_before_its_rows_are_sent() {
    let server = holding();
    let bench = Bench::with_server(&server);
    let input = rows(40);
    let path = bench.write("in.jsonl", &input);
    let running = bench.start(&format!("{ASK} -c 3 --parallel 1 --shard-rows 20"));
    server.wait_for_calls(13);
    fs::write(&path, input.replace("text 39", "text xx")).unwrap();
    server.release();
    running
        .wait()
        .expect(65)
        .says("has changed since it was planned (first in the rows from 21 on)");
    assert!(server.calls().iter().all(|call| !call.prompt.contains("xx")));
    fs::write(&path, &input).unwrap();
    bench.run(&format!("{ASK} --resume")).expect(0);
    assert_text(&bench.read("out.jsonl"), &undisturbed(&input));
}

#[test]
fn a_run_goes_on_from_another_directory_and_after_it_was_moved() {
    let server = holding();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(20));
    unfinished(&bench, &server, "--work-dir job");
    let elsewhere = bench.path("else/where");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::rename(bench.path("job"), elsewhere.join("moved")).unwrap();
    fs::rename(bench.path("in.jsonl"), elsewhere.join("rows.jsonl")).unwrap();
    let line =
        "run rows.jsonl -o ../out.jsonl --id-field id -p {{text}} -m m --work-dir moved --resume";
    let status =
        bench.command(crate::support::words(line)).current_dir(&elsewhere).output().unwrap();
    assert_eq!(status.status.code(), Some(0), "{}", String::from_utf8_lossy(&status.stderr));
    assert_text(&bench.read("else/out.jsonl"), &undisturbed(&rows(20)));
    assert_eq!(server.count(), 20 + 3);
}

#[test]
fn answers_are_taken_over_from_an_output_without_a_work_dir() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(12));
    bench.run(ASK).expect(0);
    let whole = bench.read("out.jsonl");
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    // A torn one glued to the next, one failed, one of another row, the last one torn.
    lines[2] = format!("{}{}", &lines[2][..20], lines[3]);
    lines[3] =
        "{\"id\":\"r4\",\"row_number\":4,\"ok\":false,\"result\":null,\"error\":{}}".to_owned();
    lines[5] =
        "{\"id\":\"gone\",\"row_number\":6,\"ok\":true,\"result\":\"x\",\"error\":null}".to_owned();
    lines[7] = lines[7].replace("answer to <text 8>", "an older answer");
    lines[11].truncate(40);
    lines.swap(0, 9);
    bench.write("out.jsonl", lines.join("\n"));
    let ended = bench
        .run(&format!("{ASK} --resume"))
        .expect(0)
        .says("took over 9 answers")
        .says("1 answers in it are of rows that the input does not have")
        .says("2 lines of")
        .says("first line 3");
    assert_eq!(server.count(), 12 + 3, "rows 3, 6 and 12 are done again");
    let expected = whole.replace("answer to <text 8>", "an older answer");
    assert_text(&bench.read("out.jsonl"), &expected);
    assert_eq!(ended.summary()["rows"]["adopted"], 9);
    // Rows that were appended are all that is called for.
    bench.write("in.jsonl", rows(14));
    bench.run(&format!("{ASK} --resume")).expect(0).says("took over 12 answers");
    assert_eq!(server.count(), 12 + 3 + 2);
    // Of rows that were edited nobody can tell which, once the work directory is gone.
    let edited = rows(14).replace("text 3", "another");
    bench.write("in.jsonl", &edited);
    let before = bench.snapshot();
    for option in ["--resume", "--resume --on-change update"] {
        bench.run(&format!("{ASK} {option}")).expect(78).says("which rows have changed");
        assert_same(&bench.snapshot(), &before);
    }
    // They are kept by id where that is asked for.
    bench.run(&format!("{ASK} --resume --on-change new-only --keep-work-dir")).expect(0);
    assert_eq!(server.count(), 12 + 3 + 2);
    // An answer that may be one to another text is nobody else's.
    let more = format!("{edited}{{\"id\":\"n\",\"text\":\"another\"}}\n");
    bench.write("in.jsonl", more);
    let update =
        format!("{ASK} --resume --on-change new-only --temperature 0 --accept-change params");
    bench.run(&update).expect(0);
    assert_eq!(server.count(), 12 + 3 + 2 + 1);
}

#[test]
fn answers_to_another_question_are_not_taken_over() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(5));
    let no_ids = "run in.jsonl -o out.jsonl -p {{text}} -m m";
    for ask in [ASK, no_ids] {
        bench.run(&format!("{ask} --overwrite")).expect(0);
        assert!(!bench.exists("out.jsonl.rowmill"));
        if !bench.keeps_notes_on("out.jsonl") {
            return;
        }
        let before = bench.read("out.jsonl");
        let others = [
            ask.replace("-m m", "-m other"),
            ask.replace("{{text}}", "!{{text}}"),
            format!("{ask} --temperature 1"),
        ];
        for other in others {
            bench.run(&format!("{other} --resume")).expect(78).says("another question");
        }
        bench.run(&format!("{ask} --resume")).expect(0);
        assert_eq!(bench.read("out.jsonl"), before);
    }
    let calls = server.count();
    // Without ids, rows that moved cannot be told apart.
    let moved = rows(6).split_once('\n').unwrap().1.to_owned();
    bench.write("in.jsonl", moved);
    bench.run(&format!("{no_ids} --resume")).expect(78).says("--id-field");
    assert!(!bench.exists("out.jsonl.rowmill"), "nothing is left behind");
    assert_eq!(server.count(), calls);
}

#[test]
fn an_output_that_is_there_is_never_replaced_unasked() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(5));
    for name in ["out.jsonl", "e.jsonl", "t.jsonl", "s.json"] {
        let ask = format!(
            "{ASK} --error-output e.jsonl --telemetry-output t.jsonl --summary-output s.json"
        );
        bench.write(name, "precious");
        bench.run(&ask).expect(73).says(name).says("--overwrite");
        bench.run(&format!("{ask} --resume")).expect(73).says(name).says("--overwrite");
        assert_eq!(bench.read(name), "precious");
        assert!(!bench.exists("out.jsonl.rowmill"), "nothing is left behind");
        fs::remove_file(bench.path(name)).unwrap();
    }
    assert_eq!(server.count(), 0);
    bench.write("out.jsonl", "old");
    bench.run(&format!("{ASK} --overwrite")).expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 5);
}

#[test]
fn an_output_changed_behind_our_back_is_left_alone() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 3" if call.nth == 1 => Reply::status(400),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(5));
    bench.run(ASK).expect(3);
    bench.write("out.jsonl", "edited by hand\n");
    bench.run(&format!("{ASK} --resume")).expect(73).says("not what this work directory published");
    assert_eq!(bench.read("out.jsonl"), "edited by hand\n");
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    bench.run(&format!("{ASK} --resume")).expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 5);
}

#[test]
fn an_overwriting_run_that_was_killed_may_be_resumed() {
    let server = holding();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(20));
    bench.write("out.jsonl", "old");
    unfinished(&bench, &server, "--overwrite");
    assert_eq!(bench.read("out.jsonl"), "old", "until the new one takes its place");
    bench.run(&format!("{ASK} --resume")).expect(0);
    assert_text(&bench.read("out.jsonl"), &undisturbed(&rows(20)));
}

#[test]
fn two_processes_never_share_a_work_dir_or_an_output() {
    let server = Server::start(|call| Reply::Hold(answer_to(&call.prompt)));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(5));
    let running = bench.start(ASK);
    server.wait_for_active(5);
    let pid = running.pid();
    bench.run(&format!("{ASK} --resume")).expect(75).says(&format!("by process {pid} on"));
    bench.run("work --work-dir out.jsonl.rowmill").expect(75);

    bench
        .run(&format!("{ASK} --work-dir other --resume"))
        .expect(75)
        .says("out.jsonl is in use by process");
    assert!(!bench.exists("other"), "a work dir made for nothing goes again");
    let status = bench.run("status --work-dir out.jsonl.rowmill --json").expect(0).summary();
    assert_eq!(status["holder"]["pid"], pid);
    assert_eq!(status["state"], "open");
    let waiting = bench.start(&format!("{ASK} --resume --lock-wait 1m"));
    server.release();
    running.wait().expect(0);
    waiting.wait().expect(0);
    assert_eq!(server.count(), 5);
}
