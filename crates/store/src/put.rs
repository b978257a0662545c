use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::{Scope, ScopedJoinHandle};

use block::{BLOCK_SIZE, BlockMap, BlockSource, Digest, block_ids_of, snapshot_digest};
use formats::RawFile;

use crate::Error;
use crate::backend::Upload;
use crate::codec::{BLOCK_LEN, Encoder, is_zero};
use crate::commit::Change;
use crate::format::{
    BlockPlace, Codec, MAX_SIZE, PackIndexBuilder, Snapshot, SnapshotId, derived_id, pack_header,
};
use crate::origin;
use crate::store::{State, Store, guard};

/// Longest name of a snapshot, in bytes.
const MAX_NAME: usize = 255;
/// How many blocks one thread may be ahead of the slowest.
const AHEAD: usize = 16;
/// Blocks that one thread reads and hashes side by side.
const LANES: usize = 4;
/// How often a put begins again when collections overtake it.
pub(crate) const ATTEMPTS: usize = 5;

/// What can be put.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A raw image: a file or a block device.
    File(&'a Path),
    /// Any disk. Every block that has data is read and hashed.
    Disk(&'a dyn BlockSource),
    /// A disk whose extents name their contents: blocks whose contents were seen at the same places before are
    /// neither read nor hashed.
    Map(&'a BlockMap),
}

/// Is told how far a piece of work is, from any thread.
pub trait Progress: Sync {
    /// The work is `bytes` long.
    fn begin(&self, bytes: u64);
    /// `bytes` more are done.
    fn advance(&self, bytes: u64);
}

/// Tells nobody.
impl Progress for () {
    fn begin(&self, _: u64) {}
    fn advance(&self, _: u64) {}
}

/// Which id a new snapshot gets.
#[derive(Clone, Copy, Default)]
pub enum ChosenId<'a> {
    /// [`derived_id`](crate::derived_id).
    #[default]
    Derived,
    /// This one.
    Given(SnapshotId),
    /// One that follows from [`block::snapshot_digest`] of the volume.
    OfDigest(&'a dyn Fn(Digest) -> SnapshotId),
}

/// How something is put.
#[derive(Clone, Copy)]
pub struct PutOptions<'a> {
    /// The snapshot's name: 1 to 255 bytes without control characters, no text that reads as an id.
    pub name: &'a str,
    /// Which id the snapshot gets.
    pub id: ChosenId<'a>,
    /// The snapshot that this one follows: noted, nothing more.
    pub parent: Option<SnapshotId>,
    /// Seconds since 1970: noted, nothing more.
    pub time: i64,
    /// Is told how many bytes of data there are and how many are done.
    pub progress: &'a dyn Progress,
}

/// What a put did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutReport {
    /// The snapshot's id.
    pub snapshot_id: SnapshotId,
    /// Its name.
    pub name: String,
    /// [`block::snapshot_digest`] of the volume.
    pub digest: Digest,
    /// The volume's size in bytes.
    pub size: u64,
    /// Bytes that the source says are not in holes.
    pub data_bytes: u64,
    /// Blocks that are not all zero.
    pub blocks: u64,
    /// Blocks that the store did not have.
    pub new_blocks: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// What they take in the store.
    pub stored_bytes: u64,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes hashed: whole blocks.
    pub hashed_bytes: u64,
    /// Whether the very snapshot was there already.
    pub existed: bool,
}

