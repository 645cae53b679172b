//! Documents that come from a URL or go to one: what is tried again, and when that ends.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::header::HeaderMap;

use super::{Context, Error};
use crate::http::{self, Download, Link, NotMoved, Transfer};
use crate::input::Source;
use crate::job::rfc3339;
use crate::policy;
use crate::shutdown::{Shutdown, Stage};
use crate::store::{self, CommitFile, Held, Part, PartOf, Role};
use crate::telemetry::{Event, Silent, Sink, now_ms};

/// How often something is tried that brings nothing new.
const TRIES: u32 = 5;
/// A server that wants to be left alone for longer is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Why a try failed.
enum Trouble {
    /// It may be better next time, after a while if the server said how long.
    Passing(String, Option<Duration>),
    /// It will not be.
    Refused(String),
    /// Neither will it, but that is the way's fault.
    NoWay(String),
    /// It is on our side.
    Ours(Error),
}

impl From<NotMoved> for Trouble {
    fn from(error: NotMoved) -> Self {
        match error {
            NotMoved::Stopped => Self::Ours(Error::Interrupted),
            NotMoved::Elsewhere(_) => Self::Refused(error.to_string()),
            NotMoved::Call(http::Error::Tls { .. }) => {
                Self::NoWay(format!("{error} (SSL_CERT_FILE names further roots)"))
            }
            NotMoved::System(_) => Self::NoWay(error.to_string()),
            NotMoved::Call(_) => Self::Passing(error.to_string(), None),
        }
    }
}

impl From<store::Error> for Trouble {
    fn from(error: store::Error) -> Self {
        Self::Ours(error.into())
    }
}

/// A status that is not the one hoped for.
fn of_status(status: u16, headers: &HeaderMap, said: &[u8]) -> Trouble {
    let what = match code_in(said) {
        Some(code) => format!("HTTP {status} ({code})"),
        None => format!("HTTP {status}"),
    };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match status {
        408 | 425 | 429 | 500.. => {
            let after = header("retry-after");
            let after = policy::retry_after(None, after, header("date"), now_ms());
            Trouble::Passing(what, after)
        }
        _ => Trouble::Refused(what),
    }
}

/// What S3 and those like it call an error. Nothing else of it is shown: it may hold what was signed.
fn code_in(said: &[u8]) -> Option<&str> {
    const LONGEST: usize = 48;
    let text = std::str::from_utf8(said).ok()?;
    let code = text.split_once("<Code>")?.1.split_once("</Code>")?.0;
    let is_word = code.len() <= LONGEST && code.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_word.then_some(code)
}

/// How often was tried in vain, and how long to wait before the next time.
struct Patience<'a> {
    tries: u32,
    shutdown: &'a Shutdown,
    /// What is done, for messages.
    what: String,
}

impl Patience<'_> {
    /// Waits for the next try; gives the reason back where there is to be none.
    fn wait(
        &mut self,
        reason: String,
        after: Option<Duration>,
        sink: &mut dyn Sink,
    ) -> Result<(), Trouble> {
        self.tries += 1;
        if self.tries >= TRIES {
            return Err(Trouble::NoWay(format!("{reason}, {TRIES} times")));
        }
        let wait = policy::backoff(self.tries - 1, fastrand::f64()).max(after.unwrap_or_default());
        if wait > LONGEST_WAIT {
            let wait = wait.as_secs();
            return Err(Trouble::NoWay(format!("{reason}; it asks to be left alone for {wait} s")));
        }
        let what = &self.what;
        let seconds = wait.as_secs_f64();
        sink.emit(&Event::Warning(format!("{what}: {reason}; tried again in {seconds:.1} s")));
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.shutdown.stage() != Stage::Running {
                return Err(Trouble::Ours(Error::Interrupted));
            }
            let left = until.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        Ok(())
    }
}

fn begin<'a>(patience: Duration, stop: &'a dyn Fn() -> bool) -> Result<Transfer<'a>, Trouble> {
    let no_room = |source: io::Error| Trouble::NoWay(source.to_string());
    Transfer::new(patience, stop).map_err(no_room)
}

