//! Every map and global, with its bound. Bounds marked "set at load" are
//! defaults that the agent overrides.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use culprit_agent_ebpf::wire::{
    cgroup_read::{FlushNow, ReadNow, ReadWork},
    config::Config,
    dns::{DnsKey, DnsName, DnsNameKey, DnsNow},
    fields::KernelFields,
    holder::HolderNow,
    icmp_echo::{IcmpPending, IcmpRate, IcmpSource},
    nat::NatEntry,
    oom::{OomCall, OomSignal},
    reclaim::{ReclaimNow, ReclaimWork},
    runq::{RunqNow, RunqWork},
    sigterm::SigtermNow,
    skb_drop::{DropCount, DropKey},
    softirq::{Histogram, PacketSlot, SoftirqNow, VECTORS, VectorStats},
    stats::{PROBES, ProbeStats},
    tcp::{Call, Listener, ListenerKey, SockState, Tuple},
    work::Work,
};

/// Field offsets of this kernel; set at load.
#[unsafe(no_mangle)]
pub static FIELDS: KernelFields = KernelFields::NONE;

/// Thresholds, limits and what this kernel has; set at load.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config::NONE;

/// Lane 0: kills and stalls. Set at load.
#[map]
pub static RING_CRITICAL: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);
/// Lane 1: connects, ICMP, cgroups. Set at load.
#[map]
pub static RING_SIGNAL: RingBuf = RingBuf::with_byte_size(1024 * 1024, 0);
/// Lane 2: closed connections. Set at load.
#[map]
pub static RING_BULK: RingBuf = RingBuf::with_byte_size(1024 * 1024, 0);

/// Accounting, one row per probe.
#[map]
pub static STATS: PerCpuArray<ProbeStats> = PerCpuArray::with_max_entries(PROBES, 0);

/// Sockets under way, by `struct sock *`. HASH: never evicts silently; what
/// does not fit is counted. Set at load.
#[map]
pub static SOCKS: HashMap<u64, SockState> = HashMap::with_max_entries(32768, 0);
/// Ends of connections that found no room in SOCKS, by memory cgroup of who
/// connected or listens. Row 0 has those of whom that is not known, and of the
/// workloads that find no room here.
#[map]
pub static UNTRACKED: HashMap<u64, u64> = HashMap::with_max_entries(1024, 0);
/// Changes of a socket's state that the first of two programs has done and that
/// SOCKS does not show, by `struct sock *`; the second takes them out again. LRU:
/// what it was skipped for stays.
#[map]
pub static HANDLED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(2048, 0);
/// Who listens where.
#[map]
pub static LISTENERS: HashMap<ListenerKey, Listener> = HashMap::with_max_entries(8192, 0);
/// Inode number of the first process's network namespace: the node's own.
#[map]
pub static HOST_NETNS: Array<u32> = Array::with_max_entries(1, 0);
/// Connect and send calls under way, by pid_tgid.
#[map]
pub static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(8192, 0);

/// Rate windows. LRU: a cache, not events in flight; what its rows held back is
/// in STATS too.
#[map]
pub static ICMP_SOURCES: LruHashMap<IcmpSource, IcmpRate> = LruHashMap::with_max_entries(1024, 0);
#[map]
pub static ICMP_PENDING: PerCpuArray<IcmpPending> = PerCpuArray::with_max_entries(1, 0);

/// The real ends of connections, by the ends as a socket has them. LRU: a row is
/// of use from a connection's first packet to the end of its handshake, and
/// what was thrown out by then is told as unresolved.
#[map]
pub static NAT: LruHashMap<Tuple, NatEntry> = LruHashMap::with_max_entries(65536, 0);

/// Dropped SYNs by server and reason. LRU: a rate limit and its counts; what its
/// rows held back is in STATS too.
#[map]
pub static SKB_DROPS: LruHashMap<DropKey, DropCount> = LruHashMap::with_max_entries(1024, 0);

#[map]
pub static SOFTIRQ_NOW: PerCpuArray<SoftirqNow> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static SOFTIRQ_STATS: PerCpuArray<VectorStats> =
    PerCpuArray::with_max_entries(VECTORS as u32, 0);
#[map]
pub static LATENESS: PerCpuArray<Histogram> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static QUEUE_WAIT: PerCpuArray<Histogram> = PerCpuArray::with_max_entries(1, 0);
/// Packets whose way from netif_rx to netif_receive_skb is timed: a sample.
#[map]
pub static PACKETS: Array<PacketSlot> = Array::with_max_entries(PACKET_SLOTS, 0);
pub const PACKET_SLOTS: u32 = 64;

/// oom_kill_process under way, by the trigger's tid.
#[map]
pub static OOM_CALLS: HashMap<u32, OomCall> = HashMap::with_max_entries(256, 0);
/// Rate limit of sigterm.
#[map]
pub static SIGTERM_NOW: PerCpuArray<SigtermNow> = PerCpuArray::with_max_entries(1, 0);

/// Last SIGKILL generated, by the sender's tid (5.10 only). LRU: nearly all rows
/// are of ordinary kills, that nothing follows.
#[map]
pub static OOM_SIGNALS: LruHashMap<u32, OomSignal> = LruHashMap::with_max_entries(1024, 0);

#[map]
pub static HOLDER_NOW: PerCpuArray<HolderNow> = PerCpuArray::with_max_entries(1, 0);

/// Reads of cgroup files under way, by pid_tgid.
#[map]
pub static CGROUP_READS: HashMap<u64, ReadNow> = HashMap::with_max_entries(1024, 0);
#[map]
pub static FLUSH_NOW: PerCpuArray<FlushNow> = PerCpuArray::with_max_entries(1, 0);
/// Reads by reader, by its memory cgroup.
#[map]
pub static READ_WORK: HashMap<u64, ReadWork> = HashMap::with_max_entries(512, 0);

/// Reclaim under way, by pid_tgid.
#[map]
pub static RECLAIM_NOW: HashMap<u64, ReclaimNow> = HashMap::with_max_entries(1024, 0);
/// Reclaim by memory cgroup of the task.
#[map]
pub static RECLAIM_WORK: HashMap<u64, ReclaimWork> = HashMap::with_max_entries(1024, 0);

#[map]
pub static RUNQ_NOW: PerCpuArray<RunqNow> = PerCpuArray::with_max_entries(1, 0);
/// Run-queue waits by memory cgroup of the task.
#[map]
pub static RUNQ_WORK: HashMap<u64, RunqWork> = HashMap::with_max_entries(2048, 0);

/// Questions without an answer.
#[map]
pub static DNS_NOW: HashMap<DnsKey, DnsNow> = HashMap::with_max_entries(4096, 0);
/// By which name a workload last looked an address up. LRU: a cache; what was thrown out
/// is an address without a name.
#[map]
pub static DNS_NAMES: LruHashMap<DnsNameKey, DnsName> = LruHashMap::with_max_entries(16384, 0);
/// Answered lookups by memory cgroup of who asked.
#[map]
pub static DNS_WORK: HashMap<u64, Work> = HashMap::with_max_entries(1024, 0);
