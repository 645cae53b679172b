//! What can go wrong with a row, by name.

use std::time::Duration;

use super::Usage;

/// Why one sending of a request, or the row itself, failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// One sentence for people: what happened and where.
    pub message: String,
    /// The HTTP status, where a server answered.
    pub status: Option<u16>,
    /// How long the server asked to be left alone.
    pub retry_after: Option<Duration>,
    /// What the model said, where it is not what was asked for; see [`Failure::with_raw`].
    pub raw: Option<Box<str>>,
    /// What the reply said of itself, where it was whole and still no answer: it was paid for. Most
    /// failures have none.
    pub paid: Option<Box<Paid>>,
}

/// What a whole reply says of itself besides its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paid {
    /// The model that answered, as the endpoint names it.
    pub model: Option<String>,
    /// Why the model stopped: `stop`, `length`, or another word of the endpoint's.
    pub finish_reason: Option<String>,
    /// What the endpoint says the reply used.
    pub usage: Option<Usage>,
}

impl Failure {
    /// A failure without a status.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message, status: None, retry_after: None, raw: None, paid: None }
    }

    /// The same failure with what the reply said of itself.
    #[must_use]
    pub fn with_paid(mut self, paid: Paid) -> Self {
        self.paid = Some(Box::new(paid));
        self
    }

    /// The same failure with what the model said: the first 64 KiB of it, and an ellipsis where that
    /// is not all.
    #[must_use]
    pub fn with_raw(mut self, text: &str) -> Self {
        const KEPT: usize = 64 << 10;
        let mut end = text.len().min(KEPT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let ellipsis = if end < text.len() { "…" } else { "" };
        self.raw = Some(format!("{}{ellipsis}", &text[..end]).into());
        self
    }

    /// The same failure with the HTTP status that came with it.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }
}

macro_rules! failure_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $class:literal;)+) => {
        /// The kinds of failure. Each has a type name, as an envelope's `error.type` shows it,
        /// and a class, as `error.class` does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FailureKind { $($(#[$doc])* $variant,)+ }

        impl FailureKind {
            /// All kinds, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name in an envelope's `error.type`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The name in an envelope's `error.class`.
            #[must_use]
            pub fn class(self) -> &'static str {
                match self { $(Self::$variant => $class,)+ }
            }
        }
    };
}

failure_kinds! {
    /// The row's bytes are no JSON.
    InvalidJson = "InvalidJSON", "invalid_json";
    /// The row's bytes are no UTF-8.
    InvalidUtf8 = "InvalidJSON", "invalid_utf8";
    /// The row is no object, has too few or too many columns, is too large or too deep.
    InvalidRow = "InvalidRow", "invalid_row";
    /// The row is no request of the job's dialect, or none that can be sent.
    InvalidRequest = "InvalidRequestError", "invalid_request";
    /// The id field is not there, or holds no id.
    MissingIdField = "MissingIdField", "missing_id_field";
    /// The template names a field that the row does not have.
    MissingTemplateField = "MissingTemplateField", "missing_template_field";
    /// What is attached to the row cannot be read, or the protocol does not take it. No call is made;
    /// once the file is there, another try may go well.
    Attachment = "AttachmentError", "attachment";
    /// No model of the pool takes what the row has. No call is made; with another pool one may be.
    NoModel = "NoModelError", "no_model";
    /// No whole answer came in time.
    Timeout = "TimeoutError", "timeout";
    /// The endpoint could not be reached.
    Connection = "ConnectionError", "connection";
    /// The endpoint closed the connection before it answered.
    Closed = "ConnectionError", "connection_closed";
    /// A connection kept open was closed when it was used again.
    Stale = "ConnectionError", "stale_connection";
    /// The endpoint's certificate is not trusted, or it speaks no TLS.
    Tls = "TLSError", "tls";
    /// The connection broke in the middle of an answer.
    BrokenAnswer = "BrokenAnswerError", "broken_answer";
    /// The endpoint asked for fewer requests.
    RateLimit = "RateLimitError", "rate_limit";
    /// The endpoint failed, or is overloaded.
    Server = "ServerError", "server_error";
    /// The endpoint refused this request.
    BadRequest = "BadRequestError", "bad_request";
    /// The endpoint does not know the path or the model.
    NotFound = "NotFoundError", "not_found";
    /// The request is longer than the model takes.
    TooLong = "ContextLengthError", "too_long";
    /// The endpoint's content filter refused the request or the answer.
    ContentFilter = "ContentFilterError", "content_filter";
    /// The model refused to answer.
    Refusal = "RefusalError", "refusal";
    /// The answer is none this protocol knows.
    BadResponse = "BadResponseError", "bad_response";
    /// The answer holds no text.
    EmptyAnswer = "EmptyAnswerError", "empty_answer";
    /// The answer is not what the schema asks for, after all that was tried.
    SchemaMismatch = "StructuredOutputError", "schema_mismatch";
    /// The answer was cut off at its longest before it held any text, or before its JSON was whole.
    Truncated = "TruncatedError", "truncated";
    /// The endpoint refused to be told the schema in the field that its protocol has for it.
    SchemaRefused = "BadRequestError", "schema_refused";
    /// The answer is larger than rowmill reads.
    ResponseTooLarge = "ResponseTooLargeError", "response_too_large";
    /// The answer is compressed in a way that rowmill does not read.
    UnknownCoding = "BadResponseError", "unknown_coding";
    /// The endpoint points to another host, to which rowmill does not carry a key.
    Redirect = "RedirectError", "redirect";
    /// The endpoint refused the key.
    Credentials = "AuthenticationError", "credentials";
    /// The account has no quota or no credit left.
    Quota = "QuotaError", "quota";
}

impl FailureKind {
    /// Whether the row itself is at fault, so that no call was or will be made for it.
    #[must_use]
    pub fn is_of_the_row(self) -> bool {
        matches!(
            self,
            Self::InvalidJson
                | Self::InvalidUtf8
                | Self::InvalidRow
                | Self::InvalidRequest
                | Self::MissingIdField
                | Self::MissingTemplateField
        )
    }
}
