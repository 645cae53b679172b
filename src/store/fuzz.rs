//! Hostile bytes for what stands in a work directory, as the module `fuzz` has them for all.

use std::fs;
use std::path::Path;

use super::checkpoint::{pack, unpack};
use super::journal::{Piece, scan_by};
use super::record::Record;
use super::shard::is_of;
use super::started::Mark;
use super::workdir::Marker;
use super::{ChecksumSeed, Commit, Error, Held, Identity, LastRun, Rename, Seal};
use super::{ShardEntry, ShardState};
use super::{duplicates, manifest, publish, twins};

/// A journal as a seed spells it: a line that begins with a brace gets its checksum, and where it
/// ends in a tilde that stands in the place of its line end. All else is as it is. So a mutation
/// need not guess a checksum to be read.
fn framed(spelled: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in spelled.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if !text.starts_with(b"{") {
            out.extend_from_slice(line);
            continue;
        }
        let (json, end) = match text.strip_suffix(b"~") {
            Some(json) => (json, &b"~"[..]),
            None => (text, &line[text.len()..]),
        };
        let seed = if json.starts_with(b"{\"run\":\"") { 0 } else { seed().0 };
        out.extend_from_slice(format!("{:08x} ", crc32c::crc32c_append(seed, json)).as_bytes());
        out.extend_from_slice(json);
        out.extend_from_slice(end);
    }
    out
}

/// What the journals here belong to.
fn seed() -> ChecksumSeed {
    Identity::known(0).seed()
}

/// A piece of a journal, as a value: where it is, its bytes, and whether they are a record.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    offset: usize,
    bytes: Vec<u8>,
    is_record: bool,
}

fn pieces(block: usize, bytes: &[u8], path: &Path) -> Vec<Found> {
    fs::write(path, bytes).expect("the scratch directory can be written to");
    let file = fs::File::open(path).expect("it is there");
    let mut found = Vec::new();
    let length = scan_by(block, &file, path, (0, seed()), &mut |piece| {
        let (offset, bytes, is_record) = match piece {
            Piece::Record { offset, line, record } => {
                assert_eq!(Record::decode(line, seed()), Ok(record));
                let mut again = Vec::new();
                record.encode(&mut again, seed());
                assert_eq!(
                    Record::decode(&again, seed()),
                    Ok(record),
                    "encoding keeps what it says"
                );
                (offset, line, true)
            }
            Piece::Bad { offset, bytes, .. } => (offset, bytes, false),
        };
        found.push(Found { offset: offset as usize, bytes: bytes.to_vec(), is_record });
        Ok(())
    });
    assert_eq!(length.expect("a file can be scanned"), bytes.len() as u64);
    found
}

/// Pieces lie one behind the other and leave nothing out. Where a record's line end was damaged,
/// the piece behind it begins with what stands in its place.
fn assert_tiled(found: &[Found], bytes: &[u8]) {
    let mut end = 0;
    for piece in found {
        let Found { offset, bytes: held, is_record } = piece;
        let before = offset + held.len() - usize::from(*is_record);
        assert!(*offset == end || (!is_record && *offset + 1 == end), "{piece:?} behind {end}");
        assert_eq!(bytes.get(*offset..before), Some(&held[..before - offset]), "{piece:?}");
        end = offset + held.len();
    }
    assert_eq!(end, bytes.len());
}

/// A journal's pieces tile it, however it is read; records are what they are whatever stands
/// before, behind or between them.
pub(crate) fn journal(spelled: &[u8], scratch: &Path) {
    let path = scratch.join("journal");
    let bytes = framed(spelled);
    let found = pieces(1 << 18, &bytes, &path);
    assert_tiled(&found, &bytes);
    if bytes.len() <= 512 {
        assert_eq!(found, pieces(1 + bytes.len() % 7, &bytes, &path), "read in small blocks");
    }

    let (mut first, mut last) = (Vec::new(), Vec::new());
    Record::Retry { row: 1, at_ms: 2, attempts: b"[]" }.encode(&mut first, seed());
    Record::Repeated { calls: 3, at_ms: 4 }.encode(&mut last, seed());
    let around = pieces(1 << 18, &[&first[..], &bytes, &first, &last].concat(), &path);
    let records = |found: &[Found]| {
        let records = found.iter().filter(|piece| piece.is_record);
        records.map(|piece| piece.bytes.clone()).collect::<Vec<_>>()
    };
    let around = records(&around);
    assert_eq!(around.first(), Some(&first), "a record before damage");
    assert_eq!(around.last(), Some(&last), "a record behind damage");
    for record in records(&found) {
        assert!(around.contains(&record), "a record between others");
    }
    assert_glued_survive(spelled, &records(&found));
}

