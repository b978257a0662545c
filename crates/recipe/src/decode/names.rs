//! Which names and versions there can be.

pub(crate) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && name.len() <= 255 && !name.contains('\0')
}

pub(crate) fn is_key_type(word: &str) -> bool {
    word.starts_with("ssh-") || word.starts_with("ecdsa-sha2-") || word.starts_with("sk-")
}

/// Debian policy 5.6.7.
pub(crate) fn is_package_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
}

/// Debian policy 5.6.12.
pub(crate) fn is_package_version(version: &str) -> bool {
    let upstream = match version.split_once(':') {
        Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        Some(_) => return false,
        None => version,
    };
    upstream.starts_with(|c: char| c.is_ascii_digit())
        && upstream.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '~' | ':'))
        && !upstream.ends_with('-')
}

pub(crate) fn is_user_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
}

/// Whether `run-parts --lsbsysinit` runs a file of this name: the LANANA, LSB hierarchical and cron name spaces.
pub(crate) fn runs_as_part(name: &str) -> bool {
    if [".dpkg-old", ".dpkg-dist", ".dpkg-new", ".dpkg-tmp"].iter().any(|suffix| name.ends_with(suffix)) {
        return false;
    }
    let word = |text: &str, more: &[char]| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(&c))
    };
    let cron = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let hierarchical = match name.rsplit_once('-') {
        Some((spaces, last)) => {
            word(last, &[])
                && spaces.strip_prefix('_').unwrap_or(spaces).split('-').all(|part| word(part, &['_', '.']))
        }
        None => false,
    };
    cron || hierarchical
}

/// The nearest name that `run-parts` does run: without an extension, a dash for whatever else is not allowed.
pub(crate) fn runnable_name(name: &str) -> String {
    let stem = [".sh", ".bash", ".py", ".pl"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let dashed: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    dashed.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_scripts_run_when_run_parts_says_so() {
        for good in ["40-cow", "motd", "_foo.bar-baz", "example.org-greeting", "A_b"] {
            assert!(runs_as_part(good), "{good}");
        }
        for bad in ["40-cow.sh", "cow.dpkg-new", "a b", "", "Example.org-x", "x~", "-.x"] {
            assert!(!runs_as_part(bad), "{bad}");
        }
    }

    #[test]
    fn package_names_and_versions_follow_debian_policy() {
        for good in ["g++", "libc6", "0ad", "linux-image-6.12.48+deb13-cloud-amd64"] {
            assert!(is_package_name(good), "{good}");
        }
        for bad in ["a", "Apache2", "libc6:amd64", "-x", "a_b", ""] {
            assert!(!is_package_name(bad), "{bad}");
        }
        for good in ["2.4.65-2", "1:10.0p1-7+deb13u4", "0~rc1", "1:2:3-4"] {
            assert!(is_package_version(good), "{good}");
        }
        for bad in ["", "x", "1-", "a:1", "1_2", ":1"] {
            assert!(!is_package_version(bad), "{bad}");
        }
    }
}
