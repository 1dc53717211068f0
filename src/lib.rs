//! passage-authz: external authorization for Envoy. Every request carries a valid JSON Web Token or is
//! turned away, and the service behind sees who the user is.
//!
//! # The path of one request
//!
//! ```text
//! Envoy --CheckRequest--> wire::view      the request, borrowed
//!                         token::find     the first source that is present
//!                         Token::split    three segments, bounded
//!                         Unverified::peek, address    the issuer by iss; crit, alg, typ, kid
//!                         KeySets::snapshot           its keys; `ask` only for an unknown kid
//!                         Addressed::verify            one signature, then the claims
//!                         Grant::to       headers to set and to remove
//! Envoy <--CheckResponse-- wire::answer   the one place that renders
//! ```
//!
//! Every step that fails ends in a [`denial::Denial`]; nothing that fails ends in an allow. The map of the
//! house and the arrows between its rooms are in ARCHITECTURE.md.

// Here and not in Cargo.toml's table: a test fails by panicking, the product must not.
#![warn(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::allow_attributes)]

mod api;
pub mod app;
mod check;
pub mod cli;
pub mod config;
pub mod domain;
mod keys;
mod live;
mod per_core;
pub mod server;
mod watched_file;
mod wire;

#[cfg(feature = "testing")]
pub mod testing;
