//! What the policies make of an endpoint in trouble, in invented time, with a plain client beside them:
//! figures and plots for `docs/limits.md`.

use std::fs;

use crate::support::data::Ground;
use crate::support::endpoint::{self, Behaviour, Refusal, Says};
use crate::support::plot::svg;
use crate::support::simulator::{Outcome, Scene, Second, play, play_plain};
use crate::support::table::{Aim, Table};

/// What the scenes have in common: 64 at once, answers of two seconds, more or less.
const PLAIN: Scene = Scene {
    seed: 7,
    rows: 6_000,
    concurrency: 64,
    calls_a_minute: None,
    endpoint: Behaviour { latency: 2.0, spread: 0.5, ..endpoint::PLAIN },
};

/// Plays the scenes, and puts the plots beside the page.
pub fn simulate(_: &Ground, table: &mut Table) {
    let it = || PLAIN.endpoint;
    let refusing = |status, says| Refusal { status, says, ..endpoint::PLAIN.refusal };
    let busy = refusing(503, Says::Nothing);
    let scenes = [
        ("plain", "nothing is wrong", it()),
        (
            "outage",
            "an outage of one minute",
            Behaviour { outage: Some((60.0, 120.0)), refusal: busy, ..it() },
        ),
        (
            "brown-out",
            "30 % of the calls fail for one minute",
            Behaviour { random: 0.3, random_within: (60.0, 120.0), refusal: busy, ..it() },
        ),
        (
            "random",
            "10 % of the calls get 429 with Retry-After: 1, at random",
            Behaviour { random: 0.1, refusal: refusing(429, Says::Always(1.0)), ..it() },
        ),
        (
            "capacity",
            "the endpoint takes 40 calls at once",
            Behaviour { capacity: 40, refusal: busy, ..it() },
        ),
        (
            "retry-after",
            "1,200 calls in each minute, refusals with Retry-After",
            Behaviour { window: Some((1_200, 60.0)), refusal: refusing(429, Says::When), ..it() },
        ),
        (
            "rate-limit",
            "20 calls a second, refusals without a time",
            Behaviour { rate: Some((20.0, 60.0)), ..it() },
        ),
    ];
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits");
    fs::create_dir_all(dir).expect("a directory");
    for (name, what, endpoint) in scenes {
        let brown_out = endpoint.random_within;
        let shade = endpoint.outage.or(Some(brown_out).filter(|it| it.1.is_finite()));
        let scene = Scene { endpoint, ..PLAIN };
        let (ours, theirs) = (play(&scene), play_plain(&scene));
        let took = |outcome: &Outcome| outcome.took.expect("it comes to an end");
        let shown =
            |it: &Outcome| format!("{:.0} s, {:.1} % refused", took(it), 100.0 * it.refused());
        let ratio = took(&ours) / took(&theirs);
        table.ratio(what, (shown(&ours), shown(&theirs)), ratio, Aim::AtMost(1.05));
        fs::write(format!("{dir}/{name}.svg"), plot(what, &ours, &theirs, shade)).expect("a plot");
    }
}

fn plot(what: &str, ours: &Outcome, theirs: &Outcome, shade: Option<(f64, f64)>) -> String {
    let line = |outcome: &Outcome, of: fn(&Second) -> usize| {
        outcome.seconds.iter().map(|second| of(second) as f64).collect::<Vec<_>>()
    };
    svg(
        what,
        shade,
        &[
            (
                "calls in flight",
                vec![
                    ("limit", "#d95f02", line(ours, |second| second.limit)),
                    ("in flight", "#1b5e9e", line(ours, |second| second.in_flight)),
                ],
            ),
            (
                "calls a second",
                vec![
                    ("plain client, answered", "#999999", line(theirs, |second| second.answered)),
                    ("failed or refused", "#b2182b", line(ours, |second| second.failed)),
                    ("answered", "#2a7f3e", line(ours, |second| second.answered)),
                ],
            ),
        ],
    )
}
