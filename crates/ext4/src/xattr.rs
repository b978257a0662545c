//! Extended attributes: 96 bytes in the inode, then one block of their own.
//!
//! ```text
//! in the inode  0 magic ea020000 u32 │ 4 entries … │ zero u32 │ … values, from the end down
//! in a block    0 magic ea020000 u32 │ 4 references u32 │ 8 blocks u32 │ 12 hash u32 │ 16 checksum u32
//!               32 entries, sorted … │ zero u32 │ … values, from the end down
//! entry         0 name length u8 │ 1 prefix u8 │ 2 value offset u16 │ 4 value inode u32 │ 8 value size u32
//!               12 hash u32 │ 16 name, to a multiple of 4
//! ```
//!
//! A value's offset counts from the first entry in the inode, and from the start of a block.

use std::collections::BTreeMap;

use crate::FS_BLOCK;
use crate::bytes::{put16, put32};
use crate::checksum::crc32c;

/// Bytes for attributes in an inode.
pub(crate) const INLINE_SIZE: usize = 96;
/// Most inodes that may share a block.
const MAX_REFERENCES: u32 = 1024;

const MAGIC: u32 = 0xea02_0000;
const INLINE_HEADER: usize = 4;
const BLOCK_HEADER: usize = 32;
const ENTRY: usize = 16;
/// The zero that ends the entries.
const END: usize = 4;

/// Why attributes cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// ext4 has no place for a name like this.
    Name(Vec<u8>),
    /// The value is not a list of access rules as getxattr(2) gives it.
    AccessList(Vec<u8>),
    /// What does not fit into the inode needs this many bytes; a block has fewer.
    TooLarge(usize),
}

/// The attributes of one inode.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoded {
    pub(crate) inline: Option<Box<[u8; INLINE_SIZE]>>,
    /// A block without its reference count and checksum.
    pub(crate) block: Option<Vec<u8>>,
}

/// Bytes that attributes may use in a block.
pub(crate) const BLOCK_ROOM: usize = FS_BLOCK as usize - BLOCK_HEADER - END;
const INLINE_ROOM: usize = INLINE_SIZE - INLINE_HEADER - END;

/// An attribute in the terms of the disk. Blocks are sorted by prefix, then length of name, then name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    prefix: u8,
    name_len: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Attribute {
    fn new(name: &[u8], value: &[u8]) -> Result<Self, Refusal> {
        const WHOLE: [(&[u8], u8); 2] = [(b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3)];
        const PREFIXES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
        if let Some((_, prefix)) = WHOLE.iter().find(|(whole, _)| *whole == name) {
            let value = disk_access_list(value).ok_or_else(|| Refusal::AccessList(name.to_vec()))?;
            return Ok(Self { prefix: *prefix, name_len: 0, name: Vec::new(), value });
        }
        let split = PREFIXES.iter().find_map(|(text, prefix)| Some((name.strip_prefix(*text)?, *prefix)));
        match split {
            Some((rest, prefix)) if (1..=255).contains(&rest.len()) && !rest.contains(&0) => {
                Ok(Self { prefix, name_len: rest.len(), name: rest.to_vec(), value: value.to_vec() })
            }
            _ => Err(Refusal::Name(name.to_vec())),
        }
    }

    fn size(&self) -> usize {
        ENTRY + self.name.len().next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }

    /// The hash that stands beside an entry in a block.
    fn hash(&self) -> u32 {
        let mut hash = 0u32;
        for byte in &self.name {
            hash = hash.rotate_left(5) ^ u32::from(*byte);
        }
        for word in self.value.chunks(4) {
            let mut bytes = [0; 4];
            bytes[..word.len()].copy_from_slice(word);
            hash = hash.rotate_left(16) ^ u32::from_le_bytes(bytes);
        }
        hash
    }
}

