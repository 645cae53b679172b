//! rowmill
pub mod cli;
pub mod format;
pub mod http;
pub mod input;
pub mod job;
pub mod merge;
pub mod pipeline;
pub mod plan;
pub mod policy;
pub mod prompt;
pub mod provider;
pub mod report;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod work;
