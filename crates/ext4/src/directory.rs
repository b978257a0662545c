//! The blocks of a folder: one block of names, or, when that is too small, an index over blocks sorted by hash.
//!
//! ```text
//! name    0 inode u32 │ 4 length of record u16 │ 6 length of name u8 │ 7 file type u8 │ 8 name
//!         records fill the block up to its tail; inode 0 marks one without a name
//! tail    4084 zero u32 │ 4088 12 u16 │ 4090 zero u8 │ 4091 de u8 │ 4092 checksum u32
//!
//! root    0 record `.` (12) │ 12 record `..` (to the end) │ 24 zero u32 │ 28 hash version u8 │ 29 8 u8 │ 30 levels u8
//!         31 flags u8 │ 32 pairs
//! node    0 record without a name (to the end) │ 8 pairs
//! pair    0 hash u32 │ 4 block of the folder u32; in the first pair the hash's place holds most u16, count u16
//! tail    4088 zero u32 │ 4092 checksum u32 (root and node)
//! ```
//!
//! An indexed folder is the root, then the nodes (when the root alone cannot hold all pairs), then the leaves.

use std::ops::Range;

use crate::FS_BLOCK;
use crate::bytes::{put16, put32};
use crate::checksum::crc32c;
use crate::name_hash::{NameHash, half_md4};

const BLOCK: usize = FS_BLOCK as usize;
const TAIL: usize = 12;
/// Bytes for names in a block.
const ROOM: usize = BLOCK - TAIL;
/// How far leaves are filled, so that a new name does not split one at once.
const LEAF_FILL: usize = ROOM * 4 / 5;
const HEADER: usize = 8;
const PAIR: usize = 8;
const INDEX_TAIL: usize = 8;
const ROOT_PAIRS_AT: usize = 32;
const NODE_PAIRS_AT: usize = 8;
const ROOT_PAIRS: usize = (BLOCK - ROOT_PAIRS_AT - INDEX_TAIL) / PAIR;
const NODE_PAIRS: usize = (BLOCK - NODE_PAIRS_AT - INDEX_TAIL) / PAIR;
/// Leaves under a root and one level of nodes.
const MOST_LEAVES: usize = ROOT_PAIRS * NODE_PAIRS;
/// Half of MD4. The superblock says that characters are signed.
pub(crate) const HASH_VERSION: u8 = 1;
const TYPE_DIRECTORY: u8 = 2;

const _: () = assert!(ROOT_PAIRS == 507 && NODE_PAIRS == 510);

/// A name in a folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) inode: u32,
    /// The type as folders write it: 1 file, 2 folder, 3 and 4 devices, 5 pipe, 6 socket, 7 link.
    pub(crate) file_type: u8,
}

/// How a folder's names are divided into blocks.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// All in the first block; the other blocks are empty.
    Linear {
        /// How many blocks there are.
        blocks: u64,
    },
    /// Leaves under an index.
    Indexed {
        /// The names by hash.
        order: Vec<(NameHash, usize)>,
        /// The part of `order` in each leaf.
        leaves: Vec<Range<usize>>,
    },
}

/// The folder has more names than a two-level index can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyNames;

fn record(name: &[u8]) -> usize {
    HEADER + name.len().next_multiple_of(4)
}

