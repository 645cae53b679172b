//! What is attached to a prompt, on the wire. How each protocol spells an image, a sound or a PDF is
//! in its own file; here is what they share, and how parts and prompt stand together.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{chat, messages, responses};
use crate::format::json;
use crate::job::{Attachment, MediaType, Payload, Protocol};

/// Something attached that a protocol does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotTaken {
    /// Which of the attachments.
    pub index: usize,
    /// Why not, and what to do.
    pub reason: String,
}

/// What is attached as the protocol has it: the parts of a message besides its text.
pub(super) fn attach(protocol: Protocol, attachments: &[Attachment]) -> Result<Vec<u8>, NotTaken> {
    let room = attachments.iter().map(|it| 160 + length(&it.payload)).sum();
    let mut parts = Vec::with_capacity(room);
    for (index, attachment) in attachments.iter().enumerate() {
        if index > 0 {
            parts.push(b',');
        }
        let taken = match protocol {
            Protocol::Chat => chat::part(&mut parts, attachment),
            Protocol::Responses => responses::part(&mut parts, attachment),
            Protocol::Messages => messages::part(&mut parts, attachment),
            Protocol::Embeddings => Err("embeddings take text only".to_owned()),
        };
        taken.map_err(|reason| NotTaken { index, reason })?;
    }
    Ok(parts)
}

/// Appends the content of the message that asks: the prompt, and the parts that [`attach`] made of what
/// is attached, if there are any.
///
/// The text stands first, so that what all prompts begin with can be cached; but for Messages, whose
/// models work best when it comes last: <https://platform.claude.com/docs/en/build-with-claude/vision>.
pub(super) fn content(body: &mut Vec<u8>, protocol: Protocol, prompt: &str, attached: &[u8]) {
    if attached.is_empty() {
        return json::write_string(body, prompt);
    }
    let kind: &[u8] = if protocol == Protocol::Responses { b"input_text" } else { b"text" };
    let text = |body: &mut Vec<u8>| {
        for piece in [b"{\"type\":\"", kind, b"\",\"text\":"] {
            body.extend_from_slice(piece);
        }
        json::write_string(body, prompt);
        body.push(b'}');
    };
    body.push(b'[');
    match (prompt.is_empty(), protocol) {
        // A part without text is refused by some.
        (true, _) => body.extend_from_slice(attached),
        (false, Protocol::Messages) => {
            body.extend_from_slice(attached);
            body.push(b',');
            text(body);
        }
        (false, _) => {
            text(body);
            body.push(b',');
            body.extend_from_slice(attached);
        }
    }
    body.push(b']');
}

