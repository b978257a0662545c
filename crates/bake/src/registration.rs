//! What a bake tells EC2 and everybody else about the image: the mapping, the registration, the manifest.

use block::Digest;
use catalog::{BlockDeviceMapping, Ebs, Home, RegisterImage, SnapshotId, VirtualName};
use recipe::{Arch, BootMode, Lock, Recipe, Volume};

use crate::manifest::{
    self, Deflate, Manifest, ManifestAllowed, ManifestPackage, ManifestParent, ManifestVolume,
};
use crate::{Error, WRITERS};

/// The file with the block device mapping, in AWS's shape.
pub const MAPPINGS: &str = "block-device-mappings.json";
/// The file that `aws ec2 register-image --cli-input-json` takes.
pub const REGISTRATION: &str = "register-image.json";

/// What was written for a volume that has content.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) raw: String,
    pub(crate) vmdk: String,
    /// Bytes of the raw file that are not holes.
    pub(crate) data_bytes: u64,
    /// Blocks of 512 KiB that are not all zero: number and id.
    pub(crate) blocks: Vec<(u64, Digest)>,
    /// What it is against the parent that it is laid out against.
    pub(crate) parent: Option<ManifestParent>,
}

/// The image's manifest and its registration; `written` stands beside the recipe's volumes, `None` for those without
/// content.
pub(crate) fn describe(
    recipe: &Recipe,
    lock: &Lock,
    written: &[Option<Written>],
) -> Result<(Manifest, RegisterImage), Error> {
    let home = Home::default();
    let volumes = recipe.volumes.iter().zip(written);
    let mut manifest = manifest_without_ids(recipe, lock, &home);
    manifest.volumes =
        volumes.clone().map(|(volume, written)| manifest_volume(volume, written.as_ref())).collect();
    let ami = home.ami_id(&recipe.image_name, recipe.arch.ec2(), manifest.to_text().as_bytes());
    manifest.image_id = Some(ami);
    for ((volume, written), entry) in volumes.clone().zip(&mut manifest.volumes) {
        entry.snapshot_id = written.as_ref().map(|written| {
            let digest = block::snapshot_digest(volume.size, written.blocks.iter().copied());
            home.snapshot_id(&recipe.image_name, recipe.arch.ec2(), &volume.device, digest)
        });
    }
    let entries = recipe
        .volumes
        .iter()
        .zip(&manifest.volumes)
        .map(|(volume, entry)| mapping(volume, entry.snapshot_id));
    let mappings: Vec<BlockDeviceMapping> = entries.collect::<Result<_, _>>()?;
    let registration = registration(recipe, mappings)?;
    // The manifest tells the root first, the mapping keeps the recipe's order.
    manifest.volumes.sort_by_key(|volume| !volume.root);
    Ok((manifest, registration))
}

fn mapping(volume: &Volume, snapshot: Option<SnapshotId>) -> Result<BlockDeviceMapping, Error> {
    let device = volume.device.clone();
    if let Some(number) = volume.ephemeral {
        let name =
            VirtualName::new(number).map_err(|error| Error::Registration { problems: error.to_string() })?;
        return Ok(BlockDeviceMapping::instance_store(device, name));
    }
    let ebs = Ebs {
        snapshot_id: snapshot,
        volume_size: Some(volume.size_gib()),
        volume_type: Some(volume.volume_type),
        iops: volume.iops.map(u64::from),
        throughput: volume.throughput.map(u64::from),
        delete_on_termination: Some(volume.delete_on_termination),
        // EC2 refuses any value beside a snapshot.
        encrypted: volume.encrypted.filter(|_| snapshot.is_none()),
        kms_key_id: None,
    };
    Ok(BlockDeviceMapping::ebs(device, ebs))
}

fn registration(recipe: &Recipe, mappings: Vec<BlockDeviceMapping>) -> Result<RegisterImage, Error> {
    let root = recipe.root_volume().ok_or_else(|| crate::no_root(recipe))?;
    let image = &recipe.image;
    let registration = RegisterImage {
        description: recipe.description.clone(),
        boot_mode: Some(image.boot_mode),
        ena_support: Some(image.ena),
        imds_support: image.imds.as_ref().map(|_| catalog::ImdsSupport::V2),
        ..RegisterImage::new(recipe.image_name.clone(), recipe.arch.ec2(), root.device.clone(), mappings)
    };
    let registration = registration.with_tags(&image.tags);
    registration.check().map_err(|broken| {
        let problems: Vec<String> = broken.iter().map(ToString::to_string).collect();
        Error::Registration { problems: problems.join("; ") }
    })?;
    Ok(registration)
}

fn manifest_volume(volume: &Volume, written: Option<&Written>) -> ManifestVolume {
    let digest = written.map(|written| block::snapshot_digest(volume.size, written.blocks.iter().copied()));
    ManifestVolume {
        device: volume.device.to_string(),
        root: volume.root,
        raw: written.map(|written| written.raw.clone()),
        vmdk: written.map(|written| written.vmdk.clone()),
        size: volume.size,
        data_bytes: written.map_or(0, |written| written.data_bytes),
        blocks: written.map_or(0, |written| written.blocks.len() as u64),
        digest: digest.map(Digest::to_hex),
        checksum: written.map(|written| catalog::linear_checksum(written.blocks.iter().map(|(_, id)| *id))),
        snapshot_id: None,
        parent: written.and_then(|written| written.parent.clone()),
        filesystem: volume.filesystem.map(|filesystem| match filesystem {
            recipe::Filesystem::Ext4 => "ext4".to_owned(),
        }),
        label: volume.label.clone(),
        mount: volume.mount.clone(),
        ephemeral: volume.ephemeral,
    }
}

fn manifest_without_ids(recipe: &Recipe, lock: &Lock, home: &Home) -> Manifest {
    let packages = lock.for_arch(recipe.arch).map_or(&[][..], |locked| &locked.packages);
    let (library, version, level) = formats::vmdk::DEFLATE;
    Manifest {
        format: manifest::FORMAT,
        image_id: None,
        name: recipe.image_name.clone(),
        arch: recipe.arch.as_str().to_owned(),
        description: recipe.description.clone(),
        account: home.account.clone(),
        region: home.region.clone(),
        default_user: recipe.default_user().map(|user| user.name.clone()),
        boot_mode: recipe.image.boot_mode,
        firmware: machines(recipe.arch, recipe.image.boot_mode)
            .iter()
            .map(|name| (*name).to_owned())
            .collect(),
        lock: lock.digest().to_hex(),
        time: lock.time,
        writers: WRITERS.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect(),
        deflate: Deflate { library: library.to_owned(), version: version.to_owned(), level },
        volumes: Vec::new(),
        packages: packages
            .iter()
            .map(|package| ManifestPackage {
                name: package.name.clone(),
                version: package.version.clone(),
                architecture: package.architecture.clone(),
            })
            .collect(),
        checks: recipe.checks.iter().map(manifest::machine_check).collect(),
        allowed: recipe
            .allow
            .iter()
            .map(|allowed| ManifestAllowed {
                finding: allowed.finding.clone(),
                file: allowed.file.clone(),
                reason: allowed.reason.clone(),
            })
            .collect(),
    }
}

/// The kinds of machine that an image boots on.
pub(crate) fn machines(arch: Arch, boot_mode: BootMode) -> &'static [&'static str] {
    match (arch, boot_mode) {
        (Arch::Aarch64, _) | (_, BootMode::Uefi) => &["uefi", "nitro"],
        (_, BootMode::LegacyBios) => &["bios"],
        (_, BootMode::UefiPreferred) => &["bios", "uefi", "nitro"],
    }
}
