//! Kernels with their initrds: can each find the root disk and the network of an EC2 instance.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use tree::TreePath;

use crate::fstab::Mounts;
use crate::grub::Menu;
use crate::image::{Image, lines};
use crate::initrd::{ContentReader, Found, InitrdError, find, module_name};
use crate::{Architecture, Error, Facts, Findings, Rule, rules};

/// A driver that every kernel of an image must have.
struct Driver {
    /// The module, with `_` for every `-`.
    module: String,
    rule: &'static Rule,
    /// Whether it is needed before the root file system is there.
    early: bool,
}

fn drivers(mounts: &Mounts, facts: &Facts<'_>) -> Vec<Driver> {
    let driver = |module: &str, rule, early| Driver { module: module.replace('-', "_"), rule, early };
    let mut drivers = vec![driver("nvme", &rules::DRIVER_NVME, true)];
    // Xen instances boot by BIOS alone, and none has an ARM processor.
    if facts.architecture == Architecture::X86_64 && facts.boot_mode.has_bios() {
        drivers.push(driver("xen_blkfront", &rules::DRIVER_XEN_DISK, true));
        drivers.push(driver("xen_netfront", &rules::DRIVER_XEN_NET, false));
    }
    if facts.ena {
        drivers.push(driver("ena", &rules::DRIVER_ENA, false));
    }
    if let Some(kind) =
        mounts.root_type.as_deref().filter(|kind| matches!(*kind, "ext4" | "xfs" | "btrfs" | "f2fs"))
    {
        drivers.push(driver(kind, &rules::DRIVER_ROOT, true));
    }
    drivers
}

/// Looks at every kernel of `/boot`.
pub(crate) fn check(
    image: &Image<'_>,
    menu: &Menu,
    mounts: &Mounts,
    facts: &Facts<'_>,
    findings: &mut Findings,
) -> Result<(), Error> {
    if !facts.ena {
        let advice = "register it with ENA support, and have the driver in the image";
        findings.add(&rules::ENA_OFF, None, "the image is registered without ENA", advice);
    }
    let names = image.list("/boot");
    let mut kernels: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("vmlinuz-")).collect();
    kernels.sort_by(|a, b| compare_versions(a, b));
    let Some(newest) = kernels.last() else {
        findings.add(&rules::KERNEL, None, "there is no /boot/vmlinuz-*", "install a kernel");
        return Ok(());
    };
    let default = menu.default.and_then(|index| menu.boots.get(index));
    if let Some(booted) = default.and_then(|boot| boot.kernel.rsplit_once("vmlinuz-"))
        && compare_versions(booted.1, newest).is_lt()
    {
        let reason = format!("the default entry boots {}, and {newest} is there", booted.1);
        findings.add(
            &rules::NEWEST_KERNEL,
            menu.path.as_ref(),
            reason,
            "run update-grub, or take the newer one away",
        );
    }
    let drivers = drivers(mounts, facts);
    kernels.into_iter().try_for_each(|kernel| check_kernel(image, kernel, &drivers, findings))
}

fn check_kernel(
    image: &Image<'_>,
    kernel: &str,
    drivers: &[Driver],
    findings: &mut Findings,
) -> Result<(), Error> {
    let folder = format!("/lib/modules/{kernel}");
    let builtin = builtin(image, &folder)?;
    let on_root: BTreeSet<String> =
        image.below(&folder).iter().filter_map(|path| module_name(path.as_bytes())).collect();
    let missing = |driver: &&Driver| !builtin.contains(&driver.module);
    let early: BTreeSet<&str> = drivers
        .iter()
        .filter(missing)
        .filter(|driver| driver.early)
        .map(|driver| driver.module.as_str())
        .collect();
    let initrd = format!("/boot/initrd.img-{kernel}");
    let vmlinuz = TreePath::new(format!("boot/vmlinuz-{kernel}").as_bytes()).ok();
    let mut found = Found::default();
    let mut readable = true;
    let again = "run `update-initramfs -u` in a step";
    match image.file(&initrd) {
        None => {
            readable = false;
            let reason = format!("its initrd {initrd} is not there");
            findings.add(&rules::INITRD, vmlinuz.as_ref(), reason, again);
        }
        Some(file) => match find(ContentReader::new(file.content), kernel, &early, &mut found) {
            Ok(()) if found.init => {}
            Ok(()) => findings.add(&rules::INITRD, Some(&file.path), "holds no /init", again),
            Err(InitrdError::Unknown(reason)) => {
                readable = false;
                let advice = "set COMPRESS=zstd in /etc/initramfs-tools/initramfs.conf";
                findings.add(&rules::INITRD_UNKNOWN, Some(&file.path), reason, advice);
            }
            Err(InitrdError::Damaged(reason)) => {
                readable = false;
                findings.add(&rules::INITRD, Some(&file.path), reason, again);
            }
        },
    }
    for driver in drivers.iter().filter(missing) {
        let module = &driver.module;
        let there = found.modules.contains(module) || !driver.early && on_root.contains(module);
        // Without a readable initrd only a module that is nowhere is known to be missing from it.
        let unknown = driver.early && !readable && on_root.contains(module);
        if there || unknown {
            continue;
        }
        let place = if driver.early { "in its initrd" } else { "among its modules" };
        let reason = format!("{module} is neither built into kernel {kernel} nor {place}");
        let advice = match on_root.contains(module) {
            true => format!("add a line `{module}` to /etc/initramfs-tools/modules"),
            false => "take a kernel with that driver: linux-image-cloud-* or linux-image-*".to_owned(),
        };
        findings.add(driver.rule, vmlinuz.as_ref(), reason, advice);
    }
    Ok(())
}

