//! How far named sessions are (rule P10): found in a state's own pages, told as what changed, and checked along the log.
//!
//! What this room promises:
//! 1. The serials of a state are those of its table `littoral_serials(session, serial)`, read from the very pages of that state: neither a
//!    ring nor a count nor a clock has a part in it (invariant I11).
//! 2. Whoever lacks a page is told which; what makes no sense as a row of that table is no session, and never an error.
//! 3. A serial that is not above the one before is marked as one that began anew by who writes it. One that is not marked so, or that lies
//!    beyond its record, or differs from its table, is refused by name.

use crate::btree::{Node, NodeKind};
use crate::record::{Row, Value, root};
use littoral_types::limits::{SESSION_PAGES_MAX, SESSIONS_MAX};
use littoral_types::{Lsn, PageNo, PageSize, Position, Serial, SessionMark, SessionName, SessionStep, Sessions};
use std::collections::BTreeMap;

/// The table that they are in.
pub const TABLE: &str = "littoral_serials";

/// Where the table begins, for as long as the schema is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// Moves with every schema change.
    cookie: [u8; 4],
    /// Nothing where there is no such table.
    table: Option<PageNo>,
}

/// What came of looking for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walked {
    /// All there are, up to [`SESSIONS_MAX`]; and where they were found.
    Found(Sessions, Root),
    /// A page is needed that was not given.
    Needs(PageNo),
}

/// Gives a page of the state; `None` where it is not at hand.
pub type Pages<'a, E> = &'a mut dyn FnMut(PageNo) -> Result<Option<Vec<u8>>, E>;

/// Why a walk ends early.
pub(crate) enum End<E> {
    Needs(PageNo),
    Failed(E),
}

/// Reads the sessions of a state out of its pages. Where the table began is believed where nobody has put another file in this one's place
/// since.
pub fn sessions<E>(page_size: PageSize, known: Option<Root>, pages: Pages<'_, E>) -> Result<Walked, E> {
    match Walk::of(page_size, SESSION_PAGES_MAX, pages).sessions(known) {
        Ok((found, root)) => Ok(Walked::Found(found, root)),
        Err(End::Needs(page)) => Ok(Walked::Needs(page)),
        Err(End::Failed(error)) => Err(error),
    }
}

/// Looks at the rows of a state's tables.
pub(crate) struct Walk<'a, E> {
    page_size: PageSize,
    usable: usize,
    /// As page 1 says: 1 is UTF-8.
    pub(crate) encoding: u8,
    /// How many pages may be looked at yet: a tree that bites its tail ends all the same.
    pub(crate) left: usize,
    /// Whether rows are wanted whole, those that go on in overflow pages too.
    pub(crate) is_whole: bool,
    pages: Pages<'a, E>,
}

impl<'a, E> Walk<'a, E> {
    pub(crate) fn of(page_size: PageSize, left: usize, pages: Pages<'a, E>) -> Self {
        Self { page_size, usable: page_size.len(), encoding: 1, left, is_whole: false, pages }
    }

    /// What page 1 says of all others. Gives the schema's cookie.
    pub(crate) fn begin(&mut self) -> Result<[u8; 4], End<E>> {
        let first = self.page(PageNo::FIRST)?;
        self.encoding = first.get(59).copied().unwrap_or(1);
        self.usable = self.page_size.len().saturating_sub(first.get(20).copied().map_or(0, usize::from));
        Ok(first.get(40..44).and_then(|cookie| cookie.try_into().ok()).unwrap_or_default())
    }

    fn sessions(&mut self, known: Option<Root>) -> Result<(Sessions, Root), End<E>> {
        let cookie = self.begin()?;
        let root = match known.filter(|known| known.cookie == cookie) {
            Some(known) => known,
            None => Root { cookie, table: self.table(TABLE)? },
        };
        let mut found = Sessions::new();
        let Some(table) = root.table else { return Ok((found, root)) };
        self.rows(table, &mut |walk, row| {
            let session = row.text(0, walk.encoding).and_then(|name| name.parse().ok());
            let serial = match row.field(1) {
                Some(Value::Integer(number)) => Serial::of_sql(number),
                _ => None,
            };
            if let (Some(session), Some(serial)) = (session, serial) {
                found.insert(session, serial);
            }
            found.len() < SESSIONS_MAX
        })?;
        Ok((found, root))
    }

