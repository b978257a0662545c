//! The tree in the terms of ext4: one item for each inode, with links counted, attributes packed and folders divided
//! into blocks. Nothing here depends on where anything lies.

use block::{Content, Origin};
use tree::{Entry, Node, Tree, TreeError, TreePath};

use crate::directory::Shape;
use crate::inode::{
    TYPE_BLOCK_DEVICE, TYPE_CHAR_DEVICE, TYPE_DIRECTORY, TYPE_FIFO, TYPE_FILE, TYPE_SOCKET, TYPE_SYMLINK,
    device_map,
};
use crate::xattr::{self, Refusal};
use crate::{Error, FS_BLOCK, Kind, Object, Options};

/// Symbolic links shorter than this live in their inode.
const FAST_SYMLINK: usize = 60;
/// Most links of a file; a folder with more has the count 1.
pub(crate) const MAX_LINKS: u64 = 65_000;
/// Blocks of `lost+found`, there before anything is lost.
const LOST_AND_FOUND_BLOCKS: u64 = 4;

/// An inode to be.
#[derive(Debug)]
pub(crate) struct Item<'t> {
    pub(crate) path: &'t TreePath,
    pub(crate) entry: &'t Entry,
    /// Names of a file; 2 and the number of subfolders for a folder.
    pub(crate) links: u64,
    /// The type bits of the mode.
    pub(crate) file_type: u16,
    pub(crate) body: Body<'t>,
    pub(crate) inline_xattrs: Option<Box<[u8; xattr::INLINE_SIZE]>>,
    /// Index of the attribute block.
    pub(crate) xattr_block: Option<usize>,
}

/// What an inode has besides its attributes.
#[derive(Debug)]
pub(crate) enum Body<'t> {
    /// Names in a folder.
    Directory(Folder<'t>),
    /// A file's content, maybe empty.
    File(&'t Content),
    /// A link's target in a block of its own.
    SlowSymlink(&'t [u8]),
    /// What stands in the inode itself: a short link's target, or a device's numbers.
    Inline {
        /// The link's length; nothing for others.
        size: u64,
        /// The inode's block map.
        map: [u8; 60],
    },
}

/// A folder's names.
#[derive(Debug)]
pub(crate) struct Folder<'t> {
    /// Item of the folder above; the root's is itself.
    pub(crate) parent: usize,
    /// Names, sorted, and the items they name.
    pub(crate) names: Vec<(&'t [u8], usize)>,
    pub(crate) shape: Shape,
}

impl Body<'_> {
    /// What wants blocks, and how many; `None` when nothing does.
    fn demand(&self) -> Option<(Kind, u64)> {
        match self {
            Self::Directory(folder) => Some((Kind::Directory, folder.shape.blocks())),
            Self::File(content) if !content.is_empty() => {
                Some((Kind::File, content.len().div_ceil(FS_BLOCK)))
            }
            Self::SlowSymlink(_) => Some((Kind::Symlink, 1)),
            Self::File(_) | Self::Inline { .. } => None,
        }
    }
}

/// The `lost+found` that a tree may lack.
pub(crate) struct LostAndFound {
    path: TreePath,
    entry: Entry,
}

impl LostAndFound {
    pub(crate) fn new(options: &Options) -> Self {
        let mut entry = Entry::directory(0o700);
        entry.meta.mtime = tree::Timestamp::from_seconds(options.time);
        let path = TreePath::new(b"lost+found").expect("a plain name is a path");
        Self { path, entry }
    }
}

/// All inodes of a volume that come from its tree.
#[derive(Debug)]
pub(crate) struct Catalogue<'t> {
    /// In the tree's order; the root first.
    pub(crate) items: Vec<Item<'t>>,
    /// The item that is `lost+found`, when there must be one.
    pub(crate) lost_and_found: Option<usize>,
    pub(crate) xattr_blocks: xattr::Blocks,
    /// The first item with each attribute block.
    xattr_users: Vec<usize>,
}

/// Another name for an item, until all items are known.
struct HardLink<'t> {
    path: &'t TreePath,
    /// Item of the folder with the name.
    parent: usize,
    target: &'t TreePath,
}

