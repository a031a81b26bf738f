//! Between what the values of each column of each block of a sealed segment are: kept beside it, and made anew where it is lost.

use super::row::{begin_row, decode_row, put_cell};
use crate::FormatError;
use crate::wire::{In, Out, peek_version};
use littoral_types::limits::{LOG_BLOCK_BYTES, LOG_COLUMNS_MAX, LOG_SEGMENT_BYTES, LOG_ZONE_BYTES};
use littoral_types::{LogCell, LogZone, Lsn, VolumeId};

const WHAT: &str = "zones of a log";
const MAGIC: &[u8; 4] = b"LLZN";
const BLOCKS_MAX: usize = (LOG_SEGMENT_BYTES / LOG_BLOCK_BYTES) as usize;
const CUT: u8 = 1;
const LIKE_NUMBERS: u8 = 2;
const BOUNDS: u8 = 4;
/// Two values of so many bytes, their types, and what a row begins with.
const BOUND_BYTES_MAX: usize = 2 * (LOG_ZONE_BYTES + 8) + 1;

/// The zones of a segment: for each block, for each column.
#[derive(Clone, Debug, PartialEq)]
pub struct Zones {
    /// Which log.
    pub log: VolumeId,
    /// The first LSN of the segment.
    pub first: Lsn,
    /// How many columns there are.
    pub columns: usize,
    /// All columns of the first block, then of the second.
    pub zones: Vec<LogZone>,
}

/// Spells zones.
pub fn encode_zones(zones: &Zones) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(WHAT, 64 + zones.zones.len() * 32);
    out.raw("magic", MAGIC);
    out.u16("schema version", super::VERSION);
    out.raw("the log's id", &zones.log.0);
    out.u64("first LSN of the segment", zones.first.0);
    out.count("columns", zones.columns);
    out.count("zones", zones.zones.len());
    if zones.columns == 0 || !zones.zones.len().is_multiple_of(zones.columns) {
        out.refuse("zones that are not of all columns");
    }
    for zone in &zones.zones {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags =
            flag(zone.is_cut, CUT) | flag(zone.like_numbers, LIKE_NUMBERS) | flag(zone.bounds.is_some(), BOUNDS);
        out.u8("1: the greatest is cut, 2: text may be numbers, 4: bounds follow", flags);
        if let Some((least, greatest)) = &zone.bounds {
            let mut row = Vec::new();
            begin_row(&mut row);
            put_cell(&mut row, &borrowed(least));
            put_cell(&mut row, &borrowed(greatest));
            out.limit(row.len(), BOUND_BYTES_MAX);
            out.blob("the least and the greatest, as a row", &row);
        }
    }
    out.crc();
    out.finish()
}

fn borrowed(cell: &LogCell<Vec<u8>>) -> LogCell<&[u8]> {
    match cell {
        LogCell::Null => LogCell::Null,
        LogCell::Integer(number) => LogCell::Integer(*number),
        LogCell::Real(number) => LogCell::Real(*number),
        LogCell::Text(bytes) => LogCell::Text(bytes),
        LogCell::Blob(bytes) => LogCell::Blob(bytes),
    }
}

/// Reads zones.
pub fn decode_zones(bytes: &[u8]) -> Result<Zones, FormatError> {
    peek_version(WHAT, bytes, MAGIC, super::VERSION)?;
    let mut input = In::checked(WHAT, bytes)?;
    input.magic(MAGIC)?;
    input.version(super::VERSION)?;
    let (log, first) = (VolumeId(input.array()?), Lsn(input.u64()?));
    let columns = input.count(0, LOG_COLUMNS_MAX)?;
    let mut cells = Vec::new();
    let zones = input.list(1, BLOCKS_MAX * LOG_COLUMNS_MAX, |input| {
        let flags = input.u8()?;
        if flags & !(CUT | LIKE_NUMBERS | BOUNDS) != 0 {
            return Err(input.invalid(format!("flags {flags}")));
        }
        let bounds = if flags & BOUNDS == 0 {
            None
        } else {
            let row = input.blob(BOUND_BYTES_MAX)?;
            decode_row(row, &mut cells)?;
            let [least, greatest] = cells.as_slice() else { return Err(input.invalid("bounds that are not two")) };
            Some((owned(least, row), owned(greatest, row)))
        };
        Ok(LogZone { bounds, is_cut: flags & CUT != 0, like_numbers: flags & LIKE_NUMBERS != 0 })
    })?;
    if columns == 0 || !zones.len().is_multiple_of(columns) {
        return Err(input.invalid("zones that are not of all columns"));
    }
    input.end()?;
    Ok(Zones { log, first, columns, zones })
}

fn owned(cell: &LogCell<std::ops::Range<usize>>, row: &[u8]) -> LogCell<Vec<u8>> {
    let bytes = |place: &std::ops::Range<usize>| row.get(place.clone()).unwrap_or_default().to_vec();
    match cell {
        LogCell::Null => LogCell::Null,
        LogCell::Integer(number) => LogCell::Integer(*number),
        LogCell::Real(number) => LogCell::Real(*number),
        LogCell::Text(place) => LogCell::Text(bytes(place)),
        LogCell::Blob(place) => LogCell::Blob(bytes(place)),
    }
}
