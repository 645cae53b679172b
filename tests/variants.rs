//! Several models or repeats over the same rows in one job: one envelope a row and variant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::server::{Call, Reply, Server, answer_to};
use crate::support::{Bench, assert_same, assert_text};

/// A bench with two endpoints in its config file, `one` and `two`.
fn bench(one: &str, two: &str, count: usize) -> Bench {
    let bench = Bench::with_rows(count);
    endpoints(&bench, one, two);
    bench
}

fn endpoints(bench: &Bench, one: &str, two: &str) {
    let endpoint = |name: &str, url: &str| format!("[endpoint.{name}]\nbase_url = \"{url}\"\n");
    bench.write("rowmill.toml", endpoint("one", one) + &endpoint("two", two));
}

/// A server that answers with its name, the model and the prompt.
fn named(name: &'static str) -> Server {
    Server::start(move |call| {
        Reply::Answer(said(name, call.body["model"].as_str().unwrap(), &call.prompt))
    })
}

fn said(server: &str, model: &str, prompt: &str) -> String {
    format!("{server}/{model}: {prompt}")
}

/// A place where nobody listens.
fn nowhere() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}/v1")
}

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} --work-dir job \
                   --shard-rows 7";
const BOTH: &str = "-m one.a -m two.b --repeat 2";

/// What the output of [`ASK`] is for these variants, each as a model and the one of its answers, and
/// what it answers.
fn expected(count: usize, variants: &[(&str, u32, &str)]) -> String {
    let mut text = String::new();
    for n in 1..=count {
        for (model, repeat, says) in variants {
            let answer = format!("{says}: text {n}");
            text += &format!(
                "{{\"id\":\"r{n}\",\"row_number\":{n},\"model\":\"{model}\",\"repeat\":{repeat},\
                 \"ok\":true,\"result\":\"{answer}\",\"error\":null}}\n"
            );
        }
    }
    text
}

const FOUR: [(&str, u32, &str); 4] =
    [("one.a", 1, "one/a"), ("one.a", 2, "one/a"), ("two.b", 1, "two/b"), ("two.b", 2, "two/b")];

#[test]
fn each_row_has_an_envelope_for_each_model_and_repeat() {
    let (one, two) = (named("one"), named("two"));
    let bench = bench(&one.url(), &two.url(), 100);
    let line = format!(
        "{ASK} {BOTH} --error-output errors.jsonl --telemetry-output calls.jsonl \
         --output-delta delta.jsonl -c 8 --include-input"
    );
    let ended = bench.run(&line).expect(0).says("100 rows × 4 variants");
    assert_eq!((one.count(), two.count()), (200, 200));
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines.len(), 400);
    assert_eq!(lines[2]["input"], json!({"id": "r1", "text": "text 1"}));
    let with_input = |text: String| {
        let line = |line: &str| {
            let envelope: Value = serde_json::from_str(line).unwrap();
            let (id, number) = (&envelope["id"], &envelope["row_number"]);
            let input = format!("{{\"id\":{id},\"text\":\"text {number}\"}}");
            format!("{},\"input\":{input}}}\n", line.strip_suffix('}').unwrap())
        };
        text.lines().map(line).collect::<String>()
    };
    assert_text(&bench.read("out.jsonl"), &with_input(expected(100, &FOUR)));
    assert_text(&bench.read("delta.jsonl"), &bench.read("out.jsonl"));
    assert_eq!(bench.read("errors.jsonl"), "");
    let calls = bench.lines("calls.jsonl");
    assert_eq!(calls.len(), 400);
    let heads: Vec<_> = calls[4..8]
        .iter()
        .map(|it| (it["row_number"].clone(), it["asked_model"].clone(), it["repeat"].clone()))
        .collect();
    let head = |model: &str, repeat: u32| (json!(2), json!(model), json!(repeat));
    assert_eq!(heads, FOUR.map(|(model, repeat, _)| head(model, repeat)));
    let summary = ended.summary();
    assert_eq!(summary["rows"]["selected"], 100);
    assert_eq!(summary["rows"]["ok"], 400);
    let variants = summary["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 4);
    for (it, (model, repeat, _)) in variants.iter().zip(FOUR) {
        assert_eq!((&it["model"], &it["repeat"]), (&json!(model), &json!(repeat)));
        assert_eq!((&it["ok"], &it["failed"], &it["calls"]), (&json!(100), &json!(0), &json!(100)));
        assert_eq!(it["usage"]["input_tokens"], 1100);
    }
    assert_eq!(
        (&variants[3]["asked_of"], &variants[3]["base_url"]),
        (&json!("b"), &json!(two.url()))
    );
    let status: Value =
        serde_json::from_str(&bench.run("status --work-dir job --json").expect(0).stdout).unwrap();
    assert_eq!(
        (&status["rows"], &status["ok"], &status["left"]),
        (&json!(400), &json!(400), &json!(0))
    );
    assert_eq!(
        status["variants"][1],
        json!({"model": "one.a", "repeat": 2, "ok": 100, "failed": 0, "left": 0})
    );
    let shown = bench.run("status --work-dir job").expect(0).stdout;
    assert!(shown.contains("100 × 4 variants"), "{shown}");
    bench.run("check --work-dir job").expect(0);
    let before = bench.snapshot();
    bench.run(&format!("{line} --resume")).expect(0);
    assert_same(&bench.snapshot(), &before);
}

