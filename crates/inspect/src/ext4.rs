//! ext4, read: superblock, descriptors, inodes, extents, folders.
//!
//! Checksums of metadata are not looked at; what they would tell is for a file system check.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use block::BlockSource;
use tree::{Timestamp, TreePath};

use crate::cached::Cached;
use crate::names::Names;
use crate::{Fault, FileSystem, Inode, Kind, Run, Xattrs, u16_at, u32_at, xattr};

/// Where the superblock is.
const SUPERBLOCK: usize = 1024;
const MAGIC: u16 = 0xEF53;
const ROOT: u32 = 2;

const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64BIT: u32 = 0x80;
/// Names with kinds, extents, 64 bits, multiple mount protection, flexible groups, a seed for checksums, large folders.
const INCOMPAT_KNOWN: u32 =
    0x2 | INCOMPAT_RECOVER | INCOMPAT_EXTENTS | INCOMPAT_64BIT | 0x100 | 0x200 | 0x2000 | 0x4000;
const RO_COMPAT_BIGALLOC: u32 = 0x200;

const FLAG_EXTENTS: u32 = 0x8_0000;
const EXTENT_MAGIC: u16 = 0xF30A;
/// Extents that are longer by this are reserved and not written yet: they read as zeros.
const UNWRITTEN: u16 = 0x8000;
const DEEPEST: u16 = 5;

/// Most bytes of a link's target.
const LONGEST_TARGET: u64 = 4096;

/// Whether a partition that begins like this holds ext2, ext3 or ext4.
pub(crate) fn is_ext(head: &[u8]) -> bool {
    u16_at(head, SUPERBLOCK + 0x38) == MAGIC
}

/// Every file of the file system in `len` bytes from `offset` on.
pub(crate) fn read(source: &dyn BlockSource, offset: u64, len: u64) -> Result<FileSystem, Fault> {
    let mut reader = Reader::new(source, offset, len)?;
    let names = reader.walk()?;
    Ok(FileSystem { clean: reader.clean, names, inodes: reader.inodes })
}

fn damaged<T>(what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Damaged(what.into()))
}

struct Reader<'a> {
    bytes: Cached<'a>,
    clean: bool,
    block: u64,
    blocks: u64,
    first_block: u64,
    blocks_a_group: u64,
    inodes_a_group: u32,
    inode_count: u32,
    inode_size: u16,
    descriptor: u64,
    wide: bool,
    inodes: BTreeMap<u32, Inode>,
    /// Blocks of attributes, which files share.
    attributes: BTreeMap<u64, Arc<Xattrs>>,
    none: Arc<Xattrs>,
    /// Blocks of extents that were seen.
    nodes: BTreeSet<u64>,
    /// Blocks that files have so far.
    mapped: u64,
}

impl<'a> Reader<'a> {
    fn new(source: &'a dyn BlockSource, offset: u64, len: u64) -> Result<Self, Fault> {
        let mut bytes = Cached::new(source, offset, len);
        let mut sb = vec![0; 1024];
        bytes.fill(SUPERBLOCK as u64, &mut sb)?;
        let (incompat, ro_compat) = (u32_at(&sb, 0x60), u32_at(&sb, 0x64));
        if incompat & !INCOMPAT_KNOWN != 0 {
            let features = incompat & !INCOMPAT_KNOWN;
            return Err(Fault::Unknown(format!("it has features (0x{features:x}) that are not read here")));
        }
        if ro_compat & RO_COMPAT_BIGALLOC != 0 {
            return Err(Fault::Unknown("its clusters of blocks are not read here".to_owned()));
        }
        let log = u32_at(&sb, 0x18);
        if log > 5 {
            return damaged(format!("its blocks would have 2^{} bytes", u64::from(log) + 10));
        }
        let block = 1024_u64 << log;
        let wide = incompat & INCOMPAT_64BIT != 0;
        let high = if wide { u64::from(u32_at(&sb, 0x150)) << 32 } else { 0 };
        let old = u32_at(&sb, 0x4c) == 0;
        let reader = Self {
            bytes,
            clean: incompat & INCOMPAT_RECOVER == 0,
            block,
            blocks: high | u64::from(u32_at(&sb, 0x4)),
            first_block: u32_at(&sb, 0x14).into(),
            blocks_a_group: u32_at(&sb, 0x20).into(),
            inodes_a_group: u32_at(&sb, 0x28),
            inode_count: u32_at(&sb, 0x0),
            inode_size: if old { 128 } else { u16_at(&sb, 0x58) },
            descriptor: if wide { u16_at(&sb, 0xfe).into() } else { 32 },
            wide,
            inodes: BTreeMap::new(),
            attributes: BTreeMap::new(),
            none: Arc::default(),
            nodes: BTreeSet::new(),
            mapped: 0,
        };
        let size = reader.blocks.checked_mul(block).filter(|size| *size <= len);
        if size.is_none() {
            return damaged(format!(
                "it has {} blocks of {block} bytes, the partition {len} bytes",
                reader.blocks
            ));
        }
        let fits = (128..=block).contains(&u64::from(reader.inode_size))
            && reader.inode_size.is_power_of_two()
            && (32..=1024).contains(&reader.descriptor)
            && (!wide || reader.descriptor >= 64)
            && reader.first_block <= 1
            && reader.blocks_a_group > 0
            && reader.inodes_a_group > 0;
        if !fits {
            return damaged("the superblock's numbers do not fit each other");
        }
        Ok(reader)
    }

