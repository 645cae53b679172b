//! What a job will come to, before it is run.

use std::path::Path;
use std::process::ExitCode;

use super::args::EstimateArgs;
use super::exit::{self, Typed};
use super::model::Route;
use super::preview::look_ahead;
use super::price::no_price;
use super::question::question;
use super::serving::Serving;
use super::surroundings::{Failed, Settings, Surroundings};
use crate::pipeline::{Error, Preview, Question};
use crate::price;
use crate::report::{Estimate, Expecting};
use crate::store::WorkDir;

/// Prints what a job will come to. Nothing is called, and nothing kept.
pub(super) fn estimate(args: &EstimateArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    let serving = Serving::of(&args.model, &args.serve, None)?;
    let model = (&args.model, serving.as_ref());
    let (question, route) = question(&args.input, &args.prompt, &args.schema, model, false)?;
    let key = route.key(args.model.api_key_file.as_deref(), false)?;
    let answerer = route.answerer(&question.job, key, args.form, &args.config.read)?;
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
    let estimate = with_hint(estimate, &route);
    if args.json {
        exit::show(&serde_json::to_string_pretty(&estimate).unwrap_or_default());
    } else {
        exit::show(estimate.to_string().trim_end());
    }
    Ok(ExitCode::from(exit::OK))
}

/// The same with what to do where the model has no price.
pub(super) fn with_hint(estimate: Estimate, route: &Route) -> Estimate {
    let hint = estimate.cost_usd.is_none().then(|| no_price(&route.who, &estimate.model));
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
