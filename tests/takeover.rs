//! Going on with what other tools left: fast-agent's work directories and outputs. No answer that is paid for is
//! asked for again, none lands at another row, and nothing of theirs is touched.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::depot::{Depot, Say};
use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, Snapshot, assert_same, rows, words};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m";

/// A line as Python spells it.
fn envelope(id: &Value, row: usize, ok: bool, result: &str, error: &str) -> String {
    format!(
        "{{\"id\": {id}, \"row_number\": {row}, \"ok\": {ok}, \"result\": {result}, \"error\": {error}}}"
    )
}

/// A line of OpenAI's Batch API that asks its own id.
fn request(id: &str) -> String {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": id}]});
    let line =
        json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body});
    format!("{line}\n")
}

fn answer(id: impl Into<Value>, row: usize) -> String {
    envelope(&id.into(), row, true, &format!("\"old {row}\""), "null")
}

fn failure(id: impl Into<Value>, row: usize) -> String {
    let error = "{\"type\": \"BadRequestError\", \"message\": \"Error code: 400\"}";
    envelope(&id.into(), row, false, "null", error)
}

/// A line whose row is shown.
fn showing(line: &str, input: &str) -> String {
    format!("{}, \"input\": {input}}}", line.strip_suffix('}').unwrap())
}

const CALL_FAILED: &str = "\"I hit an internal error while calling the model: generic request failed for model 'm' (code: boom) (status=500): boom See fast-agent-error for additional details.\"";

/// A work directory of fast-agent's over an input, in which each text is a chunk.
fn work_dir(bench: &Bench, name: &str, input: &str, input_rows: usize, chunks: &[&str]) {
    let entry = |(index, _): (usize, &&str)| {
        // Rows that are left over are the first chunks'.
        let (each, more) = (input_rows / chunks.len(), input_rows % chunks.len());
        json!({"index": index, "offset": 0, "limit": each + usize::from(index < more),
            "output": format!("typed/elsewhere/chunk-{index:03}.jsonl"), "error_output": null,
            "telemetry_output": null, "summary_output": format!("summary.chunk-{index:03}.json")})
    };
    let entries: Vec<_> = chunks.iter().enumerate().map(entry).collect();
    let manifest = json!({"input": bench.path(input).to_str().unwrap(), "output": "out.jsonl",
        "parallel": 2, "worker_count": 2, "chunk_count": chunks.len(), "input_rows": input_rows,
        "selected_rows": input_rows, "created_at": "2026-08-18T10:00:00Z", "chunks": entries});
    bench.write(&format!("{name}/manifest.json"), serde_json::to_string_pretty(&manifest).unwrap());
    for (index, chunk) in chunks.iter().enumerate().filter(|(_, chunk)| !chunk.is_empty()) {
        bench.write(&format!("{name}/chunk-{index:03}.jsonl"), chunk);
    }
    bench.write(&format!("{name}/summary.chunk-000.json"), "{}");
}

/// The files below a directory.
fn files_of(bench: &Bench, name: &str) -> Snapshot {
    let dir = bench.path(name);
    bench.snapshot().into_iter().filter(|(path, _)| path.starts_with(&dir)).collect()
}

/// What was asked, in order.
fn asked(server: &Server) -> Vec<String> {
    let mut prompts: Vec<_> = server.calls().into_iter().map(|call| call.prompt).collect();
    prompts.sort_by_key(|prompt| prompt.rsplit(' ').next().unwrap().parse::<u32>().unwrap());
    prompts
}

/// The output has `old N` for these rows and the server's answers to the others.
#[track_caller]
fn assert_output(bench: &Bench, rows: usize, old: &[usize]) {
    let lines = bench.lines("out.jsonl");
    assert_eq!(lines.len(), rows);
    for (row, line) in (1..).zip(&lines) {
        let expected = match old.contains(&row) {
            true => format!("old {row}"),
            false => answer_to(&format!("text {row}")),
        };
        assert_eq!((&line["row_number"], &line["result"]), (&json!(row), &json!(expected)));
    }
}

/// Chunks of twelve rows with all that fast-agent is known to leave.
fn chunks_of_twelve() -> [String; 4] {
    let empty = envelope(&json!("r3"), 3, true, "\"\"", "null");
    let failed = envelope(&json!("r4"), 4, true, CALL_FAILED, "null");
    let torn = &answer("r6", 6)[..30];
    [
        // A row that failed and was tried again has two lines, the second one at the end.
        [&answer("r1", 1), &failure("r2", 2), &empty, &failed, &answer("r2", 2), ""].join("\n"),
        // The last line is torn.
        [&answer("r5", 5), torn].join("\n"),
        // A line end was missing when the run went on; and one is missing at the end.
        format!("{}{}\n{}", answer("r7", 7), answer("r8", 8), answer("r9", 9)),
        // This one was not begun.
        String::new(),
    ]
}

