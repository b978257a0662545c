//! The parent that an image is laid out against: from an image that somebody names to the file beside the lock, and back.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use block::Digest;
use recipe::{Arch, Lock, LockedParent, Volume};

use crate::layout::{Layout, VolumeLayout};
use crate::opened::Opened;
use crate::{Error, MANIFEST, Stages};

/// The largest layout that is read, in bytes.
const MOST: u64 = 64 << 20;

/// Which parent an image is laid out against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ParentChoice {
    /// The lock's, if it has one.
    #[default]
    Locked,
    /// None: what the lock has is taken out of it.
    Without,
    /// This image: a folder of outputs (or the one above it, with a folder for each architecture), an image file, or a snapshot's
    /// name or id.
    Image(PathBuf),
}

/// What is to become of the parent in a lock.
pub(crate) enum Wish {
    Keep,
    Without(Arch),
    Set(Arch, LockedParent, Vec<u8>),
}

impl Wish {
    /// Reads the image that is to be the parent, if one is named.
    pub(crate) fn of(
        choice: &ParentChoice,
        arch: Arch,
        store: Option<&Path>,
        stages: &Stages<'_>,
    ) -> Result<Self, Error> {
        let given = match choice {
            ParentChoice::Locked => return Ok(Self::Keep),
            ParentChoice::Without => return Ok(Self::Without(arch)),
            ParentChoice::Image(given) => given,
        };
        stages.run("parent", |_| {
            let below = given.join(arch.as_str());
            let is_above = !given.join(MANIFEST).exists() && below.join(MANIFEST).exists();
            let given = if is_above { &below } else { given };
            // A folder that is no store holds no snapshot.
            let nowhere = given.join(MANIFEST);
            let image = Opened::open(given, store.unwrap_or(&nowhere), stages.report())?.image;
            if let Some(other) = image.arch.as_deref().filter(|other| *other != arch.as_str()) {
                let reason = format!("is an image for {other}, and cannot be the parent of one for {arch}");
                return Err(Error::Parent { path: given.clone(), reason });
            }
            for remark in &image.remarks {
                stages.report().line(&format!("parent: {remark}"));
            }
            let Some((root, others)) = image.volumes.split_first() else {
                let reason = "has no volumes".to_owned();
                return Err(Error::Parent { path: given.clone(), reason });
            };
            let others = others.iter().filter(|volume| !volume.blocks.is_empty());
            let volumes = [root].into_iter().chain(others).map(VolumeLayout::of).collect();
            let layout = Layout { volumes };
            let root = &layout.volumes[0];
            let image = root.digest();
            let bytes = layout.to_bytes();
            if bytes.len() as u64 > MOST {
                let reason = format!("has too many files and blocks for a parent: where they lie takes more than {} MiB", MOST >> 20);
                return Err(Error::Parent { path: given.clone(), reason });
            }
            if root.names.is_empty() {
                let line = "parent: has no ext4 file system that can be read: blocks are counted against it, places are those without it";
                stages.report().line(line);
            }
            Ok(Self::Set(arch, LockedParent { image, layout: Digest::of(&bytes) }, bytes))
        })
    }

    /// The lock as it is to be; `None`: as it is. An error when it would have to change and `locked` forbids that.
    pub(crate) fn apply(&self, lock: &Lock, path: &Path, locked: bool) -> Result<Option<Lock>, Error> {
        let (arch, wanted) = match self {
            Self::Keep => return Ok(None),
            Self::Without(arch) => (*arch, None),
            Self::Set(arch, parent, _) => (*arch, Some(*parent)),
        };
        let mut changed = lock.clone();
        let Some(entry) = changed.archs.get_mut(&arch).filter(|entry| entry.parent != wanted) else {
            return Ok(None);
        };
        if locked {
            let reason = match (entry.parent, wanted) {
                (None, _) => format!("it has no parent for {arch}"),
                (_, None) => format!("it has a parent for {arch}"),
                _ => format!("its parent for {arch} is another image"),
            };
            let reason = format!("{reason}, and --locked allows no change: bake without it");
            return Err(Error::Parent { path: path.to_owned(), reason });
        }
        entry.parent = wanted;
        Ok(Some(changed))
    }

    /// Writes the layout beside the lock, unless it is there.
    pub(crate) fn write(&self, lock: &Path) -> Result<(), Error> {
        let Self::Set(arch, _, bytes) = self else { return Ok(()) };
        let path = layout_path(lock, *arch);
        if read(&path).is_ok_and(|there| there == *bytes) {
            return Ok(());
        }
        recipe::replace_file(&path, bytes).map_err(Error::io(path, "cannot be written"))
    }

    /// Removes the layout that no lock names any more.
    pub(crate) fn sweep(&self, lock: &Path) {
        if let Self::Without(arch) = self {
            // What stays behind is looked at by nobody.
            let _ = fs::remove_file(layout_path(lock, *arch));
        }
    }
}

/// Where the layout of a lock's parent is.
fn layout_path(lock: &Path, arch: Arch) -> PathBuf {
    lock.with_extension(format!("{arch}.layout"))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The parent that a lock names, by the layout beside it.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    layout: Layout,
}

impl Parent {
    /// Reads the layout of an architecture's parent; `None` when the lock names none.
    pub(crate) fn of(lock: &Lock, arch: Arch, lock_path: &Path) -> Result<Option<Self>, Error> {
        let Some(locked) = lock.for_arch(arch).and_then(|locked| locked.parent) else { return Ok(None) };
        let path = layout_path(lock_path, arch);
        let wrong = |what: String| {
            let reason = format!(
                "{what}, and the lock lays the image for {arch} out against the parent {}: restore it, name the parent again with \
                 --parent IMAGE, or take it out of the lock with --parent none",
                locked.image
            );
            Error::Parent { path: path.clone(), reason }
        };
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(wrong("is not there".into()));
            }
            Err(error) => return Err(wrong(format!("cannot be read ({error})"))),
        };
        let found = Digest::of(&bytes);
        if found != locked.layout {
            return Err(wrong(format!("has the SHA-256 {found}, the lock says {}", locked.layout)));
        }
        let layout = Layout::from_bytes(&bytes).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(Self { layout }))
    }

    /// What the parent has of one of the recipe's volumes.
    pub(crate) fn volume(&self, volume: &Volume) -> Option<&VolumeLayout> {
        if volume.root {
            return self.layout.volumes.first();
        }
        let disk = volume.device.disk();
        let is_it = |there: &&VolumeLayout| {
            let device = recipe::DeviceName::new(&there.device);
            device.is_ok_and(|device| device.disk() == disk)
        };
        self.layout.volumes.iter().skip(1).find(is_it)
    }
}
