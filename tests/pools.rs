//! Pools: several endpoints or models for one job.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::server::{Call, Reply, Server, answer_to};
use crate::support::{Bench, Ended};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} --telemetry-output t.jsonl \
                   --final-summary";

/// A server that lists these models and answers with what `script` says.
fn offering(models: Value, script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |call| match call.path.ends_with("/models") {
        true => Reply::body(json!({"object": "list", "data": models}).to_string()),
        false => script(call),
    })
}

fn echo(call: &Call) -> Reply {
    Reply::Answer(answer_to(&call.prompt))
}

fn endpoint(name: &str, server: &Server, more: &str) -> String {
    format!("[endpoint.{name}]\nbase_url = \"{}\"\n{more}\n", server.url())
}

/// A config file with two endpoints, and a pool of the same model at both.
fn pair(bench: &Bench, a: &Server, b: &Server) {
    let pool = "[pool.pair]\nmembers = [\"a.m\", \"b.m\"]\n";
    bench.write("rowmill.toml", [endpoint("a", a, ""), endpoint("b", b, ""), pool.into()].concat());
}

/// The answers of an endpoint, as the summary counts them.
fn answers(ended: &Ended, endpoint: &str) -> u64 {
    let summary = ended.summary();
    let by = summary["answered_by"].as_array().unwrap();
    let of = by.iter().filter(|it| it["endpoint"] == endpoint);
    of.map(|it| it["answers"].as_u64().unwrap()).sum()
}

/// Something that servers wait for.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open_if(&self, is_open: bool) {
        if is_open {
            *self.0.lock().unwrap() = true;
            self.1.notify_all();
        }
    }

    fn wait(&self) {
        let patience = Duration::from_secs(60);
        let is_shut = |is_open: &mut bool| !*is_open;
        let waited = self.1.wait_timeout_while(self.0.lock().unwrap(), patience, is_shut).unwrap();
        assert!(!waited.1.timed_out(), "what a server waited for did not come");
    }
}

/// Calls to answer rows: lists of models are none.
fn asked(server: &Server) -> usize {
    server.calls().iter().filter(|call| !call.path.ends_with("/models")).count()
}

#[test]
fn calls_are_spread_by_weight_and_telemetry_tells_who_answered() {
    let (a, b, c) = (Server::echo(), Server::echo(), Server::echo());
    let bench = Bench::with_rows(1000);
    let tables = [endpoint("a", &a, ""), endpoint("b", &b, ""), endpoint("c", &c, "")].concat();
    let pool = "[pool.trio]\nmembers = [{ model = \"a.m\", weight = 5 }, \"b.m\", \
                { model = \"c.m\", weight = 4 }]\n";
    bench.write("rowmill.toml", tables + pool);
    let ended = bench.run(&format!("{ASK} -m trio --parallel 2 -c 4")).expect(0);
    bench.assert_answers(1000);
    for (server, name, share) in [(&a, "a", 500), (&b, "b", 100), (&c, "c", 400)] {
        let count = server.count();
        assert!(count.abs_diff(share) <= 20, "{name} had {count} calls");
        assert_eq!(answers(&ended, name), count as u64);
    }
    let telemetry = bench.lines("t.jsonl");
    let of_b = telemetry.iter().filter(|line| line["endpoint"] == "b");
    assert_eq!(of_b.count(), b.count());
    assert_eq!(telemetry[0]["model"], "mock-model-1");
}

