//! A Kubernetes device plugin for Iluvatar CoreX GPUs: it reads chips, boards and their topology
//! from /sys, follows hardware changes, and restores its session with the kubelet by itself.
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
//! | [`demo`] | a kubelet and an API server of its own, and the stories that `demo` plays | touch a real cluster |
//! | [`cli`] | what can be typed | work: it calls those below |
//!
//! The rooms of [`decide`]: [`decide::machine`] makes an observed node of a scan,
//! [`decide::health`] turns signals into reasons, [`decide::node`] holds the state of the node and
//! its snapshots, [`decide::allocation`] decides what a container gets, [`decide::kubelet`] is the
//! session with the kubelet, [`decide::dra`] does for claims and slices what these two do for the device
//! plugin, [`decide::doctor`] has the checks of `doctor`.
//!
//! # A uevent becomes a list
//!
//! 1. [`host::uevents`] receives it; [`daemon::uevent_listener`] sends a trigger. It also reports a
//!    chip that /sys no longer lists, which step 5 takes out at once. An event of a chip's state alone
//!    requests a health sample instead.
//! 2. [`daemon::inventory_owner`] receives the trigger through [`daemon::inventory_inputs`], and
//!    [`daemon::scanner`] starts a scan: the event is a hint, a scan confirms it.
//! 3. [`host::scan`] reads /sys and /dev with [`host::sysfs`]; [`parse::sysfs`] makes a
//!    [`model::sysfs::SysfsScan`] of it.
//! 4. [`daemon::inventory_owner`] passes it to [`decide::node::state::NodeState`], where
//!    [`decide::machine::observe`] makes a [`model::observed::ObservedNode`]: boards, nodes, distances.
//! 5. The state adds health, history, cordons and what pods hold, and returns a
//!    [`decide::node::snapshot::NodeSnapshot`].
//! 6. [`daemon::inventory_owner`] publishes the snapshot if it differs from the last one.
//! 7. Each open stream of [`daemon::plugin_service`] sends it to the kubelet, as
//!    [`wire::device_plugin`] writes it, if the kubelet would see a difference.
//!
//! # An Allocate becomes an answer
//!
//! 1. [`daemon::plugin_service`] takes the ids of the request and the latest snapshot. No I/O.
//! 2. [`decide::allocation::allocate`] looks each device up: nodes, CDI names, environment, records.
//! 3. [`daemon::allocation_store`] records what the ids stood for: PreStartContainer verifies it, and
//!    the state of the node withholds these chips under other ids.
//! 4. [`wire::device_plugin`] writes the response, or the gRPC code of the error.
//!
//! # A claim becomes CDI names
//!
//! In DRA mode. The kubelet finds the driver by itself: [`daemon::dra_session`] keeps the two sockets
//! in place that [`decide::dra::registration`] wants.
//! 1. [`daemon::dra_service`] receives the claim's name and fetches the claim with
//!    [`daemon::claim_reader`] from [`host::kube_api`].
//! 2. [`daemon::claim_ledger`] decides with [`decide::dra::prepare`], one claim after the other, and
//!    records it in [`host::claim_file`] before it answers.
//! 3. [`wire::dra_service`] writes the answer.
//!
//! [`daemon::dra_health_stream`] reports the health of prepared devices to the kubelet.
//!
//! # Other inputs
//!
//! Each reaches [`daemon::inventory_owner`] through [`daemon::inventory_inputs`], then the state, which
//! makes a snapshot of it.
//!
//! - PodResources: [`host::pod_resources`] → [`daemon::pod_resources_watch`] → `NodeState::pods`.
//! - A configuration change: [`host::config_file`] → [`daemon::config_watch`] →
//!   `NodeState::configured`.
//! - A cordon: [`host::cordon_file`] → [`daemon::cordon_watch`] → `NodeState::cordoned`.
//! - Health samples: [`host::health_sample`] → [`daemon::health_sampler`] → `NodeState::sampled`.
//! - libixml: [`host::ixml`] → [`daemon::ixml_source`] → [`daemon::ixml_monitor`] → `NodeState::ixml`.
//! - Allocation records: [`daemon::allocation_store`] → `NodeState::recorded`, with every other input.
//! - UUIDs: [`daemon::identities_watch`] triggers a scan; beside it, [`daemon::scanner`] reads the file
//!   with [`host::identities`] → `NodeState::identities`.
//!
//! # Outputs beside the list
//!
//! - CDI: [`daemon::cdi_writer`] keeps the spec on disk. Allocate uses a name only while the spec
//!   has it.
//! - Slices, in DRA mode: [`decide::dra::pool`] and [`decide::dra::slices`] make them of a snapshot,
//!   [`decide::dra::publication`] decides what to write, [`daemon::slice_publisher`] writes it with
//!   [`host::kube_api`]; beside it, [`daemon::node_events`] reports changes of health.
//! - Node labels: [`decide::labels`] → [`daemon::label_writer`] → [`wire::feature_file`].
//! - Probes, metrics, status: loops report to [`daemon::telemetry`]; [`daemon::status_service`] reads
//!   it and the latest snapshot; [`daemon::http`] serves them. [`wire::metrics::METRICS`] lists all
//!   metrics.
//!
//! libixml is optional, used for health alone, and never loaded into the daemon:
//! [`daemon::ixml_source`] queries an agent, this program again as a child process.

pub mod model;

pub mod parse;

pub mod decide;

pub mod wire;

pub mod host;

pub mod daemon;

pub mod app;

pub mod demo;

pub mod cli;
