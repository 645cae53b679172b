//! Lines that name their models themselves: which model answers which, and what becomes of the rows of
//! one that is away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::server::{Call, Reply, Server, answer_to};
use crate::support::{Bench, CANARY, Ended};

const RUN: &str =
    "run in.jsonl -o out.jsonl --work-dir w --telemetry-output t.jsonl --final-summary";

/// A line of OpenAI's Batch API, spelled oddly on purpose.
fn line(number: usize, model: &str) -> String {
    format!(
        "{{\"custom_id\":\"r{number}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{{\"top_p\":0.50, \
         \"model\" : \"{model}\",\"max_tokens\":20,\"messages\":[{{\"role\":\"user\",\"content\":\"text {number}\"}}]}}}}\n"
    )
}

/// A bench with the keys of two endpoints.
fn keyed() -> Bench {
    let mut bench = Bench::new();
    bench.set("KEY_A", "key-a");
    bench.set("KEY_B", "key-b");
    bench
}

/// A bench with so many lines, which name these models in turn.
fn bench(count: usize, models: &[&str]) -> Bench {
    let bench = keyed();
    let lines = (1..=count).map(|number| line(number, models[(number - 1) % models.len()]));
    bench.write("in.jsonl", lines.collect::<String>());
    bench
}

fn echo(call: &Call) -> Reply {
    Reply::Answer(answer_to(&call.prompt))
}

/// A config file with endpoints, and what names stand for.
fn config(bench: &Bench, endpoints: &[(&str, &Server)], more: &str) {
    let tables = endpoints.iter().map(|(name, server)| {
        format!(
            "[endpoint.{name}]\nbase_url = \"{}\"\nkey_env = \"KEY_{}\"\n",
            server.url(),
            name.to_uppercase()
        )
    });
    bench.write("rowmill.toml", tables.collect::<String>() + more);
}

const TWO: &str = "[models]\nsmall = \"a.llama-8b\"\n\"large:70b\" = \"b.llama-70b\"\n";

