//! The way to whoever answers: one model, or the members of a pool.

use std::path::Path;

use super::args::FormArgs;
use super::model::{Route, Who, usage};
use super::pool::Ways;
use crate::config::Config;
use crate::job::{JobSpec, Pool};
use crate::pipeline::Error;
use crate::provider::PASSTHROUGH;
use crate::work::{Answerer, Member};

/// The way to whoever answers.
pub(super) enum Reach {
    /// To one.
    One(Box<Route>),
    /// To several.
    Pool(Box<Ways>),
}

impl Reach {
    /// The only way.
    pub(super) fn route(&self) -> Option<&Route> {
        match self {
            Self::One(route) => Some(route),
            Self::Pool(_) => None,
        }
    }

    /// The job as whoever answers is asked, and where they are, for a plan to note.
    pub(super) fn pooled(&self, job: JobSpec) -> (JobSpec, Option<Pool>) {
        let Self::Pool(ways) = self else { return (job, None) };
        let job = ways.job(&job);
        let pool = ways.plan(&job);
        (job, Some(pool))
    }

    /// Who answers a job. Where calls are made (`is_made`), whoever needs a key must have one.
    pub(super) fn answerer(
        &mut self,
        job: &JobSpec,
        (key_file, required): (Option<&Path>, Option<&str>),
        is_made: bool,
        form: FormArgs,
        config: &Config,
    ) -> Result<Answerer, Error> {
        let route = match self {
            Self::Pool(ways) => return ways.answerer(job, required, is_made, form, config),
            Self::One(route) => route,
        };
        if let Some(name) = required.filter(|name| **name != *job.model) {
            return Err(usage(format!(
                "--require-model {name} chooses among the models of a pool, and {} is asked here",
                job.model
            )));
        }
        let key = route.key(key_file, is_made)?;
        if is_made && job.model != PASSTHROUGH {
            route.check_key(key.as_ref())?;
        }
        route.answerer(job, key, form, config)
    }

    /// Who serves a model.
    pub(super) fn who(&self, member: &Member) -> &Who {
        match self {
            Self::One(route) => &route.who,
            Self::Pool(ways) => ways.who(member),
        }
    }

    /// The most calls in flight where no option says so, if it is for a pool to say.
    pub(super) fn in_flight(&self) -> Option<u32> {
        match self {
            Self::One(_) => None,
            Self::Pool(ways) => Some(ways.in_flight()),
        }
    }

    /// What a person should know of who is left out.
    pub(super) fn warnings(&self) -> &[String] {
        match self {
            Self::One(_) => &[],
            Self::Pool(ways) => &ways.warnings,
        }
    }

    /// The members of a pool, one a line.
    pub(super) fn told(&self) -> Vec<String> {
        match self {
            Self::One(_) => Vec::new(),
            Self::Pool(ways) => ways.told(),
        }
    }
}
