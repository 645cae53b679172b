//! One call for one row, from sending to judgement.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::attached::Message;
use super::feed::RowIndex;
use super::lane::{Lane, LaneIndex};
use super::passed::Fetching;
use super::pricing::OwnPrice;
use super::structured::Form;
use super::wallet::Reserved;
use crate::http::{Client, Error as HttpError, ExtraHeaders, Flow, Header, Reply, Sockets};
use crate::job::{Answer, Attempt, Content, Endpoint, Failure, FailureKind, Id, OWN_MODEL, Paid};
use crate::policy::{Permit, Told};
use crate::prompt::Request;
use crate::provider::{Api, Correction, Model, Wording, told};
use crate::telemetry::now_ms;

/// What calls go through.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) way: Way,
    pub(super) model: Model,
    /// The model asked for; telemetry has it where the endpoint does not say which answered.
    pub(super) asked: String,
    /// The endpoint's name, where there are several.
    pub(super) place: Option<String>,
    /// What answers must be.
    pub(super) form: Option<Form>,
    /// The run that calls are made for.
    pub(super) run: Arc<str>,
    /// How files of requests are fetched.
    pub(super) fetching: Fetching,
}

/// How calls travel: with it come the connections.
#[derive(Debug)]
pub(super) enum Way {
    /// A request, a whole reply.
    Http(Client),
    /// A request, a reply in events.
    Sse(Client),
    /// Messages.
    Ws(Sockets),
}

/// A row that was called for.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) shard: u32,
    pub(super) row: RowIndex,
    pub(super) lane: LaneIndex,
    pub(super) id: Id,
    /// The hash of its prompt.
    pub(super) prompt: u64,
    pub(super) is_probe: bool,
    /// What it holds of its lane; nothing where nobody is called.
    pub(super) permit: Option<Permit>,
    /// What was wrong with its answer, if there was one.
    pub(super) correction: Option<Arc<Correction>>,
    /// The variant of the job that it is for (in a stream its row's place), and how often its row was
    /// answered for it before.
    pub(super) key: (usize, u32),
    /// What was set aside for it, where there is a cap.
    pub(super) reserved: Option<Reserved>,
    /// What its tokens cost, where that is not what its lane's do.
    pub(super) price: Option<OwnPrice>,
}

impl Flight {
    pub(super) fn new(
        (shard, row): (u32, RowIndex),
        id: Id,
        prompt: u64,
        (lane, is_probe): (LaneIndex, bool),
    ) -> Self {
        let (correction, reserved, permit, key, price) = (None, None, None, (0, 0), None);
        Self { shard, row, lane, id, prompt, is_probe, permit, correction, reserved, key, price }
    }

    /// The same call, told what was wrong with the answer to an earlier one.
    pub(super) fn correcting(mut self, correction: Option<Arc<Correction>>) -> Self {
        self.correction = correction;
        self
    }