#[test]
fn a_work_dir_of_fast_agents_is_gone_on_from_and_left_as_it_is() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(12));
    let chunks = chunks_of_twelve();
    work_dir(&bench, "wd", "in.jsonl", 12, &chunks.each_ref().map(String::as_str));
    let before = bench.snapshot();
    for option in ["", "--overwrite"] {
        bench
            .run(&format!("{ASK} --work-dir wd {option}"))
            .expect(73)
            .says("wd is a work directory of fast-agent's")
            .says("--work-dir wd --resume");
        assert_same(&bench.snapshot(), &before);
    }
    let ended = bench
        .run(&format!("{ASK} --work-dir wd --resume"))
        .expect(0)
        .says("took over 6 answers from wd; fast-agent notes neither model nor prompt")
        .says("1 answers in it are the texts of failed calls")
        .says("1 answers in it are empty")
        .says("1 lines of wd are no envelopes (first line 2 of wd/chunk-001.jsonl)");
    assert_eq!(ended.summary()["rows"]["adopted"], 6);
    assert_output(&bench, 12, &[1, 2, 5, 7, 8, 9]);
    let expected = ["text 3", "text 4", "text 6", "text 10", "text 11", "text 12"];
    assert_eq!(asked(&server), expected);
    let first = bench.read("out.jsonl").lines().next().unwrap().to_owned();
    let ours = "{\"id\":\"r1\",\"row_number\":1,\"ok\":true,\"result\":\"old 1\",\"error\":null}";
    assert_eq!(first, ours, "the output is rowmill's");
    assert!(!bench.exists("out.jsonl.rowmill"), "as without --work-dir");
    // The same command again makes no call and changes no byte.
    let done = bench.snapshot();
    bench.run(&format!("{ASK} --work-dir wd --resume")).expect(0).says("wd is not read");
    assert_eq!(server.count(), 6);
    assert_same(&bench.snapshot(), &done);
    for (path, bytes) in before {
        assert_eq!(done.get(&path), Some(&bytes), "{}", path.display());
    }
}

