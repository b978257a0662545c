use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;

use block::{Digest, Hasher};

use super::pack::{join_len, split_len};
use super::wire::{Reader, Writer};
use super::{Codec, Folder, FormatError, Name};
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

    /// Where tables of this kind lie.
    pub(crate) fn folder(self) -> Folder {
        match self {
            Self::Blocks => Folder::Index,
            Self::Origins => Folder::Origins,
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

    fn unread(self, error: &io::Error) -> FormatError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it is cut short"),
            kind => FormatError::Unread { what: self.what(), kind, why: error.to_string() },
        }
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

/// A sorted table of fixed entries, used where it lies: a lookup reads the few entries that it needs.
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
    fan: Vec<u32>,
    /// The packs' names, once somebody wanted all.
    names: OnceLock<Vec<Name>>,
}

/// Entries that a lookup reads at once; where more may be the one, it looks at one in their middle first.
const PROBE: usize = 128;
/// Bytes that whoever reads a table from its beginning to its end reads at once.
const RUN: usize = 256 << 10;

impl Table {
    /// Looks at a table's end only, so that opening costs the same for every size; [`Table::check`] reads it all.
    pub fn read(kind: TableKind, bytes: Bytes) -> Result<Self, FormatError> {
        let end = bytes.len().checked_sub(FOOTER as u64).ok_or(kind.damaged("it is cut short"))?;
        let mut footer = [0; FOOTER];
        bytes.read_at(end, &mut footer).map_err(|error| kind.unread(&error))?;
        let mut from = Reader::new(kind.what(), &footer);
        from.head(MAGIC)?;
        let (number, bits, count, packs) = (from.u32()?, from.u32()?, from.u64()?, from.u32()?);
        let zero = from.u32()?;
        if from.digest()? != Digest::of(&footer[..40]) {
            return Err(kind.damaged("the checksum of its end differs"));
        }
        if number != kind.number() || zero != 0 || bits > MAX_BITS || count > u64::from(u32::MAX) {
            return Err(kind.damaged("its end makes no sense"));
        }
        let fan_len = (4 << bits) + 4;
        let size = count * kind.entry_len() as u64 + u64::from(packs) * PACK as u64 + fan_len + FOOTER as u64;
        if size != bytes.len() {
            return Err(kind.damaged("its length is not what its end says"));
        }
        let mut fan = vec![0; fan_len as usize];
        bytes.read_at(end - fan_len, &mut fan).map_err(|error| kind.unread(&error))?;
        let (fan, _) = fan.as_chunks::<4>();
        let fan = fan.iter().map(|number| u32::from_le_bytes(*number)).collect();
        let (count, packs) = (count as usize, packs as usize);
        Ok(Self { kind, bytes, count, packs, bits, fan, names: OnceLock::new() })
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the table: where they are, or read into `buffer`.
    fn bytes_at<'a>(
        &'a self,
        start: u64,
        len: usize,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], FormatError> {
        if let Some(all) = self.bytes.memory() {
            // Inside: the length was checked when it was opened.
            return Ok(&all[start as usize..][..len]);
        }
        buffer.resize(len, 0);
        self.bytes.read_at(start, buffer).map_err(|error| self.kind.unread(&error))?;
        Ok(buffer)
    }

