//! Inputs that are behind a URL, outputs that go to one, and the secrets in both.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::depot::{Depot, Document, Say, Seen};
use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, CANARY, Ended, assert_same, assert_text, rows};

/// Stands in for the signature of a pre-signed URL; must never be found anywhere.
const SECRET: &str = "geheim7c1e9b";

const ASK: &str = "--id-field id -p {{text}} -m m";

fn query(n: usize) -> String {
    format!("?X-Amz-Expires=60&X-Amz-Signature={SECRET}%2F{n}")
}

/// Makes sure that nobody was told the secret, on the screen or in a file.
#[track_caller]
fn kept_secret(bench: &Bench, ended: Ended) -> Ended {
    let told = ended.stdout.contains(SECRET) || ended.stderr.contains(SECRET);
    assert!(!told, "{ended:?}");
    for (path, bytes) in bench.snapshot() {
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "the secret is in {}", path.display());
    }
    ended
}

#[track_caller]
fn run(bench: &Bench, line: &str) -> Ended {
    kept_secret(bench, bench.run(&format!("{line} --log-file log")))
}

/// Takes whatever is put there.
fn taker() -> Depot {
    Depot::start(|_| Say::status(200))
}

#[test]
fn an_input_is_fetched_once_and_again_for_an_update() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let depot = Depot::start(|seen| match seen.nth {
        1 => Say::document(rows(30)),
        _ => Say::document(rows(32)),
    });
    let url = depot.url("/data/rows.jsonl") + &query(1);
    let ask = format!("run -i {url} {ASK} -o out.jsonl --work-dir job");
    let summary = run(&bench, &ask).expect(0).summary();
    assert_eq!(summary["input"]["url"], depot.url("/data/rows.jsonl"));
    assert!(summary["input"]["path"].is_null());
    bench.assert_answers(30);
    let first = &depot.seen()[0];
    assert_eq!(first.target, format!("/data/rows.jsonl{}", query(1)));
    assert_eq!(first.header("accept-encoding"), Some("identity"));
    assert!(first.headers.values().all(|value| !value.contains(CANARY)), "{first:?}");

    // The same again, signed anew, asks nobody anything.
    let before = bench.snapshot();
    let again = ask.replace(&query(1), &query(2));
    kept_secret(&bench, bench.run(&format!("{again} --resume"))).expect(0);
    assert_same(&bench.snapshot(), &before);
    bench.run("work --work-dir job").expect(0);
    assert_eq!((depot.seen().len(), server.count()), (1, 30));

    let ended = run(&bench, &format!("{again} --resume --on-change update")).expect(0);
    ended.says("30 rows keep their answers, 0 changed, 2 are new");
    assert_eq!((depot.seen().len(), server.count()), (2, 32));
    bench.assert_answers(32);
    // From another place, what is there is compared.
    let moved = ask.replace("/data/", "/other/");
    let ended = run(&bench, &format!("{moved} --resume")).expect(78);
    ended.says("2 gone, 30 as they were");
    run(&bench, &format!("{moved} --resume")).expect(0);
    assert_eq!((depot.seen().len(), server.count()), (4, 32));
}

#[test]
fn with_answers_taken_over_an_input_is_still_known_to_be_of_its_url() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let depot = Depot::start(|_| Say::document(rows(30)));
    let ask = format!("run -i {} {ASK} --dedupe -o out.jsonl", depot.url("/rows.jsonl"));
    run(&bench, &ask).expect(0);
    assert!(!bench.exists("out.jsonl.rowmill"));
    let again = format!("{ask} --resume --work-dir job");
    run(&bench, &again).expect(0).says("took over 30 answers");
    assert_eq!((depot.seen().len(), server.count()), (2, 30));
    run(&bench, &again).expect(0);
    assert_eq!((depot.seen().len(), server.count()), (2, 30), "the plan's copy counts");
}

