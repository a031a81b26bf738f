//! What a statement's program says of the trees that it will search: which cursors stand on which trees, and which column of which
//! row is looked up in which tree next.
//!
//! SQLite shows the program of a statement by `EXPLAIN`. It says so for people who debug, and promises nothing: whatever is not
//! understood is passed over, and then nothing is foreseen. A program that is understood wrongly costs pages that nobody reads, and
//! never a wrong one.
//!
//! The program is read once, from its beginning to its end, as if nothing jumped: a register holds what was put into it last.
//! That is how SQLite writes nested loops down: outer loops before inner ones, keys right before the searches that they are for.

use crate::record::{Collation, KeyField, Value, root};
use littoral_types::PageNo;
use std::collections::BTreeMap;

/// One step of a program, as `EXPLAIN` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// Its place.
    pub address: i64,
    /// What is done.
    pub opcode: String,
    /// Its first number.
    pub p1: i64,
    /// Its second.
    pub p2: i64,
    /// Its third.
    pub p3: i64,
    /// Its text.
    pub p4: String,
    /// Its flags.
    pub p5: i64,
}

/// What is known of a statement's searches: nests of loops, from the outer ones to the inner ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nest {
    pub(crate) trees: BTreeMap<i64, Tree>,
    /// In the order of the program.
    pub(crate) searches: Vec<Search>,
    /// From the outermost loop to the innermost.
    pub(crate) scans: Vec<Scan>,
}

/// What a cursor stands on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tree {
    pub(crate) root: PageNo,
    /// Of an index, how its keys are compared.
    pub(crate) fields: Option<Vec<KeyField>>,
}

/// A tree is searched for something that comes from another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Search {
    pub(crate) cursor: i64,
    pub(crate) key: Key,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Key {
    /// A row of a table.
    Row(Part),
    /// Entries of an index: those that are equal in so many fields.
    Entries(Vec<Part>, usize),
}

/// One field of a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) source: Source,
    /// SQLite's letter for what it is made before it is compared.
    pub(crate) affinity: Option<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    Column(i64, usize),
    /// The number of the row, or of the row that an index's entry names.
    Row(i64),
    Constant(Value),
}

/// A loop over a tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scan {
    pub(crate) cursor: i64,
    pub(crate) backward: bool,
    /// It stays among entries that are equal in so many fields; zero for no such bound.
    pub(crate) equal: usize,
    /// Each row that it comes to is looked up further, as far as the program says.
    pub(crate) sure: bool,
}

/// What may make a loop's row one that is not looked up.
const FILTERS: &[&str] = &[
    "Eq",
    "Ne",
    "Lt",
    "Le",
    "Gt",
    "Ge",
    "If",
    "IfNot",
    "NotNull",
    "Filter",
    "IfNullRow",
    "IsTrue",
    "Found",
    "NotFound",
];
/// What ends a statement before its loops do.
const LIMITS: &[&str] = &["DecrJumpZero", "IfNotZero", "OffsetLimit"];
/// Written into by their second number, and not followed.
const INTO_SECOND: &[&str] = &[
    "Variable",
    "Blob",
    "Count",
    "Sequence",
    "NewRowid",
    "RowData",
    "Param",
    "AggFinal",
    "Not",
    "BitNot",
    "IsTrue",
    "Gosub",
    "SorterData",
    "RowCell",
    "Offset",
];
/// The same by their third.
const INTO_THIRD: &[&str] = &[
    "Function",
    "PureFunc",
    "Add",
    "Subtract",
    "Multiply",
    "Divide",
    "Remainder",
    "Concat",
    "BitAnd",
    "BitOr",
    "ShiftLeft",
    "ShiftRight",
    "And",
    "Or",
    "VColumn",
    "AggValue",
    "ZeroOrNull",
    "RowSetRead",
];

#[derive(Default)]
struct Reading {
    nest: Nest,
    registers: BTreeMap<i64, Part>,
    /// Keys that were made into one value: first register, how many, affinities.
    records: BTreeMap<i64, (i64, i64, String)>,
}

