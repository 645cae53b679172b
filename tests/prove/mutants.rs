//! Mutants: builds that leave one guard out. A proof that does not notice proves nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use rowmill::guard::Guard;

use super::scene::Scene;
use super::site::{Manners, Model, end, start};
use super::table::{Found, Table};
use super::{Ground, Scale, cuts, points, power};

/// A way in which a mutant may be caught.
struct Trap {
    name: &'static str,
    /// Nothing where it cannot be tried here.
    spring: fn(&Ground, &'static Scene, step: u64) -> Option<Found>,
}

const TRAPS: [Trap; 5] = [
    Trap {
        name: "kill -9",
        spring: |ground, scene, step| Some(points::kills(ground, scene, false, step)),
    },
    Trap {
        name: "torn write",
        spring: |ground, scene, step| Some(points::kills(ground, scene, true, step)),
    },
    Trap {
        name: "power cut, simulated",
        spring: |ground, scene, step| Some(cuts::cuts(ground, scene, 160 / step)),
    },
    Trap {
        name: "power cut, ext4",
        spring: |ground, scene, step| power::cuts(ground, power::KINDS[0], scene, 4 * step).ok(),
    },
    Trap { name: "two processes", spring: |ground, scene, _| Some(two_processes(ground, scene)) },
];

/// The trap that is to catch a mutant; the quick part tries no other.
fn surest(guard: Guard) -> usize {
    match guard {
        Guard::JournalIsTruth | Guard::SummaryLast | Guard::WriteBeforePermit => 0,
        Guard::UploadNote => 0,
        Guard::Rename => 1,
        Guard::JournalSync | Guard::DirectorySync | Guard::SyncBeforeRename => 2,
        Guard::Lock => 4,
    }
}

/// Builds the mutants and tries to catch each.
pub fn prove(ground: &Ground, scale: Scale) -> Table {
    let mut head = vec!["guard left out", "caught"];
    head.extend(TRAPS.iter().map(|trap| trap.name));
    let mut table = Table::with_head("mutants", "Builds with one guard left out", &head);
    let binary = match build() {
        Ok(binary) => binary,
        Err(error) => {
            let mut found = Found::default();
            found.check(false, format!("they cannot be built: {error}"));
            table.count(&found);
            return table;
        }
    };
    for guard in Guard::ALL {
        let name: &'static str = Box::leak(format!("{guard:?}").into_boxed_str());
        let mutant = Ground {
            binary: binary.clone(),
            mutant: Some(name),
            dir: ground.dir.join(name),
            shim: ground.shim.clone(),
            seed: ground.seed,
            scenes: String::new(),
        };
        let mut cells = Vec::new();
        let mut is_caught = false;
        for (index, trap) in TRAPS.iter().enumerate() {
            if scale == Scale::Quick && index != surest(guard) {
                cells.push(String::new());
                continue;
            }
            let caught = spring(trap, &mutant, guard, scale);
            is_caught |= caught.0 > 0;
            cells.push(match caught {
                (_, 0) => "not tried".to_owned(),
                (violated, points) => format!("{violated} of {points}"),
            });
        }
        let mut found = Found::default();
        found.check(is_caught, format!("{name} was not noticed"));
        let mut row = vec![name.to_owned(), if is_caught { "yes" } else { "NO" }.to_owned()];
        row.append(&mut cells);
        table.row(row);
        table.count(&found);
    }
    table
}

/// Points at which something was violated, of how many.
fn spring(trap: &Trap, mutant: &Ground, guard: Guard, scale: Scale) -> (u64, u64) {
    let (mut violated, mut points) = (0, 0);
    // A file that is written over is at risk for a moment: of short scenes every point is tried.
    let (scenes, step): (&[_], _) = match (guard, scale) {
        (Guard::UploadNote, Scale::Quick) => (&["uploads that wait, and are refused twice"], 4),
        (Guard::UploadNote, Scale::All) => (&["two outputs at URLs"], 1),
        (Guard::Rename, Scale::Quick) => (&["plan", "merge"], 1),
        (_, Scale::Quick) => (&["run", "publishing again"], 4),
        (_, Scale::All) => (&["run", "publishing again"], 1),
    };
    for scene in scenes.iter().copied().map(Scene::named) {
        if let Some(found) = (trap.spring)(mutant, scene, step) {
            violated += found.violated;
            points += found.points;
        }
    }
    (violated, points)
}

/// Builds the binary from which guards can be left out, as this one was built.
fn build() -> Result<PathBuf, String> {
    let binary = Path::new(env!("CARGO_BIN_EXE_rowmill"));
    let profile = binary.parent().ok_or("no directory")?;
    let target = profile.parent().ok_or("no directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--example", "mutant", "--features", "mutants"]);
    command.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    command.arg("--target-dir").arg(target);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(profile.join("examples/mutant"))
}

/// Two processes that are given the same command at the same time: each row is called once.
fn two_processes(ground: &Ground, scene: &'static Scene) -> Found {
    let mut found = Found::default();
    let site = ground.sites("two").remove(0);
    scene.prepare(&site);
    let golden = scene.golden(&site);
    for trial in 0..10 {
        scene.restore(&site);
        let model = Model::start(Manners::Good);
        let both = [0, 1].map(|_| start(&mut site.command(scene.resume, &model)));
        let ended = both.map(end);
        let codes = ended.each_ref().map(|it| it.code);
        let are_right = codes.iter().all(|code| [scene.code, 75].contains(code))
            && codes.contains(&scene.code)
            && model.calls() == golden.calls;
        found.check(are_right, format!("trial {trial}: {codes:?}, {} calls", model.count()));
    }
    found
}