#[test]
fn a_takeover_that_was_killed_goes_on_without_a_second_one() {
    let server = Server::start(|call| match (call.prompt.as_str(), call.nth) {
        ("text 3" | "text 4", 1) => Reply::Hold(answer_to(&call.prompt)),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(12));
    let chunks = chunks_of_twelve();
    work_dir(&bench, "wd", "in.jsonl", 12, &chunks.each_ref().map(String::as_str));
    let theirs = files_of(&bench, "wd");
    let running = bench.start(&format!("{ASK} --work-dir wd --resume -c 2"));
    server.wait_for_calls(2);
    running.kill();
    let status = bench.run("status --work-dir out.jsonl.rowmill --json").expect(0).summary();
    assert_eq!((&status["ok"], &status["left"]), (&json!(6), &json!(6)));
    // Whatever fast-agent does to its own from now on.
    bench.write("wd/chunk-003.jsonl", answer("r12", 12));
    bench
        .run(&format!("{ASK} --work-dir wd --resume"))
        .expect(0)
        .says("going on with the run in")
        .says("wd is not read");
    assert_output(&bench, 12, &[1, 2, 5, 7, 8, 9]);
    assert_eq!(server.count(), 2 + 6);
    fs::remove_file(bench.path("wd/chunk-003.jsonl")).unwrap();
    assert_same(&files_of(&bench, "wd"), &theirs);
}

#[test]
fn a_work_dir_that_was_moved_is_read_from_anywhere() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    let chunk = format!("{}\n", answer("r2", 2));
    work_dir(&bench, "wd", "in.jsonl", 3, &[&chunk]);
    // As versions before 0.7.21 have it.
    let old = bench.read("wd/manifest.json").replace("\"chunks\"", "\"shards\"");
    let old = old.replace("chunk-000", "shard-000");
    bench.write("wd/manifest.json", old);
    fs::rename(bench.path("wd/chunk-000.jsonl"), bench.path("wd/shard-000.jsonl")).unwrap();
    fs::create_dir(bench.path("else")).unwrap();
    fs::rename(bench.path("wd"), bench.path("else/moved")).unwrap();
    fs::rename(bench.path("in.jsonl"), bench.path("else/rows.jsonl")).unwrap();
    let line =
        "run rows.jsonl -o ../out.jsonl --id-field id -p {{text}} -m m --work-dir moved --resume";
    let output = bench.command(words(line)).current_dir(bench.path("else")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_output(&bench, 3, &[2]);
}

#[test]
fn answers_about_another_input_are_refused_before_a_call() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    bench.write("copy.jsonl", rows(3));
    let chunk = format!("{}\n", answer("r2", 2));
    let refused = |line: &str, text: &str| {
        let before = bench.snapshot();
        bench.run(line).expect(78).says("cannot be taken over").says(text);
        assert_same(&bench.snapshot(), &before);
    };
    let ask = format!("{ASK} --work-dir wd --resume");
    work_dir(&bench, "wd", "copy.jsonl", 3, &[&chunk]);
    refused(&ask, "they are about the rows of");
    work_dir(&bench, "wd", "in.jsonl", 4, &[&chunk]);
    refused(&ask, "their input had 4 rows, and this one has 3");
    work_dir(&bench, "wd", "gone.jsonl", 4, &[&chunk]);
    refused(&ask, "their input had 4 rows, and this one has 3");
    let stranger = format!("{}\n", answer("x2", 2));
    work_dir(&bench, "wd", "in.jsonl", 3, &[&stranger]);
    refused(&ask, "none of them is of a row that the input has");
    // Nothing of ours belongs there.
    for line in [
        ask.replace("-o out.jsonl", "-o wd/out.jsonl"),
        ask.replace("-o out.jsonl", "-o out.jsonl --summary-output wd/s.json"),
    ] {
        bench.run(&line).expect(2).says("must not be in the work directory");
    }
    let output = bench
        .command(words(
            &ask.replace("in.jsonl -o out.jsonl", "../in.jsonl -o -").replace("-dir wd", "-dir ."),
        ))
        .current_dir(bench.path("wd"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("would be in"), "{stderr}");
    work_dir(&bench, "wd", "gone.jsonl", 3, &[&chunk]);
    bench.run(&ask).expect(0);
    assert_output(&bench, 3, &[2]);
    assert_eq!(server.count(), 2);
}

/// Without an id field fast-agent knows rows by their number: here a physical line, there a record from 2.
#[test]
fn rows_without_ids_are_found_by_what_fast_agent_counted() {
    const NO_IDS: &str = "run in.jsonl -o out.jsonl -p {{text}} -m m --work-dir wd --resume";
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let blank = rows(6)
        .replace("{\"id\":\"r2\"", "\n  \n{\"id\":\"r2\"")
        .replace("{\"id\":\"r6\"", "\n{\"id\":\"r6\"");
    bench.write("in.jsonl", &blank);
    // Row 1 in line 1, row 2 in line 4, row 6 in line 9.
    let line = |row: usize, number: usize| {
        answer(number, number).replace(&format!("old {number}"), &format!("old {row}"))
    };
    let chunk = [line(1, 1), line(6, 9), failure(5, 5), line(2, 4), String::new()].join("\n");
    work_dir(&bench, "wd", "in.jsonl", 6, &[&chunk]);
    let before = bench.snapshot();
    // Of rows that have ids it cannot be told.
    bench
        .run(&NO_IDS.replace("-p", "--id-field id -p"))
        .expect(78)
        .says("their ids are row numbers")
        .says("leave --id-field out");
    assert_same(&bench.snapshot(), &before);
    // Many shards, so that lines are looked for in the right one.
    bench.run(&format!("{NO_IDS} --shard-rows 2")).expect(0).says("took over 3 answers");
    assert_output(&bench, 6, &[1, 2, 6]);
    assert_eq!(server.count(), 3);
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    bench.run(&format!("{NO_IDS} --id-from hash --offset 1")).expect(0).says("took over 2 answers");
    let results: Vec<_> = bench.lines("out.jsonl").iter().map(|it| it["result"].clone()).collect();
    assert_eq!((results.len(), &results[0], &results[4]), (5, &json!("old 2"), &json!("old 6")));
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    // A number of a line that is blank: the input was another.
    let calls = server.count();
    work_dir(&bench, "wd", "in.jsonl", 6, &[&format!("{}\n{}\n", line(1, 1), answer(3, 3))]);
    bench.run(NO_IDS).expect(78).says("the input does not have rows where they were then");
    assert!(!bench.exists("out.jsonl.rowmill") && server.count() == calls);
    // Ids of a field are of no use without it.
    work_dir(&bench, "wd", "in.jsonl", 6, &[&answer("r1", 1)]);
    bench.run(NO_IDS).expect(78).says("give the field with --id-field");

    let csv = "id,text\nr1,text 1\n\n\"r\n2\",text 2\nr3,text 3\n";
    bench.write("in.csv", csv);
    work_dir(&bench, "wd", "in.csv", 3, &[&line(2, 3)]);
    bench.run(&NO_IDS.replace("in.jsonl", "in.csv")).expect(0).says("took over 1 answers");
    assert_output(&bench, 3, &[2]);
}

/// What comes by a pipe or from a URL has no path that would say that it is the input of then.
#[test]
fn row_numbers_prove_nothing_of_an_input_without_a_path() {
    const NO_IDS: &str = "-o out.jsonl -p {{text}} -m m --work-dir wd --resume";
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    let other = rows(3).replace("text ", "another ");
    let depot = Depot::start({
        let other = other.clone();
        move |_| Say::document(other.clone())
    });
    let chunk = format!("{}\n{}\n", answer(1, 1), answer(3, 3));
    work_dir(&bench, "wd", "in.jsonl", 3, &[&chunk]);
    let before = bench.snapshot();
    let url = depot.url("/in.jsonl");
    for ended in [
        bench.pipe(&format!("run - {NO_IDS}"), other.as_bytes()),
        bench.run(&format!("run {url} {NO_IDS}")),
        bench.run(&format!("run {url} {NO_IDS} --include-input")),
        bench.pipe(&format!("run - {NO_IDS} --id-from hash"), other.as_bytes()),
        bench.pipe(&format!("run /dev/stdin {NO_IDS}"), other.as_bytes()),
    ] {
        ended.expect(78).says("cannot be taken over");
        assert_same(&bench.snapshot(), &before);
    }
    assert_eq!(server.count(), 0);
    // Who says that it is the same has it; and rows that are shown are compared.
    let said = format!("run - {NO_IDS} --on-change new-only");
    bench.pipe(&said, rows(3).as_bytes()).expect(0).says("took over 2 answers");
    assert_output(&bench, 3, &[1, 3]);
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    fs::remove_dir_all(bench.path("out.jsonl.rowmill")).unwrap();
    let shown = [
        showing(&answer(1, 1), "{\"id\": \"r1\", \"text\": \"text 1\"}"),
        showing(&answer(3, 3), "{\"id\": \"r3\", \"text\": \"of then\"}"),
    ];
    work_dir(&bench, "wd", "in.jsonl", 3, &[&shown.join("\n")]);
    let ask = format!("run - {NO_IDS}");
    bench.pipe(&ask, rows(3).as_bytes()).expect(0).says("took over 1 answers");
    assert_output(&bench, 3, &[1]);
    // Of the URL that the manifest names as much is known as of a file.
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    work_dir(&bench, "wd", "in.jsonl", 3, &[&chunk]);
    let named =
        bench.read("wd/manifest.json").replace(bench.path("in.jsonl").to_str().unwrap(), &url);
    bench.write("wd/manifest.json", named);
    bench.run(&format!("run {url} {NO_IDS}")).expect(0).says("took over 2 answers");
}

#[test]
fn an_output_that_may_be_another_jobs_keeps_answers_to_other_rows() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let compact = |id: &str| {
        format!(
            "{{\"id\":\"{id}\",\"row_number\":1,\"ok\":true,\"result\":\"old\",\"error\":null}}\n"
        )
    };
    let result = |id: &str| {
        format!(
            "{{\"id\":\"x\",\"custom_id\":\"{id}\",\"response\":{{\"status_code\":200,\"request_id\":\"x\",\
             \"body\":{{\"choices\":[{{\"text\":\"x\"}}]}}}},\"error\":null}}\n"
        )
    };
    let dria = |id: &str| {
        format!("{{\"custom_id\":\"{id}\",\"model\":\"m\",\"result\":\"x\",\"token_count\":1}}\n")
    };
    let body = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    bench.write("rows.jsonl", rows(2));
    bench.write(
        "openai.jsonl",
        format!("{{\"custom_id\":\"r1\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{body}}}\n"),
    );
    bench.write(
        "dria.jsonl",
        format!(
            "{{\"custom_id\":\"r1\",\"type\":\"completions\",\"version\":\"v1\",\"body\":{body}}}\n"
        ),
    );
    let of_rows = "run rows.jsonl -o out.jsonl --id-field id -p {{text}} -m m --resume";
    let cases = [
        (of_rows, format!("{}{}{}", compact("r1"), compact("z1"), compact("z2"))),
        (of_rows, format!("{}\n{}\n{}\n", answer("r1", 1), answer("z1", 2), answer("z2", 3))),
        ("run openai.jsonl -o out.jsonl --resume", result("z1") + &result("z2") + &result("r1")),
        ("run dria.jsonl -o out.jsonl --resume", dria("z1") + &dria("z2")),
    ];
    for (line, output) in cases {
        bench.write("out.jsonl", &output);
        let before = bench.snapshot();
        bench
            .run(line)
            .expect(78)
            .says("2 of them are of rows that the input does not have")
            .says("choose another --output");
        assert_same(&bench.snapshot(), &before);
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn a_body_that_holds_an_error_is_no_answer_whatever_its_status() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", ["a", "b", "c", "d", "e", "f"].map(request).concat());
    let result = |id: &str, body: Value| {
        let response = json!({"status_code": 200, "request_id": "x", "body": body});
        format!("{}\n", json!({"id": "x", "custom_id": id, "response": response, "error": null}))
    };
    let failed = json!({"error": {"message": "overloaded", "code": 503}});
    let whole = json!({"choices": [{"message": {"content": "x"}}], "error": {}});
    let lines = [
        result("a", failed),
        result("b", whole),
        result("c", json!({})),
        result("d", json!({"detail": "upstream timed out"})),
        result("e", json!({"choices": null})),
        // An answer, but of another endpoint.
        result("f", json!({"object": "list", "data": [{"embedding": [0.5]}]})),
    ];
    bench.write("out.jsonl", lines.concat());
    bench.run("run in.jsonl -o out.jsonl --resume -c 1").expect(0).says("took over 1 answers");
    let asked: Vec<_> = server.calls().into_iter().map(|call| call.prompt).collect();
    assert_eq!(asked, ["a", "c", "d", "e", "f"]);
    // What it was called stays, and the others have names of their own.
    let names: Vec<_> = bench
        .lines("out.jsonl")
        .iter()
        .map(|line| [&line["id"], &line["response"]["request_id"]].map(Value::to_string))
        .collect();
    assert_eq!(names[1], ["\"x\"", "\"x\""]);
    assert!(
        names[0][0].starts_with("\"batch_req_") && names[0][1].starts_with("\"req_"),
        "{names:?}"
    );
}

#[test]
fn a_work_dir_beside_an_output_or_for_several_inputs_is_refused() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    bench.write("b.jsonl", rows(3));
    work_dir(&bench, "wd", "in.jsonl", 3, &[&answer("r2", 2)]);
    let ask = format!("{ASK} --work-dir wd --resume");
    let before = bench.snapshot();
    bench
        .run(&ask.replace("in.jsonl -o out.jsonl", "in.jsonl b.jsonl -o outs"))
        .expect(2)
        .says("about the rows of one input");
    assert_same(&bench.snapshot(), &before);
    for line in [answer("r1", 1), answer("r1", 1).replace(": ", ":").replace(", ", ",")] {
        bench.write("out.jsonl", line);
        let before = bench.snapshot();
        bench
            .run(&ask)
            .expect(73)
            .says("wd, a work directory of fast-agent's")
            .says("to go on from wd, choose another --output or move ")
            .says("leave --work-dir out");
        assert_same(&bench.snapshot(), &before);
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn ids_that_only_count_are_taken_where_rows_stand_as_they_did() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let numbered = rows(4).replace("\"r", "").replace("\",\"text\"", ",\"text\"");
    assert!(numbered.starts_with("{\"id\":1,\"text\":\"text 1\"}"));
    let chunk = [answer(1, 1), answer(3, 3)].join("\n");
    // Sorted otherwise since: was it the field, or the line?
    let mut lines: Vec<_> = numbered.lines().collect();
    lines.swap(2, 3);
    bench.write("in.jsonl", lines.join("\n"));
    work_dir(&bench, "wd", "in.jsonl", 4, &[&chunk]);
    let ask = format!("{ASK} --work-dir wd --resume");
    bench.run(&ask).expect(78).says("the rows with these ids are others");
    assert_eq!(server.count(), 0);
    bench.write("in.jsonl", &numbered);
    bench.run(&ask).expect(0).says("took over 2 answers");
    assert_output(&bench, 4, &[1, 3]);
    // Ids that are there twice do not tell whose the answer was.
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    bench.write("in.jsonl", rows(3).replace("r3", "r1"));
    work_dir(&bench, "wd", "in.jsonl", 3, &[&answer("r1", 3), &answer("r2", 2)]);
    bench
        .run(&format!("{ask} --on-duplicate first"))
        .expect(0)
        .says("took over 1 answers")
        .says("1 answers in it are not of the rows that stand there now");
    assert_eq!(bench.lines("out.jsonl")[0]["result"], answer_to("text 1"));
}

#[test]
fn structured_answers_are_taken_where_they_fit_the_schema() {
    let server = Server::start(|_| Reply::Answer("{\"label\":\"neg\"}".to_owned()));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(4));
    let result =
        |row: usize, result: &str| envelope(&json!(format!("r{row}")), row, true, result, "null");
    let chunk = [
        result(1, "{\"label\": \"pos\", \"score\": 1.50}"),
        result(2, "{\"label\": \"maybe\"}"),
        result(3, "\"{\\\"label\\\": \\\"pos\\\"}\""),
    ]
    .join("\n");
    work_dir(&bench, "wd", "in.jsonl", 4, &[&chunk]);
    let ask = format!("{ASK} --work-dir wd --resume");
    bench
        .run(&ask)
        .expect(78)
        .says("line 1 of wd/chunk-000.jsonl holds a structured answer")
        .says("--json-schema");
    bench
        .run(&format!("{ask} --schema label:pos|neg,score?:number"))
        .expect(0)
        .says("took over 1 answers")
        .says("2 answers in it do not fit the schema");
    let first = bench.read("out.jsonl").lines().next().unwrap().to_owned();
    assert!(first.contains("\"result\":{\"label\": \"pos\", \"score\": 1.50}"), "{first}");
    assert_eq!(bench.lines("out.jsonl")[1]["result"], json!({"label": "neg"}));
    assert_eq!(server.count(), 3);
}

