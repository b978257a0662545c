use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// More than any machine's renames can be in the way of.
const TRIES: u32 = 10_000;

/// `openat2`, tried again where the kernel asks for that.
///
/// On the way through `..` the kernel must be sure that the way does not lead out of `folder`. When anything at all is renamed or mounted
/// meanwhile, anywhere on the machine, it is not, and says EAGAIN: a link such as `/usr/sbin/depmod -> ../bin/kmod` is enough.
pub fn open_below(
    folder: impl AsFd,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = Path::new(OsStr::from_bytes(path));
    let mut tries = 0;
    loop {
        tries += 1;
        match rustix::fs::openat2(&folder, path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Without a second try several of a hundred looks fail here.
    #[test]
    fn renames_elsewhere_are_not_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(root.join("usr/bin/kmod"), "").unwrap();
        std::os::unix::fs::symlink("../bin/kmod", root.join("usr/sbin/depmod")).unwrap();
        fs::write(other.join("a"), "").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(other.join("a"), other.join("b")).unwrap();
                    fs::rename(other.join("b"), other.join("a")).unwrap();
                }
            });
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::openat(rustix::fs::CWD, &root, flags, Mode::empty()).unwrap();
            let look = |_| {
                let (flags, resolve) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::IN_ROOT);
                open_below(&root, b"usr/sbin/depmod", flags, Mode::empty(), resolve).err()
            };
            let failed: Vec<Errno> = (0..20_000).filter_map(look).collect();
            done.store(true, Ordering::Relaxed);
            assert_eq!(failed, []);
        });
    }
}
