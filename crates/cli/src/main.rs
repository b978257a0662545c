//! The `bakehouse` program: arguments, progress, messages, exit codes. What it does is in the other rooms.
#![allow(clippy::print_stderr, reason = "a program for people at a terminal")]

mod arguments;
mod job;
mod terminal;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use arguments::{ArchChoice, Arguments, BakeArguments, CheckArguments, Command};
use arguments::{ToolsArguments, ValidateArguments, VerifyArguments};
use bake::{Checked, Place, Stage, Stages};
use clap::Parser;
use recipe::Arch;
use serde_json::json;
use terminal::Terminal;
use tools::{Set, Tools};

/// Everything was done and every check held.
const DONE: u8 = 0;
/// The job failed, or a check did not hold.
const FAILED: u8 = 1;
/// The user's mistake: in the recipe, the lock, or the command line.
const MISTAKE: u8 = 2;

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let code = match &command {
        Command::Bake(_) | Command::Check(_) | Command::Verify(_) => job::run(true, || told(run(command))),
        Command::Tools(_) => job::run(false, || told(run(command))),
        Command::Validate(_) | Command::Schema => told(run(command)),
    };
    ExitCode::from(code)
}

/// Tells an error, and gives the exit code.
fn told(result: Result<u8>) -> u8 {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    let mistake = error.downcast_ref::<bake::Error>().is_some_and(bake::Error::is_mistake)
        || error.is::<sandbox::EnterError>();
    // Most messages quote their cause already.
    let text =
        error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
            "" => cause,
            _ if text.contains(&cause) => text,
            _ => format!("{text}: {cause}"),
        });
    // A recipe's mistakes are a whole message already.
    let whole = matches!(error.downcast_ref(), Some(bake::Error::Recipe(_) | bake::Error::Unfit { .. }));
    eprintln!("{}{}", if whole { "" } else { "error: " }, text.trim_end());
    if let Some(advice) = job::advice(&error, text.trim_end()) {
        eprintln!("{advice}");
    }
    if mistake { MISTAKE } else { FAILED }
}

fn run(command: Command) -> Result<u8> {
    match command {
        Command::Bake(arguments) => bake(&arguments),
        Command::Check(arguments) => check(&arguments),
        Command::Verify(arguments) => verify(&arguments),
        Command::Validate(arguments) => validate(arguments),
        Command::Schema => {
            print(&serde_json::to_string_pretty(&recipe::schema())?)?;
            Ok(DONE)
        }
        Command::Tools(arguments) => tools(&arguments),
    }
}

