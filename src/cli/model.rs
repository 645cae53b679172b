//! Who is asked, where, and with whose key, from the arguments, the environment and a plan.

use std::sync::Arc;
use std::time::Duration;

use super::args::ModelArgs;
use super::dialect::refused;
use super::price::{price_of, prices_at};
use super::question::variable;
use super::serving::Serving;
use super::surroundings::Failed;
use crate::config::{self, Config, Header};
use crate::http::{Endpoint, hide_query};
use crate::job::{Dialect, JobSpec, OWN_MODEL, Parameters, Protocol, Transport};
use crate::pipeline::Error;
use crate::plan::alike;
use crate::provider::{
    Access, Api, BadName, KNOWN, Model, ModelName, PASSTHROUGH, Provider, Wanted,
    takes_temperature, translate,
};
use crate::store::NotedRoute;
use crate::work::Member;

/// What a command says of the model.
pub(super) struct Asked {
    /// As the endpoint names it.
    pub(super) model: String,
    pub(super) protocol: Protocol,
    pub(super) parameters: Parameters,
    pub(super) route: Route,
}

/// The way to a model: nothing of it decides an answer.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) who: Who,
    pub(super) transport: Transport,
    /// Nothing for models that are not called.
    pub(super) base_url: Option<String>,
    /// Headers of every call, besides those of a config file.
    pub(super) headers: Vec<Header>,
    /// How long an answer that has begun may make no progress, where the model's name says it.
    pub(super) idle_timeout: Option<Duration>,
    /// Whether it is rowmill that starts whoever answers.
    pub(super) is_served: bool,
}

/// Who serves a model.
#[derive(Clone)]
pub(super) struct Who {
    pub(super) provider: &'static Provider,
    /// The endpoint of a config file that it is.
    pub(super) endpoint: Option<Arc<config::Endpoint>>,
}

pub(super) fn usage(error: impl std::fmt::Display) -> Error {
    Error::Usage(error.to_string())
}

/// Whether it was said where endpoints without a name are.
pub(super) fn has_base_url(args: &ModelArgs) -> bool {
    args.base_url.is_some() || base_url_variable(Provider::unnamed()).is_some()
}

/// Reads what a command says of the model. `serving` is the server that rowmill is to start for it.
pub(super) fn asked(args: &ModelArgs, serving: Option<&Serving>) -> Result<Asked, Failed> {
    let Some(text) = &args.model else {
        let text = "no model is named: give one with -m, in ROWMILL_MODEL, or as `model` in a \
                    config file";
        return Err(usage(text).into());
    };
    let (name, who) = match &args.endpoint {
        Some(endpoint) => (ModelName::parse_model(text), Who::of_config(endpoint)),
        None => {
            let spelled = serving.map_or(text.as_str(), |serving| &serving.spelled);
            let name = ModelName::parse(spelled, has_base_url(args) || serving.is_some());
            let provider = name.as_ref().ok().and_then(|name| name.provider);
            (name, Who::of_provider(provider.unwrap_or(Provider::unnamed())))
        }
    };
    let name = name.map_err(|error| usage(who.told(&error)))?;
    if name.provider.is_none()
        && args.endpoint.is_none()
        && serving.is_none()
        && !has_base_url(args)
    {
        check_prefix(&name.model)?;
    }
    let provider = who.provider;
    let protocol = protocol(args, &who)?;
    let default = args.endpoint.as_ref().and_then(|endpoint| endpoint.transport);
    let transport = name.transport.or(default).unwrap_or_default();
    let is_called = name.model != PASSTHROUGH;
    let is_named = name.provider.is_some() || args.endpoint.is_some();
    if !is_called && (is_named || args.protocol.is_some() || !transport.is_http()) {
        let text = "passthrough is rowmill's own: it is not called, and has no provider, protocol \
                    or transport";
        return Err(usage(text).into());
    }
    if args.dialect.is_request() {
        return of_requests(args, name, who, is_called, serving);
    }
    check_transport(provider, protocol, transport)?;
    let base_url = match is_called {
        true => Some(place_of(&who, args)?),
        false => None,
    };
    let parameters = parameters(args, &name, provider, (protocol, base_url.as_deref()))?;
    let (headers, idle_timeout) = (args.headers.clone(), name.idle_timeout);
    let route = Route { who, transport, base_url, headers, idle_timeout, is_served: false };
    match serving {
        Some(serving) => {
            let (model, route) = (serving.model.clone(), route.served());
            Ok(Asked { model, protocol, parameters, route })
        }
        None => Ok(Asked { model: name.model, protocol, parameters, route }),
    }
}

