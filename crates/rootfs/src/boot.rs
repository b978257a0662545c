//! The files that firmware and boot loader read: `/boot/grub` in the root, the EFI system partition, BIOS images. They
//! lie where `grub-install` and `update-grub` would have put them, so that both go on from there in the running
//! machine.

use block::{Content, Origin, format_uuid};
use recipe::{Arch, Kernel};
use sandbox::{Input, Sandbox};
use tree::{Entry, Meta, Node, Timestamp, Tree, TreePath};

use crate::beside;
use crate::error::Error;
use crate::programs::{Programs, StandIn};
use crate::root::{Attributes, Root};

/// GRUB's images for a disk that a BIOS boots, as the distribution's files and `grub-mkimage` give them: no place on a
/// disk is written into them yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BiosImages {
    /// 512 bytes for the disk's first sector.
    pub boot_img: Vec<u8>,
    /// For the BIOS boot partition.
    pub core_img: Vec<u8>,
}

/// The packages that every image of an architecture needs to boot, beside what its recipe lists.
pub fn boot_packages(arch: Arch, kernel: &Kernel) -> Vec<String> {
    let kernel = match kernel {
        Kernel::Cloud => format!("linux-image-cloud-{}", arch.debian()),
        Kernel::Generic => format!("linux-image-{}", arch.debian()),
        Kernel::Package(name) => name.clone(),
    };
    let loader: &[&str] = match arch {
        Arch::X86_64 => &["grub-cloud-amd64"],
        Arch::Aarch64 => &["grub-efi-arm64", "grub-efi-arm64-signed", "shim-signed"],
    };
    // zstd: the initrd is smaller and quicker to make and to unpack than with gzip.
    let always = ["e2fsprogs", "initramfs-tools", "systemd-sysv", "udev", "zstd"];
    std::iter::once(kernel).chain(loader.iter().chain(&always).map(|name| (*name).to_owned())).collect()
}

/// GRUB's name of the firmware, and the letters in the names of EFI programs.
struct Firmware {
    target: &'static str,
    efi: &'static str,
    efi_upper: &'static str,
}

fn efi_firmware(arch: Arch) -> Firmware {
    match arch {
        Arch::X86_64 => Firmware { target: "x86_64-efi", efi: "x64", efi_upper: "X64" },
        Arch::Aarch64 => Firmware { target: "arm64-efi", efi: "aa64", efi_upper: "AA64" },
    }
}

/// What stands in for programs that look at a disk, or that must not run before everything is there, while packages
/// are configured.
pub(crate) fn stand_ins_while_configuring(root_uuid: [u8; 16]) -> Vec<StandIn> {
    let nothing = || "#!/bin/sh\nexit 0\n".to_owned();
    let instead = |path: &'static str, script| StandIn { path: path.into(), script, beside: Some(path) };
    let mut stand_ins = vec![
        StandIn {
            path: "/usr/sbin/policy-rc.d".into(),
            script: "#!/bin/sh\nexit 101\n".into(),
            beside: None,
        },
        instead("/usr/sbin/grub-install", nothing()),
        instead("/usr/sbin/grub-probe", grub_probe(root_uuid)),
        instead("/usr/sbin/update-grub", nothing()),
        instead("/usr/sbin/update-initramfs", nothing()),
    ];
    stand_ins.extend(beside::stand_ins());
    stand_ins
}

/// Answers what grub-probe will answer in the finished machine. It gives no hints: they would name one type of disk.
fn grub_probe(root_uuid: [u8; 16]) -> String {
    format!(
        "#!/bin/sh\ntarget=fs\nwhile [ $# -gt 0 ]; do\n  case $1 in\n    --target=*) target=${{1#--target=}} ;;\n    \
         -t|--target) target=$2; shift ;;\n  esac\n  shift\ndone\ncase $target in\n  fs_uuid) echo {uuid} ;;\n  \
         fs) echo ext2 ;;\n  partmap) echo gpt ;;\n  device) echo {ROOT_DEVICE} ;;\n  disk) echo {ROOT_DISK} ;;\n  \
         abstraction|hints_string|compatibility_hint|cryptodisk_uuid) ;;\n  *) exit 1 ;;\nesac\n",
        uuid = format_uuid(root_uuid)
    )
}