#[test]
fn what_broke_off_is_gone_on_with_where_it_is_the_same() {
    let whole = rows(200);
    for (has_ranges, etag, is_changed) in [
        (true, "\"v1\"", false),
        (false, "\"v1\"", false),
        (true, "W/\"v1\"", false),
        (true, "\"v1\"", true),
    ] {
        let server = Server::echo();
        let bench = Bench::with_server(&server);
        let text = whole.clone();
        let depot = Depot::start(move |seen| {
            let document = Document { has_ranges, etag, ..Document::new(text.clone()) };
            Say::Document(match seen.nth {
                1 => Document { cut: Some(1000), ..document },
                2 if has_ranges && !is_changed => Document { cut: Some(500), ..document },
                _ if is_changed => Document { etag: "\"v2\"", ..Document::new(rows(210)) },
                _ => document,
            })
        });
        let ask = format!("run {}{} {ASK} -o out.jsonl", depot.url("/rows.jsonl"), query(1));
        run(&bench, &ask).expect(0).says("tried again");
        bench.assert_answers(if is_changed { 210 } else { 200 });
        let seen = depot.seen();
        let ranges: Vec<_> = seen.iter().map(|seen| seen.header("range")).collect();
        let validators: Vec<_> = seen.iter().map(|seen| seen.header("if-range")).collect();
        if is_changed {
            assert_eq!(ranges, [None, Some("bytes=1000-")]);
        } else if has_ranges && etag.starts_with('"') {
            assert_eq!(ranges, [None, Some("bytes=1000-"), Some("bytes=1500-")]);
            assert_eq!(validators, [None, Some(etag), Some(etag)]);
        } else {
            assert!(ranges.iter().all(Option::is_none), "{ranges:?}");
        }
    }
}

#[test]
fn what_a_killed_process_fetched_is_gone_on_with() {
    // The first four megabytes are known to be on the disk.
    let text: String = (1..=60)
        .map(|n| {
            format!("{{\"id\":\"r{n}\",\"text\":\"text {n}\",\"x\":\"{}\"}}\n", "x".repeat(100_000))
        })
        .collect();
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    let (document, length) = (text.clone(), text.len());
    let depot = Depot::start(move |seen| {
        let document = Document::new(document.clone());
        Say::Document(match seen.nth {
            1 => Document { hold: Some(length - 1000), ..document },
            _ => document,
        })
    });
    let ask = format!("run {}{} {ASK} -o out.jsonl", depot.url("/rows.jsonl"), query(1));
    let running = bench.start(&ask);
    let note = "out.jsonl.rowmill/input.part.json";
    while !bench.exists(note) {
        std::thread::yield_now();
    }
    running.kill();
    run(&bench, &ask.replace(&query(1), &query(2))).expect(0).says("of which");
    bench.assert_answers(60);
    let range = depot.seen()[1].header("range").unwrap().to_owned();
    let from: usize =
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    assert!(from >= 4 << 20, "{from}");
    assert!(!bench.exists("out.jsonl.rowmill"));
}

#[test]
fn an_input_that_cannot_be_planned_at_first_is_not_fetched_again() {
    let depot = Depot::start(|seen| match seen.nth {
        3.. => Say::Document(Document { etag: "\"v2\"", ..Document::new(rows(4)) }),
        _ => Say::document(rows(3) + &rows(2)),
    });
    let bench = Bench::new();
    let url = depot.url("/rows.jsonl") + &query(1);
    let ask = format!("run {url} --id-field id -p {{{{id}}}} -m passthrough -o out.jsonl");
    run(&bench, &ask).expect(65).says("have the id of an earlier row");
    run(&bench, &ask).expect(65).says("have the id of an earlier row");
    let length = (rows(3) + &rows(2)).len();
    let range = depot.seen()[1].header("range").unwrap().to_owned();
    assert_eq!(range, format!("bytes={}-", length - 1));
    // Unless it is another by now.
    run(&bench, &ask).expect(0);
    assert_eq!((bench.lines("out.jsonl").len(), depot.seen().len()), (4, 3));
    assert!(!bench.exists("out.jsonl.rowmill"));
}

