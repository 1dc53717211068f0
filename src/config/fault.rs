//! What is wrong with a configuration: the error, all its faults together, and the warnings of one that is accepted.

use std::fmt;

use crate::watched_file::FileRead;

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The configuration file; `None` for an environment variable.
    pub file: Option<String>,
    /// The line, where known.
    pub line: Option<u64>,
    /// The key's path, or the environment variable.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What is accepted instead.
    pub accepted: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, key, problem, accepted } = self;
        write_place(f, file.as_deref(), *line, key)?;
        write!(f, "{problem}; accepted: {accepted}")
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, file: Option<&str>, line: Option<u64>, key: &str) -> fmt::Result {
    if let Some(file) = file {
        write!(f, "{file}:")?;
        if let Some(line) = line {
            write!(f, "{line}:")?;
        }
        write!(f, " ")?;
    }
    if key.is_empty() { Ok(()) } else { write!(f, "{key}: ") }
}

/// A value that is accepted, and lets more through than its reader may think, or can never match anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    /// As of a [`Fault`].
    pub(crate) file: Option<String>,
    /// The line, where known.
    pub(crate) line: Option<u64>,
    /// The key's path, or the environment variable.
    pub(crate) key: String,
    /// What the value does.
    pub(crate) problem: String,
    /// What to write instead.
    pub(crate) advice: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, key, problem, advice } = self;
        write_place(f, file.as_deref(), *line, key)?;
        write!(f, "{problem}; {advice}")
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Every fault; never empty.
    pub faults: Vec<Fault>,
    /// The files that were read for values in it: a change of one may mend it.
    pub(crate) files: Vec<FileRead>,
}

impl From<Vec<Fault>> for ConfigError {
    fn from(faults: Vec<Fault>) -> Self {
        Self { faults, files: Vec::new() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}
