//! Developer commands, run as `cargo xtask COMMAND`. Each builds what it needs with cargo, visibly, and then runs it;
//! the program itself lives in `crates/cli`, the suites in `crates/*/tests` and `crates/cli/benches`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

mod dependencies;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  bake RECIPE [OPTION…]     build the program and run `bakehouse bake`
  run COMMAND [OPTION…]     build the program and run any of its commands
  test [ARGUMENT…]          every test, real bakes and boots among them; arguments go to `cargo test`
       --thorough           also those that take an hour: full emulation, more hosts, every machine
  bench bake                our bake against mmdebstrap, mke2fs and partitioning, in one run
  bench store               our block store against desync, casync, borg and restic, in one run
  bench layout              what a step of a series costs in our layout and in mke2fs's, in blocks and in stores
  fuzz [TARGET…] [OPTION…]  feed parsers of foreign data with hostile input; `fuzz --help` tells more
  ci                        formatting, lints, generated files, dependencies, a minute of `fuzz`, then `test`
  dependencies              reasons of the dependencies, and cargo-deny over all of them (built on first use)
  generate                  write the generated files anew: recipes/recipe.schema.json, docs/recipe.md, docs/mistakes.md,
                            docs/man
";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if env::var_os(COMPILER).is_some() {
        eprintln!("xtask: cannot run the compiler: {}", compile(&arguments));
        return ExitCode::from(1);
    }
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// A shell's background jobs, and all that they start, ignore Ctrl-C; tests that interrupt the program would wait for ever. There this
/// program starts itself anew.
fn hear_interrupts() -> Result<()> {
    const AGAIN: &str = "BAKEHOUSE_XTASK_AGAIN";
    const INTERRUPT: u64 = 1 << 1;
    let status = std::fs::read_to_string("/proc/self/status").context("cannot look at /proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if ignored & INTERRUPT == 0 {
        return Ok(());
    }
    if env::var_os(AGAIN).is_some() {
        bail!("SIGINT is ignored here, and `env --default-signal=INT` does not change that");
    }
    let mut again = Command::new("env");
    again.arg("--default-signal=INT").arg(env::current_exe()?).args(env::args_os().skip(1));
    Err(again.env(AGAIN, "1").exec()).context("cannot run `env --default-signal=INT`")
}

fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let Some((command, rest)) = arguments.split_first() else {
        eprint!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    match (command.to_str(), rest) {
        (Some("bake"), _) => bakehouse(arguments),
        (Some("run"), [_, ..]) => bakehouse(rest),
        (Some("test"), _) => test(rest).map(|()| ExitCode::SUCCESS),
        (Some("bench"), _) => bench(rest).map(|()| ExitCode::SUCCESS),
        (Some("fuzz"), _) => fuzz(rest),
        (Some("dependencies"), []) => {
            dependencies::have_reasons(root())?;
            dependencies::deny(root(), &target_folder()).map(|()| ExitCode::SUCCESS)
        }
        (Some("ci"), []) => ci().map(|()| ExitCode::SUCCESS),
        (Some("generate"), []) => generate().map(|()| ExitCode::SUCCESS),
        (Some("help" | "--help" | "-h"), _) => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprint!("xtask: `{}` is not a command of xtask\n\n{USAGE}", display(arguments));
            Ok(ExitCode::from(2))
        }
    }
}

