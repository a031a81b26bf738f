//! What a statement's program foresees, on trees that are laid out as SQLite lays them out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use littoral_plan::{Foresight, Instruction, Nest, Readahead, Walk};
use littoral_types::{PageCount, PageNo, PageSize};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const PAGE: usize = 1024;

fn page(number: u64) -> PageNo {
    PageNo::new(number).unwrap()
}

/// A program as the shell prints it: `address|opcode|p1|p2|p3|p4|p5`.
fn program(listing: &str) -> Vec<Instruction> {
    let steps = listing.split_whitespace().map(|line| {
        let words: Vec<&str> = line.split('|').collect();
        let number = |at: usize| words[at].parse().unwrap();
        Instruction {
            address: number(0),
            opcode: words[1].to_owned(),
            p1: number(2),
            p2: number(3),
            p3: number(4),
            p4: words[5].to_owned(),
            p5: number(6),
        }
    });
    steps.collect()
}

/// A value of a record: its serial type and its bytes.
fn number(value: i64) -> (u8, Vec<u8>) {
    (4, (value as i32).to_be_bytes().to_vec())
}

fn text(value: &str) -> (u8, Vec<u8>) {
    (13 + 2 * value.len() as u8, value.as_bytes().to_vec())
}

fn record(values: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![values.len() as u8 + 1];
    out.extend(values.iter().map(|(kind, _)| *kind));
    values.iter().for_each(|(_, bytes)| out.extend(bytes));
    out
}

fn row_id(out: &mut Vec<u8>, row: u64) {
    out.extend([0x80 | (row >> 7) as u8, row as u8 & 0x7f]);
}

fn node(kind: u8, cells: &[Vec<u8>], right: Option<u64>) -> Vec<u8> {
    let mut image = vec![0; PAGE];
    image[0] = kind;
    image[3..5].copy_from_slice(&(cells.len() as u16).to_be_bytes());
    if let Some(right) = right {
        image[8..12].copy_from_slice(&(right as u32).to_be_bytes());
    }
    let (mut end, start) = (PAGE, if right.is_some() { 12 } else { 8 });
    for (at, cell) in cells.iter().enumerate() {
        end -= cell.len();
        image[end..end + cell.len()].copy_from_slice(cell);
        image[start + 2 * at..start + 2 * at + 2].copy_from_slice(&(end as u16).to_be_bytes());
    }
    assert!(start + 2 * cells.len() <= end, "a page too full");
    image
}

/// All pages of a database; some of them are here.
#[derive(Default)]
struct Machine {
    pages: BTreeMap<PageNo, Vec<u8>>,
    here: BTreeSet<PageNo>,
    read: Vec<PageNo>,
    /// What was asked for and was not here, and what came with it.
    trips: Vec<Vec<u64>>,
}

/// What a row of a leaf is.
type Entry = (u64, Vec<(u8, Vec<u8>)>);

impl Machine {
    /// A table or an index of two levels: its root, and leaves from `first` on, with so many entries each.
    fn tree(&mut self, root: u64, first: u64, is_table: bool, each: usize, entries: &[Entry]) {
        let cell = |(row, values): &Entry| {
            let record = record(values);
            let mut cell = vec![record.len() as u8];
            if is_table {
                row_id(&mut cell, *row);
            }
            cell.extend(record);
            cell
        };
        let (mut above, mut leaf, mut rest) = (Vec::new(), first, entries);
        while !rest.is_empty() {
            let (mine, after) = rest.split_at(each.min(rest.len()));
            let cells: Vec<Vec<u8>> = mine.iter().map(cell).collect();
            self.pages.insert(page(leaf), node(if is_table { 0x0d } else { 0x0a }, &cells, None));
            rest = after;
            if rest.is_empty() {
                break;
            }
            let mut key = (leaf as u32).to_be_bytes().to_vec();
            if is_table {
                row_id(&mut key, mine.last().unwrap().0);
            } else {
                // An index's interior pages hold entries of their own.
                key.extend(cell(&rest[0]));
                rest = &rest[1..];
            }
            above.push(key);
            leaf += 1;
        }
        self.pages.insert(page(root), node(if is_table { 0x05 } else { 0x02 }, &above, Some(leaf)));
    }

    fn ahead(&mut self, interior: &[u64]) -> Readahead {
        let mut ahead = Readahead::new(PageSize::new(PAGE as u64).unwrap(), PageCount(5000));
        for root in interior {
            ahead.learn(page(*root), &self.pages[&page(*root)]);
            self.here.insert(page(*root));
        }
        ahead
    }

