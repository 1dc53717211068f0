//! What one line of the log says of a configuration.

use super::Config;

/// Enough to tell two configurations apart, and to see what a reload has changed.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) mode: &'static str,
    /// Their names, in the order of the file.
    pub(crate) issuers: String,
    pub(crate) rules: usize,
    /// Of the configuration file; `None` without one.
    pub(crate) sha256: Option<String>,
}

impl Config {
    pub(crate) fn summary(&self) -> Summary {
        let issuers: Vec<_> = self.issuers.iter().map(|config| config.issuer.name.as_str()).collect();
        Summary {
            mode: if self.check_flags.shadow { "shadow" } else { "enforce" },
            issuers: issuers.join(", "),
            rules: self.rules.len(),
            sha256: self.sha256.clone(),
        }
    }
}