    /// Where a table begins, as the schema says.
    pub(crate) fn table(&mut self, named: &str) -> Result<Option<PageNo>, End<E>> {
        let mut table = None;
        self.rows(PageNo::FIRST, &mut |walk, row| {
            let is_it = row.text(0, walk.encoding).is_some_and(|kind| kind == "table")
                && row.text(1, walk.encoding).is_some_and(|name| name.eq_ignore_ascii_case(named));
            if is_it && let Some(Value::Integer(number)) = row.field(3) {
                table = root(number);
            }
            table.is_none()
        })?;
        Ok(table)
    }

    fn page(&mut self, page: PageNo) -> Result<Vec<u8>, End<E>> {
        (self.pages)(page).map_err(End::Failed)?.ok_or(End::Needs(page))
    }

    /// Shows the rows of a tree, in its order, until no more are wanted.
    pub(crate) fn rows(&mut self, root: PageNo, show: &mut dyn FnMut(&Self, &Row) -> bool) -> Result<(), End<E>> {
        let mut todo = vec![root];
        while let Some(page) = todo.pop() {
            let Some(left) = self.left.checked_sub(1) else { return Ok(()) };
            self.left = left;
            let image = self.page(page)?;
            let Some(node) = Node::read(page, &image) else { continue };
            // A table's interior pages have no rows.
            let has_rows = node.kind != NodeKind::TableInterior;
            for cell in node.cells.iter().filter(|_| has_rows) {
                let mut row = Row::read(&image, node.kind, *cell, self.usable);
                if let Some(row) = row.as_mut().filter(|_| self.is_whole) {
                    let mut next = Row::overflow(&image, node.kind, *cell, self.usable);
                    while let (Some(page), Some(left)) = (next, self.left.checked_sub(1)) {
                        self.left = left;
                        let more = self.page(page)?;
                        row.goes_on(more.get(4..self.usable).unwrap_or_default());
                        next = more.first_chunk().and_then(|next| PageNo::new(u64::from(u32::from_be_bytes(*next))));
                    }
                }
                if row.is_some_and(|row| !show(self, &row)) {
                    return Ok(());
                }
            }
            todo.extend(node.children.into_iter().rev());
        }
        Ok(())
    }
}

/// What a record has to say where these are known and those are there now.
pub fn changed(known: &[SessionMark], now: &Sessions, position: Position) -> Vec<SessionMark> {
    let before: Sessions = known.iter().filter_map(|mark| Some((mark.session.clone(), mark.step.serial()?))).collect();
    let gone = before.keys().filter(|session| !now.contains_key(session));
    let gone = gone.map(|session| (session.clone(), SessionStep::Gone));
    let moved = now.iter().filter_map(|(session, serial)| {
        let step = match before.get(session) {
            Some(before) if before == serial => return None,
            Some(before) if before > serial => SessionStep::Anew(*serial),
            _ => SessionStep::On(*serial),
        };
        Some((session.clone(), step))
    });
    let mut marks: Vec<SessionMark> =
        gone.chain(moved).map(|(session, step)| SessionMark { session, step, position }).collect();
    marks.sort_by(|one, other| one.session.cmp(&other.session));
    marks
}

/// Why recorded serials are not to be believed. Nothing is opened or restored then: it would resume sessions at the wrong place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SerialBreak {
    /// Serials go up along the log, unless their writer says that a session began anew.
    #[error(
        "session {session:?} goes back from serial {before} to {found} at {position}, and no record says that it began anew"
    )]
    Back {
        /// Which.
        session: String,
        /// The serial before.
        before: Serial,
        /// The one that follows.
        found: Serial,
        /// Where.
        position: Position,
    },
    /// No record knows what comes after it.
    #[error("session {session:?} is recorded as of {position}, which lies beyond {end}, the last commit there is")]
    Beyond {
        /// Which.
        session: String,
        /// As it is recorded.
        position: Position,
        /// The end.
        end: Lsn,
    },
    /// The table in the pages says something else.
    #[error("session {session:?} is recorded at serial {recorded}, and the database of that very state says {}", told(.found))]
    Differs {
        /// Which.
        session: String,
        /// What the log says.
        recorded: Serial,
        /// What `littoral_serials` says.
        found: Option<Serial>,
    },
}

