//! Where outputs may go, and what happens when the disk says no.
//!
//! Tests that need a file system of their own make one in a mount namespace of their own; where that
//! is not allowed they say so and pass.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};

use crate::support::server::{Reply, Server, answer_to};
use crate::support::{Bench, CANARY, rows};

const ASK: &str = "run in.jsonl --id-field id -p {{text}} -m m";

#[test]
fn a_link_is_followed_and_stays_a_link() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    bench.write("real/old.jsonl", "old");
    symlink("real/old.jsonl", bench.path("link.jsonl")).unwrap();
    symlink("real/new.jsonl", bench.path("dangling.jsonl")).unwrap();
    symlink("nowhere/new.jsonl", bench.path("lost.jsonl")).unwrap();
    bench.run(&format!("{ASK} -o link.jsonl")).expect(73);
    bench.run(&format!("{ASK} -o link.jsonl --overwrite")).expect(0);
    assert!(bench.path("link.jsonl").is_symlink());
    assert_eq!(bench.lines("real/old.jsonl").len(), 3);
    bench.run(&format!("{ASK} -o dangling.jsonl")).expect(0);
    assert_eq!(bench.lines("real/new.jsonl").len(), 3);
    assert!(bench.path("dangling.jsonl").is_symlink());
    bench.run(&format!("{ASK} -o lost.jsonl")).expect(73).says("is not there");
    bench.run(&format!("{ASK} -o real")).expect(73).says("is a directory");
    for place in ["-o new/", "-o new/.", "-o real/", "-o new.jsonl --summary-output new/"] {
        let ended = bench.run(&format!("{ASK} {place}")).expect(2);
        ended.says("names a directory: those are for several inputs");
        for name in ["new", "new.jsonl", "new.rowmill", "new.jsonl.rowmill", "real/.rowmill"] {
            assert!(!bench.exists(name), "{place} made {name}");
        }
    }
    bench.run(&format!("{ASK} -o no/such/dir/out.jsonl")).expect(73);
    let calls = server.count();
    assert_eq!(calls, 6);
    let left: Vec<_> = fs::read_dir(bench.path("real")).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "nothing is left beside the outputs: {left:?}");
}

#[test]
fn a_name_that_cannot_be_staged_is_told_before_any_call() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    let name = |length: usize| "x".repeat(length - 6) + ".jsonl";
    bench.write(&format!("many/{}", name(240)), rows(1));
    for (words, place) in [
        ("run in.jsonl", format!("-o {}", name(240))),
        ("run in.jsonl", format!("-o out.jsonl --summary-output {}", name(228))),
        ("run many", "-o outs".to_owned()),
        ("run many", "-o outs/deeper".to_owned()),
    ] {
        let ask = ASK.replace("run in.jsonl", words);
        assert!(ask.contains(words));
        bench
            .run(&format!("{ask} --work-dir job {place}"))
            .expect(73)
            .says("bytes, and may have 227");
        for made in ["job", "outs", "out.jsonl", name(240).as_str()] {
            assert!(!bench.exists(made), "{made}");
        }
    }
    assert_eq!(server.count(), 0);
    // Whatever is below that can be published.
    bench.run(&format!("{ASK} --work-dir job -o {}", name(227))).expect(0);
    assert_eq!(bench.lines(&name(227)).len(), 3);
}

#[test]
fn an_output_may_be_neither_the_input_nor_another_output() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    fs::hard_link(bench.path("in.jsonl"), bench.path("twin.jsonl")).unwrap();
    symlink("in.jsonl", bench.path("link.jsonl")).unwrap();
    for output in ["in.jsonl", "./in.jsonl", "twin.jsonl", "link.jsonl"] {
        for option in ["", "--overwrite", "--resume"] {
            let ask = format!("{ASK} -o {output} {option}");
            bench.run(&ask).expect(2).says("--output must not be the input");
        }
        let ask = format!("{ASK} -o out.jsonl --summary-output {output} --overwrite");
        bench.run(&ask).expect(2).says("--summary-output must not be the input");
    }
    bench
        .run(&format!("{ASK} -o out.jsonl --error-output ./out.jsonl"))
        .expect(2)
        .says("--error-output must not be the file of --output");
    bench.write("prompt.txt", "{{text}}");
    let ask = ASK.replace("-p {{text}}", "");
    for option in ["--template", "--instruction", "--api-key-file"] {
        let ask = format!("{ask} {option} prompt.txt -o prompt.txt --overwrite");
        bench.run(&ask).expect(2).says(&format!("--output must not be the file of {option}"));
    }
    assert_eq!(bench.read("prompt.txt"), "{{text}}");
    bench.run(&format!("{ASK} -o out.jsonl --telemetry-output -")).expect(2);
    fs::create_dir(bench.path("job")).unwrap();
    bench
        .run(&format!("{ASK} -o job/out.jsonl --work-dir job"))
        .expect(2)
        .says("must not be in the work directory");
    assert_eq!(bench.read("in.jsonl"), rows(3));
    assert_eq!(server.count(), 0);
}

