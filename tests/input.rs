//! Bad and odd input: each kind is told, and none kills a run that could go on.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::server::{Reply, Server};
use crate::support::{Bench, assert_same, rows};

const ASK: &str = "--id-field id -p {{text}} -m passthrough";

/// `id type` of each line, or `id ok`.
fn verdicts(bench: &Bench, name: &str) -> Vec<String> {
    let verdict = |line: &Value| match line["error"]["type"].as_str() {
        Some(kind) => format!("{} {kind}", line["id"]),
        None => format!("{} ok", line["id"]),
    };
    bench.lines(name).iter().map(verdict).collect()
}

#[test]
fn rows_that_cannot_be_asked_about_fail_and_the_others_go_on() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let mut input = b"{\"id\":\"a\",\"text\":\"1\"}\n{\"id\":\"b\",\"text\":\n[1,2]\n\n{\"text\":\"no id\"}\n\
        {\"id\":null,\"text\":\"x\"}\n{\"id\":\"\",\"text\":\"x\"}\n{\"id\":1.5,\"text\":\"x\"}\n\
        {\"id\":true,\"text\":\"x\"}\n{\"id\":\"c\"}\n{\"id\":\"d\",\"text\":nan}\n{\"id\":\"e\",\"text\":\"\xff\xfe\"}\n"
        .to_vec();
    input.extend(
        format!("{{\"id\":\"deep\",\"text\":{}{}}}\n", "[".repeat(200), "]".repeat(200)).bytes(),
    );
    input.extend(b"\"just text\"\nnull\n{\"id\":\"f\",\"text\":\"last\"}");
    bench.write("in.jsonl", input);
    let ended = bench
        .run("run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m --error-output err.jsonl")
        .expect(3)
        .says("13 of 15 rows failed")
        .says("the first is row 2: line 2:");
    assert_eq!(
        verdicts(&bench, "out.jsonl"),
        [
            "\"a\" ok",
            "null InvalidJSON",
            "null InvalidRow",
            "null MissingIdField",
            "null MissingIdField",
            "null MissingIdField",
            "null InvalidRow",
            "null InvalidRow",
            "\"c\" MissingTemplateField",
            "null InvalidJSON",
            "null InvalidJSON",
            "null InvalidRow",
            "null InvalidRow",
            "null InvalidRow",
            "\"f\" ok",
        ]
    );
    assert_eq!(bench.lines("err.jsonl").len(), 13);
    assert_eq!(server.count(), 2, "no call is made for a row that cannot be asked about");
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines[1]["error"]["message"], "line 2: EOF while parsing a value at column 17");
    assert_eq!(lines[10]["error"]["class"], "invalid_utf8");
    assert_eq!(ended.summary()["failures"]["invalid_utf8"], 1);
    // They stay as they are: nothing is left to do, and nothing is done.
    let before = bench.snapshot();
    bench
        .run("run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m --error-output err.jsonl --resume")
        .expect(3);
    assert_same(&bench.snapshot(), &before);
    assert_eq!(server.count(), 2);
}

#[test]
fn row_without_id_shares_no_id() {
    let bench = Bench::new();
    // The number of each bad row is the id of another.
    bench.write(
        "in.jsonl",
        "{\"id\":3,\"text\":\"a\"}\n{\"id\":1,\"text\":\"b\"}\n{\"other\":1}\n[1]\n",
    );
    bench.run(&format!("run in.jsonl -o out.jsonl {ASK} --work-dir job")).expect(3);
    let expected = ["3 ok", "1 ok", "null MissingIdField", "null InvalidRow"];
    assert_eq!(verdicts(&bench, "out.jsonl"), expected);
    assert_eq!(bench.lines("out.jsonl")[2]["row_number"], 3);
    bench.run("merge --work-dir job -o batch.jsonl --output-format openai").expect(3);
    assert_eq!(bench.lines("batch.jsonl")[2]["custom_id"], Value::Null);
    // Without an id field the number is the id.
    bench.run("run in.jsonl -o two.jsonl -p {{text}} -m passthrough").expect(3);
    assert_eq!(verdicts(&bench, "two.jsonl")[2..], ["3 MissingTemplateField", "4 InvalidRow"]);
}