impl Shape {
    /// The shape of a folder with these names (in their order, `.` and `..` not among them) and at least
    /// `least_blocks` blocks. `seed` is the volume's hash seed.
    pub(crate) fn new<'a>(
        names: impl Iterator<Item = &'a [u8]> + Clone,
        seed: &[u8; 16],
        least_blocks: u64,
    ) -> Result<Self, TooManyNames> {
        let size: usize = names.clone().map(record).sum();
        if record(b".") + record(b"..") + size <= ROOM {
            return Ok(Self::Linear { blocks: least_blocks.max(1) });
        }
        // Sorting millions of names takes long; when they cannot fit, this tells it at once.
        if size > MOST_LEAVES * LEAF_FILL {
            return Err(TooManyNames);
        }
        let mut order: Vec<_> = names.map(|name| (half_md4(name, seed), name)).enumerate().collect();
        order.sort_by_key(|(_, key)| *key);
        let mut leaves = Vec::new();
        let mut first = 0;
        let mut filled = 0;
        for (at, (_, (_, name))) in order.iter().enumerate() {
            if filled + record(name) > LEAF_FILL {
                leaves.push(first..at);
                first = at;
                filled = 0;
            }
            filled += record(name);
        }
        leaves.push(first..order.len());
        if leaves.len() > MOST_LEAVES {
            return Err(TooManyNames);
        }
        Ok(Self::Indexed { order: order.into_iter().map(|(at, (hash, _))| (hash, at)).collect(), leaves })
    }

    pub(crate) fn is_indexed(&self) -> bool {
        matches!(self, Self::Indexed { .. })
    }

    /// How many blocks the folder has.
    pub(crate) fn blocks(&self) -> u64 {
        match self {
            Self::Linear { blocks } => *blocks,
            Self::Indexed { leaves, .. } => (1 + nodes(leaves.len()) + leaves.len()) as u64,
        }
    }

    /// The folder's blocks. `names` are those of [`Shape::new`]; `inode_seed` begins the checksums.
    pub(crate) fn encode(&self, names: &[Name<'_>], inode: u32, parent: u32, inode_seed: u32) -> Vec<u8> {
        let own = Name { name: b".", inode, file_type: TYPE_DIRECTORY };
        let above = Name { name: b"..", inode: parent, file_type: TYPE_DIRECTORY };
        let mut bytes = vec![0; self.blocks() as usize * BLOCK];
        match self {
            Self::Linear { .. } => {
                let mut blocks = bytes.chunks_exact_mut(BLOCK);
                if let Some(first) = blocks.next() {
                    put_names(first, [own, above].into_iter().chain(names.iter().copied()), inode_seed);
                }
                for empty in blocks {
                    put_names(empty, [], inode_seed);
                }
            }
            Self::Indexed { order, leaves } => {
                let nodes = nodes(leaves.len());
                let pairs: Vec<_> = leaves
                    .iter()
                    .enumerate()
                    .map(|(at, leaf)| {
                        let hash = order[leaf.start].0.major;
                        // The lowest bit tells that the block before ends with the same hash.
                        let goes_on = leaf.start > 0 && order[leaf.start - 1].0.major == hash;
                        (hash | u32::from(goes_on), (1 + nodes + at) as u32)
                    })
                    .collect();
                let (root, rest) = bytes.split_at_mut(BLOCK);
                let (node_blocks, leaf_blocks) = rest.split_at_mut(nodes * BLOCK);
                put_record(root, 0, own, record(b"."));
                put_record(root, record(b"."), above, BLOCK - record(b"."));
                root[28] = HASH_VERSION;
                root[29] = 8;
                if nodes == 0 {
                    put_pairs(root, ROOT_PAIRS_AT, ROOT_PAIRS, &pairs, inode_seed);
                } else {
                    root[30] = 1;
                    let mut upper = Vec::with_capacity(nodes);
                    for (at, (node, pairs)) in
                        node_blocks.chunks_exact_mut(BLOCK).zip(pairs.chunks(NODE_PAIRS)).enumerate()
                    {
                        put_record(node, 0, Name { name: b"", inode: 0, file_type: 0 }, BLOCK);
                        put_pairs(node, NODE_PAIRS_AT, NODE_PAIRS, pairs, inode_seed);
                        upper.push((pairs[0].0, (1 + at) as u32));
                    }
                    put_pairs(root, ROOT_PAIRS_AT, ROOT_PAIRS, &upper, inode_seed);
                }
                for (block, leaf) in leaf_blocks.chunks_exact_mut(BLOCK).zip(leaves) {
                    put_names(block, order[leaf.clone()].iter().map(|(_, at)| names[*at]), inode_seed);
                }
            }
        }
        bytes
    }
}

/// How many nodes stand between the root and so many leaves.
fn nodes(leaves: usize) -> usize {
    if leaves <= ROOT_PAIRS { 0 } else { leaves.div_ceil(NODE_PAIRS) }
}

fn put_record(block: &mut [u8], at: usize, name: Name<'_>, length: usize) {
    put32(block, at, name.inode);
    put16(block, at + 4, length as u16);
    block[at + 6] = name.name.len() as u8;
    block[at + 7] = name.file_type;
    block[at + HEADER..at + HEADER + name.name.len()].copy_from_slice(name.name);
}

/// Fills a block with names that fit into it; the last record reaches to the tail.
fn put_names<'a>(block: &mut [u8], names: impl IntoIterator<Item = Name<'a>>, inode_seed: u32) {
    let mut at = 0;
    let mut names = names.into_iter().peekable();
    if names.peek().is_none() {
        put_record(block, 0, Name { name: b"", inode: 0, file_type: 0 }, ROOM);
    }
    while let Some(name) = names.next() {
        let length = if names.peek().is_some() { record(name.name) } else { ROOM - at };
        put_record(block, at, name, length);
        at += length;
    }
    let sum = crc32c(inode_seed, &block[..ROOM]);
    put16(block, ROOM + 4, TAIL as u16);
    block[ROOM + 7] = 0xde;
    put32(block, ROOM + 8, sum);
}