#[test]
fn a_killed_run_repeats_at_most_what_was_in_flight() {
    let (one, two) = (named("one"), named("two"));
    let bench = bench(&one.url(), &two.url(), 100);
    let line = format!("{ASK} {BOTH} -c 8 --resume");
    for calls in [30, 150, 290] {
        let running = bench.start(&line);
        while one.count() + two.count() < calls {
            std::thread::yield_now();
        }
        running.kill();
    }
    bench.run(&line).expect(0);
    let calls = one.count() + two.count();
    assert!((400..=400 + 3 * 8).contains(&calls), "{calls} calls");
    assert_text(&bench.read("out.jsonl"), &expected(100, &FOUR));
}

#[test]
fn what_one_model_is_asked_does_not_wait_for_one_that_is_away() {
    let two = named("two");
    let bench = bench(&nowhere(), &two.url(), 100);
    let line = format!("{ASK} {BOTH} --error-output errors.jsonl -c 4");
    // It ends as one endpoint is out of reach, but not before the other's rows are done.
    bench.run(&format!("{line} --max-outage 0.3")).expect(69).says("200 answers are left");
    assert_eq!(two.count(), 200);
    assert!(!bench.exists("out.jsonl"));
    let status: Value =
        serde_json::from_str(&bench.run("status --work-dir job --json").expect(0).stdout).unwrap();
    let left: Vec<_> =
        status["variants"].as_array().unwrap().iter().map(|it| it["left"].clone()).collect();
    assert_eq!(left, [100, 100, 0, 0]);
    let one = named("one");
    endpoints(&bench, &one.url(), &two.url());
    bench.run(&format!("{line} --resume")).expect(0);
    assert_eq!((one.count(), two.count()), (200, 200));
    assert_text(&bench.read("out.jsonl"), &expected(100, &FOUR));
}

#[test]
fn a_model_that_asks_for_time_gets_it_while_others_answer() {
    let two = Arc::new(named("two"));
    let other = Arc::clone(&two);
    let one = Server::start(move |call| match other.count() {
        60 => Reply::Answer(said("one", "a", &call.prompt)),
        _ => Reply::Status(429, vec![("retry-after", "1".to_owned())], "{}".to_owned()),
    });
    let bench = bench(&one.url(), &two.url(), 60);
    bench.run(&format!("{ASK} -m one.a -m two.b -c 4 --parallel 1")).expect(0);
    let variants = [("one.a", 1, "one/a"), ("two.b", 1, "two/b")];
    assert_text(&bench.read("out.jsonl"), &expected(60, &variants));
}

