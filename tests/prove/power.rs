//! Power cuts on real file systems: a scene runs on a loop-mounted image, is killed before one of
//! its operations, and then the file system is shut down without writing anything out
//! (`FS_IOC_SHUTDOWN`). After mounting it again the command must go on as after any crash.
//!
//! Needs root, loop devices and the `mkfs` of the file system; where they are missing it skips.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::scene::{CONCURRENCY, Scene};
use super::shim::{Fault, compile, read_log};
use super::site::{Manners, Model, Site, end, start};
use super::strict::Disk;
use super::table::{Found, Table};
use super::trial::{Crash, Done, done_rows, examine, outputs};
use super::{Ground, Scale};

/// A file system that can be made in a file.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    name: &'static str,
    mkfs: &'static [&'static str],
    options: &'static str,
    mib: u64,
}

/// Nothing is written out by itself while a scene runs: the default of ext4 is every 5 seconds.
pub const KINDS: &[Kind] = &[
    Kind { name: "ext4", mkfs: &["mkfs.ext4", "-q", "-F"], options: "commit=300", mib: 48 },
    Kind { name: "xfs", mkfs: &["mkfs.xfs", "-q", "-f"], options: "defaults", mib: 320 },
];

/// The rows of a commit window, at most.
const WINDOW: u64 = 256;

/// Takes the power away at every point of every scene, or at some.
pub fn prove(ground: &Ground, scale: Scale) -> Table {
    let mut table = Table::new("power", "Power cuts on real file systems");
    for kind in KINDS {
        for (place, scene) in ground.scenes().enumerate() {
            let step = match scale {
                Scale::All => 1,
                Scale::Quick if place == 0 => 10,
                Scale::Quick => 60.max(2 * scene.step),
            };
            match cuts(ground, *kind, scene, step) {
                Ok(found) => table.add(&format!("power cut, {}", kind.name), scene.name, &found),
                Err(why) => {
                    let left = ground.scenes().count() - place;
                    table.skip(left as u64, &format!("scenes on {}: {why}", kind.name));
                    break;
                }
            }
        }
    }
    table
}

/// An image that is mounted; unmounted and removed at the end.
struct Image {
    kind: Kind,
    /// Attached for as long as the image is used: one that is attached with every mount may be
    /// taken away by the last one's end.
    device: String,
    place: PathBuf,
    godown: PathBuf,
}

impl Image {
    fn make(kind: Kind, within: &Path, godown: &Path) -> Result<Self, String> {
        let place = within.join("mounted");
        fs::create_dir_all(&place).map_err(|error| error.to_string())?;
        let image = within.join("image");
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(kind.mib << 20).map_err(|error| error.to_string())?;
        run(Command::new(kind.mkfs[0]).args(&kind.mkfs[1..]).arg(&image))?;
        let device = run(Command::new("losetup").args(["-f", "--show"]).arg(&image))?;
        let image = Self { kind, device, place, godown: godown.to_owned() };
        image.mount()?;
        Ok(image)
    }

    fn mount(&self) -> Result<(), String> {
        let mut command = Command::new("mount");
        command.args(["-t", self.kind.name, "-o", self.kind.options]);
        run(command.arg(&self.device).arg(&self.place))?;
        Ok(())
    }

    /// Takes the power away and brings it back.
    fn cut(&self) -> Result<(), String> {
        run(Command::new(&self.godown).arg(&self.place))?;
        // Who makes a mount namespace meanwhile, as other tests do, has a copy of this mount in it, and the
        // file system stays shut down until that is gone. Nothing tells when.
        let probe = self.place.join("probe");
        for _ in 0..600 {
            run(Command::new("umount").arg(&self.place))?;
            self.mount()?;
            if fs::write(&probe, "").and_then(|()| fs::remove_file(&probe)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Err("it stays shut down: somebody else has it mounted".to_owned())
    }

    fn sync(&self) -> Result<(), String> {
        run(Command::new("sync").arg("-f").arg(&self.place))?;
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(&self.place));
        let _ = run(Command::new("losetup").arg("-d").arg(&self.device));
    }
}

/// Runs a tool; gives what it said.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
    Err(format!("{}: {said}", command.get_program().to_string_lossy()))
}

/// How a scene fares under power cuts at every n-th of its operations.
pub fn cuts(
    ground: &Ground,
    kind: Kind,
    scene: &'static Scene,
    step: u64,
) -> Result<Found, String> {
    let godown = ground.dir.join("godown");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prove/godown.c");
    compile(&[], &source, &godown)?;
    let mut images = Vec::new();
    for aside in ground.sites("power") {
        let image = Image::make(kind, &aside.root, &godown)?;
        let mut site = Site::new(image.place.join("site"), &ground.binary);
        (site.aside, site.mutant) = (aside.root.clone(), ground.mutant);
        images.push((image, site));
    }
    let found = Mutex::new(Found::default());
    let (next, last) = (AtomicU64::new(1 + ground.seed % step), AtomicU64::new(u64::MAX));
    std::thread::scope(|scope| {
        for (image, site) in &images {
            let (found, next, last) = (&found, &next, &last);
            scope.spawn(move || {
                scene.prepare(site);
                if let Err(why) = sweep(ground, scene, image, site, (next, last, step), found) {
                    // A file system that cannot be used after a cut is no reason to skip anything.
                    found.lock().expect("no panic").check(false, format!("{}: {why}", scene.name));
                }
            });
        }
    });
    Ok(found.into_inner().expect("no panic"))
}

fn sweep(
    ground: &Ground,
    scene: &'static Scene,
    image: &Image,
    site: &Site,
    (next, last, step): (&AtomicU64, &AtomicU64, u64),
    found: &Mutex<Found>,
) -> Result<(), String> {
    scene.restore(site);
    let golden = scene.golden(site);
    loop {
        let at = next.fetch_add(step, Ordering::Relaxed);
        if at > last.load(Ordering::Relaxed) {
            return Ok(());
        }
        scene.restore(site);
        image.sync()?;
        let (old, mut done) = (outputs(site), done_rows(site));
        let disk = Disk::load(&site.root);
        let model = Model::start(Manners::Good);
        let mut command = site.command(scene.command, &model);
        ground.shim.put_on(&mut command, Fault::Record(at), &site.root, &site.log());
        let ended = end(start(&mut command));
        let is_reached = ended.code == -9;
        if !is_reached {
            // It ended before; what lies behind is tried a little, for runs are not all alike.
            last.fetch_min(at + at / 20, Ordering::Relaxed);
        }
        image.cut()?;
        done.add(&answered(disk, site));
        let mut crash = Crash {
            ended,
            codes: &[0, 3],
            done,
            calls: model.calls(),
            bound: CONCURRENCY + WINDOW,
        };
        crash.ended.said.truncate(2_000);
        let verdict = examine(scene, &golden, site, &model, &old, &crash);
        let whence = format!("{}: {} before operation {at}", scene.name, image.kind.name);
        found.lock().expect("no panic").note(is_reached, &whence, verdict);
    }
}

/// The rows that were durable when the power went.
fn answered(mut disk: Disk, site: &Site) -> Done {
    for (place, entry) in read_log(&site.log()).iter().enumerate() {
        disk.apply(place as u64, entry);
    }
    disk.answered()
}
