//! What makes a root file system a machine's: fstab, names, locale, apt's sources, boot loader settings.

use std::fmt::Write as _;

use block::format_uuid;
use recipe::{Arch, Recipe};

use crate::additions::Additions;
use crate::build::Boot;
use crate::error::Error;
use crate::install::Installed;
use crate::root::{Attributes, Root};

/// The mirrors that an image names when its recipe names none.
const MIRROR: &str = "http://ftp.debian.org/debian";
const SECURITY_MIRROR: &str = "http://security.debian.org/debian-security";

/// Writes everything that says which machine this is, where its disks are and where its packages come from.
pub(crate) fn configure(recipe: &Recipe, boot: &Boot, additions: &mut Additions<'_>) -> Result<(), Error> {
    additions.text("/etc/fstab", &fstab(boot), 0o644, "volumes")?;
    for path in std::iter::once("/boot/efi").chain(boot.mounts.iter().map(|mount| mount.path.as_str())) {
        let owner = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: additions.time };
        additions.folder(path.as_bytes(), owner, "volumes")?;
    }
    additions.text("/etc/hostname", "localhost\n", 0o644, "machine")?;
    additions.text("/etc/hosts", HOSTS, 0o644, "machine")?;
    // The package of locales may have left a file that sets nothing; cloud-init would take that for another language.
    let mut locale = additions.root.read_text(b"etc/locale.conf")?;
    locale.push_str(&additions.root.read_text(b"etc/default/locale")?);
    if !locale.lines().any(|line| line.starts_with("LANG=")) {
        // Newer releases keep it there, and the other name is a link.
        let newer = additions.root.exists(b"etc/locale.conf")?;
        let path = if newer { "/etc/locale.conf" } else { "/etc/default/locale" };
        additions.text(path, "LANG=C.UTF-8\n", 0o644, "machine")?;
    }
    if additions.root.lstat(b"etc/localtime")?.is_none()
        && additions.root.exists(b"usr/share/zoneinfo/Etc/UTC")?
    {
        additions.link("/usr/share/zoneinfo/Etc/UTC", "/etc/localtime", "machine")?;
    }
    if additions.root.exists(b"usr/lib/systemd/system/multi-user.target")? {
        additions.link(
            "/usr/lib/systemd/system/multi-user.target",
            "/etc/systemd/system/default.target",
            "machine",
        )?;
    }
    // At the first boot of a machine it asks questions on the console, and waits for answers for ever.
    if additions.root.exists(b"usr/lib/systemd/system/systemd-firstboot.service")? {
        additions.link("/dev/null", "/etc/systemd/system/systemd-firstboot.service", "machine")?;
    }
    // cloud-init makes ssh's host keys at an instance's first boot; without it somebody else must.
    if additions.root.exists(b"usr/sbin/sshd")? && !additions.root.exists(b"usr/bin/cloud-init")? {
        additions.text("/etc/systemd/system/ssh-host-keys.service", HOST_KEYS_UNIT, 0o644, "machine")?;
        let wants = "/etc/systemd/system/ssh.service.wants/ssh-host-keys.service";
        additions.link("/etc/systemd/system/ssh-host-keys.service", wants, "machine")?;
    }
    if additions.root.exists(b"usr/sbin/make-ssl-cert")? {
        additions.text(
            "/etc/systemd/system/snakeoil-certificate.service",
            SNAKEOIL_UNIT,
            0o644,
            "machine",
        )?;
        let wants = "/etc/systemd/system/sysinit.target.wants/snakeoil-certificate.service";
        additions.link("/etc/systemd/system/snakeoil-certificate.service", wants, "machine")?;
    }
    if additions.root.exists(b"etc/apt")? {
        additions.text("/etc/apt/sources.list.d/debian.sources", &sources(recipe), 0o644, "distribution")?;
        if let Some(keys) = &recipe.distribution.signed_by {
            additions.text(MIRROR_KEYS, keys, 0o644, "distribution")?;
        }
    }
    if additions.root.exists(b"etc/grub.d")? {
        additions.text(
            "/etc/default/grub.d/50_bakehouse.cfg",
            &grub_defaults(recipe.arch),
            0o644,
            "kernel",
        )?;
        // grub-cloud's scripts touch the disk only where this file says that the machine is the cloud's.
        additions.text("/etc/grub.d/enable_cloud", "", 0o644, "kernel")?;
    }
    Ok(())
}

const HOST_KEYS_UNIT: &str = "[Unit]\n\
    Description=Make the SSH host keys of this machine\n\
    ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n\
    Before=ssh.service\n\
    \n\
    [Service]\n\
    Type=oneshot\n\
    RemainAfterExit=yes\n\
    ExecStart=/usr/bin/ssh-keygen -A\n";

/// The certificate of package ssl-cert, with its key: one for each machine, before any service wants it.
const SNAKEOIL_UNIT: &str = "[Unit]\n\
    Description=Make the self-signed certificate of this machine\n\
    ConditionPathExists=!/etc/ssl/private/ssl-cert-snakeoil.key\n\
    DefaultDependencies=no\n\
    RequiresMountsFor=/etc /usr /tmp\n\
    After=local-fs.target systemd-tmpfiles-setup.service\n\
    Before=sysinit.target\n\
    \n\
    [Service]\n\
    Type=oneshot\n\
    RemainAfterExit=yes\n\
    ExecStart=/usr/sbin/make-ssl-cert generate-default-snakeoil --force-overwrite\n";

const HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\t\tlocalhost ip6-localhost ip6-loopback\n\
    ff02::1\t\tip6-allnodes\n\
    ff02::2\t\tip6-allrouters\n";

