use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tempfile::NamedTempFile;

use crate::Error;

/// A file that takes its name only when it is complete. Until then it has none, so that nothing is left of it however the
/// writer ends; on file systems where every file has a name it lies beside its place under one of its own, and goes away
/// when the writer gives up. Two writers of one path never meet.
pub struct Target {
    path: PathBuf,
    file: Unfinished,
}

enum Unfinished {
    Unnamed(File),
    Named(NamedTempFile),
}

impl Target {
    /// Begins the file at `path`.
    pub fn create(path: &Path) -> Result<Self, Error> {
        path.file_name()
            .filter(|_| !path.is_dir())
            .ok_or_else(|| Error::IsFolder { path: path.to_owned() })?;
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let folder = folder_of(path);
        let file = match unnamed(folder) {
            Some(file) => Unfinished::Unnamed(file),
            None => Unfinished::Named(named(path).map_err(|source| create_error(source, path, folder))?),
        };
        Ok(Self { path: path.to_owned(), file })
    }

    /// The file while it is being written.
    pub fn file(&self) -> &File {
        match &self.file {
            Unfinished::Unnamed(file) => file,
            Unfinished::Named(file) => file.as_file(),
        }
    }

    /// Where the complete file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the complete file its name, in place of a file that has it.
    pub fn finish(self) -> Result<(), Error> {
        let Self { path, file } = self;
        let error =
            |source| Error::Io { path: path.clone(), action: "giving the complete file its name", source };
        let named = match file {
            Unfinished::Named(file) => file.into_temp_path(),
            // No name can be given in place of another at once: first one of its own.
            Unfinished::Unnamed(file) => {
                let follow = AtFlags::SYMLINK_FOLLOW;
                let link = |at: &Path| Ok(rustix::fs::linkat(CWD, by_number(&file), CWD, at, follow)?);
                beside(&path, link).map_err(error)?.into_temp_path()
            }
        };
        named.persist(&path).map_err(|failed| error(failed.error))
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes something under a name of its own beside `path`.
fn beside<T>(path: &Path, make: impl FnMut(&Path) -> io::Result<T>) -> io::Result<NamedTempFile<T>> {
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    tempfile::Builder::new().prefix(&prefix).suffix(".part").make_in(folder_of(path), make)
}

/// The same, with a file: read and write for all, less the umask, as for any new file.
fn named(path: &Path) -> io::Result<NamedTempFile> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    beside(path, |at| Ok(File::from(rustix::fs::open(at, flags, Mode::from_raw_mode(0o666))?)))
}

/// A file without a name that can be given one later; `None` where the file system has none, or /proc is not there to
/// name it by.
fn unnamed(folder: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)).ok()?);
    by_number(&file).symlink_metadata().is_ok().then_some(file)
}

fn by_number(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// What it means that no file can be made in `folder`.
fn create_error(source: io::Error, path: &Path, folder: &Path) -> Error {
    let folder = folder.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NoFolder { folder },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::FolderNotWritable { folder, source }
        }
        _ => Error::Io { path: path.to_owned(), action: "creating the file", source },
    }
}

/// What a failed write of an image of `size` bytes with `needed` bytes of data means.
pub fn write_error(source: io::Error, path: &Path, size: u64, needed: u64) -> Error {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace { path, needed },
        io::ErrorKind::FileTooLarge => Error::TooLarge { path, size },
        _ => Error::Io { path, action: "writing the image", source },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_file_has_no_name_until_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        let names = || {
            let mut names: Vec<_> =
                folder.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let half = |target: &Target, text: &str| target.file().write_all(text.as_bytes()).unwrap();
        let (first, second) = (Target::create(&path).unwrap(), Target::create(&path).unwrap());
        half(&first, "first");
        half(&second, "second");
        match unnamed(folder.path()) {
            Some(_) => assert!(names().is_empty()),
            None => workbench::left_out(
                "this file system has no unnamed files: that none is seen was not looked at",
            ),
        }
        first.finish().unwrap();
        second.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        half(&Target::create(&path).unwrap(), "given up");
        assert_eq!(names(), ["disk.raw"]);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        let usual = folder.path().join("usual");
        std::fs::write(&usual, "").unwrap();
        assert_eq!(mode(&path), mode(&usual));
    }

    #[test]
    fn a_file_system_without_unnamed_files_is_served_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        let named = |text: &str| {
            let file = super::named(&path).unwrap();
            file.as_file().write_all(text.as_bytes()).unwrap();
            Target { path: path.clone(), file: Unfinished::Named(file) }
        };
        named("given up");
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        named("whole").finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn what_the_system_says_becomes_what_to_do() {
        let (path, folder) = (Path::new("out/xvda.raw"), Path::new("out"));
        let create = |errno: Errno| create_error(errno.into(), path, folder).to_string();
        assert_eq!(create(Errno::NOENT), "out: no such folder; make it first");
        assert_eq!(create(Errno::NOTDIR), "out: no such folder; make it first");
        for errno in [Errno::ACCESS, Errno::PERM, Errno::ROFS] {
            assert!(create(errno).starts_with("out: files cannot be written here ("), "{}", create(errno));
        }
        let write = |errno: Errno| write_error(errno.into(), path, 4096, 1024).to_string();
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(
                write(errno).starts_with("out/xvda.raw: no space left; the image's data takes 1024 bytes")
            );
        }
        assert!(write(Errno::FBIG).starts_with("out/xvda.raw: a file of 4096 bytes is too large"));
        assert!(write(Errno::IO).starts_with("out/xvda.raw: writing the image: "));
    }
}
