//! `rowmill files …`, as their users type them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use crate::support::{Bench, Ended, assert_same};

/// A request of the `openai` dialect.
fn request(id: &str, model: &str) -> String {
    format!(
        "{{\"custom_id\":{id:?},\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\
         \"body\":{{ \"model\":{model:?}, \"top_p\":0.50,\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]}}}}\n"
    )
}

/// A line of a results file.
fn answered(id: &str, text: &str) -> String {
    let body = json!({"id": format!("c-{id}-{}", text.len()), "choices": [{"message": {"content": text}}]});
    let response = json!({"status_code": 200, "request_id": "req", "body": body});
    format!("{}\n", json!({"id": "b", "custom_id": id, "response": response, "error": null}))
}

fn failed(id: &str) -> String {
    let error = json!({"code": "batch_expired", "message": "too late"});
    format!("{}\n", json!({"id": "b", "custom_id": id, "response": null, "error": error}))
}

fn only_json(ended: &Ended) -> Value {
    serde_json::from_str(ended.stdout.trim()).unwrap_or_else(|_| panic!("{ended:?}"))
}

#[test]
fn every_bad_line_is_named_with_its_reason() {
    let bench = Bench::new();
    let good = request("a", "m");
    let lines = [
        good.clone(),
        "\n  \r\n".to_owned(),
        "nonsense\n".to_owned(),
        request("b", "m").replace("POST", "PUT"),
        "{\"custom_id\":\"c\"}\n".to_owned(),
        request("d", "m").replace("/v1/chat", "/v1/chats"),
        "\u{1}\n".to_owned(),
        good.replace("\"m\"", "\"other\"").replace('\n', "\r\n"),
        request("e", "m").trim_end().to_owned(),
    ];
    let mut bytes = lines.concat().into_bytes();
    let at = bytes.iter().position(|byte| *byte == 1).unwrap();
    bytes[at] = 0xff;
    bench.write("batch.jsonl", &bytes);
    let before = bench.snapshot();
    let ended = bench.run("files validate batch.jsonl").expect(65).says("nothing was changed");
    let expected = [
        "batch.jsonl: not fine for rowmill: 8 lines of the dialect openai, ",
        "  line 4: not JSON: expected ident at column 2",
        "  line 5: method is \"PUT\", not \"POST\"",
        "  line 6: body is missing",
        "  line 7: url \"/v1/chats/completions\" is none of rowmill's: /v1/chat/completions, ",
        "  line 8: byte 1 of the line is not UTF-8",
        "  line 9: has the id \"a\" of line 1",
        "  error: 5 of 8 lines are bad",
        "  error: 1 line with the id of an earlier line",
    ];
    assert_eq!(ended.stdout.lines().count(), expected.len(), "{}", ended.stdout);
    for (line, expected) in ended.stdout.lines().zip(expected) {
        assert!(line.starts_with(expected), "{line:?} is not {expected:?}");
    }
    let ended = bench.run("files validate batch.jsonl --limit 2").expect(65);
    assert!(ended.stdout.contains("  … and 3 more bad lines (--limit all"), "{}", ended.stdout);
    let report = only_json(&bench.run("files validate batch.jsonl --json").expect(65));
    assert_eq!((&report["bad_lines"], &report["ok"]), (&json!(5), &json!(false)));
    assert_eq!(
        report["problems"][1],
        json!({"line": 5, "code": "invalid_method", "message": "method is \"PUT\", not \"POST\""})
    );
    assert_eq!(report["duplicate_lines"], json!([{"line": 9, "first_line": 1, "id": "a"}]));
    assert_same(&bench.snapshot(), &before);
}

