//! The pages that nearly every query needs: page 1, the schema, the roots, and the interior pages of the B-trees from the top
//! down, as far as a byte budget reaches.
//!
//! A skeleton is a hint: pages that make no sense as a B-tree are passed over, never followed, never an error.

use littoral_ports::{PageSource, SourceError};
use littoral_types::limits::SKELETON_BYTES_MAX;
use littoral_types::{PageNo, Skeleton, SkeletonPage};
use std::collections::{BTreeMap, VecDeque};

/// Where the B-tree header of page 1 begins: behind the database header.
const DATABASE_HEADER: usize = 100;

/// Collects the skeleton of a database.
pub fn skeleton(source: &mut dyn PageSource) -> Result<Skeleton, SourceError> {
    let mut walk = Walk { source, room: SKELETON_BYTES_MAX, pages: BTreeMap::new() };
    let Some(first) = walk.take(PageNo::FIRST)? else { return Ok(Skeleton::default()) };
    let roots = walk.schema(&first)?;
    let mut level: Vec<PageNo> = Vec::new();
    for root in roots {
        if walk.take(root)?.is_some() {
            level.push(root);
        }
    }
    // Level by level through all trees, so that a small budget helps every table a little.
    while !level.is_empty() {
        let mut below = Vec::new();
        for page in level {
            let Some(children) =
                walk.pages.get(&page).and_then(|image| Node::read(page, image)).map(|node| node.children)
            else {
                continue;
            };
            // A tree is as deep everywhere as it is on its left edge: one look tells whether the next level is leaves.
            if !children.first().is_some_and(|child| matches!(walk.peek(*child), Ok(Some(true)))) {
                continue;
            }
            for child in children {
                if walk.take(child)?.is_some() {
                    below.push(child);
                }
            }
        }
        level = below;
    }
    Ok(Skeleton { pages: walk.pages.into_iter().map(|(page, image)| SkeletonPage { page, image }).collect() })
}

struct Walk<'a> {
    source: &'a mut dyn PageSource,
    room: usize,
    pages: BTreeMap<PageNo, Vec<u8>>,
}

impl Walk<'_> {
    fn read(&mut self, page: PageNo) -> Result<Option<Vec<u8>>, SourceError> {
        if !self.source.page_count().holds(page) || self.source.lock_page() == Some(page) {
            return Ok(None);
        }
        let mut image = vec![0; self.source.page_size().len()];
        self.source.read(page, &mut image)?;
        Ok(Some(image))
    }

    /// Keeps a page; `None` when it was kept before, makes no sense, or the budget is spent.
    fn take(&mut self, page: PageNo) -> Result<Option<Vec<u8>>, SourceError> {
        let size = self.source.page_size().len();
        if self.room < size || self.pages.contains_key(&page) {
            return Ok(None);
        }
        let image = self.read(page)?;
        if let Some(image) = &image {
            self.room -= size;
            self.pages.insert(page, image.clone());
        }
        Ok(image)
    }

    /// Whether a page is an interior page; `None` when there is no such page.
    fn peek(&mut self, page: PageNo) -> Result<Option<bool>, SourceError> {
        Ok(self.read(page)?.map(|image| Node::read(page, &image).is_some_and(|node| !node.children.is_empty())))
    }

    /// Keeps the schema's tree and gives the roots it names.
    fn schema(&mut self, first: &[u8]) -> Result<Vec<PageNo>, SourceError> {
        let mut roots = Vec::new();
        let mut queue = VecDeque::from([(PageNo::FIRST, first.to_vec())]);
        while let Some((page, image)) = queue.pop_front() {
            let Some(node) = Node::read(page, &image) else { continue };
            roots.extend(node.cells.iter().filter_map(|cell| root_page(&image, *cell)));
            for child in node.children {
                if let Some(image) = self.take(child)? {
                    queue.push_back((child, image));
                }
            }
        }
        roots.sort_unstable();
        roots.dedup();
        Ok(roots)
    }
}

/// What a B-tree page says of itself.
struct Node {
    /// Children in key order; none for a leaf.
    children: Vec<PageNo>,
    /// Where the cells of a table leaf begin.
    cells: Vec<usize>,
}

impl Node {
    fn read(page: PageNo, image: &[u8]) -> Option<Node> {
        let start = if page == PageNo::FIRST { DATABASE_HEADER } else { 0 };
        let kind = *image.get(start)?;
        let interior = matches!(kind, 0x02 | 0x05);
        if !interior && !matches!(kind, 0x0a | 0x0d) {
            return None;
        }
        let count = usize::from(u16_at(image, start + 3)?);
        let pointers = start + if interior { 12 } else { 8 };
        let cells: Option<Vec<usize>> =
            (0..count).map(|at| u16_at(image, pointers + 2 * at).map(usize::from)).collect();
        let cells = cells?;
        let mut children = Vec::new();
        if interior {
            for cell in &cells {
                children.push(PageNo::new(u64::from(u32_at(image, *cell)?))?);
            }
            children.push(PageNo::new(u64::from(u32_at(image, start + 8)?))?);
        }
        Some(Node { children, cells: if kind == 0x0d { cells } else { Vec::new() } })
    }
}

/// The root page in a row of `sqlite_schema`: the fourth column of a table leaf's cell.
fn root_page(image: &[u8], cell: usize) -> Option<PageNo> {
    let mut at = cell;
    varint(image, &mut at)?; // Payload size.
    varint(image, &mut at)?; // Row id.
    let record = at;
    let header = usize::try_from(varint(image, &mut at)?).ok()?;
    let mut value = record.checked_add(header)?;
    for _ in 0..3 {
        value = value.checked_add(width(varint(image, &mut at)?)?)?;
    }
    let len = match varint(image, &mut at)? {
        8 => return None, // The constant 0: a view or a virtual table.
        9 => return Some(PageNo::FIRST),
        kind @ 1..=6 => width(kind)?,
        _ => return None,
    };
    let bytes = image.get(value..value.checked_add(len)?)?;
    PageNo::new(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Bytes of a value of this serial type.
fn width(kind: u64) -> Option<usize> {
    Some(match kind {
        0 | 8 | 9 => 0,
        1..=4 => usize::try_from(kind).ok()?,
        5 => 6,
        6 | 7 => 8,
        10 | 11 => return None,
        kind => usize::try_from((kind - 12) / 2).ok()?,
    })
}

fn varint(image: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for step in 0..9 {
        let byte = *image.get(*at)?;
        *at += 1;
        if step == 8 {
            return Some(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

fn u16_at(image: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(image.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(image: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(image.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
