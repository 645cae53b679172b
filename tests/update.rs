//! The same job over a file, or with a question, that has changed: what still answers is kept.

use serde_json::json;

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, assert_text, rows};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} --work-dir job \
                   --shard-rows 7 -m m";

fn row(id: &str, text: &str) -> String {
    format!("{{\"id\":\"{id}\",\"text\":\"{text}\"}}\n")
}

#[test]
fn only_rows_that_are_new_or_changed_cost_a_call() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(20));
    bench.run(ASK).expect(0);
    // The first two go, one is changed, two are new, and the rest is turned round.
    let mut input: Vec<String> = rows(20).lines().map(|line| format!("{line}\n")).collect();
    input.drain(..2);
    input[4] = row("r7", "another text");
    input.push(row("x1", "new 1"));
    input.push(row("x2", "new 2"));
    input.reverse();
    bench.write("in.jsonl", input.concat());
    bench
        .run(&format!("{ASK} --resume"))
        .expect(78)
        .says("1 rows changed, 2 new, 2 gone")
        .says("an update would keep 17 answers and ask about 3 rows")
        .says("--on-change update");
    assert_eq!(server.count(), 20, "nothing is asked before somebody says so");
    let ended = bench.run(&format!("{ASK} --resume --on-change update")).expect(0);
    let ended = ended
        .says("17 rows keep their answers, 1 changed, 2 are new, 0 had no answer yet, 2 are gone");
    assert_eq!(server.count(), 23);
    let summary = ended.summary();
    assert_eq!(summary["generation"], 2);
    assert_eq!(
        summary["carried"],
        json!({"kept": 17, "changed": 1, "unanswered": 0, "new": 2, "gone": 2, "calls": 17, "repeated": 0})
    );
    assert_eq!(summary["calls"]["in_this_session"], 3);
    let expected: String = input
        .iter()
        .zip(1..)
        .map(|(line, number)| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let answer = answer_to(row["text"].as_str().unwrap());
            let id = &row["id"];
            format!("{{\"id\":{id},\"row_number\":{number},\"ok\":true,\"result\":\"{answer}\",\"error\":null}}\n")
        })
        .collect();
    assert_text(&bench.read("out.jsonl"), &expected);
    bench.run("check --work-dir job").expect(0);
    let before = bench.snapshot();
    bench.run(&format!("{ASK} --resume --on-change update")).expect(0);
    crate::support::assert_same(&bench.snapshot(), &before);
    assert!(!bench.exists("job/manifest.json"), "the first generation is gone");
}

#[test]
fn what_is_sent_decides_and_not_how_it_is_written() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(10));
    bench.run(ASK).expect(0);
    // Another template that renders the same, and a field that no template names.
    bench.write("in.jsonl", rows(10).replace("}\n", ",\"note\":1}\n"));
    let same = "run in.jsonl -o out.jsonl --id-field id -p {{text}}{{id}} --work-dir job -m m \
                --shard-rows 7 --resume --on-change update";
    bench.run(&format!("{ASK} --resume --on-change update")).expect(0).says("10 rows keep");
    assert_eq!(server.count(), 10);
    let refused = bench.run(&same.replace(" --on-change update", "")).expect(78);
    refused.says("prompt: ").says("an update would keep 0 answers and ask about 10 rows");
    bench.run(same).expect(0).says("0 rows keep their answers, 10 changed");
    assert_eq!(server.count(), 20);
}

#[test]
fn changes_are_accepted_part_by_part() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(10));
    bench.run(ASK).expect(0);
    let other = ASK.replace("-m m", "-m other --temperature 0.5");
    let ask = |more: &str| bench.run(&format!("{other} --resume {more}"));
    ask("").expect(78).says("model: `m` → `other`");
    ask("--accept-change model").expect(0).says("0 rows keep their answers, 10 changed");
    assert_eq!(server.count(), 20, "the temperature was not accepted");
    let third = ASK.replace("-m m", "-m third --temperature 1");
    let ended = bench.run(&format!("{third} --resume --accept-change model,params"));
    ended.expect(0).says("10 rows keep their answers");
    assert_eq!(server.count(), 20);
    let prompt = third.replace("{{text}}", "'{{text}} please'");
    bench.run(&format!("{prompt} --resume --accept-change prompt,params,model")).expect(0);
    assert_eq!(server.count(), 20, "an accepted change of the template costs nothing");
}

