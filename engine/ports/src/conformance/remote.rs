//! What every object store must do, checked through its port alone: `check(&store, "somewhere/empty").await`.
//!
//! Each case works in a folder of its own below the one it is given, so that they can run at once and against a store that
//! holds other things. A case panics with the promise that was broken.

use crate::memory::MemoryBody;
use crate::remote::{ObjectMeta, Remote, RemoteError};
use bytes::Bytes;
use futures::future::join_all;
use littoral_types::{ByteSpan, ObjectPath};
use std::fmt::Write as _;

/// What a store is asked for beyond the small cases.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Objects in the folder that is listed; more than one step of the store's own listing shows the seams.
    pub listed: usize,
    /// Bytes of the large blob; more than the store sends in one piece shows the seams.
    pub large: usize,
    /// Writers that race for one name, and how often.
    pub racers: usize,
    /// How many times they race.
    pub races: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { listed: 2_345, large: 23 << 20, racers: 8, races: 25 }
    }
}

/// Every case, with the sizes that find seams.
pub async fn check(remote: &dyn Remote, root: &str) {
    check_sized(remote, root, Sizes::default()).await;
}

/// Every case, with sizes of the caller's choice.
pub async fn check_sized(remote: &dyn Remote, root: &str, sizes: Sizes) {
    what_is_written_is_read(remote, &format!("{root}/written")).await;
    what_is_missing_is_missing(remote, &format!("{root}/missing")).await;
    an_empty_object_is_an_object(remote, &format!("{root}/empty")).await;
    ranges_are_exact_or_refused(remote, &format!("{root}/ranges")).await;
    suffixes_are_the_end(remote, &format!("{root}/suffixes")).await;
    put_replaces(remote, &format!("{root}/replaced")).await;
    put_new_never_replaces(remote, &format!("{root}/new")).await;
    of_many_writers_one_wins(remote, &format!("{root}/raced"), sizes.racers, sizes.races).await;
    nothing_is_half_visible(remote, &format!("{root}/half")).await;
    uploads_arrive_whole(remote, &format!("{root}/uploads"), sizes.large).await;
    a_damaged_body_is_refused(remote, &format!("{root}/damaged"), sizes.large).await;
    listing_is_complete_and_ascending(remote, &format!("{root}/listed"), sizes.listed).await;
    listing_keeps_to_its_folder(remote, &format!("{root}/folders")).await;
    deleting_is_idempotent(remote, &format!("{root}/deleted")).await;
    every_plain_name_is_a_name(remote, &format!("{root}/names")).await;
    the_url_says_where(remote);
}

/// A path under the case's folder.
pub fn path(folder: &str, name: &str) -> ObjectPath {
    ObjectPath::parse(&format!("{folder}/{name}")).expect("a plain path")
}