fn told(found: &Option<Serial>) -> String {
    found.map_or_else(|| "nothing of it".to_owned(), |found| found.to_string())
}

/// How far each session is by what the log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded(BTreeMap<SessionName, SessionMark>);

impl Recorded {
    /// As a manifest or a manifest snapshot has them.
    pub fn of(marks: impl IntoIterator<Item = SessionMark>) -> Self {
        let live = marks.into_iter().filter(|mark| mark.step.serial().is_some());
        Self(live.map(|mark| (mark.session.clone(), mark)).collect())
    }

    /// Goes on by what a record says, or an index that repeats what is known in part; `end` is the last commit by then.
    pub fn follow(&mut self, mark: &SessionMark, end: Lsn) -> Result<(), SerialBreak> {
        let (session, position) = (mark.session.to_string(), mark.position);
        if position.lsn > end {
            return Err(SerialBreak::Beyond { session, position, end });
        }
        let before = self.0.get(&mark.session).and_then(|before| before.step.serial());
        match (before, mark.step) {
            (Some(before), SessionStep::On(found)) if found < before => {
                Err(SerialBreak::Back { session, before, found, position })
            }
            (_, SessionStep::Gone) => {
                self.0.remove(&mark.session);
                Ok(())
            }
            (_, SessionStep::On(_) | SessionStep::Anew(_)) => {
                self.0.insert(mark.session.clone(), mark.clone());
                Ok(())
            }
        }
    }

    /// Whether the database of that state says the same.
    pub fn agree(&self, found: &Sessions) -> Result<(), SerialBreak> {
        for (session, mark) in &self.0 {
            let Some(recorded) = mark.step.serial() else { continue };
            let found = found.get(session).copied();
            if found != Some(recorded) {
                return Err(SerialBreak::Differs { session: session.to_string(), recorded, found });
            }
        }
        Ok(())
    }

    /// All of them, by name.
    pub fn marks(&self) -> impl Iterator<Item = &SessionMark> {
        self.0.values()
    }

