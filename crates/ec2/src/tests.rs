use block::{BLOCK_SIZE, BlockMap, BlockMapBuilder, BlockSource, Content, Origin};
use catalog::{Architecture, BlockDeviceMapping, DeviceName, Ebs, VolumeType};
use std::io::ErrorKind;

use store::{ChosenId, Fault, FaultyBackend, LocalBackend, MemoryBackend, PutOptions, Source};

use super::*;

const NOW: i64 = 1_767_225_600;

/// A disk of 1 GiB with one block of data.
fn disk(seed: u8) -> BlockMap {
    let mut builder = BlockMapBuilder::new();
    builder.push_all(0, Content::from_bytes(vec![seed; BLOCK_SIZE as usize]), Origin::Configured);
    builder.finish(GIB).unwrap()
}

fn store() -> Arc<Store> {
    Arc::new(Store::create(Arc::new(MemoryBackend::new())).unwrap())
}

fn put(store: &Store, name: &str, seed: u8) -> SnapshotId {
    let options = PutOptions { name, id: ChosenId::Derived, parent: None, time: NOW, progress: &() };
    store.put(Source::Map(&disk(seed)), &options).unwrap().snapshot_id
}

fn request(name: &str, snapshot: SnapshotId) -> RegisterImage {
    let device = DeviceName::new("/dev/xvda").unwrap();
    let ebs = Ebs { snapshot_id: Some(snapshot), volume_type: Some(VolumeType::Gp3), ..Ebs::default() };
    let mapping = vec![BlockDeviceMapping::ebs(device.clone(), ebs)];
    RegisterImage::new(name.to_owned(), Architecture::X86_64, device, mapping)
}

fn in_region(store: &Arc<Store>, region: &str) -> Ec2 {
    Ec2::new(store.clone(), region, NOW).unwrap()
}

#[test]
fn an_image_lives_from_registration_to_the_last_block() {
    let store = store();
    let root = put(&store, "web/xvda", 1);
    let here = in_region(&store, "local");
    let id = here.register_image(&request("web-1", root)).unwrap();
    assert_eq!(here.snapshots().unwrap()[0].images, [id]);
    let refused = here.delete_snapshots(&[root]).unwrap_err();
    assert!(refused.is_mistake() && refused.to_string().contains("is in use by"), "{refused}");

    let there = in_region(&store, "eu-west-1");
    let copied = there.copy_image("local", "web-1", None, None, false).unwrap();
    let copy = copied.snapshots[0].1;
    let listed = there.snapshots().unwrap();
    assert_eq!(
        (listed.len(), listed[0].record.id, listed[0].record.name.as_str()),
        (1, copy, "eu-west-1/web/xvda")
    );
    assert_eq!(store.stat().unwrap().unique_blocks, 1);
    // A copy's copy keeps one region in its name.
    let back = in_region(&store, "us-east-1");
    let third = back.copy_image("eu-west-1", "web-1", None, None, false).unwrap();
    assert_eq!(back.snapshots().unwrap()[0].record.name, "us-east-1/web/xvda");
    back.deregister_image(&third.image.image_id.to_string(), true).unwrap();
    assert_eq!(back.snapshots().unwrap().len(), 0);

    // The copy outlives what it is a copy of.
    let done = here.deregister_image("web-1", true).unwrap();
    assert_eq!(done.deleted, [root]);
    assert_eq!(store.list().unwrap().len(), 1);
    let record = store.find(&copy.to_string()).unwrap();
    let mut bytes = vec![0; BLOCK_SIZE as usize];
    store.disk(&record).unwrap().read_at(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 1));
    let done = there.deregister_image("web-1", false).unwrap();
    assert_eq!(done.left, [copy]);
    there.delete_snapshots(&[copy]).unwrap();
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn of_calls_at_once_none_is_lost() {
    let store = store();
    let root = put(&store, "web/xvda", 1);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let here = in_region(store, "local");
                for turn in 0..3 {
                    let name = format!("web-{number}-{turn}");
                    // Others may be faster twenty times.
                    while let Err(error) = here.register_image(&request(&name, root)) {
                        assert!(matches!(error, Error::Busy { .. }), "{error}");
                    }
                }
            });
        }
    });
    let account = in_region(&store, "local").account().unwrap();
    assert_eq!(account.images("local").count(), 12);
}