/// Bytes that differ at every place and do not compress to nothing.
pub fn pattern(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

async fn what_is_written_is_read(remote: &dyn Remote, folder: &str) {
    for (name, len) in [("one", 1), ("page", 4096), ("odd", 70_001), ("mebibyte", 1 << 20)] {
        let at = path(folder, name);
        let bytes = pattern(len, len as u64);
        remote.put_new(&at, bytes.clone()).await.expect("a first put_new");
        assert_eq!(
            remote.get(&at).await.expect("a get after put_new"),
            bytes,
            "get answers other bytes than put_new took"
        );
        assert_eq!(remote.size(&at).await.expect("a size"), len as u64);
    }
    let deep = path(folder, "a/b/c/d/e");
    remote.put(&deep, pattern(10, 3)).await.expect("a put below folders that nobody made");
    assert_eq!(remote.get(&deep).await.expect("a get"), pattern(10, 3));
}

async fn what_is_missing_is_missing(remote: &dyn Remote, folder: &str) {
    let at = path(folder, "nothing");
    let span = ByteSpan { offset: 0, len: 4 };
    let missing =
        |error: RemoteError| assert!(matches!(error, RemoteError::Missing { .. }), "not Missing but {error:?}");
    missing(remote.get(&at).await.expect_err("get of nothing"));
    missing(remote.get_range(&at, span).await.expect_err("get_range of nothing"));
    missing(remote.get_range(&at, ByteSpan { offset: 0, len: 0 }).await.expect_err("an empty get_range of nothing"));
    missing(remote.get_suffix(&at, 4).await.expect_err("get_suffix of nothing"));
    missing(remote.get_suffix(&at, 0).await.expect_err("an empty get_suffix of nothing"));
    missing(remote.size(&at).await.expect_err("size of nothing"));
    assert_eq!(remote.list(folder, None, 10).await.expect("a list of nothing"), vec![]);
    // A folder is not an object.
    remote.put(&path(folder, "folder/object"), pattern(4, 1)).await.expect("a put");
    missing(remote.get(&path(folder, "folder")).await.expect_err("get of a folder"));
    missing(remote.size(&path(folder, "folder")).await.expect_err("size of a folder"));
}

async fn an_empty_object_is_an_object(remote: &dyn Remote, folder: &str) {
    let at = path(folder, "empty");
    remote.put_new(&at, Bytes::new()).await.expect("put_new of nothing");
    assert_eq!(remote.get(&at).await.expect("get"), Bytes::new());
    assert_eq!(remote.size(&at).await.expect("size"), 0);
    assert_eq!(remote.get_suffix(&at, 100).await.expect("a suffix of an empty object"), (Bytes::new(), 0));
    assert_eq!(remote.get_range(&at, ByteSpan { offset: 0, len: 0 }).await.expect("no bytes of it"), Bytes::new());
    let beyond = remote.get_range(&at, ByteSpan { offset: 0, len: 1 }).await;
    assert!(matches!(beyond, Err(RemoteError::Corrupt { .. })), "a byte of an empty object: {beyond:?}");
    let again = remote.put_new(&at, pattern(3, 1)).await;
    assert!(matches!(again, Err(RemoteError::Exists { .. })), "an empty object does not hold its name: {again:?}");
    let blob = path(folder, "blob");
    remote.upload(&blob, &MemoryBody::new(Bytes::new())).await.expect("upload of nothing");
    assert_eq!(remote.size(&blob).await.expect("size"), 0);
    assert_eq!(remote.list(folder, None, 10).await.expect("list").len(), 2);
}

async fn ranges_are_exact_or_refused(remote: &dyn Remote, folder: &str) {
    let at = path(folder, "ranged");
    let bytes = pattern(10_000, 7);
    remote.put_new(&at, bytes.clone()).await.expect("put_new");
    for (offset, len) in
        [(0, 1), (0, 10_000), (1, 9_999), (9_999, 1), (4_095, 2), (5_000, 3_000), (0, 0), (10_000, 0), (17, 0)]
    {
        let got = remote.get_range(&at, ByteSpan { offset, len }).await.expect("a range within the object");
        assert_eq!(got, bytes.slice(offset as usize..(offset + len) as usize), "{len} bytes at {offset}");
    }
    for (offset, len) in
        [(0, 10_001), (9_999, 2), (10_000, 1), (20_000, 1), (10_001, 0), (5_000, u64::MAX), (u64::MAX, 1)]
    {
        let got = remote.get_range(&at, ByteSpan { offset, len }).await;
        assert!(matches!(got, Err(RemoteError::Corrupt { .. })), "{len} bytes at {offset} of 10000: {got:?}");
    }
}

async fn suffixes_are_the_end(remote: &dyn Remote, folder: &str) {
    let at = path(folder, "suffixed");
    let bytes = pattern(10_000, 8);
    remote.put_new(&at, bytes.clone()).await.expect("put_new");
    for len in [0u64, 1, 100, 9_999, 10_000, 10_001, 1 << 20] {
        let (got, whole) = remote.get_suffix(&at, len).await.expect("a suffix");
        assert_eq!(whole, 10_000, "the whole size beside a suffix of {len}");
        assert_eq!(got, bytes.slice(10_000usize.saturating_sub(len as usize)..), "a suffix of {len}");
    }
}

async fn put_replaces(remote: &dyn Remote, folder: &str) {
    let at = path(folder, "hint");
    for round in 0..4u64 {
        let bytes = pattern(100 + (3 - round as usize) * 1000, round);
        remote.put(&at, bytes.clone()).await.expect("put");
        assert_eq!(remote.get(&at).await.expect("get"), bytes, "a put does not replace");
    }
    let blob = MemoryBody::new(pattern(5_000, 9));
    remote.upload(&at, &blob).await.expect("an upload over an object");
    assert_eq!(remote.get(&at).await.expect("get"), pattern(5_000, 9));
    assert_eq!(remote.list(folder, None, 10).await.expect("list").len(), 1, "replacing leaves something behind");
}

async fn put_new_never_replaces(remote: &dyn Remote, folder: &str) {
    let at = path(folder, "taken");
    remote.put_new(&at, pattern(500, 1)).await.expect("the first");
    for bytes in [pattern(500, 2), pattern(500, 1), Bytes::new()] {
        let again = remote.put_new(&at, bytes).await;
        assert!(matches!(&again, Err(RemoteError::Exists { path }) if *path == at), "the second: {again:?}");
        assert_eq!(remote.get(&at).await.expect("get"), pattern(500, 1), "a refused put_new changed the object");
    }
    let over = path(folder, "put");
    remote.put(&over, pattern(10, 1)).await.expect("put");
    let again = remote.put_new(&over, pattern(10, 2)).await;
    assert!(matches!(again, Err(RemoteError::Exists { .. })), "put_new over a put: {again:?}");
    remote.delete(std::slice::from_ref(&at)).await.expect("delete");
    remote.put_new(&at, pattern(500, 4)).await.expect("put_new of a deleted name");
    assert_eq!(remote.get(&at).await.expect("get"), pattern(500, 4));
}

async fn of_many_writers_one_wins(remote: &dyn Remote, folder: &str, racers: usize, races: usize) {
    for race in 0..races {
        let at = path(folder, &format!("{race:04}"));
        // Different lengths, so that a mixture of two would show.
        let bodies: Vec<Bytes> =
            (0..racers).map(|racer| pattern(2_000 + racer, (race * racers + racer) as u64)).collect();
        let outcomes = join_all(bodies.iter().map(|body| remote.put_new(&at, body.clone()))).await;
        let mut winners = Vec::new();
        for (racer, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Ok(()) => winners.push(racer),
                Err(RemoteError::Exists { .. }) => {}
                Err(error) => panic!("race {race}: racer {racer} was told {error:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "race {race}: {} writers won one name", winners.len());
        assert_eq!(
            remote.get(&at).await.expect("get"),
            bodies[winners[0]],
            "race {race}: the winner's bytes are not there"
        );
    }
}

async fn nothing_is_half_visible(remote: &dyn Remote, folder: &str) {
    let at = path(folder, "object");
    let (old, new) = (pattern(3 << 20, 1), pattern((3 << 20) + 17, 2));
    let write = async {
        remote.put_new(&at, old.clone()).await.expect("put_new");
        for round in 0..6 {
            let bytes = if round % 2 == 0 { new.clone() } else { old.clone() };
            if round < 3 {
                remote.put(&at, bytes).await.expect("put");
            } else {
                remote.upload(&at, &MemoryBody::new(bytes)).await.expect("upload");
            }
        }
    };
    let read = async {
        for _ in 0..40 {
            match remote.get(&at).await {
                Ok(got) => assert!(got == old || got == new, "a reader saw {} bytes that nobody wrote", got.len()),
                Err(RemoteError::Missing { .. }) => {}
                Err(error) => panic!("a reader was told {error:?}"),
            }
            for listed in remote.list(folder, None, 10).await.expect("list") {
                assert_eq!(listed.path, at, "a listing shows what nobody named");
                assert!(listed.len == old.len() as u64 || listed.len == new.len() as u64, "half an object is listed");
            }
        }
    };
    futures::join!(write, read);
}

async fn uploads_arrive_whole(remote: &dyn Remote, folder: &str, large: usize) {
    for (name, len) in [("small", 1_000), ("middle", large / 3), ("large", large)] {
        let at = path(folder, name);
        let bytes = pattern(len, 11);
        remote.upload(&at, &MemoryBody::new(bytes.clone())).await.expect("upload");
        assert_eq!(remote.size(&at).await.expect("size"), len as u64);
        assert!(remote.get(&at).await.expect("get") == bytes, "an upload of {len} bytes arrived changed");
        // Across wherever the parts meet.
        let steps = 7u64;
        for step in 0..steps {
            let offset = len as u64 * step / steps;
            let span = ByteSpan { offset, len: (len as u64 - offset).min(90_000) };
            let got = remote.get_range(&at, span).await.expect("a range of an upload");
            assert!(got == bytes.slice(offset as usize..(offset + span.len) as usize), "a run of an upload is changed");
        }
        // The same name says the same bytes: repeating is harmless.
        remote.upload(&at, &MemoryBody::new(bytes.clone())).await.expect("the same upload again");
    }
    assert_eq!(remote.list(folder, None, 10).await.expect("list").len(), 3, "uploading leaves something behind");
}

async fn a_damaged_body_is_refused(remote: &dyn Remote, folder: &str, large: usize) {
    for (name, len) in [("small", 1_000), ("large", large)] {
        let at = path(folder, name);
        let refused = remote.upload(&at, &MemoryBody::claiming(pattern(len, 12), 0x0123_4567_89ab_cdef)).await;
        assert!(
            matches!(refused, Err(RemoteError::Corrupt { .. })),
            "a body that changed on disk was taken: {refused:?}"
        );
        let there = remote.size(&at).await;
        assert!(matches!(there, Err(RemoteError::Missing { .. })), "a refused upload is there: {there:?}");
    }
}

async fn listing_is_complete_and_ascending(remote: &dyn Remote, folder: &str, many: usize) {
    let names: Vec<ObjectPath> = (0..many).map(|n| path(folder, &format!("{:016x}", n as u64 * 7919))).collect();
    for some in names.chunks(32) {
        for done in join_all(some.iter().map(|at| remote.put_new(at, pattern(16, 1)))).await {
            done.expect("put_new");
        }
    }
    let all = remote.list(folder, None, many + 10).await.expect("a listing of everything");
    let listed: Vec<&ObjectPath> = all.iter().map(|object| &object.path).collect();
    assert_eq!(listed, names.iter().collect::<Vec<_>>(), "a listing is not complete and ascending");
    assert!(all.iter().all(|object| object.len == 16), "a listing tells other sizes");

    let first = remote.list(folder, None, 3).await.expect("the first three");
    assert_eq!(first, all[..3], "a short listing is not the beginning of the long one");
    assert_eq!(remote.list(folder, None, 0).await.expect("none"), vec![]);
    for after in [0, 1, many / 2, many - 2, many - 1] {
        let rest = remote.list(folder, Some(&names[after]), many).await.expect("the rest");
        assert_eq!(rest, all[after + 1..], "listing after {}", names[after]);
    }
    let between = path(folder, "0000000000000001");
    assert_eq!(remote.list(folder, Some(&between), 2).await.expect("after a name that is not there"), all[1..3]);
    let before = ObjectPath::parse("0").expect("a plain path");
    assert_eq!(remote.list(folder, Some(&before), 2).await.expect("after a name before the folder"), all[..2]);
    let beyond = path(folder, "zzzz");
    assert_eq!(remote.list(folder, Some(&beyond), 2).await.expect("after the last"), vec![]);

    // In steps of an awkward size, nothing twice and nothing left out.
    let mut walked = Vec::new();
    loop {
        let after = walked.last().cloned();
        let step = remote.list(folder, after.as_ref(), 701).await.expect("a step");
        if step.is_empty() {
            break;
        }
        walked.extend(step.into_iter().map(|object| object.path));
    }
    assert_eq!(walked, names, "walking a folder in steps");
}

async fn listing_keeps_to_its_folder(remote: &dyn Remote, folder: &str) {
    // A dash and a dot sort before the slash, a letter after it: folders and their neighbours interleave.
    let names = ["a/1", "a/2/x", "a/2/y", "a/3", "a-b/1", "a.b/1", "a0/1", "ab/1", "a-", "b"];
    for name in names {
        remote.put_new(&path(folder, name), pattern(4, 4)).await.expect("put_new");
    }
    let mut sorted: Vec<ObjectPath> = names.iter().map(|name| path(folder, name)).collect();
    let paths = |listed: Vec<ObjectMeta>| listed.into_iter().map(|object| object.path).collect::<Vec<_>>();
    let listed = paths(remote.list(folder, None, 100).await.expect("list"));
    sorted.sort();
    if listed != sorted {
        sorted.sort_by(|a, b| a.parts().cmp(b.parts()));
        assert_eq!(listed, sorted, "a tree is listed neither by its bytes nor part by part");
    }
    for (n, after) in sorted.iter().enumerate() {
        let rest = paths(remote.list(folder, Some(after), 100).await.expect("list"));
        assert_eq!(rest, sorted[n + 1..], "listing a tree after {after}");
        let next = paths(remote.list(folder, Some(after), 1).await.expect("list"));
        assert_eq!(next, sorted[n + 1..].iter().take(1).cloned().collect::<Vec<_>>(), "the one after {after}");
    }
    let inside: Vec<ObjectPath> = ["a/1", "a/2/x", "a/2/y", "a/3"].iter().map(|name| path(folder, name)).collect();
    assert_eq!(paths(remote.list(&format!("{folder}/a"), None, 100).await.expect("list")), inside);
    assert_eq!(paths(remote.list(&format!("{folder}/b"), None, 100).await.expect("list")), vec![], "b is no folder");
}

async fn deleting_is_idempotent(remote: &dyn Remote, folder: &str) {
    let names: Vec<ObjectPath> = (0..40).map(|n| path(folder, &format!("{n:02}"))).collect();
    for at in &names {
        remote.put_new(at, pattern(4, 4)).await.expect("put_new");
    }
    remote.delete(&[]).await.expect("deleting nothing");
    remote.delete(&names[..30]).await.expect("deleting many");
    let mut again = names[..30].to_vec();
    again.push(path(folder, "never"));
    remote.delete(&again).await.expect("deleting what is not there");
    let left: Vec<ObjectPath> =
        remote.list(folder, None, 100).await.expect("list").into_iter().map(|o| o.path).collect();
    assert_eq!(left, names[30..]);
    let gone = remote.get(&names[0]).await;
    assert!(matches!(gone, Err(RemoteError::Missing { .. })), "a deleted object answers {gone:?}");
}

async fn every_plain_name_is_a_name(remote: &dyn Remote, folder: &str) {
    let mut long = String::new();
    for n in 0..12 {
        write!(long, "{n:02}-longer.Part_").expect("writing to a string");
    }
    for name in ["-", "_", "...", ".hidden", "A.b_C-9", "UPPER", "upper", "trailing.", long.as_str()] {
        let at = path(folder, name);
        let bytes = pattern(32, name.len() as u64);
        remote.put_new(&at, bytes.clone()).await.unwrap_or_else(|error| panic!("the name {name:?}: {error:?}"));
        assert_eq!(remote.get(&at).await.expect("get"), bytes, "the name {name:?}");
    }
    assert_eq!(remote.list(folder, None, 100).await.expect("list").len(), 9, "two plain names are one");
}

fn the_url_says_where(remote: &dyn Remote) {
    let url = remote.url();
    assert!(url.contains("://"), "{url:?} is no URL");
    assert!(!url.contains('@') && !url.contains('?'), "{url:?} could hold a secret");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryRemote;
    use crate::passes_on;
    use crate::remote::BlobBody;
    use async_trait::async_trait;

    #[test]
    fn memory_keeps_every_promise() {
        futures::executor::block_on(check(&MemoryRemote::new("conformance"), "here"));
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Flaw {
        PutNewReplaces,
        PutNewForgets,
        ShortRanges,
        ListingStopsAtAThousand,
        ListingBackwards,
        MissingIsEmpty,
        BodiesUnchecked,
        DeleteOfMissingFails,
        AppendingPuts,
    }

    /// A store with one promise broken.
    #[derive(Debug)]
    struct Flawed(MemoryRemote, Flaw);

    #[async_trait]
    impl Remote for Flawed {
        passes_on!(0: get_suffix, size, url, distrust, copies);

        async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
            match self.0.get(path).await {
                Err(RemoteError::Missing { .. }) if self.1 == Flaw::MissingIsEmpty => Ok(Bytes::new()),
                answer => answer,
            }
        }

        async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
            match self.0.get_range(path, span).await {
                Err(RemoteError::Corrupt { .. }) if self.1 == Flaw::ShortRanges => {
                    let whole = self.0.get(path).await?;
                    Ok(whole.slice((span.offset as usize).min(whole.len())..))
                }
                answer => answer,
            }
        }

        async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
            if self.1 == Flaw::AppendingPuts {
                let old = self.0.get(path).await.unwrap_or_default();
                return self.0.put(path, [&old[..], &bytes[..]].concat().into()).await;
            }
            self.0.put(path, bytes).await
        }

        async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
            match self.1 {
                Flaw::PutNewReplaces => self.0.put(path, bytes).await,
                // Says yes to everyone, keeps the first.
                Flaw::PutNewForgets => self.0.put_new(path, bytes).await.or(Ok(())),
                _ => self.0.put_new(path, bytes).await,
            }
        }

        async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
            if self.1 == Flaw::BodiesUnchecked {
                let bytes = body.read(ByteSpan { offset: 0, len: body.len() }).expect("memory");
                return self.0.put(path, bytes).await;
            }
            self.0.upload(path, body).await
        }

        async fn list(
            &self,
            folder: &str,
            after: Option<&ObjectPath>,
            max: usize,
        ) -> Result<Vec<ObjectMeta>, RemoteError> {
            let mut listed = self.0.list(folder, after, max).await?;
            match self.1 {
                Flaw::ListingStopsAtAThousand => listed.truncate(1000),
                Flaw::ListingBackwards => listed.reverse(),
                _ => {}
            }
            Ok(listed)
        }

        async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
            if self.1 == Flaw::DeleteOfMissingFails {
                for path in paths {
                    self.0.size(path).await?;
                }
            }
            self.0.delete(paths).await
        }
    }

    #[test]
    fn the_suite_fails_a_store_that_breaks_any_promise() {
        use Flaw::*;
        let sizes = Sizes { listed: 1_100, large: 300_000, racers: 3, races: 2 };
        for flaw in [
            PutNewReplaces,
            PutNewForgets,
            ShortRanges,
            ListingStopsAtAThousand,
            ListingBackwards,
            MissingIsEmpty,
            BodiesUnchecked,
            DeleteOfMissingFails,
            AppendingPuts,
        ] {
            let flawed = Flawed(MemoryRemote::new("flawed"), flaw);
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                futures::executor::block_on(check_sized(&flawed, "here", sizes));
            }));
            assert!(found.is_err(), "the suite passes a store with {flaw:?}");
        }
    }
}
