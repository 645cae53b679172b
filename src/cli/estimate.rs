//! What a job will come to, before it is run.

use std::path::Path;
use std::process::ExitCode;

use super::args::EstimateArgs;
use super::commands::asked_of;
use super::exit::{self, Typed};
use super::preview::look_ahead;
use super::price::no_price;
use super::question::question;
use super::reach::Reach;
use super::serving::Serving;
use super::surroundings::{Failed, Settings, Surroundings};
use crate::pipeline::{Error, Preview, Question};
use crate::price;
use crate::report::{Estimate, Expecting};
use crate::store::WorkDir;
use crate::work::Answerer;

/// Prints what a job will come to. Nothing is called, and nothing kept.
pub(super) fn estimate(args: &EstimateArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    let serving = Serving::of(&args.model, &args.serve, None)?;
    let model = (&args.model, serving.as_ref());
    let planned = args.work_dir.as_deref();
    let (question, mut reach) =
        question(&args.input, &args.prompt, &args.schema, model, false, planned)?;
    let (asked, config) = (asked_of(&args.model), &args.config.read);
    let answerer = reach.answerer(&question.job, asked, false, args.form, config)?;
    let mean = match &args.work_dir {
        Some(path) => mean_so_far(path, &question)?,
        None => None,
    };
    let expecting = Expecting { expected: args.expect_output, most: None, mean };
    let settings =
        Settings { command: "estimate", note: args.config.note(), ..Settings::default() };
    let mut surroundings = Surroundings::new(settings, typed)?;
    let Preview { estimate, .. } =
        look_ahead(&question, &answerer, (0, &expecting), &mut surroundings)?;
    let estimate = with_hint(estimate, (&answerer, &reach));
    if args.json {
        exit::show(&serde_json::to_string_pretty(&estimate).unwrap_or_default());
    } else {
        exit::show(estimate.to_string().trim_end());
    }
    Ok(ExitCode::from(exit::OK))
}

/// The same with what to do where the model has no price.
pub(super) fn with_hint(estimate: Estimate, (answerer, reach): (&Answerer, &Reach)) -> Estimate {
    let unpriced = answerer.first(0).filter(|_| estimate.cost_usd.is_none());
    let hint = unpriced.map(|member| no_price(reach.who(member), &estimate.model));
    Estimate { hint, ..estimate }
}

/// How long the answers of a job were so far; nothing where there are none, or another model gave them.
pub(super) fn mean_so_far(path: &Path, question: &Question) -> Result<Option<u64>, Error> {
    let dir = WorkDir::open(path)?;
    let manifest = dir.manifest()?.filter(|manifest| manifest.job.model == question.job.model);
    Ok(match manifest {
        Some(manifest) => price::spent(&dir, &manifest)?.mean_answer(),
        None => None,
    })
}
