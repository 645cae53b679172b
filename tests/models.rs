//! Models by their names: who is called, in which protocol, with whose key, and what is refused.

use serde_json::{Value, json};

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, CANARY, assert_same, rows};

const OUTPUTS: &str = "-o out.jsonl --telemetry-output tel.jsonl --id-field id -p {{text}}";

/// A bench with rows, and a server that answers each prompt in its way.
fn bench() -> (Bench, Server) {
    let (bench, server) = (Bench::new(), Server::echo());
    bench.write("in.jsonl", rows(3));
    bench.write("system.txt", "Be brief.");
    (bench, server)
}

fn run(bench: &Bench, server: &Server, options: &str) -> crate::support::Ended {
    let url = server.url();
    bench.run(&format!("run in.jsonl {OUTPUTS} --base-url {url} {options}"))
}

fn assert_answers(bench: &Bench) {
    bench.assert_answers(3);
    for line in bench.lines("tel.jsonl") {
        assert_eq!(line["finish_reason"], "stop");
        assert_eq!(line["model"], "mock-model-1");
        assert_eq!(line["usage"]["turn"], json!({"input_tokens": 11, "output_tokens": 7}));
    }
}

#[test]
fn responses_answer_every_row() {
    let (bench, server) = bench();
    let model = "-m responses.gpt-5?reasoning=low&max_tokens=50&service_tier=flex";
    let ended = run(&bench, &server, &format!("{model} --instruction system.txt")).expect(0);
    assert_answers(&bench);
    assert_eq!(ended.summary()["protocol"], "responses");
    assert_eq!(ended.summary()["model"], "gpt-5");
    let call = &server.calls()[0];
    assert_eq!(call.path, "/v1/responses");
    assert_eq!(call.headers["authorization"], format!("Bearer {CANARY}"));
    assert_eq!(
        call.body,
        json!({
            "model": "gpt-5", "instructions": "Be brief.", "input": call.prompt,
            "max_output_tokens": 50, "reasoning": {"effort": "low"}, "service_tier": "flex",
            "store": false,
        })
    );
}

#[test]
fn messages_answer_every_row_with_their_own_key() {
    let (mut bench, server) = bench();
    bench.set("OPENAI_API_KEY", "sk-of-openai");
    bench.set("ANTHROPIC_API_KEY", CANARY);
    run(&bench, &server, "-m anthropic.claude-x --temperature 0 --instruction system.txt")
        .expect(0);
    assert_answers(&bench);
    let call = &server.calls()[0];
    assert_eq!(call.path, "/v1/messages");
    assert_eq!(call.headers["x-api-key"], CANARY);
    assert_eq!(call.headers["anthropic-version"], "2023-06-01");
    assert!(!call.headers.contains_key("authorization"));
    let cached = json!({"type": "ephemeral"});
    assert_eq!(
        call.body,
        json!({
            "model": "claude-x", "max_tokens": 4096, "temperature": 0,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": cached}],
            "messages": [{"role": "user", "content": call.prompt}],
        })
    );
}

#[test]
fn embeddings_come_as_they_are_spelled() {
    let server = Server::start(|call| {
        let number: usize = call.prompt[5..].parse().unwrap();
        Reply::Answer(format!("[{number}.50,-0.0, 1e-3]"))
    });
    let bench = Bench::new();
    bench.write("in.jsonl", rows(3));
    let ended =
        run(&bench, &server, "-m openai.text-embedding-x?dimensions=3 --protocol embeddings");
    assert_eq!(ended.expect(0).summary()["usage"], json!({"input_tokens": 33, "output_tokens": 0}));
    let lines: String = (1..=3)
        .map(|n| {
            format!(
                "{{\"id\":\"r{n}\",\"row_number\":{n},\"ok\":true,\"result\":[{n}.50,-0.0, 1e-3],\
                 \"error\":null}}\n"
            )
        })
        .collect();
    assert_eq!(bench.read("out.jsonl"), lines);
    let call = &server.calls()[0];
    assert_eq!(call.path, "/v1/embeddings");
    let input = &call.prompt;
    assert_eq!(
        call.body,
        json!({"model": "text-embedding-x", "input": input, "dimensions": 3, "encoding_format": "float"})
    );
}

