//! What rows that pass by come in and go out by: that none of it is another of it, and how it is opened.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Cursor, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::args::FilterArgs;
use super::dialect::Piece;
use crate::pipeline::Error;
use crate::shutdown::{Shutdown, Stage, Trigger, channel};
use crate::store;
use crate::telemetry::is_torn;
use crate::work::Pipes;

/// Refuses a file that is two of what is read and written: lines out that are read as rows never end, each
/// with its call, and lines of two kinds damage one another. Pipes, terminals and devices may well be both.
///
/// # Errors
/// [`Error::Usage`].
pub(super) fn check(args: &FilterArgs) -> Result<(), Error> {
    let (input, output) = (facts(std::io::stdin()), facts(std::io::stdout()));
    if is_one(input.as_ref(), output.as_ref()) {
        let text = "standard output must not be the file of standard input, or lines out would be read as \
                    rows, and asked about: write to another file (the shell's > has emptied this one, >> has not)";
        return Err(Error::Usage(text.to_owned()));
    }
    let files =
        [("--telemetry-output", &args.telemetry_output), ("--log-file", &args.tell.log_file)];
    for (option, path) in files {
        let file = path.as_ref().and_then(|path| std::fs::metadata(path).ok());
        for (what, other) in [("standard input", &input), ("standard output", &output)] {
            if is_one(file.as_ref(), other.as_ref()) {
                let text = format!("{option} must not be the file of {what}: name another");
                return Err(Error::Usage(text));
            }
        }
    }
    Ok(())
}

/// What is known of a standard stream.
fn facts(stream: impl AsFd) -> Option<Metadata> {
    File::from(stream.as_fd().try_clone_to_owned().ok()?).metadata().ok()
}

/// Whether two are one regular file.
fn is_one(one: Option<&Metadata>, other: Option<&Metadata>) -> bool {
    let id = |meta: &Metadata| (meta.dev(), meta.ino());
    one.zip(other).is_some_and(|(one, other)| one.is_file() && id(one) == id(other))
}

/// Opens what comes in, after what of it was read `ahead`, and what goes out.
///
/// # Errors
/// When the file of the telemetry cannot be opened.
pub(super) fn pipes(args: &FilterArgs, ahead: Vec<u8>) -> Result<Pipes, Error> {
    let telemetry = match args.telemetry_output.clone() {
        None => None,
        Some(path) => match Attempts::open(&path) {
            Ok(file) => Some((path, Box::new(file) as Box<dyn Write>)),
            Err(source) => {
                let error = store::Error::Io { what: "open", path, source };
                return Err(error.into());
            }
        },
    };
    let input = Box::new(Cursor::new(ahead).chain(std::io::stdin()));
    let output: Box<dyn Write + Send> = match facts(std::io::stdout()) {
        Some(meta) if meta.file_type().is_fifo() => Box::new(Pieces(std::io::stdout())),
        _ => Box::new(std::io::stdout()),
    };
    Ok(Pipes { input, output, telemetry, readers: readers() })
}

/// A file that lines of attempts are appended to.
struct Attempts {
    file: File,
    // Whether the last line before lacks its end.
    is_torn: bool,
}

impl Attempts {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        // Opened anew, for a pipe that is open for reading has a reader; and one may append to what one cannot read.
        let is_torn = file.metadata()?.is_file()
            && File::open(path).and_then(|file| is_torn(&file)).unwrap_or_default();
        Ok(Self { file, is_torn })
    }
}

impl Write for Attempts {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if !self.is_torn {
            return self.file.write(line);
        }
        // One write, as for any line: others may append as well.
        self.file.write_all(&[b"\n", line].concat())?;
        self.is_torn = false;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// So many bytes at most are written to a pipe without those of others between them (pipe(7), Linux).
const PIPE_BUF: usize = 4096;

/// A pipe that others may write to as well: lines go out whole, as many at a time as nobody can part.
struct Pieces<W>(W);

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, lines: &[u8]) -> std::io::Result<usize> {
        self.0.write(piece(lines))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// The first lines that fit, or the first line where that alone does not.
fn piece(lines: &[u8]) -> &[u8] {
    if lines.len() <= PIPE_BUF {
        return lines;
    }
    let end = memchr::memrchr(b'\n', &lines[..PIPE_BUF]).or_else(|| memchr::memchr(b'\n', lines));
    end.map_or(lines, |at| &lines[..=at])
}

/// Reads some of standard input, unless nobody reads standard output any more before there is any.
pub(super) fn read_some(bytes: &mut Vec<u8>) -> std::io::Result<Piece> {
    const PIECE: usize = 64 << 10;
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&stdout, PollFlags::empty())];
    let polled = poll(&mut fds, None);
    let is_gone = fds[1].revents().intersects(PollFlags::ERR | PollFlags::HUP);
    if polled.is_ok() && fds[0].revents().is_empty() && is_gone {
        return Ok(Piece::Unwanted);
    }
    let before = bytes.len();
    bytes.resize(before + PIECE, 0);
    // As much as that goes past the buffer of standard input: what is not read here is read later.
    let read = stdin.lock().read(&mut bytes[before..]);
    bytes.truncate(before + read.as_ref().copied().unwrap_or_default());
    match read {
        Ok(0) => Ok(Piece::End),
        Ok(_) => Ok(Piece::More),
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(Piece::More),
        Err(error) => Err(error),
    }
}

/// More than running once nobody reads standard output any more: where nothing is to be written for long,
/// nothing else would tell.
fn readers() -> Shutdown {
    let (trigger, readers) = channel();
    // Without the thread it is told by the next line.
    let _ = std::thread::Builder::new().name("readers".to_owned()).spawn(move || watch(&trigger));
    readers
}

fn watch(trigger: &Trigger) {
    let stdout = std::io::stdout();
    loop {
        // That it has gone, or is none, is told unasked.
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
                return trigger.advance(Stage::Aborting);
            }
            Ok(_) | Err(_) => return,
        }
    }
}
