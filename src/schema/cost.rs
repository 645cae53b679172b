//! How much a schema has done to one value: subschemas that refer to others twice, again and again, soon come to more
//! than any computer does.

use std::collections::HashMap;

use serde_json::Value;

/// The most subschemas that may be applied to one value. Schemas that people write come to some hundreds.
pub(super) const MOST: u64 = 100_000;

/// References that lead to one another, more than which no schema needs.
const DEEPEST: usize = 500;

/// Why a schema is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooMuch {
    /// More than [`MOST`] subschemas apply to one value.
    Steps,
    /// A reference leads to itself, without going into a part of the value.
    Endless,
}

/// Makes sure that a schema does not have too much done to any value.
pub(super) fn check_cost(root: &Value) -> Result<(), TooMuch> {
    let mut counter = Counter { root, anchors: HashMap::new(), known: HashMap::new() };
    counter.find_anchors(root);
    counter.count_all(root)
}

struct Counter<'a> {
    root: &'a Value,
    // What `$anchor` and `$id` name.
    anchors: HashMap<&'a str, &'a Value>,
    // By where a subschema is; `None` while it is being counted.
    known: HashMap<usize, Option<u64>>,
}

impl<'a> Counter<'a> {
    fn find_anchors(&mut self, value: &'a Value) {
        for name in ["$anchor", "$dynamicAnchor", "$id", "id"] {
            if let Some(name) = value.get(name).and_then(Value::as_str) {
                self.anchors.entry(name.trim_start_matches('#')).or_insert(value);
            }
        }
        parts(value).for_each(|part| self.find_anchors(part));
    }

    /// Counts all subschemas, wherever they stand. What is no schema but an example of a value is counted as well,
    /// which does no harm.
    fn count_all(&mut self, value: &'a Value) -> Result<(), TooMuch> {
        self.count(value, 0)?;
        parts(value).try_for_each(|part| self.count_all(part))
    }

    /// How many subschemas are applied to a value that this one is applied to.
    fn count(&mut self, schema: &'a Value, depth: usize) -> Result<u64, TooMuch> {
        let place = std::ptr::from_ref(schema).addr();
        match self.known.get(&place) {
            Some(Some(steps)) => return Ok(*steps),
            Some(None) => return Err(TooMuch::Endless),
            None if depth > DEEPEST => return Err(TooMuch::Steps),
            None => {}
        }
        self.known.insert(place, None);
        let mut steps = 1_u64;
        for applied in self.applied(schema) {
            steps = steps.saturating_add(self.count(applied, depth + 1)?);
            if steps > MOST {
                return Err(TooMuch::Steps);
            }
        }
        self.known.insert(place, Some(steps));
        Ok(steps)
    }

    /// The subschemas that are applied to the same value as a schema.
    fn applied(&self, schema: &'a Value) -> Vec<&'a Value> {
        let lists = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|it| schema.get(it));
        let lists = lists.filter_map(Value::as_array).flatten();
        let single = ["not", "if", "then", "else"].into_iter().filter_map(|it| schema.get(it));
        let dependent = ["dependentSchemas", "dependencies"].into_iter();
        let dependent = dependent.filter_map(|it| schema.get(it)?.as_object());
        let dependent = dependent.flat_map(serde_json::Map::values);
        let references = ["$ref", "$dynamicRef", "$recursiveRef"].into_iter();
        let references = references.filter_map(|it| self.target(schema.get(it)?.as_str()?));
        lists.chain(single).chain(dependent).chain(references).collect()
    }

    /// What a reference leads to within the schema.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        let (document, place) = reference.split_once('#').unwrap_or((reference, ""));
        let document = match document {
            "" => self.root,
            name => *self.anchors.get(name)?,
        };
        match place {
            "" => Some(document),
            place if place.starts_with('/') => document.pointer(place),
            anchor => self.anchors.get(anchor).copied(),
        }
    }
}

/// The values in a value.
fn parts(value: &Value) -> impl Iterator<Item = &Value> {
    let list = value.as_array().into_iter().flatten();
    list.chain(value.as_object().into_iter().flat_map(serde_json::Map::values))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Definitions each of which applies the next one twice.
    fn doubled(length: usize) -> Value {
        let mut schema = json!({"$ref": "#/$defs/a0", "$defs": {}});
        for number in 0..length {
            let next = json!({"$ref": format!("#/$defs/a{}", number + 1)});
            schema["$defs"][format!("a{number}")] = json!({"allOf": [next, next]});
        }
        schema["$defs"][format!("a{length}")] = json!({"type": "object"});
        schema
    }

    #[test]
    fn doubled_references_are_counted() {
        assert_eq!(check_cost(&doubled(10)), Ok(()));
        assert_eq!(check_cost(&doubled(25)), Err(TooMuch::Steps));
        assert_eq!(check_cost(&doubled(60)), Err(TooMuch::Steps));
    }

    #[test]
    fn references_into_parts_may_lead_back() {
        let tree = json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}});
        assert_eq!(check_cost(&tree), Ok(()));
        for endless in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}}),
            json!({"$defs": {"a": {"$anchor": "x", "not": {"$ref": "#x"}}}}),
        ] {
            assert_eq!(check_cost(&endless), Err(TooMuch::Endless), "{endless}");
        }
    }
}