#[test]
fn new_only_keeps_the_answers_of_rows_that_changed() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    bench.run(ASK).expect(0);
    bench.write("in.jsonl", [row("r1", "changed"), row("r3", "text 3"), row("r4", "new")].concat());
    bench.run(&format!("{ASK} --resume --on-change new-only")).expect(0).says("2 rows keep");
    assert_eq!(server.count(), 4);
    let results: Vec<_> = bench.lines("out.jsonl").iter().map(|it| it["result"].clone()).collect();
    assert_eq!(results, ["text 1", "text 3", "new"].map(|text| json!(answer_to(text))));
}

#[test]
fn rows_without_ids_are_known_by_their_number_and_prompt() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let ask = "run in.jsonl -o out.jsonl -p {{text}} --work-dir job -m m";
    bench.write("in.jsonl", rows(10));
    bench.run(ask).expect(0);
    let input = rows(12).replace("text 4", "text four");
    bench.write("in.jsonl", input);
    bench
        .run(&format!("{ask} --resume --on-change update"))
        .expect(0)
        .says("9 rows keep their answers, 1 changed, 2 are new");
    assert_eq!(server.count(), 13);
}

#[test]
fn rows_without_ids_take_no_answer_of_another_row() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let ask = "run in.jsonl -o out.jsonl -p {{text}} --work-dir job -m m --resume";
    bench.write("in.jsonl", rows(10));
    bench.run(ask).expect(0);
    // All rows move by one: by their numbers, every one of them is another.
    bench.write("in.jsonl", row("r0", "before") + &rows(10));
    let ended = bench.run(&format!("{ask} --on-change new-only")).expect(0);
    ended.says("0 rows keep their answers, 10 changed, 1 are new");
    let results: Vec<_> = bench.lines("out.jsonl").iter().map(|it| it["result"].clone()).collect();
    assert_eq!(results[..3], ["before", "text 1", "text 2"].map(|it| json!(answer_to(it))));
    // A row is known by its number and its text when the template is another.
    let other = ask.replace("{{text}}", "'{{text}} please'");
    bench.run(&format!("{other} --accept-change prompt")).expect(0).says("11 rows keep");
    assert_eq!(server.count(), 21);
}

#[test]
fn rows_known_by_a_hash_of_their_text_may_move() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let ask = "run in.jsonl -o out.jsonl -p {{text}} --work-dir job -m m --id-from hash --resume";
    bench.write("in.jsonl", rows(10));
    bench.run(ask).expect(0);
    let turned: Vec<_> = rows(12).lines().rev().map(|line| format!("{line}\n")).collect();
    bench.write("in.jsonl", turned.concat().replace("text 4", "text four"));
    bench.run(ask).expect(78).says("input: 0 rows changed, 3 new, 1 gone, 9 as they were (9 of");
    bench
        .run(&format!("{ask} --on-change update"))
        .expect(0)
        .says("9 rows keep their answers, 0 changed, 3 are new, 0 had no answer yet, 1 are gone");
    assert_eq!(server.count(), 13);
    let ids: Vec<_> = bench.lines("out.jsonl").iter().map(|it| it["id"].clone()).collect();
    let hash = blake3::hash(rows(1).trim_end().as_bytes()).to_hex().to_string();
    assert_eq!(ids[11], json!(hash[..32]));
    // Rows of one text have one id.
    bench.write("in.jsonl", rows(3) + &rows(2));
    bench.run(&format!("{ask} --on-change update")).expect(65).says("have the id of an earlier");
    bench.run(&format!("{ask} --on-change update --on-duplicate first")).expect(0);
    assert_eq!(server.count(), 13);
    bench.run(&ask.replace("--id-from hash", "--id-field id")).expect(78).says("id-field");
    bench.run(&format!("{ask} --id-field id")).expect(2);
}

