//! OpenAI embeddings: <https://platform.openai.com/docs/api-reference/embeddings>. The answer to a
//! row is its vector, number for number as the endpoint spells it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::api::{Frame, Reserved};
use super::reply::{ErrorDetail, bad, counts, error_in_spite, shortened, unreadable};
use crate::job::{Answer, Content, Failure, FailureKind, JobSpec, Paid, Usage};

pub(super) const RESERVED: Reserved = &[
    ("model", "the model is named with --model"),
    ("input", "the input is the prompt"),
    ("encoding_format", "vectors are read as numbers"),
];

/// `{"model":…,"input":PROMPT,…}`.
pub(super) fn frame(job: &JobSpec) -> Frame {
    let mut frame = Frame::of(job);
    frame.before.extend_from_slice(b",\"input\":");
    frame.end(job, ",\"encoding_format\":\"float\"")
}

/// The answer of a successful call.
pub(super) fn answer(body: &[u8]) -> Result<Answer, Failure> {
    let list: List<'_> = serde_json::from_slice(body)
        .map_err(|error| unreadable("list of embeddings", &error, body))?;
    if let Some(error) = list.error.as_ref().filter(|error| !error.is_blank()) {
        return Err(error_in_spite(error));
    }
    let Some(data) = list.data else {
        return Err(bad("the answer is no list of embeddings: it has no data"));
    };
    let (model, usage) = (list.model.map(|it| shortened(&it)), list.usage.and_then(usage));
    let vector = data.first().and_then(|first| first.embedding);
    match vector.map(|vector| (vector, serde_json::from_str::<Numbers>(vector.get()))) {
        Some((vector, Ok(Numbers(1..)))) => {
            Ok(Answer { content: Content::json(vector), model, finish_reason: None, usage })
        }
        no_vector => {
            let failure = match no_vector {
                None => Failure::new(FailureKind::EmptyAnswer, "the answer holds no embedding"),
                Some((_, Ok(_))) => {
                    Failure::new(FailureKind::EmptyAnswer, "the embedding has no numbers")
                }
                Some((_, Err(_))) => bad("the embedding is no list of numbers"),
            };
            Err(failure.with_paid(Paid { model, finish_reason: None, usage }))
        }
    }
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow, default)]
    data: Option<Vec<Embedding<'a>>>,
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<ErrorDetail<'a>>,
}

#[derive(Deserialize)]
struct Embedding<'a> {
    #[serde(borrow, default)]
    embedding: Option<&'a RawValue>,
}

/// How many numbers a list has that holds nothing else.
struct Numbers(usize);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Numbers, A::Error> {
                let mut count = 0;
                while list.next_element::<f64>()?.is_some() {
                    count += 1;
                }
                Ok(Numbers(count))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// What the call used, where the endpoint says it: all of it is the prompt.
pub(super) fn usage(raw: &RawValue) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(default)]
        prompt_tokens: Option<u64>,
        #[serde(default)]
        total_tokens: Option<u64>,
    }
    let wire: Wire = counts(raw)?;
    let input_tokens = wire.prompt_tokens.or(wire.total_tokens)?;
    Some(Usage { input_tokens, ..Usage::default() })
}
