//! Which table or index a page belongs to, found out of the pages that changed and of what was known of the others.
//!
//! What this room promises:
//! 1. A page's owner follows from who names it: an interior page its children, a cell its overflow page, an overflow page the next one, a
//!    page of the free list those that it lists. Who comes to name a page was written; so whoever looks at all pages that were written, and
//!    knows the owners from before, knows them all again, and nobody reads anything else.
//! 2. A tree keeps its number as long as any page of it stays as it was, wherever its root goes and whatever it is called.
//! 3. What is not known is said to be so: a page that nobody named, and one that was named and not looked at, is *open*. Bytes that make no
//!    sense as a page name nothing, and are never an error.
//!
//! Read next: `exec/catalogue.rs`, which keeps it.

use crate::btree::{Node, NodeKind, varint};
use crate::record::{Row, Value, local, root};
use crate::sessions::Pages;
use littoral_types::limits::{CATALOGUE_PAGES_MAX, OBJECTS_MAX, SCHEMA_BYTES_MAX};
use littoral_types::{
    Epoch, Lsn, Object, ObjectId, ObjectKind, PageCount, PageNo, PageOwner, PageSize, Part, Position, Taken, Tree,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

/// Where SQLite's locks are: the page that holds this byte is never written.
const PENDING_BYTE: u64 = 0x4000_0000;

/// What a page names, whatever it may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    /// As an interior page.
    children: Box<[u32]>,
    /// As a page with cells.
    chains: Box<[u32]>,
    /// As a page of the free list.
    listed: Box<[u32]>,
}

/// What the pages name that were looked at, each as it was looked at last.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    usable: usize,
    /// Where the free list begins, and the largest root of a database with pointer maps.
    first: [u32; 2],
    /// The first four bytes of each: what comes next, of an overflow page and of one of the free list.
    words: BTreeMap<u32, u32>,
    names: HashMap<u32, Names>,
    /// More than are kept in mind.
    is_lost: bool,
}

impl Looks {
    /// Looks at a page of a database of so many.
    pub fn look(&mut self, page: PageNo, image: &[u8], count: PageCount) {
        let Some(number) = page.to_sqlite().filter(|_| !self.is_lost) else { return };
        if page == PageNo::FIRST {
            self.usable = image.len().saturating_sub(image.get(20).copied().map_or(0, usize::from));
            self.first = [32, 52].map(|at| word(image, at));
        }
        self.words.insert(number, word(image, 0));
        let names = self.names_of(page, image, count.0);
        match names == Names::default() {
            true => drop(self.names.remove(&number)),
            false => drop(self.names.insert(number, names)),
        }
        if self.words.len() > CATALOGUE_PAGES_MAX {
            *self = Self { is_lost: true, ..Self::default() };
        }
    }

    /// Whether this page was looked at.
    pub fn has(&self, page: PageNo) -> bool {
        page.to_sqlite().is_some_and(|page| self.words.contains_key(&page))
    }

    /// How many were.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether they were too many to be kept in mind: nothing is known then.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The pages that this one names as part of a tree, of those that were looked at.
    pub fn under(&self, page: PageNo, part: Part) -> Vec<(PageNo, Part)> {
        let Some(number) = page.to_sqlite() else { return Vec::new() };
        let named = self.named(number, part).into_iter();
        named.filter_map(|(page, part)| Some((PageNo::new(u64::from(page))?, part))).collect()
    }

    fn names_of(&self, page: PageNo, image: &[u8], count: u64) -> Names {
        let mut names = Names::default();
        if let Some(node) = Node::read(page, image) {
            let number = |page: PageNo| page.to_sqlite();
            names.children = node.children.iter().filter_map(|child| number(*child)).collect();
            let overflow = |cell: &usize| overflow(image, node.kind, *cell, self.usable);
            names.chains = node.cells.iter().filter_map(overflow).collect();
        }
        names.listed = listed(image, self.usable, count).unwrap_or_default();
        names
    }

