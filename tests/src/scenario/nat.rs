//! nat: a service's address in front of a server, and a masqueraded client; what
//! connection tracking leaves alone, and what it does not know of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::expect::{Expect, expect, is_text, one, text};
use super::load::{Load, Place};
use super::tcp_connect::listening;
use super::tools::Tools;
use crate::net::netfilter::{Hook, Rules, Step};
use crate::net::netlink::Route;
use crate::net::pair::{FAR_V4, FAR_V6, NEAR_V4, NEAR_V6, Pair};

const SERVICE_PORT: u16 = 80;
const TCP: u8 = 6;

/// The addresses of one family.
struct Family {
    near: IpAddr,
    far: IpAddr,
    /// A second address of the near side, masqueraded as the first.
    hidden: IpAddr,
    /// Nobody has it.
    service: IpAddr,
}

const V4: Family = Family {
    near: NEAR_V4,
    far: FAR_V4,
    hidden: IpAddr::V4(Ipv4Addr::new(10, 211, 7, 3)),
    service: IpAddr::V4(Ipv4Addr::new(10, 211, 7, 200)),
};
const V6: Family = Family {
    near: NEAR_V6,
    far: FAR_V6,
    hidden: IpAddr::V6(Ipv6Addr::new(0xfd42, 0xcafe, 0, 7, 0, 0, 0, 3)),
    service: IpAddr::V6(Ipv6Addr::new(0xfd42, 0xcafe, 0, 7, 0, 0, 0, 0x200)),
};

/// Two namespaces, with servers in one, and a service's address for each in the
/// other.
pub struct Stage {
    pair: Pair,
    servers: [Load; 2],
    ports: [u16; 2],
    /// Through the IPv4 service, and open already.
    before: Load,
    before_local: String,
}

impl Stage {
    /// Sets it up; a connection is open when this is done.
    pub fn new(tools: &Tools) -> Result<Self> {
        let pair = Pair::new()?;
        let serve = |family: &Family| -> Result<(Load, u16)> {
            let listen = SocketAddr::new(family.far, 0).to_string();
            let arguments = [
                "--comm",
                "backend",
                "serve",
                "--listen",
                &listen,
                "--receive",
                "10",
            ];
            let arguments = [&arguments[..], &["--send", "20", "--connections", "9"]].concat();
            let mut server = Load::start(&tools.load, Place::In(&pair.far), &arguments)?;
            let address: SocketAddr = listening(&mut server)?.parse()?;
            Ok((server, address.port()))
        };
        let (v4, v4_port) = serve(&V4)?;
        let (v6, v6_port) = serve(&V6)?;
        pair.near.run(|| {
            let mut route = Route::open()?;
            route.add_address("near0", V4.hidden, 24)?;
            route.add_address("near0", V6.hidden, 64)?;
            for (rules, family, port) in [(Rules::v4(), V4, v4_port), (Rules::v6(), V6, v6_port)] {
                let service = [
                    Step::To(family.service),
                    Step::ToPort(TCP, SERVICE_PORT),
                    Step::Dnat(family.far, port),
                ];
                let hidden = [Step::From(family.hidden), Step::Masquerade];
                rules
                    .chain("nat", Hook::Output, &[&service])
                    .chain("nat", Hook::Postrouting, &[&hidden])
                    .apply()?;
            }
            Ok(())
        })?;
        let mut before = transfer(tools, &pair, &V4, Some(V4.hidden), true)?;
        let before_local = text(&before.line("connected")?, "/connected").to_owned();
        Ok(Self {
            pair,
            servers: [v4, v6],
            ports: [v4_port, v6_port],
            before,
            before_local,
        })
    }

