//! Pools: who their members are, from the config files, a plan, or what endpoints say they offer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::args::{FormArgs, ModelArgs};
use super::model::{Asked, Route, Who, asked, shown_url, usage};
use super::models::{Answer, Asked as Listing, ask_all};
use super::price::price_of;
use super::schema::structured;
use crate::config::{AUTO, Config, Member as Named, Pool};
use crate::http::Endpoint;
use crate::job::{self, Dialect, JobSpec, Kinds, PoolMember, PoolModel, Protocol};
use crate::pipeline::Error;
use crate::provider::{Access, Api, KNOWN, Listed, Model, ModelName, PASSTHROUGH, Task};
use crate::store::Manifest;
use crate::work::{Answerer, Member, Rates};

/// How long an endpoint may take to say what it offers.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Calls in flight at an endpoint that nothing is said of.
const IN_FLIGHT: u32 = 64;

/// What a command says of the pool that it names.
#[derive(Debug, Clone)]
pub(super) struct PoolArgs {
    pub(super) pool: Pool,
    pub(super) config: Config,
    /// Whether an option says how long calls may take: then it is as long at all endpoints.
    pub(super) has_timeout: bool,
}

/// The ways to the members of a pool.
#[derive(Clone)]
pub(super) struct Ways {
    name: String,
    ways: Vec<Way>,
    // By endpoint, of those whose keys were come by already.
    keys: BTreeMap<String, Access>,
    /// What a person should know of who is not among them.
    pub(super) warnings: Vec<String>,
    has_timeout: bool,
}

/// The way to one.
#[derive(Clone)]
struct Way {
    model: PoolModel,
    route: Route,
    weight: u32,
    kinds: Kinds,
    concurrency: Option<u32>,
    rates: Rates,
    timeout: Option<Duration>,
}

impl Way {
    fn new(asked: Asked, weight: u32, kinds: Kinds, config: &Config) -> Self {
        let Asked { model, protocol, parameters, route } = asked;
        let own = route.who.config().map(|endpoint| endpoint.limits).unwrap_or_default();
        // A member that the protocol cannot tell of something does not take it.
        let kinds = kinds.among(Kinds::of_protocol(protocol));
        Self {
            model: PoolModel { model, protocol, parameters },
            weight,
            kinds,
            concurrency: own.concurrency.or(config.defaults.concurrency),
            rates: Rates {
                calls: own.rpm.or(config.defaults.rpm),
                tokens: own.tpm.or(config.defaults.tpm),
            },
            timeout: own.timeout,
            route,
        }
    }

    fn place(&self) -> String {
        self.route.who.name().unwrap_or_default()
    }
}

impl ModelArgs {
    /// The same for a model of an endpoint or provider, as it is named there.
    fn of(&self, who: &Who, model: &str) -> Self {
        let endpoint = who.config().cloned().map(Arc::new);
        let name = who.name().filter(|_| endpoint.is_none());
        let model = name.map_or_else(|| model.to_owned(), |name| format!("{name}.{model}"));
        Self { model: Some(model), endpoint, pool: None, ..self.clone() }
    }
}

/// Who answers for the pool that a command names. `planned` is the plan there is, if there is one: what
/// endpoints offered when it was made is what they are asked for again.
pub(super) fn ways(
    args: &ModelArgs,
    named: &PoolArgs,
    planned: Option<&Manifest>,
) -> Result<Ways, Error> {
    let PoolArgs { pool, config, has_timeout } = named;
    let refused = [
        ("--base-url", args.base_url.is_some()),
        ("--api-key-file", args.api_key_file.is_some()),
        ("--header", !args.headers.is_empty()),
    ];
    if let Some((option, _)) = refused.iter().find(|(_, is_given)| *is_given) {
        let name = &pool.name;
        return Err(usage(format!(
            "{option} is about one endpoint, and -m {name} stands for several: say it of each in a \
             config file"
        )));
    }
    let is_auto = pool.name == AUTO;
    let planned = planned.and_then(|manifest| Some((&manifest.job, manifest.pool.as_ref()?)));
    let planned = planned.filter(|(_, before)| is_auto && before.name == AUTO);
    let mut ways = match planned {
        Some((job, before)) => again(args, config, job, before)?,
        None if is_auto => offered(args, named)?,
        None => {
            let ways = pool.members.iter().map(|member| way(args, config, member));
            Ways::new(&pool.name, ways.collect::<Result<_, _>>()?)
        }
    };
    ways.has_timeout = *has_timeout;
    ways.check(pool)?;
    Ok(ways)
}

