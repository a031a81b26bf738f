//! Who wrote a volume, term by term.

use super::read::{Glance, Log, RECORDS_IN_FLIGHT, ReadRecord, summary};
use crate::error::EngineError;
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_types::limits::TERMS_MAX;
use littoral_types::{Epoch, Lsn, Owner, RecordBody, RecordSummary, Seq};

/// One writer's term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Its number.
    pub epoch: Epoch,
    /// Whose; `None` where the claim was pruned.
    pub owner: Option<Owner>,
    /// By the first record's wall clock; `None` where that was pruned.
    pub began_ms: Option<u64>,
    /// By the wall clock of the record that ended it; `None` as long as it lasts.
    pub ended_ms: Option<u64>,
    /// How.
    pub end: End,
    /// Its last commit.
    pub last: Lsn,
}

/// How a term ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It has not.
    Current,
    /// In order, by its owner.
    Released,
    /// By a takeover, of this owner.
    TakenOver(String),
    /// It was the fork that the volume began with.
    Forked,
}

impl End {
    /// The word users see.
    pub const fn word(&self) -> &'static str {
        match self {
            End::Current => "current",
            End::Released => "released",
            End::TakenOver(_) => "taken over",
            End::Forked => "forked",
        }
    }
}

impl Log {
    /// The newest terms of which records are left, newest first: a search for each, by the terms that headers name, so that it costs
    /// little however long the log is.
    pub async fn terms(&self, glance: &Glance) -> Result<Vec<Term>, EngineError> {
        let tail = &glance.tail;
        let floor = Seq(tail.floor.0.max(1));
        let oldest = self.at(glance, floor).await?.epoch;
        let first = oldest.0.max((tail.epoch.0 + 1).saturating_sub(TERMS_MAX));
        let begins: Vec<(Epoch, Seq)> = stream::iter((first..=tail.epoch.0).map(Epoch))
            .map(|epoch| async move { self.begin_of(glance, floor, epoch).await.map(|seq| (epoch, seq)) })
            .buffered(RECORDS_IN_FLIGHT)
            .try_collect()
            .await?;
        let records: Vec<Option<ReadRecord>> = stream::iter(begins.iter().map(|(_, seq)| *seq))
            .map(|seq| self.record(seq))
            .buffered(RECORDS_IN_FLIGHT)
            .try_collect()
            .await?;
        let mut terms: Vec<Term> = Vec::new();
        // What comes after a term says how it ended.
        let mut next: Option<(Seq, Option<ReadRecord>)> = None;
        for ((epoch, begin), record) in begins.into_iter().zip(records).rev() {
            let last = match &next {
                Some((seq, _)) => self.at(glance, Seq(seq.0 - 1)).await?,
                None => self.at(glance, tail.seq).await?,
            };
            let (mut owner, mut began_ms, mut is_fork) = (None, None, false);
            match record.as_ref().map(|record| &record.body) {
                Some(RecordBody::Claim(claim)) => owner = Some(claim.owner.clone()),
                Some(RecordBody::Fork(fork)) => (owner, is_fork) = (Some(fork.made_by.clone()), true),
                _ => {}
            }
            if let Some(record) = record.as_ref().filter(|_| owner.is_some()) {
                began_ms = Some(record.envelope.header.time_ms);
            }
            let claim = next.as_ref().and_then(|(_, record)| record.as_ref());
            let taken = claim.and_then(|record| match &record.body {
                RecordBody::Claim(claim) if claim.takes_over.is_some() => {
                    Some((claim.owner.label.clone(), record.envelope.header.time_ms))
                }
                _ => None,
            });
            let (end, ended_ms) = match (taken, &next, &tail.owner) {
                _ if is_fork => (End::Forked, Some(last.time_ms)),
                (Some((by, at)), ..) => (End::TakenOver(by), Some(at)),
                (None, None, Some(current)) => {
                    owner.get_or_insert_with(|| current.clone());
                    (End::Current, None)
                }
                (None, ..) => (End::Released, Some(last.time_ms)),
            };
            terms.push(Term { epoch, owner, began_ms, ended_ms, end, last: last.lsns.last });
            next = Some((begin, record));
        }
        Ok(terms)
    }

    /// A record, from what is known already where that has it.
    async fn at(&self, glance: &Glance, seq: Seq) -> Result<RecordSummary, EngineError> {
        if let Some(known) = glance.recent.iter().find(|known| known.seq == seq) {
            return Ok(known.clone());
        }
        let gone = || self.inconsistent(format!("record {seq} is gone"));
        Ok(summary(&self.envelope(seq).await?.ok_or_else(gone)?))
    }

    /// The first record of a term, or of what is left of it.
    async fn begin_of(&self, glance: &Glance, floor: Seq, epoch: Epoch) -> Result<Seq, EngineError> {
        let (mut low, mut high) = (floor.0, glance.tail.seq.0);
        // What is known narrows it without a request.
        for known in glance.recent.iter().filter(|known| known.seq >= floor) {
            match known.epoch >= epoch {
                true => high = high.min(known.seq.0),
                false => low = low.max(known.seq.0 + 1),
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match self.at(glance, Seq(middle)).await?.epoch >= epoch {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok(Seq(low))
    }
}
