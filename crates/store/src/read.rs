use std::io;
use std::sync::{Arc, Mutex};

use block::{BLOCK_SIZE, BlockSource, Digest, block_id, block_ids_of};

use crate::Error;
use crate::backend::{BackendError, Object};
use crate::codec::{BLOCK_LEN, Decoder};
use crate::format::{BlockPlace, Record, Snapshot};
use crate::store::{State, Store, guard};

/// Blocks that a [`SnapshotDisk`] keeps for reads of parts of them: 8 MiB.
const KEPT: usize = 16;

/// Why a block cannot be had.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The index has no place of it.
    Missing,
    /// None of its places gives it; what the last one gave.
    Damaged(String),
    /// The store itself could not be read.
    Failed(Error),
}

impl Lost {
    /// The error of a reader of a snapshot.
    pub(crate) fn of(self, snapshot: &Snapshot, index: u64) -> Error {
        let state = match self {
            Self::Missing => "missing".to_owned(),
            Self::Damaged(how) => format!("damaged ({how})"),
            Self::Failed(error) => return error,
        };
        let from = index * BLOCK_SIZE;
        let to = (from + BLOCK_SIZE).min(snapshot.size);
        Error::Block { snapshot: snapshot.id, index, from, to, state }
    }
}

/// Reads blocks and checks every one. One for each thread.
pub(crate) struct Fetcher {
    decoder: Decoder,
    frame: Vec<u8>,
    /// Bytes of frames read.
    pub(crate) bytes_read: u64,
}

impl Fetcher {
    pub(crate) fn new() -> Result<Self, Error> {
        let decoder = Decoder::new().map_err(|source| {
            Error::Backend(BackendError { place: "zstd".to_owned(), action: "making a decompressor", source })
        })?;
        Ok(Self { decoder, frame: Vec::new(), bytes_read: 0 })
    }

    /// Fills `block` from one place; says what is wrong there.
    pub(crate) fn fetch_from(
        &mut self,
        store: &Store,
        state: &State,
        id: &Digest,
        place: &BlockPlace,
        block: &mut [u8],
    ) -> Result<(), PlaceError> {
        let pack = state.pack(&*store.backend, place.pack).map_err(PlaceError::Backend)?;
        self.read(&*pack, id, place, block)
    }

    /// [`Fetcher::fetch_from`] an open pack.
    pub(crate) fn read(
        &mut self,
        pack: &dyn Object,
        id: &Digest,
        place: &BlockPlace,
        block: &mut [u8],
    ) -> Result<(), PlaceError> {
        self.decode(pack, place, block)?;
        if block_id(block) == Some(*id) {
            return Ok(());
        }
        Err(PlaceError::Damage(place.pack.to_string(), "its bytes are not those of its id"))
    }

    /// Fills `block` from the frame at a place, whatever block that is.
    fn decode(&mut self, pack: &dyn Object, place: &BlockPlace, block: &mut [u8]) -> Result<(), PlaceError> {
        self.frame.resize(place.len as usize, 0);
        match pack.read_at(place.offset.into(), &mut self.frame) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(PlaceError::Damage(place.pack.to_string(), "its pack is cut short"));
            }
            done => done.map_err(PlaceError::Backend)?,
        }
        self.bytes_read += u64::from(place.len);
        let damage = |why| PlaceError::Damage(place.pack.to_string(), why);
        self.decoder.decode(place.codec, &self.frame, block).map_err(damage)
    }

    /// [`Fetcher::fetch`] of several blocks, checked side by side; which one could not be had, and why.
    pub(crate) fn fetch_all(
        &mut self,
        store: &Store,
        ids: &[Digest],
        blocks: &mut [&mut [u8]],
    ) -> Result<(), (usize, Lost)> {
        let state = store.state();
        for (id, block) in ids.iter().zip(&mut *blocks) {
            // Whatever goes wrong here is looked into below.
            let place = state.place(&*store.backend, id).ok().flatten();
            if let Some((place, pack)) =
                place.and_then(|place| Some((place, state.pack(&*store.backend, place.pack).ok()?)))
            {
                let _ = self.decode(&*pack, &place, block);
            }
        }
        let read: Vec<&[u8]> = blocks.iter().map(|block| &**block).collect();
        let found = block_ids_of(&read);
        for (at, (id, block)) in ids.iter().zip(blocks).enumerate() {
            if found[at] != Some(*id) {
                self.fetch(store, id, block).map_err(|lost| (at, lost))?;
            }
        }
        Ok(())
    }

    /// The frame that was read last.
    pub(crate) fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Fills `block` with the block of an id, from whichever place has it whole.
    pub(crate) fn fetch(&mut self, store: &Store, id: &Digest, block: &mut [u8]) -> Result<(), Lost> {
        let mut state = store.state();
        let mut again = true;
        loop {
            let mut lost = Lost::Missing;
            let mut places = match state.places(&*store.backend, id) {
                Err(error @ Error::Missing { .. }) => {
                    lost = Lost::Failed(error);
                    Vec::new()
                }
                places => places.map_err(Lost::Failed)?,
            };
            places.sort_by_key(|place| !state.counts(id, place));
            for place in &places {
                match self.fetch_from(store, &state, id, place, block) {
                    Ok(()) => return Ok(()),
                    Err(error) => lost = Lost::Damaged(error.to_string()),
                }
            }
            // A collection may have moved the block since the root was read.
            let fresh = if again { store.refresh().map_err(Lost::Failed)? } else { return Err(lost) };
            if fresh.tag == state.tag {
                return Err(lost);
            }
            (state, again) = (fresh, false);
        }
    }
}

