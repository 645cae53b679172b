//! Config files: where they are found, what wins over what, whose they may be, where keys come from.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use serde_json::{Value, json};

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, CANARY, Ended, rows, words};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}}";

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("in.jsonl", rows(3));
    bench
}

/// What a dry run shows of the first request.
fn shown(bench: &Bench, options: &str) -> Value {
    let ended = bench.run(&format!("{ASK} --dry-run {options}")).expect(0);
    let mut values = serde_json::Deserializer::from_str(&ended.stdout).into_iter::<Value>();
    values.next().unwrap().unwrap()
}

fn model(bench: &Bench, options: &str) -> String {
    shown(bench, options)["body"]["model"].as_str().unwrap().to_owned()
}

fn url(bench: &Bench, options: &str) -> String {
    shown(bench, options)["url"].as_str().unwrap().to_owned()
}

const USER: &str = ".config/rowmill/rowmill.toml";

#[test]
fn the_example_is_one_and_is_in_the_documentation() {
    let root = env!("CARGO_MANIFEST_DIR");
    let example = fs::read_to_string(format!("{root}/fixtures/rowmill.toml")).unwrap();
    let documentation = fs::read_to_string(format!("{root}/docs/config.md")).unwrap();
    assert!(documentation.contains(&example), "docs/config.md has another fixtures/rowmill.toml");
    let bench = bench();
    bench.write("rowmill.toml", &example);
    assert_eq!(model(&bench, ""), "Qwen/Qwen3-8B");
    assert_eq!(url(&bench, ""), "http://gpu-1.example:8000/v1/chat/completions");
    let work = shown(&bench, "-m work");
    assert_eq!(work["url"], "https://api.openai.com/v1/responses");
    assert_eq!(work["body"]["service_tier"], "flex");
    assert_eq!(url(&bench, "-m anthropic.m"), "https://api.anthropic.com/v1/messages");
    assert_eq!(model(&bench, "-m small"), "qwen3:0.6b");
    assert_eq!(url(&bench, "-m gateway.m"), "https://llm.example.com/v1/chat/completions");
}

#[test]
fn every_key_is_documented() {
    let root = env!("CARGO_MANIFEST_DIR");
    let documentation = fs::read_to_string(format!("{root}/docs/config.md")).unwrap();
    for (table, above) in
        [("", ""), ("[defaults]", ""), ("[endpoint.x]", "endpoint."), ("[price.x]", "price.")]
    {
        let bench = bench();
        bench.write("rowmill.toml", format!("{table}\nno_such_key = 1\n"));
        let ended = bench.run(ASK).expect(2).says("rowmill.toml:2: unknown field `no_such_key`");
        let known = ended.stderr.split("expected one of ").nth(1).unwrap();
        let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
        assert!(known.len() >= 3, "{known:?}");
        for key in known {
            let row = format!("| `{key}`");
            assert!(documentation.contains(&row), "docs/config.md has no row for {above}{key}");
        }
    }
}