#[test]
fn rows_that_failed_are_tried_again_in_the_variants_in_which_they_did() {
    let failing = Arc::new(Mutex::new(true));
    let script = Arc::clone(&failing);
    let one = Server::start(move |call| match call.prompt.as_str() {
        "text 3" | "text 9" if *script.lock().unwrap() => Reply::status(400),
        prompt => Reply::Answer(said("one", "a", prompt)),
    });
    let two = named("two");
    let bench = bench(&one.url(), &two.url(), 10);
    let line = format!("{ASK} -m one.a -m two.b --error-output errors.jsonl");
    bench.run(&line).expect(3).says("2 of 20 answers failed");
    bench.run(&format!("{line} --resume --allow-failed 10%")).expect(0);
    let errors = bench.lines("errors.jsonl");
    let told: Vec<_> = errors.iter().map(|it| (&it["id"], &it["model"], &it["repeat"])).collect();
    let told_of = |id| (json!(id), json!("one.a"), json!(1));
    let (r3, r9) = (told_of("r3"), told_of("r9"));
    assert_eq!(told, [(&r3.0, &r3.1, &r3.2), (&r9.0, &r9.1, &r9.2)]);
    *failing.lock().unwrap() = false;
    let calls = (one.count(), two.count());
    bench.write("ids", "r9\nr4\n");
    bench.run(&format!("{line} --resume --retry-ids ids")).expect(3);
    assert_eq!((one.count() - calls.0, two.count() - calls.1), (1, 0));
    bench.run(&format!("{line} --resume")).expect(0);
    assert_eq!((one.count() - calls.0, two.count() - calls.1), (2, 0));
    let variants = [("one.a", 1, "one/a"), ("two.b", 1, "two/b")];
    assert_text(&bench.read("out.jsonl"), &expected(10, &variants));
}

#[test]
fn an_update_asks_only_what_is_new_of_models_and_repeats() {
    let (one, two) = (named("one"), named("two"));
    let bench = bench(&one.url(), &two.url(), 20);
    let calls = || one.count() + two.count();
    let ask = |models: &str, costs: usize, variants: &[(&str, u32, &str)]| {
        let before = calls();
        let line = format!("{ASK} {models} --resume --on-change update");
        bench.run(&line).expect(0);
        assert_eq!(calls() - before, costs, "{models}");
        match variants {
            [(_, _, says)] => {
                let line = |n| {
                    format!(
                        "{{\"id\":\"r{n}\",\"row_number\":{n},\"ok\":true,\
                         \"result\":\"{says}: text {n}\",\"error\":null}}\n"
                    )
                };
                assert_text(&bench.read("out.jsonl"), &(1..=20).map(line).collect::<String>());
            }
            several => assert_text(&bench.read("out.jsonl"), &expected(20, several)),
        }
        bench.run("check --work-dir job").expect(0);
    };
    let (a1, a2) = (("one.a", 1, "one/a"), ("one.a", 2, "one/a"));
    let (b1, b2) = (("two.b", 1, "two/b"), ("two.b", 2, "two/b"));
    ask("-m one.a", 20, &[a1]);
    bench
        .run(&format!("{ASK} -m one.a -m two.b --resume"))
        .expect(78)
        .says("an update would keep 20 answers and ask for 20 (2 variants a row)");
    ask("-m one.a -m two.b", 20, &[a1, b1]);
    ask("-m one.a -m two.b --repeat 2", 40, &[a1, a2, b1, b2]);
    ask("-m two.b -m one.a --repeat 2", 0, &[b1, b2, a1, a2]);
    ask("-m two.b -m one.c -m one.a", 20, &[b1, ("one.c", 1, "one/c"), a1]);
    // Answers of more than one generation, under other numbers by now.
    ask("-m one.a -m two.b", 0, &[a1, b1]);
    ask("-m two.b", 0, &[b1]);
    // One of two models is asked otherwise, and then both.
    ask("-m two.b -m one.a", 20, &[b1, a1]);
    let warm = ("one.a?temperature=1", 1, "one/a");
    ask("-m two.b -m one.a?temperature=1", 20, &[b1, warm]);
    ask("-m two.b -m one.a?temperature=1 --max-tokens 9", 40, &[b1, warm]);
    ask("-m two.b -m one.a?temperature=1 --accept-change params", 0, &[b1, warm]);
    ask("-m two.b -m one.d --accept-change params,model", 0, &[b1, ("one.d", 1, "one/a")]);
    // The same model at another endpoint is another variant, but asked the same.
    ask("-m two.b -m one.b", 20, &[b1, ("one.b", 1, "one/b")]);
    ask("-m one.b -m two.b", 0, &[("one.b", 1, "one/b"), b1]);
}