impl Nest {
    /// Reads a program. Programs of triggers, which follow it, are left out.
    pub fn of(program: &[Instruction]) -> Nest {
        let end = (0..).zip(program).position(|(at, step): (i64, _)| step.address != at);
        let program = program.get(..end.unwrap_or(program.len())).unwrap_or_default();
        let mut reading = Reading::default();
        // Constants are put down behind everything else, and run first.
        let prologue = program.iter().rposition(|step| step.opcode == "Transaction").unwrap_or(program.len());
        program.iter().skip(prologue).for_each(|step| reading.step(step, program));
        program.iter().take(prologue).for_each(|step| reading.step(step, program));
        let Reading { mut nest, .. } = reading;
        nest.searches.retain(|search| search.sources().any(|source| source.cursor().is_some()));
        let limited = program.iter().any(|step| LIMITS.contains(&step.opcode.as_str()));
        let mut scans: Vec<(i64, Scan)> = Vec::new();
        for step in program.iter().filter(|step| matches!(step.opcode.as_str(), "Next" | "Prev")) {
            if !nest.trees.contains_key(&step.p1) || scans.iter().any(|(_, scan)| scan.cursor == step.p1) {
                continue;
            }
            let body = program.iter().filter(|other| (step.p2..step.address).contains(&other.address));
            let is_search = |other: &&Instruction| {
                matches!(other.opcode.as_str(), "SeekRowid" | "NotExists" | "SeekGE" | "SeekGT" | "SeekLE" | "SeekLT")
            };
            let mut before = body.take_while(|other| !is_search(other));
            let filtered = before.any(|other| FILTERS.contains(&other.opcode.as_str()));
            let scan = Scan {
                cursor: step.p1,
                backward: step.opcode == "Prev",
                equal: equal(program, step.p1),
                sure: !limited && !filtered,
            };
            scans.push((step.p2, scan));
        }
        scans.sort_by_key(|(body, _)| *body);
        nest.scans = scans.into_iter().map(|(_, scan)| scan).collect();
        nest
    }

    /// Whether nothing can be foreseen by it.
    pub fn is_empty(&self) -> bool {
        self.searches.is_empty() || self.scans.is_empty()
    }

    /// The trees that it reads, by their roots.
    pub fn roots(&self) -> impl Iterator<Item = PageNo> {
        self.trees.values().map(|tree| tree.root)
    }

    /// Whether it searches a tree for something that comes from another.
    pub(crate) fn searches_in(&self, root: PageNo) -> bool {
        let roots = self.searches.iter().filter_map(|search| self.trees.get(&search.cursor)).map(|tree| tree.root);
        roots.into_iter().any(|known| known == root)
    }
}

/// In how many fields a loop's entries are equal to where it began: the loop ends at the first one that is not.
fn equal(program: &[Instruction], cursor: i64) -> usize {
    let of = |names: &[&str]| {
        program
            .iter()
            .find(|step| step.p1 == cursor && names.contains(&step.opcode.as_str()))
            .map(|step| (step.p3, step))
    };
    let begins = of(&["SeekGE", "SeekGT", "SeekLE", "SeekLT"]);
    let ends = of(&["IdxGT", "IdxGE", "IdxLT", "IdxLE"]);
    match (begins, ends) {
        (Some((key, _)), Some((same, ends))) if key == same => ends.p4.parse().unwrap_or(0),
        _ => 0,
    }
}

impl Search {
    pub(crate) fn parts(&self) -> &[Part] {
        match &self.key {
            Key::Row(part) => std::slice::from_ref(part),
            Key::Entries(parts, _) => parts,
        }
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        self.parts().iter().map(|part| &part.source)
    }
}

impl Source {
    /// The cursor that it comes from.
    pub(crate) fn cursor(&self) -> Option<i64> {
        match self {
            Source::Column(cursor, _) | Source::Row(cursor) => Some(*cursor),
            Source::Constant(_) => None,
        }
    }
}

impl Reading {
    fn put(&mut self, register: i64, source: Option<Source>) {
        self.records.remove(&register);
        match source {
            Some(source) => drop(self.registers.insert(register, Part { source, affinity: None })),
            None => drop(self.registers.remove(&register)),
        }
    }

