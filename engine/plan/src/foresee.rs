//! Which pages a running statement will ask for, by its program: the outer loop's rows that come next name what the inner searches look
//! up, and those rows name what is looked up next.
//!
//! A page is missed. Some row of a loop leads to it: that row is found by trying the rows of the leaf that was read last. Then the
//! rows after it are followed down the inner trees, all at once and level by level, as far as the pages are here: what is not is
//! fetched in one round, and the next round goes on from there.
//!
//! How many rows are followed: [`SURE_ROWS`] at once where the program looks each row up and has no limit; else [`FIRST_ROWS`].
//! [`GROWTH`] times as many when the statement went on where that ended; none where it passed rows over, since something filters them.
//! Rows that a loop will not come to, because it ends where its keys differ, are never followed.

use crate::btree::NodeKind;
use crate::program::{Key, Nest, Part, Search, Source};
use crate::readahead::Readahead;
use crate::record::{Row, Value};
use crate::tree::{self, Look, Met, Pages};
use littoral_types::PageNo;
use std::collections::{HashMap, HashSet, VecDeque};

/// Rows that are followed first where the program is sure to look them up.
pub const SURE_ROWS: usize = 128;
/// The same where a limit or a filter may spare them.
pub const FIRST_ROWS: usize = 16;
/// By how much a window grows that was right.
pub const GROWTH: usize = 8;
/// Rows that are followed at most.
const ROWS_MAX: usize = 1024;
/// Searches that finding a row, or one round, makes at most: some hundredths of a second.
const SEARCHES_MAX: usize = 1 << 13;
/// Entries of an index that one key leads to at most.
const ENTRIES_MAX: usize = 256;
/// Leaves that are tried to find the row that led to a page.
const LEAVES_MAX: usize = 8;
/// Loops that are remembered.
const FOLLOWED_MAX: usize = 64;

/// Reads a page that is here.
pub type Here<'a> = &'a dyn Fn(PageNo) -> Option<Vec<u8>>;

/// What was foreseen so far, by statement and loop.
#[derive(Clone, Debug, Default)]
pub struct Foresight {
    followed: VecDeque<Followed>,
}

#[derive(Clone, Debug)]
struct Followed {
    statement: u64,
    scan: usize,
    /// The place up to which it was followed.
    reach: Place,
    /// How many rows then.
    window: usize,
}

/// A row of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    leaf: PageNo,
    /// In the order of the loop.
    row: usize,
}

/// Rows of a loop that are followed down.
#[derive(Clone, Debug)]
pub struct Walk {
    scan: usize,
    from: Place,
    rows: usize,
}

impl Foresight {
    /// Whether a row of one of the statement's loops leads to a page that is missed; if so, which rows are followed. `recent` are pages that
    /// were read, the newest first.
    pub fn begin(
        &mut self,
        statement: u64,
        nest: &Nest,
        ahead: &Readahead,
        missed: PageNo,
        recent: &[PageNo],
        here: Here<'_>,
    ) -> Option<Walk> {
        if !nest.searches_in(ahead.root(missed)) {
            return None;
        }
        let pages = Pages::new(here, ahead.usable());
        let walker = Walker { nest, ahead, pages: &pages };
        let mut searches = SEARCHES_MAX;
        for (scan, looped) in nest.scans.iter().enumerate() {
            let root = nest.trees.get(&looped.cursor)?.root;
            let known = self.followed.iter().position(|known| (known.statement, known.scan) == (statement, scan));
            let reach = known.and_then(|at| self.followed.get(at)).map(|known| known.reach);
            for leaf in walker.leaves(root, recent) {
                let from = reach.filter(|reach| reach.leaf == leaf).map_or(0, |reach| reach.row);
                let found = walker.lead(scan, leaf, from, missed, &mut searches).or_else(|| match from {
                    0 => None,
                    // The loop began anew.
                    _ => walker.lead(scan, leaf, 0, missed, &mut searches).map(|(row, _)| (row, 0)),
                });
                let Some((row, passed)) = found else { continue };
                let before = known.and_then(|at| self.followed.remove(at)).map(|known| known.window);
                let window = match before {
                    None if looped.sure => SURE_ROWS,
                    None => FIRST_ROWS,
                    Some(before) if passed > before / 4 => 0,
                    Some(0) => FIRST_ROWS,
                    Some(before) => before.saturating_mul(GROWTH).min(ROWS_MAX),
                };
                let from = Place { leaf, row };
                let walk = Walk { scan, from, rows: window };
                let reach = walker.reach(&walk);
                if self.followed.len() >= FOLLOWED_MAX {
                    self.followed.pop_front();
                }
                self.followed.push_back(Followed { statement, scan, reach, window });
                return (window > 0).then_some(walk);
            }
        }
        None
    }
}

