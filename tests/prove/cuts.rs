//! Power cuts on the simulated disk: a scene is recorded once and cut off thousands of times.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::away::Holdings;
use super::scene::{Golden, Scene};
use super::shim::{Entry, Fault, read_log};
use super::site::{Ended, Manners, Model, Site, end, start};
use super::strict::Disk;
use super::table::{Found, Table};
use super::trial::{Crash, Done, Outputs, Verdict, done_rows, examine, outputs};
use super::{Ground, Scale};

/// Seeds that share one recording.
const A_RECORDING: u64 = 40;

/// Cuts every scene off at random points, once or twice.
pub fn prove(ground: &Ground, scale: Scale) -> Table {
    let mut table =
        Table::new("strict", "Power cuts on a simulated file system that loses all that it may");
    for scene in ground.scenes() {
        let seeds = match scale {
            Scale::All => 400,
            Scale::Quick => (420 / scene.step).min(20) / (1 + scene.busy),
        };
        let mut found = cuts(ground, scene, seeds);
        found.is_uncounted = true;
        table.add("power cut, by seed", scene.name, &found);
    }
    table
}

/// A recorded command: what was there before, what it did, and how it ended.
struct Recording {
    disk: Disk,
    entries: Vec<Entry>,
    ended: Ended,
    old: Outputs,
    /// What was away before, and after.
    away: [Holdings; 2],
}

fn record(ground: &Ground, line: &str, site: &Site, old: Outputs) -> Recording {
    let disk = Disk::load(&site.root);
    let model = Model::start(Manners::Good);
    let before = site.away.watch(&site.log());
    let mut command = site.command(line, &model);
    ground.shim.put_on(&mut command, Fault::Record(0), &site.root, &site.log());
    let ended = end(start(&mut command));
    let away = [before, site.away.now()];
    Recording { disk, entries: read_log(&site.log()), ended, old, away }
}

/// How a scene fares under so many cuts.
pub fn cuts(ground: &Ground, scene: &'static Scene, seeds: u64) -> Found {
    let found = Mutex::new(Found::default());
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for site in ground.sites("strict") {
            let (found, next) = (&found, &next);
            scope.spawn(move || {
                scene.prepare(&site);
                let golden = scene.golden(&site);
                loop {
                    let first = next.fetch_add(A_RECORDING, Ordering::Relaxed);
                    if first >= seeds {
                        return;
                    }
                    scene.restore(&site);
                    let old = outputs(&site);
                    let before = done_rows(&site);
                    let recording = record(ground, scene.command, &site, old);
                    for seed in first..(first + A_RECORDING).min(seeds) {
                        let seed = ground.seed.wrapping_mul(1_000_003).wrapping_add(seed);
                        let mut random = fastrand::Rng::with_seed(seed);
                        let mut done = before.clone();
                        let at = cut(&recording, &site, &mut random, &mut done);
                        let mut whence = format!("{}: seed {seed}, cut {at}", scene.name);
                        let mut verdict = published(&recording, at, &golden, &site);
                        let (mut ended, mut old) = (recording.ended.clone(), &recording.old);
                        let second;
                        if random.u8(..3) == 0 {
                            // The command that goes on is cut off as well.
                            second = record(ground, scene.resume, &site, outputs(&site));
                            let at = cut(&second, &site, &mut random, &mut done);
                            whence += &format!(" and cut {at}");
                            (ended, old) = (second.ended.clone(), &second.old);
                        }
                        let crash = Crash {
                            ended,
                            codes: &[0, 3],
                            done,
                            calls: Default::default(),
                            bound: u64::MAX,
                        };
                        let model = Model::start(Manners::Good);
                        let rest = examine(scene, &golden, &site, &model, old, &crash);
                        verdict.violations.extend(rest.violations);
                        verdict.lost += rest.lost;
                        verdict.duplicated += rest.duplicated;
                        found.lock().expect("no panic").note(true, &whence, verdict);
                    }
                }
            });
        }
    });
    found.into_inner().expect("no panic")
}

/// Puts into the site what is left of a recorded command that was cut off somewhere, and adds the
/// rows that were durable. Says where.
fn cut(recording: &Recording, site: &Site, random: &mut fastrand::Rng, done: &mut Done) -> usize {
    let mut disk = recording.disk.clone();
    // One in ten comes after the end: what a command has said then must be true.
    let at = match random.u8(..10) {
        0 => recording.entries.len(),
        _ => random.usize(..=recording.entries.len()),
    };
    for (place, entry) in recording.entries[..at].iter().enumerate() {
        disk.apply(place as u64, entry);
    }
    done.add(&disk.answered());
    site.clear();
    disk.cut(random, &site.root);
    let [before, after] = &recording.away;
    site.away.go_back(before, after, at);
    at
}

/// Once a command has said that its outputs are published, a power cut cannot take them away.
fn published(recording: &Recording, at: usize, golden: &Golden, site: &Site) -> Verdict {
    let mut verdict = Verdict::default();
    let is_published = recording.entries.iter().any(|it| it.other.ends_with("/sum.json"));
    if at == recording.entries.len() && is_published {
        let now = outputs(site);
        if now.get("out.jsonl") != Some(&golden.output) || !now.contains_key("sum.json") {
            verdict.violations.push("I4: what was published is gone".to_owned());
        }
    }
    verdict
}
