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
//!                         KeyStore::snapshot           its keys; `ask` only for an unknown kid
//!                         Addressed::verify            one signature, then the claims
//!                         Grant::to       headers to set and to remove
//! Envoy <--CheckResponse-- wire::answer   the one place that renders
//! ```
//!
//! Every step that fails ends in a [`denial::Denial`]; nothing that fails ends in an allow. The map of the
//! house and the arrows between its rooms are in ARCHITECTURE.md.

// Here and not in Cargo.toml's table: a test fails by panicking, the product must not.
#![warn(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::allow_attributes)]

// The core: no tokio, tonic, moka or tracing.
pub mod algorithm;
pub mod claims;
pub mod clock;
pub mod config;
pub mod denial;
pub mod identity;
pub mod issuer;
pub mod json;
pub mod keys;
pub mod path;
pub mod policy;
pub mod request;
pub mod token;
pub mod verdict;
mod verifier;
pub mod verify;

// The ring: everything that waits, listens or logs.
mod admin;
pub mod answer;
pub mod app;
pub mod authz;
pub mod cache;
pub mod cli;
pub mod counts;
pub mod decisions;
pub mod disk;
pub mod engine;
pub mod explain;
mod grpc;
mod health;
mod http;
pub mod listen;
pub mod live;
pub mod load;
mod metrics;
pub mod observe;
mod probe;
pub mod process;
mod reads;
pub mod reload;
mod requests;
mod rpc;
pub mod server;
mod shards;
pub mod shutdown;
pub mod spans;
pub mod telemetry;
pub mod tls;
mod wire;
pub mod workers;

#[cfg(feature = "testing")]
pub mod testing;