#[test]
fn files_are_read_by_their_content() {
    let bench = Bench::new();
    for name in ["in.json", "in.txt", "in", "odd.csv"] {
        bench.write(name, rows(2));
        let ask = format!("run -i {name} --output-file {name}.out {ASK} --no-final-summary");
        bench.run(&ask).expect(0);
        assert_eq!(bench.lines(&format!("{name}.out")).len(), 2, "{name}");
    }
    bench.write("list.json", "[\n  {\"id\": 1, \"text\": \"a\"}\n]\n");
    let list = format!("run --input-file list.json -o list.out {ASK}");
    bench.run(&list).expect(65).says("one JSON list").says("jq -c '.[]' list.json > rows.jsonl");
    bench.write("one.json", "{\n  \"id\": 1\n}\n");
    bench.run(&format!("run one.json -o one.out {ASK}")).expect(65).says("jq -c . one.json");
    bench.write("prose.txt", "Dear all,\nthis is, well, prose.\n");
    bench.run(&format!("run prose.txt -o prose.out {ASK}")).expect(2).says("no JSON object");
    assert!(!bench.exists("list.out") && !bench.exists("prose.out.rowmill"));
    // So are requests, and what is piped.
    let line = r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"x"}]}}"#;
    bench.write("Input.json", line);
    bench.run("run -i Input.json -o Output.json -m passthrough").expect(0);
    assert_eq!(bench.lines("Output.json")[0]["custom_id"], "a");
    let piped = bench.pipe(&format!("run - -o p.out {ASK}"), b"[{\"id\":1}]");
    piped.expect(65).says("one JSON list");
}

#[test]
fn csv_of_spreadsheets_is_read() {
    let bench = Bench::new();
    let ask =
        "--id-field id -p {{text}} -m passthrough --include-input --overwrite --no-final-summary";
    for (name, text, note) in [
        ("semicolon.csv", "id;text\na;first\nb;second, or so\n", "the separator is ';'"),
        ("tab.csv", "id\ttext\na\tfirst\nb\tsecond, or so\n", "the separator is '\\t'"),
        ("bar.csv", "id|text\na|first\nb|second, or so\n", "the separator is '|'"),
        ("said.csv", "\u{feff}sep=;\r\nid;text\r\na;first\r\nb;second, or so\r\n", ""),
        ("tab.tsv", "id\ttext\na\tfirst\nb\tsecond, or so\n", ""),
        ("trailing.csv", "id,text\na,first,\nb,\"second, or so\",,\n", ""),
        ("index.csv", ",id,text\n0,a,first\n1,b,\"second, or so\"\n", "column 1 has no name"),
        ("doubled.csv", "id,text,id\na,first,x\nb,\"second, or so\",y\n", "is called \"id_2\""),
    ] {
        bench.write(name, text);
        let ended = bench.run(&format!("run {name} -o out.jsonl {ask} --work-dir job")).expect(0);
        assert!(ended.stderr.contains(note), "{name}: {}", ended.stderr);
        let told: Vec<_> = bench.lines("out.jsonl").iter().map(|it| it["result"].clone()).collect();
        assert_eq!(told, ["first", "second, or so"], "{name}");
        // The plan says how it is read: another look finds nothing else.
        let before = bench.snapshot();
        bench
            .run(
                &format!("run {name} -o out.jsonl {ask} --work-dir job")
                    .replace("--overwrite", "--resume"),
            )
            .expect(0);
        assert_same(&bench.snapshot(), &before);
    }
    let odd = bench.lines("out.jsonl");
    assert_eq!(odd[0]["input"], json!({"id": "a", "text": "first", "id_2": "x"}));
    bench.write("index.csv", ",id,text\n0,a,first\n");
    bench
        .run(&format!("run index.csv -o out.jsonl {ask}").replace("{{text}}", "{{column_1}}"))
        .expect(0);
    assert_eq!(bench.lines("out.jsonl")[0]["result"], "0");
}

