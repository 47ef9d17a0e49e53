//! Addresses: sockets, endpoints, address blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value as Json;

use super::{TextError, Value, from_text};
use crate::config::decode::Decoder;
use crate::config::describe::Shape;
use crate::config::model::{Cidr, EndpointAddress};
use crate::config::tree::Node;

const ADDRESS_WHAT: &str = "an IP address and a port such as \"127.0.0.1:8080\"";
const ADDRESS: Shape = Shape::Text { what: ADDRESS_WHAT, pattern: None };

impl Value for SocketAddr {
    fn shape() -> Shape {
        ADDRESS
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, parse_address)
    }

    fn show(&self) -> Option<Json> {
        Some(self.to_string().into())
    }
}

/// An address on the command line, explained as in the file.
///
/// # Errors
///
/// When it is none, with what to write.
pub fn address_option(text: &str) -> Result<SocketAddr, String> {
    parse_address(text).map_err(|TextError { problem, help, .. }| match help {
        Some(help) => format!("it {problem}; {help}"),
        None => format!("it {problem}; expected {ADDRESS_WHAT}"),
    })
}

fn parse_address(text: &str) -> Result<SocketAddr, TextError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let error = TextError::new("is not an IP address with a port");
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")).filter(|port| is_port(port)) {
        return Err(error.help(format!(
            "write \"127.0.0.1:{port}\" to be reached from this machine only, \"0.0.0.0:{port}\" from everywhere"
        )));
    }
    if let Some(port) = text.strip_prefix("localhost:").filter(|port| is_port(port)) {
        return Err(error.help(format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\"")));
    }
    if let Some(error) = without_port(text, 8080) {
        return Err(error);
    }
    if is_port(text) {
        return Err(error.help(format!("write \"127.0.0.1:{text}\"")));
    }
    Err(error)
}

/// What is wrong with an IP address that has no port, or seems to have none.
fn without_port(text: &str, usual: u16) -> Option<TextError> {
    let error = |help: String| Some(TextError::new("has no port").help(help));
    let is_six = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    if text.parse::<Ipv4Addr>().is_ok()
        || text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).is_some_and(is_six)
    {
        return error(format!("write \"{text}:{usual}\""));
    }
    if !is_six(text) {
        return None;
    }
    // The last part of `::1:80` may be meant as a port: only brackets tell.
    match text.rsplit_once(':').filter(|(host, port)| is_six(host) && is_port(port)) {
        Some((host, port)) => {
            error(format!("write \"[{host}]:{port}\", or \"[{text}]:{usual}\" if all of it is the address"))
        }
        None => error(format!("write \"[{text}]:{usual}\"")),
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// The admin listener: an address or `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressOrOff(pub Option<SocketAddr>);

impl Value for AddressOrOff {
    fn shape() -> Shape {
        Shape::Either(vec![ADDRESS, Shape::Choice(&["off"])])
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        match node.as_text() {
            Some("off") => Some(Self(None)),
            _ => SocketAddr::decode(cx, node).map(|address| Self(Some(address))),
        }
    }

    fn show(&self) -> Option<Json> {
        Some(self.0.map_or_else(|| "off".to_owned(), |address| address.to_string()).into())
    }
}

impl Value for EndpointAddress {
    fn shape() -> Shape {
        Shape::Text { what: "a host and a port such as \"10.0.0.7:80\" or \"users.internal:80\"", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, parse_endpoint)
    }

    fn show(&self) -> Option<Json> {
        Some(match self {
            EndpointAddress::Socket(address) => address.to_string().into(),
            EndpointAddress::Name { host, port } => format!("{host}:{port}").into(),
        })
    }
}

fn parse_endpoint(text: &str) -> Result<EndpointAddress, TextError> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(url_instead_of_endpoint(scheme, rest));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return check_port(address.port()).map(|_| EndpointAddress::Socket(address));
    }
    if text.is_empty() {
        return Err(TextError::new("names no host").help("write a host and its port, as in \"10.0.0.7:80\""));
    }
    if let Some(error) = without_port(text, 80) {
        return Err(error);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        if !is_host_name(text) {
            return Err(TextError::new("has no valid host name").at(0..text.len()));
        }
        return Err(TextError::new("has no port").help(format!("write \"{text}:80\", or the port it listens on")));
    };
    if !is_host_name(host) {
        return Err(TextError::new("has no valid host name").at(0..host.len()));
    }
    let port = port.parse().map_err(|_| {
        TextError::new("has no valid port").help("a port is a number from 1 to 65535").at(host.len() + 1..text.len())
    })?;
    check_port(port)?;
    Ok(EndpointAddress::Name { host: host.to_ascii_lowercase(), port })
}

