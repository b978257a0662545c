//! What the program takes from its surroundings: environment and clock.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// `BAKEHOUSE_CACHE`, else `bakehouse` in the user's cache folder.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = named("BAKEHOUSE_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|folder| folder.join("bakehouse")))
        .or_else(|| named("HOME").map(|folder| folder.join(".cache/bakehouse")))
        .context("neither BAKEHOUSE_CACHE nor HOME is set: name a folder for the cache in BAKEHOUSE_CACHE")?;
    std::path::absolute(Path::new(&folder)).with_context(|| format!("cannot find {}", folder.display()))
}

/// The folder of a store: the one that the user names, else that of `BAKEHOUSE_STORE`, else `bakehouse/store` in the user's
/// data folder.
pub(crate) fn store_folder(named_by_user: Option<&Path>) -> Result<PathBuf> {
    let of_environment =
        std::env::var_os("BAKEHOUSE_STORE").filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(place) = named_by_user.map(Path::to_owned).or(of_environment) {
        if place.to_string_lossy().starts_with("s3://") {
            anyhow::bail!("{}: a store is a folder in this version", place.display());
        }
        return std::path::absolute(&place).with_context(|| format!("cannot find {}", place.display()));
    }
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = named("XDG_DATA_HOME").or_else(|| named("HOME").map(|folder| folder.join(".local/share")));
    Ok(folder.context("HOME is not set: name a folder for the store with --store")?.join("bakehouse/store"))
}

/// `BAKEHOUSE_DEBIAN_MIRROR`, if it says something.
pub(crate) fn mirror() -> Option<String> {
    std::env::var("BAKEHOUSE_DEBIAN_MIRROR").ok().filter(|value| !value.trim().is_empty())
}

/// The time, for validity dates of repositories only.
pub(crate) fn now() -> Result<i64> {
    let since =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is set before 1970: set it right")?;
    Ok(i64::try_from(since.as_secs())?)
}
