use std::collections::BTreeSet;

use crate::limits::{
    DEFAULT_IOPS, IMAGE_NAME, IOPS_PER_THROUGHPUT, MAX_DESCRIPTION, MAX_TAG_KEY, MAX_TAG_VALUE, MAX_TAGS,
};
use crate::{Architecture, BlockDeviceMapping, BootMode, DeviceName, RegisterImage, SnapshotId, VolumeType};

/// A rule of EC2 that a request breaks: where, and which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct RuleError {
    /// The field, from the request's root: `BlockDeviceMappings[1].Ebs.Iops`.
    pub field: String,
    /// The rule, with the value that breaks it.
    pub rule: Rule,
}

/// A rule of EC2, with the value that breaks it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// An image's name is too short or too long.
    #[error("`{}` has {length} characters; an image's name has {} to {}", shown(.name), IMAGE_NAME.0, IMAGE_NAME.1)]
    NameLength {
        /// The name.
        name: String,
        /// Its length in characters.
        length: usize,
    },
    /// An image's name has a character that none may have.
    #[error(
        "`{}` has a `{}`; an image's name is of ASCII letters, digits, spaces and ( ) [ ] . / - ' @ _",
        shown(.name),
        .character.escape_debug()
    )]
    NameCharacter {
        /// The name.
        name: String,
        /// The first such character.
        character: char,
    },
    /// A description is too long.
    #[error("{length} characters; a description has {MAX_DESCRIPTION} at most")]
    DescriptionLength {
        /// Its length in characters.
        length: usize,
    },
    /// The root device is not in the mapping.
    #[error("`{device}` is no entry of the mapping; the root device must be one")]
    RootMissing {
        /// The root device.
        device: DeviceName,
    },
    /// The root device has no snapshot.
    #[error("`{device}` has no snapshot; the root device must come from one")]
    RootWithoutSnapshot {
        /// The root device.
        device: DeviceName,
    },
    /// Two entries are one device.
    #[error("`{second}` and `{first}` are the same device; each has one entry")]
    SameDevice {
        /// As the earlier entry names it.
        first: DeviceName,
        /// As the later entry names it.
        second: DeviceName,
    },
    /// An entry is more than one thing, or nothing.
    #[error("`{device}` has {given} of Ebs, VirtualName and NoDevice; an entry has exactly one")]
    OneKind {
        /// The entry's device.
        device: DeviceName,
        /// How many it has.
        given: usize,
    },
    /// An EBS volume without content and size.
    #[error("`{device}` has neither SnapshotId nor VolumeSize; a volume needs one of them")]
    NoSize {
        /// The volume's device.
        device: DeviceName,
    },
    /// An EBS volume whose type is left to AWS.
    #[error("`{device}` has no type; write it, the default is not the same everywhere")]
    NoVolumeType {
        /// The volume's device.
        device: DeviceName,
    },
    /// A volume from a snapshot says whether it is encrypted.
    #[error("{encrypted} for a volume from {snapshot}; it is as its snapshot is: leave Encrypted out")]
    EncryptedSnapshot {
        /// What the volume says.
        encrypted: bool,
        /// Its snapshot.
        snapshot: SnapshotId,
    },
    /// A key for encryption.
    #[error("`{}` does not belong into a registration; name the key when the image is copied or launched", shown(.key))]
    KmsKey {
        /// The key.
        key: String,
    },
    /// There is no such snapshot.
    #[error("{snapshot} is not there; a volume comes from a snapshot of the same region")]
    UnknownSnapshot {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// A volume is smaller than its snapshot.
    #[error("{gib} GiB for {snapshot} of {snapshot_gib} GiB; a volume is at least as large as its snapshot")]
    SmallerThanSnapshot {
        /// The volume's size.
        gib: u64,
        /// Its snapshot.
        snapshot: SnapshotId,
        /// The snapshot's size.
        snapshot_gib: u64,
    },
    /// What the volume's type does not take.
    #[error(transparent)]
    Volume(#[from] VolumeRule),
    /// A way to boot that the architecture does not have.
    #[error("{boot_mode} for {architecture}; such machines boot by UEFI")]
    BootMode {
        /// The way to boot.
        boot_mode: BootMode,
        /// The architecture.
        architecture: Architecture,
    },
    /// A TPM in a machine that boots otherwise than by UEFI.
    #[error("v2.0 for an image that boots by {}; a TPM needs uefi", .boot_mode.map_or("AWS's default", BootMode::as_str))]
    TpmWithoutUefi {
        /// The way to boot, if it is named.
        boot_mode: Option<BootMode>,
    },
    /// Several entries for the image's tags.
    #[error("{given} entries for the image's tags; put them into one")]
    TagEntries {
        /// How many.
        given: usize,
    },
    /// Too many tags.
    #[error("{given} tags; a resource has {MAX_TAGS} at most")]
    TooManyTags {
        /// How many.
        given: usize,
    },
    /// A tag's key is empty or too long.
    #[error("`{}` has {length} characters; a tag's key has 1 to {MAX_TAG_KEY}", shown(.key))]
    TagKeyLength {
        /// The key.
        key: String,
        /// Its length in characters.
        length: usize,
    },
    /// A tag's key is AWS's own.
    #[error("`{}` begins with aws:; such keys are AWS's own", shown(.key))]
    TagKeyReserved {
        /// The key.
        key: String,
    },
    /// Two tags have the same key.
    #[error("`{}` is given twice; a resource has one tag of each key", shown(.key))]
    TagKeyTwice {
        /// The key.
        key: String,
    },
    /// A tag's value is too long.
    #[error("the value of `{}` has {length} characters; a tag's value has {MAX_TAG_VALUE} at most", shown(.key))]
    TagValueLength {
        /// The key.
        key: String,
        /// The value's length in characters.
        length: usize,
    },
}

/// A stranger's word as a message has it: characters that a terminal would obey are told, and a long word is cut.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 200;
    let cut = text.char_indices().nth(MOST).map(|(at, _)| &text[..at]);
    let shown = cut.unwrap_or(text).chars().map(|character| match block::is_obeyed(character) {
        true => character.escape_unicode().to_string(),
        false => character.to_string(),
    });
    shown.chain(cut.map(|_| "…".to_owned())).collect()
}