/// The models that a server was asked for, and how often.
fn asked(server: &Server) -> BTreeMap<String, usize> {
    let mut models = BTreeMap::new();
    for call in server.calls() {
        *models.entry(call.body["model"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    models
}

fn models<const N: usize>(models: [(&str, usize); N]) -> BTreeMap<String, usize> {
    models.into_iter().map(|(model, count)| (model.to_owned(), count)).collect()
}

/// The answers of an endpoint, as the summary counts them.
fn answers(ended: &Ended, endpoint: &str) -> u64 {
    let summary = ended.summary();
    let by = summary["answered_by"].as_array().unwrap();
    let of = by.iter().filter(|it| it["endpoint"] == endpoint);
    of.map(|it| it["answers"].as_u64().unwrap()).sum()
}

#[test]
fn each_line_is_answered_by_the_model_that_it_names() {
    let (a, b, c) = (Server::echo(), Server::echo(), Server::echo());
    let bench = bench(90, &["small", "large:70b", "own"]);
    config(&bench, &[("a", &a), ("b", &b)], TWO);
    let ended = bench.run(&format!("{RUN} --base-url {}", c.url())).expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 90);
    assert_eq!(asked(&a), models([("llama-8b", 30)]));
    assert_eq!(asked(&b), models([("llama-70b", 30)]));
    assert_eq!(asked(&c), models([("own", 30)]));
    for (server, key) in [(&a, "key-a"), (&b, "key-b"), (&c, CANARY)] {
        let calls = server.calls();
        assert!(calls.iter().all(|call| call.headers["authorization"] == format!("Bearer {key}")));
    }
    assert_eq!(
        (answers(&ended, "a"), answers(&ended, "b"), answers(&ended, &c.url())),
        (30, 30, 30)
    );
    // Of a body nothing but the model is changed, and nothing of the others.
    let length = |call: &Call, model: &str| {
        let number: usize = call.prompt[5..].parse().unwrap();
        let of = line(number, model);
        of.split_once("\"body\":").unwrap().1.trim_end().len() - 1
    };
    for (server, model) in [(&a, "llama-8b"), (&b, "llama-70b"), (&c, "own")] {
        for call in server.calls() {
            let sent: usize = call.headers["content-length"].parse().unwrap();
            assert_eq!(sent, length(&call, model));
        }
    }
    // The same again makes no call.
    bench.run(&format!("{RUN} --base-url {} --resume", c.url())).expect(0);
    assert_eq!(a.count() + b.count() + c.count(), 90);
}

#[test]
fn options_win_over_the_file_and_all_other_names_may_be_one_model() {
    let (a, b) = (Server::echo(), Server::echo());
    let bench = bench(40, &["small", "large:70b", "x", "y"]);
    config(&bench, &[("a", &a), ("b", &b)], TWO);
    bench.run(&format!("{RUN} --map-model small=b.other --map-model *=a.rest")).expect(0);
    assert_eq!(asked(&a), models([("rest", 20)]));
    assert_eq!(asked(&b), models([("llama-70b", 10), ("other", 10)]));
}

#[test]
fn a_model_for_all_lines_overrides_what_they_name() {
    let (a, b) = (Server::echo(), Server::echo());
    let bench = bench(20, &["small", "large:70b", "x"]);
    config(&bench, &[("a", &a), ("b", &b)], TWO);
    bench.run(&format!("{RUN} -m b.one")).expect(0);
    assert_eq!((a.count(), asked(&b)), (0, models([("one", 20)])));
    bench
        .run("run in.jsonl -o o2.jsonl -m b.one --map-model small=a.x")
        .expect(2)
        .says("--map-model");
}

#[test]
fn names_that_nobody_answers_to_are_all_listed_before_anything_is_sent() {
    let a = Server::echo();
    let bench = bench(30, &["small", "q", "r"]);
    config(&bench, &[("a", &a)], "[models]\nsmall = \"a.llama-8b\"\n");
    let before = bench.snapshot();
    let ended = bench.run(RUN).expect(65);
    let ended = ended.says("\"q\": 10 lines, first line 2").says("\"r\": 10 lines, first line 3");
    ended.says("--map-model").expect(65).says("--base-url");
    assert_eq!(a.count(), 0);
    assert!(!bench.exists("w"), "nothing is left behind");
    crate::support::assert_same(&bench.snapshot(), &before);
    // Of several files the first one counts, whatever the numbers of its lines.
    bench.write("two/a.jsonl", bench.read("in.jsonl"));
    bench.write("two/b.jsonl", bench.read("in.jsonl").lines().nth(1).unwrap());
    let ended = bench.run(&RUN.replace("in.jsonl", "two").replace("out.jsonl", "outs")).expect(65);
    ended.says("\"q\": 11 lines, first line 2 of two/a.jsonl");
    // They may fail instead.
    let ended = bench.run(&format!("{RUN} --skip-bad-lines")).expect(3);
    assert_eq!(ended.summary()["failures"], json!({"no_model": 20}));
    assert_eq!(asked(&a), models([("llama-8b", 10)]));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let a = Server::echo();
    let bench = bench(3, &["small"]);
    let pool = "[pool.p]\nmembers = [\"a.m\"]\n";
    config(&bench, &[("a", &a)], pool);
    for (map, says) in [
        ("small=a.x?temperature=1", "parameters"),
        ("small=p", "pool"),
        ("small=passthrough", "passthrough"),
        ("small", "NAME=MODEL"),
        ("small=a.x --map-model small=a.y", "twice"),
    ] {
        bench.run(&format!("run in.jsonl -o out.jsonl --map-model {map}")).expect(2).says(says);
    }
    bench.write("rows.jsonl", "{\"text\":\"x\"}\n");
    bench
        .run("run rows.jsonl -o out.jsonl -p {{text}} --map-model small=a.x")
        .expect(2)
        .says("--map-model");
    config(&bench, &[("a", &a)], "[models]\nsmall = \"a.x?top_p=1\"\n");
    bench.run("run in.jsonl -o out.jsonl").expect(2).says("rowmill.toml:").says("parameters");
    assert_eq!(a.count(), 0);
}

#[test]
fn one_that_is_away_keeps_its_own_rows_waiting_and_no_others() {
    let (a, b) = (Server::start(|_| Reply::Close), Server::echo());
    let bench = bench(4000, &["small", "large:70b"]);
    config(&bench, &[("a", &a), ("b", &b)], TWO);
    let line = format!("{RUN} --shard-rows 50 --max-outage 2");
    // More shards than a worker has open at once.
    let ended = bench.run(&line).expect(69);
    assert!(ended.stderr.lines().last().unwrap().contains("a: "), "{}", ended.stderr);
    assert_eq!(asked(&b), models([("llama-70b", 2000)]));
    drop(a);
    let a = Server::echo();
    config(&bench, &[("a", &a), ("b", &b)], TWO);
    bench.run(&format!("{line} --resume")).expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 4000);
    assert_eq!((a.count(), b.count()), (2000, 2000), "who was answered is not asked again");
}

#[test]
fn while_one_is_left_alone_the_rows_of_others_are_all_answered() {
    let answered = Arc::new(AtomicUsize::new(0));
    let others = Arc::clone(&answered);
    // It comes back when all others are done: more of its rows wait than a worker has shards open for.
    let a = Server::start(move |call| match others.load(Ordering::SeqCst) {
        2000.. => echo(call),
        _ => Reply::Close,
    });
    let b = Server::start(move |call| {
        answered.fetch_add(1, Ordering::SeqCst);
        echo(call)
    });
    let bench = bench(4000, &["small", "large:70b"]);
    config(&bench, &[("a", &a), ("b", &b)], TWO);
    bench.run(&format!("{RUN} --shard-rows 50 --max-outage 120")).expect(0);
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines.len(), 4000);
    assert!(lines.iter().all(|line| line["response"]["status_code"] == 200));
    assert_eq!(b.count(), 2000);
}

