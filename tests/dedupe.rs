//! Rows that ask the same: asked once, and the answer given to all of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::server::{Call, Reply, Server, answer_to};
use crate::support::{Bench, assert_same};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} --work-dir job \
                   --shard-rows 70 -m m --temperature 0 --retries 0";

fn row(id: usize, text: &str) -> String {
    format!("{{\"id\":\"r{id}\",\"text\":\"{text}\"}}\n")
}

/// Rows of so many texts, in turns.
fn turns(rows: usize, texts: usize) -> String {
    (1..=rows).map(|id| row(id, &format!("text {}", id % texts))).collect()
}

/// A server whose answers tell the call: no two of them are alike.
fn counting() -> Server {
    Server::start(|Call { prompt, nth, .. }| Reply::Answer(format!("{prompt} #{nth}")))
}

fn results(bench: &Bench) -> Vec<Value> {
    bench.lines("out.jsonl").iter().map(|line| line["result"].clone()).collect()
}

#[test]
fn a_thousand_rows_of_seven_prompts_are_seven_calls() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", turns(1000, 7));
    let line = format!("{ASK} --summary-output s.json --telemetry-output t.jsonl");
    bench.run(&format!("{line} --dry-run")).expect(0).says("1000 selected, 7 calls");
    let ended = bench.run(&line).expect(0);
    ended.says("993 rows ask what another row asks");
    assert_eq!(server.count(), 7);
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines.len(), 1000);
    for (line, n) in lines.iter().zip(1..) {
        let answer = answer_to(&format!("text {}", n % 7));
        let expected = json!({"id": format!("r{n}"), "row_number": n, "ok": true, "result": answer, "error": null});
        assert_eq!(*line, expected);
    }
    let telemetry = bench.lines("t.jsonl");
    let called: Vec<_> = telemetry.iter().map(|line| line["row_number"].as_u64()).collect();
    assert_eq!(called, (1..=7).map(Some).collect::<Vec<_>>(), "of calls only");
    let summary = bench.json("s.json");
    assert_eq!(summary["rows"]["ok"], 1000);
    assert_eq!(summary["rows"]["selected"], 1000);
    assert_eq!(summary["rows"]["twins"], 993);
    assert_eq!(summary["calls"]["made"], 7);
    assert_eq!(summary["calls"]["saved"], 993);
    bench.run("check --work-dir job").expect(0);
    let status: Value =
        serde_json::from_str(&bench.run("status --work-dir job --json").expect(0).stdout).unwrap();
    assert_eq!(
        (&status["rows"], &status["ok"], &status["left"]),
        (&json!(1000), &json!(1000), &json!(0))
    );
    assert_eq!((&status["twins"], &status["calls"]), (&json!(993), &json!(7)));
    // Nothing is left to do.
    let before = bench.snapshot();
    bench.run(&format!("{line} --resume")).expect(0);
    assert_same(&bench.snapshot(), &before);
}

#[test]
fn only_answers_that_do_not_vary_by_chance_are_shared_unless_it_is_asked_for() {
    let server = counting();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", turns(40, 4));
    let ask = "run in.jsonl -o out.jsonl --id-field id -p {{text}} --overwrite";
    let mut calls = 0;
    for (more, expected) in [
        ("-m m", 40),
        ("-m m --temperature 1", 40),
        ("-m m --temperature 0", 4),
        ("-m m --temperature 0.0", 4),
        ("-m m?temperature=0 --no-dedupe", 40),
        ("-m m --dedupe", 4),
        ("-m m --temperature 0.7 --no-dedupe --dedupe", 4),
        ("-m m --dedupe --no-dedupe", 40),
    ] {
        bench.run(&format!("{ask} {more}")).expect(0);
        assert_eq!(server.count() - calls, expected, "{more}");
        calls = server.count();
        let distinct: HashSet<_> = results(&bench).iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), expected, "{more}");
    }
    bench.run(&format!("{ask} -m passthrough --dedupe")).expect(0);
    assert_eq!(results(&bench)[39], "text 0");
    assert_eq!(bench.lines("out.jsonl").len(), 40);
}

