//! The EC2 lint: looks at a finished image's files before a disk is written, and says what would keep it from booting
//! on EC2, what would make it a bad neighbour there, and which secrets it carries.
//!
//! *What comes in:* the [`Tree`]s of the root and of the EFI system partition, and a few [`Facts`] about the disk and
//! how the image is registered. *What goes out:* [`Finding`]s, sorted; each names a rule of [`RULES`], a file where
//! there is one, the reason and what to do. An error is meant to stop a bake, a warning to be read. *What it may not
//! know:* recipes, packages' contents, disks, QEMU. It reads files through [`block::Content`] and runs nothing.
//!
//! A finding never holds a secret: it names the file, the line and the kind.
//!
//! Files that a package brought and nobody changed ([`block::Origin::Package`]) are the same on every machine, so
//! they are read only where a rule names them; everything else that is text is searched for secrets.

mod accounts;
mod cloud;
mod command_line;
mod firmware;
mod fstab;
mod grub;
mod image;
mod initrd;
mod kernel;
mod network;
mod rules;
mod secrets;
mod ssh;
#[cfg(test)]
mod test_image;
mod traces;

use std::fmt;
use std::io;

use tree::{Tree, TreePath};

use crate::image::Image;
pub use crate::initrd::{InitrdError, initrd_files};
pub use crate::rules::{RULES, Rule};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The image does not boot, cannot be reached, or gives away a secret.
    Error,
    /// The image works, but not as well or as safely as it should.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// What the image's machines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit PCs.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Architecture {
    /// Reads `x86_64` or `aarch64` (`arm64` in EC2's words); `None` for anything else.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "x86_64" => Some(Self::X86_64),
            "aarch64" | "arm64" => Some(Self::Aarch64),
            _ => None,
        }
    }
}

/// How the image is registered to be started by firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootMode {
    /// BIOS only.
    LegacyBios,
    /// UEFI only.
    Uefi,
    /// UEFI where the instance type has it, BIOS elsewhere.
    UefiPreferred,
}

impl BootMode {
    /// Reads EC2's words: `legacy-bios`, `uefi`, `uefi-preferred`; `None` for anything else.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "legacy-bios" => Some(Self::LegacyBios),
            "uefi" => Some(Self::Uefi),
            "uefi-preferred" => Some(Self::UefiPreferred),
            _ => None,
        }
    }

    /// Whether some instances start it by BIOS.
    pub(crate) fn has_bios(self) -> bool {
        self != Self::Uefi
    }

    /// Whether some instances start it by UEFI.
    pub(crate) fn has_uefi(self) -> bool {
        self != Self::LegacyBios
    }
}

/// What the trees do not say.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What the image's machines are.
    pub architecture: Architecture,
    /// How it is registered.
    pub boot_mode: BootMode,
    /// Whether the disk has a BIOS boot partition with a boot loader in it.
    pub has_bios_boot: bool,
    /// UUID of the root file system, in the order in which it is written.
    pub root_uuid: [u8; 16],
    /// Whether it is registered with support for Elastic Network Adapters.
    pub ena: bool,
    /// Who is to be given the launch key; `None`: nobody that the image's maker named.
    pub default_user: Option<&'a str>,
    /// File systems of the image's other volumes.
    pub data: &'a [DataFileSystem<'a>],
}

/// A file system of a volume beside the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFileSystem<'a> {
    /// Its UUID, in the order in which it is written.
    pub uuid: [u8; 16],
    /// Where it is mounted at boot, absolute; `None`: nowhere.
    pub mount: Option<&'a str>,
}

/// Something about the image that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it weighs; the rule's.
    pub severity: Severity,
    /// Name of a rule of [`RULES`].
    pub rule: &'static str,
    /// The file it is about, as the running machine names it: the EFI system partition's are below `boot/efi`.
    pub file: Option<TreePath>,
    /// What is wrong, with the line where there is one. Never a secret.
    pub reason: String,
    /// What to do.
    pub advice: String,
}

impl fmt::Display for Finding {
    /// One line: `error[fstab-device] /etc/fstab: line 3 …; name it by UUID`. Control characters of what an image
    /// holds are shown as U+FFFD.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}[{}] ", self.severity.as_str(), self.rule);
        if let Some(file) = &self.file {
            text.push_str(&format!("/{file}: "));
        }
        text.push_str(&format!("{}; {}", self.reason, self.advice));
        f.write_str(&text.replace(block::is_obeyed, "\u{fffd}"))
    }
}

/// Why an image could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file's bytes cannot be had.
    #[error(
        "`/{path}` of the image cannot be read: {source}; the folder the image is made from must stay as it is"
    )]
    Read {
        /// The file.
        path: TreePath,
        /// Why.
        source: io::Error,
    },
}

/// Looks at an image. The findings are sorted: errors first, then in the order of [`RULES`], then by file and line.
pub fn lint(root: &Tree, esp: &Tree, facts: &Facts<'_>) -> Result<Vec<Finding>, Error> {
    let image = Image::new(root);
    let mut findings = Findings::default();
    let menu = grub::Menu::read(&image)?;
    firmware::check(esp, facts, &mut findings)?;
    let mounts = fstab::check(&image, facts, &mut findings)?;
    grub::check(&image, &menu, facts, &mut findings);
    kernel::check(&image, &menu, &mounts, facts, &mut findings)?;
    command_line::check(&image, &menu, &mut findings)?;
    cloud::check(&image, &menu, facts, &mut findings)?;
    network::check(&image, &mut findings)?;
    ssh::check(&image, &mut findings)?;
    accounts::check(&image, &mut findings)?;
    traces::check(root, esp, &mut findings)?;
    secrets::check(root, &mut findings)?;
    Ok(findings.sorted())
}

/// Findings in the making.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    /// Notes that a rule is broken.
    pub(crate) fn add(
        &mut self,
        rule: &'static Rule,
        file: Option<&TreePath>,
        reason: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.0.push(Finding {
            severity: rule.severity,
            rule: rule.name,
            file: file.cloned(),
            reason: reason.into(),
            advice: advice.into(),
        });
    }

    fn sorted(mut self) -> Vec<Finding> {
        let place = |name: &str| RULES.iter().position(|rule| rule.name == name);
        // What is left in the order of its finding is in the order of lines.
        self.0.sort_by_cached_key(|finding| (finding.severity, place(finding.rule), finding.file.clone()));
        self.0.dedup();
        self.0
    }
}
