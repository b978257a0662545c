//! `<recipe>.<arch>.layout`: where things lie in the parent that an image is laid out against. It stands beside the lock, which has its
//! SHA-256, and makes the parent itself dispensable: places and the count of changed blocks follow from it alone.
//!
//! All numbers are LEB128, all places on the disk. Paths are sorted, each as far as it differs from the one before; nothing is
//! compressed, so that what keeps it (git) can find what two versions share.
//!
//! ```text
//! "bakehouse layout 1\n"  volumes, the root first
//! volume  device: length, bytes · size in bytes
//!         blocks: count, then for each index - index before - 1, SHA-256 (32 bytes)     those that are not all zero
//!         names: count, then for each
//!             bytes shared with the path before · length of the rest, bytes
//!             inode number
//!             2 × slots + 1 if it is a folder of one block
//!             of such a folder: its block of 4 KiB
//!             slots: blocks of 4 KiB into the file, index of the block of 512 KiB that begins there
//! ```

use std::collections::BTreeMap;

use block::{BLOCK_SIZE, Digest};
use diff::Volume;
use ext4::{FS_BLOCK, ParentPlaces};
use inspect::{FileSystem, Inode, Kind, PartitionContent};
use tree::{TreePath, leb128};

const MAGIC: &[u8] = b"bakehouse layout 1\n";
/// Paths together may have so many times the bytes that were read for them, and so many more: prefixes are shared no further.
const SHARED: usize = 16;
const SPARE: usize = 4096;

/// Where things lie in an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Its volumes that hold anything, the root first.
    pub volumes: Vec<VolumeLayout>,
}

/// Where things lie on one volume of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeLayout {
    /// EC2's name for it; empty where nobody knows.
    pub device: String,
    /// Bytes.
    pub size: u64,
    /// Index and id of its blocks of 512 KiB that are not all zero.
    pub blocks: BTreeMap<u64, Digest>,
    /// The names in its largest file system.
    pub names: BTreeMap<TreePath, NameLayout>,
}

/// Where a name leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameLayout {
    /// The number of its inode.
    pub inode: u32,
    /// The block of 4 KiB of the disk that a folder of one block lies in.
    pub folder: Option<u64>,
    /// Where a block of 512 KiB of the disk begins with a part of it: how many blocks of 4 KiB into it, and the index.
    pub slots: BTreeMap<u64, u64>,
}

impl VolumeLayout {
    /// What is known of a volume that was read.
    pub(crate) fn of(volume: &Volume) -> Self {
        let files = volume.partitions.iter().filter_map(|partition| match &partition.content {
            PartitionContent::Files(files) => Some((partition.len, files)),
            PartitionContent::Unread(_) => None,
        });
        let largest = files.max_by_key(|(len, _)| *len);
        Self {
            device: volume.device.clone().unwrap_or_default(),
            size: volume.disk.len(),
            blocks: volume.blocks.iter().copied().collect(),
            names: largest.map(|(_, files)| names(files)).unwrap_or_default(),
        }
    }

    /// The digest of its snapshot.
    pub fn digest(&self) -> Digest {
        block::snapshot_digest(self.size, self.blocks.iter().map(|(index, id)| (*index, *id)))
    }

    /// Its places as a file system sees them that takes `len` bytes of the disk from `start` on.
    pub fn places(&self, start: u64, len: u64) -> ParentPlaces {
        let mut places = ParentPlaces::default();
        let here = |at: u64| at.checked_sub(start).filter(|at| *at < len).map(|at| at / FS_BLOCK);
        let slot = |index: u64| index.checked_mul(BLOCK_SIZE).and_then(here);
        for (path, name) in &self.names {
            places.numbers.insert(path.clone(), name.inode);
            let folder = name.folder.and_then(|block| block.checked_mul(FS_BLOCK)).and_then(here);
            if let Some(block) = folder {
                places.folders.insert(path.clone(), block);
            }
            let slots = name.slots.iter().filter_map(|(into, index)| Some((*into, slot(*index)?)));
            places.slots.extend(slots.map(|(into, at)| ((path.clone(), into), at)));
        }
        places.used = self.blocks.keys().filter_map(|index| slot(*index)).collect();
        places
    }

    /// How many indexes differ from those of a volume with these blocks: what an EBS snapshot after this one has to be sent.
    pub fn changed(&self, blocks: &[(u64, Digest)]) -> u64 {
        let same = blocks.iter().filter(|(index, id)| self.blocks.get(index) == Some(id)).count();
        let both = blocks.iter().filter(|(index, _)| self.blocks.contains_key(index)).count();
        (self.blocks.len() + blocks.len() - both - same) as u64
    }
}

fn names(files: &FileSystem) -> BTreeMap<TreePath, NameLayout> {
    let mut seen = std::collections::BTreeSet::new();
    let mut names = BTreeMap::new();
    for (path, number) in &files.names {
        let mut name = NameLayout { inode: *number, ..NameLayout::default() };
        // A file with several names is told of at its first.
        if let Some(inode) = files.inodes.get(number).filter(|_| seen.insert(*number)) {
            name.folder = folder(inode);
            if name.folder.is_none() {
                name.slots = slots(inode);
            }
        }
        names.insert(path.clone(), name);
    }
    names
}

