use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use block::{BLOCK_SIZE, BlockSource, Digest, block_ids_of, cut_at_blocks};
use formats::{RawFile, Target, write_error};
use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};

use crate::Error;
use crate::codec::{BLOCK_LEN, is_zero};
use crate::format::{Record, Snapshot, SnapshotId};
use crate::put::Progress;
use crate::read::Fetcher;
use crate::store::{Store, guard};
use crate::sys::start_writeback;

/// The page of file systems: what is zero in this grain becomes a hole.
const PAGE: usize = 4096;

/// Blocks that one thread reads and checks side by side.
const LANES: usize = 4;
/// After how many blocks the kernel is asked to write those before them, when the image is to be durable: its disk and our
/// processors work at the same time.
const WRITEBACK: usize = 16 * LANES;

/// What happens to a file that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Only blocks that differ are written. Where the file system can share blocks between files, this happens to a copy
    /// that takes the file's place in the end. Elsewhere it happens in place: until it is done a file `<name>.incomplete`
    /// lies beside the image and says so, and [`Store::put`] refuses such an image.
    #[default]
    Update,
    /// A new file is written and takes its place in the end.
    Replace,
}

/// How a snapshot is written to a file.
#[derive(Clone, Copy)]
pub struct GetOptions<'a> {
    /// What happens to a file that is there already.
    pub existing: Existing,
    /// Whether the image is forced to the disk before the work counts as done.
    pub sync: bool,
    /// Is told how many bytes of blocks there are to look at and how many are done.
    pub progress: &'a dyn Progress,
}

/// How an image came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// All of it was written to a new file.
    New,
    /// What differs was written to a copy that shares its blocks with the file that was there.
    Cloned,
    /// What differs was written into the file that was there.
    InPlace,
}

/// What a get did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetReport {
    /// The snapshot.
    pub snapshot_id: SnapshotId,
    /// The image's size in bytes.
    pub size: u64,
    /// Blocks that are not all zero.
    pub blocks: u64,
    /// Blocks that were written, or made holes.
    pub written_blocks: u64,
    /// Bytes written to the image.
    pub written_bytes: u64,
    /// Bytes of frames read from the store.
    pub read_bytes: u64,
    /// How the image came about.
    pub way: Way,
}

impl Store {
    /// Writes a snapshot as a sparse raw image. Every block is checked before it is written.
    ///
    /// A new file appears complete or not at all. See [`Existing`] for a file that is there.
    pub fn get(&self, record: &Record, path: &Path, options: &GetOptions<'_>) -> Result<GetReport, Error> {
        let snapshot = self.snapshot(record)?;
        // The file itself, so that the mark lies beside it whichever link it is reached by.
        let found = path.canonicalize();
        let path = found.as_deref().unwrap_or(path);
        // A file that has other names as well is left to those: they may be somebody's copies.
        let is_alone = || path.metadata().is_ok_and(|it| it.nlink() == 1);
        let there = options.existing == Existing::Update && path.is_file() && is_alone();
        let report = if there {
            self.update(&snapshot, path, options)?
        } else {
            let target = Target::create(path)?;
            let failed =
                |error| write_error(error, path, snapshot.size, snapshot.blocks.len() as u64 * BLOCK_SIZE);
            target.file().set_len(snapshot.size).map_err(failed)?;
            let items: Vec<Item> =
                snapshot.blocks.iter().map(|(index, id)| (*index, Some(*id), false)).collect();
            let report = self.fill(&snapshot, path, target.file(), &items, None, Way::New, options)?;
            finish(target, options)?;
            report
        };
        if is_mark(&marker(path)) {
            std::fs::remove_file(marker(path)).map_err(target_error(&marker(path), "removing the mark"))?;
        }
        Ok(report)
    }

    /// Writes what differs.
    fn update(&self, snapshot: &Snapshot, path: &Path, options: &GetOptions<'_>) -> Result<GetReport, Error> {
        let old = RawFile::open(path)?;
        let items = items(snapshot, &old);
        let clone = Target::create(path)?;
        let source = File::open(path).map_err(target_error(path, "opening the image"))?;
        if ioctl_ficlone(clone.file(), &source).is_ok() {
            let failed = |error| write_error(error, path, snapshot.size, 0);
            clone.file().set_len(snapshot.size).map_err(failed)?;
            // It takes the old one's place: who may read it stays as it is.
            let like = source.metadata().map_err(target_error(path, "looking at the image"))?;
            let kept = clone.file().set_permissions(like.permissions());
            kept.map_err(target_error(path, "giving the new image the old one's mode"))?;
            // Another owner's only root can keep.
            let _ = std::os::unix::fs::fchown(clone.file(), Some(like.uid()), Some(like.gid()));
            let report = self.fill(snapshot, path, clone.file(), &items, None, Way::Cloned, options)?;
            finish(clone, options)?;
            return Ok(report);
        }
        drop((clone, source));
        let image = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(target_error(path, "opening the image"))?;
        if let Err(std::fs::TryLockError::WouldBlock) = image.try_lock() {
            let source = io::Error::new(io::ErrorKind::ResourceBusy, "another `store get` writes to it");
            return Err(target_error(path, "locking the image")(source));
        }
        let mark = Mark { path, snapshot, made: Mutex::new(false) };
        if old.len() != snapshot.size {
            mark.make()?;
            image.set_len(snapshot.size).map_err(|error| write_error(error, path, snapshot.size, 0))?;
        }
        let report = self.fill(snapshot, path, &image, &items, Some(&mark), Way::InPlace, options)?;
        let made = *guard(&mark.made);
        if made || options.sync || is_mark(&marker(path)) {
            // The mark may go only when the image is durable.
            image.sync_all().map_err(target_error(path, "syncing the image"))?;
        }
        Ok(report)
    }

