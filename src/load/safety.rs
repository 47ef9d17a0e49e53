//! What keeps a load test from hitting the wrong machine: targets are this machine or a private network unless the
//! user names them, and numbers that can only be a slip of the finger are refused.

use std::net::{IpAddr, Ipv4Addr};

use super::client::origin::Resolved;

/// Requests per second that no single machine makes: a zero too many.
const MOST_RATE: f64 = 500_000.0;
/// The same towards a target that had to be allowed.
const MOST_RATE_OUTSIDE: f64 = 20_000.0;

/// Whether these targets may be loaded.
///
/// # Errors
///
/// Names the first that may not, and what to say if it is meant.
pub fn check_targets(resolved: &[Resolved], allowed: &[String]) -> Result<(), String> {
    for target in resolved {
        let host = &target.origin.host;
        let outside = outside_address(target).filter(|_| !is_allowed(target, allowed));
        if let Some(address) = outside {
            let shown = if address.to_string() == *host { host.clone() } else { format!("{host} ({address})") };
            return Err(format!(
                "{shown} is neither this machine nor in a private network; if you may load it, say `--allow-target {host}`"
            ));
        }
    }
    Ok(())
}

/// Whether the rate can be meant.
///
/// # Errors
///
/// When it cannot.
pub fn check_rate(peak: f64, resolved: &[Resolved]) -> Result<(), String> {
    let is_outside = resolved.iter().any(|target| outside_address(target).is_some());
    let most = if is_outside { MOST_RATE_OUTSIDE } else { MOST_RATE };
    if peak > most {
        let towards = if is_outside { "towards a target outside of private networks" } else { "from one machine" };
        return Err(format!("a rate of {peak:.0}/s: more than {most:.0}/s {towards} is refused"));
    }
    Ok(())
}

fn is_allowed(target: &Resolved, allowed: &[String]) -> bool {
    let origin = &target.origin;
    let named = |text: &String| {
        let text = text.trim_start_matches('[').trim_end_matches(']');
        text.eq_ignore_ascii_case(&origin.host) || text.eq_ignore_ascii_case(&origin.authority())
    };
    allowed.iter().any(named)
}

/// An address of the target that is not near. One is enough: a name with a private and a public address is public.
fn outside_address(target: &Resolved) -> Option<IpAddr> {
    target.addresses.iter().map(|address| address.ip().to_canonical()).find(|address| !is_near(*address))
}

/// Loopback, private (RFC 1918, RFC 4193), carrier-grade (RFC 6598, where clusters live), or link-local.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let shared = Ipv4Addr::new(100, 64, 0, 0).to_bits() >> 22 == address.to_bits() >> 22;
            address.is_loopback() || address.is_private() || address.is_link_local() || shared
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::client::origin::Origin;

    fn target(host: &str, addresses: &[&str]) -> Resolved {
        let origin = Origin { tls: false, host: host.to_owned(), port: 80, unix: None };
        let addresses = addresses.iter().map(|address| (address.parse::<IpAddr>().unwrap(), 80).into()).collect();
        Resolved { origin, addresses }
    }

    #[test]
    fn near_targets_need_no_word() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.3.4",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(check_targets(&[target("near", &[address])], &[]), Ok(()), "{address}");
        }
        assert_eq!(check_targets(&[target("unix", &[])], &[]), Ok(()));
    }

    #[test]
    fn others_must_be_named() {
        for address in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "::ffff:8.8.8.8", "0.0.0.0"] {
            let targets = [target("far.example", &["10.0.0.1", address])];
            let error = check_targets(&targets, &["other.example".to_owned()]).expect_err(address);
            assert!(error.contains("--allow-target far.example"), "{error}");
            assert_eq!(check_targets(&targets, &["FAR.example".to_owned()]), Ok(()));
        }
    }

    #[test]
    fn rates_that_cannot_be_meant_are_refused() {
        let (near, far) = ([target("a", &["127.0.0.1"])], [target("b", &["8.8.8.8"])]);
        assert!(check_rate(500_000.0, &near).is_ok() && check_rate(500_001.0, &near).is_err());
        assert!(check_rate(20_000.0, &far).is_ok() && check_rate(20_001.0, &far).is_err());
    }
}
