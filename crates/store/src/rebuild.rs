use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use block::Digest;

use crate::Error;
use crate::backend::{Backend, BackendError};
use crate::codec::BLOCK_LEN;
use crate::commit::{MAX_MERGED, Objects, block_table};
use crate::format::{
    BlockPlace, Catalog, Claims, Folder, FormatError, LayerRef, Name, Record, Root, Snapshot, SnapshotId,
    Table, TableKind,
};
use crate::fs::LockKind;
use crate::read::{Fetcher, PlaceError};
use crate::store::{FORMAT, ROOT, Store, format_text, is_store, load};
use crate::verify::{DamagedObject, Unread, VerifyOptions, VerifyReport, read_pack_index};

/// How often a rebuild begins again because somebody else changed the store.
const ATTEMPTS: usize = 5;

/// What [`Store::rebuild`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Packs whose indices were read.
    pub packs: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Snapshots of the store now.
    pub snapshots: u64,
    /// Snapshots that the list had lost.
    pub found_snapshots: u64,
    /// Objects that could not be read, and are left as they are.
    pub unreadable: Vec<DamagedObject>,
}

/// What [`Store::repair`] did and found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// What is so when all is done.
    pub report: VerifyReport,
    /// What was made anew, when something was.
    pub rebuilt: Option<RebuildReport>,
}

impl Store {
    /// Looks at everything as [`Store::verify`] does, with what is damaged put into quarantine; makes root, index and lists anew
    /// where they are lost or damaged. Deletes nothing.
    pub fn repair(backend: &Arc<dyn Backend>, options: &VerifyOptions<'_>) -> Result<Repaired, Error> {
        let options = VerifyOptions { quarantine: true, ..*options };
        let (store, mut rebuilt) = match Self::open(backend.clone()) {
            Err(Error::RootLost { .. } | Error::NotAStore { .. }) => {
                let rebuilt = Self::rebuild(backend)?;
                (Self::open(backend.clone())?, Some(rebuilt))
            }
            opened => (opened?, None),
        };
        let mut report = store.verify(&options);
        // Tables and lists can be made anew from packs and snapshots.
        let lists = [Folder::Index, Folder::Catalog, Folder::Origins, Folder::Claims];
        let is_list = |object: &DamagedObject| {
            lists
                .iter()
                .any(|folder| object.key.split_once('/').is_some_and(|(name, _)| name == folder.name()))
        };
        let hurt = match &report {
            Ok(report) => report.objects.iter().any(is_list),
            Err(error) => matches!(error, Error::Format { .. } | Error::Missing { .. }),
        };
        if hurt && rebuilt.is_none() {
            rebuilt = Some(Self::rebuild(backend)?);
            report = store.verify(&options);
        }
        Ok(Repaired { report: report?, rebuilt })
    }

    /// Makes index, list of snapshots and root anew where they are lost or damaged, from packs and snapshots alone. What can be
    /// read is kept as it is; a list of snapshots that is lost whole comes back with those that were forgotten and not yet
    /// collected. Nothing is deleted. An object that cannot be read now ([`Error::Unreadable`]) ends it with nothing changed; one
    /// whose bytes are wrong is left out and reported. Waits until nobody writes, where the back end has locks.
    pub fn rebuild(backend: &Arc<dyn Backend>) -> Result<RebuildReport, Error> {
        let known = is_store(&**backend);
        match known {
            Err(error @ Error::Newer { .. }) => return Err(error),
            Ok(false) | Err(_) if !has_objects(&**backend)? => {
                return Err(Error::NotAStore { place: backend.place() });
            }
            _ => {}
        }
        let _held = backend.lock(LockKind::Exclusive, true)?;
        for _ in 0..ATTEMPTS {
            let mut report = RebuildReport::default();
            let swapped = backend.read_swapped(ROOT)?;
            let (old, tag) = match &swapped {
                None => (None, None),
                Some((bytes, tag)) => match Root::read(bytes) {
                    Err(FormatError::Newer { found, .. }) => {
                        return Err(Error::Newer { place: backend.place(), found: found.to_string() });
                    }
                    read => (read.ok(), Some(tag)),
                },
            };
            let root = rebuilt(&**backend, old, &mut report)?;
            if backend.swap(ROOT, tag, &root.write())? {
                if !matches!(known, Ok(true)) {
                    let there = backend.read_swapped(FORMAT)?;
                    backend.swap(FORMAT, there.as_ref().map(|(_, tag)| tag), format_text().as_bytes())?;
                }
                return Ok(report);
            }
        }
        Err(Error::Busy { place: backend.place() })
    }
}

