//! What real endpoints do, and what rowmill does about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::server::{Reply, Server, answer_to, completion};
use crate::support::{Bench, CANARY, rows};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m";

/// Runs ten rows against a server that answers `text 5` by a script and all others well.
fn with_fault(
    fault: impl Fn(usize) -> Reply + Send + Sync + 'static,
    options: &str,
) -> (Bench, Server, i32) {
    let server = Server::start(move |call| match call.prompt.as_str() {
        "text 5" => fault(call.nth),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(10));
    let code = bench.run(&format!("{ASK} {options}")).code;
    (bench, server, code)
}

/// The error of row 5.
fn error_of(bench: &Bench) -> serde_json::Value {
    bench.lines("out.jsonl")[4]["error"].clone()
}

#[test]
fn what_may_pass_is_tried_again_until_it_does() {
    let faults: [fn() -> Reply; 9] = [
        || Reply::status(500),
        || Reply::status(503),
        || Reply::status(408),
        || Reply::status(529),
        || Reply::Cut,
        || Reply::Garbage,
        || Reply::body("<html>busy</html>"),
        || Reply::body(json!({"choices": []}).to_string()),
        || Reply::body(json!({"error": {"message": "overloaded"}}).to_string()),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let script = move |nth| if nth == 1 { fault() } else { Reply::Answer("at last".into()) };
        let (bench, server, code) = with_fault(script, "--telemetry-output t.jsonl");
        assert_eq!(code, 0, "fault {number}");
        assert_eq!(bench.lines("out.jsonl")[4]["result"], "at last");
        assert_eq!(server.count(), 11);
        let attempts: Vec<_> = bench
            .lines("t.jsonl")
            .into_iter()
            .filter(|line| line["id"] == "r5")
            .map(|line| (line["attempt"].as_u64().unwrap(), line["ok"].as_bool().unwrap()))
            .collect();
        assert_eq!(attempts, [(1, false), (2, true)], "fault {number}");
    }
}

/// A completion that ended for another reason.
fn ended_with(text: &str, finish_reason: &str) -> Reply {
    let mut body: Value = serde_json::from_str(&completion(text)).unwrap();
    body["choices"][0]["finish_reason"] = json!(finish_reason);
    Reply::body(body.to_string())
}

/// An error under a status of success.
fn in_spite(code: u16) -> Reply {
    Reply::body(json!({"error": {"code": code, "message": "so it is"}}).to_string())
}

#[test]
fn an_error_under_a_status_of_success_stops_or_pauses_the_run_as_under_its_own() {
    for code in [401, 402] {
        let server = Server::start(move |_| in_spite(code));
        let bench = Bench::with_server(&server);
        bench.write("in.jsonl", rows(10));
        bench.run(&format!("{ASK} -c 1")).expect(77);
        assert!(!bench.exists("out.jsonl"), "{code}: the rows are left for the next run");
    }
    let (bench, server, exit) = with_fault(
        |nth| match nth {
            1 | 2 => in_spite(429),
            _ => Reply::Answer(answer_to("text 5")),
        },
        "--retries 0",
    );
    assert_eq!((exit, server.count()), (0, 12), "a rate limit costs no retry");
    assert_eq!(bench.lines("out.jsonl")[4]["ok"], true);
}

#[test]
fn what_was_paid_for_is_counted_whatever_it_brought() {
    let refusal = json!({"choices": [{"message": {"refusal": "no"}, "finish_reason": "stop"}],
        "model": "mock-model-2", "usage": {"prompt_tokens": 11, "completion_tokens": 7}});
    let refusal = Reply::body(refusal.to_string());
    for (reply, reason, model) in [
        (refusal, "stop", "mock-model-2"),
        (ended_with("half", "content_filter"), "content_filter", "mock-model-1"),
        (ended_with("", "length"), "length", "mock-model-1"),
        (ended_with("", "stop"), "stop", "mock-model-1"),
    ] {
        let server = Server::start(move |call| match call.prompt.as_str() {
            "text 2" => reply.clone(),
            _ => Reply::Answer(answer_to(&call.prompt)),
        });
        let bench = Bench::new();
        bench.write("in.jsonl", rows(3));
        let ended = bench.run(&format!(
            "run in.jsonl -o out.jsonl --telemetry-output tel.jsonl -p {{{{text}}}} -m m \
             --retries 0 --base-url {}",
            server.url()
        ));
        let summary = ended.expect(3).summary();
        assert_eq!(summary["usage"], json!({"input_tokens": 33, "output_tokens": 21}), "{reason}");
        let line = &bench.lines("tel.jsonl")[1];
        assert_eq!(line["ok"], false);
        assert_eq!(line["usage"]["turn"], json!({"input_tokens": 11, "output_tokens": 7}));
        assert_eq!((&line["finish_reason"], &line["model"]), (&json!(reason), &json!(model)));
    }
}

#[test]
fn what_does_not_pass_fails_the_row_with_its_class_never_with_an_apology_for_an_answer() {
    let long =
        json!({"error": {"message": "too long", "code": "context_length_exceeded"}}).to_string();
    let filtered = json!({"error": {"message": "no", "code": "content_filter"}}).to_string();
    let status = |status, body: &str| Reply::Status(status, Vec::new(), body.to_owned());
    let (long, filtered) = (status(400, &long), status(400, &filtered));
    let refused = json!({"choices": [{"message": {"content": null, "refusal": "I cannot"}}]});
    for (reply, class, kind, attempts) in [
        (Reply::status(500), "server_error", "ServerError", 2),
        (Reply::Cut, "broken_answer", "BrokenAnswerError", 2),
        (Reply::body("not json"), "bad_response", "BadResponseError", 2),
        (Reply::body("{\"choices\":[]}"), "empty_answer", "EmptyAnswerError", 2),
        (Reply::body(completion("")), "empty_answer", "EmptyAnswerError", 2),
        (ended_with("", "length"), "truncated", "TruncatedError", 1),
        (ended_with("half", "error"), "server_error", "ServerError", 2),
        (ended_with("half", "abort"), "server_error", "ServerError", 2),
        (Reply::status(400), "bad_request", "BadRequestError", 1),
        (Reply::status(422), "bad_request", "BadRequestError", 1),
        (Reply::status(413), "too_long", "ContextLengthError", 1),
        (long, "too_long", "ContextLengthError", 1),
        (filtered, "content_filter", "ContentFilterError", 1),
        (Reply::body(refused.to_string()), "refusal", "RefusalError", 1),
    ] {
        let (bench, server, code) = with_fault(move |_| reply.clone(), "--retries 1");
        assert_eq!(code, 3, "{class}");
        let error = error_of(&bench);
        assert_eq!((&error["class"], &error["type"]), (&json!(class), &json!(kind)));
        assert_eq!(error["attempts"], attempts, "{class}");
        assert_eq!(server.count(), 9 + attempts, "{class}");
        let line = &bench.lines("out.jsonl")[4];
        assert_eq!((&line["ok"], &line["result"]), (&json!(false), &json!(null)));
    }
}

#[test]
fn a_model_that_no_row_finds_ends_the_run_before_they_fail_and_one_row_alone_does_not() {
    let server = Server::start(|call| match call.body["model"].as_str().unwrap_or_default() {
        "m" => Reply::Answer(answer_to(&call.prompt)),
        _ => Reply::status(404),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(500));
    let wrong = ASK.replace("-m m", "-m slip");
    let ended = bench.run(&format!("{wrong} --retries 0")).expect(78);
    let asked = format!("POST {}/chat/completions: ", server.url());
    assert!(!ended.stderr.contains("is /v1 missing"), "{}", ended.stderr);
    ended.says("no row was answered").says(&asked);
    // Those in flight when it was clear, and rows that waited for another try.
    assert!(server.count() <= 40, "{} calls", server.count());
    assert!(!bench.exists("out.jsonl"));
    let status = bench.run("status --work-dir out.jsonl.rowmill").expect(0).stdout;
    assert!(status.contains("0 failed"), "{status}");
    // The commonest slip has a hint of its own.
    let root = server.url().replace("/v1", "");
    let ended = bench.run(&format!("{wrong} --overwrite --retries 0 --base-url {root}")).expect(78);
    ended.says(&format!("POST {root}/chat/completions: ")).says("is /v1 missing at its end?");
    // Who has answered others does not know this row.
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 5" => Reply::status(404),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(10));
    bench.run(&format!("{ASK} -c 1")).expect(3);
    assert_eq!(server.count(), 10);
    let line = &bench.lines("out.jsonl")[4];
    assert_eq!(line["error"]["class"], "not_found");
    // Nor does one row alone show anything.
    bench.write("in.jsonl", rows(5).lines().last().unwrap().to_owned() + "\n");
    bench.run(&format!("{ASK} --overwrite")).expect(3);
    assert_eq!(server.count(), 10 + 3);
}

#[test]
fn rows_that_are_not_found_end_no_run_of_a_job_that_has_answers() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 6" | "text 7" | "text 8" | "text 9" => Reply::status(404),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    // In one shard with answers or in one without; with what is known in the work directory, or in the output alone.
    for options in ["--keep-work-dir", "--keep-work-dir --shard-rows 5", ""] {
        let bench = Bench::with_server(&server);
        bench.write("in.jsonl", rows(9));
        let ask = format!("{ASK} -c 1 --resume {options}");
        bench.run(&ask).expect(3);
        for _ in 0..2 {
            if options.is_empty() && bench.exists("out.jsonl.rowmill") {
                std::fs::remove_dir_all(bench.path("out.jsonl.rowmill")).unwrap();
            }
            let before = server.count();
            bench.run(&ask).expect(3);
            assert_eq!(server.count() - before, 4, "{options}");
        }
        assert_eq!(bench.lines("out.jsonl")[8]["error"]["class"], "not_found");
    }
}

#[test]
fn retries_are_counted() {
    let (bench, server, code) = with_fault(|_| Reply::status(500), "--retries 0");
    assert_eq!((code, server.count()), (3, 10));
    assert_eq!(error_of(&bench)["attempts"], 1);
    let (bench, _, _) = with_fault(|_| Reply::body("{}"), "--retries 9");
    assert_eq!(error_of(&bench)["attempts"], 2, "an empty answer is asked for once more");
}

#[test]
fn retry_after_binds_the_row_that_got_it() {
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("text 3", 1) => Reply::Status(429, vec![("retry-after", "1".into())], String::new()),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(30));
    bench.run(&format!("{ASK} -c 1 --retries 0")).expect(0);
    let calls = server.calls();
    assert_eq!(calls.len(), 31);
    assert_eq!((calls[2].prompt.as_str(), calls[30].prompt.as_str()), ("text 3", "text 3"));
    let waited = calls[30].at - calls[2].at;
    assert!(waited >= Duration::from_secs(1), "the row was called again after {waited:?}");
    assert_eq!(calls[3].prompt, "text 4", "others go on meanwhile");
}

