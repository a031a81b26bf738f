//! Pins: how anyone, anywhere, keeps a pruner away from what they need (rule P2).
//!
//! The pinner puts the pin, then reads the tail again. The pruner publishes its record, then lists the pins, then deletes only
//! what none of them reaches. Whatever the order, one of the two sees the other:
//!
//! | pin put | prune published | who yields |
//! |---|---|---|
//! | before | after | the pruner: it lists the pin |
//! | after | before | the pinner: it reads the prune, and takes back a pin on what that dooms |

use super::read::{Log, Opened, RECORDS_IN_FLIGHT, ReadRecord};
use crate::components::Components;
use crate::error::EngineError;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format as format;
use littoral_format::keys::{self, Folder, ObjectKey, PinKey};
use littoral_ports::RemoteError;
use littoral_types::{ObjectPath, Pin, PinId, PinPurpose, RecordBody, Seq, SnapshotName};

/// A pin and the name it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Its object's name.
    pub key: PinKey,
    /// What it says.
    pub pin: Pin,
}

/// What a pinner wants.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Why.
    pub purpose: PinPurpose,
    /// Who, for people.
    pub holder: String,
    /// For how long; `None` until dropped.
    pub life_ms: Option<u64>,
}

impl Log {
    /// Pins the state that a log was opened at. `Ok(None)` when a pruner was faster: open again, nearer the tail.
    pub async fn pin(
        &self,
        components: &Components,
        opened: &Opened,
        wish: Wish,
    ) -> Result<Option<Pinned>, EngineError> {
        let now = components.clock.wall_ms();
        let pin = Pin {
            id: PinId(components.bits()),
            volume: opened.meta.id,
            seq: opened.tail.seq,
            record: opened.tail.hash,
            lsn: opened.tail.lsn,
            holder: wish.holder,
            created_ms: now,
            expires_ms: wish.life_ms.map(|life| now.saturating_add(life)),
            purpose: wish.purpose,
        };
        let key = match &pin.purpose {
            PinPurpose::Snapshot(name) => PinKey::Snapshot(name.clone()),
            PinPurpose::Restore | PinPurpose::Reader | PinPurpose::Fork(_) => PinKey::Id(pin.id),
        };
        let oldest = match &pin.purpose {
            PinPurpose::Fork(child) => child.rows.min(pin.seq),
            PinPurpose::Snapshot(_) | PinPurpose::Restore | PinPurpose::Reader => pin.seq,
        };
        let path = keys::pin(self.name(), &key);
        let bytes = Bytes::from(format::pin::encode(&pin).map_err(EngineError::damaged(&path))?);
        match self.remote().put_new(&path, bytes.clone()).await {
            Ok(()) => {}
            Err(error @ (RemoteError::Exists { .. } | RemoteError::Unknown { .. })) => {
                // A pin's bytes hold its id: equal bytes are our own.
                match self.remote().get(&path).await {
                    Ok(found) if found == bytes => {}
                    Ok(_) => {
                        return Err(EngineError::Refused(format!(
                            "{}: there is a snapshot {} already",
                            self.url(),
                            key_word(&key)
                        )));
                    }
                    Err(RemoteError::Missing { .. }) => return Err(error.into()),
                    Err(other) => return Err(other.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        components.faults.reach("pin.put")?;
        if self.pruned_since(opened.seen, oldest).await? {
            self.remote().delete(&[path]).await?;
            return Ok(None);
        }
        Ok(Some(Pinned { key, pin }))
    }

    /// Whether a prune that was published after the newest record that the pinner knew has doomed the state it chose: it may not
    /// have seen the pin. What was published before, the pinner saw, and chose a state that it spares; what left everything from
    /// this state on standing spares it too.
    async fn pruned_since(&self, seen: Seq, seq: Seq) -> Result<bool, EngineError> {
        let Some(newest) = self.newest().await? else {
            return Err(EngineError::RemoteBehind { volume: self.url(), local: seen, remote: Seq::ZERO });
        };
        let since: Vec<Option<ReadRecord>> = stream::iter(seen.0 + 1..=newest.0)
            .map(|seq| self.record(Seq(seq)))
            .buffered(RECORDS_IN_FLIGHT)
            .try_collect()
            .await?;
        Ok(since.iter().any(|record| match record.as_ref().map(|record| &record.body) {
            Some(RecordBody::Prune(prune)) => prune.floor > seq,
            Some(_) => false,
            // A record that is gone already was pruned, by a prune that went further than this state.
            None => true,
        }))
    }

    /// Takes a pin back. One that is gone already is no error.
    pub async fn unpin(&self, key: &PinKey) -> Result<(), EngineError> {
        Ok(self.remote().delete(&[keys::pin(self.name(), key)]).await?)
    }

    /// All pins, by name.
    pub async fn pins(&self) -> Result<Vec<Pinned>, EngineError> {
        let listed = self.remote().list(&keys::folder(self.name(), Folder::Pins), None, usize::MAX).await?;
        let mut pins = Vec::new();
        for meta in listed {
            let Some((_, ObjectKey::Pin(key))) = ObjectKey::parse(&meta.path) else {
                return Err(self.inconsistent(format!("{} stands among its pins", meta.path)));
            };
            let bytes = match self.remote().get(&meta.path).await {
                Ok(bytes) => bytes,
                // Dropped since it was listed.
                Err(RemoteError::Missing { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let pin = self.read_pin(&meta.path, &key, &bytes)?;
            pins.push(Pinned { key, pin });
        }
        Ok(pins)
    }

    /// The pin of a named snapshot.
    pub async fn named(&self, name: &SnapshotName) -> Result<Option<Pin>, EngineError> {
        let key = PinKey::Snapshot(name.clone());
        let path = keys::pin(self.name(), &key);
        match self.remote().get(&path).await {
            Ok(bytes) => self.read_pin(&path, &key, &bytes).map(Some),
            Err(RemoteError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a pin that says the name it was found under: another's would hold another state.
    fn read_pin(&self, path: &ObjectPath, key: &PinKey, bytes: &[u8]) -> Result<Pin, EngineError> {
        let pin = format::pin::decode(bytes).map_err(EngineError::damaged(path))?;
        let own = match (&pin.purpose, key) {
            (PinPurpose::Snapshot(name), PinKey::Snapshot(key)) => name == key,
            (PinPurpose::Restore | PinPurpose::Reader | PinPurpose::Fork(_), PinKey::Id(id)) => pin.id == *id,
            _ => false,
        };
        if own { Ok(pin) } else { Err(self.inconsistent(format!("{path} holds a pin of another name"))) }
    }
}

fn key_word(key: &PinKey) -> String {
    match key {
        PinKey::Id(id) => id.to_string(),
        PinKey::Snapshot(name) => name.to_string(),
    }
}
