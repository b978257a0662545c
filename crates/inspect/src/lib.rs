//! Looks into a disk that somebody made: its partitions, its files, and where each of them lies.
//!
//! *What comes in:* any [`BlockSource`]: a raw image, a VMDK, a snapshot. *What goes out:* [`Partition`]s, and for each that holds
//! ext4 or FAT a [`FileSystem`]: every name, every inode with its metadata, attributes and the runs of the disk that hold its bytes.
//! Contents are not read. *What it may not know:* who made the disk, packages, recipes; nothing is ever written.
//!
//! The disk may be a stranger's. Memory and time stay in proportion to the data that it has: a block of a file's map is looked
//! at once, a folder has one name, all files together have no more blocks than the file system, and names that would take
//! much more room than the folders that hold them are refused. What cannot be read is told in a [`Fault`] and is no reason
//! to believe any part of it.

mod cached;
mod ext4;
mod fat;
mod names;
mod table;
mod xattr;

use std::collections::BTreeMap;
use std::sync::Arc;

use block::{BlockSource, Digest, ReadError};
use tree::{Timestamp, TreePath};

/// A part of a disk that holds something of its own: a partition, or all of a disk without a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the table; 0 for a disk without one.
    pub number: u32,
    /// Its name in the table, as it stands there; empty for a disk without one.
    pub name: String,
    /// Its first byte on the disk.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
    /// What is in it.
    pub content: PartitionContent,
}

/// What a partition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionContent {
    /// An ext4 or FAT file system.
    Files(FileSystem),
    /// Something that is not read, or cannot be: what it is, or what is wrong with it.
    Unread(String),
}

/// Every file of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Whether all changes are in their places; else some are in the journal only, and not seen here.
    pub clean: bool,
    /// Every name, each folder right before what it holds, with the number of its inode. The root is the empty path.
    pub names: Vec<(TreePath, u32)>,
    /// What the numbers stand for.
    pub inodes: BTreeMap<u32, Inode>,
}

/// A file, folder, link or device, whatever its names are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// The lower 12 bits of `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file's content or of a link's target; of a folder what its names take.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// How many names it has, as it says itself.
    pub links: u16,
    /// Extended attributes that are kept with it.
    pub xattrs: Xattrs,
    /// Those that are kept in a block that files share.
    pub shared_xattrs: Arc<Xattrs>,
    /// Where its bytes are; what is in no run is zero. Empty for what has none of its own: devices, links whose target is in their inode.
    pub runs: Vec<Run>,
}

impl Inode {
    /// All extended attributes, by full name.
    pub fn attributes(&self) -> BTreeMap<&[u8], Digest> {
        self.shared_xattrs.iter().chain(&self.xattrs).map(|(name, value)| (name.as_slice(), *value)).collect()
    }
}

/// Extended attributes by full name, with the SHA-256 of the value as the file system stores it.
pub type Xattrs = BTreeMap<Vec<u8>, Digest>;

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link and the bytes it holds.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Bytes of a file that lie side by side on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where in the file the first of them is; whole blocks of the file system.
    pub at: u64,
    /// Where on the disk it is.
    pub place: u64,
    /// How many there are; the last run may reach past the file's end.
    pub len: u64,
}

/// Why a disk, or a file system on it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The disk's bytes cannot be had.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It contradicts itself.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It has something that this reader does not know.
    #[error("{0}")]
    Unknown(String),
}

/// The partitions of a disk, by number, and their files. A disk without a table is one partition. Errors are those of
/// reading; what a partition holds and cannot be understood is told in its content.
pub fn partitions(source: &dyn BlockSource) -> Result<Vec<Partition>, ReadError> {
    let Some(entries) = table::entries(source)? else {
        let content = content(source, 0, source.len())?;
        return Ok(vec![Partition { number: 0, name: String::new(), offset: 0, len: source.len(), content }]);
    };
    let mut partitions = Vec::with_capacity(entries.len());
    for table::Entry { number, name, offset, len } in entries {
        let content = content(source, offset, len)?;
        partitions.push(Partition { number, name, offset, len, content });
    }
    Ok(partitions)
}

fn content(source: &dyn BlockSource, offset: u64, len: u64) -> Result<PartitionContent, ReadError> {
    let mut head = vec![0; len.min(4096) as usize];
    read_at(source, offset, &mut head)?;
    let (kind, files) = if ext4::is_ext(&head) {
        ("ext4", ext4::read(source, offset, len))
    } else if fat::is_fat(&head) {
        ("FAT", fat::read(source, offset, len))
    } else {
        return Ok(PartitionContent::Unread(table::guess(&head).to_owned()));
    };
    match files {
        Ok(files) => Ok(PartitionContent::Files(files)),
        Err(Fault::Read(error)) => Err(error),
        Err(fault) => Ok(PartitionContent::Unread(format!("{kind}: {fault}"))),
    }
}

/// The bytes of a file of `files`, at most `most` of them; `None` when there is no such file or it has more. Its runs must be those of
/// `source`.
pub fn read_file(
    source: &dyn BlockSource,
    files: &FileSystem,
    path: &TreePath,
    most: u64,
) -> Result<Option<Vec<u8>>, ReadError> {
    let found = files.names.binary_search_by(|(name, _)| name.cmp(path)).ok();
    let inode = found.and_then(|at| files.inodes.get(&files.names[at].1));
    let Some(inode) = inode.filter(|inode| inode.kind == Kind::File && inode.size <= most) else {
        return Ok(None);
    };
    let mut bytes = vec![0; inode.size as usize];
    for run in &inode.runs {
        if run.at < inode.size {
            let end = inode.size.min(run.at + run.len);
            read_at(source, run.place, &mut bytes[run.at as usize..end as usize])?;
        }
    }
    Ok(Some(bytes))
}

fn read_at(source: &dyn BlockSource, from: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
    let to = from + buffer.len() as u64;
    source.read_at(from, buffer).map_err(|source| ReadError { from, to, source })
}

/// Little-endian numbers; zero where the bytes end.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
