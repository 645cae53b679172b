//! An endpoint that misbehaves in one way or several, as a function of time: the simulator asks it in an
//! invented time, the mock server in the real one.

/// What an endpoint is like. Times are seconds since its first call.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Seconds that an answer takes, and by what part of itself that varies to either side.
    pub latency: f64,
    pub spread: f64,
    /// Calls that it works on at once, from the beginning and from a time on; more are refused.
    pub capacity: usize,
    pub capacity_later: Option<(f64, usize)>,
    /// Whether it queues what it cannot work on, and refuses nothing.
    pub queues: bool,
    /// Calls a second that it lets in, and how many at once.
    pub rate: Option<(f64, f64)>,
    /// Calls that it lets in in each so many seconds of its clock.
    pub window: Option<(usize, f64)>,
    /// The share of calls that is refused at random, and when.
    pub random: f64,
    pub random_within: (f64, f64),
    /// Seconds in which every call is refused.
    pub outage: Option<(f64, f64)>,
    /// One of so many rows is always refused.
    pub poisoned: Option<usize>,
    pub refusal: Refusal,
    pub headers: Headers,
}

/// How calls are refused.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    pub status: u16,
    /// Seconds that a refusal takes; nothing for as long as an answer.
    pub after: Option<f64>,
    pub says: Says,
}

/// What a refusal says of when to come again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Says {
    Nothing,
    /// `Retry-After` of so many seconds, whatever the reason.
    Always(f64),
    /// `Retry-After` of when there is room again.
    When,
    /// A sentence in the message, of when there is room again.
    InText,
}

/// What every reply says of limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Headers {
    None,
    /// `x-ratelimit-remaining-requests: 0` on refusals, and no reset.
    Azure,
    /// `x-ratelimit-*-requests` with a reset such as `12ms`.
    OpenAi,
    /// `anthropic-ratelimit-requests-*` with an RFC 3339 reset.
    Anthropic,
    /// `x-ratelimit-remaining-requests: 0` and a reset of a minute with every answer: a lie.
    Wrong,
}

pub const PLAIN: Behaviour = Behaviour {
    latency: 0.2,
    spread: 0.0,
    capacity: usize::MAX,
    capacity_later: None,
    queues: false,
    rate: None,
    window: None,
    random: 0.0,
    random_within: (0.0, f64::INFINITY),
    outage: None,
    poisoned: None,
    refusal: Refusal { status: 429, after: Some(0.002), says: Says::Nothing },
    headers: Headers::None,
};

/// The endpoint's state.
#[derive(Debug, Clone)]
pub struct Endpoint {
    behaviour: Behaviour,
    random: fastrand::Rng,
    busy: usize,
    tokens: f64,
    tokens_at: f64,
    window: (f64, usize),
    // Until when what it works on is busy, where it queues.
    slots: Vec<f64>,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reply {
    /// Seconds until it is sent.
    pub after: f64,
    pub status: u16,
    /// Seconds until there is room again, as it says, and how.
    pub wait: Option<f64>,
    pub in_text: bool,
    /// What is left of its limit, of how much, and the seconds until all is there again.
    pub left: Option<(u64, u64, f64)>,
    is_busy: bool,
}

impl Endpoint {
    pub fn new(behaviour: &Behaviour, seed: u64) -> Self {
        Self {
            behaviour: behaviour.clone(),
            random: fastrand::Rng::with_seed(seed),
            busy: 0,
            tokens: behaviour.rate.map_or(0.0, |(_, burst)| burst),
            tokens_at: 0.0,
            window: (0.0, 0),
            slots: vec![0.0; if behaviour.queues { behaviour.capacity } else { 0 }],
        }
    }

    /// A call for a row, at a time.
    pub fn call(&mut self, now: f64, row: usize) -> Reply {
        let it = self.behaviour.clone();
        let latency = it.latency * (1.0 + it.spread * (2.0 * self.random.f64() - 1.0));
        let dice = self.random.f64();
        let (from, to) = it.random_within;
        let is_unlucky = dice < it.random && (from..to).contains(&now);
        let is_out = it.outage.is_some_and(|(from, to)| (from..to).contains(&now));
        let is_poisoned = it.poisoned.is_some_and(|part| row % part == part / 2);
        if is_unlucky || is_out || is_poisoned {
            return self.refuse(latency, 1.0);
        }
        if it.queues {
            return self.queue(now, latency);
        }
        let capacity = it.capacity_later.filter(|(from, _)| now >= *from);
        if self.busy >= capacity.map_or(it.capacity, |(_, capacity)| capacity) {
            return self.refuse(latency, latency / 2.0);
        }
        if let Some((rate, burst)) = it.rate {
            self.tokens = (self.tokens + (now - self.tokens_at) * rate).min(burst);
            self.tokens_at = now;
            if self.tokens < 1.0 {
                return self.refuse(latency, (1.0 - self.tokens) / rate);
            }
            self.tokens -= 1.0;
        }
        if let Some((most, seconds)) = it.window {
            let begin = (now / seconds).floor() * seconds;
            if begin > self.window.0 {
                self.window = (begin, 0);
            }
            if self.window.1 >= most {
                return self.refuse(latency, begin + seconds - now);
            }
            self.window.1 += 1;
        }
        self.busy += 1;
        let left = self.left(now);
        Reply { after: latency, status: 200, wait: None, in_text: false, left, is_busy: true }
    }

    fn queue(&mut self, now: f64, latency: f64) -> Reply {
        let slot = self.slots.iter_mut().min_by(|one, other| one.total_cmp(other)).expect("a slot");
        *slot = slot.max(now) + latency;
        let after = *slot - now;
        Reply { after, status: 200, wait: None, in_text: false, left: None, is_busy: false }
    }

    fn refuse(&mut self, latency: f64, room_after: f64) -> Reply {
        let Refusal { status, after, says } = self.behaviour.refusal;
        let wait = match says {
            Says::Nothing => None,
            Says::Always(seconds) => Some(seconds),
            Says::When | Says::InText => Some(room_after.ceil().max(1.0)),
        };
        let in_text = says == Says::InText;
        let left = (self.behaviour.headers == Headers::Azure).then_some((0, 0, 0.0));
        Reply { after: after.unwrap_or(latency), status, wait, in_text, left, is_busy: false }
    }

    fn left(&self, now: f64) -> Option<(u64, u64, f64)> {
        let it = &self.behaviour;
        match (it.headers, it.rate, it.window) {
            (Headers::Wrong, ..) => Some((0, 10_000, 60.0)),
            (Headers::OpenAi | Headers::Anthropic, Some((rate, burst)), _) => {
                Some((self.tokens as u64, burst as u64, (burst - self.tokens) / rate))
            }
            (Headers::OpenAi | Headers::Anthropic, _, Some((most, seconds))) => {
                let end = self.window.0 + seconds;
                Some(((most - self.window.1) as u64, most as u64, end - now))
            }
            _ => None,
        }
    }

    /// A reply was sent.
    pub fn sent(&mut self, reply: &Reply) {
        self.busy -= usize::from(reply.is_busy);
    }
}
