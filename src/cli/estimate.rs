//! What a job will come to, before it is run.

use std::path::Path;
use std::process::ExitCode;

use super::args::EstimateArgs;
use super::exit;
use super::preview::look_ahead;
use super::question::question;
use super::serving::Serving;
use super::surroundings::{Failed, Settings, Surroundings};
use super::typed::Typed;
use crate::job::{JobSpec, Money};
use crate::pipeline::{Error, Preview, Question};
use crate::price;
use crate::report::{Estimate, Expecting, Range};
use crate::store::WorkDir;

/// Prints what a job will come to. Nothing is called, and nothing kept.
pub(super) fn estimate(args: &EstimateArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    let serving = Serving::of(&args.model, &args.serve, None)?;
    let model = (&args.model, serving.as_ref());
    let planned = args.work_dir.as_deref();
    let (question, mut reach) =
        question(&args.input, &args.prompt, &args.schema, model, false, planned)?;
    let (required, config) = (args.model.require_model.as_deref(), &args.config.read);
    let answerer = reach.answerer(&question.job, required, false, args.form, config)?;
    let mean = match &args.work_dir {
        Some(path) => mean_so_far(path, &question)?,
        None => None,
    };
    let expecting = Expecting { expected: args.expect_output, most: None, mean };
    let settings = Settings {
        command: "estimate",
        note: args.config.note(),
        lines: args.input.note.clone(),
        ..Settings::default()
    };
    let mut surroundings = Surroundings::new(settings, typed)?;
    let Preview { estimates, .. } =
        look_ahead(&question, &answerer, (0, &expecting), &mut surroundings)?;
    let estimates = reach.with_hints(estimates, &answerer);
    if args.json {
        let text = match &estimates[..] {
            [estimate] => serde_json::to_string_pretty(estimate),
            several => serde_json::to_string_pretty(several),
        };
        exit::show(&text.unwrap_or_default());
    } else {
        exit::show(told(estimates).trim_end());
    }
    Ok(ExitCode::from(exit::OK))
}

/// Estimates for people: of several models one after the other, and what they cost together.
pub(super) fn told(estimates: Vec<Estimate>) -> String {
    let [estimate] = &estimates[..] else {
        let of = |it: &Estimate| {
            format!("model          {}\n{it}", it.asked_model.as_ref().unwrap_or(&it.model))
        };
        let all: Option<Vec<_>> = estimates.iter().map(|it| it.cost_usd).collect();
        let together = match all {
            None => "cost in all    unknown".to_owned(),
            Some(all) => {
                let sum = |of: fn(&Range<Money>) -> Money| {
                    all.iter().fold(Money::ZERO, |sum, it| sum.plus(of(it)))
                };
                let range = Range { low: sum(|it| it.low), high: sum(|it| it.high) };
                format!("cost in all    {range}, without calls that are made again")
            }
        };
        let all: Vec<_> = estimates.iter().map(of).collect();
        return format!("{}\n{together}", all.join("\n"));
    };
    estimate.to_string()
}

/// How long the answers of a job were so far; nothing where there are none, or another model gave them.
pub(super) fn mean_so_far(path: &Path, question: &Question) -> Result<Option<u64>, Error> {
    let dir = WorkDir::open(path)?;
    // Of several models nobody knows whose the answers were.
    let is_one = |job: &JobSpec| job.model_count() == 1 && job.model == question.job.model;
    let manifest = dir.manifest()?.filter(|it| is_one(&it.job) && is_one(&question.job));
    Ok(match manifest {
        Some(manifest) => price::spent(&dir, &manifest)?.mean_answer(),
        None => None,
    })
}
