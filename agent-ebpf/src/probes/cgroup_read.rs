//! cgroup_read: how long reads of cgroup files take, and how long flushes of
//! cgroup statistics hold their lock with interrupts off.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        RetProbeContext,
    },
};
use culprit_agent_ebpf::wire::{
    KIND_CGROUP_READ,
    cgroup_read::{CgroupRead, FlushNow, READ_FILE, READ_FLUSH, ReadNow},
    fields::ABSENT,
    stats::PROBE_CGROUP_READ,
};

use super::work;
use crate::{
    account::{self, Wake, add, emit},
    kernel::{self, Direct, Mem, Probed, Ptr, config, field, follow, load},
    maps::{CGROUP_READS, FLUSH_NOW, READ_WORK, RING_CRITICAL},
};

const SECOND: u64 = 1_000_000_000;
/// Records per CPU and second.
const LIMIT: u64 = 64;
/// `CSS_ONLINE`, include/linux/cgroup-defs.h, 5.10 to 7.2.
const CSS_ONLINE: u32 = 1 << 1;

static NOTHING: ReadNow = ReadNow {
    start_ns: 0,
    cgroup: 0,
    file_name: [0; 32],
    flushed: 0,
    flushed_dying: 0,
};

fn now() -> u64 {
    // SAFETY: no argument.
    unsafe { bpf_ktime_get_ns() }
}

/// `cgroup_seqfile_show(m, arg)` begins.
#[inline(always)]
fn begin<M: Mem>(seq: Ptr) {
    let id = bpf_get_current_pid_tgid();
    if CGROUP_READS.insert(id, &NOTHING, 0).is_err() {
        return account::dropped_map(PROBE_CGROUP_READ);
    }
    let Some(read) = CGROUP_READS.get_ptr_mut(id) else {
        return;
    };
    let dentry = follow!(M, seq, seq_file, file_dentry);
    let directory = follow!(M, dentry, dentry_parent, dentry_inode);
    let name = field!(dentry_name);
    // SAFETY: a live map value of this thread; d_iname has at least 32 bytes.
    unsafe {
        (*read).start_ns = now();
        (*read).cgroup = load!(M, directory, inode_ino: u64);
        if name != ABSENT {
            let out = (&raw mut (*read).file_name).cast::<u64>();
            out.write(M::load::<u64>(dentry, name));
            out.add(1).write(M::load::<u64>(dentry, name + 8));
            out.add(2).write(M::load::<u64>(dentry, name + 16));
            out.add(3).write(M::load::<u64>(dentry, name + 24));
        }
    }
}

/// Whether this CPU may send one more record in this second.
#[inline(always)]
fn admit(cpu: *mut FlushNow, time: u64) -> bool {
    // SAFETY: a per-CPU map value.
    unsafe {
        if time.wrapping_sub((*cpu).window_ns) >= SECOND {
            (*cpu).window_ns = time;
            (*cpu).in_window = 0;
        }
        if (*cpu).in_window >= LIMIT {
            account::suppressed(PROBE_CGROUP_READ);
            return false;
        }
        add(&raw mut (*cpu).in_window, 1);
    }
    true
}

#[inline(always)]
fn tell(fill: impl FnOnce(*mut CgroupRead)) {
    emit(
        &RING_CRITICAL,
        PROBE_CGROUP_READ,
        KIND_CGROUP_READ,
        Wake::Batched,
        |out: *mut CgroupRead| {
            // SAFETY: the record is valid for writes.
            unsafe {
                kernel::fill_current(&raw mut (*out).task);
                (*out).pad = 0;
                (*out).reserved = 0;
                (*out).reserved2 = 0;
            }
            fill(out);
        },
    );
}