#[test]
fn what_is_left_is_spread_over_as_many_shards_as_wanted() {
    let server = Server::start(|call| match call.prompt.strip_prefix("text ") {
        Some(number) if number.parse::<u32>().unwrap() > 80 && call.nth == 1 => {
            Reply::Hold(String::new())
        }
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(100));
    let ask = ASK.replace("--shard-rows 7", "--shards 10") + " -c 20 --resume";
    let mut running = bench.start(&format!("{ask} --progress-every 10"));
    server.wait_for_calls(100);
    running.wait_until_it_says("80/100");
    running.kill();
    let shards = || {
        let shown = bench.run("status --work-dir job --json").expect(0).stdout;
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["shards"].as_u64().unwrap()
    };
    assert_eq!(shards(), 10);
    let ended = bench.run(&ask.replace("--shards 10", "--shards 8")).expect(0);
    let ended = ended.says("what is left was spread over 8 shards");
    assert_eq!(server.count(), 120, "20 were in flight at the kill");
    // 8 hold what was left; the cut that both have in common may be one of the old ones.
    assert!((15..=18).contains(&shards()), "{}", shards());
    assert_eq!(ended.summary()["generation"], 2);
    let numbers = bench.lines("out.jsonl").into_iter().map(|it| it["row_number"].as_u64().unwrap());
    assert!(numbers.eq(1..=100));
    // The same again changes nothing.
    let before = bench.snapshot();
    bench.run(&ask.replace("--shards 10", "--shards 8")).expect(0);
    crate::support::assert_same(&bench.snapshot(), &before);
    bench.run("check --work-dir job").expect(0);
}

#[test]
fn failures_and_an_input_that_comes_through_a_pipe_go_along() {
    let server = Server::start(|call| match call.nth {
        1 if call.prompt == "text 2" => Reply::status(400),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let ask = "run - -o out.jsonl --id-field id -p {{text}} --work-dir job -m m --resume \
               --on-change update";
    assert_eq!(bench.pipe(ask, rows(3).as_bytes()).code, 3);
    let ended = bench.pipe(ask, rows(5).as_bytes()).expect(0);
    ended.says("2 rows keep their answers, 0 changed, 2 are new, 1 had no answer yet");
    assert_eq!(server.count(), 3 + 3);
    assert_eq!(bench.lines("out.jsonl").len(), 5);
    bench.run("work --work-dir job").expect(0);
    assert_eq!(server.count(), 6);
}

#[test]
fn failures_to_try_again_are_chosen_by_class_and_by_id() {
    // r1 to r3 time out (408), r4 to r6 answer nonsense, until the fourth call for each.
    let server = Server::start(|call| match call.prompt.strip_prefix("text ") {
        Some(_) if call.nth > 3 => Reply::Answer(answer_to(&call.prompt)),
        Some("1" | "2" | "3") => Reply::status(400),
        Some("4" | "5" | "6") => Reply::body("nonsense"),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(9));
    let ask = format!("{ASK} --retries 0 --error-output errors.jsonl");
    bench.run(&ask).expect(3);
    let sent = |more: &str, code| {
        let before = server.count();
        bench.run(&format!("{ask} --resume {more}")).expect(code);
        server.calls()[before..].iter().map(|call| call.prompt.clone()).collect::<Vec<_>>()
    };
    let sorted = |mut prompts: Vec<String>| {
        prompts.sort_unstable();
        prompts
    };
    // None is tried again, so there is nothing to do.
    let before = bench.snapshot();
    assert!(sent("--no-retry-failed", 3).is_empty());
    assert!(sent("--retry-class timeout", 3).is_empty());
    crate::support::assert_same(&bench.snapshot(), &before);
    let again = sent("--retry-class bad_request,timeout", 3);
    assert_eq!(sorted(again), ["text 1", "text 2", "text 3"]);
    bench.write("ids", "r1\n{\"id\":\"r4\",\"ok\":false}\n\n\"r5\"\nr9\nr99\n");
    assert_eq!(sorted(sent("--retry-ids ids", 3)), ["text 1", "text 4", "text 5"]);
    assert_eq!(sent("--retry-ids ids --retry-class bad_request", 3), ["text 1"]);
    let failed: Vec<_> = bench.lines("errors.jsonl").iter().map(|it| it["id"].clone()).collect();
    assert_eq!(failed, ["r2", "r3", "r4", "r5", "r6"], "the fourth call for r1 was answered");
    let ended = bench.run(&format!("{ask} --resume --retry-ids ids")).expect(3);
    let rows = &ended.says("2 rows that failed before are tried again").summary()["rows"];
    assert_eq!((&rows["retried"], &rows["failed"]), (&json!(5), &json!(5)));
    // The work stage chooses likewise.
    let before = server.count();
    bench.run("work --work-dir job --retries 0 --retry-class bad_response").expect(3);
    assert_eq!(server.count() - before, 3);
    for (more, text) in [
        ("--resume --retry-class nonsense", "there are attachment, no_model, timeout"),
        ("--resume --retry-class invalid_json", "there are attachment, no_model, timeout"),
        ("--resume --retry-ids bad", "line 2 of"),
        ("--retry-ids ids", "add --resume"),
        ("--no-retry-failed", "--resume"),
        ("--resume --retry-ids ids --error-output ids", "must not be the file of --retry-ids"),
    ] {
        bench.write("bad", "r1\n{\"ok\":1}\n");
        bench.run(&format!("{ASK} {more}")).expect(2).says(text);
    }
    bench.run(&format!("{ASK} --resume --retry-ids missing")).expect(66);
    // A file that a script made, and that names nothing this time.
    bench.write("empty", "\n");
    assert!(sent("--retry-ids empty", 3).is_empty());
}

#[test]
fn a_delta_has_what_no_earlier_generation_published() {
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("text 2", 1) => Reply::status(400),
        ("text 9", 1) => Reply::Hold(String::new()),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let ask = format!(
        "{ASK} --resume --on-change update --output-delta delta.jsonl --telemetry-output t.jsonl"
    );
    let delta = || -> Vec<String> {
        let lines = bench.lines("delta.jsonl");
        lines.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    };
    bench.write("in.jsonl", rows(4));
    bench.run(&ask).expect(3);
    assert_eq!(delta(), ["r1", "r3", "r4"]);
    bench.write("in.jsonl", rows(6).replace("text 1\"", "text one\""));
    let summary = bench.run(&ask).expect(0).summary();
    assert_eq!(delta(), ["r1", "r2", "r5", "r6"]);
    assert_eq!(summary["rows"]["retried"], 1);
    assert_eq!(summary["calls"]["made"], 7, "that of the first r1 is gone with its answer");
    assert_eq!(summary["calls"]["in_this_generation"], 4);
    // The next generation is cut off, and never published: the one after it tells of its answers.
    bench.write("in.jsonl", rows(9));
    let mut running = bench.start(&format!("{ask} --progress-every 1"));
    running.wait_until_it_says("8/9");
    running.kill();
    bench.write("in.jsonl", rows(10));
    bench.run(&ask).expect(0);
    assert_eq!(delta(), ["r1", "r7", "r8", "r9", "r10"]);
    let before = bench.snapshot();
    bench.run(&ask).expect(0);
    crate::support::assert_same(&bench.snapshot(), &before);
}

#[test]
fn an_answer_that_came_after_the_last_publication_is_in_the_next_delta() {
    // r2 fails in the first night; in the second it is answered, and then the account is empty.
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("text 2" | "text 6", 1) => Reply::status(400),
        ("text 6", 2) => Reply::Status(
            429,
            Vec::new(),
            json!({"error": {"code": "insufficient_quota"}}).to_string(),
        ),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let ask = format!("{ASK} -c 1 --resume --on-change update --output-delta delta.jsonl");
    bench.write("in.jsonl", rows(6));
    bench.run(&ask).expect(3);
    bench.run(&ask).expect(77);
    bench.write("in.jsonl", rows(7));
    bench.run(&ask).expect(0);
    let ids: Vec<_> = bench.lines("delta.jsonl").iter().map(|it| it["id"].clone()).collect();
    assert!(ids.contains(&json!("r2")) && ids.contains(&json!("r7")), "{ids:?}");
}

#[test]
fn calls_that_a_kill_took_are_counted_when_the_next_command_plans_anew() {
    for (more, appended) in [("--on-change update", 1), ("--shards 6", 0)] {
        let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
            ("text 1", 1 | 2) => Reply::status(500),
            ("text 1" | "text 5" | "text 6", 3 | 1) => Reply::Hold(String::new()),
            _ => Reply::Answer(answer_to(&call.prompt)),
        });
        let bench = Bench::with_server(&server);
        let ask = "run in.jsonl -o out.jsonl --id-field id -p {{text}} --work-dir job -m m -c 3 \
                   --resume --telemetry-output t.jsonl";
        bench.write("in.jsonl", rows(6));
        let running = bench.start(&format!("{ask} --shards 1"));
        server.wait_for_calls(8);
        server.wait_for_active(3);
        running.kill();
        bench.write("in.jsonl", rows(6 + appended));
        let ended = bench.run(&format!("{ask} {more}")).expect(0);
        let ended = ended.says("up to 3 calls of an earlier session never came to their end");
        let calls = &ended.summary()["calls"];
        assert_eq!(server.count(), 11 + appended);
        assert_eq!(calls["made"], 11 + appended, "{more}");
        assert_eq!(calls["repeated_after_crash"], 3, "{more}");
        assert_eq!(calls["in_this_session"], 3 + appended, "{more}");
        let told = bench.lines("t.jsonl");
        assert_eq!(told.iter().filter(|it| it["id"] == "r1").count(), 3, "its attempts are kept");
    }
}

#[test]
fn envelopes_show_the_rows_as_they_are_now() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let ask = format!("{ASK} --resume --on-change update --include-input");
    bench.write("in.jsonl", rows(20));
    bench.run(&ask).expect(0);
    // Every row has another field, and they are turned round.
    let lines: Vec<String> =
        rows(20).lines().rev().map(|it| it.replace('}', ",\"note\":\"new\"}")).collect();
    bench.write("in.jsonl", lines.join("\n"));
    bench.run(&ask).expect(0).says("20 rows keep their answers");
    assert_eq!(server.count(), 20);
    for (row, envelope) in lines.iter().zip(bench.lines("out.jsonl")) {
        assert_eq!(envelope["input"], serde_json::from_str::<serde_json::Value>(row).unwrap());
    }
}

#[test]
fn what_is_told_of_an_update_is_true_of_it() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let ask = format!("{ASK} --resume --on-change update");
    bench.write("in.jsonl", rows(20));
    bench.run(&ask).expect(0);
    // Shards that are cut anew besides do not change what became of the rows.
    bench.write("in.jsonl", rows(25).replace("text 3\"", "text three\""));
    let cut = ask.replace("--shard-rows 7", "--shards 5");
    let carried = &bench.run(&cut).expect(0).summary()["carried"];
    assert_eq!(
        (&carried["kept"], &carried["changed"], &carried["new"], &carried["unanswered"]),
        (&json!(19), &json!(1), &json!(5), &json!(0))
    );
    // Rows that are left out have no answer, and need none.
    bench.write("in.jsonl", rows(25) + &rows(3));
    let first = format!("{ask} --on-duplicate first");
    bench.run(&first).expect(0);
    bench.write("in.jsonl", rows(26) + &rows(3));
    bench.run(&first).expect(0).says("0 had no answer yet");
    // Most rows gone is more than a note.
    bench.write("in.jsonl", rows(2));
    let quiet = bench.run(&format!("{ask} --quiet --keep-generations 1")).expect(0);
    let quiet = quiet.says("of 29 rows are gone from the input");
    assert_eq!(quiet.stderr.lines().count(), 1);
    assert!(bench.path("job").read_dir().unwrap().count() > 1);
}