#[test]
fn row_always_refused_fails_alone() {
    let wait = vec![("retry-after-ms", "20".to_owned())];
    // Refusals of one row among ten might be chance: it takes a few more of them to be sure.
    for (status, retries, most) in [(503, 0, 1), (503, 2, 3), (429, 0, 8), (429, 2, 10)] {
        let wait = wait.clone();
        let refuse = move |_| Reply::Status(status, wait.clone(), String::new());
        let (bench, server, code) = with_fault(refuse, &format!("--retries {retries} -c 1"));
        assert_eq!(code, 3, "{status}");
        assert_eq!(bench.lines("out.jsonl").iter().filter(|line| line["ok"] == true).count(), 9);
        let calls = server.counts()["text 5"];
        assert!(retries < calls && calls <= most, "{status} --retries {retries}: {calls} calls");
    }
}

#[test]
fn row_refused_the_key_fails_alone() {
    for status in [401, 402, 403] {
        let (bench, server, code) = with_fault(move |_| Reply::status(status), "-c 2");
        assert_eq!(code, 3, "{status}");
        assert_eq!(bench.lines("out.jsonl").iter().filter(|line| line["ok"] == true).count(), 9);
        assert_eq!(server.counts()["text 5"], 3, "{status}");
        // Once is nobody's failure.
        let once = move |nth| match nth {
            1 => Reply::status(status),
            _ => Reply::Answer("at last".into()),
        };
        assert_eq!(with_fault(once, "-c 2 --retries 0").2, 0, "{status}");
    }
}

