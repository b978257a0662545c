use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use block::{BLOCK_SIZE, BlockSource, Digest, Hasher};
use rayon::prelude::*;

use super::format::{
    AT_END, DESCRIPTOR_AT, GRAIN, Header, MAX_DISK, Marker, OVERHEAD, SECTOR, TABLE_BYTES, TABLE_ENTRIES,
    descriptor,
};
use super::grains::{GRAINS, GrainCache, Packed, Packer, is_zero};
use crate::Error;
use crate::raw::RawStats;
use crate::regions::{Region, Regions};
use crate::target::{Target, write_error};

/// Bytes of the disk that one grain table covers.
const TABLE_COVERS: u64 = TABLE_ENTRIES as u64 * GRAIN;

/// What may spare a VMDK writer work. None of it changes the file.
#[derive(Clone, Copy, Default)]
pub struct VmdkOptions<'a> {
    /// Where compressed blocks are kept from one writing to the next.
    pub cache: Option<&'a dyn GrainCache>,
    /// Tells the SHA-256 of a block (512 KiB, zero-padded) by its number, where it is known already: such a block is not
    /// hashed to ask the cache, and not read when the cache has it. The caller vouches for it.
    pub digests: Option<&'a (dyn Fn(u64) -> Option<Digest> + Sync)>,
    /// A raw file that holds some of the disk's blocks at their places already. The kernel copies them from there, or shares
    /// them where the file system can.
    pub earlier: Option<Earlier<'a>>,
}

/// An earlier raw file of the same disk.
#[derive(Clone, Copy)]
pub struct Earlier<'a> {
    /// The file, open for reading.
    pub file: &'a File,
    /// Whether a block, by its number, is the same in it. The caller vouches for it.
    pub same: &'a (dyn Fn(u64) -> bool + Sync),
}

/// What [`write_vmdk`] wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmdkStats {
    /// The disk's size in bytes, in whole sectors.
    pub size: u64,
    /// The file's size in bytes.
    pub file_size: u64,
    /// Grains of 64 KiB that hold data; the others take no room in the file.
    pub grains: u64,
    /// Bytes of the disk that were read.
    pub read: u64,
    /// Blocks of 512 KiB that were compressed.
    pub compressed_blocks: u64,
    /// Blocks of 512 KiB that came from the cache.
    pub cached_blocks: u64,
}

