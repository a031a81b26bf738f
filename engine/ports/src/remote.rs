//! The object store.

use async_trait::async_trait;
use bytes::Bytes;
use littoral_types::{ByteSpan, ObjectPath};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Why a request failed, by what its caller does next.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No such object. For a hint: go on without it. For a blob that a manifest names: reload the manifest, then corruption.
    #[error("{path}: no such object")]
    Missing {
        /// Which.
        path: String,
    },
    /// A put-if-absent found the name taken. Read it: it may be ours.
    #[error("{path}: exists already")]
    Exists {
        /// Which.
        path: ObjectPath,
    },
    /// The write may have landed. Only reading the name back can settle it; never assume.
    #[error("{path}: the answer to the write was lost ({detail})")]
    Unknown {
        /// Which.
        path: ObjectPath,
        /// What happened last.
        detail: String,
    },
    /// The store answered and will go on refusing: credentials, permissions, a missing bucket. Tell the user.
    #[error("{what}: refused by the object store: {detail}")]
    Denied {
        /// Which object or bucket.
        what: String,
        /// In the store's words, without secrets.
        detail: String,
    },
    /// The bucket or the root folder is not there. Tell the user.
    #[error("no such bucket or folder: {what}")]
    NoBucket {
        /// Which.
        what: String,
    },
    /// Nobody answered, or only errors that pass, through all tries. Later may work; what was written is unchanged
    /// (an idempotent write may or may not have landed).
    #[error("{what}: the object store cannot be reached ({tries} tries): {detail}")]
    Unavailable {
        /// Which object or host.
        what: String,
        /// How often it was tried.
        tries: u32,
        /// What happened last.
        detail: String,
    },
    /// The store answers, and asks for patience, through all tries. Later works: ask less often.
    #[error("{what}: the object store asks for patience ({tries} tries): {detail}")]
    Throttled {
        /// Which object.
        what: String,
        /// How often it was tried.
        tries: u32,
        /// What it said last.
        detail: String,
    },
    /// The bytes that came or went are not the bytes that were meant.
    #[error("{path}: damaged: {detail}")]
    Corrupt {
        /// Which.
        path: String,
        /// How it was noticed.
        detail: String,
    },
    /// The store has no room left. Tell the user.
    #[error("{what}: the object store is full: {detail}")]
    Full {
        /// Which.
        what: String,
        /// In the store's words.
        detail: String,
    },
    /// The store takes a put-if-absent and does not honour it: two writers could both win (rule P3). Refuse to write
    /// unless fencing is turned off by name.
    #[error("{what}: conditional PUT is not honoured: {detail}")]
    NotFencing {
        /// Which store.
        what: String,
        /// What it did instead.
        detail: String,
    },
    /// The settings make no sense. Tell the user which.
    #[error("{0}")]
    Settings(String),
}

impl RemoteError {
    /// A run of bytes that reaches beyond the object's end: whoever named it believed in another object.
    pub fn beyond_the_end(path: &ObjectPath, span: ByteSpan, len: u64) -> Self {
        let ByteSpan { offset, len: asked } = span;
        let detail = format!("{asked} bytes at {offset} asked for, the object has {len}");
        RemoteError::Corrupt { path: path.to_string(), detail }
    }

    /// What was to be uploaded could not be read here. Nothing was published.
    pub fn unreadable(path: &ObjectPath, error: &io::Error) -> Self {
        let detail = format!("what was to be uploaded cannot be read: {error}");
        RemoteError::Corrupt { path: path.to_string(), detail }
    }

    /// What was to be uploaded is not what was summed when it was made. Nothing was published.
    pub fn changed_before_upload(path: &ObjectPath) -> Self {
        let detail = "what was to be uploaded does not match its own checksum".to_owned();
        RemoteError::Corrupt { path: path.to_string(), detail }
    }
}

/// One listed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its place.
    pub path: ObjectPath,
    /// Its size.
    pub len: u64,
    /// When it was written, milliseconds since 1970, by the store's clock.
    pub modified_ms: u64,
}

/// Bytes to upload, readable at any offset and more than once.
pub trait BlobBody: Send + Sync + fmt::Debug {
    /// How many.
    fn len(&self) -> u64;

    /// CRC64-NVME of all of them.
    fn crc64(&self) -> u64;

    /// Reads exactly this run.
    fn read(&self, span: ByteSpan) -> io::Result<Bytes>;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file that holds exactly them, where one does.
    fn file(&self) -> Option<&Path> {
        None
    }
}

/// A flat namespace of immutable objects (and one hint).
///
/// Every keeper promises:
/// 1. `put_new` is atomic: of any number of callers with one path, at most one gets `Ok`, and from then on a `get` anywhere
///    answers its bytes. An answer that was lost is [`RemoteError::Unknown`], never `Ok` and never `Exists`.
/// 2. A write is durable when it returns `Ok`; a reader never sees half of an object.
/// 3. `get_range` beyond the end is an error ([`RemoteError::Corrupt`]), never short.
/// 4. `list` is complete, ascending and consistent with writes that returned before. Ascending is by bytes or part by part,
///    as the store has it (the two differ only where a folder's name begins its neighbour's, as `a` does `a-b`), and
///    `after` goes by the same order. The empty folder is the whole remote; names that no [`ObjectPath`] spells are passed
///    over.
/// 5. Requests have a timeout, passing failures are retried a bounded number of times, and errors hold no secrets.
#[async_trait]
pub trait Remote: Send + Sync + fmt::Debug {
    /// All bytes of an object.
    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError>;

