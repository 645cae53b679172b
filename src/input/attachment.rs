//! What is attached to rows, read when a row is to be asked about: files and data URIs, each looked
//! at before it is sent anywhere.
//!
//! Files are read by whoever prepares a call, without a thread in between: most are smaller than what
//! the disk reads at once, and no read waits for anything but the disk, since pipes, devices and
//! directories are refused. Only images, sounds and PDFs are sent, whatever a row names.

use std::borrow::Cow;
use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{Source, Sources};
use crate::job::{
    Attachment, Dialect, Failure, FailureKind, JobSpec, MediaType, Payload, Reference, is_text,
};

/// What is attached to the rows of a job.
#[derive(Debug, Clone)]
pub struct Attachments {
    field: String,
    // What paths are relative to.
    base: PathBuf,
    // The most bytes of one row's.
    most: u64,
}

impl Attachments {
    /// The attachments of a job, by input; nothing where it has none. Paths are relative to the
    /// input's directory, or to the current one where the input is a copy of what came by a pipe.
    #[must_use]
    pub fn of(job: &JobSpec, sources: &Sources, is_spooled: bool) -> Vec<Self> {
        let of = |source: &Source| {
            let beside = source.path.parent().filter(|_| !is_spooled);
            Self::beside(job, beside.unwrap_or(Path::new("")))
        };
        sources.all().iter().filter_map(of).collect()
    }

    /// The attachments of a job whose rows come from a place; nothing where it has none.
    #[must_use]
    pub fn beside(job: &JobSpec, base: &Path) -> Option<Self> {
        let of_request = || (job.dialect == Dialect::OpenAi).then(|| "body.file_url".to_owned());
        let field = job.attachment_field.clone().or_else(of_request)?;
        Some(Self { field, base: base.to_owned(), most: job.max_attachment_bytes })
    }

    /// Reads all that a row names.
    ///
    /// # Errors
    /// [`FailureKind::Attachment`] with what is the matter with the first that cannot be sent.
    pub fn read(&self, named: &[String]) -> Result<Vec<Attachment>, Failure> {
        let mut left = self.most;
        let read = named.iter().map(|text| {
            let read = self.read_one(text, left).map_err(|reason| self.failure(text, &reason))?;
            if let Payload::Bytes(_, bytes) = &read.payload {
                left = left.saturating_sub(bytes.len() as u64);
            }
            Ok(read)
        });
        read.collect()
    }

    /// The file of sound that a request names, where it has it with it: in a data URI. Nothing of what is at a
    /// URL. Whatever it is, it is for the endpoint to take.
    ///
    /// # Errors
    /// [`FailureKind::Attachment`] when it cannot be read, or is too large.
    pub fn sound(&self, named: &str) -> Result<Option<Vec<u8>>, Failure> {
        let Reference::Data { is_base64, data, .. } = Reference::parse(named) else {
            return Ok(None);
        };
        let bytes = decode(data, is_base64).and_then(|bytes| match bytes.len() as u64 {
            0 => Err("it is empty".to_owned()),
            size if size > self.most => Err(self.too_large(Some(size))),
            _ => Ok(bytes),
        });
        bytes.map(Some).map_err(|reason| self.failure(named, &reason))
    }

    /// The failure of a row because of something that it names, in a sentence.
    #[must_use]
    pub fn failure(&self, named: &str, reason: &str) -> Failure {
        let (field, name) = (&self.field, Reference::parse(named).shown());
        let message = format!("field {field:?}: {name}: {reason}");
        Failure::new(FailureKind::Attachment, message)
    }

