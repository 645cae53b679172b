//! What the policies make of an outage, a brown-out and a rate limit, in invented time: figures and
//! plots for `docs/limits.md`.

use std::fs;

use crate::support::data::Ground;
use crate::support::plot::svg;
use crate::support::simulator::{Outcome, Scene, play};
use crate::support::table::{Aim, Table};

/// What the scenes have in common: 64 at once, answers of two seconds.
pub const PLAIN: Scene = Scene {
    seed: 7,
    rows: 12_000,
    concurrency: 64,
    calls_a_minute: None,
    latency: 2.0,
    capacity: usize::MAX,
    limit: None,
    says_when: false,
    outage: None,
    brown_out: None,
};

/// Plays the scenes, and puts the plots beside the page.
pub fn simulate(_: &Ground, table: &mut Table) {
    let scenes: [(&str, &str, Scene, Option<(f64, f64)>); 6] = [
        ("plain", "nothing is wrong", PLAIN, None),
        (
            "outage",
            "an outage of three minutes",
            Scene { outage: Some((120.0, 300.0)), ..PLAIN },
            Some((120.0, 300.0)),
        ),
        (
            "brown-out",
            "30 % of the calls fail for three minutes",
            Scene { brown_out: Some((120.0, 300.0, 30.0)), ..PLAIN },
            Some((120.0, 300.0)),
        ),
        ("capacity", "the endpoint takes 40 calls at once", Scene { capacity: 40, ..PLAIN }, None),
        (
            "retry-after",
            "1,200 calls a minute, refusals with Retry-After",
            Scene { limit: Some(1_200), says_when: true, ..PLAIN },
            None,
        ),
        (
            "rate-limit",
            "1,200 calls a minute, refusals without a time",
            Scene { limit: Some(1_200), ..PLAIN },
            None,
        ),
    ];
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits");
    fs::create_dir_all(dir).expect("a directory");
    for (name, what, scene, shade) in scenes {
        let outcome = play(&scene);
        let took = outcome.took.expect("it comes to an end");
        let calls = outcome.calls as f64 / scene.rows as f64;
        let shown = (format!("{took:.0} s, {} rows lost", outcome.lost), "1 call a row".to_owned());
        // Without limits of the endpoint's only the faults themselves cost calls.
        let aim = if name == "plain" { Aim::AtMost(1.0) } else { Aim::None };
        table.ratio(format!("{what}: calls a row"), shown, calls, aim);
        if let Some((_, to)) = shade {
            recovery(table, &outcome, to);
        }
        fs::write(format!("{dir}/{name}.svg"), plot(what, &outcome, shade)).expect("a plot");
    }
}

/// Seconds until 0.7 of what was in flight before the trouble is again.
pub fn back_after(outcome: &Outcome, end: f64) -> Option<usize> {
    let before = outcome.seconds.get(100).map_or(0, |second| second.in_flight);
    let behind = outcome.seconds.iter().skip(end as usize);
    behind.clone().position(|second| second.in_flight * 10 >= before * 7)
}

fn recovery(table: &mut Table, outcome: &Outcome, end: f64) {
    let back = back_after(outcome, end);
    let shown = back.map_or("never".to_owned(), |seconds| format!("{seconds} s behind its end"));
    let seconds = back.map_or(f64::INFINITY, |seconds| seconds as f64);
    table.ratio(
        "  0.7 of the calls in flight again",
        (shown, "60 s"),
        seconds / 60.0,
        Aim::AtMost(1.0),
    );
}

fn plot(what: &str, outcome: &Outcome, shade: Option<(f64, f64)>) -> String {
    let line = |of: fn(&crate::support::simulator::Second) -> usize| {
        outcome.seconds.iter().map(|second| of(second) as f64).collect::<Vec<_>>()
    };
    svg(
        what,
        shade,
        &[
            (
                "calls in flight",
                vec![
                    ("limit", "#d95f02", line(|second| second.limit)),
                    ("in flight", "#1b5e9e", line(|second| second.in_flight)),
                ],
            ),
            (
                "calls a second",
                vec![
                    ("failed or refused", "#b2182b", line(|second| second.failed)),
                    ("answered", "#2a7f3e", line(|second| second.answered)),
                ],
            ),
        ],
    )
}
