//! Disks with partitions: a protective MBR, a GPT, a BIOS boot partition, an EFI system partition, a root partition.
//!
//! *What comes in:* a [`Plan`]: the disk's size and UUID and its partitions, each with its content as a
//! [`block::BlockMap`]; for BIOS boot GRUB's two images ([`BiosBoot`]); for the EFI system partition a
//! [`tree::Tree`] ([`fat::write`]). *What goes out:* one [`block::BlockMap`] a volume. *What it may not know:* the
//! store, packages, and what the root partition's file system looks like inside.
//!
//! The usual disk, as a table of places (sectors of 512 bytes, everything aligned to 1 MiB):
//!
//! ```text
//!        0        protective MBR, with GRUB's boot.img in its code area
//!        1 ..  33 primary GPT: header, 128 entries
//!      1 MiB      number 14, BIOS boot: GRUB's core.img                          BIOS_BOOT_SIZE
//!      2 MiB      number 15, EFI system: FAT16                                   EFI_SYSTEM_SIZE
//!     66 MiB      number  1, root: to the disk's last whole MiB but one, so that it can grow
//!    end - 33     backup GPT: 128 entries, header
//! ```
//!
//! The root file system is number 1 (`/dev/xvda1`, `growpart /dev/xvda 1`) and yet the last on the disk: the numbers
//! are those of Debian's cloud images. Without a BIOS boot partition (aarch64) the others move up by its size.

mod bios;
mod ends;
pub mod fat;
mod layout;
mod table;
#[cfg(test)]
mod test_tools;

pub use bios::{BiosBoot, CORE_IMG_MAX};
pub use layout::{ALIGNMENT, layout};
pub use table::{Partition, PartitionKind, Plan, gpt};

/// Bytes in a sector, the unit of partition tables.
pub const SECTOR: u64 = 512;
/// The usual size of the BIOS boot partition; GRUB's core.img for ext4 takes about 124 KB of it.
pub const BIOS_BOOT_SIZE: u64 = block::MIB;
/// The usual size of the EFI system partition: room for shim and GRUB, twice, while an upgrade replaces them.
pub const EFI_SYSTEM_SIZE: u64 = 64 * block::MIB;
/// The root partition's number.
pub const ROOT_NUMBER: u32 = 1;
/// The BIOS boot partition's number.
pub const BIOS_BOOT_NUMBER: u32 = 14;
/// The EFI system partition's number.
pub const EFI_SYSTEM_NUMBER: u32 = 15;

/// Why a disk cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk does not end on a sector boundary.
    #[error("a disk of {size} bytes is not a whole number of 512-byte sectors: choose a size in MiB or GiB")]
    NotWholeSectors {
        /// The disk's size in bytes.
        size: u64,
    },
    /// The partitions and their tables need more than the disk has.
    #[error(
        "the partitions need a disk of at least {needed} bytes, this one has {size}: make the volume larger"
    )]
    TooSmall {
        /// The smallest size in bytes that would do.
        needed: u64,
        /// The disk's size in bytes.
        size: u64,
    },
    /// A partition without a size is followed by another.
    #[error("only the disk's last partition can take the rest of the disk, not entry {index} of {count}")]
    RestNotLast {
        /// The partition's place in the list, from 0.
        index: usize,
        /// How many partitions there are.
        count: usize,
    },
    /// A partition of no bytes.
    #[error("partition {index} of the disk has the size 0")]
    EmptyPartition {
        /// The partition's place in the list, from 0.
        index: usize,
    },
    /// A partition number that the table has no entry for, or that two partitions claim.
    #[error("partition number {number} ({name}) is outside 1 to 128 or used twice")]
    BadNumber {
        /// The number.
        number: u32,
        /// The partition's name.
        name: String,
    },
    /// Two partitions, or a partition and the disk, have one UUID.
    #[error("partition {number} ({name}) has the UUID {uuid}, which is nil or used elsewhere on the disk")]
    BadUuid {
        /// The partition's number.
        number: u32,
        /// The partition's name.
        name: String,
        /// Its UUID as it is written.
        uuid: String,
    },
    /// A name that does not fit the table.
    #[error("the partition name `{name}` has {units} UTF-16 units; the table holds 36, none of them NUL")]
    BadName {
        /// The name.
        name: String,
        /// Its length.
        units: usize,
    },
    /// A file system larger than its partition.
    #[error("partition {number} ({name}) has {size} bytes, its content {content}: make the volume larger")]
    ContentTooLarge {
        /// The partition's number.
        number: u32,
        /// The partition's name.
        name: String,
        /// The partition's size in bytes.
        size: u64,
        /// The content's length in bytes.
        content: u64,
    },
    /// BIOS boot without exactly one empty BIOS boot partition.
    #[error(
        "to boot by BIOS the disk needs one empty BIOS boot partition; it has {count}, {filled} of them filled"
    )]
    NoBiosBootPartition {
        /// How many BIOS boot partitions there are.
        count: usize,
        /// How many of them already have content.
        filled: usize,
    },
    /// Bytes that are not GRUB's boot.img.
    #[error("boot.img is not GRUB's ({reason}): use i386-pc/boot.img as the distribution ships it")]
    BadBootImg {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Bytes that are not GRUB's core.img.
    #[error("core.img is not GRUB's ({reason}): make it with grub-mkimage -O i386-pc")]
    BadCoreImg {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A core.img too large to be loaded or for its partition.
    #[error("core.img has {size} bytes, {limit} at most can be loaded: leave modules out of it")]
    CoreImgTooLarge {
        /// Its size in bytes.
        size: u64,
        /// The most that would do, in bytes.
        limit: u64,
    },
    /// The partition table's writer failed.
    #[error("the partition table cannot be written: {0}")]
    Table(String),
    /// The pieces overlap or reach past the end.
    #[error("the disk's pieces do not fit together")]
    Map(#[from] block::MapError),
}
