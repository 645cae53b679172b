//! `rowmill models`: what endpoints offer, and what is said of those that do not answer.

use serde_json::{Value, json};

use crate::support::server::{Reply, Server};
use crate::support::{Bench, CANARY};

/// A server that lists models in OpenAI's shape.
fn listing() -> Server {
    Server::start(|call| {
        assert_eq!(call.path, "/v1/models");
        let models = json!([
            {"id": "zeta", "object": "model", "created": 1_700_000_000, "owned_by": "lab"},
            {"id": "alpha\u{1b}[31m", "object": "model", "max_model_len": 4096},
        ]);
        Reply::body(json!({"object": "list", "data": models}).to_string())
    })
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A server that lists models in Anthropic's shape, two a page.
fn paging() -> Server {
    Server::start(|call| {
        let models = ["c-1", "c-2", "c-3", "c-4", "c-5"];
        let after = call.path.split("after_id=").nth(1);
        let from = after.map_or(0, |id| 1 + models.iter().position(|it| *it == id).unwrap());
        let page: Vec<_> = models.iter().skip(from).take(2).collect();
        let data: Vec<_> = page
            .iter()
            .map(|id| json!({"id": id, "type": "model", "created_at": "2025-02-19T00:00:00Z"}))
            .collect();
        let has_more = from + page.len() < models.len();
        let body = json!({"data": data, "has_more": has_more, "first_id": page[0], "last_id": page.last()});
        Reply::body(body.to_string())
    })
}

#[test]
fn a_table_of_all_that_answer_and_a_word_on_each_that_does_not() {
    let mut bench = Bench::new();
    bench.set("OPENAI_API_KEY", "");
    bench.set("THE_KEY", CANARY);
    bench.set("ANTHROPIC_API_KEY", CANARY);
    let (good, pages) = (listing(), paging());
    let broken = Server::start(|_| Reply::status(500));
    let slow = Server::start(|_| Reply::Hold(String::new()));
    let echoes = Server::start(|call| {
        let text = json!({"error": {"message": call.headers["authorization"]}});
        Reply::Status(401, Vec::new(), text.to_string())
    });
    let table = |name: &str, server: &Server, more: &str| {
        format!("[endpoint.{name}]\nbase_url = \"{}\"\n{more}\n", server.url())
    };
    bench.write(
        "rowmill.toml",
        [
            table("good", &good, "key_env = \"THE_KEY\""),
            table("anthropic", &pages, ""),
            table("broken", &broken, ""),
            table("slow", &slow, ""),
            table("keyless", &good, "key_env = \"NOT_SET\""),
            table("echoes", &echoes, "key_env = \"THE_KEY\""),
        ]
        .concat(),
    );
    let ended = bench.run("models --timeout 0.5").expect(0);
    let lines: Vec<Vec<_>> =
        ended.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["endpoint", "model", "owner", "created", "context"]);
    assert_eq!(lines[1], ["anthropic", "c-1", "-", "2025-02-19", "-"]);
    assert_eq!(lines[5], ["anthropic", "c-5", "-", "2025-02-19", "-"]);
    assert_eq!(lines[6][0], "good");
    assert!(lines[6][1].starts_with("alpha") && lines[6][4] == "4096", "{lines:?}");
    assert_eq!(lines[7], ["good", "zeta", "lab", "2023-11-14", "-"]);
    assert_eq!(lines.len(), 8);
    assert!(!ended.stdout.contains('\u{1b}'), "what others wrote does not steer a terminal");
    for (name, why) in [
        ("broken", "HTTP 500: scripted 500"),
        ("slow", "within 0."),
        ("keyless", "set NOT_SET"),
        ("echoes", "HTTP 401: Bearer [key]"),
    ] {
        let line = ended.stderr.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains(why), "{line}");
    }
    slow.release();
    assert_eq!(good.calls()[0].headers["authorization"], format!("Bearer {CANARY}"));
    let calls = pages.calls();
    assert_eq!((calls.len(), &*calls[0].path), (3, "/v1/models?limit=1000"));
    assert_eq!(calls[2].path, "/v1/models?limit=1000&after_id=c-4");
    let headers = &calls[2].headers;
    assert_eq!((&*headers["x-api-key"], &*headers["anthropic-version"]), (CANARY, "2023-06-01"));
    let ended = bench.run("models good anthropic --json").expect(0);
    let lines = json_lines(&ended.stdout);
    assert_eq!(lines.len(), 7);
    assert_eq!(
        lines[0],
        json!({"endpoint": "anthropic", "model": "c-1", "created": "2025-02-19T00:00:00Z"})
    );
    assert_eq!(lines[5]["context"], 4096);
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);
}

