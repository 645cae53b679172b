//! Request files through `rowmill run`: what other tools' users already have goes out as it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::depot::{Depot, Say};
use crate::support::server::{Call, Reply, Server, completion};
use crate::support::{Bench, CANARY, words};

fn fixture(directory: &str) -> String {
    let dialects = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/dialects");
    fs::read_to_string(dialects.join(directory).join("requests.jsonl")).unwrap()
}

/// A line of the `openai` dialect.
fn line(id: &str, url: &str, body: &str) -> String {
    format!("{{\"custom_id\":\"{id}\",\"method\":\"POST\",\"url\":\"{url}\",\"body\":{body}}}\n")
}

/// So many lines of chat, each with a text of its own.
fn chats(count: usize) -> String {
    let body =
        |n| format!(r#"{{"model":"m","messages":[{{"role":"user","content":"text {n}"}}]}}"#);
    (1..=count).map(|n| line(&format!("c{n}"), "/v1/chat/completions", &body(n))).collect()
}

/// The bodies of requests in the order of their lines.
fn bodies(lines: &str) -> Vec<String> {
    let body = |line: &str| {
        let at = line.find("\"body\":").unwrap() + 7;
        line[at..line.len() - 1].trim().to_owned()
    };
    lines.lines().map(body).collect()
}

fn raw(call: &Call) -> String {
    String::from_utf8(call.raw.clone()).unwrap()
}

/// Answers with the path and the model that it was asked at and for, in the shape of every endpoint.
fn told() -> Server {
    Server::start(|call| {
        let model = &call.body["model"];
        let usage = json!({"prompt_tokens": 5, "total_tokens": 7, "completion_tokens": 2});
        let answer = json!({"path": call.path, "model": model, "usage": usage,
            "choices": [{"text": "x"}], "output": [{"type": "message"}], "content": [{"text": "x"}],
            "data": [{"embedding": [1]}], "results": [{"index": 0}], "text": "x"});
        Reply::body(answer.to_string())
    })
}

fn run(server: &Server, rest: &str) -> String {
    format!("run in.jsonl -o out.jsonl --output-format rows --base-url {} {rest}", server.url())
}

#[test]
fn bodies_go_out_byte_for_byte_to_where_their_lines_say() {
    let (server, bench) = (told(), Bench::new());
    let odd = [
        (
            "/v1/chat/completions",
            r#"{"model":"m", "temperature":1.50,"temperature" : 0.70,"messages":[ {"role":"user","content":"caf\u00e9 \/"}]}"#,
        ),
        ("/v1/completions", r#"{"model":"m","prompt":[1,2],"seed":900719925474099312345}"#),
        ("/v1/responses", r#"{ "input" : "x" , "model" : "m" }"#),
        ("/v1/embeddings", r#"{"input":["é","b"],"model":"m"}"#),
        (
            "/v1/messages",
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#,
        ),
        ("/score", r#"{"model":"m","text_1":"a","text_2":"b"}"#),
        ("/v2/rerank", r#"{"model":"m","query":"a","documents":["b"]}"#),
    ];
    let text: String =
        odd.iter().zip(1..).map(|((url, body), n)| line(&format!("r{n}"), url, body)).collect();
    bench.write("in.jsonl", &text);
    bench.run(&run(&server, "--telemetry-output t.jsonl")).expect(0);
    let calls = server.calls();
    assert_eq!(calls.len(), odd.len());
    for (url, body) in odd {
        let call = calls.iter().find(|call| call.path == url).unwrap_or_else(|| panic!("{url}"));
        assert_eq!(raw(call), body);
        let has = |name: &str| call.headers.contains_key(name);
        let is_messages = url == "/v1/messages";
        assert_eq!((has("x-api-key"), has("anthropic-version")), (is_messages, is_messages));
        assert_eq!(has("authorization"), !is_messages);
        assert_eq!(call.headers["content-type"], "application/json");
    }
    let lines = bench.lines("out.jsonl");
    for (line, (url, _)) in lines.iter().zip(odd) {
        assert_eq!((&line["result"]["path"], &line["ok"]), (&json!(url), &json!(true)));
    }
    // Telemetry reads of each body what its endpoint counts.
    let telemetry = bench.read("t.jsonl");
    assert_eq!(telemetry.matches("\"model\":\"m\"").count(), odd.len(), "{telemetry}");
    assert!(telemetry.contains("\"input_tokens\":5"), "{telemetry}");
}

#[test]
fn a_model_takes_the_place_of_the_lines_own_and_of_nothing_else() {
    let (server, bench) = (told(), Bench::new());
    let body = r#"{"temperature":1.50,"model":"a","input":{"model":"b"},"model" : "c"}"#;
    bench.write(
        "in.jsonl",
        line("1", "/v1/responses", body) + &line("2", "/v1/responses", r#"{ "input":"x" }"#),
    );
    bench.run(&run(&server, "-m n")).expect(0);
    let sent: BTreeSet<_> = server.calls().iter().map(raw).collect();
    let expected = [
        r#"{"temperature":1.50,"model":"n","input":{"model":"b"},"model" : "n"}"#,
        r#"{"model":"n", "input":"x" }"#,
    ];
    assert_eq!(sent, expected.map(str::to_owned).into());
}

#[test]
fn the_vendors_examples_run_as_they_are() {
    // Of vLLM's the last two are about sound.
    for (directory, lines, more) in [
        ("openai", 2, ""),
        ("doubleword", 3, ""),
        ("vllm", 4, ""),
        ("fastdeploy", 2, "-m default"),
        ("dria", 2, ""),
    ] {
        // An answer of each endpoint at once.
        let server = Server::start(|_| {
            let mut answer: Value = serde_json::from_str(&completion("well")).unwrap();
            answer["data"] = json!([{"embedding": [1]}]);
            answer["results"] = json!([{"index": 0}]);
            answer["output"] = json!([{"type": "message"}]);
            answer["content"] = json!([{"text": "x"}]);
            Reply::body(answer.to_string())
        });
        let (bench, text) = (Bench::new(), fixture(directory));
        let text: String = text.split_inclusive('\n').take(lines).collect();
        bench.write("in.jsonl", &text);
        bench.run(&run(&server, more)).expect(0);
        let written = bench.lines("out.jsonl");
        assert_eq!(written.len(), lines, "{directory}");
        for (line, given) in written.iter().zip(text.lines()) {
            let given: Value = serde_json::from_str(given).unwrap();
            assert_eq!(line["id"], given["custom_id"]);
            let result = &line["result"];
            let said = if directory == "dria" {
                result
            } else {
                &result["choices"][0]["message"]["content"]
            };
            assert_eq!(said, "well", "{directory}: {line}");
        }
        if more.is_empty() {
            let sent: BTreeSet<_> = server.calls().iter().map(raw).collect();
            assert_eq!(sent, bodies(&text).into_iter().collect());
        }
    }
}

#[test]
fn sound_goes_out_as_a_form() {
    let file = Server::start(|_| Reply::body("unused"));
    let server = Server::start(|call| {
        let text = String::from_utf8_lossy(&call.raw).into_owned();
        match text.contains("srt") {
            true => Reply::body("1\n00:00:00,000 --> 00:00:01,000\nMary\n"),
            false => Reply::body(json!({"text": "Mary"}).to_string()),
        }
    });
    let depot = file.url().replace("/v1", "/gone.wav");
    let bench = Bench::new();
    let vllm = fixture("vllm").lines().nth(4).unwrap().to_owned() + "\n";
    let srt = r#"{"model":"w","response_format":"srt","temperature":0.0,"file_url":"data:audio/mp3;base64,SUQz"}"#;
    let text = vllm
        + &line("srt", "/v1/audio/translations", srt)
        + &line(
            "bad",
            "/v1/audio/translations",
            r#"{"model":"w","file_url":"data:audio/wav;base64,!"}"#,
        )
        + &line(
            "far",
            "/v1/audio/translations",
            &format!(
                r#"{{"model":"w","file_url":"{}"}}"#,
                depot.replace("http://127.0.0.1", "http://user@127.0.0.1")
            ),
        );
    bench.write("in.jsonl", text);
    bench.run(&run(&server, "")).expect(3);
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines[0]["result"], json!({"text": "Mary"}));
    assert_eq!(lines[1]["result"]["text"], "1\n00:00:00,000 --> 00:00:01,000\nMary\n");
    for line in &lines[2..] {
        assert_eq!(line["error"]["class"], "attachment", "{line}");
    }
    let calls = server.calls();
    assert_eq!(calls.len(), 2, "nobody is asked about what is not there");
    let srt = calls.iter().find(|call| call.path.ends_with("translations")).unwrap();
    let text = raw(srt);
    let (kind, boundary) = srt.headers["content-type"].split_once("; boundary=").unwrap();
    assert_eq!(kind, "multipart/form-data");
    assert!(text.ends_with(&format!("\r\n\r\nID3\r\n--{boundary}--\r\n")), "{text}");
    assert!(text.contains("name=\"temperature\"\r\n\r\n0.0\r\n") && !text.contains("file_url"));
    assert!(text.contains("name=\"file\"; filename=\"audio.mp3\"\r\nContent-Type: audio/mpeg\r\n"));
}

#[test]
fn sound_is_fetched_and_what_may_pass_is_tried_again() {
    // Who is asked for the files: the first time in vain.
    let files = Server::start(|call| match (&call.path[..], call.nth) {
        ("/v1/gone.wav", _) => Reply::status(404),
        ("/v1/moved", _) => {
            Reply::Status(302, vec![("location", "/v1/mary.flac".into())], String::new())
        }
        (_, 1) => Reply::status(503),
        _ => Reply::body("fLaC and so on"),
    });
    let (server, bench) = (told(), Bench::new());
    let sound = |name: &str| format!(r#"{{"model":"w","file_url":"{}/{name}"}}"#, files.url());
    let of = |id: &str, name: &str| line(id, "/v1/audio/transcriptions", &sound(name));
    bench.write("in.jsonl", of("a", "moved") + &of("b", "gone.wav"));
    let once = run(&server, "-c 1 --max-attachment-bytes 20 --telemetry-output t.jsonl");
    let told = bench.run(&once).expect(3).summary()["calls"]["made"].clone();
    let calls = server.calls();
    // A file that is not there is no call, however often it is looked for.
    assert_eq!((calls.len(), told, bench.lines("t.jsonl").len()), (1, 1.into(), 1));
    let again = bench.run(&format!("{once} --resume")).expect(3).summary()["calls"].clone();
    assert_eq!((&again["made"], bench.lines("t.jsonl").len()), (&1.into(), 1), "{again}");
    assert_eq!(again["repeated_after_crash"], 0, "{again}");
    assert_eq!(server.count(), 1);
    assert!(raw(&calls[0]).contains("\r\n\r\nfLaC and so on\r\n"), "{}", raw(&calls[0]));
    let failed = &bench.lines("out.jsonl")[1]["error"];
    assert_eq!(failed["class"], "attachment");
    assert!(failed["message"].as_str().unwrap().ends_with("gone.wav: HTTP 404"), "{failed}");
    bench.run(&format!("{} --overwrite", run(&server, "--max-attachment-bytes 9"))).expect(3);
    assert!(bench.read("out.jsonl").contains("it has more than the 9 bytes"));
}

#[test]
fn every_bad_line_is_named_and_nothing_is_sent() {
    let (server, bench) = (told(), Bench::new());
    let text = chats(1)
        + "\n{\"custom_id\":\n"
        + &line("x", "/v1/chats", "{}")
        + "[]\n"
        + &chats(1)
        + &chats(2).lines().nth(1).unwrap().replace("POST", "GET")
        + "\n"
        + r#"{"method":"POST","url":"/v1/responses","body":{"model":"m"}}"#
        + "\n"
        + &line("s", "/v1/responses", r#"{"model":"m","stream":true}"#);
    bench.write("in.jsonl", text);
    let before = bench.snapshot();
    for command in [
        run(&server, ""),
        run(&server, "--dry-run"),
        format!("plan in.jsonl --work-dir w --base-url {}", server.url()),
        format!("estimate in.jsonl --base-url {}", server.url()),
    ] {
        let ended = bench.run(&command).expect(65);
        let told: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("line ")).collect();
        let expected = [
            "line 3: EOF while parsing",
            "line 4: url \"/v1/chats\" is none of rowmill's",
            "line 5: expected a JSON object, got a list",
            "line 6: custom_id \"c1\" is that of line 1 already",
            "line 7: method is \"GET\", not \"POST\"",
            "line 8: custom_id is missing",
            "line 9: body.stream is true",
        ];
        assert_eq!(told.len(), expected.len(), "{}", ended.stderr);
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told}");
        }
        ended.says("7 lines of the input cannot be sent");
    }
    assert_eq!((server.count(), bench.snapshot() == before), (0, true));
    // Of many the first are named.
    let bad: String = (0..130).map(|n| line(&format!("n{n}"), "/v1/nowhere", "{}")).collect();
    bench.write("in.jsonl", chats(3) + &bad);
    let ended = bench.run(&run(&server, "")).expect(65);
    assert_eq!(ended.stderr.matches("\nline ").count() + 1, 100);
    ended.says("line 103: url").says("and 30 more; rowmill files validate FILE lists all");
}

#[test]
fn bad_lines_may_fail_without_a_call() {
    let (server, bench) = (told(), Bench::new());
    let text = chats(1)
        + &line("bad", "/v1/chats", "{}")
        + "nonsense\n"
        + &chats(1).replace("text 1", "text twice")
        + &chats(3).lines().nth(2).unwrap().replace("c3", "last")
        + "\n";
    bench.write("in.jsonl", &text);
    bench.run(&run(&server, "--skip-bad-lines --error-output e.jsonl")).expect(3);
    let lines = bench.lines("out.jsonl");
    let told: Vec<_> =
        lines.iter().map(|it| (it["id"].clone(), it["error"]["class"].clone())).collect();
    let expected = [
        (json!("c1"), Value::Null),
        (json!("bad"), json!("invalid_request")),
        (json!(3), json!("invalid_json")),
        (json!("c1"), json!("invalid_request")),
        (json!("last"), Value::Null),
    ];
    assert_eq!(told, expected);
    assert_eq!((server.count(), bench.lines("e.jsonl").len()), (2, 3));
    // Elsewhere ids are strings, and another line may be called "3".
    let own = format!("run in.jsonl --skip-bad-lines --base-url {} -o", server.url());
    bench.run(&format!("{own} own.jsonl")).expect(3);
    bench.run(&format!("{own} dria.jsonl --output-format dria")).expect(3);
    for name in ["own.jsonl", "dria.jsonl"] {
        let lines = bench.lines(name);
        assert_eq!((&lines[1]["custom_id"], &lines[2]["custom_id"]), (&json!("bad"), &Value::Null));
        assert!(lines[2].to_string().contains("line 3"), "{}", lines[2]);
    }
    let unread = text.replace("nonsense", r#"{"custom_id":7,"body":{}}"#) + "nonsense\n";
    bench.write("in.jsonl", unread);
    bench.run(&format!("{own} own.jsonl --overwrite")).expect(3);
    let ids: BTreeSet<_> = bench
        .lines("own.jsonl")
        .iter()
        .filter(|line| line["custom_id"].is_null())
        .map(|line| line["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 2);
    bench.write("in.jsonl", &text);
    let before = server.count();
    // Nothing about them is to be tried again.
    bench.run(&run(&server, "--skip-bad-lines --error-output e.jsonl --resume")).expect(3);
    assert_eq!(server.count(), before);
    let rows =
        bench.run(&run(&server, "--skip-bad-lines --dialect rows --overwrite -m m")).expect(2);
    rows.says("--skip-bad-lines is about lines of request files");
}

#[test]
fn failures_keep_what_the_server_said() {
    let server = Server::start(|call| {
        let error =
            |text: &str| json!({"error": {"message": text, "type": "t", "code": null}}).to_string();
        match call.prompt.as_str() {
            "text 1" => Reply::Status(400, Vec::new(), error("no\u{e9}")),
            "text 2" => Reply::body(error("in spite")),
            "text 3" => Reply::body("<html>"),
            "text 4" if call.nth == 1 => {
                Reply::Status(429, vec![("retry-after-ms", "1".into())], error("slow"))
            }
            _ => Reply::body(completion("")),
        }
    });
    let bench = Bench::new();
    bench.write("in.jsonl", chats(4));
    bench.run(&run(&server, "--retries 0")).expect(3);
    let lines = bench.lines("out.jsonl");
    let error =
        |at: usize| (lines[at]["error"]["status"].clone(), lines[at]["error"]["raw"].clone());
    let (status, body) = error(0);
    let body: Value = serde_json::from_str(body.as_str().unwrap()).unwrap();
    assert_eq!((status, &body["error"]["message"]), (json!(400), &json!("no\u{e9}")));
    assert!(error(1).1.as_str().unwrap().contains("in spite"));
    assert_eq!(error(2), (json!(200), json!("<html>")));
    // An answer without words is an answer.
    assert_eq!(lines[3]["result"]["choices"][0]["message"]["content"], "", "{}", lines[3]);
}

#[test]
fn a_killed_run_goes_on_in_each_dialect() {
    const COUNT: usize = 40;
    let dria = |n| {
        format!(
            r#"{{"custom_id":"d{n}","type":"completions","version":"v1","body":{{"model":"m","messages":[{{"role":"user","content":"text {n}"}}]}}}}"#
        ) + "\n"
    };
    let prompts = |n| match n % 2 {
        0 => format!("{{\"prompt\":\"text {n}\"}}\n"),
        _ => format!("{{\"id\":\"p{n}\",\"prompt\":\"text {n}\"}}\n"),
    };
    let inputs = [
        ("openai", chats(COUNT), ""),
        ("dria", (1..=COUNT).map(dria).collect(), ""),
        ("prompts", (1..=COUNT).map(prompts).collect(), "-m m"),
    ];
    for (dialect, text, more) in inputs {
        let held = Server::start(|call| match call.prompt.as_str() {
            "text 33" => Reply::Hold("never".to_owned()),
            text => Reply::body(completion(text)),
        });
        let bench = Bench::new();
        bench.write("in.jsonl", &text);
        let command = |server: &Server, output: &str| {
            format!(
                "run in.jsonl -o {output} --output-format rows --base-url {} --shard-rows 7 --fixed-concurrency -c 1 {more}",
                server.url()
            )
        };
        let running = bench.start(&command(&held, "out.jsonl"));
        held.wait_for_calls(33);
        running.kill();
        let server = Server::start(|call| Reply::body(completion(&call.prompt)));
        bench.run(&(command(&server, "out.jsonl") + " --resume")).expect(0);
        assert!(server.count() <= COUNT - 32, "{dialect}: {} calls", server.count());
        bench.run(&command(&server, "whole.jsonl")).expect(0);
        assert_eq!(bench.read("out.jsonl"), bench.read("whole.jsonl"), "{dialect}");
        assert_eq!(bench.lines("out.jsonl").len(), COUNT);
    }
}

#[test]
fn prompts_are_asked_as_dria_asks_them() {
    let server = Server::echo();
    let bench = Bench::new();
    bench.write("data/in.jsonl", fixture("prompts"));
    bench.write("data/photo.jpg", b"\xff\xd8\xff photo");
    bench.write("data/speech.wav", b"RIFF....WAVE speech");
    let ended = bench.run(&format!("run data/in.jsonl -m m --base-url {} --json", server.url()));
    let ended = ended.expect(0);
    assert_eq!(ended.stderr, "", "nothing but errors");
    let ids: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["id"].clone()
        })
        .collect();
    assert_eq!(ids, [json!("1"), json!("2"), json!(3)]);
    let calls = server.calls();
    let call = |prompt: &str| calls.iter().find(|call| call.prompt == prompt).unwrap();
    let metals = &call("Name three metals.").body;
    assert_eq!((&metals["max_tokens"], &metals["temperature"]), (&json!(2048), &json!(0.7)));
    assert!(call("What is in this picture?").body.to_string().contains("data:image/jpeg;base64"));
    assert!(call("Write down what is said.").body.to_string().contains("input_audio"));
    // What is said counts, and a prompt of one's own makes rows of them.
    let line = format!("run data/in.jsonl -o o.jsonl --base-url {}", server.url());
    bench.run(&format!("{line} -m m --max-tokens 9 --temperature 0 --limit 1")).expect(0);
    let body = server.calls().pop().unwrap().body;
    assert_eq!((&body["max_tokens"], &body["temperature"]), (&json!(9), &json!(0)));
    bench.run(&format!("{line} -m m -p 'Say {{{{prompt}}}}' --overwrite --limit 1")).expect(0);
    let body = server.calls().pop().unwrap().body;
    assert_eq!(body["messages"][0]["content"], "Say What is in this picture?");
    assert!(body.get("max_tokens").is_none());
}

#[test]
fn prompts_send_no_temperature_of_their_own_to_models_that_take_none() {
    let server = Server::echo();
    let mut bench = Bench::new();
    for name in ["ANTHROPIC_API_KEY", "OPENROUTER_API_KEY"] {
        bench.set(name, CANARY);
    }
    bench.write("in.jsonl", "{\"prompt\":\"Name a metal.\"}\n");
    for (model, asked, says) in [
        ("openai.gpt-4o-mini", (2048, json!(0.7)), ""),
        ("openai.gpt-5-chat-latest", (2048, json!(0.7)), ""),
        ("openai.o3-mini", (2048, Value::Null), ""),
        ("gpt-5-mini", (2048, Value::Null), ""),
        ("openrouter.openai/o4-mini", (2048, Value::Null), ""),
        ("openai.o3-mini", (2048, json!(1)), "--temperature 1"),
        ("anthropic.claude-haiku-4-5", (2048, json!(0.7)), ""),
        ("anthropic.claude-haiku-4-5?reasoning=2048", (4096, Value::Null), ""),
        ("anthropic.claude-haiku-4-5?reasoning=2048", (3000, Value::Null), "--max-tokens 3000"),
    ] {
        let url = server.url();
        bench.run(&format!("run in.jsonl -m {model} --base-url {url} {says}")).expect(0);
        let body = server.calls().pop().unwrap().body;
        let most = [&body["max_tokens"], &body["max_completion_tokens"]];
        let most = most.into_iter().find_map(Value::as_u64).unwrap();
        assert_eq!((most, body["temperature"].clone()), asked, "{model} {says}");
    }
}

#[test]
fn answers_to_prompts_are_merged_to_standard_output_unless_a_place_is_said() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", "{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n");
    bench.run("plan in.jsonl --work-dir job -m m").expect(0);
    bench.run("work --work-dir job").expect(0);
    let merged = bench.run("merge --work-dir job").expect(0);
    bench.run("merge --work-dir job -o out.jsonl").expect(0);
    assert_eq!((merged.stdout.lines().count(), merged.stdout), (2, bench.read("out.jsonl")));
    bench.run("plan in.jsonl --dialect rows -p '{{prompt}}' --work-dir rows -m m").expect(0);
    bench.run("work --work-dir rows").expect(0);
    bench.run("merge --work-dir rows").expect(2).says("--output <FILE|URL>");
    bench.run("merge --work-dir nowhere").expect(2).says("--output <FILE|URL>");
}

#[test]
fn prompts_with_nothing_attached_are_asked_as_text() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let empty = ["null", "\"\"", "\"  \"", "[]"]
        .map(|it| format!("{{\"prompt\":\"a\",\"attachment\":{it}}}\n"));
    bench.write("in.jsonl", empty.concat());
    bench.run("files validate in.jsonl").expect(0);
    bench.run("run in.jsonl -m m -o out.jsonl").expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 4);
    assert!(server.calls().iter().all(|call| call.body["messages"][0]["content"] == "a"));
}

#[test]
fn what_is_not_prompts_needs_an_output() {
    let bench = Bench::new();
    bench.write("in.jsonl", chats(1));
    let run = "run in.jsonl -m passthrough";
    let ended = bench.run(run).expect(2).says("--output <FILE|URL>");
    ended.says("in.jsonl holds requests of the dialect openai");
    for (lines, rest, says) in [
        ("{\"text\":\"a\"}\n", "", "in.jsonl holds rows: say where"),
        ("{\"prompt\":\"a\"}\n", "-p x", "holds rows, which --prompt is about"),
        ("{\"prompt\":\"a\"}\n", "--dialect rows", "holds rows, as --dialect says"),
        ("{\"prompt\":\"a\",\"n\":1}\n", "", "line 1 of in.jsonl has the field \"n\""),
        ("", "", "in.jsonl holds no line that tells what it is"),
    ] {
        bench.write("in.jsonl", lines);
        bench.run(&format!("{run} {rest}")).expect(2).says(says).says("-o, --output <FILE|URL>");
    }
    bench.run("run nowhere.jsonl -m passthrough").expect(66).says("nowhere.jsonl");
    bench.run("run in.jsonl -m passthrough --dialect prompts").expect(0);
}

#[test]
fn nothing_is_called_for_passthrough() {
    let bench = Bench::new();
    bench.write("in.jsonl", chats(2));
    bench.run("run in.jsonl -o out.jsonl -m passthrough --output-format rows").expect(0);
    let results: Vec<_> =
        bench.lines("out.jsonl").iter().map(|line| line["result"].to_string()).collect();
    let expected: Vec<Value> =
        bodies(&chats(2)).iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(results, expected.iter().map(Value::to_string).collect::<Vec<_>>());
    // Byte for byte.
    assert!(bench.read("out.jsonl").contains(&bodies(&chats(2))[1]));
}

#[test]
fn what_lines_say_no_option_says() {
    let (server, bench) = (told(), Bench::new());
    bench.write("in.jsonl", chats(1));
    for option in [
        "-p x",
        "--template t",
        "--id-field id",
        "--id-from hash",
        "--attachment-field a",
        "--instruction i",
        "--on-missing-field error",
        "--schema a",
        "--protocol chat",
        "--temperature 0",
        "--max-tokens 9",
        "--top-p 0.5",
        "--param seed=7",
        "-m m?temperature=0",
        "-m m?transport=sse",
    ] {
        let ended = bench.run(&run(&server, option)).expect(2);
        ended.says("requests of the dialect openai").says("--dialect rows");
    }
    let nowhere = bench.run("run in.jsonl -o out.jsonl").expect(2);
    nowhere.says("name the endpoint with --base-url, or a model with -m");
    assert_eq!(server.count(), 0);
    bench.run(&run(&server, "-m m -p x --allow-constant-prompt --dialect rows")).expect(3);
    assert_eq!(server.calls()[0].prompt, "x");
}

#[test]
fn results_and_files_of_two_minds_are_refused() {
    let (server, bench) = (told(), Bench::new());
    let result =
        r#"{"id":"b","custom_id":"a","response":{"status_code":200,"body":{}},"error":null}"#;
    bench.write("in.jsonl", format!("{result}\n"));
    bench.run(&run(&server, "-m m")).expect(65).says("it holds results of the dialect openai");
    bench.write("in.jsonl", chats(1) + "{\"prompt\":\"x\"}\n");
    bench
        .run(&run(&server, "-m m"))
        .expect(65)
        .says("line 1 looks like requests of the dialect openai, line 2");
    bench.write("in.csv", "prompt\nx\n");
    let csv = format!("run in.csv -o out.jsonl -m m --base-url {}", server.url());
    bench.run(&format!("{csv} --dialect prompts")).expect(2).says("is CSV, whose records are rows");
    bench.run(&csv).expect(3);
    assert!(server.calls()[0].prompt.contains("\"prompt\": \"x\""), "a row like any other");
}

#[test]
fn a_line_without_its_prompt_is_a_slip_and_further_fields_are_told() {
    let (server, bench) = (Server::echo(), Bench::new());
    bench.write("in.jsonl", "{\"prompt\":\"a\"}\n{\"promt\":\"b\"}\n{\"prompt\":\"c\"}\n");
    let mixed = "line 1 looks like requests of the dialect prompts, line 2 like requests of the dialect rows";
    bench.run(&run(&server, "-m m")).expect(65).says(mixed);
    assert_eq!(server.count(), 0, "nothing is paid for");
    bench.run(&run(&server, "-m m --dialect prompts")).expect(65).says("line 2");
    // Whoever says what is asked of rows has rows.
    bench.run(&run(&server, "-m m --id-from hash --work-dir w1")).expect(0);
    bench.write("in.jsonl", "{\"prompt\":\"a\"}\n{\"prompt\":\"b\",\"label\":1}\n");
    let note = "line 2 of in.jsonl has the field \"label\", which prompts have not";
    for line in [run(&server, "-m m --overwrite"), "plan in.jsonl --work-dir w2 -m m".to_owned()] {
        let ended = bench.run(&line).expect(0).says(note).says("--dialect prompts");
        assert_eq!(ended.stderr.matches("the field").count(), 1, "{}", ended.stderr);
    }
    for rest in
        ["-p {{prompt}} --overwrite", "--dialect rows --overwrite", "--dialect prompts --overwrite"]
    {
        let ended = bench.run(&run(&server, &format!("-m m {rest}"))).expect(0);
        assert!(!ended.stderr.contains("the field"), "{}", ended.stderr);
    }
}

#[test]
fn a_pipe_is_looked_at_and_nothing_of_it_is_lost() {
    let (server, bench) = (told(), Bench::new());
    let text = chats(300);
    let line = format!("run - -o out.jsonl --base-url {}", server.url());
    let ended = bench.pipe(&line, text.as_bytes());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(bench.lines("out.jsonl").len(), 300);
    let sent: BTreeSet<_> = server.calls().iter().map(raw).collect();
    assert_eq!(sent, bodies(&text).into_iter().collect());
    // Where a prompt is said nobody waits for its first lines, and it is refused when it is here.
    let refused = bench.pipe(&format!("{line} -m m -p {{{{x}}}} --overwrite"), text.as_bytes());
    assert_eq!((refused.code, server.count()), (2, 300), "{}", refused.stderr);
    refused.says("requests of the dialect openai").says("--dialect rows");
    // One with a name is as good.
    let fifo = bench.path("pipe");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    let writer = std::thread::spawn(move || fs::write(fifo, text));
    let url = server.url();
    bench.run(&format!("run pipe -o named.jsonl --base-url {url}")).expect(0);
    writer.join().unwrap().unwrap();
    assert_eq!(bench.lines("named.jsonl").len(), 300);
}

#[test]
fn a_deadline_comes_though_the_first_lines_do_not() {
    let bench = Bench::new();
    let words = words("run - -o out.jsonl --base-url http://127.0.0.1:9/v1 --deadline 1s");
    let mut command = bench.command(words);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Held open, and never written to.
    let input = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(input);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("had not shown its first lines"), "{said}");
    assert!(!bench.exists("out.jsonl.rowmill"));
}

#[test]
fn what_is_at_a_url_is_looked_at_before_it_is_fetched() {
    let (server, bench) = (told(), Bench::new());
    let depot = Depot::start(|_| Say::document(chats(2000)));
    let from = |rest: &str| {
        let (file, url) = (depot.url("/batch.jsonl"), server.url());
        format!("run -i {file} -o out.jsonl --base-url {url} {rest}")
    };
    bench.run(&from("")).expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 2000);
    let ranges: Vec<_> =
        depot.seen().iter().map(|seen| seen.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [Some("bytes=0-1048575".to_owned()), None]);
    // Where a prompt is said it is fetched at once, and refused when it is here.
    let calls = server.count();
    let ended = bench.run(&from("-m m -p {{x}} --overwrite --work-dir w")).expect(2);
    ended.says("requests of the dialect openai").says("--dialect rows");
    assert_eq!((depot.seen().len(), server.count()), (3, calls));
    let missing = Depot::start(|_| Say::status(404));
    let url = missing.url("/x.jsonl");
    bench.run(&format!("run -i {url} -o o.jsonl -m m")).expect(66).says("HTTP 404");
}

#[test]
fn a_dry_run_shows_what_would_be_sent() {
    let bench = Bench::new();
    let body = r#"{"model":"m", "temperature":1.50,"max_tokens":100,"input":"caf\u00e9"}"#;
    bench.write("in.jsonl", line("a", "/v1/responses", body));
    let ended = bench.run("run in.jsonl -o out.jsonl --base-url http://127.0.0.1:9/v1 --dry-run");
    let ended = ended.expect(0);
    assert!(ended.stdout.contains(body), "{}", ended.stdout);
    assert!(ended.stdout.contains("\"url\": \"http://127.0.0.1:9/v1/responses\""));
    let estimate = "estimate in.jsonl --base-url http://127.0.0.1:9/v1 --json";
    let estimate: Value = serde_json::from_str(&bench.run(estimate).expect(0).stdout).unwrap();
    assert_eq!((&estimate["calls"], &estimate["output_tokens"]["high"]), (&json!(1), &json!(100)));
    assert_eq!(estimate["input_tokens"], 9, "the words of the body and what is around them");
    assert!(!bench.exists("out.jsonl.rowmill"));
}

#[test]
fn the_same_request_is_made_once_where_its_answer_is_the_same() {
    let (server, bench) = (told(), Bench::new());
    let embed = r#"{"model":"m","input":"x"}"#;
    let text = line("1", "/v1/embeddings", embed)
        + &line("2", "/v1/embeddings", embed)
        // Another spelling, another url, and answers that chance decides.
        + &line("3", "/v1/embeddings", r#"{"model":"m", "input":"x"}"#)
        + &line("4", "/v1/responses", embed)
        + &line("5", "/v1/responses", embed)
        + &line("6", "/v1/responses", r#"{"model":"m","input":"x","temperature":0}"#)
        + &line("7", "/v1/responses", r#"{"model":"m","input":"x","temperature":0}"#);
    bench.write("in.jsonl", text);
    bench.run(&run(&server, "")).expect(0);
    assert_eq!(server.count(), 5);
    let paths: Vec<_> =
        bench.lines("out.jsonl").iter().map(|it| it["result"]["path"].clone()).collect();
    assert_eq!(paths[..3], vec![json!("/v1/embeddings"); 3]);
    assert_eq!(paths[3..], vec![json!("/v1/responses"); 4]);
    bench.run(&run(&server, "--no-dedupe --overwrite")).expect(0);
    assert_eq!(server.count(), 12);
}

#[test]
fn a_plan_is_worked_by_itself_and_says_what_its_lines_are() {
    let (server, bench) = (told(), Bench::new());
    bench.write("in.jsonl", chats(3));
    bench.run(&format!("plan in.jsonl --work-dir w --base-url {}", server.url())).expect(0);
    bench.run("work --work-dir w").expect(0);
    bench.run("merge --work-dir w -o out.jsonl").expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 3);
    assert!(server.calls().iter().all(|call| call.path == "/v1/chat/completions"));
    // The same again changes nothing, though what the lines are is not said.
    let again =
        format!("run in.jsonl -o out.jsonl --work-dir w --resume --base-url {}", server.url());
    bench.run(&again).expect(0);
    assert_eq!(server.count(), 3);
    bench.run(&format!("{again} --dialect rows -m x")).expect(78).says("dialect");
}

#[test]
fn a_configured_endpoint_is_where_lines_go_that_name_their_models() {
    let (server, bench) = (told(), Bench::new());
    bench.write("in.jsonl", chats(2));
    let config = format!(
        "model = \"here.other\"\n[endpoint.here]\nbase_url = \"{}\"\nparameters = {{ temperature = 0.5, transport = \"sse\" }}\n",
        server.url()
    );
    bench.write("rowmill.toml", config);
    bench.run("run in.jsonl -o out.jsonl").expect(0);
    let sent: BTreeSet<_> = server.calls().iter().map(raw).collect();
    assert_eq!(sent, bodies(&chats(2)).into_iter().collect(), "as they are");
}

#[test]
fn members_of_a_pool_put_their_own_models_in() {
    let (one, other, bench) = (told(), told(), Bench::new());
    let config = format!(
        "[endpoint.one]\nbase_url = \"{}\"\n[endpoint.other]\nbase_url = \"{}\"\n\
         [pool.both]\nmembers = [\"one.a\", \"other.b\"]\n",
        one.url(),
        other.url()
    );
    bench.write("rowmill.toml", config);
    bench.write("in.jsonl", chats(40));
    bench.run("run in.jsonl -o out.jsonl -m both").expect(0);
    for (server, model) in [(&one, "a"), (&other, "b")] {
        assert!(
            server.count() > 0 && server.calls().iter().all(|call| call.body["model"] == model)
        );
    }
    assert_eq!(one.count() + other.count(), 40);
    // What only one of them takes goes there.
    let config = bench
        .read("rowmill.toml")
        .replace("\"one.a\"", "{ model = \"one.a\", kinds = [\"text\"] }");
    bench.write("rowmill.toml", config);
    let image = |n| {
        format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"http://h/{n}"}}}}]}}]}}"#
        )
    };
    let lines = (0..9).map(|n| line(&format!("i{n}"), "/v1/chat/completions", &image(n)));
    bench.write("in.jsonl", lines.collect::<String>());
    let before = (one.count(), other.count());
    bench.run("run in.jsonl -o images.jsonl -m both").expect(0);
    assert_eq!((one.count(), other.count()), (before.0, before.1 + 9));
}

