//! Hop-by-hop fields: what belongs to one connection and must not travel further (RFC 9110 §7.6.1).

use super::head::rules::list;
use super::head::{Fields, Known};

/// Which hop-by-hop fields the next hop is to see after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// `TE: trailers`, for HTTP/2 and gRPC: the promise that trailers are understood all the way.
    pub te_trailers: bool,
}

/// Removes the hop-by-hop fields of a request or a response: the list of the RFC and every field that a `Connection`
/// option names.
///
/// `Upgrade` goes, too: who lets an upgrade through reads it before (`RequestHead::upgrade`) and writes
/// `Connection: upgrade` and `Upgrade` anew. `Trailer` stays, because trailers are forwarded.
pub fn strip_hop_by_hop(fields: &mut Fields, keep: Keep) {
    let nominated = nominated(fields);
    let te_trailers = keep.te_trailers && fields.values(Known::Te).flat_map(list).any(is_trailers);
    fields.retain(|name, _, known| {
        !is_hop_by_hop(known) && !nominated.iter().any(|nominated| nominated.eq_ignore_ascii_case(name))
    });
    if te_trailers {
        fields.push_known(Known::Te, b"trailers");
    }
}

fn is_trailers(element: &[u8]) -> bool {
    element.eq_ignore_ascii_case(b"trailers")
}

/// Names of other fields in `Connection`. Nearly always none, and then nothing is allocated.
fn nominated(fields: &Fields) -> Vec<Box<[u8]>> {
    let options = fields.values(Known::Connection).flat_map(list);
    options.filter(|option| !is_plain_option(option)).map(Box::from).collect()
}

fn is_plain_option(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"close") || is_hop_by_hop(Known::classify(option))
}

fn is_hop_by_hop(known: Known) -> bool {
    matches!(
        known,
        Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::ProxyAuthenticate
            | Known::ProxyAuthenticationInfo
            | Known::ProxyAuthorization
            | Known::Te
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Http2Settings
    )
}

/// False for fields that decide about framing, routing, authentication or the meaning of the body: RFC 9110 §6.5.1 keeps
/// them out of trailers, where a receiver that merges them into the head would be deceived.
pub fn may_be_trailer(known: Known) -> bool {
    !is_hop_by_hop(known)
        && !matches!(
            known,
            Known::Host
                | Known::ContentLength
                | Known::ContentType
                | Known::ContentEncoding
                | Known::Trailer
                | Known::Expect
                | Known::Authorization
                | Known::Cookie
                | Known::SetCookie
                | Known::CacheControl
                | Known::Forwarded
                | Known::XForwardedFor
                | Known::XForwardedProto
                | Known::XForwardedHost
                | Known::XForwardedPort
                | Known::XRealIp
                | Known::XRequestId
                | Known::ForebayDeadline
                | Known::ForebayReason
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn names(fields: &Fields) -> Vec<String> {
        fields.iter().map(|(name, _, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn the_list_of_the_rfc_and_what_connection_names_are_removed() {
        let mut fields = fields(&[
            ("Connection", "X-Secret, keep-alive"),
            ("connection", "x-other"),
            ("X-Secret", "1"),
            ("X-Other", "2"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authenticate", "Basic"),
            ("Proxy-Authorization", "Basic"),
            ("TE", "trailers"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "websocket"),
            ("HTTP2-Settings", "x"),
            ("Trailer", "x-sum"),
            ("Accept", "*/*"),
        ]);

        strip_hop_by_hop(&mut fields, Keep::default());

        assert_eq!(names(&fields), ["Trailer", "Accept"]);
    }

    #[test]
    fn te_keeps_only_trailers_and_only_where_asked() {
        let mut kept = fields(&[("TE", "gzip;q=0.5, trailers")]);
        strip_hop_by_hop(&mut kept, Keep { te_trailers: true });
        assert_eq!(kept.get(Known::Te), Some(&b"trailers"[..]));

        let mut absent = fields(&[("TE", "gzip")]);
        strip_hop_by_hop(&mut absent, Keep { te_trailers: true });
        assert!(absent.is_empty());
    }
}
