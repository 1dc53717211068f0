//! What the verbs write to standard output and standard error, and the exit codes.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

/// A bad configuration; clap uses the same code for a bad command line.
const BAD_CONFIGURATION: u8 = 2;

/// An error that ends a verb, and the exit code for it.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    error: Box<dyn Error>,
}

impl Failure {
    pub(super) fn configuration(error: impl Into<Box<dyn Error>>) -> Self {
        Self { code: BAD_CONFIGURATION, error: error.into() }
    }

    pub(super) fn other(error: impl Into<Box<dyn Error>>) -> Self {
        Self { code: 1, error: error.into() }
    }

    pub(super) fn print(&self) -> ExitCode {
        fail(self.code, &*self.error)
    }
}

/// Writes to standard output. A reader that has closed the pipe is no failure: `passage-authz verify ... | head`.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::other(error)),
        _ => Ok(()),
    }
}

/// Writes warnings to standard error, a line each.
pub(super) fn print_warnings(warnings: &[impl Display]) {
    let mut stderr = io::stderr().lock();
    for warning in warnings {
        // As in `fail`.
        let _ = writeln!(stderr, "passage-authz: warning: {warning}");
    }
}

/// Writes the error to standard error, line by line.
pub fn fail(code: u8, error: &dyn Error) -> ExitCode {
    let mut stderr = io::stderr().lock();
    for line in error.to_string().lines() {
        // If stderr is closed there is no other place to write an error to.
        let _ = writeln!(stderr, "passage-authz: {line}");
    }
    ExitCode::from(code)
}
