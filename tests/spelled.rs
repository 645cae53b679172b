//! Lines out: what becomes of rows, spelled in every dialect (`fixtures/dialects/spelled`).

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use rowmill::dialect::{Dialect, read_outcome};
use serde_json::{Value, json};

use crate::support::server::{Call, Reply, Server, completion};
use crate::support::{Bench, assert_same, assert_text, rows};

/// Rows with ids of both kinds; the line that is no JSON has none.
const ROWS: &str = "{\"id\":\"r\\u0031\",\"text\":\"fine\"}\n\
                    {\"id\":2,\"text\":\"refused\"}\n\
                    {\"id\":\"cut\",\"text\":\"cut\"}\n\
                    {\"id\":\"torn\n\
                    {\"id\":\"empty\",\"text\":\"empty\"}\n\
                    {\"id\":\"odd\",\"text\":\"odd\"}\n";

const ASK: &str = "run in.jsonl --id-field id -p {{text}} -m m -c 1 --retries 0";

fn reply(call: &Call) -> Reply {
    let named = |status: u16, body: String| {
        let id = format!("req-{}", call.prompt);
        Reply::Status(status, vec![("x-request-id", id)], body)
    };
    match call.prompt.as_str() {
        "refused" => named(
            400,
            r#"{"error":{"message":"no such tool","type":"invalid_request_error","param":"tools","code":null}}"#
                .into(),
        ),
        "cut" => Reply::Cut,
        "empty" => named(200, completion("")),
        "odd" => named(500, "<html>Oh\ndear</html>".into()),
        "tools" => named(
            200,
            r#"{"id":"c-2","choices":[{"message":{"content":null,"tool_calls":[{"id":"call_1","function":{"name":"f","arguments":"{}"}}]}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#.into(),
        ),
        "vector" => named(200, "{\n  \"data\": [{\"embedding\": [0.50]}]\r\n}".into()),
        said => named(200, completion(&format!("answer to\n\"{said}\""))),
    }
}

/// The text without what is chance: the server's port, the hashes in names, which are made of the run's name, times, and
/// how often a call was tried that failed.
fn without_chance(text: &str, server: &Server) -> String {
    let url = server.url();
    let host = url.trim_start_matches("http://").trim_end_matches("/v1");
    let mut text = text.replace(host, "HOST");
    for attempts in 1..=9 {
        text = text.replace(&format!("\"attempts\":{attempts}"), "\"attempts\":N");
    }
    for kind in ["\"batch_req_", "\"req_", "\"chatcmpl-"] {
        text = without_hashes(&text, kind);
    }
    let mut parts = text.split("\"created\":");
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        out += "\"created\":N";
        out += part.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out
}

/// The text with what stands behind each of these left out, where it is a hash.
fn without_hashes(text: &str, kind: &str) -> String {
    let mut parts = text.split(kind);
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        out += kind;
        match part.split_at_checked(32) {
            Some((name, rest)) if name.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                out += "…";
                out += rest;
            }
            _ => out += part,
        }
    }
    out
}

