//! The ways to the models that names in lines stand for, and to the endpoint that is asked for each
//! line's own model.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::args::{ModelArgs, WorkArgs};
use super::config::settle_model;
use super::model::{Asked, Route, asked, usage};
use super::price::{no_price, prices_at};
use super::surroundings::Failed;
use crate::config::{Config, Limits};
use crate::http::Endpoint;
use crate::job::{ANY_NAME, JobSpec, NamedModel, OWN_MODEL, Transport};
use crate::pipeline::Error;
use crate::price::Prices;
use crate::provider::{Access, Api, Model, PASSTHROUGH};
use crate::report::Estimate;
use crate::store::{Manifest, NotedRoute};
use crate::work::{Answerer, Member, Rates};

/// Calls in flight at an endpoint that nothing is said of.
const IN_FLIGHT: u32 = 64;

/// What a command and config files say that names in lines stand for.
#[derive(Debug)]
pub(super) struct NamesArgs {
    names: Vec<NamedArgs>,
    /// Whether there is an endpoint for each line's own model.
    has_own: bool,
    config: Config,
    has_timeout: bool,
}

/// What a name stands for.
#[derive(Debug)]
struct NamedArgs {
    name: String,
    /// Where it is said, for messages.
    place: String,
    args: ModelArgs,
}

/// The ways to whoever answers lines by the names of models in them.
pub(super) struct NamedWays {
    /// What names stand for, and how those are reached, in the order of the job's names.
    named: Vec<(NamedModel, Route)>,
    /// The endpoint for each line's own model, and the file that its key is in, if one is named.
    own: Option<(Route, Option<PathBuf>)>,
    config: Config,
    has_timeout: bool,
    // By endpoint, of those whose keys were come by already.
    keys: BTreeMap<String, Access>,
}

/// What the names in the lines of a command's input stand for.
pub(super) fn settle_names(
    args: &ModelArgs,
    has_own: bool,
    config: &Config,
    has_timeout: bool,
) -> Result<NamesArgs, Error> {
    let mut said: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    for (name, (model, place)) in &config.models {
        said.insert(name, (model, format!("{place}: {name:?}")));
    }
    for (number, (name, model)) in args.map_model.iter().enumerate() {
        if args.map_model[..number].iter().any(|(other, _)| other == name) {
            return Err(Error::Usage(format!("--map-model says twice what {name:?} stands for")));
        }
        said.insert(name, (model, format!("--map-model {name}={model}")));
    }
    let named = said.into_iter().map(|(name, (model, place))| {
        let wrong = |what: String| Error::Usage(format!("{place}: {what}"));
        if model.contains('?') {
            let what = "parameters stand in the lines, whose bodies are passed on as they are: name the \
                        model alone (rowmill files prepare changes lines)";
            return Err(wrong(what.to_owned()));
        }
        if let Some(pool) = config.pool_of(model).map_err(wrong)? {
            let what = format!("{} is a pool: a name stands for one model at one endpoint", pool.name);
            return Err(wrong(what));
        }
        if [PASSTHROUGH, OWN_MODEL].contains(&model.trim()) || model.starts_with("local:") {
            return Err(wrong(format!("{model} is no model of an endpoint")));
        }
        let args = settle_model(&ModelArgs { api_key_file: None, ..args.clone() }, model, config);
        Ok(NamedArgs { name: name.to_owned(), place, args })
    });
    let names = named.collect::<Result<_, Error>>()?;
    Ok(NamesArgs { names, has_own, config: config.clone(), has_timeout })
}

/// Whether anything is said of names in lines.
pub(super) fn are_said(args: &ModelArgs, config: &Config) -> bool {
    !(args.map_model.is_empty() && config.models.is_empty())
}