    /// Reads a page as SQLite would, while these statements run.
    fn read(&mut self, ahead: &mut Readahead, foresight: &mut Foresight, nest: &Nest, number: u64) {
        let missed = page(number);
        if self.here.contains(&missed) {
            return self.read.push(missed);
        }
        let recent: Vec<PageNo> = self.read.iter().rev().copied().collect();
        let look = |page: PageNo, here: &BTreeSet<PageNo>| {
            here.contains(&page).then(|| self.pages.get(&page).cloned().unwrap_or_else(|| vec![0; PAGE]))
        };
        let walk: Option<Walk> = foresight.begin(1, nest, ahead, missed, &recent, &|page| look(page, &self.here));
        for level in 0..12 {
            let mut wanted: BTreeSet<PageNo> =
                walk.iter().flat_map(|walk| walk.missing(nest, ahead, &|page| look(page, &self.here), 1000)).collect();
            if level == 0 {
                wanted.insert(missed);
            }
            assert!(wanted.is_disjoint(&self.here), "what is here is not fetched again");
            if wanted.is_empty() {
                break;
            }
            for page in &wanted {
                if let Some(image) = self.pages.get(page) {
                    ahead.learn(*page, image);
                }
            }
            self.trips.push(wanted.iter().map(|page| page.get()).collect());
            self.here.extend(wanted);
        }
        self.read.push(missed);
    }
}

const BY_ROW: &str = "0|Init|0|10|0||0 1|OpenRead|0|5|0|1|0 2|OpenRead|1|2|0|4|0 3|Rewind|0|9|0||0 4|Column|0|0|1||0
    5|SeekRowid|1|8|1||0 6|Column|1|3|2||0 7|ResultRow|2|1|0||0 8|Next|0|4|0||1 9|Halt|0|0|0||0 10|Transaction|0|0|5|0|1
    11|Goto|0|1|0||0";

const BY_INDEX: &str = "0|Init|0|18|0||0 1|OpenRead|0|5|0|2|0 2|OpenRead|1|2|0|4|0 3|OpenRead|2|3|0|k(3,,,)|2 4|Rewind|0|17|0||0
    5|Column|0|0|1||0 6|Column|0|1|2||0 7|IsNull|1|16|0||0 8|IsNull|2|16|0||0 9|Affinity|2|1|0|C|0 10|SeekGE|2|16|1|2|0
    11|IdxGT|2|16|1|2|0 12|DeferredSeek|2|0|1||0 13|Column|1|3|3||0 14|ResultRow|3|1|0||0 15|Next|2|11|1||0 16|Next|0|5|0||1
    17|Halt|0|0|0||0 18|Transaction|0|0|5|0|1 19|Goto|0|1|0||0";

/// An outer table with root 5, in leaves of 20 rows from page 10 on, whose first column is `key(row)`; an inner table with root 2, in
/// leaves of 4 rows from page 1000 on.
fn join(rows: u64, key: impl Fn(u64) -> Vec<(u8, Vec<u8>)>) -> Machine {
    let mut machine = Machine::default();
    let outer: Vec<Entry> = (1..=rows).map(|row| (row, key(row))).collect();
    machine.tree(5, 10, true, 20, &outer);
    let inner: Vec<Entry> =
        (1..=160).map(|row| (row, vec![(0, vec![]), text(&format!("t{row:04}")), number(7)])).collect();
    machine.tree(2, 1000, true, 4, &inner);
    machine
}

/// Which inner row an outer row names: all over the table, so that neighbours are no help.
fn named(row: u64) -> u64 {
    row * 37 % 160 + 1
}

/// Where it is.
fn leaf(inner: u64) -> u64 {
    1000 + (inner - 1) / 4
}

#[test]
fn an_inner_table_searched_by_rows_is_fetched_in_one_trip() {
    let mut machine = join(100, |row| vec![number(named(row) as i64)]);
    let (mut ahead, mut foresight) = (machine.ahead(&[5, 2]), Foresight::default());
    let nest = Nest::of(&program(BY_ROW));
    for row in 1..=100 {
        machine.read(&mut ahead, &mut foresight, &nest, 10 + (row - 1) / 20);
        machine.read(&mut ahead, &mut foresight, &nest, leaf(named(row)));
    }
    // The outer loop's first leaf, and then everything: the leaves of the outer loop that are not here come with it, one after another.
    assert_eq!(machine.trips[0], [10]);
    assert_eq!(machine.trips.len(), 6, "{:?}", machine.trips);
    let first: BTreeSet<u64> = (1..=20).map(|row| leaf(named(row))).chain([11]).collect();
    assert_eq!(machine.trips[1].iter().copied().collect::<BTreeSet<u64>>(), first);
}

