//! Conditions on a client's source address: sets of addresses and networks, and what is made of
//! them with "and", "or" and "not".
//!
//! Pure and allocation-free where it is asked, as a shard asks it for every connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// An address or a network. IPv4 is kept in its IPv6 form, so that one order holds for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    first: u128,
    last: u128,
}

impl Network {
    /// The network of `bits` leading bits that an address is in, if it can have so many.
    pub fn new(ip: IpAddr, bits: u32) -> Option<Network> {
        let width: u32 = if ip.is_ipv4() { 32 } else { 128 };
        let host = 1u128.checked_shl(width.checked_sub(bits)?);
        let hosts = host.map_or(u128::MAX, |size| size - 1);
        let first = number(ip) & !hosts;
        Some(Network {
            first,
            last: first | hosts,
        })
    }

    /// Reads `<address>`, `<address>/<bits>` or `<IPv4 address>/<mask>`.
    pub fn parse(text: &str) -> Option<Network> {
        let Some((ip, mask)) = text.split_once('/') else {
            return Network::one(text.parse().ok()?);
        };
        let ip: IpAddr = ip.parse().ok()?;
        let digits = !mask.is_empty() && mask.bytes().all(|byte| byte.is_ascii_digit());
        if digits {
            return Network::new(ip, mask.parse().ok()?);
        }
        let mask = u32::from(mask.parse::<Ipv4Addr>().ok()?);
        let bits = mask.leading_ones();
        let is_mask = ip.is_ipv4() && bits + mask.trailing_zeros() >= 32;
        Network::new(ip, bits).filter(|_| is_mask)
    }

    /// A single address.
    pub fn one(ip: IpAddr) -> Option<Network> {
        Network::new(ip, if ip.is_ipv4() { 32 } else { 128 })
    }
}

fn number(ip: IpAddr) -> u128 {
    let six: Ipv6Addr = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    u128::from(six)
}

/// A set of addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Networks {
    /// Sorted, without overlaps: first and last addresses.
    ranges: Vec<(u128, u128)>,
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Networks {
        let pair = |network: Network| (network.first, network.last);
        let mut all: Vec<(u128, u128)> = networks.into_iter().map(pair).collect();
        all.sort_unstable();
        let mut ranges: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match ranges.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Networks { ranges }
    }
}

impl Networks {
    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = number(ip);
        let after = self.ranges.partition_point(|(first, _)| *first <= ip);
        after > 0 && ip <= self.ranges[after - 1].1
    }
}

/// A source address that is, or is not, in a set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceTerm {
    /// It must not be.
    pub negated: bool,
    /// The set; several that have one name are asked one after the other.
    pub networks: Vec<Arc<Networks>>,
}

/// When a rule holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceCondition {
    /// `unless`: when none of the alternatives does.
    pub unless: bool,
    /// One of them must hold, with all of its terms.
    pub alternatives: Vec<Vec<SourceTerm>>,
}

impl SourceCondition {
    /// Holds for everybody.
    pub fn always() -> SourceCondition {
        SourceCondition {
            unless: false,
            alternatives: vec![Vec::new()],
        }
    }

    /// Whether who is asked matters.
    pub fn asks(&self) -> bool {
        self.alternatives.iter().any(|terms| !terms.is_empty())
    }

    /// Whether it holds for a client; one of a Unix socket has no address and is in no set.
    pub fn holds(&self, client: Option<IpAddr>) -> bool {
        let is_in = |term: &SourceTerm| {
            let mut sets = term.networks.iter();
            client.is_some_and(|ip| sets.any(|networks| networks.contains(ip)))
        };
        let term_holds = |term: &SourceTerm| is_in(term) != term.negated;
        let any = self
            .alternatives
            .iter()
            .any(|terms| terms.iter().all(term_holds));
        any != self.unless
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(list: &[&str]) -> Networks {
        list.iter()
            .map(|text| Network::parse(text).unwrap())
            .collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_contain_what_is_in_them() {
        let set = set(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.168.1.7",
            "172.16.3.4/255.240.0.0",
            "2001:db8::/32",
            "::1",
            "fd00::5/64",
        ]);
        for inside in [
            "10.0.0.0",
            "10.255.255.255",
            "::ffff:10.2.3.4",
            "192.168.1.7",
            "172.31.255.255",
            "2001:db8:ffff::",
            "::1",
            "fd00::ffff",
        ] {
            assert!(set.contains(ip(inside)), "{inside}");
        }
        for outside in [
            "9.255.255.255",
            "11.0.0.0",
            "192.168.1.6",
            "192.168.1.8",
            "172.32.0.0",
            "2001:db9::",
            "::2",
            "fd00:0:0:1::",
        ] {
            assert!(!set.contains(ip(outside)), "{outside}");
        }
        assert!(!Networks::default().contains(ip("::1")));
        let all = super::tests::set(&["0.0.0.0/0"]);
        assert!(all.contains(ip("255.255.255.255")) && !all.contains(ip("::1")));
        let all = super::tests::set(&["::/0"]);
        assert!(all.contains(ip("1.2.3.4")) && all.contains(ip("ffff::")));
    }

    #[test]
    fn what_is_no_network() {
        for text in [
            "",
            "10",
            "10/8",
            "1.2.3",
            "1.2.3.4/",
            "1.2.3.4/33",
            "1.2.3.4/+8",
            "1.2.3.4/255.0.255.0",
            "::1/129",
            "::1/255.0.0.0",
            "01.2.3.4",
            "name",
            "1.2.3.4/8/8",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn conditions_are_or_of_and() {
        let term = |negated: bool, list: &[&str]| SourceTerm {
            negated,
            networks: list.iter().map(|text| Arc::new(set(&[text]))).collect(),
        };
        let mut condition = SourceCondition {
            unless: false,
            alternatives: vec![
                vec![term(false, &["10.0.0.0/8"]), term(true, &["10.1.0.0/16"])],
                vec![term(false, &["::1", "::2"])],
            ],
        };
        let expected = [
            ("10.2.0.1", true),
            ("10.1.0.1", false),
            ("::2", true),
            ("::3", false),
        ];
        for (address, holds) in expected {
            condition.unless = false;
            assert_eq!(condition.holds(Some(ip(address))), holds, "{address}");
            condition.unless = true;
            assert_eq!(condition.holds(Some(ip(address))), !holds, "{address}");
        }
        assert!(condition.holds(None) && condition.asks());
        let always = SourceCondition::always();
        assert!(always.holds(None) && !always.asks());
    }
}
