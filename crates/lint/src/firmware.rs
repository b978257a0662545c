//! What firmware finds on the disk: boot mode, BIOS boot partition, the EFI system partition's fallback program.

use block::{Content, format_uuid};
use memchr::memmem;
use tree::{Node, Tree, TreePath};

use crate::image::{lines, start};
use crate::{Architecture, BootMode, Error, Facts, Findings, grub, rules};

/// Where the running machine mounts the EFI system partition; findings name its files there.
pub(crate) const ESP_MOUNT: &str = "boot/efi";
/// More than any boot loader has.
const LARGEST_PROGRAM: u64 = 16 * block::MIB;

struct Efi {
    /// The name that firmware looks for.
    fallback: &'static str,
    /// What shim loads beside itself.
    next: &'static str,
    /// The architecture in a PE header.
    machine: u16,
}

fn efi(architecture: Architecture) -> Efi {
    match architecture {
        Architecture::X86_64 => Efi { fallback: "BOOTX64.EFI", next: "grubx64.efi", machine: 0x8664 },
        Architecture::Aarch64 => Efi { fallback: "BOOTAA64.EFI", next: "grubaa64.efi", machine: 0xaa64 },
    }
}

/// Looks whether the disk boots in the ways it is registered for.
pub(crate) fn check(esp: &Tree, facts: &Facts<'_>, findings: &mut Findings) -> Result<(), Error> {
    if facts.architecture == Architecture::Aarch64 {
        if facts.boot_mode != BootMode::Uefi {
            let reason = "an aarch64 image is registered to boot by BIOS";
            findings.add(&rules::BOOT_MODE, None, reason, "register it with the boot mode uefi");
        }
    } else if facts.boot_mode.has_bios() && !facts.has_bios_boot {
        let reason = "the disk has no BIOS boot partition, and the boot mode lets instances boot it by BIOS";
        let advice = "give it one with GRUB's core image, or register the boot mode uefi";
        findings.add(&rules::BIOS_BOOT, None, reason, advice);
    }
    if facts.boot_mode.has_uefi() || facts.architecture == Architecture::Aarch64 {
        fallback(esp, &efi(facts.architecture), findings)?;
        configs(esp, facts, findings)?;
    }
    Ok(())
}

/// The program at the place where firmware without boot entries looks, and the one that it loads.
fn fallback(esp: &Tree, efi: &Efi, findings: &mut Findings) -> Result<(), Error> {
    let advice = "copy the signed shim and GRUB of the image's packages there";
    let name = format!("EFI/BOOT/{}", efi.fallback);
    let Some((path, content)) = file(esp, &name) else {
        let reason = format!("there is no {} on the EFI system partition", name.replace('/', "\\"));
        findings.add(&rules::EFI_FALLBACK, None, reason, advice);
        return Ok(());
    };
    let program = start(content, LARGEST_PROGRAM, &path)?;
    let mut wrong = |path: &TreePath, program: &[u8]| match machine(program) {
        Some(machine) if machine == efi.machine => {}
        Some(machine) => {
            let reason = format!("is made for the machine type {machine:#06x}, not {:#06x}", efi.machine);
            findings.add(&rules::EFI_FALLBACK, Some(path), reason, advice);
        }
        None => findings.add(&rules::EFI_FALLBACK, Some(path), "is not an EFI program", advice),
    };
    wrong(&path, &program);
    // Shim holds the name of what it loads, in the two-byte letters of UEFI.
    let name: Vec<u8> = efi.next.encode_utf16().flat_map(u16::to_le_bytes).collect();
    if memmem::find(&program, &name).is_some() {
        match file(esp, &format!("EFI/BOOT/{}", efi.next)) {
            Some((path, content)) => wrong(&path, &start(content, LARGEST_PROGRAM, &path)?),
            None => {
                let reason = format!("loads {}, which is not beside it", efi.next);
                findings.add(&rules::EFI_FALLBACK, Some(&path), reason, advice);
            }
        }
    }
    Ok(())
}

/// The searches in GRUB's configurations on the EFI system partition.
fn configs(esp: &Tree, facts: &Facts<'_>, findings: &mut Findings) -> Result<(), Error> {
    let root = format_uuid(facts.root_uuid);
    for (path, entry) in esp.iter().filter(|(path, _)| path.name().eq_ignore_ascii_case(b"grub.cfg")) {
        let Node::File(content) = &entry.node else { continue };
        let path = mounted(path);
        let text = start(content, block::MIB, &path)?;
        for (number, line) in lines(&String::from_utf8_lossy(&text)) {
            let words = grub::words(line);
            let Some(uuid) = grub::searched(&words).filter(|uuid| !uuid.eq_ignore_ascii_case(&root)) else {
                continue;
            };
            let reason = format!("line {number} looks for {uuid}, and the root file system is {root}");
            findings.add(&rules::EFI_ROOT, Some(&path), reason, format!("write search.fs_uuid {root} root"));
        }
    }
    Ok(())
}

