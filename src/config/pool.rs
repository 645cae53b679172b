//! Pools in a config file: `[pool.NAME]`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::file::Wrong;
use crate::job::Kinds;
use crate::provider::{PASSTHROUGH, Provider};

/// The pool whose members are asked for: whatever its endpoints offer.
pub const AUTO: &str = "auto";
/// What may stand before a pool's name.
pub(super) const PREFIX: &str = "pool";
/// The highest weight.
const HEAVIEST: u32 = 1_000_000;

/// Several models of which any may answer, by a name that a user chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Who answers; none of [`AUTO`].
    pub members: Vec<Member>,
    /// Of [`AUTO`], the endpoints that are asked what they offer; empty for all.
    pub endpoints: Vec<(String, Place)>,
    /// Where it is said.
    pub place: Place,
}

/// A member of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// A model string: `ENDPOINT.MODEL?parameter=value`, or an endpoint that names its model itself.
    pub model: String,
    /// Its share of the calls, beside the weights of the others.
    pub weight: u32,
    /// What it takes in; nothing where that is not said.
    pub kinds: Option<Kinds>,
    /// Where it is said.
    pub place: Place,
}

/// A place in a config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    members: Option<Spanned<Vec<Spanned<Entry>>>>,
    endpoints: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a model string, or a table of `model` and, if you like, `weight` and `kinds`"
)]
enum Entry {
    Text(String),
    Table(Weighted),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Weighted {
    model: String,
    weight: Option<u32>,
    kinds: Option<Vec<String>>,
}

/// The kinds of content that are named in a file.
pub(super) fn kinds(names: &[String], span: &Range<usize>) -> Result<Kinds, Wrong> {
    let wrong = |what: String| (span.clone(), what);
    let kinds = Kinds::named(names.iter().map(String::as_str)).map_err(|name| {
        wrong(format!("{name:?} is no kind of content; there are {}", Kinds::ALL))
    })?;
    match kinds.is_empty() {
        true => Err(wrong(format!("kinds is empty; there are {}", Kinds::ALL))),
        false => Ok(kinds),
    }
}

/// Reads a pool.
pub(super) fn pool(
    name: &str,
    table: Spanned<Table>,
    path: &Path,
    line_of: impl Fn(&Range<usize>) -> usize,
) -> Result<Pool, Wrong> {
    let span = table.span();
    let Table { members, endpoints } = table.into_inner();
    check_name(name).map_err(|what| (span.clone(), what))?;
    let at = |span: &Range<usize>| Place { path: path.to_owned(), line: line_of(span) };
    let wrong = |span: &Range<usize>, what: &str| Err((span.clone(), what.to_owned()));
    if name == AUTO
        && let Some(members) = &members
    {
        let what = "the members of pool.auto are what its endpoints offer: name those in `endpoints`, \
                    or give the pool another name";
        return wrong(&members.span(), what);
    }
    if name != AUTO
        && let Some(endpoints) = &endpoints
    {
        let what = "only pool.auto asks endpoints what they offer; this pool has `members`";
        return wrong(&endpoints.span(), what);
    }
    let is_empty = members.as_ref().is_none_or(|members| members.get_ref().is_empty());
    if name != AUTO && is_empty {
        return wrong(&span, &format!("the pool {name} has no members"));
    }
    let members = members.map(Spanned::into_inner).unwrap_or_default().into_iter();
    let members = members.map(|entry| {
        let span = entry.span();
        let Weighted { model, weight, kinds: names } = match entry.into_inner() {
            Entry::Text(model) => Weighted { model, weight: None, kinds: None },
            Entry::Table(table) => table,
        };
        let weight = weight.unwrap_or(1);
        if model.trim().is_empty() {
            return Err((span, "model is empty".to_owned()));
        }
        if !(1..=HEAVIEST).contains(&weight) {
            return Err((span, format!("weight should be 1 to {HEAVIEST}")));
        }
        let kinds = names.map(|names| kinds(&names, &span)).transpose()?;
        Ok(Member { model, weight, kinds, place: at(&span) })
    });
    let members = members.collect::<Result<_, Wrong>>()?;
    let endpoints = endpoints.map(Spanned::into_inner).unwrap_or_default().into_iter();
    let endpoints = endpoints.map(|name| {
        let place = at(&name.span());
        (name.into_inner(), place)
    });
    Ok(Pool { name: name.to_owned(), members, endpoints: endpoints.collect(), place: at(&span) })
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(format!("{name:?} is no name of a pool: letters, digits, - and _ make one"));
    }
    if [PASSTHROUGH, "local", PREFIX].contains(&name) || Provider::named(name).is_some() {
        return Err(format!("{name} means something else in -m: give the pool another name"));
    }
    Ok(())
}
