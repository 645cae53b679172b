//! Limits on what a process may have, and clocks that are wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::host::{Bench, May, NAMED};
use super::scene::{CONCURRENCY, Scene};
use super::shim::compile;
use super::site::{Manners, Model, end, start};
use super::table::Table;
use super::{Ground, Scale};

/// A limit on a process, and what it may do to it.
struct Limit {
    name: &'static str,
    option: &'static str,
    /// What is tried: from, in steps of, until it fits, and at least up to.
    from: u64,
    step: u64,
    to: u64,
    may: May,
}

const MIB: u64 = 1 << 20;

const LIMITS: &[Limit] = &[
    Limit {
        name: "file size",
        option: "--fsize",
        from: 0,
        step: 97,
        to: 0,
        may: May { codes: &[0, 74], repeat: CONCURRENCY, says: "File too large" },
    },
    Limit {
        name: "open files",
        option: "--nofile",
        // Fewer do not start any program.
        from: 5,
        step: 2,
        to: 0,
        may: May { codes: &[0, 74], repeat: CONCURRENCY, says: "open files" },
    },
    Limit {
        name: "memory",
        option: "--as",
        from: 6 * MIB,
        step: 2 * MIB,
        // Some threads have room sooner than others: what waits for those that have none?
        to: 160 * MIB,
        // No memory is like a kill; 127 is the loader's, which says so in its own words, -11 a stack that
        // cannot grow.
        may: May { codes: &[0, 74, 127, -6, -11], repeat: CONCURRENCY, says: "" },
    },
];

/// Runs under limits that grow until the run is not disturbed any more.
pub fn limits(ground: &Ground, scale: Scale, table: &mut Table) {
    if Command::new("prlimit").arg("--version").output().is_err() {
        return table.skip(LIMITS.len() as u64 * 30, "limits: prlimit is not installed");
    }
    for limit in LIMITS {
        let mut bench = Bench::new(ground, &NAMED);
        let step = limit.step * if scale == Scale::All { 1 } else { 12 };
        let (mut value, mut fits) = (limit.from, 0);
        let mut trials = 0;
        while fits < 2 || value < limit.to {
            trials += 1;
            assert!(trials < 1_000, "{}: no limit is ever enough", limit.name);
            let limit_to = format!("{}={value}", limit.option);
            fits = if limited(&mut bench, &limit_to, limit.may) { fits + 1 } else { 0 };
            value += step;
        }
        bench.close(&format!("limit on {}", limit.name), table);
    }
    threads(ground, table);
}

/// One trial; says whether the run was not disturbed.
fn limited(bench: &mut Bench, limit: &str, may: May) -> bool {
    bench.restore();
    let model = Model::start(Manners::Good);
    let plain = bench.site.command(bench.scene.command, &model);
    let words = ["prlimit", limit];
    let ended = end(start(&mut wrapped(&words, &plain)));
    let code = ended.code;
    bench.settle(limit, may, ended, &model, |_| {});
    code == 0
}

/// A command that other commands start.
fn wrapped(words: &[&str], plain: &Command) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(plain.get_current_dir().expect("a directory"));
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.stdin(std::process::Stdio::null());
    command
}

/// A user that nobody is: a limit on processes counts those of a user, and does not bind root.
const NOBODY: &str = "61234";

/// Too few threads, which are processes to the system.
fn threads(ground: &Ground, table: &mut Table) {
    let mut bench = Bench::new(ground, &NAMED);
    // Where this binary stands, others may not be allowed to look.
    let copy = ground.dir.join("rowmill-for-all");
    let copied = fs::copy(&bench.site.binary, &copy)
        .and_then(|_| fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)));
    bench.site.binary = copy;
    let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
    let user = ["setpriv", "--clear-groups", &user, &group];
    let plain = bench.site.command("--version", &Model::start(Manners::Good));
    let is_possible = wrapped(&user, &plain).output().is_ok_and(|output| output.status.success());
    if copied.is_err() || !is_possible {
        return table.skip(12, "limit on threads: no other user can be had");
    }
    for count in 1..=12 {
        bench.restore();
        let owner = format!("{NOBODY}:{NOBODY}");
        let status = Command::new("chown").args(["-R", &owner]).arg(&bench.site.root).status();
        assert!(status.is_ok_and(|status| status.success()), "chown");
        let model = Model::start(Manners::Good);
        let plain = bench.site.command(bench.scene.command, &model);
        let limit = format!("--nproc={count}");
        let words = [&user[..], &["prlimit", &limit]].concat();
        let ended = end(start(&mut wrapped(&words, &plain)));
        let may = May { codes: &[0, 74], repeat: CONCURRENCY, says: "thread" };
        bench.settle(&format!("{count} threads"), may, ended, &model, |_| {});
    }
    bench.close("limit on threads", table);
}

/// A run that was ended before, under whatever clock.
const BEGUN: Scene = Scene {
    name: "resume",
    before: &[(20, "run JOB PACE OUTPUTS --work-dir wd", 77, Manners::RefusesAfter(6))],
    command: NAMED.resume,
    ..NAMED
};

const TEN_YEARS: i64 = 3653 * 86_400;

/// Throws the clock ten years forward and back, in mid-run and between runs.
pub fn clocks(ground: &Ground, scale: Scale, table: &mut Table) {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prove/clock.c");
    let library = ground.dir.join("clock.so");
    if let Err(why) = compile(&["-shared", "-fPIC"], &source, &library) {
        return table.skip(24, &format!("clocks: {why}"));
    }
    let readings: &[u64] = match scale {
        Scale::All => &[0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89],
        Scale::Quick => &[0, 13],
    };
    // The refusals give dates: those count by the server's clock.
    for (scene, manners) in
        [(NAMED, Manners::Good), (BEGUN, Manners::Good), (NAMED, Manners::AsksToWait(1))]
    {
        let mut bench = Bench::new(ground, &scene);
        for jump in [TEN_YEARS, -TEN_YEARS] {
            for after in readings {
                bench.restore();
                let model = Model::start(manners);
                let mut command = bench.site.command(bench.scene.command, &model);
                command.env("LD_PRELOAD", &library).env("CLOCK_JUMP", jump.to_string());
                command.env("CLOCK_AFTER", after.to_string());
                // A refusal is a call too.
                let repeat = if manners == Manners::Good { 0 } else { CONCURRENCY };
                let may = May { codes: &[0], repeat, says: "" };
                let whence = format!("{jump:+} s after {after} readings");
                bench.settle(&whence, may, end(start(&mut command)), &model, |_| {});
            }
        }
        bench.close(&format!("clock thrown ten years, {manners:?}"), table);
    }
}
