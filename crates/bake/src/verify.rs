//! Looking whether a folder of outputs is what its manifest says, and whether its recipe and lock give it again.

use std::fs;
use std::path::{Path, PathBuf};

use block::{BlockSource, Digest};
use formats::{RawFile, VmdkFile};
use serde::Serialize;

use crate::check::CHECKS;
use crate::origin::{LOG, Made};
use crate::work::WorkFolder;
use crate::{Error, LockMode, MANIFEST, Manifest, ParentChoice, Request, Stages, bake};

/// What to verify, and how.
#[derive(Clone, Debug)]
pub struct Verification {
    /// A folder that a bake wrote.
    pub folder: PathBuf,
    /// Whether to bake again from the lock and compare every output.
    pub rebuild: bool,
    /// The recipe's file, where it is no longer at the place that the folder's log names.
    pub recipe: Option<PathBuf>,
    /// The lock's file, likewise.
    pub lock: Option<PathBuf>,
    /// The cache folder.
    pub cache: PathBuf,
    /// `BAKEHOUSE_DEBIAN_MIRROR`.
    pub mirror: Option<String>,
    /// Seconds since 1970, for validity dates only.
    pub now: i64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "problem")]
pub enum Fault {
    /// A file that the manifest names is not there, or that the other bake made.
    Missing {
        /// Its name.
        file: String,
    },
    /// A volume whose digest is not the manifest's.
    Digest {
        /// The raw or VMDK file.
        file: String,
        /// What the manifest says.
        expected: String,
        /// What the file has.
        actual: String,
    },
    /// A file that came out otherwise when it was baked again.
    Differs {
        /// Its name.
        file: String,
        /// The first byte that differs, counted from 0.
        offset: u64,
        /// Its bytes when baked then and now.
        sizes: (u64, u64),
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { file } => write!(f, "{file}: is not there"),
            Self::Digest { file, expected, actual } => {
                write!(f, "{file}: holds snapshot {actual}, {MANIFEST} says {expected}")
            }
            Self::Differs { file, offset, sizes: (then, now) } if then == now => {
                write!(f, "{file}: differs from byte {offset} on")
            }
            Self::Differs { file, offset, sizes: (then, now) } => {
                write!(f, "{file}: differs from byte {offset} on; it has {then} bytes, baked again {now}")
            }
        }
    }
}

/// What came of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The files that were looked at, in order.
    pub files: Vec<String>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Looks whether the folder's disks are what its manifest says; with `rebuild` also bakes the recipe again from its
/// lock, into the cache, and compares every output but logs and checks. The folder stays as it is.
pub fn verify(what: &Verification, stages: &Stages<'_>) -> Result<Verified, Error> {
    let manifest = Manifest::read(&what.folder)?;
    let mut verified = Verified { files: Vec::new(), faults: Vec::new() };
    stages.run("verify", |_| digests(&what.folder, &manifest, &mut verified))?;
    if what.rebuild {
        rebuild(what, &manifest, stages, &mut verified)?;
    }
    Ok(verified)
}

fn digests(folder: &Path, manifest: &Manifest, verified: &mut Verified) -> Result<(), Error> {
    for volume in &manifest.volumes {
        let Some(expected) = &volume.digest else { continue };
        for (name, is_raw) in [(&volume.raw, true), (&volume.vmdk, false)] {
            let Some(name) = name else { continue };
            verified.files.push(name.clone());
            let path = folder.join(name);
            if !path.exists() {
                verified.faults.push(Fault::Missing { file: name.clone() });
                continue;
            }
            let actual =
                if is_raw { digest(&RawFile::open(&path)?) } else { digest(&VmdkFile::open(&path)?) };
            let actual = actual?.to_hex();
            if actual != *expected {
                let (file, expected) = (name.clone(), expected.clone());
                verified.faults.push(Fault::Digest { file, expected, actual });
            }
        }
    }
    Ok(())
}

fn digest(disk: &dyn BlockSource) -> Result<Digest, Error> {
    Ok(block::snapshot_digest(disk.len(), block::block_ids(disk)?))
}

