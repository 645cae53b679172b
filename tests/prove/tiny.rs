//! File systems that are full or cannot be written to, mounted in turn wherever a run writes.
//!
//! A full one is tried with no page left, with one, with two, until the run fits: so it fills up at
//! every moment there is. The same with inodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::{Bench, LARGE, May, NAMED, tells};
use super::scene::{CONCURRENCY, SCENES, Scene};
use super::site::{Ended, Manners, Model, Site, end, start};
use super::table::{Found, Table};
use super::{Ground, Scale};

/// A mounted file system; unmounted when it is dropped, also by a trial that panics.
struct Mount(PathBuf);

/// What a file system has, in pages or inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Pages,
    Inodes,
}

/// More than any job here needs.
const AMPLE: &str = "size=64m,nr_inodes=100k";
const PAGE: u64 = 4096;

impl Mount {
    fn tmpfs(at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        mount(&["-t", "tmpfs", "-o", &format!("{AMPLE},mode=700"), "none"], at)?;
        Ok(Self(at.to_owned()))
    }

    /// Makes a directory read-only for whoever opens something by its path from now on. Files that
    /// are open stay writable: the system takes no file system away from under them.
    fn read_only(at: &Path) -> Result<Self, String> {
        // What is opened for writing between the two keeps the mount writable: then both are done anew.
        const TRIES: usize = 20;
        let mut tries = 0;
        loop {
            mount(&["--rbind", &at.display().to_string()], at)?;
            let mounted = Self(at.to_owned());
            tries += 1;
            match mount(&["-o", "remount,bind,ro"], at) {
                Ok(()) => return Ok(mounted),
                Err(error) if tries == TRIES || !error.contains("busy") => return Err(error),
                Err(_) => drop(mounted),
            }
        }
    }

    fn remount(&self, options: &str) {
        mount(&["-o", &format!("remount,{options}")], &self.0).expect("a remount");
    }