#[test]
fn retry_after_is_understood_in_every_spelling() {
    for (name, value) in [("retry-after-ms", "300"), ("retry-after", "0.3")] {
        let server = Server::start(move |call| match call.nth {
            1 if call.prompt == "text 1" => {
                Reply::Status(429, vec![(name, value.into())], String::new())
            }
            _ => Reply::Answer(answer_to(&call.prompt)),
        });
        let bench = Bench::with_server(&server);
        bench.write("in.jsonl", rows(1));
        bench.run(ASK).expect(0);
        let calls = server.calls();
        assert!(calls[1].at - calls[0].at >= Duration::from_millis(300), "{name}");
    }
    // A wait longer than an outage may last ends the run, with the time.
    let server =
        Server::start(|_| Reply::Status(429, vec![("retry-after", "7200".into())], String::new()));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    bench.run(&format!("{ASK} -c 1")).expect(69).says("left alone for 7200 s");
    assert_eq!(server.count(), 1);
}

#[test]
fn short_waits_that_are_asked_for_again_and_again_are_an_outage_of_the_length_allowed() {
    let wait = vec![("retry-after", "1".to_owned())];
    let server = Server::start(move |_| Reply::Status(503, wait.clone(), "busy".into()));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    let ended = bench.run(&format!("{ASK} -c 1 --max-outage 1.7")).expect(69);
    let ended = ended.says("the endpoint was out of reach for 1 s").says("3 rows are left");
    assert!(!ended.stderr.contains("longer than --max-outage"), "{ended:?}");
}