impl Store {
    /// Makes a snapshot of a source. When it returns without error the snapshot is durable, on a disk as well as on an
    /// object store; otherwise nothing but a collection's work is left. The same bytes under the same name are the same
    /// snapshot, however often they are put; other bytes under a name are a new snapshot beside the old.
    ///
    /// Blocks that the store has are not compressed; of those it has damaged (see [`Store::verify`]) it takes the new bytes.
    pub fn put(&self, source: Source<'_>, options: &PutOptions<'_>) -> Result<PutReport, Error> {
        check_name(options.name)?;
        let _held = self.lock_shared()?;
        let mut attempt = 1;
        loop {
            let result = match source {
                Source::Disk(disk) => self.put_once(disk, None, options),
                Source::Map(map) => self.put_once(map, Some(map), options),
                Source::File(path) => self.put_file(path, options),
            };
            match result {
                // An object that is missing may have been replaced since the root was read.
                Err(Error::Overtaken | Error::Missing { .. }) if attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn put_file(&self, path: &Path, options: &PutOptions<'_>) -> Result<PutReport, Error> {
        let look = || {
            let looked = std::fs::metadata(path).map(|it| (it.len(), it.mtime(), it.mtime_nsec(), it.ino()));
            looked.map_err(|source| formats::Error::Io {
                path: path.to_owned(),
                action: "looking at the image",
                source,
            })
        };
        let found = path.canonicalize();
        if crate::get::is_mark(&crate::get::marker(found.as_deref().unwrap_or(path))) {
            return Err(Error::Incomplete { path: path.to_owned() });
        }
        let before = look()?;
        let file = RawFile::open(path)?;
        let changed = || Error::Changed { path: path.to_owned() };
        self.prepare(&file, None, options)
            .and_then(|prepared| {
                // The last moment before the snapshot appears.
                if look()? != before { Err(changed()) } else { prepared.commit(self, options) }
            })
            .map_err(|error| match error {
                Error::Source { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof => changed(),
                error => error,
            })
    }

    fn put_once(
        &self,
        disk: &dyn BlockSource,
        map: Option<&BlockMap>,
        options: &PutOptions<'_>,
    ) -> Result<PutReport, Error> {
        self.prepare(disk, map, options)?.commit(self, options)
    }

    /// Brings all new blocks into packs.
    fn prepare(
        &self,
        disk: &dyn BlockSource,
        map: Option<&BlockMap>,
        options: &PutOptions<'_>,
    ) -> Result<Prepared, Error> {
        if disk.len() > MAX_SIZE {
            return Err(Error::TooLarge { size: disk.len(), most: MAX_SIZE });
        }
        let state = self.refresh()?;
        let data_bytes = disk.data().map(|(_, len)| len).sum();
        options.progress.begin(data_bytes);
        let few = Pieces::new(disk).take(self.options.threads()).count();
        let threads = self.options.threads().min(few).max(1);
        let work = Work {
            store: self,
            state: &state,
            disk,
            map,
            pieces: Mutex::new((0, Pieces::new(disk))),
            order: Mutex::new(Order::new(self, state.root.generation)),
            moved: Condvar::new(),
            stopped: AtomicBool::new(false),
            progress: options.progress,
            window: threads * AHEAD,
        };
        if self.options.threads() == 1 {
            work.run(None);
        } else {
            std::thread::scope(|scope| {
                for _ in 1..threads {
                    scope.spawn(|| work.run(Some(scope)));
                }
                work.run(Some(scope));
            });
        }
        let order = work.order.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(error) = order.error {
            return Err(error);
        }
        let mut prepared = Prepared {
            generation: state.root.generation,
            size: disk.len(),
            data_bytes,
            blocks: order.blocks,
            entries: order.entries,
            last: None,
            origins: order.origins,
            claims: Default::default(),
            stored_bytes: order.stored_bytes,
            read_bytes: order.read_bytes,
            hashed_bytes: order.hashed_bytes,
        };
        if let Some(pack) = order.pack {
            let (upload, key, entries) = pack.finish()?;
            prepared.entries.extend(entries);
            prepared.last = Some((upload, key));
        }
        if let Some(map) = map {
            (prepared.origins, prepared.claims) = origin::prove(map, &prepared.blocks, prepared.origins);
        }
        Ok(prepared)
    }
}

/// A snapshot whose blocks are in packs.
struct Prepared {
    generation: u32,
    size: u64,
    data_bytes: u64,
    blocks: Vec<(u64, Digest)>,
    entries: Vec<(Digest, BlockPlace)>,
    last: Option<(Box<dyn Upload>, String)>,
    origins: Vec<Learned>,
    claims: crate::format::Claims,
    stored_bytes: u64,
    read_bytes: u64,
    hashed_bytes: u64,
}

impl Prepared {
    fn commit(self, store: &Store, options: &PutOptions<'_>) -> Result<PutReport, Error> {
        let digest = snapshot_digest(self.size, self.blocks.iter().copied());
        let id = match options.id {
            ChosenId::Derived => derived_id(options.name, digest),
            ChosenId::Given(id) => id,
            ChosenId::OfDigest(id) => id(digest),
        };
        let (blocks, new_blocks) = (self.blocks.len() as u64, self.entries.len() as u64);
        let snapshot = Snapshot {
            id,
            name: options.name.to_owned(),
            size: self.size,
            parent: options.parent,
            time: options.time,
            digest,
            blocks: self.blocks,
        };
        let origins = self.origins.into_iter().map(|learned| (learned.key, learned.id)).collect();
        let existed = store.commit(Change {
            generation: self.generation,
            entries: self.entries,
            pack: self.last,
            origins,
            claims: self.claims,
            snapshot,
        })?;
        Ok(PutReport {
            snapshot_id: id,
            name: options.name.to_owned(),
            digest,
            size: self.size,
            data_bytes: self.data_bytes,
            blocks,
            new_blocks,
            new_bytes: new_blocks * BLOCK_SIZE,
            stored_bytes: self.stored_bytes,
            read_bytes: self.read_bytes,
            hashed_bytes: self.hashed_bytes,
            existed,
        })
    }
}

/// Whether a snapshot can have this name.
pub fn check_name(name: &str) -> Result<(), Error> {
    let bad = |why| Err(Error::BadName { name: name.to_owned(), why });
    if name.is_empty() {
        bad("it is empty")
    } else if name.len() > MAX_NAME {
        bad("it is longer than 255 bytes")
    } else if name.chars().any(block::is_obeyed) {
        bad("it has control characters")
    } else if name.parse::<SnapshotId>().is_ok() {
        bad("it reads as an id")
    } else {
        Ok(())
    }
}

/// An origin and the block that it was seen to make.
pub(crate) struct Learned {
    /// The block's place on the disk.
    pub(crate) index: u64,
    pub(crate) key: Digest,
    /// The block's id; 32 zeros for a block of zeros.
    pub(crate) id: Digest,
}

/// The part of a block that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// The block's place on the disk.
    index: u64,
    /// Where data begins and ends on the disk.
    from: u64,
    to: u64,
    /// Bytes of data between, without holes.
    len: u64,
}

/// A disk cut into blocks: those that have data, one after another.
struct Pieces<'a> {
    data: Box<dyn Iterator<Item = (u64, u64)> + Send + 'a>,
    /// What is left of the run that was cut last: where it begins and ends.
    rest: (u64, u64),
}

impl<'a> Pieces<'a> {
    fn new(disk: &'a dyn BlockSource) -> Self {
        Self { data: disk.data(), rest: (0, 0) }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let mut piece: Option<Piece> = None;
        loop {
            let (from, end) = self.rest;
            if from == end {
                match self.data.next() {
                    Some((offset, len)) => self.rest = (offset, offset + len),
                    None => return piece,
                }
                continue;
            }
            let index = from / BLOCK_SIZE;
            if piece.is_some_and(|piece| piece.index != index) {
                return piece;
            }
            let to = end.min((index + 1) * BLOCK_SIZE);
            let piece = piece.get_or_insert(Piece { index, from, to, len: 0 });
            piece.to = to;
            piece.len += to - from;
            self.rest.0 = to;
        }
    }
}

/// One put while its threads run.
struct Work<'a> {
    store: &'a Store,
    state: &'a State,
    disk: &'a dyn BlockSource,
    map: Option<&'a BlockMap>,
    /// The blocks that nobody has taken, and the number of the first of them.
    pieces: Mutex<(usize, Pieces<'a>)>,
    order: Mutex<Order<'a>>,
    /// Told when `order` moves on.
    moved: Condvar,
    stopped: AtomicBool,
    progress: &'a dyn Progress,
    window: usize,
}

/// What was found out about a block.
struct Found {
    /// Its place on the disk.
    index: u64,
    id: Option<Digest>,
    /// Its frame, when the store does not have it.
    frame: Option<(Codec, Vec<u8>)>,
    /// Its origin, when that was not known.
    key: Option<Digest>,
    read: u64,
    hashed: u64,
}

/// Results in the order of the disk: packs come out the same whichever thread is faster.
struct Order<'a> {
    store: &'a Store,
    generation: u32,
    /// The first block whose result is not in yet.
    next: usize,
    waiting: BTreeMap<usize, Found>,
    /// Buffers for frames that are free.
    buffers: Vec<Vec<u8>>,
    blocks: Vec<(u64, Digest)>,
    origins: Vec<Learned>,
    /// Blocks in this put's packs.
    added: HashSet<Digest>,
    pack: Option<PackWriter>,
    /// Where the blocks of finished packs are.
    entries: Vec<(Digest, BlockPlace)>,
    stored_bytes: u64,
    read_bytes: u64,
    hashed_bytes: u64,
    error: Option<Error>,
}

/// Stops all threads when one of them panics: the others may be waiting for it.
struct StopOnPanic<'w, 'a>(&'w Work<'a>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

type Sealing<'scope> = Option<ScopedJoinHandle<'scope, Result<(), Error>>>;

impl<'a> Work<'a> {
    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Whoever is about to wait holds the lock until it does.
        drop(guard(&self.order));
        self.moved.notify_all();
    }

    fn run<'scope>(&'scope self, scope: Option<&'scope Scope<'scope, '_>>) {
        let _stop = StopOnPanic(self);
        if let Err(error) = self.work(scope) {
            guard(&self.order).error.get_or_insert(error);
            self.stop();
        }
    }

