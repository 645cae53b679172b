//! What to do where files stand in the way: outputs that are there, and answers that cannot be taken over.

use super::exit::{CANNOT_CREATE, KEPT, Line, MISMATCH, UNTOUCHED, shown};
use super::typed::Typed;
use crate::pipeline::Error;

/// What stands where outputs are to be, or where answers are to come from.
pub(super) fn of_what_is_there(error: &Error, typed: &Typed<'_>) -> Line {
    let line = |code, safe, next: String| Line { code, what: error.to_string(), safe, next };
    match error {
        Error::OutputExists { .. } => {
            let next = format!(
                "replace it: {}, or take its answers over with --resume",
                typed.overwriting()
            );
            line(CANNOT_CREATE, UNTOUCHED, next)
        }
        Error::OutputForeign { .. } => {
            let next = "move it away and run the same command again".to_owned();
            line(CANNOT_CREATE, KEPT, next)
        }
        Error::OfOthers { path, .. } => {
            let path = shown(path);
            let next = format!(
                "if it is as you left it, make it yours alone (chown, chmod go-w {path}) and run the same again; or \
                 choose another --output, or name the work directory with --work-dir"
            );
            line(CANNOT_CREATE, UNTOUCHED, next)
        }
        Error::NoneTakenOver { .. } => {
            let next = format!(
                "name the work directory with --work-dir, or begin anew: {}",
                typed.overwriting()
            );
            line(CANNOT_CREATE, UNTOUCHED, next)
        }
        Error::NotOurs { option, may_begin_anew, .. } => {
            let or = match may_begin_anew {
                true => format!("replace it: {}", typed.overwriting()),
                false => "move that file away, and run the same again".to_owned(),
            };
            let next = format!("give {option} another path, or {or}");
            line(CANNOT_CREATE, UNTOUCHED, next)
        }
        Error::OtherQuestion { .. } => {
            let next = format!("choose another output, or begin anew: {}", typed.overwriting());
            line(MISMATCH, UNTOUCHED, next)
        }
        Error::NotTakenOver { next, .. } => line(MISMATCH, UNTOUCHED, next.clone()),
        Error::TwoEarlier { output, theirs } => {
            let next = format!(
                "to go on from {}, choose another --output or move {} away; to go on from {1}, leave --work-dir out",
                shown(theirs),
                shown(output)
            );
            line(CANNOT_CREATE, UNTOUCHED, next)
        }
        _ => {
            let next = format!("take its answers over: {}", typed.resumed());
            line(CANNOT_CREATE, UNTOUCHED, next)
        }
    }
}
