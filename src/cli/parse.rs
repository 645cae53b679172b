//! Values of arguments.

use serde_json::value::RawValue;

use crate::config::Header;
use crate::dialect::rules::Rules;
use crate::files::prepare::Path;
use crate::format::json::Object;
pub(super) use crate::job::{duration, some_time};

/// A field of the request body.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) value: Box<RawValue>,
}

/// Shards by number.
#[derive(Debug, Clone)]
pub(super) struct ShardList(pub(super) Vec<u32>);

/// `KEY=JSON`.
pub(super) fn parameter(text: &str) -> Result<Parameter, String> {
    let (name, value) = text.split_once('=').ok_or("expected KEY=JSON")?;
    let name = name.trim();
    if name.is_empty() {
        return Err("expected KEY=JSON".to_owned());
    }
    let value = RawValue::from_string(value.trim().to_owned()).map_err(|_| {
        let quoted = serde_json::Value::from(value).to_string();
        format!("{value:?} is not JSON; for a text write '{name}={quoted}'")
    })?;
    Ok(Parameter { name: name.to_owned(), value })
}

/// `NAME=MODEL`: what a name in lines stands for.
pub(super) fn mapping(text: &str) -> Result<(String, String), String> {
    let (name, model) = text.split_once('=').ok_or("expected NAME=MODEL")?;
    if name.is_empty() || model.trim().is_empty() {
        return Err("expected NAME=MODEL".to_owned());
    }
    Ok((name.to_owned(), model.trim().to_owned()))
}

/// A member of a line, and its value as JSON.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) path: Path,
    pub(super) value: String,
}

/// `PATH=VALUE`. A value that is no JSON is a string.
pub(super) fn member(text: &str) -> Result<Member, String> {
    let (path, value) = text.split_once('=').ok_or("expected PATH=VALUE, body.seed=7")?;
    let path = Path::parse(path)?;
    let json = serde_json::from_str::<&RawValue>(value);
    let value = match json {
        Ok(value) => one_line(value.get()),
        Err(_) => serde_json::Value::from(value).to_string(),
    };
    Ok(Member { path, value })
}

/// A JSON object, as one line.
pub(super) fn line(text: &str) -> Result<String, String> {
    Object::parse(text).map(|object| one_line(object.text())).map_err(|error| error.to_string())
}

/// JSON without line ends: they are only blanks there, as those in strings are escaped.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

/// A number of bytes: `1000`, `64KiB`, `200MB`, `1G`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let expected = || "expected a number of bytes like 1000000, 200MB or 64MiB".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(unit).filter(|size| *size > 0).ok_or_else(expected)
}

/// A number, or `all`.
pub(super) fn limit(text: &str) -> Result<usize, String> {
    match text {
        "all" => Ok(usize::MAX),
        _ => text.parse().map_err(|_| "expected a number, or all".to_owned()),
    }
}

/// A server's rules by its name.
pub(super) fn rules(text: &str) -> Result<&'static Rules, String> {
    text.parse()
}

/// A number from 0 up, kept as it is spelled.
pub(super) fn temperature(text: &str) -> Result<String, String> {
    number(text, f64::MAX, "a number from 0 up")
}

/// A number between 0 and 1, kept as it is spelled.
pub(super) fn probability(text: &str) -> Result<String, String> {
    number(text, 1.0, "a number from 0 to 1")
}

fn number(text: &str, most: f64, expected: &str) -> Result<String, String> {
    // What is no JSON number (inf, 1., 0x1) would break the body.
    let value: serde_json::Number =
        serde_json::from_str(text).map_err(|_| format!("expected {expected}"))?;
    match value.as_f64() {
        Some(value) if (0.0..=most).contains(&value) => Ok(text.to_owned()),
        _ => Err(format!("expected {expected}")),
    }
}

/// `3`, `1,4,7`, `0-9`, or a mixture.
pub(super) fn shards(text: &str) -> Result<ShardList, String> {
    const MOST: usize = 1_000_000;
    let expected = || "expected shard numbers like 3, 1,4,7 or 0-9".to_owned();
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| expected());
    let mut list = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => list.push(number(part)?),
            Some((from, to)) => {
                let range = number(from)?..=number(to)?;
                if range.is_empty() || range.clone().count() > MOST {
                    return Err(expected());
                }
                list.extend(range);
            }
        }
    }
    Ok(ShardList(list))
}

/// A header of every call. An error does not repeat the value: it may be a secret.
pub(super) fn header(text: &str) -> Result<Header, String> {
    match text.split_once('=') {
        Some((name, value)) => Header::parse(name, value),
        None => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_keep_their_spelling() {
        let parsed = parameter("top_p=0.50").unwrap();
        assert_eq!((parsed.name.as_str(), parsed.value.get()), ("top_p", "0.50"));
        assert_eq!(parameter("a={\"b\":[1]}").unwrap().value.get(), "{\"b\":[1]}");
        assert_eq!(
            parameter("user=bob").unwrap_err(),
            "\"bob\" is not JSON; for a text write 'user=\"bob\"'"
        );
        assert!(parameter("novalue").is_err() && parameter("=1").is_err());
    }

    #[test]
    fn values_of_members_are_json_or_strings() {
        let value = |text: &str| member(text).map(|member| member.value);
        assert_eq!(value("a.b=1.50"), Ok("1.50".to_owned()));
        assert_eq!(value("a.b=true"), Ok("true".to_owned()));
        assert_eq!(value("a={\n\"b\": [1]}"), Ok("{ \"b\": [1]}".to_owned()));
        assert_eq!(value("a=bob \"x\""), Ok("\"bob \\\"x\\\"\"".to_owned()));
        assert_eq!(value("a=x=y"), Ok("\"x=y\"".to_owned()));
        assert_eq!(value("a="), Ok("\"\"".to_owned()));
        assert!(value("a").is_err() && value("=1").is_err() && value("a..b=1").is_err());
        assert!(line("[1]").is_err() && line("{\"a\":1}").is_ok());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("1000"), Ok(1000));
        assert_eq!(
            (size("200MB"), size("2 k"), size("1GiB")),
            (Ok(200_000_000), Ok(2000), Ok(1 << 30))
        );
        for text in ["", "0", "MB", "1.5MB", "-1", "99999999999GB", "1TB"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!((limit("all"), limit("0")), (Ok(usize::MAX), Ok(0)));
        assert!(limit("-1").is_err());
    }

    #[test]
    fn numbers_must_be_json() {
        assert_eq!(temperature("0.70"), Ok("0.70".to_owned()));
        assert!(temperature("-1").is_err() && temperature("inf").is_err());
        assert!(probability("1").is_ok() && probability("1.1").is_err());
    }

    #[test]
    fn shard_lists_are_read() {
        let list = |text: &str| shards(text).map(|ShardList(list)| list);
        assert_eq!(list("3"), Ok(vec![3]));
        assert_eq!(list("1,4,6-8"), Ok(vec![1, 4, 6, 7, 8]));
        for text in ["", "a", "3-1", "0-99999999", "1,,2"] {
            assert!(list(text).is_err(), "{text}");
        }
    }
}
