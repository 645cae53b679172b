//! Telemetry: one line an attempt.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::format::json;
use crate::job::{Attempt, Money, Spending, Usage, may_be_billed, rfc3339};

/// Appends an attempt as a JSON object without its row's id and number, as journals keep it:
/// `{"ok":…,"attempt":…,"model":…[,"endpoint"],"timing":{…},"usage":{…}[,"cost_usd"][,"assumed_usd"][,"finish_reason"][,"status"][,"request_id"][,"error"]}`.
pub fn write_attempt(out: &mut Vec<u8>, attempt: &Attempt) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{{\"ok\":{},\"attempt\":{}", attempt.error.is_none(), attempt.number);
    out.extend_from_slice(b",\"model\":");
    json::write_string(out, &attempt.model);
    if let Some(endpoint) = &attempt.endpoint {
        out.extend_from_slice(b",\"endpoint\":");
        json::write_string(out, endpoint);
    }
    let _ = write!(out, ",\"timing\":{{\"start_time\":\"{}\"", rfc3339(attempt.start_ms));
    write_ms(out, "duration_ms", attempt.duration);
    if let Some(response) = attempt.time_to_response {
        write_ms(out, "time_to_response_ms", response);
    }
    if let Some(ttft) = attempt.ttft {
        write_ms(out, "ttft_ms", ttft);
    }
    out.extend_from_slice(b"},\"usage\":{");
    if let Some(usage) = &attempt.usage {
        out.extend_from_slice(b"\"turn\":");
        let _ = serde_json::to_writer(&mut *out, usage);
    }
    out.push(b'}');
    if let Some(cost) = attempt.cost {
        let _ = write!(out, ",\"cost_usd\":{}", cost.to_decimal());
    }
    if let Some(assumed) = attempt.assumed {
        let _ = write!(out, ",\"assumed_usd\":{}", assumed.to_decimal());
    }
    if let Some(reason) = &attempt.finish_reason {
        out.extend_from_slice(b",\"finish_reason\":");
        json::write_string(out, reason);
    }
    if let Some(status) = attempt.status {
        let _ = write!(out, ",\"status\":{status}");
    }
    if let Some(id) = &attempt.request_id {
        out.extend_from_slice(b",\"request_id\":");
        json::write_string(out, id);
    }
    if let Some((kind, message)) = &attempt.error {
        let _ = write!(out, ",\"error\":{{\"type\":\"{kind}\",\"message\":");
        json::write_string(out, message);
        out.push(b'}');
    }
    out.push(b'}');
}

/// What stands in front of an attempt: its row's id and number, which of the row's answers it was made
/// for, where there are several (see [`mark`]), and the generation of the plan that asked.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The id's token.
    pub id: &'a [u8],
    /// The row's number.
    pub row: u64,
    /// Which answer, if that is to be said.
    pub mark: &'a [u8],
    /// The generation.
    pub epoch: u32,
}

/// Spells which of a row's answers an attempt was made for: `,"asked_model":…,"repeat":…`. In `model`
/// stands the one that answered, in the endpoint's words.
#[must_use]
pub fn mark(model: &str, repeat: u32) -> Vec<u8> {
    let mut mark = b",\"asked_model\":".to_vec();
    json::write_string(&mut mark, model);
    let _ = write!(mark, ",\"repeat\":{repeat}");
    mark
}

/// Appends an attempt's line: the kept object behind its head.
pub fn write_line(out: &mut Vec<u8>, head: Head<'_>, attempt: &[u8]) {
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(head.id);
    let _ = write!(out, ",\"row_number\":{}", head.row);
    out.extend_from_slice(head.mark);
    let _ = write!(out, ",\"epoch\":{},", head.epoch);
    out.extend_from_slice(attempt.strip_prefix(b"{").unwrap_or(attempt));
    out.push(b'\n');
}

/// What summaries need of an attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The attempt, as it is kept.
    pub text: &'a str,
    /// Whether it brought the answer.
    pub ok: bool,
    /// The model that answered, or the one asked for.
    pub model: Cow<'a, str>,
    /// The endpoint's name, where there are several.
    pub endpoint: Option<Cow<'a, str>>,
    /// When the sending began, as RFC 3339 has it; empty where that is not told.
    pub start_time: Cow<'a, str>,
    /// From the sending to the decoded answer.
    pub duration: Duration,
    /// From the sending to the head of the answer.
    pub time_to_response: Option<Duration>,
    /// From the sending to the first token of a streamed answer.
    pub ttft: Option<Duration>,
    /// What the endpoint counted for this call.
    pub usage: Option<Usage>,
    /// What it cost.
    pub cost: Option<Money>,
    /// What it is taken to have cost, where that is not known and there was a cap.
    pub assumed: Option<Money>,
    /// Whether it may have cost something that is not known.
    pub is_unpriced: bool,
    /// Why the model stopped.
    pub finish_reason: Option<Cow<'a, str>>,
    /// The HTTP status, where a server answered.
    pub status: Option<u16>,
    /// The server's name for the request, where it gave one.
    pub request_id: Option<Cow<'a, str>>,
}

