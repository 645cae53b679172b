//! Hostile bytes for the readers of request files and output files.

use std::path::Path;

use crate::dialect::detect::{detect, detect_in};
use crate::dialect::rules::Rules;
use crate::dialect::{Answer, Dialect, dria, openai, prompts, read_outcome, utf8};
use crate::format::json::Object;

/// Whatever a file's lines are, they are told for something or not; what is read of a line stands in it as it is; what a
/// line is refused for is said in one line; and what is written for it is one line that is read back.
pub(super) fn dialects(bytes: &[u8], _: &Path) {
    let lines: Vec<_> = (1..).zip(bytes.split(|byte| *byte == b'\n')).collect();
    let last = lines.len() as u64;
    if let Err(mixed) = detect(lines.iter().copied()) {
        let (first, second) = (mixed.first, mixed.second);
        assert!(1 <= first.0 && first.0 < second.0 && second.0 <= last && first.1 != second.1);
    }
    let _ = detect_in(bytes);
    for line in lines.into_iter().filter_map(|(_, line)| utf8(line).ok()) {
        requests(line);
        for dialect in Dialect::ALL {
            match read_outcome(dialect, line) {
                Ok(outcome) => {
                    assert!(line.contains(outcome.id));
                    if let Ok(content) = &outcome.result {
                        assert_eq!(content.hash(), content.clone().hash());
                    }
                }
                Err(problem) => assert!(!problem.to_string().contains('\n')),
            }
        }
    }
}

fn requests(line: &str) {
    if let Ok(request) = openai::Request::read(line) {
        assert!(line.contains(request.body().spelled()) && line.contains(request.id()));
        assert!(Object::parse(request.body().spelled()).is_ok());
        for rules in Rules::ALL {
            if let Err(problem) = request.check(rules, false) {
                assert!(!problem.to_string().contains('\n') && !problem.code().is_empty());
            } else {
                assert!(rules.takes(&request.url()));
            }
        }
        assert!(request.embedding_inputs() <= line.len() as u64);
        let body = request.body().spelled().as_bytes();
        let result = Ok(openai::Response { status: 429, request_id: None, body });
        let mut out = Vec::new();
        openai::write(&mut out, &openai::Reply { seed: "", id: request.id(), result });
        let text = one_line(&out);
        let read = read_outcome(Dialect::OpenAi, text).expect("it is read back");
        assert!(read.id == request.id() && read.result.is_err());
    }
    if let Ok(request) = dria::Request::read(line, true) {
        assert!(
            line.contains(request.body().spelled())
                && Object::parse(request.body().spelled()).is_ok()
        );
        let mut out = Vec::new();
        dria::write_answer(&mut out, request.id(), None, Answer::Json(request.id()), None);
        let read = read_outcome(Dialect::Dria, one_line(&out)).expect("it is read back");
        assert!(read.id == request.id() && read.result.is_ok());
    }
    if let Ok(request) = prompts::Request::read(line) {
        let (mut out, id) = (Vec::new(), request.id().unwrap_or("1"));
        let prompt = request.prompt();
        prompts::write_answer(&mut out, id, None, Answer::Text(&prompt), Some(1));
        let read = read_outcome(Dialect::Prompts, one_line(&out)).expect("it is read back");
        assert_eq!(read.result.expect("it is an answer").text(), prompt);
    }
}

/// The text of one line that ends.
fn one_line(out: &[u8]) -> &str {
    let text = utf8(out).expect("it is text").strip_suffix('\n').expect("it ends");
    assert!(!text.contains(['\n', '\r']), "it is one line");
    text
}
