//! The status of a work directory, read beside whoever works in it and without touching anything.

use serde::Serialize;

use crate::format::telemetry::{read_attempts, spending};
use crate::job::{JobSpec, Money, Spending, Usage, Variant};
use crate::store::{Commit, Error, Holder, LastRun, Manifest, Record, WorkDir};
use crate::telemetry::escape;

/// How far a run is. Its fields stand in `--json` in this order.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The work directory.
    pub work_dir: String,
    /// The name of the run.
    pub run: String,
    /// The plan that counts: 1 for the first.
    pub generation: u32,
    /// `unplanned`, `open`, `complete` (all rows have outcomes) or `published`.
    pub state: &'static str,
    /// The model asked for; where there are several, all of them.
    pub model: Option<String>,
    /// Outcomes that are wanted: one of each row, or one for each variant of the job.
    pub rows: u64,
    /// Rows with an answer.
    pub ok: u64,
    /// Rows that failed, invalid ones included.
    pub failed: u64,
    /// Rows without an outcome.
    pub left: u64,
    /// Where several answers are wanted to a row, how far each is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<VariantStatus>,
    /// Of all rows, those that take the outcome of another.
    pub twins: u64,
    /// Shards, and those that are sealed.
    pub shards: u64,
    /// Shards that are sealed.
    pub sealed: u64,
    /// Calls that ended.
    pub calls: u64,
    /// Tokens of those calls.
    pub usage: Usage,
    /// What those calls cost, as far as it is known.
    pub cost_usd: Option<Money>,
    /// Calls that may have cost something, and nobody knows what.
    pub unknown_calls: u64,
    /// Rows done a second by the process at work.
    pub rows_per_second: Option<f64>,
    /// Whether a process is at work.
    pub is_running: bool,
    /// The process at work, once it has signed.
    pub holder: Option<Holder>,
    /// The last publication.
    pub published: Option<Published>,
    /// How the last session ended, or that it runs.
    pub last_run: Option<LastRun>,
}

/// How far one of the answers to each row is.
#[derive(Debug, Clone, Serialize)]
pub struct VariantStatus {
    /// Its model, as envelopes have it.
    pub model: String,
    /// Which of that model's answers, as envelopes have it.
    pub repeat: u32,
    /// Rows with this answer.
    pub ok: u64,
    /// Rows for which it failed.
    pub failed: u64,
    /// Rows without an outcome.
    pub left: u64,
}

/// The last publication.
#[derive(Debug, Clone, Serialize)]
pub struct Published {
    /// Its number.
    pub publication: u32,
    /// Whether all outputs took their places.
    pub done: bool,
    /// Whether rows without an outcome were left out of the outputs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Rows with an answer.
    pub ok: u64,
    /// Rows without one.
    pub failed: u64,
    /// Where the outputs are.
    pub outputs: Vec<String>,
    /// Where those of them are to be uploaded that are not there yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
}

