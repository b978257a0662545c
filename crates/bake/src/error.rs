use std::io;
use std::path::{Path, PathBuf};

use recipe::{Arch, Diagnostics, LockError};

/// Why a bake, or a check of one, came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe has mistakes; the text is the whole message, one mistake after the other.
    #[error("{0}")]
    Recipe(Diagnostics),
    /// A file or folder that the bake itself reads or writes.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a clause: `cannot be made`.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The store of snapshots.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A root cannot be put into the store in the form in which roots are kept.
    #[error("its disk cannot be made: {reason}")]
    KeptRoot {
        /// Why.
        reason: String,
    },
    /// The lock cannot be read or written.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// `--locked`, and the lock is not there or no longer fits.
    #[error("{}: {reason}, and --locked allows no change: bake without it, or with --update", path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
        /// What would have to change.
        reason: String,
    },
    /// What a bake writes would become part of what the next one lays down.
    #[error(
        "{}: lies in {}, whose files the recipe lays into the image: name another folder (outputs: --out DIR, store: --store \
         STORE, lock: --lock FILE)",
        path.display(), source_folder.display()
    )]
    InSource {
        /// What would be written there.
        path: PathBuf,
        /// The recipe's folder of files.
        source_folder: PathBuf,
    },
    /// The lock was written for other bytes than this program makes.
    #[error(
        "{}: written for {writer} version {found}, this program has version {known}: bake with --update, or with the \
         program that wrote it",
        path.display()
    )]
    Writer {
        /// The lock's file.
        path: PathBuf,
        /// Which writer.
        writer: String,
        /// The version in the lock.
        found: u32,
        /// The version of this program; 0 when it has no such writer.
        known: u32,
    },
    /// What is to be a parent is none, or what the lock says of one is not there.
    #[error("{}: {reason}", path.display())]
    Parent {
        /// The image, or the file beside the lock.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// An architecture whose programs the kernel of this host cannot be made to run.
    #[error("{arch} cannot be baked on this machine, which is {host}: {source}")]
    ForeignArch {
        /// What was asked for.
        arch: Arch,
        /// What the machine is.
        host: &'static str,
        /// What the sandbox says.
        source: sandbox::SandboxError,
    },
    /// The repositories cannot be read.
    #[error(transparent)]
    Repositories(#[from] debian::repository::RepositoryError),
    /// The keys that the program carries cannot be read.
    #[error(transparent)]
    Keys(#[from] debian::openpgp::KeyError),
    /// No set of packages satisfies the recipe.
    #[error("{problem}")]
    Solve {
        /// What the solver says, in people's words.
        problem: Box<debian::solve::SolveError>,
    },
    /// A package could not be fetched.
    #[error(transparent)]
    Download(#[from] debian::download::DownloadError),
    /// What a lock names could not be fetched as the lock says it is.
    #[error("{source}{}", at_lines(path, lines))]
    LockedDownload {
        /// The lock's file.
        path: PathBuf,
        /// The lines of those packages, counted from 1.
        lines: Vec<usize>,
        /// What happened.
        source: Box<debian::download::DownloadError>,
    },
    /// The download cache.
    #[error(transparent)]
    Cache(#[from] debian::cache::CacheError),
    /// The root file system could not be made.
    #[error(transparent)]
    Root(rootfs::Error),
    /// A script of a package or of the recipe failed while the root file system was made.
    #[error(
        "{source}\n  = help: `bakehouse shell {shell}` opens a shell in this root file system, as the script left it"
    )]
    Script {
        /// Which, and its last words.
        source: Box<rootfs::Error>,
        /// What the command takes: the recipe's file, and an architecture where one was chosen.
        shell: String,
    },
    /// A file system could not be written.
    #[error("{device}: {source}")]
    FileSystem {
        /// The volume.
        device: String,
        /// Why.
        source: ext4::Error,
    },
    /// The EFI system partition could not be written.
    #[error("the EFI system partition: {0}")]
    Esp(#[from] disk::fat::FatError),
    /// The disk could not be laid out.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The mirror has an older state of the distribution than the lock.
    #[error(
        "{}: written when {suite} was of {}, but {uri} has it as of {}: the mirror is behind, was set back, or somebody \
         withholds updates. Try again later, or use another mirror (distribution.mirror, or BAKEHOUSE_DEBIAN_MIRROR); if the \
         older one is meant, remove the lock",
        path.display(),
        debian::show_time(*locked),
        debian::show_time(*found)
    )]
    Behind {
        /// The lock's file.
        path: PathBuf,
        /// The suite.
        suite: String,
        /// The mirror.
        uri: String,
        /// The Date of the index that the lock was written from.
        locked: i64,
        /// The Date of the mirror's.
        found: i64,
    },
    /// Another bake writes to the same folder.
    #[error("{}: another bake is writing here: wait for its end, or name another folder with --out", path.display())]
    OutputsInUse {
        /// The folder.
        path: PathBuf,
    },
    /// Where an output goes there is a file already, in a folder without a manifest.
    #[error("{}: is there, and no bake made it ({} is not beside it): move it away, or name another folder with --out", path.display(), crate::MANIFEST)]
    OutputsOfOthers {
        /// The file.
        path: PathBuf,
    },
    /// A bake is still writing what is to be looked at.
    #[error("{}: a bake is writing here: wait for its end", path.display())]
    BeingBaked {
        /// The folder.
        path: PathBuf,
    },
    /// The image holds what must not be in one, or lacks what EC2 needs.
    #[error("{findings}")]
    Unfit {
        /// A line for each finding, with its file, its reason and what to do.
        findings: String,
    },
    /// The image could not be looked at.
    #[error(transparent)]
    Lint(#[from] lint::Error),
    /// EC2 would not take the image.
    #[error("EC2 would refuse this image: {problems}")]
    Registration {
        /// Which rules it breaks.
        problems: String,
    },
    /// A file of the image could not be read again.
    #[error(transparent)]
    Read(#[from] block::ReadError),
    /// An output could not be written.
    #[error(transparent)]
    Output(#[from] formats::Error),
    /// What runs the programs of another architecture could not be had.
    #[error(transparent)]
    Foreign(#[from] dispatch::Error),
    /// QEMU and its like could not be had.
    #[error(transparent)]
    Tools(#[from] tools::Error),
    /// The machine did not come up.
    #[error("{firmware}: {source}")]
    Boot {
        /// Which firmware.
        firmware: String,
        /// Why.
        source: Box<machine::BootError>,
    },
    /// A profile of a machine is broken.
    #[error(transparent)]
    Profile(#[from] machine::ProfileError),
    /// A folder of outputs that is not one, or was made by another version.
    #[error("{}: {reason}", path.display())]
    NotBaked {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// How many lines of a lock a message names.
const LINES: usize = 5;

/// Where a lock asks for what could not be had.
fn at_lines(path: &Path, lines: &[usize]) -> String {
    let places: Vec<String> =
        lines.iter().take(LINES).map(|line| format!("{}:{line}", path.display())).collect();
    let more = if lines.len() > LINES { format!(" and {} more", lines.len() - LINES) } else { String::new() };
    if places.is_empty() {
        return String::new();
    }
    format!(
        "\n  = note: the lock asks for exactly this: {}{more}. If that was changed by hand or by a merge, take the older \
         text back, or write it anew with --update",
        places.join(", ")
    )
}

impl Error {
    /// Whether the user can mend it in the recipe or on the command line (exit code 2), or the job failed (1).
    pub fn is_mistake(&self) -> bool {
        match self {
            Self::Recipe(_)
            | Self::Lock(LockError::Damaged { .. } | LockError::Version { .. } | LockError::Other { .. })
            | Self::InSource { .. }
            | Self::Locked { .. }
            | Self::Writer { .. }
            | Self::Parent { .. }
            | Self::ForeignArch { .. }
            | Self::OutputsInUse { .. }
            | Self::OutputsOfOthers { .. }
            | Self::BeingBaked { .. }
            | Self::Unfit { .. }
            | Self::Registration { .. }
            | Self::Keys(_)
            | Self::NotBaked { .. } => true,
            // An index that cannot be read is the mirror's affair.
            Self::Solve { problem } => !matches!(**problem, debian::solve::SolveError::Syntax(_)),
            Self::FileSystem { source, .. } => {
                matches!(
                    source,
                    ext4::Error::NoSpace { .. }
                        | ext4::Error::TooManyInodes { .. }
                        | ext4::Error::Size { .. }
                )
            }
            Self::Store(error) => error.is_mistake(),
            // A file stands where a folder is to be, or a folder where the lock is.
            Self::Lock(LockError::Io { error, .. }) => {
                matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory)
            }
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists)
            }
            Self::Disk(error) => matches!(error, disk::Error::TooSmall { .. }),
            _ => false,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, action, source }
    }
}

impl From<rootfs::Error> for Error {
    fn from(error: rootfs::Error) -> Self {
        match error {
            rootfs::Error::Recipe(diagnostics) => Self::Recipe(diagnostics),
            error => Self::Root(error),
        }
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Recipe(diagnostics)
    }
}
