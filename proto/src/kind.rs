//! The kinds of events, their lanes, and the filter that every reader shares.

use std::fmt;
use std::str::FromStr;

use crate::v1::{DumpRequest, Event, EventsRequest, Lane, event};

/// A kind of event, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A client's attempt to connect.
    TcpConnect,
    /// A connection's record, interval or final.
    TcpFlow,
    /// An ICMP echo request answered.
    IcmpEcho,
    /// A softirq, timer or packet that waited too long.
    SoftirqStall,
    /// A kill by the out-of-memory killer.
    OomKill,
    /// What was lost where.
    Loss,
    /// Which probes run in which flavour.
    Coverage,
    /// Histograms and counters.
    NodeStats,
    /// A DNS lookup that failed, was retried or took long.
    DnsLookup,
    /// A listener under pressure.
    TcpListen,
    /// Histograms and counters of one workload.
    WorkloadStats,
    /// A diagnosis.
    Finding,
    /// Pods of the node and their addresses.
    Inventory,
    /// Records of connections between two ends, summed up.
    TcpEdge,
}

impl EventKind {
    /// Every kind, in the order of the proto.
    pub const ALL: [Self; 14] = [
        Self::TcpConnect,
        Self::TcpFlow,
        Self::IcmpEcho,
        Self::SoftirqStall,
        Self::OomKill,
        Self::Loss,
        Self::Coverage,
        Self::NodeStats,
        Self::DnsLookup,
        Self::TcpListen,
        Self::WorkloadStats,
        Self::Finding,
        Self::Inventory,
        Self::TcpEdge,
    ];

    /// Field name in `Event`'s oneof, as JSON and the command line have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpConnect => "tcp_connect",
            Self::TcpFlow => "tcp_flow",
            Self::IcmpEcho => "icmp_echo",
            Self::SoftirqStall => "softirq_stall",
            Self::OomKill => "oom_kill",
            Self::Loss => "loss",
            Self::Coverage => "coverage",
            Self::NodeStats => "node_stats",
            Self::DnsLookup => "dns_lookup",
            Self::TcpListen => "tcp_listen",
            Self::WorkloadStats => "workload_stats",
            Self::Finding => "finding",
            Self::Inventory => "inventory",
            Self::TcpEdge => "tcp_edge",
        }
    }

    /// The lane this kind travels in.
    pub const fn lane(self) -> Lane {
        match self {
            Self::SoftirqStall | Self::OomKill | Self::Loss | Self::Coverage | Self::Finding => {
                Lane::Critical
            }
            Self::TcpConnect
            | Self::IcmpEcho
            | Self::DnsLookup
            | Self::TcpListen
            | Self::Inventory => Lane::Signal,
            Self::TcpFlow | Self::NodeStats | Self::WorkloadStats | Self::TcpEdge => Lane::Bulk,
        }
    }

    /// The kind of `event`; `None` when a later version made it.
    pub const fn of(event: &Event) -> Option<Self> {
        Some(match &event.kind {
            Some(event::Kind::TcpConnect(_)) => Self::TcpConnect,
            Some(event::Kind::TcpFlow(_)) => Self::TcpFlow,
            Some(event::Kind::IcmpEcho(_)) => Self::IcmpEcho,
            Some(event::Kind::SoftirqStall(_)) => Self::SoftirqStall,
            Some(event::Kind::OomKill(_)) => Self::OomKill,
            Some(event::Kind::Loss(_)) => Self::Loss,
            Some(event::Kind::Coverage(_)) => Self::Coverage,
            Some(event::Kind::NodeStats(_)) => Self::NodeStats,
            Some(event::Kind::DnsLookup(_)) => Self::DnsLookup,
            Some(event::Kind::TcpListen(_)) => Self::TcpListen,
            Some(event::Kind::WorkloadStats(_)) => Self::WorkloadStats,
            Some(event::Kind::Finding(_)) => Self::Finding,
            Some(event::Kind::Inventory(_)) => Self::Inventory,
            Some(event::Kind::TcpEdge(_)) => Self::TcpEdge,
            None => return None,
        })
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EventKind {
    type Err = String;

    /// # Errors
    /// One sentence with the kinds there are.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| {
                format!(
                    "there is no event kind \"{}\"; the kinds are {}",
                    crate::text::escape(text),
                    Self::ALL.map(Self::name).join(", ")
                )
            })
    }
}

/// Name of the kind of `event`; "unknown" when a later version made it.
pub const fn name(event: &Event) -> &'static str {
    match EventKind::of(event) {
        Some(kind) => kind.name(),
        None => "unknown",
    }
}

