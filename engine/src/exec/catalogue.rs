//! The catalogue of a checkpoint: which tables and indexes there are, and what each of them costs.
//!
//! | known before | looked at | so that |
//! |---|---|---|
//! | owners of all pages | what the comparison reads anyway | all are known again |
//! | nothing, and all pages are compared | all of them | all are known |
//! | nothing, or not all | the roots, and what is open, up to a bound, as far as it is here | more is known with every checkpoint |
//!
//! What is open is sought in one stretch of the database a checkpoint, and the next generation's checkpoint seeks in the next one: nobody
//! has to remember where he was.
//!
//! What this room promises:
//! 1. Nothing is read of the database that the checkpoint would not read, but for that bound while owners are missing (invariant I12).
//! 2. What a record says of objects is of the very commit that it leads to, and its sum is that commit's number of pages.
//! 3. A page whose owner is not known counts as unattributed, and no checkpoint fails for it.
//! 4. Memory is bounded, however large the database is.

use crate::error::EngineError;
use littoral_format::blob::Index;
use littoral_plan::catalogue::{Known, Looks, State, found, trees};
use littoral_ports::{Manifest, PageSource, SourceError};
use littoral_types::limits::{CATALOGUE_OWNERS_MAX, CATALOGUE_READS_MAX};
use littoral_types::{
    BlobRef, Generation, Lsn, ManifestOp, ObjectId, ObjectMark, PageCount, PageNo, PageOwner, PageSize, Part, Position,
    Taken, Tree, VolumeId, VolumeRow,
};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Owners that are read at once.
const STEP: u64 = 256;

/// What a checkpoint finds out of its pages' owners.
#[derive(Debug)]
pub(super) struct Catalogue {
    looks: Looks,
    has_owners: bool,
}

/// What a record says of them, and what is remembered here.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) ops: Vec<ManifestOp>,
    /// Where it changed; `None` where nothing is known.
    pub(super) owners: Option<Vec<(PageNo, PageOwner)>>,
}

impl Catalogue {
    /// Of a database whose comparison is about to begin.
    pub(super) fn begin(manifest: &dyn Manifest, row: &VolumeRow, page_size: PageSize) -> Result<Self, EngineError> {
        let is_as_large = row.tail.figures.page_size == Some(page_size);
        // Page 1 has an owner wherever any page has.
        let has_owners = is_as_large
            && manifest.owners(&row.meta.id, PageNo::FIRST, 1)?.first().is_some_and(|first| first.is_known());
        Ok(Self { looks: Looks::default(), has_owners })
    }

    /// A page was read.
    pub(super) fn look(&mut self, page: PageNo, image: &[u8], count: PageCount) {
        self.looks.look(page, image, count);
    }

    /// Looks at some pages of which nobody knows what they name, where there are any.
    pub(super) fn explore(
        &mut self,
        manifest: &dyn Manifest,
        row: &VolumeRow,
        source: &mut dyn PageSource,
    ) -> Result<(), EngineError> {
        let count = source.page_count();
        let is_whole = self.looks.len() as u64 >= count.0;
        if is_whole || self.looks.is_lost() || self.has_owners && is_all_known(manifest, &row.meta.id)? {
            return Ok(());
        }
        let mut owners = Owners::new(manifest, row.meta.id, self.has_owners);
        let mut todo: VecDeque<(PageNo, Part)> = VecDeque::new();
        if self.has_owners {
            let (mut from, to) = stretch(row.tail.figures.generation, count);
            while from < to && todo.len() < CATALOGUE_READS_MAX {
                let known = manifest.owners(&row.meta.id, PageNo::from_index(from), STEP as usize)?;
                let open = (from..to).map(PageNo::from_index).zip(known).filter(|(_, owner)| owner.is_open());
                // What is not here keeps nobody from what is.
                todo.extend(open.filter(|(page, _)| source.has(*page)).map(|(page, owner)| (page, owner.part())));
                from += STEP;
            }
        }
        let roots = schema(source)?;
        todo.extend(roots.iter().flatten().map(|tree| (tree.root, Part::Node)));
        let mut image = vec![0; source.page_size().len()];
        let (mut left, mut seen) = (CATALOGUE_READS_MAX, HashSet::new());
        while let Some((page, part)) = todo.pop_front() {
            if !count.holds(page) || !seen.insert(page) {
                continue;
            }
            let was = owners.of(page)?;
            if !self.looks.has(page) {
                // A page whose owner is known and that names nothing new need not be looked at again.
                if was.is_known() && !was.is_open() || !source.has(page) {
                    continue;
                }
                let Some(less) = left.checked_sub(1) else { break };
                left = less;
                source.read(page, &mut image)?;
                self.looks.look(page, &image, count);
            }
            todo.extend(self.looks.under(page, part));
        }
        Ok(())
    }