impl Facts<'_> {
    /// Whether an answer came, well or badly.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        // A text in it has backslashes before its quotes.
        self.text.contains(",\"status\":")
    }
}

/// Reads a list of attempts, as journals keep it.
///
/// Every row has one and both sealing and merging read it, so attempts that brought answers are
/// read in the order in which [`write_attempt`] puts their fields: that took 0.5 µs off a merged
/// row. `serde_json` reads all others.
#[must_use]
pub fn read_attempts(list: &[u8]) -> Vec<Facts<'_>> {
    as_written(list).unwrap_or_else(|| as_json(list))
}

/// What a list of attempts cost.
#[must_use]
pub fn spending(facts: &[Facts<'_>]) -> Spending {
    let mut sum = Spending::default();
    facts.iter().for_each(|it| sum.note(it.cost, it.is_unpriced, it.assumed));
    sum
}

fn as_written(list: &[u8]) -> Option<Vec<Facts<'_>>> {
    let mut rest = Rest(std::str::from_utf8(list).ok()?);
    let mut all = Vec::new();
    rest.skip("[")?;
    while rest.skip("]").is_none() {
        if !all.is_empty() {
            rest.skip(",")?;
        }
        all.push(rest.answered()?);
    }
    rest.0.is_empty().then_some(all)
}

/// What is left of a text that is read in the order in which it was written.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// An attempt that brought an answer.
    fn answered(&mut self) -> Option<Facts<'a>> {
        let before = self.0;
        let mut facts = Facts { ok: true, ..Facts::default() };
        self.skip("{\"ok\":true,\"attempt\":")?;
        self.number()?;
        self.skip(",\"model\":")?;
        facts.model = Cow::Borrowed(self.string()?);
        if self.skip(",\"endpoint\":").is_some() {
            facts.endpoint = Some(Cow::Borrowed(self.string()?));
        }
        self.skip(",\"timing\":{\"start_time\":")?;
        facts.start_time = Cow::Borrowed(self.string()?);
        self.skip(",\"duration_ms\":")?;
        facts.duration = self.milliseconds()?;
        if self.skip(",\"time_to_response_ms\":").is_some() {
            facts.time_to_response = Some(self.milliseconds()?);
        }
        if self.skip(",\"ttft_ms\":").is_some() {
            facts.ttft = Some(self.milliseconds()?);
        }
        self.skip("},\"usage\":{")?;
        if self.skip("\"turn\":").is_some() {
            facts.usage = Some(self.usage()?);
        }
        self.skip("}")?;
        if self.skip(",\"cost_usd\":").is_some() {
            facts.cost = Some(self.money()?);
        }
        if self.skip(",\"assumed_usd\":").is_some() {
            facts.assumed = Some(self.money()?);
        }
        facts.is_unpriced = facts.cost.is_none();
        if self.skip(",\"finish_reason\":").is_some() {
            facts.finish_reason = Some(Cow::Borrowed(self.string()?));
        }
        if self.skip(",\"status\":").is_some() {
            facts.status = Some(u16::try_from(self.number()?).ok()?);
        }
        if self.skip(",\"request_id\":").is_some() {
            facts.request_id = Some(Cow::Borrowed(self.string()?));
        }
        self.skip("}")?;
        facts.text = &before[..before.len() - self.0.len()];
        Some(facts)
    }

    fn usage(&mut self) -> Option<Usage> {
        let mut usage = Usage::default();
        self.skip("{\"input_tokens\":")?;
        usage.input_tokens = self.number()?;
        self.skip(",\"output_tokens\":")?;
        usage.output_tokens = self.number()?;
        if self.skip(",\"cached_input_tokens\":").is_some() {
            usage.cached_input_tokens = self.number()?;
        }
        if self.skip(",\"reasoning_tokens\":").is_some() {
            usage.reasoning_tokens = self.number()?;
        }
        if self.skip(",\"cache_write_tokens\":").is_some() {
            usage.cache_write_tokens = self.number()?;
        }
        self.skip("}")?;
        Some(usage)
    }

    fn skip(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn digits(&mut self) -> &'a str {
        let count = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        digits
    }

    fn number(&mut self) -> Option<u64> {
        self.digits().parse().ok()
    }

    fn money(&mut self) -> Option<Money> {
        let is_of_it = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        let (number, rest) = self.0.split_at(self.0.bytes().take_while(is_of_it).count());
        self.0 = rest;
        Money::from_decimal(number)
    }

    /// A string without escapes.
    fn string(&mut self) -> Option<&'a str> {
        self.skip("\"")?;
        let end = memchr::memchr2(b'"', b'\\', self.0.as_bytes())?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix('"')?;
        Some(text)
    }

    fn milliseconds(&mut self) -> Option<Duration> {
        let whole = self.number()?;
        self.skip(".")?;
        let micros = Some(self.digits()).filter(|digits| digits.len() == 3)?;
        Some(Duration::from_millis(whole) + Duration::from_micros(micros.parse().ok()?))
    }
}

