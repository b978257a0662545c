use std::io;

use rayon::prelude::*;

use crate::{BLOCK_SIZE, BlockSource, Digest, Hasher, lanes};

/// [`BLOCK_SIZE`] as a length in memory.
const BLOCK_LEN: usize = BLOCK_SIZE as usize;
/// Zeros to compare with.
const ZEROS: [u8; 4096] = [0; 4096];
/// How many neighbouring blocks one thread takes at least: 4 MiB, so that reads run on.
const RUN: usize = 8;

/// A part of a disk could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the disk's bytes {from} to {to} could not be read")]
pub struct ReadError {
    /// First byte wanted.
    pub from: u64,
    /// First byte not wanted any more.
    pub to: u64,
    /// What went wrong.
    pub source: io::Error,
}

/// One block of a disk while its bytes are in memory.
#[derive(Debug)]
pub struct Block<'a> {
    /// Which block: its offset divided by [`BLOCK_SIZE`].
    pub index: u64,
    /// Its bytes as far as the disk reaches, [`BLOCK_SIZE`] but in a last block that is cut short.
    pub bytes: &'a [u8],
    /// The runs `(offset, len)` of the disk, never empty, that have data in this block: sorted, cut at its ends.
    pub data: &'a [(u64, u64)],
    /// SHA-256 of the block, padded with zeros to [`BLOCK_SIZE`]; none when every byte is zero.
    pub id: Option<Digest>,
}

impl Block<'_> {
    /// Where the block's first byte is on the disk.
    pub fn offset(&self) -> u64 {
        self.index * BLOCK_SIZE
    }

    /// The bytes of one of the runs in [`Block::data`].
    pub fn run(&self, (offset, len): (u64, u64)) -> &[u8] {
        let start = (offset - self.offset()) as usize;
        &self.bytes[start..start + len as usize]
    }
}

/// The id of one block: the SHA-256 of its bytes, padded with zeros to [`BLOCK_SIZE`]. None when all of them are
/// zero: such a block has no id.
pub fn block_id(bytes: &[u8]) -> Option<Digest> {
    debug_assert!(bytes.len() <= BLOCK_LEN, "more than a block");
    if is_zero(bytes) {
        return None;
    }
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    let mut missing = BLOCK_LEN.saturating_sub(bytes.len());
    while missing > 0 {
        let piece = missing.min(ZEROS.len());
        hasher.update(&ZEROS[..piece]);
        missing -= piece;
    }
    Some(hasher.finish())
}

/// [`block_id`] of several whole blocks, which takes less than half the time for four than for each alone. A block that is not
/// whole is hashed by itself.
pub fn block_ids_of(blocks: &[&[u8]]) -> Vec<Option<Digest>> {
    let mut ids = vec![None; blocks.len()];
    let mut whole: Vec<usize> = Vec::with_capacity(blocks.len());
    for (at, block) in blocks.iter().enumerate() {
        match block.len() == BLOCK_LEN && !is_zero(block) {
            true => whole.push(at),
            false => ids[at] = block_id(block),
        }
    }
    let mut rest = &whole[..];
    while !rest.is_empty() {
        let (lanes, others) = rest.split_at(match rest.len() {
            1 => 1,
            2 | 3 => 2,
            _ => 4,
        });
        rest = others;
        let digests = match *lanes {
            [a, b, c, d] => whole_digests([blocks[a], blocks[b], blocks[c], blocks[d]]).map(Vec::from),
            [a, b] => whole_digests([blocks[a], blocks[b]]).map(Vec::from),
            _ => None,
        };
        let digests = digests.unwrap_or_else(|| lanes.iter().map(|at| Digest::of(blocks[*at])).collect());
        for (at, digest) in lanes.iter().zip(digests) {
            ids[*at] = Some(digest);
        }
    }
    ids
}

/// The SHA-256 of whole blocks, side by side; `None` where the processor cannot do that.
fn whole_digests<const N: usize>(blocks: [&[u8]; N]) -> Option<[Digest; N]> {
    // What ends every message of this length: a bit, zeros, the length in bits.
    let mut end = [0; 64];
    end[0] = 0x80;
    end[56..].copy_from_slice(&(BLOCK_SIZE * 8).to_be_bytes());
    let states = lanes::compress(blocks)?;
    Some(states.map(|mut state| {
        lanes::step(&mut state, &end);
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        Digest(digest)
    }))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|piece| *piece == ZEROS[..piece.len()])
}

