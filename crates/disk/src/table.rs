use std::collections::BTreeSet;
use std::ops::Range;

use block::{BlockMap, BlockMapBuilder, BlockSource, Origin};
use gpt::disk::LogicalBlockSize;
use gpt::header::Header;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types as types;
use uuid::Uuid;

use crate::ends::DiskEnds;
use crate::{BiosBoot, Error, SECTOR, layout};

/// Entries of a table, 128 bytes each.
const ENTRIES: u32 = 128;
const ENTRY_SIZE: u32 = 128;
/// Sectors that they take.
pub(crate) const ENTRIES_SECTORS: u64 = (ENTRIES * ENTRY_SIZE) as u64 / SECTOR;

/// What a partition is for; it becomes the entry's type GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionKind {
    /// GRUB's core.img on a disk that boots by BIOS.
    BiosBoot,
    /// The FAT file system with EFI programs.
    EfiSystem,
    /// The root file system of an x86_64 machine.
    LinuxRootX86_64,
    /// The root file system of an aarch64 machine.
    LinuxRootAarch64,
    /// Any Linux file system.
    LinuxFilesystem,
}

impl PartitionKind {
    fn type_guid(self) -> types::Type {
        match self {
            Self::BiosBoot => types::BIOS,
            Self::EfiSystem => types::EFI,
            Self::LinuxRootX86_64 => types::LINUX_ROOT_X64,
            Self::LinuxRootAarch64 => types::LINUX_ROOT_ARM_64,
            Self::LinuxFilesystem => types::LINUX_FS,
        }
    }
}

/// One partition of a [`Plan`].
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its number, 1 to 128: its entry in the table and the number in its device name.
    pub number: u32,
    /// What it is for.
    pub kind: PartitionKind,
    /// Its name in the table, at most 36 UTF-16 units.
    pub name: String,
    /// Its UUID, in the order in which a UUID is written.
    pub uuid: [u8; 16],
    /// Its size in bytes, rounded up to whole MiB; `None` takes the rest of the disk.
    pub size: Option<u64>,
    /// What is in it, from its first byte on; may be shorter than the partition.
    pub content: BlockMap,
}

/// A disk: the partitions in the order in which they lie on it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The disk's size in bytes, whole sectors.
    pub size: u64,
    /// The disk's UUID, in the order in which a UUID is written.
    pub disk_uuid: [u8; 16],
    /// The partitions, from the disk's beginning on; their numbers may be in any order.
    pub partitions: Vec<Partition>,
}

/// Lays out a whole disk: protective MBR, primary and backup GPT, and each partition's content at the place that
/// [`layout`] gives it. With `boot` the disk also boots by BIOS: boot.img goes into the MBR, core.img into the BIOS
/// boot partition, which must be empty.
pub fn gpt(plan: &Plan, boot: Option<&BiosBoot>) -> Result<BlockMap, Error> {
    let sizes: Vec<_> = plan.partitions.iter().map(|partition| partition.size).collect();
    let ranges = layout(plan.size, &sizes)?;
    check(plan, &ranges)?;

    let mut ends = DiskEnds::new(plan.size);
    write_table(plan, &ranges, &mut ends)?;

    let mut builder = BlockMapBuilder::new();
    if let Some(boot) = boot {
        let range = bios_boot_range(plan, &ranges)?;
        let start = range.start / SECTOR;
        boot.patch_mbr(&mut ends.head()[..SECTOR as usize], start)?;
        let core = boot.patched_core(start, range.end - range.start)?;
        builder.push_sparse(range.start, &core, &Origin::Structure("core.img"));
    }
    builder.push_sparse(0, ends.head(), &Origin::Structure("gpt"));
    let (tail_start, tail) = ends.tail();
    builder.push_sparse(tail_start, tail, &Origin::Structure("backup gpt"));
    for (partition, range) in plan.partitions.iter().zip(&ranges) {
        builder.push_map(range.start, &partition.content);
    }
    Ok(builder.finish(plan.size)?)
}

fn check(plan: &Plan, ranges: &[Range<u64>]) -> Result<(), Error> {
    let mut numbers = BTreeSet::new();
    let mut uuids = BTreeSet::from([[0; 16], plan.disk_uuid]);
    for (partition, range) in plan.partitions.iter().zip(ranges) {
        let (number, name) = (partition.number, || partition.name.clone());
        if !(1..=ENTRIES).contains(&number) || !numbers.insert(number) {
            return Err(Error::BadNumber { number, name: name() });
        }
        if !uuids.insert(partition.uuid) {
            return Err(Error::BadUuid { number, name: name(), uuid: block::format_uuid(partition.uuid) });
        }
        let units = partition.name.encode_utf16().count();
        if units > 36 || partition.name.contains('\0') {
            return Err(Error::BadName { name: name(), units });
        }
        let (size, content) = (range.end - range.start, partition.content.len());
        if content > size {
            return Err(Error::ContentTooLarge { number, name: name(), size, content });
        }
    }
    Ok(())
}

fn bios_boot_range<'a>(plan: &Plan, ranges: &'a [Range<u64>]) -> Result<&'a Range<u64>, Error> {
    let found: Vec<_> =
        plan.partitions.iter().zip(ranges).filter(|(part, _)| part.kind == PartitionKind::BiosBoot).collect();
    let filled = found.iter().filter(|(part, _)| !part.content.extents().is_empty()).count();
    match found[..] {
        [(_, range)] if filled == 0 => Ok(range),
        _ => Err(Error::NoBiosBootPartition { count: found.len(), filled }),
    }
}

/// Writes MBR and both tables. Entry by entry: the `gpt` crate's own way to write a whole disk moves all entries to
/// the front of the table, which would renumber 14 and 15 to 2 and 3.
fn write_table(plan: &Plan, ranges: &[Range<u64>], ends: &mut DiskEnds) -> Result<(), Error> {
    let table = |error: &dyn std::fmt::Display| Error::Table(error.to_string());
    let sectors = plan.size / SECTOR;
    let protected = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(protected).overwrite_lba0(ends).map_err(|error| table(&error))?;

    let sector = LogicalBlockSize::Lb512;
    let mut primary = Header {
        signature: "EFI PART".to_owned(),
        revision: (1, 0),
        header_size_le: 92,
        crc32: 0,
        reserved: 0,
        current_lba: 1,
        backup_lba: sectors - 1,
        first_usable: 2 + ENTRIES_SECTORS,
        last_usable: sectors - 2 - ENTRIES_SECTORS,
        disk_guid: Uuid::from_bytes(plan.disk_uuid),
        part_start: 2,
        num_parts: ENTRIES,
        part_size: ENTRY_SIZE,
        crc32_parts: 0,
    };
    let mut backup = Header {
        current_lba: primary.backup_lba,
        backup_lba: primary.current_lba,
        part_start: primary.last_usable + 1,
        ..primary.clone()
    };
    for (partition, range) in plan.partitions.iter().zip(ranges) {
        let entry = gpt::partition::Partition {
            part_type_guid: partition.kind.type_guid(),
            part_guid: Uuid::from_bytes(partition.uuid),
            first_lba: range.start / SECTOR,
            last_lba: range.end / SECTOR - 1,
            flags: 0,
            name: partition.name.clone(),
        };
        for header in [&primary, &backup] {
            let index = u64::from(partition.number - 1);
            entry
                .write_to_device(ends, index, header.part_start, sector, header.part_size)
                .map_err(|error| table(&error))?;
        }
    }
    primary.write_primary(ends, sector).map_err(|error| table(&error))?;
    backup.write_backup(ends, sector).map_err(|error| table(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests;
