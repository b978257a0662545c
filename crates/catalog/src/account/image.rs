use std::collections::{BTreeMap, BTreeSet};

use block::SnapshotId;
use serde::{Deserialize, Serialize};

use super::parts::LaunchPermission;
use crate::time::years_after;
use crate::{AmiId, RegisterImage};

/// An image that is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its id.
    pub image_id: AmiId,
    /// What it was registered with; its tags are in `tags`.
    pub registration: RegisterImage,
    /// Seconds since 1970.
    pub creation_date: i64,
    /// What may be done with it.
    pub state: ImageState,
    /// The region and the image that it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<(String, AmiId)>,
    /// Who else may launch it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub launch_permissions: BTreeSet<LaunchPermission>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// When it is deprecated, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecation_time: Option<i64>,
    /// Whether it is protected from being deregistered,
    #[serde(default)]
    pub(super) protection: bool,
    /// and for a day after that ends.
    #[serde(default)]
    pub(super) cooldown: bool,
    /// When the day after is over, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) protected_until: Option<i64>,
}

/// What may be done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageState {
    /// It can be launched and copied.
    Available,
    /// It cannot, until it is enabled.
    Disabled,
}

impl ImageState {
    /// EC2's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Disabled => "disabled",
        }
    }
}

impl Image {
    pub(super) fn new(image_id: AmiId, mut registration: RegisterImage, now: i64) -> Self {
        let given = std::mem::take(&mut registration.tag_specifications);
        let tags = given.into_iter().flat_map(|entry| entry.tags).map(|tag| (tag.key, tag.value)).collect();
        Self {
            image_id,
            registration,
            creation_date: now,
            state: ImageState::Available,
            source: None,
            launch_permissions: BTreeSet::new(),
            tags,
            deprecation_time: None,
            protection: false,
            cooldown: false,
            protected_until: None,
        }
    }

    /// The snapshots that its volumes come from, one for each volume that has one.
    pub fn snapshots(&self) -> impl Iterator<Item = SnapshotId> {
        let mappings = self.registration.block_device_mappings.iter();
        mappings.filter_map(|entry| entry.ebs.as_ref()?.snapshot_id)
    }

    /// Whether everybody may launch it.
    pub fn is_public(&self) -> bool {
        self.launch_permissions.contains(&LaunchPermission::everybody())
    }

    /// When a public image is deprecated at the latest: two years after its creation, or when it was said to be.
    pub(super) fn last_public_deprecation(&self) -> i64 {
        let most = years_after(self.creation_date, 2);
        self.deprecation_time.map_or(most, |at| at.min(most))
    }

    /// Whether it cannot be deregistered now.
    pub fn is_protected(&self, now: i64) -> bool {
        self.protection || self.protected_until.is_some_and(|until| now < until)
    }

    /// Until when it cannot be deregistered, where that is decided; seconds since 1970.
    pub fn protected_until(&self, now: i64) -> Option<i64> {
        self.protected_until.filter(|until| !self.protection && now < *until)
    }

    /// EC2's word for that.
    pub fn protection(&self, now: i64) -> String {
        match (self.protection, self.cooldown) {
            (true, true) => "enabled-with-cooldown".to_owned(),
            (true, false) => "enabled-without-cooldown".to_owned(),
            (false, _) if self.is_protected(now) => "disabled-in-cooldown".to_owned(),
            (false, _) => "disabled".to_owned(),
        }
    }
}
