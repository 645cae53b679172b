//! The log: one line of JSON an event, appended to a file that several runs may share.
//!
//! `docs/formats.md` has the fields. There is no text of a row, no prompt and no key in it: events
//! carry none.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Event, now_ms};
use crate::job::rfc3339;

/// How often a line of progress is logged while nothing else happens.
const PROGRESS_EVERY: Duration = Duration::from_secs(60);
/// The longest message, in characters: an endpoint's own words may be long.
const LONGEST: usize = 500;

/// Why there is no log, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be opened, or is no file that can be appended to.
    #[error("cannot open the log {}: {source}", path.display())]
    Open {
        /// The log.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A line could not be appended.
    #[error(
        "cannot append to the log {}: {source}; the run goes on, and lines may be missing there",
        path.display()
    )]
    Append {
        /// The log.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// One line. Its fields stand in this order, those of the event behind them by name.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    level: &'a str,
    event: &'a str,
    pid: u32,
    message: String,
    #[serde(flatten)]
    fields: Value,
}

/// A log that is open.
pub struct Log {
    out: Box<dyn Write + Send>,
    path: PathBuf,
    // Whether the last line may lack its end: somebody was cut off, or the disk was full.
    is_torn: bool,
    has_failed: bool,
    error: Option<LogError>,
    wanted: u64,
    ok: u64,
    failed: u64,
    calls: u64,
    last_progress: Option<Instant>,
    // Until when a pause was told of, and what was waited for, and when that was told.
    paused_until: Option<Instant>,
    waiting: Option<(&'static str, Instant)>,
}

impl Log {
    /// Opens a log for appending, and makes it, for its owner alone, if it is not there.
    ///
    /// # Errors
    /// [`LogError::Open`].
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let failed = |source| LogError::Open { path: path.to_owned(), source };
        // Opening a pipe would wait for its reader.
        if let Ok(meta) = std::fs::metadata(path)
            && !meta.is_file()
            && !meta.file_type().is_char_device()
        {
            return Err(failed(io::Error::other("it is no file")));
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(path).map_err(failed)?;
        let is_torn = is_torn(&file).map_err(failed)?;
        Ok(Self::new(Box::new(file), path, is_torn))
    }

    fn new(out: Box<dyn Write + Send>, path: &Path, is_torn: bool) -> Self {
        Self {
            out,
            path: path.to_owned(),
            is_torn,
            has_failed: false,
            error: None,
            wanted: 0,
            ok: 0,
            failed: 0,
            calls: 0,
            last_progress: None,
            paused_until: None,
            waiting: None,
        }
    }

    /// The first error, once.
    pub(super) fn first_error(&mut self) -> Option<LogError> {
        self.error.take()
    }

    /// A command begins. `work_dir` is where it works, if it has such a place, `version` rowmill's.
    pub fn begin(&mut self, command: &str, version: &str, work_dir: &Path) {
        let mut fields = json!({"command": command, "version": version});
        if !work_dir.as_os_str().is_empty() {
            fields["work_dir"] = json!(work_dir.to_string_lossy());
        }
        self.line("info", "begin", &format!("rowmill {command} begins"), fields);
    }

    /// A command ends with an exit code, and a message where that is not 0.
    pub fn end(&mut self, code: u8, message: &str) {
        let level = match code {
            0 => "info",
            // Some rows failed, the run was asked to end, or another is at it.
            3 | 4 | 75 | 130 | 143 => "warning",
            _ => "error",
        };
        let Self { ok, failed, calls, .. } = *self;
        let fields = json!({"code": code, "ok": ok, "failed": failed, "calls": calls});
        self.line(level, "end", message, fields);
    }

