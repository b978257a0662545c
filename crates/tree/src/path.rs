use std::cmp::Ordering;
use std::fmt;

/// Why bytes are not a path of a tree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    /// A `..` component: the path could leave the tree.
    #[error("the path `{0}` has a `..` in it")]
    ParentComponent(String),
    /// A NUL byte.
    #[error("the path `{0}` has a NUL byte in it")]
    Nul(String),
    /// A name longer than 255 bytes, the most that Linux file systems take.
    #[error("the path `{0}` has a name longer than 255 bytes")]
    NameTooLong(String),
}

/// A path of a [`crate::Tree`]: bytes, relative to the root, components parted by single slashes. The root is empty.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TreePath(Box<[u8]>);

impl TreePath {
    /// The root folder.
    pub fn root() -> Self {
        Self(Box::new([]))
    }

    /// Reads a path as archives and people write it: leading `/` or `./`, doubled or trailing slashes and `.`
    /// components mean nothing.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        let text = || shown(bytes);
        if bytes.contains(&0) {
            return Err(PathError::Nul(text()));
        }
        let mut clean = Vec::with_capacity(bytes.len());
        for name in bytes.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(PathError::ParentComponent(text())),
                _ if name.len() > 255 => return Err(PathError::NameTooLong(text())),
                _ => {}
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(name);
        }
        Ok(Self(clean.into()))
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root folder.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the root down; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The last name; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// The folder that holds it; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }

    /// The path of `name` inside this folder. `name` may itself have several components.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        Self::new(&[&self.0, b"/".as_slice(), name].concat())
    }

    /// Whether this path is `folder` or lies below it.
    pub fn starts_with(&self, folder: &Self) -> bool {
        folder.is_root()
            || self.0.strip_prefix(&*folder.0).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // A slash sorts below every other byte, so that a folder's content follows it at once.
        let key = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
        self.0.iter().map(key).cmp(other.0.iter().map(key))
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

/// A path for people: what is no text, and what a terminal would obey, is shown as U+FFFD.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).replace(block::is_obeyed, "\u{fffd}")
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`/{self}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_escapes_refused() {
        let clean = |text: &str| TreePath::new(text.as_bytes()).map(|path| path.to_string());
        assert_eq!(clean("./usr//bin/."), Ok("usr/bin".into()));
        assert_eq!(clean("/"), Ok(String::new()));
        assert!(matches!(clean("a/../b"), Err(PathError::ParentComponent(_))));
        assert!(matches!(clean("a\0b"), Err(PathError::Nul(_))));
        assert!(matches!(clean(&"n".repeat(256)), Err(PathError::NameTooLong(_))));
    }

    #[test]
    fn a_terminal_obeys_nothing_in_a_path() {
        let path = TreePath::new("a\u{1b}[2Jb\u{202e}\u{9b}\n".as_bytes()).unwrap();
        assert_eq!(path.to_string(), "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}");
        let error = TreePath::new(b"../\x1b[2J").unwrap_err();
        assert_eq!(error.to_string(), "the path `../\u{fffd}[2J` has a `..` in it");
    }

    #[test]
    fn parents_and_names() {
        let path = TreePath::new(b"usr/bin/ls").unwrap();
        assert_eq!(path.name(), b"ls");
        assert_eq!(path.parent().unwrap().to_string(), "usr/bin");
        assert_eq!(TreePath::new(b"usr").unwrap().parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
    }
}
