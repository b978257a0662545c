//! Where a store's objects are kept.

mod faulty;
mod local;
mod memory;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use faulty::{Fault, Faults, FaultyBackend};
pub use local::LocalBackend;
pub use memory::MemoryBackend;

use crate::fs::{Bytes, Held, LockKind};

/// What a back end could not do, with which object.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {action}")]
pub struct BackendError {
    /// The object: a path or an address that a person can look at.
    pub place: String,
    /// What was being done, as in "reading the object".
    pub action: &'static str,
    /// What the system said. Its kind tells a missing object (`NotFound`), a full disk (`StorageFull`, `QuotaExceeded`), a
    /// read-only one (`ReadOnlyFilesystem`) and a lack of permission (`PermissionDenied`) apart.
    pub source: io::Error,
}

impl BackendError {
    /// The kind of the system's error.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// The result of a back end's work.
pub type BackendResult<T> = Result<T, BackendError>;

/// Which bytes a small object had when it was read: what a compare-and-swap compares with (an ETag, a digest).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(pub String);

/// An object as a listing names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub len: u64,
}

/// Keeps immutable objects under keys, and one kind of small object that changes by compare-and-swap.
///
/// A key is `name` or `folder/name`; both parts are made of `a-z`, `0-9`, `.` and `-`. The store gives every object but
/// the ones it swaps a name that no other content ever gets: objects are written once and then only read and deleted.
///
/// "Durable" means: it outlives a power cut (for a folder: file and names are synced; for an object store: the write
/// was acknowledged). Any call may fail with an error although its effect has come about: the caller looks again.
pub trait Backend: Send + Sync {
    /// The store's place in words, for messages.
    fn place(&self) -> String;

    /// Makes the place ready for objects of these folders, durably; called before a store's first object. Does no harm
    /// to a place that is ready. Kind `DirectoryNotEmpty`, with a name, when the place holds something else.
    fn prepare(&self, folders: &[&str]) -> BackendResult<()>;

    /// Makes whole objects durable, all of them when it returns without error, some or none of them otherwise. An object
    /// that exists already is replaced: it was written with the same bytes, but may have rotted since.
    fn write(&self, objects: &[(&str, &[u8])]) -> BackendResult<()>;

    /// Makes an object durable unless one exists under its key; says whether it was made. Of several at once one wins.
    fn create(&self, key: &str, bytes: &[u8]) -> BackendResult<bool>;

    /// Begins an object that is written in pieces and gets its key at the end.
    fn upload(&self) -> BackendResult<Box<dyn Upload>>;

    /// Opens an object for reading. Kind `NotFound` when there is none. What is open stays readable or fails: it never
    /// reads as something else.
    fn open(&self, key: &str) -> BackendResult<Arc<dyn Object>>;

    /// The bytes and the tag of an object that is swapped; `None` when there is none. Sees every swap that was
    /// acknowledged before.
    fn read_swapped(&self, key: &str) -> BackendResult<Option<(Vec<u8>, Tag)>>;

    /// Puts new bytes in the place of those that `expected` is the tag of (`None`: of no object), durably and in one
    /// step for all who read. `false`: something else is there, nothing was changed.
    fn swap(&self, key: &str, expected: Option<&Tag>, bytes: &[u8]) -> BackendResult<bool>;

    /// The objects of a folder, sorted by key. The list may be old: objects made or deleted lately may be missing or still
    /// in it.
    fn list(&self, folder: &str) -> BackendResult<Vec<Listed>>;

    /// Deletes objects. One that is not there counts as deleted. Not made durable: an object may come back.
    fn delete(&self, keys: &[&str]) -> BackendResult<()>;

    /// How many bytes there are of writes and uploads that are not finished, interrupted or still at work.
    fn unfinished(&self) -> BackendResult<u64>;

    /// Deletes what interrupted writes and uploads left; says how many bytes that freed. Called while no one else writes.
    fn sweep(&self) -> BackendResult<u64>;

    /// A lock of the whole store that ends with its holder, where there is such a thing: writers share it, a collector
    /// may hold it alone. [`Locked::Unknown`] where there is none.
    fn lock(&self, kind: LockKind, wait: bool) -> BackendResult<Locked>;
}

/// What came of [`Backend::lock`].
pub enum Locked {
    /// The lock is held until this is dropped.
    Held(Box<dyn Held>),
    /// Somebody else holds it, and the caller did not want to wait.
    Busy,
    /// This back end has no locks.
    Unknown,
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held(_) => "Held",
            Self::Busy => "Busy",
            Self::Unknown => "Unknown",
        })
    }
}

/// An object in the making. Dropped before it was sealed it leaves nothing that has a key.
pub trait Upload: Send {
    /// Adds bytes.
    fn append(&mut self, bytes: &[u8]) -> BackendResult<()>;

    /// Makes all that was appended durable; its key follows.
    fn flush(&mut self) -> BackendResult<()>;

    /// Makes the object durable under its key, in place of one that has it. Without a `flush` after the last `append`, it flushes
    /// itself.
    fn seal(self: Box<Self>, key: &str) -> BackendResult<()>;
}

/// An object that is open for reading.
pub trait Object: Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> BackendResult<u64>;

    /// Whether it has no bytes.
    fn is_empty(&self) -> BackendResult<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from byte `offset` on; an error of kind `UnexpectedEof` when the object ends before.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> BackendResult<()>;

    /// All of it.
    fn load(&self) -> BackendResult<Bytes>;
}
