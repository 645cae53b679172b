//! Answers that come in events: put together, timed, and never taken for whole when they are not.

use serde_json::{Value, json};

use crate::support::server::shapes::events;
use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, Ended};

const PROTOCOLS: [(&str, &str); 3] =
    [("chat", "/chat/completions"), ("responses", "/responses"), ("messages", "/messages")];

fn run(bench: &Bench, server: &Server, protocol: &str, options: &str) -> Ended {
    let url = server.url();
    bench.run(&format!(
        "run in.jsonl -o out.jsonl --telemetry-output tel.jsonl --id-field id -p {{{{text}}}} \
         --base-url {url} -m m?transport=sse --protocol {protocol} {options}"
    ))
}

fn error_of(bench: &Bench, row: usize) -> Value {
    bench.lines("out.jsonl")[row - 1]["error"].clone()
}

#[test]
fn answers_in_events_are_whole_and_timed() {
    for (protocol, path) in PROTOCOLS {
        let (bench, server) = (Bench::with_rows(40), Server::echo());
        let ended = run(&bench, &server, protocol, "-c 4").expect(0);
        bench.assert_answers(40);
        assert!(server.connections() <= 4, "{} connections", server.connections());
        let call = &server.calls()[0];
        assert!(call.path.ends_with(path));
        assert_eq!(call.body["stream"], true);
        assert_eq!(call.headers["accept"], "text/event-stream");
        for line in bench.lines("tel.jsonl") {
            let ms = |name: &str| line["timing"][name].as_f64().unwrap();
            assert!(ms("time_to_response_ms") <= ms("ttft_ms"), "{line}");
            assert!(ms("ttft_ms") <= ms("duration_ms"), "{line}");
            assert_eq!(line["finish_reason"], "stop");
            assert_eq!(line["usage"]["turn"], json!({"input_tokens": 11, "output_tokens": 7}));
        }
        let summary = ended.summary();
        assert_eq!(summary["timing_ms"]["ttft"]["count"], 40);
        assert_eq!(summary["usage"], json!({"input_tokens": 440, "output_tokens": 280}));
    }
}

#[test]
fn without_streaming_there_is_no_time_to_the_first_token() {
    let (bench, server) = (Bench::with_rows(1), Server::echo());
    let url = server.url();
    let ended = bench.run(&format!(
        "run in.jsonl -o out.jsonl --telemetry-output tel.jsonl -p {{{{text}}}} -m m --base-url {url}"
    ));
    assert_eq!(ended.expect(0).summary()["timing_ms"]["ttft"], Value::Null);
    assert!(bench.lines("tel.jsonl")[0]["timing"]["ttft_ms"].is_null());
}

#[test]
fn events_that_end_too_early_are_no_answer_wherever_they_end() {
    for (protocol, path) in PROTOCOLS {
        // Each row is cut off behind another event, once cleanly and once with its connection.
        let server = Server::start(move |call| {
            let number: usize = call.prompt[5..].parse().unwrap();
            let mut events = events(path, &answer_to(&call.prompt));
            if call.nth > 2 || number >= events.len() {
                return Reply::Answer(answer_to(&call.prompt));
            }
            events.truncate(number);
            Reply::Events { events, whole: call.nth == 1 }
        });
        let bench = Bench::with_rows(6);
        run(&bench, &server, protocol, "").expect(0);
        bench.assert_answers(6);
        let broken = bench.lines("tel.jsonl");
        let broken = broken.iter().filter(|line| line["error"]["type"] == "BrokenAnswerError");
        // A chat that said why it ended is whole without the marker behind it.
        let cuts = if protocol == "chat" { 2 } else { events(path, "x").len().min(7) - 1 };
        assert_eq!(broken.count(), 2 * cuts, "{protocol}");
    }
    let server = Server::start(|_| Reply::Events { events: Vec::new(), whole: true });
    let bench = Bench::with_rows(1);
    run(&bench, &server, "chat", "--retries 0").expect(3);
    assert_eq!(error_of(&bench, 1)["class"], "broken_answer");
}

#[test]
fn an_error_among_events_is_that_of_its_status() {
    let overloaded =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "x"}});
    let invalid =
        json!({"type": "error", "error": {"type": "invalid_request_error", "message": "bad row"}});
    let limited = json!({"type": "error", "error": {"type": "rate_limit_error", "message": "x"}});
    let server = Server::start(move |call| {
        let mut events = events("/messages", "half");
        events.truncate(2);
        match (call.prompt.as_str(), call.nth) {
            ("text 1", 1) => events.push(overloaded.clone()),
            ("text 2", _) => events.push(invalid.clone()),
            ("text 3", 1) => events.push(limited.clone()),
            _ => return Reply::Answer(answer_to(&call.prompt)),
        }
        Reply::Events { events, whole: true }
    });
    let bench = Bench::with_rows(4);
    run(&bench, &server, "messages", "").expect(3);
    let counts = server.counts();
    let counts = ["text 1", "text 2", "text 3", "text 4"].map(|prompt| counts[prompt]);
    assert_eq!(counts, [2, 1, 2, 1]);
    let error = error_of(&bench, 2);
    assert_eq!((&error["class"], &error["attempts"]), (&json!("bad_request"), &json!(1)));
    assert!(error["message"].as_str().unwrap().contains("bad row"));
    for row in [1, 3, 4] {
        assert_eq!(bench.lines("out.jsonl")[row - 1]["ok"], true);
    }
}

