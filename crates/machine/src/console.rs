use std::fmt;

use block::without_escapes;

/// How far a boot came, by what the machine said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing but the firmware ran.
    Firmware,
    /// The boot loader ran.
    BootLoader,
    /// The kernel started.
    Kernel,
    /// The kernel ran the initrd, which looks for the root file system.
    Initramfs,
    /// The root file system's init ran.
    Init,
    /// The network came up.
    Network,
    /// All services were started.
    Services,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firmware => "the firmware",
            Self::BootLoader => "the boot loader",
            Self::Kernel => "the kernel",
            Self::Initramfs => "the initrd",
            Self::Init => "init",
            Self::Network => "the network",
            Self::Services => "its services",
        })
    }
}

/// Where in a line a text must stand to count.
#[derive(Clone, Copy)]
enum Place {
    Start,
    Anywhere,
}
use Place::{Anywhere, Start};

impl Place {
    fn has(self, line: &str, text: &str) -> bool {
        match self {
            Start => line.starts_with(text),
            Anywhere => line.contains(text),
        }
    }
}

/// Text that shows that a stage was reached. What a later stage says counts for all before it.
const MARKERS: &[(Place, &str, Stage)] = &[
    (Anywhere, "GRUB loading", Stage::BootLoader),
    (Anywhere, "Welcome to GRUB", Stage::BootLoader),
    (Anywhere, "GNU GRUB", Stage::BootLoader),
    (Start, "grub>", Stage::BootLoader),
    (Start, "grub rescue>", Stage::BootLoader),
    (Start, "error: ", Stage::BootLoader),
    (Anywhere, "] Linux version ", Stage::Kernel),
    (Start, "EFI stub: ", Stage::Kernel),
    (Anywhere, "] Run /init as init process", Stage::Initramfs),
    (Start, "Loading, please wait", Stage::Initramfs),
    (Start, "Begin: ", Stage::Initramfs),
    (Start, "(initramfs)", Stage::Initramfs),
    (Anywhere, "] Run /sbin/init as init process", Stage::Init),
    (Anywhere, "] systemd[1]: ", Stage::Init),
    (Anywhere, "Reached target network.target", Stage::Network),
    (Anywhere, "Reached target network-online.target", Stage::Network),
    (Anywhere, "Reached target multi-user.target", Stage::Services),
    (Anywhere, " login: ", Stage::Services),
];

/// Text after which no boot goes on by itself.
const FATAL: &[(Place, &str)] = &[
    (Anywhere, "Kernel panic - not syncing"),
    (Start, "grub rescue>"),
    (Start, "grub>"),
    // GRUB's last word on a menu entry; the menu comes back, and waits.
    (Anywhere, "you need to load the kernel first"),
    (Start, "(initramfs)"),
    (Anywhere, "You are in emergency mode"),
    (Anywhere, "You are in rescue mode"),
    (Anywhere, "Press Enter for maintenance"),
    (Anywhere, "Press any key to proceed"),
    (Start, "No bootable device"),
    (Anywhere, "No bootable option or device was found"),
    (Start, "UEFI Interactive Shell"),
    (Start, "Shell>"),
    // What shim shows before it waits for a key.
    (Anywhere, "Security Violation"),
];

/// What the kernel says when an emulated machine's timer stood still, because the host's processors were elsewhere
/// while it counted ticks: nothing that the image could help.
const HELD_UP: &str = "IO-APIC + timer doesn't work";

/// Text that tells a person why a boot failed, in any case of letters.
const TELLING: &[&str] = &[
    "error",
    "panic",
    "failed",
    "emergency",
    "not found",
    "no such",
    "gave up",
    "alert!",
    "security violation",
    "access denied",
    "timed out",
    "out of memory",
    "no bootable",
];

/// What sounds like a failure in every boot, in small letters.
const HARMLESS: &[&str] = &[
    "tsc calibration failed",
    "failed to get a good estimate",
    "correctable errors collector",
    "errors=remount-ro",
    "] ....... failed.",
    "systemd-ssh-generator",
];

/// What says nothing about a boot: the keys that cloud-init makes, and the pictures that it draws of them.
const NOISE: &[&str] = &[
    "]: |",
    "]: +-",
    "randomart",
    "key fingerprint is",
    " SHA256:",
    "has been saved in",
    "Generating public/private",
    "SSH HOST KEY",
    "ecdsa-sha2-nistp256 ",
    "ssh-ed25519 ",
    "ssh-rsa ",
    "cloud-init: ####",
];

