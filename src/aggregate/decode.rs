//! Undoes the content coding of an upstream's answer (RFC 9110 §8.4), within bounds.
//!
//! A few bytes can stand for gigabytes, so there are two bounds, both kept while decoding and not after it: the size of the
//! result, and its ratio to what was sent. Deflate reaches 1032:1 and Brotli far more; answers in JSON reach 5:1 to 30:1,
//! lists of nearly equal objects a little more. [`MAX_RATIO`] is beyond any answer that means something, and holds only
//! above [`RATIO_FREE`] bytes, since a small body of repetitions is honest and harms nobody.

use std::io::Read as _;

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, HeapAlloc, HuffmanCode};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

use crate::telemetry::Reason;

/// Bytes of output for each byte of input.
pub const MAX_RATIO: u64 = 100;
/// Output up to which the ratio does not count.
pub const RATIO_FREE: u64 = 64 * 1024;
const PIECE: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// A coding that was not asked for.
    Unknown,
    /// Broken, cut short, or with something behind its end.
    Broken,
    /// More than the source's limit.
    TooLarge,
    /// Much more than was sent: a decompression bomb.
    Ratio,
}

impl DecodeError {
    pub const fn reason(self) -> Reason {
        match self {
            DecodeError::Unknown | DecodeError::Broken => Reason::UpstreamBadBody,
            DecodeError::TooLarge | DecodeError::Ratio => Reason::UpstreamTooLarge,
        }
    }
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DecodeError::Unknown => "the content coding is neither gzip nor br",
            DecodeError::Broken => "the compressed body is broken",
            DecodeError::TooLarge => "the decompressed body is larger than allowed",
            DecodeError::Ratio => "the body grows more than a hundredfold when it is decompressed",
        })
    }
}

impl std::error::Error for DecodeError {}

/// The content of a body. `encoding` is the value of `Content-Encoding`; more than one coding is not understood.
pub fn decode(encoding: Option<&str>, body: Bytes, max_bytes: u64) -> Result<Bytes, DecodeError> {
    let encoding = encoding.unwrap_or_default().trim().to_ascii_lowercase();
    let bound = Bound { max_bytes, sent: body.len() as u64 };
    match encoding.as_str() {
        "" | "identity" => bound.check(body.len()).map(|()| body),
        // Nothing was compressed, as happens with answers that have no content.
        "gzip" | "x-gzip" | "br" if body.is_empty() => Ok(body),
        "gzip" | "x-gzip" => gunzip(&body, bound),
        "br" => unbrotli(&body, bound),
        _ => Err(DecodeError::Unknown),
    }
}

#[derive(Clone, Copy)]
struct Bound {
    max_bytes: u64,
    sent: u64,
}

impl Bound {
    fn check(self, so_far: usize) -> Result<(), DecodeError> {
        let so_far = so_far as u64;
        if so_far > self.max_bytes {
            return Err(DecodeError::TooLarge);
        }
        if so_far > RATIO_FREE && so_far > self.sent.saturating_mul(MAX_RATIO) {
            return Err(DecodeError::Ratio);
        }
        Ok(())
    }
}

/// Several members behind each other are one body (RFC 1952 §2.2).
fn gunzip(body: &[u8], bound: Bound) -> Result<Bytes, DecodeError> {
    let mut decoder = MultiGzDecoder::new(body);
    let mut out = Vec::new();
    let mut piece = [0; PIECE];
    loop {
        let taken = decoder.read(&mut piece).map_err(|_| DecodeError::Broken)?;
        if taken == 0 {
            return Ok(out.into());
        }
        out.extend_from_slice(&piece[..taken]);
        bound.check(out.len())?;
    }
}