#[test]
fn an_output_of_fast_agents_is_gone_on_from() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(12));
    bench.write("out.jsonl", chunks_of_twelve()[..3].join("\n"));
    bench
        .run(&format!("{ASK} --resume"))
        .expect(0)
        .says("took over 6 answers from ")
        .says("out.jsonl; fast-agent notes neither model nor prompt")
        .says("1 answers in it are the texts of failed calls")
        .says("1 answers in it are empty");
    assert_output(&bench, 12, &[1, 2, 5, 7, 8, 9]);
    assert_eq!(server.count(), 6);
    bench.run(&format!("{ASK} --resume")).expect(0);
    assert_eq!(server.count(), 6);
}

#[test]
fn an_output_without_ids_is_gone_on_from_where_it_shows_its_rows_or_somebody_says_so() {
    const NO_IDS: &str = "run in.jsonl -o out.jsonl -p {{text}} -m m --resume";
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", format!("\n{}", rows(3)));
    let line = |number: usize| {
        let line = answer(number, number);
        line.replace(&format!("old {number}"), &format!("old {}", number - 1))
    };
    let bare = [line(2), line(4)].join("\n");
    bench.write("out.jsonl", &bare);
    let before = bench.snapshot();
    bench.run(NO_IDS).expect(78).says("only their row numbers tell").says("--on-change new-only");
    assert_same(&bench.snapshot(), &before);
    bench.run(&format!("{NO_IDS} --on-change new-only")).expect(0).says("took over 2 answers");
    assert_output(&bench, 3, &[1, 3]);
    assert_eq!(server.count(), 1);
    fs::remove_dir_all(bench.path("out.jsonl.rowmill")).unwrap();

    // What they show is compared, however it is spelled.
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    let shown = [
        showing(&line(2), "{\"text\": \"text 1\", \"id\": \"r1\"}"),
        showing(&line(3), "{\"id\": \"r2\", \"text\": \"another\"}"),
    ];
    bench.write("out.jsonl", shown.join("\n"));
    bench
        .run(NO_IDS)
        .expect(0)
        .says("took over 1 answers")
        .says("1 answers in it show other rows than there are now");
    assert_output(&bench, 3, &[1]);
    assert_eq!(server.count(), 3);
}

