use block::SnapshotId;

use super::parts::ResourceId;
use crate::register::json_problem;
use crate::rules::shown;
use crate::{AmiId, Rule, RuleError, format_time};

/// What EC2 would refuse, with the code of its error ([`ApiError::code`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A request breaks rules.
    #[error("{}", .rules.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Rules {
        /// All of them, in the order of the request's fields.
        rules: Vec<RuleError>,
    },
    /// Another image has the name.
    #[error(
        "{image} has the name `{}` already; a name is one of its kind in account and region: choose another, or deregister that image",
        shown(.name)
    )]
    DuplicateName {
        /// The name.
        name: String,
        /// The image that has it.
        image: AmiId,
    },
    /// There is no such image.
    #[error("there is no image `{}` in region `{region}`{}", shown(.wanted), .elsewhere.as_ref().map_or_else(String::new, |name| format!("; region `{name}` has it")))]
    NoImage {
        /// Its id or name, as it was asked for.
        wanted: String,
        /// Where.
        region: String,
        /// Where there is one.
        elsewhere: Option<String>,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot {snapshot} in region `{region}`{}", .elsewhere.as_ref().map_or_else(String::new, |name| format!("; region `{name}` has it")))]
    NoSnapshot {
        /// Its id.
        snapshot: SnapshotId,
        /// Where.
        region: String,
        /// Where there is one.
        elsewhere: Option<String>,
    },
    /// An image uses a snapshot that is to go.
    #[error("{snapshot} is in use by {image}; deregister that image first")]
    SnapshotInUse {
        /// The snapshot.
        snapshot: SnapshotId,
        /// An image that uses it.
        image: AmiId,
    },
    /// An image that is protected is to go.
    #[error("{image} is protected from being deregistered{}", .until.map_or_else(|| "; end its protection first".to_owned(), |until| format!(" until {}: protection ends a day after it is disabled", format_time(until))))]
    Protected {
        /// The image.
        image: AmiId,
        /// Until when, where that is decided; seconds since 1970.
        until: Option<i64>,
    },
    /// The image is disabled.
    #[error("{image} is disabled; enable it first")]
    Unavailable {
        /// The image.
        image: AmiId,
    },
    /// A tag that nothing can have.
    #[error("Tags: {rule}")]
    InvalidTag {
        /// The rule that it breaks.
        rule: Rule,
    },
    /// Too many tags on one resource.
    #[error("{resource} would have {given} tags; a resource has {} at most", crate::MAX_TAGS)]
    TagLimit {
        /// The resource.
        resource: ResourceId,
        /// How many.
        given: usize,
    },
    /// Deprecation in the past.
    #[error("DeprecateAt: {} has passed; an image is deprecated at a time to come", format_time(*.at))]
    PastDeprecation {
        /// When; seconds since 1970.
        at: i64,
    },
    /// A public image is always deprecated some time.
    #[error(
        "{image} is public: when it is deprecated can be made earlier, not later and not never; end its sharing with all first"
    )]
    PublicDeprecation {
        /// The image.
        image: AmiId,
    },
    /// Deprecation too far ahead.
    #[error(
        "DeprecateAt: {} is too late; the last moment is {}, ten years from now; for a public image two years after its creation, or what was said before",
        format_time(*.at),
        format_time(*.most)
    )]
    LateDeprecation {
        /// When; seconds since 1970.
        at: i64,
        /// The last moment that EC2 takes.
        most: i64,
    },
}

impl ApiError {
    /// EC2's code for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rules { rules } => match rules.first().map(|broken| &broken.rule) {
                Some(Rule::NameLength { .. } | Rule::NameCharacter { .. }) => "InvalidAMIName.Malformed",
                Some(Rule::UnknownSnapshot { .. }) => "InvalidSnapshot.NotFound",
                Some(Rule::SameDevice { .. } | Rule::OneKind { .. } | Rule::NoSize { .. }) => {
                    "InvalidBlockDeviceMapping"
                }
                _ => "InvalidParameterValue",
            },
            Self::PastDeprecation { .. } | Self::LateDeprecation { .. } | Self::InvalidTag { .. } => {
                "InvalidParameterValue"
            }
            Self::DuplicateName { .. } => "InvalidAMIName.Duplicate",
            Self::NoImage { .. } => "InvalidAMIID.NotFound",
            Self::NoSnapshot { .. } => "InvalidSnapshot.NotFound",
            Self::SnapshotInUse { .. } => "InvalidSnapshot.InUse",
            Self::Protected { .. } | Self::PublicDeprecation { .. } => "OperationNotPermitted",
            Self::Unavailable { .. } => "InvalidAMIID.Unavailable",
            Self::TagLimit { .. } => "TagLimitExceeded",
        }
    }
}

impl From<serde_json::Error> for NotAnAccount {
    fn from(error: serde_json::Error) -> Self {
        Self::Damaged(json_problem(&error))
    }
}

/// Why bytes are no account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAccount {
    /// They are of another version of the program.
    #[error("it is of version {version}; this program reads version 1")]
    Version {
        /// Theirs.
        version: u32,
    },
    /// They are damaged.
    #[error(
        "it is damaged: {0}; put a copy back, or move it away: then this store has no images, and all its snapshots"
    )]
    Damaged(String),
}
