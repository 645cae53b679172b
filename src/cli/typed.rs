//! The command line as it was typed, and what can be typed next.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::links::shown as shown_word;
use crate::http::Link;
use crate::pipeline::is_of_fast_agent;
use crate::telemetry::{hide_command_secrets, is_secret_name, is_unsafe};

/// The command line as it was typed, for hints.
pub(super) struct Typed<'a>(pub(super) &'a [OsString]);

impl Typed<'_> {
    /// As it was.
    pub(super) fn again(&self) -> String {
        self.with(&[], None)
    }

    /// With `--resume`, and without what contradicts it.
    pub(super) fn resumed(&self) -> String {
        // Only `run` has to be told to go on.
        if self.0.get(1).is_none_or(|command| command != "run") {
            self.with(&["--overwrite"], None)
        } else {
            self.with(&["--overwrite"], Some("--resume"))
        }
    }

    /// The command that publishes what is done of this one's work directory.
    pub(super) fn partial(&self) -> String {
        let output = self.output().filter(|output| output != "-" && !Link::is_meant(output));
        let output = output.map_or_else(|| "FILE".to_owned(), |output| quoted(&output));
        format!("rowmill merge --work-dir {} --partial -o {output}", self.work_dir())
    }

    /// The value of an option, where it is given.
    fn named(&self, option: &str) -> Option<String> {
        let words: Vec<_> = self.0.iter().map(|word| word.to_string_lossy()).collect();
        let behind = |at: usize| words.get(at + 1).map(|word| word.to_string());
        words.iter().position(|word| *word == option).and_then(behind).or_else(|| {
            let with = format!("{option}=");
            words.iter().find_map(|word| word.strip_prefix(&with).map(str::to_owned))
        })
    }

    /// The output that the command line names.
    fn output(&self) -> Option<String> {
        self.named("-o").or_else(|| self.named("--output"))
    }

    /// The work directory that the command line names, for hints.
    pub(super) fn work_dir(&self) -> String {
        let named = |option: &str| self.named(option);
        let output = || self.output();
        let beside = || {
            output().map(|it| {
                shown_word(&it).trim_end_matches("?…").trim_end_matches('/').to_owned() + ".rowmill"
            })
        };
        let in_place = |it: String| {
            let name = Path::new(&it).file_name();
            match Link::is_meant(&it) {
                true => name.unwrap_or("output.rowmill".as_ref()).to_string_lossy().into_owned(),
                false => it,
            }
        };
        // Beside one of fast-agent's there is one of rowmill's.
        let is_ours = |dir: &String| !is_of_fast_agent(Path::new(dir));
        let dir = named("--work-dir").filter(is_ours).or_else(|| beside().map(in_place));
        dir.map_or_else(|| "DIR".to_owned(), |dir| quoted(&dir))
    }

    /// With `--overwrite`, and without what contradicts it.
    pub(super) fn overwriting(&self) -> String {
        self.with(&["--resume"], Some("--overwrite"))
    }

    /// What to do where this command is not what was planned; `is_of_identity` says that rows are told
    /// apart by something else, so that no update can keep their answers.
    pub(super) fn drifted(&self, is_of_identity: bool) -> String {
        let words = self.without("--on-change");
        let plain = Typed(&words);
        let (update, anew) = (plain.resumed(), plain.overwriting());
        match is_of_identity {
            true => format!(
                "give the same input and options as before; or name another output and another \
                 --work-dir (no answer can be kept: rows are told apart by something else now); or begin \
                 anew: {anew}"
            ),
            false => format!(
                "give the same input and options as before; or ask what is new and keep the other \
                 answers: {update} --on-change update; or begin anew: {anew}"
            ),
        }
    }

    /// What tells how the command is used.
    pub(super) fn help(&self) -> String {
        let word = |at: usize| {
            self.0.get(at).map(|word: &OsString| word.to_string_lossy()).unwrap_or_default()
        };
        match &*word(1) {
            "files" => format!("rowmill files {} --help", word(2)),
            command => format!("rowmill {command} --help"),
        }
    }

    /// The words without an option and its value.
    pub(super) fn without(&self, option: &str) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut is_value = false;
        for word in self.0 {
            let text = word.to_string_lossy();
            let is_option = text == option;
            let is_both = text.strip_prefix(option).is_some_and(|rest| rest.starts_with('='));
            if !std::mem::replace(&mut is_value, is_option) && !is_option && !is_both {
                words.push(word.clone());
            }
        }
        words
    }

    /// As it was, without some words, and with another if it is not there.
    pub(super) fn with(&self, without: &[&str], with: Option<&str>) -> String {
        let mut words: Vec<String> = vec!["rowmill".to_owned()];
        let mut is_there = false;
        let mut before = "";
        for word in self.0.iter().skip(1) {
            let Some(text) = word.to_str() else {
                words.push(quoted_bytes(word.as_bytes()));
                continue;
            };
            if without.contains(&text) {
                continue;
            }
            is_there |= with == Some(text);
            let is_serve = before == "--serve" || text.starts_with("--serve=");
            let shown = match is_secret_name(before) && before.starts_with("--") {
                true => "…".into(),
                false if is_serve => hide_command_secrets(text).into(),
                false => shown_word(text),
            };
            words.push(quoted(&shown));
            before = text;
        }
        if let Some(with) = with.filter(|_| !is_there) {
            words.push(with.to_owned());
        }
        words.join(" ")
    }
}

