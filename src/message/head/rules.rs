//! What a head may contain: the byte classes and the rules for `Host`, `Content-Length`, `Transfer-Encoding`,
//! `Connection` and the request target.
//!
//! The rules are stricter than the grammar of RFC 9110 and 9112 wherever two receivers are known to read the same bytes
//! in two ways: that difference is what request smuggling and route bypasses live on.

use std::net::Ipv6Addr;

use super::{ConnectionOptions, Known};

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;
const HOST: u8 = 8;

/// One table for all byte classes.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        let mut class = 0;
        let alphanumeric = b.is_ascii_alphanumeric();
        // RFC 9110 §5.6.2, `tchar`.
        if alphanumeric
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            class |= TOKEN;
        }
        // Visible ASCII, space, tab, and obs-text, which is opaque.
        if b == b'\t' || (b >= 0x20 && b != 0x7f) {
            class |= VALUE;
        }
        // Visible ASCII without the fragment mark. What the URI grammar forbids beyond that (`"<>^`{|}`) is sent by
        // common clients, and no two servers are known to read it differently.
        if b.is_ascii_graphic() && b != b'#' {
            class |= TARGET;
        }
        // Names as DNS and containers use them. The `sub-delims` of the grammar (a comma above all) have no use in a
        // host and are read differently by different servers.
        if alphanumeric || matches!(b, b'-' | b'.' | b'_' | b'~') {
            class |= HOST;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// A token of RFC 9110 §5.6.2: a method, a field name, a connection option.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| is(*b, TOKEN))
}

/// A field name.
pub fn is_name(bytes: &[u8]) -> bool {
    is_token(bytes)
}

#[inline]
pub fn is_value_byte(byte: u8) -> bool {
    is(byte, VALUE)
}

/// True when the bytes can stand in a request target: visible ASCII, no fragment.
pub fn is_target(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| is(*b, TARGET))
}

#[inline]
pub(super) fn is_target_byte(byte: u8) -> bool {
    is(byte, TARGET)
}

/// A checked `host[:port]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Without the port and without a trailing dot; IPv6 in brackets; case as received.
    pub host: &'a [u8],
    pub port: Option<u16>,
}

/// Checks `host[:port]`: a name, an IPv4 address or a bracketed IPv6 address; no userinfo, no list, no path.
pub fn authority(bytes: &[u8]) -> Result<Authority<'_>, &'static str> {
    if bytes.is_empty() {
        return Err("the host is empty");
    }
    let (host, port) = if bytes[0] == b'[' { split_ipv6(bytes)? } else { split_name(bytes)? };
    Ok(Authority { host, port: port.map(parse_port).transpose()? })
}

fn split_ipv6(bytes: &[u8]) -> Result<(&[u8], Option<&[u8]>), &'static str> {
    const BAD: &str = "the host is not a valid IPv6 address";
    let end = bytes.iter().position(|b| *b == b']').ok_or(BAD)?;
    let address = std::str::from_utf8(&bytes[1..end]).map_err(|_| BAD)?;
    address.parse::<Ipv6Addr>().map_err(|_| BAD)?;
    match &bytes[end + 1..] {
        [] => Ok((&bytes[..=end], None)),
        [b':', port @ ..] => Ok((&bytes[..=end], Some(port))),
        _ => Err(BAD),
    }
}

fn split_name(bytes: &[u8]) -> Result<(&[u8], Option<&[u8]>), &'static str> {
    let end = bytes.iter().position(|b| !is(*b, HOST)).unwrap_or(bytes.len());
    let port = match &bytes[end..] {
        [] => None,
        [b':', port @ ..] => Some(port),
        _ => return Err("the host holds a character that no host name has"),
    };
    let host = bytes[..end].strip_suffix(b".").unwrap_or(&bytes[..end]);
    if host.is_empty() || host.len() > 255 {
        return Err("the host is empty or longer than 255 bytes");
    }
    Ok((host, port))
}

