//! `check-config`: validates the configuration and prints it as it takes effect.

use std::path::Path;
use std::process::ExitCode;

use crate::app;
use crate::cli::output::{Failure, print};
use crate::config::{Config, Environment};

pub(super) fn check_config(file: Option<&Path>) -> Result<ExitCode, Failure> {
    let config = Config::load(file, &Environment::read()).map_err(Failure::configuration)?;
    let yaml = config.to_yaml().map_err(Failure::other)?;
    app::dry_run(config).map_err(Failure::configuration)?;
    print(&yaml)?;
    Ok(ExitCode::SUCCESS)
}
