//! The dependencies: each has its reason in docs/dependencies.md, and cargo-deny judges the whole graph.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The release of cargo-deny that is built, once, into the target folder.
const CARGO_DENY: &str = "0.20.2";

/// Fails when a crate that this workspace names has no line in docs/dependencies.md, or a line no crate.
pub(crate) fn have_reasons(root: &Path) -> Result<()> {
    let named = named(root)?;
    let path = root.join("docs/dependencies.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let reasons = reasons(&text);
    let list = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>().join(", ");
    let missing: Vec<&String> = named.difference(&reasons).collect();
    if !missing.is_empty() {
        bail!("docs/dependencies.md gives no reason for {}: add a line each", list(missing));
    }
    let left: Vec<&String> = reasons.difference(&named).collect();
    if !left.is_empty() {
        bail!(
            "docs/dependencies.md gives reasons for {}, which no crate names: take the lines out",
            list(left)
        );
    }
    println!("xtask: {} third-party crates are named, each with its reason", named.len());
    Ok(())
}

/// The third-party crates that the crates of this workspace name.
fn named(root: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(root)
        .output()
        .context("cannot run `cargo metadata`")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("`cargo metadata` printed no JSON")?;
    let mut names = BTreeSet::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if let (None, Some(name)) = (dependency.get("path"), dependency["name"].as_str()) {
                names.insert(name.to_owned());
            }
        }
    }
    Ok(names)
}

/// The names in the first column of the table.
fn reasons(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    let cells = rows.filter_map(|line| line.split('|').nth(1)).filter(|cell| !cell.contains("---"));
    cells.flat_map(|cell| cell.split(',').map(|name| name.trim().to_owned())).collect()
}

/// Runs cargo-deny, built on first use below the target folder.
pub(crate) fn deny(root: &Path, target: &Path) -> Result<()> {
    let folder = target.join(format!("cargo-deny-{CARGO_DENY}"));
    let program: PathBuf = folder.join("bin/cargo-deny");
    if !program.exists() {
        println!("xtask: cargo-deny {CARGO_DENY} is not there yet: building it, once");
        let words: Vec<OsString> =
            vec!["--root".into(), folder.into(), "--version".into(), CARGO_DENY.into()];
        let status = Command::new(env!("CARGO"))
            // Unoptimized: it runs for a second, and is built in about a minute.
            .args(["install", "cargo-deny", "--debug", "--locked", "--no-default-features", "--no-track"])
            .args(words)
            .status()
            .context("cannot run `cargo install`")?;
        if !status.success() {
            bail!("cargo-deny could not be built (see above)");
        }
    }
    let status = Command::new(&program)
        .args(["--locked", "check", "licenses", "bans", "sources"])
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !status.success() {
        bail!("cargo-deny found something (see above)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::reasons;

    #[test]
    fn the_first_column_holds_the_names() {
        let text = "# Title\n\n| crate | why |\n| --- | --- |\n| a, b-sys | one | \n| c | two |\n";
        assert_eq!(reasons(text).into_iter().collect::<Vec<_>>(), ["a", "b-sys", "c"]);
    }
}
