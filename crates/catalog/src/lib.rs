//! AWS's words and rules for images: their ids, their block device mapping, their registration.
//!
//! *What comes in:* names, sizes, digests of snapshots; or JSON in AWS's own shape. *What goes out:* values that write
//! themselves in that shape ([`RegisterImage`], [`BlockDeviceMapping`]), ids ([`AmiId`], [`SnapshotId`]), the checksums
//! of the EBS direct API, an account's images as one value with EC2's calls as its methods ([`Account`]), and every broken rule as a value with its
//! field ([`RuleError`]). *What it may not know:*
//! QEMU, recipes, disk images, the store. It does no I/O.
//!
//! What EC2 takes is written down in one file, `limits.rs`, with its date: the numbers move.

mod account;
mod checksum;
mod device;
mod ids;
mod limits;
mod mapping;
mod register;
mod rules;
mod time;
mod volume_type;

pub use account::{
    Account, ApiError, BadPermission, Copied, Deregistered, Everybody, Image, ImageState, LaunchPermission,
    NotAnAccount, PermissionChange, ResourceId, SnapshotNotes,
};
pub use block::SnapshotId;
pub use checksum::{block_checksum, linear_checksum};
pub use device::{BadDeviceName, DeviceName};
pub use ids::{AmiId, Home};
pub use limits::{
    DEFAULT_IOPS, IMAGE_NAME, IOPS_PER_THROUGHPUT, LIMITS_DATE, MAX_DESCRIPTION, MAX_EPHEMERAL, MAX_TAG_KEY,
    MAX_TAG_VALUE, MAX_TAGS, VolumeLimits,
};
pub use mapping::{BadVirtualName, BlockDeviceMapping, Ebs, NoDevice, VirtualName};
pub use register::{
    Architecture, BootMode, ImdsSupport, NotARegistration, RegisterImage, SriovNetSupport, Tag,
    TagSpecification, TaggedResource, TpmSupport, VirtualizationType,
};
pub use rules::{Rule, RuleError, VolumeRule, VolumeSettings, image_name_rules, tag_rules};
pub use time::{format_time, parse_time};
pub use volume_type::VolumeType;
