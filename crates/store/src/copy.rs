//! Snapshots with the content of others, and the small document that stands beside all of them.

use crate::Error;
use crate::backend::Tag;
use crate::commit::Change;
use crate::format::{Claims, Snapshot, SnapshotId};
use crate::put::{ATTEMPTS, check_name};
use crate::store::Store;

/// The key of the document.
const DOCUMENT: &str = "account";

impl Store {
    /// Makes a snapshot with the content of another, under an id and a name of its own: durable when this returns. No block is
    /// read or written.
    pub fn copy_snapshot(&self, of: SnapshotId, id: SnapshotId, name: &str, time: i64) -> Result<(), Error> {
        check_name(name)?;
        let _held = self.lock_shared()?;
        let mut attempt = 1;
        loop {
            let change = self.on_fresh_state(|state| {
                let records = self.records(state)?;
                let record = records.iter().find(|record| record.id == of).ok_or_else(|| {
                    Error::NoSnapshot { wanted: of.to_string(), place: self.place(), nearest: None }
                })?;
                let Snapshot { size, digest, blocks, .. } = self.snapshot(record)?;
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
            match self.commit(change) {
                Err(Error::Overtaken) if attempt < ATTEMPTS => attempt += 1,
                done => return done.map(drop),
            }
        }
    }

    /// The document that whoever uses the store keeps beside the snapshots, and what it is to be compared by when it is swapped;
    /// `None` before the first.
    pub fn document(&self) -> Result<Option<(Vec<u8>, Tag)>, Error> {
        Ok(self.backend.read_swapped(DOCUMENT)?)
    }

    /// Puts another document in the place of the one that was read: durable when this returns `true`. `false`: somebody else was
    /// faster, and nothing was changed.
    pub fn swap_document(&self, expected: Option<&Tag>, bytes: &[u8]) -> Result<bool, Error> {
        let _held = self.lock_shared()?;
        match self.backend.swap(DOCUMENT, expected, bytes) {
            Ok(swapped) => Ok(swapped),
            // It may have come about.
            Err(error) => match self.backend.read_swapped(DOCUMENT)? {
                Some((there, tag)) if there == bytes && expected != Some(&tag) => {
                    Ok(self.backend.swap(DOCUMENT, Some(&tag), bytes)?)
                }
                _ => Err(error.into()),
            },
        }
    }
}