#[test]
fn one_that_dies_in_the_middle_fails_no_row_and_takes_part_again_when_it_is_back() {
    let bench = Bench::with_rows(400);
    let (dead, back) = (Arc::new(AtomicBool::new(false)), Arc::new(Gate::default()));
    let (is_dead, is_back, calls) = (Arc::clone(&dead), Arc::clone(&back), AtomicUsize::new(0));
    let a = Server::start(move |call| {
        if calls.fetch_add(1, Ordering::SeqCst) == 50 {
            is_dead.store(true, Ordering::SeqCst);
        }
        if is_dead.load(Ordering::SeqCst) {
            return Reply::Close;
        }
        is_back.open_if(calls.load(Ordering::SeqCst) > 51);
        echo(call)
    });
    // The other does without it for 150 rows, and with the next waits until it has been called again.
    let (is_back, answered) = (Arc::clone(&back), AtomicUsize::new(0));
    let b = Server::start(move |call| {
        if answered.fetch_add(1, Ordering::SeqCst) >= 150 {
            dead.store(false, Ordering::SeqCst);
            is_back.wait();
        }
        echo(call)
    });
    let pool = "[pool.pair]\nmembers = [\"a.m\", \"b.m\"]\n";
    let tables = endpoint("a", &a, "") + &endpoint("b", &b, "concurrency = 2");
    bench.write("rowmill.toml", tables + pool);
    let ended = bench.run(&format!("{ASK} -m pair -c 8")).expect(0);
    bench.assert_answers(400);
    let lost = bench.lines("t.jsonl").iter().filter(|it| it["error"].is_object()).count();
    assert!((1..40).contains(&lost), "{lost} calls were lost with it");
    assert!(answers(&ended, "a") > 100, "it took part again: {}", answers(&ended, "a"));
}

#[test]
fn a_503_goes_to_the_next_at_once_and_does_not_count() {
    let bench = Bench::with_rows(100);
    let a = Server::start(|_| Reply::status(503));
    let b = Server::echo();
    pair(&bench, &a, &b);
    bench.run(&format!("{ASK} -m pair --retries 0")).expect(0);
    bench.assert_answers(100);
    assert_eq!(b.count(), 100);
    assert!(a.count() >= 1 && a.count() <= 90, "{}", a.count());
    assert_eq!(bench.lines("t.jsonl").len(), a.count() + b.count());
}

#[test]
fn a_row_that_all_fail_has_an_end() {
    let bench = Bench::with_rows(3);
    let poison = |call: &Call| match &*call.prompt {
        "text 2" => Reply::status(500),
        _ => echo(call),
    };
    let (a, b) = (Server::start(poison), Server::start(poison));
    pair(&bench, &a, &b);
    let ended = bench.run(&format!("{ASK} -m pair --retries 1")).expect(3);
    assert_eq!(ended.summary()["failures"], json!({"server_error": 1}));
    let tried = a.counts()["text 2"] + b.counts()["text 2"];
    assert!((2..=4).contains(&tried), "{tried}");
}

#[test]
fn with_all_of_them_out_the_run_stops_and_goes_on_later() {
    let bench = Bench::with_rows(30);
    let down = Arc::new(AtomicBool::new(true));
    let start = || {
        let (down, calls) = (Arc::clone(&down), AtomicUsize::new(0));
        Server::start(move |call| {
            let late = calls.fetch_add(1, Ordering::SeqCst) >= 5;
            if late && down.load(Ordering::SeqCst) { Reply::Close } else { echo(call) }
        })
    };
    let (a, b) = (start(), start());
    pair(&bench, &a, &b);
    let ask = format!("{ASK} -m pair -c 2 --work-dir w");
    bench.run(&format!("{ask} --max-outage 0")).expect(69).says("out of reach");
    down.store(false, Ordering::SeqCst);
    bench.run(&format!("{ask} --resume")).expect(0);
    bench.assert_answers(30);
}

#[test]
fn one_that_asks_for_an_hour_is_left_alone_and_the_others_go_on() {
    let busy = |_: &Call| {
        let body = json!({"error": {"message": "busy"}}).to_string();
        Reply::Status(429, vec![("retry-after", "3600".to_owned())], body)
    };
    let (a, b) = (Server::start(busy), Server::echo());
    let bench = Bench::with_rows(100);
    pair(&bench, &a, &b);
    let ended = bench.run(&format!("{ASK} -m pair -c 4 --log-file log")).expect(0);
    let ended = ended.says("warning: a asks to be left alone for").says("the others answer");
    bench.assert_answers(100);
    assert!(a.count() <= 4 && answers(&ended, "b") == 100, "{}", a.count());
    let paused = bench.lines("log").into_iter().find(|line| line["event"] == "warning").unwrap();
    assert!(paused["message"].as_str().unwrap().starts_with("a asks"), "{paused}");
}

