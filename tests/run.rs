//! One run from rows to outputs: what stands in them, and what was sent.

use serde_json::json;

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, CANARY, assert_same, rows};

#[test]
fn the_first_run_of_the_readme_answers_every_row() {
    let bench = Bench::new();
    let input = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/reviews.jsonl");
    let prompt = "Positive or negative? {{text}}";
    let ended = bench
        .run_args([
            "run",
            input,
            "-o",
            "results.jsonl",
            "--id-field",
            "id",
            "--prompt",
            prompt,
            "-m",
            "passthrough",
        ])
        .expect(0);
    let rows: Vec<serde_json::Value> = std::fs::read_to_string(input)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let answers = bench.lines("results.jsonl");
    assert_eq!(answers.len(), rows.len());
    for (number, (row, answer)) in rows.iter().zip(&answers).enumerate() {
        let text = row["text"].as_str().unwrap();
        assert_eq!(answer["id"], row["id"]);
        assert_eq!(answer["row_number"], number + 1);
        assert_eq!(answer["result"], format!("Positive or negative? {text}"));
    }
    assert_eq!(ended.summary()["rows"]["ok"], rows.len());
    assert!(!bench.exists("results.jsonl.rowmill"), "a default work dir goes when all is done");
}

#[test]
fn envelopes_telemetry_and_summary_have_their_shape() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "bad" => Reply::status(400),
        _ => Reply::Answer("yes".to_owned()),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", "{\"id\":7,\"t\":\"good\"}\n{\"id\":\"b\",\"t\":\"bad\"}\n");
    bench.write("system.txt", "Be brief.");
    let ended = bench
        .run(
            "run -i in.jsonl -o out.jsonl --id-field id -p {{t}} -m some-model --instruction system.txt \
             --temperature 0.20 --max-tokens 5 --top-p 1.0 --param seed=7 --error-output err.jsonl \
             --telemetry-output tel.jsonl --summary-output sum.json",
        )
        .expect(3);
    let good = "{\"id\":7,\"row_number\":1,\"ok\":true,\"result\":\"yes\",\"error\":null}\n";
    let bad = "{\"id\":\"b\",\"row_number\":2,\"ok\":false,\"result\":null,\"error\":{\"type\":\
               \"BadRequestError\",\"message\":\"HTTP 400: scripted 400\",\"class\":\"bad_request\",\
               \"status\":400,\"attempts\":1}}\n";
    assert_eq!(bench.read("out.jsonl"), format!("{good}{bad}"));
    assert_eq!(bench.read("err.jsonl"), bad);

    let call = &server.calls()[0];
    assert_eq!(call.path, "/v1/chat/completions");
    assert_eq!(call.headers["authorization"], format!("Bearer {CANARY}"));
    assert_eq!(
        call.body,
        json!({
            "model": "some-model",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": call.prompt},
            ],
            "max_tokens": 5,
            "seed": 7,
            "temperature": 0.20,
            "top_p": 1.0,
        })
    );

    let telemetry = bench.read("tel.jsonl");
    let first: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(telemetry.lines().next().unwrap()).unwrap();
    let line = telemetry.lines().next().unwrap();
    let order = ["id", "row_number", "ok", "attempt", "model", "timing", "usage", "status"];
    let places: Vec<_> =
        order.iter().map(|key| line.find(&format!("\"{key}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{line}");
    assert_eq!(first["model"], "mock-model-1");
    assert_eq!(first["usage"], json!({"turn": {"input_tokens": 11, "output_tokens": 7}}));
    assert!(
        first["timing"]["time_to_response_ms"].as_f64() <= first["timing"]["duration_ms"].as_f64()
    );
    let second = &bench.lines("tel.jsonl")[1];
    assert_eq!((&second["ok"], &second["status"]), (&json!(false), &json!(400)));
    assert_eq!(second["error"]["type"], "BadRequestError");

    let summary = bench.json("sum.json");
    assert_eq!(ended.summary(), summary, "what is printed is what is written");
    assert_eq!(summary["rows"]["ok"], 1);
    assert_eq!(summary["rows"]["failed"], 1);
    assert_eq!(summary["failures"], json!({"bad_request": 1}));
    assert_eq!(summary["calls"]["made"], 2);
    assert_eq!(summary["usage"], json!({"input_tokens": 11, "output_tokens": 7}));
    assert_eq!(summary["timing_ms"]["duration"]["count"], 2);
    for output in summary["outputs"].as_array().unwrap() {
        let bytes = std::fs::read(output["path"].as_str().unwrap()).unwrap();
        assert_eq!(output["bytes"], bytes.len());
        assert_eq!(output["blake3"], blake3::hash(&bytes).to_hex().as_str());
    }
    assert_eq!(summary["outputs"].as_array().unwrap().len(), 3);
    let input = std::fs::read(bench.path("in.jsonl")).unwrap();
    assert_eq!(summary["input"]["blake3"], blake3::hash(&input).to_hex().as_str());
}

#[test]
fn lines_come_in_input_order_whatever_was_slow_or_retried() {
    // Every third row fails once, and calls end in any order.
    let server = Server::start(|call| {
        let number: usize = call.prompt[5..].parse().unwrap();
        if number.is_multiple_of(3) && call.nth == 1 {
            return Reply::Cut;
        }
        Reply::Answer(answer_to(&call.prompt))
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(200));
    bench
        .run("run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m -c 16 --parallel 3 --shard-rows 17")
        .expect(0);
    let numbers: Vec<_> =
        bench.lines("out.jsonl").iter().map(|line| line["row_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    for line in bench.lines("out.jsonl") {
        let text = format!("text {}", line["row_number"]);
        assert_eq!(line["result"], answer_to(&text), "an answer stands with its own row");
    }
    assert_eq!(server.count(), 200 + 66);
}

#[test]
fn small_shards_do_not_keep_requests_from_being_in_flight() {
    let server = Server::start(|call| Reply::Hold(answer_to(&call.prompt)));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(200));
    let running = bench.start(
        "run in.jsonl -o out.jsonl -p {{text}} -m m -c 64 --fixed-concurrency --shard-rows 5",
    );
    server.wait_for_active(64);
    server.release();
    running.wait().expect(0);
    assert_eq!(server.peak(), 64);
}

#[test]
fn requests_in_flight_stay_within_the_bound_over_all_workers() {
    let server = Server::start(|call| Reply::Hold(answer_to(&call.prompt)));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(60));
    let running =
        bench.start("run in.jsonl -o out.jsonl -p {{text}} -m m -c 7 --parallel 4 --shard-rows 10");
    server.wait_for_active(7);
    assert_eq!(server.count(), 7, "no more are sent while these are under way");
    server.release();
    running.wait().expect(0);
    assert_eq!(server.peak(), 7);
    // Each worker keeps its own connections.
    assert!(server.connections() <= 7 * 4, "connections are used again: {}", server.connections());
}

#[test]
fn the_output_may_be_standard_output() {
    let bench = Bench::new();
    bench.write("in.jsonl", rows(3));
    let ended = bench.run("run in.jsonl -o - -p {{text}} -m passthrough").expect(0);
    assert_eq!(ended.stdout.lines().count(), 3);
    assert!(
        ended.stdout.starts_with("{\"id\":1,\"row_number\":1,\"ok\":true,\"result\":\"text 1\"")
    );
    assert!(!bench.exists("in.jsonl.rowmill"));
    bench.run("run in.jsonl -o - --final-summary -m passthrough").expect(2);
}

#[test]
fn a_dry_run_shows_the_first_requests_and_makes_none() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(100));
    let before = bench.snapshot();
    let ask = "run in.jsonl -o out.jsonl -p 'Q: {{text}}' -m m --param n_=12345678901234567890.50";
    let ended = bench.run(&format!("{ask} --dry-run")).expect(0);
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Q: text 1"}],"n_":12345678901234567890.50}"#;
    assert!(ended.stdout.contains(body), "byte for byte what would be sent: {}", ended.stdout);
    assert!(ended.stdout.contains("/v1/chat/completions"));
    assert!(ended.stderr.contains("100 would be asked about"));
    assert_eq!(server.count(), 0);
    assert_same(&bench.snapshot(), &before);
}

