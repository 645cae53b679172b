//! What is wrong with a line.

use crate::format::json;

/// Why a line is none of its dialect, or none that a server takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The line is no text.
    #[error("byte {0} of the line is not UTF-8")]
    NotUtf8(usize),
    /// The line is longer than anything reads.
    #[error("the line has {bytes} bytes, more than the {most} that are read")]
    LongLine {
        /// Its length.
        bytes: u64,
        /// The longest that is read.
        most: u64,
    },
    /// The line is no JSON object.
    #[error("{}", json_problem(.0))]
    Json(json::Error),
    /// A field is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field holds another kind of value.
    #[error("{field} is {found}, not {expected}")]
    WrongType {
        /// The field, by its path.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: &'static str,
    },
    /// A field holds nothing.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A message of a conversation is none.
    #[error("body.messages[{index}]: {problem}")]
    Message {
        /// Its place, from 0.
        index: usize,
        /// What is wrong with it.
        problem: Box<Problem>,
    },
    /// None of the fields is there of which one is needed.
    #[error("{url} needs {names} in body")]
    NoneOf {
        /// The endpoint's url.
        url: &'static str,
        /// The fields' names.
        names: &'static str,
    },
    /// A field that only has one right value.
    #[error("{field} is {found}, not {expected}")]
    WrongValue {
        /// The field.
        field: &'static str,
        /// Its value, shortened.
        found: String,
        /// The right one.
        expected: &'static str,
    },
    /// The url is none that the server answers.
    #[error("url {url} is none of {server}'s: {known}")]
    UnknownUrl {
        /// The url, shortened.
        url: String,
        /// Who does not take it.
        server: &'static str,
        /// Those that are taken.
        known: String,
    },
    /// The id is too long.
    #[error("custom_id has {bytes} bytes, and {server} takes {most}")]
    LongId {
        /// Its length.
        bytes: usize,
        /// The longest that is taken.
        most: usize,
        /// By whom.
        server: &'static str,
    },
    /// The id cannot be an HTTP header.
    #[error("custom_id {0} has characters that an HTTP header cannot have")]
    UnsafeId(String),
    /// The body is too long.
    #[error("body has {bytes} bytes, and {server} takes {most}")]
    LongBody {
        /// Its length.
        bytes: usize,
        /// The longest that is taken.
        most: usize,
        /// By whom.
        server: &'static str,
    },
    /// The answer is wanted in pieces.
    #[error("body.stream is true, and {0} refuses that: an answer is one line")]
    Stream(&'static str),
    /// The line out has neither an answer nor an error.
    #[error("there is neither an answer nor an error in it")]
    NoOutcome,
}

fn json_problem(error: &json::Error) -> String {
    match error {
        json::Error::Syntax { .. } => format!("not JSON: {error}"),
        json::Error::NotAnObject(_) | json::Error::TooDeep => error.to_string(),
    }
}

impl Problem {
    /// A name for machines. Where OpenAI's Batch API has one, it is that.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8(_) => "invalid_utf8",
            Self::LongLine { .. } => "line_too_long",
            Self::Json(json::Error::Syntax { .. }) => "invalid_json_line",
            Self::Json(_) => "invalid_line",
            Self::Missing(_) | Self::NoneOf { .. } => "missing_field",
            Self::Message { .. } => "invalid_messages",
            Self::WrongType { .. } => "wrong_type",
            Self::Empty(_) => "empty_field",
            Self::WrongValue { field: "method", .. } => "invalid_method",
            Self::WrongValue { .. } => "invalid_value",
            Self::UnknownUrl { .. } => "invalid_url",
            Self::LongId { .. } | Self::UnsafeId(_) => "invalid_custom_id",
            Self::LongBody { .. } => "body_too_long",
            Self::Stream(_) => "stream",
            Self::NoOutcome => "no_outcome",
        }
    }
}

/// A value from a file as messages show it: short, and quoted.
#[must_use]
pub fn shown(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}