#[test]
fn vectors_are_asked_for_once() {
    let server = Server::start(|_| Reply::Answer("[1.5, 2]".into()));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", turns(40, 4));
    bench.run("run in.jsonl -o out.jsonl -p {{text}} -m m --protocol embeddings").expect(0);
    assert_eq!(server.count(), 4);
    assert_eq!(bench.read("out.jsonl").matches("\"result\":[1.5, 2]").count(), 40);
}

#[test]
fn every_row_has_its_own_id_number_and_text() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    // Spelled as they are: escapes, numbers, fields that no template names.
    let input = [
        r#"{"id":"a","text":"same","n":1.50}"#,
        r#"{"id":12345678901234567890123,"text":"same"}"#,
        r#"{"id":"\u0062","text":"s\u0061me","text2":null}"#,
        r#"{"id":"c","text":"other"}"#,
        r#"{"id":"d"}"#,
        r#"{"id":"e","text":"sa"#,
        r#"{"id":"f"}"#,
        r#"{"id":"g", "text":"same"}"#,
    ];
    bench.write("in.jsonl", input.join("\n"));
    let ended = bench.run(&format!("{ASK} --include-input --error-output e.jsonl"));
    ended.expect(3).says("3 rows ask what");
    assert_eq!(server.count(), 2, "what cannot be asked about is nobody's twin");
    let text = bench.read("out.jsonl");
    let lines: Vec<&str> = text.lines().collect();
    let answer = "\"ok\":true,\"result\":\"answer to <same>\",\"error\":null";
    for (at, id) in [(0, "\"a\""), (1, "12345678901234567890123"), (2, r#""\u0062""#), (7, "\"g\"")]
    {
        let number = at + 1;
        let input = input[at];
        let expected =
            format!("{{\"id\":{id},\"row_number\":{number},{answer},\"input\":{input}}}");
        assert_eq!(lines[at], expected);
    }
    for at in [4, 5, 6] {
        assert!(lines[at].contains("\"ok\":false"), "{}", lines[at]);
    }
    assert_eq!(bench.lines("e.jsonl").len(), 3);
    // A table, whose rows are known by their numbers.
    bench.write("in.csv", "text,x\nsame,1\nsame,\"2,\n\"\nother,3\nsame,4\n");
    let ask = "run in.csv -o csv.jsonl -p {{text}} -m m --dedupe --include-input";
    bench.run(ask).expect(0);
    assert_eq!(server.count(), 4);
    let lines = bench.lines("csv.jsonl");
    assert_eq!(lines[1]["id"], 2);
    assert_eq!(lines[1]["input"], json!({"text": "same", "x": "2,\n"}));
    assert_eq!(lines[3]["result"], answer_to("same"));
}

#[test]
fn what_is_attached_is_part_of_what_is_asked() {
    let server = counting();
    let bench = Bench::with_server(&server);
    let row = |id: usize, photo: &str| {
        format!("{{\"id\":\"r{id}\",\"text\":\"same\",\"photo\":{photo}}}\n")
    };
    let (a, b) = ("\"https://example.com/a.png\"", "\"https://example.com/b.png\"");
    let both = format!("[{a},{b}]");
    let photos = [a, b, a, "null", &both, "\"\"", &both, b];
    let rows: String = photos.iter().zip(1..).map(|(photo, id)| row(id, photo)).collect();
    bench.write("in.jsonl", rows);
    bench.run(&format!("{ASK} --attachment-field photo")).expect(0).says("4 rows ask what");
    assert_eq!(server.count(), 4);
    let told = results(&bench);
    let same = |at: usize, other: usize| assert_eq!(told[at], told[other], "{told:?}");
    same(0, 2);
    same(1, 7);
    same(3, 5);
    same(4, 6);
    assert_eq!(told.iter().map(ToString::to_string).collect::<HashSet<_>>().len(), 4);
}

#[test]
fn rows_with_the_id_of_another_are_what_the_job_says_and_twins_besides() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    // The first row of the text is left out, or renamed.
    let rows = [row(1, "x"), row(1, "same"), row(2, "same"), row(3, "same"), row(3, "x")];
    bench.write("in.jsonl", rows.concat());
    let ask = |more: &str| bench.run(&format!("{ASK} --overwrite {more}"));
    let told = || -> Vec<(Value, Value)> {
        bench.lines("out.jsonl").iter().map(|it| (it["id"].clone(), it["result"].clone())).collect()
    };
    let pair = |id: &str, text: &str| (json!(id), json!(answer_to(text)));
    ask("--on-duplicate first").expect(0);
    assert_eq!(told(), [pair("r1", "x"), pair("r2", "same"), pair("r3", "same")]);
    assert_eq!(server.count(), 2);
    ask("--on-duplicate suffix").expect(0);
    let all = [("r1", "x"), ("r1-2", "same"), ("r2", "same"), ("r3", "same"), ("r3-2", "x")];
    assert_eq!(told(), all.map(|(id, text)| pair(id, text)));
    assert_eq!(server.count(), 4);
    // A few rows of many, and the first of them is not the first of its text.
    bench.write("in.jsonl", turns(100, 3));
    ask("--offset 10 --limit 20").expect(0);
    assert_eq!((server.count(), told().len()), (7, 20));
}