#[test]
fn an_inner_table_searched_by_an_index_is_fetched_level_by_level() {
    let key = |row: u64| vec![text(&format!("t{:04}", named(row))), text("7")];
    let mut machine = join(20, key);
    // Keys in the index's order; its second field is a number, which the outer row keeps as text.
    let index: Vec<Entry> =
        (1..=160).map(|row| (row, vec![text(&format!("t{row:04}")), number(7), number(row as i64)])).collect();
    machine.tree(3, 2000, false, 6, &index);
    let (mut ahead, mut foresight) = (machine.ahead(&[5, 2, 3]), Foresight::default());
    let nest = Nest::of(&program(BY_INDEX));
    machine.read(&mut ahead, &mut foresight, &nest, 10);
    // The leaf of the index where the first key is: 7 entries of it belong to each leaf, the last of them above it.
    machine.read(&mut ahead, &mut foresight, &nest, 2000 + (named(1) - 1) / 7);
    assert_eq!(machine.trips.len(), 3, "{:?}", machine.trips);
    for row in 1..=20 {
        let inner = page(leaf(named(row)));
        assert!(machine.here.contains(&inner), "{row}: {:?}", machine.trips);
    }
    assert!(machine.here.len() < 4 + 2 * 21 + 4, "nothing but what is needed: {:?}", machine.trips);
}

#[test]
fn a_limit_begins_with_few_rows_and_a_loop_that_passes_rows_over_is_followed_no_further() {
    let limited =
        BY_ROW.replace("8|Next|0|4|0||1", "8|DecrJumpZero|9|9|0||0 9|Next|0|4|0||1").replace("9|Halt", "10|Halt");
    let limited = limited.replace("10|Transaction", "11|Transaction").replace("11|Goto", "12|Goto");
    let nest = Nest::of(&program(&limited));
    let mut machine = join(40, |row| vec![number(named(row) as i64)]);
    let (mut ahead, mut foresight) = (machine.ahead(&[5, 2]), Foresight::default());
    machine.read(&mut ahead, &mut foresight, &nest, 10);
    machine.read(&mut ahead, &mut foresight, &nest, leaf(named(1)));
    assert_eq!(machine.trips.len(), 2);
    let first: BTreeSet<u64> = (1..=16).map(|row| leaf(named(row))).collect();
    assert_eq!(machine.trips[1].iter().copied().collect::<BTreeSet<u64>>(), first);
    // It goes on with the next row that is not here: eight times as many.
    let next = (17..=20).map(|row| leaf(named(row))).find(|leaf| !machine.here.contains(&page(*leaf))).unwrap();
    machine.read(&mut ahead, &mut foresight, &nest, next);
    assert!(machine.trips.len() > 3 && machine.here.contains(&page(leaf(named(40)))), "{:?}", machine.trips);

    // Rows that are passed over were fetched in vain: then each row pays for itself.
    let mut machine = join(40, |row| vec![number(row as i64 * 4)]);
    let (mut ahead, mut foresight) = (machine.ahead(&[5, 2]), Foresight::default());
    for row in [1, 31, 38] {
        machine.read(&mut ahead, &mut foresight, &nest, 10 + (row - 1) / 20);
        machine.read(&mut ahead, &mut foresight, &nest, leaf(row * 4));
    }
    let sizes: Vec<usize> = machine.trips.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 16, 1, 1, 1], "{:?}", machine.trips);
}

