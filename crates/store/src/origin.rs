//! Blocks whose origin tells their bytes.

use std::collections::{HashMap, HashSet, VecDeque};

use block::{BLOCK_SIZE, BlockMap, Digest, Extent, Hasher};

use crate::format::{ClaimRun, ClaimedContent, Claims};
use crate::put::Learned;

/// The extents that have bytes in a block.
fn extents_of(map: &BlockMap, index: u64) -> impl Iterator<Item = &Extent> {
    let (start, end) = (index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE);
    let first = map.extents().partition_point(|extent| extent.end() <= start);
    map.extents()[first..].iter().take_while(move |extent| extent.offset < end)
}

/// The key of a block's origin: SHA-256 over `bakehouse origin 1` with its length before it, and for each piece of content in the block
/// its offset in the block, the content's digest, the piece's offset in the content and its length, numbers as u64, little-endian.
pub(crate) fn key(map: &BlockMap, index: u64) -> Digest {
    let (start, end) = (index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE);
    let mut hasher = Hasher::new();
    hasher.field(b"bakehouse origin 1");
    for extent in extents_of(map, index) {
        let (from, to) = (extent.offset.max(start), extent.end().min(end));
        hasher.update(&(from - start).to_le_bytes());
        hasher.update(&extent.content.id().0);
        hasher.update(&(extent.content_offset + (from - extent.offset)).to_le_bytes());
        hasher.update(&(to - from).to_le_bytes());
    }
    hasher.finish()
}

/// Keeps of the origins that were learned those that can be proved, and makes the claims that prove them: every content
/// in a block must lie whole on the disk, so that its bytes can be hashed and held against its digest.
pub(crate) fn prove(
    map: &BlockMap,
    blocks: &[(u64, Digest)],
    learned: Vec<Learned>,
) -> (Vec<Learned>, Claims) {
    let new: HashSet<u64> = learned.iter().map(|learned| learned.index).collect();
    let mut touched: HashMap<Digest, Vec<&Extent>> = HashMap::new();
    for learned in &learned {
        for extent in extents_of(map, learned.index) {
            touched.entry(extent.content.id()).or_default();
        }
    }
    for extent in map.extents() {
        if let Some(extents) = touched.get_mut(&extent.content.id()) {
            extents.push(extent);
        }
    }
    // In the order of the disk, so that the claims are the same each time.
    let mut contents: Vec<(u64, Digest, Vec<&Extent>)> =
        touched.into_iter().map(|(digest, extents)| (extents[0].offset, digest, extents)).collect();
    contents.sort_by_key(|(offset, digest, _)| (*offset, *digest));
    let mut claims = Claims::default();
    let mut numbers = HashMap::new();
    let mut unproved: HashSet<u64> = HashSet::new();
    for (_, digest, extents) in contents {
        let (whole, rest) = chains(extents);
        for chain in whole {
            let indices = || chain.iter().flat_map(|extent| blocks_of(extent));
            if !indices().any(|index| new.contains(&index)) {
                continue;
            }
            let runs = chain.iter().flat_map(|extent| pieces(extent)).map(|(index, offset, len)| {
                let block = *numbers.entry(index).or_insert_with(|| {
                    let at = blocks.binary_search_by_key(&index, |(index, _)| *index);
                    claims.blocks.push(at.map_or(Digest([0; 32]), |at| blocks[at].1));
                    claims.blocks.len() as u32 - 1
                });
                ClaimRun { block, offset, len }
            });
            let runs = runs.collect();
            claims.contents.push(ClaimedContent { digest, runs });
        }
        unproved.extend(rest.iter().flat_map(|extent| blocks_of(extent)));
    }
    let proved = learned.into_iter().filter(|learned| !unproved.contains(&learned.index)).collect();
    (proved, claims)
}

/// The blocks in which an extent has bytes.
fn blocks_of(extent: &Extent) -> impl Iterator<Item = u64> + use<> {
    extent.offset / BLOCK_SIZE..extent.end().div_ceil(BLOCK_SIZE)
}

/// An extent cut at blocks: index, offset in the block, length.
fn pieces(extent: &Extent) -> impl Iterator<Item = (u64, u32, u32)> + use<> {
    let (start, end) = (extent.offset, extent.end());
    blocks_of(extent).map(move |index| {
        let (from, to) = (start.max(index * BLOCK_SIZE), end.min((index + 1) * BLOCK_SIZE));
        (index, (from - index * BLOCK_SIZE) as u32, (to - from) as u32)
    })
}

/// Extents of one content as chains that have it whole, and those that are in none.
fn chains(mut extents: Vec<&Extent>) -> (Vec<Vec<&Extent>>, Vec<&Extent>) {
    extents.sort_by_key(|extent| (extent.content_offset, extent.offset));
    let mut chains: Vec<Vec<&Extent>> = Vec::new();
    // Which chains end at a place of the content, earliest first: the next extent goes on from the first of them.
    let mut ends: HashMap<u64, VecDeque<usize>> = HashMap::new();
    let mut rest = Vec::new();
    for extent in extents {
        let chain = match extent.content_offset {
            0 => {
                chains.push(Vec::new());
                chains.len() - 1
            }
            at => match ends.get_mut(&at).and_then(VecDeque::pop_front) {
                Some(chain) => chain,
                None => {
                    rest.push(extent);
                    continue;
                }
            },
        };
        chains[chain].push(extent);
        ends.entry(extent.content_offset + extent.len).or_default().push_back(chain);
    }
    let is_whole = |chain: &Vec<&Extent>| {
        chain.last().is_some_and(|last| last.content_offset + last.len == last.content.len())
    };
    let (whole, cut): (Vec<_>, Vec<_>) = chains.into_iter().partition(is_whole);
    rest.extend(cut.into_iter().flatten());
    (whole, rest)
}

#[cfg(test)]
mod tests {
    use block::{BlockMapBuilder, Content, Origin};

    use super::*;

    /// A map in which pieces `(content, from, to)` of contents lie one after another, with a byte between them.
    fn map(contents: &[Content], pieces: &[(usize, u64, u64)]) -> BlockMap {
        let mut builder = BlockMapBuilder::new();
        let mut at = 0;
        for (content, from, to) in pieces {
            builder.push(at, to - from, contents[*content].clone(), *from, Origin::Structure("test"));
            at += to - from + 1;
        }
        builder.finish(at).unwrap()
    }

    #[test]
    fn pieces_are_chained_in_the_order_of_the_disk() {
        let contents = [Content::from_bytes(vec![1; 30])];
        let map =
            map(&contents, &[(0, 0, 10), (0, 10, 30), (0, 0, 10), (0, 10, 20), (0, 20, 30), (0, 5, 10)]);
        let (whole, rest) = chains(map.extents().iter().collect());
        let places = |extents: &[&Extent]| extents.iter().map(|extent| extent.offset).collect::<Vec<_>>();
        assert_eq!(
            whole.iter().map(|chain| places(chain)).collect::<Vec<_>>(),
            [vec![0, 11], vec![32, 43, 54]]
        );
        assert_eq!(places(&rest), [65]);
    }

    #[test]
    fn a_content_that_lies_everywhere_is_chained_in_one_pass() {
        let contents = [Content::from_bytes(vec![1; 20])];
        let pieces: Vec<_> = (0..200_000).flat_map(|_| [(0, 0, 10), (0, 10, 20)]).collect();
        let map = map(&contents, &pieces);
        let (whole, rest) = chains(map.extents().iter().collect());
        assert_eq!((whole.len(), rest.len()), (200_000, 0));
    }
}
