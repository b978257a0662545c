//! What `ext4-view` cannot read, as `debugfs` tells it: attributes, all four times, devices, link counts.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use block::{MIB, Origin};
use tree::{Entry, Node, Timestamp, Tree};

use crate::images::{Image, options, path, simple};

fn file() -> Entry {
    Entry::file(0o644, "content", Origin::Configured)
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let times = [
        (0, 0, "0x00000000:00000000"),
        (1_700_000_000, 123_456_789, "0x6553f100:1d6f3454"),
        (-1, 999_999_999, "0xffffffff:ee6b27fc"),
        (-(1 << 31), 0, "0x80000000:00000000"),
        ((1 << 31) - 1, 0, "0x7fffffff:00000000"),
        (1 << 31, 0, "0x80000000:00000001"),
        (1 << 32, 1, "0x00000000:00000005"),
        ((3 << 32) + (1 << 31) - 1, 999_999_999, "0x7fffffff:ee6b27ff"),
        (1 << 40, 5, "0x7fffffff:00000003"),
        (-(1 << 40), 5, "0x80000000:00000000"),
    ];
    let mut tree = Tree::new(Entry::directory(0o755));
    for (at, (seconds, nanoseconds, _)) in times.into_iter().enumerate() {
        let mut entry = file();
        entry.meta.mtime = Timestamp { seconds, nanoseconds };
        tree.insert(path(&format!("file{at}")), entry);
    }
    let image = Image::new(&simple(&tree, &options(16 * MIB)));
    image.check();
    for (at, (_, _, raw)) in times.into_iter().enumerate() {
        let text = image.debugfs(&format!("stat file{at}"));
        for kind in [" ctime", " atime", " mtime", "crtime"] {
            assert!(text.contains(&format!("{kind}: {raw} ")), "{kind} {raw} in\n{text}");
        }
    }
}

#[test]
fn attributes_come_back_from_inode_and_block() {
    let mut lists = vec![2, 0, 0, 0];
    for (tag, rights, id) in
        [(1_u16, 7_u16, u32::MAX), (2, 6, 1000), (4, 5, u32::MAX), (8, 4, 7), (0x10, 7, u32::MAX)]
    {
        lists.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
        lists.extend(id.to_le_bytes());
    }
    lists.extend([0x20, 0, 4, 0, 0xff, 0xff, 0xff, 0xff]);
    let all: [(&str, Vec<u8>); 8] = [
        ("user.a", b"small".to_vec()),
        ("user.empty", Vec::new()),
        ("user.large", (0..2500).map(|at| at as u8).collect()),
        ("trusted.t", vec![0; 77]),
        ("security.capability", vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("security.other", b"x".repeat(300)),
        ("system.posix_acl_access", lists.clone()),
        ("system.posix_acl_default", lists),
    ];
    // Each alone, and all together, for every one to be in an inode and in a block.
    let mut sets: Vec<BTreeMap<_, _>> = all.iter().map(|one| BTreeMap::from([one.clone()])).collect();
    sets.push(all.clone().into());
    let mut tree = Tree::new(Entry::directory(0o755));
    for (at, set) in sets.iter().enumerate() {
        let mut entry = Entry::directory(0o755);
        entry.meta.xattrs =
            set.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.clone())).collect();
        tree.insert(path(&format!("folder{at}")), entry);
    }
    let image = Image::new(&simple(&tree, &options(16 * MIB)));
    image.check();
    let folder = tempfile::tempdir().unwrap();
    for (at, set) in sets.iter().enumerate() {
        for (name, value) in set {
            let target = folder.path().join("value");
            let request = format!("ea_get -f {} /folder{at} {name}", target.display());
            image.debugfs(&request);
            let mut value = value.clone();
            if name.starts_with("system.") {
                // `debugfs` fills in 0 for the ids that rules without a name do not have.
                for rule in value[4..].chunks_mut(8).filter(|rule| rule[4..] == [0xff; 4]) {
                    rule[4..].fill(0);
                }
            }
            assert_eq!(std::fs::read(&target).unwrap(), value, "{name} of folder{at}");
            std::fs::remove_file(target).unwrap();
        }
    }
}

#[test]
fn the_same_attributes_share_a_block() {
    let mut tree = Tree::new(Entry::directory(0o755));
    for at in 0..1500 {
        let mut entry = file();
        entry.meta.xattrs.insert(b"user.note".to_vec(), vec![b'n'; 200]);
        tree.insert(path(&format!("file{at}")), entry);
    }
    let map = simple(&tree, &options(32 * MIB));
    let image = Image::new(&map);
    image.check();
    let is_block = |extent: &&block::Extent| extent.origin == Origin::Structure("xattr block");
    let blocks: u64 = map.extents().iter().filter(is_block).map(|extent| extent.len / 4096).sum();
    assert_eq!(blocks, 2, "a block has at most 1024 users");
}

#[test]
fn devices_and_link_counts() {
    let mut tree = Tree::new(Entry::directory(0o755));
    let device = |node| Entry { node, ..file() };
    tree.insert(path("null"), device(Node::CharDevice { major: 1, minor: 3 }));
    tree.insert(path("disk"), device(Node::BlockDevice { major: 259, minor: 70_000 }));
    tree.insert(path("file"), file());
    tree.insert(path("folder"), Entry::directory(0o755));
    tree.insert(path("folder/inner"), Entry::directory(0o755));
    for name in ["a", "folder/z"] {
        tree.insert(path(name), device(Node::HardLink(path("file"))));
        tree.insert(path(&format!("{name}-null")), device(Node::HardLink(path("null"))));
    }
    let image = Image::new(&simple(&tree, &options(16 * MIB)));
    image.check();
    for (name, parts) in [
        ("null", ["Type: character special", "Links: 3", "01:03"]),
        ("disk", ["Type: block special", "Links: 1", "259:70000"]),
        ("folder/z", ["Type: regular", "Links: 3", "Size: 7"]),
        ("folder", ["Type: directory", "Links: 3", "Size: 4096"]),
        ("/", ["Type: directory", "Links: 4", "Inode: 2 "]),
        ("lost+found", ["Inode: 11 ", "Links: 2", "Size: 16384"]),
    ] {
        let text = image.debugfs(&format!("stat {name}"));
        for part in parts {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}

#[test]
fn the_checker_would_see_a_wrong_byte() {
    // The other tests believe in a checker that says nothing: here it must speak.
    let mut tree = Tree::new(Entry::directory(0o755));
    tree.insert(path("file"), file());
    let map = simple(&tree, &options(16 * MIB));
    for structure in ["inode table", "directory", "block bitmap", "group descriptors"] {
        let image = Image::new(&map);
        let origin = Origin::Structure(structure);
        let extent = map.extents().iter().find(|extent| extent.origin == origin).unwrap();
        // In the first table block: a byte of the root folder's inode.
        let at = extent.offset + if structure == "inode table" { 256 + 8 } else { 20 };
        let mut byte = [0];
        image.file.as_file().read_exact_at(&mut byte, at).unwrap();
        image.file.as_file().write_all_at(&[byte[0] ^ 1], at).unwrap();
        assert!(image.complaint().is_some(), "{structure}");
    }
}