#[test]
fn rows_come_back_byte_for_byte() {
    let bench = Bench::new();
    let odd = [
        r#"{"id":900719925474099312345,"v":1.50}"#,
        r#"{"id":"d\u0075p","k":1,"k":2,"n":-0,"e":1E400}"#,
        r#"{ "id" : "sp" , "s":"\ud800 \u00e9 \/" }"#,
        r#"{"id":"last","deep":[[[{"a":[]}]]]}"#,
    ];
    bench.write("in.jsonl", odd.join("\n"));
    bench
        .run("run in.jsonl -o out.jsonl --id-field id --include-input -p x --allow-constant-prompt -m passthrough")
        .expect(0);
    let text = bench.read("out.jsonl");
    for (line, row) in text.lines().zip(odd) {
        assert!(line.ends_with(&format!(",\"input\":{row}}}")), "{line}");
    }
    assert!(text.starts_with("{\"id\":900719925474099312345,"));
    assert!(text.contains(r#"{"id":"d\u0075p","#));
}

#[test]
fn samples_do_not_depend_on_parallelism() {
    let bench = Bench::new();
    bench.write("in.jsonl", rows(1000));
    let draw = |options: &str, name: &str| {
        bench
            .run(&format!(
                "run in.jsonl -o {name} --id-field id -p {{{{text}}}} -m passthrough {options}"
            ))
            .expect(0);
        bench.read(name)
    };
    let one = draw("--sample 40 --seed 5 --parallel 1", "a");
    let many = draw("--sample 40 --seed 5 --parallel 8 --shard-rows 7", "b");
    assert_eq!(one, many);
    assert_eq!(one.lines().count(), 40);
    assert_ne!(one, draw("--sample 40 --seed 6", "c"));
    assert_eq!(draw("--offset 990 --limit 3", "d").lines().count(), 3);
}

#[test]
fn stages_by_hand_come_to_the_same_as_run() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(50));
    let question = "--id-field id -p {{text}} -m m --shard-rows 10";
    bench.run(&format!("run in.jsonl -o whole.jsonl {question}")).expect(0);
    bench
        .run(&format!("plan in.jsonl --work-dir job {question}"))
        .expect(0)
        .says("50 of 50 rows in 5 shards");
    bench.run(&format!("plan in.jsonl --work-dir job {question}")).expect(0);
    bench.run("merge --work-dir job -o out.jsonl").expect(78).says("50 of 50 rows");
    bench.run("work --work-dir job --shard 0,2-3").expect(0);
    bench.run("merge --work-dir job -o out.jsonl").expect(78).says("20 of 50 rows");
    bench.run("work --work-dir job --shard 9").expect(2);
    bench.run("work --work-dir job").expect(0);
    bench.run("merge --work-dir job -o out.jsonl").expect(0);
    assert_eq!(bench.read("out.jsonl"), bench.read("whole.jsonl"));
    assert_eq!(server.count(), 100);
    let status = bench.run("status --work-dir job --json").expect(0).summary();
    assert_eq!((&status["state"], &status["ok"]), (&json!("published"), &json!(50)));
    bench.run("status --work-dir job").expect(0);
    bench.run("check --work-dir job").expect(0);
}

#[test]
fn usage_is_explained() {
    let bench = Bench::new();
    bench.write("in.jsonl", rows(1));
    for command in ["", "run", "plan", "work", "merge", "status", "check", "filter"] {
        let ended = bench.run(&format!("{command} --help")).expect(0);
        let part = if command.is_empty() { "Exit codes:" } else { "Examples:" };
        assert!(ended.stdout.contains(part), "{command}: {}", ended.stdout);
    }
    bench.run("run in.jsonl -o out.jsonl").expect(2);
    bench.run("run in.jsonl -o out.jsonl -m m --no-such-option").expect(2);
    bench.run("run in.jsonl -o out.jsonl -m m --param stream=true").expect(2).says("transport=sse");
    bench.run("run in.jsonl -o out.jsonl -m m --param user=bob").expect(2).says("'user=\"bob\"'");
    bench.run("run in.jsonl -o out.jsonl -m m --base-url nonsense").expect(2).says("http://");
    bench.run("run in.jsonl -o out.jsonl -m m --resume --overwrite").expect(2);
    assert!(!bench.exists("out.jsonl.rowmill"));
}
