//! Files kept by their SHA-256, so that nothing is downloaded twice.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use block::{Digest, Hasher};
use tempfile::NamedTempFile;

/// How the names of unfinished files begin.
const PART: &str = "part-";

/// A folder of verified files, named by their SHA-256. Several processes may share it.
///
/// A file gets its name only when it is whole and its hash was checked, and it is checked again the first time that
/// a process uses it: a damaged file is removed and counts as missing.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    checked: Mutex<HashSet<Digest>>,
}

/// The cache's folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {action}: {error}{}", path.display(), advice(error))]
pub struct CacheError {
    /// The file or folder.
    pub path: PathBuf,
    /// What was tried.
    pub action: &'static str,
    /// What the system said.
    #[source]
    pub error: io::Error,
}

/// What to do about it, where that is known.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". Make room there, or name a cache folder on another disk in BAKEHOUSE_CACHE"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ". Make the folder writable for this user, or name another cache folder in BAKEHOUSE_CACHE"
        }
        _ => "",
    }
}

/// A file on its way into the cache; it is gone when this is dropped. While it is in use it is locked; the kernel lets go
/// of the lock when a process ends in whatever way, so that what an ended process left behind is known and swept.
#[derive(Debug)]
pub struct Incoming {
    file: NamedTempFile,
}

impl Incoming {
    /// The file to write to, positioned where the last writer left it.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Where the file is for now.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Cache {
    /// Opens the cache in `folder`, which is made when missing.
    pub fn open(folder: &Path) -> Result<Self, CacheError> {
        let cache = Self { folder: folder.to_owned(), checked: Mutex::default() };
        for folder in [cache.by_hash(), cache.incoming()] {
            fs::create_dir_all(&folder).map_err(|error| CacheError {
                path: folder,
                action: "cannot make the folder",
                error,
            })?;
        }
        cache.sweep();
        Ok(cache)
    }

    /// Removes the unfinished files of ended processes. What cannot be removed is left for another time.
    fn sweep(&self) {
        for entry in fs::read_dir(self.incoming()).into_iter().flatten().flatten() {
            if !entry.file_name().as_encoded_bytes().starts_with(PART.as_bytes()) {
                continue;
            }
            let path = entry.path();
            // The lock is held until the file is gone: whoever waits for it sees that.
            if let Ok(file) = File::open(&path)
                && file.try_lock().is_ok()
            {
                let _ = fs::remove_file(&path);
            }
        }
    }

    fn by_hash(&self) -> PathBuf {
        self.folder.join("by-hash").join("sha256")
    }

    fn incoming(&self) -> PathBuf {
        self.folder.join("incoming")
    }

    /// Where a note with this name is, or would be: something small that is worth remembering and is no content.
    pub fn note_path(&self, name: Digest) -> PathBuf {
        self.folder.join("notes").join(name.to_hex())
    }

    /// The bytes of a note. It may be damaged: whoever reads it must be able to tell.
    pub fn note(&self, name: Digest) -> Option<Vec<u8>> {
        fs::read(self.note_path(name)).ok()
    }

    /// Writes a note, in place of an earlier one of that name.
    pub fn put_note(&self, name: Digest, bytes: &[u8]) -> Result<(), CacheError> {
        let path = self.note_path(name);
        let folder = self.folder.join("notes");
        fs::create_dir_all(&folder).map_err(|error| CacheError {
            path: folder,
            action: "cannot make the folder",
            error,
        })?;
        let mut incoming = self.begin()?;
        let fail = |action, error| CacheError { path: path.clone(), action, error };
        incoming.file().write_all(bytes).map_err(|error| fail("cannot be written", error))?;
        incoming.file.persist(&path).map_err(|error| fail("cannot be put in its place", error.error))?;
        Ok(())
    }

    /// Where the file with this hash is, or would be.
    pub fn path(&self, sha256: Digest) -> PathBuf {
        self.by_hash().join(sha256.to_hex())
    }

