use block::{BLOCK_SIZE, Digest, Hasher, SnapshotId, snapshot_digest};

use super::wire::{Reader, Writer};
use super::{FormatError, Name};

const MAGIC: &[u8; 8] = b"BKHSNAP\n";
const WHAT: &str = "snapshot";
/// Bytes of one entry of the map: index and id.
const ENTRY: usize = 8 + 32;
/// Largest volume: 2⁵⁰ bytes. EBS ends at 64 TiB.
pub(crate) const MAX_SIZE: u64 = 1 << 50;

/// The id of a snapshot that nobody gave one: it follows from `bakehouse store id 1`, the name and the snapshot's digest,
/// hashed with the length of each before it.
pub fn derived_id(name: &str, digest: Digest) -> SnapshotId {
    let mut hasher = Hasher::new();
    hasher.field(b"bakehouse store id 1");
    hasher.field(name.as_bytes());
    hasher.field(&digest.0);
    SnapshotId::from_digest(hasher.finish())
}

/// A snapshot as lists show it: all but its map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The snapshot's id, unique in a store.
    pub id: SnapshotId,
    /// Its name. Several snapshots may have one; the name then means the newest.
    pub name: String,
    /// The volume's size in bytes.
    pub size: u64,
    /// Blocks that are not all zero.
    pub blocks: u64,
    /// [`block::snapshot_digest`] of the volume.
    pub digest: Digest,
    /// The snapshot that this one follows, if its writer named one. It need not be there any more.
    pub parent: Option<SnapshotId>,
    /// Seconds since 1970, as the writer gave them; nothing is decided by it.
    pub time: i64,
    /// Number of the commit that brought it: larger is newer.
    pub sequence: u64,
    /// Where its map is.
    pub(crate) object: Name,
}

impl Record {
    pub(crate) fn write(&self, to: &mut Writer) {
        to.bytes(self.id.digits());
        to.text(&self.name);
        to.u64(self.size);
        to.u64(self.blocks);
        to.digest(self.digest);
        write_parent(self.parent, to);
        to.i64(self.time);
        to.u64(self.sequence);
        to.name(self.object);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            id: read_id(from)?,
            name: from.text()?,
            size: from.u64()?,
            blocks: from.u64()?,
            digest: from.digest()?,
            parent: read_parent(from)?,
            time: from.i64()?,
            sequence: from.u64()?,
            object: from.name()?,
        })
    }

    /// Fewest bytes of a record.
    pub(crate) const LEAST: usize = 17 + 2 + 8 + 8 + 32 + 1 + 8 + 8 + 36;
}

fn read_id(from: &mut Reader<'_>) -> Result<SnapshotId, FormatError> {
    let digits = from.take(17)?;
    let text = std::str::from_utf8(digits).ok();
    let id = text.and_then(|digits| format!("{}{digits}", SnapshotId::PREFIX).parse().ok());
    id.ok_or(from.damaged("an id is none"))
}

fn write_parent(parent: Option<SnapshotId>, to: &mut Writer) {
    to.u8(parent.is_some().into());
    if let Some(parent) = parent {
        to.bytes(parent.digits());
    }
}

fn read_parent(from: &mut Reader<'_>) -> Result<Option<SnapshotId>, FormatError> {
    match from.u8()? {
        0 => Ok(None),
        1 => read_id(from).map(Some),
        _ => Err(from.damaged("its parent makes no sense")),
    }
}

/// A whole snapshot.
///
/// ```text
///  0  8  "BKHSNAP\n"
///  8  4  version, 1        12  4  0
/// 16 17  digits of the id
///    2+n the name's length and the name
///     8  the volume's size in bytes
///     1  1 when a parent follows, else 0      17  its digits
///     8  time
///    32  the snapshot's digest
///     4  number of blocks
///    40  index and id of a block, by rising index; repeated
///    32  SHA-256 of all before
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Its name.
    pub name: String,
    /// The volume's size in bytes.
    pub size: u64,
    /// The snapshot it follows.
    pub parent: Option<SnapshotId>,
    /// Seconds since 1970.
    pub time: i64,
    /// [`block::snapshot_digest`] of size and blocks.
    pub digest: Digest,
    /// `(index, id)` of every block that is not all zero, by rising index.
    pub blocks: Vec<(u64, Digest)>,
}

impl Snapshot {
    /// The snapshot as bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut to = Writer::new(MAGIC);
        to.bytes(self.id.digits());
        to.text(&self.name);
        to.u64(self.size);
        write_parent(self.parent, &mut to);
        to.i64(self.time);
        to.digest(self.digest);
        to.count(self.blocks.len());
        for (index, id) in &self.blocks {
            to.u64(*index);
            to.digest(*id);
        }
        to.seal()
    }

    /// Reads a snapshot: its checksum, the order of its map and its digest must be right.
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::sealed(WHAT, MAGIC, bytes)?;
        let id = read_id(&mut from)?;
        let name = from.text()?;
        let size = from.u64()?;
        let parent = read_parent(&mut from)?;
        let time = from.i64()?;
        let digest = from.digest()?;
        let count = from.count(ENTRY)?;
        if size > MAX_SIZE {
            return Err(from.damaged("its volume is too large"));
        }
        let mut blocks = Vec::with_capacity(count);
        let mut next = 0;
        for _ in 0..count {
            let (index, id) = (from.u64()?, from.digest()?);
            if index < next || index >= size.div_ceil(BLOCK_SIZE) {
                return Err(from.damaged("its map is out of order"));
            }
            next = index + 1;
            blocks.push((index, id));
        }
        if snapshot_digest(size, blocks.iter().copied()) != digest {
            return Err(from.damaged("its digest is not that of its map"));
        }
        from.end()?;
        Ok(Self { id, name, size, parent, time, digest, blocks })
    }
}
