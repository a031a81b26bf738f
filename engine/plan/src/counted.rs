//! What a database says of the logs that are tables of it: read out of a state's own pages (rule P11).
//!
//! Other than what is merely shown, this decides what travels and what is a row: what cannot be read is said, and never passed over.

use crate::record::Value;
use crate::sessions::{End, Pages, Walk};
use littoral_types::limits::SESSION_PAGES_MAX;
use littoral_types::{CountedLog, Lsn, PageNo, PageSize, VolumeId};

/// The table that says it.
pub const TABLE: &str = "littoral_logs";

/// What came of looking for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// All there are.
    Found(Vec<CountedLog>),
    /// What stands there is not what was written there: of this table, or of all.
    Unreadable(String),
}

/// Reads voids as a database has them: `7-9,12-12`. `None`: it is no such text, or they are out of their order.
pub fn voids(text: &str) -> Option<Vec<(Lsn, Lsn)>> {
    let read = |void: &str| {
        let (from, to) = void.split_once('-')?;
        Some((Lsn(from.parse().ok()?), Lsn(to.parse().ok()?)))
    };
    let voids = text.split(',').filter(|void| !void.is_empty()).map(read).collect::<Option<Vec<_>>>()?;
    let is_whole = voids.iter().all(|(from, to)| from <= to) && voids.is_sorted_by(|one, other| one.1 < other.0);
    is_whole.then_some(voids)
}

/// Reads what a state says of its logs out of its pages, which are all at hand.
pub fn counted<E>(page_size: PageSize, pages: &mut dyn FnMut(PageNo) -> Result<Vec<u8>, E>) -> Result<Looked, E> {
    let looked = look(page_size, &mut |page| pages(page).map(Some))?;
    Ok(looked.unwrap_or_else(|page| Looked::Unreadable(format!("page {page}, which is not there"))))
}

/// The same where pages may not be at hand: or the one that is needed next.
pub fn look<E>(page_size: PageSize, pages: Pages<'_, E>) -> Result<Result<Looked, PageNo>, E> {
    let mut walk = Walk::of(page_size, SESSION_PAGES_MAX, pages);
    walk.is_whole = true;
    match found(&mut walk) {
        Ok(looked) if walk.left > 0 => Ok(Ok(looked)),
        Err(End::Failed(error)) => Err(error),
        Err(End::Needs(page)) => Ok(Err(page)),
        Ok(_) => Ok(Ok(Looked::Unreadable("more pages than such a table has".to_owned()))),
    }
}

fn found<E>(walk: &mut Walk<'_, E>) -> Result<Looked, End<E>> {
    walk.begin()?;
    let mut logs = Vec::new();
    let mut wrong = None;
    if let Some(table) = walk.table(TABLE)? {
        walk.rows(table, &mut |walk, row| {
            let text = |nth| row.text(nth, walk.encoding);
            let lsn = |nth| match row.field(nth) {
                Some(Value::Integer(number)) => u64::try_from(number).ok().map(Lsn),
                _ => None,
            };
            let log = || {
                Some(CountedLog {
                    table: text(0)?,
                    folder: text(1)?,
                    log: VolumeId::from_hex(&text(2)?)?,
                    first: lsn(3)?,
                    last: lsn(4)?,
                    voids: voids(&text(5)?)?,
                })
            };
            match log() {
                Some(log) => logs.push(log),
                None => wrong = Some(text(0).unwrap_or_else(|| "a table without a name".to_owned())),
            }
            wrong.is_none()
        })?;
    }
    Ok(wrong.map_or(Looked::Found(logs), Looked::Unreadable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voids_are_read_as_they_were_said_or_not_at_all() {
        assert_eq!(voids("7-9,12-12"), Some(vec![(Lsn(7), Lsn(9)), (Lsn(12), Lsn(12))]));
        assert_eq!(voids(""), Some(Vec::new()));
        for wrong in ["x", "9-7", "1-2,2-3", "5-6,1-2", "1"] {
            assert_eq!(voids(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn whoever_lacks_a_page_is_told_which() {
        assert_eq!(look(PageSize::MIN, &mut |_| Ok::<_, std::convert::Infallible>(None)), Ok(Err(PageNo::FIRST)));
    }

    #[test]
    fn a_state_without_pages_or_with_nonsense_is_unreadable_or_says_nothing_and_the_walk_ends() {
        for kind in [0x02, 0x05, 0x0a, 0x0d] {
            let mut read = |_| Ok::<_, std::convert::Infallible>(vec![kind; 512]);
            assert!(matches!(counted(PageSize::MIN, &mut read), Ok(Looked::Found(_) | Looked::Unreadable(_))));
        }
    }
}
