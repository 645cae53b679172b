//! The policies before invented endpoints, thousands of calls each, in invented time.

use proptest::prelude::*;

#[path = "../benches/support/simulator.rs"]
mod simulator;

use simulator::{Outcome, Scene, play};

const PLAIN: Scene = Scene {
    seed: 7,
    rows: 6_000,
    concurrency: 64,
    calls_a_minute: None,
    latency: 1.0,
    capacity: usize::MAX,
    limit: None,
    says_when: false,
    outage: None,
    brown_out: None,
};

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
fn without_trouble_it_is_as_fast_as_it_may_be() {
    let outcome = play(&PLAIN);
    let seconds = outcome.took.unwrap();
    // Answers take 1.2 s on the average.
    let ideal = PLAIN.rows as f64 / PLAIN.concurrency as f64 * 1.22;
    assert!(seconds <= ideal * 1.06 + 6.0, "{seconds} beside {ideal}");
    assert_eq!((outcome.calls, outcome.lost), (PLAIN.rows, 0));
}

#[test]
fn behind_an_outage_the_pace_is_back_within_its_last_probe_and_seconds() {
    for seed in 0..20 {
        let scene = Scene { seed, rows: 12_000, outage: Some((40.0, 100.0)), ..PLAIN };
        let outcome = play(&scene);
        assert!(outcome.lost == 0 && outcome.took.is_some());
        let first = outcome.starts.iter().find(|at| **at >= 100.0).unwrap();
        assert!(*first <= 162.0, "a probe a minute: {first}");
        // From the probe that was answered on: two round trips of it and of those behind it.
        let back = outcome.seconds.iter().skip(*first as usize);
        let back = back.clone().position(|second| second.in_flight >= 44);
        assert!(back.is_some_and(|seconds| seconds <= 10), "seed {seed}: {back:?}");
        let inside = outcome.starts.iter().filter(|at| (41.5..100.0).contains(*at)).count();
        assert!(inside <= 12, "one probe at a time: {inside}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever an endpoint does for minutes: every row is answered, calls stay within what failed,
    /// and nothing sticks.
    #[test]
    fn nothing_is_lost_and_nothing_sticks(
        seed: u64,
        concurrency in 1_usize..200,
        latency in 0.05_f64..5.0,
        capacity in 1_usize..300,
        outage in proptest::option::of((0.0_f64..120.0, 1.0_f64..300.0)),
        brown_out in proptest::option::of((0.0_f64..60.0, 10.0_f64..600.0, 1.0_f64..45.0)),
    ) {
        let scene = Scene {
            seed,
            rows: 2_000,
            concurrency,
            latency,
            capacity,
            outage: outage.map(|(from, lasts)| (from, from + lasts)),
            brown_out: brown_out.map(|(from, lasts, rate)| (from, from + lasts, rate)),
            ..PLAIN
        };
        let outcome = play(&scene);
        prop_assert_eq!(outcome.lost, 0, "{:?}", scene);
        let Some(took) = outcome.took else { panic!("it sticks: {scene:?}") };
        let width = concurrency.min(capacity) as f64;
        let ideal = scene.rows as f64 * latency * 1.25 / width;
        let trouble = scene.outage.map_or(0.0, |(from, to)| to - from)
            + scene.brown_out.map_or(0.0, |(from, to, _)| to - from);
        prop_assert!(took <= ideal * 4.0 + 2.0 * trouble + 420.0, "{took} beside {ideal}: {scene:?}");
        let is_within = |it: &simulator::Second| it.in_flight.max(it.limit) <= concurrency;
        prop_assert!(outcome.seconds.iter().all(is_within));
        let failed: usize = outcome.seconds.iter().map(|second| second.failed).sum();
        prop_assert_eq!(outcome.calls, scene.rows + failed);
    }

    /// Nobody is asked more than `--rpm` allows, in any minute, and that much is used.
    #[test]
    fn a_rate_is_kept_to_and_used(
        seed: u64,
        calls_a_minute in 30_u64..3_000,
        latency in 0.05_f64..1.0,
    ) {
        let rows = (calls_a_minute * 4) as usize;
        let scene = Scene {
            seed, rows, calls_a_minute: Some(calls_a_minute), latency, concurrency: 200, ..PLAIN
        };
        let outcome = play(&scene);
        prop_assert!(most_in_a_minute(&outcome) as u64 <= calls_a_minute);
        let took = outcome.took.unwrap();
        prop_assert!(took <= 4.0 * 60.0 / 0.98 + 3.0 * latency + 5.0, "{took}");
    }

    /// An endpoint's own limit holds, whether it says when or not: few calls are refused.
    #[test]
    fn a_limit_of_the_endpoints_costs_few_calls(
        seed: u64,
        limit in 60_u64..2_000,
        says_when: bool,
    ) {
        let rows = (limit * 3) as usize;
        let scene = Scene { seed, rows, limit: Some(limit), says_when, ..PLAIN };
        let outcome = play(&scene);
        prop_assert_eq!(outcome.lost, 0);
        let took = outcome.took.unwrap_or(f64::INFINITY);
        prop_assert!(took <= 3.0 * 60.0 * 3.0 + 120.0, "{took}: {scene:?}");
        prop_assert!(outcome.calls <= rows * 2, "{} calls for {rows} rows", outcome.calls);
    }
}
