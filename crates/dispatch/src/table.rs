use std::collections::BTreeMap;

use crate::choice;
use crate::native::{NativeTree, Program};
use crate::{FOLDER, TREE};

/// Which files of the target are dispatched, growing as packages are laid down.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// By package: version, then programs by their path in the target, without a leading `/`.
    programs: BTreeMap<String, (String, BTreeMap<Vec<u8>, Program>)>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Table {
    /// An empty table over a tree's programs.
    pub fn new(tree: &NativeTree) -> Self {
        let mut table = Self::default();
        for program in &tree.programs {
            let package = table.programs.entry(program.package.clone());
            let (_, programs) = package.or_insert_with(|| (program.version.clone(), BTreeMap::new()));
            programs.insert(program.path.clone(), program.clone());
        }
        table
    }

    /// Tells of a file of a package that was laid down at `path` (relative, as the kernel finds it: without links). It is
    /// dispatched from now on if the tree has the same program; a file that took another's place takes its entry too.
    pub fn laid(&mut self, package: &str, version: &str, path: &[u8], size: u64, mtime: i64) {
        self.entries.remove(path);
        let Some((native, programs)) = self.programs.get(package) else { return };
        if let Some(program) = programs.get(path)
            && crate::same_source(native, version)
        {
            self.entries.insert(path.to_owned(), entry(program, path, size, mtime));
        }
    }

    /// Whether the tree has programs of this package.
    pub fn knows(&self, package: &str) -> bool {
        self.programs.contains_key(package)
    }

    /// The number of programs that are dispatched.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The file that the handler reads.
    pub fn bytes(&self) -> Vec<u8> {
        self.entries.values().flatten().copied().collect()
    }
}

/// ```text
///  0  size of the target's file            u64, little-endian as all
///  8  its modification time, seconds       i64
/// 16  length of its path, with the zero    u16
/// 18  length of the host's program         u16
/// 20  length of the variable, or 0         u16
/// 22  length of the first arguments, one of
///     which it must be called with, or 0   u16
/// 24  the four texts, each with a zero byte behind it
/// ```
fn entry(program: &Program, path: &[u8], size: u64, mtime: i64) -> Vec<u8> {
    let native = format!("{FOLDER}/{TREE}/{}", program.native);
    let name = path.rsplit(|byte| *byte == b'/').next().and_then(|name| std::str::from_utf8(name).ok());
    let arguments = name.and_then(choice::only_with).unwrap_or_default();
    let texts = [
        [b"/", path].concat(),
        native.into_bytes(),
        program.variable.clone().into_bytes(),
        arguments.as_bytes().to_vec(),
    ];
    let mut entry = Vec::new();
    entry.extend(size.to_le_bytes());
    entry.extend(mtime.to_le_bytes());
    for text in &texts {
        let length = if text.is_empty() { 0 } else { text.len() + 1 };
        // Paths and variables are far shorter than 64 KiB.
        entry.extend((length as u16).to_le_bytes());
    }
    for text in texts.iter().filter(|text| !text.is_empty()) {
        entry.extend(text);
        entry.push(0);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_program_is_dispatched() {
        let program = |path: &str| Program {
            package: "dash".into(),
            version: "0.5.12-12".into(),
            path: path.into(),
            native: "bin/dash".into(),
            variable: String::new(),
        };
        let tree = NativeTree { folder: "/".into(), programs: vec![program("usr/bin/dash")] };
        let mut table = Table::new(&tree);
        table.laid("dash", "0.5.12-11", b"usr/bin/dash", 10, 20);
        table.laid("other", "0.5.12-12", b"usr/bin/dash", 10, 20);
        table.laid("dash", "0.5.12-12", b"usr/bin/dash.distrib", 10, 20);
        assert!(table.is_empty());
        table.laid("dash", "0.5.12-12+b3", b"usr/bin/dash", 10, 20);
        let bytes = table.bytes();
        assert_eq!((table.len(), &bytes[..8]), (1, &10_u64.to_le_bytes()[..]));
        assert_eq!(&bytes[16..24], [14, 0, 19, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[24..], b"/usr/bin/dash\0/.bh/tree/bin/dash\0");
        table.laid("other", "1", b"usr/bin/dash", 11, 20);
        assert!(table.is_empty());
        let bytes = entry(&program("usr/bin/dpkg"), b"usr/bin/dpkg", 10, 20);
        assert_eq!(&bytes[16..24], [14, 0, 19, 0, 0, 0, 38, 0]);
        assert!(bytes.ends_with(b"\0--compare-versions --validate-version\0"));
    }
}
