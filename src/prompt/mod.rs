//! Templates: what is asked of a row.
//!
//! `{{name}}` stands for a field at the top level of the row; names may hold spaces and dots.
//! Strings are put in as they are, other values as the JSON the row has. `{{row_json}}` stands for
//! the whole row, or for a field of that name where the row has one. Substitution is one pass: a value that holds `{{x}}` is text like any other.
//!
//! Of lines that are requests themselves see [`Request`].

mod extent;
mod request;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::format::json::{self, Object};
use crate::job::{Failure, FailureKind, JobSpec, Modality, OnMissingField, Reference};

pub use extent::tokens_of_files;
pub use request::{Request, kinds_of};

/// The template of a job that has none: it shows the model the whole row.
pub const DEFAULT: &str = "Input record:\n\n{{row_json}}\n";

/// The template of jobs whose rows are prompts.
pub const OF_PROMPTS: &str = "{{prompt}}";

const ROW_JSON: &str = "row_json";

/// Bytes of a prompt: a row that comes to more is invalid, unless it has a quarter of that itself.
pub const LONGEST: usize = 64 << 20;

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

/// What a row asks: all of its request that is not the same for all rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The rendered template; of a request its body.
    pub text: String,
    /// What is attached, as the row names it; see [`Reference`].
    pub attachments: Vec<String>,
    /// What of it is not its body, where the row is a request itself. Seldom there, and large.
    pub request: Option<Box<Request>>,
}

impl Prompt {
    /// All that the row's request depends on besides what is the same for all rows, in pieces: the
    /// text, of a request where it goes and what its model stands for, and of each attachment what the row names. The bytes of files are not among it: a file
    /// that changed under its name is not noticed. No two prompts have the same pieces in a row,
    /// because no text holds the bytes that stand before a place and before each attachment.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let attachments = self.attachments.iter();
        let attachments = attachments.flat_map(|it| [&b"\xff"[..], it.as_bytes()]);
        let places = self.request.iter();
        let places = places.flat_map(|it| [&b"\xfe"[..], it.url.as_bytes()]);
        let models = self.request.iter().filter_map(|it| it.stands_for.as_ref());
        let models = models.flat_map(|model| [&b"\xfd"[..], model.as_bytes()]);
        std::iter::once(self.text.as_bytes()).chain(places).chain(models).chain(attachments)
    }

    /// The hash of its [pieces](Self::pieces), by which a later plan knows it again: xxh3 with 64
    /// bits; of a prompt that nothing is attached to, that of its text. Only hashes of the same row are ever
    /// compared, and nobody gains by a collision.
    #[must_use]
    pub fn hash(&self) -> u64 {
        if self.attachments.is_empty() && self.request.is_none() {
            return xxh3_64(self.text.as_bytes());
        }
        let mut hasher = Xxh3Default::new();
        self.pieces().for_each(|piece| hasher.update(piece));
        hasher.digest()
    }

    /// The hash of its [pieces](Self::pieces) by which rows that ask the same are found, with the `base`
    /// that the paths of its attachments are relative to: the same name is another file beside another
    /// input. Half of a blake3 hash, because another row's answer is given to a row on its word.
    #[must_use]
    pub fn request_hash(&self, base: &Path) -> u128 {
        let mut hasher = blake3::Hasher::new();
        for piece in self.pieces() {
            hasher.update(piece);
        }
        let is_relative = |it: &str| matches!(Reference::parse(it), Reference::Path(path) if Path::new(path).is_relative());
        if self.attachments.iter().any(|it| is_relative(it)) {
            // No text holds this byte either.
            hasher.update(b"\xfc");
            hasher.update(base.as_os_str().as_encoded_bytes());
        }
        let [half @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            *hasher.finalize().as_bytes();
        u128::from_be_bytes(half)
    }

    /// What a model must take in to answer it, as far as the names of what is attached tell: the most
    /// demanding of them. No file is looked at.
    #[must_use]
    pub fn modality(&self) -> Modality {
        let attachments = self.attachments.iter().map(|it| Reference::parse(it).modality());
        attachments.max().unwrap_or_default()
    }
}