/// What a type of volume does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeRule {
    /// Its size.
    #[error("{gib} GiB; a volume of type {volume_type} has {least} to {most} GiB")]
    Size {
        /// The volume's type.
        volume_type: VolumeType,
        /// Its size.
        gib: u64,
        /// The smallest size.
        least: u64,
        /// The largest size.
        most: u64,
    },
    /// To be booted from.
    #[error("{volume_type}; no machine boots from a volume of this type")]
    Boot {
        /// The volume's type.
        volume_type: VolumeType,
    },
    /// Any IOPS.
    #[error("{iops}; a volume of type {volume_type} takes no IOPS")]
    IopsNotTaken {
        /// The volume's type.
        volume_type: VolumeType,
        /// The IOPS asked for.
        iops: u64,
    },
    /// To be without IOPS.
    #[error("not given; a volume of type {volume_type} needs it")]
    IopsNeeded {
        /// The volume's type.
        volume_type: VolumeType,
    },
    /// That many or few IOPS.
    #[error("{iops}; a volume of type {volume_type} and this size takes {least} to {most}")]
    Iops {
        /// The volume's type.
        volume_type: VolumeType,
        /// The IOPS asked for.
        iops: u64,
        /// The fewest.
        least: u64,
        /// The most, for the volume's size.
        most: u64,
    },
    /// Any throughput.
    #[error("{throughput}; a volume of type {volume_type} takes no throughput")]
    ThroughputNotTaken {
        /// The volume's type.
        volume_type: VolumeType,
        /// The throughput asked for, MiB/s.
        throughput: u64,
    },
    /// That much or little throughput.
    #[error("{throughput}; a volume of type {volume_type} takes {least} to {most} MiB/s")]
    Throughput {
        /// The volume's type.
        volume_type: VolumeType,
        /// The throughput asked for, MiB/s.
        throughput: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// That much throughput with so few IOPS.
    #[error(
        "{throughput} MiB/s with {iops} IOPS; {IOPS_PER_THROUGHPUT} IOPS are needed for each MiB/s: {needed}"
    )]
    ThroughputPerIops {
        /// The throughput asked for, MiB/s.
        throughput: u64,
        /// The IOPS that the volume has.
        iops: u64,
        /// The IOPS that the throughput needs.
        needed: u64,
    },
}

impl VolumeRule {
    /// The field of `Ebs` that breaks the rule.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Size { .. } => "VolumeSize",
            Self::Boot { .. } => "VolumeType",
            Self::IopsNotTaken { .. } | Self::IopsNeeded { .. } | Self::Iops { .. } => "Iops",
            Self::ThroughputNotTaken { .. } | Self::Throughput { .. } | Self::ThroughputPerIops { .. } => {
                "Throughput"
            }
        }
    }
}

/// What is asked of an EBS volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSettings {
    /// Its type.
    pub volume_type: VolumeType,
    /// Its size; unknown when it is that of its snapshot.
    pub gib: Option<u64>,
    /// Provisioned IOPS.
    pub iops: Option<u64>,
    /// MiB/s.
    pub throughput: Option<u64>,
    /// Whether a machine is to boot from it.
    pub boots: bool,
}

