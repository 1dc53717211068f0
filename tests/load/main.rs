//! Measurements under load.

#[path = "../support/mod.rs"]
mod support;

mod hostile;
