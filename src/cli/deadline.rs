//! `--deadline`: when a run is to have ended, and the watch that sees to it.
//!
//! The watch drains the run a while before, drops calls in flight shortly before, and ends the
//! process if it is still there at the moment itself: as `kill -9` would, which loses nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::civil::Time;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::exit::{self, Line};
use super::parse::some_time;
use super::question::variable;
use super::signals::Caught;
use super::typed::Typed;
use crate::pipeline::Error;
use crate::shutdown::{self, Stage, Trigger};
use crate::store;

/// A deadline as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deadline {
    pub(super) text: String,
    when: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// So long after the start.
    After(Duration),
    /// When a clock on the wall next shows this.
    Clock(Time),
    /// At this moment.
    At(Timestamp),
}

/// `2h`, `06:00`, or `2026-11-22T06:00:00+01:00`.
pub(super) fn deadline(text: &str) -> Result<Deadline, String> {
    let expected = || {
        "expected a time from now like 90m or 2h, a local time like 06:00, or a moment like \
         2026-11-22T06:00:00+01:00"
            .to_owned()
    };
    let is_clock = text.contains(':') && text.chars().all(|c| c.is_ascii_digit() || c == ':');
    let when = if is_clock {
        let padded = if text.find(':') == Some(1) { format!("0{text}") } else { text.to_owned() };
        When::Clock(padded.parse().map_err(|_| expected())?)
    } else if let Ok(moment) = text.parse() {
        When::At(moment)
    } else {
        When::After(some_time(text).map_err(|_| expected())?)
    };
    Ok(Deadline { text: text.to_owned(), when })
}

impl Deadline {
    /// The moment it means to a process that starts now, if there is one.
    fn moment(&self, now: &Zoned) -> Option<Timestamp> {
        match self.when {
            When::After(time) => {
                now.timestamp().checked_add(SignedDuration::try_from(time).ok()?).ok()
            }
            When::At(moment) => Some(moment),
            When::Clock(time) => next(time, now),
        }
    }

    /// Whether the same text means another moment the next time.
    pub(super) fn is_of_any_day(&self) -> bool {
        !matches!(self.when, When::At(_))
    }
}

/// The next moment at which a clock on the wall shows a time. Where clocks are put back it may show
/// it twice, and either counts; where they are put forward over it, it counts as if they had not
/// been.
fn next(time: Time, now: &Zoned) -> Option<Timestamp> {
    let days = [now.date(), now.date().tomorrow().ok()?];
    let moments = days.into_iter().flat_map(|day| {
        let shown = now.time_zone().to_ambiguous_timestamp(day.to_datetime(time));
        let moments = match shown.offset() {
            AmbiguousOffset::Fold { .. } => [shown.earlier().ok(), shown.later().ok()],
            _ => [shown.compatible().ok(), None],
        };
        moments.into_iter().flatten()
    });
    moments.filter(|moment| *moment > now.timestamp()).min()
}

/// The zone of the clock on the wall. As for the C library it is UTC where nothing says another;
/// a zone that is named and not known is an error.
fn zone() -> Result<TimeZone, Error> {
    let named = variable("TZ").map(PathBuf::from).unwrap_or_default();
    let named = named.to_string_lossy().trim_start_matches(':').to_owned();
    if let Some(path) = [&*named, "/etc/localtime"].into_iter().find(|path| is_endless(path)) {
        let what = if path == named { "TZ names" } else { "the local time zone is" };
        return Err(Error::Usage(format!("{what} {path}, which is no file of a time zone")));
    }
    TimeZone::try_system().or_else(|error| {
        if variable("TZ").is_none() && !Path::new("/etc/localtime").exists() {
            return Ok(TimeZone::UTC);
        }
        Err(Error::Usage(format!(
            "the local time zone is not known ({error}); set TZ, or give --deadline as a time from \
             now (2h) or with its offset (2026-11-22T06:00:00+01:00)"
        )))
    })
}

/// Whether what stands at a path, if anything, would take for ever to be read as a time zone, or much memory.
fn is_endless(path: &str) -> bool {
    const LARGEST: u64 = 1 << 20;
    std::fs::metadata(path)
        .is_ok_and(|meta| !meta.is_dir() && (!meta.is_file() || meta.len() > LARGEST))
}

/// How long before a deadline what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leads {
    /// Nothing new is started.
    drain: Duration,
    /// Calls in flight are dropped, so that the process is gone in time.
    abort: Duration,
}

