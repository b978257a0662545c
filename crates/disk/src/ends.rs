use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::SECTOR;
use crate::table::ENTRIES_SECTORS;

/// Bytes kept at the disk's beginning: MBR, header, entries.
const HEAD: u64 = (2 + ENTRIES_SECTORS) * SECTOR;
/// Bytes kept at the disk's end: entries, header.
const TAIL: u64 = (ENTRIES_SECTORS + 1) * SECTOR;

/// A disk of which only the two ends exist: the bytes that a partition table touches. It lets a writer of partition
/// tables seek and write as on the whole disk.
#[derive(Debug)]
pub(crate) struct DiskEnds {
    len: u64,
    position: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl DiskEnds {
    /// The zeroed ends of a disk of `len` bytes, which must be longer than both together.
    pub(crate) fn new(len: u64) -> Self {
        Self { len, position: 0, head: vec![0; HEAD as usize], tail: vec![0; TAIL as usize] }
    }

    /// The disk's first bytes.
    pub(crate) fn head(&mut self) -> &mut [u8] {
        &mut self.head
    }

    /// The disk's last bytes, and where they begin.
    pub(crate) fn tail(&self) -> (u64, &[u8]) {
        (self.len - TAIL, &self.tail)
    }

    /// The `len` bytes at the current position.
    fn window(&mut self, len: usize) -> io::Result<&mut [u8]> {
        let (base, bytes) = match self.position.checked_sub(self.len - TAIL) {
            Some(base) => (base, &mut self.tail),
            None => (self.position, &mut self.head),
        };
        let end = (base as usize).checked_add(len).filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(|| io::Error::other("a partition table outside the disk's ends"))?;
        self.position += len as u64;
        Ok(&mut bytes[base as usize..end])
    }
}

impl Read for DiskEnds {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        buf.copy_from_slice(self.window(buf.len())?);
        Ok(buf.len())
    }
}

impl Write for DiskEnds {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.window(buf.len())?.copy_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for DiskEnds {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.len.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
