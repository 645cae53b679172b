//! Structured answers: schemas in every spelling, answers in every wrapping, and what is done about
//! those that do not fit.

use serde_json::{Value, json};

use crate::support::server::{Call, Reply, Server, completion};
use crate::support::{Bench, Ended, rows, words};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m";
const SCHEMA: &str = "--schema 'label:pos|neg,score:number'";
const GOOD: &str = r#"{"label":"pos","score":0.5}"#;

/// Runs some rows against a script that is told what was asked of a row and how often before.
fn with(
    count: usize,
    options: &str,
    script: impl Fn(&Call, usize) -> Reply + Send + Sync + 'static,
) -> (Bench, Server, Ended) {
    let asked = std::sync::Mutex::new(std::collections::HashMap::<String, usize>::new());
    let server = Server::start(move |call| {
        let nth = {
            let mut asked = asked.lock().unwrap();
            let nth = asked.entry(question(call)).or_default();
            *nth += 1;
            *nth
        };
        script(call, nth)
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(count));
    let ended = bench.run(&format!("{ASK} {options}"));
    (bench, server, ended)
}

/// What was asked first, whatever was said since.
fn question(call: &Call) -> String {
    let messages = messages(call);
    let first = messages.iter().find(|message| message["role"] == "user").unwrap();
    first["content"].as_str().unwrap().to_owned()
}

/// The messages of a call, in any protocol.
fn messages(call: &Call) -> Vec<Value> {
    let of_responses = &call.body["input"];
    let list = call.body["messages"].as_array().or(of_responses.as_array()).cloned();
    list.unwrap_or_else(|| vec![json!({"role": "user", "content": of_responses})])
}

fn says(text: &str) -> Reply {
    Reply::Answer(text.to_owned())
}

/// A completion that ended for another reason.
fn ended_with(message: Value, finish_reason: &str) -> Reply {
    let choice = json!({"message": message, "finish_reason": finish_reason});
    Reply::body(json!({"choices": [choice], "usage": {"completion_tokens": 3}}).to_string())
}

#[test]
fn a_result_is_the_json_value_as_the_model_spelled_it() {
    let cases = [
        (GOOD, GOOD),
        ("{\n  \"label\": \"neg\",\n  \"score\": 1.50\n}\n", r#"{"label":"neg","score":1.50}"#),
        ("```json\n{\"label\":\"pos\",\"score\":1E2}\n```", r#"{"label":"pos","score":1E2}"#),
        (
            "Sure [1]! {\"label\":\"pos\",\"score\":12345678901234567890} Bye.",
            r#"{"label":"pos","score":12345678901234567890}"#,
        ),
        (
            "<think>{\"label\":\"neg\",\"score\":0}?</think>{\"score\":-0,\"label\":\"p\\u006fs\"}",
            r#"{"score":-0,"label":"p\u006fs"}"#,
        ),
    ];
    let (bench, server, ended) = with(cases.len(), SCHEMA, move |call, _| {
        let row: usize = question(call).rsplit(' ').next().unwrap().parse().unwrap();
        says(cases[row - 1].0)
    });
    ended.expect(0);
    let lines: Vec<String> = bench.read("out.jsonl").lines().map(str::to_owned).collect();
    for ((line, (_, json)), row) in lines.iter().zip(cases).zip(1..) {
        let expected = format!(
            "{{\"id\":\"r{row}\",\"row_number\":{row},\"ok\":true,\"result\":{json},\"error\":null}}"
        );
        assert_eq!(line, &expected);
    }
    assert_eq!((lines.len(), server.count()), (cases.len(), cases.len()));
    let expected = json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true,
        "schema": {"type": "object", "required": ["label", "score"], "additionalProperties": false,
            "properties": {"label": {"type": "string", "enum": ["pos", "neg"]},
                "score": {"type": "number"}}}}});
    assert_eq!(server.calls()[0].body["response_format"], expected);
    // What is done is done: nothing is asked or judged again.
    bench.run(&format!("{ASK} {SCHEMA} --resume")).expect(0);
}