#[test]
fn what_cannot_be_meant_is_told_with_its_line() {
    let bench = bench();
    for (text, line, says) in [
        ("model = \"m\"\nmodel = \"n\"\n", 2, "duplicate key"),
        ("\nmodel = \"m", 2, "invalid"),
        ("model = 7", 1, "expected a string"),
        ("model = \" \"", 1, "model is empty"),
        ("[pools]\nx = 1", 1, "unknown field `pools`"),
        ("[defaults]\ntimeout = \"soon\"", 2, "expected seconds like 30"),
        ("[defaults]\ntimeout = 0", 2, "more than nothing"),
        ("[defaults]\nconcurrency = 0", 2, "1 to 1000000"),
        ("[defaults]\nretries = -1", 2, "expected u32"),
        ("[endpoint.x]\n\n", 1, "no base_url"),
        ("[endpoint.local]\nbase_url = \"http://h\"", 1, "a model of rowmill's own"),
        ("[endpoint.\"a.b\"]\nbase_url = \"http://h\"", 1, "no name of an endpoint"),
        ("[endpoint.x]\nbase_url = \"http://u:geheim@h/v1\"", 2, "does not belong in it"),
        ("[endpoint.x]\nprovider = \"opnai\"", 2, "there are openai,"),
        ("[endpoint.anthropic]\nprotocol = \"chat\"", 2, "it speaks messages"),
        ("[endpoint.ollama]\nmodel = \"m?seed=1\"", 2, "in the table `parameters`"),
        ("[endpoint.ollama]\nkey_env = \"sk-geheim\"", 2, "does not belong into a config file"),
        ("[endpoint.ollama]\nkey_env = \"A\"\nkey_file = \"b\"", 1, "in one place"),
        ("[endpoint.ollama]\nkey_command = []", 2, "key_command is empty"),
        ("[endpoint.ollama]\nkey_command = 5", 2, "expected a command"),
        ("[endpoint.ollama.parameters]\n\ntempo = 1", 3, "no parameter of a model"),
        ("[endpoint.ollama.parameters]\ntemperature = \"hot\"", 2, "expected a number"),
        ("[endpoint.ollama.parameters]\ntemperature = inf", 2, "expected a number"),
        ("[endpoint.ollama.parameters]\ntemp = 1\ntemperature = 2", 3, "twice"),
    ] {
        bench.write("rowmill.toml", text);
        let ended = bench.run(ASK).expect(2).says(&format!("rowmill.toml:{line}: "));
        assert!(ended.stderr.contains(says), "{text:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("geheim"), "{}", ended.stderr);
        assert!(!bench.exists("out.jsonl.rowmill"), "{text}");
    }
    bench.write("rowmill.toml", [0xff, 0xfe]);
    bench.run(ASK).expect(2).says("UTF-8");
    // Whoever wants none is not bothered by it.
    bench.run(&format!("{ASK} -m passthrough --no-config")).expect(0);
    bench.run(&format!("{ASK} --config none.toml")).expect(66).says("none.toml");
    bench.run(&format!("{ASK} --config none.toml --no-config")).expect(2);
}

#[test]
fn the_model_is_that_of_the_option_the_environment_the_work_tree_or_the_user() {
    let mut bench = bench();
    bench.run(ASK).expect(2).says("no model is named").says("ROWMILL_MODEL");
    bench.write(USER, "model = \"of-user\"");
    assert_eq!(model(&bench, ""), "of-user");
    bench.write("rowmill.toml", "model = \"of-project\"");
    assert_eq!(model(&bench, ""), "of-project");
    assert_eq!(model(&bench, &format!("--config {USER}")), "of-user");
    bench.set("ROWMILL_CONFIG", USER);
    assert_eq!(model(&bench, ""), "of-user", "it names the only one");
    assert_eq!(model(&bench, "--config rowmill.toml"), "of-project");
    bench.set("ROWMILL_CONFIG", "");
    bench.set("ROWMILL_MODEL", "of-environment");
    assert_eq!(model(&bench, ""), "of-environment");
    assert_eq!(model(&bench, "-m of-option"), "of-option");
    bench.set("ROWMILL_MODEL", "");
    bench.run(&format!("{ASK} --no-config")).expect(2).says("no model is named");
    bench.set("XDG_CONFIG_HOME", bench.path("elsewhere").to_str().unwrap());
    bench.write("elsewhere/rowmill/rowmill.toml", "[endpoint.here]\nbase_url = \"http://h\"");
    assert_eq!(url(&bench, "-m here.m"), "http://h/chat/completions");
}

#[test]
fn the_place_is_that_of_the_option_the_environment_the_work_tree_the_user_or_the_provider() {
    let mut bench = bench();
    let place = |bench: &Bench, options: &str| {
        let url = url(bench, &format!("-m openai.m {options}"));
        url.strip_suffix("/chat/completions").unwrap().to_owned()
    };
    assert_eq!(place(&bench, ""), "https://api.openai.com/v1");
    bench.write(USER, "[endpoint.openai]\nbase_url = \"http://user\"\nprotocol = \"responses\"");
    assert_eq!(url(&bench, "-m openai.m"), "http://user/responses");
    bench.write("rowmill.toml", "[endpoint.openai]\nbase_url = \"http://project\"");
    assert_eq!(place(&bench, ""), "http://project", "an endpoint is one file's, not mixed");
    bench.set("OPENAI_BASE_URL", "http://environment");
    assert_eq!(place(&bench, ""), "http://environment");
    assert_eq!(place(&bench, "--base-url http://option"), "http://option");
    // Another endpoint is not the provider, though it has its defaults.
    let other = "[endpoint.other]\nprovider = \"openai\"\n";
    bench.write("rowmill.toml", format!("{other}base_url = \"http://other\""));
    assert_eq!(url(&bench, "-m other.m"), "http://other/chat/completions");
    bench.write("rowmill.toml", other);
    assert_eq!(url(&bench, "-m other.m"), "http://environment/chat/completions");
}

#[test]
fn parameters_of_an_endpoint_are_those_that_nothing_else_says() {
    let bench = bench();
    bench.write(
        "rowmill.toml",
        "[endpoint.e]\nprovider = \"vllm\"\n[endpoint.e.parameters]\n\
         temperature = 0.5\nmax_tokens = 9\nreasoning = \"low\"\ntransport = \"sse\"\n",
    );
    let body = |options: &str| shown(&bench, options)["body"].clone();
    let all = body("-m e.m");
    assert_eq!((&all["temperature"], &all["max_tokens"]), (&json!(0.5), &json!(9)));
    assert_eq!((&all["reasoning_effort"], &all["stream"]), (&json!("low"), &json!(true)));
    let named =
        body("-m e.m?temperature=1&transport=http --max-tokens 8 --param reasoning_effort=1");
    assert_eq!((&named["temperature"], &named["max_tokens"]), (&json!(1), &json!(8)));
    assert_eq!((&named["reasoning_effort"], &named["stream"]), (&json!(1), &Value::Null));
    bench
        .run(&format!("{ASK} -m e.m?transport=http --protocol embeddings"))
        .expect(2)
        .says("takes no max_tokens");
    bench.run(&format!("{ASK} -m e")).expect(2).says("the endpoint e has no model of its own");
}

#[test]
fn limits_are_those_of_the_option_the_endpoint_or_all() {
    let bench = bench();
    bench.write("in.jsonl", rows(12));
    let peak = |options: &str, expected: usize| {
        let server = Server::start(|call| Reply::Hold(answer_to(&call.prompt)));
        let url = server.url();
        let line = format!("{ASK} --base-url {url} --overwrite {options}");
        let running = bench.start(&line);
        server.wait_for_active(expected);
        server.release();
        let ended = running.wait();
        assert_eq!((ended.code, server.peak()), (0, expected), "{options}: {}", ended.stderr);
    };
    bench.write(USER, "[defaults]\nconcurrency = 2\nretries = 0");
    peak("-m m", 2);
    let endpoint = "[endpoint.e]\nprovider = \"vllm\"\nconcurrency = 4\n";
    bench.write("rowmill.toml", format!("[defaults]\nconcurrency = 3\n{endpoint}"));
    peak("-m m", 3);
    peak("-m e.m", 4);
    peak("-m e.m -c 5", 5);
    // Of what the nearer file does not say, the other's is in force.
    let server = Server::start(|_| Reply::body("{}"));
    let options = format!("-m e.m --base-url {} --overwrite", server.url());
    bench.run(&format!("{ASK} {options}")).expect(3);
    assert_eq!(server.count(), 12);
}

#[test]
fn a_file_is_looked_for_up_to_the_root_of_the_work_tree() {
    let bench = bench();
    bench.write("rowmill.toml", "model = \"above\"");
    fs::create_dir_all(bench.path("tree/sub/dir")).unwrap();
    let run = |dir: &str| {
        let input = bench.path("in.jsonl");
        let line = format!("run {} -o o --dry-run -p {{{{text}}}}", input.display());
        let output = bench.command(words(&line)).current_dir(bench.path(dir)).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run("tree/sub/dir").0, Some(2), "above it is not looked where there is no tree");
    bench.write("tree/.git", "gitdir: elsewhere");
    assert_eq!(run("tree/sub/dir").0, Some(2), "nor beyond a tree's root");
    bench.write("tree/rowmill.toml", "model = \"of-root\"");
    assert!(run("tree/sub/dir").1.contains("of-root"));
    bench.write("tree/sub/rowmill.toml", "model = \"nearer\"");
    assert!(run("tree/sub/dir").1.contains("nearer"));
}

#[test]
fn a_file_that_others_can_write_is_not_read() {
    let bench = bench();
    let path = bench.write("rowmill.toml", "model = \"passthrough\"");
    let mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    let ask = format!("{ASK} --dry-run");
    mode(0o646);
    bench.run(&ask).expect(2).says("everybody can write").says("--no-config");
    // Who names it trusts it, but for what it runs.
    bench.run(&format!("{ask} --config rowmill.toml")).expect(0);
    let command = "[endpoint.e]\nprovider = \"vllm\"\nkey_command = \"touch ran; echo k\"\n";
    bench.write("rowmill.toml", format!("model = \"e.m\"\n{command}"));
    bench.run(&format!("{ASK} --config rowmill.toml")).expect(2).says("everybody can write");
    assert!(!bench.exists("ran"));
    mode(0o664);
    bench.run(&ask).expect(0);
    for open in [0o777, 0o1777] {
        fs::set_permissions(bench.root(), Permissions::from_mode(open)).unwrap();
        bench.run(&ask).expect(2).says("in a directory that everybody can write");
    }
    fs::set_permissions(bench.root(), Permissions::from_mode(0o755)).unwrap();
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can give files away");
    }
    chown(&path, None, Some(12345)).unwrap();
    bench.run(&ask).expect(2).says("another group than yours");
    mode(0o644);
    bench.run(&ask).expect(0);
    chown(&path, Some(12345), None).unwrap();
    bench.run(&ask).expect(2).says("belongs to another user");
    bench.run(&format!("{ASK} --config rowmill.toml")).expect(2).says("belongs to another user");
    chown(&path, Some(0), None).unwrap();
    chown(bench.root(), Some(12345), None).unwrap();
    bench.run(&ask).expect(2).says("in a directory of another user");
    chown(bench.root(), Some(0), None).unwrap();
    bench.run(&ask).expect(0);
    // A broken one of somebody else's is not even looked into.
    bench.write("rowmill.toml", "geheim = ");
    chown(&path, Some(12345), None).unwrap();
    let ended = bench.run(&ask).expect(2).says("belongs to another user");
    assert!(!ended.stderr.contains("geheim"), "{}", ended.stderr);
}

