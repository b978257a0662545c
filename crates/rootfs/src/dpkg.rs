//! dpkg's database, written as dpkg itself would have left it after unpacking: `status`, `info/`, `triggers/`,
//! `diversions`, `statoverride`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::accounts::Accounts;
use crate::error::Error;
use crate::package::Package;
use crate::root::{Attributes, Root};

/// Where the database is.
pub(crate) const FOLDER: &str = "var/lib/dpkg";

/// Files that some package asked to lie elsewhere (`dpkg-divert`).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Diversions(BTreeMap<Vec<u8>, (Vec<u8>, Option<String>)>);

impl Diversions {
    pub(crate) fn read(root: &Root) -> Result<Self, Error> {
        Ok(Self::parse(&root.read(b"var/lib/dpkg/diversions")?.unwrap_or_default()))
    }

    /// Three lines each: from, to, package (`:` when a person asked).
    fn parse(text: &[u8]) -> Self {
        let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
        let relative = |path: &[u8]| path.strip_prefix(b"/").unwrap_or(path).to_vec();
        let diversions = lines.chunks_exact(3).map(|lines| {
            let package =
                Some(String::from_utf8_lossy(lines[2]).into_owned()).filter(|package| package != ":");
            (relative(lines[0]), (relative(lines[1]), package))
        });
        Self(diversions.collect())
    }

    /// Where a file of `package` really goes.
    pub(crate) fn place<'a>(&'a self, path: &'a [u8], package: &str) -> &'a [u8] {
        match self.0.get(path) {
            Some((to, owner)) if owner.as_deref() != Some(package) => to,
            _ => path,
        }
    }
}

/// Owners and modes that somebody set for good (`dpkg-statoverride`).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StatOverrides(BTreeMap<Vec<u8>, (u32, u32, u32)>);

impl StatOverrides {
    pub(crate) fn read(root: &Root, accounts: &Accounts) -> Result<Self, Error> {
        Ok(Self::parse(&root.read_text(b"var/lib/dpkg/statoverride")?, accounts))
    }

    /// A line each: `user group mode path`; a number is written `#7`.
    fn parse(text: &str, accounts: &Accounts) -> Self {
        let number =
            |word: &str, name: Option<u32>| word.strip_prefix('#').map_or(name, |digits| digits.parse().ok());
        let overrides = text.lines().filter_map(|line| {
            let mut words = line.splitn(4, ' ');
            let (user, group, mode) = (words.next()?, words.next()?, words.next()?);
            let path = words.next()?.as_bytes();
            let uid = number(user, accounts.user(user.as_bytes()))?;
            let gid = number(group, accounts.group(group.as_bytes()))?;
            let mode = u32::from_str_radix(mode, 8).ok()?;
            Some((path.strip_prefix(b"/").unwrap_or(path).to_vec(), (uid, gid, mode)))
        });
        Self(overrides.collect())
    }

    /// Owner, group and mode that a path must have.
    pub(crate) fn get(&self, path: &[u8]) -> Option<(u32, u32, u32)> {
        self.0.get(path).copied()
    }
}

/// What a package listens to, collected while packages are unpacked.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    /// (file name, `package` or `package/noawait`), in the order of unpacking.
    files: Vec<(String, String)>,
    named: BTreeMap<String, BTreeSet<String>>,
    pending: BTreeSet<String>,
}

impl Interests {
    /// Takes up a package's `interest` lines, and the triggers that it activates by being unpacked.
    pub(crate) fn add(&mut self, package: &Package) {
        for (directive, trigger) in package.triggers() {
            let mut who = if package.same { package.info_name() } else { package.name.to_string() };
            match directive {
                "interest" | "interest-await" => {}
                "interest-noawait" => who.push_str("/noawait"),
                "activate" | "activate-await" | "activate-noawait" => {
                    self.pending.insert(trigger.into());
                    continue;
                }
                _ => continue,
            }
            if trigger.starts_with('/') {
                self.files.push((trigger.into(), who));
            } else {
                self.named.entry(trigger.into()).or_default().insert(who);
            }
        }
    }

    /// Notes that a file was laid down: whoever listens to it or to a folder above it will hear.
    pub(crate) fn laid(&mut self, path: &[u8]) {
        let hit = |trigger: &str| {
            let trigger = trigger.as_bytes();
            let rest = trigger.strip_prefix(b"/").and_then(|trigger| path.strip_prefix(trigger));
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        for (trigger, _) in &self.files {
            if hit(trigger) && !self.pending.contains(trigger) {
                self.pending.insert(trigger.clone());
            }
        }
    }

    /// Writes `triggers/`: who listens, and what happened since dpkg ran last.
    pub(crate) fn write(&mut self, root: &Root, time: i64) -> Result<(), Error> {
        let plain = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: time };
        let mut files = String::new();
        for (trigger, who) in &self.files {
            let _ = writeln!(files, "{trigger} {who}");
        }
        root.write(b"var/lib/dpkg/triggers/File", files.as_bytes(), plain)?;
        for (trigger, listeners) in &self.named {
            let text: String = listeners.iter().map(|who| format!("{who}\n")).collect();
            root.write(format!("{FOLDER}/triggers/{trigger}").as_bytes(), text.as_bytes(), plain)?;
        }
        // What dpkg has not heard of yet stays there; it empties the file when it does.
        let mut text = root.read_text(b"var/lib/dpkg/triggers/Unincorp")?;
        for trigger in std::mem::take(&mut self.pending) {
            let known = text.lines().any(|line| line.split(' ').next() == Some(&trigger));
            let heard = trigger.starts_with('/') || self.named.contains_key(&trigger);
            if heard && !known {
                let _ = writeln!(text, "{trigger} -");
            }
        }
        root.write(b"var/lib/dpkg/triggers/Unincorp", text.as_bytes(), plain)
    }
}

