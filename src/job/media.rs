//! What is attached to a row besides its prompt: media types, how an attachment is named, and what a
//! model must be able to take in for it.

/// What a model must be able to take in to answer a row. The later ones are the more demanding: fewer
/// models take them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Modality {
    /// Words alone.
    #[default]
    Text,
    /// A picture.
    Image,
    /// A PDF.
    Document,
    /// Sound.
    Audio,
}

impl Modality {
    /// Its name, as catalogues of models have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Document => "document",
            Self::Audio => "audio",
        }
    }
}

/// A type of media that rowmill attaches.
#[derive(Debug, PartialEq, Eq)]
pub struct MediaType {
    /// Its name as IANA registers it (<https://www.iana.org/assignments/media-types>), or, of WAV, AAC
    /// and AIFF, as it is in use.
    pub name: &'static str,
    /// What a model must take in for it.
    pub modality: Modality,
    /// How files of it end; the first is also the word that Chat Completions has for a format of sound.
    pub endings: &'static [&'static str],
    /// Other names that are in use.
    pub aliases: &'static [&'static str],
}

const fn media(
    modality: Modality,
    name: &'static str,
    endings: &'static [&'static str],
    aliases: &'static [&'static str],
) -> MediaType {
    MediaType { name, modality, endings, aliases }
}

use Modality::{Audio, Document, Image};

/// All that rowmill attaches.
pub const MEDIA_TYPES: &[MediaType] = &[
    media(Image, "image/png", &["png", "apng"], &["image/x-png", "image/apng"]),
    media(Image, "image/jpeg", &["jpg", "jpeg", "jpe", "jfif"], &["image/jpg", "image/pjpeg"]),
    media(Image, "image/gif", &["gif"], &[]),
    media(Image, "image/webp", &["webp"], &[]),
    media(Image, "image/bmp", &["bmp"], &["image/x-ms-bmp", "image/x-bmp"]),
    media(Image, "image/tiff", &["tiff", "tif"], &[]),
    media(Image, "image/heic", &["heic"], &[]),
    media(Image, "image/heif", &["heif"], &[]),
    media(Image, "image/avif", &["avif"], &[]),
    media(Audio, "audio/wav", &["wav", "wave"], &["audio/x-wav", "audio/wave", "audio/vnd.wave"]),
    media(Audio, "audio/mpeg", &["mp3"], &["audio/mp3", "audio/x-mp3"]),
    media(Audio, "audio/flac", &["flac"], &["audio/x-flac"]),
    media(Audio, "audio/ogg", &["ogg", "oga", "opus"], &["audio/opus", "audio/vorbis"]),
    media(Audio, "audio/mp4", &["m4a"], &["audio/m4a", "audio/x-m4a"]),
    media(Audio, "audio/aac", &["aac"], &["audio/x-aac", "audio/aacp"]),
    media(Audio, "audio/aiff", &["aiff", "aif", "aifc"], &["audio/x-aiff"]),
    media(Document, "application/pdf", &["pdf"], &["application/x-pdf"]),
];

