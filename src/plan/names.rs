//! Models that lines name, once all are read.

use super::Error;
use super::scan::Scanned;
use crate::price::Prices;

/// Refuses an input with names that nobody answers to, or with models whose price is not known, where
/// `prices` are to be.
pub(super) fn refuse(scanned: &mut Scanned, prices: Option<&Prices>) -> Result<(), Error> {
    if scanned.unknown.lines() > 0 {
        return Err(Error::UnknownModels { names: std::mem::take(&mut scanned.unknown) });
    }
    match prices.map(|prices| prices.unknown(&scanned.own.models())) {
        Some(names) if !names.is_empty() => Err(Error::UnknownPrices { names }),
        _ => Ok(()),
    }
}
