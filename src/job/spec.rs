//! What a job is: everything that decides the answers.
//!
//! Two runs may share a work directory only when their specs agree, so that no output ever mixes
//! answers to two questions. What is *not* here may differ between a run and its resumption: where
//! the endpoint is, how many requests are in flight, where the outputs go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Dialect, NamedModel, OWN_MODEL, OtherModel, PoolModel, Protocol};

/// Everything that decides what is asked about which rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// How the lines of the input are spelled. Where they are requests, they say themselves what is
    /// asked: there is no template, and parameters are the lines' own.
    #[serde(default, skip_serializing_if = "Dialect::is_rows")]
    pub dialect: Dialect,
    /// Whether lines that are no requests fail without a call. The input is refused for them
    /// otherwise.
    #[serde(default, skip_serializing_if = "is_false")]
    pub skip_bad_lines: bool,
    /// The model, as the endpoint names it.
    pub model: String,
    /// The protocol it is spoken to in. Work directories of before there were others do not name it.
    #[serde(default, skip_serializing_if = "Protocol::is_chat")]
    pub protocol: Protocol,
    /// The models of which any may answer, in order; empty where there is one. Where there are several,
    /// `model` is a name for them all, and protocol and parameters are theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<PoolModel>,
    /// What names in lines stand for, where each line names its own model; others stand for themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NamedModel>,
    /// The row template's text.
    pub prompt: String,
    /// The system instruction's text.
    pub instruction: Option<String>,
    /// Further fields of the request body, as the protocol has them (`temperature`, `max_tokens`, …).
    pub parameters: Parameters,
    /// The JSON Schema of the answers, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The field that holds a row's id.
    pub id_field: Option<String>,
    /// What the id is in a job without such a field.
    #[serde(default, skip_serializing_if = "IdFrom::is_default")]
    pub id_from: IdFrom,
    /// Which rows are asked about.
    pub selection: Selection,
    /// The field that names what is attached to a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment_field: Option<String>,
    /// The most bytes that are attached to a row.
    #[serde(default = "max_attachment_bytes", skip_serializing_if = "is_max_attachment_bytes")]
    pub max_attachment_bytes: u64,
    /// What to do with a second row of the same id.
    pub on_duplicate: OnDuplicate,
    /// What to do with a row that lacks a field of the template.
    pub on_missing_field: OnMissingField,
    /// The largest row taken, in bytes.
    pub max_row_bytes: u64,
    /// Whether journals keep the rows, so that envelopes can show them.
    pub include_input: bool,
    /// What envelopes call `model`, where they say which it was: the model string it was named with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    /// The other models that are asked about each row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherModel>,
    /// How often each model is asked about each row.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub repeat: u32,
    /// Whether rows that ask the same are asked once.
    #[serde(default, skip_serializing_if = "Dedupe::is_off")]
    pub dedupe: Dedupe,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(it: &bool) -> bool {
    !*it
}

fn once() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_once(repeat: &u32) -> bool {
    *repeat == 1
}

/// Whether rows that ask the same are asked once: one of them is called, and its outcome is that of
/// all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dedupe {
    /// Where answers do not vary by chance.
    Auto,
    /// Yes.
    On,
    /// No. So it was in work directories that do not say.
    #[default]
    Off,
}

impl Dedupe {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
    fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// The most bytes that are attached to a row where the user says nothing: what the APIs of most
/// vendors take in one request.
pub const MAX_ATTACHMENT_BYTES: u64 = 20 << 20;

fn max_attachment_bytes() -> u64 {
    MAX_ATTACHMENT_BYTES
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_max_attachment_bytes(bytes: &u64) -> bool {
    *bytes == MAX_ATTACHMENT_BYTES
}

/// What a row's id is where no field holds one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdFrom {
    /// Its number: a row that moves is another row.
    #[default]
    RowNumber,
    /// A hash of its text: a row that moves keeps its id, one that changes is another row.
    Hash,
}

/// What a row's id is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity<'a> {
    /// Its number.
    RowNumber,
    /// The value of a field.
    Field(&'a str),
    /// The value of a field, and the number of a row that has no such field, or null in it.
    FieldOrNumber(&'a str),
    /// Its text.
    Hash,
}

impl Identity<'_> {
    /// Whether it may be its number alone that tells a row from others.
    #[must_use]
    pub fn is_by_number(self) -> bool {
        matches!(self, Self::RowNumber | Self::FieldOrNumber(_))
    }
}

/// Body fields by name, each value kept as the JSON text the user gave.
pub type Parameters = BTreeMap<String, Box<RawValue>>;

/// Which rows of the input are asked about: `offset`, then `sample`, then `limit`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Rows left out at the beginning.
    pub offset: u64,
    /// The most rows taken.
    pub limit: Option<u64>,
    /// A random choice among the rows behind the offset.
    pub sample: Option<Sample>,
}

