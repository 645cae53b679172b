//! Files that stand where they do not belong: every file of a work directory in the place of every
//! file like it, of another job, another plan of the run, another generation, another shard, an older
//! state. Each is refused (70) with its name, or does no harm: what is published is what it would be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::scene::{OUTPUTS, copy_tree};
use super::site::{Ended, Manners, Model, PROMPT, Site};
use super::table::{Found, Table};
use super::{Ground, Scale};

/// How a state of a work directory comes about, after the one before it.
struct Step {
    name: &'static str,
    rows: u64,
    line: &'static str,
    code: i32,
    manners: Manners,
}

/// The life of a work directory: planned, half worked, worked, published, half worked again over more
/// rows.
const LIFE: [Step; 5] = [
    Step {
        name: "planned",
        rows: 20,
        line: "plan JOB --work-dir wd",
        code: 0,
        manners: Manners::Good,
    },
    Step {
        name: "half worked",
        rows: 20,
        line: "work --work-dir wd -c 4 --parallel 1 --no-progress --base-url HERE",
        code: 77,
        manners: Manners::RefusesAfter(10),
    },
    Step {
        name: "worked",
        rows: 20,
        line: "work --work-dir wd -c 4 --no-progress --base-url HERE",
        code: 0,
        manners: Manners::Good,
    },
    Step {
        name: "published",
        rows: 20,
        line: "merge --work-dir wd OUTPUTS --keep-generations 1",
        code: 0,
        manners: Manners::Good,
    },
    Step {
        name: "second generation",
        rows: 27,
        line: "run JOB --parallel 1 -c 1 OUTPUTS --work-dir wd --resume --on-change update",
        code: 77,
        manners: Manners::RefusesAfter(4),
    },
];

/// The states that are disturbed, and how each is gone on with.
const TARGETS: [(&str, &str); 3] = [
    ("half worked", "run JOB PACE OUTPUTS --work-dir wd --resume"),
    ("worked", "merge --work-dir wd OUTPUTS"),
    ("second generation", "run JOB PACE OUTPUTS --work-dir wd --resume --on-change update"),
];

/// What the states of a site are, each in a directory beside it.
struct States {
    site: Site,
    // Whose they are and what they are called, in the order in which they came about.
    known: Vec<(&'static str, &'static str)>,
}

/// Tries all of them, or some.
pub fn prove(ground: &Ground, scale: Scale) -> Table {
    let mut table = Table::new("swaps", "Files that stand where they do not belong");
    let states = States::make(ground.sites("swaps").remove(0));
    let step = if scale == Scale::All { 1 } else { 17 };
    for (target, command) in TARGETS {
        let golden = states.golden(target, command);
        let mut found = BTreeMap::<&str, Found>::new();
        for (nth, swap) in states.swaps(target).iter().enumerate() {
            if nth % step == 0 {
                let found = found.entry(swap.kind).or_default();
                found.is_uncounted = true;
                states.disturb(target, command, swap, &golden, found);
            }
        }
        for (kind, found) in found {
            table.add(kind, target, &found);
        }
    }
    table
}

/// A file, or a directory that is one to rowmill, and what is put in its place.
struct Swap {
    place: PathBuf,
    by: PathBuf,
    kind: &'static str,
    told: String,
}

impl States {
    fn make(site: Site) -> Self {
        let mut states = Self { site, known: Vec::new() };
        for whose in ["another job", "this job"] {
            states.site.clear();
            let prompt = if whose == "this job" { "{{text}}" } else { "{{text}}, of another job" };
            fs::write(states.site.path("prompt.txt"), prompt).expect("a disk");
            for step in &LIFE {
                states.step(whose, step);
            }
        }
        // The same run, and another plan: what was there is given up.
        fs::write(states.site.path("prompt.txt"), "{{text}} again").expect("a disk");
        let again = "run JOB PACE OUTPUTS --work-dir wd --overwrite";
        let line = Step { name: "planned anew", line: again, code: 0, ..LIFE[3] };
        states.step("another plan", &line);
        states
    }

    fn step(&mut self, whose: &'static str, step: &Step) {
        self.write_input(whose, step.rows);
        let ended = self.site.run(step.line, &Model::start(step.manners));
        assert_eq!(ended.code, step.code, "{whose}, {}: {}", step.name, ended.said);
        let copy = self.copy(whose, step.name);
        let _ = fs::remove_dir_all(&copy);
        copy_tree(&self.site.root, &copy);
        self.known.push((whose, step.name));
    }

    fn write_input(&self, whose: &str, rows: u64) {
        let first = if whose == "another job" { 100 } else { 0 };
        let line = |row| format!("{{\"id\":\"r{row}\",\"text\":\"r{row} {PROMPT}\"}}\n");
        let lines: String = (first + 1..=first + rows).map(line).collect();
        fs::write(self.site.path("in.jsonl"), lines).expect("a disk");
    }

    fn copy(&self, whose: &str, name: &str) -> PathBuf {
        self.site.aside.with_extension(format!("{whose} {name}"))
    }

    /// Brings the site into a state of this job.
    fn restore(&self, name: &str) {
        self.site.clear();
        for entry in fs::read_dir(self.copy("this job", name)).expect("it was made").flatten() {
            copy_tree(&entry.path(), &self.site.root.join(entry.file_name()));
        }
    }

