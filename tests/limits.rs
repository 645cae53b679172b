//! Endpoints that limit, refuse, stall and fail, one fault at a time, and what rowmill does about it.
//! What happens when they do it all at once is in `hostile`.
//!
//! | what an endpoint does | where that is tested |
//! | --- | --- |
//! | 429 with `Retry-After`: seconds, ms | `faults::retry_after_binds_the_row_that_got_it`, `faults::retry_after_is_understood_in_every_spelling` |
//! | the same, for everybody | `retry_after_binds_all_where_nobody_is_answered` |
//! | the same, always for one row | `faults::row_always_refused_fails_alone` |
//! | 429 with a date, clocks apart | `a_retry_after_with_a_date_is_counted_from_the_servers_clock` |
//! | 429 without, or with what means nothing | `a_refusal_without_a_time_costs_the_row_nothing_and_pauses_nobody` |
//! | 429 with more than `--max-outage` | `faults::retry_after_is_understood_in_every_spelling` |
//! | quota and spend | `every_word_for_no_money_stops_the_run_at_once`, `faults::a_refused_key_or_an_empty_account_stops_the_run_and_fails_no_row` |
//! | 500, 503, 408, 529 | `faults::what_may_pass_is_tried_again_until_it_does`; all others: `every_status_that_may_pass_is_tried_again` |
//! | connection refused | `faults::an_endpoint_that_is_not_there_is_waited_for_and_no_row_fails` |
//! | no such name | `a_name_that_is_none_is_an_outage` |
//! | closed before any byte | `faults::connections_that_close_unasked_cost_no_row` |
//! | cut in the middle, a body that is shorter than it says, no HTTP | `faults::what_may_pass_is_tried_again_until_it_does` (`Cut`, `Garbage`) |
//! | bad chunks | `an_answer_that_stalls_or_is_garbled_is_given_up` |
//! | TLS: not trusted, another host | `faults::an_encrypted_endpoint_is_called_when_its_certificate_is_trusted` |
//! | no connection in time | `a_connection_that_does_not_come_is_given_up_and_waited_for` |
//! | never answers | `faults::a_call_that_takes_too_long_is_given_up`, `an_answer_that_stalls_or_is_garbled_is_given_up` |
//! | a byte at a time | `an_answer_that_stalls_or_is_garbled_is_given_up`, `http::idle` |
//! | a body that is too large | `faults`, `http::error::Error::TooLarge` |
//! | 200 with HTML, an error, nothing | `faults::what_may_pass_is_tried_again_until_it_does`, `faults::what_does_not_pass_fails_the_row_with_its_class_never_with_an_apology_for_an_answer` |
//! | an error among events, a stream without an end | `streams` |
//! | redirects | `network::redirect_elsewhere_ends_the_run_before_rows_fail` |
//! | 401, 402, 403 for one row | `faults::row_refused_the_key_fails_alone` |
//! | 401, 403 | `faults::a_refused_key_or_an_empty_account_stops_the_run_and_fails_no_row` |
//! | 400, 413, 422, content filter, refusal, empty | `faults::what_does_not_pass_fails_the_row_with_its_class_never_with_an_apology_for_an_answer` |
//! | 404 | `faults::a_model_that_no_row_finds_ends_the_run_before_they_fail_and_one_row_alone_does_not` |
//! | cut off at its longest | `faults::an_answer_that_was_cut_off_is_told` |
//! | an answer that does not fit its schema | `structured` |
//! | brown-out, outage, all of it together | `hostile` |
//! | our timeout, though the endpoint took the call | `a_call_has_one_key_until_it_is_answered` |
//! | keep-alive race | `faults::connections_that_close_unasked_cost_no_row` |

use std::collections::{HashMap, HashSet};
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::server::{Call, Reply, Server, answer_to};
use crate::support::{Bench, rows};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m";

fn well(call: &Call) -> Reply {
    Reply::Answer(answer_to(&call.prompt))
}

/// A bench with so many rows before a server.
fn bench(server: &Server, count: usize) -> Bench {
    let bench = Bench::with_server(server);
    bench.write("in.jsonl", rows(count));
    bench
}

