//! Laying staged packages down in the root, by dpkg's rules.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use block::Digest;
use rustix::fs::{AtFlags, FileType, Gid, Uid};
use rustix::io::Errno;

use crate::accounts::Accounts;
use crate::dpkg::{Diversions, StatOverrides};
use crate::error::{Error, OnFile};
use crate::package::Package;
use crate::root::{Attributes, Root, shown};
use crate::stage::{Staged, StagedKind, StagedMember};

/// What a package brought to a path, as the path lies on the disk (links of folders resolved).
#[derive(Clone, Debug)]
pub(crate) struct Laid {
    pub(crate) package: Arc<str>,
    pub(crate) mtime: i64,
    pub(crate) file: Option<LaidFile>,
}

/// A regular file's content when it was laid down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaidFile {
    pub(crate) hash: Digest,
    pub(crate) size: u64,
    pub(crate) inode: u64,
    pub(crate) changed: (i64, u64),
}

/// How a package's configuration files are laid down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conffiles {
    /// In place at once: nothing is configured yet, and scripts need them.
    InPlace,
    /// Beside their place, as `.dpkg-new`, for dpkg to move when it configures the package.
    Waiting,
}

/// What laying a package down gave.
pub(crate) struct LaidPackage {
    /// Paths for its `.list`, as in the archive.
    pub(crate) list: Vec<Vec<u8>>,
    /// Path and MD5 or `newconffile`.
    pub(crate) conffiles: Vec<(Vec<u8>, String)>,
    /// Indexes of packages that lost files to it: their `.list` changed.
    pub(crate) robbed: BTreeSet<usize>,
}

/// Everything laid down so far.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By path as the archive names it (after diversion): which package owns it, and its hash when it is a file.
    owners: HashMap<Vec<u8>, (usize, Option<Digest>)>,
    /// By path as it lies on the disk.
    pub(crate) laid: HashMap<Vec<u8>, Laid>,
    pub(crate) lists: HashMap<usize, Vec<Vec<u8>>>,
}

/// What laying down needs to know of the root.
pub(crate) struct Surroundings<'a> {
    pub(crate) root: &'a Root,
    pub(crate) accounts: &'a Accounts,
    pub(crate) diversions: &'a Diversions,
    pub(crate) overrides: &'a StatOverrides,
}

impl Ledger {
    /// Lays one package down.
    pub(crate) fn lay(
        &mut self,
        packages: &[Package],
        index: usize,
        staged: Staged,
        around: &Surroundings<'_>,
        conffiles: Conffiles,
    ) -> Result<LaidPackage, Error> {
        let package = &packages[index];
        let mut result = LaidPackage { list: Vec::new(), conffiles: Vec::new(), robbed: BTreeSet::new() };
        let mut own: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for member in &staged.members {
            if member.path.is_empty() {
                result.list.push(Vec::new());
                continue;
            }
            let refuse = |problem: String| Error::Member {
                package: package.name.to_string(),
                path: String::from_utf8_lossy(&member.path).into_owned(),
                problem,
            };
            let place = around.diversions.place(&member.path, &package.name).to_vec();
            if !self.claim(packages, index, member, &place, &mut result)? {
                continue;
            }
            result.list.push(member.path.clone());
            let attributes = self.attributes(member, around);
            if matches!(member.kind, StagedKind::Directory) {
                self.lay_folder(around.root, &place, attributes, package, &refuse)?;
                continue;
            }
            let conffile = package.conffiles.contains(&member.path);
            let mut target = place.clone();
            if conffile && conffiles == Conffiles::Waiting {
                target.extend_from_slice(b".dpkg-new");
            }
            let file = self.lay_other(around.root, member, &staged, &target, attributes, &own, &refuse)?;
            own.insert(member.path.clone(), target);
            if conffile {
                let hash = match (&member.kind, conffiles) {
                    (StagedKind::File { md5: Some(md5), .. }, Conffiles::InPlace) => md5.clone(),
                    _ => "newconffile".to_owned(),
                };
                result.conffiles.push((member.path.clone(), hash));
            }
            let laid = Laid { package: package.name.clone(), mtime: attributes.mtime, file };
            self.laid.insert(physical(around.root, &place)?, laid);
        }
        let former = package.former_conffiles.iter();
        result
            .conffiles
            .extend(former.map(|path| (path.clone(), "newconffile remove-on-upgrade".to_owned())));
        self.lists.insert(index, result.list.clone());
        Ok(result)
    }

    /// Whether `place` may be written by this package. Files that it takes over leave their former owner's list.
    fn claim(
        &mut self,
        packages: &[Package],
        index: usize,
        member: &StagedMember,
        place: &[u8],
        result: &mut LaidPackage,
    ) -> Result<bool, Error> {
        let folder = matches!(member.kind, StagedKind::Directory);
        let hash = match &member.kind {
            StagedKind::File { hash, .. } => Some(*hash),
            _ => None,
        };
        let Some((other, other_hash)) = self.owners.get(place).copied() else {
            if !folder {
                self.owners.insert(place.to_vec(), (index, hash));
            }
            return Ok(true);
        };
        let (package, owner) = (&packages[index], &packages[other]);
        if folder || other == index {
            return Ok(true);
        }
        let shared = package.same && owner.same && package.name == owner.name && hash == other_hash;
        if !shared && owner.replaces(package) {
            return Ok(false);
        }
        if !shared && !package.replaces(owner) {
            return Err(Error::Conflict {
                path: String::from_utf8_lossy(place).into_owned(),
                first: owner.name.to_string(),
                second: package.name.to_string(),
            });
        }
        if !shared {
            if let Some(list) = self.lists.get_mut(&other) {
                list.retain(|path| *path != member.path);
            }
            result.robbed.insert(other);
        }
        self.owners.insert(place.to_vec(), (index, hash));
        Ok(true)
    }