    /// Logs an event; most of them are for the screen alone.
    pub(super) fn emit(&mut self, event: &Event) {
        match event {
            Event::Started { wanted, done, failed, workers, variants } => {
                self.wanted = wanted.saturating_sub(*done);
                let mut fields =
                    json!({"rows": wanted, "done": done, "failed": failed, "workers": workers});
                let unit = match variants {
                    0 | 1 => "rows",
                    _ => {
                        fields["variants"] = json!(variants);
                        "answers"
                    }
                };
                let text = format!("{} {unit} are to be done", self.wanted);
                self.line("info", "started", &text, fields);
            }
            Event::Opened { worker, shard, left } => {
                let fields = json!({"worker": worker, "shard": shard, "rows": left});
                self.line("info", "shard_opened", &format!("shard {shard} is opened"), fields);
            }
            Event::Sealed { shard, ok, failed } => {
                let fields = json!({"shard": shard, "ok": ok, "failed": failed});
                self.line("info", "shard_sealed", &format!("shard {shard} is complete"), fields);
            }
            Event::Committed { ok, failed, calls, .. } => {
                self.ok += ok;
                self.failed += failed;
                self.calls += calls;
            }
            Event::Tick { now, in_flight } => self.tick(*now, *in_flight),
            Event::Paused { until, why } => self.paused(*until, why),
            Event::Waiting { until, why } => self.waiting(*until, why),
            Event::Recovered => {
                self.line("info", "recovered", "the endpoint answers again", json!({}));
            }
            Event::LeftAlone { who, until, why } => {
                let wait = until.saturating_duration_since(Instant::now());
                let fields = json!({"seconds": whole(wait), "endpoint": who});
                self.line("warning", "paused", why, fields);
            }
            Event::Back { who } => {
                let fields = json!({"endpoint": who});
                self.line("info", "recovered", &format!("{who} answers again"), fields);
            }
            Event::Draining => {
                let text = "nothing new is started; calls in flight may end";
                self.line("info", "draining", text, json!({}));
            }
            Event::Alert(text) => self.line("error", "alert", text, json!({})),
            Event::Warning(text) => self.line("warning", "warning", text, json!({})),
            Event::Note(text) => self.line("info", "note", text, json!({})),
            Event::Prepared => {
                self.line("info", "prepared", "what calls wait for is ready", json!({}))
            }
            Event::Planning { .. }
            | Event::Preparing { .. }
            | Event::Idle { .. }
            | Event::Ended => {}
        }
    }

    /// A pause that all calls under way tell of is one.
    fn paused(&mut self, until: Instant, why: &str) {
        const MORE: Duration = Duration::from_secs(1);
        let now = Instant::now();
        let is_known = |known: Instant| known > now && until < known + MORE;
        if !self.paused_until.is_some_and(is_known) {
            self.paused_until = Some(until);
            let fields = json!({"seconds": whole(until.saturating_duration_since(now))});
            self.line("warning", "paused", why, fields);
        }
    }

    /// What calls wait for, when that is something else than before, and now and then.
    fn waiting(&mut self, until: Instant, why: &'static str) {
        let now = Instant::now();
        let is_known =
            |(known, at): (&str, Instant)| known == why && now.duration_since(at) < PROGRESS_EVERY;
        if !self.waiting.is_some_and(is_known) {
            self.waiting = Some((why, now));
            let fields = json!({"seconds": whole(until.saturating_duration_since(now))});
            self.line("info", "waiting", &format!("calls wait: {why}"), fields);
        }
    }

    fn tick(&mut self, now: Instant, in_flight: usize) {
        let last = *self.last_progress.get_or_insert(now);
        if now.duration_since(last) < PROGRESS_EVERY {
            return;
        }
        self.last_progress = Some(now);
        let Self { ok, failed, calls, wanted, .. } = *self;
        let left = wanted.saturating_sub(ok + failed);
        let fields = json!({
            "ok": ok, "failed": failed, "left": left, "calls": calls, "in_flight": in_flight,
        });
        self.line("info", "progress", &format!("{left} rows are left"), fields);
    }

