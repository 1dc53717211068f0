//! What deploy/ ships: the chart as Helm renders it, the binary of the image, compose, the systemd unit. Nothing here
//! depends on the machine's speed.

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod chart;
mod dashboard;
mod files;
mod image;
mod values;