#[test]
fn a_refused_key_of_one_fails_no_row_and_the_run_ends_with_it_when_the_others_are_done() {
    let (a, b) = (Server::start(|_| Reply::status(401)), Server::echo());
    let bench = bench(1000, &["small", "large:70b", "large:70b"]);
    config(&bench, &[("a", &a), ("b", &b)], TWO);
    let line = format!("{RUN} --shard-rows 50 -c 8");
    let ended = bench.run(&line).expect(77);
    ended.says("a refused the key").says("its rows are left");
    assert_eq!(asked(&b), models([("llama-70b", 666)]));
    assert!(a.count() <= 8, "{} calls after the first was refused", a.count());
    drop(a);
    let a = Server::echo();
    config(&bench, &[("a", &a), ("b", &b)], TWO);
    let ended = bench.run(&format!("{line} --resume")).expect(0);
    assert_eq!((answers(&ended, "a"), answers(&ended, "b"), b.count()), (334, 666, 666));
}

#[test]
fn a_run_that_was_killed_goes_on_with_the_plans_names() {
    let bench = bench(300, &["small", "large:70b", "own"]);
    let hold = |call: &Call| match call.prompt[5..].parse::<usize>().unwrap() {
        0..=150 => echo(call),
        _ => Reply::Hold(answer_to(&call.prompt)),
    };
    let (a, b, c) = (Server::start(hold), Server::start(hold), Server::start(hold));
    config(&bench, &[("a", &a), ("b", &b)], TWO);
    let running = bench.start(&format!("{RUN} -c 12 --base-url {}", c.url()));
    for server in [&a, &b, &c] {
        server.wait_for_active(1);
    }
    running.kill();
    for server in [&a, &b, &c] {
        server.release();
    }
    // The plan says what names stand for: work asks for no table.
    config(&bench, &[("a", &a), ("b", &b)], "");
    bench.run("work --work-dir w").expect(0);
    bench.run("merge --work-dir w -o out.jsonl").expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 300);
    let calls = a.count() + b.count() + c.count();
    assert!((300..=312).contains(&calls), "{calls}");
    assert_eq!(asked(&a).keys().collect::<Vec<_>>(), ["llama-8b"]);
    assert_eq!(asked(&c).keys().collect::<Vec<_>>(), ["own"]);
}

#[test]
fn a_plan_is_worked_though_no_line_is_asked_of_its_own_model() {
    let dria = |number: usize, model: &str| {
        format!(
            "{{\"custom_id\":\"00000000-0000-4000-8000-{number:012}\",\"type\":\"completions\",\"version\":\"v1\",\
             \"body\":{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"text {number}\"}}]}}}}\n"
        )
    };
    let all = |line: &dyn Fn(usize, &str) -> String| {
        (1..=30).map(|number| line(number, ["small", "large:70b"][number % 2])).collect::<String>()
    };
    for lines in [all(&line), all(&dria)] {
        for (said, of_a, of_b) in [
            ("[models]\nsmall = \"a.x\"\n\"large:70b\" = \"a.x\"\n", 30, 0),
            (TWO, 15, 15),
            ("[models]\n\"*\" = \"b.x\"\n", 0, 30),
            ("[models]\nsmall = \"a.x\"\n\"*\" = \"b.x\"\n", 15, 15),
            ("", 15, 15),
        ] {
            let (a, b, bench) = (Server::echo(), Server::echo(), keyed());
            bench.write("in.jsonl", &lines);
            config(&bench, &[("a", &a), ("b", &b)], said);
            let maps = match said {
                "" => "--map-model small=a.x --map-model *=b.y",
                _ => "",
            };
            bench.run(&format!("plan in.jsonl --work-dir w --shard-rows 10 {maps}")).expect(0);
            // The plan says what names stand for.
            config(&bench, &[("a", &a), ("b", &b)], "");
            bench.run("work --work-dir w --serve vllm").expect(2).says("names in lines");
            bench.run("work --work-dir w --base-url http://127.0.0.1:9/v1").expect(2);
            bench.run("work --work-dir w --shard 1-2").expect(0);
            assert_eq!(a.count() + b.count(), 20, "{said}");
            bench.run("work --work-dir w").expect(0);
            bench.run("merge --work-dir w -o out.jsonl").expect(0);
            assert_eq!((a.count(), b.count()), (of_a, of_b), "{said}");
            let ids = bench.lines("out.jsonl");
            assert!(ids.len() == 30 && ids.iter().all(|line| line["error"].is_null()), "{said}");
        }
    }
}