/// Copies, registrations and deletions at once, in a folder and on a back end without locks: no image lacks a snapshot.
#[test]
fn no_image_is_left_without_its_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalBackend::new(&folder.path().join("store")));
    let store = Arc::new(Store::create(local.clone()).unwrap());
    let (a, b) = (put(&store, "a", 1), put(&store, "b", 2));
    let here = in_region(&store, "local");
    here.register_image(&request("img-a", a)).unwrap();
    for round in 0..6 {
        std::thread::scope(|scope| {
            for number in 0..2 {
                let local = local.clone();
                scope.spawn(move || {
                    let there = in_region(&Arc::new(Store::open(local).unwrap()), "eu-west-1");
                    let name = format!("copy-{round}-{number}");
                    there.copy_image("local", "img-a", Some(&name), None, false).unwrap();
                });
            }
            let (one, other) = (local.clone(), local.clone());
            scope.spawn(move || {
                let here = in_region(&Arc::new(Store::open(one).unwrap()), "local");
                let _ = here.register_image(&request(&format!("img-b-{round}"), b));
            });
            scope.spawn(move || {
                let here = in_region(&Arc::new(Store::open(other).unwrap()), "local");
                let _ = here.delete_snapshots(&[b]);
            });
        });
        assert_eq!(here.missing_snapshots().unwrap(), []);
        let image = here.image(&format!("img-b-{round}"));
        assert_eq!(image.is_ok(), store.find(&b.to_string()).is_ok(), "one of both was first");
        if image.is_ok() {
            here.deregister_image(&format!("img-b-{round}"), true).unwrap();
        }
        assert_eq!(put(&store, "b", 2), b);
    }
    assert_eq!(in_region(&store, "eu-west-1").snapshots().unwrap().len(), 12);
}

/// Every operation of the store fails once while an image is copied and while it is deregistered: other calls go on afterwards,
/// and no image lacks a snapshot.
#[test]
fn calls_that_fail_anywhere_are_in_nobodys_way() {
    for fault in [Fault::Before(ErrorKind::Other), Fault::After(ErrorKind::Other)] {
        let mut failed = 0;
        for at in 0..60 {
            let inner = Arc::new(MemoryBackend::new());
            let store = Arc::new(Store::create(inner.clone()).unwrap());
            let (a, b) = (put(&store, "a", 1), put(&store, "b", 2));
            let here = in_region(&store, "local");
            here.register_image(&request("img-a", a)).unwrap();
            here.register_image(&request("img-b", b)).unwrap();
            let faulty = FaultyBackend::new(
                inner,
                Box::new(move |number, _| if number == at { fault } else { Fault::None }),
            );
            let done = Store::open(Arc::new(faulty)).map(Arc::new).map_err(Error::from).and_then(|store| {
                let there = in_region(&store, "eu-west-1");
                there.copy_image("local", "img-a", None, None, false)?;
                there.deregister_image("img-a", true)
            });
            failed += usize::from(done.is_err());
            let there = in_region(&store, "eu-west-1");
            assert_eq!(there.missing_snapshots().unwrap(), [], "{fault:?} at {at}");
            there.copy_image("local", "img-b", None, None, false).unwrap();
            if there.image("img-a").is_err() {
                there.copy_image("local", "img-a", None, None, false).unwrap();
            }
            there.deregister_image("img-a", true).unwrap();
            assert_eq!(there.missing_snapshots().unwrap(), []);
            // What is left over is in its region, and can be taken away.
            let left = there.snapshots().unwrap();
            let unused: Vec<SnapshotId> = left
                .iter()
                .filter(|snapshot| snapshot.images.is_empty())
                .map(|snapshot| snapshot.record.id)
                .collect();
            if !unused.is_empty() {
                there.delete_snapshots(&unused).unwrap();
            }
            assert_eq!(there.snapshots().unwrap().len(), 1, "{fault:?} at {at}");
            assert_eq!(here.snapshots().unwrap().len(), 2, "{fault:?} at {at}");
        }
        assert!((10..60).contains(&failed), "{failed} of 60 calls failed with {fault:?}");
    }
}

#[test]
fn a_long_name_is_cut_for_a_copy() {
    let store = store();
    let long = "ö".repeat(127);
    let root = put(&store, &long, 1);
    in_region(&store, "local").register_image(&request("web-1", root)).unwrap();
    let there = in_region(&store, "eu-west-1");
    there.copy_image("local", "web-1", None, None, false).unwrap();
    let name = there.snapshots().unwrap()[0].record.name.clone();
    assert!(name.starts_with("eu-west-1/ö") && name.len() > 250, "{name}");
}

#[test]
fn another_version_and_wrong_regions_are_told() {
    let store = store();
    assert!(store.alone().unwrap().swap_document(None, b"{\"version\": 9}").unwrap());
    let error = in_region(&store, "local").account().unwrap_err();
    assert!(
        error.is_mistake() && error.to_string().ends_with("it is of version 9; this program reads version 1"),
        "{error}"
    );
    for bad in ["", "EU", "eu west", "-x", "../x"] {
        assert!(check_region(bad).is_err(), "{bad}");
    }
}
