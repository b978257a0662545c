//! From Trees to disks: which partitions a volume has, how large they are and by which ids they are known.

use std::ops::Range;

use block::{BlockMap, BlockSource, MIB, derived_uuid};
use disk::{BIOS_BOOT_NUMBER, BIOS_BOOT_SIZE, EFI_SYSTEM_NUMBER, EFI_SYSTEM_SIZE, ROOT_NUMBER};
use disk::{BiosBoot, Partition, PartitionKind, Plan};
use recipe::{Arch, Recipe, Volume};
use tree::{Timestamp, Tree};

use crate::Error;
use crate::layout::VolumeLayout;

/// The ids of a volume. They follow from the recipe's name (without its version), the device and the role, so that
/// every image of a recipe shares them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VolumeIds {
    pub(crate) disk: [u8; 16],
    pub(crate) file_system: [u8; 16],
    pub(crate) esp_volume: u32,
    bios_partition: [u8; 16],
    esp_partition: [u8; 16],
    root_partition: [u8; 16],
}

impl VolumeIds {
    pub(crate) fn of(recipe: &Recipe, volume: &Volume) -> Self {
        let uuid = |role| derived_uuid(&recipe.name, &volume.device.disk(), role);
        let esp = uuid("esp file system");
        Self {
            disk: uuid("disk"),
            file_system: uuid("file system"),
            esp_volume: u32::from_be_bytes([esp[0], esp[1], esp[2], esp[3]]),
            bios_partition: uuid("bios partition"),
            esp_partition: uuid("esp partition"),
            root_partition: uuid("root partition"),
        }
    }
}

/// What the root volume is made from.
pub(crate) struct RootParts<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) esp: &'a Tree,
    pub(crate) bios: Option<BiosBoot>,
    pub(crate) time: i64,
}

/// The root volume: GPT with BIOS boot partition (x86_64), EFI system partition and root file system.
pub(crate) fn root_volume(
    recipe: &Recipe,
    volume: &Volume,
    parent: Option<&VolumeLayout>,
    parts: &RootParts<'_>,
) -> Result<BlockMap, Error> {
    let ids = VolumeIds::of(recipe, volume);
    let root_kind = match recipe.arch {
        Arch::X86_64 => PartitionKind::LinuxRootX86_64,
        Arch::Aarch64 => PartitionKind::LinuxRootAarch64,
    };
    let mut partitions = Vec::new();
    let mut add = |number, kind, name: &str, uuid, size, content| {
        partitions.push(Partition { number, kind, name: name.to_owned(), uuid, size, content });
    };
    let (boot_sizes, range) = room(recipe.arch, volume)?;
    if boot_sizes.len() > 1 {
        let empty = BlockMap::empty(0);
        let size = Some(BIOS_BOOT_SIZE);
        add(BIOS_BOOT_NUMBER, PartitionKind::BiosBoot, "bios", ids.bios_partition, size, empty);
    }
    let esp_options = disk::fat::FatOptions {
        size: EFI_SYSTEM_SIZE,
        volume_id: ids.esp_volume,
        label: *b"EFI        ",
        time: Timestamp::from_seconds(parts.time),
    };
    let esp = disk::fat::write(parts.esp, &esp_options)?;
    add(EFI_SYSTEM_NUMBER, PartitionKind::EfiSystem, "esp", ids.esp_partition, Some(EFI_SYSTEM_SIZE), esp);
    let root_options = options(volume, range.end - range.start, ids.file_system, "/", parts.time);
    let root = file_system(volume, parts.tree, &root_options, range.start, parent)?;
    partitions.push(Partition {
        number: ROOT_NUMBER,
        kind: root_kind,
        name: "root".to_owned(),
        uuid: ids.root_partition,
        size: None,
        content: root,
    });
    let plan = Plan { size: volume.size, disk_uuid: ids.disk, partitions };
    let map = disk::gpt(&plan, parts.bios.as_ref())?;
    debug_assert_eq!(map.len(), volume.size);
    Ok(map)
}