/// How JSON is spelled does not prove who wrote it: rowmill counts rows, fast-agent lines and records from 2.
#[test]
fn numbers_that_may_count_rows_or_lines_are_not_guessed_at() {
    const NO_IDS: &str = "-o out.jsonl -p {{text}} -m m --resume --on-change new-only";
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.csv", "id,text\nr1,text 1\nr2,text 2\nr3,text 3\n");
    bench.write("blank.jsonl", format!("\n{}", rows(3)));
    bench.write("in.jsonl", rows(3));
    // rowmill's numbers, spelled by Python.
    for (input, numbers) in [("in.csv", [2, 3]), ("blank.jsonl", [2, 3])] {
        bench.write("out.jsonl", numbers.map(|row| answer(row, row) + "\n").concat());
        let before = bench.snapshot();
        bench
            .run(&format!("run {input} {NO_IDS}"))
            .expect(78)
            .says("count rows, as rowmill's do, or lines, as fast-agent's do");
        assert_same(&bench.snapshot(), &before);
    }
    assert_eq!(server.count(), 0);
    // A record behind the last row is fast-agent's; where no line is blank both count the same.
    let of_record = |number: usize| {
        let line = answer(number, number);
        line.replace(&format!("old {number}"), &format!("old {}", number - 1)) + "\n"
    };
    for (input, output) in [
        ("in.csv", [3, 4].map(of_record).concat()),
        ("in.jsonl", [2, 3].map(|row| answer(row, row) + "\n").concat()),
    ] {
        bench.write("out.jsonl", output);
        bench.run(&format!("run {input} {NO_IDS}")).expect(0).says("took over 2 answers");
        assert_output(&bench, 3, &[2, 3]);
        fs::remove_dir_all(bench.path("out.jsonl.rowmill")).unwrap();
        fs::remove_file(bench.path("out.jsonl")).unwrap();
    }
    assert_eq!(server.count(), 2);
}

