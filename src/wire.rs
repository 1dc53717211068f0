//! Messages to values and values to messages, without I/O.

pub(crate) mod denied;
pub(crate) mod envoy;
pub(crate) mod frame;
pub(crate) mod health;

/// The descriptors of proto/, for reflection.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