#[test]
fn a_probe_of_a_sick_one_holds_up_no_other_row() {
    // The first call of `a` fails; the next, which probes it, is held until all others are answered.
    let calls = AtomicUsize::new(0);
    let a = Server::start(move |call| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Close,
        _ => Reply::Hold(answer_to(&call.prompt)),
    });
    let b = Server::echo();
    let bench = Bench::with_rows(3000);
    let pool = "[pool.pair]\nmembers = [\"a.m\", \"b.m\"]\n";
    let tables = endpoint("a", &a, "concurrency = 1") + &endpoint("b", &b, "");
    bench.write("rowmill.toml", tables + pool);
    let running = bench.start(&format!("{ASK} -m pair -c 4"));
    // All rows but the one that `a` may hold are answered before `a` is.
    b.wait_for_calls(2999);
    a.release();
    running.wait().expect(0);
    bench.assert_answers(3000);
}

#[test]
fn a_key_is_come_by_once_and_goes_to_its_endpoint_only() {
    let a = offering(json!([{"id": "m"}]), echo);
    let b = offering(json!([{"id": "m"}]), echo);
    let mut bench = Bench::with_rows(10);
    bench.set("KEY_B", "sk-of-b");
    let command = "key_command = \"echo once >> count; echo sk-of-a\"";
    let tables = endpoint("a", &a, command) + &endpoint("b", &b, "key_env = \"KEY_B\"");
    bench.write("rowmill.toml", tables);
    bench.run(&format!("{ASK} -m auto")).expect(0);
    assert_eq!(bench.read("count"), "once\n");
    for (server, key) in [(&a, "Bearer sk-of-a"), (&b, "Bearer sk-of-b")] {
        assert!(server.calls().iter().all(|call| call.headers["authorization"] == key));
    }
    bench.write("rowmill.toml", endpoint("a", &a, "key_env = \"NOT_SET\""));
    bench.run("run in.jsonl -o o2.jsonl -p {{text}} -m auto").expect(77).says("NOT_SET");
}

#[test]
fn one_that_refuses_the_key_is_left_out_and_the_last_one_stops_the_run() {
    let refuse = |_: &Call| {
        let body = json!({"error": {"message": "no such key", "code": "invalid_api_key"}});
        Reply::Status(401, Vec::new(), body.to_string())
    };
    let (a, b) = (Server::start(refuse), Server::echo());
    let bench = Bench::with_rows(200);
    pair(&bench, &a, &b);
    bench
        .run(&format!("{ASK} -m pair -c 8"))
        .expect(0)
        .says("warning: a refused the key")
        .says("the others answer");
    bench.assert_answers(200);
    assert!(a.count() <= 8, "{}", a.count());

    let (a, b) = (Server::start(refuse), Server::start(refuse));
    let bench = Bench::with_rows(20);
    pair(&bench, &a, &b);
    bench.run(&format!("{ASK} -m pair")).expect(77).says("no such key");
}

#[test]
fn one_that_does_not_know_the_model_is_left_out() {
    let (a, b) = (Server::start(|_| Reply::status(404)), Server::echo());
    let bench = Bench::with_rows(100);
    pair(&bench, &a, &b);
    bench.run(&format!("{ASK} -m pair -c 2")).expect(0).says("a does not know the model");
    bench.assert_answers(100);
    assert!((3..=5).contains(&a.count()), "{}", a.count());
    // Alone it is as without a pool.
    let bench = Bench::with_rows(3);
    bench.write("rowmill.toml", endpoint("a", &a, "") + "[pool.one]\nmembers = [\"a.m\"]\n");
    bench.run(&format!("{ASK} -m one")).expect(78);
    // Where nobody knows it, there is nobody left.
    let (a, b) = (Server::start(|_| Reply::status(404)), Server::start(|_| Reply::status(404)));
    let bench = Bench::with_rows(100);
    pair(&bench, &a, &b);
    bench.run(&format!("{ASK} -m pair -c 2")).expect(78);
}