/// Only asked whether it exists, never written anywhere: everything goes by UUID.
const ROOT_DEVICE: &str = "/dev/nvme0n1p1";
const ROOT_DISK: &str = "/dev/nvme0n1";

/// What the kernels of the image are called: the folders of `/usr/lib/modules` that have an image in `/boot`.
pub(crate) fn kernels(root: &Root) -> Result<Vec<String>, Error> {
    let mut kernels = Vec::new();
    for name in root.list(b"usr/lib/modules")? {
        let name = String::from_utf8_lossy(&name).into_owned();
        if root.exists(format!("boot/vmlinuz-{name}").as_bytes())? {
            kernels.push(name);
        }
    }
    Ok(kernels)
}

/// Makes the initrd of every kernel. `time`: no file in an initrd is newer.
pub(crate) fn initrds(root: &Root, programs: &mut Programs<'_>, time: i64) -> Result<(), Error> {
    const SCRIPT: &str = "for kernel; do update-initramfs -c -k \"$kernel\" || exit; done\n";
    if !root.exists(b"usr/sbin/update-initramfs")? {
        return Ok(());
    }
    let mut argv = vec!["sh".to_owned(), "-c".into(), SCRIPT.into(), "sh".into()];
    argv.extend(kernels(root)?);
    let sandbox = programs.sandbox().env("SOURCE_DATE_EPOCH", time.to_string());
    programs.run_timed("initrd", &sandbox, &argv, Input::Null)?;
    root.forget();
    Ok(())
}

/// Lays `/boot/grub` out and writes `grub.cfg`. Gives the BIOS images where there are any.
pub(crate) fn grub(
    root: &Root,
    arch: Arch,
    root_uuid: [u8; 16],
    time: i64,
    programs: &mut Programs<'_>,
) -> Result<Option<BiosImages>, Error> {
    if !root.exists(b"usr/sbin/grub-mkconfig")? {
        return Err(Error::Boot(
            "there is no grub-mkconfig in the image; the boot packages are missing".into(),
        ));
    }
    let folder = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: time };
    let plain = Attributes { mode: 0o644, ..folder };
    root.make_folders(b"boot/grub/fonts", folder)?;
    root.make_folders(b"boot/grub/locale", folder)?;
    if let Some(font) = root.read(b"usr/share/grub/unicode.pf2")? {
        root.write(b"boot/grub/fonts/unicode.pf2", &font, plain)?;
    }
    for language in root.list(b"usr/share/locale")? {
        let from = [b"usr/share/locale/".as_slice(), &language, b"/LC_MESSAGES/grub.mo"].concat();
        if let Some(messages) = root.read(&from)? {
            root.write(&[b"boot/grub/locale/".as_slice(), &language, b".mo"].concat(), &messages, plain)?;
        }
    }
    root.write(b"boot/grub/grubenv", &environment_block(), plain)?;
    let load = load_config(root_uuid);
    let efi = efi_firmware(arch).target;
    for target in ["i386-pc", efi] {
        modules(root, target, folder, plain)?;
    }
    let sandbox = with_disk(programs, root_uuid);
    let mut bios = None;
    if let Some(boot_img) = root.read(b"usr/lib/grub/i386-pc/boot.img")? {
        root.write(b"boot/grub/i386-pc/boot.img", &boot_img, plain)?;
        let early = "/boot/grub/i386-pc/load.cfg";
        root.write(early.as_bytes(), load.as_bytes(), plain)?;
        let core = "/boot/grub/i386-pc/core.img";
        let mut argv = vec!["grub-mkimage", "-O", "i386-pc", "-o", core, "-p", "/boot/grub", "-c", early];
        argv.extend(["biosdisk", "part_gpt", "ext2", "search_fs_uuid"]);
        programs.run_timed("grub-mkimage", &sandbox, &argv, Input::Null)?;
        root.forget();
        let core_img = root.read(core.as_bytes())?.unwrap_or_default();
        if core_img.is_empty() {
            return Err(Error::Boot("grub-mkimage wrote no core.img".into()));
        }
        root.write(core.as_bytes(), &core_img, plain)?;
        bios = Some(BiosImages { boot_img, core_img });
    }
    if root.exists(format!("boot/grub/{efi}").as_bytes())? {
        root.write(format!("boot/grub/{efi}/load.cfg").as_bytes(), load.as_bytes(), plain)?;
    }
    programs.run_timed(
        "grub-mkconfig",
        &sandbox,
        &["grub-mkconfig", "-o", "/boot/grub/grub.cfg"],
        Input::Null,
    )?;
    root.forget();
    let config = root.read_text(b"boot/grub/grub.cfg")?;
    let root_option = format!("root=UUID={}", format_uuid(root_uuid));
    let boots =
        |line: &str| line.trim_start().starts_with("linux\t/boot/vmlinuz") && line.contains(&root_option);
    if !config.lines().any(boots) {
        return Err(Error::Boot(
            "grub-mkconfig found no kernel that boots from the root file system's UUID".into(),
        ));
    }
    Ok(bios)
}