/// The lane `event` travels in; a kind this version does not know goes BULK.
pub const fn lane(event: &Event) -> Lane {
    match EventKind::of(event) {
        Some(kind) => kind.lane(),
        None => Lane::Bulk,
    }
}

/// A pod, or a whole namespace when `name` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFilter {
    /// The namespace.
    pub namespace: String,
    /// The pod's name; empty: any.
    pub name: String,
}

impl FromStr for PodFilter {
    type Err = String;

    /// `NS/NAME`, or `NS` or `NS/` for every pod of the namespace.
    ///
    /// # Errors
    /// One sentence with the form.
    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = text.split_once('/').unwrap_or((text, ""));
        if namespace.is_empty() || name.contains('/') {
            return Err(format!(
                "\"{}\" names no pod; write NAMESPACE/NAME, or NAMESPACE for all its pods",
                crate::text::escape(text)
            ));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// What a reader wants to see. Parts are combined with AND; an empty part
/// lets everything through. `last` is the caller's to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any of these kinds.
    pub kinds: Vec<EventKind>,
    /// The pod in the event's `who`.
    pub pod: Option<PodFilter>,
    /// At or after, nanoseconds since the Unix epoch; 0: open.
    pub since: u64,
    /// Before, nanoseconds since the Unix epoch; 0: open.
    pub until: u64,
    /// Only the newest so many; 0: all.
    pub last: u64,
}

impl Filter {
    /// Whether `event` passes (all but `last`).
    pub fn matches(&self, event: &Event) -> bool {
        let kind = self.kinds.is_empty()
            || EventKind::of(event).is_some_and(|kind| self.kinds.contains(&kind));
        let pod = self.pod.as_ref().is_none_or(|wanted| {
            event
                .who
                .as_ref()
                .and_then(|who| who.pod.as_ref())
                .is_some_and(|pod| {
                    pod.namespace == wanted.namespace
                        && (wanted.name.is_empty() || pod.name == wanted.name)
                })
        });
        kind && pod && event.time >= self.since && (self.until == 0 || event.time < self.until)
    }

    fn kind_names(&self) -> Vec<String> {
        self.kinds.iter().map(|k| k.name().to_owned()).collect()
    }

    /// The question to a running agent.
    pub fn to_dump_request(&self, follow: bool) -> DumpRequest {
        let pod = self.pod.clone().unwrap_or_default();
        DumpRequest {
            kinds: self.kind_names(),
            pod_namespace: pod.namespace,
            pod_name: pod.name,
            since: self.since,
            until: self.until,
            last: self.last,
            follow,
        }
    }

    /// The question to a running collector; `node` empty: any node.
    pub fn to_events_request(&self, node: &str) -> EventsRequest {
        let pod = self.pod.clone().unwrap_or_default();
        EventsRequest {
            kinds: self.kind_names(),
            node: node.to_owned(),
            pod_namespace: pod.namespace,
            pod_name: pod.name,
            since: self.since,
            until: self.until,
            last: self.last,
        }
    }
}

fn pod_filter(namespace: &str, name: &str) -> Result<Option<PodFilter>, String> {
    match (namespace, name) {
        ("", "") => Ok(None),
        ("", _) => Err("pod_name is given without pod_namespace; give both".to_owned()),
        (namespace, name) => Ok(Some(PodFilter {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })),
    }
}

fn kinds(names: &[String]) -> Result<Vec<EventKind>, String> {
    names.iter().map(|name| name.parse()).collect()
}

impl TryFrom<&DumpRequest> for Filter {
    type Error = String;

    /// # Errors
    /// One sentence about the field that is wrong.
    fn try_from(request: &DumpRequest) -> Result<Self, String> {
        Ok(Self {
            kinds: kinds(&request.kinds)?,
            pod: pod_filter(&request.pod_namespace, &request.pod_name)?,
            since: request.since,
            until: request.until,
            last: request.last,
        })
    }
}

impl TryFrom<&EventsRequest> for Filter {
    type Error = String;

    /// The request's `node` is the caller's to keep.
    ///
    /// # Errors
    /// One sentence about the field that is wrong.
    fn try_from(request: &EventsRequest) -> Result<Self, String> {
        Ok(Self {
            kinds: kinds(&request.kinds)?,
            pod: pod_filter(&request.pod_namespace, &request.pod_name)?,
            since: request.since,
            until: request.until,
            last: request.last,
        })
    }
}
