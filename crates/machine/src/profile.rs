use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// A kind of machine: what QEMU is to show to the guest, and how long it may take to boot.
///
/// Profiles are files in TOML, `qemu/<name>.toml`; the program carries those of this house, a folder can override
/// them one by one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// The profile's name, which is its file's name without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// One sentence for people.
    pub description: String,
    /// The guest's architecture as the kernel names it: `x86_64` or `aarch64`.
    pub architecture: String,
    /// QEMU's machine type with its properties, such as `q35` or `virt,gic-version=3`.
    pub machine: String,
    /// The CPU under emulation; under KVM it is always the host's.
    pub cpu: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// What runs first.
    pub firmware: Firmware,
    /// How disks are attached.
    pub disk_bus: DiskBus,
    /// QEMU's device for the network card.
    pub network_device: String,
    /// QEMU's device for random numbers; none if left out.
    pub rng_device: Option<String>,
    /// What the machine says about itself.
    pub smbios: Smbios,
    /// Seconds within which the machine is to be up.
    pub boot_limit: BootLimit,
}

/// What runs first in a machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum Firmware {
    /// SeaBIOS, as QEMU brings it.
    Bios,
    /// EDK II in two flash chips.
    #[serde(rename_all = "kebab-case")]
    Uefi {
        /// File name of the code, mapped read-only.
        code: String,
        /// File name of the variables; each machine gets a copy.
        vars: String,
        /// Whether the variables may be written in system management mode only, as Secure Boot wants it.
        #[serde(default)]
        secure: bool,
    },
}

/// How disks are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    /// One virtio-blk device a disk.
    VirtioBlk,
    /// One NVMe controller with one namespace a disk.
    Nvme,
}

/// What a machine says about itself in SMBIOS type 1.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smbios {
    /// The manufacturer.
    pub manufacturer: String,
    /// The product, which is the instance type on EC2.
    pub product: String,
}

/// Seconds within which a machine is to be up, by the way in which it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootLimit {
    /// Under emulation.
    pub tcg: u32,
    /// Under KVM.
    pub kvm: u32,
}

/// Why there is no such profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No file of that name, neither in the folder nor in the program.
    #[error("there is no machine profile `{name}`; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that the program carries.
        known: String,
    },
    /// The file cannot be read.
    #[error("the machine profile {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a profile.
    #[error("the machine profile {origin} is not valid: {source}")]
    Parse {
        /// The file, or the profile's name when the program carries it.
        origin: String,
        /// Where and why.
        source: toml::de::Error,
    },
}

macro_rules! carried {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../../qemu/", $name, ".toml")))),*]
    };
}

/// The profiles that the program carries: name and text.
const CARRIED: &[(&str, &str)] = carried![
    "x86_64-bios",
    "x86_64-uefi",
    "x86_64-nitro",
    "x86_64-uefi-secure-boot",
    "aarch64-uefi",
    "aarch64-nitro"
];

impl Profile {
    /// The names of the profiles that the program carries.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CARRIED.iter().map(|(name, _)| *name)
    }

    /// The profile `name`: from `folder` if that is given and has `<name>.toml`, else the one that the program carries.
    pub fn load(name: &str, folder: Option<&Path>) -> Result<Self, ProfileError> {
        if let Some(path) = folder.map(|folder| folder.join(format!("{name}.toml"))) {
            match std::fs::read_to_string(&path) {
                Ok(text) => return Self::parse(name, &text, &path.display().to_string()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(ProfileError::Read { path, source }),
            }
        }
        match CARRIED.iter().find(|(carried, _)| *carried == name) {
            Some((_, text)) => Self::parse(name, text, name),
            None => Err(ProfileError::Unknown {
                name: name.into(),
                known: Self::names().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// Reads the text of a profile; `origin` is for messages.
    pub fn parse(name: &str, text: &str, origin: &str) -> Result<Self, ProfileError> {
        let mut profile: Self =
            toml::from_str(text).map_err(|source| ProfileError::Parse { origin: origin.into(), source })?;
        profile.name = name.into();
        Ok(profile)
    }

    /// The time within which the machine is to be up.
    pub fn boot_limit(&self, accel: crate::Accel) -> Duration {
        Duration::from_secs(u64::from(match accel {
            crate::Accel::Tcg => self.boot_limit.tcg,
            crate::Accel::Kvm => self.boot_limit.kvm,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_carried_profile_is_valid() {
        for name in Profile::names() {
            let profile = Profile::load(name, None).unwrap();
            assert_eq!(profile.name, name);
            assert!(name.starts_with(&profile.architecture), "{name} is for {}", profile.architecture);
            assert!(profile.boot_limit.kvm <= profile.boot_limit.tcg);
        }
    }

    #[test]
    fn a_folder_overrides_and_mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let text = CARRIED[0].1.replace("cpus = 2", "cpus = 1");
        std::fs::write(folder.path().join("x86_64-bios.toml"), text).unwrap();
        assert_eq!(Profile::load("x86_64-bios", Some(folder.path())).unwrap().cpus, 1);
        assert_eq!(Profile::load("x86_64-uefi", Some(folder.path())).unwrap().cpus, 2);

        let misspelt = CARRIED[0].1.replace("cpus = 2", "cpu-count = 2");
        let message = Profile::parse("x", &misspelt, "x.toml").unwrap_err().to_string();
        assert!(message.contains("x.toml") && message.contains("cpu-count"), "{message}");
        let message = Profile::load("riscv", None).unwrap_err().to_string();
        assert!(message.contains("x86_64-uefi-secure-boot"), "{message}");
    }
}
