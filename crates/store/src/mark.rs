//! Which blocks are needed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use block::Digest;

use crate::Error;
use crate::codec::BLOCK_LEN;
use crate::format::{BlockPlace, Folder, Record, Table};
use crate::put::Progress;
use crate::read::{Fetcher, PlaceError};
use crate::store::{Layer, State, Store};

/// One bit for each entry of a table.
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn get(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }
}

/// The entries of the index that snapshots need. Takes a bit for each entry.
pub(crate) struct Marks<'a> {
    store: &'a Store,
    state: &'a State,
    pub(crate) tables: Vec<&'a Table>,
    needed: Vec<Bits>,
    /// Where blocks are read that are at several places.
    copied: HashMap<Digest, (usize, usize)>,
    fetcher: Fetcher,
    block: Vec<u8>,
}

impl<'a> Marks<'a> {
    /// Reads all snapshots and marks their blocks. Everything that the root names must be readable and every block must have
    /// a place: who deletes on the word of these marks must know all that is needed.
    pub(crate) fn of(
        store: &'a Store,
        state: &'a State,
        records: &[Record],
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let tables = state.index().iter().map(|layer: &Arc<Layer>| layer.table(&*store.backend));
        let tables = tables.collect::<Result<Vec<&Table>, Error>>()?;
        let needed = tables.iter().map(|table| Bits::new(table.len())).collect();
        let (fetcher, block) = (Fetcher::new()?, vec![0; BLOCK_LEN]);
        let mut marks = Self { store, state, tables, needed, copied: HashMap::new(), fetcher, block };
        for record in records {
            let snapshot = store.snapshot(record)?;
            for (index, id) in &snapshot.blocks {
                if !marks.mark(id)? {
                    return Err(crate::read::Lost::Missing.of(&snapshot, *index));
                }
            }
            progress.advance(1);
        }
        Ok(marks)
    }

    /// Marks a block where it will be read: its newest place that is not known to be damaged. When there are several, the
    /// others may be deleted on the word of this mark: so the block is read there first.
    fn mark(&mut self, id: &Digest) -> Result<bool, Error> {
        if let Some((at, position)) = self.copied.get(id) {
            self.needed[*at].set(*position);
            return Ok(true);
        }
        let mut found = Vec::new();
        for at in (0..self.tables.len()).rev() {
            if let Some(position) = self.position(at, id)? {
                if found.is_empty() && self.needed[at].get(position) {
                    return Ok(true);
                }
                found.push((at, position));
            }
        }
        let Some(newest) = found.first().copied() else { return Ok(false) };
        let mut chosen = newest;
        if found.len() > 1 {
            let mut whole = None;
            for (at, position) in found.iter().copied() {
                let place = self.place(at, position)?;
                // Opened anew: a pack that somebody deleted can be read as long as it is open.
                let pack =
                    self.store.backend.open(&place.pack.key(Folder::Packs)).map_err(PlaceError::Backend);
                match pack.and_then(|pack| self.fetcher.read(&*pack, id, &place, &mut self.block)) {
                    Ok(()) => {
                        whole = Some((at, position));
                        break;
                    }
                    // This may be the one that is whole: nothing is deleted before it can be read.
                    Err(PlaceError::Backend(error)) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error.into());
                    }
                    Err(_) => {}
                }
            }
            if whole.is_none() {
                // None is known to be the right one to give up.
                found.iter().for_each(|(at, position)| self.needed[*at].set(*position));
            }
            chosen = whole.unwrap_or(newest);
            self.copied.insert(*id, chosen);
        }
        self.needed[chosen.0].set(chosen.1);
        Ok(true)
    }

    fn position(&self, at: usize, id: &Digest) -> Result<Option<usize>, Error> {
        let failed = |error| self.state.index()[at].failed(&*self.store.backend, error);
        self.tables[at].position(id).map_err(failed)
    }

    /// Where the block of an entry is.
    pub(crate) fn place(&self, at: usize, position: usize) -> Result<BlockPlace, Error> {
        let failed = |error| self.state.index()[at].failed(&*self.store.backend, error);
        self.tables[at].place(position).map_err(failed)
    }

    /// Whether an entry is needed.
    pub(crate) fn is_needed(&self, at: usize, position: usize) -> bool {
        self.needed[at].get(position)
    }

    /// Whether a block is needed, wherever it is.
    pub(crate) fn needs(&self, id: &Digest) -> Result<bool, Error> {
        for at in 0..self.tables.len() {
            if self.position(at, id)?.is_some_and(|position| self.needed[at].get(position)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
