//! The jobs that are disturbed: what was there before, the command that is disturbed, the command
//! that goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::site::{Ended, Manners, Model, PROMPT, Site, answer_of};

/// A small job.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    pub name: &'static str,
    /// What is run before, undisturbed: rows of the input, command, its exit code, the server.
    pub before: &'static [(u64, &'static str, i32, Manners)],
    /// Rows of the input when the command is disturbed.
    pub rows: u64,
    /// The row without a prompt, which fails without a call.
    pub bad_row: Option<u64>,
    /// The command that is disturbed.
    pub command: &'static str,
    /// The command that goes on after it.
    pub resume: &'static str,
    /// How it ends when all is done.
    pub code: i32,
    /// Whether answers that were there before the disturbance must stay.
    pub keeps_answers: bool,
    /// How many different things the rows ask; nothing where each asks its own.
    pub questions: Option<u64>,
    /// The rows that take another's answer.
    pub twins: u64,
    /// The models, each by the name that is put to its answers, and how often each is asked.
    pub models: &'static [&'static str],
    pub repeat: u64,
    /// Whether its rows are lines of a request file that say themselves what is asked.
    pub is_requests: bool,
    /// How many uploads are refused for a while before one is taken.
    pub busy: u64,
    /// The quick part meets each so-manieth point.
    pub step: u64,
}

/// Calls in flight at most.
pub const CONCURRENCY: u64 = 4;

/// What the capital words in a scene's commands stand for.
const WORDS: [(&str, &str); 10] = [
    ("JOB", "FEW --shard-rows 7"),
    ("FEW", "in.jsonl -m mock ASK"),
    ("REQUESTS", "--skip-bad-lines --shard-rows 7 --no-progress"),
    ("FETCHED", "DEPOT/in.jsonl?SIGNED -m mock ASK --shard-rows 7"),
    ("ASK", "--id-field id --template prompt.txt --no-progress"),
    ("PACE", "--parallel 2 -c 4"),
    (
        "OUTPUTS",
        "-o out.jsonl --error-output err.jsonl --telemetry-output tel.jsonl --summary-output sum.json",
    ),
    (
        "TWO_AWAY",
        "-o DEPOT/out.jsonl?SIGNED --error-output err.jsonl \
         --telemetry-output DEPOT/tel.jsonl?SIGNED --summary-output sum.json",
    ),
    (
        "ALL_AWAY",
        "-o DEPOT/out.jsonl?SIGNED --error-output DEPOT/err.jsonl?SIGNED \
         --telemetry-output DEPOT/tel.jsonl?SIGNED --summary-output DEPOT/sum.json?SIGNED",
    ),
    ("SIGNED", "X-Amz-Signature=sig-canary-4b8e2a"),
];

/// A scene's command with its capital words spelled out.
pub fn spelled(line: &str) -> String {
    WORDS.iter().fold(line.to_owned(), |line, (word, meaning)| line.replace(word, meaning))
}

/// What most scenes have in common, which is also the first of them.
pub const RUN: Scene = Scene {
    name: "run",
    before: &[],
    rows: 20,
    bad_row: None,
    command: "run JOB PACE OUTPUTS",
    resume: "run JOB PACE OUTPUTS --resume",
    code: 0,
    keeps_answers: true,
    questions: None,
    twins: 0,
    models: &["mock"],
    repeat: 1,
    is_requests: false,
    busy: 0,
    step: 21,
};

