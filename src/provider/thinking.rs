//! What a body says of thinking, and what goes with that of what a dialect says by default.

use crate::job::{Parameters, Protocol};

/// What a dialect usually says, beside what else is said; nothing where it does not go with that: who thinks with
/// Messages takes no temperature but 1
/// (<https://platform.claude.com/docs/en/build-with-claude/extended-thinking>).
pub(super) fn fitting(
    fields: &Parameters,
    protocol: Protocol,
    name: &str,
    value: &str,
) -> Option<String> {
    match name {
        "max_tokens" => {
            let most = value.parse::<u64>().ok()?;
            Some(most.saturating_add(budget(fields)).to_string())
        }
        "temperature" if protocol == Protocol::Messages && thinks(fields) => None,
        _ => Some(value.to_owned()),
    }
}

/// What a body says of thinking.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Thinking {
    r#type: Option<String>,
    budget_tokens: Option<u64>,
    // OpenRouter's name for the same.
    max_tokens: Option<u64>,
}

fn thinking_in(fields: &Parameters, field: &str) -> Thinking {
    let said = fields.get(field).and_then(|said| serde_json::from_str(said.get()).ok());
    said.unwrap_or_default()
}

/// The tokens that are for thinking, as far as they are said.
pub(super) fn budget(fields: &Parameters) -> u64 {
    let of_messages = thinking_in(fields, "thinking").budget_tokens;
    of_messages.or_else(|| thinking_in(fields, "reasoning").max_tokens).unwrap_or_default()
}

/// Whether a model is told to think, in Messages.
fn thinks(fields: &Parameters) -> bool {
    thinking_in(fields, "thinking").r#type.is_some_and(|it| it != "disabled")
}
