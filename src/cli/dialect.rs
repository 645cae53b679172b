//! What the lines of an input are: said by an option, known from a plan, or told by the first of them. It is found out
//! before all else, because who is asked, and where outputs go, depends on it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{
    EstimateArgs, FilterArgs, InputArgs, ModelArgs, OutputArgs, PlanArgs, PromptArgs, RunArgs,
    SchemaArgs,
};
use super::commands::default_work_dir;
use super::deadline::within;
use crate::dialect::Dialect;
use crate::dialect::detect::{Foreign, Form, LINES, Side, detect_in, foreign_in, further_in};
use crate::input::{self, BOM, not_text};
use crate::pipeline::{self, Ahead, Error, Inputs};
use crate::store::WorkDir;

/// What is read of an input to tell what it is, unless its first line is longer.
const ENOUGH: usize = 1 << 20;

impl RunArgs {
    /// Finds out what the input holds, and what follows from that for the arguments.
    pub(super) fn look(&mut self) -> Result<(), Error> {
        let template = self.prompt.take_file();
        let output = match self.outputs.output.as_os_str().is_empty() {
            true => Path::new("-"),
            false => &self.outputs.output,
        };
        let work_dir =
            self.work_dir.clone().unwrap_or_else(|| default_work_dir(output, self.input.paths()));
        let planned = Some(&*work_dir).filter(|_| !self.overwrite);
        let waits = self.input.paths().iter().any(|path| pipeline::is_pipe(path));
        let (input, prompt) = (&mut self.input, &self.prompt);
        match self.session.deadline(&self.pace) {
            Some((deadline, _)) if waits => within(deadline, || look(input, prompt, planned))?,
            _ => look(input, prompt, planned)?,
        }
        self.model.dialect = self.input.lines;
        self.model.is_idle = self.input.is_empty;
        self.input.note = self.input.note.take().or(template);
        if self.outputs.output.as_os_str().is_empty() && self.input.lines != Dialect::Prompts {
            return Err(self.nowhere());
        }
        self.outputs.settle(self.input.lines)?;
        self.screen.tell.quiet |= self.json;
        check(&self.input, &self.prompt, &self.schema, &self.model)
    }

    /// Why there must be an output: what is wrong with the input, or else what its lines are.
    fn nowhere(&self) -> Error {
        let inputs = &self.input.inputs;
        let is_here = |path: &&Path| *path != Path::new("-") && self.input.link.is_none();
        for path in inputs.paths().filter(is_here).filter(|path| !pipeline::is_pipe(path)) {
            if let Err(source) = File::open(path) {
                return unreadable(path, source);
            }
        }
        let own = own(&self.prompt, known_by(&self.input));
        let (dialect, said) = (self.input.lines, self.input.dialect.is_some());
        let file = match inputs.paths().next() {
            Some(path) if path != Path::new("-") => path.display().to_string(),
            _ => "standard input".to_owned(),
        };
        let what = match (own.first(), &self.input.note) {
            _ if dialect.is_request() => format!("{file} holds requests of the dialect {dialect}"),
            _ if said => format!("{file} holds rows, as --dialect says"),
            (Some(option), _) => format!("{file} holds rows, which {option} is about"),
            (None, Some(note)) => note.clone(),
            (None, None) if self.input.is_empty => {
                format!(
                    "{file} holds no line that tells what it is (if prompts, say --dialect prompts)"
                )
            }
            (None, None) => format!("{file} holds rows"),
        };
        Error::Usage(format!(
            "{what}: say where outputs go with -o, --output <FILE|URL>; only answers to prompts go to standard \
             output by default"
        ))
    }
}

impl PlanArgs {
    /// As for `run`.
    pub(super) fn look(&mut self) -> Result<(), Error> {
        let template = self.prompt.take_file();
        let planned = Some(&*self.work_dir).filter(|_| !self.overwrite);
        look(&mut self.input, &self.prompt, planned)?;
        self.model.dialect = self.input.lines;
        self.model.is_idle = self.input.is_empty;
        self.input.note = self.input.note.take().or(template);
        check(&self.input, &self.prompt, &self.schema, &self.model)
    }
}

impl EstimateArgs {
    /// As for `run`.
    pub(super) fn look(&mut self) -> Result<(), Error> {
        let template = self.prompt.take_file();
        look(&mut self.input, &self.prompt, self.work_dir.as_deref())?;
        self.model.dialect = self.input.lines;
        self.model.is_idle = self.input.is_empty;
        self.input.note = self.input.note.take().or(template);
        check(&self.input, &self.prompt, &self.schema, &self.model)
    }
}

