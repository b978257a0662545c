//! FAT16 volumes with long names, written in one go from a [`tree::Tree`].
//!
//! Every structure and every file begins at a multiple of 4 KiB: one reserved run of 8 sectors, two FATs, 512 root
//! entries, then clusters of 4 KiB. A file's clusters follow each other and refer to the file's own content. Files
//! of 256 KiB or more begin at a multiple of 512 KiB of the volume where there is room, so that an unchanged boot
//! loader is an unchanged block.
//!
//! FAT knows neither owners nor modes nor attributes: they are left out. Times have two seconds' resolution, are
//! UTC, and lie in 1980 to 2107. Links, devices, pipes and sockets are refused; a hard link becomes a copy.

mod name;
mod place;
mod time;

use std::collections::BTreeMap;

use block::{BlockMap, BlockMapBuilder, Content, KIB, Origin};
use tree::{Node, Timestamp, Tree, TreePath};

use name::Names;
use place::{Placement, Run};

/// Bytes in a cluster.
pub const CLUSTER: u64 = 4 * KIB;

const SECTOR: u64 = crate::SECTOR;
const SECTORS_PER_CLUSTER: u64 = CLUSTER / SECTOR;
const RESERVED_SECTORS: u64 = SECTORS_PER_CLUSTER;
const FATS: u64 = 2;
const ROOT_ENTRIES: u64 = 512;
const ENTRY: usize = 32;
/// A folder may have at most this many entries of 32 bytes.
const FOLDER_ENTRIES: usize = 65_536;
/// Cluster counts that make a volume FAT16: below 4085 it would be FAT12, above 65524 FAT32, and 16 on either side
/// are left alone because not all readers count alike.
const FAT16_CLUSTERS: std::ops::RangeInclusive<u64> = 4101..=65_508;
const END_OF_CHAIN: u16 = 0xFFFF;

const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_FOLDER: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;

/// What a volume is given besides its files.
#[derive(Clone, Debug)]
pub struct FatOptions {
    /// The volume's size in bytes, a multiple of 4 KiB. FAT16 with 4 KiB clusters takes 17 to 256 MiB.
    pub size: u64,
    /// The serial number, which udev shows as the UUID `XXXX-XXXX`.
    pub volume_id: u32,
    /// The label, padded with spaces; all spaces for none. Upper-case ASCII.
    pub label: [u8; 11],
    /// The time of the label and of the root folder. Files and folders have their own.
    pub time: Timestamp,
}

/// Why a tree cannot become a FAT volume.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// The size would not give a FAT16 volume.
    #[error(
        "a FAT volume of {size} bytes has {clusters} clusters of 4 KiB; a FAT16 has {min} to {max}: use 64 MiB, or \
         anything between 17 MiB and 256 MiB in steps of 4 KiB",
        min = FAT16_CLUSTERS.start(),
        max = FAT16_CLUSTERS.end()
    )]
    WrongSize {
        /// The size in bytes.
        size: u64,
        /// Clusters that it would have.
        clusters: u64,
    },
    /// The files do not fit.
    #[error(
        "the files need {needed} bytes in clusters of 4 KiB, the FAT volume has room for {room}: make it larger"
    )]
    Full {
        /// What they need.
        needed: u64,
        /// What there is.
        room: u64,
    },
    /// A folder with more names than it can hold.
    #[error("`/{path}` needs {entries} directory entries, {limit} at most fit: use fewer or shorter names")]
    FolderFull {
        /// The folder.
        path: TreePath,
        /// What it needs.
        entries: usize,
        /// What it can have.
        limit: usize,
    },
    /// A name that FAT cannot hold.
    #[error("`/{path}`: FAT cannot hold this name ({reason})")]
    BadName {
        /// The entry.
        path: TreePath,
        /// Why not.
        reason: &'static str,
    },
    /// Two names that differ in case only.
    #[error(
        "`/{path}` and `/{other}` are one name to FAT, which does not tell upper from lower case: rename one"
    )]
    SameName {
        /// The later entry.
        path: TreePath,
        /// The earlier one.
        other: TreePath,
    },
    /// A link, device, pipe or socket.
    #[error("`/{path}` is neither a file nor a folder; FAT holds nothing else")]
    NotAFile {
        /// The entry.
        path: TreePath,
    },
    /// A file of 4 GiB or more.
    #[error("`/{path}` has {size} bytes; a file on FAT has at most 4294967295")]
    FileTooLarge {
        /// The file.
        path: TreePath,
        /// Its size.
        size: u64,
    },
    /// A label that FAT cannot hold.
    #[error("the FAT label {label:?} has bytes other than upper-case ASCII letters, digits, space, _ and -")]
    BadLabel {
        /// The label.
        label: String,
    },
    /// The tree does not hang together.
    #[error(transparent)]
    Tree(#[from] tree::TreeError),
    /// The pieces overlap or reach past the end.
    #[error("the FAT volume's pieces do not fit together")]
    Map(#[from] block::MapError),
}

/// Where the parts of a volume lie, in sectors.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    total: u64,
    fat: u64,
    clusters: u64,
}