#[test]
fn what_one_makes_nothing_of_another_answers() {
    let useless = || Server::start(|_| Reply::body("{\"choices\":[]}"));
    let (a, b) = (useless(), Server::echo());
    let bench = Bench::with_rows(100);
    pair(&bench, &a, &b);
    bench.run(&format!("{ASK} -m pair -c 4")).expect(0);
    bench.assert_answers(100);
    assert!(a.count() > 10, "{}", a.count());
}

#[test]
fn an_endpoint_has_no_more_calls_than_it_takes_over_all_its_models() {
    // The first calls wait for each other, until there are as many as there may be.
    let start = |most: usize| {
        let (calls, gate) = (AtomicUsize::new(0), Gate::default());
        Server::start(move |call| {
            gate.open_if(calls.fetch_add(1, Ordering::SeqCst) + 1 >= most);
            gate.wait();
            echo(call)
        })
    };
    let (a, b) = (start(3), start(5));
    let bench = Bench::with_rows(600);
    let pool = "[pool.p]\nmembers = [\"a.m\", \"a.n\", \"b.m\"]\n";
    let tables = endpoint("a", &a, "concurrency = 3") + &endpoint("b", &b, "concurrency = 5");
    bench.write("rowmill.toml", tables + pool);
    bench.run(&format!("{ASK} -m p --parallel 3")).expect(0);
    bench.assert_answers(600);
    assert_eq!((a.peak(), b.peak()), (3, 5));
}

#[test]
fn a_model_that_is_required_is_asked_and_no_other() {
    let (a, b) = (Server::echo(), Server::start(|_| Reply::status(503)));
    let bench = Bench::with_rows(10);
    let pool = "[pool.p]\nmembers = [\"a.cheap\", \"a.dear\", \"b.dear\"]\n";
    bench.write("rowmill.toml", endpoint("a", &a, "") + &endpoint("b", &b, "") + pool);
    bench.run(&format!("{ASK} -m p --require-model dear")).expect(0);
    assert!(a.calls().iter().all(|call| call.body["model"] == "dear"));
    assert!(b.count() >= 1, "other endpoints of it are asked");
    bench
        .run("run in.jsonl -o o2.jsonl -p {{text}} -m p --require-model none")
        .expect(2)
        .says("it has cheap, dear");
    bench
        .run("run in.jsonl -o o3.jsonl -p {{text}} -m a.m --require-model n")
        .expect(2)
        .says("chooses among the models of a pool");
}

#[test]
fn replicas_may_join_and_another_model_is_another_question() {
    let fails = AtomicUsize::new(0);
    let a = Server::start(move |call| match fails.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(400),
        _ => echo(call),
    });
    let b = Server::echo();
    let bench = Bench::with_rows(20);
    let tables = endpoint("a", &a, "") + &endpoint("b", &b, "");
    let pool = |members: &str| {
        bench.write("rowmill.toml", format!("{tables}[pool.p]\nmembers = [{members}]\n"));
    };
    let ask = format!("{ASK} --work-dir w");
    // Begun with one endpoint and no pool at all.
    pool("\"a.m\"");
    bench.run(&format!("{ask} -m a.m")).expect(3);
    pool("\"a.m\", \"b.m\"");
    bench.run(&format!("{ask} -m p --resume --retry-class bad_request")).expect(0);
    pool("\"a.m\", \"b.m\", \"b.n\"");
    bench.run(&format!("{ask} -m p --resume")).expect(78).says("models: `m` → `m, n`");
    pool("\"a.m?temperature=0\"");
    bench.run(&format!("{ask} -m p --resume")).expect(78).says("parameter temperature");
}

