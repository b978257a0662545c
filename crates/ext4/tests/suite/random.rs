//! Random trees: everything that a tree can hold, written, checked and read back.

use std::collections::BTreeMap;

use block::{Content, MIB, Origin};
use proptest::prelude::*;
use tree::{Entry, Meta, Node, Timestamp, Tree, TreePath};

use crate::images::{Image, by_path, compare, options, path, simple};
use crate::parents::{against, assert_kept, places};

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("no name has it", |byte| *byte != 0 && *byte != b'/');
    prop_oneof![
        6 => prop::collection::vec(b'a'..=b'z', 1..12),
        2 => prop::collection::vec(byte.clone(), 1..40),
        1 => prop::collection::vec(byte, 240..=255),
    ]
    .prop_filter("these are not names", |name| name != b"." && name != b".." && name != b"lost+found")
}

fn time() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![
        4 => 0_i64..2_000_000_000,
        1 => -(1_i64 << 32)..0,
        1 => (1_i64 << 31) - 2..(1_i64 << 31) + 2,
        1 => (1_i64 << 32)..(1_i64 << 35),
        1 => Just((3_i64 << 32) + (1 << 31) - 1),
    ];
    // The checker takes the years 2310 to 2378 for mistakes of old kernels.
    let seconds =
        seconds.prop_map(|seconds| if (10 << 30..12 << 30).contains(&seconds) { 0 } else { seconds });
    (seconds, prop_oneof![Just(0), 0_u32..1_000_000_000])
        .prop_map(|(seconds, nanoseconds)| Timestamp { seconds, nanoseconds })
}

/// An access list as getxattr(2) gives it: owner, named users and groups, group, mask, others.
fn access_list() -> impl Strategy<Value = Vec<u8>> {
    let named =
        prop::collection::btree_set((prop_oneof![Just(2_u16), Just(8)], any::<u32>(), 0_u16..8), 0..6);
    named.prop_map(|named| {
        let mut rules = vec![(1, 7, u32::MAX), (4, 5, u32::MAX), (0x20, 4, u32::MAX)];
        rules.extend(named.iter().map(|(tag, id, rights)| (*tag, *rights, *id)));
        if !named.is_empty() {
            rules.push((0x10, 7, u32::MAX));
        }
        rules.sort_by_key(|(tag, _, id)| (*tag, *id));
        let rule = |(tag, rights, id): (u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        [2_u32.to_le_bytes().to_vec()]
            .into_iter()
            .chain(rules.into_iter().map(rule))
            .collect::<Vec<_>>()
            .concat()
    })
}

fn xattrs() -> impl Strategy<Value = BTreeMap<Vec<u8>, Vec<u8>>> {
    let plain = |prefix: &'static str| {
        let name = prop_oneof![
            4 => prop::collection::vec(b'a'..=b'z', 1..10),
            1 => prop::collection::vec(1_u8..=255, 1..100),
        ];
        let value = prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..40),
            1 => prop::collection::vec(any::<u8>(), 40..600),
        ];
        (name, value).prop_map(move |(name, value)| ([prefix.as_bytes(), &name].concat(), value))
    };
    let list = |name: &'static str| access_list().prop_map(move |value| (name.as_bytes().to_vec(), value));
    let any_one =
        prop_oneof![plain("user."), plain("trusted."), plain("security."), list("system.posix_acl_access"),];
    prop_oneof![
        3 => Just(BTreeMap::new()),
        1 => prop::collection::vec(any_one, 1..5).prop_map(|all| all.into_iter().collect()),
    ]
}

fn meta() -> impl Strategy<Value = Meta> {
    let id = prop_oneof![Just(0_u32), 0_u32..2000, any::<u32>()];
    (0_u16..0o10000, id.clone(), id, time(), xattrs()).prop_map(|(mode, uid, gid, mtime, xattrs)| Meta {
        mode,
        uid,
        gid,
        mtime,
        xattrs,
    })
}

fn content() -> impl Strategy<Value = Content> {
    let around = |size: usize| size.saturating_sub(2)..size + 3;
    let length = prop_oneof![4 => 0_usize..300, 1 => around(4096), 1 => around(8192), 1 => around(1 << 19), 1 => 0..200_000_usize];
    (length, any::<u8>()).prop_map(|(length, salt)| {
        Content::from_bytes((0..length).map(|at| (at * 31 + at / 251) as u8 ^ salt).collect())
    })
}

fn symlink_target() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(1_u8..=255, 1..50),
        2 => prop::collection::vec(1_u8..=255, 57..63),
        1 => prop::collection::vec(1_u8..=255, 4000..=4095),
    ]
    .prop_map(|mut target| {
        // `ext4-view` takes targets as paths, of names that are not too long.
        target.iter_mut().skip(200).step_by(200).for_each(|byte| *byte = b'/');
        target
    })
}

