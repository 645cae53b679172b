//! Every crash point: each scene is disturbed at each of its file operations, in each way.

use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::scene::{CONCURRENCY, Scene};
use super::shim::{Entry, Errno, Fault, Op, read_log};
use super::site::{Ended, Manners, Model, Site, end, start};
use super::table::{Found, Table};
use super::trial::{Crash, done_rows, examine, outputs};
use super::{Ground, Scale};

/// A way to disturb a command at a point.
#[derive(Debug, Clone, Copy)]
struct Way {
    name: &'static str,
    fault: fn(u64) -> Fault,
    /// How a command that was not killed may end.
    codes: &'static [i32],
}

/// Outputs published, some rows failed or none, or an error that is told: the run can go on.
const KILLED: &[i32] = &[0, 3];
const FAILED: &[i32] = &[0, 3, 73, 74];

const WAYS: &[Way] = &[
    Way { name: "kill -9 before it", fault: Fault::Kill, codes: KILLED },
    Way { name: "half of it, then kill -9", fault: Fault::Torn, codes: KILLED },
    Way { name: "EIO once", fault: |at| Fault::Once(at, Errno::Io), codes: FAILED },
    Way { name: "ENOSPC from then on", fault: |at| Fault::Sticky(at, Errno::Full), codes: FAILED },
];

/// Disturbs every scene at every point, or at every n-th.
pub fn prove(ground: &Ground, scale: Scale) -> Table {
    let mut table = Table::new("points", "Every file operation of a small job as a crash point");
    for (index, way) in WAYS.iter().enumerate() {
        for (place, scene) in ground.scenes().enumerate() {
            // The quick part meets every second point of a run, and some of the rest.
            let step = match scale {
                Scale::All => 1,
                Scale::Quick if index == 0 && place == 0 => 2,
                Scale::Quick => scene.step,
            };
            let found = sweep(ground, scene, *way, step);
            table.add(way.name, scene.name, &found);
        }
    }
    table
}

/// How a scene fares when it is killed before every n-th operation, or in the middle of it.
pub fn kills(ground: &Ground, scene: &'static Scene, is_torn: bool, step: u64) -> Found {
    sweep(ground, scene, WAYS[usize::from(is_torn)], step)
}

/// Whether an operation that fails must end the run with 74: the sync of what a promise rests on.
fn must_tell(entry: &Entry) -> bool {
    let name = entry.path.rsplit('/').next().unwrap_or_default();
    let is_kept = ["journal", "seal.json.new", "manifest.json.new", "input.part"].contains(&name)
        || name.starts_with("commit-")
        || name.ends_with(".staged");
    entry.op == Op::Sync && is_kept
}

/// The operations of a scene's command, counted by the shim.
fn count(ground: &Ground, scene: &Scene, site: &Site) -> u64 {
    let model = Model::start(Manners::Good);
    scene.restore(site);
    let mut command = site.command(scene.command, &model);
    ground.shim.put_on(&mut command, Fault::Count, &site.root, &site.log());
    end(start(&mut command));
    read_log(&site.log()).len() as u64
}