impl Leads {
    /// What suits a window and a time to drain: at least half of the window is for work.
    fn of(window: Duration, drain_timeout: Duration) -> Self {
        // What is finished must reach a disk that may be slow.
        let abort = Duration::from_secs(5).min(window / 4);
        Self { drain: abort + drain_timeout.min(window / 4), abort }
    }
}

/// A deadline that is kept.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) deadline: Deadline,
    /// When it is, on the clock on the wall.
    pub(super) shown: String,
    is_over: Arc<AtomicBool>,
}

impl Kept {
    /// The command has ended by itself.
    pub(super) fn lift(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// Begins to watch over a deadline; `late` makes the line that is said where the run does not end
/// by itself.
///
/// # Errors
/// [`Error::Usage`] when it means no moment here.
pub(super) fn watch(
    deadline: &Deadline,
    drain_timeout: Duration,
    trigger: Trigger,
    caught: Caught,
    late: impl FnOnce(&Kept) -> Line + Send + 'static,
) -> Result<Kept, Error> {
    let began = Instant::now();
    let zone = match deadline.when {
        When::Clock(_) => zone()?,
        When::After(_) | When::At(_) => zone().unwrap_or(TimeZone::UTC),
    };
    let now = Timestamp::now().to_zoned(zone.clone());
    let moment = deadline
        .moment(&now)
        .ok_or_else(|| Error::Usage(format!("--deadline {} is no time to come", deadline.text)))?;
    let shown = moment.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let when = deadline.when;
    let left = move || match when {
        // Not by the clock on the wall, which may be set.
        When::After(time) => time.saturating_sub(began.elapsed()),
        _ => Duration::try_from(moment.duration_since(Timestamp::now())).unwrap_or_default(),
    };
    let kept = Kept { deadline: deadline.clone(), shown, is_over: Arc::default() };
    let leads = Leads::of(left(), drain_timeout);
    let mut keeper = Keeper { trigger, caught, leads, is_over: Arc::clone(&kept.is_over) };
    // One that has passed is told before anything else is done.
    if keeper.look(left()) {
        return Ok(kept);
    }
    let watched = kept.clone();
    let keep = move || {
        while !keeper.look(left()) {
            // The clock on the wall may be set meanwhile.
            std::thread::sleep(keeper.until_next(left()).min(Duration::from_secs(1)));
        }
        if !keeper.is_over.swap(true, Ordering::SeqCst) {
            late(&watched).print();
            #[expect(clippy::exit, reason = "whatever the run waits for, its window has closed")]
            std::process::exit(i32::from(exit::LIMIT));
        }
    };
    let spawned = std::thread::Builder::new().name("deadline".to_owned()).spawn(keep);
    spawned.map_err(|source| store::Error::NoThread { name: "deadline".to_owned(), source })?;
    Ok(kept)
}

/// Does what is to be done before there is a run: a pipe may keep it waiting. The process ends where
/// the deadline comes first.
pub(super) fn within(
    deadline: &Deadline,
    body: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let (trigger, shutdown) = shutdown::channel();
    let late = |kept: &Kept| {
        let words: Vec<_> = std::env::args_os().collect();
        let what = "the input had not shown its first lines by then";
        exit::of_deadline(kept, what, exit::UNTOUCHED, &Typed(&words))
    };
    let kept = watch(deadline, Duration::ZERO, trigger, Caught::default(), late)?;
    // Whatever is done next will say that it is too late.
    let result = if shutdown.stage() == Stage::Aborting { Ok(()) } else { body() };
    kept.lift();
    result
}

struct Keeper {
    trigger: Trigger,
    caught: Caught,
    leads: Leads,
    is_over: Arc<AtomicBool>,
}

impl Keeper {
    /// Does what is due when so much is left. Says whether nothing is.
    fn look(&mut self, left: Duration) -> bool {
        if left <= self.leads.drain {
            self.caught.note_deadline();
            self.trigger.advance(Stage::Draining);
        }
        if left <= self.leads.abort {
            self.trigger.advance(Stage::Aborting);
        }
        left.is_zero()
    }

    /// How long until something is due.
    fn until_next(&self, left: Duration) -> Duration {
        let Leads { drain, abort } = self.leads;
        let next = [drain, abort].into_iter().filter(|lead| *lead < left).max();
        left.saturating_sub(next.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moment that a text means, from one moment on, as a clock there shows it.
    fn meant(text: &str, now: &str) -> String {
        let now: Zoned = now.parse().unwrap();
        let moment = deadline(text).unwrap().moment(&now).unwrap();
        moment.to_zoned(now.time_zone().clone()).strftime("%m-%d %H:%M:%S%:z").to_string()
    }

    /// Berlin's rules, spelled out: no database of zones is needed.
    fn berlin(time: &str) -> Zoned {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        time.parse::<Timestamp>().unwrap().to_zoned(zone)
    }

    fn clock(text: &str, now: &Zoned) -> String {
        deadline(text).unwrap().moment(now).unwrap().to_string()
    }

    #[test]
    fn a_time_from_now_a_clock_time_or_a_moment() {
        let now = "2026-11-21T22:00:00+01:00[+01:00]";
        assert_eq!(meant("2h", now), "11-22 00:00:00+01:00");
        assert_eq!(meant("90m", now), "11-21 23:30:00+01:00");
        assert_eq!(meant("30", now), "11-21 22:00:30+01:00");
        assert_eq!(meant("06:00", now), "11-22 06:00:00+01:00");
        assert_eq!(meant("6:00:30", now), "11-22 06:00:30+01:00");
        assert_eq!(meant("23:00", now), "11-21 23:00:00+01:00");
        assert_eq!(meant("22:00", now), "11-22 22:00:00+01:00", "the next time, not this");
        assert_eq!(meant("2026-11-22T06:00:00Z", now), "11-22 07:00:00+01:00");
        assert_eq!(meant("2020-01-01T00:00:00Z", now), "01-01 01:00:00+01:00", "it has passed");
        for text in ["", "0", "-1h", "24:00", "6", "06:61", "tomorrow", "2026-11-22T06:00:00"] {
            let read = deadline(text);
            assert!(read.is_err() || text == "6", "{text}: {read:?}");
        }
    }

    #[test]
    fn clocks_that_are_changed_show_a_time_twice_or_never() {
        // Back from 03:00 to 02:00 on 25 October, at 01:00 UTC.
        let before = berlin("2026-10-24T22:00:00Z");
        assert_eq!(clock("02:30", &before), "2026-10-25T00:30:00Z");
        let between = berlin("2026-10-25T00:45:00Z");
        assert_eq!(clock("02:30", &between), "2026-10-25T01:30:00Z", "it shows it again");
        let after = berlin("2026-10-25T01:45:00Z");
        assert_eq!(clock("02:30", &after), "2026-10-26T01:30:00Z");
        assert_eq!(clock("06:00", &before), "2026-10-25T05:00:00Z", "seven hours, not six");
        // Forward from 02:00 to 03:00 on 29 March, at 01:00 UTC.
        let before = berlin("2026-03-28T22:00:00Z");
        assert_eq!(clock("02:30", &before), "2026-03-29T01:30:00Z");
        assert_eq!(clock("06:00", &before), "2026-03-29T04:00:00Z");
    }

    #[test]
    fn the_drain_fits_into_the_window() {
        let seconds = Duration::from_secs;
        let leads = Leads::of(seconds(7200), seconds(30));
        assert_eq!((leads.drain, leads.abort), (seconds(35), seconds(5)));
        let short = Leads::of(seconds(16), seconds(30));
        assert_eq!((short.drain, short.abort), (seconds(8), seconds(4)));
        assert_eq!(Leads::of(Duration::ZERO, seconds(30)).drain, Duration::ZERO);
    }

    #[test]
    fn what_is_due_is_done_in_order() {
        let (trigger, shutdown) = crate::shutdown::channel();
        let leads = Leads { drain: Duration::from_secs(32), abort: Duration::from_secs(2) };
        let caught = Caught::default();
        let mut keeper = Keeper { trigger, caught, leads, is_over: Arc::default() };
        let seconds = Duration::from_secs;
        assert_eq!(keeper.until_next(seconds(100)), seconds(68));
        assert!(!keeper.look(seconds(33)));
        assert_eq!(shutdown.stage(), Stage::Running);
        assert!(!keeper.look(seconds(32)));
        assert_eq!(
            (shutdown.stage(), keeper.until_next(seconds(32))),
            (Stage::Draining, seconds(30))
        );
        assert!(!keeper.look(seconds(2)));
        assert_eq!(
            (shutdown.stage(), keeper.until_next(seconds(2))),
            (Stage::Aborting, seconds(2))
        );
        assert!(keeper.look(Duration::ZERO));
    }
}
