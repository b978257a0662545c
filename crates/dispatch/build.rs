//! Builds the handler: one file, without libraries, for the machine that bakes.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "handler/main.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let program = PathBuf::from(variable("OUT_DIR")).join("handler");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--edition=2024", "--crate-type=bin", "--crate-name=handler", "--target", &variable("TARGET")])
        .args([
            "-Copt-level=2",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Crelocation-model=static",
            "-Dwarnings",
        ])
        .args([
            "-Clink-arg=-nostartfiles",
            "-Clink-arg=-nostdlib",
            "-Clink-arg=-static",
            "-Clink-arg=-no-pie",
        ])
        .args(["-Clink-arg=-Wl,--build-id=none", "-Clink-arg=-Wl,-z,noexecstack", "-o"])
        .arg(&program)
        .arg(SOURCE);
    // The linker driver that cargo uses, where somebody chose one.
    let target = variable("TARGET").to_uppercase().replace(['-', '.'], "_");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_{target}_LINKER");
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={}", linker.to_string_lossy()));
    }
    let status = rustc.status().unwrap_or_else(|error| panic!("rustc cannot be started: {error}"));
    assert!(status.success(), "the handler of foreign programs did not compile: {status}");
}
