//! Patches: pages as differences to their versions before, up to sixteen in a frame.
//!
//! 1. A patch names the identity of the version that it stands on, and is never applied to another (rule P9).
//! 2. The frame is checksummed, so that what a patch gives is what was written; it is read under its blob's mark like any frame.

use crate::nouns::Ascending;
use crate::wire::{In, Out, page_size_log2};
use crate::{FormatError, frame, identity, seal};
use littoral_types::limits::FRAME_PAGES_MAX;
use littoral_types::{IdentityKey, PageIdentity, PageNo, PageSize};
use std::cell::RefCell;
use zstd::zstd_safe::{CCtx, DCtx};

const WHAT: &str = "patch frame";
pub(crate) const VERSION: u16 = 1;
const ZSTD_LEVEL: i32 = 3;
/// A patch of more than this part of its page is not worth the versions that it needs.
const WORTH: usize = 2;

thread_local! {
    static CONTEXTS: RefCell<(CCtx<'static>, DCtx<'static>)> = RefCell::new((CCtx::create(), DCtx::create()));
}

/// One page's difference to its version before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// What the version before holds.
    pub base: PageIdentity,
    /// zstd with the version before as its dictionary.
    pub bytes: Vec<u8>,
}

impl Patch {
    /// The difference between two versions of a page; `None` where it is not much smaller than the page.
    pub fn between(before: &[u8], after: &[u8], key: &IdentityKey) -> Option<Self> {
        let room = after.len() / WORTH;
        if before.len() != after.len() || frame::is_zero(after) {
            return None;
        }
        let mut bytes = vec![0; room];
        let packed = CONTEXTS
            .with_borrow_mut(|(context, _)| context.compress_using_dict(&mut bytes[..], after, before, ZSTD_LEVEL));
        // What does not fit into the room is no error, and neither is a page that looks like a dictionary of zstd's own.
        bytes.truncate(packed.ok()?);
        Some(Self { base: identity::of(key, before), bytes })
    }

    /// The newer version, out of the one before.
    pub fn apply(&self, before: &[u8], key: &IdentityKey) -> Result<Vec<u8>, FormatError> {
        if identity::of(key, before) != self.base {
            return Err(invalid("it stands on another version of its page"));
        }
        let mut after = vec![0; before.len()];
        let len =
            CONTEXTS.with_borrow_mut(|(_, context)| context.decompress_using_dict(&mut after[..], &self.bytes, before));
        match len {
            Ok(len) if len == after.len() => Ok(after),
            Ok(len) => Err(invalid(&format!("it gives {len} bytes instead of a page's {}", after.len()))),
            Err(code) => Err(invalid(&format!("does not decompress: {}", zstd::zstd_safe::get_error_name(code)))),
        }
    }
}

/// Spells a frame of patches. Pages ascend.
pub(crate) fn encode(page_size: PageSize, mark: u64, patches: &[(PageNo, Patch)]) -> Result<Vec<u8>, FormatError> {
    if patches.is_empty() || patches.len() > FRAME_PAGES_MAX {
        let (len, max) = (patches.len() as u64, FRAME_PAGES_MAX as u64);
        return Err(FormatError::TooLarge { what: WHAT, len, max });
    }
    let mut out = Out::new(WHAT, 128 + patches.iter().map(|(_, patch)| patch.bytes.len() + 32).sum::<usize>());
    out.u16("schema version", VERSION);
    seal::put_open(&mut out);
    out.u64("mark", mark);
    out.u8("page size, log2", page_size_log2(page_size));
    out.u8("pages", patches.len() as u8);
    let mut place = Ascending::default();
    for (page, patch) in patches {
        place.put(&mut out, *page);
        out.raw("patch: identity of the version before", &patch.base.0);
        out.limit(patch.bytes.len(), page_size.len() / WORTH);
        out.blob("patch: zstd with the version before as dictionary", &patch.bytes);
    }
    out.crc();
    out.finish()
}

/// Reads a frame of patches as its table says it: these pages, in this order.
pub fn read(
    bytes: &[u8],
    page_size: PageSize,
    mark: u64,
    pages: impl ExactSizeIterator<Item = PageNo>,
) -> Result<Vec<Patch>, FormatError> {
    In::new(WHAT, bytes).version(VERSION)?;
    let mut input = In::checked(WHAT, bytes)?;
    input.version(VERSION)?;
    if seal::get(&mut input)? {
        return Err(FormatError::Sealed { what: WHAT });
    }
    if input.u64()? != mark {
        return Err(input.invalid("it belongs to another blob"));
    }
    if input.page_size()? != page_size {
        return Err(input.invalid("another page size"));
    }
    let held = usize::from(input.u8()?);
    if held != pages.len() || held == 0 || held > FRAME_PAGES_MAX {
        return Err(input.invalid(format!("{held} pages instead of {}", pages.len())));
    }
    let mut place = Ascending::default();
    let mut patches = Vec::with_capacity(held);
    for page in pages {
        let found = place.get(&mut input)?;
        if found != page {
            return Err(input.invalid(format!("page {found} instead of {page}")));
        }
        let base = PageIdentity(input.array()?);
        patches.push(Patch { base, bytes: input.blob(page_size.len() / WORTH)?.to_vec() });
    }
    input.end()?;
    Ok(patches)
}

/// What a frame says of its pages' size.
pub(crate) fn page_size(bytes: &[u8]) -> Result<PageSize, FormatError> {
    let mut input = In::new(WHAT, bytes);
    input.version(VERSION)?;
    seal::get(&mut input)?;
    input.u64()?;
    input.page_size()
}

fn invalid(detail: &str) -> FormatError {
    FormatError::Invalid { what: WHAT, detail: detail.to_owned() }
}
