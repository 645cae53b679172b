//! What calls cost, what a job will come to, and a cap that holds.

use std::fs;

use serde_json::{Value, json};

use rowmill::job::Money;

use crate::support::server::{Reply, Server, answer_to, completion};
use crate::support::{Bench, assert_same, rows};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m";
/// Of the test server's answers, 11 tokens in and 7 out, each costs $0.0081.
const PRICE: &str = "[price.m]\ninput = 100\noutput = 1000\n";
const CALL: f64 = 0.0081;

fn bench(server: &Server, count: usize) -> Bench {
    let bench = Bench::with_server(server);
    bench.write("in.jsonl", rows(count));
    bench.write("rowmill.toml", PRICE);
    bench
}

/// What is estimated of rows with these texts.
fn estimated(bench: &Bench, options: &str) -> Value {
    let ended = bench.run(&format!("estimate in.jsonl -p {{{{text}}}} --json {options}")).expect(0);
    serde_json::from_str(&ended.stdout).unwrap()
}

fn texts(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("{}\n", json!({ "text": text }))).collect()
}

#[test]
fn every_call_that_tells_its_usage_has_its_cost_and_the_summary_their_sum() {
    let server = Server::start(|call| match (&*call.prompt, call.nth) {
        ("text 2", 1) => Reply::status(500),
        ("text 3", _) => Reply::body(
            json!({"model": "m", "choices": [{"message": {"content": "yes"}}]}).to_string(),
        ),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = bench(&server, 5);
    let ask = format!("{ASK} --telemetry-output t.jsonl --progress-every 1 --keep-work-dir");
    let ended = bench.run(&ask).expect(0).says(" · $0.0");
    let lines = bench.lines("t.jsonl");
    let of = |id: &str| -> Vec<&Value> { lines.iter().filter(|line| line["id"] == id).collect() };
    assert_eq!(of("r1")[0]["cost_usd"], json!(CALL));
    assert_eq!((of("r2")[0].get("cost_usd"), &of("r2")[1]["cost_usd"]), (None, &json!(CALL)));
    assert_eq!(of("r3")[0].get("cost_usd"), None, "nobody knows what it used");
    // What was refused costs nothing; what was answered without a usage costs nobody knows what.
    let cost = json!({"cost_usd": 0.0324, "in_this_session_usd": 0.0324, "unknown_calls": 1});
    assert_eq!(ended.summary()["cost"], cost);
    let status = bench.run("status --work-dir out.jsonl.rowmill --json").expect(0).summary();
    assert_eq!((&status["cost_usd"], &status["unknown_calls"]), (&json!(0.0324), &json!(1)));
    assert_eq!(status["last_run"]["done"]["cost_usd"], json!(0.0324));
    let text = bench.run("status --work-dir out.jsonl.rowmill").expect(0).stdout;
    assert!(text.contains("cost       $0.0324, and 1 call of unknown cost"), "{text}");
}

#[test]
fn what_a_call_has_cost_stays_whatever_prices_do_later() {
    let server = Server::echo();
    let bench = bench(&server, 6);
    bench.run(&format!("{ASK} --limit 3 --work-dir w")).expect(0);
    bench.write("rowmill.toml", PRICE.replace("input = 100", "input = 200"));
    let again = format!("{ASK} --limit 6 --work-dir w --resume --on-change update");
    let ended = bench.run(&again).expect(0);
    // Three at $0.0081, and three at 11 tokens for $200 and 7 for $1000 a million.
    let cost = json!({"cost_usd": 0.0519, "in_this_session_usd": 0.0276, "unknown_calls": 0});
    assert_eq!(ended.summary()["cost"], cost);
}

#[test]
fn without_a_price_the_cost_is_unknown_and_never_nothing() {
    let server = Server::echo();
    let bench = bench(&server, 3);
    fs::remove_file(bench.path("rowmill.toml")).unwrap();
    let ended = bench.run(&format!("{ASK} --telemetry-output t.jsonl --keep-work-dir")).expect(0);
    let cost = json!({"cost_usd": null, "in_this_session_usd": null, "unknown_calls": 3});
    assert_eq!(ended.summary()["cost"], cost);
    assert!(bench.lines("t.jsonl").iter().all(|line| line.get("cost_usd").is_none()));
    let status = bench.run("status --work-dir out.jsonl.rowmill --json").expect(0).summary();
    assert_eq!(status["cost_usd"], Value::Null);
    // Who is called at a place of one's own has not the provider's prices, whatever the name.
    let named = ASK.replace("-m m", "-m openai.gpt-4o-mini --overwrite");
    assert_eq!(bench.run(&named).expect(0).summary()["cost"]["cost_usd"], Value::Null);
    let free = format!("{} --overwrite", ASK.replace("-m m", "-m passthrough --max-cost 0.01"));
    let cost = json!({"cost_usd": 0, "in_this_session_usd": 0, "unknown_calls": 0});
    assert_eq!(bench.run(&free).expect(0).summary()["cost"], cost);
}

#[test]
fn cached_tokens_have_their_own_price() {
    let server = Server::start(|_| {
        let usage = json!({
            "prompt_tokens": 100, "completion_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 60},
        });
        let choice = json!({"message": {"content": "yes"}, "finish_reason": "stop"});
        Reply::body(json!({"model": "m", "choices": [choice], "usage": usage}).to_string())
    });
    let bench = bench(&server, 1);
    bench.write("rowmill.toml", format!("{PRICE}cached_input = 10\n"));
    // 40 at 100, 60 at 10, 10 at 1000, each a million.
    let cost = bench.run(ASK).expect(0).summary()["cost"]["cost_usd"].clone();
    assert_eq!(cost, json!(0.0146));
}

#[test]
fn an_estimate_is_counted_with_the_models_tokenizer_and_calls_nothing() {
    let bench = Bench::new();
    // In o200k_base 6, 7 and 8 tokens, as OpenAI's cookbook counts them; a chat adds 7 to each.
    let three = ["antidisestablishmentarianism", "2 + 2 = 4", "お誕生日おめでとう"];
    bench.write("in.jsonl", texts(&three) + "{\"no\":\"text\"}\n");
    let before = bench.snapshot();
    let estimate = estimated(&bench, "-m openai.gpt-4o-mini --expect-output 10");
    assert_eq!(estimate["tokenizer"], "o200k_base");
    let figures = ["rows", "selected", "invalid", "calls", "input_tokens"];
    assert_eq!(figures.map(|name| estimate[name].as_u64().unwrap()), [4, 4, 1, 3, 42]);
    assert_eq!(estimate["output_tokens"], json!({"low": 30, "high": 30}));
    assert_eq!(estimate["answer_from"], "expected");
    // 42 at $0.15 and 30 at $0.60 a million; half of that in a batch.
    assert_eq!(estimate["cost_usd"], json!({"low": 0.0000243, "high": 0.0000243}));
    assert_eq!(estimate["batch_cost_usd"], json!({"low": 0.00001215, "high": 0.00001215}));
    let from = estimate["price"]["from"].as_str().unwrap();
    assert!(from.starts_with("the price table of 20"), "{from}");
    assert_same(&bench.snapshot(), &before);
    // An older model has an older tokenizer: 6, 7 and 9.
    let older = estimated(&bench, "-m openai.gpt-4-turbo --limit 3");
    assert_eq!((&older["tokenizer"], &older["input_tokens"]), (&json!("cl100k_base"), &json!(43)));
    // An instruction is a message, and a schema goes in as well.
    bench.write("i.txt", "2 + 2 = 4");
    bench.write("s.json", r#"{"type":"string"}"#);
    let more = "-m openai.gpt-4o-mini --limit 1 --instruction i.txt --json-schema s.json";
    let told = estimated(&bench, more)["input_tokens"].as_u64().unwrap();
    assert_eq!(told, 6 + 7 + (7 + 4) + 5);
}

#[test]
fn an_estimate_says_how_it_knows_and_what_it_does_not() {
    let mut bench = Bench::new();
    bench.write("in.jsonl", texts(&["abcd efgh", "ijkl"]));
    bench.set("OPENAI_API_KEY", "");
    // No key is needed. At 3.5 characters a token, 9 and 4 are 3 and 2; a chat adds 7 to each.
    let bound = estimated(&bench, "-m anthropic.claude-haiku-4-5 --max-tokens 100");
    assert_eq!(
        (&bound["tokenizer"], &bound["input_tokens"]),
        (&json!("approximation"), &json!(19))
    );
    assert_eq!(bound["output_tokens"], json!({"low": 2, "high": 200}));
    assert_eq!(bound["cost_usd"], json!({"low": 0.000029, "high": 0.001019}));
    let line = "estimate in.jsonl -p {{text}}";
    let text = bench.run(&format!("{line} -m openai.gpt-4o")).expect(0).stdout;
    assert!(text.contains("is only assumed: --expect-output"), "{text}");
    let unknown = bench.run(&format!("{line} -m m --base-url http://127.0.0.1:1/v1")).expect(0);
    for says in ["unknown: no price of m is known", "[price.\"m\"]"] {
        assert!(unknown.stdout.contains(says), "{}", unknown.stdout);
    }
    bench.write(
        "rowmill.toml",
        "[price.\"mine.m-2\"]\ninput = 1\noutput = 2\nbatch_input = 0.25\n\
                                 [endpoint.mine]\nbase_url = \"http://127.0.0.1:1/v1\"\n",
    );
    let mine = estimated(&bench, "-m mine.m-2 --expect-output 1000000");
    assert_eq!(mine["price"]["from"], bench.path("rowmill.toml").to_str().unwrap());
    assert_eq!(mine["output_tokens"]["high"], json!(2_000_000));
    // 3 and 1 tokens with 7 each, at $1 a million, and the answers at $2.
    assert_eq!(mine["cost_usd"]["high"], json!(4.000018));
    let passthrough = bench.run(&format!("{line} -m passthrough")).expect(0).stdout;
    assert!(passthrough.contains("$0.00: passthrough is not called"), "{passthrough}");
    // A dry run shows the same, beside what it shows of the first requests.
    let dry = "run in.jsonl -o out.jsonl -p {{text}} -m openai.gpt-4o-mini --dry-run";
    bench.run(dry).expect(0).says("counted with o200k_base").says("cost           $0.000");
}

#[test]
fn answers_so_far_tell_how_long_others_will_be() {
    let server = Server::echo();
    let bench = bench(&server, 4);
    bench.run(&format!("{ASK} --limit 2 --work-dir w")).expect(0);
    let estimate = estimated(&bench, "-m m --work-dir w");
    assert_eq!(estimate["answer_from"], "mean_so_far");
    assert_eq!(estimate["output_tokens"], json!({"low": 28, "high": 28}));
    let other = estimated(&bench, "-m other --work-dir w");
    assert_eq!(other["answer_from"], "assumed", "another model's answers tell nothing");
}

#[test]
fn a_cap_holds_over_sessions_and_a_higher_one_goes_on_to_the_end() {
    const ROWS: usize = 30;
    let server = Server::echo();
    let bench = bench(&server, ROWS);
    let ask =
        |cap: &str| format!("{ASK} --max-tokens 10 -c 3 --shard-rows 7 --resume --max-cost {cap}");
    let ended = bench.run(&ask("$0.1")).expect(4).says("stopped: $0.0");
    let last = ended.stderr.lines().last().unwrap().to_owned();
    assert!(last.contains("of the $0.10 of --max-cost are spent"), "{last}");
    let calls = server.count();
    // A call may cost $0.0112 for all that is known before; after 11 that cost $0.0081 it is over.
    assert_eq!(calls, 11, "{last}");
    // The same again spends nothing more, however often.
    for _ in 0..2 {
        bench.run(&ask("0.10")).expect(4);
        assert_eq!(server.count(), calls);
    }
    let status = bench.run("status --work-dir out.jsonl.rowmill --json").expect(0).summary();
    assert_eq!((&status["ok"], &status["cost_usd"]), (&json!(11), &json!(0.0891)));
    assert_eq!(status["last_run"]["end"], "stopped:max_cost");
    // The command that goes on is one that can be typed, and suffices by and by.
    let mut next = last.rsplit("go on: rowmill ").next().unwrap().to_owned();
    assert!(next.contains("--max-cost=0.2"), "{next}");
    next = next.replace("--max-cost=0.2", "--max-cost=1");
    bench.run(&next).expect(0);
    bench.assert_answers(ROWS);
    assert!(server.counts().values().all(|count| *count == 1));
}

#[test]
fn a_cap_holds_after_a_kill_for_calls_that_nobody_heard_of_again() {
    const CAP: f64 = 0.1;
    let server = Server::start(|call| {
        let number: u32 = call.prompt.strip_prefix("text ").unwrap().parse().unwrap();
        match number > 4 && call.nth == 1 {
            true => Reply::Hold(answer_to(&call.prompt)),
            false => Reply::Answer(answer_to(&call.prompt)),
        }
    });
    let bench = bench(&server, 40);
    let ask = format!(
        "{ASK} --max-tokens 10 -c 4 --shard-rows 5 --resume --keep-work-dir --max-cost {CAP}"
    );
    let running = bench.start(&ask);
    server.wait_for_calls(8);
    running.kill();
    server.release();
    let ended =
        bench.run(&ask).expect(4).says("calls of an earlier session never came to their end");
    #[expect(clippy::cast_precision_loss, reason = "a few calls")]
    let paid = server.count() as f64 * CALL;
    assert!(paid <= CAP, "{paid}: {}", ended.stderr);
    assert!(server.count() > 8, "there was money for more: {}", ended.stderr);
    let calls = server.count();
    bench.run(&ask).expect(4);
    assert_eq!(server.count(), calls);
    // Nobody knows what the four cost that were under way.
    let status = bench.run("status --work-dir out.jsonl.rowmill --json").expect(0).summary();
    assert_eq!((&status["calls"], &status["unknown_calls"]), (&json!(calls), &json!(4)));
    let summary = bench.run(&ask.replace("0.1", "9")).expect(0).summary();
    assert_eq!(summary["calls"]["repeated_after_crash"], 4);
    assert_eq!(summary["cost"]["unknown_calls"], 4);
    let status = bench.run("status --work-dir out.jsonl.rowmill --json").expect(0).summary();
    assert_eq!((&status["calls"], &status["unknown_calls"]), (&json!(44), &json!(4)));
}

#[test]
fn seals_that_do_not_tell_what_was_spent_are_counted_by_their_usage() {
    let server = Server::echo();
    let bench = bench(&server, 8);
    let ask = format!("{ASK} --max-tokens 10 -c 1 --shard-rows 4 --resume --max-cost 0.05");
    bench.run(&ask).expect(4);
    assert_eq!(server.count(), 5);
    let path = "out.jsonl.rowmill/shards/00000/seal.json";
    let mut seal = bench.json(path);
    assert_eq!(seal["cost"]["usd"], json!(0.0324));
    seal.as_object_mut().unwrap().remove("cost");
    bench.write(path, seal.to_string());
    bench.run(&ask).expect(4).says("$0.0405 of the $0.05");
    assert_eq!(server.count(), 5);
}

#[test]
fn what_was_spent_on_answers_that_are_gone_is_spent() {
    let server = Server::echo();
    let bench = bench(&server, 8);
    let ask = "run in.jsonl -o out.jsonl --id-field id -m m --work-dir w --max-tokens 10 -c 1 \
               --resume --on-change update --max-cost 0.1 -p";
    bench.run(&format!("{ask} {{{{text}}}}")).expect(0);
    assert_eq!(server.count(), 8);
    // Another prompt: all is asked anew, as far as the money goes.
    bench.run(&format!("{ask} 'Not {{{{text}}}}'")).expect(4).says("$0.0891 of the $0.10");
    assert_eq!(server.count(), 11);
    let more = ask.replace("--max-cost 0.1", "--max-cost 1");
    let summary = bench.run(&format!("{more} 'Not {{{{text}}}}'")).expect(0).summary();
    assert_eq!(summary["cost"]["cost_usd"], json!(0.0648));
    assert_eq!(summary["cost"]["replaced_usd"], json!(0.0648));
}

#[test]
fn a_call_that_does_not_tell_its_usage_is_charged_with_what_was_set_aside() {
    let server = Server::start(|_| {
        Reply::body(json!({"choices": [{"message": {"content": "yes"}}]}).to_string())
    });
    let bench = bench(&server, 30);
    let ask =
        format!("{ASK} --max-tokens 10 -c 1 --shard-rows 3 --telemetry-output t.jsonl --resume");
    // $0.0112 each, of $0.10.
    let spent = |cap: &str, calls: u64| {
        let assumed = Money::from_picodollars(11_200_000_000).times(calls);
        let told = format!(
            "{assumed} of the {cap} of --max-cost are spent ({assumed} of that is assumed: {calls} \
             calls did not tell what they used), and the next call may cost $0.0112"
        );
        bench.run(&format!("{ask} --max-cost {cap}")).expect(4).says(&told);
        assert_eq!(server.count() as u64, calls);
    };
    spent("$0.10", 8);
    // The next session takes them for the same, from seals and from a journal that is open, and so
    // has money for as many more as there is room for.
    spent("$0.10", 8);
    spent("$0.20", 17);
    // Where a call told its usage, its cost is known and nothing assumed.
    bench.run(&format!("{ask} --max-cost 1")).expect(0);
    let lines = bench.lines("t.jsonl");
    assert_eq!(lines.len(), 30);
    assert!(lines.iter().all(|line| line["assumed_usd"] == json!(0.0112)), "{}", lines[0]);
}

#[test]
fn a_usage_without_counts_is_charged_like_none_at_all() {
    let server = Server::start(|call| {
        let usage = match call.prompt.len() % 3 {
            0 => json!({}),
            1 => json!({"prompt_tokens": null, "completion_tokens": null}),
            _ => json!({"total_tokens": 500}),
        };
        let choice = json!({"message": {"content": "yes"}, "finish_reason": "stop"});
        Reply::body(json!({"model": "m", "choices": [choice], "usage": usage}).to_string())
    });
    let bench = bench(&server, 0);
    let said: Vec<_> = (0..30).map(|row| format!("text{}", "!".repeat(row % 3))).collect();
    let rows = said.iter().enumerate().map(|(id, text)| json!({"id": id, "text": text}));
    bench.write("in.jsonl", rows.map(|row| format!("{row}\n")).collect::<String>());
    bench.run(&format!("{ASK} --max-tokens 10 -c 1 --max-cost 0.1")).expect(4);
    // At $0.0112 or a little more each, of $0.10.
    assert!((7..=8).contains(&server.count()), "{} calls", server.count());
    let status = bench.run("status --work-dir out.jsonl.rowmill --json").expect(0).summary();
    assert_eq!(status["cost_usd"], Value::Null);
    assert_eq!(status["unknown_calls"].as_u64(), Some(server.count() as u64));
}

#[test]
fn what_has_no_price_or_is_no_price_is_refused_with_what_to_do() {
    let server = Server::echo();
    let bench = bench(&server, 2);
    let capped = ASK.replace("-m m", "-m other --max-cost 5");
    bench.run(&capped).expect(2).says("no price of other is known").says("[price.\"other\"]");
    for wrong in ["", "-1", "1e3", "lots"] {
        bench
            .run_args(
                [&["run", "in.jsonl", "-o", "o", "-m", "m", "--max-cost"], &[wrong][..]].concat(),
            )
            .expect(2);
    }
    for (text, line, says) in [
        ("[price.m]\ninput = 1\n", 1, "no output"),
        ("[price.m]\ninput = 1\noutput = -1\n", 3, "0 or more"),
        ("[price.m]\ninput = nan\noutput = 1\n", 2, "0 or more"),
        ("[price.m]\ninput = 1\noutput = inf\n", 3, "0 or more"),
        ("[price.m]\ninput = \"1\"\noutput = 1\n", 2, "expected"),
        ("[price.m]\ninput = 1\noutput = 1\nper = 2\n", 4, "unknown field `per`"),
        ("[price.openai.m]\ninput = 1\noutput = 1\n", 1, "unknown field `m`"),
        ("[price.m]\ninput = 1\noutput = 1\nbatch_output = 1\n", 1, "no batch_input"),
    ] {
        bench.write("rowmill.toml", text);
        bench.run(ASK).expect(2).says(&format!("rowmill.toml:{line}: ")).says(says);
    }
    assert_eq!(server.count(), 0);
}

/// Lines of requests with these urls and bodies, of the model `m`.
fn requests(asked: &[(&str, Value)]) -> String {
    let mut lines = String::new();
    for (number, (url, body)) in asked.iter().enumerate() {
        let mut body = body.clone();
        body["model"] = json!("m");
        let id = format!("r{number}");
        let line = json!({"custom_id": id, "method": "POST", "url": url, "body": body});
        lines += &format!("{line}\n");
    }
    lines
}

const CHAT: &str = "/v1/chat/completions";

/// A message with a part.
fn part(part: &Value) -> Value {
    json!({"max_tokens": 1, "messages": [{"role": "user", "content": [part]}]})
}

#[test]
fn a_cap_knows_how_many_answers_a_request_asks_for_and_what_it_encloses() {
    let server = Server::echo();
    let bench = bench(&server, 1);
    let run = "run in.jsonl -o out.jsonl -m m --overwrite";
    let said = [json!({"role": "user", "content": "x"})];
    let data = "A".repeat(100_000);
    let uri = format!("data:image/png;base64,{data}");
    // An answer costs $1000 a million tokens, a prompt $100, and it is taken for a quarter longer than guessed.
    let dear = [
        (CHAT, json!({"n": 100, "max_tokens": 100, "messages": said}), "1"),
        (CHAT, json!({"n": 1e2, "max_completion_tokens": 1e2, "messages": said}), "9"),
        (CHAT, json!({"n": 100, "messages": said}), "90"),
        ("/v1/completions", json!({"max_tokens": 100, "prompt": vec!["x"; 100]}), "9"),
        ("/v1/completions", json!({"max_tokens": 100, "prompt": vec![[7, 8]; 100]}), "9"),
        ("/v1/completions", json!({"max_tokens": 100, "n": 2, "best_of": 100, "prompt": "x"}), "9"),
        (CHAT, part(&json!({"type": "image_url", "image_url": {"url": uri}})), "0.3"),
        (CHAT, part(&json!({"type": "input_audio", "input_audio": {"data": data}})), "0.3"),
        (CHAT, part(&json!({"type": "image_url", "image_url": {"url": "http://h/a"}})), "0.18"),
        (
            "/v1/responses",
            json!({"max_output_tokens": 1, "input": [{"role": "user",
            "content": [{"type": "input_image", "image_url": uri}]}]}),
            "0.3",
        ),
    ];
    for (url, body, cap) in dear {
        let line = requests(&[(url, body)]);
        bench.write("in.jsonl", &line);
        let shown = &line[..line.len().min(200)];
        let ended = bench.run(&format!("{run} --max-cost {cap}"));
        assert_eq!((ended.code, server.count()), (4, 0), "{shown} {}", ended.stderr);
    }
    // And no more than that.
    let cheap = [
        (CHAT, json!({"n": 1, "max_tokens": 100, "messages": said})),
        ("/v1/completions", json!({"max_tokens": 100, "prompt": vec![7; 100]})),
        (CHAT, part(&json!({"type": "input_audio", "input_audio": {"data": data}}))),
    ];
    for (index, (url, body)) in cheap.into_iter().enumerate() {
        bench.write("in.jsonl", requests(&[(url, body)]));
        bench.run(&format!("{run} --max-cost 0.4")).expect(0);
        assert_eq!(server.count(), index + 1);
    }
}

#[test]
fn a_cap_learns_of_answers_that_go_beyond_their_bound() {
    let server = Server::start(|call| {
        let mut body: Value = serde_json::from_str(&completion(&call.prompt)).unwrap();
        body["usage"]["completion_tokens"] = json!(1000);
        Reply::body(body.to_string())
    });
    let bench = bench(&server, 1);
    let asked: Vec<_> = (0..30)
        .map(|number| {
            let said = [json!({"role": "user", "content": format!("text {number}")})];
            (CHAT, json!({"max_tokens": 10, "messages": said}))
        })
        .collect();
    bench.write("in.jsonl", requests(&asked));
    bench.run("run in.jsonl -o out.jsonl -m m -c 1 --max-cost 5").expect(4);
    assert_eq!(server.count(), 4, "each costs $1.0011");
}

#[test]
fn an_estimate_knows_how_many_answers_requests_ask_for_and_what_it_leaves_out() {
    let server = Server::echo();
    let bench = bench(&server, 1);
    let said = [json!({"role": "user", "content": "x"})];
    let of = |asked: &[(&str, Value)], options: &str| -> (Value, String) {
        bench.write("in.jsonl", requests(asked));
        let line = format!("estimate in.jsonl {options}");
        let told = bench.run(&format!("{line} --json")).expect(0).stdout;
        (serde_json::from_str(&told).unwrap(), bench.run(&line).expect(0).stdout)
    };
    let several = (CHAT, json!({"n": 99, "max_tokens": 100, "messages": said}));
    let one = (CHAT, json!({"max_tokens": 100, "messages": said}));
    for options in ["-m m", ""] {
        let (told, text) = of(&[several.clone(), one.clone()], options);
        let told = match told {
            Value::Array(mut all) => all.remove(0),
            told => told,
        };
        assert_eq!((&told["calls"], &told["answers"]), (&json!(2), &json!(100)));
        assert_eq!(told["output_tokens"], json!({"low": 100, "high": 10_000}));
        assert_eq!(told["leaves_out_attachments"], json!(false));
        assert!(text.contains("of 100 answers"), "{text}");
        let image = part(&json!({"type": "image_url", "image_url": {"url": "http://h/a"}}));
        let (told, text) = of(&[(CHAT, image)], options);
        let told = told.get(0).unwrap_or(&told);
        assert_eq!(told["leaves_out_attachments"], json!(true));
        assert!(text.contains("without images, sound and files"), "{text}");
    }
    let score = ("/v1/score", json!({"text_1": "a", "text_2": "b"}));
    let (told, text) = of(&[score], "-m m");
    assert_eq!(told["answer_from"], "none");
    assert!(text.contains("vectors or scores"), "{text}");
}
