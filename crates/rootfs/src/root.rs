//! Files inside the root that is being made. Every path is resolved by the kernel as a program inside would see it:
//! links lead nowhere but inside (`openat2` with `RESOLVE_IN_ROOT`).

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::error::{Error, OnFile};

/// The largest file that is read whole.
const MOST_READ: u64 = 256 << 20;

/// The root folder. Paths are relative to it; a leading slash means nothing.
pub(crate) struct Root {
    path: PathBuf,
    fd: OwnedFd,
    last_parent: RefCell<Option<(Vec<u8>, std::rc::Rc<OwnedFd>)>>,
}

/// Owner, mode and time of a file to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .on("cannot open", path)?;
        Ok(Self { path: path.into(), fd, last_parent: RefCell::new(None) })
    }

    /// Where the root is on the host.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn openat(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = relative(path);
        let path = if path.is_empty() { b"." } else { path };
        sandbox::open_below(&self.fd, path, flags | OFlags::CLOEXEC, mode, ResolveFlags::IN_ROOT)
    }

    /// The folder that holds `path`, links followed, and the last name.
    pub(crate) fn parent<'p>(&self, path: &'p [u8]) -> Result<(std::rc::Rc<OwnedFd>, &'p Path), Errno> {
        let path = relative(path);
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        let name = Path::new(std::ffi::OsStr::from_bytes(name));
        if let Some((last, fd)) = &*self.last_parent.borrow()
            && last == folder
        {
            return Ok((fd.clone(), name));
        }
        let fd = std::rc::Rc::new(self.openat(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?);
        *self.last_parent.borrow_mut() = Some((folder.to_vec(), fd.clone()));
        Ok((fd, name))
    }

    /// Forgets where folders were: to be called after anybody else may have moved them.
    pub(crate) fn forget(&self) {
        *self.last_parent.borrow_mut() = None;
    }

    /// What is at `path`; a link is not followed. `None` when nothing is there.
    pub(crate) fn lstat(&self, path: &[u8]) -> Result<Option<Stat>, Error> {
        if relative(path).is_empty() {
            return rustix::fs::fstat(&self.fd).map(Some).on("cannot look at", "/");
        }
        match self.parent(path).and_then(|(fd, name)| rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW))
        {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error).on("cannot look at", shown(path)),
        }
    }

    /// What `path` leads to, links followed inside the root.
    pub(crate) fn stat(&self, path: &[u8]) -> Result<Option<Stat>, Error> {
        match self.openat(path, OFlags::PATH, Mode::empty()).and_then(|fd| rustix::fs::fstat(&fd)) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error).on("cannot look at", shown(path)),
        }
    }

    pub(crate) fn exists(&self, path: &[u8]) -> Result<bool, Error> {
        Ok(self.stat(path)?.is_some())
    }

    /// All bytes of a file, `None` when there is none. Scripts may have left anything there: a pipe is not waited for, and a
    /// file larger than any that is read here is an error.
    pub(crate) fn read(&self, path: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let fd = match self.openat(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error).on("cannot read", shown(path)),
        };
        let stat = rustix::fs::fstat(&fd).on("cannot read", shown(path))?;
        let refuse = |what: &str| Err(std::io::Error::other(what.to_owned())).on("cannot read", shown(path));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR).on("cannot read", shown(path)),
            _ => return refuse("it is no regular file"),
        }
        let mut bytes = Vec::new();
        File::from(fd).take(MOST_READ + 1).read_to_end(&mut bytes).on("cannot read", shown(path))?;
        if bytes.len() as u64 > MOST_READ {
            return refuse("it is larger than 256 MiB");
        }
        Ok(Some(bytes))
    }

    /// A text file, empty when there is none.
    pub(crate) fn read_text(&self, path: &[u8]) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.read(path)?.unwrap_or_default()).into_owned())
    }

    /// Writes a file, in place of what was there; links on the way are followed, the last name is not.
    pub(crate) fn write(&self, path: &[u8], bytes: &[u8], attributes: Attributes) -> Result<(), Error> {
        self.write_inner(path, bytes, attributes).on("cannot write", shown(path))
    }

    /// A new file, in place of what was there.
    fn create(&self, path: &[u8]) -> Result<File, Errno> {
        let (fd, name) = self.parent(path)?;
        match rustix::fs::unlinkat(&*fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&*fd, name, flags, Mode::from_raw_mode(0o600))?.into())
    }

    fn write_inner(&self, path: &[u8], bytes: &[u8], attributes: Attributes) -> Result<(), std::io::Error> {
        let mut file = self.create(path)?;
        file.write_all(bytes)?;
        set_file(file.as_fd(), attributes)?;
        Ok(())
    }

    /// Copies a file of the host to `path`, in place of what was there.
    pub(crate) fn copy_in(&self, from: &Path, path: &[u8], attributes: Attributes) -> Result<(), Error> {
        let mut source = File::open(from).on("cannot read", from)?;
        let mut copy = || -> Result<(), std::io::Error> {
            let mut file = self.create(path)?;
            std::io::copy(&mut source, &mut file)?;
            set_file(file.as_fd(), attributes)?;
            Ok(())
        };
        copy().on("cannot write", shown(path))
    }

    /// Replaces a file's bytes, keeping owner and mode; a new file gets `attributes`.
    pub(crate) fn rewrite(&self, path: &[u8], bytes: &[u8], attributes: Attributes) -> Result<(), Error> {
        let attributes = match self.lstat(path)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Attributes { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, ..attributes }
            }
            _ => attributes,
        };
        self.write(path, bytes, attributes)
    }

    /// Makes a folder and those above it that are missing; what is there stays as it is. Says whether it is new.
    pub(crate) fn make_folders(&self, path: &[u8], attributes: Attributes) -> Result<bool, Error> {
        let path = relative(path);
        let mut new = false;
        for end in
            path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()])
        {
            if end > 0 {
                new = self.make_folder(&path[..end], attributes)?;
            }
        }
        Ok(new)
    }

    /// Makes one folder; an existing one, or a link to one, stays as it is. Says whether it is new.
    pub(crate) fn make_folder(&self, path: &[u8], attributes: Attributes) -> Result<bool, Error> {
        let make = || -> Result<bool, Errno> {
            let (fd, name) = self.parent(path)?;
            match rustix::fs::mkdirat(&*fd, name, Mode::from_raw_mode(0o700)) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    let there = self.openat(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
                    return there.map(|_| false);
                }
                Err(error) => return Err(error),
            }
            self.set(path, attributes)?;
            Ok(true)
        };
        make().on("cannot make the folder", shown(path))
    }

    /// Sets owner, mode and time of what is at `path`, without following a link.
    fn set(&self, path: &[u8], attributes: Attributes) -> Result<(), Errno> {
        let (fd, name) = self.parent(path)?;
        let entry = Entry::open(&*fd, name)?;
        entry.own(attributes)?;
        match &entry.by_number {
            // The time of a link is not worth a way of its own; whatever lies there now, it is in the root.
            None => rustix::fs::utimensat(&*fd, name, &times(attributes.mtime), AtFlags::SYMLINK_NOFOLLOW),
            Some(path) => rustix::fs::utimensat(CWD, path, &times(attributes.mtime), AtFlags::empty()),
        }
    }

    /// Sets owner, mode and time of what is at `path`, without following a link.
    pub(crate) fn set_attributes(&self, path: &[u8], attributes: Attributes) -> Result<(), Error> {
        self.set(path, attributes).on("cannot set owner and mode of", shown(path))
    }

    /// Makes a symbolic link, in place of a file that was there.
    pub(crate) fn symlink(&self, target: &[u8], path: &[u8], attributes: Attributes) -> Result<(), Error> {
        let make = || -> Result<(), Errno> {
            let (fd, name) = self.parent(path)?;
            match rustix::fs::unlinkat(&*fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
            rustix::fs::symlinkat(Path::new(std::ffi::OsStr::from_bytes(target)), &*fd, name)?;
            self.set(path, attributes)
        };
        make().on("cannot make the link", shown(path))
    }

    /// Takes away a file or link; whether there was one.
    pub(crate) fn remove(&self, path: &[u8]) -> Result<bool, Error> {
        match self.parent(path).and_then(|(fd, name)| rustix::fs::unlinkat(&*fd, name, AtFlags::empty())) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error).on("cannot remove", shown(path)),
        }
    }

    /// Takes away a folder with all below it, a file or a link; whether there was one.
    pub(crate) fn remove_all(&self, path: &[u8]) -> Result<bool, Error> {
        let Some(stat) = self.lstat(path)? else { return Ok(false) };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.empty(path)?;
            self.forget();
            let (fd, name) = self.parent(path).on("cannot remove", shown(path))?;
            rustix::fs::unlinkat(&*fd, name, AtFlags::REMOVEDIR).on("cannot remove", shown(path))?;
            return Ok(true);
        }
        self.remove(path)
    }

    /// Takes away all that a folder holds.
    pub(crate) fn empty(&self, path: &[u8]) -> Result<(), Error> {
        for name in self.list(path)? {
            self.remove_all(&[relative(path), b"/", &name].concat())?;
        }
        Ok(())
    }

    /// The names in a folder, sorted; none when there is no such folder.
    pub(crate) fn list(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let fd = match self.openat(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(error) => return Err(error).on("cannot list", shown(path)),
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(fd).on("cannot list", shown(path))? {
            let entry = entry.on("cannot list", shown(path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Where a link leads, `None` when there is no link.
    pub(crate) fn read_link(&self, path: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.parent(path).and_then(|(fd, name)| rustix::fs::readlinkat(&*fd, name, Vec::new())) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::INVAL) => Ok(None),
            Err(error) => Err(error).on("cannot read the link", shown(path)),
        }
    }
}

/// Something in the root that stays the same while it is changed, whoever puts something else under its name meanwhile:
/// programs of the root may run beside, and chmod(2) would follow a link of theirs to wherever it leads on the host.
pub(crate) struct Entry {
    fd: OwnedFd,
    /// How system calls name it that take no descriptor without rights; `None` for a symbolic link.
    by_number: Option<PathBuf>,
}

impl Entry {
    /// What is under a name of an open folder now; a link is not followed.
    pub(crate) fn open(folder: impl AsFd, name: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(folder, name, flags, Mode::empty())?;
        let is_link = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == FileType::Symlink;
        let by_number = (!is_link).then(|| format!("/proc/self/fd/{}", fd.as_raw_fd()).into());
        Ok(Self { fd, by_number })
    }

    /// Sets owner and mode; owner first, for chown clears the set-user-id bits. A link has no mode.
    pub(crate) fn own(&self, attributes: Attributes) -> Result<(), Errno> {
        let (owner, group) = (Some(uid(attributes.uid)), Some(gid(attributes.gid)));
        rustix::fs::chownat(&self.fd, "", owner, group, AtFlags::EMPTY_PATH)?;
        match &self.by_number {
            None => Ok(()),
            Some(path) => rustix::fs::chmod(path, Mode::from_raw_mode(attributes.mode)),
        }
    }
}

/// Sets owner, mode and time of an open file; owner first, for chown clears the set-user-id bits.
pub(crate) fn set_file(fd: std::os::fd::BorrowedFd<'_>, attributes: Attributes) -> Result<(), Errno> {
    rustix::fs::fchown(fd, Some(uid(attributes.uid)), Some(gid(attributes.gid)))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(attributes.mode))?;
    rustix::fs::futimens(fd, &times(attributes.mtime))
}

pub(crate) fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

pub(crate) fn uid(raw: u32) -> Uid {
    Uid::from_raw(raw)
}

pub(crate) fn gid(raw: u32) -> Gid {
    Gid::from_raw(raw)
}

fn relative(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    &path[start..]
}

/// A path of the root as errors show it.
pub(crate) fn shown(path: &[u8]) -> PathBuf {
    Path::new("/").join(std::ffi::OsStr::from_bytes(relative(path)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn own() -> Attributes {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Attributes { mode: 0o755, uid, gid, mtime: 1_000_000_000 }
    }

    #[test]
    fn who_puts_a_link_under_a_name_meanwhile_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let (root, secret) = (folder.path().join("root"), folder.path().join("secret"));
        std::fs::create_dir_all(root.join("d")).unwrap();
        std::fs::write(&secret, "").unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let opened = Root::open(&root).unwrap();
        let (fd, name) = opened.parent(b"d").unwrap();
        let entry = Entry::open(&*fd, name).unwrap();
        std::fs::rename(root.join("d"), root.join("was-d")).unwrap();
        symlink(&secret, root.join("d")).unwrap();
        entry.own(Attributes { mode: 0o701, ..own() }).unwrap();
        assert_eq!((mode(&secret), mode(&root.join("was-d"))), (0o600, 0o701));
        // What is a link from the beginning has no mode, and keeps its own time.
        opened.set_attributes(b"d", own()).unwrap();
        assert_eq!(mode(&secret), 0o600);
        assert!(
            std::fs::symlink_metadata(root.join("d")).unwrap().modified().unwrap()
                < std::fs::metadata(&secret).unwrap().modified().unwrap()
        );
    }

    #[test]
    fn what_scripts_leave_is_neither_waited_for_nor_read_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let at = |name: &str| folder.path().join(name);
        rustix::fs::mkfifoat(CWD, at("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        symlink("pipe", at("link")).unwrap();
        File::create(at("huge")).unwrap().set_len(MOST_READ + 1).unwrap();
        std::fs::write(at("file"), "text").unwrap();
        for (name, words) in [
            ("pipe", "it is no regular file"),
            ("link", "it is no regular file"),
            ("huge", "it is larger than 256 MiB"),
        ] {
            let error = root.read(name.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(root.read(b"file").unwrap().unwrap(), b"text");
        assert_eq!(root.read(b"none").unwrap(), None);
    }
}
