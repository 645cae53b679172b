//! One trial: a crash, then everything that must hold after it.
//!
//! The invariants are numbered as in `docs/reliability.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::away::{SIGNATURE, Transfers};
use super::scene::{Golden, OUTPUTS, Scene};
use super::site::{Ended, KEY, Model, PROMPT, Site, contains};

/// What a trial found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    pub violations: Vec<String>,
    /// Calls made again.
    pub repeated: u64,
    /// Rows that were done and were called again.
    pub lost: u64,
    /// Rows with more than one line in an output.
    pub duplicated: u64,
}

/// How often each row was called, by its id.
pub type Calls = BTreeMap<String, u64>;

/// How many answers each row has, of which none may be asked for again.
#[derive(Debug, Clone, Default)]
pub struct Done(BTreeMap<u64, u64>);

impl Done {
    /// Counts rows, each as often as it is there.
    pub fn count(rows: impl IntoIterator<Item = u64>) -> Self {
        let mut done = Self::default();
        rows.into_iter().for_each(|row| *done.0.entry(row).or_default() += 1);
        done
    }

    /// Adds what was done at another time, or is known from elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (row, answers) in &other.0 {
            let mine = self.0.entry(*row).or_default();
            *mine = (*mine).max(*answers);
        }
    }

    /// The rows that were called more often than it takes for the answers that were missing.
    pub fn called_again(&self, planned: &Calls, before: &Calls, now: &Calls) -> Vec<u64> {
        let of = |calls: &Calls, id: &String| calls.get(id).copied().unwrap_or(0);
        let is_lost = |(row, answers): &(&u64, &u64)| {
            let id = format!("r{row}");
            of(now, &id) - of(before, &id) > of(planned, &id).saturating_sub(**answers)
        };
        self.0.iter().filter(is_lost).map(|(row, _)| *row).collect()
    }
}

/// What is known of a crash.
#[derive(Debug, Clone)]
pub struct Crash {
    /// How the disturbed command ended.
    pub ended: Ended,
    /// The exit codes it may have ended with, if it ended by itself.
    pub codes: &'static [i32],
    /// Answers that must not be asked for again.
    pub done: Done,
    /// Calls until then.
    pub calls: Calls,
    /// How many calls may be made again.
    pub bound: u64,
}

/// The outputs as they were before the command.
pub type Outputs = BTreeMap<&'static str, Vec<u8>>;

pub fn outputs(site: &Site) -> Outputs {
    OUTPUTS.iter().filter_map(|name| Some((*name, site.output(name)?))).collect()
}

/// Goes on after a crash and checks what must hold.
pub fn examine(
    scene: &Scene,
    golden: &Golden,
    site: &Site,
    model: &Model,
    old: &Outputs,
    crash: &Crash,
) -> Verdict {
    let mut verdict = Verdict::default();
    let mut wrong = |text: String| verdict.violations.push(text);
    if crash.ended.code != -9 && !crash.codes.contains(&crash.ended.code) {
        wrong(format!("I1: it ended with {}: {}", crash.ended.code, crash.ended.said.trim()));
    }
    outputs_are_old_or_new(golden, site, old, &mut wrong);
    let transfers = Transfers::of(site);
    let resumed = site.run(scene.resume, model);
    if resumed.code != scene.code {
        wrong(format!("I1: going on ended with {}: {}", resumed.code, resumed.said.trim()));
    }
    let calls = model.calls();
    let lost = crash.done.called_again(&golden.calls, &crash.calls, &calls);
    if !lost.is_empty() && scene.keeps_answers {
        wrong(format!("I5: rows {lost:?} were done, and were called again"));
    }
    let planned = |id: &str| golden.calls.get(id).copied().unwrap_or(0);
    let repeated = calls.iter().map(|(id, count)| count.saturating_sub(planned(id))).sum();
    if repeated > crash.bound && scene.keeps_answers {
        wrong(format!("I4: {repeated} calls were made again; the bound is {}", crash.bound));
    }
    let bodies = model.bodies();
    if let Some((id, sent)) = bodies.iter().find(|(id, sent)| !scene.is_sent_as_it_is(id, sent)) {
        let sent = String::from_utf8_lossy(sent);
        wrong(format!("I3: the request of {id} was sent as something else: {sent}"));
    }
    transfers.went_once(site, &mut wrong);
    transfers.came_once(site, &mut wrong);
    let output = site.output("out.jsonl").unwrap_or_default();
    if output != golden.output {
        wrong("I3: the output is another than undisturbed".to_owned());
    }
    if site.output("err.jsonl").unwrap_or_default() != golden.errors {
        wrong("I3: the error output is another than undisturbed".to_owned());
    }
    summary_is_true(site, scene, &mut wrong);
    nothing_is_left(scene, golden, site, model, &mut wrong);
    for ended in [&crash.ended, &resumed] {
        if [KEY, PROMPT, SIGNATURE].iter().any(|secret| ended.said.contains(secret)) {
            wrong(format!("I11: a secret was said: {}", ended.said));
        }
    }
    if scene.keeps_answers {
        (verdict.repeated, verdict.lost) = (repeated, lost.len() as u64);
    }
    verdict.duplicated = duplicates(&output);
    verdict
}

