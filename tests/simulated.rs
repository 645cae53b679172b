//! The policies before invented endpoints, thousands of calls each, in invented time.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

#[path = "../benches/support/endpoint.rs"]
mod endpoint;
#[path = "../benches/support/simulator.rs"]
mod simulator;

use endpoint::{Behaviour, Headers, Refusal, Says};
use simulator::{Outcome, Scene, play, play_plain};

const PLAIN: Scene = Scene {
    seed: 7,
    rows: 3_000,
    concurrency: 64,
    calls_a_minute: None,
    endpoint: endpoint::PLAIN,
};

/// Which scenes are tried, of all there might be.
const SCENES: u64 = 3;

fn with(endpoint: Behaviour) -> Scene {
    Scene { endpoint, ..PLAIN }
}

fn seconds(outcome: &Outcome) -> f64 {
    outcome.took.expect("it comes to an end")
}

/// The time of one outcome beside the other's, in the middle of some seeds.
fn beside_plain(scene: &Scene) -> (f64, f64) {
    let mut both: Vec<(f64, f64)> = (0..5)
        .map(|seed| {
            let scene = Scene { seed, ..scene.clone() };
            let (ours, plain) = (play(&scene), play_plain(&scene));
            assert_eq!(ours.lost, 0, "{scene:?}");
            (seconds(&ours) / seconds(&plain), ours.refused())
        })
        .collect();
    both.sort_by(|one, other| one.0.total_cmp(&other.0));
    both[both.len() / 2]
}

fn most_in_a_minute(outcome: &Outcome) -> usize {
    let starts = &outcome.starts;
    let mut first = 0;
    let counts = starts.iter().enumerate().map(|(last, at)| {
        while starts[first] < at - 60.0 {
            first += 1;
        }
        last - first + 1
    });
    counts.max().unwrap_or(0)
}

#[test]
fn quiet_endpoint_is_used_in_full() {
    let outcome = play(&PLAIN);
    let ideal = PLAIN.rows as f64 / PLAIN.concurrency as f64 * PLAIN.endpoint.latency;
    assert!(seconds(&outcome) <= ideal * 1.03, "{} beside {ideal}", seconds(&outcome));
    assert_eq!((outcome.calls, outcome.lost), (PLAIN.rows, 0));
}

#[test]
fn thousands_in_flight_are_reached_in_seconds() {
    for (concurrency, latency) in [(1_000, 2.0), (2_000, 5.0)] {
        let endpoint = Behaviour { latency, ..endpoint::PLAIN };
        let scene = Scene { rows: 8_000, concurrency, endpoint, ..PLAIN };
        let ideal = scene.rows as f64 / concurrency as f64 * latency;
        let took = seconds(&play(&scene));
        assert!(took <= ideal / 0.9, "{took} beside {ideal}");
    }
}

#[test]
fn headers_cost_no_time() {
    let bucket = Behaviour { rate: Some((300.0, 300.0)), ..endpoint::PLAIN };
    for endpoint in [
        Behaviour { headers: Headers::Wrong, ..endpoint::PLAIN },
        Behaviour { headers: Headers::Azure, ..bucket.clone() },
        Behaviour { headers: Headers::OpenAi, ..bucket.clone() },
        Behaviour { headers: Headers::Anthropic, ..bucket },
    ] {
        let scene = with(endpoint);
        let (ratio, _) = beside_plain(&scene);
        assert!(ratio <= 1.03, "{:?}: {ratio} of the plain client's time", scene.endpoint.headers);
    }
}

#[test]
fn random_refusals_slow_their_rows_alone() {
    for (random, status, says) in [
        (0.1, 429, Says::Always(1.0)),
        (0.1, 429, Says::Nothing),
        (0.05, 503, Says::Always(1.0)),
        (0.3, 503, Says::Nothing),
        (0.1, 500, Says::Nothing),
        (0.25, 502, Says::Nothing),
    ] {
        let refusal = Refusal { status, says, ..endpoint::PLAIN.refusal };
        let scene = with(Behaviour { random, refusal, ..endpoint::PLAIN });
        let (ratio, _) = beside_plain(&scene);
        assert!(ratio <= 1.0, "{random} {status} {says:?}: {ratio} of the plain client's time");
    }
}