/// Refuses a model whose name begins like that of a provider, but with a name that none has: without a base URL it
/// would be asked of OpenAI, whose models have a digit before the first dot, and no slash.
fn check_prefix(model: &str) -> Result<(), Error> {
    let Some((prefix, rest)) = model.split_once(['.', '/']) else { return Ok(()) };
    if prefix.chars().any(|it| it.is_ascii_digit()) && !model[prefix.len()..].starts_with('/') {
        return Ok(());
    }
    let near = alike(prefix, KNOWN.iter().map(|provider| provider.name));
    let meant = near.map_or_else(String::new, |near| format!(": did you mean {near}.{rest}?"));
    Err(usage(format!(
        "{prefix:?} in {model:?} is no provider{meant} (a model of a server of your own goes with --base-url; \
         docs/models.md has all providers)"
    )))
}

/// What is said of the model of requests: they say themselves how it is spoken to, and what to it.
fn of_requests(
    args: &ModelArgs,
    name: ModelName,
    who: Who,
    is_called: bool,
    serving: Option<&Serving>,
) -> Result<Asked, Failed> {
    let (dialect, protocol, parameters) = (args.dialect, Protocol::Chat, Parameters::new());
    if let Some((parameter, _)) = name.parameters.first() {
        return Err(refused(dialect, &format!("?{parameter}=… behind the model's name")).into());
    }
    if name.transport.is_some_and(|it| !it.is_http()) {
        return Err(refused(dialect, "?transport=… behind the model's name").into());
    }
    if dialect == Dialect::Dria && !who.speaks(protocol) {
        let who = who.provider.shown();
        return Err(usage(format!(
            "requests of the dialect dria are Chat Completions, and {who} does not speak that protocol"
        ))
        .into());
    }
    let base_url = match is_called {
        true => Some(place_of(&who, args)?),
        false => None,
    };
    let (transport, idle_timeout) = (Transport::Http, name.idle_timeout);
    let headers = args.headers.clone();
    let route = Route { who, transport, base_url, headers, idle_timeout, is_served: false };
    Ok(match serving {
        Some(it) => Asked { model: it.model.clone(), protocol, parameters, route: route.served() },
        None => Asked { model: name.model, protocol, parameters, route },
    })
}

/// Where a command says that an endpoint is.
fn place_of(who: &Who, args: &ModelArgs) -> Result<String, Error> {
    let place = who.place(args.base_url.as_deref(), None);
    match (place.is_empty(), who.provider.base_url_variable) {
        (true, Some(variable)) => Err(usage(format!(
            "{} is at another place for everyone: say where with --base-url or in {variable}",
            who.provider.shown()
        ))),
        _ => Ok(place),
    }
}

/// A base URL as it may be kept and shown.
pub(super) fn shown_url(base_url: &str) -> String {
    Endpoint::parse(base_url).map_or_else(|_| hide_query(base_url), |endpoint| endpoint.to_string())
}

/// Where the environment says a provider is.
fn base_url_variable(provider: &Provider) -> Option<String> {
    provider.base_url_variable.and_then(variable)
}

impl Who {
    /// The endpoint or else the provider of a name.
    pub(super) fn named(name: &str, config: &Config) -> Option<Self> {
        match config.endpoints.get(name) {
            Some(endpoint) => Some(Self::of_config(&Arc::new(endpoint.clone()))),
            None => Provider::named(name).map(Self::of_provider),
        }
    }

    pub(super) fn of_provider(provider: &'static Provider) -> Self {
        Self { provider, endpoint: None }
    }

    pub(super) fn of_config(endpoint: &Arc<config::Endpoint>) -> Self {
        let provider = endpoint.provider.unwrap_or(Provider::unnamed());
        Self { provider, endpoint: Some(Arc::clone(endpoint)) }
    }

    /// The name it is called by; nothing where none was given.
    pub(super) fn name(&self) -> Option<String> {
        let name = self.endpoint.as_ref().map_or(self.provider.name, |endpoint| &endpoint.name);
        Some(name.to_owned()).filter(|name| !name.is_empty())
    }

    /// The endpoint of a config file that it is.
    pub(super) fn config(&self) -> Option<&config::Endpoint> {
        self.endpoint.as_deref()
    }