/// Fetches an input into the work directory, beside the copy that is there if `is_second`. What came
/// of it before, in this process or another, is gone on with where the server allows that.
pub(super) fn download(
    dir: &Held,
    link: &Link,
    is_second: bool,
    context: &mut Context<'_>,
) -> Result<Source, Error> {
    let fetched = fetch(dir, link, is_second, context);
    fetched.map_err(|trouble| {
        let url = link.shown().to_owned();
        match trouble {
            Trouble::Ours(error) => error,
            Trouble::Refused(reason) => Error::NotThere { url, reason },
            Trouble::NoWay(reason) | Trouble::Passing(reason, _) => {
                Error::OutOfReach { url, reason }
            }
        }
    })
}

/// The beginning of an input at a URL, as far as `is_enough` wants it: for telling what it is, before
/// there is a work directory. Nothing of one that is CSV. What may pass is tried again, unseen.
///
/// # Errors
/// When it is not there, or cannot be reached.
pub fn beginning(link: &Link, is_enough: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>, Error> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (_trigger, shutdown) = crate::shutdown::channel();
    let mut patience = Patience { tries: 0, shutdown: &shutdown, what: String::new() };
    let url = || link.shown().to_owned();
    let begun = begin(PATIENCE, &|| false).and_then(|transfer| {
        loop {
            match begin_of(&transfer, link, is_enough) {
                Err(Trouble::Passing(reason, after)) => {
                    patience.wait(reason, after, &mut Silent)?
                }
                ended => break ended,
            }
        }
    });
    begun.map_err(|trouble| match trouble {
        Trouble::Ours(error) => error,
        Trouble::Refused(reason) => Error::NotThere { url: url(), reason },
        Trouble::NoWay(reason) | Trouble::Passing(reason, _) => {
            Error::OutOfReach { url: url(), reason }
        }
    })
}

