//! Snapshots of blocks that are nowhere: for measuring how a store grows without writing terabytes.

use block::{BLOCK_SIZE, Digest, snapshot_digest};

use crate::Error;
use crate::commit::Change;
use crate::format::{BlockPlace, Claims, Codec, Name, Snapshot, SnapshotId, derived_id};
use crate::store::Store;

/// Blocks that a simulated pack has.
const PER_PACK: u64 = 400;
/// Bytes of a simulated frame.
const FRAME: u32 = 160 * 1024;

impl Store {
    /// Commits a snapshot as a put does, whose blocks are those of `known` and `new`, in this order; the new ones are said to lie
    /// in packs, of which none is written. Lists, lookups, marks and sweeps work; reading a block does not.
    #[doc(hidden)]
    pub fn simulate(&self, name: &str, known: &[Digest], new: &[Digest]) -> Result<SnapshotId, Error> {
        let generation = self.refresh()?.root.generation;
        let blocks: Vec<(u64, Digest)> = (0..).zip(known.iter().chain(new).copied()).collect();
        let size = blocks.len() as u64 * BLOCK_SIZE;
        let digest = snapshot_digest(size, blocks.iter().copied());
        let id = derived_id(name, digest);
        let place = |(at, id): (u64, &Digest)| {
            let pack = Digest::of(&[name.as_bytes(), &(at / PER_PACK).to_le_bytes()].concat());
            let offset = 24 + (at % PER_PACK) as u32 * FRAME;
            let place = BlockPlace {
                pack: Name { generation, digest: pack },
                offset,
                len: FRAME,
                codec: Codec::Zstd,
            };
            (*id, place)
        };
        let name = name.to_owned();
        self.commit(Change {
            generation,
            entries: (0..).zip(new).map(place).collect(),
            pack: None,
            origins: Vec::new(),
            claims: Claims::default(),
            snapshot: Snapshot { id, name, size, parent: None, time: 0, digest, blocks },
        })?;
        Ok(id)
    }
}
