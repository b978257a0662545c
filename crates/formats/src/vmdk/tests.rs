use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use block::{
    BLOCK_SIZE, BlockMap, BlockMapBuilder, BlockSource, Content, Digest, GIB, KIB, MIB, Origin, ReadAt,
};
use proptest::prelude::*;

use super::format::{GRAIN, Header, OVERHEAD, SECTOR, TABLE_BYTES, u32_at, u64_at};
use super::*;
use crate::{Error, RawFile, write_raw};

const TEST: Origin = Origin::Structure("test");

fn quiet(_: u64) {}

fn map_of(len: u64, extents: &[(u64, Vec<u8>)]) -> BlockMap {
    let mut builder = BlockMapBuilder::new();
    for (offset, bytes) in extents {
        builder.push_all(*offset, Content::from_bytes(bytes.clone()), TEST);
    }
    builder.finish(len).unwrap()
}

/// Bytes that follow from `seed` and compress about as a disk does.
fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 16);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = (state >> 33) as u32;
        match word % 4 {
            0 => bytes.extend_from_slice(&word.to_le_bytes()),
            1 => bytes.extend_from_slice(b"/usr/share/doc/"),
            2 => bytes.extend_from_slice(&[word as u8; 9]),
            _ => bytes.extend_from_slice(format!("{}\n", word % 1000).as_bytes()),
        }
    }
    bytes.truncate(len);
    bytes
}

/// A disk of 70 MiB (three grain tables, the second empty) with data of all sorts.
fn sample() -> BlockMap {
    map_of(
        70 * MIB,
        &[
            (0, text(1, 3 * MIB as usize + 17)),
            (4 * MIB - 5, text(2, 10)),
            (5 * MIB, vec![0; 100_000]),
            (6 * MIB, text(3, 700_000)),
            (66 * MIB + 4096, text(4, 65536)),
            (70 * MIB - 512, vec![9; 512]),
        ],
    )
}

fn bytes_of(source: &dyn BlockSource) -> Vec<u8> {
    let mut bytes = vec![0; source.len() as usize];
    source.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Writes a disk as a VMDK in a folder of its own; the file's bytes.
fn written(source: &dyn BlockSource) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    let stats = write_vmdk(source, &path, &VmdkOptions::default(), &quiet).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(stats.file_size, bytes.len() as u64);
    bytes
}

fn open(bytes: &[u8]) -> Result<VmdkFile, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    fs::write(&path, bytes).unwrap();
    VmdkFile::open(&path)
}

/// Reads a stream from front to back as an importer does: markers only, the grain directory last. The disk's bytes.
fn streamed(file: &[u8]) -> Vec<u8> {
    let sector = |number: u64| &file[(number * SECTOR) as usize..][..SECTOR as usize];
    let header = Header::decode(sector(0).try_into().unwrap(), 0).unwrap();
    assert_eq!((header.version, header.flags, header.directory_at), (3, 0x30001, u64::MAX));
    let mut disk = vec![0; (header.capacity * SECTOR) as usize];
    let (mut table, mut directory): (Vec<(u64, u64)>, HashMap<u64, u64>) = Default::default();
    let (mut at, mut footer) = (header.overhead, None);
    loop {
        let marker = sector(at);
        let (value, len) = (u64_at(marker, 0), u32_at(marker, 8) as usize);
        if len > 0 {
            let start = (at * SECTOR) as usize + 12;
            let mut grain = vec![0; GRAIN as usize];
            let inflated =
                libdeflater::Decompressor::new().zlib_decompress(&file[start..start + len], &mut grain);
            assert_eq!(inflated.unwrap(), GRAIN as usize, "grains are whole");
            let end = disk.len().min((value * SECTOR + GRAIN) as usize);
            let part = &mut disk[(value * SECTOR) as usize..end];
            part.copy_from_slice(&grain[..part.len()]);
            table.push((value / 128, at));
            at += (12 + len as u64).div_ceil(SECTOR);
            continue;
        }
        at += 1;
        match u32_at(marker, 12) {
            1 => {
                assert_eq!(value, 4);
                let number = table[0].0 / 512;
                let entries = &file[(at * SECTOR) as usize..][..TABLE_BYTES];
                for entry in 0..512 {
                    let place = table
                        .iter()
                        .find(|(grain, _)| *grain == number * 512 + entry)
                        .map_or(0, |grain| grain.1);
                    assert_eq!(u64::from(u32_at(entries, entry as usize * 4)), place);
                }
                assert!(table.drain(..).all(|(grain, _)| grain / 512 == number));
                assert_eq!(directory.insert(number, at), None);
            }
            2 => {
                assert!(table.is_empty());
                let entries = (header.capacity * SECTOR).div_ceil(32 * MIB);
                assert_eq!(value, (entries * 4).div_ceil(SECTOR));
                for entry in 0..value * 128 {
                    let place = directory.get(&entry).copied().unwrap_or(0);
                    assert_eq!(u64::from(u32_at(&file[(at * SECTOR + entry * 4) as usize..], 0)), place);
                }
                footer = Some(Header { directory_at: at, ..header.clone() });
            }
            3 => {
                assert_eq!(value, 1);
                assert_eq!(
                    Header::decode(sector(at).try_into().unwrap(), 1).unwrap(),
                    footer.clone().unwrap()
                );
            }
            0 => {
                assert_eq!(marker, [0; 512]);
                assert_eq!(at * SECTOR, file.len() as u64, "nothing after the end of the stream");
                return disk;
            }
            other => panic!("marker {other}"),
        }
        at += value;
    }
}

