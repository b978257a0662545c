//! The four account files of a root: who is who by name.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::root::{Attributes, Root};

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

    /// The same, with accounts that are yet to be made; their numbers mean nothing.
    pub(crate) fn with<'n>(mut self, names: impl Iterator<Item = &'n str>) -> Self {
        for name in names {
            self.users.entry(name.as_bytes().to_vec()).or_default();
            self.groups.entry(name.as_bytes().to_vec()).or_default();
        }
        self
    }

    /// The first free number from `from` on, for a user and for its group alike.
    fn free(&self, from: u32) -> u32 {
        let taken =
            |number: &u32| self.users.values().chain(self.groups.values()).any(|other| other == number);
        (from..).find(|number| !taken(number)).unwrap_or(from)
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

/// A person's account to be made.
pub(crate) struct NewUser<'a> {
    pub(crate) name: &'a str,
    pub(crate) groups: &'a [String],
    pub(crate) shell: &'a str,
    /// Day of the account's making, counted from 1970.
    pub(crate) day: i64,
}

/// Adds an account as useradd does: a number from 1000 on, a group of its own, no valid password. Gives its numbers.
pub(crate) fn add_user(root: &Root, user: &NewUser<'_>, mtime: i64) -> Result<(u32, u32), Error> {
    let NewUser { name, groups, shell, day } = *user;
    let accounts = Accounts::read(root)?;
    let number = accounts.free(1000);
    let edit = |path: &str, mode: u32, change: &dyn Fn(&mut Vec<String>)| -> Result<(), Error> {
        let mut lines: Vec<String> = root.read_text(path.as_bytes())?.lines().map(str::to_owned).collect();
        change(&mut lines);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        root.rewrite(path.as_bytes(), text.as_bytes(), Attributes { mode, uid: 0, gid: 0, mtime })
    };
    edit("etc/passwd", 0o644, &|lines| {
        lines.push(format!("{name}:x:{number}:{number}::/home/{name}:{shell}"));
    })?;
    edit("etc/shadow", 0o600, &|lines| lines.push(format!("{name}:!:{day}:0:99999:7:::")))?;
    for (path, mode, own) in
        [("etc/group", 0o644, format!("{name}:x:{number}:")), ("etc/gshadow", 0o600, format!("{name}:!::"))]
    {
        edit(path, mode, &|lines| {
            for line in lines.iter_mut() {
                if groups.iter().any(|group| line.split(':').next() == Some(group)) {
                    line.push_str(if line.ends_with(':') { name } else { "," });
                    if line.ends_with(',') {
                        line.push_str(name);
                    }
                }
            }
            lines.push(own.clone());
        })?;
    }
    for path in ["etc/subuid", "etc/subgid"] {
        if root.exists(path.as_bytes())? {
            edit(path, 0o644, &|lines| lines.push(subordinate(lines, name)))?;
        }
    }
    Ok((number, number))
}

/// A range of 65,536 numbers after the last one given away.
fn subordinate(lines: &[String], name: &str) -> String {
    let ends = lines.iter().filter_map(|line| {
        let mut fields = line.split(':').skip(1);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
    });
    format!("{name}:{}:65536", ends.max().unwrap_or(100_000).max(100_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(&folder.path().canonicalize().unwrap()).unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        for (path, text) in files {
            std::fs::write(folder.path().join(path), text).unwrap();
        }
        (folder, root)
    }

    #[test]
    fn a_user_is_added_as_useradd_does() {
        let (_folder, root) = root_with(&[
            ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("etc/group", "root:x:0:\nadm:x:4:syslog\nsudo:x:27:\nother:x:1000:\n"),
            ("etc/shadow", "root:*:19000:0:99999:7:::\n"),
            ("etc/gshadow", "root:*::\nadm:*::syslog\nsudo:*::\n"),
            ("etc/subuid", "old:100000:65536\n"),
        ]);
        let groups = ["adm".to_owned(), "sudo".to_owned()];
        let user = NewUser { name: "eve", groups: &groups, shell: "/bin/bash", day: 20000 };
        assert_eq!(add_user(&root, &user, 5).unwrap(), (1001, 1001));
        let text = |path: &str| root.read_text(path.as_bytes()).unwrap();
        assert!(text("etc/passwd").ends_with("eve:x:1001:1001::/home/eve:/bin/bash\n"));
        assert_eq!(
            text("etc/group"),
            "root:x:0:\nadm:x:4:syslog,eve\nsudo:x:27:eve\nother:x:1000:\neve:x:1001:\n"
        );
        assert_eq!(text("etc/gshadow"), "root:*::\nadm:*::syslog,eve\nsudo:*::eve\neve:!::\n");
        assert!(text("etc/shadow").ends_with("eve:!:20000:0:99999:7:::\n"));
        assert_eq!(text("etc/subuid"), "old:100000:65536\neve:165536:65536\n");
        assert!(!root.exists(b"etc/subgid").unwrap());
    }
}
