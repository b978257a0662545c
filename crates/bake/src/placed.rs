//! What this machine remembers of outputs that it put into their places: from what they were made, and by which size, inode and time
//! of change the kernel knows them. Outputs that are still those are not made again, and disks that nearly are, are copied
//! where they are the same. The record is in the cache; nothing depends on it but time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::{Digest, Hasher};
use recipe::{Lock, Payload, Recipe};
use serde::{Deserialize, Serialize};
use store::{PutReport, Store};

use crate::roots::hash_source;
use crate::{Error, MANIFEST, Manifest, Request, WRITERS};

/// A file as the kernel knows it: whoever writes to it changes the time of change, which nobody can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    size: u64,
    inode: u64,
    device: u64,
    changed: (i64, i64),
}

impl Known {
    fn of(path: &Path) -> Option<Self> {
        let stat = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self {
            size: stat.len(),
            inode: stat.ino(),
            device: stat.dev(),
            changed: (stat.ctime(), stat.ctime_nsec()),
        })
    }
}

/// Which start of the machine this is. What was in memory alone when a machine lost its power is not in its files, though their
/// marks may be: records of an earlier start are not believed.
fn start_of_machine() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

/// The record of one folder of outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placed {
    /// The folder, absolute.
    folder: PathBuf,
    /// What the outputs follow from.
    made_from: MadeFrom,
    /// [`start_of_machine`] when they were put there.
    start: Option<String>,
    files: BTreeMap<String, Known>,
}

/// Digests of all that outputs follow from, by what people call it.
pub(crate) type MadeFrom = BTreeMap<String, String>;

/// What a recipe's outputs follow from, with the files of the host that it names.
pub(crate) fn made_from(request: &Request, recipe: &Recipe, lock: &Lock) -> Result<MadeFrom, Error> {
    // The program: another one may say other things of the same image.
    let program =
        Known::of(Path::new("/proc/self/exe")).or_else(|| Known::of(&std::env::current_exe().ok()?));
    let program = Digest::of(format!("{WRITERS:?} {program:?}").as_bytes());
    // A value of strings and numbers always has a JSON form.
    let said = Digest::of(&serde_json::to_vec(recipe).unwrap_or_default());
    let mut hasher = Hasher::new();
    // `bake.log` names them.
    for path in [Some(&request.recipe), request.lock.as_ref()].into_iter().flatten() {
        let path = std::path::absolute(path).map_err(Error::io(path, "cannot be found"))?;
        hasher.field(path.as_os_str().as_bytes());
    }
    hasher.field(format!("{:?}", request.set).as_bytes());
    let asked = hasher.finish();
    let mut hasher = Hasher::new();
    let web = recipe.web.iter().flat_map(|web| &web.entries).map(|entry| &entry.payload);
    for payload in recipe.files.iter().map(|file| &file.payload).chain(web) {
        if let Payload::Source(path) = payload {
            hash_source(path, &mut hasher)?;
        }
    }
    for source in recipe.volumes.iter().filter_map(|volume| volume.source.as_deref()) {
        hash_source(source, &mut hasher)?;
    }
    let parts = [
        ("the program", program),
        ("the lock", lock.digest()),
        ("the recipe", said),
        ("the recipe's or the lock's path, or --set", asked),
        ("files that the recipe names", hasher.finish()),
    ];
    Ok(parts.map(|(name, digest)| (name.to_owned(), digest.to_hex())).into())
}

/// Where records are, in the cache.
const RECORDS: &str = "placed";

/// Where the record of a folder is, and the folder's own path.
fn record(cache: &Path, folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let folder = folder.canonicalize().ok()?;
    let name = Digest::of(folder.as_os_str().as_bytes()).to_hex();
    Some((cache.join(RECORDS).join(format!("{}.json", &name[..32])), folder))
}

