//! Models that lines name: how many name which, and what follows once all are read.

use super::Error;
use crate::job::{Failure, FirstLine, JobSpec, NameCounts, Names, OWN_MODEL};
use crate::price::Prices;
use crate::prompt::Request;

/// The models that lines name, where those say who answers.
#[derive(Debug, Default)]
pub(super) struct Models {
    /// Those that stand for themselves.
    pub(super) own: NameCounts,
    /// Those that nobody answers to.
    pub(super) unknown: NameCounts,
}

impl Models {
    /// Notes the model of a request in a line. `names` say who answers to which; without them all stand for themselves.
    pub(super) fn note(
        &mut self,
        request: &Request,
        line: impl Fn() -> FirstLine,
        (job, names): (&JobSpec, Option<&Names>),
    ) -> Result<(), Failure> {
        let Some(model) = request.model.as_deref().filter(|_| job.model == OWN_MODEL) else {
            return Ok(());
        };
        let own = job.own_place();
        match names.map_or(Some(own), |names| names.place(model)) {
            Some(place) if place == own => self.own.note(model, line),
            Some(_) => {}
            None if job.skip_bad_lines => return Err(Names::unknown(model)),
            None => self.unknown.note(model, line),
        }
        Ok(())
    }

    /// Adds those of other lines.
    pub(super) fn merge(&mut self, other: &Self) {
        self.own.merge(&other.own);
        self.unknown.merge(&other.unknown);
    }
}

/// Refuses an input with names that nobody answers to, or with models whose price is not known, where
/// `prices` are to be.
pub(super) fn refuse(models: &mut Models, prices: Option<&Prices>) -> Result<(), Error> {
    if models.unknown.lines() > 0 {
        return Err(Error::UnknownModels { names: std::mem::take(&mut models.unknown) });
    }
    match prices.map(|prices| prices.unknown(&models.own.models())) {
        Some(names) if !names.is_empty() => Err(Error::UnknownPrices { names }),
        _ => Ok(()),
    }
}