    /// What a page names as this part.
    fn named(&self, page: u32, part: Part) -> Vec<(u32, Part)> {
        let names = self.names.get(&page);
        let next = self.words.get(&page).copied().filter(|next| *next != 0);
        match part {
            Part::Node => {
                let children = names.iter().flat_map(|names| &names.children).map(|child| (*child, Part::Node));
                let chains = names.iter().flat_map(|names| &names.chains).map(|chain| (*chain, Part::Overflow));
                children.chain(chains).collect()
            }
            Part::Overflow => next.map(|next| (next, Part::Overflow)).into_iter().collect(),
            Part::Trunk => {
                let listed = names.iter().flat_map(|names| &names.listed).map(|page| (*page, Part::Empty));
                next.map(|next| (next, Part::Trunk)).into_iter().chain(listed).collect()
            }
            Part::Empty => Vec::new(),
        }
    }

    /// All that a page may name, as whatever it may be a part of.
    fn may_name(&self, page: u32, was: PageOwner) -> Vec<u32> {
        let mut all: Vec<u32> = [Part::Node, Part::Overflow]
            .into_iter()
            .flat_map(|part| self.named(page, part))
            .map(|(page, _)| page)
            .collect();
        if was.part() == Part::Trunk {
            all.extend(self.named(page, Part::Trunk).into_iter().map(|(page, _)| page));
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn word(image: &[u8], at: usize) -> u32 {
    image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// The page that a cell goes on in.
fn overflow(image: &[u8], kind: NodeKind, cell: usize, usable: usize) -> Option<u32> {
    if kind == NodeKind::TableInterior {
        return None;
    }
    let mut at = if kind.is_interior() { cell.checked_add(4)? } else { cell };
    let payload = usize::try_from(varint(image, &mut at)?).ok()?;
    if kind == NodeKind::TableLeaf {
        varint(image, &mut at)?;
    }
    let here = local(payload, kind, usable)?;
    if here >= payload {
        return None;
    }
    let at = at.checked_add(here)?;
    let next = u32::from_be_bytes(image.get(at..at.checked_add(4)?)?.try_into().ok()?);
    (next != 0).then_some(next)
}

/// The pages that one of the free list lists, if this may be one.
fn listed(image: &[u8], usable: usize, count: u64) -> Option<Box<[u32]>> {
    let many = usize::try_from(word(image, 4)).ok()?;
    if many == 0 || many > (usable / 4).checked_sub(2)? || u64::from(word(image, 0)) > count {
        return None;
    }
    let pages: Box<[u32]> = (0..many).map(|nth| word(image, 8 + 4 * nth)).collect();
    pages.iter().all(|page| *page > 1 && u64::from(*page) <= count).then_some(pages)
}

/// The trees that a state's schema names, in its order; nothing where a page is not at hand. Views, triggers and virtual tables have none.
pub fn trees<E>(page_size: PageSize, pages: Pages<'_, E>) -> Result<Option<Vec<Tree>>, E> {
    let mut trees = Vec::new();
    let Some(first) = pages(PageNo::FIRST)? else { return Ok(None) };
    let usable = page_size.len().saturating_sub(first.get(20).copied().map_or(0, usize::from));
    let encoding = first.get(59).copied().unwrap_or(1);
    let (mut todo, mut left) = (vec![PageNo::FIRST], SCHEMA_BYTES_MAX / page_size.len());
    while let Some(page) = todo.pop() {
        let Some(less) = left.checked_sub(1) else { break };
        left = less;
        let Some(image) = pages(page)? else { return Ok(None) };
        let Some(node) = Node::read(page, &image) else { continue };
        for cell in node.cells.iter().filter(|_| node.kind == NodeKind::TableLeaf) {
            let row = match whole(&image, *cell, usable, &mut left, pages)? {
                Whole::Row(row) => row,
                Whole::Nonsense => continue,
                Whole::Missing => return Ok(None),
            };
            let Some(Value::Integer(number)) = row.field(3) else { continue };
            let Some(root) = root(number) else { continue };
            let kind = match row.text(0, encoding).as_deref() {
                Some("table") => ObjectKind::Table,
                Some("index") => ObjectKind::Index,
                _ => continue,
            };
            let name = |nth| Object::name_of(&row.text(nth, encoding).unwrap_or_default());
            trees.push(Tree { kind, name: name(1), table: name(2), root });
            if trees.len() >= OBJECTS_MAX - ObjectId::FIRST.0 as usize {
                return Ok(Some(trees));
            }
        }
        todo.extend(node.children.into_iter().rev());
    }
    Ok(Some(trees))
}

/// A row of the schema, as far as it is about names and roots.
enum Whole {
    Row(Row),
    /// It makes no sense.
    Nonsense,
    /// A page of it is not at hand.
    Missing,
}

/// Reads a row of the schema with what lies in overflow pages.
fn whole<E>(image: &[u8], cell: usize, usable: usize, left: &mut usize, pages: Pages<'_, E>) -> Result<Whole, E> {
    let Some(mut row) = Row::read(image, NodeKind::TableLeaf, cell, usable) else { return Ok(Whole::Nonsense) };
    let mut next = overflow(image, NodeKind::TableLeaf, cell, usable);
    while let Some(page) = next.and_then(|next| PageNo::new(u64::from(next)))
        && row.field(3).is_none()
    {
        let Some(less) = left.checked_sub(1) else { break };
        *left = less;
        let Some(image) = pages(page)? else { return Ok(Whole::Missing) };
        row.goes_on(image.get(4..usable).unwrap_or_default());
        next = Some(word(&image, 0)).filter(|next| *next != 0);
    }
    Ok(Whole::Row(row))
}

/// What is known of a database's objects by the newest checkpoint.
pub type Known = BTreeMap<ObjectId, Object>;

/// What follows from what was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What each object is and has now. Nothing was taken of them yet.
    pub objects: Known,
    /// Whose pages are that were another's, or nobody's; ascending.
    pub owners: BTreeMap<PageNo, PageOwner>,
}

/// Whose a page was by the newest checkpoint.
pub type OwnerOf<'a, E> = &'a mut dyn FnMut(PageNo) -> Result<PageOwner, E>;

/// A database as a checkpoint leaves it.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// Of every page.
    pub page_size: PageSize,
    /// How many.
    pub page_count: PageCount,
    /// What its schema names; `None` where that was not at hand: then it is as it was.
    pub trees: Option<&'a [Tree]>,
    /// Whether anything is known of owners.
    pub has_owners: bool,
}

/// Finds out whose pages are now.
pub fn found<E>(looks: &Looks, state: State<'_>, known: &Known, owner: OwnerOf<'_, E>) -> Result<Found, E> {
    let mut known = known.clone();
    if looks.is_lost() || !state.has_owners {
        known.values_mut().for_each(|object| (object.pages, object.open) = (0, 0));
    }
    let mut tracing = Tracing {
        looks,
        count: state.page_count.0,
        special: Special::of(looks, state),
        owner,
        settled: HashMap::new(),
        named: BTreeMap::new(),
        todo: VecDeque::new(),
    };
    let before: u64 = known.values().map(|object| object.pages).sum();
    let roots = tracing.numbered(state, &known)?;
    if !looks.is_lost() {
        tracing.trace(&roots)?;
    }
    let owners = match looks.is_lost() {
        // All of it is forgotten.
        true => BTreeMap::new(),
        false => tracing.changed(PageCount(before), state.has_owners)?,
    };
    let special = tracing.special;
    let mut objects = Known::new();
    for (id, kind, name) in
        [(ObjectId::SCHEMA, ObjectKind::Schema, "sqlite_schema"), (ObjectId::FREE, ObjectKind::Free, "")]
    {
        let table = if kind == ObjectKind::Schema { name } else { "" };
        let root = (kind == ObjectKind::Schema).then_some(PageNo::FIRST);
        objects.insert(id, of(&known, id, kind, (name, table), root));
    }
    for (id, tree) in &roots {
        objects.insert(*id, of(&known, *id, tree.kind, (&tree.name, &tree.table), Some(tree.root)));
    }
    for (was, is) in owners.values() {
        if let Some(object) = objects.get_mut(&was.id()) {
            object.pages = object.pages.saturating_sub(1);
            object.open = object.open.saturating_sub(u64::from(was.is_open()));
        }
        if let Some(object) = objects.get_mut(&is.id()) {
            object.pages += 1;
            object.open += u64::from(is.is_open());
        }
    }
    if special.count > 0 || known.contains_key(&ObjectId::POINTERS) {
        let mut pointers = of(&known, ObjectId::POINTERS, ObjectKind::Pointers, ("", ""), None);
        pointers.pages = special.count;
        objects.insert(ObjectId::POINTERS, pointers);
    }
    let told: u64 = objects.values().map(|object| object.pages).sum();
    let mut rest = of(&known, ObjectId::REST, ObjectKind::Rest, ("", ""), None);
    rest.pages = state.page_count.0.saturating_sub(told);
    objects.insert(ObjectId::REST, rest);
    Ok(Found { objects, owners: owners.into_iter().map(|(page, (_, is))| (page, is)).collect() })
}

/// An object with what was known of it before, if anything was.
fn of(known: &Known, id: ObjectId, kind: ObjectKind, (name, table): (&str, &str), root: Option<PageNo>) -> Object {
    let before = known.get(&id);
    Object {
        kind,
        name: name.into(),
        table: table.into(),
        root,
        pages: before.map_or(0, |before| before.pages),
        open: before.map_or(0, |before| before.open),
        position: before.map_or(Position { epoch: Epoch(0), lsn: Lsn(0) }, |before| before.position),
        taken: before.map_or(Taken::default(), |before| before.taken),
        total: before.map_or(Taken::default(), |before| before.total),
    }
}

/// Pages that are nobody's because SQLite has them for itself.
#[derive(Clone, Copy, Debug)]
struct Special {
    /// SQLite's lock page, where the database reaches it.
    lock: u64,
    /// Every so many pages a pointer map; none without auto-vacuum.
    every: Option<u64>,
    count: u64,
}

impl Special {
    fn of(looks: &Looks, state: State<'_>) -> Self {
        let lock = PENDING_BYTE / state.page_size.bytes() + 1;
        let every = (looks.first[1] != 0 && looks.usable >= 5).then(|| looks.usable as u64 / 5 + 1);
        let mut special = Self { lock, every, count: 0 };
        let count = state.page_count.0;
        let maps = match every {
            Some(every) => (2..=count)
                .step_by(usize::try_from(every).unwrap_or(usize::MAX))
                .map(|page| special.map_at(page))
                .filter(|page| *page <= count)
                .count() as u64,
            None => 0,
        };
        special.count = maps + u64::from(lock <= count);
        special
    }

    /// A pointer map that would be the lock page is the one after it.
    fn map_at(&self, page: u64) -> u64 {
        if page == self.lock { page + 1 } else { page }
    }

    fn has(&self, page: u64) -> bool {
        if page == self.lock {
            return true;
        }
        let Some(every) = self.every.filter(|_| page >= 2) else { return false };
        let nominal = (page - 2) / every * every + 2;
        self.map_at(nominal) == page
    }
}

struct Tracing<'a, E> {
    looks: &'a Looks,
    count: u64,
    special: Special,
    owner: OwnerOf<'a, E>,
    /// Pages that were looked at, and whose they are.
    settled: HashMap<u32, PageOwner>,
    /// Pages that were not, and who names them now.
    named: BTreeMap<u32, PageOwner>,
    /// What they name was not looked at yet.
    todo: VecDeque<u32>,
}

impl<E> Tracing<'_, E> {
    fn was(&mut self, page: u32) -> Result<PageOwner, E> {
        PageNo::new(u64::from(page)).map_or(Ok(PageOwner::UNKNOWN), |page| (self.owner)(page))
    }

