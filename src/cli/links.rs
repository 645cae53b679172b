//! URLs on the command line. What is secret in them, as in pre-signed ones, is taken out of the
//! arguments before anything else looks at these, and is never shown.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::args::{Cli, Command, FilesCommand, InputArgs, OutputArgs};
use crate::http::{Link, hide_query};
use crate::pipeline::Error;

impl Cli {
    /// Takes the URLs out of the arguments, and leaves there what may be shown of them.
    ///
    /// # Errors
    /// When one is none, or stands where none can be.
    pub(super) fn take_links(&mut self) -> Result<(), Error> {
        self.refuse_remote_work_dir()?;
        match &mut self.command {
            Command::Run(args) => {
                args.input.take_link()?;
                args.outputs.take_links()
            }
            Command::Plan(args) => args.input.take_link(),
            Command::Estimate(args) => args.input.take_link(),
            Command::Merge(args) => args.outputs.take_links(),
            Command::Work(args) => match link(args.input.as_mut())? {
                Some(_) => Err(Error::Usage(
                    "work reads the copy of a URL's input that is in the work directory; leave \
                     --input out"
                        .to_owned(),
                )),
                None => Ok(()),
            },
            Command::Files(command) => command.refuse_links(),
            Command::Status(_) | Command::Check(_) | Command::Models(_) | Command::Filter(_) => {
                Ok(())
            }
        }
    }
}

impl Cli {
    /// A work directory is on this machine.
    fn refuse_remote_work_dir(&self) -> Result<(), Error> {
        let dir = match &self.command {
            Command::Run(args) => args.work_dir.as_deref(),
            Command::Estimate(args) => args.work_dir.as_deref(),
            Command::Plan(args) => Some(args.work_dir.as_path()),
            Command::Work(args) => Some(args.work_dir.as_path()),
            Command::Merge(args) => Some(args.work_dir.as_path()),
            Command::Status(args) => Some(args.work_dir.as_path()),
            Command::Check(args) => Some(args.work_dir.as_path()),
            Command::Filter(_) | Command::Models(_) | Command::Files(_) => None,
        };
        match dir.and_then(Path::to_str).filter(|dir| Link::is_meant(dir)) {
            None => Ok(()),
            Some(url) => Err(Error::Usage(format!(
                "--work-dir {} is a URL; give a directory on this machine",
                Link::without_secrets(url)
            ))),
        }
    }
}

impl InputArgs {
    fn take_link(&mut self) -> Result<(), Error> {
        let paths = self.paths_mut();
        if let [one] = paths {
            self.link = link(Some(one))?;
            return Ok(());
        }
        for path in paths {
            if let Some(link) = link(Some(path))? {
                return Err(Error::Usage(format!(
                    "{link} cannot be one of several inputs: fetch it first, and give the file"
                )));
            }
        }
        Ok(())
    }
}

impl OutputArgs {
    fn take_links(&mut self) -> Result<(), Error> {
        self.links.extend(link(Some(&mut self.output))?);
        for side in [
            &mut self.error_output,
            &mut self.telemetry_output,
            &mut self.output_delta,
            &mut self.summary_output,
        ] {
            self.links.extend(link(side.as_mut())?);
        }
        Ok(())
    }
}

impl FilesCommand {
    /// The file tools fetch nothing and upload nothing.
    fn refuse_links(&self) -> Result<(), Error> {
        let (inputs, output): (Vec<&PathBuf>, Option<&PathBuf>) = match self {
            Self::Validate(args) => (args.files.iter().collect(), None),
            Self::Stats(args) => (args.files.iter().collect(), None),
            Self::Sample(args) => (vec![&args.file], Some(&args.to.output)),
            Self::Split(args) => (vec![&args.file], args.output_dir.as_ref()),
            Self::Merge(args) => (args.files.iter().collect(), Some(&args.to.output)),
            Self::Diff(args) => (vec![&args.a, &args.b], None),
            Self::Prepare(args) => (args.files.iter().collect(), Some(&args.to.output)),
        };
        let refuse =
            |path: &Path, instead: &str| match path.to_str().filter(|it| Link::is_meant(it)) {
                None => Ok(()),
                Some(url) => Err(Error::Usage(format!(
                    "{} is a URL, and the file tools take none: {instead}",
                    Link::without_secrets(url)
                ))),
            };
        for input in inputs {
            refuse(input, "fetch it first, or give - and pipe it in")?;
        }
        output.map_or(Ok(()), |path| refuse(path, "write a file, and upload that"))
    }
}

