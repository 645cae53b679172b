//! What all benchmarks need.

pub mod data;
pub mod page;
pub mod plot;
pub mod process;
pub mod replies;
pub mod server;
pub mod simulator;
pub mod table;
