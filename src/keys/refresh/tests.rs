//! The life of a key set, on tokio's paused clock: hours pass in milliseconds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;

use super::*;
use crate::domain::clock::Clock;
use crate::domain::issuer::IssuerName;
use crate::keys::fetch::BoxFuture;
use crate::keys::sets::{KeySets, Missing, SlotSettings};
use crate::testing::{SigningKey, jwks};

const SECOND: Duration = Duration::from_secs(1);
const START: UnixTime = UnixTime::from_secs(1_000_000);

/// The result of one fetch.
#[derive(Clone)]
enum ScriptedFetch {
    Keys(&'static [&'static str], Option<u64>),
    Fail,
    Hang,
    /// The answer arrives after this pause.
    Slow(Duration, &'static [&'static str]),
}

/// A source whose fetches have these results one after the other, the last one for ever. It records the times.
#[derive(Clone)]
struct Script(Arc<Mutex<(VecDeque<ScriptedFetch>, Vec<Instant>)>>);

impl Script {
    fn new(outcomes: impl IntoIterator<Item = ScriptedFetch>) -> Self {
        Self(Arc::new(Mutex::new((outcomes.into_iter().collect(), Vec::new()))))
    }

    fn now_says(&self, outcome: ScriptedFetch) {
        self.0.lock().unwrap().0 = VecDeque::from([outcome]);
    }

    fn fetches(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }

    /// The pauses between the fetches so far, in seconds.
    fn pauses(&self) -> Vec<f64> {
        let asked = &self.0.lock().unwrap().1;
        asked.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }
}

impl Fetch for Script {
    fn fetch<'a>(&'a self, _: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        let outcome = {
            let (outcomes, asked) = &mut *self.0.lock().unwrap();
            asked.push(Instant::now());
            if outcomes.len() > 1 { outcomes.pop_front() } else { outcomes.front().cloned() }
        };
        let keys = |kids: &[&str], max_age: Option<u64>| {
            let keys: Vec<_> = kids.iter().map(|kid| SigningKey::shared(kid, Algorithm::Es256)).collect();
            let document = jwks(&keys.iter().map(AsRef::as_ref).collect::<Vec<_>>()).to_string();
            Ok(Fetched {
                body: Some(document.into()),
                validator: None,
                max_age: max_age.map(Duration::from_secs),
                sent_at: None,
            })
        };
        Box::pin(async move {
            match outcome.unwrap() {
                ScriptedFetch::Keys(kids, max_age) => keys(kids, max_age),
                ScriptedFetch::Fail => Err(FetchError::Timeout(SECOND)),
                ScriptedFetch::Hang => std::future::pending().await,
                ScriptedFetch::Slow(pause, kids) => {
                    sleep(pause).await;
                    keys(kids, None)
                }
            }
        })
    }
}

fn refresh() -> Refresh {
    Refresh {
        interval: SECOND * 300,
        timeout: SECOND * 3,
        max_stale: SECOND * 86_400,
        unknown_kid_cooldown: SECOND * 10,
        wait: Duration::from_millis(150),
    }
}

/// A running refresher and the store it fills.
struct Fixture {
    store: Arc<KeySets>,
    issuer: IssuerName,
    clock: Clock,
    running: JoinHandle<()>,
}

impl Fixture {
    fn new(source: impl Fetch + 'static, refresh: &Refresh) -> Self {
        let (issuer, clock) = (IssuerName::new("issuer"), Clock::stepped(START));
        let (named, inline) = (issuer.clone(), !source.can_change());
        let entry = SlotSettings { issuer: named, source: String::new(), refresh: refresh.clone(), inline };
        let store = Arc::new(KeySets::new([entry], clock.clone()));
        let publisher = store.publisher(&issuer).unwrap();
        let algorithms = vec![Algorithm::Es256];
        let refresher = Refresher::new(publisher, Box::new(source), None, algorithms, refresh.clone());
        let running = tokio::spawn(refresher.run(CancellationToken::new()));
        Self { store, issuer, clock, running }
    }

    async fn ask(&self, kid: &str) -> Result<(), Missing> {
        let has = |set: &KeySet| set.candidates(Some(kid), Algorithm::Es256).next().is_some();
        self.store.ask(&self.issuer, has).await.map(drop)
    }

    fn has_keys(&self) -> bool {
        let now = self.clock.now();
        let set = self.store.snapshot(&self.issuer, now).ok();
        // The stamp and the set in moka begin and end together.
        assert_eq!(self.store.in_force(&self.issuer, now), set.as_ref().map(|set| set.generation()));
        set.is_some()
    }
}

