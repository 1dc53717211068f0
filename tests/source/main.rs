//! The source tree and the documents, held against the code.

mod docs;
mod layers;
mod ports;
