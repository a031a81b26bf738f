//! Interior pages of SQLite's B-trees, turned so that a codec sees what repeats: cells of one length hold page numbers and keys
//! that go up by about the same. It is turned back exactly, whatever the bytes are.
//!
//! Of a page whose first byte is 2 or 5, with `n` cells by its header (`u16` at 3, big-endian) that fit into it: the first 12
//! bytes stay; each byte of the `n` cell pointers behind them becomes its difference to the byte two before; each byte behind
//! those its difference to the byte a stride before. The stride is the distance of neighbouring cell pointers that is most
//! frequent (4 to 64, the smaller of two), and without one those bytes stay. Other pages stay as they are.

/// Bytes of an interior page's header.
const HEADER: usize = 12;
/// Lengths of cells that count.
const STRIDES: std::ops::RangeInclusive<usize> = 4..=64;

/// Where the cell pointers end; `None` for what is no interior page.
fn pointers_end(page: &[u8]) -> Option<usize> {
    let interior = matches!(page.first(), Some(2 | 5));
    let [high, low] = page.get(3..5)?.try_into().ok()?;
    let end = HEADER + 2 * usize::from(u16::from_be_bytes([high, low]));
    (interior && end <= page.len()).then_some(end)
}

fn stride(pointers: &[u8]) -> Option<usize> {
    let (pairs, _) = pointers.as_chunks::<2>();
    let mut counts = [0u32; *STRIDES.end() + 1];
    for pair in pairs.windows(2) {
        let [one, other] = [pair[0], pair[1]].map(|pair| usize::from(u16::from_be_bytes(pair)));
        if STRIDES.contains(&one.abs_diff(other)) {
            counts[one.abs_diff(other)] += 1;
        }
    }
    let most = STRIDES.rev().max_by_key(|stride| counts[*stride])?;
    (counts[most] > 0).then_some(most)
}

/// Turns a page for storing.
pub(crate) fn turn(page: &mut [u8]) {
    let Some(end) = pointers_end(page) else { return };
    if let Some(stride) = stride(&page[HEADER..end]) {
        for at in (end + stride..page.len()).rev() {
            page[at] = page[at].wrapping_sub(page[at - stride]);
        }
    }
    for at in (HEADER + 2..end).rev() {
        page[at] = page[at].wrapping_sub(page[at - 2]);
    }
}

/// Turns it back.
pub(crate) fn turn_back(page: &mut [u8]) {
    let Some(end) = pointers_end(page) else { return };
    for at in HEADER + 2..end {
        page[at] = page[at].wrapping_add(page[at - 2]);
    }
    if let Some(stride) = stride(&page[HEADER..end]) {
        for at in end + stride..page.len() {
            page[at] = page[at].wrapping_add(page[at - stride]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_page_is_turned_back_exactly_whatever_it_holds(
            mut page in proptest::collection::vec(any::<u8>(), 0..1500),
            kind in proptest::sample::select(vec![2u8, 5, 13, 0]),
            cells in 0u16..600,
        ) {
            if let Some(first) = page.first_mut() {
                *first = kind;
            }
            if let Some(count) = page.get_mut(3..5) {
                count.copy_from_slice(&cells.to_be_bytes());
            }
            let mut turned = page.clone();
            turn(&mut turned);
            turn_back(&mut turned);
            prop_assert_eq!(turned, page);
        }
    }

    #[test]
    fn a_real_page_turns_into_little() {
        // Cells of seven bytes from the end on: a child's number, and a key of three bytes.
        let mut page = vec![0u8; 4096];
        page[0] = 5;
        page[3..5].copy_from_slice(&400u16.to_be_bytes());
        for cell in 0..400u32 {
            let at = 4096 - 7 * (cell as usize + 1);
            page[12 + 2 * cell as usize..14 + 2 * cell as usize].copy_from_slice(&(at as u16).to_be_bytes());
            page[at..at + 4].copy_from_slice(&(9_000 + cell).to_be_bytes());
            let key = 700_000 + cell * 31;
            page[at + 4..at + 7].copy_from_slice(&[
                0x80 | (key >> 14) as u8,
                0x80 | (key >> 7 & 0x7f) as u8,
                key as u8 & 0x7f,
            ]);
        }
        let stored = |page: &[u8]| {
            let mut out = Vec::new();
            crate::codec::compress("page", littoral_types::Compression::Zstd, page, &mut out).unwrap();
            out.len()
        };
        let before = stored(&page);
        turn(&mut page);
        assert!(stored(&page) * 3 < before, "{} of {before}", stored(&page));
    }
}