#[test]
fn devices_and_pipes_take_outputs_as_they_come() {
    let bench = Bench::new();
    bench.write("in.jsonl", rows(3));
    let ask = "run in.jsonl -p {{text}} -m passthrough";
    bench.run(&format!("{ask} -o /dev/null")).expect(0);
    let fifo = bench.path("pipe");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let reader = std::thread::spawn(move || fs::read_to_string(fifo).unwrap());
    bench.run(&format!("{ask} -o pipe")).expect(0);
    assert_eq!(reader.join().unwrap().lines().count(), 3);
    // A reader that goes away is an I/O error, and the rows are kept.
    bench.write("many.jsonl", rows(50_000));
    let script = format!(
        "{} run many.jsonl -o - -p x --allow-constant-prompt -m passthrough --work-dir job 2>err | head -n 1 >/dev/null; \
         echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_rowmill")
    );
    let output =
        Command::new("bash").args(["-c", &script]).current_dir(bench.root()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "74", "{}", bench.read("err"));
    bench.run("merge --work-dir job -o out.jsonl --no-final-summary").expect(0);
    assert_eq!(bench.lines("out.jsonl").len(), 50_000);
}

#[test]
fn state_is_private_and_outputs_are_as_the_umask_says() {
    let server = Server::start(|call| match call.prompt.as_str() {
        "text 3" => Reply::status(400),
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    let script = format!(
        "umask 000; exec {} {} -o out.jsonl",
        env!("CARGO_BIN_EXE_rowmill"),
        ASK.replace("{{text}}", "'{{text}}'")
    );
    let mut command = bench.command([""]);
    let env: Vec<_> =
        command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    command = Command::new("sh");
    command.args(["-c", &script]).current_dir(bench.root()).envs(env);
    assert_eq!(command.output().unwrap().status.code(), Some(3));
    let mode = |name: &str| fs::metadata(bench.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("out.jsonl"), 0o666);
    assert_eq!(mode("out.jsonl.rowmill"), 0o700);
    for file in bench.snapshot().keys().filter(|path| path.to_string_lossy().contains(".rowmill/"))
    {
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        // sled makes its own files; the directory around them is private.
        let is_sled = file.to_string_lossy().contains("/checkpoint/");
        assert!(mode == 0o600 || is_sled, "{} has {mode:o}", file.display());
    }
}

/// Runs a script in a mount namespace of its own; nothing where that is not allowed.
fn in_namespace(bench: &Bench, script: &str) -> Option<Output> {
    let probe =
        Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: mounting in a namespace of one's own is not allowed here");
        return None;
    }
    let script =
        script.replace("ROWMILL", env!("CARGO_BIN_EXE_rowmill")).replace("{{text}}", "'{{text}}'");
    let mut command = bench.command([""]);
    let env: Vec<_> =
        command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    command = Command::new("unshare");
    command.args(["-m", "bash", "-c", &script]).current_dir(bench.root()).envs(env);
    Some(command.env("OPENAI_API_KEY", CANARY).output().unwrap())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn an_output_may_be_on_another_file_system() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(20));
    fs::create_dir(bench.path("other")).unwrap();
    let script = format!(
        "mount -t tmpfs none other && ROWMILL {ASK} -o other/out.jsonl --work-dir job \
         --summary-output s.json && wc -l < other/out.jsonl && ls -A other"
    );
    let Some(output) = in_namespace(&bench, &script) else { return };
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("20\nout.jsonl\n"), "{}", text(&output));
}

