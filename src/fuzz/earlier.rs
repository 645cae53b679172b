//! Hostile bytes for what is gone on from: outputs of other tools.

use std::fs;
use std::path::Path;

use crate::dialect::{Dialect, dria, openai, prompts, read_outcome, utf8};
use crate::format::fast_agent::{self, Numbering};
use crate::job::JobSpec;
use crate::plan::{self, Earlier, Writer};

const JOB: &str = r#"{"model":"m","prompt":"","instruction":null,"parameters":{},"id_field":null,
    "selection":{"offset":0,"limit":null,"sample":null},"on_duplicate":"error",
    "on_missing_field":"row-error","max_row_bytes":9,"include_input":false}"#;

/// A file of answers is read to its end whatever is in it, and there are no more answers in it than there can be; what
/// is taken of a line stands in it, and the tools that compare outputs call it an answer as well.
pub(super) fn earlier(bytes: &[u8], scratch: &Path) {
    let path = scratch.join("earlier.jsonl");
    fs::write(&path, bytes).expect("the scratch directory can be written to");
    let _ = fast_agent::read_manifest(bytes);
    plan::is_of_fast_agent(&path).expect("it can be read");
    let job: JobSpec = serde_json::from_str(JOB).expect("it is a job");
    let writer = Writer::FastAgent(Numbering::Lines);
    let files = vec![path.clone(), path.clone()];
    let twice = Earlier { files, writer, is_known: false, is_in_place: true, is_by_number: false };
    let twice = plan::survey(&twice, &job).expect("it can be read");
    assert!(twice.answers.is_multiple_of(2), "files are read alike");
    let shortest = b"{\"id\":1,\"ok\":true,\"result\":1}".len();
    assert!(twice.answers / 2 * shortest as u64 <= bytes.len() as u64);

    let mut lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
    // What stands behind the last line end is no line if it is nothing.
    lines.pop_if(|line| line.is_empty());
    for dialect in [Dialect::OpenAi, Dialect::Prompts, Dialect::Dria] {
        let are_all = lines.iter().all(|line| is_answer(dialect, line));
        let is_alike = plan::say_the_same(dialect, &path, &path).expect("it can be read");
        assert_eq!(is_alike, are_all, "a file says the same as itself if it says anything");
    }
}

fn is_answer(dialect: Dialect, line: &[u8]) -> bool {
    let Ok(line) = utf8(line) else { return false };
    let line = line.strip_prefix('\u{feff}').unwrap_or(line);
    let held = match dialect {
        Dialect::OpenAi => openai::read_answer(line),
        Dialect::Prompts => prompts::read_answer(line),
        Dialect::Rows | Dialect::Dria => dria::read_answer(line),
    };
    let Ok(held) = held else { return false };
    let outcome = read_outcome(dialect, line).expect("it is a result");
    assert_eq!(held.id, outcome.id);
    let Some(answer) = held.answer else { return false };
    assert!(line.contains(answer) && outcome.result.is_ok());
    true
}
