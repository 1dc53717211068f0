//! The real binary as a child process.

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod health;
mod lifecycle;
mod operations;