/// Runs a job over all rows, and gives how it ended and the headers of the first call.
fn headers(bench: &Bench, options: &str) -> (Ended, Option<String>) {
    let server = Server::echo();
    let line = format!("{ASK} --base-url {} --overwrite {options}", server.url());
    let ended = bench.run(&line);
    let key = server.calls().first().map(|call| {
        call.headers
            .get("authorization")
            .or(call.headers.get("x-api-key"))
            .cloned()
            .unwrap_or_default()
    });
    (ended, key)
}

#[test]
fn a_key_comes_from_a_variable_a_file_or_a_command_and_stays_there() {
    let mut bench = bench();
    bench.set("OPENAI_API_KEY", "sk-of-openai");
    bench.set("THE_KEY", CANARY);
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("key");
    fs::write(&file, format!("{CANARY}\n")).unwrap();
    let file = file.display();
    for source in [
        "key_env = \"THE_KEY\"".to_owned(),
        format!("key_file = \"{file}\""),
        "key_command = \"echo x >>ran; printenv THE_KEY\"".to_owned(),
        "key_command = [\"printenv\", \"THE_KEY\"]".to_owned(),
    ] {
        bench.write("rowmill.toml", format!("[endpoint.gate]\nprovider = \"openai\"\n{source}"));
        let (ended, key) = headers(&bench, "-m gate.m --log-file log.jsonl");
        ended.expect(0);
        assert_eq!(key, Some(format!("Bearer {CANARY}")), "{source}");
        // An option goes before it.
        bench.write("other.key", "another");
        let (ended, key) = headers(&bench, "-m gate.m --api-key-file other.key");
        ended.expect(0);
        assert_eq!(key.as_deref(), Some("Bearer another"), "{source}");
    }
    assert_eq!(bench.read("ran"), "x\n", "a command is run once, and where no option is given");
    let note = &bench.lines("log.jsonl")[1];
    assert!(note["message"].as_str().unwrap().contains("rowmill.toml"), "{note}");
    // Paths and commands are those of the config file's directory, or of home.
    bench.write("sub/rowmill.toml", "[endpoint.gate]\nprovider = \"openai\"\nkey_file = \"k\"");
    bench.write("sub/k", "beside-it");
    let options = "-m gate.m --config sub/rowmill.toml";
    assert_eq!(headers(&bench, options).1.as_deref(), Some("Bearer beside-it"));
    bench.write(
        "sub/rowmill.toml",
        "[endpoint.gate]\nprovider = \"openai\"\nkey_file = \"~/other.key\"",
    );
    assert_eq!(headers(&bench, options).1.as_deref(), Some("Bearer another"));
    bench.write(
        "sub/rowmill.toml",
        "[endpoint.gate]\nprovider = \"openai\"\nkey_command = \"cat k\"",
    );
    assert_eq!(headers(&bench, options).1.as_deref(), Some("Bearer beside-it"));
}

