//! A node without a cluster: the embedded kubelet.

pub mod kubelet;
