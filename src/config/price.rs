//! What a config file says tokens cost: tables `[price."NAME.MODEL"]`, in dollars for a million tokens.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::job::Money;
use crate::price::{Origin, Price};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    input: Option<Spanned<f64>>,
    output: Option<Spanned<f64>>,
    cached_input: Option<Spanned<f64>>,
    cache_write: Option<Spanned<f64>>,
    batch_input: Option<Spanned<f64>>,
    batch_output: Option<Spanned<f64>>,
}

/// The price that a table says the tokens of a model have.
pub(super) fn price(
    name: &str,
    table: Spanned<Table>,
    path: &Path,
) -> Result<Price, (Range<usize>, String)> {
    let span = table.span();
    let table = table.into_inner();
    let checked = |value: Option<Spanned<f64>>, key: &str| match value {
        None => Ok(None),
        Some(value) => match Money::per_million(*value.get_ref()) {
            Some(price) => Ok(Some(price)),
            None => Err((
                value.span(),
                format!(
                    "{key} should be dollars for a million tokens, 0 or more: {}",
                    value.get_ref()
                ),
            )),
        },
    };
    let needed = |price: Option<Money>, key: &str| {
        let what = format!("the price of {name:?} has no {key}: dollars for a million tokens");
        price.ok_or((span.clone(), what))
    };
    let batch_input = checked(table.batch_input, "batch_input")?;
    let batch_output = checked(table.batch_output, "batch_output")?;
    if batch_input.is_none() && batch_output.is_some() {
        let what = format!("the price of {name:?} has a batch_output and no batch_input");
        return Err((span, what));
    }
    Ok(Price {
        input: needed(checked(table.input, "input")?, "input")?,
        output: needed(checked(table.output, "output")?, "output")?,
        cached_input: checked(table.cached_input, "cached_input")?,
        cache_write: checked(table.cache_write, "cache_write")?,
        batch_input,
        batch_output,
        origin: Origin::Config(path.to_owned()),
    })
}
