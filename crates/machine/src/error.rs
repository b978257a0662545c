use std::io;
use std::path::PathBuf;

use crate::{QmpError, Stage};

/// Why a machine did not come up.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The specification has no volumes.
    #[error("a machine needs a root volume; the first of its volumes is that")]
    NoDisks,
    /// A path must be UTF-8 to be handed to QEMU.
    #[error("the path {} is not UTF-8, so QEMU cannot be told of it", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// A file could not be made or read.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, such as `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("{program} cannot be started")]
    Start {
        /// The program's name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A helper program failed.
    #[error("{program} failed: {message}")]
    Helper {
        /// The program's name.
        program: String,
        /// What it wrote.
        message: String,
    },
    /// The profile's firmware is not there.
    #[error("the firmware {file} is in none of these folders: {}", folders(searched))]
    MissingFirmware {
        /// The file's name.
        file: String,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// QEMU ended before the machine ran.
    #[error("QEMU did not start the machine: {message}")]
    Qemu {
        /// What QEMU wrote.
        message: String,
    },
    /// QEMU's monitor failed.
    #[error(transparent)]
    Monitor(#[from] QmpError),
    /// The machine ran, but did not get where it should.
    #[error("the boot stopped at {place}, after {seconds} s: {reason}{}\n{}", remarks(failed, *cause), quoted(console))]
    NotUp {
        /// How far it came.
        stage: Stage,
        /// Where it stopped, in words: `the initrd`, `the network`, `ssh.service`.
        place: String,
        /// Seconds since it was switched on.
        seconds: u64,
        /// What was waited for, or what ended the boot.
        reason: String,
        /// The units that did not start, in a line.
        failed: Option<String>,
        /// What most likely stopped it, and where to look.
        cause: Option<&'static str>,
        /// The telling lines of the console.
        console: Vec<String>,
    },
}

fn folders(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn remarks(failed: &Option<String>, cause: Option<&'static str>) -> String {
    let failed = failed.iter().map(|units| format!("\n  = {units}"));
    failed.chain(cause.map(|cause| format!("\n  = likely: {cause}"))).collect()
}

fn quoted(lines: &[String]) -> String {
    if lines.is_empty() {
        return "  the console says nothing".into();
    }
    lines.iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}
