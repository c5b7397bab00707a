//! Reading kernel memory: through BTF-typed pointers with plain loads
//! ([`Direct`]), or with `bpf_probe_read_kernel` ([`Probed`]).
//!
//! A base pointer stays a BTF pointer to the verifier only as long as constants
//! are added to it; loads from the frozen globals are constants.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_probe_read_kernel,
    generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task,
        bpf_get_current_task_btf, bpf_skc_to_tcp_sock,
    },
};
use culprit_agent_ebpf::wire::{
    Task,
    config::{HAVE_MEMORY_V2, HAVE_PROBE_READ, HAVE_SK_CGROUP_PTR, HAVE_TASK_BTF},
    fields::ABSENT,
    task::{TASK_IDLE, TASK_KNOWN, TASK_KSOFTIRQD, TASK_KTHREAD},
};

pub type Ptr = *const u8;

/// The offset of a kernel field, a constant to the verifier.
macro_rules! field {
    ($name:ident) => {
        $crate::kernel::global(&raw const $crate::maps::FIELDS.$name)
    };
}

/// A member of CONFIG, a constant to the verifier.
macro_rules! config {
    ($name:ident) => {
        $crate::kernel::global(&raw const $crate::maps::CONFIG.$name)
    };
}

/// Reads a member of a frozen global; for the two macros above.
#[inline(always)]
pub fn global<T: Copy>(member: *const T) -> T {
    // SAFETY: a member of a plain static; volatile so that the compiler does
    // not fold the placeholder value into the code.
    unsafe { core::ptr::read_volatile(member) }
}

pub(crate) use {config, field};

/// Whether a `HAVE_*` bit is set; what it guards is dead code otherwise.
#[inline(always)]
pub fn have(bit: u32) -> bool {
    config!(have) & bit != 0
}

/// How kernel memory is read.
pub trait Mem {
    /// Loads a value at `base + offset`.
    ///
    /// # Safety
    /// `base` is a kernel pointer; for [`Direct`] one that the verifier knows
    /// the type of, for [`Probed`] any (a fault reads as zero).
    unsafe fn load<T: Copy>(base: Ptr, offset: u32) -> T;

    /// The socket as a `struct tcp_sock`: for [`Direct`] the verifier's view
    /// of the pointer changes. Null when it is none.
    ///
    /// # Safety
    /// `sk` is a `struct sock *`.
    unsafe fn tcp_sock(sk: Ptr) -> Ptr;
}

/// Plain loads through BTF-typed pointers (tp_btf, fentry, fexit, iter). Allowed
/// under lockdown=confidentiality; a bad address reads as zero.
pub struct Direct;
/// `bpf_probe_read_kernel` (raw_tp, kprobe).
pub struct Probed;

impl Mem for Direct {
    #[inline(always)]
    unsafe fn load<T: Copy>(base: Ptr, offset: u32) -> T {
        // SAFETY: the verifier checks type and bounds; faults read as zero.
        unsafe { core::ptr::read_volatile(base.add(offset as usize).cast::<T>()) }
    }

    #[inline(always)]
    unsafe fn tcp_sock(sk: Ptr) -> Ptr {
        // SAFETY: sk is a BTF pointer to a socket.
        unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast()) as Ptr }
    }
}

impl Mem for Probed {
    #[inline(always)]
    unsafe fn load<T: Copy>(base: Ptr, offset: u32) -> T {
        let from = (base as u64).wrapping_add(u64::from(offset)) as *const T;
        // SAFETY: the helper copes with any address.
        match unsafe { bpf_probe_read_kernel(from) } {
            Ok(value) => value,
            // A fault means the address was bad or the object is gone; the
            // record says 0, which every field's documentation calls unknown.
            // SAFETY: all T here are integers, arrays of them or pointers.
            Err(_) => unsafe { core::mem::zeroed() },
        }
    }

    #[inline(always)]
    unsafe fn tcp_sock(sk: Ptr) -> Ptr {
        sk
    }
}

/// A load at an offset that this kernel's BTF gave.
#[inline(always)]
pub fn read<M: Mem, T: Copy>(base: Ptr, offset: u32) -> T {
    // SAFETY: the verifier refuses the program, or the load reads as zero, if
    // base and offset are not what they should be.
    unsafe { M::load::<T>(base, offset) }
}

