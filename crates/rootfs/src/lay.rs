//! Laying staged packages down in the root, by dpkg's rules.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use block::Digest;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::accounts::Accounts;
use crate::dpkg::{Diversions, StatOverrides};
use crate::error::{Error, OnFile};
use crate::package::Package;
use crate::root::{Attributes, Entry, Root, shown};
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
        let mut hashes: HashMap<Vec<u8>, String> = HashMap::new();
        for member in &staged.members {
            if member.path.is_empty() {
                result.list.push(Vec::new());
                continue;
            }
            let refuse = |problem: String| Error::Member {
                package: package.name.to_string(),
                path: in_message(&member.path),
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
            // As dpkg: a folder that is there stays, whatever the link would lead to.
            if matches!(member.kind, StagedKind::Symlink(_)) && is_folder(around.root, &place)? {
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
                hashes.insert(member.path.clone(), hash);
            }
            let laid = Laid { package: package.name.clone(), mtime: attributes.mtime, file };
            self.laid.insert(physical(around.root, &place)?, laid);
        }
        for (path, former) in &package.conffile_list {
            let hash =
                if *former { Some("newconffile remove-on-upgrade".to_owned()) } else { hashes.remove(path) };
            result.conffiles.extend(hash.map(|hash| (path.clone(), hash)));
        }
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
                path: in_message(place),
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
            // What was made before any package came (`/usr/bin`), or by a script, is the package's all the same.
            Ok(false) if is_folder(root, place)? => {
                let laid = Laid { package: package.name.clone(), mtime: attributes.mtime, file: None };
                self.laid.entry(physical(root, place)?).or_insert(laid);
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
                return Err(refuse(
                    "is a file in this package and a folder of another; leave one of the two packages out, or ask for a \
                     version of one that goes with the other (name=version)"
                        .into(),
                ));
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
                    let to = in_message(to);
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
                    let owned = Entry::open(&*fd, name).and_then(|entry| entry.own(attributes));
                    owned.on("cannot set owner and mode of", shown(target))?;
                }
                let stat = rustix::fs::statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW)
                    .on("cannot look at", shown(target))?;
                let changed = (stat.st_ctime, stat.st_ctime_nsec);
                Ok(Some(LaidFile { hash: *hash, size: *size, inode: stat.st_ino, changed }))
            }
        }
    }
}

