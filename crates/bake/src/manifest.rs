use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The file in a folder of outputs that tells what was baked.
pub const MANIFEST: &str = "image.json";

/// What was baked: a function of the recipe and its lock, of nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The shape of this file.
    pub format: u32,
    /// The image's name.
    pub name: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// The recipe's description.
    pub description: Option<String>,
    /// The user who is given the launch key.
    pub default_user: Option<String>,
    /// `bios`, `uefi`, `nitro`: what the disk boots on; each is a machine profile of the architecture.
    pub firmware: Vec<String>,
    /// SHA-256 of the lock's text.
    pub lock: String,
    /// The lock's time, seconds since 1970.
    pub time: i64,
    /// The volumes, the root first.
    pub volumes: Vec<ManifestVolume>,
    /// Every package, sorted by name.
    pub packages: Vec<ManifestPackage>,
    /// What must be true of the booted machine.
    pub checks: Vec<ManifestCheck>,
}

/// The present shape of the manifest.
pub(crate) const FORMAT: u32 = 1;

/// One volume of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestVolume {
    /// EC2's name for it.
    pub device: String,
    /// The raw file beside the manifest; `None` for instance store, which is blank at each start.
    pub raw: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Bytes that are not holes.
    pub data_bytes: u64,
    /// The number of an instance store volume; `None` for an EBS volume.
    #[serde(default)]
    pub ephemeral: Option<u8>,
}

/// One package of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPackage {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
}

/// One check, as the recipe writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the recipe language's own words")]
pub enum ManifestCheck {
    Http { port: u16, path: String, status: u16, contains: Option<String> },
    Login { user: String, contains: String },
    Ssh { user: String, run: String, contains: Option<String> },
    Mount { path: String, device: String },
    Console { contains: String },
}

impl From<&recipe::Check> for ManifestCheck {
    fn from(check: &recipe::Check) -> Self {
        match check.clone() {
            recipe::Check::Http { port, path, status, contains } => {
                Self::Http { port, path, status, contains }
            }
            recipe::Check::Login { user, contains } => Self::Login { user, contains },
            recipe::Check::Ssh { user, run, contains } => Self::Ssh { user, run, contains },
            recipe::Check::Mount { path, device } => Self::Mount { path, device: device.to_string() },
            recipe::Check::Console { contains } => Self::Console { contains },
        }
    }
}

impl From<&ManifestCheck> for machine::Check {
    fn from(check: &ManifestCheck) -> Self {
        match check.clone() {
            ManifestCheck::Http { port, path, status, contains } => {
                Self::Http { port, path, status, contains }
            }
            ManifestCheck::Login { user, contains } => Self::Login { user, contains },
            ManifestCheck::Ssh { user, run, contains } => Self::Ssh { user, run, contains },
            ManifestCheck::Mount { path, device } => Self::Mount { path, device },
            ManifestCheck::Console { contains } => Self::Console { contains },
        }
    }
}

impl Manifest {
    /// Reads the manifest in a folder of outputs.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read(&path).map_err(|error| Error::NotBaked {
            path: folder.to_owned(),
            reason: format!("holds no {MANIFEST} ({error}): give a folder that `bakehouse bake` wrote"),
        })?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| Error::NotBaked {
            path: path.clone(),
            reason: format!("is not a manifest of this program ({error}): bake again"),
        })?;
        if manifest.format != FORMAT {
            let reason = format!("has format {}, this program reads {FORMAT}: bake again", manifest.format);
            return Err(Error::NotBaked { path, reason });
        }
        Ok(manifest)
    }

    /// The manifest as text, ending in a line break.
    pub(crate) fn to_text(&self) -> String {
        // A value of strings and numbers always has a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}