#[test]
fn servers_have_rules_of_their_own() {
    let bench = Bench::new();
    let codes = |args: &str, code: i32| {
        let report = only_json(&bench.run(&format!("files validate --json {args}")).expect(code));
        let findings = report["findings"].as_array().unwrap().iter();
        let mut codes: Vec<_> =
            findings.map(|it| it["code"].as_str().unwrap().to_owned()).collect();
        let problems = report["problems"].as_array().unwrap().iter();
        codes.extend(problems.map(|it| it["code"].as_str().unwrap().to_owned()));
        codes.join(" ")
    };
    bench.write("two.jsonl", request("a", "m") + &request("b", "n"));
    assert_eq!(codes("two.jsonl", 0), "");
    assert_eq!(codes("two.jsonl --for openai", 65), "model_mismatch");
    assert_eq!(codes("two.jsonl --for doubleword", 0), "");
    bench.write("twice.jsonl", request("a", "m") + &request("a", "m"));
    assert_eq!(codes("twice.jsonl --for vllm", 0), "duplicate_custom_id", "a warning");
    assert_eq!(codes("twice.jsonl --for openai", 65), "duplicate_custom_id");
    assert_eq!(codes("two.jsonl --for dria", 65), "wrong_dialect missing_field missing_field");

    let stream = request("a", "m").replace("\"top_p\":0.50", "\"stream\":true");
    bench.write("stream.jsonl", stream);
    assert_eq!(codes("stream.jsonl --for openai", 0), "stream", "a warning");
    for server in ["rowmill", "vllm", "fastdeploy"] {
        assert_eq!(codes(&format!("stream.jsonl --for {server}"), 65), "stream");
    }
    bench.write("nameless.jsonl", request("a", "m").replace("\"model\":\"m\", ", ""));
    assert_eq!(codes("nameless.jsonl", 65), "missing_field");
    assert_eq!(codes("nameless.jsonl -m other", 0), "");
    assert_eq!(codes("nameless.jsonl --for vllm", 0), "");
    bench.write("empty.jsonl", "");
    assert_eq!(codes("empty.jsonl", 0), "empty_file");
    assert_eq!(codes("empty.jsonl --for openai", 65), "empty_file");
    bench.write("results.jsonl", answered("a", "x"));
    assert_eq!(codes("results.jsonl", 0), "not_requests", "they are rows as well");
    assert!(codes("results.jsonl --for openai", 65).starts_with("not_requests missing_field"));
    let row = "{\"text\":\"x\"}\n";
    bench.write("torn.jsonl", request("a", "m") + row);
    assert_eq!(codes("torn.jsonl", 65), "missing_field");
    bench.write("mixed.jsonl", row.to_owned() + &request("a", "m"));
    assert_eq!(codes("mixed.jsonl", 65), "mixed_dialects");
    bench.write("marked.jsonl", format!("\u{feff}{}", request("a", "m")));
    assert_eq!(codes("marked.jsonl", 0), "byte_order_mark");
    assert_eq!(codes("marked.jsonl --for openai", 65), "byte_order_mark");
    bench.write("rows.jsonl", "{\"id\":1}\n{\"id\":1}\n");
    assert_eq!(codes("rows.jsonl", 0), "duplicate_custom_id", "ids of rows are named at the run");
    bench.write(
        "prompts.jsonl",
        "{\"id\":1,\"prompt\":\"x\"}\n{\"id\":1,\"prompt\":\"x\"}\n{\"prompt\":\"x\"}",
    );
    assert_eq!(codes("prompts.jsonl --for dria", 65), "duplicate_custom_id");
    assert_eq!(codes("rows.jsonl --dialect prompts", 65), "missing_field missing_field");
}

#[test]
fn limits_of_openais_files_are_known() {
    let bench = Bench::new();
    let lines: String = (0..50_001).map(|n| format!(
        "{{\"custom_id\":\"{n}\",\"method\":\"POST\",\"url\":\"/v1/embeddings\",\"body\":{{\"model\":\"m\",\"input\":[\"a\",\"b\"]}}}}\n"
    )).collect();
    bench.write("many.jsonl", lines);
    let ended = bench.run("files validate many.jsonl --for openai").expect(65);
    assert!(ended.stdout.contains("50001 requests, and OpenAI takes 50000 a file"), "{ended:?}");
    assert!(ended.stdout.contains("100002 inputs of embeddings, and OpenAI takes 50000"));
    bench.run("files validate many.jsonl --for vllm").expect(0);
    let parts = bench.run("files split many.jsonl -o parts").expect(0);
    assert_eq!(parts.stdout.lines().count(), 2, "as many as OpenAI takes by default");
    assert!(parts.stdout.starts_with("parts/many-001.jsonl: 50000 lines, "), "{}", parts.stdout);
}

