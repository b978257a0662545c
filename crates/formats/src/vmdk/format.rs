//! The structures of the file as bytes, and back.

use block::Digest;

use super::VmdkError;

/// Bytes in a sector, the unit of all places.
pub(super) const SECTOR: u64 = 512;
/// Sectors in a grain that we write.
pub(super) const GRAIN_SECTORS: u64 = 128;
/// Bytes in a grain that we write.
pub(super) const GRAIN: u64 = GRAIN_SECTORS * SECTOR;
/// Entries in a grain table.
pub(super) const TABLE_ENTRIES: usize = 512;
/// Bytes in a grain table.
pub(super) const TABLE_BYTES: usize = TABLE_ENTRIES * 4;
/// Sectors before the first grain.
pub(super) const OVERHEAD: u64 = 128;
/// First sector of the descriptor.
pub(super) const DESCRIPTOR_AT: u64 = 1;
/// Sectors of the descriptor.
pub(super) const DESCRIPTOR_SECTORS: u64 = 20;
/// Largest disk in bytes: 64 TiB, the largest volume there is.
pub(super) const MAX_DISK: u64 = 64 << 40;
/// The place of a grain directory that only the footer knows.
pub(super) const AT_END: u64 = u64::MAX;
/// Bytes before the zlib stream of a grain.
pub(super) const GRAIN_MARKER: usize = 12;

/// Header flag: the line-end bytes can be trusted to show damage.
pub(super) const FLAG_NEWLINES: u32 = 1;
/// Header flag: a table entry of 1 stands for a grain of zeros.
pub(super) const FLAG_ZERO_GRAINS: u32 = 1 << 2;
/// Header flag: grains are compressed.
pub(super) const FLAG_COMPRESSED: u32 = 1 << 16;
/// Header flag: every structure has a marker before it.
pub(super) const FLAG_MARKERS: u32 = 1 << 17;

/// The first bytes of header and footer.
pub(super) const MAGIC: [u8; 4] = *b"KDMV";
/// Shows whether the file went through a transfer that changes line ends.
const NEWLINES: [u8; 4] = *b"\n \r\n";

/// What a marker announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    EndOfStream = 0,
    Table = 1,
    Directory = 2,
    Footer = 3,
}

impl Marker {
    /// The sector that stands before a structure of `sectors` sectors.
    pub(super) fn sector(self, sectors: u64) -> [u8; SECTOR as usize] {
        let mut bytes = [0; SECTOR as usize];
        bytes[..8].copy_from_slice(&sectors.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self as u32).to_le_bytes());
        bytes
    }

    /// Whether `sector` is this marker; what it says of the structure's length is left aside.
    pub(super) fn is(self, sector: &[u8]) -> bool {
        u32_at(sector, 8) == 0 && u32_at(sector, 12) == self as u32
    }
}

/// The header, which is the footer too. Lengths and places are in sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) flags: u32,
    pub(super) capacity: u64,
    pub(super) grain: u64,
    pub(super) descriptor_at: u64,
    pub(super) descriptor_sectors: u64,
    pub(super) table_entries: u32,
    pub(super) redundant_at: u64,
    pub(super) directory_at: u64,
    pub(super) overhead: u64,
    pub(super) unclean: u8,
    pub(super) newlines: [u8; 4],
    pub(super) compression: u16,
}

impl Header {
    /// The header of a disk of `capacity` sectors whose grain directory is at `directory_at`.
    pub(super) fn stream_optimized(capacity: u64, directory_at: u64) -> Self {
        Self {
            version: 3,
            flags: FLAG_NEWLINES | FLAG_COMPRESSED | FLAG_MARKERS,
            capacity,
            grain: GRAIN_SECTORS,
            descriptor_at: DESCRIPTOR_AT,
            descriptor_sectors: DESCRIPTOR_SECTORS,
            table_entries: TABLE_ENTRIES as u32,
            redundant_at: 0,
            directory_at,
            overhead: OVERHEAD,
            unclean: 0,
            newlines: NEWLINES,
            compression: 1,
        }
    }

    /// What header and footer must agree on.
    pub(super) fn shape(&self) -> [u64; 6] {
        let Self { flags, capacity, grain, table_entries, compression, .. } = *self;
        [self.version.into(), flags.into(), capacity, grain, table_entries.into(), compression.into()]
    }