#[test]
fn a_disk_reads_back_by_its_tables_and_from_front_to_back() {
    let disk = sample();
    let file = written(&disk);
    let vmdk = open(&file).unwrap();
    let bytes = bytes_of(&disk);
    assert_eq!(vmdk.len(), disk.len());
    assert!(bytes_of(&vmdk) == bytes);
    assert!(streamed(&file) == bytes);
    // 3 MiB and 17 bytes, two pages around 4 MiB, 700,000 bytes, 64 KiB across two grains, the last page.
    let data: Vec<_> = vmdk.data().map(|(offset, len)| (offset / GRAIN, len / GRAIN)).collect();
    assert_eq!(data, [(0, 49), (63, 2), (96, 11), (1056, 2), (1119, 1)]);
}

#[test]
fn numbers_say_what_was_done_and_holes_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let progress = AtomicU64::new(0);
    let count = |bytes| _ = progress.fetch_add(bytes, Ordering::Relaxed);
    let path = folder.path().join("xvda.vmdk");
    let stats = write_vmdk(&sample(), &path, &VmdkOptions::default(), &count).unwrap();
    let pages = 3 * MIB + 4096 + 8192 + 102_400 + 700_416 + 65536 + 4096;
    assert_eq!(
        stats,
        VmdkStats {
            size: 70 * MIB,
            file_size: path.metadata().unwrap().len(),
            grains: 49 + 2 + 11 + 2 + 1,
            read: pages,
            compressed_blocks: 7 + 2 + 2 + 1 + 1,
            cached_blocks: 0,
        }
    );
    assert_eq!(progress.into_inner(), pages);
    assert_eq!(crate::bytes_to_write(&sample()), pages);
    // Zeros that a file has, and a page's rest, take no room.
    assert!(stats.file_size < 3 * MIB, "{}", stats.file_size);
}

#[test]
fn one_pass_makes_the_files_that_two_make() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let disk = sample();
    let options = VmdkOptions::default();
    let raw = write_raw(&disk, &path("1.raw"), &quiet).unwrap();
    let vmdk = write_vmdk(&disk, &path("1.vmdk"), &options, &quiet).unwrap();
    let both = write_raw_and_vmdk(&disk, &path("2.raw"), &path("2.vmdk"), &options, &quiet).unwrap();
    assert_eq!((both.0.size, both.0.written, both.1), (raw.size, raw.written, vmdk));
    let bytes = |name: &str| fs::read(path(name)).unwrap();
    assert!(bytes("1.raw") == bytes("2.raw") && bytes("1.vmdk") == bytes("2.vmdk"));
    let holes = |name: &str| RawFile::open(&path(name)).unwrap().data().collect::<Vec<_>>();
    assert_eq!(holes("1.raw"), holes("2.raw"));
    // From the raw file it is the same again, and from itself.
    let again = RawFile::open(&path("2.raw")).unwrap();
    write_vmdk(&again, &path("3.vmdk"), &options, &quiet).unwrap();
    write_vmdk(&VmdkFile::open(&path("3.vmdk")).unwrap(), &path("4.vmdk"), &options, &quiet).unwrap();
    assert!(bytes("1.vmdk") == bytes("3.vmdk") && bytes("1.vmdk") == bytes("4.vmdk"));
}

#[test]
fn threads_leave_no_trace() {
    // More than one batch of blocks.
    let disk = map_of(200 * MIB, &[(0, text(7, 40 * MIB as usize)), (150 * MIB, text(8, 10 * MIB as usize))]);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        Digest::of(&pool.install(|| written(&disk)))
    };
    assert_eq!(with(1), with(2));
    assert_eq!(with(1), with(7));
}