/// Looks how far a run is. `now_ms` is the time in milliseconds since the Unix epoch.
///
/// # Errors
/// When the work directory cannot be read.
pub fn status(dir: &WorkDir, now_ms: u64) -> Result<Status, Error> {
    let mut status = Status {
        work_dir: dir.path().to_string_lossy().into_owned(),
        run: dir.run().to_owned(),
        generation: dir.generation(),
        state: "unplanned",
        model: None,
        rows: 0,
        ok: 0,
        failed: 0,
        left: 0,
        variants: Vec::new(),
        twins: 0,
        shards: 0,
        sealed: 0,
        calls: 0,
        usage: Usage::default(),
        cost_usd: None,
        unknown_calls: 0,
        rows_per_second: None,
        is_running: dir.is_held(),
        holder: dir.holder(),
        published: dir.last_commit()?.map(published),
        last_run: dir.last_run(),
    };
    let Some(manifest) = dir.manifest()? else { return Ok(status) };
    let job = &manifest.job;
    status.variants = variants(job);
    (status.rows, status.twins) = (manifest.answered_for(), manifest.twins());
    // Rows that were worked: a rate is of those.
    let mut worked = 0;
    let mut cost = lost_before(&manifest);
    status.calls = cost.unpriced;
    for (number, entry) in manifest.open_shards() {
        let variant = entry.variant as usize;
        let is_called = job.is_called(job.model_of(variant));
        status.shards += 1;
        if let Some(seal) = dir.seal(number)? {
            status.sealed += 1;
            status.usage.add(&seal.usage);
            // Seals of before it was counted do not say.
            let unknown = Spending { unpriced: seal.calls, ..Spending::default() };
            if is_called {
                status.calls += seal.calls + seal.repeated;
                cost.lose(seal.repeated);
                cost.add(&seal.cost.unwrap_or(unknown));
            }
        }
        let tally = dir.tally(number, entry, &mut |record| {
            let (calls, usage, spent) = totals(record);
            status.usage.add(&usage);
            if is_called {
                status.calls += calls;
                cost.add(&spent);
            }
        })?;
        let wanted = entry.wanted + entry.served();
        status.add(variant, (tally.ok, tally.failed + tally.invalid, wanted));
        worked += tally.own;
    }
    status.cost_usd = cost.known().filter(|_| status.calls > 0);
    status.unknown_calls = cost.unpriced;
    let done = status.ok + status.failed;
    status.left = status.rows.saturating_sub(done);
    status.rows_per_second = status.holder.as_ref().and_then(|holder| rate(holder, worked, now_ms));
    status.model = Some(job.models_shown());
    status.state = status.state();
    Ok(status)
}

impl Status {
    /// What is to be done next, in a word.
    fn state(&self) -> &'static str {
        let is_sealed = self.sealed == self.shards;
        let is_whole = |it: &Published| it.done && !it.partial;
        match is_sealed {
            true if self.published.as_ref().is_some_and(is_whole) => "published",
            true => "complete",
            false => "open",
        }
    }

    /// Adds what became of a shard's rows: so many are done, well or badly, of so many.
    fn add(&mut self, variant: usize, (ok, failed, wanted): (u64, u64, u64)) {
        self.ok += ok;
        self.failed += failed;
        if let Some(it) = self.variants.get_mut(variant) {
            it.ok += ok;
            it.failed += failed;
            it.left += wanted.saturating_sub(ok + failed);
        }
    }
}

/// The calls of earlier generations that a crash took: nobody knows what they cost.
fn lost_before(manifest: &Manifest) -> Spending {
    let mut lost = Spending::default();
    lost.lose(if manifest.job.is_any_called() { manifest.repeated_before() } else { 0 });
    lost
}

fn variants(job: &JobSpec) -> Vec<VariantStatus> {
    let all = 0..job.variants();
    all.filter(|_| job.is_varied())
        .map(|number| {
            let Variant { named, repeat, .. } = job.variant(number);
            VariantStatus { model: named.to_owned(), repeat, ok: 0, failed: 0, left: 0 }
        })
        .collect()
}

/// The calls that a record tells of, what they used, and what they cost.
fn totals(record: &Record<'_>) -> (u64, Usage, Spending) {
    let attempts = match record {
        Record::Outcome(outcome) => outcome.attempts,
        Record::Retry { attempts, .. } => attempts,
        Record::Begin { .. } | Record::Repeated { .. } => {
            let mut lost = Spending::default();
            lost.lose(record.repeated());
            return (record.repeated(), Usage::default(), lost);
        }
    };
    let facts = read_attempts(attempts);
    let mut usage = Usage::default();
    facts.iter().filter_map(|facts| facts.usage).for_each(|turn| usage.add(&turn));
    (facts.len() as u64, usage, spending(&facts))
}

fn published(commit: Commit) -> Published {
    Published {
        publication: commit.sequence,
        done: commit.done,
        partial: commit.is_partial,
        ok: commit.counts.ok,
        failed: commit.counts.failed,
        waiting: commit.pending().map(|file| file.target.to_string_lossy().into_owned()).collect(),
        outputs: commit
            .files
            .iter()
            .map(|file| file.target.to_string_lossy().into_owned())
            .collect(),
    }
}

