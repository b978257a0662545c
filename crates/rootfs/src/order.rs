//! Which packages are unpacked together, and what must be configured in between: what dpkg asks of apt.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::package::Package;

/// Indexes of packages that are unpacked together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wave {
    /// In the order of their preinst scripts.
    pub(crate) unpack: Vec<usize>,
    /// What to configure afterwards, before the next wave is unpacked; the last wave configures all that is left.
    pub(crate) configure: Vec<usize>,
}

/// Who needs whom, by index.
struct Needs {
    pre: Vec<Vec<usize>>,
    all: Vec<Vec<usize>>,
}

impl Needs {
    fn new(packages: &[Package]) -> Self {
        let mut providers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, package) in packages.iter().enumerate() {
            providers.entry(&package.name).or_default().insert(0, index);
            for name in &package.provides {
                providers.entry(name).or_default().push(index);
            }
        }
        // The first alternative that is there counts; one that nobody provides is dpkg's to complain about.
        let find = |groups: &[Vec<String>]| -> Vec<usize> {
            let first = |group: &Vec<String>| {
                group.iter().find_map(|name| providers.get(name.as_str())?.first().copied())
            };
            groups.iter().filter_map(first).collect()
        };
        let pre: Vec<_> = packages.iter().map(|package| find(&package.pre_depends)).collect();
        let all = packages
            .iter()
            .zip(&pre)
            .map(|(package, pre)| [pre.clone(), find(&package.depends)].concat())
            .collect();
        Self { pre, all }
    }

    /// What `start` needs, at any depth, itself included.
    fn closure(&self, start: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<_> = start.into_iter().collect();
        while let Some(index) = open.pop() {
            if seen.insert(index) {
                open.extend(&self.all[index]);
            }
        }
        seen
    }

    /// `members` so that each comes after what it needs, as far as there is no circle.
    fn sorted(&self, members: &BTreeSet<usize>) -> Vec<usize> {
        fn visit(
            needs: &Needs,
            index: usize,
            members: &BTreeSet<usize>,
            seen: &mut BTreeSet<usize>,
            order: &mut Vec<usize>,
        ) {
            if !members.contains(&index) || !seen.insert(index) {
                return;
            }
            for next in &needs.all[index] {
                visit(needs, *next, members, seen, order);
            }
            order.push(index);
        }
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        for index in members {
            visit(self, *index, members, &mut seen, &mut order);
        }
        order
    }
}

/// The essential packages and all they need, by index.
pub(crate) fn essential(packages: &[Package]) -> BTreeSet<usize> {
    Needs::new(packages).closure((0..packages.len()).filter(|index| packages[*index].essential))
}

/// Cuts the packages into waves. The first holds the essential and required packages and all they
/// need; each later one the
/// packages whose Pre-Depends are configured by then.
pub(crate) fn waves(packages: &[Package]) -> Result<Vec<Wave>, Error> {
    let needs = Needs::new(packages);
    let essential =
        (0..packages.len()).filter(|index| packages[*index].essential || packages[*index].required);
    let first = needs.closure(essential);
    let mut unpacked = first.clone();
    let mut configured = first.clone();
    let mut left: BTreeSet<usize> = (0..packages.len()).filter(|index| !first.contains(index)).collect();
    let order = needs.sorted(&first);
    let mut waves = vec![Wave { unpack: order.clone(), configure: order }];
    while !left.is_empty() {
        let ready: BTreeSet<usize> = left
            .iter()
            .copied()
            .filter(|index| needs.pre[*index].iter().all(|need| configured.contains(need)))
            .collect();
        unpacked.extend(&ready);
        left.retain(|index| !ready.contains(index));
        // Configure as little as opens the way for more: scripts cost time, and waiting ones may run beside reading.
        let mut configure = BTreeSet::new();
        for waiting in &left {
            let wanted = needs.closure(needs.pre[*waiting].iter().copied());
            if wanted.is_subset(&unpacked) {
                configure.extend(wanted.difference(&configured));
            }
        }
        if ready.is_empty() && configure.is_empty() {
            let names = left.iter().map(|index| packages[*index].name.to_string()).collect();
            return Err(Error::PreDepends { packages: names });
        }
        if left.is_empty() {
            configure = unpacked.difference(&configured).copied().collect();
        }
        configured.extend(&configure);
        waves.push(Wave { unpack: needs.sorted(&ready), configure: needs.sorted(&configure) });
    }
    Ok(waves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_packages::TestPackage;

    fn names(packages: &[Package], indexes: &[usize]) -> Vec<String> {
        indexes.iter().map(|index| packages[*index].name.to_string()).collect()
    }

    #[test]
    fn pre_depends_are_configured_before_a_package_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let packages: Vec<_> = [
            TestPackage::new("app").field("Depends: lib"),
            TestPackage::new("base").field("Essential: yes").field("Pre-Depends: libc"),
            TestPackage::new("lib"),
            TestPackage::new("libc"),
            TestPackage::new("tool").field("Pre-Depends: app | none"),
            TestPackage::new("late").field("Depends: tool"),
        ]
        .into_iter()
        .map(|package| package.make(folder.path()))
        .collect();
        let waves = waves(&packages).unwrap();
        assert_eq!(names(&packages, &waves[0].unpack), ["libc", "base"]);
        assert_eq!(names(&packages, &waves[1].unpack), ["lib", "app", "late"]);
        assert_eq!(names(&packages, &waves[1].configure), ["lib", "app"]);
        assert_eq!(names(&packages, &waves[2].unpack), ["tool"]);
        assert_eq!(names(&packages, &waves[2].configure), ["tool", "late"]);
        assert_eq!(waves.len(), 3);
    }

    #[test]
    fn a_circle_of_pre_depends_is_an_error_with_names() {
        let folder = tempfile::tempdir().unwrap();
        let packages =
            [TestPackage::new("a").field("Pre-Depends: b"), TestPackage::new("b").field("Pre-Depends: a")];
        let packages: Vec<_> = packages.into_iter().map(|package| package.make(folder.path())).collect();
        assert!(matches!(waves(&packages), Err(Error::PreDepends { packages }) if packages == ["a", "b"]));
    }
}