#[test]
fn a_local_server_can_be_spoken_to_in_each_protocol() {
    for (protocol, path) in [
        ("chat", "/v1/chat/completions"),
        ("responses", "/v1/responses"),
        ("messages", "/v1/messages"),
    ] {
        let (bench, server) = bench();
        run(&bench, &server, &format!("-m vllm.org/model:tag --protocol {protocol}")).expect(0);
        assert_answers(&bench);
        let call = &server.calls()[0];
        assert_eq!((&*call.path, &call.body["model"]), (path, &json!("org/model:tag")));
        let has_key = ["authorization", "x-api-key"].map(|name| call.headers.contains_key(name));
        assert_eq!(has_key, [false, false], "no key of OpenAI's goes to another");
    }
}

#[test]
fn a_slash_is_of_the_name_where_a_base_url_is_given() {
    let (mut bench, server) = bench();
    run(&bench, &server, "-m openai/gpt-oss-20b").expect(0);
    assert_eq!(server.calls()[0].body["model"], "openai/gpt-oss-20b");
    bench.set("OPENAI_BASE_URL", &server.url());
    let line = "run in.jsonl -o 2.jsonl -p {{text}} -m google/gemma-3-4b";
    bench.run(line).expect(0);
    assert_eq!(server.calls()[3].body["model"], "google/gemma-3-4b");
}

#[test]
fn the_variable_of_a_base_url_is_that_of_its_provider() {
    let (mut bench, server) = bench();
    bench.set("OPENAI_BASE_URL", "http://127.0.0.1:9/v1");
    bench.set("GENERIC_BASE_URL", &server.url());
    bench.set("GENERIC_API_KEY", CANARY);
    bench.run("run in.jsonl -o out.jsonl -p {{text}} -m generic.m").expect(0);
    assert_eq!(server.calls()[0].headers["authorization"], format!("Bearer {CANARY}"));
    let ended = bench.run("run in.jsonl -o 2.jsonl -p {{text}} -m anthropic.m --dry-run").expect(0);
    assert!(ended.stdout.contains("https://api.anthropic.com/v1/messages"), "{}", ended.stdout);
    let ended = bench.run("run in.jsonl -o 2.jsonl -p {{text}} -m responses.m --dry-run").expect(0);
    assert!(ended.stdout.contains("http://127.0.0.1:9/v1/responses"), "{}", ended.stdout);
}

#[test]
fn who_needs_a_key_is_not_called_without_one() {
    let (bench, server) = bench();
    bench
        .run("run in.jsonl -o out.jsonl -p {{text}} -m anthropic.m")
        .expect(77)
        .says("ANTHROPIC_API_KEY");
    assert!(!bench.exists("out.jsonl.rowmill"), "nothing was begun");
    bench.run("plan in.jsonl --work-dir job -p {{text}} -m google.m").expect(0);
    bench.run("work --work-dir job").expect(77).says("GOOGLE_API_KEY or GEMINI_API_KEY");
    // Somewhere else it may go without.
    run(&bench, &server, "-m anthropic.m").expect(0);
}

#[test]
fn a_plan_is_worked_with_the_protocol_and_the_key_of_its_provider() {
    let (mut bench, server) = bench();
    let line = format!(
        "plan in.jsonl --work-dir job --id-field id -p {{{{text}}}} -m anthropic.m?temp=0 --base-url {}",
        server.url()
    );
    bench.run(&line).expect(0);
    let manifest = &bench.json("job/manifest.json")["manifest"];
    assert_eq!(
        (&manifest["provider"], &manifest["job"]["protocol"]),
        (&json!("anthropic"), &json!("messages"))
    );
    // A place of OpenAI's is none of Anthropic's.
    bench.set("OPENAI_BASE_URL", "http://127.0.0.1:9/v1");
    bench.set("ANTHROPIC_API_KEY", CANARY);
    bench.run("work --work-dir job").expect(0);
    assert!(server.calls().iter().all(|call| call.headers["x-api-key"] == CANARY));
    bench.run("merge --work-dir job -o out.jsonl --telemetry-output tel.jsonl").expect(0);
    assert_answers(&bench);
}

