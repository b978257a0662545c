use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block::Digest;

use super::{Backend, BackendError, BackendResult, Listed, Locked, Object, Tag, Upload};
use crate::alone::DOCUMENT;
use crate::fs::{Bytes, FileHandle, FileSystem, HostFileSystem, LockKind};

/// Folder of objects in the making.
const TEMPORARY: &str = "tmp";
/// The lock of writers and the collector.
const STORE_LOCK: &str = "store.lock";
/// The lock around each compare-and-swap and each create.
const SWAP_LOCK: &str = "swap.lock";
/// Bytes of an upload after which writeback is started.
const WRITEBACK: u64 = 8 << 20;

/// A store in a folder of a local file system.
///
/// An object is written to `tmp/`, synced, renamed to its key, and the folder of the key is synced. A swap does the same while it
/// holds `swap.lock` alone. Both locks are the kernel's: nobody has to guess whether their holder still lives.
pub struct LocalBackend {
    root: Arc<Root>,
}

struct Root {
    path: PathBuf,
    fs: Box<dyn FileSystem>,
    /// Number of the next temporary file.
    next: AtomicU64,
}

impl LocalBackend {
    /// The folder `path` of this machine. Nothing is read or made yet.
    pub fn new(path: &Path) -> Self {
        Self::on(path, Box::new(HostFileSystem))
    }

    /// The folder `path` of any file system.
    pub fn on(path: &Path, fs: Box<dyn FileSystem>) -> Self {
        Self { root: Arc::new(Root { path: path.to_owned(), fs, next: AtomicU64::new(0) }) }
    }
}

/// The folder that has the name of another; the current one for a relative path of one part, none for the top.
fn above(folder: &Path) -> Option<&Path> {
    let above = folder.parent()?;
    let is_here = above.as_os_str().is_empty();
    if is_here { Some(Path::new(".")).filter(|here| *here != folder) } else { Some(above) }
}

/// Says what was done with which path when it failed.
fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> BackendError {
    let place = path.display().to_string();
    move |source| BackendError { place, action, source }
}

impl Root {
    fn path(&self, key: &str) -> PathBuf {
        self.path.join(key)
    }

    /// The folder that has the name of `key`.
    fn folder(&self, key: &str) -> PathBuf {
        match key.split_once('/') {
            Some((folder, _)) => self.path.join(folder),
            None => self.path.clone(),
        }
    }

