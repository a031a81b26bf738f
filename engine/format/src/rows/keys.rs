//! Keys of the tables, each printed and parsed as a pair. Numbers are big-endian: LMDB's order, and RocksDB's, is theirs.

use crate::FormatError;
use littoral_types::{ChangeSeq, ChunkId, DeltaId, JobId, LeaseToken, PageNo, Seq, SessionName, VolumeId};

const WHAT: &str = "key of a row";

/// A volume: 16 bytes. Alone for its row, and the first bytes of every key below it.
pub fn volume(volume: &VolumeId) -> [u8; 16] {
    volume.0
}

/// Reads [`volume()`].
pub fn parse_volume(key: &[u8]) -> Result<VolumeId, FormatError> {
    fixed::<16>(key).map(VolumeId)
}

/// A chunk of a volume: 24 bytes.
pub fn chunk(volume: &VolumeId, chunk: ChunkId) -> [u8; 24] {
    numbered(volume, chunk.0)
}

/// Reads [`chunk`].
pub fn parse_chunk(key: &[u8]) -> Result<(VolumeId, ChunkId), FormatError> {
    parse_numbered(key).map(|(volume, chunk)| (volume, ChunkId(chunk)))
}

/// A delta of a chunk of a volume: 32 bytes, a chunk's oldest first.
pub fn delta(volume: &VolumeId, chunk: ChunkId, delta: DeltaId) -> [u8; 32] {
    twice_numbered(volume, chunk.0, delta.0)
}

/// Reads [`delta`].
pub fn parse_delta(key: &[u8]) -> Result<(VolumeId, ChunkId, DeltaId), FormatError> {
    parse_twice_numbered(key).map(|(volume, chunk, delta)| (volume, ChunkId(chunk), DeltaId(delta)))
}

/// A page of a volume: 24 bytes.
pub fn page(volume: &VolumeId, page: PageNo) -> [u8; 24] {
    numbered(volume, page.get())
}

/// Reads [`page`].
pub fn parse_page(key: &[u8]) -> Result<(VolumeId, PageNo), FormatError> {
    let (volume, page) = parse_numbered(key)?;
    Ok((volume, PageNo::new(page).ok_or_else(|| invalid("page 0"))?))
}

/// A delta that holds a page: 32 bytes, a page's newest delta first, so that a seek to the page finds it.
pub fn page_delta(volume: &VolumeId, page: PageNo, delta: DeltaId) -> [u8; 32] {
    twice_numbered(volume, page.get(), u64::MAX - delta.0)
}

/// Reads [`page_delta`].
pub fn parse_page_delta(key: &[u8]) -> Result<(VolumeId, PageNo, DeltaId), FormatError> {
    let (volume, page, delta) = parse_twice_numbered(key)?;
    Ok((volume, PageNo::new(page).ok_or_else(|| invalid("page 0"))?, DeltaId(u64::MAX - delta)))
}

/// A version of a chunk (a delta, or `None` for the base) by the last page that is alive in it: 41 bytes, so that a cut
/// finds what reaches beyond it. `u64::MAX` for one that every cut must look at.
pub fn life_end(volume: &VolumeId, last_live: u64, chunk: ChunkId, version: Option<DeltaId>) -> [u8; 41] {
    let mut key = [0; 41];
    key[..32].copy_from_slice(&twice_numbered(volume, last_live, chunk.0));
    key[32] = u8::from(version.is_some());
    key[33..].copy_from_slice(&version.map_or(0, |delta| delta.0).to_be_bytes());
    key
}

/// Reads [`life_end`].
pub fn parse_life_end(key: &[u8]) -> Result<(VolumeId, u64, ChunkId, Option<DeltaId>), FormatError> {
    let key = fixed::<41>(key)?;
    let (front, version) = key.split_at(32);
    let (volume, last_live, chunk) = parse_twice_numbered(front)?;
    let delta = DeltaId(u64::from_be_bytes(fixed(&version[1..])?));
    let version = match (version[0], delta) {
        (0, DeltaId(0)) => None,
        (1, delta) => Some(delta),
        _ => return Err(invalid("neither a base nor a delta")),
    };
    Ok((volume, last_live, ChunkId(chunk), version))
}

/// A group of a volume's identities ([`super::identities::place`]): 24 bytes.
pub fn group(volume: &VolumeId, group: u64) -> [u8; 24] {
    numbered(volume, group)
}

/// Reads [`group`].
pub fn parse_group(key: &[u8]) -> Result<(VolumeId, u64), FormatError> {
    parse_numbered(key)
}

/// A staged blob of a volume's job: 48 bytes.
pub fn staged(volume: &VolumeId, input: &[u8; 32]) -> [u8; 48] {
    let mut key = [0; 48];
    key[..16].copy_from_slice(&volume.0);
    key[16..].copy_from_slice(input);
    key
}

/// Reads [`staged`].
pub fn parse_staged(key: &[u8]) -> Result<(VolumeId, [u8; 32]), FormatError> {
    let key = fixed::<48>(key)?;
    let (volume, input) = key.split_at(16);
    Ok((VolumeId(fixed(volume)?), fixed(input)?))
}

/// A named session of a volume: 16 bytes and its name.
pub fn session(volume: &VolumeId, session: &SessionName) -> Vec<u8> {
    [&volume.0, session.as_str().as_bytes()].concat()
}

/// Reads [`session`].
pub fn parse_session(key: &[u8]) -> Result<(VolumeId, SessionName), FormatError> {
    let (volume, name) = key.split_at_checked(16).ok_or_else(|| invalid("too short for a session"))?;
    let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
    Ok((VolumeId(fixed(volume)?), name.ok_or_else(|| invalid("not a session's name"))?))
}