    /// A block of metadata.
    fn block(&mut self, number: u64) -> Result<Vec<u8>, Fault> {
        if number >= self.blocks {
            return damaged(format!("it refers to block {number} of {}", self.blocks));
        }
        let mut block = vec![0; self.block as usize];
        self.bytes.fill(number * self.block, &mut block)?;
        Ok(block)
    }

    /// Every name, sorted. Inodes are read on the way.
    fn walk(&mut self) -> Result<Vec<(TreePath, u32)>, Fault> {
        self.load(ROOT)?;
        if self.inodes[&ROOT].kind != Kind::Directory {
            return damaged("its root is no folder");
        }
        let mut names = Names::new(self.bytes.data_bytes());
        names.push(TreePath::root(), ROOT)?;
        let mut folders = vec![(TreePath::root(), ROOT)];
        let mut seen = BTreeSet::from([ROOT]);
        while let Some((folder, number)) = folders.pop() {
            for (name, child) in self.folder(number)? {
                let path = names.below(&folder, &name)?;
                self.load(child)?;
                if self.inodes[&child].kind == Kind::Directory {
                    if !seen.insert(child) {
                        return damaged("a folder has two names");
                    }
                    folders.push((path.clone(), child));
                }
                names.push(path, child)?;
            }
        }
        names.sorted()
    }

    /// The names in a folder, and their inodes.
    fn folder(&mut self, number: u32) -> Result<Vec<(Vec<u8>, u32)>, Fault> {
        let folder = &self.inodes[&number];
        let (size, runs) = (folder.size, folder.runs.clone());
        let mut names = Vec::new();
        for run in runs {
            for at in (0..run.len).step_by(self.block as usize) {
                if run.at + at >= size {
                    break;
                }
                let block = self.block((run.place - self.bytes.offset + at) / self.block)?;
                names_in(&block, &mut names)?;
            }
        }
        Ok(names)
    }

    /// Reads an inode, once.
    fn load(&mut self, number: u32) -> Result<(), Fault> {
        if self.inodes.contains_key(&number) {
            return Ok(());
        }
        if number == 0 || number > self.inode_count {
            return damaged(format!("a name has inode {number} of {}", self.inode_count));
        }
        let (group, index) = ((number - 1) / self.inodes_a_group, (number - 1) % self.inodes_a_group);
        let descriptors = (self.first_block + 1) * self.block;
        let mut descriptor = [0; 64];
        let known = self.descriptor.min(64) as usize;
        self.bytes.fill(descriptors + u64::from(group) * self.descriptor, &mut descriptor[..known])?;
        let high = if self.wide { u64::from(u32_at(&descriptor, 0x28)) << 32 } else { 0 };
        let table = high | u64::from(u32_at(&descriptor, 0x8));
        let size = u64::from(self.inode_size);
        let Some(at) = table.checked_mul(self.block).filter(|at| *at < self.bytes.len) else {
            return damaged(format!("group {group} has its inodes behind the end"));
        };
        let mut raw = vec![0; usize::from(self.inode_size)];
        self.bytes.fill(at + u64::from(index) * size, &mut raw)?;
        let inode = self.inode(number, &raw)?;
        self.inodes.insert(number, inode);
        Ok(())
    }