#[test]
fn a_refused_key_or_an_empty_account_stops_the_run_and_fails_no_row() {
    let quota = json!({"error": {"message": "You exceeded your current quota",
                                 "type": "insufficient_quota", "code": "insufficient_quota"}});
    for (reply, text) in [
        (Reply::status(401), "refused the key"),
        (Reply::status(403), "refused the key"),
        (Reply::status(402), "quota or credit"),
        (Reply::Status(429, Vec::new(), quota.to_string()), "quota or credit"),
    ] {
        let is_good = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_good);
        let server = Server::start(move |call| match seen.load(Ordering::SeqCst) {
            true => Reply::Answer(answer_to(&call.prompt)),
            false => reply.clone(),
        });
        let bench = Bench::with_server(&server);
        bench.write("in.jsonl", rows(100));
        bench.run(&format!("{ASK} -c 2")).expect(77).says(text).says("100 rows are left");
        assert!(server.count() <= 4, "{} calls: it stops at once", server.count());
        assert!(!bench.exists("out.jsonl"));
        is_good.store(true, Ordering::SeqCst);
        bench.run(&format!("{ASK} --resume")).expect(0);
    }
}

#[test]
fn an_endpoint_that_is_not_there_is_waited_for_and_no_row_fails() {
    // A port that nothing listens on: it was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bench = Bench::new();
    bench.write("in.jsonl", rows(10));
    let ask = format!("{ASK} --base-url http://127.0.0.1:{port}/v1");
    bench
        .run(&format!("{ask} --max-outage 0.5"))
        .expect(69)
        .says("Connection refused")
        .says("10 rows are left");
    let running = bench.start(&format!("{ask} --resume --progress-every 1"));
    let server = Server::at(port, |call| Reply::Answer(answer_to(&call.prompt)));
    running.wait().expect(0);
    assert_eq!(server.count(), 10);
    assert!(bench.lines("out.jsonl").iter().all(|line| line["ok"] == true));
}

#[test]
fn connections_that_close_unasked_cost_no_row() {
    // Every answer is followed by a close that nothing announced.
    let server = Server::start(|call| Reply::AnswerAndClose(answer_to(&call.prompt)));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(50));
    bench.run(&format!("{ASK} -c 4 --retries 0")).expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 50);
    // A call on which nothing ever comes back does not count against its row.
    let (bench, server, code) = with_fault(
        |nth| if nth <= 2 { Reply::Close } else { Reply::Answer("at last".into()) },
        "--retries 0",
    );
    assert_eq!(code, 0);
    assert_eq!(bench.lines("out.jsonl")[4]["result"], "at last");
    assert!(server.count() >= 12);
}

#[test]
fn a_call_that_takes_too_long_is_given_up() {
    let (bench, server, code) =
        with_fault(|_| Reply::Hold("too late".into()), "--timeout 0.3 --retries 1");
    assert_eq!(code, 3);
    let error = error_of(&bench);
    assert_eq!((&error["class"], &error["attempts"]), (&json!("timeout"), &json!(2)));
    assert_eq!(server.count(), 11);
}

#[test]
fn redirect_of_one_row_to_another_host_fails_the_row() {
    let other = Server::echo();
    let url = other.url();
    let (bench, _, code) =
        with_fault(move |_| Reply::Status(307, vec![("location", url.clone())], String::new()), "");
    assert_eq!(code, 3);
    let error = error_of(&bench);
    assert_eq!(error["class"], "redirect");
    assert!(error["message"].as_str().unwrap().contains(&other.url()));
    assert_eq!(other.count(), 0);
}

#[test]
fn a_server_that_repeats_the_key_cannot_make_us_write_it_down() {
    let (bench, _, code) = with_fault(
        |_| Reply::Status(400, Vec::new(), format!("{{\"error\":\"bad key {CANARY}\"}}")),
        "--telemetry-output t.jsonl --error-output e.jsonl",
    );
    assert_eq!(code, 3);
    assert_eq!(error_of(&bench)["message"], "HTTP 400: bad key [key]");
}

