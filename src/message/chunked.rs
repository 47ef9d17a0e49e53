//! The chunked coding of HTTP/1.1 (RFC 9112 §7.1): a strict incremental decoder, and the encoder.
//!
//! The decoder sees bytes as they come and says which of them are data; it copies nothing but trailers. Lines end in CRLF
//! and in nothing else, sizes are plain hexadecimal digits: the chunk size is read by every server on the way, and where
//! two of them read it differently, a request can be hidden in a body.

use std::ops::Range;

use super::head::rules::{is_name, is_value_byte};
use super::head::{Fields, Known};
use super::hop::may_be_trailer;

/// Sixteen digits hold every 64-bit length.
const MAX_SIZE_DIGITS: u8 = 16;
/// Chunk extensions are passed over; nobody uses them, and some 16 KiB per body is more than enough.
const MAX_EXTENSION_BYTES: u32 = 16 * 1024;
const MAX_TRAILER_BYTES: usize = 16 * 1024;
const MAX_TRAILERS: usize = 64;

/// What is wrong with a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkError {
    Size,
    LineEnd,
    Extension,
    Trailer,
    /// Extensions or trailers beyond their bound.
    TooLarge,
}

impl ChunkError {
    pub const fn detail(self) -> &'static str {
        match self {
            ChunkError::Size => "a chunk size is not a plain hexadecimal number",
            ChunkError::LineEnd => "a line of the chunked coding does not end in CRLF",
            ChunkError::Extension => "a chunk extension holds a control character",
            ChunkError::Trailer => "a trailer field is not valid",
            ChunkError::TooLarge => "chunk extensions or trailers are larger than allowed",
        }
    }
}

impl std::fmt::Display for ChunkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for ChunkError {}

/// What one call to [`Decoder::decode`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with, data included.
    pub consumed: usize,
    /// Where body data lies in the input; empty when there was none.
    pub data: Range<usize>,
    /// The body and its trailers are complete; what follows belongs to the next message.
    pub done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Inside a chunk size, with the number of digits so far.
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        size: u64,
    },
    /// After the CR of a size line.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// Inside the line of a trailer, or at its beginning.
    Trailer,
    TrailerLf,
    Done,
}