#[test]
fn a_change_that_is_taken_back_costs_nothing() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let ask = |model: &str, more: &str| {
        bench.run(&format!("{} --resume {more}", ASK.replace("-m m", model))).expect(0);
        server.count()
    };
    bench.write("in.jsonl", rows(4));
    assert_eq!(ask("-m m", ""), 4);
    assert_eq!(ask("-m other", "--accept-change model"), 4);
    bench.write("in.jsonl", rows(5));
    assert_eq!(ask("-m other", "--on-change update"), 5);
    // Four of them were asked with this very model.
    assert_eq!(ask("-m m", "--on-change update"), 6);
}

#[test]
fn the_stages_by_themselves_leave_no_generation_behind() {
    let bench = Bench::new();
    for count in [5, 6, 7] {
        bench.write("in.jsonl", rows(count));
        let plan = "plan in.jsonl --id-field id -p {{text}} --work-dir job -m passthrough";
        bench.run(&format!("{plan} --on-change update")).expect(0);
        bench.run("work --work-dir job").expect(0);
        bench.run("merge --work-dir job -o out.jsonl").expect(0);
        let names: Vec<_> = std::fs::read_dir(bench.path("job"))
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("gen-") || name == "shards")
            .collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }
    assert_eq!(bench.lines("out.jsonl").len(), 7);
}