#[test]
fn work_finds_the_members_in_the_plan() {
    let (a, b) = (Server::echo(), Server::echo());
    let bench = Bench::with_rows(100);
    let pool = "[pool.p]\nmembers = [{ model = \"a.m\", weight = 3 }, \"b.n\"]\n";
    let tables = endpoint("a", &a, "") + &endpoint("b", &b, "");
    bench.write("rowmill.toml", tables.clone() + pool);
    bench.run("plan in.jsonl --id-field id -p {{text}} -m p --work-dir w").expect(0);
    assert!(!bench.read("w/manifest.json").contains("weight\":3.") && a.count() == 0);
    // The pool may be gone from the file: what its endpoints are is all that is needed.
    bench.write("rowmill.toml", tables);
    bench.run("work --work-dir w -c 4").expect(0);
    bench.run("merge --work-dir w -o out.jsonl").expect(0);
    bench.assert_answers(100);
    assert_eq!((a.count(), b.count()), (75, 25));
    bench.write("rowmill.toml", "");
    bench.run("work --work-dir w --retry-failed --base-url http://127.0.0.1:9/v1").expect(2);
}

#[test]
fn auto_asks_what_there_is_and_spreads_by_nodes() {
    let a = offering(json!([{"id": "m", "nodes": 3}, {"id": "gone", "nodes": 0}]), echo);
    let b = offering(
        json!([{"id": "m", "nodes": 1}, {"id": "big", "nodes": 4, "type": "vision"},
               {"id": "nomic-embed-text", "nodes": 9}]),
        echo,
    );
    let bench = Bench::with_rows(800);
    bench.write("rowmill.toml", endpoint("a", &a, "") + &endpoint("b", &b, ""));
    // Endpoints and nothing else are reason enough.
    let shown = bench.run(&format!("{ASK} --dry-run")).expect(0);
    for line in [
        "pool auto: 3 members",
        "a · m · text · weight 3 (38 %)",
        "b · big · text, image · weight 4 (50 %)",
        "b · m · text · weight 1 (12 %)",
    ] {
        assert!(shown.stderr.contains(line), "{line} is not in {}", shown.stderr);
    }
    assert!(shown.stderr.contains("the first of the pool"), "{}", shown.stderr);
    bench.run(&format!("{ASK} -c 4")).expect(0);
    bench.assert_answers(800);
    let of = |server: &Server, model: &str| {
        server.calls().iter().filter(|call| call.body["model"] == model).count()
    };
    for (count, share) in [(of(&a, "m"), 300), (of(&b, "m"), 100), (of(&b, "big"), 400)] {
        assert!(count.abs_diff(share) <= 16, "{count} of {share}");
    }
    assert_eq!(of(&a, "gone") + of(&b, "nomic-embed-text"), 0);
}

#[test]
fn auto_goes_on_with_the_members_of_the_plan_though_the_lists_are_gone() {
    let is_gone = Arc::new(AtomicBool::new(false));
    let start = |models: Value| {
        let (is_gone, count) = (Arc::clone(&is_gone), AtomicUsize::new(0));
        Server::start(move |call| match call.path.ends_with("/models") {
            true if is_gone.load(Ordering::SeqCst) => Reply::status(500),
            true => Reply::body(json!({"data": models}).to_string()),
            false if count.fetch_add(1, Ordering::SeqCst) == 3 => Reply::status(400),
            false => echo(call),
        })
    };
    let (a, b) = (start(json!([{"id": "m"}])), start(json!([{"id": "n"}])));
    let bench = Bench::with_rows(40);
    bench.write("rowmill.toml", endpoint("a", &a, "") + &endpoint("b", &b, ""));
    let ask = format!("{ASK} -m auto --work-dir w");
    bench.run(&ask).expect(3);
    is_gone.store(true, Ordering::SeqCst);
    let calls = asked(&a) + asked(&b);
    bench.run(&format!("{ask} --resume")).expect(0);
    bench.assert_answers(40);
    assert_eq!(asked(&a) + asked(&b), calls + 2, "the rows that had failed");
    // A new run must know.
    bench
        .run("run in.jsonl -o new.jsonl -p {{text}} -m auto")
        .expect(69)
        .says(&format!("a ({}): ", a.url()))
        .says(&format!("b ({}): ", b.url()));
}

