//! Whose pages are, against what SQLite itself says: `dbstat` of the stock `sqlite3` program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_plan::catalogue::{Found, Known, Looks, State, found, trees};
use littoral_types::limits::CATALOGUE_PAGES_MAX;
use littoral_types::{ObjectId, ObjectKind, PageCount, PageNo, PageOwner, PageSize, Part};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs SQL in the stock shell, and says what it prints; statements may be refused.
fn attempt(path: &Path, sql: &str) -> (String, String) {
    let mut command = Command::new("sqlite3");
    command.args(["-batch", "-init", "/dev/null"]).arg(path);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the sqlite3 program is needed");
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (said(&output.stdout), said(&output.stderr))
}

fn sql(path: &Path, sql: &str) -> String {
    let (said, refused) = attempt(path, sql);
    assert_eq!(refused, "", "{sql}");
    said
}

/// A database, and what is known of it by what changed from one checkpoint to the next.
struct Watched {
    path: PathBuf,
    page_size: PageSize,
    pages: Vec<Vec<u8>>,
    owners: HashMap<PageNo, PageOwner>,
    known: Known,
    /// Pages that were looked at since the beginning.
    looked_at: usize,
}

impl Watched {
    fn new(folder: &Path, page_size: u64, pragmas: &str) -> Self {
        let path = folder.join("app.db");
        sql(&path, &format!("PRAGMA page_size={page_size}; {pragmas} CREATE TABLE t(a, b);"));
        let page_size = PageSize::new(page_size).unwrap();
        Self { path, page_size, pages: Vec::new(), owners: HashMap::new(), known: Known::new(), looked_at: 0 }
    }

    fn page(&self, page: PageNo) -> Vec<u8> {
        self.pages.get(page.index() as usize).cloned().unwrap_or_else(|| vec![0; self.page_size.len()])
    }

    /// A checkpoint: what changed is looked at, and nothing else but what `beyond` asks for.
    fn checkpoint(&mut self, beyond: impl Fn(&Self, &mut Looks)) -> Found {
        let before = std::mem::take(&mut self.pages);
        let bytes = std::fs::read(&self.path).unwrap();
        self.pages = bytes.chunks(self.page_size.len()).map(<[u8]>::to_vec).collect();
        let count = PageCount(self.pages.len() as u64);
        let mut looks = Looks::default();
        looks.look(PageNo::FIRST, &self.pages[0], count);
        for (index, image) in self.pages.iter().enumerate() {
            if before.get(index) != Some(image) {
                looks.look(PageNo::from_index(index as u64), image, count);
            }
        }
        beyond(self, &mut looks);
        self.looked_at += looks.len();
        let read = trees(self.page_size, &mut |page| Ok::<_, Infallible>(Some(self.page(page)))).unwrap().unwrap();
        let has_owners = self.owners.contains_key(&PageNo::FIRST);
        let state = State { page_size: self.page_size, page_count: count, trees: Some(&read), has_owners };
        let owner = |page: PageNo| self.owners.get(&page).copied().unwrap_or(PageOwner::UNKNOWN);
        let found = found(&looks, state, &self.known, &mut |page| Ok::<_, Infallible>(owner(page))).unwrap();
        self.owners.extend(found.owners.iter().map(|(page, owner)| (*page, *owner)));
        self.owners.retain(|_, owner| owner.is_known());
        self.known.clone_from(&found.objects);
        found
    }

    /// A few of those that are open, and what they lead to; from the roots on, where nothing is known.
    fn look_at_what_is_open(&self, looks: &mut Looks) {
        let count = PageCount(self.pages.len() as u64);
        let open = self.owners.iter().filter(|(_, owner)| owner.is_open()).map(|(page, owner)| (*page, owner.part()));
        let mut open: Vec<(PageNo, Part)> = open.collect();
        open.sort_unstable();
        let mut todo: VecDeque<_> = open.into();
        if self.owners.is_empty() {
            let read = trees(self.page_size, &mut |page| Ok::<_, Infallible>(Some(self.page(page))));
            todo.extend(read.unwrap().unwrap().iter().map(|tree| (tree.root, Part::Node)));
        }
        for _ in 0..40 {
            let Some((page, part)) = todo.pop_front() else { break };
            looks.look(page, &self.page(page), count);
            todo.extend(looks.under(page, part));
        }
    }