impl MediaType {
    /// The type of a name, or of another in use for it.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        let is = |it: &str| it.eq_ignore_ascii_case(name);
        MEDIA_TYPES.iter().find(|it| is(it.name) || it.aliases.iter().any(|alias| is(alias)))
    }

    /// The type of files whose name ends so, without the dot.
    #[must_use]
    pub fn ending_in(ending: &str) -> Option<&'static Self> {
        MEDIA_TYPES
            .iter()
            .find(|it| it.endings.iter().any(|known| known.eq_ignore_ascii_case(ending)))
    }

    /// The type that bytes show themselves to be of: <https://mimesniff.spec.whatwg.org>, and for
    /// what is not there RFC 9639 (FLAC), RFC 3533 (Ogg), ISO 14496-12 (brands), ISO 13818-7 (AAC).
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<&'static Self> {
        const BEGINNINGS: &[(&[u8], &str)] = &[
            (b"\x89PNG\r\n\x1a\n", "image/png"),
            (b"\xff\xd8\xff", "image/jpeg"),
            (b"GIF87a", "image/gif"),
            (b"GIF89a", "image/gif"),
            (b"II*\0", "image/tiff"),
            (b"MM\0*", "image/tiff"),
            (b"ID3", "audio/mpeg"),
            (b"fLaC", "audio/flac"),
            (b"OggS", "audio/ogg"),
            (b"%PDF-", "application/pdf"),
        ];
        let inner = |at: usize| bytes.get(at..at + 4).unwrap_or_default();
        let name = match (inner(0), inner(8)) {
            (b"RIFF", b"WEBP") => "image/webp",
            (b"RIFF", b"WAVE") => "audio/wav",
            (b"FORM", b"AIFF" | b"AIFC") => "audio/aiff",
            (_, brand) if inner(4) == b"ftyp" => match brand {
                b"heic" | b"heix" | b"heim" | b"heis" => "image/heic",
                b"mif1" | b"msf1" => "image/heif",
                b"avif" | b"avis" => "image/avif",
                b"M4A " | b"M4B " => "audio/mp4",
                _ => return None,
            },
            // A frame of layer III, and one of AAC in ADTS.
            ([0xff, second, ..], _) if second & 0xe6 == 0xe2 => "audio/mpeg",
            ([0xff, second, ..], _) if second & 0xf6 == 0xf0 => "audio/aac",
            _ => BEGINNINGS.iter().find(|(begin, _)| bytes.starts_with(begin))?.1,
        };
        Self::named(name)
    }
}

/// Whether bytes are plainly text, so that they are nothing that rowmill attaches, whatever their name says: as a
/// browser tells it (<https://mimesniff.spec.whatwg.org/#sniffing-a-mislabeled-binary-resource>), from the mark
/// of UTF-16 or that no byte at their beginning is one that only binary data has. A PDF may have some text before
/// its own beginning, within the first kibibyte (ISO 32000, annex H).
#[must_use]
pub fn is_text(bytes: &[u8]) -> bool {
    const LOOKED_AT: usize = 1445;
    let begin = &bytes[..bytes.len().min(LOOKED_AT)];
    let is_binary = |byte: &u8| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    let is_marked = begin.starts_with(b"\xfe\xff") || begin.starts_with(b"\xff\xfe");
    let is_pdf = || memchr::memmem::find(&begin[..begin.len().min(1024)], b"%PDF-").is_some();
    is_marked || !begin.iter().any(is_binary) && !is_pdf()
}