#[test]
fn what_stands_in_the_way_is_not_overwritten_with_answers() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    bench.write("out.jsonl", answer("r1", 1));
    bench.write("foreign.json", "{\"processed\": 3}\n");
    work_dir(&bench, "wd", "in.jsonl", 3, &[&answer("r1", 1)]);
    let before = bench.snapshot();
    for (line, option) in [
        (format!("{ASK} --resume --telemetry-output foreign.json"), "--telemetry-output"),
        (format!("{ASK} --resume --summary-output foreign.json"), "--summary-output"),
        (format!("{ASK} --resume --work-dir wd").replace("out.jsonl", "foreign.json"), "--output"),
    ] {
        let ended = bench.run(&line).expect(73).says("foreign.json exists and is no file");
        let ended = ended.says(&format!("give {option} another path, or move that file away"));
        assert!(!ended.stderr.contains("--overwrite"), "{}", ended.stderr);
        assert_same(&bench.snapshot(), &before);
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn chunks_that_are_not_there_are_named() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(5));
    let chunk = answer("r1", 1);
    work_dir(&bench, "wd", "in.jsonl", 5, &[&chunk, "", ""]);
    let ended = bench.run(&format!("{ASK} --work-dir wd --resume")).expect(0).says(
        "2 of the 3 chunk files of wd are not there (chunk-001.jsonl, chunk-002.jsonl): their 3 rows are asked",
    );
    assert!(!ended.stderr.contains("does not add up"), "{}", ended.stderr);
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    let cut = bench.read("wd/manifest.json").replacen("\"limit\": 2", "\"limit\": 1", 1);
    bench.write("wd/manifest.json", cut);
    bench
        .run(&format!("{ASK} --work-dir wd --resume"))
        .expect(0)
        .says("wd does not add up: its chunks are of 4 rows, and 5 were selected");
}

