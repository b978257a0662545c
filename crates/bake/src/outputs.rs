//! The folder of outputs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::check::CHECKS;
use crate::work::{WorkFolder, is_at};
use crate::{Error, MANIFEST};

/// How the folder begins in which outputs are made, beside the place where they go.
const MAKING: &str = ".bakehouse-";
/// How a file's name ends that was in an output's place before.
const BEFORE: &str = ".before";
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
    /// The folder, locked; `None` once it was handed on.
    held: Option<File>,
}

impl Outputs {
    /// Opens the folder. `work` is told of what is made, so that it is taken away when this process cannot.
    pub(crate) fn open(folder: PathBuf, work: &WorkFolder) -> Result<Self, Error> {
        let absolute = std::path::absolute(&folder).map_err(Error::io(&folder, "cannot be found"))?;
        let missing = absolute.ancestors().take_while(|path| path.symlink_metadata().is_err());
        let made = missing.map(Path::to_owned).collect();
        let held = loop {
            fs::create_dir_all(&folder)
                .map_err(Error::io(&folder, "cannot be made a folder for the outputs"))?;
            let held = File::open(&folder).map_err(Error::io(&folder, "cannot be opened"))?;
            if let Err(fs::TryLockError::WouldBlock) = held.try_lock() {
                return Err(Error::OutputsInUse { path: folder });
            }
            // Whoever swept what an ended bake left may have taken the folder away before it was locked.
            if is_at(&held, &folder) {
                break held;
            }
        };
        for left in fs::read_dir(&folder).map_err(Error::io(&folder, "cannot be listed"))?.flatten() {
            if left.file_name().to_string_lossy().starts_with(MAKING) && left.path().is_dir() {
                // An interrupted bake left it; nobody else is at work here.
                restore(&folder, &left.path());
                let _ = fs::remove_dir_all(left.path());
            }
        }
        let name = format!("{MAKING}{}", std::process::id());
        work.note(&absolute.join(&name))?;
        let making = folder.join(name);
        fs::create_dir(&making).map_err(Error::io(&folder, "outputs cannot be written here"))?;
        Ok(Self { folder, made, making, names: Vec::new(), held: Some(held) })
    }

    /// Refuses to replace files that no bake made: there is no manifest of a bake, and `is_ours` does not know them.
    pub(crate) fn refuse_others(
        &self,
        mut names: impl Iterator<Item = String>,
        is_ours: impl Fn(&str) -> bool,
    ) -> Result<(), Error> {
        if is_of_a_bake(&self.folder) || self.folder.join(REPLACING).exists() {
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
    /// a large file back takes seconds, in which this process may be ended. Where it cannot be done to the end, all is put
    /// back.
    pub(crate) fn finish(mut self) -> Result<Finished, Error> {
        let marker = self.folder.join(REPLACING);
        fs::write(&marker, "").map_err(Error::io(&marker, "cannot be written"))?;
        self.names.sort_by_key(|name| name == MANIFEST);
        if let Err(error) = self.replace() {
            restore(&self.folder, &self.making);
            return Err(error);
        }
        let _ = fs::remove_file(&marker);
        let names = std::mem::take(&mut self.names);
        Ok(Finished { folder: self.folder.clone(), names, held: self.held.take() })
    }

    fn replace(&self) -> Result<(), Error> {
        let aside = |name: &str| self.making.join(format!("{name}{BEFORE}"));
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
        Ok(())
    }

    /// The folder, when nothing is to be made in it.
    pub(crate) fn kept_in_place(mut self) -> Finished {
        Finished { folder: self.folder.clone(), names: Vec::new(), held: self.held.take() }
    }
}

/// A folder in which all outputs are in their places.
pub(crate) struct Finished {
    pub(crate) folder: PathBuf,
    /// The outputs that were put there.
    pub(crate) names: Vec<String>,
    held: Option<File>,
}

impl Finished {
    /// Holds the folder together with others who only look at it.
    pub(crate) fn share(&self) {
        if let Some(held) = &self.held {
            // Where there are no locks there are none to be shared.
            let _ = held.lock_shared();
        }
    }
}

/// Puts back what was in the outputs' places before, when they were not all replaced.
fn restore(folder: &Path, making: &Path) {
    let marker = folder.join(REPLACING);
    if !marker.exists() {
        return;
    }
    for entry in fs::read_dir(making).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(BEFORE) {
            let _ = fs::rename(entry.path(), folder.join(name));
        }
    }
    let _ = fs::remove_file(marker);
}

/// Whether a folder's manifest is one that a bake wrote: any program may call a file by that name.
fn is_of_a_bake(folder: &Path) -> bool {
    let text = fs::read(folder.join(MANIFEST)).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    manifest["volumes"].is_array() && manifest["arch"].is_string() && manifest["lock"].is_string()
}

/// Removes what an ended process was making, unless somebody else is at work beside it.
pub(crate) fn remove_left(making: &Path) {
    let is_ours =
        making.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(MAKING.as_bytes()));
    let Some(folder) = making.parent().filter(|_| is_ours && making.is_absolute()) else { return };
    // It is held until all is gone.
    if let Ok(held) = File::open(folder)
        && held.try_lock().is_ok()
    {
        restore(folder, making);
        // What cannot be removed goes when the next bake writes here.
        let _ = fs::remove_dir_all(making);
        let _ = fs::remove_dir(folder);
    }
}

