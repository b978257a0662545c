//! What the house's own writer writes, read back whole.

use std::collections::BTreeMap;

use block::{BlockMap, BlockMapBuilder, BlockSource, Content, Digest, MIB, Origin};
use ext4::{Options, SimplePlacement};
use inspect::{FileSystem, Kind, PartitionContent, partitions, read_file};
use proptest::prelude::*;
use tree::{Entry, Meta, Node, Timestamp, Tree, TreePath};

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn written(tree: &Tree, size: u64) -> BlockMap {
    let options = Options { time: 1_700_000_000, ..Options::new(size, [7; 16]) };
    ext4::write(tree, &options, &SimplePlacement).unwrap()
}

fn files(disk: &dyn BlockSource) -> FileSystem {
    let found = partitions(disk).unwrap();
    assert_eq!((found.len(), found[0].number, found[0].len), (1, 0, disk.len()));
    match found.into_iter().next().unwrap().content {
        PartitionContent::Files(files) => files,
        PartitionContent::Unread(why) => panic!("{why}"),
    }
}

/// Looks whether a volume holds what its tree says, no more and no less.
fn compare(disk: &BlockMap, tree: &Tree) {
    let found = files(disk);
    assert!(found.clean);
    let names: Vec<_> =
        found.names.iter().map(|(name, _)| name).filter(|name| **name != path("lost+found")).collect();
    assert_eq!(names, tree.iter().map(|(path, _)| path).collect::<Vec<_>>());
    let number =
        |path: &TreePath| found.names[found.names.binary_search_by(|(name, _)| name.cmp(path)).unwrap()].1;
    for (path, entry) in tree.iter() {
        let entry = match &entry.node {
            Node::HardLink(target) => {
                assert_eq!(number(path), number(target));
                tree.get(target).unwrap()
            }
            _ => entry,
        };
        let inode = &found.inodes[&number(path)];
        let Meta { mode, uid, gid, mtime, xattrs } = &entry.meta;
        assert_eq!((inode.mode, inode.uid, inode.gid, inode.mtime), (*mode, *uid, *gid, *mtime), "{path:?}");
        let plain = |name: &[u8]| !name.starts_with(b"system.");
        let expected: BTreeMap<_, _> = xattrs
            .iter()
            .filter(|(name, _)| plain(name))
            .map(|(name, value)| (name.as_slice(), Digest::of(value)))
            .collect();
        let attributes = inode.attributes();
        assert_eq!(attributes.len(), xattrs.len(), "{path:?}");
        assert_eq!(
            attributes.into_iter().filter(|(name, _)| plain(name)).collect::<BTreeMap<_, _>>(),
            expected
        );
        let kind = match &entry.node {
            Node::File(content) => {
                let bytes = read_file(disk, &found, path, content.len()).unwrap().unwrap();
                assert!(bytes == content.read_all().unwrap(), "content of {path:?}");
                assert_eq!(
                    read_file(disk, &found, path, content.len().wrapping_sub(1).min(content.len()))
                        .unwrap()
                        .is_none(),
                    !content.is_empty()
                );
                Kind::File
            }
            Node::Directory => Kind::Directory,
            Node::Symlink(target) => Kind::Symlink(target.clone()),
            Node::CharDevice { major, minor } => Kind::CharDevice(*major, *minor),
            Node::BlockDevice { major, minor } => Kind::BlockDevice(*major, *minor),
            Node::Fifo => Kind::Fifo,
            Node::Socket => Kind::Socket,
            Node::HardLink(_) => panic!("a link to a link"),
        };
        assert_eq!(inode.kind, kind, "{path:?}");
    }
}

#[test]
fn every_kind_of_entry_comes_back() {
    let mut tree = Tree::new(Entry::directory(0o755));
    let of = |node| Entry { node, ..Entry::file(0o640, "", Origin::Configured) };
    let mut owned = Entry::file(0o4755, vec![3; 3 << 20], Origin::Configured);
    owned.meta.uid = 70_000;
    owned.meta.gid = 1 << 31;
    owned.meta.mtime = Timestamp { seconds: (1 << 32) + 5, nanoseconds: 999_999_999 };
    owned.meta.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 0, 2]);
    owned.meta.xattrs.insert(b"user.large".to_vec(), vec![9; 600]);
    tree.insert(path("bin"), owned);
    tree.insert(path("dev"), Entry::directory(0o1777));
    tree.insert(path("dev/null"), of(Node::CharDevice { major: 1, minor: 3 }));
    tree.insert(path("dev/disk"), of(Node::BlockDevice { major: 259, minor: 70_000 }));
    tree.insert(path("dev/pipe"), of(Node::Fifo));
    tree.insert(path("dev/log"), of(Node::Socket));
    tree.insert(path("short"), Entry::symlink("bin", Origin::Configured));
    tree.insert(path("long"), Entry::symlink("a/".repeat(700), Origin::Configured));
    tree.insert(path("link"), of(Node::HardLink(path("bin"))));
    tree.insert(TreePath::new(b"dev/\xff\n<b>").unwrap(), of(Node::Fifo));
    let mut before = Entry::file(0o600, "old", Origin::Configured);
    before.meta.mtime = Timestamp { seconds: -5, nanoseconds: 0 };
    tree.insert(path("before-1970"), before);
    for at in 0..3000 {
        tree.insert(path(&format!("dev/{at:0150}")), Entry::file(0o644, format!("{at}"), Origin::Configured));
    }
    compare(&written(&tree, 64 * MIB), &tree);
}

