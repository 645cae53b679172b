//! The way to whoever answers: one model, several that each answer every row, the members of a pool, or
//! models by the names in lines.

use super::args::FormArgs;
use super::model::{Route, usage};
use super::names::NamedWays;
use super::pool::Ways;
use super::price::{no_price, prices_at};
use super::routes::Routes;
use crate::config::Config;
use crate::job::{JobSpec, NamedModel, OWN_MODEL, Pool};
use crate::pipeline::Error;
use crate::price::Prices;
use crate::report::Estimate;
use crate::store::NotedRoute;
use crate::work::Answerer;

/// The way to whoever answers.
pub(super) enum Reach {
    /// To models that each answer every row; mostly it is one.
    Models(Routes),
    /// To models that answer in each other's place.
    Pool(Box<Ways>),
    /// To models that answer lines by the names in them.
    Named(Box<NamedWays>),
}

impl Reach {
    /// The way to the first of the models.
    pub(super) fn route(&self) -> Option<&Route> {
        match self {
            Self::Models(routes) => Some(routes.first()),
            Self::Pool(_) => None,
            Self::Named(ways) => ways.own(),
        }
    }

    /// What each line's own model costs, where lines name their models.
    pub(super) fn own_prices(&self, job: &JobSpec, config: &Config) -> Option<Prices> {
        match self {
            Self::Named(ways) => ways.own_prices(),
            Self::Models(routes) if job.model == OWN_MODEL => {
                let route = routes.first();
                Some(prices_at(&route.who, route.base_url.as_deref()?, config))
            }
            Self::Models(_) | Self::Pool(_) => None,
        }
    }

    /// What names in lines stand for.
    pub(super) fn names(&self) -> Vec<NamedModel> {
        match self {
            Self::Named(ways) => ways.names(),
            Self::Models(_) | Self::Pool(_) => Vec::new(),
        }
    }

    /// What a plan notes of the ways to the others.
    pub(super) fn other_routes(&self) -> Vec<NotedRoute> {
        match self {
            Self::Models(routes) => routes.others(),
            Self::Pool(_) => Vec::new(),
            Self::Named(ways) => ways.noted(),
        }
    }

    /// The job as whoever answers is asked, and where they are, for a plan to note.
    pub(super) fn pooled(&self, job: JobSpec) -> (JobSpec, Option<Pool>) {
        let Self::Pool(ways) = self else { return (job, None) };
        let job = ways.job(&job);
        let pool = ways.plan(&job);
        (job, Some(pool))
    }

    /// Who answers a job; of a pool only who has the `required` model. Where calls are made
    /// (`is_made`), whoever needs a key must have one.
    pub(super) fn answerer(
        &mut self,
        job: &JobSpec,
        required: Option<&str>,
        is_made: bool,
        form: FormArgs,
        config: &Config,
    ) -> Result<Answerer, Error> {
        let is_only = |name: &str| job.model_count() == 1 && name == job.model;
        let refused = required.filter(|name| !is_only(name)).map(|name| {
            usage(format!(
                "--require-model {name} chooses among the models of a pool, and {} is asked here",
                job.models_shown()
            ))
        });
        match (self, refused) {
            (Self::Pool(ways), _) => ways.answerer(job, required, is_made, form, config),
            (_, Some(refused)) => Err(refused),
            (Self::Models(routes), None) => routes.answerer(job, form, is_made, config),
            (Self::Named(ways), None) => ways.answerer(job, is_made),
        }
    }

    /// What to do about the first of those who answer that has no price.
    pub(super) fn unpriced(&self, answerer: &Answerer) -> Option<String> {
        match self {
            Self::Models(routes) => routes.unpriced(answerer),
            Self::Named(ways) => ways.unpriced(answerer),
            Self::Pool(ways) => {
                let member = answerer.members().find(|member| member.is_unpriced())?;
                Some(no_price(ways.who(member), &member.name))
            }
        }
    }

    /// Estimates with what to do where one has no price.
    pub(super) fn with_hints(
        &self,
        estimates: Vec<Estimate>,
        answerer: &Answerer,
    ) -> Vec<Estimate> {
        let ways = match self {
            Self::Models(routes) => return routes.with_hints(estimates),
            Self::Named(ways) => return ways.with_hints(estimates),
            Self::Pool(ways) => ways,
        };
        let of = |estimate: Estimate| {
            let unpriced = answerer.first(0).filter(|_| estimate.cost_usd.is_none());
            let hint = unpriced.map(|member| no_price(ways.who(member), &estimate.model));
            Estimate { hint, ..estimate }
        };
        estimates.into_iter().map(of).collect()
    }

    /// The most calls in flight where no option says so, if it is for a pool to say.
    pub(super) fn in_flight(&self) -> Option<u32> {
        match self {
            Self::Models(_) => None,
            Self::Pool(ways) => Some(ways.in_flight()),
            Self::Named(ways) => Some(ways.in_flight()),
        }
    }

    /// What a person should know of who is left out.
    pub(super) fn warnings(&self) -> &[String] {
        match self {
            Self::Models(_) | Self::Named(_) => &[],
            Self::Pool(ways) => &ways.warnings,
        }
    }

    /// The members of a pool, one a line.
    pub(super) fn told(&self) -> Vec<String> {
        match self {
            Self::Models(_) => Vec::new(),
            Self::Pool(ways) => ways.told(),
            Self::Named(ways) => ways.told(),
        }
    }
}
