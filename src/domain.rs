//! The core: what a request, a token, a key and a rule are, and how they are judged. Pure: nothing here waits, listens,
//! logs or asks for the time.

pub mod algorithm;
pub mod claims;
pub mod clock;
pub mod denial;
pub mod identity;
pub mod issuer;
pub mod json;
pub mod key_set;
pub mod path;
pub mod policy;
mod public_key;
pub mod request;
pub mod token;
pub mod verdict;
pub mod verify;
