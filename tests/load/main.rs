//! What a flood costs, in time and memory. Each test measures, so only one runs at a time, and nothing else in this
//! process.

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod events;
mod hostile;
mod overload;
mod revocations;
mod unknown_kids;
mod users;

/// Held by the test that measures: a quiet value is taken while the other tests are quiet, too.
static MEASURING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
