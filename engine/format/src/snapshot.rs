//! Manifest snapshots: the shard directory and the skeleton, as of one record.

use crate::nouns::Ascending;
use crate::object::{self, Kind};
use crate::wire::{In, Out, Spell};
use crate::{FormatError, body, interior, shard};
use littoral_types::limits::{OBJECTS_MAX, SESSIONS_MAX, SHARD_CHUNKS, SKELETON_BYTES_MAX};
use littoral_types::{
    BlobRef, ChunkId, ChunkRow, Compression, Epoch, Incarnation, Lsn, ObjectMark, Owner, RecordHash, SchemaSummary,
    Seq, SessionMark, ShardRef, Skeleton, SkeletonPage, Snapshot, VolumeFigures, VolumeMeta,
};

/// A directory of 64 million chunks (4 PiB) and the largest skeleton stay below.
const RAW_MAX: usize = 256 << 20;

pub(crate) const KIND: Kind =
    Kind { what: "manifest snapshot", magic: b"LSNP", version: 4, compression: Compression::Zstd, raw_max: RAW_MAX };

/// The version that says what there is to say where no session is named.
const WITHOUT_SESSIONS: u16 = 2;
/// The version that says what there is to say where nothing is known of tables and indexes.
const WITHOUT_OBJECTS: u16 = 3;
/// Bytes that a session takes at least.
const SESSION_LEN_MIN: usize = 5;
/// Bytes that an object takes at least.
const OBJECT_LEN_MIN: usize = 2;

/// Spells a manifest snapshot.
pub fn encode(snapshot: &Snapshot) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(KIND.what, 4096);
    put(snapshot, &mut out);
    let version = match (snapshot.sessions.is_empty(), snapshot.objects.is_empty()) {
        (true, true) => WITHOUT_SESSIONS,
        (false, true) => WITHOUT_OBJECTS,
        (_, false) => KIND.version,
    };
    object::wrap_as(&KIND, version, out)
}

/// Reads a manifest snapshot.
pub fn decode(bytes: &[u8]) -> Result<Snapshot, FormatError> {
    let (version, raw) = object::unwrap_any(&KIND, bytes)?;
    decode_raw(version, &raw)
}

pub(crate) fn decode_raw(version: u16, raw: &[u8]) -> Result<Snapshot, FormatError> {
    let mut input = In::new(KIND.what, raw);
    let snapshot = get(&mut input, version)?;
    input.end()?;
    Ok(snapshot)
}

fn put(snapshot: &Snapshot, out: &mut Out) {
    snapshot.volume.put(out);
    out.varint("seq", snapshot.seq.0);
    out.raw("record: hash", &snapshot.record.0);
    out.varint("record: epoch", snapshot.epoch.0);
    out.raw("record: incarnation", &snapshot.incarnation.0);
    out.varint("last LSN", snapshot.lsn.0);
    out.varint("record: time, ms", snapshot.time_ms);
    snapshot.figures.put(out);
    body::put_schema(out, snapshot.schema.as_ref());
    body::put_owner(out, snapshot.owner.as_ref());
    out.varint("newest prune's floor", snapshot.floor.0);
    put_rows(out, &snapshot.shards, &snapshot.rows);
    out.count("skeleton: pages", snapshot.skeleton.pages.len());
    let page_len = snapshot.figures.page_size.map(|size| size.len());
    out.limit(snapshot.skeleton.pages.len().saturating_mul(page_len.unwrap_or(0)), SKELETON_BYTES_MAX);
    let mut place = Ascending::default();
    for SkeletonPage { page, image } in &snapshot.skeleton.pages {
        place.put(out, *page);
        if page_len != Some(image.len()) {
            out.refuse("a page of the skeleton that is not a page long");
        }
        let mut image = image.clone();
        interior::turn(&mut image);
        out.raw("page: bytes, turned", &image);
    }
    if snapshot.sessions.is_empty() && snapshot.objects.is_empty() {
        return;
    }
    if !sessions_are_in_order(&snapshot.sessions) {
        out.refuse("sessions that do not ascend, or that are gone");
    }
    out.limit(snapshot.sessions.len(), SESSIONS_MAX);
    out.count("sessions", snapshot.sessions.len());
    snapshot.sessions.iter().for_each(|mark| mark.put(out));
    if snapshot.objects.is_empty() {
        return;
    }
    if !objects_are_in_order(&snapshot.objects) {
        out.refuse("objects that do not ascend, or that are gone");
    }
    out.limit(snapshot.objects.len(), OBJECTS_MAX);
    out.count("objects", snapshot.objects.len());
    snapshot.objects.iter().for_each(|mark| mark.put(out));
}

fn objects_are_in_order(objects: &[ObjectMark]) -> bool {
    objects.is_sorted_by(|one, other| one.id < other.id) && objects.iter().all(|mark| mark.object.is_some())
}

fn sessions_are_in_order(sessions: &[SessionMark]) -> bool {
    sessions.is_sorted_by(|one, other| one.session < other.session)
        && sessions.iter().all(|mark| mark.step.serial().is_some())
}