impl FilterArgs {
    /// Finds out what comes in, by its first line at most: that is to be answered before a second comes. `read` gives
    /// what there is to be read, or false where nobody waits for answers any more, and then so does this. Where
    /// the arguments say what is asked of rows nothing is waited for: who reads the rows looks at the first.
    pub(super) fn look(
        &mut self,
        read: &mut dyn FnMut(&mut Vec<u8>) -> std::io::Result<Piece>,
    ) -> Result<bool, Error> {
        let _ = self.prompt.take_file();
        let own = own(&self.prompt, (self.id_field.is_some(), self.id_from.is_some()));
        self.lines = match self.dialect.map(Dialect::from) {
            Some(dialect) => dialect,
            None if !own.is_empty() => {
                self.is_unseen = true;
                Dialect::Rows
            }
            None => {
                let name = Path::new("standard input");
                let longest = usize::try_from(self.max_row_bytes).unwrap_or(usize::MAX);
                let longest = longest.max(ENOUGH);
                if !read_line(&mut self.ahead, longest, read).map_err(|it| unreadable(name, it))? {
                    return Ok(false);
                }
                let refuse = |what| input::Error::NotRequests { path: name.to_owned(), what };
                let told = told(first_line(&self.ahead).0, false).map_err(refuse)?;
                told.unwrap_or_default()
            }
        };
        self.model.dialect = self.lines;
        check_said(self.lines, own, &self.prompt, &self.schema, &self.model)?;
        Ok(true)
    }
}

impl OutputArgs {
    /// Without an output said, that which a default work directory stands beside.
    pub(super) fn settle_beside(&mut self, work_dir: &Path) {
        let beside = work_dir.to_str().map(|dir| dir.trim_end_matches('/'));
        let output = beside.and_then(|dir| dir.strip_suffix(".rowmill"));
        if let Some(output) = output.filter(|_| self.output.as_os_str().is_empty()) {
            self.output = PathBuf::from(output);
        }
    }

    /// Prompts are answered on standard output where no other place is said, as `dria batch` does.
    pub(super) fn settle(&mut self, dialect: Dialect) -> Result<(), Error> {
        if !self.output.as_os_str().is_empty() {
            return Ok(());
        }
        if dialect != Dialect::Prompts {
            let text = "the following required arguments were not provided: --output <FILE|URL>";
            return Err(Error::Usage(text.to_owned()));
        }
        self.output = PathBuf::from("-");
        Ok(())
    }
}

/// The options by which a command says itself what is asked of a row, as far as they are given: a file that could be
/// prompts is rows to it. Of what rows are known by, whether the field and whether another way is said.
fn own(prompt: &PromptArgs, (id_field, id_from): (bool, bool)) -> Vec<&'static str> {
    let given = [
        ("--prompt", prompt.prompt.is_some()),
        ("--template", prompt.template.is_some()),
        ("--attachment-field", prompt.attachment_field.is_some()),
        ("--id-field", id_field),
        ("--id-from", id_from),
    ];
    given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect()
}

/// What rows are known by, as far as it is said.
fn known_by(input: &InputArgs) -> (bool, bool) {
    (input.id_field.is_some(), input.id_from.is_some())
}

fn look(args: &mut InputArgs, prompt: &PromptArgs, work_dir: Option<&Path>) -> Result<(), Error> {
    let planned = || {
        let manifest = WorkDir::open(work_dir?).ok()?.manifest().ok()??;
        Some(manifest.job.dialect)
    };
    let has_own = !own(prompt, known_by(args)).is_empty();
    let inputs = Inputs::of(args.paths())?;
    args.lines = match args.dialect.map(Dialect::from).or_else(planned) {
        Some(Dialect::Prompts) if has_own && args.dialect.is_none() => Dialect::Rows,
        Some(dialect) => dialect,
        // What is copied first is looked at when it is here.
        None if has_own && (args.link.is_some() || inputs.paths().any(pipeline::is_pipe)) => {
            args.is_unseen = true;
            Dialect::Rows
        }
        None => told_by(args, &inputs, has_own)?,
    };
    let csv = inputs.paths().find(|path| input::holds_csv(path));
    if let Some(path) = csv.filter(|_| !args.lines.is_rows()) {
        let dialect = args.lines;
        return Err(Error::Usage(format!(
            "{} is CSV, whose records are rows: leave --dialect {dialect} out",
            path.display()
        )));
    }
    args.inputs = inputs;
    Ok(())
}

