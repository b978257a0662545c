//! An image, wherever it is: a folder of outputs, an image file, a snapshot of a store.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block::{BlockMap, BlockSource, Digest};
use diff::{Image, Package, Volume};
use formats::{Container, RawFile, VmdkFile};
use inspect::PartitionContent;
use recipe::Arch;
use store::{LocalBackend, Store};
use tree::TreePath;

use crate::{Error, MANIFEST, Manifest, ManifestVolume, Report, Unit};

/// Most bytes of dpkg's database that are read.
const DATABASE: u64 = 64 << 20;
/// Bytes in a sector: a disk is a whole number of them.
const SECTOR: u64 = 512;

/// An image that is open.
pub(crate) struct Opened {
    pub(crate) image: Image,
    /// Keeps bakes from writing to the folder.
    _held: Option<File>,
}

impl Opened {
    /// Opens a folder that a bake left or its manifest, an image file (raw or VMDK), or a snapshot of the store in the folder `store`, by name
    /// or id. A folder is held against bakes as long as it is open.
    pub(crate) fn open(given: &Path, store: &Path, report: &dyn Report) -> Result<Self, Error> {
        match fs::metadata(given) {
            Ok(metadata) if metadata.is_dir() => Self::folder(given, store, report),
            Ok(_) if given.file_name().is_some_and(|name| name == MANIFEST) => {
                let folder = given.parent().filter(|folder| !folder.as_os_str().is_empty());
                Self::folder(folder.unwrap_or(Path::new(".")), store, report)
            }
            Ok(_) => Self::disk(given, image_file(given)?, report),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Self::snapshot(given, store)
            }
            Err(error) => Err(Error::io(given, "cannot be read")(error)),
        }
    }

    /// What a bake left.
    fn folder(folder: &Path, store: &Path, report: &dyn Report) -> Result<Self, Error> {
        let held = File::open(folder).map_err(Error::io(folder, "cannot be opened"))?;
        if let Err(fs::TryLockError::WouldBlock) = held.try_lock_shared() {
            return Err(Error::BeingBaked { path: folder.to_owned() });
        }
        let manifest =
            Manifest::read(folder).map_err(|error| crate::manifest::nearer(folder).unwrap_or(error))?;
        let mut remarks = Vec::new();
        let mut volumes = Vec::new();
        for volume in &manifest.volumes {
            let found = match &volume.digest {
                None => {
                    Found { disk: Box::new(BlockMap::empty(volume.size)), blocks: Vec::new(), file: None }
                }
                Some(digest) => baked(folder, volume, digest, store, report)?,
            };
            let Found { disk, blocks, file } = found;
            if let (Some(file), Some(digest)) = (file, &volume.digest)
                && block::snapshot_digest(disk.len(), blocks.iter().copied()).to_hex() != *digest
            {
                remarks.push(format!("{file} is not what {MANIFEST} says: it was changed after the bake"));
            }
            volumes.push(Volume::of_blocks(Some(volume.device.clone()), disk, blocks)?);
        }
        let listed = |manifest: Manifest| -> Vec<Package> {
            let package = |package: crate::ManifestPackage| Package {
                name: package.name,
                version: package.version,
                architecture: package.architecture,
            };
            manifest.packages.into_iter().map(package).collect()
        };
        let (name, arch) = (Some(manifest.name.clone()), Some(manifest.arch.clone()));
        // Who changed a disk may have installed something on it.
        let changed = !remarks.is_empty();
        let on_disk = if changed { database(&volumes)? } else { None };
        let packages = on_disk.unwrap_or_else(|| listed(manifest));
        let image = Image {
            given: folder.display().to_string(),
            name,
            arch,
            packages: Some(packages),
            volumes,
            remarks,
        };
        Ok(Self { image, _held: Some(held) })
    }

    /// One disk of which nothing else is known.
    fn disk(given: &Path, disk: Box<dyn BlockSource>, report: &dyn Report) -> Result<Self, Error> {
        let blocks = ids(&*disk, report)?;
        Self::nameless(given, disk, blocks)
    }

    fn nameless(given: &Path, disk: Box<dyn BlockSource>, blocks: Vec<(u64, Digest)>) -> Result<Self, Error> {
        let volumes = vec![Volume::of_blocks(None, disk, blocks)?];
        let packages = database(&volumes)?;
        let arch = packages.as_deref().and_then(architecture);
        let given = given.display().to_string();
        let image = Image { given, name: None, arch, packages, volumes, remarks: Vec::new() };
        Ok(Self { image, _held: None })
    }

    /// A snapshot: its map has the ids, so that only what tells files apart is read.
    fn snapshot(given: &Path, place: &Path) -> Result<Self, Error> {
        let wrong = |end: String| Error::NotBaked {
            path: given.to_owned(),
            reason: format!(
                "is neither a folder that `bakehouse bake` wrote nor an image file that is there, {end}"
            ),
        };
        let store = match Store::open(Arc::new(LocalBackend::new(place))) {
            Ok(store) => Arc::new(store),
            Err(store::Error::NotAStore { .. }) => {
                return Err(wrong(format!(
                    "and for a snapshot's name there is no store in {}",
                    place.display()
                )));
            }
            Err(error) => return Err(error.into()),
        };
        let record = match store.find(&given.to_string_lossy()) {
            Ok(record) => record,
            Err(error @ store::Error::NoSnapshot { .. }) => {
                return Err(wrong(format!("and there is {error}")));
            }
            Err(error) => return Err(error.into()),
        };
        let disk = store.disk(&record)?;
        let blocks = disk.snapshot().blocks.clone();
        let mut opened = Self::nameless(given, Box::new(disk), blocks)?;
        opened.image.name = Some(record.name);
        Ok(opened)
    }
}

