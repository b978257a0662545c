//! Cases that are big in one way: many names, many pieces, many bytes; and placements of other kinds.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use block::{BlockSource, Content, Digest, GIB, MIB, Origin, ReadAt};
use ext4::{Kind, Named, NoRoom, Object, Placement, Run, SimplePlacement, Space};
use tree::{Entry, Meta, Node, Tree};

use crate::images::{Image, compare, options, path, simple, view};

/// Files in single blocks, each some way behind the one before; inode numbers from the last one down.
struct Scattered;

impl Placement for Scattered {
    fn place(&self, objects: &[Object<'_>], space: &mut Space) -> Result<Vec<Vec<Run>>, NoRoom> {
        let mut at = 0;
        let place = |object: &Object<'_>| {
            if object.kind == Kind::Journal {
                return space.take_pieces(object.blocks, space.volume_blocks() / 2).ok_or(NoRoom);
            }
            (0..object.blocks)
                .map(|_| {
                    let run = space.take(1, at).ok_or(NoRoom)?;
                    at = (run.start + 5) % space.volume_blocks();
                    Ok(run)
                })
                .collect()
        };
        objects.iter().map(place).collect()
    }

    fn number(&self, entries: &[Named<'_>], free: RangeInclusive<u32>) -> Vec<u32> {
        free.rev().take(entries.len()).collect()
    }
}

#[test]
fn a_file_in_thousands_of_pieces_has_a_deep_tree() {
    let bytes: Vec<u8> = (0..2000 * 4096_u32 + 17).map(|at| (at / 4096 + at) as u8).collect();
    let mut tree = Tree::new(Entry::directory(0o755));
    tree.insert(path("file"), Entry::file(0o644, bytes, Origin::Configured));
    tree.insert(path("five"), Entry::file(0o644, vec![5; 5 * 4096], Origin::Configured));
    tree.insert(path("folder"), Entry::directory(0o755));
    for at in 0..800 {
        tree.insert(path(&format!("folder/{at:0200}")), Entry::file(0o600, "", Origin::Configured));
    }
    let map = ext4::write(&tree, &options(128 * MIB), &Scattered).unwrap();
    let image = Image::new(&map);
    image.check();
    compare(&map, &tree);
    let extents = image.debugfs("extents file");
    assert!(extents.lines().any(|line| line.starts_with(" 2/ 2")), "{extents}");
}

#[test]
fn a_folder_of_65000_long_names_has_an_index_of_two_levels() {
    let mut tree = Tree::new(Entry::directory(0o755));
    tree.insert(path("folder"), Entry::directory(0o755));
    for at in 0..65_000 {
        // Most names have all the 255 bytes that there can be.
        let name = if at % 8 == 0 { format!("{at}") } else { format!("{at:-<255}") };
        tree.insert(path(&format!("folder/{name}")), Entry::file(0o644, "", Origin::Configured));
    }
    let map = simple(&tree, &options(GIB));
    let image = Image::new(&map);
    image.check();
    let index = image.debugfs("htree_dump /folder");
    assert!(index.contains("Indirect levels: 1"), "{}", &index[..500]);
    assert!(index.contains("Hash Version: 1"), "{}", &index[..500]);
    let volume = view(&map);
    assert_eq!(volume.read_dir("/folder").unwrap().count(), 65_002);
    // One by one, through the index.
    for at in (0..65_000).step_by(101) {
        let name = if at % 8 == 0 { format!("/folder/{at}") } else { format!("/folder/{at:-<255}") };
        assert!(volume.exists(name.as_str()).unwrap(), "{name}");
    }
    assert!(!volume.exists("/folder/65000").unwrap());
}

#[test]
fn a_folder_with_more_subfolders_than_links_counts_one() {
    let mut tree = Tree::new(Entry::directory(0o755));
    tree.insert(path("over"), Entry::directory(0o755));
    for at in 0..64_999 {
        tree.insert(path(&format!("over/{at}")), Entry::directory(0o755));
    }
    let image = Image::new(&simple(&tree, &options(GIB)));
    image.check();
    assert!(image.debugfs("stat over").contains("Links: 1 "));
}

/// Bytes that are all zero but for the number of each GiB at its start.
struct Marked;

impl ReadAt for Marked {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        let next = offset.next_multiple_of(GIB);
        if let Some(byte) = usize::try_from(next - offset).ok().and_then(|at| buf.get_mut(at)) {
            *byte = (next / GIB) as u8 + 1;
        }
        Ok(())
    }
}

#[test]
fn a_file_larger_than_4_gib() {
    let content = Content::new(Digest::of(b"marked"), 5 * GIB + 3, Arc::new(Marked));
    let mut tree = Tree::new(Entry::directory(0o755));
    let entry = Entry { meta: Meta::default(), node: Node::File(content), origin: Origin::Configured };
    tree.insert(path("large"), entry);
    let map = simple(&tree, &options(8 * GIB));
    Image::new(&map).check();
    compare(&map, &tree);
    let mut file = view(&map).open("/large").unwrap();
    for gib in 0..6 {
        let mut byte = [0];
        file.seek_to(gib * GIB).unwrap();
        file.read_bytes(&mut byte).unwrap();
        assert_eq!(u64::from(byte[0]), gib + 1);
    }
}

#[test]
fn contents_are_referred_to_and_never_read() {
    struct Unreadable;
    impl ReadAt for Unreadable {
        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            panic!("a content was read while it was laid out");
        }
    }
    let content = Content::new(Digest::of(b"id"), 10_000, Arc::new(Unreadable));
    let origin = Origin::Package("hello".into());
    let mut tree = Tree::new(Entry::directory(0o755));
    let entry = Entry { meta: Meta::default(), node: Node::File(content.clone()), origin: origin.clone() };
    tree.insert(path("file"), entry);
    let map = simple(&tree, &options(16 * MIB));
    let extent = map.extents().iter().find(|extent| extent.origin == origin).unwrap();
    assert_eq!((extent.len, extent.content_offset, &extent.content), (10_000, 0, &content));
    assert_eq!(extent.offset % block::BLOCK_SIZE, 0, "the first file begins on the grid");
}

#[test]
fn the_smallest_volume_takes_the_tree_and_no_smaller_one_does() {
    for (files, blocks) in [(0, 0), (10, 200), (3, 9000), (4000, 1), (700, 60), (1, 300_000)] {
        let mut tree = Tree::new(Entry::directory(0o755));
        for at in 0..files {
            let content = Content::new(Digest::of(&[0]), blocks * 4096, Arc::new(Marked));
            let entry =
                Entry { meta: Meta::default(), node: Node::File(content), origin: Origin::Configured };
            tree.insert(path(&format!("file{at}")), entry);
        }
        let smallest = ext4::minimum_size(&tree, &options(0)).unwrap();
        let map = simple(&tree, &options(smallest));
        Image::new(&map).check();
        assert_eq!(map.len(), smallest);
        if smallest > 8 * MIB {
            let error = ext4::write(&tree, &options(smallest - MIB), &SimplePlacement).unwrap_err();
            let needed =
                format!("at least {} MiB, but the volume has {} MiB", smallest / MIB, smallest / MIB - 1);
            assert!(error.to_string().ends_with(&needed), "{error}");
        }
    }
}
