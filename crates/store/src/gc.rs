use std::collections::{BTreeMap, HashSet};

use block::{BLOCK_SIZE, Digest};

use crate::Error;
use crate::backend::{Listed, Locked};
use crate::commit::{MergeError, Objects, Swapped};
use crate::format::{
    BlockPlace, Catalog, ClaimedContent, Claims, Condemned, Entries, Folder, FormatError, LayerRef, Name,
    PACK_ENTRY, PACK_FOOTER, PACK_HEADER, Record, Root, SnapshotId, Table, TableKind,
};
use crate::fs::LockKind;
use crate::mark::{ASKED, Bits, Marks};
use crate::put::{PackWriter, Progress};
use crate::read::Fetcher;
use crate::store::{State, Store};

/// More tables than this are merged although nothing is deleted.
const MANY_TABLES: usize = 8;
/// How often a collection begins again because writers were faster.
const ATTEMPTS: usize = 20;

/// A pack that a collection wants to be rid of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackPlan {
    /// The pack.
    pub pack: Name,
    /// Its bytes.
    pub bytes: u64,
    /// Blocks in it that snapshots need, which are copied to a new pack.
    pub needed_blocks: u64,
    /// Bytes of their frames.
    pub needed_bytes: u64,
}

/// What a collection would do: a value that can be shown before anything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcPlan {
    /// Commits the store had seen when the plan was made. A plan of another moment is made anew when it is executed.
    pub sequence: u64,
    /// Snapshots in the store.
    pub snapshots: u64,
    /// Blocks they need.
    pub needed_blocks: u64,
    /// Bytes of their frames.
    pub needed_bytes: u64,
    /// Packs that nothing needs.
    pub unneeded: Vec<PackPlan>,
    /// Packs of which less than half is needed, and such that are damaged where nothing is needed.
    pub rewritten: Vec<PackPlan>,
    /// Objects that are no part of the store: of writers that were interrupted, or replaced by newer ones.
    pub leftovers: Vec<Listed>,
    /// Bytes of what writers began and did not finish, those at work now included.
    pub unfinished_bytes: u64,
}

impl GcPlan {
    /// Bytes that are free when all is done: on a folder at once, on an object store when two more collections have gone by.
    pub fn freed_bytes(&self) -> u64 {
        let packs = self.unneeded.iter().chain(&self.rewritten);
        packs.map(|pack| pack.bytes.saturating_sub(pack.needed_bytes)).sum::<u64>()
            + self.leftovers.iter().map(|it| it.len).sum::<u64>()
            + self.unfinished_bytes
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.unneeded.is_empty()
            && self.rewritten.is_empty()
            && self.leftovers.is_empty()
            && self.unfinished_bytes == 0
    }
}

/// How a collection goes about it.
#[derive(Clone, Copy)]
pub struct GcOptions<'a> {
    /// Whether to wait until nobody writes. Otherwise, while somebody does, packs are only condemned, as on an object store.
    pub wait: bool,
    /// Is told how many snapshots there are to look at and how many are done.
    pub progress: &'a dyn Progress,
}

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Packs that were deleted.
    pub deleted_packs: u64,
    /// Packs that a later collection may delete, when nobody can count on them any more.
    pub condemned_packs: u64,
    /// Bytes that were deleted, of packs and all other objects.
    pub freed_bytes: u64,
    /// Bytes of frames that were copied to new packs.
    pub copied_bytes: u64,
    /// Blocks that could not be copied because they are damaged; their packs stay.
    pub damaged_blocks: u64,
}

impl GcReport {
    /// What a collection and the next one did together.
    fn add(&mut self, next: Self) {
        self.deleted_packs += next.deleted_packs;
        self.condemned_packs = next.condemned_packs;
        self.freed_bytes += next.freed_bytes;
        self.copied_bytes += next.copied_bytes;
        self.damaged_blocks = next.damaged_blocks;
    }
}

/// What is in a pack.
#[derive(Clone, Copy, Default)]
struct Contents {
    bytes: u64,
    blocks: u64,
    needed_blocks: u64,
    needed_bytes: u64,
    /// Whether a needed block in it is known to be damaged.
    hopeless: bool,
}

impl Contents {
    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.blocks += other.blocks;
        self.needed_blocks += other.needed_blocks;
        self.needed_bytes += other.needed_bytes;
        self.hopeless |= other.hopeless;
    }
}

