use std::collections::BTreeMap;

use block::{BLOCK_SIZE, Content, KIB, Origin};
use tree::TreePath;

use super::{CLUSTER, END_OF_CHAIN, ENTRY, FatError, Geometry};

/// Files of at least this many bytes get 512 KiB blocks of their own where there is room.
const LARGE: u64 = 256 * KIB;

/// Clusters that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Number of the first cluster, from 2 on.
    pub(super) first: u16,
    /// How many, at least one.
    pub(super) count: u16,
}

/// Which clusters every folder and file has: folders first, then small files, then large ones, each in path order.
#[derive(Debug)]
pub(super) struct Placement {
    runs: BTreeMap<TreePath, Run>,
}

impl Placement {
    /// Places everything; large files on 512 KiB boundaries if all fits so, else end to end.
    pub(super) fn new(
        geometry: Geometry,
        folders: &BTreeMap<TreePath, usize>,
        files: &BTreeMap<TreePath, (Content, Origin)>,
    ) -> Result<Self, FatError> {
        let folders = folders
            .iter()
            .filter(|(path, _)| !path.is_root())
            .map(|(path, entries)| (path, (entries * ENTRY) as u64));
        let sizes = || files.iter().map(|(path, (content, _))| (path, content.len()));
        let small = sizes().filter(|(_, size)| (1..LARGE).contains(size));
        let large = sizes().filter(|(_, size)| *size >= LARGE);
        let wanted: Vec<_> =
            folders.chain(small).chain(large).map(|(path, size)| (path, size.div_ceil(CLUSTER))).collect();
        let place = |aligned: bool| {
            let mut runs = BTreeMap::new();
            let mut next = 0;
            for (path, count) in &wanted {
                if aligned && *count >= LARGE / CLUSTER {
                    let offset = geometry.data() * super::SECTOR + next * CLUSTER;
                    next += (offset.next_multiple_of(BLOCK_SIZE) - offset) / CLUSTER;
                }
                let first = u16::try_from(next + 2).ok()?;
                next += count;
                if next > geometry.clusters {
                    return None;
                }
                runs.insert((*path).clone(), Run { first, count: u16::try_from(*count).ok()? });
            }
            Some(Self { runs })
        };
        place(true).or_else(|| place(false)).ok_or_else(|| FatError::Full {
            needed: wanted.iter().map(|(_, count)| count * CLUSTER).sum(),
            room: geometry.clusters * CLUSTER,
        })
    }

    /// The clusters of a folder or file; `None` for the root folder and for empty files.
    pub(super) fn run(&self, path: &TreePath) -> Option<Run> {
        self.runs.get(path).copied()
    }

    /// One file allocation table.
    pub(super) fn fat(&self, geometry: Geometry) -> Vec<u8> {
        let mut fat = vec![0; (geometry.fat * super::SECTOR) as usize];
        let mut put = |cluster: u16, value: u16| {
            let at = usize::from(cluster) * 2;
            fat[at..at + 2].copy_from_slice(&value.to_le_bytes());
        };
        // The media byte, and a volume that was closed in good order.
        put(0, 0xFFF8);
        put(1, END_OF_CHAIN);
        for run in self.runs.values() {
            let last = run.first + (run.count - 1);
            for cluster in run.first..last {
                put(cluster, cluster + 1);
            }
            put(last, END_OF_CHAIN);
        }
        fat
    }
}
