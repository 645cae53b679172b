//! The ways to all models of a job, each with its own key.

use std::path::PathBuf;

use super::args::{FormArgs, ModelArgs, WorkArgs};
use super::model::Route;
use super::price::no_price;
use super::schema::structured;
use crate::config::Config;
use crate::job::JobSpec;
use crate::pipeline::Error;
use crate::provider::Access;
use crate::report::Estimate;
use crate::store::{Manifest, NotedRoute};
use crate::work::Answerer;

/// The ways to the models of a job, in their order.
pub(super) struct Routes(Vec<Way>);

/// The way to one of them.
struct Way {
    route: Route,
    /// The file that its key is in, if the command names one.
    key_file: Option<PathBuf>,
}

impl Routes {
    /// The ways that a command asks for.
    pub(super) fn new(routes: Vec<Route>, args: &ModelArgs) -> Self {
        let args = std::iter::once(args).chain(&args.others);
        let way =
            |(route, args): (Route, &ModelArgs)| Way { route, key_file: args.api_key_file.clone() };
        Self(routes.into_iter().zip(args).map(way).collect())
    }

    /// The way to the first.
    pub(super) fn first(&self) -> &Route {
        &self.0[0].route
    }

    /// What a plan notes of the others.
    pub(super) fn others(&self) -> Vec<NotedRoute> {
        self.0[1..].iter().map(|way| way.route.noted()).collect()
    }

    /// The ways that a plan says; `is_served` where rowmill starts who answers.
    pub(super) fn planned(
        manifest: &Manifest,
        args: &WorkArgs,
        is_served: bool,
    ) -> Result<Self, Error> {
        let noted: Vec<_> = (0..manifest.job.model_count()).map(|it| manifest.route(it)).collect();
        let called =
            || noted.iter().enumerate().filter(|(model, _)| manifest.job.is_called(*model));
        // What is given for several belongs to those that have nothing of their own; see `config`.
        let is_one =
            called().all(|(_, it)| Some(&it.provider) == called().next().map(|it| &it.1.provider));
        let is_any_unnamed = called().any(|(_, it)| it.provider.is_none());
        let is_several = noted.len() > 1;
        if is_several && args.base_url.is_some() && !is_any_unnamed {
            let text = "--base-url is for models without a provider of their own, and each of this \
                        plan has one";
            return Err(Error::Usage(text.to_owned()));
        }
        if is_several && !args.headers.is_empty() && !is_any_unnamed && !is_one {
            let text = "--header is for the calls of one endpoint, and the models of this plan are at \
                        several: put `headers` into a config file";
            return Err(Error::Usage(text.to_owned()));
        }
        if is_several && args.api_key_file.is_some() && !is_any_unnamed && !is_one {
            let text = "--api-key-file holds the key of one endpoint, and the models of this plan are \
                        at several: give each its key in the environment or in a config file";
            return Err(Error::Usage(text.to_owned()));
        }
        let way = |noted: &NotedRoute| {
            let has_nothing = !is_several || noted.provider.is_none();
            let base_url = args.base_url.as_deref().filter(|_| has_nothing);
            let takes_key = has_nothing || !is_any_unnamed;
            let headers = if takes_key { args.headers.as_slice() } else { &[] };
            let route = Route::planned(noted, base_url, headers, &args.config.read)?;
            let route = if is_served { route.served() } else { route };
            let key_file = args.api_key_file.clone().filter(|_| takes_key);
            Ok(Way { route, key_file })
        };
        noted.iter().map(way).collect::<Result<_, Error>>().map(Self)
    }

    /// Who answers. Where no call `is_made`, only such keys are taken as are at hand.
    pub(super) fn answerer(
        &self,
        job: &JobSpec,
        form: FormArgs,
        is_made: bool,
        config: &Config,
    ) -> Result<Answerer, Error> {
        let structured = structured(job, form)?;
        // A command that says a key is run once for all models of its endpoint.
        let mut keys: Vec<(_, Access)> = Vec::new();
        let mut teams = Vec::new();
        for (number, Way { route, key_file }) in self.0.iter().enumerate() {
            let (job, whose) = (job.of_model(number), (route.who.name(), key_file));
            let known = keys.iter().find(|(of, _)| *of == whose).map(|(_, key)| key.clone());
            let key = match known {
                Some(key) => key,
                None => route.access(key_file.as_deref(), is_made)?,
            };
            keys.push((whose, key.clone()));
            if is_made && job.is_called(0) {
                route.check_key(&key)?;
            }
            teams.push(vec![route.member(&job, key, config)?]);
        }
        Ok(Answerer { teams, structured })
    }

    /// What to do about the first model that has no price.
    pub(super) fn unpriced(&self, answerer: &Answerer) -> Option<String> {
        let members = answerer.teams.iter().zip(&self.0);
        let mut members = members.flat_map(|(team, way)| team.iter().map(move |it| (it, way)));
        let (member, way) = members.find(|(member, _)| member.is_unpriced())?;
        Some(no_price(&way.route.who, &member.name))
    }

    /// Estimates, in the order of the models, with what to do where one has no price.
    pub(super) fn with_hints(&self, estimates: Vec<Estimate>) -> Vec<Estimate> {
        let of = |(number, estimate): (usize, Estimate)| {
            // Of each line's own models there may be several on one way.
            let who = &self.0.get(number).unwrap_or(&self.0[0]).route.who;
            let hint = estimate.cost_usd.is_none().then(|| no_price(who, &estimate.model));
            Estimate { hint, ..estimate }
        };
        estimates.into_iter().enumerate().map(of).collect()
    }
}
