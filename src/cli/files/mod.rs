//! `rowmill files …`: what the file tools found, as text or as JSON, and how they ended.

mod diff;
mod surroundings;
mod validate;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use self::surroundings::Surroundings;
use super::args::{
    FilesCommand, FilesMergeArgs, PrepareArgs, SampleArgs, SplitArgs, StatsArgs, ToArgs,
};
use super::exit::{self, Line};
use super::typed::{Typed, quoted};
use crate::dialect::rules::OPENAI;
use crate::files::prepare::{self, Glob};
use crate::files::{Error, Input, Output, Tally, merge, sample, split, stats};
use crate::store;
use crate::telemetry::escape;

/// Carries out a file tool.
pub(super) fn files(command: FilesCommand, typed: &Typed<'_>) -> ExitCode {
    let surroundings = Surroundings::new();
    let result = match command {
        FilesCommand::Validate(args) => validate::validate(&args, &surroundings, typed),
        FilesCommand::Stats(args) => stats(&args, &surroundings),
        FilesCommand::Sample(args) => sample(&args, &surroundings),
        FilesCommand::Split(args) => split(&args, &surroundings),
        FilesCommand::Merge(args) => merge(&args, &surroundings),
        FilesCommand::Diff(args) => diff::diff(&args, &surroundings, typed),
        FilesCommand::Prepare(args) => prepare(args, &surroundings),
    };
    result.unwrap_or_else(|error| of_error(&error, &surroundings, typed).print())
}

/// The code and the line of a tool that could not do its work.
fn of_error(error: &Error, surroundings: &Surroundings, typed: &Typed<'_>) -> Line {
    let (code, next) = match error {
        Error::Unreadable { .. } => (exit::NO_INPUT, "check the path and its permissions".into()),
        Error::NotLines { .. } => (exit::DATA, "convert it first, or give another file".into()),
        Error::Line { path, .. } => {
            let file = quoted(&path.to_string_lossy());
            (exit::DATA, format!("see what else is wrong: rowmill files validate {file}"))
        }
        Error::Edit { .. } => (exit::DATA, "mend the line, or leave it out".into()),
        Error::Duplicates { .. } => {
            (exit::DATA, "mend the ids, or keep the first of each: --on-duplicate first".into())
        }
        Error::Unlike(_) => (exit::DATA, "name files of one kind".into()),
        Error::Usage(_) => (exit::USAGE, typed.help()),
        Error::Exists { .. } => {
            (exit::CANNOT_CREATE, format!("replace it: {}", typed.overwriting()))
        }
        Error::Store(error) => return of_store(error, typed),
        Error::Interrupted => (surroundings.code_of_signal(), typed.again()),
    };
    let is_first = !surroundings.has_changed.get();
    let safe = if is_first { exit::UNTOUCHED } else { "the files named above are done" };
    Line { code, what: error.to_string(), safe, next }
}

fn of_store(error: &store::Error, typed: &Typed<'_>) -> Line {
    let (code, next) = match error {
        store::Error::Target { .. } => {
            (exit::CANNOT_CREATE, "choose another path for the output".to_owned())
        }
        store::Error::Io { .. } if error.is_out_of_space() => {
            (exit::IO, format!("make room, then: {}", typed.again()))
        }
        store::Error::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe => {
            (exit::IO, format!("who read the output went away; once more: {}", typed.again()))
        }
        store::Error::Io { what: "create", path, .. }
            if path.parent() == Some(&*std::env::temp_dir()) =>
        {
            (exit::CANNOT_CREATE, "name another temporary directory with TMPDIR".to_owned())
        }
        store::Error::Io { what: "create" | "open", .. } => {
            (exit::CANNOT_CREATE, "make the place writable, or choose another".to_owned())
        }
        _ => (exit::IO, format!("see to the disk, then: {}", typed.again())),
    };
    // Of several files some may be in their places.
    Line { code, what: error.to_string(), safe: "every file that is there is whole", next }
}

fn input(path: &Path) -> Result<Input, Error> {
    match <[Input; 1]>::try_from(Input::all(&[path.to_owned()])?) {
        Ok([input]) => Ok(input),
        Err(_) => {
            Err(Error::Usage(format!("{} is several files, and one is wanted", path.display())))
        }
    }
}

