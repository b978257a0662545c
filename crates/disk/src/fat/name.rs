use std::collections::{BTreeMap, BTreeSet};

use tree::{Tree, TreePath};

use super::{ENTRY, FatError};

/// UTF-16 units that one long-name entry holds.
const UNITS: usize = 13;
/// Where in a long-name entry they are.
const PLACES: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
const ATTRIBUTE_LONG: u8 = 0x0F;
const LAST_LONG: u8 = 0x40;

/// An entry's two names.
#[derive(Debug)]
struct Name {
    /// Eight and three characters, padded with spaces.
    short: [u8; 11],
    /// In UTF-16; `None` when the short name says it all.
    long: Option<Vec<u16>>,
}

/// The names of every entry of a tree but its root.
#[derive(Debug)]
pub(super) struct Names {
    names: BTreeMap<TreePath, Name>,
    children: BTreeMap<TreePath, Vec<TreePath>>,
}

impl Names {
    /// Gives every entry its names. Short names are unique in their folder: names that are short already keep
    /// theirs, the others get `~1`, `~2`, … in the tree's order.
    pub(super) fn assign(tree: &Tree) -> Result<Self, FatError> {
        let mut children: BTreeMap<TreePath, Vec<TreePath>> = BTreeMap::new();
        for (path, _) in tree.iter() {
            if let Some(parent) = path.parent() {
                children.entry(parent).or_default().push(path.clone());
            }
        }
        let mut names = BTreeMap::new();
        for siblings in children.values() {
            name_siblings(siblings, &mut names)?;
        }
        Ok(Self { names, children })
    }

    /// What a folder holds, in the tree's order.
    pub(super) fn children(&self, folder: &TreePath) -> &[TreePath] {
        self.children.get(folder).map_or(&[], Vec::as_slice)
    }

    /// How many directory entries a name takes.
    pub(super) fn entries(&self, path: &TreePath) -> usize {
        1 + self.long(path).map_or(0, |long| long.len().div_ceil(UNITS))
    }

    /// The short name.
    pub(super) fn short(&self, path: &TreePath) -> [u8; 11] {
        self.names.get(path).map_or([b' '; 11], |name| name.short)
    }

    fn long(&self, path: &TreePath) -> Option<&[u16]> {
        self.names.get(path)?.long.as_deref()
    }

    /// The entries that hold the long name, its end first; none when the short name says it all.
    pub(super) fn push_long_entries(&self, path: &TreePath, bytes: &mut Vec<u8>) {
        let Some(long) = self.long(path) else { return };
        let checksum = self.short(path).iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        for (index, piece) in long.chunks(UNITS).enumerate().rev() {
            let mut entry = [0; ENTRY];
            let is_last = (index + 1) * UNITS >= long.len();
            entry[0] = (index as u8 + 1) | if is_last { LAST_LONG } else { 0 };
            entry[11] = ATTRIBUTE_LONG;
            entry[13] = checksum;
            let padded = piece.iter().copied().chain([0]).chain(std::iter::repeat(0xFFFF));
            for (at, unit) in PLACES.into_iter().zip(padded) {
                entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
            }
            bytes.extend_from_slice(&entry);
        }
    }
}

/// Names everything in one folder.
fn name_siblings(siblings: &[TreePath], names: &mut BTreeMap<TreePath, Name>) -> Result<(), FatError> {
    let mut seen: BTreeMap<String, &TreePath> = BTreeMap::new();
    let mut taken: BTreeSet<[u8; 11]> = BTreeSet::new();
    let mut lossy = Vec::new();
    for path in siblings {
        let text = checked(path)?;
        if let Some(other) = seen.insert(text.to_uppercase(), path) {
            return Err(FatError::SameName { path: path.clone(), other: other.clone() });
        }
        match exact_short(&text.to_ascii_uppercase()) {
            Some(short) => {
                taken.insert(short);
                let long = (text != text.to_ascii_uppercase()).then(|| text.encode_utf16().collect());
                names.insert(path.clone(), Name { short, long });
            }
            None => lossy.push((path, text)),
        }
    }
    let mut numbers = BTreeMap::new();
    for (path, text) in lossy {
        let short = numbered_short(text, &taken, &mut numbers);
        taken.insert(short);
        names.insert(path.clone(), Name { short, long: Some(text.encode_utf16().collect()) });
    }
    Ok(())
}

/// A name as text, when FAT can hold it as a long name.
fn checked(path: &TreePath) -> Result<&str, FatError> {
    let bad = |reason| FatError::BadName { path: path.clone(), reason };
    let name = path.name();
    let text = std::str::from_utf8(name).map_err(|_| bad("it is not UTF-8"))?;
    if text.chars().any(|c| c < ' ' || c == '\x7f' || "\"*/:<>?\\|".contains(c)) {
        return Err(bad("none of \" * / : < > ? \\ | and no control characters may be in it"));
    }
    if text.ends_with(['.', ' ']) || text.starts_with(' ') {
        return Err(bad("it begins or ends with a space or ends with a dot"));
    }
    Ok(text)
}

fn is_short_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"!#$%&'()-@^_`{}~".contains(&byte)
}

fn padded(base: &[u8], extension: &[u8]) -> [u8; 11] {
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base);
    short[8..8 + extension.len()].copy_from_slice(extension);
    short
}

/// The short form of an upper-case name that has one without loss.
fn exact_short(upper: &str) -> Option<[u8; 11]> {
    let (base, extension) = match upper.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (upper, ""),
    };
    let fits = (1..=8).contains(&base.len()) && extension.len() <= 3;
    let fits = fits && base.bytes().chain(extension.bytes()).all(is_short_byte);
    fits.then(|| padded(base.as_bytes(), extension.as_bytes()))
}

/// The first free `BASE~N.EXT` for a name. `numbers` remembers the next number to try for a base and extension.
fn numbered_short(
    name: &str,
    taken: &BTreeSet<[u8; 11]>,
    numbers: &mut BTreeMap<(Vec<u8>, Vec<u8>), u32>,
) -> [u8; 11] {
    let short_byte = |c: char| u8::try_from(c.to_ascii_uppercase()).ok().filter(|byte| is_short_byte(*byte));
    let squeeze = |text: &str, most: usize| -> Vec<u8> {
        let kept = text.chars().filter(|c| *c != ' ' && *c != '.');
        kept.map(|c| short_byte(c).unwrap_or(b'_')).take(most).collect()
    };
    let trimmed = name.trim_start_matches('.');
    let (base, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
    let (base, extension) = (squeeze(base, 8), squeeze(extension, 3));
    let number = numbers.entry((base.clone(), extension.clone())).or_insert(1);
    loop {
        let tail = format!("~{number}");
        *number += 1;
        let kept = base.len().min(8 - tail.len());
        let short = padded(&[&base[..kept], tail.as_bytes()].concat(), &extension);
        if !taken.contains(&short) {
            return short;
        }
    }
}
