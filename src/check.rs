//! One decision: the authorizer, its token cache, and what is counted, logged and traced of a decision.

pub mod authorizer;
pub mod counts;
pub mod decision_log;
pub mod observers;
pub mod spans;
pub mod token_cache;