    /// Whether this is the place of a vendor who is paid.
    pub(super) fn is_vendor(&self, base_url: &str) -> bool {
        self.provider.needs_key && base_url == self.provider.base_url
    }

    /// The protocol it is spoken to in unless another is asked for.
    pub(super) fn protocol(&self) -> Protocol {
        let own = self.endpoint.as_ref().and_then(|endpoint| endpoint.protocol);
        own.unwrap_or(self.provider.protocols[0])
    }

    /// Whether it can be spoken to in a protocol.
    pub(super) fn speaks(&self, protocol: Protocol) -> bool {
        self.provider.protocols.contains(&protocol)
    }

    /// What is wrong with a model's name, and at which endpoint.
    fn told(&self, error: &BadName) -> String {
        match (&self.endpoint, error) {
            (Some(endpoint), BadName::NoModel(_)) => {
                let (name, file) = (&endpoint.name, endpoint.file.display());
                format!(
                    "the endpoint {name} has no model of its own in {file}: name one, -m {name}.MODEL"
                )
            }
            _ => error.to_string(),
        }
    }

    /// Whether the variables of the provider are its variables: those of an endpoint in a config file
    /// are, where that stands in the provider's place.
    fn has_variables(&self) -> bool {
        self.endpoint.as_ref().is_none_or(|endpoint| endpoint.is_its_provider())
    }

    /// Where it is: where an option says, else the plan, else the environment, else the config file,
    /// else where the provider is.
    pub(super) fn place(&self, option: Option<&str>, planned: Option<&str>) -> String {
        let own = self.endpoint.as_ref().and_then(|endpoint| endpoint.base_url.as_deref());
        let is_variable = self.has_variables() || own.is_none();
        let of_variable = || base_url_variable(self.provider).filter(|_| is_variable);
        let of_file = || own.unwrap_or(self.provider.base_url).to_owned();
        // What a plan had to leave out of a URL is known elsewhere, if at all.
        let planned = planned.filter(|url| !url.contains("=***") || own.is_none() && !is_variable);
        let said = option.or(planned).map(str::to_owned);
        said.or_else(of_variable).unwrap_or_else(of_file)
    }

    /// Who needs a key at its own place is not called without one.
    pub(super) fn check_key(&self, base_url: &str, access: &Access) -> Result<(), Error> {
        let is_its_own = base_url == self.provider.base_url;
        if access.has_key() || !self.provider.needs_key || !is_its_own {
            return Ok(());
        }
        let provider = self.name().unwrap_or_default();
        Err(Error::NoKey { provider, variables: self.provider.keys.join(" or ") })
    }
}

fn protocol(args: &ModelArgs, who: &Who) -> Result<Protocol, Error> {
    let provider = who.provider;
    let protocol = args.protocol.map_or_else(|| who.protocol(), Protocol::from);
    if provider.protocols.contains(&protocol) {
        return Ok(protocol);
    }
    let spoken: Vec<_> = provider.protocols.iter().map(|protocol| protocol.name()).collect();
    let (who, name, spoken) = (provider.shown(), protocol.name(), spoken.join(", "));
    Err(usage(format!("{who} does not speak the protocol {name}; it speaks {spoken}")))
}

fn check_transport(
    provider: &Provider,
    protocol: Protocol,
    transport: Transport,
) -> Result<(), Error> {
    let (who, name) = (provider.shown(), protocol.name());
    match transport {
        Transport::Sse if protocol == Protocol::Embeddings => {
            Err(usage("embeddings are not streamed: leave transport=sse out"))
        }
        Transport::Ws if protocol != Protocol::Responses => Err(usage(format!(
            "transport=ws is of the protocol responses, not of {name}; transport=sse streams"
        ))),
        Transport::Ws if !provider.has_websocket => {
            Err(usage(format!("{who} has no WebSocket mode; transport=sse streams")))
        }
        _ => Ok(()),
    }
}