    fn attributes(&self, member: &StagedMember, around: &Surroundings<'_>) -> Attributes {
        let mut attributes = member.attributes;
        if let Some(uid) = around.accounts.user(&member.user) {
            attributes.uid = uid;
        }
        if let Some(gid) = around.accounts.group(&member.group) {
            attributes.gid = gid;
        }
        if let Some((uid, gid, mode)) = around.overrides.get(&member.path) {
            (attributes.uid, attributes.gid, attributes.mode) = (uid, gid, mode);
        }
        attributes
    }

    fn lay_folder(
        &mut self,
        root: &Root,
        place: &[u8],
        attributes: Attributes,
        package: &Package,
        refuse: &dyn Fn(String) -> Error,
    ) -> Result<(), Error> {
        // As dpkg: a folder that is there, or a link to one, stays as it is.
        match root.make_folder(place, attributes) {
            Ok(true) => {
                let laid = Laid { package: package.name.clone(), mtime: attributes.mtime, file: None };
                self.laid.insert(physical(root, place)?, laid);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(Error::File { source, .. }) => Err(refuse(format!("cannot be made a folder: {source}"))),
            Err(other) => Err(other),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one member, where it goes and how, are all needed at once")]
    fn lay_other(
        &self,
        root: &Root,
        member: &StagedMember,
        staged: &Staged,
        target: &[u8],
        attributes: Attributes,
        own: &HashMap<Vec<u8>, Vec<u8>>,
        refuse: &dyn Fn(String) -> Error,
    ) -> Result<Option<LaidFile>, Error> {
        let (fd, name) = root
            .parent(target)
            .map_err(|error| refuse(format!("cannot be laid down: its folder: {error}")))?;
        match rustix::fs::statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if FileType::from_raw_mode(there.st_mode) == FileType::Directory => {
                return Err(refuse("is a folder already, made by another package".into()));
            }
            Ok(_) => rustix::fs::unlinkat(&*fd, name, AtFlags::empty()).on("cannot remove", shown(target))?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(refuse(format!("cannot be laid down: {error}"))),
        }
        match &member.kind {
            StagedKind::Directory => Ok(None),
            StagedKind::Symlink(to) => {
                root.symlink(to, target, attributes)?;
                Ok(None)
            }
            StagedKind::HardLink(to) => {
                let Some(first) = own.get(to) else {
                    let to = String::from_utf8_lossy(to);
                    return Err(refuse(format!(
                        "is a hard link to `/{to}`, which the package has not brought before"
                    )));
                };
                let (first_fd, first_name) =
                    root.parent(first).on("cannot open the folder of", shown(first))?;
                let link = rustix::fs::linkat(&*first_fd, first_name, &*fd, name, AtFlags::empty());
                link.on("cannot link", shown(target))?;
                Ok(None)
            }
            StagedKind::File { number, size, hash, .. } => {
                let from = staged.folder.join(number.to_string());
                rustix::fs::renameat(rustix::fs::CWD, &from, &*fd, name)
                    .on("cannot move into place", shown(target))?;
                if attributes != member.attributes {
                    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
                    let owned =
                        rustix::fs::chownat(&*fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
                    owned.on("cannot set the owner of", shown(target))?;
                    let mode = rustix::fs::Mode::from_raw_mode(attributes.mode);
                    rustix::fs::chmodat(&*fd, name, mode, AtFlags::empty())
                        .on("cannot set the mode of", shown(target))?;
                }
                let stat = rustix::fs::statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW)
                    .on("cannot look at", shown(target))?;
                let changed = (stat.st_ctime, stat.st_ctime_nsec);
                Ok(Some(LaidFile { hash: *hash, size: *size, inode: stat.st_ino, changed }))
            }
        }
    }
}

/// Where a path lies on the disk: links of the folders above it resolved. Relative to the root.
pub(crate) fn physical(root: &Root, path: &[u8]) -> Result<Vec<u8>, Error> {
    use std::os::fd::AsRawFd;
    let (fd, name) = root.parent(path).on("cannot open the folder of", shown(path))?;
    let folder =
        rustix::fs::readlinkat(rustix::fs::CWD, format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
    let folder = folder.on("cannot ask for the folder of", shown(path))?.into_bytes();
    let folder = Path::new(std::ffi::OsStr::from_bytes(&folder));
    let inside = folder.strip_prefix(root.path()).unwrap_or(folder).join(name);
    Ok(inside.as_os_str().as_bytes().to_vec())
}
