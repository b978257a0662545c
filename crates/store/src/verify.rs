use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use block::{Digest, Hasher};

use crate::Error;
use crate::backend::{BackendError, Object};
use crate::codec::BLOCK_LEN;
use crate::commit::{Objects, Swapped};
use crate::format::{
    BlockPlace, Entries, Folder, FormatError, Half, LayerRef, Name, PACK_FOOTER, PACK_HEADER, Pack,
    PackFooter, Quarantined, Record, Root, SnapshotId, Table, TableKind, half, merge_tables,
};
use crate::mark::walk;
use crate::put::Progress;
use crate::read::{Fetcher, PlaceError};
use crate::store::{State, Store, guard};

/// Blocks that one thread checks at a time.
const RUN: usize = 32;
/// Most blocks whose places are in memory at a time, if no pack has more: 40 MiB.
const AT_ONCE: usize = 1 << 19;
/// Ids of blocks that are looked up together: 16 MiB.
const LOOKED_UP: usize = 1 << 20;
/// How often what was found is noted again because writers were faster.
const ATTEMPTS: usize = 20;
/// How often a verification begins again because a collection changed the store under it.
const RESTARTS: usize = 3;

/// How a store is verified.
#[derive(Clone, Copy)]
pub struct VerifyOptions<'a> {
    /// `(n, m)`: only the n-th of m parts, n from 1 to m. The parts together are all.
    pub part: Option<(u64, u64)>,
    /// Whether damaged blocks are put into quarantine: never deleted, but no longer counted on, so that the next put
    /// that has them heals them. Origins that were found lying are struck out.
    pub quarantine: bool,
    /// Is told how many bytes of blocks there are to check and how many are done.
    pub progress: &'a dyn Progress,
}

/// A snapshot that is hurt, and which of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hurt {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its name.
    pub name: String,
    /// The blocks' indices in it.
    pub indices: Vec<u64>,
}

/// A block that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBlock {
    /// The block's id.
    pub id: Digest,
    /// The key of the pack that has it; none when no pack does.
    pub pack: Option<String>,
    /// What is wrong, in words.
    pub why: String,
    /// Whether the store has it whole at another place: then it hurts nobody.
    pub healed: bool,
    /// The snapshots that cannot be restored whole.
    pub hurts: Vec<Hurt>,
}

/// A content whose bytes are not those of the digest that its source claimed for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lie {
    /// The digest that was claimed.
    pub claimed: Digest,
    /// The digest of the bytes.
    pub found: Digest,
    /// The snapshots with blocks that have the content. Their blocks are those that the source gave.
    pub hurts: Vec<Hurt>,
}

/// An object other than a block that is missing or damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedObject {
    /// Its key.
    pub key: String,
    /// What is wrong, in words.
    pub why: String,
    /// The snapshot that it is, for a snapshot.
    pub snapshot: Option<(SnapshotId, String)>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Snapshots in the store.
    pub snapshots: u64,
    /// Blocks checked.
    pub blocks: u64,
    /// Bytes of their frames.
    pub stored_bytes: u64,
    /// Contents held against the digests that were claimed for them.
    pub claims: u64,
    /// Damaged and missing blocks, by id.
    pub damaged: Vec<DamagedBlock>,
    /// Contents that are not what was claimed.
    pub lies: Vec<Lie>,
    /// Other objects that are missing or damaged.
    pub objects: Vec<DamagedObject>,
    /// Blocks, and packs' own indices, that are in quarantine because of this verification.
    pub quarantined: u64,
}

impl VerifyReport {
    /// Whether everything is as it should be. Damage that was healed by another copy counts as well.
    pub fn is_whole(&self) -> bool {
        self.damaged.iter().all(|block| block.healed) && self.lies.is_empty() && self.objects.is_empty()
    }
}

/// What a verification has to note in the root.
struct Damage {
    quarantine: Vec<Quarantined>,
    /// Blocks of contents that are not what was claimed.
    liars: HashSet<Digest>,
}

/// A block of the index at one place.
type Placed = (BlockPlace, Digest);