/// What a row names as attached to it in a field: a string or a list of them. A row without the
/// field, or with nothing in it, has nothing attached.
///
/// # Errors
/// [`FailureKind::InvalidRow`] when the field holds something else.
pub fn attachments(row: &Object<'_>, field: &str) -> Result<Vec<String>, Failure> {
    let Some(value) = row.get(field) else { return Ok(Vec::new()) };
    let named = match value.as_bytes().first() {
        Some(b'[') => serde_json::from_str::<Vec<Option<String>>>(value),
        _ => serde_json::from_str(value).map(|one: Option<String>| vec![one]),
    };
    let wrong = |_| {
        let what = "neither a string nor a list of strings";
        Failure::new(FailureKind::InvalidRow, format!("the attachment field {field:?} is {what}"))
    };
    let named = named.map_err(wrong)?.into_iter().flatten();
    Ok(named.filter(|it| !it.trim().is_empty()).collect())
}

impl Template {
    /// Reads a template. Braces that name nothing are text.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut template = Self { pieces: Vec::new(), names: Vec::new() };
        let mut known = HashMap::new();
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
                    template.push_field(name, &mut known);
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

    fn push_field<'a>(&mut self, name: &'a str, known: &mut HashMap<&'a str, usize>) {
        if name == ROW_JSON {
            return self.pieces.push(Piece::RowJson);
        }
        let index = *known.entry(name).or_insert_with(|| {
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

    /// Whether what it asks depends on the row.
    #[must_use]
    pub fn depends_on_row(&self) -> bool {
        self.pieces.iter().any(|piece| !matches!(piece, Piece::Text(_)))
    }

    /// Which of [`Template::names`] a row lacks.
    pub fn missing<'a>(&'a self, row: &'a Object<'_>) -> impl Iterator<Item = usize> + 'a {
        (0..self.names.len()).filter(|index| row.get(&self.names[*index]).is_none())
    }

    /// What a row asks: its rendered prompt, and what is attached to it; of a request itself, that.
    ///
    /// # Errors
    /// As [`Template::render`], and as [`attachments`]; [`FailureKind::InvalidRequest`] where rows are
    /// to be requests, or prompts, and this one is none that can be sent.
    pub fn ask(&self, row: &Object<'_>, job: &JobSpec) -> Result<Prompt, Failure> {
        if let Some(asked) = request::of(row, job) {
            return asked;
        }
        let Some(field) = &job.attachment_field else {
            let text = self.render(row, job.on_missing_field)?;
            return Ok(Prompt { text, attachments: Vec::new(), request: None });
        };
        let attachments = attachments(row, field)?;
        let has_data = attachments.iter().any(|it| data_of(it).is_some());
        let shown =
            (has_data && self.pieces.contains(&Piece::RowJson)).then(|| without_data(row, field));
        let whole = shown.as_deref().unwrap_or(row.text());
        let text = self.fill(row, whole, job.on_missing_field)?;
        Ok(Prompt { text, attachments, request: None })
    }

    /// Renders a row.
    ///
    /// # Errors
    /// [`FailureKind::MissingTemplateField`] when the row lacks a field, unless missing fields are
    /// [`OnMissingField::Empty`]; [`FailureKind::InvalidRow`] when a field holds no text.
    pub fn render(&self, row: &Object<'_>, on_missing: OnMissingField) -> Result<String, Failure> {
        self.fill(row, row.text(), on_missing)
    }

    /// Renders a row that is shown as `whole` where all of it is.
    fn fill(
        &self,
        row: &Object<'_>,
        whole: &str,
        on_missing: OnMissingField,
    ) -> Result<String, Failure> {
        if on_missing != OnMissingField::Empty && self.missing(row).next().is_some() {
            return Err(self.missing_failure(row));
        }
        let longest = LONGEST.max(whole.len().saturating_mul(4));
        if self.is_longer_than(longest, row, whole) {
            return Err(too_long(longest));
        }
        let mut out = String::with_capacity(whole.len() + 64);
        for piece in &self.pieces {
            if out.len() > longest {
                return Err(too_long(longest));
            }
            match piece {
                Piece::Text(text) => out.push_str(text),
                // A field of that name is meant by who has one.
                Piece::RowJson => match row.get(ROW_JSON) {
                    Some(value) => push_value(&mut out, ROW_JSON, value)?,
                    None => json::pretty(whole, &mut out),
                },
                Piece::Field(index) => {
                    if let Some(value) = row.get(&self.names[*index]) {
                        push_value(&mut out, &self.names[*index], value)?;
                    }
                }
            }
        }
        Ok(out)
    }