impl Geometry {
    fn new(size: u64) -> Result<Self, FatError> {
        let total = size / SECTOR;
        let root = ROOT_ENTRIES * ENTRY as u64 / SECTOR;
        // A FAT long enough for as many clusters as there were without FATs, in whole clusters.
        let most = total.saturating_sub(RESERVED_SECTORS + root) / SECTORS_PER_CLUSTER;
        let fat = ((most + 2) * 2).div_ceil(CLUSTER) * SECTORS_PER_CLUSTER;
        let clusters = total.saturating_sub(RESERVED_SECTORS + FATS * fat + root) / SECTORS_PER_CLUSTER;
        if !FAT16_CLUSTERS.contains(&clusters) || !size.is_multiple_of(CLUSTER) {
            return Err(FatError::WrongSize { size, clusters });
        }
        Ok(Self { total, fat, clusters })
    }

    fn root(self) -> u64 {
        RESERVED_SECTORS + FATS * self.fat
    }

    fn data(self) -> u64 {
        self.root() + ROOT_ENTRIES * ENTRY as u64 / SECTOR
    }

    /// First byte of a cluster; the first cluster is number 2.
    fn cluster_offset(self, cluster: u16) -> u64 {
        self.data() * SECTOR + u64::from(cluster - 2) * CLUSTER
    }
}

/// Writes `tree` as a FAT16 volume of `options.size` bytes. The same tree and options give the same bytes.
pub fn write(tree: &Tree, options: &FatOptions) -> Result<BlockMap, FatError> {
    let geometry = Geometry::new(options.size)?;
    if !options
        .label
        .iter()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" _-".contains(byte))
    {
        return Err(FatError::BadLabel { label: String::from_utf8_lossy(&options.label).into_owned() });
    }
    tree.check()?;
    let has_label = options.label != [b' '; 11];

    let names = Names::assign(tree)?;
    let files = contents(tree)?;
    let folders = folder_sizes(tree, &names, has_label)?;
    let placement = Placement::new(geometry, &folders, &files)?;

    let mut builder = BlockMapBuilder::new();
    let boot = boot_sector(geometry, options, has_label);
    builder.push_sparse(0, &boot, &Origin::Structure("fat boot sector"));
    let fat = placement.fat(geometry);
    for copy in 0..FATS {
        let offset = (RESERVED_SECTORS + copy * geometry.fat) * SECTOR;
        builder.push_sparse(offset, &fat, &Origin::Structure("fat"));
    }
    for path in folders.keys() {
        let bytes = folder_bytes(tree, path, &names, &placement, &files, options, has_label);
        let offset = match placement.run(path) {
            Some(run) => geometry.cluster_offset(run.first),
            None => geometry.root() * SECTOR,
        };
        builder.push_sparse(offset, &bytes, &Origin::Structure("fat folder"));
    }
    for (path, (content, origin)) in &files {
        if let Some(run) = placement.run(path) {
            builder.push_all(geometry.cluster_offset(run.first), content.clone(), origin.clone());
        }
    }
    Ok(builder.finish(options.size)?)
}

/// Every file's content and origin; hard links have those of the file that they name.
fn contents(tree: &Tree) -> Result<BTreeMap<TreePath, (Content, Origin)>, FatError> {
    let mut files = BTreeMap::new();
    for (path, entry) in tree.iter() {
        let target = match &entry.node {
            Node::HardLink(target) => tree.get(target).unwrap_or(entry),
            _ => entry,
        };
        match &target.node {
            Node::Directory => continue,
            Node::File(content) if content.len() > u64::from(u32::MAX) => {
                return Err(FatError::FileTooLarge { path: path.clone(), size: content.len() });
            }
            Node::File(content) => files.insert(path.clone(), (content.clone(), entry.origin.clone())),
            _ => return Err(FatError::NotAFile { path: path.clone() }),
        };
    }
    Ok(files)
}

