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
/// The same for what travels while a checkpoint is made that takes long: it folds what came before it began.
pub const BESIDE_SEGMENTS_MAX: u64 = 1024;
/// Bytes of their frames.
pub const BESIDE_BYTES_MAX: u64 = 128 << 20;
/// While more waits than one batch, so many segments come first, and so many bytes of their frames: a checkpoint would bring all that waits
/// as one restore point.
pub const BACKLOG_SEGMENTS_MAX: u64 = 6 * SEGMENTS_MAX;
/// Bytes of their frames then.
pub const BACKLOG_BYTES_MAX: u64 = 4 * SEGMENT_BYTES_MAX;
/// A batch of what waited for long spans so much time at least.
pub const BACKLOG_POINT_MS: u64 = 10_000;
/// And at most this part of the time that its first commit waited.
pub const BACKLOG_PARTS: u64 = 32;
/// Patches that stand on one another before a page travels whole again.
pub const PATCHES_MAX: u32 = 8;
/// Pages that a shipper remembers as it shipped them, in memory.
pub const SHIPPED_BYTES_MAX: usize = 32 << 20;
/// A record's body, decoded. A first checkpoint of 16 TB stays below.
pub const RECORD_BODY_MAX: usize = 1 << 30;
/// One record in so many is an index (rule P8).
pub const INDEX_EVERY: u64 = 64;
/// Terms that are shown of a volume: the newest.
pub const TERMS_MAX: u64 = 64;
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
/// Bytes of frames that a cold scan of a database has at hand, in memory.
pub const COLD_BYTES_MAX: u64 = 64 << 20;
/// Bytes of pages that it fetches at once. Each may come with all of its frame.
pub const COLD_WINDOW_BYTES: u64 = 2 << 20;
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
/// Files of earlier states that nobody has open, which a store keeps for the next one who asks.
pub const PAST_FILES_MAX: usize = 8;
/// Bytes of the disk that those take together.
pub const PAST_BYTES_MAX: u64 = 256 << 20;
/// Length of a volume's or a snapshot's name.
pub const NAME_LEN_MAX: usize = 128;
/// Length of a session's name.
pub const SESSION_NAME_LEN_MAX: usize = 128;
/// Named sessions of one volume that are recorded: those whose rows come first.
pub const SESSIONS_MAX: usize = 4096;
/// Bytes of a table's or an index's name that a catalogue keeps.
pub const OBJECT_NAME_LEN_MAX: usize = 256;
/// Tables and indexes that a catalogue keeps apart: those that come first in the schema.
pub const OBJECTS_MAX: usize = 65_536;
/// Pages that one checkpoint keeps in mind to tell whose they are, in some hundred bytes each. Of a larger one nobody knows, until later
/// ones have looked.
pub const CATALOGUE_PAGES_MAX: usize = 1 << 20;
/// Pages whose owners are held in memory at once, and among which one checkpoint seeks those that are to be looked at; in four bytes each.
pub const CATALOGUE_OWNERS_MAX: usize = 1 << 20;
/// Pages that one checkpoint looks at beyond those that changed, while there are some of which nobody knows whose they are.
pub const CATALOGUE_READS_MAX: usize = 2048;
/// Pages that are looked at to find sessions: those of a schema of some ten thousand tables.
pub const SESSION_PAGES_MAX: usize = 8192;
/// Bytes of a schema's pages that are looked at to find objects: those of some ten thousand. What comes after them is not told apart.
pub const SCHEMA_BYTES_MAX: usize = 4 << 20;
/// How long a checkpoint waits for others to let it read a commit, or for its uploads to get on, before it is given up.
pub const CHECKPOINT_WAIT_MS: u64 = 30_000;
/// Text for people inside a record: labels.
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
/// A store that says when to come again is waited for so long, whatever it says.
pub const RETRY_AFTER_MS_MAX: u64 = 30_000;
/// One request with a small answer.
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// One request that moves up to a part's worth of bytes.
pub const TRANSFER_TIMEOUT_MS: u64 = 300_000;
/// One that moves more has more time: as long as it moves so many bytes a second, it is not given up.
pub const TRANSFER_BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// How long a store's worker is waited for before the second one is refused.
pub const WORKER_WAIT_MS: u64 = 30_000;
/// For so long commits wait for others before they travel together, where nobody says otherwise.
pub const SYNC_INTERVAL_MS: u64 = 1_000;
/// So much is copied of a WAL that starts over by who begins to write.
pub const SEAL_AT_ONCE_BYTES: u64 = 256 << 10;
/// So much by who asked for it to start over, or takes it away.
pub const SEAL_BYTES_MAX: u64 = 64 << 20;
/// Pages as they were before the WAL's, remembered so that they can be shipped as patches after it started over.
pub const OLDER_BYTES_MAX: usize = 12 << 20;
/// Copies of frames that wait to be shipped take no more, and no more than half of the quota.
pub const SEALED_BYTES_MAX: u64 = 256 << 20;
/// So long a commit waits for the object store, where it was asked to.
pub const DURABLE_WAIT_MS: u64 = 30_000;
/// So long the last close waits for what was committed to be published, where nobody says otherwise.
pub const CLOSE_WAIT_MS: u64 = 2_000;
/// Records younger than this are not pruned unless the user asks for it by name: a writer that was silent for less never finds
/// a name free that was taken (rule P5).
pub const PRUNE_GRACE_MS: u64 = 24 * 3600 * 1000;
/// A worker prunes a volume this often, where a retention is set.
pub const PRUNE_INTERVAL_MS: u64 = 6 * 3600 * 1000;
/// Bytes of a pack that are dead before what lives in it moves to a new one.
pub const REPACK_BYTES_MIN: u64 = 64 << 10;
/// Entries of the change log that are kept for the next prune, of all volumes of a store: a day and a half of one a second.
pub const PRUNE_CHANGES_MAX: u64 = 1 << 17;
/// How long a pin of a running restore or a lazy reader lasts without being renewed.
pub const PIN_LIFE_MS: u64 = 24 * 3600 * 1000;

