//! FAT, read: 12, 16 and 32 bits, with long names.
//!
//! A FAT has no owners, modes or links: files are root's with mode 0. Times are taken as UTC.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use block::BlockSource;
use tree::{Timestamp, TreePath};

use crate::cached::Cached;
use crate::names::Names;
use crate::{Fault, FileSystem, Inode, Kind, Run, Xattrs, u16_at, u32_at};

const ENTRY: usize = 32;
const LONG_NAME: u8 = 0x0f;
const LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
/// UTF-16 units of a long name in one entry.
const UNITS: usize = 13;
const ROOT: u32 = 1;

/// Whether a partition that begins like this holds a FAT.
pub(crate) fn is_fat(head: &[u8]) -> bool {
    let at = |place: usize, sign: &[u8]| head.get(place..place + sign.len()) == Some(sign);
    at(510, &[0x55, 0xaa]) && (at(54, b"FAT") || at(82, b"FAT"))
}

/// Every file of the file system in `len` bytes from `offset` on.
pub(crate) fn read(source: &dyn BlockSource, offset: u64, len: u64) -> Result<FileSystem, Fault> {
    let mut reader = Reader::new(source, offset, len)?;
    let names = reader.walk()?;
    Ok(FileSystem { clean: true, names, inodes: reader.inodes })
}

fn damaged<T>(what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Damaged(what.into()))
}

/// How wide an entry of the table is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits12,
    Bits16,
    Bits32,
}

struct Reader<'a> {
    bytes: Cached<'a>,
    width: Width,
    table: u64,
    /// Place and bytes of the root folder, where it is no chain; else its first cluster.
    root: Result<(u64, u64), u32>,
    data: u64,
    cluster: u64,
    clusters: u32,
    used: BTreeSet<u32>,
    inodes: BTreeMap<u32, Inode>,
    none: Arc<Xattrs>,
}

/// An entry of a folder.
struct Found {
    name: Vec<u8>,
    is_folder: bool,
    first: u32,
    size: u32,
    mtime: Timestamp,
}

impl<'a> Reader<'a> {
    fn new(source: &'a dyn BlockSource, offset: u64, len: u64) -> Result<Self, Fault> {
        let mut bytes = Cached::new(source, offset, len);
        let mut boot = [0; 512];
        bytes.fill(0, &mut boot)?;
        let sector = u64::from(u16_at(&boot, 11));
        let cluster = sector * u64::from(boot[13]);
        let of_16_or_32 = |short: usize, long: usize| match u16_at(&boot, short) {
            0 => u64::from(u32_at(&boot, long)),
            number => u64::from(number),
        };
        let (sectors, table_sectors) = (of_16_or_32(19, 32), of_16_or_32(22, 36));
        let table = sector * u64::from(u16_at(&boot, 14));
        let root = table + sector * table_sectors * u64::from(boot[16]);
        let root_len = u64::from(u16_at(&boot, 17)) * ENTRY as u64;
        let fits = matches!(sector, 512 | 1024 | 2048 | 4096)
            && boot[13].is_power_of_two()
            && table > 0
            && boot[16] > 0
            && sectors * sector <= len
            && root + root_len < sectors * sector;
        if !fits {
            return damaged("the numbers of its first sector do not fit each other");
        }
        let data = (root + root_len).next_multiple_of(sector);
        let clusters = sectors.saturating_mul(sector).saturating_sub(data) / cluster;
        let width = match clusters {
            0..4085 => Width::Bits12,
            4085..65525 => Width::Bits16,
            _ => Width::Bits32,
        };
        let Some(clusters) = u32::try_from(clusters).ok().filter(|clusters| *clusters < 0x0fff_fff0) else {
            return damaged("it has more clusters than it can count");
        };
        let root = match width {
            Width::Bits32 => Err(u32_at(&boot, 44)),
            _ => Ok((root, root_len)),
        };
        let (used, inodes, none) = Default::default();
        Ok(Self { bytes, width, table, root, data, cluster, clusters, used, inodes, none })
    }

