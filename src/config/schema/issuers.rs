//! `issuers` as written. The profile of a Passage app sets the defaults of `issuer`, `audiences`, `keys` and
//! `require_kid`.

use std::time::Duration;

use url::Url;

use super::super::place::{Place, Table};
use super::super::warnings;
use super::super::{IssuerConfig, KeySource, Refresh, WebAccess};
use super::identity;
use super::key_sources::{self, certificates, fetchable};
use super::shapes::{HOUR, MILLISECOND, SECOND, choice};
use crate::domain::algorithm::Algorithm;
use crate::domain::claim::Claim;
use crate::domain::identity::IdentityMaps;
use crate::domain::issuer::{
    Audience, Audiences, BoundTokens, Issuer, IssuerId, IssuerName, PassageApp, TENANT, Tenants,
};
use crate::domain::token::TokenSource;

/// Two issuers may share neither `iss` (it decides which issuer's rules hold for a token) nor name (rules and
/// stored keys refer to it).
pub(super) fn read(
    place: &Place<'_>,
    sources: &[TokenSource],
) -> (Vec<IssuerConfig>, Vec<(IssuerName, IdentityMaps)>) {
    let accepted = "a list of at least one issuer";
    place.required(accepted);
    let mut own_maps = Vec::new();
    let Some(items) = place.list(accepted) else { return (Vec::new(), own_maps) };
    if items.is_empty() {
        place.fault("is empty, so no token could be accepted", accepted);
    }
    let mut issuers: Vec<IssuerConfig> = Vec::new();
    for item in &items {
        let read = item.table(|table| {
            let identity = table.at("identity");
            let maps =
                identity.is_set().then(|| identity.table(|identity| identity::maps(identity, sources)));
            (issuer(table), maps)
        });
        let (Some(next), maps) = read else { continue };
        own_maps.extend(maps.map(|maps| (next.issuer.name.clone(), maps)));
        for earlier in &issuers {
            if earlier.issuer.name == next.issuer.name {
                item.fault(
                    format!("the name {} is taken", next.issuer.name),
                    "a name of its own for each issuer",
                );
            }
            if let Some(id) = next.issuer.ids.iter().find(|id| earlier.issuer.ids.contains(id)) {
                let problem = format!("iss {:?} belongs to issuer {} already", id.0, earlier.issuer.name);
                item.fault(problem, "each iss at one issuer");
            }
        }
        if next.keys.is_at_hosted_passage() {
            warnings::hosted_passage(item);
        }
        issuers.push(next);
    }
    (issuers, own_maps)
}

fn issuer(table: &mut Table<'_>) -> Option<IssuerConfig> {
    let name = name(&table.at("name"));
    let access = WebAccess {
        allow_http: table.at("allow_http").bool(false),
        ca: certificates(&table.at("ca")),
        ..WebAccess::default()
    };
    let profile = table.at("passage");
    let app = if profile.is_set() { profile.table(|app| passage(app, &access)) } else { None };
    let is_app = profile.is_written();
    if is_app && !profile.is_set() {
        profile.fault("has no value", "{app_id: ID}");
    }
    let (app_ids, app_keys_url) = app.map(|PassageApp { ids, keys_url }| (ids.to_vec(), keys_url)).unzip();

    let tenants_place = table.at("tenants");
    let ids = ids(&table.at("issuer"), is_app, app_ids, tenants_place.is_written());
    let tenants = tenants(&tenants_place, ids.as_deref().unwrap_or_default());
    let audiences = audiences(&table.at("audiences"), is_app);
    let [registered_audience, registered_subject] = Issuer::registered_claims();
    let audience_claims_place = table.at("audience_claims");
    if audience_claims_place.is_written() && audiences == Audiences::NotChecked {
        let problem = "is never looked at: audiences is empty, so no audience is checked";
        audience_claims_place.fault(problem, "audience_claims beside audiences");
    }
    let audience_claims = claims(&audience_claims_place).unwrap_or(registered_audience);
    let subject_place = table.at("subject");
    let subject = claims(&subject_place).unwrap_or(registered_subject);
    subject.iter().for_each(|claim| warnings::subject(&subject_place, claim.as_str()));
    let algorithms = algorithms(&table.at("algorithms"));
    let types = types(&table.at("types"));
    let keys_place = table.at("keys");
    let keys = if is_app && !keys_place.is_written() {
        let url = app_keys_url.and_then(|url| Url::parse(&url).ok());
        url.map(|url| KeySource::Url { url, access })
    } else {
        key_sources::read(&keys_place, ids.as_deref(), &algorithms, access)
    };
    let require_kid = table.at("require_kid").bool(is_app);
    let leeway = table.at("leeway").duration(Duration::ZERO..=SECOND * 300, SECOND * 30);
    let bound_tokens = match choice(&table.at("bound_tokens"), &["verify", "ignore"]) {
        Some("ignore") => BoundTokens::Ignore,
        _ => BoundTokens::Verify,
    };
    let max_lifetime_place = table.at("max_lifetime");
    let max_lifetime = max_lifetime_place
        .is_set()
        .then(|| max_lifetime_place.duration(SECOND..=HOUR * 24 * 3660, HOUR * 24 * 3660));
    let refresh = table.at("refresh").table(refresh);
    let (name, ids) = (name?, ids?);
    let issuer = Issuer {
        name,
        ids,
        tenants,
        audiences,
        audience_claims,
        subject,
        algorithms,
        require_kid,
        types,
        leeway,
        bound_tokens,
        max_lifetime,
    };
    Some(IssuerConfig { issuer, keys: keys?, refresh })
}

fn name(place: &Place<'_>) -> Option<IssuerName> {
    let accepted = "1 to 63 letters, digits, dots, dashes and underscores";
    place.required(accepted);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    place.parsed(accepted, |text| {
        ((1..=63).contains(&text.len()) && text.bytes().all(legal)).then(|| IssuerName::new(text))
    })
}

