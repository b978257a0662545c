//! Writes a [`Tree`](tree::Tree) as an ext4 file system.
//!
//! *What comes in:* a tree, [`Options`], and a [`Placement`] that decides where things lie. *What goes out:* a
//! [`BlockMap`](block::BlockMap) in which every file is a reference to its [`Content`](block::Content), unread, and
//! every structure is bytes with a name ([`Origin::Structure`](block::Origin)); zeros are not in it. *What it may not
//! know:* a clock, a random number, a path of this machine, the bytes of a file. The same tree and options give the
//! same map.
//!
//! The file system has what `mke2fs -t ext4` gives it, always with blocks of 4 KiB and inodes of 256 bytes: journal,
//! extents, indexed folders, checksums of all metadata, 64-bit block numbers, bitmaps and tables of 16 groups together
//! (so metadata stays away from data), and descriptor blocks reserved for online growth. Copies of the superblock and the
//! descriptors stay as they were before there were files, as mke2fs leaves them. Inode tables and bitmaps
//! that are not in use are zeros and marked so that no kernel needs to write them.
//!
//! How the parts follow from each other: `geometry` places the fixed structures; `catalogue` turns entries into inodes
//! and folders into blocks, whose sizes do not depend on any place; the [`Placement`] gives places; `volume` then
//! writes inodes, folders, bitmaps, descriptors and superblocks, each with its checksum.

mod bytes;
mod catalogue;
mod checksum;
mod directory;
mod extents;
mod geometry;
mod inode;
mod name_hash;
mod parent_placement;
mod path_placement;
mod placement;
mod space;
mod superblock;
mod volume;
mod xattr;

use block::{Hasher, MIB, MapError};
use tree::{TreeError, TreePath};

pub use parent_placement::{ParentPlacement, ParentPlaces};
pub use path_placement::PathPlacement;
pub use placement::{Kind, Named, NoRoom, Object, Placement, SimplePlacement};
pub use space::{Run, Space};
pub use volume::{minimum_size, write};

/// Bytes in a block of the file system.
pub const FS_BLOCK: u64 = 4096;

/// What a file system is to be, besides its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of the volume: whole blocks of 4 KiB, 8 MiB to 16 TiB.
    pub size: u64,
    /// The file system's UUID, in the order in which it is written. Metadata checksums follow from it.
    pub uuid: [u8; 16],
    /// The volume's label, at most 16 bytes.
    pub label: String,
    /// What the hashes of names in large folders begin with.
    pub hash_seed: [u8; 16],
    /// Seconds since 1970 for the superblock, the journal and `lost+found`; from 0 up to 2^40. A file system check on
    /// a machine whose clock is behind it will say so.
    pub time: i64,
    /// Where it is meant to be mounted, at most 63 bytes; may be empty.
    pub last_mounted: String,
    /// Bytes up to which the file system can grow while mounted, by descriptor blocks reserved now (at most 8 TiB's
    /// worth; beyond that the kernel grows it more slowly). `None`: as mke2fs, about a thousandfold.
    pub grow_to: Option<u64>,
    /// Percent of the blocks that only root may use, 0 to 50.
    pub reserved_percent: u8,
    /// Make a `lost+found` folder where the tree has none.
    pub lost_and_found: bool,
}

impl Options {
    /// A volume of `size` bytes with mke2fs's choices, without a label, made in 1970.
    pub fn new(size: u64, uuid: [u8; 16]) -> Self {
        let mut hasher = Hasher::new();
        hasher.field(b"ext4 hash seed");
        hasher.field(&uuid);
        let mut hash_seed = [0; 16];
        hash_seed.copy_from_slice(&hasher.finish().0[..16]);
        Self {
            size,
            uuid,
            label: String::new(),
            hash_seed,
            time: 0,
            last_mounted: String::new(),
            grow_to: None,
            reserved_percent: 5,
            lost_and_found: true,
        }
    }
}

