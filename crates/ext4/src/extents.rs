//! Extent trees: which blocks of the volume are which blocks of a file.
//!
//! Every node, and the 60 bytes in the inode that are the root, begins with a header; the entries follow:
//!
//! ```text
//! header   0 magic f30a │ 2 entries u16 │ 4 most entries u16 │ 6 depth u16 │ 8 generation u32
//! leaf     0 first file block u32 │ 4 length u16 │ 6 block, high u16 │ 8 block, low u32
//! index    0 first file block u32 │ 4 node, low u32 │ 8 node, high u16 │ 10 unused u16
//! tail     4092 checksum u32 (not in the root)
//! ```

use crate::bytes::{high32, low16, low32, put16, put32};
use crate::checksum::crc32c;
use crate::{FS_BLOCK, Run};

/// Bytes of the root in the inode.
pub(crate) const ROOT_SIZE: usize = 60;
const MAGIC: u16 = 0xf30a;
const HEADER: usize = 12;
const ENTRY: usize = 12;
/// Most entries of the root.
const ROOT_ENTRIES: usize = (ROOT_SIZE - HEADER) / ENTRY;
/// Most entries of a node of its own.
const NODE_ENTRIES: usize = (FS_BLOCK as usize - HEADER) / ENTRY;
const TAIL: usize = HEADER + NODE_ENTRIES * ENTRY;
/// Most blocks of one extent.
const EXTENT_BLOCKS: u64 = 32_768;

const _: () = assert!(ROOT_ENTRIES == 4 && NODE_ENTRIES == 340 && TAIL == 4092);

/// One extent, or one pointer to a node.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// First block of the file.
    logical: u32,
    /// Length of an extent; nothing for a pointer.
    blocks: u16,
    /// Block of the volume.
    target: u64,
}

/// A file's extents, before the nodes of their tree have places.
#[derive(Clone, Debug)]
pub(crate) struct ExtentList(Vec<Link>);

impl ExtentList {
    /// The extents of a file that lies in these runs, one after the other.
    pub(crate) fn new(runs: &[Run]) -> Self {
        let mut links = Vec::with_capacity(runs.len());
        let mut logical = 0;
        let mut rest = runs.iter().copied().peekable();
        while let Some(mut run) = rest.next() {
            while let Some(next) = rest.next_if(|next| next.start == run.end()) {
                run.blocks += next.blocks;
            }
            let mut start = run.start;
            while start < run.end() {
                let blocks = EXTENT_BLOCKS.min(run.end() - start);
                links.push(Link { logical: low32(logical), blocks: blocks as u16, target: start });
                logical += blocks;
                start += blocks;
            }
        }
        Self(links)
    }

    /// How many blocks the nodes of the tree need.
    pub(crate) fn node_count(&self) -> u64 {
        let mut count = 0;
        let mut width = self.0.len();
        while width > ROOT_ENTRIES {
            width = width.div_ceil(NODE_ENTRIES);
            count += width as u64;
        }
        count
    }

    /// The root, and the nodes with their blocks. `nodes` gives [`Self::node_count`] blocks; `inode_seed` begins the
    /// checksums.
    pub(crate) fn tree(
        self,
        nodes: &mut impl Iterator<Item = u64>,
        inode_seed: u32,
    ) -> ([u8; ROOT_SIZE], Vec<(u64, Vec<u8>)>) {
        let mut level = self.0;
        let mut depth = 0;
        let mut written = Vec::new();
        while level.len() > ROOT_ENTRIES {
            let mut above = Vec::with_capacity(level.len().div_ceil(NODE_ENTRIES));
            for (links, block) in level.chunks(NODE_ENTRIES).zip(nodes.by_ref()) {
                let mut node = vec![0; FS_BLOCK as usize];
                put_node(&mut node, links, NODE_ENTRIES, depth);
                let sum = crc32c(inode_seed, &node[..TAIL]);
                put32(&mut node, TAIL, sum);
                above.push(Link { logical: links[0].logical, blocks: 0, target: block });
                written.push((block, node));
            }
            level = above;
            depth += 1;
        }
        let mut root = [0; ROOT_SIZE];
        put_node(&mut root, &level, ROOT_ENTRIES, depth);
        (root, written)
    }
}

fn put_node(node: &mut [u8], links: &[Link], most: usize, depth: u16) {
    put16(node, 0, MAGIC);
    put16(node, 2, links.len() as u16);
    put16(node, 4, most as u16);
    put16(node, 6, depth);
    for (link, entry) in links.iter().zip(node[HEADER..].chunks_exact_mut(ENTRY)) {
        put32(entry, 0, link.logical);
        if depth == 0 {
            put16(entry, 4, link.blocks);
            put16(entry, 6, low16(high32(link.target)));
            put32(entry, 8, low32(link.target));
        } else {
            put32(entry, 4, low32(link.target));
            put16(entry, 8, low16(high32(link.target)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_touch_are_one_extent_and_long_ones_are_split() {
        let list = ExtentList::new(&[
            Run { start: 10, blocks: 5 },
            Run { start: 15, blocks: 40_000 },
            Run { start: 3, blocks: 1 },
        ]);
        let shape: Vec<_> = list.0.iter().map(|link| (link.logical, link.blocks, link.target)).collect();
        assert_eq!(shape, [(0, 32_768, 10), (32_768, 7237, 32_778), (40_005, 1, 3)]);
    }

    #[test]
    fn nodes_are_counted_as_they_are_written() {
        for pieces in [0, 1, 4, 5, 340, 341, 1360, 1361, 4 * 340 * 340, 4 * 340 * 340 + 1] {
            let runs: Vec<_> = (0..pieces).map(|piece| Run { start: piece * 2, blocks: 1 }).collect();
            let list = ExtentList::new(&runs);
            let count = list.node_count();
            let (root, nodes) = list.tree(&mut (1 << 33..), 0);
            assert_eq!(nodes.len() as u64, count, "{pieces} pieces");
            let depth = u16::from_le_bytes([root[6], root[7]]);
            assert_eq!(depth, [4, 1360, 462_400].iter().filter(|limit| pieces > **limit).count() as u16);
        }
    }
}