/// A file of the EFI system partition: FAT's names have no case.
fn file<'a>(esp: &'a Tree, path: &str) -> Option<(TreePath, &'a Content)> {
    esp.iter().find_map(|(other, entry)| match &entry.node {
        Node::File(content) if other.as_bytes().eq_ignore_ascii_case(path.as_bytes()) => {
            Some((mounted(other), content))
        }
        _ => None,
    })
}

/// A path of the EFI system partition as the running machine has it.
pub(crate) fn mounted(path: &TreePath) -> TreePath {
    let below = TreePath::new(ESP_MOUNT.as_bytes()).and_then(|mount| mount.join(path.as_bytes()));
    below.unwrap_or_else(|_| path.clone())
}

/// The machine type in a PE header; `None`: there is no such header.
fn machine(program: &[u8]) -> Option<u16> {
    if !program.starts_with(b"MZ") {
        return None;
    }
    let at = u32::from_le_bytes(program.get(0x3c..0x40)?.try_into().ok()?) as usize;
    let header = program.get(at..at.checked_add(6)?)?;
    header.starts_with(b"PE\0\0").then(|| u16::from_le_bytes([header[4], header[5]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_image::{Sample, program};

    #[test]
    fn the_boot_mode_is_true_to_the_disk() {
        let sample = Sample::new();
        let facts = Facts { has_bios_boot: false, ..sample.facts() };
        assert_eq!(sample.rules_with(&facts), ["bios-boot"]);
        assert_eq!(sample.rules_with(&Facts { boot_mode: BootMode::Uefi, ..facts }), [""; 0]);
        let mut sample = Sample::new();
        sample.esp_remove("EFI/BOOT/BOOTX64.EFI");
        assert_eq!(sample.rules(), ["efi-fallback"]);
        let facts = Facts { boot_mode: BootMode::LegacyBios, ..sample.facts() };
        assert_eq!(sample.rules_with(&facts), [""; 0]);
    }

    #[test]
    fn arm_boots_by_uefi_alone() {
        let mut sample = Sample::new();
        let facts = Facts { architecture: Architecture::Aarch64, ..sample.facts() };
        assert_eq!(sample.rules_with(&facts), ["boot-mode", "efi-fallback"]);
        let facts = Facts { boot_mode: BootMode::Uefi, has_bios_boot: false, ..facts };
        assert_eq!(sample.rules_with(&facts), ["efi-fallback"]);
        sample.esp_bytes("EFI/BOOT/BOOTAA64.EFI", &program(0xaa64, "grubaa64.efi"));
        assert_eq!(sample.rules_with(&facts), ["efi-fallback"], "shim finds no GRUB");
        sample.esp_bytes("EFI/BOOT/grubaa64.efi", &program(0xaa64, ""));
        assert_eq!(sample.rules_with(&facts), [""; 0]);
    }

    #[test]
    fn the_program_is_for_the_architecture() {
        let with = |bytes: &[u8]| {
            let mut sample = Sample::new();
            sample.esp_bytes("EFI/BOOT/BOOTX64.EFI", bytes);
            let finding = sample.lint(&sample.facts()).into_iter().next();
            finding
                .map(|finding| format!("/{} {}", finding.file.unwrap(), finding.reason))
                .unwrap_or_default()
        };
        assert_eq!(with(&program(0x8664, "")), "");
        let place = "/boot/efi/EFI/BOOT/BOOTX64.EFI";
        assert_eq!(
            with(&program(0xaa64, "")),
            format!("{place} is made for the machine type 0xaa64, not 0x8664")
        );
        assert_eq!(with(b"MZ"), format!("{place} is not an EFI program"));
        assert_eq!(with(b""), format!("{place} is not an EFI program"));
        let mut far = program(0x8664, "");
        far[0x3c..0x40].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(with(&far), format!("{place} is not an EFI program"));
    }

    #[test]
    fn names_on_fat_have_no_case() {
        let mut sample = Sample::new();
        let bytes = program(0x8664, "grubx64.efi");
        sample.esp_remove("EFI/BOOT/BOOTX64.EFI");
        sample.esp_bytes("efi/boot/bootx64.efi", &bytes);
        assert_eq!(sample.rules(), [""; 0]);
    }

    #[test]
    fn grub_on_the_partition_looks_for_the_root() {
        let mut sample = Sample::new();
        sample
            .esp_bytes("EFI/debian/grub.cfg", b"search.fs_uuid 12121212-abab-abab-abab-abababababab root \n");
        assert_eq!(sample.rules(), ["efi-root"]);
    }
}
