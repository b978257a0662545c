//! What is dispatched: a list of what is known to do the same on every architecture. All else is emulated.

use std::collections::BTreeSet;

use debian::version::source_version;

/// Packages whose programs treat their input as bytes or text. A `*` at the end stands for any rest.
const PACKAGES: &[&str] = &[
    "base-passwd",
    "bash",
    "bsdextrautils",
    "bsdutils",
    "bzip2",
    "coreutils",
    "cpio",
    "dash",
    "dbus-bin",
    "debianutils",
    "diffutils",
    "dpkg",
    "dracut-install",
    "file",
    "findutils",
    "gawk",
    "gettext-base",
    "grep",
    "groff-base",
    "grub-common",
    "grub2-common",
    "gzip",
    "hostname",
    "kmod",
    "libc-bin",
    "libpam-modules*",
    "login",
    "man-db",
    "mawk",
    "mount",
    "openssh-client",
    "openssh-server",
    "openssl",
    "passwd",
    "perl",
    "perl-base",
    "procps",
    "python3-minimal",
    "python3.*-minimal",
    "sed",
    "shared-mime-info",
    "sudo",
    "systemd",
    "sysvinit-utils",
    "tar",
    "udev",
    "util-linux",
    "util-linux-extra",
    "uuid-runtime",
    "xz-utils",
    "zstd",
];

/// Packages whose native modules a dispatched perl or python may load.
const MODULES: &[&str] = &["libpython3*-stdlib", "python3-*", "lib*-perl", "python3.*"];

/// Programs of those packages that are emulated all the same: they answer for the machine, load what is the target's, or
/// write what depends on it.
const EMULATED: &[&str] = &[
    "apt",
    "arch",
    "dpkg-deb",
    "dpkg-query",
    "dpkg-split",
    "dpkg-trigger",
    "gencat",
    "getconf",
    "iconvconfig",
    "i386",
    "ld.so",
    "ldconfig",
    "ldd",
    "linux32",
    "linux64",
    "lscpu",
    "lsmem",
    "pldd",
    "setarch",
    "sudo",
    "systemd-detect-virt",
    "uname",
    "uname26",
    "x86_64",
];

/// Programs that are dispatched only when their first argument is one of these, with spaces between them, and emulated
/// otherwise. dpkg answers for the machine, but not when it looks at versions, which is most of what scripts ask of it.
const ONLY_WITH: &[(&str, &str)] = &[("dpkg", "--compare-versions --validate-version")];

fn fits(name: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| match pattern.split_once('*') {
        None => name == *pattern,
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    })
}

/// Whether a package's programs may be dispatched.
pub(crate) fn has_programs(package: &str) -> bool {
    fits(package, PACKAGES)
}

/// Whether a program, by the last part of its path, may be dispatched when its package's programs may.
pub(crate) fn may_run(program: &str) -> bool {
    !EMULATED.contains(&program) && !program.starts_with("apt-") && !program.starts_with("ld-linux")
}

/// The first arguments without one of which a program, by the last part of its path, is emulated: with spaces between them.
pub(crate) fn only_with(program: &str) -> Option<&'static str> {
    ONLY_WITH.iter().find(|(name, _)| *name == program).map(|(_, arguments)| *arguments)
}

/// Which of these packages the native tree needs: those with programs or modules to be dispatched, and what they depend
/// on. `depends` gives the Depends and Pre-Depends fields of a package.
pub fn needed<'n>(names: &BTreeSet<&'n str>, depends: impl Fn(&str) -> Vec<String>) -> BTreeSet<&'n str> {
    let mut waiting: Vec<&str> =
        names.iter().copied().filter(|name| fits(name, PACKAGES) || fits(name, MODULES)).collect();
    let mut needed = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if !needed.insert(name) {
            continue;
        }
        for field in depends(name) {
            for target in debian::relation::parse(&field).unwrap_or_default().iter().flatten() {
                waiting.extend(names.get(target.name));
            }
        }
    }
    needed
}

/// Whether two versions are builds of the same source: rebuilds for one architecture alone (`+b1`) count as the same.
pub fn same_source(one: &str, other: &str) -> bool {
    source_version(one) == source_version(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rebuilds_are_the_same_source() {
        assert!(same_source("3.11-4", "3.11-4+b1"));
        assert!(same_source("6.0.2-1+b2", "6.0.2-1+b1"));
        assert!(!same_source("3.11-4", "3.11-5"));
        assert!(!same_source("5.2.37-2+b", "5.2.37-2"));
        assert!(!same_source("1+b1", "1+b1+deb13u1"));
    }

    #[test]
    fn what_speaks_for_the_machine_is_emulated() {
        for program in ["dpkg-query", "dpkg-deb", "ldconfig", "apt-get", "uname", "ld-linux-aarch64.so.1"] {
            assert!(!may_run(program), "{program}");
        }
        assert!(may_run("update-alternatives") && may_run("perl") && may_run("dpkg-divert"));
        assert_eq!(
            (only_with("dpkg"), only_with("perl")),
            (Some("--compare-versions --validate-version"), None)
        );
        assert!(has_programs("python3.13-minimal") && has_programs("dash"));
        for package in ["apache2-bin", "gcc-14", "libgdk-pixbuf2.0-bin", "php8.4-cli", "python3"] {
            assert!(!has_programs(package), "{package}");
        }
    }

    #[test]
    fn what_they_depend_on_comes_along() {
        let names = BTreeSet::from(["bash", "libtinfo6", "libc6", "apache2-bin", "libaprutil1t64"]);
        let needed = needed(&names, |name| match name {
            "bash" => vec!["libc6 (>= 2.38), libtinfo6 (>= 6)".into(), "base-files".into()],
            "libtinfo6" => vec!["libc6 (>= 2.34)".into()],
            "apache2-bin" => vec!["libaprutil1t64".into()],
            _ => Vec::new(),
        });
        assert_eq!(needed, BTreeSet::from(["bash", "libc6", "libtinfo6"]));
    }
}