/// Of records that were written whole, none is lost for want of a line end alone.
fn assert_glued_survive(spelled: &[u8], records: &[Vec<u8>]) {
    let mut lines = spelled.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let is_last = lines.peek().is_none_or(|next| !next.starts_with(b"{\"r"));
        let Some(json) = line.strip_suffix(b"\n") else { continue };
        let (json, is_glued) = json.strip_suffix(b"~").map_or((json, false), |json| (json, true));
        let line = framed(&[json, b"\n"].concat());
        let is_whole = json.starts_with(b"{\"r")
            && serde_json::from_slice::<serde_json::Value>(json).is_ok()
            && Record::decode(&line, seed()).is_ok();
        if is_whole && !(is_glued && is_last) {
            assert!(records.contains(&line), "{} is lost", line.escape_ascii());
        }
    }
}

const ROWS: u64 = 8;

fn entry() -> ShardEntry {
    ShardEntry::of_rows(3, ROWS)
}

/// A shard with any journal opens; no whole record of its rows is lost, nothing is thrown away
/// unkept, and a second opening finds all well.
///
/// The first byte says where the journal was when an earlier session closed it, and so what the
/// checkpoint knows; an `a` says that there was no such session.
pub(crate) fn shard(spelled: &[u8], scratch: &Path) {
    let Some((&when, spelled)) = spelled.split_first() else { return };
    let bytes = framed(spelled);
    let entry = entry();
    let path = scratch.join("work");
    let _ = fs::remove_dir_all(&path);
    let dir = Held::acquire_known(&path).expect("a new directory can be taken");
    let journal = dir.make_shard_dir(0).expect("it can be made").join("journal");
    if when != b'a' {
        let before = bytes.len() * usize::from(when) / 256;
        fs::write(&journal, &bytes[..before]).expect("it can be written");
        if is_refused(&dir, &entry, &journal) {
            return;
        }
        let open = dir.open_shard(0, &entry, 1).expect("any journal opens");
        let repaired = open.journal.length() as usize;
        drop(open);
        // What was cut off or rewritten is another case than what came behind it.
        if repaired != before {
            return;
        }
    }
    fs::write(&journal, &bytes).expect("it can be written");
    if is_refused(&dir, &entry, &journal) {
        return;
    }
    let found = pieces(1 << 18, &bytes, &scratch.join("copy"));
    let (mut kept, mut state, mut lost) = (Vec::new(), ShardState::new(&entry), 0);
    for piece in &found {
        match record_of(&piece.bytes, &entry) {
            Some(record) => {
                if let Record::Outcome(outcome) = &record {
                    state.note(outcome.row, Some(outcome.kind));
                }
                kept.extend_from_slice(&piece.bytes);
            }
            None => lost += piece.bytes.len(),
        }
    }
    let has_header = found.first().is_some_and(|it| record_of(&it.bytes, &entry) == Some(header()));
    let good_end = found.iter().rposition(|it| record_of(&it.bytes, &entry).is_some());
    let is_rewritten = good_end.is_some_and(|last| {
        !has_header || found[..last].iter().any(|it| record_of(&it.bytes, &entry).is_none())
    });
    // A checkpoint is of a journal that said what it belongs to.
    if is_rewritten {
        let is_row = |it: &&Found| record_of(&it.bytes, &entry).is_some_and(|it| it != header());
        kept.clear();
        header().encode(&mut kept, seed());
        found.iter().filter(is_row).for_each(|it| kept.extend_from_slice(&it.bytes));
    }
    let outcomes = |state: &ShardState| (0..20).map(|row| state.outcome(row)).collect::<Vec<_>>();
    let peeked = dir.peek_shard(0, &entry, &mut |_| {}).expect("it can be read");
    assert_eq!(outcomes(&peeked), outcomes(&state), "looking tells what opening would");

    let first = dir.open_shard(0, &entry, 7).expect("any journal opens");
    assert_eq!(outcomes(&first.state), outcomes(&state));
    drop(first);
    assert_eq!(fs::read(&journal).ok(), Some(kept.clone()), "all whole records, and nothing else");
    assert_eq!(quarantined(&dir), lost, "what was cut out is kept");
    assert_sound(&dir, &entry, &kept, &state);
}