    /// Refuses a folder that has anything in it but what an interrupted `prepare` leaves.
    fn refuse_foreign(&self, folders: &[&str]) -> BackendResult<()> {
        let entries = match self.fs.list(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed(&self.path, "listing the folder"))?,
        };
        let ours = |name: &str| {
            folders.contains(&name) || [TEMPORARY, STORE_LOCK, SWAP_LOCK, "root", DOCUMENT].contains(&name)
        };
        match entries.into_iter().map(|entry| entry.name).filter(|name| !ours(name)).min() {
            None => Ok(()),
            Some(name) => {
                let error = io::Error::new(io::ErrorKind::DirectoryNotEmpty, name);
                Err(failed(&self.path, "making a store in the folder")(error))
            }
        }
    }

    fn make_folder(&self, folder: &Path) -> BackendResult<()> {
        match self.fs.create_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done.map_err(failed(folder, "making the folder")),
        }
    }

    /// Makes a folder and those above it that are missing, each with a durable name; gives the topmost folder that was synced.
    fn make_path<'a>(&self, folder: &'a Path) -> BackendResult<Option<&'a Path>> {
        let mut topmost = None;
        match self.fs.create_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
                topmost = self.make_path(above.ok_or(error).map_err(failed(folder, "making the folder"))?)?;
                self.make_folder(folder)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(failed(folder, "making the folder"))?,
        }
        let nearest = above(folder);
        nearest.map_or(Ok(()), |nearest| self.sync_folder(nearest))?;
        Ok(topmost.or(nearest))
    }

    /// A new file in the folder of temporary files.
    fn temporary(&self) -> BackendResult<(PathBuf, Box<dyn FileHandle>)> {
        let folder = self.path.join(TEMPORARY);
        let mut made = false;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{}-{number}", process::id()));
            match self.fs.create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // A copy of a store may have lost its empty folders.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !made => {
                    self.make_folder(&folder)?;
                    made = true;
                }
                file => return Ok((path.clone(), file.map_err(failed(&path, "making the file"))?)),
            }
        }
    }

    fn rename(&self, from: &Path, key: &str) -> BackendResult<()> {
        let to = self.path(key);
        let renamed = match self.fs.rename(from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_folder(&self.folder(key))?;
                self.fs.rename(from, &to)
            }
            renamed => renamed,
        };
        renamed.map_err(failed(&to, "giving the file its name"))
    }

    fn sync_folder(&self, folder: &Path) -> BackendResult<()> {
        self.fs.sync_folder(folder).map_err(failed(folder, "syncing the folder"))
    }

    /// Takes a temporary file away that did not get a name. What cannot be taken away is left to the collector.
    fn discard(&self, path: &Path) {
        let _ = self.fs.unlink(path);
    }

    /// Writes temporary files, one for each of `contents`, and syncs them.
    fn write_temporaries(&self, contents: &[&[u8]]) -> BackendResult<Vec<PathBuf>> {
        let mut paths = Vec::new();
        let mut files = Vec::new();
        let written = contents.iter().try_for_each(|bytes| {
            let (path, file) = self.temporary()?;
            paths.push(path.clone());
            file.append(bytes).map_err(failed(&path, "writing the file"))?;
            files.push(file);
            Ok(())
        });
        let files: Vec<&dyn FileHandle> = files.iter().map(|file| &**file).collect();
        let folder = self.path.join(TEMPORARY);
        let done = written.and_then(|()| {
            self.fs.sync_files(&files).map_err(failed(&folder, "syncing files in the folder"))
        });
        match done {
            Ok(()) => Ok(paths),
            Err(error) => {
                paths.iter().for_each(|path| self.discard(path));
                Err(error)
            }
        }
    }

    fn lock(&self, name: &str, kind: LockKind, wait: bool) -> BackendResult<Locked> {
        let path = self.path(name);
        let held = self.fs.lock(&path, kind, wait).map_err(failed(&path, "locking the store"))?;
        Ok(held.map_or(Locked::Busy, Locked::Held))
    }

    /// The bytes of a whole file, `None` when there is none.
    fn read(&self, path: &Path) -> BackendResult<Option<Vec<u8>>> {
        let file = match self.fs.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed(path, "opening the file"))?,
        };
        file.load().and_then(Bytes::into_vec).map(Some).map_err(failed(path, "reading the file"))
    }

    /// Puts bytes under a key when `replaces` agrees with what is there; called with the lock held.
    fn put_if(
        &self,
        key: &str,
        bytes: &[u8],
        replaces: impl FnOnce(Option<&[u8]>) -> bool,
    ) -> BackendResult<bool> {
        let _held = self.lock(SWAP_LOCK, LockKind::Exclusive, true)?;
        let path = self.path(key);
        if !replaces(self.read(&path)?.as_deref()) {
            return Ok(false);
        }
        for temporary in self.write_temporaries(&[bytes])? {
            self.rename(&temporary, key).inspect_err(|_| self.discard(&temporary))?;
        }
        self.sync_folder(&self.folder(key))?;
        Ok(true)
    }
}

fn tag(bytes: &[u8]) -> Tag {
    Tag(Digest::of(bytes).to_hex())
}

impl Backend for LocalBackend {
    fn place(&self) -> String {
        self.root.path.display().to_string()
    }

    fn prepare(&self, folders: &[&str]) -> BackendResult<()> {
        self.root.refuse_foreign(folders)?;
        let path = &self.root.path;
        let topmost = self.root.make_path(path)?;
        // Somebody else may have made what is above just now: these names should last as well, as far as this user may see to it.
        let others = std::iter::successors(topmost.and_then(above), |folder| above(folder));
        others.for_each(|folder| drop(self.root.fs.sync_folder(folder)));
        folders
            .iter()
            .chain([&TEMPORARY])
            .try_for_each(|folder| self.root.make_folder(&self.root.path(folder)))?;
        self.root.sync_folder(path)
    }

