//! Whether an answer of an earlier generation is one to what is asked now.

use std::collections::HashMap;

use super::matches::Match;
use crate::job::{JobSpec, Setting, Variant};
use crate::store::{Asked, Manifest};

/// What is kept besides answers to questions that are as they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Answers of rows that changed.
    pub changed_rows: bool,
    /// Answers that another model gave.
    pub model: bool,
    /// Answers that were asked for with other parameters.
    pub parameters: bool,
    /// Answers to another instruction, or to another template over the same row.
    pub prompt: bool,
    /// Answers to another schema.
    pub schema: bool,
}

impl Keeping {
    /// What the answers to an earlier setting count as answers to, once these parts of it may differ.
    pub(super) fn accept(self, then: &Setting, now: &Setting) -> Setting {
        let of = |is_kept: bool| if is_kept { now } else { then };
        // Where several models may answer, each has its own parameters.
        let has_pool = !(then.pool.is_empty() && now.pool.is_empty());
        Setting {
            model: of(self.model || then.pool == now.pool && has_pool).model.clone(),
            protocol: of(self.model).protocol,
            pool: of(self.model).pool.clone(),
            instruction: of(self.prompt).instruction.clone(),
            parameters: of(self.parameters || self.model && has_pool).parameters.clone(),
            schema: of(self.schema).schema.clone(),
        }
    }
}

/// A variant of both plans, by its number in each, and the place of its model in each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Same {
    pub(super) old: usize,
    pub(super) new: usize,
    pub(super) old_model: usize,
    pub(super) new_model: usize,
}

/// The variants of both plans, and how many the new one has besides.
pub(super) fn same_variants(old: &JobSpec, new: &JobSpec) -> (Vec<Same>, usize) {
    let models = old.models_in(new);
    let mut kept = Vec::new();
    for number in 0..new.variants() {
        let Variant { model: new_model, repeat, .. } = new.variant(number);
        if let Some(old_model) = models[new_model].filter(|_| repeat <= old.repeat) {
            let old = old.number_of(old_model, repeat);
            kept.push(Same { old, new: number, old_model, new_model });
        }
    }
    let more = new.variants() - kept.len();
    (kept, more)
}

/// What is asked now, and what was asked in earlier generations.
pub(super) struct Settings<'a> {
    old: &'a Manifest,
    // By model.
    now: Vec<Setting>,
    keeping: Keeping,
    // Whether what a generation asked of all rows alike, by way of a model, counts as what one asks
    // now, and whether it is the same.
    known: HashMap<(u32, usize), (bool, bool)>,
}

impl<'a> Settings<'a> {
    pub(super) fn new(old: &'a Manifest, job: &JobSpec, keeping: Keeping) -> Self {
        let now = (0..job.model_count()).map(|model| job.setting(model)).collect();
        Self { old, now, keeping, known: HashMap::new() }
    }

    /// Whether an outcome counts as one of the question that is asked now, with this prompt.
    pub(super) fn is_answer_to(
        &mut self,
        prompt: u64,
        asked: Option<Asked>,
        it: &Match,
        variant: Same,
    ) -> bool {
        let Some(asked) = asked else { return false };
        let Keeping { changed_rows, prompt: any, model, .. } = self.keeping;
        // What a request asks is its line, and what the model that it names stands for.
        let any_prompt = any || model && self.old.job.dialect.is_request();
        // Where rows have no ids, one with another text may be another row.
        let is_same_row = it.is_same_text || !self.old.job.identity().is_by_number();
        let is_kept =
            asked.prompt == prompt || changed_rows && is_same_row || any_prompt && it.is_same_text;
        is_kept && self.compared(asked.generation, variant).0
    }

    /// Whether a generation asked all rows what is asked now, and is not only accepted as that.
    pub(super) fn was_asked_alike(&mut self, generation: u32, variant: Same) -> bool {
        self.compared(generation, variant).1
    }

    fn compared(&mut self, generation: u32, variant: Same) -> (bool, bool) {
        let Self { old, now, keeping, known } = self;
        let Same { old_model, new_model, .. } = variant;
        *known.entry((generation, new_model)).or_insert_with(|| {
            let now = &now[new_model];
            let then = old.answers_to(generation, old_model);
            let counts = then.iter().any(|then| keeping.accept(then, now) == *now);
            (counts, old.setting_of(generation, old_model).as_ref() == Some(now))
        })
    }
}
