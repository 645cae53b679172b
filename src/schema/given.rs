//! What a user hands over as a schema: one, or what an API wants around one. What would check nothing is refused.

use serde_json::{Map, Value};

use super::{BadSchema, Schema, value};
use crate::format::json::Object;

/// Why what was handed over is no schema for answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGiven {
    /// It is no schema.
    #[error(transparent)]
    Schema(#[from] BadSchema),
    /// It allows every answer.
    #[error("the schema would check nothing: {0}")]
    ChecksNothing(String),
    /// A name in it is no keyword of JSON Schema, but nearly one.
    #[error("{place}{name:?} is no keyword of JSON Schema and would check nothing; {hint}")]
    Unknown {
        /// Where, with a space behind it; empty at the root.
        place: String,
        /// The name.
        name: String,
        /// What was meant, most likely.
        hint: String,
    },
}

/// Keywords that can refuse an answer.
const CHECKS: [&str; 43] = [
    "$ref",
    "$dynamicRef",
    "$recursiveRef",
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "minContains",
    "maxContains",
    "minItems",
    "maxItems",
    "uniqueItems",
    "unevaluatedItems",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
];

/// Names beside those that are no slip: the rest of JSON Schema, and what generators and APIs put there.
const OTHERS: [&str; 43] = [
    "$schema",
    "$id",
    "id",
    "$anchor",
    "$dynamicAnchor",
    "$recursiveAnchor",
    "$vocabulary",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "nullable",
    "discriminator",
    "xml",
    "externalDocs",
    "propertyOrdering",
    "name",
    "strict",
    "version",
    "enumNames",
    "enumDescriptions",
    "markdownDescription",
    "errorMessage",
    "tsType",
    "order",
    "optional",
    "hidden",
    "units",
    "unit",
    "notes",
    "note",
    "kind",
    "meta",
];

/// Where APIs have a schema in what they want around it; the names lead there one after the other.
const WRAPPERS: [&[&str]; 19] = [
    &["response_format"],
    &["responseFormat"],
    &["text", "format"],
    &["output_config", "format"],
    &["output_format"],
    &["json_schema"],
    &["jsonSchema"],
    &["function"],
    &["tool"],
    &["schema"],
    &["parameters"],
    &["input_schema"],
    &["inputSchema"],
    &["responseJsonSchema"],
    &["responseSchema"],
    &["response_schema"],
    &["guided_json"],
    &["structured_outputs", "json"],
    &["format"],
];

/// Names that stand beside a schema in such wrappers.
const BESIDE: [&str; 8] =
    ["name", "strict", "description", "title", "type", "$schema", "cache_control", "annotations"];

/// Reads what a user handed over as a schema: takes it out of what an API wants around it (`{"name", "strict",
/// "schema"}`, a whole `response_format`, a tool with its `parameters`), and refuses what would check nothing.
///
/// # Errors
/// When it is no schema, or would check nothing.
pub fn read_given(text: &str) -> Result<Schema, BadGiven> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let value = value::parse(text).map_err(BadSchema::Syntax)?;
    if value == Value::Bool(true) {
        return Err(BadGiven::ChecksNothing("true allows every answer".to_owned()));
    }
    let inner = unwrapped(text);
    let value = if inner.len() == text.len() {
        value
    } else {
        value::parse(inner).map_err(BadSchema::Syntax)?
    };
    if let Value::Object(schema) = &value {
        if !schema.keys().any(|name| CHECKS.contains(&name.as_str())) {
            return Err(BadGiven::ChecksNothing(without_checks(schema)));
        }
        check_names(schema, "")?;
    }
    Ok(Schema::read(inner)?)
}

/// The schema within what an API wants around it; the text itself where it plainly is one, or nothing that is known.
fn unwrapped(text: &str) -> &str {
    /// `{"response_format":{"json_schema":{"schema":…}}}` has three.
    const DEEPEST: usize = 5;
    let mut text = text;
    for _ in 0..DEEPEST {
        let Ok(object) = Object::parse(text) else { return text };
        let found = WRAPPERS.iter().find_map(|path| {
            let is_beside = |name: &str| name == path[0] || BESIDE.contains(&name);
            if !object.names().all(is_beside) || is_schema(&object, path[0]) {
                return None;
            }
            let mut inner = object.get(path[0])?;
            for name in &path[1..] {
                inner = Object::parse(inner).ok()?.get(name)?;
            }
            Some(inner).filter(|inner| inner.starts_with('{'))
        });
        let Some(inner) = found else { return text };
        text = inner;
    }
    text
}

