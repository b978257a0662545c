//! Damage is found, told, and healed.

use block::Digest;

use super::collect::{VERIFY, gc_times};
use super::*;
use crate::VerifyOptions;
use crate::format::Folder;

fn keys(backend: &MemoryBackend, folder: Folder) -> Vec<String> {
    let prefix = format!("{}/", folder.name());
    backend.objects().into_iter().map(|(key, _)| key).filter(|key| key.starts_with(&prefix)).collect()
}

fn damage(backend: &MemoryBackend, key: &str, at: usize) {
    let (_, mut bytes) = backend.objects().into_iter().find(|(other, _)| other == key).unwrap();
    bytes[at] ^= 0x10;
    backend.overwrite(key, bytes);
}

#[test]
fn a_damaged_block_is_named_with_its_snapshots_and_healed_by_a_put() {
    let (backend, store) = memory();
    let disk = example();
    put(&store, "one", &disk);
    put(&store, "two", &disk);
    damage(&backend, &keys(&backend, Folder::Packs)[0], 60);
    let fresh = Arc::new(Store::open_with(Arc::new(backend.clone()), small()).unwrap());
    let report = fresh.verify(&VERIFY).unwrap();
    assert_eq!((report.damaged.len(), report.quarantined), (1, 1), "{report:?}");
    let damaged = &report.damaged[0];
    let hurt: Vec<(&str, &[u64])> = damaged.hurts.iter().map(|hurt| (&*hurt.name, &*hurt.indices)).collect();
    assert_eq!(hurt, [("one", &damaged.hurts[0].indices[..]), ("two", &damaged.hurts[0].indices[..])]);
    assert!(!damaged.healed && !report.is_whole());
    let error =
        fresh.disk(&fresh.find("one").unwrap()).unwrap().read_at(0, &mut vec![0; disk.len() as usize]);
    assert!(error.unwrap_err().to_string().contains("damaged"), "reading says so");
    // Nothing is deleted, and the next put that has the block heals it.
    let plan = fresh.plan_gc(&()).unwrap();
    assert!(plan.unneeded.is_empty() && plan.rewritten.is_empty(), "{plan:?}");
    let healed = fresh.put(Source::Disk(&disk), &named("one")).unwrap();
    assert_eq!((healed.new_blocks, healed.existed), (1, true));
    assert!(fresh.verify(&VERIFY).unwrap().is_whole());
    for name in ["one", "two"] {
        let back = fresh.disk(&fresh.find(name).unwrap()).unwrap();
        assert!(bytes_of(&back) == bytes_of(&disk));
    }
}

#[test]
fn packs_with_damage_that_hurts_nobody_are_rewritten() {
    let (backend, store) = memory();
    let disk = example();
    put(&store, "one", &disk);
    let packs = keys(&backend, Folder::Packs);
    let len = backend.objects().into_iter().find(|(key, _)| *key == packs[0]).unwrap().1.len();
    damage(&backend, &packs[0], len - 10);
    let store = Arc::new(Store::open_with(Arc::new(backend.clone()), small()).unwrap());
    let report = store.verify(&VERIFY).unwrap();
    assert!(report.damaged.is_empty() && report.objects.len() == 1 && report.quarantined == 1, "{report:?}");
    assert_eq!(store.plan_gc(&()).unwrap().rewritten.len(), 1);
    gc_times(&store, 3);
    assert!(store.verify(&VERIFY).unwrap().is_whole());
    // A block that was healed leaves its damaged copy behind, until it is collected.
    let packs = keys(&backend, Folder::Packs);
    damage(&backend, &packs[0], 60);
    let store = Arc::new(Store::open_with(Arc::new(backend.clone()), small()).unwrap());
    assert_eq!(store.verify(&VERIFY).unwrap().damaged.len(), 1);
    assert_eq!(put(&store, "one", &disk).new_blocks, 1);
    gc_times(&store, 3);
    assert_eq!(store.stat().unwrap().quarantined_blocks, 0);
    assert!(store.verify(&VERIFY).unwrap().is_whole());
    let back = store.disk(&store.find("one").unwrap()).unwrap();
    assert!(bytes_of(&back) == bytes_of(&disk));
}

#[test]
fn parts_of_a_verification_are_all_of_it() {
    let (backend, store) = memory();
    let pieces: Vec<_> = (0..20).map(|at| (at * BLOCK_SIZE, noise(at, 1000))).collect();
    put(&store, "one", &disk(20 * BLOCK_SIZE, &pieces));
    damage(&backend, &keys(&backend, Folder::Packs)[0], 60);
    let fresh = Store::open_with(Arc::new(backend.clone()), small()).unwrap();
    let parts: Vec<_> = (1..=3)
        .map(|n| fresh.verify(&VerifyOptions { part: Some((n, 3)), quarantine: false, ..VERIFY }).unwrap())
        .collect();
    assert_eq!(parts.iter().map(|part| part.blocks).sum::<u64>(), 20);
    assert_eq!(parts.iter().map(|part| part.damaged.len()).sum::<usize>(), 1);
}

