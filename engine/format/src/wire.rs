//! The two cursors that everything is written and read with: little-endian integers, canonical LEB128, bytes behind a length.
//!
//! [`Out`] never fails in the middle: a value that no reader would accept is remembered and reported by [`Out::finish`].
//! [`In`] never reads beyond its end and never allocates for a count that its bytes cannot hold.

use crate::FormatError;
use littoral_types::limits::TEXT_LEN_MAX;
use littoral_types::{PageNo, PageSize};

/// Bytes of a CRC64-NVME.
pub(crate) const CRC_LEN: usize = 8;

/// Zero pages of everything that is read or written at once. Few bytes stand for many of them, so that the bytes alone do not
/// bound the memory; everything else takes room in proportion to its bytes.
pub(crate) const ZEROS_MAX: u64 = 1 << 27;

/// Something that is spelled inside larger things.
pub(crate) trait Spell: Sized {
    /// Appends it.
    fn put(&self, out: &mut Out);
    /// Reads it.
    fn get(input: &mut In<'_>) -> Result<Self, FormatError>;
}

/// A value after which each optional one is spelled: no optional field is ever told by a missing byte.
const ABSENT: u8 = 0;
const PRESENT: u8 = 1;

/// Writes. Field names cost nothing: they are for the tables of `docs/format.md`, which a test draws from them.
#[derive(Debug)]
pub(crate) struct Out {
    what: &'static str,
    bytes: Vec<u8>,
    refused: Option<FormatError>,
    zeros: u64,
    #[cfg(test)]
    fields: Vec<(&'static str, usize)>,
}

impl Out {
    pub(crate) fn new(what: &'static str, capacity: usize) -> Self {
        Self {
            what,
            bytes: Vec::with_capacity(capacity),
            refused: None,
            zeros: 0,
            #[cfg(test)]
            fields: Vec::new(),
        }
    }

    #[inline]
    fn mark(&mut self, field: &'static str) {
        #[cfg(test)]
        self.fields.push((field, self.bytes.len()));
        #[cfg(not(test))]
        let _ = field;
    }

    /// How many bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What was written so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The value cannot be spelled. The first reason is kept.
    pub(crate) fn refuse(&mut self, detail: impl Into<String>) {
        let what = self.what;
        self.fail(FormatError::Invalid { what, detail: detail.into() });
    }

    pub(crate) fn fail(&mut self, error: FormatError) {
        self.refused.get_or_insert(error);
    }

    pub(crate) fn limit(&mut self, len: usize, max: usize) {
        if len > max {
            let what = self.what;
            self.fail(FormatError::TooLarge { what, len: len as u64, max: max as u64 });
        }
    }

    /// Zero pages were written.
    pub(crate) fn spend_zeros(&mut self, pages: usize) {
        self.zeros = self.zeros.saturating_add(pages as u64);
        self.limit(usize::try_from(self.zeros).unwrap_or(usize::MAX), ZEROS_MAX as usize);
    }