#[test]
fn sizes_at_the_edges() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    let write = |disk: &BlockMap| write_vmdk(disk, &path, &VmdkOptions::default(), &quiet);
    for (len, size) in
        [(1, 512), (512, 512), (513, 1024), (65536, 65536), (65537, 66048), (MIB + 1, MIB + 512)]
    {
        let disk = map_of(len, &[(len - 1, vec![7])]);
        let stats = write(&disk).unwrap();
        assert_eq!((stats.size, stats.grains), (size, 1));
        let mut bytes = bytes_of(&disk);
        bytes.resize(size as usize, 0);
        assert!(bytes_of(&VmdkFile::open(&path).unwrap()) == bytes, "{len}");
        assert!(streamed(&fs::read(&path).unwrap()) == bytes, "{len}");
    }
    // Empty: header, descriptor, one sector of directory, footer, and the markers.
    let stats = write(&BlockMap::empty(GIB)).unwrap();
    assert_eq!((stats.file_size, stats.grains, stats.read), ((OVERHEAD + 5) * SECTOR, 0, 0));
    let vmdk = VmdkFile::open(&path).unwrap();
    assert_eq!((vmdk.len(), vmdk.data().count()), (GIB, 0));
    let error = write(&BlockMap::empty(0)).unwrap_err().to_string();
    assert!(error.ends_with("a VMDK holds a disk of 1 to 70368744177664 bytes, this disk has 0"), "{error}");
    assert!(matches!(write(&BlockMap::empty(64 * 1024 * GIB + 1)), Err(Error::DiskSize { .. })));
}

#[test]
fn a_disk_of_64_tib() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    let size = 64 * 1024 * GIB;
    let extents =
        [(0, text(1, 100_000)), (3 * 1024 * GIB, text(2, 100_000)), (size - 100_000, text(3, 100_000))];
    let stats = write_vmdk(&map_of(size, &extents), &path, &VmdkOptions::default(), &quiet).unwrap();
    // The directory: 4 bytes for each 32 MiB.
    assert!((8 * MIB..9 * MIB).contains(&stats.file_size), "{}", stats.file_size);
    let vmdk = VmdkFile::open(&path).unwrap();
    assert_eq!(vmdk.len(), size);
    for (offset, bytes) in extents {
        let mut read = vec![0; bytes.len()];
        vmdk.read_at(offset, &mut read).unwrap();
        assert!(read == bytes);
    }
}

#[test]
fn bytes_that_do_not_compress() {
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(MIB as usize)
    .collect();
    let disk = map_of(MIB, &[(0, noise)]);
    let file = written(&disk);
    assert!(file.len() as u64 > MIB + OVERHEAD * SECTOR && (file.len() as u64) < MIB + MIB / 8);
    assert!(bytes_of(&open(&file).unwrap()) == bytes_of(&disk));
}

#[test]
fn the_content_id_follows_the_content() {
    let id = |disk: &BlockMap| {
        let vmdk = open(&written(disk)).unwrap();
        let value = |key| format::descriptor_value(vmdk.descriptor(), key).unwrap().to_owned();
        let (short, long) = (value("CID"), value("ddb.longContentID"));
        assert!(short.len() == 8 && long.len() == 32 && long.ends_with(&short));
        assert_eq!(
            (value("parentCID").as_str(), value("createType").as_str()),
            ("ffffffff", "streamOptimized")
        );
        long
    };
    let ids = [
        id(&BlockMap::empty(MIB)),
        id(&BlockMap::empty(2 * MIB)),
        id(&map_of(MIB, &[(0, vec![1])])),
        id(&map_of(MIB, &[(0, vec![2])])),
        id(&map_of(MIB, &[(65536, vec![1])])),
    ];
    for (index, one) in ids.iter().enumerate() {
        assert!(ids[index + 1..].iter().all(|other| one != other), "{ids:?}");
    }
    // The two ids that stand for none are not given.
    for (last, short) in [(0xff, "7fffffff"), (0xfe, "7ffffffe"), (0xfd, "fffffffd")] {
        let mut content = Digest([0xff; 32]);
        content.0[15] = last;
        let text = String::from_utf8(format::descriptor(1, content)).unwrap();
        assert_eq!(format::descriptor_value(&text, "CID"), Some(short));
        assert!(format::descriptor_value(&text, "ddb.longContentID").unwrap().ends_with(short));
    }
}

/// A cache in memory that counts.
#[derive(Default)]
struct Memory {
    entries: Mutex<HashMap<Digest, Vec<u8>>>,
    hits: AtomicU64,
}

impl GrainCache for Memory {
    fn get(&self, block: &Digest) -> Option<Vec<u8>> {
        let entry = self.entries.lock().unwrap().get(block).cloned();
        self.hits.fetch_add(u64::from(entry.is_some()), Ordering::Relaxed);
        entry
    }

    fn put(&self, block: &Digest, entry: &[u8]) {
        assert!(entry.len() <= 530_000);
        self.entries.lock().unwrap().insert(*block, entry.to_vec());
    }
}

/// A disk that cannot be read.
struct Unreadable;

impl ReadAt for Unreadable {
    fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
        Err(std::io::Error::other("must not be read"))
    }
}