/// Puts attributes into the inode as long as they fit there, and the others into a block.
pub(crate) fn encode(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Encoded, Refusal> {
    if xattrs.is_empty() {
        return Ok(Encoded::default());
    }
    let mut all =
        xattrs.iter().map(|(name, value)| Attribute::new(name, value)).collect::<Result<Vec<_>, _>>()?;
    all.sort();
    let mut free = INLINE_ROOM;
    let (inside, outside): (Vec<_>, Vec<_>) = all.into_iter().partition(|attribute| {
        let fits = attribute.size() <= free;
        free -= if fits { attribute.size() } else { 0 };
        fits
    });
    let mut encoded = Encoded::default();
    if !inside.is_empty() {
        let mut bytes = Box::new([0; INLINE_SIZE]);
        put32(&mut bytes[..], 0, MAGIC);
        put_entries(&mut bytes[INLINE_HEADER..], 0, &inside, |_| 0);
        encoded.inline = Some(bytes);
    }
    if !outside.is_empty() {
        let size = outside.iter().map(Attribute::size).sum();
        if size > BLOCK_ROOM {
            return Err(Refusal::TooLarge(size));
        }
        let mut block = vec![0; FS_BLOCK as usize];
        put32(&mut block, 0, MAGIC);
        put32(&mut block, 8, 1);
        put_entries(&mut block, BLOCK_HEADER, &outside, Attribute::hash);
        let hashes = outside.iter().map(Attribute::hash);
        let whole = hashes.clone().fold(0u32, |whole, hash| whole.rotate_left(16) ^ hash);
        put32(&mut block, 12, if hashes.clone().any(|hash| hash == 0) { 0 } else { whole });
        encoded.block = Some(block);
    }
    Ok(encoded)
}

fn put_entries(area: &mut [u8], mut at: usize, attributes: &[Attribute], hash: impl Fn(&Attribute) -> u32) {
    let mut values = area.len();
    for attribute in attributes {
        values -= attribute.value.len().next_multiple_of(4);
        area[at] = attribute.name.len() as u8;
        area[at + 1] = attribute.prefix;
        if !attribute.value.is_empty() {
            put16(area, at + 2, values as u16);
        }
        put32(area, at + 8, attribute.value.len() as u32);
        put32(area, at + 12, hash(attribute));
        area[at + ENTRY..at + ENTRY + attribute.name.len()].copy_from_slice(&attribute.name);
        area[values..values + attribute.value.len()].copy_from_slice(&attribute.value);
        at += ENTRY + attribute.name.len().next_multiple_of(4);
    }
}

/// A list of access rules as the disk has it, from the form of getxattr(2):
///
/// ```text
/// getxattr  version 2 u32 │ tag u16, rights u16, id u32 │ …
/// disk      version 1 u32 │ tag u16, rights u16 (, id u32 for named users and groups only) │ …
/// ```
fn disk_access_list(value: &[u8]) -> Option<Vec<u8>> {
    let (version, rules) = value.split_first_chunk::<4>()?;
    let (rules, rest) = rules.as_chunks::<8>();
    if *version != 2u32.to_le_bytes() || !rest.is_empty() {
        return None;
    }
    let mut disk = 1u32.to_le_bytes().to_vec();
    for rule in rules {
        match u16::from_le_bytes([rule[0], rule[1]]) {
            0x02 | 0x08 => disk.extend_from_slice(rule),
            0x01 | 0x04 | 0x10 | 0x20 => disk.extend_from_slice(&rule[..4]),
            _ => return None,
        }
    }
    Some(disk)
}

/// The attribute blocks of a volume. Inodes with the same attributes share one, as far as ext4 allows.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Contents and references.
    blocks: Vec<(Vec<u8>, u32)>,
    /// The last block with a content.
    latest: BTreeMap<Vec<u8>, usize>,
}

