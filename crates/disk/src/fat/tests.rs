use std::io::{Cursor, Read as _};

use block::{BLOCK_SIZE, MIB};
use proptest::prelude::*;
use tree::{Entry, Meta};

use super::*;
use crate::test_tools::{bytes, check_golden, hex_lines, run, tool, write_sparse};

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn options(size: u64) -> FatOptions {
    FatOptions {
        size,
        volume_id: 0xBA4E_0115,
        label: *b"EFI        ",
        time: Timestamp::from_seconds(1_767_225_599),
    }
}

fn folder() -> Entry {
    let meta = Meta { mode: 0o755, mtime: Timestamp::from_seconds(1_709_251_199), ..Meta::default() };
    Entry { meta, ..Entry::directory(0o755) }
}

fn file(len: usize, seed: u8) -> Entry {
    let bytes: Vec<u8> =
        (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8) ^ seed | 1).collect();
    let mut entry = Entry::file(0o644, bytes, Origin::Package("boot".into()));
    entry.meta.mtime = Timestamp::from_seconds(1_700_000_000 + i64::from(seed));
    entry
}

/// A tree of files; folders are made as they are needed.
fn tree_of(files: impl IntoIterator<Item = (String, Entry)>) -> Tree {
    let mut tree = Tree::new(folder());
    for (name, entry) in files {
        let path = path(&name);
        let mut above = path.parent();
        while let Some(folder_path) = above.filter(|path| !path.is_root()) {
            if tree.get(&folder_path).is_none() {
                tree.insert(folder_path.clone(), folder());
            }
            above = folder_path.parent();
        }
        tree.insert(path, entry);
    }
    tree
}

/// What shim and GRUB leave on an EFI system partition.
fn boot_tree() -> Tree {
    tree_of([
        ("EFI/BOOT/BOOTX64.EFI".into(), file(1_050_000, 1)),
        ("EFI/BOOT/grubx64.efi".into(), file(4_200_000, 2)),
        ("EFI/debian/shimx64.efi".into(), file(1_050_000, 1)),
        ("EFI/debian/grubx64.efi".into(), file(4_200_000, 2)),
        ("EFI/debian/mmx64.efi".into(), file(850_000, 3)),
        ("EFI/debian/BOOTX64.CSV".into(), file(108, 4)),
        ("EFI/debian/grub.cfg".into(), file(126, 5)),
        ("EFI/debian/empty".into(), file(0, 6)),
        ("EFI/debian/a name with spaces and ünïcödé.text".into(), file(4096, 7)),
        ("EFI/debian/a name with spaces too.text".into(), file(4097, 8)),
    ])
}

fn fsck(map: &BlockMap) -> String {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("esp.img");
    write_sparse(map, &image);
    run(tool("fsck.fat").args(["-n", "-v"]).arg(&image))
}

/// Every file and folder that an independent reader finds, with the files' bytes; read by long name.
fn read_back(map: &BlockMap) -> BTreeMap<String, Option<Vec<u8>>> {
    fn walk(
        dir: &fatfs::Dir<'_, Cursor<Vec<u8>>>,
        prefix: &str,
        found: &mut BTreeMap<String, Option<Vec<u8>>>,
    ) {
        for entry in dir.iter() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{prefix}{name}");
            if entry.is_dir() {
                walk(&entry.to_dir(), &format!("{path}/"), found);
                assert!(found.insert(path, None).is_none());
            } else {
                let mut bytes = Vec::new();
                entry.to_file().read_to_end(&mut bytes).unwrap();
                assert!(found.insert(path, Some(bytes)).is_none());
            }
        }
    }
    let volume = fatfs::FileSystem::new(Cursor::new(bytes(map)), fatfs::FsOptions::new()).unwrap();
    assert_eq!(volume.fat_type(), fatfs::FatType::Fat16);
    let mut found = BTreeMap::new();
    walk(&volume.root_dir(), "", &mut found);
    found
}

fn expected(tree: &Tree) -> BTreeMap<String, Option<Vec<u8>>> {
    let entries = tree.iter().filter(|(path, _)| !path.is_root());
    entries
        .map(|(path, entry)| match &entry.node {
            Node::File(content) => (path.to_string(), Some(content.read_all().unwrap())),
            Node::HardLink(target) => {
                let Some(Entry { node: Node::File(content), .. }) = tree.get(target) else {
                    panic!("{target}")
                };
                (path.to_string(), Some(content.read_all().unwrap()))
            }
            _ => (path.to_string(), None),
        })
        .collect()
}

#[test]
fn a_boot_tree_is_clean_and_reads_back() {
    let tree = boot_tree();
    let map = write(&tree, &options(64 * MIB)).unwrap();
    let said = fsck(&map);
    assert!(said.contains("16363 data clusters"), "{said}");
    assert!(said.contains("16 bit entries"), "{said}");
    assert_eq!(read_back(&map), expected(&tree));
}