    #[inline]
    pub(crate) fn u8(&mut self, field: &'static str, value: u8) {
        self.mark(field);
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, field: &'static str, value: u16) {
        self.raw(field, &value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, field: &'static str, value: u32) {
        self.raw(field, &value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, field: &'static str, value: u64) {
        self.raw(field, &value.to_le_bytes());
    }

    /// Bytes whose number the reader knows.
    pub(crate) fn raw(&mut self, field: &'static str, value: &[u8]) {
        self.mark(field);
        self.bytes.extend_from_slice(value);
    }

    /// Seven bits a byte, low ones first, the top bit set on all but the last.
    #[inline]
    pub(crate) fn varint(&mut self, field: &'static str, mut value: u64) {
        self.mark(field);
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A signed number as a varint, small whichever its sign.
    pub(crate) fn zigzag(&mut self, field: &'static str, value: i64) {
        self.varint(field, (value << 1 ^ value >> 63) as u64);
    }

    pub(crate) fn count(&mut self, field: &'static str, value: usize) {
        self.varint(field, value as u64);
    }

    /// Bytes behind their length.
    pub(crate) fn blob(&mut self, field: &'static str, value: &[u8]) {
        self.count("length", value.len());
        self.raw(field, value);
    }

    /// Text for people, or a name.
    pub(crate) fn text(&mut self, field: &'static str, value: &str) {
        self.limit(value.len(), TEXT_LEN_MAX);
        self.blob(field, value.as_bytes());
    }

    /// A flag byte, then the value where there is one.
    pub(crate) fn optional<T>(&mut self, field: &'static str, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.u8(field, if value.is_some() { PRESENT } else { ABSENT });
        if let Some(value) = value {
            put(self, value);
        }
    }

    /// CRC64-NVME of everything so far.
    pub(crate) fn crc(&mut self) {
        let crc = crate::hash::crc64(&self.bytes);
        self.u64("CRC64-NVME of all bytes before", crc);
    }

    /// The bytes, or why there are none.
    pub(crate) fn finish(self) -> Result<Vec<u8>, FormatError> {
        #[cfg(test)]
        crate::trace::note(self.what, &self.bytes, &self.fields);
        match self.refused {
            Some(error) => Err(error),
            None => Ok(self.bytes),
        }
    }
}

/// Reads.
#[derive(Clone, Debug)]
pub(crate) struct In<'a> {
    what: &'static str,
    left: &'a [u8],
    zeros: u64,
}

impl<'a> In<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, left: bytes, zeros: ZEROS_MAX }
    }

    /// Splits off and checks the CRC64-NVME at the end.
    pub(crate) fn checked(what: &'static str, bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (body, crc) = bytes.split_last_chunk::<CRC_LEN>().ok_or(FormatError::Truncated { what })?;
        if crate::hash::crc64(body) != u64::from_le_bytes(*crc) {
            return Err(FormatError::Checksum { what });
        }
        Ok(Self::new(what, body))
    }

    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    pub(crate) fn invalid(&self, detail: impl Into<String>) -> FormatError {
        FormatError::Invalid { what: self.what, detail: detail.into() }
    }

    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    /// What was not read yet.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.left
    }

