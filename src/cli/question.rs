//! What is asked about which rows, from the arguments, the environment and the files they name.

use std::path::Path;

use super::args::{InputArgs, MAX_ROW_BYTES, ModelArgs, PromptArgs, SchemaArgs};
use super::constant_prompt::refuse_constant;
use super::model::{Asked, Route, asked};
use super::names::{NamedWays, NamesArgs};
use super::pool::ways;
use super::reach::Reach;
use super::routes::Routes;
use super::schema::schema_text;
use super::serving::Serving;
use super::surroundings::{Failed, cores};
use crate::job::{
    Dedupe, Dialect, IdFrom, JobSpec, MAX_ATTACHMENT_BYTES, OWN_MODEL, OnDuplicate, OtherModel,
    Parameters, Pool, Protocol, Sample, Selection,
};
use crate::pipeline::{Error, Question};
use crate::plan;
use crate::prompt;
use crate::store::WorkDir;
use crate::telemetry::now_ms;

/// What is asked about each row, whatever rows there are: the job of all rows as they come, each with its
/// number for its id.
pub(super) fn asked_of_rows(
    dialect: Dialect,
    prompt: &PromptArgs,
    schema: &SchemaArgs,
    (model, serving): (&ModelArgs, Option<&Serving>),
    include_input: bool,
    // Where there may be a plan of this question already.
    work_dir: Option<&Path>,
) -> Result<(JobSpec, Reach), Failed> {
    let (args, repeat) = (model, model.repeat);
    let Asking { model, protocol, parameters, others, reach } = asking(args, serving, work_dir)?;
    let mut protocols = others.iter().map(|other| other.protocol).chain([protocol]);
    let is_embedded = protocols.any(|protocol| protocol == Protocol::Embeddings);
    if is_embedded && prompt.instruction.is_some() {
        let text = "embeddings take no instruction: leave --instruction out, or put it into the \
                    template";
        return Err(Error::Usage(text.to_owned()).into());
    }
    if is_embedded && prompt.attachment_field.is_some() {
        let text = "embeddings take text only: leave --attachment-field out";
        return Err(Error::Usage(text.to_owned()).into());
    }
    let text = match (&prompt.prompt, &prompt.template) {
        _ if dialect == Dialect::Prompts => prompt::OF_PROMPTS.to_owned(),
        _ if dialect.is_request() => String::new(),
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read_text(path)?,
        (None, None) => prompt::DEFAULT.to_owned(),
    };
    let is_said = prompt.prompt.is_some() || prompt.template.is_some();
    if is_said && dialect.is_rows() && repeat == 1 && prompt.attachment_field.is_none() {
        refuse_constant(prompt, &text)?;
    }
    let is_varied = repeat > 1 || !others.is_empty();
    let job = JobSpec {
        dialect,
        skip_bad_lines: false,
        model,
        protocol,
        pool: Vec::new(),
        names: reach.names(),
        prompt: text,
        instruction: prompt.instruction.as_deref().map(read_text).transpose()?,
        parameters,
        schema: schema_text(schema)?,
        id_field: None,
        id_from: IdFrom::default(),
        selection: Selection::default(),
        attachment_field: attachment_field(prompt, dialect, is_embedded),
        max_attachment_bytes: prompt.max_attachment_bytes.unwrap_or(MAX_ATTACHMENT_BYTES),
        on_duplicate: OnDuplicate::default(),
        on_missing_field: prompt.on_missing_field.map(Into::into).unwrap_or_default(),
        max_row_bytes: MAX_ROW_BYTES,
        include_input,
        named: is_varied.then(|| args.named.clone()),
        others,
        repeat,
        dedupe: Dedupe::Off,
    };
    Ok((job, reach))
}

pub(super) fn question(
    input: &InputArgs,
    prompt: &PromptArgs,
    schema: &SchemaArgs,
    model: (&ModelArgs, Option<&Serving>),
    include_input: bool,
    work_dir: Option<&Path>,
) -> Result<(Question, Reach), Failed> {
    let (job, reach) = asked_of_rows(input.lines, prompt, schema, model, include_input, work_dir)?;
    let job = JobSpec {
        skip_bad_lines: input.skip_bad_lines,
        id_field: input.id_field.clone(),
        id_from: input.id_from.map(Into::into).unwrap_or_default(),
        selection: Selection {
            offset: input.offset,
            limit: input.limit,
            sample: input.sample.map(|rows| Sample { rows, seed: input.seed }),
        },
        on_duplicate: input.on_duplicate.into(),
        max_row_bytes: input.max_row_bytes,
        dedupe: dedupe(input, job.variants() > 1)?,
        ..job
    };
    let (job, pool) = reach.pooled(job);
    let plan = plan_options(input, &reach, pool);
    let (link, ahead, is_unseen) = (input.link.clone(), input.ahead.clone(), input.is_unseen);
    Ok((Question { inputs: input.inputs.clone(), link, ahead, is_unseen, job, plan }, reach))
}

