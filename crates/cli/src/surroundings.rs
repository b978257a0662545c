//! What the program takes from its surroundings: environment and clock.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// What the user can mend in the environment or on the command line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unusable(pub(crate) String);

/// `BAKEHOUSE_CACHE`, else `bakehouse` in the user's cache folder.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = named("BAKEHOUSE_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|folder| folder.join("bakehouse")))
        .or_else(|| named("HOME").map(|folder| folder.join(".cache/bakehouse")))
        .ok_or_else(|| {
            Unusable(
                "neither BAKEHOUSE_CACHE nor HOME is set: name a folder for the cache in BAKEHOUSE_CACHE"
                    .into(),
            )
        })?;
    std::path::absolute(Path::new(&folder)).with_context(|| format!("cannot find {}", folder.display()))
}

/// The folder of a store: the one that the user names, else that of `BAKEHOUSE_STORE`, else `bakehouse/store` in the user's
/// data folder.
pub(crate) fn store_folder(named_by_user: Option<&Path>) -> Result<PathBuf> {
    let of_environment =
        std::env::var_os("BAKEHOUSE_STORE").filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(place) = named_by_user.map(Path::to_owned).or(of_environment) {
        if place.to_string_lossy().starts_with("s3://") {
            return Err(Unusable(format!("{}: a store is a folder in this version", place.display())).into());
        }
        return std::path::absolute(&place).with_context(|| format!("cannot find {}", place.display()));
    }
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = named("XDG_DATA_HOME").or_else(|| named("HOME").map(|folder| folder.join(".local/share")));
    let folder = folder.ok_or_else(|| {
        Unusable("HOME is not set: name a folder for the store with --store or in BAKEHOUSE_STORE".into())
    })?;
    Ok(folder.join("bakehouse/store"))
}

/// How many bytes of files in the making may lie in memory: `BAKEHOUSE_MEMORY`, else half of what is free here.
pub(crate) fn memory() -> Result<u64> {
    match std::env::var("BAKEHOUSE_MEMORY") {
        Ok(text) if !text.trim().is_empty() => Ok(size(text.trim()).ok_or_else(|| {
            Unusable(format!(
                "BAKEHOUSE_MEMORY is {text:?}: a size is written 4GiB or 512MiB, and 0 means that all goes to the disk"
            ))
        })?),
        _ => Ok(free_memory() / 2),
    }
}

fn size(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "" if digits == "0" => 0,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// What the machine has free, and the control groups that this process is in; 0 where nobody says.
fn free_memory() -> u64 {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let number = |path: &Path| read(path)?.trim().parse::<u64>().ok();
    let available = read(Path::new("/proc/meminfo")).and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    });
    let mut free = available.unwrap_or(0);
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    for line in groups.lines() {
        // Of both versions: `0::/path`, and `7:memory:/path`.
        let (folder, limits, used) = match line.splitn(3, ':').collect::<Vec<_>>()[..] {
            // Above `high` processes are held up rather than ended.
            ["0", "", path] => {
                (format!("/sys/fs/cgroup{path}"), ["memory.max", "memory.high"], "memory.current")
            }
            [_, kinds, path] if kinds.split(',').any(|kind| kind == "memory") => {
                let limits = ["memory.limit_in_bytes", "memory.soft_limit_in_bytes"];
                (format!("/sys/fs/cgroup/memory{path}"), limits, "memory.usage_in_bytes")
            }
            _ => continue,
        };
        // A limit above counts as well. In a container the path may be that outside, and its own limit in the top folder.
        for folder in Path::new(&folder).ancestors().filter(|folder| folder.starts_with("/sys/fs/cgroup")) {
            let most = limits.iter().filter_map(|limit| number(&folder.join(limit))).min();
            let (Some(most), Some(used)) = (most, number(&folder.join(used))) else { continue };
            // Files that were read and not looked at since make room when it is needed.
            let stat = read(&folder.join("memory.stat")).unwrap_or_default();
            let cold = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok());
            free = free.min(most.saturating_sub(used.saturating_sub(cold.unwrap_or(0))));
        }
    }
    free
}

/// `BAKEHOUSE_DEBIAN_MIRROR`, if it says something.
pub(crate) fn mirror() -> Result<Option<String>> {
    let Some(value) = std::env::var_os("BAKEHOUSE_DEBIAN_MIRROR") else { return Ok(None) };
    let value = value.to_string_lossy().into_owned();
    let is_address = |word: &str| ["http://", "https://", "file:/"].iter().any(|kind| word.starts_with(kind));
    if value.split_whitespace().count() > 2 || !value.split_whitespace().all(is_address) {
        let wanted = "one address such as http://mirror.example/debian, or two parted by a blank, the second for security updates";
        return Err(Unusable(format!("BAKEHOUSE_DEBIAN_MIRROR is {value:?}: it takes {wanted}")).into());
    }
    Ok(Some(value).filter(|value| !value.trim().is_empty()))
}

/// The time, for validity dates of repositories only.
pub(crate) fn now() -> Result<i64> {
    let since =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is set before 1970: set it right")?;
    Ok(i64::try_from(since.as_secs())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_unless_they_are_nothing() {
        let sizes = ["0", "4GiB", "512MiB", "4", "4GB", "GiB", "-1GiB", "99999999999GiB"].map(size);
        assert_eq!(sizes[..3], [Some(0), Some(4 << 30), Some(512 << 20)]);
        assert_eq!(sizes[3..], [None; 5]);
    }
}
