//! Manifest snapshots: the shard directory and the skeleton, as of one record.

use crate::nouns::Ascending;
use crate::object::{self, Kind};
use crate::wire::{In, Out, Spell};
use crate::{FormatError, body, interior, shard};
use littoral_types::limits::{SHARD_CHUNKS, SKELETON_BYTES_MAX};
use littoral_types::{
    BlobRef, ChunkId, ChunkRow, Compression, Epoch, Incarnation, Lsn, Owner, RecordHash, SchemaSummary, Seq, ShardRef,
    Skeleton, SkeletonPage, Snapshot, VolumeFigures, VolumeMeta,
};

/// A directory of 64 million chunks (4 PiB) and the largest skeleton stay below.
const RAW_MAX: usize = 256 << 20;

pub(crate) const KIND: Kind =
    Kind { what: "manifest snapshot", magic: b"LSNP", version: 2, compression: Compression::Zstd, raw_max: RAW_MAX };

/// Spells a manifest snapshot.
pub fn encode(snapshot: &Snapshot) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(KIND.what, 4096);
    put(snapshot, &mut out);
    object::wrap(&KIND, out)
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
    out.count("shards", snapshot.shards.len());
    if snapshot.shards.windows(2).any(|pair| pair[0].shard >= pair[1].shard) {
        out.refuse("shards that do not ascend");
    }
    snapshot.shards.iter().for_each(|shard| put_shard(shard, out));
    if !rows_are_listed(&snapshot.rows, &snapshot.shards) {
        out.refuse("rows that are not those of the shards");
    }
    out.count("rows that travel along", snapshot.rows.len());
    snapshot.rows.iter().for_each(|row| row.put(out));
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
}

/// Before version 2 no rows travelled along, rows had no checks, and pages were not turned.
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
    let shards = input.list(37, RAW_MAX, |input| get_shard(input, version))?;
    if shards.windows(2).any(|pair| pair[0].shard >= pair[1].shard) {
        return Err(input.invalid("shards that do not ascend"));
    }
    let rows = if version < 2 { Vec::new() } else { input.list(3, SHARD_CHUNKS as usize, ChunkRow::get)? };
    if !rows_are_listed(&rows, &shards) {
        return Err(input.invalid("rows that are not those of the shards"));
    }
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
    })
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
