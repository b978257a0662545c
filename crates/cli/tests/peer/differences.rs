//! In what a baked root differs from one that mmdebstrap made of the same packages, and why.
//!
//! Every reason is for one path. Where only a part of a file has a reason to differ, the rest is compared. A mode or an
//! attribute that differs has no reason anywhere.

use std::collections::BTreeMap;
use std::io::Read;

use block::Origin;
use recipe::Recipe;
use rootfs::DifferenceKind;
use tree::{Node, Tree, TreePath};

/// Only in ours.
const OURS: &[(&str, &str)] = &[
    ("boot/efi", "mount point of the EFI system partition"),
    ("boot/grub", "mmdebstrap makes no boot files"),
    ("boot/grub/fonts", "mmdebstrap makes no boot files"),
    ("boot/grub/grub.cfg", "mmdebstrap makes no boot files"),
    ("boot/grub/grubenv", "mmdebstrap makes no boot files"),
    ("boot/grub/i386-pc", "mmdebstrap makes no boot files"),
    ("boot/grub/i386-pc/core.img", "mmdebstrap makes no boot files"),
    ("boot/grub/i386-pc/load.cfg", "mmdebstrap makes no boot files"),
    ("boot/grub/locale", "mmdebstrap makes no boot files"),
    ("boot/grub/x86_64-efi", "mmdebstrap makes no boot files"),
    ("boot/grub/x86_64-efi/load.cfg", "mmdebstrap makes no boot files"),
    ("etc/apt/sources.list.d/debian.sources", "where the machine's packages come from"),
    ("etc/cloud/cloud.cfg.d/90_default-user.cfg", "the recipe's user"),
    ("etc/default/grub.d/50_bakehouse.cfg", "the machine's consoles"),
    ("etc/grub.d/enable_cloud", "grub-cloud's switch"),
    ("etc/hostname", "the machine's"),
    ("etc/sudoers.d/90-ec2-user", "the recipe's user"),
    ("etc/systemd/system/dbus-org.freedesktop.network1.service", NETWORKD),
    ("etc/systemd/system/default.target", "the machine's"),
    ("etc/systemd/system/multi-user.target.wants/systemd-networkd.service", NETWORKD),
    ("etc/systemd/system/network-online.target.wants", NETWORKD),
    ("etc/systemd/system/network-online.target.wants/systemd-networkd-wait-online.service", NETWORKD),
    ("etc/systemd/system/sockets.target.wants", NETWORKD),
    ("etc/systemd/system/sockets.target.wants/systemd-networkd.socket", NETWORKD),
    ("etc/systemd/system/sysinit.target.wants/systemd-network-generator.service", NETWORKD),
    ("etc/systemd/system/systemd-firstboot.service", "nothing asks at a first boot"),
    ("etc/update-motd.d/40-cow", "the recipe's greeting"),
    ("home/ec2-user", "the recipe's user"),
];

/// Only in theirs.
const THEIRS: &[(&str, &str)] = &[
    ("etc/.pwd.lock", "a lock of account tools"),
    ("etc/apt/apt.conf.d/99mmdebstrap", "settings of the installation"),
    ("etc/apt/sources.list", "the repository of this test"),
    ("etc/group-", BACKUP),
    ("etc/gshadow-", BACKUP),
    ("etc/passwd-", BACKUP),
    ("etc/shadow-", BACKUP),
    ("etc/subgid-", BACKUP),
    ("etc/subuid-", BACKUP),
    ("etc/ssh/ssh_host_ecdsa_key", HOST_KEY),
    ("etc/ssh/ssh_host_ecdsa_key.pub", HOST_KEY),
    ("etc/ssh/ssh_host_ed25519_key", HOST_KEY),
    ("etc/ssh/ssh_host_ed25519_key.pub", HOST_KEY),
    ("etc/ssh/ssh_host_rsa_key", HOST_KEY),
    ("etc/ssh/ssh_host_rsa_key.pub", HOST_KEY),
    ("run/lock", "empty before boot"),
    ("run/lock/subsys", "empty before boot"),
    ("var/cache/apt/archives/lock", "apt's lock"),
    ("var/lib/apt/lists/lock", "apt's lock"),
    ("var/cache/debconf/config.dat-old", BACKUP),
    ("var/cache/debconf/templates.dat-old", BACKUP),
    ("var/lib/dpkg/diversions-old", BACKUP),
    ("var/lib/dpkg/status-old", BACKUP),
];

