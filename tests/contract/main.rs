//! The contract: the service runs in the process of the test and is asked over gRPC and HTTP.

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod cache;
mod check;
mod http;
mod rotation;