#[test]
fn answers_of_several_configurations_say_which_they_are_of() {
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("text 2", 1) => Reply::status(500),
        ("text 3", 1 | 2) => Reply::status(400),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let ask = format!("{ASK} --telemetry-output t.jsonl");
    bench.write("in.jsonl", rows(4));
    bench.run(&ask).expect(3);
    let other = ask.replace("-m m", "-m other") + " --resume --accept-change model";
    let summary = bench.run(&other).expect(3).summary();
    let epochs = &summary["epochs"];
    assert_eq!((&epochs[0]["epoch"], &epochs[0]["answers"]), (&json!(1), &json!(3)));
    assert_eq!((&epochs[0]["model"], &epochs[1]), (&json!("m"), &json!(null)));
    let summary = bench.run(&other).expect(0).summary();
    assert_eq!(summary["epochs"][1]["model"], "other");
    assert_eq!(summary["epochs"][1]["answers"], 1);
    let lines = bench.lines("t.jsonl");
    let told: Vec<_> =
        lines.iter().map(|it| format!("{} {}", it["id"].as_str().unwrap(), it["epoch"])).collect();
    assert_eq!(told, ["r1 1", "r2 1", "r2 1", "r3 1", "r3 2", "r3 2", "r4 1"]);
}

#[test]
fn outputs_that_were_published_before_may_be_published_over() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    let ask = format!("{ASK} --resume --on-change update");
    bench.run(&format!("{ask} --error-output e.jsonl")).expect(0);
    bench.write("in.jsonl", rows(4));
    bench.run(&ask).expect(0);
    bench.write("in.jsonl", rows(5));
    bench.run(&format!("{ask} --error-output e.jsonl")).expect(0);
    bench.write("in.jsonl", rows(6));
    bench.write("out.jsonl", "somebody's own");
    bench.run(&ask).expect(73).says("is not what this work directory published");
    assert_eq!(bench.read("out.jsonl"), "somebody's own");
}