fn refused(headers: Vec<(&'static str, String)>) -> Reply {
    Reply::Status(429, headers, String::new())
}

#[test]
fn retry_after_binds_all_where_nobody_is_answered() {
    let first: OnceLock<Instant> = OnceLock::new();
    let lasts = Duration::from_secs(2);
    let server = Server::start(move |call| match first.get_or_init(|| call.at).elapsed() < lasts {
        true => refused(vec![("retry-after", "2".into())]),
        false => well(call),
    });
    let bench = bench(&server, 400);
    bench.run(&format!("{ASK} -c 16 --parallel 4 --shard-rows 20 --retries 0")).expect(0);
    let calls = server.calls();
    // What was on its way when the first refusals came is let off.
    let inside = calls.iter().filter(|call| {
        let after = call.at.saturating_duration_since(calls[0].at);
        after > Duration::from_secs(1) && after < lasts
    });
    assert_eq!(inside.count(), 0);
    assert!(calls.len() <= 400 + 2 * 16, "{} calls", calls.len());
}

#[test]
fn wait_in_the_text_is_a_retry_after() {
    let body =
        json!({"error": {"message": "Rate limit is exceeded. Try again in 1s."}}).to_string();
    let server = Server::start(move |call| match (call.prompt.as_str(), call.nth) {
        ("text 2", 1) => Reply::Status(429, Vec::new(), body.clone()),
        _ => well(call),
    });
    let bench = bench(&server, 3);
    bench.run(&format!("{ASK} -c 1 --retries 0")).expect(0);
    let calls = server.calls();
    let two: Vec<_> = calls.iter().filter(|call| call.prompt == "text 2").collect();
    assert!(two[1].at - two[0].at >= Duration::from_secs(1));
}

#[test]
fn a_retry_after_with_a_date_is_counted_from_the_servers_clock() {
    let server = Server::start(|call| match call.nth {
        1 => refused(vec![
            ("date", "Sat, 21 Nov 2020 12:00:00 GMT".into()),
            ("retry-after", "Sat, 21 Nov 2020 12:00:01 GMT".into()),
        ]),
        _ => well(call),
    });
    let bench = bench(&server, 1);
    bench.run(&format!("{ASK} --retries 0")).expect(0);
    let calls = server.calls();
    assert!(calls[1].at - calls[0].at >= Duration::from_secs(1));
}

#[test]
fn a_refusal_without_a_time_costs_the_row_nothing_and_pauses_nobody() {
    for value in [None, Some("-1"), Some("abc"), Some("Sat, 21 Nov 2020 12:00:00 GMT")] {
        let server = Server::start(move |call| match (call.prompt.as_str(), call.nth) {
            ("text 3", 1 | 2) => {
                refused(value.iter().map(|value| ("retry-after", (*value).to_owned())).collect())
            }
            _ => well(call),
        });
        let bench = bench(&server, 30);
        let log = "--log-file log.jsonl";
        bench.run(&format!("{ASK} -c 2 --retries 0 {log}")).expect(0);
        bench.assert_answers(30);
        assert_eq!(server.count(), 32, "{value:?}");
        assert!(!bench.read("log.jsonl").contains("\"paused\""), "{value:?}");
    }
}

#[test]
fn every_status_that_may_pass_is_tried_again() {
    let statuses = [409, 425, 499, 502, 504, 520, 522, 524];
    let server = Server::start(move |call| {
        let row: usize = call.prompt["text ".len()..].parse().unwrap();
        match call.nth {
            1 => Reply::status(statuses[row - 1]),
            _ => well(call),
        }
    });
    let bench = bench(&server, statuses.len());
    bench.run(&format!("{ASK} --retries 1")).expect(0);
    assert_eq!(server.count(), 2 * statuses.len());
}

#[test]
fn every_word_for_no_money_stops_the_run_at_once() {
    for (status, error) in [
        (402, json!({"message": "pay first"})),
        (429, json!({"code": "credit_balance_exhausted"})),
        (429, json!({"code": "organization_spend_limit_exceeded"})),
        (429, json!({"code": "project_spend_limit_exceeded"})),
        (429, json!({"code": "organization_usage_limit_exceeded", "type": "insufficient_quota"})),
        (429, json!({"type": "insufficient_quota"})),
        (
            429,
            json!({"type": "rate_limit_error", "message": "x", "error_code": "enforced_spend_limit_reached"}),
        ),
        (
            429,
            json!({"type": "rate_limit_error", "message": "x",
                     "details": {"error_code": "enforced_spend_limit_reached"}}),
        ),
        (400, json!({"type": "billing_error", "message": "x"})),
    ] {
        let body = json!({"error": error}).to_string();
        let server = Server::start(move |_| Reply::Status(status, Vec::new(), body.clone()));
        let bench = bench(&server, 20);
        let ended = bench.run(&format!("{ASK} -c 1 --max-outage 2"));
        assert_eq!(ended.code, 77, "{error}: {}", ended.stderr);
        assert_eq!(server.count(), 1, "{error}");
    }
}

#[test]
fn a_name_that_is_none_is_an_outage() {
    let bench = Bench::with_rows(3);
    let url = "http://no-such-host.invalid/v1";
    let ended = bench.run(&format!("{ASK} --base-url {url} --max-outage 0.5"));
    ended.expect(69).says("cannot connect to no-such-host.invalid").says("3 rows are left");
}

#[test]
fn a_connection_that_does_not_come_is_given_up_and_waited_for() {
    // Nobody accepts here, so once the queue is full connections are neither made nor refused.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let patience = Duration::from_millis(200);
    let made: Vec<_> =
        (0..5_000).map_while(|_| TcpStream::connect_timeout(&address, patience).ok()).collect();
    if made.len() == 5_000 {
        eprintln!("SKIPPED: the queue of a listener never fills here");
        return;
    }
    let bench = Bench::with_rows(3);
    let options = format!("--base-url http://{address}/v1 --connect-timeout 0.3 --max-outage 0.5");
    bench
        .run(&format!("{ASK} {options} --retries 0"))
        .expect(69)
        .says("within 0.3 s")
        .says("3 rows are left");
}

#[test]
fn an_answer_that_stalls_or_is_garbled_is_given_up() {
    for (reply, options, class, says) in [
        (Reply::Hold(String::new()), "--first-byte-timeout 0.3", "timeout", "began within 0.3 s"),
        (Reply::Trickle, "--idle-timeout 0.3", "timeout", "no progress"),
        (Reply::BadChunks, "", "broken_answer", "broke off"),
    ] {
        let server = Server::start(move |call| match call.prompt.as_str() {
            "text 5" => reply.clone(),
            _ => well(call),
        });
        let bench = bench(&server, 10);
        bench.run(&format!("{ASK} --retries 1 {options}")).expect(3);
        let error = &bench.lines("out.jsonl")[4]["error"];
        assert_eq!((&error["class"], &error["attempts"]), (&json!(class), &json!(2)));
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
        assert_eq!(server.count(), 11);
    }
}

#[test]
fn calls_in_flight_grow_before_any_answer() {
    for option in ["", "--fixed-concurrency"] {
        let server = Server::start(|call| Reply::Hold(answer_to(&call.prompt)));
        let bench = bench(&server, 100);
        let running = bench.start(&format!("{ASK} -c 30 {option}"));
        server.wait_for_active(30);
        assert_eq!(server.count(), 30);
        server.release();
        running.wait().expect(0);
        assert!(server.peak() <= 30);
    }
}

#[test]
fn calls_a_minute_are_kept_to() {
    let server = Server::start(well);
    let bench = bench(&server, 3);
    bench.run(&format!("{ASK} --rpm 60")).expect(0);
    let calls = server.calls();
    for two in calls.windows(2) {
        // The bucket has a call a second; on its way one may be late and the next not.
        assert!(two[1].at - two[0].at >= Duration::from_millis(700));
    }
    // The config file's, where no option is given.
    bench.write("rowmill.toml", "[defaults]\nrpm = 1\ntpm = 1000000\n");
    bench.write("more.jsonl", rows(2));
    let mut running =
        bench.start("run more.jsonl -o more-out.jsonl -p {{text}} -m m -c 2 --log-file log.jsonl");
    server.wait_for_calls(4);
    running.signal("-INT");
    running.wait_until_it_says("1 rows are left");
    assert_eq!(server.count(), 4);
}

#[test]
fn tokens_a_minute_are_kept_to() {
    let server = Server::start(well);
    let bench = bench(&server, 20);
    // Each call takes 18 tokens, as the server says, and is thought to take 52 at first.
    let ask = format!("{ASK} --tpm 1080 --max-tokens 50 -c 8");
    let mut running = bench.start(&ask);
    server.wait_for_calls(3);
    running.signal("-INT");
    running.wait_until_it_says("rows are left");
    let calls = server.calls();
    assert!(calls.last().unwrap().at - calls[0].at >= Duration::from_millis(500));
}

#[test]
fn what_an_endpoint_tells_of_its_limits_is_heeded() {
    let server = Server::start(|call| {
        if call.prompt != "text 1" {
            return well(call);
        }
        let headers = vec![
            ("x-ratelimit-limit-requests", "10".to_owned()),
            ("x-ratelimit-remaining-requests", "0".to_owned()),
            ("x-ratelimit-reset-requests", "10s".to_owned()),
        ];
        Reply::Status(200, headers, crate::support::server::completion("first"))
    });
    let bench = bench(&server, 3);
    bench.run(&format!("{ASK} -c 1")).expect(0);
    let calls = server.calls();
    for two in calls.windows(2) {
        assert!(two[1].at - two[0].at >= Duration::from_millis(900), "one comes back a second");
    }
}

/// The keys of calls by prompt, in their order.
fn keys(server: &Server) -> HashMap<String, Vec<String>> {
    let mut keys: HashMap<String, Vec<String>> = HashMap::new();
    for call in server.calls() {
        keys.entry(call.prompt).or_default().push(call.headers["idempotency-key"].clone());
    }
    let all: HashSet<_> = keys.values().flatten().collect();
    let each: usize = keys.values().map(|keys| keys.iter().collect::<HashSet<_>>().len()).sum();
    assert_eq!(all.len(), each, "no two rows share one");
    assert!(all.iter().all(|key| key.len() == "rowmill-".len() + 32));
    keys
}

#[test]
fn a_call_has_one_key_until_it_is_answered() {
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("text 1", 1) => Reply::status(500),
        ("text 2", 1) => Reply::Close,
        ("text 3", 1) => Reply::Cut,
        ("text 4", 1) => Reply::Trickle,
        ("text 5", _) => Reply::status(400),
        // Killed while the second call is under way.
        ("text 6", 1) => Reply::status(500),
        ("text 6", 2) => Reply::Hold(answer_to("text 6")),
        _ => well(call),
    });
    let bench = bench(&server, 8);
    let ask = format!("{ASK} --idle-timeout 0.3 --work-dir job -c 8");
    let running = bench.start(&ask);
    server.wait("the calls", |calls| {
        let of = |prompt: &str| calls.iter().filter(|call| call.prompt == prompt).count();
        (1..=4).all(|row| of(&format!("text {row}")) >= 2) && of("text 6") >= 2
    });
    running.kill();
    bench.run(&format!("{ask} --resume")).expect(3);
    let keys = keys(&server);
    let of = |row: usize| &keys[&format!("text {row}")];
    assert_ne!(of(1)[0], of(1)[1], "what was answered would be answered so again");
    for row in 2..=4 {
        assert_eq!(of(row)[0], of(row)[1], "row {row}: nothing came back");
    }
    assert_ne!(of(6)[0], of(6)[1]);
    assert_eq!(of(6)[1], of(6)[2], "the same after a crash");
    // Every later round for a row that failed is another question.
    bench.run(&format!("{ask} --resume")).expect(3);
    let rounds = self::keys(&server);
    let distinct: HashSet<_> = rounds["text 5"].iter().collect();
    assert!(distinct.len() >= 2 && distinct.len() == rounds["text 5"].len(), "{distinct:?}");
}

#[test]
fn events_and_messages_have_keys_as_well() {
    for options in ["", "--protocol responses", "--protocol messages", "-m m?transport=sse"] {
        let server = Server::start(well);
        let bench = bench(&server, 3);
        let ask = "run in.jsonl -o out.jsonl --id-field id -p {{text}}";
        let model = if options.starts_with("-m") { "" } else { "-m m" };
        bench.run(&format!("{ask} {model} {options}")).expect(0);
        assert_eq!(keys(&server).len(), 3, "{options}");
    }
}

#[test]
fn empty_lines_before_an_answer_are_progress() {
    let server = Server::start(|call| Reply::LinesAndAnswer(answer_to(&call.prompt)));
    let bench = Bench::with_rows(2);
    let url = server.url();
    bench
        .run(&format!(
            "run in.jsonl -o out.jsonl --id-field id -p {{{{text}}}} -m m --base-url {url} \
             --idle-timeout 0.3 --retries 0"
        ))
        .expect(0);
    bench.assert_answers(2);
    assert_eq!(server.count(), 2);
}
