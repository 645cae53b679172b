//! What all benchmarks need.

pub mod data;
pub mod endpoint;
pub mod mock;
pub mod page;
pub mod plot;
pub mod process;
pub mod replies;
pub mod scenarios;
pub mod server;
pub mod simulator;
pub mod table;
