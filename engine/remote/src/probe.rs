//! Does a store honour a conditional PUT? Asked once, before anything depends on it (rule P3).

use bytes::Bytes;
use futures::future::try_join_all;
use littoral_ports::{Entropy, Remote, RemoteError};
use littoral_types::ObjectPath;

/// Races, all at once. A store that takes the condition for an ornament lets both writers of nearly every race win.
pub const PROBE_RACES: usize = 3;
/// How often a race whose outcome nobody knows is run again.
const TRIES: usize = 3;

/// Two writers race for one fresh name below `folder`, a few times over: one must win, its bytes must be there, and a third
/// writer must be refused. What was written is deleted.
///
/// [`RemoteError::NotFencing`] says that the store does not fence; any other error, that it could not be asked.
pub async fn probe(remote: &dyn Remote, folder: &str, entropy: &dyn Entropy) -> Result<(), RemoteError> {
    try_join_all((0..PROBE_RACES).map(|_| race(remote, folder, entropy))).await.map(drop)
}

async fn race(remote: &dyn Remote, folder: &str, entropy: &dyn Entropy) -> Result<(), RemoteError> {
    let mut unsettled = None;
    for _ in 0..TRIES {
        let mut name = [0; 16];
        entropy.fill(&mut name);
        let name = format!("{folder}/{:032x}", u128::from_le_bytes(name));
        let path = ObjectPath::parse(&name)
            .ok_or_else(|| RemoteError::Settings(format!("{folder}: not a folder that can be probed")))?;
        let outcome = race_for(remote, &path).await;
        // Nothing depends on it, and a store that cannot delete may still fence: its owner is told when it matters.
        if let Err(error) = remote.delete(std::slice::from_ref(&path)).await {
            tracing::debug!(%error, "a probe object stays");
        }
        match outcome {
            Err(error @ RemoteError::Unknown { .. }) => unsettled = Some(error),
            outcome => return outcome,
        }
    }
    unsettled.map_or(Ok(()), Err)
}

async fn race_for(remote: &dyn Remote, path: &ObjectPath) -> Result<(), RemoteError> {
    let bodies = [Bytes::from_static(b"the first of two writers"), Bytes::from_static(b"the second of two")];
    let (first, second) =
        futures::join!(remote.put_new(path, bodies[0].clone()), remote.put_new(path, bodies[1].clone()));
    let not_fencing = |detail: &str| Err(RemoteError::NotFencing { what: remote.url(), detail: detail.to_owned() });
    let winner = match (first, second) {
        (Ok(()), Ok(())) => return not_fencing("of two writers of one name both were told that they won"),
        (Ok(()), Err(RemoteError::Exists { .. })) => &bodies[0],
        (Err(RemoteError::Exists { .. }), Ok(())) => &bodies[1],
        (Err(RemoteError::Exists { .. }), Err(RemoteError::Exists { .. })) => {
            return not_fencing("of two writers of a fresh name neither was told that it won");
        }
        // One was refused and the other does not know: perhaps it won.
        (Err(RemoteError::Exists { .. }), Err(error)) | (Err(error), Err(RemoteError::Exists { .. })) => {
            return Err(error);
        }
        // What a store says of itself goes before what is unknown.
        (Err(error), Ok(()) | Err(RemoteError::Unknown { .. })) | (Ok(()), Err(error)) | (Err(_), Err(error)) => {
            return Err(error);
        }
    };
    if remote.get(path).await? != *winner {
        return not_fencing("the loser of two writers replaced what the winner had written");
    }
    match remote.put_new(path, Bytes::from_static(b"a third writer")).await {
        Err(RemoteError::Exists { .. }) => {}
        Ok(()) => return not_fencing("a writer was told that it won a name which was taken"),
        Err(error) => return Err(error),
    }
    if remote.get(path).await? != *winner {
        return not_fencing("a refused writer replaced what was there");
    }
    Ok(())
}
