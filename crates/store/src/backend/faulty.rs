use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{Backend, BackendError, BackendResult, Listed, Locked, Object, Tag, Upload};
use crate::fs::{Bytes, LockKind};
use crate::store::guard;

/// What happens to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is done.
    None,
    /// It fails with nothing done.
    Before(io::ErrorKind),
    /// It is done, and its answer is lost: the caller sees an error.
    After(io::ErrorKind),
    /// A list is the one that was given when the folder was first listed; other operations are done.
    Stale,
}

/// Decides what happens to an operation: its number, from 0, and what it is, as in `seal packs/…`.
pub type Faults = dyn Fn(u64, &str) -> Fault + Send + Sync;

/// A back end between a store and another one that fails when it is told to: for tests of what the store does then.
pub struct FaultyBackend {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<dyn Backend>,
    faults: Box<Faults>,
    count: AtomicU64,
    /// The first list of each folder.
    lists: Mutex<HashMap<String, Vec<Listed>>>,
}

impl FaultyBackend {
    /// Passes operations on as `faults` allows.
    pub fn new(inner: Arc<dyn Backend>, faults: Box<Faults>) -> Self {
        Self {
            shared: Arc::new(Shared { inner, faults, count: AtomicU64::new(0), lists: Default::default() }),
        }
    }

    /// How many operations there were so far.
    pub fn operations(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn fault(&self, what: &str) -> Fault {
        (self.faults)(self.count.fetch_add(1, Ordering::Relaxed), what)
    }

    fn run<T>(&self, what: &str, work: impl FnOnce() -> BackendResult<T>) -> BackendResult<T> {
        let error = |kind: io::ErrorKind| BackendError {
            place: what.to_owned(),
            action: "an operation that was told to fail",
            source: kind.into(),
        };
        match self.fault(what) {
            Fault::None | Fault::Stale => work(),
            Fault::Before(kind) => Err(error(kind)),
            Fault::After(kind) => work().and(Err(error(kind))),
        }
    }
}

impl Backend for FaultyBackend {
    fn place(&self) -> String {
        self.shared.inner.place()
    }

    fn prepare(&self, folders: &[&str]) -> BackendResult<()> {
        self.shared.run("prepare", || self.shared.inner.prepare(folders))
    }

    /// One operation for each object: some may be there when it fails.
    fn write(&self, objects: &[(&str, &[u8])]) -> BackendResult<()> {
        objects.iter().try_for_each(|object| {
            self.shared.run(&format!("write {}", object.0), || self.shared.inner.write(&[*object]))
        })
    }

    fn create(&self, key: &str, bytes: &[u8]) -> BackendResult<bool> {
        self.shared.run(&format!("create {key}"), || self.shared.inner.create(key, bytes))
    }

    fn upload(&self) -> BackendResult<Box<dyn Upload>> {
        let inner = self.shared.run("upload", || self.shared.inner.upload())?;
        Ok(Box::new(FaultyUpload { shared: self.shared.clone(), inner }))
    }

    fn open(&self, key: &str) -> BackendResult<Arc<dyn Object>> {
        let inner = self.shared.run(&format!("open {key}"), || self.shared.inner.open(key))?;
        Ok(Arc::new(FaultyObject { shared: self.shared.clone(), key: key.to_owned(), inner }))
    }

    fn read_swapped(&self, key: &str) -> BackendResult<Option<(Vec<u8>, Tag)>> {
        self.shared.run(&format!("read {key}"), || self.shared.inner.read_swapped(key))
    }

    fn swap(&self, key: &str, expected: Option<&Tag>, bytes: &[u8]) -> BackendResult<bool> {
        self.shared.run(&format!("swap {key}"), || self.shared.inner.swap(key, expected, bytes))
    }

    fn list(&self, folder: &str) -> BackendResult<Vec<Listed>> {
        let what = format!("list {folder}");
        let stale = (self.shared.faults)(self.operations(), &what) == Fault::Stale;
        let fresh = self.shared.run(&what, || self.shared.inner.list(folder))?;
        let mut lists = guard(&self.shared.lists);
        let first = lists.entry(folder.to_owned()).or_insert_with(|| fresh.clone());
        Ok(if stale { first.clone() } else { fresh })
    }

    /// One operation for each object.
    fn delete(&self, keys: &[&str]) -> BackendResult<()> {
        keys.iter().try_for_each(|key| {
            self.shared.run(&format!("delete {key}"), || self.shared.inner.delete(&[key]))
        })
    }

    fn unfinished(&self) -> BackendResult<u64> {
        self.shared.run("unfinished", || self.shared.inner.unfinished())
    }

    fn sweep(&self) -> BackendResult<u64> {
        self.shared.run("sweep", || self.shared.inner.sweep())
    }

    fn lock(&self, kind: LockKind, wait: bool) -> BackendResult<Locked> {
        self.shared.run("lock", || self.shared.inner.lock(kind, wait))
    }
}

struct FaultyUpload {
    shared: Arc<Shared>,
    inner: Box<dyn Upload>,
}

impl Upload for FaultyUpload {
    fn append(&mut self, bytes: &[u8]) -> BackendResult<()> {
        self.shared.run("append", || self.inner.append(bytes))
    }

    fn flush(&mut self) -> BackendResult<()> {
        self.shared.run("flush", || self.inner.flush())
    }

    fn seal(self: Box<Self>, key: &str) -> BackendResult<()> {
        let Self { shared, inner } = *self;
        shared.run(&format!("seal {key}"), || inner.seal(key))
    }
}

struct FaultyObject {
    shared: Arc<Shared>,
    key: String,
    inner: Arc<dyn Object>,
}

impl Object for FaultyObject {
    fn len(&self) -> BackendResult<u64> {
        self.shared.run(&format!("len {}", self.key), || self.inner.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> BackendResult<()> {
        self.shared.run(&format!("read {}", self.key), || self.inner.read_at(offset, buf))
    }

    fn load(&self) -> BackendResult<Bytes> {
        self.shared.run(&format!("load {}", self.key), || self.inner.load())
    }
}