#[test]
fn plan_work_and_merge_may_be_commands_of_their_own() {
    let (one, two) = (named("one"), named("two"));
    let bench = bench(&one.url(), &two.url(), 30);
    let plan =
        format!("plan in.jsonl --id-field id -p {{{{text}}}} {BOTH} --work-dir job --shards 2");
    bench.run(&plan).expect(0).says("planned: 30 of 30 rows × 4 variants in 8 shards");
    bench.run("merge --work-dir job -o out.jsonl").expect(78).says("120 of 120 rows");
    // A shard is of one variant: this is the first model's second answer.
    bench.run("work --work-dir job --shard 1").expect(0);
    assert!(one.count() > 0 && two.count() == 0);
    // What is left is spread over more shards.
    bench.run("work --work-dir job").expect(0);
    assert_eq!((one.count(), two.count()), (60, 60));
    bench.run("merge --work-dir job -o out.jsonl").expect(0);
    assert_text(&bench.read("out.jsonl"), &expected(30, &FOUR));
}

#[test]
fn what_is_left_is_spread_over_more_shards_alike_for_all_variants() {
    let two = named("two");
    let bench = bench(&nowhere(), &two.url(), 100);
    let line = ASK.replace("--shard-rows 7", "--shards 1");
    bench.run(&format!("{line} {BOTH} --max-outage 0.2")).expect(69);
    let one = named("one");
    endpoints(&bench, &one.url(), &two.url());
    let again = line.replace("--shards 1", "--shards 5");
    bench.run(&format!("{again} {BOTH} --resume")).expect(0).says("spread over 5 shards");
    assert_eq!((one.count(), two.count()), (200, 200));
    assert_text(&bench.read("out.jsonl"), &expected(100, &FOUR));
}

#[test]
fn answers_are_taken_over_from_an_output_whose_work_directory_is_gone() {
    let (one, two) = (named("one"), named("two"));
    let bench = bench(&one.url(), &two.url(), 30);
    let line = format!("{ASK} {BOTH}");
    bench.run(&line).expect(0);
    let whole = bench.read("out.jsonl");
    let kept: String = whole
        .lines()
        .enumerate()
        .filter(|(n, _)| n % 5 > 0)
        .map(|(_, it)| format!("{it}\n"))
        .collect();
    std::fs::remove_dir_all(bench.path("job")).unwrap();
    bench.write("out.jsonl", kept);
    bench.run(&format!("{line} --resume")).expect(0).says("took over 96 answers");
    assert_eq!(one.count() + two.count(), 120 + 24);
    assert_text(&bench.read("out.jsonl"), &whole);
    // They are no answers of a job that wants one a row.
    std::fs::remove_dir_all(bench.path("job")).unwrap();
    std::fs::copy(bench.path("out.jsonl"), bench.path("copy.jsonl")).unwrap();
    let alone = ASK.replace("out.jsonl", "copy.jsonl");
    let ended = bench.run(&format!("{alone} -m one.a --resume"));
    match ended.code {
        78 => {}
        _ => drop(ended.expect(0).says("took over 0 answers")),
    }
}

#[test]
fn duplicates_are_rows_and_not_envelopes() {
    let (one, two) = (named("one"), named("two"));
    let bench = bench(&one.url(), &two.url(), 0);
    let row = |id: &str, n: usize| format!("{{\"id\":\"{id}\",\"text\":\"text {n}\"}}\n");
    let input: String = (1..=20).map(|n| row(if n % 5 == 0 { "x" } else { "y" }, n)).collect();
    bench.write("in.jsonl", input);
    bench.run(&format!("{ASK} {BOTH}")).expect(65).says("18 rows have the id of an earlier row");
    let first = bench.run(&format!("{ASK} {BOTH} --on-duplicate first")).expect(0).summary();
    assert_eq!((&first["rows"]["skipped"], &first["rows"]["ok"]), (&json!(18), &json!(8)));
    bench.run(&format!("{ASK} {BOTH} --on-duplicate suffix --overwrite")).expect(0);
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines.len(), 80);
    let mut seen: HashMap<String, usize> = HashMap::new();
    lines.iter().for_each(|it| *seen.entry(it["id"].to_string()).or_default() += 1);
    assert!(seen.len() == 20 && seen.values().all(|count| *count == 4), "{seen:?}");
    bench.run("check --work-dir job").expect(0);
}