#[test]
fn a_work_dir_at_the_default_place_is_named() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(2));
    for stamp in ["20261119T100000Z-ffffffff", "20261120T100000Z-1234abcd"] {
        work_dir(&bench, &format!(".out.jsonl.batch/{stamp}"), "in.jsonl", 2, &[&answer("r1", 1)]);
    }
    fs::create_dir(bench.path(".out.jsonl.batch/zzz")).unwrap();
    bench
        .run(&format!("{ASK} --resume"))
        .expect(0)
        .says("nothing to resume")
        .says(".out.jsonl.batch/20261120T100000Z-1234abcd is a work directory of fast-agent's")
        .says("--work-dir ");
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    bench
        .run(&format!("{ASK} --resume --work-dir .out.jsonl.batch/20261120T100000Z-1234abcd"))
        .expect(0)
        .says("took over 1 answers");
    assert_output(&bench, 2, &[1]);
}

#[test]
fn a_whole_line_behind_a_torn_one_is_read_and_a_row_within_is_not() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(4));
    // The row that it shows looks like a line itself, and is torn off right behind.
    let within = showing(&answer("r3", 3), &answer("r4", 4).replace("old", "shown"));
    let torn = within.strip_suffix('}').unwrap();
    let lines = [
        format!("{}{}", &answer("r1", 1)[..40], answer("r2", 2)),
        format!("{torn}{}", answer("r1", 1)),
    ];
    work_dir(&bench, "wd", "in.jsonl", 4, &[&lines.join("\n")]);
    bench
        .run(&format!("{ASK} --work-dir wd --resume"))
        .expect(0)
        .says("took over 2 answers")
        .says("2 lines of wd are no envelopes");
    assert_output(&bench, 4, &[1, 2]);
}

