//! The small vocabulary that every room of the house shares when it speaks of disks.
//!
//! *What comes in:* bytes, or a promise to read bytes ([`ReadAt`]). *What goes out:* values: a [`Digest`], a
//! [`Content`] (immutable bytes with a known hash), an [`Extent`] (a run of such bytes at a place on a disk) and a
//! [`BlockMap`] (a whole disk as sorted extents; what lies between them is zero). *What it may not do:* any I/O of
//! its own, or know what a file system, a partition or a package is.
//!
//! The geometry is that of the EBS direct API: a disk is cut into blocks of [`BLOCK_SIZE`] bytes. A block's id is the
//! SHA-256 of its bytes, padded with zeros ([`block_id`]); a block of zeros has none. [`hash_blocks`] finds them on all
//! cores, [`snapshot_digest`] makes of them the one digest of a volume's content, and a [`SnapshotId`] names a kept one.
//!
//! Three words are not about disks: [`without_escapes`], through which all goes that strangers say and people are shown, with
//! [`is_obeyed`] for one character, and [`shell_word`]. An [`Origin`] names packages and parts of recipes; the names mean nothing here.

mod blocks;
mod content;
mod digest;
mod ids;
mod lanes;
mod map;
mod plain;

pub use blocks::{
    Block, ReadError, block_id, block_ids, block_ids_of, cut_at_blocks, hash_blocks, snapshot_digest,
};
pub use content::{Content, ReadAt};
pub use digest::{Digest, Hasher};
#[doc(hidden)]
pub use ids::id_digits;
pub use ids::{BadId, SnapshotId, derived_uuid, format_uuid};
pub use map::{BlockMap, BlockMapBuilder, BlockSource, Extent, MapError, Origin};
pub use plain::{is_obeyed, shell_word, without_escapes};
#[doc(hidden)]
pub use serde;

/// Bytes in one block of a volume: 512 KiB, the block of the EBS direct API.
pub const BLOCK_SIZE: u64 = 512 * 1024;

/// Bytes in one KiB.
pub const KIB: u64 = 1024;
/// Bytes in one MiB.
pub const MIB: u64 = 1024 * KIB;
/// Bytes in one GiB.
pub const GIB: u64 = 1024 * MIB;