/// Pieces of JSON and, between them, texts that are spelled as strings.
pub(super) enum Piece<'a> {
    Raw(&'a str),
    String(&'a str),
    /// Bytes in base64, within quotes that are the caller's.
    Data(&'a Payload),
}

pub(super) fn write(out: &mut Vec<u8>, pieces: &[Piece<'_>]) {
    for piece in pieces {
        match piece {
            Piece::Raw(text) => out.extend_from_slice(text.as_bytes()),
            Piece::String(text) => json::write_string(out, text),
            Piece::Data(Payload::Bytes(_, bytes)) => {
                let start = out.len();
                out.resize(start + length_in_base64(bytes.len()), 0);
                // There is room for all of it, which is the only thing that can fail.
                let _ = STANDARD.encode_slice(bytes, &mut out[start..]);
            }
            Piece::Data(Payload::Length(_, bytes)) => {
                out.extend_from_slice(format!("({bytes} bytes)").as_bytes());
            }
            Piece::Data(Payload::Url(_)) => {}
        }
    }
}

/// Appends an attachment's place as a JSON string: its URL, or a data URI.
pub(super) fn write_place(out: &mut Vec<u8>, payload: &Payload) {
    match payload {
        Payload::Url(url) => json::write_string(out, url),
        Payload::Bytes(MediaType { name, .. }, _) | Payload::Length(MediaType { name, .. }, _) => {
            let (begin, end) = (Piece::Raw("\"data:"), Piece::Raw("\""));
            let data = Piece::Data(payload);
            write(out, &[begin, Piece::Raw(name), Piece::Raw(";base64,"), data, end]);
        }
    }
}

fn length(payload: &Payload) -> usize {
    match payload {
        Payload::Bytes(_, bytes) => length_in_base64(bytes.len()),
        Payload::Length(..) => 0,
        Payload::Url(url) => url.len(),
    }
}

fn length_in_base64(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::job::{Modality, Reference};

    fn bytes(name: &str, bytes: &[u8]) -> Attachment {
        let media = Reference::parse(name).media().unwrap();
        let payload = Payload::Bytes(media, bytes.to_vec());
        Attachment { file_name: name.to_owned(), modality: media.modality, payload }
    }

    fn url(modality: Modality, url: &str) -> Attachment {
        Attachment { file_name: "x".into(), modality, payload: Payload::Url(url.to_owned()) }
    }

    fn parts(protocol: Protocol, attachment: Attachment) -> Result<Value, String> {
        let parts = attach(protocol, &[attachment.clone(), attachment]).map_err(|it| it.reason)?;
        let text = format!("[{}]", String::from_utf8(parts).unwrap());
        let both: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(both[0], both[1]);
        Ok(both[0].clone())
    }

    #[test]
    fn each_protocol_has_its_own_words_for_an_image() {
        let (png, url) = (bytes("a.png", b"\0\x01\x02\x03"), url(Modality::Image, "http://x/\"y"));
        let data = "data:image/png;base64,AAECAw==";
        let of = |protocol, it: &Attachment| parts(protocol, it.clone()).unwrap();
        for (image, place) in [(&png, data), (&url, "http://x/\"y")] {
            assert_eq!(
                of(Protocol::Chat, image),
                json!({"type": "image_url", "image_url": {"url": place}})
            );
            let expected = json!({"type": "input_image", "detail": "auto", "image_url": place});
            assert_eq!(of(Protocol::Responses, image), expected);
        }
        let source = json!({"type": "base64", "media_type": "image/png", "data": "AAECAw=="});
        assert_eq!(of(Protocol::Messages, &png), json!({"type": "image", "source": source}));
        let source = json!({"type": "url", "url": "http://x/\"y"});
        assert_eq!(of(Protocol::Messages, &url), json!({"type": "image", "source": source}));
        let shown = of(Protocol::Chat, &png.described());
        assert_eq!(shown["image_url"]["url"], "data:image/png;base64,(4 bytes)");
    }

    #[test]
    fn each_protocol_has_its_own_words_for_a_document() {
        let pdf = bytes("a \"b\".pdf", b"%PDF-");
        let url = url(Modality::Document, "https://x/a.pdf");
        let data = "data:application/pdf;base64,JVBERi0=";
        let of = |protocol, it: &Attachment| parts(protocol, it.clone()).unwrap();
        assert_eq!(
            of(Protocol::Chat, &pdf),
            json!({"type": "file", "file": {"filename": "a \"b\".pdf", "file_data": data}})
        );
        assert!(parts(Protocol::Chat, url.clone()).unwrap_err().contains("no URLs of PDFs"));
        assert_eq!(
            of(Protocol::Responses, &pdf),
            json!({"type": "input_file", "filename": "a \"b\".pdf", "file_data": data})
        );
        assert_eq!(
            of(Protocol::Responses, &url),
            json!({"type": "input_file", "file_url": "https://x/a.pdf"})
        );
        let source = json!({"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="});
        assert_eq!(of(Protocol::Messages, &pdf), json!({"type": "document", "source": source}));
        let source = json!({"type": "url", "url": "https://x/a.pdf"});
        assert_eq!(of(Protocol::Messages, &url), json!({"type": "document", "source": source}));
    }

    #[test]
    fn sound_is_for_chat_and_what_is_not_taken_says_why() {
        let wav = bytes("a.wav", b"RIFF");
        let mp3 = bytes("a.mp3", b"ID3");
        let input_audio = json!({"data": "UklGRg==", "format": "wav"});
        assert_eq!(
            parts(Protocol::Chat, wav.clone()).unwrap(),
            json!({"type": "input_audio", "input_audio": input_audio})
        );
        assert_eq!(parts(Protocol::Chat, mp3).unwrap()["input_audio"]["format"], "mp3");
        let refused = |protocol, it: &Attachment| parts(protocol, it.clone()).unwrap_err();
        let far = url(Modality::Audio, "https://x/a.wav");
        assert!(refused(Protocol::Chat, &far).contains("no URLs of sound"));
        assert!(refused(Protocol::Responses, &wav).contains("takes no sound"));
        assert!(refused(Protocol::Messages, &wav).contains("takes no sound"));
        assert!(refused(Protocol::Embeddings, &wav).contains("text only"));
        let bmp = bytes("a.bmp", b"BM");
        assert!(refused(Protocol::Messages, &bmp).contains("PNG, JPEG, GIF and WebP"));
        let not_taken = attach(Protocol::Messages, &[bytes("a.png", b"x"), wav]).unwrap_err();
        assert_eq!(not_taken.index, 1);
    }

    #[test]
    fn prompt_and_parts_stand_in_the_order_that_suits_the_protocol() {
        let said = |protocol, prompt: &str, attached: &[u8]| {
            let mut body = Vec::new();
            content(&mut body, protocol, prompt, attached);
            String::from_utf8(body).unwrap()
        };
        assert_eq!(said(Protocol::Chat, "a", b""), "\"a\"");
        assert_eq!(said(Protocol::Chat, "a", b"{}"), r#"[{"type":"text","text":"a"},{}]"#);
        assert_eq!(
            said(Protocol::Responses, "a", b"{}"),
            r#"[{"type":"input_text","text":"a"},{}]"#
        );
        assert_eq!(said(Protocol::Messages, "a", b"{}"), r#"[{},{"type":"text","text":"a"}]"#);
        assert_eq!(said(Protocol::Messages, "", b"{}"), "[{}]");
    }
}
