//! What the tests share: images in sparse temporary files, e2fsprogs' programs, and the comparison with a tree.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::os::unix::fs::FileExt;
use std::process::Output;

use block::{BlockMap, BlockSource};
use ext4::{Options, PathPlacement, SimplePlacement};
use ext4_view::{Ext4, Ext4Read, FileType};
use tree::{Entry, Meta, Node, Timestamp, Tree, TreePath};

/// Runs a program of e2fsprogs, without a locale or a configuration of this machine.
pub(crate) fn run(name: &str, arguments: &[&str]) -> Output {
    let mut command = workbench::tool(name);
    command.args(arguments);
    command.env("MKE2FS_CONFIG", "/nonexistent").env("E2FSCK_CONFIG", "/nonexistent");
    command.output().unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

pub(crate) const UUID: [u8; 16] =
    [0x5a, 0x0e, 0x6b, 0x52, 0x11, 0x2f, 0x8c, 0x4d, 0x9e, 0x01, 0x77, 0x3c, 0xd4, 0x5e, 0x6f, 0x80];

pub(crate) fn options(size: u64) -> Options {
    Options { time: 1_700_000_000, label: "rootfs".into(), ..Options::new(size, UUID) }
}

pub(crate) fn simple(tree: &Tree, options: &Options) -> BlockMap {
    ext4::write(tree, options, &SimplePlacement).unwrap()
}

pub(crate) fn by_path(tree: &Tree, options: &Options) -> BlockMap {
    ext4::write(tree, options, &PathPlacement).unwrap()
}

/// A volume in a sparse temporary file.
pub(crate) struct Image {
    pub(crate) file: tempfile::NamedTempFile,
}

impl Image {
    pub(crate) fn new(map: &BlockMap) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(map.len()).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let zeros = buffer.clone();
        for extent in map.extents() {
            let mut done = 0;
            while done < extent.len {
                let piece = &mut buffer[..(extent.len - done).min(1 << 20) as usize];
                extent.content.read_at(extent.content_offset + done, piece).unwrap();
                if piece != &zeros[..piece.len()] {
                    file.as_file().write_all_at(piece, extent.offset + done).unwrap();
                }
                done += piece.len() as u64;
            }
        }
        Self { file }
    }

    pub(crate) fn name(&self) -> &str {
        self.file.path().to_str().unwrap()
    }

    /// A full check must find nothing to complain of.
    pub(crate) fn check(&self) {
        if let Some(complaint) = self.complaint() {
            panic!("{complaint}");
        }
    }

    /// What a full check complains of.
    pub(crate) fn complaint(&self) -> Option<String> {
        let output = run("e2fsck", &["-f", "-n", self.name()]);
        let text = String::from_utf8_lossy(&output.stdout);
        let expected =
            |line: &str| line.starts_with("Pass ") || line.contains(" files (") && line.ends_with(" blocks");
        let clean = output.status.success() && text.lines().all(expected);
        (!clean).then(|| format!("{}\n{text}", output.status))
    }

    /// The value of a line of `dumpe2fs -h`.
    pub(crate) fn header(&self, field: &str) -> Option<String> {
        header(self.name(), field)
    }

    /// What `debugfs` answers to a request.
    pub(crate) fn debugfs(&self, request: &str) -> String {
        let output = run("debugfs", &["-R", request, self.name()]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// The value of a line of `dumpe2fs -h` on the image with this name.
pub(crate) fn header(image: &str, field: &str) -> Option<String> {
    let output = run("dumpe2fs", &["-h", image]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(name, _)| *name == field).map(|(_, value)| value.trim().to_owned())
}

/// A volume to be read in place: contents need not be written anywhere.
struct Reader(BlockMap);

impl Ext4Read for Reader {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn StdError + Send + Sync + 'static>> {
        Ok(self.0.read_at(start_byte, dst)?)
    }
}

/// The volume as `ext4-view` sees it.
pub(crate) fn view(map: &BlockMap) -> Ext4 {
    Ext4::load(Box::new(Reader(map.clone()))).unwrap()
}

/// What the file system can tell of a time.
fn storable(time: Timestamp) -> Timestamp {
    let (first, last) = (-(1_i64 << 31), (1_i64 << 34) - (1_i64 << 31) - 1);
    if (first..=last).contains(&time.seconds) {
        time
    } else {
        Timestamp::from_seconds(time.seconds.clamp(first, last))
    }
}

/// Reads the whole volume back and compares it with the tree.
pub(crate) fn compare(map: &BlockMap, tree: &Tree) {
    let volume = view(map);
    let mut names: BTreeMap<TreePath, Vec<Vec<u8>>> = BTreeMap::new();
    for (path, entry) in tree.iter() {
        if let Some(parent) = path.parent() {
            names.entry(parent).or_default().push(path.name().to_vec());
        }
        let entry = match &entry.node {
            Node::HardLink(target) => tree.get(target).unwrap(),
            _ => entry,
        };
        compare_entry(&volume, path, entry);
    }
    let folders = tree.iter().filter(|(_, entry)| entry.node == Node::Directory);
    for (folder, _) in folders {
        let mut found: Vec<_> = volume
            .read_dir(&absolute(folder)[..])
            .unwrap()
            .map(|entry| entry.unwrap().file_name().as_ref().to_vec())
            .filter(|name| {
                let extra =
                    folder.is_root() && name == b"lost+found" && tree.get(&path("lost+found")).is_none();
                !extra && name != b"." && name != b".."
            })
            .collect();
        found.sort();
        assert_eq!(found, names.remove(folder).unwrap_or_default(), "names in {folder:?}");
    }
}

fn absolute(path: &TreePath) -> Vec<u8> {
    [b"/", path.as_bytes()].concat()
}

fn compare_entry(volume: &Ext4, path: &TreePath, entry: &Entry) {
    let Meta { mode, uid, gid, mtime, .. } = entry.meta;
    let at = absolute(path);
    let found = volume.symlink_metadata(&at[..]).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (mode, uid, gid), "{path:?}");
    let time = storable(mtime);
    for time_found in [found.modified(), found.accessed(), found.created().unwrap()] {
        assert_eq!(
            (time_found.seconds(), time_found.nanoseconds()),
            (time.seconds, time.nanoseconds),
            "{path:?}"
        );
    }
    let file_type = match &entry.node {
        Node::File(content) => {
            assert_eq!(found.len(), content.len(), "{path:?}");
            if content.len() < 1 << 24 {
                assert!(volume.read(&at[..]).unwrap() == content.read_all().unwrap(), "content of {path:?}");
            }
            FileType::Regular
        }
        Node::Directory => FileType::Directory,
        Node::Symlink(target) => {
            assert_eq!(volume.read_link(&at[..]).unwrap().as_ref(), &target[..], "{path:?}");
            FileType::Symlink
        }
        Node::CharDevice { .. } => FileType::CharacterDevice,
        Node::BlockDevice { .. } => FileType::BlockDevice,
        Node::Fifo => FileType::Fifo,
        Node::Socket => FileType::Socket,
        Node::HardLink(_) => unreachable!("a hard link never names another"),
    };
    assert_eq!(found.file_type(), file_type, "{path:?}");
}