/// Whether a folder is there, and no link to one.
fn is_folder(root: &Root, path: &[u8]) -> Result<bool, Error> {
    let stat = root.lstat(path)?;
    Ok(stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
}

/// A package's path as messages show it: nothing in it that a terminal would obey.
pub(crate) fn in_message(path: &[u8]) -> String {
    block::without_escapes(&String::from_utf8_lossy(path)).replace('\n', "?")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Stager;
    use crate::test_packages::TestPackage;

    /// A root beside a folder that nothing may touch.
    struct Place {
        folder: tempfile::TempDir,
        root: Root,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["root", "stage", "debs", "outside"] {
                std::fs::create_dir(folder.path().join(name)).unwrap();
            }
            let root = Root::open(&folder.path().join("root").canonicalize().unwrap()).unwrap();
            Self { folder, root }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.folder.path().join(name)
        }

        /// Lays packages down in order; the ledger and each package's outcome, or the first error.
        fn lay(
            &self,
            packages: Vec<TestPackage>,
            conffiles: Conffiles,
        ) -> Result<(Ledger, Vec<LaidPackage>), Error> {
            let packages: Vec<_> =
                packages.into_iter().map(|package| package.make(&self.path("debs"))).collect();
            let stage = self.path("stage");
            let stager = Stager::new(&packages, (0..packages.len()).collect(), &stage, i64::MAX);
            let accounts = Accounts::default();
            let around = Surroundings {
                root: &self.root,
                accounts: &accounts,
                diversions: &Diversions::read(&self.root)?,
                overrides: &StatOverrides::read(&self.root, &accounts)?,
            };
            let mut ledger = Ledger::default();
            let laid: Result<Vec<_>, Error> = stager.run(|stager| {
                let all = 0..packages.len();
                all.map(|index| ledger.lay(&packages, index, stager.take(index)?, &around, conffiles))
                    .collect()
            });
            Ok((ledger, laid?))
        }

        fn text(&self, path: &str) -> String {
            self.root.read_text(path.as_bytes()).unwrap()
        }
    }

    fn refused(packages: Vec<TestPackage>) -> String {
        let place = Place::new();
        let result = place.lay(packages, Conffiles::InPlace);
        assert_eq!(
            std::fs::read_dir(place.path("outside")).unwrap().count(),
            0,
            "something was written outside"
        );
        match result {
            Err(error) => error.to_string(),
            Ok(_) => panic!("the package was taken"),
        }
    }

    #[test]
    fn files_keep_mode_time_and_hash() {
        let place = Place::new();
        let package = TestPackage::new("p")
            .folder("./usr/", 0o755)
            .file("./usr/su", 0o4755, b"bytes")
            .hard_link("./usr/su2", "./usr/su");
        let (ledger, laid) = place.lay(vec![package], Conffiles::InPlace).unwrap();
        let stat = place.root.lstat(b"usr/su").unwrap().unwrap();
        assert_eq!((stat.st_mode & 0o7777, stat.st_mtime, stat.st_nlink), (0o4755, 1_000_000, 2));
        assert_eq!(ledger.laid[b"usr/su".as_slice()].file.unwrap().hash, Digest::of(b"bytes"));
        assert_eq!(laid[0].list, ["usr", "usr/su", "usr/su2"].map(|path| path.as_bytes().to_vec()));
    }

    #[test]
    fn a_link_made_by_another_package_leads_nowhere_but_inside() {
        let place = Place::new();
        let outside = place.path("outside").to_str().unwrap().to_owned();
        for (name, target) in [("up", "../../../outside"), ("absolute", outside.as_str())] {
            let first = TestPackage::new("first").symlink(&format!("./{name}"), target);
            let second = TestPackage::new("second").file(&format!("./{name}/passwd"), 0o644, b"evil");
            // The link leads to a place inside the root that does not exist.
            let error = place.lay(vec![first, second], Conffiles::InPlace).err().unwrap().to_string();
            assert!(
                error.contains("package second") && error.contains(&format!("/{name}/passwd")),
                "{error}"
            );
            std::fs::remove_dir_all(place.path("stage")).unwrap();
            std::fs::create_dir(place.path("stage")).unwrap();
        }
        assert_eq!(std::fs::read_dir(place.path("outside")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_lands_where_a_folders_link_leads() {
        let place = Place::new();
        let package = TestPackage::new("p")
            .folder("./usr", 0o755)
            .folder("./usr/lib", 0o755)
            .symlink("./lib", "usr/lib")
            .file("./lib/x", 0o644, b"x");
        let (ledger, _) = place.lay(vec![package], Conffiles::InPlace).unwrap();
        assert!(ledger.laid.contains_key(b"usr/lib/x".as_slice()));
        assert_eq!(place.text("usr/lib/x"), "x");
    }

    #[test]
    fn names_that_leave_the_root_are_refused() {
        assert!(
            refused(vec![TestPackage::new("p").file("./a/../../outside/x", 0o644, b"x")]).contains(".deb")
        );
        assert!(refused(vec![TestPackage::new("p").file("/outside/x", 0o644, b"x")]).contains(".deb"));
    }

    #[test]
    fn a_hard_link_to_anything_but_the_packages_own_files_is_refused() {
        let place = TestPackage::new("p").hard_link("./x", "../outside/x");
        assert!(!refused(vec![place]).is_empty());
        let other = TestPackage::new("other").file("./shadow", 0o600, b"secret");
        let thief = TestPackage::new("thief").hard_link("./mine", "./shadow");
        let error = refused(vec![other, thief]);
        assert!(error.contains("package thief") && error.contains("`/shadow`"), "{error}");
    }

    #[test]
    fn devices_are_refused() {
        assert!(refused(vec![TestPackage::new("p").device("./disk")]).contains("`/disk` is a device"));
    }

    #[test]
    fn two_packages_with_the_same_file_are_refused_with_both_names() {
        let error = refused(vec![
            TestPackage::new("a").file("./x", 0o644, b"a"),
            TestPackage::new("b").file("./x", 0o644, b"b"),
        ]);
        assert!(
            error.contains("package a") && error.contains("package b") && error.contains("`/x`"),
            "{error}"
        );
    }

    #[test]
    fn a_package_that_replaces_another_keeps_its_files_in_either_order() {
        let old = || TestPackage::new("old").file("./x", 0o644, b"old");
        let new = || TestPackage::new("new").field("Replaces: old (<< 2)").file("./x", 0o644, b"new");
        let place = Place::new();
        let (ledger, laid) = place.lay(vec![old(), new()], Conffiles::InPlace).unwrap();
        assert_eq!(place.text("x"), "new");
        assert!(ledger.lists[&0].is_empty() && laid[1].robbed.contains(&0));
        let place = Place::new();
        let (ledger, _) = place.lay(vec![new(), old()], Conffiles::InPlace).unwrap();
        assert_eq!(place.text("x"), "new");
        assert!(ledger.lists[&1].is_empty());
    }

    #[test]
    fn a_folder_that_is_there_stays_as_it_is() {
        let place = Place::new();
        let packages =
            vec![TestPackage::new("a").folder("./d/", 0o700), TestPackage::new("b").folder("./d/", 0o755)];
        place.lay(packages, Conffiles::InPlace).unwrap();
        assert_eq!(place.root.lstat(b"d").unwrap().unwrap().st_mode & 0o7777, 0o700);
    }

    #[test]
    fn a_folder_stays_where_a_later_package_has_a_link_and_no_file_takes_its_place() {
        let place = Place::new();
        let folder = || TestPackage::new("a").folder("./d/", 0o755).file("./d/x", 0o644, b"x");
        let link = TestPackage::new("b").symlink("./d", "elsewhere");
        let (ledger, laid) = place.lay(vec![folder(), link], Conffiles::InPlace).unwrap();
        assert_eq!(place.text("d/x"), "x");
        assert_eq!(&*ledger.laid[b"d".as_slice()].package, "a");
        assert_eq!(laid[1].list, [b"d".to_vec()]);
        let error = refused(vec![folder(), TestPackage::new("b").file("./d", 0o644, b"file")]);
        assert!(
            error.starts_with("package b: `/d` is a file in this package and a folder of another"),
            "{error}"
        );
    }

    #[test]
    fn configuration_files_wait_for_dpkg_or_lie_in_place() {
        let package = || {
            TestPackage::new("p")
                .control("conffiles", "/c\nremove-on-upgrade /gone\n")
                .file("./c", 0o644, b"x")
        };
        let place = Place::new();
        let (_, laid) = place.lay(vec![package()], Conffiles::Waiting).unwrap();
        assert_eq!(place.text("c.dpkg-new"), "x");
        let former = (b"gone".to_vec(), "newconffile remove-on-upgrade".to_owned());
        assert_eq!(laid[0].conffiles, [(b"c".to_vec(), "newconffile".to_owned()), former]);
        let place = Place::new();
        let (_, laid) = place.lay(vec![package()], Conffiles::InPlace).unwrap();
        assert_eq!(
            (place.text("c").as_str(), laid[0].conffiles[0].1.as_str()),
            ("x", "9dd4e461268c8034f5c8564e155c67a6")
        );
    }

    #[test]
    fn a_diverted_file_lands_on_its_other_name_and_an_override_sets_its_mode() {
        let place = Place::new();
        std::fs::create_dir_all(place.path("root/var/lib/dpkg")).unwrap();
        std::fs::write(place.path("root/var/lib/dpkg/diversions"), "/x\n/x.real\nwrapper\n").unwrap();
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let overrides = format!("#{user} #{group} 2750 /y\n");
        std::fs::write(place.path("root/var/lib/dpkg/statoverride"), overrides).unwrap();
        let tool = TestPackage::new("tool").file("./x", 0o755, b"tool").file("./y", 0o755, b"y");
        let wrapper = TestPackage::new("wrapper").file("./x", 0o755, b"wrapper");
        let (_, laid) = place.lay(vec![tool, wrapper], Conffiles::InPlace).unwrap();
        assert_eq!((place.text("x").as_str(), place.text("x.real").as_str()), ("wrapper", "tool"));
        assert_eq!(place.root.lstat(b"y").unwrap().unwrap().st_mode & 0o7777, 0o2750);
        assert_eq!(laid[0].list, [b"x".to_vec(), b"y".to_vec()]);
    }
}