/// Jobs of a store that wait or run: beyond it work is done without being kept as a job.
pub const JOBS_MAX: usize = 1024;
/// Jobs that are over and still shown: the newest.
pub const JOBS_OVER_MAX: usize = 128;
/// Blobs that are noted of one job.
pub const JOB_NOTES_MAX: usize = 1 << 20;
/// Failures in a row before a job is given up.
pub const JOB_FAILURES_MAX: u32 = 10;
/// How long a job rests after its first failure.
pub const JOB_PAUSE_MS: u64 = 1_000;
/// The longest rest.
pub const JOB_PAUSE_MS_MAX: u64 = 15 * 60_000;
/// What a job noted longer ago is not believed by whoever goes on with it.
pub const NOTES_MS_MAX: u64 = 86_400_000;
/// Work that is not the store's worker's own waits so long for the queue, and is done without it then.
pub const JOB_WAIT_MS: u64 = 2_000;

/// Deltas of checkpoints that a chunk may have before checkpoints are put off: more than merging ever leaves.
pub const DEBT_DEPTH_MAX: u64 = 12;
/// Bytes that wait to be merged before checkpoints are put off.
pub const DEBT_BYTES_MAX: u64 = 64 << 20;
/// So many times longer than usual they are put off at most.
pub const DEBT_STRETCH_MAX: u64 = 8;
/// A lease whose holder does not renew it for so long has run out. He does so at each of his steps, of which none takes longer than one
/// transfer may.
pub const LEASE_MS: u64 = 2 * TRANSFER_TIMEOUT_MS;
/// Work that meets a lease waits so long, and is refused then.
pub const LEASE_WAIT_MS: u64 = 30_000;
/// Leases of a store at once.
pub const LEASES_MAX: usize = 1024;
/// Leases that were taken away and are still shown: the newest.
pub const TAKEN_AWAY_MAX: u64 = 4096;