/// What a person would read as lines: a jump of the cursor begins a new one, frames and colours are left out.
pub(crate) fn lines(console: &str) -> Vec<String> {
    let frame = |character: char| character.is_whitespace() || ('\u{2500}'..='\u{257f}').contains(&character);
    let text = without_escapes(console);
    let lines = text.lines().map(|line| line.trim_matches(frame));
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The stage that a console's text shows.
pub fn stage(console: &str) -> Stage {
    let reached = |line: String| {
        let marked = MARKERS.iter().filter(|(place, text, _)| place.has(&line, text));
        marked.map(|(_, _, stage)| *stage).max()
    };
    lines(console).into_iter().filter_map(reached).max().unwrap_or(Stage::Firmware)
}

/// The line after which this boot cannot go on, if the console has one.
pub fn fatal_line(console: &str) -> Option<String> {
    lines(console).into_iter().find(|line| FATAL.iter().any(|(place, text)| place.has(line, text)))
}

/// The lines of a console that tell why a boot failed: of those that speak of errors the last `most`, then the last
/// `most` of all, each once, in their order, without colours.
pub fn telling_lines(console: &str, most: usize) -> Vec<String> {
    let mut lines = lines(console);
    lines.retain(|line| !NOISE.iter().any(|text| line.contains(text)));
    let (before, tail) = lines.split_at(lines.len().saturating_sub(most));
    let speaks = |line: &&String| {
        let line = line.to_lowercase();
        let has = |texts: &[&str]| texts.iter().any(|text| line.contains(text));
        has(TELLING) && !has(HARMLESS)
    };
    let mut telling = before.iter().rev().filter(speaks).take(most).collect::<Vec<_>>();
    telling.reverse();
    let mut told: Vec<String> = Vec::new();
    for line in telling.into_iter().chain(tail) {
        if !told.contains(line) {
            told.push(line.clone());
        }
    }
    told
}

/// Whether a fatal line tells of the host, not of the image.
pub(crate) fn is_held_up(line: &str) -> bool {
    line.contains(HELD_UP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = include_str!("../testdata/boot.txt");

    fn until(text: &str) -> &'static str {
        &BOOT[..BOOT.find(text).unwrap()]
    }

    #[test]
    fn a_good_boot_goes_through_every_stage() {
        assert_eq!(stage(""), Stage::Firmware);
        assert_eq!(stage(until("Run /init")), Stage::Kernel);
        assert_eq!(stage(until("systemd[1]: systemd 257")), Stage::Initramfs);
        assert_eq!(stage(until("Reached target \u{1b}[0;1;39mnetwork.target")), Stage::Init);
        assert_eq!(stage(until("Reached target \u{1b}[0;1;39mmulti-user")), Stage::Network);
        assert_eq!(stage(BOOT), Stage::Services);
        assert_eq!(fatal_line(BOOT), None);
    }

    #[test]
    fn failed_boots_say_where_and_why() {
        let cases = [
            (
                include_str!("../testdata/grub-no-kernel.txt"),
                Stage::BootLoader,
                "grub>",
                "error: file `/boot/vmlinuz-9.9' not found.",
            ),
            (
                include_str!("../testdata/grub-entry-without-kernel.txt"),
                Stage::BootLoader,
                "error: you need to load the kernel first.",
                "error: file `/boot/vmlinuz-6.12.117+deb13-cloud-amd64' not found.",
            ),
            (
                include_str!("../testdata/kernel-panic.txt"),
                Stage::Kernel,
                "Kernel panic - not syncing: VFS",
                "VFS: Cannot open root device",
            ),
            (
                include_str!("../testdata/initramfs-shell.txt"),
                Stage::Initramfs,
                "(initramfs)",
                "ALERT!  UUID=99999999-2222-8333-8444-555555555555 does not exist.",
            ),
            (
                include_str!("../testdata/uefi-shell.txt"),
                Stage::Firmware,
                "UEFI Interactive Shell",
                "BdsDxe: failed to load Boot0001",
            ),
            (
                include_str!("../testdata/bios-no-disk.txt"),
                Stage::Firmware,
                "No bootable device.",
                "Boot failed: not a bootable disk",
            ),
            (
                include_str!("../testdata/broken-init.txt"),
                Stage::Initramfs,
                "(initramfs)",
                "No init found. Try passing init= bootarg.",
            ),
            (
                include_str!("../testdata/broken-fstab.txt"),
                Stage::Init,
                "You are in emergency mode",
                "Timed out waiting for device dev-d",
            ),
            (
                include_str!("../testdata/shim-refuses-loader.txt"),
                Stage::Firmware,
                "Security Violation",
                "Verification failed",
            ),
        ];
        for (console, where_to, fatal, why) in cases {
            assert_eq!(stage(console), where_to);
            let line = fatal_line(console).unwrap();
            assert!(line.contains(fatal), "{line}");
            let telling = telling_lines(console, 15);
            assert!(telling.iter().any(|line| line.contains(why)), "{telling:#?}");
        }
    }

    #[test]
    fn a_boot_without_logins_tells_what_failed_and_draws_no_pictures() {
        let console = include_str!("../testdata/broken-sshd.txt");
        assert_eq!((stage(console), fatal_line(console)), (Stage::Services, None));
        let telling = telling_lines(console, 15);
        assert!(
            telling.iter().any(|line| line.starts_with("[FAILED] Failed to start ssh.service")),
            "{telling:#?}"
        );
        assert!(
            telling.iter().all(|line| !line.contains("randomart") && !line.contains("AF_VSOCK")),
            "{telling:#?}"
        );
    }

    #[test]
    fn a_timer_that_the_host_held_up_is_no_fault_of_the_image() {
        let console = "[    0.012000] ..TIMER: vector=0x30 apic1=0 pin1=2 apic2=-1 pin2=-1\n[    0.056000] Kernel panic - not \
                       syncing: IO-APIC + timer doesn't work!  Boot with apic=debug and send a report.\n";
        assert!(is_held_up(&fatal_line(console).unwrap()));
        let panic = include_str!("../testdata/kernel-panic.txt");
        assert!(!is_held_up(&fatal_line(panic).unwrap()));
    }

    #[test]
    fn telling_lines_are_few_and_in_order() {
        let mut console = String::from("one failed\nnothing\ntwo: error\nFast TSC calibration failed\n");
        console.extend((0..40).map(|line| format!("line {line}\n")));
        assert_eq!(telling_lines(&console, 2), ["one failed", "two: error", "line 38", "line 39"]);
    }
}