/// Whether an object is a schema though it has a field that wrappers have: its `type` is one of JSON's.
fn is_schema(object: &Object<'_>, wrapper: &str) -> bool {
    const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];
    let kind = object.get("type").unwrap_or_default();
    // A wrapper may be an object itself, where its schema stands in a field of no other meaning.
    kind.starts_with('[') || TYPES.contains(&kind.trim_matches('"')) && wrapper != "schema"
}

/// Why a schema without keywords that check anything is none, with what to do.
fn without_checks(schema: &Map<String, Value>) -> String {
    const TYPES: [&str; 6] = ["string", "number", "integer", "boolean", "str", "int"];
    if schema.is_empty() {
        return "{} allows every answer".to_owned();
    }
    let names: Vec<&str> = schema.keys().map(String::as_str).collect();
    let near = names.iter().find_map(|name| Some((name, nearest(name)?)));
    if let Some((name, near)) = near {
        return format!("{name:?} is no keyword of JSON Schema; did you mean {near:?}?");
    }
    if names.iter().any(|name| ["$defs", "definitions"].contains(name)) {
        return "it defines schemas and uses none; add a $ref to one".to_owned();
    }
    if schema.values().all(Value::is_string)
        && schema.values().any(|it| it.as_str().is_some_and(|it| TYPES.contains(&it)))
    {
        let short: Vec<_> = schema
            .iter()
            .map(|(name, kind)| match kind.as_str() {
                Some("str") | None => format!("{name}:string"),
                Some("int") => format!("{name}:integer"),
                Some(kind) if TYPES.contains(&kind) => format!("{name}:{kind}"),
                Some(_) => format!("{name}:string"),
            })
            .collect();
        return format!(
            "it is a sample of an answer; the short form of that schema is --schema '{}'",
            short.join(", ")
        );
    }
    let shown: Vec<_> = names.iter().take(3).map(|name| format!("{name:?}")).collect();
    format!(
        "it has no keyword of JSON Schema such as type or properties, only {}; is it a sample of an answer?",
        shown.join(", ")
    )
}

/// Refuses names in a schema, and in those within it, that are nearly keywords, and fields that stand beside
/// `properties` and not in it.
fn check_names(schema: &Map<String, Value>, place: &str) -> Result<(), BadGiven> {
    let is_of_object = schema.get("type").and_then(Value::as_str) == Some("object");
    let lacks_fields =
        is_of_object && !schema.contains_key("properties") && !schema.contains_key("$ref");
    for (name, value) in schema {
        let is_known = CHECKS.contains(&name.as_str()) || OTHERS.contains(&name.as_str());
        let unknown = |hint| {
            let place = if place.is_empty() { String::new() } else { format!("at {place}: ") };
            Err(BadGiven::Unknown { place, name: name.clone(), hint })
        };
        if is_known || name.starts_with("x-") {
            check_within(name, value, place)?;
        } else if let Some(near) = nearest(name) {
            return unknown(format!("did you mean {near:?}?"));
        } else if lacks_fields && value.get("type").is_some() {
            return unknown("fields of an object stand in \"properties\"".to_owned());
        }
    }
    Ok(())
}

/// As [`check_names`], of the schemas in a keyword's value.
fn check_within(name: &str, value: &Value, place: &str) -> Result<(), BadGiven> {
    let check = |value: &Value, place: &str| match value {
        Value::Object(schema) => check_names(schema, place),
        _ => Ok(()),
    };
    let place = format!("{place}/{name}");
    match (name, value) {
        (
            "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
            Value::Object(named),
        ) => named.iter().try_for_each(|(name, it)| check(it, &format!("{place}/{name}"))),
        ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(list)) => {
            let mut numbered = list.iter().enumerate();
            numbered.try_for_each(|(number, it)| check(it, &format!("{place}/{number}")))
        }
        (
            "items"
            | "additionalItems"
            | "additionalProperties"
            | "contains"
            | "not"
            | "if"
            | "then"
            | "else"
            | "propertyNames"
            | "unevaluatedItems"
            | "unevaluatedProperties",
            value,
        ) => check(value, &place),
        _ => Ok(()),
    }
}

/// The keyword that a name nearly is: in other letters, in another case, or with a slip or two.
fn nearest(name: &str) -> Option<&'static str> {
    if OTHERS.contains(&name) {
        return None;
    }
    let plain = |name: &str| name.replace(['_', '-', ' '], "").to_ascii_lowercase();
    let given = plain(name);
    let slips = if given.len() <= 5 { 1 } else { 2 };
    let distances = CHECKS.iter().map(|keyword| (distance(&given, &plain(keyword)), *keyword));
    let near = distances.filter(|(distance, keyword)| {
        // A word of two or three letters is near to many.
        *distance <= slips && (keyword.len() > 3 || *distance == 0)
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, keyword)| keyword)
}

