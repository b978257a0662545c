//! What placement against a parent promises: what the parent has, too, keeps its index, and what changes goes where something changes
//! anyway.

use std::collections::{BTreeMap, BTreeSet};

use block::{BLOCK_SIZE, BlockMap, Digest, GIB, MIB, Origin};
use ext4::{FS_BLOCK, Options, ParentPlacement, ParentPlaces};
use inspect::{Kind, PartitionContent};
use proptest::prelude::*;
use tree::{Entry, Tree};

use crate::images::{Image, by_path, compare, options, path};
use crate::layout::{add_package, blocks, changes, system};

const SIZE: u64 = 2 * GIB;

/// Where things lie in a volume, as a reader that shares nothing with the writer finds them.
pub(crate) fn places(map: &BlockMap) -> ParentPlaces {
    let mut places = ParentPlaces::default();
    let partitions = inspect::partitions(map).unwrap();
    let PartitionContent::Files(files) = &partitions[0].content else { panic!("no files") };
    for (path, number) in &files.names {
        places.numbers.insert(path.clone(), *number);
        let inode = &files.inodes[number];
        for run in &inode.runs {
            if inode.kind == Kind::Directory && inode.size == FS_BLOCK {
                places.folders.insert(path.clone(), run.place / FS_BLOCK);
                continue;
            }
            for place in
                (run.place.next_multiple_of(BLOCK_SIZE)..run.place + run.len).step_by(BLOCK_SIZE as usize)
            {
                let into = (run.at + place - run.place) / FS_BLOCK;
                places.slots.insert((path.clone(), into), place / FS_BLOCK);
            }
        }
    }
    places.used = blocks(map).into_keys().map(|index| index * (BLOCK_SIZE / FS_BLOCK)).collect();
    places
}

pub(crate) fn against(parent: &ParentPlaces, tree: &Tree, options: &Options) -> BlockMap {
    ext4::write(tree, options, &ParentPlacement { parent }).unwrap()
}

/// A volume of `tree` against one of another.
fn after(parent: &BlockMap, tree: &Tree) -> BlockMap {
    against(&places(parent), tree, &options(SIZE))
}

/// The blocks that hold files.
fn file_blocks(map: &BlockMap) -> BTreeMap<u64, Digest> {
    let files = map.extents().iter().filter(|extent| !matches!(extent.origin, Origin::Structure(_)));
    let indexes: BTreeSet<u64> =
        files.flat_map(|extent| extent.offset / BLOCK_SIZE..=(extent.end() - 1) / BLOCK_SIZE).collect();
    blocks(map).into_iter().filter(|(index, _)| indexes.contains(index)).collect()
}

/// Every block of files that both volumes have is at the same index in both.
pub(crate) fn assert_kept(old: &BlockMap, new: &BlockMap) {
    let (old, new) = (file_blocks(old), file_blocks(new));
    let known: BTreeSet<&Digest> = old.values().collect();
    let moved: Vec<u64> = new
        .iter()
        .filter(|(index, id)| known.contains(id) && old.get(index) != Some(id))
        .map(|(index, _)| *index)
        .collect();
    assert!(moved.is_empty(), "blocks {moved:?} were elsewhere");
}

#[test]
fn the_same_files_against_themselves_are_the_same_volume() {
    let tree = system((0..60).map(|number| (number, 1)));
    let smallest = ext4::minimum_size(&tree, &options(SIZE)).unwrap();
    for size in [SIZE, 300 * MIB, smallest + 8 * MIB, smallest] {
        let options = options(size);
        let first = by_path(&tree, &options);
        assert!(against(&places(&first), &tree, &options) == first, "{size}");
    }
}

#[test]
fn a_changed_line_changes_its_block_and_its_inode() {
    let tree = system((0..60).map(|number| (number, 1)));
    let before = by_path(&tree, &options(SIZE));
    let mut other = tree.clone();
    let page = Entry::file(0o644, "<h1>Good evening</h1>", Origin::Recipe("web".into()));
    other.insert(path("var/www/index.html"), page);
    assert_eq!(changes(&before, &after(&before, &other)), (2, 2));
}