    /// What the next record has to say, where it brings so many commits and these blobs.
    pub(super) fn told<'b>(
        &self,
        manifest: &dyn Manifest,
        row: &VolumeRow,
        (page_size, page_count, trees): (PageSize, PageCount, Option<&[Tree]>),
        commits: u64,
        built: impl Iterator<Item = &'b (BlobRef, Index)>,
    ) -> Result<Told, EngineError> {
        let id = row.meta.id;
        let known: Known =
            manifest.objects(&id)?.into_iter().filter_map(|mark| Some((mark.id, mark.object?))).collect();
        let mut owners = Owners::new(manifest, id, self.has_owners);
        let state = State { page_size, page_count, trees, has_owners: self.has_owners };
        let mut found = found(&self.looks, state, &known, &mut |page| owners.of(page))?;
        let mut taken: BTreeMap<ObjectId, Taken> = BTreeMap::new();
        for (blob, index) in built {
            let mut framed = 0;
            for table in index.chunks.iter().map(|chunk| &chunk.table) {
                let zeros = table.zeros().iter().map(|page| (page, 0));
                let stored = table.frames().flat_map(|frame| {
                    let (len, pages) = (frame.span.len, frame.pages.len() as u64);
                    let share = move |nth: usize| len / pages + u64::from((nth as u64) < len % pages);
                    frame.pages.iter().enumerate().map(move |(nth, page)| (page, share(nth))).collect::<Vec<_>>()
                });
                for (page, bytes) in zeros.chain(stored) {
                    framed += bytes;
                    let owner = match found.owners.get(&page) {
                        Some(owner) => *owner,
                        None => owners.of(page)?,
                    };
                    let whose = found.objects.contains_key(&owner.id()).then_some(owner.id());
                    let sum = taken.entry(whose.unwrap_or(ObjectId::REST)).or_default();
                    *sum = sum.plus(Taken { pages: 1, bytes });
                }
            }
            // What stands around the frames.
            let sum = taken.entry(ObjectId::REST).or_default();
            *sum = sum.plus(Taken { pages: 0, bytes: blob.len.saturating_sub(framed) });
        }
        let position = Position { epoch: row.tail.epoch, lsn: Lsn(row.tail.lsn.0 + commits) };
        let mut ops: Vec<ManifestOp> = known
            .keys()
            .filter(|id| !found.objects.contains_key(id))
            .map(|id| ManifestOp::Object(ObjectMark { id: *id, object: None }))
            .collect();
        for (id, mut object) in std::mem::take(&mut found.objects) {
            let took = taken.get(&id).copied().unwrap_or_default();
            // The rest is told every time: it says which checkpoint is the newest one.
            if known.get(&id) == Some(&object) && took == Taken::default() && id != ObjectId::REST {
                continue;
            }
            (object.position, object.taken, object.total) = (position, took, object.total.plus(took));
            ops.push(ManifestOp::Object(ObjectMark { id, object: Some(object) }));
        }
        let owners = (!self.looks.is_lost()).then(|| found.owners.into_iter().collect());
        Ok(Told { ops, owners })
    }
}

