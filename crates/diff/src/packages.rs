//! Packages that differ.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::Package;

/// The packages that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageChanges {
    /// How many are in both images in one version.
    pub same: u64,
    /// The others, by name.
    pub changes: Vec<PackageChange>,
}

/// A package that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageChange {
    /// Its name; with its architecture where an image has it for several.
    pub name: String,
    /// What became of it.
    pub step: Step,
}

/// What became of a package on the way from A to B.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Only B has it, in this version.
    Added(String),
    /// Only A has it, in this version.
    Removed(String),
    /// B has the later version.
    Upgraded(String, String),
    /// B has the earlier version.
    Downgraded(String, String),
}

impl Step {
    /// `added`, `removed`, `upgraded`, `downgraded`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Added(_) => "added",
            Self::Removed(_) => "removed",
            Self::Upgraded(..) => "upgraded",
            Self::Downgraded(..) => "downgraded",
        }
    }

    /// The versions in A and in B.
    pub fn versions(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Added(version) => (None, Some(version)),
            Self::Removed(version) => (Some(version), None),
            Self::Upgraded(before, after) | Self::Downgraded(before, after) => (Some(before), Some(after)),
        }
    }
}

impl PackageChanges {
    /// How many packages took a step, by the word for it, in the order in which people want to know.
    pub fn counts(&self) -> Vec<(u64, &'static str)> {
        ["upgraded", "downgraded", "added", "removed"]
            .into_iter()
            .map(|word| {
                (self.changes.iter().filter(|change| change.step.word() == word).count() as u64, word)
            })
            .collect()
    }
}

pub(crate) fn compare(
    a: &[Package],
    b: &[Package],
    order: &dyn Fn(&str, &str) -> Ordering,
) -> PackageChanges {
    let several: BTreeSet<&str> = [a, b].into_iter().flat_map(repeated).collect();
    let key = |package: &Package| match several.contains(package.name.as_str()) {
        true => format!("{}:{}", package.name, package.architecture),
        false => package.name.clone(),
    };
    let mut sides: BTreeMap<String, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for package in a {
        sides.entry(key(package)).or_default().0 = Some(&package.version);
    }
    for package in b {
        sides.entry(key(package)).or_default().1 = Some(&package.version);
    }
    let mut same = 0;
    let mut changes = Vec::new();
    for (name, sides) in sides {
        let step = match sides {
            (Some(before), Some(after)) if before == after => {
                same += 1;
                continue;
            }
            (Some(before), Some(after)) => match order(before, after) {
                Ordering::Greater => Step::Downgraded(before.to_owned(), after.to_owned()),
                _ => Step::Upgraded(before.to_owned(), after.to_owned()),
            },
            (None, Some(version)) => Step::Added(version.to_owned()),
            (Some(version), None) => Step::Removed(version.to_owned()),
            (None, None) => continue,
        };
        changes.push(PackageChange { name, step });
    }
    PackageChanges { same, changes }
}

/// Names that a list has more than once.
fn repeated(packages: &[Package]) -> Vec<&str> {
    let mut names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(packages: &[(&str, &str, &str)]) -> Vec<Package> {
        let package = |(name, version, architecture): &(&str, &str, &str)| Package {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            architecture: (*architecture).to_owned(),
        };
        packages.iter().map(package).collect()
    }

    #[test]
    fn each_package_takes_the_step_that_it_took() {
        let a = list(&[
            ("curl", "8.9", "amd64"),
            ("gone", "1", "all"),
            ("libc6", "2.41", "amd64"),
            ("same", "3", "all"),
            ("tzdata", "2026b", "all"),
        ]);
        let b = list(&[
            ("curl", "8.10", "amd64"),
            ("libc6", "2.41", "amd64"),
            ("libc6", "2.42", "i386"),
            ("new", "1", "all"),
            ("same", "3", "all"),
            ("tzdata", "2026a", "all"),
        ]);
        // By length, then by text: enough of an order for this.
        let order = |one: &str, other: &str| (one.len(), one).cmp(&(other.len(), other));
        let found = compare(&a, &b, &order);
        let steps: Vec<_> =
            found.changes.iter().map(|change| (change.name.as_str(), change.step.word())).collect();
        let expected = [
            ("curl", "upgraded"),
            ("gone", "removed"),
            ("libc6:i386", "added"),
            ("new", "added"),
            ("tzdata", "downgraded"),
        ];
        assert_eq!((found.same, &steps[..]), (2, &expected[..]));
        assert_eq!(found.counts(), [(1, "upgraded"), (1, "downgraded"), (2, "added"), (1, "removed")]);
        assert!(compare(&a, &a, &order).changes.is_empty());
    }
}