    /// The header's sector.
    pub(super) fn encode(&self) -> [u8; SECTOR as usize] {
        let mut bytes = [0; SECTOR as usize];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(4, &self.version.to_le_bytes());
        put(8, &self.flags.to_le_bytes());
        put(12, &self.capacity.to_le_bytes());
        put(20, &self.grain.to_le_bytes());
        put(28, &self.descriptor_at.to_le_bytes());
        put(36, &self.descriptor_sectors.to_le_bytes());
        put(44, &self.table_entries.to_le_bytes());
        put(48, &self.redundant_at.to_le_bytes());
        put(56, &self.directory_at.to_le_bytes());
        put(64, &self.overhead.to_le_bytes());
        put(72, &[self.unclean]);
        put(73, &self.newlines);
        put(77, &self.compression.to_le_bytes());
        bytes
    }

    /// Reads the header or footer at byte `at` of a file. Only its first bytes and the line ends are checked here.
    pub(super) fn decode(bytes: &[u8; SECTOR as usize], at: u64) -> Result<Self, VmdkError> {
        let what = if at == 0 { "the header" } else { "the footer" };
        if bytes[..4] != MAGIC {
            let why = "does not begin with \"KDMV\"".to_owned();
            return Err(VmdkError::Damaged { what, at, why });
        }
        let mut newlines = [0; 4];
        newlines.copy_from_slice(&bytes[73..77]);
        let header = Self {
            version: u32_at(bytes, 4),
            flags: u32_at(bytes, 8),
            capacity: u64_at(bytes, 12),
            grain: u64_at(bytes, 20),
            descriptor_at: u64_at(bytes, 28),
            descriptor_sectors: u64_at(bytes, 36),
            table_entries: u32_at(bytes, 44),
            redundant_at: u64_at(bytes, 48),
            directory_at: u64_at(bytes, 56),
            overhead: u64_at(bytes, 64),
            unclean: bytes[72],
            newlines,
            compression: u16::from_le_bytes([bytes[77], bytes[78]]),
        };
        if header.flags & FLAG_NEWLINES != 0 && newlines != NEWLINES {
            let why = "shows that the file was transferred as text".to_owned();
            return Err(VmdkError::Damaged { what, at, why });
        }
        Ok(header)
    }
}

/// The number at byte `at`; `bytes` reaches that far.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

/// The number at byte `at`; `bytes` reaches that far.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

/// The 12 bytes before a grain's zlib stream: the grain's first sector on the disk, the stream's length.
pub(super) fn grain_marker(sector: u64, len: u32) -> [u8; GRAIN_MARKER] {
    let mut bytes = [0; GRAIN_MARKER];
    bytes[..8].copy_from_slice(&sector.to_le_bytes());
    bytes[8..].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// The descriptor of a disk of `capacity` sectors, padded to its sectors.
///
/// The content id is the end of `content`, changed where it would be one of the two that mean "none". The name in the
/// extent line is a fixed one: the file is the same under any name.
pub(super) fn descriptor(capacity: u64, content: Digest) -> Vec<u8> {
    let mut id = [0; 16];
    id.copy_from_slice(&content.0[..16]);
    let short = match u32::from_be_bytes([id[12], id[13], id[14], id[15]]) {
        taken @ 0xffff_fffe.. => taken & 0x7fff_ffff,
        free => free,
    };
    id[12..].copy_from_slice(&short.to_be_bytes());
    let long = u128::from_be_bytes(id);
    // The geometry of a SCSI disk; the cylinders end where a BIOS can count no further.
    let cylinders = capacity.div_ceil(255 * 63).min(65535);
    let text = format!(
        "# Disk DescriptorFile\n\
         version=1\n\
         encoding=\"UTF-8\"\n\
         CID={short:08x}\n\
         parentCID=ffffffff\n\
         createType=\"streamOptimized\"\n\
         \n\
         # Extent description\n\
         RDONLY {capacity} SPARSE \"generated-stream.vmdk\"\n\
         \n\
         # The Disk Data Base\n\
         #DDB\n\
         \n\
         ddb.adapterType = \"lsilogic\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"255\"\n\
         ddb.geometry.sectors = \"63\"\n\
         ddb.longContentID = \"{long:032x}\"\n\
         ddb.toolsVersion = \"2147483647\"\n\
         ddb.virtualHWVersion = \"4\"\n"
    );
    let mut bytes = text.into_bytes();
    bytes.resize((DESCRIPTOR_SECTORS * SECTOR) as usize, 0);
    bytes
}

/// The value of `key` in a descriptor, without its quotes.
pub(super) fn descriptor_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"'))
    })
}
