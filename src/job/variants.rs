//! The variants of a job: several models over the same rows, and each asked several times.
//!
//! Models are in the order in which they were named, and each has its repeats one after the other:
//! of the models a and b, asked twice, the variants are a 1, a 2, b 1, b 2.

use serde::{Deserialize, Serialize};

use super::Protocol;
use super::spec::{JobSpec, Parameters, Setting};

/// The name of the model that answers with its prompt.
pub const PASSTHROUGH: &str = "passthrough";

/// What stands in the place of a model's name in a job whose requests each name their own.
pub const OWN_MODEL: &str = "*";

/// A model that is asked besides the first of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherModel {
    /// The model string that it was named with: envelopes show it.
    pub named: String,
    /// The model, as its endpoint names it.
    pub model: String,
    /// The protocol it is spoken to in.
    #[serde(default, skip_serializing_if = "Protocol::is_chat")]
    pub protocol: Protocol,
    /// Further fields of its request bodies.
    pub parameters: Parameters,
}

/// One of the answers that a job wants to each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant<'a> {
    /// The place of its model among those of the job, from 0.
    pub model: usize,
    /// What envelopes call that model.
    pub named: &'a str,
    /// Which of the model's answers it is, from 1.
    pub repeat: u32,
}

impl JobSpec {
    /// How many models are asked.
    #[must_use]
    pub fn model_count(&self) -> usize {
        1 + self.others.len()
    }

    /// How many answers are wanted to each row.
    #[must_use]
    pub fn variants(&self) -> usize {
        self.model_count() * self.repeats()
    }

    /// How often each model is asked; what a damaged plan may say is not believed.
    fn repeats(&self) -> usize {
        self.repeat.max(1) as usize
    }

    /// Whether more than one answer is wanted to a row, so that envelopes say which they are.
    #[must_use]
    pub fn is_varied(&self) -> bool {
        self.variants() > 1
    }

    /// A variant by its number, from 0.
    #[must_use]
    pub fn variant(&self, number: usize) -> Variant<'_> {
        let model = self.model_of(number);
        let repeat = u32::try_from(number % self.repeats()).unwrap_or_default() + 1;
        Variant { model, named: self.named(model), repeat }
    }

    /// The place of a variant's model among those of the job.
    #[must_use]
    pub fn model_of(&self, variant: usize) -> usize {
        variant / self.repeats()
    }

    /// The number of a variant.
    #[must_use]
    pub fn number_of(&self, model: usize, repeat: u32) -> usize {
        model * self.repeats() + repeat.max(1) as usize - 1
    }

    /// What a model of the job is called by those who asked for it.
    #[must_use]
    pub fn named(&self, model: usize) -> &str {
        match model.checked_sub(1).and_then(|other| self.others.get(other)) {
            Some(other) => &other.named,
            None => self.named.as_deref().unwrap_or(&self.model),
        }
    }

    /// The name of a model of the job, as its endpoint has it, its protocol and its parameters.
    #[must_use]
    pub fn called(&self, model: usize) -> (&str, Protocol, &Parameters) {
        match model.checked_sub(1).and_then(|other| self.others.get(other)) {
            Some(it) => (&it.model, it.protocol, &it.parameters),
            None => (&self.model, self.protocol, &self.parameters),
        }
    }

    /// Whether a model of the job is called, or answers by itself.
    #[must_use]
    pub fn is_called(&self, model: usize) -> bool {
        self.called(model).0 != PASSTHROUGH
    }

    /// Whether any is.
    #[must_use]
    pub fn is_any_called(&self) -> bool {
        (0..self.model_count()).any(|model| self.is_called(model))
    }

    /// The job of one of its models alone.
    #[must_use]
    pub fn of_model(&self, model: usize) -> Self {
        let alone = Self { others: Vec::new(), named: None, repeat: 1, ..self.clone() };
        let (model, protocol, parameters) = self.called(model);
        let (model, parameters) = (model.to_owned(), parameters.clone());
        Self { model, protocol, parameters, ..alone }
    }

    /// For each model of `now`, which model of this earlier job it is, if it is any: one that is asked
    /// the same, first of all under the same name; else one of the same name; else one that nothing
    /// else was found for, when `now` has one for it.
    #[must_use]
    pub fn models_in(&self, now: &Self) -> Vec<Option<usize>> {
        let mut found = vec![None; now.model_count()];
        let settings = |job: &Self| (0..job.model_count()).map(|it| job.setting(it)).collect();
        let (before, after): (Vec<Setting>, Vec<Setting>) = (settings(self), settings(now));
        let is_named = |old: usize, new: usize| self.named(old) == now.named(new);
        let is_same = |old: usize, new: usize| before[old] == after[new];
        let tests: [&dyn Fn(usize, usize) -> bool; 4] =
            [&|old, new| is_same(old, new) && is_named(old, new), &is_same, &is_named, &|_, _| {
                true
            }];
        for test in tests {
            for new in 0..found.len() {
                if found[new].is_none() {
                    let is_free = |old: &usize| !found.contains(&Some(*old)) && test(*old, new);
                    found[new] = (0..self.model_count()).find(is_free);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::spec::tests::spec;

    fn job(models: &[(&str, &str)], repeat: u32) -> JobSpec {
        let mut job = JobSpec { repeat, ..spec() };
        (job.named, job.model) = (Some(models[0].0.into()), models[0].1.into());
        job.others = models[1..]
            .iter()
            .map(|(named, model)| OtherModel {
                named: (*named).into(),
                model: (*model).into(),
                protocol: Protocol::Chat,
                parameters: Parameters::new(),
            })
            .collect();
        job
    }

    #[test]
    fn variants_are_models_and_each_its_repeats() {
        let job = job(&[("a", "x"), ("b", "y")], 2);
        let all: Vec<_> = (0..job.variants())
            .map(|number| {
                let Variant { model, named, repeat } = job.variant(number);
                assert_eq!(job.number_of(model, repeat), number);
                format!("{named}{repeat}={}", job.of_model(model).model)
            })
            .collect();
        assert_eq!(all, ["a1=x", "a2=x", "b1=y", "b2=y"]);
        assert!(!spec().is_varied());
        assert_eq!(spec().variant(0), Variant { model: 0, named: "m", repeat: 1 });
    }

    #[test]
    fn a_model_is_found_again_by_what_is_asked_of_it_and_by_its_name() {
        let found = |old: &[(&str, &str)], new: &[(&str, &str)]| {
            let found = job(old, 1).models_in(&job(new, 1));
            found.iter().map(|it| it.map_or("-".into(), |it| it.to_string())).collect::<String>()
        };
        let (a, b, c) = (("a", "a"), ("b", "b"), ("c", "c"));
        assert_eq!(found(&[a], &[a, b]), "0-");
        assert_eq!(found(&[a], &[b, a]), "-0");
        assert_eq!(found(&[a, b], &[b]), "1");
        assert_eq!(found(&[a, b], &[b, a]), "10");
        assert_eq!(found(&[a, b], &[c, b]), "01", "what is left takes the place of what is gone");
        // The same model at two endpoints, the other way round, or at a third one.
        let (x, y, z) = (("x.q", "q"), ("y.q", "q"), ("z.q", "q"));
        assert_eq!(found(&[x, y], &[y, x]), "10");
        assert_eq!(found(&[x, y], &[z, y]), "01");
    }
}
