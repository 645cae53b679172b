//! Where a stream's rows come from: a thread that reads ahead a little, and the rows that were taken of it
//! and have no outcome yet.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::dialect::detect::{Form, form_of};
use crate::format::chunk::{Chunk, ChunkReader, Limits};
use crate::input::{self, BOM, Format, ShardRows, not_text};
use crate::job::JobSpec;
use crate::policy::Tries;
use crate::prompt::Template;
use crate::provider::Correction;
use crate::store;
use crate::work::feed::RowIndex;
use crate::work::row::{self, Prepared};

/// How the rows are spelled.
static LINES: Format = Format::JsonLines;

/// What the reading thread hands on.
pub(super) type Incoming = Result<Chunk, Unfit>;

/// Why no rows can be taken.
#[derive(Debug)]
pub(super) enum Unfit {
    /// The input cannot be read.
    Unreadable(input::Error),
    /// They were not looked at, and are requests.
    Requests(Form),
}

impl From<input::Error> for Unfit {
    fn from(error: input::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// Rows that were read together.
#[derive(Debug)]
struct Batch {
    rows: ShardRows<'static>,
    bytes: usize,
    held: Rc<Cell<usize>>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.held.set(self.held.get() - self.bytes);
    }
}

/// A row that was taken and has no outcome yet.
#[derive(Debug)]
pub(super) struct Row {
    batch: Rc<Batch>,
    index: usize,
    pub(super) tries: Tries,
    /// What was wrong with its last answer, if it is to be told.
    pub(super) correction: Option<Arc<Correction>>,
    /// How often it was answered, well or badly, and asked again.
    pub(super) answered: u32,
}

/// The rows of a stream. A row's place is counted from 0.
#[derive(Debug)]
pub(super) struct Rows {
    incoming: Receiver<Incoming>,
    is_over: bool,
    // Rows that were read and not taken, and which of them is next.
    batch: Option<(Rc<Batch>, usize)>,
    next: RowIndex,
    in_hand: HashMap<RowIndex, Row>,
    // Rows that will be tried again, and when; and one that was taken and not started.
    again: BinaryHeap<Reverse<(Instant, RowIndex)>>,
    put_back: Option<RowIndex>,
    // Bytes of rows in memory.
    held: Rc<Cell<usize>>,
    read: Arc<AtomicU64>,
    window: usize,
}

/// Bytes of rows in memory with which no more are taken, as long as there are any in hand.
const BYTES: usize = 64 << 20;

impl Rows {
    /// Begins to read rows; at most so many of them are in hand at a time. Where nobody has looked at them yet
    /// (`is_unseen`), the first must be no request.
    ///
    /// # Errors
    /// When there is no room for a thread.
    pub(super) fn new(
        input: Box<dyn Read + Send>,
        max_row_bytes: u64,
        window: usize,
        is_unseen: bool,
    ) -> Result<Self, store::Error> {
        // One is being worked off, one waits, one is being read.
        let (sender, incoming) = channel(1);
        let read = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&read);
        let name = "read".to_owned();
        // Nobody waits for it: it may wait for its input for ever.
        let body = move || read_on(input, (max_row_bytes, is_unseen), &count, &sender);
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(body)
            .map_err(|source| store::Error::NoThread { name, source })?;
        Ok(Self {
            incoming,
            is_over: false,
            batch: None,
            next: 0,
            in_hand: HashMap::new(),
            again: BinaryHeap::new(),
            put_back: None,
            held: Rc::default(),
            read,
            window,
        })
    }