    /// What SQLite says: pages by name, free ones under none.
    fn dbstat(&self) -> BTreeMap<String, u64> {
        let said = sql(
            &self.path,
            "SELECT name || '=' || count(*) FROM dbstat GROUP BY name;
             SELECT '=' || freelist_count FROM pragma_freelist_count WHERE freelist_count > 0;",
        );
        said.lines()
            .map(|line| line.rsplit_once('=').map(|(name, n)| (name.to_owned(), n.parse().unwrap())).unwrap())
            .collect()
    }

    fn by_name(&self) -> BTreeMap<String, u64> {
        let counted =
            self.known.values().filter(|object| !matches!(object.kind, ObjectKind::Rest | ObjectKind::Pointers));
        counted.filter(|object| object.pages > 0).map(|object| (object.name.to_string(), object.pages)).collect()
    }

    fn pages_of(&self, id: ObjectId) -> u64 {
        self.known.get(&id).map_or(0, |object| object.pages)
    }

    /// All that is known is what SQLite says.
    fn agrees(&self, after: &str) {
        assert_eq!(self.by_name(), self.dbstat(), "after {after}");
        assert_eq!(self.pages_of(ObjectId::REST), 0, "after {after}");
        let sum: u64 = self.known.values().map(|object| object.pages).sum();
        assert_eq!(sum, self.pages.len() as u64, "after {after}");
        let mut counted: BTreeMap<ObjectId, u64> = BTreeMap::new();
        self.owners.values().for_each(|owner| *counted.entry(owner.id()).or_default() += 1);
        counted.insert(ObjectId::POINTERS, self.pages_of(ObjectId::POINTERS));
        let told: BTreeMap<ObjectId, u64> = self.known.iter().map(|(id, object)| (*id, object.pages)).collect();
        for (id, pages) in counted.iter().filter(|(_, pages)| **pages > 0) {
            assert_eq!(told.get(id), Some(pages), "{id:?} after {after}");
        }
        assert!(self.owners.values().all(|owner| !owner.is_open()), "after {after}");
    }
}

/// The numbers that choose.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Something that changes a database, and may be refused.
fn step(chance: &mut Chance) -> String {
    let n = chance.below(6);
    let m = chance.below(6);
    let rows = 1 + chance.below(200);
    let bytes = [20, 300, 3_000, 40_000][chance.below(4) as usize];
    let series = format!("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {rows})");
    match chance.below(22) {
        0 => format!("CREATE TABLE IF NOT EXISTS t{n}(a INTEGER PRIMARY KEY, b, c);"),
        1 => format!("CREATE TABLE IF NOT EXISTS w{n}(a TEXT, b, c, PRIMARY KEY(a, b)) WITHOUT ROWID;"),
        2 => format!("CREATE INDEX IF NOT EXISTS i{n} ON t{m}(b);"),
        3 => format!("CREATE INDEX IF NOT EXISTS j{n} ON t{m}(c, b);"),
        4..=7 => {
            format!("{series} INSERT INTO t{n}(b, c) SELECT hex(randomblob(8)), randomblob({bytes} + x % 7) FROM c;")
        }
        8 | 9 => {
            format!("{series} INSERT OR IGNORE INTO w{n} SELECT hex(randomblob(4)), x, randomblob({bytes}) FROM c;")
        }
        10 | 11 => format!("DELETE FROM t{n} WHERE a % {} = 0;", 2 + m),
        12 => format!("DELETE FROM t{n};"),
        13 => format!("UPDATE t{n} SET c = randomblob({bytes}) WHERE a % {} = 0;", 2 + m),
        14 => format!("DROP TABLE IF EXISTS t{n};"),
        15 => format!("DROP INDEX IF EXISTS i{n};"),
        16 => format!("ALTER TABLE t{n} RENAME TO t{m};"),
        17 => format!(
            "CREATE TABLE next(a INTEGER PRIMARY KEY, b, c); INSERT INTO next SELECT * FROM t{n}; DROP TABLE t{n}; ALTER TABLE next RENAME TO t{n};"
        ),
        18 => "PRAGMA incremental_vacuum(7);".to_owned(),
        19 => format!("DROP TABLE IF EXISTS w{n}; REINDEX;"),
        20 => "VACUUM;".to_owned(),
        _ => format!(
            "CREATE TABLE IF NOT EXISTS \"a name that is longer than what one page of the schema holds of its row, {n}\"(a UNIQUE, b);"
        ),
    }
}