impl Blocks {
    /// Refers to a block with this content; its index.
    pub(crate) fn refer(&mut self, content: Vec<u8>) -> usize {
        if let Some(index) = self.latest.get(&content)
            && self.blocks[*index].1 < MAX_REFERENCES
        {
            self.blocks[*index].1 += 1;
            return *index;
        }
        self.blocks.push((content.clone(), 1));
        self.latest.insert(content, self.blocks.len() - 1);
        self.blocks.len() - 1
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// The blocks with their reference counts and checksums. `places` says which block of the volume each is.
    pub(crate) fn finish(&self, places: &[u64], volume_seed: u32) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.blocks.iter().zip(places).map(move |((content, references), place)| {
            let mut block = content.clone();
            put32(&mut block, 4, *references);
            let sum = crc32c(crc32c(volume_seed, &place.to_le_bytes()), &block);
            put32(&mut block, 16, sum);
            (*place, block)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(attributes: &[(&str, Vec<u8>)]) -> Result<Encoded, Refusal> {
        encode(&attributes.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.clone())).collect())
    }

    #[test]
    fn the_inode_is_filled_before_a_block_is_begun() {
        // 16 bytes of entry and 4 of name leave 68 for the value.
        let fits = encoded(&[("user.name", vec![1; 68])]).unwrap();
        assert!(fits.inline.is_some() && fits.block.is_none());
        let over = encoded(&[("user.name", vec![1; 69])]).unwrap();
        assert!(over.inline.is_none() && over.block.is_some());
        let both = encoded(&[("user.a", vec![1; 69]), ("user.b", vec![2; 8])]).unwrap();
        assert!(both.inline.is_some() && both.block.is_some());
        assert!(encoded(&[]).unwrap().inline.is_none());
    }

    #[test]
    fn the_bytes_in_an_inode() {
        let encoded = encoded(&[("security.ab", vec![7, 8, 9])]).unwrap();
        let bytes = encoded.inline.unwrap();
        let expected = [0, 0, 2, 0xea, 2, 6, 88, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', 0, 0];
        assert_eq!(bytes[..expected.len()], expected);
        assert!(bytes[expected.len()..INLINE_SIZE - 4].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[INLINE_SIZE - 4..], [7, 8, 9, 0]);
    }

    #[test]
    fn a_block_is_sorted_by_prefix_length_and_name() {
        let value = vec![0; 200];
        let names = ["user.bb", "user.c", "user.ba", "trusted.a", "security.a"];
        let encoded = encoded(&names.map(|name| (name, value.clone()))).unwrap();
        let block = encoded.block.unwrap();
        let mut found = Vec::new();
        let mut at = BLOCK_HEADER;
        while block[at] != 0 {
            let length = usize::from(block[at]);
            let name = String::from_utf8_lossy(&block[at + ENTRY..][..length]).into_owned();
            found.push((block[at + 1], name));
            at += ENTRY + length.next_multiple_of(4);
        }
        let expected = [(1, "c"), (1, "ba"), (1, "bb"), (4, "a"), (6, "a")];
        assert_eq!(found, expected.map(|(prefix, name)| (prefix, name.to_owned())));
    }

    #[test]
    fn access_lists_lose_the_ids_of_rules_without_a_name() {
        let rules = [
            2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 232, 3, 0, 0, 4, 0, 5, 0, 255, 255, 255,
            255,
        ];
        let expected = [1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 6, 0, 232, 3, 0, 0, 4, 0, 5, 0];
        assert_eq!(disk_access_list(&rules).unwrap(), expected);
        assert_eq!(disk_access_list(&rules[..27]), None);
        assert_eq!(disk_access_list(&[3, 0, 0, 0]), None);
    }

    #[test]
    fn a_block_is_shared_by_at_most_1024() {
        let mut blocks = Blocks::default();
        let users: Vec<_> = (0..1030).map(|_| blocks.refer(vec![0; 4096])).collect();
        assert_eq!(blocks.refer(vec![1; 4096]), 2);
        assert_eq!(users.iter().filter(|block| **block == 0).count(), 1024);
        let references: Vec<_> =
            blocks.finish(&[10, 20, 30], 0).map(|(at, block)| (at, block[4], block[5])).collect();
        assert_eq!(references, [(10, 0, 4), (20, 6, 0), (30, 1, 0)]);
    }
}