#[test]
fn an_answer_that_was_cut_off_is_told() {
    let body = completion("half an ans").replace("\"stop\"", "\"length\"");
    let (bench, _, code) = with_fault(
        move |_| Reply::body(body.clone()),
        "--summary-output s.json --telemetry-output t.jsonl",
    );
    assert_eq!(code, 0);
    assert_eq!(bench.json("s.json")["truncated"], 1);
    assert_eq!(bench.lines("t.jsonl")[4]["finish_reason"], "length");
}

#[test]
fn odd_but_honest_answers_are_understood() {
    let parts = json!({"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}]});
    let bare = json!({"choices": [{"message": {"content": "c"}}], "usage": null, "model": null, "error": null});
    let details = json!({"choices": [{"message": {"content": "d"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20,
                  "prompt_tokens_details": {"cached_tokens": 64},
                  "completion_tokens_details": {"reasoning_tokens": 16}}});
    for (body, text) in [(parts, "ab"), (bare, "c"), (details, "d")] {
        let (bench, _, code) =
            with_fault(move |_| Reply::body(body.to_string()), "--telemetry-output t.jsonl");
        assert_eq!(code, 0);
        assert_eq!(bench.lines("out.jsonl")[4]["result"], text);
        if text == "d" {
            assert_eq!(
                bench.lines("t.jsonl")[4]["usage"]["turn"],
                json!({"input_tokens": 100, "output_tokens": 20, "cached_input_tokens": 64,
                       "reasoning_tokens": 16})
            );
        }
    }
}

#[test]
fn an_encrypted_endpoint_is_called_when_its_certificate_is_trusted() {
    let (server, certificate) = Server::start_tls(|call| Reply::Answer(answer_to(&call.prompt)));
    let mut bench = Bench::new();
    bench.write("in.jsonl", rows(10));
    let roots = bench.write("roots.pem", certificate);
    bench.set("SSL_CERT_FILE", roots.to_str().unwrap());
    bench.run(&format!("{ASK} --base-url {}", server.https_url())).expect(0);
    assert_eq!(server.count(), 10);
}

#[test]
fn a_certificate_that_was_never_good_stops_the_run_at_once() {
    let (server, _) = Server::start_tls(|call| Reply::Answer(answer_to(&call.prompt)));
    let (_, other) = Server::start_tls(|_| Reply::Close);
    let mut bench = Bench::new();
    bench.write("in.jsonl", rows(10));
    let roots = bench.write("roots.pem", other);
    bench.set("SSL_CERT_FILE", roots.to_str().unwrap());
    let ended = bench.run(&format!("{ASK} --base-url {}", server.https_url())).expect(69);
    assert!(ended.stderr.contains("no encrypted connection"), "{}", ended.stderr);
    assert!(ended.stderr.contains("10 rows are left"), "{}", ended.stderr);
    assert_eq!(server.count(), 0);
}

#[test]
fn a_call_sent_again_because_its_connection_was_closed_is_told() {
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("text 1", _) | (_, 2..) => Reply::Answer(answer_to(&call.prompt)),
        // It took the call, on a connection that was open since the last one.
        _ => Reply::Close,
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(5));
    let ended = bench.run(&format!("{ASK} -c 1 --retries 0 --telemetry-output t.jsonl")).expect(0);
    assert_eq!(server.count(), 9);
    assert_eq!(ended.summary()["calls"]["made"], 9);
    let lines = bench.lines("t.jsonl");
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[1]["error"]["type"], "ConnectionError");
}

#[test]
fn an_endpoint_that_fails_for_everyone_is_waited_for_and_no_row_fails() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let server = Server::start(move |call| match seen.fetch_add(1, Ordering::SeqCst) {
        // As many as are taken for an outage, and one more for a probe.
        20..41 => Reply::status(503),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(200));
    bench.run(&format!("{ASK} -c 48 --retries 1")).expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 200);
}

#[test]
fn a_row_that_makes_the_endpoint_hang_up_fails_alone() {
    let (bench, server, code) = with_fault(|_| Reply::Close, "--retries 0 -c 1");
    assert_eq!(code, 3);
    assert_eq!(error_of(&bench)["type"], "ConnectionError");
    assert_eq!(bench.lines("out.jsonl").iter().filter(|line| line["ok"] == true).count(), 9);
    let calls = server.counts()["text 5"];
    assert!((3..=4).contains(&calls), "{calls} calls");
}
