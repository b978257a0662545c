use std::io;

use block::{BlockSource, KIB, MIB};
use inspect::{Kind, PartitionContent, partitions, read_file};

use super::can_be_shown;
use crate::Target;

/// A disk of 32 MiB in which the input says what some of its KiB hold: two bytes that say which, then what is in it.
struct Pieces<'a> {
    pieces: Vec<(u64, &'a [u8])>,
}

const DISK: u64 = 32 * MIB;
const RECORD: usize = 2 + KIB as usize;

impl<'a> Pieces<'a> {
    fn new(input: &'a [u8]) -> Self {
        let piece = |record: &'a [u8]| {
            let (place, bytes) = record.split_at(record.len().min(2));
            let number = place.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
            (number * KIB % DISK, bytes)
        };
        let mut pieces: Vec<_> =
            input.chunks(RECORD).map(piece).filter(|(_, bytes)| !bytes.is_empty()).collect();
        pieces.sort_by_key(|(offset, _)| *offset);
        pieces.dedup_by_key(|(offset, _)| *offset);
        Self { pieces }
    }
}

impl BlockSource for Pieces<'_> {
    fn len(&self) -> u64 {
        DISK
    }

    fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
        Box::new(self.pieces.iter().map(|(offset, bytes)| (*offset, bytes.len() as u64)))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= DISK);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.fill(0);
        for (start, bytes) in &self.pieces {
            let (from, to) = (offset.max(*start), end.min(start + bytes.len() as u64));
            if from < to {
                let piece = &bytes[(from - start) as usize..(to - start) as usize];
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(piece);
            }
        }
        Ok(())
    }
}

pub(super) const FILE_SYSTEMS: Target = Target {
    words: &[
        b"EFI PART",
        b"\x53\xef",
        b"\x0a\xf3",
        b"\0\0\x02\xea",
        b"lost+found",
        b".\0\0\0",
        b"..\0\0",
        b"FAT16   ",
        b"\x55\xaa",
    ],
    // Pieces of metadata that are kept.
    fixed_memory: 24 << 20,
    ..Target::new(
        "file-systems",
        "a disk: its partitions, and the files of ext4 and FAT on them",
        24 << 10,
        |input| {
            let disk = Pieces::new(input);
            let Ok(found) = partitions(&disk) else { panic!("all of the disk can be read") };
            for partition in found {
                assert!(partition.offset + partition.len <= DISK, "partitions are on the disk");
                let files = match &partition.content {
                    PartitionContent::Unread(why) => {
                        can_be_shown(why);
                        continue;
                    }
                    PartitionContent::Files(files) => files,
                };
                assert!(files.names.is_sorted_by(|one, other| one.0 < other.0), "each name once, sorted");
                for (path, number) in &files.names {
                    let inode = &files.inodes[number];
                    let parent = path
                        .parent()
                        .map(|parent| files.names.binary_search_by(|(name, _)| name.cmp(&parent)));
                    assert!(parent.is_none_or(|found| found.is_ok()), "each name is in a folder");
                    for run in &inode.runs {
                        let end = partition.offset + partition.len;
                        assert!(
                            run.place >= partition.offset && run.place + run.len <= end,
                            "runs are on the partition"
                        );
                    }
                    let in_order = inode.runs.windows(2).all(|pair| pair[0].at + pair[0].len <= pair[1].at);
                    assert!(in_order, "runs are in their order");
                    if let Ok(Some(bytes)) = read_file(&disk, files, path, 64 << 10) {
                        assert!(inode.kind == Kind::File && bytes.len() as u64 == inode.size);
                    }
                }
            }
        },
    )
};