fn put_pairs(block: &mut [u8], at: usize, most: usize, pairs: &[(u32, u32)], inode_seed: u32) {
    for (pair, (hash, target)) in block[at..].chunks_exact_mut(PAIR).zip(pairs) {
        put32(pair, 0, *hash);
        put32(pair, 4, *target);
    }
    put16(block, at, most as u16);
    put16(block, at + 2, pairs.len() as u16);
    let used = crc32c(inode_seed, &block[..at + pairs.len() * PAIR]);
    // The tail's own bytes count as zeros.
    let sum = crc32c(used, &[0; INDEX_TAIL]);
    put32(block, BLOCK - 4, sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: [u8; 16] = [3; 16];

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("{at:0>200}")).collect()
    }

    fn shape(names: &[String], least: u64) -> Shape {
        Shape::new(names.iter().map(|name| name.as_bytes()), &SEED, least).unwrap()
    }

    fn pairs(block: &[u8], at: usize) -> Vec<(u32, u32)> {
        let count = u16::from_le_bytes([block[at + 2], block[at + 3]]);
        let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        (0..usize::from(count)).map(|pair| (word(at + pair * PAIR), word(at + pair * PAIR + 4))).collect()
    }

    #[test]
    fn a_block_is_filled_to_its_tail_before_there_is_an_index() {
        // 208 bytes a record: 4084 - 24 take 19 of them, and 108 bytes are left.
        assert!(!shape(&names(19), 1).is_indexed());
        assert!(shape(&names(20), 1).is_indexed());
        let mut full = names(19);
        full.push("x".repeat(100));
        assert!(!shape(&full, 1).is_indexed());
        full[19].push('x');
        assert!(shape(&full, 1).is_indexed());
        assert_eq!(shape(&names(3), 4).blocks(), 4);
    }

    #[test]
    fn the_root_holds_507_leaves_and_then_nodes_come() {
        // 15 names fill a leaf to four fifths.
        let below = shape(&names(15 * 507), 1);
        assert_eq!(below.blocks(), 1 + 507);
        let above = shape(&names(15 * 507 + 1), 1);
        assert_eq!(above.blocks(), 1 + 1 + 508);
        let inodes = names(15 * 511);
        let two = shape(&inodes, 1);
        assert_eq!(two.blocks(), 1 + 2 + 511);
        let names: Vec<_> =
            inodes.iter().map(|name| Name { name: name.as_bytes(), inode: 12, file_type: 1 }).collect();
        let bytes = two.encode(&names, 12, 2, 0);
        assert_eq!(bytes[30], 1);
        let upper = pairs(&bytes[..BLOCK], ROOT_PAIRS_AT);
        assert_eq!(upper.iter().map(|(_, block)| *block).collect::<Vec<_>>(), [1, 2]);
        let first = pairs(&bytes[BLOCK..2 * BLOCK], NODE_PAIRS_AT);
        let second = pairs(&bytes[2 * BLOCK..3 * BLOCK], NODE_PAIRS_AT);
        assert_eq!((first.len(), second.len()), (510, 1));
        assert_eq!((first[0].1, second[0].1), (3, 513));
        assert!(upper[1].0 >= first[509].0);
        assert!(first[1..].is_sorted());
    }

    #[test]
    fn a_hash_that_goes_on_in_the_next_leaf_is_marked() {
        let hash = |major| NameHash { major, minor: 0 };
        let order = [2, 8, 8, 8, 10].into_iter().enumerate().map(|(at, major)| (hash(major), at)).collect();
        let shape = Shape::Indexed { order, leaves: vec![0..2, 2..3, 3..4, 4..5] };
        let names = [Name { name: b"n", inode: 12, file_type: 1 }; 5];
        let bytes = shape.encode(&names, 11, 2, 0);
        let hashes: Vec<_> =
            pairs(&bytes[..BLOCK], ROOT_PAIRS_AT)[1..].iter().map(|(hash, _)| *hash).collect();
        assert_eq!(hashes, [9, 9, 10]);
    }

    #[test]
    fn a_folder_that_no_index_can_hold_is_refused() {
        let name = "n".repeat(255);
        let names = std::iter::repeat_n(name.as_bytes(), MOST_LEAVES * LEAF_FILL / 264 + 1);
        assert!(matches!(Shape::new(names, &SEED, 1), Err(TooManyNames)));
    }
}