#[test]
fn what_is_looked_up_for_one_row_alone_is_not_followed_by_others() {
    // SELECT body FROM rows WHERE (who, at) = (SELECT who, at FROM wanted WHERE rowid = 50)
    let point = "0|Init|0|26|0||0 1|OpenRead|0|2|0|4|0 2|OpenRead|2|3|0|k(3,,,)|2 3|BeginSubrtn|0|3|0||0 4|Once|0|13|0||0
        5|Null|0|4|5||0 6|Integer|1|6|0||0 7|OpenRead|1|5|0|2|0 8|Integer|50|7|0||0 9|SeekRowid|1|13|7||0 10|Column|1|0|4||0
        11|Column|1|1|5||0 12|DecrJumpZero|6|13|0||0 13|Return|3|4|1||0 14|Copy|4|1|0||0 15|Copy|5|2|0||0 16|IsNull|1|25|0||0
        17|IsNull|2|25|0||0 18|Affinity|2|1|0|C|0 19|SeekGE|2|25|1|2|0 20|IdxGT|2|25|1|2|0 21|DeferredSeek|2|0|0||0
        22|Column|0|3|8||0 23|ResultRow|8|1|0||0 24|Next|2|20|1||0 25|Halt|0|0|0||0 26|Transaction|0|0|5|0|1 27|Goto|0|1|0||0";
    let nest = Nest::of(&program(point));
    let key = |row: u64| vec![text(&format!("t{row:04}")), number(7)];
    let mut machine = join(60, key);
    let index: Vec<Entry> =
        (1..=160).map(|row| (row, vec![text(&format!("t{row:04}")), number(7), number(named(row) as i64)])).collect();
    machine.tree(3, 2000, false, 6, &index);
    let (mut ahead, mut foresight) = (machine.ahead(&[5, 2, 3]), Foresight::default());
    machine.read(&mut ahead, &mut foresight, &nest, 12);
    machine.read(&mut ahead, &mut foresight, &nest, 2000 + 49 / 7);
    machine.read(&mut ahead, &mut foresight, &nest, leaf(named(50)));
    assert_eq!(machine.trips, [vec![12], vec![2007], vec![leaf(named(50))]]);
}

#[test]
fn programs_that_promise_nothing_foresee_nothing() {
    for (why, listing) in [
        (
            "no search",
            "0|Init|0|5|0||0 1|OpenRead|0|5|0|1|0 2|Rewind|0|4|0||0 3|Next|0|3|0||1 4|Halt|0|0|0||0 5|Transaction|0|0|5|0|1",
        ),
        ("a key that is computed", &BY_ROW.replace("4|Column|0|0|1||0", "4|Add|3|4|1||0")),
        ("another file", &BY_ROW.replace("OpenRead|1|2|0", "OpenRead|1|2|2")),
        (
            "a collation of the application's",
            &BY_INDEX.replace("k(3,,,)", "k(3,MINE,,)").replace("DeferredSeek", "Noop"),
        ),
        ("a tree that is made", &BY_ROW.replace("1|OpenRead|0|5|0|1|0", "1|OpenEphemeral|0|1|0|k(1,B)|0")),
        ("a program of a trigger's", &BY_ROW.replace("5|SeekRowid", "0|SeekRowid")),
        ("nothing", ""),
    ] {
        assert!(Nest::of(&program(listing)).is_empty(), "{why}");
    }
    assert!(!Nest::of(&program(BY_ROW)).is_empty() && !Nest::of(&program(BY_INDEX)).is_empty());
}

proptest! {
    #[test]
    fn whatever_the_pages_hold_nothing_is_asked_for_that_is_here_or_beyond_the_end_and_it_ends(
        damage in proptest::collection::vec((0usize..60, 0usize..PAGE, any::<u8>()), 0..200),
        indexed in any::<bool>(),
    ) {
        let mut machine = join(40, |row| vec![text(&format!("t{:04}", named(row))), number(named(row) as i64)]);
        let index: Vec<Entry> =
            (1..=160).map(|row| (row, vec![text(&format!("t{row:04}")), number(row as i64), number(row as i64)])).collect();
        machine.tree(3, 2000, false, 6, &index);
        let numbers: Vec<PageNo> = machine.pages.keys().copied().collect();
        for (at, offset, byte) in damage {
            machine.pages.get_mut(&numbers[at % numbers.len()]).unwrap()[offset] = byte;
        }
        let (mut ahead, mut foresight) = (machine.ahead(&[5, 2, 3]), Foresight::default());
        let nest = Nest::of(&program(if indexed { BY_INDEX } else { BY_ROW }));
        for row in 1..=12 {
            machine.read(&mut ahead, &mut foresight, &nest, 10);
            machine.read(&mut ahead, &mut foresight, &nest, if indexed { 2000 + (named(row) - 1) / 7 } else { leaf(named(row)) });
        }
        prop_assert!(machine.here.iter().all(|page| page.get() <= 5000));
    }
}
