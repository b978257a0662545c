//! Disk image files: a [`block::BlockSource`] written as a file, and a file read as a [`block::BlockSource`].
//!
//! *What comes in:* any [`block::BlockSource`] and a path; or the path of an image. *What goes out:* a file that
//! appears at its path complete or not at all; or a [`block::BlockSource`]. *What it may not know:* the store, and
//! what is on the disk.
//!
//! Raw is the disk's bytes as they are, with holes where nothing is. [`vmdk`] is the compressed form that clouds import.

mod container;
mod raw;
mod regions;
mod target;
pub mod vmdk;

pub use container::Container;
pub use raw::{RawFile, RawStats, bytes_to_write, write_raw};
pub use target::{Target, write_error};
pub use vmdk::{Earlier, VmdkFile, VmdkOptions, VmdkStats, write_raw_and_vmdk, write_vmdk};

use std::io;
use std::path::PathBuf;

/// Why an image file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path names a folder.
    #[error("{path}: this is a folder, give the name of a file")]
    IsFolder {
        /// The path.
        path: PathBuf,
    },
    /// The path names a device, a pipe or a socket.
    #[error(
        "{path}: this is neither a file nor a new name; what is written takes the place of what is there, choose another"
    )]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The folder that is to hold the image is not there.
    #[error("{folder}: no such folder; make it first")]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder does not let us write.
    #[error(
        "{folder}: files cannot be written here ({source}); choose another folder or change its permissions"
    )]
    FolderNotWritable {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system of the image is full, or the user's quota of it.
    #[error("{path}: no space left; the image's data takes {needed} bytes: make room or choose another disk")]
    NoSpace {
        /// The image's path.
        path: PathBuf,
        /// Bytes of data that the image has.
        needed: u64,
    },
    /// The file system or the user's limits do not allow a file of this size.
    #[error("{path}: a file of {size} bytes is too large for this file system or the user's limits")]
    TooLarge {
        /// The image's path.
        path: PathBuf,
        /// The image's size in bytes.
        size: u64,
    },
    /// The disk's bytes could not be read.
    #[error("the disk's bytes {from} to {to} could not be read")]
    Source {
        /// First byte wanted.
        from: u64,
        /// First byte not wanted any more.
        to: u64,
        /// What went wrong.
        source: io::Error,
    },
    /// A VMDK cannot be made of a disk of this size.
    #[error("{path}: a VMDK holds a disk of 1 to {max} bytes, this disk has {size}")]
    DiskSize {
        /// The image's path.
        path: PathBuf,
        /// The disk's size in bytes.
        size: u64,
        /// The largest disk in bytes.
        max: u64,
    },
    /// A VMDK's places are sector numbers of 32 bits.
    #[error(
        "{path}: compressed, the disk takes more than the {max} bytes that a VMDK can have; write it as raw"
    )]
    VmdkTooLarge {
        /// The image's path.
        path: PathBuf,
        /// The largest file in bytes.
        max: u64,
    },
    /// The file is no VMDK that can be read here.
    #[error("{path}: {source}")]
    Vmdk {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: vmdk::VmdkError,
    },
    /// The image file could not be written or read.
    #[error("{path}: {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Whether another name or folder would mend it.
    pub fn is_mistake(&self) -> bool {
        matches!(
            self,
            Self::IsFolder { .. }
                | Self::NotAFile { .. }
                | Self::NoFolder { .. }
                | Self::FolderNotWritable { .. }
        )
    }
}
