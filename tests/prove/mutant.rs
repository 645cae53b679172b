//! rowmill with one guard left out: the one that `ROWMILL_MUTANT` names. Built with the feature
//! `mutants` only, and run by nothing but the proof.

use std::process::ExitCode;

use rowmill::guard::Guard;

fn main() -> ExitCode {
    let name = std::env::var("ROWMILL_MUTANT").unwrap_or_default();
    if let Some(guard) = Guard::ALL.into_iter().find(|guard| format!("{guard:?}") == name) {
        guard.leave_out();
    }
    rowmill::cli::main(std::env::args_os())
}