#[test]
fn a_read_only_place_is_told_before_any_call() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(20));
    fs::create_dir(bench.path("ro")).unwrap();
    for options in [
        "-o out.jsonl --work-dir ro/job",
        "-o out.jsonl --work-dir ro",
        "-o ro/out.jsonl --work-dir job",
    ] {
        let script = format!(
            "mount -t tmpfs -o ro none ro && ROWMILL {ASK} {options}; code=$?; test -e job && code=$code-job; echo code $code"
        );
        let Some(output) = in_namespace(&bench, &script) else { return };
        assert!(text(&output).contains("code 73\n"), "{options}: {}", text(&output));
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn status_and_check_work_on_a_read_only_work_dir() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(20));
    bench.run(&format!("{ASK} -o out.jsonl --work-dir job")).expect(0);
    let script = "mount --bind job job && mount -o remount,bind,ro job && \
                  ROWMILL status --work-dir job && ROWMILL check --work-dir job; echo code $?";
    let Some(output) = in_namespace(&bench, script) else { return };
    assert!(text(&output).contains("20 ok"), "{}", text(&output));
    assert!(text(&output).contains("code 0\n"), "{}", text(&output));
}

#[test]
fn a_full_disk_ends_the_run_and_room_lets_it_go_on() {
    let server =
        Server::start(|call| Reply::Answer(format!("{} {}", call.prompt, "x".repeat(4000))));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(300));
    fs::create_dir(bench.path("small")).unwrap();
    // First the journals fill the disk, then the output does.
    for (work_dir, out) in [("small/job", "out.jsonl"), ("job2", "small/out.jsonl")] {
        let before = server.count();
        let ask = format!(
            "ROWMILL {ASK} -o {out} --work-dir {work_dir} -c 4 --resume --no-final-summary"
        );
        let script = format!(
            "mount -t tmpfs -o size=900k none small && {ask}; echo first $?; ls -A small; \
             test -e out.jsonl -o -e small/out.jsonl && echo published; \
             mount -o remount,size=8m small && {ask}; echo second $?; wc -l < {out}"
        );
        let Some(output) = in_namespace(&bench, &script) else { return };
        let text = text(&output);
        assert!(text.contains("first 74\n"), "{text}");
        assert!(text.contains("make room, then: rowmill run"), "{text}");
        assert!(!text.contains("published"), "{text}");
        assert!(text.contains("second 0\n300\n"), "{text}");
        let repeated = server.count() - before - 300;
        assert!(repeated <= 4, "{repeated} calls were repeated");
        let _ = fs::remove_file(bench.path("out.jsonl"));
    }
}

#[test]
fn a_limit_on_file_sizes_is_an_io_error_not_a_death() {
    let server =
        Server::start(|call| Reply::Answer(format!("{} {}", call.prompt, "x".repeat(4000))));
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(100));
    let script =
        format!("ulimit -f 100; {} {ASK} -o out.jsonl -c 4", env!("CARGO_BIN_EXE_rowmill"));
    let mut command = bench.command([""]);
    let env: Vec<_> =
        command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    command = Command::new("bash");
    command
        .args(["-c", &script.replace("{{text}}", "'{{text}}'")])
        .current_dir(bench.root())
        .envs(env);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(74), "{}", text(&output));
    bench.run(&format!("{ASK} -o out.jsonl --resume")).expect(0);
    assert!(server.count() <= 104);
}

#[test]
fn with_resume_what_went_to_standard_output_is_written_again_without_a_call() {
    let server = Server::echo();
    let bench = Bench::with_server(&server);
    bench.write("in.jsonl", rows(3));
    bench.write("prompts.jsonl", "{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n");
    let rows = (format!("{ASK} -o -"), "in.jsonl.rowmill", 3);
    let prompts = ("run prompts.jsonl -m m".to_owned(), "prompts.jsonl.rowmill", 2);
    for (ask, work_dir, count) in [rows, prompts] {
        let before = server.count();
        let first = bench.run(&format!("{ask} --resume")).expect(0);
        assert_eq!((first.stdout.lines().count(), server.count() - before), (count, count));
        assert!(bench.exists(work_dir), "{ask}");
        let again = bench.run(&format!("{ask} --resume")).expect(0);
        assert_eq!((again.stdout, server.count() - before), (first.stdout, count), "{ask}");
        bench.run(&format!("{ask} --overwrite")).expect(0);
        assert_eq!(server.count() - before, 2 * count, "{ask}");
        assert!(!bench.exists(work_dir), "without --resume it goes");
    }
}