impl Store {
    /// Takes snapshots out of the store; their blocks are freed by the next collection. Gives what they were.
    pub fn forget(&self, ids: &[SnapshotId]) -> Result<Vec<Record>, Error> {
        let _held = self.lock_shared()?;
        self.forget_held(ids)
    }

    /// The same for who holds a lock of the store already.
    pub(crate) fn forget_held(&self, ids: &[SnapshotId]) -> Result<Vec<Record>, Error> {
        let wanted: HashSet<SnapshotId> = ids.iter().copied().collect();
        let mut forgotten = Vec::new();
        let mut unclear = None;
        for _ in 0..ATTEMPTS {
            let (state, records) = self.on_fresh_state(|state| Ok((state.clone(), self.records(state)?)))?;
            let found: Vec<Record> =
                records.into_iter().filter(|record| wanted.contains(&record.id)).collect();
            if unclear.is_none() {
                let there: HashSet<SnapshotId> = found.iter().map(|record| record.id).collect();
                if let Some(id) = ids.iter().find(|id| !there.contains(id)) {
                    return Err(Error::NoSnapshot {
                        wanted: id.to_string(),
                        place: self.place(),
                        nearest: None,
                    });
                }
                forgotten = found;
            }
            let mut root = Root { sequence: state.root.sequence + 1, ..state.root.clone() };
            let mut objects = Objects::default();
            self.strike(&mut root, &mut objects, |id| wanted.contains(&id))?;
            objects.write(&*self.backend)?;
            match self.swap(&state, &root) {
                Swapped::Done => {
                    self.refresh()?;
                    return Ok(forgotten);
                }
                Swapped::Conflict => {}
                Swapped::Unclear(error) => unclear = Some(error),
            }
        }
        Err(unclear.unwrap_or_else(|| Error::Busy { place: self.place() }))
    }

    /// Takes snapshots off the list.
    pub(crate) fn strike(
        &self,
        root: &mut Root,
        objects: &mut Objects,
        is_struck: impl Fn(SnapshotId) -> bool,
    ) -> Result<(), Error> {
        root.recent.retain(|record| !is_struck(record.id));
        let mut catalog = Vec::new();
        for page in &root.catalog {
            let mut records = self.load_catalog(page.name)?.0;
            let before = records.len();
            records.retain(|record| !is_struck(record.id));
            match records.len() {
                0 => {}
                len if len == before => catalog.push(*page),
                len => {
                    let name = objects.add(Folder::Catalog, root.generation, Catalog(records).write());
                    catalog.push(LayerRef { name, count: len as u64 });
                }
            }
        }
        root.catalog = catalog;
        Ok(())
    }

    /// What a collection would do now. Changes nothing. An error when anything that the store names cannot be read: nothing is
    /// deleted while it is not known what is needed.
    pub fn plan_gc(&self, progress: &dyn Progress) -> Result<GcPlan, Error> {
        self.on_fresh_state(|state| {
            let records = self.records(state)?;
            progress.begin(records.len() as u64);
            let marks = Marks::of(self, state, &records, progress)?;
            let plan = self.plan(state, &records, &marks)?;
            Ok(GcPlan { unfinished_bytes: self.backend.unfinished()?, ..plan })
        })
    }

