//! `identity` as written: which claims travel in which headers, and which in the proxy's metadata.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::place::{Place, Table};
use super::super::warnings;
use super::shapes::{CLAIM, choice, http_token};
use crate::domain::claim::Claim;
use crate::domain::identity::claim_map::{self, ClaimMap};
use crate::domain::identity::{
    FieldMap, Identity, IdentityMaps, JsonForm, MAX_MARKS, MappedClaim, PayloadPart, TextClaim, folded,
};
use crate::domain::issuer::IssuerName;
use crate::domain::token::{TokenPlace, TokenSource};
use crate::watched_file::FileVersion;

/// Headers that frame a message or have another owner. A claim's value in one of them could change how the
/// proxy or the upstream reads the request.
const RESERVED_HEADERS: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-passage-authz-proxy-secret",
];

/// `identity` of all issuers, with what each issuer's own says.
pub(super) fn read(
    identity: &mut Table<'_>,
    sources: &[TokenSource],
    issuers: &[IssuerName],
    of_issuers: &[(IssuerName, IdentityMaps)],
) -> Identity {
    let place = identity.at("headers");
    let mut common = maps(identity, sources);
    if !place.is_written() {
        let sub = Claim::new("sub").map(|sub| (Identity::DEFAULT_HEADER.to_owned(), sub.into()));
        common.headers.extend(sub);
    }
    if !identity.at("metadata").is_written() {
        let claims = ["iss", "sub"].into_iter().filter_map(Claim::new);
        common.metadata.extend(claims.map(|claim| (claim.as_str().to_owned(), MappedClaim::json_of(claim))));
    }
    let issuer_place = identity.at("issuer_header");
    let issuer_header = if issuer_place.is_set() {
        let name = issuer_place.text("a header's name");
        name.and_then(|name| header_name(&issuer_place, name, sources))
    } else {
        None
    };
    // Each issuer's own names were held against each other already.
    let own =
        of_issuers.iter().flat_map(|(_, own)| &own.headers).chain(&common.headers).map(|(name, _)| name);
    let mut names: Vec<&String> = Vec::new();
    for name in own.chain(&issuer_header) {
        match names.iter().find(|other| folded(other) == folded(name)) {
            Some(other) if *other == name && Some(name) != issuer_header.as_ref() => {}
            Some(other) => {
                let problem = format!("{name} folds into one spelling with {other}");
                place.fault(problem, "names that differ in more than case and marks, and one use of each");
            }
            None => names.push(name),
        }
    }
    let subjects_are_shared = identity.at("shared_subjects").bool(false);
    let mut identity = Identity::new(&common, of_issuers, issuer_header.as_ref());
    identity.subjects_are_shared = subjects_are_shared;
    // An upstream that is told the issuer can tell them apart.
    if !subjects_are_shared && identity.issuer_header().is_none() {
        for (header, issuers) in identity.shared_subjects(issuers) {
            warnings::shared_subjects(&place, header, &issuers);
        }
    }
    identity
}

/// `headers` and `metadata`, of all issuers or of one.
pub(super) fn maps(identity: &mut Table<'_>, sources: &[TokenSource]) -> IdentityMaps {
    IdentityMaps {
        headers: headers(&identity.at("headers"), sources),
        metadata: metadata(&identity.at("metadata")),
    }
}

/// Claims as they are, or a map of keys.
fn metadata(place: &Place<'_>) -> FieldMap {
    if place.is_map() {
        let entries = place.entries().into_iter().inspect(|(key, value)| {
            if key.is_empty() {
                value.fault("has no name", "a key for the metadata");
            }
        });
        return entries
            .filter_map(|(key, value)| Some((key.to_owned(), mapped_claim(&value, Bare::Json)?)))
            .collect();
    }
    let items = place.list("a list of claims, or a map of keys to claims").unwrap_or_default();
    let claims = items.iter().filter_map(|item| item.parsed(CLAIM, Claim::new));
    claims.map(|claim| (claim.as_str().to_owned(), MappedClaim::json_of(claim))).collect()
}

fn headers(place: &Place<'_>, sources: &[TokenSource]) -> FieldMap {
    let mut headers: FieldMap = Vec::new();
    for (key, claim) in place.entries() {
        let name = header_name(&claim, key, sources);
        if let Some(name) = &name
            && let Some((other, _)) = headers.iter().find(|(other, _)| folded(other) == folded(name))
        {
            claim.fault(
                format!("folds into one spelling with {other}"),
                "names that differ in more than case and marks such as - and _",
            );
        }
        headers.extend(name.zip(mapped_claim(&claim, Bare::Text)));
    }
    headers
}

/// The form of a claim beside which none is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bare {
    /// In a header.
    Text,
    /// In the metadata, which has types of its own.
    Json,
}

