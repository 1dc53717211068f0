//! The real binary as a child process: its verbs, signals, ports, certificates and log.

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod connections;
mod drill;
mod health;
mod lifecycle;
mod redis;
mod reload;
mod revocations;
mod telemetry;
mod tls;