/// The modules that a kernel has built in.
fn builtin(image: &Image<'_>, folder: &str) -> Result<BTreeSet<String>, Error> {
    let text = image.text(&format!("{folder}/modules.builtin"))?.map(|(_, text)| text).unwrap_or_default();
    Ok(lines(&text).filter_map(|(_, line)| module_name(line.as_bytes())).collect())
}

/// Orders versions as Debian does: runs of digits by value, letters before all else, `~` before the end.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    let weight = |byte: Option<&u8>| match byte {
        None => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    while !a.is_empty() || !b.is_empty() {
        while a.first().is_some_and(|byte| !byte.is_ascii_digit())
            || b.first().is_some_and(|byte| !byte.is_ascii_digit())
        {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order.is_ne() {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (left, right) = (a.split_at(digits(a)), b.split_at(digits(b)));
        let value =
            |digits: &[u8]| digits.iter().skip_while(|byte| **byte == b'0').copied().collect::<Vec<u8>>();
        let (x, y) = (value(left.0), value(right.0));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(&y));
        if order.is_ne() {
            return order;
        }
        (a, b) = (left.1, right.1);
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BootMode;
    use crate::test_image::{KERNEL, Sample, cpio};

    #[test]
    fn versions_are_in_debians_order() {
        let order =
            ["6.1.0-9-amd64", "6.1.0-10-amd64", "6.12~rc1", "6.12", "6.12.9", "6.12.10+deb13-cloud", "6.13"];
        for pair in order.windows(2) {
            assert!(compare_versions(pair[0], pair[1]).is_lt(), "{pair:?}");
            assert!(compare_versions(pair[1], pair[0]).is_gt(), "{pair:?}");
        }
        assert!(compare_versions("6.01", "6.1").is_eq());
    }

    fn without_builtin(module: &str) -> Sample {
        let mut sample = Sample::new();
        sample.replace(&format!("usr/lib/modules/{KERNEL}/modules.builtin"), module, "kernel/other.ko");
        sample
    }

    #[test]
    fn nvme_is_built_in_or_in_the_initrd() {
        let mut sample = without_builtin("kernel/drivers/nvme/host/nvme.ko");
        assert_eq!(sample.rules(), ["driver-nvme"]);
        sample.text(&format!("usr/lib/modules/{KERNEL}/kernel/drivers/nvme/host/nvme.ko.xz"), "x");
        assert_eq!(sample.rules(), ["driver-nvme"], "it is needed before the root is there");
        let advice = &sample.lint(&sample.facts())[0].advice;
        assert_eq!(advice, "add a line `nvme` to /etc/initramfs-tools/modules");
        sample.initrd(&["kernel/drivers/nvme/host/nvme.ko.xz", "kernel/drivers/block/xen-blkfront.ko.xz"]);
        assert_eq!(sample.rules(), [""; 0]);
    }

    #[test]
    fn the_root_file_systems_driver_is_built_in_or_in_the_initrd() {
        assert_eq!(without_builtin("kernel/fs/ext4/ext4.ko").rules(), ["driver-root"]);
    }

    #[test]
    fn xen_drivers_matter_where_xen_instances_can_boot() {
        let mut sample = Sample::new();
        sample.initrd(&[]);
        sample.remove(&format!("usr/lib/modules/{KERNEL}/kernel/drivers/net/xen-netfront.ko.xz"));
        assert_eq!(sample.rules(), ["driver-xen-disk", "driver-xen-net"]);
        let facts = Facts { boot_mode: BootMode::Uefi, ..sample.facts() };
        assert_eq!(sample.rules_with(&facts), [""; 0]);
    }

    #[test]
    fn ena_may_come_after_the_root() {
        let mut sample = Sample::new();
        sample.remove(&format!("usr/lib/modules/{KERNEL}/kernel/drivers/net/ethernet/amazon/ena/ena.ko.xz"));
        assert_eq!(sample.rules(), ["driver-ena"]);
        let facts = Facts { ena: false, ..sample.facts() };
        assert_eq!(sample.rules_with(&facts), ["ena-off"]);
    }

    #[test]
    fn every_kernel_has_an_initrd_that_can_be_read() {
        let initrd = format!("boot/initrd.img-{KERNEL}");
        let mut sample = Sample::new();
        sample.bytes(&initrd, b"\x02\x21\x4c\x18 and more");
        let findings = sample.lint(&sample.facts());
        assert_eq!(findings[0].rule, "initrd-unknown");
        assert_eq!(findings[0].reason, "is compressed by lz4");
        assert_eq!(findings.len(), 1, "what is not known is not called missing: {findings:?}");
        sample.bytes(&initrd, &cpio(&[("etc", b"")]));
        assert_eq!(sample.rules(), ["initrd", "driver-xen-disk"]);
        sample.bytes(&initrd, b"070701xx");
        assert_eq!(sample.rules(), ["initrd"]);
        sample.remove(&initrd);
        assert_eq!(sample.rules(), ["kernel", "initrd"]);
    }

    #[test]
    fn the_newest_kernel_is_booted_and_every_one_is_looked_at() {
        let mut sample = Sample::new();
        sample.text("boot/vmlinuz-6.12.10-cloud-amd64", "kernel");
        assert_eq!(
            sample.rules(),
            [
                "initrd",
                "driver-nvme",
                "driver-xen-disk",
                "driver-root",
                "driver-ena",
                "driver-xen-net",
                "newest-kernel"
            ]
        );
        let mut sample = Sample::new();
        sample.text("boot/vmlinuz-6.1.0-cloud-amd64", "kernel");
        assert!(!sample.rules().contains(&"newest-kernel"));
    }
}
