//! Every system call that the local-directory back end makes.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::sys;

/// Bytes of a whole object that no longer changes: in memory, or in a file that is read where they are wanted. Cheap to clone.
#[derive(Clone)]
pub struct Bytes(Kept);

#[derive(Clone)]
enum Kept {
    Memory(Arc<Vec<u8>>),
    File(Arc<dyn FileHandle>, u64),
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Arc::new(bytes).into()
    }
}

impl From<Arc<Vec<u8>>> for Bytes {
    fn from(bytes: Arc<Vec<u8>>) -> Self {
        Self(Kept::Memory(bytes))
    }
}

impl Bytes {
    /// The first `len` bytes of a file, which are not read yet.
    pub fn in_file(file: Arc<dyn FileHandle>, len: u64) -> Self {
        Self(Kept::File(file, len))
    }

    /// How many they are.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Kept::Memory(bytes) => bytes.len() as u64,
            Kept::File(_, len) => *len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that are in memory.
    pub(crate) fn memory(&self) -> Option<&[u8]> {
        match &self.0 {
            Kept::Memory(bytes) => Some(bytes),
            Kept::File(..) => None,
        }
    }

    /// Fills `buf` from byte `offset` on; `UnexpectedEof` when they end before.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match &self.0 {
            Kept::Memory(bytes) => {
                let from =
                    usize::try_from(offset).ok().and_then(|start| bytes.get(start..)?.get(..buf.len()));
                buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Kept::File(file, _) => file.read_at(offset, buf),
        }
    }

    /// All of them, read now if they are in a file.
    pub fn into_vec(self) -> io::Result<Vec<u8>> {
        match self.0 {
            Kept::Memory(bytes) => Ok(Arc::unwrap_or_clone(bytes)),
            Kept::File(file, len) => {
                let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?];
                file.read_at(0, &mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Beside other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock that is held until this is dropped, or until the process or machine ends.
pub trait Held: Send + Sync {}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name in the folder.
    pub name: String,
    /// Its length in bytes; 0 for a folder.
    pub len: u64,
    /// Whether it is a folder itself.
    pub folder: bool,
}

/// The file system below a local store: all system calls that [`crate::LocalBackend`] makes go through these methods,
/// one call each, so that a simulation can fail, tear or stop at every single one.
///
/// What a machine that loses its power leaves, which is all that the store relies on:
///
/// * A file's bytes are durable after [`FileHandle::sync`] on a handle of it. Bytes that were appended and not synced may
///   be there, be gone, be cut anywhere or be zeros or old garbage, page by page.
/// * A name (made by `create`, `rename` or `create_folder`, or taken away by `unlink` or the old name of a
///   `rename`) is durable after [`FileSystem::sync_folder`] of the folder that has it. Before that each change may be
///   there or not, in any combination with others. A `rename` is never seen half: the new name leads to the old file
///   or to the new one, whole as far as its own `sync` reached.
/// * Syncing a file makes none of its names durable, syncing a folder none of its files' bytes.
/// * A sync that failed made nothing durable, and the handle is not synced again: the file is given up.
/// * Locks end with their process. Nothing else does.
///
/// Without a power cut, changes are seen by all at once, in order. Every method may fail with any error; `create`,
/// `rename` and `unlink` that fail have not happened, an `append` that fails may have written a part.
pub trait FileSystem: Send + Sync {
    /// Makes an empty file for writing and reading. `AlreadyExists` when the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>>;

    /// Opens a file for reading. `NotFound` when there is none.
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>>;

    /// Gives a file another name, taking the place of a file that has it, in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a name away. `NotFound` when there is none. Open handles of the file stay whole.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder. `AlreadyExists` when the name is taken.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// [`FileHandle::sync`] of several files; all have succeeded when it returns without error. A file system that can do
    /// several at once faster than one after another does.
    fn sync_files(&self, files: &[&dyn FileHandle]) -> io::Result<()> {
        files.iter().try_for_each(|file| file.sync())
    }

    /// Makes all names of a folder durable, as they are now.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// [`FileSystem::sync_folder`] of several folders, as [`FileSystem::sync_files`] for files.
    fn sync_folders(&self, paths: &[&Path]) -> io::Result<()> {
        paths.iter().try_for_each(|path| self.sync_folder(path))
    }

    /// The entries of a folder, in any order. `NotFound` when there is none. Entries that come or go meanwhile may be
    /// in it or not.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Locks the file `path`, which is made (empty, and never durable) when missing: one exclusive holder or any number
    /// of shared ones, among all processes. Each call is a holder of its own. Without `wait`, `None` when another
    /// holder is in the way. A lock says nothing about the file's bytes.
    fn lock(&self, path: &Path, kind: LockKind, wait: bool) -> io::Result<Option<Box<dyn Held>>>;
}

/// An open file of a [`FileSystem`].
pub trait FileHandle: Send + Sync {
    /// Writes bytes at the end. Called by one thread at a time, and only by the one that created the file.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Tells that bytes appended so far will be synced soon. A hint: nothing becomes durable by it.
    fn start_writeback(&self) {}

    /// Makes all bytes appended so far, and the file's length, durable; not its name.
    fn sync(&self) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from byte `offset` on; `UnexpectedEof` when the file ends before.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// The whole file, which no longer changes: read now, or [`Bytes::in_file`] when it is large.
    fn load(&self) -> io::Result<Bytes> {
        let len = usize::try_from(self.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        self.read_at(0, &mut bytes)?;
        Ok(bytes.into())
    }
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFileSystem;

struct HostFile {
    file: File,
    /// Bytes appended, and how many of them writeback was asked for.
    appended: std::sync::Mutex<(u64, u64)>,
}

impl HostFile {
    fn boxed(file: File) -> Box<dyn FileHandle> {
        Box::new(Self { file, appended: Default::default() })
    }
}

/// A file smaller than this is held in memory once it is wanted.
const LARGE: u64 = 4 << 20;

impl FileHandle for HostFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut appended = self.appended.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.file.write_all_at(bytes, appended.0)?;
        appended.0 += bytes.len() as u64;
        Ok(())
    }

    fn start_writeback(&self) {
        let mut appended = self.appended.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (end, begun) = *appended;
        sys::start_writeback(&self.file, begun, end - begun);
        appended.1 = end;
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn load(&self) -> io::Result<Bytes> {
        let len = self.len()?;
        if len >= LARGE {
            let file = Self { file: self.file.try_clone()?, appended: Default::default() };
            return Ok(Bytes::in_file(Arc::new(file), len));
        }
        let mut bytes = vec![0; len as usize];
        self.read_at(0, &mut bytes)?;
        Ok(bytes.into())
    }
}

struct HostLock {
    _file: File,
}

impl Held for HostLock {}

/// Does the same with each item, all at once: a file system's journal takes syncs together.
fn at_once<T: Copy + Sync + Send>(items: &[T], work: impl Fn(T) -> io::Result<()> + Sync) -> io::Result<()> {
    let Some((last, others)) = items.split_last() else { return Ok(()) };
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = others.iter().map(|item| scope.spawn(move || work(*item))).collect();
        let last = work(*last);
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.chain([last]).collect()
    })
}

impl FileSystem for HostFileSystem {
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        File::options().read(true).write(true).create_new(true).open(path).map(HostFile::boxed)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        File::open(path).map(HostFile::boxed)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn sync_files(&self, files: &[&dyn FileHandle]) -> io::Result<()> {
        at_once(files, |file| file.sync())
    }

    fn sync_folders(&self, paths: &[&Path]) -> io::Result<()> {
        at_once(paths, |path| self.sync_folder(path))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let folder = metadata.is_dir();
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(Entry { name, len: if folder { 0 } else { metadata.len() }, folder });
        }
        Ok(entries)
    }

    fn lock(&self, path: &Path, kind: LockKind, wait: bool) -> io::Result<Option<Box<dyn Held>>> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let operation = match (kind, wait) {
            (LockKind::Shared, true) => FlockOperation::LockShared,
            (LockKind::Shared, false) => FlockOperation::NonBlockingLockShared,
            (LockKind::Exclusive, true) => FlockOperation::LockExclusive,
            (LockKind::Exclusive, false) => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Some(Box::new(HostLock { _file: file }))),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