/// How a row names what is attached to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A file.
    Path(&'a str),
    /// A place on the web, which the endpoint fetches.
    Url(&'a str),
    /// The thing itself, as a data URI: <https://www.rfc-editor.org/rfc/rfc2397>.
    Data {
        /// Its media type, as it is written; empty where there is none.
        media: &'a str,
        /// Whether its data is base64.
        is_base64: bool,
        /// Its data, with whatever escapes it has.
        data: &'a str,
    },
    /// A place that rowmill does not know the way to, as a URL.
    Elsewhere(&'a str),
}

impl<'a> Reference<'a> {
    /// What a text names. Nothing is looked at but the text.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme).filter(|it| is_scheme(it));
        let rest = scheme.map_or("", |scheme| &text[scheme.len() + 1..]);
        match scheme {
            Some(scheme) if scheme.eq_ignore_ascii_case("data") => {
                let (head, data) = rest.split_once(',').unwrap_or((rest, ""));
                let (media, is_base64) = match head.rsplit_once(';') {
                    Some((before, last)) if last.trim().eq_ignore_ascii_case("base64") => {
                        (before, true)
                    }
                    _ => (head, false),
                };
                let media = media.split(';').next().unwrap_or_default().trim();
                Self::Data { media, is_base64, data }
            }
            Some(scheme) if rest.starts_with("//") => {
                let is_web = ["http", "https"].iter().any(|web| web.eq_ignore_ascii_case(scheme));
                if is_web { Self::Url(text) } else { Self::Elsewhere(text) }
            }
            _ => Self::Path(text),
        }
    }

    /// The media type that its name tells: a file's by its ending, a URL's by that of its path, a data
    /// URI's by its own word.
    #[must_use]
    pub fn media(self) -> Option<&'static MediaType> {
        let by_ending = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.rsplit_once('.').and_then(|(_, ending)| MediaType::ending_in(ending))
        };
        match self {
            Self::Path(path) => by_ending(path),
            Self::Url(url) => {
                let end = url.find(['?', '#']).unwrap_or(url.len());
                let (_, behind) = url[..end].split_once("://")?;
                by_ending(&behind[behind.find('/')?..])
            }
            Self::Data { media, .. } => MediaType::named(media),
            Self::Elsewhere(_) => None,
        }
    }

    /// What a model must take in for it, as far as its name tells; the bytes of a file may tell
    /// otherwise once they are read. What tells nothing is taken for an image: addresses of images
    /// often have no ending.
    #[must_use]
    pub fn modality(self) -> Modality {
        self.media().map_or(Modality::Image, |media| media.modality)
    }

    /// How messages name it: as the row does, but not with all of its data.
    #[must_use]
    pub fn shown(self) -> String {
        const LONGEST: usize = 200;
        match self {
            Self::Data { media: "", .. } => "a data URI".to_owned(),
            Self::Data { media, .. } => format!("a data URI of {}", cut(media, LONGEST)),
            Self::Path(text) | Self::Url(text) | Self::Elsewhere(text) => cut(text, LONGEST),
        }
    }
}

/// A text, or its beginning and an ellipsis.
fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether a word can be the scheme of a URI. One letter is none: it may be a drive.
fn is_scheme(word: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    word.len() > 1
        && word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.bytes().all(is_part)
}

/// Something that is attached to a row, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The name of its file, for protocols that want one.
    pub file_name: String,
    /// What a model must take in for it.
    pub modality: Modality,
    /// What is sent.
    pub payload: Payload,
}