#[test]
fn a_name_that_stands_for_another_model_is_another_question_for_its_lines_alone() {
    let (a, b) = (Server::echo(), Server::echo());
    let bench = bench(60, &["small", "large:70b", "small"]);
    config(&bench, &[("a", &a), ("b", &b)], TWO);
    bench.run(RUN).expect(0);
    let line = format!("{RUN} --map-model large:70b=b.llama-405b");
    let ended = bench.run(&format!("{line} --resume")).expect(78);
    ended.says("model for \"large:70b\": `llama-70b` → `llama-405b`");
    bench.run(&format!("{line} --resume --on-change update")).expect(0);
    assert_eq!(asked(&a), models([("llama-8b", 40)]));
    assert_eq!(asked(&b), models([("llama-70b", 20), ("llama-405b", 20)]));
    // Another endpoint of the same model is none.
    config(&bench, &[("a", &a), ("b", &a)], TWO);
    bench.run(&format!("{line} --resume")).expect(0);
    assert_eq!((a.count(), b.count()), (40, 40));
}

#[test]
fn each_call_has_the_price_of_the_model_that_was_asked() {
    let (a, c) = (Server::echo(), Server::echo());
    let bench = bench(30, &["small", "cheap", "dear"]);
    let prices = "[models]\nsmall = \"a.llama-8b\"\n\
        [price.\"a.llama-8b\"]\ninput = 1\noutput = 1\n\
        [price.cheap]\ninput = 2\noutput = 2\n[price.dear]\ninput = 100\noutput = 100\n";
    config(&bench, &[("a", &a)], prices);
    let ended = bench.run(&format!("{RUN} --base-url {} --max-cost 1", c.url())).expect(0);
    // 18 tokens a call, 10 calls each.
    let expected = 180.0 * (1.0 + 2.0 + 100.0) / 1e6;
    let cost = ended.summary()["cost"]["cost_usd"].clone();
    let cost = cost.as_f64().or_else(|| cost.as_str()?.parse().ok()).unwrap_or_default();
    assert!((cost - expected).abs() < 1e-9, "{cost} {expected} {}", ended.summary());
    let of = |id: &str| {
        let lines = bench.lines("t.jsonl");
        lines.iter().find(|it| it["id"] == id).map(|it| it["cost_usd"].clone()).unwrap()
    };
    assert_ne!(of("r2"), of("r3"));
    // Whose price nobody knows is told before anything is sent.
    let unpriced = prices.replace("[price.dear]", "[price.other]");
    config(&bench, &[("a", &a)], &unpriced);
    let ended = bench.run(&format!(
        "run in.jsonl -o o2.jsonl --work-dir w2 --base-url {} --max-cost 1",
        c.url()
    ));
    ended.expect(2).says("dear");
    config(&bench, &[("a", &a)], &prices.replace("a.llama-8b\"]", "a.other\"]"));
    let ended = bench.run(&format!(
        "run in.jsonl -o o2.jsonl --work-dir w3 --base-url {} --max-cost 1",
        c.url()
    ));
    ended.expect(2).says("a.llama-8b");
    assert_eq!(a.count() + c.count(), 30);
}

