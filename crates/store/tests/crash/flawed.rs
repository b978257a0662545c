//! A back end between a store and its machine that breaks the rules of a commit.

use std::sync::{Arc, Mutex, PoisonError};

use store::fs::LockKind;
use store::{Backend, BackendResult, Listed, Locked, Object, Tag, Upload};

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Objects of this folder are written after the root that names them.
    Late(&'static str),
    /// A frame is damaged on its way to the pack, as one is that nobody reads back.
    BadFrame,
    /// What is there already is left as it is: objects that are written, or uploads.
    Leaves { uploads: bool },
}

type Waiting = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

pub(crate) struct Flawed {
    pub(crate) inner: Arc<dyn Backend>,
    pub(crate) rule: Rule,
    waiting: Waiting,
}

impl Flawed {
    pub(crate) fn new(inner: Arc<dyn Backend>, rule: Rule) -> Self {
        Self { inner, rule, waiting: Arc::default() }
    }

    fn is_left(&self, key: &str) -> bool {
        self.rule == Rule::Leaves { uploads: false } && self.inner.open(key).is_ok()
    }

    fn is_late(&self, key: &str) -> bool {
        matches!(self.rule, Rule::Late(folder) if key.starts_with(&format!("{folder}/")))
    }
}

impl Backend for Flawed {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn prepare(&self, folders: &[&str]) -> BackendResult<()> {
        self.inner.prepare(folders)
    }

    fn write(&self, objects: &[(&str, &[u8])]) -> BackendResult<()> {
        let objects = objects.iter().copied().filter(|(key, _)| !self.is_left(key));
        let (late, now): (Vec<_>, Vec<_>) = objects.partition(|(key, _)| self.is_late(key));
        let late = late.into_iter().map(|(key, bytes)| (key.to_owned(), bytes.to_vec()));
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(late);
        self.inner.write(&now)
    }

    fn create(&self, key: &str, bytes: &[u8]) -> BackendResult<bool> {
        self.inner.create(key, bytes)
    }

    fn upload(&self) -> BackendResult<Box<dyn Upload>> {
        match self.rule {
            Rule::BadFrame => Ok(Box::new(BadFrame(self.inner.upload()?))),
            Rule::Leaves { uploads: true } => {
                Ok(Box::new(Leaves { store: self.inner.clone(), inner: self.inner.upload()? }))
            }
            Rule::Leaves { uploads: false } => self.inner.upload(),
            Rule::Late(folder) => {
                let waiting = self.waiting.clone();
                Ok(Box::new(Late { inner: self.inner.upload()?, bytes: Vec::new(), folder, waiting }))
            }
        }
    }

    fn open(&self, key: &str) -> BackendResult<Arc<dyn Object>> {
        self.inner.open(key)
    }

    fn read_swapped(&self, key: &str) -> BackendResult<Option<(Vec<u8>, Tag)>> {
        self.inner.read_swapped(key)
    }

    fn swap(&self, key: &str, expected: Option<&Tag>, bytes: &[u8]) -> BackendResult<bool> {
        let swapped = self.inner.swap(key, expected, bytes)?;
        let late = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let late: Vec<(&str, &[u8])> = late.iter().map(|(key, bytes)| (&**key, &**bytes)).collect();
        self.inner.write(&late)?;
        Ok(swapped)
    }

    fn list(&self, folder: &str) -> BackendResult<Vec<Listed>> {
        self.inner.list(folder)
    }

    fn delete(&self, keys: &[&str]) -> BackendResult<()> {
        self.inner.delete(keys)
    }

    fn unfinished(&self) -> BackendResult<u64> {
        self.inner.unfinished()
    }

    fn sweep(&self) -> BackendResult<u64> {
        self.inner.sweep()
    }

    fn lock(&self, kind: LockKind, wait: bool) -> BackendResult<Locked> {
        self.inner.lock(kind, wait)
    }
}

struct Late {
    inner: Box<dyn Upload>,
    bytes: Vec<u8>,
    folder: &'static str,
    waiting: Waiting,
}

impl Upload for Late {
    fn append(&mut self, bytes: &[u8]) -> BackendResult<()> {
        self.bytes.extend_from_slice(bytes);
        self.inner.append(bytes)
    }

    fn flush(&mut self) -> BackendResult<()> {
        self.inner.flush()
    }

    fn seal(self: Box<Self>, key: &str) -> BackendResult<()> {
        if !key.starts_with(&format!("{}/", self.folder)) {
            return self.inner.seal(key);
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((key.to_owned(), self.bytes));
        Ok(())
    }
}

struct BadFrame(Box<dyn Upload>);

impl Upload for BadFrame {
    fn append(&mut self, bytes: &[u8]) -> BackendResult<()> {
        let mut bytes = bytes.to_vec();
        // Longer than a header, not the end of a pack.
        if bytes.len() > 100 && !bytes.ends_with(b"\nPACKEND") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        self.0.append(&bytes)
    }

    fn flush(&mut self) -> BackendResult<()> {
        self.0.flush()
    }

    fn seal(self: Box<Self>, key: &str) -> BackendResult<()> {
        self.0.seal(key)
    }
}

struct Leaves {
    store: Arc<dyn Backend>,
    inner: Box<dyn Upload>,
}

impl Upload for Leaves {
    fn append(&mut self, bytes: &[u8]) -> BackendResult<()> {
        self.inner.append(bytes)
    }

    fn flush(&mut self) -> BackendResult<()> {
        self.inner.flush()
    }

    fn seal(self: Box<Self>, key: &str) -> BackendResult<()> {
        if self.store.open(key).is_ok() { Ok(()) } else { self.inner.seal(key) }
    }
}
