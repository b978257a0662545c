//! `tools`.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::json;
use tools::{Set, Tools};

use crate::DONE;
use crate::arguments::ToolsArguments;
use crate::surroundings::{cache_folder, mirror, now};
use crate::terminal::{Terminal, bytes, print, print_as_it_is, print_json};

/// `bakehouse tools`.
pub(crate) fn tools(arguments: &ToolsArguments) -> Result<u8> {
    let terminal = Terminal::new();
    let (cache, mirror, now) = (cache_folder()?, mirror()?, now()?);
    let provider = bake::ToolPackages {
        cache: &cache,
        now,
        mirror: mirror.as_deref(),
        expired_suite: None,
        report: &terminal,
    };
    let sets = match arguments.set {
        Some(set) => vec![set.into()],
        None => Set::USUAL.to_vec(),
    };
    let mut prepared = Vec::new();
    for set in sets {
        let (tools, _) = Tools::prepare(set, &cache, &provider).map_err(bake::Error::from)?;
        prepared.push((set.name(), tools));
    }
    terminal.close();
    if arguments.print_path {
        let paths = std::env::join_paths(prepared.iter().map(|(_, tools)| tools.bin()))?;
        print_as_it_is(paths.display())?;
        return Ok(DONE);
    }
    let mut sets = Vec::new();
    for (name, tools) in &prepared {
        let size = size(tools.folder());
        if arguments.json {
            let packages = tools.packages();
            sets.push(json!({
                "name": name, "folder": tools.folder(), "bin": tools.bin(), "bytes": size, "packages": packages,
            }));
            continue;
        }
        let (count, folder) = (tools.packages().len(), tools.folder().display());
        print(format!("{name}: {count} Debian packages, {} in {folder}", bytes(size)))?;
        for package in tools.packages() {
            print(format!("  {} {}", package.name, package.version))?;
        }
    }
    if arguments.json {
        print_json(&json!({ "sets": sets }))?;
    }
    Ok(DONE)
}

/// The bytes of a folder's files; what cannot be read counts nothing.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) if meta.is_file() => meta.len(),
        _ => 0,
    });
    sizes.sum()
}
