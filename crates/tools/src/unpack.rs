use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use debian::deb::Deb;
use debian::tar::Kind;
use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tree::TreePath;

use crate::{Error, Fetched};

/// Unpacks packages into one folder as any user can: no owners, no devices, no set-user-id. Only names and bytes count
/// for tools. `only`: the paths to take, all if there are none.
pub(crate) fn unpack_all(root: &Path, fetched: &[Fetched], only: &[&str]) -> Result<(), Error> {
    fetched.par_iter().try_for_each(|fetched| {
        unpack(root, &fetched.path, only).map_err(|source| Error::Unpack {
            package: fetched.package.name.clone(),
            folder: root.to_owned(),
            source,
        })
    })
}

/// Adds folders and files (path and text) to a tree, in place of what its packages have there.
pub(crate) fn add(root: &Path, folders: &[&str], files: &[(&str, &str)]) -> Result<(), Error> {
    let mut inside = Inside::open(root).map_err(Error::io(root))?;
    let mut add = |name: &str, text: Option<&str>| {
        let path = TreePath::new(name.as_bytes()).map_err(io::Error::other)?;
        match text {
            None => inside.make_folder(&path),
            Some(text) => inside.create(&path)?.write_all(text.as_bytes()),
        }
    };
    let folders = folders.iter().map(|name| (*name, None));
    for (name, text) in folders.chain(files.iter().map(|(name, text)| (*name, Some(*text)))) {
        add(name, text).map_err(Error::io(&root.join(name)))?;
    }
    Ok(())
}

fn unpack(root: &Path, deb: &Path, only: &[&str]) -> io::Result<()> {
    let mut deb = Deb::open(deb).map_err(io::Error::other)?;
    let mut data = deb.data().map_err(io::Error::other)?;
    let mut root = Inside::open(root)?;
    while let Some(mut member) = data.next().map_err(io::Error::other)? {
        let path = TreePath::new(&member.path).map_err(io::Error::other)?;
        if path.is_root() || !only.is_empty() && !only.iter().any(|name| name.as_bytes() == path.as_bytes()) {
            continue;
        }
        match &member.kind {
            Kind::Dir => root.make_folder(&path)?,
            Kind::File { .. } => {
                let mode = member.mode & 0o755 | 0o600;
                let mut file = root.create(&path)?;
                io::copy(&mut member, &mut file)?;
                file.set_permissions(fs::Permissions::from_mode(mode))?;
            }
            Kind::Symlink(to) => root.symlink(to, &path)?,
            Kind::Hardlink(to) => root.hard_link(&TreePath::new(to).map_err(io::Error::other)?, &path)?,
            // Nothing that a tool needs.
            _ => {}
        }
    }
    Ok(())
}

/// A folder below which everything stays that is written through this: the kernel resolves each path from the open
/// folder on, through real folders alone, and no link that is made leads outside. That holds while other threads
/// write into the same folder in the same way.
struct Inside {
    root: OwnedFd,
    made: HashSet<TreePath>,
    last: Option<(TreePath, Rc<OwnedFd>)>,
}

