//! Images that lines name by path, put into the lines as data URIs.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::edit::{Edit, range_of};
use crate::dialect::members;
use crate::format::json::Object;
use crate::job::MediaType;

/// The largest image that is taken, in bytes.
const LARGEST: u64 = 64 << 20;

/// The changes that put a line's images into it. Looked at are the parts `image_url` of Chat Completions and `input_image`
/// of Responses; URLs and data URIs stay as they are.
///
/// # Errors
/// When an image cannot be read, or is none that is known.
pub(super) fn edits(line: &str, base: &Path) -> Result<Vec<Edit>, String> {
    let mut edits = Vec::new();
    let parse = |text| Object::parse(text).map_err(|error| error.to_string());
    let Some(body) = parse(line)?.get("body").filter(|body| body.starts_with('{')) else {
        return Ok(edits);
    };
    let body = parse(body)?;
    for list in ["messages", "input"].into_iter().filter_map(|name| body.get(name)) {
        for message in members(list).into_iter().filter_map(|text| Object::parse(text).ok()) {
            let parts = members(message.get("content").unwrap_or_default());
            for part in parts.into_iter().filter_map(|text| Object::parse(text).ok()) {
                let Some(token) = place_of(&part) else { continue };
                let url: String = serde_json::from_str(token).map_err(|error| error.to_string())?;
                if let Some(path) = path_of(&url, base) {
                    let with = format!("\"{}\"", data_uri(&path)?);
                    edits.push(Edit { range: range_of(line, token), with });
                }
            }
        }
    }
    Ok(edits)
}

/// The token that says where the image of a part is.
fn place_of<'a>(part: &Object<'a>) -> Option<&'a str> {
    let place = match part.get("type") {
        Some("\"image_url\"" | "\"input_image\"") => part.get("image_url")?,
        _ => return None,
    };
    if place.starts_with('{') {
        return Object::parse(place).ok()?.get("url").filter(|url| url.starts_with('"'));
    }
    Some(place).filter(|place| place.starts_with('"'))
}

/// The file that is meant; nothing for a URL of another kind.
fn path_of(url: &str, base: &Path) -> Option<PathBuf> {
    if let Some(path) = url.strip_prefix("file://") {
        return Some(PathBuf::from(unescaped(path)));
    }
    let is_url = url.starts_with("data:") || url.contains("://");
    (!is_url).then(|| base.join(url))
}

/// A path of a `file:` URL, with its percent escapes replaced.
fn unescaped(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn data_uri(path: &Path) -> Result<String, String> {
    let failed = |error| format!("cannot read the image {}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("the image {} has more than {LARGEST} bytes", path.display()));
    }
    let Some(media_type) = media_type(&bytes, path) else {
        return Err(format!("{} is no PNG, JPEG, GIF, WebP or SVG", path.display()));
    };
    Ok(format!("data:{media_type};base64,{}", STANDARD.encode(bytes)))
}

/// What an image is, by its first bytes; SVG is text, and known by its name.
fn media_type(bytes: &[u8], path: &Path) -> Option<&'static str> {
    // What servers take that take images.
    const TAKEN: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
    let is_svg = path.extension().is_some_and(|it| it.eq_ignore_ascii_case("svg"));
    match MediaType::of_bytes(bytes) {
        Some(media) => Some(media.name).filter(|name| TAKEN.contains(name)),
        None => is_svg.then_some("image/svg+xml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::prepare::edit::splice;

    #[test]
    fn paths_become_data_and_urls_stay() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a b.png"), b"\x89PNG\r\n\x1a\n\x00").unwrap();
        std::fs::write(dir.path().join("j.png"), b"\xff\xd8\xff\xe0").unwrap();
        std::fs::write(dir.path().join("text.png"), b"no image").unwrap();
        let base = dir.path();
        let file = format!("file://{}/a%20b.png", base.display());
        let line = |url: &str| {
            format!(
                r#"{{"body":{{"messages":[{{"content":"x"}},{{"content":[{{"type":"text","text":"t"}},{{"type":"image_url","image_url":{{"url": {url} ,"detail":"low"}}}}]}}]}}}}"#
            )
        };
        let done = |url: &str| {
            let line = line(url);
            edits(&line, base).map(|edits| splice(&line, edits))
        };
        let png = r#""data:image/png;base64,iVBORw0KGgoA""#;
        assert_eq!(done(r#""a b.png""#), Ok(line(png)));
        assert_eq!(done(&format!("{file:?}")), Ok(line(png)));
        let jpeg = done(r#""j.png""#).unwrap();
        assert!(jpeg.contains("data:image/jpeg;base64,/9j/4A=="), "by its bytes: {jpeg}");
        for url in [r#""https://host/a.png""#, r#""data:image/png;base64,AA==""#] {
            assert_eq!(done(url), Ok(line(url)));
        }
        assert!(done(r#""gone.png""#).unwrap_err().contains("gone.png"));
        assert!(done(r#""text.png""#).unwrap_err().contains("is no PNG"));
        let responses =
            r#"{"body":{"input":[{"content":[{"type":"input_image","image_url":"j.png"}]}]}}"#;
        assert_eq!(edits(responses, base).unwrap().len(), 1);
        assert_eq!(edits(r#"{"body":7}"#, base), Ok(Vec::new()));
    }
}
