//! The source tree, held against its own rules.

mod docs;
mod layers;
