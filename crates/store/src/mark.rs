//! Which blocks are needed.

use std::io;

use block::Digest;

use crate::Error;
use crate::codec::BLOCK_LEN;
use crate::format::{Entries, Folder, FormatError, Half, Record, Table, half};
use crate::put::Progress;
use crate::read::{Fetcher, Lost, PlaceError};
use crate::store::{State, Store};

/// One bit for each entry of a table.
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    pub(crate) fn get(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    pub(crate) fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }
}

/// Fewest ids that are looked up at once: 64 MiB of [`Half`]s, when there are so many.
const AT_ONCE: usize = 1 << 22;
/// Ids of which is found out at once whether they are needed.
pub(crate) const ASKED: usize = 1 << 19;

/// The entries of the index that snapshots need. Takes two bits for each entry.
///
/// Blocks are looked up many at once, in the order of the tables, which are read from one end to the other: so the work grows with
/// the number of blocks and of their uses, however many tables there are and whether memory holds them or not.
pub(crate) struct Marks<'a> {
    store: &'a Store,
    state: &'a State,
    pub(crate) tables: Vec<&'a Table>,
    needed: Vec<Bits>,
    /// Entries of blocks that were just read whole at another place.
    replaced: Vec<Bits>,
    fetcher: Fetcher,
    block: Vec<u8>,
}

impl<'a> Marks<'a> {
    /// Reads all tables and snapshots and marks the blocks. Everything that the root names must be readable and every block must
    /// have a place: who deletes on the word of these marks must know all that is needed.
    pub(crate) fn of(
        store: &'a Store,
        state: &'a State,
        records: &[Record],
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let mut tables = Vec::new();
        for layer in state.index() {
            let table = layer.table(&*store.backend)?;
            table.check(&layer.layer.name).map_err(|error| layer.failed(&*store.backend, error))?;
            tables.push(table);
        }
        let bits = || tables.iter().map(|table| Bits::new(table.len())).collect();
        let (needed, replaced) = (bits(), bits());
        let entries: usize = tables.iter().map(|table| table.len()).sum();
        let (fetcher, block) = (Fetcher::new()?, vec![0; BLOCK_LEN]);
        let mut marks = Self { store, state, tables, needed, replaced, fetcher, block };
        let mut wanted: Vec<Half> = Vec::new();
        // As many passes as a fixed number of them needs, or as four for each time that all blocks are used.
        let at_once = AT_ONCE.max(entries / 4);
        let mut missing = false;
        for record in records {
            let snapshot = store.snapshot(record)?;
            wanted.extend(snapshot.blocks.iter().map(|(_, id)| half(&id.0)));
            if wanted.len() >= at_once {
                wanted.sort_unstable();
                wanted.dedup();
                if wanted.len() > at_once / 2 {
                    missing |= !marks.mark(&wanted)?;
                    wanted.clear();
                }
            }
            progress.advance(1);
        }
        wanted.sort_unstable();
        wanted.dedup();
        missing |= !marks.mark(&wanted)?;
        if missing {
            return Err(marks.first_missing(records)?);
        }
        Ok(marks)
    }

    /// The error that names the first block that has no place.
    fn first_missing(&self, records: &[Record]) -> Result<Error, Error> {
        for record in records {
            let snapshot = self.store.snapshot(record)?;
            for (index, id) in &snapshot.blocks {
                if self.state.place(&*self.store.backend, id)?.is_none() {
                    return Ok(Lost::Missing.of(&snapshot, *index));
                }
            }
        }
        Ok(Error::Missing { place: self.store.place() })
    }

    /// Marks blocks where they will be read; whether all have a place.
    fn mark(&mut self, wanted: &[Half]) -> Result<bool, Error> {
        let (tables, state, store) = (self.tables.clone(), self.state, self.store);
        let mut all = true;
        walk(&tables, wanted, &|at, error| state.index()[at].failed(&*store.backend, error), |_, found| {
            all &= !found.is_empty();
            self.choose(found)
        })?;
        Ok(all)
    }

