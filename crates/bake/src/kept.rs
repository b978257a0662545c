//! Volumes go into the store, and come out of it as files.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block::{BlockMap, BlockSource, Digest};
use catalog::Home;
use recipe::{Recipe, Volume};
use store::{ChosenId, LocalBackend, PutOptions, PutReport, SnapshotDisk, Source, Store};

use crate::layout::VolumeLayout;
use crate::{Error, Report, Stages, Unit};

/// A volume that is in the store.
pub(crate) struct Kept<'a> {
    pub(crate) put: PutReport,
    map: &'a BlockMap,
    disk: SnapshotDisk,
}

impl Kept<'_> {
    /// Its blocks that are not all zero: number and id.
    pub(crate) fn blocks(&self) -> &[(u64, Digest)] {
        &self.disk.snapshot().blocks
    }
}

/// The bytes are the store's, each block checked as it is read; where there are any is known more finely from the layout, so
/// that holes within a block stay holes.
impl BlockSource for Kept<'_> {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
        self.map.data()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
}

/// Opens the store in a folder, or makes it there.
pub(crate) fn open(folder: &Path) -> Result<Arc<Store>, Error> {
    Ok(Arc::new(Store::create(Arc::new(LocalBackend::new(folder)))?))
}

/// The name of a volume's snapshots, which is also where its file is below `out`: `hello-web-1.0.0/x86_64/xvda`.
pub(crate) fn snapshot_name(recipe: &Recipe, volume: &Volume) -> String {
    format!("{}/{}/{}", recipe.image_name, recipe.arch, volume.device.file_stem())
}

/// Keeps a volume as a snapshot under the id that its registration will name.
pub(crate) fn keep<'a>(
    store: &Arc<Store>,
    recipe: &Recipe,
    volume: &Volume,
    map: &'a BlockMap,
    parent: Option<&VolumeLayout>,
    time: i64,
    stages: &Stages<'_>,
) -> Result<Kept<'a>, Error> {
    let name = snapshot_name(recipe, volume);
    let id =
        |digest| Home::default().snapshot_id(&recipe.image_name, recipe.arch.ec2(), &volume.device, digest);
    let progress =
        Told { report: stages.report(), what: volume.device.file_stem(), total: 0.into(), done: 0.into() };
    let digest = parent.map(VolumeLayout::digest);
    let records = if digest.is_some() { store.list()? } else { Vec::new() };
    let newest = records.iter().rev().find(|record| Some(record.digest) == digest);
    let options = PutOptions {
        name: &name,
        id: ChosenId::OfDigest(&id),
        parent: newest.map(|record| record.id),
        time,
        progress: &progress,
    };
    let put = store.put(Source::Map(map), &options)?;
    let disk = store.disk(&store.find(&put.snapshot_id.to_string())?)?;
    Ok(Kept { put, map, disk })
}

/// Passes the store's progress on.
struct Told<'a> {
    report: &'a dyn Report,
    what: &'a str,
    total: AtomicU64,
    done: AtomicU64,
}

impl store::Progress for Told<'_> {
    fn begin(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.report.progress(done, Some(self.total.load(Ordering::Relaxed)), Unit::Bytes, self.what);
    }
}

#[cfg(test)]
mod tests {
    use block::{BLOCK_SIZE, BlockMapBuilder, Content, Origin};
    use recipe::Arch;

    use super::*;

    struct Quiet;

    impl Report for Quiet {
        fn started(&self, _: &str) {}
        fn progress(&self, _: u64, _: Option<u64>, _: Unit, _: &str) {}
        fn line(&self, _: &str) {}
        fn finished(&self, _: &crate::Stage) {}
    }

    fn recipe(folder: &Path, version: &str) -> Recipe {
        let path = folder.join("recipe.yaml");
        let text = format!(
            "name: web\nversion: {version}\nvolumes: [{{device: /dev/sda1, root: true, size: 1GiB}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        let source = recipe::load(&path, &recipe::LoadOptions::default()).unwrap();
        source.for_arch(Arch::Aarch64).unwrap()
    }

    /// A disk with a file in the middle of its third block, and more of it at the end.
    fn disk(end: u8) -> BlockMap {
        let mut builder = BlockMapBuilder::new();
        let place = |bytes: Vec<u8>| (Content::from_bytes(bytes), Origin::Structure("test"));
        let (file, origin) = place((0..200_000u32).map(|at| (at * at / 7) as u8).collect());
        builder.push_all(2 * BLOCK_SIZE + 12_288, file, origin);
        let (file, origin) = place(vec![end; 5000]);
        builder.push_all((1 << 30) - 5000, file, origin);
        builder.finish(1 << 30).unwrap()
    }

    #[test]
    fn a_volume_is_kept_once_and_reads_as_its_layout() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("data/of/mine/store")).unwrap();
        let stages = Stages::new(&Quiet);
        let keep = |version, disk: &BlockMap| {
            let recipe = recipe(folder.path(), version);
            let volume = recipe.root_volume().unwrap();
            let kept = keep(&store, &recipe, volume, disk, None, 1_700_000_000, &stages).unwrap();
            let home = Home::default();
            let registered =
                home.snapshot_id(&recipe.image_name, recipe.arch.ec2(), &volume.device, kept.put.digest);
            assert_eq!(kept.put.snapshot_id, registered);
            assert_eq!(kept.blocks(), block::block_ids(disk).unwrap());
            assert!(kept.data().eq(disk.data()));
            let (mut ours, mut theirs) = (vec![1; 1 << 20], vec![2; 1 << 20]);
            for offset in [0, 2 * BLOCK_SIZE + 100_000, (1 << 30) - (1 << 20)] {
                kept.read_at(offset, &mut ours).unwrap();
                disk.read_at(offset, &mut theirs).unwrap();
                assert!(ours == theirs, "from byte {offset} on");
            }
            kept.put
        };
        let first = keep("1", &disk(1));
        assert_eq!(first.name, "web-1/aarch64/sda1");
        assert_eq!((first.blocks, first.new_blocks, first.hashed_bytes), (2, 2, 2 * BLOCK_SIZE));
        let again = keep("1", &disk(1));
        assert!(again.existed);
        assert_eq!((again.new_blocks, again.read_bytes, again.hashed_bytes), (0, 0, 0));
        // Another version of the image is a snapshot of its own, of the same blocks.
        let renamed = keep("2", &disk(1));
        assert!(!renamed.existed && renamed.snapshot_id != first.snapshot_id);
        assert_eq!((renamed.new_blocks, renamed.read_bytes, renamed.hashed_bytes), (0, 0, 0));
        // What differs is read, the rest is known.
        let changed = keep("2", &disk(9));
        assert_eq!((changed.blocks, changed.new_blocks), (2, 1));
        assert_eq!((changed.read_bytes, changed.hashed_bytes), (5000, BLOCK_SIZE));
    }
}
