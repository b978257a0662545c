use std::collections::HashMap;

use block::{BLOCK_SIZE, Digest};

use super::FormatError;
use super::wire::{Reader, Writer};

const MAGIC: &[u8; 8] = b"BKHCLAIM";
const WHAT: &str = "list of claimed contents";
const RUN: usize = 12;

/// A piece of a content as it lies in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimRun {
    /// Which of [`Claims::blocks`].
    pub block: u32,
    /// Where in the block the piece begins.
    pub offset: u32,
    /// Bytes of the piece, never zero, never past the block's end.
    pub len: u32,
}

/// A content whose digest was claimed by the source that had it, as it lies in blocks of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedContent {
    /// The SHA-256 that it is said to have.
    pub digest: Digest,
    /// Its pieces from its first byte to its last.
    pub runs: Vec<ClaimRun>,
}

/// What sources said of contents that they brought: blocks whose origin is known are taken without a look at their bytes,
/// so what made them known must be open to proof.
///
/// ```text
///  0  8  "BKHCLAIM"
///  8  4  version, 1     12  4  0
/// 16  4  number of blocks       32  id of a block; repeated
///     4  number of contents
///    32  digest of a content     4  number of its runs
///    12  block (4), offset in it (4), length (4); repeated
///    32  SHA-256 of all before
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The blocks in which contents lie. The id of zeros stands for a block of zeros.
    pub blocks: Vec<Digest>,
    /// The contents.
    pub contents: Vec<ClaimedContent>,
}

impl Claims {
    /// Adds other claims, renumbering their blocks.
    pub(crate) fn append(&mut self, other: Self) {
        let mut numbers: HashMap<Digest, u32> = self.blocks.iter().copied().zip(0..).collect();
        for mut content in other.contents {
            for run in &mut content.runs {
                let id = other.blocks[run.block as usize];
                run.block = *numbers.entry(id).or_insert_with(|| {
                    self.blocks.push(id);
                    self.blocks.len() as u32 - 1
                });
            }
            self.contents.push(content);
        }
    }

    /// The same contents without blocks that none of them lies in.
    pub(crate) fn compact(self) -> Self {
        let mut compact = Self::default();
        compact.append(self);
        compact
    }

    /// The claims as bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut to = Writer::new(MAGIC);
        to.count(self.blocks.len());
        self.blocks.iter().for_each(|id| to.digest(*id));
        to.count(self.contents.len());
        for content in &self.contents {
            to.digest(content.digest);
            to.count(content.runs.len());
            for run in &content.runs {
                to.u32(run.block);
                to.u32(run.offset);
                to.u32(run.len);
            }
        }
        to.seal()
    }

    /// Reads claims; every run lies in a block that is named.
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::sealed(WHAT, MAGIC, bytes)?;
        let count = from.count(32)?;
        let blocks = (0..count).map(|_| from.digest()).collect::<Result<Vec<_>, _>>()?;
        let count = from.count(36)?;
        let mut contents = Vec::with_capacity(count);
        for _ in 0..count {
            let digest = from.digest()?;
            let runs = from.count(RUN)?;
            let mut content = ClaimedContent { digest, runs: Vec::with_capacity(runs) };
            for _ in 0..runs {
                let run = ClaimRun { block: from.u32()?, offset: from.u32()?, len: from.u32()? };
                let end = u64::from(run.offset) + u64::from(run.len);
                if run.block as usize >= blocks.len() || run.len == 0 || end > BLOCK_SIZE {
                    return Err(from.damaged("a run lies outside its blocks"));
                }
                content.runs.push(run);
            }
            contents.push(content);
        }
        from.end()?;
        Ok(Self { blocks, contents })
    }
}
