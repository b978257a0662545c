//! Extended attributes, in an inode and in a block of their own.

use block::Digest;

use crate::{Fault, Xattrs, u16_at, u32_at};

/// What attributes begin with, in both places.
pub(crate) const MAGIC: u32 = 0xEA02_0000;
/// Bytes before the first entry of a block.
pub(crate) const BLOCK_HEADER: usize = 32;

/// The attributes whose entries begin at `first` of `area`. Places of values are counted from `values`.
pub(crate) fn read(area: &[u8], first: usize, values: usize) -> Result<Xattrs, Fault> {
    let mut all = Xattrs::new();
    let damaged = |what: &str| Fault::Damaged(format!("an extended attribute {what}"));
    let mut at = first;
    // Four bytes of zeros end the list; one that fills its place ends there.
    while at + 4 <= area.len() && u32_at(area, at) != 0 {
        let name_len = usize::from(area[at]);
        let end = at + 16 + name_len;
        let name = area.get(at + 16..end).ok_or_else(|| damaged("reaches out of its place"))?;
        let (size, inode) = (u32_at(area, at + 8) as usize, u32_at(area, at + 4));
        let value = if inode == 0 {
            let from = values + usize::from(u16_at(area, at + 2));
            let value = from.checked_add(size).and_then(|to| area.get(from..to));
            Digest::of(value.ok_or_else(|| damaged("has its value out of its place"))?)
        } else {
            return Err(Fault::Unknown("attributes that are files of their own are not read".to_owned()));
        };
        let prefix = prefix(area[at + 1]).ok_or_else(|| damaged("has a name of an unknown kind"))?;
        all.insert([prefix.as_bytes(), name].concat(), value);
        at = end.next_multiple_of(4);
    }
    Ok(all)
}

fn prefix(index: u8) -> Option<&'static str> {
    Some(match index {
        0 => "",
        1 => "user.",
        2 => "system.posix_acl_access",
        3 => "system.posix_acl_default",
        4 => "trusted.",
        6 => "security.",
        7 => "system.",
        8 => "system.richacl",
        _ => return None,
    })
}