    /// The same call with what it holds of its lane.
    pub(super) fn permitted(mut self, permit: Permit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// The same call for a variant of the job, after its row was answered so often.
    pub(super) fn again(mut self, variant: usize, answered: u32) -> Self {
        self.key = (variant, answered);
        self
    }
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Landing {
    pub(super) flight: Flight,
    pub(super) attempt: Attempt,
    pub(super) result: Result<Answer, Failure>,
    /// Whether anything was sent: a file that is not there is found out before.
    pub(super) is_made: bool,
    /// What it told of its limits, of calls and of tokens.
    pub(super) told: Option<(Told, Told)>,
}

/// Makes a call and judges its reply. The attempt's number is the caller's to fill in.
pub(super) async fn fly(line: Rc<Line>, flight: Flight, mut message: Message) -> Landing {
    let start_ms = now_ms();
    let start = Instant::now();
    if let Some(request) = message.request.take() {
        // Kept apart, it leaves the calls of rows small.
        return Box::pin(fly_request(line, flight, (request, message), (start_ms, start))).await;
    }
    let in_prompt = line.form.as_ref().is_some_and(Form::in_prompt);
    let (correction, attached) = (flight.correction.as_deref(), &message.attached[..]);
    let wording = Wording { in_prompt, correction, attached };
    let body = line.model.encode(&message.text, wording);
    drop(message);
    let key = || key_header(&line.run, &flight, &body);
    let version = line.key_version();
    let mut call = line.ask(body.clone(), key(), start).await;
    if call.is_unauthorized() && line.renew_key(version).await {
        call = Box::pin(line.ask(body.clone(), key(), start)).await;
    }
    let attempt = describe((&line.asked, line.place.as_ref()), start_ms, start.elapsed(), &call);
    judge(call.landed(flight, attempt), line.form.as_ref(), in_prompt)
}

/// What stands for the endpoint of calls whose bodies are framed: their protocol says it.
const FRAMED: Endpoint = Endpoint::ChatCompletions;

/// As [`fly`], for a row that is a request itself.
async fn fly_request(
    line: Rc<Line>,
    flight: Flight,
    (request, message): (Box<Request>, Message),
    (start_ms, start): (u64, Instant),
) -> Landing {
    let key = |body: &[u8]| key_header(&line.run, &flight, body);
    let call = line.pass(&request, message, key, start).await;
    let own = request.model.as_ref().filter(|_| line.asked == OWN_MODEL);
    let asked = own.unwrap_or(&line.asked);
    let attempt = describe((asked, line.place.as_ref()), start_ms, start.elapsed(), &call);
    call.landed(flight, attempt)
}

/// The header by which an endpoint knows a call that it had before: the same when a call is made again
/// of which nothing came back, also after a crash, and another for every other call. It is not
/// random: a crash would lose it. OpenAI and others take it; who does not know it leaves it alone.
fn key_header(run: &str, flight: &Flight, body: &[u8]) -> Option<Header> {
    let (variant, answered) = flight.key;
    let mut hasher = blake3::Hasher::new();
    // Each part but the last has a length that is known or an end that it cannot hold.
    hasher.update(run.as_bytes()).update(b"\n");
    hasher.update(&(variant as u64).to_le_bytes()).update(&answered.to_le_bytes());
    hasher.update(&xxhash_rust::xxh3::xxh3_128(body).to_le_bytes());
    hasher.update(flight.id.as_json().as_bytes());
    let text = format!("rowmill-{}", &hasher.finalize().to_hex()[..32]);
    let value = HeaderValue::try_from(text).ok()?;
    Some((HeaderName::from_static("idempotency-key"), value))
}

/// Whether an answer is what the schema asks for. One that is not was paid for all the same: its
/// attempt keeps what it used.
fn judge(mut landing: Landing, form: Option<&Form>, in_prompt: bool) -> Landing {
    if let Some(form) = form {
        landing.result = form.judge(landing.result, in_prompt);
        landing.attempt.error = error(&landing.result);
    }
    landing
}

fn error(result: &Result<Answer, Failure>) -> Option<(&'static str, String)> {
    result.as_ref().err().map(|it| (it.kind.name(), it.message.clone()))
}

/// What a call came to.
pub(super) struct Call {
    result: Result<Answer, Failure>,
    is_made: bool,
    status: Option<u16>,
    time_to_response: Option<Duration>,
    ttft: Option<Duration>,
    told: Option<(Told, Told)>,
    request_id: Option<String>,
}

impl Call {
    fn new(result: Result<Answer, Failure>, status: Option<u16>) -> Self {
        Self {
            result,
            is_made: true,
            status,
            time_to_response: None,
            ttft: None,
            told: None,
            request_id: None,
        }
    }

    /// One that was not made.
    pub(super) fn refused(failure: Failure) -> Self {
        Self { is_made: false, ..Self::new(Err(failure), None) }
    }

    pub(super) fn failed(error: &HttpError) -> Self {
        Self::new(Err(failure(error)), None)
    }

    /// Whether the key was refused.
    pub(super) fn is_unauthorized(&self) -> bool {
        self.status == Some(401)
    }

    fn landed(self, flight: Flight, attempt: Attempt) -> Landing {
        let Self { result, is_made, told, .. } = self;
        Landing { flight, attempt, result, is_made, told }
    }
}

impl Line {
    /// Sends a body that was framed here. `key` is the header by which the endpoint knows the call again.
    async fn ask(&self, body: Bytes, key: Option<Header>, start: Instant) -> Call {
        let extra = [key, self.model.api().and_then(Api::renewed_header)];
        match &self.way {
            Way::Http(client) => match client.send(body, extra).await {
                Ok(reply) => self.judge(FRAMED, &reply, start),
                Err(error) => Call::failed(&error),
            },
            // Streams are larger and seldom: kept apart, they leave every other call small.
            way => Box::pin(self.streamed(way, body, extra, start)).await,
        }
    }

    /// How often the key was renewed that a call has now.
    pub(super) fn key_version(&self) -> u64 {
        self.model.api().map_or(0, |api| api.access().version())
    }

    /// Reads the key again that calls of this version had; true when there is another one now.
    pub(super) async fn renew_key(&self, version: u64) -> bool {
        let access = self.model.api().map(Api::access);
        let Some(access) = access.filter(|it| it.may_renew(version)) else { return false };
        let access = access.clone();
        // A command may take a while.
        let renewing = tokio::task::spawn_blocking(move || access.renew(version));
        renewing.await.unwrap_or(false)
    }

    fn request_id(&self, headers: &HeaderMap) -> Option<String> {
        self.model.api().and_then(|api| api.request_id(headers))
    }

    /// Judges a whole reply; to a request that was passed on, that of an endpoint.
    pub(super) fn judge(&self, endpoint: Endpoint, reply: &Reply, start: Instant) -> Call {
        let Reply { status, headers, body, .. } = reply;
        let result = self.model.decode_of(endpoint, *status, headers, body, now_ms());
        let response = reply.head_at.saturating_duration_since(start);
        let told = told(&reply.headers, now_ms());
        let (time_to_response, request_id) = (Some(response), self.request_id(&reply.headers));
        Call { time_to_response, told, request_id, ..Call::new(result, Some(reply.status)) }
    }

    /// Makes a call whose answer comes in events.
    async fn streamed(&self, way: &Way, body: Bytes, extra: ExtraHeaders, start: Instant) -> Call {
        // There is a line only to models that are called.
        let Some(mut stream) = self.model.api().map(Api::stream) else {
            return Call::failed(&HttpError::Closed { authority: String::new() });
        };
        let mut ttft = None;
        let mut note = |has_content: bool| {
            if ttft.is_none() && has_content {
                ttft = Some(start.elapsed());
            }
        };
        let (reply, is_http) = match way {
            Way::Http(client) | Way::Sse(client) => {
                let mut sink = |piece: &[u8]| {
                    let has_ended = stream.feed(piece);
                    note(stream.has_content());
                    has_ended
                };
                (client.stream(body, extra, &mut sink).await, true)
            }
            Way::Ws(sockets) => {
                let mut sink = |event: &[u8]| {
                    let has_ended = stream.event(event);
                    note(stream.has_content());
                    if !has_ended {
                        return Flow::More;
                    }
                    let id = stream.response_id().map(str::to_owned);
                    match stream.has_failed() {
                        true => Flow::Failed { id },
                        false => Flow::Ended { id, is_reusable: stream.is_paired() },
                    }
                };
                // No vendor documents a key in the events of a WebSocket.
                let [_, renewed] = extra;
                if let Some(header) = renewed {
                    sockets.renew_header(header);
                }
                (sockets.send(body, &mut sink).await, false)
            }
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return Call { ttft, ..Call::failed(&error) },
        };
        if !reply.is_handed_on {
            // Not everyone streams, and what is refused is never streamed.
            return self.judge(FRAMED, &reply, start);
        }
        let result = stream.finish(is_http.then_some(reply.status));
        // An answer over a WebSocket has no status, and an error there has one of its own.
        let status = match &result {
            _ if is_http => Some(reply.status),
            Ok(_) => None,
            Err(failure) => failure.status,
        };
        let response = reply.head_at.saturating_duration_since(start);
        let told = told(&reply.headers, now_ms());
        let (time_to_response, request_id) = (Some(response), self.request_id(&reply.headers));
        Call { time_to_response, ttft, told, request_id, ..Call::new(result, status) }
    }

    /// Takes leave of the endpoint.
    pub(super) async fn close(&self) {
        if let Way::Ws(sockets) = &self.way {
            sockets.close().await;
        }
    }
}

fn describe(
    (asked, place): (&str, Option<&String>),
    start_ms: u64,
    duration: Duration,
    call: &Call,
) -> Attempt {
    // What was paid for is told, whatever it brought.
    let (model, finish_reason, usage) = match &call.result {
        Ok(answer) => (&answer.model, &answer.finish_reason, answer.usage),
        Err(Failure { paid: Some(paid), .. }) => (&paid.model, &paid.finish_reason, paid.usage),
        Err(_) => (&None, &None, None),
    };
    Attempt {
        number: 0,
        model: model.as_deref().unwrap_or(asked).to_owned(),
        endpoint: place.cloned(),
        start_ms,
        duration,
        time_to_response: call.time_to_response,
        ttft: call.ttft,
        usage,
        cost: None,
        assumed: None,
        status: call.status,
        request_id: call.request_id.clone(),
        finish_reason: finish_reason.clone(),
        error: error(&call.result),
    }
}

/// The answer of a model that is not called.
pub(super) fn echo(lane: &Lane, flight: Flight, message: Message) -> Landing {
    let start_ms = now_ms();
    let prompt = message.text;
    let mut result = lane.model.decode(200, &HeaderMap::new(), prompt.as_bytes(), start_ms);
    if let (Ok(answer), Some(_)) = (&mut result, &message.request)
        && let Ok(body) = serde_json::from_str::<&RawValue>(&prompt)
    {
        answer.content = Content::json(body);
    }
    let call = Call::new(result, None);
    let attempt = describe((&lane.name, None), start_ms, Duration::ZERO, &call);
    judge(call.landed(flight, attempt), lane.form.as_ref(), true)
}

fn failure(error: &HttpError) -> Failure {
    let kind = match error {
        HttpError::Connect { .. } | HttpError::ConnectTimeout { .. } => FailureKind::Connection,
        HttpError::Closed { .. } => FailureKind::Closed,
        HttpError::Stale { .. } | HttpError::Repeated { .. } => FailureKind::Stale,
        HttpError::Tls { .. } => FailureKind::Tls,
        HttpError::Broken { .. } | HttpError::CutOff { .. } => FailureKind::BrokenAnswer,
        HttpError::FirstByte { .. } | HttpError::Timeout { .. } | HttpError::Idle { .. } => {
            FailureKind::Timeout
        }
        HttpError::TooLarge { .. } => FailureKind::ResponseTooLarge,
        HttpError::Coded { .. } => FailureKind::UnknownCoding,
    };
    let failure = Failure::new(kind, error.to_string());
    match error {
        // The model had answered.
        HttpError::CutOff { .. } => failure.with_paid(Paid::default()),
        _ => failure,
    }
}