#[test]
fn an_input_that_is_not_there_is_told_from_one_that_cannot_be_asked_for() {
    let depot = Depot::start(|seen| match seen.path() {
        "/busy.jsonl" => Say::Status(503, vec![("retry-after", "9999".into())], String::new()),
        "/secret.jsonl" => Say::status(403),
        "/round.jsonl" => Say::Status(302, vec![("location", "?again".into())], String::new()),
        "/packed.jsonl" => Say::document(b"\x1f\x8b\x08...".as_slice()),
        "/endless.jsonl" => Say::Close,
        _ => Say::status(404),
    });
    let bench = Bench::new();
    for (path, code, said) in [
        ("/none.jsonl", 66, "HTTP 404"),
        ("/secret.jsonl", 66, "HTTP 403"),
        ("/round.jsonl", 66, "again and again"),
        ("/busy.jsonl", 69, "HTTP 503; it asks to be left alone for 9999 s"),
        ("/packed.jsonl", 65, "looks like gzip"),
    ] {
        let url = depot.url(path) + &query(1);
        let ended = run(&bench, &format!("run {url} -p {{{{id}}}} -m passthrough -o out.jsonl"));
        ended.expect(code).says(said).says(&depot.url(path));
        assert!(!bench.exists("out.jsonl.rowmill"), "{path}");
    }
    for (url, said) in [
        (format!("http://u:{SECRET}@127.0.0.1/a.jsonl"), "a user name or password"),
        (format!("https://?{SECRET}"), "it is no URL"),
    ] {
        let ended = run(&bench, &format!("run {url} -p {{{{id}}}} -m passthrough -o out.jsonl"));
        ended.expect(2).says(said);
    }
    let url = depot.url("/a.jsonl") + &query(1);
    run(&bench, &format!("work --work-dir job --input {url}")).expect(2).says("leave --input out");
    // Not even by those who parse the command line.
    kept_secret(&bench, bench.run(&format!("run a {url} --nonsense={url}"))).expect(2);
}

#[test]
fn a_document_that_moved_is_followed_and_csv_is_known_by_name_or_type() {
    let csv = "id,text\nr1,text 1\nr2,text 2\n";
    let depot = Depot::start(move |seen| match seen.target.as_str() {
        "/a/moved.jsonl?x" => {
            Say::Status(307, vec![("location", format!("../rows{}", query(7)))], String::new())
        }
        "/table.csv" => Say::document(csv),
        "/export" => Say::Document(Document { content_type: "text/csv", ..Document::new(csv) }),
        target if target.starts_with("/rows?") => Say::document(rows(2)),
        _ => Say::status(404),
    });
    let server = Server::echo();
    for path in ["/a/moved.jsonl?x", "/table.csv", "/export"] {
        let bench = Bench::with_server(&server);
        let ask = format!("run {} {ASK} -o out.jsonl --work-dir job", depot.url(path));
        run(&bench, &ask).expect(0);
        bench.assert_answers(2);
        let calls = server.count();
        bench.run(&format!("{ask} --resume --on-change update")).expect(0);
        bench.run(&format!("{ask} --resume --shards 2")).expect(0);
        assert_eq!(server.count(), calls, "{path}");
    }
    // A preview leaves nothing behind.
    let bench = Bench::with_server(&server);
    let calls = server.count();
    run(&bench, &format!("run {} {ASK} -o out.jsonl --dry-run", depot.url("/table.csv"))).expect(0);
    assert_eq!(server.count(), calls);
}