#[test]
fn prompt_without_field_is_refused() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    bench.write("prompt.txt", "Good? {{text}}");
    let ask = "run in.jsonl -o out.jsonl -m m --no-final-summary";
    for (prompt, hint) in [
        ("'Good? {text}'", "write {{text}} where it says {text}"),
        ("'Good? {{text'", "{{text is not closed"),
        ("Good?", "{{row_json}}"),
        ("prompt.txt", "--template prompt.txt reads it"),
        ("@missing.txt", "there is no file missing.txt"),
    ] {
        bench.run(&format!("{ask} -p {prompt}")).expect(2).says(hint);
        bench
            .run(&format!("{ask} -p {prompt} --dry-run"))
            .expect(2)
            .says("--allow-constant-prompt");
    }
    assert_eq!(server.count(), 0);
    bench.write("constant.txt", "Good?");
    bench
        .run(&format!("{ask} --template constant.txt"))
        .expect(2)
        .says("constant.txt names no field");
    bench.run(&format!("{ask} -p @prompt.txt")).expect(0).says("read from prompt.txt");
    assert_eq!(bench.lines("out.jsonl")[2]["result"], "answer to <Good? text 3>");
    bench.run(&format!("{ask} -p Good? --allow-constant-prompt --overwrite")).expect(0);
    bench.run(&format!("{ask} -p Good? --repeat 2 --overwrite")).expect(0);
    let filter = "filter -m m -p Good?";
    let refused = bench.pipe(filter, rows(1).as_bytes());
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert_eq!(server.count(), 3 + 3 + 6);
}

#[test]
fn printed_command_is_same_command() {
    let refuses = std::sync::atomic::AtomicBool::new(true);
    let server =
        Server::start(move |call| match refuses.swap(false, std::sync::atomic::Ordering::SeqCst) {
            true => Reply::status(400),
            false => Reply::Answer(call.prompt.clone()),
        });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(1));
    let prompt =
        format!("Judge\tthis,\n\u{1b}[1m'it'\u{2028}{}: {{{{text}}}}", "long ".repeat(200));
    let ended = bench
        .run_args([
            "run",
            "in.jsonl",
            "-o",
            "out.jsonl",
            "-m",
            "m",
            "--no-final-summary",
            "-p",
            &prompt,
        ])
        .expect(3);
    let (_, command) = ended.stderr.trim_end().rsplit_once("try them again: rowmill ").unwrap();
    let script = format!("\"$0\" {command}");
    let binary = env!("CARGO_BIN_EXE_rowmill");
    let mut shell = bench.command([""; 0]);
    let environment: Vec<_> =
        shell.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    shell = Command::new("bash");
    shell.args(["-c", &script, binary]).current_dir(bench.root()).envs(environment);
    let pasted = shell.output().unwrap();
    assert!(pasted.status.success(), "{pasted:?}");
    assert_eq!(server.calls()[1].prompt, prompt.replace("{{text}}", "text 1"));
}

#[test]
fn marks_line_ends_and_blank_lines_are_tolerated() {
    let bench = Bench::new();
    bench.write("in.jsonl", "\u{feff}{\"id\":1,\"text\":\"a\"}\r\n\r\n   \n{\"id\":2,\"text\":\"b\"}\r\n\n\n{\"id\":3,\"text\":\"c\"}");
    bench.run(&format!("run in.jsonl -o out.jsonl {ASK}")).expect(0);
    let expected = [(1, 1, "a"), (2, 2, "b"), (3, 3, "c")];
    for (line, (id, number, text)) in bench.lines("out.jsonl").iter().zip(expected) {
        assert_eq!((&line["id"], &line["row_number"]), (&json!(id), &json!(number)));
        assert_eq!(line["result"], text);
    }
}

#[test]
fn csv_rows_are_objects_of_strings() {
    let bench = Bench::new();
    bench.write(
        "in.csv",
        "\u{feff}id,text,na me.x\r\n007,\"a, \"\"b\"\"\r\nc\",1.50\r\n\r\n8,short\r\n9,d,e,f\r\n10,,\r\n11,last,z",
    );
    bench
        .run("run in.csv -o out.jsonl --id-field id -p '{{text}}|{{na me.x}}' -m passthrough --include-input")
        .expect(3);
    assert_eq!(
        verdicts(&bench, "out.jsonl"),
        ["\"007\" ok", "null InvalidRow", "null InvalidRow", "\"10\" ok", "\"11\" ok"]
    );
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines[0]["result"], "a, \"b\"\r\nc|1.50");
    assert_eq!(lines[0]["input"], json!({"id": "007", "text": "a, \"b\"\r\nc", "na me.x": "1.50"}));
    assert_eq!(lines[1]["input"], Value::Null);
    assert_eq!(lines[3]["result"], "|");
    let tickets = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tickets.csv");
    bench
        .run(&format!(
            "run {tickets} -o t.jsonl --id-field ticket_id -p {{{{message}}}} -m passthrough"
        ))
        .expect(0);
    assert_eq!(bench.lines("t.jsonl").len(), 60);
}