/// Every file system by its UUID: device names differ from one type of instance to the next. A machine boots without
/// its extra volumes, and on a slow host without waiting for the EFI system partition, which only upgrades need: a
/// boot never ends at an emergency shell that nobody can reach. Services start when the extra volumes are mounted, or
/// have not come in two minutes.
fn fstab(boot: &Boot) -> String {
    let mut text = String::from("# <file system> <mount point> <type> <options> <dump> <pass>\n");
    let _ = writeln!(text, "UUID={} / ext4 defaults,errors=remount-ro 0 1", format_uuid(boot.root_uuid));
    let (high, low) = (boot.esp_id >> 16, boot.esp_id & 0xffff);
    let _ = writeln!(
        text,
        "UUID={high:04X}-{low:04X} /boot/efi vfat umask=0077,nofail,x-systemd.device-timeout=300s 0 0"
    );
    for mount in &boot.mounts {
        let path = mount.path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
        let _ = writeln!(
            text,
            "UUID={} {path} {} defaults,nofail,x-systemd.before=local-fs.target,x-systemd.device-timeout=120s 0 2",
            format_uuid(mount.uuid),
            mount.kind
        );
    }
    text
}

/// Where an image keeps the keys of a recipe's own mirror.
const MIRROR_KEYS: &str = "/etc/apt/keyrings/mirror.asc";

fn sources(recipe: &Recipe) -> String {
    let distribution = &recipe.distribution;
    let suite = &distribution.suite;
    let mut suites = suite.clone();
    if distribution.updates {
        let _ = write!(suites, " {suite}-updates");
    }
    let components = distribution.components.join(" ");
    let signed = "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg";
    let mirror = distribution.mirror.as_deref().unwrap_or(MIRROR);
    let by = match distribution.signed_by {
        Some(_) => format!("Signed-By: {MIRROR_KEYS}"),
        None => signed.to_owned(),
    };
    let mut text = format!("Types: deb\nURIs: {mirror}\nSuites: {suites}\nComponents: {components}\n{by}\n");
    if distribution.security {
        let _ = write!(
            text,
            "\nTypes: deb\nURIs: {SECURITY_MIRROR}\nSuites: {suite}-security\nComponents: {components}\n{signed}\n"
        );
    }
    text
}

fn grub_defaults(arch: Arch) -> String {
    let (consoles, terminal) = match arch {
        Arch::X86_64 => ("console=tty1 console=ttyS0,115200n8", "console serial"),
        Arch::Aarch64 => ("console=tty1 console=ttyS0,115200n8 console=ttyAMA0,115200n8", "console"),
    };
    format!(
        "# Settings of the image; files that sort later may change them. Run update-grub after a change.\n\
         GRUB_TIMEOUT=0\n\
         GRUB_CMDLINE_LINUX_DEFAULT=\"\"\n\
         GRUB_CMDLINE_LINUX=\"{consoles} nvme_core.io_timeout=4294967295\"\n\
         GRUB_TERMINAL=\"{terminal}\"\n\
         GRUB_SERIAL_COMMAND=\"serial --speed=115200\"\n\
         GRUB_DISABLE_OS_PROBER=true\n"
    )
}

/// `/var/lib/apt/extended_states` and apt's folders, as apt leaves them.
pub(crate) fn apt_state(root: &Root, installed: &Installed, native: &str, time: i64) -> Result<(), Error> {
    let packages = &installed.packages;
    if !packages.iter().any(|package| &*package.name == "apt") {
        return Ok(());
    }
    let mut text = String::new();
    for (_, package) in packages
        .iter()
        .enumerate()
        .filter(|(index, package)| package.auto && !installed.essential.contains(index))
    {
        let architecture = if package.architecture == "all" { native } else { &package.architecture };
        let _ =
            write!(text, "Package: {}\nArchitecture: {architecture}\nAuto-Installed: 1\n\n", package.name);
    }
    let plain = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: time };
    root.write(b"var/lib/apt/extended_states", text.as_bytes(), plain)?;
    let fetcher = crate::accounts::Accounts::read(root)?.user(b"_apt").unwrap_or(0);
    for folder in ["var/lib/apt/lists", "var/cache/apt/archives"] {
        let partial = format!("{folder}/partial");
        let private = Attributes { mode: 0o700, uid: fetcher, ..plain };
        root.make_folders(partial.as_bytes(), private)?;
        root.set_attributes(partial.as_bytes(), private)?;
        root.write(format!("{folder}/lock").as_bytes(), b"", Attributes { mode: 0o640, ..plain })?;
    }
    for lock in ["lock", "lock-frontend"] {
        root.write(format!("var/lib/dpkg/{lock}").as_bytes(), b"", Attributes { mode: 0o640, ..plain })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Mount;

    #[test]
    fn fstab_names_every_file_system_by_uuid() {
        let mounts = vec![Mount { uuid: [0x11; 16], path: "/srv/my data".into(), kind: "ext4".into() }];
        let text = fstab(&Boot { root_uuid: [0xab; 16], esp_id: 0x0012_abcd, mounts });
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "UUID=abababab-abab-abab-abab-abababababab / ext4 defaults,errors=remount-ro 0 1",
                "UUID=0012-ABCD /boot/efi vfat umask=0077,nofail,x-systemd.device-timeout=300s 0 0",
                "UUID=11111111-1111-1111-1111-111111111111 /srv/my\\040data ext4 defaults,nofail,x-systemd.before=local-fs.target,x-systemd.device-timeout=120s 0 2",
            ]
        );
    }
}