/// ... and ends.
#[inline(always)]
fn end() {
    let id = bpf_get_current_pid_tgid();
    let Some(read) = CGROUP_READS.get_ptr_mut(id) else {
        return account::unmatched(PROBE_CGROUP_READ);
    };
    let time = now();
    // SAFETY: a live map value of this thread.
    let took = unsafe { time.wrapping_sub((*read).start_ns) };
    work::add_to(
        &READ_WORK,
        PROBE_CGROUP_READ,
        kernel::current_memory_cgroup(),
        took,
    );
    if took >= config!(read_floor_ns)
        && let Some(cpu) = FLUSH_NOW.get_ptr_mut(0)
        && admit(cpu, time)
    {
        tell(|out| {
            // SAFETY: both are valid.
            unsafe {
                (*out).took_ns = took;
                (*out).cgroup = (*read).cgroup;
                (*out).what = READ_FILE;
                (*out).flushed = (*read).flushed;
                (*out).flushed_dying = (*read).flushed_dying;
                let to = (&raw mut (*out).file_name).cast::<u64>();
                let from = (&raw const (*read).file_name).cast::<u64>();
                for word in 0..4 {
                    to.add(word).write(from.add(word).read());
                }
            }
        });
    }
    let _ = CGROUP_READS.remove(id);
}

/// The lock of the statistics is taken: interrupts are off from here on.
#[inline(always)]
fn locked() {
    if let Some(cpu) = FLUSH_NOW.get_ptr_mut(0) {
        // SAFETY: a per-CPU map value; this CPU cannot be left meanwhile.
        unsafe { (*cpu).locked_ns = now() };
    }
}

#[inline(always)]
fn unlocked<M: Mem>(cgroup: Ptr) {
    let Some(cpu) = FLUSH_NOW.get_ptr_mut(0) else {
        return;
    };
    let time = now();
    // SAFETY: a per-CPU map value.
    let since = unsafe {
        let since = (*cpu).locked_ns;
        (*cpu).locked_ns = 0;
        since
    };
    if since == 0 {
        return;
    }
    let held = time.wrapping_sub(since);
    // A stretch is a part of a read: told from a quarter of it on.
    if held < config!(read_floor_ns) / 4 || !admit(cpu, time) {
        return;
    }
    let id = kernel::cgroup_id::<M>(cgroup);
    tell(|out| {
        // SAFETY: the record is valid for writes.
        unsafe {
            (*out).took_ns = held;
            (*out).cgroup = id;
            (*out).what = READ_FLUSH;
            (*out).flushed = 0;
            (*out).flushed_dying = 0;
            let name = (&raw mut (*out).file_name).cast::<u64>();
            for word in 0..4 {
                name.add(word).write(0);
            }
        }
    });
}

/// `mem_cgroup_css_rstat_flush(css, cpu)`: one cgroup's numbers of one CPU.
#[inline(always)]
fn flushed<M: Mem>(css: Ptr) {
    let Some(read) = CGROUP_READS.get_ptr_mut(bpf_get_current_pid_tgid()) else {
        return;
    };
    // SAFETY: a live map value of this thread.
    unsafe {
        (*read).flushed += 1;
        if load!(M, css, css_flags: u32, CSS_ONLINE) & CSS_ONLINE == 0 {
            (*read).flushed_dying += 1;
        }
    }
}

#[fentry(function = "cgroup_seqfile_show")]
pub fn cgroup_read_fentry(ctx: FEntryContext) -> i32 {
    begin::<Direct>(ctx.arg(0));
    0
}

#[fexit(function = "cgroup_seqfile_show")]
pub fn cgroup_read_fexit(_ctx: FExitContext) -> i32 {
    end();
    0
}

#[kprobe]
pub fn cgroup_read_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(seq) = ctx.arg::<Ptr>(0) {
        begin::<Probed>(seq);
    }
    0
}

#[kretprobe]
pub fn cgroup_read_kretprobe(_ctx: RetProbeContext) -> u32 {
    end();
    0
}

#[fentry(function = "mem_cgroup_css_rstat_flush")]
pub fn css_flush_fentry(ctx: FEntryContext) -> i32 {
    flushed::<Direct>(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "cgroup_rstat_locked")]
pub fn rstat_locked_tp_btf(_ctx: BtfTracePointContext) -> i32 {
    locked();
    0
}

#[btf_tracepoint(function = "cgroup_rstat_unlock")]
pub fn rstat_unlock_tp_btf(ctx: BtfTracePointContext) -> i32 {
    unlocked::<Direct>(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "cgroup_rstat_locked")]
pub fn rstat_locked_raw_tp(_ctx: RawTracePointContext) -> i32 {
    locked();
    0
}

#[raw_tracepoint(tracepoint = "cgroup_rstat_unlock")]
pub fn rstat_unlock_raw_tp(ctx: RawTracePointContext) -> i32 {
    unlocked::<Probed>(ctx.arg(0));
    0
}
