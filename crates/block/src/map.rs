use std::io;
use std::sync::Arc;

use crate::Content;

/// Where the bytes of an extent come from, in words a person can use: which package, which part of the recipe, or
/// which structure of the disk. It explains an image; it never decides what its bytes are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A file that a package brought, unchanged since. The package's name.
    Package(Arc<str>),
    /// Something the recipe asked for: `motd`, `web`, `files`, `users`, `services`, …
    Recipe(Arc<str>),
    /// Written or changed while packages were configured or `run` scripts ran: caches, databases, the initrd.
    Configured,
    /// A structure of a file system, a partition table or a boot loader: `superblock`, `inode table`, `gpt`, …
    Structure(&'static str),
}

/// A run of bytes at a place on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte on the disk.
    pub offset: u64,
    /// How many bytes, never zero.
    pub len: u64,
    /// What the bytes are a part of.
    pub content: Content,
    /// Where in `content` the extent's first byte is. `content_offset + len` is at most `content.len()`.
    pub content_offset: u64,
    /// Where the bytes come from.
    pub origin: Origin,
}

impl Extent {
    /// First byte after the extent.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// What is wrong with a set of extents.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Two extents claim the same byte.
    #[error(
        "extents overlap: {first_origin:?} ends at byte {first_end}, {second_origin:?} begins at byte {second_start}"
    )]
    Overlap {
        /// End of the earlier extent.
        first_end: u64,
        /// Start of the later extent.
        second_start: u64,
        /// What the earlier extent holds.
        first_origin: Origin,
        /// What the later extent holds.
        second_origin: Origin,
    },
    /// An extent reaches past the end of the disk.
    #[error("an extent of {origin:?} ends at byte {end}, past the disk's end at byte {len}")]
    PastEnd {
        /// End of the extent.
        end: u64,
        /// Length of the disk.
        len: u64,
        /// What the extent holds.
        origin: Origin,
    },
    /// An extent asks for more bytes than its content has, or for none.
    #[error("an extent of {origin:?} at byte {offset} wants bytes {from}..{to} of a content of {len} bytes")]
    OutsideContent {
        /// Place on the disk.
        offset: u64,
        /// First byte wanted.
        from: u64,
        /// First byte not wanted any more.
        to: u64,
        /// Length of the content.
        len: u64,
        /// What the extent holds.
        origin: Origin,
    },
}

/// Anything that can be read as a disk: its length, where its data is, and its bytes.
pub trait BlockSource: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether the disk has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The runs `(offset, len)` outside which every byte is zero; sorted, not overlapping.
    fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_>;

    /// Fills `buf` from byte `offset` on. Reading past the end is an error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// A disk as extents: sorted, not overlapping; every byte outside them is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMap {
    len: u64,
    extents: Vec<Extent>,
}

impl BlockMap {
    /// A disk of zeros.
    pub fn empty(len: u64) -> Self {
        Self { len, extents: Vec::new() }
    }

    /// The extents, in the order in which they lie on the disk.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Bytes that extents cover.
    pub fn data_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len).sum()
    }
}

impl BlockSource for BlockMap {
    fn len(&self) -> u64 {
        self.len
    }

    fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
        let mut extents = self.extents.iter().peekable();
        Box::new(std::iter::from_fn(move || {
            let first = extents.next()?;
            let mut end = first.end();
            while let Some(next) = extents.next_if(|next| next.offset == end) {
                end = next.end();
            }
            Some((first.offset, end - first.offset))
        }))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.fill(0);
        let first = self.extents.partition_point(|extent| extent.end() <= offset);
        for extent in self.extents[first..].iter().take_while(|extent| extent.offset < end) {
            let from = extent.offset.max(offset);
            let to = extent.end().min(end);
            let target = &mut buf[(from - offset) as usize..(to - offset) as usize];
            extent.content.read_at(extent.content_offset + (from - extent.offset), target)?;
        }
        Ok(())
    }
}

/// Collects extents in any order and checks them once, at the end.
#[derive(Debug, Default)]
pub struct BlockMapBuilder {
    extents: Vec<Extent>,
}

impl BlockMapBuilder {
    /// A builder without extents.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `len` bytes of `content`, from `content_offset` on, at byte `offset` of the disk.
    pub fn push(&mut self, offset: u64, len: u64, content: Content, content_offset: u64, origin: Origin) {
        self.extents.push(Extent { offset, len, content, content_offset, origin });
    }

    /// Puts all of `content` at byte `offset` of the disk; nothing when it is empty.
    pub fn push_all(&mut self, offset: u64, content: Content, origin: Origin) {
        if !content.is_empty() {
            self.push(offset, content.len(), content, 0, origin);
        }
    }