/// The trees that the schema names of the commit that a source speaks of; nothing where that is not at hand.
pub(super) fn schema(source: &mut dyn PageSource) -> Result<Option<Vec<Tree>>, EngineError> {
    if let Some(trees) = source.trees() {
        return Ok(Some(trees));
    }
    if source.sessions().is_some() {
        // It moves: it tells what it was asked for, and is not read for it.
        return Ok(None);
    }
    let (page_size, count) = (source.page_size(), source.page_count());
    if !count.holds(PageNo::FIRST) {
        return Ok(Some(Vec::new()));
    }
    let read = trees(page_size, &mut |page| {
        let mut image = vec![0; page_size.len()];
        if count.holds(page) {
            source.read(page, &mut image)?;
        }
        Ok::<_, SourceError>(Some(image))
    });
    Ok(read?)
}

/// Whether every page is somebody's, and was looked at.
fn is_all_known(manifest: &dyn Manifest, volume: &VolumeId) -> Result<bool, EngineError> {
    let unknown = manifest.objects(volume)?.into_iter().filter_map(|mark| {
        let object = mark.object?;
        Some(if mark.id == ObjectId::REST { object.pages } else { object.open })
    });
    Ok(unknown.sum::<u64>() == 0)
}

/// Where open pages are sought after this generation: from one page's index to another's. Each part of the database has its turn.
fn stretch(generation: Generation, count: PageCount) -> (u64, u64) {
    let len = CATALOGUE_OWNERS_MAX as u64;
    let from = generation.0 % count.0.div_ceil(len).max(1) * len;
    (from, (from + len).min(count.0))
}

/// Whose pages were by the newest checkpoint, read in groups.
struct Owners<'a> {
    manifest: &'a dyn Manifest,
    volume: VolumeId,
    is_known: bool,
    groups: HashMap<u64, Vec<PageOwner>>,
}

impl<'a> Owners<'a> {
    fn new(manifest: &'a dyn Manifest, volume: VolumeId, is_known: bool) -> Self {
        Self { manifest, volume, is_known, groups: HashMap::new() }
    }

    fn of(&mut self, page: PageNo) -> Result<PageOwner, EngineError> {
        if !self.is_known {
            return Ok(PageOwner::UNKNOWN);
        }
        let (group, place) = (page.index() / STEP, (page.index() % STEP) as usize);
        if self.groups.len() >= CATALOGUE_OWNERS_MAX / STEP as usize && !self.groups.contains_key(&group) {
            self.groups.clear();
        }
        let found = match self.groups.entry(group) {
            std::collections::hash_map::Entry::Occupied(held) => held.into_mut(),
            std::collections::hash_map::Entry::Vacant(room) => {
                room.insert(self.manifest.owners(&self.volume, PageNo::from_index(group * STEP), STEP as usize)?)
            }
        };
        Ok(found.get(place).copied().unwrap_or(PageOwner::UNKNOWN))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;
    use littoral_ports::MemoryManifest;

    #[test]
    fn each_stretch_of_a_database_has_its_turn_and_none_is_longer_than_is_held_at_once() {
        let len = CATALOGUE_OWNERS_MAX as u64;
        for count in [0, 1, len, len + 1, 5 * len - 7] {
            let turns = count.div_ceil(len).max(1);
            let mut seen: Vec<(u64, u64)> =
                (70..70 + turns).map(|generation| stretch(Generation(generation), PageCount(count))).collect();
            seen.sort_unstable();
            let ends: Vec<u64> = seen.iter().map(|(_, to)| *to).collect();
            assert_eq!(seen.iter().skip(1).map(|(from, _)| *from).collect::<Vec<_>>(), ends[..ends.len() - 1]);
            assert_eq!((seen[0].0, ends.last()), (0, Some(&count)), "all of it");
            assert!(seen.iter().all(|(from, to)| to - from <= len));
        }
    }

    #[test]
    fn owners_are_held_up_to_a_bound() {
        let manifest = MemoryManifest::new();
        let mut owners = Owners::new(&manifest, VolumeId([1; 16]), true);
        let groups = CATALOGUE_OWNERS_MAX as u64 / STEP;
        for group in 0..groups + 9 {
            assert!(!owners.of(PageNo::from_index(group * STEP)).unwrap().is_known());
            assert!(owners.groups.len() as u64 <= groups);
        }
        assert_eq!(owners.groups.len(), 9);
    }
}