fn folder(inode: &Inode) -> Option<u64> {
    match (&inode.kind, inode.runs.as_slice()) {
        (Kind::Directory, [run]) if run.len == FS_BLOCK && run.place.is_multiple_of(FS_BLOCK) => {
            Some(run.place / FS_BLOCK)
        }
        _ => None,
    }
}

fn slots(inode: &Inode) -> BTreeMap<u64, u64> {
    let mut slots = BTreeMap::new();
    for run in &inode.runs {
        let mut place = run.place.next_multiple_of(BLOCK_SIZE);
        while place < run.place + run.len {
            let into = run.at + (place - run.place);
            if into.is_multiple_of(FS_BLOCK) {
                slots.insert(into / FS_BLOCK, place / BLOCK_SIZE);
            }
            place += BLOCK_SIZE;
        }
    }
    slots
}

/// Why bytes are no layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// They begin otherwise.
    #[error("it is no layout of this program's version")]
    Other,
    /// They end too early, or have something in them that a layout has not.
    #[error("it is damaged at byte {at}: {what}")]
    Damaged {
        /// Where.
        at: usize,
        /// What is wrong.
        what: String,
    },
}

impl Layout {
    /// As bytes: always the same for the same layout.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        leb128::put(&mut out, self.volumes.len() as u64);
        for volume in &self.volumes {
            leb128::put(&mut out, volume.device.len() as u64);
            out.extend_from_slice(volume.device.as_bytes());
            leb128::put(&mut out, volume.size);
            leb128::put(&mut out, volume.blocks.len() as u64);
            let mut next = 0;
            for (index, id) in &volume.blocks {
                leb128::put(&mut out, index - next);
                out.extend_from_slice(&id.0);
                next = index + 1;
            }
            put_names(&mut out, &volume.names);
        }
        out
    }

    /// Reads what [`Layout::to_bytes`] wrote. The bytes may be a stranger's: memory and time stay in proportion to them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LayoutError> {
        if !bytes.starts_with(MAGIC) {
            return Err(LayoutError::Other);
        }
        let mut reader = Reader { bytes, at: MAGIC.len() };
        let mut volumes = Vec::new();
        for _ in 0..reader.number()? {
            let len = reader.number()?;
            let device = reader.take(len)?;
            let device =
                String::from_utf8(device.to_vec()).map_err(|_| reader.wrong("a device is no text"))?;
            let size = reader.number()?;
            let mut blocks = BTreeMap::new();
            let mut next = 0;
            for _ in 0..reader.number()? {
                let index = reader.sum(next, size.div_ceil(BLOCK_SIZE))?;
                let mut id = [0; 32];
                id.copy_from_slice(reader.take(32)?);
                blocks.insert(index, Digest(id));
                next = index + 1;
            }
            let names = reader.names()?;
            volumes.push(VolumeLayout { device, size, blocks, names });
        }
        if reader.at != bytes.len() {
            return Err(reader.wrong("something follows"));
        }
        Ok(Self { volumes })
    }
}

