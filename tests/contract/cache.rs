//! Attempts to make the token cache answer wrongly, by time, by withdrawn keys, by tokens that resemble a cached one.

use std::collections::HashMap;
use std::time::Duration;

use passage_authz::domain::algorithm::Algorithm;
use passage_authz::domain::clock::{Clock, UnixTime};
use passage_authz::testing::{Behavior, FakeIssuer, SigningKey};
use serde_json::json;

use crate::support::fixtures::{self, APP, PATIENT, key, passage_with};
use crate::support::{Service, get, header_map_request, wait_until};

const NOW: u64 = 1_800_000_000;

/// [`fixtures::inline`] with the cache on, whatever `UNCACHED` says.
fn inline(more: &str) -> String {
    fixtures::inline(&format!("tokens: {{cache: {{max_entries: 1000}}}}\n{more}"))
}

async fn cached(service: &Service) -> HashMap<&'static str, u64> {
    let (_, metrics) = get(service.admin, "/metrics").await;
    let count = |result| {
        let name = format!("passage_authz_token_cache_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    };
    HashMap::from([("hit", count("hit")), ("miss", count("miss"))])
}

#[tokio::test]
async fn time_is_judged_again_on_each_hit() {
    let clock = Clock::stepped(UnixTime::from_secs(NOW));
    let service = Service::start_at(&inline(""), clock.clone()).await;
    service.until_ready().await;
    let token = key().mint(APP, |_, claims| {
        claims["exp"] = json!(NOW + 60);
        claims["nbf"] = json!(NOW - 10);
    });
    assert_eq!(service.bearer(&token).await.code(), "allowed");
    assert_eq!(service.bearer(&token).await.code(), "allowed");
    assert_eq!(cached(&service).await, HashMap::from([("hit", 1), ("miss", 1)]));
    clock.advance(Duration::from_secs(89));
    assert_eq!(service.bearer(&token).await.code(), "allowed", "a leeway of 30 s");
    clock.advance(Duration::from_secs(1));
    assert_eq!(service.bearer(&token).await.code(), "token_expired");
    assert_eq!(cached(&service).await, HashMap::from([("hit", 3), ("miss", 1)]));
}

/// Sessions renew their tokens. A cache full of old ones, however often they were used, must take the new ones in.
#[tokio::test]
async fn a_full_cache_takes_new_tokens_in() {
    const ENTRIES: usize = 50;
    let service =
        Service::ready(&fixtures::inline(&format!("tokens: {{cache: {{max_entries: {ENTRIES}}}}}"))).await;
    let use_tokens = async |name: &str, times: usize| {
        let tokens: Vec<_> = (0..ENTRIES)
            .map(|at| key().mint(APP, |_, claims| claims["sub"] = json!(format!("{name}-{at}"))))
            .collect();
        let before = cached(&service).await["hit"];
        for token in (0..times).flat_map(|_| &tokens) {
            assert_eq!(service.bearer(token).await.code(), "allowed");
        }
        cached(&service).await["hit"] - before
    };
    use_tokens("old", 20).await;
    let hits = use_tokens("new", 4).await;
    // Each token but for its first use; some more are lost where the cache has not yet evicted.
    let want = 3 * u64::try_from(ENTRIES).unwrap();
    assert!(hits * 10 >= want * 9, "{hits} of {want}");
}

#[tokio::test]
async fn a_withdrawn_key_ends_its_tokens_and_a_confirmed_one_does_not() {
    let (old, new) = (key(), SigningKey::shared("k2", Algorithm::Rs256));
    let issuer = FakeIssuer::with_keys(&[&old, &new]).await;
    let config = format!(
        "{}tokens: {{cache: {{max_entries: 1000}}}}\n",
        passage_with(&issuer, &format!(", refresh: {{interval: 100ms, {PATIENT}}}"))
    );
    let service = Service::ready(&config).await;
    let iss = issuer.passage_iss(APP);
    let tokens = [old.mint(&iss, |_, _| {}), new.mint(&iss, |_, _| {})];
    for token in &tokens {
        assert_eq!(service.bearer(token).await.code(), "allowed");
    }
    let fetches = issuer.fetches();
    wait_until("confirmed", || async { issuer.fetches() > fetches + 1 }).await;
    for token in &tokens {
        assert_eq!(service.bearer(token).await.code(), "allowed");
    }
    assert_eq!(cached(&service).await["hit"], 2, "an unchanged set forgets nothing");
    issuer.behave(Behavior::keys(&[&new]));
    wait_until("withdrawn", || async { service.bearer(&tokens[0]).await.code() == "key_unknown" }).await;
    assert_eq!(service.bearer(&tokens[1]).await.code(), "allowed");
}

#[tokio::test]
async fn keys_that_are_too_old_verify_nothing_cached_either() {
    let clock = Clock::stepped(UnixTime::from_secs(NOW));
    let issuer = FakeIssuer::with_keys(&[&key()]).await;
    let config = passage_with(&issuer, ", refresh: {max_stale: 1h}");
    let service = Service::start_at(&config, clock.clone()).await;
    service.until_ready().await;
    let token = key().mint(APP, |_, _| {});
    assert_eq!(service.bearer(&token).await.code(), "allowed");
    issuer.behave(Behavior::Reset);
    clock.advance(Duration::from_secs(3601));
    assert_eq!(service.bearer(&token).await.code(), "keys_unavailable");
}

#[tokio::test]
async fn nothing_of_one_token_answers_for_another() {
    let service = Service::ready(&inline("")).await;
    let good = key().mint(APP, |_, _| {});
    assert_eq!(service.bearer(&good).await.code(), "allowed");
    // Each single change of the last characters, at the end of each segment, and around it.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=. ";
    let ends = good.match_indices('.').map(|(at, _)| at).chain([good.len()]);
    for end in ends {
        for place in [end - 1, end - 2] {
            for letter in alphabet.chars().filter(|letter| !good[place..].starts_with(*letter)) {
                let mut other = good.clone();
                other.replace_range(place..=place, &letter.to_string());
                let answer = service.bearer(&other).await;
                assert_eq!(answer.http, 401, "{} {other}", answer.code());
            }
        }
    }
    for other in [good[..good.len() - 1].to_owned(), format!("{good}A"), format!("{good}.")] {
        assert_eq!(service.bearer(&other).await.http, 401, "{other}");
    }
    // The same claims under another signature; the same signature over other claims; one user after another.
    let other = SigningKey::generate("k1", Algorithm::Rs256).mint(APP, |_, _| {});
    assert_eq!(service.bearer(&other).await.code(), "signature_invalid");
    let mallory = key().mint(APP, |_, claims| claims["sub"] = json!("mallory"));
    let (head, _) = mallory.rsplit_once('.').unwrap();
    let spliced = format!("{head}.{}", good.rsplit_once('.').unwrap().1);
    assert_eq!(service.bearer(&spliced).await.code(), "signature_invalid");
    for (token, user) in [(&mallory, "mallory"), (&good, "user-1"), (&mallory, "mallory")] {
        assert_eq!(service.bearer(token).await.header("x-passage-user-id"), Some(user));
    }
    let before = cached(&service).await;
    assert_eq!(service.bearer(&other).await.code(), "signature_invalid");
    let after = cached(&service).await;
    assert_eq!((after["hit"], after["miss"]), (before["hit"], before["miss"] + 1), "what is bad is not kept");
}

#[tokio::test]
async fn each_rule_judges_a_cached_token_by_itself() {
    let rules = "identity: {headers: {x-user: sub, x-org: /org/id}, metadata: [iss, sub, role, num]}\n\
        rules:\n\
        - {name: admin, match: {paths: [/admin]}, require: {claims: {role: admin}}}\n\
        - {name: other, match: {paths: [/other]}, require: {claims: {/org/id: o2}}}\n\
        - {name: org, match: {paths: [/org]}, require: {claims: {/org/id: o1, scope: write}}}\n\
        - {name: none, match: {paths: [/none]}, access: deny}\n";
    let service = Service::ready(&inline(rules)).await;
    let token = key().mint(APP, |_, claims| {
        claims["role"] = json!("user");
        claims["scope"] = json!("read write");
        claims["org"] = json!({"id": "o1", "name": "unread"});
        claims["num"] = json!([1, {"a": null}]);
    });
    let bearer = format!("Bearer {token}");
    let ask = async |path: &str| {
        service.send(header_map_request("GET", "h", path, &[("authorization", &bearer)])).await
    };
    let first = ask("/").await;
    assert_eq!((first.header("x-user"), first.header("x-org")), (Some("user-1"), Some("o1")));
    for _ in 0..2 {
        assert_eq!(ask("/").await, first, "a hit answers as the miss did");
        for (path, code) in [
            ("/admin", "claims_insufficient"),
            ("/other", "claims_insufficient"),
            ("/org", "allowed"),
            ("/none", "rule_denies"),
        ] {
            assert_eq!(ask(path).await.code(), code, "{path}");
        }
    }
    assert_eq!(cached(&service).await["miss"], 1);
}

#[tokio::test]
async fn claims_that_are_too_large_to_keep_are_verified_each_time() {
    let more = "identity: {headers: {x-groups: groups}}\n";
    let service = Service::ready(&inline(more)).await;
    let groups = "g".repeat(2000);
    let token = key().mint(APP, |_, claims| claims["groups"] = json!(groups));
    for _ in 0..2 {
        assert_eq!(service.bearer(&token).await.header("x-groups"), Some(groups.as_str()));
    }
    assert_eq!(cached(&service).await, HashMap::from([("hit", 0), ("miss", 2)]));
}
