//! A baked disk in the eyes of programs and readers that are not ours.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ext4_view::{Ext4, Ext4Read};
use md5::{Digest, Md5};

use crate::house::{House, ROOT, e2fsck, fsck_fat, partition, succeeds, within};

/// A partition of a disk.
struct Part {
    disk: File,
    offset: u64,
}

impl Ext4Read for Part {
    fn read(&mut self, start: u64, bytes: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.disk.read_exact_at(bytes, self.offset + start)?)
    }
}

/// The root file system of a disk, read by a reader that is not ours.
pub(crate) fn root_of(disk: &Path) -> Ext4 {
    let part = Part { disk: File::open(disk).unwrap(), offset: partition(disk, ROOT).offset };
    Ext4::load(Box::new(part)).unwrap()
}

pub(crate) fn image(house: &House) {
    let disk = house.hello(&["--no-check"]).disk();
    let said = succeeds("sgdisk", &["-v", disk.to_str().unwrap()]);
    assert!(said.contains("No problems found"), "{said}");
    fsck_fat(&disk, &house.folder("checkers").join("esp.img"));
    e2fsck(&within(&disk, partition(&disk, ROOT).offset));

    let root = root_of(&disk);
    assert!(root.read_to_string("/etc/os-release").unwrap().contains("VERSION_CODENAME=trixie"));
    assert_eq!(root.read("/etc/machine-id").unwrap(), b"", "the first boot sets it");
    let keys = names(&root, "/etc/ssh").into_iter().filter(|name| name.starts_with("ssh_host_"));
    assert_eq!(keys.collect::<Vec<_>>(), [""; 0], "the first boot makes them");
    compare_with_packages(&root);
}

fn names(root: &Ext4, folder: &str) -> Vec<String> {
    let name = |entry: ext4_view::DirEntry| entry.file_name().as_str().unwrap().to_owned();
    root.read_dir(folder).unwrap().map(|entry| name(entry.unwrap())).collect()
}

/// Every file that a package says it brings is there with the bytes that the package says.
fn compare_with_packages(root: &Ext4) {
    let diverted = root.read_to_string("/var/lib/dpkg/diversions").unwrap_or_default();
    let mut compared = 0;
    let mut wrong = Vec::new();
    for list in names(root, "/var/lib/dpkg/info").iter().filter(|name| name.ends_with(".md5sums")) {
        let sums = root.read_to_string(format!("/var/lib/dpkg/info/{list}").as_str()).unwrap();
        for line in sums.lines() {
            let (sum, path) = line.split_once("  ").unwrap();
            let path = format!("/{path}");
            if diverted.lines().any(|line| line == path) {
                continue;
            }
            let found = root.read(path.as_str()).map(|bytes| hex(&Md5::digest(bytes)));
            if found.as_deref().ok() != Some(sum) {
                wrong.push(format!("{list}: {path}: {found:?}, not {sum}"));
            }
            compared += 1;
        }
    }
    println!("      {compared} files compared with the packages' sums");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared > 5000, "{compared}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
