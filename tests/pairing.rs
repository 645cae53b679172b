//! Replies that are doubled, late, reordered or another's never reach another row.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::server::shapes::events;
use crate::support::server::{Call, Reply, Server, answer_to};
use crate::support::{Bench, Ended};

const ROWS: usize = 40;

/// Every transport of every protocol.
const MODELS: [&str; 7] = [
    "m",
    "m?transport=sse",
    "m --protocol messages",
    "m?transport=sse --protocol messages",
    "responses.m",
    "responses.m?transport=sse",
    WS,
];

const WS: &str = "responses.m?transport=ws";

fn run(bench: &Bench, server: &Server, options: &str) -> Ended {
    let url = server.url();
    bench.run(&format!(
        "run in.jsonl -o out.jsonl --telemetry-output tel.jsonl --id-field id -p {{{{text}}}} \
         --base-url {url} -m {options}"
    ))
}

#[test]
fn doubled_replies_reach_no_other_row() {
    for model in MODELS {
        for concurrency in [1, 4] {
            let server = Server::start(|call| Reply::Twice(answer_to(&call.prompt)));
            let bench = Bench::with_rows(ROWS);
            run(&bench, &server, &format!("{model} -c {concurrency}")).expect(0);
            bench.assert_answers(ROWS);
        }
    }
}

#[test]
fn reordered_replies_reach_their_rows() {
    /// The calls that wait, and how many were let go.
    #[derive(Default)]
    struct Waiting(Mutex<(Vec<String>, usize)>, Condvar);
    for model in ["m", WS] {
        let waiting = Waiting::default();
        // Of every four the last is answered first.
        let server = Server::start(move |call| {
            let Waiting(state, changed) = &waiting;
            let mut state = state.lock().unwrap();
            state.0.push(call.prompt.clone());
            changed.notify_all();
            let is_turn = |state: &(Vec<String>, usize)| {
                let group = state.1 / 4 * 4;
                let next = (group + 3).checked_sub(state.1 % 4).and_then(|it| state.0.get(it));
                next == Some(&call.prompt)
            };
            let patience = Duration::from_secs(20);
            state = changed.wait_timeout_while(state, patience, |it| !is_turn(it)).unwrap().0;
            state.1 += 1;
            changed.notify_all();
            Reply::Answer(answer_to(&call.prompt))
        });
        let bench = Bench::with_rows(ROWS);
        run(&bench, &server, &format!("{model} -c 4")).expect(0);
        bench.assert_answers(ROWS);
    }
}

#[test]
fn replies_after_the_timeout_reach_no_row() {
    for model in MODELS {
        let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
            ("text 2" | "text 5", 1) => Reply::Hold("late".to_owned()),
            _ => Reply::Answer(answer_to(&call.prompt)),
        });
        let bench = Bench::with_rows(8);
        let url = server.url();
        let running = bench.start(&format!(
            "run in.jsonl -o out.jsonl --id-field id -p {{{{text}}}} --base-url {url} -m {model} \
             -c 2 --timeout 0.5"
        ));
        server.wait("second call of row 2", |calls| {
            calls.iter().any(|call| call.prompt == "text 2" && call.nth == 2)
        });
        server.release();
        running.wait().expect(0);
        bench.assert_answers(8);
    }
}

/// The events of an answer over a WebSocket, whose response has an id that no other has.
fn own(call: &Call) -> Vec<Value> {
    events(&call.path, &answer_to(&call.prompt))
}

#[test]
fn websocket_reply_repeated_behind_next_request_is_refused() {
    type Script = fn(&[Value], Vec<Value>) -> Vec<Value>;
    let scripts: [Script; 4] = [
        // The reply to the call before, once more.
        |before, own| [before, &own].concat(),
        // The end of it.
        |before, own| [&before[1..], &own].concat(),
        // Another's in the middle of this one.
        |before, own| [&own[..2], before, &own[2..]].concat(),
        |before, own| [&own[..2], &before[1..], &own[2..]].concat(),
    ];
    for script in scripts {
        let before = Mutex::new(Vec::new());
        let server = Server::start(move |call: &Call| {
            let (mut before, own) = (before.lock().unwrap(), own(call));
            let events = match (call.prompt.as_str(), call.nth) {
                ("text 7", 1) => script(&before, own.clone()),
                _ => own.clone(),
            };
            *before = own;
            Reply::Events { events, whole: true }
        });
        let bench = Bench::with_rows(ROWS);
        run(&bench, &server, &format!("{WS} -c 1")).expect(0);
        bench.assert_answers(ROWS);
        assert_eq!(server.counts()["text 7"], 2);
    }
}

