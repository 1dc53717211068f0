//! Bytes to values and back, without input or output.

pub(crate) mod denied;
pub(crate) mod envoy;
pub(crate) mod frame;