/// I7: each output is the old one or the new one, and a new summary means that all are new.
fn outputs_are_old_or_new(
    golden: &Golden,
    site: &Site,
    old: &Outputs,
    wrong: &mut impl FnMut(String),
) {
    let now = outputs(site);
    for name in OUTPUTS {
        let (now, old) = (now.get(name), old.get(name));
        let is_new = match (name, now) {
            (_, None) => false,
            ("out.jsonl", Some(now)) => *now == golden.output,
            ("err.jsonl", Some(now)) => *now == golden.errors,
            (_, Some(now)) => is_json_lines(now),
        };
        if now != old && !is_new {
            wrong(format!("I7: {name} is neither the old one nor the new one"));
        }
    }
    if now.get("sum.json") != old.get("sum.json") {
        for (path, blake3) in published(site) {
            if hash(site, &path) != blake3 {
                wrong(format!("I7: the summary is new, {} is not", path.display()));
            }
        }
    }
}

fn is_json_lines(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok()
        || bytes
            .split_inclusive(|byte| *byte == b'\n')
            .all(|line| line.ends_with(b"\n") && serde_json::from_slice::<Value>(line).is_ok())
}

/// The other outputs, as the summary names them.
fn published(site: &Site) -> Vec<(PathBuf, String)> {
    let bytes = site.output("sum.json").unwrap_or_default();
    let summary: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let outputs = summary["outputs"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    outputs.iter().map(|it| (text(&it["path"]).into(), text(&it["blake3"]))).collect()
}

fn hash(site: &Site, path: &Path) -> String {
    let bytes = fs::read(path).ok().or_else(|| site.away.at(path));
    blake3::hash(&bytes.unwrap_or_default()).to_hex().to_string()
}

/// I6: the summary's counts and hashes are those of the outputs.
fn summary_is_true(site: &Site, scene: &Scene, wrong: &mut impl FnMut(String)) {
    let bytes = site.output("sum.json").unwrap_or_default();
    let summary: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let failed = u64::from(scene.bad_row.is_some()) * scene.variants();
    let rows = &summary["rows"];
    if rows["ok"] != scene.rows * scene.variants() - failed || rows["failed"] != failed {
        wrong(format!("I6: the summary counts {rows}"));
    }
    if rows["twins"] != scene.twins {
        wrong(format!("I6: the summary counts {rows}, and the scene {} twins", scene.twins));
    }
    if let Some(answered_by) = summary["answered_by"].as_array() {
        let answers = answered_by.iter().filter_map(|it| it["answers"].as_u64()).sum::<u64>();
        if answers != scene.rows - failed {
            wrong(format!("I6: the summary has {answers} answers of {answered_by:?}"));
        }
    }
    let published = published(site);
    if published.len() != OUTPUTS.len() - 1 {
        wrong(format!("I6: the summary names {} outputs", published.len()));
    }
    for (path, blake3) in published {
        if hash(site, &path) != blake3 {
            wrong(format!("I6: {} is not as the summary says", path.display()));
        }
    }
    let telemetry = site.output("tel.jsonl").unwrap_or_default();
    if !is_json_lines(&telemetry) {
        wrong("I6: the telemetry is not JSON Lines".to_owned());
    }
}

/// I8: a further run does nothing. I9: `check` finds nothing. I10: no file is too many. I11: no
/// secret is in any.
fn nothing_is_left(
    scene: &Scene,
    golden: &Golden,
    site: &Site,
    model: &Model,
    wrong: &mut impl FnMut(String),
) {
    if let Some(dir) = ["wd", "out.jsonl.rowmill"].iter().find(|dir| site.path(dir).exists()) {
        let checked = site.run(&format!("check --work-dir {dir}"), model);
        if checked.code != 0 {
            wrong(format!("I9: check ended with {}: {}", checked.code, checked.said.trim()));
        }
    }
    if site.names() != golden.names {
        wrong(format!("I10: the files are {:?}", site.names()));
    }
    if scene.keeps_answers {
        let (before, calls, asked) = (site.snapshot(), model.count(), site.away.count());
        let again = site.run(scene.resume, model);
        if again.code != scene.code {
            wrong(format!("I8: a further run ended with {}: {}", again.code, again.said.trim()));
        }
        if model.count() != calls {
            wrong(format!("I8: a further run made {} calls", model.count() - calls));
        }
        if site.away.count() != asked {
            wrong(format!("I8: a further run moved {} documents", site.away.count() - asked));
        }
        let now = site.snapshot();
        let names = now.keys().chain(before.keys());
        let changed: BTreeSet<_> =
            names.filter(|path| now.get(*path) != before.get(*path)).collect();
        if !changed.is_empty() {
            wrong(format!("I8: a further run changed {changed:?}"));
        }
    }
    for path in site.snapshot().into_keys() {
        if path.extension().is_some_and(|it| it == "staged") {
            wrong(format!("I10: {} was left", path.display()));
        }
    }
    for leak in site.leaks() {
        wrong(format!("I11: a secret is in {leak}"));
    }
}

fn duplicates(output: &[u8]) -> u64 {
    let mut seen = BTreeSet::new();
    let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let ids = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let names = ids.map(|it| ["id", "model", "repeat"].map(|field| it[field].to_string()));
    names.filter(|name| !seen.insert(name.clone())).count() as u64
}

/// The answers in journals and outputs: nothing may ask for them again.
pub fn done_rows(site: &Site) -> Done {
    let mut rows = Vec::new();
    for dir in ["wd", "out.jsonl.rowmill"].map(|dir| site.path(dir)) {
        let inner = fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
        // Generations stand in directories of their own; the first one does not.
        for generation in inner.filter(|path| path.is_dir()).chain([dir.clone()]) {
            let shards = fs::read_dir(generation.join("shards")).into_iter().flatten().flatten();
            for shard in shards {
                rows.extend(answered(&fs::read(shard.path().join("journal")).unwrap_or_default()));
            }
        }
    }
    let mut done = Done::count(rows);
    let output = site.output("out.jsonl").unwrap_or_default();
    let lines = output.split(|byte| *byte == b'\n');
    let envelopes = lines.map(|line| serde_json::from_slice::<Value>(line).unwrap_or_default());
    let envelopes = envelopes.filter(|envelope| envelope["ok"] == true);
    done.add(&Done::count(envelopes.filter_map(|envelope| envelope["row_number"].as_u64())));
    done
}

/// The rows with an answer in the whole records of a journal.
pub fn answered(journal: &[u8]) -> Vec<u64> {
    let lines = journal.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    lines
        .filter(|line| contains(line, "\"outcome\":\"ok\""))
        .filter_map(|line| serde_json::from_slice::<Value>(line.get(9..)?).ok()?["row"].as_u64())
        .collect()
}