#[test]
fn an_unclosed_quote_fails_its_row_and_says_what_it_swallowed() {
    let bench = Bench::new();
    bench.write("in.csv", "id,text\n1,a\n2,\"b\n3,c\n4,d\n");
    bench.run(&format!("run in.csv -o out.jsonl {ASK}")).expect(3).says("never closed");
    assert_eq!(verdicts(&bench, "out.jsonl"), ["\"1\" ok", "null InvalidRow"]);
}

#[test]
fn what_is_no_text_or_no_input_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let utf16: Vec<u8> = "\u{feff}{\"id\":1}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    bench.write("utf16.jsonl", utf16);
    bench.write("zipped.jsonl", b"\x1f\x8b\x08\0\0\0");
    bench.write("blank.csv", ",,\n1,a,2\n");
    bench.write("rows.txt", "{]\n");
    std::fs::create_dir(bench.path("dir.jsonl")).unwrap();
    for (input, code, text) in [
        ("utf16.jsonl", 65, "UTF-16"),
        ("zipped.jsonl", 65, "gzip"),
        ("blank.csv", 65, "the header row is missing"),
        ("rows.txt", 65, "one JSON object over several lines"),
        ("nowhere.jsonl", 66, "No such file"),
        ("dir.jsonl", 66, "no .jsonl file directly in"),
    ] {
        let before = bench.snapshot();
        bench.run(&format!("run {input} -o out.jsonl {ASK}")).expect(code).says(text);
        assert_same(&bench.snapshot(), &before);
        assert!(!bench.exists("out.jsonl.rowmill"));
    }
}

#[test]
fn empty_input_needs_no_model() {
    let bench = Bench::new();
    for name in ["a.jsonl", "b"] {
        bench.write(name, "");
        bench.run(&format!("run {name} -o {name}.out")).expect(0);
        assert_eq!(bench.read(&format!("{name}.out")), "");
    }
}

#[test]
fn an_empty_input_is_a_run_of_no_rows() {
    let bench = Bench::new();
    for (name, text) in
        [("a.jsonl", ""), ("b.jsonl", "\n \n"), ("c.csv", ""), ("d.csv", "id,text\n")]
    {
        bench.write(name, text);
        let ended = bench.run(&format!("run {name} -o {name}.out {ASK}")).expect(0);
        assert_eq!(bench.read(&format!("{name}.out")), "");
        assert_eq!(ended.summary()["rows"]["input"], 0);
    }
}

#[test]
fn a_row_too_large_fails_in_bounded_memory() {
    let bench = Bench::new();
    let mut input = String::from("{\"id\":\"a\",\"text\":\"1\"}\n{\"id\":\"big\",\"text\":\"");
    input.push_str(&"x".repeat(100 << 20));
    input.push_str("\"}\n{\"id\":\"c\",\"text\":\"3\"}\n");
    bench.write("in.jsonl", input);
    // Far less than the row is large; most of it is address space that threads reserve.
    let limited = format!(
        "ulimit -v 900000; exec {} run in.jsonl -o out.jsonl {ASK} --parallel 1",
        env!("CARGO_BIN_EXE_rowmill")
    );
    let limited = limited.replace("{{text}}", "'{{text}}'");
    let status =
        Command::new("sh").args(["-c", &limited]).current_dir(bench.root()).output().unwrap();
    assert_eq!(status.status.code(), Some(3), "{}", String::from_utf8_lossy(&status.stderr));
    assert_eq!(verdicts(&bench, "out.jsonl"), ["\"a\" ok", "null InvalidRow", "\"c\" ok"]);
    let lines = bench.lines("out.jsonl");
    assert!(lines[1]["error"]["message"].as_str().unwrap().contains("--max-row-bytes"));
}