/// How often a follower looks for a newer record, where nobody says otherwise.
pub const POLL_MS: u64 = 1_000;
/// The shortest pause between two looks.
pub const POLL_MS_MIN: u64 = 20;
/// Looks that found nothing before the pause doubles.
pub const POLL_PATIENCE: u32 = 30;
/// So many times the pause at most.
pub const POLL_STRETCH_MAX: u64 = 8;
/// One look in so many lists the newest name, which tells a volume that is gone and a prune that overtook us from one that rests.
pub const POLL_LIST_EVERY: u32 = 32;
/// Records that a follower fetches one by one to catch up; what lies further ahead is opened anew.
pub const FOLLOW_RECORDS_MAX: u64 = 512;
/// Records that are held at once for it.
pub const FOLLOW_RECORDS_AT_ONCE: u64 = 32;
/// Newer versions of one page that a replica keeps on disk for those who read beside others who read older ones.
pub const OVERLAYS: usize = 4;
/// Bytes of immutable objects that a follower keeps on disk for the other processes of its replica.
pub const SHELF_BYTES_MAX: u64 = 64 << 20;
/// Bytes of ranges that a follower keeps in memory.
pub const SHELF_RANGES_MAX: usize = 16 << 20;
/// The largest of them.
pub const SHELF_RANGE_MAX: u64 = 256 << 10;
/// Pages that a replica has room for at least, so that a database that grows does not begin anew.
pub const REPLICA_PAGES_MIN: u64 = 1 << 16;
/// Of those who have what somebody else is refused so many are told.
pub const HOLDERS_TOLD_MAX: usize = 5;
/// A blob is never planned to be smaller than this for want of local room.
pub const ROOM_BYTES_MIN: u64 = 256 << 10;
/// Bytes of a replica's pages that are dropped together.
pub const EVICT_BYTES: u64 = 64 << 10;

/// Bytes that wait in a store for other object stores; more is read from the primary again.
pub const SPOOL_BYTES_MAX: u64 = 256 << 20;
/// Files of them.
pub const SPOOL_FILES_MAX: usize = 4096;
/// What nobody came for goes from there after so long.
pub const SPOOL_MS_MAX: u64 = 86_400_000;
/// It is looked for such this often.
pub const SPOOL_SWEEP_MS: u64 = 3_600_000;
/// Where a copy is read instead of the primary, that is asked again after so long; and so is a copy that could not be read.
pub const SIDES_MS_MAX: u64 = 30_000;
/// Other object stores that a volume is copied to.
pub const COPIES_MAX: usize = 8;
/// Blobs of one record that travel to a copy at once: each may be a chunk's worth of bytes on disk.
pub const COPIES_IN_FLIGHT: usize = 4;
/// Prunes that wait at a copy are looked at this often at most.
pub const COPY_PRUNE_MS_MAX: u64 = 3_600_000;
/// Prunes that a copy is behind with, by their records; those before are found by looking at it.
pub const COPY_PRUNES_MAX: usize = 1024;
/// Bytes of a log's segment file, sealed or not: a base chunk as it is.
pub const LOG_SEGMENT_BYTES: u64 = CHUNK_BYTES;
/// Bytes of a log's segment before its first entry.
pub const LOG_HEAD_BYTES: u64 = 4096;
/// Bytes of a segment that are kept free for its index.
pub const LOG_INDEX_BYTES_MAX: u64 = 1 << 20;
/// Entries that begin within so many bytes of a segment are one block of its index.
pub const LOG_BLOCK_BYTES: u64 = 64 << 10;
/// Bytes of one record.
pub const LOG_RECORD_MAX: usize = 16 << 20;
/// Bytes of records that a transaction, or who reads lines, appends with one write.
pub const LOG_PART_BYTES: usize = 256 << 10;
/// Named sessions of one log.
pub const LOG_SESSIONS_MAX: usize = SESSIONS_MAX;
/// Columns of a log's table: what SQLite takes of an ordinary one, hidden ones included.
pub const LOG_COLUMNS_MAX: usize = 1_990;
/// Bytes of a text or a blob that a zone keeps.
pub const LOG_ZONE_BYTES: usize = 32;
/// Bytes of the rows that a transaction adds to a log's table.
pub const LOG_TRANSACTION_BYTES_MAX: usize = 256 << 20;
/// Appenders of one log that are open at once.
pub const LOG_APPENDERS_MAX: usize = 256;
/// Segments that are full and not sealed yet; whoever fills one more waits for the oldest.
pub const LOG_UNSEALED_MAX: usize = 2;
/// For so long records wait for others before they are synced together, where nobody says otherwise.
pub const LOG_SYNC_MS: u64 = 20;
/// Runs of records of one segment that are no rows of its table.
pub const LOG_VOIDS_MAX: usize = 1 << 16;
/// Pieces that a segment of a log is made of in the object store, at most.
pub const LOG_PIECES_MAX: usize = 256;
/// By how much pieces of one tier may differ, and so many of one tier become one.
pub const LOG_PIECES_RATIO: u64 = 4;