#[test]
fn where_nobody_answers_the_code_says_why() {
    let mut bench = Bench::new();
    let refuses = Server::start(|_| Reply::status(401));
    let broken = Server::start(|_| Reply::body("<html>"));
    let at = |server: &Server| format!("models --base-url {}", server.url());
    bench.run(&at(&refuses)).expect(77).says("HTTP 401").says("refused the key");
    bench.run(&at(&broken)).expect(69).says("no list of models");
    bench.run("models --base-url http://127.0.0.1:9/v1").expect(69).says("cannot connect");
    bench.run("models anthropic").expect(77).says("set ANTHROPIC_API_KEY");
    bench.run("models --base-url ftp://h").expect(2);
    bench.run("models nobody").expect(2).says("there are openai,");
    bench.run("models ollama vllm --base-url http://h").expect(2).says("several are named");
    bench.run("models ollama vllm --api-key-file k").expect(2).says("name that one");
    bench.set("OPENAI_API_KEY", "");
    bench.run("models").expect(2).says("no endpoint to ask");
    let endless = Server::start(|call| {
        let next = format!("m{}", call.nth);
        let body = json!({"data": [{"id": "m"}], "has_more": true, "last_id": next});
        Reply::body(body.to_string())
    });
    bench
        .run(&format!("models anthropic --base-url {}", endless.url()))
        .expect(69)
        .says("100 pages");
    assert_eq!(endless.count(), 100);
}

#[test]
fn an_endpoint_can_be_named_or_pointed_at() {
    let (mut bench, server) = (Bench::new(), listing());
    let url = server.url();
    let models = |ended: &str| -> Vec<String> {
        json_lines(ended).iter().map(|line| line["endpoint"].as_str().unwrap().to_owned()).collect()
    };
    let ended = bench.run(&format!("models --json --base-url {url}")).expect(0);
    assert_eq!(models(&ended.stdout), [url.clone(), url.clone()]);
    assert_eq!(server.calls()[0].headers["authorization"], format!("Bearer {CANARY}"));
    let ended = bench.run(&format!("models --json ollama --base-url {url}")).expect(0);
    assert_eq!(models(&ended.stdout), ["ollama", "ollama"]);
    assert!(!server.calls()[1].headers.contains_key("authorization"), "that key is OpenAI's");
    // Providers whose variables are set are asked without being named.
    bench.set("OPENAI_API_KEY", "");
    bench.set("GENERIC_BASE_URL", &url);
    let ended = bench.run("models --json").expect(0);
    assert_eq!(models(&ended.stdout), ["generic", "generic"]);
    // A bare list, as some have it.
    let bare = Server::start(|_| Reply::body("[{\"id\":\"x\"}]"));
    let ended = bench.run(&format!("models --base-url {}", bare.url())).expect(0);
    assert_eq!(ended.stdout.lines().count(), 2);
}

#[test]
fn lists_of_models_are_bounded() {
    // Pages of a megabyte each that go on for ever, and one that is larger than all may be.
    for bytes in [1 << 20, 9 << 20] {
        let server = Server::start(move |call| {
            let next = format!("m{}", call.nth);
            let pad = "x".repeat(bytes);
            let body =
                json!({"data": [{"id": "m", "pad": pad}], "has_more": true, "last_id": next});
            Reply::body(body.to_string())
        });
        let mut bench = Bench::new();
        bench.set("ANTHROPIC_API_KEY", CANARY);
        bench
            .run(&format!("models anthropic --base-url {}", server.url()))
            .expect(69)
            .says("its list of models has more than 8388608 bytes");
        assert!(server.count() <= 8, "{} pages", server.count());
    }
}
