//! One package as its control file describes it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Error;
use debian::deb::{Control, Deb};
use debian::relation::{self, Operator, RelationError};

/// A package whose files may be replaced, and which of its versions; `None`: all.
type Replaced = (String, Option<(Operator, String)>);

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
    replaces: Vec<Replaced>,
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
        let odd =
            |name: &str, error: RelationError| bad(format!("has a {name} that cannot be read: {error}"));
        let names = |name: &str| names(field(name).unwrap_or_default()).map_err(|error| odd(name, error));
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
            depends: names("Depends")?,
            pre_depends: names("Pre-Depends")?,
            provides: names("Provides")?.into_iter().flatten().collect(),
            replaces: replaced(field("Replaces").unwrap_or_default())
                .map_err(|error| odd("Replaces", error))?,
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
            names_it && version.as_ref().is_none_or(|(operator, bound)| operator.holds(&other.version, bound))
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

/// The names in each group of a relation field.
fn names(field: &str) -> Result<Vec<Vec<String>>, RelationError> {
    let groups = relation::parse(field)?.into_iter();
    Ok(groups.map(|group| group.iter().map(|target| target.name.to_owned()).collect()).collect())
}

/// Each package whose files may be replaced, and which of its versions.
fn replaced(field: &str) -> Result<Vec<Replaced>, RelationError> {
    let targets = relation::parse(field)?.into_iter().flatten();
    let owned = |(operator, version): (Operator, &str)| (operator, version.to_owned());
    Ok(targets.map(|target| (target.name.to_owned(), target.version.map(owned))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read_as_far_as_files_need_them() {
        let groups = names("libc6 (>= 2.38), debconf (>= 0.5) | debconf-2.0, python3:any").unwrap();
        assert_eq!(groups, [vec!["libc6"], vec!["debconf", "debconf-2.0"], vec!["python3"]]);
        let of_older = ("a".to_owned(), Some((Operator::Earlier, "1:2-3~".to_owned())));
        assert_eq!(replaced("a (<< 1:2-3~), b").unwrap(), [of_older, ("b".to_owned(), None)]);
        assert!(names("a (1)").is_err());
    }
}
