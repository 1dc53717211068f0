//! The steps of a check, one by one, in this process: `cargo bench --bench parts`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use jsonwebtoken::DecodingKey;
use passage_authz::domain::algorithm::Algorithm;
use passage_authz::testing::steps::{CheckSteps, Step};
use passage_authz::testing::{SigningKey, jwks};
use prost::Message as _;

#[path = "side_by_side/client.rs"]
#[allow(dead_code, reason = "the other benchmarks use the rest")]
mod client;

fn parts(criterion: &mut Criterion) {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let token = client::session(&key, 1);
    let config = format!(
        "issuers: [{{name: passage, passage: {{app_id: app1}}, keys: {{inline: {}}}}}]\n",
        jwks(&[&key])
    );
    let message = client::check(&token);
    let steps = CheckSteps::new(&config, &message[5..], &token);
    for step in Step::ALL {
        criterion.bench_function(&format!("{step:?}"), |bencher| bencher.iter(|| black_box(steps.run(step))));
    }

    // The library code that two steps replace, for the comparison in docs/decisions/0005.
    let whole: &[u8] = &message[5..];
    criterion.bench_function("Scan, by envoy-types", |bencher| {
        bencher.iter(|| black_box(CheckRequest::decode(whole).unwrap()));
    });
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let jwk = serde_json::from_value(key.jwk()).unwrap();
    let jsonwebtoken_key = DecodingKey::from_jwk(&jwk).unwrap();
    criterion.bench_function("the signature, by jsonwebtoken", |bencher| {
        bencher.iter(|| {
            let verified = jsonwebtoken::crypto::verify(
                signature,
                signed.as_bytes(),
                &jsonwebtoken_key,
                jsonwebtoken::Algorithm::RS256,
            );
            assert!(verified.unwrap());
        });
    });
}

criterion_group!(benches, parts);
criterion_main!(benches);
