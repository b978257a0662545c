//! What placement by paths promises: what stays the same keeps its blocks of 512 KiB.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use block::{BLOCK_SIZE, BlockMap, Content, Digest, GIB, MIB, Origin, ReadAt};
use ext4::PathPlacement;
use proptest::prelude::*;
use tree::{Entry, Meta, Node, Timestamp, Tree};

use crate::images::{Image, by_path, compare, options, path, run, view};

const SIZE: u64 = 2 * GIB;

/// Numbers that follow from a seed.
fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ x >> 32
}

/// Puts a package's files into a tree: between 5 and 80, mostly small, one in some packages large.
pub(crate) fn add_package(tree: &mut Tree, number: u64, version: u64) {
    let name = format!("package{number:03}");
    let origin = Origin::Package(name.as_str().into());
    let folders = [format!("usr/share/{name}"), format!("usr/share/doc/{name}"), format!("usr/lib/{name}")];
    for folder in &folders {
        tree.insert(path(folder), Entry { origin: origin.clone(), ..Entry::directory(0o755) });
    }
    for file in 0..5 + mixed(number) % 75 {
        let seed = mixed(number << 20 | file);
        let len = if file == 0 && number.is_multiple_of(5) { seed % 3_000_000 } else { seed % 30_000 };
        // Two of three files stay as they are from version to version.
        let salt = if file.is_multiple_of(3) { version } else { 0 };
        let bytes: Vec<u8> =
            (0..len).map(|at| (mixed(seed + at / 8 + salt * 77) >> (at % 8 * 8)) as u8).collect();
        let mut entry = Entry::file(0o644, bytes, origin.clone());
        entry.meta.mtime = Timestamp::from_seconds(1_600_000_000 + version as i64 * 1000);
        tree.insert(path(&format!("{}/file{file:02}", folders[(seed >> 40) as usize % 3])), entry);
    }
}

pub(crate) fn system(packages: impl IntoIterator<Item = (u64, u64)>) -> Tree {
    let mut tree = Tree::new(Entry::directory(0o755));
    for folder in ["usr", "usr/share", "usr/share/doc", "usr/lib", "var", "var/www"] {
        tree.insert(
            path(folder),
            Entry { origin: Origin::Package("base".into()), ..Entry::directory(0o755) },
        );
    }
    tree.insert(
        path("var/www/index.html"),
        Entry::file(0o644, "<h1>morning</h1>", Origin::Recipe("web".into())),
    );
    packages.into_iter().for_each(|(number, version)| add_package(&mut tree, number, version));
    tree
}

pub(crate) fn blocks(map: &BlockMap) -> BTreeMap<u64, Digest> {
    block::block_ids(map).unwrap().into_iter().collect()
}

/// Blocks of `new` that are not anywhere in `old`, and indexes at which the two differ.
pub(crate) fn changes(old: &BlockMap, new: &BlockMap) -> (usize, usize) {
    let (old, new) = (blocks(old), blocks(new));
    let known: std::collections::BTreeSet<_> = old.values().collect();
    let fresh = new.values().filter(|id| !known.contains(id)).count();
    let indexes = old.keys().chain(new.keys()).collect::<std::collections::BTreeSet<_>>();
    (fresh, indexes.into_iter().filter(|index| old.get(index) != new.get(index)).count())
}

#[test]
fn a_changed_line_changes_one_block_and_its_inode_at_most() {
    let tree = system((0..60).map(|number| (number, 1)));
    let before = by_path(&tree, &options(SIZE));
    let mut other = tree.clone();
    let page = |text: &str| Entry::file(0o644, text, Origin::Recipe("web".into()));
    other.insert(path("var/www/index.html"), page("<h1>evening</h1>"));
    assert_eq!(changes(&before, &by_path(&other, &options(SIZE))), (1, 1));
    other.insert(path("var/www/index.html"), page("<h1>Good evening</h1>"));
    assert_eq!(changes(&before, &by_path(&other, &options(SIZE))), (2, 2));
    assert_eq!(changes(&before, &by_path(&tree, &options(SIZE))), (0, 0));
}

#[test]
fn an_update_of_one_package_of_sixty_leaves_the_others_alone() {
    let before = by_path(&system((0..60).map(|number| (number, 1))), &options(SIZE));
    let all = blocks(&before).len();
    let mut worst = 0;
    for updated in [3, 10, 42] {
        let after = by_path(
            &system((0..60).map(|number| (number, 1 + u64::from(number == updated)))),
            &options(SIZE),
        );
        worst = worst.max(changes(&before, &after).0);
    }
    // Its files, their inodes, and the structures that count what is free.
    assert!(worst <= 12, "{worst} of {all} blocks are new");
}

#[test]
fn a_package_that_comes_moves_few_others() {
    let without =
        by_path(&system((0..60).filter(|number| *number != 33).map(|number| (number, 1))), &options(SIZE));
    let with = by_path(&system((0..60).map(|number| (number, 1))), &options(SIZE));
    let (new, indexes) = changes(&without, &with);
    assert!(new <= 16 && indexes <= 24, "{new} blocks are new, {indexes} indexes differ");
    Image::new(&with).check();
    compare(&with, &system((0..60).map(|number| (number, 1))));
}

