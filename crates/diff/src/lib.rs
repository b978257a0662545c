//! What differs between two images: packages, files, blocks.
//!
//! *What comes in:* two [`Image`]s: lists of packages, and volumes as [`block::BlockSource`]s with the ids of their blocks and what
//! [`inspect`] found on them; and the order of versions, which is the packages' affair. *What goes out:* one value, a
//! [`Difference`], and three ways to show it: [`text`], [`json`] and [`html`]. *What it may not do:* print, know a terminal, a
//! folder, a store or who made the images.
//!
//! Blocks are those of [`block::BLOCK_SIZE`], told apart by their ids; a block of zeros is none. A file's content is compared without being read
//! where both images have it in the same blocks at the same offset. What is shown of names, versions and links comes from strangers:
//! all of it passes [`shown`], and in a page also its escape for HTML.

mod blocks;
mod files;
mod html;
mod json;
mod packages;
mod picture;
mod shown;
mod text;

use std::cmp::Ordering;

use block::{BLOCK_SIZE, BlockSource, Digest, ReadError};
use inspect::{Partition, PartitionContent};

pub use blocks::{BlockChanges, State, Stretch, Tally};
pub use files::{Aspect, Fact, FileChange, FileChanges, FileTotals};
pub use html::html;
pub use json::json;
pub use packages::{PackageChange, PackageChanges, Step};
pub use shown::{shown, size};
pub use text::text;

/// One of the two images.
pub struct Image {
    /// What the user named: a folder, a file, a snapshot.
    pub given: String,
    /// The image's name, where it has one.
    pub name: Option<String>,
    /// `x86_64` or `aarch64`, where that is known.
    pub arch: Option<String>,
    /// The packages in it, where they are known.
    pub packages: Option<Vec<Package>>,
    /// Its volumes, the root first.
    pub volumes: Vec<Volume>,
    /// What people should know about it, as whole sentences without a full stop.
    pub remarks: Vec<String>,
}

/// A package of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
}

/// A volume of an image.
pub struct Volume {
    /// EC2's name for it; `None` for an image that is one disk and does not say.
    pub device: Option<String>,
    /// Its bytes.
    pub disk: Box<dyn BlockSource>,
    /// Index and id of its blocks that are not all zero, by index.
    pub blocks: Vec<(u64, Digest)>,
    /// What is on it.
    pub partitions: Vec<Partition>,
}

impl Volume {
    /// Reads all of a disk to know its blocks, and looks what is on it.
    pub fn read(device: Option<String>, disk: Box<dyn BlockSource>) -> Result<Self, ReadError> {
        let blocks = block::block_ids(&*disk)?;
        Self::of_blocks(device, disk, blocks)
    }

    /// A volume whose blocks are known: only what is on it is read.
    pub fn of_blocks(
        device: Option<String>,
        disk: Box<dyn BlockSource>,
        blocks: Vec<(u64, Digest)>,
    ) -> Result<Self, ReadError> {
        let partitions = inspect::partitions(&*disk)?;
        Ok(Self { device, disk, blocks, partitions })
    }

    /// The id of the block that has a byte; none when it is all zero.
    fn id_at(&self, byte: u64) -> Option<Digest> {
        let found = self.blocks.binary_search_by_key(&(byte / BLOCK_SIZE), |(index, _)| *index);
        found.ok().map(|at| self.blocks[at].1)
    }
}

/// What a [`Difference`] says of one of its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What the user named.
    pub given: String,
    /// The image's name.
    pub name: Option<String>,
    /// Its architecture.
    pub arch: Option<String>,
}

/// What differs between two images, A and B.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The first image.
    pub a: Identity,
    /// The second.
    pub b: Identity,
    /// What people should know beside, as whole sentences without a full stop.
    pub remarks: Vec<String>,
    /// The packages; `None` where one of the images does not say which it has.
    pub packages: Option<PackageChanges>,
    /// The volumes: those of A in their order, then those that only B has.
    pub volumes: Vec<VolumeChanges>,
}

/// What differs between two volumes of the same device name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeChanges {
    /// The device, or `disk` where neither image names it.
    pub device: String,
    /// Bytes of the volume in A and in B; `None` where an image has no such volume.
    pub sizes: (Option<u64>, Option<u64>),
    /// Its blocks.
    pub blocks: BlockChanges,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionChanges>,
}

/// What differs between two partitions of the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionChanges {
    /// The number; 0 for a disk without partitions.
    pub number: u32,
    /// The name in the table.
    pub name: String,
    /// Blocks in which the partition's bytes differ.
    pub differing_blocks: u64,
    /// Its files, or why they are not known.
    pub files: Result<FileChanges, String>,
}

impl PartitionChanges {
    /// What to call it, as people do.
    pub fn title(&self) -> String {
        match (self.number, self.name.as_str()) {
            (0, _) => "without partitions".to_owned(),
            (number, "") => format!("partition {number}"),
            (number, name) => format!("partition {number} ({})", shown(name.as_bytes())),
        }
    }
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.packages.as_ref().is_none_or(|packages| packages.changes.is_empty())
            && self.volumes.iter().all(|volume| {
                let (a, b) = volume.sizes;
                a == b && volume.blocks.gone.blocks == 0 && volume.blocks.differing.blocks == 0
            })
    }

    /// The blocks of all volumes together.
    pub fn blocks(&self) -> BlockChanges {
        self.volumes.iter().fold(BlockChanges::default(), |sum, volume| sum.with(&volume.blocks))
    }

    /// The files of all partitions together; `None` when none is known.
    pub fn files(&self) -> Option<FileTotals> {
        let partitions = self.volumes.iter().flat_map(|volume| &volume.partitions);
        let known = partitions.filter_map(|partition| partition.files.as_ref().ok());
        known.map(FileChanges::totals).reduce(FileTotals::with)
    }
}

