//! Which pages to fetch before they are asked for.
//!
//! Three things are known without asking: an interior page names its children in key order; an index's leaf names the rows that a
//! search goes on to, and the table's interior pages say where those are; and what was read in order so far goes on in order.
//!
//! | the page that was missing | and before it | fetched ahead |
//! |---|---|---|
//! | a leaf that follows, in key order, on what is here | read likewise | the next leaves of the tree, through its interior pages |
//! | a table's leaf with the next row that an index's leaf names | read likewise | the leaves of the next rows it names |
//! | any page that follows, by number, on what is here | read likewise | the next pages |
//! | anything else | | nothing: a lookup pays for itself alone |
//!
//! A window grows while it is right and is given up when it is not. It grows by [`GROWTH`], not by two: each step is a round trip,
//! and a scan of any size is to wait for few of them, while it never fetches more than that many times what it has read.

use crate::btree::{self, Node, NodeKind};
use littoral_types::{PageCount, PageNo, PageSize};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// The first window, in bytes of pages.
pub const WINDOW_BYTES: u64 = 1 << 20;
/// By how much a window grows that was right.
pub const GROWTH: u64 = 8;
/// Rows of an index's leaf that are fetched first.
pub const WINDOW_ROWS: usize = 16;
/// Children of interior pages that are remembered.
const CHILDREN_MAX: usize = 1 << 19;
/// Leaves of indexes that are remembered.
const INDEX_LEAVES_MAX: usize = 64;
/// Streams that are followed at once: a join reads several trees in turn.
const STREAMS_MAX: usize = 48;
/// How far a walk over what is here goes before it gives up.
const WALK_MAX: usize = 1 << 12;

/// Levels of a tree: what is deeper is none.
const LEVELS_MAX: usize = 32;

/// How much may be fetched ahead now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of pages, before compression.
    pub bytes: u64,
    /// Pages.
    pub pages: usize,
}

/// What is known of a database's trees, and how they were read so far.
#[derive(Clone, Debug)]
pub struct Readahead {
    page_size: PageSize,
    page_count: PageCount,
    usable: usize,
    interior: HashMap<PageNo, Interior>,
    /// In the order in which they were learnt.
    learnt: VecDeque<PageNo>,
    children: usize,
    /// The interior page above a page, and which child it is.
    above: HashMap<PageNo, (PageNo, u32)>,
    /// Roots of tables by name, and of which table a tree is an index.
    tables: BTreeMap<Vec<u8>, PageNo>,
    indexes: HashMap<PageNo, Vec<u8>>,
    /// Pages of the schema's own tree.
    schema: HashSet<PageNo>,
    /// Rows that leaves of indexes name, newest last.
    named: VecDeque<(PageNo, Vec<i64>)>,
    streams: VecDeque<Stream>,
}

#[derive(Clone, Debug)]
struct Interior {
    is_table: bool,
    children: Vec<PageNo>,
    /// Of tables: the largest row id below each child but the last.
    row_ids: Vec<i64>,
}

/// Something that is read in an order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stream {
    order: Order,
    /// The page that was missed last.
    last: PageNo,
    /// The last page that was fetched ahead then; that page itself where none was.
    reach: PageNo,
    /// The next window; zero before there was a second miss in order.
    window: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Leaves of the tree with this root.
    Tree(PageNo),
    /// Rows of the table with this root, as leaves of its indexes name them.
    Rows(PageNo),
    /// Pages by number.
    Number,
}

impl Readahead {
    /// Of a database of which nothing is known yet.
    pub fn new(page_size: PageSize, page_count: PageCount) -> Self {
        Self {
            page_size,
            page_count,
            usable: page_size.len(),
            interior: HashMap::new(),
            learnt: VecDeque::new(),
            children: 0,
            above: HashMap::new(),
            tables: BTreeMap::new(),
            indexes: HashMap::new(),
            schema: HashSet::from([PageNo::FIRST]),
            named: VecDeque::new(),
            streams: VecDeque::new(),
        }
    }