    /// The trees, each with the number that its unchanged pages had, else that of its name, else of its root, else a new one.
    fn numbered(&mut self, state: State<'_>, known: &Known) -> Result<Vec<(ObjectId, Tree)>, E> {
        let Some(trees) = state.trees else {
            let is_tree = |object: &Object| matches!(object.kind, ObjectKind::Table | ObjectKind::Index);
            let as_they_were = known.iter().filter(|(_, object)| is_tree(object)).filter_map(|(id, object)| {
                let Object { kind, name, table, root, .. } = object.clone();
                Some((*id, Tree { kind, name, table, root: root? }))
            });
            return Ok(as_they_were.collect());
        };
        let mut taken: BTreeSet<ObjectId> = BTreeSet::new();
        let mut ids: Vec<Option<ObjectId>> = Vec::new();
        for tree in trees {
            let evident = if state.has_owners { self.evidence(tree.root)? } else { None };
            let fits = |id: &ObjectId| known.get(id).is_some_and(|object| object.kind == tree.kind);
            ids.push(evident.filter(|id| fits(id) && taken.insert(*id)));
        }
        for by_root in [false, true] {
            let mut by: HashMap<(ObjectKind, &str, u64), ObjectId> = HashMap::new();
            for (id, object) in known.iter().filter(|(id, _)| !taken.contains(id)) {
                let root = object.root.map_or(0, PageNo::get);
                let key = if by_root { (object.kind, "", root) } else { (object.kind, &*object.name, 0) };
                by.insert(key, *id);
            }
            for (tree, id) in trees.iter().zip(&mut ids).filter(|(_, id)| id.is_none()) {
                let key = if by_root { (tree.kind, "", tree.root.get()) } else { (tree.kind, &*tree.name, 0) };
                *id = by.remove(&key).filter(|id| taken.insert(*id));
            }
        }
        let mut next = known.keys().next_back().map_or(ObjectId::FIRST.0, |last| (last.0 + 1).max(ObjectId::FIRST.0));
        let mut numbered = Vec::new();
        for (tree, id) in trees.iter().zip(ids) {
            let id = id.unwrap_or_else(|| {
                next += 1;
                ObjectId(next - 1)
            });
            if id <= ObjectId::LAST {
                numbered.push((id, tree.clone()));
            }
        }
        Ok(numbered)
    }

