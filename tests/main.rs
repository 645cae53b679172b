//! Tests that use rowmill as its users do: the built binary, real files, a real (misbehaving)
//! server on loopback, real signals.

#![expect(unreachable_pub, reason = "a test crate has no outside")]

mod faults;
mod input;
mod resume;
mod run;
mod support;