/// Decodes one chunked body.
#[derive(Debug, Clone)]
pub struct Decoder {
    state: State,
    extension_bytes: u32,
    trailer_bytes: usize,
    /// The trailer line being read.
    line: Vec<u8>,
    trailers: Fields,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            state: State::Size { digits: 0, size: 0 },
            extension_bytes: 0,
            trailer_bytes: 0,
            line: Vec::new(),
            trailers: Fields::default(),
        }
    }
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on. Stops behind the first run of data, at the end of the body, or at the end of the input; call again with
    /// what is left until `consumed` is all of the input or `done`.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                return Ok(self.take_data(left, at, input.len()));
            }
            self.state = self.take_framing(input[at])?;
            at += 1;
        }
        Ok(Step { consumed: at, data: at..at, done: self.state == State::Done })
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailers, complete when the body is; fields that must not come in a trailer are left out.
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }

    fn take_data(&mut self, left: u64, start: usize, end: usize) -> Step {
        let available = end - start;
        // A chunk longer than the address space leaves `available` as the smaller one.
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(available);
        let left = left - taken as u64;
        self.state = if left == 0 { State::DataCr } else { State::Data { left } };
        Step { consumed: start + taken, data: start..start + taken, done: false }
    }

    fn take_framing(&mut self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::Size { digits, size }, byte) => self.take_size(digits, size, byte),
            (State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Extension { .. }, byte) if !is_value_byte(byte) => Err(ChunkError::Extension),
            (State::Extension { .. }, _) => self.take_extension(),
            (State::SizeEnd { size: 0 }, b'\n') => Ok(State::Trailer),
            (State::SizeEnd { size }, b'\n') => Ok(State::Data { left: size }),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { digits: 0, size: 0 }),
            (State::Trailer, byte) => self.take_trailer(byte),
            (State::TrailerLf, b'\n') => self.end_trailer_line(),
            (State::SizeEnd { .. } | State::DataCr | State::DataLf | State::TrailerLf, _) => Err(ChunkError::LineEnd),
            (state @ (State::Data { .. } | State::Done), _) => Ok(state),
        }
    }

    fn take_size(&mut self, digits: u8, size: u64, byte: u8) -> Result<State, ChunkError> {
        match (byte as char).to_digit(16) {
            Some(_) if digits == MAX_SIZE_DIGITS => Err(ChunkError::Size),
            Some(digit) => Ok(State::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }),
            None if digits == 0 => Err(ChunkError::Size),
            None if byte == b'\r' => Ok(State::SizeEnd { size }),
            None if byte == b';' => {
                self.state = State::Extension { size };
                self.take_extension()
            }
            None if byte == b'\n' => Err(ChunkError::LineEnd),
            None => Err(ChunkError::Size),
        }
    }

    fn take_extension(&mut self) -> Result<State, ChunkError> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES { Err(ChunkError::TooLarge) } else { Ok(self.state) }
    }

    fn take_trailer(&mut self, byte: u8) -> Result<State, ChunkError> {
        match byte {
            b'\r' => return Ok(State::TrailerLf),
            b'\n' => return Err(ChunkError::LineEnd),
            byte if !is_value_byte(byte) => return Err(ChunkError::Trailer),
            byte => self.line.push(byte),
        }
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES { Err(ChunkError::TooLarge) } else { Ok(State::Trailer) }
    }

    fn end_trailer_line(&mut self) -> Result<State, ChunkError> {
        if self.line.is_empty() {
            return Ok(State::Done);
        }
        let colon = memchr::memchr(b':', &self.line).ok_or(ChunkError::Trailer)?;
        let (name, value) = (&self.line[..colon], &self.line[colon + 1..]);
        if !is_name(name) {
            return Err(ChunkError::Trailer);
        }
        if self.trailers.len() == MAX_TRAILERS {
            return Err(ChunkError::TooLarge);
        }
        if may_be_trailer(Known::classify(name)) && !name.contains(&b'_') {
            self.trailers.push(name, value);
        }
        self.line.clear();
        Ok(State::Trailer)
    }
}

