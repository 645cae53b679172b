//! Endpoints in trouble: what they do, what is asked of them, and the time in which somebody who knows
//! them would be done.

use super::endpoint::{Behaviour, Headers, PLAIN, Refusal, Says};

/// A scene of trouble.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub rows: usize,
    pub concurrency: usize,
    pub endpoint: Behaviour,
    /// Seconds that somebody needs who knows the endpoint.
    pub oracle: f64,
    /// Whether the load decides what is refused.
    pub is_load: bool,
}

fn refusing(status: u16, says: Says) -> Refusal {
    Refusal { status, says, ..PLAIN.refusal }
}

/// The oracle's time where a share of calls is refused whatever the load.
fn at_random(rows: usize, concurrency: usize, endpoint: &Behaviour) -> f64 {
    let refused = endpoint.random / (1.0 - endpoint.random);
    let a_row = endpoint.latency + refused * endpoint.refusal.after.unwrap_or(endpoint.latency);
    rows as f64 * a_row / concurrency as f64
}

const ROWS: usize = 3_000;
const WIDTH: usize = 64;

fn scenario(name: &'static str, endpoint: Behaviour, oracle: f64) -> Scenario {
    Scenario { name, rows: ROWS, concurrency: WIDTH, endpoint, oracle, is_load: false }
}

fn load(name: &'static str, endpoint: Behaviour, oracle: f64) -> Scenario {
    Scenario { is_load: true, ..scenario(name, endpoint, oracle) }
}

fn random(name: &'static str, share: f64, status: u16, says: Says) -> Scenario {
    let endpoint = Behaviour { random: share, refusal: refusing(status, says), ..PLAIN };
    let oracle = at_random(ROWS, WIDTH, &endpoint);
    scenario(name, endpoint, oracle)
}

fn wide(name: &'static str, latency: f64, concurrency: usize) -> Scenario {
    let rows = 8_000;
    let oracle = rows as f64 * latency / concurrency as f64;
    let endpoint = Behaviour { latency, ..PLAIN };
    Scenario { rows, concurrency, ..scenario(name, endpoint, oracle) }
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    [by_chance(), by_capacity(), by_rate(), by_time(), others()].concat()
}

/// What is refused whatever the load.
fn by_chance() -> Vec<Scenario> {
    vec![
        random("10 % get 429 with Retry-After: 1, at random", 0.1, 429, Says::Always(1.0)),
        random("10 % get 429 without a time, at random", 0.1, 429, Says::Nothing),
        random("5 % get 503 with Retry-After: 1, at random", 0.05, 503, Says::Always(1.0)),
        random("30 % get 503, at random", 0.3, 503, Says::Nothing),
        random("10 % get 500, at random", 0.1, 500, Says::Nothing),
        random("one of four backends is dead (502)", 0.25, 502, Says::Nothing),
    ]
}

/// What is refused because too much is in flight.
fn by_capacity() -> Vec<Scenario> {
    let limited = |capacity, refusal| Behaviour { capacity, refusal, ..PLAIN };
    let told = refusing(429, Says::Always(1.0));
    let slow = Refusal { after: None, ..PLAIN.refusal };
    let uneven = Behaviour { latency: 0.5, spread: 0.9, ..limited(20, PLAIN.refusal) };
    let growing = Behaviour { capacity_later: Some((10.0, 40)), ..limited(10, PLAIN.refusal) };
    let mixed = Behaviour { random: 0.2, ..limited(20, PLAIN.refusal) };
    vec![
        load("at most 20 at once, else 429 with Retry-After: 1", limited(20, told), 30.0),
        load("at most 20 at once, refusals take as long as answers", limited(20, slow), 30.0),
        load("at most 20 at once, answers of 0.05 to 0.95 s", uneven, 75.0),
        load("at most 10 at once, then 40", growing, 10.0 + 2_500.0 / 200.0),
        load("20 % at random and at most 20 at once", mixed, 30.0),
    ]
}

/// What is refused because too much comes in a time.
fn by_rate() -> Vec<Scenario> {
    let bucket = || Behaviour { rate: Some((300.0, 300.0)), ..PLAIN };
    let in_bucket = (ROWS as f64 - 300.0) / 300.0;
    let headers = |headers| Behaviour { headers, ..bucket() };
    let slow = Behaviour { latency: 2.0, spread: 0.5, rate: Some((20.0, 60.0)), ..PLAIN };
    let fast = Behaviour { latency: 0.01, rate: Some((100.0, 10.0)), ..PLAIN };
    let window =
        |says| Behaviour { window: Some((2_000, 10.0)), refusal: refusing(429, says), ..PLAIN };
    let in_windows = 10.0 + 1_000.0 * PLAIN.latency / WIDTH as f64;
    vec![
        load("300 a second, token bucket", bucket(), in_bucket),
        load("300 a second, remaining 0 and no reset (Azure)", headers(Headers::Azure), in_bucket),
        load("300 a second, resets such as 12ms (OpenAI)", headers(Headers::OpenAi), in_bucket),
        load("300 a second, RFC 3339 resets (Anthropic)", headers(Headers::Anthropic), in_bucket),
        load("20 a second, answers of 1 to 3 s", slow, (ROWS as f64 - 60.0) / 20.0),
        load("100 a second, answers of 10 ms", fast, (ROWS as f64 - 10.0) / 100.0),
        load("2,000 in each 10 s, Retry-After", window(Says::When), in_windows),
        load("2,000 in each 10 s, without a time", window(Says::Nothing), in_windows),
        load("2,000 in each 10 s, the wait in the text", window(Says::InText), in_windows),
    ]
}

/// What is over some time.
fn by_time() -> Vec<Scenario> {
    let plain = ROWS as f64 * PLAIN.latency / WIDTH as f64;
    let busy = refusing(503, Says::Nothing);
    let outage = Behaviour { outage: Some((3.0, 33.0)), refusal: busy, ..PLAIN };
    let brown_out = Behaviour { random: 0.3, random_within: (0.0, 10.0), refusal: busy, ..PLAIN };
    vec![
        scenario("an outage of 30 s (503)", outage, plain + 30.0),
        scenario("30 % get 503 for 10 s, then none", brown_out, plain * 1.3),
    ]
}

fn others() -> Vec<Scenario> {
    let plain = ROWS as f64 * PLAIN.latency / WIDTH as f64;
    let wrong = Behaviour { headers: Headers::Wrong, ..PLAIN };
    let queue = Behaviour { queues: true, capacity: 20, ..PLAIN };
    let told = refusing(503, Says::Always(1.0));
    let poisoned = Behaviour { poisoned: Some(300), refusal: told, ..PLAIN };
    vec![
        scenario("a header that says 0 is left, and answers", wrong, plain),
        scenario("a server that queues and refuses nothing", queue, 30.0),
        scenario("one of 300 rows always gets 503 with Retry-After: 1", poisoned, plain + 3.0),
        wide("answers of 2 s, 1,000 at once", 2.0, 1_000),
        wide("answers of 5 s, 2,000 at once", 5.0, 2_000),
    ]
}