/// The first few of what may be hundreds, one a line; `--json` has them all.
fn list(f: &mut std::fmt::Formatter<'_>, what: &str, places: &[String]) -> std::fmt::Result {
    /// The files of one input, and as many again.
    const SHOWN: usize = 10;
    let shown = if places.len() > SHOWN + 1 { SHOWN } else { places.len() };
    for place in &places[..shown] {
        writeln!(f, "           {what}{}", escape(place))?;
    }
    match places.len() - shown {
        0 => Ok(()),
        more => writeln!(f, "           {what}and {more} more (--json lists them)"),
    }
}

/// How a session ended, in a line.
fn told(run: &LastRun) -> String {
    let LastRun { started, ended, end, code, message, done, .. } = run;
    let when = match ended {
        Some(ended) => format!("from {started} to {ended}"),
        None => format!("since {started}"),
    };
    let code = code.map_or_else(String::new, |code| format!(" (code {code})"));
    let message = message.as_ref().map_or_else(String::new, |text| format!(": {text}"));
    let (ok, failed, calls) = (done.ok, done.failed, done.calls);
    if ended.is_none() {
        return format!("{end}{code}, {when}");
    }
    format!("{end}{code}, {when}, {ok} ok, {failed} failed, {calls} calls{message}")
}

/// Rows a second since the process at work began.
fn rate(holder: &Holder, done: u64, now_ms: u64) -> Option<f64> {
    let since: jiff::Timestamp = holder.since.parse().ok()?;
    let before = holder.done_at_start?;
    let now = jiff::Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?;
    let seconds = now.duration_since(since).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    let rows = done.saturating_sub(before) as f64;
    (seconds > 0.0).then(|| (rows / seconds * 10.0).round() / 10.0)
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ok, failed, left, rows, .. } = self;
        writeln!(f, "work dir   {}", escape(&self.work_dir))?;
        writeln!(f, "run        {}", self.run)?;
        writeln!(f, "state      {}", self.state)?;
        if let Some(model) = &self.model {
            writeln!(f, "model      {model}")?;
        }
        match self.variants.len() as u64 {
            0 => write!(f, "rows       {rows}: {ok} ok, {failed} failed, {left} left")?,
            variants => {
                let of = rows / variants;
                writeln!(f, "rows       {of} × {variants} variants")?;
                write!(f, "answers    {rows}: {ok} ok, {failed} failed, {left} left")?;
            }
        }
        match self.twins {
            0 => writeln!(f),
            twins => writeln!(f, "; {twins} take the outcome of another"),
        }?;
        for VariantStatus { model, repeat, ok, failed, left } in &self.variants {
            writeln!(f, "           {model} {repeat}: {ok} ok, {failed} failed, {left} left")?;
        }
        writeln!(f, "shards     {} of {} sealed", self.sealed, self.shards)?;
        writeln!(f, "calls      {}", self.calls)?;
        let Usage { input_tokens, output_tokens, .. } = self.usage;
        writeln!(f, "tokens     {input_tokens} in, {output_tokens} out")?;
        if let Some(cost) = self.cost_usd {
            let unknown = match self.unknown_calls {
                0 => String::new(),
                1 => ", and 1 call of unknown cost".to_owned(),
                calls => format!(", and {calls} calls of unknown cost"),
            };
            writeln!(f, "cost       {cost}{unknown}")?;
        }
        match &self.holder {
            Some(holder) => {
                let Holder { pid, host, since, command, .. } = holder;
                writeln!(f, "worked by  process {pid} on {host} since {since}: {command}")?;
            }
            None => writeln!(f, "worked by  nobody")?,
        }
        if let Some(rate) = self.rows_per_second {
            writeln!(f, "rate       {rate} rows/s")?;
        }
        match &self.published {
            Some(published) => {
                let Published { publication, partial, ok, failed, outputs, .. } = published;
                let partial = if *partial { ", rows without an outcome left out" } else { "" };
                writeln!(
                    f,
                    "published  {publication} times, last {ok} ok and {failed} failed{partial}:"
                )?;
                list(f, "", outputs)?;
                list(f, "waits for its upload: ", &published.waiting)
            }
            None => writeln!(f, "published  not yet"),
        }?;
        match &self.last_run {
            Some(run) => writeln!(f, "last run   {}", told(run)),
            None => writeln!(f, "last run   none that is known"),
        }
    }
}
