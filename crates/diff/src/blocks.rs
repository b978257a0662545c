//! Blocks that differ, by id and by index.

use std::collections::HashSet;

use block::{BLOCK_SIZE, Digest};
use inspect::{FileSystem, Partition, PartitionContent};
use tree::TreePath;

use crate::{Image, Volume};

/// How many files of a stretch are named.
const NAMED: usize = 4;

/// What a block is, seen from the image that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The other image has the same content at the same index.
    Same,
    /// The other image has the same content, but elsewhere.
    Moved,
    /// B's, and nowhere in A.
    New,
    /// A's, and nowhere in B.
    Gone,
}

impl State {
    /// `same`, `moved`, `new`, `gone`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Moved => "moved",
            Self::New => "new",
            Self::Gone => "gone",
        }
    }
}

/// Neighbouring blocks in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first one's index.
    pub start: u64,
    /// How many.
    pub len: u64,
    /// Their state.
    pub state: State,
    /// Some of the files that lie in them, by place.
    pub files: Vec<TreePath>,
    /// How many files do.
    pub file_count: u64,
}

/// Blocks and their bytes; a last block that is cut short has fewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, index: u64, size: u64) {
        self.blocks += 1;
        self.bytes += BLOCK_SIZE.min(size.saturating_sub(index * BLOCK_SIZE));
    }

    fn with(self, other: Self) -> Self {
        Self { blocks: self.blocks + other.blocks, bytes: self.bytes + other.bytes }
    }
}

/// How the blocks of two volumes differ. A block of zeros is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockChanges {
    /// A's blocks, in their order.
    pub before: Vec<Stretch>,
    /// B's blocks, in their order.
    pub after: Vec<Stretch>,
    /// Blocks in both, at one index.
    pub same: Tally,
    /// B's blocks whose content is elsewhere in A.
    pub moved: Tally,
    /// B's blocks whose content is nowhere in A.
    pub new: Tally,
    /// A's blocks whose content is nowhere in B.
    pub gone: Tally,
    /// Indices of B whose content differs from A's, zeros counted: what an EBS snapshot that follows A's would send. For a volume that only B
    /// has, all its blocks.
    pub differing: Tally,
    /// Contents of B that are nowhere in A, each once: what a store that has A keeps for B.
    pub added: Tally,
}

impl BlockChanges {
    /// The sums of both, without stretches.
    pub(crate) fn with(self, other: &Self) -> Self {
        Self {
            before: Vec::new(),
            after: Vec::new(),
            same: self.same.with(other.same),
            moved: self.moved.with(other.moved),
            new: self.new.with(other.new),
            gone: self.gone.with(other.gone),
            differing: self.differing.with(other.differing),
            added: self.added.with(other.added),
        }
    }
}

/// The contents of both images: a block may come from, or go to, another volume.
pub(crate) struct Pool {
    a: HashSet<Digest>,
    b: HashSet<Digest>,
}

impl Pool {
    pub(crate) fn new(a: &Image, b: &Image) -> Self {
        let ids = |image: &Image| {
            image.volumes.iter().flat_map(|volume| volume.blocks.iter().map(|(_, id)| *id)).collect()
        };
        Self { a: ids(a), b: ids(b) }
    }

    pub(crate) fn compare(&self, a: Option<&Volume>, b: Option<&Volume>) -> BlockChanges {
        let mut changes = BlockChanges::default();
        let (len_a, len_b) = (a.map_or(0, |a| a.disk.len()), b.map_or(0, |b| b.disk.len()));
        let (lying_a, lying_b) = (Lying::of(a), Lying::of(b));
        let mut added = HashSet::new();
        for (index, id_a, id_b) in merged(blocks(a), blocks(b)) {
            if let Some(id) = id_a {
                let state = match id_b == id_a {
                    true => State::Same,
                    false if self.b.contains(&id) => State::Moved,
                    false => State::Gone,
                };
                lengthen(&mut changes.before, index, state);
                if state == State::Gone {
                    changes.gone.add(index, len_a);
                }
            }
            if let Some(id) = id_b {
                let (state, tally) = match id_b == id_a {
                    true => (State::Same, &mut changes.same),
                    false if self.a.contains(&id) => (State::Moved, &mut changes.moved),
                    false => (State::New, &mut changes.new),
                };
                tally.add(index, len_b);
                lengthen(&mut changes.after, index, state);
                if state == State::New && added.insert(id) {
                    changes.added.add(index, len_b);
                }
            }
            if id_a != id_b && index * BLOCK_SIZE < len_b {
                changes.differing.add(index, len_b);
            }
        }
        changes.before.iter_mut().for_each(|stretch| lying_a.name(stretch));
        changes.after.iter_mut().for_each(|stretch| lying_b.name(stretch));
        changes
    }
}