    /// Whose tree it is, by the first page of it that nobody wrote.
    fn evidence(&mut self, root: PageNo) -> Result<Option<ObjectId>, E> {
        let Some(root) = root.to_sqlite() else { return Ok(None) };
        let (mut todo, mut seen) = (vec![(root, Part::Node)], HashSet::new());
        while let Some((page, part)) = todo.pop() {
            if u64::from(page) > self.count || !seen.insert(page) {
                continue;
            }
            if self.looks.words.contains_key(&page) {
                todo.extend(self.looks.named(page, part));
                continue;
            }
            let was = self.was(page)?;
            if was.is_known() && was.id() >= ObjectId::FIRST {
                return Ok(Some(was.id()));
            }
        }
        Ok(None)
    }

    fn trace(&mut self, roots: &[(ObjectId, Tree)]) -> Result<(), E> {
        self.name(1, PageOwner::new(ObjectId::SCHEMA, Part::Node, false))?;
        let [free, _] = self.looks.first;
        if free != 0 {
            self.name(free, PageOwner::new(ObjectId::FREE, Part::Trunk, false))?;
        }
        for (id, tree) in roots {
            if let Some(root) = tree.root.to_sqlite() {
                self.name(root, PageOwner::new(*id, Part::Node, false))?;
            }
        }
        self.follow()?;
        // What is left was written, and is named by pages that were not: it is whose it was. But a page that may be named by another one
        // that was written waits for that.
        let live: HashSet<ObjectId> =
            roots.iter().map(|(id, _)| *id).chain([ObjectId::SCHEMA, ObjectId::FREE]).collect();
        let mut left: BTreeMap<u32, PageOwner> = BTreeMap::new();
        for page in self.looks.words.keys().copied() {
            if !self.settled.contains_key(&page) && !self.is_beside(page) {
                let was = self.was(page)?;
                left.insert(page, if live.contains(&was.id()) { was } else { PageOwner::UNKNOWN });
            }
        }
        let mut waits: HashMap<u32, u32> = HashMap::new();
        for (page, was) in &left {
            for named in self.looks.may_name(*page, *was).iter().filter(|named| left.contains_key(named)) {
                *waits.entry(*named).or_default() += 1;
            }
        }
        let mut free: BTreeSet<u32> = left.keys().copied().filter(|page| !waits.contains_key(page)).collect();
        let mut done: HashSet<u32> = HashSet::new();
        loop {
            // Where all that is left may be named by one another, the first one is whose it was.
            let next = free.pop_first().or_else(|| left.keys().copied().find(|page| !done.contains(page)));
            let Some(page) = next else { break };
            if !done.insert(page) {
                continue;
            }
            let Some(was) = left.get(&page).copied() else { continue };
            if !self.settled.contains_key(&page) && was.is_known() {
                self.settle(page, was);
                self.follow()?;
            }
            for named in self.looks.may_name(page, was) {
                let Some(more) = waits.get_mut(&named) else { continue };
                *more = more.saturating_sub(1);
                if *more == 0 {
                    free.insert(named);
                }
            }
            left.remove(&page);
        }
        Ok(())
    }

