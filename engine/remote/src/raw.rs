//! One attempt at one request: what a network store is made of. Patience, timeouts and verification are
//! [`Patient`](crate::patient::Patient)'s.

use crate::failure::Failure;
use async_trait::async_trait;
use bytes::Bytes;
use littoral_types::ByteSpan;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

/// Which bytes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// All.
    Whole,
    /// These; never none.
    Span(ByteSpan),
    /// So many at the end; never none.
    Suffix(u64),
}

/// An answer with bytes.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// Those asked for.
    pub(crate) bytes: Bytes,
    /// The whole object's size.
    pub(crate) whole: u64,
}

/// An answer without.
#[derive(Clone, Debug)]
pub(crate) struct Headed {
    /// The object's size.
    pub(crate) len: u64,
    /// The CRC64-NVME of the whole object, in base 64, where the store says one.
    pub(crate) crc64: Option<String>,
}

/// One object of a listing.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Its whole key.
    pub(crate) key: String,
    /// Its size.
    pub(crate) len: u64,
    /// When it was written.
    pub(crate) modified_ms: u64,
}

/// One answer to a listing.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Objects, in the store's order.
    pub(crate) objects: Vec<Listed>,
    /// Where the listing goes on; `None` at its end.
    pub(crate) next: Option<String>,
}

/// A flat store over a network: every call is one request, tried once.
#[async_trait]
pub(crate) trait RawRemote: Send + Sync + fmt::Debug {
    async fn get(&self, key: &str, run: Run) -> Result<Fetched, Failure>;

    async fn head(&self, key: &str) -> Result<Headed, Failure>;

    /// Writes bytes with their CRC64-NVME for the store to verify; if `new`, only where nothing is.
    async fn put(&self, key: &str, bytes: Bytes, crc64: u64, new: bool) -> Result<(), Failure>;

    /// Up to `max` (at most 1,000) objects, from `after` on, or where `next` of the answer before says.
    async fn list(&self, prefix: &str, after: Option<&str>, next: Option<&str>, max: usize) -> Result<Page, Failure>;

    async fn delete(&self, key: &str) -> Result<(), Failure>;

    /// Begins a multipart upload; its name.
    async fn begin_parts(&self, key: &str) -> Result<String, Failure>;

    /// Sends part `number`, counted from zero; what [`RawRemote::complete_parts`] wants to know of it.
    async fn put_part(
        &self,
        key: &str,
        upload: &str,
        number: usize,
        bytes: Bytes,
        crc64: u64,
    ) -> Result<String, Failure>;

    async fn complete_parts(&self, key: &str, upload: &str, parts: &[String]) -> Result<(), Failure>;

    async fn abort_parts(&self, key: &str, upload: &str) -> Result<(), Failure>;

    /// Takes secrets out of a text that others wrote.
    fn scrub(&self, text: String) -> String;

    /// Where its keys come from, and how it gets others: for whoever has to change them.
    fn whose_keys(&self) -> String;
}

/// What went over the wire in one attempt. Libraries turn answers into errors of their own and lose what decides: so the
/// transport writes it down here, on the way past.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// A request was made ready.
    pub(crate) started: bool,
    /// Nothing left this machine: no name, no route, no connection.
    pub(crate) not_sent: Option<String>,
    /// The connection broke after that.
    pub(crate) broken: Option<String>,
    /// The answer's status.
    pub(crate) status: Option<u16>,
    /// The error document's code.
    pub(crate) code: Option<String>,
    /// The error document's message.
    pub(crate) message: Option<String>,
    /// When the store wants to be asked again, in its own words.
    pub(crate) retry_after: Option<String>,
    /// The region that the store says the bucket is in.
    pub(crate) region: Option<String>,
    /// The whole object's CRC64-NVME, in base 64.
    pub(crate) crc64: Option<String>,
    /// No link of the credential chain gave keys.
    pub(crate) no_credentials: Option<String>,
}

type Notes = Arc<Mutex<Seen>>;

tokio::task_local! {
    static NOTES: Notes;
}

/// Runs one attempt and tells what went over the wire meanwhile.
pub(crate) async fn witnessed<T>(attempt: impl Future<Output = T>) -> (T, Seen) {
    let notes = Notes::default();
    let done = NOTES.scope(Arc::clone(&notes), attempt).await;
    let seen = notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (done, seen)
}

/// Writes something down. Outside an attempt nobody reads it.
pub(crate) fn note(write: impl FnOnce(&mut Seen)) {
    // Failing means that no attempt is under way in this task.
    let _ = NOTES.try_with(|notes| write(&mut notes.lock().unwrap_or_else(PoisonError::into_inner)));
}

/// The credential chain's own note.
pub(crate) fn note_no_credentials(why: &str) {
    note(|seen| seen.no_credentials = Some(why.to_owned()));
}

/// The CRC64-NVME as S3 writes it: big-endian, in base 64.
pub(crate) fn crc64_base64(crc64: u64) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Eight bytes and a zero make three groups of three; the last digit of the last group is padding.
    let mut padded = [0u8; 9];
    padded[..8].copy_from_slice(&crc64.to_be_bytes());
    let mut text = String::with_capacity(12);
    for group in padded.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        for place in (0..4).rev() {
            text.push(char::from(DIGITS[(bits >> (6 * place) & 63) as usize]));
        }
    }
    text.replace_range(11.., "=");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_written_as_s3_writes_them() {
        assert_eq!(crc64_base64(0), "AAAAAAAAAAA=");
        assert_eq!(crc64_base64(u64::MAX), "//////////8=");
        // CRC64-NVME of "123456789", the catalogue's check value.
        let mut digest = crc64fast_nvme::Digest::new();
        digest.write(b"123456789");
        assert_eq!(digest.sum64(), 0xae8b_1486_0a79_9888);
        assert_eq!(crc64_base64(0xae8b_1486_0a79_9888), "rosUhgp5mIg=");
    }
}
