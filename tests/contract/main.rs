//! The contract: the service runs in the process of the test and is asked over gRPC and HTTP, with nothing between.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod bound_tokens;
mod cache;
mod events;
mod fragments;
mod http;
mod identity_across_issuers;
mod identity_headers;
mod issuers;
mod key_fetches;
mod limits;
mod metrics;
mod numbers;
mod paths;
mod revocation;
mod rotation;
mod rules;
mod services;
mod time;
mod token_forms;
mod token_sources;
mod tokens;
mod withdrawn_keys;
