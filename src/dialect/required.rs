//! What the body of a request must have, by its endpoint: OpenAI's and Anthropic's API references, vLLM's sources for
//! `score` and `rerank`.

use super::rules::Rules;
use super::{Body, Endpoint, Problem, kind, last, members, shown, some_string, text, wrong_type};
use crate::format::json::Object;

/// Checks that a body has what its endpoint cannot do without, and that usual parameters hold what they can hold.
///
/// # Errors
/// The first thing that is missing or wrong.
pub(super) fn check(
    endpoint: Option<Endpoint>,
    body: &Body<'_>,
    rules: &Rules,
) -> Result<(), Problem> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let one_of = |names: &[&str], shown: &'static str| {
        let is_there = |name: &&str| body.parameter(name).is_some_and(|token| token != "null");
        let url = endpoint.url();
        names.iter().any(is_there).then_some(()).ok_or(Problem::NoneOf { url, names: shown })
    };
    match endpoint {
        Endpoint::ChatCompletions => check_messages(body, rules)?,
        Endpoint::Messages => {
            check_messages(body, rules)?;
            one_of(&["max_tokens"], "max_tokens")?;
        }
        Endpoint::Completions => one_of(&["prompt", "prompt_embeds"], "prompt")?,
        Endpoint::Responses => {
            one_of(&["input", "prompt", "previous_response_id", "conversation"], "input")?
        }
        Endpoint::Embeddings => one_of(&["input", "messages"], "input")?,
        Endpoint::Score => one_of(
            &["text_1", "text_2", "queries", "query", "data_1", "data_2", "items", "documents"],
            "text_1 and text_2, or queries and documents",
        )?,
        Endpoint::Rerank => {
            one_of(&["query"], "query and documents")?;
            one_of(&["documents"], "query and documents")?;
        }
        // Their file is checked where it is read.
        Endpoint::Transcriptions | Endpoint::Translations => {}
        // What others serve is theirs to check.
        Endpoint::Moderations
        | Endpoint::ImageGenerations
        | Endpoint::ImageEdits
        | Endpoint::Videos => return Ok(()),
    }
    check_parameters(body, endpoint, rules)
}

/// A conversation: a list of messages, each of which says who speaks.
fn check_messages(body: &Body<'_>, rules: &Rules) -> Result<(), Problem> {
    const MESSAGES: &str = "body.messages";
    let list = body.parameter(last(MESSAGES)).ok_or(Problem::Missing(MESSAGES))?;
    if !list.starts_with('[') {
        return Err(wrong_type(MESSAGES, "a list", list));
    }
    let messages = members(list);
    if messages.is_empty() {
        return Err(Problem::Empty(MESSAGES));
    }
    for (index, message) in messages.into_iter().enumerate() {
        let problem = |problem| Problem::Message { index, problem: Box::new(problem) };
        check_message(message, rules).map_err(problem)?;
    }
    Ok(())
}

fn check_message(message: &str, rules: &Rules) -> Result<(), Problem> {
    const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
    let message = Object::parse(message).map_err(Problem::Json)?;
    let role = text(some_string(&message, "role")?);
    if rules.strict_values && !ROLES.contains(&&*role) {
        let (found, expected) = (shown(&role), "system, developer, user, assistant or tool");
        return Err(Problem::WrongValue { field: "role", found, expected });
    }
    match message.get("content") {
        Some(content) if content.starts_with(['"', '[', '{', 'n']) => Ok(()),
        Some(content) => Err(wrong_type("content", "a text or a list of parts", content)),
        // Who speaks may call tools instead.
        None if role == "user" || role == "system" => Err(Problem::Missing("content")),
        None => Ok(()),
    }
}

/// Usual parameters: of the right type, and no value that no server can take. Null is as good as none.
fn check_parameters(body: &Body<'_>, endpoint: Endpoint, rules: &Rules) -> Result<(), Problem> {
    let said = |field: &'static str| body.parameter(last(field)).filter(|it| *it != "null");
    const STREAM: &str = "body.stream";
    if let Some(stream) = said(STREAM).filter(|it| !matches!(*it, "true" | "false")) {
        return Err(wrong_type(STREAM, "a boolean", stream));
    }
    // Completions may echo a prompt and write nothing.
    let least = u64::from(endpoint != Endpoint::Completions);
    for (field, least, most) in [
        ("body.max_tokens", least, u64::MAX),
        ("body.max_completion_tokens", 1, u64::MAX),
        ("body.max_output_tokens", 1, u64::MAX),
        ("body.n", 1, if rules.strict_values { 128 } else { u64::MAX }),
    ] {
        let Some(token) = said(field) else { continue };
        // 16.0 is a number as well, and of some servers an integer.
        let number = token.parse::<f64>().ok().filter(|number| number.fract() == 0.0);
        #[expect(clippy::cast_precision_loss, reason = "bounds are small, or none")]
        let is_in = |number: &f64| *number >= least as f64 && *number <= most as f64;
        if number.filter(is_in).is_none() {
            return Err(wrong_number(field, token, "a positive integer"));
        }
    }
    let hottest = if rules.strict_values { 2.0 } else { f64::MAX };
    for (field, most, expected) in [
        (
            "body.temperature",
            hottest,
            if rules.strict_values { "a number from 0 to 2" } else { "a number of 0 or more" },
        ),
        ("body.top_p", 1.0, "a number from 0 to 1"),
    ] {
        let Some(token) = said(field) else { continue };
        if !token.parse::<f64>().is_ok_and(|number| (0.0..=most).contains(&number)) {
            return Err(wrong_number(field, token, expected));
        }
    }
    Ok(())
}

