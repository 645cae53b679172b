//! How the last session in a work directory ended, for those who look at it.
//!
//! Written when a session is about to change something, and again when it ends. It decides nothing:
//! one that is missing or damaged is none. A session that was killed leaves it without an end, and
//! leaves its signature on the lock.

use serde::{Deserialize, Serialize};

use super::names::{LAST_RUN, LOCK};
use super::{Error, Held, Holder, WorkDir, disk, lock};
use crate::job::Money;

/// A session of a command that worked rows or published them. Its fields stand in the file, and in
/// `status --json`, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// The run of its directory; in the file only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// What it was started as.
    pub command: String,
    /// The process.
    pub pid: u32,
    /// The machine it ran on.
    pub host: String,
    /// When it began, as RFC 3339 has it.
    pub started: String,
    /// When it ended; nothing while it runs, or where it was cut off.
    pub ended: Option<String>,
    /// How it ended, in a word: `docs/formats.md` has them all.
    pub end: String,
    /// What it exited with.
    pub code: Option<u8>,
    /// What its closing line said, where the code is not 0: what happened, and what is safe.
    pub message: Option<String>,
    /// The command that goes on, or what to do first.
    pub next: Option<String>,
    /// What it did.
    pub done: Done,
}

/// What a session did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Rows that got an answer.
    pub ok: u64,
    /// Rows that got none.
    pub failed: u64,
    /// Calls that ended.
    pub calls: u64,
    /// What they cost, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Money>,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEnd {
    /// What the command exits with.
    pub code: u8,
    /// In a word.
    pub word: &'static str,
    /// What happened and what is safe, where the code is not 0.
    pub message: Option<String>,
    /// The command that goes on.
    pub next: Option<String>,
}

/// The word for a session that has not ended yet.
const RUNNING: &str = "running";
/// The word for one that ended without a word.
const CUT_OFF: &str = "cut_off";

impl LastRun {
    fn of(holder: &Holder, end: &str) -> Self {
        Self {
            run: String::new(),
            command: holder.command.clone(),
            pid: holder.pid,
            host: holder.host.clone(),
            started: holder.since.clone(),
            ended: None,
            end: end.to_owned(),
            code: None,
            message: None,
            next: None,
            done: Done::default(),
        }
    }

    fn is_of(&self, holder: &Holder) -> bool {
        (self.pid, &self.host, &self.started) == (holder.pid, &holder.host, &holder.since)
    }
}

/// What the file and the lock say together. `signature` is whose signature the lock bears, and
/// `is_held` whether that process has it still.
fn judge(written: Option<LastRun>, signature: Option<Holder>, is_held: bool) -> Option<LastRun> {
    match (written, signature) {
        // It may be anyone who has the lock: only a session that wrote the file runs.
        (Some(run), Some(holder)) if is_held && run.is_of(&holder) => Some(run),
        (written, Some(holder))
            if !is_held && written.as_ref().is_none_or(|it| !it.is_of(&holder)) =>
        {
            // Killed before it changed a row: while it planned, say.
            Some(LastRun::of(&holder, CUT_OFF))
        }
        (Some(run), _) if run.ended.is_none() => Some(LastRun { end: CUT_OFF.to_owned(), ..run }),
        (written, _) => written,
    }
}

impl WorkDir {
    /// How the last session ended, or that it runs. Nothing where there was none, or it is not known.
    #[must_use]
    pub fn last_run(&self) -> Option<LastRun> {
        let look = || {
            let lock = self.path().join(LOCK);
            let is_held = lock::is_held(&lock);
            let bytes = disk::read_if_there(&self.path().join(LAST_RUN)).ok().flatten();
            let written: Option<LastRun> =
                bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let written = written.filter(|it| it.run == self.run());
            let written = written.map(|it| LastRun { run: String::new(), ..it });
            judge(written, lock::signature(&lock), is_held)
        };
        // A session that begins or ends between two of these glances looks like one that was cut
        // off. A second look tells.
        look().and_then(|run| if run.end == CUT_OFF { look() } else { Some(run) })
    }
}