    /// Whether it is nobody's page.
    fn is_beside(&self, page: u32) -> bool {
        page == 0 || u64::from(page) > self.count || self.special.has(u64::from(page))
    }

    /// Who names a page is known: whose it is follows.
    fn name(&mut self, page: u32, by: PageOwner) -> Result<(), E> {
        if self.is_beside(page) || self.settled.contains_key(&page) || self.named.contains_key(&page) {
            return Ok(());
        }
        if self.looks.words.contains_key(&page) {
            self.settle(page, by);
            return Ok(());
        }
        let was = self.was(page)?;
        if !was.is_as(by) {
            self.named.insert(page, PageOwner::new(by.id(), by.part(), by.part() != Part::Empty));
        }
        Ok(())
    }

    fn settle(&mut self, page: u32, owner: PageOwner) {
        self.settled.insert(page, PageOwner::new(owner.id(), owner.part(), false));
        self.todo.push_back(page);
    }

    fn follow(&mut self) -> Result<(), E> {
        while let Some(page) = self.todo.pop_front() {
            let Some(owner) = self.settled.get(&page).copied() else { continue };
            for (named, part) in self.looks.named(page, owner.part()) {
                self.name(named, PageOwner::new(owner.id(), part, false))?;
            }
        }
        Ok(())
    }

