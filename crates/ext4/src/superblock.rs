//! Superblock, group descriptors, and the journal's own superblock.
//!
//! The superblock (1024 bytes, at byte 1024 of the volume; copies at the start of their groups):
//!
//! ```text
//!   0 inodes u32        4 blocks, low u32   8 reserved, low u32 12 free blocks, low u32  16 free inodes u32
//!  20 first block u32  24 log block size   28 log cluster size  32 blocks in group u32   36 clusters in group u32
//!  40 inodes in group  44 mount time       48 write time u32    52 mounts u16            54 most mounts u16
//!  56 magic ef53 u16   58 state u16        60 on errors u16     62 minor revision u16    64 check time u32
//!  68 check interval   72 OS u32           76 revision u32      80 reserved for uid u16  82 for gid u16
//!  84 first inode u32  88 inode size u16   90 own group u16     92 compat features u32   96 incompat features u32
//! 100 ro features u32 104 uuid            120 label (16)       136 last mounted on (64) 200 (unused)
//! 206 reserved descriptor blocks u16      224 journal inode u32                         236 hash seed (16)
//! 252 hash version u8 253 journal backup u8                    254 descriptor size u16  256 mount options u32
//! 264 mkfs time u32   268 journal inode's map, size high, size low (17 u32)              336 blocks, high u32
//! 340 reserved, high  344 free, high u32  348 least extra u16  350 wanted extra u16     352 flags u32
//! 372 log flex u8     373 checksum type u8                     584 overhead u32         628 write time, high u8
//! 630 mkfs time, high u8                  631 check time, high u8                      1020 checksum u32
//! ```
//!
//! A group descriptor (64 bytes):
//!
//! ```text
//!  0 block bitmap, low u32  4 inode bitmap, low u32  8 inode table, low u32  12 free blocks u16  14 free inodes u16
//! 16 folders u16  18 flags u16  24 block bitmap checksum u16  26 inode bitmap checksum u16
//! 28 unused inodes u16  30 checksum u16; from 32 on the high halves: 32, 36, 40 places u32
//! 44 free blocks u16  46 free inodes u16  48 folders u16  50 unused inodes u16  56, 58 checksums u16
//! ```

use crate::bytes::{high16, high32, low16, low32, put16, put32, put32_be};
use crate::checksum::{START, crc32c};
use crate::directory::HASH_VERSION;
use crate::extents::ROOT_SIZE;
use crate::geometry::{DESCRIPTOR_SIZE, GROUP_BLOCKS, Geometry, INODE_SIZE, LOG_FLEX_GROUPS};
use crate::inode::{EXTRA_SIZE, FIRST_INODE, JOURNAL_INODE};
use crate::{FS_BLOCK, Options};

/// Bytes of the superblock.
pub(crate) const SUPERBLOCK_SIZE: usize = 1024;
/// Where the first superblock begins, in bytes.
pub(crate) const SUPERBLOCK_AT: u64 = 1024;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_EXT_ATTR: u32 = 0x8;
const COMPAT_RESIZE_INODE: u32 = 0x10;
const COMPAT_DIR_INDEX: u32 = 0x20;
const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_FLEX_BG: u32 = 0x200;
const RO_SPARSE_SUPER: u32 = 0x1;
const RO_LARGE_FILE: u32 = 0x2;
const RO_HUGE_FILE: u32 = 0x8;
const RO_DIR_NLINK: u32 = 0x20;
const RO_EXTRA_ISIZE: u32 = 0x40;
const RO_METADATA_CSUM: u32 = 0x400;

/// Numbers of the superblock that are known at the end.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    pub(crate) free_blocks: u64,
    pub(crate) free_inodes: u32,
    pub(crate) journal_map: [u8; ROOT_SIZE],
}

