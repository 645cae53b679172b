//! Damaged state: recovered where that is certain, reported where it is not, never guessed at, and
//! never in an output.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, assert_text, rows};

const ROWS: usize = 30;
const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m -c 4 --parallel 2 \
                   --shard-rows 10 --work-dir job --resume";

/// A run in `job` that was killed with one shard sealed and one open, and what it should come to.
struct Killed {
    bench: Bench,
    server: Server,
    expected: String,
}

fn killed() -> Killed {
    let server = Server::start(|call| match call.prompt.strip_prefix("text ").unwrap().parse() {
        Ok(17_usize..) if call.nth == 1 => Reply::Hold(answer_to(&call.prompt)),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(ROWS));
    let running = bench.start(&ASK.replace("--parallel 2", "--parallel 1"));
    server.wait_for_calls(20);
    let seal = bench.path("job/shards/00000/seal.json");
    while !seal.exists() {
        std::thread::yield_now();
    }
    running.kill();
    server.release();
    let quiet = Server::echo();
    let other = Bench::with_server(&quiet);
    other.write("in.jsonl", rows(ROWS));
    other.run(ASK).expect(0);
    Killed { bench, server, expected: other.read("out.jsonl") }
}

impl Killed {
    fn shard(&self, number: u32) -> PathBuf {
        self.bench.path(&format!("job/shards/{number:05}"))
    }

    /// Resumes, and makes sure that the output is right and few rows were called again.
    #[track_caller]
    fn recovers(&self, lost: usize) -> String {
        let ended = self.bench.run(ASK).expect(0);
        assert_text(&self.bench.read("out.jsonl"), &self.expected);
        // Each kill repeats at most as many as were in flight.
        let most = ROWS + 4 + lost;
        assert!(self.server.count() <= most, "{} calls, {most} allowed", self.server.count());
        self.bench.run("check --work-dir job").expect(0);
        ended.stderr
    }
}

fn journal(shard: &Path) -> Vec<u8> {
    fs::read(shard.join("journal")).unwrap()
}

#[test]
fn a_torn_tail_is_cut_off() {
    for cut in [1, 2, 17, 100] {
        let killed = killed();
        let shard = killed.shard(1);
        let bytes = journal(&shard);
        fs::write(shard.join("journal"), &bytes[..bytes.len() - cut]).unwrap();
        let said = killed.recovers(1);
        assert!(said.contains("recovered: cut"), "{said}");
    }
}

#[test]
fn a_flipped_byte_in_an_open_shard_costs_one_row() {
    let killed = killed();
    let shard = killed.shard(1);
    let mut bytes = journal(&shard);
    bytes[200] ^= 1;
    fs::write(shard.join("journal"), bytes).unwrap();
    let check = killed.bench.run("check --work-dir job").expect(70);
    assert!(
        check.stdout.contains("lost records: shards/00001/journal at byte 119"),
        "{}",
        check.stdout
    );
    let said = killed.recovers(1);
    assert!(said.contains("kept in quarantine"), "{said}");
    assert!(killed.bench.exists("job/quarantine/00001-000000000119.bytes"));
}

#[test]
fn a_flipped_byte_that_an_index_covers_is_found_before_the_shard_is_sealed() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 8" if call.nth == 1 => Reply::Hold(answer_to(&call.prompt)),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(10));
    let ask = ASK.replace("--parallel 2", "--parallel 1 --drain-timeout 0");
    let running = bench.start(&ask);
    server.wait_for_calls(10);
    // A drained run closes its index, which makes it durable.
    running.signal("-INT");
    assert_eq!(running.wait().code, 130);
    let shard = bench.path("job/shards/00000");
    let mut bytes = journal(&shard);
    bytes[200] ^= 1;
    fs::write(shard.join("journal"), bytes).unwrap();
    let ended = bench.run(ASK).expect(0);
    assert!(ended.stderr.contains("shard 0 is worked again"), "{}", ended.stderr);
    assert_eq!(bench.lines("out.jsonl").len(), 10);
    assert!(server.count() <= 12, "the row that was held and the one that was lost");
}

