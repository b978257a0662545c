//! Two trees side by side.

use std::collections::BTreeSet;
use std::fmt;

use tree::{Entry, Node, Tree, TreePath};

/// One way in which two trees differ at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub path: TreePath,
    /// How.
    pub kind: DifferenceKind,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Only the first tree has it.
    OnlyFirst,
    /// Only the second tree has it.
    OnlySecond,
    /// It is another kind of thing, another link or another device.
    Node(String, String),
    /// The bytes differ; how many there are in each.
    Content(u64, u64),
    /// Permission bits.
    Mode(u16, u16),
    /// Owner and group.
    Owner((u32, u32), (u32, u32)),
    /// Extended attributes: the names that differ.
    Attributes(Vec<String>),
    /// Modification time, in seconds.
    Time(i64, i64),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}: ", self.path)?;
        match &self.kind {
            DifferenceKind::OnlyFirst => write!(f, "only in the first"),
            DifferenceKind::OnlySecond => write!(f, "only in the second"),
            DifferenceKind::Node(a, b) => write!(f, "{a}, {b}"),
            DifferenceKind::Content(a, b) => write!(f, "other content ({a} and {b} bytes)"),
            DifferenceKind::Mode(a, b) => write!(f, "mode {a:04o} and {b:04o}"),
            DifferenceKind::Owner(a, b) => write!(f, "owner {}:{} and {}:{}", a.0, a.1, b.0, b.1),
            DifferenceKind::Attributes(names) => write!(f, "attributes {}", names.join(", ")),
            DifferenceKind::Time(a, b) => write!(f, "time {a} and {b}"),
        }
    }
}

/// Everything in which two trees differ, by path. Who made an entry counts for nothing.
pub fn compare(first: &Tree, second: &Tree) -> Vec<Difference> {
    let paths: BTreeSet<&TreePath> = first.iter().chain(second.iter()).map(|(path, _)| path).collect();
    let mut differences = Vec::new();
    for path in paths {
        let mut note = |kind| differences.push(Difference { path: path.clone(), kind });
        match (first.get(path), second.get(path)) {
            (Some(_), None) => note(DifferenceKind::OnlyFirst),
            (None, Some(_)) => note(DifferenceKind::OnlySecond),
            (Some(a), Some(b)) => compare_entries(a, b, &mut note),
            (None, None) => {}
        }
    }
    differences
}

fn compare_entries(a: &Entry, b: &Entry, note: &mut dyn FnMut(DifferenceKind)) {
    match (&a.node, &b.node) {
        (Node::File(a), Node::File(b)) if a != b => note(DifferenceKind::Content(a.len(), b.len())),
        (a, b) if a != b => note(DifferenceKind::Node(describe(a), describe(b))),
        _ => {}
    }
    if matches!((&a.node, &b.node), (Node::HardLink(_), Node::HardLink(_))) {
        return;
    }
    let (a, b) = (&a.meta, &b.meta);
    if a.mode != b.mode {
        note(DifferenceKind::Mode(a.mode, b.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        note(DifferenceKind::Owner((a.uid, a.gid), (b.uid, b.gid)));
    }
    if a.xattrs != b.xattrs {
        let names: BTreeSet<_> = a.xattrs.keys().chain(b.xattrs.keys()).collect();
        let names = names.into_iter().filter(|name| a.xattrs.get(*name) != b.xattrs.get(*name));
        note(DifferenceKind::Attributes(
            names.map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
        ));
    }
    if a.mtime != b.mtime {
        note(DifferenceKind::Time(a.mtime.seconds, b.mtime.seconds));
    }
}

fn describe(node: &Node) -> String {
    match node {
        Node::File(content) => format!("a file of {} bytes", content.len()),
        Node::Directory => "a folder".into(),
        Node::Symlink(target) => format!("a link to {}", String::from_utf8_lossy(target)),
        Node::CharDevice { major, minor } => format!("character device {major}:{minor}"),
        Node::BlockDevice { major, minor } => format!("block device {major}:{minor}"),
        Node::Fifo => "a pipe".into(),
        Node::Socket => "a socket".into(),
        Node::HardLink(target) => format!("another name of /{target}"),
    }
}