#[test]
fn blocks_come_from_the_cache_and_need_not_be_read_when_their_digests_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    let disk = sample();
    let plain = written(&disk);
    let cache = Memory::default();
    let options = VmdkOptions { cache: Some(&cache), digests: None, earlier: None };
    let cold = write_vmdk(&disk, &path, &options, &quiet).unwrap();
    assert_eq!((cold.compressed_blocks, cold.cached_blocks), (13, 0));
    assert!(fs::read(&path).unwrap() == plain);
    let warm = write_vmdk(&disk, &path, &options, &quiet).unwrap();
    assert_eq!((warm.compressed_blocks, warm.cached_blocks, warm.read), (0, 13, cold.read));
    assert!(fs::read(&path).unwrap() == plain);

    // The same disk, but its bytes cannot be had.
    let bytes = bytes_of(&disk);
    let digests = |number: u64| {
        let mut block = bytes[(number * BLOCK_SIZE) as usize..].to_vec();
        block.resize(BLOCK_SIZE as usize, 0);
        Some(Digest::of(&block)).filter(|_| number != 0)
    };
    let mut builder = BlockMapBuilder::new();
    for extent in disk.extents() {
        let (from, to) = (extent.offset as usize, extent.end() as usize);
        let readable = Content::from_bytes(bytes[from..to].to_vec());
        let hidden = Content::new(readable.id(), extent.len, std::sync::Arc::new(Unreadable));
        // Block 0 has no known digest, block 10 is all zero and never in a cache.
        let first = extent.len.min(BLOCK_SIZE.saturating_sub(extent.offset));
        if extent.offset == 5 * MIB {
            builder.push_all(extent.offset, readable, TEST);
        } else if first > 0 {
            builder.push(extent.offset, first, readable, 0, TEST);
            builder.push(extent.offset + first, extent.len - first, hidden, first, TEST);
        } else {
            builder.push_all(extent.offset, hidden, TEST);
        }
    }
    let hidden = builder.finish(disk.len()).unwrap();
    let options = VmdkOptions { cache: Some(&cache), digests: Some(&digests), earlier: None };
    let known = write_vmdk(&hidden, &path, &options, &quiet).unwrap();
    assert_eq!((known.cached_blocks, known.read), (13, BLOCK_SIZE + 102_400));
    assert!(fs::read(&path).unwrap() == plain);
    // A raw file beside it needs the bytes.
    let both = write_raw_and_vmdk(&hidden, &folder.path().join("disk.raw"), &path, &options, &quiet);
    assert!(matches!(both, Err(Error::Source { .. })));
    let both = write_raw_and_vmdk(&disk, &folder.path().join("disk.raw"), &path, &options, &quiet).unwrap();
    assert_eq!((both.1.cached_blocks, both.1.read), (13, cold.read));
    assert!(fs::read(&path).unwrap() == plain);
    assert!(fs::read(folder.path().join("disk.raw")).unwrap() == bytes);
}

#[test]
fn blocks_that_an_earlier_raw_file_has_are_copied_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, vmdk) = (folder.path().join("disk.raw"), folder.path().join("disk.vmdk"));
    let disk = sample();
    let bytes = bytes_of(&disk);
    let cache = Memory::default();
    let options = VmdkOptions { cache: Some(&cache), digests: None, earlier: None };
    write_raw_and_vmdk(&disk, &raw, &vmdk, &options, &quiet).unwrap();
    let plain = fs::read(&vmdk).unwrap();
    let digests = |number: u64| {
        let mut block = bytes[(number * BLOCK_SIZE) as usize..].to_vec();
        block.resize(BLOCK_SIZE as usize, 0);
        Some(Digest::of(&block))
    };
    // Even blocks are the same in the earlier file; the others hold something else there.
    let earlier = folder.path().join("earlier.raw");
    let mut old = bytes.clone();
    for (number, block) in old.chunks_mut(BLOCK_SIZE as usize).enumerate() {
        if number % 2 == 1 {
            block.fill(0xee);
        }
    }
    fs::write(&earlier, &old).unwrap();
    let file = fs::File::open(&earlier).unwrap();
    let same = |number: u64| number.is_multiple_of(2);
    let earlier = Some(crate::Earlier { file: &file, same: &same });
    let options = VmdkOptions { cache: Some(&cache), digests: Some(&digests), earlier };
    let next = folder.path().join("next.raw");
    let (_, stats) = write_raw_and_vmdk(&disk, &next, &vmdk, &options, &quiet).unwrap();
    assert!(fs::read(&next).unwrap() == bytes);
    assert!(fs::read(&vmdk).unwrap() == plain);
    assert!(stats.read > 0 && stats.read < bytes.len() as u64 * 2 / 3, "{} bytes were read", stats.read);
    // A file that ends early is no help, and no harm.
    fs::write(folder.path().join("earlier.raw"), "").unwrap();
    write_raw_and_vmdk(&disk, &next, &vmdk, &options, &quiet).unwrap();
    assert!(fs::read(&next).unwrap() == bytes);
}