impl VolumeSettings {
    /// The rules of the volume's type that these settings break.
    pub fn broken_rules(&self) -> Vec<VolumeRule> {
        let Self { volume_type, gib, iops, throughput, boots } = *self;
        let limits = volume_type.limits();
        let mut broken = Vec::new();
        let (least, most) = limits.size;
        if let Some(gib) = gib
            && !(least..=most).contains(&gib)
        {
            broken.push(VolumeRule::Size { volume_type, gib, least, most });
        }
        if boots && !limits.boot {
            broken.push(VolumeRule::Boot { volume_type });
        }
        match (limits.iops, iops) {
            (None, Some(iops)) => broken.push(VolumeRule::IopsNotTaken { volume_type, iops }),
            (Some(_), None) if limits.iops_required => broken.push(VolumeRule::IopsNeeded { volume_type }),
            (Some((least, most, each)), Some(iops)) => {
                let floor = if limits.iops_required { least } else { DEFAULT_IOPS };
                let most = gib.map_or(most, |gib| most.min(each.saturating_mul(gib)).max(floor));
                if !(least..=most).contains(&iops) {
                    broken.push(VolumeRule::Iops { volume_type, iops, least, most });
                }
            }
            _ => {}
        }
        match (limits.throughput, throughput) {
            (None, Some(throughput)) => {
                broken.push(VolumeRule::ThroughputNotTaken { volume_type, throughput });
            }
            (Some((least, most)), Some(throughput)) => {
                let iops = iops.unwrap_or(DEFAULT_IOPS);
                let needed = throughput.saturating_mul(IOPS_PER_THROUGHPUT);
                if !(least..=most).contains(&throughput) {
                    broken.push(VolumeRule::Throughput { volume_type, throughput, least, most });
                } else if needed > iops {
                    broken.push(VolumeRule::ThroughputPerIops { throughput, iops, needed });
                }
            }
            _ => {}
        }
        broken
    }
}

/// The rules of an image's name that this one breaks.
pub fn image_name_rules(name: &str) -> Vec<Rule> {
    let mut broken = Vec::new();
    let length = name.chars().count();
    if !(IMAGE_NAME.0..=IMAGE_NAME.1).contains(&length) {
        broken.push(Rule::NameLength { name: name.to_owned(), length });
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(*c);
    if let Some(character) = name.chars().find(|c| !allowed(c)) {
        broken.push(Rule::NameCharacter { name: name.to_owned(), character });
    }
    broken
}

/// The rules of tags that this one breaks.
pub fn tag_rules(key: &str, value: &str) -> Vec<Rule> {
    let mut broken = Vec::new();
    let length = key.chars().count();
    if !(1..=MAX_TAG_KEY).contains(&length) {
        broken.push(Rule::TagKeyLength { key: key.to_owned(), length });
    }
    if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
        broken.push(Rule::TagKeyReserved { key: key.to_owned() });
    }
    let length = value.chars().count();
    if length > MAX_TAG_VALUE {
        broken.push(Rule::TagValueLength { key: key.to_owned(), length });
    }
    broken
}

/// Collects broken rules under the fields that break them.
#[derive(Default)]
struct Broken(Vec<RuleError>);

impl Broken {
    fn add(&mut self, field: impl Into<String>, rule: impl Into<Rule>) {
        self.0.push(RuleError { field: field.into(), rule: rule.into() });
    }

    fn result(self) -> Result<(), Vec<RuleError>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

impl RegisterImage {
    /// Whether EC2 takes the request, as far as it can be told from the request alone: every rule that it breaks, in
    /// the order of its fields.
    pub fn check(&self) -> Result<(), Vec<RuleError>> {
        let mut broken = Broken::default();
        for rule in image_name_rules(&self.name) {
            broken.add("Name", rule);
        }
        let length = self.description.as_ref().map_or(0, |text| text.chars().count());
        if length > MAX_DESCRIPTION {
            broken.add("Description", Rule::DescriptionLength { length });
        }
        if let Some(boot_mode) = self.boot_mode
            && self.architecture == Architecture::Arm64
            && boot_mode == BootMode::LegacyBios
        {
            broken.add("BootMode", Rule::BootMode { boot_mode, architecture: self.architecture });
        }
        self.check_root(&mut broken);
        check_mapping(&self.block_device_mappings, &self.root_device_name, &mut broken);
        if self.tpm_support.is_some() && self.boot_mode != Some(BootMode::Uefi) {
            broken.add("TpmSupport", Rule::TpmWithoutUefi { boot_mode: self.boot_mode });
        }
        self.check_tags(&mut broken);
        broken.result()
    }

