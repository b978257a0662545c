//! A folder as a [`Tree`].

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::{Content, Digest, Hasher, Origin, ReadAt};
use rayon::prelude::*;
use tree::{Entry, Meta, Node, Timestamp, Tree, TreePath};

use crate::error::{Error, OnFile};
use crate::lay::{Laid, Ledger};

/// A file's bytes where they are; opened for each read, for a root has more files than a process may open.
struct InFile(PathBuf);

impl ReadAt for InFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        File::open(&self.0)?.read_exact_at(buf, offset)
    }
}

/// What the scan of a baked root knows beside the folder itself.
pub(crate) struct Known<'a> {
    /// What packages brought.
    pub(crate) ledger: &'a Ledger,
    /// What the recipe brought, by path.
    pub(crate) recipe: &'a BTreeMap<Vec<u8>, (Origin, i64)>,
    /// The time of all that was made while baking.
    pub(crate) time: i64,
    /// Files whose own newest input is known, by path: their time.
    pub(crate) times: &'a BTreeMap<Vec<u8>, i64>,
    /// The packages, by name: dpkg's records of one belong to it and have its time.
    pub(crate) packages: &'a BTreeMap<Vec<u8>, (Arc<str>, i64)>,
}

/// Reads a folder as it is: modes, owners, attributes, times, contents. Hard links name the path that sorts first.
/// Its files must not change as long as the tree is used.
pub fn scan(root: &Path) -> Result<Tree, Error> {
    scan_with(root, None)
}

struct Found {
    path: TreePath,
    place: PathBuf,
    stat: Metadata,
}

pub(crate) fn scan_with(root: &Path, known: Option<&Known<'_>>) -> Result<Tree, Error> {
    let mut found = Vec::new();
    walk(root, TreePath::root(), &mut found)?;
    let hashes: Vec<Option<Digest>> =
        found.par_iter().map(|found| hash(found, known)).collect::<Result<_, Error>>()?;
    let mut first_names: HashMap<(u64, u64), TreePath> = HashMap::new();
    let mut tree = Tree::new(Entry::directory(0o755));
    for (found, hash) in found.into_iter().zip(hashes) {
        let Found { path, place, stat } = found;
        let kind = stat.file_type();
        let mut node = match hash {
            Some(hash) => Node::File(Content::new(hash, stat.len(), Arc::new(InFile(place.clone())))),
            None if kind.is_dir() => Node::Directory,
            None if kind.is_symlink() => {
                let target = std::fs::read_link(&place).on("cannot read the link", &place)?;
                Node::Symlink(target.into_os_string().as_bytes().to_vec())
            }
            None if kind.is_char_device() => {
                let (major, minor) = device(stat.rdev());
                Node::CharDevice { major, minor }
            }
            None if kind.is_block_device() => {
                let (major, minor) = device(stat.rdev());
                Node::BlockDevice { major, minor }
            }
            None if kind.is_fifo() => Node::Fifo,
            None => Node::Socket,
        };
        if !kind.is_dir() && stat.nlink() > 1 {
            match first_names.entry((stat.dev(), stat.ino())) {
                std::collections::hash_map::Entry::Occupied(first) => {
                    node = Node::HardLink(first.get().clone())
                }
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(path.clone());
                }
            }
        }
        let (origin, mtime) = match known {
            Some(known) => known.origin_and_time(&path, &stat, hash),
            None => (
                Origin::Configured,
                Timestamp {
                    seconds: stat.mtime(),
                    nanoseconds: u32::try_from(stat.mtime_nsec()).unwrap_or(0),
                },
            ),
        };
        let meta = Meta {
            mode: (stat.mode() & 0o7777) as u16,
            uid: stat.uid(),
            gid: stat.gid(),
            mtime,
            xattrs: if kind.is_symlink() { BTreeMap::new() } else { attributes(&place)? },
        };
        tree.insert(path, Entry { meta, node, origin });
    }
    tree.check()?;
    Ok(tree)
}

/// Lists a folder with all below it, in the order of tree paths.
fn walk(place: &Path, path: TreePath, found: &mut Vec<Found>) -> Result<(), Error> {
    let stat = std::fs::symlink_metadata(place).on("cannot look at", place)?;
    let folder = stat.is_dir();
    found.push(Found { path: path.clone(), place: place.into(), stat });
    if !folder {
        return Ok(());
    }
    let mut below = Vec::new();
    for entry in std::fs::read_dir(place).on("cannot list", place)? {
        let name = entry.on("cannot list", place)?.file_name();
        below.push((path.join(name.as_bytes())?, place.join(&name)));
    }
    below.sort_by(|a, b| a.0.cmp(&b.0));
    below.into_iter().try_for_each(|(path, place)| walk(&place, path, found))
}

