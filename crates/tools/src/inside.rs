use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tree::TreePath;

/// A folder below which everything stays that is written through this: the kernel resolves each path from the open
/// folder on, through real folders alone, and no link that is made leads outside. That holds while other threads
/// write into the same folder in the same way.
pub struct Inside {
    root: OwnedFd,
    made: HashSet<TreePath>,
    last: Option<(TreePath, Rc<OwnedFd>)>,
}

impl Inside {
    /// The folder, which must be there.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(root, flags, Mode::empty())?, made: HashSet::new(), last: None })
    }

    /// Makes a folder and those above it that are missing. Where a symbolic link lies it may take the folder's place.
    pub fn make_folder(&mut self, path: &TreePath) -> io::Result<()> {
        let Some(parent) = path.parent().filter(|_| !self.made.contains(path)) else { return Ok(()) };
        let above = self.folder(&parent)?;
        match rustix::fs::mkdirat(&*above, name(path), Mode::from_raw_mode(0o777)) {
            Ok(()) => {}
            Err(Errno::EXIST) => match kind(&above, path)? {
                FileType::Directory => {}
                FileType::Symlink => return Ok(()),
                _ => return Err(Errno::NOTDIR.into()),
            },
            Err(error) => return Err(error.into()),
        }
        self.made.insert(path.clone());
        Ok(())
    }

    /// An open folder, made when it is missing. No name of its path is a symbolic link.
    fn folder(&mut self, path: &TreePath) -> io::Result<Rc<OwnedFd>> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(fd));
        }
        self.make_folder(path)?;
        let relative =
            if path.is_root() { Path::new(".") } else { Path::new(OsStr::from_bytes(path.as_bytes())) };
        let fd = rustix::fs::openat2(
            &self.root,
            relative,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        );
        let fd = fd.map(Rc::new).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => {
                io::Error::other(format!("`/{path}` is a symbolic link, and the package has files below it"))
            }
            other => other.into(),
        })?;
        self.last = Some((path.clone(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// The open folder of a path that is not the root's.
    fn folder_of(&mut self, path: &TreePath) -> io::Result<Rc<OwnedFd>> {
        self.folder(&path.parent().ok_or(Errno::ISDIR)?)
    }

    /// A new file, in place of a file or link that is there: names shared by packages hold the same bytes in all of them
    /// (Multi-Arch: same). A link is never followed.
    pub fn create(&mut self, path: &TreePath) -> io::Result<File> {
        let folder = self.folder_of(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            match rustix::fs::openat(&*folder, name(path), flags, Mode::from_raw_mode(0o644)) {
                Ok(fd) => return Ok(fd.into()),
                Err(Errno::EXIST) => match rustix::fs::unlinkat(&*folder, name(path), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A symbolic link, unless something is there. Its target is rewritten so that it stays in the folder, as it would if
    /// the folder were the whole world.
    pub fn symlink(&mut self, to: &[u8], path: &TreePath) -> io::Result<()> {
        let folder = self.folder_of(path)?;
        match rustix::fs::symlinkat(within(path, to), &*folder, name(path)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A further name of a file, unless something is there.
    pub fn hard_link(&mut self, from: &TreePath, path: &TreePath) -> io::Result<()> {
        let (source, folder) = (self.folder_of(from)?, self.folder_of(path)?);
        match rustix::fs::linkat(&*source, name(from), &*folder, name(path), AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // A symbolic link leads elsewhere when it lies elsewhere.
        if kind(&folder, path)? != FileType::RegularFile {
            rustix::fs::unlinkat(&*folder, name(path), AtFlags::empty())?;
            return Err(io::Error::other(format!("`/{path}` is a hard link to `/{from}`, which is no file")));
        }
        Ok(())
    }
}

fn name(path: &TreePath) -> &Path {
    Path::new(OsStr::from_bytes(path.name()))
}

fn kind(folder: &OwnedFd, path: &TreePath) -> io::Result<FileType> {
    let stat = rustix::fs::statat(folder, name(path), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// A link's target, rewritten so that it stays in the tree, as it would if the tree were the whole world: `..` at the
/// root is the root, an absolute path begins there. It goes up at most to the root and then only down. The folders above
/// the link are no links themselves, so that every link of the tree leads to a place inside.
pub(crate) fn within(path: &TreePath, to: &[u8]) -> PathBuf {
    let mut above: Vec<&[u8]> = path.components().collect();
    above.pop();
    let mut at = if to.starts_with(b"/") { Vec::new() } else { above.clone() };
    for part in to.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(at.pop()),
            name => at.push(name),
        }
    }
    let shared = above.iter().zip(&at).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n(&b".."[..], above.len() - shared);
    let target: PathBuf = up.chain(at[shared..].iter().copied()).map(OsStr::from_bytes).collect();
    if target.as_os_str().is_empty() { ".".into() } else { target }
}