/// Bytes that follow from a seed and are kept nowhere.
struct Seeded(u64);

impl ReadAt for Seeded {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        for (at, byte) in (offset..).zip(buf) {
            *byte = (self.0.wrapping_add(at * 131) >> (at % 7)) as u8;
        }
        Ok(())
    }
}

/// Packages of 40 files each in ten folders of their own; most files are small.
fn large_system(packages: u64, version: impl Fn(u64) -> u64) -> Tree {
    let mut tree = Tree::new(Entry::directory(0o755));
    for folder in ["usr", "usr/share"] {
        tree.insert(
            path(folder),
            Entry { origin: Origin::Package("base".into()), ..Entry::directory(0o755) },
        );
    }
    for number in 0..packages {
        let origin = Origin::Package(format!("package{number:04}").as_str().into());
        let home = format!("usr/share/package{number:04}");
        tree.insert(path(&home), Entry { origin: origin.clone(), ..Entry::directory(0o755) });
        for folder in 0..10 {
            let folder = format!("{home}/part{folder}");
            tree.insert(path(&folder), Entry { origin: origin.clone(), ..Entry::directory(0o755) });
            for file in 0..4 {
                let name = format!("{folder}/file{file}");
                let seed = mixed(
                    block::Digest::of(name.as_bytes()).0[..8]
                        .iter()
                        .fold(0, |seed, byte| seed << 8 | u64::from(*byte)),
                );
                let len = if seed.is_multiple_of(997) { seed % 900_000 } else { seed % 9_000 };
                let seed = seed ^ version(number);
                let digest = Digest::of(&[seed.to_le_bytes(), len.to_le_bytes()].concat());
                let meta = Meta { mtime: Timestamp::from_seconds(1_600_000_000), ..Meta::default() };
                let node = Node::File(Content::new(digest, len, Arc::new(Seeded(seed))));
                tree.insert(path(&name), Entry { meta, node, origin: origin.clone() });
            }
        }
    }
    tree
}

#[test]
fn a_tree_of_200000_files_is_sound_and_an_update_leaves_the_rest_alone() {
    const PACKAGES: u64 = 5000;
    let options = options(6 * GIB);
    let tree = large_system(PACKAGES, |_| 0);
    assert!(tree.iter().count() > 255_000);
    let before = by_path(&tree, &options);
    Image::new(&before).check();
    // All of them take half a minute.
    if std::env::var_os("BAKEHOUSE_THOROUGH").is_some() {
        compare(&before, &tree);
    }
    let volume = view(&before);
    let mut read = 0;
    for (path, entry) in tree.iter().step_by(13) {
        let Node::File(content) = &entry.node else { continue };
        let mut expected = vec![0; content.len() as usize];
        content.read_at(0, &mut expected).unwrap();
        assert!(volume.read(format!("/{path}").as_str()).unwrap() == expected, "{path}");
        read += 1;
    }
    assert!(read > 10_000, "{read}");
    // One package of a hundred, with the same lengths: its blocks, and none of the metadata but its inodes' checksums.
    let after = by_path(&large_system(PACKAGES, |number| u64::from(number % 100 == 7)), &options);
    let all = blocks(&before).len();
    let (new, indexes) = changes(&before, &after);
    assert_eq!(new, indexes);
    assert!(new <= 2 * 50, "{new} of {all} blocks are new");
}

#[test]
fn the_next_version_in_a_path_takes_the_place_of_the_last() {
    let with_kernel = |version: &str| {
        let mut tree = system((0..60).map(|number| (number, 1)));
        let origin = Origin::Package(format!("linux-image-{version}-cloud").into());
        let mut folder = "usr/lib/modules".to_owned();
        for name in ["", version, "kernel"] {
            folder = format!("{folder}/{name}").trim_end_matches('/').to_owned();
            tree.insert(path(&folder), Entry { origin: origin.clone(), ..Entry::directory(0o755) });
        }
        for module in 0..300_u64 {
            let bytes = format!("{module} of {version:9} ").repeat(1000 + mixed(module) as usize % 9000);
            let name = format!("{folder}/module{module:03}.ko");
            tree.insert(path(&name), Entry::file(0o644, bytes, origin.clone()));
        }
        tree
    };
    let (old, new) = (with_kernel("6.12.88"), with_kernel("6.13.7"));
    let (before, after) = (by_path(&old, &options(SIZE)), by_path(&new, &options(SIZE)));
    let places = |map: &BlockMap, version: &str| {
        let owner = Origin::Package(format!("linux-image-{version}-cloud").into());
        let extents = map.extents().iter().filter(|extent| extent.origin == owner);
        extents.map(|extent| extent.offset / BLOCK_SIZE).collect::<std::collections::BTreeSet<_>>()
    };
    let (were, are) = (places(&before, "6.12.88"), places(&after, "6.13.7"));
    assert!(are.len() > 20);
    assert!(are.difference(&were).count() <= 2, "{were:?}\n{are:?}");
    let (_, indexes) = changes(&before, &after);
    assert!(indexes <= are.len() + 8, "{indexes} indexes differ for {} of modules", are.len());
}

