//! A series of images as people have them: each made from an earlier one, kept in a folder that rots, and got back onto files that
//! hold something else. Whatever happens, what is read is right or refused, and a verification names who is hurt.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::collect::{GC, VERIFY};
use super::*;
use crate::{SnapshotId, VerifyReport};

const PAGE: u64 = 4096;

/// An image, plainly: its pages that are not all zero.
#[derive(Clone, Default, PartialEq)]
struct Image {
    size: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Image {
    fn byte(&self, at: u64) -> u8 {
        self.pages.get(&(at / PAGE)).map_or(0, |page| page[(at % PAGE) as usize])
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let (page, inside) = ((offset + at as u64) / PAGE, ((offset + at as u64) % PAGE) as usize);
            let len = (bytes.len() - at).min(PAGE as usize - inside);
            let there = self.pages.entry(page).or_insert_with(|| vec![0; PAGE as usize]);
            there[inside..inside + len].copy_from_slice(&bytes[at..at + len]);
            at += len;
        }
        self.resize(self.size.max(offset + bytes.len() as u64));
    }

    fn resize(&mut self, size: u64) {
        self.size = size;
        self.pages.retain(|page, _| page * PAGE < size);
        if let Some(mut last) = self.pages.last_entry() {
            let inside = size.saturating_sub(last.key() * PAGE).min(PAGE) as usize;
            last.get_mut()[inside..].fill(0);
        }
        self.pages.retain(|_, page| page.iter().any(|byte| *byte != 0));
    }

    /// The runs of pages that have data.
    fn runs(&self) -> Vec<(u64, Vec<u8>)> {
        let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
        for (page, bytes) in &self.pages {
            match runs.last_mut().filter(|(start, run)| start + run.len() as u64 == page * PAGE) {
                Some((_, run)) => run.extend(bytes),
                None => runs.push((page * PAGE, bytes.clone())),
            }
        }
        for (start, run) in &mut runs {
            run.truncate((self.size - *start) as usize);
        }
        runs
    }

    fn map(&self) -> BlockMap {
        disk(self.size, &self.runs())
    }

    /// Makes a file of it, with holes, and with zeros that are written where the seed says so.
    fn save(&self, path: &Path, seed: u64) {
        let _ = fs::remove_file(path);
        let file = File::create(path).unwrap();
        file.set_len(self.size).unwrap();
        for at in 0..seed % 4 {
            let zeros = (seed / 4 + at * 7) % 40 * 10_000;
            let len = 10_000.min(self.size.saturating_sub(zeros));
            file.write_all_at(&vec![0; len as usize], zeros).unwrap();
        }
        self.runs().iter().for_each(|(start, run)| file.write_all_at(run, *start).unwrap());
    }

    /// Whether a disk has the same bytes, and zeros everywhere else.
    fn is(&self, disk: &dyn BlockSource) -> io::Result<bool> {
        let mut seen = BTreeSet::new();
        let mut buffer = vec![0; PAGE as usize];
        for (offset, len) in disk.data() {
            for page in offset / PAGE..(offset + len).div_ceil(PAGE) {
                let part = &mut buffer[..PAGE.min(disk.len() - page * PAGE) as usize];
                disk.read_at(page * PAGE, part)?;
                let same = match self.pages.get(&page) {
                    Some(bytes) => *part == bytes[..part.len()],
                    None => part.iter().all(|byte| *byte == 0),
                };
                if !same {
                    return Ok(false);
                }
                seen.insert(page);
            }
        }
        Ok(disk.len() == self.size && self.pages.keys().all(|page| seen.contains(page)))
    }
}

/// A disk that says that all of it is data.
struct WithoutHoles<'a>(&'a Image);

impl BlockSource for WithoutHoles<'_> {
    fn len(&self) -> u64 {
        self.0.size
    }

    fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
        Box::new([(0, self.0.size)].into_iter().filter(|(_, len)| *len > 0))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (offset..).zip(buf).for_each(|(at, byte)| *byte = self.0.byte(at));
        Ok(())
    }
}

/// What an image becomes before it is put again.
#[derive(Clone, Debug)]
enum Change {
    Resize(u64),
    /// Everything moves on by so many bytes.
    Shift(u64),
    Edit(u64, u64, usize),
    Hole(u64, u64),
    /// All of it is zero.
    Zero,
    /// All blocks are alike.
    Alike(u64),
    OneByte(u8),
    /// A terabyte with a few bytes here and there.
    Huge(u64),
}