fn output(to: &ToArgs) -> Output {
    Output { path: to.output.clone(), overwrite: to.overwrite }
}

fn json(value: &impl Serialize) {
    exit::show(&serde_json::to_string(value).unwrap_or_default());
}

/// Says what was written, unless it can be seen.
fn say_written(to: &ToArgs, what: &str) {
    if to.output != Path::new("-") {
        exit::say(&escape(&format!("{}: {what}", to.output.display())));
    }
}

/// What stands under a name.
#[derive(Serialize)]
struct Named<'a> {
    /// Null for all that were not kept by name.
    name: Option<&'a str>,
    lines: u64,
    estimated_input_tokens: u64,
}

fn named(tally: &Tally) -> Vec<Named<'_>> {
    let named = tally.sorted().into_iter().map(|(name, share)| Named {
        name,
        lines: share.lines,
        estimated_input_tokens: share.tokens,
    });
    named.collect()
}

#[derive(Serialize)]
struct StatsLine<'a> {
    file: &'a str,
    dialect: Option<&'static str>,
    holds: Option<&'static str>,
    lines: u64,
    bytes: u64,
    longest_line: u64,
    parse_errors: u64,
    estimated_input_tokens: u64,
    models: Vec<Named<'a>>,
    urls: Vec<Named<'a>>,
}

fn stats(args: &StatsArgs, surroundings: &Surroundings) -> Result<ExitCode, Error> {
    for input in Input::all(&args.files)? {
        let stats = stats::stats(&input, args.dialect, &surroundings.shutdown)?;
        let file = input.path().to_string_lossy();
        if args.json {
            json(&StatsLine {
                file: &file,
                dialect: stats.form.map(|form| form.dialect.name()),
                holds: stats.form.map(|form| form.side.name()),
                lines: stats.lines,
                bytes: stats.bytes,
                longest_line: stats.longest,
                parse_errors: stats.bad,
                estimated_input_tokens: stats.tokens,
                models: named(&stats.models),
                urls: named(&stats.urls),
            });
        } else {
            show_stats(&file, &stats);
        }
    }
    Ok(ExitCode::from(exit::OK))
}

fn show_stats(file: &str, stats: &stats::Stats) {
    let show = |text: &str| exit::show(&escape(text));
    show(file);
    let form = stats.form.map_or_else(|| "not to be told".to_owned(), |form| form.to_string());
    show(&format!("  holds    {form}"));
    let bad = match stats.bad {
        0 => String::new(),
        bad => format!(", {bad} of them bad (rowmill files validate names them)"),
    };
    show(&format!("  lines    {}{bad}", stats.lines));
    show(&format!("  bytes    {}, {} in the longest line", stats.bytes, stats.longest));
    show(&format!("  tokens   about {} (bytes / 4, data URIs left out)", stats.tokens));
    for (what, tally) in [("model", &stats.models), ("url", &stats.urls)] {
        for (name, share) in tally.sorted() {
            let (name, lines) = (name.unwrap_or("(others)"), share.lines);
            show(&format!("  {what:<8} {name}: {lines} lines, about {} tokens", share.tokens));
        }
    }
}

fn sample(args: &SampleArgs, surroundings: &Surroundings) -> Result<ExitCode, Error> {
    let (count, of) = sample::sample(
        &input(&args.file)?,
        (args.count, args.seed),
        &output(&args.to),
        &mut std::io::stdout(),
        &surroundings.shutdown,
    )?;
    say_written(&args.to, &format!("{count} of {of} lines"));
    Ok(ExitCode::from(exit::OK))
}

#[derive(Serialize)]
struct PartLine<'a> {
    file: &'a str,
    lines: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
}