#[test]
fn failures_to_try_again_are_named_by_lines_out_and_by_lines_in() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 2" | "text 3" if call.nth == 1 => Reply::status(400),
        _ => Reply::body(completion("fine")),
    });
    let bench = Bench::new();
    bench.write("in.jsonl", chats(4));
    let url = server.url();
    let ask = format!("run in.jsonl -o out.jsonl --error-output errors.jsonl --base-url {url}");
    bench.run(&ask).expect(3);
    let errors = bench.read("errors.jsonl");
    let again = |ids: &str, code, text: &str| {
        let before = server.count();
        bench.write("ids", ids);
        bench.run(&format!("{ask} --resume --retry-ids ids")).expect(code).says(text);
        let calls = server.calls();
        calls[before..].iter().map(|call| call.prompt.clone()).collect::<Vec<_>>()
    };
    // An answer's own name is no row's, and a line whose row has no id names none.
    let nobody =
        "{\"id\":\"c2\",\"custom_id\":\"c9\"}\n{\"id\":\"c3\",\"custom_id\":null}\nc1\nc1\n";
    let none =
        "warning: --retry-ids names 2 ids, and no row of the plan that failed has one of them";
    assert!(again(nobody, 3, none).is_empty());
    assert!(again("\n", 3, "warning: --retry-ids names no id").is_empty());
    let one = "--retry-ids names 3 ids: 1 of rows that failed, 2 of no row of the plan or of one";
    let first = errors.lines().next().unwrap();
    assert_eq!(again(&format!("{first}\n{nobody}"), 3, one), ["text 2"]);
    let requests = bench.read("in.jsonl");
    let third = requests.lines().nth(2).unwrap();
    assert_eq!(again(third, 0, "--retry-ids names 1 id, of rows that failed"), ["text 3"]);
}

