//! Images as files, stores in folders.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::*;

fn store_in(folder: &Path) -> Arc<Store> {
    let backend = Arc::new(LocalBackend::new(&folder.join("store")));
    Arc::new(Store::create_with(backend, small()).unwrap())
}

fn sparse(path: &Path, size: u64, pieces: &[(u64, Vec<u8>)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in pieces {
        file.write_all_at(bytes, *offset).unwrap();
    }
}

const OPTIONS: GetOptions<'_> = GetOptions { existing: Existing::Update, sync: true, progress: &() };

#[test]
fn a_sparse_file_comes_back_with_its_holes() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path());
    let (image, copy) = (folder.path().join("a.raw"), folder.path().join("b.raw"));
    sparse(
        &image,
        100 << 20,
        &[(4096, text(1, 8192)), (70 << 20, noise(1, 900_000)), ((100 << 20) - 5, b"end!!".to_vec())],
    );
    let report = store.put(Source::File(&image), &named("a")).unwrap();
    assert!(report.read_bytes < 2 << 20, "holes are not read: {report:?}");
    let got = store.get(&store.find("a").unwrap(), &copy, &OPTIONS).unwrap();
    assert_eq!(got.way, Way::New);
    assert!(fs::read(&copy).unwrap() == fs::read(&image).unwrap());
    let (was, is) = (image.metadata().unwrap().blocks(), copy.metadata().unwrap().blocks());
    assert!(is <= was, "{is} > {was}");
}

#[test]
fn only_what_differs_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path());
    let image = folder.path().join("a.raw");
    let pieces: Vec<_> = (0..8).map(|at| (at * BLOCK_SIZE, noise(at, 400_000))).collect();
    sparse(&image, 8 * BLOCK_SIZE, &pieces);
    store.put(Source::File(&image), &named("a")).unwrap();
    let wanted = fs::read(&image).unwrap();
    let record = store.find("a").unwrap();
    let got = store.get(&record, &image, &OPTIONS).unwrap();
    assert_eq!((got.written_blocks, got.read_bytes), (0, 0));
    // One block differs, one byte is where nothing should be, and the file is too long.
    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(b"x", 3 * BLOCK_SIZE + 7).unwrap();
    file.write_all_at(b"x", 6 * BLOCK_SIZE - 7).unwrap();
    file.write_all_at(b"more", 9 * BLOCK_SIZE).unwrap();
    let got = store.get(&record, &image, &OPTIONS).unwrap();
    assert_eq!(got.written_blocks, 2);
    assert!(fs::read(&image).unwrap() == wanted);
    assert!(!folder.path().join("a.raw.incomplete").exists());
    // A shorter one grows.
    file.set_len(BLOCK_SIZE + 5).unwrap();
    store.get(&record, &image, &OPTIONS).unwrap();
    assert!(fs::read(&image).unwrap() == wanted);
}

#[test]
fn an_interrupted_update_is_marked_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path());
    let image = folder.path().join("a.raw");
    let pieces: Vec<_> = (0..6).map(|at| (at * BLOCK_SIZE, noise(at, 1000))).collect();
    sparse(&image, 6 * BLOCK_SIZE, &pieces);
    store.put(Source::File(&image), &named("a")).unwrap();
    let record = store.find("a").unwrap();
    sparse(&image, 6 * BLOCK_SIZE, &[]);
    for entry in fs::read_dir(folder.path().join("store/packs")).unwrap() {
        let pack = File::options().write(true).open(entry.unwrap().path()).unwrap();
        // In the frame of the last block, before six entries and the footer.
        let at = pack.metadata().unwrap().len() - 6 * 40 - 48 - 500;
        pack.write_all_at(b"damage", at).unwrap();
    }
    let error = store.get(&record, &image, &OPTIONS).unwrap_err();
    assert!(matches!(error, Error::Block { index: 5, .. }), "{error}");
    let refused = store.put(Source::File(&image), &named("b")).unwrap_err();
    assert!(matches!(refused, Error::Incomplete { .. }), "{refused}");
    let error = store.get(&record, &folder.path().join("new.raw"), &OPTIONS).unwrap_err();
    assert!(matches!(error, Error::Block { index: 5, .. }), "{error}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "store, image and mark: {left:?}");
}

#[test]
fn folders_that_are_no_store_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(Arc::new(LocalBackend::new(folder.path())));
    assert!(matches!(open(), Err(Error::NotAStore { .. })));
    fs::write(folder.path().join("thesis.tex"), "…").unwrap();
    let create = || Store::create(Arc::new(LocalBackend::new(folder.path())));
    let Err(Error::NotEmpty { found, .. }) = create() else { panic!("a store among other files") };
    assert!(found.contains("thesis.tex"), "{found}");
    fs::remove_file(folder.path().join("thesis.tex")).unwrap();
    drop(create().unwrap());
    drop(create().unwrap());
    fs::write(folder.path().join("format"), "bakehouse store 2\n").unwrap();
    let Err(error) = open() else { panic!("a newer store was opened") };
    assert!(error.to_string().contains("format version 2, this program knows versions up to 1"), "{error}");
    fs::write(folder.path().join("format"), "bakehouse store 1\n").unwrap();
    let mut root = fs::read(folder.path().join("root")).unwrap();
    root[20] ^= 1;
    fs::write(folder.path().join("root"), &root).unwrap();
    assert!(matches!(open(), Err(Error::RootLost { .. })));
    root[8] = 2;
    fs::write(folder.path().join("root"), &root).unwrap();
    assert!(matches!(open(), Err(Error::Newer { .. })));
    fs::remove_file(folder.path().join("root")).unwrap();
    assert!(matches!(open(), Err(Error::RootLost { .. })));
}

