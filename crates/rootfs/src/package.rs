//! One package as its control file describes it.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Error;
use debian::deb::{Control, Deb};

/// A package to be installed: the .deb file and what the lock says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFile {
    /// Its name.
    pub name: String,
    /// Its version, as its control file writes it.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
    /// The .deb file, already verified.
    pub path: PathBuf,
    /// Whether it is there only because another package needs it.
    pub auto: bool,
}

/// A package with its control archive read.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: Arc<str>,
    pub(crate) version: String,
    pub(crate) architecture: String,
    pub(crate) path: PathBuf,
    pub(crate) auto: bool,
    pub(crate) essential: bool,
    /// Whether no system does without it (`Priority: required`).
    pub(crate) required: bool,
    /// Whether its files may be shared with its other architectures (`Multi-Arch: same`).
    pub(crate) same: bool,
    /// Each group: one of these names must be there.
    pub(crate) depends: Vec<Vec<String>>,
    pub(crate) pre_depends: Vec<Vec<String>>,
    pub(crate) provides: Vec<String>,
    replaces: Vec<(String, Option<(String, String)>)>,
    /// Relative paths.
    pub(crate) conffiles: BTreeSet<Vec<u8>>,
    /// The same in the order of its list, with those that it no longer has: path, and whether it is such a one.
    pub(crate) conffile_list: Vec<(Vec<u8>, bool)>,
    pub(crate) control: Control,
}

impl Package {
    /// Opens the file, reads its control archive and checks that it is the package it should be.
    pub(crate) fn read(file: &PackageFile) -> Result<Self, Error> {
        let control = Deb::open(&file.path)?.control()?;
        let bad = |problem: String| Error::Control { package: file.name.clone(), problem };
        let field = |name: &str| control.fields.get(name).map(str::trim);
        for (name, expected) in
            [("Package", &file.name), ("Version", &file.version), ("Architecture", &file.architecture)]
        {
            let actual = field(name).ok_or_else(|| bad(format!("has no field {name}")))?;
            if actual != expected {
                return Err(bad(format!("says {name}: {actual}, expected {expected}")));
            }
        }
        if !plain(&file.name) || !plain(&file.architecture) {
            return Err(bad("has a name or an architecture that is none".into()));
        }
        for name in control.files.keys() {
            if !plain(name) {
                return Err(bad(format!("comes with a control file of the odd name {name:?}")));
            }
        }
        let names = |name: &str| field(name).map(dependency_groups).unwrap_or_default();
        let conffiles = control.files.get("conffiles").map(|file| file.bytes.as_slice()).unwrap_or_default();
        let lines = conffiles.split(|byte| *byte == b'\n').map(|line| line.trim_ascii());
        let conffile_list: Vec<_> = lines
            .filter_map(|line| match line.strip_prefix(b"remove-on-upgrade ") {
                Some(former) => Some((former.strip_prefix(b"/")?.to_vec(), true)),
                None => Some((line.strip_prefix(b"/")?.to_vec(), false)),
            })
            .collect();
        Ok(Self {
            name: file.name.as_str().into(),
            version: file.version.clone(),
            architecture: file.architecture.clone(),
            path: file.path.clone(),
            auto: file.auto,
            essential: field("Essential") == Some("yes"),
            // apt is required, too, but its timers want systemd to be there.
            required: field("Priority") == Some("required") && file.name != "apt",
            same: field("Multi-Arch") == Some("same"),
            depends: names("Depends"),
            pre_depends: names("Pre-Depends"),
            provides: names("Provides").into_iter().flatten().collect(),
            replaces: field("Replaces").map(relations).unwrap_or_default(),
            conffiles: conffile_list
                .iter()
                .filter(|(_, former)| !former)
                .map(|(path, _)| path.clone())
                .collect(),
            conffile_list,
            control,
        })
    }

    /// The name under which dpkg keeps its files: `name`, or `name:arch` where several architectures may meet.
    pub(crate) fn info_name(&self) -> String {
        if self.same { format!("{}:{}", self.name, self.architecture) } else { self.name.to_string() }
    }

    /// A text file of the control archive.
    pub(crate) fn control_file(&self, name: &str) -> Option<&[u8]> {
        self.control.files.get(name).map(|file| file.bytes.as_slice())
    }

    /// Whether its files may take the place of those of `other`.
    pub(crate) fn replaces(&self, other: &Package) -> bool {
        self.replaces.iter().any(|(name, version)| {
            let names_it = *name == *other.name || (version.is_none() && other.provides.contains(name));
            names_it
                && version
                    .as_ref()
                    .is_none_or(|(operator, version)| satisfies(&other.version, operator, version))
        })
    }