#[test]
fn data_and_structures_share_no_block() {
    let map = by_path(&system((0..60).map(|number| (number, 1))), &options(SIZE));
    let mut kinds: BTreeMap<u64, (bool, bool)> = BTreeMap::new();
    for extent in map.extents() {
        let is_structure = matches!(extent.origin, Origin::Structure(_));
        for block in extent.offset / BLOCK_SIZE..=(extent.end() - 1) / BLOCK_SIZE {
            let (data, structure) = kinds.entry(block).or_default();
            *data |= !is_structure;
            *structure |= is_structure;
        }
    }
    let mixed: Vec<_> = kinds.iter().filter(|(_, kinds)| **kinds == (true, true)).collect();
    assert!(mixed.is_empty(), "{mixed:?}");
}

/// A machine whose first superblock and descriptors are lost is mended from a copy with nothing lost, although copies tell of
/// the time before there were files.
#[test]
fn a_lost_superblock_is_mended_from_a_copy() {
    let tree = system((0..60).map(|number| (number, 1)));
    let map = by_path(&tree, &options(SIZE));
    let image = Image::new(&map);
    image.file.as_file().write_all_at(&vec![0; 16 * 4096], 0).unwrap();
    assert!(image.complaint().is_some());
    let mended = run("e2fsck", &["-f", "-y", "-b", "32768", "-B", "4096", image.name()]);
    // 1: mended.
    assert_eq!(mended.status.code(), Some(1), "{}", String::from_utf8_lossy(&mended.stdout));
    image.check();
    let listed = image.debugfs("ls -p /lost+found");
    assert_eq!(listed.lines().filter(|line| line.contains("#")).count(), 0, "{listed}");
    // No file's bytes were moved or touched.
    for extent in map.extents().iter().filter(|extent| !matches!(extent.origin, Origin::Structure(_))) {
        let (mut there, mut here) = (vec![0; extent.len as usize], vec![1; extent.len as usize]);
        extent.content.read_at(extent.content_offset, &mut there).unwrap();
        image.file.as_file().read_exact_at(&mut here, extent.offset).unwrap();
        assert!(here == there, "{:?} at byte {}", extent.origin, extent.offset);
    }
    let folder = image.debugfs("stat /usr/share/doc/package059");
    assert!(folder.contains("Type: directory"), "{folder}");
    let files = |name: &str| run("e2fsck", &["-f", "-n", name]);
    let pristine = Image::new(&map);
    let count = |output: &std::process::Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find_map(|line| Some(line.split_once(": ")?.1.split('/').next()?.to_owned()))
    };
    assert_eq!(count(&files(image.name())), count(&files(pristine.name())));
}

#[test]
fn a_volume_without_room_for_gaps_is_filled() {
    let tree = system((0..60).map(|number| (number, 1)));
    let smallest = ext4::minimum_size(&tree, &options(SIZE)).unwrap();
    for size in [smallest, smallest + MIB, smallest + 8 * MIB, smallest + 40 * MIB, smallest * 2] {
        let map = by_path(&tree, &options(size));
        Image::new(&map).check();
        compare(&map, &tree);
    }
}

#[test]
fn two_hundred_thousand_files_are_placed() {
    let mut tree = Tree::new(Entry::directory(0o755));
    for folder in 0..400 {
        let origin = Origin::Package(format!("p{}", folder / 4).into());
        tree.insert(path(&format!("d{folder}")), Entry { origin: origin.clone(), ..Entry::directory(0o755) });
        for file in 0..500 {
            let bytes = vec![(file + folder) as u8; (file * 7 + folder) % 9000];
            tree.insert(path(&format!("d{folder}/f{file}")), Entry::file(0o644, bytes, origin.clone()));
        }
    }
    Image::new(&by_path(&tree, &options(8 * GIB))).check();
}

#[test]
fn a_file_larger_than_any_free_run_is_placed_in_pieces() {
    let mut tree = system((0..5).map(|number| (number, 1)));
    let big: Vec<u8> = (0..300 * MIB).map(|at| (at >> 12) as u8).collect();
    tree.insert(path("usr/big"), Entry::file(0o644, big, Origin::Configured));
    let map = by_path(&tree, &options(GIB));
    Image::new(&map).check();
    compare(&map, &tree);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_way_to_a_tree_does_not_matter(versions in prop::collection::vec(0_u64..4, 40)) {
        let there = |order: Vec<usize>| {
            let packages = order.into_iter().filter(|at| versions[*at] > 0);
            system(packages.map(|at| (at as u64, versions[at])))
        };
        let one = ext4::write(&there((0..40).collect()), &options(SIZE), &PathPlacement).unwrap();
        let other = ext4::write(&there((0..40).rev().collect()), &options(SIZE), &PathPlacement).unwrap();
        prop_assert!(one == other);
        Image::new(&one).check();
    }
}
