//! Who the client is, and what the upstream is told about it: `X-Forwarded-*` and `Forwarded` (RFC 7239).
//!
//! What a peer says about the client is believed only when the peer is trusted. The client is the rightmost address that
//! is not a trusted proxy: everything to the left of it was written by strangers. From any other peer the incoming fields
//! are dropped and written anew, so that no client can speak in the proxy's name.
//!
//! When both `X-Forwarded-For` and `Forwarded` are there, the former decides: it is what nearly all proxies maintain.

use std::net::{IpAddr, SocketAddr};

use super::head::rules::{authority, is_token, list};
use super::head::{Fields, Known};
use crate::config::model::Cidr;
use crate::units::write_ip;

/// Addresses looked at from the right. A chain of more trusted proxies than this does not exist; a longer list is an
/// attempt to make us work.
const MAX_HOPS: usize = 32;

/// What Forebay itself knows about a request.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub peer: IpAddr,
    pub trusted: &'a [Cidr],
    /// The listener speaks TLS.
    pub https: bool,
    /// `host[:port]` as the client sent it; may be empty in HTTP/1.0.
    pub authority: &'a [u8],
}

impl Arrival<'_> {
    pub fn peer_is_trusted(&self) -> bool {
        is_trusted(self.peer, self.trusted)
    }

    fn scheme(&self) -> &'static [u8] {
        if self.https { b"https" } else { b"http" }
    }
}

pub fn is_trusted(ip: IpAddr, trusted: &[Cidr]) -> bool {
    trusted.iter().any(|block| block.contains(ip))
}

/// The address of the client, in its canonical form (an IPv4-mapped address is an IPv4 address).
pub fn client_address(peer: IpAddr, trusted: &[Cidr], fields: &Fields) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    if fields.contains(Known::XForwardedFor) {
        rightmost_untrusted(peer, trusted, elements_from_right(fields, Known::XForwardedFor).map(address))
    } else {
        rightmost_untrusted(peer, trusted, elements_from_right(fields, Known::Forwarded).map(forwarded_for))
    }
}

/// Walks from the nearest hop outwards. An element that is no address ends the walk: what is left of it cannot be placed,
/// and the last trusted hop is the best that is known.
fn rightmost_untrusted(peer: IpAddr, trusted: &[Cidr], hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
    let mut client = peer;
    for hop in hops.take(MAX_HOPS) {
        let Some(ip) = hop else { break };
        client = ip;
        if !is_trusted(ip, trusted) {
            break;
        }
    }
    client
}

/// List elements over all lines of a field, last first. Quotes are not looked at on purpose: from the right, an unbalanced
/// quote of a stranger cannot swallow what the trusted proxy appended behind it.
fn elements_from_right(fields: &Fields, known: Known) -> impl Iterator<Item = &[u8]> {
    let elements = fields.values(known).rev().flat_map(|value| value.rsplit(|b| *b == b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// An address with or without port, IPv6 with or without brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let ip = match text.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => match text.parse::<SocketAddr>() {
            Ok(socket) => socket.ip(),
            Err(_) => text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok()?,
        },
    };
    Some(ip.to_canonical())
}

/// The `for` parameter of one element. Obfuscated names and `unknown` are no addresses.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let value = element.split(|b| *b == b';').find_map(|pair| {
        let (name, value) = pair.split_at_checked(pair.iter().position(|b| *b == b'=')?)?;
        name.trim_ascii().eq_ignore_ascii_case(b"for").then(|| value[1..].trim_ascii())
    })?;
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    address(unquoted.unwrap_or(value))
}

/// Writes the forwarding fields that the upstream gets; returns the client's address, as [`client_address`] does.
pub fn rewrite(fields: &mut Fields, arrival: &Arrival<'_>) -> IpAddr {
    let client = client_address(arrival.peer, arrival.trusted, fields);
    if arrival.peer_is_trusted() {
        append(fields, arrival, client);
    } else {
        replace(fields, arrival, client);
    }
    client
}

fn replace(fields: &mut Fields, arrival: &Arrival<'_>, client: IpAddr) {
    fields.retain(|_, _, known| !is_forwarding(known));
    fields.push_with(Known::XForwardedFor, |out| write_ip(out, client));
    fields.push_known(Known::XForwardedProto, arrival.scheme());
    if !arrival.authority.is_empty() {
        fields.push_known(Known::XForwardedHost, arrival.authority);
    }
    fields.push_with(Known::Forwarded, |out| write_element(out, client, arrival));
}

fn is_forwarding(known: Known) -> bool {
    matches!(
        known,
        Known::Forwarded
            | Known::XForwardedFor
            | Known::XForwardedProto
            | Known::XForwardedHost
            | Known::XForwardedPort
            | Known::XRealIp
    )
}

/// Adds the peer to the lists. Where one of the two lists is missing, it begins with the client that the other one gave,
/// so that both name the same client.
fn append(fields: &mut Fields, arrival: &Arrival<'_>, client: IpAddr) {
    let peer = arrival.peer.to_canonical();
    let missing = |fields: &Fields, known: Known| !fields.contains(known) && client != peer;
    let (no_list, no_forwarded) = (missing(fields, Known::XForwardedFor), missing(fields, Known::Forwarded));
    fields.extend_list(Known::XForwardedFor, |out| {
        if no_list {
            write_ip(out, client);
            out.extend_from_slice(b", ");
        }
        write_ip(out, peer);
    });
    fields.extend_list(Known::Forwarded, |out| {
        if no_forwarded {
            write_for(out, client);
            out.extend_from_slice(b", ");
        }
        write_element(out, peer, arrival);
    });
    keep_single(fields, Known::XForwardedProto, is_scheme, arrival.scheme());
    keep_single(fields, Known::XForwardedHost, |value| authority(value).is_ok(), arrival.authority);
}

