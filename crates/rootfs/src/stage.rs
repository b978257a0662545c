//! Reading packages ahead of time: every data archive is uncompressed into private files beside the root, with owner,
//! mode, time and hash, so that laying a package down is only renaming. Runs on all cores while scripts run.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use block::{Digest, Hasher};
use debian::deb::Deb;
use debian::tar::Kind;
use md5::Digest as _;

use crate::error::{Error, OnFile};
use crate::package::Package;
use crate::root::{Attributes, set_file};

/// By how much nicer is what runs beside the scripts of packages.
pub(crate) const BEHIND_SCRIPTS: i32 = 4;

/// A package whose data archive has been read.
pub(crate) struct Staged {
    /// In the archive's order.
    pub(crate) members: Vec<StagedMember>,
    /// Where the contents of files are: file number `n` of the package is `<folder>/<n>`.
    pub(crate) folder: PathBuf,
}

pub(crate) struct StagedMember {
    /// Relative, without `./`; empty for the root folder.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: StagedKind,
    /// With the archive's numeric owner.
    pub(crate) attributes: Attributes,
    pub(crate) user: Vec<u8>,
    pub(crate) group: Vec<u8>,
}

pub(crate) enum StagedKind {
    File {
        number: usize,
        size: u64,
        hash: Digest,
        md5: Option<String>,
    },
    Directory,
    Symlink(Vec<u8>),
    /// Relative path of the member that it is another name of.
    HardLink(Vec<u8>),
}

/// Hands out packages in the order in which they are needed; workers read ahead.
pub(crate) struct Stager<'a> {
    packages: &'a [Package],
    order: Vec<usize>,
    folder: &'a Path,
    newest: i64,
    next: AtomicUsize,
    stop: AtomicBool,
    done: Mutex<Vec<Option<Result<Staged, Error>>>>,
    changed: Condvar,
}

impl<'a> Stager<'a> {
    /// `order`: indexes of `packages` in the order of their use; `folder` is empty and on the root's file system. No
    /// file's time is later than `newest`.
    pub(crate) fn new(packages: &'a [Package], order: Vec<usize>, folder: &'a Path, newest: i64) -> Self {
        let done = Mutex::new(packages.iter().map(|_| None).collect());
        let (next, stop, changed) = (AtomicUsize::new(0), AtomicBool::new(false), Condvar::new());
        Self { packages, order, folder, newest, next, stop, done, changed }
    }

    /// Runs `work` while as many threads as there are cores read packages.
    pub(crate) fn run<T>(&self, work: impl FnOnce(&Self) -> T) -> T {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.read_all());
            }
            let result = work(self);
            self.stop.store(true, Ordering::Relaxed);
            result
        })
    }

    fn read_all(&self) {
        // Scripts, which run one after the other, are what a bake waits for.
        let _ = rustix::process::nice(BEHIND_SCRIPTS);
        while !self.stop.load(Ordering::Relaxed) {
            let Some(index) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            let staged = stage(&self.packages[*index], self.folder.join(index.to_string()), self.newest);
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            if staged.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            done[*index] = Some(staged);
            self.changed.notify_all();
        }
    }

    /// Waits for a package and takes it. When another one turned out to be damaged, its error.
    pub(crate) fn take(&self, index: usize) -> Result<Staged, Error> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(staged) = done[index].take() {
                return staged;
            }
            let damaged = done.iter_mut().find(|staged| matches!(staged, Some(Err(_))));
            if let Some(Err(error)) = damaged.and_then(Option::take) {
                return Err(error);
            }
            done = self.changed.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Reads one package's data archive into `folder`.
fn stage(package: &Package, folder: PathBuf, newest: i64) -> Result<Staged, Error> {
    let refuse = |path: &[u8], problem: &str| Error::Member {
        package: package.name.to_string(),
        path: crate::lay::in_message(path),
        problem: problem.into(),
    };
    std::fs::create_dir(&folder).on("cannot make the folder", &folder)?;
    let mut deb = Deb::open(&package.path)?;
    let mut data = deb.data()?;
    let mut members = Vec::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut number = 0;
    while let Some(mut member) = data.next()? {
        let path = member.clean_path();
        if let Err(error) = tree::TreePath::new(&path) {
            return Err(refuse(&path, &format!("cannot be laid down: {error}")));
        }
        // A compiled python file remembers its source's time, so a time is cut where the file is written, not later.
        let mtime = member.mtime.min(newest);
        let attributes = Attributes { mode: member.mode, uid: member.uid, gid: member.gid, mtime };
        let (user, group) = (member.uname.clone(), member.gname.clone());
        if member.xattrs.iter().any(|(name, _)| !name.is_empty()) {
            return Err(refuse(&path, "has extended attributes, which dpkg does not support either"));
        }
        let kind = match member.kind.clone() {
            Kind::Dir => StagedKind::Directory,
            Kind::Symlink(target) => StagedKind::Symlink(target),
            Kind::Hardlink(target) => StagedKind::HardLink(debian::tar::clean(&target)),
            Kind::File { .. } => {
                let place = folder.join(number.to_string());
                let mut file = File::create_new(&place).on("cannot write", &place)?;
                let (mut hash, mut size) = (Hasher::new(), 0);
                let mut md5 = package.conffiles.contains(&path).then(md5::Md5::new);
                loop {
                    let got = member.read(&mut buffer).on("cannot read", &package.path)?;
                    if got == 0 {
                        break;
                    }
                    let bytes = &buffer[..got];
                    hash.update(bytes);
                    if let Some(md5) = &mut md5 {
                        md5.update(bytes);
                    }
                    file.write_all(bytes).on("cannot write", &place)?;
                    size += got as u64;
                }
                set_file(file.as_fd(), attributes).on("cannot set owner and mode of", &place)?;
                let md5 = md5.map(|md5| hex(&md5.finalize()));
                number += 1;
                StagedKind::File { number: number - 1, size, hash: hash.finish(), md5 }
            }
            Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => {
                return Err(refuse(
                    &path,
                    "is a device or a pipe, which a package of an image has no need of",
                ));
            }
        };
        members.push(StagedMember { path, kind, attributes, user, group });
    }
    Ok(Staged { members, folder })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
