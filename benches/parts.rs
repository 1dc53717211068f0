//! The parts of a check, one by one, in this process: `cargo bench --bench parts`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use passage_authz::algorithm::Algorithm;
use passage_authz::testing::parts::{Parts, Step};
use passage_authz::testing::{SigningKey, jwks};

#[path = "side_by_side/client.rs"]
#[allow(dead_code, reason = "the other benchmarks use the rest")]
mod client;

fn parts(criterion: &mut Criterion) {
    let key = SigningKey::shared("k1", Algorithm::Rs256);
    let token = key.mint("app1", |_, _| {});
    let config = format!(
        "issuers: [{{name: passage, passage: {{app_id: app1}}, keys: {{inline: {}}}}}]\n",
        jwks(&[&key])
    );
    let message = client::check(&token);
    let parts = Parts::new(&config, &message[5..], &token);
    for step in Step::ALL {
        criterion.bench_function(&format!("{step:?}"), |bencher| bencher.iter(|| black_box(parts.run(step))));
    }
}

criterion_group!(benches, parts);
criterion_main!(benches);