/// A claim, or a map that says in which form it is forwarded.
fn mapped_claim(place: &Place<'_>, bare: Bare) -> Option<MappedClaim> {
    if !place.is_map() {
        let claim = place.parsed(CLAIM, Claim::new)?;
        if bare == Bare::Json {
            return Some(MappedClaim::json_of(claim));
        }
        warnings::text_of_list(place, claim.as_str());
        return Some(claim.into());
    }
    place.table(|table| {
        let [claim_place, first, cut_place, map_place, form] =
            ["claim", "first", "cut_prefix", "map", "as"].map(|key| table.at(key));
        if !first.is_written() {
            claim_place.required(CLAIM);
        } else if claim_place.is_written() {
            first.fault("stands beside claim", "one of claim and first");
        }
        let cut_prefix = cut_place.text("the text that is cut off").map(str::to_owned);
        let form = match choice(&form, &["text", "json", "base64"]) {
            Some("json") => Some(JsonForm::Plain),
            Some("base64") => Some(JsonForm::Base64),
            None if bare == Bare::Json
                && ![&first, &cut_place, &map_place].iter().any(|place| place.is_written()) =>
            {
                Some(JsonForm::Plain)
            }
            _ => None,
        };
        let map = claim_map(&map_place);
        for place in [&first, &cut_place, &map_place] {
            if form.is_some() && place.is_written() {
                place.fault("is of a text", "as: text, or leaving it out");
            }
        }
        if first.is_written() {
            let accepted = "a list of claims";
            let items = first.list(accepted)?;
            if items.is_empty() {
                first.fault("is empty", accepted);
            }
            let claims = items.iter().filter_map(|item| item.parsed(CLAIM, Claim::new)).collect();
            return Some(MappedClaim::Text { from: TextClaim::FirstOf(claims), cut_prefix, map });
        }
        if claim_place.is_empty_text() {
            let whole = form.map(|form| MappedClaim::Json(PayloadPart::Whole, form));
            if whole.is_none() {
                claim_place.fault(
                    "is all claims, which are no text",
                    "as: json or base64 beside it, or a claim's name",
                );
            }
            return whole;
        }
        let claim = claim_place.parsed(CLAIM, Claim::new)?;
        if form.is_none() {
            warnings::text_of_list(&claim_place, claim.as_str());
        }
        Some(match form {
            Some(form) => MappedClaim::Json(PayloadPart::Claim(claim), form),
            None => MappedClaim::Text { from: TextClaim::One(claim), cut_prefix, map },
        })
    })
}

/// A table in CSV (RFC 4180) of two columns, without a header line. It is read again with the configuration, when either
/// changes.
fn claim_map(place: &Place<'_>) -> Option<Arc<ClaimMap>> {
    let accepted = "a readable CSV file of two columns: the claim's value, the header's value";
    let path = PathBuf::from(place.text(accepted)?);
    let map = place.claim_map(&path, || {
        let file =
            File::open(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        read_claim_map(file, path.clone()).map_err(|problem| format!("{}: {problem}", path.display()))
    });
    map.inspect(|map| warnings::last_line(place, map)).map_err(|problem| place.fault(problem, accepted)).ok()
}

fn read_claim_map(file: File, path: PathBuf) -> Result<ClaimMap, String> {
    let version = |file: &File| file.metadata().ok().map(|data| FileVersion::from(&data));
    let before = version(&file);
    let file = LastByte { file, last: None };
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file);
    let (mut builder, mut record) = (claim_map::Builder::default(), csv::StringRecord::new());
    // An error of the crate would show the line, which holds users' IDs.
    while reader.read_record(&mut record).map_err(|error| csv_problem(&error))? {
        let line = record.position().map_or(0, csv::Position::line);
        let number = u32::try_from(line).unwrap_or(u32::MAX);
        match (record.get(0), record.get(1), record.len()) {
            (Some(key), Some(value), 2) => {
                let key = if number == 1 { key.trim_start_matches('\u{feff}') } else { key };
                builder.add(number, key, value).map_err(|error| error.to_string())?;
            }
            _ => return Err(format!("line {line} has {} columns", record.len())),
        }
    }
    if version(&reader.get_ref().file) != before {
        return Err("it was written to while it was read".to_owned());
    }
    let ends_with_line_break = matches!(reader.get_ref().last, Some(b'\n' | b'\r'));
    builder.build(path, ends_with_line_break).map_err(|error| error.to_string())
}

/// A file, and the last byte that was read of it.
struct LastByte {
    file: File,
    last: Option<u8>,
}

impl Read for LastByte {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.last = buffer.get(..read).and_then(<[u8]>::last).copied().or(self.last);
        Ok(read)
    }
}

fn csv_problem(error: &csv::Error) -> String {
    match (error.kind(), error.position()) {
        (csv::ErrorKind::Utf8 { .. }, Some(position)) => format!("line {} is not UTF-8", position.line()),
        (csv::ErrorKind::Io(error), _) => format!("cannot be read: {error}"),
        _ => "is no CSV".to_owned(),
    }
}

/// The header's name in lower case.
fn header_name(place: &Place<'_>, name: &str, sources: &[TokenSource]) -> Option<String> {
    let accepted = "a header name with at most 5 dashes, underscores or other marks that has no other use";
    let is_name = http_token(name).is_some();
    let lower = name.to_ascii_lowercase();
    let marks = lower.matches(|c: char| !c.is_ascii_alphanumeric()).count();
    let folded_name = folded(&lower);
    let is_reserved = RESERVED_HEADERS.contains(&folded_name.as_str());
    let is_source = sources.iter().any(|source| match &source.place {
        TokenPlace::Header(header) | TokenPlace::Credentials { header, .. } => folded(header) == folded_name,
        TokenPlace::Cookie(_) | TokenPlace::Chunks(_) | TokenPlace::Query(_) => false,
    });
    if !is_name || marks > MAX_MARKS || is_source || is_reserved {
        place.fault("cannot be an identity header", accepted);
        return None;
    }
    Some(lower)
}
