//! Searches in SQLite's trees over the pages that are here: they end at a row, or at the page that must come first.

use crate::btree::{Node, NodeKind};
use crate::record::{KeyField, Row, Value};
use littoral_types::PageNo;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::rc::Rc;

/// Trees are not deep: what goes round in circles is no tree.
const DEPTH_MAX: usize = 32;

/// The pages that are here, each read once.
pub(crate) struct Pages<'a> {
    read: &'a dyn Fn(PageNo) -> Option<Vec<u8>>,
    usable: usize,
    known: RefCell<HashMap<PageNo, Option<Rc<Leafed>>>>,
}

/// A page of a tree.
pub(crate) struct Leafed {
    pub(crate) node: Node,
    image: Vec<u8>,
    usable: usize,
}

impl Leafed {
    pub(crate) fn len(&self) -> usize {
        self.node.cells.len()
    }

    pub(crate) fn row(&self, nth: usize) -> Option<Row> {
        Row::read(&self.image, self.node.kind, *self.node.cells.get(nth)?, self.usable)
    }
}

/// What a page is.
pub(crate) enum Look {
    /// It is not here.
    Missing,
    /// A page of a tree.
    Node(Rc<Leafed>),
    /// Here, and no page of a tree.
    Strange,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(read: &'a dyn Fn(PageNo) -> Option<Vec<u8>>, usable: usize) -> Self {
        Self { read, usable, known: RefCell::default() }
    }

    pub(crate) fn look(&self, page: PageNo) -> Look {
        if let Some(known) = self.known.borrow().get(&page) {
            return known.clone().map_or(Look::Strange, Look::Node);
        }
        // What is not here may be here later: that is not remembered.
        let Some(image) = (self.read)(page) else { return Look::Missing };
        let node = Node::read(page, &image).map(|node| Rc::new(Leafed { node, image, usable: self.usable }));
        self.known.borrow_mut().insert(page, node.clone());
        node.map_or(Look::Strange, Look::Node)
    }
}

/// What a search came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Met {
    /// Its rows, in order; and the page that must be here before it is known whether there are more.
    Rows(Vec<Row>, Option<PageNo>),
    /// This page is not here.
    Missing(PageNo),
}

const NOTHING: Met = Met::Rows(Vec::new(), None);

/// The row of a table.
pub(crate) fn row(pages: &Pages<'_>, root: PageNo, row_id: i64) -> Met {
    let mut at = root;
    for _ in 0..DEPTH_MAX {
        let node = match pages.look(at) {
            Look::Missing => return Met::Missing(at),
            Look::Strange => return NOTHING,
            Look::Node(node) => node,
        };
        let place = partition(node.len(), |nth| node.row(nth)?.row_id.map(|key| key < row_id));
        let Some(place) = place else { return NOTHING };
        match node.node.kind {
            NodeKind::TableInterior => match node.node.children.get(place) {
                Some(child) => at = *child,
                None => return NOTHING,
            },
            NodeKind::TableLeaf => {
                let found = node.row(place).filter(|found| found.row_id == Some(row_id));
                return Met::Rows(found.into_iter().collect(), None);
            }
            NodeKind::IndexInterior | NodeKind::IndexLeaf => return NOTHING,
        }
    }
    NOTHING
}

/// The entries of an index that begin as `key`, from the first one not before it: those whose first `equal` fields are the key's, or
/// only the first where there are none; no more than `max`.
pub(crate) fn entries(
    pages: &Pages<'_>,
    root: PageNo,
    fields: &[KeyField],
    key: &[Value],
    equal: usize,
    max: usize,
) -> Met {
    let mut path: Vec<(Rc<Leafed>, usize)> = Vec::new();
    let mut at = root;
    loop {
        let node = match pages.look(at) {
            Look::Missing => return Met::Missing(at),
            Look::Strange => return NOTHING,
            Look::Node(node) => node,
        };
        if node.node.kind.is_table() || path.len() >= DEPTH_MAX {
            return NOTHING;
        }
        let place = partition(node.len(), |nth| Some(node.row(nth)?.compare(key, fields)? == Ordering::Less));
        let Some(place) = place else { return NOTHING };
        let child = node.node.children.get(place).copied();
        path.push((node, place));
        match child {
            Some(child) => at = child,
            None => break,
        }
    }
    let wanted = key.get(..equal).unwrap_or(key);
    let mut found = Vec::new();
    // The last of the path is a leaf, or an interior page whose entry comes next.
    while found.len() < max {
        let Some((node, place)) = path.last_mut() else { break };
        let Some(row) = node.row(*place) else {
            path.pop();
            continue;
        };
        if equal > 0 && row.compare(wanted, fields) != Some(Ordering::Equal) {
            break;
        }
        found.push(row);
        if equal == 0 {
            break;
        }
        *place += 1;
        let mut next = node.node.children.get(*place).copied();
        while let Some(child) = next {
            match pages.look(child) {
                Look::Missing => return Met::Rows(found, Some(child)),
                Look::Node(below) if path.len() < DEPTH_MAX => {
                    next = below.node.children.first().copied();
                    path.push((below, 0));
                }
                Look::Strange | Look::Node(_) => return Met::Rows(found, None),
            }
        }
    }
    Met::Rows(found, None)
}

/// The first place at which `before` is no longer so; `None` where one of the answers is not known.
fn partition(len: usize, before: impl Fn(usize) -> Option<bool>) -> Option<usize> {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low.midpoint(high);
        if before(middle)? { low = middle + 1 } else { high = middle }
    }
    Some(low)
}
