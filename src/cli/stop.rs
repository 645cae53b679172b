//! What is said of a run that ended itself.

use super::exit::{KEPT, LIMIT, Line, MISMATCH, NO_PERMISSION, UNAVAILABLE};
use super::typed::Typed;
use crate::job::Money;
use crate::work::{Assumed, StopReason};

/// The code and the line of a run that ended itself; `left` is what is left, in words.
pub(super) fn of_stop(reason: &StopReason, left: &str, typed: &Typed<'_>) -> Line {
    let line = stopped(reason, typed);
    let next = format!("{left} are left; {}", line.next);
    Line { next, ..line }
}

/// The same without what is left.
pub(super) fn stopped(reason: &StopReason, typed: &Typed<'_>) -> Line {
    let (code, what, first) = match reason {
        StopReason::MaxCost { cap, spent, assumed, call } => {
            return of_max_cost((*cap, *spent, *call), *assumed, typed);
        }
        StopReason::MaxErrors { failed } => {
            let rows = if *failed == 1 { "row" } else { "rows" };
            (LIMIT, format!("stopped: {failed} {rows} failed (--max-errors)"), "see to the cause")
        }
        StopReason::Credentials { why } => {
            (NO_PERMISSION, format!("stopped: the endpoint refused the key: {why}"), "mend the key")
        }
        StopReason::Quota { why } => {
            (NO_PERMISSION, format!("stopped: quota or credit is used up: {why}"), "add credit")
        }
        StopReason::Tls { why } => {
            let first = "mend the URL or the certificate (SSL_CERT_FILE names further roots)";
            (UNAVAILABLE, format!("stopped: {why}"), first)
        }
        StopReason::AsksTooMuch { wait, why } => {
            let wait = wait.as_secs();
            let what = format!(
                "stopped: the endpoint asks to be left alone for {wait} s, longer than --max-outage: {why}"
            );
            (UNAVAILABLE, what, "wait for so long, or allow more with --max-outage")
        }
        StopReason::Outage { out, why } => {
            let out = out.as_secs();
            let what = format!("stopped: the endpoint was out of reach for {out} s: {why}");
            (UNAVAILABLE, what, "wait until it is back")
        }
        StopReason::Unreachable { out, why } => {
            let out = out.as_secs();
            let what = format!("stopped: the endpoint could not be reached within {out} s: {why}");
            let first = "check --base-url (host, port, http or https), and that the server runs";
            (UNAVAILABLE, what, first)
        }
        StopReason::Unknown { why } => {
            let what = format!("stopped before rows fail of it: no row was answered: {why}");
            (MISMATCH, what, "see to -m and --base-url (rowmill models lists what there is)")
        }
        StopReason::ServerLost { why } => {
            (UNAVAILABLE, format!("stopped: the server is not started again: {why}"), "see to it")
        }
    };
    let next = format!("{first}, then: {}", typed.resumed());
    Line { code, what, safe: KEPT, next }
}

/// The line of a run that may not spend what its next call may cost.
fn of_max_cost(
    (cap, spent, call): (Money, Money, Money),
    assumed: Assumed,
    typed: &Typed<'_>,
) -> Line {
    let Assumed { money, calls } = assumed;
    let unknown = match calls {
        0 => String::new(),
        1 => format!(" ({money} of that is assumed: 1 call did not tell what it used)"),
        calls => {
            format!(" ({money} of that is assumed: {calls} calls did not tell what they used)")
        }
    };
    let what = format!(
        "stopped: {spent} of the {cap} of --max-cost are spent{unknown}, and the next call may cost {call}"
    );
    // Enough for the call in any case.
    let more = cap.times(2).max(spent.plus(call.times(2))).to_decimal();
    let mut words = typed.without("--max-cost");
    words.push(format!("--max-cost={more}").into());
    let next = format!("allow more and go on: {}", Typed(&words).resumed());
    Line { code: LIMIT, what, safe: KEPT, next }
}
