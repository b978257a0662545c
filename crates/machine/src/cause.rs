//! Why a boot stopped, in sentences: what a person who knows such consoles would say of one.

use crate::Stage;
use crate::console::lines;

/// A unit that did not start, in systemd's words on the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedUnit {
    /// `ssh.service`; systemd shortens long names with `…`.
    pub name: String,
    /// `Failed to start ssh.service - OpenBSD Secure Shell server`.
    pub words: String,
    /// Whether it only failed because another one did.
    pub follows: bool,
}

/// The units that a console shows as failed, in its order, each once.
pub fn failed_units(console: &str) -> Vec<FailedUnit> {
    let mut found: Vec<FailedUnit> = Vec::new();
    for line in lines(console) {
        let marked = [("[FAILED] ", false), ("[ TIME ] ", false), ("[DEPEND] ", true)]
            .into_iter()
            .find_map(|(mark, follows)| Some((line.split_once(mark)?.1, follows)));
        let Some((words, follows)) = marked else { continue };
        let words = words.trim_end_matches('.');
        // `Failed to start a.service - What it is`: the unit is what has a unit's ending, or was cut.
        let name = words.split(' ').find(|word| is_unit(word)).unwrap_or(words).to_owned();
        if found.iter().all(|unit| unit.name != name) {
            found.push(FailedUnit { name, words: words.to_owned(), follows });
        }
    }
    found
}

fn is_unit(word: &str) -> bool {
    let ends = [".service", ".socket", ".mount", ".target", ".device", ".swap", ".path", ".timer"];
    word.contains('…') || ends.iter().any(|end| word.ends_with(end))
}

/// The failed units in a line; `None` when none failed.
pub(crate) fn failed_line(units: &[FailedUnit]) -> Option<String> {
    const SHOWN: usize = 6;
    let (later, first): (Vec<_>, Vec<_>) = units.iter().partition(|unit| unit.follows);
    let names = |units: &[&FailedUnit]| {
        let mut text = units.iter().take(SHOWN).map(|unit| unit.name.as_str()).collect::<Vec<_>>().join(", ");
        if units.len() > SHOWN {
            text += &format!(" and {} more", units.len() - SHOWN);
        }
        text
    };
    match (first.is_empty(), later.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("units that failed: {}", names(&first))),
        (true, false) => Some(format!("units that failed: {}", names(&later))),
        (false, false) => {
            Some(format!("units that failed: {}, and for want of them {}", names(&first), names(&later)))
        }
    }
}

/// Whether the server that logins go through did not start.
pub(crate) fn no_login_server(units: &[FailedUnit]) -> bool {
    units.iter().any(|unit| ["ssh.service", "sshd.service", "ssh.socket"].contains(&unit.name.as_str()))
}

/// Whether cloud-init's table of network devices shows none with an address of its own.
pub(crate) fn no_address(console: &str) -> bool {
    let rows = lines(console);
    let mut rows = rows
        .iter()
        .filter_map(|line| line.split_once("ci-info: | "))
        .map(|(_, row)| row.split('|').map(str::trim).collect::<Vec<_>>())
        .skip_while(|row| row.first() != Some(&"Device"))
        .skip(1)
        .take_while(|row| matches!(row.get(1), Some(&("True" | "False"))))
        .peekable();
    let is_up =
        |row: Vec<&str>| row[0] != "lo" && row[1] == "True" && row.get(2).is_some_and(|at| *at != ".");
    rows.peek().is_some() && !rows.any(is_up)
}

/// Whether a machine whose services are all started will never let anybody in: it has no network, or no ssh server.
pub(crate) fn is_unreachable(console: &str) -> bool {
    no_address(console) || no_login_server(&failed_units(console))
}

/// Where a boot that came to `stage` stopped, in words.
pub(crate) fn stopped_at(stage: Stage, console: &str) -> String {
    let units = failed_units(console);
    let first = units.iter().find(|unit| !unit.follows);
    match (stage, first) {
        (Stage::Init | Stage::Network | Stage::Services, _) if no_address(console) => {
            "the network".to_owned()
        }
        (Stage::Network | Stage::Services, Some(unit)) => unit.name.clone(),
        _ => stage.to_string(),
    }
}

/// What most likely stopped a boot that came to `stage`, and where to look.
pub fn likely_cause(stage: Stage, console: &str) -> Option<&'static str> {
    let units = failed_units(console);
    let lines = lines(console);
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    Some(match stage {
        Stage::Firmware if has("Security Violation") => {
            "the boot loader is not signed by anybody whom the firmware trusts: install shim-signed, or switch Secure Boot off"
        }
        Stage::Firmware => {
            "the firmware found nothing on the root volume that it can start: look at `image.boot_mode`, and at the files of the \
             EFI system partition"
        }
        Stage::BootLoader if has("grub rescue>") => {
            "GRUB does not find its own files: the root file system has another UUID than the one it was installed for"
        }
        Stage::BootLoader if has("bad shim signature") => {
            "GRUB refuses a kernel that is not signed by anybody whom Secure Boot trusts: take Debian's signed one, or switch \
             Secure Boot off"
        }
        Stage::BootLoader if has("not found") || has("load the kernel first") => {
            "GRUB's menu names a kernel or initrd that is not in the image: a `run` step that changes /boot must run \
             update-grub after it"
        }
        Stage::BootLoader => "GRUB did not start a kernel: look at /boot/grub/grub.cfg in the image",
        Stage::Kernel if has("Unable to mount root fs") || has("Cannot open root device") => {
            "the kernel was started without an initrd that finds the root file system: look at the `initrd` line of \
             /boot/grub/grub.cfg and at /boot"
        }
        Stage::Kernel if has("Attempted to kill init") || has("No working init found") => NO_INIT,
        Stage::Kernel => "the kernel stopped before it ran its initrd: its last lines tell why",
        Stage::Initramfs if has("does not exist") => {
            "no disk has the root file system that the kernel's command line names: compare root= in /boot/grub/grub.cfg \
             with the file system's UUID"
        }
        Stage::Initramfs if has("No init found") || has("Attempted to kill init") => NO_INIT,
        Stage::Initramfs => "the initrd did not hand over to the root file system: its last lines tell why",
        _ if has("You are in emergency mode") || has("You are in rescue mode") => {
            "a unit that the boot cannot do without failed, mostly a mount of /etc/fstab: `nofail` lets a boot go on without one"
        }
        Stage::Init | Stage::Network | Stage::Services if no_address(console) => NO_NETWORK,
        Stage::Init | Stage::Network | Stage::Services if no_login_server(&units) => {
            "the ssh server did not start, so nobody can log in: look at /etc/ssh, and at what its package and your recipe put \
             there (`sshd -t` as a `run` step finds mistakes)"
        }
        Stage::Init if has("Attempted to kill init") => NO_INIT,
        Stage::Init => NO_NETWORK,
        Stage::Network => {
            "the network is up, but the boot did not end: the last unit that was started may wait for something"
        }
        Stage::Services if units.iter().any(|unit| unit.name.starts_with("cloud-")) => {
            "cloud-init failed, so the launch key reached nobody: its lines on the console tell why"
        }
        Stage::Services => return None,
    })
}