fn hash(found: &Found, known: Option<&Known<'_>>) -> Result<Option<Digest>, Error> {
    let stat = &found.stat;
    if !stat.is_file() {
        return Ok(None);
    }
    if let Some(laid) = known.and_then(|known| known.ledger.laid.get(found.path.as_bytes()))
        && let Some(file) = laid.file
        && file.inode == stat.ino()
        && file.size == stat.len()
        && file.changed == (stat.ctime(), stat.ctime_nsec() as u64)
    {
        return Ok(Some(file.hash));
    }
    let mut hasher = Hasher::new();
    let file = File::open(&found.place).on("cannot read", &found.place)?;
    let mut buffer = vec![0; (256 * 1024).min(stat.len() as usize).max(1)];
    let mut at = 0;
    while at < stat.len() {
        let want = buffer.len().min((stat.len() - at) as usize);
        file.read_exact_at(&mut buffer[..want], at).on("cannot read", &found.place)?;
        hasher.update(&buffer[..want]);
        at += want as u64;
    }
    Ok(Some(hasher.finish()))
}

impl Known<'_> {
    /// Who made an entry, and the time it shows. Whatever was made or changed while baking has the time of the newest
    /// package and not the clock's; what a package brought keeps the package's.
    fn origin_and_time(&self, path: &TreePath, stat: &Metadata, hash: Option<Digest>) -> (Origin, Timestamp) {
        let path = path.as_bytes();
        if let Some((origin, time)) = self.recipe.get(path) {
            return (origin.clone(), Timestamp::from_seconds(*time));
        }
        if let Some(Laid { package, mtime, file }) = self.ledger.laid.get(path) {
            let same_content = match (file, hash) {
                (Some(file), Some(hash)) => file.hash == hash,
                (None, _) => true,
                _ => false,
            };
            // What comes and goes in a folder changes its time on this disk, but says nothing of the folder.
            let untouched = stat.is_dir() || stat.mtime() == *mtime && stat.mtime_nsec() == 0;
            if same_content {
                let time = if untouched { *mtime } else { self.time };
                return (Origin::Package(package.clone()), Timestamp::from_seconds(time));
            }
        }
        if let Some((package, time)) = recorded(path).and_then(|name| self.packages.get(name)) {
            return (Origin::Package(package.clone()), Timestamp::from_seconds(*time));
        }
        if let Some(time) = self.times.get(path) {
            return (Origin::Configured, Timestamp::from_seconds(*time));
        }
        // Their content follows from their names, or from one file: they are no newer than what they belong to.
        if stat.is_dir() || stat.is_symlink() {
            return (Origin::Configured, Timestamp::from_seconds(self.time_above(path)));
        }
        if let Some(Laid { mtime, .. }) = python_source(path).and_then(|path| self.ledger.laid.get(&path)) {
            return (Origin::Configured, Timestamp::from_seconds(*mtime));
        }
        // A script may copy a file with its time (`cp -p`): on a whole second, and before anything here was made.
        let copied = stat.mtime_nsec() == 0 && stat.mtime() < self.time;
        let time = if copied { stat.mtime() } else { self.time };
        (Origin::Configured, Timestamp::from_seconds(time))
    }

    /// The time of the nearest folder above that a package brought.
    fn time_above(&self, path: &[u8]) -> i64 {
        let mut above = path;
        while let Some(end) = above.iter().rposition(|byte| *byte == b'/') {
            above = &above[..end];
            if let Some(folder) = self.ledger.laid.get(above) {
                return folder.mtime;
            }
        }
        self.time
    }
}

/// The package that a file of dpkg's database is about: `libc6` for `var/lib/dpkg/info/libc6:amd64.list`.
fn recorded(path: &[u8]) -> Option<&[u8]> {
    let name = path.strip_prefix(b"var/lib/dpkg/info/")?;
    let name = &name[..name.iter().rposition(|byte| *byte == b'.')?];
    name.split(|byte| *byte == b':').next()
}

/// The file that a compiled one was made from: `a/b.py` for `a/__pycache__/b.cpython-313.pyc`.
fn python_source(path: &[u8]) -> Option<Vec<u8>> {
    let at = path.iter().rposition(|byte| *byte == b'/')?;
    let folder = path[..at].strip_suffix(b"__pycache__")?;
    let name = path[at + 1..].strip_suffix(b".pyc")?;
    let end = name.windows(9).position(|part| part == b".cpython-")?;
    Some([folder, &name[..end], b".py"].concat())
}

