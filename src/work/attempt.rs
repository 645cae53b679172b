//! One call for one row, from sending to judgement.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::HeaderMap;

use super::attached::Message;
use super::feed::RowIndex;
use super::lane::{Lane, LaneIndex};
use super::structured::Form;
use super::wallet::Reserved;
use crate::http::{Client, Error as HttpError, Flow, Reply, Sockets};
use crate::job::{Answer, Attempt, Failure, FailureKind, Id};
use crate::provider::{Api, Correction, Model, Wording};
use crate::telemetry::now_ms;

/// What calls go through.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) way: Way,
    pub(super) model: Model,
    /// The model asked for; telemetry has it where the endpoint does not say which answered.
    pub(super) asked: String,
    /// What answers must be.
    pub(super) form: Option<Form>,
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
    /// What was wrong with its answer, if there was one.
    pub(super) correction: Option<Arc<Correction>>,
    /// What was set aside for it, where there is a cap.
    pub(super) reserved: Option<Reserved>,
}

impl Flight {
    pub(super) fn new(
        (shard, row): (u32, RowIndex),
        id: Id,
        prompt: u64,
        (lane, is_probe): (LaneIndex, bool),
    ) -> Self {
        let (correction, reserved) = (None, None);
        Self { shard, row, lane, id, prompt, is_probe, correction, reserved }
    }

    /// The same call, told what was wrong with the answer to an earlier one.
    pub(super) fn correcting(mut self, correction: Option<Arc<Correction>>) -> Self {
        self.correction = correction;
        self
    }
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Landing {
    pub(super) flight: Flight,
    pub(super) attempt: Attempt,
    pub(super) result: Result<Answer, Failure>,
}

/// Makes a call and judges its reply. The attempt's number is the caller's to fill in.
pub(super) async fn fly(line: Rc<Line>, flight: Flight, message: Message) -> Landing {
    let start_ms = now_ms();
    let start = Instant::now();
    let in_prompt = line.form.as_ref().is_some_and(Form::in_prompt);
    let (correction, attached) = (flight.correction.as_deref(), &message.attached[..]);
    let wording = Wording { in_prompt, correction, attached };
    let body = line.model.encode(&message.text, wording);
    drop(message);
    let call = match &line.way {
        Way::Http(client) => match client.send(body).await {
            Ok(reply) => line.judge(&reply, start),
            Err(error) => Call::failed(&error),
        },
        // Streams are larger and seldom: kept apart, they leave every other call small.
        way => Box::pin(line.streamed(way, body, start)).await,
    };
    let attempt = describe(&line.asked, start_ms, start.elapsed(), &call);
    judge(Landing { flight, attempt, result: call.result }, line.form.as_ref(), in_prompt)
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
struct Call {
    result: Result<Answer, Failure>,
    status: Option<u16>,
    time_to_response: Option<Duration>,
    ttft: Option<Duration>,
}

impl Call {
    fn failed(error: &HttpError) -> Self {
        let result = Err(failure(error));
        Self { result, status: None, time_to_response: None, ttft: None }
    }
}

impl Line {
    /// Judges a whole reply.
    fn judge(&self, reply: &Reply, start: Instant) -> Call {
        let result = self.model.decode(reply.status, &reply.headers, &reply.body, now_ms());
        let response = reply.head_at.saturating_duration_since(start);
        let (status, time_to_response) = (Some(reply.status), Some(response));
        Call { result, status, time_to_response, ttft: None }
    }

    /// Makes a call whose answer comes in events.
    async fn streamed(&self, way: &Way, body: Bytes, start: Instant) -> Call {
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
                (client.stream(body, &mut sink).await, true)
            }
            Way::Ws(sockets) => {
                let mut sink = |event: &[u8]| {
                    let has_ended = stream.event(event);
                    note(stream.has_content());
                    match (has_ended, stream.wears_out()) {
                        (false, _) => Flow::More,
                        (true, false) => Flow::Ended,
                        (true, true) => Flow::Worn,
                    }
                };
                (sockets.send(body, &mut sink).await, false)
            }
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return Call { ttft, ..Call::failed(&error) },
        };
        if !reply.is_handed_on {
            // Not everyone streams, and what is refused is never streamed.
            return self.judge(&reply, start);
        }
        let result = stream.finish(is_http.then_some(reply.status));
        // An answer over a WebSocket has no status, and an error there has one of its own.
        let status = match &result {
            _ if is_http => Some(reply.status),
            Ok(_) => None,
            Err(failure) => failure.status,
        };
        let response = reply.head_at.saturating_duration_since(start);
        Call { result, status, time_to_response: Some(response), ttft }
    }

    /// Takes leave of the endpoint.
    pub(super) async fn close(&self) {
        if let Way::Ws(sockets) = &self.way {
            sockets.close().await;
        }
    }
}

fn describe(asked: &str, start_ms: u64, duration: Duration, call: &Call) -> Attempt {
    // What was paid for is told, whatever it brought.
    let (model, finish_reason, usage) = match &call.result {
        Ok(answer) => (&answer.model, &answer.finish_reason, answer.usage),
        Err(Failure { paid: Some(paid), .. }) => (&paid.model, &paid.finish_reason, paid.usage),
        Err(_) => (&None, &None, None),
    };
    Attempt {
        number: 0,
        model: model.as_deref().unwrap_or(asked).to_owned(),
        start_ms,
        duration,
        time_to_response: call.time_to_response,
        ttft: call.ttft,
        usage,
        cost: None,
        status: call.status,
        finish_reason: finish_reason.clone(),
        error: error(&call.result),
    }
}

/// The answer of a model that is not called.
pub(super) fn echo(lane: &Lane, flight: Flight, prompt: String) -> Landing {
    let start_ms = now_ms();
    let result = lane.model.decode(200, &HeaderMap::new(), prompt.as_bytes(), start_ms);
    let call = Call { result, status: None, time_to_response: None, ttft: None };
    let attempt = describe(&lane.name, start_ms, Duration::ZERO, &call);
    judge(Landing { flight, attempt, result: call.result }, lane.form.as_ref(), true)
}

fn failure(error: &HttpError) -> Failure {
    let kind = match error {
        HttpError::Connect { .. } => FailureKind::Connection,
        HttpError::Closed { .. } => FailureKind::Closed,
        HttpError::Stale { .. } => FailureKind::Stale,
        HttpError::Tls { .. } => FailureKind::Tls,
        HttpError::Broken { .. } => FailureKind::BrokenAnswer,
        HttpError::Timeout { .. } | HttpError::Idle { .. } => FailureKind::Timeout,
        HttpError::TooLarge { .. } => FailureKind::ResponseTooLarge,
    };
    Failure::new(kind, error.to_string())
}
