use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::{self, Errno};

/// What lies at a mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File,
}

/// Mount points that were made in a root folder. Dropped, it takes them away again and gives the folders that hold
/// them their times back, unless something else has changed there meanwhile.
pub(crate) struct MountPoints {
    root: OwnedFd,
    made: Vec<Made>,
}

struct Made {
    parent: OwnedFd,
    name: CString,
    kind: Kind,
    /// The parent's last change before and after the name was made.
    before: Timespec,
    after: Timespec,
}

fn modified(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ }
}

impl MountPoints {
    /// For a root folder.
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::openat(CWD, root, flags, Mode::empty())?, made: Vec::new() })
    }

    /// Opens a path as a process sees it whose root is the root folder: links cannot lead out.
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        crate::open_below(&self.root, path.as_os_str().as_bytes(), flags, Mode::empty(), resolve)
    }

    /// Whether there is something at a path.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.open(path).is_ok()
    }

    /// Makes what is missing of a path (absolute, without `..`), folders above it included. Fails when there is
    /// something of another kind.
    pub(crate) fn ensure(&mut self, path: &Path, kind: Kind) -> io::Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        if let Ok(there) = self.open(path) {
            let folder = FileType::from_raw_mode(rustix::fs::fstat(&there)?.st_mode).is_dir();
            return match (kind, folder) {
                (Kind::Folder, false) => Err(Errno::NOTDIR),
                (Kind::File, true) => Err(Errno::ISDIR),
                _ => Ok(()),
            };
        }
        let mut parent = self.open(Path::new(""))?;
        let mut so_far = std::path::PathBuf::new();
        let count = path.components().count();
        for (index, name) in path.components().enumerate() {
            let name: &OsStr = name.as_os_str();
            so_far.push(name);
            let kind = if index + 1 == count { kind } else { Kind::Folder };
            parent = match self.open(&so_far) {
                Err(Errno::NOENT) => {
                    self.make(parent, name, kind)?;
                    self.open(&so_far)?
                }
                result => result?,
            };
        }
        Ok(())
    }

    fn make(&mut self, parent: OwnedFd, name: &OsStr, kind: Kind) -> io::Result<()> {
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
        let before = modified(&rustix::fs::fstat(&parent)?);
        match kind {
            Kind::Folder => rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?,
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o644))?;
            }
        }
        let after = modified(&rustix::fs::fstat(&parent)?);
        self.made.push(Made { parent, name, kind, before, after });
        Ok(())
    }
}

impl Made {
    fn take_away(&self) -> io::Result<()> {
        let now = modified(&rustix::fs::fstat(&self.parent)?);
        let flags = if self.kind == Kind::Folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(&self.parent, &self.name, flags)?;
        if now == self.after {
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT as _ },
                last_modification: self.before,
            };
            let parent = rustix::fs::openat(
                self.parent.as_fd(),
                c".",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            rustix::fs::futimens(parent, &times)?;
        }
        Ok(())
    }
}

impl Drop for MountPoints {
    fn drop(&mut self) {
        for made in self.made.iter().rev() {
            // A folder that the program has filled through another path stays, with what is in it.
            let _ = made.take_away();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_was_made_is_taken_away_and_times_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("etc")).unwrap();
        let time = |path: &str| {
            let meta = fs::metadata(root.join(path)).unwrap();
            (meta.mtime(), meta.mtime_nsec())
        };
        let before = (time(""), time("etc"));
        let mut points = MountPoints::new(root).unwrap();
        points.ensure(Path::new("/proc"), Kind::Folder).unwrap();
        points.ensure(Path::new("/etc/deep/er/file"), Kind::File).unwrap();
        assert!(root.join("etc/deep/er/file").is_file());
        assert!(root.join("proc").is_dir());
        drop(points);
        assert_eq!(fs::read_dir(root).unwrap().count(), 1);
        assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 0);
        assert_eq!((time(""), time("etc")), before);
    }

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("up")).unwrap();
        let mut points = MountPoints::new(&root).unwrap();
        assert!(points.ensure(Path::new("/absolute/file"), Kind::File).is_err());
        assert!(points.ensure(Path::new("/up/file"), Kind::File).is_err());
        drop(points);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