#[test]
fn auto_takes_the_model_that_an_endpoint_names_and_goes_without_who_is_silent() {
    let a = offering(json!([{"id": "m"}, {"id": "n"}]), echo);
    let b = Server::start(|_| Reply::status(500));
    let bench = Bench::with_rows(20);
    let more = "model = \"n\"\nkinds = [\"text\", \"image\"]";
    bench.write("rowmill.toml", endpoint("a", &a, more) + &endpoint("b", &b, ""));
    bench.run(&format!("{ASK} -m auto")).expect(0).says("warning: -m auto goes without b (");
    let of_rows = |call: &&Call| !call.path.ends_with("/models");
    assert!(a.calls().iter().filter(of_rows).all(|call| call.body["model"] == "n"));
    bench.write(
        "rowmill.toml",
        endpoint("a", &a, more) + &endpoint("b", &b, "") + "[pool.auto]\nendpoints = [\"a\"]\n",
    );
    let asked_before = b.count();
    bench.run("run in.jsonl -o o2.jsonl -p {{text}}").expect(0);
    assert_eq!(b.count(), asked_before, "only the endpoints of the pool are asked");
}

#[test]
fn the_only_pool_is_asked_where_no_model_is_named() {
    let (a, b) = (Server::echo(), Server::echo());
    let bench = Bench::with_rows(10);
    pair(&bench, &a, &b);
    bench.run(ASK).expect(0);
    assert_eq!((a.count(), b.count()), (5, 5));
    bench.run("run in.jsonl -o o2.jsonl -p {{text}} -m pool.pair").expect(0);
    assert_eq!((a.count(), b.count()), (10, 10));
}

#[test]
fn a_row_that_nobody_takes_fails_without_a_call() {
    let a = Server::echo();
    let bench = Bench::with_rows(5);
    let pool = "[pool.p]\nmembers = [{ model = \"a.m\", kinds = [\"image\"] }]\n";
    bench.write("rowmill.toml", endpoint("a", &a, "") + pool);
    let ended = bench.run(&format!("{ASK} -m p --work-dir w")).expect(3);
    assert_eq!((ended.summary()["failures"].clone(), a.count()), (json!({"no_model": 5}), 0));
    let line = bench.lines("out.jsonl")[0].clone();
    assert_eq!(line["error"]["type"], "NoModelError");
    assert_eq!(line["error"]["message"], "no model that may answer takes text");
    // Another pool of the same model may take them.
    bench.write("rowmill.toml", endpoint("a", &a, "") + "[pool.p]\nmembers = [\"a.m\"]\n");
    bench.run(&format!("{ASK} -m p --work-dir w --resume")).expect(0);
    bench.assert_answers(5);
}

#[test]
fn what_a_row_costs_is_by_who_answered_and_a_cap_wants_every_price() {
    let (a, b) = (Server::echo(), Server::echo());
    let bench = Bench::with_rows(10);
    let pool = "[pool.p]\nmembers = [\"a.m\", \"b.m\"]\n";
    let tables = endpoint("a", &a, "") + &endpoint("b", &b, "") + pool;
    let cheap = "[price.\"a.m\"]\ninput = 1.0\noutput = 1.0\n";
    bench.write("rowmill.toml", tables.clone() + cheap);
    bench.run(&format!("{ASK} --max-cost 1")).expect(2).says("no price of b.m is known");
    let dear = "[price.\"b.m\"]\ninput = 10.0\noutput = 10.0\n";
    bench.write("rowmill.toml", tables + cheap + dear);
    bench.run(&format!("{ASK} --max-cost 1")).expect(0);
    for line in bench.lines("t.jsonl") {
        let dollars = if line["endpoint"] == "a" { 0.000_018 } else { 0.000_18 };
        assert_eq!(line["cost_usd"], dollars, "{line}");
    }
}