/// What is sent of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Its bytes.
    Bytes(&'static MediaType, Vec<u8>),
    /// How many bytes it has, in the place of them: for people who look at a request.
    Length(&'static MediaType, usize),
    /// Where the endpoint finds it.
    Url(String),
}

impl Attachment {
    /// The same without its bytes, for people.
    #[must_use]
    pub fn described(self) -> Self {
        let payload = match self.payload {
            Payload::Bytes(media, bytes) => Payload::Length(media, bytes.len()),
            other => other,
        };
        Self { payload, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> (Option<&'static str>, &'static str) {
        let reference = Reference::parse(text);
        (reference.media().map(|media| media.name), reference.modality().name())
    }

    #[test]
    fn a_name_tells_what_is_attached() {
        for (text, media, modality) in [
            ("photos/a.PNG", Some("image/png"), "image"),
            ("a.jpeg", Some("image/jpeg"), "image"),
            ("/x/y z.pdf", Some("application/pdf"), "document"),
            ("a.b/c.wav", Some("audio/wav"), "audio"),
            ("C:\\x.mp3", Some("audio/mpeg"), "audio"),
            ("12:30.opus", Some("audio/ogg"), "audio"),
            ("a.png/b", None, "image"),
            ("https://x.pdf", None, "image"),
            ("https://x.org/a.pdf?b=c.png#d.gif", Some("application/pdf"), "document"),
            ("HTTP://x.org/a.b/sound.mp3", Some("audio/mpeg"), "audio"),
            ("https://x.org/render.php?id=1", None, "image"),
            ("data:image/JPG;base64,AAAA", Some("image/jpeg"), "image"),
            ("DATA:audio/x-wav;x=y;base64,AAAA", Some("audio/wav"), "audio"),
            ("data:,hello.pdf", None, "image"),
            ("s3://bucket/a.pdf", None, "image"),
        ] {
            assert_eq!(told(text), (media, modality), "{text}");
        }
    }

    #[test]
    fn data_uris_are_taken_apart() {
        let data = |media, is_base64, data| Reference::Data { media, is_base64, data };
        for (text, expected) in [
            ("data:image/png;base64,AA,=", data("image/png", true, "AA,=")),
            ("data:image/png;a=b;BASE64,", data("image/png", true, "")),
            ("data:text/plain;charset=utf-8,a%20b", data("text/plain", false, "a%20b")),
            ("data:;base64,AA", data("", true, "AA")),
            ("data:image/png", data("image/png", false, "")),
            ("file:///a.png", Reference::Elsewhere("file:///a.png")),
            ("note:a.png", Reference::Path("note:a.png")),
            ("https:a.png", Reference::Path("https:a.png")),
            ("://x", Reference::Path("://x")),
            ("", Reference::Path("")),
        ] {
            assert_eq!(Reference::parse(text), expected, "{text}");
        }
        let long = format!("data:{}", "é".repeat(1000));
        assert!(Reference::parse(&long).shown().len() < 500);
    }

    #[test]
    fn bytes_tell_what_they_are() {
        for (bytes, name) in [
            (&b"\x89PNG\r\n\x1a\n...."[..], Some("image/png")),
            (b"\xff\xd8\xff\xe0", Some("image/jpeg")),
            (b"GIF89a", Some("image/gif")),
            (b"RIFF....WEBPVP8 ", Some("image/webp")),
            (b"RIFF....WAVEfmt ", Some("audio/wav")),
            (b"RIFF....AVI ", None),
            (b"....ftypheic", Some("image/heic")),
            (b"....ftypM4A ", Some("audio/mp4")),
            (b"....ftypisom", None),
            (b"\xff\xfb\x90\x00", Some("audio/mpeg")),
            (b"\xff\xf1\x50\x80", Some("audio/aac")),
            (b"\xff\xfeh\0", None),
            (b"ID3\x03", Some("audio/mpeg")),
            (b"%PDF-1.4", Some("application/pdf")),
            (b"<html>", None),
            (b"", None),
            (b"\xff", None),
        ] {
            let found = MediaType::of_bytes(bytes).map(|media| media.name);
            assert_eq!(found, name, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn text_is_told_from_what_is_binary() {
        for text in ["", "root:x:0:0\n", "caf\u{e9}\t\x1b[0m", "<svg/>", "BM of something"] {
            assert!(is_text(text.as_bytes()), "{text:?}");
        }
        assert!(is_text(b"\xff\xfeh\0i\0"), "UTF-16");
        assert!(is_text(&[b"x".repeat(1445), vec![0]].concat()), "its beginning counts");
        for binary in [&b"BM\x36\0\0\0"[..], b"II+\0", b"\n%PDF-1.4\n", b"....ftypmp42\0\0\0\0"] {
            assert!(!is_text(binary), "{}", binary.escape_ascii());
        }
    }

    #[test]
    fn no_name_or_ending_stands_for_two_types() {
        let mut seen = std::collections::HashSet::new();
        for media in MEDIA_TYPES {
            for word in media.endings.iter().chain(media.aliases).chain([&media.name]) {
                assert!(seen.insert(word), "{word}");
                assert_eq!(*word, word.to_ascii_lowercase());
            }
            assert_eq!(MediaType::named(&media.name.to_uppercase()), Some(media));
        }
    }

    #[test]
    fn the_more_demanding_counts() {
        let most = [Modality::Image, Modality::Audio, Modality::Text].into_iter().max();
        assert_eq!(most, Some(Modality::Audio));
        assert_eq!(Modality::default(), Modality::Text);
    }
}