fn rebuild(
    what: &Verification,
    manifest: &Manifest,
    stages: &Stages<'_>,
    verified: &mut Verified,
) -> Result<(), Error> {
    let made = Made::read(&what.folder)?;
    let recipe = what.recipe.clone().unwrap_or(made.recipe);
    if !recipe.exists() {
        let reason = format!("the recipe {} is not there: name its file with --recipe", recipe.display());
        return Err(Error::NotBaked { path: what.folder.clone(), reason });
    }
    let lock = what.lock.clone().unwrap_or(match &what.recipe {
        Some(recipe) => recipe.with_extension("lock"),
        None => made.lock,
    });
    let arch = manifest.arch.parse().map_err(|error: recipe::UnknownArch| Error::NotBaked {
        path: what.folder.join(MANIFEST),
        reason: error.to_string(),
    })?;
    if let Some(found) = recipe::Lock::read(&lock)?
        && found.digest().to_hex() != manifest.lock
    {
        let reason = format!(
            "was baked from another lock than {} is now: restore that lock, or name it with --lock",
            lock.display()
        );
        return Err(Error::NotBaked { path: what.folder.clone(), reason });
    }
    let work = WorkFolder::new(&what.cache, "verify")?;
    let request = Request {
        recipe,
        set: made.set,
        arch: Some(arch),
        out: Some(work.path().join("out")),
        lock: Some(lock),
        lock_mode: LockMode::Locked,
        parent: ParentChoice::Locked,
        native_dispatch: true,
        explain: false,
        check: None,
        // Not the user's: what it knows of the first bake must not stand for what comes out of this one.
        store: None,
        cache: what.cache.clone(),
        mirror: what.mirror.clone(),
        now: what.now,
    };
    let again = bake(&request, stages)?;
    stages.run("compare", |_| compare(&what.folder, &again.out, verified))
}

/// Whether an output depends on more than the lock and the recipe.
fn varies(name: &str) -> bool {
    name == CHECKS || name == LOG || name.ends_with(".log")
}

fn compare(then: &Path, now: &Path, verified: &mut Verified) -> Result<(), Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(now).map_err(Error::io(now, "cannot be listed"))? {
        let entry = entry.map_err(Error::io(now, "cannot be listed"))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !varies(name));
    names.sort();
    for name in names {
        let path = then.join(&name);
        if path.exists() {
            let (then, now) = (RawFile::open(&path)?, RawFile::open(&now.join(&name))?);
            if let Some(offset) = first_difference(&then, &now)? {
                let (file, sizes) = (name.clone(), (then.len(), now.len()));
                verified.faults.push(Fault::Differs { file, offset, sizes });
            }
        } else {
            verified.faults.push(Fault::Missing { file: name.clone() });
        }
        if !verified.files.contains(&name) {
            verified.files.push(name);
        }
    }
    Ok(())
}

/// The first byte in which two disks differ; the end of the shorter when it is the beginning of the other. What is a
/// hole in both is not read.
fn first_difference(a: &dyn BlockSource, b: &dyn BlockSource) -> Result<Option<u64>, Error> {
    const PIECE: u64 = 1 << 20;
    let end = a.len().min(b.len());
    let mut pieces: Vec<u64> = Vec::new();
    for (offset, len) in a.data().chain(b.data()) {
        pieces.extend(offset / PIECE..(offset + len).div_ceil(PIECE));
    }
    pieces.sort_unstable();
    pieces.dedup();
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for piece in pieces {
        let (from, to) = (piece * PIECE, end.min((piece + 1) * PIECE));
        let Some(len) = to.checked_sub(from) else { break };
        for (disk, buffer) in [(a, &mut left), (b, &mut right)] {
            buffer.resize(len as usize, 0);
            disk.read_at(from, buffer).map_err(|source| block::ReadError { from, to, source })?;
        }
        if let Some(at) = left.iter().zip(&right).position(|(a, b)| a != b) {
            return Ok(Some(from + at as u64));
        }
    }
    Ok((a.len() != b.len()).then_some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found_in_data_and_in_holes() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, size: u64, bytes: &[(u64, u8)]| {
            use std::os::unix::fs::FileExt;
            let path = folder.path().join(name);
            let file = fs::File::create(&path).unwrap();
            file.set_len(size).unwrap();
            for (at, byte) in bytes {
                file.write_all_at(&[*byte], *at).unwrap();
            }
            RawFile::open(&path).unwrap()
        };
        let whole = file("a", 64 << 20, &[(5, 1), (50 << 20, 2)]);
        let check = |size, bytes: &[(u64, u8)], expected| {
            assert_eq!(first_difference(&whole, &file("b", size, bytes)).unwrap(), expected);
            assert_eq!(first_difference(&file("b", size, bytes), &whole).unwrap(), expected);
        };
        check(64 << 20, &[(5, 1), (50 << 20, 2)], None);
        check(64 << 20, &[(5, 1), (50 << 20, 3)], Some(50 << 20));
        check(64 << 20, &[(5, 1), (50 << 20, 2), (9 << 20, 7)], Some(9 << 20));
        check(63 << 20, &[(5, 1), (50 << 20, 2)], Some(63 << 20));
        check(3, &[], Some(3));
    }
}