#[test]
fn whose_pages_are_is_what_dbstat_says_whatever_was_done_and_only_what_changed_was_read() {
    let seeds: u64 = std::env::var("LITTORAL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(6);
    let (mut found_open, mut largest) = (0, 0);
    for seed in 0..seeds {
        let mut chance = Chance(seed.wrapping_mul(77) + 5);
        let folder = tempfile::tempdir().unwrap();
        let page_size = [512, 1024, 4096][(seed % 3) as usize];
        let pragmas = [
            "",
            "PRAGMA auto_vacuum=FULL;",
            "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA encoding='UTF-16le';",
            "PRAGMA secure_delete=ON;",
        ];
        let mut database = Watched::new(folder.path(), page_size, pragmas[(seed % 4) as usize]);
        database.checkpoint(|_, _| {});
        database.agrees("its beginning");
        for round in 0..25 {
            let steps: String = (0..1 + chance.below(3)).map(|_| step(&mut chance) + "\n").collect();
            let done = format!("seed {seed}, round {round}: {steps}");
            attempt(&database.path, &steps);
            database.checkpoint(|_, _| {});
            // A page that is byte for byte what it was, and another's: what it names is found out next time, and until then it is said to
            // be open.
            while database.known.values().any(|object| object.open > 0) {
                database.checkpoint(Watched::look_at_what_is_open);
                found_open += 1;
            }
            database.agrees(&done);
        }
        largest = largest.max(database.pages.len());
    }
    assert!(largest > 100, "nothing much was done");
    assert!(found_open <= seeds * 25 / 10, "open pages are the exception: {found_open}");
}

#[test]
fn a_large_table_of_which_one_page_changed_is_told_by_what_changed_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = Watched::new(folder.path(), 4096, "");
    sql(
        &database.path,
        "CREATE INDEX by_b ON t(b);
         WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 20000) INSERT INTO t SELECT x, hex(randomblob(50)) FROM c;",
    );
    database.checkpoint(|_, _| {});
    let all = database.looked_at;
    assert!(all > 500);
    sql(&database.path, "UPDATE t SET a = -1 WHERE rowid = 7000;");
    let found = database.checkpoint(|_, _| {});
    assert!(database.looked_at - all <= 3, "{} pages were looked at", database.looked_at - all);
    assert_eq!(found.owners, BTreeMap::new(), "nobody's page went to anybody");
    database.agrees("an update");
}

#[test]
fn a_table_keeps_its_number_whatever_it_is_called_and_wherever_its_root_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = Watched::new(folder.path(), 1024, "PRAGMA auto_vacuum=INCREMENTAL;");
    let fill = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 300) INSERT INTO";
    sql(
        &database.path,
        &format!(
            "CREATE TABLE early(a, b); CREATE TABLE late(a, b); {fill} early SELECT x, randomblob(100) FROM c; {fill} late SELECT x, randomblob(100) FROM c;"
        ),
    );
    database.checkpoint(|_, _| {});
    let of = |database: &Watched, name: &str| {
        let found = database.known.iter().find(|(_, object)| &*object.name == name);
        found.map(|(id, object)| (*id, object.root.unwrap())).unwrap()
    };
    let (id, root) = of(&database, "late");
    // Its root goes where the other's was, and it gets the other's name.
    sql(&database.path, "DROP TABLE early; ALTER TABLE late RENAME TO early;");
    database.checkpoint(|_, _| {});
    let (now, moved) = of(&database, "early");
    assert_ne!(moved, root);
    assert_eq!(now, id);
    database.agrees("a move");
}