/// How many letters must be put in, left out, changed or swapped to make one word of another.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    // No keyword is so long.
    if from.len() > 40 {
        return from.len();
    }
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (at, row) in rows.iter_mut().enumerate() {
        row[0] = at;
    }
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let changed = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::from_short;

    const INNER: &str =
        r#"{"type":"object","properties":{"label":{"type":"string"}},"required":["label"]}"#;

    fn told(text: &str) -> String {
        match read_given(text) {
            Ok(schema) => schema.text().to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_apis_want_around_a_schema_is_taken_off() {
        for wrapper in [
            r#"{"name":"verdict","strict":true,"schema":INNER}"#,
            r#"{"type":"json_schema","json_schema":{"name":"v","schema":INNER}}"#,
            r#"{"json_schema":{"name":"v","schema":INNER}}"#,
            r#"{"response_format":{"type":"json_schema","json_schema":{"schema":INNER}}}"#,
            r#"{"type":"json_schema","name":"v","schema":INNER}"#,
            r#"{"text":{"format":{"type":"json_schema","schema":INNER}}}"#,
            r#"{"output_config":{"format":{"type":"json_schema","schema":INNER}}}"#,
            r#"{"type":"function","function":{"name":"f","parameters":INNER}}"#,
            r#"{"name":"f","description":"d","parameters":INNER}"#,
            r#"{"name":"f","input_schema":INNER}"#,
            r#"{"name":"f","inputSchema":INNER}"#,
            r#"{"responseSchema":INNER}"#,
            r#"{"guided_json":INNER}"#,
            "\u{feff} INNER\n",
        ] {
            assert_eq!(told(&wrapper.replace("INNER", INNER)), INNER, "{wrapper}");
        }
        // A field of an answer may be called like a wrapper.
        let own = r#"{"type":"object","properties":{"schema":{"type":"object","properties":{"parameters":{}}}}}"#;
        assert_eq!(told(own), own);
    }

    #[test]
    fn what_checks_nothing_is_refused() {
        for (text, expected) in [
            ("{}", "the schema would check nothing: {} allows every answer"),
            ("true", "the schema would check nothing: true allows every answer"),
            (
                r#"{"label":"string","score":"number"}"#,
                "the schema would check nothing: it is a sample of an answer; the short form of that schema is --schema 'label:string, score:number'",
            ),
            (
                r#"{"label":"pos","score":0.5}"#,
                "the schema would check nothing: it has no keyword of JSON Schema such as type or properties, only \"label\", \"score\"; is it a sample of an answer?",
            ),
            (
                r#"{"name":"f","schema":{}}"#,
                "the schema would check nothing: {} allows every answer",
            ),
            (
                r#"{"title":"x","propertys":{}}"#,
                "the schema would check nothing: \"propertys\" is no keyword of JSON Schema; did you mean \"properties\"?",
            ),
            (
                r#"{"$defs":{"a":{"type":"string"}}}"#,
                "the schema would check nothing: it defines schemas and uses none; add a $ref to one",
            ),
            (
                r#"{"type":"object","propertys":{"label":{"type":"string"}},"requred":["label"]}"#,
                "\"propertys\" is no keyword of JSON Schema and would check nothing; did you mean \"properties\"?",
            ),
            (
                r#"{"type":"object","properties":{"a":{"type":"string","min_length":3}}}"#,
                "at /properties/a: \"min_length\" is no keyword of JSON Schema and would check nothing; did you mean \"minLength\"?",
            ),
            (
                r#"{"type":"object","label":{"type":"string"}}"#,
                "\"label\" is no keyword of JSON Schema and would check nothing; fields of an object stand in \"properties\"",
            ),
            ("[]", "the schema is no JSON object"),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
        for misspelt in
            ["anyof", "Enum", "tpye", "item", "require", "additional_properties", "oneOff"]
        {
            assert!(nearest(misspelt).is_some(), "{misspelt}");
        }
    }

    #[test]
    fn what_generators_and_apis_add_is_no_slip() {
        for text in [
            r#"{"type":"object"}"#,
            r#"{"title":"A","type":"object","properties":{"a":{"type":"string","example":"x","nullable":true}},"x-order":1,"propertyOrdering":["a"]}"#,
            r##"{"$ref":"#/$defs/a","$defs":{"a":{"enum":["a"],"enumNames":["A"]}}}"##,
            r#"{"type":"object","properties":{"propertys":{"type":"string"},"requred":{"type":"array","items":{"type":"string"}}}}"#,
            r#"{"not":{"const":1}}"#,
            r#"{"const":{"propertys":1}}"#,
        ] {
            assert_eq!(told(text), text);
        }
        let short = from_short("label:a|b,n?:number[]").unwrap();
        assert_eq!(told(&short), short);
    }
}
