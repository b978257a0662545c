//! Roots that are kept in the store from one bake to the next: the configured root of a recipe, before anything is laid into it that no
//! program looks at. Its key is a digest of all that it is made from, so it is never needed, and never wrong: without it
//! the same root is made again.
//!
//! A kept root is a snapshot whose first part is the root's file system, laid out as the image's own will be, so that it
//! shares its blocks; then come the Tree, GRUB's images and the places of the Tree's contents.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use block::{BLOCK_SIZE, BlockMap, BlockMapBuilder, BlockSource, Content, Digest, Hasher, Origin, ReadAt};
use recipe::{Payload, Recipe};
use rootfs::{BiosImages, Boot, Built};
use serde::{Deserialize, Serialize};
use store::{ChosenId, PutOptions, Record, SnapshotDisk, Source, Store};
use tree::{Node, Tree};

use crate::{Error, WRITERS};

/// How the names of kept roots begin; behind it the architecture and the key.
const PREFIX: &str = "kept-root/";
/// How many of them a store keeps: the oldest is forgotten when there are more.
const MOST: usize = 8;
/// What the last block of 4 KiB begins with; then the place and length of the description, little-endian.
const MAGIC: &[u8; 16] = b"bakehouse root 1";
const PAGE: u64 = 4096;

/// Whether a snapshot's name is that of a kept root.
pub fn is_kept_root(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/'));
    rest.is_some_and(|(arch, key)| {
        arch.parse::<recipe::Arch>().is_ok()
            && key.len() == 32
            && key.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// What a root is made from, part by part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inputs {
    arch: &'static str,
    parts: BTreeMap<String, String>,
}

impl Inputs {
    /// Those of a recipe without its late parts.
    pub(crate) fn of(base: &Recipe, lock: &recipe::Lock, boot: &Boot) -> Result<Self, Error> {
        let mut parts = BTreeMap::new();
        let mut add = |name: &str, value: &serde_json::Value| {
            parts.insert(name.to_owned(), Digest::of(value.to_string().as_bytes()).to_hex());
        };
        // A value of strings and numbers always has a JSON form.
        let recipe = serde_json::to_value(base).unwrap_or_default();
        for (key, value) in recipe.as_object().into_iter().flatten() {
            // What says how disks are made, registered and checked, and which packages are chosen: the lock has those.
            const NO_PART: [&str; 11] = [
                "name",
                "version",
                "image_name",
                "description",
                "volumes",
                "image",
                "checks",
                "allow",
                "packages",
                "kernel",
                "recommends",
            ];
            if !NO_PART.contains(&key.as_str()) {
                add(key, value);
            }
        }
        let packages: Vec<String> = lock
            .for_arch(base.arch)
            .map_or(&[][..], |locked| &locked.packages)
            .iter()
            .map(|package| {
                format!("{} {} {} {}", package.name, package.version, package.sha256, package.auto)
            })
            .collect();
        add("packages", &packages.into());
        add("time", &lock.time.into());
        let mounts: Vec<String> = boot
            .mounts
            .iter()
            .map(|mount| format!("{} {:?} {}", mount.path, mount.uuid, mount.kind))
            .collect();
        add("disks", &format!("{:?} {} {mounts:?}", boot.root_uuid, boot.esp_id).into());
        add("program", &format!("{WRITERS:?}").into());
        let mut sources = Hasher::new();
        for file in &base.files {
            hash_payload(&file.payload, &mut sources)?;
        }
        for entry in base.web.iter().flat_map(|web| &web.entries) {
            hash_payload(&entry.payload, &mut sources)?;
        }
        add("sources", &sources.finish().to_hex().into());
        Ok(Self { arch: base.arch.as_str(), parts })
    }

    fn key(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.field(b"bakehouse kept root 1");
        for (name, value) in &self.parts {
            hasher.field(name.as_bytes());
            hasher.field(value.as_bytes());
        }
        hasher.finish()
    }

    fn name(&self) -> String {
        format!("{PREFIX}{}/{}", self.arch, &self.key().to_hex()[..32])
    }

    /// The parts that differ from those of another root.
    fn changed(&self, other: &BTreeMap<String, String>) -> Vec<&str> {
        let names = self.parts.iter().filter(|(name, value)| other.get(*name) != Some(value));
        names.map(|(name, _)| name.as_str()).collect()
    }
}

fn hash_payload(payload: &Payload, hasher: &mut Hasher) -> Result<(), Error> {
    match payload {
        Payload::Content(_) => Ok(()),
        Payload::Source(path) => hash_source(path, hasher),
    }
}

/// Everything of a file or folder of the host that reaches an image when it is laid there.
pub(crate) fn hash_source(path: &Path, hasher: &mut Hasher) -> Result<(), Error> {
    let unread = |action| Error::io(path, action);
    let stat = std::fs::symlink_metadata(path).map_err(unread("cannot be looked at"))?;
    hasher.field(path.file_name().unwrap_or_default().as_bytes());
    if stat.is_dir() {
        let mut below = Vec::new();
        for entry in std::fs::read_dir(path).map_err(unread("cannot be listed"))? {
            below.push(entry.map_err(unread("cannot be listed"))?.path());
        }
        below.sort();
        hasher.field(format!("folder {}", below.len()).as_bytes());
        return below.iter().try_for_each(|path| hash_source(path, hasher));
    }
    if stat.is_symlink() {
        let target = std::fs::read_link(path).map_err(unread("cannot be read"))?;
        hasher.field(b"link");
        hasher.field(target.as_os_str().as_bytes());
    } else if stat.is_file() {
        let mode: &[u8] = if stat.permissions().mode() & 0o111 != 0 { b"program" } else { b"file" };
        hasher.field(mode);
        let mut file = std::fs::File::open(path).map_err(unread("cannot be read"))?;
        let mut content = Hashing(Hasher::new());
        io::copy(&mut file, &mut content).map_err(unread("cannot be read"))?;
        hasher.field(&content.0.finish().0);
    } else {
        hasher.field(b"something else");
    }
    Ok(())
}

struct Hashing(Hasher);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a kept root's description begins with.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    made: i64,
    inputs: BTreeMap<String, String>,
    /// Lengths of what follows, in this order.
    tree: u64,
    places: u64,
    /// GRUB's images: `boot.img` and `core.img`.
    bios: Option<(u64, u64)>,
}

/// A part of a kept root's disk.
struct Place {
    disk: Arc<SnapshotDisk>,
    runs: Box<[(u64, u64)]>,
}

impl ReadAt for Place {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (mut skip, mut rest) = (offset, buf);
        for (start, len) in &self.runs {
            if rest.is_empty() {
                break;
            }
            if skip >= *len {
                skip -= len;
                continue;
            }
            let here = (len - skip).min(rest.len() as u64) as usize;
            let (piece, more) = rest.split_at_mut(here);
            self.disk.read_at(start + skip, piece)?;
            (skip, rest) = (0, more);
        }
        if rest.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// The kept root that is made from these inputs; `None` when the store has none, or one that cannot be read any more.
pub(crate) fn find(store: &Arc<Store>, inputs: &Inputs) -> Result<Option<KeptRoot>, Error> {
    let name = inputs.name();
    let records = store.list()?;
    let newest = records.iter().filter(|record| record.name == name).max_by_key(|record| record.sequence);
    Ok(newest.and_then(|record| open(store, record)).filter(|kept| kept.inputs == inputs.parts))
}

/// What differs between these inputs and those of the kept root that is most like them; `None`: nothing is kept.
pub(crate) fn nearest<'i>(store: &Arc<Store>, inputs: &'i Inputs) -> Result<Option<Vec<&'i str>>, Error> {
    let prefix = format!("{PREFIX}{}/", inputs.arch);
    let kept = store.list()?.into_iter().filter(|record| record.name.starts_with(&prefix));
    let differ = kept.filter_map(|record| Some(inputs.changed(&open(store, &record)?.inputs)));
    Ok(differ.min_by_key(Vec::len))
}