    /// The database has another size now.
    pub fn resize(&mut self, page_count: PageCount) {
        self.page_count = page_count;
    }

    /// Looks at a page that is here: of the skeleton, or one that came along. Cheap for what is of no use.
    pub fn learn(&mut self, page: PageNo, image: &[u8]) {
        if page == PageNo::FIRST {
            let reserved = image.get(20).copied().map_or(0, usize::from);
            self.usable = self.page_size.len().saturating_sub(reserved);
        }
        match btree::kind(page, image) {
            Some(NodeKind::TableInterior | NodeKind::IndexInterior) => self.learn_interior(page, image),
            Some(NodeKind::IndexLeaf) => self.learn_index(page, image),
            Some(NodeKind::TableLeaf) if self.schema.contains(&page) => self.learn_schema(page, image),
            Some(NodeKind::TableLeaf) | None => {}
        }
    }

    /// Looks at the interior pages of a tree that were here before anybody looked.
    pub fn learn_tree(&mut self, root: PageNo, here: &dyn Fn(PageNo) -> Option<Vec<u8>>) {
        let mut level = vec![root];
        for _ in 0..LEVELS_MAX {
            let mut below = Vec::new();
            for page in level.iter().take(WALK_MAX) {
                if !self.interior.contains_key(page)
                    && let Some(image) = here(*page)
                {
                    self.learn_interior(*page, &image);
                }
                below.extend(self.interior.get(page).iter().flat_map(|known| known.children.iter().copied()));
            }
            // All leaves are equally deep: one child tells what all of them are.
            let is_interior = |page: &PageNo| {
                let known = self.interior.contains_key(page);
                known || here(*page).is_some_and(|image| btree::kind(*page, &image).is_some_and(NodeKind::is_interior))
            };
            if !below.iter().take(LEVELS_MAX).any(is_interior) {
                return;
            }
            level = below;
        }
    }

    fn learn_interior(&mut self, page: PageNo, image: &[u8]) {
        let Some(node) = Node::read(page, image) else { return };
        if !node.children.iter().all(|child| self.page_count.holds(*child)) {
            return;
        }
        if self.schema.contains(&page) {
            self.schema.extend(node.children.iter().copied());
        }
        let row_ids = node.row_ids(image).unwrap_or_default();
        self.forget(page);
        while self.children + node.children.len() > CHILDREN_MAX {
            let Some(oldest) = self.learnt.pop_front() else { break };
            self.forget(oldest);
        }
        for (at, child) in node.children.iter().enumerate() {
            self.above.insert(*child, (page, at as u32));
        }
        self.children += node.children.len();
        self.learnt.push_back(page);
        let interior = Interior { is_table: node.kind.is_table(), children: node.children, row_ids };
        self.interior.insert(page, interior);
    }

    fn forget(&mut self, page: PageNo) {
        let Some(old) = self.interior.remove(&page) else { return };
        self.children -= old.children.len();
        for child in old.children {
            if self.above.get(&child).is_some_and(|(above, _)| *above == page) {
                self.above.remove(&child);
            }
        }
        self.learnt.retain(|known| *known != page);
    }

    fn learn_schema(&mut self, page: PageNo, image: &[u8]) {
        let Some(node) = Node::read(page, image) else { return };
        for row in btree::schema_rows(image, &node) {
            if row.is_table {
                self.tables.insert(row.table, row.root);
            } else {
                self.indexes.insert(row.root, row.table);
            }
        }
    }

    fn learn_index(&mut self, page: PageNo, image: &[u8]) {
        let Some(node) = Node::read(page, image) else { return };
        let rows = btree::named_rows(image, &node, self.usable);
        self.named.retain(|(known, _)| *known != page);
        if self.named.len() >= INDEX_LEAVES_MAX {
            self.named.pop_front();
        }
        self.named.push_back((page, rows));
    }

