use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use block::{BlockSource, without_escapes};
use libdeflater::Decompressor;

use super::VmdkError;
use super::format::{
    AT_END, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_ZERO_GRAINS, GRAIN_MARKER, Header, MAGIC, MAX_DISK, Marker,
    SECTOR, TABLE_BYTES, TABLE_ENTRIES, descriptor_value, u32_at, u64_at,
};
use crate::Error;

/// Largest descriptor in sectors: 1 MiB.
const MAX_DESCRIPTOR: u64 = 2048;
/// So many characters of the descriptor are shown in an error.
const LONGEST_SHOWN: usize = 64;
/// Largest grain in sectors: 1 MiB.
const MAX_GRAIN: u64 = 2048;

/// A VMDK of one file (streamOptimized or monolithicSparse, without a parent) as a disk. The file must not change while
/// it is read.
///
/// Nothing in the file is believed: places are checked against the file's length and each other, a grain against its
/// place on the disk, its length and its checksum. Memory: 8 bytes for each grain that the file holds (12 while opening),
/// and two grains for each reader.
#[derive(Debug)]
pub struct VmdkFile {
    file: File,
    /// Length of the file.
    end: u64,
    header: Header,
    descriptor: String,
    /// `(number, first sector in the file)` of the grains that the file holds, by number.
    grains: Vec<(u32, u32)>,
}

