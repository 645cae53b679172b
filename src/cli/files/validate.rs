//! `rowmill files validate`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use super::json;
use super::surroundings::{Scratch, Surroundings};
use crate::cli::args::ValidateArgs;
use crate::cli::exit::{self, Line};
use crate::cli::typed::Typed;
use crate::dialect::shown;
use crate::files::validate::{self, Options, Report, Twin};
use crate::files::{Error, Input};
use crate::telemetry::escape;

pub(super) fn validate(
    args: &ValidateArgs,
    surroundings: &Surroundings,
    typed: &Typed<'_>,
) -> Result<ExitCode, Error> {
    let inputs = Input::all(&args.files)?;
    let scratch = Scratch::new()?;
    let options = Options {
        rules: args.server,
        dialect: args.dialect,
        has_model: args.model.is_some(),
        shown: args.limit,
        scratch: scratch.path().to_owned(),
    };
    let mut refused = 0;
    for input in &inputs {
        let report = validate::validate(input, &options, &surroundings.shutdown)?;
        refused += usize::from(!report.is_good());
        let file = input.path().to_string_lossy();
        if args.json {
            json(&line(&file, &report, args));
        } else {
            show(&file, &report, args);
        }
    }
    if refused == 0 {
        return Ok(ExitCode::from(exit::OK));
    }
    let title = args.server.title;
    let what = match inputs.len() {
        1 => format!("{title} does not take the file as it is"),
        count => format!("{title} does not take {refused} of {count} files as they are"),
    };
    let next = "mend what is named above".to_owned();
    let next = match typed.0.iter().any(|word| word == "--for") {
        true => next,
        false => format!("{next} (--for names another server)"),
    };
    Ok(Line { code: exit::DATA, what, safe: exit::UNTOUCHED, next }.print())
}

fn show(file: &str, report: &Report, args: &ValidateArgs) {
    let say = |text: &str| exit::show(&escape(text));
    let dialect = report.dialect.map_or("", |dialect| dialect.name());
    let (lines, bytes, title) = (report.lines, report.bytes, args.server.title);
    let verdict = if report.is_good() { "fine" } else { "not fine" };
    say(&format!(
        "{file}: {verdict} for {title}: {lines} lines of the dialect {dialect}, {bytes} bytes"
    ));
    for (line, problem) in &report.problems {
        say(&format!("  line {line}: {problem}"));
    }
    let more = |count: u64, shown: usize, what: &str| match count.saturating_sub(shown as u64) {
        0 => {}
        more => say(&format!("  … and {more} more {what} (--limit all shows them)")),
    };
    more(report.bad, report.problems.len(), "bad lines");
    for Twin { line, first, id } in &report.twins {
        let id =
            id.as_ref().map_or_else(|| "the id".to_owned(), |id| format!("the id {}", shown(id)));
        say(&format!("  line {line}: has {id} of line {first}"));
    }
    more(report.duplicates, report.twins.len(), "duplicates");
    if report.bad > 0 {
        say(&format!("  error: {} of {} lines are bad", report.bad, report.lines));
    }
    for finding in &report.findings {
        let level = if finding.is_error { "error" } else { "warning" };
        say(&format!("  {level}: {}", finding.text));
    }
}

#[derive(Serialize)]
struct FileLine<'a> {
    file: &'a str,
    #[serde(rename = "for")]
    server: &'static str,
    ok: bool,
    dialect: Option<&'static str>,
    lines: u64,
    bytes: u64,
    bad_lines: u64,
    problems: Vec<ProblemItem>,
    duplicates: u64,
    duplicate_lines: Vec<TwinItem<'a>>,
    findings: Vec<FindingItem<'a>>,
    models: BTreeMap<&'a str, u64>,
    urls: BTreeMap<&'a str, u64>,
}

#[derive(Serialize)]
struct ProblemItem {
    line: u64,
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
struct TwinItem<'a> {
    line: u64,
    first_line: u64,
    id: Option<&'a str>,
}

#[derive(Serialize)]
struct FindingItem<'a> {
    level: &'static str,
    code: &'static str,
    message: &'a str,
}

fn line<'a>(file: &'a str, report: &'a Report, args: &ValidateArgs) -> FileLine<'a> {
    let problems = report.problems.iter().map(|(line, problem)| ProblemItem {
        line: *line,
        code: problem.code(),
        message: problem.to_string(),
    });
    let twins = report.twins.iter().map(|twin| TwinItem {
        line: twin.line,
        first_line: twin.first,
        id: twin.id.as_deref(),
    });
    let findings = report.findings.iter().map(|finding| FindingItem {
        level: if finding.is_error { "error" } else { "warning" },
        code: finding.code,
        message: &finding.text,
    });
    let counts = |tally: &'a crate::files::Tally| {
        let named = tally.sorted().into_iter();
        named.map(|(name, share)| (name.unwrap_or(""), share.lines)).collect()
    };
    FileLine {
        file,
        server: args.server.name,
        ok: report.is_good(),
        dialect: report.dialect.map(|dialect| dialect.name()),
        lines: report.lines,
        bytes: report.bytes,
        bad_lines: report.bad,
        problems: problems.collect(),
        duplicates: report.duplicates,
        duplicate_lines: twins.collect(),
        findings: findings.collect(),
        models: counts(&report.models),
        urls: counts(&report.urls),
    }
}
