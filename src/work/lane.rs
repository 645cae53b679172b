//! Lanes: the ways to an answer. A lane is a model at an endpoint with what is known of it, shared by
//! all workers; a team is the lanes of which any may answer a row.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::answerer::{Needs, takes};
use super::attempt::{Line, Way};
use super::health::Health;
use super::passed::Fetching;
use super::pricing::{OwnPrice, Pricing};
use super::route::{Load, Standing, Team};
use super::structured::Form;
use super::{Answerer, Error, Member, Options, Server, Shared};
use crate::http::{Client, Connector, Endpoint, Limits, Sockets};
use crate::job::{Attempt, Failure, Kinds, Money, Transport};
use crate::policy::Bounds;
use crate::provider::{Api, Model};
use crate::store::{Manifest, ShardEntry};

/// How long an endpoint is tried that was never reached: a wrong address is not waited for.
const FIRST_CONTACT: Duration = Duration::from_secs(15);

/// What bounds the calls through a lane.
fn bounds(member: &Member, options: &Options) -> Bounds {
    Bounds {
        concurrency: member
            .concurrency
            .map_or(options.concurrency, |it| it.min(options.concurrency)),
        is_fixed: options.is_fixed || member.endpoint.is_none(),
        calls_a_minute: member.rates.calls,
        tokens_a_minute: member.rates.tokens,
        answer: member.model.api().and_then(Api::most_tokens),
        max_outage: options.max_outage,
        max_first_outage: FIRST_CONTACT,
    }
}

/// A lane's place among all of a run.
pub(super) type LaneIndex = usize;

/// The lanes of a run, and who of them answers what.
#[derive(Debug)]
pub(super) struct Lanes {
    all: Vec<Lane>,
    teams: Vec<Team>,
}

/// A model at an endpoint, as all workers see it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) model: Model,
    /// What answers must be.
    pub(super) form: Option<Form>,
    pub(super) health: Health,
    /// What people know it by.
    pub(super) label: String,
    /// Its endpoint's name, where there are several.
    place: Option<String>,
    // What it takes in, and the names it answers to.
    kinds: Kinds,
    names: Option<Vec<usize>>,
    /// Whether calls are routed to it and to others.
    pub(super) is_pooled: bool,
    pub(super) standing: Standing,
    /// The calls under way at its endpoint, where they are bounded.
    pub(super) load: Option<Arc<Load>>,
    timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    pub(super) pricing: Pricing,
    // Nothing for models that are not called.
    reached: Option<(Connector, Endpoint)>,
}

impl Shared<'_> {
    /// The team that answers a variant of the job.
    pub(super) fn team(&self, variant: usize) -> usize {
        self.manifest.job.model_of(variant)
    }

    /// The lanes that may answer a variant of the job.
    pub(super) fn lanes_of(&self, variant: usize) -> &[LaneIndex] {
        &self.team_for(variant).lanes
    }

    /// Those who answer a variant of the job.
    pub(super) fn team_for(&self, variant: usize) -> &Team {
        self.lanes.team(self.team(variant))
    }

    /// The team that answers the rows of a shard.
    pub(super) fn team_of(&self, shard: u32) -> usize {
        team_of(self.manifest, &self.manifest.shards[shard as usize])
    }
}

/// The team that answers the rows of a shard.
pub(super) fn team_of(manifest: &Manifest, entry: &ShardEntry) -> usize {
    manifest.job.model_of(entry.variant as usize)
}

impl Lanes {
    /// The lanes of those who answer. `server` is the one that was started for them, if one was.
    pub(super) fn new(
        answerer: &Answerer,
        options: &Options,
        server: Option<&Arc<Server>>,
    ) -> Result<Self, Error> {
        let mut lanes = Self { all: Vec::new(), teams: Vec::new() };
        // An endpoint's bound is one for all its models.
        let mut loads: HashMap<&str, Arc<Load>> = HashMap::new();
        for team in &answerer.teams {
            let first = lanes.all.len();
            // One that takes everything needs no choice.
            let is_choosy = |it: &Member| it.kinds != Kinds::ALL || it.names.is_some();
            let is_pool = team.len() > 1 || team.iter().any(is_choosy);
            for member in team {
                let form = answerer.structured.clone().map(Form::new);
                let mut lane = Lane::new(member, form, options, server)?;
                lane.is_pooled = is_pool;
                if let (Some(limit), Some(place)) = (member.concurrency, &member.place) {
                    let load = loads.entry(place).or_insert_with(|| Arc::new(Load::new(limit)));
                    lane.load = is_pool.then(|| Arc::clone(load));
                }
                lanes.all.push(lane);
            }
            let weights: Vec<_> = team.iter().map(|member| member.weight).collect();
            lanes.teams.push(Team::new((first..lanes.all.len()).collect(), &weights, is_pool));
        }
        lanes.label();
        Ok(lanes)
    }

    /// The lanes of a team.
    pub(super) fn team(&self, team: usize) -> &Team {
        &self.teams[team]
    }

    /// How many teams there are.
    pub(super) fn teams(&self) -> usize {
        self.teams.len()
    }

    /// The team that a lane is of.
    pub(super) fn team_of(&self, lane: LaneIndex) -> usize {
        self.teams.iter().position(|team| team.lanes.contains(&lane)).unwrap_or_default()
    }

