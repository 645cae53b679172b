//! A hostile disk and host: full and read-only file systems, limits, a stopped process, a wrong
//! clock, rivals for one work directory, and directories that are taken away.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;

use super::scene::{CONCURRENCY, Golden, RUN, Scene};
use super::site::{Ended, Manners, Model, Site, end, start};
use super::table::{Found, Table};
use super::trial::{Crash, Done, Outputs, done_rows, examine, outputs};
use super::{Ground, Scale, limits, tiny};

/// A job whose work directory has a name, and is kept.
pub const NAMED: Scene = Scene {
    name: "run, named work dir",
    command: "run JOB PACE OUTPUTS --work-dir wd",
    resume: "run JOB PACE OUTPUTS --work-dir wd --resume",
    ..RUN
};

/// The same command from the beginning, as cron has it.
const AGAIN: Scene = Scene { command: NAMED.resume, ..NAMED };

/// More rows than one commit window.
pub const LARGE: Scene = Scene { name: "run of 400 rows", rows: 400, ..NAMED };

/// A call that is not answered in time.
const HASTY: Scene = Scene {
    name: "run, --timeout 2",
    command: "run JOB PACE OUTPUTS --work-dir wd --timeout 2",
    resume: "run JOB PACE OUTPUTS --work-dir wd --timeout 2 --resume",
    ..NAMED
};

/// All of it.
pub fn prove(ground: &Ground, scale: Scale) -> Table {
    let mut table = Table::new("host", "A hostile disk and host");
    tiny::full(ground, scale, &mut table);
    tiny::read_only(ground, &mut table);
    limits::limits(ground, scale, &mut table);
    limits::clocks(ground, scale, &mut table);
    stopped(ground, scale, &mut table);
    crowds(ground, &mut table);
    gone(ground, scale, &mut table);
    outputs_gone(ground, &mut table);
    table
}

/// A scene in a site of its own, with what its trials came to.
pub struct Bench {
    pub site: Site,
    pub scene: Scene,
    pub golden: Golden,
    pub found: Found,
    /// The outputs, and the rows that were done, before the command is disturbed.
    old: Outputs,
    done: Done,
    /// How often the disturbed command ended with each code.
    codes: BTreeMap<i32, u64>,
}

/// What a disturbed command may do.
#[derive(Debug, Clone, Copy)]
pub struct May {
    pub codes: &'static [i32],
    /// How many calls it may cost.
    pub repeat: u64,
    /// What the last line must say when it ended by itself and failed.
    pub says: &'static str,
}

impl Bench {
    pub fn new(ground: &Ground, scene: &Scene) -> Self {
        let site = ground.sites("host").remove(0);
        scene.prepare(&site);
        let golden = scene.golden(&site);
        scene.restore(&site);
        let (old, done) = (outputs(&site), done_rows(&site));
        let (found, codes) = (Found::default(), BTreeMap::new());
        Self { site, scene: *scene, golden, found, old, done, codes }
    }

    /// Brings the site back to what was there before the command.
    pub fn restore(&mut self) {
        self.scene.restore(&self.site);
        (self.old, self.done) = (outputs(&self.site), done_rows(&self.site));
    }

    /// Starts the scene's command.
    pub fn start(&self, model: &Model) -> Child {
        start(&mut self.site.command(self.scene.command, model))
    }

    /// After the command was disturbed and has ended: removes the cause, goes on, notes what holds.
    pub fn settle(
        &mut self,
        whence: &str,
        may: May,
        ended: Ended,
        model: &Model,
        mend: impl FnOnce(&Site),
    ) {
        *self.codes.entry(ended.code).or_default() += 1;
        let whence = format!("{}, {whence}", self.scene.name);
        // 127 is the loader's: it has its own words.
        let is_ours = ended.code > 0 && ended.code != 127;
        if is_ours && ended.code != self.scene.code && !tells(&ended, may.says) {
            let said = ended.said.trim();
            self.found.violations.push(format!("{whence}: the last line says no cause: {said}"));
        }
        let calls = model.calls();
        // Only now: what is done may be out of sight.
        mend(&self.site);
        let mut done = done_rows(&self.site);
        done.add(&self.done);
        let crash = Crash { ended, codes: may.codes, done, calls, bound: may.repeat };
        let verdict = examine(&self.scene, &self.golden, &self.site, model, &self.old, &crash);
        self.found.note(true, &whence, verdict);
    }

