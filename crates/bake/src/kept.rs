//! Volumes go into the store, and come out of it as files.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block::{BlockMap, BlockSource, Digest};
use catalog::Home;
use recipe::{Recipe, Volume};
use store::{ChosenId, LocalBackend, PutOptions, PutReport, SnapshotDisk, Source, Store};

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

    fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + '_> {
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
    time: i64,
    stages: &Stages<'_>,
) -> Result<Kept<'a>, Error> {
    let name = snapshot_name(recipe, volume);
    let id = |digest| {
        let arch = recipe.arch.ec2();
        let id =
            catalog::SnapshotId::local(&Home::default(), &recipe.image_name, arch, &volume.device, digest);
        // Both are `snap-` and 17 digits.
        id.to_string().parse().unwrap_or_else(|_| store::SnapshotId::derived(&name, digest))
    };
    let progress =
        Told { report: stages.report(), what: volume.device.file_stem(), total: 0.into(), done: 0.into() };
    let options =
        PutOptions { name: &name, id: ChosenId::OfDigest(&id), parent: None, time, progress: &progress };
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