#[test]
fn a_flipped_byte_in_a_sealed_shard_never_reaches_the_output() {
    for at in [0, 3, 60, 150, 300, 2_000, usize::MAX] {
        let killed = killed();
        let shard = killed.shard(0);
        let mut bytes = journal(&shard);
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 4;
        fs::write(shard.join("journal"), bytes).unwrap();
        let said = killed.recovers(1);
        assert!(said.contains("shard 0 is worked again"), "byte {at}: {said}");
    }
}

#[test]
fn check_repairs_what_can_be_repaired() {
    let killed = killed();
    for (shard, at) in [(0, 150), (1, 150)] {
        let shard = killed.shard(shard);
        let mut bytes = journal(&shard);
        bytes[at] ^= 4;
        fs::write(shard.join("journal"), bytes).unwrap();
    }
    fs::write(killed.shard(1).join("checkpoint/db"), b"").unwrap();
    let found = killed.bench.run("check --work-dir job").expect(70);
    assert_eq!(found.stdout.matches("lost records").count(), 2, "{}", found.stdout);
    assert_eq!(found.stdout.matches("stale index").count(), 1, "{}", found.stdout);
    killed.bench.run("check --work-dir job --repair").expect(0);
    let after = killed.bench.run("check --work-dir job").expect(0);
    assert!(after.stdout.contains("0 things found"), "{}", after.stdout);
    killed.recovers(2);
}

#[test]
fn check_tells_lost_records_from_what_a_crash_leaves() {
    let cut = |name: &str| {
        let killed = killed();
        let bytes = journal(&killed.shard(0));
        match name {
            "sealed, cut" => {
                fs::write(killed.shard(0).join("journal"), &bytes[..bytes.len() - 9]).unwrap();
            }
            "sealed, gone" => fs::remove_file(killed.shard(0).join("journal")).unwrap(),
            "open, gone" => fs::remove_file(killed.shard(1).join("journal")).unwrap(),
            _ => {
                let open = journal(&killed.shard(1));
                fs::write(killed.shard(1).join("journal"), &open[..open.len() - 9]).unwrap();
            }
        }
        killed.bench.run("check --work-dir job")
    };
    for name in ["sealed, cut", "sealed, gone", "open, gone"] {
        let said = cut(name).expect(70).stdout;
        assert!(said.contains("lost records: shards/"), "{name}: {said}");
    }
    let said = cut("open, cut").stdout;
    assert!(said.contains("residue: shards/00001/journal"), "{said}");
}

#[test]
fn journals_without_sled_and_sled_in_any_state_are_recovered() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("gone", |checkpoint| fs::remove_dir_all(checkpoint).unwrap()),
        ("emptied", |checkpoint| fs::write(checkpoint.join("db"), b"").unwrap()),
        ("cut", |checkpoint| {
            let db = fs::read(checkpoint.join("db")).unwrap();
            fs::write(checkpoint.join("db"), &db[..db.len() / 3]).unwrap();
        }),
        ("zeros", |checkpoint| {
            let db = fs::read(checkpoint.join("db")).unwrap();
            fs::write(checkpoint.join("db"), vec![0; db.len()]).unwrap();
        }),
        ("without db", |checkpoint| fs::remove_file(checkpoint.join("db")).unwrap()),
        ("without conf", |checkpoint| fs::remove_file(checkpoint.join("conf")).unwrap()),
        ("a file", |checkpoint| {
            fs::remove_dir_all(checkpoint).unwrap();
            fs::write(checkpoint, b"not a directory").unwrap();
        }),
    ];
    for (name, damage) in damages {
        let killed = killed();
        damage(&killed.shard(1).join("checkpoint"));
        let said = killed.recovers(0);
        assert!(!said.contains("panicked"), "{name}: {said}");
    }
}

#[test]
fn sled_without_journals_is_not_believed() {
    let killed = killed();
    let done = journal(&killed.shard(1)).iter().filter(|byte| **byte == b'\n').count();
    fs::remove_file(killed.shard(1).join("journal")).unwrap();
    killed.recovers(done);
}

