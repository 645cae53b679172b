//! `rowmill files diff`.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value};

use super::surroundings::Surroundings;
use crate::cli::args::DiffArgs;
use crate::cli::exit::{self, Line};
use crate::cli::typed::Typed;
use crate::files::diff::{self, Change, Counts, Kind, Options, Report};
use crate::files::{Error, Input};
use crate::telemetry::escape;

pub(super) fn diff(
    args: &DiffArgs,
    surroundings: &Surroundings,
    typed: &Typed<'_>,
) -> Result<ExitCode, Error> {
    let (a, b) = (super::input(&args.a)?, super::input(&args.b)?);
    let options = Options { dialect: args.dialect, listed: args.limit, shows_texts: args.show };
    let report = diff::diff(&a, &b, options, &surroundings.shutdown)?;
    if args.json {
        print_json([&a, &b], &report);
    } else {
        print_text([&a, &b], &report);
    }
    if report.is_equal() || !args.exit_code {
        return Ok(ExitCode::from(exit::OK));
    }
    let next = match args.show || args.json {
        true => "see above".to_owned(),
        false => format!("see what they say: {} --show", typed.again()),
    };
    let what = "the files differ".to_owned();
    Ok(Line { code: exit::ROWS_FAILED, what, safe: exit::UNTOUCHED, next }.print())
}

fn print_text(files: [&Input; 2], report: &Report) {
    let show = |text: &str| exit::show(&escape(text));
    for ((name, input), (form, counts)) in
        ["A", "B"].iter().zip(files).zip(report.forms.iter().zip(&report.counts))
    {
        let form = form.map_or_else(|| "nothing".to_owned(), |form| form.to_string());
        let Counts { lines, bad, duplicates, failed } = counts;
        let mut text = format!("{name}  {}: {lines} lines, {form}", input.path().display());
        for (count, what) in
            [(failed, "failed"), (bad, "are no results"), (duplicates, "have an id of before")]
        {
            if *count > 0 {
                text += &format!("; {count} {what}");
            }
        }
        show(&text);
    }
    show(&format!("the same answer in both: {}", report.same));
    if report.failed_in_both > 0 {
        show(&format!("failed in both: {}", report.failed_in_both));
    }
    for (kind, count) in Kind::ALL.into_iter().zip(report.differences) {
        if count == 0 {
            continue;
        }
        let listed: Vec<_> = report.listed.iter().filter(|change| change.kind == kind).collect();
        show(&format!("{}: {count}", title(kind)));
        for Change { id, before, after, .. } in &listed {
            show(&format!("  {id}"));
            for (sign, text) in [('-', before), ('+', after)] {
                if let Some(text) = text {
                    show(&format!("    {sign} {text}"));
                }
            }
        }
        match count.saturating_sub(listed.len() as u64) {
            0 => {}
            more => show(&format!("  … and {more} more (--limit all lists them)")),
        }
    }
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Different => "another answer",
        Kind::FailedInA => "failed in A only",
        Kind::FailedInB => "failed in B only",
        Kind::OnlyInA => "in A only",
        Kind::OnlyInB => "in B only",
    }
}

#[derive(Serialize)]
struct FileItem<'a> {
    file: &'a str,
    dialect: Option<&'static str>,
    lines: u64,
    failed: u64,
    bad_lines: u64,
    duplicates: u64,
}

fn print_json(files: [&Input; 2], report: &Report) {
    let mut object = Map::new();
    let paths = files.map(|input| input.path().to_string_lossy());
    for (at, key) in ["a", "b"].into_iter().enumerate() {
        let counts = report.counts[at];
        let item = FileItem {
            file: &paths[at],
            dialect: report.forms[at].map(|form| form.dialect.name()),
            lines: counts.lines,
            failed: counts.failed,
            bad_lines: counts.bad,
            duplicates: counts.duplicates,
        };
        object.insert(key.to_owned(), serde_json::to_value(item).unwrap_or_default());
    }
    object.insert("equal".to_owned(), report.is_equal().into());
    object.insert("same".to_owned(), report.same.into());
    object.insert("failed_in_both".to_owned(), report.failed_in_both.into());
    for (kind, count) in Kind::ALL.into_iter().zip(report.differences) {
        object.insert(kind.name().to_owned(), count.into());
        let of_kind = report.listed.iter().filter(|change| change.kind == kind);
        let ids = of_kind.map(|change| match (&change.before, &change.after) {
            (None, None) => Value::from(change.id.as_str()),
            (before, after) => serde_json::json!({"id": change.id, "a": before, "b": after}),
        });
        object.insert(format!("{}_ids", kind.name()), ids.collect());
    }
    exit::show(&serde_json::to_string_pretty(&Value::Object(object)).unwrap_or_default());
}
