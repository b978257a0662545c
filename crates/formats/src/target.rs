use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::Error;

/// A file that takes its name only when it is complete. Until then it lies beside its place under a name of its own,
/// so that two writers of one path never meet, and goes away when the writer gives up.
pub struct Target {
    path: PathBuf,
    file: NamedTempFile,
}

impl Target {
    /// Begins the file at `path`.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let name = path.file_name().filter(|_| !path.is_dir());
        let name = name.ok_or_else(|| Error::IsFolder { path: path.to_owned() })?;
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        // Read and write for all, less the umask, as for any new file.
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(|source| create_error(source, path, folder))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// The file while it is being written.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Where the complete file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the complete file its name, in place of a file that has it.
    pub fn finish(self) -> Result<(), Error> {
        let Self { path, file } = self;
        match file.persist(&path) {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(Error::Io { path, action: "giving the complete file its name", source: error.error })
            }
        }
    }
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
    use rustix::io::Errno;

    use super::*;

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