impl VmdkFile {
    /// Opens a file and reads its tables.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return Err(Error::IsFolder { path: path.to_owned() });
        }
        let failed = |action| move |source| Error::Io { path: path.to_owned(), action, source };
        let file = File::open(path).map_err(failed("opening the image"))?;
        let end = file.metadata().map_err(failed("finding its length"))?.len();
        Self::read(file, end).map_err(|problem| match problem {
            Problem::Io(source) => failed("reading the image")(source),
            Problem::Format(source) => Error::Vmdk { path: path.to_owned(), source },
        })
    }

    /// The descriptor in the file: who made it, its content id, its geometry.
    pub fn descriptor(&self) -> &str {
        &self.descriptor
    }

    fn read(file: File, end: u64) -> Result<Self, Problem> {
        let mut file = Self {
            file,
            end,
            header: Header::stream_optimized(1, 0),
            descriptor: String::new(),
            grains: vec![],
        };
        file.header = file.read_header()?;
        check_header(&file.header)?;
        file.descriptor = file.read_descriptor()?;
        check_descriptor(&file.descriptor)?;
        file.read_tables()?;
        Ok(file)
    }

    /// The header; the footer when the header points to it.
    fn read_header(&self) -> Result<Header, Problem> {
        let mut start = [0; SECTOR as usize];
        let start = &mut start[..SECTOR.min(self.end) as usize];
        self.file.read_exact_at(start, 0)?;
        check_magic(start)?;
        let header = Header::decode(&self.sector("the header", 0)?, 0)?;
        if header.directory_at != AT_END {
            return Ok(header);
        }
        // Marker, footer and end of stream are the last three sectors.
        let at = self.end.checked_sub(3 * SECTOR).filter(|at| at.is_multiple_of(SECTOR));
        let missing = VmdkError::Damaged {
            what: "the end of the file",
            at: self.end,
            why: "has no footer, as if the file were cut short".to_owned(),
        };
        let Some(at) = at.filter(|at| *at > 0) else { return Err(missing.into()) };
        let (marker, end) =
            (self.sector("the footer", at)?, self.sector("the end of stream", at + 2 * SECTOR)?);
        if !Marker::Footer.is(&marker) || !Marker::EndOfStream.is(&end) {
            return Err(missing.into());
        }
        let footer = Header::decode(&self.sector("the footer", at + SECTOR)?, at + SECTOR)?;
        if footer.directory_at == AT_END || footer.shape() != header.shape() {
            let why = "does not fit the header".to_owned();
            return Err(VmdkError::Damaged { what: "the footer", at: at + SECTOR, why }.into());
        }
        Ok(footer)
    }

    fn read_descriptor(&self) -> Result<String, Problem> {
        let Header { descriptor_at, descriptor_sectors, .. } = self.header;
        if descriptor_at == 0 || descriptor_sectors == 0 {
            return Err(VmdkError::Unsupported {
                what: "form",
                found: "a part of a disk, without a descriptor".to_owned(),
                wanted: "a single file",
            }
            .into());
        }
        let at = descriptor_at.saturating_mul(SECTOR);
        if descriptor_sectors > MAX_DESCRIPTOR {
            let why = format!("has {descriptor_sectors} sectors, {MAX_DESCRIPTOR} at most are read");
            return Err(VmdkError::Damaged { what: "the descriptor", at, why }.into());
        }
        let bytes = self.bytes("the descriptor", at, (descriptor_sectors * SECTOR) as usize)?;
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
    }

    /// Reads the grain directory and the tables, and checks that nothing in the file lies over anything else.
    fn read_tables(&mut self) -> Result<(), Problem> {
        let header = &self.header;
        let grains = header.capacity.div_ceil(header.grain);
        let entries = grains.div_ceil(TABLE_ENTRIES as u64);
        let directory_at = header.directory_at.saturating_mul(SECTOR);
        self.check("the grain directory", directory_at, entries * 4)?;
        let mut tables = Vec::new();
        for first in (0..entries).step_by(4096) {
            let len = (entries - first).min(4096) as usize * 4;
            let directory = self.bytes("the grain directory", directory_at + first * 4, len)?;
            tables.extend((first..).zip(entries_of(&directory)).filter(|(_, place)| *place != 0));
        }
        let mut places = vec![
            Place { first: 0, sectors: 1, what: "the header" },
            Place { first: header.descriptor_at, sectors: header.descriptor_sectors, what: "the descriptor" },
            Place {
                first: header.directory_at,
                sectors: (entries * 4).div_ceil(SECTOR),
                what: "the grain directory",
            },
        ];
        places.extend(tables.iter().map(|(_, place)| Place {
            first: u64::from(*place),
            sectors: TABLE_BYTES as u64 / SECTOR,
            what: "a grain table",
        }));
        places.sort_unstable();
        // Only then the tables, so that many entries for one table cannot make much of little.
        for pair in places.windows(2) {
            pair[1].check_after(pair[0])?;
        }
        let mut found = Vec::new();
        for (index, place) in tables {
            self.read_table(index, place, grains, &mut found)?;
        }
        self.check_grains(&found, &places)?;
        self.grains = found;
        Ok(())
    }

    /// An error when a grain lies over another, or over one of `places`, which are sorted.
    fn check_grains(&self, grains: &[(u32, u32)], places: &[Place]) -> Result<(), VmdkError> {
        // How long a compressed grain is stands in its marker, which says too whose it is.
        let sectors = if self.is_compressed() { 1 } else { self.header.grain };
        let place = |first: u32| Place { first: first.into(), sectors, what: "a grain" };
        let mut firsts: Vec<u32> = grains.iter().map(|(_, first)| *first).collect();
        firsts.sort_unstable();
        for pair in firsts.windows(2) {
            place(pair[1]).check_after(place(pair[0]))?;
        }
        for other in places {
            let after = firsts.partition_point(|first| u64::from(*first) < other.first);
            if let Some(before) = after.checked_sub(1) {
                other.check_after(place(firsts[before]))?;
            }
            if let Some(first) = firsts.get(after) {
                place(*first).check_after(*other)?;
            }
        }
        Ok(())
    }

    /// Adds the grains of table number `index` at sector `place`.
    fn read_table(
        &self,
        index: u64,
        place: u32,
        grains: u64,
        found: &mut Vec<(u32, u32)>,
    ) -> Result<(), Problem> {
        let at = u64::from(place) * SECTOR;
        let table = self.bytes("a grain table", at, TABLE_BYTES)?;
        let zero_grains = self.header.flags & FLAG_ZERO_GRAINS != 0;
        let first = index * TABLE_ENTRIES as u64;
        for (number, sector) in (first..).zip(entries_of(&table)) {
            if sector == 0 || (zero_grains && sector == 1) {
                continue;
            }
            if number >= grains {
                let why = format!("has a grain past the end of the disk, number {number} of {grains}");
                return Err(VmdkError::Damaged { what: "a grain table", at, why }.into());
            }
            let len = if self.is_compressed() { GRAIN_MARKER as u64 } else { self.header.grain * SECTOR };
            self.check("a grain", u64::from(sector) * SECTOR, len)?;
            // A disk has at most 2^32 grains: `check_header`.
            found.push((number as u32, sector));
        }
        Ok(())
    }

    fn is_compressed(&self) -> bool {
        self.header.flags & FLAG_COMPRESSED != 0
    }

    /// An error when `len` bytes from byte `at` on are not all in the file.
    fn check(&self, what: &'static str, at: u64, len: u64) -> Result<(), VmdkError> {
        match at.checked_add(len) {
            Some(end) if end <= self.end => Ok(()),
            end => Err(VmdkError::Truncated { what, end: end.unwrap_or(u64::MAX), len: self.end }),
        }
    }

    fn bytes(&self, what: &'static str, at: u64, len: usize) -> Result<Vec<u8>, Problem> {
        self.check(what, at, len as u64)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    fn sector(&self, what: &'static str, at: u64) -> Result<[u8; SECTOR as usize], Problem> {
        self.check(what, at, SECTOR)?;
        let mut bytes = [0; SECTOR as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Fills `part` with the bytes of a grain from its byte `from` on.
    fn read_grain(
        &self,
        grain: (u32, u32),
        from: usize,
        part: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), Problem> {
        let (number, sector) = grain;
        let at = u64::from(sector) * SECTOR;
        if !self.is_compressed() {
            self.file.read_exact_at(part, at + from as u64)?;
            return Ok(());
        }
        self.inflate(number, at, scratch)?;
        // The last grain may end where the disk ends.
        let Some(bytes) = scratch.grain.get(from..from + part.len()) else {
            let why = format!("holds {} bytes, too few", scratch.grain.len());
            return Err(VmdkError::Damaged { what: "a grain", at, why }.into());
        };
        part.copy_from_slice(bytes);
        Ok(())
    }

    /// Decompresses the grain at byte `at`.
    fn inflate(&self, number: u32, at: u64, scratch: &mut Scratch) -> Result<(), Problem> {
        let damaged = |why| Problem::from(VmdkError::Damaged { what: "a grain", at, why });
        let grain_bytes = (self.header.grain * SECTOR) as usize;
        let mut marker = [0; GRAIN_MARKER];
        self.file.read_exact_at(&mut marker, at)?;
        let (place, len) = (u64_at(&marker, 0), u32_at(&marker, 8) as usize);
        if place != u64::from(number) * self.header.grain {
            return Err(damaged(format!("is marked as the disk's sector {place}, its table says otherwise")));
        }
        // A zlib stream is hardly ever larger than what it holds.
        if len == 0 || len > 2 * grain_bytes {
            return Err(damaged(format!("is said to take {len} bytes")));
        }
        self.check("a grain", at, (GRAIN_MARKER + len) as u64)?;
        scratch.stream.resize(len, 0);
        self.file.read_exact_at(&mut scratch.stream, at + GRAIN_MARKER as u64)?;
        scratch.grain.resize(grain_bytes, 0);
        let inflated = scratch.decompressor.zlib_decompress(&scratch.stream, &mut scratch.grain);
        let inflated = inflated.map_err(|error| damaged(format!("does not decompress ({error})")))?;
        scratch.grain.truncate(inflated);
        Ok(())
    }
}

/// What a reader keeps from grain to grain.
struct Scratch {
    decompressor: Decompressor,
    stream: Vec<u8>,
    grain: Vec<u8>,
}

/// Where something lies in the file, in sectors. What comes first in the file is less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    first: u64,
    sectors: u64,
    what: &'static str,
}

impl Place {
    /// An error when `before`, which begins no later, reaches into this.
    fn check_after(self, before: Self) -> Result<(), VmdkError> {
        if before.first.saturating_add(before.sectors) <= self.first {
            return Ok(());
        }
        let at = self.first.saturating_mul(SECTOR);
        let why = format!("begins within {} at byte {}", before.what, before.first * SECTOR);
        Err(VmdkError::Damaged { what: self.what, at, why })
    }
}

/// The entries of a directory or a table.
fn entries_of(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|entry| u32::from_le_bytes(*entry))
}

