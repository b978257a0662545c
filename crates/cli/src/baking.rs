//! `bake`, `check` and `verify`.

use std::path::PathBuf;

use anyhow::Result;
use bake::{Checked, Place, Stage, Stages};
use recipe::Arch;
use serde_json::json;

use crate::arguments::{ArchChoice, BakeArguments, CheckArguments, VerifyArguments};
use crate::surroundings::{cache_folder, memory, mirror, now, store_folder};
use crate::terminal::{self, Paint, Terminal, print_json, say};
use crate::{DONE, FAILED};

/// `bakehouse bake`.
pub(crate) fn bake(arguments: &BakeArguments) -> Result<u8> {
    let archs: Vec<Option<Arch>> = match arguments.arch {
        None => vec![None],
        Some(ArchChoice::One(arch)) => vec![Some(arch)],
        Some(ArchChoice::All) => {
            bake::architectures(&arguments.recipe, &arguments.set)?.into_iter().map(Some).collect()
        }
    };
    let all = matches!(arguments.arch, Some(ArchChoice::All));
    let mut images = Vec::new();
    let mut code = DONE;
    for arch in archs {
        let out = match (&arguments.out, arch) {
            (Some(out), Some(arch)) if all => Some(out.join(arch.as_str())),
            (out, _) => out.clone(),
        };
        let (image, held) = bake_one(arguments, arch, out)?;
        images.push(image);
        if !held {
            code = FAILED;
        }
    }
    if arguments.json {
        let value = match images.as_mut_slice() {
            [image] if !all => image.take(),
            _ => json!({ "images": images }),
        };
        print_json(&value)?;
    }
    Ok(code)
}

/// Bakes for one architecture. Gives what `--json` tells of it, and whether every check held.
fn bake_one(
    arguments: &BakeArguments,
    arch: Option<Arch>,
    out: Option<PathBuf>,
) -> Result<(serde_json::Value, bool)> {
    let terminal = Terminal::new();
    let stages = Stages::new(&terminal);
    let request = bake::Request {
        recipe: arguments.recipe.clone(),
        set: arguments.set.clone(),
        arch,
        out,
        lock: arguments.lock.clone(),
        lock_mode: arguments.lock_mode(),
        parent: arguments.parent(),
        native_dispatch: !arguments.no_native_dispatch,
        explain: arguments.explain,
        check: (!arguments.no_check).then(|| arguments.firmware.into()),
        store: Some(store_folder(arguments.store.as_deref())?),
        cache: cache_folder()?,
        memory: memory()?,
        mirror: mirror()?,
        now: now()?,
    };
    let baked = bake::bake(&request, &stages);
    let done = stages.into_done();
    terminal.close();
    let baked = baked?;
    say(format!("\n{}", terminal::summary(&done, Paint::on_stderr()).trim_end()));
    let mut volumes = Vec::new();
    for volume in &baked.manifest.volumes {
        let place = |name: &Option<String>| name.as_ref().map(|name| baked.out.join(name));
        let (raw, vmdk) = (place(&volume.raw), place(&volume.vmdk));
        if let (Some(raw), Some(vmdk)) = (&raw, &volume.vmdk) {
            let (size, data) = (terminal::bytes(volume.size), terminal::bytes(volume.data_bytes));
            say(format!("{}: {size}, {data} of it data; the same disk in {vmdk}", raw.display()));
        }
        let stored = baked.stored.get(&volume.device);
        if let Some(stored) = stored {
            say(format!("{} {}: {}", stored.snapshot_id, stored.name, in_store(stored)));
        }
        if let Some(parent) = &volume.parent {
            let (blocks, bytes) = (parent.changed_blocks, terminal::bytes(parent.changed_bytes));
            let blocks = if blocks == 1 { "1 block".to_owned() } else { format!("{blocks} blocks") };
            say(format!("{}: a push to EBS sends {blocks}, {bytes}, against the parent", volume.device));
        }
        volumes.push(json!({
            "device": volume.device, "raw": raw, "vmdk": vmdk, "snapshot_id": volume.snapshot_id,
            "size": volume.size, "data_bytes": volume.data_bytes, "parent": volume.parent,
            "blocks": stored.map_or(0, |stored| stored.blocks),
            "new_blocks": stored.map_or(0, |stored| stored.new_blocks),
            "new_bytes": stored.map_or(0, |stored| stored.new_bytes),
            "stored_bytes": stored.map_or(0, |stored| stored.stored_bytes),
            "read_bytes": stored.map_or(0, |stored| stored.read_bytes),
            "hashed_bytes": stored.map_or(0, |stored| stored.hashed_bytes),
        }));
    }
    report_checks(&baked.checks);
    let value = json!({
        "name": baked.manifest.name, "image_id": baked.manifest.image_id, "arch": baked.manifest.arch,
        "out": baked.out, "volumes": volumes, "stages": done.iter().map(stage_json).collect::<Vec<_>>(),
        "checks": baked.checks,
    });
    Ok((value, baked.checks_hold()))
}