    /// Puts bytes at byte `offset` of the disk, leaving out the aligned pieces of 4 KiB that are all zero.
    pub fn push_sparse(&mut self, offset: u64, bytes: &[u8], origin: &Origin) {
        const PIECE: usize = 4096;
        let mut at = 0;
        while at < bytes.len() {
            let piece = |from: usize| &bytes[from..bytes.len().min(from + PIECE)];
            if piece(at).iter().all(|byte| *byte == 0) {
                at += PIECE;
                continue;
            }
            let mut end = at;
            while end < bytes.len() && piece(end).iter().any(|byte| *byte != 0) {
                end = bytes.len().min(end + PIECE);
            }
            self.push_all(offset + at as u64, Content::from_bytes(bytes[at..end].to_vec()), origin.clone());
            at = end;
        }
    }

    /// Puts a whole map at byte `offset` of the disk: a file system into its partition.
    pub fn push_map(&mut self, offset: u64, map: &BlockMap) {
        self.extents.extend(map.extents.iter().cloned().map(|mut extent| {
            extent.offset += offset;
            extent
        }));
    }

    /// The finished disk of `len` bytes, or the first thing that is wrong with it.
    pub fn finish(mut self, len: u64) -> Result<BlockMap, MapError> {
        self.extents.sort_by_key(|extent| extent.offset);
        let mut previous: Option<&Extent> = None;
        for extent in &self.extents {
            let to = extent.content_offset.saturating_add(extent.len);
            if extent.len == 0 || to > extent.content.len() {
                return Err(MapError::OutsideContent {
                    offset: extent.offset,
                    from: extent.content_offset,
                    to,
                    len: extent.content.len(),
                    origin: extent.origin.clone(),
                });
            }
            if let Some(first) = previous.filter(|first| first.end() > extent.offset) {
                return Err(MapError::Overlap {
                    first_end: first.end(),
                    second_start: extent.offset,
                    first_origin: first.origin.clone(),
                    second_origin: extent.origin.clone(),
                });
            }
            if extent.end() > len {
                return Err(MapError::PastEnd { end: extent.end(), len, origin: extent.origin.clone() });
            }
            previous = Some(extent);
        }
        Ok(BlockMap { len, extents: self.extents })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEST: Origin = Origin::Structure("test");

    #[test]
    fn overlapping_extents_are_refused() {
        let mut builder = BlockMapBuilder::new();
        builder.push_all(10, Content::from_bytes(vec![1; 10]), TEST);
        builder.push_all(19, Content::from_bytes(vec![1; 1]), TEST);
        assert!(matches!(
            builder.finish(100),
            Err(MapError::Overlap { first_end: 20, second_start: 19, .. })
        ));
    }

    #[test]
    fn an_extent_past_the_end_is_refused() {
        let mut builder = BlockMapBuilder::new();
        builder.push_all(10, Content::from_bytes(vec![1; 10]), TEST);
        assert!(matches!(builder.finish(19), Err(MapError::PastEnd { end: 20, len: 19, .. })));
    }

    #[test]
    fn an_extent_larger_than_its_content_is_refused() {
        let mut builder = BlockMapBuilder::new();
        builder.push(0, 11, Content::from_bytes(vec![1; 10]), 0, TEST);
        assert!(matches!(builder.finish(100), Err(MapError::OutsideContent { to: 11, len: 10, .. })));
    }

    proptest! {
        #[test]
        fn a_sparse_disk_reads_back_as_it_was_written(
            pieces in prop::collection::vec((any::<bool>(), 1usize..9000), 1..20),
            window in (0usize..40_000, 0usize..40_000),
        ) {
            let mut bytes = Vec::new();
            for (zero, len) in pieces {
                let start = bytes.len();
                bytes.extend((0..len).map(|i| if zero { 0 } else { ((start + i) % 250) as u8 }));
            }
            let mut builder = BlockMapBuilder::new();
            builder.push_sparse(0, &bytes, &TEST);
            let map = builder.finish(bytes.len() as u64).unwrap();
            let (from, to) = (window.0.min(bytes.len()), window.1.min(bytes.len()));
            let (from, to) = (from.min(to), from.max(to));
            let mut read = vec![9; to - from];
            map.read_at(from as u64, &mut read).unwrap();
            prop_assert_eq!(&read, &bytes[from..to]);
            let mut covered = vec![false; bytes.len()];
            for (offset, len) in map.data() {
                covered[offset as usize..(offset + len) as usize].fill(true);
            }
            prop_assert!(bytes.iter().zip(&covered).all(|(byte, covered)| *byte == 0 || *covered));
        }
    }
}