fn link(path: Option<&mut PathBuf>) -> Result<Option<Link>, Error> {
    let Some(path) = path else { return Ok(None) };
    let Some(text) = path.to_str().filter(|text| Link::is_meant(text)) else { return Ok(None) };
    let link = Link::parse(text).map_err(|error| Error::Usage(error.to_string()))?;
    *path = PathBuf::from(link.shown());
    Ok(Some(link))
}

/// A word of the command line as it may be shown: of a URL, alone or behind its option, neither the
/// query nor a password.
pub(super) fn shown(word: &str) -> Cow<'_, str> {
    let Some(at) = ["http://", "https://"]
        .iter()
        .filter_map(|scheme| word.to_ascii_lowercase().find(scheme))
        .min()
    else {
        return Cow::Borrowed(word);
    };
    let (before, url) = word.split_at(at);
    let is_option = before.starts_with('-') && (before.ends_with('=') || before.len() == 2);
    let hidden = Link::without_secrets(url);
    // What is said of a version is no secret.
    let is_open = url.contains('?') && !url.contains(['@', '#']) && hide_query(url) == url;
    if is_open
        || !before.is_empty() && !is_option
        || url.contains(char::is_whitespace)
        || hidden == url
    {
        return Cow::Borrowed(word);
    }
    let rest = if url.contains('?') { "?…" } else { "" };
    Cow::Owned(format!("{before}{hidden}{rest}"))
}

/// A text about the command line, without what is secret in its words.
pub(super) fn without_secrets(text: &str, words: &[OsString]) -> String {
    let mut text = text.to_owned();
    let mut before = String::new();
    for word in words {
        let word = word.to_string_lossy();
        // A header's value may be a secret that does not belong there.
        let header = word.strip_prefix("--header=").or((before == "--header").then_some(&*word));
        if let Some((name, value)) = header.and_then(|it| it.split_once('=')) {
            text = text.replace(&format!("{name}={value}"), &format!("{name}=…"));
        }
        before = word.clone().into_owned();
        // An option may have been parted from its value.
        let url = word.find("http").map_or("", |at| &word[at..]);
        for secret in [&*word, url] {
            let shown = shown(secret);
            if shown != secret {
                text = text.replace(secret, &shown);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_urls_in_words_only_what_is_no_secret_is_shown() {
        for (word, expected) in [
            ("https://h/a?sig=geheim", "https://h/a?…"),
            ("-ohttps://h/a?sig", "-ohttps://h/a?…"),
            ("--output=HTTP://u:p@h/a", "--output=HTTP://h/a"),
            ("https://h/a", "https://h/a"),
            ("Look at https://h/a?b", "Look at https://h/a?b"),
            ("https://h/a?b is what?", "https://h/a?b is what?"),
            ("{{url}}?x", "{{url}}?x"),
        ] {
            assert_eq!(shown(word), expected, "{word}");
        }
        let words = ["rowmill", "--out=https://h/a?geheim", "x"].map(OsString::from);
        let text = "unexpected argument 'https://h/a?geheim' for '--out=https://h/a?geheim'";
        let said = without_secrets(text, &words);
        assert_eq!(said, "unexpected argument 'https://h/a?…' for '--out=https://h/a?…'");
    }
}