/// An entry of the change log: 8 bytes.
pub fn change(change: ChangeSeq) -> [u8; 8] {
    change.0.to_be_bytes()
}

/// Reads [`change`].
pub fn parse_change(key: &[u8]) -> Result<ChangeSeq, FormatError> {
    fixed(key).map(|bytes| ChangeSeq(u64::from_be_bytes(bytes)))
}

/// An entry of the change log by its volume and the last record it brought: 32 bytes.
pub fn change_of(volume: &VolumeId, seq: Seq, change: ChangeSeq) -> [u8; 32] {
    twice_numbered(volume, seq.0, change.0)
}

/// Reads [`change_of`].
pub fn parse_change_of(key: &[u8]) -> Result<(VolumeId, Seq, ChangeSeq), FormatError> {
    parse_twice_numbered(key).map(|(volume, seq, change)| (volume, Seq(seq), ChangeSeq(change)))
}

/// A lease: 8 bytes.
pub fn lease(token: LeaseToken) -> [u8; 8] {
    token.0.to_be_bytes()
}

/// Reads [`lease`].
pub fn parse_lease(key: &[u8]) -> Result<LeaseToken, FormatError> {
    fixed(key).map(|bytes| LeaseToken(u64::from_be_bytes(bytes)))
}

/// A lease that was taken away, by its place among all that were: 8 bytes.
pub fn taken(nth: u64) -> [u8; 8] {
    nth.to_be_bytes()
}

/// Reads [`taken`].
pub fn parse_taken(key: &[u8]) -> Result<u64, FormatError> {
    fixed(key).map(u64::from_be_bytes)
}

/// A job: 8 bytes.
pub fn job(job: JobId) -> [u8; 8] {
    job.0.to_be_bytes()
}

/// Reads [`job`].
pub fn parse_job(key: &[u8]) -> Result<JobId, FormatError> {
    fixed(key).map(|bytes| JobId(u64::from_be_bytes(bytes)))
}

/// A job that is ready, by when it may be taken: 16 bytes, so that a seek to the beginning finds the next one.
pub fn ready(not_before_ms: u64, job: JobId) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&not_before_ms.to_be_bytes());
    key[8..].copy_from_slice(&job.0.to_be_bytes());
    key
}

/// Reads [`ready`].
pub fn parse_ready(key: &[u8]) -> Result<(u64, JobId), FormatError> {
    let key = fixed::<16>(key)?;
    let (ms, job) = key.split_at(8);
    Ok((u64::from_be_bytes(fixed(ms)?), parse_job(job)?))
}

/// A blob that a job is done with: the job, then the blob's name.
pub fn job_note(job: JobId, blob: &str) -> Vec<u8> {
    [&job.0.to_be_bytes(), blob.as_bytes()].concat()
}

/// A token of a job that is not over: its hash, so that every token fits: 32 bytes.
pub fn token(token: &str) -> [u8; 32] {
    crate::hash::blob(token.as_bytes()).0
}

fn invalid(detail: &str) -> FormatError {
    FormatError::Invalid { what: WHAT, detail: detail.to_owned() }
}

fn fixed<const N: usize>(key: &[u8]) -> Result<[u8; N], FormatError> {
    key.try_into().map_err(|_| invalid(&format!("{} bytes instead of {N}", key.len())))
}

fn numbered(volume: &VolumeId, number: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&volume.0);
    key[16..].copy_from_slice(&number.to_be_bytes());
    key
}

fn parse_numbered(key: &[u8]) -> Result<(VolumeId, u64), FormatError> {
    let key = fixed::<24>(key)?;
    let (volume, number) = key.split_at(16);
    Ok((VolumeId(fixed(volume)?), u64::from_be_bytes(fixed(number)?)))
}

fn twice_numbered(volume: &VolumeId, first: u64, second: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..24].copy_from_slice(&numbered(volume, first));
    key[24..].copy_from_slice(&second.to_be_bytes());
    key
}

fn parse_twice_numbered(key: &[u8]) -> Result<(VolumeId, u64, u64), FormatError> {
    let key = fixed::<32>(key)?;
    let (front, second) = key.split_at(24);
    let (volume, first) = parse_numbered(front)?;
    Ok((volume, first, u64::from_be_bytes(fixed(second)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sessions_key_reads_back_and_others_do_not() {
        let (volume, name) = (VolumeId([7; 16]), "worker-7".parse::<SessionName>().unwrap());
        let key = session(&volume, &name);
        assert_eq!(parse_session(&key), Ok((volume, name)));
        assert!(parse_session(&key[..16]).is_err() && parse_session(&key[..3]).is_err());
    }

    #[test]
    fn ends_of_life_sort_by_page_and_read_back() {
        let volume = VolumeId([7; 16]);
        let ends = [
            (5, ChunkId(9), Some(DeltaId(u64::MAX))),
            (6, ChunkId(1), None),
            (6, ChunkId(1), Some(DeltaId(0))),
            (u64::from(u32::MAX) + 1, ChunkId(0), Some(DeltaId(3))),
            (u64::MAX, ChunkId(u64::MAX), Some(DeltaId(u64::MAX))),
        ];
        let keys = ends.map(|(page, chunk, version)| life_end(&volume, page, chunk, version));
        assert!(keys.is_sorted());
        for (key, (page, chunk, version)) in keys.iter().zip(ends) {
            assert_eq!(parse_life_end(key), Ok((volume, page, chunk, version)));
        }
        let mut neither = keys[0];
        neither[32] = 2;
        assert!(parse_life_end(&neither).is_err() && parse_life_end(&keys[0][..40]).is_err());
    }
}
