//! A run of manifest operations, summed up.

use littoral_types::{
    Base, ChunkId, Delta, DeltaId, ManifestOp, ObjectId, ObjectMark, PageNo, SessionMark, SessionStep,
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Does what the run does, without what later operations undo.
///
/// The result keeps the promise that index records rely on: applied to any state that already holds a prefix of the run,
/// it gives the state at the end of the run.
pub fn compose(ops: Vec<ManifestOp>) -> Vec<ManifestOp> {
    let from = ops.iter().rposition(|op| matches!(op, ManifestOp::Reshape { .. })).unwrap_or(0);
    let run = &ops[from..];
    let final_size = run.iter().rev().find_map(size);
    let least = run.iter().filter_map(size).min();

    let mut kept: Vec<ManifestOp> = Vec::new();
    let mut rewritten: HashMap<ChunkId, &Base> = HashMap::new();
    let mut replaced: HashMap<ChunkId, HashSet<DeltaId>> = HashMap::new();
    let mut told: HashSet<ChunkId> = HashSet::new();
    // The smallest size that comes later: what it cut off is dead for good in everything put before.
    let mut cut: Option<u64> = None;
    for op in run.iter().rev() {
        match op {
            ManifestOp::Resize { page_count } => cut = Some(cut.map_or(page_count.0, |cut| cut.min(page_count.0))),
            ManifestOp::PutDelta { chunk, delta }
                if rewritten.get(chunk).is_some_and(|base| !base.leaves(delta.id)) => {}
            ManifestOp::PutBase { chunk, .. } if rewritten.contains_key(chunk) => {}
            // Cut to nothing later: whatever it put is dead, and so is all it replaced.
            ManifestOp::PutBase { .. } | ManifestOp::PutDelta { .. } | ManifestOp::ReplaceDeltas { .. }
                if cut == Some(0) => {}
            ManifestOp::PutBase { chunk, base } => {
                rewritten.insert(*chunk, base);
                let mut base = base.clone();
                base.last_live = cut_to(base.last_live, cut);
                kept.push(ManifestOp::PutBase { chunk: *chunk, base });
            }
            ManifestOp::PutDelta { chunk, delta } => {
                let gone = replaced.get(chunk).is_some_and(|gone| gone.contains(&delta.id));
                if !gone {
                    kept.push(ManifestOp::PutDelta { chunk: *chunk, delta: cut_delta(delta, cut) });
                }
            }
            ManifestOp::ReplaceDeltas { chunk, replaced: ids, delta } => {
                // What a later base takes away needs nobody else to.
                let stays = |id: &DeltaId| rewritten.get(chunk).is_none_or(|base| base.leaves(*id));
                let gone = replaced.entry(*chunk).or_default();
                let delta = delta.as_ref().filter(|delta| !gone.contains(&delta.id) && stays(&delta.id));
                let delta = delta.map(|delta| cut_delta(delta, cut));
                let ids: Vec<DeltaId> = ids.iter().copied().filter(stays).collect();
                gone.extend(ids.iter().copied());
                if !rewritten.contains_key(chunk) || !ids.is_empty() || delta.is_some() {
                    kept.push(ManifestOp::ReplaceDeltas { chunk: *chunk, replaced: ids, delta });
                }
            }
            ManifestOp::Reshape { .. } => kept.push(op.clone()),
            ManifestOp::PutSegment { chunk, .. } | ManifestOp::DropSegment { chunk } => {
                // Each says all that is known of its segment.
                if told.insert(*chunk) {
                    kept.push(op.clone());
                }
            }
            ManifestOp::Session(_) | ManifestOp::Object(_) => {}
        }
    }
    // The cut comes first, so that it reaches what was there before the run; the end's size comes last.
    let at = kept.last().map_or(kept.len(), |op| kept.len() - usize::from(matches!(op, ManifestOp::Reshape { .. })));
    if let Some(page_count) = least.filter(|_| least != final_size) {
        kept.insert(at, ManifestOp::Resize { page_count });
    }
    kept.reverse();
    // Cutting to the end's size what this run put is right too: everything put was cut to what came after it.
    if let Some(page_count) = final_size {
        kept.push(ManifestOp::Resize { page_count });
    }
    // A new page size leaves sessions where they are.
    kept.extend(sessions(&ops).into_values().map(ManifestOp::Session));
    kept.extend(objects(&ops).into_values().cloned().map(ManifestOp::Object));
    kept
}

/// Where each session is in the end. One that began anew anywhere in the run did so in the sum.
fn sessions(ops: &[ManifestOp]) -> BTreeMap<&str, SessionMark> {
    let mut last: BTreeMap<&str, SessionMark> = BTreeMap::new();
    for op in ops {
        let ManifestOp::Session(mark) = op else { continue };
        let before = last.get(mark.session.as_str()).map(|before| before.step);
        let step = match (before, mark.step) {
            (Some(SessionStep::Anew(_) | SessionStep::Gone), SessionStep::On(serial)) => SessionStep::Anew(serial),
            (_, step) => step,
        };
        last.insert(mark.session.as_str(), SessionMark { step, ..mark.clone() });
    }
    last
}

/// What each table and index is in the end.
fn objects(ops: &[ManifestOp]) -> BTreeMap<ObjectId, &ObjectMark> {
    let marks = ops.iter().filter_map(|op| match op {
        ManifestOp::Object(mark) => Some((mark.id, mark)),
        _ => None,
    });
    marks.collect()
}

fn size(op: &ManifestOp) -> Option<littoral_types::PageCount> {
    match op {
        ManifestOp::Resize { page_count } => Some(*page_count),
        _ => None,
    }
}

fn cut_to(last_live: PageNo, cut: Option<u64>) -> PageNo {
    cut.and_then(PageNo::new).map_or(last_live, |cut| last_live.min(cut))
}

fn cut_delta(delta: &Delta, cut: Option<u64>) -> Delta {
    Delta { last_live: cut_to(delta.last_live, cut), ..delta.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::{
        Base, BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, ChunkRow, Form, FrameEntry, FrameTable, Generation,
        Geometry, Home, PageCount, PageSize, Seq,
    };
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type State = BTreeMap<ChunkId, ChunkRow>;

    fn apply(state: &mut State, op: &ManifestOp) {
        match (op, op.chunk()) {
            (ManifestOp::Reshape { .. }, _) => state.clear(),
            (_, Some(chunk)) => state.entry(chunk).or_insert_with(|| ChunkRow::new(chunk)).apply(op),
            (_, None) => state.values_mut().for_each(|row| row.apply(op)),
        }
        state.retain(|_, row| !row.is_empty());
    }

    fn table(pages: Vec<PageNo>, at: u64) -> FrameTable {
        FrameTable::new([FrameEntry { span: ByteSpan { offset: at, len: 10 }, pages }], [], 0)
    }

    fn blob(kind: BlobKind, at: u64) -> BlobRef {
        BlobRef { home: Home::Own, name: BlobName { kind, hash: BlobHash([at as u8; 32]), birth: Seq(at) }, len: at }
    }

    /// A history as a database makes it: each record resizes, then puts; sizes and chunks are small so that they meet.
    fn history(steps: &[(u8, u64, u64, u64)]) -> Vec<ManifestOp> {
        let geometry = Geometry::new(PageSize::MAX);
        let mut state = State::new();
        let mut ops = Vec::new();
        let mut size = PageCount(2500);
        let mut generation = Generation(1);
        for (at, (what, a, b, c)) in steps.iter().enumerate() {
            let at = at as u64 + 1;
            let mut record = Vec::new();
            if *what == 0 {
                record.push(ManifestOp::Reshape { page_size: PageSize::MAX });
            }
            if *what <= 3 {
                size = PageCount(*a % 3000);
                record.push(ManifestOp::Resize { page_count: size });
            }
            let chunk = ChunkId(b % 3);
            if let Some(span) = geometry.span(chunk, size) {
                let last_live = size.last().unwrap();
                let pages: Vec<PageNo> = span.pages().skip((*c % span.count.0) as usize).take(5).collect();
                match what {
                    4 => record.push(ManifestOp::PutBase {
                        chunk,
                        base: Base {
                            // A checkpoint's, or one that coalescing made of what the newest generation holds.
                            generation: {
                                generation = if c % 2 == 0 { Generation(at + 1) } else { generation };
                                generation
                            },
                            blob: blob(BlobKind::Chunk, at),
                            span,
                            last_live,
                            table: table(span.pages().collect(), at),
                        },
                    }),
                    5 => {
                        if let Some(row) = state.get(&chunk).filter(|row| !row.deltas.is_empty()) {
                            let from = (*c as usize) % row.deltas.len();
                            let replaced: Vec<DeltaId> =
                                row.deltas[from..].iter().take(3).map(|delta| delta.id).collect();
                            let id = *replaced.last().unwrap();
                            let delta =
                                Delta { id, blob: blob(BlobKind::Pack, at), last_live, table: table(pages, at) };
                            record.push(ManifestOp::ReplaceDeltas {
                                chunk,
                                replaced,
                                delta: (c % 4 != 0).then_some(delta),
                            });
                        }
                    }
                    _ => record.push(ManifestOp::PutDelta {
                        chunk,
                        delta: Delta {
                            id: match what {
                                6 => DeltaId::of_segment(generation, Seq(at), Form::Whole).unwrap(),
                                7 | 8 => DeltaId::of_segment(generation, Seq(at), Form::Patched).unwrap(),
                                _ => {
                                    generation = Generation(at + 1);
                                    DeltaId::of_checkpoint(generation).unwrap()
                                }
                            },
                            blob: blob(BlobKind::Pack, at),
                            last_live,
                            table: table(pages, at),
                        },
                    }),
                }
            }
            record.iter().for_each(|op| apply(&mut state, op));
            ops.extend(record);
        }
        ops
    }

    /// A blob's length, which tells it from others here, and the delta, if it is one.
    type Version = (u64, Option<DeltaId>);

    /// What a reader can tell: the live version of each page.
    fn seen(state: &State) -> Vec<(u64, Option<Version>)> {
        (0..3100)
            .map(|index| {
                let page = PageNo::from_index(index);
                let row = state.get(&ChunkId(index / 1024));
                (index, row.and_then(|row| row.find(page)).map(|found| (found.blob.len, found.delta)))
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn p08_a_sum_over_any_prefix_of_its_run_reads_like_the_run(
            steps in proptest::collection::vec((0u8..12, 0u64..4000, 0u64..3, 0u64..2000), 1..24),
            from in 0usize..24,
            held in 0usize..24,
        ) {
            let ops = history(&steps);
            let from = from % (ops.len() + 1);
            let held = from + held % (ops.len() - from + 1);
            let mut whole = State::new();
            ops.iter().for_each(|op| apply(&mut whole, op));
            let mut summed = State::new();
            ops[..held].iter().for_each(|op| apply(&mut summed, op));
            let sum = compose(ops[from..].to_vec());
            prop_assert!(sum.len() <= ops.len() - from + 1);
            sum.iter().for_each(|op| apply(&mut summed, op));
            prop_assert_eq!(seen(&summed), seen(&whole));
        }
    }
}
