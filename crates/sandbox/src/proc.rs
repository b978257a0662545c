//! What a sandbox shows of /proc: the processes in it, its own network, and fixed text in place of the host's.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;

/// What covers an entry of /proc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cover {
    /// A file of this text.
    Text(Text),
    /// An empty folder.
    Folder,
    /// The folder of fixed kernel settings.
    Settings,
    /// A file in place of a link.
    Link(Text),
}

/// The text of a covered file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Fixed(&'static str),
    /// `Linux version …`, with the release that uname answers.
    Version,
}

/// Entries that belong to the processes inside, or to the sandbox's own network namespace.
const SHOWN: [&str; 3] = ["self", "thread-self", "net"];

/// Entries that programs read, with what they find. Every other file is empty.
const FILES: [(&str, Text); 13] = [
    ("cmdline", Text::Fixed("\n")),
    ("cpuinfo", Text::Fixed("processor\t: 0\n\n")),
    ("devices", Text::Fixed("Character devices:\n  1 mem\n  5 /dev/tty\n\nBlock devices:\n")),
    (
        "filesystems",
        Text::Fixed(
            "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\tdevpts\n\text4\n\text3\n\text2\n\tvfat\n",
        ),
    ),
    ("interrupts", Text::Fixed("           CPU0\n")),
    ("loadavg", Text::Fixed("0.00 0.00 0.00 1/1 1\n")),
    (
        "meminfo",
        Text::Fixed(
            "MemTotal:        4194304 kB\nMemFree:         3145728 kB\nMemAvailable:    3670016 kB\n\
             Buffers:               0 kB\nCached:           524288 kB\nSwapCached:            0 kB\n\
             SwapTotal:             0 kB\nSwapFree:              0 kB\nShmem:                 0 kB\n\
             SReclaimable:          0 kB\n",
        ),
    ),
    ("partitions", Text::Fixed("major minor  #blocks  name\n\n")),
    (
        "stat",
        Text::Fixed(
            "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\nintr 0\nctxt 0\nbtime 0\nprocesses 1\n\
             procs_running 1\nprocs_blocked 0\n",
        ),
    ),
    ("swaps", Text::Fixed("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
    ("uptime", Text::Fixed("1.00 1.00\n")),
    ("version", Text::Version),
    ("mounts", Text::Fixed(MOUNTS)),
];

const MOUNTS: &str = "\
    /dev/root / ext4 rw,relatime 0 0\n\
    proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n\
    tmpfs /dev tmpfs rw,nosuid,relatime 0 0\n\
    devpts /dev/pts devpts rw,nosuid,noexec,relatime 0 0\n\
    tmpfs /run tmpfs rw,nosuid,nodev,relatime 0 0\n\
    tmpfs /tmp tmpfs rw,nosuid,nodev,relatime 0 0\n";

/// The files below /proc/sys; the folders are made for them.
pub(crate) const SETTINGS: [(&str, Text); 12] = [
    ("kernel/cap_last_cap", Text::Fixed("40\n")),
    ("kernel/domainname", Text::Fixed("(none)\n")),
    ("kernel/ngroups_max", Text::Fixed("65536\n")),
    ("kernel/ostype", Text::Fixed("Linux\n")),
    ("kernel/overflowgid", Text::Fixed("65534\n")),
    ("kernel/overflowuid", Text::Fixed("65534\n")),
    ("kernel/pid_max", Text::Fixed("4194304\n")),
    ("kernel/random/boot_id", Text::Fixed("00000000-0000-4000-8000-000000000000\n")),
    ("kernel/random/entropy_avail", Text::Fixed("256\n")),
    ("kernel/random/poolsize", Text::Fixed("256\n")),
    ("vm/mmap_min_addr", Text::Fixed("65536\n")),
    ("vm/overcommit_memory", Text::Fixed("0\n")),
];

/// What covers each entry that this kernel has at the top of /proc, by name. What is not known is covered too.
pub(crate) fn covers() -> io::Result<Vec<(OsString, Cover)>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let hidden = name
            .to_str()
            .is_none_or(|name| !name.bytes().all(|byte| byte.is_ascii_digit()) && !SHOWN.contains(&name));
        if hidden {
            names.insert((name, KindOfEntry::of(&entry.file_type()?)));
        }
    }
    let covered = |(name, kind): (OsString, KindOfEntry)| {
        let cover = cover(name.to_str().unwrap_or_default(), kind);
        (name, cover)
    };
    Ok(names.into_iter().map(covered).collect())
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum KindOfEntry {
    File,
    Folder,
    Link,
}

impl KindOfEntry {
    fn of(kind: &fs::FileType) -> Self {
        if kind.is_dir() {
            Self::Folder
        } else if kind.is_symlink() {
            Self::Link
        } else {
            Self::File
        }
    }
}

fn cover(name: &str, kind: KindOfEntry) -> Cover {
    let text = FILES.iter().find(|(file, _)| *file == name).map_or(Text::Fixed(""), |(_, text)| *text);
    match kind {
        KindOfEntry::Folder if name == "sys" => Cover::Settings,
        KindOfEntry::Folder => Cover::Folder,
        KindOfEntry::File => Cover::Text(text),
        KindOfEntry::Link => Cover::Link(text),
    }
}
