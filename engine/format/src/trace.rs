//! What the writers wrote, field by field: tests draw the tables of `docs/format.md` from it.

use std::cell::RefCell;

/// One field as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) offset: usize,
    pub(crate) bytes: Vec<u8>,
}

/// All fields of one run of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    pub(crate) what: &'static str,
    pub(crate) fields: Vec<Field>,
}

thread_local! {
    static DRAWINGS: RefCell<Option<Vec<Drawing>>> = const { RefCell::new(None) };
}

pub(crate) fn note(what: &'static str, bytes: &[u8], fields: &[(&'static str, usize)]) {
    DRAWINGS.with_borrow_mut(|drawings| {
        let Some(drawings) = drawings else { return };
        let ends = fields.iter().skip(1).map(|(_, offset)| *offset).chain([bytes.len()]);
        let fields = fields.iter().zip(ends).map(|((name, offset), end)| Field {
            name,
            offset: *offset,
            bytes: bytes[*offset..end].to_vec(),
        });
        drawings.push(Drawing { what, fields: fields.collect() });
    });
}

/// What the writers wrote while `run` ran on this thread.
pub(crate) fn draw<T>(run: impl FnOnce() -> T) -> (T, Vec<Drawing>) {
    DRAWINGS.set(Some(Vec::new()));
    let value = run();
    (value, DRAWINGS.take().unwrap_or_default())
}
