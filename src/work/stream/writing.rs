//! Where a stream's lines go: a thread that writes them, and the lines that wait for those before them.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::mpsc;

use crate::store;
use crate::work::feed::RowIndex;

/// Lines that were written, and their bytes.
type Written = io::Result<(usize, usize)>;

/// The lines of a stream on their way out.
#[derive(Debug)]
pub(super) struct Lines {
    to: Sender<Vec<u8>>,
    written: mpsc::UnboundedReceiver<Written>,
    // Lines that wait for one before them, where they go out in the order of their rows.
    waiting: Option<BTreeMap<RowIndex, Vec<u8>>>,
    next: RowIndex,
    // What is made and not written.
    lines: usize,
    bytes: usize,
    out: u64,
    most: usize,
    is_broken: bool,
}

/// Bytes of lines in memory with which no further rows are taken.
const BYTES: usize = 64 << 20;
/// So much is written at a time, if it is there.
const BLOCK: usize = 1 << 16;

impl Lines {
    /// Begins to write; no further rows are to be taken while so many lines wait for whoever reads them.
    ///
    /// # Errors
    /// When there is no room for a thread.
    pub(super) fn new(
        output: Box<dyn Write + Send>,
        is_ordered: bool,
        most: usize,
    ) -> Result<Self, store::Error> {
        let (to, lines) = unbounded();
        let (sender, written) = mpsc::unbounded_channel();
        let name = "write".to_owned();
        // Nobody waits for it: whoever reads may never do so again.
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || write_on(output, &lines, &sender))
            .map_err(|source| store::Error::NoThread { name, source })?;
        let waiting = is_ordered.then(BTreeMap::new);
        let (next, lines, bytes, out, is_broken) = (0, 0, 0, 0, false);
        Ok(Self { to, written, waiting, next, lines, bytes, out, most, is_broken })
    }

    /// The first row without a line out, where that matters.
    pub(super) fn first(&self) -> Option<RowIndex> {
        self.waiting.as_ref().map(|_| self.next)
    }

    /// Whether there is room for more lines.
    pub(super) fn has_room(&self) -> bool {
        self.lines < self.most && self.bytes < BYTES
    }

    /// How many lines were written.
    pub(super) fn out(&self) -> u64 {
        self.out
    }

    /// Whether all lines that were made are written, but for those that wait for others before them.
    pub(super) fn is_written(&self) -> bool {
        self.lines == 0
    }

    /// Takes a row's line.
    pub(super) fn put(&mut self, place: RowIndex, line: Vec<u8>) {
        self.bytes += line.len();
        let Some(waiting) = &mut self.waiting else { return self.send(line) };
        waiting.insert(place, line);
        while let Some(line) = self.waiting.as_mut().and_then(|it| it.remove(&self.next)) {
            self.next += 1;
            self.send(line);
        }
    }

    /// No further row has an outcome: lines that wait for others go out as they are.
    pub(super) fn let_go(&mut self) {
        for line in std::mem::take(&mut self.waiting).into_iter().flat_map(BTreeMap::into_values) {
            self.send(line);
        }
    }

    /// No line can be written any more.
    pub(super) fn break_off(&mut self) {
        (self.is_broken, self.lines) = (true, 0);
    }

    /// Whether none can.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn send(&mut self, line: Vec<u8>) {
        if !self.is_broken {
            self.lines += 1;
            // That nobody takes it any more is told by what was written.
            let _ = self.to.send(line);
        }
    }

    /// Waits until lines were written. Gives nothing when the thread is gone.
    ///
    /// # Errors
    /// When they cannot be.
    pub(super) async fn written(&mut self) -> Option<io::Result<()>> {
        let (lines, bytes) = match self.written.recv().await? {
            Ok(written) => written,
            Err(error) => return Some(Err(error)),
        };
        self.lines -= lines;
        self.bytes -= bytes;
        self.out += lines as u64;
        Some(Ok(()))
    }
}

/// Writes lines until no more come: all that are there at once, and none waits for another.
fn write_on(
    mut output: Box<dyn Write + Send>,
    lines: &Receiver<Vec<u8>>,
    written: &mpsc::UnboundedSender<Written>,
) {
    let mut block = Vec::new();
    while let Ok(line) = lines.recv() {
        block.clear();
        block.extend_from_slice(&line);
        let mut count = 1;
        while block.len() < BLOCK
            && let Ok(line) = lines.try_recv()
        {
            block.extend_from_slice(&line);
            count += 1;
        }
        let result = output.write_all(&block).and_then(|()| output.flush());
        let has_failed = result.is_err();
        if written.send(result.map(|()| (count, block.len()))).is_err() || has_failed {
            return;
        }
    }
}
