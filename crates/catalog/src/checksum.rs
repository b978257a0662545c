//! Checksums as the EBS direct API wants them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use block::{Digest, Hasher};

/// The checksum that `PutSnapshotBlock` wants for a block: base64 of its id ([`block::block_id`]).
pub fn block_checksum(id: Digest) -> String {
    STANDARD.encode(id.0)
}

/// The checksum that `CompleteSnapshot` wants with aggregation method LINEAR: base64 of the SHA-256 over the ids of the
/// blocks that were sent, 32 bytes each, by rising index. It knows neither where the blocks lie nor the volume's size,
/// so it identifies nothing.
pub fn linear_checksum(ids: impl IntoIterator<Item = Digest>) -> String {
    let mut hasher = Hasher::new();
    for id in ids {
        hasher.update(&id.0);
    }
    STANDARD.encode(hasher.finish().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_api() {
        assert_eq!(linear_checksum([]), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        let block = block::block_id(b"block").unwrap();
        assert_eq!(block_checksum(block), "h9SCOUObTpJ6jqOYZQG9ddG5Q7nSxqRaorlarlNb4pU=");
        let second = block::block_id(b"second").unwrap();
        assert_eq!(linear_checksum([block, second]), "uhNYO/XKMC8DZ5WiWrh7Lmoc2ck/lO/S9jsjhb5glXo=");
        assert_ne!(linear_checksum([second, block]), linear_checksum([block, second]));
    }
}