impl NamedWays {
    /// The ways that a command says.
    pub(super) fn new(args: &ModelArgs, names: &NamesArgs) -> Result<Self, Failed> {
        let has_base_url = args.base_url.is_some();
        let named = names.names.iter().map(|NamedArgs { name, place, args }| {
            let wrong = |what: String| Error::Usage(format!("{place}: {what}"));
            let args = match has_base_url && args.endpoint.is_some() {
                // It is where its own table says.
                true => ModelArgs { base_url: None, ..args.clone() },
                false => args.clone(),
            };
            let Asked { model, route, .. } =
                asked(&args, None).map_err(|failed| match failed.error {
                    Error::Usage(what) => wrong(what),
                    error => error,
                })?;
            let route = match route.who.name() {
                Some(_) if has_base_url && args.endpoint.is_none() => {
                    let place = route.who.place(None, None);
                    Route::to(route.who, Transport::Http, place)
                }
                _ => route,
            };
            // Headers of the command line are for whoever has no name.
            let is_named = route.who.name().is_some();
            let headers = if is_named { Vec::new() } else { route.headers.clone() };
            let route = Route { headers, ..route };
            Ok((NamedModel { name: name.clone(), model }, route))
        });
        let named = named.collect::<Result<Vec<_>, Error>>()?;
        let own = match names.has_own {
            true => Some((asked(args, None)?.route, args.api_key_file.clone())),
            false => None,
        };
        let (config, has_timeout) = (names.config.clone(), names.has_timeout);
        Ok(Self { named, own, config, has_timeout, keys: BTreeMap::new() })
    }

    /// The ways that a plan notes.
    pub(super) fn planned(manifest: &Manifest, args: &WorkArgs) -> Result<Self, Error> {
        let config = &args.config.read;
        let named = manifest.job.names.iter().enumerate().map(|(place, named)| {
            let noted = manifest.route(place + 1);
            Ok((named.clone(), Route::planned(&noted, None, &[], config)?))
        });
        let named = named.collect::<Result<Vec<_>, Error>>()?;
        let noted = manifest.route(0);
        if noted.base_url.is_none() && (args.base_url.is_some() || args.api_key_file.is_some()) {
            let text = "--base-url and --api-key-file are about one endpoint, and in this plan each \
                        model has its own: say it of each in a config file";
            return Err(Error::Usage(text.to_owned()));
        }
        let own = match noted.base_url {
            Some(_) => {
                let route =
                    Route::planned(&noted, args.base_url.as_deref(), &args.headers, config)?;
                Some((route, args.api_key_file.clone()))
            }
            None => None,
        };
        let (config, keys) = (config.clone(), BTreeMap::new());
        Ok(Self { named, own, config, has_timeout: args.has_timeout, keys })
    }

    /// What each line's own model costs.
    pub(super) fn own_prices(&self) -> Option<Prices> {
        let route = self.own()?;
        Some(prices_at(&route.who, route.base_url.as_deref()?, &self.config))
    }

    /// The way to the endpoint for each line's own model.
    pub(super) fn own(&self) -> Option<&Route> {
        self.own.as_ref().map(|(route, _)| route)
    }

    /// What names stand for.
    pub(super) fn names(&self) -> Vec<NamedModel> {
        self.named.iter().map(|(named, _)| named.clone()).collect()
    }

    /// What a plan notes of the ways to what names stand for.
    pub(super) fn noted(&self) -> Vec<NotedRoute> {
        self.named.iter().map(|(_, route)| route.noted()).collect()
    }

    fn limits(&self, route: &Route) -> Limits {
        let own = route.who.config().map(|endpoint| endpoint.limits).unwrap_or_default();
        own.or(self.config.defaults)
    }

    /// Who answers a job. Where no call `is_made`, only such keys are taken as are at hand.
    pub(super) fn answerer(&mut self, job: &JobSpec, is_made: bool) -> Result<Answerer, Error> {
        let mut team: Vec<Member> = Vec::new();
        for (place, (named, route)) in self.named.clone().iter().enumerate() {
            let job = JobSpec { model: named.model.clone(), names: Vec::new(), ..job.clone() };
            // Who is named without an endpoint is where each line's own model is.
            let is_there = |own: &Route| own.who.name().is_none() && route.who.name().is_none();
            let file = self.own.clone().filter(|(own, _)| is_there(own)).and_then(|(_, file)| file);
            let mut member = self.member(&job, route, file, is_made)?;
            let is_it = |it: &&mut Member| {
                (&it.name, &it.place, &it.endpoint)
                    == (&member.name, &member.place, &member.endpoint)
            };
            match team.iter_mut().find(is_it) {
                // Two names for one model at one place.
                Some(known) => known.names.get_or_insert_default().push(place),
                None => {
                    member.names = Some(vec![place]);
                    team.push(member);
                }
            }
        }
        let is_own_asked = !self.named.iter().any(|(it, _)| it.name == ANY_NAME);
        if let Some((route, file)) = self.own.clone().filter(|_| is_own_asked) {
            let job = JobSpec { names: Vec::new(), ..job.clone() };
            let mut member = self.member(&job, &route, file, is_made)?;
            member.names = Some(vec![self.named.len()]);
            team.push(member);
        }
        Ok(Answerer { teams: vec![team], structured: None })
    }

