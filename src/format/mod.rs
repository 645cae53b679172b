//! How lines and files are spelled: the reader and the writer of each form side by side.
//!
//! Nothing here opens a file. Bytes come in, bytes go out.

pub mod chunk;
pub mod csv;
pub mod envelope;
pub mod fast_agent;
pub mod json;
pub mod reply_body;
pub mod telemetry;
