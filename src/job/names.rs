//! Names of models in the lines of request files, and the models that answer to them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::spec::Difference;
use super::{Failure, FailureKind, JobSpec};

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

    /// The failure of a line whose name nobody answers to.
    #[must_use]
    pub fn unknown(name: &str) -> Failure {
        let name: String = name.chars().take(100).collect();
        let message = format!("nothing says what the model {name:?} stands for, or where it is");
        Failure::new(FailureKind::NoModel, message)
    }

    /// Who answers a line with this name; nothing where nobody does.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        // That all others are one model is no name.
        self.places.get(name).filter(|_| name != ANY_NAME).copied().or(self.others)
    }
}

/// How many different names are told apart: more are the lines' own business.
const NAMES_MOST: usize = 1000;

/// Where something is first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirstLine {
    /// Its row among those of all inputs: by this lines follow one another.
    pub row: u64,
    /// Its number in its file, from 1.
    pub line: u64,
    /// The file, where there are several.
    pub file: Option<String>,
}

impl fmt::Display for FirstLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{} of {file}", self.line),
            None => self.line.fmt(f),
        }
    }
}

/// How many lines have which name, and in which line each is first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameCounts {
    /// By name: how many lines, and the first.
    pub names: BTreeMap<String, (u64, FirstLine)>,
    /// Lines with further names.
    pub more: u64,
}

impl NameCounts {
    /// Takes note of a name in a line behind those noted before; which that is is asked once a name.
    pub fn note(&mut self, name: &str, line: impl Fn() -> FirstLine) {
        match self.names.get_mut(name) {
            Some((lines, _)) => *lines += 1,
            None => self.add(name, (1, line())),
        }
    }

    /// Takes note of lines with a name, of which the first is told.
    fn add(&mut self, name: &str, (lines, first): (u64, FirstLine)) {
        if let Some((sum, earliest)) = self.names.get_mut(name) {
            *sum += lines;
            if first < *earliest {
                *earliest = first;
            }
        } else if self.names.len() < NAMES_MOST {
            self.names.insert(name.to_owned(), (lines, first));
        } else {
            self.more += lines;
        }
    }

    /// Adds those of other lines.
    pub fn merge(&mut self, other: &Self) {
        self.more += other.more;
        other.names.iter().for_each(|(name, counts)| self.add(name, counts.clone()));
    }

    /// How many lines there are.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.names.values().map(|(lines, _)| lines).sum::<u64>() + self.more
    }

    /// The names, as a plan notes them.
    #[must_use]
    pub fn models(&self) -> OwnModels {
        let names = self.names.keys().cloned().collect();
        OwnModels { names, are_more: self.more > 0 }
    }
}

/// The models that lines name and that stand for themselves, as a plan notes them: so that it is known
/// what they cost before they are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnModels {
    /// The first of them.
    pub names: Vec<String>,
    /// Whether there are others.
    #[serde(default)]
    pub are_more: bool,
}

impl OwnModels {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
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

    /// What names stand for, for people.
    pub(super) fn names_shown(&self) -> String {
        let shown = |it: &NamedModel| match it.name.as_str() {
            ANY_NAME => format!("all others → {}", it.model),
            name => format!("{name} → {}", it.model),
        };
        let mut all: Vec<_> = self.names.iter().map(shown).collect();
        if !self.names.iter().any(|it| it.name == ANY_NAME) {
            all.push("each line's own".to_owned());
        }
        all.join(", ")
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
    fn lines_are_counted_by_their_names_and_the_first_is_known() {
        let at = |row| FirstLine { row, line: 2 * row, file: None };
        let mut counts = NameCounts::default();
        counts.note("b", || at(7));
        counts.note("b", || unreachable!());
        counts.note("a", || at(9));
        let mut others = NameCounts::default();
        others.note("b", || at(3));
        counts.merge(&others);
        assert_eq!(counts.names["b"], (3, at(3)));
        assert_eq!((counts.lines(), counts.models().names), (4, vec!["a".into(), "b".into()]));
        for number in 0..2000 {
            counts.note(&format!("m{number}"), || at(number));
        }
        assert_eq!((counts.names.len(), counts.lines()), (1000, 2004));
        assert!(counts.models().are_more);
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