/// The way to a member that a config file names.
fn way(args: &ModelArgs, config: &Config, member: &Named) -> Result<Way, Error> {
    let Named { model: text, weight, kinds, place } = member;
    let wrong = |what: String| usage(format!("{place}: {what}"));
    let who_is = match config.endpoint_of(text, false) {
        Some((endpoint, model)) => {
            let endpoint = Some(Arc::new(endpoint.clone()));
            ModelArgs { model: Some(model), endpoint, pool: None, ..args.clone() }
        }
        None => {
            let name = ModelName::parse(text, false).map_err(|error| wrong(error.to_string()))?;
            if name.provider.is_none() || name.model == PASSTHROUGH {
                let known = config.endpoints.keys().map(String::as_str);
                let known: Vec<_> = known.chain(KNOWN.iter().map(|it| it.name)).collect();
                return Err(wrong(format!(
                    "{text:?} names no endpoint: a member is ENDPOINT.MODEL; there are {}",
                    known.join(", ")
                )));
            }
            ModelArgs { model: Some(text.clone()), endpoint: None, pool: None, ..args.clone() }
        }
    };
    let asked = asked(&who_is, None).map_err(|failed| match failed.error {
        Error::Usage(what) => wrong(what),
        error => error,
    })?;
    let own = asked.route.who.config().and_then(|endpoint| endpoint.kinds);
    // Whoever names a model knows what it takes in.
    let kinds = kinds.or(own).unwrap_or(Kinds::ALL);
    Ok(Way::new(asked, *weight, kinds, config))
}

/// The endpoints that are asked what they offer.
fn endpoints(named: &PoolArgs) -> Result<Vec<Listing>, Error> {
    let PoolArgs { pool, config, .. } = named;
    let of = |name: &str, who: Who| {
        let base_url = who.place(None, None);
        Listing { name: name.to_owned(), who, base_url, headers: Vec::new() }
    };
    let known = pool.endpoints.iter().map(|(name, place)| {
        let who = Who::named(name, config).ok_or_else(|| {
            usage(format!(
                "{place}: {name:?} is neither an endpoint of a config file nor a provider"
            ))
        })?;
        Ok(of(name, who))
    });
    let mut found = known.collect::<Result<Vec<_>, Error>>()?;
    if pool.endpoints.is_empty() {
        let all = config.endpoints.iter();
        found = all.map(|(name, it)| of(name, Who::of_config(&Arc::new(it.clone())))).collect();
    }
    if found.is_empty() {
        let text = "-m auto asks the endpoints of config files what they offer, and there is none: \
                    put [endpoint.NAME] into rowmill.toml, or name a model with -m";
        return Err(usage(text));
    }
    Ok(found)
}

/// Who answers of all that endpoints offer.
fn offered(args: &ModelArgs, named: &PoolArgs) -> Result<Ways, Error> {
    let is_embedding =
        |who: &Who| args.protocol.map_or_else(|| who.protocol(), Protocol::from).is_embeddings();
    let (mut ways, mut keys, mut left_out) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut is_refused = Vec::new();
    for (listing, key, answer) in ask_all(endpoints(named)?, None, PATIENCE) {
        let Listing { name, who, base_url, .. } = listing;
        is_refused.push(answer.as_ref().is_err_and(|error| error.is_refused));
        if args.dialect == Dialect::Dria && !who.speaks(Protocol::Chat) {
            let why = "it does not speak Chat Completions, as the requests do";
            left_out.push(format!("{name} ({}): {why}", shown_url(&base_url)));
            continue;
        }
        let task = if is_embedding(&who) { Task::Embeddings } else { Task::Chat };
        match chosen(&who, &base_url, answer, task) {
            Ok(models) => {
                let own = who.config().and_then(|endpoint| endpoint.kinds);
                for model in models {
                    let asked = asked(&args.of(&who, &model.id), None).map_err(|it| it.error)?;
                    let kinds = own.or(model.kinds).unwrap_or(Kinds::TEXT);
                    let weight = model.nodes.unwrap_or(1);
                    ways.push(Way::new(asked, weight, kinds, &named.config));
                }
                keys.insert(name, key);
            }
            Err(why) => left_out.push(format!("{name} ({}): {why}", shown_url(&base_url))),
        }
    }
    if ways.is_empty() {
        let is_refused = is_refused.iter().all(|is| *is);
        return Err(Error::NothingOffered { why: left_out.join("; "), is_refused });
    }
    let warnings = left_out.iter().map(|why| format!("-m auto goes without {why}")).collect();
    Ok(Ways { keys, warnings, ..Ways::new(AUTO, ways) })
}

