//! The one way in which a snapshot becomes part of the store.

use std::collections::HashSet;

use block::Digest;

use crate::Error;
use crate::backend::{Backend, Upload};
use crate::format::{
    BlockPlace, Catalog, Claims, Entries, Folder, FormatError, LayerRef, Name, Record, Root, Snapshot, Table,
    TableKind, TableWriter, merge_tables, origin_entry,
};
use crate::store::{Layer, ROOT, State, Store};

/// Most entries of a table that a rebuild, or a commit that others were faster than, makes of older ones.
pub(crate) const MAX_MERGED: u64 = 1 << 19;
/// Most entries of any table.
const MAX_TABLE: u64 = u32::MAX as u64;
/// Tables smaller than this are always merged.
const SMALL: u64 = 1024;
/// Most contents in a list of claims that a commit makes of older ones.
const MAX_CLAIMS: u64 = 1 << 17;
/// Snapshots that the root itself names.
const RECENT: usize = 16;
/// Most records in a page of the catalogue that a commit makes of older ones.
const MAX_PAGE: u64 = 4096;
/// How often a swap whose outcome is unclear is tried again.
const RETRIES: usize = 3;

/// What a put brings.
pub(crate) struct Change {
    /// The generation in which it looked at the store.
    pub(crate) generation: u32,
    /// New blocks.
    pub(crate) entries: Vec<(Digest, BlockPlace)>,
    /// The pack that is not sealed yet, and its key.
    pub(crate) pack: Option<(Box<dyn Upload>, String)>,
    pub(crate) origins: Vec<(Digest, Digest)>,
    pub(crate) claims: Claims,
    pub(crate) snapshot: Snapshot,
}

/// How a table is added to a list.
struct NewTable {
    kind: TableKind,
    generation: u32,
    /// Most entries of what it becomes a part of.
    most: u64,
}

/// Objects to make durable before the root names them.
#[derive(Default)]
pub(crate) struct Objects(Vec<(String, Vec<u8>)>);

impl Objects {
    /// Adds an object that is named by all its bytes.
    pub(crate) fn add(&mut self, folder: Folder, generation: u32, bytes: Vec<u8>) -> Name {
        let name = Name { generation, digest: Digest::of(&bytes) };
        self.0.push((name.key(folder), bytes));
        name
    }

    /// Makes them durable.
    pub(crate) fn write(&self, backend: &dyn Backend) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let objects: Vec<(&str, &[u8])> = self.0.iter().map(|(key, bytes)| (&**key, &**bytes)).collect();
        Ok(backend.write(&objects)?)
    }
}

/// What became of a swap.
pub(crate) enum Swapped {
    /// The root is in place, durably.
    Done,
    /// Somebody else was faster.
    Conflict,
    /// It may be in place or not.
    Unclear(Error),
}

impl Store {
    /// Swaps the root of `state` for another.
    pub(crate) fn swap(&self, state: &State, root: &Root) -> Swapped {
        match self.backend.swap(ROOT, Some(&state.tag), &root.write()) {
            Ok(true) => Swapped::Done,
            Ok(false) => Swapped::Conflict,
            Err(error) => Swapped::Unclear(error.into()),
        }
    }