    /// A page that was not here was asked for. Which others to fetch with it, in the order in which they will be wanted: none that
    /// is `here` (or on its way), no more than there is room for.
    pub fn missed(&mut self, page: PageNo, here: &dyn Fn(PageNo) -> bool, room: Room) -> Vec<PageNo> {
        let root = self.root(page);
        let mut found = Vec::new();
        if self.above.contains_key(&page) {
            let order = Order::Tree(root);
            found = self.follow(
                order,
                page,
                room,
                |ahead, stream| ahead.leads_to(stream.reach, page, here) || ahead.begins(stream.last, page),
                |ahead, max| ahead.leaves_after(page, here, max),
            );
            if found.is_empty() && self.interior.get(&root).is_some_and(|interior| interior.is_table) {
                let order = Order::Rows(root);
                found = self.follow(
                    order,
                    page,
                    room,
                    |ahead, stream| ahead.named_next(root, stream.reach, page, here).is_some(),
                    |ahead, max| ahead.rows_after(root, page, here, max),
                );
            }
        }
        if found.is_empty() {
            let order = Order::Number;
            found = self.follow(
                order,
                page,
                room,
                |_, stream| by_number(stream.reach, page, here),
                |ahead, max| ahead.numbers_after(page, here, max),
            );
        }
        found
    }

    /// Follows one order: whether this miss goes on from its last one, and what comes next.
    fn follow(
        &mut self,
        order: Order,
        page: PageNo,
        room: Room,
        goes_on: impl Fn(&Self, &Stream) -> bool,
        next: impl Fn(&Self, usize) -> Vec<PageNo>,
    ) -> Vec<PageNo> {
        let known = self.streams.iter().position(|stream| stream.order == order && goes_on(self, stream));
        let window = match known.and_then(|at| self.streams.remove(at)) {
            Some(stream) if stream.window > 0 => stream.window.saturating_mul(GROWTH),
            Some(_) => match order {
                Order::Rows(_) => WINDOW_ROWS as u64 * self.page_size.bytes(),
                Order::Tree(_) | Order::Number => WINDOW_BYTES,
            },
            None => 0,
        };
        let window = window.min(room.bytes);
        let max = usize::try_from(window / self.page_size.bytes()).unwrap_or(usize::MAX).min(room.pages);
        let found = if max > 0 { next(self, max) } else { Vec::new() };
        if self.streams.len() >= STREAMS_MAX {
            self.streams.pop_front();
        }
        let reach = found.last().copied().unwrap_or(page);
        self.streams.push_back(Stream { order, last: page, reach, window });
        found
    }

    /// Bytes of a page that SQLite uses.
    pub(crate) fn usable(&self) -> usize {
        self.usable
    }

    /// Whether a page can be one of this database.
    pub(crate) fn holds(&self, page: PageNo) -> bool {
        self.page_count.holds(page)
    }

    /// The topmost known page above a page.
    pub(crate) fn root(&self, page: PageNo) -> PageNo {
        let mut root = page;
        // Trees are not deep: what goes round in circles is no tree.
        for _ in 0..LEVELS_MAX {
            match self.above.get(&root) {
                Some((above, _)) => root = *above,
                None => break,
            }
        }
        root
    }

    /// The page after this one on its level, if the pages above are known; where one of them is not, that one.
    pub(crate) fn successor(&self, page: PageNo) -> Option<PageNo> {
        let mut at = page;
        for up in 0..32 {
            let (above, place) = self.above.get(&at)?;
            let children = &self.interior.get(above)?.children;
            if let Some(next) = children.get(*place as usize + 1) {
                let mut next = *next;
                for _ in 0..up {
                    match self.interior.get(&next).and_then(|interior| interior.children.first()) {
                        Some(first) => next = *first,
                        // Its children are not known before it is here.
                        None => return Some(next),
                    }
                }
                return Some(next);
            }
            at = *above;
        }
        None
    }

    /// Whether a page comes, in key order, right after what is here from another on.
    fn leads_to(&self, from: PageNo, page: PageNo, here: &dyn Fn(PageNo) -> bool) -> bool {
        let mut at = from;
        for _ in 0..WALK_MAX {
            match self.successor(at) {
                Some(next) if next == page => return true,
                Some(next) if here(next) => at = next,
                _ => return false,
            }
        }
        false
    }