/// A word as a shell takes it for one: pasted, it is the same word.
pub(super) fn quoted(word: &str) -> String {
    quoted_bytes(word.as_bytes())
}

/// As [`quoted`]; what is no text, or would move a terminal, is spelled in octal as `$'…'` has it.
fn quoted_bytes(word: &[u8]) -> String {
    let is_plain = |c: &u8| c.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(c);
    let text = std::str::from_utf8(word).ok();
    match text.filter(|text| !text.chars().any(is_unsafe)) {
        Some(text) if word.iter().all(is_plain) && !matches!(word.first(), None | Some(b'=')) => {
            text.to_owned()
        }
        Some(text) => format!("'{}'", text.replace('\'', r"'\''")),
        None => format!("$'{}'", spelled(word)),
    }
}

/// A word as it stands within `$'…'`.
fn spelled(word: &[u8]) -> String {
    let mut out = String::with_capacity(word.len() + 16);
    for chunk in word.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\'' | '\\' => out.extend(['\\', character]),
                _ if is_unsafe(character) => {
                    push_octal(&mut out, character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => out.push(character),
            }
        }
        push_octal(&mut out, chunk.invalid());
    }
    out
}

fn push_octal(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\{byte:03o}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_word_is_same_word_in_shell() {
        let long = "x \n".repeat(1000);
        let words: [&[u8]; 14] = [
            b"plain-1.0/a:b=c",
            b"",
            b"=ls",
            b"a b",
            b"it's \"x\" $HOME `id` \\ !",
            b"Judge this:\n{{text}}\n",
            b"tab\there",
            b"\x1b[1mbold\x7f9",
            "Gr\u{f6}\u{df}e \u{1f600}".as_bytes(),
            "One\u{2028}two\u{202e}7".as_bytes(),
            "both ' and \\ and \n".as_bytes(),
            b"no text \xff\xfe1",
            b"\r\n",
            long.as_bytes(),
        ];
        for word in words {
            let quoted = quoted_bytes(word);
            assert!(!quoted.chars().any(is_unsafe), "{quoted}");
            let script = format!("printf %s {quoted}");
            // No locale: what a terminal shows must not decide what a word is.
            let mut shell = std::process::Command::new("bash");
            let said = shell.args(["-c", &script]).env_clear().output().unwrap().stdout;
            assert_eq!(said, word, "{quoted}");
        }
    }

    #[test]
    fn hints_can_be_typed() {
        let words: Vec<OsString> =
            ["/usr/bin/rowmill", "run", "a b.jsonl", "-p", "it's {{x}}", "--overwrite"]
                .map(OsString::from)
                .to_vec();
        let typed = Typed(&words);
        assert_eq!(typed.resumed(), r"rowmill run 'a b.jsonl' -p 'it'\''s {{x}}' --resume");
        let words = ["rowmill", "run", "--deadline", "06:00", "in", "--deadline=1h", "--x"];
        let words = words.map(OsString::from);
        assert_eq!(Typed(&words).without("--deadline"), ["rowmill", "run", "in", "--x"]);
        assert_eq!(typed.overwriting(), r"rowmill run 'a b.jsonl' -p 'it'\''s {{x}}' --overwrite");
    }
}
