//! Booting what was baked, and checking it.

use std::fs;
use std::path::Path;

use machine::{Accel, Disk, FirmwareDirs, MachineSpec, Profile, Programs};
use recipe::Arch;
use serde::Serialize;
use tools::{Set, Tools};

use crate::packages::ToolPackages;
use crate::work::WorkFolder;
use crate::{Error, Manifest, ManifestVolume, Stages};

/// The file with what came of the checks.
pub(crate) const CHECKS: &str = "checks.json";

/// The machines that an image is to boot on: the names that [`Manifest::firmware`] lists, one profile each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirmwareChoice {
    /// All that the image boots on.
    #[default]
    All,
    /// Legacy BIOS, disks on virtio.
    Bios,
    /// UEFI, disks on virtio.
    Uefi,
    /// UEFI, every volume an NVMe disk.
    Nitro,
}

impl FirmwareChoice {
    fn takes(self, firmware: &str) -> bool {
        match self {
            Self::All => true,
            Self::Bios => firmware == "bios",
            Self::Uefi => firmware == "uefi",
            Self::Nitro => firmware == "nitro",
        }
    }
}

/// Where tools are kept and come from.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The cache folder.
    pub cache: &'a Path,
    /// Seconds since 1970, for validity dates only.
    pub now: i64,
    /// `BAKEHOUSE_DEBIAN_MIRROR`.
    pub mirror: Option<&'a str>,
}

/// What came of one check under one firmware. As JSON: `{"name","firmware","ok","seconds","detail"}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// The check's name: `http :80/`.
    pub name: String,
    /// `bios`, `uefi` or `nitro`.
    pub firmware: String,
    /// Whether it held.
    pub ok: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What was seen.
    pub detail: String,
}

/// The programs that machines of an architecture need, from the tools tree in the cache; fetched when they are not
/// there yet.
pub fn programs(arch: Arch, place: &Place<'_>, stages: &Stages<'_>) -> Result<Programs, Error> {
    let set = match arch {
        Arch::X86_64 => Set::Boot,
        Arch::Aarch64 => Set::BootAarch64,
    };
    let tools = stages.run("tools", |outcome| {
        let Place { cache, now, mirror } = *place;
        let provider = ToolPackages { cache, now, mirror, expired_suite: None, report: stages.report() };
        let (tools, fetched) = Tools::prepare(set, cache, &provider)?;
        outcome.cached = !fetched;
        Ok::<_, Error>(tools)
    })?;
    Ok(machine_programs(arch, &tools))
}

/// The machine room's view of a tools tree.
pub fn machine_programs(arch: Arch, tools: &Tools) -> Programs {
    let qemu = match arch {
        Arch::Aarch64 => "qemu-system-aarch64",
        Arch::X86_64 => "qemu-system-x86_64",
    };
    let root = tools.folder().join("root");
    let firmware = FirmwareDirs {
        qemu_data: ["usr/share/seabios", "usr/share/qemu"].map(|folder| root.join(folder)).into(),
        uefi: ["usr/share/OVMF", "usr/share/AAVMF"].map(|folder| root.join(folder)).into(),
    };
    Programs::in_folder(&tools.bin(), qemu, firmware)
}

/// Boots the image in `folder` by each firmware that is wanted and runs its checks; writes `checks.json` and
/// `console-<firmware>.log` beside it. A check that does not hold is a result, not an error.
pub fn check(
    folder: &Path,
    choice: FirmwareChoice,
    place: &Place<'_>,
    stages: &Stages<'_>,
) -> Result<Vec<Checked>, Error> {
    // Held against bakes until the checks are written.
    let held = fs::File::open(folder).ok();
    if let Some(Err(fs::TryLockError::WouldBlock)) = held.as_ref().map(fs::File::try_lock_shared) {
        return Err(Error::BeingBaked { path: folder.to_owned() });
    }
    let manifest = Manifest::read(folder)?;
    // QEMU runs in a folder of its own.
    let folder = &std::path::absolute(folder).map_err(Error::io(folder, "cannot be found"))?;
    let wanted: Vec<&String> = manifest.firmware.iter().filter(|firmware| choice.takes(firmware)).collect();
    if wanted.is_empty() {
        let reason = format!(
            "this image boots by {} only: choose another --firmware",
            manifest.firmware.join(" and ")
        );
        return Err(Error::NotBaked { path: folder.to_owned(), reason });
    }
    let arch = manifest.arch.parse().map_err(|error: recipe::UnknownArch| Error::NotBaked {
        path: folder.join(crate::MANIFEST),
        reason: error.to_string(),
    })?;
    // Before anything is fetched: what the machines say is written there.
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).map_err(|error| {
        Error::io(folder, "the logs of its machines cannot be written here")(error.into())
    })?;
    let programs = programs(arch, place, stages)?;
    let work = WorkFolder::new(place.cache, "machines")?;
    let accel = machine::probe_kvm(&programs, &manifest.arch, work.path());
    stages.report().line(match accel {
        Accel::Kvm => "machines run on KVM",
        Accel::Tcg => "machines run emulated (TCG): KVM is not here, or cannot run a guest",
    });
    let mut checked = Vec::new();
    for firmware in wanted {
        let name = format!("boot by {firmware}");
        let results = stages.run(&name, |_| {
            boot_and_check(folder, &manifest, firmware, accel, &programs, work.path(), stages)
        })?;
        checked.extend(results);
    }
    let path = folder.join(CHECKS);
    let text = serde_json::to_string_pretty(&checked).unwrap_or_default() + "\n";
    recipe::replace_file(&path, text.as_bytes()).map_err(Error::io(path, "cannot be written"))?;
    drop(held);
    Ok(checked)
}

