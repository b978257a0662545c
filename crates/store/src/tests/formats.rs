//! Readers of on-disk data against random and changed bytes, and golden repositories.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::collect::{VERIFY, gc_times};
use super::*;
use crate::format::{
    Catalog, Claims, Name, PACK_FOOTER, PACK_HEADER, Pack, PackFooter, Root, Snapshot, Table, TableKind,
};

/// All readers; none may panic or take memory out of proportion.
fn read_all(bytes: &[u8]) {
    let _ = Root::read(bytes);
    let _ = Catalog::read(bytes);
    let _ = Snapshot::read(bytes);
    let _ = Claims::read(bytes);
    let _ = Name::parse(&String::from_utf8_lossy(bytes));
    for kind in [TableKind::Blocks, TableKind::Origins] {
        if let Ok(table) = Table::read(kind, bytes.to_vec().into()) {
            let _ = table.check(&Name { generation: 0, digest: block::Digest::of(bytes) });
            for at in 0..table.len() {
                let id = table.id(at).unwrap();
                let _ = (table.place(at), table.position(&id));
            }
        }
    }
    read_pack(bytes);
}

fn read_pack(bytes: &[u8]) -> Option<Pack> {
    let footer =
        PackFooter::read(&bytes[bytes.len().checked_sub(PACK_FOOTER)?..], bytes.len() as u64).ok()?;
    let index = &bytes[footer.index_offset as usize..][..footer.index_len()];
    Pack::read(&bytes[..PACK_HEADER], index, &footer).ok()
}

fn some_objects() -> Vec<(String, Vec<u8>)> {
    let (backend, store) = memory();
    let disk = example();
    for at in 0..18 {
        store.put(Source::Map(&disk), &named(&format!("n{at}"))).unwrap();
    }
    let mut objects = backend.objects();
    // Frames are no matter of these readers.
    objects.retain(|(key, bytes)| !key.starts_with("packs/") || bytes.len() < 100_000);
    objects
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
    }
}

#[test]
fn changed_objects_do_no_harm_even_with_right_checksums() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let objects = some_objects();
    let change = (
        0..objects.len(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        any::<prop::sample::Index>(),
    );
    for _ in 0..2000 {
        let (object, edits, cut) = change.new_tree(&mut runner).unwrap().current();
        let mut bytes = objects[object].1.clone();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_all(&bytes[..cut.index(bytes.len() + 1)]);
        // The last bytes are a checksum: a reader behind it must stand on its own.
        let end = bytes.len().saturating_sub(32);
        let sum = block::Digest::of(&bytes[..end]);
        bytes.splice(end.., sum.0);
        read_all(&bytes);
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/store/v1")
}

/// What the golden repository is made of.
fn golden_disks() -> Vec<(&'static str, BlockMap)> {
    let one = disk(
        3 * BLOCK_SIZE + 1234,
        &[(0, text(1, 9000)), (BLOCK_SIZE - 500, noise(2, 1000)), (3 * BLOCK_SIZE, text(3, 1234))],
    );
    let two = disk(4 * BLOCK_SIZE, &[(0, text(1, 9000)), (2 * BLOCK_SIZE + 4096, noise(4, 3000))]);
    vec![("one", one), ("two", two), ("empty", BlockMap::empty(1 << 30))]
}

fn make_golden(backend: Arc<dyn crate::Backend>) {
    let store = Store::create_with(backend, small()).unwrap();
    for (name, disk) in golden_disks() {
        store.put(Source::Map(&disk), &named(name)).unwrap();
    }
    gc_times(&store, 1);
    store
        .put(
            Source::Map(&golden_disks()[1].1),
            &PutOptions {
                id: ChosenId::Given("snap-00000000000000001".parse().unwrap()),
                parent: Some(store.find("one").unwrap().id),
                ..named("child")
            },
        )
        .unwrap();
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            files.extend(self::files(&path).into_iter().map(|(key, bytes)| (format!("{name}/{key}"), bytes)));
        } else {
            files.insert(path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap());
        }
    }
    files
}

/// Every later program must read this store. Set `BAKEHOUSE_WRITE_GOLDEN` to write it: once for each version.
#[test]
fn the_golden_repository_is_read_and_written_as_ever() {
    let made = tempfile::tempdir().unwrap();
    make_golden(Arc::new(LocalBackend::new(made.path())));
    let mut made = files(made.path());
    made.retain(|name, _| !name.ends_with(".lock"));
    if std::env::var_os("BAKEHOUSE_WRITE_GOLDEN").is_some() {
        for (name, bytes) in &made {
            let path = golden().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    let kept = files(&golden());
    // Packs depend on the compressor's version, and what names packs with them; these do not.
    let fixed = |files: &BTreeMap<String, Vec<u8>>| -> Vec<(String, Vec<u8>)> {
        let fixed = files.iter().filter(|(name, _)| name.starts_with("snapshots/") || *name == "format");
        fixed.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
    };
    assert!(fixed(&made) == fixed(&kept), "the format's bytes have changed");
    let copy = tempfile::tempdir().unwrap();
    for (name, bytes) in kept {
        let path = copy.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let store = Arc::new(Store::open(Arc::new(LocalBackend::new(copy.path()))).unwrap());
    assert!(store.verify(&VERIFY).unwrap().is_whole());
    for (name, disk) in golden_disks() {
        if disk.len() < 1 << 24 {
            let back = store.disk(&store.find(name).unwrap()).unwrap();
            assert!(bytes_of(&back) == bytes_of(&disk), "{name}");
        }
    }
    let child = store.find("snap-00000000000000001").unwrap();
    assert_eq!((&*child.name, child.parent), ("child", Some(store.find("one").unwrap().id)));
    assert_eq!(store.find("empty").unwrap().blocks, 0);
    // The folders that were empty are missing here.
    put(&store, "new", &disk(BLOCK_SIZE, &[(0, text(77, 100))]));
    gc_times(&store, 1);
    assert!(store.verify(&VERIFY).unwrap().is_whole());
}