#[test]
fn null_is_an_answer_where_the_schema_says_so() {
    let (bench, ..) =
        with(1, "--schema '{\"type\":[\"object\",\"null\"]}'", |_, _| says(" null\n"));
    assert_eq!(bench.lines("out.jsonl")[0]["ok"], true);
    assert_eq!(bench.lines("out.jsonl")[0]["result"], Value::Null);
}

#[test]
fn an_answer_that_does_not_fit_is_asked_again_with_the_reason() {
    let bad = "I think: {\"label\":\"good\",\"score\":0.5}";
    let options = format!("{SCHEMA} --retries 0 --telemetry-output t.jsonl --instruction i.txt");
    let server = Server::start(move |call| match call.prompt.as_str() {
        "text 2" => says(bad),
        _ => says(GOOD),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    bench.write("i.txt", "Judge.");
    let summary = bench.run(&format!("{ASK} {options}")).expect(0).summary();
    assert_eq!(summary["rows"]["ok"], 3);
    assert_eq!(summary["calls"]["made"], 4);
    assert_eq!(summary["usage"]["output_tokens"], 28, "what did not fit was paid for");
    let again = server.calls().into_iter().find(|call| call.prompt.contains("not match")).unwrap();
    let messages = again.body["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 4);
    assert_eq!(messages[0], json!({"role": "system", "content": "Judge."}));
    assert_eq!(messages[1], json!({"role": "user", "content": "text 2"}));
    assert_eq!(messages[2], json!({"role": "assistant", "content": bad}));
    let reason = "/label: \"good\" is not one of \"pos\" or \"neg\"";
    assert_eq!(messages[3]["role"], "user");
    assert!(again.prompt.contains(reason), "{}", again.prompt);
    assert!(again.prompt.contains("\"additionalProperties\":false"), "the model sees the schema");
    assert!(again.body["response_format"].is_object());
    let attempts: Vec<_> =
        bench.lines("t.jsonl").into_iter().filter(|line| line["id"] == "r2").collect();
    assert_eq!(attempts.len(), 2);
    assert_eq!((&attempts[0]["ok"], &attempts[1]["ok"]), (&json!(false), &json!(true)));
    assert_eq!(attempts[0]["error"], json!({"type": "StructuredOutputError", "message": reason}));
    assert_eq!(attempts[0]["usage"]["turn"]["output_tokens"], 7);
    assert_eq!(attempts[0]["status"], 200);
}

#[test]
fn a_row_whose_answers_never_fit_fails_with_the_reason_and_what_was_said() {
    let never = "no\nidea \u{1f600}";
    for (options, calls) in [("", 3), ("--schema-retries 0", 1), ("--schema-retries 4", 5)] {
        let (bench, server, ended) = with(2, &format!("{SCHEMA} {options}"), move |call, _| {
            if question(call) == "text 1" { says(never) } else { says(GOOD) }
        });
        let summary = ended.expect(3).summary();
        assert_eq!(summary["failures"], json!({"schema_mismatch": 1}));
        assert_eq!(server.count(), calls + 1, "{options}");
        assert_eq!(
            bench.lines("out.jsonl")[0],
            json!({"id": "r1", "row_number": 1, "ok": false, "result": null, "error": {
                "type": "StructuredOutputError", "class": "schema_mismatch", "attempts": calls,
                "message": "the answer holds no JSON object or list", "raw": never}})
        );
        // The last is told of the one before, not of all.
        let longest =
            server.calls().iter().map(|call| call.body["messages"].as_array().unwrap().len()).max();
        assert_eq!(longest, Some(if calls == 1 { 1 } else { 3 }));
    }
}

#[test]
fn what_is_kept_of_an_answer_is_bounded() {
    let long = format!("{}é", "x".repeat(200_000));
    let (bench, ..) = with(1, &format!("{SCHEMA} --schema-retries 0"), move |_, _| says(&long));
    let raw = bench.lines("out.jsonl")[0]["error"]["raw"].as_str().unwrap().to_owned();
    assert_eq!(raw.len(), (64 << 10) + "…".len());
    assert!(raw.ends_with("x…"));
}

#[test]
fn a_correction_outlives_a_failure_of_another_kind() {
    let (_, server, ended) = with(1, SCHEMA, |_, nth| match nth {
        1 => says("{}"),
        2 => Reply::status(500),
        _ => says(GOOD),
    });
    ended.expect(0);
    let calls = server.calls();
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[2].body["messages"], calls[1].body["messages"]);
    assert!(calls[2].prompt.contains("\"label\" is a required property"), "{}", calls[2].prompt);
}

#[test]
fn cut_off_refused_and_filtered_are_told_apart() {
    let said = |content: &str| json!({"role": "assistant", "content": content});
    let refused = json!({"content": null, "refusal": "I cannot"});
    for (message, reason, class, calls) in [
        (said("{\"label\":\"po"), "length", "truncated", 1),
        (said(""), "length", "truncated", 1),
        (said("{\"label\":\"po"), "content_filter", "content_filter", 1),
        (refused, "stop", "refusal", 1),
        (said("{\"label\":\"po"), "stop", "schema_mismatch", 3),
    ] {
        let said = message.clone();
        let (bench, server, ended) = with(1, SCHEMA, move |_, _| ended_with(said.clone(), reason));
        ended.expect(3);
        let error = bench.lines("out.jsonl")[0]["error"].clone();
        assert_eq!((&error["class"], server.count()), (&json!(class), calls), "{error}");
        if class == "truncated" {
            assert!(error["message"].as_str().unwrap().contains("--max-tokens"));
            let raw = message["content"].as_str().filter(|said| !said.is_empty());
            assert_eq!(error["raw"].as_str(), raw);
        }
    }
    // Cut off behind its JSON: it is whole.
    let (bench, ..) = with(1, SCHEMA, move |_, _| ended_with(said(GOOD), "length"));
    assert_eq!(bench.lines("out.jsonl")[0]["result"]["label"], "pos");
}

/// A server without a field for schemas.
fn takes_no_field(call: &Call, _: usize) -> Reply {
    if call.body.get("response_format").is_none() {
        return says(GOOD);
    }
    let message = "This model does not support response format `json_schema`.";
    let body = json!({"error": {"message": message, "type": "invalid_request_error"}});
    Reply::Status(400, Vec::new(), body.to_string())
}

#[test]
fn an_endpoint_that_refuses_the_field_is_told_in_the_instruction() {
    let options = format!("{SCHEMA} --retries 0 -c 4");
    let (bench, server, ended) = with(40, &options, takes_no_field);
    let ended = ended.expect(0);
    let warnings = ended.stderr.matches("takes no schema").count();
    assert_eq!(warnings, 1, "it is told once: {}", ended.stderr);
    assert!(ended.stderr.contains("does not support response format"), "{}", ended.stderr);
    assert!(bench.lines("out.jsonl").iter().all(|line| line["result"]["label"] == "pos"));
    let refused = server.count() - 40;
    assert!((1..=4).contains(&refused), "{refused} calls were refused, 4 were in flight");
    let last = server.calls().pop().unwrap();
    let system = &last.body["messages"][0];
    assert_eq!(system["role"], "system");
    assert!(system["content"].as_str().unwrap().contains("\"enum\":[\"pos\",\"neg\"]"));
    // How it is told is no part of the job.
    bench.run(&format!("{ASK} {SCHEMA} --schema-mode prompt --resume")).expect(0);
}

#[test]
fn each_mode_does_what_it_says() {
    let (bench, server, ended) = with(3, &format!("{SCHEMA} --schema-mode native"), takes_no_field);
    ended.expect(3);
    assert_eq!(server.count(), 3);
    for line in bench.lines("out.jsonl") {
        assert_eq!(line["error"]["class"], "schema_refused");
        assert_eq!(line["error"]["status"], 400);
    }
    let options = format!("{SCHEMA} --schema-mode prompt");
    let (_, server, ended) = with(2, &options, |_, nth| says(if nth == 1 { "{}" } else { GOOD }));
    ended.expect(0);
    for call in server.calls() {
        assert!(call.body.get("response_format").is_none());
        assert_eq!(call.body["messages"][0]["role"], "system");
        assert_eq!(call.body.to_string().matches("JSON Schema below").count(), 1);
    }
    // Another refusal is what it is.
    let (bench, server, ended) = with(1, SCHEMA, |_, _| Reply::status(400));
    ended.expect(3);
    assert_eq!(
        (server.count(), bench.lines("out.jsonl")[0]["error"]["class"].clone()),
        (1, json!("bad_request"))
    );
}

#[test]
fn every_protocol_is_told_corrected_and_falls_back_in_its_own_way() {
    const BAD: &str = "neither\n";
    let format = |body: &Value, protocol: &str| match protocol {
        "chat" => body["response_format"].clone(),
        "responses" => body["text"]["format"].clone(),
        _ => body["output_config"]["format"].clone(),
    };
    for protocol in ["chat", "responses", "messages"] {
        let transports = ["", "?transport=sse", "?transport=ws"];
        for transport in &transports[..if protocol == "responses" { 3 } else { 2 }] {
            let options = format!(
                "{SCHEMA} -m m{transport} --protocol {protocol} --param max_tokens=99 -c 1 --retries 0"
            );
            let ask = |bench: &Bench, server: &Server, more: &str| {
                let ask =
                    ASK.replace("-m m", &format!("--base-url {} {options} {more}", server.url()));
                bench.run(&ask)
            };
            let bench = Bench::new();
            bench.write("in.jsonl", rows(2));
            bench.write("i.txt", "Judge.");
            // Told natively, and corrected.
            let server = Server::start(|call| {
                says(if messages(call).iter().any(|it| it["role"] == "assistant") {
                    GOOD
                } else {
                    BAD
                })
            });
            ask(&bench, &server, "--instruction i.txt").expect(0);
            let calls = server.calls();
            assert_eq!(calls.len(), 4, "{protocol} {transport}");
            for call in &calls {
                let told = format(&call.body, protocol);
                assert_eq!(told["type"], "json_schema", "{protocol}");
                let schema = if protocol == "chat" { &told["json_schema"] } else { &told };
                assert_eq!(schema["schema"]["required"], json!(["label", "score"]), "{protocol}");
            }
            let again = messages(&calls[1]);
            let again = &again[again.len() - 3..];
            let said = |at: usize| (again[at]["role"].clone(), again[at]["content"].clone());
            assert_eq!(said(0), (json!("user"), json!("text 1")));
            assert_eq!(said(1), (json!("assistant"), json!("neither")));
            let kind = again[1].get("type");
            assert_eq!(kind.is_some(), protocol == "responses");
            assert_eq!(again[2]["role"], "user");
            let said = again[2]["content"].as_str().unwrap();
            assert!(said.contains("holds no JSON object or list"), "{said}");
            // Falls back, and is corrected there as well.
            let refused = server_that_refuses(move |body| !format(body, protocol).is_null());
            ask(&bench, &refused, "--overwrite").expect(0).says("takes no schema");
            let calls = refused.calls();
            assert_eq!(calls.len(), 3, "{protocol} {transport}");
            assert!(format(&calls[2].body, protocol).is_null());
            let body = calls[2].body.to_string();
            assert_eq!(body.matches("JSON Schema below").count(), 1, "{body}");
            assert_eq!(bench.lines("out.jsonl")[1]["result"]["label"], "pos");
        }
    }
}

/// A server that answers well, but for calls that have something it does not know.
fn server_that_refuses(knows_not: impl Fn(&Value) -> bool + Send + Sync + 'static) -> Server {
    Server::start(move |call| {
        if !knows_not(&call.body) {
            return says(GOOD);
        }
        let message = "output_config: structured outputs are not supported";
        let body = json!({"error": {"message": message, "type": "invalid_request_error"}});
        Reply::Status(400, Vec::new(), body.to_string())
    })
}

#[test]
fn what_stands_where_the_schema_would_is_told() {
    let bench = Bench::new();
    bench.write("in.jsonl", rows(1));
    for (protocol, param, text) in [
        ("chat", "response_format={\"type\":\"text\"}", "sent as response_format"),
        ("responses", "text={\"format\":{}}", "sent as text.format"),
        ("responses", "text=7", "sent as text.format"),
        ("messages", "output_config={\"format\":{}}", "sent as output_config.format"),
        ("embeddings", "dimensions=9", "embeddings have no schema"),
    ] {
        let options = format!("{SCHEMA} --protocol {protocol} --param {param} --dry-run");
        bench.run(&format!("{ASK} {options}")).expect(2).says(text);
    }
    let options = format!("{SCHEMA} --protocol responses --param text={{\"verbosity\":\"low\"}}");
    let shown = bench.run(&format!("{ASK} {options} --dry-run")).expect(0).stdout;
    assert!(shown.contains("\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":"), "{shown}");
    assert!(shown.contains("\"verbosity\":\"low\""), "{shown}");
}

#[test]
fn strict_is_claimed_only_where_the_schema_is() {
    let open = r#"{"type":"object","properties":{"label":{"type":"string"},"score":{"type":"number"}},"required":["label"]}"#;
    let (bench, server, ended) =
        with(1, &format!("--schema '{open}'"), |_, _| says(r#"{"label":"x","more":[null]}"#));
    ended.expect(0);
    let sent = &server.calls()[0].body["response_format"]["json_schema"];
    assert_eq!(sent["strict"], false);
    assert_eq!(sent["schema"], serde_json::from_str::<Value>(open).unwrap(), "as the user has it");
    assert_eq!(bench.lines("out.jsonl")[0]["result"], json!({"label": "x", "more": [null]}));
}

#[test]
fn another_schema_is_another_question() {
    let (bench, server, ended) = with(3, &format!("{SCHEMA} --work-dir job"), |_, _| says(GOOD));
    let summary = ended.expect(0).summary();
    assert_eq!(summary["schema_blake3"].as_str().map(str::len), Some(64));
    let other = "--schema label,score:number --work-dir job --resume";
    for options in [other, "--work-dir job --resume"] {
        bench.run(&format!("{ASK} {options}")).expect(78).says("schema: ");
    }
    assert_eq!(server.count(), 3);
    let ended = bench.run(&format!("{ASK} {other} --accept-change schema")).expect(0);
    ended.says("3 rows keep their answers");
    assert_eq!(server.count(), 3);
    let third = "--schema 'label,score:integer|number' --work-dir job --resume";
    bench.run(&format!("{ASK} {third}")).expect(2);
    let third = "--schema 'label,score?:number' --work-dir job --resume --on-change update";
    bench.run(&format!("{ASK} {third}")).expect(0).says("0 rows keep their answers, 3 changed");
    assert_eq!(server.count(), 6);
    // Blanks in it make no other schema.
    let same = "--schema ' label , score? : number ' --work-dir job --resume";
    bench.run(&format!("{ASK} {same}")).expect(0);
    // Without its work directory an output still tells.
    std::fs::remove_dir_all(bench.path("job")).unwrap();
    if bench.keeps_notes_on("out.jsonl") {
        bench.run(&format!("{ASK} {other}")).expect(78).says("another question");
    }
}

#[test]
fn stages_by_themselves_keep_to_the_schema_of_the_plan() {
    let server = Server::start(|call| {
        let is_first = call.body["messages"].as_array().unwrap().len() == 1;
        says(if is_first { "{}" } else { GOOD })
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(2));
    let plan = "plan in.jsonl --work-dir job --id-field id -p {{text}} -m m";
    bench.run(&format!("{plan} {SCHEMA}")).expect(0);
    bench.run("work --work-dir job --schema-retries 0").expect(3);
    assert_eq!(server.count(), 2);
    bench.run("work --work-dir job --retry-failed --schema-retries 1").expect(0);
    assert_eq!(server.count(), 6);
    bench.run("merge --work-dir job -o out.jsonl").expect(0);
    assert_eq!(bench.lines("out.jsonl")[1]["result"]["score"], 0.5);
    bench.run("check --work-dir job").expect(0);
}

#[test]
fn a_kill_between_the_answer_and_its_correction_loses_no_paid_call() {
    let server = Server::start(|call| {
        let is_first = call.body["messages"].as_array().unwrap().len() == 1;
        match (is_first, call.nth) {
            (true, 1) => says("{}"),
            (false, 1) => Reply::Hold(GOOD.to_owned()),
            _ => says(GOOD),
        }
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(1));
    let running = bench.start(&format!("{ASK} {SCHEMA}"));
    server.wait_for_calls(2);
    running.kill();
    server.release();
    let summary = bench.run(&format!("{ASK} {SCHEMA} --resume")).expect(0).summary();
    assert_eq!(server.count(), 3, "it begins with the question again");
    assert_eq!(summary["calls"]["repeated_after_crash"], 1);
    assert_eq!(summary["calls"]["made"], 3, "the one that did not fit is counted");
    assert_eq!(summary["usage"]["output_tokens"], 14);
}

#[test]
fn a_schema_comes_from_a_file_a_url_or_the_line_itself() {
    let schema = json!({"type": "object", "required": ["label"]}).to_string();
    let served = schema.clone();
    let server = Server::start(move |call| match call.path.as_str() {
        "/v1/schema?v=1" => Reply::body(served.clone()),
        "/v1/large" => Reply::body(" ".repeat(2 << 20)),
        "/v1/moved" => {
            Reply::Status(302, vec![("location", "http://h.example/x".into())], String::new())
        }
        "/v1/gone" => Reply::status(404),
        "/v1/html" => Reply::body("<html>"),
        _ => says(GOOD),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(1));
    bench.write("schema.json", format!("\u{feff}{}\n", schema.replace(',', ",\n  ")));
    bench.write("named", &schema);
    let url = server.url();
    for option in [
        "--json-schema schema.json".to_owned(),
        "--schema schema.json".to_owned(),
        "--schema-file named".to_owned(),
        "--schema named".to_owned(),
        format!("--schema '{schema}'"),
        format!("--json-schema {url}/schema?v=1"),
    ] {
        bench.run(&format!("{ASK} {option} --overwrite")).expect(0);
        let sent = server.calls().pop().unwrap().body;
        assert_eq!(
            sent["response_format"]["json_schema"]["schema"].to_string(),
            schema,
            "{option}"
        );
    }
    let fetched = server.calls().into_iter().find(|call| call.path.ends_with("v=1")).unwrap();
    assert!(!fetched.headers.contains_key("authorization"), "the key is not for everyone");
    let before = bench.snapshot();
    for (name, code, text) in [
        ("large", 66, "more than 1048576 bytes"),
        ("moved", 66, "points to http://h.example/x"),
        ("gone", 66, "HTTP 404"),
        ("html", 2, "is no JSON"),
    ] {
        let ended = bench.run(&format!("{ASK} --json-schema {url}/{name} --overwrite"));
        ended.expect(code).says(text);
    }
    crate::support::assert_same(&bench.snapshot(), &before);
}

#[test]
fn what_is_no_schema_is_told_before_any_call() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(1));
    bench.write("bad.json", "{\"type\":\"strnig\"}");
    bench.write("list.json", "[]");
    bench.write("remote.json", "{\"$ref\":\"https://example.org/x\"}");
    let twice = |next: &str| {
        let next = json!({"$ref": next});
        json!({"allOf": [next, next]})
    };
    let doubled = (0..30).map(|n| (format!("a{n}"), twice(&format!("#/$defs/a{}", n + 1))));
    let mut doubled: serde_json::Map<_, _> = doubled.collect();
    doubled.insert("a30".to_owned(), json!({"type": "object"}));
    bench.write("doubled.json", json!({"$ref": "#/$defs/a0", "$defs": doubled}).to_string());
    bench.write("endless.json", "{\"allOf\":[{\"$ref\":\"#\"}]}");
    bench.write("latin1.json", b"{\"title\":\"\xe9\"}");
    for (option, code, text) in [
        ("--json-schema bad.json", 2, "bad.json: the schema is no valid JSON Schema: at /type: "),
        ("--json-schema list.json", 2, "list.json: the schema is no JSON object"),
        ("--json-schema remote.json", 2, "https://example.org/x is outside of the schema"),
        ("--json-schema doubled.json", 2, "more than 100000 subschemas to one value"),
        ("--json-schema endless.json", 2, "a reference that leads back to itself"),
        ("--json-schema latin1.json", 66, "latin1.json"),
        ("--json-schema missing", 66, "cannot read missing"),
        ("--schema missing.json", 66, "cannot read missing.json"),
        ("--schema 'label:pos|neg,score:numbr'", 2, "\"numbr\" is no type"),
        ("--schema 'label:pos|neg,score:numbr'", 2, "at character 21 of"),
        ("--schema 'schemas/answer v2'", 2, "there is no file of this name"),
        ("--schema ''", 2, "the name of a field is missing at character 1"),
        ("--schema '{\"type\":'", 2, "--schema: the schema is no JSON"),
        ("--schema label --json-schema bad.json", 2, "cannot be used with"),
        ("--schema label --schema-mode best", 2, "expected auto, native or prompt"),
        ("--schema label --param response_format={}", 2, "no parameter can set that as well"),
        ("--json-schema http://u:geheim@127.0.0.1:9/x", 66, "a user name or password"),
        ("--json-schema http://127.0.0.1:1/x", 66, "cannot connect"),
        ("--json-schema bad.json --error-output bad.json", 2, "bad.json"),
    ] {
        let ended = bench.run(&format!("{ASK} {option}"));
        assert!(!ended.stderr.contains("geheim"), "{}", ended.stderr);
        ended.expect(code).says(text);
    }
    bench.write("good.json", r#"{"type":"object"}"#);
    let ended = bench.run(&format!("{ASK} --json-schema good.json --error-output good.json"));
    ended.expect(2).says("the file of the schema");
    assert_eq!(server.count(), 0);
    assert!(!bench.exists("out.jsonl.rowmill"));
}

#[test]
fn a_pipeline_is_tried_without_a_model() {
    let bench = Bench::new();
    bench.write("in.jsonl", "{\"id\":1,\"text\":\"{\\\"label\\\": \\\"pos\\\", \\\"score\\\": 1}\"}\n{\"id\":2,\"text\":\"x\"}\n");
    let ask = ASK.replace("-m m", "-m passthrough");
    bench.run(&format!("{ask} {SCHEMA}")).expect(3);
    assert_eq!(bench.lines("out.jsonl")[0]["result"], json!({"label": "pos", "score": 1}));
    assert_eq!(bench.lines("out.jsonl")[1]["error"]["class"], "schema_mismatch");
    assert_eq!(bench.lines("out.jsonl")[1]["error"]["attempts"], 1, "it would say the same again");
    let shown = |options: &str| {
        let ended = bench.run_args(words(&format!("{ASK} {SCHEMA} --dry-run {options}"))).expect(0);
        ended.stdout
    };
    assert!(shown("").contains("\"response_format\":{\"type\":\"json_schema\""));
    assert!(!shown("--schema-mode prompt").contains("response_format"));
    assert!(shown("--schema-mode prompt").contains("JSON Schema below"));
}

#[test]
fn without_a_schema_nothing_changes() {
    let (bench, server, ended) = with(1, "", |_, _| Reply::body(completion("```json\n{}\n```")));
    ended.expect(0);
    assert_eq!(bench.lines("out.jsonl")[0]["result"], "```json\n{}\n```");
    assert!(server.calls()[0].body.get("response_format").is_none());
    assert!(!bench.exists("out.jsonl.rowmill"));
}

#[test]
fn draft_in_a_thought_is_never_the_answer() {
    let (draft, good) = (r#"{"label":"neg","score":0}"#, GOOD);
    let cases = [
        (format!("<think>Could be {draft}. No, so"), "length", Err("truncated")),
        (format!("<think>Could be {draft}. No."), "stop", Err("schema_mismatch")),
        (format!("<thinking>{draft}? No.</thinking>\n{good}"), "stop", Ok(())),
        (format!("<reasoning>{draft}? No.</reasoning>\n{good}"), "stop", Ok(())),
        (
            format!(
                "<|channel|>analysis<|message|>{draft}?<|end|><|start|>assistant<|channel|>final<|message|>{good}"
            ),
            "stop",
            Ok(()),
        ),
        (format!("{draft}? No.</think>{good}"), "stop", Ok(())),
        (format!("Example: {draft}. My answer: {good}"), "stop", Ok(())),
        (format!("```json\n{draft}\n```\nNo:\n```json\n{good}\n```"), "stop", Ok(())),
        (format!("{good} is better than {draft}"), "stop", Err("schema_mismatch")),
        (format!("{draft} But wait, the customer"), "length", Err("truncated")),
        (format!("{draft} But wait, rather {{\"label\":"), "stop", Err("schema_mismatch")),
        ("{'label': 'pos', 'score': 0.5,} # sure".to_owned(), "stop", Ok(())),
        ("{'label': 'pos', 'score': it's 0.5}".to_owned(), "stop", Err("schema_mismatch")),
    ];
    let count = cases.len();
    let script = cases.clone();
    let (bench, ..) = with(count, &format!("{SCHEMA} --schema-retries 0"), move |call, _| {
        let row: usize = question(call).rsplit(' ').next().unwrap().parse().unwrap();
        let (text, reason, _) = &script[row - 1];
        ended_with(json!({"content": text}), reason)
    });
    for (line, (text, _, expected)) in bench.lines("out.jsonl").iter().zip(cases) {
        match expected {
            Ok(()) => assert_eq!(line["result"], json!({"label": "pos", "score": 0.5}), "{text}"),
            Err(class) => assert_eq!(line["error"]["class"], class, "{text}: {line}"),
        }
    }
}

#[test]
fn schema_that_checks_nothing_is_refused() {
    let inner =
        r#"{"type":"object","properties":{"label":{"type":"string"}},"required":["label"]}"#;
    let server = Server::start(|_| says(r#"{"unrelated":[1]}"#));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(1));
    for (schema, told) in [
        ("{}", "{} allows every answer"),
        ("true", "true allows every answer"),
        (r#"{"label":"string","score":"number"}"#, "--schema 'label:string, score:number'"),
        (r#"{"type":"object","propertys":{},"requred":[]}"#, "did you mean \"properties\"?"),
        (r#"{"name":"f","schema":{"title":"x"}}"#, "only \"title\""),
    ] {
        bench.write("s.json", schema);
        bench.run(&format!("{ASK} --json-schema s.json")).expect(2).says(told);
    }
    assert_eq!(server.count(), 0);
    for wrapped in [
        format!(r#"{{"name":"v","strict":true,"schema":{inner}}}"#),
        format!(r#"{{"type":"json_schema","json_schema":{{"name":"v","schema":{inner}}}}}"#),
        format!(r#"{{"name":"v","description":"d","parameters":{inner}}}"#),
        format!(r#"{{"name":"v","input_schema":{inner}}}"#),
    ] {
        bench.write("s.json", &wrapped);
        bench.run(&format!("{ASK} --json-schema s.json --schema-retries 0 --overwrite")).expect(3);
        let error = &bench.lines("out.jsonl")[0]["error"];
        assert_eq!(error["message"], "\"label\" is a required property", "{wrapped}");
        let calls = server.calls();
        let sent = &calls.last().unwrap().body["response_format"]["json_schema"]["schema"];
        assert_eq!(sent, &serde_json::from_str::<Value>(inner).unwrap(), "the bare schema is sent");
    }
}
