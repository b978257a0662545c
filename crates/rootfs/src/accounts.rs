//! The four account files of a root: who is who by name.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::root::Root;

/// Numbers of users and groups by name, as `/etc/passwd` and `/etc/group` of the root have them.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    users: BTreeMap<Vec<u8>, u32>,
    groups: BTreeMap<Vec<u8>, u32>,
}

impl Accounts {
    pub(crate) fn read(root: &Root) -> Result<Self, Error> {
        let numbers = |path: &[u8]| -> Result<BTreeMap<Vec<u8>, u32>, Error> {
            let text = root.read_text(path)?;
            let numbers = text.lines().filter_map(|line| {
                let mut fields = line.split(':');
                Some((fields.next()?.as_bytes().to_vec(), fields.nth(1)?.parse().ok()?))
            });
            Ok(numbers.collect())
        };
        Ok(Self { users: numbers(b"etc/passwd")?, groups: numbers(b"etc/group")? })
    }

    pub(crate) fn user(&self, name: &[u8]) -> Option<u32> {
        self.users.get(name).copied()
    }

    pub(crate) fn group(&self, name: &[u8]) -> Option<u32> {
        self.groups.get(name).copied()
    }

    pub(crate) fn user_names(&self) -> impl Iterator<Item = &[u8]> {
        self.users.keys().map(Vec::as_slice)
    }

    pub(crate) fn group_names(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.keys().map(Vec::as_slice)
    }

    /// A user's number by name or decimal number.
    pub(crate) fn user_or_number(&self, name: &str) -> Option<u32> {
        self.user(name.as_bytes()).or_else(|| name.parse().ok())
    }

    /// A group's number by name or decimal number.
    pub(crate) fn group_or_number(&self, name: &str) -> Option<u32> {
        self.group(name.as_bytes()).or_else(|| name.parse().ok())
    }
}
