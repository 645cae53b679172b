//! Rows that carry an image, a sound or a PDF: what the server sees, and what becomes of rows whose
//! attachment cannot be sent.

use std::fs;

use serde_json::{Value, json};

use crate::support::server::{Reply, Server};
use crate::support::{Bench, assert_same};

/// A picture of one pixel: signature, header, data, end.
const PNG: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\0\0\0\nIDATx\
                     \x9cc`\0\0\0\x02\0\x01H\xaf\xa4q\0\0\0\0IEND\xaeB`\x82";
const WAV: &[u8] =
    b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0\
                     data\x02\0\0\0\0\0";
const PDF: &[u8] =
    b"%PDF-1.1\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n";

const ASK: &str =
    "run in.jsonl -o out.jsonl --id-field id -p {{text}} --attachment-field file -m m";

/// Bytes in base64, by the definition: six bits a character.
fn base64(bytes: &[u8]) -> String {
    let alphabet: Vec<char> =
        ('A'..='Z').chain('a'..='z').chain('0'..='9').chain("+/".chars()).collect();
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= three.len() { alphabet[index] } else { '=' });
        }
    }
    text
}

fn row(id: &str, file: &Value) -> String {
    format!("{}\n", json!({"id": id, "text": format!("about {id}"), "file": file}))
}

/// Writes one row a name, and the files that the names may be of.
fn bench(server: &Server, rows: &[(&str, Value)]) -> Bench {
    let bench = Bench::with_server(server);
    bench.write("a.png", PNG);
    bench.write("sub/b.wav", WAV);
    bench.write("c.pdf", PDF);
    let rows: String = rows.iter().map(|(id, file)| row(id, file)).collect();
    bench.write("in.jsonl", rows);
    bench
}

/// What was asked of a row: the content of its message.
fn content(server: &Server, id: &str) -> Value {
    let calls = server.calls();
    let call = calls.iter().find(|call| call.prompt == format!("about {id}"));
    let body = &call.unwrap_or_else(|| panic!("nobody asked about {id}")).body;
    match body["messages"].as_array() {
        Some(messages) => messages.last().unwrap()["content"].clone(),
        None if body["input"].is_array() => body["input"][0]["content"].clone(),
        None => body["input"].clone(),
    }
}

/// The class and message of a row that failed without a call.
fn error(bench: &Bench, id: &str) -> (String, String) {
    let lines = bench.lines("out.jsonl");
    let line = lines.iter().find(|line| line["id"] == id).unwrap();
    assert_eq!(line["error"]["attempts"], 0, "{line}");
    let part = |name: &str| line["error"][name].as_str().unwrap_or_default().to_owned();
    (part("class"), part("message"))
}

#[test]
fn chat_sees_every_kind_as_it_is_documented() {
    let server = Server::echo();
    let uri = format!("data:image/png;base64,{}", base64(PNG));
    let rows = [
        ("png", json!("a.png")),
        ("wav", json!("sub/b.wav")),
        ("pdf", json!("c.pdf")),
        ("uri", json!(uri)),
        ("url", json!("https://example.org/x.jpg")),
        ("two", json!(["a.png", "https://example.org/y.png"])),
        ("none", json!(null)),
        ("empty", json!("")),
    ];
    let bench = bench(&server, &rows);
    bench.run(ASK).expect(0);
    let text = |id: &str| json!({"type": "text", "text": format!("about {id}")});
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    assert_eq!(content(&server, "png"), json!([text("png"), image(&uri)]));
    let sound = json!({"data": base64(WAV), "format": "wav"});
    let sound = json!({"type": "input_audio", "input_audio": sound});
    assert_eq!(content(&server, "wav"), json!([text("wav"), sound]));
    let data = format!("data:application/pdf;base64,{}", base64(PDF));
    let file = json!({"type": "file", "file": {"filename": "c.pdf", "file_data": data}});
    assert_eq!(content(&server, "pdf"), json!([text("pdf"), file]));
    assert_eq!(content(&server, "uri"), json!([text("uri"), image(&uri)]));
    let far = image("https://example.org/x.jpg");
    assert_eq!(content(&server, "url"), json!([text("url"), far]));
    let far = image("https://example.org/y.png");
    assert_eq!(content(&server, "two"), json!([text("two"), image(&uri), far]));
    assert_eq!(content(&server, "none"), "about none", "a row of text is asked as ever");
    assert_eq!(content(&server, "empty"), "about empty");
    let before = bench.snapshot();
    bench.run(&format!("{ASK} --resume")).expect(0);
    assert_eq!(server.count(), 8);
    assert_same(&bench.snapshot(), &before);
}

