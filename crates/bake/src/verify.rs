//! Looking whether a folder of outputs is what its manifest says, and whether its recipe and lock give it again.

use std::fs;
use std::path::{Path, PathBuf};

use block::{BlockSource, Digest};
use catalog::Home;
use formats::{RawFile, VmdkFile};
use serde::Serialize;
use serde_json::Value;

use crate::check::CHECKS;
use crate::origin::{LOG, Made};
use crate::registration::{MAPPINGS, REGISTRATION};
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
    /// How many bytes of files in the making may lie in memory.
    pub memory: u64,
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
    /// A file that cannot be read as what it should be, or whose words are not those of the others.
    Broken {
        /// Its name.
        file: String,
        /// What is wrong, in words.
        reason: String,
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
                write!(f, "{file}: the disk's digest is {actual}, {MANIFEST} says {expected}")
            }
            Self::Broken { file, reason } => write!(f, "{file}: {reason}"),
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

/// Looks whether the folder's disks are what its manifest says, and whether its other outputs agree with each other; with `rebuild` also bakes the recipe again from its
/// lock, into the cache, and compares every output but logs and checks. The folder stays as it is.
pub fn verify(what: &Verification, stages: &Stages<'_>) -> Result<Verified, Error> {
    let manifest = Manifest::read(&what.folder)?;
    let mut verified = Verified { files: Vec::new(), faults: Vec::new() };
    stages.run("verify", |_| {
        digests(&what.folder, &manifest, &mut verified);
        words(&what.folder, &manifest, &mut verified);
        Ok::<_, Error>(())
    })?;
    if what.rebuild {
        rebuild(what, &manifest, stages, &mut verified)?;
    }
    Ok(verified)
}

fn digests(folder: &Path, manifest: &Manifest, verified: &mut Verified) {
    for volume in &manifest.volumes {
        let Some(expected) = &volume.digest else { continue };
        for (name, is_raw) in [(&volume.raw, true), (&volume.vmdk, false)] {
            let Some(file) = name.clone() else { continue };
            verified.files.push(file.clone());
            let path = folder.join(&file);
            if !path.exists() {
                verified.faults.push(Fault::Missing { file });
                continue;
            }
            let actual = if is_raw {
                RawFile::open(&path).map_err(Error::from).and_then(|disk| digest(&disk))
            } else {
                VmdkFile::open(&path).map_err(Error::from).and_then(|disk| digest(&disk))
            };
            match actual.map(|actual| actual.to_hex()) {
                Ok(actual) if actual == *expected => {}
                Ok(actual) => {
                    verified.faults.push(Fault::Digest { file, expected: expected.clone(), actual })
                }
                Err(error) => verified.faults.push(Fault::Broken { file, reason: error.to_string() }),
            }
        }
    }
}

/// Whether the mapping, the registration and the manifest say the same of the image.
fn words(folder: &Path, manifest: &Manifest, verified: &mut Verified) {
    let mut broken = |file: &str, reason: String| {
        verified.faults.push(Fault::Broken { file: file.to_owned(), reason });
    };
    let mut texts = Vec::new();
    for file in [MAPPINGS, REGISTRATION] {
        match fs::read(folder.join(file)).map(|text| serde_json::from_slice::<Value>(&text)) {
            Ok(Ok(value)) => texts.push(value),
            Ok(Err(error)) => broken(file, format!("is no JSON: {error}")),
            Err(error) => broken(file, format!("cannot be read: {error}")),
        }
    }
    if let [mappings, registration] = texts.as_slice() {
        if registration["BlockDeviceMappings"] != *mappings {
            broken(REGISTRATION, format!("its BlockDeviceMappings are not those of {MAPPINGS}"));
        }
        let entries = || mappings.as_array().into_iter().flatten();
        for volume in &manifest.volumes {
            let expected = volume.snapshot_id.map(|id| id.to_string());
            let entry = entries().find(|entry| entry["DeviceName"] == volume.device.as_str());
            let found = entry.map(|entry| entry["Ebs"]["SnapshotId"].as_str().map(str::to_owned));
            if found.as_ref() != Some(&expected) {
                let (device, found) =
                    (&volume.device, found.flatten().unwrap_or_else(|| "no snapshot".into()));
                let expected = expected.unwrap_or_else(|| "none".into());
                broken(MAPPINGS, format!("{device} is made from {found}, {MANIFEST} says {expected}"));
            }
        }
        // The image's id follows from all that the manifest says.
        let mut bare = manifest.clone();
        bare.image_id = None;
        bare.volumes.iter_mut().for_each(|volume| volume.snapshot_id = None);
        let place = |device: &str| entries().position(|entry| entry["DeviceName"] == device);
        bare.volumes.sort_by_key(|volume| place(&volume.device));
        let home = Home { account: bare.account.clone(), region: bare.region.clone() };
        let id = bare
            .arch
            .parse::<recipe::Arch>()
            .ok()
            .map(|arch| home.ami_id(&bare.name, arch.ec2(), bare.to_text().as_bytes()));
        if id.is_none() || id != manifest.image_id {
            broken(MANIFEST, "was changed: its image_id does not follow from the rest of it".to_owned());
        }
    }
    verified.files.extend([MAPPINGS, REGISTRATION, MANIFEST].map(str::to_owned));
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
    let Some(found) = recipe::Lock::read(&lock)? else {
        let reason = format!("its lock {} is not there: restore it, or name it with --lock", lock.display());
        return Err(Error::NotBaked { path: what.folder.clone(), reason });
    };
    if found.digest().to_hex() != manifest.lock {
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
        memory: what.memory,
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