impl Store {
    /// Reads the store and checks everything in it: tables, snapshots, and each block against its id; contents of blocks of known
    /// origin against the digests that were claimed for them. An error only when the root or a page of the list of snapshots
    /// cannot be read; all other damage is in the report.
    pub fn verify(&self, options: &VerifyOptions<'_>) -> Result<VerifyReport, Error> {
        let mut attempt = 1;
        loop {
            // Nothing that is open already: a pack that was deleted would still be readable here.
            let state = State::load(&*self.backend, None)?;
            let (mut report, damage) = self.verify_once(&state, options)?;
            // What is missing may have been replaced by a collection since the root was read.
            let settled = report.objects.is_empty() || self.refresh()?.tag == state.tag;
            if settled || attempt == RESTARTS {
                if options.quarantine && !(damage.quarantine.is_empty() && damage.liars.is_empty()) {
                    report.quarantined = self.note(&damage)?;
                }
                return Ok(report);
            }
            attempt += 1;
        }
    }

    fn verify_once(
        &self,
        state: &State,
        options: &VerifyOptions<'_>,
    ) -> Result<(VerifyReport, Damage), Error> {
        let records = self.records(state)?;
        let mut report = VerifyReport { snapshots: records.len() as u64, ..VerifyReport::default() };
        let tables = self.check_tables(state, &mut report);
        let (packs, bytes) = self.count(state, &tables, options, &mut report);
        options.progress.begin(bytes);
        let mut unreadable = Vec::new();
        let mut bad = Vec::new();
        // So many packs at a time that their blocks fit into memory.
        let mut packs = packs.into_iter().peekable();
        while let Some((first, mut blocks)) = packs.next() {
            let mut group = HashSet::from([first]);
            while let Some((pack, more)) = packs.next_if(|(_, more)| blocks + more <= AT_ONCE) {
                blocks += more;
                group.insert(pack);
            }
            let placed = self.placed(state, &tables, &group, options, &mut report);
            unreadable.extend(self.check_packs(state, &placed, &mut report));
            bad.extend(self.check_blocks(state, &placed, options)?);
            report.blocks += placed.len() as u64;
            report.stored_bytes += placed.iter().map(|(place, _)| u64::from(place.len)).sum::<u64>();
        }
        let whole: HashSet<Digest> = self.elsewhere(state, &bad)?;
        let damaged: HashSet<Digest> = bad.iter().map(|(_, id, _)| *id).collect();
        let (lies, liars) = self.check_claims(state, options, &mut report)?;
        let hurt: HashSet<Digest> = lies.iter().flat_map(|(_, _, blocks)| blocks.iter().copied()).collect();
        let wanted = |id: &Digest| (damaged.contains(id) && !whole.contains(id)) || hurt.contains(id);
        // An index that cannot be read says nothing about what is missing.
        let is_known = |id: &Digest| tables.iter().all(|whole| *whole) && in_part(id, options.part);
        let (hurts, missing) = self.check_snapshots(state, &records, &is_known, &wanted, &mut report)?;
        let hurts_of = |id: &Digest| hurts.get(id).cloned().unwrap_or_default();
        for (place, id, why) in &bad {
            let healed = whole.contains(id);
            let hurts = if healed { Vec::new() } else { hurts_of(id) };
            let pack = Some(place.pack.key(Folder::Packs));
            report.damaged.push(DamagedBlock { id: *id, pack, why: why.clone(), healed, hurts });
        }
        for (id, hurts) in missing {
            let why = "no pack has it".to_owned();
            report.damaged.push(DamagedBlock { id, pack: None, why, healed: false, hurts });
        }
        report.damaged.sort_by_key(|block| block.id);
        for (claimed, found, blocks) in lies {
            let mut all: BTreeMap<SnapshotId, Hurt> = BTreeMap::new();
            for hurt in blocks.iter().flat_map(hurts_of) {
                let there = all.entry(hurt.snapshot).or_insert(Hurt { indices: Vec::new(), ..hurt.clone() });
                there.indices.extend(hurt.indices);
                there.indices.sort_unstable();
                there.indices.dedup();
            }
            report.lies.push(Lie { claimed, found, hurts: all.into_values().collect() });
        }
        let blocks = bad.iter().map(|(place, id, _)| Quarantined { id: *id, pack: place.pack });
        // The id of zeros stands for the pack's own index.
        let indices = unreadable.iter().map(|pack| Quarantined { id: Digest([0; 32]), pack: *pack });
        let quarantine = blocks.chain(indices).collect();
        Ok((report, Damage { quarantine, liars }))
    }

