//! Scans and searches over trees that are real, on a machine that has nothing: how many round trips, requests and bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod rig;

use littoral_engine::exec::restore::At;
use littoral_engine::lazy::{Budget, Lazy};
use littoral_plan::{Readahead, Room};
use littoral_ports::{MemoryRemote, Remote};
use littoral_types::PageNo;
use rig::{Chance, Machine, Pages, components, cost, counted, log};
use std::collections::HashSet;
use std::sync::Arc;

const PAGE: usize = 4096;

fn page(number: u64) -> PageNo {
    PageNo::new(number).unwrap()
}

fn varint(out: &mut Vec<u8>, value: u64) {
    let groups: Vec<u8> = (0..9).map(|at| (value >> (7 * at)) as u8 & 0x7f).collect();
    let last = groups.iter().rposition(|group| *group != 0).unwrap_or(0);
    for at in (0..=last).rev() {
        out.push(groups[at] | if at > 0 { 0x80 } else { 0 });
    }
}

/// A page with these cells, as SQLite lays it out.
fn node(kind: u8, cells: &[Vec<u8>], right: Option<u64>, start: usize) -> Vec<u8> {
    let mut image = vec![0; PAGE];
    image[start] = kind;
    image[start + 3..start + 5].copy_from_slice(&(cells.len() as u16).to_be_bytes());
    if let Some(right) = right {
        image[start + 8..start + 12].copy_from_slice(&(right as u32).to_be_bytes());
    }
    let pointers = start + if right.is_some() { 12 } else { 8 };
    let mut end = PAGE;
    for (at, cell) in cells.iter().enumerate() {
        end -= cell.len();
        image[end..end + cell.len()].copy_from_slice(cell);
        image[pointers + 2 * at..pointers + 2 * at + 2].copy_from_slice(&(end as u16).to_be_bytes());
    }
    assert!(pointers + 2 * cells.len() <= end);
    image
}

/// A value of a record: its serial type and its bytes.
fn text(value: &str) -> (u64, Vec<u8>) {
    (13 + 2 * value.len() as u64, value.as_bytes().to_vec())
}

fn integer(value: u64) -> (u64, Vec<u8>) {
    (4, (value as u32).to_be_bytes().to_vec())
}

fn record(values: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut types = Vec::new();
    values.iter().for_each(|(kind, _)| varint(&mut types, *kind));
    let mut out = vec![types.len() as u8 + 1];
    out.extend(types);
    values.iter().for_each(|(_, bytes)| out.extend(bytes));
    out
}

const ROWS_PER_LEAF: u64 = 8;
const KEYS_PER_LEAF: u64 = 200;
const CHILDREN: usize = 400;

/// A table and an index on it that names its rows in another order.
struct Tree {
    pages: Pages,
    /// Leaves of the table, in key order.
    leaves: Vec<u64>,
    /// Leaves of the index, each with the leaf of the table for every row that it names.
    index: Vec<(u64, Vec<u64>)>,
}

