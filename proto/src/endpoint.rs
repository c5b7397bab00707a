//! An address and a port: `v1::Endpoint` from and to the standard types.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::v1::{Endpoint, Event, event::Kind, tcp_flow::Role};

impl Endpoint {
    /// An endpoint of `ip` and `port`; IPv4-mapped IPv6 becomes IPv4.
    pub fn new(ip: IpAddr, port: u16) -> Self {
        let ip = match ip.to_canonical() {
            IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
        };
        Self {
            ip,
            port: u32::from(port),
        }
    }

    /// The address; `None` when `ip` has neither 4 nor 16 bytes.
    pub fn addr(&self) -> Option<IpAddr> {
        if let Ok(v4) = <[u8; 4]>::try_from(&self.ip[..]) {
            return Some(Ipv4Addr::from(v4).into());
        }
        let v6 = <[u8; 16]>::try_from(&self.ip[..]).ok()?;
        Some(Ipv6Addr::from(v6).into())
    }
}

impl Event {
    /// The other end of a connection behind its address (`remote_nat`), or as it is
    /// named where nothing else is known; `None` for events of no connection.
    pub fn far_end(&self) -> Option<&Endpoint> {
        match &self.kind {
            Some(Kind::TcpConnect(one)) => one.remote_nat.as_ref().or(one.remote.as_ref()),
            Some(Kind::TcpFlow(one)) => one.remote_nat.as_ref().or(one.remote.as_ref()),
            Some(Kind::TcpEdge(one)) => one.remote.as_ref(),
            _ => None,
        }
    }

    /// The far end is the server: its port says who it is.
    pub fn far_end_serves(&self) -> bool {
        match &self.kind {
            Some(Kind::TcpConnect(_)) => true,
            Some(Kind::TcpFlow(one)) => one.role() == Role::Client,
            Some(Kind::TcpEdge(one)) => one.role() == Role::Client,
            _ => false,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.ip(), addr.port())
    }
}

/// `1.2.3.4:80`, `[::1]:80`; the bare address when the port is 0; `?` for an
/// address that is none.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addr(), self.port) {
            (Some(ip), 0) => write!(f, "{ip}"),
            (Some(IpAddr::V4(ip)), port) => write!(f, "{ip}:{port}"),
            (Some(IpAddr::V6(ip)), port) => write!(f, "[{ip}]:{port}"),
            (None, 0) => f.write_str("?"),
            (None, port) => write!(f, "?:{port}"),
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_people_write_addresses() {
        let show = |s: &str| {
            s.parse::<SocketAddr>()
                .map(|a| Endpoint::from(a).to_string())
                .unwrap_or_default()
        };
        assert_eq!(show("1.2.3.4:80"), "1.2.3.4:80");
        assert_eq!(show("1.2.3.4:0"), "1.2.3.4");
        assert_eq!(show("[::1]:80"), "[::1]:80");
        assert_eq!(show("[::1]:0"), "::1");
        assert_eq!(show("[::ffff:10.0.0.1]:443"), "10.0.0.1:443");
        let odd = Endpoint {
            ip: Bytes::from_static(&[1, 2, 3]),
            port: 7,
        };
        assert_eq!(odd.to_string(), "?:7");
    }
}
