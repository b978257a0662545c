//! Looking at a finished root with EC2's eyes, before a disk is made of it.

use ::lint::{Architecture, BootMode, DataFileSystem, Facts, Severity};
use recipe::{Arch, Recipe};

use crate::volumes::VolumeIds;
use crate::{Error, Report};

/// Tells the report every warning; an error lists what must not be in an image.
pub(crate) fn examine(recipe: &Recipe, built: &rootfs::Built, report: &dyn Report) -> Result<(), Error> {
    let root = recipe.root_volume().ok_or_else(|| crate::no_root(recipe))?;
    let data: Vec<DataFileSystem<'_>> = crate::data_volumes(recipe)
        .map(|volume| DataFileSystem {
            uuid: VolumeIds::of(recipe, volume).file_system,
            mount: volume.mount.as_deref(),
        })
        .collect();
    let facts = Facts {
        architecture: match recipe.arch {
            Arch::X86_64 => Architecture::X86_64,
            Arch::Aarch64 => Architecture::Aarch64,
        },
        boot_mode: match recipe.image.boot_mode {
            recipe::BootMode::LegacyBios => BootMode::LegacyBios,
            recipe::BootMode::Uefi => BootMode::Uefi,
            recipe::BootMode::UefiPreferred => BootMode::UefiPreferred,
        },
        has_bios_boot: built.bios.is_some(),
        root_uuid: VolumeIds::of(recipe, root).file_system,
        ena: recipe.image.ena,
        default_user: recipe.default_user().map(|user| user.name.as_str()),
        data: &data,
    };
    let findings = ::lint::lint(&built.tree, &built.esp, &facts)?;
    let (errors, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    for warning in &warnings {
        report.line(&warning.to_string());
    }
    if errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(Error::Unfit { findings: lines.join("\n") })
}