/// Writes a disk as a streamOptimized VMDK, on all of rayon's threads, in bounded memory. Runs without data are not read.
/// `progress` is told the bytes of data just done, in whole pages of 4 KiB, from several threads.
///
/// The same disk gives the same bytes. A length that is not a whole number of sectors is rounded up with zeros. An error
/// when the disk has no bytes, or is larger than 64 TiB, or its compressed data than 2 TiB. The file appears at `path` as
/// with [`crate::write_raw`].
pub fn write_vmdk(
    source: &dyn BlockSource,
    path: &Path,
    options: &VmdkOptions<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<VmdkStats, Error> {
    Ok(write(source, None, path, options, progress)?.1)
}

/// Writes a disk as a raw file and as a VMDK in one pass: each byte is read once. Both files are those that
/// [`crate::write_raw`] and [`write_vmdk`] make; they appear when both are complete.
pub fn write_raw_and_vmdk(
    source: &dyn BlockSource,
    raw: &Path,
    vmdk: &Path,
    options: &VmdkOptions<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(RawStats, VmdkStats), Error> {
    write(source, Some(raw), vmdk, options, progress)
}

fn write(
    source: &dyn BlockSource,
    raw: Option<&Path>,
    vmdk: &Path,
    options: &VmdkOptions<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(RawStats, VmdkStats), Error> {
    let size = source.len();
    if size == 0 || size > MAX_DISK {
        return Err(Error::DiskSize { path: vmdk.to_owned(), size, max: MAX_DISK });
    }
    let mut raw_stats = RawStats { size, written: 0, writes: 0 };
    for region in Regions::new(source.data(), size, BLOCK_SIZE) {
        raw_stats.writes += region.pieces.len() as u64;
        raw_stats.written += region.pieces.iter().map(|(_, len)| len).sum::<u64>();
    }
    let vmdk = Target::create(vmdk)?;
    let raw = raw.map(Target::create).transpose()?;
    if let Some(raw) = &raw {
        let failed = |error| write_error(error, raw.path(), size, raw_stats.written);
        raw.file().set_len(size).map_err(failed)?;
    }
    let job = Job {
        source,
        raw: raw.as_ref(),
        data: raw_stats.written,
        options,
        progress,
        workers: Mutex::default(),
    };
    let mut stream = Stream::new(&vmdk, size, raw_stats.written);
    let mut blocks = Regions::new(source.data(), size, BLOCK_SIZE);
    let mut done: Vec<Done> = Vec::new();
    loop {
        // While one batch is compressed the one before it is written.
        let batch: Vec<Region> = blocks.by_ref().take(batch_len()).collect();
        let (written, packed) = rayon::join(
            || stream.append(&done),
            || batch.par_iter().with_max_len(1).map(|block| job.block(block)).collect::<Result<_, _>>(),
        );
        written?;
        done = packed?;
        if done.is_empty() {
            break;
        }
    }
    let stats = stream.finish()?;
    vmdk.finish()?;
    raw.map(Target::finish).transpose()?;
    Ok((raw_stats, stats))
}

/// Blocks that are compressed between two writes: enough for threads to even out, at most 256 (128 MiB).
fn batch_len() -> usize {
    (16 * rayon::current_num_threads()).clamp(64, 256)
}

/// What work on a block needs and the next block can have again.
struct Worker {
    packer: Packer,
    buffer: Vec<u8>,
}

impl Worker {
    fn new() -> Self {
        Self { packer: Packer::new(), buffer: vec![0; BLOCK_SIZE as usize] }
    }
}

/// A block that is ready to be appended.
struct Done {
    number: u64,
    packed: Packed,
    read: u64,
    cached: bool,
}

/// What is to be done with every block.
struct Job<'a> {
    source: &'a dyn BlockSource,
    raw: Option<&'a Target>,
    /// Bytes of data of the whole disk, for messages.
    data: u64,
    options: &'a VmdkOptions<'a>,
    progress: &'a (dyn Fn(u64) + Sync),
    /// Those that no thread has at the moment.
    workers: Mutex<Vec<Worker>>,
}

impl Job<'_> {
    /// Does a block with a worker that is free, or a new one.
    fn block(&self, block: &Region) -> Result<Done, Error> {
        let free = || self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut worker = { free().pop() }.unwrap_or_else(Worker::new);
        let done = self.block_with(&mut worker, block);
        free().push(worker);
        done
    }

    fn block_with(&self, worker: &mut Worker, block: &Region) -> Result<Done, Error> {
        let number = block.number;
        let data: u64 = block.pieces.iter().map(|(_, len)| len).sum();
        let done = |packed, read, cached| {
            (self.progress)(data);
            Ok(Done { number, packed, read, cached })
        };
        let mut digest = self.options.digests.and_then(|digests| digests(number));
        if self.raw.is_none()
            && let Some(packed) = self.cached(digest, number)
        {
            return done(packed, 0, true);
        }
        if let Some(earlier) = self.options.earlier.filter(|earlier| (earlier.same)(number))
            && let Some(packed) = self.cached(digest, number)
            && self.copy(block, earlier.file)?
        {
            return done(packed, 0, true);
        }
        self.read(block, &mut worker.buffer)?;
        if is_zero(&worker.buffer) {
            return done(Packed::default(), data, false);
        }
        if self.options.cache.is_some() && (self.raw.is_some() || digest.is_none()) {
            digest = Some(digest.unwrap_or_else(|| Digest::of(&worker.buffer)));
            if let Some(packed) = self.cached(digest, number) {
                return done(packed, data, true);
            }
        }
        let packed = worker.packer.pack(number, &worker.buffer);
        if let (Some(cache), Some(digest)) = (self.options.cache, digest) {
            cache.put(&digest, &packed.to_entry(&digest));
        }
        done(packed, data, false)
    }

    /// A block from the cache.
    fn cached(&self, digest: Option<Digest>, number: u64) -> Option<Packed> {
        let digest = digest?;
        Packed::from_entry(&self.options.cache?.get(&digest)?, &digest, number)
    }

    /// Has the kernel copy a block's pieces from an earlier raw file; whether it could.
    fn copy(&self, block: &Region, earlier: &File) -> Result<bool, Error> {
        let Some(raw) = self.raw else { return Ok(false) };
        for &(offset, len) in &block.pieces {
            let (mut from, mut to) = (offset, offset);
            while from < offset + len {
                let left = (offset + len - from) as usize;
                match rustix::fs::copy_file_range(earlier, Some(&mut from), raw.file(), Some(&mut to), left) {
                    Ok(1..) => {}
                    Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                        let full = std::io::ErrorKind::StorageFull.into();
                        return Err(write_error(full, raw.path(), self.source.len(), self.data));
                    }
                    // Other file systems, an older kernel, a file that is shorter than it should be: the source has the bytes.
                    Ok(0) | Err(_) => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// Reads a block's pieces into `buffer`, with zeros between them, and writes them to the raw file if there is one.
    fn read(&self, block: &Region, buffer: &mut [u8]) -> Result<(), Error> {
        let start = block.number * BLOCK_SIZE;
        let mut end = 0;
        for &(offset, len) in &block.pieces {
            let (from, to) = ((offset - start) as usize, (offset + len - start) as usize);
            buffer[end..from].fill(0);
            let piece = &mut buffer[from..to];
            let failed = |source| Error::Source { from: offset, to: offset + len, source };
            self.source.read_at(offset, piece).map_err(failed)?;
            if let Some(raw) = self.raw {
                let failed = |error| write_error(error, raw.path(), self.source.len(), self.data);
                raw.file().write_all_at(piece, offset).map_err(failed)?;
            }
            end = to;
        }
        buffer[end..].fill(0);
        Ok(())
    }
}

/// The file, written from front to back; the header and the descriptor come last.
struct Stream<'a> {
    target: &'a Target,
    data: u64,
    capacity: u64,
    /// Bytes written so far, a multiple of a sector.
    position: u64,
    /// The grain table in the making, and which it is.
    table: [u32; TABLE_ENTRIES],
    table_number: Option<u64>,
    directory: Vec<u32>,
    /// Hashes number, length and CRC-32 of every grain: the content id.
    content: Hasher,
    stats: VmdkStats,
}

impl<'a> Stream<'a> {
    /// A stream for a disk of `size` bytes with `data` bytes of data.
    fn new(target: &'a Target, size: u64, data: u64) -> Self {
        let capacity = size.div_ceil(SECTOR);
        let mut content = Hasher::new();
        content.field(b"bakehouse vmdk content 1");
        content.update(&capacity.to_le_bytes());
        Self {
            target,
            data,
            capacity,
            position: OVERHEAD * SECTOR,
            table: [0; TABLE_ENTRIES],
            table_number: None,
            directory: vec![0; size.div_ceil(TABLE_COVERS) as usize],
            content,
            stats: VmdkStats { size: capacity * SECTOR, ..VmdkStats::default() },
        }
    }

    /// Appends blocks; each call brings higher ones than the call before.
    fn append(&mut self, blocks: &[Done]) -> Result<(), Error> {
        for Done { number, packed, read, cached } in blocks {
            self.stats.read += read;
            self.stats.cached_blocks += u64::from(*cached);
            if packed.grains.is_empty() {
                continue;
            }
            self.stats.compressed_blocks += u64::from(!*cached);
            self.stats.grains += packed.grains.len() as u64;
            let table = number * BLOCK_SIZE / TABLE_COVERS;
            if self.table_number != Some(table) {
                self.finish_table()?;
                self.table_number = Some(table);
            }
            let start = self.position;
            self.put(&packed.bytes)?;
            for grain in &packed.grains {
                let grain_number = number * GRAINS as u64 + grain.index as u64;
                self.table[grain_number as usize % TABLE_ENTRIES] = self.sector(start)? + grain.sector;
                self.content.update(&grain_number.to_le_bytes());
                self.content.update(&grain.len.to_le_bytes());
                self.content.update(&grain.crc.to_le_bytes());
            }
        }
        Ok(())
    }

    /// Appends the grain table of the grains that were appended since the last one.
    fn finish_table(&mut self) -> Result<(), Error> {
        if let Some(number) = self.table_number.take() {
            self.put(&Marker::Table.sector(TABLE_BYTES as u64 / SECTOR))?;
            self.directory[number as usize] = self.sector(self.position)?;
            let bytes: Vec<u8> = self.table.iter().flat_map(|place| place.to_le_bytes()).collect();
            self.put(&bytes)?;
            self.table.fill(0);
        }
        Ok(())
    }

    /// Appends what follows the last grain and writes what precedes the first.
    fn finish(mut self) -> Result<VmdkStats, Error> {
        self.finish_table()?;
        let mut directory: Vec<u8> = self.directory.iter().flat_map(|place| place.to_le_bytes()).collect();
        directory.resize(directory.len().next_multiple_of(SECTOR as usize), 0);
        self.put(&Marker::Directory.sector(directory.len() as u64 / SECTOR))?;
        let directory_at = self.position / SECTOR;
        self.put(&directory)?;
        self.put(&Marker::Footer.sector(1))?;
        self.put(&Header::stream_optimized(self.capacity, directory_at).encode())?;
        self.put(&Marker::EndOfStream.sector(0))?;
        self.stats.file_size = self.position;
        let descriptor = descriptor(self.capacity, self.content.clone().finish());
        self.put_at(&descriptor, DESCRIPTOR_AT * SECTOR)?;
        self.put_at(&Header::stream_optimized(self.capacity, AT_END).encode(), 0)?;
        Ok(self.stats)
    }

    /// Appends whole sectors.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        // What begins or ends past the last sector that has a number could not be found again.
        self.sector(self.position + bytes.len() as u64)?;
        self.put_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn put_at(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let failed = |error| write_error(error, self.target.path(), self.position, self.data);
        self.target.file().write_all_at(bytes, offset).map_err(failed)
    }

    /// The number of the sector at byte `position`: tables have 32 bits for it.
    fn sector(&self, position: u64) -> Result<u32, Error> {
        u32::try_from(position / SECTOR).map_err(|_| Error::VmdkTooLarge {
            path: self.target.path().to_owned(),
            max: u64::from(u32::MAX) * SECTOR,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_whose_places_need_more_than_32_bits_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::create(&folder.path().join("xvda.vmdk")).unwrap();
        let mut stream = Stream::new(&target, 4 << 40, 0);
        stream.position = u64::from(u32::MAX) * SECTOR - 1024;
        stream.put(&[1; 1024]).unwrap();
        assert_eq!(stream.sector(stream.position).unwrap(), u32::MAX);
        let error = stream.put(&[1; 512]).unwrap_err();
        assert!(matches!(error, Error::VmdkTooLarge { max, .. } if max == (2 << 40) - 512), "{error}");
    }
}
