//! Any sequence of work against a plain model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::collect::{VERIFY, gc};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Puts a disk made of these blocks, by one of two ways, under one of a few names.
    Put {
        name: u8,
        blocks: Vec<u8>,
        tail: u16,
        map: bool,
    },
    /// Forgets what a name means now.
    Forget {
        name: u8,
    },
    Collect,
    Reopen,
    Rebuild,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, prop::collection::vec(0u8..12, 0..6), 0u16..5000, any::<bool>())
            .prop_map(|(name, blocks, tail, map)| Step::Put { name, blocks, tail, map }),
        2 => (0u8..4).prop_map(|name| Step::Forget { name }),
        2 => Just(Step::Collect),
        1 => Just(Step::Reopen),
        1 => Just(Step::Rebuild),
    ]
}

/// Kind 0 is a hole, kind 1 zeros that are data, the others differ from each other.
fn disk_of(blocks: &[u8], tail: u16) -> BlockMap {
    let pieces: Vec<(u64, Vec<u8>)> = (0..)
        .zip(blocks)
        .filter(|(_, kind)| **kind > 0)
        .map(|(at, kind)| {
            let bytes = match kind {
                1 => vec![0; 3000],
                kind if kind % 2 == 0 => text((*kind).into(), 2000),
                kind => noise((*kind).into(), 2000),
            };
            (at * BLOCK_SIZE + 100, bytes)
        })
        .collect();
    disk(blocks.len() as u64 * BLOCK_SIZE + u64::from(tail), &pieces)
}

fn play(steps: Vec<Step>, backend: Arc<dyn crate::Backend>) {
    let mut store = Arc::new(Store::create_with(backend.clone(), small()).unwrap());
    // For each name what was put, oldest first.
    let mut model: BTreeMap<String, Vec<(crate::SnapshotId, BlockMap)>> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Put { name, blocks, tail, map } => {
                let (name, disk) = (format!("name-{name}"), disk_of(&blocks, tail));
                let source = if map { Source::Map(&disk) } else { Source::Disk(&disk) };
                let report = store.put(source, &named(&name)).unwrap();
                let all = model.entry(name).or_default();
                let known = all.iter().any(|(id, _)| *id == report.snapshot_id);
                assert_eq!(report.existed, known);
                if !known {
                    all.push((report.snapshot_id, disk));
                }
            }
            Step::Forget { name } => {
                let name = format!("name-{name}");
                let newest = model.get_mut(&name).and_then(Vec::pop);
                match (store.find(&name), newest) {
                    (Ok(record), Some((id, _))) => {
                        assert_eq!(record.id, id);
                        store.forget(&[id]).unwrap();
                    }
                    (Err(Error::NoSnapshot { .. }), None) => {}
                    (found, newest) => panic!("{found:?} {newest:?}"),
                }
            }
            Step::Collect => {
                gc(&store);
            }
            Step::Reopen => store = Arc::new(Store::open_with(backend.clone(), small()).unwrap()),
            Step::Rebuild => drop(Store::rebuild(&backend).unwrap()),
        }
    }
    // What is still open could hide that it is gone.
    let store = Arc::new(Store::open_with(backend, small()).unwrap());
    let mut expected: Vec<crate::SnapshotId> = model.values().flatten().map(|(id, _)| *id).collect();
    let mut listed: Vec<crate::SnapshotId> = store.list().unwrap().iter().map(|record| record.id).collect();
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
    let report = store.verify(&VERIFY).unwrap();
    assert!(report.is_whole(), "{report:?}");
    for (id, disk) in model.values().flatten() {
        let back = store.disk(&store.find(&id.to_string()).unwrap()).unwrap();
        assert!(bytes_of(&back) == bytes_of(disk));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_is_done_what_was_put_comes_back(
        steps in prop::collection::vec(step(), 1..14),
        local in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        match local {
            true => play(steps, Arc::new(LocalBackend::new(folder.path()))),
            false => play(steps, Arc::new(MemoryBackend::new())),
        }
    }
}