    /// Connects in all ways and says what must be seen.
    pub fn run(mut self, tools: &Tools) -> Result<Vec<Expect>> {
        let mut expects = Vec::new();
        for (family, port) in [(V4, self.ports[0]), (V6, self.ports[1])] {
            let name = if family.far.is_ipv4() { "IPv4" } else { "IPv6" };
            let service = SocketAddr::new(family.service, SERVICE_PORT).to_string();
            let backend = SocketAddr::new(family.far, port).to_string();

            let local = self.once(tools, &family, Some(family.hidden), None)?;
            let seen = |events: &[Value], client: &str, service: &str, backend: &str| {
                through_both(events, client, service, backend).map(|seen_as| seen_as.to_string())
            };
            let near = family.near;
            expects.push(expect(
                format!("{name}: service and masquerade"),
                move |events| {
                    let seen_as = seen(events, &local, &service, &backend)?;
                    let ip = seen_as.parse::<SocketAddr>()?.ip();
                    // Of several IPv6 addresses the kernel takes the newest.
                    ensure!(ip == near || ip.is_ipv6(), "masqueraded as {seen_as}");
                    Ok(seen_as)
                },
            ));

            let backend = SocketAddr::new(family.far, port);
            let local = self.once(tools, &family, None, Some(backend))?;
            expects.push(expect(
                format!("{name}: nothing translated"),
                move |events| {
                    let event = flow_of(events, &local)?;
                    is_text(event, "/tcp_flow/nat", "NONE")?;
                    ensure!(event.pointer("/tcp_flow/remote_nat").is_none(), "{event}");
                    Ok(String::new())
                },
            ));
        }

        // Within the far namespace nothing is tracked.
        let to = SocketAddr::new(V4.far, self.ports[0]).to_string();
        let arguments = [
            "--comm",
            "untracked",
            "transfer",
            "--to",
            &to,
            "--send",
            "10",
        ];
        let arguments = [&arguments[..], &["--receive", "20"]].concat();
        let result = Load::run(&tools.load, Place::In(&self.pair.far), &arguments)?;
        let local = text(&result, "/connections/0/local").to_owned();
        expects.push(expect("not tracked: unresolved", move |events| {
            let event = flow_of(events, &local)?;
            is_text(event, "/tcp_flow/nat", "UNRESOLVED")?;
            Ok(String::new())
        }));

        self.before.go()?;
        self.before.finish()?;
        let (local, backend) = (
            self.before_local.clone(),
            SocketAddr::new(V4.far, self.ports[0]).to_string(),
        );
        expects.push(expect("open before the agent", move |events| {
            let event = flow_of(events, &local)?;
            is_text(event, "/tcp_flow/nat", "TRANSLATED")?;
            is_text(event, "/tcp_flow/remote_nat", &backend)?;
            Ok(String::new())
        }));
        drop(self.servers);
        Ok(expects)
    }

    fn once(
        &self,
        tools: &Tools,
        family: &Family,
        from: Option<IpAddr>,
        to: Option<SocketAddr>,
    ) -> Result<String> {
        let load = match to {
            None => transfer(tools, &self.pair, family, from, false)?,
            Some(to) => start(tools, &self.pair, to, from, false)?,
        };
        Ok(text(&load.finish()?, "/connections/0/local").to_owned())
    }
}

fn transfer(
    tools: &Tools,
    pair: &Pair,
    family: &Family,
    from: Option<IpAddr>,
    pause: bool,
) -> Result<Load> {
    let to = SocketAddr::new(family.service, SERVICE_PORT);
    start(tools, pair, to, from, pause)
}

fn start(
    tools: &Tools,
    pair: &Pair,
    to: SocketAddr,
    from: Option<IpAddr>,
    pause: bool,
) -> Result<Load> {
    let to = to.to_string();
    let mut arguments = vec!["--comm", "dialer", "transfer", "--to", &to];
    arguments.extend(["--send", "10", "--receive", "20"]);
    let from = from.map(|from| SocketAddr::new(from, 0).to_string());
    if let Some(from) = &from {
        arguments.extend(["--from", from]);
    }
    if pause {
        arguments.push("--pause");
    }
    Load::start(&tools.load, Place::In(&pair.near), &arguments)
}

/// The final record of the socket with this local end.
fn flow_of<'a>(events: &'a [Value], local: &str) -> Result<&'a Value> {
    one(events, "tcp_flow", |event| {
        text(event, "/tcp_flow/local") == local && text(event, "/tcp_flow/state") == "CLOSED"
    })
}

/// Both ends tell of the connection, each with the other's real address; as what
/// the server's socket sees the client.
fn through_both<'a>(
    events: &'a [Value],
    client: &str,
    service: &str,
    backend: &str,
) -> Result<&'a str> {
    let connect = one(events, "tcp_connect", |event| {
        text(event, "/tcp_connect/local") == client
    })?;
    is_text(connect, "/tcp_connect/remote", service)?;
    is_text(connect, "/tcp_connect/nat", "TRANSLATED")?;
    is_text(connect, "/tcp_connect/remote_nat", backend)?;
    let flow = flow_of(events, client)?;
    is_text(flow, "/tcp_flow/remote", service)?;
    is_text(flow, "/tcp_flow/remote_nat", backend)?;
    let seen_as = text(flow, "/tcp_flow/local_nat");
    let server = one(events, "tcp_flow", |event| {
        text(event, "/tcp_flow/remote") == seen_as && text(event, "/tcp_flow/state") == "CLOSED"
    })?;
    is_text(server, "/tcp_flow/local", backend)?;
    is_text(server, "/tcp_flow/role", "SERVER")?;
    is_text(server, "/tcp_flow/remote_nat", client)?;
    is_text(server, "/tcp_flow/local_nat", service)?;
    Ok(seen_as)
}
