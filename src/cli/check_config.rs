//! `check-config`: validates the configuration, warns of what is accepted and may not be meant, and prints the configuration
//! as it takes effect.

use std::path::Path;
use std::process::ExitCode;

use crate::app;
use crate::cli::output::{Failure, print, print_warnings};
use crate::config::{Config, Environment};
use crate::domain::clock::Clock;

/// With `strict` a warning is an error.
pub(super) fn check_config(file: Option<&Path>, strict: bool) -> Result<ExitCode, Failure> {
    let mut config = Config::load(file, &Environment::read()).map_err(Failure::configuration)?;
    let yaml = config.to_yaml().map_err(Failure::other)?;
    let warnings = std::mem::take(&mut config.warnings);
    print_warnings(&warnings);
    let expires_at = app::dry_run(config).map_err(Failure::configuration)?;
    if let Some(expires_at) = expires_at.filter(|expires_at| *expires_at <= Clock::default().now()) {
        print_warnings(&[format!(
            "server.tls.cert: it expired at {}, so proxies refuse it",
            expires_at.rfc3339()
        )]);
        if strict {
            return Err(Failure::configuration("warnings are errors by --strict: 1"));
        }
    }
    if strict && !warnings.is_empty() {
        return Err(Failure::configuration(format!("warnings are errors by --strict: {}", warnings.len())));
    }
    print(&yaml)?;
    Ok(ExitCode::SUCCESS)
}
