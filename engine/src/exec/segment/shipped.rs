//! What a shipper remembers of pages as it shipped them, up to a bound: the versions that patches stand on.

use super::Before;
use crate::error::EngineError;
use littoral_format::identity;
use littoral_format::segment::Stand;
use littoral_ports::Manifest;
use littoral_types::limits::{PATCHES_MAX, SESSION_PAGES_MAX, SHIPPED_BYTES_MAX};
use littoral_types::{DeltaId, Epoch, Form, Generation, IdentityKey, PageNo, Seq, VolumeId};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Pages that are held to find sessions: as many as are looked at.
const HELD_MAX: usize = SESSION_PAGES_MAX;

/// Pages as they were shipped last.
#[derive(Debug, Default)]
pub struct Shipped {
    pages: BTreeMap<PageNo, Version>,
    /// In the order in which they came; older ones go first. Some have come again since.
    order: VecDeque<(PageNo, u64)>,
    bytes: usize,
    tick: u64,
    /// The term and its newest gap, and a generation that was there when they began or later: what was checkpointed after it is the
    /// term's own, and of after the gap.
    since: Option<((Epoch, Seq), Generation)>,
    /// Pages that were fetched to find sessions, each with what says that it is the newest version.
    held: HashMap<PageNo, (Vec<u8>, Option<DeltaId>, Generation)>,
    /// Commits wait for one that is not.
    lacks: bool,
}

#[derive(Debug)]
struct Version {
    image: Vec<u8>,
    /// Patches that it stands on.
    depth: u32,
    delta: Option<DeltaId>,
    tick: u64,
}

impl Shipped {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the volume stands now. Another term begins with nothing, and so does what follows a gap (rule P9).
    pub(super) fn stand_at(&mut self, epoch: Epoch, generation: Generation, gap: Seq) {
        let before = self.since.map(|(since, _)| since);
        if before.is_none_or(|(of, before)| of != epoch || gap > before) {
            // The first term's versions are all its own. Of a later one's nobody remembers what was there when it began.
            let began = if epoch == Epoch(1) && gap == Seq::ZERO { Generation::ZERO } else { generation };
            *self = Self { since: Some(((epoch, gap), began)), ..Self::default() };
        }
    }

    /// The volume's newest version of a page, and the patches that it stands on: where it is known for certain, and one more patch
    /// may stand on it.
    pub(super) fn newest(
        &mut self,
        manifest: &dyn Manifest,
        volume: &VolumeId,
        key: &IdentityKey,
        page: PageNo,
        before: Before<'_>,
    ) -> Result<Option<(Vec<u8>, u32)>, EngineError> {
        let newest = manifest.newest_delta(volume, page)?;
        let kept = self.pages.get(&page);
        if let Some(id) = newest.filter(|id| id.is_of_segment()) {
            let same = kept.filter(|kept| kept.delta == Some(id) && kept.depth < PATCHES_MAX);
            return Ok(same.map(|kept| (kept.image.clone(), kept.depth)));
        }
        // A checkpoint's, or a base: of this term (rule P9), and told by its identity.
        let began = self.since.map(|(_, began)| began);
        if began.is_none_or(|began| newest.map_or(Generation(1), DeltaId::generation) <= began) {
            return Ok(None);
        }
        let Some(known) = manifest.identities(volume, page, 1)?.first().copied().flatten() else { return Ok(None) };
        let is_it = |image: &Vec<u8>| identity::of(key, image) == known;
        if let Some(kept) = kept.map(|kept| &kept.image).filter(|image| is_it(image)) {
            return Ok(Some((kept.clone(), 0)));
        }
        Ok(before(page).filter(is_it).map(|image| (image, 0)))
    }

    /// The volume's newest version of a page, where it is at hand, by the newest delta that holds it.
    pub(in crate::exec) fn at_hand(
        &self,
        page: PageNo,
        newest: Option<DeltaId>,
        generation: Generation,
    ) -> Option<Vec<u8>> {
        let shipped = self.pages.get(&page).filter(|_| newest.is_some_and(DeltaId::is_of_segment));
        if let Some(version) = shipped.filter(|version| version.delta == newest) {
            return Some(version.image.clone());
        }
        let (image, by, of) = self.held.get(&page)?;
        (*by == newest && *of == generation).then(|| image.clone())
    }

    /// Something was not at hand that commits waited for.
    pub(in crate::exec) fn lacks(&mut self) {
        self.lacks = true;
    }

    /// Whether that is so, until somebody sees to it.
    pub(in crate::exec) fn takes_lack(&mut self) -> bool {
        std::mem::take(&mut self.lacks)
    }

    /// Remembers one that was fetched.
    pub(in crate::exec) fn hold(
        &mut self,
        page: PageNo,
        newest: Option<DeltaId>,
        generation: Generation,
        image: Vec<u8>,
    ) {
        if self.held.len() >= HELD_MAX {
            self.held.clear();
        }
        self.held.insert(page, (image, newest, generation));
    }

    /// Nobody knows what it holds.
    pub(super) fn forget(&mut self, page: PageNo) {
        if let Some(gone) = self.pages.remove(&page) {
            self.bytes -= gone.image.len();
        }
    }

    /// Remembers what was shipped.
    pub(super) fn keep(&mut self, stand: Stand, pages: Vec<(PageNo, Vec<u8>, u32)>) {
        for (page, image, depth) in pages {
            self.forget(page);
            self.tick += 1;
            let form = if depth > 0 { Form::Patched } else { Form::Whole };
            let delta = DeltaId::of_segment(stand.generation, stand.seq, form);
            self.bytes += image.len();
            self.order.push_back((page, self.tick));
            self.pages.insert(page, Version { image, depth, delta, tick: self.tick });
        }
        while self.bytes > SHIPPED_BYTES_MAX
            && let Some((page, tick)) = self.order.pop_front()
        {
            if self.pages.get(&page).is_some_and(|version| version.tick == tick) {
                self.forget(page);
            }
        }
        // Those that came again stand in it more than once.
        if self.order.len() > 2 * self.pages.len() + 64 {
            let pages = &self.pages;
            self.order.retain(|(page, tick)| pages.get(page).is_some_and(|version| version.tick == *tick));
        }
    }
}