    /// Whether a row's prompt would certainly be longer than this, found without making it.
    fn is_longer_than(&self, longest: usize, row: &Object<'_>, whole: &str) -> bool {
        // Most prompts are short however often all of the row is put in.
        if whole.len().saturating_mul(self.pieces.len()) <= longest {
            return false;
        }
        /// A character of a text is spelled with this many at most: `\u0061`.
        const SPELLED: usize = 6;
        let lengths = self.names.iter().map(|name| match row.get(name) {
            Some(value) if value.starts_with('"') && value.contains('\\') => value.len() / SPELLED,
            Some(value) => value.len().saturating_sub(2),
            None => 0,
        });
        let lengths: Vec<_> = lengths.collect();
        let mut length = 0_usize;
        self.pieces.iter().any(|piece| {
            length = length.saturating_add(match piece {
                Piece::Text(text) => text.len(),
                Piece::Field(index) => lengths[*index],
                Piece::RowJson => 0,
            });
            length > longest
        })
    }

    fn missing_failure(&self, row: &Object<'_>) -> Failure {
        let names: Vec<_> = self.missing(row).map(|index| self.names[index].as_str()).collect();
        let fields = if names.len() == 1 { "field" } else { "fields" };
        let message = format!("the row lacks the template's {fields} {}", names.join(", "));
        Failure::new(FailureKind::MissingTemplateField, message)
    }
}

fn too_long(longest: usize) -> Failure {
    let message = format!("the rendered prompt is longer than {longest} bytes");
    Failure::new(FailureKind::InvalidRow, message)
}

/// A row's text in which data URIs of a field end where their data begins: attached, it need not be
/// read as text as well, which would cost many tokens.
fn without_data(row: &Object<'_>, field: &str) -> String {
    let text = row.text();
    let value = row.get(field).unwrap_or_default();
    let Ok(mut named) = serde_json::from_str::<serde_json::Value>(value) else {
        return text.to_owned();
    };
    let list = match &mut named {
        serde_json::Value::Array(list) => list,
        one => std::slice::from_mut(one),
    };
    for it in list {
        if let serde_json::Value::String(it) = it
            && let Some(data) = data_of(it)
        {
            it.replace_range(it.len() - data.len().., "…");
        }
    }
    // A field's value is a slice of its row.
    let start = value.as_ptr().addr() - text.as_ptr().addr();
    format!("{}{named}{}", &text[..start], &text[start + value.len()..])
}