/// What the first lines of the inputs look like, which must be the same of all; those without lines are like any.
fn told_by(args: &mut InputArgs, inputs: &Inputs, has_own: bool) -> Result<Dialect, Error> {
    let mut found: Option<(&Path, Dialect)> = None;
    for path in inputs.paths() {
        let refuse = |what| input::Error::NotRequests { path: path.to_owned(), what };
        let told = match input::holds_csv(path) {
            true => Some(Dialect::Rows),
            false => {
                let beginning = beginning(args, path)?;
                let told = told(&beginning, has_own).map_err(refuse)?;
                let further = further_in(&beginning).filter(|_| !has_own && args.note.is_none());
                if let (Some(Dialect::Rows), Some((line, field))) = (told, further) {
                    args.note = Some(format!(
                        "line {line} of {} has the field {field:?}, which prompts have not: its lines are rows, and \
                         each is asked about as a whole; to ask what stands in `prompt` say --dialect prompts",
                        path.display()
                    ));
                }
                told
            }
        };
        let Some(dialect) = told else { continue };
        match found {
            None => found = Some((path, dialect)),
            Some((_, before)) if before == dialect => {}
            // What has further fields is no prompt, nor are those beside it.
            Some((_, before)) if !before.is_request() && !dialect.is_request() => {
                found = Some((path, Dialect::Rows));
            }
            Some((other, before)) => {
                let (path, other) = (other.to_owned(), path.to_owned());
                let (first, second) = (before, dialect);
                let differ = input::Error::DifferentDialects { path, first, other, second };
                return Err(differ.into());
            }
        }
    }
    args.is_empty = found.is_none();
    Ok(found.map(|(_, dialect)| dialect).unwrap_or_default())
}

/// What the first lines of an input look like; nothing where there are none.
fn told(beginning: &[u8], has_own: bool) -> Result<Option<Dialect>, String> {
    if not_text(&beginning[..beginning.len().min(4096)]).is_some() {
        // Whoever opens it says so.
        return Ok(Some(Dialect::Rows));
    }
    let is_a_row = |form: &Form| has_own && !form.dialect.is_request();
    match detect_in(beginning) {
        Ok(None) => Ok(None),
        Ok(Some(form)) if is_a_row(&form) => Ok(Some(Dialect::Rows)),
        Ok(Some(Form { dialect: Dialect::Rows, side: Side::Requests })) if !has_own => {
            foreign_in(beginning).map_or(Ok(Some(Dialect::Rows)), |foreign| Err(not_read(foreign)))
        }
        // Answers may be what is asked about next.
        Ok(Some(Form { dialect: Dialect::Rows, .. })) => Ok(Some(Dialect::Rows)),
        Ok(Some(form @ Form { side: Side::Outcomes, .. })) => Err(format!("it holds {form}")),
        Ok(Some(form)) => Ok(Some(form.dialect)),
        Err(mixed) if is_a_row(&mixed.first.1) && is_a_row(&mixed.second.1) => {
            Ok(Some(Dialect::Rows))
        }
        Err(mixed) => Err(mixed.to_string()),
    }
}

/// Why lines that could be rows are not taken for any: each would be paid for as a text in a prompt.
fn not_read(foreign: Foreign) -> String {
    let (name, conversion) = (foreign.name(), foreign.conversion());
    format!(
        "its lines are requests of {name}, which rowmill does not read: convert them with jq -c '{conversion}', or say \
         --dialect rows to ask about each line as a whole"
    )
}

/// The beginning of an input. What is read of one that can be read only once is kept.
fn beginning(args: &mut InputArgs, path: &Path) -> Result<Vec<u8>, Error> {
    let longest = usize::try_from(args.max_row_bytes).unwrap_or(usize::MAX);
    if let Some(link) = &args.link {
        return pipeline::beginning(link, &|read| is_enough(read, longest));
    }
    if path == Path::new("-") {
        let bytes = read(&mut std::io::stdin().lock(), longest);
        let bytes = bytes.map_err(|source| unreadable(path, source))?;
        args.ahead = Some(Ahead { bytes: bytes.clone().into(), rest: None });
        return Ok(bytes);
    }
    let is_pipe = pipeline::is_pipe(path);
    // What cannot be opened is told where it is needed.
    let Ok(mut file) = File::open(path) else { return Ok(Vec::new()) };
    if !is_pipe && !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(Vec::new());
    }
    let bytes = read(&mut file, longest).map_err(|source| unreadable(path, source))?;
    if is_pipe {
        args.ahead = Some(Ahead { bytes: bytes.clone().into(), rest: Some(Arc::new(file)) });
    }
    Ok(bytes)
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    input::Error::Unreadable { path: path.to_owned(), source }.into()
}