    /// Adds what was found to the table.
    pub fn close(self, what: &str, table: &mut Table) {
        let ends: Vec<_> =
            self.codes.iter().map(|(code, count)| format!("{count}×{code}")).collect();
        let what = format!("{what} (ended with {})", ends.join(", "));
        table.add(&what, self.scene.name, &self.found);
    }
}

/// Whether the last line on standard error is one of the three parts, and says this, or one of
/// these that `|` parts.
pub fn tells(ended: &Ended, text: &str) -> bool {
    let last = ended.said.lines().rfind(|line| line.starts_with("rowmill: "));
    let says = |line: &str| text.split('|').any(|text| line.contains(text));
    last.is_some_and(|line| line.matches(" · ").count() >= 2 && says(line))
}

/// A process that sleeps for longer than a call may take, and wakes up.
fn stopped(ground: &Ground, scale: Scale, table: &mut Table) {
    let sleep = Duration::from_secs(if scale == Scale::All { 60 } else { 3 });
    let mut bench = Bench::new(ground, &HASTY);
    for answers_come in ["while it sleeps", "when it is awake"] {
        bench.restore();
        let model = Model::start(Manners::HoldsAfter(5));
        let child = bench.start(&model);
        model.wait_for_active(CONCURRENCY);
        signal(&child, "-STOP");
        let calls = model.count();
        if answers_come == "while it sleeps" {
            model.release();
        }
        // The sleep is what is tried here.
        std::thread::sleep(sleep);
        signal(&child, "-CONT");
        if answers_come == "when it is awake" {
            // All calls that slept are too late: another takes the place of one of them.
            model.wait_for_calls(calls + 1);
            model.release();
        }
        let may = May { codes: &[0], repeat: CONCURRENCY, says: "" };
        bench.settle(&format!("answers come {answers_come}"), may, end(child), &model, |_| {});
    }
    bench.close(&format!("SIGSTOP for {} s, SIGCONT", sleep.as_secs()), table);
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill {name}");
}

/// Rivals for one work directory, and for one output.
fn crowds(ground: &Ground, table: &mut Table) {
    let once = May { codes: &[0], repeat: 0, says: "" };
    for count in [2, 10] {
        let mut bench = Bench::new(ground, &AGAIN);
        let model = Model::start(Manners::HoldsAfter(0));
        let first = vec![bench.scene.command; count];
        let winner = contest(&mut bench, &first, &model, &[75], "is in use by process");
        bench.settle(&format!("{count} processes"), once, winner, &model, |_| {});
        bench.close(&format!("{count} processes on one work dir"), table);

        let mut bench = Bench::new(ground, &NAMED);
        let model = Model::start(Manners::HoldsAfter(0));
        let first = vec![bench.scene.command; count];
        // One that comes late finds a run to go on with, and asks for `--resume`.
        let winner = contest(&mut bench, &first, &model, &[73, 75], "wd");
        bench.settle(&format!("{count} processes"), once, winner, &model, |_| {});
        bench.close(&format!("{count} processes on one work dir, not to resume"), table);

        let mut bench = Bench::new(ground, &AGAIN);
        let model = Model::start(Manners::HoldsAfter(0));
        let line = format!("{} --lock-wait 10m", bench.scene.command);
        let children: Vec<_> =
            (0..count).map(|_| start(&mut bench.site.command(&line, &model))).collect();
        model.wait_for_active(CONCURRENCY);
        model.release();
        let mut ended: Vec<_> = children.into_iter().map(end).collect();
        let last = ended.pop().expect("one of them");
        for other in ended {
            bench.found.check(other.code == 0, format!("{count} that wait: {other:?}"));
        }
        bench.settle(&format!("{count} that wait"), once, last, &model, |_| {});
        bench.close(&format!("{count} processes on one work dir, --lock-wait"), table);
    }
    let mut bench = Bench::new(ground, &NAMED);
    let model = Model::start(Manners::HoldsAfter(0));
    let lines = [bench.scene.resume, "run JOB PACE OUTPUTS --work-dir wd2 --resume"];
    let winner = contest(&mut bench, &lines, &model, &[75], "out.jsonl is in use by process");
    bench.settle("two work dirs", once, winner, &model, |site| {
        // Which of them it was is not known beforehand.
        if site.path("wd2").exists() {
            fs::rename(site.path("wd2"), site.path("wd")).expect("the loser's is gone");
        }
    });
    bench.close("two work dirs with one output", table);
}

