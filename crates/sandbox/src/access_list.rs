//! Access lists (POSIX ACLs) that name ids which the kernel has no numbers for.

/// The two lists that a file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Who may do what.
    Access,
    /// What a folder hands down.
    Default,
}

impl Which {
    pub(crate) const BOTH: [Self; 2] = [Self::Access, Self::Default];

    /// The list that an attribute holds.
    pub(crate) fn of(attribute: &[u8]) -> Option<Self> {
        Self::BOTH.into_iter().find(|which| which.attribute().as_bytes() == attribute)
    }

    pub(crate) fn attribute(self) -> &'static str {
        match self {
            Self::Access => "system.posix_acl_access",
            Self::Default => "system.posix_acl_default",
        }
    }
}

const VERSION: u32 = 2;
const ENTRY: usize = 8;
const USER_OWNER: u16 = 1;
const USER: u16 = 2;
const GROUP_OWNER: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;
const NO_ID: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A list, in the form in which attributes hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessList(Vec<Entry>);

impl AccessList {
    /// Reads an attribute; `None` for what is no list that the kernel would take, or one with too high an id.
    pub(crate) fn read(bytes: &[u8], last_id: u32) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk::<4>()?;
        let (entries, []) = rest.as_chunks::<ENTRY>() else { return None };
        if u32::from_le_bytes(*version) != VERSION {
            return None;
        }
        let mut list = Vec::new();
        for [a, b, c, d, e, f, g, h] in entries.iter().copied() {
            let (tag, permissions) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
            let id = u32::from_le_bytes([e, f, g, h]);
            let named = tag == USER || tag == GROUP;
            if permissions > 7 || named && id > last_id {
                return None;
            }
            list.push(Entry { tag, permissions, id: if named { id } else { NO_ID } });
        }
        let count = |tag: u16| list.iter().filter(|entry| entry.tag == tag).count();
        let named = count(USER) + count(GROUP);
        let known = named + [USER_OWNER, GROUP_OWNER, MASK, OTHER].map(count).iter().sum::<usize>();
        let in_order = list.is_sorted_by_key(|entry| entry.tag);
        let whole = [USER_OWNER, GROUP_OWNER, OTHER].iter().all(|tag| count(*tag) == 1);
        let masked = count(MASK) == 1 || count(MASK) == 0 && named == 0;
        (known == list.len() && in_order && whole && masked).then_some(Self(list))
    }

    /// Whether it names somebody else than root.
    pub(crate) fn names_others(&self) -> bool {
        self.0.iter().any(|entry| entry.id != NO_ID && entry.id != 0)
    }

    /// The entry that each of the mode's classes stands for: owner, group, others.
    fn classes(&self) -> [(u16, u32); 3] {
        let masked = self.0.iter().any(|entry| entry.tag == MASK);
        [(USER_OWNER, 6), (if masked { MASK } else { GROUP_OWNER }, 3), (OTHER, 0)]
    }

    /// The mode of a file that has it.
    pub(crate) fn mode(&self, mode: u32) -> u32 {
        self.classes().into_iter().fold(mode & 0o7000, |mode, (tag, shift)| {
            let entry = self.0.iter().find(|entry| entry.tag == tag);
            mode | entry.map_or(0, |entry| u32::from(entry.permissions) << shift)
        })
    }

    /// The attribute, of a file that has this mode now.
    pub(crate) fn write(&self, mode: Option<u32>) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            let class = self.classes().into_iter().find(|(tag, _)| *tag == entry.tag);
            let permissions = match (mode, class) {
                (Some(mode), Some((_, shift))) => (mode >> shift) as u16 & 7,
                _ => entry.permissions,
            };
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entries = entries.iter().flat_map(|(tag, permissions, id)| {
            [tag.to_le_bytes().to_vec(), permissions.to_le_bytes().to_vec(), id.to_le_bytes().to_vec()]
                .concat()
        });
        VERSION.to_le_bytes().into_iter().chain(entries).collect()
    }

    const JOURNAL: [(u16, u16, u32); 5] =
        [(1, 7, NO_ID), (4, 5, NO_ID), (8, 5, 4), (16, 5, NO_ID), (32, 5, NO_ID)];

    #[test]
    fn a_list_is_read_and_written_with_the_mode_in_it() {
        let bytes = list(&JOURNAL);
        let read = AccessList::read(&bytes, 65_535).unwrap();
        assert!(read.names_others());
        assert_eq!((read.mode(0o2700), read.write(None)), (0o2755, bytes.clone()));
        assert_eq!(read.write(Some(0o2755)), bytes);
        let mut narrower = JOURNAL;
        (narrower[3].1, narrower[4].1) = (1, 0);
        assert_eq!(read.write(Some(0o710)), list(&narrower));
        let plain = AccessList::read(&list(&[(1, 6, 9), (4, 4, 9), (32, 0, 9)]), 65_535).unwrap();
        assert!(!plain.names_others(), "ids of those that have none do not count");
        assert_eq!(plain.mode(0), 0o640);
    }

    #[test]
    fn what_the_kernel_would_refuse_is_no_list() {
        for bytes in [
            list(&JOURNAL[..4]),
            list(&[JOURNAL[1], JOURNAL[0], JOURNAL[4]]),
            list(&[JOURNAL[0], JOURNAL[1], JOURNAL[2], JOURNAL[4]]),
            list(&[(1, 8, 0), JOURNAL[1], JOURNAL[4]]),
            list(&[JOURNAL[0], JOURNAL[1], (8, 5, 70_000), JOURNAL[3], JOURNAL[4]]),
            list(&JOURNAL)[..43].to_vec(),
            vec![],
        ] {
            assert_eq!(AccessList::read(&bytes, 65_535), None, "{bytes:?}");
        }
    }
}