fn parse_port(digits: &[u8]) -> Result<u16, &'static str> {
    const BAD: &str = "the port of the host is not a number from 1 to 65535";
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    let port = digits.iter().fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0'));
    u16::try_from(port).ok().filter(|port| *port != 0).ok_or(BAD)
}

/// `Content-Length`: one number without sign, list or leading zero. The grammar would allow leading zeros; a server that
/// reads them as octal would see another length.
pub fn content_length(value: &[u8]) -> Result<u64, &'static str> {
    const BAD: &str = "content-length is not a single plain number";
    if value.is_empty() || value.len() > 19 || (value[0] == b'0' && value.len() > 1) {
        return Err(BAD);
    }
    // 19 digits cannot overflow 64 bits.
    value.iter().try_fold(0u64, |length, byte| match byte {
        b'0'..=b'9' => Ok(length * 10 + u64::from(byte - b'0')),
        _ => Err(BAD),
    })
}

/// The elements of a comma-separated field, trimmed, empty ones left out (RFC 9110 §5.6.1.2).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(|element| element.trim_ascii()).filter(|element| !element.is_empty())
}

/// Reads one `Connection` value into `options`. Fails on what is not a token, and on an option that names a field which
/// is not the sender's to remove: `Connection: x-forwarded-for` would otherwise take the client's address away.
pub(super) fn connection(
    value: &[u8],
    options: &mut ConnectionOptions,
    is_protected: fn(Known) -> bool,
) -> Result<(), &'static str> {
    for option in list(value) {
        if option.eq_ignore_ascii_case(b"close") {
            options.close = true;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            options.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            options.upgrade = true;
        } else if !is_token(option) {
            return Err("a connection option is not a token");
        } else if is_protected(Known::classify(option)) {
            return Err("a connection option names a field that must not be removed");
        }
    }
    Ok(())
}

/// Request fields that a `Connection` option must not name.
pub(super) fn protected_in_request(known: Known) -> bool {
    matches!(
        known,
        Known::Host
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::ContentType
            | Known::ContentEncoding
            | Known::Expect
            | Known::Authorization
            | Known::Cookie
            | Known::Forwarded
            | Known::XForwardedFor
            | Known::XForwardedProto
            | Known::XForwardedHost
            | Known::XForwardedPort
            | Known::XRealIp
            | Known::XRequestId
            | Known::Traceparent
            | Known::ForebayDeadline
            | Known::GrpcTimeout
    )
}

/// Response fields that a `Connection` option must not name. `transfer-encoding` is hop-by-hop anyway, and old servers do
/// name it.
pub(super) fn protected_in_response(known: Known) -> bool {
    matches!(known, Known::ContentLength | Known::ContentType | Known::ContentEncoding | Known::SetCookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("Example.com.:8080", "Example.com", Some(8080)),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]:443", "[::1]", Some(443)),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("my_service", "my_service", None),
        ] {
            let parsed = authority(text.as_bytes()).expect(text);
            assert_eq!((parsed.host, parsed.port), (host.as_bytes(), port), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_a_host() {
        for text in [
            "",
            ".",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:8 0",
            "a:80:80",
            "user@a",
            "a/b",
            "a,b",
            "a b",
            "a\t",
            "[::1",
            "::1",
            "[fe80::1%eth0]",
            "[::1]x",
            "[]",
            "a%2eb",
            "a?b",
            "a#b",
            "a\\b",
            "ä",
            "[127.0.0.1]",
            "a:123456",
        ] {
            assert!(authority(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(authority(&[b'a'; 256]).is_err());
    }

    #[test]
    fn content_length_is_plain_digits() {
        assert_eq!(content_length(b"0"), Ok(0));
        assert_eq!(content_length(b"1234567890123456789"), Ok(1_234_567_890_123_456_789));
        for bad in ["", "+5", "-5", "5, 5", "5 5", "003", "00", "0x5", "5.0", "12345678901234567890", "٣", "1_000"] {
            assert!(content_length(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
