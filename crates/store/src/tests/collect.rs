//! Forgetting and collecting.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::{GcOptions, GcReport, VerifyOptions};

pub(super) const GC: GcOptions<'_> = GcOptions { wait: true, progress: &() };
pub(super) const VERIFY: VerifyOptions<'_> = VerifyOptions { part: None, quarantine: true, progress: &() };

pub(super) fn gc(store: &Store) -> GcReport {
    store.execute_gc(&GC).unwrap()
}

pub(super) fn gc_times(store: &Store, times: usize) {
    for _ in 0..times {
        gc(store);
    }
}

fn forget(store: &Store, name: &str) {
    let record = store.find(name).unwrap();
    assert_eq!(store.forget(&[record.id]).unwrap(), [record]);
}

fn numbered(from: u64, count: u64) -> BlockMap {
    let pieces: Vec<_> = (0..count).map(|at| (at * BLOCK_SIZE, noise(from + at, 300_000))).collect();
    disk(count * BLOCK_SIZE, &pieces)
}

fn assert_there(store: &Arc<Store>, name: &str, disk: &BlockMap) {
    // What is still open could hide that it is gone.
    let store = Arc::new(Store::open_with(store.backend.clone(), small()).unwrap());
    let back = store.disk(&store.find(name).unwrap()).unwrap();
    assert!(bytes_of(&back) == bytes_of(disk), "{name}");
}

fn pack_bytes(store: &Store) -> u64 {
    store.stat().unwrap().pack_bytes
}

#[test]
fn in_a_folder_a_collection_frees_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create_with(Arc::new(LocalBackend::new(folder.path())), small());
    let store = Arc::new(store.unwrap());
    let (one, two) = (numbered(0, 12), numbered(7, 12));
    put(&store, "one", &one);
    let with_one = pack_bytes(&store);
    put(&store, "two", &two);
    let with_both = pack_bytes(&store);
    let plan = store.plan_gc(&()).unwrap();
    assert!(plan.unneeded.is_empty() && plan.rewritten.is_empty(), "{plan:?}");
    forget(&store, "one");
    let plan = store.plan_gc(&()).unwrap();
    assert_eq!((plan.snapshots, plan.needed_blocks), (1, 12));
    assert!(plan.freed_bytes() > 5 * 300_000, "{plan:?}");
    let report = store.execute_gc(&GC).unwrap();
    assert!(report.freed_bytes >= plan.freed_bytes(), "{report:?} {plan:?}");
    assert_eq!(report.condemned_packs, 0);
    assert!(pack_bytes(&store) < with_both - 5 * 300_000);
    assert_there(&store, "two", &two);
    assert!(store.verify(&VERIFY).unwrap().is_whole());
    let settled = store.stat().unwrap();
    assert_eq!(gc(&store), GcReport::default());
    assert_eq!(store.stat().unwrap(), settled, "nothing to do changes nothing");
    forget(&store, "two");
    gc(&store);
    assert_eq!(pack_bytes(&store), 0);
    assert_eq!(store.stat().unwrap().other_bytes, 0);
    assert_eq!(put(&store, "one", &one).new_blocks, 12);
    assert_eq!(pack_bytes(&store), with_one);
    assert_there(&store, "one", &one);
}

#[test]
fn packs_under_half_are_rewritten_and_the_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { pack_size: 10 << 20, ..small() };
    let store = Arc::new(Store::create_with(Arc::new(LocalBackend::new(folder.path())), options).unwrap());
    put(&store, "all", &numbered(0, 10));
    put(&store, "some", &numbered(2, 6));
    put(&store, "few", &numbered(2, 3));
    forget(&store, "all");
    let plan = store.plan_gc(&()).unwrap();
    assert!(plan.rewritten.is_empty() && plan.unneeded.is_empty(), "{plan:?}");
    forget(&store, "some");
    let plan = store.plan_gc(&()).unwrap();
    assert_eq!((plan.rewritten.len(), plan.rewritten[0].needed_blocks), (1, 3));
    let report = store.execute_gc(&GC).unwrap();
    assert!(report.copied_bytes > 900_000 && report.copied_bytes < 1_000_000, "{report:?}");
    assert!(pack_bytes(&store) < 1_000_000);
    assert_there(&store, "few", &numbered(2, 3));
    assert!(store.verify(&VERIFY).unwrap().is_whole());
}

