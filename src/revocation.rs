//! Keeping revocations: which tokens are good no longer, and whether that is known well enough.

pub(crate) mod append;
mod events;
pub(crate) mod file;
pub(crate) mod inbox;
pub(crate) mod journal;
pub(crate) mod kept;
pub(crate) mod line;
pub(crate) mod list;
pub(crate) mod peers;
pub(crate) mod redis;
pub(crate) mod signed;
pub(crate) mod source;
pub(crate) mod staleness;
pub(crate) mod state;
