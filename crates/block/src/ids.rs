use crate::Hasher;

/// A text that is not the id it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: it must be `{prefix}` and 17 hexadecimal digits, letters small")]
pub struct BadId {
    /// The text.
    pub text: String,
    /// How ids of this kind begin.
    pub prefix: &'static str,
}

/// The digits of an id, without what it begins with.
#[doc(hidden)]
pub fn id_digits(text: &str, prefix: &'static str) -> Result<[u8; 17], BadId> {
    let digits = text.strip_prefix(prefix).and_then(|digits| <[u8; 17]>::try_from(digits.as_bytes()).ok());
    digits
        .filter(|digits| digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
        .ok_or_else(|| BadId { text: text.to_owned(), prefix })
}

/// Makes a type of ids as AWS writes them: a word, a dash and 17 hexadecimal digits.
#[macro_export]
macro_rules! id {
    ($name:ident, $word:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 17]);

        impl $name {
            /// How ids of this kind begin.
            pub const PREFIX: &'static str = concat!($word, "-");

            /// The id that follows from a digest: its first 17 digits.
            pub fn from_digest(digest: $crate::Digest) -> Self {
                let mut digits = [0; 17];
                digits.copy_from_slice(&digest.to_hex().as_bytes()[..17]);
                Self(digits)
            }

            /// The digits alone.
            pub fn digits(&self) -> &[u8; 17] {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(Self::PREFIX)?;
                self.0.iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::BadId;

            fn from_str(text: &str) -> Result<Self, $crate::BadId> {
                $crate::id_digits(text, Self::PREFIX).map(Self)
            }
        }

        impl $crate::serde::Serialize for $name {
            fn serialize<S: $crate::serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> $crate::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <String as $crate::serde::Deserialize>::deserialize(from)?;
                text.parse().map_err($crate::serde::de::Error::custom)
            }
        }
    };
}

id!(SnapshotId, "snap", "The id of a snapshot: `snap-` and 17 hexadecimal digits.");

/// A UUID that follows from names alone (RFC 9562 version 8): the same names give the same UUID on every machine.
///
/// `recipe` is the recipe's name without its version, `device` the volume's device name, `role` what the UUID is
/// for ("disk", "root", "esp", …). The 16 bytes are in the order in which a UUID is written.
pub fn derived_uuid(recipe: &str, device: &str, role: &str) -> [u8; 16] {
    let mut hasher = Hasher::new();
    for field in ["bakehouse uuid 1", recipe, device, role] {
        hasher.field(field.as_bytes());
    }
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&hasher.finish().0[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// Writes a UUID in its usual form, lower case, 8-4-4-4-12.
pub fn format_uuid(uuid: [u8; 16]) -> String {
    let digits = hex::encode(uuid);
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Digest;

    #[test]
    fn a_derived_uuid_is_a_version_8_uuid_and_depends_on_every_name() {
        let uuid = format_uuid(derived_uuid("hello-web", "/dev/xvda", "root"));
        assert_eq!(uuid.as_bytes()[14], b'8');
        assert!(matches!(uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        for (recipe, device, role) in [
            ("hello-we", "b/dev/xvda", "root"),
            ("hello-web", "/dev/xvdf", "root"),
            ("hello-web", "/dev/xvda", "esp"),
        ] {
            assert_ne!(uuid, format_uuid(derived_uuid(recipe, device, role)));
        }
    }

    #[test]
    fn other_texts_are_no_ids() {
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
        assert!(serde_json::from_str::<SnapshotId>("\"snap-1\"").is_err());
        let id = SnapshotId::from_digest(Digest::of(b"a"));
        assert_eq!(id.to_string(), format!("snap-{}", &Digest::of(b"a").to_hex()[..17]));
    }

    proptest! {
        #[test]
        fn an_id_reads_back(text in "snap-[0-9a-f]{17}") {
            let id: SnapshotId = text.parse().unwrap();
            prop_assert_eq!(id.to_string(), &*text);
            prop_assert_eq!(id.digits(), &text.as_bytes()[5..]);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(&json, &format!("\"{text}\""));
            prop_assert_eq!(serde_json::from_str::<SnapshotId>(&json).unwrap(), id);
        }
    }
}
