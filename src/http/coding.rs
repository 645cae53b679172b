//! Bodies that come compressed though nobody asked for it.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::header::{self, HeaderMap};

use super::Error;

/// Why a body cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CodingError {
    /// Its coding is not known.
    Unknown(String),
    /// It is not what its coding says.
    Broken(String),
    /// It grows beyond its bounds.
    TooLarge,
}

/// How many times its size a compressed body may grow, above [`SMALL`] bytes: text grows a few times,
/// and only what is meant to do harm a thousand times.
const GROWTH: usize = 200;
const SMALL: usize = 1 << 20;
/// How many codings are taken off.
const CODINGS: usize = 3;

impl CodingError {
    /// The error of an answer from a host, which may have so many bytes.
    pub(super) fn of_answer(self, authority: String, limit: usize) -> Error {
        let reason = match self {
            Self::TooLarge => return Error::TooLarge { authority, limit },
            Self::Unknown(coding) => format!(
                "is coded in {coding:?}, which was not asked for and cannot be read: turn \
                 compression off at the endpoint, or at the gateway before it"
            ),
            Self::Broken(coding) => format!("says that it is coded in {coding:?}, and is not"),
        };
        Error::Coded { authority, reason }
    }
}

/// Whether a body is coded.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_ENCODING)
}

/// A body without the codings that its head names, up to `limit` bytes.
pub(super) fn decode(headers: &HeaderMap, body: Bytes, limit: usize) -> Result<Bytes, CodingError> {
    if !is_coded(headers) || body.is_empty() {
        return Ok(body);
    }
    let named = headers.get_all(header::CONTENT_ENCODING).iter();
    let named: Vec<_> = named.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let codings =
        named.iter().flat_map(|it| it.split(',')).map(|it| it.trim().to_ascii_lowercase());
    let codings: Vec<_> = codings.filter(|it| !it.is_empty() && it != "identity").collect();
    if codings.len() > CODINGS {
        return Err(CodingError::Unknown(codings.join(", ")));
    }
    let mut body = body;
    // The last was put on last.
    for coding in codings.into_iter().rev() {
        body = decode_one(coding, body, limit)?;
    }
    Ok(body)
}

fn decode_one(coding: String, body: Bytes, limit: usize) -> Result<Bytes, CodingError> {
    // A gateway may have decoded it and left the header.
    let is_plain = body.trim_ascii_start().starts_with(b"{");
    let is_zlib = |body: &[u8]| {
        matches!(body, [first, second, ..]
            if first & 15 == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0)
    };
    match coding.as_str() {
        "gzip" | "x-gzip" if body.starts_with(&[0x1f, 0x8b]) => {
            inflate(MultiGzDecoder::new(&body[..]), coding, body.len(), limit)
        }
        "deflate" if is_zlib(&body) => {
            inflate(ZlibDecoder::new(&body[..]), coding, body.len(), limit)
        }
        _ if is_plain => Ok(body),
        // Some send it without its frame.
        "deflate" => inflate(DeflateDecoder::new(&body[..]), coding, body.len(), limit),
        "gzip" | "x-gzip" => Err(CodingError::Broken(coding)),
        _ => Err(CodingError::Unknown(coding)),
    }
}

fn inflate(
    reader: impl Read,
    coding: String,
    size: usize,
    limit: usize,
) -> Result<Bytes, CodingError> {
    let limit = limit.min(size.saturating_mul(GROWTH).max(SMALL));
    let mut out = Vec::new();
    let most = (limit as u64).saturating_add(1);
    let read = reader.take(most).read_to_end(&mut out);
    read.map_err(|_| CodingError::Broken(coding))?;
    if out.len() > limit { Err(CodingError::TooLarge) } else { Ok(Bytes::from(out)) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use hyper::header::HeaderValue;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(coding: &str, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, CodingError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_str(coding).unwrap());
        decode(&headers, Bytes::from(body), limit).map(|body| body.to_vec())
    }

    #[test]
    fn compressed_body_is_decoded() {
        let text = b"{\"answer\":1}";
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(text).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(text).unwrap();
        for (coding, body) in [
            ("gzip", gzip(text)),
            ("X-GZIP", gzip(text)),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
            ("gzip, gzip", gzip(&gzip(text))),
            ("identity", text.to_vec()),
            // Decoded on the way by somebody who left the header.
            ("gzip", text.to_vec()),
            ("br", text.to_vec()),
            ("", text.to_vec()),
        ] {
            assert_eq!(decoded(coding, body, 99).unwrap(), text, "{coding}");
        }
    }

    #[test]
    fn body_that_cannot_be_decoded_is_an_error() {
        assert_eq!(decoded("zstd", vec![40, 181], 99), Err(CodingError::Unknown("zstd".into())));
        let mut cut = gzip(b"0123456789");
        cut.truncate(15);
        for body in [cut, b"nothing".to_vec()] {
            assert_eq!(decoded("gzip", body, 99), Err(CodingError::Broken("gzip".into())));
        }
        assert!(matches!(decoded("gzip,gzip,gzip,gzip", vec![1], 9), Err(CodingError::Unknown(_))));
    }

    #[test]
    fn decoded_body_is_bounded() {
        let bomb = gzip(&vec![b' '; 8 << 20]);
        assert!(bomb.len() < 16 << 10);
        assert_eq!(decoded("gzip", bomb.clone(), 1 << 30), Err(CodingError::TooLarge));
        assert_eq!(decoded("gzip", bomb, 4096), Err(CodingError::TooLarge));
        assert_eq!(decoded("gzip", gzip(b"12345"), 5).unwrap(), b"12345");
    }
}