    /// Tells lanes that their teams had answers when the session began, where they had. Whose the answers to lines are
    /// that name their models is not told here.
    pub(super) fn answered_before(&self, had_answers: impl Fn(usize) -> bool) {
        for (index, lane) in self.all.iter().enumerate() {
            if !lane.is_named() && had_answers(self.team_of(index)) {
                lane.standing.answered_before();
                lane.health.reached_before();
            }
        }
    }

    /// Gives lanes the shortest names that tell them apart.
    fn label(&mut self) {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for lane in &self.all {
            *counts.entry(lane.label.clone()).or_default() += 1;
        }
        for lane in &mut self.all {
            if counts[&lane.label] > 1 {
                lane.label = format!("{}.{}", lane.label, lane.name);
            }
        }
    }

    /// One of them.
    pub(super) fn lane(&self, index: LaneIndex) -> &Lane {
        &self.all[index]
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.all.iter()
    }

    /// What a worker calls through, lane by lane.
    pub(super) fn lines(
        &self,
        limits: &Limits,
        run: &str,
        fetching: Fetching,
    ) -> Result<Vec<Option<Line>>, Error> {
        self.all.iter().map(|lane| lane.line(limits, run.into(), fetching)).collect()
    }
}

impl Lane {
    fn new(
        member: &Member,
        form: Option<Form>,
        options: &Options,
        server: Option<&Arc<Server>>,
    ) -> Result<Self, Error> {
        let reached = match (&member.endpoint, member.model.api()) {
            (Some(endpoint), Some(_)) => {
                let connector = Connector::new(endpoint, &options.limits)
                    .map_err(|error| unreachable(endpoint, error.to_string()))?;
                Some((connector, endpoint.clone()))
            }
            _ => None,
        };
        Ok(Self {
            name: member.name.clone(),
            model: member.model.clone(),
            form,
            health: Health::new(&bounds(member, options), server.cloned()),
            label: member.place.clone().unwrap_or_else(|| member.name.clone()),
            place: member.place.clone(),
            kinds: member.kinds,
            names: member.names.clone(),
            is_pooled: false,
            standing: Standing::default(),
            load: None,
            timeout: member.timeout,
            idle_timeout: member.idle_timeout,
            pricing: Pricing::of(member),
            reached,
        })
    }

    /// What a call through it has cost, where that is known; `price` is that of the model its request named.
    pub(super) fn cost(&self, price: Option<&OwnPrice>, attempt: &Attempt) -> Option<Money> {
        let known = self.pricing.of_call(price).zip(attempt.usage);
        known.map(|(price, usage)| price.cost(&usage))
    }

    /// Whether it may answer what needs this.
    pub(super) fn takes(&self, needs: Needs) -> bool {
        takes((self.kinds, self.names.as_deref()), needs)
    }

    /// Whether it answers rows by the names in their lines, so that nobody answers in its place.
    pub(super) fn is_named(&self) -> bool {
        self.names.is_some()
    }

    /// Why no row's model was found at its endpoint: what URL was asked, what was said, and what the likely mistake is.
    pub(super) fn not_found(&self, failure: &Failure) -> String {
        let said = &failure.message;
        let (Some((_, endpoint)), Some(api)) = (&self.reached, self.model.api()) else {
            return said.clone();
        };
        let is_version = |part: &str| {
            part.strip_prefix('v')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let base = endpoint.path("");
        let hint = match base.split('/').any(is_version) || failure.status != Some(404) {
            true => "",
            false => "; the base URL has no version: is /v1 missing at its end?",
        };
        format!("POST {endpoint}{}: {said}{hint}", api.path())
    }

    /// A worker's own way through the lane; nothing for models that are not called.
    fn line(
        &self,
        limits: &Limits,
        run: Arc<str>,
        fetching: Fetching,
    ) -> Result<Option<Line>, Error> {
        let (Some((connector, endpoint)), Some(api)) = (&self.reached, self.model.api()) else {
            return Ok(None);
        };
        let path = endpoint.path(api.path()).parse();
        let path = path.map_err(|_| unreachable(endpoint, "no path".into()))?;
        let (connector, endpoint) = (connector.clone(), endpoint.clone());
        let headers = api.headers().clone();
        let total = self.timeout.unwrap_or(limits.total);
        let idle = self.idle_timeout.unwrap_or(limits.idle).min(total);
        let connect = limits.connect.min(total);
        let limits = Limits { connect, total, idle, ..*limits };
        let way = match api.transport() {
            Transport::Http => Way::Http(Client::new(connector, endpoint, path, headers, limits)),
            Transport::Sse => Way::Sse(Client::new(connector, endpoint, path, headers, limits)),
            Transport::Ws => Way::Ws(Sockets::new(connector, endpoint, path, headers, limits)),
        };
        let (model, asked) = (self.model.clone(), self.name.clone());
        let place = self.place.clone();
        Ok(Some(Line { way, model, asked, place, form: self.form.clone(), run, fetching }))
    }
}

fn unreachable(endpoint: &Endpoint, reason: String) -> Error {
    Error::Endpoint { endpoint: endpoint.to_string(), reason }
}