    fn plan(&self, state: &State, records: &[Record], marks: &Marks<'_>) -> Result<GcPlan, Error> {
        let (mut needed_blocks, mut needed_bytes) = (0, 0);
        let mut counted: Vec<Vec<Contents>> = Vec::new();
        let mut names: Vec<&[Name]> = Vec::new();
        for (layer, table) in state.index().iter().zip(&marks.tables) {
            names.push(table.packs().map_err(|error| layer.failed(&*self.backend, error))?);
            counted.push(vec![Contents::default(); names[names.len() - 1].len()]);
        }
        marks.each(|at, entry| {
            let spot = entry.spot()?;
            let contents = &mut counted[at][spot.pack];
            contents.bytes += u64::from(spot.len);
            contents.blocks += 1;
            if marks.is_needed(at, entry.position()) {
                let is_damaged = |id| state.is_quarantined(&id, &names[at][spot.pack]);
                contents.hopeless |= entry.id().is_some_and(is_damaged);
                contents.needed_blocks += 1;
                contents.needed_bytes += u64::from(spot.len);
                needed_blocks += 1;
                needed_bytes += u64::from(spot.len);
            }
            Ok(())
        })?;
        let mut packs: BTreeMap<Name, Contents> = BTreeMap::new();
        for (name, counted) in
            names.iter().zip(&counted).flat_map(|(names, counted)| names.iter().zip(counted))
        {
            packs.entry(*name).or_default().add(counted);
        }
        // Packs with damage in what is not needed of them are rewritten, so that it goes; from one with a needed block that is damaged
        // not all can be copied.
        let damaged: HashSet<Name> =
            state.root.quarantine.iter().map(|quarantined| quarantined.pack).collect();
        let named = named(&state.root, records);
        let mut leftovers = Vec::new();
        for folder in Folder::ALL {
            for listed in self.backend.list(folder.name())? {
                let name = listed.key.split_once('/').and_then(|(_, name)| Name::parse(name));
                // What has no name of ours is not ours.
                let Some(name) = name else { continue };
                match packs.get_mut(&name).filter(|_| folder == Folder::Packs) {
                    Some(contents) => contents.bytes = listed.len,
                    None if !named.contains(&(folder, name)) => leftovers.push(listed),
                    None => {}
                }
            }
        }
        let plan = |(pack, contents): (&Name, &Contents)| PackPlan {
            pack: *pack,
            bytes: contents.bytes,
            needed_blocks: contents.needed_blocks,
            needed_bytes: contents.needed_bytes,
        };
        let unneeded = packs.iter().filter(|(_, contents)| contents.needed_blocks == 0).map(plan).collect();
        let is_rewritten = |(pack, contents): &(&Name, &Contents)| {
            let own = PACK_HEADER + PACK_FOOTER + contents.blocks as usize * PACK_ENTRY;
            let under_half = contents.needed_bytes * 2 < contents.bytes.saturating_sub(own as u64);
            contents.needed_blocks > 0 && !contents.hopeless && (under_half || damaged.contains(*pack))
        };
        let rewritten = packs.iter().filter(is_rewritten).map(plan).collect();
        Ok(GcPlan {
            sequence: state.root.sequence,
            snapshots: records.len() as u64,
            needed_blocks,
            needed_bytes,
            unneeded,
            rewritten,
            leftovers,
            // It is swept in any case.
            unfinished_bytes: 0,
        })
    }

    /// Frees what no snapshot needs, by a plan like that of [`Store::plan_gc`] that is made of what is there now.
    ///
    /// With the store's lock to itself (on a folder, while nobody writes) it frees at once. Without, it moves the store one
    /// generation on, condemns what is not needed, and deletes what an earlier collection condemned and still nobody
    /// needs: see the crate's documentation for why that is safe.
    ///
    /// On a disk without room for all that it would write it goes in steps: it deletes what interrupted writers left, then packs
    /// that nothing needs, and copies last. A root and an index without deleted packs must find room; copies that find none are
    /// left for another time.
    pub fn execute_gc(&self, options: &GcOptions<'_>) -> Result<GcReport, Error> {
        let held = self.backend.lock(LockKind::Exclusive, options.wait)?;
        let alone = matches!(held, Locked::Held(_));
        // While others write, this collector is a writer too: one that holds the lock alone must wait for it.
        let _held = if alone { held } else { self.lock_shared()? };
        match self.collect(options, alone, true) {
            Err(Error::Full { .. }) if alone => self.collect_in_steps(options),
            collected => collected,
        }
    }

    /// A collection on a full disk, with the store's lock alone: each step makes room for the next, which writes more.
    fn collect_in_steps(&self, options: &GcOptions<'_>) -> Result<GcReport, Error> {
        let mut report = self.clear()?;
        report.add(self.collect(options, true, false)?);
        match self.collect(options, true, true) {
            Ok(all) => report.add(all),
            // There is no room for copies: what they would have freed stays.
            Err(Error::Full { .. }) if report.freed_bytes > 0 => report.add(self.clear()?),
            Err(error) => return Err(error),
        }
        Ok(report)
    }

    /// Deletes what is no part of the store; nothing is written but a root. With the store's lock alone.
    fn clear(&self) -> Result<GcReport, Error> {
        let swept = GcReport { freed_bytes: self.backend.sweep()?, ..GcReport::default() };
        let mut error = Error::Busy { place: self.place() };
        for _ in 0..ATTEMPTS {
            let (state, records) = self.on_fresh_state(|state| Ok((state.clone(), self.records(state)?)))?;
            // Two generations on, as in a whole collection.
            let old = &state.root;
            let (sequence, generation) = (old.sequence + 1, old.generation.wrapping_add(2));
            let root = Root { sequence, generation, ..old.clone() };
            match self.swap(&state, &root) {
                Swapped::Done => {
                    let (named, deleted) = (named(&root, &records), HashSet::new());
                    return Finished { generation, named, deleted, report: swept }.delete(self, true);
                }
                Swapped::Conflict => {}
                Swapped::Unclear(unclear) => error = unclear,
            }
        }
        Err(error)
    }