    /// Reads all tables whole; says of each table of the index whether it is as it should be.
    fn check_tables(&self, state: &State, report: &mut VerifyReport) -> Vec<bool> {
        let mut whole = Vec::new();
        for (folder, layer) in state
            .index()
            .iter()
            .map(|layer| (Folder::Index, layer))
            .chain(state.origins().iter().map(|layer| (Folder::Origins, layer)))
        {
            let check = || {
                let table = layer.table(&*self.backend)?;
                table.check(&layer.layer.name).map_err(|error| layer.failed(&*self.backend, error))
            };
            // What the disk did not give once may be whole.
            let checked = check().or_else(|error| if is_damage(&error) { Err(error) } else { check() });
            if folder == Folder::Index {
                whole.push(checked.is_ok());
            }
            if let Err(error) = checked {
                report.objects.push(object(folder, layer.layer.name, &error));
            }
        }
        whole
    }

    /// How many blocks are to be checked in each pack, and bytes of all of them.
    fn count(
        &self,
        state: &State,
        tables: &[bool],
        options: &VerifyOptions<'_>,
        report: &mut VerifyReport,
    ) -> (BTreeMap<Name, usize>, u64) {
        let (mut packs, mut bytes) = (BTreeMap::new(), 0);
        self.each_entry(state, tables, report, |entry| {
            let (id, place) = (entry.id(), entry.place()?);
            if id.is_some_and(|id| in_part(&id, options.part)) {
                *packs.entry(place.pack).or_insert(0) += 1;
                bytes += u64::from(place.len);
            }
            Ok(())
        });
        (packs, bytes)
    }

    /// The places in some packs that are to be checked, by pack and offset.
    fn placed(
        &self,
        state: &State,
        tables: &[bool],
        packs: &HashSet<Name>,
        options: &VerifyOptions<'_>,
        report: &mut VerifyReport,
    ) -> Vec<Placed> {
        let mut placed = Vec::new();
        self.each_entry(state, tables, report, |entry| {
            let place = entry.place()?;
            if packs.contains(&place.pack) {
                let id = entry.id().filter(|id| in_part(id, options.part));
                placed.extend(id.map(|id| (place, id)));
            }
            Ok(())
        });
        placed.sort_by_key(|(place, id)| (place.pack, place.offset, *id));
        placed.dedup();
        placed
    }

