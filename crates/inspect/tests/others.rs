//! File systems that others made, mke2fs with several choices and the crate fatfs, held against what they were made from.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Cursor, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use block::BlockSource;
use fatfs::{FatType, FormatVolumeOptions, FsOptions};
use inspect::{Kind, PartitionContent, partitions, read_file};

fn run(name: &str, arguments: &[&str]) {
    workbench::run(workbench::tool(name).args(arguments).env("MKE2FS_CONFIG", "/nonexistent"));
}

/// A file as a disk, without holes.
struct Disk(File);

impl BlockSource for Disk {
    fn len(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
        Box::new([(0, self.len())].into_iter())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
enum Thing {
    Folder,
    File(Vec<u8>, u32, i64),
    Link(PathBuf),
}

fn in_folder(folder: &Path, below: &str, all: &mut BTreeMap<String, Thing>) {
    for entry in fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().into_string().unwrap());
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            all.insert(name.clone(), Thing::Folder);
            in_folder(folder, &format!("{name}/"), all);
        } else if metadata.is_symlink() {
            all.insert(name, Thing::Link(fs::read_link(entry.path()).unwrap()));
        } else {
            let (bytes, mode) = (fs::read(entry.path()).unwrap(), metadata.mode() & 0o7777);
            all.insert(name, Thing::File(bytes, mode, metadata.mtime()));
        }
    }
}

fn on_disk(image: &Path) -> BTreeMap<String, Thing> {
    let disk = Disk(File::open(image).unwrap());
    let found = partitions(&disk).unwrap().remove(0);
    let files = match found.content {
        PartitionContent::Files(files) => files,
        PartitionContent::Unread(why) => panic!("{why}"),
    };
    let mut all = BTreeMap::new();
    for (path, number) in &files.names {
        let inode = &files.inodes[number];
        let thing = match &inode.kind {
            Kind::Directory => Thing::Folder,
            Kind::Symlink(target) => Thing::Link(String::from_utf8(target.clone()).unwrap().into()),
            Kind::File => {
                let bytes = read_file(&disk, &files, path, 1 << 30).unwrap().unwrap();
                Thing::File(bytes, inode.mode.into(), inode.mtime.seconds)
            }
            other => panic!("{path:?} is {other:?}"),
        };
        all.insert(path.to_string(), thing);
    }
    all.remove("");
    all.remove("lost+found");
    all
}

/// A folder with many names, a large file, one with holes, and links short and long.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("many/deep/er")).unwrap();
    for number in 0..700 {
        fs::write(at(&format!("many/{number:060}")), format!("{number}")).unwrap();
    }
    let large: Vec<u8> = (0..5_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(at("large"), large).unwrap();
    let holes = File::create(at("holes")).unwrap();
    holes.set_len(3_000_000).unwrap();
    for place in [700_000, 1_500_003, 2_999_999] {
        holes.write_all_at(b"x", place).unwrap();
    }
    fs::write(at("many/deep/er/empty"), "").unwrap();
    symlink("large", at("short")).unwrap();
    symlink("x/".repeat(200), at("long")).unwrap();
    folder
}

#[test]
fn what_mke2fs_makes_of_a_folder_is_the_folder() {
    let folder = folder();
    let mut expected = BTreeMap::new();
    in_folder(folder.path(), "", &mut expected);
    let place = tempfile::tempdir().unwrap();
    for (number, choices) in [
        &["-t", "ext4"][..],
        &["-t", "ext4", "-b", "1024", "-I", "128", "-O", "^64bit,^metadata_csum,^flex_bg"],
        &["-t", "ext4", "-b", "2048", "-O", "^dir_index,^has_journal", "-g", "8192"],
        &["-t", "ext4", "-b", "4096", "-I", "512", "-O", "64bit,metadata_csum,metadata_csum_seed"],
    ]
    .into_iter()
    .enumerate()
    {
        let image = place.path().join(format!("{number}.img"));
        let (source, image) = (folder.path().to_str().unwrap(), image.to_str().unwrap());
        run("mke2fs", &[&["-q", "-F", "-d", source], choices, &[image, "64M"]].concat());
        assert!(on_disk(Path::new(image)) == expected, "{choices:?}");
    }
}

#[test]
fn what_fatfs_writes_is_read_in_every_width() {
    for (width, size) in [(FatType::Fat12, 2), (FatType::Fat16, 32), (FatType::Fat32, 64)] {
        let mut expected = BTreeMap::from([("folder".to_owned(), Thing::Folder)]);
        let mut bytes = Cursor::new(vec![0; size << 20]);
        fatfs::format_volume(&mut bytes, FormatVolumeOptions::new().fat_type(width)).unwrap();
        {
            let volume = fatfs::FileSystem::new(&mut bytes, FsOptions::new()).unwrap();
            let root = volume.root_dir();
            let folder = root.create_dir("folder").unwrap();
            // Two files that grow in turns lie in pieces.
            let names = ["A long name, größer.txt", "SHORT.TXT"];
            let mut files = names.map(|name| folder.create_file(name).unwrap());
            let mut contents = [Vec::new(), Vec::new()];
            for turn in 0..40_u32 {
                for (file, content) in files.iter_mut().zip(&mut contents) {
                    let piece: Vec<u8> = (0..3000).map(|at| (at * turn + at / 7) as u8).collect();
                    file.write_all(&piece).unwrap();
                    content.extend(piece);
                }
            }
            for (name, content) in names.into_iter().zip(contents) {
                expected.insert(format!("folder/{name}"), Thing::File(content, 0, 0));
            }
            for number in 0..200 {
                let name = format!("name {number}");
                folder.create_file(&name).unwrap();
                expected.insert(format!("folder/{name}"), Thing::File(Vec::new(), 0, 0));
            }
            folder.remove("name 7").unwrap();
            expected.remove("folder/name 7");
        }
        let image = tempfile::NamedTempFile::new().unwrap();
        fs::write(image.path(), bytes.into_inner()).unwrap();
        let found = on_disk(image.path());
        let names = |all: &BTreeMap<String, Thing>| all.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{width:?}");
        for (name, thing) in &found {
            assert!(*thing == expected[name], "{width:?}: {name}");
        }
    }
}
