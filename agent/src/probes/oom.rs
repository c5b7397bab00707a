//! oom: a kill, its trigger and the owner of the limit.

use culprit_agent_ebpf::wire::oom as wire;
use culprit_proto::v1::{
    OomKill,
    event::Kind,
    oom_kill::{LimitSource, Scope},
};

use super::{Clock, who};
use crate::{
    identity::Actor,
    pipeline::source::{Draft, Slot},
};

/// CONSTRAINT_MEMCG, include/linux/oom.h.
const CONSTRAINT_MEMCG: u32 = 3;
/// `PAGE_COUNTER_MAX` and values near it mean no limit.
const NO_LIMIT_PAGES: u64 = u64::MAX >> 13;

pub(super) fn event(record: &wire::OomKill, clock: &Clock) -> Draft {
    let page = rustix::param::page_size() as u64;
    let bytes = |pages: u64| {
        if pages >= NO_LIMIT_PAGES {
            0
        } else {
            pages.saturating_mul(page)
        }
    };
    let resident = |pages: i64| u64::try_from(pages).unwrap_or(0).saturating_mul(page);
    let global = record.limit_source == wire::LIMIT_OOM_CONTROL
        && record.limit_cgroup == 0
        && record.constraint != CONSTRAINT_MEMCG;
    let kind = OomKill {
        // The scope of a limit owner is known when its cgroup is.
        scope: if global { Scope::Node } else { Scope::Unknown } as i32,
        limit_bytes: bytes(if global {
            record.total_pages
        } else {
            record.limit_pages
        }),
        usage_bytes: bytes(record.usage_pages),
        anon_bytes: resident(record.anon_pages),
        file_bytes: resident(record.file_pages),
        shmem_bytes: resident(record.shmem_pages),
        oom_score_adj: record.oom_score_adj,
        victim_was_init: record.ns_level > 0 && record.ns_pid == 1,
        limit_source: match record.limit_source {
            wire::LIMIT_OOM_CONTROL => LimitSource::OomControl,
            wire::LIMIT_PAGE_COUNTERS => LimitSource::PageCounters,
            _ => LimitSource::Unknown,
        } as i32,
        order: record.order,
        gfp_mask: record.gfp_mask,
        victim_ns_pid: record.ns_pid,
        ..OomKill::default()
    };
    let mut actors = vec![
        (Slot::Who, who::actor(&record.victim, 0, 0)),
        (Slot::Trigger, who::actor(&record.trigger, 0, 0)),
    ];
    if record.limit_cgroup != 0 {
        let owner = Actor {
            cgroup_memory: record.limit_cgroup,
            ..Actor::default()
        };
        actors.push((Slot::LimitOwner, owner));
    }
    Draft {
        opened_ns: 0,
        event: super::event(&record.header, clock, Kind::OomKill(kind)),
        actors,
    }
}