    /// Some entries, one after another.
    fn entries_at<'a>(&'a self, at: Range<usize>, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], FormatError> {
        let len = self.kind.entry_len();
        self.bytes_at((at.start * len) as u64, at.len() * len, buffer)
    }

    /// The names of the packs that entries name.
    pub fn packs(&self) -> Result<&[Name], FormatError> {
        if let Some(names) = self.names.get() {
            return Ok(names);
        }
        let mut buffer = Vec::new();
        let start = (self.count * self.kind.entry_len()) as u64;
        let bytes = self.bytes_at(start, self.packs * PACK, &mut buffer)?;
        let names = bytes.as_chunks::<PACK>().0.iter().map(name_of).collect();
        Ok(self.names.get_or_init(|| names))
    }

    fn pack(&self, at: usize) -> Result<Name, FormatError> {
        if at >= self.packs {
            return Err(self.kind.damaged("an entry names no pack"));
        }
        if let Some(names) = self.names.get() {
            return Ok(names[at]);
        }
        let start = self.count * self.kind.entry_len() + at * PACK;
        let mut bytes = [0; PACK];
        self.bytes.read_at(start as u64, &mut bytes).map_err(|error| self.kind.unread(&error))?;
        Ok(name_of(&bytes))
    }

    /// The position of a key.
    pub fn position(&self, key: &Digest) -> Result<Option<usize>, FormatError> {
        Ok(self.find(key)?.map(|(at, _)| at))
    }

    /// The position of a key, and its entry, the rest of it zeros.
    fn find(&self, key: &Digest) -> Result<Option<(usize, [u8; ORIGIN_ENTRY])>, FormatError> {
        let Range { mut start, mut end } = self.slot(&key.0);
        if start > end || end > self.count {
            return Err(self.kind.damaged("its fan-out makes no sense"));
        }
        let len = self.kind.entry_len();
        let mut buffer = Vec::new();
        while end - start > PROBE {
            let middle = start + (end - start) / 2;
            match self.entries_at(middle..middle + 1, &mut buffer)?[..32] <= key.0[..] {
                true => start = middle,
                false => end = middle,
            }
        }
        let first = start;
        let run = self.entries_at(start..end, &mut buffer)?;
        while start < end {
            let middle = start + (end - start) / 2;
            let entry = &run[(middle - first) * len..][..len];
            match entry[..32].cmp(&key.0) {
                std::cmp::Ordering::Less => start = middle + 1,
                std::cmp::Ordering::Greater => end = middle,
                std::cmp::Ordering::Equal => {
                    let mut found = [0; ORIGIN_ENTRY];
                    found[..len].copy_from_slice(entry);
                    return Ok(Some((middle, found)));
                }
            }
        }
        Ok(None)
    }

    fn slot(&self, key: &[u8]) -> Range<usize> {
        let slot = slot(key, self.bits);
        self.fan[slot] as usize..self.fan[slot + 1] as usize
    }

    /// Where a block is, in a table of blocks.
    pub(crate) fn place_of(&self, id: &Digest) -> Result<Option<BlockPlace>, FormatError> {
        self.find(id)?.map(|(_, entry)| self.checked(&entry[..BLOCK_ENTRY])).transpose()
    }

    /// The block that an origin makes, in a table of origins.
    pub(crate) fn origin_of(&self, key: &Digest) -> Result<Option<Digest>, FormatError> {
        Ok(self.find(key)?.map(|(_, entry)| second(&entry)))
    }

    /// Where the block of an entry is, in a table of blocks.
    pub fn place(&self, at: usize) -> Result<BlockPlace, FormatError> {
        self.checked(self.entries_at(at..at + 1, &mut Vec::new())?)
    }

    /// The id of the block of an entry, in a table of blocks; the origin's key in the other.
    pub fn id(&self, at: usize) -> Result<Digest, FormatError> {
        Ok(first(self.entries_at(at..at + 1, &mut Vec::new())?))
    }

    /// What an entry says, if its checksum is right.
    fn checked(&self, entry: &[u8]) -> Result<BlockPlace, FormatError> {
        let spot = self.spot(entry)?;
        let pack = self.pack(spot.pack)?;
        if entry_check(pack, &entry[..44]) != entry[44..] {
            return Err(self.kind.damaged("an entry's checksum differs"));
        }
        Ok(spot.place(pack))
    }

    fn spot(&self, entry: &[u8]) -> Result<Spot, FormatError> {
        let mut from = Reader::new(self.kind.what(), &entry[32..]);
        let (pack, offset, joined) = (from.u32()? as usize, from.u32()?, from.u32()?);
        let (len, codec) = split_len(joined).ok_or(self.kind.damaged("an entry's length makes no sense"))?;
        if pack >= self.packs {
            return Err(self.kind.damaged("an entry names no pack"));
        }
        Ok(Spot { pack, offset, len, codec })
    }

    /// Reads the whole table: its bytes must be those of its name, its keys in order, its fan-out true to them.
    pub fn check(&self, name: &Name) -> Result<(), FormatError> {
        let (mut hasher, mut buffer, mut at) = (Hasher::new(), Vec::new(), 0);
        while at < self.bytes.len() {
            let len = (self.bytes.len() - at).min(RUN as u64);
            hasher.update(self.bytes_at(at, len as usize, &mut buffer)?);
            at += len;
        }
        if hasher.finish() != name.digest {
            return Err(self.kind.damaged("its bytes are not those of its name"));
        }
        let mut entries = self.entries()?;
        let mut next = 0;
        let mut last: Option<[u8; 32]> = None;
        let mut fan = |until: usize, position: usize| {
            let range = next.min(until)..until;
            next = until.max(next);
            let right = self.fan[range].iter().all(|first| *first as usize == position);
            if right { Ok(()) } else { Err(self.kind.damaged("its fan-out makes no sense")) }
        };
        while let Some(entry) = entries.current() {
            let key = first(entry).0;
            if last.is_some_and(|last| last >= key) {
                return Err(self.kind.damaged("its keys are out of order"));
            }
            fan(slot(&key, self.bits) + 1, entries.position())?;
            last = Some(key);
            entries.advance()?;
        }
        fan(self.fan.len(), self.count)
    }

    /// All entries from the first to the last.
    pub(crate) fn entries(&self) -> Result<Entries<'_>, FormatError> {
        let mut entries = Entries { table: self, buffer: Vec::new(), held: 0..0, next: 0 };
        entries.go_to(0)?;
        Ok(entries)
    }
}

fn name_of(bytes: &[u8; PACK]) -> Name {
    let (mut generation, mut digest) = ([0; 4], [0; 32]);
    generation.copy_from_slice(&bytes[..4]);
    digest.copy_from_slice(&bytes[4..]);
    Name { generation: u32::from_le_bytes(generation), digest: Digest(digest) }
}