fn put_names(out: &mut Vec<u8>, names: &BTreeMap<TreePath, NameLayout>) {
    leb128::put(out, names.len() as u64);
    let start = out.len();
    let mut before: &[u8] = &[];
    let mut together = 0;
    for (path, name) in names {
        let path = path.as_bytes();
        let same = path.iter().zip(before).take_while(|(one, other)| one == other).count();
        together += path.len();
        let shared = if together <= SHARED * (out.len() - start) + SPARE { same } else { 0 };
        leb128::put(out, shared as u64);
        leb128::put(out, (path.len() - shared) as u64);
        out.extend_from_slice(&path[shared..]);
        leb128::put(out, name.inode.into());
        leb128::put(out, 2 * name.slots.len() as u64 + u64::from(name.folder.is_some()));
        if let Some(block) = name.folder {
            leb128::put(out, block);
        }
        for (into, index) in &name.slots {
            leb128::put(out, *into);
            leb128::put(out, *index);
        }
        before = path;
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn wrong(&self, what: impl ToString) -> LayoutError {
        LayoutError::Damaged { at: self.at, what: what.to_string() }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], LayoutError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let taken = taken.ok_or_else(|| self.wrong("it ends early"))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, LayoutError> {
        let mut rest = &self.bytes[self.at..];
        let number = leb128::take(&mut rest);
        self.at = self.bytes.len() - rest.len();
        number.map_err(|error| self.wrong(error))
    }

    /// A number and `before` together, below `end`.
    fn sum(&mut self, before: u64, end: u64) -> Result<u64, LayoutError> {
        let number = self.number()?;
        let sum = before.checked_add(number).filter(|sum| *sum < end);
        sum.ok_or_else(|| self.wrong("a block lies behind the end"))
    }

    fn names(&mut self) -> Result<BTreeMap<TreePath, NameLayout>, LayoutError> {
        let mut names: BTreeMap<TreePath, NameLayout> = BTreeMap::new();
        let count = self.number()?;
        let start = self.at;
        let mut path = Vec::new();
        let mut together = 0;
        for _ in 0..count {
            let entry = self.at;
            let shared = self.number()?;
            let len = self.number()?;
            let rest = self.take(len)?;
            let shared = usize::try_from(shared).ok().filter(|shared| *shared <= path.len());
            path.truncate(shared.ok_or_else(|| self.wrong("a path shares more than there is"))?);
            let shares = !path.is_empty();
            path.extend_from_slice(rest);
            together += path.len();
            if shares && together > SHARED * (entry - start) + SPARE {
                return Err(self.wrong("paths share more than they may"));
            }
            let tree_path = TreePath::new(&path).ok().filter(|clean| clean.as_bytes() == path);
            let tree_path = tree_path.ok_or_else(|| self.wrong("a path is none"))?;
            if names.last_key_value().is_some_and(|(before, _)| *before >= tree_path) {
                return Err(self.wrong("paths are in disorder"));
            }
            let inode =
                u32::try_from(self.number()?).map_err(|_| self.wrong("an inode's number is too large"))?;
            let kind = self.number()?;
            let folder = if kind % 2 == 1 { Some(self.number()?) } else { None };
            let mut slots = BTreeMap::new();
            for _ in 0..kind / 2 {
                let (into, index) = (self.number()?, self.number()?);
                if slots.last_key_value().is_some_and(|(before, _)| *before >= into) {
                    return Err(self.wrong("parts of a file are in disorder"));
                }
                slots.insert(into, index);
            }
            names.insert(tree_path, NameLayout { inode, folder, slots });
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = NameLayout> {
        let slots = prop::collection::btree_map(any::<u64>(), any::<u64>(), 0..3);
        (any::<u32>(), prop::option::of(any::<u64>()), slots).prop_map(|(inode, folder, slots)| NameLayout {
            inode,
            folder,
            slots,
        })
    }

    fn volume() -> impl Strategy<Value = VolumeLayout> {
        let path = "[a-c]{1,3}(/[a-c]{1,3}){0,4}".prop_map(|path| TreePath::new(path.as_bytes()).unwrap());
        let blocks = prop::collection::btree_map(0_u64..9000, any::<[u8; 32]>().prop_map(Digest), 0..20);
        let names = prop::collection::btree_map(path, name(), 0..60);
        ("[a-z/]{0,9}", blocks, names).prop_map(|(device, blocks, names)| VolumeLayout {
            device,
            size: 9000 * BLOCK_SIZE,
            blocks,
            names,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read_again(volumes in prop::collection::vec(volume(), 0..3), cut in any::<prop::sample::Index>()) {
            let layout = Layout { volumes };
            let bytes = layout.to_bytes();
            prop_assert_eq!(Layout::from_bytes(&bytes), Ok(layout));
            prop_assert!(Layout::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn changed_indexes_are_those_that_differ(one in volume(), other in volume()) {
            let blocks: Vec<_> = other.blocks.iter().map(|(index, id)| (*index, *id)).collect();
            let differ = (0..9000).filter(|index| one.blocks.get(index) != other.blocks.get(index)).count();
            prop_assert_eq!(one.changed(&blocks), differ as u64);
        }
    }

    #[test]
    fn a_deep_tree_is_written_so_that_it_can_be_read() {
        let mut names = BTreeMap::new();
        let mut path = TreePath::root();
        for depth in 0..2000 {
            path = path.join(format!("folder {depth}").as_bytes()).unwrap();
            names.insert(path.clone(), NameLayout { inode: depth + 11, ..NameLayout::default() });
        }
        let volume = VolumeLayout { device: "/dev/xvda".into(), names, ..VolumeLayout::default() };
        let layout = Layout { volumes: vec![volume] };
        assert_eq!(Layout::from_bytes(&layout.to_bytes()), Ok(layout));
    }

    #[test]
    fn what_is_no_layout_is_told() {
        let error = |bytes: &[u8]| Layout::from_bytes(bytes).unwrap_err().to_string();
        assert_eq!(error(b"bakehouse layout 2\n\0"), "it is no layout of this program's version");
        let with = |rest: &[u8]| error(&[MAGIC, rest].concat());
        assert_eq!(with(b""), "it is damaged at byte 19: it ends early");
        assert_eq!(with(b"\0\0"), "it is damaged at byte 20: something follows");
        assert_eq!(with(b"\x80\0"), "it is damaged at byte 21: a number is too long");
        assert_eq!(with(b"\x01\0\0\x01"), "it is damaged at byte 23: it ends early");
        assert_eq!(with(b"\x01\0\0\x01\0"), "it is damaged at byte 24: a block lies behind the end");
        assert_eq!(with(b"\x01\0\0\0\x01\0\x02..\x0b\0"), "it is damaged at byte 28: a path is none");
        assert_eq!(
            with(b"\x01\0\0\0\x02\0\x01b\x0b\0\0\x01a"),
            "it is damaged at byte 32: paths are in disorder"
        );
    }
}
