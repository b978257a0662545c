//! Volumes of all sizes: clean when empty, like mke2fs's, and able to grow.

use block::{BlockSource, GIB, KIB, MIB, Origin};
use tree::{Entry, Tree};

use crate::images::{Image, compare, header, options, path, run, simple};

fn empty() -> Tree {
    Tree::new(Entry::directory(0o755))
}

#[test]
fn empty_volumes_of_all_sizes_are_clean() {
    // The odd ones have last groups that are short: kept, just so, or left out.
    let sizes = [
        8 * MIB,
        9 * MIB + 4 * KIB,
        64 * MIB,
        128 * MIB + 4 * MIB,
        128 * MIB + 12 * KIB,
        200 * MIB,
        256 * MIB,
        300 * MIB,
        GIB,
        4 * GIB,
        4 * GIB + 3 * MIB,
        10 * GIB + 100 * MIB,
        40 * GIB,
        1024 * GIB,
    ];
    for size in sizes {
        let map = simple(&empty(), &options(size));
        assert_eq!(map.len(), size);
        Image::new(&map).check();
        compare(&map, &empty());
    }
}

#[test]
fn the_largest_volume_is_laid_out() {
    let map = simple(&empty(), &options(16 * 1024 * GIB));
    compare(&map, &empty());
    let map = simple(&empty(), &options(16 * 1024 * GIB - 4 * KIB));
    compare(&map, &empty());
}

#[test]
fn an_empty_volume_is_hardly_anything() {
    let map = simple(&empty(), &options(4 * GIB));
    // Reserved descriptor blocks list their copies: 510 blocks and the one that lists them.
    assert!(map.data_bytes() < 512 * 4 * KIB + 128 * KIB, "{} bytes", map.data_bytes());
    assert!(map.extents().iter().all(|extent| matches!(extent.origin, Origin::Structure(_))));
}

#[test]
fn volumes_are_as_mke2fs_makes_them() {
    const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
                            sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
    const FIELDS: [&str; 23] = [
        "Filesystem volume name",
        "Filesystem UUID",
        "Filesystem revision #",
        "Filesystem features",
        "Filesystem flags",
        "Default mount options",
        "Filesystem state",
        "Errors behavior",
        "Inode count",
        "Block count",
        "Group descriptor size",
        "Blocks per group",
        "Inodes per group",
        "Inode blocks per group",
        "Flex block group size",
        "Maximum mount count",
        "First inode",
        "Inode size",
        "Required extra isize",
        "Default directory hash",
        "Journal backup",
        "Checksum type",
        "Total journal blocks",
    ];
    let uuid = block::format_uuid(options(0).uuid);
    for size in [
        64 * MIB,
        128 * MIB + 12 * KIB,
        128 * MIB + 4 * MIB,
        300 * MIB,
        GIB,
        2 * GIB,
        4 * GIB,
        4 * GIB + 3 * MIB,
        40 * GIB,
        1024 * GIB,
    ] {
        let ours = Image::new(&simple(&empty(), &options(size)));
        let stock = tempfile::NamedTempFile::new().unwrap();
        stock.as_file().set_len(size).unwrap();
        let stock = stock.path().to_str().unwrap();
        let made = run(
            "mke2fs",
            &[
                "-q", "-F", "-b4096", "-I256", "-i16384", "-G16", "-Lrootfs", "-U", &uuid, "-O", FEATURES,
                stock,
            ],
        );
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let number = |value: Option<String>| value.unwrap().parse::<u64>().unwrap();
        for field in FIELDS {
            let made_up = ["Inode blocks per group", "Inodes per group", "Inode count"];
            if made_up.contains(&field) && size >= 256 * MIB {
                // Tables are made up to whole blocks of 512 KiB.
                let per_group = number(header(stock, "Inodes per group"));
                let (ours, stock) = (number(ours.header(field)), number(header(stock, field)));
                let up = match field {
                    "Inode blocks per group" => stock.next_multiple_of(128),
                    "Inodes per group" => stock.next_multiple_of(2048),
                    _ => stock / per_group * per_group.next_multiple_of(2048),
                };
                assert_eq!(ours, up, "{field} of {} MiB", size / MIB);
                continue;
            }
            assert_eq!(ours.header(field), header(stock, field), "{field} of {} MiB", size / MIB);
        }
    }
}

#[test]
fn a_volume_grows_tenfold_in_place() {
    let mut tree = empty();
    tree.insert(path("file"), Entry::file(0o644, vec![7; 100_000], Origin::Configured));
    let image = Image::new(&simple(&tree, &options(4 * GIB)));
    image.file.as_file().set_len(40 * GIB).unwrap();
    let grown = run("resize2fs", &["-f", image.name()]);
    assert!(grown.status.success(), "{}", String::from_utf8_lossy(&grown.stderr));
    image.check();
    assert_eq!(image.header("Block count").unwrap(), (40 * GIB / 4096).to_string());
    // The descriptors took four of the reserved blocks: nothing had to be moved.
    assert_eq!(image.header("Reserved GDT blocks").unwrap(), "506");
}

#[test]
fn options_reach_the_superblock() {
    let options = ext4::Options {
        label: "sixteen bytes ok".into(),
        last_mounted: "/srv/data".into(),
        time: 1_234_567_890,
        reserved_percent: 1,
        grow_to: Some(64 * GIB),
        lost_and_found: false,
        ..options(4 * GIB)
    };
    let map = simple(&empty(), &options);
    let image = Image::new(&map);
    image.check();
    let found = |field| image.header(field).unwrap();
    assert_eq!(found("Filesystem volume name"), "sixteen bytes ok");
    assert_eq!(found("Last mounted on"), "/srv/data");
    assert_eq!(found("Filesystem created"), "Fri Feb 13 23:31:30 2009");
    assert_eq!(found("Reserved block count"), "10485");
    assert_eq!(found("Reserved GDT blocks"), "126", "seven are needed; the grid has room for more");
    assert_eq!(found("Free inodes"), (262_144 - 10).to_string());
    assert_eq!(block::format_uuid(options.hash_seed), found("Directory Hash Seed"));
}