#[test]
fn where_nothing_is_known_what_is_looked_at_is_told_and_the_rest_is_said_to_be_unattributed_until_it_was_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = Watched::new(folder.path(), 512, "");
    sql(
        &database.path,
        "CREATE TABLE w(a PRIMARY KEY, b) WITHOUT ROWID;
         WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 400) INSERT INTO w SELECT x, randomblob(900) FROM c;
         DELETE FROM w WHERE a % 5 = 0;",
    );
    database.checkpoint(|_, _| {});
    database.agrees("the beginning");
    // The machine is another one: it has the database's pages, and knows nothing of their owners.
    database.owners.clear();
    let mut before = u64::MAX;
    for round in 0.. {
        assert!(round < 200, "it does not end");
        // A few of those that are open, and what they lead to.
        database.checkpoint(Watched::look_at_what_is_open);
        let sum: u64 = database.known.values().map(|object| object.pages).sum();
        assert_eq!(sum, database.pages.len() as u64);
        let said = database.dbstat();
        for (name, pages) in database.by_name() {
            assert!(said.get(&name).is_some_and(|all| pages <= *all), "{name} is said to have {pages}");
        }
        let rest = database.pages_of(ObjectId::REST);
        assert!(rest <= before);
        before = rest;
        if rest == 0 && database.owners.values().all(|owner| !owner.is_open()) {
            break;
        }
    }
    database.agrees("all of it was looked at");
}

#[test]
fn bytes_that_are_no_database_are_told_as_unattributed_and_end() {
    let page_size = PageSize::MIN;
    let mut chance = Chance(3);
    for round in 0..200 {
        let mut looks = Looks::default();
        let mut pages: Vec<Vec<u8>> = Vec::new();
        for _ in 0..20 {
            let mut image: Vec<u8> = (0..512)
                .map(|_| if chance.below(3) == 0 { chance.below(256) as u8 } else { chance.below(3) as u8 })
                .collect();
            image[if pages.is_empty() { 100 } else { 0 }] = [0x02, 0x05, 0x0a, 0x0d, 0][chance.below(5) as usize];
            pages.push(image);
        }
        let count = PageCount(20);
        for (index, image) in pages.iter().enumerate() {
            looks.look(PageNo::from_index(index as u64), image, count);
        }
        let at = |page: PageNo| pages.get(page.index() as usize).cloned().unwrap_or_else(|| vec![0; 512]);
        let read = trees(page_size, &mut |page| Ok::<_, Infallible>(Some(at(page)))).unwrap().unwrap();
        for has_owners in [false, true] {
            let state = State { page_size, page_count: count, trees: Some(&read), has_owners };
            let owner = |page: PageNo| PageOwner::of_bits((page.get() * 7919 % 97) as u32);
            let told = found(&looks, state, &Known::new(), &mut |page| Ok::<_, Infallible>(owner(page))).unwrap();
            let sum: u64 = told.objects.values().map(|object| object.pages).sum();
            assert!(has_owners || sum == 20, "round {round}: {sum}");
        }
    }
}

#[test]
fn where_a_page_of_the_schema_is_not_at_hand_no_tree_is_told_even_if_only_a_names_end_is_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let database = Watched::new(folder.path(), 512, "");
    let long = "n".repeat(900);
    sql(&database.path, &format!("CREATE TABLE {long}(a); CREATE TABLE u(a);"));
    let bytes = std::fs::read(&database.path).unwrap();
    let pages: Vec<&[u8]> = bytes.chunks(512).collect();
    let mut asked = Vec::new();
    let all = trees(database.page_size, &mut |page: PageNo| {
        asked.push(page);
        Ok::<_, Infallible>(Some(pages[page.index() as usize].to_vec()))
    });
    assert_eq!(all.unwrap().unwrap().len(), 3);
    assert!(asked.len() > 2, "some of it is on other pages");
    for missing in asked {
        let told = trees(database.page_size, &mut |page: PageNo| {
            Ok::<_, Infallible>((page != missing).then(|| pages[page.index() as usize].to_vec()))
        });
        assert_eq!(told.unwrap(), None, "without page {missing}");
    }
}

#[test]
fn of_more_pages_than_are_kept_in_mind_nothing_is_kept_and_nothing_is_told() {
    let (mut looks, image) = (Looks::default(), [0; 512]);
    let count = PageCount(CATALOGUE_PAGES_MAX as u64 + 1);
    for index in 0..count.0 {
        assert!(!looks.is_lost());
        looks.look(PageNo::from_index(index), &image, count);
    }
    assert!(looks.is_lost() && looks.is_empty());
    let state = State { page_size: PageSize::MIN, page_count: count, trees: None, has_owners: true };
    let owner = |_: PageNo| PageOwner::new(ObjectId::SCHEMA, Part::Node, false);
    let told = found(&looks, state, &Known::new(), &mut |page| Ok::<_, Infallible>(owner(page))).unwrap();
    assert_eq!((told.owners.len(), told.objects[&ObjectId::REST].pages), (0, count.0));
}