const NETWORKD: &str = "the recipe enables systemd-networkd";
const BACKUP: &str = "a backup, which ours does not keep";
const HOST_KEY: &str = "each machine makes its own at first boot";

/// Folders of apt's user, which is root where mmdebstrap runs in a root of its own.
const DOWNLOADS: [&str; 2] = ["var/cache/apt/archives/partial", "var/lib/apt/lists/partial"];

/// What is compared of a file on both sides.
type Normal = fn(&[u8]) -> Vec<u8>;

/// Files of which a part may differ.
const PARTS: &[(&str, Normal, &str)] = &[
    ("etc/group", accounts, "the recipe's user; the order in which packages were configured"),
    ("etc/gshadow", accounts, "the recipe's user; the order in which packages were configured"),
    ("etc/passwd", accounts, "the recipe's user; the order in which packages were configured"),
    ("etc/shadow", accounts, "the recipe's user; the order in which packages were configured"),
    ("etc/subgid", accounts, "the recipe's user"),
    ("etc/subuid", accounts, "the recipe's user"),
    ("etc/hosts", trimmed, "a blank line at the end"),
    ("var/lib/apt/extended_states", paragraphs, "the order of the auto marks"),
    ("var/lib/dpkg/triggers/File", lines, "the order in which packages were unpacked"),
    ("usr/share/python3/debpython/__pycache__/__init__.cpython-313.pyc", python_code, PYTHON),
    ("usr/share/python3/debpython/__pycache__/files.cpython-313.pyc", python_code, PYTHON),
    ("usr/share/python3/debpython/__pycache__/interpreter.cpython-313.pyc", python_code, PYTHON),
    ("usr/share/python3/debpython/__pycache__/option.cpython-313.pyc", python_code, PYTHON),
    ("usr/share/python3/debpython/__pycache__/version.cpython-313.pyc", python_code, PYTHON),
];

const PYTHON: &str =
    "compiled ahead and valid by the source's hash, theirs on first use and valid by its time";

/// Files that the image has instead of what a package made: the path, what ours must hold, what theirs must hold.
const REPLACED: &[(&str, &str, &str, &str)] = &[
    ("etc/fstab", "UUID=", "UNCONFIGURED FSTAB", "the image's"),
    ("etc/locale.conf", "LANG=C.UTF-8", "# ", "the machine's language, where theirs sets none"),
    ("var/www/html/index.html", "<h1>Hello</h1>", "Apache2 Debian Default Page", "the recipe's"),
];

/// How the reason of a copy begins: there are too many to tell each.
const COPY: &str = "a copy of";

/// Prints every difference with its reason, and returns those that have none.
pub(crate) fn unexplained(recipe: &Recipe, ours: &Tree, theirs: &Tree) -> Vec<String> {
    let sides = Sides { recipe, ours, theirs };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    let mut copies = 0;
    for difference in rootfs::compare(ours, theirs) {
        match sides.reason(&difference.path, &difference.kind) {
            Some(reason) if matches!(difference.kind, DifferenceKind::Time(..)) => {
                *counts.entry(reason).or_default() += 1;
            }
            Some(reason) if reason.starts_with(COPY) => copies += 1,
            Some(reason) => println!("  {difference} ({reason})"),
            None => unexplained.push(difference.to_string()),
        }
    }
    println!("  {copies} times: {COPY} a packaged file at another place");
    for (reason, count) in counts {
        println!("  {count} times: {reason}");
    }
    unexplained
}

