//! A small image that keeps every rule, for tests that break one.

use block::Origin;
use tree::{Entry, Node, Tree, TreePath};

use crate::{Architecture, BootMode, Facts, Finding, lint};

pub(crate) const KERNEL: &str = "6.12.9-cloud-amd64";
pub(crate) const ROOT_UUID: [u8; 16] = [0xab; 16];
const UUID: &str = "abababab-abab-abab-abab-abababababab";

/// An image in the making.
pub(crate) struct Sample {
    root: Tree,
    esp: Tree,
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

impl Sample {
    pub(crate) fn new() -> Self {
        let empty = || Tree::new(Entry::directory(0o755));
        let mut sample = Self { root: empty(), esp: empty() };
        let modules = format!("usr/lib/modules/{KERNEL}");
        sample.put("lib", Entry::symlink("usr/lib", Origin::Configured));
        sample.text(&format!("boot/vmlinuz-{KERNEL}"), "kernel");
        sample.initrd(&["kernel/drivers/block/xen-blkfront.ko.xz"]);
        sample.text(
            &format!("{modules}/modules.builtin"),
            "kernel/drivers/nvme/host/nvme.ko\nkernel/fs/ext4/ext4.ko\n",
        );
        for module in ["net/ethernet/amazon/ena/ena", "net/xen-netfront", "block/xen-blkfront"] {
            sample.text(&format!("{modules}/kernel/drivers/{module}.ko.xz"), "module");
        }
        let command_line = "console=tty1 console=ttyS0,115200n8 nvme_core.io_timeout=4294967295";
        sample.text(
            "boot/grub/grub.cfg",
            &format!(
                "set default=\"0\"\nmenuentry 'Debian' $menuentry_id_option 'simple' {{\n\
                 \tsearch --no-floppy --fs-uuid --set=root {UUID}\n\
                 \tlinux\t/boot/vmlinuz-{KERNEL} root=UUID={UUID} ro {command_line}\n\
                 \tinitrd\t/boot/initrd.img-{KERNEL}\n}}\n"
            ),
        );
        sample.text("etc/default/grub", &format!("GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX=\"{command_line}\"\n"));
        sample.text(
            "etc/fstab",
            &format!("UUID={UUID} / ext4 defaults 0 1\nUUID=1197-B5B9 /boot/efi vfat umask=0077\n"),
        );
        sample.text(
            "etc/passwd",
            "root:x:0:0::/root:/bin/bash\nec2-user:x:1000:1000::/home/ec2-user:/bin/bash\n",
        );
        sample.text("etc/shadow", "root:*:1:0:99999:7:::\nec2-user:!:1:0:99999:7:::\n");
        sample.text("etc/machine-id", "");
        sample.text("usr/bin/cloud-init", "#!/usr/bin/python3\n");
        sample.text("usr/bin/growpart", "#!/bin/sh\n");
        sample.text(
            "etc/cloud/cloud.cfg",
            "users:\n   - default\nsystem_info:\n   default_user:\n     name: debian\n",
        );
        sample.text(
            "etc/cloud/cloud.cfg.d/10-ec2.cfg",
            "datasource_list: [ Ec2, None ]\nnetwork: {config: disabled}\nssh_pwauth: false\n",
        );
        sample.text(
            "etc/cloud/cloud.cfg.d/90_default-user.cfg",
            "system_info:\n  default_user:\n    name: \"ec2-user\"\n    lock_passwd: true\n",
        );
        sample.text("etc/systemd/network/80-dhcp.network", "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n");
        sample.put(
            "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
            Entry::symlink("/usr/lib/systemd/system/systemd-networkd.service", Origin::Configured),
        );
        sample.text("usr/lib/systemd/system-generators/systemd-getty-generator", "program");
        sample.text("usr/sbin/sshd", "program");
        sample.text("etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n");
        sample.text("etc/ssh/sshd_config.d/10-ec2.conf", "PasswordAuthentication no\nPermitRootLogin no\n");
        sample.esp_bytes("EFI/BOOT/BOOTX64.EFI", &program(0x8664, "grubx64.efi"));
        sample.esp_bytes("EFI/BOOT/grubx64.efi", &program(0x8664, ""));
        sample.esp_bytes(
            "EFI/debian/grub.cfg",
            format!("search.fs_uuid {UUID} root \nset prefix=($root)'/boot/grub'\n").as_bytes(),
        );
        sample
    }

    /// An entry with the folders above it.
    pub(crate) fn put(&mut self, at: &str, entry: Entry) {
        put(&mut self.root, at, entry);
    }