    fn work<'scope>(&'scope self, scope: Option<&'scope Scope<'scope, '_>>) -> Result<(), Error> {
        let options = &self.store.options;
        let failed = |source| Error::Source { from: 0, to: 0, source };
        let mut encoder = Encoder::new(options.level, options.frame_fault).map_err(failed)?;
        let mut buffer = vec![0; LANES * BLOCK_LEN];
        let mut sealing: Sealing<'scope> = None;
        loop {
            let (first, batch) = self.take();
            if batch.is_empty() || self.stopped.load(Ordering::Relaxed) {
                break;
            }
            let mut found = Vec::with_capacity(batch.len());
            for (piece, block) in batch.iter().zip(buffer.chunks_mut(BLOCK_LEN)) {
                found.push(self.read(piece, block)?);
            }
            self.hash(&mut found, &buffer);
            for (at, (mut found, block)) in found.into_iter().zip(buffer.chunks(BLOCK_LEN)).enumerate() {
                self.compress(&mut found, block, &mut encoder)?;
                self.hand_in(first + at, found, scope, &mut sealing)?;
                self.progress.advance(batch[at].len);
            }
        }
        join(sealing)
    }

    /// The next blocks that nobody has taken, and the number of the first.
    fn take(&self) -> (usize, Vec<Piece>) {
        let mut pieces = guard(&self.pieces);
        let (next, left) = &mut *pieces;
        let taken: Vec<Piece> = left.take(LANES).collect();
        let first = *next;
        *next += taken.len();
        (first, taken)
    }

    /// Brings the bytes of a block into `block`, unless its origin tells its id.
    fn read(&self, piece: &Piece, block: &mut [u8]) -> Result<Found, Error> {
        let backend = &*self.store.backend;
        let Piece { index, from, to, .. } = *piece;
        let key = self.map.map(|map| origin::key(map, index));
        let mut found = Found { index, id: None, frame: None, key, read: 0, hashed: 0 };
        if let Some(key) = key {
            match self.state.origin(backend, &key)? {
                Some(None) => return Ok(Found { key: None, ..found }),
                Some(Some(id)) if self.state.has(backend, &id)? => {
                    return Ok(Found { id: Some(id), key: None, ..found });
                }
                _ => {}
            }
        }
        let start = index * BLOCK_SIZE;
        let (low, high) = ((from - start) as usize, (to - start) as usize);
        block[..low].fill(0);
        block[high..].fill(0);
        let read = self.disk.read_at(from, &mut block[low..high]);
        read.map_err(|source| Error::Source { from, to, source })?;
        found.read = to - from;
        if !is_zero(&block[low..high]) {
            found.hashed = BLOCK_SIZE;
        }
        Ok(found)
    }

    /// Hashes the blocks of a batch that have to be, side by side.
    fn hash(&self, found: &mut [Found], buffer: &[u8]) {
        let blocks = buffer.chunks(BLOCK_LEN).zip(&mut *found).filter(|(_, found)| found.hashed > 0);
        let (blocks, found): (Vec<&[u8]>, Vec<&mut Found>) = blocks.unzip();
        for (found, id) in found.into_iter().zip(block_ids_of(&blocks)) {
            found.id = id;
        }
    }

    /// Makes the frame of a block that was hashed and that the store does not have.
    fn compress(&self, found: &mut Found, block: &[u8], encoder: &mut Encoder) -> Result<(), Error> {
        let Some(id) = found.id.filter(|_| found.hashed > 0) else { return Ok(()) };
        if self.state.has(&*self.store.backend, &id)? {
            return Ok(());
        }
        let mut frame = {
            let mut order = guard(&self.order);
            if order.added.contains(&id) {
                return Ok(());
            }
            order.buffers.pop().unwrap_or_default()
        };
        let codec = encoder.encode(id, block, &mut frame)?;
        found.frame = Some((codec, frame));
        Ok(())
    }

    /// Takes a result in, and with it all that waited for it.
    fn hand_in<'scope>(
        &'scope self,
        at: usize,
        found: Found,
        scope: Option<&'scope Scope<'scope, '_>>,
        sealing: &mut Sealing<'scope>,
    ) -> Result<(), Error> {
        let mut order = guard(&self.order);
        while at >= order.next + self.window && !self.stopped.load(Ordering::Relaxed) {
            order = self.moved.wait(order).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        order.waiting.insert(at, found);
        let mut moved = false;
        while let Some(found) = {
            let next = order.next;
            order.waiting.remove(&next)
        } {
            order.next += 1;
            moved = true;
            if let Some(full) = order.take(found)? {
                let (mut upload, key, entries) = full.finish()?;
                order.entries.extend(entries);
                match scope {
                    None => upload.seal(&key)?,
                    Some(scope) => {
                        join(sealing.take())?;
                        *sealing = Some(scope.spawn(move || {
                            upload.flush()?;
                            Ok(upload.seal(&key)?)
                        }));
                    }
                }
            }
        }
        if moved {
            self.moved.notify_all();
        }
        Ok(())
    }
}