/// An object to be placed and whose it is.
pub(crate) struct Claim<'t> {
    pub(crate) object: Object<'t>,
    pub(crate) owner: Owner,
}

/// To what an object belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Journal,
    Item(usize),
    XattrBlock(usize),
}

impl<'t> Catalogue<'t> {
    pub(crate) fn new(tree: &'t Tree, extra: &'t LostAndFound, options: &Options) -> Result<Self, Error> {
        tree.check()?;
        let mut catalogue = Self {
            items: Vec::with_capacity(tree.len() + 1),
            lost_and_found: None,
            xattr_blocks: xattr::Blocks::default(),
            xattr_users: Vec::new(),
        };
        catalogue.collect(tree, extra, options)?;
        catalogue.shape_folders(options)?;
        Ok(catalogue)
    }

    fn collect(&mut self, tree: &'t Tree, extra: &'t LostAndFound, options: &Options) -> Result<(), Error> {
        let mut missing = (options.lost_and_found && tree.get(&extra.path).is_none()).then_some(extra);
        // The folders from the root down to where the walk is.
        let mut open = Vec::new();
        let mut hard_links = Vec::new();
        for (path, entry) in tree.iter() {
            if let Some(extra) = missing.take_if(|extra| extra.path < *path) {
                self.add(&extra.path, &extra.entry, &mut open, &mut hard_links)?;
            }
            self.add(path, entry, &mut open, &mut hard_links)?;
        }
        if let Some(extra) = missing {
            self.add(&extra.path, &extra.entry, &mut open, &mut hard_links)?;
        }
        for HardLink { path, parent, target } in hard_links {
            let Ok(item) = self.items.binary_search_by(|item| item.path.cmp(target)) else {
                return Err(TreeError::BadHardLink { path: path.clone(), target: target.clone() }.into());
            };
            self.items[item].links += 1;
            if let Body::Directory(folder) = &mut self.items[parent].body {
                folder.names.push((path.name(), item));
            }
        }
        for item in &self.items {
            if item.links > MAX_LINKS && item.file_type != TYPE_DIRECTORY {
                return Err(Error::TooManyLinks { path: item.path.clone(), links: item.links });
            }
        }
        if options.lost_and_found {
            let at = self.items.binary_search_by(|item| item.path.cmp(&extra.path));
            let folder = at.ok().filter(|at| self.items[*at].file_type == TYPE_DIRECTORY);
            self.lost_and_found = Some(folder.ok_or(Error::LostAndFound)?);
        }
        Ok(())
    }

    /// The item of the folder that holds `path`; closes the folders that the walk has left.
    fn parent_of(&self, path: &TreePath, open: &mut Vec<usize>) -> usize {
        while let Some(folder) = open.last()
            && !path.starts_with(self.items[*folder].path)
        {
            open.pop();
        }
        open.last().copied().unwrap_or(0)
    }

