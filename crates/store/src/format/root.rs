use block::Digest;

use super::snapshot::Record;
use super::wire::{Reader, Writer};
use super::{FormatError, Name};

const MAGIC: &[u8; 8] = b"BKHROOT\n";
const CATALOG_MAGIC: &[u8; 8] = b"BKHLIST\n";

/// An object of a list whose members are merged as it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerRef {
    /// The object.
    pub name: Name,
    /// How many entries it has.
    pub count: u64,
}

/// A pack in which a collection found nothing that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// The pack.
    pub pack: Name,
    /// The generation that the collection ended.
    pub generation: u32,
}

/// A block whose bytes in a pack are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quarantined {
    /// The block; 32 zeros for the pack's own index.
    pub id: Digest,
    /// The pack that has it damaged.
    pub pack: Name,
}

/// The one object that changes: it names everything that is part of the store. What it does not name is not there.
///
/// ```text
///  0  8  "BKHROOT\n"
///  8  4  version, 1     12  4  0
/// 16  8  number of commits so far
/// 24  4  generation
///        index layers, oldest first:    4  how many    44  name (36), number of entries (8); repeated
///        origin layers, oldest first:   the same
///        claims:                        the same
///        catalog pages, oldest first:   the same
///        condemned packs:               4  how many    40  name, generation; repeated
///        blocks in quarantine:          4  how many    68  id, name of the pack; repeated
///        snapshots not in a page:       4  how many     …  records, oldest first
///    32  SHA-256 of all before
/// ```
/// A name is the generation (4) and the digest (32). A record is: digits of the id (17), length of the name (2), name, size (8), blocks (8),
/// digest (32), 1 and the digits of the parent's id (17) or 0, time (8), number of its commit (8), name of the object (36).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// Commits so far.
    pub sequence: u64,
    /// Moved by each collection, and by each verification that puts blocks into quarantine.
    pub generation: u32,
    /// Where blocks are.
    pub index: Vec<LayerRef>,
    /// Blocks by their origin.
    pub origins: Vec<LayerRef>,
    /// What origins claimed.
    pub claims: Vec<LayerRef>,
    /// Older snapshots.
    pub catalog: Vec<LayerRef>,
    /// Packs that the next collections may delete.
    pub condemned: Vec<Condemned>,
    /// Blocks known to be damaged.
    pub quarantine: Vec<Quarantined>,
    /// The latest snapshots.
    pub recent: Vec<Record>,
}

fn write_layers(layers: &[LayerRef], to: &mut Writer) {
    to.count(layers.len());
    for layer in layers {
        to.name(layer.name);
        to.u64(layer.count);
    }
}

fn read_layers(from: &mut Reader<'_>) -> Result<Vec<LayerRef>, FormatError> {
    let count = from.count(44)?;
    (0..count).map(|_| Ok(LayerRef { name: from.name()?, count: from.u64()? })).collect()
}

impl Root {
    /// The root as bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut to = Writer::new(MAGIC);
        to.u64(self.sequence);
        to.u32(self.generation);
        for layers in [&self.index, &self.origins, &self.claims, &self.catalog] {
            write_layers(layers, &mut to);
        }
        to.count(self.condemned.len());
        for condemned in &self.condemned {
            to.name(condemned.pack);
            to.u32(condemned.generation);
        }
        to.count(self.quarantine.len());
        for quarantined in &self.quarantine {
            to.digest(quarantined.id);
            to.name(quarantined.pack);
        }
        to.count(self.recent.len());
        self.recent.iter().for_each(|record| record.write(&mut to));
        to.seal()
    }

    /// Reads a root.
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::sealed("root", MAGIC, bytes)?;
        let mut root = Self { sequence: from.u64()?, generation: from.u32()?, ..Self::default() };
        for layers in [&mut root.index, &mut root.origins, &mut root.claims, &mut root.catalog] {
            *layers = read_layers(&mut from)?;
        }
        for _ in 0..from.count(40)? {
            root.condemned.push(Condemned { pack: from.name()?, generation: from.u32()? });
        }
        for _ in 0..from.count(68)? {
            root.quarantine.push(Quarantined { id: from.digest()?, pack: from.name()? });
        }
        for _ in 0..from.count(Record::LEAST)? {
            root.recent.push(Record::read(&mut from)?);
        }
        from.end()?;
        Ok(root)
    }
}

/// A page of the list of snapshots.
///
/// ```text
///  0  8  "BKHLIST\n"
///  8  4  version, 1     12  4  0
/// 16  4  how many        …  records as in the root, oldest first
///    32  SHA-256 of all before
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog(pub Vec<Record>);

impl Catalog {
    /// The page as bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut to = Writer::new(CATALOG_MAGIC);
        to.count(self.0.len());
        self.0.iter().for_each(|record| record.write(&mut to));
        to.seal()
    }

    /// Reads a page.
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::sealed("list of snapshots", CATALOG_MAGIC, bytes)?;
        let count = from.count(Record::LEAST)?;
        let records = (0..count).map(|_| Record::read(&mut from)).collect::<Result<_, _>>()?;
        from.end()?;
        Ok(Self(records))
    }
}