/// What is taken of what an endpoint offers.
fn chosen(who: &Who, base_url: &str, answer: Answer, task: Task) -> Result<Vec<Listed>, String> {
    let mut listed = answer.map_err(|error| error.to_string())?;
    if let Some(model) = who.config().and_then(|endpoint| endpoint.model.clone()) {
        let found = listed.into_iter().find(|it| it.id == model);
        return Ok(vec![found.unwrap_or_else(|| Listed::unknown(model))]);
    }
    listed.retain(|model| model.task == task);
    if listed.is_empty() {
        return Err("it offers no model for this".to_owned());
    }
    let counts_nodes = listed.iter().any(|model| model.nodes.is_some());
    listed.retain(|model| model.nodes != Some(0));
    if listed.is_empty() {
        return Err("no node serves any of its models now".to_owned());
    }
    // A vendor's catalogue has the cheapest and the dearest: that is not for a machine to choose.
    if !counts_nodes && listed.len() > 1 && who.is_vendor(base_url) {
        return Err(format!(
            "it offers {} models: say which with `model` in its table",
            listed.len()
        ));
    }
    Ok(listed)
}

/// Who answered before: only how many nodes each has is asked anew.
fn again(
    args: &ModelArgs,
    config: &Config,
    job: &JobSpec,
    before: &job::Pool,
) -> Result<Ways, Error> {
    let models = job.models();
    let mut ways = Vec::new();
    let mut places = BTreeMap::new();
    for member in &before.members {
        let who = planned_who(member, config)?;
        let model = &models[member.model].model;
        let asked = asked(&args.of(&who, model), None).map_err(|it| it.error)?;
        ways.push(Way::new(asked, 1, member.kinds, config));
        let base_url = who.place(None, None);
        let name = who.name().unwrap_or_default();
        places.insert(name.clone(), Listing { name, who, base_url, headers: Vec::new() });
    }
    let (mut keys, mut nodes) = (BTreeMap::new(), BTreeMap::new());
    for (listing, key, answer) in ask_all(places.into_values().collect(), None, PATIENCE) {
        // Who does not say how many there are is taken to have one.
        for model in answer.unwrap_or_default() {
            nodes.insert((listing.name.clone(), model.id), model.nodes);
        }
        keys.insert(listing.name, key);
    }
    for way in &mut ways {
        let key = (way.place(), way.model.model.clone());
        way.weight = nodes.get(&key).copied().flatten().unwrap_or(1).max(1);
    }
    Ok(Ways { keys, ..Ways::new(AUTO, ways) })
}

fn planned_who(member: &PoolMember, config: &Config) -> Result<Who, Error> {
    let name = member.provider.as_deref().unwrap_or_default();
    Who::named(name, config).ok_or_else(|| {
        let at = &member.base_url;
        usage(format!(
            "the plan is for a pool with the endpoint {name} (at {at}), which is no provider that is \
             known here and in no config file that was read: put [endpoint.{name}] into \
             rowmill.toml, or name the file that has it with --config"
        ))
    })
}

impl Ways {
    fn new(name: &str, ways: Vec<Way>) -> Self {
        let (keys, warnings) = (BTreeMap::new(), Vec::new());
        Self { name: name.to_owned(), ways, keys, warnings, has_timeout: false }
    }

    /// The ways that a plan notes, each where it says.
    pub(super) fn planned(
        manifest: &Manifest,
        pool: &job::Pool,
        config: &Config,
        has_timeout: bool,
    ) -> Result<Self, Error> {
        let models = manifest.job.models();
        let ways = pool.members.iter().map(|member| {
            let who = planned_who(member, config)?;
            let route = Route::to(who, member.transport, member.base_url.clone());
            let PoolModel { model, protocol, parameters } = models[member.model].clone();
            let asked = Asked { model, protocol, parameters, route };
            Ok(Way::new(asked, member.weight, member.kinds, config))
        });
        let ways = ways.collect::<Result<_, Error>>()?;
        Ok(Self { has_timeout, ..Self::new(&pool.name, ways) })
    }

    /// What can be told before anything is asked.
    fn check(&self, pool: &Pool) -> Result<(), Error> {
        let place = match pool.place.line {
            0 => String::new(),
            _ => format!("{}: ", pool.place),
        };
        let mut seen = BTreeSet::new();
        for way in &self.ways {
            let (at, model) = (way.place(), way.model.shown());
            if !seen.insert((at.clone(), model.clone())) {
                return Err(usage(format!(
                    "{place}the pool {} has {model} of {at} twice: give it a weight instead",
                    self.name
                )));
            }
        }
        let embeddings = self.ways.iter().filter(|way| way.model.protocol.is_embeddings()).count();
        if embeddings > 0 && embeddings < self.ways.len() {
            return Err(usage(format!(
                "{place}some models of the pool {} answer with vectors, and others in words",
                self.name
            )));
        }
        Ok(())
    }

    /// The protocol, as far as it is one for all: embeddings are not mixed with others.
    pub(super) fn protocol(&self) -> Protocol {
        self.ways.first().map(|way| way.model.protocol).unwrap_or_default()
    }

