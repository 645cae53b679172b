//! Points in time, as files show them.

/// A time in milliseconds since the Unix epoch as RFC 3339 has it, in UTC.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "1970-01-01T00:00:00.000Z".to_owned(), |time| format!("{time:.3}"))
}
