use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use block::{BLOCK_SIZE, Digest};

use crate::Error;
use crate::backend::{Backend, BackendError, BackendResult, Locked, Object, Tag};
use crate::codec::FrameFault;
use crate::format::{
    BlockPlace, Catalog, Claims, Condemned, Folder, FormatError, LayerRef, Name, Record, Root, Snapshot,
    SnapshotId, Table, TableKind, VERSION,
};
use crate::fs::LockKind;
use crate::rebuild::has_objects;

/// The object that says that this is a store.
pub(crate) const FORMAT: &str = "format";
/// The object that names all others.
pub(crate) const ROOT: &str = "root";

/// How a store is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that hash, compress and decompress; 0 for one a core. With 1, everything happens on the caller's
    /// thread, in one order.
    pub threads: usize,
    /// zstd's level.
    pub level: i32,
    /// Bytes after which a pack is sealed.
    pub pack_size: u32,
    /// Entries of a table that are merged in memory; what has more goes to its place while it is made.
    #[doc(hidden)]
    pub merged_in_memory: u64,
    /// Stands in for a faulty processor.
    #[doc(hidden)]
    pub frame_fault: Option<FrameFault>,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 0, level: 1, pack_size: 64 << 20, merged_in_memory: 1 << 16, frame_fault: None }
    }
}

impl Options {
    pub(crate) fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// What a store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Snapshots.
    pub snapshots: u64,
    /// Sizes of all their volumes.
    pub logical_bytes: u64,
    /// Bytes of all their blocks that are not all zero.
    pub data_bytes: u64,
    /// Blocks in the index; one that was stored twice may count twice until the next collection.
    pub unique_blocks: u64,
    /// Packs, also those that nothing needs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Bytes of snapshots, tables and lists.
    pub other_bytes: u64,
    /// Blocks, and packs' own indices, that are known to be damaged.
    pub quarantined_blocks: u64,
    /// Packs that the next collections may delete.
    pub condemned_packs: u64,
    /// Collections so far, and verifications that put blocks into quarantine.
    pub generation: u32,
    /// Commits so far.
    pub commits: u64,
}

/// A store that is open. Any number of threads may use it, any number of programs may have it open.
pub struct Store {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) options: Options,
    state: Mutex<Arc<State>>,
}

/// The store as one root names it.
pub(crate) struct State {
    pub(crate) root: Root,
    pub(crate) tag: Tag,
    index: Vec<Arc<Layer>>,
    origins: Vec<Arc<Layer>>,
    condemned: HashSet<Name>,
    quarantine: HashSet<(Digest, Name)>,
    packs: Arc<Packs>,
}

/// A table that is opened when it is first asked.
pub(crate) struct Layer {
    pub(crate) layer: LayerRef,
    kind: TableKind,
    table: OnceLock<Table>,
}

/// Open packs.
#[derive(Default)]
struct Packs(Mutex<HashMap<Name, Arc<dyn Object>>>);

/// Most packs that are open at once.
const MAX_OPEN: usize = 256;

pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens a store. Costs the same whatever the store holds.
    pub fn open(backend: Arc<dyn Backend>) -> Result<Self, Error> {
        Self::open_with(backend, Options::default())
    }

    /// [`Store::open`] with options.
    pub fn open_with(backend: Arc<dyn Backend>, options: Options) -> Result<Self, Error> {
        if !is_store(&*backend)? {
            return Err(Error::NotAStore { place: backend.place() });
        }
        let state = Mutex::new(Arc::new(State::load(&*backend, None)?));
        Ok(Self { backend, options, state })
    }

    /// Makes a store in an empty place, or opens the one that is there.
    pub fn create(backend: Arc<dyn Backend>) -> Result<Self, Error> {
        Self::create_with(backend, Options::default())
    }

    /// [`Store::create`] with options.
    pub fn create_with(backend: Arc<dyn Backend>, options: Options) -> Result<Self, Error> {
        if !is_store(&*backend)? {
            match backend.prepare(&Folder::ALL.map(Folder::name)) {
                Ok(()) => Self::make(&*backend)?,
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                    // What is there may be what somebody else just made.
                    if !is_store(&*backend)? {
                        return Err(Error::NotEmpty { place: error.place, found: error.source.to_string() });
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        let store = Self::open_with(backend, options)?;
        if store.state().root.sequence == 0 {
            // Somebody may just be making it: it can be seen, and would not outlive a power cut. Afterwards it would.
            store.backend.create(FORMAT, format_text().as_bytes())?;
        }
        Ok(store)
    }

    /// Makes the objects of an empty store in a place that is prepared.
    fn make(backend: &dyn Backend) -> Result<(), Error> {
        let _held = backend.lock(LockKind::Shared, true)?;
        // In this order: whoever else makes the store has made its root before any object.
        if has_objects(backend)? && backend.read_swapped(ROOT)?.is_none() {
            let place = format!("{}/{ROOT}", backend.place());
            return Err(Error::RootLost { place, state: "missing".to_owned() });
        }
        // The root comes first: what has a format is whole.
        backend.create(ROOT, &Root::default().write())?;
        backend.create(FORMAT, format_text().as_bytes())?;
        Ok(())
    }

    /// Where the store is, in words.
    pub fn place(&self) -> String {
        self.backend.place()
    }

    pub(crate) fn state(&self) -> Arc<State> {
        guard(&self.state).clone()
    }

    /// Looks at the root again.
    pub(crate) fn refresh(&self) -> Result<Arc<State>, Error> {
        let old = self.state();
        let state = Arc::new(State::load(&*self.backend, Some(&old))?);
        *guard(&self.state) = state.clone();
        Ok(state)
    }

    /// Works on what the root names now, and again when a collection has meanwhile replaced something of it.
    pub(crate) fn on_fresh_state<T>(
        &self,
        mut work: impl FnMut(&Arc<State>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut state = self.refresh()?;
        loop {
            let missing = match work(&state) {
                Err(missing @ (Error::Missing { .. } | Error::NoSnapshot { .. })) => missing,
                done => return done,
            };
            let fresh = self.refresh()?;
            if fresh.tag == state.tag {
                return Err(missing);
            }
            state = fresh;
        }
    }

    /// The writers' lock, where the back end has one. Waits for a collector.
    pub(crate) fn lock_shared(&self) -> Result<Locked, Error> {
        Ok(self.backend.lock(LockKind::Shared, true)?)
    }

    /// How much there is of everything. Looks at lists, not at blocks.
    pub fn stat(&self) -> Result<Stat, Error> {
        let (state, records) = self.on_fresh_state(|state| Ok((state.clone(), self.records(state)?)))?;
        let mut stat = Stat {
            snapshots: records.len() as u64,
            logical_bytes: records.iter().map(|record| record.size).sum(),
            data_bytes: records.iter().map(|record| record.blocks * BLOCK_SIZE).sum(),
            unique_blocks: state.root.index.iter().map(|layer| layer.count).sum(),
            quarantined_blocks: state.root.quarantine.len() as u64,
            condemned_packs: state.root.condemned.len() as u64,
            generation: state.root.generation,
            commits: state.root.sequence,
            ..Stat::default()
        };
        for folder in Folder::ALL {
            let listed = self.backend.list(folder.name())?;
            let bytes: u64 = listed.iter().map(|listed| listed.len).sum();
            if folder == Folder::Packs {
                (stat.packs, stat.pack_bytes) = (listed.len() as u64, bytes);
            } else {
                stat.other_bytes += bytes;
            }
        }
        Ok(stat)
    }

    /// Whether the store has a block that a put need not bring again.
    pub fn has_block(&self, id: &Digest) -> Result<bool, Error> {
        self.state().has(&*self.backend, id)
    }

    /// All snapshots, oldest first.
    pub fn list(&self) -> Result<Vec<Record>, Error> {
        self.on_fresh_state(|state| self.records(state))
    }

    pub(crate) fn records(&self, state: &State) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        for page in &state.root.catalog {
            records.extend(self.load_catalog(page.name)?.0);
        }
        records.extend(state.root.recent.iter().cloned());
        records.sort_by_key(|record| record.sequence);
        Ok(records)
    }

    pub(crate) fn load_catalog(&self, name: Name) -> Result<Catalog, Error> {
        Catalog::read(&self.load(Folder::Catalog, name)?)
            .map_err(|source| self.format_error(Folder::Catalog, name, source))
    }

    /// The snapshot of a name (the newest that has it) or of an id.
    pub fn find(&self, wanted: &str) -> Result<Record, Error> {
        let records = self.list()?;
        find(&records, wanted).cloned().ok_or_else(|| Error::NoSnapshot {
            wanted: wanted.to_owned(),
            place: self.place(),
            nearest: nearest(&records, wanted),
        })
    }

    /// A snapshot's map.
    pub fn snapshot(&self, record: &Record) -> Result<Snapshot, Error> {
        let failed = |source| self.format_error(Folder::Snapshots, record.object, source);
        let bytes = match self.load(Folder::Snapshots, record.object) {
            Err(Error::Missing { .. }) if !self.list()?.contains(record) => {
                // It was forgotten and collected since it was found.
                let wanted = record.id.to_string();
                return Err(Error::NoSnapshot { wanted, place: self.place(), nearest: None });
            }
            bytes => bytes?,
        };
        let snapshot = Snapshot::read(&bytes).map_err(failed)?;
        if snapshot.id != record.id || snapshot.digest != record.digest {
            let why = "it is not the one that the list of snapshots names";
            return Err(failed(FormatError::Damaged { what: "snapshot", why }));
        }
        Ok(snapshot)
    }

    /// All bytes of a named object, which must be those of its name.
    pub(crate) fn load(&self, folder: Folder, name: Name) -> Result<Vec<u8>, Error> {
        let key = name.key(folder);
        let bytes = load(&*self.backend, &key).map_err(|error| missing(&self.place(), &key, error))?;
        if Digest::of(&bytes) != name.digest {
            let why = "its bytes are not those of its name";
            return Err(self.format_error(folder, name, FormatError::Damaged { what: what(folder), why }));
        }
        Ok(bytes)
    }

    pub(crate) fn load_claims(&self, name: Name) -> Result<Claims, Error> {
        Claims::read(&self.load(Folder::Claims, name)?)
            .map_err(|source| self.format_error(Folder::Claims, name, source))
    }

    /// The error of something that was made here and turns out damaged.
    pub(crate) fn own_error(&self, source: FormatError) -> Error {
        Error::of_object(self.place(), source)
    }

    pub(crate) fn format_error(&self, folder: Folder, name: Name, source: FormatError) -> Error {
        Error::of_object(format!("{}/{}", self.place(), name.key(folder)), source)
    }
}

/// All bytes of an object.
pub(crate) fn load(backend: &dyn Backend, key: &str) -> BackendResult<Vec<u8>> {
    let place = || format!("{}/{key}", backend.place());
    let failed = |source| BackendError { place: place(), action: "reading the object", source };
    backend.open(key)?.load()?.into_vec().map_err(failed)
}

fn what(folder: Folder) -> &'static str {
    match folder {
        Folder::Packs => "pack",
        Folder::Index => "index",
        Folder::Snapshots => "snapshot",
        Folder::Catalog => "list of snapshots",
        Folder::Origins => "table of origins",
        Folder::Claims => "list of claimed contents",
    }
}

/// An error of reading an object that the root names.
fn missing(place: &str, key: &str, error: crate::BackendError) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return Error::Missing { place: format!("{place}/{key}") };
    }
    error.into()
}

