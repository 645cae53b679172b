//! Many faults at once, and for long: nothing is lost, nothing sticks, nobody is called more than the
//! faults make necessary.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::server::{Call, Reply, Server, answer_to};
use crate::support::{Bench, rows};

const ROWS: usize = 20_000;
const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m -c 64";

/// A number in `0..100` that a call's row and its turn settle, and nothing else.
fn dice(call: &Call, seed: u64) -> u64 {
    let row: u64 = call.prompt["text ".len()..].parse().unwrap();
    let text = format!("{seed} {row} {}", call.nth);
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()) % 100
}

/// A server that counts the faults of its script; `None` is an answer.
fn faulty(
    script: impl Fn(&Call) -> Option<Reply> + Send + Sync + 'static,
) -> (Server, Arc<AtomicUsize>) {
    let forced = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&forced);
    let server = Server::start(move |call| match script(call) {
        Some(fault) => {
            count.fetch_add(1, Ordering::SeqCst);
            fault
        }
        None => Reply::Answer(answer_to(&call.prompt)),
    });
    (server, forced)
}

fn assert_amplification(server: &Server, forced: &AtomicUsize) {
    let (calls, forced) = (server.count(), forced.load(Ordering::SeqCst));
    assert!(calls * 10 <= ROWS * 11 + forced * 10, "{calls} calls, {forced} of them forced");
}

#[test]
fn a_brown_out_for_a_whole_run_fails_no_row() {
    // Three of ten calls fail, and a row is struck up to four times: once more than its retries.
    let (server, forced) = faulty(|call| {
        (call.nth <= 4 && dice(call, 1) < 30).then(|| match dice(call, 2) % 3 {
            0 => Reply::status(500),
            1 => Reply::status(502),
            // An answer that was paid for is asked for no more often than `--retries` says.
            _ if call.nth <= 3 => Reply::Cut,
            _ => Reply::status(500),
        })
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(ROWS));
    bench.run(ASK).expect(0);
    bench.assert_answers(ROWS);
    assert_amplification(&server, &forced);
    let struck = server.counts().values().filter(|count| **count == 5).count();
    assert!(struck > 100, "{struck} rows had used up their retries");
}

#[test]
fn calls_that_are_not_let_in_fail_no_row_and_are_no_outage_while_others_are_answered() {
    // One of five, however often it was before, and for longer than the endpoint may be out of reach.
    let (server, _) = faulty(|call| {
        (dice(call, 3) < 20).then(|| match dice(call, 4) % 2 {
            0 => Reply::Close,
            _ => Reply::status(429),
        })
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3_000));
    bench.run(&format!("{ASK} --max-outage 1s")).expect(0);
    bench.assert_answers(3_000);
}

#[test]
fn an_outage_in_the_middle_fails_no_row_and_the_pace_comes_back() {
    const LASTS: Duration = Duration::from_secs(2);
    let seen = Arc::new([const { AtomicUsize::new(0) }; 4]);
    let began: OnceLock<Instant> = OnceLock::new();
    let [calls, active, before, after] = [0, 1, 2, 3];
    let noted = Arc::clone(&seen);
    let (server, forced) = faulty(move |call| {
        let number = noted[calls].fetch_add(1, Ordering::SeqCst);
        if number >= 4_000 && began.get_or_init(Instant::now).elapsed() < LASTS {
            return Some(Reply::status(if call.nth % 2 == 0 { 500 } else { 503 }));
        }
        let now = noted[active].fetch_add(1, Ordering::SeqCst) + 1;
        let peak = if began.get().is_some() { after } else { before };
        noted[peak].fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(4));
        noted[active].fetch_sub(1, Ordering::SeqCst);
        None
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(ROWS));
    bench.run(&format!("{ASK} --log-file log.jsonl")).expect(0);
    bench.assert_answers(ROWS);
    assert!(bench.read("log.jsonl").contains("\"recovered\""));
    assert_amplification(&server, &forced);
    let (before, after) = (seen[2].load(Ordering::SeqCst), seen[3].load(Ordering::SeqCst));
    assert!(before >= 32 && after * 10 >= before * 7, "{before} in flight before, {after} after");
}

#[test]
fn all_faults_at_once_fail_only_the_rows_that_are_doomed() {
    /// Refusals with a time, of whom, and when the server gave them.
    static REFUSALS: Mutex<Vec<(String, Instant)>> = Mutex::new(Vec::new());
    const ASKED: Duration = Duration::from_millis(600);
    let is_doomed = |row: usize| row % 1999 == 7;
    let (server, forced) = faulty(move |call| {
        let row: usize = call.prompt["text ".len()..].parse().unwrap();
        if is_doomed(row) {
            return Some(Reply::status(400));
        }
        if row.is_multiple_of(5_000) && call.nth == 1 {
            REFUSALS.lock().unwrap().push((call.prompt.clone(), Instant::now()));
            let ms = ASKED.as_millis().to_string();
            return Some(Reply::Status(429, vec![("retry-after-ms", ms)], String::new()));
        }
        // One row of ten, and of those some twice and a few three times.
        let chance = [10, 30, 30].get(call.nth - 1).copied().unwrap_or(0);
        (dice(call, 3) < chance).then(|| match (dice(call, 4) % 12, call.nth) {
            (0, _) => Reply::status(500),
            (1, _) => Reply::status(503),
            (2, _) => Reply::status(529),
            (3, _) => Reply::status(408),
            (4, _) => Reply::Cut,
            (5, _) => Reply::Garbage,
            (6, _) => Reply::Close,
            (7, _) => Reply::Status(429, Vec::new(), String::new()),
            (8, _) => Reply::BadChunks,
            // Those that cannot be used are tried once or twice more, not three times.
            (9, 1) => Reply::body("<html>busy</html>"),
            (10, 1) => Reply::body(json!({"choices": []}).to_string()),
            (11, 1) => Reply::body(json!({"error": {"message": "overloaded"}}).to_string()),
            _ => Reply::status(504),
        })
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(ROWS));
    bench.run(&format!("{ASK} --parallel 2 --shard-rows 1000")).expect(3);
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines.len(), ROWS);
    for (number, line) in lines.iter().enumerate() {
        let row = number + 1;
        if is_doomed(row) {
            assert_eq!(line["error"]["class"], "bad_request", "{line}");
        } else {
            assert_eq!(line["result"], answer_to(&format!("text {row}")), "{line}");
        }
    }
    assert_amplification(&server, &forced);
    let calls = server.calls();
    let refusals = REFUSALS.lock().unwrap();
    assert_eq!(refusals.len(), 4);
    for (prompt, refused) in refusals.iter() {
        let again = calls.iter().find(|call| call.prompt == *prompt && call.at > *refused).unwrap();
        assert!(again.at - *refused >= ASKED, "{prompt} was called before its time");
    }
}