fn as_json(list: &[u8]) -> Vec<Facts<'_>> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Written<'a> {
        ok: bool,
        #[serde(borrow)]
        model: Cow<'a, str>,
        #[serde(borrow)]
        endpoint: Option<Cow<'a, str>>,
        #[serde(borrow)]
        timing: Timing<'a>,
        usage: Turn,
        cost_usd: Option<Money>,
        assumed_usd: Option<Money>,
        #[serde(borrow)]
        finish_reason: Option<Cow<'a, str>>,
        status: Option<u16>,
        #[serde(borrow)]
        request_id: Option<Cow<'a, str>>,
        #[serde(borrow)]
        error: Option<Wrong<'a>>,
    }
    #[derive(Deserialize)]
    struct Wrong<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Timing<'a> {
        #[serde(borrow)]
        start_time: Cow<'a, str>,
        duration_ms: f64,
        time_to_response_ms: Option<f64>,
        ttft_ms: Option<f64>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Turn {
        turn: Option<Usage>,
    }
    let duration = |ms: f64| Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default();
    let all: Vec<&RawValue> = serde_json::from_slice(list).unwrap_or_default();
    let facts = all.into_iter().map(|attempt| {
        let text = attempt.get();
        let written: Written<'_> = serde_json::from_str(text).unwrap_or_default();
        let wrong = written.error.as_ref();
        let may_be_billed = wrong.is_none_or(|it| may_be_billed(&it.kind, written.status));
        Facts {
            text,
            ok: written.ok,
            model: written.model,
            endpoint: written.endpoint,
            start_time: written.timing.start_time,
            duration: duration(written.timing.duration_ms),
            time_to_response: written.timing.time_to_response_ms.map(duration),
            ttft: written.timing.ttft_ms.map(duration),
            usage: written.usage.turn,
            cost: written.cost_usd,
            assumed: written.assumed_usd,
            is_unpriced: written.cost_usd.is_none() && may_be_billed,
            finish_reason: written.finish_reason,
            status: written.status,
            request_id: written.request_id,
        }
    });
    facts.collect()
}