/// What the store did with a volume, for people.
fn in_store(put: &store::PutReport) -> String {
    let blocks = put.blocks;
    match put.new_blocks {
        _ if put.existed => format!("in the store already, all {blocks} blocks"),
        0 => format!("in the store, none of its {blocks} blocks new"),
        new => {
            let stored = terminal::bytes(put.stored_bytes);
            format!("in the store, {new} of its {blocks} blocks new, which take {stored}")
        }
    }
}

/// `bakehouse verify`.
pub(crate) fn verify(arguments: &VerifyArguments) -> Result<u8> {
    let terminal = Terminal::new();
    let stages = Stages::new(&terminal);
    let what = bake::Verification {
        folder: arguments.folder.clone(),
        rebuild: arguments.rebuild,
        recipe: arguments.recipe.clone(),
        lock: arguments.lock.clone(),
        cache: cache_folder()?,
        memory: memory()?,
        mirror: mirror()?,
        now: now()?,
    };
    let verified = bake::verify(&what, &stages);
    terminal.close();
    let verified = verified?;
    for fault in &verified.faults {
        say(fault);
    }
    let (files, folder) = (verified.files.len(), arguments.folder.display());
    match (verified.faults.as_slice(), arguments.rebuild) {
        ([], true) => say(format!("{folder}: baked again, all {files} outputs are the same")),
        ([], false) => say(format!("{folder}: {files} files are whole and agree with each other")),
        _ => {}
    }
    if arguments.json {
        print_json(&verified)?;
    }
    Ok(if verified.faults.is_empty() { DONE } else { FAILED })
}

/// `bakehouse check`.
pub(crate) fn check(arguments: &CheckArguments) -> Result<u8> {
    let terminal = Terminal::new();
    let stages = Stages::new(&terminal);
    let (cache, mirror, now) = (cache_folder()?, mirror()?, now()?);
    let place = Place { cache: &cache, now, mirror: mirror.as_deref() };
    let checks = bake::check(&arguments.folder, arguments.firmware.into(), &place, &stages);
    terminal.close();
    let checks = checks?;
    report_checks(&checks);
    if arguments.json {
        print_json(&json!({"out": arguments.folder, "checks": checks}))?;
    }
    Ok(if checks.iter().all(|check| check.ok) { DONE } else { FAILED })
}

fn report_checks(checks: &[Checked]) {
    let paint = Paint::on_stderr();
    for check in checks {
        let verdict = if check.ok { paint.good("ok  ") } else { paint.bad("FAIL") };
        say(format!("{verdict} {:5} {} ({:.1} s)", check.firmware, check.name, check.seconds));
        if !check.ok {
            for line in check.detail.lines() {
                say(format!("          {line}"));
            }
        }
    }
}

fn stage_json(stage: &Stage) -> serde_json::Value {
    json!({"name": stage.name, "seconds": stage.seconds, "bytes": stage.bytes, "cached": stage.cached})
}
