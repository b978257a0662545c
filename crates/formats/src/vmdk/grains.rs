//! A block of the disk as compressed grains, and how such a block is kept in a cache.

use block::{BLOCK_SIZE, Digest, Hasher};
use libdeflater::{CompressionLvl, Compressor, Crc};

use super::DEFLATE;
use super::format::{GRAIN, GRAIN_MARKER, GRAIN_SECTORS, SECTOR, grain_marker, u32_at};

/// Grains in a block.
pub(super) const GRAINS: usize = (BLOCK_SIZE / GRAIN) as usize;

/// Keeps compressed blocks from one writing to the next.
///
/// The writer checks what it gets: an entry that is damaged, or was made by another compressor, counts as missing and is
/// replaced. Errors of a cache are its own affair: it then has nothing.
pub trait GrainCache: Sync {
    /// What was put for a block: `block` is the SHA-256 of its 512 KiB, zero-padded.
    fn get(&self, block: &Digest) -> Option<Vec<u8>>;

    /// Keeps the entry of a block, in place of an earlier one. It has at most 530,000 bytes.
    fn put(&self, block: &Digest, entry: &[u8]);
}

/// The grains of one block, ready to be put into the file one after another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Packed {
    /// Those that hold data, in order.
    pub(super) grains: Vec<Grain>,
    /// Markers and streams, each grain padded to whole sectors.
    pub(super) bytes: Vec<u8>,
}

/// Where a grain lies in [`Packed::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grain {
    /// Which grain of the block.
    pub(super) index: usize,
    /// Its first sector in the bytes.
    pub(super) sector: u32,
    /// Length of its zlib stream.
    pub(super) len: u32,
    /// CRC-32 of its zlib stream.
    pub(super) crc: u32,
}

impl Packed {
    /// Adds a grain's stream as grain `index` of block number `block`.
    fn push(&mut self, block: u64, index: usize, stream: &[u8], crc: u32) {
        let (sector, len) = ((self.bytes.len() as u64 / SECTOR) as u32, stream.len() as u32);
        self.grains.push(Grain { index, sector, len, crc });
        let place = (block * GRAINS as u64 + index as u64) * GRAIN_SECTORS;
        self.bytes.extend_from_slice(&grain_marker(place, len));
        self.bytes.extend_from_slice(stream);
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTOR as usize), 0);
    }

    fn stream(&self, grain: &Grain) -> &[u8] {
        let start = grain.sector as usize * SECTOR as usize + GRAIN_MARKER;
        &self.bytes[start..start + grain.len as usize]
    }

    /// The block as a cache entry: [`ENTRY_MAGIC`], the key, for each grain length and CRC-32 of its stream (0 when it
    /// holds no data), the streams.
    pub(super) fn to_entry(&self, block: &Digest) -> Vec<u8> {
        let mut table = [0; 8 * GRAINS];
        let mut streams = Vec::new();
        for grain in &self.grains {
            table[8 * grain.index..][..4].copy_from_slice(&grain.len.to_le_bytes());
            table[8 * grain.index + 4..][..4].copy_from_slice(&grain.crc.to_le_bytes());
            streams.push(self.stream(grain));
        }
        [&ENTRY_MAGIC, &entry_key(block).0[..], &table, &streams.concat()].concat()
    }

    /// Reads a cache entry for block number `number` whose content is `block`. `None` when the entry is another's or
    /// damaged.
    pub(super) fn from_entry(entry: &[u8], block: &Digest, number: u64) -> Option<Self> {
        let (magic, rest) = entry.split_at_checked(ENTRY_MAGIC.len())?;
        let (key, rest) = rest.split_at_checked(32)?;
        let (table, mut streams) = rest.split_at_checked(8 * GRAINS)?;
        if magic != ENTRY_MAGIC || key != entry_key(block).0 {
            return None;
        }
        let mut packed = Self::default();
        packed.bytes.reserve(streams.len() + GRAINS * 2 * SECTOR as usize);
        for index in 0..GRAINS {
            let (len, crc) = (u32_at(table, 8 * index), u32_at(table, 8 * index + 4));
            let (stream, rest) = streams.split_at_checked(len as usize)?;
            streams = rest;
            if crc32(stream) != crc {
                return None;
            }
            if len > 0 {
                packed.push(number, index, stream, crc);
            }
        }
        (streams.is_empty() && !packed.grains.is_empty()).then_some(packed)
    }
}

/// The first bytes of a cache entry. Another layout needs another number at their end.
const ENTRY_MAGIC: [u8; 8] = *b"BHGRAIN1";

/// Binds an entry to its block and to the compressor.
fn entry_key(block: &Digest) -> Digest {
    let (library, version, level) = DEFLATE;
    let mut hasher = Hasher::new();
    for field in
        [b"bakehouse grains 1", library.as_bytes(), version.as_bytes(), &level.to_le_bytes(), &block.0]
    {
        hasher.field(field);
    }
    hasher.finish()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Compresses blocks; one for each thread.
pub(super) struct Packer {
    compressor: Compressor,
    stream: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> Self {
        let level = CompressionLvl::new(DEFLATE.2 as i32).expect("a level that the library has");
        let mut compressor = Compressor::new(level);
        let stream = vec![0; compressor.zlib_compress_bound(GRAIN as usize)];
        Self { compressor, stream }
    }

    /// Compresses block number `number`, whose bytes are `block`, zero-padded.
    pub(super) fn pack(&mut self, number: u64, block: &[u8]) -> Packed {
        let mut packed = Packed::default();
        for (index, grain) in block.chunks(GRAIN as usize).enumerate() {
            if is_zero(grain) {
                continue;
            }
            let len = self.compressor.zlib_compress(grain, &mut self.stream);
            let stream = &self.stream[..len.expect("the buffer is as large as the library asks for")];
            packed.push(number, index, stream, crc32(stream));
        }
        packed
    }
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}
