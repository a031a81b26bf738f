//! What a database has that its volume has not: after a takeover, or while the object store is out of reach.

use super::diff::diff;
use super::restore::At;
use crate::components::Components;
use crate::error::EngineError;
use crate::lazy::{Budget, Lazy};
use crate::log::Log;
use littoral_ports::{LiveSource, Manifest, PageSource};
use littoral_types::{PageCount, PageNo, Position, VolumeRow};

/// Pages that are compared with what the volume has, at once.
const PAGES_AT_ONCE: usize = 2048;

/// What is here alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The last commit that was published from here.
    pub position: Position,
    /// Commits since, as far as anybody counted.
    pub commits: u64,
    /// Pages that hold something else than at that commit, ascending.
    pub pages: Vec<PageNo>,
    /// Whether those are certain. Otherwise some of them may be as they were: the volume could not be asked, and why.
    pub unsure: Option<String>,
    /// The database's size, here and at that commit.
    pub size: (PageCount, PageCount),
}

/// Compares a database with the state of its volume that was published from here last.
pub async fn kept(
    log: &Log,
    components: &Components,
    manifest: &dyn Manifest,
    row: &VolumeRow,
    source: &mut dyn LiveSource,
) -> Result<Kept, EngineError> {
    let commits = source.commits_left();
    source.begin(row)?;
    let source: &mut dyn PageSource = source;
    let difference = diff(manifest, row, source, &*components.progress, &mut |_, _, _| {})?;
    let candidates: Vec<PageNo> = difference.identities.iter().map(|(page, _)| *page).collect();
    let tail = &row.tail;
    let position = Position { epoch: tail.epoch, lsn: tail.lsn };
    let size = (source.page_count(), tail.figures.page_count);
    let comparable = tail.figures.page_size == Some(source.page_size());
    let compared = match comparable && !candidates.is_empty() {
        true => Box::pin(differing(log, components, position, source, &candidates)).await,
        false => Ok(candidates.clone()),
    };
    source.rest()?;
    let (pages, unsure) = match compared {
        Ok(pages) => (pages, None),
        Err(error) if error.is_crash() => return Err(error),
        Err(error) => (candidates, Some(error.to_string())),
    };
    Ok(Kept { position, commits, pages, unsure, size })
}

/// Those of some pages that hold something else than the volume's at a commit.
async fn differing(
    log: &Log,
    components: &Components,
    position: Position,
    source: &mut dyn PageSource,
    candidates: &[PageNo],
) -> Result<Vec<PageNo>, EngineError> {
    let lazy = Lazy::open(log, components, &At::Position(position)).await?;
    let mut pages = Vec::new();
    let mut image = vec![0; source.page_size().len()];
    for some in candidates.chunks(PAGES_AT_ONCE) {
        let mut wanted: Vec<PageNo> = some.iter().copied().filter(|page| lazy.page_count().holds(*page)).collect();
        // What it grew by is new.
        pages.extend(some.iter().copied().filter(|page| !lazy.page_count().holds(*page)));
        while !wanted.is_empty() {
            let fetched = lazy.fetch_many(&wanted, Budget::default()).await;
            let fetched = fetched.map_err(|error| EngineError::Interrupted(error.to_string()))?;
            for (page, then) in fetched.frames.iter().flat_map(|frame| &frame.pages) {
                if wanted.binary_search(page).is_err() {
                    continue;
                }
                source.read(*page, &mut image)?;
                if image[..] != then[..] {
                    pages.push(*page);
                }
            }
            wanted = fetched.left;
        }
    }
    lazy.close().await;
    pages.sort_unstable();
    pages.dedup();
    Ok(pages)
}
