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
