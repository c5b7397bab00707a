//! cgroup: directories made and removed, so that the agent knows a container
//! before its first event. Process context, stable from 5.10 to 7.2.

use aya_ebpf::{
    helpers::bpf_probe_read_kernel_str_bytes,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::{
    KIND_CGROUP,
    cgroup::{CGROUP_MKDIR, CGROUP_RMDIR, Cgroup, PATH_BYTES},
    config::HAVE_PROBE_READ,
    stats::PROBE_CGROUP,
};

use crate::{
    account::{Wake, emit},
    kernel::{Direct, Mem, Probed, Ptr, follow, have, load},
    maps::RING_SIGNAL,
};

#[inline(always)]
fn changed<M: Mem>(cgroup: Ptr, path: Ptr, op: u32) {
    emit(
        &RING_SIGNAL,
        PROBE_CGROUP,
        KIND_CGROUP,
        Wake::Now,
        |out: *mut Cgroup| {
            // SAFETY: the record is valid for writes.
            unsafe {
                (*out).id = crate::kernel::cgroup_id::<M>(cgroup);
                let root = follow!(M, cgroup, cgroup_root);
                (*out).hierarchy = load!(M, root, root_hierarchy_id: u32);
                (*out).op = op;
                (*out).path_len = 0;
                (*out).pad = 0;
                // Every byte of a record is written: the ring does not zero.
                (&raw mut (*out).path)
                    .cast::<[u64; PATH_BYTES / 8]>()
                    .write([0; PATH_BYTES / 8]);
                if have(HAVE_PROBE_READ) {
                    let buffer = &mut *(&raw mut (*out).path);
                    if let Ok(text) = bpf_probe_read_kernel_str_bytes(path, buffer) {
                        (*out).path_len = text.len() as u32;
                    }
                }
            }
        },
    );
}

#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir_tp_btf(ctx: BtfTracePointContext) -> i32 {
    changed::<Direct>(ctx.arg(0), ctx.arg(1), CGROUP_MKDIR);
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir_tp_btf(ctx: BtfTracePointContext) -> i32 {
    changed::<Direct>(ctx.arg(0), ctx.arg(1), CGROUP_RMDIR);
    0
}

#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_mkdir_raw_tp(ctx: RawTracePointContext) -> i32 {
    changed::<Probed>(ctx.arg(0), ctx.arg(1), CGROUP_MKDIR);
    0
}

#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn cgroup_rmdir_raw_tp(ctx: RawTracePointContext) -> i32 {
    changed::<Probed>(ctx.arg(0), ctx.arg(1), CGROUP_RMDIR);
    0
}