#[test]
fn a_key_goes_to_whom_it_belongs() {
    let mut bench = bench();
    bench.set("OPENAI_API_KEY", "sk-of-openai");
    bench.set("THE_KEY", CANARY);
    let key = |bench: &Bench, table: &str, model: &str| {
        bench.write("rowmill.toml", table);
        let (ended, key) = headers(bench, &format!("-m {model}"));
        ended.expect(0);
        key.unwrap()
    };
    let of_openai = "Bearer sk-of-openai";
    // The environment goes before a file, for an endpoint in the provider's place.
    let table = "[endpoint.openai]\nkey_env = \"THE_KEY\"";
    assert_eq!(key(&bench, table, "openai.m"), of_openai);
    let table = "[endpoint.other]\nprovider = \"openai\"";
    assert_eq!(key(&bench, table, "other.m"), of_openai, "it has the provider's defaults");
    let table = "[endpoint.other]\nbase_url = \"http://h\"";
    assert_eq!(key(&bench, table, "other.m"), "", "nobody's key is for everybody");
}

#[test]
fn a_key_that_is_not_there_is_told_before_anything_is_done() {
    let bench = bench();
    for (source, code, says) in [
        ("key_env = \"NOT_SET\"", 77, "set NOT_SET"),
        ("key_command = \"echo geheim; exit 3\"", 77, "exit status: 3"),
        ("key_command = [\"no-such-program\"]", 77, "cannot be run"),
        ("key_command = \"true\"", 77, "printed nothing"),
        ("key_file = \"none\"", 66, "none"),
        ("key_file = \"/dev/null\"", 2, "holds no key"),
    ] {
        bench.write("rowmill.toml", format!("[endpoint.e]\nprovider = \"vllm\"\n{source}"));
        let (ended, key) = headers(&bench, "-m e.m");
        let ended = ended.expect(code).says(says);
        assert!(key.is_none() && !ended.stderr.contains("geheim"), "{}", ended.stderr);
        assert!(!bench.exists("out.jsonl.rowmill"), "{source}");
        // Without a call no key is needed, and no command is run.
        shown(&bench, "-m e.m");
        bench.run("plan in.jsonl --work-dir job -m e.m --overwrite").expect(0);
    }
}

