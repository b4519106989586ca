//! DRA mode against the embedded kubelet: the cases of Kubernetes' own tests of drivers, by name.

mod binary;
mod claims;
mod health;
mod registration;
mod rolling_update;
