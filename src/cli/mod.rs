//! The command line: arguments, environment, signals, the screen, exit codes.
//!
//! Everything that touches the process as a whole is here and nowhere else.

mod access;
mod args;
mod commands;
mod config;
mod constant_prompt;
mod deadline;
mod dialect;
mod ending;
mod estimate;
mod exit;
mod files;
mod filter;
mod hints;
mod key;
mod links;
mod look;
mod model;
mod models;
mod names;
mod parse;
mod pipes;
mod pool;
mod preview;
mod price;
mod proxy;
mod question;
mod reach;
mod routes;
mod run;
mod schema;
mod served_model;
mod serving;
mod signals;
mod stop;
mod surroundings;
mod system;
mod there;
mod typed;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::Cli;

/// Runs a command line, and gives the code to exit with.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(code) = serving::become_another(&arguments) {
        return code;
    }
    system::prepare();
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => {
            let run = || commands::dispatch(cli, &arguments);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| {
                // The panic itself was told where it happened.
                let typed = typed::Typed(&arguments);
                exit::of_bug(&typed).print()
            })
        }
        Err(error) => {
            // Help and version come this way as well, and are no errors.
            let hint = hints::of_unknown_option(&error);
            let plain = hint.clone().unwrap_or_else(|| error.render().to_string());
            let said = links::without_secrets(&plain, &arguments);
            if said == plain && hint.is_none() {
                let _ = error.print();
            } else {
                exit::say(said.trim_end());
            }
            ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK })
        }
    }
}