    fn walk(&mut self) -> Result<Vec<(TreePath, u32)>, Fault> {
        let mut names = Names::new(self.bytes.data_bytes());
        let runs = match self.root {
            Ok((place, len)) => vec![Run { at: 0, place: self.bytes.offset + place, len }],
            Err(first) => self.chain(first)?,
        };
        self.add(ROOT, Kind::Directory, 0, Timestamp::default(), runs);
        names.push(TreePath::root(), ROOT)?;
        let mut folders = vec![(TreePath::root(), ROOT)];
        while let Some((folder, number)) = folders.pop() {
            for found in self.folder(number)? {
                let path = names.below(&folder, &found.name)?;
                let number = self.inodes.len() as u32 + ROOT;
                let runs = if found.first == 0 { Vec::new() } else { self.chain(found.first)? };
                let len: u64 = runs.iter().map(|run| run.len).sum();
                if len < found.size.into() || (found.is_folder && len == 0) {
                    return damaged("a file has fewer clusters than bytes");
                }
                let kind = if found.is_folder { Kind::Directory } else { Kind::File };
                if found.is_folder {
                    folders.push((path.clone(), number));
                }
                self.add(number, kind, found.size.into(), found.mtime, runs);
                names.push(path, number)?;
            }
        }
        names.sorted()
    }

    fn add(&mut self, number: u32, kind: Kind, size: u64, mtime: Timestamp, runs: Vec<Run>) {
        let (xattrs, shared_xattrs) = (Xattrs::new(), self.none.clone());
        let inode =
            Inode { kind, mode: 0, uid: 0, gid: 0, size, mtime, links: 1, xattrs, shared_xattrs, runs };
        self.inodes.insert(number, inode);
    }

    /// The entry of a cluster in the table.
    fn next(&mut self, cluster: u32) -> Result<u32, Fault> {
        let mut raw = [0; 4];
        let (at, len) = match self.width {
            Width::Bits12 => (u64::from(cluster) * 3 / 2, 2),
            Width::Bits16 => (u64::from(cluster) * 2, 2),
            Width::Bits32 => (u64::from(cluster) * 4, 4),
        };
        self.bytes.fill(self.table + at, &mut raw[..len])?;
        let raw = u32::from_le_bytes(raw);
        Ok(match self.width {
            Width::Bits12 if cluster % 2 == 1 => raw >> 4,
            Width::Bits12 => raw & 0xfff,
            Width::Bits16 => raw,
            Width::Bits32 => raw & 0x0fff_ffff,
        })
    }

    /// The clusters of a file, as runs.
    fn chain(&mut self, first: u32) -> Result<Vec<Run>, Fault> {
        let end = match self.width {
            Width::Bits12 => 0xff8,
            Width::Bits16 => 0xfff8,
            Width::Bits32 => 0x0fff_fff8,
        };
        let mut runs: Vec<Run> = Vec::new();
        let (mut cluster, mut at) = (first, 0);
        while cluster < end {
            if cluster < 2 || cluster - 2 >= self.clusters {
                return damaged(format!("a file has cluster {cluster} of {}", self.clusters));
            }
            if !self.used.insert(cluster) {
                return damaged(format!("cluster {cluster} is in two files"));
            }
            let place = self.bytes.offset + self.data + u64::from(cluster - 2) * self.cluster;
            match runs.last_mut().filter(|last| last.place + last.len == place) {
                Some(last) => last.len += self.cluster,
                None => runs.push(Run { at, place, len: self.cluster }),
            }
            at += self.cluster;
            cluster = self.next(cluster)?;
        }
        Ok(runs)
    }

