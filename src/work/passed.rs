//! Calls of rows that are requests themselves: each says where it goes, and of sound where its file is.

use std::time::Instant;

use bytes::Bytes;
use hyper::header;

use super::attached::Message;
use super::attempt::{Call, Line, Way};
use crate::http::{Client, Error as HttpError, Header, Limits, Link, Place, Reply, bring};
use crate::job::{Failure, FailureKind, MediaType, Reference};
use crate::policy::backoff;
use crate::prompt::Request;
use crate::provider::{FormFile, Wording};

/// How files of requests are fetched that are at a URL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetching {
    /// How often more than once.
    pub(super) retries: u32,
    /// The most bytes of one.
    pub(super) most: u64,
}

/// A file of sound.
struct Sound {
    name: String,
    media: String,
    bytes: Bytes,
}

impl Line {
    /// Sends a row that is a request, and judges the reply. `key` makes the header by which the endpoint
    /// knows the call again.
    pub(super) async fn pass(
        &self,
        request: &Request,
        message: Message,
        key: impl FnOnce(&[u8]) -> Option<Header>,
        start: Instant,
    ) -> Call {
        let (Way::Http(client), Some(api)) = (&self.way, self.model.api()) else {
            return Call::refused(Failure::new(FailureKind::InvalidRequest, "nobody is called"));
        };
        let (mut headers, mut form) = (api.headers_of(request.endpoint), None);
        if let Some(named) = &request.file {
            let sound = match self.sound(client, named, message.attached).await {
                Ok(sound) => sound,
                Err(failure) => return Call::refused(failure),
            };
            let Sound { name, media, bytes } = &sound;
            form = api.form(&message.text, FormFile { name, media, bytes });
        }
        let body = match form {
            None => self.model.encode(&message.text, Wording::default()),
            Some((kind, body)) => {
                headers.insert(header::CONTENT_TYPE, kind);
                body
            }
        };
        let Some(place) = client.place(&request.url, headers) else {
            let message = format!("the url {} cannot be asked for", request.url);
            return Call::refused(Failure::new(FailureKind::InvalidRequest, message));
        };
        let (key, version) = (key(&body), self.key_version());
        let ask = async |place: Place| match client
            .send_to(place, body.clone(), [key.clone(), None])
            .await
        {
            Ok(reply) => self.judge(request.endpoint, &reply, start),
            Err(error) => Call::failed(&error),
        };
        let call = ask(place.clone()).await;
        if !call.is_unauthorized() || !self.renew_key(version).await {
            return call;
        }
        let place = place.with_headers(api.headers_of(request.endpoint));
        Box::pin(ask(place)).await
    }

    /// The file that a request names: its bytes, where a data URI had them, else what is at the URL.
    async fn sound(&self, client: &Client, named: &str, read: Vec<u8>) -> Result<Sound, Failure> {
        let reference = Reference::parse(named);
        let Reference::Url(url) = reference else {
            let Reference::Data { media, .. } = reference else {
                return Err(failed(named, "it is no URL"));
            };
            let known = reference.media().or_else(|| MediaType::of_bytes(&read));
            let subtype = media.rsplit('/').next().filter(|it| is_word(it));
            let ending = known.map(|it| it.endings[0]).or(subtype).unwrap_or("wav");
            let name = format!("audio.{ending}");
            let media = known.map_or(media, |it| it.name);
            let media = if media.is_empty() { "application/octet-stream" } else { media };
            return Ok(Sound { name, media: media.to_owned(), bytes: Bytes::from(read) });
        };
        let bytes = self.fetched(client, url).await.map_err(|reason| failed(named, &reason))?;
        let known = reference.media().or_else(|| MediaType::of_bytes(&bytes));
        let link = Link::parse(url).ok();
        let name = link.as_ref().and_then(Link::file_name).unwrap_or("audio");
        let ending = known.map_or("wav", |it| it.endings[0]);
        let name = if name.contains('.') { name.to_owned() } else { format!("{name}.{ending}") };
        let media = known.map_or("application/octet-stream", |it| it.name);
        Ok(Sound { name, media: media.to_owned(), bytes })
    }

    /// What is at a URL. What may pass is tried again.
    async fn fetched(&self, client: &Client, url: &str) -> Result<Bytes, String> {
        let Fetching { retries, most } = self.fetching;
        let link = Link::parse(url).map_err(|error| error.to_string())?;
        let limits = client.limits();
        // What is said with an error may be longer than a file may be.
        const SAID: u64 = 64 << 10;
        let body = usize::try_from(most.max(SAID)).unwrap_or(usize::MAX);
        let limits = Limits { body, ..limits };
        let too_large = || {
            format!(
                "it has more than the {most} bytes that a row may have of attachments \
                 (--max-attachment-bytes)"
            )
        };
        let mut tries = 0;
        loop {
            let reason = match bring(&link, limits).await {
                Ok(Reply { status: 200..=299, body, .. }) if body.is_empty() => {
                    return Err("it is empty".to_owned());
                }
                Ok(Reply { status: 200..=299, body, .. }) => {
                    return if body.len() as u64 > most { Err(too_large()) } else { Ok(body) };
                }
                Ok(Reply { status: status @ (408 | 425 | 429 | 500..), .. }) => {
                    format!("HTTP {status}")
                }
                Ok(Reply { status, .. }) => return Err(format!("HTTP {status}")),
                Err(error) => match error.call() {
                    Some(HttpError::TooLarge { .. }) => {
                        return Err(too_large());
                    }
                    Some(_) => error.to_string(),
                    None => return Err(error.to_string()),
                },
            };
            if tries >= retries {
                return Err(format!("{reason}, {} times", tries + 1));
            }
            tokio::time::sleep(backoff(tries, fastrand::f64())).await;
            tries += 1;
        }
    }
}

/// Whether a word can end a file's name.
fn is_word(word: &str) -> bool {
    (1..=8).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn failed(named: &str, reason: &str) -> Failure {
    let name = match Reference::parse(named) {
        Reference::Url(url) => Link::without_secrets(url),
        other => other.shown(),
    };
    Failure::new(FailureKind::Attachment, format!("body.file_url: {name}: {reason}"))
}