#[test]
fn an_output_is_uploaded_once_however_often_that_is_asked() {
    let depot = Depot::start(|seen| match seen.nth {
        1 => Say::status(503),
        2 => Say::Close,
        _ => Say::Status(200, vec![("etag", "\"x\"".into())], String::new()),
    });
    let server = Server::echo();
    let mut bench = Bench::with_rows(20);
    bench.set("OPENAI_BASE_URL", &server.url());
    let url = depot.url("/bucket/out.jsonl") + &query(1);
    let ask = format!("run in.jsonl {ASK} -o {url} --summary-output summary.json");
    let ended = run(&bench, &ask).expect(0).says("HTTP 503; tried again");
    let puts = depot.of("PUT");
    assert_eq!(puts.len(), 3);
    let taken = &puts[2];
    assert_eq!(taken.target, format!("/bucket/out.jsonl{}", query(1)));
    let mut names: Vec<_> = taken.headers.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "content-type", "host"]);
    assert_eq!(taken.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(taken.header("content-length"), Some(taken.body.len().to_string().as_str()));
    bench.write("taken.jsonl", &taken.body);
    assert_eq!(bench.lines("taken.jsonl").len(), 20);
    let output = &ended.summary()["outputs"][0];
    assert_eq!(output["path"], depot.url("/bucket/out.jsonl"));
    assert_eq!(output["blake3"], blake3::hash(&taken.body).to_hex().as_str());
    assert_eq!(bench.json("summary.json")["outputs"][0], *output);

    // What tells that it was uploaded stays, and nothing but that.
    let before = bench.snapshot();
    for n in 2..4 {
        let again = ask.replace(&query(1), &query(n));
        kept_secret(&bench, bench.run(&format!("{again} --resume"))).expect(0);
    }
    assert!(bench.exists("out.jsonl.rowmill/commit-000001.json"));
    assert_same(&bench.snapshot(), &before);
    run(&bench, &ask).expect(73);
    assert_eq!((depot.seen().len(), server.count()), (3, 20));
    // Elsewhere, and back: it is still there.
    let merge = "merge --work-dir out.jsonl.rowmill";
    run(&bench, &format!("{merge} -o local.jsonl")).expect(0);
    assert_text(&bench.read("local.jsonl"), &bench.read("taken.jsonl"));
    run(&bench, &format!("{merge} -o {url}")).expect(0);
    assert_eq!(depot.seen().len(), 3);
    // Whoever wants it there once more says so.
    run(&bench, &format!("{merge} -o {url} --overwrite")).expect(0);
    assert_eq!((depot.seen().len(), server.count()), (4, 20));
    bench.run("check --work-dir out.jsonl.rowmill").expect(0);
}

