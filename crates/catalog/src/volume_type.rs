use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{self, VolumeLimits};

/// A type of EBS volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "EC2's own names")]
pub enum VolumeType {
    Gp3,
    Gp2,
    Io1,
    Io2,
    St1,
    Sc1,
    Standard,
}

impl VolumeType {
    /// Every type, gp3 first.
    pub const ALL: [Self; 7] =
        [Self::Gp3, Self::Gp2, Self::Io1, Self::Io2, Self::St1, Self::Sc1, Self::Standard];

    /// EC2's name: `gp3`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gp3 => "gp3",
            Self::Gp2 => "gp2",
            Self::Io1 => "io1",
            Self::Io2 => "io2",
            Self::St1 => "st1",
            Self::Sc1 => "sc1",
            Self::Standard => "standard",
        }
    }

    /// What EC2 takes for a volume of this type.
    pub fn limits(self) -> &'static VolumeLimits {
        match self {
            Self::Gp3 => &limits::GP3,
            Self::Gp2 => &limits::GP2,
            Self::Io1 => &limits::IO1,
            Self::Io2 => &limits::IO2,
            Self::St1 => &limits::ST1,
            Self::Sc1 => &limits::SC1,
            Self::Standard => &limits::STANDARD,
        }
    }
}

impl fmt::Display for VolumeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
