use std::fmt;

/// How far a boot came, by what the machine said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing but the firmware ran.
    Firmware,
    /// The boot loader ran.
    BootLoader,
    /// The kernel started.
    Kernel,
    /// The kernel ran the initial RAM disk, which looks for the root file system.
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
            Self::Firmware => "in the firmware",
            Self::BootLoader => "in the boot loader",
            Self::Kernel => "in the kernel",
            Self::Initramfs => "in the initial RAM disk",
            Self::Init => "while init started the system",
            Self::Network => "after the network came up",
            Self::Services => "after all services were started",
        })
    }
}

/// Text that shows that a stage was reached. What a later stage says counts for all before it.
const MARKERS: &[(&str, Stage)] = &[
    ("GRUB loading", Stage::BootLoader),
    ("Welcome to GRUB", Stage::BootLoader),
    ("GNU GRUB", Stage::BootLoader),
    ("grub>", Stage::BootLoader),
    ("grub rescue>", Stage::BootLoader),
    ("error: no such device", Stage::BootLoader),
    ("error: file `", Stage::BootLoader),
    ("error: disk `", Stage::BootLoader),
    ("] Linux version ", Stage::Kernel),
    ("EFI stub: ", Stage::Kernel),
    ("Run /init as init process", Stage::Initramfs),
    ("Loading, please wait", Stage::Initramfs),
    ("Begin: ", Stage::Initramfs),
    ("(initramfs)", Stage::Initramfs),
    ("] systemd[1]: Detected architecture", Stage::Init),
    ("Welcome to ", Stage::Init),
    ("Run /sbin/init as init process", Stage::Init),
    ("Reached target network.target", Stage::Network),
    ("network-online.target", Stage::Network),
    ("Reached target multi-user.target", Stage::Services),
    (" login: ", Stage::Services),
];

/// Text after which no boot goes on by itself.
const FATAL: &[&str] = &[
    "Kernel panic - not syncing",
    "grub rescue>",
    "grub> ",
    "(initramfs)",
    "You are in emergency mode",
    "You are in rescue mode",
    "Press Enter for maintenance",
    "No bootable device",
    "No bootable option or device was found",
    "UEFI Interactive Shell",
    "Shell> ",
    "Press any key to proceed",
    "end Kernel panic",
];

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
    "dependency failed",
    "out of memory",
    "no bootable",
];

/// The stage that a console's text shows; `firmware` is what the firmware alone said.
pub fn stage(console: &str) -> Stage {
    let reached = |(marker, stage): &(&str, Stage)| match *stage {
        // systemd colours its greeting, GRUB greets in the same words.
        Stage::Init if *marker == "Welcome to " => console
            .lines()
            .map(without_escapes)
            .any(|line| line.trim_start().starts_with("Welcome to ") && !line.contains("GRUB")),
        Stage::Initramfs if *marker == "Begin: " => console.lines().any(|line| line.starts_with("Begin: ")),
        _ => console.contains(marker),
    };
    MARKERS.iter().filter(|marker| reached(marker)).map(|(_, stage)| *stage).max().unwrap_or(Stage::Firmware)
}

/// The line after which this boot cannot go on, if the console has one.
pub fn fatal_line(console: &str) -> Option<String> {
    let line =
        console.lines().map(without_escapes).find(|line| FATAL.iter().any(|text| line.contains(text)))?;
    Some(line.trim().to_owned())
}

/// The lines of a console that tell why a boot failed: those that speak of errors (the last `most`), then the last
/// `most` of all, each once, in their order, without colours.
pub fn telling_lines(console: &str, most: usize) -> Vec<String> {
    let lines = console.lines().map(|line| without_escapes(line).trim().to_owned()).collect::<Vec<_>>();
    let lines = lines.iter().filter(|line| !line.is_empty()).collect::<Vec<_>>();
    let tail = lines.len().saturating_sub(most);
    let speaks = |line: &str| {
        let line = line.to_lowercase();
        TELLING.iter().any(|text| line.contains(text)) && !line.contains("errors=remount-ro")
    };
    let mut telling = lines[..tail].iter().rev().filter(|line| speaks(line)).take(most).collect::<Vec<_>>();
    telling.reverse();
    telling.into_iter().chain(&lines[tail..]).map(|line| (*line).clone()).collect()
}

/// A line without ANSI escape sequences and carriage returns.
pub fn without_escapes(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => match characters.next() {
                // A control sequence ends with a character from `@` to `~`.
                Some('[') => while characters.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // An operating system command ends with BEL or ESC \.
                Some(']') => {
                    while let Some(c) = characters.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && characters.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\r' => {}
            character => clean.push(character),
        }
    }
    clean
}