#[test]
fn another_protocol_or_parameter_is_another_question_and_another_place_is_not() {
    let (bench, server) = bench();
    run(&bench, &server, "-m vllm.m?temp=0 --work-dir job").expect(0);
    let resumed =
        |options: &str| run(&bench, &server, &format!("{options} --work-dir job --resume"));
    resumed("-m vllm.m --protocol messages --temperature 0")
        .expect(78)
        .says("protocol: `chat` → `messages`");
    resumed("-m vllm.m?temp=1").expect(78).says("parameter temperature: `0` → `1`");
    resumed("-m sglang.m --temperature 0").expect(0);
    resumed("-m m?temperature=0&transport=sse").expect(0);
    assert_eq!(server.count(), 3, "nothing was asked again");
    // What is no longer an answer to the question is asked anew, and told from what is.
    let update = "--on-change update";
    resumed(&format!("-m vllm.m?temp=0 --protocol responses {update}")).expect(0);
    assert_eq!(server.count(), 6);
    resumed(&format!("-m vllm.m?temp=0 --protocol messages {update} --accept-change model,params"))
        .expect(0);
    assert_eq!(server.count(), 6);
}

#[test]
fn a_plan_of_before_there_were_protocols_goes_on() {
    let (bench, server) = bench();
    let options = "-m m --temperature 0 --max-tokens 5 --work-dir job";
    let line = format!(
        "plan in.jsonl --id-field id -p {{{{text}}}} --base-url {} {options}",
        server.url()
    );
    bench.run(&line).expect(0);
    let text = bench.read("job/manifest.json");
    for new in ["protocol", "provider", "transport"] {
        assert!(!text.contains(new), "a plan of Chat Completions is as it always was: {text}");
    }
    bench.run("work --work-dir job").expect(0);
    assert_eq!(server.calls()[0].body["max_tokens"], 5);
}

#[test]
fn what_cannot_be_asked_for_is_refused_before_anything_is_done() {
    let (bench, _) = bench();
    for (options, says) in [
        ("-m m?temprature=0", "there are dimensions, frequency_penalty, max_tokens"),
        ("-m m?temperature=hot", "expected a number"),
        ("-m m?temperature=0 --temperature 1", "the parameter temperature is given twice"),
        ("-m m?max_tokens=5 --param max_tokens=5", "the parameter max_tokens is given twice"),
        ("-m anthropic.m?seed=1", "anthropic takes no seed"),
        ("-m anthropic.m?service_tier=flex", "it takes auto, standard_only"),
        ("-m openai.m?service_tier=scale", "it takes auto, default, flex, priority"),
        ("-m anthropic.m --protocol chat", "it speaks messages"),
        ("-m m --protocol embeddings --instruction in.jsonl", "embeddings take no instruction"),
        ("-m groq.m --protocol embeddings", "it speaks chat, responses"),
        ("-m m --protocol responses --param input=1", "made of the prompt"),
        ("-m m?transport=ws", "of the protocol responses"),
        ("-m openrouter.m?transport=ws --protocol responses", "no WebSocket mode"),
        ("-m m?transport=sse --protocol embeddings", "not streamed"),
        ("-m passthrough --protocol chat", "not called"),
        ("-m passthrough?transport=sse", "not called"),
        ("-m openai.", "names no model"),
        ("-m ?temp=0", "names no model"),
        ("-m m --protocol smtp", "embeddings"),
    ] {
        bench
            .run(&format!("run in.jsonl -o out.jsonl -p {{{{id}}}} {options}"))
            .expect(2)
            .says(says);
        assert!(!bench.exists("out.jsonl.rowmill"), "{options}");
    }
    // Said twice, and the same: that is clear.
    let line = "run in.jsonl -o out.jsonl -p {{id}} -m m?temp=0 --temperature 0 --dry-run";
    let shown = bench.run(line).expect(0).stdout;
    let mut bodies = serde_json::Deserializer::from_str(&shown).into_iter::<Value>();
    assert_eq!(bodies.next().unwrap().unwrap()["body"]["temperature"], 0);
}

#[test]
fn refusals_of_each_protocol_fail_their_row_and_no_other() {
    for (protocol, refused) in [
        (
            "messages",
            json!({"type": "message", "content": [], "stop_reason": "refusal", "model": "m"}),
        ),
        (
            "responses",
            json!({"status": "completed", "output": [{"type": "message", "content": [
                {"type": "refusal", "refusal": "I cannot"}]}]}),
        ),
    ] {
        let server = Server::start(move |call| match call.prompt.as_str() {
            "text 2" => Reply::body(refused.to_string()),
            _ => Reply::Answer(answer_to(&call.prompt)),
        });
        let bench = Bench::new();
        bench.write("in.jsonl", rows(3));
        let ended = run(&bench, &server, &format!("-m vllm.m --protocol {protocol}")).expect(3);
        assert_eq!(ended.summary()["failures"], json!({"refusal": 1}));
        let error = &bench.lines("out.jsonl")[1]["error"];
        assert_eq!((&error["class"], &error["attempts"]), (&json!("refusal"), &json!(1)));
    }
}