    /// Shows the entries of those tables of the index that are as they should be. One that cannot be read any more is reported.
    fn each_entry(
        &self,
        state: &State,
        tables: &[bool],
        report: &mut VerifyReport,
        mut see: impl FnMut(&Entries<'_>) -> Result<(), FormatError>,
    ) {
        for (layer, _) in state.index().iter().zip(tables).filter(|(_, whole)| **whole) {
            let mut all = || {
                let table = layer.table(&*self.backend)?;
                let mut entries = table.entries().map_err(|error| layer.failed(&*self.backend, error))?;
                while entries.current().is_some() {
                    // What the disk did not give once may be whole.
                    let seen = see(&entries).or_else(|_| see(&entries));
                    let moved = seen.and_then(|()| entries.advance().or_else(|_| entries.again()));
                    moved.map_err(|error| layer.failed(&*self.backend, error))?;
                }
                Ok(())
            };
            if let Err(error) = all() {
                let damaged = object(Folder::Index, layer.layer.name, &error);
                report.objects.retain(|other| other.key != damaged.key);
                report.objects.push(damaged);
            }
        }
    }

    /// Looks at the packs' own indices, from which a lost index would be rebuilt.
    fn check_packs(&self, state: &State, placed: &[Placed], report: &mut VerifyReport) -> Vec<Name> {
        let mut unreadable = Vec::new();
        for blocks in placed.chunk_by(|a, b| a.0.pack == b.0.pack) {
            let name = blocks[0].0.pack;
            let read = || {
                let pack = state.pack(&*self.backend, name).map_err(Unread::from);
                pack.and_then(|pack| read_pack_index(&*pack, name))
            };
            // What the disk did not give once may be whole.
            let again = |error| if matches!(error, Unread::Failed(_)) { read() } else { Err(error) };
            let Err(error) = read().or_else(again) else { continue };
            unreadable.push(name);
            let why = error.in_words();
            report.objects.push(DamagedObject { key: name.key(Folder::Packs), why, snapshot: None });
        }
        unreadable
    }

    /// Reads blocks on all threads; gives those that are damaged.
    fn check_blocks(
        &self,
        state: &State,
        placed: &[Placed],
        options: &VerifyOptions<'_>,
    ) -> Result<Vec<(BlockPlace, Digest, String)>, Error> {
        let next = AtomicUsize::new(0);
        let bad = Mutex::new(Vec::new());
        let work = || -> Result<(), Error> {
            let mut fetcher = Fetcher::new()?;
            let mut block = vec![0; BLOCK_LEN];
            loop {
                let from = next.fetch_add(RUN, Ordering::Relaxed);
                let Some(run) = placed
                    .get(from..placed.len().min(from.saturating_add(RUN)))
                    .filter(|run| !run.is_empty())
                else {
                    return Ok(());
                };
                for (place, id) in run {
                    let mut read = fetcher.fetch_from(self, state, id, place, &mut block);
                    if matches!(read, Err(PlaceError::Backend(_))) {
                        // What the disk did not give once may be whole.
                        read = fetcher.fetch_from(self, state, id, place, &mut block);
                    }
                    if let Err(error) = read {
                        guard(&bad).push((*place, *id, error.to_string()));
                    }
                    options.progress.advance(place.len.into());
                }
            }
        };
        let threads = self.options.threads().min(placed.len() / RUN).max(1);
        let results: Vec<Result<(), Error>> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let first = work();
            let others = others
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            std::iter::once(first).chain(others).collect()
        });
        results.into_iter().collect::<Result<(), Error>>()?;
        let mut bad = bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A collection may have deleted packs meanwhile: what the store does not name any more is no damage.
        if !bad.is_empty() {
            let fresh = self.refresh()?;
            bad.retain(|(place, id, _)| {
                fresh.places(&*self.backend, id).map_or(true, |places| places.contains(place))
            });
        }
        bad.sort_by_key(|(place, id, _)| (place.pack, place.offset, *id));
        Ok(bad)
    }

    /// Of damaged blocks those that another place has whole.
    fn elsewhere(
        &self,
        state: &State,
        bad: &[(BlockPlace, Digest, String)],
    ) -> Result<HashSet<Digest>, Error> {
        let mut fetcher = Fetcher::new()?;
        let mut block = vec![0; BLOCK_LEN];
        let mut whole = HashSet::new();
        for (bad_place, id, _) in bad {
            let places = state.places(&*self.backend, id).unwrap_or_default();
            let mut others = places.iter().filter(|place| *place != bad_place);
            if others.any(|place| fetcher.fetch_from(self, state, id, place, &mut block).is_ok()) {
                whole.insert(*id);
            }
        }
        Ok(whole)
    }

    /// Reads all snapshots; gives those that have wanted blocks, and blocks that the index should have and does not.
    #[expect(clippy::type_complexity, reason = "two maps of one kind, used once")]
    fn check_snapshots(
        &self,
        state: &State,
        records: &[Record],
        is_known: &dyn Fn(&Digest) -> bool,
        wanted: &dyn Fn(&Digest) -> bool,
        report: &mut VerifyReport,
    ) -> Result<(HashMap<Digest, Vec<Hurt>>, BTreeMap<Digest, Vec<Hurt>>), Error> {
        let mut hurts: HashMap<Digest, Vec<Hurt>> = HashMap::new();
        let mut missing: BTreeMap<Digest, Vec<Hurt>> = BTreeMap::new();
        let tables: Option<Vec<&Table>> =
            state.index().iter().map(|layer| layer.table(&*self.backend).ok()).collect();
        let unread = Cell::new(0);
        let failed = |at: usize, error| {
            unread.set(at);
            state.index()[at].failed(&*self.backend, error)
        };
        let mut halves: Vec<Half> = Vec::new();
        let mut without: HashSet<Half> = HashSet::new();
        let mut look_up = |halves: &mut Vec<Half>, report: &mut VerifyReport| {
            halves.sort_unstable();
            halves.dedup();
            let mut look = |tables: &[&Table]| {
                walk(tables, halves, &failed, |half, found| {
                    without.extend(found.is_empty().then_some(half));
                    Ok(())
                })
            };
            let looked = tables.as_ref().map_or(Ok(()), |tables| look(tables).or_else(|_| look(tables)));
            if let Err(error) = looked {
                report.objects.push(object(Folder::Index, state.index()[unread.get()].layer.name, &error));
            }
            halves.clear();
        };
        for record in records {
            let read = || self.snapshot(record);
            // What the disk did not give once may be whole.
            let snapshot = match read().or_else(|error| if is_damage(&error) { Err(error) } else { read() }) {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    let snapshot = Some((record.id, record.name.clone()));
                    report
                        .objects
                        .push(DamagedObject { snapshot, ..object(Folder::Snapshots, record.object, &error) });
                    continue;
                }
            };
            for (index, id) in &snapshot.blocks {
                if wanted(id) {
                    note_hurt(hurts.entry(*id).or_default(), record, *index);
                }
            }
            let known = snapshot.blocks.iter().filter(|(_, id)| is_known(id));
            halves.extend(known.map(|(_, id)| half(&id.0)));
            if halves.len() >= LOOKED_UP {
                look_up(&mut halves, report);
            }
        }
        look_up(&mut halves, report);
        for record in records.iter().filter(|_| !without.is_empty()) {
            // Those that cannot be read were reported.
            let Ok(snapshot) = self.snapshot(record).or_else(|_| self.snapshot(record)) else { continue };
            for (index, id) in snapshot.blocks.iter().filter(|(_, id)| without.contains(&half(&id.0))) {
                note_hurt(missing.entry(*id).or_default(), record, *index);
            }
        }
        Ok((hurts, missing))
    }

    /// Hashes claimed contents from their blocks; gives those that differ with their blocks, and all blocks of these contents.
    #[expect(clippy::type_complexity, reason = "claimed, found, blocks; used once")]
    fn check_claims(
        &self,
        state: &State,
        options: &VerifyOptions<'_>,
        report: &mut VerifyReport,
    ) -> Result<(Vec<(Digest, Digest, Vec<Digest>)>, HashSet<Digest>), Error> {
        let mut lies = Vec::new();
        let mut liars = HashSet::new();
        let mut fetcher = Fetcher::new()?;
        for layer in &state.root.claims {
            let read = || self.load_claims(layer.name);
            let claims = match read().or_else(|error| if is_damage(&error) { Err(error) } else { read() }) {
                Ok(claims) => claims,
                Err(error) => {
                    report.objects.push(object(Folder::Claims, layer.name, &error));
                    continue;
                }
            };
            // Contents come as they lie on the disk: the block that is there is mostly the next one's as well.
            let mut block = vec![0; BLOCK_LEN];
            let mut loaded = None;
            for content in claims.contents.iter().filter(|content| in_part(&content.digest, options.part)) {
                let mut hasher = Hasher::new();
                let mut readable = true;
                for run in &content.runs {
                    let id = claims.blocks[run.block as usize];
                    if loaded != Some(id) {
                        loaded = None;
                        if id.0 == [0; 32] {
                            block.fill(0);
                        } else if fetcher.fetch(self, &id, &mut block).is_err() {
                            // A damaged block is reported as what it is.
                            readable = false;
                            break;
                        }
                        loaded = Some(id);
                    }
                    hasher.update(&block[run.offset as usize..(run.offset + run.len) as usize]);
                }
                let found = hasher.finish();
                report.claims += u64::from(readable);
                if readable && found != content.digest {
                    let mut blocks: Vec<Digest> =
                        content.runs.iter().map(|run| claims.blocks[run.block as usize]).collect();
                    blocks.sort_unstable();
                    blocks.dedup();
                    liars.extend(blocks.iter().copied());
                    lies.push((content.digest, found, blocks));
                }
            }
        }
        lies.sort();
        lies.dedup();
        Ok((lies, liars))
    }

    /// Puts damaged blocks into quarantine and strikes out origins that lie. A new generation begins, as with a collection: a
    /// pack that heals a block must have another name than the one that has it damaged, also with the same contents.
    fn note(&self, damage: &Damage) -> Result<u64, Error> {
        let Damage { quarantine, liars } = damage;
        let _held = self.lock_shared()?;
        let mut failed = None;
        for _ in 0..ATTEMPTS {
            let state = self.refresh()?;
            let mut root = Root { sequence: state.root.sequence + 1, ..state.root.clone() };
            let before = root.quarantine.len();
            root.quarantine.extend(quarantine);
            root.quarantine.sort_unstable();
            root.quarantine.dedup();
            let added = (root.quarantine.len() - before) as u64;
            root.generation += u32::from(added > 0);
            let mut objects = Objects::default();
            if !liars.is_empty() {
                self.strike_out(&state, liars, &mut root, &mut objects)?;
            }
            if added == 0 && root.origins == state.root.origins {
                return Ok(0);
            }
            objects.write(&*self.backend)?;
            match self.swap(&state, &root) {
                Swapped::Done => {
                    self.refresh()?;
                    return Ok(added);
                }
                Swapped::Conflict => {}
                Swapped::Unclear(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::Busy { place: self.place() }))
    }

    /// Takes origins that make these blocks out of the tables. The claims stay: they go on telling who was lied to.
    fn strike_out(
        &self,
        state: &State,
        liars: &HashSet<Digest>,
        root: &mut Root,
        objects: &mut Objects,
    ) -> Result<(), Error> {
        let mut origins = Vec::new();
        for (layer, name) in state.origins().iter().zip(&state.root.origins) {
            let table = layer.table(&*self.backend)?;
            // Origins save work and hold nothing: a table that is damaged goes.
            if table.check(&name.name).is_err() {
                continue;
            }
            let is_honest = |entry: &Entries<'_>| !entry.origin().is_some_and(|id| liars.contains(&id));
            let mut bytes = Vec::new();
            let append = |piece: &[u8]| {
                bytes.extend_from_slice(piece);
                Ok::<_, FormatError>(())
            };
            let (_, count) =
                merge_tables(TableKind::Origins, &[table], |_, entry| Ok(is_honest(entry)), append)
                    .map_err(|error| layer.failed(&*self.backend, error))?;
            if count == table.len() as u64 {
                origins.push(*name);
            } else if count > 0 {
                origins.push(LayerRef { name: objects.add(Folder::Origins, root.generation, bytes), count });
            }
        }
        root.origins = origins;
        Ok(())
    }
}