fn first(entry: &[u8]) -> Digest {
    let mut id = [0; 32];
    id.copy_from_slice(&entry[..32]);
    Digest(id)
}

fn second(entry: &[u8]) -> Digest {
    first(&entry[32..])
}

/// Where a block is, its pack as a number of its table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) pack: usize,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) codec: Codec,
}

impl Spot {
    pub(crate) fn place(self, pack: Name) -> BlockPlace {
        BlockPlace { pack, offset: self.offset, len: self.len, codec: self.codec }
    }
}

/// The first half of a key, by which many are looked up at once: no two that anybody could find share one.
pub(crate) type Half = u128;

/// The [`Half`] of a key, of which at least so much is there.
pub(crate) fn half(key: &[u8]) -> Half {
    let mut half = [0; 16];
    half.copy_from_slice(&key[..16]);
    Half::from_be_bytes(half)
}

/// A place in a table that moves on.
pub(crate) struct Entries<'a> {
    table: &'a Table,
    /// The entries `held`, when the table is not in memory.
    buffer: Vec<u8>,
    held: Range<usize>,
    next: usize,
}

impl<'a> Entries<'a> {
    /// The entry here; none behind the last.
    pub(crate) fn current(&self) -> Option<&[u8]> {
        let len = self.table.kind.entry_len();
        match self.table.bytes.memory() {
            _ if self.next >= self.table.count => None,
            Some(all) => Some(&all[self.next * len..][..len]),
            None => Some(&self.buffer[(self.next - self.held.start) * len..][..len]),
        }
    }

    /// Its position in the table.
    pub(crate) fn position(&self) -> usize {
        self.next
    }

    /// Its key.
    pub(crate) fn id(&self) -> Option<Digest> {
        self.current().map(first)
    }

    /// What the entry says, in a table of blocks that was checked.
    pub(crate) fn spot(&self) -> Result<Spot, FormatError> {
        self.table.spot(self.current().ok_or(self.table.kind.damaged("it is cut short"))?)
    }

    /// Where its block is, in a table of blocks that was checked.
    pub(crate) fn place(&self) -> Result<BlockPlace, FormatError> {
        let spot = self.spot()?;
        Ok(spot.place(self.table.packs()?[spot.pack]))
    }

    /// Where its block is, in any table of blocks.
    pub(crate) fn checked_place(&self) -> Result<BlockPlace, FormatError> {
        self.table.packs()?;
        self.table.checked(self.current().ok_or(self.table.kind.damaged("it is cut short"))?)
    }

    /// The block of the entry's origin, in a table of origins.
    pub(crate) fn origin(&self) -> Option<Digest> {
        self.current().map(second)
    }

    pub(crate) fn advance(&mut self) -> Result<(), FormatError> {
        self.go_to(self.next + 1)
    }

    fn go_to(&mut self, at: usize) -> Result<(), FormatError> {
        self.next = at;
        if at >= self.table.count || self.held.contains(&at) || self.table.bytes.memory().is_some() {
            return Ok(());
        }
        // Who goes on where he was reads on; who jumps may jump again.
        let len = self.table.kind.entry_len();
        let run = if at == self.held.end { RUN / len } else { PROBE };
        let end = self.table.count.min(at + run);
        self.held = at..at;
        self.table.entries_at(at..end, &mut self.buffer)?;
        self.held = at..end;
        Ok(())
    }

    /// Reads again what could not be read when this moved here.
    pub(crate) fn again(&mut self) -> Result<(), FormatError> {
        self.go_to(self.next)
    }

    /// Moves on to the first entry whose key does not begin with less than this. Not past what is there already.
    pub(crate) fn skip_to(&mut self, wanted: Half) -> Result<(), FormatError> {
        let start = self.table.slot(&wanted.to_be_bytes()).start;
        if start > self.next {
            self.go_to(start)?;
        }
        while self.current().is_some_and(|entry| half(entry) < wanted) {
            self.advance()?;
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
/// refuses (its table's place in `tables`, where it is there) is left out as if it had never been. The tables were checked.
pub(crate) fn merge_tables<E: From<FormatError>>(
    kind: TableKind,
    tables: &[&Table],
    mut keep: impl FnMut(usize, &Entries<'_>) -> Result<bool, E>,
    sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(Digest, u64), E> {
    let mut writer = TableWriter::new(kind, sink);
    let mut heads = tables.iter().map(|table| table.entries()).collect::<Result<Vec<_>, FormatError>>()?;
    while let Some(least) = heads.iter().filter_map(Entries::id).min() {
        let mut chosen = None;
        for (at, head) in heads.iter().enumerate().filter(|(_, head)| head.id() == Some(least)) {
            if keep(at, head)? {
                chosen = Some(head);
            }
        }
        match (kind, chosen) {
            (_, None) => {}
            (TableKind::Blocks, Some(head)) => writer.push_block(least, head.place()?)?,
            (TableKind::Origins, Some(head)) => head.current().map_or(Ok(()), |entry| writer.push(entry))?,
        }
        for head in heads.iter_mut().filter(|head| head.id() == Some(least)) {
            head.advance()?;
        }
    }
    writer.finish()
}