#[test]
fn damaged_cache_entries_are_made_anew() {
    let disk = map_of(MIB, &[(0, text(1, MIB as usize))]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    let cache = Memory::default();
    let options = VmdkOptions { cache: Some(&cache), digests: None, earlier: None };
    write_vmdk(&disk, &path, &options, &quiet).unwrap();
    let (plain, good) = (fs::read(&path).unwrap(), cache.entries.lock().unwrap().clone());
    let damages: [fn(&mut Vec<u8>); 10] = [
        |entry| entry.clear(),
        |entry| entry.truncate(50),
        |entry| _ = entry.pop(),
        |entry| entry.push(0),
        |entry| entry[0] ^= 1,
        |entry| entry[39] ^= 1,
        |entry| entry[40] ^= 1,
        |entry| entry[44] ^= 1,
        |entry| entry[71] ^= 0x80,
        |entry| *entry.last_mut().unwrap() ^= 1,
    ];
    for damage in damages {
        cache.entries.lock().unwrap().values_mut().for_each(damage);
        let stats = write_vmdk(&disk, &path, &options, &quiet).unwrap();
        assert_eq!(stats.compressed_blocks, 2);
        assert!(fs::read(&path).unwrap() == plain);
        assert_eq!(*cache.entries.lock().unwrap(), good);
    }
    // An entry under another block's digest.
    {
        let mut entries = cache.entries.lock().unwrap();
        let keys: Vec<_> = entries.keys().copied().collect();
        let (one, other) = (entries[&keys[0]].clone(), entries[&keys[1]].clone());
        entries.insert(keys[0], other);
        entries.insert(keys[1], one);
    }
    assert_eq!(write_vmdk(&disk, &path, &options, &quiet).unwrap().compressed_blocks, 2);
    assert!(fs::read(&path).unwrap() == plain);
}

#[test]
fn a_folder_of_compressed_blocks_serves_the_next_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    let disk = sample();
    for (compressed, cached) in [(13, 0), (0, 13)] {
        let cache = FileGrainCache::open(&folder.path().join("grains"), 100 * MIB).unwrap();
        let options = VmdkOptions { cache: Some(&cache), digests: None, earlier: None };
        let stats = write_vmdk(&disk, &path, &options, &quiet).unwrap();
        assert_eq!((stats.compressed_blocks, stats.cached_blocks), (compressed, cached));
    }
    assert!(fs::read(&path).unwrap() == written(&disk));
}

