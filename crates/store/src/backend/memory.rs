use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use block::Digest;

use super::{Backend, BackendError, BackendResult, Listed, Locked, Object, Tag, Upload};
use crate::fs::{Bytes, LockKind};

/// A store in memory, shared by all clones: for tests, and for looking at images without a folder. It has no locks, as an object
/// store has none.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    objects: Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>,
}

impl MemoryBackend {
    /// An empty place.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every object with its bytes, by key.
    pub fn objects(&self) -> Vec<(String, Vec<u8>)> {
        self.guard().iter().map(|(key, bytes)| (key.clone(), bytes.to_vec())).collect()
    }

    /// Puts an object there as it is, whatever was there before: how a test damages a store.
    pub fn overwrite(&self, key: &str, bytes: Vec<u8>) {
        self.guard().insert(key.to_owned(), bytes.into());
    }

    fn guard(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Vec<u8>>>> {
        self.objects.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn tag(bytes: &[u8]) -> Tag {
    Tag(Digest::of(bytes).to_hex())
}

impl Backend for MemoryBackend {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn prepare(&self, _: &[&str]) -> BackendResult<()> {
        Ok(())
    }

    fn write(&self, objects: &[(&str, &[u8])]) -> BackendResult<()> {
        let mut guard = self.guard();
        for (key, bytes) in objects {
            guard.insert((*key).to_owned(), bytes.to_vec().into());
        }
        Ok(())
    }

    fn create(&self, key: &str, bytes: &[u8]) -> BackendResult<bool> {
        self.swap(key, None, bytes)
    }

    fn upload(&self) -> BackendResult<Box<dyn Upload>> {
        Ok(Box::new(MemoryUpload { store: self.clone(), bytes: Vec::new() }))
    }

    fn open(&self, key: &str) -> BackendResult<Arc<dyn Object>> {
        let bytes = self.guard().get(key).cloned().ok_or_else(|| BackendError {
            place: key.to_owned(),
            action: "opening the object",
            source: io::ErrorKind::NotFound.into(),
        })?;
        Ok(Arc::new(MemoryObject { key: key.to_owned(), bytes }))
    }

    fn read_swapped(&self, key: &str) -> BackendResult<Option<(Vec<u8>, Tag)>> {
        Ok(self.guard().get(key).map(|bytes| (bytes.to_vec(), tag(bytes))))
    }

    fn swap(&self, key: &str, expected: Option<&Tag>, bytes: &[u8]) -> BackendResult<bool> {
        let mut guard = self.guard();
        if guard.get(key).map(|bytes| tag(bytes)).as_ref() != expected {
            return Ok(false);
        }
        guard.insert(key.to_owned(), bytes.to_vec().into());
        Ok(true)
    }

    fn list(&self, folder: &str) -> BackendResult<Vec<Listed>> {
        let prefix = format!("{folder}/");
        let guard = self.guard();
        let inside = guard.iter().filter(|(key, _)| key.starts_with(&prefix));
        Ok(inside.map(|(key, bytes)| Listed { key: key.clone(), len: bytes.len() as u64 }).collect())
    }

    fn delete(&self, keys: &[&str]) -> BackendResult<()> {
        let mut guard = self.guard();
        for key in keys {
            guard.remove(*key);
        }
        Ok(())
    }

    fn unfinished(&self) -> BackendResult<u64> {
        Ok(0)
    }

    fn sweep(&self) -> BackendResult<u64> {
        Ok(0)
    }

    fn lock(&self, _: LockKind, _: bool) -> BackendResult<Locked> {
        Ok(Locked::Unknown)
    }
}

struct MemoryUpload {
    store: MemoryBackend,
    bytes: Vec<u8>,
}

impl Upload for MemoryUpload {
    fn append(&mut self, bytes: &[u8]) -> BackendResult<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> BackendResult<()> {
        Ok(())
    }

    fn seal(mut self: Box<Self>, key: &str) -> BackendResult<()> {
        let bytes = std::mem::take(&mut self.bytes);
        self.store.guard().insert(key.to_owned(), bytes.into());
        Ok(())
    }
}

struct MemoryObject {
    key: String,
    bytes: Arc<Vec<u8>>,
}

impl Object for MemoryObject {
    fn len(&self) -> BackendResult<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> BackendResult<()> {
        let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(buf.len())?));
        let from = range.and_then(|range| self.bytes.get(range)).ok_or_else(|| BackendError {
            place: self.key.clone(),
            action: "reading the object",
            source: io::ErrorKind::UnexpectedEof.into(),
        })?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn load(&self) -> BackendResult<Bytes> {
        Ok(self.bytes.clone().into())
    }
}
