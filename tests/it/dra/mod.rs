//! DRA mode against the embedded kubelet: the cases of Kubernetes' own tests of drivers, by name.

mod binary;
mod claims;
mod cluster;
mod containers;
mod health;
mod migration;
mod registration;
mod rolling_update;