#[test]
fn a_lost_index_of_ids_costs_no_call() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(20));
    bench.run(ASK).expect(0);
    for (damage, count) in [("gone", 21), ("empty", 22), ("zeros", 23)] {
        let generation = count - 20;
        let place = if generation == 1 { String::new() } else { format!("gen-{generation:06}/") };
        let ids = bench.path(&format!("job/{place}ids"));
        let length = std::fs::metadata(&ids).unwrap().len();
        match damage {
            "gone" => std::fs::remove_file(&ids).unwrap(),
            "empty" => std::fs::write(&ids, b"").unwrap(),
            _ => std::fs::write(&ids, vec![0; usize::try_from(length).unwrap()]).unwrap(),
        }
        bench.write("in.jsonl", rows(count));
        bench.run(&format!("{ASK} --resume --on-change update")).expect(0);
        assert_eq!(server.count(), count, "{damage}");
    }
}

#[test]
fn an_update_that_cannot_be_planned_leaves_the_plan_that_counts() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(5));
    bench.run(ASK).expect(0);
    let before = bench.snapshot();
    bench.write("in.jsonl", [rows(5), row("r1", "twice")].concat());
    bench.run(&format!("{ASK} --resume --on-change update")).expect(65);
    bench.write("in.jsonl", rows(5));
    crate::support::assert_same(&bench.snapshot(), &before);
    bench.run(&format!("{ASK} --resume")).expect(0);
    // Another id field makes other rows of them: nothing can be kept.
    let other = ASK.replace("--id-field id", "--id-field text");
    bench.run(&format!("{other} --resume --on-change update")).expect(78).says("id-field");
    assert_eq!(server.count(), 5);
    bench.run(&format!("{ASK} --overwrite")).expect(0);
    assert_eq!(server.count(), 10);
}