#[test]
fn a_file_with_holes_in_its_map_reads_as_zeros_there() {
    // The writer's pieces of zeros are in no extent of the disk's map: a file is whole all the same.
    let mut tree = Tree::new(Entry::directory(0o755));
    let mut bytes = vec![0; 300_000];
    bytes[0] = 1;
    bytes[299_999] = 2;
    tree.insert(path("holes"), Entry::file(0o644, bytes, Origin::Configured));
    compare(&written(&tree, 16 * MIB), &tree);
}

/// A volume in which some bytes are others.
fn patched(disk: &BlockMap, changes: &[(u64, Vec<u8>)]) -> BlockMap {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    for (at, change) in changes {
        bytes[*at as usize..*at as usize + change.len()].copy_from_slice(change);
    }
    let mut builder = BlockMapBuilder::new();
    builder.push_sparse(0, &bytes, &Origin::Structure("test"));
    builder.finish(disk.len()).unwrap()
}

fn unread(disk: &dyn BlockSource) -> String {
    match partitions(disk).unwrap().remove(0).content {
        PartitionContent::Unread(why) => why,
        PartitionContent::Files(files) => panic!("{} names", files.names.len()),
    }
}

#[test]
fn what_cannot_be_understood_is_told() {
    let mut tree = Tree::new(Entry::directory(0o755));
    tree.insert(path("folder"), Entry::directory(0o755));
    let disk = written(&tree, 16 * MIB);
    let with = |at: u64, bytes: &[u8]| patched(&disk, &[(1024 + at, bytes.to_vec())]);
    assert!(unread(&with(0x60, &[0xff, 0xff, 0xff, 0x7f])).contains("features (0x"));
    assert!(unread(&with(0x4, &[0xff; 4])).contains("it is damaged: it has"));
    assert!(unread(&with(0x18, &[9, 0, 0, 0])).contains("2^19 bytes"));
    assert!(unread(&with(0x38, &[0, 0])).contains("no file system that is known here"));
    assert!(unread(&BlockMap::empty(MIB)).contains("its beginning is empty"));
    let mut fat = vec![0; 4096];
    fat[54..59].copy_from_slice(b"FAT16");
    fat[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut builder = BlockMapBuilder::new();
    builder.push_all(0, Content::from_bytes(fat), Origin::Structure("test"));
    assert!(unread(&builder.finish(MIB).unwrap()).contains("FAT"));
    // A journal that has to be replayed is a remark, not an error.
    let mut head = [0; 4];
    disk.read_at(1024 + 0x60, &mut head).unwrap();
    head[0] |= 4;
    assert!(!files(&with(0x60, &head)).clean);
}

#[test]
fn a_folder_in_itself_is_refused() {
    let mut tree = Tree::new(Entry::directory(0o755));
    tree.insert(path("folder"), Entry::directory(0o755));
    tree.insert(path("folder/xxxxxxxx"), Entry::directory(0o755));
    let disk = written(&tree, 16 * MIB);
    let found = files(&disk);
    let number = |name: &str| found.names.iter().find(|(path, _)| path.to_string() == name).unwrap().1;
    let folder = found.inodes[&number("folder")].runs[0].place;
    let mut block = vec![0; 4096];
    disk.read_at(folder, &mut block).unwrap();
    let at = block.windows(8).position(|bytes| bytes == b"xxxxxxxx").unwrap() as u64 - 8;
    let loops = patched(&disk, &[(folder + at, number("folder").to_le_bytes().to_vec())]);
    assert!(unread(&loops).contains("a folder has two names"));
    let named = patched(&disk, &[(folder + at + 8, b"a/../../".to_vec())]);
    assert!(unread(&named).contains("a name that is none"));
    let nowhere = patched(&disk, &[(folder + at, u32::MAX.to_le_bytes().to_vec())]);
    assert!(unread(&nowhere).contains("a name has inode 4294967295"));
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("no name has it", |byte| *byte != 0 && *byte != b'/');
    prop::collection::vec(byte, 1..60)
        .prop_filter("these are not names", |name| name != b"." && name != b".." && name != b"lost+found")
}

fn entry() -> impl Strategy<Value = Entry> {
    let node = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..20_000).prop_map(|bytes| Node::File(Content::from_bytes(bytes))),
        2 => Just(Node::Directory),
        1 => prop::collection::vec(1_u8..=255, 1..200).prop_map(Node::Symlink),
        1 => (0_u32..4096, 0_u32..1 << 20).prop_map(|(major, minor)| Node::CharDevice { major, minor }),
        1 => Just(Node::Socket),
    ];
    let attribute = (prop::collection::vec(b'a'..=b'z', 1..30), prop::collection::vec(any::<u8>(), 0..300));
    let xattrs = prop::collection::vec(attribute, 0..4).prop_map(|all| {
        all.into_iter().map(|(name, value)| ([b"user.", &name[..]].concat(), value)).collect()
    });
    let meta = (0_u16..0o10000, any::<u32>(), any::<u32>(), 0_i64..1 << 33, 0_u32..1_000_000_000, xattrs);
    (node, meta).prop_map(|(node, (mode, uid, gid, seconds, nanoseconds, xattrs))| {
        let meta = Meta { mode, uid, gid, mtime: Timestamp { seconds, nanoseconds }, xattrs };
        Entry { meta, node, origin: Origin::Configured }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tree_comes_back(entries in prop::collection::vec((name(), entry(), any::<prop::sample::Index>()), 0..40)) {
        let mut tree = Tree::new(Entry::directory(0o755));
        let mut folders = vec![TreePath::root()];
        for (name, entry, place) in entries {
            let at = place.get(&folders).join(&name).unwrap();
            if tree.get(&at).is_some() {
                continue;
            }
            if entry.node == Node::Directory {
                folders.push(at.clone());
            }
            tree.insert(at, entry);
        }
        compare(&written(&tree, 32 * MIB), &tree);
    }
}

fn fat(tree: &Tree, size: u64) -> BlockMap {
    let options = disk::fat::FatOptions {
        size,
        volume_id: 7,
        label: *b"EFI        ",
        time: Timestamp::from_seconds(1_700_000_000),
    };
    disk::fat::write(tree, &options).unwrap()
}

#[test]
fn files_of_an_efi_partition_come_back() {
    let mut tree = Tree::new(Entry::directory(0o755));
    let mut names = vec!["EFI".to_owned(), "EFI/debian".to_owned(), "EFI/BOOT".to_owned()];
    for name in &names {
        tree.insert(path(name), Entry::directory(0o755));
    }
    let contents = [
        ("EFI/BOOT/BOOTX64.EFI", 1_000_000_u32),
        ("EFI/debian/grubx64.efi", 5),
        ("EFI/debian/a long name, größer.cfg", 0),
    ];
    for (name, len) in contents {
        let bytes: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
        let mut entry = Entry::file(0o644, bytes, Origin::Configured);
        entry.meta.mtime = Timestamp::from_seconds(1_700_000_002);
        tree.insert(path(name), entry);
        names.push(name.to_owned());
    }
    let disk = fat(&tree, 64 * MIB);
    let found = files(&disk);
    let told: std::collections::BTreeSet<_> = found.names.iter().map(|(name, _)| name.to_string()).collect();
    names.push(String::new());
    assert_eq!(told, names.into_iter().collect());
    for (name, len) in contents {
        let bytes = read_file(&disk, &found, &path(name), 1 << 20).unwrap().unwrap();
        assert!(
            bytes.len() == len as usize && bytes.iter().enumerate().all(|(at, byte)| *byte == (at / 7) as u8)
        );
        let number = found.names.iter().find(|(found, _)| *found == path(name)).unwrap().1;
        assert_eq!(found.inodes[&number].mtime.seconds, 1_700_000_002, "{name}");
    }
    // Two files in one cluster, and a chain that leads nowhere.
    let whole = {
        let mut bytes = vec![0; 1 << 20];
        disk.read_at(0, &mut bytes).unwrap();
        bytes
    };
    let reserved = u64::from(whole[14]) * 512;
    let table = patched(&disk, &[(reserved + 4, vec![2, 0])]);
    assert!(
        unread(&table).starts_with("FAT: it is damaged: cluster 2 is in two files"),
        "{}",
        unread(&table)
    );
    let table = patched(&disk, &[(reserved + 4, vec![0xf0, 0xff])]);
    assert!(unread(&table).contains("a file has cluster 65520 of"), "{}", unread(&table));
}