/// A sandbox in which the root file system's disk seems to be there.
fn with_disk(programs: &Programs<'_>, root_uuid: [u8; 16]) -> Sandbox {
    let link = format!("/dev/disk/by-uuid/{}", format_uuid(root_uuid));
    programs
        .sandbox()
        .device_link(&link, "../../nvme0n1p1")
        .device_link(ROOT_DEVICE, "/dev/null")
        .hide_with("/usr/sbin/grub-probe", grub_probe(root_uuid).as_bytes(), 0o755)
        .hide_with("/usr/bin/grub-mkrelpath", RELATIVE_PATH.as_bytes(), 0o755)
}

/// Everything is on the root file system, so a path inside it is the path itself; the real program would ask the
/// baking machine's mounts.
const RELATIVE_PATH: &str = "#!/bin/sh\nfor path; do :; done\nexec readlink -f -- \"$path\"\n";

/// Copies GRUB's modules and lists, as grub-install does; nothing where the package is not installed.
fn modules(root: &Root, target: &str, folder: Attributes, plain: Attributes) -> Result<(), Error> {
    const LISTS: [&str; 11] = [
        "moddep.lst",
        "command.lst",
        "fs.lst",
        "partmap.lst",
        "parttool.lst",
        "video.lst",
        "crypto.lst",
        "terminal.lst",
        "modinfo.sh",
        "efiemu32.o",
        "efiemu64.o",
    ];
    for name in root.list(format!("usr/lib/grub/{target}").as_bytes())? {
        let text = String::from_utf8_lossy(&name);
        if text.ends_with(".mod") || LISTS.contains(&&*text) {
            root.make_folders(format!("boot/grub/{target}").as_bytes(), folder)?;
            let bytes = root.read(format!("usr/lib/grub/{target}/{text}").as_bytes())?.unwrap_or_default();
            root.write(format!("boot/grub/{target}/{text}").as_bytes(), &bytes, plain)?;
        }
    }
    Ok(())
}

/// What the first stage does: find the root file system by its UUID.
fn load_config(root_uuid: [u8; 16]) -> String {
    format!("search.fs_uuid {} root \nset prefix=($root)'/boot/grub'\n", format_uuid(root_uuid))
}

/// An empty grubenv, 1024 bytes as GRUB wants it.
fn environment_block() -> Vec<u8> {
    let mut block =
        b"# GRUB Environment Block\n# WARNING: Do not edit this file by tools other than grub-editenv!!!\n"
            .to_vec();
    block.resize(1024, b'#');
    block
}

