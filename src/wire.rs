//! Messages to values and values to messages, without I/O.

pub(crate) mod denied;
pub(crate) mod envoy;
pub(crate) mod frame;