/// A volume as it is attached: what was baked under an overlay, instance store blank. The folder may be a stranger's: no
/// link in it shows the machine another file.
fn disk_of(folder: &Path, volume: &ManifestVolume) -> Result<Disk, Error> {
    let base = volume.raw.as_ref().map(|raw| folder.join(raw));
    if let Some(path) = &base {
        let found = fs::symlink_metadata(path).map_err(Error::io(path, "cannot be found"))?;
        if !found.is_file() {
            let reason = "is no file of its own: bake again, or put the file itself there".to_owned();
            return Err(Error::NotBaked { path: path.clone(), reason });
        }
    }
    let size = base.is_none().then_some(volume.size);
    Ok(Disk { device: volume.device.clone(), base, size, ephemeral: volume.ephemeral })
}

fn boot_and_check(
    folder: &Path,
    manifest: &Manifest,
    firmware: &str,
    accel: Accel,
    programs: &Programs,
    work: &Path,
    stages: &Stages<'_>,
) -> Result<Vec<Checked>, Error> {
    let profile = Profile::load(&format!("{}-{firmware}", manifest.arch), None)?;
    let disks = manifest.volumes.iter().map(|volume| disk_of(folder, volume)).collect::<Result<_, _>>()?;
    let mut spec = MachineSpec::new(profile, accel, &manifest.name, disks);
    if let Some(user) = &manifest.default_user {
        spec.user.clone_from(user);
    }
    let has = |name: &str| manifest.packages.iter().any(|package| package.name == name);
    spec.logs_in = manifest.default_user.is_some() && has("openssh-server") && has("cloud-init");
    spec.console = Some(folder.join(format!("console-{firmware}.log")));
    let work = work.join(firmware);
    fs::create_dir_all(&work).map_err(Error::io(&work, "cannot be made"))?;
    let mut log = |line: &str| stages.report().line(&format!("{firmware}: {line}"));
    let results = machine::boot_and_check(&spec, programs, &work, &manifest.checks, &mut log)
        .map_err(|source| Error::Boot { firmware: firmware.to_owned(), source: Box::new(source) })?;
    Ok(results
        .into_iter()
        .map(|result| Checked {
            name: result.name,
            firmware: firmware.to_owned(),
            ok: result.ok,
            seconds: result.seconds,
            detail: result.detail,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_folder_shows_and_overwrites_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, folder) = (folder.path().join("mine"), folder.path().join("out"));
        fs::create_dir(&folder).unwrap();
        fs::write(&mine, "mine").unwrap();
        for name in ["xvda.raw", CHECKS] {
            std::os::unix::fs::symlink(&mine, folder.join(name)).unwrap();
        }
        let volume = ManifestVolume {
            device: "/dev/xvda".into(),
            root: true,
            raw: Some("xvda.raw".into()),
            vmdk: None,
            size: 4,
            data_bytes: 4,
            blocks: 1,
            digest: None,
            checksum: None,
            snapshot_id: None,
            parent: None,
            filesystem: None,
            label: None,
            mount: None,
            ephemeral: None,
        };
        assert!(disk_of(&folder, &volume).unwrap_err().to_string().contains("no file of its own"));
        recipe::replace_file(&folder.join(CHECKS), b"[]").unwrap();
        assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
        assert_eq!(fs::read_to_string(folder.join(CHECKS)).unwrap(), "[]");
        fs::remove_file(folder.join("xvda.raw")).unwrap();
        fs::write(folder.join("xvda.raw"), "disk").unwrap();
        assert!(disk_of(&folder, &volume).is_ok());
    }
}