impl Change {
    fn apply(&self, image: &mut Image) {
        let within = |at: u64| at % image.size.clamp(1, 3 << 20);
        match *self {
            Self::Resize(size) => image.resize(size),
            Self::Shift(by) => {
                let old = std::mem::take(image);
                image.size = (old.size + by).min(4 << 20);
                for (start, run) in old.runs() {
                    if start + by + (run.len() as u64) < 4 << 20 {
                        image.write(start + by, &run);
                    }
                }
            }
            Self::Edit(at, seed, len) => image.write(within(at), &noise(seed, len)),
            Self::Hole(at, len) => {
                let (at, end) = (within(at), (within(at) + len).min(image.size));
                image.write(at, &vec![0; (end - at) as usize]);
                image.resize(image.size);
            }
            Self::Zero => image.pages.clear(),
            Self::Alike(seed) => {
                let blocks = (image.size.min(3 << 20) / BLOCK_SIZE).max(2);
                image.resize(0);
                (0..blocks).for_each(|at| image.write(at * BLOCK_SIZE, &noise(seed, 30_000)));
                image.resize(blocks * BLOCK_SIZE);
            }
            Self::OneByte(byte) => {
                image.resize(0);
                image.write(0, &[byte]);
            }
            Self::Huge(seed) => {
                image.resize(0);
                [0, (1 << 39) + seed % 100_000, (1 << 40) - 7]
                    .iter()
                    .for_each(|at| image.write(*at, b"huge!"));
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        name: u8,
        changes: Vec<Change>,
        way: u8,
        seed: u64,
    },
    Forget(prop::sample::Index),
    Collect,
    Reopen,
    /// Got onto one of a few files, which have what they had.
    Get {
        which: prop::sample::Index,
        onto: u8,
        fresh: bool,
    },
    Rot {
        object: prop::sample::Index,
        byte: prop::sample::Index,
    },
    Remove(prop::sample::Index),
    Verify,
    Repair,
}

fn change() -> impl Strategy<Value = Change> {
    let size = prop_oneof![0..3u64 << 20, (0u64..6).prop_map(|blocks| blocks * BLOCK_SIZE)];
    prop_oneof![
        2 => size.prop_map(Change::Resize),
        1 => prop_oneof![1..9000u64, Just(PAGE), Just(BLOCK_SIZE)].prop_map(Change::Shift),
        6 => (0..3u64 << 20, 0..6u64, 1..200_000usize).prop_map(|(at, seed, len)| Change::Edit(at, seed, len)),
        2 => (0..3u64 << 20, 1..900_000u64).prop_map(|(at, len)| Change::Hole(at, len)),
        1 => Just(Change::Zero),
        1 => (0..3u64).prop_map(Change::Alike),
        1 => any::<u8>().prop_map(Change::OneByte),
        1 => any::<u64>().prop_map(Change::Huge),
    ]
}

fn step(rots: bool) -> impl Strategy<Value = Step> {
    let harm = if rots { 1 } else { 0 };
    prop_oneof![
        6 => (0u8..3, prop::collection::vec(change(), 0..4), 0u8..3, any::<u64>())
            .prop_map(|(name, changes, way, seed)| Step::Put { name, changes, way, seed }),
        2 => any::<prop::sample::Index>().prop_map(Step::Forget),
        2 => Just(Step::Collect),
        1 => Just(Step::Reopen),
        3 => (any::<prop::sample::Index>(), 0u8..3, any::<bool>())
            .prop_map(|(which, onto, fresh)| Step::Get { which, onto, fresh }),
        2 * harm => (any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(object, byte)| Step::Rot { object, byte }),
        harm => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => Just(Step::Verify),
        1 => Just(Step::Repair),
    ]
}

struct Series {
    folder: tempfile::TempDir,
    backend: Arc<dyn crate::Backend>,
    store: Arc<Store>,
    /// What each name's image is now.
    images: BTreeMap<u8, Image>,
    /// What was put and not forgotten.
    model: BTreeMap<SnapshotId, (String, Image)>,
    /// What was forgotten: a root that is lost may bring it back.
    gone: BTreeMap<SnapshotId, Image>,
    /// Whether anything was damaged and not made whole since: work may be refused.
    hurt: bool,
}

impl Series {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backend: Arc<dyn crate::Backend> = Arc::new(LocalBackend::new(&folder.path().join("a/store")));
        let store = Arc::new(Store::create_with(backend.clone(), small()).unwrap());
        let (images, model, gone) = Default::default();
        Self { folder, backend, store, images, model, gone, hurt: false }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The result of work that must succeed in a store that is whole.
    fn done<T>(&self, what: &str, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(error) => {
                assert!(self.hurt, "{what}, although the store is whole: {error}");
                None
            }
        }
    }

    fn reopen(&mut self) {
        let opened = Store::open_with(self.backend.clone(), small());
        if let Some(store) = self.done("opening", opened) {
            self.store = Arc::new(store);
        }
    }

    /// Objects of the store, as files.
    fn objects(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> =
            Some(self.path("a/store/root")).into_iter().filter(|root| root.exists()).collect();
        for folder in crate::format::Folder::ALL {
            let entries = fs::read_dir(self.path("a/store").join(folder.name())).unwrap();
            all.extend(entries.map(|entry| entry.unwrap().path()));
        }
        all.sort();
        all
    }

    fn put(&mut self, name: u8, image: &Image, way: u8, seed: u64) {
        let text = format!("image-{name}");
        let path = self.path("put.raw");
        let map = image.map();
        let whole = WithoutHoles(image);
        let source = match way {
            0 => {
                image.save(&path, seed);
                Source::File(&path)
            }
            1 => Source::Map(&map),
            _ if image.size < 1 << 30 => Source::Disk(&whole),
            _ => Source::Disk(&map),
        };
        let put = self.store.put(source, &named(&text));
        if let Some(report) = self.done("putting", put) {
            assert_eq!(report.size, image.size);
            self.model.insert(report.snapshot_id, (text, image.clone()));
            self.gone.remove(&report.snapshot_id);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put { name, changes, way, seed } => {
                let mut image = self.images.get(name).cloned().unwrap_or_default();
                changes.iter().for_each(|change| change.apply(&mut image));
                self.images.insert(*name, image.clone());
                self.put(*name, &image, *way, *seed);
            }
            Step::Forget(which) => {
                let ids: Vec<SnapshotId> = self.model.keys().copied().collect();
                let Some(id) = ids.get(which.index(ids.len().max(1))) else { return };
                let forgotten = self.store.forget(&[*id]);
                if self.done("forgetting", forgotten).is_some() {
                    let image = self.model.remove(id).unwrap().1;
                    self.gone.insert(*id, image);
                }
            }
            Step::Collect => {
                let collected = self.store.execute_gc(&GC);
                self.done("collecting", collected);
            }
            Step::Reopen => self.reopen(),
            Step::Get { which, onto, fresh } => {
                let all: Vec<_> = self.model.iter().collect();
                if all.is_empty() {
                    return;
                }
                let (id, (_, image)) = all[which.index(all.len())];
                let path = self.path(&format!("got-{onto}.raw"));
                let existing = if *fresh { Existing::Replace } else { Existing::Update };
                let options = GetOptions { existing, sync: false, progress: &() };
                let got = self
                    .store
                    .find(&id.to_string())
                    .and_then(|record| self.store.get(&record, &path, &options));
                if self.done("getting", got).is_some() {
                    let file = ::formats::RawFile::open(&path).unwrap();
                    assert!(image.is(&file).unwrap(), "{id} was got as something else");
                    assert!(!self.path(&format!("got-{onto}.raw.incomplete")).exists());
                }
            }
            Step::Rot { object, byte } => {
                let objects = self.objects();
                let Some(path) = objects.get(object.index(objects.len().max(1))) else { return };
                let mut bytes = fs::read(path).unwrap();
                // A changed version is another program's store.
                if bytes.len() > 16 {
                    let at = 16 + byte.index(bytes.len() - 16);
                    bytes[at] ^= 1 << (at % 8);
                    fs::write(path, bytes).unwrap();
                    self.harmed();
                }
            }
            Step::Remove(object) => {
                let objects = self.objects();
                let Some(path) = objects.get(object.index(objects.len().max(1))) else { return };
                fs::remove_file(path).unwrap();
                self.harmed();
            }
            Step::Verify => drop(self.verify()),
            Step::Repair => self.repair(),
        }
    }

    fn harmed(&mut self) {
        self.hurt = true;
        // What is in memory already would hide it.
        self.reopen();
    }

    /// Reads every snapshot: each is right, or refused and then named by a verification.
    fn verify(&self) -> Option<VerifyReport> {
        let report = self.done("verifying", self.store.verify(&VERIFY))?;
        assert!(self.hurt || report.is_whole(), "{report:?}");
        let blocks = report.damaged.iter().flat_map(|block| &block.hurts).map(|hurt| hurt.snapshot);
        let maps = report.objects.iter().filter_map(|object| object.snapshot.as_ref()).map(|(id, _)| *id);
        let hurt: BTreeSet<SnapshotId> = blocks.chain(maps).collect();
        let index = report.objects.iter().any(|object| object.key.starts_with("index/"));
        let records = self.done("listing", self.store.list())?;
        let fresh = Arc::new(Store::open_with(self.backend.clone(), small()).unwrap());
        for record in &records {
            let image = self.model.get(&record.id).map(|(_, image)| image).or(self.gone.get(&record.id));
            let image = image.unwrap_or_else(|| panic!("{} was never put", record.name));
            let read = fresh.disk(record).map_err(io::Error::other).and_then(|disk| image.is(&disk));
            match read {
                Ok(same) => assert!(same, "{} reads as something else", record.id),
                Err(error) => assert!(
                    index || hurt.contains(&record.id),
                    "{}, which no verification names: {error}; {report:?}",
                    record.id
                ),
            }
        }
        Some(report)
    }

    /// What a person does about damage: repairs, verifies, and puts again what is hurt.
    fn repair(&mut self) {
        Store::rebuild(&self.backend).unwrap();
        self.store = Arc::new(Store::open_with(self.backend.clone(), small()).unwrap());
        self.verify().unwrap();
        for (name, image) in self.model.values().cloned().collect::<Vec<_>>() {
            let (_, number) = name.split_once('-').unwrap();
            self.put(number.parse().unwrap(), &image, 2, 0);
        }
        // What came back and was forgotten goes again: its blocks may be lost.
        let records = self.store.list().unwrap();
        let back: Vec<SnapshotId> =
            records.iter().map(|record| record.id).filter(|id| !self.model.contains_key(id)).collect();
        self.store.forget(&back).unwrap();
        let report = self.store.verify(&VERIFY).unwrap();
        let left: Vec<_> = report.objects.iter().filter(|object| !object.key.starts_with("packs/")).collect();
        assert!(
            left.is_empty() && report.damaged.iter().all(|it| it.healed || it.hurts.is_empty()),
            "{report:?}"
        );
        self.hurt = !report.is_whole();
    }

    /// In the end everything is there, and then nothing is left.
    fn end(mut self) {
        self.repair();
        // Damage that hurts nobody goes with the collection.
        self.store.execute_gc(&GC).unwrap();
        self.hurt = false;
        self.verify().unwrap();
        let mut listed: Vec<SnapshotId> = self.store.list().unwrap().iter().map(|record| record.id).collect();
        listed.sort();
        assert_eq!(listed, self.model.keys().copied().collect::<Vec<_>>());
        self.store.forget(&listed).unwrap();
        self.store.execute_gc(&GC).unwrap();
        assert_eq!(self.objects(), [self.path("a/store/root")]);
    }
}

fn play(steps: &[Step]) {
    let mut series = Series::new();
    steps.iter().for_each(|step| series.step(step));
    series.end();
}

/// How many series are played; many with `BAKEHOUSE_THOROUGH=1`.
fn cases() -> ProptestConfig {
    let thorough = std::env::var_os("BAKEHOUSE_THOROUGH").is_some_and(|value| value == "1");
    ProptestConfig::with_cases(if thorough { 3000 } else { 60 })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_series_of_images_comes_back(steps in prop::collection::vec(step(false), 1..16)) {
        play(&steps);
    }

    #[test]
    fn a_series_in_a_store_that_rots_is_never_silently_wrong(steps in prop::collection::vec(step(true), 1..16)) {
        play(&steps);
    }
}
