//! The core: what a request, a token, a key and a rule are, and how they are judged. Synchronous and without I/O, log
//! lines or clock: the time is an argument. It runs in plain tests and under a fuzzer.

pub mod algorithm;
pub(crate) mod claim;
pub(crate) mod claims;
pub mod clock;
pub(crate) mod clock_skew;
pub mod denial;
pub(crate) mod event;
pub(crate) mod evidence;
pub(crate) mod identity;
pub(crate) mod issuer;
pub(crate) mod json;
pub(crate) mod key_set;
pub(crate) mod number;
pub(crate) mod policy;
mod public_key;
pub(crate) mod readings;
pub(crate) mod request;
pub(crate) mod revoked;
pub(crate) mod token;
pub(crate) mod token_fault;
pub(crate) mod verdict;
pub(crate) mod verify;