#[test]
fn an_endpoint_by_its_name_is_asked_in_its_protocol() {
    let mut bench = bench();
    bench.set("THE_KEY", CANARY);
    for (protocol, path, header, key) in [
        ("chat", "/v1/chat/completions", "authorization", format!("Bearer {CANARY}")),
        ("responses", "/v1/responses", "authorization", format!("Bearer {CANARY}")),
        ("messages", "/v1/messages", "x-api-key", CANARY.to_owned()),
        ("embeddings", "/v1/embeddings", "authorization", format!("Bearer {CANARY}")),
    ] {
        let server = Server::start(move |call| match protocol {
            "embeddings" => Reply::Answer("[1]".to_owned()),
            _ => Reply::Answer(answer_to(&call.prompt)),
        });
        let url = server.url();
        bench.write(
            "rowmill.toml",
            format!(
                "model = \"gate\"\n[endpoint.gate]\nbase_url = \"{url}\"\nprotocol = \"{protocol}\"\n\
                 key_env = \"THE_KEY\"\nmodel = \"org/model:tag\"\n"
            ),
        );
        for options in ["", "-m gate", "-m gate.org/model:tag", "-m gate/org/model:tag"] {
            let before = server.count();
            let ended = bench.run(&format!("{ASK} --overwrite {options}")).expect(0);
            assert_eq!(ended.summary()["protocol"].as_str().unwrap_or("chat"), protocol);
            let call = &server.calls()[before];
            assert_eq!((&*call.path, &call.body["model"]), (path, &json!("org/model:tag")));
            assert_eq!(call.headers[header], key);
        }
    }
}