/// Makes an empty database for a root of one architecture.
pub(crate) fn create(root: &Root, architecture: &str, time: i64) -> Result<(), Error> {
    let folder = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: time };
    let plain = Attributes { mode: 0o644, ..folder };
    for name in ["", "/alternatives", "/info", "/parts", "/triggers", "/updates"] {
        root.make_folders(format!("{FOLDER}{name}").as_bytes(), folder)?;
    }
    let architecture = format!("{architecture}\n");
    for (name, bytes) in
        [("arch", architecture.as_str()), ("status", ""), ("info/format", "1\n"), ("triggers/Unincorp", "")]
    {
        root.write(format!("{FOLDER}/{name}").as_bytes(), bytes.as_bytes(), plain)?;
    }
    Ok(())
}

/// Files that dpkg reads from the control archive and keeps nowhere else.
const NOT_KEPT: [&str; 2] = ["control", "list"];

/// Writes a package's `info/` files. `list`: every path laid down for it, in the archive's order, relative.
pub(crate) fn write_info(root: &Root, package: &Package, list: &[Vec<u8>], time: i64) -> Result<(), Error> {
    let base = format!("{FOLDER}/info/{}", package.info_name());
    let plain = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: time };
    root.write(format!("{base}.list").as_bytes(), &list_text(list), plain)?;
    for (name, file) in &package.control.files {
        if !NOT_KEPT.contains(&name.as_str()) {
            let attributes = Attributes { mode: file.mode, ..plain };
            root.write(format!("{base}.{name}").as_bytes(), &file.bytes, attributes)?;
        }
    }
    Ok(())
}

/// A `.list` file: `/.` for the root folder, then absolute paths.
pub(crate) fn list_text(list: &[Vec<u8>]) -> Vec<u8> {
    let mut text = Vec::new();
    for path in list {
        text.push(b'/');
        text.extend_from_slice(if path.is_empty() { b"." } else { path });
        text.push(b'\n');
    }
    text
}

/// The paragraph of `status` for a package that has been unpacked. `conffiles`: path and MD5, or `newconffile` where
/// the file still waits under its `.dpkg-new` name.
pub(crate) fn status_paragraph(package: &Package, conffiles: &[(Vec<u8>, String)]) -> String {
    let mut text = String::new();
    for (name, value) in package.control.fields.fields() {
        if ["status", "conffiles"].contains(&name.to_ascii_lowercase().as_str()) {
            continue;
        }
        let space = if value.starts_with('\n') { "" } else { " " };
        let _ = writeln!(text, "{name}:{space}{}", value.trim_end());
        if name.eq_ignore_ascii_case("Package") {
            text.push_str("Status: install ok unpacked\n");
        }
    }
    if !conffiles.is_empty() {
        text.push_str("Conffiles:\n");
        for (path, hash) in conffiles {
            let _ = writeln!(text, " /{} {hash}", String::from_utf8_lossy(path));
        }
    }
    text.push('\n');
    text
}

/// Adds paragraphs to `status`.
pub(crate) fn add_status(root: &Root, paragraphs: &str, time: i64) -> Result<(), Error> {
    let path = b"var/lib/dpkg/status";
    let mut text = root.read(path)?.unwrap_or_default();
    if !text.is_empty() && !text.ends_with(b"\n\n") {
        text.push(b'\n');
    }
    text.extend_from_slice(paragraphs.as_bytes());
    root.write(path, &text, Attributes { mode: 0o644, uid: 0, gid: 0, mtime: time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diversion_moves_every_package_but_its_own() {
        let diversions = Diversions::parse(b"/usr/bin/a\n/usr/bin/a.real\nwrapper\n/etc/b\n/etc/b.off\n:\n");
        assert_eq!(diversions.place(b"usr/bin/a", "tool"), b"usr/bin/a.real");
        assert_eq!(diversions.place(b"usr/bin/a", "wrapper"), b"usr/bin/a");
        assert_eq!(diversions.place(b"etc/b", "wrapper"), b"etc/b.off");
        assert_eq!(diversions.place(b"etc/c", "wrapper"), b"etc/c");
    }

    #[test]
    fn an_override_names_users_or_numbers() {
        let overrides =
            StatOverrides::parse("#7 #8 4754 /usr/lib/helper\nnobody root 755 /x\n", &Accounts::default());
        assert_eq!(overrides.get(b"usr/lib/helper"), Some((7, 8, 0o4754)));
        assert_eq!(overrides.get(b"x"), None);
    }

    #[test]
    fn a_trigger_hears_of_files_at_and_below_its_path_only() {
        let mut interests =
            Interests { files: vec![("/usr/lib/x".into(), "p/noawait".into())], ..Default::default() };
        interests.laid(b"usr/lib/xy");
        assert!(interests.pending.is_empty());
        interests.laid(b"usr/lib/x/y");
        assert_eq!(interests.pending.iter().collect::<Vec<_>>(), ["/usr/lib/x"]);
    }

    #[test]
    fn a_list_names_the_root_folder_by_a_dot() {
        assert_eq!(list_text(&[b"".to_vec(), b"usr".to_vec()]), b"/.\n/usr\n");
    }
}
