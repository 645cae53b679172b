//! Who answers: for each model of the job a team, of which any member may.

use std::sync::Arc;
use std::time::Duration;

use super::structured::Structured;
use crate::http::Endpoint;
use crate::job::{Failure, FailureKind, Kinds, OWN_MODEL, OwnModels};
use crate::price::{Price, Prices};
use crate::provider::Model;

/// Who answers.
#[derive(Debug, Clone)]
pub struct Answerer {
    /// One team for each model of the job, for all repeats of it: any member of it may answer a row. No
    /// team is empty.
    pub teams: Vec<Vec<Member>>,
    /// What answers must be; nothing where any text is one.
    pub structured: Option<Structured>,
}

/// A model at an endpoint.
#[derive(Debug, Clone)]
pub struct Member {
    /// As the endpoint names it.
    pub name: String,
    /// How it is called.
    pub model: Model,
    /// Where it is; nothing for models that are not called.
    pub endpoint: Option<Endpoint>,
    /// The endpoint's name, where a job has several.
    pub place: Option<String>,
    /// Its share of the calls, beside the weights of the others in its team.
    pub weight: u32,
    /// What its tokens cost; nothing where that is not known.
    pub price: Option<Price>,
    /// What tokens cost at its endpoint, where rows are requests, which say themselves what is asked.
    pub prices: Option<Arc<Prices>>,
    /// What it may be asked a minute.
    pub rates: Rates,
    /// What it takes in.
    pub kinds: Kinds,
    /// The names in lines that it answers to, by their places ([`crate::job::Names`]); nothing where it
    /// answers whatever a line says.
    pub names: Option<Vec<usize>>,
    /// The most calls under way at its endpoint, where that is bounded.
    pub concurrency: Option<usize>,
    /// How long a call may take, where that is another time than in [`Options`](super::Options).
    pub timeout: Option<Duration>,
    /// How long an answer that has begun may make no progress, where that is another time than in
    /// [`Options`](super::Options).
    pub idle_timeout: Option<Duration>,
}

impl Member {
    /// One that answers alone.
    #[must_use]
    pub fn new(name: String, model: Model, endpoint: Option<Endpoint>) -> Self {
        let (place, weight, kinds) = (None, 1, Kinds::ALL);
        let (price, rates, concurrency, timeout) = (None, Rates::default(), None, None);
        Self {
            name,
            model,
            endpoint,
            place,
            weight,
            price,
            prices: None,
            rates,
            kinds,
            names: None,
            concurrency,
            timeout,
            idle_timeout: None,
        }
    }

    /// Whether it may answer what needs this.
    fn takes(&self, needs: Needs) -> bool {
        takes((self.kinds, self.names.as_deref()), needs)
    }

    /// Whether it is called, and nobody knows at what price. That of each line's own model is known
    /// line by line.
    #[must_use]
    pub fn is_unpriced(&self) -> bool {
        self.endpoint.is_some() && self.price.is_none() && !self.is_own()
    }

    /// Whether it is the endpoint for each line's own model.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.name == OWN_MODEL
    }
}

/// What a row needs of whoever answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needs {
    /// What must be taken in.
    pub kinds: Kinds,
    /// The place of the name that its line has, where names count; nothing where nobody answers to it.
    pub name: Option<usize>,
}

impl Needs {
    /// Words, under any name.
    pub const TEXT: Self = Self { kinds: Kinds::TEXT, name: None };
}

/// Whether somebody of these kinds and names may answer what needs this.
pub(super) fn takes((kinds, names): (Kinds, Option<&[usize]>), needs: Needs) -> bool {
    let is_called_so = |names: &[usize]| needs.name.is_some_and(|name| names.contains(&name));
    kinds.takes(needs.kinds) && names.is_none_or(is_called_so)
}

/// The most that an endpoint may be asked a minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Calls.
    pub calls: Option<u64>,
    /// Tokens, of prompts and answers.
    pub tokens: Option<u64>,
}

impl Answerer {
    /// Where one model answers all.
    #[must_use]
    pub fn one(member: Member, structured: Option<Structured>) -> Self {
        Self { teams: vec![vec![member]], structured }
    }

    /// The same, and nobody is asked more a minute than this.
    #[must_use]
    pub fn rated(mut self, rates: Rates) -> Self {
        for member in self.teams.iter_mut().flatten() {
            member.rates.calls = rates.calls.or(member.rates.calls);
            member.rates.tokens = rates.tokens.or(member.rates.tokens);
        }
        self
    }

    /// Who answers first for a model of the job.
    #[must_use]
    pub fn first(&self, model: usize) -> Option<&Member> {
        self.teams.get(model)?.first()
    }

    /// Who of a model's team may answer what needs this, first.
    ///
    /// # Errors
    /// When nobody takes it.
    pub fn first_for(&self, model: usize, needs: Needs) -> Result<&Member, Failure> {
        let mut team = self.teams.get(model).into_iter().flatten();
        team.find(|member| member.takes(needs)).ok_or_else(|| untaken(needs))
    }

    /// The members of all teams.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.teams.iter().flatten()
    }

    /// Whether somebody answers to the name of this place.
    pub(super) fn has(&self, name: usize) -> bool {
        let is_it = |member: &Member| member.names.as_ref().is_some_and(|it| it.contains(&name));
        self.members().any(is_it)
    }

    /// The first of the models that lines name of which nobody knows what they cost.
    pub(super) fn unpriced_of(&self, models: &OwnModels) -> Vec<String> {
        let own = self.members().find(|member| member.is_own() && member.endpoint.is_some());
        let prices = own.map(|member| member.prices.as_deref());
        prices.map_or_else(Vec::new, |prices| match prices {
            Some(prices) => prices.unknown(models),
            None => models.names.clone(),
        })
    }

    /// Whether any call is made.
    pub(super) fn is_called(&self) -> bool {
        self.members().any(|member| member.endpoint.is_some())
    }

    /// The same with everyone at another place.
    pub(super) fn at(&self, endpoint: &Endpoint) -> Self {
        let mut moved = self.clone();
        for member in moved.teams.iter_mut().flatten() {
            member.endpoint = Some(endpoint.clone());
        }
        moved
    }
}

/// The failure of a row that nobody takes.
pub(super) fn untaken(needs: Needs) -> Failure {
    let message = format!("no model that may answer takes {}", needs.kinds);
    Failure::new(FailureKind::NoModel, message)
}
