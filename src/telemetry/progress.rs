//! The progress screen: on a terminal a bar for the run and one for each worker, elsewhere a plain
//! line now and then.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::rate::Rate;
use super::{Event, Sink, escape};
use crate::job::{Spending, Usage};

/// How progress is shown.
pub enum Style {
    /// Bars, redrawn in place.
    Bars(ProgressDrawTarget),
    /// Lines: each so many rows if that is asked for, else each ten seconds.
    Lines(Box<dyn Write + Send>, Option<u64>),
    /// Only warnings and notes.
    Quiet(Box<dyn Write + Send>),
    /// Only what needs a person.
    Alerts(Box<dyn Write + Send>),
}

/// Shows events.
pub struct Progress {
    screen: Screen,
    // What is counted.
    unit: &'static str,
    wanted: u64,
    ok: u64,
    failed: u64,
    usage: Usage,
    cost: Spending,
    in_flight: usize,
    rate: Rate,
    // Which of several endpoints are left alone, until when, and why.
    left_alone: BTreeMap<String, (Instant, String)>,
    // Why nothing is called, and until when.
    paused: Option<(Instant, String)>,
    // What of rowmill's own calls wait for, and until when.
    waiting: Option<(Instant, &'static str)>,
    // What calls wait for, and when a line said so last.
    preparing: Option<(String, Instant)>,
    draining: bool,
}

enum Screen {
    Bars { all: MultiProgress, run: ProgressBar, workers: Vec<ProgressBar> },
    Lines { out: Box<dyn Write + Send>, every: Option<u64>, last: Option<Instant>, next: u64 },
    Quiet(Box<dyn Write + Send>),
    Alerts(Box<dyn Write + Send>),
}

/// How often a plain line is written.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Progress {
    /// Shows nothing yet.
    #[must_use]
    pub fn new(style: Style) -> Self {
        let screen = match style {
            Style::Bars(target) => {
                let all = MultiProgress::with_draw_target(target);
                let run = all.add(ProgressBar::no_length());
                run.set_style(bar_style("{msg}"));
                Screen::Bars { all, run, workers: Vec::new() }
            }
            Style::Lines(out, every) => {
                Screen::Lines { out, every, last: None, next: every.unwrap_or_default() }
            }
            Style::Quiet(out) => Screen::Quiet(out),
            Style::Alerts(out) => Screen::Alerts(out),
        };
        Self {
            screen,
            unit: "rows",
            wanted: 0,
            ok: 0,
            failed: 0,
            usage: Usage::default(),
            cost: Spending::default(),
            in_flight: 0,
            rate: Rate::default(),
            left_alone: BTreeMap::new(),
            paused: None,
            waiting: None,
            preparing: None,
            draining: false,
        }
    }

    fn done(&self) -> u64 {
        self.ok + self.failed
    }

    /// `120 ok · 3 failed · 45.2 rows/s · 12,345 tokens · 64 in flight · ETA 3m 4s`
    fn facts(&self, now: Instant) -> String {
        let rate = self.rate.per_second(now, self.done());
        let mut text = format!("{} ok", grouped(self.ok));
        if self.failed > 0 {
            text.push_str(&format!(" · {} failed", grouped(self.failed)));
        }
        text.push_str(&format!(" · {rate:.1} {}/s", self.unit));
        if self.usage.total() > 0 {
            text.push_str(&format!(" · {} tokens", grouped(self.usage.total())));
        }
        if self.cost.priced > 0 {
            text.push_str(&format!(" · {}", self.cost.usd));
        }
        text.push_str(&format!(" · {} in flight", self.in_flight));
        if let Some((what, _)) = &self.preparing {
            text.push_str(&format!(" · {}", escape(what)));
        } else if let Some((until, why)) = &self.paused {
            let left = until.saturating_duration_since(now).as_secs();
            text.push_str(&format!(" · paused: {}, next probe in {left} s", escape(why)));
        } else if self.draining {
            text.push_str(" · draining");
        } else if let Some((until, why)) = self.waiting.filter(|(until, _)| *until > now) {
            let left = until.saturating_duration_since(now).as_secs_f64().ceil();
            text.push_str(&format!(" · {why}: {left} s"));
        } else if rate > 0.0 && self.wanted > self.done() {
            #[expect(clippy::cast_precision_loss, reason = "an estimate need not be exact")]
            let seconds = (self.wanted - self.done()) as f64 / rate;
            text.push_str(&format!(" · ETA {}", shown(seconds)));
        }
        for (who, (until, why)) in &self.left_alone {
            let left = until.saturating_duration_since(now).as_secs();
            let (who, why) = (escape(who), escape(why));
            text.push_str(&format!(" · {who} is left alone for {left} s: {why}"));
        }
        text
    }

