//! Pools: which models may answer a job, where they are, and what each can take in.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{JobSpec, Modality, Parameters, Protocol, Reference, Transport};

/// A set of modalities: what a model takes in, or what a row needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kinds(u8);

impl Kinds {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// Words alone.
    pub const TEXT: Self = Self(1);
    /// All of them.
    pub const ALL: Self = Self(0b1111);
    const EACH: [Modality; 4] =
        [Modality::Text, Modality::Image, Modality::Document, Modality::Audio];

    /// One of them.
    #[must_use]
    pub fn of(modality: Modality) -> Self {
        Self(1 << modality as u8)
    }

    /// These and another.
    #[must_use]
    pub fn with(self, modality: Modality) -> Self {
        Self(self.0 | Self::of(modality).0)
    }

    /// What a row needs that names these attachments: by their names, for they are not read yet.
    #[must_use]
    pub fn needed(attachments: &[String]) -> Self {
        let add = |kinds: Self, it: &String| kinds.with(Reference::parse(it).modality());
        if attachments.is_empty() { Self::TEXT } else { attachments.iter().fold(Self::NONE, add) }
    }

    /// What can be sent in a protocol; see `docs/attachments.md`.
    #[must_use]
    pub fn of_protocol(protocol: Protocol) -> Self {
        let seen = Self::TEXT.with(Modality::Image).with(Modality::Document);
        match protocol {
            Protocol::Chat => Self::ALL,
            Protocol::Responses | Protocol::Messages => seen,
            Protocol::Embeddings => Self::TEXT,
        }
    }

    /// Those that are among `others` as well.
    #[must_use]
    pub fn among(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Whether all of `needed` are among these.
    #[must_use]
    pub fn takes(self, needed: Self) -> bool {
        needed.0 & !self.0 == 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = Self::EACH.into_iter();
        all.filter(move |modality| self.takes(Self::of(*modality))).map(Modality::name)
    }

    /// Those that are named; the name that is none of theirs is the error.
    ///
    /// # Errors
    /// When a name is not known.
    pub fn named<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, &'n str> {
        names.into_iter().try_fold(Self::NONE, |kinds, name| {
            let found = Self::EACH.into_iter().find(|modality| modality.name() == name);
            found.map(|modality| kinds.with(modality)).ok_or(name)
        })
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(", "))
    }
}

impl Serialize for Kinds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for Kinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Self::named(names.iter().map(String::as_str))
            .map_err(|name| serde::de::Error::custom(format!("{name:?} is no kind of content")))
    }
}

/// A model that may answer a job, with all that decides its answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolModel {
    /// As its endpoint names it.
    pub model: String,
    /// The protocol it is spoken to in.
    #[serde(default, skip_serializing_if = "Protocol::is_chat")]
    pub protocol: Protocol,
    /// Further fields of the request body.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
}

impl PoolModel {
    /// All of it in one text: two that have the same text are the same.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = self.model.clone();
        let mut sign = '?';
        for (name, value) in &self.parameters {
            text.push(sign);
            text.push_str(&format!("{name}={}", value.get()));
            sign = '&';
        }
        if !self.protocol.is_chat() {
            text.push_str(&format!(" ({})", self.protocol.name()));
        }
        text
    }
}

/// A pool as a plan notes it. Only its models decide answers, and they stand in the job; this tells
/// those who work the plan where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name: `auto`, or that in a config file.
    pub name: String,
    /// Who answers.
    pub members: Vec<PoolMember>,
}

/// A member of a pool: a model at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolMember {
    /// Which of [`JobSpec::models`] it is, from 0.
    pub model: usize,
    /// The endpoint or provider, by name: whose key it gets.
    pub provider: Option<String>,
    /// Where it was when the plan was made.
    pub base_url: String,
    /// How its calls travel.
    #[serde(default, skip_serializing_if = "Transport::is_http")]
    pub transport: Transport,
    /// Its share of the calls, beside the weights of the others.
    pub weight: u32,
    /// What it takes in.
    pub kinds: Kinds,
}