#[test]
fn a_small_pack_is_no_pack_to_rewrite_and_a_rewritten_one_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create_with(Arc::new(LocalBackend::new(folder.path())), small());
    let store = Arc::new(store.unwrap());
    let (one, two) = (disk(BLOCK_SIZE, &[(0, text(1, 500))]), disk(BLOCK_SIZE, &[(0, text(2, 500))]));
    let both = disk(
        3 * BLOCK_SIZE,
        &[(0, text(1, 500)), (BLOCK_SIZE, noise(3, 9000)), (2 * BLOCK_SIZE, text(2, 500))],
    );
    put(&store, "one", &one);
    // Its frame is smaller than what a pack has around it.
    assert!(store.plan_gc(&()).unwrap().is_empty());
    put(&store, "both", &both);
    put(&store, "two", &two);
    forget(&store, "both");
    for _ in 0..3 {
        gc(&store);
        assert_there(&store, "one", &one);
        assert_there(&store, "two", &two);
    }
}

#[test]
fn without_a_lock_two_collections_free_what_the_first_condemned() {
    let (_, store) = memory();
    let (one, two) = (numbered(0, 12), numbered(7, 12));
    put(&store, "one", &one);
    put(&store, "two", &two);
    forget(&store, "one");
    let before = pack_bytes(&store);
    let first = gc(&store);
    assert!(first.deleted_packs == 0 && first.condemned_packs > 0, "{first:?}");
    assert!(pack_bytes(&store) >= before);
    let second = gc(&store);
    assert!(second.deleted_packs > 0 && second.condemned_packs == 0, "{second:?}");
    assert!(pack_bytes(&store) < before - 5 * 300_000);
    assert_there(&store, "two", &two);
    for _ in 0..3 {
        gc(&store);
    }
    assert_there(&store, "two", &two);
    assert!(store.verify(&VERIFY).unwrap().is_whole());
}

#[test]
fn a_condemned_block_is_put_anew_and_one_that_is_needed_again_stays() {
    let (_, store) = memory();
    let disk = numbered(0, 4);
    put(&store, "one", &disk);
    forget(&store, "one");
    assert!(gc(&store).condemned_packs > 0);
    assert_eq!(put(&store, "one", &disk).new_blocks, 4);
    for _ in 0..3 {
        gc(&store);
        assert_there(&store, "one", &disk);
    }
}

/// A writer that began before a collection counts on blocks that it condemned.
struct Between<'a>(AtomicBool, &'a (dyn Fn() + Sync));

impl crate::Progress for Between<'_> {
    fn begin(&self, _: u64) {}
    fn advance(&self, _: u64) {
        if !self.0.swap(true, Ordering::Relaxed) {
            (self.1)();
        }
    }
}

#[test]
fn a_writer_may_be_overtaken_by_one_collection_but_not_by_two() {
    for collections in 1..=3 {
        let (backend, store) = memory();
        let disk = numbered(0, 4);
        put(&store, "old", &disk);
        forget(&store, "old");
        let other = Arc::new(Store::open_with(Arc::new(backend), small()).unwrap());
        let between = Between(AtomicBool::new(false), &|| gc_times(&other, collections));
        let options = PutOptions { progress: &between, ..named("new") };
        let report = store.put(Source::Disk(&disk), &options).unwrap();
        // After two of them the put began again and found the blocks gone.
        assert_eq!(report.new_blocks, if collections == 1 { 0 } else { 4 });
        for _ in 0..4 {
            assert_there(&other, "new", &disk);
            gc(&other);
        }
        assert_there(&store, "new", &disk);
    }
}