    /// Adds an entry as an item; a hard link is only noted down, for what it names may come later.
    fn add(
        &mut self,
        path: &'t TreePath,
        entry: &'t Entry,
        open: &mut Vec<usize>,
        hard_links: &mut Vec<HardLink<'t>>,
    ) -> Result<(), Error> {
        let parent = self.parent_of(path, open);
        let at = self.items.len();
        let (file_type, links, body) = match &entry.node {
            Node::HardLink(target) => {
                hard_links.push(HardLink { path, parent, target });
                return Ok(());
            }
            Node::File(content) => {
                if content.len().div_ceil(FS_BLOCK) > u64::from(u32::MAX) {
                    return Err(Error::FileTooLarge { path: path.clone(), len: content.len() });
                }
                (TYPE_FILE, 1, Body::File(content))
            }
            Node::Directory => {
                if !path.is_root() {
                    self.items[parent].links += 1;
                }
                open.push(at);
                let folder = Folder { parent, names: Vec::new(), shape: Shape::Linear { blocks: 1 } };
                (TYPE_DIRECTORY, 2, Body::Directory(folder))
            }
            Node::Symlink(target) => {
                if target.is_empty() || target.len() >= FS_BLOCK as usize || target.contains(&0) {
                    return Err(Error::Symlink { path: path.clone(), len: target.len() });
                }
                let mut map = [0; 60];
                let body = if target.len() < FAST_SYMLINK {
                    map[..target.len()].copy_from_slice(target);
                    Body::Inline { size: target.len() as u64, map }
                } else {
                    Body::SlowSymlink(target)
                };
                (TYPE_SYMLINK, 1, body)
            }
            Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                let map = device_map(*major, *minor).ok_or_else(|| Error::Device {
                    path: path.clone(),
                    major: *major,
                    minor: *minor,
                })?;
                let block = matches!(entry.node, Node::BlockDevice { .. });
                let file_type = if block { TYPE_BLOCK_DEVICE } else { TYPE_CHAR_DEVICE };
                (file_type, 1, Body::Inline { size: 0, map })
            }
            Node::Fifo => (TYPE_FIFO, 1, Body::Inline { size: 0, map: [0; 60] }),
            Node::Socket => (TYPE_SOCKET, 1, Body::Inline { size: 0, map: [0; 60] }),
        };
        if !path.is_root()
            && let Body::Directory(folder) = &mut self.items[parent].body
        {
            folder.names.push((path.name(), at));
        }
        let xattrs = xattr::encode(&entry.meta.xattrs).map_err(|refusal| refused(path, refusal))?;
        let xattr_block = xattrs.block.map(|block| self.xattr_blocks.refer(block));
        if xattr_block == Some(self.xattr_users.len()) {
            self.xattr_users.push(at);
        }
        self.items.push(Item {
            path,
            entry,
            links,
            file_type,
            body,
            inline_xattrs: xattrs.inline,
            xattr_block,
        });
        Ok(())
    }

    fn shape_folders(&mut self, options: &Options) -> Result<(), Error> {
        for (at, item) in self.items.iter_mut().enumerate() {
            if let Body::Directory(folder) = &mut item.body {
                let least = if self.lost_and_found == Some(at) { LOST_AND_FOUND_BLOCKS } else { 1 };
                folder.names.sort_unstable();
                let names = folder.names.iter().map(|(name, _)| *name);
                folder.shape = Shape::new(names, &options.hash_seed, least).map_err(|_| {
                    Error::FolderTooLarge { path: item.path.clone(), names: folder.names.len() }
                })?;
            }
        }
        Ok(())
    }

    /// Everything that wants a place, in the order that [`crate::Placement`] promises.
    pub(crate) fn claims(&self, journal_blocks: u64) -> Vec<Claim<'t>> {
        const JOURNAL: &Origin = &Origin::Structure("journal");
        let root = self.items[0].path;
        let journal = Object {
            kind: Kind::Journal,
            blocks: journal_blocks,
            path: root,
            content: None,
            origin: JOURNAL,
        };
        let mut claims = vec![Claim { object: journal, owner: Owner::Journal }];
        for wanted in [Kind::Directory, Kind::Symlink] {
            claims.extend(self.claims_of(wanted));
        }
        claims.extend(self.xattr_users.iter().enumerate().map(|(block, user)| {
            let Item { path, entry, .. } = self.items[*user];
            let object = Object { kind: Kind::Xattrs, blocks: 1, path, content: None, origin: &entry.origin };
            Claim { object, owner: Owner::XattrBlock(block) }
        }));
        claims.extend(self.claims_of(Kind::File));
        claims
    }

    fn claims_of(&self, wanted: Kind) -> impl Iterator<Item = Claim<'t>> {
        self.items.iter().enumerate().filter_map(move |(at, item)| {
            let (kind, blocks) = item.body.demand().filter(|(kind, _)| *kind == wanted)?;
            let content = if let Body::File(content) = &item.body { Some(*content) } else { None };
            let object = Object { kind, blocks, path: item.path, content, origin: &item.entry.origin };
            Some(Claim { object, owner: Owner::Item(at) })
        })
    }
}

fn refused(path: &TreePath, refusal: Refusal) -> Error {
    let path = path.clone();
    let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
    match refusal {
        Refusal::Name(name) => Error::XattrName { path, name: text(name) },
        Refusal::AccessList(name) => Error::AccessList { path, name: text(name) },
        Refusal::TooLarge(needed) => Error::XattrsTooLarge { path, needed, room: xattr::BLOCK_ROOM },
    }
}