fn blocks(volume: Option<&Volume>) -> &[(u64, Digest)] {
    volume.map(|volume| &volume.blocks[..]).unwrap_or_default()
}

/// Every index at which one of two sorted lists has a block, with what both have there.
fn merged<'a>(
    a: &'a [(u64, Digest)],
    b: &'a [(u64, Digest)],
) -> impl Iterator<Item = (u64, Option<Digest>, Option<Digest>)> + 'a {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    std::iter::from_fn(move || {
        let index = match (a.peek(), b.peek()) {
            (Some((a, _)), Some((b, _))) => *a.min(b),
            (Some((index, _)), None) | (None, Some((index, _))) => *index,
            (None, None) => return None,
        };
        let id_a = a.next_if(|(at, _)| *at == index).map(|(_, id)| *id);
        let id_b = b.next_if(|(at, _)| *at == index).map(|(_, id)| *id);
        Some((index, id_a, id_b))
    })
}

/// Adds a block to the last stretch, or begins another.
fn lengthen(stretches: &mut Vec<Stretch>, index: u64, state: State) {
    match stretches.last_mut().filter(|last| last.state == state && last.start + last.len == index) {
        Some(last) => last.len += 1,
        None => stretches.push(Stretch { start: index, len: 1, state, files: Vec::new(), file_count: 0 }),
    }
}

/// In how many blocks the bytes of a partition differ. Partitions that changed places have all their blocks counted that differ there.
pub(crate) fn differing_in(
    a: Option<&Volume>,
    b: Option<&Volume>,
    in_a: Option<&Partition>,
    in_b: Option<&Partition>,
) -> u64 {
    let Some(place) = in_b.or(in_a) else { return 0 };
    let (first, end) = (place.offset / BLOCK_SIZE, (place.offset + place.len).div_ceil(BLOCK_SIZE));
    merged(blocks(a), blocks(b))
        .filter(|(index, id_a, id_b)| (first..end).contains(index) && id_a != id_b)
        .count() as u64
}

/// Where files lie on a volume.
struct Lying<'a> {
    /// First byte, first byte behind, and the file; by place.
    runs: Vec<(u64, u64, &'a TreePath)>,
}

impl<'a> Lying<'a> {
    fn of(volume: Option<&'a Volume>) -> Self {
        let mut runs = Vec::new();
        let partitions = volume.map(|volume| &volume.partitions[..]).unwrap_or_default();
        for partition in partitions {
            if let PartitionContent::Files(files) = &partition.content {
                add_runs(files, &mut runs);
            }
        }
        runs.sort_unstable_by_key(|(start, end, _)| (*start, *end));
        Self { runs }
    }

    /// Says which files lie in a stretch.
    fn name(&self, stretch: &mut Stretch) {
        let (from, to) = (stretch.start * BLOCK_SIZE, (stretch.start + stretch.len) * BLOCK_SIZE);
        let first = self.runs.partition_point(|(_, end, _)| *end <= from);
        let mut seen = HashSet::new();
        for (_, _, path) in self.runs[first..].iter().take_while(|(start, _, _)| *start < to) {
            if seen.insert(*path) {
                stretch.file_count += 1;
                if stretch.files.len() < NAMED {
                    stretch.files.push((*path).clone());
                }
            }
        }
    }
}

fn add_runs<'a>(files: &'a FileSystem, runs: &mut Vec<(u64, u64, &'a TreePath)>) {
    let mut seen = HashSet::new();
    for (path, number) in &files.names {
        // One of a file's names is enough.
        if let Some(inode) = files.inodes.get(number).filter(|_| seen.insert(*number))
            && inode.kind == inspect::Kind::File
        {
            runs.extend(inode.runs.iter().map(|run| (run.place, run.place + run.len, path)));
        }
    }
}

