//! A right to work on chunks of a volume.

use crate::FormatError;
use crate::wire::{In, Out, Spell};
use littoral_types::{ChunkId, ChunkRuns, Generation, Lease, LeaseToken, LeaseWish, VolumeId, Work};

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "lease row";
/// More runs than a volume of the most chunks that a checkpoint plans has.
const RUNS_MAX: usize = 1 << 20;

/// Spells it.
pub fn encode(lease: &Lease) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, VERSION, lease)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<Lease, FormatError> {
    super::decode(WHAT, VERSION, bytes)
}

impl Spell for Lease {
    fn put(&self, out: &mut Out) {
        let LeaseWish { volume, work, chunks, generation, process, mark, taken_ms, until_boot_ms } = &self.wish;
        out.varint("lease", self.token.0);
        out.raw("volume", &volume.0);
        let work = match work {
            Work::Checkpoint => 1,
            Work::Coalesce => 2,
            Work::Repack => 3,
            Work::Prune => 4,
            Work::Truncate => 5,
            Work::Read => 6,
        };
        out.u8("work (1 checkpoint, 2 coalesce, 3 repack, 4 prune, 5 truncate, 6 read)", work);
        out.optional("is of certain chunks", chunks.as_ref(), |out, chunks| {
            out.limit(chunks.runs().len(), RUNS_MAX);
            out.count("runs of chunks", chunks.runs().len());
            for (first, last) in chunks.runs() {
                out.varint("run: first chunk", first.0);
                out.varint("run: chunks after it", last.0 - first.0);
            }
        });
        out.varint("generation", generation.0);
        out.varint("process", u64::from(*process));
        out.text("mark", mark);
        out.varint("taken, ms", *taken_ms);
        out.varint("until, ms since the machine was booted", *until_boot_ms);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let token = LeaseToken(input.varint()?);
        let volume = VolumeId(input.array()?);
        let work = match input.u8()? {
            1 => Work::Checkpoint,
            2 => Work::Coalesce,
            3 => Work::Repack,
            4 => Work::Prune,
            5 => Work::Truncate,
            6 => Work::Read,
            other => return Err(input.invalid(format!("work {other}"))),
        };
        let run = |input: &mut In<'_>| {
            let first = input.varint()?;
            let last = first.checked_add(input.varint()?);
            Ok((ChunkId(first), ChunkId(last.ok_or_else(|| input.invalid("chunks beyond 64 bits".to_owned()))?)))
        };
        let chunks = input.optional(|input| {
            let runs = input.list(2, RUNS_MAX, run)?;
            ChunkRuns::new(runs).ok_or_else(|| input.invalid("runs of chunks that do not ascend".to_owned()))
        })?;
        let generation = Generation(input.varint()?);
        let process = input.varint()?;
        let process = u32::try_from(process).map_err(|_| input.invalid(format!("process {process}")))?;
        let mark = input.text()?.to_owned();
        let (taken_ms, until_boot_ms) = (input.varint()?, input.varint()?);
        let wish = LeaseWish { volume, work, chunks, generation, process, mark, taken_ms, until_boot_ms };
        Ok(Self { token, wish })
    }
}
