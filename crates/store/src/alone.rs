//! The store for one caller alone: snapshots with the content of others, and the small document that stands beside all of them.

use crate::Error;
use crate::backend::{Locked, Tag};
use crate::commit::Change;
use crate::format::{Claims, Record, Snapshot, SnapshotId};
use crate::fs::LockKind;
use crate::put::{ATTEMPTS, check_name};
use crate::store::Store;

/// The key of the document.
pub(crate) const DOCUMENT: &str = "account";

/// A store that nobody else writes to, where its back end has locks.
pub struct Alone<'s> {
    store: &'s Store,
    _held: Locked,
}

impl Store {
    /// Waits until nobody else writes to the store, and keeps others waiting until the answer is dropped. Where a back end has no
    /// locks nobody is waited for: documents are swapped, not written, because of that.
    pub fn alone(&self) -> Result<Alone<'_>, Error> {
        let held = self.backend.lock(LockKind::Exclusive, true)?;
        Ok(Alone { store: self, _held: held })
    }

    /// The document that whoever uses the store keeps beside the snapshots, and what it is to be compared by when it is swapped;
    /// `None` before the first.
    pub fn document(&self) -> Result<Option<(Vec<u8>, Tag)>, Error> {
        Ok(self.backend.read_swapped(DOCUMENT)?)
    }
}

impl Alone<'_> {
    /// Makes a snapshot with the content of another, under a new id and a name of its own: durable when this returns. No block is
    /// read or written.
    pub fn copy_snapshot(&self, of: SnapshotId, id: SnapshotId, name: &str, time: i64) -> Result<(), Error> {
        check_name(name)?;
        let store = self.store;
        let mut attempt = 1;
        loop {
            let change = store.on_fresh_state(|state| {
                let records = store.records(state)?;
                if let Some(there) = records.iter().find(|record| record.id == id) {
                    return Err(Error::IdTaken { id, name: there.name.clone() });
                }
                let record = records.iter().find(|record| record.id == of).ok_or_else(|| {
                    Error::NoSnapshot { wanted: of.to_string(), place: store.place(), nearest: None }
                })?;
                let Snapshot { size, digest, blocks, .. } = store.snapshot(record)?;
                let name = name.to_owned();
                Ok(Change {
                    generation: state.root.generation,
                    entries: Vec::new(),
                    pack: None,
                    origins: Vec::new(),
                    claims: Claims::default(),
                    snapshot: Snapshot { id, name, size, parent: None, time, digest, blocks },
                })
            })?;
            match store.commit(change) {
                Err(Error::Overtaken) if attempt < ATTEMPTS => attempt += 1,
                done => return done.map(drop),
            }
        }
    }

    /// [`Store::forget`].
    pub fn forget(&self, ids: &[SnapshotId]) -> Result<Vec<Record>, Error> {
        self.store.forget_held(ids)
    }

    /// Puts another document in the place of the one that was read: durable when this returns `true`. `false`: somebody else was
    /// faster, and nothing was changed.
    pub fn swap_document(&self, expected: Option<&Tag>, bytes: &[u8]) -> Result<bool, Error> {
        let backend = &self.store.backend;
        match backend.swap(DOCUMENT, expected, bytes) {
            Ok(swapped) => Ok(swapped),
            // It may have come about.
            Err(error) => match backend.read_swapped(DOCUMENT)? {
                Some((there, tag)) if there == bytes && expected != Some(&tag) => {
                    Ok(backend.swap(DOCUMENT, Some(&tag), bytes)?)
                }
                _ => Err(error.into()),
            },
        }
    }
}
