//! Tests against a real container runtime: containerd with a private root,
//! state, socket and network, driven over the CRI as kubelet would.
pub mod checks;
pub mod containerd;
pub mod cri;
pub mod findings;
pub mod image;
pub mod leftovers;
pub mod pod;
pub mod service;