    pub(crate) fn text(&mut self, at: &str, text: &str) {
        self.bytes(at, text.as_bytes());
    }

    pub(crate) fn bytes(&mut self, at: &str, bytes: &[u8]) {
        self.put(at, Entry::file(0o644, bytes, Origin::Configured));
    }

    pub(crate) fn esp_bytes(&mut self, at: &str, bytes: &[u8]) {
        put(&mut self.esp, at, Entry::file(0o700, bytes, Origin::Configured));
    }

    /// An initrd as Debian makes it, with these modules in its plain part.
    pub(crate) fn initrd(&mut self, modules: &[&str]) {
        let modules: Vec<_> = modules.iter().map(|name| format!("usr/lib/modules/{KERNEL}/{name}")).collect();
        let early: Vec<_> = modules.iter().map(|name| (name.as_str(), b"module".as_slice())).collect();
        let main = cpio(&[("bin", b"usr/bin"), ("init", b"#!/bin/sh\n"), ("usr/bin/sh", &[7; 5000])]);
        let packed = zstd::stream::encode_all(&main[..], 1).unwrap();
        self.bytes(&format!("boot/initrd.img-{KERNEL}"), &[cpio(&early), vec![0; 100], packed].concat());
    }

    pub(crate) fn remove(&mut self, at: &str) {
        self.root.remove(&path(at)).unwrap_or_else(|| panic!("{at} is not there"));
    }

    pub(crate) fn esp_remove(&mut self, at: &str) {
        self.esp.remove(&path(at)).unwrap_or_else(|| panic!("{at} is not there"));
    }

    /// Replaces a piece of a text that must be there.
    pub(crate) fn replace(&mut self, at: &str, old: &str, new: &str) {
        let Some(Entry { node: Node::File(content), .. }) = self.root.get(&path(at)) else { panic!("{at}") };
        let text = String::from_utf8(content.read_all().unwrap()).unwrap();
        assert!(text.contains(old), "{at}: {text}");
        self.text(at, &text.replace(old, new));
    }

    pub(crate) fn facts(&self) -> Facts<'static> {
        Facts {
            architecture: Architecture::X86_64,
            boot_mode: BootMode::UefiPreferred,
            has_bios_boot: true,
            root_uuid: ROOT_UUID,
            ena: true,
            default_user: Some("ec2-user"),
            data: &[],
        }
    }

    pub(crate) fn lint(&self, facts: &Facts<'_>) -> Vec<Finding> {
        self.root.check().unwrap();
        let findings = lint(&self.root, &self.esp, facts).unwrap();
        assert_eq!(findings, lint(&self.root, &self.esp, facts).unwrap());
        findings
    }

    /// The rules that are broken, in order.
    pub(crate) fn rules(&self) -> Vec<&'static str> {
        self.rules_with(&self.facts())
    }

    pub(crate) fn rules_with(&self, facts: &Facts<'_>) -> Vec<&'static str> {
        self.lint(facts).iter().map(|finding| finding.rule).collect()
    }
}

fn put(tree: &mut Tree, at: &str, entry: Entry) {
    let at = path(at);
    let mut above = at.parent();
    while let Some(folder) = above {
        above = folder.parent();
        if tree.get(&folder).is_none() {
            tree.insert(folder, Entry::directory(0o755));
        }
    }
    tree.insert(at, entry);
}

/// An archive in cpio's `newc` form.
pub(crate) fn cpio(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in entries.iter().copied().chain([("TRAILER!!!", b"".as_slice())]) {
        let numbers = [1, 0o100_644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        bytes.extend_from_slice(b"070701");
        bytes.extend(numbers.iter().flat_map(|number| format!("{number:08X}").into_bytes()));
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// An EFI program of nothing but its header, with a name in it.
pub(crate) fn program(machine: u16, name: &str) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
    bytes.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    bytes
}

#[test]
fn a_good_image_has_no_findings() {
    let sample = Sample::new();
    assert_eq!(sample.lint(&sample.facts()), []);
}

#[test]
fn findings_are_sorted_and_shown_on_one_line() {
    let mut sample = Sample::new();
    sample.text("root/.wget-hsts", "x");
    sample.text("root/.bash_history", "x");
    sample.text("home/a\nb/.bash_history", "x");
    let shown: Vec<_> = sample.lint(&sample.facts()).iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "error[history] /home/a\u{fffd}b/.bash_history: is a history of commands; remove it in the last step",
            "error[history] /root/.bash_history: is a history of commands; remove it in the last step",
            "warning[trace] /root/.wget-hsts: remembers somebody's work; remove it in the last step",
        ]
    );
}