    /// A whole collection, or one without packs that are mostly not needed: that one copies nothing.
    fn collect(&self, options: &GcOptions<'_>, alone: bool, copies: bool) -> Result<GcReport, Error> {
        let mut error = Error::Busy { place: self.place() };
        for _ in 0..ATTEMPTS {
            let executed = self.on_fresh_state(|state| {
                let records = self.records(state)?;
                options.progress.begin(records.len() as u64);
                let marks = Marks::of(self, state, &records, options.progress)?;
                let mut fresh = self.plan(state, &records, &marks)?;
                if !copies {
                    fresh.rewritten.clear();
                }
                let is_tidy = state.index().len() <= MANY_TABLES && !marks.has_replaced();
                if fresh.is_empty() && state.root.condemned.is_empty() && is_tidy {
                    return Ok(None);
                }
                self.execute(state, &records, &marks, &fresh, alone).map(Some)
            })?;
            match executed {
                None => {
                    let freed_bytes = if alone { self.backend.sweep()? } else { 0 };
                    return Ok(GcReport { freed_bytes, ..GcReport::default() });
                }
                Some((Swapped::Done, finished)) => return finished.delete(self, alone),
                Some((Swapped::Conflict, _)) => {}
                Some((Swapped::Unclear(unclear), _)) => error = unclear,
            }
        }
        Err(error)
    }

    fn execute(
        &self,
        state: &State,
        records: &[Record],
        marks: &Marks<'_>,
        plan: &GcPlan,
        alone: bool,
    ) -> Result<(Swapped, Finished), Error> {
        let old = &state.root;
        // Whoever is alone deletes what a writer that the lock did not keep out, as on some network file systems, may count on. Two
        // generations on, such a writer cannot commit.
        let step = if alone { 2 } else { 1 };
        let mut root =
            Root { sequence: old.sequence + 1, generation: old.generation.wrapping_add(step), ..old.clone() };
        let mut report = GcReport::default();
        let copied = self.copy(state, marks, plan, &mut report)?;
        // A pack that has a needed block which was not copied stays.
        let copied_ids: HashSet<Digest> = copied.iter().map(|(id, _)| *id).collect();
        let mut unneeded: HashSet<Name> = plan.unneeded.iter().map(|pack| pack.pack).collect();
        let emptied: HashSet<Name> = plan.rewritten.iter().map(|pack| pack.pack).collect();
        unneeded.extend(self.emptied(marks, &emptied, &copied_ids)?);
        // A copy may come out as a pack that was there already, which is then needed.
        for (_, place) in &copied {
            unneeded.remove(&place.pack);
        }
        let condemned_before = |pack: &Name| {
            old.condemned
                .iter()
                .any(|condemned| condemned.pack == *pack && condemned.generation <= old.generation)
        };
        let deleted: HashSet<Name> =
            unneeded.iter().copied().filter(|pack| alone || condemned_before(pack)).collect();
        root.condemned = Vec::new();
        let mut waiting: Vec<Name> = unneeded.difference(&deleted).copied().collect();
        waiting.sort();
        for pack in waiting {
            let earlier = old.condemned.iter().find(|condemned| condemned.pack == pack);
            let generation = earlier.map_or(root.generation, |condemned| condemned.generation);
            root.condemned.push(Condemned { pack, generation });
        }
        let known = self.known_packs(state)?;
        root.quarantine.retain(|damaged| known.contains(&damaged.pack) && !deleted.contains(&damaged.pack));
        self.write_index(marks, &copied, &Going { unneeded: &unneeded, deleted: &deleted }, &mut root)?;
        self.write_origins(state, marks, &mut root)?;
        let mut objects = Objects::default();
        self.write_claims(marks, &mut root, &mut objects)?;
        objects.write(&*self.backend)?;
        report.condemned_packs = root.condemned.len() as u64;
        report.deleted_packs = deleted.len() as u64;
        let swapped = self.swap(state, &root);
        let named = named(&root, records);
        let finished = Finished { generation: root.generation, named, deleted, report };
        Ok((swapped, finished))
    }

