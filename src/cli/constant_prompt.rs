//! Prompts that name no field of a row: all rows would ask the same, and each would be paid for.

use std::path::{Path, PathBuf};

use super::args::PromptArgs;
use super::exit::shown;
use crate::pipeline::Error;
use crate::prompt::Template;

impl PromptArgs {
    /// Takes `-p @FILE` for `--template FILE`, where there is such a file, and gives what to say of that.
    pub(super) fn take_file(&mut self) -> Option<String> {
        let file = self.prompt.as_deref().and_then(|text| text.strip_prefix('@'));
        let file = file.map(PathBuf::from).filter(|file| file.is_file())?;
        let text = format!("the template is read from {}", shown(&file));
        (self.prompt, self.template) = (None, Some(file));
        Some(text)
    }
}

/// Refuses a template in which no field of a row has a place, unless that is wanted.
///
/// # Errors
/// [`Error::Usage`], with what was meant.
pub(super) fn refuse_constant(prompt: &PromptArgs, text: &str) -> Result<(), Error> {
    if prompt.allow_constant_prompt || Template::parse(text).depends_on_row() {
        return Ok(());
    }
    let what = match &prompt.template {
        Some(file) => format!("the template {} names no field", shown(file)),
        None => format!("the prompt {} names no field", shown(Path::new(text))),
    };
    Err(Error::Usage(format!(
        "{what}, so every row would ask the same: {} (to ask it all the same: --allow-constant-prompt)",
        meant(prompt, text)
    )))
}

/// What to write instead.
fn meant(prompt: &PromptArgs, text: &str) -> String {
    let file = text.strip_prefix('@').unwrap_or(text);
    if prompt.template.is_none() && Path::new(file).is_file() {
        return format!(
            "there is a file of that name; --template {} reads it",
            shown(Path::new(file))
        );
    }
    if prompt.template.is_none() && text.starts_with('@') && !file.contains(char::is_whitespace) {
        return format!("there is no file {}", shown(Path::new(file)));
    }
    if let Some((_, open)) = text.rsplit_once("{{") {
        let name: String = open.chars().take_while(|it| is_of_name(*it)).collect();
        return match name.trim() {
            "" => "write {{field}}, with the name of a field between the braces".to_owned(),
            name => format!("{{{{{name} is not closed; write {{{{{name}}}}}"),
        };
    }
    for (open, close) in [("%(", ")s"), ("${", "}"), ("{", "}"), ("<", ">"), ("[[", "]]")] {
        if let Some(name) = name_between(text, open, close) {
            return format!("write {{{{{name}}}}} where it says {open}{name}{close}");
        }
    }
    "write {{field}} where the text of a field belongs, or {{row_json}} for the whole row"
        .to_owned()
}

fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || "_-. ".contains(character)
}

/// The first name that stands between these marks.
fn name_between<'t>(text: &'t str, open: &str, close: &str) -> Option<&'t str> {
    text.match_indices(open).find_map(|(at, _)| {
        let behind = &text[at + open.len()..];
        let name = behind[..behind.find(close)?].trim();
        (!name.is_empty() && name.chars().all(is_of_name)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(text: &str) -> PromptArgs {
        PromptArgs {
            prompt: Some(text.to_owned()),
            template: None,
            instruction: None,
            attachment_field: None,
            max_attachment_bytes: None,
            on_missing_field: None,
            allow_constant_prompt: false,
        }
    }

    #[test]
    fn constant_prompt_is_refused_with_what_was_meant() {
        for (text, hint) in [
            ("Good? {text}", "write {{text}} where it says {text}"),
            ("Good? {{text", "{{text is not closed; write {{text}}"),
            ("Good? {{", "write {{field}}, with the name of a field"),
            ("Good?", "write {{field}} where the text of a field belongs, or {{row_json}}"),
            ("{\"a\": 1}", "write {{field}} where the text of a field belongs"),
            ("%(text)s good?", "write {{text}} where it says %(text)s"),
            ("${my text} good?", "write {{my text}} where it says ${my text}"),
            ("[[text]]", "write {{text}} where it says [[text]]"),
            ("<text>", "write {{text}} where it says <text>"),
            ("@nowhere.txt", "there is no file nowhere.txt"),
        ] {
            let error = refuse_constant(&prompt(text), text).unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
        for text in ["{{a}}", "x {{ row_json }}", "{b} {{a}}"] {
            refuse_constant(&prompt(text), text).unwrap();
        }
        let allowed = PromptArgs { allow_constant_prompt: true, ..prompt("x") };
        refuse_constant(&allowed, "x").unwrap();
    }
}