fn begin_of(
    transfer: &Transfer<'_>,
    link: &Link,
    is_enough: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, Trouble> {
    let mut download = transfer.get_beginning(link, 1 << 20)?;
    match download.status {
        200 | 206 if is_csv(link, header(&download, "content-type")) => return Ok(Vec::new()),
        200 | 206 => {}
        // There is nothing in it.
        416 => return Ok(Vec::new()),
        status => return Err(of_status(status, &download.headers, b"")),
    }
    let mut read = Vec::new();
    while !is_enough(&read)
        && let Some(piece) = download.piece()?
    {
        read.extend_from_slice(&piece);
    }
    Ok(read)
}

fn fetch(
    dir: &Held,
    link: &Link,
    is_second: bool,
    context: &mut Context<'_>,
) -> Result<Source, Trouble> {
    /// How long nothing may come.
    const PATIENCE: Duration = Duration::from_secs(60);
    let shutdown = context.shutdown;
    let stop = || shutdown.stage() != Stage::Running;
    let transfer = begin(PATIENCE, &stop)?;
    let mut part = dir.open_part()?;
    let mut patience = Patience { tries: 0, shutdown, what: format!("fetching {link}") };
    let mut farthest = part.length();
    context.sink.emit(&Event::Note(match farthest {
        0 => format!("fetching {link}"),
        there => format!("fetching {link}, of which {there} bytes are here"),
    }));
    let is_csv = loop {
        let trouble = match fetch_once(&transfer, link, &mut part, context.sink) {
            Ok(is_csv) => break is_csv,
            Err(trouble) => trouble,
        };
        part.keep()?;
        if part.length() > farthest {
            (farthest, patience.tries) = (part.length(), 0);
        }
        match trouble {
            Trouble::Passing(reason, after) => patience.wait(reason, after, context.sink)?,
            trouble => return Err(trouble),
        }
    };
    context.sink.emit(&Event::Prepared);
    context.sink.emit(&Event::Note(format!("fetched {} bytes", part.length())));
    let place = part.finish(dir, is_second)?;
    Source::open_as(&place, is_csv).map_err(|error| {
        // Nobody will want it again; what is wrong with it is the error to tell.
        let _ = dir.forget_part();
        Trouble::Ours(error.of_copy_of(link.shown()).into())
    })
}

/// Fetches what there is, from the beginning or from where the last try ended. Says whether it is
/// CSV.
fn fetch_once(
    transfer: &Transfer<'_>,
    link: &Link,
    part: &mut Part,
    sink: &mut dyn Sink,
) -> Result<bool, Trouble> {
    let of = part.of().filter(|of| of.url == link.shown() && part.length() > 0).cloned();
    let from = of.as_ref().map(|of| (part.length(), of.validator.as_str()));
    let mut download = transfer.get(link, from)?;
    let (is_csv, length) = match (download.status, of) {
        (206, Some(of)) if is_the_rest(&download, &of, part.length()) => {
            (of.is_csv, Some(of.bytes))
        }
        (206 | 416, _) => {
            part.begin(None)?;
            let reason = "the server sent another part than was asked for".to_owned();
            return Err(Trouble::Passing(reason, None));
        }
        (200, _) => {
            if let Some(coding) = header(&download, "content-encoding")
                && coding != "identity"
            {
                let reason = "it is sent compressed, and only as that".to_owned();
                return Err(Trouble::Refused(reason));
            }
            let length = header(&download, "content-length").and_then(|it| it.parse().ok());
            if length.is_none() && header(&download, "transfer-encoding").is_none() {
                let reason = "the server does not say how long it is, so that nobody could tell \
                              whether all of it came";
                return Err(Trouble::Refused(reason.to_owned()));
            }
            let is_csv = is_csv(link, header(&download, "content-type"));
            part.begin(length.and_then(|bytes| resumable(&download, link, bytes, is_csv)))?;
            (is_csv, length)
        }
        (status, _) => return Err(of_status(status, &download.headers, b"")),
    };
    let mut told = Instant::now();
    while let Some(piece) = download.piece()? {
        part.write(&piece)?;
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            let (come, of) = (part.length(), length.map(|it| format!(" of {it}")));
            let what = format!("fetching {link}: {come}{} bytes", of.unwrap_or_default());
            sink.emit(&Event::Preparing { what });
        }
    }
    if length.is_some_and(|length| length != part.length()) {
        let reason = format!("{} bytes came of {}", part.length(), length.unwrap_or_default());
        return Err(Trouble::Passing(reason, None));
    }
    Ok(is_csv)
}

