//! What rowmill did not write stays, and keeps what it is, whatever is removed or replaced around it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, rows};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} -m m --shard-rows 4";

fn bench(server: &Server) -> Bench {
    let bench = Bench::with_server(server);
    bench.write("in.jsonl", rows(12));
    bench
}

/// Files, directories and links that nobody but their owner wrote, with what a link leads to.
#[derive(Default)]
struct Foreign(BTreeMap<PathBuf, String>);

impl Foreign {
    /// Puts some into a directory, which is made.
    fn plant(&mut self, bench: &Bench, dir: &str) {
        let away = bench.path("elsewhere");
        for name in ["journal", "db", "manifest.json"] {
            bench.write(&format!("elsewhere/{name}"), "elsewhere");
            self.0.insert(away.join(name), "elsewhere".to_owned());
        }
        for name in [
            "mine",
            "journal.bak",
            "seal.json.orig",
            "mine.d/journal",
            "commit-mine.json",
            "ids.part-mine",
            ".output.mine.staged",
            ".out.jsonl.0123abcd.mine.staged",
            "snap.mine",
            "00000-mine.bytes",
        ] {
            let path = bench.write(&format!("{dir}/{name}"), name);
            self.0.insert(path, name.to_owned());
        }
        let link = bench.path(dir).join("link");
        if !link.is_symlink() {
            symlink(&away, &link).unwrap();
        }
        self.0.insert(link, String::new());
    }

    /// As [`Foreign::plant`], in each directory of a work directory, whether it is there or not.
    fn plant_all(&mut self, bench: &Bench, job: &str) {
        for dir in [
            "",
            "/shards",
            "/shards/00000",
            "/shards/00001/checkpoint",
            "/shards/00001/checkpoint/blobs",
            "/quarantine",
            "/gen-000002",
            "/gen-000002/shards/00000",
            "/gen-000002/shards/00002/checkpoint",
            "/gen-000003",
            "/gen-000007",
        ] {
            self.plant(bench, &format!("{job}{dir}"));
        }
    }

    #[track_caller]
    fn assert_untouched(&self, after: &str) {
        for (path, text) in &self.0 {
            let is_link = path.file_name() == Some("link".as_ref());
            assert_eq!(path.is_symlink(), is_link, "{} after {after}", path.display());
            if !is_link {
                let read = fs::read_to_string(path);
                assert_eq!(read.ok().as_ref(), Some(text), "{} after {after}", path.display());
            }
        }
    }
}

#[test]
fn foreign_files_survive_every_command() {
    let server = Server::echo();
    let bench = bench(&server);
    let mut foreign = Foreign::default();
    bench.run(&format!("{ASK} --work-dir job")).expect(0);
    foreign.plant(&bench, "beside");
    foreign.plant_all(&bench, "job");
    let asked = |prompt: &str| ASK.replace("{{text}}", prompt);
    let update = "--work-dir job --resume --on-change update";
    for (command, says) in [
        (format!("{ASK} --work-dir job --resume"), ""),
        (format!("{} {update}", asked("a{{text}}")), "left in"),
        (format!("{} {update}", asked("b{{text}}")), "gen-000002/journal.bak"),
        (format!("{} {update} --keep-generations 1", asked("c{{text}}")), ""),
        ("check --work-dir job".to_owned(), ""),
        ("check --work-dir job --repair".to_owned(), ""),
        (format!("{} --work-dir job --overwrite", asked("c{{text}}")), "left in"),
        ("plan in.jsonl --id-field id -p {{text}} -m m --work-dir job --overwrite".to_owned(), ""),
        ("work --work-dir job".to_owned(), ""),
        ("merge --work-dir job -o beside/merged.jsonl".to_owned(), ""),
        (format!("{ASK} --overwrite"), ""),
    ] {
        bench.run(&command).expect(0).says(says);
        foreign.assert_untouched(&command);
    }
    assert_eq!(bench.lines("out.jsonl").len(), 12);
    assert!(!bench.exists("out.jsonl.rowmill"), "nothing foreign was in it");
}