/// The section `passage`.
fn passage(table: &mut Table<'_>, access: &WebAccess) -> Option<PassageApp> {
    // The ID stands in the path of the key URL, so it may hold nothing that a URL reads as structure.
    let accepted = "the app's ID: letters, digits, dashes and underscores";
    let app_id = table.at("app_id");
    app_id.required(accepted);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let id = app_id.parsed(accepted, |text| text.bytes().all(legal).then(|| text.to_owned()));
    let base_url = table.at("base_url");
    let base = if base_url.is_written() {
        let text = base_url.text("the URL of Passage's host");
        text.filter(|text| fetchable(&base_url, text, access).is_some())
    } else {
        Some(PassageApp::BASE_URL)
    };
    Some(PassageApp::new(&id?, base?))
}

fn ids(
    place: &Place<'_>,
    is_app: bool,
    app_ids: Option<Vec<IssuerId>>,
    has_tenants: bool,
) -> Option<Vec<IssuerId>> {
    let accepted = "the exact iss value, or a list of them";
    if !place.is_written() {
        if !is_app {
            place.required(accepted);
        }
        return app_ids;
    }
    let items = place.list_or_one(accepted)?;
    if items.is_empty() {
        place.fault("is empty", accepted);
    }
    let id = |item: &Place<'_>| {
        let text = item.text(accepted)?;
        if text.contains(TENANT) && !has_tenants {
            item.fault(
                format!("{text:?} is the iss of an issuer with tenants"),
                "tenants beside it: a list of their IDs, or any",
            );
        } else if !has_tenants {
            warnings::exact(item, text);
        } else if text.matches(TENANT).count() != 1 {
            item.fault(
                format!("{text:?} does not say where the tenant's ID stands"),
                &format!("a text with one {TENANT}"),
            );
        }
        Some(IssuerId(text.to_owned()))
    };
    items.iter().map(id).collect()
}

fn tenants(place: &Place<'_>, ids: &[IssuerId]) -> Option<Tenants> {
    let accepted = "any, or a list of the IDs of tenants";
    if place.is_written() && ids.iter().all(|id| !id.0.contains(TENANT)) {
        place.fault("has no meaning without an issuer that has them", &format!("{TENANT} in issuer"));
    }
    if place.is_text() {
        return place.parsed(accepted, |text| (text == "any").then_some(Tenants::Any));
    }
    let items = place.list(accepted)?;
    if items.is_empty() {
        place.fault("is empty, so no token could be accepted", accepted);
    }
    let id =
        |item: &Place<'_>| item.text(accepted).inspect(|text| warnings::exact(item, text)).map(str::to_owned);
    Some(Tenants::OneOf(items.iter().filter_map(id).collect()))
}

fn audiences(place: &Place<'_>, is_app: bool) -> Audiences {
    let accepted = "a list of audiences; [] says on purpose that aud is not checked";
    if !is_app {
        place.required(accepted);
    }
    let items = place.list(accepted).unwrap_or_default();
    let audience =
        |item: &Place<'_>| item.text(accepted).inspect(|text| warnings::exact(item, text)).map(str::to_owned);
    let list: Vec<_> = items.iter().filter_map(audience).collect();
    if list.is_empty() {
        return Audiences::NotChecked;
    }
    Audiences::OneOf(list.into_iter().map(Audience).collect())
}

/// One claim or a list of them; `None` if nothing is written.
fn claims(place: &Place<'_>) -> Option<Vec<Claim>> {
    let accepted = "the name of a claim, a JSON Pointer to one, or a list of them";
    let items = place.list_or_one(accepted)?;
    if items.is_empty() {
        place.fault("is empty", accepted);
    }
    Some(items.iter().filter_map(|item| item.parsed(accepted, Claim::new)).collect())
}

fn algorithms(place: &Place<'_>) -> Vec<Algorithm> {
    let names: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
    let accepted = format!("a list out of {}", names.join(", "));
    let Some(items) = place.list(&accepted) else { return vec![Algorithm::Rs256] };
    if items.is_empty() {
        place.fault("is empty, so no token could be accepted", &accepted);
    }
    items.iter().filter_map(|item| item.parsed(&accepted, Algorithm::from_name)).collect()
}

fn types(place: &Place<'_>) -> Vec<String> {
    let accepted = "a list of typ values, such as [JWT, at+jwt]";
    let Some(items) = place.list(accepted) else { return vec!["jwt".to_owned(), "at+jwt".to_owned()] };
    let texts =
        items.iter().filter_map(|item| item.text(accepted).inspect(|text| warnings::exact(item, text)));
    let types = texts.map(|text| {
        let typ = text.to_ascii_lowercase();
        typ.strip_prefix("application/").map_or_else(|| typ.clone(), str::to_owned)
    });
    types.collect()
}

fn refresh(table: &mut Table<'_>) -> Refresh {
    let interval = table.at("interval").duration(MILLISECOND * 100..=HOUR * 24 * 7, SECOND * 300);
    let max_stale_place = table.at("max_stale");
    let max_stale = max_stale_place.duration(SECOND..=HOUR * 24 * 365, HOUR * 24);
    warnings::max_stale(&max_stale_place, max_stale, interval);
    Refresh {
        interval,
        timeout: table.at("timeout").duration(MILLISECOND * 10..=SECOND * 60, SECOND * 3),
        max_stale,
        unknown_kid_cooldown: table
            .at("unknown_kid_cooldown")
            .duration(MILLISECOND * 100..=HOUR, SECOND * 10),
        wait: table.at("wait").duration(Duration::ZERO..=SECOND * 10, MILLISECOND * 150),
    }
}