/// What the object says that makes a place a store.
pub(crate) fn format_text() -> String {
    format!("bakehouse store {VERSION}\n")
}

/// Whether there is a store of a version that we know.
pub(crate) fn is_store(backend: &dyn Backend) -> Result<bool, Error> {
    let read = backend.read_swapped(FORMAT).map_err(|error| match error.kind() {
        // Where its folder should be there is a file.
        std::io::ErrorKind::NotADirectory => Error::NotAStore { place: backend.place() },
        _ => error.into(),
    })?;
    let Some((bytes, _)) = read else { return Ok(false) };
    let text = String::from_utf8_lossy(&bytes);
    let version = text.strip_prefix("bakehouse store ").and_then(|rest| rest.strip_suffix('\n'));
    let known = version.and_then(|version| version.parse::<u32>().ok());
    match (version, known) {
        (_, Some(1..=VERSION)) => Ok(true),
        (_, Some(found)) => Err(Error::Newer { place: backend.place(), found: found.to_string() }),
        _ => Err(Error::NotAStore { place: backend.place() }),
    }
}

pub(crate) fn find<'a>(records: &'a [Record], wanted: &str) -> Option<&'a Record> {
    let id: Option<SnapshotId> = wanted.parse().ok();
    let by_id = id.and_then(|id| records.iter().find(|record| record.id == id));
    by_id.or_else(|| records.iter().rev().find(|record| record.name == wanted))
}

/// The name or id nearest to what was asked for, if any is near.
fn nearest(records: &[Record], wanted: &str) -> Option<String> {
    let texts = records.iter().flat_map(|record| [record.name.clone(), record.id.to_string()]);
    let near = texts.map(|text| (strsim::osa_distance(&text, wanted), text));
    let (distance, text) = near.min_by(|a, b| a.cmp(b))?;
    (distance <= 2.max(wanted.chars().count() / 3)).then_some(text)
}

impl State {
    /// Reads the root.
    pub(crate) fn load(backend: &dyn Backend, old: Option<&State>) -> Result<Self, Error> {
        let place = || format!("{}/{ROOT}", backend.place());
        let Some((bytes, tag)) = backend.read_swapped(ROOT)? else {
            return Err(Error::RootLost { place: place(), state: "missing".to_owned() });
        };
        let root = Root::read(&bytes).map_err(|error| match error {
            FormatError::Newer { found, .. } => {
                Error::Newer { place: backend.place(), found: found.to_string() }
            }
            FormatError::Damaged { why, .. } => {
                Error::RootLost { place: place(), state: format!("damaged ({why})") }
            }
            unread => Error::of_object(place(), unread),
        })?;
        Ok(Self::new(root, tag, old))
    }