#[test]
fn an_upload_that_failed_is_made_up_for_without_a_call() {
    let error = format!("<Error><Code>AccessDenied</Code><Is>{SECRET}</Is></Error>");
    let depot = Depot::start(move |seen| {
        let is_expired = !seen.target.ends_with("%2F2");
        if is_expired { Say::Status(403, Vec::new(), error.clone()) } else { Say::status(201) }
    });
    for way in ["run", "merge"] {
        let server = Server::echo();
        let mut bench = Bench::with_rows(20);
        bench.set("OPENAI_BASE_URL", &server.url());
        bench.write("summary.json", "");
        let url = depot.url("/out.jsonl") + &query(1);
        let ask = format!("run in.jsonl {ASK} -o {url} --summary-output summary.json --resume");
        let ended = run(&bench, &ask).expect(74).says("HTTP 403 (AccessDenied)");
        ended.says(&format!("-o '{}?…'", depot.url("/out.jsonl")));
        assert_eq!(bench.read("summary.json"), "", "it would tell what is not there");
        let status = bench.run("status --work-dir out.jsonl.rowmill --json").expect(0).summary();
        assert_eq!(
            (&status["state"], &status["last_run"]["code"]),
            (&"complete".into(), &74.into())
        );
        assert_eq!(status["published"]["waiting"][0], depot.url("/out.jsonl"));
        let shown = bench.run("status --work-dir out.jsonl.rowmill").expect(0).stdout;
        assert!(shown.contains("waits for its upload: http://"), "{shown}");
        bench.run("check --work-dir out.jsonl.rowmill").expect(0);
        // Still not; and those who can upload nothing leave it alone.
        run(&bench, &ask).expect(74);
        run(&bench, "work --work-dir out.jsonl.rowmill").expect(0).says("waits for a merge");
        let puts = depot.of("PUT").len();
        let fresh = url.replace(&query(1), &query(2));
        if way == "run" {
            run(&bench, &ask.replace(&url, &fresh)).expect(0);
        } else {
            let merge = format!("merge --work-dir out.jsonl.rowmill -o {fresh}");
            run(&bench, &format!("{merge} --summary-output summary.json")).expect(0);
        }
        let taken = depot.of("PUT");
        assert_eq!(taken.len(), puts + 1, "{way}");
        assert_eq!(bench.json("summary.json")["outputs"][0]["bytes"], taken[puts].body.len());
        assert_eq!(server.count(), 20);
        let status = bench.run("status --work-dir out.jsonl.rowmill --json").expect(0).summary();
        assert_eq!(
            (&status["state"], &status["last_run"]["code"]),
            (&"published".into(), &0.into())
        );
        let names: Vec<_> = fs::read_dir(bench.path("out.jsonl.rowmill"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(!names.iter().any(|name| name.ends_with(".staged")), "{names:?}");
    }
}

#[test]
fn a_process_that_dies_between_the_upload_and_its_record_uploads_once_more() {
    let depot = Depot::start(|seen| if seen.nth == 1 { Say::Hold } else { Say::status(200) });
    let server = Server::echo();
    let mut bench = Bench::with_rows(20);
    bench.set("OPENAI_BASE_URL", &server.url());
    let ask = format!("run in.jsonl {ASK} -o {}{} --resume", depot.url("/out.jsonl"), query(1));
    let running = bench.start(&ask);
    depot.wait_for(1);
    running.kill();
    run(&bench, &ask).expect(0);
    run(&bench, &ask).expect(0);
    let puts = depot.of("PUT");
    assert_eq!((puts.len(), server.count()), (2, 20));
    assert!(puts[0].body == puts[1].body);
}

#[test]
fn a_signal_during_an_upload_is_heeded_and_the_upload_made_up_for() {
    let depot = Depot::start(|seen| if seen.nth == 1 { Say::Hold } else { Say::status(200) });
    let server = Server::echo();
    let mut bench = Bench::with_rows(20);
    bench.set("OPENAI_BASE_URL", &server.url());
    let url = depot.url("/out.jsonl") + &query(1);
    let ask = format!("run in.jsonl {ASK} -o {url} --drain-timeout 1");
    let running = bench.start(&ask);
    depot.wait_for(1);
    running.signal("-TERM");
    // The server never answers: it is the time to drain that ends it.
    let ended = kept_secret(&bench, running.wait()).expect(143);
    let ended = ended.says("ending: waiting for the upload under way, 1 s at most");
    assert!(!ended.stderr.contains("calls in flight"), "{ended:?}");
    ended.says("--resume");
    run(&bench, &format!("{ask} --resume")).expect(0);
    assert_eq!((depot.of("PUT").len(), server.count()), (2, 20));
}

#[test]
fn of_several_outputs_only_what_is_missing_is_uploaded() {
    let broken = AtomicUsize::new(1);
    let depot = Depot::start(move |seen| match seen.path() {
        "/telemetry" if broken.fetch_sub(1, Ordering::Relaxed) == 1 => Say::status(400),
        _ => Say::status(200),
    });
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 7" if call.nth == 1 => Reply::status(400),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let mut bench = Bench::with_rows(20);
    bench.set("OPENAI_BASE_URL", &server.url());
    let at = |path: &str| depot.url(path) + &query(1);
    let ask = format!(
        "run in.jsonl {ASK} -o {} --error-output {} --telemetry-output {} --summary-output {} \
         --output-delta delta.jsonl --resume --no-retry-failed",
        at("/out"),
        at("/errors"),
        at("/telemetry"),
        at("/summary")
    );
    fs::create_dir(bench.path("tmp")).unwrap();
    run(&bench, &format!("{ask} --output-tmp-dir nowhere")).expect(73);
    assert_eq!(server.count(), 0);
    run(&bench, &format!("{ask} --output-tmp-dir tmp")).expect(74).says("HTTP 400");
    assert!(!bench.exists("delta.jsonl"));
    let waiting = fs::read_dir(bench.path("tmp")).unwrap().count();
    assert_eq!(waiting, 2, "telemetry and summary");
    run(&bench, &format!("{ask} --output-tmp-dir tmp")).expect(3);
    let paths: Vec<_> = depot.seen().iter().map(|seen| seen.path().to_owned()).collect();
    assert_eq!(paths, ["/out", "/errors", "/telemetry", "/telemetry", "/summary"]);
    assert_eq!(fs::read_dir(bench.path("tmp")).unwrap().count(), 0);
    assert_eq!(bench.lines("delta.jsonl").len(), 19);
    let last: &Seen = &depot.seen()[4];
    assert_eq!(last.header("content-type"), Some("application/json"));
    let summary: serde_json::Value = serde_json::from_slice(&last.body).unwrap();
    assert_eq!(summary["outputs"].as_array().unwrap().len(), 4);

    // Another answer is another output, and nothing that is as it was goes again.
    run(&bench, &ask.replace(" --no-retry-failed", "")).expect(0);
    assert_eq!((server.count(), depot.seen().len()), (21, 9));
}

#[test]
fn an_upload_that_is_not_wanted_or_not_staged_any_more_is_made_up_for() {
    let depot = Depot::start(|seen| match seen.path() {
        "/nowhere" => Say::status(404),
        _ if seen.nth == 1 => Say::status(403),
        _ => Say::status(200),
    });
    let server = Server::echo();
    let mut bench = Bench::with_rows(20);
    bench.set("OPENAI_BASE_URL", &server.url());
    fs::create_dir(bench.path("tmp")).unwrap();
    let ask = format!("run in.jsonl {ASK} --work-dir job --output-tmp-dir tmp --resume");
    let nowhere = depot.url("/nowhere") + &query(1);
    run(&bench, &format!("{ask} -o {nowhere}")).expect(74);
    // Elsewhere instead.
    let place = depot.url("/out") + &query(1);
    let ended = run(&bench, &format!("{ask} -o {place}")).expect(74);
    ended.says(&format!("{} (output) that waited is given up", depot.url("/nowhere")));
    // What waits is taken away.
    fs::remove_dir_all(bench.path("tmp")).unwrap();
    fs::create_dir(bench.path("tmp")).unwrap();
    run(&bench, &format!("{ask} -o {place}")).expect(0);
    assert_eq!(depot.seen()[2].body.iter().filter(|byte| **byte == b'\n').count(), 20);
    assert_eq!(fs::read_dir(bench.path("tmp")).unwrap().count(), 0);
    // A slash more is another place.
    run(&bench, &format!("{ask} -o {}", depot.url("//out") + &query(1))).expect(74);
    assert_eq!((depot.seen().len(), server.count()), (4, 20));
}

#[test]
fn places_of_outputs_are_told_apart() {
    let depot = taker();
    let bench = Bench::with_rows(3);
    let url = depot.url("/x.jsonl") + &query(1);
    let ask = "-p {{id}} -m passthrough";
    let other = url.replace(&query(1), &query(2));
    run(&bench, &format!("run {url} {ask} -o {other}")).expect(2).says("must not be the input");
    run(&bench, &format!("run in.jsonl {ask} -o {url} --error-output {other}"))
        .expect(2)
        .says("--error-output must not be the file of --output");
    run(&bench, &format!("run in.jsonl {ask} -o https://u:{SECRET}@h/x")).expect(2);
    assert_eq!(depot.seen().len(), 0);
    // An empty output is uploaded as well.
    bench.write("in.jsonl", "");
    run(&bench, &format!("run in.jsonl {ask} -o {url}")).expect(0);
    let seen = depot.seen();
    assert_eq!((seen.len(), seen[0].header("content-length")), (1, Some("0")));
    assert!(bench.exists("x.jsonl.rowmill"));
}