#[test]
fn rows_go_to_those_who_take_what_is_attached() {
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    let list = |model: Value| offering(json!([model]), echo);
    let text = list(json!({"id": "t", "nodes": 6, "type": "text"}));
    let vision = list(json!({"id": "v", "nodes": 3, "type": "vision"}));
    let audio = list(json!({"id": "a", "nodes": 1, "type": "audio"}));
    let bench = Bench::new();
    bench.write("p.png", png);
    bench.write("s.wav", b"RIFF\x26\0\0\0WAVEfmt ");
    bench.write("d.pdf", b"%PDF-1.1\n");
    // Images come first, a thousand of them: text and sound do not wait for them.
    let rows = (1..=1200).map(|n| {
        let file = match n {
            1..=1000 => json!("p.png"),
            1001..=1010 => json!(["s.wav"]),
            1011 => json!("d.pdf"),
            _ => Value::Null,
        };
        json!({"id": n, "text": format!("text {n}"), "file": file}).to_string() + "\n"
    });
    bench.write("in.jsonl", rows.collect::<String>());
    let tables = [endpoint("t", &text, ""), endpoint("v", &vision, ""), endpoint("a", &audio, "")];
    bench.write("rowmill.toml", tables.concat());
    let ask = format!("{ASK} -m auto --attachment-field file -c 4");
    let ended = bench.run(&ask).expect(3);
    let summary = ended.summary();
    assert_eq!(summary["failures"], json!({"no_model": 1}), "nobody reads PDFs");
    assert_eq!(summary["rows"]["ok"], 1199);
    let of = |server: &Server, kind: &str| {
        let is = |call: &&Call| call.body["messages"][0]["content"].to_string().contains(kind);
        server.calls().iter().filter(is).count()
    };
    assert_eq!((of(&vision, "image_url"), of(&audio, "input_audio")), (1000, 10));
    assert_eq!(of(&text, "image_url") + of(&text, "input_audio") + of(&audio, "image_url"), 0);
    // Text is for all of them, by their nodes.
    let shares = [(&text, 113), (&vision, 57), (&audio, 19)];
    for (server, share) in shares {
        let count = asked(server) - of(server, "image_url") - of(server, "input_audio");
        assert!(count.abs_diff(share) <= 25, "{count} of {share}");
    }
    let shown = bench.run(&format!("{ask} --dry-run")).expect(0);
    assert!(shown.stdout.contains(&vision.url()), "{}", shown.stdout);
}

#[test]
fn rows_that_wait_for_one_that_is_sick_hold_up_no_other() {
    // Vision is out until every other row is answered.
    let (gate, text) = (Arc::new(Gate::default()), AtomicUsize::new(0));
    let open = Arc::clone(&gate);
    let text = Server::start(move |call| {
        open.open_if(text.fetch_add(1, Ordering::SeqCst) + 1 == 100);
        echo(call)
    });
    let first = AtomicUsize::new(0);
    let vision = Server::start(move |call| {
        if first.fetch_add(1, Ordering::SeqCst) == 0 {
            return Reply::Close;
        }
        gate.wait();
        echo(call)
    });
    let bench = Bench::new();
    bench.write("p.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
    let rows = (1..=300).map(|n| {
        let file = (n <= 200).then_some("p.png");
        json!({"id": n, "text": format!("text {n}"), "file": file}).to_string() + "\n"
    });
    bench.write("in.jsonl", rows.collect::<String>());
    let pool = "[pool.p]\nmembers = [{ model = \"t.m\", kinds = [\"text\"] }, \
                { model = \"v.m\", kinds = [\"image\"] }]\n";
    bench.write(
        "rowmill.toml",
        endpoint("t", &text, "") + &endpoint("v", &vision, "concurrency = 2") + pool,
    );
    bench.run(&format!("{ASK} -m p --attachment-field file -c 4")).expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 300);
    assert_eq!(text.count(), 100);
}