    /// The packs that the index names.
    fn known_packs(&self, state: &State) -> Result<HashSet<Name>, Error> {
        let mut packs = HashSet::new();
        for layer in state.index() {
            let names = layer.table(&*self.backend)?.packs();
            packs.extend(names.map_err(|error| layer.failed(&*self.backend, error))?);
        }
        Ok(packs)
    }

    /// Those of `packs` whose needed blocks were all copied.
    fn emptied(
        &self,
        marks: &Marks<'_>,
        packs: &HashSet<Name>,
        copied: &HashSet<Digest>,
    ) -> Result<HashSet<Name>, Error> {
        let mut emptied = packs.clone();
        if !packs.is_empty() {
            marks.each_needed(|_, entry| {
                if entry.id().is_some_and(|id| !copied.contains(&id)) {
                    emptied.remove(&entry.place()?.pack);
                }
                Ok(())
            })?;
        }
        Ok(emptied)
    }

    /// Copies the needed blocks of packs that are mostly not, each one checked, as the frames they are.
    fn copy(
        &self,
        state: &State,
        marks: &Marks<'_>,
        plan: &GcPlan,
        report: &mut GcReport,
    ) -> Result<Vec<(Digest, BlockPlace)>, Error> {
        let packs: HashSet<Name> = plan.rewritten.iter().map(|pack| pack.pack).collect();
        let mut wanted = Vec::new();
        if !packs.is_empty() {
            marks.each_needed(|_, entry| {
                let place = entry.place()?;
                wanted.extend(entry.id().filter(|_| packs.contains(&place.pack)).map(|id| (place, id)));
                Ok(())
            })?;
        }
        wanted.sort_by_key(|(place, _)| (place.pack, place.offset));
        let mut fetcher = Fetcher::new()?;
        let mut block = vec![0; BLOCK_SIZE as usize];
        let mut copied = Vec::new();
        let mut pack = None;
        for (place, id) in wanted {
            if fetcher.fetch_from(self, state, &id, &place, &mut block).is_err() {
                report.damaged_blocks += 1;
                continue;
            }
            let mut writer = match pack.take() {
                Some(writer) => writer,
                // Of the generation to come: no pack of this one, which may go, has such a name.
                None => PackWriter::new(self, state.root.generation + 1)?,
            };
            writer.append(id, place.codec, fetcher.frame())?;
            report.copied_bytes += u64::from(place.len);
            if writer.index.end() >= self.options.pack_size {
                copied.extend(writer.seal()?);
            } else {
                pack = Some(writer);
            }
        }
        if let Some(writer) = pack {
            copied.extend(writer.seal()?);
        }
        copied.sort_by_key(|(id, _)| *id);
        Ok(copied)
    }

    /// The index without deleted packs, without second places of blocks in packs that stay, and with what was copied: one table when
    /// there is anything to leave out.
    fn write_index(
        &self,
        marks: &Marks<'_>,
        copied: &[(Digest, BlockPlace)],
        going: &Going<'_>,
        root: &mut Root,
    ) -> Result<(), Error> {
        let mut outdated = marks.tables.len() > MANY_TABLES || !copied.is_empty();
        marks.each(|at, entry| {
            outdated = outdated || going.leaves_out(marks, at, entry)?;
            Ok(())
        })?;
        if !outdated {
            return Ok(());
        }
        let new = crate::commit::block_table(copied)
            .and_then(|(bytes, _)| Table::read(TableKind::Blocks, bytes.into()));
        let new = new.map_err(|error| self.own_error(error))?;
        let mut tables = marks.tables.clone();
        tables.push(&new);
        let keep = |at: usize, entry: &Entries<'_>| match marks.tables.get(at) {
            Some(_) => Ok(!going.leaves_out(marks, at, entry)?),
            None => Ok::<_, MergeError>(true),
        };
        root.index = self.upload_table(TableKind::Blocks, &tables, keep, root.generation)?;
        Ok(())
    }

    /// Origins of blocks that are needed.
    fn write_origins(&self, state: &State, marks: &Marks<'_>, root: &mut Root) -> Result<(), Error> {
        let mut tables = Vec::new();
        let mut needed: Vec<Bits> = Vec::new();
        let mut outdated = state.origins().len() > MANY_TABLES;
        for layer in state.origins() {
            let table = layer.table(&*self.backend)?;
            let failed = |error| layer.failed(&*self.backend, error);
            table.check(&layer.layer.name).map_err(failed)?;
            let mut entries = table.entries().map_err(failed)?;
            let mut bits = Bits::new(table.len());
            while entries.current().is_some() {
                let (first, mut ids) = (entries.position(), Vec::new());
                while let Some(id) = entries.origin().filter(|_| ids.len() < ASKED) {
                    ids.push(id);
                    entries.advance().map_err(failed)?;
                }
                for (at, needed) in marks.needs(&ids)?.into_iter().enumerate() {
                    outdated |= !needed;
                    if needed {
                        bits.set(first + at);
                    }
                }
            }
            tables.push(table);
            needed.push(bits);
        }
        if outdated {
            let keep = |at: usize, entry: &Entries<'_>| Ok::<_, MergeError>(needed[at].get(entry.position()));
            root.origins = self.upload_table(TableKind::Origins, &tables, keep, root.generation)?;
        }
        Ok(())
    }

    /// Claims all of whose blocks are needed; of others the blocks that would prove them are gone.
    fn write_claims(&self, marks: &Marks<'_>, root: &mut Root, objects: &mut Objects) -> Result<(), Error> {
        let mut layers = Vec::new();
        for layer in std::mem::take(&mut root.claims) {
            let claims = self.load_claims(layer.name)?;
            let needed = marks.needs(&claims.blocks)?;
            if needed.iter().all(|needed| *needed) {
                layers.push(layer);
                continue;
            }
            let proved =
                |content: &&ClaimedContent| content.runs.iter().all(|run| needed[run.block as usize]);
            let kept: Vec<ClaimedContent> = claims.contents.iter().filter(proved).cloned().collect();
            let kept = Claims { blocks: claims.blocks.clone(), contents: kept }.compact();
            if !kept.contents.is_empty() {
                let count = kept.contents.len() as u64;
                layers.push(LayerRef {
                    name: objects.add(Folder::Claims, root.generation, kept.write()),
                    count,
                });
            }
        }
        root.claims = layers;
        Ok(())
    }
}