    /// Whether no session is recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::Epoch;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn at(lsn: u64) -> Position {
        Position { epoch: Epoch(1), lsn: Lsn(lsn) }
    }

    fn serial(number: u64) -> Serial {
        Serial::new(number).unwrap()
    }

    fn mark(session: &str, step: SessionStep, lsn: u64) -> SessionMark {
        SessionMark { session: session.parse().unwrap(), step, position: at(lsn) }
    }

    fn all(list: &[(&str, u64)]) -> Sessions {
        list.iter().map(|(session, number)| (session.parse().unwrap(), serial(*number))).collect()
    }

    #[test]
    fn p10_a_record_lists_the_sessions_that_changed_and_says_which_began_anew_and_which_are_gone() {
        let known = [("a", 5), ("b", 6), ("c", 7), ("d", 8)].map(|(name, n)| mark(name, SessionStep::On(serial(n)), 1));
        let now = all(&[("a", 5), ("b", 9), ("c", 2), ("e", 0)]);
        let expected = [
            mark("b", SessionStep::On(serial(9)), 4),
            mark("c", SessionStep::Anew(serial(2)), 4),
            mark("d", SessionStep::Gone, 4),
            mark("e", SessionStep::On(serial(0)), 4),
        ];
        assert_eq!(changed(&known, &now, at(4)), expected);
        assert_eq!(changed(&[], &Sessions::new(), at(4)), []);
    }

    #[test]
    fn p10_serials_that_go_back_lie_beyond_their_record_or_differ_from_their_table_are_refused_by_name() {
        let mut recorded = Recorded::of([mark("a", SessionStep::On(serial(5)), 1)]);
        let back = recorded.follow(&mark("a", SessionStep::On(serial(4)), 2), Lsn(2)).unwrap_err();
        assert_eq!(
            back.to_string(),
            "session \"a\" goes back from serial 5 to 4 at 1.2, and no record says that it began anew"
        );
        let beyond = recorded.follow(&mark("a", SessionStep::On(serial(6)), 3), Lsn(2)).unwrap_err();
        assert!(beyond.to_string().contains("1.3, which lies beyond 2"), "{beyond}");
        // What was refused changed nothing; what an index repeats is no step back.
        recorded.follow(&mark("a", SessionStep::On(serial(5)), 1), Lsn(2)).unwrap();
        let differs = recorded.agree(&all(&[("a", 6)])).unwrap_err();
        assert!(
            differs.to_string().contains("session \"a\" is recorded at serial 5")
                && differs.to_string().contains("says 6")
        );
        assert!(recorded.agree(&Sessions::new()).unwrap_err().to_string().contains("says nothing of it"));
        // Who is not recorded is not spoken of: older records say nothing of sessions.
        recorded.agree(&all(&[("a", 5), ("b", 1)])).unwrap();
        recorded.follow(&mark("a", SessionStep::Anew(serial(1)), 2), Lsn(2)).unwrap();
        recorded.agree(&all(&[("a", 1)])).unwrap();
        recorded.follow(&mark("a", SessionStep::Gone, 2), Lsn(2)).unwrap();
        assert!(recorded.is_empty());
    }

    proptest! {
        #[test]
        fn p10_whoever_follows_what_changed_from_state_to_state_agrees_with_each_of_them(
            states in proptest::collection::vec(proptest::collection::btree_map("[a-c]", 0u64..6, 0..4), 1..12),
        ) {
            let mut recorded = Recorded::default();
            let mut whole = Vec::new();
            for (lsn, state) in (1..).zip(&states) {
                let now: Sessions = state.iter().map(|(name, n)| (name.parse().unwrap(), serial(*n))).collect();
                let known: Vec<SessionMark> = recorded.marks().cloned().collect();
                for mark in changed(&known, &now, at(lsn)) {
                    recorded.follow(&mark, Lsn(lsn)).unwrap();
                    whole.push(littoral_types::ManifestOp::Session(mark));
                }
                recorded.agree(&now).unwrap();
                prop_assert_eq!(recorded.marks().count(), now.len());
            }
            // The sum of any rest of the run leads from any state in it to the last one.
            for from in 0..=whole.len() {
                let mut summed = Recorded::default();
                for op in whole[..from].iter().cloned().chain(crate::compose(whole.clone())) {
                    let littoral_types::ManifestOp::Session(mark) = op else { unreachable!() };
                    // A sum that says anew where the state is further is what a sum is for.
                    summed.follow(&mark, Lsn(states.len() as u64)).unwrap();
                }
                prop_assert_eq!(
                    summed.marks().map(|mark| (&mark.session, mark.step.serial())).collect::<Vec<_>>(),
                    recorded.marks().map(|mark| (&mark.session, mark.step.serial())).collect::<Vec<_>>()
                );
            }
        }

        #[test]
        fn any_bytes_hold_sessions_or_none_and_the_walk_ends(
            bytes in proptest::collection::vec(any::<u8>(), 512..513), kind in 0usize..4,
        ) {
            let mut first = bytes.clone();
            first[100] = [0x02, 0x05, 0x0a, 0x0d][kind];
            let mut read = |page: PageNo| Ok::<_, Infallible>(Some(if page == PageNo::FIRST { first.clone() } else { bytes.clone() }));
            prop_assert!(matches!(sessions(PageSize::MIN, None, &mut read), Ok(Walked::Found(..))));
        }
    }

    #[test]
    fn whoever_lacks_a_page_is_told_which() {
        let walked = sessions(PageSize::MIN, None, &mut |_| Ok::<_, Infallible>(None)).unwrap();
        assert_eq!(walked, Walked::Needs(PageNo::FIRST));
    }
}