#[test]
fn every_provider_and_parameter_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/models.md");
    let text = std::fs::read_to_string(path).unwrap();
    for provider in rowmill::provider::KNOWN {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{}` |", provider.name)));
        let row = row.unwrap_or_else(|| panic!("docs/models.md has no row for {}", provider.name));
        let protocols = provider.protocols.iter().map(|protocol| protocol.name());
        for part in provider.keys.iter().copied().chain([provider.base_url]).chain(protocols) {
            assert!(row.contains(part), "{part} is not in {row}");
        }
    }
    for parameter in rowmill::provider::PARAMETERS {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{}`", parameter.name)));
        assert!(row.is_some(), "docs/models.md has no row for {}", parameter.name);
    }
}

#[test]
fn a_plan_is_worked_where_it_was_planned_for() {
    let (planned, other) = (Server::echo(), Server::echo());
    let mut bench = Bench::new();
    bench.write("in.jsonl", rows(3));
    let url = planned.url();
    bench
        .run(&format!("plan in.jsonl --work-dir job -m m -p {{{{text}}}} --base-url {url}"))
        .expect(0);
    // Another endpoint in the environment is for other commands.
    bench.set("OPENAI_BASE_URL", &other.url());
    bench.run("work --work-dir job --shard 0").expect(0);
    assert_eq!((planned.count(), other.count()), (3, 0));
}

#[test]
fn server_is_asked_which_model_it_serves() {
    let served = std::sync::Arc::new(std::sync::Mutex::new(vec!["only-one"]));
    let listed = std::sync::Arc::clone(&served);
    let server = Server::start(move |call| match call.path.ends_with("/models") {
        true => {
            let models: Vec<_> =
                listed.lock().unwrap().iter().map(|id| json!({"id": id})).collect();
            Reply::body(json!({"object": "list", "data": models}).to_string())
        }
        false => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    let ask = "run in.jsonl -o out.jsonl -p {{text}} --work-dir job";
    for options in ["", " -m auto --overwrite"] {
        let summary = bench.run(&format!("{ask}{options}")).expect(0).summary();
        assert_eq!(summary["model"], "only-one", "{options}");
    }
    bench.assert_answers(3);
    // A plan knows its model: nobody is asked, and nothing changes.
    let (calls, before) = (server.count(), bench.snapshot());
    bench.run(&format!("{ask} --resume")).expect(0);
    assert_same(&bench.snapshot(), &before);
    assert_eq!(server.count(), calls);
    let piped = bench.pipe("filter -p {{text}}", rows(1).as_bytes());
    assert_eq!(piped.code, 0, "{}", piped.stderr);
    *served.lock().unwrap() = vec!["a", "b"];
    let several = bench.run(&format!("{ask} --overwrite")).expect(2);
    several.says("serves several models (a, b): name one with -m");
    served.lock().unwrap().clear();
    bench.run(&format!("{ask} --overwrite")).expect(69).says("offers no model for this");
}

#[test]
fn parallel_alone_says_calls_in_flight() {
    let server = Server::start(|call| Reply::Hold(answer_to(&call.prompt)));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(40));
    let ask = "run in.jsonl -o out.jsonl -p {{text}} -m m --no-final-summary --fixed-concurrency";
    let running = bench.start(&format!("{ask} --parallel 3"));
    server.wait_for_active(3);
    server.release();
    running.wait().expect(0).says("--parallel 3 without -c: at most 3 calls at once");
    assert_eq!(server.peak(), 3);
    let ended = bench.run(&format!("{ask} --parallel 3 -c 5 --overwrite")).expect(0);
    assert!(!ended.stderr.contains("without -c"), "{}", ended.stderr);
}

#[test]
fn web_search_is_asked_for_in_each_protocol() {
    let sources = json!([{"type": "url_citation", "url": "http://x", "title": "t"}]);
    let server = Server::start(move |call| {
        let text = answer_to(&call.prompt);
        let body = match call.path.as_str() {
            "/v1/responses" => {
                json!({"id": "r", "model": "mock-model-1", "status": "completed", "output": [
                {"type": "reasoning", "summary": []},
                {"type": "web_search_call", "id": "ws", "status": "completed",
                    "action": {"type": "search", "query": "q", "sources": []}},
                {"type": "message", "role": "assistant",
                    "content": [{"type": "output_text", "text": text, "annotations": sources}]}]})
            }
            "/v1/messages" => json!({"id": "m", "type": "message", "role": "assistant",
                "model": "mock-model-1", "stop_reason": "end_turn", "content": [
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": [
                    {"type": "web_search_result", "url": "http://x", "title": "t", "text": "not this"}]},
                {"type": "text", "text": &text[..3], "citations": null},
                {"type": "text", "text": &text[3..], "citations": [{"cited_text": "nor this"}]}]}),
            _ => {
                json!({"id": "c", "model": "mock-model-1", "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": text, "annotations": sources}}]})
            }
        };
        Reply::body(body.to_string())
    });
    let (chat, responses, messages) = (
        json!({"web_search_options": {}}),
        json!({"tools": [{"type": "web_search"}]}),
        json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    );
    for (model, options, expected) in [
        ("openai.m?web_search=true", "", &chat),
        ("responses.m?web_search=on", "", &responses),
        ("xai.m?web_search=1", "--protocol responses", &responses),
        ("anthropic.m?web_search=true", "", &messages),
        ("m?web_search=true", "", &chat),
        ("openai.m?web_search=false", "", &json!({})),
    ] {
        let mut bench = Bench::with_rows(2);
        bench.set("XAI_API_KEY", CANARY);
        bench.set("ANTHROPIC_API_KEY", CANARY);
        run(&bench, &server, &format!("-m {model} {options}")).expect(0);
        bench.assert_answers(2);
        let body = &server.calls().pop().unwrap().body;
        for name in ["tools", "web_search_options"] {
            assert_eq!(body.get(name), expected.get(name), "{model}");
        }
    }
    let (bench, calls) = (Bench::with_rows(2), server.count());
    for model in ["groq.m?web_search=true", "vllm.m?web_search=true"] {
        run(&bench, &server, &format!("-m {model}")).expect(2).says("takes no web_search");
    }
    run(&bench, &server, "-m m?web_search=perhaps").expect(2).says("expected on or off");
    assert_eq!(server.count(), calls);
}

