//! The store as a whole, on small disks.

use std::sync::Arc;

use block::{BLOCK_SIZE, BlockMap, BlockMapBuilder, BlockSource, Content, Origin};

use crate::{
    ChosenId, Error, Existing, GetOptions, LocalBackend, MemoryBackend, Options, PutOptions, PutReport,
    Source, Store, Way,
};

mod collect;
mod damage;
mod faults;
mod files;
mod formats;
mod killed;
mod model;
mod series;

/// Small packs, one thread, so that tests see several packs and one order.
pub(crate) fn small() -> Options {
    Options { threads: 1, pack_size: 1 << 20, ..Options::default() }
}

pub(crate) fn named(name: &str) -> PutOptions<'_> {
    PutOptions { name, id: ChosenId::Derived, parent: None, time: 1_700_000_000, progress: &() }
}

/// Bytes that neither repeat nor compress.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes that compress well.
pub(crate) fn text(seed: u64, len: usize) -> Vec<u8> {
    let line = format!("line {seed} of a text that says the same again and again\n");
    line.bytes().cycle().take(len).collect()
}

/// A disk of `size` bytes with pieces at offsets.
pub(crate) fn disk(size: u64, pieces: &[(u64, Vec<u8>)]) -> BlockMap {
    let mut builder = BlockMapBuilder::new();
    for (offset, bytes) in pieces {
        builder.push_all(*offset, Content::from_bytes(bytes.clone()), Origin::Structure("test"));
    }
    builder.finish(size).unwrap()
}