#[test]
fn directories_pipes_and_what_is_no_json_lines() {
    let bench = Bench::new();
    bench.write("dir/b.jsonl", request("b", "m"));
    bench.write("dir/a.jsonl", request("a", "m"));
    bench.write("dir/.c.jsonl.staged", "x");
    bench.write("dir/.d.jsonl", "x");
    bench.write("dir/notes.txt", "x");
    let ended = bench.run("files stats dir --json").expect(0);
    let names: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["file"].clone())
        .collect();
    assert_eq!(names, ["dir/a.jsonl", "dir/b.jsonl"]);
    let ended = bench.pipe("files validate - --json", request("a", "m").repeat(2).as_bytes());
    let twins = json!([{"line": 2, "first_line": 1, "id": null}]);
    assert_eq!(only_json(&ended.expect(65))["duplicate_lines"], twins);
    bench.write("a.csv", "id,text\n1,x\n");
    bench.write("a.jsonl.gz", b"\x1f\x8b\x08\x00");
    fs::create_dir(bench.path("none")).unwrap();
    bench.run("files stats a.csv").expect(65).says("is CSV, and the file tools take JSON Lines");
    bench.run("files stats a.jsonl.gz").expect(65).says("looks like gzip");
    bench.run("files stats none").expect(65).says("without .jsonl files");
    let mut lost = Bench::new();
    lost.set("TMPDIR", "/nowhere");
    lost.write("a.jsonl", request("a", "m"));
    lost.run("files validate a.jsonl").expect(73).says("another temporary directory with TMPDIR");
    bench.run("files stats gone.jsonl").expect(66).says("cannot read gone.jsonl");
    bench.run("files stats - -").expect(2).says("once only");
    bench.run("files sample dir -n 1").expect(2).says("one is wanted");
    bench.run("files prepare dir -m x").expect(2).says("--in-place");
    bench.run("files prepare dir/a.jsonl").expect(2).says("nothing to change");
}

#[test]
fn stats_count_by_model_and_url() {
    let bench = Bench::new();
    let image = format!("data:image/png;base64,{}", "A".repeat(40_000));
    let with_image = request("b", "n").replace("Hi", &image);
    let lines = [request("a", "m"), with_image, "torn".to_owned()].concat();
    bench.write("a.jsonl", &lines);
    let stats = only_json(&bench.run("files stats a.jsonl --json").expect(0));
    assert_eq!((&stats["lines"], &stats["parse_errors"]), (&json!(3), &json!(1)));
    assert_eq!(stats["bytes"], json!(lines.len()));
    assert_eq!((&stats["dialect"], &stats["holds"]), (&json!("openai"), &json!("requests")));
    let names: Vec<_> = stats["models"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["m", "n"]);
    let tokens = stats["estimated_input_tokens"].as_u64().unwrap();
    assert!((30..60).contains(&tokens), "an image is no text: {tokens}");
    assert_eq!(stats["urls"][0]["estimated_input_tokens"], json!(tokens));
    let ended = bench.run("files stats a.jsonl").expect(0);
    assert!(ended.stdout.contains("  lines    3, 1 of them bad"), "{}", ended.stdout);
}