    fn leaves_after(&self, page: PageNo, here: &dyn Fn(PageNo) -> bool, max: usize) -> Vec<PageNo> {
        let (mut found, mut passed) = (Vec::new(), 0);
        let mut at = page;
        while found.len() < max && passed < WALK_MAX {
            let Some(next) = self.successor(at) else { break };
            if here(next) {
                passed += 1;
            } else {
                found.push(next);
            }
            at = next;
        }
        found
    }

    /// The leaf of a table where a row is, or the page on the way there whose children are not known.
    fn leaf_of(&self, root: PageNo, row: i64) -> Option<PageNo> {
        let mut at = root;
        for _ in 0..32 {
            let Some(interior) = self.interior.get(&at) else { return Some(at) };
            let child = interior.row_ids.partition_point(|key| *key < row);
            at = *interior.children.get(child)?;
        }
        None
    }

    /// Rows of a table, by leaf of its indexes, the newest first.
    fn named_of(&self, root: PageNo) -> impl Iterator<Item = &[i64]> {
        let table = self.tables.iter().find(|(_, known)| **known == root).map(|(name, _)| name);
        self.named.iter().rev().filter_map(move |(leaf, rows)| {
            let index = self.indexes.get(&self.root(*leaf))?;
            (Some(index) == table).then_some(rows.as_slice())
        })
    }

    /// A leaf of an index that names, after a row in `last`, a row in `page`, and between them only rows that are here; and which
    /// row of it is in `page`.
    fn named_next(
        &self,
        root: PageNo,
        last: PageNo,
        page: PageNo,
        here: &dyn Fn(PageNo) -> bool,
    ) -> Option<(&[i64], usize)> {
        self.named_of(root).find_map(|rows| {
            let mut from_last = false;
            for (at, row) in rows.iter().enumerate() {
                let leaf = self.leaf_of(root, *row)?;
                if leaf == page && from_last {
                    return Some((rows, at));
                }
                from_last = leaf == last || (from_last && here(leaf));
            }
            None
        })
    }

    fn rows_after(&self, root: PageNo, page: PageNo, here: &dyn Fn(PageNo) -> bool, max: usize) -> Vec<PageNo> {
        let mut found: Vec<PageNo> = Vec::new();
        let mut seen = HashSet::new();
        for rows in self.named_of(root) {
            let of_page = |row: &i64| self.leaf_of(root, *row) == Some(page);
            let Some(at) = rows.iter().position(of_page) else { continue };
            for leaf in rows.iter().skip(at + 1).filter_map(|row| self.leaf_of(root, *row)) {
                if found.len() >= max {
                    return found;
                }
                if leaf != page && !here(leaf) && seen.insert(leaf) {
                    found.push(leaf);
                }
            }
            break;
        }
        found
    }

    fn numbers_after(&self, page: PageNo, here: &dyn Fn(PageNo) -> bool, max: usize) -> Vec<PageNo> {
        let pages = (page.get() + 1..=self.page_count.0).take(max).filter_map(PageNo::new);
        pages.filter(|page| !here(*page)).collect()
    }

    /// Whether a page is on the way down from another to its first leaf.
    fn begins(&self, from: PageNo, page: PageNo) -> bool {
        let mut at = page;
        for _ in 0..32 {
            match self.above.get(&at) {
                Some((above, 0)) if *above == from => return true,
                Some((above, 0)) => at = *above,
                _ => return false,
            }
        }
        false
    }
}

