//! The names that rowmill gives in a work directory.

/// The marker's file: what makes a directory rowmill's.
pub(super) const MARKER: &str = "rowmill.json";
pub(super) const LOCK: &str = "lock";
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const SHARDS: &str = "shards";
pub(super) const IDS: &str = "ids";
pub(super) const CONTENTS: &str = "contents";
pub(super) const SPOOL: &str = "input.jsonl";
/// A second copy of the input, for comparison. It must keep its extension: it tells the format.
pub(super) const SECOND_SPOOL: &str = "input.new.jsonl";
pub(super) const QUARANTINE: &str = "quarantine";
/// What a model server said that rowmill started.
pub(super) const SERVER_LOG: &str = "server.log";
/// There while answers are taken over from an output: the plan does not count yet. It says of which run and plan
/// it is.
pub(super) const ADOPTING: &str = "adopting";
/// What the manifest is called while the directory is being emptied.
pub(super) const WIPING: &str = "wiping";

/// How the last session ended.
pub(super) const LAST_RUN: &str = "last-run.json";
/// What has come of an input that is fetched.
pub(super) const PART: &str = "input.part";
/// What that is a part of.
pub(super) const PART_NOTE: &str = "input.part.json";

/// The number of a generation's directory, if a name is one's.
pub(super) fn generation_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("gen-")?;
    let number: u32 = digits.parse().ok()?;
    (number > 1 && generation_dir(number) == name).then_some(number)
}

/// The name of a generation's directory.
pub(super) fn generation_dir(generation: u32) -> String {
    format!("gen-{generation:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_rowmill_gives_are_generations() {
        for name in ["gen-000001", "gen-2", "gen-0000002", "gen-", "gen-00000x", "gen-000000"] {
            assert_eq!(generation_number(name), None, "{name}");
        }
        assert_eq!(generation_number("gen-000002"), Some(2));
        assert_eq!(generation_number("gen-1000000"), Some(1_000_000));
    }
}