struct Sides<'a> {
    recipe: &'a Recipe,
    ours: &'a Tree,
    theirs: &'a Tree,
}

impl Sides<'_> {
    fn reason(&self, path: &TreePath, kind: &DifferenceKind) -> Option<String> {
        let name = path.to_string();
        let listed = |list: &[(&str, &str)]| {
            list.iter().find(|(path, _)| *path == name).map(|(_, why)| (*why).to_owned())
        };
        match kind {
            DifferenceKind::OnlyFirst => {
                listed(OURS).or_else(|| self.of_the_recipe(&name)).or_else(|| self.copied(&name))
            }
            DifferenceKind::OnlySecond => listed(THEIRS),
            DifferenceKind::Content(..) => self.content(&name),
            DifferenceKind::Owner((42, 0), (0, 0)) if DOWNLOADS.contains(&name.as_str()) => {
                Some("apt downloads as root there".to_owned())
            }
            DifferenceKind::Time(ours, theirs) => self.time(path, *ours, *theirs),
            _ => None,
        }
    }

    /// What the recipe asks for, and the folders that only that needs.
    fn of_the_recipe(&self, name: &str) -> Option<String> {
        let laid = self.recipe.files.iter().map(|file| file.path.trim_start_matches('/'));
        let made = laid.into_iter().any(|path| {
            path == name || path.starts_with(name) && path.as_bytes().get(name.len()) == Some(&b'/')
        });
        made.then(|| "the recipe's file".to_owned())
    }

    /// A copy of a packaged file at another place.
    fn copied(&self, name: &str) -> Option<String> {
        let file = name.rsplit('/').next()?;
        let source = match name.rsplit_once('/')?.0 {
            "boot/grub/i386-pc" => format!("usr/lib/grub/i386-pc/{file}"),
            "boot/grub/x86_64-efi" => format!("usr/lib/grub/x86_64-efi/{file}"),
            "boot/grub/locale" => {
                format!("usr/share/locale/{}/LC_MESSAGES/grub.mo", file.strip_suffix(".mo")?)
            }
            "boot/grub/fonts" => format!("usr/share/grub/{file}"),
            "home/ec2-user" => format!("etc/skel/{file}"),
            _ => return None,
        };
        let same = bytes(self.ours, name)? == bytes(self.theirs, &source)?;
        same.then(|| format!("{COPY} /{source}"))
    }

    fn content(&self, name: &str) -> Option<String> {
        let (ours, theirs) = (bytes(self.ours, name)?, bytes(self.theirs, name)?);
        if name.starts_with("boot/initrd.img-") {
            return (archive(&ours)? == archive(&theirs)?).then(|| {
                "the recipe's udev rule, and times; names, modes and bytes of all else in it are the same"
                    .to_owned()
            });
        }
        if let Some((_, normal, why)) = PARTS.iter().find(|(path, ..)| *path == name) {
            return (normal(&ours) == normal(&theirs)).then(|| format!("{why}; the rest is the same"));
        }
        let (_, our, their, why) = REPLACED.iter().find(|(path, ..)| *path == name)?;
        let holds = |bytes: &[u8], part: &str| String::from_utf8_lossy(bytes).contains(part);
        (holds(&ours, our) && holds(&theirs, their)).then(|| (*why).to_owned())
    }

    /// A file that a package brings has the archive's time in both; dpkg's own notes of it only in theirs. What is
    /// made while installing has a time that follows from the packages in ours, and the time of day in theirs.
    fn time(&self, path: &TreePath, ours: i64, theirs: i64) -> Option<String> {
        let made = self.ours.iter().map(|(_, entry)| entry.meta.mtime.seconds).max()?;
        let entry = self.ours.get(path)?;
        let reason = if matches!(entry.node, Node::Directory) {
            "a folder's time, which is that of its last change"
        } else if theirs > made {
            "made while installing: theirs has the time of day"
        } else if ours >= theirs && path.to_string().starts_with("var/lib/dpkg/info/") {
            "dpkg's notes: theirs have the archive's time, ours that of the package"
        } else if matches!(entry.node, Node::Symlink(_))
            && entry.origin == Origin::Configured
            && Some(ours) == self.time_above(path)
        {
            "a link made while installing: ours has the time of the folder that it is in"
        } else {
            return None;
        };
        Some(reason.to_owned())
    }

    /// The time of the nearest folder above that a package brought, in ours.
    fn time_above(&self, path: &TreePath) -> Option<i64> {
        let mut above = path.parent();
        while let Some(folder) = above {
            let entry = self.ours.get(&folder)?;
            if matches!(entry.origin, Origin::Package(_)) {
                return Some(entry.meta.mtime.seconds);
            }
            above = folder.parent();
        }
        None
    }
}

