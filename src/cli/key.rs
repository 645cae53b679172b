//! Keys that a command gives: run once, bounded, and never shown.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::provider::Secret;

/// How long a command for a key may take: a person may have to touch something.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a key.
const LONGEST: u64 = 64 << 10;

/// Runs a command in a directory, and takes what it prints for a key. What it says on standard error
/// is for whoever started rowmill.
///
/// # Errors
/// In words, without what it printed.
pub(super) fn from_command(words: &[String], dir: &Path) -> Result<Secret, String> {
    from_command_within(words, dir, PATIENCE)
}

fn from_command_within(words: &[String], dir: &Path, patience: Duration) -> Result<Secret, String> {
    let (program, arguments) = words.split_first().ok_or("key_command is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    if !dir.as_os_str().is_empty() {
        command.current_dir(dir);
    }
    let mut child =
        command.spawn().map_err(|error| format!("its key_command cannot be run: {error}"))?;
    let result = read(&mut child, patience);
    if result.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| format!("its key_command is lost: {error}"))?;
    let bytes = result?;
    if !status.success() {
        return Err(format!("its key_command ended with {status}"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "its key_command printed no text")?;
    Secret::new(&text).ok_or_else(|| "its key_command printed nothing".to_owned())
}

/// What a child prints until it ends.
fn read(child: &mut Child, patience: Duration) -> Result<Vec<u8>, String> {
    let stdout = child.stdout.take().ok_or("its key_command has no output")?;
    let (sender, receiver) = mpsc::channel();
    // A thread of its own: children of the command may keep the pipe open for ever.
    let spawned = std::thread::Builder::new().name("key".to_owned()).spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(LONGEST + 1).read_to_end(&mut bytes);
        let _ = sender.send(read.map(|_| bytes));
    });
    spawned.map_err(|error| format!("there is no thread for its key_command: {error}"))?;
    match receiver.recv_timeout(patience) {
        Ok(Ok(bytes)) if bytes.len() as u64 > LONGEST => {
            Err("its key_command printed more than a key".to_owned())
        }
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(format!("its key_command cannot be heard: {error}")),
        Err(_) => Err(format!("its key_command took more than {} s", patience.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str, patience: u64) -> Result<Secret, String> {
        let words = ["sh", "-c", line].map(str::to_owned);
        from_command_within(&words, Path::new("/"), Duration::from_secs(patience))
    }

    #[test]
    fn a_command_gives_a_key_or_a_reason() {
        let key = run("echo \"  k-$(pwd)  \"", 60).unwrap();
        assert_eq!(Some(key), Secret::new("k-/"));
        for (line, why) in [
            ("echo secret; exit 3", "exit status: 3"),
            ("true", "printed nothing"),
            ("printf '\\377'", "no text"),
            ("yes", "more than a key"),
        ] {
            let error = run(line, 60).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{line}: {error}");
        }
        let missing = from_command(&["/no/such/program".to_owned()], Path::new("/"));
        assert!(missing.unwrap_err().contains("cannot be run"));
    }

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        assert!(run("exec sleep 3", 0).unwrap_err().contains("took more than"));
        // Somebody else holds its standard output.
        assert!(run("sleep 3 & sleep 3", 0).unwrap_err().contains("took more than"));
    }
}