#[test]
fn a_sealed_shard_that_is_gone_is_worked_again() {
    let killed = killed();
    fs::remove_dir_all(killed.shard(0)).unwrap();
    killed.recovers(10);
    let killed = self::killed();
    fs::remove_file(killed.shard(0).join("journal")).unwrap();
    killed.bench.run("check --work-dir job").expect(70);
    killed.recovers(10);
    let killed = self::killed();
    fs::write(killed.shard(0).join("seal.json"), "{").unwrap();
    killed.recovers(0);
}

#[test]
fn a_damaged_or_newer_plan_is_not_guessed_at() {
    let killed = killed();
    let manifest = killed.bench.path("job/manifest.json");
    let bytes = fs::read(&manifest).unwrap();
    fs::write(&manifest, &bytes[..bytes.len() / 2]).unwrap();
    killed.bench.run(ASK).expect(70).says("manifest.json is damaged");
    let before = killed.bench.snapshot();
    killed.bench.run(ASK).expect(70);
    killed.bench.run("work --work-dir job").expect(70);
    killed.bench.run("check --work-dir job").expect(70);
    crate::support::assert_same(&killed.bench.snapshot(), &before);
    fs::write(&manifest, &bytes).unwrap();

    let marker = killed.bench.path("job/rowmill.json");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    killed.bench.run(ASK).expect(78).says("has format 2; this rowmill reads format 1");
    fs::write(&marker, text).unwrap();
    killed.recovers(0);
}

/// A bench with two planned copies of a job, `one` and `two`, and another job over other rows, `other`; all
/// worked but for a shard of each copy.
fn copies(server: &Server) -> Bench {
    let bench = Bench::with_server(server);
    bench.write("in.jsonl", rows(20));
    bench.write("others.jsonl", rows(60).lines().skip(40).collect::<Vec<_>>().join("\n"));
    let plan = "--id-field id -p {{text}} -m m --shard-rows 10";
    bench.run(&format!("plan in.jsonl {plan} --work-dir one")).expect(0);
    bench.run(&format!("plan others.jsonl {plan} --work-dir other")).expect(0);
    let copied = std::process::Command::new("cp")
        .args(["-a", "one", "two"])
        .current_dir(bench.path("."))
        .status();
    assert!(copied.unwrap().success());
    bench.run("work --work-dir one --shard 0").expect(0);
    bench.run("work --work-dir two --shard 1").expect(0);
    bench.run("work --work-dir other").expect(0);
    bench
}

fn move_shard(bench: &Bench, from: &str, to: &str) {
    let to = bench.path(to);
    if to.exists() {
        fs::remove_dir_all(&to).unwrap();
    }
    fs::rename(bench.path(from), to).unwrap();
}

#[test]
fn copies_of_a_plan_exchange_shards() {
    let server = Server::echo();
    let bench = copies(&server);
    move_shard(&bench, "two/shards/00001", "one/shards/00001");
    bench.run("check --work-dir one").expect(0);
    bench.run("merge --work-dir one -o out.jsonl").expect(0);
    let output = bench.read("out.jsonl");
    let ids: Vec<_> = output.lines().map(|line| line.split(',').next().unwrap()).collect();
    let input = rows(20);
    let wanted: Vec<_> = input.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(ids, wanted);
    assert_eq!(server.count(), 40, "no row is called again");
}

