//! A log's segment, as it lies in a file and, once it is sealed, in a base chunk: a head, entries, an index.
//!
//! 1. Entries begin at [`LOG_HEAD_BYTES`] and at multiples of eight. The first word of each is what publishes it: zero means that there is none yet.
//! 2. An entry's checksum covers its head, its bytes, its LSN and which log it is of: what is left of another log, or stands at another place
//!    of the order, is none.
//! 3. [`Fold`] takes entries in their order, and refuses those that no appender writes, by name.
//! 4. An index is a function of the entries before it: whoever seals a segment twice writes the same bytes.

mod batch;
mod entry;
mod fold;
mod head;
mod index;
mod row;
mod zones;

pub use batch::{Batch, Stamp};
pub use entry::{ENTRY_HEAD_BYTES, EntrySum, decode_entry, encode_entry, entry_bytes, read_head, words_of};
pub use fold::{Fold, LogBreak};
pub use head::{END_AT, HEAD_LEN, SYNCED_AT, decode_head, encode_head};
pub use index::{TRAILER_BYTES, decode_index, decode_trailer, encode_index};
use littoral_types::limits::{LOG_HEAD_BYTES, LOG_INDEX_BYTES_MAX, LOG_SEGMENT_BYTES};
pub use row::{ROW, ROW_LEADS, begin_row, decode_row, put_cell};
pub use zones::{Zones, decode_zones, encode_zones};

/// The schema version of everything here.
pub const VERSION: u16 = 1;

/// Where the last entry of a segment ends at most.
pub const ENTRIES_END_MAX: u64 = LOG_SEGMENT_BYTES - LOG_INDEX_BYTES_MAX;

const _: () = assert!(LOG_HEAD_BYTES.is_multiple_of(8) && ENTRIES_END_MAX.is_multiple_of(8));