/// Packs that a collection takes out of the store.
struct Going<'a> {
    /// Those in which nothing is needed.
    unneeded: &'a HashSet<Name>,
    /// Those that go now.
    deleted: &'a HashSet<Name>,
}

impl Going<'_> {
    /// Whether an entry is no part of the new index.
    fn leaves_out(&self, marks: &Marks<'_>, at: usize, entry: &Entries<'_>) -> Result<bool, FormatError> {
        let replaced = marks.is_replaced(at, entry.position());
        if self.deleted.is_empty() && !replaced {
            return Ok(false);
        }
        let pack = entry.place()?.pack;
        // What is condemned stays known until it goes.
        Ok(self.deleted.contains(&pack) || replaced && !self.unneeded.contains(&pack))
    }
}

/// Everything that a root names, with the objects of its snapshots.
fn named(root: &Root, records: &[Record]) -> HashSet<(Folder, Name)> {
    let lists = [
        (Folder::Index, &root.index),
        (Folder::Origins, &root.origins),
        (Folder::Claims, &root.claims),
        (Folder::Catalog, &root.catalog),
    ];
    let layers =
        lists.into_iter().flat_map(|(folder, list)| list.iter().map(move |layer| (folder, layer.name)));
    layers.chain(records.iter().map(|record| (Folder::Snapshots, record.object))).collect()
}

/// A collection whose root is in place.
struct Finished {
    generation: u32,
    named: HashSet<(Folder, Name)>,
    deleted: HashSet<Name>,
    report: GcReport,
}

impl Finished {
    /// Deletes what the new root does not name: of objects that the index never knew only those whose writers can no longer
    /// commit, unless there are no writers.
    fn delete(self, store: &Store, alone: bool) -> Result<GcReport, Error> {
        let Self { generation, named, deleted, mut report } = self;
        let packs = store.on_fresh_state(|state| store.known_packs(state))?;
        let mut keys = Vec::new();
        for folder in Folder::ALL {
            for listed in store.backend.list(folder.name())? {
                let name = listed.key.split_once('/').and_then(|(_, name)| Name::parse(name));
                let Some(name) = name else { continue };
                let known =
                    named.contains(&(folder, name)) || folder == Folder::Packs && packs.contains(&name);
                let late = generation.wrapping_sub(name.generation) >= 2 && name.generation < generation;
                let condemned = folder == Folder::Packs && deleted.contains(&name);
                if !known && (condemned || alone || late) {
                    report.freed_bytes += listed.len;
                    keys.push(listed.key);
                }
            }
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        store.backend.delete(&keys)?;
        if alone {
            report.freed_bytes += store.backend.sweep()?;
        }
        Ok(report)
    }
}
