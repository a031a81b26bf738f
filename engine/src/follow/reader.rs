//! One connection's reading of a replica: a state is pinned when it begins, and let go when it ends.

use super::following::{Following, View};
use super::{FollowError, Inner};
use crate::lazy::{Budget, Failure, Lazy};
use crate::runtime;
use bytes::Bytes;
use littoral_local::replica::{Frame, Pin};
use littoral_plan::Room;
use littoral_ports::{Tier, Timed};
use littoral_types::{PageCount, PageNo, PageSize, Position, Seq};
use std::cell::OnceCell;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long a page is waited for, all tries included.
const FETCH_DEADLINE: Duration = Duration::from_secs(120);
/// Pages fetched ahead of one that was missed.
const ROOM: Room = Room { bytes: 32 << 20, pages: 1 << 15 };

/// Reads one state at a time.
#[derive(Debug)]
pub struct Reader {
    inner: Arc<Inner>,
    /// Kept from one reading to the next.
    pin: Option<(Arc<Following>, Pin)>,
    view: Option<Arc<View>>,
}

impl Reader {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, pin: None, view: None }
    }

    /// Begins to read the newest state, unless one is read already.
    pub fn begin(&mut self) -> Result<(), FollowError> {
        if self.view.is_some() {
            return Ok(());
        }
        loop {
            let inner = &self.inner;
            let mut following = inner.known_newest();
            if following.files.number() != inner.local.current() {
                let inner = inner.clone();
                following = runtime::cross(FETCH_DEADLINE, async move || inner.following().await)??;
            }
            let kept = self.pin.take_if(|(of, _)| of.files.number() == following.files.number());
            let pin = match kept {
                Some((_, pin)) => pin,
                None => match following.files.pin() {
                    Ok(pin) => pin,
                    // That edition is over, and swept away.
                    Err(_) if following.files.number() != inner.local.current() => continue,
                    Err(error) => return Err(error.into()),
                },
            };
            let (_, pin) = self.pin.insert((following.clone(), pin));
            let Some(state) = following.files.try_pin(pin) else { continue };
            if following.files.number() != inner.local.current() {
                pin.clear();
                continue;
            }
            if following.end().seq < state {
                let (inner, learner) = (inner.clone(), following.clone());
                let learnt = runtime::cross(FETCH_DEADLINE, async move || inner.caught_up(learner, state).await);
                match learnt.map_err(FollowError::from).and_then(|done| Ok(done?)) {
                    Ok(next) if Arc::ptr_eq(&next, &following) => {}
                    Ok(_) => {
                        pin.clear();
                        continue;
                    }
                    Err(error) => {
                        pin.clear();
                        return Err(error);
                    }
                }
            }
            match following.view(state, inner.local.looked_ms()) {
                Some(view) => {
                    self.view = Some(view);
                    return Ok(());
                }
                None => pin.clear(),
            }
        }
    }

    /// Ends.
    pub fn end(&mut self) {
        self.view = None;
        if let Some((_, pin)) = &self.pin {
            pin.clear();
        }
    }

    /// What is read; `None` where nothing is.
    pub fn position(&self) -> Option<Position> {
        self.view.as_ref().map(|view| view.position)
    }

    /// The page size.
    pub fn page_size(&self) -> PageSize {
        let following = self.pin.as_ref().map_or_else(|| self.inner.known_newest(), |(following, _)| following.clone());
        following.files.page_size()
    }

    /// The size of what is read.
    pub fn page_count(&self) -> PageCount {
        self.view.as_ref().map_or(PageCount(0), |view| view.page_count)
    }

    /// Reads a part of a page of what is read.
    pub fn read(&self, page: PageNo, offset: usize, into: &mut [u8]) -> Result<(), FollowError> {
        let (Some((following, _)), Some(view)) = (&self.pin, &self.view) else {
            return Err(super::EngineError::Interrupted("nothing is read".to_owned()).into());
        };
        loop {
            let version = following.version(page, view.seq);
            match following.files.read(page, version, offset as u64, into) {
                Ok(true) => return Ok(()),
                // What changed before the floor lies elsewhere than it did.
                Ok(false) if following.forget() => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, %page, "a page that is here cannot be read: it is fetched again");
                    break;
                }
            }
        }
        let image = self.bring(following, view, page)?;
        let gone = || following.log.inconsistent(format!("page {page} came cut off"));
        let part = image.get(offset..offset + into.len()).ok_or_else(gone)?;
        into.copy_from_slice(part);
        Ok(())
    }

    /// Fetches a page, and those that will be asked for next.
    #[cold]
    fn bring(&self, following: &Following, view: &View, page: PageNo) -> Result<Bytes, FollowError> {
        let began = Instant::now();
        let lazy = view.lazy(&following.log)?;
        if let Some(image) = lazy.resident(page) {
            self.keep(following, view, &[(page, image.clone())]);
            self.inner.components.account.took(Timed::PageFetch(Tier::Memory), began.elapsed());
            return Ok(image);
        }
        let image = self.bring_from_afar(following, view, lazy, page);
        self.inner.components.account.took(Timed::PageFetch(Tier::Remote), began.elapsed());
        image
    }

    fn bring_from_afar(
        &self,
        following: &Following,
        view: &View,
        lazy: Lazy,
        page: PageNo,
    ) -> Result<Bytes, FollowError> {
        let mut wanted = {
            let is_here =
                |page| following.files.has(page, following.version(page, view.seq)) || lazy.resident(page).is_some();
            following.ahead.lock().unwrap_or_else(PoisonError::into_inner).missed(page, &is_here, ROOM)
        };
        wanted.retain(|wanted| view.page_count.holds(*wanted));
        wanted.push(page);
        let many = self.fetch(following, view, lazy.clone(), wanted);
        if let Err(error) = &many {
            tracing::debug!(%error, %page, "reading ahead failed: fetching the page alone");
        }
        let found = many.ok().and_then(|pages| found_in(&pages, page));
        if let Some(image) = found {
            return Ok(image);
        }
        let alone = self.fetch(following, view, lazy, vec![page]).inspect_err(|_| self.inner.poke())?;
        let gone = || following.log.inconsistent(format!("page {page} did not come with its frame"));
        Ok(found_in(&alone, page).ok_or_else(gone)?)
    }

    fn fetch(
        &self,
        following: &Following,
        view: &View,
        lazy: Lazy,
        wanted: Vec<PageNo>,
    ) -> Result<Vec<(PageNo, Bytes)>, FollowError> {
        let fetched = runtime::cross(FETCH_DEADLINE, async move || lazy.fetch_many(&wanted, Budget::default()).await)?;
        let fetched = fetched.map_err(|error: Failure| {
            following.distrust(&error);
            FollowError::Shared(error)
        })?;
        let pages: Vec<(PageNo, Bytes)> = fetched.frames.iter().flat_map(|frame| frame.pages.iter().cloned()).collect();
        self.keep(following, view, &pages);
        Ok(pages)
    }

    /// Keeps pages for whoever reads them next, here or in another process.
    fn keep(&self, following: &Following, view: &View, pages: &[(PageNo, Bytes)]) {
        let frames: Vec<Frame<'_>> =
            pages.iter().map(|(page, image)| (*page, following.version(*page, view.seq), &image[..])).collect();
        let pinned: OnceCell<Option<Vec<Seq>>> = OnceCell::new();
        let unread = |page, version| {
            let pinned = pinned.get_or_init(|| following.files.pinned().ok());
            pinned.as_ref().is_some_and(|pinned| !following.is_read(page, version, pinned))
        };
        if let Err(error) = following.files.keep(&frames, self.inner.options.quota, &unread) {
            tracing::debug!(%error, "what was fetched is not kept");
        }
        let mut ahead = following.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        pages.iter().for_each(|(page, image)| ahead.learn(*page, image));
    }
}

fn found_in(pages: &[(PageNo, Bytes)], page: PageNo) -> Option<Bytes> {
    pages.iter().find(|(found, _)| *found == page).map(|(_, image)| image.clone())
}