/// Waits for a pack that is being sealed.
fn join(sealing: Sealing<'_>) -> Result<(), Error> {
    sealing.map_or(Ok(()), |thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

impl<'a> Order<'a> {
    fn new(store: &'a Store, generation: u32) -> Self {
        Self {
            store,
            generation,
            next: 0,
            waiting: BTreeMap::new(),
            buffers: Vec::new(),
            blocks: Vec::new(),
            origins: Vec::new(),
            added: HashSet::new(),
            pack: None,
            entries: Vec::new(),
            stored_bytes: 0,
            read_bytes: 0,
            hashed_bytes: 0,
            error: None,
        }
    }

    /// Takes the next block; gives a pack that became full by it.
    fn take(&mut self, found: Found) -> Result<Option<PackWriter>, Error> {
        let index = found.index;
        self.read_bytes += found.read;
        self.hashed_bytes += found.hashed;
        if let Some(key) = found.key {
            self.origins.push(Learned { index, key, id: found.id.unwrap_or(Digest([0; 32])) });
        }
        let Some(id) = found.id else { return Ok(None) };
        self.blocks.push((index, id));
        let Some((codec, frame)) = found.frame else { return Ok(None) };
        let mut full = None;
        if self.added.insert(id) {
            self.stored_bytes += frame.len() as u64;
            let mut pack = match self.pack.take() {
                Some(pack) => pack,
                None => PackWriter::new(self.store, self.generation)?,
            };
            pack.append(id, codec, &frame)?;
            if pack.index.end() >= self.store.options.pack_size {
                full = Some(pack);
            } else {
                self.pack = Some(pack);
            }
        }
        self.buffers.push(frame);
        Ok(full)
    }
}

/// A pack in the making.
pub(crate) struct PackWriter {
    upload: Box<dyn Upload>,
    pub(crate) index: PackIndexBuilder,
}

/// A pack without its last sync, its key, and where its blocks will be.
type Finished = (Box<dyn Upload>, String, Vec<(Digest, BlockPlace)>);

impl PackWriter {
    pub(crate) fn new(store: &Store, generation: u32) -> Result<Self, Error> {
        let mut upload = store.backend.upload()?;
        upload.append(&pack_header(generation))?;
        Ok(Self { upload, index: PackIndexBuilder::new(generation) })
    }

    pub(crate) fn append(&mut self, id: Digest, codec: Codec, frame: &[u8]) -> Result<(), Error> {
        self.index.push(id, frame.len() as u32, codec);
        Ok(self.upload.append(frame)?)
    }

    /// [`PackWriter::finish`], and the pack is durable.
    pub(crate) fn seal(self) -> Result<Vec<(Digest, BlockPlace)>, Error> {
        let (upload, key, entries) = self.finish()?;
        upload.seal(&key)?;
        Ok(entries)
    }

    /// Appends the index.
    pub(crate) fn finish(mut self) -> Result<Finished, Error> {
        let (end, name) = self.index.finish();
        self.upload.append(&end)?;
        let place = |entry: &crate::format::PackEntry| BlockPlace {
            pack: name,
            offset: entry.offset,
            len: entry.len,
            codec: entry.codec,
        };
        let entries = self.index.entries().iter().map(|entry| (entry.id, place(entry))).collect();
        Ok((self.upload, name.key(crate::format::Folder::Packs), entries))
    }
}

#[cfg(test)]
mod tests {
    use block::cut_at_blocks;
    use proptest::prelude::*;

    use super::*;

    struct Runs(Vec<(u64, u64)>);

    impl BlockSource for Runs {
        fn len(&self) -> u64 {
            self.0.last().map_or(0, |(offset, len)| offset + len)
        }
        fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
            Box::new(self.0.iter().copied())
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn pieces_are_the_data_of_each_block(runs in prop::collection::vec((0..900_000u64, 0..1_500_000u64), 0..9)) {
            let mut at = 0;
            let place = |(gap, len)| {
                let offset = at + gap;
                at = offset + len;
                (offset, len)
            };
            let disk = Runs(runs.into_iter().map(place).collect());
            let cut = cut_at_blocks(disk.data());
            let blocks = cut.chunk_by(|a, b| a.0 / BLOCK_SIZE == b.0 / BLOCK_SIZE).map(|runs| {
                let (first, last) = (runs[0], runs[runs.len() - 1]);
                let len = runs.iter().map(|(_, len)| len).sum();
                Piece { index: first.0 / BLOCK_SIZE, from: first.0, to: last.0 + last.1, len }
            });
            prop_assert_eq!(Pieces::new(&disk).collect::<Vec<_>>(), blocks.collect::<Vec<_>>());
        }
    }
}