fn url_instead_of_endpoint(scheme: &str, rest: &str) -> TextError {
    let host = rest.split('/').next().unwrap_or(rest);
    let error = TextError::new("is a URL, not a host and a port");
    match scheme {
        "https" => error.help(format!("write \"{}\" and `tls = true` in the upstream", with_port(host, 443))),
        _ => error.help(format!("write \"{}\"; paths are rewritten in the route", with_port(host, 80))),
    }
}

fn with_port(host: &str, port: u16) -> String {
    if host.rsplit_once(':').is_some_and(|(_, port)| is_port(port)) {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    }
}

fn check_port(port: u16) -> Result<(), TextError> {
    if port == 0 { Err(TextError::new("has the port 0").help("write the port it listens on")) } else { Ok(()) }
}

/// A DNS name as RFC 1123 §2.1 has it, `_` allowed as in service names, with an optional trailing dot.
pub fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    // An address written almost right must not be looked up in DNS.
    let all_numeric = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    (1..=253).contains(&name.len()) && !all_numeric && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl Value for Cidr {
    fn shape() -> Shape {
        Shape::Text { what: "an address block such as \"10.0.0.0/8\" or a single address", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, parse_block)
    }

    fn show(&self) -> Option<Json> {
        Some(format!("{}/{}", self.address, self.prefix).into())
    }
}

fn parse_block(text: &str) -> Result<Cidr, TextError> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| TextError::new("is not an address block"))?;
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => widest,
        Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= widest).ok_or_else(|| {
            TextError::new("has no valid prefix length")
                .help(format!("write a number from 0 to {widest} after the `/`"))
        })?,
    };
    let first = first_address(address, prefix);
    if first != address {
        return Err(TextError::new("has bits beyond its prefix")
            .help(format!("write \"{first}/{prefix}\" for the block, or \"{address}\" for the one address")));
    }
    Ok(Cidr { address, prefix })
}

fn first_address(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_or_names() {
        let name = |host: &str, port| EndpointAddress::Name { host: host.into(), port };
        assert_eq!(parse_endpoint("Users.Internal:80"), Ok(name("users.internal", 80)));
        assert_eq!(parse_endpoint("localhost:9"), Ok(name("localhost", 9)));
        assert!(matches!(parse_endpoint("[::1]:80"), Ok(EndpointAddress::Socket(_))));
    }

    #[test]
    fn wrong_endpoints_say_what_to_write() {
        let help = |text| parse_endpoint(text).expect_err(text).help.unwrap_or_default();

        assert_eq!(help("https://api.internal/v1"), "write \"api.internal:443\" and `tls = true` in the upstream");
        assert_eq!(help("10.0.0.1"), "write \"10.0.0.1:80\"");
        for text in ["", ":80", "a b:80", "host:0", "host:99999", "300.0.0.1:80", "-a:80", "a..b:1"] {
            assert!(parse_endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn blocks_are_checked_to_the_bit() {
        assert_eq!(parse_block("10.0.0.0/8"), Ok(Cidr { address: "10.0.0.0".parse().expect("ip"), prefix: 8 }));
        assert_eq!(parse_block("::1").map(|block| block.prefix), Ok(128));
        assert!(parse_block("0.0.0.0/0").is_ok());
        for text in ["10.0.0.1/8", "10.0.0.0/33", "::/129", "ten", "10.0.0.0/"] {
            assert!(parse_block(text).is_err(), "{text}");
        }
    }
}
