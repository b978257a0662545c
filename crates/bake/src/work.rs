//! Folders for work in progress, in the cache.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use sandbox::InMemory;

use crate::{Error, outputs};

/// Longer than any path that the system takes.
const LONGEST_PATH: u64 = 8192;

/// A folder that goes when the work does. While it is in use its lock file, beside it, is held; the kernel lets go of
/// the lock when a process ends in whatever way, so that what an ended process left behind is known and swept.
pub(crate) struct WorkFolder {
    path: PathBuf,
    lock: PathBuf,
    held: File,
    /// Folders in it whose files lie in memory.
    in_memory: Vec<InMemory>,
}

impl WorkFolder {
    /// A new, empty folder in `cache`; `kind` is part of its name.
    pub(crate) fn new(cache: &Path, kind: &str) -> Result<Self, Error> {
        let parent = cache.join("work");
        fs::create_dir_all(&parent).map_err(Error::io(&parent, "cannot be made"))?;
        sweep(&parent);
        let mut number = 0;
        loop {
            let name = format!("{kind}-{}-{number}", std::process::id());
            let (path, lock) = (parent.join(&name), parent.join(format!("{name}.lock")));
            let mut options = File::options();
            let held = options
                .create(true)
                .truncate(false)
                .write(true)
                .open(&lock)
                .map_err(Error::io(&lock, "cannot be made"))?;
            // Locks are not to be had everywhere. Where they are not, nobody sweeps either. And another process may have swept the
            // file away before it was locked.
            let locked = !matches!(held.try_lock(), Err(TryLockError::WouldBlock)) && is_at(&held, &lock);
            // Nobody else may start an image's programs.
            if locked {
                match fs::DirBuilder::new().mode(0o700).create(&path) {
                    Ok(()) => return Ok(Self { path, lock, held, in_memory: Vec::new() }),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(Error::io(path, "cannot be made")(error)),
                }
            }
            number += 1;
        }
    }

    /// Writes down that outputs are made in `making`, so that whoever sweeps this folder takes that one away too.
    pub(crate) fn note(&self, making: &Path) -> Result<(), Error> {
        let path = making.as_os_str().as_bytes();
        let written = self.held.set_len(0).and_then(|()| self.held.write_all_at(path, 0));
        written.map_err(Error::io(&self.lock, "cannot be written"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A new folder in it, for files of up to `size` bytes. They lie in memory where `memory` bytes are enough for them and the
    /// system can do it, else on the disk; whether they do.
    pub(crate) fn quick_folder(
        &mut self,
        name: &str,
        size: u64,
        memory: u64,
    ) -> Result<(PathBuf, bool), Error> {
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(Error::io(&path, "cannot be made"))?;
        let in_memory = (size <= memory).then(|| InMemory::over(&path, memory)).flatten();
        let is_in_memory = in_memory.is_some();
        self.in_memory.extend(in_memory);
        Ok((path, is_in_memory))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        self.in_memory.clear();
        // What stays behind is swept by a later run, which looks where a lock's file is.
        if remove_deep(&self.path).is_ok() {
            let _ = fs::remove_file(&self.lock);
        }
        let _ = self.held.unlock();
    }
}

/// Removes what ended processes left. What cannot be removed is left for another time.
pub(crate) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let lock = entry.path();
        if lock.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(file) = File::open(&lock) else { continue };
        // The lock is held until both are gone, so that nobody begins to work there meanwhile.
        if file.try_lock().is_ok() && is_at(&file, &lock) {
            let mut making = Vec::new();
            if (&file).take(LONGEST_PATH).read_to_end(&mut making).is_ok() && !making.is_empty() {
                outputs::remove_left(Path::new(OsStr::from_bytes(&making)));
            }
            if remove_deep(&lock.with_extension("")).is_ok() {
                let _ = fs::remove_file(&lock);
            }
        }
    }
}

/// How many folders below each other are removed in one go, each with a descriptor of its own.
const DEEP: usize = 100;
/// With a name behind it, such a path is not too long for the system.
const SHORT: usize = 3000;

/// Removes a folder with all below it, however deep: what lies deeper than a process may have files open, or has room for on its
/// stack, is moved up first.
fn remove_deep(top: &Path) -> io::Result<()> {
    let mut moved = 0;
    let mut left: Vec<PathBuf> = Vec::new();
    left.extend(top.symlink_metadata().is_ok_and(|found| found.is_dir()).then(|| top.to_owned()));
    while let Some(folder) = left.pop() {
        // Where something cannot be looked at, the removal tells.
        let _ = raise_deep(top, &folder, 0, &mut moved, &mut left);
    }
    match fs::remove_dir_all(top) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Moves folders that lie deep below `folder` right into `top`, and adds them to what is left to be looked at.
fn raise_deep(
    top: &Path,
    folder: &Path,
    depth: usize,
    moved: &mut usize,
    left: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if depth < DEEP && entry.path().as_os_str().len() < SHORT {
            raise_deep(top, &entry.path(), depth + 1, moved, left)?;
            continue;
        }
        let place = loop {
            *moved += 1;
            let place = top.join(format!("deep-{moved}"));
            if place.symlink_metadata().is_err() {
                break place;
            }
        };
        fs::rename(entry.path(), &place)?;
        left.push(place);
    }
    Ok(())
}

/// Whether an open file is still the one of that name.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(here), Ok(there)) => (here.dev(), here.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_a_process_may_have_files_open_goes_too() {
        let cache = tempfile::tempdir().unwrap();
        let top = cache.path().join("top");
        fs::create_dir(&top).unwrap();
        // Built from the bottom: no path of the system's may be that long.
        let mut below = cache.path().join("below");
        fs::create_dir(&below).unwrap();
        for number in 0..5000 {
            let above = cache.path().join(format!("n{}", number % 2));
            fs::create_dir(&above).unwrap();
            fs::rename(&below, above.join("d")).unwrap();
            below = above;
        }
        fs::rename(&below, top.join("d")).unwrap();
        remove_deep(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn what_an_ended_process_left_is_swept_and_what_is_in_use_stays() {
        let cache = tempfile::tempdir().unwrap();
        let parent = cache.path().join("work");
        fs::create_dir_all(parent.join("bake-1-0/root")).unwrap();
        let out = cache.path().join("out");
        fs::create_dir_all(out.join(".bakehouse-1/x")).unwrap();
        fs::write(parent.join("bake-1-0.lock"), out.join(".bakehouse-1").as_os_str().as_bytes()).unwrap();
        // Only what a bake makes is ever removed, whatever the note says.
        fs::write(parent.join("bake-2-0.lock"), cache.path().as_os_str().as_bytes()).unwrap();
        let first = WorkFolder::new(cache.path(), "bake").unwrap();
        assert!(!out.exists());
        assert!(!parent.join("bake-1-0").exists());
        let second = WorkFolder::new(cache.path(), "bake").unwrap();
        assert!(first.path().is_dir() && second.path().is_dir() && first.path() != second.path());
        // Programs of an image that are set-user-id root can be started by nobody else.
        assert_eq!(fs::metadata(first.path()).unwrap().mode() & 0o7777, 0o700);
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
        drop(second);
        assert_eq!(fs::read_dir(parent).unwrap().count(), 0);
    }
}
