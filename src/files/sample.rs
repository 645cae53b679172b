//! `files sample`: some of a file's lines, every set of so many as likely as any other. Held are the lines that are taken.

use std::collections::BinaryHeap;
use std::io::Write;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Error;
use super::lines::{Input, Lines};
use super::output::{Output, Writing};
use crate::shutdown::Shutdown;

/// Writes `count` lines, or all if there are fewer, in the order of the file; gives how many, and of how many.
///
/// Those are taken whose numbers have the smallest hashes under the seed: the same seed takes the same lines from the
/// same file, whatever is in them.
///
/// # Errors
/// When the input cannot be read or the output cannot be written.
pub fn sample(
    input: &Input,
    (count, seed): (usize, u64),
    output: &Output,
    stdout: &mut dyn Write,
    shutdown: &Shutdown,
) -> Result<(u64, u64), Error> {
    let mut lines = Lines::open(input, shutdown)?;
    let mut writing = Writing::begin(output, stdout)?;
    // The largest hash on top, to make way.
    let mut taken: BinaryHeap<(u64, u64, Box<[u8]>)> = BinaryHeap::new();
    let mut number: u64 = 0;
    lines.each(&mut |line| {
        number += 1;
        let hash = xxh3_64_with_seed(&number.to_le_bytes(), seed);
        let is_in = taken.len() < count || taken.peek().is_some_and(|(last, ..)| hash < *last);
        if count > 0 && is_in {
            let bytes = line.whole(input.path())?;
            if taken.len() == count {
                taken.pop();
            }
            taken.push((hash, number, bytes.into()));
        }
        Ok(())
    })?;
    let mut taken = taken.into_vec();
    taken.sort_unstable_by_key(|(_, number, _)| *number);
    for (_, _, line) in &taken {
        writing.line(line)?;
    }
    writing.finish()?;
    Ok((taken.len() as u64, number))
}
