use block::{BLOCK_SIZE, BlockMap, BlockMapBuilder, BlockSource, Content, Origin};
use catalog::{Architecture, BlockDeviceMapping, DeviceName, Ebs, VolumeType};
use store::{ChosenId, MemoryBackend, PutOptions, Source};

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
    back.deregister_image(&third.image_id.to_string(), true).unwrap();
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

#[test]
fn snapshots_of_a_copy_that_came_too_late_are_taken_back() {
    let store = store();
    let root = put(&store, "web/xvda", 1);
    let here = in_region(&store, "local");
    here.register_image(&request("web-1", root)).unwrap();
    let there = in_region(&store, "eu-west-1");
    let mut turns = 0;
    let copied = there
        .change(
            |account| {
                let id = account.image("local", "web-1")?.image_id;
                let copied = account.copy_image(("local", id), "eu-west-1", None, None, false, NOW)?;
                for (old, new) in &copied.snapshots {
                    store.copy_snapshot(*old, *new, "copy", NOW)?;
                }
                turns += 1;
                if turns == 1 {
                    // Somebody else registers meanwhile.
                    here.register_image(&request("web-2", root))?;
                }
                Ok(copied)
            },
            |copied| {
                let made: Vec<SnapshotId> = copied.snapshots.iter().map(|(_, new)| *new).collect();
                store.forget(&made)?;
                Ok(())
            },
        )
        .unwrap();
    assert_eq!(turns, 2);
    let ids: Vec<SnapshotId> = store.list().unwrap().iter().map(|record| record.id).collect();
    assert_eq!(ids, [root, copied.snapshots[0].1]);
}

#[test]
fn another_version_and_wrong_regions_are_told() {
    let store = store();
    assert!(store.swap_document(None, b"{\"version\": 9}").unwrap());
    let error = in_region(&store, "local").account().unwrap_err();
    assert!(error.is_mistake() && error.to_string().ends_with("use the newer program"), "{error}");
    for bad in ["", "EU", "eu west", "-x", "../x"] {
        assert!(check_region(bad).is_err(), "{bad}");
    }
}