/// The first record of the journals here.
fn header() -> Record<'static> {
    const NAMES: [&str; 2] =
        ["00000000000000000000000000000000", "11111111111111111111111111111111"];
    Record::Begin { run: NAMES[0], plan: NAMES[1], generation: 1, shard: 0 }
}

/// The record of the shard here that some bytes are.
fn record_of<'a>(bytes: &'a [u8], entry: &ShardEntry) -> Option<Record<'a>> {
    let record = Record::decode(bytes, seed()).ok()?;
    is_of(&record, entry, &Identity::known(0)).then_some(record)
}

/// Whether the journal says that it is of another shard; then nothing changes it.
fn is_refused(dir: &Held, entry: &ShardEntry, journal: &Path) -> bool {
    let Err(error) = dir.assert_shard_belongs(0) else { return false };
    assert!(matches!(error, Error::Misplaced { .. }), "{error}");
    let before = fs::read(journal).ok();
    assert!(matches!(dir.open_shard(0, entry, 1), Err(Error::Misplaced { .. })));
    assert!(matches!(dir.peek_shard(0, entry, &mut |_| {}), Err(Error::Misplaced { .. })));
    assert_eq!(fs::read(journal).ok(), before, "nothing was changed");
    true
}

/// Bytes kept in quarantine.
fn quarantined(dir: &Held) -> usize {
    let Ok(entries) = fs::read_dir(dir.quarantine()) else { return 0 };
    let files = entries.flatten().filter(|file| file.file_name() != "log.jsonl");
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len() as usize).sum()
}

/// A shard that was repaired stays as it is.
fn assert_sound(dir: &Held, entry: &ShardEntry, kept: &[u8], state: &ShardState) {
    let again = dir.open_shard(0, entry, 9).expect("it opens again");
    assert_eq!((again.repairs.len(), again.repeated), (0, 0), "{:?}", again.repairs);
    assert_eq!(again.state.counts(), state.counts());
    assert_eq!(again.journal.length() as usize, kept.len());
    drop(again);
    let (ok, failed, invalid) = state.counts();
    let wanted = ok + failed + invalid;
    let verified = dir.verify_shard(0, &ShardEntry { wanted, ..entry.clone() }, &mut |_| {});
    let verified = verified.expect("a repaired journal is sound");
    assert_eq!(verified.rows, state.counts());
    assert_eq!(verified.blake3, blake3::hash(kept).to_hex().as_str());
}

/// A manifest is read or refused with a reason, and one that was read comes back as it was.
pub(crate) fn manifest(bytes: &[u8], scratch: &Path) {
    let path = scratch.join("manifest.json");
    // As it is, and as one whose hash is right: few mutations would come further otherwise.
    let mut sealed = b"{\"blake3\":\"".to_vec();
    sealed.extend_from_slice(blake3::hash(bytes).to_hex().as_bytes());
    sealed.extend_from_slice(b"\",\"manifest\":");
    sealed.extend_from_slice(bytes);
    sealed.extend_from_slice(b"}");
    for bytes in [bytes, &sealed] {
        let manifest = match manifest::parse(&path, bytes) {
            Ok(manifest) => manifest,
            Err(Error::Damaged { .. } | Error::Newer { .. }) => continue,
            Err(error) => panic!("neither damaged nor newer: {error}"),
        };
        let spelled = manifest::spell(&path, &manifest).expect("what was read can be written");
        let again = manifest::parse(&path, &spelled).expect("what was written can be read");
        assert_eq!(format!("{again:?}"), format!("{manifest:?}"));
        let wanted: u64 = manifest.ranges().map(|(_, shard)| shard.wanted).sum();
        assert!(wanted <= manifest.rows());
        let shards: u64 = manifest.ranges().map(|(_, shard)| shard.bytes).sum();
        let bytes: u64 = manifest.sources.iter().map(|it| it.bytes - it.data_offset).sum();
        assert_eq!(shards, bytes);
        assert!(manifest.shards.iter().all(|shard| is_of(
            &record(shard.first_row),
            shard,
            &Identity::known(0)
        ) == (shard.rows > 0)));
    }
}

