use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use block::Digest;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW};

use super::{DEFLATE, GrainCache};
use crate::Error;

/// Larger than any entry: eight grains that do not compress, and what is around them.
const MAX_ENTRY: u64 = 530_000;

/// Compressed blocks in a folder, one file each: `<library>-<version>-<level>/<2 digits>/<62 digits of the block's digest>`.
///
/// Entries appear whole, so any number of writers, in any number of programs, may share the folder. Beyond its size the
/// entries that were unused longest go away, also those of other compressors. Programs that fill it at the same time
/// may pass the size until the next of them tidies up.
#[derive(Debug)]
pub struct FileGrainCache {
    folder: PathBuf,
    max_bytes: u64,
    /// Bytes in the folder as far as known; unknown until something is put.
    used: Mutex<Option<u64>>,
}

impl FileGrainCache {
    /// A cache in `folder`, which is made if need be, of at most `max_bytes`.
    pub fn open(folder: &Path, max_bytes: u64) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(|source| Error::Io {
            path: folder.to_owned(),
            action: "making the folder of compressed blocks",
            source,
        })?;
        Ok(Self { folder: folder.to_owned(), max_bytes, used: Mutex::new(None) })
    }

    fn entry_path(&self, block: &Digest) -> PathBuf {
        let (library, version, level) = DEFLATE;
        let digits = block.to_hex();
        self.folder.join(format!("{library}-{version}-{level}/{}/{}", &digits[..2], &digits[2..]))
    }

    fn write(&self, path: &Path, entry: &[u8]) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(".").suffix(".part").tempfile_in(folder)?;
        file.write_all(entry)?;
        file.persist(path)?;
        Ok(())
    }

    /// All files of the cache, and how many bytes they take.
    fn entries(&self) -> (Vec<Entry>, u64) {
        let compressors = files_in(&self.folder).filter(|(name, _)| name.contains('-'));
        let folders = compressors.flat_map(|(_, path)| files_in(&path)).filter(|(name, _)| name.len() == 2);
        let files = folders.flat_map(|(_, path)| files_in(&path));
        let entries: Vec<Entry> = files
            .filter(|(name, _)| name.len() == 62 || name.ends_with(".part"))
            .filter_map(|(_, path)| {
                let metadata = path.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
                Some(Entry { used: metadata.modified().ok()?, path, len: metadata.len() })
            })
            .collect();
        let bytes = entries.iter().map(|entry| entry.len).sum();
        (entries, bytes)
    }

    /// Removes what was unused longest until a quarter of the size is free; how many bytes stay.
    fn tidy(&self) -> u64 {
        let (mut entries, mut used) = self.entries();
        if used <= self.max_bytes {
            return used;
        }
        entries.sort();
        for entry in entries {
            if used <= self.max_bytes / 4 * 3 {
                break;
            }
            // Another program may have been faster.
            let _ = std::fs::remove_file(&entry.path);
            used -= entry.len;
        }
        used
    }
}

/// A file of the cache; the one unused longest comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    used: SystemTime,
    path: PathBuf,
    len: u64,
}

/// Names and paths in a folder; nothing when it cannot be read.
fn files_in(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

impl GrainCache for FileGrainCache {
    fn get(&self, block: &Digest) -> Option<Vec<u8>> {
        let file = File::open(self.entry_path(block)).ok()?;
        let mut entry = Vec::new();
        (&file).take(MAX_ENTRY).read_to_end(&mut entry).ok()?;
        // Only the order of leaving depends on it.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let _ = rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
        Some(entry)
    }

    fn put(&self, block: &Digest, entry: &[u8]) {
        let len = entry.len() as u64;
        if len > self.max_bytes || self.write(&self.entry_path(block), entry).is_err() {
            return;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = match *used {
            Some(used) if used + len <= self.max_bytes => Some(used + len),
            _ => Some(self.tidy()),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn block(number: u32) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    #[test]
    fn what_is_put_is_there_for_other_users_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let cache = FileGrainCache::open(&folder.path().join("a/b"), 1000).unwrap();
        assert_eq!(cache.get(&block(1)), None);
        cache.put(&block(1), b"one");
        cache.put(&block(1), b"two");
        let other = FileGrainCache::open(&folder.path().join("a/b"), 1000).unwrap();
        assert_eq!(other.get(&block(1)).unwrap(), b"two");
        assert_eq!(cache.entries().1, 3, "no part of a file stays behind");
    }

    #[test]
    fn beyond_its_size_the_entries_unused_longest_go() {
        let folder = tempfile::tempdir().unwrap();
        let cache = FileGrainCache::open(folder.path(), 1000).unwrap();
        for number in 0..10 {
            cache.put(&block(number), &[1; 100]);
            let file = File::options().write(true).open(cache.entry_path(&block(number))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(number))).unwrap();
        }
        assert_eq!(cache.entries().1, 1000);
        // Using the oldest makes it the newest.
        assert!(cache.get(&block(0)).is_some());
        let foreign = folder.path().join("notes.txt");
        std::fs::write(&foreign, [0; 5000]).unwrap();
        cache.put(&block(10), &[1; 100]);
        assert!(cache.entries().1 <= 750);
        let left: Vec<u32> = (0..=10).filter(|number| cache.get(&block(*number)).is_some()).collect();
        assert_eq!(left, [0, 5, 6, 7, 8, 9, 10]);
        assert!(foreign.exists());
        cache.put(&block(11), &[1; 1001]);
        assert_eq!(cache.get(&block(11)), None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_empty_cache() {
        let folder = tempfile::tempdir().unwrap();
        let cache = FileGrainCache::open(folder.path(), 1000).unwrap();
        drop(folder);
        std::fs::write(&cache.folder, b"in the way").unwrap();
        cache.put(&block(1), b"one");
        assert_eq!(cache.get(&block(1)), None);
        assert!(FileGrainCache::open(&cache.folder, 1000).is_err());
        std::fs::remove_file(&cache.folder).unwrap();
    }

    #[test]
    fn many_writers_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let caches = [(); 4].map(|()| FileGrainCache::open(folder.path(), 20_000).unwrap());
        std::thread::scope(|scope| {
            for cache in &caches {
                scope.spawn(move || {
                    for number in 0..100 {
                        cache.put(&block(number), &[number as u8; 300]);
                        let found = cache.get(&block(number));
                        assert!(found.is_none_or(|entry| entry == [number as u8; 300]));
                    }
                });
            }
        });
        caches[0].put(&block(0), &[0; 300]);
        caches[0].tidy();
        assert!(caches[0].entries().1 <= 20_000);
    }
}