pub(crate) fn bytes_of(disk: &dyn BlockSource) -> Vec<u8> {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

pub(crate) fn memory() -> (MemoryBackend, Arc<Store>) {
    let backend = MemoryBackend::new();
    let store = Store::create_with(Arc::new(backend.clone()), small()).unwrap();
    (backend, Arc::new(store))
}

pub(crate) fn put(store: &Store, name: &str, disk: &BlockMap) -> PutReport {
    store.put(Source::Disk(disk), &named(name)).unwrap()
}

fn example() -> BlockMap {
    disk(
        5 * BLOCK_SIZE + 1000,
        &[
            (10, text(1, 700_000)),
            (2 * BLOCK_SIZE, noise(2, BLOCK_SIZE as usize)),
            (4 * BLOCK_SIZE, noise(2, BLOCK_SIZE as usize)),
            (5 * BLOCK_SIZE + 500, text(3, 500)),
        ],
    )
}

#[test]
fn what_is_put_again_is_the_newest_of_its_name() {
    let (_, store) = memory();
    let (one, other) = (example(), disk(BLOCK_SIZE, &[(0, noise(9, BLOCK_SIZE as usize))]));
    let first = put(&store, "name", &one);
    put(&store, "name", &other);
    put(&store, "another", &other);
    let again = put(&store, "name", &one);
    assert_eq!((again.snapshot_id, again.existed), (first.snapshot_id, true));
    assert_eq!(store.find("name").unwrap().id, first.snapshot_id);
    let names: Vec<String> = store.list().unwrap().into_iter().map(|record| record.name).collect();
    assert_eq!(names, ["name", "another", "name"]);
    // Once it is the newest, another put changes nothing.
    let commits = store.stat().unwrap().commits;
    let sequence = store.find("name").unwrap().sequence;
    put(&store, "name", &one);
    assert_eq!(store.find("name").unwrap().sequence, sequence);
    assert!(store.stat().unwrap().commits <= commits + 1);
    assert!(bytes_of(&store.disk(&store.find("name").unwrap()).unwrap()) == bytes_of(&one));
}

#[test]
fn a_disk_comes_back_and_its_second_put_brings_nothing() {
    let (_, store) = memory();
    let disk = example();
    let report = put(&store, "one", &disk);
    assert_eq!((report.blocks, report.new_blocks), (5, 4));
    assert_eq!(report.new_bytes, 4 * BLOCK_SIZE);
    assert!(report.stored_bytes > BLOCK_SIZE && report.stored_bytes < 2 * BLOCK_SIZE);
    assert!(!report.existed);
    let back = store.disk(&store.find("one").unwrap()).unwrap();
    assert!(bytes_of(&back) == bytes_of(&disk));
    let again = put(&store, "one", &disk);
    assert_eq!((again.snapshot_id, again.new_blocks, again.existed), (report.snapshot_id, 0, true));
    let other = put(&store, "two", &disk);
    assert_eq!((other.new_blocks, other.digest, other.existed), (0, report.digest, false));
    assert_ne!(other.snapshot_id, report.snapshot_id);
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn parts_of_a_snapshot_are_read_anywhere() {
    let (_, store) = memory();
    let disk = example();
    put(&store, "one", &disk);
    let back = store.disk(&store.find("one").unwrap()).unwrap();
    let all = bytes_of(&disk);
    for (from, to) in
        [(0, 20), (BLOCK_SIZE - 3, BLOCK_SIZE + 3), (5, 3 * BLOCK_SIZE), (5 * BLOCK_SIZE, disk.len())]
    {
        let mut part = vec![7; (to - from) as usize];
        back.read_at(from, &mut part).unwrap();
        assert!(part == all[from as usize..to as usize], "{from}..{to}");
    }
    assert!(back.read_at(disk.len() - 1, &mut [0; 2]).is_err());
    assert_eq!(back.data().collect::<Vec<_>>(), [(0, 3 * BLOCK_SIZE), (4 * BLOCK_SIZE, BLOCK_SIZE + 1000),]);
}

#[test]
fn blocks_of_known_origin_are_neither_read_nor_hashed() {
    let (_, store) = memory();
    let disk = example();
    let first = store.put(Source::Map(&disk), &named("one")).unwrap();
    assert!(first.read_bytes > 0 && first.hashed_bytes == 5 * BLOCK_SIZE);
    let second = store.put(Source::Map(&disk), &named("two")).unwrap();
    assert_eq!((second.read_bytes, second.hashed_bytes, second.new_blocks), (0, 0, 0));
    assert_eq!(first.digest, second.digest);
    assert_eq!(put(&store, "three", &disk).digest, first.digest);
}

#[test]
fn packs_do_not_depend_on_threads() {
    let pieces: Vec<_> =
        (0..40).map(|at| (at * BLOCK_SIZE, [text(at, 300_000), noise(at % 30, 200_000)].concat())).collect();
    let disk = disk(40 * BLOCK_SIZE, &pieces);
    let objects = |threads| {
        let backend = MemoryBackend::new();
        let store = Store::create_with(Arc::new(backend.clone()), Options { threads, ..small() }).unwrap();
        put(&store, "one", &disk);
        backend.objects()
    };
    let one = objects(1);
    assert!(one.len() > 8, "several packs");
    assert!(one == objects(4) && one == objects(3));
}

#[test]
fn a_name_means_the_newest_and_a_wrong_one_is_helped() {
    let (_, store) = memory();
    let old = put(&store, "web-server", &disk(BLOCK_SIZE, &[(0, text(1, 100))]));
    let new = put(&store, "web-server", &disk(BLOCK_SIZE, &[(0, text(2, 100))]));
    assert_eq!(store.find("web-server").unwrap().id, new.snapshot_id);
    assert_eq!(store.find(&old.snapshot_id.to_string()).unwrap().id, old.snapshot_id);
    let message = store.find("web-sever").unwrap_err().to_string();
    assert_eq!(message, "no snapshot \"web-sever\" in memory; did you mean \"web-server\"?");
    assert_eq!(store.find("database").unwrap_err().to_string(), "no snapshot \"database\" in memory");
    for name in ["", "a\nb", "snap-0123456789abcdef0", &"x".repeat(256)] {
        let refused = store.put(Source::Disk(&BlockMap::empty(1)), &named(name));
        assert!(matches!(refused, Err(Error::BadName { .. })), "{name:?}");
    }
}

#[test]
fn an_id_belongs_to_one_content() {
    let (_, store) = memory();
    let id = "snap-0123456789abcdef0".parse().unwrap();
    let options = PutOptions { id: ChosenId::Given(id), ..named("one") };
    let (one, two) = (disk(BLOCK_SIZE, &[(0, text(1, 9))]), disk(BLOCK_SIZE, &[(0, text(2, 9))]));
    assert_eq!(store.put(Source::Disk(&one), &options).unwrap().snapshot_id, id);
    assert!(store.put(Source::Disk(&one), &options).unwrap().existed);
    assert!(matches!(store.put(Source::Disk(&two), &options), Err(Error::IdTaken { .. })));
}

#[test]
fn many_snapshots_move_into_pages_and_tables_are_merged() {
    let (backend, store) = memory();
    for at in 0..100u64 {
        put(&store, &format!("s{at}"), &disk(BLOCK_SIZE, &[(0, text(at, 100))]));
    }
    let names: Vec<String> = store.list().unwrap().into_iter().map(|record| record.name).collect();
    assert_eq!(names, (0..100).map(|at| format!("s{at}")).collect::<Vec<_>>());
    let again = Arc::new(Store::open(Arc::new(backend)).unwrap());
    let state = again.state();
    assert!(state.root.recent.len() <= 16 && state.root.catalog.len() < 5, "{:?}", state.root.catalog);
    assert_eq!(state.root.index.len(), 1);
    for at in [0, 50, 99] {
        let back = again.disk(&again.find(&format!("s{at}")).unwrap()).unwrap();
        assert!(bytes_of(&back).starts_with(&text(at, 100)));
    }
}