impl JobSpec {
    /// The models that may answer: those of the pool, or the one there is.
    #[must_use]
    pub fn models(&self) -> Vec<PoolModel> {
        if self.pool.is_empty() {
            let (model, parameters) = (self.model.clone(), self.parameters.clone());
            return vec![PoolModel { model, protocol: self.protocol, parameters }];
        }
        self.pool.clone()
    }

    /// This job as one of its models is asked.
    #[must_use]
    pub fn asking(&self, model: &PoolModel) -> Self {
        let PoolModel { model, protocol, parameters } = model.clone();
        Self { model, protocol, parameters, pool: Vec::new(), ..self.clone() }
    }

    /// This job for any of several models, under a name for them all. Where they are one and the same
    /// model it is the job of that one: how many endpoints serve it decides no answer.
    #[must_use]
    pub fn for_any(&self, name: &str, mut models: Vec<PoolModel>) -> Self {
        models.sort_by_key(PoolModel::shown);
        models.dedup_by_key(|model| model.shown());
        match &models[..] {
            [one] => self.asking(one),
            _ => Self {
                model: name.to_owned(),
                protocol: Protocol::Chat,
                parameters: Parameters::new(),
                pool: models,
                ..self.clone()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::spec::tests::spec;

    fn model(name: &str) -> PoolModel {
        PoolModel { model: name.into(), protocol: Protocol::Chat, parameters: Parameters::new() }
    }

    #[test]
    fn kinds_are_sets() {
        let both = Kinds::named(["image", "text"]).unwrap();
        assert_eq!(both.to_string(), "text, image");
        assert!(both.takes(Kinds::TEXT) && !Kinds::TEXT.takes(both) && both.takes(Kinds::NONE));
        assert_eq!(Kinds::named(["text", "smell"]), Err("smell"));
        let needed = |names: &[&str]| {
            Kinds::needed(&names.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string()
        };
        assert_eq!((needed(&[]), needed(&["a.png"])), ("text".into(), "image".into()));
        assert_eq!(needed(&["https://x/a.wav?q", "b.pdf"]), "document, audio");
        let json = serde_json::to_string(&both).unwrap();
        assert_eq!(json, r#"["text","image"]"#);
        assert_eq!(serde_json::from_str::<Kinds>(&json).unwrap(), both);
        assert_eq!(Kinds::ALL.names().count(), Kinds::EACH.len());
    }

    #[test]
    fn several_endpoints_of_one_model_are_the_job_of_that_model() {
        let replicas = spec().for_any("pair", vec![model("m"), model("m")]);
        assert_eq!(spec().differences(&replicas), []);
        assert_eq!(
            serde_json::to_string(&replicas).unwrap(),
            serde_json::to_string(&spec()).unwrap()
        );
        let two = spec().for_any("pair", vec![model("n"), model("m"), model("n")]);
        assert_eq!((two.model.as_str(), two.pool.len()), ("pair", 2));
        let renamed = spec().for_any("couple", vec![model("m"), model("n")]);
        assert_eq!(two.differences(&renamed), [], "a name decides nothing");
        assert_eq!(spec().differences(&two.asking(&model("m"))), []);
        let told: Vec<_> =
            spec().differences(&two).into_iter().map(|it| (it.part, it.new)).collect();
        assert_eq!(told, [("models".to_owned(), "`m, n`".to_owned())]);
    }

    #[test]
    fn a_model_is_another_with_other_parameters() {
        let with = |value: &str| {
            let value = serde_json::value::RawValue::from_string(value.into()).unwrap();
            PoolModel { parameters: [("top_p".to_owned(), value)].into(), ..model("m") }
        };
        let told = |one: &JobSpec, other: &JobSpec| one.differences(other).len();
        let job = |value| spec().for_any("p", vec![with(value), model("n")]);
        assert_eq!(told(&job("0.5"), &job("0.5")), 0);
        assert_eq!(told(&job("0.5"), &job("0.50")), 1);
    }
}