/// Compares two images. `order` compares versions of packages. Reads of both disks what is needed to tell files apart.
pub fn compare(
    a: &Image,
    b: &Image,
    order: &dyn Fn(&str, &str) -> Ordering,
) -> Result<Difference, ReadError> {
    let mut remarks: Vec<String> = [(a, 'A'), (b, 'B')]
        .into_iter()
        .flat_map(|(image, letter)| image.remarks.iter().map(move |remark| format!("{letter}: {remark}")))
        .collect();
    if let (Some(arch_a), Some(arch_b)) = (&a.arch, &b.arch)
        && arch_a != arch_b
    {
        let (arch_a, arch_b) = (shown(arch_a.as_bytes()), shown(arch_b.as_bytes()));
        remarks.push(format!("A is for {arch_a} and B for {arch_b}: almost every program differs"));
    }
    let packages = match (&a.packages, &b.packages) {
        (Some(a), Some(b)) => Some(packages::compare(a, b, order)),
        (a, b) => {
            let who = match (a, b) {
                (None, None) => "neither image says",
                (None, _) => "A does not say",
                _ => "B does not say",
            };
            remarks.push(format!("{who} which packages it has: they are not compared"));
            None
        }
    };
    let pool = blocks::Pool::new(a, b);
    let mut volumes = Vec::new();
    for (volume_a, volume_b) in pairs(a, b, &mut remarks) {
        let device = [volume_a, volume_b].into_iter().flatten().find_map(|volume| volume.device.clone());
        let device = shown(device.as_deref().unwrap_or("disk").as_bytes());
        let len = |volume: Option<&Volume>| volume.map(|volume| volume.disk.len());
        volumes.push(VolumeChanges {
            sizes: (len(volume_a), len(volume_b)),
            blocks: pool.compare(volume_a, volume_b),
            partitions: partitions(&device, volume_a, volume_b, &mut remarks)?,
            device,
        });
    }
    let identity = |image: &Image| Identity {
        given: image.given.clone(),
        name: image.name.clone(),
        arch: image.arch.clone(),
    };
    Ok(Difference { a: identity(a), b: identity(b), remarks, packages, volumes })
}

/// Which volume is held against which: those of one device name, and a disk that has none against the other's first.
fn pairs<'a>(
    a: &'a Image,
    b: &'a Image,
    remarks: &mut Vec<String>,
) -> Vec<(Option<&'a Volume>, Option<&'a Volume>)> {
    let nameless = |image: &Image| matches!(&image.volumes[..], [volume] if volume.device.is_none());
    if nameless(a) || nameless(b) {
        for (image, letter) in [(a, 'A'), (b, 'B')] {
            if image.volumes.len() > 1 {
                remarks.push(format!(
                    "the other image is one disk: only the first volume of {letter} is compared"
                ));
            }
        }
        return vec![(a.volumes.first(), b.volumes.first())];
    }
    let of = |image: &'a Image, device: &Option<String>| {
        image.volumes.iter().find(|other| other.device == *device)
    };
    let mut pairs: Vec<_> = a.volumes.iter().map(|volume| (Some(volume), of(b, &volume.device))).collect();
    pairs.extend(
        b.volumes.iter().filter(|volume| of(a, &volume.device).is_none()).map(|new| (None, Some(new))),
    );
    for (volume_a, volume_b) in &pairs {
        let device = |volume: &Volume| shown(volume.device.as_deref().unwrap_or("disk").as_bytes());
        match (volume_a, volume_b) {
            (Some(only), None) => remarks.push(format!("the volume {} is in A only", device(only))),
            (None, Some(only)) => remarks.push(format!("the volume {} is in B only", device(only))),
            _ => {}
        }
    }
    pairs
}

fn partitions(
    device: &str,
    a: Option<&Volume>,
    b: Option<&Volume>,
    remarks: &mut Vec<String>,
) -> Result<Vec<PartitionChanges>, ReadError> {
    let all = [a, b].into_iter().flatten().flat_map(|volume| &volume.partitions);
    let mut numbers: Vec<u32> = all.map(|partition| partition.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut changes = Vec::new();
    for number in numbers {
        let (part_a, part_b) = (side(a, number), side(b, number));
        let named = part_b.or(part_a);
        let name = named.map(|(_, partition)| partition.name.clone()).unwrap_or_default();
        let mut partition = PartitionChanges {
            number,
            name,
            differing_blocks: blocks::differing_in(a, b, part_a.map(|(_, p)| p), part_b.map(|(_, p)| p)),
            files: Err(String::new()),
        };
        for (part, letter) in [(part_a, 'A'), (part_b, 'B')] {
            if let Some((_, Partition { content: PartitionContent::Files(files), .. })) = part
                && !files.clean
            {
                remarks.push(format!(
                    "{letter}: {} of {device} was not unmounted: what is in its journal only is not seen",
                    partition.title()
                ));
            }
        }
        partition.files = files::compare(part_a, part_b)?;
        changes.push(partition);
    }
    Ok(changes)
}

/// A volume and its partition of a number.
fn side(volume: Option<&Volume>, number: u32) -> Option<(&Volume, &Partition)> {
    let volume = volume?;
    let found = volume.partitions.iter().find(|partition| partition.number == number);
    found.map(|partition| (volume, partition))
}