const NO_NETWORK: &str = "the network did not come up: something must ask for an address by DHCP on any interface, as the bases' \
     /etc/systemd/network does with systemd-networkd";
const NO_INIT: &str =
    "the root file system has no init that runs: systemd-sysv brings /sbin/init, and needs its libraries";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_units_are_read_from_the_console() {
        let units = failed_units(include_str!("../testdata/broken-fstab.txt"));
        let names: Vec<_> = units.iter().map(|unit| (unit.name.as_str(), unit.follows)).collect();
        assert_eq!(
            names,
            [
                ("dev-d…999999-2222-8333-8444-555555555555", false),
                ("systemd-fsck…999999-2222-8333-8444-555555555555", true),
                ("srv-data.mount", true),
                ("local-fs.target", true),
            ]
        );
        assert_eq!(units[0].words, "Timed out waiting for device dev-d…999999-2222-8333-8444-555555555555");
        let line = failed_line(&units).unwrap();
        assert!(line.contains("555555555555, and for want of them systemd-fsck…"), "{line}");
        let units = failed_units(include_str!("../testdata/broken-sshd.txt"));
        assert_eq!(failed_line(&units).unwrap(), "units that failed: ssh.service");
        assert!(no_login_server(&units));
        assert_eq!(failed_line(&failed_units(include_str!("../testdata/boot.txt"))), None);
    }

    #[test]
    fn where_a_boot_stopped_is_told_in_words() {
        for (console, place, unreachable) in [
            (include_str!("../testdata/bios-no-disk.txt"), "the firmware", false),
            (include_str!("../testdata/grub-no-kernel.txt"), "the boot loader", false),
            (include_str!("../testdata/kernel-panic.txt"), "the kernel", false),
            (include_str!("../testdata/broken-init.txt"), "the initrd", false),
            (include_str!("../testdata/broken-fstab.txt"), "init", false),
            (include_str!("../testdata/broken-network.txt"), "the network", true),
            (include_str!("../testdata/broken-sshd.txt"), "ssh.service", true),
            (include_str!("../testdata/boot.txt"), "its services", false),
        ] {
            assert_eq!(stopped_at(crate::stage(console), console), place);
            assert_eq!(is_unreachable(console), unreachable, "{place}");
        }
    }

    #[test]
    fn a_table_of_devices_is_read_as_far_as_it_goes() {
        let table = |rows: &str| {
            format!("x ci-info: ++Net device info++\nx ci-info: | Device | Up | Address |\n{rows}")
        };
        assert!(!no_address(""));
        assert!(!no_address(&table("")));
        assert!(no_address(&table("x ci-info: | lo | True | 127.0.0.1 |\n")));
        assert!(no_address(&table("x ci-info: | ens5 | True | . |\n")));
        assert!(!no_address(&table(
            "x ci-info: | lo | True | ::1 |\nx ci-info: | ens5 | True | 10.0.0.1 |\n"
        )));
    }

    #[test]
    fn each_broken_boot_has_its_likely_cause() {
        for (console, words) in [
            (include_str!("../testdata/bios-no-disk.txt"), "nothing on the root volume"),
            (include_str!("../testdata/uefi-shell.txt"), "nothing on the root volume"),
            (include_str!("../testdata/shim-refuses-loader.txt"), "not signed by anybody"),
            (include_str!("../testdata/grub-no-kernel.txt"), "not in the image"),
            (include_str!("../testdata/grub-entry-without-kernel.txt"), "not in the image"),
            (include_str!("../testdata/kernel-panic.txt"), "without an initrd"),
            (include_str!("../testdata/initramfs-shell.txt"), "compare root="),
            (include_str!("../testdata/broken-init.txt"), "has no init"),
            (include_str!("../testdata/broken-fstab.txt"), "mostly a mount of /etc/fstab"),
            (include_str!("../testdata/broken-network.txt"), "the network did not come up"),
            (include_str!("../testdata/broken-sshd.txt"), "the ssh server did not start"),
        ] {
            let stage = crate::stage(console);
            let cause = likely_cause(stage, console).unwrap_or_default();
            assert!(cause.contains(words), "{stage:?}: {cause}");
        }
        assert_eq!(likely_cause(Stage::Services, include_str!("../testdata/boot.txt")), None);
    }
}