/// Events with this in the place of their response's id.
fn renamed(mut events: Vec<Value>, id: &Value) -> Vec<Value> {
    for response in events.iter_mut().filter_map(|event| event.get_mut("response")) {
        match id {
            Value::Null => response.as_object_mut().unwrap().remove("id"),
            id => response.as_object_mut().unwrap().insert("id".to_owned(), id.clone()),
        };
    }
    events
}

#[test]
fn websocket_replies_without_ids_have_connections_of_their_own() {
    let server = Server::start(|call: &Call| {
        let events = renamed(own(call), &Value::Null);
        Reply::Events { events, whole: true }
    });
    let bench = Bench::with_rows(ROWS);
    run(&bench, &server, &format!("{WS} -c 4 --retries 0")).expect(0);
    bench.assert_answers(ROWS);
    assert_eq!((server.count(), server.connections()), (ROWS, ROWS));
}

#[test]
fn websocket_ids_that_repeat_are_not_trusted() {
    let server = Server::start(|call: &Call| {
        let events = renamed(own(call), &json!("resp_1"));
        Reply::Events { events, whole: true }
    });
    let bench = Bench::with_rows(ROWS);
    run(&bench, &server, &format!("{WS} -c 1 --retries 0")).expect(0);
    bench.assert_answers(ROWS);
    assert_eq!(server.count(), ROWS + 1, "one call was made again");
}

#[test]
fn websocket_reply_with_two_beginnings_is_broken() {
    let server = Server::start(|call: &Call| {
        let own = own(call);
        if call.nth > 1 {
            return Reply::Events { events: own, whole: true };
        }
        let other = events(&call.path, "of another");
        Reply::Events { events: [&own[..1], &other].concat(), whole: true }
    });
    let bench = Bench::with_rows(3);
    run(&bench, &server, WS).expect(0);
    bench.assert_answers(3);
    let first = &bench.lines("tel.jsonl")[0];
    assert_eq!(first["error"]["type"], "BrokenAnswerError", "{first}");
}

#[test]
fn reordered_results_are_taken_over_by_id() {
    let (bench, server) = (Bench::with_rows(6), Server::echo());
    run(&bench, &server, "m").expect(0);
    let text = bench.read("out.jsonl");
    let mut lines: Vec<_> = text.lines().rev().collect();
    // Row 4 has no answer; row 2 has another one behind its own, and a row that is not in the input has one.
    lines.remove(2);
    let second = lines[3].replace("text 2", "text 4");
    let foreign = lines[3].replace("\"r2\"", "\"r9\"");
    assert!(second != lines[3] && foreign != lines[3]);
    bench.write("out.jsonl", format!("{}\n{second}\n{foreign}\n", lines.join("\n")));
    run(&bench, &server, "m --resume").expect(0);
    bench.assert_answers(6);
    assert_eq!(server.count(), 7);
}

#[test]
fn request_lines_keep_their_custom_ids() {
    let bench = Bench::new();
    let url = "/v1/chat/completions";
    let line = |id: &str, text: &str| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": text}]});
        json!({"custom_id": id, "method": "POST", "url": url, "body": body}).to_string() + "\n"
    };
    // One id is the number of another's line, two ask the same.
    let lines = [("2", "a"), ("1", "b"), ("c", "a"), ("d", "e")];
    for name in ["one.jsonl", "two.jsonl"] {
        let lines = lines.iter().map(|(id, text)| line(id, &format!("{text} of {name}")));
        bench.write(&format!("in/{name}"), lines.collect::<String>());
    }
    for dedupe in ["", "--dedupe"] {
        let server = Server::start(|call| Reply::Twice(answer_to(&call.prompt)));
        let base = server.url();
        let out = format!("out{dedupe}");
        bench.run(&format!("run in -o {out} --base-url {base} {dedupe}")).expect(0);
        for name in ["one.jsonl", "two.jsonl"] {
            for (answer, (id, text)) in bench.lines(&format!("{out}/{name}")).iter().zip(lines) {
                assert_eq!(answer["custom_id"], id);
                let content = &answer["response"]["body"]["choices"][0]["message"]["content"];
                assert_eq!(*content, answer_to(&format!("{text} of {name}")));
            }
        }
        assert_eq!(server.count(), if dedupe.is_empty() { 8 } else { 6 });
    }
}
