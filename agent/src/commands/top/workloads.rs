//! Workloads by what went wrong with them and what they move.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use culprit_proto::text;
use culprit_proto::v1::{Identity, TcpConnect, TcpEdge, TcpFlow, tcp_connect, tcp_flow};

use super::window::{Counts, Window};

/// Workloads that have a row; beyond, the one silent longest gives its row up.
const MAX_WORKLOADS: usize = 512;

/// Open connections whose records are told apart; the others count at their
/// close.
const MAX_FLOWS: usize = 8192;

/// One workload.
#[derive(Clone, Debug, Default)]
pub(super) struct Workload {
    /// As far as the events go back.
    pub(super) all: Counts,
    window: Window,
    last: u64,
}

/// Names a connection among those that are open. Interval records of one
/// carry totals: only what came since the last one is new.
type FlowKey = (u32, String, String, i32, u64);

/// Every workload. Memory: [`MAX_WORKLOADS`] rows and [`MAX_FLOWS`] flows.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    rows: BTreeMap<String, Workload>,
    flows: BTreeMap<FlowKey, (u64, u64)>,
    /// Rows that were given up.
    pub(super) forgotten: u64,
}

impl Workloads {
    pub(super) fn connect(&mut self, who: Option<&Identity>, time: u64, connect: &TcpConnect) {
        use tcp_connect::Outcome;
        let failed = !matches!(connect.outcome(), Outcome::Established | Outcome::Unknown);
        let counts = Counts {
            connects: 1,
            failed: failed.into(),
            ..Counts::default()
        };
        self.add(who, time, counts);
    }

    pub(super) fn kill(&mut self, who: Option<&Identity>, time: u64) {
        let kills = 1;
        self.add(
            who,
            time,
            Counts {
                kills,
                ..Counts::default()
            },
        );
    }

    pub(super) fn stalls(&mut self, who: Option<&Identity>, time: u64, stalls: u64) {
        self.add(
            who,
            time,
            Counts {
                stalls,
                ..Counts::default()
            },
        );
    }

    pub(super) fn flow(&mut self, who: Option<&Identity>, time: u64, flow: &TcpFlow) {
        let end = |end: &Option<culprit_proto::v1::Endpoint>| {
            end.as_ref().map_or_else(String::new, ToString::to_string)
        };
        let key = (
            who.map_or(0, |who| who.netns),
            end(&flow.local),
            end(&flow.remote),
            flow.role,
            flow.opened_at,
        );
        let now = (flow.bytes_sent, flow.bytes_received);
        let before = if flow.state() == tcp_flow::State::Open {
            if self.flows.len() >= MAX_FLOWS && !self.flows.contains_key(&key) {
                return;
            }
            self.flows.insert(key, now)
        } else {
            self.flows.remove(&key)
        };
        let (sent, received) = before.unwrap_or_default();
        let counts = Counts {
            sent: now.0.saturating_sub(sent),
            received: now.1.saturating_sub(received),
            ..Counts::default()
        };
        self.add(who, time, counts);
    }

    pub(super) fn edge(&mut self, who: Option<&Identity>, time: u64, edge: &TcpEdge) {
        let counts = Counts {
            sent: edge.bytes_sent,
            received: edge.bytes_received,
            ..Counts::default()
        };
        self.add(who, time, counts);
    }