/// Rows with the number of each as its text, and ids that no number can be taken for, or that are those of other rows.
fn numbered(ids: &[&str]) -> String {
    let row = |(id, number): (&&str, u32)| format!("{{\"id\":{id},\"text\":\"text {number}\"}}\n");
    ids.iter().zip(1..).map(row).collect()
}

/// Makes sure that each line has its row's id, number and answer.
fn assert_lines(bench: &Bench, input: &str) {
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines.len(), input.lines().count());
    for ((line, row), number) in lines.iter().zip(input.lines()).zip(1..) {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        let result = answer_to(row["text"].as_str().unwrap());
        assert_eq!((&line["id"], &line["row_number"]), (&row["id"], &json!(number)));
        assert_eq!(line["result"], result, "{line}");
    }
}

const NO_IDS: &str = "run in.jsonl -o out.jsonl -p {{text}} -m m --shard-rows 2";

#[test]
fn id_field_on_resume_keeps_answers() {
    // Numbers of other rows must not be taken for them.
    for ids in [["\"a\"", "\"b\"", "\"c\"", "\"d\"", "\"e\""], ["5", "4", "3", "2", "1"]] {
        for options in
            ["--work-dir job", "--work-dir job --dedupe", "--work-dir job --include-input", ""]
        {
            let server = Server::echo();
            let bench = Bench::with_server(&server);
            let input = numbered(&ids);
            bench.write("in.jsonl", &input);
            bench.run(&format!("{NO_IDS} {options}")).expect(0);
            if options.is_empty() && !bench.keeps_notes_on("out.jsonl") {
                continue;
            }
            let ask = format!("{NO_IDS} {options} --resume --id-field id");
            let ended = bench.run(&ask).expect(0);
            ended.says(if options.is_empty() { "took over 5 answers" } else { "5 rows keep" });
            assert_eq!(server.count(), 5, "{ids:?} {options}");
            assert_lines(&bench, &input);
            bench.run(&ask).expect(0);
            assert_eq!(server.count(), 5, "{ids:?} {options}");
            assert_lines(&bench, &input);
        }
    }
}

#[test]
fn id_field_over_changed_rows_asks_them() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let input = numbered(&["5", "4", "3", "2", "1"]);
    bench.write("in.jsonl", &input);
    bench.run(&format!("{NO_IDS} --work-dir job")).expect(0);
    // The second row is gone: those behind it have other numbers.
    let moved: String =
        input.lines().filter(|it| !it.contains("text 2")).map(|it| format!("{it}\n")).collect();
    bench.write("in.jsonl", &moved);
    let ask = format!("{NO_IDS} --work-dir job --resume --id-field id");
    bench
        .run(&ask)
        .expect(78)
        .says("id-field")
        .says("an update would keep 1 answers and ask about 3 rows")
        .says("--on-change update");
    assert_eq!(server.count(), 5);
    bench.run(&format!("{ask} --on-change new-only")).expect(0).says("1 row keeps its answer");
    assert_eq!(server.count(), 8);
    assert_lines(&bench, &moved);
}