#[test]
fn the_other_protocols_and_transports_carry_them_too() {
    for (model, path) in [
        ("m --protocol responses", "/v1/responses"),
        ("m?transport=sse --protocol responses", "/v1/responses"),
        ("m?transport=ws --protocol responses", "/v1/responses"),
        ("m --protocol messages", "/v1/messages"),
        ("m?transport=sse --protocol messages", "/v1/messages"),
        ("m?transport=sse", "/v1/chat/completions"),
    ] {
        let server = Server::echo();
        let bench = bench(&server, &[("x", json!(["a.png", "c.pdf"]))]);
        bench.run(&ASK.replace("-m m", &format!("-m {model}"))).expect(0);
        assert_eq!(server.calls()[0].path, path);
        let (png, pdf) = (base64(PNG), base64(PDF));
        let (png_uri, pdf_uri) =
            (format!("data:image/png;base64,{png}"), format!("data:application/pdf;base64,{pdf}"));
        let expected = match path {
            "/v1/responses" => json!([
                {"type": "input_text", "text": "about x"},
                {"type": "input_image", "detail": "auto", "image_url": png_uri},
                {"type": "input_file", "filename": "c.pdf", "file_data": pdf_uri},
            ]),
            "/v1/messages" => json!([
                {"type": "image",
                 "source": {"type": "base64", "media_type": "image/png", "data": png}},
                {"type": "document",
                 "source": {"type": "base64", "media_type": "application/pdf", "data": pdf}},
                {"type": "text", "text": "about x"},
            ]),
            _ => json!([
                {"type": "text", "text": "about x"},
                {"type": "image_url", "image_url": {"url": png_uri}},
                {"type": "file", "file": {"filename": "c.pdf", "file_data": pdf_uri}},
            ]),
        };
        assert_eq!(content(&server, "x"), expected, "{model}");
        assert_eq!(bench.lines("out.jsonl")[0]["result"], "answer to <about x>", "{model}");
    }
}