#[test]
fn passthrough_beside_a_model_costs_no_call() {
    let one = Server::echo();
    let bench = bench(&one.url(), &one.url(), 5);
    let line = format!("{ASK} -m passthrough -m one.a --telemetry-output calls.jsonl");
    let summary = bench.run(&line).expect(0).summary();
    assert_eq!((one.count(), &summary["calls"]["made"]), (5, &json!(5)));
    let calls: Vec<_> =
        summary["variants"].as_array().unwrap().iter().map(|it| it["calls"].clone()).collect();
    assert_eq!(calls, [0, 5]);
    let results: Vec<_> = bench.lines("out.jsonl").iter().map(|it| it["result"].clone()).collect();
    assert_eq!(results[..2], [json!("text 1"), json!(answer_to("text 1"))]);
}

#[test]
fn a_dry_run_shows_the_first_row_for_each_model() {
    let bench = bench("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1", 5);
    let ended = bench.run(&format!("{ASK} {BOTH} --dry-run")).expect(0);
    let shown: Vec<Value> = serde_json::Deserializer::from_str(&ended.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    let told = |it: &Value| (it["model"].clone(), it["url"].clone(), it["body"]["model"].clone());
    let of = |model, port, asked| {
        let url = format!("http://127.0.0.1:{port}/v1/chat/completions");
        (json!(model), json!(url), json!(asked))
    };
    assert_eq!(
        shown.iter().map(told).collect::<Vec<_>>(),
        [of("one.a", 1, "a"), of("two.b", 2, "b")]
    );
    ended.says("5 would be asked about × 4 variants");
}

#[test]
fn each_model_has_its_own_place_key_and_parameters() {
    let (one, two) = (named("one"), named("two"));
    let mut bench = bench(&one.url(), &two.url(), 3);
    bench.set("ONE_KEY", "key-of-one");
    bench.write(
        "rowmill.toml",
        format!("[endpoint.one]\nbase_url = \"{}\"\nkey_env = \"ONE_KEY\"\n", one.url()),
    );
    let line = format!(
        "{ASK} -m one.a?temperature=0.5 -m b -m one.a --base-url {} --max-tokens 7",
        two.url()
    );
    bench.run(&line).expect(0);
    let sent = |call: &Call| {
        let key = call.headers["authorization"].clone();
        (key, call.body["model"].clone(), call.body["temperature"].clone())
    };
    assert!(one.calls().iter().all(|call| call.headers["authorization"] == "Bearer key-of-one"));
    let with_temperature = one.calls().iter().filter(|call| sent(call).2 == 0.5).count();
    assert_eq!((one.count(), with_temperature, two.count()), (6, 3, 3));
    let key = format!("Bearer {}", crate::support::CANARY);
    assert!(two.calls().iter().all(|call| sent(call) == (key.clone(), json!("b"), Value::Null)));
    assert!(one.calls().iter().chain(&two.calls()).all(|call| call.body["max_tokens"] == 7));
    let models: Vec<_> =
        bench.lines("out.jsonl")[..3].iter().map(|it| it["model"].clone()).collect();
    assert_eq!(models, ["one.a?temperature=0.5", "b", "one.a"]);
}

#[test]
fn work_finds_all_models_where_the_plan_says_and_a_key_is_fetched_once() {
    let (one, two) = (named("one"), named("two"));
    let bench = bench(&one.url(), &two.url(), 4);
    let fetch = "[\"sh\", \"-c\", \"echo x >> fetched; echo key-of-one\"]";
    let config = format!(
        "[endpoint.one]\nbase_url = \"{}\"\nkey_command = {fetch}\n\
         [endpoint.two]\nbase_url = \"{}\"\nkey_file = \"key\"\n",
        one.url(),
        two.url()
    );
    bench.write("rowmill.toml", config);
    bench.write("key", "key-of-two\n");
    let plan = "plan in.jsonl --id-field id -p {{text}} -m passthrough -m one.a -m two.b -m one.c -m d \
                --base-url http://127.0.0.1:9/v1 --work-dir job";
    bench.run(plan).expect(0).says("4 of 4 rows × 5 variants");
    assert!(!bench.exists("fetched"), "a plan makes no call");
    let elsewhere = format!("work --work-dir job --base-url {} --api-key-file third", two.url());
    bench.write("third", "key-of-d\n");
    bench.run(&elsewhere).expect(0);
    assert_eq!(bench.read("fetched"), "x\n");
    let keys = |server: &Server| {
        let of =
            |call: &Call| (call.body["model"].to_string(), call.headers["authorization"].clone());
        server.calls().iter().map(of).collect::<std::collections::BTreeSet<_>>()
    };
    let expected = |all: [(&str, &str); 2]| {
        let one = |(model, key)| (format!("\"{model}\""), format!("Bearer {key}"));
        all.map(one).into_iter().collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(keys(&one), expected([("a", "key-of-one"), ("c", "key-of-one")]));
    assert_eq!(keys(&two), expected([("b", "key-of-two"), ("d", "key-of-d")]));
    bench.run("merge --work-dir job -o out.jsonl").expect(0);
    let models: Vec<_> =
        bench.lines("out.jsonl")[..5].iter().map(|it| it["model"].clone()).collect();
    assert_eq!(models, ["passthrough", "one.a", "two.b", "one.c", "d"]);
    bench.run("work --work-dir job --serve vllm").expect(2).says("the plan has several");
}

#[test]
fn each_model_has_its_price_and_the_cap_is_for_all() {
    let (one, two) = (named("one"), named("two"));
    let bench = bench(&one.url(), &two.url(), 10);
    let config = bench.read("rowmill.toml");
    let prices = "[price.\"one.a\"]\ninput = 100\noutput = 1000\n";
    bench.write("rowmill.toml", format!("{config}{prices}"));
    // Of the test server's answers, 11 tokens in and 7 out, each of one's costs $0.0081.
    let models = "-m one.a -m two.b -m passthrough --repeat 2";
    let estimate = "estimate in.jsonl -p {{text}} --expect-output 7";
    let shown = bench.run(&format!("{estimate} {models}")).expect(0).stdout;
    for says in [
        "model          one.a\n",
        "rows           10 in the input, 10 selected, 20 calls\n",
        "cost in all    unknown",
    ] {
        assert!(shown.contains(says), "{says}: {shown}");
    }
    assert!(!shown.contains("spread over all"), "all were counted: {shown}");
    let told =
        bench.run(&format!("{estimate} -m one.a?temperature=0 -m one.a?temperature=1 --json"));
    let told: Value = serde_json::from_str(&told.expect(0).stdout).unwrap();
    let of = |at: usize| ["asked_model", "model"].map(|field| told[at][field].clone());
    assert_eq!(of(0), ["one.a?temperature=0", "a"]);
    assert_eq!(of(1), ["one.a?temperature=1", "a"]);
    let line = format!("{ASK} {models}");
    bench.run(&format!("{line} --max-cost 1")).expect(2).says("no price of two.b");
    let summary = bench.run(&line).expect(0).summary();
    assert_eq!(
        (&summary["cost"]["cost_usd"], &summary["cost"]["unknown_calls"]),
        (&json!(0.162), &json!(20))
    );
    let costs: Vec<_> =
        summary["variants"].as_array().unwrap().iter().map(|it| it["cost_usd"].clone()).collect();
    assert_eq!(costs, [json!(0.081), json!(0.081), Value::Null, Value::Null, json!(0), json!(0)]);
    let prices = format!("{prices}[price.\"two.b\"]\ninput = 200\noutput = 2000\n");
    bench.write("rowmill.toml", format!("{config}{prices}"));
    let told = bench.run(&format!("{estimate} {models} --json")).expect(0).stdout;
    let told: Value = serde_json::from_str(&told).unwrap();
    let calls: Vec<_> = told.as_array().unwrap().iter().map(|it| it["calls"].clone()).collect();
    assert_eq!(calls, [20, 20, 0]);
    let line = format!("{line} --overwrite --max-tokens 7 -c 1");
    bench.run(&format!("{line} --max-cost 0.1")).expect(4).says("answers are left; allow more");
    let more = line.replace("--overwrite", "--resume");
    bench.run(&format!("{more} --max-cost 5")).expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 60);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let bench = bench("http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1", 3);
    bench.write("key", "k");
    for (models, said) in [
        ("-m one.a -m two.b -m one.a", "to ask a model several times, say --repeat N"),
        ("-m one.a -m two.b --base-url http://127.0.0.1:3/v1", "of their own"),
        ("-m one.a -m two.b --api-key-file key", "the models are at several"),
        ("-m local -m one.a", "serves one model"),
        ("-m one.a -m local", "cannot be one of several"),
        ("-m one.a -m two.b --serve vllm", "serves one model"),
        ("-m one.a --repeat 0", "--repeat"),
    ] {
        let ended = bench.run(&format!("{ASK} {models}"));
        assert_eq!(ended.code, 2, "{models}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{models}: {}", ended.stderr);
    }
    assert!(!bench.exists("job"));
}

/// What is wanted of a row by one step of a history: models and how often each is asked.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    models: Vec<&'static str>,
    repeat: u32,
}