impl Walk {
    /// The pages that its rows lead to and that are not here: one level of it. None when all is here.
    pub fn missing(&self, nest: &Nest, ahead: &Readahead, here: Here<'_>, max: usize) -> Vec<PageNo> {
        let pages = Pages::new(here, ahead.usable());
        let walker = Walker { nest, ahead, pages: &pages };
        let mut found = Found::new(max);
        let (_, next) = walker.rows(self, |row| {
            found.follow(&walker, self.scan, row);
            found.pages.len() < max
        });
        next.into_iter().for_each(|leaf| found.miss(leaf));
        found.pages.retain(|page| ahead.holds(*page));
        found.pages
    }
}

struct Walker<'a> {
    nest: &'a Nest,
    ahead: &'a Readahead,
    pages: &'a Pages<'a>,
}

/// Pages that are missing, in the order in which they will be asked for.
struct Found {
    pages: Vec<PageNo>,
    seen: HashSet<PageNo>,
    max: usize,
    searches: usize,
}

impl Found {
    fn new(max: usize) -> Self {
        Self { pages: Vec::new(), seen: HashSet::new(), max, searches: SEARCHES_MAX }
    }

    fn miss(&mut self, page: PageNo) {
        if self.pages.len() < self.max && self.seen.insert(page) {
            self.pages.push(page);
        }
    }

    fn follow(&mut self, walker: &Walker<'_>, scan: usize, met: Option<Row>) {
        let cursor = walker.nest.scans.get(scan).map(|scan| scan.cursor);
        if let Some((row, cursor)) = met.zip(cursor) {
            let mut rows = HashMap::from([(cursor, row)]);
            walker.expand(0, &mut rows, self);
        }
    }
}