    fn step(&mut self, step: &Instruction, program: &[Instruction]) {
        let Instruction { opcode, p1, p2, p3, p4, .. } = step;
        match opcode.as_str() {
            "OpenRead" | "OpenWrite" | "ReopenIdx" => self.open(step),
            "Column" => {
                let source = usize::try_from(*p2).ok().map(|field| Source::Column(*p1, field));
                self.put(*p3, source);
            }
            "Rowid" | "IdxRowid" => self.put(*p2, Some(Source::Row(*p1))),
            "Integer" => self.put(*p2, Some(Source::Constant(Value::Integer(*p1)))),
            "Int64" => self.put(*p2, p4.parse().ok().map(|number| Source::Constant(Value::Integer(number)))),
            "Real" => self.put(*p2, p4.parse().ok().map(|number| Source::Constant(Value::Real(number)))),
            "String8" => self.put(*p2, Some(Source::Constant(Value::Text(p4.clone().into_bytes())))),
            "Null" => (*p2..=(*p3).max(*p2).min(p2.saturating_add(64)))
                .for_each(|register| self.put(register, Some(Source::Constant(Value::Null)))),
            "Copy" | "SCopy" | "IntCopy" => self.copy(*p1, *p2, if opcode == "Copy" { *p3 } else { 0 }),
            "Affinity" => self.become_of(*p1, p4.as_bytes()),
            "RealAffinity" => self.become_of(*p1, b"E"),
            "MustBeInt" => self.become_of(*p1, b"D"),
            "Cast" => self.put(*p1, None),
            "MakeRecord" => {
                self.put(*p3, None);
                self.records.insert(*p3, (*p1, *p2, p4.clone()));
            }
            "SeekRowid" | "NotExists" => self.search_row(*p1, *p3),
            "DeferredSeek" => {
                let part = Part { source: Source::Row(*p1), affinity: None };
                self.search(Search { cursor: *p3, key: Key::Row(part) });
            }
            "SeekGE" | "SeekGT" | "SeekLE" | "SeekLT" => match self.nest.trees.get(p1) {
                Some(Tree { fields: None, .. }) => self.search_row(*p1, *p3),
                _ => self.search_entries(*p1, *p3, p4.parse().unwrap_or(0), equal(program, *p1), b""),
            },
            "Found" | "NotFound" | "NoConflict" => match (p4.parse::<i64>(), self.records.get(p3).cloned()) {
                (Ok(0), Some((first, count, affinity))) => {
                    self.search_entries(*p1, first, count, usize::try_from(count).unwrap_or(0), affinity.as_bytes());
                }
                (Ok(count), _) if count > 0 => {
                    self.search_entries(*p1, *p3, count, usize::try_from(count).unwrap_or(0), b"");
                }
                _ => {}
            },
            name if INTO_SECOND.contains(&name) => self.put(*p2, None),
            name if INTO_THIRD.contains(&name) => self.put(*p3, None),
            _ => {}
        }
    }

    /// A cursor stands on a tree of the database itself: not on one of another file, and not where a register says.
    fn open(&mut self, step: &Instruction) {
        const ROOT_IN_REGISTER: i64 = 0x10;
        let fields = key_fields(&step.p4);
        let known = step.p3 == 0 && step.p5 & ROOT_IN_REGISTER == 0;
        match root(step.p2).filter(|_| known).zip(fields) {
            Some((root, fields)) => drop(self.nest.trees.insert(step.p1, Tree { root, fields })),
            None => drop(self.nest.trees.remove(&step.p1)),
        }
    }

    fn copy(&mut self, from: i64, to: i64, more: i64) {
        for nth in 0..=more.clamp(0, 64) {
            match self.registers.get(&(from + nth)).cloned() {
                Some(part) => drop(self.registers.insert(to + nth, part)),
                None => drop(self.registers.remove(&(to + nth))),
            }
        }
    }

    fn become_of(&mut self, first: i64, affinities: &[u8]) {
        for (register, affinity) in (first..).zip(affinities) {
            if let Some(part) = self.registers.get_mut(&register) {
                part.affinity = Some(*affinity);
            }
        }
    }

    fn search_row(&mut self, cursor: i64, register: i64) {
        if let Some(part) = self.registers.get(&register).cloned() {
            self.search(Search { cursor, key: Key::Row(part) });
        }
    }

    fn search_entries(&mut self, cursor: i64, first: i64, count: i64, equal: usize, affinities: &[u8]) {
        let parts =
            (first..first.saturating_add(count.clamp(0, 64))).map_while(|register| self.registers.get(&register));
        let mut parts: Vec<Part> = parts.cloned().collect();
        for (part, affinity) in parts.iter_mut().zip(affinities) {
            part.affinity = Some(*affinity);
        }
        let equal = equal.min(parts.len());
        if !parts.is_empty() {
            self.search(Search { cursor, key: Key::Entries(parts, equal) });
        }
    }

    fn search(&mut self, search: Search) {
        if self.nest.trees.contains_key(&search.cursor) {
            self.nest.searches.push(search);
        }
    }
}

/// How an index's keys are compared, as `k(2,B,-NOCASE)` says; of a table nothing but a count of columns, or nothing, is said. `None` for
/// a collation that only the application knows.
fn key_fields(p4: &str) -> Option<Option<Vec<KeyField>>> {
    let Some(fields) = p4.strip_prefix("k(") else { return Some(None) };
    let names = fields.trim_end_matches(')').split(',').skip(1);
    let field = |name: &str| {
        let (descending, name) = name.strip_prefix('-').map_or((false, name), |name| (true, name));
        let collation = match name {
            "" | "B" | "BINARY" => Collation::Binary,
            "NOCASE" => Collation::NoCase,
            "RTRIM" => Collation::RightTrim,
            _ => return None,
        };
        Some(KeyField { collation, descending })
    };
    names.map(field).collect::<Option<Vec<KeyField>>>().map(Some)
}