/// What stands in the place of a number: another kind of value, or a number that cannot be.
fn wrong_number(field: &'static str, token: &str, expected: &'static str) -> Problem {
    match kind(token) {
        "a number" => {
            Problem::WrongValue { field, found: token.chars().take(60).collect(), expected }
        }
        _ => wrong_type(field, expected, token),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::{OPENAI, ROWMILL, VLLM};
    use super::*;

    fn problem(endpoint: Endpoint, body: &str, rules: &Rules) -> String {
        let body = Body(Object::parse(body).unwrap());
        check(Some(endpoint), &body, rules).map_or_else(|it| it.to_string(), |()| "fine".into())
    }

    #[test]
    fn required_fields_are_checked_by_endpoint() {
        use Endpoint::{
            ChatCompletions, Completions, Embeddings, Messages, Rerank, Responses, Score,
        };
        for (endpoint, body, expected) in [
            (ChatCompletions, "{}", "body.messages is missing"),
            (ChatCompletions, r#"{"messages":[]}"#, "body.messages is empty"),
            (ChatCompletions, r#"{"messages":"x"}"#, "body.messages is a string, not a list"),
            (ChatCompletions, r#"{"messages":null}"#, "body.messages is null, not a list"),
            (
                ChatCompletions,
                r#"{"messages":["x"]}"#,
                "body.messages[0]: expected a JSON object, got a string",
            ),
            (
                ChatCompletions,
                r#"{"messages":[{"content":"x"}]}"#,
                "body.messages[0]: role is missing",
            ),
            (
                ChatCompletions,
                r#"{"messages":[{"role":7}]}"#,
                "body.messages[0]: role is a number, not a string",
            ),
            (
                ChatCompletions,
                r#"{"messages":[{"role":"user"}]}"#,
                "body.messages[0]: content is missing",
            ),
            (
                ChatCompletions,
                r#"{"messages":[{"role":"user","content":"x"},{"role":"user","content":7}]}"#,
                "body.messages[1]: content is a number, not a text or a list of parts",
            ),
            (ChatCompletions, r#"{"messages":[{"role":"assistant","tool_calls":[]}]}"#, "fine"),
            (
                Messages,
                r#"{"messages":[{"role":"user","content":"x"}]}"#,
                "/v1/messages needs max_tokens in body",
            ),
            (Completions, r#"{"prompt":null}"#, "/v1/completions needs prompt in body"),
            (Responses, "{}", "/v1/responses needs input in body"),
            (Embeddings, "{}", "/v1/embeddings needs input in body"),
            (Score, "{}", "/v1/score needs text_1 and text_2, or queries and documents in body"),
            (Rerank, r#"{"query":"x"}"#, "/v1/rerank needs query and documents in body"),
            (Rerank, r#"{"query":"x","documents":[]}"#, "fine"),
        ] {
            for rules in [&ROWMILL, &VLLM, &OPENAI] {
                assert_eq!(problem(endpoint, body, rules), expected, "{body}");
            }
        }
    }

    #[test]
    fn parameters_are_checked_by_type_and_range() {
        let with = |parameter: &str, rules| {
            let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{parameter}}}"#);
            problem(Endpoint::ChatCompletions, &body, rules)
        };
        for (parameter, expected) in [
            (r#""stream":"no""#, "body.stream is a string, not a boolean"),
            (r#""stream":null,"n":null,"temperature":null"#, "fine"),
            (r#""n":0"#, "body.n is 0, not a positive integer"),
            (r#""n":1.5"#, "body.n is 1.5, not a positive integer"),
            (r#""n":"2""#, "body.n is a string, not a positive integer"),
            (r#""max_tokens":-1"#, "body.max_tokens is -1, not a positive integer"),
            (r#""max_tokens":"9""#, "body.max_tokens is a string, not a positive integer"),
            (r#""max_tokens":16"#, "fine"),
            (
                r#""max_completion_tokens":0"#,
                "body.max_completion_tokens is 0, not a positive integer",
            ),
            (r#""temperature":-0.1"#, "body.temperature is -0.1, not a number of 0 or more"),
            (r#""temperature":"hot""#, "body.temperature is a string, not a number of 0 or more"),
            (r#""temperature":2.5"#, "fine"),
            (r#""top_p":1.1"#, "body.top_p is 1.1, not a number from 0 to 1"),
        ] {
            assert_eq!(with(parameter, &ROWMILL), expected, "{parameter}");
        }
        assert_eq!(
            with(r#""temperature":2.5"#, &OPENAI),
            "body.temperature is 2.5, not a number from 0 to 2"
        );
        assert_eq!(with(r#""n":129"#, &OPENAI), "body.n is 129, not a positive integer");
        let role = r#"{"messages":[{"role":"usr","content":"x"}]}"#;
        assert_eq!(problem(Endpoint::ChatCompletions, role, &VLLM), "fine");
        assert_eq!(
            problem(Endpoint::ChatCompletions, role, &OPENAI),
            "body.messages[0]: role is \"usr\", not system, developer, user, assistant or tool"
        );
    }
}