fn record(row: u64) -> Record<'static> {
    Record::Retry { row, at_ms: 0, attempts: b"[]" }
}

/// The small files of a work directory: each is read as what it is or not at all, and what was
/// read comes back. The first byte says which it is.
pub(crate) fn state(bytes: &[u8], _: &Path) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which {
        b'm' => {
            let mut sealed = crc32c::crc32c(bytes).to_le_bytes().to_vec();
            sealed.extend_from_slice(bytes);
            let tag = bytes.last_chunk().map_or(0, |tag| u64::from_le_bytes(*tag));
            if let Some(mark) = Mark::decode(&sealed, tag) {
                assert_eq!(mark.encode(tag), *sealed);
            }
            assert!(Mark::decode(bytes, tag).is_none_or(|mark| mark.encode(tag) == *bytes));
        }
        b's' => {
            if let Ok(seal) = serde_json::from_slice::<Seal>(bytes) {
                let again = serde_json::to_vec(&seal).expect("it can be written");
                assert_eq!(serde_json::from_slice::<Seal>(&again).ok(), Some(seal));
            }
        }
        b'c' => commit(bytes),
        b'r' => {
            if let Some(marker) =
                serde_json::from_slice::<Marker>(bytes).ok().filter(Marker::is_ours)
            {
                assert!(marker.run.len() == 32 && marker.run.is_ascii(), "{}", marker.run);
            }
        }
        b'l' => {
            if let Ok(run) = serde_json::from_slice::<LastRun>(bytes) {
                let again = serde_json::to_vec(&run).expect("it can be written");
                assert_eq!(serde_json::from_slice::<LastRun>(&again).ok(), Some(run));
            }
        }
        b'd' => {
            if let Ok(renames) = duplicates::parse(bytes) {
                let again: Vec<Rename> =
                    duplicates::parse(&duplicates::spell(&renames)).expect("it is ours");
                assert_eq!(again, renames);
            }
        }
        b't' => {
            if let Some(all) = twins::parse(bytes) {
                let spelled = twins::spell(&all);
                let again = twins::parse(&spelled).expect("it is ours");
                assert_eq!(twins::spell(&again), spelled);
            }
        }
        b'g' => {
            let mut entries = Vec::new();
            if let Some((end, tag)) = unpack(bytes, &mut entries) {
                assert_eq!(pack(end, tag, &entries), bytes);
            }
        }
        _ => {}
    }
}

/// A commit renames nothing but what this run staged, and that beside its place only.
fn commit(bytes: &[u8]) {
    const RUN: &str = "0123456789abcdef0123456789abcdef";
    let Ok(commit) = publish::parse(bytes, RUN, 2) else { return };
    let text = serde_json::to_vec(&commit).expect("it can be written");
    let again: Commit = publish::parse(&text, RUN, 2).expect("what was written can be read");
    assert_eq!(again.files, commit.files);
    for file in &commit.files {
        let Some(staged) = &file.staged else { continue };
        let name = match &file.upload {
            Some(upload) => {
                assert!(upload.staging.is_absolute());
                file.role.name().into()
            }
            None => {
                assert!(file.target.is_absolute());
                file.target.file_name().expect("a file has a name").to_string_lossy()
            }
        };
        assert_eq!(*staged, format!(".{name}.01234567.2.staged"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_framed_as_journals_are() {
        let mut line = Vec::new();
        Record::Repeated { calls: 3, at_ms: 4 }.encode(&mut line, seed());
        assert_eq!(framed(b"{\"repeated\":3,\"at\":4}\n"), line);
        line.pop();
        assert_eq!(framed(b"{\"repeated\":3,\"at\":4}~\n"), [&line[..], b"~"].concat());
    }
}
