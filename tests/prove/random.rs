//! Kills at random times: thousands of small runs that are killed twice or three times, and a soak.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::scene::{CONCURRENCY, Golden, Scene};
use super::site::{Manners, Model, PROMPT, Site, kill_after, start};
use super::table::{Found, Table};
use super::trial::{Calls, Crash, Done, Outputs, Verdict, done_rows, examine, outputs};
use super::{Ground, Scale};

/// Runs with two or three kills, and the soak.
pub fn prove(ground: &Ground, scale: Scale) -> Table {
    let mut table = Table::new("random", "Kills at random times");
    for scene in ground.scenes().filter(|scene| scene.keeps_answers) {
        let runs = match scale {
            Scale::All => 300,
            Scale::Quick => (126 / scene.step).min(6) / (1 + scene.busy),
        };
        let found = kills(ground, scene, runs);
        table.add("two or three kills", scene.name, &found);
    }
    let (rows, every) = match scale {
        Scale::All => (100_000, Duration::from_secs(2)),
        Scale::Quick => (3_000, Duration::from_millis(400)),
    };
    let (found, kills) = soak(ground, rows, every);
    let what = format!("soak, {rows} rows, a kill every {} s", every.as_secs_f64());
    table.add(&what, &format!("run, -c {SOAK_CONCURRENCY}, {kills} kills"), &found);
    table
}

fn kills(ground: &Ground, scene: &'static Scene, runs: u64) -> Found {
    let found = Mutex::new(Found::default());
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for site in ground.sites("random") {
            let (found, next) = (&found, &next);
            scope.spawn(move || {
                scene.prepare(&site);
                let golden = scene.golden(&site);
                let longest = undisturbed(scene, &site);
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= runs {
                        return;
                    }
                    let seed = ground.seed.wrapping_mul(7_919).wrapping_add(run);
                    let mut random = fastrand::Rng::with_seed(seed);
                    scene.restore(&site);
                    let model = Model::start(Manners::Slow);
                    let times = 2 + random.u64(..2);
                    let (crash, old, early) =
                        kill_often((scene, &golden), &site, &model, times, longest, &mut random);
                    let mut verdict = examine(scene, &golden, &site, &model, &old, &crash);
                    verdict.violations.extend(early.violations);
                    verdict.lost += early.lost;
                    let whence = format!("{}: seed {seed}, {times} kills", scene.name);
                    found.lock().expect("no panic").note(true, &whence, verdict);
                }
            });
        }
    });
    found.into_inner().expect("no panic")
}

/// How long a scene's command takes with the server of these trials.
fn undisturbed(scene: &Scene, site: &Site) -> Duration {
    scene.restore(site);
    let model = Model::start(Manners::Slow);
    let began = Instant::now();
    site.run(scene.command, &model);
    began.elapsed()
}

/// Starts a scene's command and kills it, again and again.
fn kill_often(
    (scene, golden): (&Scene, &Golden),
    site: &Site,
    model: &Model,
    times: u64,
    longest: Duration,
    random: &mut fastrand::Rng,
) -> (Crash, Outputs, Verdict) {
    let mut early = Verdict::default();
    let mut done = done_rows(site);
    let mut calls = model.calls();
    let mut line = scene.command;
    let (mut ended, mut old) = (None, Outputs::new());
    for _ in 0..times {
        old = outputs(site);
        let child = start(&mut site.command(line, model));
        let this = kill_after(child, longest.mul_f64(random.f64()));
        if ![-9, 0, scene.code].contains(&this.code) {
            early.violations.push(format!("I1: it ended with {}: {}", this.code, this.said));
        }
        ended = Some(this);
        let now = model.calls();
        for row in done.called_again(&golden.calls, &calls, &now) {
            early.lost += 1;
            early.violations.push(format!("I5: r{row} was done, and was called again"));
        }
        done.add(&done_rows(site));
        (calls, line) = (now, scene.resume);
    }
    let ended = ended.expect("one kill at least");
    let crash = Crash { ended, codes: &[0, 3], done, calls, bound: times * CONCURRENCY };
    (crash, old, early)
}

/// Calls in flight of the soak.
const SOAK_CONCURRENCY: u64 = 64;

/// One long run, killed over and over until a start gets to its end. Says how many kills it was.
fn soak(ground: &Ground, rows: u64, every: Duration) -> (Found, u64) {
    let site = ground.sites("soak").remove(0);
    site.clear();
    let input: String = (1..=rows)
        .map(|row| format!("{{\"id\":\"r{row}\",\"text\":\"{PROMPT} {row}\"}}\n"))
        .collect();
    fs::write(site.path("in.jsonl"), input).expect("a disk");
    fs::write(site.path("prompt.txt"), "{{id}} {{text}}").expect("a disk");
    let line = format!(
        "run in.jsonl --id-field id -m mock --template prompt.txt --no-progress --work-dir wd \
         -c {SOAK_CONCURRENCY} -o out.jsonl --no-final-summary --resume"
    );
    let model = Model::start(Manners::Slow);
    let mut verdict = Verdict::default();
    let (mut done, planned) = (Done::default(), Calls::new());
    let mut kills = 0;
    loop {
        let before = model.calls();
        let ended = kill_after(start(&mut site.command(&line, &model)), every);
        let now = model.calls();
        verdict.lost += done.called_again(&planned, &before, &now).len() as u64;
        if ended.code == 0 {
            break;
        }
        if ended.code != -9 {
            verdict.violations.push(format!("I1: it ended with {}: {}", ended.code, ended.said));
            break;
        }
        kills += 1;
        done.add(&done_rows(&site));
    }
    let calls = model.calls();
    verdict.repeated = calls.values().sum::<u64>() - calls.len() as u64;
    if verdict.repeated > kills * SOAK_CONCURRENCY {
        verdict.violations.push(format!("I4: {} calls repeated", verdict.repeated));
    }
    if verdict.lost > 0 {
        verdict.violations.push(format!("I5: {} done rows were called again", verdict.lost));
    }
    let expected: String = (1..=rows)
        .map(|row| {
            format!(
                "{{\"id\":\"r{row}\",\"row_number\":{row},\"ok\":true,\"result\":\"the answer to \
                 r{row}\",\"error\":null}}\n"
            )
        })
        .collect();
    if fs::read(site.path("out.jsonl")).unwrap_or_default() != expected.into_bytes() {
        verdict.violations.push("I3: the output is another than it should be".to_owned());
    }
    verdict.violations.extend(site.leaks().into_iter().map(|leak| format!("I11: {leak}")));
    let mut found = Found::default();
    found.note(true, "soak", verdict);
    (found, kills)
}