// A full segment's blocks (up to six bytes of offset and first LSN, two times of up to ten each) and all sessions, with room to spare.
const _: () = assert!(
    LOG_INDEX_BYTES_MAX as usize
        > (LOG_SEGMENT_BYTES / LOG_BLOCK_BYTES) as usize * 40 + LOG_SESSIONS_MAX * (SESSION_NAME_LEN_MAX + 20) + 256
);
// Appenders that find a segment full have asked for room behind its end: even all of them at once, with the largest record each, and once more
// to name themselves, count in 32 bits of eight bytes each.
const _: () =
    assert!(LOG_SEGMENT_BYTES + LOG_APPENDERS_MAX as u64 * 2 * (LOG_RECORD_MAX as u64 + 64) < (u32::MAX as u64) * 8);
const _: () = assert!((LOG_RECORD_MAX as u64) < LOG_SEGMENT_BYTES - LOG_HEAD_BYTES - LOG_INDEX_BYTES_MAX - 4096);

const _: () = assert!(COLD_WINDOW_BYTES * FRAME_PAGES_MAX as u64 <= COLD_BYTES_MAX / 2);
const _: () = assert!(JOB_PAUSE_MS < JOB_PAUSE_MS_MAX && JOB_FAILURES_MAX < 32 && JOB_WAIT_MS < WORKER_WAIT_MS);
const _: () = assert!(JOBS_OVER_MAX < JOBS_MAX);
const _: () = assert!(TRANSFER_TIMEOUT_MS < LEASE_MS && LEASE_WAIT_MS < LEASE_MS);
const _: () = assert!(POLL_MS_MIN <= POLL_MS && POLL_STRETCH_MAX.is_power_of_two());
const _: () = assert!(SHELF_RANGE_MAX < SHELF_RANGES_MAX as u64 && OVERLAYS > 1);
const _: () = assert!(CHUNK_BYTES.is_multiple_of(65536) && CHUNK_BYTES / 512 <= u32::MAX as u64);
const _: () = assert!(DELTA_BYTES_MAX < CHUNK_BYTES / 2);
// A chunk that does not compress at all still goes up in one verified PUT.
const _: () = assert!(SINGLE_PUT_MAX >= CHUNK_BYTES + CHUNK_BYTES / 8);
const _: () = assert!(RECORD_INLINE_MAX < RECORD_BODY_MAX);
const _: () = assert!(SEGMENTS_MAX < BESIDE_SEGMENTS_MAX && (BESIDE_SEGMENTS_MAX as usize) < DELTAS_PER_CHUNK_MAX / 2);
const _: () = assert!(SEGMENT_BYTES_MAX < BESIDE_BYTES_MAX);
const _: () = assert!(SEGMENTS_MAX * DEBT_STRETCH_MAX < BESIDE_SEGMENTS_MAX);
const _: () = assert!(SEGMENT_BYTES_MAX * DEBT_STRETCH_MAX < BESIDE_BYTES_MAX);
const _: () = assert!(SEGMENTS_MAX < INDEX_EVERY && (SEGMENTS_MAX as usize) < DELTAS_PER_CHUNK_MAX / 2);
const _: () = assert!((BACKLOG_SEGMENTS_MAX as usize) < DELTAS_PER_CHUNK_MAX / 2);
const _: () = assert!(INDEX_EVERY.is_power_of_two() && SNAPSHOT_RECORDS.is_multiple_of(INDEX_EVERY));
const _: () = assert!(RETRY_PAUSE_MS < RETRY_PAUSE_MS_MAX && RETRY_PAUSE_MS_MAX < REQUEST_TIMEOUT_MS);

/// Where nobody says otherwise, what was shipped is folded into a checkpoint after so many seconds, however little it is.
pub const CHECKPOINT_INTERVAL_S: u64 = 900;
