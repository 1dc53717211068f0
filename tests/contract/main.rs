//! The contract: the service runs in the process of the test and is asked over gRPC and HTTP, with nothing between.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod cache;
mod http;
mod identity_headers;
mod limits;
mod metrics;
mod paths;
mod rotation;
mod rules;
mod services;
mod tokens;
