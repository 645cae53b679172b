//! What is secret reaches no file and no stream, whoever repeats it: keys, headers, queries of URLs, the
//! secrets in command lines. Every run of a [`Bench`] looks for the key in all files and streams.

use serde_json::{Value, json};

use crate::support::server::{Call, Reply, Server, answer_to, shapes};
use crate::support::{Bench, CANARY, rows};

const FILES: &str = "--telemetry-output t.jsonl --error-output e.jsonl --log-file log.jsonl \
                     --summary-output s.json --work-dir w";

/// Fields of replies that hold what the model said, or mean something.
const KEPT: &[&str] =
    &["content", "text", "type", "object", "role", "status", "delta", "embedding"];

/// A reply whose every other text is the key.
fn repeat_key(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(repeat_key),
        Value::Object(object) => {
            for (name, value) in object {
                match value {
                    Value::String(text) if !KEPT.contains(&name.as_str()) => {
                        CANARY.clone_into(text)
                    }
                    value => repeat_key(value),
                }
            }
        }
        _ => {}
    }
}

fn headers() -> Vec<(&'static str, String)> {
    let names = [
        "x-request-id",
        "request-id",
        "server",
        "retry-after",
        "retry-after-ms",
        "date",
        "etag",
        "x-ratelimit-limit-requests",
        "x-ratelimit-reset-tokens",
        "set-cookie",
        "location",
    ];
    names.into_iter().map(|name| (name, format!("a{CANARY}b"))).collect()
}

fn echo_key(call: &Call) -> Reply {
    let text =
        if call.path.ends_with("embeddings") { "[0.5]".into() } else { answer_to(&call.prompt) };
    if call.body["stream"] == true || call.body["type"] == "response.create" {
        let mut events = shapes::events(&call.path, &text);
        events.iter_mut().for_each(repeat_key);
        return Reply::Events { events, whole: true };
    }
    let mut body: Value = serde_json::from_str(&shapes::body(&call.path, &text)).unwrap();
    repeat_key(&mut body);
    Reply::Status(200, headers(), body.to_string())
}

fn fail_with_key(call: &Call) -> Reply {
    let error = json!({"error": {"message": format!("no {CANARY} here"), "code": CANARY,
        "type": CANARY, "param": CANARY, "\u{1}": CANARY}});
    match call.prompt.as_str() {
        "text 1" => Reply::Status(400, headers(), error.to_string()),
        "text 2" => Reply::Status(200, headers(), error.to_string()),
        "text 3" => Reply::Status(400, headers(), error.to_string().replace("sk", "\\u0073k")),
        "text 4" => Reply::Status(422, headers(), format!("<p>{CANARY}")),
        "text 5" => Reply::Status(302, headers(), String::new()),
        "text 6" => Reply::body(format!("{{\"x\":{CANARY}")),
        _ => echo_key(call),
    }
}

fn requests() -> String {
    let line = |n| {
        let body = json!({"model": "m",
            "messages": [{"role": "user", "content": format!("text {n}")}]});
        let line =
            json!({"custom_id": n, "method": "POST", "url": "/v1/chat/completions", "body": body});
        format!("{}\n", line.to_string().replace(&format!(":{n},"), &format!(":\"{n}\",")))
    };
    (1..=9).map(line).collect()
}

#[test]
fn key_that_replies_repeat_is_kept_nowhere() {
    for is_echo in [true, false] {
        let server = Server::start(if is_echo { echo_key } else { fail_with_key });
        for model in [
            "m",
            "m?transport=sse",
            "responses.m",
            "responses.m?transport=sse",
            "responses.m?transport=ws",
            "m --protocol messages",
            "m?transport=sse --protocol messages",
            "m --protocol embeddings",
        ] {
            let bench = Bench::new();
            bench.write("in.jsonl", rows(9));
            let ended = bench.run(&format!(
                "run in.jsonl -o out.jsonl --id-field id -p {{{{text}}}} --base-url {} -m {model} \
                 --retries 0 {FILES}",
                server.url()
            ));
            assert!(bench.exists("out.jsonl"), "{model}: {}", ended.stderr);
            assert!(!is_echo || ended.code == 0, "{model}: {}", ended.stderr);
        }
        for options in ["", "--output-format rows", "-m other"] {
            let bench = Bench::new();
            bench.write("in.jsonl", requests());
            bench.run(&format!(
                "run in.jsonl -o out.jsonl --base-url {} --retries 0 {FILES} {options}",
                server.url()
            ));
            assert!(bench.exists("out.jsonl"), "{options}");
        }
        let bench = Bench::new();
        let line = format!("filter -p {{{{text}}}} -m m --base-url {} --retries 0", server.url());
        let ended = bench.pipe(&line, rows(9).as_bytes());
        assert!(!(ended.stdout + &ended.stderr).contains(CANARY));
    }
}