fn is_scheme(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"http") || value.eq_ignore_ascii_case(b"https")
}

/// What the trusted proxy said, when it is one valid value (of a list the first, which is the client's side), else ours.
fn keep_single(fields: &mut Fields, known: Known, is_valid: impl Fn(&[u8]) -> bool, own: &[u8]) {
    if fields.count(known) == 1 && fields.get(known).is_some_and(&is_valid) {
        return;
    }
    let first = fields.values(known).flat_map(list).next().filter(|value| is_valid(value)).map(Box::<[u8]>::from);
    fields.remove(known);
    match first {
        Some(first) => fields.push_known(known, &first),
        None if !own.is_empty() => fields.push_known(known, own),
        None => {}
    }
}

fn write_for(out: &mut Vec<u8>, ip: IpAddr) {
    let (open, close): (&[u8], &[u8]) = if ip.is_ipv6() { (b"for=\"[", b"]\"") } else { (b"for=", b"") };
    out.extend_from_slice(open);
    write_ip(out, ip);
    out.extend_from_slice(close);
}

fn write_element(out: &mut Vec<u8>, ip: IpAddr, arrival: &Arrival<'_>) {
    write_for(out, ip);
    // Checked by the head's rules: it holds no quote and no backslash.
    let (open, close): (&[u8], &[u8]) =
        if is_token(arrival.authority) { (b";host=", b"") } else { (b";host=\"", b"\"") };
    if !arrival.authority.is_empty() {
        out.extend_from_slice(open);
        out.extend_from_slice(arrival.authority);
        out.extend_from_slice(close);
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(arrival.scheme());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> Vec<Cidr> {
        vec![
            Cidr { address: "10.0.0.0".parse().expect("valid"), prefix: 8 },
            Cidr { address: "fd00::".parse().expect("valid"), prefix: 8 },
        ]
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("valid")
    }

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn client(peer: &str, lines: &[(&str, &str)]) -> String {
        client_address(ip(peer), &trusted(), &fields(lines)).to_string()
    }

    fn rewritten(peer: &str, lines: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut fields = fields(lines);
        rewrite(&mut fields, &Arrival { peer: ip(peer), trusted: &trusted(), https: true, authority: b"a:8443" });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(name, value, _)| (text(name), text(value))).collect()
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_trusted() {
        for (peer, lines, expected) in [
            ("192.0.2.1", &[("x-forwarded-for", "1.1.1.1")][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.2")], "2.2.2.2"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1"), ("X-Forwarded-For", "2.2.2.2")], "2.2.2.2"),
            ("10.0.0.1", &[("x-forwarded-for", "10.0.0.3,10.0.0.2")], "10.0.0.3"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, unknown, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[("x-forwarded-for", "")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1,,"), ("x-forwarded-for", "")], "1.1.1.1"),
            ("10.0.0.1", &[("x-forwarded-for", "2001:db8::1")], "2001:db8::1"),
            ("10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]:80")], "2001:db8::1"),
            ("10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]")], "2001:db8::1"),
            ("10.0.0.1", &[("x-forwarded-for", "1.2.3.4:5")], "1.2.3.4"),
            ("::ffff:10.0.0.1", &[("x-forwarded-for", "::ffff:1.2.3.4")], "1.2.3.4"),
            ("fd00::1", &[("forwarded", "for=1.1.1.1, For=\"[2001:db8::1]:4\";proto=http")], "2001:db8::1"),
            ("10.0.0.1", &[("forwarded", "for=1.1.1.1, for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=\"9.9.9.9, for=8.8.8.8")], "8.8.8.8"),
            ("10.0.0.1", &[("forwarded", "for=9.9.9.9"), ("x-forwarded-for", "8.8.8.8")], "8.8.8.8"),
        ] {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn an_absurd_list_costs_little_and_gives_a_trusted_hop() {
        let list = "1.1.1.1,".repeat(10) + &"10.0.0.9,".repeat(5000) + "10.0.0.8";
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", &list)]), "10.0.0.9");
    }

    #[test]
    fn what_a_stranger_says_is_replaced() {
        let lines = [
            ("X-Forwarded-For", "1.1.1.1"),
            ("Forwarded", "for=1.1.1.1"),
            ("X-Forwarded-Proto", "gopher"),
            ("X-Forwarded-Host", "evil"),
            ("X-Forwarded-Port", "1"),
            ("X-Real-IP", "1.1.1.1"),
            ("Accept", "x"),
        ];

        let out = rewritten("2001:db8::9", &lines);

        let expected = [
            ("Accept", "x"),
            ("x-forwarded-for", "2001:db8::9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a:8443"),
            ("forwarded", "for=\"[2001:db8::9]\";host=\"a:8443\";proto=https"),
        ];
        assert_eq!(out, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept_and_the_peer_appended() {
        let lines = [
            ("X-Forwarded-For", "1.1.1.1"),
            ("X-Forwarded-For", "2.2.2.2"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", "outer, inner"),
        ];

        let out = rewritten("10.0.0.1", &lines);

        let expected = [
            ("X-Forwarded-Proto", "http"),
            ("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.1"),
            ("forwarded", "for=2.2.2.2, for=10.0.0.1;host=\"a:8443\";proto=https"),
            ("x-forwarded-host", "outer"),
        ];
        assert_eq!(out, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_list_that_is_missing_begins_with_the_client() {
        let out = rewritten("10.0.0.1", &[("Forwarded", "for=1.1.1.1")]);

        let list = out.iter().find(|(name, _)| name == "x-forwarded-for").map(|(_, value)| value.as_str());
        assert_eq!(list, Some("1.1.1.1, 10.0.0.1"));
    }
}