    /// Whether every volume fits its snapshot. `gib` knows the size of each snapshot that there is.
    pub fn check_snapshots(&self, gib: impl Fn(SnapshotId) -> Option<u64>) -> Result<(), Vec<RuleError>> {
        let mut broken = Broken::default();
        for (index, entry) in self.block_device_mappings.iter().enumerate() {
            let Some(ebs) = &entry.ebs else { continue };
            let Some(snapshot) = ebs.snapshot_id else { continue };
            match (gib(snapshot), ebs.volume_size) {
                (None, _) => {
                    broken.add(ebs_field(index, "SnapshotId"), Rule::UnknownSnapshot { snapshot });
                }
                (Some(snapshot_gib), Some(gib)) if gib < snapshot_gib => broken.add(
                    ebs_field(index, "VolumeSize"),
                    Rule::SmallerThanSnapshot { gib, snapshot, snapshot_gib },
                ),
                _ => {}
            }
        }
        broken.result()
    }

    fn check_root(&self, broken: &mut Broken) {
        let device = self.root_device_name.clone();
        // EC2 compares names as they are written.
        match self.block_device_mappings.iter().find(|entry| entry.device_name == device) {
            None => broken.add("RootDeviceName", Rule::RootMissing { device }),
            Some(entry) if entry.ebs.as_ref().is_none_or(|ebs| ebs.snapshot_id.is_none()) => {
                broken.add("RootDeviceName", Rule::RootWithoutSnapshot { device });
            }
            Some(_) => {}
        }
    }

    fn check_tags(&self, broken: &mut Broken) {
        if self.tag_specifications.len() > 1 {
            broken.add("TagSpecifications", Rule::TagEntries { given: self.tag_specifications.len() });
        }
        for (index, entry) in self.tag_specifications.iter().enumerate() {
            let field = format!("TagSpecifications[{index}].Tags");
            if entry.tags.len() > MAX_TAGS {
                broken.add(&field, Rule::TooManyTags { given: entry.tags.len() });
            }
            let mut keys = BTreeSet::new();
            for (index, tag) in entry.tags.iter().enumerate() {
                for rule in tag_rules(&tag.key, &tag.value) {
                    let part = if matches!(rule, Rule::TagValueLength { .. }) { "Value" } else { "Key" };
                    broken.add(format!("{field}[{index}].{part}"), rule);
                }
                if !keys.insert(&tag.key) {
                    broken.add(format!("{field}[{index}].Key"), Rule::TagKeyTwice { key: tag.key.clone() });
                }
            }
        }
    }
}

fn ebs_field(index: usize, name: &str) -> String {
    format!("BlockDeviceMappings[{index}].Ebs.{name}")
}

fn check_mapping(mapping: &[BlockDeviceMapping], root: &DeviceName, broken: &mut Broken) {
    for (index, entry) in mapping.iter().enumerate() {
        let device = &entry.device_name;
        if let Some(first) = mapping[..index].iter().find(|other| other.device_name.same_device(device)) {
            let (first, second) = (first.device_name.clone(), device.clone());
            broken
                .add(format!("BlockDeviceMappings[{index}].DeviceName"), Rule::SameDevice { first, second });
        }
        let kinds = [entry.ebs.is_some(), entry.virtual_name.is_some(), entry.no_device.is_some()];
        let given = kinds.into_iter().filter(|kind| *kind).count();
        if given != 1 {
            broken.add(
                format!("BlockDeviceMappings[{index}]"),
                Rule::OneKind { device: device.clone(), given },
            );
        }
        let Some(ebs) = &entry.ebs else { continue };
        if ebs.snapshot_id.is_none() && ebs.volume_size.is_none() {
            broken.add(ebs_field(index, "VolumeSize"), Rule::NoSize { device: device.clone() });
        }
        match ebs.volume_type {
            None => broken.add(ebs_field(index, "VolumeType"), Rule::NoVolumeType { device: device.clone() }),
            Some(volume_type) => {
                let settings = VolumeSettings {
                    volume_type,
                    gib: ebs.volume_size,
                    iops: ebs.iops,
                    throughput: ebs.throughput,
                    boots: device == root,
                };
                for rule in settings.broken_rules() {
                    broken.add(ebs_field(index, rule.field()), rule);
                }
            }
        }
        if let (Some(encrypted), Some(snapshot)) = (ebs.encrypted, ebs.snapshot_id) {
            broken.add(ebs_field(index, "Encrypted"), Rule::EncryptedSnapshot { encrypted, snapshot });
        }
        if let Some(key) = &ebs.kms_key_id {
            broken.add(ebs_field(index, "KmsKeyId"), Rule::KmsKey { key: key.clone() });
        }
    }
}

#[cfg(test)]
mod tests;