#[track_caller]
fn assert_golden(name: &str, text: &str, server: &Server) {
    let text = without_chance(text, server);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/dialects/spelled")
        .join(format!("{name}.jsonl"));
    if std::env::var_os("ROWMILL_WRITE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_text(&text, &fs::read_to_string(path).unwrap());
}

/// Some of the lines, by their places.
fn lines_at(text: &str, places: &[usize]) -> String {
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    places.iter().map(|place| lines[*place]).collect()
}

#[test]
fn rows_that_are_done_are_spelled_in_every_dialect_without_a_call() {
    let server = Server::start(reply);
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", ROWS);
    let outputs = "-o out.jsonl --error-output errors.jsonl --output-delta delta.jsonl \
                   --summary-output summary.json --no-final-summary";
    bench.run(&format!("{ASK} --work-dir job {outputs}")).expect(3);
    let calls = server.count();
    assert_golden("rows-as-rows", &bench.read("out.jsonl"), &server);
    assert!(bench.json("summary.json").get("output_format").is_none());
    for format in Dialect::ALL.into_iter().filter(|format| !format.is_rows()) {
        let merge = format!("merge --work-dir job {outputs} --output-format {format}");
        bench.run(&merge).expect(3);
        let text = bench.read("out.jsonl");
        assert_golden(&format!("rows-as-{format}"), &text, &server);
        assert_eq!(bench.read("errors.jsonl"), lines_at(&text, &[1, 2, 3, 4, 5]));
        assert_eq!(bench.read("delta.jsonl"), lines_at(&text, &[0]));
        assert_eq!(bench.json("summary.json")["output_format"], format.name());
        let outcomes = text.lines().map(|line| read_outcome(format, line).unwrap().result.is_ok());
        assert_eq!(outcomes.collect::<Vec<_>>(), [true, false, false, false, false, false]);
        // The same again changes nothing.
        let before = bench.snapshot();
        bench.run(&merge).expect(3);
        assert_same(&bench.snapshot(), &before);
    }
    bench.run(&format!("merge --work-dir job {outputs}")).expect(3);
    assert_golden("rows-as-rows", &bench.read("out.jsonl"), &server);
    assert_eq!(server.count(), calls);
}

/// A line of the `openai` dialect whose call is that of a text.
fn request(id: &str, url: &str, text: &str) -> String {
    let said = match url {
        "/v1/chat/completions" => format!(r#""messages":[{{"role":"user","content":"{text}"}}]"#),
        _ => format!(r#""input":"{text}""#),
    };
    let body = format!(r#"{{"model":"m",{said}}}"#);
    format!("{{\"custom_id\":{id},\"method\":\"POST\",\"url\":\"{url}\",\"body\":{body}}}\n")
}

/// A file of requests whose lines come to everything that lines can come to.
fn requests(dialect: Dialect) -> String {
    const CHAT: &str = "/v1/chat/completions";
    let texts = [
        ("r\\u0031", "fine"),
        ("2", "refused"),
        ("cut", "cut"),
        ("empty", "empty"),
        ("odd", "odd"),
    ];
    let line = |(id, text): (&str, &str)| match dialect {
        Dialect::Prompts if id == "2" => format!("{{\"id\":2,\"prompt\":\"{text}\"}}\n"),
        Dialect::Prompts => format!("{{\"id\":\"{id}\",\"prompt\":\"{text}\"}}\n"),
        Dialect::Dria => format!(
            "{{\"custom_id\":\"{id}\",\"type\":\"completions\",\"version\":\"v1\",\
             \"body\":{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}}}\n"
        ),
        _ => request(&format!("\"{id}\""), CHAT, text),
    };
    let mut all: String = texts.map(line).concat() + "{\"custom_id\":\"torn\n";
    match dialect {
        Dialect::Prompts => all += "{\"prompt\":\"\"}\n{\"prompt\":\"without an id\"}\n",
        Dialect::Dria => all += &line(("typed", "x")).replace("\"v1\"", "\"v2\""),
        _ => {
            all += &request("\"vector\"", "/v1/embeddings", "vector");
            all += &request("\"tools\"", CHAT, "tools");
            all += &request("\"nowhere\"", "/v1/nowhere", "x");
        }
    }
    all
}

#[test]
fn request_files_are_answered_in_their_own_dialect_and_spelled_in_every_other() {
    for dialect in Dialect::ALL.into_iter().filter(|dialect| !dialect.is_rows()) {
        let server = Server::start(reply);
        let bench = Bench::new();
        bench.write("in.jsonl", requests(dialect));
        let outputs =
            "-o out.jsonl --error-output errors.jsonl --summary-output s.json --no-final-summary";
        let run = format!(
            "run in.jsonl --skip-bad-lines -m m --base-url {} -c 1 --retries 0 {outputs}",
            server.url()
        );
        bench.run(&run).expect(3);
        let (calls, own) = (server.count(), bench.read("out.jsonl"));
        for format in Dialect::ALL {
            let merge = format!("merge --work-dir out.jsonl.rowmill {outputs}");
            bench.run(&format!("{merge} --output-format {format}")).expect(3);
            let text = bench.read("out.jsonl");
            assert_golden(&format!("{dialect}-as-{format}"), &text, &server);
            assert_eq!(text == own, format == dialect);
            let is_failed = |line: &&str| read_outcome(format, line).unwrap().result.is_err();
            let failed: Vec<_> = text.lines().filter(is_failed).collect();
            assert_eq!(bench.read("errors.jsonl").lines().collect::<Vec<_>>(), failed);
            let summary = bench.json("s.json");
            assert_eq!(summary["dialect"], dialect.name());
            assert_eq!(summary["output_format"] == format.name(), !format.is_rows());
            // The file tools read them all.
            bench.write("own.jsonl", &own);
            let diff = bench.run("files diff own.jsonl out.jsonl --json").expect(0).summary();
            // A line without an id is no other's.
            let unnamed = |text: &str| json!(text.matches("\"custom_id\":null").count());
            let bad = [&diff["a"]["bad_lines"], &diff["b"]["bad_lines"]];
            assert_eq!(bad, [&unnamed(&own), &unnamed(&text)]);
        }
        // Resumed as it was started it is spelled as it was, without a call.
        bench.run(&format!("{run} --resume --no-retry-failed")).expect(3);
        assert_eq!(bench.read("out.jsonl"), own);
        assert_eq!(server.count(), calls);
    }
}

#[test]
fn several_answers_to_a_request_are_told_apart_in_envelopes_only() {
    let server = Server::start(reply);
    let bench = Bench::new();
    bench.write("in.jsonl", request("\"a\"", "/v1/chat/completions", "fine"));
    let run = format!("run in.jsonl -o out.jsonl --base-url {} -m m -m n", server.url());
    bench.run(&run).expect(2).says("as those of the input are").says("--output-format rows");
    assert_eq!(server.count(), 0);
    bench.run(&format!("{run} --output-format rows")).expect(0);
    let models: Vec<_> = bench.lines("out.jsonl").iter().map(|it| it["model"].clone()).collect();
    assert_eq!(models, ["m", "n"]);
}

#[test]
fn a_killed_run_of_requests_comes_out_as_one_that_was_not() {
    const COUNT: usize = 30;
    let said = |call: &Call| {
        Reply::Status(200, vec![("x-request-id", call.prompt.clone())], completion(&call.prompt))
    };
    let held = Server::start(move |call| match call.prompt.as_str() {
        "text 22" => Reply::Hold("never".into()),
        _ => said(call),
    });
    let bench = Bench::new();
    let of = |n: usize| request(&format!("\"c{n}\""), "/v1/chat/completions", &format!("text {n}"));
    bench.write("in.jsonl", (1..=COUNT).map(of).collect::<String>());
    let run = |server: &Server, output: &str| {
        format!(
            "run in.jsonl -o {output} --base-url {} --shard-rows 7 --fixed-concurrency -c 1",
            server.url()
        )
    };
    let running = bench.start(&run(&held, "out.jsonl"));
    held.wait_for_calls(22);
    running.kill();
    let server = Server::start(said);
    bench.run(&(run(&server, "out.jsonl") + " --resume")).expect(0);
    assert!(server.count() <= COUNT - 21, "{} calls", server.count());
    assert!(!bench.exists("out.jsonl.rowmill"), "such an output is enough to go on from");
    bench.run(&run(&server, "whole.jsonl")).expect(0);
    let texts = ["out.jsonl", "whole.jsonl"].map(|name| without_chance(&bench.read(name), &server));
    assert_text(&texts[0], &texts[1]);
    let lines = bench.lines("out.jsonl");
    let names: Vec<_> = lines.iter().map(|line| line["response"]["request_id"].clone()).collect();
    assert_eq!(names, (1..=COUNT).map(|n| json!(format!("text {n}"))).collect::<Vec<_>>());
    let ids: HashSet<_> = lines.iter().map(|line| line["id"].to_string()).collect();
    assert_eq!(ids.len(), COUNT);
}

#[test]
fn a_run_writes_what_it_is_told_to_and_the_same_again_changes_nothing() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    let ask = "run in.jsonl --id-field id -p {{text}} -m m -o out.jsonl --resume";
    bench.run(&format!("{ask} --output-format dria")).expect(0);
    let dria = bench.read("out.jsonl");
    assert!(
        dria.starts_with("{\"custom_id\":\"r1\",\"model\":\"mock-model-1\",\"result\":"),
        "{dria}"
    );
    // Such a line does not tell enough to go on from, so the work directory stays.
    let before = bench.snapshot();
    assert!(bench.exists("out.jsonl.rowmill"));
    let again = bench.run(&format!("{ask} --output-format dria")).expect(0);
    assert_eq!(again.summary()["output_format"], "dria");
    assert_same(&bench.snapshot(), &before);
    bench.run(&format!("{ask} --output-format prompts")).expect(0);
    assert!(bench.read("out.jsonl").starts_with("{\"id\":\"r1\",\"model\":"));
    let shown = "-o - --work-dir out.jsonl.rowmill --no-final-summary --output-format dria";
    assert_eq!(bench.run(&format!("merge {shown}")).expect(0).stdout, dria);
    bench.run(ask).expect(0);
    bench.assert_answers(3);
    assert_eq!(server.count(), 3);
    bench
        .run(&format!("{ask} --output-format batch"))
        .expect(2)
        .says("rows, openai, prompts, dria");
}

#[test]
fn what_only_envelopes_can_say_is_refused_before_any_call() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    let ask = "run in.jsonl --id-field id -p {{text}} -o out.jsonl --work-dir job";
    for (options, what) in [
        ("-m m --include-input", "--include-input"),
        ("-m m -m n", "several answers to a row"),
        ("-m m --repeat 2", "several answers to a row"),
    ] {
        for format in ["openai", "prompts", "dria"] {
            for more in ["", "--dry-run", "--resume"] {
                let ask = format!("{ask} {options} --output-format {format} {more}");
                bench.run(&ask).expect(2).says(what).says("--output-format rows");
            }
        }
    }
    assert_eq!(server.count(), 0);
    assert!(!bench.exists("job") && !bench.exists("out.jsonl"));
    bench.run(&format!("{ask} -m m --repeat 2 --output-format rows")).expect(0);
    let before = bench.snapshot();
    let merge = "merge --work-dir job -o out.jsonl --output-format openai";
    bench.run(merge).expect(2).says("several answers to a row");
    assert_same(&bench.snapshot(), &before);
}

#[test]
fn twins_are_spelled_as_those_whose_answers_they_take() {
    let server = Server::start(reply);
    let bench = Bench::with_server(&server);
    let text = |text: &str| format!("{{\"text\":\"{text}\"}}\n");
    let all = ["fine", "refused", "fine", "refused", "fine"].map(text).concat();
    bench.write("in.jsonl", all);
    let ask = "run in.jsonl -p {{text}} -m m --dedupe -o out.jsonl --error-output errors.jsonl";
    for format in ["openai", "prompts", "dria"] {
        let ask = format!("{ask} --overwrite --output-format {format}");
        bench.run(&ask).expect(3);
        let text = bench.read("out.jsonl");
        let ids = [1, 2, 3, 4, 5].map(|row| match format {
            "prompts" => serde_json::json!(row),
            _ => serde_json::json!(row.to_string()),
        });
        let id = if format == "prompts" { "id" } else { "custom_id" };
        let lines = bench.lines("out.jsonl");
        assert_eq!(lines.iter().map(|line| line[id].clone()).collect::<Vec<_>>(), ids);
        let of = |place: usize| {
            let mut line = lines[place].clone();
            line["id"] = 0.into();
            line["custom_id"] = 0.into();
            if let Some(body) = line.pointer_mut("/response/body") {
                body["id"] = 0.into();
            }
            line
        };
        assert!(of(0) == of(2) && of(2) == of(4) && of(1) == of(3), "{text}");
        assert_eq!(bench.read("errors.jsonl"), lines_at(&text, &[1, 3]));
        if format == "openai" {
            let names: HashSet<_> = lines.iter().map(|line| line["id"].to_string()).collect();
            assert_eq!(names.len(), 5, "each line has a name of its own");
            assert_eq!(lines[4]["response"]["request_id"], "req-fine");
        }
    }
    assert_eq!(server.count(), 6);
}

#[test]
fn the_delta_of_an_update_is_spelled_alike_and_has_what_is_new() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(2));
    let ask = "run in.jsonl --id-field id -p {{text}} -m m -o out.jsonl --output-delta delta.jsonl \
               --resume --on-change update --output-format openai";
    bench.run(ask).expect(0);
    assert_eq!(bench.lines("delta.jsonl").len(), 2);
    bench.write("in.jsonl", rows(4));
    bench.run(ask).expect(0);
    let ids = |name: &str| {
        let lines = bench.lines(name).into_iter();
        lines.map(|line| line["custom_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("delta.jsonl"), ["r3", "r4"]);
    assert_eq!(ids("out.jsonl"), ["r1", "r2", "r3", "r4"]);
    assert_eq!(server.count(), 4);
}

#[test]
fn every_protocol_becomes_a_body_that_the_file_tools_read() {
    let server = Server::start(|call| match &call.body["input"] {
        Value::String(_) if call.path.ends_with("/embeddings") => {
            Reply::Answer("[0.50,1e-3]".into())
        }
        _ => Reply::Answer("{\"n\": 1.50}".into()),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(2));
    let base = server.url();
    let ask = |job: &str, more: &str| {
        let ask = format!(
            "run in.jsonl --id-field id -p {{{{text}}}} --base-url {base} --work-dir {job} -o {job}.jsonl \
             --no-final-summary {more}"
        );
        bench.run(&ask).expect(0);
        for format in ["openai", "prompts", "dria"] {
            let (work, out) = (format!("--work-dir {job}"), format!("{job}-{format}.jsonl"));
            bench.run(&format!("merge {work} -o {out} --output-format {format}")).expect(0);
            let stats = bench.run(&format!("files stats --json {out}")).expect(0);
            assert_eq!(stats.summary()["dialect"], format, "{}", stats.stdout);
            assert_eq!(stats.summary()["holds"], "results", "{}", stats.stdout);
            let diff = bench.run(&format!("files diff {job}.jsonl {out} --json")).expect(0);
            // A body of vectors holds more than the vector.
            let same = if job == "vectors" && format == "openai" { 0 } else { 2 };
            assert_eq!(diff.summary()["same"], same, "{job} {format}: {}", diff.stdout);
        }
        bench.lines(&format!("{job}-openai.jsonl"))[0]["response"]["body"].clone()
    };
    for protocol in ["chat", "responses", "messages"] {
        let body = ask(protocol, &format!("-m m --protocol {protocol} --max-tokens 5"));
        assert_eq!(body["choices"][0]["message"]["content"], "{\"n\": 1.50}");
        assert_eq!(body["choices"][0]["finish_reason"], "stop", "{protocol}");
        assert_eq!(body["usage"]["total_tokens"], 18);
    }
    let body = ask("vectors", "-m m --protocol embeddings");
    assert_eq!(body["data"][0]["embedding"].to_string(), "[0.5,0.001]");
    assert!(bench.read("vectors-openai.jsonl").contains("\"embedding\":[0.50,1e-3]}]"));
    assert!(bench.read("vectors-dria.jsonl").contains("\"result\":[0.50,1e-3],"));
}

#[test]
fn lines_of_one_custom_id_have_names_of_their_own() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let line = |text: &str| request("\"c1\"", "/v1/chat/completions", text);
    for name in ["a", "b"] {
        bench.write(&format!("in/{name}.jsonl"), line("first") + &line("again"));
    }
    let run = "run in -o out --output-format openai --skip-bad-lines --work-dir job";
    let run = format!("{run} --base-url {}", server.url());
    bench.run(&run).expect(3);
    let names = |bench: &Bench| -> Vec<Value> {
        let files = ["out/a.jsonl", "out/b.jsonl"];
        files.iter().flat_map(|it| bench.lines(it)).map(|it| it["id"].clone()).collect()
    };
    let before = names(&bench);
    assert_eq!(before.iter().map(Value::to_string).collect::<HashSet<_>>().len(), 4, "{before:?}");
    bench.run("merge --work-dir job -o other --output-format openai").expect(3);
    assert_eq!(bench.read("other/b.jsonl"), bench.read("out/b.jsonl"), "the same again");
}

/// What openai-python makes of lines: each body must be what its type wants.
const VALIDATE: &str = "
import json, sys
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
for line in open(sys.argv[1], encoding='utf-8'):
    line = json.loads(line)
    response = line['response']
    assert isinstance(line['id'], str) and isinstance(line['custom_id'], str)
    if response is None:
        assert isinstance(line['error']['message'], str)
        continue
    assert isinstance(response['request_id'], str) and response['request_id']
    if response['status_code'] == 200:
        body = response['body']
        kind = CreateEmbeddingResponse if body['object'] == 'list' else ChatCompletion
        kind.model_validate(body, strict=False)
        print(body['object'])
";

/// The Python of an environment with the newest openai-python; `None`, told, where it cannot be had.
fn openai_python() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("openai-python");
    let python = dir.join("bin/python");
    let run = |program: &std::path::Path, args: &[&str]| {
        let done = std::process::Command::new(program).args(args).output();
        done.is_ok_and(|done| done.status.success())
    };
    let is_ready = || run(&python, &["-c", "import openai"]);
    let path = dir.to_str()?;
    let is_made = is_ready()
        || run("python3".as_ref(), &["-m", "venv", path])
            && run(&python, &["-m", "pip", "install", "--quiet", "--timeout", "20", "openai"])
            && is_ready();
    if !is_made {
        eprintln!("SKIPPED: openai-python cannot be installed into {path}");
    }
    is_made.then_some(python)
}

#[test]
fn lines_of_rows_are_what_openai_python_reads() {
    let Some(python) = openai_python() else { return };
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 1" => Reply::Answer("well".into()),
        "text 2" => Reply::body(
            r#"{"choices":[{"message":{"content":"cut"},"finish_reason":"eos_token"}],"usage":{"prompt_tokens":1}}"#,
        ),
        "text 3" => Reply::status(400),
        _ => Reply::body(completion("")),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(4));
    let run = "run in.jsonl --id-field id -p {{text}} -m m --retries 0 --output-format openai -o";
    bench.run(&format!("{run} out.jsonl")).expect(3);
    let vectors = Server::start(|_| {
        Reply::body(
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"model":"e","usage":{"prompt_tokens":1,"total_tokens":1}}"#,
        )
    });
    let of_vectors = format!("--protocol embeddings --base-url {}", vectors.url());
    bench.run(&format!("{run} vectors.jsonl {of_vectors}")).expect(0);
    for (name, valid) in [("out.jsonl", 2), ("vectors.jsonl", 4)] {
        let done = std::process::Command::new(&python)
            .args(["-c", VALIDATE, bench.path(name).to_str().unwrap()])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(String::from_utf8_lossy(&done.stdout).lines().count(), valid, "{name}");
    }
}