    /// The job as any of the pool may answer it.
    pub(super) fn job(&self, job: &JobSpec) -> JobSpec {
        job.for_any(&self.name, self.ways.iter().map(|way| way.model.clone()).collect())
    }

    /// The pool as a plan of this job notes it.
    pub(super) fn plan(&self, job: &JobSpec) -> job::Pool {
        let models: Vec<_> = job.models().iter().map(PoolModel::shown).collect();
        let members = self.ways.iter().map(|way| {
            let shown = way.model.shown();
            PoolMember {
                model: models.iter().position(|model| *model == shown).unwrap_or_default(),
                provider: way.route.who.name(),
                base_url: way.route.shown_base_url().unwrap_or_default(),
                transport: way.route.transport,
                weight: way.weight,
                kinds: way.kinds,
            }
        });
        job::Pool { name: self.name.clone(), members: members.collect() }
    }

    /// The most calls in flight where no option says so: what all endpoints take together.
    pub(super) fn in_flight(&self) -> u32 {
        let endpoints: BTreeMap<_, _> = self
            .ways
            .iter()
            .map(|way| (way.place(), way.concurrency.unwrap_or(IN_FLIGHT)))
            .collect();
        endpoints.values().fold(0_u32, |sum, more| sum.saturating_add(*more)).min(1_000_000)
    }

    /// Who answers a job: all, or those that serve the model that is required.
    pub(super) fn answerer(
        &mut self,
        job: &JobSpec,
        required: Option<&str>,
        is_made: bool,
        form: FormArgs,
        config: &Config,
    ) -> Result<Answerer, Error> {
        let is_wanted = |way: &Way| {
            let model = &way.model.model;
            required.is_none_or(|name| name == model || *name == format!("{}.{model}", way.place()))
        };
        if let (Some(name), false) = (required, self.ways.iter().any(is_wanted)) {
            let known: BTreeSet<_> = self.ways.iter().map(|way| way.model.model.as_str()).collect();
            let known: Vec<_> = known.into_iter().collect();
            return Err(usage(format!(
                "--require-model {name}: the pool {} has no such model; it has {}",
                self.name,
                known.join(", ")
            )));
        }
        self.ways.retain(is_wanted);
        let mut structured_as = None;
        let mut team = Vec::new();
        for way in self.ways.clone() {
            let job = job.asking(&way.model);
            structured_as = structured(&job, form)?;
            let key = self.key(&way, is_made)?;
            let base_url = way.route.base_url.clone().unwrap_or_default();
            let endpoint = Endpoint::parse(&base_url).map_err(usage)?;
            let api = Api::new(&job, way.route.transport, key.at(&endpoint)).map_err(usage)?;
            team.push(Member {
                price: price_of(&way.route.who, &base_url, &job, config),
                place: Some(way.place()),
                weight: way.weight,
                kinds: way.kinds,
                rates: way.rates,
                concurrency: way.concurrency.map(|number| number as usize),
                timeout: way.timeout.filter(|_| !self.has_timeout),
                idle_timeout: way.route.idle_timeout,
                ..Member::new(way.model.model.clone(), Model::Called(api), Some(endpoint))
            });
        }
        Ok(Answerer { teams: vec![team], structured: structured_as })
    }

    /// Who serves a member.
    pub(super) fn who(&self, member: &Member) -> &Who {
        let is_it = |way: &&Way| member.place.as_ref() == Some(&way.place());
        // No pool is empty.
        &self.ways.iter().find(is_it).unwrap_or(&self.ways[0]).route.who
    }

    /// The key of a member's endpoint, come by once.
    fn key(&mut self, way: &Way, is_made: bool) -> Result<Access, Error> {
        let key = match self.keys.get(&way.place()) {
            Some(key) => key.clone(),
            None => way.route.access(None::<&Path>, is_made)?,
        };
        if is_made {
            way.route.check_key(&key)?;
        }
        self.keys.insert(way.place(), key.clone());
        Ok(key)
    }

    /// Its members, one a line.
    pub(super) fn told(&self) -> Vec<String> {
        let sum: u64 = self.ways.iter().map(|way| u64::from(way.weight)).sum();
        let lines = self.ways.iter().map(|way| {
            let (place, model) = (way.place(), way.model.shown());
            let at = way.route.shown_base_url().unwrap_or_default();
            #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
            let share = 100.0 * f64::from(way.weight) / sum as f64;
            format!(
                "  {place} · {model} · {} · weight {} ({share:.0} %) · {at}",
                way.kinds, way.weight
            )
        });
        let head = format!("pool {}: {} members", self.name, self.ways.len());
        std::iter::once(head).chain(lines).collect()
    }
}