#[test]
fn where_all_go_to_one_endpoint_each_model_has_its_price_and_its_answers() {
    let c = Server::echo();
    let bench = bench(20, &["cheap", "dear"]);
    let price = |name: &str, dollars: u32| {
        format!("[price.\"{name}\"]\ninput = {dollars}\noutput = {dollars}\n")
    };
    bench.write("rowmill.toml", price("cheap", 1) + &price("dear", 100));
    let place = format!("--base-url {}", c.url());
    let ended = bench.run(&format!("estimate in.jsonl {place} --json --expect-output 7")).expect(0);
    let estimates: Value = serde_json::from_str(&ended.stdout).unwrap();
    let of = |place: usize, what: &str| estimates[place][what].clone();
    assert_eq!((of(0, "model"), of(0, "calls")), (json!("cheap"), json!(10)));
    assert_eq!((of(1, "model"), of(1, "price")["input"].clone()), (json!("dear"), json!(100)));
    bench.write("rowmill.toml", price("cheap", 1));
    let ended = bench.run(&format!("{RUN} {place} --max-cost 1")).expect(2);
    assert!(ended.says("dear").stderr.contains("[price.\"NAME\"]"));
    assert!(!bench.exists("w") && c.count() == 0);
    // A price for all others.
    bench.write("rowmill.toml", price("cheap", 1) + &price("*", 10));
    let ended = bench.run(&format!("{RUN} {place} --max-cost 1")).expect(0);
    assert_eq!(ended.summary()["cost"]["cost_usd"], json!(180.0 * 11.0 / 1e6));
    assert_eq!(answers(&ended, &c.url()), 20);
}

#[test]
fn an_estimate_counts_rows_that_ask_the_same_with_the_model_they_name() {
    let bench = Bench::new();
    // Three texts in five lines, and two in two.
    let asked = [(1, "qq"), (1, "qq"), (4, "zz"), (2, "qq"), (1, "qq"), (3, "qq"), (5, "zz")];
    let lines = asked.into_iter().zip(1..).map(|((text, model), number)| {
        let line = line(text, model);
        line.replace(&format!("\"r{text}\""), &format!("\"id{number}\""))
    });
    bench.write("in.jsonl", lines.collect::<String>());
    let estimate = "estimate in.jsonl --dedupe --base-url http://127.0.0.1:9/v1 --json";
    let found: Value = serde_json::from_str(&bench.run(estimate).expect(0).stdout).unwrap();
    let of = |place: usize| ["model", "selected", "calls"].map(|what| found[place][what].clone());
    assert_eq!(of(0), [json!("qq"), json!(5), json!(3)]);
    assert_eq!(of(1), [json!("zz"), json!(2), json!(2)]);
}

#[test]
fn dry_runs_and_status_name_the_models() {
    let (a, b) = (Server::echo(), Server::echo());
    let bench = bench(4, &["small", "large:70b"]);
    config(&bench, &[("a", &a), ("b", &b)], TWO);
    let ended = bench.run(&format!("{RUN} --dry-run")).expect(0);
    ended.says("small → a · llama-8b").says("large:70b → b · llama-70b");
    let shown: Vec<Value> = serde_json::Deserializer::from_str(
        &bench.run("run in.jsonl -o out.jsonl --dry-run --quiet").expect(0).stdout,
    )
    .into_iter()
    .map(Result::unwrap)
    .collect();
    assert_eq!(shown[0]["body"]["model"], "llama-8b");
    assert_eq!(shown[1]["body"]["model"], "llama-70b");
    assert!(shown[1]["url"].as_str().unwrap().starts_with(&b.url()));
    assert_eq!(a.count() + b.count(), 0);
    bench.run(RUN).expect(0);
    let status = bench.run("status --work-dir w").expect(0);
    assert!(status.stdout.contains("small → llama-8b"), "{}", status.stdout);
}

#[test]
fn lines_of_dria_are_answered_by_models_that_speak_chat() {
    let (a, b) = (Server::echo(), Server::echo());
    let bench = keyed();
    let line = |number: usize, model: &str| {
        json!({"custom_id": format!("00000000-0000-4000-8000-{number:012}"), "type": "completions", "version": "v1",
            "body": {"model": model, "max_tokens": 9,
                "messages": [{"role": "user", "content": format!("text {number}")}]}})
        .to_string()
            + "\n"
    };
    let lines = (1..=20).map(|number| line(number, ["llama3.3:70b", "qwen"][number % 2]));
    bench.write("in.jsonl", lines.collect::<String>());
    let models_of = "[models]\n\"llama3.3:70b\" = \"a.llama\"\nqwen = \"b.qwen3\"\n";
    config(&bench, &[("a", &a), ("b", &b)], models_of);
    bench.run(RUN).expect(0);
    assert_eq!((asked(&a), asked(&b)), (models([("llama", 10)]), models([("qwen3", 10)])));
    let ended = bench.run("run in.jsonl -o o2.jsonl --map-model qwen=anthropic.claude-haiku-4-5");
    ended.expect(2).says("Chat Completions").says("anthropic");
}
