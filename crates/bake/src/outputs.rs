//! The folder of outputs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::check::CHECKS;
use crate::work::WorkFolder;
use crate::{Error, MANIFEST};

/// How the folder begins in which outputs are made, beside the place where they go.
const MAKING: &str = ".bakehouse-";

/// The folder of outputs. It is made before the long work, so that a bad place is told at once; while it is held no
/// other bake writes to it. Outputs are made in a folder of their own inside it and moved to their places in the end,
/// [`MANIFEST`] last, so that a folder with a manifest is whole. What was made and stayed empty goes again.
pub(crate) struct Outputs {
    folder: PathBuf,
    making: PathBuf,
    names: Vec<String>,
    _held: File,
}

impl Outputs {
    /// Opens the folder. `work` is told of what is made, so that it is taken away when this process cannot.
    pub(crate) fn open(folder: PathBuf, work: &WorkFolder) -> Result<Self, Error> {
        let absolute = std::path::absolute(&folder).map_err(Error::io(&folder, "cannot be found"))?;
        fs::create_dir_all(&folder).map_err(Error::io(&folder, "cannot be made a folder for the outputs"))?;
        let held = File::open(&folder).map_err(Error::io(&folder, "cannot be opened"))?;
        if let Err(fs::TryLockError::WouldBlock) = held.try_lock() {
            return Err(Error::OutputsInUse { path: folder });
        }
        for left in fs::read_dir(&folder).map_err(Error::io(&folder, "cannot be listed"))?.flatten() {
            if left.file_name().to_string_lossy().starts_with(MAKING) {
                // An interrupted bake left it; nobody else is at work here.
                let _ = fs::remove_dir_all(left.path());
            }
        }
        let name = format!("{MAKING}{}", std::process::id());
        work.note(&absolute.join(&name))?;
        let making = folder.join(name);
        fs::create_dir(&making).map_err(Error::io(&folder, "outputs cannot be written here"))?;
        Ok(Self { folder, making, names: Vec::new(), _held: held })
    }

    /// Where to make an output.
    pub(crate) fn make(&mut self, name: &str) -> PathBuf {
        self.names.push(name.to_owned());
        self.making.join(name)
    }

    /// Makes a small output.
    pub(crate) fn text(&mut self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.make(name);
        fs::write(&path, text).map_err(Error::io(path, "cannot be written"))
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Moves everything to its place; takes away what an earlier bake left there and this one has no more. The folder, and
    /// the names of what is in it now.
    pub(crate) fn finish(mut self) -> Result<(PathBuf, Vec<String>), Error> {
        for name in earlier(&self.folder) {
            if name == MANIFEST || !self.names.contains(&name) {
                let path = self.folder.join(name);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io(path, "cannot be replaced")(error));
                    }
                    _ => {}
                }
            }
        }
        self.names.sort_by_key(|name| name == MANIFEST);
        for name in &self.names {
            let path = self.folder.join(name);
            fs::rename(self.making.join(name), &path).map_err(Error::io(path, "cannot be replaced"))?;
        }
        Ok((self.folder.clone(), std::mem::take(&mut self.names)))
    }
}

/// Removes what an ended process was making, unless somebody else is at work beside it.
pub(crate) fn remove_left(making: &Path) {
    let is_ours =
        making.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(MAKING.as_bytes()));
    let Some(folder) = making.parent().filter(|_| is_ours && making.is_absolute()) else { return };
    if File::open(folder).is_ok_and(|held| held.try_lock().is_ok()) {
        // What cannot be removed goes when the next bake writes here.
        let _ = fs::remove_dir_all(making);
        let _ = fs::remove_dir(folder);
    }
}

/// What an earlier bake and its checks left in a folder: nothing when it holds no manifest.
fn earlier(folder: &Path) -> Vec<String> {
    let Ok(text) = fs::read(folder.join(MANIFEST)) else { return Vec::new() };
    let mut names = vec![MANIFEST.to_owned(), CHECKS.to_owned()];
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    for volume in manifest["volumes"].as_array().into_iter().flatten() {
        let files = ["raw", "vmdk"].map(|key| volume[key].as_str());
        // A manifest names files of its own folder only.
        names.extend(files.into_iter().flatten().filter(|name| !name.contains('/')).map(str::to_owned));
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("console-") && name.ends_with(".log") {
            names.push(name);
        }
    }
    names
}

impl Drop for Outputs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.making);
        // Only an empty folder can be removed this way.
        let _ = fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_appear_together_and_what_is_left_over_goes() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("out");
        let work = WorkFolder::new(&parent.path().join("cache"), "bake").unwrap();
        let mut outputs = Outputs::open(folder.clone(), &work).unwrap();
        let first = r#"{"volumes": [{"raw": "xvdf.raw", "vmdk": null}, {"raw": "../escape.raw"}]}"#;
        outputs.text(MANIFEST, first).unwrap();
        outputs.text("xvdf.raw", "1").unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(matches!(Outputs::open(folder.clone(), &work), Err(Error::OutputsInUse { .. })));
        outputs.finish().unwrap();
        for name in ["notes.log", "other.raw", "console-bios.log", CHECKS] {
            fs::write(folder.join(name), "").unwrap();
        }

        let mut outputs = Outputs::open(folder.clone(), &work).unwrap();
        outputs.text("xvda.raw", "2").unwrap();
        outputs.text(MANIFEST, "2").unwrap();
        drop(outputs);
        assert_eq!(fs::read(folder.join(MANIFEST)).unwrap(), first.as_bytes());
        fs::create_dir(folder.join(".bakehouse-1")).unwrap();

        let mut outputs = Outputs::open(folder.clone(), &work).unwrap();
        outputs.text(MANIFEST, "2").unwrap();
        outputs.text("xvda.raw", "2").unwrap();
        outputs.finish().unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [MANIFEST, "notes.log", "other.raw", "xvda.raw"]);
    }

    #[test]
    fn no_room_for_the_manifest_leaves_the_folder_as_it_was() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("out");
        let work = WorkFolder::new(&parent.path().join("cache"), "bake").unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(MANIFEST), r#"{"volumes": []}"#).unwrap();
        let mut outputs = Outputs::open(folder.clone(), &work).unwrap();
        outputs.text("xvda.raw", "whole").unwrap();
        // A device on which there never is any room.
        std::os::unix::fs::symlink("/dev/full", outputs.making.join(MANIFEST)).unwrap();
        let error = outputs.text(MANIFEST, "{}").unwrap_err();
        assert!(
            error.to_string().contains("image.json: cannot be written: No space left on device"),
            "{error}"
        );
        drop(outputs);
        let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [MANIFEST]);
    }

    #[test]
    fn a_folder_that_was_made_and_stayed_empty_goes() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("out");
        let work = WorkFolder::new(&parent.path().join("cache"), "bake").unwrap();
        drop(Outputs::open(folder.clone(), &work).unwrap());
        assert!(!folder.exists());
    }
}