/// Whether there is anything that a store would have.
pub(crate) fn has_objects(backend: &dyn Backend) -> Result<bool, Error> {
    for folder in [Folder::Snapshots, Folder::Packs] {
        if backend.list(folder.name())?.iter().any(|listed| name_of(&listed.key).is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn name_of(key: &str) -> Option<Name> {
    Name::parse(key.split_once('/')?.1)
}

/// A root for what is there.
fn rebuilt(backend: &dyn Backend, old: Option<Root>, report: &mut RebuildReport) -> Result<Root, Error> {
    let mut names: Vec<(Folder, Name)> = Vec::new();
    for folder in Folder::ALL {
        let listed = backend.list(folder.name())?;
        names.extend(listed.iter().filter_map(|listed| Some((folder, name_of(&listed.key)?))));
    }
    let lost = old.is_none();
    let newest = names.iter().map(|(_, name)| name.generation).max().unwrap_or(0);
    let mut root = old.unwrap_or(Root { generation: newest.wrapping_add(1), ..Root::default() });
    root.generation = root.generation.wrapping_add(1);
    root.sequence += 1;
    let in_folder = |folder| names.iter().filter(move |(of, _)| *of == folder).map(|(_, name)| *name);

    let mut lost_pages = lost;
    let mut records: Vec<Record> = Vec::new();
    for page in &root.catalog {
        match read(backend, Folder::Catalog, page.name, report, Catalog::read)? {
            Some(catalog) => records.extend(catalog.0),
            None => lost_pages = true,
        }
    }
    records.append(&mut root.recent);
    if lost_pages {
        let found = find_snapshots(backend, in_folder(Folder::Snapshots), &records, report)?;
        report.found_snapshots = found.len() as u64;
        records.extend(found);
        records.sort_by_key(|record| (record.sequence, record.object.generation, record.time, record.id));
        for (record, sequence) in records.iter_mut().zip(1..) {
            record.sequence = sequence;
        }
        root.sequence = root.sequence.max(records.len() as u64 + 1);
    }
    report.snapshots = records.len() as u64;
    let mut objects = Objects::default();
    root.catalog.clear();
    if !records.is_empty() {
        let count = records.len() as u64;
        let name = objects.add(Folder::Catalog, root.generation, Catalog(records).write());
        root.catalog.push(LayerRef { name, count });
    }

    // What the tables say counts for packs whose own index cannot be read.
    let tables: Vec<Name> = match lost {
        true => in_folder(Folder::Index).collect(),
        false => root.index.iter().map(|layer| layer.name).collect(),
    };
    root.index.clear();
    let mut without_index: HashSet<Name> = HashSet::new();
    let mut entries: Vec<(Digest, BlockPlace)> = Vec::new();
    for name in in_folder(Folder::Packs) {
        let pack = match backend.open(&name.key(Folder::Packs)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            pack => pack.map_err(Unread::from).and_then(|pack| read_pack_index(&*pack, name)),
        };
        match pack {
            // What is whole must not be left out because it could not be read this once: a collection would delete it.
            Err(Unread::Failed(error)) => return Err(unreadable(error)),
            Err(why) => {
                let why = why.in_words();
                report.unreadable.push(DamagedObject { key: name.key(Folder::Packs), why, snapshot: None });
                without_index.insert(name);
            }
            Ok(pack) => {
                report.packs += 1;
                report.blocks += pack.entries.len() as u64;
                entries.extend(pack.entries.iter().map(|entry| {
                    let place =
                        BlockPlace { pack: name, offset: entry.offset, len: entry.len, codec: entry.codec };
                    (entry.id, place)
                }));
            }
        }
        if entries.len() as u64 >= MAX_MERGED {
            add_layer(backend, &mut root, &mut entries)?;
        }
    }
    for name in tables.iter().filter(|_| !without_index.is_empty()) {
        let bytes = match load(backend, &name.key(Folder::Index)).map_err(Unread::from) {
            Err(Unread::Failed(error)) => return Err(unreadable(error)),
            Err(Unread::Wrong(_) | Unread::Newer(_)) => continue,
            Ok(bytes) => bytes,
        };
        let Ok(table) = Table::read(TableKind::Blocks, bytes.into()) else { continue };
        let Ok(mut saved) = table.entries() else { continue };
        while let Some(id) = saved.id() {
            // Each entry has a checksum of its own.
            let place = saved.checked_place().ok().filter(|place| without_index.contains(&place.pack));
            entries.extend(place.map(|place| (id, place)));
            if saved.advance().is_err() {
                break;
            }
        }
    }
    add_layer(backend, &mut root, &mut entries)?;

    // Origins save work and hold nothing: those that are damaged, or of a lost root, are left out.
    let open = |layer: &LayerRef| {
        let object = backend.open(&layer.name.key(Folder::Origins)).and_then(|object| object.load());
        Table::read(TableKind::Origins, object.ok()?).ok()?.check(&layer.name).ok()
    };
    root.origins.retain(|layer| open(layer).is_some());
    if lost {
        root.claims = in_folder(Folder::Claims).map(|name| LayerRef { name, count: 0 }).collect();
    }
    let mut claims = Vec::new();
    for layer in &root.claims {
        if let Some(read) = read(backend, Folder::Claims, layer.name, report, Claims::read)? {
            claims.push(LayerRef { name: layer.name, count: read.contents.len() as u64 });
        }
    }
    root.claims = claims;
    objects.write(backend)?;
    Ok(root)
}

/// Writes a table of entries as the newest.
fn add_layer(
    backend: &dyn Backend,
    root: &mut Root,
    entries: &mut Vec<(Digest, BlockPlace)>,
) -> Result<(), Error> {
    // Of a block in several packs the newest that has it whole counts.
    entries.sort_by_key(|(id, place)| (*id, std::cmp::Reverse(place.pack)));
    let mut fetcher = Fetcher::new()?;
    let mut block = vec![0; BLOCK_LEN];
    let mut single = Vec::with_capacity(entries.len());
    for copies in entries.chunk_by(|a, b| a.0 == b.0) {
        let mut chosen = copies[0];
        for (id, place) in copies.iter().filter(|_| copies.len() > 1) {
            let pack = backend.open(&place.pack.key(Folder::Packs)).map_err(PlaceError::Backend);
            match pack.and_then(|pack| fetcher.read(&*pack, id, place, &mut block)) {
                Ok(()) => {
                    chosen = (*id, *place);
                    break;
                }
                Err(PlaceError::Backend(error)) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unreadable(error));
                }
                Err(_) => {}
            }
        }
        single.push(chosen);
    }
    *entries = single;
    if entries.is_empty() {
        return Ok(());
    }
    let (bytes, _) =
        block_table(entries).map_err(|source| Error::Format { place: backend.place(), source })?;
    let mut objects = Objects::default();
    let name = objects.add(Folder::Index, root.generation, bytes);
    objects.write(backend)?;
    root.index.push(LayerRef { name, count: entries.len() as u64 });
    entries.clear();
    Ok(())
}

/// An object whose bytes are those of its name, or none with a line in the report.
fn read<T>(
    backend: &dyn Backend,
    folder: Folder,
    name: Name,
    report: &mut RebuildReport,
    parse: impl FnOnce(&[u8]) -> Result<T, FormatError>,
) -> Result<Option<T>, Error> {
    let key = name.key(folder);
    let bytes = load(backend, &key).map_err(Unread::from);
    let parsed = bytes.and_then(|bytes| match Digest::of(&bytes) == name.digest {
        true => match parse(&bytes) {
            Err(FormatError::Newer { found, .. }) => Err(Unread::Newer(found)),
            parsed => Ok(parsed?),
        },
        false => Err(Unread::Wrong("its bytes are not those of its name".to_owned())),
    });
    match parsed {
        Ok(parsed) => Ok(Some(parsed)),
        Err(Unread::Failed(error)) => Err(unreadable(error)),
        // A program that does not know what it says would take its blocks for unneeded.
        Err(Unread::Newer(found)) => {
            Err(Error::Newer { place: format!("{}/{key}", backend.place()), found: found.to_string() })
        }
        Err(Unread::Wrong(why)) => {
            report.unreadable.push(DamagedObject { key, why, snapshot: None });
            Ok(None)
        }
    }
}

fn unreadable(error: BackendError) -> Error {
    let BackendError { place, action, source } = error;
    Error::Unreadable { place, action, source }
}

/// Snapshots that no record tells of.
fn find_snapshots(
    backend: &dyn Backend,
    names: impl Iterator<Item = Name>,
    records: &[Record],
    report: &mut RebuildReport,
) -> Result<Vec<Record>, Error> {
    let known: HashSet<SnapshotId> = records.iter().map(|record| record.id).collect();
    // Of one id the newest object, which comes last.
    let mut found = BTreeMap::new();
    for object in names {
        let Some(snapshot) = read(backend, Folder::Snapshots, object, report, Snapshot::read)? else {
            continue;
        };
        if !known.contains(&snapshot.id) {
            let record = Record {
                id: snapshot.id,
                name: snapshot.name,
                size: snapshot.size,
                blocks: snapshot.blocks.len() as u64,
                digest: snapshot.digest,
                parent: snapshot.parent,
                time: snapshot.time,
                sequence: 0,
                object,
            };
            found.insert(record.id, record);
        }
    }
    Ok(found.into_values().collect())
}