/// Builds the program and runs it where the user stands, with the user's arguments and its exit code.
fn bakehouse(arguments: &[OsString]) -> Result<ExitCode> {
    let program = build_program()?;
    let status =
        Command::new(&program).args(arguments).status().with_context(|| format!("cannot run {program:?}"))?;
    // As a shell tells it: 130 for one that Ctrl-C ended.
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn test(arguments: &[OsString]) -> Result<()> {
    let (thorough, arguments): (Vec<OsString>, Vec<OsString>) =
        arguments.iter().cloned().partition(|argument| argument == "--thorough");
    hear_interrupts()?;
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    build_tests(&arguments[..end])?;
    let path = tools_path(&program())?;
    let mut variables = vec![("BAKEHOUSE_TOOLS_PATH", path)];
    if !thorough.is_empty() {
        variables.push(("BAKEHOUSE_THOROUGH", "1".into()));
    }
    cargo(&["test", "--release", "--workspace", "--no-fail-fast"], &arguments, &variables)
}

/// Builds the tests, and with them the program. The tests' own dependencies ask some others for more than the program alone
/// does: to build that first would be to build half the house twice.
fn build_tests(arguments: &[OsString]) -> Result<()> {
    cargo(&["test", "--release", "--workspace", "--no-run"], arguments, &[])?;
    match program().exists() {
        true => Ok(()),
        false => build_program().map(drop),
    }
}

fn bench(arguments: &[OsString]) -> Result<()> {
    let Some((name, rest)) = arguments.split_first() else {
        bail!("`cargo xtask bench` wants the name of a bench: bake, layout or store");
    };
    let Some(name @ ("bake" | "layout" | "store")) = name.to_str() else {
        bail!("there is no bench `{}`; there are: bake, layout, store", name.display());
    };
    let program = build_program()?;
    let path = tools_path(&program)?;
    let mut tail: Vec<OsString> = vec!["--bench".into(), name.into(), "--".into()];
    tail.extend_from_slice(rest);
    cargo(&["bench", "--package", "bakehouse-cli"], &tail, &[("BAKEHOUSE_TOOLS_PATH", path)])
}

/// What has the compiler count how often each edge of the code is taken and tell of comparisons. Stable Rust knows these
/// options; `crates/fuzz/src/probe.rs` is the other end.
const COVERAGE: [&str; 4] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=3",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Builds the fuzzer with the compiler's counters in every crate, in a folder of its own, and runs it.
fn fuzz(arguments: &[OsString]) -> Result<ExitCode> {
    let folder = target_folder().join("fuzz");
    // With a target named, the flags are not for build scripts and procedural macros.
    let host = host_target()?;
    let build =
        ["build", "--profile", "fuzz", "--package", "bakehouse-fuzz", "--target", &host, "--target-dir"];
    let flags = COVERAGE.join("\x1f").into();
    cargo(&build, &[folder.clone().into()], &[("CARGO_ENCODED_RUSTFLAGS", flags)])?;
    run_fuzzer(&folder.join(host).join("fuzz/bakehouse-fuzz"), arguments)
}

/// Set where this program stands in for the compiler.
const COMPILER: &str = "BAKEHOUSE_XTASK_COMPILES";

/// The same with counters in the crates of this workspace alone: those of others are taken as the tests have them, which saves
/// minutes. Cargo has this program compile its own crates.
fn fuzz_our_crates(arguments: &[OsString]) -> Result<ExitCode> {
    let wrapper = env::current_exe()?.into();
    // As the tests are built, or the others' crates would have other features.
    let build = ["test", "--release", "--workspace", "--no-run", "--test", "corpora"];
    cargo(&build, &[], &[("RUSTC_WORKSPACE_WRAPPER", wrapper), (COMPILER, "1".into())])?;
    run_fuzzer(&target_folder().join("release/bakehouse-fuzz"), arguments)
}

/// Compiles as told (the compiler and its arguments), with counters and with every check that a build can have. Returns when that
/// cannot be begun.
fn compile(arguments: &[OsString]) -> std::io::Error {
    let Some((compiler, rest)) = arguments.split_first() else {
        return std::io::Error::other("none is named");
    };
    let mut command = Command::new(compiler);
    command.args(rest);
    let name = rest.iter().position(|word| word == "--crate-name").and_then(|at| rest.get(at + 1));
    if name.is_some_and(|name| name != "build_script_build") {
        command.args(COVERAGE).args(["-Copt-level=1", "-Cdebug-assertions=on", "-Coverflow-checks=on"]);
    }
    command.exec()
}

fn run_fuzzer(program: &Path, arguments: &[OsString]) -> Result<ExitCode> {
    let status = Command::new(program)
        .args(arguments)
        .env("BAKEHOUSE_FUZZ_CORPORA", root().join("testdata/fuzz"))
        .env("BAKEHOUSE_FUZZ_WORK", target_folder().join("fuzz/work"))
        .status()
        .with_context(|| format!("cannot run {program:?}"))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// The name of the machine that rustc builds for when none is named.
fn host_target() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` does not name its host")
}

fn ci() -> Result<()> {
    hear_interrupts()?;
    let started = Instant::now();
    let done = |what: &str| println!("xtask: {what}: done after {} s", started.elapsed().as_secs());
    cargo(&["fmt", "--all", "--check"], &[], &[])?;
    // It is compiled by itself, so that the workspace does not know it.
    let handler = root().join("crates/dispatch/handler/main.rs");
    let formatted = Command::new("rustfmt").args(["--check", "--edition", "2024"]).arg(&handler).status();
    if !formatted.context("cannot run rustfmt")?.success() {
        bail!("{} is not formatted: `rustfmt --edition 2024` does it", handler.display());
    }
    cargo(
        &["clippy", "--release", "--workspace", "--all-targets"],
        &["--".into(), "-Dwarnings".into()],
        &[],
    )?;
    done("formatting and lints");
    // What licences cargo-deny finds is looked at beside the longest build, which now and then has work for one core only.
    let (built, denied) = std::thread::scope(|scope| {
        let denied = scope.spawn(|| dependencies::deny(root(), &target_folder()));
        let built = build_tests(&[]);
        (built, denied.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    built.and(denied)?;
    stale()?;
    dependencies::have_reasons(root())?;
    done("builds, dependencies, generated files");
    if fuzz_our_crates(&["--minutes".into(), "1".into()])? != ExitCode::SUCCESS {
        bail!("a fuzz target fails (see above)");
    }
    done("a minute of fuzzing");
    test(&[])?;
    println!("xtask: ci passed in {} s", started.elapsed().as_secs());
    Ok(())
}

const SCHEMA: &str = "recipes/recipe.schema.json";
const PAGES: &str = "docs/man";

fn generate() -> Result<()> {
    let generated = generated(&build_program()?)?;
    for (path, bytes) in &generated {
        let path = root().join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    for path in pages_there()?.iter().filter(|path| !generated.contains_key(*path)) {
        std::fs::remove_file(root().join(path))
            .with_context(|| format!("cannot remove {}", path.display()))?;
    }
    // Pages that their tests compare: docs/recipe.md.
    let bless = [("UPDATE_MESSAGES", OsString::from("1"))];
    cargo(
        &["test", "--release", "--package", "bakehouse-recipe", "--test", "language"],
        &["generated".into()],
        &bless,
    )
}

/// Fails when a generated file is not what the program writes now.
fn stale() -> Result<()> {
    let generated = generated(&program())?;
    let mut stale: Vec<_> = generated
        .iter()
        .filter(|(path, bytes)| std::fs::read(root().join(path)).ok().as_ref() != Some(bytes))
        .map(|(path, _)| path.display().to_string())
        .collect();
    let left = pages_there()?;
    stale.extend(
        left.iter().filter(|path| !generated.contains_key(*path)).map(|path| path.display().to_string()),
    );
    if !stale.is_empty() {
        bail!("not what the program writes: {}: run `cargo xtask generate` and commit it", stale.join(", "));
    }
    Ok(())
}

/// Every generated file by its path in the workspace, as the program writes it now.
fn generated(program: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let run = |arguments: &[&OsStr]| {
        let output = Command::new(program).args(arguments).output().context("cannot run bakehouse")?;
        if !output.status.success() {
            bail!("bakehouse {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    };
    let mut files = BTreeMap::from([(PathBuf::from(SCHEMA), run(&["schema".as_ref()])?)]);
    let folder = env::temp_dir().join(format!("bakehouse-man-{}", std::process::id()));
    run(&["man".as_ref(), folder.as_os_str()])?;
    for entry in std::fs::read_dir(&folder).context("cannot list the manual pages")? {
        let entry = entry?;
        files.insert(Path::new(PAGES).join(entry.file_name()), std::fs::read(entry.path())?);
    }
    std::fs::remove_dir_all(&folder).context("cannot remove the manual pages")?;
    Ok(files)
}

/// The manual pages that are in the workspace now.
fn pages_there() -> Result<BTreeSet<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(root().join(PAGES)) else { return Ok(BTreeSet::new()) };
    entries.map(|entry| Ok(Path::new(PAGES).join(entry?.file_name()))).collect()
}

/// The folder of the workspace, wherever the user stands in it.
fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        // Cargo tells a program that it runs. A folder that was moved, or one of several with the same target folder, has
        // a program in which another path was compiled.
        let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
        Path::new(&package).parent().unwrap_or(Path::new(".")).to_owned()
    })
}

fn build_program() -> Result<PathBuf> {
    cargo(&["build", "--release", "--package", "bakehouse-cli"], &[], &[])?;
    Ok(program())
}

/// Where cargo puts the program.
fn program() -> PathBuf {
    target_folder().join("release/bakehouse")
}

/// The folder that cargo builds in.
fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Has the program fetch a set of tools into its cache, and says in which folder they are.
fn tools_path(program: &Path) -> Result<OsString> {
    println!("xtask: the checkers that tests use (fetched once into the cache):");
    let mut command = Command::new(program);
    command.args(["tools", "--print-path"]).stderr(std::process::Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run {program:?}"))?;
    if !output.status.success() {
        bail!("the tools that tests need could not be had (see above)");
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().into())
}

fn cargo(command: &[&str], arguments: &[OsString], variables: &[(&str, OsString)]) -> Result<()> {
    println!("xtask: cargo {} {}", command.join(" "), display(arguments));
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(&command[..1]).arg("--manifest-path").arg(root().join("Cargo.toml"));
    cargo.args(&command[1..]).args(arguments);
    // What cargo tells of xtask's own package. Build scripts that look at such variables would run again, and all that
    // stands on them, whenever somebody changes between `cargo xtask` and `cargo build`.
    for (name, _) in env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(name);
        }
    }
    cargo.envs(variables.iter().map(|(name, value)| (name, value)));
    let status = cargo.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("`cargo {} {}` failed", command.join(" "), display(arguments));
    }
    Ok(())
}

fn display(arguments: &[OsString]) -> String {
    arguments.iter().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
