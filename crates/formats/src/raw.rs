use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use block::{BlockSource, MIB};
use rayon::prelude::*;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::Error;
use crate::regions::Regions;
use crate::target::{Target, write_error};

/// Most bytes in one read and one write.
const CHUNK: u64 = 4 * MIB;

/// What [`write_raw`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawStats {
    /// The image's size in bytes.
    pub size: u64,
    /// Bytes that were written, in whole pages of 4 KiB; the rest of the image is holes.
    pub written: u64,
    /// How many writes it took.
    pub writes: u64,
}

/// Writes a disk as a sparse raw file: runs without data stay holes, runs of data are read and written in pieces of
/// up to 4 MiB by all of rayon's threads, small runs that share a page or touch in one piece. `progress` is told the
/// bytes just written, from several threads.
///
/// The file appears at `path` complete or not at all, in place of a file that was there; two writers of one path do
/// not disturb each other, the last to finish stays. It is not forced to the disk: a power cut soon after may lose
/// it, an interrupted program leaves at most a `.<name>.….part` beside it.
pub fn write_raw(
    source: &dyn BlockSource,
    path: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<RawStats, Error> {
    let size = source.len();
    let chunks = chunks(source.data(), size);
    let written: u64 = chunks.iter().map(|(_, len)| len).sum();
    let target = Target::create(path)?;
    let failed = |error| write_error(error, target.path(), size, written);
    target.file().set_len(size).map_err(failed)?;
    chunks.par_iter().try_for_each_init(Vec::new, |buffer: &mut Vec<u8>, &(offset, len)| {
        buffer.resize(len as usize, 0);
        source.read_at(offset, buffer).map_err(|source| Error::Source {
            from: offset,
            to: offset + len,
            source,
        })?;
        target.file().write_all_at(buffer, offset).map_err(failed)?;
        progress(len);
        Ok(())
    })?;
    target.finish()?;
    Ok(RawStats { size, written, writes: chunks.len() as u64 })
}

/// What will be written of a disk, in bytes: its data in whole pages of 4 KiB. What `progress` is told adds up to it.
pub fn bytes_to_write(source: &dyn BlockSource) -> u64 {
    chunks(source.data(), source.len()).iter().map(|(_, len)| len).sum()
}

/// Runs of data as pieces to write: in whole pages, joined where they touch, cut at the multiples of [`CHUNK`].
fn chunks(data: impl Iterator<Item = (u64, u64)>, size: u64) -> Vec<(u64, u64)> {
    Regions::new(data, size, CHUNK).flat_map(|region| region.pieces).collect()
}

/// A raw image file (or a block device) as a disk. Holes are zeros; the file must not change while it is read.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    len: u64,
    data: Vec<(u64, u64)>,
}

impl RawFile {
    /// Opens an image and asks the file system where its data is.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |action| move |source| Error::Io { path: path.to_owned(), action, source };
        if path.is_dir() {
            return Err(Error::IsFolder { path: path.to_owned() });
        }
        let file = File::open(path).map_err(failed("opening the image"))?;
        let len = rustix::fs::seek(&file, SeekFrom::End(0))
            .map_err(|errno| failed("finding its length")(errno.into()))?;
        let data = data_runs(&file, len).map_err(|errno| failed("finding its holes")(errno.into()))?;
        Ok(Self { file, len, data })
    }
}

/// Where a file has data, as its file system says; all of it when the file system knows no holes.
fn data_runs(file: &File, len: u64) -> Result<Vec<(u64, u64)>, Errno> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < len {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOTTY) if runs.is_empty() => return Ok(vec![(0, len)]),
            Err(error) => return Err(error),
        };
        if start >= len {
            break;
        }
        at = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(len);
        runs.push((start, at - start));
    }
    Ok(runs)
}

impl BlockSource for RawFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
        Box::new(self.data.iter().copied())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.file.read_exact_at(buf, offset)
    }
}

#[cfg(test)]
mod tests;