#[test]
fn refused_load_is_found_and_kept() {
    let slow = Refusal { after: None, ..endpoint::PLAIN.refusal };
    let told = Refusal { says: Says::Always(1.0), ..endpoint::PLAIN.refusal };
    for refusal in [endpoint::PLAIN.refusal, slow, told] {
        let scene = with(Behaviour { capacity: 20, refusal, ..endpoint::PLAIN });
        let outcome = play(&scene);
        let ideal = PLAIN.rows as f64 / 20.0 * PLAIN.endpoint.latency;
        assert!(seconds(&outcome) <= ideal / 0.9, "{refusal:?}: {}", seconds(&outcome));
        let late = outcome.seconds.iter().skip(5);
        let (failed, answered) =
            late.fold((0, 0), |sum, second| (sum.0 + second.failed, sum.1 + second.answered));
        assert!(failed * 20 <= failed + answered, "{refusal:?}: {failed} refused of {answered}");
        let (ratio, _) = beside_plain(&scene);
        assert!(ratio <= 1.02, "{refusal:?}: {ratio} of the plain client's time");
    }
}

#[test]
fn capacity_that_grows_is_found() {
    let endpoint = Behaviour { capacity: 10, capacity_later: Some((10.0, 40)), ..endpoint::PLAIN };
    let outcome = play(&with(endpoint));
    let last = outcome.answers.iter().filter(|at| (20.0..21.0).contains(*at)).count();
    assert!(last >= 150, "{last} of 200 a second, ten seconds later");
}

#[test]
fn former_rate_is_back_soon_after_an_outage() {
    for seed in 0..10 {
        let endpoint = Behaviour { outage: Some((10.0, 40.0)), ..endpoint::PLAIN };
        let outcome = play(&Scene { seed, rows: 12_000, endpoint, ..PLAIN });
        assert_eq!(outcome.lost, 0);
        let first = outcome.answers.iter().find(|at| **at > 12.0).unwrap();
        assert!(*first <= 45.0, "seed {seed}: the first answer after {first} s");
        let back = outcome.answers.iter().filter(|at| (first + 2.0..first + 3.0).contains(*at));
        assert!(back.count() >= 288, "seed {seed}: 0.9 of 320 a second");
        let inside = outcome.starts.iter().filter(|at| (11.0..40.0).contains(*at)).count();
        assert!(inside <= 30, "seed {seed}: one probe at a time: {inside}");
    }
}

#[test]
fn poisoned_rows_fail_while_others_are_answered() {
    for status in [429, 503] {
        let refusal = Refusal { status, says: Says::Always(1.0), ..endpoint::PLAIN.refusal };
        let endpoint = Behaviour { poisoned: Some(300), refusal, ..endpoint::PLAIN };
        let outcome = play(&with(endpoint));
        assert_eq!(outcome.lost, 10, "{status}");
        assert!(seconds(&outcome) < 30.0, "{status}: {}", seconds(&outcome));
    }
}

