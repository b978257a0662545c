//! A Tree as bytes, and back: for caches. Contents go by id and length; whoever reads says where their bytes are.
//!
//! ```text
//! "bakehouse tree 1\n" · number of origins · origins · number of entries · entries, sorted by path
//! origin: kind (0 package, 1 recipe, 2 configured, 3 folder of nobody's) · name
//! entry:  bytes shared with the path before · rest of the path · origin's index · mode · uid · gid ·
//!         seconds (zigzag) · nanoseconds · number of attributes · (name · value)… · kind · what the kind has
//! ```
//!
//! Numbers are LEB128; names, paths, values and link targets are a length and bytes.

use std::collections::BTreeMap;
use std::collections::HashMap;

use block::{Content, Digest, Origin};

use crate::{Entry, Meta, Node, Timestamp, Tree, TreeError, TreePath, leb128};

const MAGIC: &[u8] = b"bakehouse tree 1\n";

const FILE: u8 = 0;
const DIRECTORY: u8 = 1;
const SYMLINK: u8 = 2;
const CHAR_DEVICE: u8 = 3;
const BLOCK_DEVICE: u8 = 4;
const FIFO: u8 = 5;
const SOCKET: u8 = 6;
const HARD_LINK: u8 = 7;

/// Why bytes are no tree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// The bytes do not begin as a tree does, of this version.
    #[error("these bytes are no tree of version 1")]
    NotATree,
    /// They end early, or say what cannot be.
    #[error("the tree is broken near byte {at}: {problem}")]
    Broken {
        /// Where it was noticed.
        at: usize,
        /// What is wrong.
        problem: String,
    },
    /// A content that the reader's owner does not have.
    #[error("the content {0} of the tree is not at hand")]
    NoContent(Digest),
    /// The entries make no tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl Tree {
    /// The tree as bytes, the same for the same tree. Contents are named, not held; an origin [`Origin::Structure`]
    /// comes back as that of [`Entry::directory`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(MAGIC.to_vec());
        let mut origins: Vec<&Origin> = Vec::new();
        let mut places: HashMap<&Origin, usize> = HashMap::new();
        for (_, entry) in self.iter() {
            places.entry(&entry.origin).or_insert_with(|| {
                origins.push(&entry.origin);
                origins.len() - 1
            });
        }
        out.number(origins.len() as u64);
        for origin in &origins {
            let (kind, name) = match origin {
                Origin::Package(name) => (0, &**name),
                Origin::Recipe(name) => (1, &**name),
                Origin::Configured => (2, ""),
                Origin::Structure(_) => (3, ""),
            };
            out.0.push(kind);
            out.bytes(name.as_bytes());
        }
        out.number(self.len() as u64);
        let mut before: &[u8] = &[];
        for (path, entry) in self.iter() {
            let path = path.as_bytes();
            let shared = before.iter().zip(path).take_while(|(a, b)| a == b).count();
            out.number(shared as u64);
            out.bytes(&path[shared..]);
            before = path;
            out.number(places[&entry.origin] as u64);
            out.meta(&entry.meta);
            out.node(&entry.node);
        }
        out.0
    }

    /// The tree that [`Tree::to_bytes`] wrote; `content` gives the contents by id and length.
    pub fn from_bytes(
        bytes: &[u8],
        content: &dyn Fn(Digest, u64) -> Option<Content>,
    ) -> Result<Self, ReadError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(ReadError::NotATree)?;
        let mut from = Reader { all: bytes.len(), rest };
        let mut origins = Vec::new();
        for _ in 0..from.number()? {
            let kind = from.byte()?;
            let name = std::str::from_utf8(from.bytes()?).map_err(|_| from.broken("a name is no text"))?;
            origins.push(match kind {
                0 => Origin::Package(name.into()),
                1 => Origin::Recipe(name.into()),
                2 => Origin::Configured,
                3 => Entry::directory(0).origin,
                _ => return Err(from.broken("an unknown kind of origin")),
            });
        }
        let mut entries = BTreeMap::new();
        let mut path = Vec::new();
        for _ in 0..from.number()? {
            let shared = from.number()?;
            if shared > path.len() as u64 {
                return Err(from.broken("a path shares more than there is"));
            }
            path.truncate(shared as usize);
            path.extend_from_slice(from.bytes()?);
            let clean = TreePath::new(&path).map_err(|_| from.broken("a path that no tree has"))?;
            if clean.as_bytes() != path
                || entries.last_key_value().is_some_and(|(last, _)| *last >= clean)
                || entries.is_empty() != clean.is_root()
            {
                return Err(from.broken("the paths are not in order"));
            }
            let origin = usize::try_from(from.number()?).ok().and_then(|at| origins.get(at)).cloned();
            let origin = origin.ok_or_else(|| from.broken("an origin that is not in its list"))?;
            let meta = from.meta()?;
            let node = from.node(content)?;
            entries.insert(clean, Entry { meta, node, origin });
        }
        if !from.rest.is_empty() {
            return Err(from.broken("there is more behind the last entry"));
        }
        if entries.is_empty() {
            return Err(from.broken("there is no root"));
        }
        let tree = Self { entries };
        tree.check()?;
        Ok(tree)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        leb128::put(&mut self.0, number);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn meta(&mut self, meta: &Meta) {
        for number in [u64::from(meta.mode), u64::from(meta.uid), u64::from(meta.gid)] {
            self.number(number);
        }
        let seconds = meta.mtime.seconds;
        self.number((seconds << 1 ^ seconds >> 63) as u64);
        self.number(u64::from(meta.mtime.nanoseconds));
        self.number(meta.xattrs.len() as u64);
        for (name, value) in &meta.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
    }

    fn node(&mut self, node: &Node) {
        let kind = match node {
            Node::File(_) => FILE,
            Node::Directory => DIRECTORY,
            Node::Symlink(_) => SYMLINK,
            Node::CharDevice { .. } => CHAR_DEVICE,
            Node::BlockDevice { .. } => BLOCK_DEVICE,
            Node::Fifo => FIFO,
            Node::Socket => SOCKET,
            Node::HardLink(_) => HARD_LINK,
        };
        self.0.push(kind);
        match node {
            Node::File(content) => {
                self.0.extend_from_slice(&content.id().0);
                self.number(content.len());
            }
            Node::Symlink(target) => self.bytes(target),
            Node::HardLink(target) => self.bytes(target.as_bytes()),
            Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                self.number(u64::from(*major));
                self.number(u64::from(*minor));
            }
            Node::Directory | Node::Fifo | Node::Socket => {}
        }
    }
}

