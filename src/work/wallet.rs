//! What is spent of a cap, over all workers: money is set aside for a call once its prompt is known,
//! and settled when it lands. Where there is no cap, nothing is counted here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Message;
use super::attempt::Flight;
use super::lane::{Lane, LaneIndex, Lanes};
use super::pricing::OwnPrice;
use crate::job::{Attempt, JobSpec, Money};
use crate::policy::{Answers, Funds, Learned, Purse};
use crate::price::{Price, Spent};
use crate::prompt::tokens_of_files;
use crate::provider::Correction;
use crate::tokens::Tokenizer;

/// The money of a run.
#[derive(Debug)]
pub(super) struct Wallet {
    state: Mutex<State>,
    // What answers may have at most, where that is said, by lane.
    most: Vec<Option<u64>>,
    // What goes in with every prompt, by lane: instruction and schema.
    around: Vec<u64>,
}

#[derive(Debug)]
struct State {
    purse: Purse,
    learned: Learned,
    assumed: Assumed,
    is_awaited: bool,
}

/// What of the money that is spent nobody knows to be spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Assumed {
    /// What was set aside for those calls, or an earlier session took them for.
    pub money: Money,
    /// How many did not tell what they used.
    pub calls: u64,
}

/// What was set aside for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reserved {
    money: Money,
    /// The tokens that the prompt was guessed to have.
    guessed: u64,
    /// What is known of its answers.
    answers: Answers,
}

/// Why a call cannot be paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// Calls in flight may leave enough.
    Now,
    /// So much is spent, and a call may cost so much.
    ForGood { spent: Money, assumed: Assumed, call: Money },
}

/// How tokens are guessed at: counting them takes longer than a call may cost in time.
fn tokens(lane: &Lane) -> Tokenizer {
    Tokenizer::of(&lane.name).guess()
}

/// A guess at what is attached, and at what a request encloses: text is as long as it is, and of pictures, sound and
/// documents nobody knows before the first answer.
fn attached(message: &Message) -> u64 {
    let enclosed = message.request.as_ref().map_or(0, |request| request.file_tokens);
    let length = message.attached.len() as u64;
    let is_encoded = memchr::memmem::find(&message.attached, b"base64").is_some();
    match length {
        0 => enclosed,
        _ if is_encoded || message.request.is_some() => tokens_of_files(1, length),
        _ => length.div_ceil(4),
    }
}

impl Wallet {
    /// One with a cap, of which earlier sessions have spent something.
    pub(super) fn new(cap: Money, lanes: &Lanes, job: &JobSpec, spent: &Spent) -> Self {
        let longest = (spent.longest > 0).then_some(spent.longest);
        let twice = spent.mean_answer().map(|mean| mean.saturating_mul(2));
        let learned = Learned::new(longest.max(twice));
        let jobs: Vec<_> = (0..job.model_count()).map(|model| job.of_model(model)).collect();
        let job_of = |lane: LaneIndex| &jobs[lanes.team_of(lane)];
        let most = |lane| job_of(lane).max_answer_tokens();
        let dearest = |(lane, price): (LaneIndex, &Price)| {
            // Of a prompt that is not known, a short one.
            const PROMPT: u64 = 1000;
            let assumed = spent.assumed(price.estimate(PROMPT, learned.output(most(lane))));
            (spent.told(price).plus(assumed), assumed)
        };
        let all = || lanes.iter().enumerate();
        let prices = all().filter_map(|(index, lane)| Some((index, lane.pricing.price.as_ref()?)));
        let (before, money) = prices.map(dearest).max().unwrap_or((spent.cost.usd, Money::ZERO));
        let assumed = Assumed { money, calls: spent.unknown() };
        let state = State { purse: Purse::new(cap, before), learned, assumed, is_awaited: false };
        let (instruction, schema) = (job.instruction.as_deref(), job.schema.as_deref());
        let around = all()
            .map(|(index, lane)| tokens(lane).around(job_of(index).protocol, instruction, schema));
        let most = all().map(|(index, _)| most(index)).collect();
        Self { state: Mutex::new(state), most, around: around.collect() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has left a number at worst, and ends the run.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets money aside for a call through a lane.
    pub(super) fn reserve(
        &self,
        (index, lane): (LaneIndex, &Lane),
        own: Option<&OwnPrice>,
        message: &Message,
        correction: Option<&Correction>,
    ) -> Result<Reserved, Short> {
        // Of a tier whose price is not known, that of others is the best guess.
        let request = message.request.as_ref();
        let most = request.and_then(|request| request.most_tokens);
        let most = most.or(self.most.get(index).copied().flatten());
        let answers = Answers { most, count: request.map_or(1, |request| request.answers) };
        let Some(price) = lane.pricing.of_call(own).or(lane.pricing.price.as_ref()) else {
            return Ok(Reserved { money: Money::ZERO, guessed: 0, answers });
        };
        let tokens = tokens(lane);
        let around = self.around.get(index).copied().unwrap_or_default();
        let again = correction.map_or(0, |it| tokens.count(&it.answer) + tokens.count(&it.reason));
        let words = match &message.request {
            None => tokens.count(&message.text),
            Some(request) => request.words.div_ceil(4) as u64,
        };
        let guessed = words + attached(message) + around + again;
        let mut state = self.state();
        let money = price.estimate(state.learned.input(guessed), state.learned.output(answers));
        match state.purse.reserve(money) {
            Funds::Reserved => Ok(Reserved { money, guessed, answers }),
            Funds::Wait => {
                state.is_awaited = true;
                Err(Short::Now)
            }
            Funds::Gone => {
                let (spent, assumed) = (state.purse.spent(), state.assumed);
                Err(Short::ForGood { spent, assumed, call: money })
            }
        }
    }

    /// Takes what a call has cost; where the endpoint did not say, what was set aside for it, which the
    /// attempt is told for later sessions. True when somebody waits for what it may have left.
    pub(super) fn settle(&self, flight: &Flight, attempt: &mut Attempt) -> bool {
        let Some(Reserved { money, guessed, answers }) = flight.reserved else { return false };
        attempt.assumed = attempt.is_unpriced().then_some(money);
        let mut state = self.state();
        if attempt.assumed.is_some() {
            state.assumed.money = state.assumed.money.plus(money);
            state.assumed.calls += 1;
        }
        state.purse.settle(money, attempt.cost.or(attempt.assumed).unwrap_or_default());
        if let Some(usage) = &attempt.usage {
            state.learned.saw(guessed, answers, (usage.input_tokens, usage.output_tokens));
        }
        std::mem::take(&mut state.is_awaited)
    }

    /// The cap.
    pub(super) fn cap(&self) -> Money {
        self.state().purse.cap()
    }
}
