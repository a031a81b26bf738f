//! Manifest snapshots: the shard directory and the skeleton, as of one record.

use crate::nouns::Ascending;
use crate::object::{self, Kind};
use crate::wire::{In, Out, Spell};
use crate::{FormatError, body, shard};
use littoral_types::limits::{SHARD_CHUNKS, SKELETON_BYTES_MAX};
use littoral_types::{
    BlobRef, ChunkId, Compression, Epoch, Incarnation, Lsn, Owner, RecordHash, SchemaSummary, Seq, ShardRef, Skeleton,
    SkeletonPage, Snapshot, VolumeFigures, VolumeMeta,
};

/// A directory of 64 million chunks (4 PiB) and the largest skeleton stay below.
const RAW_MAX: usize = 256 << 20;

pub(crate) const KIND: Kind =
    Kind { what: "manifest snapshot", magic: b"LSNP", version: 1, compression: Compression::Zstd, raw_max: RAW_MAX };

/// Spells a manifest snapshot.
pub fn encode(snapshot: &Snapshot) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(KIND.what, 4096);
    snapshot.put(&mut out);
    object::wrap(&KIND, out)
}

/// Reads a manifest snapshot.
pub fn decode(bytes: &[u8]) -> Result<Snapshot, FormatError> {
    let raw = object::unwrap(&KIND, bytes)?;
    decode_raw(&raw)
}

pub(crate) fn decode_raw(raw: &[u8]) -> Result<Snapshot, FormatError> {
    let mut input = In::new(KIND.what, raw);
    let snapshot = Snapshot::get(&mut input)?;
    input.end()?;
    Ok(snapshot)
}

impl Spell for Snapshot {
    fn put(&self, out: &mut Out) {
        self.volume.put(out);
        out.varint("seq", self.seq.0);
        out.raw("record: hash", &self.record.0);
        out.varint("record: epoch", self.epoch.0);
        out.raw("record: incarnation", &self.incarnation.0);
        out.varint("last LSN", self.lsn.0);
        out.varint("record: time, ms", self.time_ms);
        self.figures.put(out);
        body::put_schema(out, self.schema.as_ref());
        body::put_owner(out, self.owner.as_ref());
        out.varint("newest prune's floor", self.floor.0);
        out.count("shards", self.shards.len());
        if self.shards.windows(2).any(|pair| pair[0].shard >= pair[1].shard) {
            out.refuse("shards that do not ascend");
        }
        self.shards.iter().for_each(|shard| shard.put(out));
        out.count("skeleton: pages", self.skeleton.pages.len());
        let page_len = self.figures.page_size.map(|size| size.len());
        out.limit(self.skeleton.pages.len().saturating_mul(page_len.unwrap_or(0)), SKELETON_BYTES_MAX);
        let mut place = Ascending::default();
        for SkeletonPage { page, image } in &self.skeleton.pages {
            place.put(out, *page);
            if page_len != Some(image.len()) {
                out.refuse("a page of the skeleton that is not a page long");
            }
            out.raw("page: bytes", image);
        }
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
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
        let shards = input.list(37, RAW_MAX, ShardRef::get)?;
        if shards.windows(2).any(|pair| pair[0].shard >= pair[1].shard) {
            return Err(input.invalid("shards that do not ascend"));
        }
        let page_len = figures.page_size.map_or(0, |size| size.len());
        let most = SKELETON_BYTES_MAX.checked_div(page_len).unwrap_or(0);
        let mut place = Ascending::default();
        let pages = input.list(1 + page_len, most, |input| {
            Ok(SkeletonPage { page: place.get(input)?, image: input.take(page_len)?.to_vec() })
        })?;
        let skeleton = Skeleton { pages };
        Ok(Self {
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
            skeleton,
        })
    }
}

impl Spell for ShardRef {
    fn put(&self, out: &mut Out) {
        out.varint("shard", self.shard);
        self.blob.put(out);
        if !shard::rows_fit(self.shard, self.rows.iter().map(|(chunk, _)| *chunk)) {
            return out.refuse("rows that do not ascend or belong to another shard");
        }
        out.count("shard: rows", self.rows.len());
        let mut next = self.shard.saturating_mul(SHARD_CHUNKS);
        for (chunk, len) in &self.rows {
            out.varint("row: chunks left out before", chunk.0 - next);
            out.varint("row: bytes", u64::from(*len));
            next = chunk.0.saturating_add(1);
        }
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
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
        if shard::rows_fit(shard, rows.iter().map(|(chunk, _)| *chunk)) {
            Ok(Self { shard, blob, rows })
        } else {
            Err(beyond(input))
        }
    }
}