    /// The file with this hash and size, if it is here and undamaged.
    pub fn get(&self, sha256: Digest, size: u64) -> Result<Option<PathBuf>, CacheError> {
        let path = self.path(sha256);
        let fail = |action, error| CacheError { path: path.clone(), action, error };
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail("cannot be looked at", error)),
            Ok(metadata) => {
                let known = self.checked.lock().is_ok_and(|checked| checked.contains(&sha256));
                if metadata.len() == size && known {
                    return Ok(Some(path));
                }
            }
        }
        let found = hash_file(&path).map_err(|error| fail("cannot be read", error))?;
        if found == (sha256, size) {
            self.remember(sha256);
            return Ok(Some(path));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(fail("is damaged and cannot be removed", error))
            }
            _ => Ok(None),
        }
    }

    fn remember(&self, sha256: Digest) {
        // A poisoned lock only means that the file is hashed once more.
        if let Ok(mut checked) = self.checked.lock() {
            checked.insert(sha256);
        }
    }

    /// A new, empty file to write to before its hash is known to be right.
    pub fn begin(&self) -> Result<Incoming, CacheError> {
        let folder = self.incoming();
        let begin = || loop {
            let file = tempfile::Builder::new().prefix(PART).tempfile_in(&folder)?;
            match file.as_file().try_lock() {
                // Locks are not to be had everywhere. Where they are not, nobody sweeps either.
                Ok(()) | Err(TryLockError::Error(_)) => {}
                Err(TryLockError::WouldBlock) => continue,
            }
            // Somebody may have swept it before it was locked.
            if file.as_file().metadata()?.nlink() > 0 {
                return Ok(Incoming { file });
            }
        };
        begin().map_err(|error| CacheError {
            path: folder.clone(),
            action: "cannot make a file in it",
            error,
        })
    }

    /// Gives a whole file its name. The caller vouches that its SHA-256 was computed from the bytes written and
    /// is `sha256`.
    pub fn commit(&self, mut incoming: Incoming, sha256: Digest) -> Result<PathBuf, CacheError> {
        let path = self.path(sha256);
        let fail = |action, error| CacheError { path: path.clone(), action, error };
        incoming.file().flush().map_err(|error| fail("cannot be written", error))?;
        incoming.file.persist(&path).map_err(|error| fail("cannot be put in its place", error.error))?;
        self.remember(sha256);
        Ok(path)
    }

    /// Keeps bytes that are in memory; returns where.
    pub fn put(&self, bytes: &[u8]) -> Result<PathBuf, CacheError> {
        let sha256 = Digest::of(bytes);
        let mut incoming = self.begin()?;
        let path = incoming.path().to_owned();
        incoming.file().write_all(bytes).map_err(|error| CacheError {
            path,
            action: "cannot be written",
            error,
        })?;
        self.commit(incoming, sha256)
    }
}

/// The SHA-256 and the length of a file.
pub(crate) fn hash_file(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        let got = match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..got]);
        size += got as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_counts_as_missing() {
        let folder = tempfile::tempdir().unwrap();
        let id = Digest::of(b"hello");
        let path = Cache::open(folder.path()).unwrap().put(b"hello").unwrap();
        assert_eq!(Cache::open(folder.path()).unwrap().get(id, 5).unwrap(), Some(path.clone()));
        assert_eq!(Cache::open(folder.path()).unwrap().get(Digest::of(b"x"), 1).unwrap(), None);
        fs::write(&path, b"hellO").unwrap();
        assert_eq!(Cache::open(folder.path()).unwrap().get(id, 5).unwrap(), None);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_not_committed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let incoming = cache.begin().unwrap();
        let path = incoming.path().to_owned();
        assert!(path.exists());
        drop(incoming);
        assert!(!path.exists());
    }
    #[test]
    fn what_an_ended_process_left_is_swept_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let left = folder.path().join("incoming/part-left");
        let strange = folder.path().join("incoming/README");
        fs::write(&left, b"half").unwrap();
        fs::write(&strange, b"not ours").unwrap();
        let mut incoming = cache.begin().unwrap();
        let other = Cache::open(folder.path()).unwrap();
        assert!(!left.exists());
        assert!(incoming.path().exists() && strange.exists());
        incoming.file().write_all(b"whole").unwrap();
        let path = cache.commit(incoming, Digest::of(b"whole")).unwrap();
        assert_eq!(other.get(Digest::of(b"whole"), 5).unwrap(), Some(path));
    }
}