/// A deterministic random choice of rows, in input order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// How many rows.
    pub rows: u64,
    /// The same seed over the same number of rows chooses the same rows.
    pub seed: u64,
}

/// What to do with a second row of the same id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDuplicate {
    /// Refuse the input.
    #[default]
    Error,
    /// Keep the first row, leave the others out.
    First,
    /// Give the others ids of their own: `x-2`, `x-3`, ….
    Suffix,
}

/// What to do with a row that lacks a field of the template.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnMissingField {
    /// The row fails, the others go on.
    #[default]
    RowError,
    /// Refuse the input.
    Error,
    /// Put nothing in its place.
    Empty,
}

/// The part of a job that all rows share: with a row's prompt it is all that is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The model asked for.
    pub model: String,
    /// The protocol.
    #[serde(default, skip_serializing_if = "Protocol::is_chat")]
    pub protocol: Protocol,
    /// The models of which any may answer; see [`JobSpec::pool`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<String>,
    /// The system instruction.
    pub instruction: Option<String>,
    /// The parameters' values as they are sent.
    pub parameters: BTreeMap<String, String>,
    /// The JSON Schema of the answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

/// One part of a job in which two specs differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which part, in the words of the options (`model`, `prompt`, `parameter temperature`, …).
    pub part: String,
    /// How the work directory has it.
    pub old: String,
    /// How the command has it.
    pub new: String,
}

impl IdFrom {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl JobSpec {
    /// The most tokens that an answer may have, as the parameters say it in the protocol's words. Of
    /// several models, that of the one that may answer at most length. Requests say it one by one.
    #[must_use]
    pub fn max_answer_tokens(&self) -> Option<u64> {
        if self.dialect.is_request() {
            return None;
        }
        if !self.pool.is_empty() {
            let all = self.pool.iter().map(|model| self.asking(model).max_answer_tokens());
            return all.collect::<Option<Vec<_>>>()?.into_iter().max();
        }
        if self.protocol == Protocol::Embeddings {
            return Some(0);
        }
        let names = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
        let given = names.iter().filter_map(|name| self.parameters.get(*name)?.get().parse().ok());
        given.max()
    }

    /// How rows are told apart.
    #[must_use]
    pub fn identity(&self) -> Identity<'_> {
        match (&self.id_field, self.id_from) {
            _ if self.dialect.is_request() => Identity::Field("custom_id"),
            _ if self.dialect == Dialect::Prompts => Identity::FieldOrNumber("id"),
            (Some(field), _) => Identity::Field(field),
            (None, IdFrom::Hash) => Identity::Hash,
            (None, IdFrom::RowNumber) => Identity::RowNumber,
        }
    }

    /// Whether rows have only their numbers in this job, and the ids of a field in the new one.
    #[must_use]
    pub fn gains_ids_in(&self, new: &Self) -> bool {
        self.identity() == Identity::RowNumber && matches!(new.identity(), Identity::Field(_))
    }

    /// Whether rows that ask the same are asked once. Where nobody says so, they are if the answer is
    /// the same each time: embeddings, and a temperature of 0. One that is not given is the endpoint's
    /// default, which is higher. Where several answers are wanted to a row, each is asked for. Requests
    /// say it one by one.
    #[must_use]
    pub fn is_deduped(&self) -> bool {
        match self.dedupe {
            _ if self.is_varied() => false,
            Dedupe::On => true,
            Dedupe::Off => false,
            Dedupe::Auto if self.dialect.is_request() => true,
            Dedupe::Auto => {
                let temperature = self.parameters.get("temperature");
                let temperature = temperature.and_then(|it| it.get().parse::<f64>().ok());
                temperature == Some(0.0) || self.protocol == Protocol::Embeddings
            }
        }
    }

