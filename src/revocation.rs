//! Keeping revocations: which tokens are good no longer, and whether that is known well enough.

pub(crate) mod append;
pub(crate) mod file;
pub(crate) mod line;
pub(crate) mod list;
pub(crate) mod state;
