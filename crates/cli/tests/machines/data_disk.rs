//! A data disk of our own writing, as wild as file systems get, and what the kernel must find on it.

use std::fs;
use std::path::{Path, PathBuf};

use block::{Content, Digest, GIB, MIB, Origin};
use ext4::{NoRoom, Object, Options, Placement, Run, SimplePlacement, Space};
use serde_json::{Value, json};
use tree::{Entry, Meta, Node, Timestamp, Tree, TreePath};

/// How many names the large folder has.
pub(crate) const NAMES: usize = 65_000;

/// Reads every file, name and attribute of the mounted disk, then changes thousands of them.
pub(crate) const EXERCISE: &str = include_str!("exercise.py");

/// Numbers that look like chance and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// Like the simple placement, but the file `scattered` lies in single blocks with gaps between them, so that its
/// extent tree is deep.
struct Scattered;

impl Placement for Scattered {
    fn place(&self, objects: &[Object<'_>], space: &mut Space) -> Result<Vec<Vec<Run>>, NoRoom> {
        let is_scattered = |object: &&Object<'_>| object.path.as_bytes() == b"scattered";
        let scattered = objects.iter().find(is_scattered).expect("the file is in the tree");
        // From the volume's end, so that the others find their places as always.
        let mut at = space.volume_blocks() / 2;
        let single = (0..scattered.blocks).map(|_| {
            let run = space.take(1, at).ok_or(NoRoom)?;
            at = run.start + 3;
            Ok(run)
        });
        let single = single.collect::<Result<Vec<_>, _>>()?;
        let others: Vec<Object<'_>> =
            objects.iter().copied().filter(|object| !is_scattered(&object)).collect();
        let mut placed = SimplePlacement.place(&others, space)?.into_iter();
        Ok(objects
            .iter()
            .map(
                |object| {
                    if is_scattered(&object) { single.clone() } else { placed.next().unwrap_or_default() }
                },
            )
            .collect())
    }
}

/// Writes the disk and gives its path and what must be found on it, as JSON for [`EXERCISE`].
pub(crate) fn write(folder: &Path) -> (PathBuf, String) {
    let tree = tree();
    let entries: Vec<Value> = tree
        .iter()
        .filter(|(path, _)| !path.as_bytes().starts_with(b"many/"))
        .map(|(path, entry)| expected(path, entry))
        .collect();
    let raw = folder.join("data.raw");
    volume(&tree, GIB, &Scattered, &raw);
    (raw, json!({"entries": entries, "many": NAMES}).to_string())
}

/// Writes a small disk that holds files.
pub(crate) fn of_files(files: Vec<(String, Vec<u8>)>, raw: &Path) {
    let mut tree = Tree::new(Entry::directory(0o755));
    let size: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    for (path, bytes) in files {
        let path = TreePath::new(path.as_bytes()).unwrap();
        let parent = path.parent().unwrap();
        if !parent.is_root() {
            tree.insert(parent, Entry::directory(0o755));
        }
        tree.insert(path, Entry::file(0o644, bytes, Origin::Configured));
    }
    volume(&tree, 2 * (size as u64).next_multiple_of(MIB) + 64 * MIB, &SimplePlacement, raw);
}

fn volume(tree: &Tree, size: u64, placement: &dyn Placement, raw: &Path) {
    let options = Options { time: 1_700_000_000, ..Options::new(size, [7; 16]) };
    let map = ext4::write(tree, &options, placement).unwrap();
    formats::write_raw(&map, raw, &|_| {}).unwrap();
}

fn tree() -> Tree {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut tree = Tree::new(Entry::directory(0o755));
    let mut folders = vec![TreePath::root()];
    let mut files = Vec::new();
    for at in 0..1500 {
        let parent = &folders[numbers.below(folders.len() as u64) as usize];
        let Ok(path) = parent.join(&name(&mut numbers, at)) else { continue };
        let node = match numbers.below(10) {
            0 | 1 => Node::Directory,
            2 => Node::Symlink(vec![b'x'; [5, 59, 60, 61, 4095][numbers.below(5) as usize]]),
            3 if !files.is_empty() => {
                Node::HardLink(TreePath::clone(&files[numbers.below(files.len() as u64) as usize]))
            }
            4 => [Node::Fifo, Node::CharDevice { major: 1, minor: 3 }, Node::Socket]
                [numbers.below(3) as usize]
                .clone(),
            _ => {
                let len = [0, 1, 4095, 4096, 4097, 20_000, 300_000][numbers.below(7) as usize];
                Node::File(Content::from_bytes(numbers.bytes(len)))
            }
        };
        match &node {
            Node::Directory => folders.push(path.clone()),
            Node::File(_) => files.push(path.clone()),
            _ => {}
        }
        let meta = meta(&mut numbers, &node);
        tree.insert(path, Entry { meta, node, origin: Origin::Configured });
    }
    let path = |text: &str| TreePath::new(text.as_bytes()).unwrap();
    tree.insert(path("many"), Entry::directory(0o755));
    for at in 0..NAMES {
        // The same names are in the exercise.
        let name = format!("many/{at:06}-{}", "long".repeat(at % 40));
        tree.insert(path(&name), Entry::file(0o644, "", Origin::Configured));
    }
    tree.insert(path("scattered"), Entry::file(0o644, numbers.bytes(2000 * 4096 + 17), Origin::Configured));
    tree.check().unwrap();
    tree
}

/// Short and long names of any bytes.
fn name(numbers: &mut Numbers, at: usize) -> Vec<u8> {
    let mut name = format!("{at}-").into_bytes();
    let len = [0, 5, 30, 255 - name.len() as u64][numbers.below(4) as usize];
    name.extend(
        numbers.bytes(len).into_iter().map(|byte| if matches!(byte, 0 | b'/') { b'_' } else { byte }),
    );
    name
}

fn meta(numbers: &mut Numbers, node: &Node) -> Meta {
    let mut meta = Meta {
        mode: 0o400 | numbers.below(0o1000) as u16,
        uid: numbers.below(1 << 32) as u32,
        gid: numbers.below(70_000) as u32,
        mtime: Timestamp {
            seconds: numbers.below(1 << 33) as i64,
            nanoseconds: numbers.below(1_000_000_000) as u32,
        },
        ..Meta::default()
    };
    if matches!(node, Node::File(_) | Node::Directory) {
        for at in 0..numbers.below(4) {
            let len = [0, 8, 100, 700][numbers.below(4) as usize];
            meta.xattrs.insert(format!("user.attribute{at}").into_bytes(), numbers.bytes(len));
        }
    }
    meta
}

fn expected(path: &TreePath, entry: &Entry) -> Value {
    let (kind, content) = match &entry.node {
        Node::File(content) => ("file", content.id().to_hex()),
        Node::Symlink(target) => ("link", hex(target)),
        Node::HardLink(first) => return json!({"path": hex(path.as_bytes()), "same": hex(first.as_bytes())}),
        Node::Directory => ("folder", String::new()),
        _ => ("special", String::new()),
    };
    let Meta { mode, uid, gid, mtime, xattrs } = &entry.meta;
    let xattrs: serde_json::Map<String, Value> = xattrs
        .iter()
        .map(|(name, value)| (String::from_utf8_lossy(name).into(), hex(value).into()))
        .collect();
    let time = i128::from(mtime.seconds) * 1_000_000_000 + i128::from(mtime.nanoseconds);
    json!({
        "path": hex(path.as_bytes()), "kind": kind, "content": content, "mode": mode, "uid": uid, "gid": gid,
        "mtime": time.to_string(), "xattrs": xattrs,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a package that was fetched for an image.
pub(crate) fn package(downloads: &debian::Cache, sha256: Digest) -> Vec<u8> {
    fs::read(downloads.path(sha256)).unwrap()
}
