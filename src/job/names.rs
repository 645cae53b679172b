//! Names of models in the lines of request files, and the models that answer to them.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::JobSpec;
use super::spec::Difference;

/// The name that stands for all that nothing is said of.
pub const ANY_NAME: &str = "*";

/// What a name in lines stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedModel {
    /// The name that lines have, or [`ANY_NAME`].
    pub name: String,
    /// The model, as its endpoint names it.
    pub model: String,
}

/// Who answers lines by the names that they have: the place of a model in [`JobSpec::names`], or, behind
/// all of those, the endpoint that is asked for each line's own model.
#[derive(Debug)]
pub struct Names {
    places: HashMap<String, usize>,
    others: Option<usize>,
}

impl Names {
    /// Those of a job; nothing where lines have no names that count. `has_own` says whether there is an
    /// endpoint for names that stand for no other.
    #[must_use]
    pub fn of(job: &JobSpec, has_own: bool) -> Option<Self> {
        if job.names.is_empty() {
            return None;
        }
        let places: HashMap<_, _> =
            job.names.iter().enumerate().map(|(place, it)| (it.name.clone(), place)).collect();
        let others = places.get(ANY_NAME).copied();
        let others = others.or_else(|| has_own.then(|| job.own_place()));
        Some(Self { places, others })
    }

    /// Who answers a line with this name; nothing where nobody does.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        // That all others are one model is no name.
        self.places.get(name).filter(|_| name != ANY_NAME).copied().or(self.others)
    }
}

impl JobSpec {
    /// Where the endpoint stands that is asked for each line's own model, behind all named ones.
    #[must_use]
    pub fn own_place(&self) -> usize {
        self.names.len()
    }

    /// What a request that names a model is asked of, as far as its line does not say it itself: the
    /// model that the name stands for. Nothing where it stands for itself.
    #[must_use]
    pub fn stands_for(&self, name: &str) -> Option<&str> {
        let of = |name: &str| self.names.iter().find(|it| it.name == name);
        let found = of(name).filter(|_| name != ANY_NAME).or_else(|| of(ANY_NAME));
        found.map(|it| it.model.as_str())
    }

    /// In what the names of this job (the old one) stand for others than those of `new`.
    pub(super) fn other_names(&self, new: &Self) -> Vec<Difference> {
        let shown = |model: Option<&NamedModel>| model.map(|it| it.model.clone());
        let of = |job: &Self, name: &str| shown(job.names.iter().find(|it| it.name == name));
        let names: std::collections::BTreeSet<_> =
            self.names.iter().chain(&new.names).map(|it| it.name.as_str()).collect();
        let part = |name: &str| {
            let (old, new) = (of(self, name), of(new, name));
            let told =
                |model: Option<String>| model.map_or("(none)".into(), |it| format!("`{it}`"));
            let part = format!("model for {name:?}");
            (old != new).then(|| Difference { part, old: told(old), new: told(new) })
        };
        names.into_iter().filter_map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::spec::tests::spec;

    fn job(names: &[(&str, &str)]) -> JobSpec {
        let named = |(name, model): &(&str, &str)| NamedModel {
            name: (*name).into(),
            model: (*model).into(),
        };
        JobSpec { names: names.iter().map(named).collect(), ..spec() }
    }

    #[test]
    fn a_name_is_answered_by_its_model_or_by_the_one_for_all_others_or_by_its_own() {
        let places = |job: &JobSpec, has_own| {
            let names = Names::of(job, has_own).unwrap();
            ["a", "b", "c", "*"].map(|name| names.place(name))
        };
        let two = job(&[("b", "x"), ("a", "y")]);
        assert_eq!(places(&two, false), [Some(1), Some(0), None, None]);
        assert_eq!(places(&two, true), [Some(1), Some(0), Some(2), Some(2)]);
        let rest = job(&[("a", "x"), ("*", "y")]);
        assert_eq!(places(&rest, true), [Some(0), Some(1), Some(1), Some(1)]);
        assert!(Names::of(&spec(), true).is_none(), "rows have no names");
        assert_eq!(["a", "q"].map(|it| rest.stands_for(it)), [Some("x"), Some("y")]);
        assert_eq!((two.stands_for("q"), spec().stands_for("q")), (None, None));
    }

    #[test]
    fn another_model_for_a_name_is_another_question_and_the_order_of_names_is_none() {
        let old = job(&[("a", "x"), ("b", "y")]);
        assert_eq!(old.differences(&job(&[("b", "y"), ("a", "x")])), []);
        let told = |new: &JobSpec| {
            let all = old.differences(new).into_iter();
            all.map(|it| format!("{}: {} → {}", it.part, it.old, it.new)).collect::<Vec<_>>()
        };
        assert_eq!(told(&job(&[("a", "x"), ("b", "z")])), ["model for \"b\": `y` → `z`"]);
        assert_eq!(told(&job(&[("a", "x")])), ["model for \"b\": `y` → (none)"]);
        let text = serde_json::to_string(&spec()).unwrap();
        assert!(!text.contains("names"), "{text}");
        let text = serde_json::to_string(&old).unwrap();
        assert_eq!(old.differences(&serde_json::from_str(&text).unwrap()), []);
    }
}