    #[expect(clippy::too_many_arguments, reason = "one call of one piece of work")]
    fn fill(
        &self,
        snapshot: &Snapshot,
        path: &Path,
        image: &File,
        items: &[Item],
        mark: Option<&Mark<'_>>,
        way: Way,
        options: &GetOptions<'_>,
    ) -> Result<GetReport, Error> {
        options.progress.begin(items.len() as u64 * BLOCK_SIZE);
        let work = Work {
            store: self,
            snapshot,
            path,
            image,
            items,
            mark,
            sync: options.sync,
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            written: AtomicU64::new(0),
            written_blocks: AtomicU64::new(0),
            read: AtomicU64::new(0),
            progress: options.progress,
        };
        let threads = self.options.threads().min(items.len()).max(1);
        let results: Vec<Result<(), Error>> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| work.run())).collect();
            let first = work.run();
            let others = others
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            std::iter::once(first).chain(others).collect()
        });
        results.into_iter().collect::<Result<(), Error>>()?;
        Ok(GetReport {
            snapshot_id: snapshot.id,
            size: snapshot.size,
            blocks: snapshot.blocks.len() as u64,
            written_blocks: work.written_blocks.into_inner(),
            written_bytes: work.written.into_inner(),
            read_bytes: work.read.into_inner(),
            way,
        })
    }
}

/// Makes the finished file durable if that is wanted, and gives it its name.
fn finish(target: Target, options: &GetOptions<'_>) -> Result<(), Error> {
    let path = target.path().to_owned();
    if options.sync {
        target.file().sync_all().map_err(target_error(&path, "syncing the image"))?;
    }
    target.finish()?;
    if options.sync {
        sync_folder(&path)?;
    }
    Ok(())
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(target_error(folder, "syncing the folder"))
}

fn target_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Target { path, action, source }
}

/// A block to look at: its index, its id (none: it must be zero), and whether the image has data there.
type Item = (u64, Option<Digest>, bool);

/// The blocks that the snapshot or the image has, by index.
fn items(snapshot: &Snapshot, old: &RawFile) -> Vec<Item> {
    let runs = cut_at_blocks(old.data());
    let mut there: Vec<u64> = runs.iter().map(|(offset, _)| offset / BLOCK_SIZE).collect();
    there.dedup();
    // Behind the snapshot's end nothing is left.
    there.retain(|index| *index < snapshot.size.div_ceil(BLOCK_SIZE));
    let mut items = Vec::with_capacity(snapshot.blocks.len());
    let mut there = there.into_iter().peekable();
    for (index, id) in &snapshot.blocks {
        while let Some(extra) = there.next_if(|extra| extra < index) {
            items.push((extra, None, true));
        }
        items.push((*index, Some(*id), there.next_if_eq(index).is_some()));
    }
    items.extend(there.map(|extra| (extra, None, true)));
    items
}

/// Where it is written that an image is neither the old nor the new one.
pub(crate) fn marker(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".incomplete");
    name.into()
}

/// How a mark's second line begins.
const MARK: &str = "is being made into ";

/// Whether a file is a mark that an update left.
pub(crate) fn is_mark(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(8192).read_to_end(&mut start));
    read.is_ok() && String::from_utf8_lossy(&start).lines().nth(1).is_some_and(|line| line.starts_with(MARK))
}

struct Mark<'a> {
    path: &'a Path,
    snapshot: &'a Snapshot,
    made: Mutex<bool>,
}

impl Mark<'_> {
    /// Makes the mark durable before the first write.
    fn make(&self) -> Result<(), Error> {
        let mut made = guard(&self.made);
        if *made {
            return Ok(());
        }
        let path = marker(self.path);
        let text = format!(
            "{}\n{MARK}{} ({}) and is neither what it was nor that. If nobody is at it any more, get the snapshot again.\n",
            self.path.display(),
            self.snapshot.id,
            self.snapshot.name
        );
        if path.exists() && !is_mark(&path) {
            let source =
                io::Error::new(io::ErrorKind::AlreadyExists, "a file of that name is there and is no mark");
            return Err(target_error(&path, "marking the image as incomplete")(source));
        }
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(target_error(&path, "marking the image as incomplete"))?;
        sync_folder(&path)?;
        *made = true;
        Ok(())
    }
}