/// Refuses what is no VMDK, by the first bytes of the file.
fn check_magic(start: &[u8]) -> Result<(), VmdkError> {
    if start.starts_with(&MAGIC) {
        return Ok(());
    }
    if start.starts_with(b"# Disk DescriptorFile") {
        return Err(VmdkError::Unsupported {
            what: "form",
            found: "a descriptor whose data is in other files".to_owned(),
            wanted: "a single file",
        });
    }
    let found = start.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Err(VmdkError::NotVmdk { found })
}

/// Refuses what cannot be read here. After it, lengths can be multiplied without a second thought.
fn check_header(header: &Header) -> Result<(), VmdkError> {
    let unsupported =
        |what, found: u64, wanted| Err(VmdkError::Unsupported { what, found: found.to_string(), wanted });
    if !(1..=3).contains(&header.version) {
        return unsupported("version", header.version.into(), "1, 2 or 3");
    }
    if !(1..=MAX_DISK / SECTOR).contains(&header.capacity) {
        return unsupported("capacity in sectors", header.capacity, "1 to 2^37 (64 TiB)");
    }
    if !header.grain.is_power_of_two() || !(8..=MAX_GRAIN).contains(&header.grain) {
        return unsupported("grain in sectors", header.grain, "a power of two from 8 to 2048");
    }
    if header.capacity.div_ceil(header.grain) > 1 << 32 {
        return unsupported("number of grains", header.capacity.div_ceil(header.grain), "2^32 at most");
    }
    if header.table_entries as usize != TABLE_ENTRIES {
        return unsupported("number of entries in a table", header.table_entries.into(), "512");
    }
    let compressed = header.flags & FLAG_COMPRESSED != 0;
    if compressed != (header.flags & FLAG_MARKERS != 0) {
        return unsupported("flags word", header.flags.into(), "compression and markers together");
    }
    if header.compression != u16::from(compressed) {
        return unsupported(
            "compression method",
            header.compression.into(),
            "deflate (1), or none without the flag",
        );
    }
    Ok(())
}