#[test]
fn id_field_over_interrupted_run_goes_on() {
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("text 4", 1) => Reply::Hold(answer_to(&call.prompt)),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    let input = numbered(&["5", "4", "3", "2", "1"]);
    bench.write("in.jsonl", &input);
    let running = bench.start(&format!("{NO_IDS} -c 1"));
    server.wait_for_calls(4);
    running.kill();
    server.release();
    bench.run(&format!("{NO_IDS} --resume --id-field id")).expect(0);
    assert_eq!(server.count(), 6, "no answer is paid for twice");
    assert_lines(&bench, &input);
}

#[test]
fn id_field_over_copied_output_is_refused() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", numbered(&["5", "4", "3", "2", "1"]));
    bench.run(NO_IDS).expect(0);
    // A copy does not tell what it answers.
    let copied = bench.read("out.jsonl");
    std::fs::remove_file(bench.path("out.jsonl")).unwrap();
    bench.write("out.jsonl", &copied);
    let ask = format!("{NO_IDS} --resume --id-field id");
    bench.run(&ask).expect(78).says("leave --id-field out");
    assert_eq!(bench.read("out.jsonl"), copied);
    assert_eq!(server.count(), 5);
    // Another input under the note of the first is none of its rows' either.
    bench.run(&format!("{NO_IDS} --overwrite")).expect(0);
    bench.write("in.jsonl", numbered(&["5", "4", "3", "2", "1", "6"]));
    if bench.keeps_notes_on("out.jsonl") {
        bench.run(&ask).expect(78).says("answered without --id-field");
    }
    assert_eq!(server.count(), 10);
}

#[test]
fn id_field_on_resume_keeps_shared_answers() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let texts = ["same", "other", "same", "same", "other"];
    let row = |(text, number)| format!("{{\"id\":{},\"text\":\"{text}\"}}\n", 6 - number);
    let input: String = texts.iter().zip(1..).map(row).collect();
    bench.write("in.jsonl", &input);
    let ask = format!("{NO_IDS} --work-dir job --dedupe");
    bench.run(&ask).expect(0);
    assert_eq!(server.count(), 2);
    bench.run(&format!("{ask} --resume --id-field id")).expect(0).says("5 rows keep");
    assert_eq!(server.count(), 2);
    assert_lines(&bench, &input);
    bench.run("check --work-dir job").expect(0);
}

#[test]
fn id_field_that_rows_lack_keeps_the_others() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let input = numbered(&["\"a\"", "null", "\"c\""]);
    bench.write("in.jsonl", &input);
    bench.run(&format!("{NO_IDS} --work-dir job")).expect(0);
    let ask = format!("{NO_IDS} --work-dir job --resume --id-field id");
    bench.run(&ask).expect(3).says("2 rows keep");
    assert_eq!(server.count(), 3);
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines[1]["error"]["type"], "MissingIdField");
    assert_eq!((&lines[0]["id"], &lines[2]["id"]), (&json!("a"), &json!("c")));
    // Two rows with one id are refused, and the plan that counts stays.
    bench.write("in.jsonl", numbered(&["\"a\"", "\"a\"", "\"c\""]));
    let ask = format!("{NO_IDS} --work-dir other --overwrite");
    bench.run(&ask).expect(0);
    let before = bench.snapshot();
    let ask = ask.replace("--overwrite", "--resume --id-field id");
    bench.run(&ask).expect(65).says("a");
    crate::support::assert_same(&bench.snapshot(), &before);
    bench
        .run(&format!("{ask} --on-duplicate suffix --on-change update"))
        .expect(0)
        .says("3 rows keep");
    let ids: Vec<_> = bench.lines("out.jsonl").into_iter().map(|line| line["id"].clone()).collect();
    assert_eq!(ids, [json!("a"), json!("a-2"), json!("c")]);
    assert_eq!(server.count(), 6);
}