    /// What is the same for all rows that one of the job's models is asked about.
    #[must_use]
    pub fn setting(&self, model: usize) -> Setting {
        let (model, protocol, parameters) = self.called(model);
        let parameters = parameters.iter();
        Setting {
            model: model.to_owned(),
            protocol,
            pool: self.pool.iter().map(PoolModel::shown).collect(),
            instruction: self.instruction.clone(),
            parameters: parameters.map(|(name, it)| (name.clone(), it.get().to_owned())).collect(),
            schema: self.schema.clone(),
        }
    }

    /// In what this spec (the old one) differs from `new`. Whether envelopes show their rows
    /// does not count: it changes no answer. Whether rows that ask the same are asked once counts where
    /// `new` says it: unsaid, it is as it was planned.
    #[must_use]
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut compare = |part: &str, old: Option<String>, new: Option<String>| {
            if old != new {
                let (old, new) = show_pair(old.as_deref(), new.as_deref());
                found.push(Difference { part: part.to_owned(), old, new });
            }
        };
        let mut models = self.common_models(new);
        if !(self.pool.is_empty() && new.pool.is_empty()) {
            // Each has its own parameters.
            let shown =
                |spec: &Self| spec.models().iter().map(PoolModel::shown).collect::<Vec<_>>();
            compare("models", Some(shown(self).join(", ")), Some(shown(new).join(", ")));
            models.clear();
        } else if let Some((before, now)) = self.names(new) {
            compare("models", Some(before), Some(now));
        }
        for (place, of) in &models {
            let ((was, old, _), (is, now, _)) = (self.called(*place), new.called(*place));
            compare(&format!("model{of}"), Some(was.to_owned()), Some(is.to_owned()));
            let (old, now) = (old.name().to_owned(), now.name().to_owned());
            compare(&format!("protocol{of}"), Some(old), Some(now));
        }
        let dialect = |spec: &Self| Some(spec.dialect.name().to_owned());
        compare("dialect", dialect(self), dialect(new));
        let skipped = |spec: &Self| Some(spec.skip_bad_lines.to_string());
        compare("skip-bad-lines", skipped(self), skipped(new));
        compare("repeat", Some(self.repeat.to_string()), Some(new.repeat.to_string()));
        compare("prompt", Some(self.prompt.clone()), Some(new.prompt.clone()));
        compare("instruction", self.instruction.clone(), new.instruction.clone());
        for (place, of) in &models {
            let ((.., old), (.., now)) = (self.called(*place), new.called(*place));
            let names: std::collections::BTreeSet<_> = old.keys().chain(now.keys()).collect();
            for name in names {
                let value = |of: &Parameters| of.get(name).map(|v| v.get().to_owned());
                compare(&format!("parameter {name}{of}"), value(old), value(now));
            }
        }
        compare("schema", self.schema.clone(), new.schema.clone());
        compare("id-field", self.id_field.clone(), new.id_field.clone());
        compare("id-from", Some(shown(&self.id_from)), Some(shown(&new.id_from)));
        compare("attachment-field", self.attachment_field.clone(), new.attachment_field.clone());
        let max_attached = |spec: &Self| Some(spec.max_attachment_bytes.to_string());
        compare("max-attachment-bytes", max_attached(self), max_attached(new));
        compare("selection", Some(self.selection.shown()), Some(new.selection.shown()));
        compare("on-duplicate", Some(shown(&self.on_duplicate)), Some(shown(&new.on_duplicate)));
        compare(
            "on-missing-field",
            Some(shown(&self.on_missing_field)),
            Some(shown(&new.on_missing_field)),
        );
        compare(
            "max-row-bytes",
            Some(self.max_row_bytes.to_string()),
            Some(new.max_row_bytes.to_string()),
        );
        if new.dedupe != Dedupe::Auto {
            let once = |spec: &Self| Some(if spec.is_deduped() { "on" } else { "off" }.to_owned());
            compare("dedupe", once(self), once(new));
        }
        found.extend(self.other_names(new));
        found
    }
}

impl JobSpec {
    /// What the models of two jobs are called, if that tells them apart.
    fn names(&self, new: &Self) -> Option<(String, String)> {
        let is_one = self.model_count() == 1 && new.model_count() == 1;
        // A job with one answer to a row does not say what its model was called.
        let is_named = self.named.is_some() && new.named.is_some();
        let (before, now) = (self.models_shown(), new.models_shown());
        ((!is_one || is_named) && before != now).then_some((before, now))
    }

    /// What the models are called, for people.
    #[must_use]
    pub fn models_shown(&self) -> String {
        if self.model == OWN_MODEL {
            return self.names_shown();
        }
        (0..self.model_count()).map(|model| self.named(model)).collect::<Vec<_>>().join(", ")
    }