/// What an earlier bake and its checks left in a folder: nothing when it holds no manifest.
fn earlier(folder: &Path) -> Vec<String> {
    if !is_of_a_bake(folder) {
        return Vec::new();
    }
    let text = fs::read(folder.join(MANIFEST)).unwrap_or_default();
    let mut names = vec![MANIFEST.to_owned(), CHECKS.to_owned()];
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    for volume in manifest["volumes"].as_array().into_iter().flatten() {
        let files = ["raw", "vmdk"].map(|key| volume[key].as_str());
        // A manifest names files of its own folder only.
        names.extend(files.into_iter().flatten().filter(|name| !name.contains('/')).map(str::to_owned));
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let firmware = name.strip_prefix("console-").and_then(|name| name.strip_suffix(".log"));
        if firmware.is_some_and(|firmware| ["bios", "uefi", "nitro"].contains(&firmware)) {
            names.push(name);
        }
    }
    names
}

impl Drop for Outputs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.making);
        // Only empty folders can be removed this way.
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
        let first = r#"{"arch": "x86_64", "lock": "", "volumes": [{"raw": "xvdf.raw", "vmdk": null}, {"raw": "../escape.raw"}]}"#;
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
        fs::write(folder.join(MANIFEST), r#"{"arch": "x86_64", "lock": "", "volumes": []}"#).unwrap();
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
    fn outputs_that_could_not_all_be_replaced_are_put_back() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("out");
        let work = WorkFolder::new(&parent.path().join("cache"), "bake").unwrap();
        let manifest = |raw: &str| {
            format!(
                r#"{{"arch": "x86_64", "lock": "", "volumes": [{{"raw": "xvda.raw"}}, {{"raw": "{raw}"}}]}}"#
            )
        };
        let begin = |number: &str, raw: &str| {
            let mut outputs = Outputs::open(folder.clone(), &work).unwrap();
            for name in ["xvda.raw", raw] {
                outputs.text(name, number).unwrap();
            }
            outputs.text(MANIFEST, &manifest(raw)).unwrap();
            outputs
        };
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        begin("1", "xvdf.raw").finish().unwrap();
        // Something stands in the place of what is replaced last but one.
        fs::create_dir_all(folder.join("xvdg.raw/full")).unwrap();
        assert!(begin("2", "xvdg.raw").finish().is_err());
        assert_eq!(
            (read("xvda.raw"), read("xvdf.raw"), read(MANIFEST)),
            ("1".into(), "1".into(), manifest("xvdf.raw"))
        );
        fs::remove_dir_all(folder.join("xvdg.raw")).unwrap();
        // A process that ended in the midst of it, and the next one.
        let outputs = begin("3", "xvdf.raw");
        fs::write(folder.join(REPLACING), "").unwrap();
        fs::rename(folder.join(MANIFEST), outputs.making.join(format!("{MANIFEST}{BEFORE}"))).unwrap();
        let left = folder.join(".bakehouse-0");
        fs::rename(&outputs.making, &left).unwrap();
        drop(outputs);
        drop(Outputs::open(folder.clone(), &work).unwrap());
        assert_eq!(read(MANIFEST), manifest("xvdf.raw"));
        let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [MANIFEST, "xvda.raw", "xvdf.raw"]);
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
        let manifest = r#"{"arch": "x86_64", "lock": "", "volumes": []}"#;
        for (name, text, is_ours) in
            [(REPLACING, "", true), (MANIFEST, manifest, true), (MANIFEST, r#"{"my": "picture"}"#, false)]
        {
            fs::write(folder.join(name), text).unwrap();
            assert_eq!(outputs.refuse_others(names(), |_| false).is_ok(), is_ours, "{name} {text}");
            fs::remove_file(folder.join(name)).unwrap();
        }
        drop(outputs);
        assert_eq!(fs::read(folder.join("xvda.raw")).unwrap(), b"mine");
    }
}
