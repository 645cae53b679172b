//! `rowmill models`: what endpoints offer, as a table or as JSON.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::args::ModelsArgs;
use super::exit::{self, Line};
use super::model::{Who, shown_url};
use super::surroundings::Failed;
use super::typed::Typed;
use super::{config, question::variable};
use crate::config::Header;
use crate::http::{Endpoint, Limits};
use crate::job::Kinds;
use crate::pipeline::{self, Error, NotListed};
use crate::provider::{Access, KNOWN, Listed, Listing, Provider};
use crate::telemetry::escape;

/// Bytes of a list, all its pages together.
const BODY: usize = 8 << 20;

/// An endpoint that is asked.
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) who: Who,
    pub(super) base_url: String,
    /// Headers of every call, besides those of a config file.
    pub(super) headers: Vec<Header>,
}

/// What it said.
pub(super) type Answer = Result<Vec<Listed>, NotListed>;

/// Asks endpoints for their models, all at once. Gives the key of each as well, where there is one.
pub(super) fn ask_all(
    asked: Vec<Asked>,
    key_file: Option<&Path>,
    timeout: Duration,
) -> Vec<(Asked, Access, Answer)> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = asked
            .into_iter()
            .map(|asked| {
                scope.spawn(move || {
                    let (key, answer) = ask(&asked, key_file, timeout);
                    (asked, key, answer)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|it| it.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

pub(super) fn models(mut args: ModelsArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    config::read(&mut args.config)?;
    let asked = asked(&args)?;
    for asked in &asked {
        Endpoint::parse(&asked.base_url).map_err(|error| Error::Usage(error.to_string()))?;
    }
    let answers: Vec<_> = ask_all(asked, args.api_key_file.as_deref(), args.timeout)
        .into_iter()
        .map(|(asked, _, answer)| (asked, answer))
        .collect();
    show(&answers, args.json);
    for (Asked { name, base_url, .. }, answer) in &answers {
        if let Err(error) = answer {
            let base_url = shown_url(base_url);
            exit::say(&escape(&format!("{name} ({base_url}): {error}")));
        }
    }
    let failures: Vec<_> = answers.iter().filter_map(|(_, answer)| answer.as_ref().err()).collect();
    if failures.len() < answers.len() {
        return Ok(ExitCode::from(exit::OK));
    }
    let (code, what) = match failures.iter().all(|failure| failure.is_refused) {
        true => (exit::NO_PERMISSION, "refused the key, or wants one"),
        false => (exit::UNAVAILABLE, "did not answer with its models"),
    };
    let what = match failures.len() {
        1 => format!("the endpoint {what}"),
        count => format!("each of {count} endpoints {what}"),
    };
    Ok(Line { code, what, safe: exit::UNTOUCHED, next: typed.again() }.print())
}

/// Who is asked.
fn asked(args: &ModelsArgs) -> Result<Vec<Asked>, Error> {
    let config = &args.config.read;
    let base_url = args.base_url.as_deref();
    let of = |name: &str, who: Who| {
        let base_url = who.place(base_url, None);
        let headers = args.headers.clone();
        Asked { name: name.to_owned(), who, base_url, headers }
    };
    if args.names.len() != 1 && !args.headers.is_empty() && base_url.is_none() {
        let text = "--header is for the calls of one endpoint: name that one";
        return Err(Error::Usage(text.to_owned()));
    }
    if args.names.len() != 1 && args.api_key_file.is_some() && base_url.is_none() {
        let text = "--api-key-file holds the key of one endpoint: name that one";
        return Err(Error::Usage(text.to_owned()));
    }
    match (&args.names[..], base_url) {
        ([], Some(url)) => {
            return Ok(vec![of(&shown_url(url), Who::of_provider(Provider::unnamed()))]);
        }
        ([_, _, ..], Some(_)) => {
            let text = "--base-url is where one endpoint is, and several are named";
            return Err(Error::Usage(text.to_owned()));
        }
        _ => {}
    }
    let all_names = || {
        let is_open = |provider: &&Provider| {
            let mut variables = provider.keys.iter().chain(&provider.base_url_variable);
            // The same place under another name.
            provider.name != "responses" && variables.any(|name| variable(name).is_some())
        };
        let open = KNOWN.iter().filter(is_open).map(|provider| provider.name.to_owned());
        config.endpoints.keys().cloned().chain(open).collect()
    };
    let mut names: Vec<String> = match args.names.is_empty() {
        true => all_names(),
        false => args.names.clone(),
    };
    names.sort();
    names.dedup();
    if names.is_empty() {
        let text = "there is no endpoint to ask: name a provider (rowmill models ollama), give \
                    --base-url, or put endpoints into rowmill.toml";
        return Err(Error::Usage(text.to_owned()));
    }
    let known = |name: &String| {
        let who = Who::named(name, config).ok_or_else(|| {
            let own = config.endpoints.keys().map(String::as_str);
            let others = KNOWN.iter().map(|provider| provider.name);
            let others = others.filter(|name| !config.endpoints.contains_key(*name));
            let known: Vec<_> = own.chain(others).collect();
            Error::Usage(format!("{name:?} is no endpoint; there are {}", known.join(", ")))
        })?;
        Ok(of(name, who))
    };
    names.iter().map(known).collect()
}

/// Asks one.
fn ask(asked: &Asked, key_file: Option<&Path>, timeout: Duration) -> (Access, Answer) {
    let Asked { who, base_url, headers, .. } = asked;
    let keyless = |error: Error| {
        let hint = match &error {
            Error::NoKey { variables, .. } => format!(" (set {variables})"),
            _ => String::new(),
        };
        NotListed { reason: format!("{error}{hint}"), is_refused: true }
    };
    let access = match who.access(key_file, headers, true) {
        Ok(access) => access,
        Err(error) => return (Access::default(), Err(keyless(error))),
    };
    let list = || {
        who.check_key(base_url, &access).map_err(keyless)?;
        let wrong = |reason: String| NotListed { reason, is_refused: false };
        let endpoint = Endpoint::parse(base_url).map_err(|error| wrong(error.to_string()))?;
        let listing = Listing::new(who.protocol(), access.clone().at(&endpoint))
            .map_err(|error| keyless(Error::Usage(error.to_string())))?;
        pipeline::models(&endpoint, &listing, Limits::whole(timeout, BODY))
    };
    let answer = list();
    (access, answer)
}

/// A line of JSON.
#[derive(Serialize)]
struct Row<'a> {
    endpoint: &'a str,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kinds: Option<Kinds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<u32>,
}

impl Row<'_> {
    fn cells(&self) -> [String; 5] {
        let day = self.created.map(|created| created.chars().take(10).collect());
        let context = self.context.map(|context| context.to_string());
        let cells = [
            Some(self.endpoint.to_owned()),
            Some(self.model.to_owned()),
            self.owner.map(str::to_owned),
            day,
            context,
        ];
        cells.map(|cell| escape(cell.as_deref().unwrap_or("-")))
    }
}

fn show(answers: &[(Asked, Answer)], is_json: bool) {
    let rows = answers.iter().flat_map(|(Asked { name, .. }, answer)| {
        answer.iter().flatten().map(|model| Row {
            endpoint: name,
            model: &model.id,
            owner: model.owner.as_deref(),
            created: model.created.as_deref(),
            context: model.context,
            kinds: model.kinds,
            nodes: model.nodes,
        })
    });
    if is_json {
        for row in rows {
            exit::show(&serde_json::to_string(&row).unwrap_or_default());
        }
        return;
    }
    let head = ["endpoint", "model", "owner", "created", "context"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(rows.map(|row| row.cells())).collect();
    if rows.len() == 1 {
        return;
    }
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths = [0, 1, 2, 3, 4].map(width);
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        exit::show(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
