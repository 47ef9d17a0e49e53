//! From a request to the 64-bit key under which a limit counts it.
//!
//! Tables keep hashes, never the values: memory per key is fixed, and no client's header is kept. The hash is SipHash-1-3
//! over a random 128-bit seed and the value, so a client that does not know the seed cannot look for collisions.
//! Two of `n` keys share a bucket with a probability of about n²/2⁶⁵: 3·10⁻¹⁰ for 100,000 keys, 3·10⁻⁸ for a million.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use crate::config::model::LimitKey;

/// Looks values up in the request's head, only when a limit asks.
pub trait KeyLookup {
    /// The first value of this header; `name` is lower-case.
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// The first value of this query parameter, percent-decoded.
    fn query(&self, name: &str) -> Option<Cow<'_, [u8]>>;
}

/// What limits may know about a request.
#[derive(Clone, Copy)]
pub struct RequestKeys<'a> {
    /// The client behind trusted proxies.
    pub client: IpAddr,
    pub lookup: &'a (dyn KeyLookup + Sync),
}

/// The secret of the hashes: random for each process, given by tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u128);

/// The hash of the request's key; never zero, which marks an empty slot. `LimitKey::None` needs none.
pub(super) fn key_hash(seed: Seed, key: &LimitKey, request: &RequestKeys<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u128(seed.0);
    match key {
        LimitKey::None => return 1,
        LimitKey::ClientIp { v4_prefix, v6_prefix } => {
            network(request.client, *v4_prefix, *v6_prefix).hash(&mut hasher);
        }
        // `Option`'s hash keeps "absent" apart from "empty".
        LimitKey::Header(name) => request.lookup.header(name).hash(&mut hasher),
        LimitKey::Query(name) => request.lookup.query(name).as_deref().hash(&mut hasher),
    }
    hasher.finish().max(1)
}

/// The client's block. IPv6 clients own whole prefixes (usually a /64 or more): counting single addresses would be no limit.
fn network(ip: IpAddr, v4_prefix: u8, v6_prefix: u8) -> (u8, u128) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(v4_prefix.min(32))).unwrap_or(0);
            (4, u128::from(u32::from(ip) & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(v6_prefix.min(128))).unwrap_or(0);
            (6, u128::from(ip) & mask)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Head, keys_of};
    use super::*;

    const SEED: Seed = Seed(7);

    fn by_ip(ip: &str) -> u64 {
        let head = Head::default();
        let key = LimitKey::ClientIp { v4_prefix: 32, v6_prefix: 64 };
        key_hash(SEED, &key, &RequestKeys { client: ip.parse().unwrap(), lookup: &head })
    }

    #[test]
    fn ipv6_clients_are_one_key_for_each_prefix() {
        assert_eq!(by_ip("2001:db8:1:2::1"), by_ip("2001:db8:1:2:ffff::9"));
        assert_ne!(by_ip("2001:db8:1:2::1"), by_ip("2001:db8:1:3::1"));
    }

    #[test]
    fn a_mapped_ipv4_address_is_the_ipv4_address() {
        assert_eq!(by_ip("::ffff:10.0.0.1"), by_ip("10.0.0.1"));
        assert_ne!(by_ip("10.0.0.1"), by_ip("10.0.0.2"));
    }

    #[test]
    fn an_empty_value_is_not_a_missing_one() {
        let key = LimitKey::Header("x-key".into());
        let missing = Head::default();
        let empty = Head { headers: vec![("x-key", "")], ..Head::default() };

        assert_ne!(key_hash(SEED, &key, &keys_of(&missing)), key_hash(SEED, &key, &keys_of(&empty)));
    }

    #[test]
    fn the_seed_changes_every_hash() {
        let head = Head { query: vec![("k", "a")], ..Head::default() };
        let key = LimitKey::Query("k".into());

        assert_ne!(key_hash(Seed(1), &key, &keys_of(&head)), key_hash(Seed(2), &key, &keys_of(&head)));
    }
}