#[test]
fn answers_of_rows_that_cannot_be_read_here_are_told() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.csv", "id,text\nr1,text 1\nr2\nr3,text 3\n");
    let chunk = [answer(2, 2), answer(3, 3), answer(4, 4)].join("\n");
    work_dir(&bench, "wd", "in.csv", 3, &[&chunk]);
    bench
        .run("run in.csv -o out.jsonl -p {{text}} -m m --work-dir wd --resume")
        .expect(3)
        .says("took over 2 answers")
        .says("1 answers in it are of rows that cannot be asked about");
    assert_eq!(server.count(), 0);
}

#[test]
fn results_of_run_batch_are_gone_on_from() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", ["a", "b", "c", "d"].map(request).concat());
    let result = |id: &str, status: u16, body: &str, error: &str| {
        format!(
            "{{\"id\":\"vllm-{id}\",\"custom_id\":\"{id}\",\"response\":{{\"status_code\":{status},\
             \"request_id\":\"vllm-batch-{id}\",\"body\":{body}}},\"error\":{error}}}\n"
        )
    };
    let old = "{ \"choices\": [{\"message\": {\"content\": \"old\"}}], \"n\": 1.50 }";
    let output = [
        // In the order in which they came; the last one is torn.
        result("c", 200, old, "null"),
        result("b", 400, "null", "{\"error\":{\"message\":\"too long\"}}"),
        result("a", 200, old, "null"),
        result("d", 200, old, "null")[..60].to_owned(),
    ];
    // As some editors leave it.
    bench.write("out.jsonl", format!("\u{feff}{}", output.concat()));
    let ask = "run in.jsonl -o out.jsonl --resume";
    bench.run(ask).expect(0).says("took over 2 answers").says("are no results (first line 4)");
    let mut asked: Vec<_> = server.calls().into_iter().map(|call| call.prompt).collect();
    asked.sort();
    assert_eq!(asked, ["b", "d"]);
    let lines = bench.lines("out.jsonl");
    let ids: Vec<_> = lines.iter().map(|line| line["custom_id"].clone()).collect();
    assert_eq!(ids, ["a", "b", "c", "d"]);
    let text = bench.read("out.jsonl");
    assert_eq!(text.matches(&format!("\"body\":{old}}}")).count(), 2, "{text}");
    // The work directory is gone, and request ids are not lost by looking again.
    let done = bench.snapshot();
    bench.run(ask).expect(0).says("took over 4 answers");
    assert_same(&bench.snapshot(), &done);
    assert_eq!(server.count(), 2);
}

#[test]
fn answers_to_prompts_are_taken_over_by_ids_that_are_no_row_numbers() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let input = "{\"id\":\"a\",\"prompt\":\"one\"}\n{\"id\":2,\"prompt\":\"two\"}\n{\"prompt\":\"three\"}\n";
    bench.write("in.jsonl", input);
    let ask = "run in.jsonl -o out.jsonl -m m --resume";
    let answer =
        |id: &str| format!("{{\"id\":{id},\"model\":\"m\",\"output\":\"kept\",\"tokens\":1}}\n");
    for number in ["2", "3"] {
        bench.write("out.jsonl", answer("\"a\"") + &answer(number));
        bench.run(ask).expect(78).says("numbers in it as ids may be those of rows");
    }
    assert_eq!(server.count(), 0);
    let failed = "{\"id\":3,\"model\":\"m\",\"error\":\"503: busy\"}\n";
    bench.write("out.jsonl", answer("\"a\"") + failed);
    bench.run(ask).expect(0).says("took over 1 answers");
    assert_eq!((server.count(), bench.lines("out.jsonl")[0]["output"].as_str()), (2, Some("kept")));
    // What rowmill wrote says of which input it is, numbers or not.
    bench.run(ask).expect(0).says("took over 3 answers");
    assert_eq!(server.count(), 2);
}

#[test]
fn a_directory_that_only_looks_like_it_is_not_taken_over() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(2));
    let chunk = answer("r1", 1);
    for manifest in ["", "{\"chunks\": []}", "{\"input\": \"x\", \"input_rows\": 2, \"chunks\": [{"]
    {
        work_dir(&bench, "wd", "in.jsonl", 2, &[&chunk]);
        bench.write("wd/manifest.json", manifest);
        bench.run(&format!("{ASK} --work-dir wd --resume")).expect(73).says("not a work directory");
    }
    assert!(Path::new(&bench.path("wd/chunk-000.jsonl")).exists() && server.count() == 0);
}
