use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};

use block::{BlockMap, BlockMapBuilder, Content, Digest, GIB, Origin, ReadAt};
use proptest::prelude::*;

use super::*;
use crate::regions::PAGE;

const TEST: Origin = Origin::Structure("test");

fn quiet(_: u64) {}

fn map_of(len: u64, extents: &[(u64, Vec<u8>)]) -> BlockMap {
    let mut builder = BlockMapBuilder::new();
    for (offset, bytes) in extents {
        builder.push_all(*offset, Content::from_bytes(bytes.clone()), TEST);
    }
    builder.finish(len).unwrap()
}

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn holes_stay_holes_and_small_extents_share_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("xvda.raw");
    // 1000 files of 5000 bytes, each on its own page, as a file system lays them out; then 10 MiB; then the end.
    let mut extents: Vec<_> = (0..1000).map(|i| (MIB + i * 8192, vec![i as u8 | 1; 5000])).collect();
    extents.push((GIB, vec![7; 10 * MIB as usize]));
    extents.push((4 * GIB - 512, vec![9; 512]));
    let map = map_of(4 * GIB, &extents);
    let progress = AtomicU64::new(0);
    let stats = write_raw(&map, &path, &|bytes| {
        progress.fetch_add(bytes, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(stats.size, 4 * GIB);
    assert_eq!(stats.written, 1000 * 8192 + 10 * MIB + 4096);
    assert_eq!(progress.into_inner(), stats.written);
    // 8 MB of small files from 1 MiB on touch three pieces of 4 MiB, the 10 MiB three, the end one.
    assert_eq!(stats.writes, 7);
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), 4 * GIB);
    assert!(metadata.blocks() * 512 < 2 * stats.written, "{} bytes on disk", metadata.blocks() * 512);
    assert_eq!(names(folder.path()), BTreeSet::from(["xvda.raw".to_owned()]));
    let raw = RawFile::open(&path).unwrap();
    assert_eq!(raw.len(), 4 * GIB);
    for (offset, bytes) in &extents {
        let mut read = vec![0; bytes.len()];
        raw.read_at(*offset, &mut read).unwrap();
        assert!(read == *bytes, "bytes at {offset}");
    }
    assert!(raw.data().map(|(_, len)| len).sum::<u64>() < 2 * stats.written);
}

#[test]
fn a_disk_without_data_and_a_disk_without_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for len in [0, 1, 512, GIB] {
        let path = folder.path().join("empty.raw");
        let stats = write_raw(&BlockMap::empty(len), &path, &quiet).unwrap();
        assert_eq!(stats, RawStats { size: len, written: 0, writes: 0 });
        let raw = RawFile::open(&path).unwrap();
        assert_eq!((raw.len(), raw.data().count()), (len, 0));
        assert_eq!(raw.read_at(len, &mut [0]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(raw.read_at(u64::MAX, &mut [0]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn an_image_may_be_anyones_to_read_as_the_umask_says() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, b"").unwrap();
    let image = folder.path().join("xvda.raw");
    write_raw(&BlockMap::empty(512), &image, &quiet).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode();
    assert_eq!(mode(&image), mode(&plain));
}

/// Bytes that cannot be read from a place on.
struct Broken(u64);

impl ReadAt for Broken {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset + buf.len() as u64 > self.0 {
            return Err(io::Error::other("the bytes are gone"));
        }
        buf.fill(5);
        Ok(())
    }
}

#[test]
fn a_failed_writer_leaves_what_was_there_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("xvda.raw");
    std::fs::write(&path, b"the last good one").unwrap();
    let content = Content::new(Digest([0; 32]), 64 * MIB, std::sync::Arc::new(Broken(48 * MIB)));
    let mut builder = BlockMapBuilder::new();
    builder.push_all(0, content, TEST);
    let map = builder.finish(64 * MIB).unwrap();
    let Err(Error::Source { from, to, .. }) = write_raw(&map, &path, &quiet) else { panic!("must fail") };
    assert!(to > 48 * MIB && to - from <= CHUNK);
    assert_eq!(std::fs::read(&path).unwrap(), b"the last good one");
    assert_eq!(names(folder.path()), BTreeSet::from(["xvda.raw".to_owned()]));
}

#[test]
fn two_writers_of_one_path_both_finish_and_one_whole_image_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("xvda.raw");
    let maps: Vec<_> = (1..=4u8).map(|byte| map_of(8 * MIB, &[(0, vec![byte; 8 * MIB as usize])])).collect();
    std::thread::scope(|scope| {
        for map in &maps {
            let path = &path;
            scope.spawn(move || write_raw(map, path, &quiet).unwrap());
        }
    });
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, 8 * MIB);
    assert!((1..=4).contains(&bytes[0]) && bytes.iter().all(|byte| *byte == bytes[0]));
    assert_eq!(names(folder.path()), BTreeSet::from(["xvda.raw".to_owned()]));
}