#[test]
fn a_failed_writer_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("xvda.vmdk");
    fs::write(&path, b"the last good one").unwrap();
    let content = Content::new(Digest([0; 32]), MIB, std::sync::Arc::new(Unreadable));
    let mut builder = BlockMapBuilder::new();
    builder.push_all(0, content, TEST);
    let disk = builder.finish(MIB).unwrap();
    let raw = folder.path().join("xvda.raw");
    let result = write_raw_and_vmdk(&disk, &raw, &path, &VmdkOptions::default(), &quiet);
    assert!(matches!(result, Err(Error::Source { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"the last good one");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_compressor_is_the_one_that_is_named() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock")).unwrap();
    let entry = format!("name = \"{}-sys\"\nversion = \"{}\"\n", DEFLATE.0, DEFLATE.1);
    assert!(lock.contains(&entry), "Cargo.lock does not have {entry}");
}

#[test]
fn the_bytes_on_disk_are_the_golden_ones() {
    let disk = map_of(
        40 * MIB,
        &[
            (0, b"boot".to_vec()),
            (3 * GRAIN - 2, text(5, 700)),
            (33 * MIB, text(6, 300)),
            (40 * MIB - 1, vec![1]),
        ],
    );
    let mut found = String::new();
    for (index, line) in written(&disk).chunks(16).enumerate() {
        if line.iter().any(|byte| *byte != 0) {
            let digits: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let ascii: String = line
                .iter()
                .map(|byte| if (0x20..0x7f).contains(byte) { *byte as char } else { '.' })
                .collect();
            found += &format!("{:06x}: {digits}  {ascii}\n", 16 * index);
        }
    }
    // A larger one by its digest alone: any change of the compressor's output shows.
    found += &format!("sample: {}\n", Digest::of(&written(&sample())));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/small.vmdk.txt");
    if std::env::var_os("BAKEHOUSE_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &found).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    for (golden, found) in golden.lines().zip(found.lines()) {
        assert_eq!(found, golden, "bytes on disk have changed; if so meant, BAKEHOUSE_BLESS=1");
    }
    assert_eq!(found.lines().count(), golden.lines().count());
}

/// qemu-img of the tools tree.
fn qemu_img(arguments: &[&str], folder: &Path) -> String {
    workbench::run(workbench::tool("qemu-img").args(arguments).current_dir(folder))
}

#[test]
fn qemu_reads_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let options = VmdkOptions::default();
    let disks = [
        sample(),
        BlockMap::empty(GIB),
        map_of(100 * KIB + 512, &[(0, text(1, 1000)), (99 * KIB, text(2, 1024 + 512))]),
        map_of(34 * MIB, &[(0, text(3, 34 * MIB as usize))]),
    ];
    for disk in &disks {
        write_raw_and_vmdk(disk, &path("ours.raw"), &path("ours.vmdk"), &options, &quiet).unwrap();
        let qemu = |arguments: &[&str]| qemu_img(arguments, folder.path());
        assert!(qemu(&["compare", "-f", "raw", "-F", "vmdk", "ours.raw", "ours.vmdk"]).contains("identical"));
        qemu(&["check", "-f", "vmdk", "ours.vmdk"]);
        qemu(&["convert", "-f", "vmdk", "-O", "raw", "ours.vmdk", "theirs.raw"]);
        assert!(fs::read(path("ours.raw")).unwrap() == fs::read(path("theirs.raw")).unwrap());
        let info = qemu(&["info", "-f", "vmdk", "ours.vmdk"]);
        for part in [
            format!("({} bytes)", disk.len()),
            "create type: streamOptimized".into(),
            "compressed: true".into(),
        ] {
            assert!(info.contains(&part), "{part}: {info}");
        }
    }
}

#[test]
fn we_read_what_qemu_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let qemu = |arguments: &[&str]| qemu_img(arguments, folder.path());
    for disk in [sample(), map_of(100 * KIB + 512, &[(99 * KIB, text(2, 1024 + 512))])] {
        write_raw(&disk, &path("disk.raw"), &quiet).unwrap();
        let bytes = bytes_of(&disk);
        for options in ["subformat=streamOptimized", "subformat=monolithicSparse", "zeroed_grain=on"] {
            qemu(&["convert", "-f", "raw", "-O", "vmdk", "-o", options, "disk.raw", "disk.vmdk"]);
            let vmdk = VmdkFile::open(&path("disk.vmdk")).unwrap();
            assert!(bytes_of(&vmdk) == bytes, "{options}");
            let mut covered = vec![0; bytes.len()];
            for (offset, len) in vmdk.data() {
                let range = offset as usize..(offset + len) as usize;
                vmdk.read_at(offset, &mut covered[range]).unwrap();
            }
            assert!(covered == bytes, "{options}");
        }
    }
    let refused = |options: &[&str]| {
        qemu(&[&["create", "-f", "vmdk"], options].concat());
        VmdkFile::open(&path("other.vmdk")).unwrap_err().to_string()
    };
    let error = refused(&["-o", "subformat=monolithicFlat", "other.vmdk", "1M"]);
    assert!(
        error.contains("its form is a descriptor whose data is in other files, a single file is"),
        "{error}"
    );
    let error = refused(&["-b", "disk.vmdk", "-F", "vmdk", "other.vmdk"]);
    assert!(error.contains("ffffffff (no parent) is what can be read here"), "{error}");
}

/// Byte offsets in the file of [`victim`].
struct Places {
    table: usize,
    directory: usize,
    footer: usize,
}

/// A small file with two grains, the first at sector 128, to be damaged.
fn victim() -> (Vec<u8>, Places) {
    let file = written(&map_of(MIB, &[(0, text(1, 70_000))]));
    let footer = file.len() - 1024;
    let directory = u64_at(&file[footer..], 56) as usize * 512;
    let table = u32_at(&file[directory..], 0) as usize * 512;
    (file, Places { table, directory, footer })
}