#[test]
fn answer_that_holds_the_key_stays_as_it_is() {
    let server = Server::start(|_| Reply::Answer("my sk-other-key-1".to_owned()));
    let mut bench = Bench::with_rows(1);
    bench.set("OPENAI_API_KEY", "sk-other-key-1");
    let ask = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m --base-url";
    bench.run(&format!("{ask} {}", server.url())).expect(0);
    assert_eq!(bench.lines("out.jsonl")[0]["result"], "my sk-other-key-1");
}

#[test]
fn placeholder_key_is_not_struck_out() {
    const MESSAGE: &str = "none of the EMPTY is 40 x";
    let body = json!({"error": {"message": MESSAGE}}).to_string();
    let server = Server::start(move |_| Reply::Status(400, Vec::new(), body.clone()));
    for key in ["EMPTY", "none", "x", "0", "ollama"] {
        let mut bench = Bench::with_rows(1);
        bench.set("OPENAI_API_KEY", key);
        let ask = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m --base-url";
        bench.run(&format!("{ask} {}", server.url())).expect(3);
        let message = bench.lines("out.jsonl")[0]["error"]["message"].clone();
        assert_eq!(message, format!("HTTP 400: {MESSAGE}"), "{key}");
    }
}

#[test]
fn lists_of_models_repeat_no_key() {
    let server = Server::start(|_| {
        let model = json!({"id": format!("m-{CANARY}"), "owned_by": CANARY, "created_at": CANARY});
        Reply::Status(200, headers(), json!({"data": [model], "last_id": CANARY}).to_string())
    });
    let bench = Bench::new();
    for options in ["", "--json"] {
        let ended = bench.run(&format!("models --base-url {} {options}", server.url())).expect(0);
        assert!(ended.stdout.contains("m-[key]"), "{}", ended.stdout);
    }
}

#[test]
fn headers_come_from_where_secrets_may_be() {
    let server = Server::start(|call| {
        let values: Vec<_> = ["x-plain", "x-env-token", "x-file", "authorization"]
            .map(|name| call.headers.get(name).cloned().unwrap_or_default())
            .into();
        Reply::Status(
            200,
            vec![("x-request-id", values.join(" "))],
            shapes::body(&call.path, "ok").replace("mock-model-1", &values.join("+")),
        )
    });
    let mut bench = Bench::with_rows(1);
    bench.set("MY_TOKEN", "geheim-env-1");
    bench.write("token.txt", "geheim-file-1\n");
    let config = format!(
        "[endpoint.g]\nbase_url = \"{}\"\nkey_env = \"OPENAI_API_KEY\"\n\
         headers = {{ x-plain = \"said\", x-env-token = \"env:MY_TOKEN\", x-file = \"file:token.txt\" }}\n",
        server.url()
    );
    let typed = format!(
        "--header x-plain=said --header X-Env-Token=env:MY_TOKEN --header x-file=file:token.txt \
         --base-url {} -m m",
        server.url()
    );
    for options in [typed.as_str(), "--config rowmill.toml -m g.m"] {
        bench.write("rowmill.toml", &config);
        bench.run(&format!(
            "run in.jsonl -o out.jsonl --overwrite --id-field id -p {{{{text}}}} {FILES} {options}"
        ))
        .expect(0);
        let attempt = &bench.lines("t.jsonl")[0];
        assert_eq!(attempt["request_id"], "said [key] [key] Bearer [key]", "{attempt}");
        std::fs::remove_file(bench.path("token.txt")).unwrap();
        std::fs::remove_file(bench.path("rowmill.toml")).unwrap();
        for (name, bytes) in bench.snapshot() {
            assert!(!String::from_utf8_lossy(&bytes).contains("geheim"), "{}", name.display());
        }
        bench.write("token.txt", "geheim-file-1\n");
    }
    let call = &server.calls()[0];
    assert_eq!(call.headers["x-file"], "geheim-file-1");
    assert_eq!(call.headers["x-env-token"], "geheim-env-1");
    let ended = bench.run("run in.jsonl -o o -p {{text}} -m m --header api-key=geheim").expect(2);
    assert!(!ended.stderr.contains("=geheim"), "{}", ended.stderr);
    bench
        .run("run in.jsonl -o o -p {{text}} -m m --header a-key=env:NOT_SET")
        .expect(2)
        .says("NOT_SET");
}

#[test]
fn query_of_a_base_url_is_sent_and_its_secrets_are_kept_nowhere() {
    let server = Server::start(|call| Reply::Answer(answer_to(&call.prompt)));
    let bench = Bench::with_rows(2);
    let base = format!("{}/openai/deployments/d/chat/completions", server.url());
    let url = format!("{base}?api-version=2024-10-21&sig={CANARY}%2Fx");
    bench
        .run_args([
            "run",
            "in.jsonl",
            "-o",
            "out.jsonl",
            "--id-field",
            "id",
            "-p",
            "{{text}}",
            "-m",
            "m",
            "--base-url",
            &url,
            "--work-dir",
            "w",
            "--log-file",
            "log.jsonl",
        ])
        .expect(0);
    let call = &server.calls()[0];
    let path = format!(
        "/v1/openai/deployments/d/chat/completions?api-version=2024-10-21&sig={CANARY}%2Fx"
    );
    assert_eq!(call.path, path);
    assert_eq!(call.headers["api-key"], CANARY);
    assert!(!call.headers.contains_key("authorization"));
    let manifest = bench.read("w/manifest.json");
    assert!(
        manifest.contains("/openai/deployments/d?api-version=2024-10-21&sig=***"),
        "{manifest}"
    );
}