/// Loads field `$name` of type `$ty`, or `$else` where this kernel has none.
macro_rules! load {
    ($mem:ident, $base:expr, $name:ident : $ty:ty) => {
        load!($mem, $base, $name: $ty, 0 as $ty)
    };
    ($mem:ident, $base:expr, $name:ident : $ty:ty, $else:expr) => {{
        let offset = $crate::kernel::field!($name);
        if offset == culprit_agent_ebpf::wire::fields::ABSENT {
            $else
        } else {
            $crate::kernel::read::<$mem, $ty>($base, offset)
        }
    }};
}
pub(crate) use load;

/// Loads a pointer field; null where this kernel has none.
macro_rules! follow {
    ($mem:ident, $base:expr $(, $name:ident)+) => {{
        let at: $crate::kernel::Ptr = $base;
        $(let at = load!($mem, at, $name: $crate::kernel::Ptr, core::ptr::null());)+
        at
    }};
}
pub(crate) use follow;

/// kernfs id of a `struct cgroup *`.
#[inline(always)]
pub fn cgroup_id<M: Mem>(cgroup: Ptr) -> u64 {
    let kn = follow!(M, cgroup, cgroup_kn);
    load!(M, kn, kn_id: u64)
}

/// kernfs id of the v2 cgroup the socket was created in; an accepted socket
/// has its listener's. 0 when it cannot be read.
#[inline(always)]
pub fn sock_cgroup<M: Mem>(sk: Ptr) -> u64 {
    if have(HAVE_SK_CGROUP_PTR) {
        let cgroup = follow!(M, sk, sk_cgroup);
        cgroup_id::<M>(cgroup)
    } else if have(HAVE_PROBE_READ) {
        // 5.10: a tagged value. Bit 0 says it is v1 prioidx and classid.
        let val = load!(Probed, sk, sk_cgroup: u64);
        if val == 0 || val & 1 != 0 {
            0
        } else {
            cgroup_id::<Probed>((val & !3) as Ptr)
        }
    } else {
        0
    }
}

/// Inode of the socket's network namespace.
#[inline(always)]
pub fn sock_netns<M: Mem>(sk: Ptr) -> u32 {
    let net = follow!(M, sk, skc_net);
    load!(M, net, net_inum: u32)
}

/// kernfs id of the task's cgroup in the memory controller's hierarchy.
#[inline(always)]
fn memory_cgroup<M: Mem>(css_set: Ptr) -> u64 {
    let subsys = field!(css_set_subsys);
    if subsys == ABSENT {
        return 0;
    }
    // SAFETY: an element of the pointer array css_set.subsys.
    let css = unsafe { M::load::<Ptr>(css_set, subsys + 8 * config!(memory_subsys)) };
    cgroup_id::<M>(follow!(M, css, css_cgroup))
}

/// Fills cgroups, namespace, start time and flags from a task; `pid_tgid` and
/// comm are the caller's.
#[inline(always)]
unsafe fn fill_common<M: Mem>(out: *mut Task, task: Ptr, v2: u64) {
    let leader = follow!(M, task, task_group_leader);
    let css_set = follow!(M, task, task_cgroups);
    let v2 = if v2 == 0 {
        cgroup_id::<M>(follow!(M, css_set, css_set_dfl))
    } else {
        v2
    };
    let memory = if have(HAVE_MEMORY_V2) {
        v2
    } else {
        memory_cgroup::<M>(css_set)
    };
    // SAFETY: out is valid for writes.
    unsafe {
        (*out).start_boottime_ns = load!(M, leader, task_start_boottime: u64);
        (*out).cgroup_v2 = v2;
        (*out).cgroup_memory = memory;
        (*out).netns = task_netns::<M>(task);
        let mut flags = TASK_KNOWN;
        // PF_KTHREAD, include/linux/sched.h, 5.10 to 7.2.
        if load!(M, task, task_flags: u32) & 0x0020_0000 != 0 {
            flags |= TASK_KTHREAD;
            // "ksoftir" of "ksoftirqd/N": only kernel threads are asked.
            if (&raw const (*out).comm).cast::<u64>().read() & 0x00ff_ffff_ffff_ffff
                == u64::from_le_bytes(*b"ksoftir\0")
            {
                flags |= TASK_KSOFTIRQD;
            }
        }
        if (*out).tid == 0 {
            flags |= TASK_IDLE;
        }
        (*out).flags = flags;
    }
}

