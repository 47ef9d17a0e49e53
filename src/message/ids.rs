//! Request ids and W3C trace context (`traceparent`, level 2).

use rand::RngCore;

/// Request ids from outside may be this long.
const MAX_REQUEST_ID: usize = 128;

/// Lower-case hexadecimal digits of fixed length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Hex<N> {
    /// The lowest `N` digits of `value`.
    fn of(value: u128) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        Self(std::array::from_fn(|at| DIGITS[(value >> (4 * (N - 1 - at)) & 15) as usize]))
    }

    /// Checks them; whoever needs no text takes the bytes.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> std::fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A new request id: 128 random bits.
pub fn new_request_id(rng: &mut impl RngCore) -> Hex<32> {
    Hex::of(random(rng))
}

/// A request id from outside, if it can be put into a log line, a header and a shell without quoting.
pub fn valid_request_id(value: &[u8]) -> Option<&str> {
    let is_safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@~".contains(byte);
    if value.is_empty() || value.len() > MAX_REQUEST_ID || !value.iter().all(is_safe) {
        return None;
    }
    std::str::from_utf8(value).ok()
}

fn random(rng: &mut impl RngCore) -> u128 {
    u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())
}

const SAMPLED: u8 = 1;
/// Level 2: the trace id is random in its low 56 bits.
const RANDOM: u8 = 2;

/// One `traceparent`: the trace, the span that is the parent of what comes next, and the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

impl Traceparent {
    /// Reads the field. `None` for what the specification calls invalid; then a new trace begins and `tracestate` must be
    /// dropped. A later version is read as far as this one is known.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(55)?;
        let version = hex(&known[..2])?;
        let fits = match version {
            0xff => false,
            0 => rest.is_empty(),
            _ => rest.is_empty() || rest[0] == b'-',
        };
        if !fits || [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return None;
        }
        let trace_id = hex(&known[3..35])?;
        let parent_id = hex(&known[36..52])? as u64;
        let flags = hex(&known[53..55])? as u8 & (SAMPLED | RANDOM);
        (trace_id != 0 && parent_id != 0).then_some(Self { trace_id, parent_id, flags })
    }

    /// A new trace. `sampled` tells the upstreams whether to record it.
    pub fn new(rng: &mut impl RngCore, sampled: bool) -> Self {
        let flags = RANDOM | if sampled { SAMPLED } else { 0 };
        // All zeros would be invalid; one random id in 2^128 is nudged.
        Self { trace_id: random(rng).max(1), parent_id: rng.next_u64().max(1), flags }
    }

    /// The same trace with a new span id.
    pub fn child(self, rng: &mut impl RngCore) -> Self {
        Self { parent_id: rng.next_u64().max(1), ..self }
    }

    pub fn trace_id(&self) -> Hex<32> {
        Hex::of(self.trace_id)
    }

    pub fn span_id(&self) -> Hex<16> {
        Hex::of(u128::from(self.parent_id))
    }

    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Appends the field's value, always as version 00.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"00-");
        out.extend_from_slice(&self.trace_id().0);
        out.push(b'-');
        out.extend_from_slice(&self.span_id().0);
        out.push(b'-');
        out.extend_from_slice(&Hex::<2>::of(u128::from(self.flags)).0);
    }
}

/// Lower-case digits only, as the specification demands.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn written(trace: Traceparent) -> String {
        let mut out = Vec::new();
        trace.write(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn request_ids_are_random_and_valid() {
        let mut rng = SmallRng::seed_from_u64(1);
        let (first, second) = (new_request_id(&mut rng), new_request_id(&mut rng));

        assert_ne!(first, second);
        assert_eq!(valid_request_id(first.as_str().as_bytes()), Some(first.as_str()));
    }

    #[test]
    fn unsafe_request_ids_are_not_taken_over() {
        assert!(valid_request_id(b"01HZ-a_b.c:d+e/f=").is_some());
        for bad in [&b""[..], b"a b", b"a\"b", b"a\\b", b"a\nb", b"a,b", b"<a>", b"a\xffb", b"$(a)", &[b'a'; 129]] {
            assert_eq!(valid_request_id(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_traceparent_round_trips_and_a_child_keeps_the_trace() {
        let mut rng = SmallRng::seed_from_u64(1);
        let trace = Traceparent::parse(VALID.as_bytes()).expect("valid");
        assert_eq!(written(trace), VALID);
        assert!(trace.is_sampled());

        let child = trace.child(&mut rng);

        assert_eq!(child.trace_id().as_str(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(child.span_id(), trace.span_id());
        assert_eq!(Traceparent::parse(written(child).as_bytes()), Some(child));
    }

    #[test]
    fn later_versions_are_read_and_unknown_flags_dropped() {
        let later = VALID.replace("00-4", "cc-4").replace("-01", "-ff-more");
        assert_eq!(written(Traceparent::parse(later.as_bytes()).expect("valid")), VALID.replace("-01", "-03"));
    }

    #[test]
    fn invalid_traceparents_begin_a_new_trace() {
        for bad in [
            String::new(),
            VALID.to_uppercase(),
            format!("{VALID}-x"),
            VALID.replace("00-4", "ff-4"),
            VALID.replace("00-4", "cc-4") + "x",
            VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            VALID.replace("00f067aa0ba902b7", &"0".repeat(16)),
            VALID.replace('-', "_"),
            VALID[..54].to_owned(),
        ] {
            assert_eq!(Traceparent::parse(bad.as_bytes()), None, "{bad}");
        }
        let new = Traceparent::new(&mut SmallRng::seed_from_u64(2), false);
        assert!(written(new).ends_with("-02"));
        assert_eq!(Traceparent::parse(written(new).as_bytes()), Some(new));
    }
}