fn split(args: &SplitArgs, surroundings: &Surroundings) -> Result<ExitCode, Error> {
    let input = input(&args.file)?;
    let is_default = args.lines.is_none() && args.bytes.is_none() && !args.by_model;
    let or_openais = |given: Option<u64>, theirs: Option<u64>| match is_default {
        true => theirs,
        false => given,
    };
    let (dir, stem) = match &input {
        Input::Stdin => (PathBuf::new(), "stdin".to_owned()),
        Input::File(path) => {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (path.parent().unwrap_or(Path::new("")).to_owned(), stem)
        }
    };
    let dir = args.output_dir.clone().unwrap_or(dir);
    let here = Path::new(".").to_owned();
    let options = split::Options {
        lines: or_openais(args.lines, OPENAI.requests),
        bytes: or_openais(args.bytes, OPENAI.file_bytes),
        by_model: args.by_model,
        dir: if dir.as_os_str().is_empty() { here } else { dir },
        stem,
        overwrite: args.overwrite,
    };
    let (parts, left) = split::split(&input, &options, &surroundings.shutdown)?;
    for split::Part { path, lines, bytes, model } in &parts {
        let file = path.to_string_lossy();
        if args.json {
            json(&PartLine { file: &file, lines: *lines, bytes: *bytes, model: model.as_deref() });
            continue;
        }
        let of = match (args.by_model, model) {
            (true, Some(model)) => format!(", model {model}"),
            (true, None) => ", without a model".to_owned(),
            (false, _) => String::new(),
        };
        exit::show(&escape(&format!("{file}: {lines} lines, {bytes} bytes{of}")));
    }
    for path in left {
        let text =
            format!("warning: {} is a part of an earlier split, and is left", path.display());
        exit::say(&escape(&text));
    }
    Ok(ExitCode::from(exit::OK))
}

fn merge(args: &FilesMergeArgs, surroundings: &Surroundings) -> Result<ExitCode, Error> {
    let inputs = Input::all(&args.files)?;
    let on_duplicate = args.on_duplicate.into();
    let merged = merge::merge(
        &inputs,
        on_duplicate,
        &output(&args.to),
        &mut std::io::stdout(),
        &surroundings.shutdown,
    )?;
    let left_out = match merged.left_out {
        0 => String::new(),
        count => format!("; {count} with the id of an earlier line left out"),
    };
    let (lines, files) = (merged.lines, inputs.len());
    say_written(&args.to, &format!("{lines} lines of {files} files{left_out}"));
    Ok(ExitCode::from(exit::OK))
}

fn prepare(args: PrepareArgs, surroundings: &Surroundings) -> Result<ExitCode, Error> {
    let inputs = Input::all(&args.files)?;
    if inputs.len() > 1 && !args.in_place {
        let text = "several files want --in-place: each is replaced by what it becomes";
        return Err(Error::Usage(text.to_owned()));
    }
    let options = prepare::Options {
        remove: args.remove.iter().map(|glob| Glob::new(glob)).collect(),
        model: args.model,
        temperature: args.temperature,
        max_tokens: args.max_tokens,
        top_p: args.top_p,
        set: args.set.into_iter().map(|member| (member.path, member.value)).collect(),
        encode_images: args.encode_images,
        add: args.add_line,
        dialect: args.dialect,
    };
    if options.is_empty() {
        return Err(Error::Usage("there is nothing to change; say what".to_owned()));
    }
    let to = output(&args.to);
    let to = (!args.in_place).then_some(&to);
    for input in &inputs {
        let done =
            prepare::prepare(input, &options, to, &mut std::io::stdout(), &surroundings.shutdown)?;
        surroundings.has_changed.set(true);
        let place = to.map_or(input.path(), |to| &to.path);
        if place != Path::new("-") {
            exit::say(&escape(&format!("{}: {}", place.display(), prepared(done))));
        }
        if done.without_parameters > 0 {
            exit::say(&format!(
                "warning: {} lines ask an endpoint that writes no text, and got no temperature, \
                 max_tokens or top_p",
                done.without_parameters
            ));
        }
    }
    Ok(ExitCode::from(exit::OK))
}

fn prepared(done: prepare::Prepared) -> String {
    let mut text = format!("{} lines, {} changed", done.lines, done.changed);
    for (count, what) in
        [(done.removed, "left out"), (done.added, "added"), (done.images, "images encoded")]
    {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}