impl Held {
    /// Notes that this session is about to change something.
    ///
    /// # Errors
    /// When the note cannot be made durable.
    pub fn begin_session(&self) -> Result<LastRun, Error> {
        let run = LastRun::of(self.signed_by(), RUNNING);
        self.note(&run)?;
        Ok(run)
    }

    /// Notes how this session ended.
    ///
    /// # Errors
    /// When the note cannot be made durable.
    pub fn end_session(
        &self,
        begun: LastRun,
        end: SessionEnd,
        done: Done,
        now_ms: u64,
    ) -> Result<(), Error> {
        let SessionEnd { code, word, message, next } = end;
        self.note(&LastRun {
            ended: Some(crate::job::rfc3339(now_ms)),
            end: word.to_owned(),
            code: Some(code),
            message,
            next,
            done,
            ..begun
        })
    }

    fn note(&self, run: &LastRun) -> Result<(), Error> {
        // A directory that was taken away is not written to where it is now.
        self.still_there()?;
        let noted = LastRun { run: self.run().to_owned(), ..run.clone() };
        let mut text = serde_json::to_vec_pretty(&noted).unwrap_or_default();
        text.push(b'\n');
        disk::replace(&self.path().join(LAST_RUN), &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(since: &str) -> Holder {
        Holder { since: since.to_owned(), ..Holder::this_process("rowmill run", 0) }
    }

    #[test]
    fn the_file_and_the_lock_together_say_how_it_ended() {
        let (one, two) = (holder("1"), holder("2"));
        let running = || LastRun::of(&one, RUNNING);
        let ended =
            || LastRun { ended: Some("9".to_owned()), end: "drained".to_owned(), ..running() };
        let word = |written, signature, is_held| {
            judge(written, signature, is_held).map(|run| (run.end, run.started))
        };
        let said = |end: &str, since: &str| Some((end.to_owned(), since.to_owned()));
        assert_eq!(word(None, None, false), None);
        assert_eq!(word(None, Some(one.clone()), true), None, "it has not come to rows yet");
        assert_eq!(word(Some(running()), Some(one.clone()), true), said("running", "1"));
        assert_eq!(word(Some(running()), Some(one.clone()), false), said("cut_off", "1"));
        assert_eq!(word(Some(running()), None, false), said("cut_off", "1"), "a power cut");
        assert_eq!(word(Some(running()), Some(two.clone()), true), said("cut_off", "1"));
        assert_eq!(word(Some(ended()), None, false), said("drained", "1"));
        assert_eq!(word(Some(ended()), Some(one.clone()), false), said("drained", "1"));
        assert_eq!(word(Some(ended()), Some(two.clone()), true), said("drained", "1"));
        assert_eq!(word(Some(ended()), Some(two.clone()), false), said("cut_off", "2"), "planning");
        assert_eq!(word(None, Some(two), false), said("cut_off", "2"));
    }

    #[test]
    fn a_session_is_noted_and_damage_is_no_note() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("work");
        let hold = || Held::acquire(&path, holder("1"), &mut || false).unwrap();
        let dir = hold();
        assert_eq!(dir.last_run(), None);
        let begun = dir.begin_session().unwrap();
        assert_eq!(dir.last_run().unwrap().end, "running");
        let end = SessionEnd { code: 4, word: "drained", message: None, next: None };
        let done = Done { ok: 3, failed: 1, calls: 5, cost_usd: None };
        dir.end_session(begun, end, done, 1000).unwrap();
        drop(dir);
        let last = WorkDir::open(&path).unwrap().last_run().unwrap();
        assert_eq!((last.code, last.done), (Some(4), done));
        assert_eq!(last.ended.as_deref(), Some("1970-01-01T00:00:01.000Z"));
        let written = std::fs::read_to_string(path.join(LAST_RUN)).unwrap();
        let run = WorkDir::open(&path).unwrap().run().to_owned();
        std::fs::write(path.join(LAST_RUN), written.replace(&run, &"f".repeat(32))).unwrap();
        assert_eq!(WorkDir::open(&path).unwrap().last_run(), None, "of another run");
        std::fs::write(path.join(LAST_RUN), "{").unwrap();
        let mut dir = hold();
        assert_eq!(dir.last_run(), None);
        dir.wipe().unwrap();
        assert!(!path.join(LAST_RUN).exists());
    }
}