#[test]
fn damaged_files_are_refused_with_the_reason() {
    type Damage = fn(&mut Vec<u8>, &Places);
    fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    fn both(file: &mut [u8], places: &Places, at: usize, bytes: &[u8]) {
        put(file, at, bytes);
        put(file, places.footer + at, bytes);
    }
    fn replace(file: &mut [u8], from: &[u8], to: &[u8]) {
        let at = file.windows(from.len()).position(|window| window == from).unwrap();
        put(file, at, to);
    }
    let damages: [(&str, Damage); 39] = [
        ("it begins with bytes , a VMDK", |f, _| f.clear()),
        ("it begins with bytes 4b44, a VMDK", |f, _| f.truncate(2)),
        ("cut short: the header reaches to byte 512, the file ends at byte 511", |f, _| f.truncate(511)),
        ("the end of the file at byte 512 has no footer", |f, _| f.truncate(512)),
        ("no footer", |f, _| f.truncate(f.len() - 512)),
        ("no footer", |f, _| f.truncate(f.len() - 1)),
        ("no footer", |f, _| f.push(0)),
        ("no footer", |f, p| f[p.footer - 500] = 9),
        ("it begins with bytes 4b444d57", |f, _| f[3] = b'W'),
        ("it begins with bytes 00000000", |f, _| f.fill(0)),
        ("data is in other files", |f, _| put(f, 0, b"# Disk DescriptorFile\n")),
        ("transferred as text", |f, _| put(f, 73, b"\n \n\0")),
        ("version is 4", |f, p| both(f, p, 4, &4u32.to_le_bytes())),
        ("version is 0", |f, p| both(f, p, 4, &0u32.to_le_bytes())),
        ("capacity in sectors is 0", |f, p| both(f, p, 12, &0u64.to_le_bytes())),
        ("capacity in sectors is 18446744073709551615", |f, p| both(f, p, 12, &u64::MAX.to_le_bytes())),
        ("grain in sectors is 0", |f, p| both(f, p, 20, &0u64.to_le_bytes())),
        ("grain in sectors is 127", |f, p| both(f, p, 20, &127u64.to_le_bytes())),
        ("grain in sectors is 9223372036854775808", |f, p| both(f, p, 20, &(1u64 << 63).to_le_bytes())),
        ("entries in a table is 4294967295", |f, p| both(f, p, 44, &u32::MAX.to_le_bytes())),
        ("compression and markers together", |f, p| both(f, p, 8, &0x10001u32.to_le_bytes())),
        ("compression method is 2", |f, p| both(f, p, 77, &2u16.to_le_bytes())),
        ("footer at byte", |f, p| put(f, p.footer + 12, &4096u64.to_le_bytes())),
        ("does not fit the header", |f, p| put(f, p.footer + 56, &u64::MAX.to_le_bytes())),
        ("does not begin with \"KDMV\"", |f, p| f[p.footer] = 0),
        ("without a descriptor", |f, p| both(f, p, 28, &0u64.to_le_bytes())),
        ("the descriptor at byte 512 has 4096 sectors", |f, p| both(f, p, 36, &4096u64.to_le_bytes())),
        ("the descriptor reaches to byte 18446744073709551615", |f, p| {
            both(f, p, 28, &u64::MAX.to_le_bytes())
        }),
        ("createType is streamOptimised", |f, _| replace(f, b"Optimized", b"Optimised")),
        ("createType is missing", |f, _| replace(f, b"createType", b"creatyType")),
        ("parentCID is 12345678", |f, _| replace(f, b"ffffffff", b"12345678")),
        ("the grain directory reaches", |f, p| put(f, p.footer + 56, &(1u64 << 62).to_le_bytes())),
        ("begins within the descriptor", |f, p| put(f, p.footer + 56, &7u64.to_le_bytes())),
        ("a grain table reaches to byte", |f, p| put(f, p.directory, &u32::MAX.to_le_bytes())),
        ("the header at byte 0 begins within", |f, p| put(f, p.footer + 56, &0u64.to_le_bytes())),
        ("a grain reaches to byte", |f, p| put(f, p.table, &u32::MAX.to_le_bytes())),
        ("begins within a grain at byte 65536", |f, p| put(f, p.table + 4, &128u32.to_le_bytes())),
        ("begins within the descriptor at byte 512", |f, p| put(f, p.table, &3u32.to_le_bytes())),
        ("past the end of the disk, number 16 of 16", |f, p| put(f, p.table + 64, &128u32.to_le_bytes())),
    ];
    for (wanted, damage) in damages {
        let (mut file, places) = victim();
        damage(&mut file, &places);
        let error = open(&file).map(|_| ()).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error:?} should speak of {wanted:?}");
    }
}