pub(crate) fn in_words(error: BackendError) -> String {
    format!("{error}: {}", error.source)
}

/// Why an object tells nothing.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It could not be read now; perhaps another time.
    Failed(BackendError),
    /// It is gone, cut short, or not what it was when it was written.
    Wrong(String),
    /// A later program wrote it: its version.
    Newer(u32),
}

impl Unread {
    pub(crate) fn in_words(self) -> String {
        match self {
            Self::Failed(error) => in_words(error),
            Self::Wrong(why) => why,
            Self::Newer(found) => format!("it has format version {found}, which this program does not know"),
        }
    }
}

impl From<BackendError> for Unread {
    fn from(error: BackendError) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Self::Wrong(in_words(error)),
            _ => Self::Failed(error),
        }
    }
}

impl From<FormatError> for Unread {
    fn from(error: FormatError) -> Self {
        Self::Wrong(error.to_string())
    }
}

/// A pack's own index, or what is wrong with it.
pub(crate) fn read_pack_index(object: &dyn Object, name: Name) -> Result<Pack, Unread> {
    let wrong = |why: &str| Unread::Wrong(why.to_owned());
    let len = object.len()?;
    let end = len.checked_sub(PACK_FOOTER as u64).ok_or_else(|| wrong("the pack is cut short"))?;
    let mut footer = [0; PACK_FOOTER];
    object.read_at(end, &mut footer)?;
    let footer = PackFooter::read(&footer, len)?;
    let (mut header, mut index) = ([0; PACK_HEADER], vec![0; footer.index_len()]);
    object.read_at(0, &mut header)?;
    object.read_at(footer.index_offset.into(), &mut index)?;
    let pack = Pack::read(&header, &index, &footer)?;
    if pack.name != name { Err(wrong("its bytes are not those of its name")) } else { Ok(pack) }
}

/// Whether an object is not what it was. Everything else may go away when it is tried again.
fn is_damage(error: &Error) -> bool {
    matches!(
        error,
        Error::Format { .. } | Error::Missing { .. } | Error::NoSnapshot { .. } | Error::Newer { .. }
    )
}

/// Whether an id is in the n-th of m parts.
fn in_part(id: &Digest, part: Option<(u64, u64)>) -> bool {
    let mut first = [0; 8];
    first.copy_from_slice(&id.0[..8]);
    part.is_none_or(|(n, m)| u64::from_be_bytes(first) % m.max(1) + 1 == n)
}

fn note_hurt(hurts: &mut Vec<Hurt>, record: &Record, index: u64) {
    match hurts.last_mut().filter(|hurt| hurt.snapshot == record.id) {
        Some(hurt) => hurt.indices.push(index),
        None => hurts.push(Hurt { snapshot: record.id, name: record.name.clone(), indices: vec![index] }),
    }
}

pub(crate) fn object(folder: Folder, name: Name, error: &Error) -> DamagedObject {
    DamagedObject { key: name.key(folder), why: error.to_string(), snapshot: None }
}