/// Whether a page comes, by number, right after what is here from another on.
fn by_number(from: PageNo, page: PageNo, here: &dyn Fn(PageNo) -> bool) -> bool {
    let between = page.get().checked_sub(from.get()).filter(|gap| (1..=WALK_MAX as u64).contains(gap));
    between.is_some() && (from.get() + 1..page.get()).filter_map(PageNo::new).all(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(number: u64) -> PageNo {
        PageNo::new(number).unwrap()
    }

    /// An interior page of a table: children, each but the last with the largest row below it.
    fn interior(children: &[u64], keys: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 512];
        image[0] = 0x05;
        let count = children.len() - 1;
        image[3..5].copy_from_slice(&(count as u16).to_be_bytes());
        for at in 0..count {
            let cell = 300 + at * 5;
            image[12 + 2 * at..14 + 2 * at].copy_from_slice(&(cell as u16).to_be_bytes());
            image[cell..cell + 4].copy_from_slice(&(children[at] as u32).to_be_bytes());
            image[cell + 4] = keys[at];
        }
        image[8..12].copy_from_slice(&(children[count] as u32).to_be_bytes());
        image
    }

    const ROOM: Room = Room { bytes: 64 << 20, pages: 100_000 };

    #[test]
    fn a_scan_in_key_order_fetches_the_children_of_interior_pages_and_a_lookup_nothing() {
        let mut ahead = Readahead::new(PageSize::MIN, PageCount(1000));
        // Two levels, leaves scattered: what follows is told by the tree, not by numbers.
        ahead.learn(page(2), &interior(&[3, 4], &[40]));
        ahead.learn(page(3), &interior(&[900, 700, 800], &[10, 20]));
        ahead.learn(page(4), &interior(&[600, 300, 500], &[60, 80]));
        let mut here: HashSet<PageNo> = HashSet::new();
        assert_eq!(ahead.missed(page(300), &|page| here.contains(&page), ROOM), [], "a lookup");
        here.insert(page(300));
        assert_eq!(ahead.missed(page(900), &|page| here.contains(&page), ROOM), [], "another");
        here.insert(page(900));
        let next = ahead.missed(page(700), &|page| here.contains(&page), ROOM);
        assert_eq!(next, [800, 600, 500].map(page), "what follows in key order, without what is here");
        assert!(ahead.missed(page(999), &|_| false, Room { bytes: 0, pages: 0 }).is_empty());
    }

    #[test]
    fn pages_in_the_order_of_their_numbers_are_followed_with_a_window_that_grows() {
        let mut ahead = Readahead::new(PageSize::new(4096).unwrap(), PageCount(100_000));
        let mut here: HashSet<PageNo> = (1..=116).map(page).collect();
        assert_eq!(ahead.missed(page(101), &|page| here.contains(&page), ROOM), []);
        let mut lens = Vec::new();
        let mut at = 117;
        for _ in 0..4 {
            let next = ahead.missed(page(at), &|page| here.contains(&page), ROOM);
            lens.push(next.len());
            here.insert(page(at));
            here.extend(next);
            while here.contains(&page(at)) {
                at += 1;
            }
        }
        assert_eq!(lens, [256, 2048, 16384, 16384]);
        assert_eq!(ahead.missed(page(99_000), &|page| here.contains(&page), ROOM), [], "elsewhere: from the beginning");
    }

    proptest! {
        #[test]
        fn nothing_is_fetched_that_is_here_or_beyond_the_end_or_more_than_there_is_room_for(
            pages in proptest::collection::vec((2u64..200, proptest::collection::vec(1u64..260, 2..9)), 0..20),
            misses in proptest::collection::vec(1u64..260, 1..60),
            room in 0usize..40,
        ) {
            let mut ahead = Readahead::new(PageSize::MIN, PageCount(200));
            for (at, children) in &pages {
                let keys: Vec<u8> = (0..children.len()).map(|key| key as u8 * 9).collect();
                ahead.learn(page(*at), &interior(children, &keys));
            }
            let mut here: HashSet<PageNo> = HashSet::new();
            for miss in misses {
                let room = Room { bytes: 512 * room as u64, pages: room };
                let next = ahead.missed(page(miss), &|page| here.contains(&page), room);
                prop_assert!(next.len() <= room.pages);
                prop_assert!(next.iter().all(|next| next.get() <= 200 && !here.contains(next)));
                here.insert(page(miss));
                here.extend(next);
            }
        }
    }
}
