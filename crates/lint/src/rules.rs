//! Every rule, as data: what people can look up, and what a finding refers to.

use crate::Severity::{self, Error, Warning};

/// Something that an image for EC2 must or should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, in findings and to look it up: `driver-nvme`.
    pub name: &'static str,
    /// What breaking it weighs.
    pub severity: Severity,
    /// What holds in an image that keeps it.
    pub what: &'static str,
    /// What happens where it does not.
    pub why: &'static str,
    /// Who says so.
    pub source: &'static str,
}

/// The rules, and the list of them, from one table.
macro_rules! rules {
    ($($id:ident: $severity:ident $name:literal {
        what: $what:literal, why: $why:literal, source: $source:literal
    })*) => {
        $(pub(crate) const $id: Rule =
            Rule { name: $name, severity: $severity, what: $what, why: $why, source: $source };)*
        /// Every rule, in the order in which findings are listed.
        pub const RULES: &[Rule] = &[$($id),*];
    };
}

rules! {
    BOOT_MODE: Error "boot-mode" {
        what: "aarch64 is registered as uefi",
        why: "EC2's ARM instances have no BIOS and refuse any other boot mode",
        source: "EC2 user guide, boot modes"
    }
    BIOS_BOOT: Error "bios-boot" {
        what: "a disk that is registered legacy-bios or uefi-preferred has a BIOS boot partition with a boot loader",
        why: "instance types without UEFI, all Xen ones among them, find nothing to boot",
        source: "EC2 user guide, boot modes"
    }
    EFI_FALLBACK: Error "efi-fallback" {
        what: "a disk that is registered uefi or uefi-preferred has \\EFI\\BOOT\\BOOTX64.EFI or BOOTAA64.EFI, made for the architecture, and what it loads beside it",
        why: "a new instance has no boot entries, so its firmware looks there only",
        source: "UEFI specification, removable media boot behaviour"
    }
    EFI_ROOT: Error "efi-root" {
        what: "GRUB's configuration on the EFI system partition looks for the root file system by its UUID",
        why: "GRUB stops at its own prompt",
        source: "GRUB manual, search"
    }
    KERNEL: Error "kernel" {
        what: "there is a kernel in /boot, and GRUB's menu boots kernels and initrds that are there",
        why: "GRUB has nothing to boot",
        source: "GRUB manual, linux and initrd"
    }
    NEWEST_KERNEL: Warning "newest-kernel" {
        what: "the menu's default entry boots the newest kernel",
        why: "a machine with a newer kernel installed runs the old one, without its security fixes",
        source: "Debian, update-grub"
    }
    ROOT_BY_UUID: Error "root-by-uuid" {
        what: "GRUB and the kernel find the root file system by its UUID",
        why: "the root is /dev/xvda1 on Xen instances and /dev/nvme0n1p1 on Nitro ones",
        source: "EC2 user guide, NVMe block devices"
    }
    INITRD: Error "initrd" {
        what: "each kernel has an initrd that can be read and holds /init",
        why: "a kernel cannot find a root file system by its UUID alone",
        source: "Linux, initramfs buffer format"
    }
    INITRD_UNKNOWN: Warning "initrd-unknown" {
        what: "the initrd is a newc cpio archive, plain or compressed by zstd, gzip or xz",
        why: "this program cannot tell whether the drivers to boot with are there",
        source: "Linux, initramfs buffer format"
    }
    DRIVER_NVME: Error "driver-nvme" {
        what: "each kernel has nvme built in or in its initrd",
        why: "on Nitro instances the root disk does not appear",
        source: "EC2 user guide, NVMe drivers"
    }
    DRIVER_XEN_DISK: Error "driver-xen-disk" {
        what: "each x86_64 kernel that can be booted by BIOS has xen-blkfront built in or in its initrd",
        why: "on Xen instances (t2, m4 and older) the root disk does not appear",
        source: "EC2 user guide, Xen instance types"
    }
    DRIVER_ROOT: Error "driver-root" {
        what: "each kernel has the root file system's driver built in or in its initrd",
        why: "the root file system cannot be mounted",
        source: "fstab(5), initramfs-tools(7)"
    }
    DRIVER_ENA: Error "driver-ena" {
        what: "each kernel has ena built in, in its initrd or among its modules",
        why: "Nitro instances have no network",
        source: "EC2 user guide, enhanced networking"
    }
    DRIVER_XEN_NET: Error "driver-xen-net" {
        what: "each x86_64 kernel that can be booted by BIOS has xen-netfront built in, in its initrd or among its modules",
        why: "Xen instances (t2, m4 and older) have no network",
        source: "EC2 user guide, Xen instance types"
    }
    ENA_OFF: Warning "ena-off" {
        what: "the image is registered with support for Elastic Network Adapters",
        why: "instance types with ENA, all of today's among them, refuse to start it",
        source: "EC2 user guide, enhanced networking"
    }
    FSTAB_DEVICE: Error "fstab-device" {
        what: "no entry of /etc/fstab names a disk as /dev/xvd*, /dev/sd*, /dev/nvme* or the like",
        why: "the same disk has another name on another instance type; the boot waits for it and gives up",
        source: "EC2 user guide, NVMe block devices"
    }
    FSTAB_ROOT: Error "fstab-root" {
        what: "/etc/fstab mounts the root file system, and by its own UUID when by UUID",
        why: "the root stays read-only, or the boot waits for a file system that is nowhere",
        source: "fstab(5), systemd-remount-fs.service(8)"
    }
    FSTAB_DATA: Error "fstab-data" {
        what: "/etc/fstab mounts each data volume at its place, and no UUID that none of the image's volumes has",
        why: "data is missing, or the boot waits for a file system that is nowhere and ends in emergency mode",
        source: "fstab(5), systemd.mount(5)"
    }
    FSTAB_DUPLICATE: Error "fstab-duplicate" {
        what: "no mount point is in /etc/fstab twice",
        why: "the later mount hides the earlier one, or is dropped",
        source: "systemd-fstab-generator(8)"
    }
    FSTAB_NOFAIL: Warning "fstab-nofail" {
        what: "data volumes are mounted with nofail",
        why: "an instance that is started without the volume ends in emergency mode, with no way to log in",
        source: "EC2 user guide, attach a volume after reboot"
    }
    CONSOLE: Warning "console" {
        what: "the default entry's kernel writes to ttyS0, and systemd starts a login there",
        why: "get-console-output and the EC2 serial console stay empty",
        source: "EC2 user guide, EC2 Serial Console"
    }
    NVME_TIMEOUT: Warning "nvme-timeout" {
        what: "the kernel command line has nvme_core.io_timeout=4294967295",
        why: "a delay of EBS longer than 30 seconds becomes an I/O error, and the root turns read-only",
        source: "EC2 user guide, NVMe I/O operation timeout"
    }
    COMMAND_LINE_KEPT: Warning "command-line-kept" {
        what: "console and NVMe time-out are also in /etc/default/grub or its folder",
        why: "the next kernel update writes grub.cfg without them",
        source: "Debian, update-grub"
    }
    CLOUD_INIT: Warning "cloud-init" {
        what: "cloud-init is in the image",
        why: "nobody takes launch key, host name and user data from the metadata service",
        source: "AWS guidelines for shared Linux AMIs"
    }
    CLOUD_INIT_OFF: Error "cloud-init-off" {
        what: "cloud-init is not switched off",
        why: "the launch key reaches nobody: the instance cannot be logged in to",
        source: "cloud-init, how to disable cloud-init"
    }
    CLOUD_INIT_SOURCE: Error "cloud-init-source" {
        what: "a datasource_list, where there is one, holds Ec2",
        why: "cloud-init does not ask EC2's metadata service: no launch key, no user data",
        source: "cloud-init, Amazon EC2 datasource"
    }
    DEFAULT_USER: Error "default-user" {
        what: "the default user is in /etc/passwd, or cloud-init is told to make it",
        why: "the launch key goes to nobody, or to somebody else",
        source: "cloud-init, users and groups"
    }
    GROWPART: Warning "growpart" {
        what: "growpart is there when cloud-init is",
        why: "the root stays at the image's size on a larger volume",
        source: "cloud-init, growpart"
    }
    NETWORK_DHCP: Warning "network-dhcp" {
        what: "something asks for an address by DHCP: networkd, ifupdown, netplan, NetworkManager, or what cloud-init writes",
        why: "the instance has no network",
        source: "EC2 user guide, IP addressing"
    }
    NETWORK_NAME: Warning "network-name" {
        what: "no network configuration is tied to one interface's name or address",
        why: "the same card is eth0, ens5 or enX0 by instance type, and its address is new in each instance",
        source: "EC2 user guide, elastic network interfaces"
    }
    SSH_ROOT: Error "ssh-root" {
        what: "sshd does not let root in by password",
        why: "every instance of a shared image would have the same root password",
        source: "AWS guidelines for shared Linux AMIs"
    }
    SSH_PASSWORD: Warning "ssh-password" {
        what: "sshd takes no passwords",
        why: "instances with public addresses are tried within minutes",
        source: "AWS guidelines for shared Linux AMIs"
    }
    ROOT_PASSWORD: Error "root-password" {
        what: "root's password is locked",
        why: "one known password opens every instance",
        source: "AWS guidelines for shared Linux AMIs (passwd -l root)"
    }
    EMPTY_PASSWORD: Error "empty-password" {
        what: "no account has an empty password",
        why: "anybody can log in as that user",
        source: "shadow(5)"
    }
    PASSWORD_HASH: Error "password-hash" {
        what: "no account or group has a password hash, locked or not",
        why: "whoever has the image can guess at it, and a password found opens every instance",
        source: "AWS guidelines for shared Linux AMIs"
    }
    SSH_HOST_KEY: Error "ssh-host-key" {
        what: "there are no ssh host keys",
        why: "every instance would have the same identity, and whoever has the image can pose as any of them",
        source: "AWS guidelines for shared Linux AMIs"
    }
    PRIVATE_KEY: Error "private-key" {
        what: "no private key is in a file that packages did not bring, or in /etc or /root at all",
        why: "every instance has the same key, and so has whoever has the image",
        source: "AWS guidelines for shared Linux AMIs"
    }
    CREDENTIALS: Error "credentials" {
        what: "there are no credentials of clouds, registries or repositories",
        why: "whoever starts the image can use them",
        source: "AWS guidelines for shared Linux AMIs"
    }
    HISTORY: Error "history" {
        what: "there are no histories of shells and database clients",
        why: "people type secrets at prompts",
        source: "AWS guidelines for shared Linux AMIs"
    }
    MACHINE_ID: Error "machine-id" {
        what: "/etc/machine-id is empty, uninitialized or absent, and D-Bus has none of its own",
        why: "all instances would have one identity: in logs, and in the DHCP requests of networkd",
        source: "machine-id(5)"
    }
    RANDOM_SEED: Error "random-seed" {
        what: "there is no saved random seed and no key to the machine's credentials",
        why: "all instances would start from the same seed, or decrypt each other's credentials",
        source: "systemd, building images safely"
    }
    CLOUD_INIT_STATE: Error "cloud-init-state" {
        what: "cloud-init has no data of an earlier instance",
        why: "it holds that instance's user data, and modules that run once do not run again",
        source: "cloud-init, clean"
    }
    AUTHORIZED_KEYS: Warning "authorized-keys" {
        what: "nobody's public key is in the image",
        why: "the key's owner can log in to every instance; shared images must have none",
        source: "AWS guidelines for shared Linux AMIs"
    }
    LEASE: Warning "lease" {
        what: "there are no DHCP leases",
        why: "instances ask for the address of the machine that made the image",
        source: "AWS guidelines for shared Linux AMIs"
    }
    LOG: Warning "log" {
        what: "logs and journals are empty",
        why: "they tell about the machine that made the image, and differ from bake to bake",
        source: "systemd, building images safely"
    }
    RESOLVER: Warning "resolver" {
        what: "/etc/resolv.conf does not hold the name servers of the machine that made the image",
        why: "they cannot be reached from an instance, and tell about the network they were in",
        source: "resolv.conf(5)"
    }
    TRACE: Warning "trace" {
        what: "there are no traces of somebody's work: editor state, viewed files, visited hosts",
        why: "they tell about the person who made the image",
        source: "AWS guidelines for shared Linux AMIs"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own_and_says_everything() {
        for (index, rule) in RULES.iter().enumerate() {
            assert!(
                RULES[..index].iter().all(|other| other.name != rule.name),
                "{} is there twice",
                rule.name
            );
            for text in [rule.name, rule.what, rule.why, rule.source] {
                assert!(!text.is_empty() && !text.ends_with('.'), "{}: {text:?}", rule.name);
            }
            assert!(rule.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        }
    }
}