/// The superblock as it stands at the start of `group`.
pub(crate) fn superblock(
    options: &Options,
    geometry: &Geometry,
    totals: &Totals,
    group: u32,
) -> [u8; SUPERBLOCK_SIZE] {
    let mut raw = [0; SUPERBLOCK_SIZE];
    let reserved = geometry.blocks * u64::from(options.reserved_percent) / 100;
    let time = options.time as u64;
    let mut compat = COMPAT_HAS_JOURNAL | COMPAT_EXT_ATTR | COMPAT_DIR_INDEX;
    if geometry.can_resize() {
        compat |= COMPAT_RESIZE_INODE;
    }
    put32(&mut raw, 0, geometry.inodes());
    put32(&mut raw, 4, low32(geometry.blocks));
    put32(&mut raw, 8, low32(reserved));
    put32(&mut raw, 12, low32(totals.free_blocks));
    put32(&mut raw, 16, totals.free_inodes);
    put32(&mut raw, 24, FS_BLOCK.ilog2() - 10);
    put32(&mut raw, 28, FS_BLOCK.ilog2() - 10);
    put32(&mut raw, 32, GROUP_BLOCKS as u32);
    put32(&mut raw, 36, GROUP_BLOCKS as u32);
    put32(&mut raw, 40, geometry.group_inodes);
    put16(&mut raw, 54, !0);
    put16(&mut raw, 56, 0xef53);
    put16(&mut raw, 58, 1);
    put16(&mut raw, 60, 1);
    for (low, high) in [(48, 628), (264, 630), (64, 631)] {
        put32(&mut raw, low, low32(time));
        raw[high] = (time >> 32) as u8;
    }
    put32(&mut raw, 76, 1);
    put32(&mut raw, 84, FIRST_INODE);
    put16(&mut raw, 88, INODE_SIZE as u16);
    put16(&mut raw, 90, group.min(0xffff) as u16);
    put32(&mut raw, 92, compat);
    put32(&mut raw, 96, INCOMPAT_FILETYPE | INCOMPAT_EXTENTS | INCOMPAT_64BIT | INCOMPAT_FLEX_BG);
    put32(
        &mut raw,
        100,
        RO_SPARSE_SUPER | RO_LARGE_FILE | RO_HUGE_FILE | RO_DIR_NLINK | RO_EXTRA_ISIZE | RO_METADATA_CSUM,
    );
    raw[104..120].copy_from_slice(&options.uuid);
    raw[120..][..options.label.len()].copy_from_slice(options.label.as_bytes());
    raw[136..][..options.last_mounted.len()].copy_from_slice(options.last_mounted.as_bytes());
    put16(&mut raw, 206, geometry.reserved_descriptor_blocks as u16);
    put32(&mut raw, 224, JOURNAL_INODE);
    raw[236..252].copy_from_slice(&options.hash_seed);
    raw[252] = HASH_VERSION;
    raw[253] = 1;
    put16(&mut raw, 254, DESCRIPTOR_SIZE as u16);
    // Mounted with user attributes and access lists.
    put32(&mut raw, 256, 0xc);
    let journal_size = geometry.journal_blocks * FS_BLOCK;
    raw[268..328].copy_from_slice(&totals.journal_map);
    put32(&mut raw, 328, high32(journal_size));
    put32(&mut raw, 332, low32(journal_size));
    put32(&mut raw, 336, high32(geometry.blocks));
    put32(&mut raw, 340, high32(reserved));
    put32(&mut raw, 344, high32(totals.free_blocks));
    put16(&mut raw, 348, EXTRA_SIZE);
    put16(&mut raw, 350, EXTRA_SIZE);
    // Names hash over signed characters.
    put32(&mut raw, 352, 1);
    raw[372] = LOG_FLEX_GROUPS;
    // CRC-32C.
    raw[373] = 1;
    put32(&mut raw, 584, low32(geometry.overhead()));
    let sum = crc32c(START, &raw[..SUPERBLOCK_SIZE - 4]);
    put32(&mut raw, SUPERBLOCK_SIZE - 4, sum);
    raw
}

/// The group's inode bitmap and table were never written: no inode is in use.
pub(crate) const GROUP_INODE_UNINIT: u16 = 1;
/// The group's block bitmap was never written: nothing but a superblock copy is in use.
pub(crate) const GROUP_BLOCK_UNINIT: u16 = 2;
/// What is unused of the group's inode table is zero.
pub(crate) const GROUP_TABLE_ZEROED: u16 = 4;

/// What a group descriptor says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Descriptor {
    pub(crate) block_bitmap: u64,
    pub(crate) inode_bitmap: u64,
    pub(crate) inode_table: u64,
    pub(crate) free_blocks: u32,
    pub(crate) free_inodes: u32,
    pub(crate) directories: u32,
    pub(crate) unused_inodes: u32,
    pub(crate) flags: u16,
    pub(crate) block_bitmap_checksum: u32,
    pub(crate) inode_bitmap_checksum: u32,
}

impl Descriptor {
    /// The descriptor's bytes with their checksum.
    pub(crate) fn encode(&self, group: u32, volume_seed: u32) -> [u8; DESCRIPTOR_SIZE] {
        let mut raw = [0; DESCRIPTOR_SIZE];
        for (at, place) in [(0, self.block_bitmap), (4, self.inode_bitmap), (8, self.inode_table)] {
            put32(&mut raw, at, low32(place));
            put32(&mut raw, 32 + at, high32(place));
        }
        for (low, high, value) in [
            (12, 44, self.free_blocks),
            (14, 46, self.free_inodes),
            (16, 48, self.directories),
            (24, 56, self.block_bitmap_checksum),
            (26, 58, self.inode_bitmap_checksum),
            (28, 50, self.unused_inodes),
        ] {
            put16(&mut raw, low, low16(value));
            put16(&mut raw, high, high16(value));
        }
        put16(&mut raw, 18, self.flags);
        let sum = crc32c(crc32c(volume_seed, &group.to_le_bytes()), &raw);
        put16(&mut raw, 30, low16(sum));
        raw
    }
}

/// The first block of the journal, big-endian: an empty journal of version 2, whose features the kernel will choose.
///
/// ```text
///  0 magic c03b3998 u32  4 kind (4) u32   12 block size u32  16 blocks u32  20 first block u32  24 next sequence u32
/// 28 start (0: empty) u32  48 uuid (16)  64 users u32
/// ```
pub(crate) fn journal_superblock(options: &Options, geometry: &Geometry) -> Vec<u8> {
    let mut raw = vec![0; FS_BLOCK as usize];
    put32_be(&mut raw, 0, 0xc03b_3998);
    put32_be(&mut raw, 4, 4);
    put32_be(&mut raw, 12, FS_BLOCK as u32);
    put32_be(&mut raw, 16, geometry.journal_blocks as u32);
    put32_be(&mut raw, 20, 1);
    put32_be(&mut raw, 24, 1);
    raw[48..64].copy_from_slice(&options.uuid);
    put32_be(&mut raw, 64, 1);
    raw
}