#[test]
fn shard_of_another_place_is_never_published() {
    let swaps: [(&str, &str, &str); 4] = [
        ("other/shards/00001", "one/shards/00001", "another run"),
        ("one/shards/00000", "one/shards/00001", "shard 0 of this plan, and this is shard 1"),
        ("other/shards/00001/journal", "two/shards/00001/journal", "another run"),
        ("other/shards/00001/seal.json", "two/shards/00001/seal.json", "another run"),
    ];
    for (from, to, said) in swaps {
        let server = Server::echo();
        let bench = copies(&server);
        if to.ends_with("shards/00001") {
            move_shard(&bench, from, to);
        } else {
            fs::copy(bench.path(from), bench.path(to)).unwrap();
        }
        let (dir, file) = to.split_at(3);
        let (before, calls) = (bench.snapshot(), server.count());
        for command in [
            "work --work-dir DIR",
            "merge --work-dir DIR -o out.jsonl",
            "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m --work-dir DIR --resume",
        ] {
            let ended = bench.run(&command.replace("DIR", dir)).expect(70);
            assert!(ended.stderr.contains(&file[1..]), "{to}: {}", ended.stderr);
            assert!(ended.stderr.contains(said), "{to}: {}", ended.stderr);
        }
        let check = bench.run(&format!("check --work-dir {dir}")).expect(70);
        assert!(check.stdout.contains(said), "{to}: {}", check.stdout);
        bench.run(&format!("check --work-dir {dir} --repair")).expect(70);
        crate::support::assert_same(&bench.snapshot(), &before);
        assert_eq!(server.count(), calls, "{to}: nothing is called");
    }
}

#[test]
fn plan_of_another_run_is_refused() {
    let server = Server::echo();
    let bench = copies(&server);
    for name in ["manifest.json", "rowmill.json"] {
        let kept = fs::read(bench.path(&format!("one/{name}"))).unwrap();
        fs::copy(bench.path(&format!("other/{name}")), bench.path(&format!("one/{name}"))).unwrap();
        let ended = bench.run("work --work-dir one").expect(70);
        assert!(ended.stderr.contains("manifest.json is not of this place"), "{}", ended.stderr);
        fs::write(bench.path(&format!("one/{name}")), kept).unwrap();
    }
    assert_eq!(server.count(), 40);
    bench.run("work --work-dir one").expect(0);
}

#[test]
fn what_is_not_ours_is_refused_and_stays_as_it_is() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(5));
    bench.write("precious/thesis.tex", "years of work");
    bench.write("likeness/rowmill.json", "{\"magic\":\"something else\"}");
    bench.write("file", "a file");
    fs::create_dir(bench.path("empty")).unwrap();
    let before = bench.snapshot();
    for dir in ["precious", "likeness", "file"] {
        for option in ["", "--overwrite", "--resume"] {
            let ask = "run in.jsonl -o out.jsonl -p {{text}} -m m";
            bench
                .run(&format!("{ask} --work-dir {dir} {option}"))
                .expect(73)
                .says("is not a work directory");
            bench.run(&format!("plan in.jsonl -m m --work-dir {dir}")).expect(73);
        }
        bench.run(&format!("work --work-dir {dir}")).expect(73);
        bench.run(&format!("status --work-dir {dir}")).expect(73);
        crate::support::assert_same(&bench.snapshot(), &before);
    }
    assert_eq!(server.count(), 0);
    bench.run("run in.jsonl -o out.jsonl -p {{text}} -m m --work-dir empty").expect(0);
    // Something that was put into a work directory of ours is not deleted with it either.
    bench.write("empty/notes.txt", "mine");
    bench
        .run("run in.jsonl -o out.jsonl -p {{text}} -m m --work-dir empty --overwrite")
        .expect(0)
        .says("did not write it: notes.txt");
    assert_eq!(bench.read("empty/notes.txt"), "mine");
}

#[test]
fn a_work_dir_taken_away_while_it_is_worked_ends_the_run() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 9" if call.nth == 1 => Reply::Hold(answer_to(&call.prompt)),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(20));
    let ask = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m -c 1 --resume";
    // With further shards to open, in a directory that is not there.
    let ask = &format!("{ask} --shard-rows 3");
    let running = bench.start(&format!("{ask} --work-dir job"));
    server.wait_for_calls(9);
    fs::rename(bench.path("job"), bench.path("moved")).unwrap();
    server.release();
    running.wait().expect(74).says("was removed or renamed");
    assert!(!bench.exists("job"), "what was taken away is not made again");
    bench.run(&format!("{ask} --work-dir moved")).expect(0);
    assert!(server.count() <= 22, "{}", server.count());
}