#[test]
fn places_where_no_image_can_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let map = BlockMap::empty(512);
    let write = |path: &Path| write_raw(&map, path, &quiet);
    assert!(matches!(write(folder.path()), Err(Error::IsFolder { .. })));
    assert!(matches!(write(Path::new("/")), Err(Error::IsFolder { .. })));
    assert!(matches!(write(Path::new("/dev/null")), Err(Error::NotAFile { .. })));
    assert!(matches!(write(&folder.path().join("none/xvda.raw")), Err(Error::NoFolder { .. })));
    std::fs::write(folder.path().join("file"), b"").unwrap();
    assert!(matches!(write(&folder.path().join("file/xvda.raw")), Err(Error::NoFolder { .. })));
    assert_eq!(names(folder.path()), BTreeSet::from(["file".to_owned()]));
    assert!(matches!(RawFile::open(folder.path()), Err(Error::IsFolder { .. })));
    assert!(matches!(RawFile::open(&folder.path().join("none")), Err(Error::Io { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_disk_reads_back_as_it_was(
        pieces in prop::collection::vec((0u64..3 * PAGE, 1usize..3 * PAGE as usize), 0..40),
        gap in prop::option::of(0u64..10 * MIB),
        tail in 0u64..2 * PAGE,
    ) {
        let mut extents = Vec::new();
        let mut at = 0;
        for (index, (space, len)) in pieces.iter().enumerate() {
            at += space;
            if index == 20 {
                at += gap.unwrap_or(0);
            }
            extents.push((at, vec![index as u8 + 1; *len]));
            at += *len as u64;
        }
        let map = map_of(at + tail, &extents);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        let stats = write_raw(&map, &path, &quiet).unwrap();
        let mut wanted = vec![0; (at + tail) as usize];
        map.read_at(0, &mut wanted).unwrap();
        prop_assert!(std::fs::read(&path).unwrap() == wanted);
        prop_assert!(stats.written <= map.data_bytes().next_multiple_of(PAGE) + 2 * PAGE * pieces.len() as u64);
        let raw = RawFile::open(&path).unwrap();
        let mut again = vec![0; wanted.len()];
        for (offset, len) in raw.data() {
            let range = offset as usize..(offset + len) as usize;
            raw.read_at(offset, &mut again[range]).unwrap();
        }
        prop_assert!(again == wanted);
    }

    #[test]
    fn pieces_are_sorted_cover_all_data_and_stay_small(
        runs in prop::collection::vec((0u64..2 * CHUNK, 1u64..3 * CHUNK), 0..12),
        cut in 0u64..CHUNK,
    ) {
        let mut at = 0;
        let runs: Vec<_> = runs.iter().map(|(gap, len)| {
            let start = at + gap;
            at = start + len;
            (start, *len)
        }).collect();
        let size = at + cut;
        let pieces = chunks(runs.iter().copied(), size);
        for pair in pieces.windows(2) {
            prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0);
        }
        for (start, len) in &pieces {
            prop_assert!(*len >= 1 && *len <= CHUNK && start % PAGE == 0 && start + len <= size);
        }
        for (start, len) in runs {
            let covered: u64 = pieces.iter().map(|(from, piece)| {
                (from + piece).min(start + len).saturating_sub(start.max(*from))
            }).sum();
            prop_assert_eq!(covered, len);
        }
    }
}
