use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use block::SnapshotId;
use serde::{Deserialize, Serialize};

use super::Image;
use crate::AmiId;
use crate::rules::shown;

/// Who else may launch an image, in AWS's shape.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LaunchPermission {
    /// A group; there is one: `all`.
    Group(Everybody),
    /// An account: 12 digits.
    UserId(String),
    /// An organisation.
    OrganizationArn(String),
    /// A part of one.
    OrganizationalUnitArn(String),
}

/// The one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "EC2's own name")]
pub enum Everybody {
    All,
}

/// A text that names nobody an image can be shared with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is nobody to share an image with: write an account's 12 digits, `all` for everybody, or the ARN of an organization or organizational unit (`arn:aws:organizations::123456789012:organization/o-abc123`)",
    shown(.0)
)]
pub struct BadPermission(pub String);

impl LaunchPermission {
    /// Everybody: a public image.
    pub fn everybody() -> Self {
        Self::Group(Everybody::All)
    }
}

impl FromStr for LaunchPermission {
    type Err = BadPermission;

    fn from_str(text: &str) -> Result<Self, BadPermission> {
        let bad = || BadPermission(text.to_owned());
        if text == "all" {
            return Ok(Self::everybody());
        }
        if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::UserId(text.to_owned()));
        }
        // arn:aws:organizations::123456789012:organization/o-… and :ou/o-…/ou-…
        let mut parts = text.splitn(6, ':');
        let [arn, partition, service, region, account] = [(); 5].map(|()| parts.next().unwrap_or_default());
        let resource = parts.next().unwrap_or_default();
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let is_word = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        if arn != "arn"
            || !partition.starts_with("aws")
            || service != "organizations"
            || !region.is_empty()
            || !is_account
        {
            return Err(bad());
        }
        match resource.split('/').collect::<Vec<_>>()[..] {
            ["organization", id] if id.starts_with("o-") && is_word(id) => {
                Ok(Self::OrganizationArn(text.to_owned()))
            }
            ["ou", organization, unit]
                if organization.starts_with("o-")
                    && unit.starts_with("ou-")
                    && is_word(organization)
                    && is_word(unit) =>
            {
                Ok(Self::OrganizationalUnitArn(text.to_owned()))
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for LaunchPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(Everybody::All) => f.write_str("all"),
            Self::UserId(text) | Self::OrganizationArn(text) | Self::OrganizationalUnitArn(text) => {
                f.write_str(text)
            }
        }
    }
}

/// What happens to permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "EC2's own names")]
pub enum PermissionChange {
    Add,
    Remove,
}

/// What is known of a snapshot beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotNotes {
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// What has tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceId {
    /// An image.
    Image(AmiId),
    /// A snapshot.
    Snapshot(SnapshotId),
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(id) => id.fmt(f),
            Self::Snapshot(id) => id.fmt(f),
        }
    }
}

/// A copy in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The copy.
    pub image: Image,
    /// The snapshots to copy, each with the id of its copy.
    pub snapshots: Vec<(SnapshotId, SnapshotId)>,
}

/// What became of the snapshots of an image that is registered no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deregistered {
    /// The image.
    pub image_id: AmiId,
    /// These are to be deleted.
    pub deleted: Vec<SnapshotId>,
    /// These stay, and may be deleted later.
    pub left: Vec<SnapshotId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_read_as_they_are_written_and_have_awss_shape() {
        for (text, json) in [
            ("all", r#"{"Group":"all"}"#),
            ("123456789012", r#"{"UserId":"123456789012"}"#),
            (
                "arn:aws:organizations::123456789012:organization/o-123example",
                r#"{"OrganizationArn":"arn:aws:organizations::123456789012:organization/o-123example"}"#,
            ),
            (
                "arn:aws-us-gov:organizations::123456789012:ou/o-123example/ou-1234-5example",
                r#"{"OrganizationalUnitArn":"arn:aws-us-gov:organizations::123456789012:ou/o-123example/ou-1234-5example"}"#,
            ),
        ] {
            let permission: LaunchPermission = text.parse().unwrap();
            assert_eq!(permission.to_string(), text);
            assert_eq!(serde_json::to_string(&permission).unwrap(), json);
            assert_eq!(serde_json::from_str::<LaunchPermission>(json).unwrap(), permission);
        }
        for bad in [
            "",
            "All",
            "12345678901",
            "1234567890123",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:organizations::1:organization/o-1",
            "arn:aws:organizations::123456789012:organization/x",
        ] {
            assert!(bad.parse::<LaunchPermission>().is_err(), "{bad}");
        }
    }
}
