use block::{BLOCK_SIZE, Digest, Hasher};

use super::wire::{HEAD, Reader, Writer};
use super::{FormatError, Name};

const MAGIC: &[u8; 8] = b"BKHPACK\n";
const END: &[u8; 8] = b"\nPACKEND";
const WHAT: &str = "pack";

/// Bytes of a pack's header.
pub const PACK_HEADER: usize = HEAD + 8;
/// Bytes of one entry of a pack's index.
pub const PACK_ENTRY: usize = 32 + 4 + 4;
/// Bytes of a pack's footer.
pub const PACK_FOOTER: usize = 4 + 4 + 32 + 8;
/// Largest pack: 1 GiB. Writers stop at a sixteenth of it.
const MAX_PACK: u64 = 1 << 30;
/// Largest frame: a block as it is. Its length and codec share 4 bytes.
const MAX_FRAME: u32 = BLOCK_SIZE as u32;

const _: () = assert!(PACK_ENTRY == 40 && PACK_HEADER == 24 && PACK_FOOTER == 48 && MAX_FRAME < 1 << 24);

/// How a block is kept in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Its 524,288 bytes as they are.
    Raw,
    /// One zstd frame.
    Zstd,
}

/// One block in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackEntry {
    /// The block's id.
    pub id: Digest,
    /// Where in the pack its frame begins.
    pub offset: u32,
    /// Bytes of the frame.
    pub len: u32,
    /// How the frame holds the block.
    pub codec: Codec,
}

/// Length and codec in one number, as packs and tables have them.
pub(super) fn join_len(len: u32, codec: Codec) -> u32 {
    len | match codec {
        Codec::Raw => 0,
        Codec::Zstd => 1 << 24,
    }
}

/// [`join_len`] undone; `None` when a frame can't be like that.
pub(super) fn split_len(joined: u32) -> Option<(u32, Codec)> {
    let len = joined & 0xff_ffff;
    match joined >> 24 {
        0 if len == MAX_FRAME => Some((len, Codec::Raw)),
        1 if len > 0 && len < MAX_FRAME => Some((len, Codec::Zstd)),
        _ => None,
    }
}

/// The header of a pack that a writer of this generation makes.
pub(crate) fn pack_header(generation: u32) -> Vec<u8> {
    let mut header = Writer::new(MAGIC);
    header.u32(generation);
    header.u32(0);
    header.into_bytes()
}

/// Collects the entries of a pack while its frames are written.
pub(crate) struct PackIndexBuilder {
    generation: u32,
    entries: Vec<PackEntry>,
    end: u32,
}

impl PackIndexBuilder {
    pub(crate) fn new(generation: u32) -> Self {
        Self { generation, entries: Vec::new(), end: PACK_HEADER as u32 }
    }

    /// Notes the next frame.
    pub(crate) fn push(&mut self, id: Digest, len: u32, codec: Codec) {
        self.entries.push(PackEntry { id, offset: self.end, len, codec });
        self.end += len;
    }

    /// Bytes of header and frames so far.
    pub(crate) fn end(&self) -> u32 {
        self.end
    }

    pub(crate) fn entries(&self) -> &[PackEntry] {
        &self.entries
    }

    /// Index and footer, which follow the frames, and the pack's name.
    pub(crate) fn finish(&self) -> (Vec<u8>, Name) {
        let mut bytes = Vec::with_capacity(self.entries.len() * PACK_ENTRY + PACK_FOOTER);
        for entry in &self.entries {
            bytes.extend(entry.id.0);
            bytes.extend(entry.offset.to_le_bytes());
            bytes.extend(join_len(entry.len, entry.codec).to_le_bytes());
        }
        let digest = digest(&pack_header(self.generation), &bytes);
        bytes.extend((self.entries.len() as u32).to_le_bytes());
        bytes.extend(self.end.to_le_bytes());
        bytes.extend(digest.0);
        bytes.extend(END);
        (bytes, Name { generation: self.generation, digest })
    }
}

fn digest(header: &[u8], index: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(header);
    hasher.update(index);
    hasher.finish()
}

/// The last bytes of a pack: where its index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackFooter {
    count: u32,
    /// Where the index begins: where the frames end.
    pub index_offset: u32,
    digest: Digest,
}

impl PackFooter {
    /// Reads the footer from the last [`PACK_FOOTER`] bytes of a pack of `pack_len` bytes.
    pub fn read(bytes: &[u8], pack_len: u64) -> Result<Self, FormatError> {
        let mut from = Reader::new(WHAT, bytes);
        let (count, index_offset, digest) = (from.u32()?, from.u32()?, from.digest()?);
        if from.take(8)? != END {
            return Err(from.damaged("its end is missing"));
        }
        let len = u64::from(index_offset) + u64::from(count) * PACK_ENTRY as u64 + PACK_FOOTER as u64;
        if len != pack_len || pack_len > MAX_PACK || index_offset < PACK_HEADER as u32 {
            return Err(from.damaged("its index is not where its end says"));
        }
        Ok(Self { count, index_offset, digest })
    }

    /// Bytes of the index.
    pub fn index_len(&self) -> usize {
        self.count as usize * PACK_ENTRY
    }
}

/// A pack's own index.
///
/// ```text
///       0  8  "BKHPACK\n"
///       8  4  version, 1     12  4  0
///      16  4  generation     20  4  0
///      24     frames, one after another: a block as it is, or one zstd frame
///       i 40  id, offset of the frame (4), its length (3) and codec (1: 0 raw, 1 zstd); repeated, by rising offset
///  n - 48  4  number of entries
///  n - 44  4  i, where the index begins
///  n - 40 32  SHA-256 of bytes 0 to 24 and of the index: the pack's name
///  n -  8  8  "\nPACKEND"
/// ```
///
/// The name covers the ids, and an id covers a block: so it covers everything but the compressed form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// The pack's name.
    pub name: Name,
    /// Its blocks, in the order in which they lie.
    pub entries: Vec<PackEntry>,
}

impl Pack {
    /// Reads a pack's index from the pack's first [`PACK_HEADER`] bytes, the bytes of the index, and its footer.
    pub fn read(header: &[u8], index: &[u8], footer: &PackFooter) -> Result<Self, FormatError> {
        let mut from = Reader::new(WHAT, header);
        from.head(MAGIC)?;
        let generation = from.u32()?;
        if from.u32()? != 0 || index.len() != footer.index_len() {
            return Err(from.damaged("its head makes no sense"));
        }
        if digest(&header[..PACK_HEADER], index) != footer.digest {
            return Err(from.damaged("the checksum of its index differs"));
        }
        let mut from = Reader::new(WHAT, index);
        let mut entries = Vec::with_capacity(footer.count as usize);
        let mut next = PACK_HEADER as u32;
        for _ in 0..footer.count {
            let (id, offset, joined) = (from.digest()?, from.u32()?, from.u32()?);
            let (len, codec) = split_len(joined).ok_or(from.damaged("a frame's length makes no sense"))?;
            if offset != next {
                return Err(from.damaged("its frames do not follow each other"));
            }
            next = offset.checked_add(len).ok_or(from.damaged("a frame is too long"))?;
            entries.push(PackEntry { id, offset, len, codec });
        }
        if next != footer.index_offset {
            return Err(from.damaged("its frames do not fill it"));
        }
        Ok(Self { name: Name { generation, digest: footer.digest }, entries })
    }
}