    fn inode(&mut self, number: u32, raw: &[u8]) -> Result<Inode, Fault> {
        let mode = u16_at(raw, 0x0);
        let flags = u32_at(raw, 0x20);
        let map = &raw[0x28..0x28 + 60];
        let size = u64::from(u32_at(raw, 0x4)) | u64::from(u32_at(raw, 0x6c)) << 32;
        let extra = if raw.len() > 128 { usize::from(u16_at(raw, 0x80)) } else { 0 };
        if extra > raw.len() - 128 {
            return damaged(format!("inode {number} is longer than it can be"));
        }
        let mut mtime = Timestamp { seconds: (u32_at(raw, 0x10) as i32).into(), nanoseconds: 0 };
        if extra >= 12 {
            let more = u32_at(raw, 0x88);
            mtime.seconds += i64::from(more & 3) << 32;
            mtime.nanoseconds = more >> 2;
        }
        let mut runs = Vec::new();
        let kind = match mode >> 12 {
            0x8 | 0x4 if flags & FLAG_EXTENTS != 0 => {
                self.extents(number, map, None, &mut runs)?;
                if mode >> 12 == 0x8 { Kind::File } else { Kind::Directory }
            }
            0x8 if size == 0 => Kind::File,
            0x8 | 0x4 => {
                return Err(Fault::Unknown(
                    "files with block maps (ext2, ext3) are not read here".to_owned(),
                ));
            }
            0xa => Kind::Symlink(self.target(number, size, flags, map, &mut runs)?),
            0x2 => device(map, Kind::CharDevice),
            0x6 => device(map, Kind::BlockDevice),
            0x1 => Kind::Fifo,
            0xc => Kind::Socket,
            _ => return damaged(format!("inode {number} has a name and is no file")),
        };
        Ok(Inode {
            kind,
            mode: mode & 0xfff,
            uid: u32::from(u16_at(raw, 0x2)) | u32::from(u16_at(raw, 0x78)) << 16,
            gid: u32::from(u16_at(raw, 0x18)) | u32::from(u16_at(raw, 0x7a)) << 16,
            size,
            mtime,
            links: u16_at(raw, 0x1a),
            xattrs: own(raw, extra)?,
            shared_xattrs: self.shared(raw)?,
            runs,
        })
    }

    /// Adds the runs below a node of a tree of extents. `depth` is what the node above says.
    fn extents(
        &mut self,
        number: u32,
        node: &[u8],
        depth: Option<u16>,
        runs: &mut Vec<Run>,
    ) -> Result<(), Fault> {
        let (count, own) = (usize::from(u16_at(node, 2)), u16_at(node, 6));
        let fits = u16_at(node, 0) == EXTENT_MAGIC
            && count <= (node.len() - 12) / 12
            && own <= DEEPEST
            && depth.is_none_or(|depth| depth == own);
        if !fits {
            return damaged(format!("the map of inode {number} is none"));
        }
        for entry in node[12..].chunks_exact(12).take(count) {
            if own > 0 {
                let block = u64::from(u32_at(entry, 4)) | u64::from(u16_at(entry, 8)) << 32;
                if !self.nodes.insert(block) {
                    return damaged(format!("block {block} is in the maps of two files"));
                }
                let below = self.block(block)?;
                self.extents(number, &below, Some(own - 1), runs)?;
                continue;
            }
            let (len, unwritten) = match u16_at(entry, 4) {
                len if len > UNWRITTEN => (u64::from(len - UNWRITTEN), true),
                len => (u64::from(len), false),
            };
            let start = u64::from(u32_at(entry, 8)) | u64::from(u16_at(entry, 6)) << 32;
            if len == 0 || start + len > self.blocks {
                return damaged(format!("inode {number} has blocks behind the end"));
            }
            self.mapped += len;
            if self.mapped > self.blocks {
                return damaged("its files have more blocks than it has itself");
            }
            let at = u64::from(u32_at(entry, 0)) * self.block;
            if runs.last().is_some_and(|last| last.at + last.len > at) {
                return damaged(format!("the map of inode {number} is in disorder"));
            }
            let run = Run { at, place: self.bytes.offset + start * self.block, len: len * self.block };
            if unwritten {
                continue;
            }
            match runs
                .last_mut()
                .filter(|last| last.at + last.len == run.at && last.place + last.len == run.place)
            {
                Some(last) => last.len += run.len,
                None => runs.push(run),
            }
        }
        Ok(())
    }