struct Reader<'a> {
    all: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn broken(&self, problem: impl ToString) -> ReadError {
        ReadError::Broken { at: self.all - self.rest.len(), problem: problem.to_string() }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], ReadError> {
        let count = usize::try_from(count).ok().filter(|count| *count <= self.rest.len());
        let (taken, rest) = self.rest.split_at(count.ok_or_else(|| self.broken("it ends early"))?);
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ReadError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64, ReadError> {
        leb128::take(&mut self.rest).map_err(|error| self.broken(error))
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, ReadError> {
        let number = self.number()?;
        T::try_from(number).map_err(|_| self.broken("a number that is too large for its field"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], ReadError> {
        let count = self.number()?;
        self.take(count)
    }

    fn meta(&mut self) -> Result<Meta, ReadError> {
        let (mode, uid, gid) = (self.small()?, self.small()?, self.small()?);
        let zigzag = self.number()?;
        let seconds = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let mtime = Timestamp { seconds, nanoseconds: self.small()? };
        let mut xattrs = BTreeMap::new();
        for _ in 0..self.number()? {
            let name = self.bytes()?.to_vec();
            xattrs.insert(name, self.bytes()?.to_vec());
        }
        Ok(Meta { mode, uid, gid, mtime, xattrs })
    }

    fn node(&mut self, content: &dyn Fn(Digest, u64) -> Option<Content>) -> Result<Node, ReadError> {
        Ok(match self.byte()? {
            FILE => {
                let mut id = Digest([0; 32]);
                id.0.copy_from_slice(self.take(32)?);
                let len = self.number()?;
                Node::File(content(id, len).ok_or(ReadError::NoContent(id))?)
            }
            DIRECTORY => Node::Directory,
            SYMLINK => Node::Symlink(self.bytes()?.to_vec()),
            CHAR_DEVICE => Node::CharDevice { major: self.small()?, minor: self.small()? },
            BLOCK_DEVICE => Node::BlockDevice { major: self.small()?, minor: self.small()? },
            FIFO => Node::Fifo,
            SOCKET => Node::Socket,
            HARD_LINK => {
                let target = self.bytes()?;
                Node::HardLink(
                    TreePath::new(target).map_err(|_| self.broken("a link to a path that no tree has"))?,
                )
            }
            _ => return Err(self.broken("an unknown kind of entry")),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    fn sample() -> Tree {
        let mut tree = Tree::new(Entry::directory(0o755));
        let package = Origin::Package("hello".into());
        tree.insert(path("bin"), Entry { origin: package.clone(), ..Entry::directory(0o755) });
        let mut file = Entry::file(0o4755, *b"\x7fELF", package.clone());
        file.meta.uid = u32::MAX;
        file.meta.mtime = Timestamp { seconds: -3, nanoseconds: 999_999_999 };
        file.meta.xattrs.insert(b"user.note".to_vec(), vec![0; 300]);
        tree.insert(path("bin/hello"), file);
        let link = Node::HardLink(path("bin/hello"));
        tree.insert(path("bin/hullo"), Entry { node: link, ..Entry::file(0, *b"", Origin::Configured) });
        tree.insert(path("bin/x"), Entry::symlink("../\u{fc}", Origin::Recipe("files".into())));
        for (name, node) in [
            ("null", Node::CharDevice { major: 1, minor: 3 }),
            ("vda", Node::BlockDevice { major: 254, minor: 0 }),
            ("pipe", Node::Fifo),
            ("sock", Node::Socket),
        ] {
            tree.insert(path(name), Entry { node, ..Entry::file(0o600, *b"", package.clone()) });
        }
        tree
    }

    fn contents(tree: &Tree) -> HashMap<Digest, Content> {
        let file = |entry: &Entry| match &entry.node {
            Node::File(content) => Some((content.id(), content.clone())),
            _ => None,
        };
        tree.iter().filter_map(|(_, entry)| file(entry)).collect()
    }

    #[test]
    fn a_tree_comes_back_as_it_went() {
        let tree = sample();
        let contents = contents(&tree);
        let bytes = tree.to_bytes();
        assert_eq!(Tree::from_bytes(&bytes, &|id, _| contents.get(&id).cloned()).unwrap(), tree);
        let missing = Tree::from_bytes(&bytes, &|_, _| None).unwrap_err();
        assert_eq!(missing, ReadError::NoContent(Digest::of(b"\x7fELF")));
    }

    #[test]
    fn what_is_cut_or_changed_is_refused_or_another_tree() {
        let tree = sample();
        let contents = contents(&tree);
        let read = |bytes: &[u8]| Tree::from_bytes(bytes, &|id, _| contents.get(&id).cloned());
        let bytes = tree.to_bytes();
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err(), "cut at {len}");
        }
        assert!(read(&[bytes.clone(), vec![0]].concat()).is_err());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                if let Ok(other) = read(&changed) {
                    assert!(other != tree || other.to_bytes() == bytes, "bit {bit} of byte {at}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [MAGIC, &bytes].concat();
            let _ = Tree::from_bytes(&bytes, &|_, _| Some(Content::from_bytes(Vec::new())));
        }
    }
}