/// Takes away the records of folders that are gone.
fn sweep(cache: &Path) {
    for entry in fs::read_dir(cache.join(RECORDS)).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            // Of an ended process; or of one that then goes without.
            let _ = fs::remove_file(&path);
        }
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let record = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Placed>(&text).ok());
        if record.is_none_or(|record| !record.folder.is_dir()) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Placed {
    /// What is remembered of a folder.
    pub(crate) fn read(cache: &Path, folder: &Path) -> Self {
        let text = record(cache, folder).and_then(|(path, _)| fs::read(path).ok()).unwrap_or_default();
        let placed: Self = serde_json::from_slice(&text).unwrap_or_default();
        if placed.start.is_some() && placed.start == start_of_machine() { placed } else { Self::default() }
    }

    /// Whether a file of the folder is still the one that was put there.
    pub(crate) fn is_there(&self, folder: &Path, name: &str) -> bool {
        self.files.get(name).is_some_and(|known| Known::of(&folder.join(name)) == Some(*known))
    }

    /// The outputs that were made from the same as is asked for now, when all of them are in their places and their
    /// snapshots are in the store; else why they have to be made.
    pub(crate) fn still(
        &self,
        folder: &Path,
        made_from: &MadeFrom,
        store: &Store,
    ) -> Result<(Manifest, BTreeMap<String, PutReport>), String> {
        if self.files.is_empty() {
            return Err(
                "nothing is known of an earlier bake to this folder since this machine was started".into()
            );
        }
        let changed: Vec<&str> = (made_from.iter())
            .filter(|(name, digest)| self.made_from.get(*name) != Some(digest))
            .map(|(name, _)| name.as_str())
            .collect();
        if !changed.is_empty() {
            return Err(format!("for these changed: {}", changed.join(", ")));
        }
        if let Some(name) = self.files.keys().find(|name| !self.is_there(folder, name)) {
            return Err(format!("for {name} is not as the last bake left it"));
        }
        self.described(folder, store)
            .ok_or_else(|| "for the store does not hold their snapshots any more".into())
    }

    /// What the manifest and the store say of outputs that are in their places.
    fn described(&self, folder: &Path, store: &Store) -> Option<(Manifest, BTreeMap<String, PutReport>)> {
        let manifest = Manifest::read(folder).ok()?;
        let records = store.list().ok()?;
        let mut stored = BTreeMap::new();
        for volume in &manifest.volumes {
            let Some(id) = volume.snapshot_id else { continue };
            let record = records.iter().find(|record| record.id.to_string() == id.to_string())?;
            let put = PutReport {
                snapshot_id: record.id,
                name: record.name.clone(),
                digest: record.digest,
                size: record.size,
                data_bytes: volume.data_bytes,
                blocks: record.blocks,
                new_blocks: 0,
                new_bytes: 0,
                stored_bytes: 0,
                read_bytes: 0,
                hashed_bytes: 0,
                existed: true,
            };
            stored.insert(volume.device.clone(), put);
        }
        Some((manifest, stored))
    }

    /// The raw file of an earlier bake and the blocks that it holds, when the file is still the one that was put there.
    pub(crate) fn earlier(
        &self,
        folder: &Path,
        raw: &str,
        store: &Arc<Store>,
    ) -> Option<(File, BTreeMap<u64, Digest>)> {
        if !self.is_there(folder, raw) || !self.is_there(folder, MANIFEST) {
            return None;
        }
        let manifest = Manifest::read(folder).ok()?;
        let volume = manifest.volumes.iter().find(|volume| volume.raw.as_deref() == Some(raw))?;
        let disk = store.disk(&store.find(&volume.snapshot_id?.to_string()).ok()?).ok()?;
        let file = File::open(folder.join(raw)).ok()?;
        Some((file, disk.snapshot().blocks.iter().copied().collect()))
    }

    /// Remembers a folder of outputs as it is now. That it cannot be remembered costs time alone.
    pub(crate) fn remember(cache: &Path, folder: &Path, made_from: &MadeFrom, names: &[String]) {
        let files =
            names.iter().filter_map(|name| Some((name.clone(), Known::of(&folder.join(name))?))).collect();
        let Some((path, folder)) = record(cache, folder) else { return };
        let placed = Self { folder, made_from: made_from.clone(), start: start_of_machine(), files };
        let Ok(text) = serde_json::to_vec(&placed) else { return };
        let Some(parent) = path.parent() else { return };
        sweep(cache);
        let _ = fs::create_dir_all(parent).and_then(|()| recipe::replace_file(&path, &text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_touched_in_any_way_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, out) = (folder.path().join("cache"), folder.path().join("out"));
        fs::create_dir(&out).unwrap();
        fs::write(out.join("xvda.raw"), "disk").unwrap();
        let from = MadeFrom::from([("the recipe".to_owned(), "1".to_owned())]);
        let remember = || Placed::remember(&cache, &out, &from, &["xvda.raw".to_owned()]);
        remember();
        let placed = Placed::read(&cache, &out);
        assert_eq!(placed.made_from, from);
        assert!(placed.is_there(&out, "xvda.raw") && !placed.is_there(&out, "image.json"));
        // The same bytes, written anew: who knows what happened in between.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(out.join("xvda.raw"), "disk").unwrap();
        assert!(!placed.is_there(&out, "xvda.raw"));
        remember();
        let placed = Placed::read(&cache, &out);
        fs::rename(out.join("xvda.raw"), out.join("other")).unwrap();
        assert!(!placed.is_there(&out, "xvda.raw"));
        std::os::unix::fs::symlink("other", out.join("xvda.raw")).unwrap();
        assert!(!placed.is_there(&out, "xvda.raw"), "a link to it is not it");
        assert_eq!(Placed::read(&cache, folder.path()), Placed::default());
        // As it was written before the machine was started anew.
        let (path, _) = record(&cache, &out).unwrap();
        let old = Placed { start: Some("another".to_owned()), ..placed };
        fs::write(&path, serde_json::to_vec(&old).unwrap()).unwrap();
        assert_eq!(Placed::read(&cache, &out), Placed::default());
        sweep(&cache);
        assert_eq!(fs::read_dir(cache.join(RECORDS)).unwrap().count(), 1);
        fs::remove_dir_all(&out).unwrap();
        sweep(&cache);
        assert_eq!(fs::read_dir(cache.join(RECORDS)).unwrap().count(), 0);
    }
}