proptest! {
    // The same scenes every time: what one run finds, the next one finds again.
    #![proptest_config(ProptestConfig {
        cases: 40,
        rng_seed: RngSeed::Fixed(SCENES),
        ..ProptestConfig::default()
    })]

    /// Whatever an endpoint does for minutes: every row is answered, and nothing sticks.
    #[test]
    fn no_row_is_lost_and_nothing_sticks(
        seed: u64,
        concurrency in 1_usize..200,
        latency in 0.05_f64..5.0,
        spread in 0.0_f64..0.9,
        capacity in 1_usize..300,
        is_slow: bool,
        outage in proptest::option::of((0.0_f64..120.0, 1.0_f64..300.0)),
        brown_out in proptest::option::of((0.0_f64..60.0, 10.0_f64..600.0, 0.01_f64..0.45)),
    ) {
        let (from, lasts, random) = brown_out.unwrap_or_default();
        let after = (!is_slow).then_some(0.005);
        let endpoint = Behaviour {
            latency,
            spread,
            capacity,
            outage: outage.map(|(from, lasts)| (from, from + lasts)),
            random,
            random_within: (from, from + lasts),
            refusal: Refusal { status: 429, after, says: Says::Nothing },
            ..endpoint::PLAIN
        };
        let scene = Scene { seed, rows: 2_000, concurrency, calls_a_minute: None, endpoint };
        let outcome = play(&scene);
        prop_assert_eq!(outcome.lost, 0, "{:?}", scene);
        let Some(took) = outcome.took else { panic!("it sticks: {scene:?}") };
        let width = concurrency.min(capacity) as f64;
        let ideal = scene.rows as f64 * latency / width;
        let trouble = outage.map_or(0.0, |(_, lasts)| lasts) + lasts;
        prop_assert!(took <= ideal * 4.0 + 2.0 * trouble + 120.0, "{took} beside {ideal}: {scene:?}");
        let is_within = |it: &simulator::Second| it.in_flight.max(it.limit) <= concurrency;
        prop_assert!(outcome.seconds.iter().all(is_within));
    }

    /// Nobody is asked more than `--rpm` allows, in any minute, and that much is used.
    #[test]
    fn a_rate_is_kept_to_and_used(
        seed: u64,
        calls_a_minute in 30_u64..3_000,
        latency in 0.05_f64..1.0,
    ) {
        let rows = (calls_a_minute * 4) as usize;
        let endpoint = Behaviour { latency, ..endpoint::PLAIN };
        let limit = Some(calls_a_minute);
        let scene = Scene { seed, rows, concurrency: 200, calls_a_minute: limit, endpoint };
        let outcome = play(&scene);
        prop_assert!(most_in_a_minute(&outcome) as u64 <= calls_a_minute);
        let took = outcome.took.unwrap();
        prop_assert!(took <= 4.0 * 60.0 / 0.98 + 3.0 * latency + 5.0, "{took}");
    }

    /// An endpoint's own limit of a minute is used, whether it says when or not: few calls are refused.
    #[test]
    fn a_window_of_the_endpoints_costs_few_calls(
        seed: u64,
        limit in 200_usize..2_000,
        is_told: bool,
    ) {
        let says = if is_told { Says::When } else { Says::Nothing };
        let refusal = Refusal { says, ..endpoint::PLAIN.refusal };
        let window = Some((limit, 60.0));
        let endpoint = Behaviour { window, refusal, latency: 1.0, ..endpoint::PLAIN };
        let outcome = play(&Scene { seed, rows: limit * 3, endpoint, ..PLAIN });
        prop_assert_eq!(outcome.lost, 0);
        let took = outcome.took.unwrap_or(f64::INFINITY);
        prop_assert!(took <= 2.0 * 60.0 + limit as f64 / 64.0 * 1.3 + 20.0, "{took}");
        prop_assert!(outcome.refused() <= 0.3, "{} refused", outcome.refused());
    }
}

#[test]
fn slow_refusals_of_small_capacity_do_not_stall() {
    let refusal = Refusal { status: 429, after: None, says: Says::Nothing };
    let endpoint =
        Behaviour { latency: 3.36, spread: 0.87, capacity: 3, refusal, ..endpoint::PLAIN };
    for seed in 0..4 {
        let endpoint = endpoint.clone();
        let scene = Scene { seed, rows: 2_000, concurrency: 80, calls_a_minute: None, endpoint };
        let (ours, plain) = (seconds(&play(&scene)), seconds(&play_plain(&scene)));
        assert!(ours <= 2.5 * plain, "seed {seed}: {ours} s beside {plain} s");
    }
}
