//! What deploy/ ships.

#[path = "../support/mod.rs"]
mod support;

mod chart;
mod image;
mod values;
