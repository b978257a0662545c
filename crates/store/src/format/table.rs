use std::collections::HashMap;
use std::ops::Range;

use block::{Digest, Hasher};

use super::pack::{join_len, split_len};
use super::wire::{Reader, Writer};
use super::{Codec, FormatError, Name};
use crate::fs::Bytes;

const MAGIC: &[u8; 8] = b"BKHTABL\n";
/// Bytes of the name of a pack.
const PACK: usize = 36;
/// Bytes of a table's footer.
const FOOTER: usize = 40 + 32;
/// Bytes of an entry of a table of blocks.
const BLOCK_ENTRY: usize = 48;
/// Bytes of an entry of a table of origins.
const ORIGIN_ENTRY: usize = 64;
/// Most bits of a key that the fan-out uses: 256 KiB.
const MAX_BITS: u32 = 16;
/// Entries that one slot of the fan-out should lead to.
const PER_SLOT: u64 = 16;

const _: () = assert!(BLOCK_ENTRY == 32 + 4 + 4 + 4 + 4 && ORIGIN_ENTRY == 32 + 32);

/// What a table tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// In which pack a block is.
    Blocks,
    /// Which block an origin makes.
    Origins,
}

impl TableKind {
    fn number(self) -> u32 {
        match self {
            Self::Blocks => 1,
            Self::Origins => 2,
        }
    }

    fn entry_len(self) -> usize {
        match self {
            Self::Blocks => BLOCK_ENTRY,
            Self::Origins => ORIGIN_ENTRY,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Blocks => "index",
            Self::Origins => "table of origins",
        }
    }

    fn damaged(self, why: &'static str) -> FormatError {
        FormatError::Damaged { what: self.what(), why }
    }
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// The pack.
    pub pack: Name,
    /// Where in the pack its frame begins.
    pub offset: u32,
    /// Bytes of the frame.
    pub len: u32,
    /// How the frame holds the block.
    pub codec: Codec,
}

/// A sorted table of fixed entries, used where it lies: a mapped file is looked up without being read.
///
/// ```text
///      0  E  entry; repeated, by rising key. E is 48 in an index, 64 in a table of origins
///        36  generation (4) and digest of a pack; repeated
///         4  fan-out: first entry whose key's first B bits are not below 0, 1, … 2^B: 2^B + 1 numbers
/// n - 72  8  "BKHTABL\n"
/// n - 64  4  version, 1            n - 60  4  0
/// n - 56  4  1 index, 2 origins    n - 52  4  B, at most 16
/// n - 48  8  number of entries     n - 40  4  number of packs     n - 36  4  0
/// n - 32 32  SHA-256 of the 40 bytes before
///
/// an entry of an index:    id (32), which pack (4), offset (4), length (3) and codec (1) as in the pack,
///                          first 4 bytes of the SHA-256 of the pack's name and the 44 bytes before
/// an entry of origins:     key (32), id (32); the id of zeros for a block of zeros
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    kind: TableKind,
    bytes: Bytes,
    count: usize,
    packs: usize,
    bits: u32,
}

impl Table {
    /// Looks at a table's footer only, so that opening costs the same for every size; [`Table::check`] reads it all.
    pub fn read(kind: TableKind, bytes: Bytes) -> Result<Self, FormatError> {
        let footer = bytes.len().checked_sub(FOOTER).ok_or(kind.damaged("it is cut short"))?;
        let footer = &bytes[footer..];
        let mut from = Reader::new(kind.what(), footer);
        from.head(MAGIC)?;
        let (number, bits, count, packs) = (from.u32()?, from.u32()?, from.u64()?, from.u32()?);
        let zero = from.u32()?;
        if from.digest()? != Digest::of(&footer[..40]) {
            return Err(kind.damaged("the checksum of its end differs"));
        }
        let sizes = |count: u64| {
            let entries = count.checked_mul(kind.entry_len() as u64)?;
            entries.checked_add(u64::from(packs) * PACK as u64 + (4 << bits) + 4 + FOOTER as u64)
        };
        if number != kind.number() || zero != 0 || bits > MAX_BITS || count > u64::from(u32::MAX) {
            return Err(kind.damaged("its end makes no sense"));
        }
        if sizes(count) != Some(bytes.len() as u64) {
            return Err(kind.damaged("its length is not what its end says"));
        }
        Ok(Self { kind, count: count as usize, packs: packs as usize, bits, bytes })
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entry at a position below [`Table::len`].
    pub(crate) fn entry(&self, at: usize) -> &[u8] {
        let len = self.kind.entry_len();
        &self.bytes[at * len..(at + 1) * len]
    }

    fn key(&self, at: usize) -> &[u8] {
        &self.entry(at)[..32]
    }

    fn fan(&self, slot: usize) -> usize {
        let start = self.count * self.kind.entry_len() + self.packs * PACK + slot * 4;
        let mut number = [0; 4];
        number.copy_from_slice(&self.bytes[start..start + 4]);
        u32::from_le_bytes(number) as usize
    }

    /// The packs that entries name.
    pub fn packs(&self) -> impl Iterator<Item = Name> + '_ {
        (0..self.packs).map(|at| self.pack(at))
    }