struct Work<'a> {
    store: &'a Store,
    snapshot: &'a Snapshot,
    path: &'a Path,
    image: &'a File,
    items: &'a [Item],
    mark: Option<&'a Mark<'a>>,
    sync: bool,
    next: AtomicUsize,
    stopped: AtomicBool,
    written: AtomicU64,
    written_blocks: AtomicU64,
    read: AtomicU64,
    progress: &'a dyn Progress,
}

impl Work<'_> {
    fn run(&self) -> Result<(), Error> {
        self.work().inspect_err(|_| self.stopped.store(true, Ordering::Relaxed))
    }

    fn work(&self) -> Result<(), Error> {
        let mut fetcher = Fetcher::new()?;
        let mut buffer = vec![0; LANES * BLOCK_LEN];
        while !self.stopped.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(LANES, Ordering::Relaxed);
            if first >= self.items.len() {
                break;
            }
            if self.sync && first.is_multiple_of(WRITEBACK) && first >= 2 * WRITEBACK {
                // The step before the last: what other threads are at does not lie in it any more, as a rule.
                let start = |item: usize| self.place(self.items[item].0).0;
                let (from, to) = (start(first - 2 * WRITEBACK), start(first - WRITEBACK));
                start_writeback(self.image, from, to - from);
            }
            let batch = &self.items[first..self.items.len().min(first + LANES)];
            let differing = self.differing(batch, &mut buffer)?;
            let mut blocks: Vec<&mut [u8]> = buffer.chunks_mut(BLOCK_LEN).take(differing.len()).collect();
            let mut wanted = Vec::new();
            let mut filled = Vec::new();
            for ((_, id, _), block) in differing.iter().zip(&mut blocks) {
                match id {
                    None => block.fill(0),
                    Some(id) => {
                        wanted.push(*id);
                        filled.push(&mut **block);
                    }
                }
            }
            let fetched = fetcher.fetch_all(self.store, &wanted, &mut filled);
            fetched.map_err(|(at, lost)| {
                let indices = differing.iter().filter(|(_, id, _)| id.is_some()).map(|(index, _, _)| *index);
                lost.of(self.snapshot, indices.clone().nth(at).unwrap_or(batch[0].0))
            })?;
            for ((index, _, there), block) in differing.iter().zip(blocks) {
                self.write(*index, *there, block)?;
            }
            self.progress.advance(batch.len() as u64 * BLOCK_SIZE);
        }
        self.read.fetch_add(fetcher.bytes_read, Ordering::Relaxed);
        Ok(())
    }

    /// Of a batch the blocks that the image does not have as they should be.
    fn differing(&self, batch: &[Item], buffer: &mut [u8]) -> Result<Vec<Item>, Error> {
        for ((index, _, there), block) in batch.iter().zip(buffer.chunks_mut(BLOCK_LEN)) {
            if *there {
                // What is missing behind the old end is zero by now.
                block.fill(0);
                let (start, len) = self.place(*index);
                let read = read_what_is_there(self.image, start, &mut block[..len]);
                read.map_err(target_error(self.path, "reading the image"))?;
            }
        }
        let blocks = batch.iter().zip(buffer.chunks(BLOCK_LEN)).filter(|((_, _, there), _)| *there);
        let blocks: Vec<&[u8]> = blocks.map(|(_, block)| block).collect();
        let mut found = block_ids_of(&blocks).into_iter();
        let differs = |(_, id, there): &&Item| !*there || found.next() != Some(*id);
        Ok(batch.iter().filter(differs).copied().collect())
    }

    /// Where a block is in the image, and how much of it.
    fn place(&self, index: u64) -> (u64, usize) {
        let start = index * BLOCK_SIZE;
        (start, BLOCK_SIZE.min(self.snapshot.size - start) as usize)
    }

    /// Writes a block, but for pages of zeros, which become holes.
    fn write(&self, index: u64, there: bool, block: &[u8]) -> Result<(), Error> {
        let (start, len) = self.place(index);
        let data = self.snapshot.blocks.len() as u64 * BLOCK_SIZE;
        let failed = |error| write_error(error, self.path, self.snapshot.size, data);
        if let Some(mark) = self.mark {
            mark.make()?;
        }
        self.written_blocks.fetch_add(1, Ordering::Relaxed);
        for (zero, from, to) in runs(&block[..len]) {
            let at = start + from as u64;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if zero && (!there || fallocate(self.image, flags, at, (to - from) as u64).is_ok()) {
                continue;
            }
            self.image.write_all_at(&block[from..to], at).map_err(failed)?;
            self.written.fetch_add((to - from) as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn read_what_is_there(file: &File, start: u64, buf: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read_at(&mut buf[filled..], start + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A block as runs of pages that are all zero or not: whether, from, to.
fn runs(block: &[u8]) -> Vec<(bool, usize, usize)> {
    let mut runs: Vec<(bool, usize, usize)> = Vec::new();
    for (at, page) in block.chunks(PAGE).enumerate() {
        let (zero, from) = (is_zero(page), at * PAGE);
        match runs.last_mut().filter(|run| run.0 == zero) {
            Some(run) => run.2 = from + page.len(),
            None => runs.push((zero, from, from + page.len())),
        }
    }
    runs
}
