//! A Kubernetes device plugin for Iluvatar CoreX GPUs: it reads chips, boards and their topology
//! straight from /sys, follows the hardware, and cannot lose its session with the kubelet.
//!
//! # Codemap
//!
//! Folders are floors. A file uses floors below its own, never above; a test holds this law.
//!
//! | floor | what it is | what it never does |
//! |---|---|---|
//! | [`model`] | nouns as plain values | read, decide |
//! | [`parse`] | text and bytes to nouns | I/O, clocks, panics |
//! | [`decide`] | nouns to decisions | I/O; time is an argument |
//! | [`wire`] | decisions to and from other people's formats | I/O |
//! | [`host`] | the only code that touches the machine | decide |
//! | [`daemon`] | loops that own something | read files themselves |
//! | [`app`] | wires the daemon together | read files itself |
//! | [`demo`] | a kubelet of its own, and the story that `demo` plays | touch the real kubelet |
//! | [`cli`] | what can be typed | work: it calls those below |
//!
//! A change on the PCI bus becomes a list at the kubelet: [`host::uevents`] → a trigger →
//! [`daemon::inventory_owner`] → [`host::scan`] → [`decide::machine::observe`] → published if changed →
//! each open stream of [`daemon::plugin_service`]. A uevent is only a hint; the scan tells.
//!
//! Container runtimes may be told names of the devices: [`daemon::cdi_writer`] keeps the file, and
//! Allocate gives a container a name only while the file has it.
//!
//! How it stands, each loop tells [`daemon::telemetry`]; [`daemon::status_service`] reads that and the
//! latest snapshots, for the probes, metrics and status that [`daemon::http`] answers.
//! [`wire::metrics::METRICS`] is the table of all metrics.
//!
//! The vendor's library is optional, asked for health alone, and never loaded into the daemon:
//! [`daemon::ixml_source`] asks an agent, this program again as a child; [`host::ixml`] says why.

pub mod model;

pub mod parse;

pub mod decide;

pub mod wire;

pub mod host;

pub mod daemon;

pub mod app;

pub mod demo;

pub mod cli;
