//! Walks over the open files of every task (`bpf_iter/task_file`): the sockets of all network
//! namespaces, with who has them.

use aya_ebpf::helpers::generated::bpf_sock_from_file;
use culprit_agent_ebpf::wire::config::{HAVE_PROBE_READ, HAVE_SOCK_FROM_FILE};

use super::sock;
use crate::kernel::{Direct, Mem, Probed, Ptr, follow, have, load};

/// What a walk does with one socket (`struct sock`, not null) of a task.
pub(super) trait Walk {
    fn socket<M: Mem>(sk: Ptr, task: Ptr);
    /// Any task with an open file, once for each.
    #[inline(always)]
    fn task<M: Mem>(_task: Ptr) {}
}

/// One step of a walk. `ctx` is a `struct bpf_iter__task_file`: meta, task, fd, file, 8 bytes
/// each.
#[inline(always)]
pub(super) fn step<W: Walk>(ctx: *const Ptr) -> i32 {
    // SAFETY: the context's layout; both pointers may be null at the end.
    let (task, file) = unsafe { (ctx.add(1).read_volatile(), ctx.add(3).read_volatile()) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    if have(HAVE_SOCK_FROM_FILE) {
        W::task::<Direct>(task);
        // SAFETY: file is a BTF pointer.
        let socket = unsafe { bpf_sock_from_file(file.cast_mut().cast()) } as Ptr;
        if !socket.is_null() {
            let sk = follow!(Direct, socket, socket_sk);
            if !sk.is_null() {
                W::socket::<Direct>(sk, task);
            }
        }
    } else if have(HAVE_PROBE_READ) {
        W::task::<Probed>(task);
        let sk = sock::socket_of_file(file);
        if !sk.is_null() {
            W::socket::<Probed>(sk, task);
        }
    }
    0
}