/// A volume that was found.
struct Found {
    disk: Box<dyn BlockSource>,
    blocks: Vec<(u64, Digest)>,
    /// The file that it was read from, if it was one.
    file: Option<String>,
}

/// A volume of a bake from its raw file, else its VMDK, else the store.
fn baked(
    folder: &Path,
    volume: &ManifestVolume,
    digest: &str,
    store: &Path,
    report: &dyn Report,
) -> Result<Found, Error> {
    let names = [&volume.raw, &volume.vmdk].into_iter().flatten();
    if let Some(name) = names.clone().find(|name| folder.join(name).exists()) {
        let disk = image_file(&folder.join(name))?;
        let blocks = ids(&*disk, report)?;
        return Ok(Found { disk, blocks, file: Some(name.clone()) });
    }
    // People who keep a store need not keep the files, too.
    let snapshot = Store::open(Arc::new(LocalBackend::new(store))).ok().and_then(|store| {
        let store = Arc::new(store);
        let records = store.list().ok()?;
        let record = records.into_iter().rev().find(|record| record.digest.to_hex() == digest)?;
        store.disk(&record).ok()
    });
    let Some(disk) = snapshot else {
        let names: Vec<_> = names.map(String::as_str).collect();
        let reason = format!(
            "{} has no file here ({}), and the store {} does not have it: bake again",
            volume.device,
            names.join(", "),
            store.display()
        );
        return Err(Error::NotBaked { path: folder.to_owned(), reason });
    };
    let blocks = disk.snapshot().blocks.clone();
    Ok(Found { disk: Box::new(disk), blocks, file: None })
}

/// Opens an image file, raw or VMDK.
fn image_file(path: &Path) -> Result<Box<dyn BlockSource>, Error> {
    match Container::of(path).map_err(Error::io(path, "cannot be opened"))? {
        Some(Container::Vmdk) => return Ok(Box::new(VmdkFile::open(path)?)),
        Some(Container::Qcow2) => {
            let reason =
                "is a qcow2 file: write its disk with `qemu-img convert -O raw`, and give that".to_owned();
            return Err(Error::NotBaked { path: path.to_owned(), reason });
        }
        None => {}
    }
    let disk = RawFile::open(path)?;
    if disk.len() == 0 || !disk.len().is_multiple_of(SECTOR) {
        let reason = format!(
            "is no image of a disk: its {} bytes are no whole number of sectors. Give a folder that `bakehouse bake` wrote, or a \
             raw or VMDK file",
            disk.len()
        );
        return Err(Error::NotBaked { path: path.to_owned(), reason });
    }
    Ok(Box::new(disk))
}

/// The ids of a disk's blocks; all of its data is read.
fn ids(disk: &dyn BlockSource, report: &dyn Report) -> Result<Vec<(u64, Digest)>, Error> {
    let total = disk.data().map(|(_, len)| len).sum();
    let done = AtomicU64::new(0);
    block::hash_blocks(disk, |block| {
        let read = block.data.iter().map(|(_, len)| len).sum();
        let done = done.fetch_add(read, Ordering::Relaxed) + read;
        report.progress(done, Some(total), Unit::Bytes, "");
        Ok(())
    })
}

/// The packages that dpkg's database on one of the volumes lists as installed; `None` when there is none that can be read.
fn database(volumes: &[Volume]) -> Result<Option<Vec<Package>>, Error> {
    let Ok(path) = TreePath::new(b"var/lib/dpkg/status") else { return Ok(None) };
    for volume in volumes {
        for partition in &volume.partitions {
            let PartitionContent::Files(files) = &partition.content else { continue };
            if let Some(status) = inspect::read_file(&*volume.disk, files, &path, DATABASE)? {
                return Ok(installed(&String::from_utf8_lossy(&status)));
            }
        }
    }
    Ok(None)
}

/// The installed packages of a dpkg status file; none when it cannot be read to its end.
fn installed(status: &str) -> Option<Vec<Package>> {
    let mut paragraphs = debian::control::Paragraphs::new("status", status);
    let (mut fields, mut packages) = (Vec::new(), Vec::new());
    while paragraphs.read(&mut fields).ok()? {
        let field =
            |name: &str| fields.iter().find(|field| field.name == name).map(|field| field.value.to_owned());
        let is_installed = field("Status").is_some_and(|status| status.ends_with(" installed"));
        if let (true, Some(name), Some(version), Some(architecture)) =
            (is_installed, field("Package"), field("Version"), field("Architecture"))
        {
            packages.push(Package { name, version, architecture });
        }
    }
    Some(packages)
}

/// What most of the packages are for, in our words.
fn architecture(packages: &[Package]) -> Option<String> {
    let count = |arch: &Arch| packages.iter().filter(|package| package.architecture == arch.debian()).count();
    let most = Arch::ALL.into_iter().max_by_key(count).filter(|arch| count(arch) > 0);
    most.map(|arch| arch.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dpkg_lists_as_installed_is_in_the_image() {
        let status = "Package: dpkg\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1.22\n\n\
                      Package: old\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n\
                      Package: tzdata\nStatus: hold ok installed\nArchitecture: all\nVersion: 2026b\nDescription: a\n b\n";
        let packages = installed(status).unwrap();
        let names: Vec<_> =
            packages.iter().map(|package| (package.name.as_str(), package.version.as_str())).collect();
        assert_eq!(names, [("dpkg", "1.22"), ("tzdata", "2026b")]);
        assert_eq!(architecture(&packages).as_deref(), Some("aarch64"));
        assert_eq!(architecture(&packages[1..]), None);
        assert_eq!(installed("no field\n"), None);
    }
}