    fn add(&mut self, who: Option<&Identity>, time: u64, counts: Counts) {
        let name = match text::workload(who) {
            name if name.is_empty() => "unknown".to_owned(),
            name => name,
        };
        if self.rows.len() >= MAX_WORKLOADS && !self.rows.contains_key(&name) {
            let silent = self.rows.iter().min_by_key(|(_, row)| row.last);
            if let Some(silent) = silent.map(|(name, _)| name.clone()) {
                self.rows.remove(&silent);
                self.forgotten += 1;
            }
        }
        let row = self.rows.entry(name).or_default();
        row.all.add(counts);
        row.window.add(time, counts);
        row.last = row.last.max(time);
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Name, row and counts of the last minute: those in trouble now first (a
    /// kill before all),
    /// then those that were, then by bytes.
    pub(super) fn sorted(&self, now: u64) -> Vec<(&str, &Workload, Counts)> {
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .map(|(name, row)| (name.as_str(), row, row.window.sum(now)))
            .collect();
        rows.sort_by_cached_key(|(name, row, minute)| {
            Reverse((
                minute.kills,
                minute.trouble(),
                row.all.kills,
                row.all.trouble(),
                minute.bytes(),
                minute.connects,
                row.all.bytes(),
                row.all.connects,
                Reverse((*name).to_owned()),
            ))
        });
        rows
    }
}

#[cfg(test)]
mod tests {
    use culprit_proto::v1::Cgroup;

    use super::*;

    const NOW: u64 = 1_795_348_800_000_000_000;

    fn who(path: &str) -> Identity {
        Identity {
            cgroup: Some(Cgroup {
                path: path.to_owned(),
                ..Cgroup::default()
            }),
            ..Identity::default()
        }
    }

    fn flow(sent: u64, state: tcp_flow::State, opened_at: u64) -> TcpFlow {
        TcpFlow {
            bytes_sent: sent,
            bytes_received: sent * 2,
            state: state.into(),
            opened_at,
            ..TcpFlow::default()
        }
    }

    #[test]
    fn bytes_of_a_connection_count_once() {
        use tcp_flow::State::{Closed, Open};
        let mut all = Workloads::default();
        let a = who("/a");
        for (sent, state) in [(100, Open), (150, Open), (170, Closed), (7, Closed)] {
            all.flow(Some(&a), NOW, &flow(sent, state, 1));
        }
        let rows = all.sorted(NOW);
        assert_eq!((rows[0].1.all.sent, rows[0].2.received), (177, 354));
        assert!(all.flows.is_empty());
    }

    #[test]
    fn sums_of_an_agent_that_tells_edges_are_bytes_too() {
        let mut all = Workloads::default();
        let edge = TcpEdge {
            bytes_sent: 5,
            bytes_received: 7,
            ..TcpEdge::default()
        };
        for _ in 0..2 {
            all.edge(Some(&who("/a")), NOW, &edge);
        }
        let rows = all.sorted(NOW);
        assert_eq!((rows[0].1.all.sent, rows[0].2.received), (10, 14));
    }

    #[test]
    fn trouble_comes_before_bytes_and_fresh_trouble_first() {
        let mut all = Workloads::default();
        let refused = TcpConnect {
            outcome: tcp_connect::Outcome::Refused.into(),
            ..TcpConnect::default()
        };
        all.flow(
            Some(&who("/busy")),
            NOW,
            &flow(9, tcp_flow::State::Closed, 1),
        );
        all.kill(Some(&who("/killed")), NOW - 600_000_000_000);
        all.connect(Some(&who("/refused")), NOW, &refused);
        all.connect(None, NOW, &TcpConnect::default());
        let order: Vec<_> = all.sorted(NOW).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(order, ["/refused", "/killed", "/busy", "unknown"]);
    }

    #[test]
    fn rows_and_flows_are_bounded_and_nothing_counts_twice() {
        use tcp_flow::State::{Closed, Open};
        let mut all = Workloads::default();
        let a = who("/a");
        let flows = MAX_FLOWS as u64 + 100;
        for state in [Open, Closed] {
            for opened_at in 0..flows {
                all.flow(Some(&a), NOW, &flow(1, state, opened_at));
            }
            assert!(all.flows.len() <= MAX_FLOWS);
        }
        assert_eq!(all.sorted(NOW)[0].1.all.sent, flows);
        for n in 0..2000 {
            all.kill(Some(&who(&format!("/{n}"))), NOW + n);
        }
        assert_eq!((all.len(), all.forgotten), (MAX_WORKLOADS, 2001 - 512));
        assert!(all.rows.contains_key("/1999"));
    }
}
