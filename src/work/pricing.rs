//! What calls through a lane cost: one price for all, or, where rows are requests, that of the model and
//! the service tier that each says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Member;
use crate::job::OWN_MODEL;
use crate::price::{Price, Prices};
use crate::prompt::Request;

/// Prices that were looked up, by model and tier.
type Known = HashMap<(String, Option<String>), Option<Arc<Price>>>;

/// The prices of a lane.
#[derive(Debug)]
pub(super) struct Pricing {
    /// That of its model; nothing where it is not known, or each row has its own.
    pub(super) price: Option<Price>,
    model: String,
    prices: Option<Arc<Prices>>,
    known: Mutex<Known>,
}

/// What a call costs that has a price of its own; nothing in it where nobody knows.
#[derive(Debug, Clone)]
pub(super) struct OwnPrice(pub(super) Option<Arc<Price>>);

/// How many prices a lane remembers.
const REMEMBERED: usize = 256;

impl Pricing {
    pub(super) fn of(member: &Member) -> Self {
        let (model, prices) = (member.name.clone(), member.prices.clone());
        Self { price: member.price.clone(), model, prices, known: Mutex::default() }
    }

    /// The price of a request; nothing where it is that of the lane.
    pub(super) fn own(&self, request: Option<&Request>) -> Option<OwnPrice> {
        let (prices, request) = (self.prices.as_ref()?, request?);
        let is_own = self.model == OWN_MODEL;
        if !is_own && request.tier.is_none() {
            return None;
        }
        let model = request.model.as_ref().filter(|_| is_own).unwrap_or(&self.model);
        let key = (model.clone(), request.tier.clone());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(price) = known.get(&key) {
            return Some(OwnPrice(price.clone()));
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let price = prices.of(model, request.tier.as_deref()).map(Arc::new);
        known.insert(key, price.clone());
        Some(OwnPrice(price))
    }

    /// The price of a call.
    pub(super) fn of_call<'p>(&'p self, own: Option<&'p OwnPrice>) -> Option<&'p Price> {
        match own {
            Some(OwnPrice(price)) => price.as_deref(),
            None => self.price.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Endpoint;
    use crate::price::of_table;
    use crate::provider::Model;

    fn request(model: &str, tier: Option<&str>) -> Request {
        Request {
            url: "/v1/chat/completions".into(),
            endpoint: Endpoint::ChatCompletions,
            model: Some(model.into()),
            stands_for: None,
            tier: tier.map(Into::into),
            most_tokens: None,
            answers: 1,
            is_settled: false,
            words: 0,
            files: 0,
            file_tokens: 0,
            file: None,
        }
    }

    #[test]
    fn a_request_has_the_price_of_its_model_and_its_tier() {
        let prices =
            Prices { prefixes: vec![String::new()], provider: Some("openai"), ..Prices::default() };
        let table = |model: &str| of_table("openai", model);
        let of = |name: &str| Member {
            price: prices.of(name, None),
            prices: Some(Arc::new(prices.clone())),
            ..Member::new(name.into(), Model::Passthrough, None)
        };
        let own = Pricing::of(&of(OWN_MODEL));
        let priced = |lane: &Pricing, request: &Request| {
            lane.of_call(lane.own(Some(request)).as_ref()).cloned()
        };
        for _ in 0..2 {
            assert_eq!(priced(&own, &request("gpt-4o", None)), table("gpt-4o"));
            assert_eq!(priced(&own, &request("nobody", None)), None);
        }
        let one = Pricing::of(&of("gpt-4o-mini"));
        assert!(
            one.own(Some(&request("gpt-4o", None))).is_none(),
            "it is asked, whatever a line says"
        );
        assert_eq!(priced(&one, &request("gpt-4o", None)), table("gpt-4o-mini"));
        let flex = table("gpt-4o-mini").and_then(|it| it.in_batch());
        assert_eq!(priced(&one, &request("x", Some("flex"))), flex);
        assert_eq!(priced(&one, &request("x", Some("priority"))), None);
        assert!(one.own(None).is_none(), "a row has the price of its lane");
    }
}
