//! Terms: whoever wrote a volume, for however long, is shown as it was.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod rig;

use littoral_engine::EngineError;
use littoral_engine::exec::prune::{self, prune};
use littoral_engine::log::terms::{End, Term};
use littoral_engine::volume::release;
use littoral_plan::KeepPolicy;
use littoral_ports::{MemoryRemote, Remote};
use littoral_types::{Epoch, Lsn, StoreId};
use rig::{Chance, Machine, Pages, cost, counted, log};
use std::sync::Arc;

/// What a term is to be: whose, until which commit, and how it ended.
type Known = (Epoch, StoreId, Lsn, &'static str);

fn shown(terms: &[Term]) -> Vec<Known> {
    let store = |term: &Term| term.owner.as_ref().map_or(StoreId([0; StoreId::LEN]), |owner| owner.store);
    terms.iter().map(|term| (term.epoch, store(term), term.last, term.end.word())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_term_is_shown_as_it_was_however_long_the_log_is_and_whatever_was_pruned() {
    for seed in 0..3 {
        let mut chance = Chance(seed * 2 + 1);
        let remote: Arc<dyn Remote> = Arc::new(MemoryRemote::new("terms"));
        let mut machines: Vec<Machine> = (0..3).map(|_| Machine::new(remote.clone())).collect();
        let mut pages = Pages::new(4096, 8);
        let mut known: Vec<Known> = Vec::new();
        let mut is_released = false;
        for round in 0..7 {
            let writer = (chance.below(2) as usize + round) % machines.len();
            let before = known.first().copied();
            let machine = &mut machines[writer];
            machine.target.takeover = before.map(|(epoch, ..)| epoch);
            let mut session = match machine.open().await {
                Err(EngineError::WrongTakeover { .. }) => panic!("seed {seed}: the term is another than {before:?}"),
                session => session.unwrap(),
            };
            machine.target.takeover = None;
            let epoch = session.writer.row().tail.epoch;
            if before.is_none_or(|(last, ..)| epoch > last) {
                if let Some(before) = known.first_mut().filter(|_| !is_released) {
                    before.3 = "taken over";
                }
                known.insert(0, (epoch, machine.stores.store.id(), Lsn::ZERO, "current"));
            }
            for _ in 0..chance.below(100) {
                pages.write(0, chance.next());
                let options = littoral_engine::exec::checkpoint::Options::default();
                littoral_engine::exec::checkpoint::checkpoint(
                    &mut session.writer,
                    &session.scratch,
                    &mut pages,
                    &options,
                )
                .await
                .unwrap();
            }
            is_released = chance.below(2) == 0;
            if is_released {
                release(&mut session.writer).await.unwrap();
                known[0].3 = "released";
            }
            known[0].2 = session.writer.row().tail.lsn;
            drop(session);
            let counted = counted(remote.clone());
            let log = log(counted.clone());
            let glance = log.glance().await.unwrap().unwrap();
            let terms = log.terms(&glance).await.unwrap();
            assert_eq!(shown(&terms), known, "seed {seed}, round {round}");
            assert!(terms.iter().all(|term| term.ended_ms.is_none() == (term.end == End::Current)));
            assert!(terms.iter().all(|term| term.ended_ms.is_none_or(|ended| term.began_ms.unwrap() <= ended)));
            let asked = cost(&counted).requests;
            assert!(asked < 70 + 14 * terms.len() as u64, "seed {seed}: {asked} requests for {} terms", terms.len());
        }
        // Of terms whose records went nothing is shown, and of the one that lost its claim no owner.
        let last = known[0];
        let machine = machines.iter_mut().find(|machine| machine.stores.store.id() == last.1).unwrap();
        let mut session = machine.open().await.unwrap();
        pages.write(1, chance.next());
        let options = littoral_engine::exec::checkpoint::Options::default();
        littoral_engine::exec::checkpoint::checkpoint(&mut session.writer, &session.scratch, &mut pages, &options)
            .await
            .unwrap();
        let epoch = session.writer.row().tail.epoch;
        let options = prune::Options { keep: KeepPolicy { last: 1, within_ms: 0 }, grace_ms: 0, dry_run: false };
        prune(&mut session.writer, &options).await.unwrap().unwrap();
        let log = log(remote.clone());
        let terms = log.terms(&log.glance().await.unwrap().unwrap()).await.unwrap();
        assert_eq!((terms.len(), terms[0].epoch, &terms[0].end), (1, epoch, &End::Current), "seed {seed}: {terms:?}");
        assert_eq!((terms[0].owner.as_ref().unwrap().store, terms[0].began_ms), (last.1, None));
    }
}