/// Reads until it is enough. A pipe gives what it has: it is not waited for more than is needed.
fn read(from: &mut dyn Read, longest: usize) -> std::io::Result<Vec<u8>> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    while !is_enough(&bytes, longest) {
        match from.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// What came of reading a little of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// There are more bytes.
    More,
    /// There are none left.
    End,
    /// Nobody waits for answers any more.
    Unwanted,
}

/// Reads until the first line is there that is not blank, or it is too long for a row, or it is no text. False where
/// nobody waits for answers any more.
fn read_line(
    bytes: &mut Vec<u8>,
    longest: usize,
    read: &mut dyn FnMut(&mut Vec<u8>) -> std::io::Result<Piece>,
) -> std::io::Result<bool> {
    loop {
        match read(bytes)? {
            Piece::More => {}
            Piece::End => return Ok(true),
            Piece::Unwanted => return Ok(false),
        }
        let head = &bytes[..bytes.len().min(4096)];
        let (line, is_whole) = first_line(bytes);
        if is_whole || line.len() > longest || not_text(head).is_some() {
            return Ok(true);
        }
        if line.is_empty() {
            // Blank lines may come for ever.
            bytes.truncate(if bytes.starts_with(BOM) { BOM.len() } else { 0 });
        }
    }
}

/// The first line that is not blank, as far as it is there, and whether that is all of it.
fn first_line(read: &[u8]) -> (&[u8], bool) {
    let text = read.strip_prefix(BOM).unwrap_or(read).trim_ascii_start();
    match memchr::memchr(b'\n', text) {
        Some(end) => (&text[..end], true),
        None => (text, false),
    }
}

/// Whether lines tell what they are: there are twenty, or a mebibyte with a whole one, or one that is too long for a row.
fn is_enough(read: &[u8], longest: usize) -> bool {
    let mut ends = memchr::memchr_iter(b'\n', read);
    let first = ends.next();
    match first {
        None => read.len() > longest.max(ENOUGH),
        Some(_) => read.len() >= ENOUGH || ends.nth(LINES - 2).is_some(),
    }
}

/// What requests say themselves, no option says of them.
fn check(
    input: &InputArgs,
    prompt: &PromptArgs,
    schema: &SchemaArgs,
    model: &ModelArgs,
) -> Result<(), Error> {
    if input.skip_bad_lines && input.lines.is_rows() {
        let text = "--skip-bad-lines is about lines of request files (--dialect openai, prompts or dria); \
                    rows that cannot be asked about fail without a call as it is";
        return Err(Error::Usage(text.to_owned()));
    }
    check_said(input.lines, own(prompt, known_by(input)), prompt, schema, model)
}

/// The same, of a command that says so much itself of what is [its own](own).
fn check_said(
    dialect: Dialect,
    given: Vec<&'static str>,
    prompt: &PromptArgs,
    schema: &SchemaArgs,
    model: &ModelArgs,
) -> Result<(), Error> {
    if dialect == Dialect::Prompts
        && let Some(option) = given.first()
    {
        return Err(Error::Usage(format!(
            "prompts say themselves what is asked and by which id they are known: leave {option} out, \
             or take them as rows with --dialect rows"
        )));
    }
    if !dialect.is_request() {
        if prompt.max_attachment_bytes.is_some()
            && prompt.attachment_field.is_none()
            && dialect.is_rows()
        {
            let text =
                "--max-attachment-bytes is about what --attachment-field names: give that too";
            return Err(Error::Usage(text.to_owned()));
        }
        return Ok(());
    }
    let said = [
        ("--instruction", prompt.instruction.is_some()),
        ("--on-missing-field", prompt.on_missing_field.is_some()),
        ("--schema", schema.schema.is_some()),
        ("--json-schema", schema.json_schema.is_some()),
        ("--protocol", model.protocol.is_some()),
        ("--temperature", model.temperature.is_some()),
        ("--max-tokens", model.max_tokens.is_some()),
        ("--top-p", model.top_p.is_some()),
        ("--param", !model.params.is_empty()),
    ];
    let said = said.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name);
    match given.into_iter().chain(said).next() {
        None => Ok(()),
        Some(option) => Err(refused(dialect, option)),
    }
}