    fn folder(&mut self, number: u32) -> Result<Vec<Found>, Fault> {
        let runs = self.inodes[&number].runs.clone();
        let mut found = Vec::new();
        let mut long = LongName::default();
        for run in runs {
            for at in (0..run.len).step_by(ENTRY) {
                let mut entry = [0; ENTRY];
                self.bytes.fill(run.place - self.bytes.offset + at, &mut entry)?;
                match entry[0] {
                    0 => return Ok(found),
                    0xe5 => long = LongName::default(),
                    _ if entry[11] == LONG_NAME => long.add(&entry),
                    _ if entry[11] & LABEL != 0 => long = LongName::default(),
                    _ => {
                        let short = short_name(&entry);
                        let name = std::mem::take(&mut long).of(&entry[..11]).unwrap_or(short);
                        if name == b"." || name == b".." {
                            continue;
                        }
                        if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
                            return damaged("a folder has a name that is none");
                        }
                        let high =
                            if self.width == Width::Bits32 { u32::from(u16_at(&entry, 20)) << 16 } else { 0 };
                        let is_folder = entry[11] & FOLDER != 0;
                        found.push(Found {
                            name,
                            is_folder,
                            first: high | u32::from(u16_at(&entry, 26)),
                            size: if is_folder { 0 } else { u32_at(&entry, 28) },
                            mtime: time(u16_at(&entry, 24), u16_at(&entry, 22)),
                        });
                    }
                }
            }
        }
        Ok(found)
    }
}

/// A long name, whose last part comes first.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    sum: u8,
    /// The number of the part that came last; they end with 1.
    part: u8,
}

impl LongName {
    fn add(&mut self, entry: &[u8]) {
        let (number, sum) = (entry[0] & 0x3f, entry[13]);
        let begins = entry[0] & 0x40 != 0;
        if !begins && (sum != self.sum || number + 1 != self.part) {
            *self = Self::default();
            return;
        }
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        let units: Vec<u16> = places.map(|at| u16_at(entry, at)).collect();
        debug_assert_eq!(units.len(), UNITS);
        let rest = if begins { Vec::new() } else { std::mem::take(&mut self.units) };
        *self = Self { units: [units, rest].concat(), sum, part: number };
    }

    /// The name, when it is whole and that of this short name.
    fn of(self, short: &[u8]) -> Option<Vec<u8>> {
        let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.part != 1 || sum != self.sum {
            return None;
        }
        let units = self.units.into_iter().take_while(|unit| *unit != 0);
        let text: String =
            char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Some(text.into_bytes())
    }
}

/// A name of eight bytes and three, in lower case where its flags say so.
fn short_name(entry: &[u8]) -> Vec<u8> {
    let part = |bytes: &[u8], lower: bool| {
        let text = bytes.trim_ascii_end();
        if lower { text.to_ascii_lowercase() } else { text.to_vec() }
    };
    let mut name = part(&entry[..8], entry[12] & 0x08 != 0);
    if name.first() == Some(&0x05) {
        name[0] = 0xe5;
    }
    let ending = part(&entry[8..11], entry[12] & 0x10 != 0);
    if !ending.is_empty() {
        name.push(b'.');
        name.extend(ending);
    }
    name
}

/// A date and a time of day as the file system keeps them; 1970 when there is no date.
fn time(date: u16, time: u16) -> Timestamp {
    let (year, month, day) = (1980 + i64::from(date >> 9), i64::from(date >> 5 & 15), i64::from(date & 31));
    if month == 0 || day == 0 {
        // There is none: not all who write care.
        return Timestamp::default();
    }
    // Days since 1970 by the rule for years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds = i64::from(time >> 11) * 3600 + i64::from(time >> 5 & 63) * 60 + i64::from(time & 31) * 2;
    Timestamp::from_seconds(days * 86_400 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_since_1970() {
        let date = |year: u16, month: u16, day: u16| (year - 1980) << 9 | month << 5 | day;
        let seconds = |date, of_day| time(date, of_day).seconds;
        assert_eq!(seconds(date(1980, 1, 1), 0), 315_532_800);
        assert_eq!(seconds(date(2000, 2, 29), 0), 951_782_400);
        assert_eq!(seconds(date(2026, 11, 22), 12 << 11 | 34 << 5 | 28), 1_795_350_896);
    }

    #[test]
    fn short_names_have_their_dot_and_their_case() {
        let mut entry = *b"GRUBX64 EFI\x20\x18                   ";
        assert_eq!(short_name(&entry), b"grubx64.efi");
        entry[12] = 0;
        assert_eq!(short_name(&entry), b"GRUBX64.EFI");
        entry[8..11].fill(b' ');
        assert_eq!(short_name(&entry), b"GRUBX64");
    }
}