fn bake(arguments: &BakeArguments) -> Result<u8> {
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
        print(&serde_json::to_string_pretty(&value)?)?;
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
        native_dispatch: !arguments.no_native_dispatch,
        explain: arguments.explain,
        check: (!arguments.no_check).then(|| arguments.firmware.into()),
        cache: cache_folder()?,
        mirror: mirror(),
        now: now()?,
    };
    let baked = bake::bake(&request, &stages);
    let done = stages.into_done();
    terminal.close();
    let baked = baked?;
    eprint!("\n{}", terminal::summary(&done));
    let mut volumes = Vec::new();
    for volume in &baked.manifest.volumes {
        let place = |name: &Option<String>| name.as_ref().map(|name| baked.out.join(name));
        let (raw, vmdk) = (place(&volume.raw), place(&volume.vmdk));
        if let (Some(raw), Some(vmdk)) = (&raw, &volume.vmdk) {
            let (size, data) = (terminal::bytes(volume.size), terminal::bytes(volume.data_bytes));
            eprintln!("{}: {size}, {data} of it data; the same disk in {vmdk}", raw.display());
        }
        volumes.push(json!({
            "device": volume.device, "raw": raw, "vmdk": vmdk, "snapshot_id": volume.snapshot_id,
            "size": volume.size, "data_bytes": volume.data_bytes,
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

fn verify(arguments: &VerifyArguments) -> Result<u8> {
    let terminal = Terminal::new();
    let stages = Stages::new(&terminal);
    let what = bake::Verification {
        folder: arguments.folder.clone(),
        rebuild: arguments.rebuild,
        recipe: arguments.recipe.clone(),
        lock: arguments.lock.clone(),
        cache: cache_folder()?,
        mirror: mirror(),
        now: now()?,
    };
    let verified = bake::verify(&what, &stages);
    terminal.close();
    let verified = verified?;
    for fault in &verified.faults {
        eprintln!("{fault}");
    }
    let (files, folder) = (verified.files.len(), arguments.folder.display());
    match (verified.faults.as_slice(), arguments.rebuild) {
        ([], true) => eprintln!("{folder}: baked again, all {files} outputs are the same"),
        ([], false) => eprintln!("{folder}: {files} disk files hold what the manifest says"),
        _ => {}
    }
    if arguments.json {
        print(&serde_json::to_string_pretty(&verified)?)?;
    }
    Ok(if verified.faults.is_empty() { DONE } else { FAILED })
}

fn check(arguments: &CheckArguments) -> Result<u8> {
    let terminal = Terminal::new();
    let stages = Stages::new(&terminal);
    let (cache, mirror, now) = (cache_folder()?, mirror(), now()?);
    let place = Place { cache: &cache, now, mirror: mirror.as_deref() };
    let checks = bake::check(&arguments.folder, arguments.firmware.into(), &place, &stages);
    terminal.close();
    let checks = checks?;
    report_checks(&checks);
    if arguments.json {
        print(&serde_json::to_string_pretty(&json!({"out": arguments.folder, "checks": checks}))?)?;
    }
    Ok(if checks.iter().all(|check| check.ok) { DONE } else { FAILED })
}

fn validate(arguments: ValidateArguments) -> Result<u8> {
    let found = bake::validate(&arguments.recipe, arguments.set);
    if arguments.json {
        let told = match &found {
            Ok(warnings) => warnings.to_json(),
            Err(bake::Error::Recipe(diagnostics)) => diagnostics.to_json(),
            Err(_) => json!([]),
        };
        print(&serde_json::to_string_pretty(&told)?)?;
    }
    let warnings = found?;
    eprint!("{warnings}");
    eprintln!("{}: no mistakes", arguments.recipe.display());
    Ok(DONE)
}

fn tools(arguments: &ToolsArguments) -> Result<u8> {
    let terminal = Terminal::new();
    let (cache, mirror, now) = (cache_folder()?, mirror(), now()?);
    let provider = bake::ToolPackages { cache: &cache, now, mirror: mirror.as_deref(), report: &terminal };
    let sets = match arguments.set {
        Some(set) => vec![set.into()],
        None => Set::USUAL.to_vec(),
    };
    let mut paths = Vec::new();
    for set in sets {
        let (tools, _) = Tools::prepare(set, &cache, &provider).map_err(bake::Error::from)?;
        if !arguments.print_path {
            let (count, folder) = (tools.packages().len(), tools.folder().display());
            print(&format!("{}: {count} packages in {folder}", set.name()))?;
            for package in tools.packages() {
                print(&format!("  {} {}", package.name, package.version))?;
            }
        }
        paths.push(tools.bin());
    }
    terminal.close();
    if arguments.print_path {
        print(&std::env::join_paths(paths)?.display().to_string())?;
    }
    Ok(DONE)
}

/// A line on standard output. A reader that has seen enough, as `head` does, is no failure.
fn print(line: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn report_checks(checks: &[Checked]) {
    for check in checks {
        let verdict = if check.ok { "ok  " } else { "FAIL" };
        eprintln!("{verdict} {:4} {} ({:.1} s)", check.firmware, check.name, check.seconds);
        if !check.ok {
            for line in check.detail.lines() {
                eprintln!("          {line}");
            }
        }
    }
}

fn stage_json(stage: &Stage) -> serde_json::Value {
    json!({"name": stage.name, "seconds": stage.seconds, "bytes": stage.bytes, "cached": stage.cached})
}

/// `BAKEHOUSE_CACHE`, else `bakehouse` in the user's cache folder.
fn cache_folder() -> Result<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = named("BAKEHOUSE_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|folder| folder.join("bakehouse")))
        .or_else(|| named("HOME").map(|folder| folder.join(".cache/bakehouse")))
        .context("neither BAKEHOUSE_CACHE nor HOME is set: name a folder for the cache in BAKEHOUSE_CACHE")?;
    std::path::absolute(Path::new(&folder)).with_context(|| format!("cannot find {}", folder.display()))
}

fn mirror() -> Option<String> {
    std::env::var("BAKEHOUSE_DEBIAN_MIRROR").ok().filter(|value| !value.trim().is_empty())
}

/// The time, for validity dates of repositories only.
fn now() -> Result<i64> {
    let since =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is set before 1970: set it right")?;
    Ok(i64::try_from(since.as_secs())?)
}