    /// A run of an object's bytes: all of it, or an error.
    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError>;

    /// An object's last bytes (all of them where it has fewer), and its whole size.
    async fn get_suffix(&self, path: &ObjectPath, len: u64) -> Result<(Bytes, u64), RemoteError>;

    /// An object's size.
    async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError>;

    /// Writes, replacing what was there. For hints only.
    async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError>;

    /// Writes if nothing is there.
    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError>;

    /// Uploads a blob, in parts when it is large, verified by the store and by size afterwards. Overwrites: the name says
    /// what the bytes are.
    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError>;

    /// Up to `max` objects whose paths begin with `folder` and a slash, ascending, beginning after `after`.
    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError>;

    /// Deletes; one that is not there is no error.
    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError>;

    /// The remote's URL, without secrets.
    fn url(&self) -> String;

    /// What came from there was not what its name says, when it was asked for after so many times that were wrong too. True where another
    /// place may have it: ask again.
    fn distrust(&self, path: &ObjectPath, wrong_before: usize) -> bool;

    /// The object stores that hold copies of what is written here, where it is known that there are some.
    fn copies(&self) -> Vec<Arc<dyn Remote>>;
}

/// Passes methods of a [`Remote`] on to a field, as they are: `passes_on!(inner: get, size, url)`. A remote before another one names with it what
/// it has nothing to say to; there is nothing that goes by itself.
#[macro_export]
macro_rules! passes_on {
    ($field:tt: $($method:ident),+ $(,)?) => {
        $($crate::passes_on!(@ $method $field);)+
    };
    (@ get $field:tt) => {
        $crate::passes_on!(@later $field get(path: &'b $crate::remote::passed::ObjectPath) -> $crate::remote::passed::Bytes);
    };
    (@ size $field:tt) => {
        $crate::passes_on!(@later $field size(path: &'b $crate::remote::passed::ObjectPath) -> u64);
    };
    (@ get_range $field:tt) => {
        $crate::passes_on!(@later $field get_range(path: &'b $crate::remote::passed::ObjectPath, span: $crate::remote::passed::ByteSpan) -> $crate::remote::passed::Bytes);
    };
    (@ get_suffix $field:tt) => {
        $crate::passes_on!(@later $field get_suffix(path: &'b $crate::remote::passed::ObjectPath, len: u64) -> ($crate::remote::passed::Bytes, u64));
    };
    (@ put $field:tt) => {
        $crate::passes_on!(@later $field put(path: &'b $crate::remote::passed::ObjectPath, bytes: $crate::remote::passed::Bytes) -> ());
    };
    (@ put_new $field:tt) => {
        $crate::passes_on!(@later $field put_new(path: &'b $crate::remote::passed::ObjectPath, bytes: $crate::remote::passed::Bytes) -> ());
    };
    (@ delete $field:tt) => {
        $crate::passes_on!(@later $field delete(paths: &'b [$crate::remote::passed::ObjectPath]) -> ());
    };
    (@ upload $field:tt) => {
        $crate::passes_on!(@later2 $field upload(path: &'b $crate::remote::passed::ObjectPath, body: &'c dyn $crate::BlobBody) -> ());
    };
    (@ list $field:tt) => {
        $crate::passes_on!(
            @later2 $field list(folder: &'b str, after: Option<&'c $crate::remote::passed::ObjectPath>, max: usize) -> Vec<$crate::ObjectMeta>
        );
    };
    (@ url $field:tt) => {
        fn url(&self) -> String {
            self.$field.url()
        }
    };
    (@ distrust $field:tt) => {
        fn distrust(&self, path: &$crate::remote::passed::ObjectPath, wrong_before: usize) -> bool {
            self.$field.distrust(path, wrong_before)
        }
    };
    (@ copies $field:tt) => {
        fn copies(&self) -> Vec<::std::sync::Arc<dyn $crate::Remote>> {
            self.$field.copies()
        }
    };
    // What `async_trait` makes of a method, whose future is the other one's.
    (@later $field:tt $method:ident($($name:ident: $of:ty),+) -> $answer:ty) => {
        fn $method<'a, 'b, 't>(&'a self, $($name: $of),+) -> $crate::remote::passed::Later<'t, $answer>
        where
            'a: 't,
            'b: 't,
            Self: 't,
        {
            self.$field.$method($($name),+)
        }
    };
    (@later2 $field:tt $method:ident($($name:ident: $of:ty),+) -> $answer:ty) => {
        fn $method<'a, 'b, 'c, 't>(&'a self, $($name: $of),+) -> $crate::remote::passed::Later<'t, $answer>
        where
            'a: 't,
            'b: 't,
            'c: 't,
            Self: 't,
        {
            self.$field.$method($($name),+)
        }
    };
}

/// What [`passes_on`] spells.
#[doc(hidden)]
pub mod passed {
    pub use bytes::Bytes;
    pub use littoral_types::{ByteSpan, ObjectPath};
    use std::future::Future;
    use std::pin::Pin;

    pub type Later<'t, T> = Pin<Box<dyn Future<Output = Result<T, super::RemoteError>> + Send + 't>>;
}
