//! The root as the running machine will see it: paths through links, texts, folders.

use std::collections::VecDeque;

use block::Content;
use tree::{Entry, Node, Tree, TreePath};

use crate::Error;

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;
/// More than any text file that a rule names has; what lies behind is not looked at.
const LONGEST_TEXT: u64 = 4 * 1024 * 1024;

/// The root file system of an image.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    tree: &'a Tree,
}

/// A regular file: its own path, behind all links.
pub(crate) struct File<'a> {
    pub(crate) path: TreePath,
    pub(crate) content: &'a Content,
}

impl<'a> Image<'a> {
    pub(crate) fn new(tree: &'a Tree) -> Self {
        Self { tree }
    }

    /// What is at a path, behind all links; `None` where that is nothing.
    pub(crate) fn resolve(&self, path: &str) -> Option<(TreePath, &'a Entry)> {
        let mut ahead: VecDeque<Vec<u8>> = names(path.as_bytes()).collect();
        let mut here = TreePath::root();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    here = here.parent().unwrap_or_else(TreePath::root);
                    continue;
                }
                _ => {}
            }
            let next = here.join(&name).ok()?;
            match &self.tree.get(&next)?.node {
                Node::Symlink(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        here = TreePath::root();
                    }
                    for name in names(target).rev() {
                        ahead.push_front(name);
                    }
                }
                Node::HardLink(target) => here = target.clone(),
                _ => here = next,
            }
        }
        let entry = self.tree.get(&here)?;
        Some((here, entry))
    }

    /// Whether there is anything at a path.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_some()
    }

    /// The regular file at a path.
    pub(crate) fn file(&self, path: &str) -> Option<File<'a>> {
        let (path, entry) = self.resolve(path)?;
        match &entry.node {
            Node::File(content) => Some(File { path, content }),
            _ => None,
        }
    }

    /// A text file at a path, whatever is not UTF-8 in it replaced.
    pub(crate) fn text(&self, path: &str) -> Result<Option<(TreePath, String)>, Error> {
        let Some(File { path, content }) = self.file(path) else { return Ok(None) };
        let bytes = start(content, LONGEST_TEXT, &path)?;
        Ok(Some((path, String::from_utf8_lossy(&bytes).into_owned())))
    }

    /// The entry at a path itself, links not followed.
    pub(crate) fn entry(&self, path: &str) -> Option<&'a Entry> {
        self.tree.get(&TreePath::new(path.as_bytes()).ok()?)
    }

    /// Everything below a folder, at any depth.
    pub(crate) fn below(&self, folder: &str) -> Vec<TreePath> {
        let Some((folder, _)) = self.resolve(folder) else { return Vec::new() };
        self.tree.below(&folder).map(|(path, _)| path.clone()).collect()
    }

    /// The names right in a folder that are UTF-8, sorted by their bytes.
    pub(crate) fn list(&self, folder: &str) -> Vec<String> {
        let Some((folder, _)) = self.resolve(folder) else { return Vec::new() };
        let depth = folder.components().count() + 1;
        let inside = self.tree.below(&folder).filter(|(path, _)| path.components().count() == depth);
        let mut names: Vec<_> =
            inside.filter_map(|(path, _)| String::from_utf8(path.name().to_vec()).ok()).collect();
        names.sort_unstable();
        names
    }

    /// The texts in a folder whose names end so, sorted by name.
    pub(crate) fn texts(&self, folder: &str, ending: &str) -> Result<Vec<(TreePath, String)>, Error> {
        let mut texts = Vec::new();
        for name in self.list(folder).into_iter().filter(|name| name.ends_with(ending)) {
            texts.extend(self.text(&format!("{folder}/{name}"))?);
        }
        Ok(texts)
    }
}

fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec)
}

/// The first bytes of a file, at most so many.
pub(crate) fn start(content: &Content, most: u64, path: &TreePath) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(content.len().min(most)).unwrap_or(usize::MAX)];
    content.read_at(0, &mut bytes).map_err(|source| Error::Read { path: path.clone(), source })?;
    Ok(bytes)
}

/// The lines that say something, with their numbers from 1: no blank ones, no comments.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// A value without the quotes around it.
pub(crate) fn unquoted(value: &str) -> &str {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use block::Origin;

    use super::*;

    fn tree(entries: &[(&str, Entry)]) -> Tree {
        let mut tree = Tree::new(Entry::directory(0o755));
        for (path, entry) in entries {
            tree.insert(TreePath::new(path.as_bytes()).unwrap(), entry.clone());
        }
        tree
    }

    #[test]
    fn links_are_followed_within_the_root() {
        let file = Entry::file(0o644, *b"text", Origin::Configured);
        let link = |target: &str| Entry::symlink(target, Origin::Configured);
        let hard = Entry { node: Node::HardLink(TreePath::new(b"usr/lib/a").unwrap()), ..file.clone() };
        let tree = tree(&[
            ("usr", Entry::directory(0o755)),
            ("usr/lib", Entry::directory(0o755)),
            ("usr/lib/a", file),
            ("lib", link("usr/lib")),
            ("etc", Entry::directory(0o755)),
            ("etc/far", link("../../../lib/a")),
            ("etc/absolute", link("/lib/a")),
            ("etc/hard", hard),
            ("etc/round", link("round")),
            ("etc/nowhere", link("nothing")),
        ]);
        let image = Image::new(&tree);
        for path in ["lib/a", "/usr/lib/a", "etc/far", "etc/absolute", "etc/hard", "lib/../lib/./a"] {
            let file = image.file(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(file.path.to_string(), "usr/lib/a");
        }
        assert!(image.resolve("etc/round").is_none() && image.resolve("etc/nowhere").is_none());
        assert_eq!(image.list("lib"), ["a"]);
        assert_eq!(image.text("etc/far").unwrap().unwrap().1, "text");
    }
}