/// Runs the tasks that are ready, without an advance of the clock.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn within_a_tenth(pauses: &[f64], want: &[f64]) {
    assert_eq!(pauses.len(), want.len(), "{pauses:?}");
    for (pause, want) in pauses.iter().zip(want) {
        // tokio's timer rounds up to its millisecond.
        assert!((want * 0.9..=want + 0.002).contains(pause), "{pauses:?} is not near {want}");
    }
}

#[tokio::test(start_paused = true)]
async fn fetches_at_the_interval_with_jitter() {
    let script = Script::new([ScriptedFetch::Keys(&["a"], None)]);
    let _fixture = Fixture::new(script.clone(), &refresh());
    sleep(SECOND * 300 * 10).await;
    let pauses = script.pauses();
    within_a_tenth(&pauses[..9], &[300.0; 9]);
    assert!(pauses.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 0.01), "no jitter: {pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn max_age_shortens_the_interval_but_not_below_half_a_minute() {
    for (interval, max_age, want) in
        [(300, 60, 60.0), (300, 1, 30.0), (300, 0, 30.0), (300, 3600, 300.0), (10, 1, 10.0), (10, 60, 10.0)]
    {
        let script = Script::new([ScriptedFetch::Keys(&["a"], Some(max_age))]);
        let _fixture = Fixture::new(script.clone(), &Refresh { interval: SECOND * interval, ..refresh() });
        sleep(SECOND * 900).await;
        within_a_tenth(&script.pauses()[..2], &[want; 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_keys_are_asked_for_again_before_they_grow_too_old() {
    let script = Script::new([ScriptedFetch::Keys(&["a"], None)]);
    let _fixture = Fixture::new(script.clone(), &Refresh { max_stale: SECOND * 60, ..refresh() });
    sleep(SECOND * 100).await;
    within_a_tenth(&script.pauses()[..2], &[30.0; 2]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_ever_more_slowly_and_the_keys_stay() {
    let mut outcomes = vec![ScriptedFetch::Keys(&["a"], None)];
    outcomes.extend(std::iter::repeat_n(ScriptedFetch::Fail, 8));
    outcomes.push(ScriptedFetch::Keys(&["a"], None));
    let script = Script::new(outcomes);
    let fixture = Fixture::new(script.clone(), &refresh());
    sleep(SECOND * 420).await;
    assert!(fixture.has_keys());
    within_a_tenth(&script.pauses(), &[300.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
    sleep(SECOND * 400).await;
    within_a_tenth(&script.pauses()[9..10], &[300.0]);
}

#[tokio::test(start_paused = true)]
async fn keys_are_good_up_to_max_stale_after_the_last_good_fetch() {
    let script = Script::new([ScriptedFetch::Keys(&["a"], None), ScriptedFetch::Fail]);
    let fixture = Fixture::new(script.clone(), &refresh());
    settle().await;
    fixture.clock.advance(SECOND * 86_400);
    assert!(fixture.has_keys() && fixture.store.is_ready());
    fixture.clock.advance(Duration::from_millis(1));
    assert!(!fixture.has_keys() && !fixture.store.is_ready());
    assert_eq!(fixture.ask("a").await, Err(Missing::Unavailable));
    // One answer, and the keys are usable again.
    script.now_says(ScriptedFetch::Keys(&["a"], None));
    sleep(SECOND * 300).await;
    assert!(fixture.has_keys() && fixture.store.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_crowd_with_one_new_key_is_one_fetch() {
    let script = Script::new([
        ScriptedFetch::Keys(&["a"], None),
        ScriptedFetch::Slow(Duration::from_millis(100), &["a", "b"]),
    ]);
    let fixture = Arc::new(Fixture::new(script.clone(), &refresh()));
    settle().await;
    let crowd: Vec<_> = (0..100)
        .map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.ask("b").await })
        })
        .collect();
    for one in crowd {
        assert_eq!(one.await.unwrap(), Ok(()));
    }
    assert_eq!(script.fetches(), 2);
    // No request is left that would start a third fetch at the end of the cool-down.
    sleep(SECOND * 200).await;
    assert_eq!(script.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_cost_one_fetch_per_cool_down() {
    let script = Script::new([ScriptedFetch::Keys(&["a"], None)]);
    let fixture = Fixture::new(script.clone(), &refresh());
    settle().await;
    let began = Instant::now();
    assert_eq!(fixture.ask("x").await, Err(Missing::Unknown));
    assert_eq!(script.fetches(), 2, "the first one starts a fetch at once");
    for at in 0..1000 {
        assert_eq!(fixture.ask(&format!("x{at}")).await, Err(Missing::Unknown));
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "within the cool-down no check waits");
    settle().await;
    assert_eq!(script.fetches(), 2);
    sleep(SECOND * 11).await;
    assert_eq!(script.fetches(), 3, "the requested fetch starts at the end of the cool-down");
    sleep(SECOND * 100).await;
    assert_eq!(script.fetches(), 3, "and only one fetch");
    assert_eq!(fixture.ask("y").await, Err(Missing::Unknown));
    assert_eq!(script.fetches(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_check_waits_for_an_issuer_that_hangs_no_longer_than_wait() {
    let script = Script::new([ScriptedFetch::Keys(&["a"], None), ScriptedFetch::Hang]);
    let fixture = Fixture::new(script.clone(), &refresh());
    settle().await;
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(fixture.ask("b").await, Err(Missing::Unavailable));
        within_a_tenth(&[began.elapsed().as_secs_f64()], &[0.15]);
    }
    assert!(fixture.has_keys(), "the keys in force stay usable");
    assert_eq!(script.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_failed_does_not_make_a_key_unknown() {
    let script = Script::new([ScriptedFetch::Keys(&["a"], None), ScriptedFetch::Fail]);
    let fixture = Fixture::new(script.clone(), &refresh());
    settle().await;
    assert_eq!(fixture.ask("b").await, Err(Missing::Unavailable));
    assert_eq!(fixture.ask("b").await, Err(Missing::Unavailable), "within the cool-down neither");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_in_flight_without_the_key_is_followed_by_the_requested_one() {
    // The interval's fetch began before the key was published; its answer comes without it.
    let script = Script::new([
        ScriptedFetch::Keys(&["a"], None),
        ScriptedFetch::Slow(Duration::from_millis(50), &["a"]),
        ScriptedFetch::Slow(Duration::from_millis(50), &["a", "b"]),
    ]);
    let fixture = Fixture::new(script.clone(), &refresh());
    settle().await;
    while script.fetches() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(fixture.ask("b").await, Ok(()));
    assert_eq!(script.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_left_is_gone_with_the_swap() {
    let script =
        Script::new([ScriptedFetch::Keys(&["a", "b"], None), ScriptedFetch::Keys(&["b", "c"], None)]);
    let fixture = Fixture::new(script.clone(), &refresh());
    settle().await;
    let before = fixture.store.snapshot(&fixture.issuer, START).unwrap();
    assert_eq!(fixture.ask("c").await, Ok(()));
    let after = fixture.store.snapshot(&fixture.issuer, START).unwrap();
    let kids = |set: &KeySet| {
        set.keys()
            .iter()
            .filter_map(|key| key.id().cloned())
            .map(|id| id.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!((kids(&before), kids(&after)), (vec!["a".into(), "b".into()], vec!["b".into(), "c".into()]));
}

#[tokio::test(start_paused = true)]
async fn without_keys_a_nudge_fetches_before_the_back_off_is_over() {
    let mut outcomes = vec![ScriptedFetch::Fail; 8];
    outcomes.push(ScriptedFetch::Keys(&["a"], None));
    let script = Script::new(outcomes);
    let fixture = Fixture::new(script.clone(), &refresh());
    sleep(SECOND * 70).await;
    let before = script.fetches();
    for _ in 0..1000 {
        fixture.store.nudge(&fixture.issuer);
    }
    settle().await;
    assert_eq!(script.fetches(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_change_is_read_once_and_never_too_old() {
    let key = SigningKey::shared("a", Algorithm::Es256);
    let inline = crate::config::KeySource::Inline(jwks(&[&key]).to_string());
    let source = crate::keys::fetch::fetcher(&inline, SECOND).unwrap();
    struct Counted(Box<dyn Fetch>, Arc<Mutex<usize>>);
    impl Fetch for Counted {
        fn fetch<'a>(&'a self, known: Option<&'a Validator>) -> BoxFuture<'a, Result<Fetched, FetchError>> {
            *self.1.lock().unwrap() += 1;
            self.0.fetch(known)
        }
        fn can_change(&self) -> bool {
            self.0.can_change()
        }
    }
    let count = Arc::new(Mutex::new(0));
    let fixture = Fixture::new(Counted(source, Arc::clone(&count)), &refresh());
    settle().await;
    let began = Instant::now();
    assert_eq!(fixture.ask("b").await, Err(Missing::Unknown));
    assert_eq!(began.elapsed(), Duration::ZERO);
    let month = SECOND * 86_400 * 30;
    sleep(month).await;
    fixture.clock.advance(month);
    assert_eq!(*count.lock().unwrap(), 1);
    assert!(fixture.has_keys());
    assert_eq!(fixture.store.age(&fixture.issuer), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_publisher_withdraws_the_keys() {
    let fixture = Fixture::new(Script::new(vec![ScriptedFetch::Keys(&["a"], None)]), &refresh());
    settle().await;
    assert!(fixture.has_keys());
    fixture.running.abort();
    settle().await;
    assert!(!fixture.has_keys());
}