    /// Makes everything durable, then the root that names it. Says whether the snapshot was there already.
    ///
    /// The order: packs, tables and the snapshot with their names, in any order among each other; then the root. A swap that
    /// fails with an error may have come about: its effect is looked for, and made sure by another swap.
    pub(crate) fn commit(&self, change: Change) -> Result<bool, Error> {
        let Change { generation, mut entries, pack, mut origins, claims, snapshot } = change;
        entries.sort_by_key(|(id, _)| *id);
        origins.sort();
        origins.dedup_by_key(|(key, _)| *key);
        let object = Name { generation, digest: Digest::of(&snapshot.write()) };
        let mut record = Record {
            id: snapshot.id,
            name: snapshot.name.clone(),
            size: snapshot.size,
            blocks: snapshot.blocks.len() as u64,
            digest: snapshot.digest,
            parent: snapshot.parent,
            time: snapshot.time,
            sequence: 0,
            object,
        };
        let mut pack = pack;
        let mut tries = 0;
        // The first time large tables may be merged; who is slower than others for it does without.
        let mut most = MAX_TABLE;
        // Whether a root with this very snapshot may be in place because of an unclear swap.
        let mut unclear = false;
        // Whether it was there before.
        let mut there = false;
        loop {
            let state = self.refresh()?;
            if state.root.generation.wrapping_sub(generation) >= 2 {
                return Err(Error::Overtaken);
            }
            // Somebody else wrote the same pack, and it rotted already: another generation gives it another name.
            if entries.iter().any(|(id, place)| state.is_quarantined(id, &place.pack)) {
                return Err(Error::Overtaken);
            }
            // Nor may a block be counted on that was found damaged since the put began.
            let known = |id: &Digest| entries.binary_search_by_key(id, |(id, _)| *id).is_ok();
            let noted: HashSet<Digest> =
                state.root.quarantine.iter().map(|quarantined| quarantined.id).collect();
            for (_, id) in &snapshot.blocks {
                if noted.contains(id) && !known(id) && !state.has(&*self.backend, id)? {
                    return Err(Error::Overtaken);
                }
            }
            let records = self.records(&state)?;
            let twin = records.iter().find(|other| other.id == record.id);
            if let Some(twin) = twin.filter(|twin| twin.digest != record.digest) {
                return Err(Error::IdTaken { id: twin.id, name: twin.name.clone() });
            }
            let mut objects = Objects::default();
            let mut root = state.root.clone();
            root.sequence += 1;
            // One whose map is lost is no snapshot: this one takes its place.
            let is_lost = |twin: &&Record| {
                matches!(self.snapshot(twin), Err(Error::Format { .. } | Error::Missing { .. }))
            };
            let lost = twin.filter(|twin| twin.object != object || !unclear).filter(is_lost);
            if !unclear {
                there = twin.is_some() && lost.is_none();
            }
            // Who puts a snapshot again means what is put to be the newest of its name.
            let is_older = |twin: &&Record| {
                records.iter().any(|other| other.name == twin.name && other.sequence > twin.sequence)
            };
            let replaced = lost.or(twin.filter(is_older));
            if replaced.is_some() {
                self.strike(&mut root, &mut objects, |id| id == record.id)?;
            }
            let twin = twin.filter(|_| replaced.is_none());
            // A snapshot that can be seen need not be durable yet: its own writer may still wait for that, or have
            // failed. Another swap makes it so.
            let applied = unclear && twin.is_some_and(|twin| twin.object == object);
            there |= twin.is_some() && !applied;
            if !applied && !entries.is_empty() {
                let fill = |writer: &mut Sink<'_>| {
                    entries.iter().try_for_each(|(id, place)| writer.push_block(*id, *place))
                };
                let new = NewTable { kind: TableKind::Blocks, generation, most };
                self.add_table(&mut root.index, state.index(), new, fill, &mut objects)?;
            }
            if !applied && !origins.is_empty() {
                let fill = |writer: &mut Sink<'_>| {
                    origins.iter().try_for_each(|(key, id)| writer.push(&origin_entry(*key, *id)))
                };
                let new = NewTable { kind: TableKind::Origins, generation, most };
                self.add_table(&mut root.origins, state.origins(), new, fill, &mut objects)?;
            }
            if !applied && !claims.contents.is_empty() {
                self.add_claims(&mut root, &claims, generation, &mut objects)?;
            }
            if twin.is_none() {
                record.sequence = root.sequence;
                objects.0.push((object.key(Folder::Snapshots), snapshot.write()));
                root.recent.push(record.clone());
                self.shorten_recent(&mut root, generation, &mut objects)?;
            }
            match pack.take() {
                None => objects.write(&*self.backend)?,
                Some((upload, key)) if self.options.threads() == 1 => {
                    upload.seal(&key)?;
                    objects.write(&*self.backend)?;
                }
                Some((upload, key)) => std::thread::scope(|scope| {
                    let sealing = scope.spawn(move || upload.seal(&key));
                    let written = objects.write(&*self.backend);
                    sealing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                    written
                })?,
            }
            match self.swap(&state, &root) {
                Swapped::Done => {
                    self.refresh()?;
                    return Ok(there);
                }
                Swapped::Conflict => most = MAX_MERGED,
                Swapped::Unclear(error) => {
                    tries += 1;
                    if tries > RETRIES {
                        return Err(error);
                    }
                    unclear = true;
                }
            }
        }
    }

    /// Adds a table to a list, merged with the tables at the list's end that are not much larger than it. So a list of
    /// n entries has about log n tables, and an entry is written about log n times.
    fn add_table(
        &self,
        layers: &mut Vec<LayerRef>,
        open: &[std::sync::Arc<Layer>],
        new: NewTable,
        fill: impl FnOnce(&mut Sink<'_>) -> Result<(), FormatError>,
        objects: &mut Objects,
    ) -> Result<(), Error> {
        let NewTable { kind, generation, most } = new;
        let (bytes, digest, mut count) = table_bytes(kind, fill).map_err(|error| self.own_error(error))?;
        let name = Name { generation, digest };
        if layers.iter().any(|layer| layer.name == name) {
            return Ok(());
        }
        let merged = last_to_merge(layers, &mut count, most);
        let kept = layers.len() - merged;
        let mut added = vec![LayerRef { name, count }];
        if merged == 0 {
            objects.0.push((name.key(kind.folder()), bytes));
        } else {
            let new = Table::read(kind, bytes.into()).map_err(|error| self.own_error(error))?;
            let mut tables = Vec::new();
            for layer in &open[kept..] {
                let table = layer.table(&*self.backend)?;
                table.check(&layer.layer.name).map_err(|error| layer.failed(&*self.backend, error))?;
                tables.push(table);
            }
            tables.push(&new);
            let all = |_: usize, _: &Entries<'_>| Ok::<_, MergeError>(true);
            if count > self.options.merged_in_memory {
                added = self.upload_table(kind, &tables, all, generation)?;
            } else {
                let mut bytes = Vec::new();
                let append = |piece: &[u8]| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                };
                let (digest, count) =
                    merge_tables(kind, &tables, all, append).map_err(|error| self.merge_error(error))?;
                let name = Name { generation, digest };
                objects.0.push((name.key(kind.folder()), bytes));
                added = vec![LayerRef { name, count }];
            }
        }
        layers.truncate(kept);
        layers.extend(added);
        Ok(())
    }

    /// Merges tables into a new object, which is durable then; no object when nothing is left.
    pub(crate) fn upload_table(
        &self,
        kind: TableKind,
        tables: &[&Table],
        keep: impl FnMut(usize, &Entries<'_>) -> Result<bool, MergeError>,
        generation: u32,
    ) -> Result<Vec<LayerRef>, Error> {
        let mut upload = self.backend.upload()?;
        let mut buffer = Vec::with_capacity(1 << 20);
        let sink = |bytes: &[u8]| {
            buffer.extend_from_slice(bytes);
            if buffer.len() >= 1 << 20 {
                upload.append(&buffer)?;
                buffer.clear();
            }
            Ok(())
        };
        let merged = merge_tables(kind, tables, keep, sink);
        let (digest, count) = merged.map_err(|error| self.merge_error(error))?;
        if count == 0 {
            return Ok(Vec::new());
        }
        upload.append(&buffer)?;
        let name = Name { generation, digest };
        upload.seal(&name.key(kind.folder()))?;
        Ok(vec![LayerRef { name, count }])
    }

    fn merge_error(&self, error: MergeError) -> Error {
        match error {
            MergeError::Store(error) => error,
            MergeError::Format(error) => self.own_error(error),
        }
    }

    /// Adds claims to the list, merged with the last of it as tables are.
    fn add_claims(
        &self,
        root: &mut Root,
        claims: &Claims,
        generation: u32,
        objects: &mut Objects,
    ) -> Result<(), Error> {
        let mut count = claims.contents.len() as u64;
        let merged = last_to_merge(&root.claims, &mut count, MAX_CLAIMS);
        let kept = root.claims.len() - merged;
        let mut all = Claims::default();
        for layer in root.claims.split_off(kept) {
            all.append(self.load_claims(layer.name)?);
        }
        all.append(claims.clone());
        let name = objects.add(Folder::Claims, generation, all.write());
        root.claims.push(LayerRef { name, count });
        Ok(())
    }

    /// Moves snapshots that the root names into a page when they are many.
    fn shorten_recent(&self, root: &mut Root, generation: u32, objects: &mut Objects) -> Result<(), Error> {
        if root.recent.len() <= RECENT {
            return Ok(());
        }
        let mut page = std::mem::take(&mut root.recent);
        while let Some(last) = root.catalog.last() {
            let count = page.len() as u64;
            if last.count > 2 * count || last.count + count > MAX_PAGE {
                break;
            }
            let mut older = self.load_catalog(last.name)?.0;
            older.append(&mut page);
            page = older;
            root.catalog.pop();
        }
        let count = page.len() as u64;
        let name = objects.add(Folder::Catalog, generation, Catalog(page).write());
        root.catalog.push(LayerRef { name, count });
        Ok(())
    }
}