impl Walker<'_> {
    /// Leaves of a tree, those that were read last first; where none is known to be one, those that the tree begins with.
    fn leaves(&self, root: PageNo, recent: &[PageNo]) -> Vec<PageNo> {
        let is_leaf = |page: PageNo| matches!(self.pages.look(page), Look::Node(node) if !node.node.kind.is_interior());
        let mut found: Vec<PageNo> = Vec::new();
        for page in recent.iter().copied().filter(|page| *page == root || self.ahead.root(*page) == root) {
            if found.len() < LEAVES_MAX && !found.contains(&page) && is_leaf(page) {
                found.push(page);
            }
        }
        let mut first = root;
        for _ in 0..32 {
            match self.pages.look(first) {
                Look::Node(node) if node.node.kind.is_interior() => match node.node.children.first() {
                    Some(child) => first = *child,
                    None => break,
                },
                Look::Node(_) => {
                    let mut leaf = Some(first);
                    while let Some(next) = leaf.filter(|next| found.len() < LEAVES_MAX && is_leaf(*next)) {
                        if !found.contains(&next) {
                            found.push(next);
                        }
                        leaf = self.ahead.successor(next);
                    }
                    break;
                }
                Look::Missing | Look::Strange => break,
            }
        }
        found
    }

    /// The rows of a leaf in the order of a loop, from one of them on.
    fn of_leaf(&self, scan: usize, leaf: PageNo, from: usize) -> impl Iterator<Item = Option<Row>> {
        let backward = self.nest.scans.get(scan).is_some_and(|scan| scan.backward);
        let node = match self.pages.look(leaf) {
            Look::Node(node) if matches!(node.node.kind, NodeKind::TableLeaf | NodeKind::IndexLeaf) => Some(node),
            _ => None,
        };
        let len = node.as_ref().map_or(0, |node| node.len());
        (from..len).map(move |nth| node.as_ref()?.row(if backward { len - 1 - nth } else { nth }))
    }

    /// The row of a leaf that leads to a page; and how many before it lead to others that are not here.
    fn lead(
        &self,
        scan: usize,
        leaf: PageNo,
        from: usize,
        missed: PageNo,
        searches: &mut usize,
    ) -> Option<(usize, usize)> {
        let mut passed = 0;
        for (nth, row) in (from..).zip(self.of_leaf(scan, leaf, from)) {
            if *searches == 0 {
                return None;
            }
            let mut found = Found { searches: *searches, ..Found::new(usize::MAX) };
            found.follow(self, scan, row);
            *searches = found.searches;
            if found.seen.contains(&missed) {
                return Some((nth, passed));
            }
            passed += usize::from(!found.pages.is_empty());
        }
        None
    }

    /// The rows that a walk follows, in order, as long as `follow` wants more: the place after the last, and the
    /// loop's next leaf where that is not here.
    fn rows(&self, walk: &Walk, mut follow: impl FnMut(Option<Row>) -> bool) -> (Place, Option<PageNo>) {
        let Place { mut leaf, row: mut from } = walk.from;
        let bound = self.bound(walk);
        let mut left = walk.rows;
        let backward = self.nest.scans.get(walk.scan).is_some_and(|scan| scan.backward);
        loop {
            let mut at = from;
            for row in self.of_leaf(walk.scan, leaf, from) {
                let ends = bound.as_ref().is_some_and(|(key, fields)| {
                    row.as_ref().is_some_and(|row| row.compare(key, fields).is_none_or(std::cmp::Ordering::is_ne))
                });
                if left == 0 || ends {
                    return (Place { leaf, row: at }, None);
                }
                (at, left) = (at + 1, left - 1);
                if !follow(row) {
                    return (Place { leaf, row: at }, None);
                }
            }
            let next = if backward { None } else { self.ahead.successor(leaf).filter(|next| self.ahead.holds(*next)) };
            let Some(next) = next.filter(|_| left > 0) else { return (Place { leaf, row: at }, None) };
            match self.pages.look(next) {
                Look::Node(node) if !node.node.kind.is_interior() => (leaf, from) = (next, 0),
                Look::Missing => return (Place { leaf, row: at }, Some(next)),
                Look::Node(_) | Look::Strange => return (Place { leaf, row: at }, None),
            }
        }
    }

    /// The fields in which all of a loop's entries are equal.
    #[allow(clippy::type_complexity, reason = "a key and how it is compared")]
    fn bound(&self, walk: &Walk) -> Option<(Vec<Value>, &[crate::record::KeyField])> {
        let scan = self.nest.scans.get(walk.scan).filter(|scan| scan.equal > 0)?;
        let fields = self.nest.trees.get(&scan.cursor)?.fields.as_deref()?;
        let first = self.of_leaf(walk.scan, walk.from.leaf, walk.from.row).next()??;
        let key: Option<Vec<Value>> = (0..scan.equal).map(|nth| first.field(nth)).collect();
        Some((key?, fields))
    }

    fn reach(&self, walk: &Walk) -> Place {
        self.rows(walk, |_| true).0
    }

    /// Follows the searches from the one at `from` on, for the rows that the cursors stand on.
    fn expand(&self, from: usize, rows: &mut HashMap<i64, Row>, found: &mut Found) {
        for (at, search) in self.nest.searches.iter().enumerate().skip(from) {
            if found.searches == 0 || found.pages.len() >= found.max {
                return;
            }
            // What a loop stands on already, what does not come from here, and what must be known first.
            if rows.contains_key(&search.cursor) || !reached(search, rows) {
                continue;
            }
            found.searches -= 1;
            match self.search(search, rows) {
                Some(Met::Missing(page)) => found.miss(page),
                Some(Met::Rows(met, more)) => {
                    for row in met {
                        rows.insert(search.cursor, row);
                        self.expand(at + 1, rows, found);
                        rows.remove(&search.cursor);
                    }
                    more.into_iter().for_each(|page| found.miss(page));
                }
                None => {}
            }
        }
    }

    fn search(&self, search: &Search, rows: &HashMap<i64, Row>) -> Option<Met> {
        let tree = self.nest.trees.get(&search.cursor)?;
        match (&search.key, &tree.fields) {
            (Key::Row(part), None) => Some(tree::row(self.pages, tree.root, value(part, rows)?.row()?)),
            (Key::Entries(parts, equal), Some(fields)) => {
                // As many fields as are known; a comparison with null finds nothing.
                let key: Option<Vec<Value>> = parts.iter().map(|part| value(part, rows)).collect();
                let key = key?;
                if key.contains(&Value::Null) {
                    return None;
                }
                Some(tree::entries(self.pages, tree.root, fields, &key, *equal, ENTRIES_MAX))
            }
            (Key::Row(_), Some(_)) | (Key::Entries(..), None) => None,
        }
    }
}

/// Whether a search's key comes, all of it, from constants and rows that are known, and not from constants alone.
fn reached(search: &Search, rows: &HashMap<i64, Row>) -> bool {
    let mut cursors = search.parts().iter().filter_map(|part| part.source.cursor());
    cursors.all(|cursor| rows.contains_key(&cursor))
}

fn value(part: &Part, rows: &HashMap<i64, Row>) -> Option<Value> {
    let value = match &part.source {
        Source::Column(cursor, field) => rows.get(cursor)?.field(*field)?,
        Source::Row(cursor) => Value::Integer(rows.get(cursor)?.names()?),
        Source::Constant(value) => value.clone(),
    };
    Some(match part.affinity {
        Some(affinity) => value.with_affinity(affinity),
        None => value,
    })
}
