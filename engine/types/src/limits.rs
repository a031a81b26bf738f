//! Every bound in one place, and how they hang together.

/// Bytes of pages in a full chunk.
pub const CHUNK_BYTES: u64 = 64 << 20;
/// Pages in a frame.
pub const FRAME_PAGES_MAX: usize = 16;
/// Chunks whose rows share a shard.
pub const SHARD_CHUNKS: u64 = 1024;
/// A chunk's changed pages travel as a delta below this many bytes, as a new base above it.
pub const DELTA_BYTES_MAX: u64 = 10 << 20;
/// Deltas of one size tier before they are coalesced.
pub const DELTAS_PER_TIER: usize = 3;
/// Each tier's deltas are up to this many times as large as those of the tier below (rule P6).
pub const TIER_RATIO: u64 = 4;
/// Deltas of a chunk that a decoder accepts: far more than coalescing leaves.
pub const DELTAS_PER_CHUNK_MAX: usize = 4096;
/// A record's body travels in the record up to here, as a blob above.
pub const RECORD_INLINE_MAX: usize = 1 << 20;
/// A segment's frames travel in its record up to here, as a blob above.
pub const SEGMENT_INLINE_MAX: usize = 1 << 20;
/// Segments on top of a checkpoint before the next one folds them.
pub const SEGMENTS_MAX: u64 = 48;
/// Bytes of their frames.
pub const SEGMENT_BYTES_MAX: u64 = 8 << 20;
/// Patches that stand on one another before a page travels whole again.
pub const PATCHES_MAX: u32 = 8;
/// Pages that a shipper remembers as it shipped them, in memory.
pub const SHIPPED_BYTES_MAX: usize = 32 << 20;
/// A record's body, decoded. A first checkpoint of 16 TB stays below.
pub const RECORD_BODY_MAX: usize = 1 << 30;
/// One record in so many is an index (rule P8).
pub const INDEX_EVERY: u64 = 64;
/// Operations since the last manifest snapshot, in encoded bytes, before a new one is due.
pub const SNAPSHOT_OPS_BYTES: u64 = 1 << 20;
/// Records since the last manifest snapshot before a new one is due.
pub const SNAPSHOT_RECORDS: u64 = 1024;
/// Least time between two writes of the head.
pub const HEAD_INTERVAL_MS: u64 = 30_000;
/// A snapshot of up to this size travels inside the head.
pub const HEAD_INLINE_MAX: usize = 2 << 20;
/// Rows travel inside a manifest snapshot while they take up to so many bytes: those of a gigabyte or so.
pub const SNAPSHOT_ROWS_MAX: u64 = 96 << 10;
/// The skeleton's pages, uncompressed.
pub const SKELETON_BYTES_MAX: usize = 4 << 20;
/// Pages of the skeleton that changed travel in a checkpoint's record up to here, uncompressed; one page always does.
pub const RECORD_PAGES_BYTES_MAX: usize = 32 << 10;
/// Rows that a lazy reader keeps, in memory: those of some 16 GB of 4 KiB pages.
pub const LAZY_ROWS_BYTES_MAX: usize = 48 << 20;
/// Statements whose programs a reader of a database that is not all here remembers.
pub const PROGRAMS_KNOWN_MAX: usize = 64;
/// How often a statement's program is asked for before it is given up.
pub const PROGRAM_TRIES_MAX: u32 = 3;
/// Levels of the trees below a row that are fetched before the row is wanted.
pub const FORESEEN_LEVELS_MAX: usize = 12;
/// Bytes of frames, before compression, that one such level brings.
pub const FORESEEN_BYTES_MAX: u64 = 32 << 20;
/// How long a read may go on fetching what is foreseen, after its own page is here.
pub const FORESEEN_MS_MAX: u64 = 2_000;
/// Records that a lazy reader keeps as its opening read them, in memory: their frames hold the newest pages.
pub const LAZY_RECORDS_BYTES_MAX: usize = 16 << 20;
/// Length of a volume's or a snapshot's name.
pub const NAME_LEN_MAX: usize = 128;
/// Text for people inside a record: labels, session names.
pub const TEXT_LEN_MAX: usize = 1024;
/// Keys a store returns from one listing call; longer listings are read in steps.
pub const LIST_STEP: usize = 1000;
/// Uploads or downloads in flight at once.
pub const TRANSFERS_IN_FLIGHT: usize = 8;
/// Part size of a multipart upload.
pub const PART_BYTES: u64 = 16 << 20;
/// An object of more bytes than this is uploaded in parts.
pub const SINGLE_PUT_MAX: u64 = 80 << 20;
/// Tries of one request, the first included.
pub const TRIES_MAX: u32 = 6;
/// First pause between tries; it doubles, with full jitter.
pub const RETRY_PAUSE_MS: u64 = 100;
/// Longest pause between tries.
pub const RETRY_PAUSE_MS_MAX: u64 = 5_000;
/// One request with a small answer.
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// One request that moves up to a part's worth of bytes.
pub const TRANSFER_TIMEOUT_MS: u64 = 300_000;
/// How long a store's worker is waited for before the second one is refused.
pub const WORKER_WAIT_MS: u64 = 30_000;
/// Records younger than this are not pruned unless the user asks for it by name: a writer that was silent for less never finds
/// a name free that was taken (rule P5).
pub const PRUNE_GRACE_MS: u64 = 24 * 3600 * 1000;
/// How long a pin of a running restore or a lazy reader lasts without being renewed.
pub const PIN_LIFE_MS: u64 = 24 * 3600 * 1000;

const _: () = assert!(CHUNK_BYTES.is_multiple_of(65536) && CHUNK_BYTES / 512 <= u32::MAX as u64);
const _: () = assert!(DELTA_BYTES_MAX < CHUNK_BYTES / 2);
// A chunk that does not compress at all still goes up in one verified PUT.
const _: () = assert!(SINGLE_PUT_MAX >= CHUNK_BYTES + CHUNK_BYTES / 8);
const _: () = assert!(RECORD_INLINE_MAX < RECORD_BODY_MAX);
const _: () = assert!(SEGMENTS_MAX < INDEX_EVERY && (SEGMENTS_MAX as usize) < DELTAS_PER_CHUNK_MAX / 2);
const _: () = assert!(INDEX_EVERY.is_power_of_two() && SNAPSHOT_RECORDS.is_multiple_of(INDEX_EVERY));
const _: () = assert!(RETRY_PAUSE_MS < RETRY_PAUSE_MS_MAX && RETRY_PAUSE_MS_MAX < REQUEST_TIMEOUT_MS);