/// Starts all at once and holds the winner until the others have ended. Gives how it ended.
fn contest(bench: &mut Bench, lines: &[&str], model: &Model, codes: &[i32], says: &str) -> Ended {
    let (ended, all) = mpsc::channel();
    for line in lines {
        let child = start(&mut bench.site.command(line, model));
        let ended = ended.clone();
        std::thread::spawn(move || ended.send(end(child)));
    }
    let next = || all.recv_timeout(Duration::from_secs(60)).expect("it ends");
    for _ in 1..lines.len() {
        let loser = next();
        let is_right = codes.contains(&loser.code) && tells(&loser, says);
        bench.found.check(is_right, format!("{lines:?}: a loser: {loser:?}"));
    }
    model.wait_for_active(CONCURRENCY);
    model.release();
    next()
}

/// The work directory is removed or renamed while calls are under way.
fn gone(ground: &Ground, scale: Scale, table: &mut Table) {
    let holds: &[u64] = if scale == Scale::All { &[0, 1, 6, 7, 40, 150, 300, 390] } else { &[10] };
    // The commit window: what may be paid for before anybody looks.
    const WINDOW: u64 = 256;
    // A directory is removed file by file: the first that is missed may be one of them.
    let says = "was removed or renamed|No such file";
    for renames in [true, false] {
        let mut bench = Bench::new(ground, &LARGE);
        for after in holds {
            bench.restore();
            let model = Model::start(Manners::HoldsAfter(*after));
            let child = bench.start(&model);
            model.wait_for_active(CONCURRENCY);
            let (dir, away) = (bench.site.path("wd"), bench.site.root.with_extension("away"));
            if renames {
                fs::rename(&dir, &away).expect("a directory that is there");
            } else {
                remove(&dir);
            }
            let calls = model.count();
            model.release();
            let ended = end(child);
            let whence = format!("after {after} answers");
            let more = model.count() - calls;
            let is_bounded = more <= WINDOW + CONCURRENCY;
            bench.found.check(is_bounded, format!("{whence}: {more} calls were made after it"));
            let is_stray = dir.exists();
            bench.found.check(!is_stray, format!("{whence}: the directory was made again"));
            // What is gone is to be done again, all of it.
            let repeat = if renames { CONCURRENCY } else { LARGE.rows };
            let may = May { codes: &[74], repeat, says };
            bench.settle(&whence, may, ended, &model, |_| {
                let _ = fs::remove_dir_all(&dir);
                if renames {
                    fs::rename(&away, &dir).expect("a directory that was there");
                }
            });
        }
        let what = if renames { "renamed" } else { "removed" };
        bench.close(&format!("work dir {what} in mid-run"), table);
    }
}

/// Removes a directory in which files are being made.
fn remove(dir: &std::path::Path) {
    while fs::remove_dir_all(dir).is_err() && dir.exists() {}
}

/// The outputs' directory is renamed while calls are under way.
fn outputs_gone(ground: &Ground, table: &mut Table) {
    const LINE: &str = "run JOB PACE -o out/out.jsonl --summary-output out/sum.json --work-dir wd";
    let mut bench = Bench::new(ground, &NAMED);
    let site = &bench.site;
    fs::create_dir(site.path("out")).expect("a disk");
    let model = Model::start(Manners::HoldsAfter(6));
    let child = start(&mut site.command(LINE, &model));
    model.wait_for_active(CONCURRENCY);
    fs::rename(site.path("out"), site.path("away")).expect("a directory");
    model.release();
    let ended = end(child);
    fs::rename(site.path("away"), site.path("out")).expect("nothing is in its place");
    let resumed = site.run(&format!("{LINE} --resume"), &model);
    let output = fs::read(site.path("out/out.jsonl")).unwrap_or_default();
    let mut names = Site::new(site.path("out"), &site.binary).names();
    names.retain(|name| name != "out.jsonl" && name != "sum.json");
    let found = &mut bench.found;
    found.check(ended.code == 74 && tells(&ended, "out"), format!("outputs renamed: {ended:?}"));
    found.check(resumed.code == 0, format!("outputs renamed back: {resumed:?}"));
    found.check(output == bench.golden.output, "outputs renamed: another output");
    found.check(model.calls() == bench.golden.calls, "outputs renamed: calls were repeated");
    found.check(names.is_empty(), format!("outputs renamed: {names:?} are left"));
    *bench.codes.entry(ended.code).or_default() += 1;
    bench.close("outputs' directory renamed in mid-run", table);
}
