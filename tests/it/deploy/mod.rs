//! What users install: manifests, chart, alerts, dashboard and image, each read by the program that
//! will read it there, and held against the plugin's own defaults.

mod alerts;
mod chart;
mod image;
mod kustomize;
mod metrics;
mod objects;
mod pod;
mod rights;
mod seed_compat;
mod tools;