#[test]
fn damaged_grains_are_refused_when_they_are_read() {
    let stream = |bytes: &[u8]| {
        let mut compressor = libdeflater::Compressor::new(Default::default());
        let mut stream = vec![0; compressor.zlib_compress_bound(bytes.len())];
        let len = compressor.zlib_compress(bytes, &mut stream).unwrap();
        stream.truncate(len);
        stream
    };
    // What is put in place of the first grain's marker and stream.
    let grain =
        |place: u64, len: u32, stream: &[u8]| [&place.to_le_bytes()[..], &len.to_le_bytes(), stream].concat();
    let with = |stream: &[u8]| grain(0, stream.len() as u32, stream);
    let damages = [
        ("is marked as the disk's sector 1, its table says otherwise", grain(1, 10, &[])),
        ("is said to take 0 bytes", grain(0, 0, &[])),
        ("is said to take 4294967295 bytes", grain(0, u32::MAX, &[])),
        ("cut short: a grain reaches to byte 196", grain(0, 131_072, &[])),
        ("does not decompress", with(b"this is no zlib stream")),
        ("does not decompress", with(&stream(&[7; 65536])[..60])),
        // A stream that would become more than a grain.
        ("does not decompress", with(&stream(&[0; 65537]))),
        ("holds 65535 bytes, too few", with(&stream(&[7; 65535]))),
    ];
    for (wanted, bytes) in damages {
        let (mut file, _) = victim();
        file[128 * 512..][..bytes.len()].copy_from_slice(&bytes);
        let vmdk = open(&file).unwrap();
        let error = vmdk.read_at(0, &mut vec![0; 65536]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(error.to_string().contains(wanted), "{error} should speak of {wanted:?}");
        // The other grain is still there.
        let mut rest = vec![0; 70_000 - 65536];
        vmdk.read_at(65536, &mut rest).unwrap();
        assert!(rest == text(1, 70_000)[65536..]);
    }
    let (file, _) = victim();
    let vmdk = open(&file).unwrap();
    for (offset, len) in [(MIB, 1), (MIB - 1, 2), (u64::MAX, 2)] {
        let error = vmdk.read_at(offset, &mut vec![0; len]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}

/// Reads all that a damaged file is said to hold, in parts; what it says of itself must hold.
fn read_all_of(file: &[u8]) {
    let Ok(vmdk) = open(file) else { return };
    let mut buffer = vec![0; 100_000];
    let mut end = 0;
    for (offset, len) in vmdk.data() {
        assert!(offset >= end && len > 0 && offset + len <= vmdk.len());
        end = offset + len;
        for at in (offset..end).step_by(buffer.len()) {
            let part = buffer.len().min((end - at) as usize);
            let _ = vmdk.read_at(at, &mut buffer[..part]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_disk_reads_back_as_it_was(
        pieces in prop::collection::vec((0u64..200_000, 1usize..150_000, any::<bool>()), 0..30),
        gap in prop::option::of(0u64..100 * MIB),
        tail in 0u64..200_000,
        window in (any::<prop::sample::Index>(), 1usize..300_000),
    ) {
        let mut extents = Vec::new();
        let mut at = 0;
        for (index, (space, len, zero)) in pieces.iter().enumerate() {
            at += space;
            if index == 15 {
                at += gap.unwrap_or(0);
            }
            extents.push((at, if *zero { vec![0; *len] } else { text(index as u64, *len) }));
            at += *len as u64;
        }
        let disk = map_of(at + tail + 1, &extents);
        let file = written(&disk);
        let mut bytes = bytes_of(&disk);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        prop_assert!(streamed(&file) == bytes);
        let vmdk = open(&file).unwrap();
        prop_assert_eq!(vmdk.len(), bytes.len() as u64);
        prop_assert!(bytes_of(&vmdk) == bytes);
        // A part of it; and all by its runs of data alone.
        let from = window.0.index(bytes.len());
        let mut part = vec![0xaa; window.1.min(bytes.len() - from)];
        vmdk.read_at(from as u64, &mut part).unwrap();
        prop_assert!(part == bytes[from..from + part.len()]);
        let mut again = vec![0; bytes.len()];
        for (offset, len) in vmdk.data() {
            let range = offset as usize..(offset + len) as usize;
            vmdk.read_at(offset, &mut again[range]).unwrap();
        }
        prop_assert!(again == bytes);
    }

    #[test]
    fn cache_entries_survive_no_change(at in any::<prop::sample::Index>(), bit in 0u32..8, cut in any::<prop::sample::Index>()) {
        let block = Digest::of(b"block");
        let mut bytes = text(1, BLOCK_SIZE as usize);
        bytes[GRAIN as usize..2 * GRAIN as usize].fill(0);
        let packed = grains::Packer::new().pack(3, &bytes);
        let entry = packed.to_entry(&block);
        prop_assert!(grains::Packed::from_entry(&entry, &block, 3) == Some(packed));
        let mut damaged = entry.clone();
        damaged[at.index(entry.len())] ^= 1 << bit;
        prop_assert_eq!(grains::Packed::from_entry(&damaged, &block, 3), None);
        prop_assert_eq!(grains::Packed::from_entry(&entry[..cut.index(entry.len())], &block, 3), None);
        prop_assert_eq!(grains::Packed::from_entry(&entry, &Digest::of(b"another"), 3), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_file_that_was_changed_anywhere_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4, any::<u64>(), 0u32..64), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        static VICTIM: LazyLock<(Vec<u8>, Places)> = LazyLock::new(victim);
        let (mut file, places) = (VICTIM.0.clone(), &VICTIM.1);
        for (index, area, value, shift) in changes {
            // Any byte, or a field of the header and the footer, the directory, the table.
            let start = match area {
                0 => index.index(file.len()),
                1 => index.index(80),
                2 => places.directory + index.index(4),
                _ => places.table + index.index(80),
            };
            // Numbers of all sizes.
            let bytes = (value >> shift).to_le_bytes();
            for at in [Some(start), (area == 1).then_some(places.footer + start)].into_iter().flatten() {
                for (target, byte) in file[at..].iter_mut().zip(bytes) {
                    *target = byte;
                }
            }
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        read_all_of(&file);
    }
}
