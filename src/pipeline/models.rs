//! Which models an endpoint offers, page after page.

use std::time::Instant;

use crate::http::{self, Endpoint, Limits};
use crate::job::FailureKind;
use crate::provider::{Listed, Listing};

/// Why an endpoint's models are not known.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct NotListed {
    /// What happened, in a sentence.
    pub reason: String,
    /// Whether it refused the key, or has too little of one.
    pub is_refused: bool,
}

/// Asks an endpoint for its models, and gives them by name. The limits are those of all pages together.
///
/// # Errors
/// When it does not answer within the limits, or not with a list of models.
pub fn models(
    endpoint: &Endpoint,
    listing: &Listing,
    limits: Limits,
) -> Result<Vec<Listed>, NotListed> {
    const MOST_PAGES: usize = 100;
    let failed = |reason: String| NotListed { reason, is_refused: false };
    let began = Instant::now();
    let mut models: Vec<Listed> = Vec::new();
    let mut after: Option<String> = None;
    let mut room = limits.body;
    let too_large = || failed(format!("its list of models has more than {} bytes", limits.body));
    for _ in 0..MOST_PAGES {
        let left = limits.total.saturating_sub(began.elapsed());
        let limits = Limits::whole(left, room);
        let path = endpoint.path(&listing.path(after.as_deref()));
        let reply =
            http::get(endpoint, &path, listing.headers().clone(), limits).map_err(|error| {
                match error.call() {
                    Some(http::Error::TooLarge { .. }) => too_large(),
                    _ => failed(error.to_string()),
                }
            })?;
        room = room.saturating_sub(reply.body.len());
        let page = listing.decode(reply.status, &reply.headers, &reply.body);
        let page = page.map_err(|failure| NotListed {
            is_refused: matches!(failure.kind, FailureKind::Credentials | FailureKind::Quota),
            reason: failure.message,
        })?;
        models.extend(page.models);
        match page.next {
            Some(next) if after.as_ref() != Some(&next) => after = Some(next),
            _ => {
                models.sort_by(|a, b| a.id.cmp(&b.id));
                models.dedup_by(|a, b| a.id == b.id);
                return Ok(models);
            }
        }
    }
    Err(failed(format!("its list of models has more than {MOST_PAGES} pages")))
}