/// The EFI system partition: the signed programs of the root's own packages, in the distribution's folder and in the
/// one where firmware without boot entries looks.
pub(crate) fn efi_partition(tree: &Tree, arch: Arch, root_uuid: [u8; 16], time: i64) -> Result<Tree, Error> {
    let Firmware { target, efi, efi_upper } = efi_firmware(arch);
    let file = |path: String| -> Result<(Content, Origin), Error> {
        match tree.get(&TreePath::new(path.as_bytes())?) {
            Some(Entry { node: Node::File(content), origin, .. }) => Ok((content.clone(), origin.clone())),
            _ => Err(Error::Boot(format!("there is no /{path} in the image; the boot packages are missing"))),
        }
    };
    let shim = file(format!("usr/lib/shim/shim{efi}.efi.signed"))?;
    let mok = file(format!("usr/lib/shim/mm{efi}.efi.signed"))?;
    let grub = file(format!("usr/lib/grub/{target}-signed/grub{efi}.efi.signed"))?;
    let entries = file(format!("usr/lib/shim/BOOT{efi_upper}.CSV"))?;
    let config = format!("{}configfile $prefix/grub.cfg\n", load_config(root_uuid));
    let config = (Content::from_bytes(config.into_bytes()), Origin::Recipe("kernel".into()));
    let meta = |mode| Meta { mode, mtime: Timestamp::from_seconds(time), ..Meta::default() };
    let mut esp = Tree::new(Entry { meta: meta(0o700), ..Entry::directory(0o700) });
    for folder in ["EFI", "EFI/BOOT", "EFI/debian"] {
        esp.insert(TreePath::new(folder.as_bytes())?, Entry { meta: meta(0o700), ..Entry::directory(0o700) });
    }
    let mut put = |path: String, (content, origin): (Content, Origin)| -> Result<(), Error> {
        let entry = Entry { meta: meta(0o700), node: Node::File(content), origin };
        esp.insert(TreePath::new(path.as_bytes())?, entry);
        Ok(())
    };
    put(format!("EFI/debian/shim{efi}.efi"), shim.clone())?;
    put(format!("EFI/debian/BOOT{efi_upper}.CSV"), entries)?;
    put(format!("EFI/BOOT/BOOT{efi_upper}.EFI"), shim)?;
    // fbx64.efi stays out: beside shim it makes boot entries and reboots.
    for folder in ["EFI/debian", "EFI/BOOT"] {
        put(format!("{folder}/grub{efi}.efi"), grub.clone())?;
        put(format!("{folder}/mm{efi}.efi"), mok.clone())?;
        put(format!("{folder}/grub.cfg"), config.clone())?;
    }
    Ok(esp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grub_probe_answers_by_target() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("grub-probe");
        std::fs::write(&script, grub_probe([0x42; 16])).unwrap();
        let ask = |arguments: &[&str]| {
            let output = std::process::Command::new("/bin/sh").arg(&script).args(arguments).output().unwrap();
            (output.status.success(), String::from_utf8(output.stdout).unwrap())
        };
        assert_eq!(ask(&["--target=device", "/"]), (true, "/dev/nvme0n1p1\n".into()));
        assert_eq!(ask(&["-t", "fs", "/boot"]), (true, "ext2\n".into()));
        let uuid = "42424242-4242-4242-4242-424242424242\n";
        assert_eq!(ask(&["--device", "/dev/x", "--target=fs_uuid"]), (true, uuid.into()));
        assert_eq!(ask(&["--device", "/dev/x", "--target=hints_string"]), (true, String::new()));
        assert!(!ask(&["--target=drive", "/"]).0);
    }

    #[test]
    fn the_environment_block_has_its_size() {
        assert_eq!(environment_block().len(), 1024);
    }
}
