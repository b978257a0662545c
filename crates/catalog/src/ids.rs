use std::fmt;
use std::str::FromStr;

use block::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use crate::{Architecture, DeviceName};

/// Hexadecimal digits of an id.
const DIGITS: usize = 17;

/// Whose an image is, and where. Ids follow from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Home {
    /// The account: 12 digits.
    pub account: String,
    /// The region's name.
    pub region: String,
}

impl Default for Home {
    /// Account 000000000000, region `local`.
    fn default() -> Self {
        Self { account: "000000000000".to_owned(), region: "local".to_owned() }
    }
}

/// A text that is not the id it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: it must be `{prefix}` and 17 hexadecimal digits, letters small")]
pub struct BadId {
    /// The text.
    pub text: String,
    /// How ids of this kind begin.
    pub prefix: &'static str,
}

macro_rules! id {
    ($name:ident, $kind:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; DIGITS]);

        impl $name {
            /// How ids of this kind begin.
            pub const PREFIX: &'static str = concat!($kind, "-");

            /// The id that follows from these fields: the first 17 digits of their hash.
            fn derive(fields: &[&[u8]]) -> Self {
                let mut hasher = Hasher::new();
                hasher.field($kind.as_bytes());
                for field in fields {
                    hasher.field(field);
                }
                let mut digits = [0; DIGITS];
                digits.copy_from_slice(&hasher.finish().to_hex().as_bytes()[..DIGITS]);
                Self(digits)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Self::PREFIX)?;
                self.0.iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let digits = text.strip_prefix(Self::PREFIX).and_then(|rest| rest.as_bytes().try_into().ok());
                match digits {
                    Some(digits) if is_lower_hex(&digits) => Ok(Self(digits)),
                    _ => Err(BadId { text: text.to_owned(), prefix: Self::PREFIX }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

id!(SnapshotId, "snap", "The id of a snapshot: `snap-` and 17 hexadecimal digits.");
id!(AmiId, "ami", "The id of an image: `ami-` and 17 hexadecimal digits.");

fn is_lower_hex(digits: &[u8; DIGITS]) -> bool {
    digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

impl SnapshotId {
    /// The id of a baked volume's snapshot: the same wherever the same content is baked under the same names.
    /// `snapshot` is [`block::snapshot_digest`] of the volume.
    ///
    /// It is the first 17 digits of the SHA-256 over `snap`, account, region, image name, architecture (EC2's word),
    /// device (as the mapping has it) and the digest's 32 bytes, each after its length ([`Hasher::field`]).
    pub fn local(
        home: &Home,
        image_name: &str,
        architecture: Architecture,
        device: &DeviceName,
        snapshot: Digest,
    ) -> Self {
        Self::derive(&[
            home.account.as_bytes(),
            home.region.as_bytes(),
            image_name.as_bytes(),
            architecture.as_str().as_bytes(),
            device.as_str().as_bytes(),
            &snapshot.0,
        ])
    }
}

impl AmiId {
    /// The id of a baked image: the same wherever the same content is baked under the same names. `manifest` is the
    /// image's manifest without any id.
    ///
    /// It is the first 17 digits of the SHA-256 over `ami`, account, region, image name, architecture (EC2's word) and
    /// the manifest, each after its length ([`Hasher::field`]).
    pub fn local(home: &Home, image_name: &str, architecture: Architecture, manifest: &[u8]) -> Self {
        Self::derive(&[
            home.account.as_bytes(),
            home.region.as_bytes(),
            image_name.as_bytes(),
            architecture.as_str().as_bytes(),
            manifest,
        ])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot(home: &Home, name: &str, device: &str, content: &[u8]) -> SnapshotId {
        let device = DeviceName::new(device).unwrap();
        SnapshotId::local(home, name, Architecture::X86_64, &device, Digest::of(content))
    }

    #[test]
    fn ids_stay_what_they_are() {
        let home = Home::default();
        assert_eq!(
            snapshot(&home, "hello-web-1.0.0", "/dev/xvda", b"a").to_string(),
            "snap-55c6e6203f15110c4"
        );
        let image = AmiId::local(&home, "hello-web-1.0.0", Architecture::Arm64, b"{}");
        assert_eq!(image.to_string(), "ami-fdb21467b002ed180");
    }

    #[test]
    fn every_field_counts() {
        let home = Home::default();
        let elsewhere = Home { region: "eu-west-1".to_owned(), ..Home::default() };
        let other = Home { account: "123456789012".to_owned(), ..Home::default() };
        let mut ids = vec![
            snapshot(&home, "a", "/dev/xvda", b"a"),
            snapshot(&elsewhere, "a", "/dev/xvda", b"a"),
            snapshot(&other, "a", "/dev/xvda", b"a"),
            snapshot(&home, "b", "/dev/xvda", b"a"),
            snapshot(&home, "a", "/dev/xvdf", b"a"),
            snapshot(&home, "a", "/dev/xvda", b"b"),
            SnapshotId::local(
                &home,
                "a",
                Architecture::Arm64,
                &DeviceName::new("/dev/xvda").unwrap(),
                Digest::of(b"a"),
            ),
        ];
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 7);
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "snap-",
            "snap-0123456789abcdef",
            "snap-0123456789abcdef01",
            "snap-0123456789ABCDEF0",
            "snap-0123456789abcdeg0",
            "ami-0123456789abcdef0",
            "snap-0123456789abcde\u{e9}",
        ] {
            assert!(bad.parse::<SnapshotId>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<AmiId>("\"ami-1\"").is_err());
    }

    proptest! {
        #[test]
        fn an_id_reads_back(text in "snap-[0-9a-f]{17}") {
            let id: SnapshotId = text.parse().unwrap();
            prop_assert_eq!(id.to_string(), &*text);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(&json, &format!("\"{text}\""));
            prop_assert_eq!(serde_json::from_str::<SnapshotId>(&json).unwrap(), id);
        }
    }
}