    /// What the triggers file says: `interest`, `activate-noawait`, … and the trigger's name.
    pub(crate) fn triggers(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = self
            .control_file("triggers")
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default();
        text.lines().filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?))
        })
    }
}

/// Whether a name can be part of a file name without leading anywhere else.
fn plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.~_".contains(&byte))
}

/// `a (>= 1) | b:any, c` becomes `[[a, b], [c]]`.
fn dependency_groups(field: &str) -> Vec<Vec<String>> {
    let groups = field.split(',').map(|group| {
        let names = group.split('|').filter_map(|relation| {
            let name = relation
                .split(|char: char| char.is_whitespace() || "(:[<".contains(char))
                .find(|name| !name.is_empty());
            name.map(str::to_owned)
        });
        names.collect::<Vec<_>>()
    });
    groups.filter(|group| !group.is_empty()).collect()
}

/// `a (<< 1), b` becomes `[(a, Some((<<, 1))), (b, None)]`.
fn relations(field: &str) -> Vec<(String, Option<(String, String)>)> {
    let relations = field.split(',').filter_map(|relation| {
        let (name, version) = match relation.split_once('(') {
            Some((name, version)) => (name, version.split(')').next()),
            None => (relation, None),
        };
        let name = name.trim().split(':').next().unwrap_or_default().to_owned();
        let version = version.map(|version| {
            let version = version.trim();
            let end = version.find(|char: char| !"<>=".contains(char)).unwrap_or(version.len());
            (version[..end].to_owned(), version[end..].trim().to_owned())
        });
        (!name.is_empty()).then_some((name, version))
    });
    relations.collect()
}

fn satisfies(version: &str, operator: &str, bound: &str) -> bool {
    let order = compare_versions(version, bound);
    match operator {
        "<<" => order.is_lt(),
        "<=" | "<" => order.is_le(),
        "=" => order.is_eq(),
        ">=" | ">" => order.is_ge(),
        ">>" => order.is_gt(),
        _ => false,
    }
}

/// dpkg's order of versions: epoch, upstream version, revision; `~` sorts before the end.
fn compare_versions(a: &str, b: &str) -> Ordering {
    fn parts(version: &str) -> (u64, &str, &str) {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse().unwrap_or(0), upstream, revision)
    }
    let (a, b) = (parts(a), parts(b));
    a.0.cmp(&b.0).then_with(|| compare_parts(a.1, b.1)).then_with(|| compare_parts(a.2, b.2))
}

fn compare_parts(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
        None => 0,
    };
    loop {
        while a.first().is_some_and(|byte| !byte.is_ascii_digit())
            || b.first().is_some_and(|byte| !byte.is_ascii_digit())
        {
            match weight(a.first()).cmp(&weight(b.first())) {
                Ordering::Equal => {}
                order => return order,
            }
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
        }
        let (first, second) = (leading_number(&mut a), leading_number(&mut b));
        match first.len().cmp(&second.len()).then_with(|| first.cmp(second)) {
            Ordering::Equal if a.is_empty() && b.is_empty() => return Ordering::Equal,
            Ordering::Equal => {}
            order => return order,
        }
    }
}

/// Takes the digits at the front away and gives them without leading zeros.
fn leading_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_as_groups_of_names() {
        assert_eq!(
            dependency_groups("libc6 (>= 2.38), debconf (>= 0.5) | debconf-2.0, python3:any"),
            [
                vec!["libc6".to_owned()],
                vec!["debconf".to_owned(), "debconf-2.0".to_owned()],
                vec!["python3".to_owned()],
            ]
        );
    }

    #[test]
    fn replaces_heeds_the_version() {
        assert_eq!(
            relations("a (<< 1:2-3~), b"),
            [("a".to_owned(), Some(("<<".to_owned(), "1:2-3~".to_owned()))), ("b".to_owned(), None),]
        );
        assert!(satisfies("1:2-2", "<<", "1:2-3~"));
        assert!(!satisfies("1:2-3", "<<", "1:2-3~"));
    }

    #[test]
    fn versions_sort_as_dpkg_sorts_them() {
        let sorted = [
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1.1",
            "1.0+dfsg-1",
            "1.2-1",
            "1.10-1",
            "1.10a-1",
            "1:0.1-1",
        ];
        for (at, low) in sorted.iter().enumerate() {
            assert!(compare_versions(low, low).is_eq());
            for high in &sorted[at + 1..] {
                assert!(compare_versions(low, high).is_lt(), "{low} < {high}");
                assert!(compare_versions(high, low).is_gt(), "{high} > {low}");
            }
        }
    }
}