/// An option says what the lines of a request file say themselves.
pub(super) fn refused(dialect: Dialect, option: &str) -> Error {
    Error::Usage(format!(
        "the input holds requests of the dialect {dialect}, which say themselves what is asked: leave \
         {option} out; to change them see rowmill files prepare, to take them as rows say --dialect rows"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_tell() {
        let batch = r#"{"custom_id":"a","method":"POST","url":"/v1/x","body":{}}"#;
        let (prompt, out) = (r#"{"prompt":"x"}"#, r#"{"id":1,"model":"m","output":"x"}"#);
        let told = |text: &str, has_own| {
            let told = told(text.as_bytes(), has_own);
            told.map_or_else(|it| it, |dialect| dialect.unwrap_or_default().to_string())
        };
        assert_eq!(told(&format!("\u{feff}\n {batch}\r\n"), true), "openai");
        assert_eq!((told(prompt, false), told(prompt, true)), ("prompts".into(), "rows".into()));
        assert_eq!(told(out, false), "it holds results of the dialect prompts");
        assert_eq!((told(out, true), told("", false)), ("rows".into(), "rows".into()));
        let envelope = r#"{"id":1,"row_number":1,"ok":true,"result":"x","error":null}"#;
        assert_eq!(told(envelope, false), "rows");
        let mixed = told(&format!("{batch}\n{prompt}\n"), true);
        assert!(mixed.starts_with("line 1 looks like requests of the dialect openai, line 2"));
        assert_eq!(told("\u{1}\0\0\0", false), "rows");
    }

    #[test]
    fn the_first_line_is_read_and_no_more() {
        // What is read piece by piece, and what of it is the first line, if anybody waits for it.
        let read = |pieces: &[&str], longest| {
            let (mut bytes, mut pieces) = (Vec::new(), pieces.iter());
            let mut read = |bytes: &mut Vec<u8>| {
                let Some(piece) = pieces.next() else { return Ok(Piece::End) };
                bytes.extend_from_slice(piece.as_bytes());
                Ok(if *piece == "-" { Piece::Unwanted } else { Piece::More })
            };
            let is_there = read_line(&mut bytes, longest, &mut read).unwrap();
            let line = String::from_utf8(first_line(&bytes).0.to_vec()).unwrap();
            (is_there.then_some(line), pieces.len())
        };
        assert_eq!(read(&["{", "}\n", "x"], 9), (Some("{}".into()), 1));
        assert_eq!(read(&["\n \r\n", "\n\n", "{}\n"], 1), (Some("{}".into()), 0));
        assert_eq!(read(&["\u{feff}", "\n", "\n{}", "\n"], 9), (Some("{}".into()), 0));
        assert_eq!(read(&["{}"], 9), (Some("{}".into()), 0));
        assert_eq!(read(&["0123", "4", "5"], 4), (Some("01234".into()), 1));
        assert_eq!(read(&["PAR1", "x"], 9).1, 1, "what is no text has no lines");
        assert_eq!(read(&["{", "-", "x"], 9), (None, 1));
        assert_eq!(read(&[], 9), (Some(String::new()), 0));
        // Blank lines that come for ever take no memory.
        let (mut count, mut bytes) = (0, BOM.to_vec());
        let mut read = |bytes: &mut Vec<u8>| {
            count += 1;
            bytes.extend_from_slice(b"\n");
            assert!(bytes.len() < 5);
            Ok(if count < 100 { Piece::More } else { Piece::End })
        };
        assert!(read_line(&mut bytes, 9, &mut read).unwrap());
    }

    #[test]
    fn no_more_is_read_than_tells() {
        let line = "{}\n";
        assert!(!is_enough(line.repeat(LINES - 1).as_bytes(), 9));
        assert!(is_enough(line.repeat(LINES).as_bytes(), 9));
        let long = "x".repeat(ENOUGH + 1);
        assert!(is_enough(long.as_bytes(), 9) && !is_enough(long.as_bytes(), 2 * ENOUGH));
        assert!(is_enough(format!("{long}\n").as_bytes(), 2 * ENOUGH));
    }
}