#[test]
fn samples_are_the_same_every_time_and_in_order() {
    let bench = Bench::with_rows(1000);
    let take = |args: &str| bench.run(&format!("files sample in.jsonl {args}")).expect(0).stdout;
    let first = take("-n 50");
    assert_eq!(first, take("-n 50"));
    assert_ne!(first, take("-n 50 --seed 1"));
    let numbers = |text: &str| -> Vec<u32> {
        let id = |line| {
            serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap()[1..]
                .parse()
                .unwrap()
        };
        text.lines().map(id).collect()
    };
    let taken = numbers(&first);
    assert!(taken.len() == 50 && taken.is_sorted() && taken[49] > 800, "{taken:?}");
    assert_eq!(take("-n 5000"), bench.read("in.jsonl"));
    assert_eq!(take("-n 0"), "");
    // Each line is taken about as often as any other: 200 times 1 of 10.
    let mut often = BTreeMap::new();
    bench.write("ten.jsonl", crate::support::rows(10));
    for seed in 0..100 {
        let taken = bench.run(&format!("files sample ten.jsonl -n 2 --seed {seed}")).expect(0);
        for number in numbers(&taken.stdout) {
            *often.entry(number).or_insert(0) += 1;
        }
    }
    assert!(often.len() == 10 && often.values().all(|count| (5..45).contains(count)), "{often:?}");
    bench
        .run("files sample in.jsonl -n 3 -o some.jsonl")
        .expect(0)
        .says("some.jsonl: 3 of 1000 lines");
    let before = bench.snapshot();
    bench.run("files sample in.jsonl -n 4 -o some.jsonl").expect(73).says(
        "some.jsonl is there already · nothing was changed · replace it: rowmill files sample",
    );
    assert_same(&bench.snapshot(), &before);
    bench.run("files sample in.jsonl -n 4 -o some.jsonl --overwrite").expect(0);
    assert_eq!(bench.lines("some.jsonl").len(), 4);
    bench.run("files sample in.jsonl -n 4 -o nowhere/some.jsonl").expect(73);
}

#[test]
fn parts_hold_every_byte_of_every_line() {
    let bench = Bench::new();
    // More models than parts are open at once.
    let lines: Vec<_> =
        (0..400).map(|n| request(&format!("r{n}"), &format!("m{}", n * 7 % 100))).collect();
    bench.write("all.jsonl", lines.concat());
    bench.run("files split all.jsonl -o by-model --by-model --lines 3").expect(0);
    let mut seen = BTreeSet::new();
    let names: Vec<_> =
        fs::read_dir(bench.path("by-model")).unwrap().map(|it| it.unwrap()).collect();
    assert_eq!(names.len(), 200, "a full one and a rest of each model");
    for name in names {
        let text = fs::read_to_string(name.path()).unwrap();
        let models: BTreeSet<_> = text.lines().map(|line| line.split('"').nth(17)).collect();
        assert_eq!(models.len(), 1, "{models:?}");
        assert!(text.lines().count() <= 3);
        seen.extend(text.split_inclusive('\n').map(str::to_owned));
    }
    assert_eq!(seen, lines.iter().cloned().collect());

    let ended = bench.run("files split all.jsonl -o by-size --bytes 1KB --json").expect(0);
    let mut joined = String::new();
    for line in ended.stdout.lines() {
        let part: Value = serde_json::from_str(line).unwrap();
        let text = bench.read(part["file"].as_str().unwrap());
        assert!(text.len() <= 1000 && part["bytes"] == json!(text.len()), "{part}");
        joined += &text;
    }
    assert_eq!(joined, lines.concat(), "in their order");

    let before = bench.snapshot();
    bench
        .run("files split all.jsonl -o by-size --bytes 1KB")
        .expect(73)
        .says("by-size/all-001.jsonl is there already");
    bench
        .run("files split all.jsonl -o new --bytes 100")
        .expect(65)
        .says("line 1 of all.jsonl: it has ");
    bench.run("files split all.jsonl -o by-model/x/y --bytes 100").expect(65);
    fs::remove_dir(bench.path("by-model/x")).unwrap();
    assert_same(&bench.snapshot(), &before);
    bench.write("rows.jsonl", "{\"a\":1}\n");
    bench.run("files split rows.jsonl --by-model").expect(65).says("which name no model");
    bench
        .run("files split all.jsonl -o by-size --lines 399 --overwrite")
        .expect(0)
        .says("warning: by-size/all-003.jsonl is a part of an earlier split");
    let ended = bench.pipe("files split - --lines 1 -o piped", b"{\"a\":1} \r\n\n{\"b\":2}");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(bench.read("piped/stdin-001.jsonl"), "{\"a\":1} \n");
    assert_eq!(bench.read("piped/stdin-002.jsonl"), "{\"b\":2}\n");
}