fn tree(leaf_count: u64) -> Tree {
    let mut chance = Chance(3);
    let mut pages = Pages::new(PAGE as u64, 1);
    let add = |pages: &mut Pages, image: Vec<u8>| {
        pages.pages.push(image);
        pages.pages.len() as u64
    };
    let rows = leaf_count * ROWS_PER_LEAF;
    let leaves: Vec<u64> = (0..leaf_count)
        .map(|leaf| {
            let cells: Vec<Vec<u8>> = (0..ROWS_PER_LEAF)
                .map(|at| {
                    let row = leaf * ROWS_PER_LEAF + at + 1;
                    let body: String = (0..440).map(|_| (b'a' + (chance.next() % 9) as u8) as char).collect();
                    let record = record(&[integer(row * 7), text(&body)]);
                    let mut cell = Vec::new();
                    varint(&mut cell, record.len() as u64);
                    varint(&mut cell, row);
                    cell.extend(record);
                    cell
                })
                .collect();
            add(&mut pages, node(0x0d, &cells, None, 0))
        })
        .collect();
    // Keys in an order that has nothing to do with the rows'.
    let named = |key: u64| (key * 7919 + 13) % rows + 1;
    let index: Vec<(u64, Vec<u64>)> = (0..rows / KEYS_PER_LEAF)
        .map(|leaf| {
            let keys = leaf * KEYS_PER_LEAF..(leaf + 1) * KEYS_PER_LEAF;
            let cells: Vec<Vec<u8>> = keys
                .clone()
                .map(|key| {
                    let record = record(&[integer(key), integer(named(key))]);
                    let mut cell = Vec::new();
                    varint(&mut cell, record.len() as u64);
                    cell.extend(record);
                    cell
                })
                .collect();
            let at = add(&mut pages, node(0x0a, &cells, None, 0));
            (at, keys.map(|key| leaves[((named(key) - 1) / ROWS_PER_LEAF) as usize]).collect())
        })
        .collect();
    // Interior pages, level by level, each with the last key below its children.
    let mut level: Vec<(u64, u64)> =
        leaves.iter().zip(1u64..).map(|(leaf, number)| (*leaf, number * ROWS_PER_LEAF)).collect();
    let table_root = loop {
        let above: Vec<(u64, u64)> = level
            .chunks(CHILDREN)
            .map(|children| {
                let (last, rest) = children.split_last().unwrap();
                let cells: Vec<Vec<u8>> = rest
                    .iter()
                    .map(|(child, key)| {
                        let mut cell = (*child as u32).to_be_bytes().to_vec();
                        varint(&mut cell, *key);
                        cell
                    })
                    .collect();
                (add(&mut pages, node(0x05, &cells, Some(last.0), 0)), last.1)
            })
            .collect();
        level = above;
        if level.len() == 1 {
            break level[0].0;
        }
    };
    let mut level: Vec<u64> = index.iter().map(|(leaf, _)| *leaf).collect();
    let index_root = loop {
        level = level
            .chunks(CHILDREN / 4)
            .map(|children| {
                let (last, rest) = children.split_last().unwrap();
                let cells: Vec<Vec<u8>> = rest
                    .iter()
                    .map(|child| {
                        let record = record(&[integer(0), integer(1)]);
                        let mut cell = (*child as u32).to_be_bytes().to_vec();
                        varint(&mut cell, record.len() as u64);
                        cell.extend(record);
                        cell
                    })
                    .collect();
                add(&mut pages, node(0x02, &cells, Some(*last), 0))
            })
            .collect();
        if level.len() == 1 {
            break level[0];
        }
    };
    let schema: Vec<Vec<u8>> = [("table", "rows", table_root), ("index", "rows_by_key", index_root)]
        .iter()
        .zip(1u64..)
        .map(|((kind, name, root), row)| {
            let record = record(&[text(kind), text(name), text("rows"), integer(*root), text("CREATE ...")]);
            let mut cell = Vec::new();
            varint(&mut cell, record.len() as u64);
            varint(&mut cell, row);
            cell.extend(record);
            cell
        })
        .collect();
    let mut first = node(0x0d, &schema, None, 100);
    first[..16].copy_from_slice(b"SQLite format 3\0");
    first[16..18].copy_from_slice(&(PAGE as u16).to_be_bytes());
    pages.pages[0] = first;
    Tree { pages, leaves, index }
}

/// A file that holds what was fetched, as the VFS's does.
struct File {
    lazy: Lazy,
    ahead: Readahead,
    here: HashSet<PageNo>,
    misses: usize,
}

impl File {
    async fn open(remote: Arc<dyn Remote>) -> Self {
        let lazy = Lazy::open(&log(remote), &components(), &At::Newest).await.unwrap();
        let mut file =
            Self { ahead: Readahead::new(lazy.page_size(), lazy.page_count()), here: HashSet::new(), lazy, misses: 0 };
        let skeleton: Vec<_> = file.lazy.skeleton().collect();
        for (page, image) in skeleton {
            file.ahead.learn(page, &image);
            file.here.insert(page);
        }
        file
    }