/// The data of a data URI.
fn data_of(text: &str) -> Option<&str> {
    match Reference::parse(text) {
        Reference::Data { data, .. } => Some(data),
        _ => None,
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
    fn prompts_that_would_be_too_long_are_not_made() {
        let row = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
        let refused = |template: &str, row: &str| {
            let error = render(template, row).unwrap_err();
            assert!(error.starts_with("InvalidRow: the rendered prompt is longer than 67108864"));
        };
        refused(&"{{a}}".repeat(1_000_000), &row);
        refused(&"{{row_json}}".repeat(1_000_000), &row);
        // Spelled with escapes, a text is shorter than it looks.
        let row = format!("{{\"a\":\"{}\"}}", "\\u0061".repeat(20_000));
        assert_eq!(render(&"{{a}}".repeat(600), &row).unwrap().len(), 12_000_000);
        refused(&"{{a}}".repeat(1_000_000), &row);
        // What a row has itself may be put in.
        let row = format!("{{\"a\":\"{}\"}}", "x".repeat(40 << 20));
        assert_eq!(render("{{a}}{{a}}", &row).unwrap().len(), 80 << 20);
        let many: String = (0..200_000).map(|number| format!("{{{{f{number}}}}}")).collect();
        assert_eq!(Template::parse(&many).names().len(), 200_000);
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
    fn field_called_row_json_wins() {
        assert_eq!(render("{{row_json}}", r#"{"row_json":"mine","a":1}"#).unwrap(), "mine");
        assert_eq!(render(DEFAULT, r#"{"row_json":[1]}"#).unwrap(), "Input record:\n\n[1]\n");
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

    fn ask(template: &str, row: &str) -> Prompt {
        let job = r#"{"model":"m","prompt":"","instruction":null,"parameters":{},
            "id_field":null,"selection":{"offset":0,"limit":null,"sample":null},
            "attachment_field":"a","on_duplicate":"error","on_missing_field":"row-error",
            "max_row_bytes":9,"include_input":false}"#;
        let job: JobSpec = serde_json::from_str(job).unwrap();
        Template::parse(template).ask(&Object::parse(row).unwrap(), &job).unwrap()
    }

    #[test]
    fn what_is_attached_is_part_of_what_is_asked() {
        let attached = |row: &str| ask("x", row).attachments;
        assert_eq!(attached(r#"{"a":"b.png"}"#), ["b.png"]);
        assert_eq!(attached(r#"{"a":["b.png",null,"","caf\u00e9.pdf"]}"#), ["b.png", "café.pdf"]);
        for nothing in [r#"{}"#, r#"{"a":null}"#, r#"{"a":""}"#, r#"{"a":[]}"#, r#"{"a":" "}"#] {
            assert!(attached(nothing).is_empty(), "{nothing}");
            assert_eq!(ask("x", nothing).hash(), xxh3_64(b"x"), "as before there were any");
        }
        for wrong in ["7", "{}", "[7]", "true", r#""\ud800""#] {
            let row = format!("{{\"a\":{wrong}}}");
            let failure = attachments(&Object::parse(&row).unwrap(), "a").unwrap_err();
            assert_eq!(failure.kind, FailureKind::InvalidRow, "{wrong}");
        }
        let prompt = |text: &str, attachments: &[&str]| Prompt {
            text: text.to_owned(),
            attachments: attachments.iter().map(|&it| it.to_owned()).collect(),
            request: None,
        };
        let different = [
            prompt("x", &[]),
            prompt("x", &["a", "b"]),
            prompt("x", &["b", "a"]),
            prompt("x", &["ab"]),
            prompt("xa", &["b"]),
            prompt("xab", &[]),
        ];
        let hashes: std::collections::HashSet<_> = different.iter().map(Prompt::hash).collect();
        assert_eq!(hashes.len(), different.len());
        let requests: std::collections::HashSet<_> =
            different.iter().map(|it| it.request_hash(Path::new("/a"))).collect();
        assert_eq!(requests.len(), different.len());
        let beside =
            |dir: &str, attachments: &[&str]| prompt("x", attachments).request_hash(Path::new(dir));
        assert_ne!(beside("/a", &["/c.png", "c.png"]), beside("/b", &["/c.png", "c.png"]));
        for anywhere in [&["/c.png", "https://h/c.png", "data:,c"][..], &[]] {
            assert_eq!(beside("/a", anywhere), beside("/b", anywhere), "{anywhere:?}");
        }
        assert_eq!(prompt("x", &["a.png", "b.wav"]).modality(), Modality::Audio);
        assert_eq!(prompt("x.wav", &[]).modality(), Modality::Text);
    }

    #[test]
    fn a_row_is_shown_without_the_data_that_is_attached() {
        let row = r#"{"id":1.50,"a":"data:image/png;base64,AAAA","b":"data:,x"}"#;
        assert_eq!(
            ask("{{row_json}}|{{a}}", row).text,
            "{\n  \"id\": 1.50,\n  \"a\": \"data:image/png;base64,…\",\n  \"b\": \"data:,x\"\n}\
             |data:image/png;base64,AAAA"
        );
        let list = r#"{"a":["b.png","data:,x\"y"]}"#;
        assert_eq!(
            ask("{{row_json}}", list).text,
            "{\n  \"a\": [\n    \"b.png\",\n    \"data:,…\"\n  ]\n}"
        );
        assert_eq!(ask("{{row_json}}", r#"{"a":"b.png"}"#).text, "{\n  \"a\": \"b.png\"\n}");
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