    fn read_one(&self, text: &str, left: u64) -> Result<Attachment, String> {
        let reference = Reference::parse(text);
        let bytes = match reference {
            Reference::Url(url) => {
                let (file_name, modality) = (file_name(url), reference.modality());
                let payload = Payload::Url(url.to_owned());
                return Ok(Attachment { file_name, modality, payload });
            }
            Reference::Elsewhere(url) => {
                let scheme = url.split("://").next().unwrap_or_default();
                let instead = match scheme.eq_ignore_ascii_case("file") {
                    true => "; name the path alone",
                    false => "",
                };
                return Err(format!(
                    "rowmill attaches files, http(s) URLs and data URIs, not what is at {scheme}://{instead}"
                ));
            }
            Reference::Data { is_base64, data, .. } => decode(data, is_base64)?,
            Reference::Path(path) => self.read_file(path, left)?,
        };
        match bytes.len() as u64 {
            0 => return Err("it is empty".to_owned()),
            size if size > left => return Err(self.too_large(Some(size))),
            _ => {}
        }
        // What it is counts, not what it is called.
        let media = match (MediaType::of_bytes(&bytes), reference) {
            (None, Reference::Path(_)) if is_text(&bytes) => None,
            (found, _) => found.or_else(|| reference.media()),
        };
        let media = media.ok_or("it is neither an image nor sound nor a PDF that rowmill knows")?;
        let file_name = match reference {
            Reference::Path(path) => file_name(path),
            _ => format!("attachment.{}", media.endings[0]),
        };
        let payload = Payload::Bytes(media, bytes);
        Ok(Attachment { file_name, modality: media.modality, payload })
    }

    fn read_file(&self, path: &str, left: u64) -> Result<Vec<u8>, String> {
        let (named, path) = (path, self.base.join(path));
        // Where it was looked for, if the name does not say that.
        let place = match path.as_os_str() == named {
            true => String::new(),
            false => format!(" (at {})", path.display()),
        };
        let told = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => format!("there is no such file{place}"),
            _ => format!("it cannot be read{place}: {error}"),
        };
        let is_file = |meta: &Metadata| match meta.is_file() {
            true => Ok(()),
            false => Err(format!("it is not a file{place}")),
        };
        // To open a device may do something to it.
        is_file(&std::fs::metadata(&path).map_err(told)?)?;
        // Whatever stands there by now: a pipe without a writer must not keep anyone waiting.
        let without_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(without_waiting).open(&path).map_err(told)?;
        let meta = file.metadata().map_err(told)?;
        is_file(&meta)?;
        if meta.len() > left {
            return Err(self.too_large(Some(meta.len())));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1);
        // It may have grown since.
        file.take(left.saturating_add(1)).read_to_end(&mut bytes).map_err(told)?;
        if bytes.len() as u64 > left { Err(self.too_large(None)) } else { Ok(bytes) }
    }

    fn too_large(&self, size: Option<u64>) -> String {
        let size = size.map_or_else(|| "more bytes".to_owned(), |size| format!("{size} bytes"));
        format!(
            "it has {size}; a row may have {} of attachments (--max-attachment-bytes)",
            self.most
        )
    }
}

/// The last part of a path.
fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The bytes of a data URI.
fn decode(data: &str, is_base64: bool) -> Result<Vec<u8>, String> {
    let bytes = unescape(data.as_bytes());
    if !is_base64 {
        return Ok(bytes.into_owned());
    }
    // Line ends and blanks mean nothing in base64, and the alphabet for URLs stands for the other.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    let text = match bytes.iter().all(plain) {
        true => bytes,
        false => {
            let rest = bytes.iter().filter(|byte| !byte.is_ascii_whitespace());
            let usual = rest.map(|byte| match byte {
                b'-' => b'+',
                b'_' => b'/',
                other => *other,
            });
            Cow::Owned(usual.collect())
        }
    };
    let padding = DecodePaddingMode::Indifferent;
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(padding);
    let engine = GeneralPurpose::new(&alphabet::STANDARD, config);
    engine.decode(&text).map_err(|error| format!("its base64 is broken: {error}"))
}

