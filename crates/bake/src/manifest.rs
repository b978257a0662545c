use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use block::{BLOCK_SIZE, Digest};
use catalog::{AmiId, SnapshotId};
use machine::Check;
use recipe::BootMode;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::layout::VolumeLayout;

/// The file in a folder of outputs that tells what was baked.
pub const MANIFEST: &str = "image.json";

/// What was baked: a function of the recipe and its lock, of nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The shape of this file.
    pub format: u32,
    /// The image's id. It follows from all else in here but the other ids; `None` only while it is being found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<AmiId>,
    /// The image's name.
    pub name: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// The recipe's description.
    pub description: Option<String>,
    /// The account that the ids are made for.
    pub account: String,
    /// The region that the ids are made for.
    pub region: String,
    /// The user who is given the launch key.
    pub default_user: Option<String>,
    /// How firmware starts it, in EC2's words.
    pub boot_mode: BootMode,
    /// `bios`, `uefi`, `nitro`: the kinds of machine that it boots on.
    pub firmware: Vec<String>,
    /// SHA-256 of the lock's text.
    pub lock: String,
    /// The lock's time, seconds since 1970.
    pub time: i64,
    /// The versions of the program's own writers that shaped the bytes.
    pub writers: BTreeMap<String, u32>,
    /// What compressed the VMDK files.
    pub deflate: Deflate,
    /// The volumes, the root first.
    pub volumes: Vec<ManifestVolume>,
    /// Every package, sorted by name.
    pub packages: Vec<ManifestPackage>,
    /// What must be true of the booted machine.
    pub checks: Vec<Check>,
    /// Findings of the lint that the recipe allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<ManifestAllowed>,
}

/// A finding of the lint that the recipe allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestAllowed {
    /// Its name.
    pub finding: String,
    /// The file that it is about.
    pub file: Option<String>,
    /// Why it is meant.
    pub reason: String,
}

/// The present shape of the manifest.
pub(crate) const FORMAT: u32 = 2;

/// A compressor: what decides the bytes of what it compresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deflate {
    /// The library.
    pub library: String,
    /// Its version.
    pub version: String,
    /// The level.
    pub level: u32,
}

/// One volume of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestVolume {
    /// EC2's name for it.
    pub device: String,
    /// Whether it is the one that boots.
    pub root: bool,
    /// The raw file beside the manifest; `None` for a volume that starts blank.
    pub raw: Option<String>,
    /// The same disk as a streamOptimized VMDK.
    pub vmdk: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Bytes of the raw file that are not holes.
    pub data_bytes: u64,
    /// Blocks of 512 KiB that are not all zero.
    pub blocks: u64,
    /// The digest of its snapshot, 64 hexadecimal digits: SHA-256 over format version, size and the blocks' ids.
    pub digest: Option<String>,
    /// The LINEAR checksum of the EBS direct API, in base64.
    pub checksum: Option<String>,
    /// The snapshot that the mapping names; `None` for a volume that starts blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// What it is against its parent; `None` where it was laid out against none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ManifestParent>,
    /// The file system on it, `ext4`; the root's is in its root partition.
    pub filesystem: Option<String>,
    /// The file system's label.
    pub label: Option<String>,
    /// Where it is mounted.
    pub mount: Option<String>,
    /// The number of an instance store volume; `None` for an EBS volume.
    #[serde(default)]
    pub ephemeral: Option<u8>,
}

/// A volume against the parent that it was laid out against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestParent {
    /// The digest of the parent's snapshot.
    pub digest: String,
    /// Blocks of 512 KiB that are not the same at their index, those that became zero among them: what an EBS snapshot after the
    /// parent's has to be sent.
    pub changed_blocks: u64,
    /// Their bytes.
    pub changed_bytes: u64,
}