fn device(raw: u64) -> (u32, u32) {
    (rustix::fs::major(raw), rustix::fs::minor(raw))
}

/// Whether an attribute is the file's own. Others, such as `security.selinux`, are labels that the host's kernel or
/// file system gave it.
fn is_own(name: &[u8]) -> bool {
    matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
        || name.starts_with(b"user.")
}

/// A file's own extended attributes. Capabilities are given in the form that knows no user namespace.
fn attributes(place: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
    let size = match rustix::fs::llistxattr_query(place) {
        Ok(0) | Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        size => size.on("cannot read the attributes of", place)?,
    };
    let mut names = vec![0_u8; size];
    let size = rustix::fs::llistxattr(place, &mut names).on("cannot read the attributes of", place)?;
    let mut attributes = BTreeMap::new();
    for name in names[..size].split(|byte| *byte == 0).filter(|name| is_own(name)) {
        let key = std::ffi::OsStr::from_bytes(name);
        let mut value = vec![0_u8; 64 * 1024];
        let size =
            rustix::fs::lgetxattr(place, key, &mut value).on("cannot read the attributes of", place)?;
        value.truncate(size);
        if name == b"security.capability" {
            value = plain_capability(value);
        }
        attributes.insert(name.to_vec(), value);
    }
    Ok(attributes)
}

/// Version 3 names the user namespace's root; version 2, which means the system's own, does not.
fn plain_capability(mut value: Vec<u8>) -> Vec<u8> {
    const VERSION_2: u32 = 0x0200_0000;
    const VERSION_3: u32 = 0x0300_0000;
    if value.len() == 24 {
        let head = u32::from_le_bytes([value[0], value[1], value[2], value[3]]);
        if head & 0xff00_0000 == VERSION_3 {
            value[..4].copy_from_slice(&(head & 0x00ff_ffff | VERSION_2).to_le_bytes());
            value.truncate(20);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_with_links_and_modes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("d")).unwrap();
        std::fs::write(root.join("d/b"), b"bytes").unwrap();
        std::fs::hard_link(root.join("d/b"), root.join("a")).unwrap();
        std::os::unix::fs::symlink("../x", root.join("l")).unwrap();
        let tree = scan(root).unwrap();
        let get = |path: &str| &tree.get(&TreePath::new(path.as_bytes()).unwrap()).unwrap().node;
        assert_eq!(*get("a"), Node::File(Content::from_bytes(b"bytes".to_vec())));
        assert_eq!(*get("d/b"), Node::HardLink(TreePath::new(b"a").unwrap()));
        assert_eq!(*get("l"), Node::Symlink(b"../x".to_vec()));
        assert_eq!(tree.len(), 5);
    }

    #[test]
    fn attributes_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        rustix::fs::setxattr(&file, "user.note", b"value", rustix::fs::XattrFlags::empty()).unwrap();
        let tree = scan(folder.path()).unwrap();
        let entry = tree.get(&TreePath::new(b"file").unwrap()).unwrap();
        assert_eq!(entry.meta.xattrs, BTreeMap::from([(b"user.note".to_vec(), b"value".to_vec())]));
    }

    #[test]
    fn what_a_made_file_belongs_to_is_told_by_its_name() {
        assert_eq!(recorded(b"var/lib/dpkg/info/libc6:amd64.list"), Some(&b"libc6"[..]));
        assert_eq!(recorded(b"var/lib/dpkg/info/python3.13.postinst"), Some(&b"python3.13"[..]));
        assert_eq!(recorded(b"var/lib/dpkg/info/format"), None);
        assert_eq!(recorded(b"var/lib/dpkg/status"), None);
        let source = |path: &str| python_source(path.as_bytes()).map(|path| String::from_utf8(path).unwrap());
        let found = source("usr/lib/python3/dist-packages/a/__pycache__/b.c.cpython-313.opt-1.pyc");
        assert_eq!(found.as_deref(), Some("usr/lib/python3/dist-packages/a/b.c.py"));
        assert_eq!(source("__pycache__/b.cpython-313.pyc").as_deref(), Some("b.py"));
        assert_eq!(source("a/b.cpython-313.pyc"), None);
        assert_eq!(source("a/__pycache__/b.pyc"), None);
    }

    #[test]
    fn a_namespaced_capability_becomes_a_plain_one() {
        let mut namespaced = vec![1, 0, 0, 3];
        namespaced.extend([7; 16]);
        namespaced.extend([0, 0, 1, 0]);
        let plain = plain_capability(namespaced);
        assert_eq!(plain[..4], [1, 0, 0, 2]);
        assert_eq!(plain.len(), 20);
    }
}