#[test]
fn packages_that_change_come_and_go_change_few_indexes_beside_their_own() {
    let before = by_path(&system((0..60).map(|number| (number, 1))), &options(SIZE));
    // A third newer; five go, and five come.
    let tree = system((5_u64..65).map(|number| (number, 1 + u64::from(number.is_multiple_of(3)))));
    let new = after(&before, &tree);
    assert_kept(&before, &new);
    let (fresh, indexes) = changes(&before, &new);
    assert!(indexes <= fresh + 2, "{fresh} blocks are new, {indexes} indexes differ");
    Image::new(&new).check();
    compare(&new, &tree);
    let (alone, alone_indexes) = changes(&before, &by_path(&tree, &options(SIZE)));
    assert!(indexes < alone_indexes && fresh <= alone, "{indexes} of {alone_indexes}, {fresh} of {alone}");
}

#[test]
fn a_file_that_grows_and_shrinks_keeps_the_blocks_that_stay() {
    let tree = |mib: u64| {
        let mut tree = system((0..20).map(|number| (number, 1)));
        let bytes = (0..mib * MIB + 5000).map(|at| (at >> 10) as u8 ^ (at >> 18) as u8).collect::<Vec<_>>();
        tree.insert(path("usr/lib/big.so"), Entry::file(0o644, bytes, Origin::Package("base".into())));
        tree
    };
    let mut before = by_path(&tree(20), &options(SIZE));
    for mib in [23, 5, 60, 1] {
        let new = after(&before, &tree(mib));
        assert_kept(&before, &new);
        Image::new(&new).check();
        compare(&new, &tree(mib));
        before = new;
    }
}

#[test]
fn a_parent_of_another_size_or_shape_is_kept_as_far_as_it_goes() {
    let tree = system((0..60).map(|number| (number, 1)));
    for parent in [
        by_path(&tree, &options(6 * GIB)),
        by_path(&tree, &options(400 * MIB)),
        crate::images::simple(&tree, &options(SIZE)),
    ] {
        let new = after(&parent, &tree);
        Image::new(&new).check();
        compare(&new, &tree);
    }
}

/// A step of a series: packages that get a new version, come or go.
fn step() -> impl Strategy<Value = Vec<(usize, bool)>> {
    prop::collection::vec((0_usize..40, any::<bool>()), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_series_keeps_what_stays(steps in prop::collection::vec(step(), 1..4)) {
        let mut versions: Vec<u64> = (0..40).map(|number| number % 4).collect();
        let mut next = 10;
        let there = |versions: &[u64]| system(versions.iter().enumerate().filter(|(_, version)| **version > 0).map(|(at, version)| (at as u64, *version)));
        let mut before = by_path(&there(&versions), &options(SIZE));
        for step in steps {
            for (package, stays) in step {
                next += 1;
                versions[package] = if stays { next } else { 0 };
            }
            let tree = there(&versions);
            let new = after(&before, &tree);
            prop_assert!(after(&before, &tree) == new, "the same parent and tree give the same volume");
            assert_kept(&before, &new);
            let (fresh, indexes) = changes(&before, &new);
            let (old, now) = (blocks(&before), blocks(&new));
            let gone = old.iter().filter(|(index, id)| now.get(index) != Some(id)).count();
            prop_assert!(indexes <= fresh.max(gone) + 8, "{} new, {} gone, {} indexes differ", fresh, gone, indexes);
            Image::new(&new).check();
            compare(&new, &tree);
            before = new;
        }
    }

    #[test]
    fn a_parent_that_lies_does_no_harm(
        numbers in prop::collection::vec(any::<u16>(), 200),
        places in prop::collection::vec(0_u64..1 << 19, 200),
        used in prop::collection::btree_set(0_u64..1 << 12, 0..400),
        small in any::<bool>(),
    ) {
        let mut tree = system((0..6).map(|number| (number, 1)));
        add_package(&mut tree, 77, 1);
        let mut parent = ParentPlaces { used: used.into_iter().map(|slot| slot * 128).collect(), ..ParentPlaces::default() };
        let names: Vec<_> = tree.iter().map(|(path, _)| path.clone()).collect();
        for (at, (number, place)) in numbers.iter().zip(&places).enumerate() {
            let path = names[at * 7 % names.len()].clone();
            parent.numbers.insert(path.clone(), u32::from(*number) % 3000);
            parent.folders.insert(path.clone(), *place);
            parent.slots.insert((path.clone(), 0), place - place % 128);
            parent.slots.insert((path, place % 300), *place);
        }
        let options = options(if small { 64 * MIB } else { SIZE });
        let new = against(&parent, &tree, &options);
        Image::new(&new).check();
        compare(&new, &tree);
    }
}
