//! What the tools want to know of a line in.

use std::borrow::Cow;

use crate::dialect::rules::Rules;
use crate::dialect::{Dialect, Problem, dria, id_of, openai, prompts, rows, words};

/// What a line says of itself.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    /// The token of its id.
    pub(super) id: Option<&'a str>,
    pub(super) model: Option<Cow<'a, str>>,
    pub(super) url: Option<Cow<'a, str>>,
    /// How many embeddings it asks for.
    pub(super) embeddings: u64,
    pub(super) is_stream: bool,
    /// Whether its id is not what the documentation of its dialect says.
    pub(super) has_odd_id: bool,
    /// What is sent to the model, more or less.
    pub(super) payload: &'a str,
}

/// Reads a line, and asks what a server thinks of it if one is given; `has_model` says that the caller names a model.
pub(super) fn read<'a>(
    text: &'a str,
    dialect: Dialect,
    rules: Option<&Rules>,
    has_model: bool,
) -> Result<Facts<'a>, Problem> {
    Ok(match dialect {
        Dialect::Rows => {
            let row = rows::read(text)?;
            Facts { id: id_of(&row), payload: row.text(), ..Facts::default() }
        }
        Dialect::Prompts => {
            let request = prompts::Request::read(text)?;
            Facts { id: request.id(), payload: text, ..Facts::default() }
        }
        Dialect::Dria => {
            let request = dria::Request::read(text, has_model)?;
            Facts {
                id: Some(request.id()),
                model: request.body().model(),
                has_odd_id: !request.has_uuid(),
                payload: request.body().spelled(),
                ..Facts::default()
            }
        }
        Dialect::OpenAi => {
            let request = openai::Request::read(text)?;
            if let Some(rules) = rules {
                request.check(rules, has_model)?;
            }
            Facts {
                id: Some(request.id()),
                model: request.body().model(),
                url: Some(request.url()),
                embeddings: request.embedding_inputs(),
                is_stream: request.body().is_stream(),
                has_odd_id: false,
                payload: request.body().spelled(),
            }
        }
    })
}

/// About how many tokens a request has: a quarter of its bytes, data URIs left out. Good to a factor of two for English;
/// what languages and tokenizers make of it, and what images count, it does not know.
pub(super) fn tokens(payload: &str) -> u64 {
    words(payload) as u64 / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_uris_are_no_words() {
        assert_eq!(tokens("{\"prompt\":\"12345678\"}"), 5);
        let image = format!("{{\"url\":\"data:image/png;base64,{}\",\"a\":1}}", "A".repeat(9999));
        assert_eq!(tokens(&image), 3);
        assert_eq!(tokens("\"data:"), 0);
    }
}
