use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tempfile::TempDir;

/// Digits of the key in a tree's name.
pub(crate) const KEY_DIGITS: usize = 12;

/// A folder for a tree in the making, under a name that is nobody else's, in this process or in another that shares the
/// cache. It goes when the work does. While it is in use it is locked; the kernel lets go of the lock when a process ends
/// in whatever way, so that what an ended process left behind is known and swept.
pub(crate) struct Partial {
    folder: TempDir,
    _held: File,
}

impl Partial {
    /// A new, empty folder beside the trees of `parent`, for the tree with this name: `<name>-<key of 12 hexadecimal
    /// digits>`. Sweeps what others left.
    pub(crate) fn new(parent: &Path, tree: &str) -> io::Result<Self> {
        sweep(parent);
        let make = || loop {
            let folder = tempfile::Builder::new()
                .prefix(&format!(".{tree}."))
                // As any folder that a program makes: the process's umask takes its part away.
                .permissions(Permissions::from_mode(0o777))
                .tempdir_in(parent)?;
            let held = match File::open(folder.path()) {
                Ok(held) => held,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match held.try_lock() {
                // Locks are not to be had everywhere. Where they are not, nobody sweeps either.
                Ok(()) | Err(TryLockError::Error(_)) => {}
                Err(TryLockError::WouldBlock) => continue,
            }
            // Somebody may have swept it before it was locked.
            if held.metadata()?.nlink() > 0 {
                return Ok(Self { folder, _held: held });
            }
        };
        make()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the unfinished trees of ended processes. What cannot be removed is left for another time.
pub fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(is_partial) {
            continue;
        }
        let path = entry.path();
        if let Ok(folder) = File::open(&path)
            && folder.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Whether this is the name of an unfinished tree: `.<set>-<key>.<anything>`.
fn is_partial(name: &str) -> bool {
    let tree = name.strip_prefix('.').and_then(|name| name.split_once('.')).map(|(tree, _)| tree);
    tree.and_then(|tree| tree.rsplit_once('-'))
        .is_some_and(|(_, key)| key.len() == KEY_DIGITS && key.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ended_process_left_is_swept_and_what_is_in_use_stays() {
        let cache = tempfile::tempdir().unwrap();
        let left = cache.path().join(".boot-0123456789ab.1");
        let tree = cache.path().join("boot-0123456789ab");
        let others =
            [".snapshot", ".boot", ".boot-0123456789ab", ".a-b.c"].map(|name| cache.path().join(name));
        for folder in others.iter().chain([&left, &tree]) {
            fs::create_dir_all(folder.join("root")).unwrap();
        }
        let first = Partial::new(cache.path(), "boot-0123456789ab").unwrap();
        assert!(!left.exists());
        let second = Partial::new(cache.path(), "boot-0123456789ab").unwrap();
        assert!(first.path().is_dir() && second.path().is_dir() && first.path() != second.path());
        assert!(others.iter().chain([&tree]).all(|folder| folder.join("root").is_dir()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(first.path()), mode(&tree));
        let paths = [first.path().to_owned(), second.path().to_owned()];
        drop((first, second));
        assert!(paths.iter().all(|path| !path.exists()));
    }
}