    fn pack(&self, at: usize) -> Name {
        let start = self.count * self.kind.entry_len() + at * PACK;
        let bytes = &self.bytes[start..start + PACK];
        let (mut generation, mut digest) = ([0; 4], [0; 32]);
        generation.copy_from_slice(&bytes[..4]);
        digest.copy_from_slice(&bytes[4..]);
        Name { generation: u32::from_le_bytes(generation), digest: Digest(digest) }
    }

    /// The position of a key.
    pub fn position(&self, key: &Digest) -> Result<Option<usize>, FormatError> {
        let Range { mut start, mut end } = self.slot(key);
        if start > end || end > self.count {
            return Err(self.kind.damaged("its fan-out makes no sense"));
        }
        while start < end {
            let middle = start + (end - start) / 2;
            match self.key(middle).cmp(&key.0) {
                std::cmp::Ordering::Less => start = middle + 1,
                std::cmp::Ordering::Equal => return Ok(Some(middle)),
                std::cmp::Ordering::Greater => end = middle,
            }
        }
        Ok(None)
    }

    fn slot(&self, key: &Digest) -> Range<usize> {
        let slot = slot(&key.0, self.bits);
        self.fan(slot)..self.fan(slot + 1)
    }

    /// Where the block of an entry is, in a table of blocks.
    pub fn place(&self, at: usize) -> Result<BlockPlace, FormatError> {
        let entry = self.entry(at);
        let mut from = Reader::new(self.kind.what(), &entry[32..]);
        let (pack, offset, joined) = (from.u32()? as usize, from.u32()?, from.u32()?);
        let (len, codec) = split_len(joined).ok_or(self.kind.damaged("an entry's length makes no sense"))?;
        if pack >= self.packs {
            return Err(self.kind.damaged("an entry names no pack"));
        }
        let pack = self.pack(pack);
        if entry_check(pack, &entry[..44]) != entry[44..] {
            return Err(self.kind.damaged("an entry's checksum differs"));
        }
        Ok(BlockPlace { pack, offset, len, codec })
    }

    /// The id of the block of an entry, in a table of blocks; the origin's key in the other.
    pub fn id(&self, at: usize) -> Digest {
        let mut id = [0; 32];
        id.copy_from_slice(self.key(at));
        Digest(id)
    }

    /// The block of an entry, in a table of origins.
    pub(crate) fn origin(&self, at: usize) -> Digest {
        let mut id = [0; 32];
        id.copy_from_slice(&self.entry(at)[32..64]);
        Digest(id)
    }

    /// Reads the whole table: its bytes must be those of its name, its keys in order, its fan-out true to them.
    pub fn check(&self, name: &Name) -> Result<(), FormatError> {
        if self.bytes.can_be_read().is_err() {
            return Err(self.kind.damaged("the disk does not give all of its bytes"));
        }
        if Digest::of(&self.bytes) != name.digest {
            return Err(self.kind.damaged("its bytes are not those of its name"));
        }
        if (1..self.count).any(|at| self.key(at - 1) >= self.key(at)) {
            return Err(self.kind.damaged("its keys are out of order"));
        }
        let mut from = 0;
        for slot_at in 0..=1 << self.bits {
            while from < self.count && slot(self.key(from), self.bits) < slot_at {
                from += 1;
            }
            if self.fan(slot_at) != from {
                return Err(self.kind.damaged("its fan-out makes no sense"));
            }
        }
        Ok(())
    }
}

/// The slot of the fan-out that a key belongs to.
fn slot(key: &[u8], bits: u32) -> usize {
    (usize::from(key[0]) << 8 | usize::from(key[1])) >> (MAX_BITS - bits)
}

fn entry_check(pack: Name, entry: &[u8]) -> [u8; 4] {
    let mut hasher = Hasher::new();
    hasher.update(&pack.generation.to_le_bytes());
    hasher.update(&pack.digest.0);
    hasher.update(entry);
    let sum = hasher.finish().0;
    [sum[0], sum[1], sum[2], sum[3]]
}