    /// A page is read; what is fetched ahead comes with it.
    async fn read(&mut self, wanted: PageNo, expected: &Pages) {
        if self.here.contains(&wanted) {
            return;
        }
        self.misses += 1;
        let room = Room { bytes: 64 << 20, pages: 1 << 20 };
        let here = &self.here;
        let next = self.ahead.missed(wanted, &|page| here.contains(&page), room);
        let (frame, more) =
            futures::future::join(self.lazy.fetch(wanted), self.lazy.fetch_many(&next, Budget::default())).await;
        let more = more.unwrap().frames;
        for frame in std::iter::once(frame.unwrap()).chain(more) {
            for (page, image) in &frame.pages {
                assert!(image[..] == *expected.page(*page), "page {page}");
                self.ahead.learn(*page, image);
                self.here.insert(*page);
            }
        }
        assert!(self.here.contains(&wanted));
    }
}

fn stored(remote: &MemoryRemote) -> u64 {
    remote
        .objects()
        .iter()
        .filter(|(path, _)| path.as_str().contains("/chunk/"))
        .map(|(_, bytes)| bytes.len() as u64)
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_of_100_mb_is_few_round_trips_and_a_search_by_index_fetches_its_rows_together() {
    let memory = Arc::new(MemoryRemote::new("scan"));
    let machine = Machine::new(memory.clone());
    let Tree { mut pages, leaves, index } = tree(25_000);
    let skeleton = machine.checkpoint(&mut pages).await.unwrap().unwrap();
    drop(skeleton);

    let remote = counted(memory.clone());
    let mut file = File::open(remote.clone()).await;
    file.lazy.held().await;
    // The pin's requests wait for nobody, and nobody for them.
    let pin = remote.exchanges().len() as u64 - 2;
    let (opened, bytes_opened) = (cost(&remote), cost(&remote).down);
    for leaf in &leaves {
        file.read(page(*leaf), &pages).await;
    }
    let scan = cost(&remote);
    let share = stored(&memory) * leaves.len() as u64 / pages.pages.len() as u64;
    let bytes = scan.down - bytes_opened;
    println!(
        "scan of {} leaves: opened {opened:?}, then {scan:?}; {} misses; {bytes} B of {share} B",
        leaves.len(),
        file.misses
    );
    let depth = 1 + (scan.depth - opened.depth);
    assert!(scan.requests - pin <= 20 && depth <= 8, "{scan:?}, {depth} deep");
    assert!(bytes * 10 <= share * 11, "{bytes} of {share}");
    file.lazy.close().await;

    // A lookup by key, then one by index, then a hundred rows by index.
    let remote = counted(memory.clone());
    let mut file = File::open(remote.clone()).await;
    file.lazy.held().await;
    let opened = cost(&remote);
    remote.reset();
    file.read(page(leaves[12_345]), &pages).await;
    let lookup = cost(&remote);
    println!("open {opened:?}; a lookup by key {lookup:?}");
    assert!(lookup.depth <= 2 && lookup.down + opened.down < 1 << 20, "{lookup:?}, {opened:?}");
    remote.reset();
    let (leaf, rows) = &index[500];
    file.read(page(*leaf), &pages).await;
    file.read(page(rows[0]), &pages).await;
    let lookup = cost(&remote);
    println!("a lookup by index {lookup:?}");
    assert!(lookup.depth <= 4 && lookup.down + opened.down < 2 << 20, "{lookup:?}");
    remote.reset();
    let (leaf, rows) = &index[700];
    file.read(page(*leaf), &pages).await;
    for row in &rows[..100] {
        file.read(page(*row), &pages).await;
    }
    let search = cost(&remote);
    println!("a hundred rows by index {search:?}");
    assert!(search.depth < 8, "{search:?}");
    file.lazy.close().await;
}