#[test]
fn duplicate_ids_are_refused_left_out_or_renamed() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let mut input = String::new();
    for (id, text) in
        [("\"x\"", 1), ("1", 2), ("\"1\"", 3), ("\"\\u0078\"", 4), ("\"x-2\"", 5), ("\"x\"", 6)]
    {
        writeln!(input, "{{\"id\":{id},\"text\":\"{text}\"}}").unwrap();
    }
    bench.write("in.jsonl", input);
    let ask = "run in.jsonl --id-field id -p {{text}} -m m --shard-rows 2";
    bench
        .run(&format!("{ask} -o out.jsonl"))
        .expect(65)
        .says(
            "2 rows have the id of an earlier row: rows 1 and 4 have \"\\u{5c}u0078\""
                .split(": rows")
                .next()
                .unwrap(),
        )
        .says("rows 1 and 6 have \"x\"");
    assert_eq!(server.count(), 0);
    assert!(!bench.exists("out.jsonl.rowmill"));

    let ended = bench.run(&format!("{ask} -o first.jsonl --on-duplicate first")).expect(0);
    assert_eq!(verdicts(&bench, "first.jsonl"), ["\"x\" ok", "1 ok", "\"1\" ok", "\"x-2\" ok"]);
    assert_eq!(ended.summary()["rows"]["skipped"], 2);
    assert_eq!(server.count(), 4);

    bench.run(&format!("{ask} -o suffix.jsonl --on-duplicate suffix")).expect(0);
    assert_eq!(
        verdicts(&bench, "suffix.jsonl"),
        ["\"x\" ok", "1 ok", "\"1\" ok", "\"x-3\" ok", "\"x-2\" ok", "\"x-4\" ok"],
        "no new name is one that a row has"
    );
}

#[test]
fn missing_fields_are_found_while_planning_over_all_rows() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let mut input = rows(500);
    input.push_str("{\"id\":\"odd\",\"txt\":\"other\"}\n");
    bench.write("in.jsonl", input);
    let ask = "run in.jsonl -o out.jsonl --id-field id -m m";
    bench
        .run(&format!("{ask} -p {{{{text}}}} --on-missing-field error"))
        .expect(65)
        .says("\"text\" is missing in 1 of 501 rows, first in row 501")
        .says("is \"txt\" meant?");
    assert_eq!(server.count(), 0);
    bench.run(&format!("{ask} -p {{{{text}}}} --limit 10 --on-missing-field error")).expect(0);
    bench
        .run(&format!("{ask} -p {{{{tekst}}}} --overwrite"))
        .expect(3)
        .says("\"tekst\" is missing in 501 of 501 rows, first in row 1 (is \"text\" meant?)");
    assert_eq!(server.count(), 10);
    assert_eq!(bench.lines("out.jsonl")[0]["error"]["type"], "MissingTemplateField");
    bench
        .run(&format!("{ask} -p [{{{{text}}}}] --overwrite --offset 499 --on-missing-field empty"))
        .expect(0);
    let calls = server.calls();
    assert_eq!(calls.last().map(|call| call.prompt.len()).min(Some(2)), Some(2));
    assert!(calls.iter().any(|call| call.prompt == "[]"));
}

#[test]
fn rows_may_come_through_a_pipe() {
    let bench = Bench::new();
    let input = rows(30);
    let ask = "run - -o out.jsonl --id-field id -p {{text}} -m passthrough --work-dir job";
    assert_eq!(bench.pipe(ask, input.as_bytes()).code, 0);
    assert_eq!(bench.lines("out.jsonl").len(), 30);
    let again = bench.pipe(&format!("{ask} --resume"), input.as_bytes());
    assert_eq!(again.code, 0, "{}", again.stderr);
    let other = bench.pipe(&format!("{ask} --resume"), rows(31).as_bytes());
    assert_eq!(other.code, 78, "{}", other.stderr);
    assert!(
        other.stderr.contains("0 rows changed, 1 new, 0 gone, 30 as they were"),
        "{}",
        other.stderr
    );
    let status = bench.run("status --work-dir job --json").expect(0).summary();
    assert_eq!(status["ok"], 30);
}

#[test]
fn a_field_of_blanks_is_a_row_and_an_empty_line_is_none() {
    let bench = Bench::new();
    bench.write("in.csv", "text\nfoo\n   \n\nbar\n");
    bench.run("run in.csv -o out.jsonl -p <{{text}}> -m passthrough").expect(0);
    let results: Vec<_> = bench.lines("out.jsonl").iter().map(|it| it["result"].clone()).collect();
    assert_eq!(results, ["<foo>", "<   >", "<bar>"]);
}
