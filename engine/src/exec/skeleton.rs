//! The pages that nearly every query needs: page 1, the schema, the roots, and the interior pages of the B-trees from the top
//! down, as far as a byte budget reaches.
//!
//! A skeleton is a hint: pages that make no sense as a B-tree are passed over, never followed, never an error.

use littoral_format::identity;
use littoral_plan::btree::{Node, NodeKind, kind, schema_rows};
use littoral_ports::{PageSource, SourceError};
use littoral_types::limits::{RECORD_PAGES_BYTES_MAX, SKELETON_BYTES_MAX};
use littoral_types::{IdentityKey, PageIdentity, PageNo, Skeleton, SkeletonPage};
use std::collections::{BTreeMap, VecDeque};

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
            roots.extend(schema_rows(&image, &node).into_iter().map(|row| row.root));
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

/// Of the pages that a checkpoint stages those that nearly every query needs: they travel in its record, so that whoever opens the
/// volume has them with it. Page 1 changes with every transaction; without this it would cost every first query a round trip.
///
/// Page 1 and interior pages, as far as a byte budget reaches.
#[derive(Debug, Default)]
pub(super) struct Passing {
    pages: BTreeMap<PageNo, Vec<u8>>,
}

impl Passing {
    /// A page is staged. One that is staged again is what it is then.
    pub(super) fn look(&mut self, page: PageNo, image: &[u8]) {
        let is_wanted = page == PageNo::FIRST || kind(page, image).is_some_and(NodeKind::is_interior);
        let most = (RECORD_PAGES_BYTES_MAX / image.len().max(1)).max(1);
        if !is_wanted {
            self.pages.remove(&page);
        } else if page == PageNo::FIRST || self.pages.len() < most || self.pages.contains_key(&page) {
            self.pages.insert(page, image.to_vec());
            if self.pages.len() > most {
                self.pages.pop_last();
            }
        }
    }

    /// Those that are published as they were seen.
    pub(super) fn published(self, key: &IdentityKey, identities: &BTreeMap<PageNo, PageIdentity>) -> Vec<SkeletonPage> {
        let pages = self.pages.into_iter().map(|(page, image)| SkeletonPage { page, image });
        pages.filter(|kept| identities.get(&kept.page) == Some(&identity::of(key, &kept.image))).collect()
    }
}
