//! Partition tables: GPT, and what can be said of a partition that is not read.

use block::{BlockSource, ReadError};

use crate::{read_at, u16_at, u32_at, u64_at};

/// Bytes in a sector, the unit of partition tables.
const SECTOR: u64 = 512;
/// Most bytes of a table that are read.
const LARGEST: u64 = 1 << 20;

/// An entry of a table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// The entries of a disk's GPT that lie on the disk, by number; `None` when it has none.
pub(crate) fn entries(source: &dyn BlockSource) -> Result<Option<Vec<Entry>>, ReadError> {
    let size = source.len();
    if size < 3 * SECTOR {
        return Ok(None);
    }
    let mut header = [0; SECTOR as usize];
    read_at(source, SECTOR, &mut header)?;
    let (first, count, entry) =
        (u64_at(&header, 72), u64::from(u32_at(&header, 80)), u64::from(u32_at(&header, 84)));
    let fits = (128..=4096).contains(&entry) && count * entry <= LARGEST;
    let start = first.checked_mul(SECTOR).filter(|start| *start < size && count * entry <= size - *start);
    let (b"EFI PART", true, Some(start)) = (&header[..8], fits, start) else { return Ok(None) };
    let mut table = vec![0; (count * entry) as usize];
    read_at(source, start, &mut table)?;
    let mut entries = Vec::new();
    for (number, entry) in (1..).zip(table.chunks_exact(entry as usize)) {
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        if entry[..16] == [0; 16] || first > last || last >= size / SECTOR {
            continue;
        }
        let units = (56..128).step_by(2).map(|at| u16_at(entry, at)).take_while(|unit| *unit != 0);
        let name =
            char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        let (offset, len) = (first * SECTOR, (last - first + 1) * SECTOR);
        entries.push(Entry { number, name, offset, len });
    }
    Ok(Some(entries))
}

/// What a partition holds by its first bytes, as a clause of a sentence: why its files are not known.
pub(crate) fn guess(head: &[u8]) -> &'static str {
    let at = |place: usize, sign: &[u8]| head.get(place..place + sign.len()) == Some(sign);
    if head.iter().all(|byte| *byte == 0) {
        "its beginning is empty"
    } else if at(0, b"XFSB") {
        "XFS, of which only the blocks are looked at"
    } else {
        "no file system that is known here"
    }
}

#[cfg(test)]
mod tests {
    use block::{BlockMap, GIB, KIB, MIB};
    use disk::{Partition, PartitionKind, Plan};

    use super::*;

    #[test]
    fn the_partitions_of_a_disk_keep_their_numbers_names_and_places() {
        let partition = |number, kind, name: &str, size| Partition {
            number,
            kind,
            name: name.to_owned(),
            uuid: [number as u8; 16],
            size,
            content: BlockMap::empty(0),
        };
        let plan = Plan {
            size: GIB,
            disk_uuid: [9; 16],
            partitions: vec![
                partition(14, PartitionKind::BiosBoot, "bios", Some(MIB)),
                partition(15, PartitionKind::EfiSystem, "esp é", Some(64 * MIB)),
                partition(1, PartitionKind::LinuxRootX86_64, "root", None),
            ],
        };
        let disk = disk::gpt(&plan, None).unwrap();
        let found = entries(&disk).unwrap().unwrap();
        let entry = |number, name: &str, offset, len| Entry { number, name: name.to_owned(), offset, len };
        let expected = [
            entry(1, "root", 66 * MIB, 957 * MIB),
            entry(14, "bios", MIB, MIB),
            entry(15, "esp é", 2 * MIB, 64 * MIB),
        ];
        assert_eq!(found, expected);
        for empty in [0, 600, 4 * KIB, MIB] {
            assert_eq!(entries(&BlockMap::empty(empty)).unwrap(), None);
        }
    }
}