#[test]
fn a_plan_finds_its_endpoint_again_or_says_what_is_missing() {
    let (mut bench, server) = (bench(), Server::echo());
    bench.set("THE_KEY", CANARY);
    let url = server.url();
    let config =
        format!("[endpoint.gate]\nbase_url = \"{url}\"\nkey_env = \"THE_KEY\"\nconcurrency = 1");
    bench.write("rowmill.toml", &config);
    bench.run("plan in.jsonl --work-dir job --id-field id -p {{text}} -m gate.m").expect(0);
    assert_eq!(bench.json("job/manifest.json")["manifest"]["provider"], "gate");
    fs::remove_file(bench.path("rowmill.toml")).unwrap();
    bench
        .run("work --work-dir job")
        .expect(2)
        .says("the endpoint gate (at http")
        .says("[endpoint.gate]");
    assert_eq!(server.count(), 0);
    bench.write("moved.toml", &config);
    bench.run("work --work-dir job --config moved.toml").expect(0).says("moved.toml");
    assert_eq!((server.count(), server.peak()), (3, 1));
    assert!(server.calls().iter().all(|call| call.headers["authorization"].contains(CANARY)));
    bench.run("merge --work-dir job -o out.jsonl").expect(0);
    // Where an answer comes from decides nothing: neither config nor endpoint is part of the question.
    let again = "run in.jsonl -o out.jsonl --id-field id -p {{text}} --work-dir job --resume";
    bench.run(&format!("{again} -m gate.m --config moved.toml")).expect(0);
    bench.run(&format!("{again} -m m --base-url {url} --no-config")).expect(0);
    assert_eq!(server.count(), 3);
    // What a config file says of the question does.
    bench.write("moved.toml", format!("{config}\nparameters = {{ temperature = 0 }}"));
    bench.run(&format!("{again} -m gate.m --config moved.toml")).expect(78).says("temperature");
    bench.run(&format!("{again} -m gate.m?temperature=1 --config moved.toml")).expect(78);
}

#[test]
fn outputs_and_logs_are_not_the_config_file() {
    let bench = bench();
    bench.write("rowmill.toml", "model = \"passthrough\"");
    let ask = "run in.jsonl --overwrite";
    for options in ["-o rowmill.toml", "-o o.jsonl --log-file rowmill.toml"] {
        let ended = bench.run(&format!("{ask} {options}"));
        assert!([2, 73].contains(&ended.code), "{ended:?}");
        assert_eq!(bench.read("rowmill.toml"), "model = \"passthrough\"");
    }
}