#[test]
fn foreign_files_survive_a_repair() {
    let server = Server::echo();
    let bench = bench(&server);
    let mut foreign = Foreign::default();
    let plan = ASK.replace("run in.jsonl -o out.jsonl", "plan in.jsonl");
    bench.run(&format!("{plan} --work-dir job")).expect(0);
    bench.run("work --work-dir job --shard 0").expect(0);
    foreign.plant_all(&bench, "job");
    let journal = bench.path("job/shards/00000/journal");
    let mut bytes = fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&journal, bytes).unwrap();
    bench.run(&format!("{ASK} --work-dir job --resume")).expect(0);
    foreign.assert_untouched("--resume");
    assert_eq!(server.count(), 13, "a damaged record's row is asked again");
    bench.run(&format!("{ASK} --work-dir job --overwrite")).expect(0).says("left in");
    foreign.assert_untouched("--overwrite");
    bench.run("check --work-dir job").expect(0);
}

#[test]
fn default_work_dir_keeps_foreign_files() {
    let server = Server::echo();
    let bench = bench(&server);
    let mut foreign = Foreign::default();
    let plan = ASK.replace("run in.jsonl -o out.jsonl", "plan in.jsonl");
    bench.run(&format!("{plan} --work-dir out.jsonl.rowmill")).expect(0);
    foreign.plant_all(&bench, "out.jsonl.rowmill");
    bench.run(&format!("{ASK} --resume")).expect(0).says("left in").says("journal.bak");
    foreign.assert_untouched("the run");
    assert!(!bench.exists("out.jsonl.rowmill/manifest.json"));
    // What is left is a work directory still.
    bench.run(&format!("{ASK} --resume")).expect(0);
    foreign.assert_untouched("the second run");
    assert_eq!(server.count(), 12);
}

#[test]
fn foreign_entry_under_our_name_stops_overwrite() {
    let server = Server::echo();
    let bench = bench(&server);
    bench.run(&format!("{ASK} --work-dir job")).expect(0);
    bench.write("elsewhere/00000/journal", "precious");
    fs::rename(bench.path("job/shards"), bench.path("moved")).unwrap();
    symlink(bench.path("elsewhere"), bench.path("job/shards")).unwrap();
    bench
        .run(&format!("{ASK} --work-dir job --overwrite"))
        .expect(73)
        .says("its shards is something");
    assert_eq!(bench.read("elsewhere/00000/journal"), "precious");
    assert!(bench.exists("job/manifest.json"), "nothing was removed");
}

