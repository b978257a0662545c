use std::collections::BTreeMap;

use block::{Content, Origin};

use crate::TreePath;

/// A moment, in seconds and nanoseconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; negative before it.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// A moment on a full second.
    pub fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }
}

/// What every kind of entry has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The lower 12 bits of `st_mode`: permissions, set-user-id, set-group-id, sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content; the entry's other times are set to it.
    pub mtime: Timestamp,
    /// Extended attributes by full name (`user.note`, `security.capability`, `system.posix_acl_access` with the
    /// value that getxattr(2) gives).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File(Content),
    /// A folder.
    Directory,
    /// A symbolic link and the bytes it holds.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// Another name of the file at this path; the entry's own [`Meta`] counts for nothing. Never points to another
    /// hard link.
    HardLink(TreePath),
}

impl Node {
    /// Whether a hard link may name it.
    pub fn can_be_linked(&self) -> bool {
        !matches!(self, Node::Directory | Node::HardLink(_))
    }
}

/// One file, folder, link or device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Owner, mode, time, attributes.
    pub meta: Meta,
    /// What it is.
    pub node: Node,
    /// Who made it.
    pub origin: Origin,
}

impl Entry {
    /// A folder owned by root, without a time, made by nobody in particular.
    pub fn directory(mode: u16) -> Self {
        let meta = Meta { mode, ..Meta::default() };
        Self { meta, node: Node::Directory, origin: Origin::Structure("directory") }
    }

    /// A file owned by root with the given bytes, without a time.
    pub fn file(mode: u16, bytes: impl Into<Vec<u8>>, origin: Origin) -> Self {
        let meta = Meta { mode, ..Meta::default() };
        Self { meta, node: Node::File(Content::from_bytes(bytes.into())), origin }
    }

    /// A symbolic link owned by root, without a time.
    pub fn symlink(target: impl Into<Vec<u8>>, origin: Origin) -> Self {
        let meta = Meta { mode: 0o777, ..Meta::default() };
        Self { meta, node: Node::Symlink(target.into()), origin }
    }
}