/// Inode number of a task's network namespace.
#[inline(always)]
pub fn task_netns<M: Mem>(task: Ptr) -> u32 {
    let net = follow!(M, task, task_nsproxy, nsproxy_net);
    load!(M, net, net_inum: u32)
}

/// Writes the running task into a record or map value.
///
/// # Safety
/// `out` is valid for writes.
#[inline(always)]
pub unsafe fn fill_current(out: *mut Task) {
    let id = bpf_get_current_pid_tgid();
    // SAFETY: out is valid; the helpers write what they are given.
    unsafe {
        (*out).tgid = (id >> 32) as u32;
        (*out).tid = id as u32;
        bpf_get_current_comm((&raw mut (*out).comm).cast(), 16);
        let v2 = bpf_get_current_cgroup_id();
        if have(HAVE_TASK_BTF) {
            fill_common::<Direct>(out, bpf_get_current_task_btf() as Ptr, v2);
        } else if have(HAVE_PROBE_READ) {
            fill_common::<Probed>(out, bpf_get_current_task() as Ptr, v2);
        } else {
            (*out).start_boottime_ns = 0;
            (*out).cgroup_v2 = v2;
            (*out).cgroup_memory = if have(HAVE_MEMORY_V2) { v2 } else { 0 };
            (*out).netns = 0;
            (*out).flags = TASK_KNOWN;
        }
    }
}

/// kernfs id of a task's cgroup in the memory controller's hierarchy; 0 when it
/// cannot be read.
#[inline(always)]
pub fn memory_cgroup_of<M: Mem>(task: Ptr) -> u64 {
    let css_set = follow!(M, task, task_cgroups);
    if have(HAVE_MEMORY_V2) {
        cgroup_id::<M>(follow!(M, css_set, css_set_dfl))
    } else {
        memory_cgroup::<M>(css_set)
    }
}

/// kernfs id of the running task's cgroup in the memory controller's
/// hierarchy; 0 when it cannot be read.
#[inline(always)]
pub fn current_memory_cgroup() -> u64 {
    if have(HAVE_MEMORY_V2) {
        // SAFETY: no argument.
        unsafe { bpf_get_current_cgroup_id() }
    } else if have(HAVE_TASK_BTF) {
        // SAFETY: no argument; the verifier knows the type.
        memory_cgroup_of::<Direct>(unsafe { bpf_get_current_task_btf() } as Ptr)
    } else if have(HAVE_PROBE_READ) {
        // SAFETY: no argument.
        memory_cgroup_of::<Probed>(unsafe { bpf_get_current_task() } as Ptr)
    } else {
        0
    }
}

/// Writes another task than the running one.
///
/// # Safety
/// `out` is valid for writes.
#[inline(always)]
pub unsafe fn fill_task<M: Mem>(out: *mut Task, task: Ptr) {
    // SAFETY: out is valid; comm is 16 bytes in the kernel too.
    unsafe {
        (*out).tgid = load!(M, task, task_tgid: u32);
        (*out).tid = load!(M, task, task_pid: u32);
        let comm = field!(task_comm);
        let words = (&raw mut (*out).comm).cast::<u64>();
        if comm == ABSENT {
            words.write(0);
            words.add(1).write(0);
        } else {
            words.write(M::load::<u64>(task, comm));
            words.add(1).write(M::load::<u64>(task, comm + 8));
        }
        fill_common::<M>(out, task, 0);
    }
}

/// An empty task.
///
/// # Safety
/// `out` is valid for writes.
#[inline(always)]
pub unsafe fn clear_task(out: *mut Task) {
    // SAFETY: Task is 7 words.
    unsafe {
        let words = out.cast::<u64>();
        words.write(0);
        words.add(1).write(0);
        words.add(2).write(0);
        words.add(3).write(0);
        words.add(4).write(0);
        words.add(5).write(0);
        words.add(6).write(0);
    }
}

/// Copies a task between map values and records.
///
/// # Safety
/// Both are valid.
#[inline(always)]
pub unsafe fn copy_task(out: *mut Task, from: *const Task) {
    // SAFETY: Task is 7 words, both aligned to 8.
    unsafe {
        let (out, from) = (out.cast::<u64>(), from.cast::<u64>());
        out.write(from.read());
        out.add(1).write(from.add(1).read());
        out.add(2).write(from.add(2).read());
        out.add(3).write(from.add(3).read());
        out.add(4).write(from.add(4).read());
        out.add(5).write(from.add(5).read());
        out.add(6).write(from.add(6).read());
    }
}