    fn write(&self, objects: &[(&str, &[u8])]) -> BackendResult<()> {
        let root = &*self.root;
        let contents: Vec<&[u8]> = objects.iter().map(|(_, bytes)| *bytes).collect();
        let temporaries = root.write_temporaries(&contents)?;
        let mut folders: Vec<PathBuf> = Vec::new();
        for (at, ((key, _), temporary)) in objects.iter().zip(&temporaries).enumerate() {
            root.rename(temporary, key)
                .inspect_err(|_| temporaries[at..].iter().for_each(|path| root.discard(path)))?;
            let folder = root.folder(key);
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        root.fs.sync_folders(&folders).map_err(failed(&root.path, "syncing folders of the store"))
    }

    fn create(&self, key: &str, bytes: &[u8]) -> BackendResult<bool> {
        self.root.put_if(key, bytes, |there| there.is_none())
    }

    fn upload(&self) -> BackendResult<Box<dyn Upload>> {
        let (path, file) = self.root.temporary()?;
        let root = self.root.clone();
        Ok(Box::new(LocalUpload { root, path, file, begun: 0, flushed: false, sealed: false }))
    }

    fn open(&self, key: &str) -> BackendResult<Arc<dyn Object>> {
        let path = self.root.path(key);
        let file = self.root.fs.open(&path).map_err(failed(&path, "opening the file"))?;
        Ok(Arc::new(LocalObject { path, file }))
    }

    fn read_swapped(&self, key: &str) -> BackendResult<Option<(Vec<u8>, Tag)>> {
        let bytes = self.root.read(&self.root.path(key))?;
        Ok(bytes.map(|bytes| {
            let tag = tag(&bytes);
            (bytes, tag)
        }))
    }

    fn swap(&self, key: &str, expected: Option<&Tag>, bytes: &[u8]) -> BackendResult<bool> {
        self.root.put_if(key, bytes, |there| there.map(tag).as_ref() == expected)
    }

    fn list(&self, folder: &str) -> BackendResult<Vec<Listed>> {
        let path = self.root.path(folder);
        let entries = match self.root.fs.list(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed(&path, "listing the folder"))?,
        };
        let files = entries.into_iter().filter(|entry| !entry.folder);
        let mut listed: Vec<Listed> =
            files.map(|entry| Listed { key: format!("{folder}/{}", entry.name), len: entry.len }).collect();
        listed.sort();
        Ok(listed)
    }

    fn delete(&self, keys: &[&str]) -> BackendResult<()> {
        for key in keys {
            let path = self.root.path(key);
            match self.root.fs.unlink(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done.map_err(failed(&path, "deleting the file"))?,
            }
        }
        Ok(())
    }

    fn unfinished(&self) -> BackendResult<u64> {
        Ok(self.list(TEMPORARY)?.iter().map(|listed| listed.len).sum())
    }

    fn sweep(&self) -> BackendResult<u64> {
        let listed = self.list(TEMPORARY)?;
        let keys: Vec<&str> = listed.iter().map(|listed| listed.key.as_str()).collect();
        self.delete(&keys)?;
        Ok(listed.iter().map(|listed| listed.len).sum())
    }

    fn lock(&self, kind: LockKind, wait: bool) -> BackendResult<Locked> {
        self.root.lock(STORE_LOCK, kind, wait)
    }
}

struct LocalUpload {
    root: Arc<Root>,
    path: PathBuf,
    file: Box<dyn FileHandle>,
    /// Bytes appended since writeback was last started.
    begun: u64,
    flushed: bool,
    sealed: bool,
}

impl Upload for LocalUpload {
    fn append(&mut self, bytes: &[u8]) -> BackendResult<()> {
        self.flushed = false;
        self.file.append(bytes).map_err(failed(&self.path, "writing the file"))?;
        self.begun += bytes.len() as u64;
        if self.begun >= WRITEBACK {
            self.file.start_writeback();
            self.begun = 0;
        }
        Ok(())
    }

    fn flush(&mut self) -> BackendResult<()> {
        self.file.sync().map_err(failed(&self.path, "syncing the file"))?;
        self.flushed = true;
        Ok(())
    }

    fn seal(mut self: Box<Self>, key: &str) -> BackendResult<()> {
        if !self.flushed {
            self.flush()?;
        }
        self.root.rename(&self.path, key)?;
        self.sealed = true;
        self.root.sync_folder(&self.root.folder(key))
    }
}

impl Drop for LocalUpload {
    fn drop(&mut self) {
        if !self.sealed {
            self.root.discard(&self.path);
        }
    }
}

struct LocalObject {
    path: PathBuf,
    file: Box<dyn FileHandle>,
}

impl Object for LocalObject {
    fn len(&self) -> BackendResult<u64> {
        self.file.len().map_err(failed(&self.path, "asking for the file's length"))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> BackendResult<()> {
        self.file.read_at(offset, buf).map_err(failed(&self.path, "reading the file"))
    }

    fn load(&self) -> BackendResult<Bytes> {
        self.file.load().map_err(failed(&self.path, "reading the file"))
    }
}