#[test]
fn mtools_reads_the_same_files_names_and_times() {
    let tree = boot_tree();
    let map = write(&tree, &options(64 * MIB)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("esp.img");
    write_sparse(&map, &image);
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    run(tool("mcopy").args(["-s", "-m", "-i"]).arg(&image).arg("::/EFI").arg(&out));
    for (name, content) in expected(&tree).into_iter().filter_map(|(name, content)| Some((name, content?))) {
        if name.is_ascii() {
            let read = std::fs::read(out.join(&name)).unwrap();
            assert!(read == content, "{name} differs");
            let modified = std::fs::metadata(out.join(&name)).unwrap().modified().unwrap();
            let seconds = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
            let wanted = tree.get(&path(&name)).unwrap().meta.mtime.seconds;
            assert_eq!(seconds, wanted / 2 * 2, "time of {name}");
        }
    }
    let listing = run(tool("mdir").arg("-i").arg(&image).arg("::/EFI/debian"));
    assert!(listing.contains("ANAMEW~1 TEX"), "{listing}");
    assert!(listing.contains("ANAMEW~2 TEX"), "{listing}");
    assert!(listing.contains("SHIMX64  EFI"), "{listing}");
    assert!(listing.contains("Volume Serial Number is BA4E-0115"), "{listing}");
}

#[test]
fn files_refer_to_their_content_and_large_ones_have_blocks_of_their_own() {
    let tree = boot_tree();
    let map = write(&tree, &options(64 * MIB)).unwrap();
    for (path, entry) in tree.iter() {
        let Node::File(content) = &entry.node else { continue };
        let extents: Vec<_> = map.extents().iter().filter(|extent| extent.content == *content).collect();
        let copies = tree.iter().filter(|(_, other)| other.node == entry.node).count();
        assert_eq!(extents.len(), if content.is_empty() { 0 } else { copies }, "{path}");
        for extent in extents {
            let alignment = if content.len() >= 256 * KIB { BLOCK_SIZE } else { CLUSTER };
            assert_eq!((extent.offset % alignment, extent.len), (0, content.len()), "{path}");
            assert_eq!(extent.origin, Origin::Package("boot".into()));
        }
    }
    let structures = map.extents().iter().filter(|extent| matches!(extent.origin, Origin::Structure(_)));
    assert!(structures.map(|extent| extent.len).sum::<u64>() < 64 * KIB);
}

#[test]
fn bytes_on_disk_stay_as_they_are() {
    let files = [("EFI/debian/shimx64.efi", 5000), ("EFI/BOOT/BOOTX64.EFI", 33), ("long name.txt", 1)];
    let same = |len| Entry::file(0o644, vec![b'x'; len], Origin::Configured);
    let tree = tree_of(files.map(|(name, len)| (name.to_owned(), same(len))));
    let map = write(&tree, &options(64 * MIB)).unwrap();
    check_golden("fat.hex", &hex_lines(&map));
}

#[test]
fn a_full_volume_is_packed_end_to_end_before_it_is_refused() {
    // 20 MiB: 5 files of 3.7 MiB leave no room for block boundaries; a sixth does not fit at all.
    let many = |count: u8| tree_of((0..count).map(|i| (format!("large-{i}.efi"), file(3_900_000, i))));
    let map = write(&many(5), &options(20 * MIB)).unwrap();
    fsck(&map);
    assert_eq!(read_back(&map), expected(&many(5)));
    let Err(FatError::Full { needed, room }) = write(&many(6), &options(20 * MIB)) else {
        panic!("must not fit")
    };
    assert!(needed > room && room < 20 * MIB);
}

#[test]
fn sizes_that_are_not_fat16_are_refused() {
    let tree = Tree::new(folder());
    for size in [0, 1, MIB, 16 * MIB, 257 * MIB, 64 * MIB + 512, u64::MAX] {
        assert!(matches!(write(&tree, &options(size)), Err(FatError::WrongSize { .. })), "{size}");
    }
    for size in [17 * MIB, 31 * MIB, 33 * MIB, 256 * MIB] {
        fsck(&write(&tree, &options(size)).unwrap());
    }
}

#[test]
fn what_fat_cannot_hold_is_refused_by_name() {
    let with = |name: &str, entry: Entry| write(&tree_of([(name.to_owned(), entry)]), &options(64 * MIB));
    let link = Entry::symlink(b"target".as_slice(), Origin::Configured);
    assert!(matches!(with("a/link", link), Err(FatError::NotAFile { path }) if path.to_string() == "a/link"));
    for name in ["a:b", "what?", "tail.", "tail ", " head", "tab\t", "back\\slash"] {
        assert!(matches!(with(name, file(1, 1)), Err(FatError::BadName { .. })), "{name:?}");
    }
    let mut tree = tree_of([("Boot".to_owned(), file(1, 1)), ("BOOT".to_owned(), file(1, 2))]);
    assert!(matches!(write(&tree, &options(64 * MIB)), Err(FatError::SameName { .. })));
    tree.remove(&path("Boot"));
    for index in 0..300 {
        tree.insert(path(&format!("a long name, number {index}")), folder());
    }
    let Err(FatError::FolderFull { path, entries, limit }) = write(&tree, &options(64 * MIB)) else {
        panic!("must not fit")
    };
    assert!(path.is_root() && entries > limit && limit == 512);
    let lower = FatOptions { label: *b"efi        ", ..options(64 * MIB) };
    assert!(matches!(write(&Tree::new(folder()), &lower), Err(FatError::BadLabel { .. })));
}

#[test]
fn a_folder_of_many_clusters_has_unique_short_names() {
    let mut names: Vec<_> =
        (0..1200).map(|index| format!("EFI/many/the same beginning {index:04}.conf")).collect();
    names.extend(["EFI/many/THESAM~7.CON", "EFI/many/THESA~42.CON"].map(str::to_owned));
    let tree =
        tree_of(names.into_iter().enumerate().map(|(index, name)| (name, file(index % 3, index as u8))));
    let map = write(&tree, &options(64 * MIB)).unwrap();
    fsck(&map);
    assert_eq!(read_back(&map), expected(&tree));
    let volume = fatfs::FileSystem::new(Cursor::new(bytes(&map)), fatfs::FsOptions::new()).unwrap();
    let folder = volume.root_dir().open_dir("EFI/many").unwrap();
    let short: std::collections::BTreeSet<_> =
        folder.iter().map(|entry| entry.unwrap().short_file_name()).collect();
    assert_eq!(short.len(), 1202 + 2, "all names and the two dots");
    assert!(short.contains("THES~999.CON") && short.contains("THE~1201.CON"));
}

#[test]
fn a_hard_link_becomes_a_copy_and_no_label_is_no_label() {
    let mut tree = boot_tree();
    let link = Entry { node: Node::HardLink(path("EFI/debian/shimx64.efi")), ..folder() };
    tree.insert(path("EFI/again.efi"), link);
    let map = write(&tree, &FatOptions { label: [b' '; 11], ..options(64 * MIB) }).unwrap();
    fsck(&map);
    assert_eq!(read_back(&map), expected(&tree));
    let volume = fatfs::FileSystem::new(Cursor::new(bytes(&map)), fatfs::FsOptions::new()).unwrap();
    assert_eq!(volume.read_volume_label_from_root_dir().unwrap(), None);
}

/// Names that are short, long, alike in their first letters, dotted, or not ASCII.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Z]{1,8}(\\.[A-Z]{1,3})?",
        "[a-z0-9]{1,12}(\\.[a-zA-Z]{1,5})?",
        "same-long-beginning-[a-z]{1,3}\\.efi",
        "SAME-L~[1-3](\\.EFI)?",
        "\\.?[a-zé+,;=\\[\\] ]{0,20}\\.[a-z.+]{0,8}[a-z~]",
        "[a-zäß€😀]{13}",
        "x{26}",
        "[x-z]{200,230}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_tree_is_clean_and_reads_back(
        entries in prop::collection::vec(
            (prop::collection::vec(any_name(), 1..4), prop::option::of(prop_oneof![0usize..3, 4000usize..9000, 260_000usize..600_000])),
            0..25,
        ),
        size in prop::sample::select(vec![17 * MIB, 40 * MIB, 64 * MIB]),
    ) {
        // FAT and the reader fold case; take the first of names that differ in case only.
        let mut tree = Tree::new(folder());
        let mut folded = std::collections::BTreeSet::new();
        for (index, (names, len)) in entries.into_iter().enumerate() {
            let mut at = TreePath::root();
            for (depth, name) in names.iter().enumerate() {
                let Ok(next) = at.join(name.as_bytes()) else { break };
                if next == at || name.starts_with(' ') || name.ends_with(['.', ' ']) {
                    break;
                }
                let is_leaf = depth + 1 == names.len();
                if tree.get(&next).is_some_and(|entry| entry.node == Node::Directory) && !is_leaf {
                    at = next;
                    continue;
                }
                if !folded.insert(next.to_string().to_uppercase()) {
                    break;
                }
                let entry = match len {
                    Some(len) if is_leaf => file(len, index as u8),
                    _ => folder(),
                };
                tree.insert(next.clone(), entry);
                at = next;
            }
        }
        let map = match write(&tree, &options(size)) {
            Ok(map) => map,
            Err(FatError::FolderFull { .. }) => return Ok(()),
            Err(other) => panic!("{other}"),
        };
        let said = fsck(&map);
        prop_assert!(!said.contains("Dirty"), "{}", said);
        prop_assert_eq!(read_back(&map), expected(&tree));
        prop_assert_eq!(&write(&tree, &options(size)).unwrap(), &map);
    }
}
