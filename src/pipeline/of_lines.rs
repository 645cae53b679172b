//! What a plan would come to whose lines name their models themselves, by model.

use std::collections::BTreeMap;

use super::Error;
use super::estimate::{Bounds, sample, tokens_of, wanted};
use crate::input::Sources;
use crate::job::{Kinds, Names};
use crate::prompt::Request;
use crate::report::{Counted, Estimate, Expecting};
use crate::store::{Held, Manifest};
use crate::tokens::Tokenizer;
use crate::work::{Answerer, Member, Needs};

/// A model in a service tier, at an endpoint.
type Asked = (Option<String>, String, Option<String>);

/// The lines that ask a model.
#[derive(Debug, Default)]
struct Lines {
    rows: u64,
    /// These and those that take their outcomes.
    answered: u64,
    tokens: u64,
    bounds: Bounds,
}

/// How many models are told apart.
const MODELS: usize = 1000;

/// What the lines come to, by the model that answers them. Lines that cannot be sent are the first one's.
pub(super) fn estimate(
    (dir, manifest, sources): (&Held, &Manifest, &Sources),
    answerer: &Answerer,
    expecting: &Expecting,
) -> Result<Vec<Estimate>, Error> {
    let (job, all) = (&manifest.job, wanted(manifest));
    let names = Names::of(job, manifest.base_url.is_some());
    let mut by_model: BTreeMap<Asked, Lines> = BTreeMap::new();
    let (mut rows, mut invalid) = (0_u64, 0_u64);
    let (mut answered, mut unasked) = (0_u64, 0_u64);
    sample((dir, manifest, sources), job, all.asked, &mut |prompt, stands_for| {
        rows += 1;
        answered += stands_for;
        let prompt = prompt.ok();
        let request = prompt.as_ref().and_then(|prompt| prompt.request.as_deref());
        let asked = request.and_then(|request| asked_of(request, names.as_ref(), answerer));
        let (Some(prompt), Some((member, asked))) = (&prompt, asked) else {
            invalid += 1;
            unasked += stands_for;
            return;
        };
        let tokenizer = Tokenizer::of(&asked.1);
        let asked = match by_model.len() < MODELS || by_model.contains_key(&asked) {
            true => asked,
            false => (member.place.clone(), "others".to_owned(), None),
        };
        let lines = by_model.entry(asked).or_default();
        lines.rows += 1;
        lines.answered += stands_for;
        lines.tokens += tokens_of(prompt, tokenizer, tokenizer.around(job.protocol, None, None));
        lines.bounds.note(request);
    })?;
    if by_model.is_empty() {
        return Ok(vec![Estimate::of_nothing(&job.models_shown(), manifest.rows(), &all)]);
    }
    let is_one = by_model.len() == 1;
    let mut left = (invalid, unasked);
    let estimates = by_model.into_iter().map(|(asked, lines)| {
        let (invalid, unasked) = std::mem::take(&mut left);
        let sampled = lines.rows + invalid;
        let counted = Counted {
            selected: share(all.selected, lines.answered + unasked, answered),
            asked: share(all.asked, sampled, rows),
            rows: sampled,
            invalid,
            tokens: lines.tokens,
            answers: lines.bounds.answers,
            ..all
        };
        let expecting = Expecting { most: lines.bounds.mean(), ..*expecting };
        let (place, model, tier) = &asked;
        let of_place =
            |it: &&Member| it.place == *place && [model, "*"].contains(&it.name.as_str());
        let prices = answerer.members().find(of_place).and_then(|it| it.prices.as_ref());
        let price = prices.and_then(|prices| prices.of(model, tier.as_deref()));
        let tokenizer = Tokenizer::of(model).name();
        let told = (model.as_str(), tokenizer, manifest.rows());
        let estimate = Estimate::new(told, &counted, &expecting, price.as_ref());
        let asked_model = (!is_one).then(|| shown(&asked));
        let leaves_out_attachments = lines.bounds.has_files;
        Estimate { asked_model, leaves_out_attachments, ..estimate }
    });
    Ok(estimates.collect())
}

/// Who is asked by a request, and for which model.
fn asked_of<'a>(
    request: &Request,
    names: Option<&Names>,
    answerer: &'a Answerer,
) -> Option<(&'a Member, Asked)> {
    let model = request.model.as_deref()?;
    let name = names.and_then(|names| names.place(model));
    let member = answerer.first_for(0, Needs { kinds: Kinds::TEXT, name }).ok()?;
    let model = request.stands_for.as_deref().unwrap_or(model).to_owned();
    Some((member, (member.place.clone(), model, request.tier.clone())))
}

fn share(of: u64, part: u64, whole: u64) -> u64 {
    let exact = u128::from(of) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

fn shown((place, model, tier): &Asked) -> String {
    let place = place.as_ref().map_or_else(String::new, |place| format!("{place}."));
    let tier = tier.as_ref().map_or_else(String::new, |tier| format!(" ({tier})"));
    format!("{place}{model}{tier}")
}