#[test]
fn what_cannot_be_sent_fails_its_row_and_costs_no_call() {
    let server = Server::echo();
    let rows = [
        ("good", json!("a.png")),
        ("missing", json!("photos/none.png")),
        ("directory", json!("sub")),
        ("pipe", json!("pipe.png")),
        ("device", json!("/dev/zero")),
        ("nothing", json!("empty.png")),
        ("large", json!("large.png")),
        ("words", json!("words.txt")),
        ("called", json!("words.png")),
        ("linked", json!("link.jpg")),
        ("bucket", json!("s3://bucket/a.png")),
        ("url", json!("file:///photos/a.png")),
        ("far", json!("https://example.org/a.wav")),
        ("broken", json!("data:image/png;base64,!")),
        ("number", json!(7)),
        ("last", json!(null)),
    ];
    let bench = bench(&server, &rows);
    bench.write("empty.png", "");
    bench.write("large.png", [PNG, &[0; 2000]].concat());
    bench.write("words.txt", "root:x:0:0");
    bench.write("words.png", "root:x:0:0");
    std::os::unix::fs::symlink("words.txt", bench.path("link.jpg")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(bench.path("pipe.png")).status().unwrap();
    assert!(pipe.success());
    let ask = format!("{ASK} --max-attachment-bytes 2000");
    bench.run(&ask).expect(3).says("1 of 16 rows cannot be asked about");
    assert_eq!(server.count(), 2);
    for (id, says) in [
        ("missing", "photos/none.png: there is no such file"),
        ("directory", "sub: it is not a file"),
        ("pipe", "pipe.png: it is not a file"),
        ("device", "/dev/zero: it is not a file"),
        ("nothing", "empty.png: it is empty"),
        ("large", "bytes; a row may have 2000 of attachments (--max-attachment-bytes)"),
        ("words", "words.txt: it is neither an image nor sound nor a PDF that rowmill knows"),
        ("called", "words.png: it is neither an image nor sound nor a PDF that rowmill knows"),
        ("linked", "link.jpg: it is neither an image nor sound nor a PDF that rowmill knows"),
        (
            "bucket",
            "s3://bucket/a.png: rowmill attaches files, http(s) URLs and data URIs, not what is at s3://",
        ),
        (
            "url",
            "file:///photos/a.png: rowmill attaches files, http(s) URLs and data URIs, not what is at file://; name the path alone",
        ),
        ("far", "Chat Completions takes no URLs of sound, and rowmill fetches none"),
        ("broken", "a data URI of image/png: its base64 is broken"),
    ] {
        let (class, message) = error(&bench, id);
        assert_eq!(class, "attachment", "{id}");
        assert!(message.starts_with("field \"file\": "), "{message}");
        assert!(message.contains(says), "{id}: {message}");
    }
    let (class, message) = error(&bench, "number");
    assert_eq!(class, "invalid_row");
    assert_eq!(message, "the attachment field \"file\" is neither a string nor a list of strings");
    // Once the file is there, the row is done, and no other.
    bench.write("photos/none.png", PNG);
    let ended = bench.run(&format!("{ask} --resume --retry-class attachment")).expect(3);
    assert_eq!(server.count(), 3);
    let summary = ended.summary();
    assert_eq!(summary["rows"]["ok"], 3);
    assert_eq!(summary["failures"], json!({"attachment": 12, "invalid_row": 1}));
    assert_eq!(summary["calls"]["repeated_after_crash"], 0);
}

#[test]
fn sound_is_refused_where_the_protocol_has_no_word_for_it() {
    for protocol in ["responses", "messages"] {
        let server = Server::echo();
        let bench = bench(&server, &[("wav", json!("sub/b.wav")), ("png", json!("a.png"))]);
        bench.run(&format!("{ASK} --protocol {protocol}")).expect(3);
        assert_eq!(server.count(), 1);
        let (_, message) = error(&bench, "wav");
        assert!(message.contains("sub/b.wav: the "), "{message}");
        assert!(message.contains("protocol takes no sound"), "{message}");
    }
    let bench = Bench::with_rows(1);
    bench.run(&format!("{ASK} --protocol embeddings")).expect(2).says("embeddings take text only");
    bench.run("run in.jsonl -o out.jsonl -m m --max-attachment-bytes 7").expect(2);
}

#[test]
fn paths_are_relative_to_the_input_wherever_the_command_is_typed() {
    let server = Server::echo();
    let bench = bench(&server, &[]);
    bench.write("data/in.jsonl", row("x", &json!("pictures/p.jpg")));
    bench.write("data/pictures/p.jpg", b"\xff\xd8\xff\xe0");
    fs::create_dir(bench.path("elsewhere")).unwrap();
    let typed = ASK.replace("in.jsonl", "../data/in.jsonl");
    let mut command = bench.command(crate::support::words(&typed));
    assert!(command.current_dir(bench.path("elsewhere")).output().unwrap().status.success());
    assert_eq!(content(&server, "x")[1]["image_url"]["url"], "data:image/jpeg;base64,/9j/4A==");
    // A plan is worked from anywhere as well.
    let plan = "plan data/in.jsonl --work-dir job -p {{text}} --id-field id -m m \
                --attachment-field file";
    bench.run(plan).expect(0);
    let mut command = bench.command(["work", "--work-dir", "../job"]);
    assert!(command.current_dir(bench.path("elsewhere")).output().unwrap().status.success());
    assert_eq!(server.count(), 2);
    // What comes by a pipe has no directory: the current one counts.
    let ask = ASK.replace("in.jsonl", "-").replace("out", "piped");
    let typed = row("y", &json!("a.png"));
    assert_eq!(bench.pipe(&ask, typed.as_bytes()).code, 0);
    assert_eq!(content(&server, "y")[1]["type"], "image_url");
}

#[test]
fn another_attachment_is_another_question() {
    let server = Server::echo();
    let bench = bench(&server, &[("x", json!("a.png")), ("y", json!(["a.png"])), ("z", json!(""))]);
    bench.run(&format!("{ASK} --work-dir job")).expect(0);
    assert_eq!(server.count(), 3);
    // One names the same in another way, one has one more, one has its first.
    let now = [("x", json!(["a.png"])), ("y", json!(["a.png", "c.pdf"])), ("z", json!("c.pdf"))];
    let input: String = now.iter().map(|(id, file)| row(id, file)).collect();
    bench.write("in.jsonl", input);
    let resume = format!("{ASK} --work-dir job --resume");
    bench.run(&resume).expect(78).says("an update would keep 1 answers and ask about 2 rows");
    let ended = bench.run(&format!("{resume} --on-change update")).expect(0);
    ended.says("1 row keeps its answer, 2 changed");
    assert_eq!(server.count(), 5);
    assert_eq!(content(&server, "z"), "about z", "it was asked as text before");
    // Without the field, all are other questions but those of text.
    let without = resume.replace("--attachment-field file ", "");
    bench.run(&without).expect(78).says("attachment-field: `file` → (none)");
    // A file that changed under its name is not noticed.
    bench.write("c.pdf", [PDF, b"%more"].concat());
    bench.run(&resume).expect(0);
    assert_eq!(server.count(), 5);
}

#[test]
fn rows_show_what_they_name_and_the_prompt_is_not_given_the_data() {
    let server = Server::echo();
    let uri = format!("data:image/png;base64,{}", base64(PNG));
    let bench = bench(&server, &[("x", json!(uri))]);
    let ask = ASK.replace("-p {{text}} ", "");
    bench.run(&format!("{ask} --include-input")).expect(0);
    let call = &server.calls()[0];
    assert!(call.prompt.contains("\"file\": \"data:image/png;base64,…\""), "{}", call.prompt);
    assert_eq!(call.body["messages"][0]["content"][1]["image_url"]["url"], uri);
    assert_eq!(bench.lines("out.jsonl")[0]["input"]["file"], uri);
    // A model that is not called needs no file.
    let bench = self::bench(&server, &[("x", json!("nowhere.png"))]);
    bench.run(&ASK.replace("-m m", "-m passthrough")).expect(0);
    assert_eq!(bench.lines("out.jsonl")[0]["result"], "about x");
}

#[test]
fn a_dry_run_shows_what_is_attached_in_short() {
    let server = Server::echo();
    let rows = [("x", json!("a.png")), ("y", json!("none.png")), ("z", json!("c.pdf"))];
    let bench = bench(&server, &rows);
    let ended = bench.run(&format!("{ASK} --dry-run")).expect(0);
    for (media, bytes) in [("image/png", PNG.len()), ("application/pdf", PDF.len())] {
        let shown = format!("data:{media};base64,({bytes} bytes)");
        assert!(ended.stdout.contains(&shown), "{}", ended.stdout);
    }
    assert!(
        ended
            .stdout
            .contains("AttachmentError: field \\\"file\\\": none.png: there is no such file")
    );
    assert!(!ended.stdout.contains(&base64(PNG)[..20]));
    assert_eq!(server.count(), 0);
}

#[test]
fn a_question_put_again_has_the_attachment_again() {
    for protocol in ["chat", "responses", "messages"] {
        let server = Server::start(|call| {
            let text = call.body.to_string();
            let is_again = text.contains("does not match");
            Reply::Answer(if is_again { "{\"a\":1}" } else { "[]" }.to_owned())
        });
        let bench = bench(&server, &[("x", json!("a.png"))]);
        bench.run(&format!("{ASK} --protocol {protocol} --schema a:integer")).expect(0);
        let calls = server.calls();
        assert_eq!(calls.len(), 2);
        let messages = |call: usize| {
            let body = &calls[call].body;
            body["messages"].as_array().or(body["input"].as_array()).unwrap().clone()
        };
        let (first, again) = (messages(0), messages(1));
        assert_eq!(first[0], again[0], "{protocol}");
        assert!(first[0]["content"].is_array(), "{protocol}");
        assert_eq!(again[1]["role"], "assistant", "{protocol}");
        assert_eq!(again[2]["role"], "user", "{protocol}");
    }
}

#[test]
fn calls_are_sent_while_others_are_read() {
    // More than a worker reads before it looks after its calls. None is answered before all are there.
    let server = Server::start(|_| Reply::Hold("yes".to_owned()));
    let names: Vec<String> = (0..12).map(|number| format!("x{number}")).collect();
    let rows: Vec<_> = names.iter().map(|name| (name.as_str(), json!("large.png"))).collect();
    let bench = bench(&server, &rows);
    bench.write("large.png", [PNG, &vec![7; 3 << 20]].concat());
    let running = bench.start(&format!("{ASK} -c 12 --fixed-concurrency --parallel 1"));
    server.wait_for_active(12);
    server.release();
    running.wait().expect(0);
}

#[test]
fn a_field_that_no_row_has_is_told() {
    let server = Server::echo();
    let bench = bench(&server, &[("x", json!("a.png"))]);
    let typo = ASK.replace("--attachment-field file", "--attachment-field fiel");
    bench.run(&typo).expect(0).says("no row has the attachment field \"fiel\"");
}