    /// The store of a root. Tables and packs that are open in `old` stay open.
    fn new(root: Root, tag: Tag, old: Option<&State>) -> Self {
        let index = open_layers(&root.index, TableKind::Blocks, old.map(|old| &*old.index));
        let origins = open_layers(&root.origins, TableKind::Origins, old.map(|old| &*old.origins));
        let condemned = root.condemned.iter().map(|condemned: &Condemned| condemned.pack).collect();
        let quarantine =
            root.quarantine.iter().map(|quarantined| (quarantined.id, quarantined.pack)).collect();
        let packs = old.map(|old| old.packs.clone()).unwrap_or_default();
        Self { root, tag, index, origins, condemned, quarantine, packs }
    }

    pub(crate) fn index(&self) -> &[Arc<Layer>] {
        &self.index
    }

    pub(crate) fn origins(&self) -> &[Arc<Layer>] {
        &self.origins
    }

    /// Every place where the index has a block, newest first.
    pub(crate) fn places(&self, backend: &dyn Backend, id: &Digest) -> Result<Vec<BlockPlace>, Error> {
        let mut places = Vec::new();
        for layer in self.index.iter().rev() {
            places.extend(layer.place(backend, id)?);
        }
        Ok(places)
    }

    /// The newest place where the index has a block.
    pub(crate) fn place(&self, backend: &dyn Backend, id: &Digest) -> Result<Option<BlockPlace>, Error> {
        for layer in self.index.iter().rev() {
            if let Some(place) = layer.place(backend, id)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Whether a place can be counted on: a writer may leave out a block that has one.
    pub(crate) fn counts(&self, id: &Digest, place: &BlockPlace) -> bool {
        !self.condemned.contains(&place.pack) && !self.is_quarantined(id, &place.pack)
    }

    /// Whether a block is known to be damaged in a pack.
    pub(crate) fn is_quarantined(&self, id: &Digest, pack: &Name) -> bool {
        !self.quarantine.is_empty() && self.quarantine.contains(&(*id, *pack))
    }

    /// Whether a writer may leave out a block because the store has it.
    pub(crate) fn has(&self, backend: &dyn Backend, id: &Digest) -> Result<bool, Error> {
        for layer in self.index.iter().rev() {
            if layer.place(backend, id)?.is_some_and(|place| self.counts(id, &place)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The block that an origin makes, if one was seen to make it: `Some(None)` for zeros.
    pub(crate) fn origin(
        &self,
        backend: &dyn Backend,
        key: &Digest,
    ) -> Result<Option<Option<Digest>>, Error> {
        for layer in self.origins.iter().rev() {
            let found = layer.table(backend)?.origin_of(key);
            if let Some(id) = found.map_err(|error| layer.failed(backend, error))? {
                return Ok(Some((id.0 != [0; 32]).then_some(id)));
            }
        }
        Ok(None)
    }

    /// An open pack.
    pub(crate) fn pack(&self, backend: &dyn Backend, name: Name) -> BackendResult<Arc<dyn Object>> {
        if let Some(object) = guard(&self.packs.0).get(&name) {
            return Ok(object.clone());
        }
        let object = backend.open(&name.key(Folder::Packs))?;
        let mut packs = guard(&self.packs.0);
        if packs.len() >= MAX_OPEN {
            packs.clear();
        }
        packs.insert(name, object.clone());
        Ok(object)
    }
}

fn open_layers(layers: &[LayerRef], kind: TableKind, old: Option<&[Arc<Layer>]>) -> Vec<Arc<Layer>> {
    let known = |wanted: &LayerRef| old?.iter().find(|layer| layer.layer == *wanted).cloned();
    let new = |layer: &LayerRef| Arc::new(Layer { layer: *layer, kind, table: OnceLock::new() });
    layers.iter().map(|layer| known(layer).unwrap_or_else(|| new(layer))).collect()
}

impl Layer {
    fn key(&self) -> String {
        self.layer.name.key(self.kind.folder())
    }

    /// The table; its footer is looked at when it is first opened.
    pub(crate) fn table(&self, backend: &dyn Backend) -> Result<&Table, Error> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let key = self.key();
        let bytes = backend.open(&key).and_then(|object| object.load());
        let bytes = bytes.map_err(|error| missing(&backend.place(), &key, error))?;
        let table = Table::read(self.kind, bytes).map_err(|error| self.failed(backend, error))?;
        Ok(self.table.get_or_init(|| table))
    }

    /// Where this table has a block.
    fn place(&self, backend: &dyn Backend, id: &Digest) -> Result<Option<BlockPlace>, Error> {
        self.table(backend)?.place_of(id).map_err(|error| self.failed(backend, error))
    }

    pub(crate) fn failed(&self, backend: &dyn Backend, source: FormatError) -> Error {
        Error::of_object(format!("{}/{}", backend.place(), self.key()), source)
    }
}
