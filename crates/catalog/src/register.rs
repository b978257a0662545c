use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{BlockDeviceMapping, DeviceName};

/// The input of `aws ec2 register-image --cli-input-json`, in AWS's shape. Written with `serde_json`, its keys come in
/// the order below. Where AWS's default is never what is meant (architecture, virtualization) the key is always there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RegisterImage {
    /// The image's name, one of its kind in account and region.
    pub name: String,
    /// What the image is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which machines run it.
    pub architecture: Architecture,
    /// How they run it.
    pub virtualization_type: VirtualizationType,
    /// How firmware starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<BootMode>,
    /// The device that it boots from: one of the mapping, with a snapshot.
    pub root_device_name: DeviceName,
    /// Its volumes.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// Whether it drives Elastic Network Adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ena_support: Option<bool>,
    /// Whether it drives the network cards of older Intel machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sriov_net_support: Option<SriovNetSupport>,
    /// Whether its instances ask the metadata service with a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imds_support: Option<ImdsSupport>,
    /// Whether its instances have a TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm_support: Option<TpmSupport>,
    /// Tags of the image: none or one entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tag_specifications: Vec<TagSpecification>,
}

/// Why a text is no registration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no registration: {0}")]
pub struct NotARegistration(String);

impl RegisterImage {
    /// Reads the JSON that `aws ec2 register-image --cli-input-json` takes, as far as it is about what this house knows.
    pub fn from_json(text: &[u8]) -> Result<Self, NotARegistration> {
        // Strangers' keys are quoted in it.
        serde_json::from_slice(text).map_err(|error| NotARegistration(json_problem(&error)))
    }

    /// What a Linux image of today says: hvm; booted as the architecture can (x86_64 uefi-preferred, arm64 uefi); with
    /// ENA, and for x86_64 also `SriovNetSupport`; IMDSv2 alone; no description, no tags.
    pub fn new(
        name: String,
        architecture: Architecture,
        root_device_name: DeviceName,
        block_device_mappings: Vec<BlockDeviceMapping>,
    ) -> Self {
        let (boot_mode, sriov_net_support) = match architecture {
            Architecture::X86_64 => (BootMode::UefiPreferred, Some(SriovNetSupport::Simple)),
            Architecture::Arm64 => (BootMode::Uefi, None),
        };
        Self {
            name,
            description: None,
            architecture,
            virtualization_type: VirtualizationType::Hvm,
            boot_mode: Some(boot_mode),
            root_device_name,
            block_device_mappings,
            ena_support: Some(true),
            sriov_net_support,
            imds_support: Some(ImdsSupport::V2),
            tpm_support: None,
            tag_specifications: Vec::new(),
        }
    }

    /// The same with these tags for the image, sorted by key.
    pub fn with_tags(mut self, tags: &BTreeMap<String, String>) -> Self {
        let tags: Vec<Tag> =
            tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect();
        self.tag_specifications = match tags.is_empty() {
            true => Vec::new(),
            false => vec![TagSpecification { resource_type: TaggedResource::Image, tags }],
        };
        self
    }
}

/// The words of an error of strangers' JSON, so that they can be shown: not endless, and nothing that a terminal would obey.
pub(crate) fn json_problem(error: &serde_json::Error) -> String {
    const MOST: usize = 500;
    let text = error.to_string();
    let text = block::without_escapes(&text);
    match text.char_indices().nth(MOST) {
        None => text,
        // Where it is stands at the end.
        Some((at, _)) => format!("{}… at line {} column {}", &text[..at], error.line(), error.column()),
    }
}

/// The architectures that images are made for, in EC2's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// 64-bit PCs.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    #[serde(rename = "arm64")]
    Arm64,
}

impl Architecture {
    /// EC2's name: `x86_64`, `arm64`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How firmware starts the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootMode {
    /// UEFI where the instance has it, BIOS elsewhere.
    UefiPreferred,
    /// UEFI only.
    Uefi,
    /// BIOS only.
    LegacyBios,
}

impl BootMode {
    /// EC2's name: `uefi-preferred`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UefiPreferred => "uefi-preferred",
            Self::Uefi => "uefi",
            Self::LegacyBios => "legacy-bios",
        }
    }
}

impl fmt::Display for BootMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an instance is run. AWS's default is the other one, paravirtual, which no image of today is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "EC2's own name")]
pub enum VirtualizationType {
    Hvm,
}

/// The one value that `SriovNetSupport` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "EC2's own name")]
pub enum SriovNetSupport {
    Simple,
}

/// The one value that `ImdsSupport` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImdsSupport {
    /// Instances ask the metadata service with a token.
    #[serde(rename = "v2.0")]
    V2,
}

/// The one value that `TpmSupport` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TpmSupport {
    /// TPM 2.0.
    #[serde(rename = "v2.0")]
    V2,
}

/// Tags for one kind of resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TagSpecification {
    /// Which kind.
    pub resource_type: TaggedResource,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// What register-image tags: the image alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "EC2's own name")]
pub enum TaggedResource {
    Image,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Tag {
    /// Its key.
    pub key: String,
    /// Its value; may be empty.
    pub value: String,
}