    fn member(
        &mut self,
        job: &JobSpec,
        route: &Route,
        file: Option<PathBuf>,
        is_made: bool,
    ) -> Result<Member, Error> {
        let base_url = route.base_url.clone().unwrap_or_default();
        let place = place_of(route);
        let key = match self.keys.get(&place).filter(|_| file.is_none()) {
            Some(key) => key.clone(),
            None => route.access(file.as_deref(), is_made)?,
        };
        if is_made {
            route.check_key(&key)?;
        }
        if file.is_none() {
            self.keys.insert(place.clone(), key.clone());
        }
        let endpoint = Endpoint::parse(&base_url).map_err(usage)?;
        let api = Api::new(job, Transport::Http, key.at(&endpoint)).map_err(usage)?;
        let limits = self.limits(route);
        let prices = prices_at(&route.who, &base_url, &self.config);
        let timeout: Option<Duration> = limits.timeout.filter(|_| !self.has_timeout);
        Ok(Member {
            price: prices.of(&job.model, None),
            prices: Some(Arc::new(prices)),
            place: Some(place),
            rates: Rates { calls: limits.rpm, tokens: limits.tpm },
            concurrency: Some(limits.concurrency.unwrap_or(IN_FLIGHT) as usize),
            timeout,
            ..Member::new(job.model.clone(), Model::Called(api), Some(endpoint))
        })
    }

    /// What to do about the first of those who answer that has no price; of each line's own model that
    /// is not known before the lines are read.
    pub(super) fn unpriced(&self, answerer: &Answerer) -> Option<String> {
        let member = answerer.members().find(|member| member.is_unpriced())?;
        let route = self.named.iter().map(|(_, route)| route);
        let route = route.clone().find(|route| Some(place_of(route)) == member.place)?;
        Some(no_price(&route.who, &member.name))
    }

    /// Estimates with what to do where one has no price.
    pub(super) fn with_hints(&self, estimates: Vec<Estimate>) -> Vec<Estimate> {
        let of = |it: Estimate| {
            let named = self.named.iter().find(|(named, _)| named.model == it.model);
            let route = named.map(|(_, route)| route).or(self.own());
            let hint = route.filter(|_| it.cost_usd.is_none());
            Estimate { hint: hint.map(|route| no_price(&route.who, &it.model)), ..it }
        };
        estimates.into_iter().map(of).collect()
    }

    /// The most calls in flight where no option says so: what all endpoints take together.
    pub(super) fn in_flight(&self) -> u32 {
        let own = self.own.iter().map(|(route, _)| route);
        let routes = self.named.iter().map(|(_, route)| route).chain(own);
        let places: BTreeMap<_, _> = routes
            .map(|route| (place_of(route), self.limits(route).concurrency.unwrap_or(IN_FLIGHT)))
            .collect();
        places.values().fold(0_u32, |sum, more| sum.saturating_add(*more)).min(1_000_000)
    }

    /// What names stand for, one a line.
    pub(super) fn told(&self) -> Vec<String> {
        let at = |route: &Route| route.shown_base_url().unwrap_or_default();
        let named = self.named.iter().map(|(named, route)| {
            let (NamedModel { name, model }, place) = (named, place_of(route));
            let name = if name == ANY_NAME { "all other names" } else { name };
            format!("  {name} → {place} · {model} · {}", at(route))
        });
        let own = self.own.iter().map(|(route, _)| {
            format!("  each line's own model → {} · {}", place_of(route), at(route))
        });
        std::iter::once("models by their names in the lines:".to_owned())
            .chain(named)
            .chain(own)
            .collect()
    }
}

/// What telemetry calls the endpoint.
fn place_of(route: &Route) -> String {
    let base_url = || route.shown_base_url().unwrap_or_default();
    route.who.name().unwrap_or_else(base_url)
}