fn bytes(tree: &Tree, path: &str) -> Option<Vec<u8>> {
    match &tree.get(&TreePath::new(path.as_bytes()).ok()?)?.node {
        Node::File(content) => content.read_all().ok(),
        Node::HardLink(target) => bytes(tree, &target.to_string()),
        _ => None,
    }
}

fn lines(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n").into_bytes()
}

fn paragraphs(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let mut paragraphs: Vec<_> = text.trim_end().split("\n\n").collect();
    paragraphs.sort_unstable();
    paragraphs.join("\n\n").into_bytes()
}

/// Accounts in the order of their names, without the recipe's user and its membership.
fn accounts(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let kept: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("ec2-user:"))
        .map(|line| line.strip_suffix("ec2-user").unwrap_or(line))
        .collect();
    lines(kept.join("\n").as_bytes())
}

fn trimmed(bytes: &[u8]) -> Vec<u8> {
    bytes.trim_ascii_end().to_vec()
}

/// Without the header, which says how the file is known to be valid.
fn python_code(bytes: &[u8]) -> Vec<u8> {
    bytes.get(16..).unwrap_or_default().to_vec()
}

/// Names in an initrd, each with mode and bytes.
type Archive = BTreeMap<Vec<u8>, (u32, Vec<u8>)>;

/// The files of an initrd as its cpio archives have them, the second of which is compressed; without times and inode
/// numbers, and without the recipe's udev rule, which theirs cannot have.
fn archive(initrd: &[u8]) -> Option<Archive> {
    let mut files = Archive::new();
    let early = add_cpio(initrd, &mut files)?;
    let rest = initrd.get(early..)?;
    let start = rest.iter().position(|byte| *byte != 0)?;
    let mut main = Vec::new();
    let mut decoder = zstd::Decoder::new(&rest[start..]).ok()?.single_frame();
    decoder.read_to_end(&mut main).ok()?;
    add_cpio(&main, &mut files)?;
    files.remove(b"usr/lib/udev/rules.d/71-bakehouse-devices.rules".as_slice());
    (files.len() > 100).then_some(files)
}

/// Reads one cpio archive ("newc") and returns where it ends.
fn add_cpio(bytes: &[u8], files: &mut Archive) -> Option<usize> {
    let mut at = 0;
    loop {
        let header = std::str::from_utf8(bytes.get(at..at + 110)?).ok()?;
        let field =
            |number: usize| u32::from_str_radix(header.get(6 + 8 * number..14 + 8 * number)?, 16).ok();
        let (mode, size, name_size) = (field(1)?, field(6)? as usize, field(11)? as usize);
        let name = bytes.get(at + 110..at + 110 + name_size - 1)?.to_vec();
        let data = (at + 110 + name_size).next_multiple_of(4);
        at = (data + size).next_multiple_of(4);
        if name == b"TRAILER!!!" {
            return Some(at);
        }
        files.insert(name, (mode, bytes.get(data..data + size)?.to_vec()));
    }
}
