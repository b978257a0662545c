use block::{Digest, Hasher, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::{Architecture, DeviceName};

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
        Self { account: Self::ACCOUNT.to_owned(), region: Self::REGION.to_owned() }
    }
}

block::id!(AmiId, "ami", "The id of an image: `ami-` and 17 hexadecimal digits.");

impl Home {
    /// The region that everything is in that was put into no other.
    pub const REGION: &'static str = "local";
    /// The account of a machine that is nobody's.
    pub const ACCOUNT: &'static str = "000000000000";

    /// The id of an image that an account draws for its `number`th thing: registered, copied, created.
    pub fn drawn_ami_id(&self, number: u64) -> AmiId {
        AmiId::from_digest(self.drawn("ami", number))
    }

    /// The id of a snapshot that an account draws for its `number`th thing.
    pub fn drawn_snapshot_id(&self, number: u64) -> SnapshotId {
        SnapshotId::from_digest(self.drawn("snap", number))
    }

    /// SHA-256 over account, region, kind and number, each after its length.
    fn drawn(&self, kind: &str, number: u64) -> Digest {
        let mut hasher = Hasher::new();
        for field in [&self.account, &self.region, kind] {
            hasher.field(field.as_bytes());
        }
        hasher.field(&number.to_le_bytes());
        hasher.finish()
    }

    /// The id of a baked volume's snapshot: the same wherever the same content is baked under the same names.
    /// `snapshot` is [`block::snapshot_digest`] of the volume.
    ///
    /// It is the first 17 digits of the SHA-256 over `snap`, account, region, image name, architecture (EC2's word),
    /// device (as the mapping has it) and the digest's 32 bytes, each after its length ([`Hasher::field`]).
    pub fn snapshot_id(
        &self,
        image_name: &str,
        architecture: Architecture,
        device: &DeviceName,
        snapshot: Digest,
    ) -> SnapshotId {
        let fields = [device.as_str().as_bytes(), &snapshot.0];
        SnapshotId::from_digest(self.digest("snap", image_name, architecture, &fields))
    }

    /// The id of a baked image: the same wherever the same content is baked under the same names. `manifest` is the
    /// image's manifest without any id.
    ///
    /// It is the first 17 digits of the SHA-256 over `ami`, account, region, image name, architecture (EC2's word) and
    /// the manifest, each after its length ([`Hasher::field`]).
    pub fn ami_id(&self, image_name: &str, architecture: Architecture, manifest: &[u8]) -> AmiId {
        AmiId::from_digest(self.digest("ami", image_name, architecture, &[manifest]))
    }

    fn digest(&self, word: &str, image_name: &str, architecture: Architecture, rest: &[&[u8]]) -> Digest {
        let mut hasher = Hasher::new();
        for field in [word, &self.account, &self.region, image_name, architecture.as_str()] {
            hasher.field(field.as_bytes());
        }
        for field in rest {
            hasher.field(field);
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(home: &Home, name: &str, device: &str, content: &[u8]) -> SnapshotId {
        let device = DeviceName::new(device).unwrap();
        home.snapshot_id(name, Architecture::X86_64, &device, Digest::of(content))
    }

    #[test]
    fn ids_stay_what_they_are() {
        let home = Home::default();
        assert_eq!(
            snapshot(&home, "hello-web-1.0.0", "/dev/xvda", b"a").to_string(),
            "snap-55c6e6203f15110c4"
        );
        let image = home.ami_id("hello-web-1.0.0", Architecture::Arm64, b"{}");
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
            home.snapshot_id(
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
}