#[test]
fn a_stream_that_falls_silent_is_given_up() {
    let server = Server::start(|call| match call.nth {
        1 => Reply::EventsAndHold(events("/chat/completions", "half")[..1].to_vec()),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_rows(1);
    run(&bench, &server, "chat", "--idle-timeout 0.2").expect(0);
    bench.assert_answers(1);
    let first = &bench.lines("tel.jsonl")[0];
    assert_eq!(first["error"]["type"], "TimeoutError");
    assert!(first["error"]["message"].as_str().unwrap().contains("no progress"), "{first}");
    assert!(first["timing"]["ttft_ms"].is_number(), "the half that came was noticed");
}

#[test]
fn endpoints_that_do_not_stream_are_understood() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 2" => Reply::status(400),
        _ => Reply::AnswerAndClose(answer_to(&call.prompt)),
    });
    let bench = Bench::with_rows(3);
    run(&bench, &server, "chat", "").expect(3);
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines[0]["result"], answer_to("text 1"));
    assert_eq!(lines[1]["error"]["message"], "HTTP 400: scripted 400");
    assert_eq!(lines[2]["result"], answer_to("text 3"));
}

#[test]
fn a_stream_is_as_bounded_as_any_answer() {
    let pad = "x".repeat(1 << 20);
    let server = Server::start(move |call| match call.prompt.as_str() {
        "text 1" => Reply::Events { events: vec![json!({"pad": pad}); 40], whole: true },
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_rows(2);
    run(&bench, &server, "chat", "").expect(3);
    assert_eq!(error_of(&bench, 1)["class"], "response_too_large");
    assert_eq!(bench.lines("out.jsonl")[1]["ok"], true);
}

#[test]
fn a_plan_is_worked_the_way_it_says() {
    let (bench, server) = (Bench::with_rows(3), Server::echo());
    let url = server.url();
    bench
        .run(&format!(
            "plan in.jsonl --work-dir job -p {{{{text}}}} --id-field id --base-url {url} \
             -m m?transport=sse"
        ))
        .expect(0);
    bench.run("work --work-dir job").expect(0);
    assert_eq!(server.calls()[0].body["stream"], true);
    bench.run("merge --work-dir job -o out.jsonl").expect(0);
    bench.assert_answers(3);
}

#[test]
fn chat_with_a_finish_reason_is_whole_if_its_body_ends() {
    let server = Server::start(|call| {
        let all = events("/chat/completions", &answer_to(&call.prompt));
        let with = |more: &[Value]| [&all[..3], more].concat();
        let (events, whole) = match (call.prompt.as_str(), call.nth) {
            ("text 1", _) => (with(&[]), true),
            ("text 2", _) => (with(&all[3..4]), true),
            ("text 3", _) => (with(&[json!("[DONE] ")]), true),
            ("text 4", _) => ([&all[..2], &[json!("[DONE]")]].concat(), true),
            // The connection is closed, not the body.
            ("text 5", 1) => (with(&[]), false),
            ("text 6", 1) => (all[..2].to_vec(), true),
            _ => (all, true),
        };
        Reply::Events { events, whole }
    });
    let bench = Bench::with_rows(6);
    run(&bench, &server, "chat", "").expect(0);
    bench.assert_answers(6);
    let counts = server.counts();
    let counts = [1, 2, 3, 4, 5, 6].map(|row| counts[&format!("text {row}")]);
    assert_eq!(counts, [1, 1, 1, 1, 2, 2]);
}

#[test]
fn empty_finish_reasons_end_no_answer() {
    let server = Server::start(|call| {
        let mut all = events("/chat/completions", &answer_to(&call.prompt));
        for event in &mut all[..2] {
            event["choices"][0]["finish_reason"] = json!("");
        }
        all.truncate(if call.nth == 1 { 1 } else { all.len() });
        Reply::Events { events: all, whole: true }
    });
    let bench = Bench::with_rows(1);
    run(&bench, &server, "chat", "").expect(0);
    bench.assert_answers(1);
    assert_eq!(server.count(), 2);
}

#[test]
fn streaming_timeout_bounds_silent_streams() {
    let server = Server::start(|call| match call.nth {
        1 => Reply::EventsAndHold(events("/chat/completions", "half")[..1].to_vec()),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_rows(1);
    let url = server.url();
    let ask = format!(
        "run in.jsonl -o out.jsonl --telemetry-output tel.jsonl --id-field id -p {{{{text}}}} --base-url {url}"
    );
    let model = "-m m?transport=sse&streaming_timeout";
    // It goes before the option, which is for all models.
    bench.run(&format!("{ask} {model}=0.2 --idle-timeout 1h")).expect(0);
    bench.assert_answers(1);
    let message = bench.lines("tel.jsonl")[0]["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("no progress"), "{message}");
    // It decides no answer: the same job goes on with another.
    let calls = server.count();
    bench.run(&format!("{ask} {model}=none --resume")).expect(0);
    assert_eq!(server.count(), calls);
    for value in ["0", "soon", "-1"] {
        bench.run(&format!("{ask} {model}={value} --resume")).expect(2).says("expected a time");
    }
    bench.write(
        "rowmill.toml",
        "[endpoint.x]\nbase_url = \"http://x/v1\"\nparameters = { streaming_timeout = 3 }\n",
    );
    let refused = bench.run(&format!("{ask} -m x.m --resume")).expect(2);
    refused.says("an endpoint says it as `idle_timeout`");
}