fn sweep(ground: &Ground, scene: &'static Scene, way: Way, step: u64) -> Found {
    let found = Mutex::new(Found::default());
    // Points are handed out until some in a row lie behind the end of the command.
    let next = AtomicU64::new(1 + ground.seed % step);
    let last = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for site in ground.sites("points") {
            let (found, next, last) = (&found, &next, &last);
            scope.spawn(move || {
                scene.prepare(&site);
                let points = count(ground, scene, &site);
                last.fetch_min(points + points / 20, Ordering::Relaxed);
                scene.restore(&site);
                let golden = scene.golden(&site);
                loop {
                    let at = next.fetch_add(step, Ordering::Relaxed);
                    if at > last.load(Ordering::Relaxed) {
                        return;
                    }
                    scene.restore(&site);
                    let old = outputs(&site);
                    let before = done_rows(&site);
                    let model = Model::start(Manners::Good);
                    let ended = disturb(ground, scene, &site, &model, (way.fault)(at));
                    let entries = read_log(&site.log());
                    let is_reached = entries.len() as u64 >= at;
                    let mut done = done_rows(&site);
                    done.add(&before);
                    let step = entries.iter().find(|entry| entry.at == at);
                    let codes = match step {
                        Some(entry) if way.codes == FAILED && must_tell(entry) => &[74],
                        _ => way.codes,
                    };
                    let crash =
                        Crash { ended, codes, done, calls: model.calls(), bound: CONCURRENCY };
                    let verdict = examine(scene, &golden, &site, &model, &old, &crash);
                    let step = entries.iter().find(|entry| entry.at == at);
                    let step =
                        step.map_or_else(String::new, |it| format!("{:?} {}", it.op, it.path));
                    let whence = format!("{}: {} ({step})", scene.name, (way.fault)(at));
                    found.lock().expect("no panic").note(is_reached, &whence, verdict);
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no panic");
    if found.points == found.unreached {
        found.check(false, format!("{}: no point was met: is the shim loaded?", scene.name));
    }
    found
}

fn disturb(ground: &Ground, scene: &Scene, site: &Site, model: &Model, fault: Fault) -> Ended {
    let mut command = site.command(scene.command, model);
    ground.shim.put_on(&mut command, fault, &site.root, &site.log());
    end(start(&mut command))
}

/// The system calls that change something in a file system.
const CHANGES: &str = "write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range,\
    ftruncate,truncate,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,openat,open,\
    openat2,creat,fallocate,copy_file_range,sendfile,splice,link,linkat,symlink,symlinkat,\
    setxattr,fsetxattr,lsetxattr,mknod,mknodat,chmod,fchmod,fchmodat,io_uring_setup";

/// Proves with `strace` that the shim sees every operation: both count the same process.
pub fn completeness(ground: &Ground) -> Table {
    let mut table = Table::new("complete", "Operations that the shim counts, and that strace sees");
    if Command::new("strace").arg("-V").output().is_err() {
        table.skip(ground.scenes().count() as u64, "strace is not installed");
        return table;
    }
    let site = ground.sites("complete").remove(0);
    for scene in ground.scenes() {
        scene.prepare(&site);
        let model = Model::start(Manners::Good);
        let plain = site.command(scene.command, &model);
        let trace = site.root.with_extension("strace");
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", "4096", "-o"]).arg(&trace);
        command.args(["-E", &format!("LD_PRELOAD={}", ground.shim.path().display())]);
        command.args(["-e", &format!("trace={CHANGES}")]).arg(&site.binary);
        command.args(plain.get_args()).current_dir(&site.root);
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        ground.shim.put_on(&mut command, Fault::Count, &site.root, &site.log());
        command.env_remove("LD_PRELOAD");
        end(start(&mut command));
        let counted = read_log(&site.log()).len();
        let text = fs::read_to_string(&trace).unwrap_or_default();
        let seen = text.lines().filter(|line| is_change(line, &site)).count();
        let mut found = Found { points: seen as u64, ..Found::default() };
        if counted != seen || counted == 0 {
            found.violations.push(format!("{}: shim {counted}, strace {seen}", scene.name));
        }
        table.add("operations", scene.name, &found);
    }
    table
}

/// Whether a line of strace's is an operation below the site.
fn is_change(line: &str, site: &Site) -> bool {
    let root = format!("{}/", site.root.display());
    let line = line.trim_end_matches("<unfinished ...>");
    let Some((_pid, call)) = line.split_once(' ') else { return false };
    // What goes on or ends with a line was counted with its beginning.
    let Some((name, arguments)) = call.trim_start().split_once('(') else { return false };
    if name.starts_with('<') {
        return false;
    }
    let opens = matches!(name, "open" | "openat" | "openat2");
    if opens && !arguments.contains("O_CREAT") && !arguments.contains("O_TRUNC") {
        return false;
    }
    // The first argument: `3</path/of/the/descriptor>`, or `"name"` below this directory.
    let (first, rest) = arguments.split_once([',', ')']).unwrap_or((arguments, ""));
    let named = |text: &str| {
        let path = text.split('"').nth(1);
        path.is_some_and(|path| path.starts_with(&root) || !path.starts_with('/'))
    };
    match first.split_once('<') {
        Some(_) if opens || name.ends_with("at") || name.ends_with("at2") => named(rest),
        Some((_, path)) => {
            let path = path.split('>').next().unwrap_or_default();
            path.starts_with(&root) || root.strip_suffix('/') == Some(path)
        }
        None => named(first),
    }
}
