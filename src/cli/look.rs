//! The commands that look at a work directory: status and check.

use std::process::ExitCode;

use super::args::{CheckArgs, StatusArgs};
use super::exit;
use super::surroundings::{Failed, Settings, Surroundings};
use super::typed::Typed;
use crate::pipeline;
use crate::report;
use crate::store::{DamageKind, WorkDir};
use crate::telemetry::{escape, now_ms};

pub(super) fn status(args: &StatusArgs) -> Result<ExitCode, Failed> {
    let dir = WorkDir::open(&args.work_dir)?;
    let status = report::status(&dir, now_ms())?;
    if args.json {
        exit::show(&serde_json::to_string_pretty(&status).unwrap_or_default());
    } else {
        for line in status.to_string().lines() {
            exit::show(&escape(line));
        }
    }
    Ok(ExitCode::from(exit::OK))
}

pub(super) fn check(args: &CheckArgs, typed: &Typed<'_>) -> Result<ExitCode, Failed> {
    let settings = Settings { lock_wait: args.lock_wait, ..Settings::default() };
    let mut surroundings = Surroundings::new(settings, typed)?;
    let (manifest, found, left) =
        surroundings.with(|context| pipeline::check(&args.work_dir, args.repair, context))?;
    for damage in &found {
        let kind = match damage.kind {
            DamageKind::Residue => "residue",
            DamageKind::StaleIndex => "stale index",
            DamageKind::LostRecords => "lost records",
            DamageKind::Fatal => "fatal",
        };
        let file = escape(&damage.file);
        let reason = escape(&damage.reason);
        let (offset, length) = (damage.offset, damage.length);
        exit::show(&format!("{kind}: {file} at byte {offset}, {length} bytes: {reason}"));
    }
    let is_bad = |kind| matches!(kind, DamageKind::LostRecords | DamageKind::Fatal);
    let bad = left.iter().filter(|damage| is_bad(damage.kind)).count();
    let repaired = found.len() - left.len();
    exit::show(&format!(
        "{} shards read, {} things found, {repaired} repaired",
        manifest.open_shards().count(),
        found.len()
    ));
    if bad == 0 {
        return Ok(ExitCode::from(exit::OK));
    }
    let next = if args.repair {
        "restore what is named above from a copy".to_owned()
    } else {
        format!("{} --repair", typed.again())
    };
    let what = format!("{bad} things are damaged");
    Ok(exit::Line { code: exit::DAMAGED, what, safe: "nothing was deleted", next }.print())
}