#[test]
fn lock_beside_an_output_must_be_ours() {
    let server = Server::echo();
    let bench = bench(&server);
    bench.write(".out.jsonl.rowmill-lock", "precious");
    bench.run(ASK).expect(73).says("rowmill did not write it");
    assert_eq!(bench.read(".out.jsonl.rowmill-lock"), "precious");
    // As a crash leaves it.
    for text in ["", "{\"pi", "\0\0\0\0\0\0\0\0\0"] {
        bench.write(".out.jsonl.rowmill-lock", text);
        bench.run(&format!("{ASK} --overwrite")).expect(0);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn replaced_outputs_keep_mode_and_attributes() {
    let server = Server::start(|call| match call.prompt.ends_with('3') {
        true => Reply::status(400),
        false => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = bench(&server);
    let ask = format!(
        "{ASK} --work-dir job --error-output errors.jsonl --telemetry-output telemetry.jsonl --summary-output s.json"
    );
    bench.run(&ask).expect(3);
    let outputs = ["out.jsonl", "errors.jsonl", "telemetry.jsonl", "s.json"];
    let mut kept_note = false;
    for (name, mode) in outputs.into_iter().zip([0o600, 0o640, 0o604, 0o660]) {
        let path = bench.path(name);
        let no_flags = rustix::fs::XattrFlags::empty();
        kept_note = rustix::fs::setxattr(&path, "user.mine", b"note", no_flags).is_ok();
        set_mode(&path, mode);
        if is_root() {
            std::os::unix::fs::chown(&path, Some(1234), Some(2345)).unwrap();
        }
    }
    bench.run(&format!("{ask} --overwrite")).expect(3);
    for (name, mode) in outputs.into_iter().zip([0o600, 0o640, 0o604, 0o660]) {
        let path = bench.path(name);
        assert_eq!(mode_of(&path), mode, "{name}");
        let mut note = [0; 4];
        if kept_note {
            assert_eq!(rustix::fs::getxattr(&path, "user.mine", &mut note[..]), Ok(4), "{name}");
        }
        if is_root() {
            let meta = fs::metadata(&path).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (1234, 2345), "{name}");
        }
    }
}

#[test]
fn replaced_files_of_tools_keep_their_mode() {
    let server = Server::echo();
    let bench = bench(&server);
    bench.run("files sample in.jsonl -n 3 -o some.jsonl").expect(0);
    let fresh = mode_of(&bench.path("some.jsonl"));
    bench.write("plain", "");
    assert_eq!(fresh, mode_of(&bench.path("plain")), "a new file is like any other");
    set_mode(&bench.path("some.jsonl"), 0o640);
    bench.run("files sample in.jsonl -n 3 -o some.jsonl --overwrite").expect(0);
    assert_eq!(mode_of(&bench.path("some.jsonl")), 0o640);
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn state_of_others_is_refused_in_a_shared_directory() {
    let server = Server::echo();
    let bench = bench(&server);
    // A default work directory that everybody can write.
    bench.run(&format!("{ASK} --keep-work-dir")).expect(0);
    fs::remove_file(bench.path("out.jsonl")).unwrap();
    set_mode(&bench.path("out.jsonl.rowmill"), 0o777);
    set_mode(bench.root(), 0o777);
    let ended = bench.run(&format!("{ASK} --resume")).expect(73);
    ended.says("out.jsonl.rowmill can be written by everybody").says("chmod go-w");
    bench.run(&format!("{ASK} --resume --work-dir out.jsonl.rowmill")).expect(0);
    // An output whose answers would be taken over.
    fs::remove_dir_all(bench.path("out.jsonl.rowmill")).unwrap();
    set_mode(&bench.path("out.jsonl"), 0o666);
    bench.run(&format!("{ASK} --resume")).expect(73).says("out.jsonl can be written by everybody");
    set_mode(&bench.path("out.jsonl"), 0o644);
    bench.run(&format!("{ASK} --resume")).expect(0).says("took over 12 answers");
    // Where nobody else can write, nobody else put it there.
    set_mode(bench.root(), 0o700);
    set_mode(&bench.path("out.jsonl"), 0o666);
    bench.run(&format!("{ASK} --resume")).expect(0);
    assert_eq!(server.count(), 12);
    if !is_root() {
        eprintln!("SKIPPED: only root can give files to others");
        return;
    }
    set_mode(bench.root(), 0o1777);
    std::os::unix::fs::chown(bench.path("out.jsonl"), Some(1234), None).unwrap();
    bench.run(&format!("{ASK} --resume")).expect(73).says("out.jsonl belongs to another user");
    symlink(bench.path("precious"), bench.path("link.jsonl")).unwrap();
    std::os::unix::fs::lchown(bench.path("link.jsonl"), Some(1234), None).unwrap();
    let ask = ASK.replace("out.jsonl", "link.jsonl");
    for option in ["", "--overwrite"] {
        bench.run(&format!("{ask} {option}")).expect(73).says("symbolic link of another user");
    }
    assert!(!bench.exists("precious"));
}

#[test]
fn dangling_links_are_followed_with_overwrite() {
    let server = Server::echo();
    let bench = bench(&server);
    fs::create_dir(bench.path("real")).unwrap();
    symlink("real/new.jsonl", bench.path("second.jsonl")).unwrap();
    symlink("second.jsonl", bench.path("out.jsonl")).unwrap();
    bench.run(&format!("{ASK} --overwrite")).expect(0);
    assert!(bench.path("out.jsonl").is_symlink() && bench.path("second.jsonl").is_symlink());
    assert_eq!(bench.lines("real/new.jsonl").len(), 12);
}
