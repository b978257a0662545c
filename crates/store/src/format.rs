//! The objects of a store as bytes. Every reader takes `&[u8]`, is bounded by what it is given, and checks it.
//!
//! Formats never change: what must differ gets a new version number beside the old.

mod claims;
mod pack;
mod root;
mod snapshot;
mod table;
mod wire;

use std::fmt;

use block::Digest;

pub use block::SnapshotId;
pub use claims::{ClaimRun, ClaimedContent, Claims};
pub use pack::{Codec, PACK_ENTRY, PACK_FOOTER, PACK_HEADER, Pack, PackEntry, PackFooter};
pub(crate) use pack::{PackIndexBuilder, pack_header};
pub use root::{Catalog, Condemned, LayerRef, Quarantined, Root};
pub(crate) use snapshot::MAX_SIZE;
pub use snapshot::{Record, Snapshot, derived_id};
pub use table::{BlockPlace, Table, TableKind};
pub(crate) use table::{Entries, Half, TableWriter, half, merge_tables, origin_entry};

/// The version of the formats in this module, which is that of a whole store.
pub const VERSION: u32 = 1;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes are cut short, contradict themselves or fail their checksum.
    #[error("the {what} is damaged: {why}")]
    Damaged {
        /// Which kind of object.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A later program wrote them.
    #[error("the {what} has format version {found}, this program knows versions up to {VERSION}")]
    Newer {
        /// Which kind of object.
        what: &'static str,
        /// Its version.
        found: u32,
    },
    /// Where they lie did not give them: they may be as they should be.
    #[error("the {what} could not be read: {why}")]
    Unread {
        /// Which kind of object.
        what: &'static str,
        /// The kind of the system's error.
        kind: std::io::ErrorKind,
        /// What the system said.
        why: String,
    },
}

/// An object's name: the generation of the store in which its writer began, and the SHA-256 of what it holds.
///
/// The generation keeps a name from coming back: who writes the same bytes in a later generation writes another object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The generation.
    pub generation: u32,
    /// The SHA-256: of a pack's header and index, of all bytes of any other object.
    pub digest: Digest,
}

impl Name {
    /// The key of the object of this name in a folder.
    pub fn key(&self, folder: Folder) -> String {
        format!("{}/{self}", folder.name())
    }

    /// Reads a name as [`fmt::Display`] writes it; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (generation, digest) = text.split_once('-')?;
        let number = u32::from_str_radix(generation, 16).ok()?;
        let name = Self { generation: number, digest: Digest::from_hex(digest)? };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.generation, self.digest)
    }
}

/// The folders of a store, one for each kind of named object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// Blocks.
    Packs,
    /// Tables of where blocks are.
    Index,
    /// Snapshots.
    Snapshots,
    /// Pages of the list of snapshots.
    Catalog,
    /// Tables of blocks by their origin.
    Origins,
    /// Contents whose digest was claimed, and where they lie.
    Claims,
}

impl Folder {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Packs, Self::Index, Self::Snapshots, Self::Catalog, Self::Origins, Self::Claims];

    /// The folder's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packs => "packs",
            Self::Index => "index",
            Self::Snapshots => "snapshots",
            Self::Catalog => "catalog",
            Self::Origins => "origins",
            Self::Claims => "claims",
        }
    }
}