    /// Appends a line with one write, so that lines of several processes do not mix.
    fn line(&mut self, level: &str, event: &str, message: &str, fields: Value) {
        let line = Line {
            time: rfc3339(now_ms()),
            level,
            event,
            pid: std::process::id(),
            message: message.chars().take(LONGEST).collect(),
            fields,
        };
        let mut text = if self.is_torn { b"\n".to_vec() } else { Vec::new() };
        // Writing to a Vec cannot fail.
        let _ = serde_json::to_writer(&mut text, &line);
        text.push(b'\n');
        match self.out.write_all(&text) {
            Ok(()) => self.is_torn = false,
            Err(source) => {
                self.is_torn = true;
                if !std::mem::replace(&mut self.has_failed, true) {
                    self.error = Some(LogError::Append { path: self.path.clone(), source });
                }
            }
        }
    }
}

/// Whether the last line of a file lacks its end, because somebody was cut off: what is appended begins with it
/// then. What is no regular file has no such line.
///
/// # Errors
/// When it cannot be read.
pub fn is_torn(file: &File) -> io::Result<bool> {
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, meta.len() - 1)?;
    Ok(last != *b"\n")
}

/// Whole seconds, and one more for what is left.
fn whole(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::job::{Spending, Usage};
    use crate::telemetry::{Progress, Sink, Style, Tee};

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn committed() -> Event {
        Event::Committed {
            worker: 0,
            ok: 3,
            failed: 1,
            calls: 5,
            usage: Usage::default(),
            cost: Spending::default(),
        }
    }

    #[test]
    fn runs_append_to_one_file_a_line_an_event() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut one, mut other) = (Log::open(&path).unwrap(), Log::open(&path).unwrap());
        one.begin("run", "1.2.3", Path::new("job"));
        other.begin("merge", "1.2.3", Path::new("job"));
        one.emit(&Event::Started { wanted: 10, done: 2, failed: 0, workers: 1, variants: 1 });
        one.emit(&committed());
        let start = Instant::now();
        for seconds in [0, 59, 60, 61, 119, 120] {
            let now = start + Duration::from_secs(seconds);
            one.emit(&Event::Tick { now, in_flight: 2 });
        }
        one.emit(&Event::Sealed { shard: 7, ok: 4, failed: 0 });
        one.end(3, "1 of 10 rows failed");
        let lines = lines(&path);
        let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(
            events,
            ["begin", "begin", "started", "progress", "progress", "shard_sealed", "end"]
        );
        let progress = json!({"left": 4, "ok": 3, "failed": 1, "calls": 5, "in_flight": 2});
        for (name, value) in progress.as_object().unwrap() {
            assert_eq!(&lines[3][name], value, "{name}");
        }
        assert_eq!((&lines[6]["code"], &lines[6]["level"]), (&json!(3), &json!("warning")));
        let first = std::fs::read_to_string(&path).unwrap();
        assert!(first.starts_with("{\"time\":\"2"), "{first}");
    }

    #[test]
    fn a_line_that_was_cut_off_is_ended_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "{\"half").unwrap();
        Log::open(&path).unwrap().end(0, "done");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"half\n{\"time\""), "{text}");
    }

    #[test]
    fn what_cannot_be_appended_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("not/there")] {
            assert!(matches!(Log::open(&path), Err(LogError::Open { .. })), "{}", path.display());
        }
        assert!(Log::open(Path::new("/dev/null")).is_ok());
    }

    /// A disk that is full at first.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (has_room, held) = &mut *self.0.lock().unwrap();
            if !*has_room {
                return Err(io::ErrorKind::StorageFull.into());
            }
            held.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_told_once_and_lines_go_on_when_there_is_room() {
        let (disk, screen) = (Disk::default(), Disk::default());
        screen.0.lock().unwrap().0 = true;
        let log = Log::new(Box::new(disk.clone()), Path::new("some.log"), false);
        let mut tee = Tee::new(Progress::new(Style::Alerts(Box::new(screen.clone()))), Some(log));
        tee.emit(&Event::Recovered);
        tee.emit(&Event::Draining);
        disk.0.lock().unwrap().0 = true;
        tee.emit(&committed());
        tee.log(|log| log.end(0, "done"));
        let said = String::from_utf8(screen.0.lock().unwrap().1.clone()).unwrap();
        assert!(said.starts_with("warning: cannot append to the log some.log"), "{said}");
        assert_eq!(said.lines().count(), 1);
        let logged = String::from_utf8(disk.0.lock().unwrap().1.clone()).unwrap();
        assert!(logged.starts_with("\n{") && logged.contains("\"ok\":3"), "{logged}");
    }
}