#[test]
fn where_the_call_fails_all_its_rows_do_and_it_is_tried_again_once() {
    let fails = Arc::new(Mutex::new(true));
    let script = Arc::clone(&fails);
    let server = Server::start(move |Call { prompt, nth, .. }| {
        match *script.lock().unwrap() && prompt == "text 1" {
            true => Reply::status(400),
            false => Reply::Answer(format!("{prompt} #{nth}")),
        }
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", turns(100, 4));
    let line = format!("{ASK} --error-output e.jsonl --summary-output s.json");
    bench.run(&line).expect(3).says("25 of 100 rows");
    assert_eq!(server.count(), 4);
    let errors = bench.lines("e.jsonl");
    assert_eq!(errors.len(), 25);
    assert!(errors.iter().all(|it| it["error"] == errors[0]["error"]), "{errors:?}");
    assert_eq!(errors[24]["id"], "r97");
    let summary = bench.json("s.json");
    assert_eq!(summary["rows"]["failed"], 25);
    assert_eq!(summary["failures"], json!({"bad_request": 25}));
    let status = || -> Value {
        serde_json::from_str(&bench.run("status --work-dir job --json").stdout).unwrap()
    };
    assert_eq!((&status()["ok"], &status()["failed"]), (&json!(75), &json!(25)));
    let work = |more: &str| bench.run(&format!("work --work-dir job {more}"));
    work("--allow-failed 24").expect(3);
    work("--allow-failed 25").expect(0);
    bench.run(&format!("{line} --resume --no-retry-failed --allow-failed 25")).expect(0);
    assert_eq!(server.count(), 4);
    bench.run(&format!("{line} --resume")).expect(3);
    assert_eq!(server.count(), 5, "once, not once a row");
    bench.run(&format!("{line} --resume --retry-class timeout")).expect(3);
    // Who names a row that took the failure means its original.
    bench.write("ids", "r2\nr97\n");
    bench.run(&format!("{line} --resume --retry-ids ids")).expect(3).says("1 row that failed");
    assert_eq!(server.count(), 6);
    *fails.lock().unwrap() = false;
    bench.run(&format!("{line} --resume --retry-class bad_request")).expect(0);
    assert_eq!(server.count(), 7);
    assert_eq!(bench.lines("e.jsonl").len(), 0);
    assert!(results(&bench).iter().step_by(4).all(|it| it == "text 1 #4"));
    let summary = bench.json("s.json");
    assert_eq!((&summary["rows"]["ok"], &summary["calls"]["made"]), (&json!(100), &json!(7)));
    assert_eq!(summary["rows"]["resumed"], 75);
    assert_eq!(status()["state"], "published");
}

#[test]
fn stages_apart_and_shards_on_their_own_come_to_the_same() {
    let server = counting();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", turns(300, 150));
    let plan =
        "plan in.jsonl --id-field id -p {{text}} --work-dir job --shard-rows 70 -m m --dedupe";
    bench
        .run(plan)
        .expect(0)
        .says("planned: 300 of 300 rows in 3 shards, 150 of them without a call");
    bench.run("work --work-dir job --shard 4").expect(2).says("no shard 4");
    bench.run("work --work-dir job --shard 1").expect(0);
    bench.run("merge --work-dir job -o -").expect(78).says("160 of 300 rows have no outcome yet");
    bench.run("work --work-dir job --shard 0,2").expect(0);
    let merged = bench.run("merge --work-dir job -o - --output-delta d.jsonl").expect(0);
    assert_eq!(server.count(), 150);
    let lines: Vec<Value> =
        merged.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 300);
    for (line, n) in lines.iter().zip(1..) {
        assert_eq!(line["result"], format!("text {} #1", n % 150));
    }
    assert_eq!(bench.read("d.jsonl"), merged.stdout);
    bench.run("merge --work-dir job -o out.jsonl").expect(0);
    assert_eq!(bench.read("out.jsonl"), merged.stdout);
}

#[test]
fn a_run_that_was_killed_goes_on_with_what_is_left() {
    let server = Server::start(|Call { prompt, nth, .. }| match *nth {
        // Long before the kill, so that none of them is held after it.
        1 if ["text 7", "text 17", "text 27"].contains(&&**prompt) => Reply::Hold(String::new()),
        _ => Reply::Answer(answer_to(prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", turns(1000, 50));
    let line = format!("{ASK} -c 8");
    let running = bench.start(&line);
    server.wait_for_calls(47);
    running.kill();
    let status: Value =
        serde_json::from_str(&bench.run("status --work-dir job --json").expect(0).stdout).unwrap();
    let (ok, left) = (status["ok"].as_u64().unwrap(), status["left"].as_u64().unwrap());
    assert_eq!((ok + left, ok % 20), (1000, 0), "a row is done with its twins: {status}");
    let before = server.count();
    bench.run(&format!("{line} --resume")).expect(0);
    assert!(server.count() - before <= 50 - ok as usize / 20, "{ok} {before} {}", server.count());
    for (result, n) in results(&bench).iter().zip(1..) {
        assert_eq!(*result, answer_to(&format!("text {}", n % 50)));
    }
    bench.run("check --work-dir job").expect(0);
}

#[test]
fn rows_keep_their_answers_whatever_becomes_of_the_one_that_was_called() {
    let server = counting();
    let bench = Bench::with_server(&server);
    let ask = |more: &str| {
        bench.run(&format!("{ASK} --include-input --resume --on-change update {more}"))
    };
    bench.write("in.jsonl", [row(1, "a"), row(2, "a"), row(3, "a"), row(4, "b")].concat());
    ask("").expect(0);
    assert_eq!(server.count(), 2);
    // The original changes, and asks what another row asks; the rest is turned round, and rows that
    // ask what is answered stand before it.
    let rows = [row(9, "a"), row(4, "b"), row(3, "a"), row(2, "a"), row(1, "b"), row(8, "b")];
    bench.write("in.jsonl", rows.concat());
    bench.run(&format!("{ASK} --resume")).expect(78).says("keep 3 answers and ask about 0 rows");
    let ended = ask("--output-delta d.jsonl").expect(0);
    ended.says("3 rows keep their answers, 1 changed, 2 are new");
    assert_eq!(server.count(), 2);
    assert_eq!(results(&bench), ["a #1", "b #1", "a #1", "a #1", "b #1", "b #1"]);
    let ids: Vec<_> = bench.lines("out.jsonl").iter().map(|it| it["input"]["id"].clone()).collect();
    assert_eq!(ids, ["r9", "r4", "r3", "r2", "r1", "r8"]);
    let delta: Vec<_> = bench.lines("d.jsonl").iter().map(|it| it["id"].clone()).collect();
    assert_eq!(delta, ["r9", "r1", "r8"], "answers that these rows did not have");
    bench.run("check --work-dir job").expect(0);
    // All that were called are gone, but not who took their answers.
    bench.write(
        "in.jsonl",
        [row(8, "b"), row(9, "a"), row(7, "a"), row(6, "c"), row(5, "c")].concat(),
    );
    ask("").expect(0);
    assert_eq!(server.count(), 3);
    assert_eq!(results(&bench), ["b #1", "a #1", "a #1", "c #1", "c #1"]);
    // Nobody asks it any more: who asks it later asks anew.
    bench.write("in.jsonl", row(8, "b"));
    ask("").expect(0);
    bench.write("in.jsonl", [row(8, "b"), row(9, "a")].concat());
    ask("").expect(0);
    assert_eq!((server.count(), results(&bench)), (4, vec![json!("b #1"), json!("a #2")]));
    bench.run("check --work-dir job").expect(0);
}

#[test]
fn asking_once_can_be_turned_on_and_off_and_no_answer_is_lost() {
    let server = counting();
    let bench = Bench::with_server(&server);
    let ask = "run in.jsonl -o out.jsonl --id-field id -p {{text}} --work-dir job -m m --resume";
    bench.write("in.jsonl", turns(6, 2));
    bench.run(ask).expect(0);
    let mut each = results(&bench);
    assert_eq!(each.iter().map(ToString::to_string).collect::<HashSet<_>>().len(), 6);
    bench.run(&format!("{ask} --dedupe")).expect(78).says("dedupe: `off` → `on`");
    // Answers that rows have stay theirs; who has none takes the first.
    bench.write("in.jsonl", turns(8, 2));
    bench.run(&format!("{ask} --dedupe --on-change update")).expect(0);
    assert_eq!(server.count(), 6);
    each.extend([each[0].clone(), each[1].clone()]);
    assert_eq!(results(&bench), each);
    bench.run(ask).expect(0);
    bench.run(&format!("{ask} --no-dedupe")).expect(78);
    bench.write("in.jsonl", turns(10, 2));
    bench.run(&format!("{ask} --no-dedupe --on-change update")).expect(0).says("8 rows keep");
    assert_eq!(server.count(), 8);
    assert_eq!(results(&bench)[..8], each);
    assert_eq!(server.counts().len(), 2);
}

#[test]
fn an_answer_that_is_only_accepted_is_given_to_no_other_row() {
    let server = counting();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", [row(1, "a"), row(2, "a")].concat());
    bench.run(ASK).expect(0);
    // Both keep an answer to what they do not ask any more.
    let changed = [row(1, "b"), row(2, "b")];
    bench.write("in.jsonl", [changed.concat(), row(3, "b")].concat());
    bench.run(&format!("{ASK} --resume --on-change new-only")).expect(0);
    assert_eq!(results(&bench), ["a #1", "a #1", "b #1"]);
    bench.write("in.jsonl", [changed.concat(), row(3, "b"), row(4, "b")].concat());
    bench.run(&format!("{ASK} --resume --on-change update")).expect(0);
    assert_eq!(results(&bench), ["a #1", "a #1", "b #1", "b #1"]);
    // Likewise where the model is another.
    let other = ASK.replace("-m m", "-m other");
    bench.write("in.jsonl", [changed.concat(), row(5, "b"), row(6, "b")].concat());
    bench.run(&format!("{other} --resume --accept-change model")).expect(0);
    assert_eq!(server.count(), 3);
    assert_eq!(results(&bench), ["a #1", "a #1", "b #2", "b #2"]);
}

#[test]
fn answers_of_an_output_stay_with_their_rows() {
    let server = counting();
    let bench = Bench::with_server(&server);
    let ask = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m";
    bench.write("in.jsonl", turns(6, 2));
    bench.run(ask).expect(0);
    let each = results(&bench);
    // Half of the lines, and no work directory.
    let text = bench.read("out.jsonl");
    let half: String = text.lines().skip(3).map(|line| format!("{line}\n")).collect();
    bench.write("out.jsonl", half);
    bench.run(&format!("{ask} --resume --dedupe --keep-work-dir")).expect(0);
    assert_eq!(server.count(), 6, "{:?}", server.counts());
    let [third, fourth, fifth] = [3, 4, 5].map(|at| each[at].clone());
    let all = [fourth.clone(), third.clone(), fourth.clone(), third, fourth, fifth];
    assert_eq!(results(&bench), all);
    bench.run(&format!("{ask} --resume --dedupe")).expect(0);
    assert_eq!(server.count(), 6);
}

#[test]
fn a_dry_run_tells_what_it_would_save() {
    let bench = Bench::new();
    bench.write("in.jsonl", turns(100, 8));
    let ask = "run in.jsonl -o out.jsonl -p {{text}} -m m --dry-run";
    bench.run(ask).expect(0).says("92 rows ask what another row asks: --dedupe would save");
    let ended = bench.run(&format!("{ask} --temperature 0")).expect(0);
    ended.says("100 would be asked about, in 1 shards, 92 of them without a call of their own");
    bench.write("in.jsonl", turns(8, 9));
    assert!(!bench.run(ask).expect(0).stderr.contains("--dedupe"));
}

#[test]
fn damage_to_what_the_plan_says_of_twins_is_told() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", turns(200, 3));
    bench.run(ASK).expect(0);
    bench.run("check --work-dir job").expect(0);
    // The last shards have no journal at all, and are looked at all the same.
    let path = "job/shards/00002/twins";
    let text = bench.read(path);
    assert!(!bench.exists("job/shards/00002/journal"));
    bench.write(path, text.replace("\"of\":1,", "\"of\":2,"));
    assert!(bench.run("check --work-dir job").expect(70).stdout.contains("shards/00002/twins"));
    bench.run("merge --work-dir job -o other.jsonl").expect(70).says("not what was planned");
    bench.write(path, text);
    bench.run("check --work-dir job").expect(0);
    bench.run("merge --work-dir job -o other.jsonl").expect(0);
    assert_eq!(bench.read("other.jsonl"), bench.read("out.jsonl"));
}

/// What one command of a history asks for.
#[derive(Debug, Clone, Copy)]
struct Step {
    is_deduped: bool,
    new_only: bool,
    retries: bool,
}

/// What is known of a row: what it asked, and the call whose outcome it has.
#[derive(Debug, Clone)]
struct Known {
    line: String,
    prompt: String,
    call: usize,
    // Whether the call is on this row's account.
    is_holder: bool,
}

/// A call, and what it counts as.
#[derive(Debug, Clone)]
struct Made {
    prompt: String,
    // Whether that is what was asked.
    is_exact: bool,
    // Nothing where it failed.
    answer: Option<String>,
}

/// The job in a person's terms: which row has the outcome of which call.
#[derive(Debug, Default)]
struct Oracle {
    by_number: bool,
    rows: Vec<(String, Known)>,
    made: Vec<Made>,
    planned: Option<(String, bool)>,
}

impl Oracle {
    /// Settles whose outcome each row has, and gives the calls that are to be made, of which some
    /// were made before and failed.
    fn plan(&mut self, input: &str, step: Step) -> HashSet<usize> {
        let old_calls = self.made.len();
        let planned = Some((input.to_owned(), step.is_deduped));
        if self.planned != planned {
            self.plan_anew(input, step);
            self.planned = planned;
        }
        let failed = |call: &usize| self.made[*call].answer.is_none();
        let open = self.rows.iter().map(|(_, row)| row.call).filter(failed);
        open.filter(|call| *call >= old_calls || step.retries).collect()
    }

    fn plan_anew(&mut self, input: &str, step: Step) {
        let old: HashMap<String, Known> = self.rows.drain(..).collect();
        let mut rows: Vec<(String, String, String, Option<Known>)> = Vec::new();
        for (line, number) in input.lines().zip(1..) {
            let word = |nth| line.split('"').nth(nth).unwrap().to_owned();
            let key = if self.by_number { format!("{number}") } else { word(3) };
            let prompt = word(7);
            let still_answers = |it: &&Known| {
                let is_same_row = !self.by_number || it.line == line;
                it.prompt == prompt || step.new_only && is_same_row
            };
            let known = old.get(&key).filter(still_answers).cloned();
            rows.push((key, line.to_owned(), prompt, known));
        }
        // A call is on the account of the row that it was made for, or of the first that is left.
        let mut holders: HashMap<usize, usize> = HashMap::new();
        for wants_holder in [true, false] {
            for (at, (.., known)) in rows.iter().enumerate() {
                if let Some(known) = known.as_ref().filter(|it| it.is_holder == wants_holder) {
                    holders.entry(known.call).or_insert(at);
                }
            }
        }
        for (call, at) in &holders {
            let (made, prompt) = (&mut self.made[*call], &rows[*at].2);
            made.is_exact &= made.prompt == *prompt;
            made.prompt.clone_from(prompt);
        }
        let keeps = |at: usize, call: usize, prompt: &str| {
            let Made { prompt: asked, answer, .. } = &self.made[call];
            holders[&call] == at || answer.is_some() || step.is_deduped && prompt == asked
        };
        let mut calls: Vec<Option<usize>> = Vec::new();
        for (at, (.., prompt, known)) in rows.iter().enumerate() {
            calls.push(known.as_ref().map(|it| it.call).filter(|call| keeps(at, *call, prompt)));
        }
        // The others take the first answer to what they ask, or are called.
        let mut shared: HashMap<String, usize> = HashMap::new();
        for (at, call) in calls.iter().enumerate() {
            if let Some(call) = call.filter(|call| holders[call] == at) {
                let Made { prompt, is_exact, answer } = &self.made[call];
                if *is_exact && answer.is_some() {
                    shared.entry(prompt.clone()).or_insert(call);
                }
            }
        }
        for (at, (key, line, prompt, _)) in rows.into_iter().enumerate() {
            let known =
                calls[at].or_else(|| shared.get(&prompt).copied().filter(|_| step.is_deduped));
            let call = known.unwrap_or_else(|| {
                self.made.push(Made { prompt: prompt.clone(), is_exact: true, answer: None });
                let call = self.made.len() - 1;
                holders.insert(call, at);
                shared.insert(prompt.clone(), call);
                call
            });
            let is_holder = holders[&call] == at;
            self.rows.push((key, Known { line, prompt, call, is_holder }));
        }
    }

    /// Compares an output with what is known, and learns what the calls brought that were made.
    fn learn(&mut self, output: &[Value], open: &HashSet<usize>, failing: &HashSet<String>) {
        assert_eq!(output.len(), self.rows.len());
        for ((_, row), line) in self.rows.iter().zip(output).filter(|((_, it), _)| it.is_holder) {
            if !open.contains(&row.call) || failing.contains(&row.prompt) {
                continue;
            }
            let answer = line["result"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned();
            assert!(answer.starts_with(&format!("{} #", row.prompt)), "{line}, {row:?}");
            let is_new = !self.made.iter().any(|it| it.answer.as_ref() == Some(&answer));
            assert!(is_new, "{answer} is the answer of another call");
            let made = &mut self.made[row.call];
            (made.answer, made.is_exact) = (Some(answer), true);
        }
        for ((_, row), (line, number)) in self.rows.iter().zip(output.iter().zip(1..)) {
            let answer = self.made[row.call].answer.clone();
            assert_eq!((&line["result"], &line["row_number"]), (&json!(answer), &json!(number)));
            assert_eq!(line["ok"], answer.is_some());
            let id = row.line.split('"').nth(3).unwrap();
            assert_eq!(line["id"], if self.by_number { json!(number) } else { json!(id) });
        }
    }
}

/// The most calls in flight, and so the most that a kill may repeat.
const IN_FLIGHT: usize = 3;

fn edit(rows: &mut Vec<(usize, usize)>, next: &mut usize, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(..12) {
        *next += 1;
        let at = if random.bool() { rows.len() } else { random.usize(..=rows.len()) };
        rows.insert(at, (*next, random.usize(..6)));
    }
    for _ in 0..random.usize(..4).min(rows.len()) {
        let (at, other) = (random.usize(..rows.len()), random.usize(..rows.len()));
        match random.u8(..3) {
            0 if rows.len() > 1 => drop(rows.remove(at)),
            1 => rows[at].1 = random.usize(..6),
            _ => rows.swap(at, other),
        }
    }
}

fn history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let failing: Arc<Mutex<HashSet<String>>> = Arc::default();
    let script = Arc::clone(&failing);
    let server = Server::start(move |Call { prompt, nth, .. }| {
        match script.lock().unwrap().contains(prompt) {
            true => Reply::status(400),
            false => Reply::Answer(format!("{prompt} #{nth}")),
        }
    });
    let bench = Bench::with_server(&server);
    let mut oracle = Oracle { by_number: random.u8(..3) == 0, ..Oracle::default() };
    let (mut rows, mut next) = (vec![(0, 0)], 0);
    for number in 0..8 {
        if random.u8(..4) > 0 {
            edit(&mut rows, &mut next, &mut random);
        }
        let step = Step {
            is_deduped: random.u8(..5) > 0,
            new_only: random.u8(..4) == 0,
            retries: random.u8(..4) > 0,
        };
        let failing = {
            let mut failing = failing.lock().unwrap();
            failing.retain(|_| random.bool());
            failing.extend((random.u8(..2) == 0).then(|| format!("t{}", random.usize(..6))));
            failing.clone()
        };
        let input: String = rows.iter().map(|(id, text)| row(*id, &format!("t{text}"))).collect();
        bench.write("in.jsonl", &input);
        let open = oracle.plan(&input, step);
        let mut line = format!(
            "run in.jsonl -o out.jsonl -p {{{{text}}}} -m m -c {IN_FLIGHT} --retries 0 --work-dir job \
             --resume"
        );
        line += if oracle.by_number { "" } else { " --id-field id" };
        line += if step.is_deduped { " --dedupe" } else { " --no-dedupe" };
        line += if step.new_only { " --on-change new-only" } else { " --on-change update" };
        line += if step.retries { "" } else { " --no-retry-failed" };
        line += if random.u8(..4) == 0 { " --shards 3" } else { " --shard-rows 5" };
        let place = format!("seed {seed}, step {number}: {line}");
        eprintln!("{place}");
        let (before, mut slack) = (server.count(), 0);
        while !open.is_empty() && random.u8(..5) == 0 {
            let running = bench.start(&line);
            server.wait_for_calls(server.count().max(before + random.usize(1..=open.len())));
            running.kill();
            // What had failed when it was killed is tried again.
            slack += IN_FLIGHT + if step.retries { open.len() } else { 0 };
        }
        let ended = bench.run(&line);
        oracle.learn(&bench.lines("out.jsonl"), &open, &failing);
        let has_failed = oracle.rows.iter().any(|(_, it)| oracle.made[it.call].answer.is_none());
        assert_eq!(ended.code, if has_failed { 3 } else { 0 }, "{place}\n{}", ended.stderr);
        let calls = server.count() - before;
        let most = open.len() + slack;
        assert!((open.len()..=most).contains(&calls), "{place}: {calls}, not {} calls", open.len());
        bench.run("check --work-dir job").expect(0);
    }
}

/// `ROWMILL_HISTORIES` is the number of histories; the suite tries a few.
#[test]
fn random_histories_give_each_row_the_outcome_of_the_call_that_the_oracle_says() {
    let wanted = std::env::var("ROWMILL_HISTORIES").ok().and_then(|it| it.parse().ok());
    (0..wanted.unwrap_or(12)).for_each(history);
}
