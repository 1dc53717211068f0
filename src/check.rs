//! One decision: the authorizer, the token cache, and what is counted, logged and traced of each decision.

pub(crate) mod authorizer;
pub(crate) mod counts;
pub(crate) mod decision_log;
pub(crate) mod event;
pub(crate) mod observers;
pub(crate) mod outcome;
mod redaction;
pub(crate) mod spans;
pub(crate) mod token_cache;