/// What was wrong with one place of a block.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error(transparent)]
    Backend(BackendError),
    #[error("pack {0}: {1}")]
    Damage(String, &'static str),
}

/// A snapshot as a disk: read where it is asked for, every block checked.
pub struct SnapshotDisk {
    store: Arc<Store>,
    snapshot: Snapshot,
    fetchers: Mutex<Vec<Fetcher>>,
    /// The blocks that were last read in part, latest last.
    kept: Mutex<Vec<(u64, Arc<Vec<u8>>)>>,
}

impl Store {
    /// A snapshot as a disk. It can be read as long as the snapshot is not forgotten and collected.
    pub fn disk(self: &Arc<Self>, record: &Record) -> Result<SnapshotDisk, Error> {
        let snapshot = self.snapshot(record)?;
        let (fetchers, kept) = Default::default();
        Ok(SnapshotDisk { store: self.clone(), snapshot, fetchers, kept })
    }
}

impl SnapshotDisk {
    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The id of a block, none when it is all zero.
    fn id(&self, index: u64) -> Option<Digest> {
        let blocks = &self.snapshot.blocks;
        blocks.binary_search_by_key(&index, |(index, _)| *index).ok().map(|at| blocks[at].1)
    }

    fn fetch(&self, index: u64, id: &Digest, block: &mut [u8]) -> Result<(), Error> {
        let fetcher = guard(&self.fetchers).pop();
        let mut fetcher = fetcher.map_or_else(Fetcher::new, Ok)?;
        let fetched = fetcher.fetch(&self.store, id, block).map_err(|lost| lost.of(&self.snapshot, index));
        guard(&self.fetchers).push(fetcher);
        fetched
    }

    /// A block of which a part is wanted.
    fn keep(&self, index: u64, id: &Digest) -> Result<Arc<Vec<u8>>, Error> {
        {
            let mut kept = guard(&self.kept);
            if let Some(at) = kept.iter().position(|(kept, _)| *kept == index) {
                let found = kept.remove(at);
                kept.push(found.clone());
                return Ok(found.1);
            }
        }
        let mut block = vec![0; BLOCK_LEN];
        self.fetch(index, id, &mut block)?;
        let block = Arc::new(block);
        let mut kept = guard(&self.kept);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((index, block.clone()));
        Ok(block)
    }
}

impl BlockSource for SnapshotDisk {
    fn len(&self) -> u64 {
        self.snapshot.size
    }

    fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
        let runs = self.snapshot.blocks.chunk_by(|a, b| a.0 + 1 == b.0);
        Box::new(runs.map(|run| {
            let start = run[0].0 * BLOCK_SIZE;
            (start, (run.len() as u64 * BLOCK_SIZE).min(self.snapshot.size - start))
        }))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.snapshot.size);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (index, inside) = (at / BLOCK_SIZE, (at % BLOCK_SIZE) as usize);
            let (piece, others) = rest.split_at_mut(rest.len().min(BLOCK_LEN - inside));
            match self.id(index) {
                None => piece.fill(0),
                Some(id) if piece.len() == BLOCK_LEN => {
                    self.fetch(index, &id, piece).map_err(io::Error::other)?
                }
                Some(id) => {
                    let block = self.keep(index, &id).map_err(io::Error::other)?;
                    piece.copy_from_slice(&block[inside..inside + piece.len()]);
                }
            }
            at += piece.len() as u64;
            rest = others;
        }
        Ok(())
    }
}