/// Percent-escapes as the bytes they stand for: <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>.
fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.get(at).and_then(|byte| (*byte as char).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(base: &Path, most: u64) -> Attachments {
        Attachments { field: "a".into(), base: base.to_owned(), most }
    }

    fn told(base: &Path, named: &str) -> String {
        match reader(base, 20).read(&[named.to_owned()]) {
            Ok(read) => match &read[0].payload {
                Payload::Bytes(media, bytes) => format!("{} {}", media.name, bytes.escape_ascii()),
                other => format!("{other:?}"),
            },
            Err(failure) => {
                assert_eq!(failure.kind, FailureKind::Attachment);
                failure.message.replace(&format!("{}/", base.display()), "")
            }
        }
    }

    #[test]
    fn what_a_row_names_is_read_and_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        std::fs::write(base.join("a.png"), b"\xff\xd8\xff.").unwrap();
        std::fs::write(base.join("b.wav"), b"...\0").unwrap();
        std::fs::write(base.join("c"), b"%PDF-1").unwrap();
        std::fs::write(base.join("passwd"), b"root:x").unwrap();
        std::fs::write(base.join("passwd.png"), b"root:x").unwrap();
        std::os::unix::fs::symlink("passwd", base.join("link.jpg")).unwrap();
        std::fs::write(base.join("empty.png"), b"").unwrap();
        std::fs::write(base.join("large.png"), [0; 21]).unwrap();
        std::fs::create_dir(base.join("dir.png")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, base.join("fifo.png"), fifo, mode, 0).unwrap();
        let told = |named: &str| told(base, named);
        assert_eq!(told("a.png"), r"image/jpeg \xff\xd8\xff.", "what it is counts");
        assert_eq!(told("b.wav"), r"audio/wav ...\x00");
        assert_eq!(told("c"), "application/pdf %PDF-1");
        assert_eq!(told(&format!("{}/c", base.display())), "application/pdf %PDF-1");
        let unknown = "it is neither an image nor sound nor a PDF that rowmill knows";
        assert_eq!(told("passwd"), format!("field \"a\": passwd: {unknown}"));
        for name in ["passwd.png", "link.jpg"] {
            assert_eq!(told(name), format!("field \"a\": {name}: {unknown}"), "it is text");
        }
        assert_eq!(told("x.png"), "field \"a\": x.png: there is no such file (at x.png)");
        assert_eq!(told("empty.png"), "field \"a\": empty.png: it is empty");
        let bound = "a row may have 20 of attachments (--max-attachment-bytes)";
        assert_eq!(told("large.png"), format!("field \"a\": large.png: it has 21 bytes; {bound}"));
        assert_eq!(told("dir.png"), "field \"a\": dir.png: it is not a file (at dir.png)");
        assert_eq!(told("fifo.png"), "field \"a\": fifo.png: it is not a file (at fifo.png)");
        assert!(told("/dev/zero").ends_with("/dev/zero: it is not a file"));
        assert!(told("x\0.png").contains("cannot be read"));
        assert!(told("s3://x/a.png").starts_with("field \"a\": s3://x/a.png: rowmill attaches"));
        assert!(told("s3://x/a.png").ends_with("not what is at s3://"));
        assert!(told("file:///x/a.png").starts_with("field \"a\": file:///x/a.png: rowmill"));
        assert!(told("FILE:///x/a.png").ends_with("not what is at FILE://; name the path alone"));
        let both = reader(base, 7).read(&["a.png".to_owned(), "b.wav".to_owned()]);
        assert!(both.unwrap_err().message.contains("b.wav: it has 4 bytes"), "of all together");
    }

    #[test]
    fn data_uris_are_decoded() {
        let base = Path::new("/nowhere");
        for (uri, expected) in [
            ("data:image/png;base64,AAEC", r"image/png \x00\x01\x02"),
            ("data:image/png;base64,//79", r"image/png \xff\xfe\xfd"),
            ("data:image/png;base64,__79", r"image/png \xff\xfe\xfd"),
            ("data:image/png;base64,%2F%2f79", r"image/png \xff\xfe\xfd"),
            ("data:image/png;base64,AA\r\nE", r"image/png \x00\x01"),
            ("data:image/png;base64,AAE=", r"image/png \x00\x01"),
            ("data:image/png,%00a%zz%", r"image/png \x00a%zz%"),
            ("data:,%25PDF-1", "application/pdf %PDF-1"),
        ] {
            assert_eq!(told(base, uri), expected, "{uri}");
        }
        for (uri, says) in [
            ("data:image/png;base64,A", "its base64 is broken"),
            ("data:image/png;base64,AA!A", "its base64 is broken"),
            ("data:image/png;base64,", "it is empty"),
            ("data:text/plain,hello", "neither an image nor sound nor a PDF"),
            ("data:image/png,123456789012345678901", "it has 21 bytes"),
        ] {
            assert!(told(base, uri).contains(says), "{}", told(base, uri));
        }
    }
}