    /// What a symbolic link holds, and where, when it is not in the inode.
    fn target(
        &mut self,
        number: u32,
        size: u64,
        flags: u32,
        map: &[u8],
        runs: &mut Vec<Run>,
    ) -> Result<Vec<u8>, Fault> {
        if size < 60 && flags & FLAG_EXTENTS == 0 {
            return Ok(map[..size as usize].to_vec());
        }
        if flags & FLAG_EXTENTS != 0 {
            self.extents(number, map, None, runs)?;
        }
        match runs.first() {
            Some(run) if run.at == 0 && size <= run.len.min(LONGEST_TARGET) => {
                let mut target = vec![0; size as usize];
                self.bytes.fill(run.place - self.bytes.offset, &mut target)?;
                Ok(target)
            }
            _ => damaged(format!("the link in inode {number} holds nothing that fits it")),
        }
    }

    /// The attributes in a block that files share.
    fn shared(&mut self, raw: &[u8]) -> Result<Arc<Xattrs>, Fault> {
        let block = u64::from(u32_at(raw, 0x68)) | u64::from(u16_at(raw, 0x76)) << 32;
        if block == 0 {
            return Ok(self.none.clone());
        }
        if let Some(known) = self.attributes.get(&block) {
            return Ok(known.clone());
        }
        let bytes = self.block(block)?;
        if u32_at(&bytes, 0) != xattr::MAGIC {
            return damaged(format!("block {block} holds no extended attributes"));
        }
        let all = Arc::new(xattr::read(&bytes, xattr::BLOCK_HEADER, 0)?);
        self.attributes.insert(block, all.clone());
        Ok(all)
    }
}

/// The attributes in an inode, behind its fields.
fn own(raw: &[u8], extra: usize) -> Result<Xattrs, Fault> {
    match raw.get(128 + extra..) {
        Some(area) if raw.len() > 128 && u32_at(area, 0) == xattr::MAGIC => xattr::read(area, 4, 4),
        _ => Ok(Xattrs::new()),
    }
}

fn device(map: &[u8], kind: fn(u32, u32) -> Kind) -> Kind {
    match (u32_at(map, 0), u32_at(map, 4)) {
        (0, new) => kind((new & 0xf_ff00) >> 8, (new & 0xff) | (new >> 12 & 0xf_ff00)),
        (old, _) => kind(old >> 8 & 0xff, old & 0xff),
    }
}

/// Adds the names of one block of a folder. Blocks of an index look like one that has none.
fn names_in(block: &[u8], names: &mut Vec<(Vec<u8>, u32)>) -> Result<(), Fault> {
    let mut at = 0;
    while at + 8 <= block.len() {
        let (inode, len, name) =
            (u32_at(block, at), usize::from(u16_at(block, at + 4)), usize::from(block[at + 6]));
        if len < 8 || len % 4 != 0 || at + len > block.len() {
            return damaged("a folder's entry is longer or shorter than it can be");
        }
        if inode != 0 {
            let name = match block.get(at + 8..at + 8 + name) {
                Some(name) if 8 + name.len() <= len => name,
                _ => return damaged("a folder's entry is shorter than its name"),
            };
            if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
                return damaged("a folder has a name that is none");
            }
            if name != b"." && name != b".." {
                names.push((name.to_vec(), inode));
            }
        }
        at += len;
    }
    Ok(())
}