/// An entry of a table of origins for [`TableWriter::push`].
pub(crate) fn origin_entry(key: Digest, id: Digest) -> [u8; ORIGIN_ENTRY] {
    let mut entry = [0; ORIGIN_ENTRY];
    entry[..32].copy_from_slice(&key.0);
    entry[32..].copy_from_slice(&id.0);
    entry
}

/// Writes a table from entries that come by rising key. Memory: the packs' names and 256 KiB, whatever its size.
pub(crate) struct TableWriter<S> {
    kind: TableKind,
    sink: S,
    hasher: Hasher,
    count: u64,
    packs: Vec<Name>,
    pack_numbers: HashMap<Name, u32>,
    fan: Vec<u32>,
}

impl<E, S: FnMut(&[u8]) -> Result<(), E>> TableWriter<S> {
    pub(crate) fn new(kind: TableKind, sink: S) -> Self {
        let (packs, pack_numbers) = Default::default();
        let fan = vec![0; 1 << MAX_BITS];
        Self { kind, sink, hasher: Hasher::new(), count: 0, packs, pack_numbers, fan }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.hasher.update(bytes);
        (self.sink)(bytes)
    }

    /// Adds an entry as it is.
    pub(crate) fn push(&mut self, entry: &[u8]) -> Result<(), E> {
        self.count += 1;
        self.fan[slot(entry, MAX_BITS)] += 1;
        self.write(entry)
    }

    /// Adds a block.
    pub(crate) fn push_block(&mut self, id: Digest, place: BlockPlace) -> Result<(), E> {
        let packs = &mut self.packs;
        let number = *self.pack_numbers.entry(place.pack).or_insert_with(|| {
            packs.push(place.pack);
            packs.len() as u32 - 1
        });
        let mut entry = [0; BLOCK_ENTRY];
        entry[..32].copy_from_slice(&id.0);
        entry[32..36].copy_from_slice(&number.to_le_bytes());
        entry[36..40].copy_from_slice(&place.offset.to_le_bytes());
        entry[40..44].copy_from_slice(&join_len(place.len, place.codec).to_le_bytes());
        let check = entry_check(place.pack, &entry[..44]);
        entry[44..].copy_from_slice(&check);
        self.push(&entry)
    }

    /// Adds the rest; gives the digest of the whole and the number of entries.
    pub(crate) fn finish(mut self) -> Result<(Digest, u64), E> {
        for pack in std::mem::take(&mut self.packs) {
            self.write(&pack.generation.to_le_bytes())?;
            self.write(&pack.digest.0)?;
        }
        let bits = (self.count / PER_SLOT).checked_ilog2().unwrap_or(0).min(MAX_BITS);
        let mut first = 0u32;
        let mut fan = Vec::with_capacity((4 << bits) + 4);
        for counts in self.fan.chunks(1 << (MAX_BITS - bits)) {
            fan.extend(first.to_le_bytes());
            first += counts.iter().sum::<u32>();
        }
        fan.extend(first.to_le_bytes());
        self.write(&fan)?;
        let mut footer = Writer::new(MAGIC);
        footer.u32(self.kind.number());
        footer.u32(bits);
        footer.u64(self.count);
        footer.count(self.pack_numbers.len());
        footer.u32(0);
        let footer = footer.seal();
        self.write(&footer)?;
        Ok((self.hasher.finish(), self.count))
    }
}

/// Merges tables of one kind, oldest first, into one: of entries with one key the newest stays. An entry that `keep`
/// refuses (its table's place in `tables`, its position) is left out as if it had never been.
pub fn merge_tables<E: From<FormatError>>(
    kind: TableKind,
    tables: &[&Table],
    mut keep: impl FnMut(usize, usize) -> Result<bool, E>,
    sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(Digest, u64), E> {
    let mut writer = TableWriter::new(kind, sink);
    let mut positions = vec![0; tables.len()];
    loop {
        let heads = tables.iter().enumerate().filter(|(at, table)| positions[*at] < table.len());
        let Some(least) = heads.clone().map(|(at, table)| table.key(positions[at])).min() else { break };
        let mut chosen = None;
        let ties: Vec<usize> =
            heads.filter(|(at, table)| table.key(positions[*at]) == least).map(|(at, _)| at).collect();
        for at in ties {
            if keep(at, positions[at])? {
                chosen = Some((at, positions[at]));
            }
            positions[at] += 1;
        }
        let Some((at, position)) = chosen else { continue };
        match kind {
            TableKind::Blocks => writer.push_block(tables[at].id(position), tables[at].place(position)?)?,
            TableKind::Origins => writer.push(tables[at].entry(position))?,
        }
    }
    writer.finish()
}