    /// Pages whose owner is another now, with the one that it was.
    fn changed(&mut self, before: PageCount, has_owners: bool) -> Result<BTreeMap<PageNo, (PageOwner, PageOwner)>, E> {
        let mut changed = BTreeMap::new();
        let mut now: Vec<(u32, PageOwner)> =
            self.settled.iter().chain(&self.named).map(|(page, owner)| (*page, *owner)).collect();
        // Neighbours' owners are read together.
        now.sort_unstable_by_key(|(page, _)| *page);
        for (page, is) in now {
            let was = if has_owners { self.was(page)? } else { PageOwner::UNKNOWN };
            if let Some(page) = PageNo::new(u64::from(page)).filter(|_| was != is) {
                changed.insert(page, (was, is));
            }
        }
        if !has_owners {
            return Ok(changed);
        }
        // Written, and named by nobody who is known.
        let lost: Vec<u32> = self.looks.words.keys().copied().filter(|page| !self.settled.contains_key(page)).collect();
        let beyond = (self.count..before.0).filter_map(|index| PageNo::from_index(index).to_sqlite());
        for page in lost.into_iter().chain(beyond) {
            let was = self.was(page)?;
            if let Some(page) = PageNo::new(u64::from(page)).filter(|_| was.is_known()) {
                changed.insert(page, (was, PageOwner::UNKNOWN));
            }
        }
        Ok(changed)
    }
}