    fn line(&mut self, text: &str) {
        match &mut self.screen {
            Screen::Bars { all, .. } => {
                // A terminal that went away must not stop the run.
                let _ = all.println(text);
            }
            Screen::Lines { out, .. } | Screen::Quiet(out) | Screen::Alerts(out) => {
                let _ = writeln!(out, "{text}");
            }
        }
    }

    /// Shows what nobody has to act on.
    fn remark(&mut self, text: &str) {
        if !matches!(self.screen, Screen::Alerts(_)) {
            self.line(text);
        }
    }

    fn started(&mut self, wanted: u64, done: u64, failed: u64, workers: usize) {
        (self.wanted, self.ok, self.failed) = (wanted, done - failed, failed);
        if let Screen::Bars { all, run, workers: bars } = &mut self.screen {
            run.set_length(wanted);
            let template =
                format!("{{bar:32}} {{human_pos}}/{{human_len}} {} · {{msg}}", self.unit);
            run.set_style(bar_style(&template));
            run.set_position(done);
            for number in 0..workers {
                let bar = all.add(ProgressBar::new(0));
                bar.set_style(bar_style("{bar:20} {prefix}"));
                bar.set_prefix(format!("worker {}: idle", number + 1));
                bars.push(bar);
            }
        }
        let done = self.done();
        if let Screen::Lines { next, every: Some(every), .. } = &mut self.screen {
            *next = (done / *every + 1) * *every;
        }
    }

    fn tick(&mut self, now: Instant) {
        let done = self.done();
        self.rate.note(now, done);
        let facts = self.facts(now);
        let is_due = match &mut self.screen {
            Screen::Bars { run, .. } => {
                run.set_position(done);
                run.set_message(facts.clone());
                false
            }
            Screen::Lines { every: Some(every), next, .. } => {
                let is_due = done >= *next;
                while done >= *next {
                    *next += *every;
                }
                is_due
            }
            Screen::Lines { every: None, last, .. } => {
                let first = *last.get_or_insert(now);
                let is_due = now.duration_since(first) >= LINE_EVERY;
                if is_due {
                    *last = Some(now);
                }
                is_due
            }
            Screen::Quiet(_) | Screen::Alerts(_) => false,
        };
        if is_due {
            let (done, wanted) = (grouped(done), grouped(self.wanted));
            self.line(&format!("{done}/{wanted} {} · {facts}", self.unit));
        }
    }

    /// Shows what calls wait for: on bars at once, as a line where it has taken long.
    fn prepare(&mut self, what: &str, now: Instant) {
        let since = self.preparing.as_ref().map_or(now, |(_, since)| *since);
        let is_due = now.duration_since(since) >= LINE_EVERY;
        self.preparing = Some((what.to_owned(), if is_due { now } else { since }));
        match &self.screen {
            Screen::Bars { run, .. } => {
                run.set_message(escape(what));
                run.tick();
            }
            Screen::Lines { .. } if is_due => self.line(&escape(what)),
            Screen::Lines { .. } | Screen::Quiet(_) | Screen::Alerts(_) => {}
        }
    }

    fn worker(&mut self, worker: usize, change: impl FnOnce(&ProgressBar)) {
        if let Screen::Bars { workers, .. } = &self.screen
            && let Some(bar) = workers.get(worker)
        {
            change(bar);
        }
    }
}

impl Sink for Progress {
    fn emit(&mut self, event: &Event) {
        match event {
            Event::Planning { rows } => {
                if let Screen::Bars { run, .. } = &self.screen {
                    run.set_message(format!("planning: {} rows read", grouped(*rows)));
                    run.tick();
                }
            }
            Event::Preparing { what } => self.prepare(what, Instant::now()),
            Event::Prepared => {
                self.preparing = None;
                if let Screen::Bars { run, .. } = &self.screen {
                    run.set_message("");
                }
            }
            Event::Started { wanted, done, failed, workers, variants } => {
                self.unit = if *variants > 1 { "answers" } else { "rows" };
                self.started(*wanted, *done, *failed, *workers);
            }
            Event::Opened { worker, shard, left } => self.worker(*worker, |bar| {
                bar.set_length(*left);
                bar.set_position(0);
                bar.set_prefix(format!("worker {}: shard {shard}", worker + 1));
            }),
            Event::Committed { worker, ok, failed, usage, cost, .. } => {
                self.ok += ok;
                self.failed += failed;
                self.usage.add(usage);
                self.cost.add(cost);
                self.worker(*worker, |bar| bar.inc(ok + failed));
            }
            Event::Idle { worker } => self.worker(*worker, |bar| {
                bar.set_length(0);
                bar.set_prefix(format!("worker {}: idle", worker + 1));
            }),
            Event::Tick { now, in_flight } => {
                self.in_flight = *in_flight;
                self.tick(*now);
            }
            Event::Paused { until, why } => self.paused = Some((*until, why.clone())),
            Event::Waiting { until, why } => self.waiting = Some((*until, *why)),
            Event::Recovered => self.paused = None,
            Event::LeftAlone { who, until, why } => {
                self.left_alone.insert(who.clone(), (*until, why.clone()));
            }
            Event::Back { who } => {
                self.left_alone.remove(who);
            }
            Event::Draining => self.draining = true,
            Event::Sealed { .. } => {}
            Event::Alert(text) => self.line(&format!("warning: {}", escape(text))),
            Event::Warning(text) => self.remark(&format!("warning: {}", escape(text))),
            Event::Note(text) => self.remark(&escape(text)),
            Event::Ended => {
                if let Screen::Bars { all, run, workers } = &mut self.screen {
                    for bar in workers.drain(..) {
                        bar.finish_and_clear();
                    }
                    run.finish_and_clear();
                    let _ = all.clear();
                }
            }
        }
    }
}