    /// The models that both jobs have, by their places, each with what is said behind its parts.
    fn common_models(&self, new: &Self) -> Vec<(usize, String)> {
        let is_one = self.model_count() == 1 && new.model_count() == 1;
        let of = |place| if is_one { String::new() } else { format!(" of {}", new.named(place)) };
        let is_told = self.names(new).is_some();
        let all = 0..self.model_count().min(new.model_count());
        all.filter(|_| is_one || !is_told).map(|place| (place, of(place))).collect()
    }
}

impl Selection {
    fn shown(&self) -> String {
        let mut text = format!("offset {}", self.offset);
        if let Some(sample) = &self.sample {
            text.push_str(&format!(", sample {} seed {}", sample.rows, sample.seed));
        }
        match self.limit {
            Some(limit) => text.push_str(&format!(", limit {limit}")),
            None => text.push_str(", no limit"),
        }
        text
    }
}

fn shown(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The longest stretch of a value that a difference shows, in characters.
const SHOWN: usize = 60;

/// Two values, cut to the place where they begin to differ.
fn show_pair(old: Option<&str>, new: Option<&str>) -> (String, String) {
    let (a, b) = (old.unwrap_or_default(), new.unwrap_or_default());
    let same = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
    let skip = if same > SHOWN / 2 { same - SHOWN / 4 } else { 0 };
    let cut = |value: Option<&str>| match value {
        None => "(none)".to_owned(),
        Some(text) => {
            let shown: String = text.chars().skip(skip).take(SHOWN).collect();
            let before = if skip > 0 { "…" } else { "" };
            let behind = if text.chars().count() > skip + SHOWN { "…" } else { "" };
            format!("`{before}{shown}{behind}`")
        }
    };
    (cut(old), cut(new))
}

/// The blake3 hash of a text, as hex.
#[must_use]
pub fn hash_text(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec() -> JobSpec {
        JobSpec {
            dialect: Dialect::Rows,
            skip_bad_lines: false,
            model: "m".into(),
            protocol: Protocol::Chat,
            pool: Vec::new(),
            names: Vec::new(),
            prompt: "Say {{text}}".into(),
            instruction: None,
            parameters: Parameters::new(),
            schema: None,
            id_field: None,
            id_from: IdFrom::RowNumber,
            selection: Selection::default(),
            attachment_field: None,
            max_attachment_bytes: MAX_ATTACHMENT_BYTES,
            on_duplicate: OnDuplicate::Error,
            on_missing_field: OnMissingField::RowError,
            max_row_bytes: 1 << 24,
            include_input: false,
            named: None,
            others: Vec::new(),
            repeat: 1,
            dedupe: Dedupe::Auto,
        }
    }

    #[test]
    fn rows_that_ask_the_same_are_asked_once_where_chance_has_no_part() {
        let with = |temperature: &str| {
            let mut job = spec();
            let value = RawValue::from_string(temperature.into()).unwrap();
            job.parameters.insert("temperature".into(), value);
            job
        };
        assert!(!spec().is_deduped(), "the endpoint's default is not 0");
        for (temperature, is_deduped) in [("0", true), ("0.0", true), ("0.01", false), ("1", false)]
        {
            let auto = with(temperature);
            assert_eq!(auto.is_deduped(), is_deduped, "{temperature}");
            assert!(JobSpec { dedupe: Dedupe::On, ..auto.clone() }.is_deduped());
            assert!(!JobSpec { dedupe: Dedupe::Off, ..auto }.is_deduped());
        }
        assert!(JobSpec { protocol: Protocol::Embeddings, ..spec() }.is_deduped());
        // What is not said is as it was planned.
        let (on, off) = (JobSpec { dedupe: Dedupe::On, ..spec() }, with("0"));
        let off = JobSpec { dedupe: Dedupe::Off, ..off };
        assert_eq!(on.differences(&spec()), []);
        assert_eq!(off.differences(&with("0")), []);
        assert_eq!(off.differences(&JobSpec { dedupe: Dedupe::On, ..off.clone() }).len(), 1);
    }

    #[test]
    fn names_each_part_that_differs_with_both_values() {
        let old = spec();
        let mut new = spec();
        assert_eq!(old.differences(&new), []);
        new.include_input = true;
        assert_eq!(old.differences(&new), [], "what envelopes show changes no answer");
        new.model = "n".into();
        new.protocol = Protocol::Messages;
        new.instruction = Some("Be brief.".into());
        new.parameters.insert("temperature".into(), RawValue::from_string("0.20".into()).unwrap());
        new.schema = Some("{}".into());
        let shown: Vec<_> = old
            .differences(&new)
            .into_iter()
            .map(|d| format!("{}: {} → {}", d.part, d.old, d.new))
            .collect();
        assert_eq!(
            shown,
            [
                "model: `m` → `n`",
                "protocol: `chat` → `messages`",
                "instruction: (none) → `Be brief.`",
                "parameter temperature: (none) → `0.20`",
                "schema: (none) → `{}`"
            ]
        );
    }

    #[test]
    fn of_several_models_it_says_whose_part_differs() {
        let other = |named: &str, model: &str| OtherModel {
            named: named.into(),
            model: model.into(),
            protocol: Protocol::Chat,
            parameters: Parameters::new(),
        };
        let of = |others: Vec<OtherModel>| JobSpec { named: Some("m".into()), others, ..spec() };
        let old = of(vec![other("x.n", "n")]);
        let told = |new: &JobSpec| {
            let all = old.differences(new).into_iter();
            all.map(|d| format!("{}: {} → {}", d.part, d.old, d.new)).collect::<Vec<_>>()
        };
        assert!(told(&old).is_empty());
        assert_eq!(told(&spec()), ["models: `m, x.n` → `m`"]);
        assert_eq!(told(&of(vec![other("y.n", "n")])), ["models: `m, x.n` → `m, y.n`"]);
        assert_eq!(told(&of(vec![other("x.n", "o")])), ["model of x.n: `n` → `o`"]);
        let mut warm = old.clone();
        let one = RawValue::from_string("1".into()).unwrap();
        warm.others[0].parameters.insert("temperature".into(), one);
        assert_eq!(told(&warm), ["parameter temperature of x.n: (none) → `1`"]);
        let twice = JobSpec { repeat: 2, ..old.clone() };
        assert_eq!(told(&twice), ["repeat: `1` → `2`"]);
        // Of one answer a row nobody says what its model is called.
        let named = JobSpec { named: Some("lab.m".into()), repeat: 3, ..spec() };
        assert_eq!(spec().differences(&named).len(), 1);
    }

    #[test]
    fn a_spec_of_before_there_were_schemas_has_none() {
        let text = serde_json::to_string(&spec()).unwrap();
        assert!(!text.contains("schema"), "{text}");
        let old: JobSpec = serde_json::from_str(&text).unwrap();
        assert_eq!(spec().differences(&old), []);
    }

    #[test]
    fn a_spec_of_before_there_were_attachments_has_none() {
        let text = serde_json::to_string(&spec()).unwrap();
        assert!(!text.contains("attachment"), "{text}");
        let old: JobSpec = serde_json::from_str(&text).unwrap();
        assert_eq!(spec().differences(&old), []);
        let new =
            JobSpec { attachment_field: Some("photo".into()), max_attachment_bytes: 7, ..spec() };
        let parts: Vec<_> = old.differences(&new).into_iter().map(|it| (it.part, it.new)).collect();
        let expected = [("attachment-field", "`photo`"), ("max-attachment-bytes", "`7`")];
        assert_eq!(parts, expected.map(|(part, new)| (part.to_owned(), new.to_owned())));
        let text = serde_json::to_string(&new).unwrap();
        assert_eq!(new.differences(&serde_json::from_str(&text).unwrap()), []);
    }

    #[test]
    fn a_spec_of_before_there_were_protocols_is_one_of_chat() {
        let text = serde_json::to_string(&spec()).unwrap();
        assert!(!text.contains("protocol"), "{text}");
        let old: JobSpec = serde_json::from_str(&text).unwrap();
        assert_eq!(spec().differences(&old), []);
    }

    #[test]
    fn long_values_are_cut_to_where_they_differ() {
        let mut old = spec();
        let mut new = spec();
        old.prompt = format!("{}old end", "same ".repeat(100));
        new.prompt = format!("{}new end", "same ".repeat(100));
        let difference = old.differences(&new).remove(0);
        assert!(difference.old.contains("old end"), "{}", difference.old);
        assert!(difference.new.contains("new end"), "{}", difference.new);
        assert!(difference.old.chars().count() < 70);
    }
}