fn write_ms(out: &mut Vec<u8>, name: &str, duration: Duration) {
    let micros = duration.as_micros();
    let _ = write!(out, ",\"{name}\":{}.{:03}", micros / 1000, micros % 1000);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_has_its_keys_in_order_and_reads_back() {
        let attempt = Attempt {
            number: 2,
            model: "m".into(),
            endpoint: Some("lab".into()),
            start_ms: 1_763_700_000_005,
            duration: Duration::from_micros(12_345),
            time_to_response: Some(Duration::from_micros(9_001)),
            ttft: Some(Duration::from_micros(9_500)),
            usage: Some(Usage { input_tokens: 3, output_tokens: 4, ..Usage::default() }),
            cost: Some("0.00012".parse().unwrap()),
            assumed: None,
            status: Some(200),
            request_id: Some("req-7".into()),
            finish_reason: Some("stop".into()),
            error: None,
        };
        let (mut kept, mut line) = (Vec::new(), Vec::new());
        write_attempt(&mut kept, &attempt);
        let head = Head { id: b"\"r1\"", row: 9, mark: b"", epoch: 2 };
        write_line(&mut line, head, &kept);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"id\":\"r1\",\"row_number\":9,\"epoch\":2,\"ok\":true,\"attempt\":2,\"model\":\"m\",\
             \"endpoint\":\"lab\",\"timing\":\
             {\"start_time\":\"2025-11-21T04:40:00.005Z\",\"duration_ms\":12.345,\
             \"time_to_response_ms\":9.001,\"ttft_ms\":9.500},\"usage\":{\"turn\":{\"input_tokens\":3,\
             \"output_tokens\":4}},\"cost_usd\":0.00012,\"finish_reason\":\"stop\",\"status\":200,\
             \"request_id\":\"req-7\"}\n"
        );
        let list = [b"[", &kept[..], b",", &kept, b"]"].concat();
        let facts = as_written(&list).unwrap();
        assert_eq!((facts.len(), facts[0].text.as_bytes()), (2, &kept[..]));
        assert_eq!((&*facts[1].model, facts[1].endpoint.as_deref()), ("m", Some("lab")));
        assert_eq!(facts[1].duration, attempt.duration);
        assert_eq!(facts[1].time_to_response, attempt.time_to_response);
        assert_eq!(facts[1].ttft, attempt.ttft);
        assert_eq!(facts[1].usage, attempt.usage);
        assert_eq!(facts[1].cost, attempt.cost);
        assert_eq!(spending(&facts).usd.to_string(), "$0.00024");
        assert_eq!(facts[1].finish_reason.as_deref(), Some("stop"));
        assert!(facts[1].is_answered());
    }

    proptest! {
        /// Whichever way attempts are read, they say the same.
        #[test]
        fn attempts_say_the_same_as_json(
            attempts in proptest::collection::vec(any_attempt(), 0..4),
            cut in 0_usize..400,
        ) {
            let mut list = b"[".to_vec();
            for attempt in &attempts {
                if list.len() > 1 {
                    list.push(b',');
                }
                write_attempt(&mut list, attempt);
            }
            list.push(b']');
            let as_json = as_json(&list);
            prop_assert_eq!(as_json.len(), attempts.len());
            prop_assert_eq!(read_attempts(&list), as_json);
            if cut < list.len() {
                prop_assert_eq!(as_written(&list[..cut]), None);
            }
        }
    }

    fn any_attempt() -> impl Strategy<Value = Attempt> {
        let tokens = (any::<u64>(), 0..9_u64, 0..3_u64, 0..3_u64);
        (any::<bool>(), "[a-z\"é]{0,3}", 0..9_999_999_u64, any::<bool>(), tokens).prop_map(
            |(ok, word, micros, has_more, (input, output, cached, reasoning))| Attempt {
                number: 1,
                model: word.clone(),
                endpoint: (output % 2 == 0).then(|| word.clone()),
                start_ms: micros,
                duration: Duration::from_micros(micros),
                time_to_response: has_more.then(|| Duration::from_micros(micros / 2)),
                ttft: (input % 2 == 0).then(|| Duration::from_micros(micros / 3)),
                usage: has_more.then_some(Usage {
                    input_tokens: input,
                    output_tokens: output,
                    cached_input_tokens: cached,
                    reasoning_tokens: reasoning,
                    cache_write_tokens: reasoning / 2,
                }),
                cost: (input % 3 == 0).then_some(Money::from_picodollars(input)),
                assumed: (input % 3 == 1).then_some(Money::from_picodollars(output)),
                status: has_more.then_some(200),
                request_id: (input % 5 == 0).then(|| word.clone()),
                finish_reason: (output > 3).then(|| word.clone()),
                error: (!ok).then_some(("ServerError", word)),
            },
        )
    }

    #[test]
    fn a_failed_attempt_names_its_error() {
        let attempt = Attempt {
            number: 1,
            model: "m".into(),
            endpoint: None,
            start_ms: 0,
            duration: Duration::from_millis(1),
            time_to_response: None,
            ttft: None,
            usage: None,
            cost: None,
            assumed: None,
            status: Some(500),
            request_id: None,
            finish_reason: None,
            error: Some(("ServerError", "went \"away\"".into())),
        };
        let mut kept = Vec::new();
        write_attempt(&mut kept, &attempt);
        assert_eq!(
            String::from_utf8(kept).unwrap(),
            "{\"ok\":false,\"attempt\":1,\"model\":\"m\",\"timing\":{\"start_time\":\
             \"1970-01-01T00:00:00.000Z\",\"duration_ms\":1.000},\"usage\":{},\"status\":500,\
             \"error\":{\"type\":\"ServerError\",\"message\":\"went \\\"away\\\"\"}}"
        );
    }
}