impl ManifestParent {
    /// Of a volume with these blocks.
    pub(crate) fn of(parent: &VolumeLayout, blocks: &[(u64, Digest)]) -> Self {
        let changed_blocks = parent.changed(blocks);
        let changed_bytes = changed_blocks * BLOCK_SIZE;
        Self { digest: parent.digest().to_hex(), changed_blocks, changed_bytes }
    }
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

/// A recipe's check, in the words of the machine room.
pub(crate) fn machine_check(check: &recipe::Check) -> Check {
    match check.clone() {
        recipe::Check::Http { port, path, status, contains } => Check::Http { port, path, status, contains },
        recipe::Check::Login { user, contains } => Check::Login { user, contains },
        recipe::Check::Ssh { user, run, contains } => Check::Ssh { user, run, contains },
        recipe::Check::Mount { path, device } => Check::Mount { path, device: device.to_string() },
        recipe::Check::Console { contains } => Check::Console { contains },
    }
}

/// A folder's images below it, when it holds no image itself: people name `out/hello-web` for `out/hello-web/x86_64`.
pub(crate) fn nearer(folder: &Path) -> Option<Error> {
    let below = recipe::Arch::ALL.map(|arch| folder.join(arch.as_str()));
    let found: Vec<_> = below.iter().filter(|folder| folder.join(MANIFEST).exists()).collect();
    found.first()?;
    let all: Vec<_> = found.iter().map(|folder| folder.display().to_string()).collect();
    let reason = format!("holds no {MANIFEST}, but below it there is: give {}", all.join(" or "));
    Some(Error::NotBaked { path: folder.to_owned(), reason })
}

impl Manifest {
    /// Reads the manifest in a folder of outputs.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read(&path).map_err(|error| {
            if let Some(nearer) = nearer(folder).filter(|_| error.kind() == ErrorKind::NotFound) {
                return nearer;
            }
            let what = match error.kind() {
                ErrorKind::NotFound if folder.exists() => format!("holds no {MANIFEST}"),
                ErrorKind::NotFound => "is not there".to_owned(),
                ErrorKind::NotADirectory => "is not a folder".to_owned(),
                _ => format!("holds no {MANIFEST} that can be read ({error})"),
            };
            let reason =
                format!("{what}: give a folder that `bakehouse bake` wrote, such as out/hello-web/x86_64");
            Error::NotBaked { path: folder.to_owned(), reason }
        })?;
        Self::from_text(&text, &path)
    }

    /// Reads a manifest's text; `path` is for messages. The folder may come from a stranger: what is named in it must lie
    /// in the folder itself.
    pub fn from_text(text: &[u8], path: &Path) -> Result<Self, Error> {
        let damaged = |reason| Error::NotBaked { path: path.to_owned(), reason };
        let manifest: Self = serde_json::from_slice(text).map_err(|error| {
            // It quotes the file.
            let error = block::without_escapes(&error.to_string());
            damaged(format!("is not a manifest of this program ({error}): bake again"))
        })?;
        if manifest.format != FORMAT {
            let reason = format!("has format {}, this program reads {FORMAT}: bake again", manifest.format);
            return Err(damaged(reason));
        }
        let plain = |name: &str| {
            !name.starts_with('.')
                && !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let files = manifest.volumes.iter().flat_map(|volume| [&volume.raw, &volume.vmdk]).flatten();
        if let Some(name) = files.chain(&manifest.firmware).find(|name| !plain(name)) {
            return Err(damaged(format!("names {name:?}, which is no file in its folder: bake again")));
        }
        Ok(manifest)
    }

    /// The manifest as text, ending in a line break.
    pub fn to_text(&self) -> String {
        // A value of strings and numbers always has a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(raw: &str, firmware: &str) -> Result<Manifest, Error> {
        let text = serde_json::json!({
            "format": FORMAT, "name": "a", "arch": "x86_64", "description": null, "account": "0", "region": "local",
            "default_user": null, "boot_mode": "uefi", "firmware": [firmware], "lock": "", "time": 0, "writers": {},
            "deflate": {"library": "a", "version": "1", "level": 1}, "packages": [], "checks": [],
            "volumes": [{"device": "/dev/xvda", "root": true, "raw": raw, "vmdk": null, "size": 1, "data_bytes": 1,
                         "blocks": 1, "digest": null, "checksum": null, "filesystem": null, "label": null, "mount": null}],
        });
        Manifest::from_text(text.to_string().as_bytes(), Path::new("image.json"))
    }

    #[test]
    fn a_strangers_manifest_names_nothing_outside_its_folder() {
        assert!(with("xvda.raw", "uefi").is_ok());
        for raw in ["/etc/shadow", "../x", "a/b", "..", "", ".hidden", "a\n"] {
            let error = with(raw, "uefi").unwrap_err().to_string();
            assert!(error.contains("no file in its folder"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(with("xvda.raw", "../../x").unwrap_err().to_string().contains("no file in its folder"));
    }
}
