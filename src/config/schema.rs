//! The configuration as written: which keys there are, what each accepts, and each default.
//!
//! Every section is read even after a fault, and a key that no reader asks for is a fault: no key is
//! silently ignored.

use std::path::{Path, PathBuf};

use super::document::Node;
use super::place::{Place, Report, Table};
use super::{CheckFlags, Config, ConfigError, DecisionLogSettings, Environment, KeyStore, syntax, warnings};
use crate::domain::denial::Wording;
use crate::domain::policy::Ignored;

mod demands;
mod identity;
mod issuers;
mod key_sources;
mod ports;
mod revocation;
mod rules;
mod shapes;
mod tokens;
mod variables;

/// `name` is what faults call the file.
pub(super) fn from_yaml(text: &str, name: &str) -> Result<Config, ConfigError> {
    let report = Report { file: Some(name.to_owned()), ..Report::default() };
    match Node::parse(text) {
        Ok(root) => read(&root, report),
        Err((line, message)) => {
            let (problem, accepted) = syntax::fault(message);
            report.add(line, "", problem, accepted);
            Err(report.faults.into_inner().into())
        }
    }
}

pub(super) fn from_environment(environment: &Environment) -> Result<Config, ConfigError> {
    let report = Report::default();
    let root = variables::document(environment, &report);
    if !report.faults.borrow().is_empty() {
        return Err(report.faults.into_inner().into());
    }
    read(&root, report)
}

fn read(root: &Node, report: Report) -> Result<Config, ConfigError> {
    let mut config = Place::root(&report, root).table(|root| {
        let check_flags = check_flags(root);
        let tokens = root.at("tokens").table(tokens::read);
        let http = ports::http(&root.at("http"), &tokens);
        let (issuers, own_identity) = issuers::read(&root.at("issuers"), &tokens.from);
        let names: Vec<_> = issuers.iter().map(|config| config.issuer.name.clone()).collect();
        let server = root.at("server").table(ports::server);
        let admin_listen = root.at("admin").table(ports::admin_listen);
        let key_store = key_store(&root.at("key_store"));
        let revocation = revocation::read(&root.at("revocation"), key_store.as_ref());
        let mut identity = root
            .at("identity")
            .table(|identity| identity::read(identity, &tokens.from, &names, &own_identity));
        let paths = root.at("paths").table(|paths| Ignored {
            case: paths.at("ignore_case").bool(true),
            trailing_slash: paths.at("ignore_trailing_slash").bool(true),
        });
        let rules = rules::read(&root.at("rules"), &names, paths);
        identity.compares_with_plain = check_flags.shadow || rules.iter().any(|rule| rule.shadow);
        Config {
            server,
            http,
            admin_listen,
            key_store,
            revocation,
            identity,
            paths,
            rules,
            check_flags,
            tokens,
            issuers,
            wording: root.at("deny").table(wording),
            decision_log: root.at("decision_log").table(decision_log),
            warnings: Vec::new(),
            sha256: None,
            files: Vec::new(),
        }
    });
    let Report { file: _, faults, warnings, files, claim_maps: _ } = report;
    let (mut faults, files) = (faults.into_inner(), files.into_inner());
    config.warnings = warnings.into_inner();
    // In the order of the file's lines, not of the readers above.
    faults.sort_by_key(|fault| fault.line);
    config.warnings.sort_by_key(|warning| warning.line);
    if !faults.is_empty() {
        return Err(ConfigError { faults, files });
    }
    config.files = files;
    Ok(config)
}

fn check_flags(root: &mut Table<'_>) -> CheckFlags {
    let mode = root.at("mode");
    let shadow = shapes::choice(&mode, &["enforce", "shadow"]) == Some("shadow");
    if shadow {
        warnings::shadow(&mode);
    }
    CheckFlags {
        shadow,
        allow_preflight: shapes::choice(&root.at("cors_preflight"), &["deny", "allow"]) == Some("allow"),
    }
}

/// A folder, or `{path: FOLDER, read_only: true}`.
fn key_store(place: &Place<'_>) -> Option<KeyStore> {
    if !place.is_set() {
        return None;
    }
    let folder = |place: &Place<'_>| -> Option<PathBuf> {
        let accepted = "a folder that exists";
        place.required(accepted);
        let folder: PathBuf = place.parsed(accepted, |text| Path::new(text).is_dir().then(|| text.into()))?;
        warnings::key_store(place, &folder);
        Some(folder)
    };
    if !place.is_map() {
        return Some(KeyStore { path: folder(place)?, read_only: false });
    }
    place.table(|store| {
        let (path, read_only) = (folder(&store.at("path")), store.at("read_only").bool(false));
        Some(KeyStore { path: path?, read_only })
    })
}

fn wording(deny: &mut Table<'_>) -> Wording {
    // The realm stands in a quoted-string of the challenge (RFC 9110 section 5.6.4).
    let quotable = |text: &str| {
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
        text.bytes().all(plain).then(|| text.to_owned())
    };
    let realm = deny.at("realm").parsed("printable ASCII without quotes and backslashes", quotable);
    Wording {
        realm: realm.unwrap_or_else(|| "passage-authz".to_owned()),
        reasons: deny.at("reasons").bool(true),
    }
}

fn decision_log(log: &mut Table<'_>) -> DecisionLogSettings {
    let max_per_second = log.at("max_per_second").integer(1..=1_000_000, " lines", 100);
    DecisionLogSettings {
        denied: log.at("denied").share(1.0),
        allowed: log.at("allowed").share(0.0),
        max_per_second: u32::try_from(max_per_second).unwrap_or_default(),
        subject_in_clear: shapes::choice(&log.at("subject"), &["hashed", "clear"]) == Some("clear"),
    }
}