/// How the plan is made, and what it notes of who answers.
fn plan_options(input: &InputArgs, reach: &Reach, pool: Option<Pool>) -> plan::Options {
    let route = reach.route();
    plan::Options {
        cutting: cutting(input),
        threads: cores().min(8),
        base_url: route.and_then(Route::planned_base_url),
        provider: route.and_then(|route| route.who.name()),
        transport: route.map(|route| route.transport).unwrap_or_default(),
        routes: reach.other_routes(),
        pool,
        prices: None,
        replaces: Vec::new(),
        published: 0,
        is_spooled: false,
        url: None,
        counts_twins: false,
        now_ms: now_ms(),
    }
}

/// The field that names what is attached to a row.
fn attachment_field(prompt: &PromptArgs, dialect: Dialect, is_embedded: bool) -> Option<String> {
    let of_prompts = dialect == Dialect::Prompts && !is_embedded;
    prompt.attachment_field.clone().or_else(|| of_prompts.then(|| "attachment".to_owned()))
}

/// Where shards end.
fn cutting(input: &InputArgs) -> plan::Cutting {
    match (input.shard_rows, input.shards) {
        (Some(rows), _) => plan::Cutting::Rows(rows as usize),
        (None, Some(shards)) => plan::Cutting::Shards(shards),
        (None, None) => plan::Cutting::Auto,
    }
}

/// Whether rows that ask the same are asked once.
fn dedupe(input: &InputArgs, is_varied: bool) -> Result<Dedupe, Error> {
    let wish = input.dedupe.wish();
    if is_varied && wish == Dedupe::On {
        let text = "--dedupe gives rows that ask the same one answer; where several answers are wanted \
                    to each row (several -m, --repeat) it is not there";
        return Err(Error::Usage(text.to_owned()));
    }
    Ok(wish)
}

/// What is said of who answers.
struct Asking {
    model: String,
    protocol: Protocol,
    parameters: Parameters,
    /// The other models that answer each row.
    others: Vec<OtherModel>,
    reach: Reach,
}

fn asking(
    args: &ModelArgs,
    serving: Option<&Serving>,
    work_dir: Option<&Path>,
) -> Result<Asking, Failed> {
    if let Some(names) = &args.maps {
        return asking_named(args, names);
    }
    let planned = || work_dir.and_then(|dir| WorkDir::open(dir).ok()?.manifest().ok()?);
    if args.asks_server {
        return asking_each(&args.with_served_model(planned().as_ref())?, serving);
    }
    let Some(pool) = &args.pool else { return asking_each(args, serving) };
    let ways = ways(args, pool, planned().as_ref())?;
    // What its models are asked with is theirs.
    let (model, protocol, parameters) =
        (pool.pool.name.clone(), ways.protocol(), Parameters::new());
    let (others, reach) = (Vec::new(), Reach::Pool(Box::new(ways)));
    Ok(Asking { model, protocol, parameters, others, reach })
}

/// What is said of models by the names of them in lines.
fn asking_named(args: &ModelArgs, names: &NamesArgs) -> Result<Asking, Failed> {
    let (model, protocol, parameters) = (OWN_MODEL.to_owned(), Protocol::Chat, Parameters::new());
    let reach = Reach::Named(Box::new(NamedWays::new(args, names)?));
    Ok(Asking { model, protocol, parameters, others: Vec::new(), reach })
}

/// What is said of models that each answer every row.
fn asking_each(args: &ModelArgs, serving: Option<&Serving>) -> Result<Asking, Failed> {
    if serving.is_some() && !args.others.is_empty() {
        let text = "a server that rowmill starts serves one model: for several, start the servers \
                    yourself and name them as endpoints of a config file";
        return Err(Error::Usage(text.to_owned()).into());
    }
    let Asked { model, protocol, parameters, route } = asked(args, serving)?;
    let (mut others, mut routes) = (Vec::new(), vec![route]);
    for args in &args.others {
        let Asked { model, protocol, parameters, route } = asked(args, None)?;
        others.push(OtherModel { named: args.named.clone(), model, protocol, parameters });
        routes.push(route);
    }
    let reach = Reach::Models(Routes::new(routes, args));
    Ok(Asking { model, protocol, parameters, others, reach })
}

pub(super) fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|source| crate::input::Error::Unreadable { path: path.to_owned(), source }.into())
}

/// A variable of the environment, unless it is empty.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