impl Inside {
    fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(root, flags, Mode::empty())?, made: HashSet::new(), last: None })
    }

    /// Makes a folder and those above it that are missing. Where a symbolic link lies it may take the folder's place.
    fn make_folder(&mut self, path: &TreePath) -> io::Result<()> {
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
    fn create(&mut self, path: &TreePath) -> io::Result<File> {
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

    /// A symbolic link, unless something is there.
    fn symlink(&mut self, to: &[u8], path: &TreePath) -> io::Result<()> {
        let folder = self.folder_of(path)?;
        match rustix::fs::symlinkat(inside(path, to), &*folder, name(path)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A further name of a file, unless something is there.
    fn hard_link(&mut self, from: &TreePath, path: &TreePath) -> io::Result<()> {
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
fn inside(path: &TreePath, to: &[u8]) -> PathBuf {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A .deb of links (`a -> b`, `a => b` for a hard one), folders (`a/`) and files (all others), whose bytes are `text`.
    fn deb(folder: &Path, package: &str, members: &[&str], text: &str) -> Fetched {
        let mut data = Vec::new();
        for member in members {
            let (name, kind, to, bytes) = if let Some((name, to)) = member.split_once(" -> ") {
                (name, b'2', to, "")
            } else if let Some((name, to)) = member.split_once(" => ") {
                (name, b'1', to, "")
            } else if member.ends_with('/') {
                (*member, b'5', "", "")
            } else {
                (*member, b'0', "", text)
            };
            let mut header = [0; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[100..107].copy_from_slice(b"0000755");
            header[108..115].copy_from_slice(b"0000000");
            header[116..123].copy_from_slice(b"0000000");
            header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
            header[136..147].copy_from_slice(b"00000000000");
            header[148..156].fill(b' ');
            header[156] = kind;
            header[157..157 + to.len()].copy_from_slice(to.as_bytes());
            header[257..265].copy_from_slice(b"ustar\x0000");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            data.extend(header);
            data.extend(bytes.as_bytes());
            data.resize(data.len().next_multiple_of(512), 0);
        }
        data.resize(data.len() + 1024, 0);
        let mut deb = b"!<arch>\n".to_vec();
        for (name, bytes) in
            [("debian-binary", &b"2.0\n"[..]), ("control.tar", &[0; 1024]), ("data.tar", &data)]
        {
            let length = bytes.len();
            deb.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{length:<10}`\n", 0, 0, 0, 100_644).bytes());
            deb.extend(bytes);
        }
        let path = folder.join(format!("{package}.deb"));
        fs::write(&path, deb).unwrap();
        Fetched { package: crate::Package { name: package.into(), version: "1".into() }, path }
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn no_link_of_a_package_leads_another_package_outside() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("escaped");
        let host = folder.path().display();
        for (link, file) in [
            ("usr/share/x -> ../../../escaped".to_owned(), "usr/share/x"),
            (format!("usr/share/x -> {host}/escaped"), "usr/share/x"),
            ("usr/share/x -> ../../..".to_owned(), "usr/share/x/escaped"),
            (format!("usr/share/x -> {host}"), "usr/share/x/escaped"),
        ] {
            let root = folder.path().join("root");
            fs::create_dir(&root).unwrap();
            let aa = deb(folder.path(), "aa", &[&link], "");
            let bb = deb(folder.path(), "bb", &[file], "bytes of bb");
            let done = unpack_all(&root, &[aa], &[]).and_then(|()| unpack_all(&root, &[bb], &[]));
            assert!(!outside.exists(), "{link}, {file}");
            match done {
                Ok(()) => assert_eq!(read(root.join(file)), "bytes of bb"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.starts_with("`bb` could not be unpacked"), "{text}");
                    assert!(text.contains("`/usr/share/x` is a symbolic link, and"), "{text}");
                }
            }
            fs::remove_dir_all(&root).unwrap();
        }
    }

    #[test]
    fn links_inside_the_tree_lead_where_they_would_in_a_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let members = [
            "lib -> usr/lib",
            "lib64 -> /usr/lib",
            "usr/lib/loader",
            "usr/lib/again => usr/lib/loader",
            "usr/bin/",
            "usr/bin/X11 -> .",
            "usr/bin/run -> ../lib/loader",
            "etc/alternatives/run -> /usr/bin/run",
            "etc/far -> ../../../../../usr/lib/loader",
        ];
        unpack_all(&root, &[deb(folder.path(), "aa", &members, "a loader")], &[]).unwrap();
        // A folder that another package has made a link of.
        unpack_all(&root, &[deb(folder.path(), "bb", &["lib/", "usr/lib/loader"], "a loader")], &[]).unwrap();
        for path in ["lib/loader", "lib64/again", "usr/bin/X11/X11/run", "etc/alternatives/run", "etc/far"] {
            assert_eq!(read(root.join(path)), "a loader", "{path}");
        }
        let mode = fs::metadata(root.join("lib/loader")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn what_is_added_to_a_tree_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(folder.path().join("passwd"), "the host's").unwrap();
        std::os::unix::fs::symlink(folder.path(), root.join("etc")).unwrap();
        let error = add(&root, &["proc", "etc"], &[("etc/passwd", "the tree's")]).unwrap_err().to_string();
        assert!(error.contains("`/etc` is a symbolic link"), "{error}");
        assert_eq!(read(folder.path().join("passwd")), "the host's");
        fs::remove_file(root.join("etc")).unwrap();
        add(&root, &["proc"], &[("etc/passwd", "the tree's")]).unwrap();
        assert_eq!(read(root.join("etc/passwd")), "the tree's");
        assert!(root.join("proc").is_dir());
    }

    #[test]
    fn a_hard_link_moves_no_symbolic_link() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let members = ["a/b/up -> ../../x", "down => a/b/up"];
        let error = unpack_all(&root, &[deb(folder.path(), "aa", &members, "")], &[]).unwrap_err();
        assert!(
            error.to_string().contains("`/down` is a hard link to `/a/b/up`, which is no file"),
            "{error}"
        );
        assert!(fs::symlink_metadata(root.join("down")).is_err());
    }

    #[test]
    fn a_links_target_goes_up_to_the_root_and_then_down() {
        let path = TreePath::new(b"etc/alternatives/nc").unwrap();
        for (to, expected) in [
            ("/usr/bin/nc.openbsd", "../../usr/bin/nc.openbsd"),
            ("nc.1", "nc.1"),
            ("./../alternatives//nc.1", "nc.1"),
            ("../../../../escaped", "../../escaped"),
            ("usr/../../../../escaped", "../../escaped"),
            ("/../..", "../.."),
            (".", "."),
        ] {
            assert_eq!(inside(&path, to.as_bytes()), Path::new(expected), "{to}");
        }
    }
}
