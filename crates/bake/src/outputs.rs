//! The folder of outputs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::check::CHECKS;
use crate::work::WorkFolder;
use crate::{Error, MANIFEST};

/// How the folder begins in which outputs are made, beside the place where they go.
const MAKING: &str = ".bakehouse-";
/// There as long as outputs are moved to their places.
const REPLACING: &str = ".bakehouse-replacing";

/// The folder of outputs. It is made before the long work, so that a bad place is told at once; while it is held no
/// other bake writes to it. Outputs are made in a folder of their own inside it and moved to their places in the end,
/// [`MANIFEST`] last, so that a folder with a manifest is whole. What was made and stayed empty goes again.
pub(crate) struct Outputs {
    folder: PathBuf,
    /// What of the folder's path was not there before, the folder itself first.
    made: Vec<PathBuf>,
    making: PathBuf,
    names: Vec<String>,
    _held: File,
}

impl Outputs {
    /// Opens the folder. `work` is told of what is made, so that it is taken away when this process cannot.
    pub(crate) fn open(folder: PathBuf, work: &WorkFolder) -> Result<Self, Error> {
        let absolute = std::path::absolute(&folder).map_err(Error::io(&folder, "cannot be found"))?;
        let missing = absolute.ancestors().take_while(|path| path.symlink_metadata().is_err());
        let made = missing.map(Path::to_owned).collect();
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
        Ok(Self { folder, made, making, names: Vec::new(), _held: held })
    }

    /// Refuses to replace files that no bake made: there is no manifest, and `is_ours` does not know them.
    pub(crate) fn refuse_others(
        &self,
        mut names: impl Iterator<Item = String>,
        is_ours: impl Fn(&str) -> bool,
    ) -> Result<(), Error> {
        if self.folder.join(MANIFEST).exists() || self.folder.join(REPLACING).exists() {
            return Ok(());
        }
        match names.find(|name| self.folder.join(name).symlink_metadata().is_ok() && !is_ours(name)) {
            Some(name) => Err(Error::OutputsOfOthers { path: self.folder.join(name) }),
            None => Ok(()),
        }
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
    ///
    /// All of it takes no longer than a few changes of names: what was there before goes only afterwards, since giving the room of
    /// a large file back takes seconds, in which this process may be ended.
    pub(crate) fn finish(mut self) -> Result<(PathBuf, Vec<String>), Error> {
        let marker = self.folder.join(REPLACING);
        fs::write(&marker, "").map_err(Error::io(&marker, "cannot be written"))?;
        self.names.sort_by_key(|name| name == MANIFEST);
        let aside = |name: &str| self.making.join(format!("{name}.before"));
        for name in earlier(&self.folder) {
            let path = self.folder.join(&name);
            if name == MANIFEST || !self.names.contains(&name) {
                match fs::rename(&path, aside(&name)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io(path, "cannot be replaced")(error));
                    }
                    _ => {}
                }
            } else {
                // Where it cannot be had, its room is given back when the new one takes its name.
                let _ = fs::hard_link(&path, aside(&name));
            }
        }
        for name in &self.names {
            let path = self.folder.join(name);
            fs::rename(self.making.join(name), &path).map_err(Error::io(path, "cannot be replaced"))?;
        }
        let _ = fs::remove_file(&marker);
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
        // Only empty folders can be removed this way.
        let _ = fs::remove_dir(&self.folder);
        self.made.iter().for_each(|folder| drop(fs::remove_dir(folder)));
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
    fn folders_that_were_made_and_stayed_empty_go() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("out");
        let work = WorkFolder::new(&parent.path().join("cache"), "bake").unwrap();
        drop(Outputs::open(out.join("web/x86_64"), &work).unwrap());
        assert!(!out.exists());
        fs::create_dir(&out).unwrap();
        drop(Outputs::open(out.join("web/x86_64"), &work).unwrap());
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "what was there stays");
    }

    #[test]
    fn files_that_no_bake_made_are_not_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("out");
        let work = WorkFolder::new(&parent.path().join("cache"), "bake").unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("xvda.raw"), "mine").unwrap();
        let outputs = Outputs::open(folder.clone(), &work).unwrap();
        let names = || ["xvda.raw", "xvda.vmdk"].into_iter().map(str::to_owned);
        let error = outputs.refuse_others(names(), |_| false).unwrap_err();
        assert!(
            matches!(&error, Error::OutputsOfOthers { path } if path.ends_with("out/xvda.raw")),
            "{error}"
        );
        outputs.refuse_others(names(), |name| name == "xvda.raw").unwrap();
        outputs.refuse_others(["xvdf.raw".to_owned()].into_iter(), |_| false).unwrap();
        for ours in [REPLACING, MANIFEST] {
            fs::write(folder.join(ours), "").unwrap();
            outputs.refuse_others(names(), |_| false).unwrap();
            fs::remove_file(folder.join(ours)).unwrap();
        }
        drop(outputs);
        assert_eq!(fs::read(folder.join("xvda.raw")).unwrap(), b"mine");
    }
}