#[test]
fn a_block_at_two_places_is_read_by_one_collection_only() {
    let (backend, store) = memory();
    let (shared, more) = (numbered(0, 2), numbered(0, 8));
    // Compressed otherwise, so that its pack is another one.
    let options = Options { level: 3, pack_size: 64 << 20, ..small() };
    let other = Store::open_with(Arc::new(backend.clone()), options).unwrap();
    let between = Between(AtomicBool::new(false), &|| {
        put(&other, "more", &more);
        // So large that the next table stays beside it.
        let blocks: Vec<_> = (0..3000u64).map(|at| block::Digest::of(&at.to_le_bytes())).collect();
        other.simulate("many", &[], &blocks).unwrap();
    });
    store.put(Source::Disk(&shared), &PutOptions { progress: &between, ..named("shared") }).unwrap();
    let entries =
        |store: &Store| store.state().root.index.iter().map(|layer| layer.count).collect::<Vec<_>>();
    assert_eq!(entries(&other).len(), 1);
    assert_eq!(entries(&store), [3008, 2]);
    let opened = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = opened.clone();
    let counting = crate::FaultyBackend::new(
        Arc::new(backend),
        Box::new(move |_, what| {
            count.fetch_add(what.starts_with("open packs/").into(), Ordering::Relaxed);
            crate::Fault::None
        }),
    );
    let counting = Arc::new(Store::open_with(Arc::new(counting), small()).unwrap());
    gc(&counting);
    assert_eq!(opened.swap(0, Ordering::Relaxed), 2);
    assert_eq!(entries(&counting), [3008]);
    // The next one deletes the old table.
    gc_times(&counting, 2);
    assert_eq!(gc(&counting), GcReport::default());
    assert_eq!(opened.load(Ordering::Relaxed), 0, "nothing is read again");
    assert_there(&counting, "shared", &shared);
    assert_there(&counting, "more", &more);
}

#[test]
fn nothing_is_collected_while_a_snapshot_cannot_be_read() {
    let (backend, store) = memory();
    put(&store, "one", &numbered(0, 2));
    let gone = put(&store, "two", &numbered(2, 2));
    forget(&store, "two");
    let record = store.find("one").unwrap();
    let key = record.object.key(crate::format::Folder::Snapshots);
    backend.overwrite(&key, b"nothing".to_vec());
    let error = store.plan_gc(&()).unwrap_err();
    assert!(error.to_string().contains(&key), "{error}");
    assert_ne!(gone.snapshot_id, record.id);
}

#[test]
fn what_interrupted_writers_left_is_collected() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Arc::new(LocalBackend::new(folder.path()));
    let store = Arc::new(Store::create_with(backend.clone(), small()).unwrap());
    put(&store, "one", &numbered(0, 2));
    crate::Backend::write(&*backend, &[(&format!("packs/00000000-{}", "ab".repeat(32)), b"left")]).unwrap();
    std::fs::write(folder.path().join("tmp/1-1"), b"half").unwrap();
    std::fs::write(folder.path().join("packs/README"), b"not ours").unwrap();
    let plan = store.plan_gc(&()).unwrap();
    assert_eq!((plan.leftovers.len(), plan.unfinished_bytes, plan.freed_bytes()), (1, 4, 8));
    assert_eq!(store.execute_gc(&GC).unwrap().freed_bytes, 8);
    assert!(folder.path().join("packs/README").exists());
    assert_there(&store, "one", &numbered(0, 2));
}

#[test]
fn writers_and_readers_and_a_collector_at_once() {
    for local in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let backend: Arc<dyn crate::Backend> = match local {
            true => Arc::new(LocalBackend::new(folder.path())),
            false => Arc::new(MemoryBackend::new()),
        };
        drop(Store::create(backend.clone()).unwrap());
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let backend = backend.clone();
                    scope.spawn(move || {
                        let store = Arc::new(Store::open_with(backend, small()).unwrap());
                        for round in 0..6 {
                            // Neighbours share blocks, so that they count on each other's.
                            let disk = numbered(round * 2 + writer, 4);
                            let name = format!("w{writer}");
                            let report = loop {
                                match store.put(Source::Disk(&disk), &named(&name)) {
                                    // This collector never rests.
                                    Err(Error::Overtaken) => {}
                                    report => break report.unwrap(),
                                }
                            };
                            assert_there(&store, &name, &disk);
                            if round < 5 {
                                store.forget(&[report.snapshot_id]).unwrap();
                            }
                        }
                    })
                })
                .collect();
            let store = Store::open_with(backend.clone(), small()).unwrap();
            while writers.iter().any(|writer| !writer.is_finished()) {
                // Writers may be faster, again and again.
                let _ = store.execute_gc(&GcOptions { wait: false, ..GC });
            }
        });
        let store = Arc::new(Store::open_with(backend, small()).unwrap());
        gc_times(&store, 3);
        for writer in 0..4 {
            assert_there(&store, &format!("w{writer}"), &numbered(10 + writer, 4));
        }
        assert!(store.verify(&VERIFY).unwrap().is_whole());
        assert_eq!(store.plan_gc(&()).unwrap().needed_blocks, 7);
    }
}