    /// How many were read, in hand or not.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Acquire)
    }

    /// Whether all there ever were have their outcomes.
    pub(super) fn is_done(&self) -> bool {
        self.is_over && self.batch.is_none() && self.in_hand.is_empty()
    }

    /// Whether another may be taken, where the first without a line out is at `first`.
    pub(super) fn has_room(&self, first: Option<RowIndex>) -> bool {
        let open = first.map_or(self.in_hand.len(), |first| self.next - first);
        open < self.window && (self.held.get() < BYTES || self.in_hand.is_empty())
    }

    /// Whether more must be read before another can be taken.
    pub(super) fn is_dry(&self) -> bool {
        self.batch.is_none() && !self.is_over
    }

    /// Waits for more rows.
    pub(super) async fn more(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Takes in what [`Self::more`] brought.
    ///
    /// # Errors
    /// When the input cannot be read any further, or its lines are none that were meant.
    pub(super) fn take_in(&mut self, incoming: Option<Incoming>) -> Result<(), Unfit> {
        let Some(chunk) = incoming.transpose()? else {
            self.is_over = true;
            return Ok(());
        };
        let bytes = chunk.bytes.capacity();
        self.held.set(self.held.get() + bytes);
        let rows = ShardRows::new(&LINES, chunk);
        self.batch = Some((Rc::new(Batch { rows, bytes, held: Rc::clone(&self.held) }), 0));
        Ok(())
    }

    /// Takes the next row that was not taken before, if it is there.
    ///
    /// # Errors
    /// As [`Self::take_in`].
    pub(super) fn take_new(&mut self) -> Result<Option<RowIndex>, Unfit> {
        if self.is_dry() {
            match self.incoming.try_recv() {
                Ok(incoming) => self.take_in(Some(incoming))?,
                Err(TryRecvError::Disconnected) => self.take_in(None)?,
                Err(TryRecvError::Empty) => {}
            }
        }
        let Some((batch, index)) = self.batch.take() else { return Ok(None) };
        if index + 1 < batch.rows.len() {
            self.batch = Some((Rc::clone(&batch), index + 1));
        }
        let (tries, correction, answered) = (Tries::default(), None, 0);
        self.in_hand.insert(self.next, Row { batch, index, tries, correction, answered });
        self.next += 1;
        Ok(Some(self.next - 1))
    }

    /// Takes a row that is due for another try, or one that was put back.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<RowIndex> {
        if self.due_at().is_some_and(|at| at <= now) {
            return self.again.pop().map(|Reverse((_, place))| place);
        }
        self.put_back.take()
    }

    /// When the next row is due for another try.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.again.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes back the row that was taken last: it was not started.
    pub(super) fn put_back(&mut self, place: RowIndex, now: Instant) {
        match self.row(place).is_some_and(|row| row.tries.made > 0) {
            true => self.again(place, now),
            false => self.put_back = Some(place),
        }
    }

    /// A row will be tried again then.
    pub(super) fn again(&mut self, place: RowIndex, at: Instant) {
        self.again.push(Reverse((at, place)));
    }

    /// A row in hand.
    pub(super) fn row(&mut self, place: RowIndex) -> Option<&mut Row> {
        self.in_hand.get_mut(&place)
    }

    /// A row has its outcome. Gives it as envelopes show it, if they do.
    pub(super) fn done(&mut self, place: RowIndex, is_shown: bool) -> Option<Vec<u8>> {
        let row = self.in_hand.remove(&place)?;
        is_shown.then(|| row::input(&row.batch.rows, row.index))
    }

    /// Renders a row's prompt.
    pub(super) fn prepare(
        &self,
        place: RowIndex,
        job: &JobSpec,
        template: &Template,
    ) -> Option<Prepared> {
        let Row { batch, index, .. } = self.in_hand.get(&place)?;
        Some(row::prepare((&batch.rows, *index), number_of(place), None, job, template))
    }
}

/// A row's number, as envelopes say it.
pub(super) fn number_of(place: RowIndex) -> u64 {
    place as u64 + 1
}

/// Reads all rows and hands them on, as fast as they are taken.
fn read_on(
    mut input: Box<dyn Read + Send>,
    (max, mut is_unseen): (u64, bool),
    count: &AtomicU64,
    to: &Sender<Incoming>,
) {
    let head = match read_head(&mut input) {
        Ok(head) => head,
        Err(error) => {
            let _ = to.blocking_send(Err(error.into()));
            return;
        }
    };
    let mut chunks = ChunkReader::live(Cursor::new(head).chain(input), max);
    loop {
        let chunk = match chunks.next_chunk(Limits::NONE) {
            Ok(Some(chunk)) if chunk.records.is_empty() => continue,
            Ok(Some(mut chunk)) => {
                // Single rows may wait for long.
                chunk.bytes.shrink_to_fit();
                match std::mem::take(&mut is_unseen).then(|| request_in(&chunk)).flatten() {
                    Some(form) => Err(Unfit::Requests(form)),
                    None => {
                        count.fetch_add(chunk.records.len() as u64, Ordering::AcqRel);
                        Ok(chunk)
                    }
                }
            }
            Ok(None) => return,
            Err(source) => Err(unreadable(source).into()),
        };
        let is_over = chunk.is_err();
        if to.blocking_send(chunk).is_err() || is_over {
            return;
        }
    }
}

/// What the first of the lines looks like, if that is a request.
fn request_in(chunk: &Chunk) -> Option<Form> {
    let form = form_of(chunk.record(chunk.records.first()?))?;
    form.dialect.is_request().then_some(form)
}

/// The first bytes, without the mark that some editors begin text with; refuses what is no text at all.
fn read_head(input: &mut dyn Read) -> Result<Vec<u8>, input::Error> {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    // Somebody may have written half of the mark so far.
    while BOM.starts_with(&head) && head.len() < BOM.len() {
        match input.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => head.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(unreadable(source)),
        }
    }
    if let Some(what) = not_text(&head) {
        return Err(input::Error::NotText { path: name(), what });
    }
    if head.starts_with(BOM) {
        head.drain(..BOM.len());
    }
    Ok(head)
}

fn unreadable(source: std::io::Error) -> input::Error {
    input::Error::Unreadable { path: name(), source }
}

fn name() -> PathBuf {
    PathBuf::from("standard input")
}
