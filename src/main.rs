//! The `rowmill` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    rowmill::cli::main(std::env::args_os())
}