    /// Marks a block at its newest place, newest first in `found`. When there are several, the others may be deleted on the
    /// word of this mark: so it is the first at which the block can be read.
    fn choose(&mut self, found: &[Found]) -> Result<(), Error> {
        let alike = |id: Digest| found.iter().all(|other| other.id == id);
        match found {
            [] => return Ok(()),
            [only] => {
                self.needed[only.table].set(only.position);
                return Ok(());
            }
            // Ids that look alike so far.
            [one, ..] if !alike(one.id) => {
                found.iter().for_each(|found| self.needed[found.table].set(found.position));
                return Ok(());
            }
            // Chosen before.
            _ if found.iter().any(|found| self.needed[found.table].get(found.position)) => return Ok(()),
            _ => {}
        }
        let mut whole = None;
        for (nth, Found { table, position, id }) in found.iter().enumerate() {
            let place = self.tables[*table].place(*position);
            let place =
                place.map_err(|error| self.state.index()[*table].failed(&*self.store.backend, error))?;
            // Opened anew: a pack that somebody deleted can be read as long as it is open.
            let pack = self.store.backend.open(&place.pack.key(Folder::Packs)).map_err(PlaceError::Backend);
            match pack.and_then(|pack| self.fetcher.read(&*pack, id, &place, &mut self.block)) {
                Ok(()) => {
                    whole = Some(nth);
                    break;
                }
                // This may be the one that is whole: nothing is deleted before it can be read.
                Err(PlaceError::Backend(error)) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                Err(_) => {}
            }
        }
        for (nth, found) in found.iter().enumerate() {
            match whole {
                Some(whole) if nth != whole => self.replaced[found.table].set(found.position),
                // Where none is whole, none is known to be the right one to give up.
                _ => self.needed[found.table].set(found.position),
            }
        }
        Ok(())
    }

    /// Whether an entry is needed.
    pub(crate) fn is_needed(&self, at: usize, position: usize) -> bool {
        self.needed[at].get(position)
    }

    /// Whether the block of an entry was read whole at another place, which is marked.
    pub(crate) fn is_replaced(&self, at: usize, position: usize) -> bool {
        self.replaced[at].get(position)
    }

    /// Whether there is such an entry.
    pub(crate) fn has_replaced(&self) -> bool {
        self.replaced.iter().any(|bits| bits.0.iter().any(|word| *word != 0))
    }

    /// Shows every entry of the index that is needed, and the number of its table.
    pub(crate) fn each_needed(
        &self,
        mut see: impl FnMut(usize, &Entries<'_>) -> Result<(), FormatError>,
    ) -> Result<(), Error> {
        self.each(|at, entries| match self.is_needed(at, entries.position()) {
            true => see(at, entries),
            false => Ok(()),
        })
    }

    /// Shows every entry of the index, and the number of its table.
    pub(crate) fn each(
        &self,
        mut see: impl FnMut(usize, &Entries<'_>) -> Result<(), FormatError>,
    ) -> Result<(), Error> {
        for (at, table) in self.tables.iter().enumerate() {
            let mut all = || -> Result<(), FormatError> {
                let mut entries = table.entries()?;
                while entries.current().is_some() {
                    see(at, &entries)?;
                    entries.advance()?;
                }
                Ok(())
            };
            all().map_err(|error| self.state.index()[at].failed(&*self.store.backend, error))?;
        }
        Ok(())
    }

    /// Of each of many ids whether its block is needed, wherever it is. Zeros always are.
    pub(crate) fn needs(&self, ids: &[Digest]) -> Result<Vec<bool>, Error> {
        let failed = |at: usize, error| self.state.index()[at].failed(&*self.store.backend, error);
        let mut answers = Vec::with_capacity(ids.len());
        for ids in ids.chunks(ASKED) {
            let first = answers.len();
            answers.extend(ids.iter().map(|id| id.0 == [0; 32]));
            let mut order: Vec<(Half, u32)> = ids.iter().map(|id| half(&id.0)).zip(0..).collect();
            order.sort_unstable();
            let mut halves: Vec<Half> = order.iter().map(|(half, _)| *half).collect();
            halves.dedup();
            let mut order = order.into_iter().peekable();
            walk(&self.tables, &halves, &failed, |half, found| {
                let needed = found.iter().any(|found| self.is_needed(found.table, found.position));
                while let Some((_, at)) = order.next_if(|(next, _)| *next == half) {
                    answers[first + at as usize] |= needed;
                }
                Ok(())
            })?;
        }
        Ok(answers)
    }
}

/// An entry that [`walk`] came by.
pub(crate) struct Found {
    pub(crate) table: usize,
    pub(crate) position: usize,
    pub(crate) id: Digest,
}

/// Looks many blocks up, whose ids come by rising halves without repeats: shows each half, and the entries that have it, those of the
/// last table first.
pub(crate) fn walk(
    tables: &[&Table],
    halves: &[Half],
    failed: &dyn Fn(usize, FormatError) -> Error,
    mut see: impl FnMut(Half, &[Found]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut all = Vec::with_capacity(tables.len());
    for (at, table) in tables.iter().enumerate() {
        all.push(table.entries().map_err(|error| failed(at, error))?);
    }
    let mut found = Vec::new();
    for wanted in halves {
        found.clear();
        for (table, entries) in all.iter_mut().enumerate().rev() {
            let mut collect = || {
                entries.skip_to(*wanted)?;
                while let Some(id) = entries.id().filter(|id| half(&id.0) == *wanted) {
                    found.push(Found { table, position: entries.position(), id });
                    entries.advance()?;
                }
                Ok(())
            };
            collect().map_err(|error| failed(table, error))?;
        }
        see(*wanted, &found)?;
    }
    Ok(())
}
