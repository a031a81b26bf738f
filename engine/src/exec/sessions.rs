//! Named sessions along the way: found at the end of what is about to be published, told in its record, compared where a state is taken up
//! again (rule P10, invariant I11).
//!
//! What this room promises:
//! 1. What a record says of sessions is what the table in the pages says of the very state that the record leads to: it is read inside of the
//!    transaction that those pages were read in, or out of those pages and what the volume has of the others.
//! 2. Nothing of it is on the way of a commit.

use super::segment::Shipped;
use super::{fetch, partial};
use crate::error::EngineError;
use crate::log::{Log, Opened, Writer};
use littoral_plan::sessions::{Walked, changed, sessions};
use littoral_ports::{Commits, Manifest, PageSource, SourceError};
use littoral_types::limits::SESSION_PAGES_MAX;
use littoral_types::{Geometry, Lsn, ManifestOp, PageCount, PageNo, PageSize, Position, Sessions, VolumeRow};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;

/// As of the commit that a source speaks of.
pub(crate) fn of_source(source: &mut dyn PageSource) -> Result<Sessions, EngineError> {
    if let Some(found) = source.sessions() {
        return Ok(found);
    }
    let (page_size, count) = (source.page_size(), source.page_count());
    if !count.holds(PageNo::FIRST) {
        return Ok(Sessions::new());
    }
    let walked = sessions(page_size, None, &mut |page| {
        let mut image = vec![0; page_size.len()];
        if count.holds(page) {
            source.read(page, &mut image)?;
        }
        Ok::<_, SourceError>(Some(image))
    })?;
    Ok(found(walked))
}

/// As of the last of some commits that follow the volume's newest one: what they did not write is what the volume has. Where a page of that
/// is not at hand, it is that page's number.
pub(crate) fn at_hand(
    writer: &Writer,
    commits: &Commits,
    shipped: &Shipped,
) -> Result<Result<Sessions, PageNo>, EngineError> {
    let figures = writer.row().tail.figures;
    let mut given: HashMap<PageNo, Vec<u8>> = HashMap::new();
    loop {
        let page = match walked(commits, figures.page_count, &given) {
            Walked::Found(found, _) => return Ok(Ok(found)),
            Walked::Needs(page) => page,
        };
        let newest = writer.manifest().newest_delta(&writer.row().meta.id, page)?;
        let Some(image) = shipped.at_hand(page, newest, figures.generation) else { return Ok(Err(page)) };
        given.insert(page, image);
    }
}

/// The same, where pages that are not at hand may be fetched.
pub(crate) async fn of_commits(
    writer: &mut Writer,
    commits: &Commits,
    shipped: &mut Shipped,
) -> Result<Sessions, EngineError> {
    for _ in 0..SESSION_PAGES_MAX {
        let page = match at_hand(writer, commits, shipped)? {
            Ok(found) => return Ok(found),
            Err(page) => page,
        };
        let image = newest_of(writer, commits.page_size, page).await?;
        let newest = writer.manifest().newest_delta(&writer.row().meta.id, page)?;
        shipped.hold(page, newest, writer.row().tail.figures.generation, image);
    }
    Err(writer.log().inconsistent("the schema has no end".to_owned()))
}

/// Has at hand what tells of the sessions of the volume's newest state.
pub(crate) async fn bring(writer: &mut Writer, shipped: &mut Shipped) -> Result<(), EngineError> {
    let Some(page_size) = writer.row().tail.figures.page_size else { return Ok(()) };
    let nothing = Commits { page_size, commits: Vec::new(), pages: Vec::new(), wal: None, is_all: true };
    of_commits(writer, &nothing, shipped).await.map(drop)
}

/// Looks for them in what was committed, and in what was given. Pages that nobody wrote are zeros where there were none before.
fn walked(commits: &Commits, before: PageCount, given: &HashMap<PageNo, Vec<u8>>) -> Walked {
    let written = |page| commits.pages.binary_search_by_key(&page, |(written, _)| *written).ok();
    let image = |page| written(page).and_then(|at| commits.pages.get(at)).map(|(_, image)| image);
    let walked = sessions(commits.page_size, None, &mut |page| {
        let known = image(page).or_else(|| given.get(&page)).cloned();
        let zeros = || (!before.holds(page)).then(|| vec![0; commits.page_size.len()]);
        Ok::<_, Infallible>(known.or_else(zeros))
    });
    match walked {
        Ok(walked) => walked,
        Err(never) => match never {},
    }
}

/// The volume's newest version of a page.
async fn newest_of(writer: &mut Writer, page_size: PageSize, page: PageNo) -> Result<Vec<u8>, EngineError> {
    let chunk = Geometry::new(page_size).chunk_of(page);
    partial::rows(writer, &[chunk]).await?;
    let (meta, log) = (writer.row().meta.clone(), writer.log().clone());
    let gone = || log.inconsistent(format!("page {page} of chunk {chunk} is in no version of it"));
    let row = writer.manifest().row(&meta.id, chunk)?.ok_or_else(gone)?;
    let pages = fetch::pages(&log, &row, page_size, &meta.identity_key, &[page]).await?;
    pages.get(&page).map(|image| image.to_vec()).ok_or_else(gone)
}

/// What the next record of a volume has to say of sessions, where it brings so many commits.
pub(crate) fn told(
    manifest: &dyn Manifest,
    row: &VolumeRow,
    now: &Sessions,
    commits: u64,
) -> Result<Vec<ManifestOp>, EngineError> {
    let known = manifest.sessions(&row.meta.id)?;
    let position = Position { epoch: row.tail.epoch, lsn: Lsn(row.tail.lsn.0 + commits) };
    Ok(changed(&known, now, position).into_iter().map(ManifestOp::Session).collect())
}

/// Refuses a state whose pages say something else of a session than its log does. `read` gives a page of it.
pub(crate) fn agree(
    log: &Log,
    opened: &Opened,
    page_size: PageSize,
    read: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Result<(), EngineError> {
    if opened.sessions.is_empty() {
        return Ok(());
    }
    let count = opened.tail.figures.page_count;
    let walked = sessions(page_size, None, &mut |page| {
        let mut image = vec![0; page_size.len()];
        if count.holds(page) {
            read(page.index() * page_size.bytes(), &mut image)?;
        }
        Ok::<_, io::Error>(Some(image))
    });
    let unreadable =
        |error: io::Error| EngineError::Interrupted(format!("what was restored cannot be read back: {error}"));
    opened.sessions.agree(&found(walked.map_err(unreadable)?)).map_err(|source| log.serials(source))
}

/// All pages were given.
fn found(walked: Walked) -> Sessions {
    match walked {
        Walked::Found(found, _) => found,
        Walked::Needs(_) => Sessions::new(),
    }
}
