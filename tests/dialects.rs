//! The dialects, held to lines as the vendors document or write them (`fixtures/dialects`).

use std::fs;
use std::path::PathBuf;

use rowmill::dialect::detect::{Side, detect};
use rowmill::dialect::{Answer, Content, Dialect, dria, openai, prompts, read_outcome};

use crate::support::Bench;

/// Whose lines, and the dialect.
const DIRECTORIES: [(&str, Dialect); 6] = [
    ("openai", Dialect::OpenAi),
    ("vllm", Dialect::OpenAi),
    ("fastdeploy", Dialect::OpenAi),
    ("doubleword", Dialect::OpenAi),
    ("dria", Dialect::Dria),
    ("prompts", Dialect::Prompts),
];

fn path(directory: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/dialects")
        .join(directory)
        .join(format!("{name}.jsonl"))
}

fn text(directory: &str, name: &str) -> String {
    fs::read_to_string(path(directory, name)).unwrap()
}

fn results(directory: &str, dialect: Dialect) -> Vec<Result<String, String>> {
    let text = text(directory, "results");
    let said = |line| read_outcome(dialect, line).unwrap().result;
    text.lines().map(said).map(|result| result.map(|content| content.text().into())).collect()
}

#[test]
fn every_servers_lines_are_told_for_what_they_are() {
    for (directory, dialect) in DIRECTORIES {
        for (name, side) in [("requests", Side::Requests), ("results", Side::Outcomes)] {
            let text = text(directory, name);
            let form = detect((1..).zip(text.lines().map(str::as_bytes))).unwrap().unwrap();
            assert_eq!((form.dialect, form.side), (dialect, side), "{directory} {name}");
        }
    }
}

#[test]
fn every_servers_requests_are_fine_for_it() {
    let bench = Bench::new();
    for (directory, dialect) in DIRECTORIES {
        let server = if dialect == Dialect::Prompts { "dria" } else { directory };
        let file = path(directory, "requests");
        let args = ["files", "validate", file.to_str().unwrap(), "--for", server];
        let ended = bench.run_args(args).expect(0);
        assert!(ended.stdout.contains(&format!("lines of the dialect {dialect}")), "{ended:?}");
        assert!(!ended.stdout.contains("warning"), "{ended:?}");
    }
}

#[test]
fn every_servers_results_are_read() {
    let ok = |text: &str| Ok::<_, String>(text.to_owned());
    let failed = |text: &str| Err::<String, _>(text.to_owned());
    assert_eq!(
        results("openai", Dialect::OpenAi),
        [
            ok("Bleu."),
            failed("400: invalid_value: max_tokens is too large"),
            failed(
                "batch_expired: This request could not be executed before the completion window \
                 expired."
            ),
            failed("0: {}"),
        ]
    );
    assert_eq!(
        results("vllm", Dialect::OpenAi),
        [
            ok("Mars"),
            ok(r#"[{"embedding":[0.25,-1],"index":0,"object":"embedding"}]"#),
            failed("The model `x` does not exist."),
            failed("URL /v1/x is not a supported endpoint."),
        ]
    );
    assert_eq!(
        results("fastdeploy", Dialect::OpenAi),
        [ok("Far."), failed("Request must not be sent in stream mode")]
    );
    assert_eq!(
        results("doubleword", Dialect::OpenAi),
        [ok("Oder"), failed(r#"{"type":"NonRetriableHttpStatus","status":404}"#)]
    );
    let no_nodes = failed("503: no nodes available");
    assert_eq!(results("dria", Dialect::Dria), [ok("It falls and falls."), no_nodes.clone()]);
    assert_eq!(results("prompts", Dialect::Prompts), [ok("A dog on a beach."), no_nodes]);
}

#[test]
fn what_rowmill_writes_is_what_it_wrote_before() {
    let mut out = Vec::new();
    let id = r#""request-1""#;
    let body = b"{\"n\": 1.50,\"choices\":[]}";
    let refused = br#"{"error":{"message":"slow down","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#;
    let none = openai::NoResponse { code: "batch_expired", message: "too late" };
    for result in [
        Ok(openai::Response { status: 200, request_id: Some("req_7"), body }),
        Ok(openai::Response { status: 429, request_id: None, body: refused }),
        Ok(openai::Response { status: 502, request_id: None, body: b"Bad\nGateway" }),
        Err(none),
    ] {
        openai::write(&mut out, &openai::Reply { seed: "run 1", id, result });
    }
    assert_eq!(String::from_utf8(out).unwrap(), text("openai", "written"));

    let (mut out, answer) = (Vec::new(), Answer::Text("It falls and falls."));
    let [first, second] = [1, 2].map(|n| format!("\"2f6e0a3c-5f0e-4c8e-9d51-0d7f4f3c1a0{n}\""));
    dria::write_answer(&mut out, &first, Some("qwen2.5:7b-instruct-fp16"), answer, Some(6));
    let message = "no nodes available";
    dria::write_failure(&mut out, &second, Some("gemini-2.0-flash"), Some(503), message);
    assert_eq!(String::from_utf8(out).unwrap(), text("dria", "written"));

    let (mut out, answer) = (Vec::new(), Answer::Text("A dog on a beach."));
    prompts::write_answer(&mut out, "\"1\"", Some("qwen3.5:9b"), answer, Some(7));
    prompts::write_failure(&mut out, "\"2\"", Some("lfm2.5-audio:1.5b"), Some(503), message);
    assert_eq!(String::from_utf8(out).unwrap(), text("prompts", "written"));
}

#[test]
fn what_is_written_is_read_back_as_it_was_meant() {
    let texts = ["", "a\nb\r\n\"c\"", "\u{2028}\0é\\", "{\"not\":\"json\"}"];
    for said in texts {
        let mut out = Vec::new();
        prompts::write_answer(&mut out, "7", None, Answer::Text(said), None);
        dria::write_answer(&mut out, "\"a\"", None, Answer::Text(said), None);
        let body = serde_json::json!({"choices": [{"message": {"content": said}}]}).to_string();
        let response = openai::Response { status: 200, request_id: None, body: body.as_bytes() };
        let result = Ok(response);
        openai::write(&mut out, &openai::Reply { seed: "", id: "\"a\"", result });
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.split_terminator('\n').collect();
        let dialects = [Dialect::Prompts, Dialect::Dria, Dialect::OpenAi];
        assert_eq!(lines.len(), dialects.len(), "{text}");
        for (dialect, line) in dialects.into_iter().zip(lines) {
            let outcome = read_outcome(dialect, line).unwrap();
            assert_eq!(outcome.result, Ok(Content::Text(said.to_owned())), "{line}");
        }
    }
}
