//! Source addresses, as far as connections are counted by them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Where a connection comes from. An IPv6 host can have any of the addresses of its /64, so those are one source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// An IPv4 address, or the first address of an IPv6 /64.
    Ip(IpAddr),
    /// What is no IP address, in simulations and tests.
    Name(String),
}

impl Source {
    /// Of the address and port at the other end.
    pub(crate) fn of(peer: &str) -> Self {
        let Ok(address) = peer.parse::<SocketAddr>() else {
            return Self::Name(peer.rsplit_once(':').map_or(peer, |(host, _)| host).to_owned());
        };
        Self::Ip(match address.ip().to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
            ip => ip,
        })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "{ip}/64"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_address_without_its_port_and_a_network_of_ipv6() {
        let text = |peer| Source::of(peer).to_string();
        assert_eq!(text("10.0.0.9:51234"), "10.0.0.9");
        assert_eq!(text("[::ffff:10.0.0.9]:1"), "10.0.0.9");
        assert_eq!(text("[2001:db8:1:2:3:4:5:6]:1"), "2001:db8:1:2::/64");
        assert_eq!(Source::of("[2001:db8::1]:1"), Source::of("[2001:db8::2]:2"));
        assert_ne!(Source::of("127.0.0.1:1"), Source::of("127.0.0.2:1"));
        assert_eq!(text("n1:7"), "n1");
        assert_eq!(text("test"), "test");
    }
}