/// One history: rows change, models come, go and change places, processes are killed. The oracle is a
/// table of what was answered, by row, model and repeat.
fn history(seed: u64) -> usize {
    const IN_FLIGHT: usize = 3;
    let mut random = fastrand::Rng::with_seed(seed);
    let server = named("any");
    let bench = bench(&server.url(), &server.url(), 0);
    let mut known: HashMap<(usize, &str, u32), String> = HashMap::new();
    let mut texts: Vec<String> = (0..15).map(|n| format!("t{n}")).collect();
    let (mut kills, by_number) = (0, random.bool());
    for step in 0..6 {
        for _ in 0..random.usize(..4) {
            let at = random.usize(..texts.len());
            texts[at] = format!("e{step}-{at}");
        }
        for _ in 0..random.usize(..4) {
            texts.push(format!("n{step}-{}", texts.len()));
        }
        let mut models = vec!["one.a", "two.b", "one.c"];
        random.shuffle(&mut models);
        models.truncate(random.usize(1..=3));
        let wanted = Wanted { models, repeat: random.u32(1..=2) };
        let input: String = texts
            .iter()
            .enumerate()
            .map(|(id, text)| format!("{{\"id\":{id},\"text\":\"{text}\"}}\n"))
            .collect();
        bench.write("in.jsonl", input);
        let (mut now, mut costs, mut output) = (HashMap::new(), 0, String::new());
        let is_varied = wanted.models.len() > 1 || wanted.repeat > 1;
        for (id, text) in texts.iter().enumerate() {
            for model in &wanted.models {
                for repeat in 1..=wanted.repeat {
                    let key = (id, *model, repeat);
                    costs += usize::from(known.get(&key) != Some(text));
                    now.insert(key, text.clone());
                    let mark = format!("\"model\":\"{model}\",\"repeat\":{repeat},");
                    let mark = if is_varied { mark } else { String::new() };
                    let answer = said("any", model.split_once('.').unwrap().1, text);
                    let number = id + 1;
                    let id = if by_number { number } else { id };
                    output += &format!(
                        "{{\"id\":{id},\"row_number\":{number},{mark}\"ok\":true,\
                         \"result\":\"{answer}\",\"error\":null}}\n",
                    );
                }
            }
        }
        known = now;
        let models: Vec<_> = wanted.models.iter().map(|it| format!("-m {it}")).collect();
        let line = format!(
            "{ASK} {} --repeat {} -c {IN_FLIGHT} --resume --on-change update",
            models.join(" "),
            wanted.repeat
        );
        let line = if by_number { line.replace(" --id-field id", "") } else { line };
        let (before, mut slack) = (server.count(), 0);
        while costs > 0 && random.u8(..3) == 0 {
            let running = bench.start(&line);
            server.wait_for_calls(server.count().max(before + random.usize(1..=costs)));
            running.kill();
            kills += 1;
            slack += IN_FLIGHT;
        }
        let ended = bench.run(&line);
        let place = format!("seed {seed}, step {step}: {line}");
        assert_eq!(ended.code, 0, "{place}\n{}", ended.stderr);
        let calls = server.count() - before;
        assert!((costs..=costs + slack).contains(&calls), "{place}: {calls} calls, not {costs}");
        assert_text(&bench.read("out.jsonl"), &output);
    }
    kills
}

#[test]
fn random_histories_of_models_and_repeats_cost_what_the_oracle_says() {
    let wanted = std::env::var("ROWMILL_HISTORIES").ok().and_then(|it| it.parse().ok());
    let kills: usize = (0..wanted.unwrap_or(8)).map(history).sum();
    assert!(kills > 0);
}