/// An entry, the folder it goes into (as a fraction of those that there are), and a second name for it.
#[derive(Clone, Debug)]
struct Plan {
    name: Vec<u8>,
    meta: Meta,
    node: Node,
    folder: prop::sample::Index,
    second: Option<(Vec<u8>, prop::sample::Index)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let node = prop_oneof![
        6 => content().prop_map(Node::File),
        4 => Just(Node::Directory),
        3 => symlink_target().prop_map(Node::Symlink),
        1 => (0_u32..4096, 0_u32..1 << 20).prop_map(|(major, minor)| Node::CharDevice { major, minor }),
        1 => (0_u32..256, 0_u32..256).prop_map(|(major, minor)| Node::BlockDevice { major, minor }),
        1 => Just(Node::Fifo),
        1 => Just(Node::Socket),
    ];
    let second = prop::option::weighted(0.15, (name(), any::<prop::sample::Index>()));
    (name(), meta(), node, any::<prop::sample::Index>(), second).prop_map(
        |(name, mut meta, node, folder, second)| {
            if !matches!(node, Node::File(_) | Node::Directory) {
                // Linux gives links, devices and pipes neither access lists nor attributes of users.
                meta.xattrs.retain(|name, _| name.starts_with(b"trusted.") || name.starts_with(b"security."));
            }
            Plan { name, meta, node, folder, second }
        },
    )
}

fn tree_of(root: Meta, plans: Vec<Plan>) -> Tree {
    let origin = Origin::Recipe("test".into());
    let mut tree = Tree::new(Entry { meta: root, node: Node::Directory, origin: origin.clone() });
    let mut folders = vec![TreePath::root()];
    for Plan { name, meta, node, folder, second } in plans {
        let path = folder.get(&folders).join(&name).unwrap();
        if tree.get(&path).is_some() {
            continue;
        }
        if node == Node::Directory {
            folders.push(path.clone());
        }
        let linked = node.can_be_linked();
        tree.insert(path.clone(), Entry { meta, node, origin: origin.clone() });
        if let Some((name, folder)) = second.filter(|_| linked) {
            let other = folder.get(&folders).join(&name).unwrap();
            if tree.get(&other).is_none() {
                let node = Node::HardLink(path);
                tree.insert(other, Entry { meta: Meta::default(), node, origin: origin.clone() });
            }
        }
    }
    tree
}

fn trees(entries: std::ops::Range<usize>) -> impl Strategy<Value = Tree> {
    (meta(), prop::collection::vec(plan(), entries)).prop_map(|(root, plans)| tree_of(root, plans))
}

/// The tree with other times where `ext4-view` 1.0.0 fails: it refuses those whose low 32 bits are negative. What
/// becomes of them is checked by `debugfs`, in `attributes.rs`.
fn with_readable_times(tree: &Tree) -> Tree {
    let mut readable = tree.clone();
    for (_, entry) in readable.iter_mut() {
        let seconds = &mut entry.meta.mtime.seconds;
        *seconds = (*seconds).clamp(0, (3 << 32) + (1 << 31) - 1) & !(1 << 31);
    }
    readable
}

fn written_and_read_back(tree: &Tree) {
    let readable = with_readable_times(tree);
    for (write, size) in [(simple as fn(&Tree, &_) -> _, 64 * MIB), (by_path, 64 * MIB), (by_path, 512 * MIB)]
    {
        let map = write(tree, &options(size));
        Image::new(&map).check();
        compare(&write(&readable, &options(size)), &readable);
        assert_eq!(map, write(tree, &options(size)), "the same tree gives the same volume");
        if size == 512 * MIB {
            // Blocks of attributes may change places: what lies in them is of no path.
            assert_kept(&map, &against(&places(&map), tree, &options(size)));
        }
        // Against a volume in which everything lies elsewhere.
        let other = places(&simple(tree, &options(96 * MIB)));
        let child = against(&other, &readable, &options(size));
        Image::new(&child).check();
        compare(&child, &readable);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn small_trees_come_back(tree in trees(0..12)) {
        written_and_read_back(&tree);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn larger_trees_come_back(tree in trees(100..400)) {
        written_and_read_back(&tree);
    }
}

#[test]
fn a_deep_tree_comes_back() {
    let mut tree = Tree::new(Entry::directory(0o755));
    let mut folder = TreePath::root();
    for depth in 0..300 {
        folder = folder.join(format!("folder {depth}").as_bytes()).unwrap();
        tree.insert(folder.clone(), Entry::directory(0o700));
    }
    tree.insert(folder.join(b"end").unwrap(), Entry::file(0o644, "deep", Origin::Configured));
    tree.insert(path("lost+found"), Entry::directory(0o711));
    written_and_read_back(&tree);
}