fn bar_style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
}

/// A number with commas between thousands.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in its two largest units.
fn shown(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above")]
    let seconds = seconds.clamp(0.0, 1e12).ceil() as u64;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, ..) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::job::Money;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_each_so_many_rows_and_hold_the_facts() {
        let kept = Kept::default();
        let mut progress = Progress::new(Style::Lines(Box::new(kept.clone()), Some(100)));
        let start = Instant::now();
        progress.emit(&Event::Started {
            wanted: 1000,
            done: 50,
            failed: 1,
            workers: 2,
            variants: 1,
        });
        for step in 0..3_u64 {
            let usage = Usage { input_tokens: 700, output_tokens: 300, ..Usage::default() };
            let cost = Money::from_picodollars(step * 12_300_000_000);
            let cost = Spending { usd: cost, priced: step, ..Spending::default() };
            let (worker, ok, failed, calls) = (0, 59, 1, 60);
            progress.emit(&Event::Committed { worker, ok, failed, calls, usage, cost });
            let now = start + Duration::from_secs(step);
            progress.emit(&Event::Tick { now, in_flight: 7 });
        }
        progress.emit(&Event::Warning("a\x1bb".to_owned()));
        let until = start + Duration::from_secs(22);
        let (who, why) = ("vllm-b".to_owned(), "503".to_owned());
        progress.emit(&Event::LeftAlone { who: who.clone(), until, why });
        assert!(progress.facts(start).ends_with(" · vllm-b is left alone for 22 s: 503"));
        progress.emit(&Event::Back { who });
        assert!(!progress.facts(start).contains("vllm"));
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "110/1,000 rows · 108 ok · 2 failed · 0.0 rows/s · 1,000 tokens · 7 in flight\n\
             230/1,000 rows · 226 ok · 4 failed · 60.0 rows/s · 3,000 tokens · $0.0369 · 7 in flight · ETA \
             13s\nwarning: a\\u{1b}b\n"
        );
    }

    #[test]
    fn what_calls_wait_for_is_told() {
        let mut progress = Progress::new(Style::Quiet(Box::new(Kept::default())));
        let now = Instant::now();
        let until = now + Duration::from_secs(12);
        progress.emit(&Event::Waiting { until, why: "rate limit" });
        assert!(progress.facts(now).ends_with(" · rate limit: 12 s"), "{}", progress.facts(now));
        assert!(!progress.facts(until).contains("rate limit"), "it is over");
        progress.emit(&Event::Paused { until, why: "endpoint down".to_owned() });
        let facts = progress.facts(now);
        assert!(facts.ends_with(" · paused: endpoint down, next probe in 12 s"), "{facts}");
    }

    #[test]
    fn quiet_shows_what_needs_a_person_and_nothing_else() {
        let kept = Kept::default();
        let mut progress = Progress::new(Style::Alerts(Box::new(kept.clone())));
        progress.emit(&Event::Started { wanted: 10, done: 0, failed: 0, workers: 1, variants: 1 });
        progress.emit(&Event::Tick { now: Instant::now(), in_flight: 1 });
        progress.emit(&Event::Note("fine".to_owned()));
        progress.emit(&Event::Warning("as you asked".to_owned()));
        progress.emit(&Event::Alert("damaged".to_owned()));
        progress.emit(&Event::Ended);
        assert_eq!(*kept.0.lock().unwrap(), b"warning: damaged\n");
    }

    #[test]
    fn times_and_numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.2, 59.0, 61.0, 3_700.0, 90_000.0].map(shown),
            ["1s", "59s", "1m 1s", "1h 1m", "1d 1h"]
        );
    }
}
