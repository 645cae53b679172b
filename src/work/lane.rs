//! Lanes: the ways to an answer. A lane is a model at an endpoint with what is known of it, shared by
//! all workers; a team is the lanes of which any may answer a row.

use std::sync::Arc;

use super::attempt::{Line, Way};
use super::health::Health;
use super::structured::Form;
use super::{Answerer, Error, Member, Options, Server};
use crate::http::{Client, Connector, Endpoint, Limits, Sockets};
use crate::job::Transport;
use crate::price::Price;
use crate::provider::Model;

/// A lane's place among all of a run.
pub(super) type LaneIndex = usize;

/// The lanes of a run, and who of them answers what.
#[derive(Debug)]
pub(super) struct Lanes {
    all: Vec<Lane>,
    teams: Vec<Vec<LaneIndex>>,
}

/// A model at an endpoint, as all workers see it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) model: Model,
    /// What answers must be.
    pub(super) form: Option<Form>,
    pub(super) health: Health,
    pub(super) price: Option<Price>,
    // Nothing for models that are not called.
    reached: Option<(Connector, Endpoint)>,
}

impl Lanes {
    /// The lanes of those who answer. `server` is the one that was started for them, if one was.
    pub(super) fn new(
        answerer: &Answerer,
        options: &Options,
        server: Option<&Arc<Server>>,
    ) -> Result<Self, Error> {
        let mut lanes = Self { all: Vec::new(), teams: Vec::new() };
        for team in &answerer.teams {
            let first = lanes.all.len();
            for member in team {
                let form = answerer.structured.clone().map(Form::new);
                lanes.all.push(Lane::new(member, form, options, server)?);
            }
            lanes.teams.push((first..lanes.all.len()).collect());
        }
        Ok(lanes)
    }

    /// The lanes that may answer a variant of the job.
    pub(super) fn team(&self, variant: usize) -> &[LaneIndex] {
        self.teams.get(variant).map_or(&[], Vec::as_slice)
    }

    /// One of them.
    pub(super) fn lane(&self, index: LaneIndex) -> &Lane {
        &self.all[index]
    }

    /// How many calls may be under way over all of them.
    pub(super) fn limit(&self) -> usize {
        self.all.iter().map(|lane| lane.health.limit()).sum()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.all.iter()
    }

    /// What a worker calls through, lane by lane.
    pub(super) fn lines(&self, limits: &Limits, run: &str) -> Result<Vec<Option<Line>>, Error> {
        self.all.iter().map(|lane| lane.line(limits, run.into())).collect()
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
            health: Health::new(&options.bounds(member), server.cloned()),
            price: member.price.clone(),
            reached,
        })
    }

    /// A worker's own way through the lane; nothing for models that are not called.
    fn line(&self, limits: &Limits, run: Arc<str>) -> Result<Option<Line>, Error> {
        let (Some((connector, endpoint)), Some(api)) = (&self.reached, self.model.api()) else {
            return Ok(None);
        };
        let path = endpoint.path(api.path()).parse();
        let path = path.map_err(|_| unreachable(endpoint, "no path".into()))?;
        let (connector, endpoint) = (connector.clone(), endpoint.clone());
        let (headers, limits) = (api.headers().clone(), *limits);
        let way = match api.transport() {
            Transport::Http => Way::Http(Client::new(connector, endpoint, path, headers, limits)),
            Transport::Sse => Way::Sse(Client::new(connector, endpoint, path, headers, limits)),
            Transport::Ws => Way::Ws(Sockets::new(connector, endpoint, path, headers, limits)),
        };
        let (model, asked) = (self.model.clone(), self.name.clone());
        Ok(Some(Line { way, model, asked, form: self.form.clone(), run }))
    }
}

fn unreachable(endpoint: &Endpoint, reason: String) -> Error {
    Error::Endpoint { endpoint: endpoint.to_string(), reason }
}
