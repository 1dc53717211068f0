//! passage-authz: external authorization for Envoy. Every request carries a valid JSON Web Token or is
//! denied, and the upstream sees who the user is.
//!
//! # The path of one check
//!
//! ```text
//! Envoy --CheckRequest--> wire::envoy::view        the request, borrowed
//!                         Policy::select           its rule: public, or a token is required
//!                         domain::token::find      the first source of tokens that is present
//!                         Token::split             three segments, bounded
//!                         Unverified::peek         header and payload as JSON, not trusted yet
//!                         Unverified::address      the issuer by iss; crit, alg, typ and kid by its rules
//!                         KeySets::snapshot        its keys; KeySets::ask only for an unknown kid
//!                         Addressed::verify        one signature, then the claims
//!                         Verified::identity       what headers and metadata carry of it; the token cache keeps it
//!                         Grant::to                headers to set and to remove
//! Envoy <--CheckResponse-- Answers::of             encodes a grant, or a denial as wire::denied words it
//! ```
//!
//! Every step that fails ends in a [`domain::denial::Denial`]; nothing that fails ends in an allow. The layers of the
//! modules are in ARCHITECTURE.md.

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
mod revocation;
pub mod server;
mod sha256;
mod watched_file;
mod wire;

#[cfg(feature = "testing")]
pub mod testing;
