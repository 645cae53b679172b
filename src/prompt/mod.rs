//! Templates: what is asked of a row.
//!
//! `{{name}}` stands for a field at the top level of the row; names may hold spaces and dots.
//! Strings are put in as they are, other values as the JSON the row has. `{{row_json}}` stands for
//! the whole row. Substitution is one pass: a value that holds `{{x}}` is text like any other.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

use crate::format::json::{self, Object};
use crate::job::{Failure, FailureKind, OnMissingField};

/// The template of a job that has none: it shows the model the whole row.
pub const DEFAULT: &str = "Input record:\n\n{{row_json}}\n";

const ROW_JSON: &str = "row_json";

/// A template, read once and rendered for every row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    // Which of the names.
    Field(usize),
    RowJson,
}

/// The hash by which a later plan knows a rendered prompt again: xxh3 with 64 bits. Only hashes of
/// the same row are ever compared, and nobody gains by a collision.
#[must_use]
pub fn hash(prompt: &str) -> u64 {
    xxh3_64(prompt.as_bytes())
}

/// The hash by which rows that ask the same are found: half of a blake3 hash, because another row's
/// answer is given to a row on its word. Whatever of a row is sent besides its prompt must go into it.
#[must_use]
pub fn request_hash(prompt: &str) -> u128 {
    let [half @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
        *blake3::hash(prompt.as_bytes()).as_bytes();
    u128::from_be_bytes(half)
}

impl Template {
    /// Reads a template. Braces that name nothing are text.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut template = Self { pieces: Vec::new(), names: Vec::new() };
        let mut rest = text;
        let mut literal = String::new();
        while let Some(close) = rest.find("}}") {
            // Of `{{{x}}}` the inner braces count.
            let open = rest[..close].rfind("{{");
            let name = open.map(|open| rest[open + 2..close].trim()).unwrap_or_default();
            match open {
                Some(open) if !name.is_empty() => {
                    literal.push_str(&rest[..open]);
                    template.push_text(&mut literal);
                    template.push_field(name);
                    rest = &rest[close + 2..];
                }
                _ => {
                    literal.push_str(&rest[..=close]);
                    rest = &rest[close + 1..];
                }
            }
        }
        literal.push_str(rest);
        template.push_text(&mut literal);
        template
    }

    fn push_text(&mut self, text: &mut String) {
        if !text.is_empty() {
            self.pieces.push(Piece::Text(std::mem::take(text)));
        }
    }

    fn push_field(&mut self, name: &str) {
        if name == ROW_JSON {
            return self.pieces.push(Piece::RowJson);
        }
        let index = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        self.pieces.push(Piece::Field(index));
    }

    /// The fields it names, each once, in the order of their first appearance.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Which of [`Template::names`] a row lacks.
    pub fn missing<'a>(&'a self, row: &'a Object<'_>) -> impl Iterator<Item = usize> + 'a {
        (0..self.names.len()).filter(|index| row.get(&self.names[*index]).is_none())
    }

    /// Renders a row.
    ///
    /// # Errors
    /// [`FailureKind::MissingTemplateField`] when the row lacks a field, unless missing fields are
    /// [`OnMissingField::Empty`]; [`FailureKind::InvalidRow`] when a field holds no text.
    pub fn render(&self, row: &Object<'_>, on_missing: OnMissingField) -> Result<String, Failure> {
        if on_missing != OnMissingField::Empty && self.missing(row).next().is_some() {
            return Err(self.missing_failure(row));
        }
        let mut out = String::with_capacity(row.text().len() + 64);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::RowJson => json::pretty(row.text(), &mut out),
                Piece::Field(index) => {
                    if let Some(value) = row.get(&self.names[*index]) {
                        push_value(&mut out, &self.names[*index], value)?;
                    }
                }
            }
        }
        Ok(out)
    }

    fn missing_failure(&self, row: &Object<'_>) -> Failure {
        let names: Vec<_> = self.missing(row).map(|index| self.names[index].as_str()).collect();
        let fields = if names.len() == 1 { "field" } else { "fields" };
        let message = format!("the row lacks the template's {fields} {}", names.join(", "));
        Failure::new(FailureKind::MissingTemplateField, message)
    }
}

fn push_value(out: &mut String, name: &str, value: &str) -> Result<(), Failure> {
    if !value.starts_with('"') {
        out.push_str(value);
        return Ok(());
    }
    let inner = &value[1..value.len() - 1];
    if !inner.contains('\\') {
        out.push_str(inner);
        return Ok(());
    }
    match serde_json::from_str::<Cow<'_, str>>(value) {
        Ok(text) => {
            out.push_str(&text);
            Ok(())
        }
        Err(_) => Err(Failure::new(
            FailureKind::InvalidRow,
            format!("field {name} holds half of a surrogate pair, which is no text"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn render(template: &str, row: &str) -> Result<String, String> {
        let row = Object::parse(row).unwrap();
        Template::parse(template)
            .render(&row, OnMissingField::RowError)
            .map_err(|failure| format!("{}: {}", failure.kind.name(), failure.message))
    }

    #[test]
    fn fields_are_put_in_as_text_or_json() {
        let row =
            r#"{"a b.c":"x\ny","n":1.50,"l":[1, "z"],"o":null,"big":12345678901234567890123}"#;
        assert_eq!(
            render("{{ a b.c }}|{{n}}|{{l}}|{{o}}|{{big}}", row).unwrap(),
            "x\ny|1.50|[1, \"z\"]|null|12345678901234567890123"
        );
    }

    #[test]
    fn substitution_is_one_pass_and_other_braces_are_text() {
        let row = r#"{"a":"{{b}} {{row_json}}","b":"no"}"#;
        assert_eq!(render("{{a}}", row).unwrap(), "{{b}} {{row_json}}");
        assert_eq!(render("{{}} {{ }} {a} }} {{", row).unwrap(), "{{}} {{ }} {a} }} {{");
        assert_eq!(render("{{{b}}}", row).unwrap(), "{no}");
        assert_eq!(render(r#"{"k": {"v": 1}} {{b}}"#, row).unwrap(), r#"{"k": {"v": 1}} no"#);
    }

    #[test]
    fn the_default_shows_the_whole_row() {
        assert_eq!(
            render(DEFAULT, r#"{"id":1,"t":"caf\u00e9"}"#).unwrap(),
            "Input record:\n\n{\n  \"id\": 1,\n  \"t\": \"café\"\n}\n"
        );
    }

    #[test]
    fn what_cannot_be_rendered_is_told() {
        assert_eq!(
            render("{{x}} {{a}} {{y}} {{x}}", r#"{"a":1}"#).unwrap_err(),
            "MissingTemplateField: the row lacks the template's fields x, y"
        );
        assert_eq!(
            render("{{a}}", r#"{"a":"\ud800"}"#).unwrap_err(),
            "InvalidRow: field a holds half of a surrogate pair, which is no text"
        );
        let row = Object::parse(r#"{"a":1}"#).unwrap();
        let template = Template::parse("[{{x}}{{a}}]");
        assert_eq!(template.render(&row, OnMissingField::Empty).unwrap(), "[1]");
    }

    proptest! {
        #[test]
        fn templates_without_fields_render_as_themselves(text in "[a-z{} \n]{0,30}") {
            let template = Template::parse(&text);
            if template.names().is_empty() && !text.contains(ROW_JSON) {
                let row = Object::parse("{}").unwrap();
                prop_assert_eq!(template.render(&row, OnMissingField::RowError).unwrap(), text);
            }
        }
    }
}
