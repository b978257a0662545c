use std::io;
use std::path::PathBuf;

use block::Digest;

use crate::backend::BackendError;
use crate::format::{FormatError, SnapshotId, VERSION};

/// Why the store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no store.
    #[error("{place}: this is not a store; `store put` makes one in a new or empty folder")]
    NotAStore {
        /// Where it was looked for.
        place: String,
    },
    /// The folder for a new store has something else in it.
    #[error("{place}: the folder holds other files ({found}); choose an empty folder or an existing store")]
    NotEmpty {
        /// The folder.
        place: String,
        /// One thing that was found.
        found: String,
    },
    /// A later program made the store.
    #[error(
        "{place}: the store has format version {found}, this program knows versions up to {VERSION}; use a newer program"
    )]
    Newer {
        /// The store.
        place: String,
        /// Its version.
        found: String,
    },
    /// The file system is full, or the user's quota of it.
    #[error(
        "{place}: no space left ({source}); nothing that was committed is lost: make room, or run `store gc`"
    )]
    Full {
        /// What was being written.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// The store cannot be written.
    #[error("{place}: the store is read-only ({source}); reading it works")]
    ReadOnly {
        /// What was being written.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// The user may not do this.
    #[error(
        "{place}: no permission ({action}: {source}); change the owner or the mode, or choose another store"
    )]
    NoPermission {
        /// What was touched.
        place: String,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The back end failed in another way.
    #[error(transparent)]
    Backend(BackendError),
    /// An object of the store is damaged or of a later version.
    #[error("{place}: {source}")]
    Format {
        /// The object.
        place: String,
        /// What is wrong.
        source: FormatError,
    },
    /// An object could not be read while the store was rebuilt, and would be lost if it were left out.
    #[error(
        "{place}: {action}: {source}; nothing was changed: try again, or move this file out of the store to rebuild without what it holds"
    )]
    Unreadable {
        /// The object.
        place: String,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An object that the store's root names is not there.
    #[error("{place}: missing, although the store needs it")]
    Missing {
        /// The object.
        place: String,
    },
    /// The root is gone or damaged, so nothing says what belongs to the store.
    #[error(
        "{place}: the store's root is {state}; `store verify --repair` makes a new one from snapshots and packs"
    )]
    RootLost {
        /// The root.
        place: String,
        /// `missing`, or what is wrong with it.
        state: String,
    },
    /// No snapshot has this name or id.
    #[error("no snapshot {wanted:?} in {place}{}", nearest.as_ref().map(|name| format!("; did you mean {name:?}?")).unwrap_or_default())]
    NoSnapshot {
        /// What was asked for.
        wanted: String,
        /// The store.
        place: String,
        /// The nearest name or id that there is.
        nearest: Option<String>,
    },
    /// No snapshot is that large.
    #[error("the volume has {size} bytes; a snapshot has {most} at the most")]
    TooLarge {
        /// The volume's size.
        size: u64,
        /// The largest that can be kept.
        most: u64,
    },
    /// Another snapshot has the id.
    #[error("{id} is taken: it belongs to {name:?}, whose content differs")]
    IdTaken {
        /// The id.
        id: SnapshotId,
        /// The name of the snapshot that has it.
        name: String,
    },
    /// A name that no snapshot can have.
    #[error("{name:?} cannot be a snapshot's name: {why}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The image could not be opened or looked at.
    #[error(transparent)]
    Image(#[from] formats::Error),
    /// Bytes of a source could not be read.
    #[error("the source's bytes {from} to {to} could not be read: {source}")]
    Source {
        /// First byte wanted.
        from: u64,
        /// First byte not wanted any more.
        to: u64,
        /// What went wrong.
        source: io::Error,
    },
    /// A file was written to while it was put.
    #[error(
        "{path}: the file changed while it was read; nothing was stored under its name. Try again when it is at rest"
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The image would be written among the store's own files.
    #[error("{}: this is inside the store itself; write the image elsewhere", path.display())]
    InStore {
        /// The image.
        path: PathBuf,
    },
    /// An image was being updated when its writer was interrupted.
    #[error(
        "{path}: an interrupted `store get` left this image half written (see {path}.incomplete); get the snapshot again, or remove that file"
    )]
    Incomplete {
        /// The image.
        path: PathBuf,
    },
    /// A block did not come out of the compressor as it went in. Memory or processor are not to be trusted.
    #[error(
        "block {id} read back from its compressed form differs; this machine's memory or processor may be faulty"
    )]
    Compression {
        /// The block.
        id: Digest,
    },
    /// Two collections went by while a snapshot was made: blocks it counts on may be gone.
    #[error("the store was collected twice while the snapshot was made; put it again")]
    Overtaken,
    /// A block of a snapshot cannot be had.
    #[error(
        "block {index} (bytes {from} to {to}) of {snapshot} is {state}; `store verify` tells what else is hurt, putting an image that has the block heals it"
    )]
    Block {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Which block.
        index: u64,
        /// First byte of it.
        from: u64,
        /// First byte after it.
        to: u64,
        /// `missing` or `damaged`, and how.
        state: String,
    },
    /// The image to write could not be written.
    #[error("{path}: {action}: {source}")]
    Target {
        /// The image.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else holds the store's lock.
    #[error("{place}: others are writing to the store; try again when they are done")]
    Busy {
        /// The store.
        place: String,
    },
}

impl Error {
    /// The error of an object: what is wrong with its bytes, or with reading them.
    pub(crate) fn of_object(place: String, source: FormatError) -> Self {
        match source {
            FormatError::Unread { kind, why, .. } => {
                BackendError { place, action: "reading the object", source: io::Error::new(kind, why) }.into()
            }
            source => Self::Format { place, source },
        }
    }

    /// Whether the user can mend it: another name, another folder, another program.
    pub fn is_mistake(&self) -> bool {
        match self {
            Self::NotAStore { .. } | Self::NotEmpty { .. } | Self::Newer { .. } | Self::NoSnapshot { .. } => {
                true
            }
            Self::BadName { .. }
            | Self::InStore { .. }
            | Self::TooLarge { .. }
            | Self::IdTaken { .. }
            | Self::Incomplete { .. } => true,
            Self::Image(formats::Error::Io { source, .. }) => source.kind() == io::ErrorKind::NotFound,
            Self::Image(error) => error.is_mistake(),
            _ => false,
        }
    }
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        let BackendError { place, action, source } = error;
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { place, source },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { place, source },
            io::ErrorKind::PermissionDenied => Self::NoPermission { place, action, source },
            _ => Self::Backend(BackendError { place, action, source }),
        }
    }
}
