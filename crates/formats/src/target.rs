use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::Error;

/// A file that takes its name only when it is complete. Until then it lies beside its place under a name of its own,
/// so that two writers of one path never meet, and goes away when the writer gives up.
pub(crate) struct Target {
    path: PathBuf,
    file: NamedTempFile,
}

impl Target {
    /// Begins the file at `path`.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        let name = path.file_name().filter(|_| !path.is_dir());
        let name = name.ok_or_else(|| Error::IsFolder { path: path.to_owned() })?;
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
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::NoFolder { folder: folder.to_owned() },
                io::ErrorKind::NotADirectory => Error::NoFolder { folder: folder.to_owned() },
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Error::FolderNotWritable { folder: folder.to_owned(), source }
                }
                _ => Error::Io { path: path.to_owned(), action: "creating the file", source },
            })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// The file while it is being written.
    pub(crate) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// What a failed write means for an image of `size` bytes with `data` bytes of data.
    pub(crate) fn write_error(&self, source: io::Error, size: u64, data: u64) -> Error {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace { path, needed: data },
            io::ErrorKind::FileTooLarge => Error::TooLarge { path, size },
            _ => Error::Io { path, action: "writing the image", source },
        }
    }

    /// Gives the complete file its name, in place of a file that has it.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let Self { path, file } = self;
        match file.persist(&path) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Io { path, action: "giving the complete image its name", source: error.error }),
        }
    }
}