#[test]
fn what_cannot_be_a_pool_is_told_with_its_line() {
    let server = Server::echo();
    let bench = Bench::with_rows(1);
    let base = endpoint("a", &server, "");
    let lines = base.lines().count();
    for (text, line, says) in [
        ("[pool.p]\n", 1, "the pool p has no members"),
        ("[pool.p]\nmembers = [\"a\"]\n", 2, "has no model of its own"),
        ("[pool.p]\nmembers = [\"a.m\", \"b.m\"]\n", 2, "\"b.m\" names no endpoint"),
        ("[pool.p]\nmembers = [\"a.m\", \"a.m\"]\n", 1, "has m of a twice"),
        ("[pool.p]\nmembers = [{ model = \"a.m\", weight = 0 }]\n", 2, "weight should be 1 to"),
        (
            "[pool.p]\nmembers = [{ model = \"a.m\", kinds = [\"smell\"] }]\n",
            2,
            "\"smell\" is no kind",
        ),
        ("[pool.p]\nmembers = [{ modle = \"a.m\" }]\n", 2, "expected a model string"),
        ("[pool.p]\nmembers = [\"a.m?temprature=1\"]\n", 2, "temprature"),
        ("[pool.a]\nmembers = [\"a.m\"]\n", 1, "a is the name of an endpoint as well"),
        ("[pool.openai]\nmembers = [\"a.m\"]\n", 1, "means something else"),
        ("[pool.auto]\nmembers = [\"a.m\"]\n", 2, "what its endpoints offer"),
        ("[pool.p]\nendpoints = [\"a\"]\n", 2, "only pool.auto asks"),
        ("[pool.auto]\nendpoints = [\"b\"]\n", 2, "\"b\" is neither an endpoint"),
        ("[endpoint.auto]\nprovider = \"openai\"\n", 1, "auto stands for pools"),
        ("[pool.p]\nwieght = 1\n", 2, "unknown field `wieght`"),
    ] {
        bench.write("rowmill.toml", format!("{base}{text}"));
        let name = if text.starts_with("[pool.auto") { "auto" } else { "p" };
        let ended = bench.run(&format!("{ASK} -m {name}")).expect(2).says(says);
        let at = format!("rowmill.toml:{}: ", lines + line);
        assert!(ended.stderr.contains(&at), "{at} is not in {}", ended.stderr);
    }
    bench.write("rowmill.toml", format!("{base}[pool.p]\nmembers = [\"a.m\"]\n"));
    for (options, says) in [
        ("-m p?temperature=1", "a pool has no parameters of its own"),
        ("-m pool.q", "\"q\" is no pool; there are p"),
        ("-m p --base-url http://127.0.0.1:9/v1", "--base-url is about one endpoint"),
        ("-m p --serve true", "--serve starts a server for one model"),
    ] {
        bench.run(&format!("{ASK} {options}")).expect(2).says(says);
    }
    assert_eq!(server.count(), 0);
    bench.write("rowmill.toml", "");
    bench.run(&format!("{ASK} -m auto")).expect(2).says("put [endpoint.NAME] into rowmill.toml");
}

#[test]
fn a_pool_that_is_plain_has_the_manifest_of_a_job_without_one() {
    let a = Server::echo();
    let bench = Bench::with_rows(2);
    bench.write("rowmill.toml", endpoint("a", &a, ""));
    bench.run("plan in.jsonl -p {{text}} -m a.m --work-dir w").expect(0);
    let manifest = bench.read("w/manifest.json");
    assert!(!manifest.contains("pool") && !manifest.contains("kinds"), "{manifest}");
}