/// The sizes of the partitions before the root's, and where that lies.
fn room(arch: Arch, volume: &Volume) -> Result<(Vec<u64>, Range<u64>), Error> {
    let before = match arch {
        Arch::X86_64 => vec![BIOS_BOOT_SIZE, EFI_SYSTEM_SIZE],
        Arch::Aarch64 => vec![EFI_SYSTEM_SIZE],
    };
    let sizes: Vec<_> = before.iter().copied().map(Some).chain([None]).collect();
    let ranges = disk::layout(volume.size, &sizes)?;
    Ok((before, ranges.last().cloned().unwrap_or_default()))
}

/// The file system of the root volume's last partition alone.
pub(crate) fn root_file_system(
    recipe: &Recipe,
    volume: &Volume,
    parent: Option<&VolumeLayout>,
    tree: &Tree,
    time: i64,
) -> Result<BlockMap, Error> {
    let (_, range) = room(recipe.arch, volume)?;
    let uuid = VolumeIds::of(recipe, volume).file_system;
    let options = options(volume, range.end - range.start, uuid, "/", time);
    file_system(volume, tree, &options, range.start, parent)
}

/// A data volume: one file system that takes the whole disk, without a partition table, as it is usual on EC2 and so
/// that it can grow.
pub(crate) fn data_volume(
    recipe: &Recipe,
    volume: &Volume,
    parent: Option<&VolumeLayout>,
    tree: &Tree,
    time: i64,
) -> Result<BlockMap, Error> {
    let ids = VolumeIds::of(recipe, volume);
    // The superblock has room for 63 bytes; it only reminds people.
    let mount = volume.mount.as_deref().filter(|mount| mount.len() < 64).unwrap_or_default();
    let options = options(volume, volume.size, ids.file_system, mount, time);
    file_system(volume, tree, &options, 0, parent)
}

/// What a bare ext4 file system of `size` bytes for a volume is to be.
fn options(volume: &Volume, size: u64, uuid: [u8; 16], mount: &str, time: i64) -> ext4::Options {
    ext4::Options {
        label: volume.label.clone().unwrap_or_default(),
        time,
        last_mounted: mount.to_owned(),
        ..ext4::Options::new(size, uuid)
    }
}

/// A file system that begins at byte `start` of the volume, and has what its parent has where that has it.
fn file_system(
    volume: &Volume,
    tree: &Tree,
    options: &ext4::Options,
    start: u64,
    parent: Option<&VolumeLayout>,
) -> Result<BlockMap, Error> {
    let written = match parent {
        Some(parent) => {
            let parent = parent.places(start, options.size);
            ext4::write(tree, options, &ext4::ParentPlacement { parent: &parent })
        }
        None => ext4::write(tree, options, &ext4::PathPlacement),
    };
    written.map_err(|source| explain(volume, options.size, source))
}

/// A volume that is too small is a mistake at its place in the recipe.
fn explain(volume: &Volume, room: u64, source: ext4::Error) -> Error {
    let told = |message: String, label: String, help: String| {
        Error::Recipe(volume.size_span.error(recipe::Code::Size, message, label).help(help).into())
    };
    let needed = match source {
        ext4::Error::NoSpace { needed, .. } => needed,
        ext4::Error::TooManyInodes { needed, most, .. } => {
            let message = format!("{} has no room for so many files", volume.device);
            let label = format!("takes {most} files and folders, but there are {needed}");
            return told(message, label, "make it larger: room for files grows with the size".to_owned());
        }
        source => return Error::FileSystem { device: volume.device.to_string(), source },
    };
    let size = (volume.size - room + needed).div_ceil(MIB);
    let message = format!("{} is too small for its content", volume.device);
    let label = format!("{} MiB, but {size} MiB are needed", volume.size / MIB);
    let help = format!(
        "give it at least `size: {}GiB`, better more: the machine needs room to live in",
        size.div_ceil(1024)
    );
    told(message, label, help)
}