/// A root that was found in the store.
pub(crate) struct KeptRoot {
    pub(crate) tree: Tree,
    pub(crate) bios: Option<BiosImages>,
    pub(crate) made: i64,
    inputs: BTreeMap<String, String>,
}

/// The most that a description may take: a root of a million files has some 100 MB.
const LONGEST_DESCRIPTION: u64 = 512 << 20;

fn open(store: &Arc<Store>, record: &Record) -> Option<KeptRoot> {
    let disk = Arc::new(store.disk(record).ok()?);
    // What is not there any more would be noticed only in the midst of the bake.
    if !disk.snapshot().blocks.iter().all(|(_, id)| store.has_block(id).unwrap_or(false)) {
        return None;
    }
    let mut page = [0; PAGE as usize];
    disk.read_at(disk.len().checked_sub(PAGE)?, &mut page).ok()?;
    let number = |at: usize| Some(u64::from_le_bytes(page[at..at + 8].try_into().ok()?));
    let (start, len) = (number(16)?, number(24)?);
    // The store may be a stranger's, and damaged.
    if page[..16] != MAGIC[..] || start.checked_add(len)? > disk.len() || len > LONGEST_DESCRIPTION {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    disk.read_at(start, &mut bytes).ok()?;
    let head = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let mut rest = &bytes[8..];
    let mut take = |len: u64| {
        let (taken, more) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        rest = more;
        Some(taken)
    };
    let description: Description = serde_json::from_slice(take(head)?).ok()?;
    let tree = take(description.tree)?;
    let places = RefCell::new(take(description.places)?);
    let bios = match description.bios {
        Some((boot, core)) => {
            Some(BiosImages { boot_img: take(boot)?.to_vec(), core_img: take(core)?.to_vec() })
        }
        None => None,
    };
    // Contents are asked for in the Tree's order, in which their places were written.
    let content = |id: Digest, len: u64| {
        let mut places = places.borrow_mut();
        let runs = read_runs(&mut places, len)?;
        Some(Content::new(id, len, Arc::new(Place { disk: disk.clone(), runs })))
    };
    let tree = Tree::from_bytes(tree, &content).ok()?;
    Some(KeptRoot { tree, bios, made: description.made, inputs: description.inputs })
}

/// The runs of one content, which together have `len` bytes.
fn read_runs(places: &mut &[u8], len: u64) -> Option<Box<[(u64, u64)]>> {
    let mut number = || {
        let (number, rest) = places.split_first_chunk::<8>()?;
        *places = rest;
        Some(u64::from_le_bytes(*number))
    };
    let mut runs = Vec::new();
    let mut missing = len;
    while missing > 0 {
        let (start, run) = (number()?, number()?);
        missing = missing.checked_sub(run).filter(|_| run > 0)?;
        runs.push((start, run));
    }
    Some(runs.into())
}

/// Keeps a root whose file system is laid out as `map`, and forgets the oldest where there are too many.
pub(crate) fn keep(
    store: &Store,
    inputs: &Inputs,
    tree: &Tree,
    built: &Built,
    map: &BlockMap,
) -> Result<(), Error> {
    let name = inputs.name();
    let start = map.len().next_multiple_of(BLOCK_SIZE);
    let description = describe(inputs, tree, built, map);
    let len = description.len() as u64;
    let size = (start + len).next_multiple_of(PAGE) + PAGE;
    let mut last = MAGIC.to_vec();
    last.extend_from_slice(&start.to_le_bytes());
    last.extend_from_slice(&len.to_le_bytes());
    let mut disk = BlockMapBuilder::new();
    disk.push_map(0, map);
    let origin = Origin::Structure("kept root");
    disk.push_all(start, Content::from_bytes(description), origin.clone());
    disk.push_all(size - PAGE, Content::from_bytes(last), origin);
    let disk = disk.finish(size).map_err(|error| Error::KeptRoot { reason: error.to_string() })?;
    let options =
        PutOptions { name: &name, id: ChosenId::Derived, parent: None, time: built.made, progress: &() };
    store.put(Source::Map(&disk), &options)?;
    let mut kept: Vec<Record> =
        store.list()?.into_iter().filter(|record| is_kept_root(&record.name)).collect();
    kept.sort_by_key(|record| std::cmp::Reverse(record.sequence));
    let oldest: Vec<_> = kept.iter().skip(MOST).map(|record| record.id).collect();
    if !oldest.is_empty() {
        match store.forget(&oldest) {
            // Another bake forgot them at the same time.
            Err(store::Error::NoSnapshot { .. }) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn describe(inputs: &Inputs, tree: &Tree, built: &Built, map: &BlockMap) -> Vec<u8> {
    let mut where_is: BTreeMap<Digest, BTreeMap<u64, (u64, u64)>> = BTreeMap::new();
    for extent in map.extents().iter().filter(|extent| !matches!(extent.origin, Origin::Structure(_))) {
        let pieces = where_is.entry(extent.content.id()).or_default();
        pieces.insert(extent.content_offset, (extent.offset, extent.len));
    }
    let mut places = Vec::new();
    for (_, entry) in tree.iter() {
        let Node::File(content) = &entry.node else { continue };
        let mut at = 0;
        for (from, (offset, len)) in where_is.get(&content.id()).into_iter().flatten() {
            // A content that is on the disk several times may be in different pieces there.
            let end = from + len;
            if end > at && *from <= at {
                places.extend_from_slice(&(offset + (at - from)).to_le_bytes());
                places.extend_from_slice(&(end - at).to_le_bytes());
                at = end;
            }
        }
    }
    let tree = tree.to_bytes();
    let bios = built.bios.as_ref();
    let head = Description {
        made: built.made,
        inputs: inputs.parts.clone(),
        tree: tree.len() as u64,
        places: places.len() as u64,
        bios: bios.map(|bios| (bios.boot_img.len() as u64, bios.core_img.len() as u64)),
    };
    let head = serde_json::to_vec(&head).unwrap_or_default();
    let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&tree);
    bytes.extend_from_slice(&places);
    for image in bios.into_iter().flat_map(|bios| [&bios.boot_img, &bios.core_img]) {
        bytes.extend_from_slice(image);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_roots_are_known_by_their_names_and_nothing_else_is() {
        for arch in ["x86_64", "aarch64"] {
            let inputs = Inputs { arch, parts: BTreeMap::new() };
            assert!(is_kept_root(&inputs.name()), "{}", inputs.name());
        }
        for other in ["kept-root/web", "kept-root/x86_64/xvda", "hello-web-1.0.0/x86_64/xvda", "kept-root/"] {
            assert!(!is_kept_root(other), "{other}");
        }
    }
}