#[test]
fn a_lost_index_is_rebuilt_from_packs_and_a_lost_root_from_snapshots() {
    let (backend, store) = memory();
    let disk = example();
    let id = put(&store, "one", &disk).snapshot_id;
    store.put(Source::Map(&disk), &named("two")).unwrap();
    let backend_arc: Arc<dyn crate::Backend> = Arc::new(backend.clone());
    for round in 0..3 {
        match round {
            0 => keys(&backend, Folder::Index).iter().for_each(|key| damage(&backend, key, 3)),
            1 => keys(&backend, Folder::Index).iter().for_each(|key| backend.overwrite(key, Vec::new())),
            _ => backend.overwrite("root", b"gone".to_vec()),
        }
        if let Ok(store) = Store::open_with(backend_arc.clone(), small()) {
            assert!(!store.verify(&VERIFY).unwrap().is_whole());
            assert!(store.plan_gc(&()).is_err(), "nothing is deleted on the word of a damaged index");
        }
        let report = Store::rebuild(&backend_arc).unwrap();
        assert_eq!((report.blocks, report.snapshots), (4, 2), "{report:?}");
        let store = Arc::new(Store::open_with(backend_arc.clone(), small()).unwrap());
        assert!(store.verify(&VERIFY).unwrap().is_whole());
        assert_eq!(store.find("one").unwrap().id, id);
        let back = store.disk(&store.find("one").unwrap()).unwrap();
        assert!(bytes_of(&back) == bytes_of(&disk));
    }
}

#[test]
fn a_lying_origin_is_caught() {
    let (_, store) = memory();
    let honest = noise(5, 600_000);
    let lie = Content::new(Digest::of(b"something else"), 600_000, Arc::new(honest.clone()));
    let mut builder = BlockMapBuilder::new();
    builder.push_all(0, Content::from_bytes(text(1, 5000)), Origin::Structure("test"));
    builder.push_all(8192, lie, Origin::Structure("test"));
    let map = builder.finish(4 * BLOCK_SIZE).unwrap();
    let first = store.put(Source::Map(&map), &named("liar")).unwrap();
    let again = store.put(Source::Map(&map), &named("trusting")).unwrap();
    assert_eq!(again.read_bytes, 0);
    let report = store.verify(&VERIFY).unwrap();
    assert_eq!(report.lies.len(), 1, "{report:?}");
    assert_eq!((report.claims, report.lies[0].claimed), (2, Digest::of(b"something else")));
    assert_eq!(report.lies[0].found, Digest::of(&honest));
    assert_eq!(report.lies[0].hurts.iter().map(|hurt| &*hurt.name).collect::<Vec<_>>(), ["liar", "trusting"]);
    assert!(!report.is_whole() && report.damaged.is_empty());
    // The origin is no longer believed.
    let third = store.put(Source::Map(&map), &named("third")).unwrap();
    assert_eq!((third.read_bytes > 0, third.digest), (true, first.digest));
}

#[test]
fn a_frame_that_does_not_read_back_is_not_committed() {
    let backend = MemoryBackend::new();
    let fault: crate::FrameFault = |frame| {
        let middle = frame.len() / 2;
        frame[middle] ^= 4;
    };
    let options = Options { frame_fault: Some(fault), ..small() };
    let store = Store::create_with(Arc::new(backend.clone()), options).unwrap();
    for bytes in [text(1, 100_000), noise(1, 500_000)] {
        let error = store.put(Source::Disk(&disk(BLOCK_SIZE, &[(0, bytes)])), &named("one")).unwrap_err();
        assert!(matches!(error, Error::Compression { .. }), "{error}");
    }
    assert!(store.list().unwrap().is_empty());
}

/// The store with one byte changed may refuse, or name what is damaged, or be as good as before: it never gives wrong bytes.
fn never_silently_wrong(objects: &[(String, Vec<u8>)], disks: &[(&str, Vec<u8>)], flipped: &str) -> bool {
    let backend = MemoryBackend::new();
    objects.iter().for_each(|(key, bytes)| backend.overwrite(key, bytes.clone()));
    let Ok(store) = Store::open_with(Arc::new(backend), small()) else { return true };
    let store = Arc::new(store);
    let report = store.verify(&VerifyOptions { quarantine: false, ..VERIFY });
    let found = report.as_ref().map_or(true, |report| !report.is_whole());
    for (name, bytes) in disks {
        let back = store.find(name).and_then(|record| store.disk(&record)).map_err(|error| error.to_string());
        let read = back.and_then(|disk| {
            let mut read = vec![0; disk.len() as usize];
            disk.read_at(0, &mut read).map_err(|error| error.to_string()).map(|()| read)
        });
        match read {
            Ok(read) => assert!(read == *bytes, "{flipped}: {name} reads as something else"),
            Err(error) => assert!(found, "{flipped}: {error}, but a verification says all is well"),
        }
    }
    found
}

