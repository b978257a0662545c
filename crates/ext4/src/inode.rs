//! Inodes of 256 bytes.
//!
//! ```text
//!   0 mode u16        2 uid, low u16     4 size, low u32      8 atime u32      12 ctime u32     16 mtime u32
//!  20 dtime u32      24 gid, low u16    26 links u16         28 sectors, low u32                32 flags u32
//!  36 version u32    40 block map: extent root, fast symlink, device or block numbers (60 bytes)
//! 100 generation u32 104 xattr block, low u32               108 size, high u32                 112 unused u32
//! 116 sectors, high u16 118 xattr block, high u16 120 uid, high u16 122 gid, high u16
//! 124 checksum, low u16 126 unused u16 128 size of what follows 128 u16 130 checksum, high u16
//! 132 ctime extra u32  136 mtime extra u32  140 atime extra u32  144 crtime u32  148 crtime extra u32
//! 152 version, high u32 156 project u32  160 extended attributes (96 bytes)
//! ```

use tree::Timestamp;

use crate::bytes::{high16, high32, low16, low32, put16, put32};
use crate::checksum::crc32c;
use crate::extents::ROOT_SIZE;
use crate::geometry::INODE_SIZE;
use crate::xattr::INLINE_SIZE;

/// The inode that lists the reserved descriptor blocks.
pub(crate) const RESIZE_INODE: u32 = 7;
/// The root folder's inode.
pub(crate) const ROOT_INODE: u32 = 2;
/// The journal's inode.
pub(crate) const JOURNAL_INODE: u32 = 8;
/// The first inode without a fixed use; `lost+found` when there is one.
pub(crate) const FIRST_INODE: u32 = 11;

/// Bytes after the first 128 that have a fixed meaning.
pub(crate) const EXTRA_SIZE: u16 = 32;
const XATTRS: usize = 128 + EXTRA_SIZE as usize;

const _: () = assert!(XATTRS + INLINE_SIZE == INODE_SIZE && 40 + ROOT_SIZE == 100);

pub(crate) const TYPE_FIFO: u16 = 0o010_000;
pub(crate) const TYPE_CHAR_DEVICE: u16 = 0o020_000;
pub(crate) const TYPE_DIRECTORY: u16 = 0o040_000;
pub(crate) const TYPE_BLOCK_DEVICE: u16 = 0o060_000;
pub(crate) const TYPE_FILE: u16 = 0o100_000;
pub(crate) const TYPE_SYMLINK: u16 = 0o120_000;
pub(crate) const TYPE_SOCKET: u16 = 0o140_000;

/// The folder has an index.
pub(crate) const FLAG_INDEX: u32 = 0x1000;
/// The block map is an extent tree.
pub(crate) const FLAG_EXTENTS: u32 = 0x8_0000;

/// What an inode says.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    /// Type and permissions.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) links: u16,
    /// All four times.
    pub(crate) time: Timestamp,
    /// Blocks of data, of extent tree and of attributes, in the unit of 4 KiB.
    pub(crate) blocks: u64,
    pub(crate) flags: u32,
    pub(crate) map: [u8; ROOT_SIZE],
    pub(crate) xattr_block: u64,
    pub(crate) xattrs: Option<Box<[u8; INLINE_SIZE]>>,
}