/// Before version 2 no rows travelled along, rows had no checks, and pages were not turned; before version 3 there were no sessions,
/// before version 4 no objects.
fn get(input: &mut In<'_>, version: u16) -> Result<Snapshot, FormatError> {
    let volume = VolumeMeta::get(input)?;
    let seq = Seq(input.varint()?);
    let record = RecordHash(input.array()?);
    let epoch = Epoch(input.varint()?);
    let incarnation = Incarnation(input.array()?);
    let lsn = Lsn(input.varint()?);
    let time_ms = input.varint()?;
    let figures = VolumeFigures::get(input)?;
    let schema = input.optional(SchemaSummary::get)?;
    let owner = input.optional(Owner::get)?;
    let floor = Seq(input.varint()?);
    let (shards, rows) = get_rows(input, version)?;
    let page_len = figures.page_size.map_or(0, |size| size.len());
    let most = SKELETON_BYTES_MAX.checked_div(page_len).unwrap_or(0);
    let mut place = Ascending::default();
    let pages = input.list(1 + page_len, most, |input| {
        let page = place.get(input)?;
        let mut image = input.take(page_len)?.to_vec();
        if version >= 2 {
            interior::turn_back(&mut image);
        }
        Ok(SkeletonPage { page, image })
    })?;
    let skeleton = Skeleton { pages };
    let mut sessions = Vec::new();
    if version > WITHOUT_SESSIONS {
        sessions = input.list(SESSION_LEN_MIN, SESSIONS_MAX, SessionMark::get)?;
        // None are said by an earlier version.
        if sessions.is_empty() && version == WITHOUT_OBJECTS || !sessions_are_in_order(&sessions) {
            return Err(input.invalid("no sessions, or sessions that do not ascend, or that are gone"));
        }
    }
    let mut objects = Vec::new();
    if version > WITHOUT_OBJECTS {
        objects = input.list(OBJECT_LEN_MIN, OBJECTS_MAX, ObjectMark::get)?;
        if objects.is_empty() || !objects_are_in_order(&objects) {
            return Err(input.invalid("no objects, or objects that do not ascend, or that are gone"));
        }
    }
    Ok(Snapshot {
        volume,
        seq,
        record,
        epoch,
        incarnation,
        lsn,
        time_ms,
        figures,
        schema,
        owner,
        floor,
        shards,
        rows,
        skeleton,
        sessions,
        objects,
    })
}

/// Where rows are, and the rows themselves where they travel along.
pub(crate) fn put_rows(out: &mut Out, shards: &[ShardRef], rows: &[ChunkRow]) {
    out.count("shards", shards.len());
    if shards.windows(2).any(|pair| pair[0].shard >= pair[1].shard) {
        out.refuse("shards that do not ascend");
    }
    shards.iter().for_each(|shard| put_shard(shard, out));
    if !rows_are_listed(rows, shards) {
        out.refuse("rows that are not those of the shards");
    }
    out.count("rows that travel along", rows.len());
    rows.iter().for_each(|row| row.put(out));
}

/// What [`put_rows`] spelled, in this version.
pub(crate) fn get_rows(input: &mut In<'_>, version: u16) -> Result<(Vec<ShardRef>, Vec<ChunkRow>), FormatError> {
    let shards = input.list(37, RAW_MAX, |input| get_shard(input, version))?;
    if shards.windows(2).any(|pair| pair[0].shard >= pair[1].shard) {
        return Err(input.invalid("shards that do not ascend"));
    }
    let rows = if version < 2 { Vec::new() } else { input.list(3, SHARD_CHUNKS as usize, ChunkRow::get)? };
    if !rows_are_listed(&rows, &shards) {
        return Err(input.invalid("rows that are not those of the shards"));
    }
    Ok((shards, rows))
}

/// All rows that the directory lists, or none.
fn rows_are_listed(rows: &[ChunkRow], shards: &[ShardRef]) -> bool {
    let listed = shards.iter().flat_map(|shard| shard.rows.iter().map(|(chunk, _)| *chunk));
    rows.is_empty() || (rows.len() <= SHARD_CHUNKS as usize && listed.eq(rows.iter().map(|row| row.chunk)))
}

fn put_shard(shard: &ShardRef, out: &mut Out) {
    out.varint("shard", shard.shard);
    shard.blob.put(out);
    if !shard::rows_fit(shard.shard, shard.rows.iter().map(|(chunk, _)| *chunk)) {
        return out.refuse("rows that do not ascend or belong to another shard");
    }
    out.count("shard: rows", shard.rows.len());
    let mut next = shard.shard.saturating_mul(SHARD_CHUNKS);
    for (chunk, len) in &shard.rows {
        out.varint("row: chunks left out before", chunk.0 - next);
        out.varint("row: bytes", u64::from(*len));
        next = chunk.0.saturating_add(1);
    }
    if !shard.checks.is_empty() && shard.checks.len() != shard.rows.len() {
        return out.refuse("not a check for every row");
    }
    out.u8("shard: has checks", u8::from(!shard.checks.is_empty()));
    shard.checks.iter().for_each(|check| out.u32("row: check", *check));
}

/// Before version 2 there were no checks.
fn get_shard(input: &mut In<'_>, version: u16) -> Result<ShardRef, FormatError> {
    let shard = input.varint()?;
    let blob = BlobRef::get(input)?;
    let beyond = |input: &In<'_>| input.invalid("a chunk outside its shard");
    let mut next = shard.checked_mul(SHARD_CHUNKS).ok_or_else(|| beyond(input))?;
    let rows = input.list(2, SHARD_CHUNKS as usize, |input| {
        let left_out = input.varint()?;
        let chunk = next.checked_add(left_out).filter(|chunk| chunk / SHARD_CHUNKS == shard);
        let chunk = chunk.ok_or_else(|| beyond(input))?;
        next = chunk.saturating_add(1);
        let len = u32::try_from(input.varint()?).map_err(|_| input.invalid("a row of more than 4 GiB"))?;
        Ok((ChunkId(chunk), len))
    })?;
    if !shard::rows_fit(shard, rows.iter().map(|(chunk, _)| *chunk)) {
        return Err(beyond(input));
    }
    let mut checks = Vec::new();
    if version >= 2 && input.flag()? {
        if rows.is_empty() {
            return Err(input.invalid("checks of no rows"));
        }
        for _ in &rows {
            checks.push(input.u32()?);
        }
    }
    Ok(ShardRef { shard, blob, rows, checks })
}