#[test]
fn paused_search_is_no_answer() {
    let server = Server::start(|call| {
        match call.nth {
        1 => Reply::body(
            json!({"type": "message", "model": "mock-model-1", "stop_reason": "pause_turn", "content": [
                {"type": "text", "text": "I will look this up."},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}]})
            .to_string(),
        ),
        _ => Reply::Answer(answer_to(&call.prompt)),
    }
    });
    let mut bench = Bench::with_rows(1);
    bench.set("ANTHROPIC_API_KEY", CANARY);
    run(&bench, &server, "-m anthropic.m?web_search=true").expect(0);
    bench.assert_answers(1);
    let message = bench.lines("tel.jsonl")[0]["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("pause_turn"), "{message}");
    assert_eq!(server.count(), 2);
}

#[test]
fn misspelt_provider_is_never_another() {
    let mut bench = Bench::with_rows(1);
    bench.set("OPENAI_API_KEY", CANARY);
    let ask = "run in.jsonl -o out.jsonl --id-field id -p {{text}} --dry-run -m";
    for (model, meant) in [
        ("antropic.claude-x", "did you mean anthropic.claude-x?"),
        ("openroutr/meta/llama", "did you mean openrouter.meta/llama?"),
        ("opnai.gpt-5", "did you mean openai.gpt-5?"),
        ("somebody.model", "is no provider"),
    ] {
        bench.run(&format!("{ask} {model}")).expect(2).says(meant);
    }
    bench.run(&format!("{ask} gpt-4.1")).expect(0);
    bench.run(&format!("{ask} antropic.x --base-url http://127.0.0.1:9/v1")).expect(0);
}

#[test]
fn guessed_options_get_a_hint() {
    let bench = Bench::with_rows(1);
    for (option, hint) in [
        ("--api-key sk-canary", "--api-key-file"),
        ("--workers 3", "-c N"),
        ("--prompt-file p.txt", "--template FILE"),
        ("--system s.txt", "--instruction FILE"),
        ("--verbose", "--telemetry-output FILE"),
        ("--sql x", "select them first"),
    ] {
        let ended = bench.run(&format!("run in.jsonl -o out.jsonl -p {{{{text}}}} -m m {option}"));
        let ended = ended.expect(2).says(hint);
        assert!(!ended.stderr.contains("sk-canary"), "{}", ended.stderr);
    }
}
