//! The schema of answers, from what the arguments name.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{FormArgs, SchemaArgs};
use super::question::read_text;
use crate::http::{self, Limits, Link};
use crate::job::JobSpec;
use crate::pipeline::Error;
use crate::schema::{Schema, from_short, read_given};
use crate::work::Structured;

/// Bytes of a schema that is fetched, and the time it may take.
const BYTES: usize = 1 << 20;
const TIME: Duration = Duration::from_secs(30);

/// What an argument names.
#[derive(Debug, PartialEq, Eq)]
enum Source<'a> {
    Url(&'a str),
    File(&'a Path),
    /// A schema itself.
    Json(&'a str),
    Short(&'a str),
}

impl SchemaArgs {
    fn source(&self) -> Option<Source<'_>> {
        let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
        match (self.json_schema.as_deref(), self.schema.as_deref()) {
            (Some(url), _) | (None, Some(url)) if is_url(url) => Some(Source::Url(url)),
            (Some(path), _) => Some(Source::File(Path::new(path))),
            (None, Some(text)) => {
                let path = Path::new(text);
                let is_named_so =
                    path.extension().is_some_and(|it| it.eq_ignore_ascii_case("json"));
                Some(match text.trim_start().starts_with('{') {
                    true => Source::Json(text),
                    false if is_named_so || path.is_file() => Source::File(path),
                    false => Source::Short(text),
                })
            }
            (None, None) => None,
        }
    }

    /// The file that holds the schema, if one does.
    pub(super) fn file(&self) -> Option<PathBuf> {
        match self.source() {
            Some(Source::File(path)) => Some(path.to_owned()),
            _ => None,
        }
    }
}

/// The text of the schema that answers must fit, in one line.
pub(super) fn schema_text(args: &SchemaArgs) -> Result<Option<String>, Error> {
    let usage =
        |what: &str, error: &dyn std::fmt::Display| Err(Error::Usage(format!("{what}{error}")));
    let (what, text) = match args.source() {
        None => return Ok(None),
        Some(Source::Url(url)) => {
            let bytes = http::fetch(url, Limits::whole(TIME, BYTES)).map_err(Error::NotFetched)?;
            let url = Link::without_secrets(url);
            match String::from_utf8(bytes.into()) {
                Ok(text) => (format!("{url}: "), text),
                Err(error) => return usage(&format!("{url}: the schema is no text: "), &error),
            }
        }
        Some(Source::File(path)) => (format!("{}: ", path.display()), read_text(path)?),
        Some(Source::Json(text)) => ("--schema: ".to_owned(), text.to_owned()),
        Some(Source::Short(text)) => match from_short(text) {
            Ok(schema) => (String::new(), schema),
            Err(error) => {
                let hint = "; and there is no file of this name";
                return usage("--schema: ", &format!("{error} of {text:?}{hint}"));
            }
        },
    };
    match read_given(&text) {
        Ok(schema) => Ok(Some(schema.text().to_owned())),
        Err(error) => usage(&what, &error),
    }
}

/// What a job's answers must be.
pub(super) fn structured(job: &JobSpec, args: FormArgs) -> Result<Option<Structured>, Error> {
    let Some(text) = &job.schema else { return Ok(None) };
    let schema = Schema::read(text).map_err(|error| Error::Usage(error.to_string()))?;
    Ok(Some(Structured { schema, mode: args.schema_mode, retries: args.schema_retries }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_a_url_a_file_a_schema_or_its_short_form() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("sentiment");
        std::fs::write(&there, "{}").unwrap();
        let there = there.to_str().unwrap();
        let source = |text: &str| {
            let args = SchemaArgs { json_schema: None, schema: Some(text.to_owned()) };
            format!("{:?}", args.source().unwrap())
        };
        assert_eq!(source("sentiment"), "Short(\"sentiment\")");
        assert_eq!(source(there), format!("File({there:?})"));
        assert_eq!(source("missing.json"), "File(\"missing.json\")");
        assert_eq!(source(" {\"type\":\"object\"}"), "Json(\" {\\\"type\\\":\\\"object\\\"}\")");
        assert_eq!(source("https://host/x"), "Url(\"https://host/x\")");
        let args = SchemaArgs { json_schema: Some("a".to_owned()), schema: None };
        assert_eq!(args.source(), Some(Source::File(Path::new("a"))));
    }
}