/// How many of the last layers of a list are to be merged with a new one of `count` entries: those that are not much
/// larger than what is merged already, as long as it is no more than `most`. `count` becomes that of all of them.
fn last_to_merge(layers: &[LayerRef], count: &mut u64, most: u64) -> usize {
    let mut merged = 0;
    for layer in layers.iter().rev() {
        let total = layer.count + *count;
        if layer.count > (2 * *count).max(SMALL) || total > most {
            break;
        }
        *count = total;
        merged += 1;
    }
    merged
}

/// A table of blocks in memory; they come by rising id.
pub(crate) fn block_table(entries: &[(Digest, BlockPlace)]) -> Result<(Vec<u8>, Digest), FormatError> {
    let fill =
        |writer: &mut Sink<'_>| entries.iter().try_for_each(|(id, place)| writer.push_block(*id, *place));
    table_bytes(TableKind::Blocks, fill).map(|(bytes, digest, _)| (bytes, digest))
}

/// A table in memory, its digest and its number of entries.
pub(crate) fn table_bytes(
    kind: TableKind,
    fill: impl FnOnce(&mut Sink<'_>) -> Result<(), FormatError>,
) -> Result<(Vec<u8>, Digest, u64), FormatError> {
    let mut bytes = Vec::new();
    let mut append = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let mut writer: Sink<'_> = TableWriter::new(kind, &mut append);
    fill(&mut writer)?;
    let (digest, count) = writer.finish()?;
    Ok((bytes, digest, count))
}

/// A table that is made in memory.
pub(crate) type Sink<'a> = TableWriter<&'a mut dyn FnMut(&[u8]) -> Result<(), FormatError>>;

/// What went wrong with a merge.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl From<crate::BackendError> for MergeError {
    fn from(error: crate::BackendError) -> Self {
        Self::Store(error.into())
    }
}