/// Ends the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Ends a body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the line before `len` bytes of data. `len` must not be 0: that would end the body.
pub fn write_chunk_header(out: &mut Vec<u8>, len: usize) {
    debug_assert_ne!(len, 0, "an empty chunk is the last chunk");
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| HEX[len >> (4 * digit) & 15]));
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of the body with its trailers.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &Fields) {
    out.extend_from_slice(b"0\r\n");
    super::head::write::write_fields(out, trailers, may_be_trailer);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Data, trailers and the number of bytes used; feeds pieces of these lengths, then the rest.
    fn decode(input: &[u8], pieces: &[usize]) -> Result<Option<(Vec<u8>, usize, usize)>, ChunkError> {
        let mut decoder = Decoder::new();
        let (mut data, mut used, mut end) = (Vec::new(), 0, 0);
        for piece in pieces.iter().copied().chain([input.len()]) {
            end = (end + piece).min(input.len());
            while used < end && !decoder.is_done() {
                let step = decoder.decode(&input[used..end])?;
                data.extend_from_slice(&input[used..end][step.data]);
                used += step.consumed;
            }
        }
        Ok(decoder.is_done().then(|| (data, used, decoder.trailers().len())))
    }

    fn whole(input: &str) -> Result<Option<(Vec<u8>, usize, usize)>, ChunkError> {
        decode(input.as_bytes(), &[])
    }

    #[test]
    fn bodies_are_decoded() {
        assert_eq!(whole("0\r\n\r\nnext"), Ok(Some((vec![], 5, 0))));
        assert_eq!(
            whole("3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n000\r\n\r\n"),
            Ok(Some((b"abc0123456789".to_vec(), 36, 0)))
        );
        assert_eq!(whole("1\r\nx\r\n0\r\nA: b\r\nc:d\r\n\r\n"), Ok(Some((b"x".to_vec(), 22, 2))));
        assert_eq!(whole("5\r\nabc"), Ok(None));
        assert_eq!(whole("0\r\n"), Ok(None));
        assert_eq!(whole(""), Ok(None));
    }

    #[test]
    fn anything_but_the_exact_framing_is_refused() {
        for (input, error) in [
            ("\r\n", ChunkError::Size),
            ("x\r\n", ChunkError::Size),
            ("-1\r\n", ChunkError::Size),
            ("+1\r\n", ChunkError::Size),
            ("0x1\r\n", ChunkError::Size),
            (" 1\r\n", ChunkError::Size),
            ("1 \r\n", ChunkError::Size),
            ("1_0\r\n", ChunkError::Size),
            ("00000000000000001\r\n", ChunkError::Size),
            ("fffffffffffffffff\r\n", ChunkError::Size),
            ("1\nx\r\n", ChunkError::LineEnd),
            ("1\rx\r\n", ChunkError::LineEnd),
            ("1\r\nxx\r\n", ChunkError::LineEnd),
            ("1\r\nx\n", ChunkError::LineEnd),
            ("1\r\nx\rx", ChunkError::LineEnd),
            ("0\r\n\n", ChunkError::LineEnd),
            ("0\r\nA: b\n", ChunkError::LineEnd),
            ("0\r\nA: b\rc", ChunkError::LineEnd),
            ("1;a\nb\r\nx\r\n", ChunkError::Extension),
            ("1;\0\r\n", ChunkError::Extension),
            ("1;a\rb\r\n", ChunkError::LineEnd),
            ("0\r\nA : b\r\n", ChunkError::Trailer),
            ("0\r\nA\r\n", ChunkError::Trailer),
            ("0\r\n b\r\n", ChunkError::Trailer),
            ("0\r\nA: \0\r\n", ChunkError::Trailer),
        ] {
            assert_eq!(whole(input), Err(error), "{input:?}");
        }
    }

    #[test]
    fn the_largest_size_is_read_and_never_overflows() {
        assert_eq!(whole("ffffffffffffffff\r\nabc"), Ok(None));
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extensions = format!("1;{}\r\nx\r\n", "e".repeat(1000)).repeat(17);
        assert_eq!(whole(&extensions), Err(ChunkError::TooLarge));
        assert_eq!(whole(&format!("0\r\nA: {}\r\n\r\n", "b".repeat(17_000))), Err(ChunkError::TooLarge));
        assert_eq!(whole(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(65))), Err(ChunkError::TooLarge));
    }

    #[test]
    fn trailers_that_would_change_the_message_are_left_out() {
        let input = b"0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nA_b: c\r\nX-Sum: 1\r\n\r\n";
        let mut decoder = Decoder::new();

        assert!(decoder.decode(input).expect("valid").done);

        assert_eq!(decoder.trailers().len(), 1);
        assert_eq!(decoder.trailers().get_name("x-sum"), Some(&b"1"[..]));
    }

    #[test]
    fn chunk_headers_are_hexadecimal() {
        let mut out = Vec::new();
        for len in [1, 15, 16, 255, 4096, usize::MAX] {
            out.clear();
            write_chunk_header(&mut out, len);
            assert_eq!(out, format!("{len:x}\r\n").into_bytes());
        }
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same_result(
            input in prop_oneof![
                "([0-3];?x?\r\n[ab]{0,3}\r\n){0,4}0\r\n(A: b\r\n){0,2}(\r\n)?",
                "[0-3\r\nab;:]{0,24}",
            ],
            pieces in prop::collection::vec(0usize..6, 0..16),
        ) {
            prop_assert_eq!(decode(input.as_bytes(), &pieces), decode(input.as_bytes(), &[]));
        }

        #[test]
        fn what_is_encoded_is_decoded(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6)) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                write_chunk_header(&mut wire, chunk.len());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(CHUNK_END);
            }
            let mut trailers = Fields::new();
            trailers.push(b"x-sum", b"1");
            write_last_chunk(&mut wire, &trailers);
            prop_assert_eq!(decode(&wire, &[]), Ok(Some((chunks.concat(), wire.len(), 1))));
        }
    }
}