#[test]
fn merged_files_keep_their_bytes_and_have_no_id_twice() {
    let bench = Bench::new();
    bench.write("a.jsonl", request("a", "m") + &request("b", "m"));
    bench.write("b.jsonl", request("c", "m").trim_end());
    bench
        .run("files merge a.jsonl b.jsonl -o all.jsonl")
        .expect(0)
        .says("all.jsonl: 3 lines of 2 files");
    assert_eq!(bench.read("all.jsonl"), bench.read("a.jsonl") + &bench.read("b.jsonl") + "\n");
    // Escapes do not hide that it is the same id.
    bench.write("again.jsonl", request("x", "m").replace("\"x\"", r#""\u0062""#));
    let before = bench.snapshot();
    bench
        .run("files merge a.jsonl again.jsonl -o other.jsonl")
        .expect(65)
        .says("again.jsonl:1 and a.jsonl:2 have \"b\"");
    bench.write("rows.jsonl", "{\"id\":\"a\",\"text\":\"x\"}\n");
    bench
        .run("files merge a.jsonl rows.jsonl -o other.jsonl")
        .expect(65)
        .says("a.jsonl holds requests of the dialect openai, and rows.jsonl holds requests of the dialect rows");
    bench.write("torn.jsonl", request("t", "m") + "{\"custom_id\":");
    bench
        .run("files merge torn.jsonl a.jsonl -o other.jsonl")
        .expect(65)
        .says("line 2 of torn.jsonl: not JSON")
        .says("rowmill files validate torn.jsonl");
    for name in ["rows.jsonl", "torn.jsonl"] {
        fs::remove_file(bench.path(name)).unwrap();
    }
    assert_same(&bench.snapshot(), &before);
    let ended = bench.run("files merge a.jsonl again.jsonl --on-duplicate first").expect(0);
    assert_eq!(ended.stdout, bench.read("a.jsonl"));
}

#[test]
fn two_outputs_are_compared_by_what_was_said() {
    let bench = Bench::new();
    let long = "x".repeat(300);
    bench.write(
        "a.jsonl",
        answered("same", "yes")
            + &answered("other", &format!("{long} old"))
            + &answered("lost", "x")
            + &failed("mended")
            + &failed("bad")
            + &answered("gone-1", "x")
            + &answered("gone-2", "x"),
    );
    bench.write(
        "b.jsonl",
        answered("new", "x")
            + &failed("bad")
            + &answered("mended", "x")
            + &failed("lost")
            + &answered("other", &format!("{long} new"))
            + &answered("same", "yes")
            + &answered("same", "no"),
    );
    let ended = bench.run("files diff a.jsonl b.jsonl --show").expect(0);
    let expected = format!(
        "A  a.jsonl: 7 lines, results of the dialect openai; 2 failed\n\
         B  b.jsonl: 7 lines, results of the dialect openai; 2 failed; 1 have an id of before\n\
         the same answer in both: 1\n\
         failed in both: 1\n\
         another answer: 1\n  other\n    - …{0} old\n    + …{0} new\n\
         failed in A only: 1\n  mended\n    - batch_expired: too late\n    + x\n\
         failed in B only: 1\n  lost\n    - x\n    + batch_expired: too late\n\
         in A only: 2\n  gone-1\n  gone-2\n\
         in B only: 1\n  new\n    + x\n",
        "x".repeat(19)
    );
    assert_eq!(ended.stdout, expected);
    let report = only_json(&bench.run("files diff a.jsonl b.jsonl --json --exit-code").expect(3));
    assert_eq!(report["different_ids"], json!(["other"]));
    assert_eq!(report["only_in_a_ids"], json!(["gone-1", "gone-2"]));
    assert_eq!((&report["same"], &report["equal"]), (&json!(1), &json!(false)));
    let ended = bench.run("files diff a.jsonl b.jsonl --limit 1").expect(0);
    assert!(ended.stdout.contains("in A only: 2\n  gone-1\n  … and 1 more"), "{}", ended.stdout);
    // Envelopes can be compared with what a service gave back.
    bench.write(
        "e.jsonl",
        "{\"id\":\"same\",\"row_number\":1,\"ok\":true,\"result\":\"yes\",\"error\":null}\n",
    );
    bench.write("f.jsonl", answered("same", "yes"));
    bench.run("files diff e.jsonl f.jsonl --exit-code").expect(0);
    let piped = bench.pipe("files diff e.jsonl - --exit-code", bench.read("f.jsonl").as_bytes());
    piped.expect(0);
    bench.pipe("files diff - e.jsonl", b"").expect(2).says("must be a file");
    bench.write("in.jsonl", request("a", "m"));
    bench.run("files diff in.jsonl f.jsonl").expect(65).says("only results can be compared");
    bench.write("torn.jsonl", answered("same", "yes") + "{\"custom");
    let ended = bench.run("files diff f.jsonl torn.jsonl --exit-code").expect(3);
    assert!(ended.stdout.contains("; 1 are no results"), "{}", ended.stdout);
}

#[test]
fn prepared_lines_keep_what_is_not_changed() {
    let bench = Bench::new();
    let chat = request("keep-1", "m");
    let newer = request("keep-2", "m").replace("\"top_p\":0.50", "\"max_completion_tokens\":7");
    let response = "{\"url\": \"/v1/responses\",\"custom_id\":\"r\",\"method\":\"POST\",\"body\":{\"model\":\"m\", \"input\":1e2}}\n";
    let embedding = request("e", "m").replace("chat/completions", "embeddings");
    bench.write(
        "a.jsonl",
        [&*chat, &*request("test-1", "m"), &*newer, response, &*embedding].concat(),
    );
    let ended = bench
        .run("files prepare a.jsonl -m new --max-tokens 5 --temperature 0.70 --set body.user=me --set body.a.b=[1,2.0] --remove test-* --add-line '{\"x\": 1}'")
        .expect(0)
        .says("warning: 1 lines ask an endpoint that writes no text");
    let end = ",\"user\":\"me\",\"a\":{\"b\":[1,2.0]}}}";
    let lines: Vec<_> = ended.stdout.lines().collect();
    let of = |line: &str, parameters: &str| {
        let line = line.trim_end().strip_suffix("}}").unwrap().replace("\"m\"", "\"new\"");
        format!("{line}{parameters}{end}")
    };
    assert_eq!(lines[0], of(&chat, ",\"temperature\":0.70,\"max_tokens\":5"));
    assert_eq!(lines[1], of(&newer, ",\"temperature\":0.70").replace(":7,", ":5,"));
    assert_eq!(lines[2], of(response, ",\"temperature\":0.70,\"max_output_tokens\":5"));
    assert_eq!(lines[3], of(&embedding, ""));
    assert_eq!(lines[4..], ["{\"x\": 1}"]);
    bench
        .run("files prepare a.jsonl --set body.messages.5.content=x")
        .expect(65)
        .says("line 1 of a.jsonl: body.messages is a list without a member 5");
    bench.write("rows.jsonl", "{\"a\":1}\n");
    bench.run("files prepare rows.jsonl -m x").expect(65).says("which have no body");
    let ended = bench.run("files prepare rows.jsonl --set b=true").expect(0);
    assert_eq!(ended.stdout, "{\"a\":1,\"b\":true}\n");
    bench.run("files prepare a.jsonl --set a=1 --in-place -o b.jsonl").expect(2);
    bench.run("files prepare a.jsonl --set a").expect(2).says("PATH=VALUE");
}

#[test]
fn files_are_replaced_whole_or_stay_as_they_are() {
    let bench = Bench::new();
    bench.write("dir/a.jsonl", request("a", "m"));
    bench.write("dir/b.jsonl", request("b", "other"));
    let node = |name: &str| fs::metadata(bench.path(name)).unwrap().ino();
    let (a, b) = (node("dir/a.jsonl"), node("dir/b.jsonl"));
    bench
        .run("files prepare dir --in-place -m other")
        .expect(0)
        .says("dir/a.jsonl: 1 lines, 1 changed")
        .says("dir/b.jsonl: 1 lines, 0 changed");
    assert_eq!(bench.read("dir/a.jsonl"), request("a", "other"));
    assert!(node("dir/a.jsonl") != a && node("dir/b.jsonl") == b, "what does not change stays");
    bench.write("dir/a.jsonl", request("a", "m") + "torn");
    let before = bench.snapshot();
    bench
        .run("files prepare dir/a.jsonl --in-place -m x")
        .expect(65)
        .says("line 2 of dir/a.jsonl: not JSON");
    assert_same(&bench.snapshot(), &before);
    bench.write("dir/a.jsonl", request("a", "m"));
    bench.write("dir/b.jsonl", "torn");
    bench
        .run("files prepare dir --in-place -m x")
        .expect(65)
        .says("dir/a.jsonl: 1 lines, 1 changed")
        .says(" · the files named above are done · ");
    assert_eq!(bench.read("dir/b.jsonl"), "torn");
    bench.run("files prepare gone.jsonl --in-place -m x").expect(66);
    bench
        .pipe("files prepare - --in-place -m x", b"")
        .expect(2)
        .says("no file that could be replaced");
}

#[test]
fn images_are_put_into_their_lines() {
    let bench = Bench::new();
    bench.write("dir/a.png", b"\x89PNG\r\n\x1a\n\x00");
    let line = |url: &str| {
        let part = format!("[{{\"type\":\"image_url\",\"image_url\":{{\"url\":{url:?}}}}}]");
        request("a", "m").replace("\"Hi\"", &part)
    };
    bench.write("dir/a.jsonl", line("a.png") + &line("https://example.com/a.png"));
    let before = bench.snapshot();
    let ended = bench.run("files prepare dir/a.jsonl --encode-images").expect(0);
    let data = "data:image/png;base64,iVBORw0KGgoA";
    assert_eq!(ended.stdout, line(data) + &line("https://example.com/a.png"));
    bench.write("dir/a.jsonl", line("a.png") + &line("missing.png"));
    bench
        .run("files prepare dir/a.jsonl --encode-images -o out.jsonl")
        .expect(65)
        .says("line 2 of dir/a.jsonl: cannot read the image dir/missing.png");
    bench.write("dir/a.jsonl", line("a.png") + &line("https://example.com/a.png"));
    assert_same(&bench.snapshot(), &before);
}

#[test]
fn urls_are_refused_without_their_secrets() {
    let bench = Bench::new();
    bench.write("a.jsonl", request("a", "m"));
    bench.write("parts/b.jsonl", request("b", "m"));
    let before = bench.snapshot();
    let url = "HTTPS://example.com/a.jsonl?sig=geheim";
    let input =
        "HTTPS://example.com/a.jsonl is a URL, and the file tools take none: fetch it first";
    let output = "HTTPS://example.com/a.jsonl is a URL, and the file tools take none: write a file";
    for (command, says) in [
        (format!("files validate a.jsonl {url}"), input),
        (format!("files stats {url}"), input),
        (format!("files sample {url} -n 1"), input),
        (format!("files sample a.jsonl -n 1 -o {url}"), output),
        (format!("files split {url}"), input),
        (format!("files split a.jsonl --output-dir {url}"), output),
        (format!("files merge parts {url}"), input),
        (format!("files merge a.jsonl parts --output={url}"), output),
        (format!("files diff {url} a.jsonl"), input),
        (format!("files diff a.jsonl {url}"), input),
        (format!("files prepare {url} -m x --in-place"), input),
        (format!("files prepare a.jsonl -m x -o {url}"), output),
    ] {
        let tool = command.split(' ').nth(1).unwrap();
        let ended = bench.run(&command).expect(2).says(says).says("nothing was changed");
        let ended = ended.says(&format!("rowmill files {tool} --help"));
        assert!(!ended.stderr.contains("geheim"), "{command}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{command}");
    }
    assert_same(&bench.snapshot(), &before);
}
