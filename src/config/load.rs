//! `Config::load` and `Config::parse`: a configuration from a file, or from the environment alone.

use std::path::Path;

use super::schema;
use super::{Config, ConfigError, Environment, Fault};
use crate::sha256;

impl Config {
    /// Reads the file; without a file, the environment alone.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault: an unreadable file, YAML that does not parse, unknown or doubled
    /// keys, values that are not accepted.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        let Some(path) = file else { return schema::from_environment(environment) };
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let config = Self::parse(&text, &name)?;
                Ok(Self { sha256: Some(sha256::hex(text.as_bytes())), ..config })
            }
            Err(error) => Err(ConfigError::from(vec![Fault {
                file: Some(name),
                line: None,
                key: String::new(),
                problem: format!("cannot be read: {error}"),
                accepted: "a readable YAML file in UTF-8".to_owned(),
            }])),
        }
    }

    /// Reads a configuration from YAML text; `name` is what its faults call the file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        schema::from_yaml(text, name)
    }
}