    /// Leaves so much room.
    fn leave(&self, room: Room, free: u64) {
        let all = rustix::fs::statvfs(&self.0).expect("a file system");
        self.remount(&match room {
            // No size at all would mean no limit.
            Room::Pages => {
                format!("size={}", ((all.f_blocks - all.f_bfree + free) * PAGE).max(PAGE))
            }
            Room::Inodes => format!("nr_inodes={}", all.f_files - all.f_ffree + free),
        });
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(words: &[&str], at: &Path) -> Result<(), String> {
    let output = Command::new("mount").args(words).arg(at).output();
    let output = output.map_err(|error| format!("mount: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Why nothing can be mounted here, if so.
fn no_mounts(ground: &Ground) -> Option<String> {
    let site = ground.sites("mounts").remove(0);
    Mount::tmpfs(&site.root).err()
}

const RESUMED: &str = "run JOB PACE OUTPUTS --work-dir wd --resume";

/// A plan that is there, and is worked.
const PLANNED: Scene = Scene {
    name: "run of a plan",
    before: &[(20, "plan JOB --work-dir wd", 0, Manners::Good)],
    command: RESUMED,
    ..NAMED
};

/// A run that is half done.
const HALF: Scene = Scene {
    name: "resume",
    before: &[(20, "run JOB PACE OUTPUTS --work-dir wd", 77, Manners::RefusesAfter(10))],
    command: RESUMED,
    ..NAMED
};

/// A directory that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Everything,
    WorkDir,
    Shards,
    Checkpoints,
    Outputs,
}

const PLACES: [(&str, Place, Scene); 7] = [
    ("everything", Place::Everything, SCENES[0]),
    ("the work dir", Place::WorkDir, NAMED),
    ("the work dir", Place::WorkDir, HALF),
    ("the work dir", Place::WorkDir, LARGE),
    ("shards/", Place::Shards, PLANNED),
    ("every checkpoint/", Place::Checkpoints, PLANNED),
    ("the outputs' directory", Place::Outputs, NAMED),
];

/// Mounts what is full where it is to be; what is there already moves into it. The first is the one
/// that is full.
fn put(place: Place, site: &Site) -> Result<Vec<Mount>, String> {
    let wd = site.path("wd");
    match place {
        Place::Everything => Ok(vec![over(&site.root)?]),
        Place::WorkDir => Ok(vec![over(&wd)?]),
        Place::Shards => Ok(vec![over(&wd.join("shards"))?]),
        Place::Outputs => {
            let small = over(&site.root)?;
            Ok(vec![small, over(&wd)?])
        }
        Place::Checkpoints => {
            // Behind links: rowmill removes an index, and nobody can remove what is mounted.
            let room = Mount::tmpfs(&site.root.with_extension("room"))?;
            for shard in 0..3 {
                let (dir, index) =
                    (wd.join(format!("shards/{shard:05}")), room.0.join(format!("{shard}")));
                fs::create_dir_all(&dir).and_then(|()| fs::create_dir(&index)).expect("a disk");
                std::os::unix::fs::symlink(&index, dir.join("checkpoint")).expect("a disk");
            }
            Ok(vec![room])
        }
    }
}

/// Mounts something over a directory, and has in it what was there.
fn over(dir: &Path) -> Result<Mount, String> {
    let copy = dir.with_extension("copy");
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    let copied = |from: &Path, to: &Path| {
        let status = Command::new("cp").arg("-aT").args([from, to]).status();
        status.is_ok_and(|status| status.success()).then_some(()).ok_or("cp failed".to_owned())
    };
    copied(dir, &copy)?;
    let mount = Mount::tmpfs(dir)?;
    copied(&copy, dir)?;
    fs::remove_dir_all(&copy).map_err(|error| error.to_string())?;
    Ok(mount)
}

/// Fills each place up at each moment.
pub fn full(ground: &Ground, scale: Scale, table: &mut Table) {
    if let Some(why) = no_mounts(ground) {
        return table.skip(PLACES.len() as u64 * 50, &format!("full disks: {why}"));
    }
    for (name, place, scene) in &PLACES {
        if scale == Scale::Quick && scene.rows > 20 {
            continue;
        }
        for room in [Room::Pages, Room::Inodes] {
            let mut bench = Bench::new(ground, scene);
            // A large run needs a few hundred of either.
            let step = match scale {
                Scale::All if scene.rows > 20 => 15,
                Scale::All => 1,
                Scale::Quick => 13,
            };
            let (mut free, mut fits) = (0, 0);
            // Two in a row: how much a run needs differs by a page or two.
            while fits < 2 {
                fits = if fill(&mut bench, *place, room, free) { fits + 1 } else { 0 };
                free += step;
                assert!(free < 2000, "{name}: it never fits");
            }
            bench.close(&format!("{name} full, {room:?}"), table);
        }
    }
}

/// One trial with so much room. Says whether it was enough.
fn fill(bench: &mut Bench, place: Place, room: Room, free: u64) -> bool {
    bench.restore();
    let mounts = put(place, &bench.site).expect("it could be mounted before");
    mounts[0].leave(room, free);
    let model = Model::start(Manners::Good);
    let ended = end(bench.start(&model));
    let code = ended.code;
    // An index that has no room is none that anybody waits for.
    let codes: &[i32] = if place == Place::Checkpoints { &[0] } else { &[0, 74] };
    let may = May { codes, repeat: CONCURRENCY, says: "No space left" };
    bench.settle(&format!("{free} free {room:?}"), may, ended, &model, |_| {
        mounts[0].remount(AMPLE);
    });
    for mount in mounts.into_iter().rev() {
        drop(mount);
    }
    match place {
        Place::Checkpoints => free >= 8,
        _ => code == 0,
    }
}

/// Directories that cannot be written to, from the beginning or from some moment on.
pub fn read_only(ground: &Ground, table: &mut Table) {
    if let Some(why) = no_mounts(ground) {
        return table.skip(6, &format!("read-only mounts: {why}"));
    }
    for (name, place, scene) in [
        ("the work dir", "wd", NAMED),
        ("the work dir", "wd", PLANNED),
        ("the work dir", "wd", HALF),
        ("the outputs' directory", "", NAMED),
        ("the outputs' directory", "", HALF),
    ] {
        let mut bench = Bench::new(ground, &scene);
        let dir = bench.site.path(place);
        fs::create_dir_all(&dir).expect("a disk");
        let writable = (place.is_empty()).then(|| over(&bench.site.path("wd")).expect("a mount"));
        let mount = Mount::read_only(&dir).expect("it could be mounted before");
        let model = Model::start(Manners::Good);
        let ended = end(bench.start(&model));
        let no_call = model.count() == 0;
        bench.found.check(no_call, format!("{name}, {}: calls were made", scene.name));
        if scene.name == HALF.name && place == "wd" {
            looks(&bench.site, &model, &mut bench.found);
        }
        let may = May { codes: &[73], repeat: 0, says: "Read-only file system" };
        bench.settle("from the beginning", may, ended, &model, |_| drop(mount));
        drop(writable);
        bench.close(&format!("{name} read-only"), table);
    }
    for (name, place) in [("the work dir", "wd"), ("the outputs' directory", "")] {
        let mut bench = Bench::new(ground, &NAMED);
        fs::create_dir_all(bench.site.path("wd")).expect("a disk");
        let writable = (place.is_empty()).then(|| over(&bench.site.path("wd")).expect("a mount"));
        let model = Model::start(Manners::HoldsAfter(3));
        let child = bench.start(&model);
        model.wait_for_active(CONCURRENCY);
        let mount = Mount::read_only(&bench.site.path(place)).expect("a mount");
        model.release();
        let may = May { codes: &[74], repeat: CONCURRENCY, says: "Read-only file system" };
        bench.settle("after 3 answers", may, end(child), &model, |_| drop(mount));
        drop(writable);
        bench.close(&format!("{name} read-only from mid-run on"), table);
    }
}

/// `status` and `check` answer though nothing can be written.
fn looks(site: &Site, model: &Model, found: &mut Found) {
    for line in ["status --work-dir wd", "status --work-dir wd --json", "check --work-dir wd"] {
        let ended: Ended = end(start(&mut site.command(line, model)));
        found.check(ended.code == 0, format!("read-only, {line}: {ended:?}"));
    }
    let repair = site.run("check --work-dir wd --repair", model);
    let is_told = repair.code == 73 && tells(&repair, "Read-only file system");
    found.check(is_told, format!("read-only, check --repair: {repair:?}"));
}