#[test]
fn urls_and_commands_show_no_secrets() {
    let server = Server::start(|_| Reply::status(403));
    let bench = Bench::with_rows(2);
    let secret = format!("{}/x?sig={CANARY}", server.url());
    let ask = "run in.jsonl -o out.jsonl -p {{text}} -m m";
    bench.run(&format!("{ask} --json-schema {secret}")).expect(66).says("HTTP 403");
    for line in [
        format!("{ask} --work-dir {secret}"),
        format!("status --work-dir {secret}"),
        format!("plan in.jsonl -p x -m m --work-dir={secret}"),
        format!("{ask} --log-file {secret}"),
        format!("{ask} --config {secret}"),
        format!("{ask} --api-key-file {secret}"),
        format!("{ask} --template {secret}"),
    ] {
        let ended = bench.run(&line);
        assert_ne!(ended.code, 0, "{line}");
    }
    assert!(!bench.exists("http:"));
    let serve = format!("--serve 'exit 3; x --api-key {CANARY} {{port}}'");
    bench.run(&format!("{ask} {serve} {FILES}")).expect(69);
    assert!(bench.read("log.jsonl").contains("--api-key …"));
}

#[test]
fn key_is_read_again_when_it_is_not_taken_any_more() {
    for (transport, is_request) in [("", false), ("?transport=sse", false), ("", true)] {
        let answered = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::start(move |call| {
            let is_old = call.headers["authorization"] == "Bearer token-1";
            if is_old && answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 4 {
                return Reply::Status(401, Vec::new(), r#"{"error":"expired token-1"}"#.to_owned());
            }
            Reply::Answer(answer_to(&call.prompt))
        });
        let bench = Bench::with_rows(20);
        let config = "key_command = \"echo x >> count; echo token-$(wc -l < count | tr -d ' ')\"";
        bench.write("g.toml", format!("[endpoint.g]\nbase_url = \"{}\"\n{config}\n", server.url()));
        let line = match is_request {
            true => {
                bench.write("in.jsonl", requests());
                "run in.jsonl -o out.jsonl -m g.m".to_owned()
            }
            false => {
                format!("run in.jsonl -o out.jsonl --id-field id -p {{{{text}}}} -m g.m{transport}")
            }
        };
        bench.run(&format!("{line} --config g.toml -c 2")).expect(0);
        assert_eq!(bench.read("count").lines().count(), 2, "once at the start, and once again");
    }
    // A key that was never taken, and one that is the same again, end the run.
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 1" => Reply::Answer("one".to_owned()),
        _ => Reply::status(401),
    });
    let bench = Bench::with_rows(5);
    bench.write("key.txt", "same-key");
    let line =
        "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m --api-key-file key.txt -c 1";
    bench.run(&format!("{line} --base-url {}", server.url())).expect(77);
    assert_eq!(server.counts()["text 1"], 1, "what is answered is not asked again");
}

#[test]
fn openai_and_azure_are_told_the_newer_name_of_max_tokens() {
    let bench = Bench::with_rows(1);
    let ask = "run in.jsonl -o out.jsonl -p {{text}} --max-tokens 5 --dry-run";
    for (options, name) in [
        ("-m gpt-5-mini", "max_completion_tokens"),
        ("-m gpt-4o --base-url https://api.openai.com/v1/", "max_completion_tokens"),
        ("-m m --base-url https://r.openai.azure.com", "max_completion_tokens"),
        (
            "-m m --base-url https://r.openai.azure.com/openai/deployments/m?api-version=2024-02-01",
            "max_tokens",
        ),
        ("-m m --base-url http://127.0.0.1:1/v1", "max_tokens"),
    ] {
        let ended = bench.run(&format!("{ask} {options}")).expect(0);
        assert!(ended.stdout.contains(&format!("\"{name}\":5")), "{options}: {}", ended.stdout);
    }
    let line = |model, more| {
        format!(
            "{{\"custom_id\":\"{model}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\
                 \"body\":{{\"model\":\"{model}\",\"messages\":[]{more}}}}}\n"
        )
    };
    let lines = [line("gpt-5-mini", ""), line("gpt-4o", ""), line("o3", ",\"max_tokens\":1")];
    bench.write("q.jsonl", lines.concat());
    bench.run("files prepare q.jsonl -o p.jsonl --max-tokens 7").expect(0);
    let bodies: Vec<_> =
        bench.lines("p.jsonl").into_iter().map(|line| line["body"].clone()).collect();
    assert_eq!(bodies[0]["max_completion_tokens"], 7);
    assert_eq!((&bodies[1]["max_tokens"], &bodies[2]["max_tokens"]), (&json!(7), &json!(7)));
}