impl Inode {
    /// The inode's bytes with their checksum, which begins with [`inode_seed`].
    pub(crate) fn encode(&self, inode_seed: u32) -> [u8; INODE_SIZE] {
        let mut raw = [0; INODE_SIZE];
        let (seconds, extra) = disk_time(self.time);
        let sectors = self.blocks * (crate::FS_BLOCK / 512);
        put16(&mut raw, 0, self.mode);
        put16(&mut raw, 2, low16(self.uid));
        put32(&mut raw, 4, low32(self.size));
        for at in [8, 12, 16, 144] {
            put32(&mut raw, at, seconds);
        }
        put16(&mut raw, 24, low16(self.gid));
        put16(&mut raw, 26, self.links);
        put32(&mut raw, 28, low32(sectors));
        put32(&mut raw, 32, self.flags);
        raw[40..100].copy_from_slice(&self.map);
        put32(&mut raw, 104, low32(self.xattr_block));
        put32(&mut raw, 108, high32(self.size));
        put16(&mut raw, 116, low16(high32(sectors)));
        put16(&mut raw, 118, low16(high32(self.xattr_block)));
        put16(&mut raw, 120, high16(self.uid));
        put16(&mut raw, 122, high16(self.gid));
        put16(&mut raw, 128, EXTRA_SIZE);
        for at in [132, 136, 140, 148] {
            put32(&mut raw, at, extra);
        }
        if let Some(xattrs) = &self.xattrs {
            raw[XATTRS..].copy_from_slice(&xattrs[..]);
        }
        let sum = crc32c(inode_seed, &raw);
        put16(&mut raw, 124, low16(sum));
        put16(&mut raw, 130, high16(sum));
        raw
    }
}

/// What the checksums of an inode, of its folder blocks and of its extent nodes begin with. Every inode has
/// generation 0.
pub(crate) fn inode_seed(volume_seed: u32, number: u32) -> u32 {
    crc32c(crc32c(volume_seed, &number.to_le_bytes()), &0u32.to_le_bytes())
}

/// A time as its 32 low bits of seconds and the field with two more bits of seconds and the nanoseconds. Times that
/// ext4 cannot tell (before December 1901, after May 2446) become the nearest that it can.
fn disk_time(time: Timestamp) -> (u32, u32) {
    const FIRST: i64 = i32::MIN as i64;
    const LAST: i64 = FIRST + (1 << 34) - 1;
    let seconds = time.seconds.clamp(FIRST, LAST);
    let nanoseconds = if seconds == time.seconds { time.nanoseconds.min(999_999_999) } else { 0 };
    let low = seconds as u32;
    let epoch = ((seconds - i64::from(low as i32)) >> 32) as u32;
    (low, epoch | nanoseconds << 2)
}

/// A device's numbers as they stand in the block map; `None` when Linux has no such device numbers.
pub(crate) fn device_map(major: u32, minor: u32) -> Option<[u8; ROOT_SIZE]> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return None;
    }
    let mut map = [0; ROOT_SIZE];
    if major < 256 && minor < 256 {
        put32(&mut map, 0, major << 8 | minor);
    } else {
        put32(&mut map, 4, minor & 0xff | major << 8 | (minor & !0xff) << 12);
    }
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_34_bits_of_seconds() {
        let at = |seconds, nanoseconds| disk_time(Timestamp { seconds, nanoseconds });
        assert_eq!(at(0, 7), (0, 7 << 2));
        assert_eq!(at(-1, 999_999_999), (0xffff_ffff, 999_999_999 << 2));
        assert_eq!(at(0x7fff_ffff, 0), (0x7fff_ffff, 0));
        assert_eq!(at(0x8000_0000, 0), (0x8000_0000, 1));
        assert_eq!(at(0x3_7fff_ffff, 1), (0x7fff_ffff, 3 | 1 << 2));
        assert_eq!(at(0x3_8000_0000, 1), (0x7fff_ffff, 3), "past 2446");
        assert_eq!(at(-0x8000_0001, 1), (0x8000_0000, 0), "before 1901");
    }

    #[test]
    fn small_device_numbers_have_the_old_form() {
        let words = |major, minor| {
            let map = device_map(major, minor)?;
            Some((u32::from_le_bytes(*map.first_chunk()?), u32::from_le_bytes(*map[4..].first_chunk()?)))
        };
        assert_eq!(words(5, 1), Some((0x0501, 0)));
        assert_eq!(words(259, 1), Some((0, 0x1_0301)));
        assert_eq!(words(8, 0x12345), Some((0, 0x1230_0845)));
        assert_eq!(words(4096, 0), None);
        assert_eq!(words(0, 1 << 20), None);
    }
}