/// All of them.
pub const SCENES: &[Scene] = &[
    RUN,
    Scene {
        name: "run, a row that fails, named work dir, --durability seal",
        bad_row: Some(13),
        command: "run JOB PACE OUTPUTS --work-dir wd --durability seal",
        resume: "run JOB PACE OUTPUTS --work-dir wd --durability seal --resume",
        code: 3,
        ..RUN
    },
    Scene {
        name: "plan",
        command: "plan JOB --work-dir wd",
        resume: "run JOB PACE OUTPUTS --work-dir wd --resume",
        ..RUN
    },
    Scene {
        name: "merge",
        before: &[
            (20, "plan JOB --work-dir wd", 0, Manners::Good),
            (20, "work --work-dir wd -c 4 --no-progress --base-url HERE", 0, Manners::Good),
        ],
        command: "merge --work-dir wd OUTPUTS",
        resume: "merge --work-dir wd OUTPUTS",
        ..RUN
    },
    Scene {
        name: "resume of a resume",
        before: &[
            (20, "run JOB PACE OUTPUTS --work-dir wd", 77, Manners::RefusesAfter(6)),
            (20, "run JOB PACE OUTPUTS --work-dir wd --resume", 77, Manners::RefusesAfter(5)),
        ],
        bad_row: Some(13),
        command: "run JOB PACE OUTPUTS --work-dir wd --resume",
        resume: "run JOB PACE OUTPUTS --work-dir wd --resume",
        code: 3,
        ..RUN
    },
    Scene {
        name: "publishing again",
        before: &[(20, "run JOB PACE OUTPUTS", 3, Manners::FailsRow(5))],
        command: "run JOB PACE OUTPUTS --resume",
        resume: "run JOB PACE OUTPUTS --resume",
        ..RUN
    },
    Scene {
        name: "the next generation, over more rows",
        before: &[
            (12, "run JOB PACE OUTPUTS --work-dir wd", 3, Manners::FailsRow(5)),
            (
                14,
                "run JOB PACE OUTPUTS --work-dir wd --resume --on-change update",
                0,
                Manners::Good,
            ),
        ],
        command: "run JOB PACE OUTPUTS --work-dir wd --resume --on-change update",
        resume: "run JOB PACE OUTPUTS --work-dir wd --resume --on-change update",
        ..RUN
    },
    Scene {
        name: "what is left, spread over more shards",
        before: &[(
            20,
            "run FEW --shards 2 PACE OUTPUTS --work-dir wd",
            77,
            Manners::RefusesAfter(8),
        )],
        bad_row: Some(13),
        command: "run FEW --shards 5 PACE OUTPUTS --work-dir wd --resume",
        resume: "run FEW --shards 5 PACE OUTPUTS --work-dir wd --resume",
        code: 3,
        ..RUN
    },
    Scene {
        name: "answers taken over from an output",
        before: &[(12, "run JOB PACE OUTPUTS", 0, Manners::Good)],
        command: "run JOB PACE OUTPUTS --resume",
        resume: "run JOB PACE OUTPUTS --resume",
        ..RUN
    },
    Scene {
        name: "overwriting",
        before: &[(12, "run JOB PACE OUTPUTS --temperature 0.5", 0, Manners::Good)],
        command: "run JOB PACE OUTPUTS --overwrite",
        resume: "run JOB PACE OUTPUTS --overwrite",
        keeps_answers: false,
        ..RUN
    },
    Scene {
        name: "rows that ask the same",
        bad_row: Some(13),
        command: "run JOB PACE OUTPUTS --work-dir wd --dedupe",
        resume: "run JOB PACE OUTPUTS --work-dir wd --dedupe --resume",
        code: 3,
        questions: Some(6),
        // Of 14 rows that ask what others ask, the bad one is no request.
        twins: 13,
        step: 53,
        ..RUN
    },
    Scene {
        name: "more rows that ask the same, and one that failed",
        before: &[(12, "run JOB PACE OUTPUTS --work-dir wd --dedupe", 3, Manners::FailsRow(5))],
        command: "run JOB PACE OUTPUTS --work-dir wd --dedupe --resume --on-change update",
        resume: "run JOB PACE OUTPUTS --work-dir wd --dedupe --resume --on-change update",
        questions: Some(6),
        // A row that is new and asks what failed before is called for itself.
        twins: 13,
        step: 53,
        ..RUN
    },
    Scene {
        name: "two models, two answers of each",
        rows: 8,
        bad_row: Some(3),
        command: "run FEW -m other --repeat 2 --shard-rows 4 PACE OUTPUTS --work-dir wd",
        resume: "run FEW -m other --repeat 2 --shard-rows 4 PACE OUTPUTS --work-dir wd --resume",
        code: 3,
        models: &["mock", "other"],
        repeat: 2,
        step: 89,
        ..RUN
    },
    Scene {
        name: "a pool of two endpoints",
        command: "run in.jsonl -m pool.pair ASK --shard-rows 7 PACE OUTPUTS --work-dir wd",
        resume: "run in.jsonl -m pool.pair ASK --shard-rows 7 PACE OUTPUTS --work-dir wd --resume",
        step: 53,
        ..RUN
    },
    Scene {
        name: "a request file, one line of which is none",
        bad_row: Some(13),
        // The names of lines in its own dialect are of the run: envelopes are the same each time.
        command: "run in.jsonl REQUESTS PACE OUTPUTS --output-format rows --work-dir wd",
        resume: "run in.jsonl REQUESTS PACE OUTPUTS --output-format rows --work-dir wd --resume",
        code: 3,
        is_requests: true,
        step: 53,
        ..RUN
    },
    Scene {
        name: "an input at a URL, half of which had come",
        before: &[(20, "run FETCHED PACE OUTPUTS --work-dir wd", 66, Manners::ShutAway)],
        command: "run FETCHED PACE OUTPUTS --work-dir wd --resume",
        resume: "run FETCHED PACE OUTPUTS --work-dir wd --resume",
        step: 43,
        ..RUN
    },
    Scene {
        name: "two outputs at URLs",
        command: "run JOB PACE TWO_AWAY --work-dir wd",
        resume: "run JOB PACE TWO_AWAY --work-dir wd --resume",
        step: 43,
        ..RUN
    },
    Scene {
        name: "uploads that wait, and are refused twice",
        before: &[(20, "run JOB PACE ALL_AWAY --work-dir wd", 74, Manners::ShutAway)],
        bad_row: Some(13),
        command: "run JOB PACE ALL_AWAY --work-dir wd --resume",
        resume: "run JOB PACE ALL_AWAY --work-dir wd --resume",
        code: 3,
        busy: 2,
        step: 9,
        ..RUN
    },
];