/// "Strict" is without the large windows that RFC 7932 does not know, which let a stream ask for a gigabyte of memory.
fn unbrotli(body: &[u8], bound: Bound) -> Result<Bytes, DecodeError> {
    let mut state = BrotliState::new_strict(
        HeapAlloc::<u8>::new(0),
        HeapAlloc::<u32>::new(0),
        HeapAlloc::<HuffmanCode>::new(HuffmanCode::default()),
    );
    let (mut left, mut at, mut total) = (body.len(), 0, 0);
    let mut out = Vec::new();
    let mut piece = [0; PIECE];
    loop {
        let (mut room, mut taken) = (PIECE, 0);
        let result =
            BrotliDecompressStream(&mut left, &mut at, body, &mut room, &mut taken, &mut piece, &mut total, &mut state);
        out.extend_from_slice(&piece[..taken]);
        bound.check(out.len())?;
        match result {
            BrotliResult::ResultSuccess if left == 0 => return Ok(out.into()),
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess | BrotliResult::NeedsMoreInput | BrotliResult::ResultFailure => {
                return Err(DecodeError::Broken);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use proptest::prelude::*;

    const PLENTY: u64 = 1 << 30;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).expect("memory");
        encoder.finish().expect("memory")
    }

    fn br(content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        brotli::CompressorWriter::new(&mut out, 4096, 5, 22).write_all(content).expect("memory");
        out
    }

    fn decoded(encoding: &str, body: &[u8], max_bytes: u64) -> Result<Vec<u8>, DecodeError> {
        decode(Some(encoding), Bytes::copy_from_slice(body), max_bytes).map(|content| content.to_vec())
    }

    /// Something that compresses about as well as an answer does.
    fn answer() -> Vec<u8> {
        let users = (0..20_000u64)
            .map(|id| format!("{{\"id\":{},\"name\":\"user {id}\"}}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        format!("[{}]", users.collect::<Vec<_>>().join(",")).into_bytes()
    }

    #[test]
    fn both_codings_are_undone() {
        let answer = answer();

        assert_eq!(decoded("gzip", &gzip(&answer), PLENTY).as_ref(), Ok(&answer));
        assert_eq!(decoded(" X-GZip ", &gzip(&answer), PLENTY).as_ref(), Ok(&answer));
        assert_eq!(decoded("br", &br(&answer), PLENTY).as_ref(), Ok(&answer));
        assert_eq!(decoded("identity", &answer, PLENTY).as_ref(), Ok(&answer));
        let two = [gzip(b"ab"), gzip(b""), gzip(b"c")].concat();
        assert_eq!(decoded("gzip", &two, PLENTY).as_deref(), Ok(&b"abc"[..]));
    }

    #[test]
    fn what_was_not_compressed_is_not_copied() {
        let body = Bytes::from_static(b"plain");

        assert_eq!(decode(None, body.clone(), 5).map(|same| same.as_ptr()), Ok(body.as_ptr()));
        assert_eq!(decode(None, body, 4), Err(DecodeError::TooLarge));
    }

    #[test]
    fn an_empty_body_is_empty_in_every_coding() {
        for (encoding, compressed) in [("identity", vec![]), ("gzip", gzip(b"")), ("br", br(b""))] {
            assert_eq!(decoded(encoding, b"", 0), Ok(vec![]), "{encoding}");
            assert_eq!(decoded(encoding, &compressed, 0), Ok(vec![]), "{encoding}");
        }
    }

    #[test]
    fn other_codings_are_refused() {
        for encoding in ["deflate", "zstd", "gzip, br", "gzip,gzip", "chunked"] {
            assert_eq!(decoded(encoding, b"x", PLENTY), Err(DecodeError::Unknown), "{encoding}");
        }
    }

    #[test]
    fn a_body_that_is_cut_short_is_broken_wherever_it_is_cut() {
        for (encoding, whole) in [("gzip", gzip(&answer()[..3000])), ("br", br(&answer()[..3000]))] {
            for length in 1..whole.len() {
                assert_eq!(
                    decoded(encoding, &whole[..length], PLENTY),
                    Err(DecodeError::Broken),
                    "{encoding} {length}"
                );
            }
        }
    }

    #[test]
    fn what_follows_the_end_is_broken() {
        for (encoding, whole) in [("gzip", gzip(b"content")), ("br", br(b"content"))] {
            for tail in [&b"\0"[..], b"trailing garbage", b"\x1f\x8b"] {
                let body = [&whole[..], tail].concat();
                assert_eq!(decoded(encoding, &body, PLENTY), Err(DecodeError::Broken), "{encoding}");
            }
        }
    }

    #[test]
    fn a_changed_byte_is_noticed_by_gzip() {
        let mut body = gzip(&answer()[..3000]);
        let checksum = body.len() - 6;
        body[checksum] ^= 1;

        assert_eq!(decoded("gzip", &body, PLENTY), Err(DecodeError::Broken));
    }

    #[test]
    fn the_limit_is_the_size_after_decompression() {
        let content = &answer()[..100_000];
        for (encoding, body) in [("gzip", gzip(content)), ("br", br(content))] {
            assert!(decoded(encoding, &body, 100_000).is_ok(), "{encoding}");
            assert_eq!(decoded(encoding, &body, 99_999), Err(DecodeError::TooLarge), "{encoding}");
        }
    }

    #[test]
    fn bombs_are_noticed_long_before_their_end() {
        let zeros = vec![0; 64 << 20];
        for (encoding, body) in [("gzip", gzip(&zeros)), ("br", br(&zeros))] {
            assert_eq!(decoded(encoding, &body, PLENTY), Err(DecodeError::Ratio), "{encoding}");
        }
        let layered = gzip(&gzip(&zeros));
        assert!(decoded("gzip", &layered, PLENTY).is_ok(), "one layer is undone, once");
    }

    #[test]
    fn small_repetitions_are_no_bomb() {
        let content = vec![b' '; RATIO_FREE as usize];
        assert_eq!(decoded("gzip", &gzip(&content), PLENTY).as_ref(), Ok(&content));
        assert_eq!(decoded("br", &br(&content), PLENTY).as_ref(), Ok(&content));
    }

    #[test]
    fn a_large_brotli_window_is_refused() {
        // The first byte of the large window extension: WBITS 0b0010001, which RFC 7932 reserves.
        assert_eq!(decoded("br", &[0x11, 0x1e, 0x00, 0x03], PLENTY), Err(DecodeError::Broken));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            for encoding in ["gzip", "br"] {
                let _ = decoded(encoding, &body, 1 << 20);
            }
        }
    }
}