fn parameters(
    args: &ModelArgs,
    name: &ModelName,
    provider: &Provider,
    (protocol, base_url): (Protocol, Option<&str>),
) -> Result<Parameters, Error> {
    let fields = args.params.iter().map(|it| (it.name.clone(), it.value.clone())).collect();
    let defaults = args.endpoint.as_ref().map(|endpoint| endpoint.parameters.clone());
    let defaults = defaults.unwrap_or_default();
    let mut wanted =
        Wanted { named: name.parameters.clone(), fields, defaults, ..Wanted::default() };
    if args.dialect == Dialect::Prompts && !protocol.is_embeddings() {
        // As dria batch has them.
        wanted.usual.push(("max_tokens", "2048".to_owned()));
        if takes_temperature(&name.model) {
            wanted.usual.push(("temperature", "0.7".to_owned()));
        }
    }
    let options = [
        ("temperature", args.temperature.clone()),
        ("max_tokens", args.max_tokens.map(|tokens| tokens.to_string())),
        ("top_p", args.top_p.clone()),
    ];
    for (name, value) in options {
        if let Some(value) = value {
            wanted.add(name, value).map_err(usage)?;
        }
    }
    let endpoint = base_url.and_then(|url| Endpoint::parse(url).ok());
    let provider = endpoint.map_or(*provider, |endpoint| provider.at(&endpoint));
    translate(&provider, protocol, &wanted).map_err(usage)
}

impl Route {
    /// The way that a plan says, unless `base_url` or the environment knows another place.
    pub(super) fn planned(
        noted: &NotedRoute,
        base_url: Option<&str>,
        headers: &[Header],
        config: &Config,
    ) -> Result<Self, Error> {
        let who = match &noted.provider {
            None => Who::of_provider(Provider::unnamed()),
            Some(name) => Who::named(name, config).ok_or_else(|| {
                let place = noted.base_url.as_deref().unwrap_or("an unknown place");
                usage(format!(
                    "the plan is for the endpoint {name} (at {place}), which is no provider that is \
                     known here and in no config file that was read: put [endpoint.{name}] into \
                     rowmill.toml, or name the file that has it with --config"
                ))
            })?,
        };
        let base_url = Some(who.place(base_url, noted.base_url.as_deref()));
        let (transport, headers) = (noted.transport, headers.to_vec());
        Ok(Self { who, transport, base_url, headers, idle_timeout: None, is_served: false })
    }

    /// What a plan notes of it.
    pub(super) fn noted(&self) -> NotedRoute {
        let (base_url, provider) = (self.planned_base_url(), self.who.name());
        NotedRoute { base_url, provider, transport: self.transport }
    }

    /// The way to an endpoint at a place.
    pub(super) fn to(who: Who, transport: Transport, base_url: String) -> Self {
        let (base_url, headers) = (Some(base_url), Vec::new());
        Self { who, transport, base_url, headers, idle_timeout: None, is_served: false }
    }

    /// The same way to a server that rowmill starts.
    pub(super) fn served(self) -> Self {
        Self { base_url: Some(Serving::base_url().to_owned()), is_served: true, ..self }
    }

    /// Where the endpoint is, as a plan notes it: a server that rowmill starts listens at another
    /// port each time.
    pub(super) fn planned_base_url(&self) -> Option<String> {
        self.shown_base_url().filter(|_| !self.is_served)
    }

    /// Where the endpoint is, as it may be kept and shown.
    pub(super) fn shown_base_url(&self) -> Option<String> {
        self.base_url.as_deref().map(shown_url)
    }

    /// Who needs a key at its own place is not called without one.
    pub(super) fn check_key(&self, access: &Access) -> Result<(), Error> {
        self.base_url.as_deref().map_or(Ok(()), |base_url| self.who.check_key(base_url, access))
    }

    /// Who answers a job of one model.
    pub(super) fn member(
        &self,
        job: &JobSpec,
        access: Access,
        config: &Config,
    ) -> Result<Member, Error> {
        let name = job.model.clone();
        let Some(base_url) = self.base_url.as_deref().filter(|_| job.model != PASSTHROUGH) else {
            return Ok(Member::new(name, Model::Passthrough, None));
        };
        let endpoint = Endpoint::parse(base_url).map_err(usage)?;
        let model = Api::new(job, self.transport, access.at(&endpoint));
        let model = Model::Called(model.map_err(usage)?);
        let price = price_of(&self.who, base_url, job, config);
        let is_request = job.dialect.is_request();
        let prices = is_request.then(|| Arc::new(prices_at(&self.who, base_url, config)));
        // Who answers which model is told where lines say it.
        let place = || self.who.name().unwrap_or_else(|| shown_url(base_url));
        let place = (job.model == OWN_MODEL).then(place);
        let idle_timeout = self.idle_timeout;
        Ok(Member {
            price,
            prices,
            place,
            idle_timeout,
            ..Member::new(name, model, Some(endpoint))
        })
    }
}