/// Refuses disks that are more than this file.
fn check_descriptor(text: &str) -> Result<(), VmdkError> {
    let unsupported = |what, found: Option<&str>, wanted| {
        // It is the file's own text, and not a short one perhaps.
        let found: String = without_escapes(found.unwrap_or("missing")).chars().take(LONGEST_SHOWN).collect();
        Err(VmdkError::Unsupported { what, found, wanted })
    };
    match descriptor_value(text, "createType") {
        Some("streamOptimized" | "monolithicSparse") => {}
        other => return unsupported("createType", other, "streamOptimized or monolithicSparse"),
    }
    match descriptor_value(text, "parentCID") {
        Some(id) if id.eq_ignore_ascii_case("ffffffff") => Ok(()),
        other => unsupported("parentCID", other, "ffffffff (no parent)"),
    }
}

impl BlockSource for VmdkFile {
    fn len(&self) -> u64 {
        self.header.capacity * SECTOR
    }

    fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
        let grain = self.header.grain * SECTOR;
        let mut grains = self.grains.iter().peekable();
        Box::new(std::iter::from_fn(move || {
            let first = u64::from(grains.next()?.0);
            let mut end = first + 1;
            while grains.next_if(|(number, _)| u64::from(*number) == end).is_some() {
                end += 1;
            }
            Some((first * grain, (end * grain).min(self.len()) - first * grain))
        }))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.fill(0);
        let size = self.header.grain * SECTOR;
        let mut scratch =
            Scratch { decompressor: Decompressor::new(), stream: Vec::new(), grain: Vec::new() };
        let first = self.grains.partition_point(|(number, _)| (u64::from(*number) + 1) * size <= offset);
        for grain in self.grains[first..].iter().take_while(|(number, _)| u64::from(*number) * size < end) {
            let start = u64::from(grain.0) * size;
            let (from, to) = (start.max(offset), (start + size).min(end));
            let part = &mut buf[(from - offset) as usize..(to - offset) as usize];
            self.read_grain(*grain, (from - start) as usize, part, &mut scratch)?;
        }
        Ok(())
    }
}

/// What can go wrong while a file is read.
enum Problem {
    Io(io::Error),
    Format(VmdkError),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<VmdkError> for Problem {
    fn from(error: VmdkError) -> Self {
        Self::Format(error)
    }
}

impl From<Problem> for io::Error {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Io(error) => error,
            Problem::Format(error) => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}