/// `(index, id)` of every block of a disk that is not all zero, by index: [`hash_blocks`] with nothing to do beside.
pub fn block_ids(source: &dyn BlockSource) -> Result<Vec<(u64, Digest)>, ReadError> {
    hash_blocks(source, |_| Ok(()))
}

/// Reads every block of a disk that has data, once, and gives `(index, id)` of those that are not all zero, by index.
/// `visit` sees each block that was read while its bytes are in memory, those that turn out to be all zero too: who
/// writes an image file hashes the same bytes on the way. It is called from all of rayon's threads, in any order.
///
/// Holes are neither read nor hashed. Takes one block of memory for each piece of work under way, and 16 bytes for
/// each run of data. Ends at the first error, of a read or of `visit`.
pub fn hash_blocks<E: From<ReadError> + Send>(
    source: &dyn BlockSource,
    visit: impl Fn(&Block<'_>) -> Result<(), E> + Sync,
) -> Result<Vec<(u64, Digest)>, E> {
    let size = source.len();
    let runs = cut_at_blocks(source.data());
    let blocks: Vec<&[(u64, u64)]> = runs.chunk_by(|a, b| a.0 / BLOCK_SIZE == b.0 / BLOCK_SIZE).collect();
    let ids = blocks.par_iter().with_min_len(RUN).map_init(
        || vec![0; BLOCK_LEN],
        |buffer, data| {
            let (first, last) = (data[0], data[data.len() - 1]);
            let index = first.0 / BLOCK_SIZE;
            let start = index * BLOCK_SIZE;
            let (from, to) = (first.0, last.0 + last.1);
            let (low, high) = ((from - start) as usize, (to - start) as usize);
            buffer[..low].fill(0);
            buffer[high..].fill(0);
            source.read_at(from, &mut buffer[low..high]).map_err(|source| ReadError { from, to, source })?;
            let id = block_id(buffer);
            let bytes = &buffer[..BLOCK_SIZE.min(size - start) as usize];
            visit(&Block { index, bytes, data, id })?;
            Ok(id.map(|id| (index, id)))
        },
    );
    let ids: Result<Vec<Option<(u64, Digest)>>, E> = ids.collect();
    Ok(ids?.into_iter().flatten().collect())
}

/// Runs of data, cut where blocks end; runs that touch within a block are joined.
pub fn cut_at_blocks(data: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (offset, len) in data {
        let (mut start, end) = (offset, offset + len);
        while start < end {
            let stop = end.min((start / BLOCK_SIZE + 1) * BLOCK_SIZE);
            match runs
                .last_mut()
                .filter(|(last, len)| last + *len == start && !start.is_multiple_of(BLOCK_SIZE))
            {
                Some((_, len)) => *len += stop - start,
                None => runs.push((start, stop - start)),
            }
            start = stop;
        }
    }
    runs
}

/// The digest that identifies a snapshot: its volume's size in bytes and `(index, id)` of every block that is not all
/// zero, which must come by rising index. SHA-256 over these bytes, numbers as u64, little-endian:
///
/// | bytes | what |
/// | --- | --- |
/// | 8 | 20, the length of what follows |
/// | 20 | `bakehouse snapshot 1`: the format and its version |
/// | 8 | the volume's size in bytes |
/// | 8 | index of the first block |
/// | 32 | its id |
/// | … | index and id of the next, and so on |
pub fn snapshot_digest(size: u64, blocks: impl IntoIterator<Item = (u64, Digest)>) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field(b"bakehouse snapshot 1");
    hasher.update(&size.to_le_bytes());
    let mut next = 0;
    for (index, id) in blocks {
        debug_assert!(index >= next, "blocks out of order");
        next = index + 1;
        hasher.update(&index.to_le_bytes());
        hasher.update(&id.0);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;
    use crate::{BlockMapBuilder, Content, MIB, Origin};

    const TEST: Origin = Origin::Structure("test");

    /// The slow and plain way.
    fn expected(bytes: &[u8]) -> Vec<(u64, Digest)> {
        let blocks =
            bytes.chunks(BLOCK_LEN).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
        blocks
            .map(|(index, block)| {
                let mut padded = block.to_vec();
                padded.resize(BLOCK_LEN, 0);
                (index as u64, Digest::of(&padded))
            })
            .collect()
    }

    #[test]
    fn the_format_of_snapshots_and_ids_stays() {
        assert_eq!(
            snapshot_digest(0, []).to_hex(),
            "48b2cd8803feb6b7f06658963cce3488ece6516acabc83739bbd04edee3330c8"
        );
        let id = block_id(b"block").unwrap();
        assert_eq!(id.to_hex(), "87d48239439b4e927a8ea3986501bd75d1b943b9d2c6a45aa2b95aae535be295");
        assert_eq!(
            snapshot_digest(8 << 30, [(0, id), (7, id)]).to_hex(),
            "e1e75f7add6d7868af89af77d75d2b5daa4d3ee80c1b5d2083ea3877de2a3912"
        );
    }

    #[test]
    fn the_documented_bytes_are_what_is_hashed() {
        let id = Digest::of(b"x");
        let mut bytes = b"\x14\0\0\0\0\0\0\0bakehouse snapshot 1\0\0\x10\0\0\0\0\0".to_vec();
        for index in [1u64, 2] {
            bytes.extend(index.to_le_bytes());
            bytes.extend(id.0);
        }
        assert_eq!(snapshot_digest(MIB, [(1, id), (2, id)]), Digest::of(&bytes));
    }

    #[test]
    fn a_block_of_zeros_has_no_id_and_padding_changes_nothing() {
        assert_eq!(block_id(&[]), None);
        assert_eq!(block_id(&vec![0; BLOCK_LEN]), None);
        let mut block = vec![0; BLOCK_LEN];
        block[..5].copy_from_slice(b"block");
        assert_eq!(block_id(&block), block_id(b"block"));
        assert_eq!(block_id(&block), Some(Digest::of(&block)));
        block[BLOCK_LEN - 1] = 1;
        assert_eq!(block_id(&block), Some(Digest::of(&block)));
    }

    #[test]
    fn blocks_hashed_side_by_side_have_the_same_ids() {
        let blocks: Vec<Vec<u8>> = (0..11u32)
            .map(|seed| match seed {
                3 => vec![0; BLOCK_LEN],
                7 => vec![7; 1000],
                seed => (0..BLOCK_LEN as u32).map(|at| (at.wrapping_mul(seed * 2 + 9) >> 7) as u8).collect(),
            })
            .collect();
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        for from in 0..blocks.len() {
            for to in from..=blocks.len() {
                let one_by_one: Vec<_> = blocks[from..to].iter().map(|block| block_id(block)).collect();
                assert_eq!(block_ids_of(&blocks[from..to]), one_by_one, "{from}..{to}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        struct Broken;
        impl BlockSource for Broken {
            fn len(&self) -> u64 {
                8 * MIB
            }
            fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
                Box::new([(MIB, 4096)].into_iter())
            }
            fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
                Err(io::Error::other("broken"))
            }
        }
        let error = block_ids(&Broken).unwrap_err();
        assert_eq!((error.from, error.to), (MIB, MIB + 4096));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn hashed_and_seen_blocks_are_those_of_the_disk(
            pieces in prop::collection::vec((0u64..200_000, 1usize..700_000, any::<bool>()), 0..6),
            end in 0u64..600_000,
        ) {
            let mut builder = BlockMapBuilder::new();
            let mut bytes = Vec::new();
            for (hole, len, zero) in pieces {
                let start = bytes.len() + hole as usize;
                bytes.resize(start, 0);
                bytes.extend((0..len).map(|i| if zero { 0 } else { (i % 251) as u8 }));
                builder.push_all(start as u64, Content::from_bytes(bytes[start..].to_vec()), TEST);
            }
            bytes.resize(bytes.len() + end as usize, 0);
            let map = builder.finish(bytes.len() as u64).unwrap();
            let written = Mutex::new(vec![0; bytes.len()]);
            let ids = hash_blocks(&map, |block| {
                let mut written = written.lock().unwrap();
                for run in block.data {
                    written[run.0 as usize..(run.0 + run.1) as usize].copy_from_slice(block.run(*run));
                }
                Ok::<_, ReadError>(())
            })
            .unwrap();
            prop_assert_eq!(&ids, &expected(&bytes));
            prop_assert_eq!(&ids, &block_ids(&map).unwrap());
            prop_assert!(written.into_inner().unwrap() == bytes);
        }
    }
}
