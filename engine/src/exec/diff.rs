//! Which pages differ from the last checkpoint, by what they hold.

use super::checkpoint::unfolded_pages;
use crate::error::EngineError;
use littoral_format::identity;
use littoral_plan::ChunkChange;
use littoral_ports::{Changed, Manifest, PageSource, Progress, Unit};
use littoral_types::{ChunkId, Geometry, PageCount, PageIdentity, PageNo, VolumeRow};
use std::iter::Peekable;

/// Identities asked for at once.
const STEP: u64 = 4096;

/// Pages that lie no further apart are asked for together: what lies between them costs less than asking anew.
const NEAR: u64 = 64;

/// Shows a page that was read, of a database of so many.
pub type Look<'a> = &'a mut dyn FnMut(PageNo, &[u8], PageCount);

/// What differs.
#[derive(Debug, Default)]
pub struct Difference {
    /// By ascending chunk.
    pub changes: Vec<ChunkChange>,
    /// The new identity of every changed page, ascending.
    pub identities: Vec<(PageNo, PageIdentity)>,
    /// Pages that were looked at.
    pub looked_at: u64,
}

impl Difference {
    /// The new identity of a changed page.
    pub fn identity(&self, page: PageNo) -> Option<PageIdentity> {
        let at = self.identities.binary_search_by_key(&page, |(page, _)| *page).ok()?;
        self.identities.get(at).map(|(_, identity)| *identity)
    }
}

/// Compares a database with what the manifest knows of its pages. A page without a known identity differs.
pub fn diff(
    manifest: &dyn Manifest,
    row: &VolumeRow,
    source: &mut dyn PageSource,
    progress: &dyn Progress,
    look: Look<'_>,
) -> Result<Difference, EngineError> {
    let page_size = source.page_size();
    let size = source.page_count();
    // Identities of pages of another size say nothing.
    let comparable = row.tail.figures.page_size == Some(page_size);
    let pages: Box<dyn Iterator<Item = PageNo>> = match source.changed() {
        Changed::Pages(pages) if comparable => {
            // Pages that the database grew by may never have been written, and are new all the same (rule S11).
            let before = row.tail.figures.page_count;
            // What segments brought is compared too: the checkpoint puts it in the place of theirs, whoever shipped it.
            let mut looked_at = unfolded_pages(manifest, row)?;
            looked_at.extend(pages);
            let old = looked_at.into_iter().filter(move |page| size.holds(*page) && before.holds(*page));
            Box::new(old.chain((before.0..size.0).map(PageNo::from_index)))
        }
        Changed::Pages(_) | Changed::Unknown => Box::new((0..size.0).map(PageNo::from_index)),
    };
    progress.phase("comparing", size.0, Unit::Pages);
    let mut difference = Difference::default();
    let mut buffer = vec![0; page_size.len()];
    let mut pages = pages.peekable();
    while let Some(run) = next_run(&mut pages) {
        let (first, last) = (run[0], run[run.len() - 1]);
        let known = match comparable {
            true => {
                manifest.identities(&row.meta.id, first, usize::try_from(last.get() - first.get() + 1).unwrap_or(0))?
            }
            false => Vec::new(),
        };
        for page in run {
            source.read(page, &mut buffer)?;
            look(page, &buffer, size);
            let identity = identity::of(&row.meta.identity_key, &buffer);
            let before = usize::try_from(page.get() - first.get()).ok().and_then(|at| known.get(at).copied().flatten());
            if before != Some(identity) {
                difference.identities.push((page, identity));
            }
            difference.looked_at += 1;
            progress.advance(1);
        }
    }
    let has_base = |chunk| Ok(comparable && manifest.has_base(&row.meta.id, chunk)?);
    difference.changes = by_chunk(Geometry::new(page_size), has_base, &difference.identities)?;
    Ok(difference)
}

/// The next of these ascending pages that lie near one another: a handful of pages of a large database costs what it costs in a small one.
fn next_run(pages: &mut Peekable<impl Iterator<Item = PageNo>>) -> Option<Vec<PageNo>> {
    let first = pages.next()?;
    let mut run = vec![first];
    let mut last = first;
    while let Some(page) = pages.next_if(|page| page.get() - last.get() <= NEAR && page.get() - first.get() < STEP) {
        run.push(page);
        last = page;
    }
    Some(run)
}

/// What pages hold that changed while others were read: all of them count, whatever they held before, since nobody knows which
/// version of them was written.
pub fn reread(
    row: &VolumeRow,
    source: &mut dyn PageSource,
    pages: Vec<PageNo>,
    has_base: impl Fn(ChunkId) -> Result<bool, EngineError>,
    look: Look<'_>,
) -> Result<Difference, EngineError> {
    let size = source.page_count();
    let mut buffer = vec![0; source.page_size().len()];
    let mut difference = Difference::default();
    for page in pages.into_iter().filter(|page| size.holds(*page)) {
        source.read(page, &mut buffer)?;
        look(page, &buffer, size);
        difference.identities.push((page, identity::of(&row.meta.identity_key, &buffer)));
        difference.looked_at += 1;
    }
    difference.changes = by_chunk(Geometry::new(source.page_size()), has_base, &difference.identities)?;
    Ok(difference)
}

fn by_chunk(
    geometry: Geometry,
    has_base: impl Fn(ChunkId) -> Result<bool, EngineError>,
    identities: &[(PageNo, PageIdentity)],
) -> Result<Vec<ChunkChange>, EngineError> {
    let mut changes: Vec<ChunkChange> = Vec::new();
    for (page, _) in identities {
        let chunk = geometry.chunk_of(*page);
        match changes.last_mut().filter(|last| last.chunk == chunk) {
            Some(last) => last.pages.push(*page),
            None => {
                let has_base = has_base(chunk)?;
                changes.push(ChunkChange { chunk, pages: vec![*page], has_base });
            }
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_all_pages_in_their_order_and_what_is_asked_for_is_hardly_more() {
        let gaps = [1, 1, 2, NEAR - 1, NEAR, NEAR + 1, STEP - 1, STEP, 3 * STEP];
        // Every few gaps in another order, and so many neighbours that one run does not hold them.
        let strides = (1..gaps.len()).flat_map(|step| (0..60).map(move |nth| gaps[nth * step % gaps.len()]));
        let pages: Vec<PageNo> = strides
            .chain((0..3 * STEP).map(|_| 1))
            .scan(0, |at, gap| {
                *at += gap;
                Some(PageNo::from_index(*at))
            })
            .collect();
        let mut left = pages.iter().copied().peekable();
        let runs: Vec<Vec<PageNo>> = std::iter::from_fn(|| next_run(&mut left)).collect();
        for run in &runs {
            assert!(run[run.len() - 1].get() - run[0].get() < STEP);
            assert!(run.windows(2).all(|pair| pair[1].get() - pair[0].get() <= NEAR));
        }
        // No run ends where the next page would have been asked for with it.
        for pair in runs.windows(2) {
            let (first, last, next) = (pair[0][0], pair[0][pair[0].len() - 1], pair[1][0]);
            assert!(next.get() - last.get() > NEAR || next.get() - first.get() >= STEP);
        }
        assert_eq!(runs.concat(), pages);
    }
}
