//! `files prepare`: changes to the lines of a request file. What is not changed keeps its bytes. Held is one line.

mod edit;
mod glob;
mod images;

use std::io::Write;
use std::path::Path as FilePath;

pub use edit::Path;
pub use glob::Glob;

use super::Error;
use super::lines::{Input, Line, Lines};
use super::output::{Output, Writing};
use crate::dialect::detect::Side;
use crate::dialect::{Dialect, Endpoint, Problem, id_of};
use crate::format::json::{Object, write_string};
use crate::job::Id;
use crate::provider::wants_completion_tokens;
use crate::shutdown::Shutdown;

/// What to change, in this order.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Ids whose lines are left out.
    pub remove: Vec<Glob>,
    /// The model of every line.
    pub model: Option<String>,
    /// The temperature, as JSON.
    pub temperature: Option<String>,
    /// The most tokens of an answer, under the name that each endpoint has for it.
    pub max_tokens: Option<u64>,
    /// The nucleus of sampling, as JSON.
    pub top_p: Option<String>,
    /// Members of lines and their values, as JSON.
    pub set: Vec<(Path, String)>,
    /// Whether images that are named by path are put into their lines.
    pub encode_images: bool,
    /// Lines to put behind the others, each a JSON object without line ends. They are not changed.
    pub add: Vec<String>,
    /// The dialect, where it is not to be told by the file.
    pub dialect: Option<Dialect>,
}

impl Options {
    /// Whether there is anything to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { remove, model, temperature, max_tokens, top_p, set, encode_images, add, .. } =
            self;
        let parameters = [temperature, top_p].iter().any(|it| it.is_some()) || max_tokens.is_some();
        let lists = !(remove.is_empty() && set.is_empty() && add.is_empty());
        !(lists || parameters || model.is_some() || *encode_images)
    }

    fn wants_body(&self) -> bool {
        let has_parameter =
            self.temperature.is_some() || self.max_tokens.is_some() || self.top_p.is_some();
        has_parameter || self.model.is_some() || self.encode_images
    }

    fn has_parameter(&self) -> bool {
        self.temperature.is_some() || self.max_tokens.is_some() || self.top_p.is_some()
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Lines that were written, the added ones among them.
    pub lines: u64,
    /// Lines that were changed.
    pub changed: u64,
    /// Lines that were left out.
    pub removed: u64,
    /// Lines that were added.
    pub added: u64,
    /// Images that were put into lines.
    pub images: u64,
    /// Lines whose endpoint writes no text, and has no parameters for it.
    pub without_parameters: u64,
}

/// Writes the lines of a file with changes. Without an output the file itself is replaced, and stays untouched where
/// nothing changes.
///
/// # Errors
/// When the input cannot be read, a line is no JSON object or cannot be changed so, or the output cannot be written.
pub fn prepare(
    input: &Input,
    options: &Options,
    output: Option<&Output>,
    stdout: &mut dyn Write,
    shutdown: &Shutdown,
) -> Result<Prepared, Error> {
    let in_place = Output { path: input.path().to_owned(), overwrite: true };
    if output.is_none() && !input.is_regular() && (input.path().exists() || *input == Input::Stdin)
    {
        let text = format!("{} is no file that could be replaced", input.path().display());
        return Err(Error::Usage(text));
    }
    let mut lines = Lines::open(input, shutdown)?;
    let dialect = dialect_of(input, &lines, options)?;
    let mut writing = Writing::begin(output.unwrap_or(&in_place), stdout)?;
    let mut prepared = Prepared::default();
    let base = input.path().parent().unwrap_or(FilePath::new(""));
    let preparing = Preparing { options, dialect, base, path: input.path() };
    lines.each(&mut |line| match preparing.line(line, &mut prepared)? {
        Some(changed) => {
            prepared.lines += 1;
            writing.line(changed.as_deref().unwrap_or(line.bytes))
        }
        None => Ok(()),
    })?;
    for line in &options.add {
        prepared.added += 1;
        prepared.lines += 1;
        writing.line(line.as_bytes())?;
    }
    let is_as_it_was = prepared.changed + prepared.removed + prepared.added == 0;
    if !(output.is_none() && is_as_it_was) {
        writing.finish()?;
    }
    Ok(prepared)
}

