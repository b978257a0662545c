//! The Tree: every file of a file system, before anybody decides where its bytes lie.
//!
//! *What comes in:* entries, in any order, from whoever makes files (packages, the recipe, maintainer scripts).
//! *What goes out:* one sorted value that can be compared, walked and written by a file system's writer. *What it
//! may not know:* packages, recipes, disks; where contents are kept is the business of [`block::ReadAt`].
//!
//! Paths are bytes (any byte but `/` and NUL in a name), relative to the root, without `.` or `..`. They sort by
//! component, so every folder comes right before what it holds.

mod codec;
mod entry;
pub mod leb128;
mod path;

use std::collections::BTreeMap;

pub use codec::ReadError;
pub use entry::{Entry, Meta, Node, Timestamp};
pub use path::{PathError, TreePath};

/// What is wrong with a tree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// An entry's folder does not exist, or is not a folder.
    #[error("`/{path}`: its parent is not a folder of the tree")]
    NoParent {
        /// The entry.
        path: TreePath,
    },
    /// A hard link names something that is not there, or that cannot be linked to.
    #[error("`/{path}` is a hard link to `/{target}`, which is not a file of the tree")]
    BadHardLink {
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
    },
}

/// A file system's files. The root folder is the entry with the empty path; every tree has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<TreePath, Entry>,
}

impl Tree {
    /// A tree of one folder, its root.
    pub fn new(root: Entry) -> Self {
        Self { entries: BTreeMap::from([(TreePath::root(), root)]) }
    }

    /// Puts an entry at a path, in place of what was there. Its parent may come later; [`Tree::check`] looks.
    pub fn insert(&mut self, path: TreePath, entry: Entry) -> Option<Entry> {
        self.entries.insert(path, entry)
    }

    /// Takes an entry away, with all below it when it is a folder. The root stays.
    pub fn remove(&mut self, path: &TreePath) -> Option<Entry> {
        if path.is_root() {
            return None;
        }
        let entry = self.entries.remove(path)?;
        let below: Vec<_> = self.below(path).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.entries.remove(&path);
        }
        Some(entry)
    }

    /// The entry at a path.
    pub fn get(&self, path: &TreePath) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// The entry at a path, to be changed.
    pub fn get_mut(&mut self, path: &TreePath) -> Option<&mut Entry> {
        self.entries.get_mut(path)
    }

    /// All entries, each folder right before what it holds.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Entry)> {
        self.entries.iter()
    }

    /// All entries, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&TreePath, &mut Entry)> {
        self.entries.iter_mut()
    }

    /// Everything inside a folder, at any depth, without the folder.
    pub fn below<'a>(&'a self, folder: &'a TreePath) -> impl Iterator<Item = (&'a TreePath, &'a Entry)> {
        self.entries
            .range(folder.clone()..)
            .skip_while(move |(path, _)| *path == folder)
            .take_while(move |(path, _)| path.starts_with(folder))
    }

    /// How many entries there are, the root among them.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing: never, for a tree has its root.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Looks whether every entry has a folder to be in and every hard link a file to name.
    pub fn check(&self) -> Result<(), TreeError> {
        for (path, entry) in &self.entries {
            if let Some(parent) = path.parent()
                && !matches!(self.entries.get(&parent), Some(Entry { node: Node::Directory, .. }))
            {
                return Err(TreeError::NoParent { path: path.clone() });
            }
            if let Node::HardLink(target) = &entry.node
                && !self.entries.get(target).is_some_and(|entry| entry.node.can_be_linked())
            {
                return Err(TreeError::BadHardLink { path: path.clone(), target: target.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::new(Entry::directory(0o755));
        for text in paths {
            tree.insert(path(text), Entry::directory(0o755));
        }
        tree
    }

    #[test]
    fn a_folder_comes_right_before_what_it_holds() {
        let tree = tree(&["a-b", "a", "a/z", "a.b", "a/b/c", "a/b"]);
        let order: Vec<_> = tree.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(order, ["", "a", "a/b", "a/b/c", "a/z", "a-b", "a.b"]);
    }

    #[test]
    fn removing_a_folder_takes_all_below_it_and_nothing_beside_it() {
        let mut tree = tree(&["a", "a/b", "a/b/c", "a-b", "a.b"]);
        assert!(tree.remove(&path("a")).is_some());
        let left: Vec<_> = tree.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(left, ["", "a-b", "a.b"]);
    }

    #[test]
    fn an_orphan_and_a_dangling_hard_link_are_found() {
        let orphan = tree(&["a/b"]);
        assert_eq!(orphan.check(), Err(TreeError::NoParent { path: path("a/b") }));
        let mut linked = tree(&["a"]);
        let link = Entry { node: Node::HardLink(path("a")), ..Entry::directory(0o755) };
        linked.insert(path("b"), link);
        assert_eq!(linked.check(), Err(TreeError::BadHardLink { path: path("b"), target: path("a") }));
    }
}
