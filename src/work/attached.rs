//! From a row's prompt to what is sent for it: what is attached is read and put as the model's protocol
//! wants it.

use crate::input::Attachments;
use crate::job::Failure;
use crate::policy::Size;
use crate::prompt::{Prompt, Request};
use crate::provider::Api;

/// What a call is made of, besides what is the same for all rows.
#[derive(Debug)]
pub struct Message {
    /// The prompt.
    pub text: String,
    /// What is attached, for [`crate::provider::Wording::attached`].
    pub attached: Vec<u8>,
    /// Of a row that is a request itself, what of it is not its body, which is the text.
    pub request: Option<Box<Request>>,
}

impl Message {
    /// What a limit on tokens counts of it before it is sent.
    pub(super) fn size(&self) -> Size {
        match &self.request {
            None => Size { bytes: self.text.len(), answer: None },
            Some(request) => Size { bytes: request.words, answer: request.most_tokens },
        }
    }
}

/// The message of a prompt for the calls of a model. Files are read now, and only for a model that is
/// called; with `is_described` how many bytes there are stands in the place of the bytes.
///
/// # Errors
/// [`crate::job::FailureKind::Attachment`] when a file cannot be read, or the model's protocol takes
/// none of its kind.
pub fn message(
    prompt: Prompt,
    attachments: Option<&Attachments>,
    api: Option<&Api>,
    is_described: bool,
) -> Result<Message, Failure> {
    let Prompt { text, attachments: named, request } = prompt;
    let file = request.as_ref().and_then(|request| request.file.as_deref());
    if let (Some(file), Some(reader), false) = (file, attachments, is_described) {
        // What is at a URL is fetched when the call is made.
        let attached = reader.sound(file)?.filter(|_| api.is_some()).unwrap_or_default();
        return Ok(Message { text, attached, request });
    }
    let (Some(reader), Some(api)) = (attachments.filter(|_| !named.is_empty()), api) else {
        return Ok(Message { text, attached: Vec::new(), request });
    };
    let mut read = reader.read(&named)?;
    if is_described {
        read = read.into_iter().map(|it| it.described()).collect();
    }
    let attached = api.attach(&read).map_err(|not_taken| {
        let name = named.get(not_taken.index).map(String::as_str).unwrap_or_default();
        reader.failure(name, &not_taken.reason)
    })?;
    Ok(Message { text, attached, request })
}

/// What a worker may read of attachments before it looks after its calls again: while it reads, it
/// neither sends nor receives.
#[derive(Debug)]
pub(super) struct Pause {
    left: usize,
}

impl Pause {
    /// About ten milliseconds of reading from memory and spelling.
    const BYTES: usize = 4 << 20;

    pub(super) fn new() -> Self {
        Self { left: Self::BYTES }
    }

    /// Takes note of a message, and says whether it was enough for now.
    pub(super) fn is_due(&mut self, message: &Message) -> bool {
        self.left = self.left.saturating_sub(message.attached.len());
        self.left == 0
    }
}