#[test]
fn every_byte_flipped_in_turn_is_found_or_harmless() {
    let backend = MemoryBackend::new();
    let store = Store::create_with(Arc::new(backend.clone()), small()).unwrap();
    let one = disk(3 * BLOCK_SIZE, &[(0, text(1, 3000)), (BLOCK_SIZE + 7, text(2, 100))]);
    let two = disk(2 * BLOCK_SIZE, &[(0, text(1, 3000)), (BLOCK_SIZE + 7, noise(3, 100))]);
    store.put(Source::Map(&one), &named("one")).unwrap();
    store.put(Source::Map(&two), &named("two")).unwrap();
    let disks = [("one", bytes_of(&one)), ("two", bytes_of(&two))];
    // What no longer belongs to the store may have any bytes.
    gc_times(&store, 3);
    let objects = backend.objects();
    assert!(!never_silently_wrong(&objects, &disks, "nothing"));
    let (mut flips, mut harmless) = (0, Vec::new());
    for at in 0..objects.len() {
        for byte in 0..objects[at].1.len() {
            let mut changed = objects.clone();
            changed[at].1[byte] ^= 1 << (byte % 8);
            flips += 1;
            let what = format!("{} byte {byte} of {}", objects[at].0, objects[at].1.len());
            if !never_silently_wrong(&changed, &disks, &what) {
                harmless.push(what);
            }
        }
    }
    assert!(flips > 1000, "{flips}");
    // A bit in the head of a zstd frame means nothing; everything else is covered by a checksum.
    let few = harmless.len() <= 2 && harmless.iter().all(|what| what.starts_with("packs/"));
    assert!(few, "{} of {flips} flips are not found: {harmless:#?}", harmless.len());
}

#[test]
fn a_snapshot_whose_map_rotted_is_made_anew_by_a_put() {
    let (backend, store) = memory();
    let disk = example();
    put(&store, "one", &disk);
    put(&store, "two", &disk);
    let object = store.find("one").unwrap().object.key(Folder::Snapshots);
    damage(&backend, &object, 60);
    let fresh = Arc::new(Store::open_with(Arc::new(backend.clone()), small()).unwrap());
    assert!(fresh.disk(&fresh.find("one").unwrap()).is_err());
    let again = put(&fresh, "one", &disk);
    assert_eq!((again.existed, again.new_blocks), (false, 0));
    assert_eq!(fresh.list().unwrap().len(), 2);
    assert!(fresh.verify(&VERIFY).unwrap().is_whole());
    assert!(bytes_of(&fresh.disk(&fresh.find("one").unwrap()).unwrap()) == bytes_of(&disk));
}

#[test]
fn a_pack_without_its_own_index_keeps_its_blocks_in_a_rebuild() {
    for root in ["kept", "lost"] {
        let (backend, store) = memory();
        let disk = example();
        put(&store, "one", &disk);
        let packs = keys(&backend, Folder::Packs);
        let len = backend.objects().into_iter().find(|(key, _)| *key == packs[0]).unwrap().1.len();
        damage(&backend, &packs[0], len - 10);
        if root == "lost" {
            backend.overwrite("root", b"gone".to_vec());
        }
        let backend: Arc<dyn crate::Backend> = Arc::new(backend);
        let report = Store::rebuild(&backend).unwrap();
        assert_eq!(report.unreadable.len(), 1, "{report:?}");
        let fresh = Arc::new(Store::open_with(backend, small()).unwrap());
        assert!(bytes_of(&fresh.disk(&fresh.find("one").unwrap()).unwrap()) == bytes_of(&disk));
    }
}

#[test]
fn blocks_that_rot_while_a_put_counts_on_them_are_brought_again() {
    struct Between<'a>(&'a MemoryBackend, std::sync::Once);
    impl crate::Progress for Between<'_> {
        fn begin(&self, _: u64) {}
        fn advance(&self, _: u64) {
            self.1.call_once(|| {
                damage(self.0, &keys(self.0, Folder::Packs)[0], 60);
                let other = Store::open_with(Arc::new(self.0.clone()), small()).unwrap();
                assert_eq!(other.verify(&VERIFY).unwrap().quarantined, 1);
            });
        }
    }
    let (backend, store) = memory();
    let disk = example();
    put(&store, "one", &disk);
    let between = Between(&backend, std::sync::Once::new());
    let report = store.put(Source::Disk(&disk), &PutOptions { progress: &between, ..named("two") }).unwrap();
    assert_eq!(report.new_blocks, 1);
    let fresh = Arc::new(Store::open_with(Arc::new(backend.clone()), small()).unwrap());
    assert!(fresh.verify(&VERIFY).unwrap().is_whole());
    assert!(bytes_of(&fresh.disk(&fresh.find("two").unwrap()).unwrap()) == bytes_of(&disk));
}
