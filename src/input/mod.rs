//! Where rows come from: local files, read by ranges, each row checked the same way by whoever
//! reads it.

mod attachment;
mod rows;
mod select;
mod source;
mod spelling;

pub use attachment::Attachments;
pub use rows::{ShardRows, id_hash, identify, read_shard, shard_of};
pub use select::choose;
pub use source::{Error, Format, HashingReader, Source, Sources};
pub use spelling::{BOM, holds_csv, not_text};