#[test]
fn a_file_that_shrinks_while_it_is_read_makes_no_snapshot() {
    struct Shrink<'a>(&'a Path);
    impl crate::Progress for Shrink<'_> {
        fn begin(&self, _: u64) {
            File::options().write(true).open(self.0).unwrap().set_len(1000).unwrap();
        }
        fn advance(&self, _: u64) {}
    }
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path());
    let image = folder.path().join("a.raw");
    sparse(&image, 4 * BLOCK_SIZE, &[(0, noise(1, 1_500_000))]);
    let options = PutOptions { progress: &Shrink(&image), ..named("a") };
    let error = store.put(Source::File(&image), &options).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn links_and_other_peoples_files_are_respected() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path());
    let path = |name: &str| folder.path().join(name);
    sparse(&path("a"), 4 * BLOCK_SIZE, &[(0, noise(1, 900_000))]);
    sparse(&path("b"), 4 * BLOCK_SIZE, &[(0, noise(2, 900_000))]);
    store.put(Source::File(&path("a")), &named("a")).unwrap();
    let (a, b) = (fs::read(path("a")).unwrap(), fs::read(path("b")).unwrap());
    let record = store.find("a").unwrap();
    // Through a symbolic link the file itself is written, and the link stays one.
    std::os::unix::fs::symlink("b", path("link")).unwrap();
    fs::write(path("b.incomplete"), "my notes").unwrap();
    let error = store.get(&record, &path("link"), &OPTIONS);
    // Where the file system shares blocks no mark is needed.
    if let Err(error) = error {
        assert!(error.to_string().contains("b.incomplete"), "{error}");
        assert!(fs::read(path("b")).unwrap() == b, "nothing was written");
        assert_eq!(fs::read_to_string(path("b.incomplete")).unwrap(), "my notes");
        fs::remove_file(path("b.incomplete")).unwrap();
        store.get(&record, &path("link"), &OPTIONS).unwrap();
    }
    assert!(path("link").is_symlink() && fs::read(path("b")).unwrap() == a);
    // A file with another name keeps its bytes under that one.
    fs::write(path("b"), &b).unwrap();
    fs::hard_link(path("b"), path("backup")).unwrap();
    assert_eq!(store.get(&record, &path("b"), &OPTIONS).unwrap().way, Way::New);
    assert!(fs::read(path("b")).unwrap() == a && fs::read(path("backup")).unwrap() == b);
    // Two at one image would leave a mixture.
    fs::write(path("c"), &b).unwrap();
    let held = File::open(path("c")).unwrap();
    held.lock().unwrap();
    if let Err(error) = store.get(&record, &path("c"), &OPTIONS) {
        assert!(error.to_string().contains("locking the image"), "{error}");
        assert!(fs::read(path("c")).unwrap() == b);
    }
}

#[test]
fn a_volume_that_no_snapshot_can_have_is_refused() {
    let (_, store) = memory();
    let huge = BlockMap::empty((1 << 50) + 1);
    let error = store.put(Source::Map(&huge), &named("huge")).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }) && error.is_mistake(), "{error}");
    store.put(Source::Map(&BlockMap::empty(1 << 50)), &named("large")).unwrap();
    assert_eq!(store.find("large").unwrap().size, 1 << 50);
}

#[test]
fn a_large_table_is_read_where_it_lies_and_a_bad_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path());
    let id = |at: u64| block::Digest::of(&at.to_le_bytes());
    let ids: Vec<_> = (0..150_000).map(id).collect();
    store.simulate("first", &[], &ids[..100_000]).unwrap();
    store.simulate("second", &ids[..10], &ids[100_000..]).unwrap();
    let fresh = store_in(folder.path());
    assert!((0..150_000).step_by(997).all(|at| fresh.has_block(&id(at)).unwrap()));
    assert!((150_000..151_000).all(|at| !fresh.has_block(&id(at)).unwrap()));
    let plan = fresh.plan_gc(&()).unwrap();
    assert_eq!((plan.needed_blocks, plan.unneeded.len()), (150_000, 0));
    let tables: Vec<_> = fs::read_dir(folder.path().join("store/index")).unwrap().collect();
    let sizes = tables.iter().map(|entry| entry.as_ref().unwrap().metadata().unwrap().len());
    assert!(sizes.max().unwrap() > 4 << 20, "one is large");
    // The disk loses all of them under an open store.
    for entry in tables {
        File::options().write(true).open(entry.unwrap().path()).unwrap().set_len(4096).unwrap();
    }
    assert!((0..150_000).step_by(997).any(|at| fresh.has_block(&id(at)).is_err()));
    let error = fresh.plan_gc(&()).unwrap_err();
    assert!(error.to_string().contains("cut short"), "{error}");
}
