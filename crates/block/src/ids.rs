use crate::Hasher;

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
    use super::*;

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
}
