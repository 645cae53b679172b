//! Tests that use rowmill as its users do: the built binary, real files, a real (misbehaving)
//! server on loopback, real signals.

#![expect(unreachable_pub, reason = "a test crate has no outside")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stderr, reason = "tests that skip say so")]

mod attachments;
mod config;
mod cron;
mod damage;
mod dedupe;
mod dialects;
mod faults;
mod files;
mod filter;
mod guards;
mod histories;
mod hostile;
#[path = "house/imports.rs"]
mod house;
mod input;
mod limits;
mod listing;
mod models;
mod money;
mod names;
mod network;
mod outputs;
mod pairing;
mod partial;
mod pools;
mod removal;
mod requests;
mod resume;
mod run;
mod schedule;
mod screen;
mod secrets;
mod serve;
mod several;
mod simulated;
mod spelled;
mod streams;
mod structured;
mod support;
mod takeover;
mod tidy;
mod transfer;
mod update;
mod variants;
mod websockets;
mod wire;
