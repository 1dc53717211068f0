//! The service behind real proxies.

#[path = "../support/mod.rs"]
mod support;

mod bootstraps;
mod demo;
mod envoy;
mod replicas;
mod rollout;