/// Why there is no file system.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree is broken.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The volume is smaller or larger than this writer makes them, or not whole blocks.
    #[error(
        "an ext4 volume of {size} bytes cannot be made: give 8 MiB to 16 TiB, in whole blocks of 4096 bytes"
    )]
    Size {
        /// Bytes asked for.
        size: u64,
    },
    /// The files do not fit.
    #[error("the files need an ext4 volume of at least {} MiB, but the volume has {} MiB", .needed.div_ceil(MIB), .size / MIB)]
    NoSpace {
        /// Bytes of the smallest volume that takes them.
        needed: u64,
        /// Bytes of the volume.
        size: u64,
    },
    /// More files than the volume can have inodes.
    #[error("the tree needs {needed} inodes, but an ext4 volume of {} MiB has at most {most} inodes", .size / MIB)]
    TooManyInodes {
        /// Inodes needed.
        needed: u64,
        /// Inodes possible.
        most: u64,
        /// Bytes of the volume.
        size: u64,
    },
    /// An option has a value that a superblock cannot hold.
    #[error("the option `{option}` is `{value}`: {rule}")]
    Option {
        /// The field of [`Options`].
        option: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
    /// A symbolic link's target is empty, too long, or has a NUL byte in it.
    #[error(
        "the symbolic link `/{path}` has a target of {len} bytes: ext4 takes 1 to 4095, none of them NUL"
    )]
    Symlink {
        /// The link.
        path: TreePath,
        /// Length of its target.
        len: usize,
    },
    /// Extended attributes that do not fit.
    #[error(
        "the extended attributes of `/{path}` need {needed} bytes beside its inode, but one block takes {room}: shorten or drop some"
    )]
    XattrsTooLarge {
        /// The entry.
        path: TreePath,
        /// Bytes needed.
        needed: usize,
        /// Bytes that there are.
        room: usize,
    },
    /// An attribute that ext4 has no place for.
    #[error(
        "`/{path}` has the extended attribute `{name}`: ext4 takes names that begin with `user.`, `trusted.` or `security.` and 1 to 255 bytes more, and the two of POSIX access lists"
    )]
    XattrName {
        /// The entry.
        path: TreePath,
        /// The attribute.
        name: String,
    },
    /// An access list that is none.
    #[error("`/{path}`: the value of `{name}` is not an access list of version 2, as getxattr gives it")]
    AccessList {
        /// The entry.
        path: TreePath,
        /// The attribute.
        name: String,
    },
    /// Device numbers that Linux does not have.
    #[error(
        "the device `/{path}` has the numbers {major}:{minor}: Linux takes majors below 4096 and minors below 1048576"
    )]
    Device {
        /// The device.
        path: TreePath,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A file with more names than ext4 counts.
    #[error("`/{path}` has {links} names: ext4 takes 65000 hard links to a file")]
    TooManyLinks {
        /// The file.
        path: TreePath,
        /// Its names.
        links: u64,
    },
    /// A folder with more names than its index takes.
    #[error("the folder `/{path}` has {names} names, more than a folder's index takes: divide it")]
    FolderTooLarge {
        /// The folder.
        path: TreePath,
        /// Its names.
        names: usize,
    },
    /// A file larger than ext4 files can be.
    #[error("the file `/{path}` has {len} bytes: ext4 takes files of less than 16 TiB")]
    FileTooLarge {
        /// The file.
        path: TreePath,
        /// Its length.
        len: u64,
    },
    /// `/lost+found` is there, but is not a folder.
    #[error(
        "`/lost+found` is not a folder: file system checks need the name; remove it or switch `lost_and_found` off"
    )]
    LostAndFound,
    /// A placement gave an impossible answer: a mistake in it, not in the tree.
    #[error("the placement of {what} is impossible: {problem}")]
    Placement {
        /// What was placed.
        what: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The map of the volume contradicts itself.
    #[error(transparent)]
    Map(#[from] MapError),
}
