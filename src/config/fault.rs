//! The error of a configuration: all its faults together.

use std::fmt;

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
        if let Some(file) = file {
            write!(f, "{file}:")?;
            if let Some(line) = line {
                write!(f, "{line}:")?;
            }
            write!(f, " ")?;
        }
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        write!(f, "{problem}; accepted: {accepted}")
    }
}

/// Every fault of a configuration that cannot be used; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub Vec<Fault>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}
