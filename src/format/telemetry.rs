//! Telemetry: one line an attempt.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use serde::Deserialize;

use crate::format::json;
use crate::job::{Attempt, Usage, rfc3339};

/// Appends an attempt as a JSON object without its row's id and number, as journals keep it:
/// `{"ok":…,"attempt":…,"model":…,"timing":{…},"usage":{…}[,"finish_reason"][,"status"][,"error"]}`.
pub fn write_attempt(out: &mut Vec<u8>, attempt: &Attempt) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{{\"ok\":{},\"attempt\":{}", attempt.error.is_none(), attempt.number);
    out.extend_from_slice(b",\"model\":");
    json::write_string(out, &attempt.model);
    let _ = write!(out, ",\"timing\":{{\"start_time\":\"{}\"", rfc3339(attempt.start_ms));
    write_ms(out, "duration_ms", attempt.duration);
    if let Some(response) = attempt.time_to_response {
        write_ms(out, "time_to_response_ms", response);
    }
    out.extend_from_slice(b"},\"usage\":{");
    if let Some(usage) = &attempt.usage {
        out.extend_from_slice(b"\"turn\":");
        let _ = serde_json::to_writer(&mut *out, usage);
    }
    out.push(b'}');
    if let Some(reason) = &attempt.finish_reason {
        out.extend_from_slice(b",\"finish_reason\":");
        json::write_string(out, reason);
    }
    if let Some(status) = attempt.status {
        let _ = write!(out, ",\"status\":{status}");
    }
    if let Some((kind, message)) = &attempt.error {
        let _ = write!(out, ",\"error\":{{\"type\":\"{kind}\",\"message\":");
        json::write_string(out, message);
        out.push(b'}');
    }
    out.push(b'}');
}

/// Appends an attempt's line: the kept object with its row's id and number in front.
pub fn write_line(out: &mut Vec<u8>, id: &[u8], row: u64, attempt: &[u8]) {
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(id);
    let _ = write!(out, ",\"row_number\":{row},");
    out.extend_from_slice(attempt.strip_prefix(b"{").unwrap_or(attempt));
    out.push(b'\n');
}

/// What summaries need of an attempt.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Facts<'a> {
    /// Whether it brought the answer.
    pub ok: bool,
    /// How long it took.
    #[serde(default)]
    pub timing: Timing,
    /// What it used.
    #[serde(default)]
    pub usage: Turn,
    /// Why the model stopped.
    #[serde(borrow, default)]
    pub finish_reason: Option<Cow<'a, str>>,
}

/// An attempt's times.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Timing {
    /// From the sending to the decoded answer, in milliseconds.
    #[serde(default)]
    pub duration_ms: f64,
    /// From the sending to the head of the answer, in milliseconds.
    #[serde(default)]
    pub time_to_response_ms: Option<f64>,
}

/// An attempt's usage.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Turn {
    /// What the endpoint counted for this call.
    #[serde(default)]
    pub turn: Option<Usage>,
}

fn write_ms(out: &mut Vec<u8>, name: &str, duration: Duration) {
    let micros = duration.as_micros();
    let _ = write!(out, ",\"{name}\":{}.{:03}", micros / 1000, micros % 1000);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_keys_in_order_and_reads_back() {
        let attempt = Attempt {
            number: 2,
            model: "m".into(),
            start_ms: 1_763_700_000_005,
            duration: Duration::from_micros(12_345),
            time_to_response: Some(Duration::from_micros(9_001)),
            usage: Some(Usage { input_tokens: 3, output_tokens: 4, ..Usage::default() }),
            status: Some(200),
            finish_reason: Some("stop".into()),
            error: None,
        };
        let (mut kept, mut line) = (Vec::new(), Vec::new());
        write_attempt(&mut kept, &attempt);
        write_line(&mut line, b"\"r1\"", 9, &kept);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"id\":\"r1\",\"row_number\":9,\"ok\":true,\"attempt\":2,\"model\":\"m\",\"timing\":\
             {\"start_time\":\"2025-11-21T04:40:00.005Z\",\"duration_ms\":12.345,\
             \"time_to_response_ms\":9.001},\"usage\":{\"turn\":{\"input_tokens\":3,\
             \"output_tokens\":4}},\"finish_reason\":\"stop\",\"status\":200}\n"
        );
        let facts: Facts<'_> = serde_json::from_slice(&kept).unwrap();
        assert!((facts.timing.duration_ms - 12.345).abs() < 1e-9);
        assert_eq!(facts.usage.turn, attempt.usage);
    }

    #[test]
    fn a_failed_attempt_names_its_error() {
        let attempt = Attempt {
            number: 1,
            model: "m".into(),
            start_ms: 0,
            duration: Duration::from_millis(1),
            time_to_response: None,
            usage: None,
            status: Some(500),
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