    /// Nothing may follow.
    pub(crate) fn end(self) -> Result<(), FormatError> {
        if self.left.is_empty() { Ok(()) } else { Err(self.invalid(format!("{} bytes too many", self.left.len()))) }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (taken, left) = self.left.split_at_checked(len).ok_or(FormatError::Truncated { what: self.what })?;
        self.left = left;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (taken, left) = self.left.split_first_chunk::<N>().ok_or(FormatError::Truncated { what: self.what })?;
        self.left = left;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        let [value] = self.array()?;
        Ok(value)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, FormatError> {
        match self.left {
            [first, left @ ..] if *first < 0x80 => {
                self.left = left;
                Ok(u64::from(*first))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.invalid("a number beyond 64 bits"));
            }
            value |= bits << shift;
            if byte < 0x80 {
                // One spelling each: the last byte carries bits unless it is the only one.
                return if bits == 0 && shift > 0 {
                    Err(self.invalid("a number in too many bytes"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(self.invalid("a number beyond 64 bits"))
    }

    pub(crate) fn zigzag(&mut self) -> Result<i64, FormatError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A count of items that take at least `least` bytes each, so that what follows can hold them.
    pub(crate) fn count(&mut self, least: usize, max: usize) -> Result<usize, FormatError> {
        let found = self.varint()?;
        let too_many = FormatError::TooLarge { what: self.what, len: found, max: max as u64 };
        let count = usize::try_from(found).ok().filter(|count| *count <= max).ok_or(too_many)?;
        if count.saturating_mul(least) > self.left.len() {
            return Err(FormatError::Truncated { what: self.what });
        }
        Ok(count)
    }

    pub(crate) fn blob(&mut self, max: usize) -> Result<&'a [u8], FormatError> {
        let len = self.count(1, max)?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, FormatError> {
        let bytes = self.blob(TEXT_LEN_MAX)?;
        std::str::from_utf8(bytes).map_err(|_| self.invalid("text that is not UTF-8"))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, FormatError> {
        match self.u8()? {
            ABSENT => Ok(false),
            PRESENT => Ok(true),
            other => Err(self.invalid(format!("flag {other}"))),
        }
    }

    pub(crate) fn optional<T>(
        &mut self,
        get: impl FnOnce(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Option<T>, FormatError> {
        if self.flag()? { get(self).map(Some) } else { Ok(None) }
    }

    /// A list of items that take at least `least` bytes each.
    pub(crate) fn list<T>(
        &mut self,
        least: usize,
        max: usize,
        mut get: impl FnMut(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let count = self.count(least, max)?;
        let mut items = Vec::with_capacity(count.min(self.left.len() / size_of::<T>().max(1) + 16));
        for _ in 0..count {
            items.push(get(self)?);
        }
        Ok(items)
    }

    /// Numbers of zero pages are about to be spelled out.
    pub(crate) fn spend_zeros(&mut self, pages: u64) -> Result<(), FormatError> {
        let left = self.zeros.checked_sub(pages);
        self.zeros = left.ok_or(FormatError::TooLarge { what: self.what, len: pages, max: self.zeros })?;
        Ok(())
    }

    /// Runs `get` with at most so many zero pages.
    pub(crate) fn within_zeros<T>(
        &mut self,
        max: u64,
        get: impl FnOnce(&mut Self) -> Result<T, FormatError>,
    ) -> Result<T, FormatError> {
        let inner = self.zeros.min(max);
        let outer = self.zeros - inner;
        self.zeros = inner;
        let value = get(self)?;
        self.zeros += outer;
        Ok(value)
    }

    /// Refuses a newer layout; which one it is.
    pub(crate) fn version(&mut self, known: u16) -> Result<u16, FormatError> {
        let found = self.u16()?;
        check_version(self.what, found, known).map(|()| found)
    }

    /// The bytes that name a kind of object.
    pub(crate) fn magic(&mut self, magic: &[u8; 4]) -> Result<(), FormatError> {
        let found: [u8; 4] = self.array()?;
        if found == *magic { Ok(()) } else { Err(self.invalid("not one: it begins with other bytes")) }
    }

    pub(crate) fn page(&mut self) -> Result<PageNo, FormatError> {
        let number = self.varint()?;
        PageNo::new(number).ok_or_else(|| self.invalid("page 0"))
    }

    pub(crate) fn page_size(&mut self) -> Result<PageSize, FormatError> {
        let log2 = self.u8()?;
        1u64.checked_shl(u32::from(log2))
            .and_then(|bytes| PageSize::new(bytes).ok())
            .ok_or_else(|| self.invalid(format!("page size 2^{log2}")))
    }
}

/// Refuses a newer layout, and zero, which nobody writes.
pub(crate) fn check_version(what: &'static str, found: u16, known: u16) -> Result<(), FormatError> {
    match found {
        0 => Err(FormatError::Invalid { what, detail: "format 0".to_owned() }),
        _ if found > known => Err(FormatError::Newer { what, found, known }),
        _ => Ok(()),
    }
}

/// A page size in one byte.
pub(crate) const fn page_size_log2(size: PageSize) -> u8 {
    size.bytes().trailing_zeros() as u8
}

/// Checks magic and version before the checksum: a newer layout may keep its checksum elsewhere, and must be told from damage.
pub(crate) fn peek_version(what: &'static str, bytes: &[u8], magic: &[u8; 4], known: u16) -> Result<(), FormatError> {
    let mut input = In::new(what, bytes);
    input.magic(magic)?;
    input.version(known).map(drop)
}
