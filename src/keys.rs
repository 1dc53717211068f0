//! Fetching, storing and swapping the issuers' key sets.

pub(crate) mod clock_skew;
pub(crate) mod fetch;
pub(crate) mod last_good;
pub(crate) mod outage;
mod publisher;
pub(crate) mod refresh;
pub(crate) mod sets;
mod slot;