fn dialect_of(input: &Input, lines: &Lines<'_>, options: &Options) -> Result<Dialect, Error> {
    let unlike = |what: String| Error::NotLines { path: input.path().to_owned(), what };
    let dialect = match (options.dialect, lines.detect()) {
        (Some(dialect), _) => dialect,
        (None, Ok(None)) => return Ok(Dialect::OpenAi),
        (None, Ok(Some(form))) if form.side == Side::Requests => form.dialect,
        (None, Ok(Some(form))) => return Err(unlike(format!("looks like {form}, not requests"))),
        (None, Err(mixed)) => return Err(unlike(format!("holds different things: {mixed}"))),
    };
    if options.wants_body() && !matches!(dialect, Dialect::OpenAi | Dialect::Dria) {
        let what = format!(
            "has lines of the dialect {dialect}, which have no body to put models, parameters or \
             images in"
        );
        return Err(unlike(what));
    }
    Ok(dialect)
}

struct Preparing<'a> {
    options: &'a Options,
    dialect: Dialect,
    base: &'a FilePath,
    path: &'a FilePath,
}

/// A line's bytes where they were changed.
type Changed = Option<Vec<u8>>;

impl Preparing<'_> {
    /// The line with its changes; nothing where it is left out.
    fn line(&self, line: Line<'_>, done: &mut Prepared) -> Result<Option<Changed>, Error> {
        line.whole(self.path)?;
        let refused = |problem| line.refused(self.path, problem);
        let text = line.text().map_err(refused)?;
        let object = Object::parse(text).map_err(|error| refused(Problem::Json(error)))?;
        let id = id_of(&object).and_then(|token| Id::parse(token).ok());
        if id.is_some_and(|id| self.options.remove.iter().any(|glob| glob.fits(&id.text()))) {
            done.removed += 1;
            return Ok(None);
        }
        let edits = self.edits(&object, done);
        let mut changed: Option<String> = None;
        let cannot = |reason| Error::Edit { path: self.path.to_owned(), line: line.number, reason };
        for (path, value) in edits.iter().chain(&self.options.set) {
            let now = changed.as_deref().unwrap_or(text);
            if let Some(new) = edit::set(now, path, value).map_err(cannot)? {
                changed = Some(new);
            }
        }
        if self.options.encode_images {
            let now = changed.as_deref().unwrap_or(text);
            let edits = images::edits(now, self.base).map_err(cannot)?;
            if !edits.is_empty() {
                done.images += edits.len() as u64;
                changed = Some(edit::splice(now, edits));
            }
        }
        done.changed += u64::from(changed.is_some());
        Ok(Some(changed.map(String::into_bytes)))
    }

    /// Where the model and the parameters go.
    fn edits(&self, line: &Object<'_>, done: &mut Prepared) -> Vec<(Path, String)> {
        let options = self.options;
        let mut edits = Vec::new();
        let mut set = |name: &str, value: String| edits.push((Path::of(&["body", name]), value));
        if let Some(model) = &options.model {
            let mut token = Vec::new();
            write_string(&mut token, model);
            set("model", String::from_utf8_lossy(&token).into_owned());
        }
        if !options.has_parameter() {
            return edits;
        }
        let endpoint = match self.dialect {
            Dialect::Dria => Some(Endpoint::ChatCompletions),
            _ => line
                .get("url")
                .and_then(|token| serde_json::from_str::<String>(token).ok())
                .and_then(|url| Endpoint::of_url(&url)),
        };
        if !endpoint.is_some_and(Endpoint::writes_text) {
            done.without_parameters += 1;
            return edits;
        }
        if let Some(value) = &options.temperature {
            set("temperature", value.clone());
        }
        if let Some(value) = options.max_tokens {
            let name = name_of_max_tokens(endpoint, line, options.model.as_deref());
            set(name, value.to_string());
        }
        if let Some(value) = &options.top_p {
            set("top_p", value.clone());
        }
        edits
    }
}

/// What a line's endpoint calls the most tokens of an answer. Chat Completions has two names for it: a line that has
/// one keeps it, and OpenAI's newer models refuse the older.
fn name_of_max_tokens(
    endpoint: Option<Endpoint>,
    line: &Object<'_>,
    model: Option<&str>,
) -> &'static str {
    const NEWER: &str = "max_completion_tokens";
    const OLDER: &str = "max_tokens";
    match endpoint {
        Some(Endpoint::Responses) => return "max_output_tokens",
        Some(Endpoint::ChatCompletions) => {}
        _ => return OLDER,
    }
    let Some(body) = line.get("body").and_then(|body| Object::parse(body).ok()) else {
        return OLDER;
    };
    let own: Option<String> = body.get("model").and_then(|it| serde_json::from_str(it).ok());
    let is_newer = model.or(own.as_deref()).is_some_and(wants_completion_tokens);
    match (body.get(NEWER).is_some(), body.get(OLDER).is_some()) {
        (true, _) => NEWER,
        (false, false) if is_newer => NEWER,
        _ => OLDER,
    }
}