#[cfg(test)]
mod tests {
    use block::{BlockMap, MIB};
    use proptest::prelude::*;

    use super::*;

    fn volume(size: u64, blocks: &[(u64, u8)]) -> Volume {
        let blocks = blocks.iter().map(|(index, content)| (*index, Digest([*content; 32]))).collect();
        Volume::of_blocks(None, Box::new(BlockMap::empty(size)), blocks).unwrap()
    }

    fn image(volume: Volume) -> Image {
        let (given, name, arch, packages, remarks) = Default::default();
        Image { given, name, arch, packages, volumes: vec![volume], remarks }
    }

    fn compared(a: &Image, b: &Image) -> BlockChanges {
        Pool::new(a, b).compare(a.volumes.first(), b.volumes.first())
    }

    #[test]
    fn each_block_is_in_the_state_that_it_is_in() {
        let a = image(volume(8 * MIB, &[(0, 1), (1, 2), (2, 3), (5, 4), (6, 9)]));
        // The last block of B is cut short.
        let b = image(volume(4 * MIB + 1000, &[(0, 1), (1, 3), (2, 5), (3, 5), (5, 4), (8, 6)]));
        let changes = compared(&a, &b);
        let states = |stretches: &[Stretch]| -> Vec<_> {
            stretches.iter().map(|stretch| (stretch.start, stretch.len, stretch.state)).collect()
        };
        use State::{Gone, Moved, New, Same};
        assert_eq!(
            states(&changes.before),
            [(0, 1, Same), (1, 1, Gone), (2, 1, Moved), (5, 1, Same), (6, 1, Gone)]
        );
        assert_eq!(
            states(&changes.after),
            [(0, 1, Same), (1, 1, Moved), (2, 2, New), (5, 1, Same), (8, 1, New)]
        );
        let tally = |blocks, bytes| Tally { blocks, bytes };
        assert_eq!(changes.same, tally(2, 2 * BLOCK_SIZE));
        assert_eq!(changes.moved, tally(1, BLOCK_SIZE));
        assert_eq!(changes.new, tally(3, 2 * BLOCK_SIZE + 1000));
        assert_eq!(changes.gone, tally(2, 2 * BLOCK_SIZE));
        assert_eq!(changes.added, tally(2, BLOCK_SIZE + 1000));
        // 1, 2, 3, 6 (zeros now) and 8.
        assert_eq!(changes.differing, tally(5, 4 * BLOCK_SIZE + 1000));
    }

    #[test]
    fn content_that_went_to_another_volume_is_moved() {
        let mut a = image(volume(MIB, &[(0, 1)]));
        a.volumes.push(volume(MIB, &[(1, 2)]));
        let b = image(volume(MIB, &[(0, 2)]));
        let changes = compared(&a, &b);
        assert_eq!((changes.moved.blocks, changes.new.blocks, changes.gone.blocks), (1, 0, 1));
    }

    proptest! {
        #[test]
        fn the_sums_are_those_of_the_volumes(
            a in prop::collection::btree_map(0_u64..40, 0_u8..20, 0..30),
            b in prop::collection::btree_map(0_u64..40, 0_u8..20, 0..30),
        ) {
            let of = |blocks: &std::collections::BTreeMap<u64, u8>| {
                image(volume(20 * MIB, &blocks.iter().map(|(index, id)| (*index, *id)).collect::<Vec<_>>()))
            };
            let (one, other) = (of(&a), of(&b));
            let changes = compared(&one, &other);
            let len = |stretches: &[Stretch]| stretches.iter().map(|stretch| stretch.len).sum::<u64>();
            prop_assert_eq!(len(&changes.before), a.len() as u64);
            prop_assert_eq!(len(&changes.after), b.len() as u64);
            prop_assert_eq!(changes.same.blocks + changes.moved.blocks + changes.new.blocks, b.len() as u64);
            let differing = (0..40).filter(|index| a.get(index) != b.get(index)).count() as u64;
            prop_assert_eq!(changes.differing.blocks, differing);
            prop_assert!(changes.added.blocks <= changes.new.blocks);
            let back = compared(&other, &one);
            prop_assert_eq!(back.same, changes.same);
            prop_assert_eq!(back.differing.blocks, differing);
        }
    }
}