#[test]
fn url_that_leaves_the_base_path_is_refused() {
    let (server, bench) = (told(), Bench::new());
    let urls = ["/v1/../score", "/v1/%2e%2e/admin/score", "/x/..%5crerank", "/./score"];
    let lines = urls.map(|url| line(url, url, r#"{"model":"m"}"#));
    bench.write("in.jsonl", lines.concat());
    let ended = bench.run(&run(&server, "")).expect(65);
    for (number, url) in urls.iter().enumerate() {
        let says = format!("line {}: url {url:?} is none of rowmill's", number + 1);
        assert!(ended.stderr.contains(&says), "{}", ended.stderr);
    }
    assert_eq!(server.count(), 0);
}

/// A good request and a good body of each endpoint that is called.
const ENDPOINTS: [(&str, &str, &str); 8] = [
    (
        "/v1/chat/completions",
        r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
        r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#,
    ),
    ("/v1/completions", r#"{"model":"m","prompt":"x"}"#, r#"{"choices":[{"text":"Hi"}]}"#),
    (
        "/v1/responses",
        r#"{"model":"m","input":"x"}"#,
        r#"{"status":"completed","output":[{"type":"message"}]}"#,
    ),
    ("/v1/embeddings", r#"{"model":"m","input":"x"}"#, r#"{"data":[{"embedding":[0.5]}]}"#),
    (
        "/v1/messages",
        r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#,
        r#"{"content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn"}"#,
    ),
    (
        "/v1/score",
        r#"{"model":"m","text_1":"x","text_2":"y"}"#,
        r#"{"data":[{"index":0,"score":0.5}]}"#,
    ),
    (
        "/v1/rerank",
        r#"{"model":"m","query":"x","documents":["y"]}"#,
        r#"{"results":[{"index":0,"relevance_score":0.5}]}"#,
    ),
    (
        "/v1/audio/transcriptions",
        r#"{"model":"m","file_url":"data:audio/wav;base64,UklGRg=="}"#,
        r#"{"text":"Hi"}"#,
    ),
];

#[test]
fn body_without_an_answer_is_a_failure_under_200() {
    for (url, request, good) in ENDPOINTS {
        let bodies = [
            ("{}", "bad_response"),
            (r#"{"object":"error","message":"engine is dead","code":500}"#, "server_error"),
            (r#"{"detail":"upstream timed out"}"#, "bad_response"),
            (r#"{"error":{"message":"no such model","code":400}}"#, "bad_request"),
            (r#"{"id":"x","choices":null,"data":null,"output":null}"#, "bad_response"),
        ];
        for (body, class) in bodies {
            let server = Server::start(move |_| Reply::body(body));
            let bench = Bench::new();
            bench.write("in.jsonl", line("a", url, request));
            let run = run(&server, "--retries 0 --max-outage 1");
            bench.run(&run).expect(3);
            let written = &bench.lines("out.jsonl")[0];
            let told = &written["error"]["class"];
            assert_eq!((&written["ok"], told), (&json!(false), &json!(class)), "{url} {body}");
        }
        // It is asked again, and an error of nothing beside a good answer is none.
        let server = Server::start(move |call| match call.nth {
            1 => Reply::body("{}"),
            _ => Reply::body(good.replacen('{', r#"{"error":{},"#, 1)),
        });
        let bench = Bench::new();
        bench.write("in.jsonl", line("a", url, request));
        let run = format!("run in.jsonl -o out.jsonl --base-url {} --retries 0", server.url());
        bench.run(&run).expect(3);
        let failed = bench.lines("out.jsonl");
        assert_eq!(failed[0]["response"], Value::Null, "{url}");
        assert_eq!(failed[0]["error"]["code"], "bad_response", "{url}");
        bench.run(&format!("{run} --resume")).expect(0);
        assert_eq!(bench.lines("out.jsonl")[0]["error"], Value::Null, "{url}");
        assert_eq!(server.count(), 2, "{url}");
    }
}

#[test]
fn lists_of_nothing_and_broken_answers_are_failures() {
    for (url, body, class) in [
        ("/v1/chat/completions", r#"{"choices":[]}"#, "empty_answer"),
        (
            "/v1/chat/completions",
            r#"{"choices":[{"message":{"content":"half"},"finish_reason":"error"}]}"#,
            "server_error",
        ),
        ("/v1/responses", r#"{"status":"failed","error":null,"output":[]}"#, "bad_response"),
        ("/v1/responses", r#"{"status":"completed","output":[]}"#, "empty_answer"),
        ("/v1/embeddings", r#"{"object":"list","data":[]}"#, "empty_answer"),
        ("/v1/rerank", r#"{"results":[]}"#, "empty_answer"),
    ] {
        let server = Server::start(move |_| Reply::body(body));
        let request = ENDPOINTS.iter().find(|(other, ..)| *other == url).unwrap().1;
        let given = line("a", url, request);
        let base = format!("--base-url {} --retries 0 --max-outage 1", server.url());
        let bench = Bench::new();
        let ended = bench.pipe(&format!("filter --output-format rows {base}"), given.as_bytes());
        let written: Value = serde_json::from_str(&ended.expect(3).stdout).unwrap();
        assert_eq!(written["error"]["class"], class, "{url} {body}");
    }
}

#[test]
fn urls_and_lines_as_other_services_have_them_are_taken() {
    let (server, bench) = (told(), Bench::new());
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    let urls = [
        "/chat/completions",
        "/v1/chat/completions/",
        "v1/chat/completions",
        "https://api.openai.com/v1/chat/completions",
        "https://h.example/openai/deployments/d/chat/completions?api-version=2024-10-21",
    ];
    let mut text: String =
        urls.iter().zip(1..).map(|(url, n)| line(&n.to_string(), url, chat)).collect();
    // Together's and Mistral's lines have neither a method nor a url.
    text += &format!("{{\"custom_id\":\"t\",\"body\":{chat}}}\n");
    text +=
        "{\"custom_id\":\"m\",\"body\":{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}}\n";
    bench.write("in.jsonl", &text);
    bench.run(&run(&server, "-m m")).expect(0);
    let paths: BTreeSet<_> = server.calls().into_iter().map(|call| call.path).collect();
    assert_eq!((server.count(), paths), (7, BTreeSet::from(["/v1/chat/completions".to_owned()])));
    // Who has them validated for a server is told what that wants.
    for server in ["openai", "vllm"] {
        let told = bench.run(&format!("files validate in.jsonl --for {server} -m m")).expect(65);
        assert!(told.stdout.contains("error: 7 of 7 lines are bad"), "{}", told.stdout);
    }
    // What leads out of the base URL goes nowhere.
    bench.write(
        "in.jsonl",
        line("a", "/v1/../admin/score", r#"{"model":"m","text_1":"x","text_2":"y"}"#),
    );
    bench
        .run(&run(&server, "--overwrite"))
        .expect(65)
        .says("line 1: url \"/v1/../admin/score\" is none");
}

#[test]
fn bodies_without_what_their_endpoint_needs_are_told_before_any_call() {
    let (server, bench) = (told(), Bench::new());
    let bad = [
        ("/v1/chat/completions", r#"{"model":"m"}"#, "body.messages is missing"),
        ("/v1/chat/completions", r#"{"model":"m","messages":[]}"#, "body.messages is empty"),
        (
            "/v1/chat/completions",
            r#"{"model":"m","messages":[{"content":"x"}]}"#,
            "body.messages[0]: role is missing",
        ),
        ("/v1/responses", r#"{"model":"m"}"#, "/v1/responses needs input in body"),
        ("/v1/embeddings", r#"{"model":"m"}"#, "/v1/embeddings needs input in body"),
        ("/v1/rerank", r#"{"model":"m","query":"x"}"#, "/v1/rerank needs query and documents"),
        (
            "/v1/completions",
            r#"{"model":"m","prompt":"x","n":0}"#,
            "body.n is 0, not a positive integer",
        ),
        (
            "/v1/responses",
            r#"{"model":"m","input":"x","temperature":"hot"}"#,
            "body.temperature is a string",
        ),
    ];
    let text: String =
        bad.iter().zip(1..).map(|((url, body, _), n)| line(&n.to_string(), url, body)).collect();
    bench.write("in.jsonl", &text);
    for command in [run(&server, ""), "files validate in.jsonl".to_owned()] {
        let ended = bench.run(&command).expect(65);
        for ((.., told), number) in bad.iter().zip(1..) {
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert!(said.contains(&format!("line {number}: {told}")), "{command} {number}: {said}");
        }
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn requests_of_other_batch_apis_are_no_rows() {
    let server = Server::start(|_| Reply::body(completion("well")));
    let bench = Bench::with_server(&server);
    for (text, name) in [
        (
            r#"{"custom_id":"a","params":{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}}"#,
            "Anthropic's Message Batches",
        ),
        (r#"{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}"#, "Gemini's Batch API"),
    ] {
        bench.write("in.jsonl", format!("{text}\n"));
        let ended = bench.run("run in.jsonl -o out.jsonl -m m").expect(65);
        ended.says(name).says("jq -c '{").says("--dialect rows");
        let asked = server.count();
        bench.run("run in.jsonl -o out.jsonl -m m --dialect rows --overwrite").expect(0);
        bench.run("run in.jsonl -o out.jsonl -m m -p {{row_json}} --overwrite").expect(0);
        assert_eq!(server.count(), asked + 2, "who says what is asked may ask it");
    }
}