    fn outputs(&self) -> Vec<Option<Vec<u8>>> {
        OUTPUTS[..2].iter().map(|name| self.site.output(name)).collect()
    }

    /// What comes of a state that nobody disturbs.
    fn golden(&self, target: &str, command: &str) -> Vec<Option<Vec<u8>>> {
        self.restore(target);
        let ended = self.site.run(command, &Model::start(Manners::Good));
        assert_eq!(ended.code, 0, "{target}: {}", ended.said);
        self.outputs()
    }

    /// All swaps of what has the same name, and of shards as a whole.
    fn swaps(&self, target: &str) -> Vec<Swap> {
        let here = self.copy("this job", target).join("wd");
        let places = files(&here);
        let mut swaps = Vec::new();
        let mut seen = BTreeSet::new();
        for (whose, name) in &self.known {
            let there = self.copy(whose, name).join("wd");
            for by in files(&there) {
                let alike = places.iter().filter(|place| place.file_name() == by.file_name());
                let shards = places.iter().filter(|place| is_shard(place) && is_shard(&by));
                for place in alike.chain(shards).collect::<BTreeSet<_>>() {
                    let (old, new) = (here.join(place), there.join(&by));
                    // What is the same byte for byte is no swap, and is tried once.
                    if digest(&old) == digest(&new) || !seen.insert((place.clone(), digest(&new))) {
                        continue;
                    }
                    let kind = match (*whose, *name == target) {
                        ("this job", true) => "of another shard or generation",
                        ("this job", false) => "of another state or generation",
                        (whose, _) => whose,
                    };
                    let told =
                        format!("{} by {} of {whose}, {name}", place.display(), by.display());
                    swaps.push(Swap { place: place.clone(), by: new, kind, told });
                }
            }
        }
        swaps
    }

    fn disturb(
        &self,
        target: &str,
        command: &str,
        swap: &Swap,
        golden: &[Option<Vec<u8>>],
        found: &mut Found,
    ) {
        self.restore(target);
        let before = self.outputs();
        let place = self.site.path("wd").join(&swap.place);
        match fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_dir()) {
            true => fs::remove_dir_all(&place).expect("a disk"),
            false => fs::remove_file(&place).expect("a disk"),
        }
        copy_tree(&swap.by, &place);
        let ended = self.site.run(command, &Model::start(Manners::Good));
        let after = self.outputs();
        let why = match ended.code {
            0 if after == golden => None,
            0 => Some("something else was published".to_owned()),
            // An older state of the same shard has rows left, which only work can answer; a journal
            // that is empty says of nothing that it is answered.
            78 if command.starts_with("merge")
                && (swap.kind.contains("state") || is_unworked(swap)) =>
            {
                (after != before).then(|| "refused, and published".to_owned())
            }
            70 if after != before => Some("refused, and published".to_owned()),
            70 if !is_named(&ended, &swap.place) => Some("refused without its name".to_owned()),
            70 => None,
            code => Some(format!("ended with {code}")),
        };
        let said = why.as_ref().map(|why| format!("{why}: {}", ended.said.trim()));
        found
            .check(why.is_none(), format!("{target}, {}: {}", swap.told, said.unwrap_or_default()));
    }
}

/// Whether what a command says names the file, or one in a directory that is a file to rowmill, or the
/// plan that the marker and the records of a publication are compared with.
fn is_named(ended: &Ended, place: &Path) -> bool {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let names: &[&str] = match &*name {
        _ if is_shard(place) => &["seal.json", "journal", "twins", "duplicates"],
        "rowmill.json" | "manifest.json" => &["manifest.json", "journal", "seal.json", "commit-"],
        _ => &[],
    };
    ended.said.contains(&*name) || names.iter().any(|name| ended.said.contains(name))
}

/// Whether what is put there is a journal without a record, or a shard with such a one.
fn is_unworked(swap: &Swap) -> bool {
    let journal = if is_shard(&swap.place) { swap.by.join("journal") } else { swap.by.clone() };
    journal.ends_with("journal") && fs::metadata(journal).is_ok_and(|meta| meta.len() == 0)
}

fn is_shard(place: &Path) -> bool {
    place.parent().is_some_and(|parent| parent.ends_with("shards"))
}

/// The files of a work directory, relative to it; shards and checkpoints count as a whole as well.
fn files(work_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![work_dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            let relative = path.strip_prefix(work_dir).expect("it is below it").to_owned();
            let is_checkpoint = path.ends_with("checkpoint");
            if !path.is_dir() || is_checkpoint || is_shard(&relative) {
                found.push(relative);
            }
            if path.is_dir() && !is_checkpoint {
                dirs.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What tells a file or directory from others.
fn digest(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut paths = vec![path.to_owned()];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let mut within: Vec<_> =
                fs::read_dir(&path).expect("a directory").flatten().map(|it| it.path()).collect();
            within.sort();
            paths.append(&mut within);
        } else {
            hasher.update(&fs::read(&path).expect("a file"));
        }
    }
    hasher.finalize().to_hex().to_string()
}