fn header<'a>(download: &'a Download<'_>, name: &str) -> Option<&'a str> {
    download.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// What is noted of a document whose rest can be asked for later.
fn resumable(download: &Download<'_>, link: &Link, bytes: u64, is_csv: bool) -> Option<PartOf> {
    let takes_ranges = header(download, "accept-ranges") == Some("bytes");
    // A weak tag tells versions apart that differ in meaning, not in bytes.
    let tag = header(download, "etag").filter(|tag| tag.starts_with('"'));
    let validator = tag.or_else(|| header(download, "last-modified")).filter(|_| takes_ranges)?;
    let (url, validator) = (link.shown().to_owned(), validator.to_owned());
    Some(PartOf { url, validator, bytes, is_csv })
}

/// Whether an answer is what is behind the first bytes of that document.
fn is_the_rest(download: &Download<'_>, of: &PartOf, offset: u64) -> bool {
    let range = format!("bytes {offset}-{}/{}", of.bytes.saturating_sub(1), of.bytes);
    let is_same = |name| header(download, name).is_none_or(|found| found == of.validator);
    let has_tag = of.validator.starts_with('"');
    header(download, "content-range") == Some(range.as_str())
        && is_same(if has_tag { "etag" } else { "last-modified" })
}

/// Whether a document is CSV: its name says so, or else its type does.
fn is_csv(link: &Link, content_type: Option<&str>) -> bool {
    let name = link.file_name().map(Path::new).and_then(Path::extension);
    let name = name.map(|it| it.to_ascii_lowercase());
    match name.as_deref().and_then(|name| name.to_str()) {
        Some("csv" | "tsv" | "tab") => true,
        Some("jsonl" | "ndjson") => false,
        _ => content_type.is_some_and(|it| it.to_ascii_lowercase().starts_with("text/csv")),
    }
}

/// Uploads an output to that of the URLs which is its place, and gives the time. Nothing where none
/// is: then it is not wanted there any more.
pub(super) fn upload(
    file: &CommitFile,
    staged: &Path,
    links: &[Link],
    shutdown: &Shutdown,
    sink: &mut dyn Sink,
) -> Result<Option<String>, Error> {
    let Some(link) = links.iter().find(|link| file.target.to_str() == Some(link.shown())) else {
        let (role, place) = (file.role.name(), file.target.display());
        sink.emit(&Event::Alert(format!(
            "the upload to {place} ({role}) that waited is given up: this command does not name it"
        )));
        return Ok(None);
    };
    shutdown.note_upload(true);
    let put = put(file, staged, link, shutdown, sink);
    shutdown.note_upload(false);
    match put {
        Ok(()) => Ok(Some(rfc3339(now_ms()))),
        Err(Trouble::Ours(error)) => Err(error),
        Err(Trouble::Refused(reason) | Trouble::NoWay(reason) | Trouble::Passing(reason, _)) => {
            Err(Error::NotUploaded { url: link.shown().to_owned(), reason })
        }
    }
}

fn put(
    file: &CommitFile,
    staged: &Path,
    link: &Link,
    shutdown: &Shutdown,
    sink: &mut dyn Sink,
) -> Result<(), Trouble> {
    /// How long nothing may move, or an answer not come.
    const PATIENCE: Duration = Duration::from_secs(300);
    // What is decided may be carried out while the run drains, and no longer.
    let stop = || shutdown.stage() == Stage::Aborting;
    let transfer = begin(PATIENCE, &stop)?;
    let mut patience = Patience { tries: 0, shutdown, what: format!("uploading to {link}") };
    let content_type = match file.role {
        Role::Summary => "application/json",
        Role::Output | Role::Errors | Role::Telemetry | Role::Delta => "application/x-ndjson",
    };
    sink.emit(&Event::Note(format!("uploading {} bytes to {link}", file.bytes)));
    loop {
        let opened = File::open(staged).map_err(|source| {
            let path = staged.to_owned();
            Trouble::Ours(store::Error::Io { what: "read", path, source }.into())
        })?;
        let trouble = match transfer.put(link, opened, file.bytes, content_type) {
            Ok((200..=299, ..)) => return Ok(()),
            Ok((status, headers, said)) => of_status(status, &headers, &said),
            Err(error) => error.into(),
        };
        match trouble {
            Trouble::Passing(reason, after) => patience.wait(reason, after, sink)?,
            trouble => return Err(trouble),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_error_only_its_name_is_shown() {
        let said = b"<Error><Code>AccessDenied</Code><StringToSign>geheim</StringToSign></Error>";
        assert_eq!(code_in(said), Some("AccessDenied"));
        for nothing in ["", "<Code>a1b2</Code>", "<Code>x", "<Code>é</Code>", "{}"] {
            assert_eq!(code_in(nothing.as_bytes()), None);
        }
        let headers = HeaderMap::new();
        assert!(matches!(of_status(403, &headers, said), Trouble::Refused(text)
            if text == "HTTP 403 (AccessDenied)"));
        for status in [408, 429, 500, 503] {
            assert!(matches!(of_status(status, &headers, b""), Trouble::Passing(_, None)));
        }
    }

    #[test]
    fn the_name_tells_the_format_before_the_type_does() {
        for (url, content_type, expected) in [
            ("http://h/a.csv?b.jsonl", None, true),
            ("http://h/a.CSV", Some("application/x-ndjson"), true),
            ("http://h/a.jsonl?x=.csv", Some("text/csv"), false),
            ("http://h/export", Some("Text/CSV; charset=utf-8"), true),
            ("http://h/export", Some("application/octet-stream"), false),
            ("http://h/", None, false),
        ] {
            assert_eq!(is_csv(&Link::parse(url).unwrap(), content_type), expected, "{url}");
        }
    }
}
