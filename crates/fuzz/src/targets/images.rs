use std::ops::ControlFlow;
use std::path::Path;

use bake::{Layout, Manifest};
use block::Origin;
use dispatch::{Machine, needs};
use lint::{Architecture, BootMode, DataFileSystem, Facts, initrd_files};
use tree::{Entry, Tree, TreePath};

use super::can_be_shown;
use crate::Target;

pub(super) const ELF: Target = Target {
    words: &[
        b"\x7fELF\x02\x01\x01\0",
        b"\x3e\0",
        b"\xb7\0",
        b"/lib64/ld-linux-x86-64.so.2\0",
        b"libc.so.6\0",
    ],
    // A file's folders are copied for each entry that names them; entries take 16 bytes.
    memory_a_byte: 64 << 10,
    ..Target::new("elf", "a program of a package: what its loader must bring", 4 << 10, |input| {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let Some(needs) = needs(input, machine.elf()) else { continue };
            for range in needs.folder_texts.iter().chain(&needs.interpreter_text) {
                assert!(input.get(range.clone()).is_some(), "texts lie in the file");
            }
            let names = needs.libraries.iter().chain(&needs.folders).chain(&needs.interpreter);
            names.for_each(|name| assert!(!name.contains(&0)));
        }
    })
};

pub(super) const INITRD: Target = Target {
    words: &[
        b"070701",
        b"TRAILER!!!\0",
        b"\x28\xb5\x2f\xfd",
        b"\x1f\x8b\x08",
        b"\xfd7zXZ\0",
        b"usr/lib/modules/6.12/kernel/a.ko.xz\0",
    ],
    fixed_memory: 136 << 20,
    ..Target::new("initrd", "an initrd: cpio archives, the last of them compressed", 16 << 10, |input| {
        let mut seen = 0_usize;
        let mut see = |path: &[u8]| {
            assert!(!path.contains(&0) && path.len() < 4096);
            seen += 1;
            if seen < 10_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        if let Err(error) = initrd_files(input, &mut see) {
            assert!(!error.to_string().contains(char::is_control));
        }
    })
};

/// Names a file and begins its content: `=== /etc/fstab`. A link is `=== /a -> b`.
const MARK: &[u8] = b"=== /";
const UUID: [u8; 16] = [0xab; 16];

pub(super) const LINT: Target = Target {
    words: &[
        b"=== /boot/grub/grub.cfg\n",
        b"=== /etc/fstab\n",
        b"=== /etc/passwd\n",
        b"=== /etc/shadow\n",
        b"=== /etc/default/grub\n",
        b"=== /etc/cloud/cloud.cfg\n",
        b"=== /etc/ssh/sshd_config\n",
        b"=== /etc/systemd/network/a.network\n",
        b"=== /esp/EFI/BOOT/BOOTX64.EFI\n",
        b"=== /a -> ",
        b"menuentry 'a' {\n",
        b"Include /etc/ssh/sshd_config.d/*.conf\n",
        b"UUID=abababab-abab-abab-abab-abababababab",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        b"AKIAIOSFODNN7EXAMPLE",
        b"\\040",
        b"MZ",
    ],
    fixed_memory: 16 << 20,
    memory_a_byte: 4096,
    ..Target::new(
        "lint",
        "files of a finished image: GRUB's menu, fstab, accounts, settings",
        8 << 10,
        |input| {
            let (mut root, mut esp) =
                (Tree::new(Entry::directory(0o755)), Tree::new(Entry::directory(0o755)));
            for (name, content) in files(input) {
                let (tree, name) = match name.strip_prefix(b"esp/") {
                    Some(rest) => (&mut esp, rest),
                    None => (&mut root, name),
                };
                let arrow = name.windows(4).position(|piece| piece == b" -> ");
                let (name, entry) = match arrow {
                    Some(at) => (&name[..at], Entry::symlink(&name[at + 4..], Origin::Configured)),
                    None => (name, Entry::file(0o644, content, Origin::Configured)),
                };
                put(tree, name, entry);
            }
            let data = [DataFileSystem { uuid: [0xcd; 16], mount: Some("/srv/data") }];
            let facts = Facts {
                architecture: Architecture::X86_64,
                boot_mode: BootMode::UefiPreferred,
                has_bios_boot: true,
                root_uuid: UUID,
                ena: true,
                default_user: Some("ec2-user"),
                data: &data,
            };
            let findings = lint::lint(&root, &esp, &facts).expect("contents in memory can be read");
            for finding in &findings {
                let shown = finding.to_string();
                assert!(
                    !shown.contains(char::is_control),
                    "a finding is a line without control characters: {shown:?}"
                );
                assert!(lint::RULES.iter().any(|rule| rule.name == finding.rule));
            }
        },
    )
};

/// The files that an input holds: names without the slash in front, and contents.
fn files(input: &[u8]) -> Vec<(&[u8], &[u8])> {
    let starts: Vec<usize> = (0..input.len())
        .filter(|at| input[*at..].starts_with(MARK) && (*at == 0 || input[at - 1] == b'\n'))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([input.len()]);
    let files = starts.iter().zip(ends).map(|(start, end)| {
        let file = &input[start + MARK.len()..end];
        let line = file.iter().position(|byte| *byte == b'\n').unwrap_or(file.len());
        (&file[..line], file.get(line + 1..).unwrap_or_default())
    });
    files.collect()
}

/// An entry with the folders above it; nothing where the name cannot be.
fn put(tree: &mut Tree, name: &[u8], entry: Entry) {
    let Ok(path) = TreePath::new(name) else { return };
    if path.is_root() || tree.below(&path).next().is_some() {
        return;
    }
    let mut above = path.parent();
    while let Some(folder) = above {
        above = folder.parent();
        match tree.get(&folder) {
            None => drop(tree.insert(folder, Entry::directory(0o755))),
            Some(there) if matches!(there.node, tree::Node::Directory) => {}
            Some(_) => return,
        }
    }
    tree.insert(path, entry);
}

pub(super) const MANIFEST: Target = Target {
    words: &[
        b"\"format\":2",
        b"\"volumes\":[",
        b"\"raw\":\"xvda.raw\"",
        b"\"firmware\":[\"uefi\"]",
        b"../",
        b"null",
        b"\"checks\":[{\"http\":",
    ],
    memory_a_byte: 4096,
    ..Target::new("manifest", "image.json, read back from a folder of outputs", 8 << 10, |input| {
        let path = Path::new("image.json");
        let manifest = match Manifest::from_text(input, path) {
            Ok(manifest) => manifest,
            Err(error) => return can_be_shown(&error),
        };
        let names = manifest.volumes.iter().flat_map(|volume| [&volume.raw, &volume.vmdk]).flatten();
        for name in names.chain(&manifest.firmware) {
            assert!(!name.contains('/') && !name.starts_with('.') && !name.is_empty(), "{name:?}");
        }
        let read = Manifest::from_text(manifest.to_text().as_bytes(), path);
        assert_eq!(read.ok(), Some(manifest), "what is written reads the same");
    })
};

pub(super) const LAYOUT: Target = Target {
    words: &[b"bakehouse layout 1\n", b"/dev/xvda", b"\x03usr", b"\x80\x01", b"\x01\0\0\0\x01\0"],
    ..Target::new("layout", "where things lie in a parent, from beside a lock", 4 << 10, |input| {
        match Layout::from_bytes(input) {
            Ok(layout) => {
                for volume in &layout.volumes {
                    let places = volume.places(66 << 20, 2 << 30);
                    assert_eq!(places.numbers.len(), volume.names.len());
                    assert!(places.used.iter().all(|block| block % 128 == 0));
                    let blocks: Vec<_> = volume.blocks.iter().map(|(index, id)| (*index, *id)).collect();
                    assert_eq!(volume.changed(&blocks), 0);
                }
                let again = Layout::from_bytes(&layout.to_bytes());
                assert!(again.as_ref() == Ok(&layout), "a layout is read as it was written");
            }
            Err(error) => can_be_shown(&error),
        }
    })
};