/// The outputs of every scene.
pub const OUTPUTS: [&str; 4] = ["out.jsonl", "err.jsonl", "tel.jsonl", "sum.json"];

/// What an undisturbed run of a scene comes to.
#[derive(Debug, Clone)]
pub struct Golden {
    pub output: Vec<u8>,
    pub errors: Vec<u8>,
    /// The calls that the command must make.
    pub calls: BTreeMap<String, u64>,
    pub names: BTreeSet<String>,
}

impl Scene {
    pub fn named(name: &str) -> &'static Self {
        SCENES.iter().find(|scene| scene.name == name).expect("a scene of that name")
    }

    /// The first row that asks what this row asks.
    fn asker(&self, row: u64) -> u64 {
        self.questions.map_or(row, |questions| (row - 1) % questions + 1)
    }

    /// The rows of its input. Prompts begin with the id of the first row that asks this.
    fn input(&self, rows: u64) -> String {
        let line = |row: u64| {
            let asker = self.asker(row);
            match self.bad_row {
                Some(bad) if bad == row && self.is_requests => {
                    format!("{{\"custom_id\":\"r{row}\",\"method\":\"POST\",\"body\":{{}}}}\n")
                }
                Some(bad) if bad == row => format!("{{\"id\":\"r{row}\"}}\n"),
                _ if self.is_requests => format!(
                    "{{\"custom_id\":\"r{row}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\
                     \"body\":{}}}\n",
                    body(&format!("r{row}"))
                ),
                _ => format!("{{\"id\":\"r{row}\",\"text\":\"r{asker} {PROMPT} {asker}\"}}\n"),
            }
        };
        (1..=rows).map(line).collect()
    }

    /// Whether bodies are those of the request file, byte for byte.
    pub fn is_sent_as_it_is(&self, id: &str, sent: &[u8]) -> bool {
        !self.is_requests || sent == body(id).as_bytes()
    }

    /// Whether its input is at a URL.
    fn fetches(&self) -> bool {
        self.command.contains("FETCHED")
    }

    fn write_input(&self, site: &Site, rows: u64) {
        match self.fetches() {
            true => site.away.provide("in.jsonl", &self.input(rows)),
            false => fs::write(site.path("in.jsonl"), self.input(rows)).expect("a disk"),
        }
    }

    /// Answers to a row.
    pub fn variants(&self) -> u64 {
        self.models.len() as u64 * self.repeat
    }

    /// The answers of an output: the row's id and what is answered.
    fn answers(&self) -> Vec<(String, String)> {
        let mut answers = Vec::new();
        for row in (1..=self.rows).filter(|row| Some(*row) != self.bad_row) {
            for model in self.models {
                let answer =
                    (format!("r{row}"), answer_of(&format!("r{}", self.asker(row)), model));
                answers.extend((0..self.repeat).map(|_| answer.clone()));
            }
        }
        answers
    }

    /// Puts into an empty site what is there before the command, and keeps a copy of it beside the
    /// site.
    pub fn prepare(&self, site: &Site) {
        site.clear();
        fs::write(site.path("prompt.txt"), "{{text}}").expect("a disk");
        for (rows, line, code, manners) in self.before {
            self.write_input(site, *rows);
            site.away.shut(*manners == Manners::ShutAway);
            let ended = site.run(line, &Model::start(*manners));
            assert_eq!(ended.code, *code, "before {}: {}", self.name, ended.said);
        }
        self.write_input(site, self.rows);
        site.away.keep(self.busy);
        let copy = site.copy();
        let _ = fs::remove_dir_all(&copy);
        copy_tree(&site.root, &copy);
    }

    /// Brings the site back to what was there before the command.
    pub fn restore(&self, site: &Site) {
        site.clear();
        site.away.restore();
        let copy = site.copy();
        for name in fs::read_dir(copy).expect("it was prepared").flatten() {
            copy_tree(&name.path(), &site.root.join(name.file_name()));
        }
    }

    /// Runs the scene undisturbed, in a site where it was prepared.
    pub fn golden(&self, site: &Site) -> Golden {
        let model = Model::start(Manners::Good);
        let last =
            |ended: Ended| assert_eq!(ended.code, self.code, "{}: {}", self.name, ended.said);
        if self.command == self.resume
            || self.before.is_empty() && !self.command.starts_with("plan")
        {
            last(site.run(self.command, &model));
        } else {
            assert_eq!(site.run(self.command, &model).code, 0, "{}", self.name);
            last(site.run(self.resume, &model));
        }
        let output = site.output("out.jsonl").expect("an output");
        assert_eq!(answers_in(&output), self.answers(), "{}", self.name);
        Golden {
            output,
            errors: site.output("err.jsonl").expect("an output"),
            calls: model.calls(),
            names: site.names(),
        }
    }
}

/// The body of a request, in a spelling that nobody would give it who wrote it anew.
fn body(id: &str) -> String {
    format!(
        "{{ \"messages\":[{{\"role\":\"user\",\"content\":\"{id} {PROMPT} caf\\u00e9 \\/\"}}],\
         \"model\":\"mock\", \"top_p\":0.50,\"seed\":900719925474099312345,\"top_p\":1.0}}"
    )
}

/// The answers of an output, each with its row's id.
fn answers_in(output: &[u8]) -> Vec<(String, String)> {
    let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines = lines.map(|line| serde_json::from_slice::<Value>(line).expect("an envelope"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let answer = |result: &Value| match result {
        Value::Object(body) => text(&body["choices"][0]["message"]["content"]),
        result => text(result),
    };
    let ok = lines.filter(|line| line["ok"] == true);
    ok.map(|it| (text(&it["id"]), answer(&it["result"]))).collect()
}

/// Copies a file or a directory with times and attributes.
pub fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}