/// How many directory entries each folder has, the root among them.
fn folder_sizes(tree: &Tree, names: &Names, has_label: bool) -> Result<BTreeMap<TreePath, usize>, FatError> {
    let mut folders = BTreeMap::new();
    for (path, entry) in tree.iter() {
        if entry.node == Node::Directory {
            let own = if path.is_root() { usize::from(has_label) } else { 2 };
            *folders.entry(path.clone()).or_default() += own;
        }
        if let Some(parent) = path.parent() {
            *folders.entry(parent).or_default() += names.entries(path);
        }
    }
    for (path, entries) in &folders {
        let limit = if path.is_root() { ROOT_ENTRIES as usize } else { FOLDER_ENTRIES };
        if *entries > limit {
            return Err(FatError::FolderFull { path: path.clone(), entries: *entries, limit });
        }
    }
    Ok(folders)
}

/// The boot sector with its parameter block, as the FAT specification numbers it.
fn boot_sector(geometry: Geometry, options: &FatOptions, has_label: bool) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    let total = geometry.total as u32;
    put(0, &[0xEB, 0x3C, 0x90]);
    put(3, b"MSWIN4.1");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[SECTORS_PER_CLUSTER as u8]);
    put(14, &(RESERVED_SECTORS as u16).to_le_bytes());
    put(16, &[FATS as u8]);
    put(17, &(ROOT_ENTRIES as u16).to_le_bytes());
    match u16::try_from(total) {
        Ok(total) => put(19, &total.to_le_bytes()),
        Err(_) => put(32, &total.to_le_bytes()),
    }
    put(21, &[0xF8]);
    put(22, &(geometry.fat as u16).to_le_bytes());
    put(24, &63u16.to_le_bytes());
    put(26, &255u16.to_le_bytes());
    put(36, &[0x80, 0, 0x29]);
    put(39, &options.volume_id.to_le_bytes());
    put(43, if has_label { &options.label } else { b"NO NAME    " });
    put(54, b"FAT16   ");
    // Started by a BIOS, it hands back: int 0x18, then halt for ever.
    put(62, &[0xCD, 0x18, 0xF4, 0xEB, 0xFD]);
    put(510, &[0x55, 0xAA]);
    sector
}

/// One folder's entries: label or dots, then each name in the tree's order, long before short.
fn folder_bytes(
    tree: &Tree,
    folder: &TreePath,
    names: &Names,
    placement: &Placement,
    files: &BTreeMap<TreePath, (Content, Origin)>,
    options: &FatOptions,
    has_label: bool,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let cluster = |path: &TreePath| placement.run(path).map_or(0, |run: Run| run.first);
    let mtime = |path: &TreePath| tree.get(path).map_or(options.time, |entry| entry.meta.mtime);
    if let Some(parent) = folder.parent() {
        let time = mtime(folder);
        short_entry(&mut bytes, *b".          ", ATTRIBUTE_FOLDER, time, cluster(folder), 0);
        short_entry(&mut bytes, *b"..         ", ATTRIBUTE_FOLDER, time, cluster(&parent), 0);
    } else if has_label {
        short_entry(&mut bytes, options.label, ATTRIBUTE_LABEL, options.time, 0, 0);
    }
    for path in names.children(folder) {
        let (attribute, size) = match files.get(path) {
            Some((content, _)) => (ATTRIBUTE_ARCHIVE, content.len() as u32),
            None => (ATTRIBUTE_FOLDER, 0),
        };
        let time = match tree.get(path).map(|entry| &entry.node) {
            Some(Node::HardLink(target)) => mtime(target),
            _ => mtime(path),
        };
        names.push_long_entries(path, &mut bytes);
        short_entry(&mut bytes, names.short(path), attribute, time, cluster(path), size);
    }
    bytes
}

fn short_entry(bytes: &mut Vec<u8>, name: [u8; 11], attribute: u8, time: Timestamp, cluster: u16, size: u32) {
    let (date, time) = time::dos(time);
    let mut entry = [0; ENTRY];
    entry[..11].copy_from_slice(&name);
    entry[11] = attribute;
    if attribute != ATTRIBUTE_LABEL {
        entry[14..16].copy_from_slice(&time.to_le_bytes());
        entry[16..18].copy_from_slice(&date.to_le_bytes());
        entry[18..20].copy_from_slice(&date.to_le_bytes());
    }
    entry[22..24].copy_from_slice(&time.to_le_bytes());
    entry[24..26].copy_from_slice(&date.to_le_bytes());
    entry[26..28].copy_from_slice(&cluster.to_le_bytes());
    entry[28..32].copy_from_slice(&size.to_le_bytes());
    bytes.extend_from_slice(&entry);
}

#[cfg(test)]
mod tests;
