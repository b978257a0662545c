//! Our bake against mmdebstrap, mke2fs, partitioning and qemu-img: the same packages from the same files, in turns, in one
//! run; and our bake for the other architecture beside it. After each of our bakes the same again, with nothing changed, and
//! with one line of the page changed, into the same folder.
//!
//! `--runs N` says how often each is measured (default 3). The other side runs in the sandbox with fsync made
//! instant, as the scripts of our bake do: that favours it. It makes no boot files and none of the recipe's additions.
#![allow(clippy::print_stdout, reason = "a bench tells its results there")]

#[path = "../tests/peer/peers.rs"]
mod peers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bake::Ingredients;
use peers::{Peers, WORK};

const GIB: u64 = 1 << 30;
/// The partitions of our disk: 1 MiB for a BIOS, 64 MiB for UEFI, the rest.
const SECTORS: [(&str, &str); 3] =
    [("2048:4095", "ef02"), ("4096:135167", "ef00"), ("135168:8386559", "8304")];
const ROOT_SECTORS: u64 = 8_386_559 - 135_168 + 1;

/// Seconds of each stage of one run, in order.
type Run = Vec<(String, f64)>;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runs = arguments.iter().position(|word| word == "--runs").map_or(3, |at| {
        arguments.get(at + 1).and_then(|number| number.parse().ok()).expect("--runs wants a number")
    });
    sandbox::enter().unwrap_or_else(|error| panic!("{error}"));
    let work = peers::work_folder();
    let recipe = copy_recipe(work.path());
    println!("packages and tools, fetched where they are not in the cache:");
    let ingredients = peers::ingredients(&recipe);
    let peers = Peers::new(&ingredients, work.path(), ingredients.lock.time);
    // What is fetched or unpacked once, for later bakes of the other architecture, is no part of one.
    run_ours(&recipe, FOREIGN, work.path());
    let mut again = Vec::new();
    let (mut ours, mut foreign, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=runs {
        // In turns, so that what else the machine does falls on all.
        let (run, rebakes) = run_ours(&recipe, NATIVE, work.path());
        println!("turn {number}: again {:.2} s, one line changed {:.2} s", rebakes[0], rebakes[1]);
        ours.push(run);
        again.push(rebakes);
        foreign.push(run_ours(&recipe, FOREIGN, work.path()).0);
        theirs.push(run_theirs(&ingredients, &peers, work.path()));
        let [a, f, b] = [&ours, &foreign, &theirs].map(|runs| total(&runs[number - 1]));
        println!(
            "turn {number}: {NATIVE} {a:.1} s, {FOREIGN} {f:.1} s ({:.2} times), others {b:.1} s (ratio {:.2})",
            f / a,
            b / a
        );
    }
    report(&ours, &foreign, &theirs, &again);
}

#[cfg(target_arch = "x86_64")]
const NATIVE: &str = "x86_64";
#[cfg(target_arch = "x86_64")]
const FOREIGN: &str = "aarch64";
#[cfg(target_arch = "aarch64")]
const NATIVE: &str = "aarch64";
#[cfg(target_arch = "aarch64")]
const FOREIGN: &str = "x86_64";

/// hello-web and the base that it builds on, where a lock can be written beside it.
fn copy_recipe(work: &Path) -> PathBuf {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    fs::create_dir(work.join("base")).unwrap();
    for name in ["base/debian-13.yaml", "hello-web.yaml"] {
        fs::copy(recipes.join(name), work.join(name)).unwrap();
    }
    work.join("hello-web.yaml")
}

/// The real program, as a user calls it; then the seconds of the same again, and of the same with another line on its page.
fn run_ours(recipe: &Path, arch: &str, work: &Path) -> (Run, [f64; 2]) {
    let out = work.join("out");
    let bake = |more: &[&str]| {
        let start = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_bakehouse"))
            .args(["bake", "--no-check", "--locked", "--json", "--arch", arch, "--out"])
            .args([&out, recipe])
            .args(more)
            .env("BAKEHOUSE_CACHE", peers::cache_folder())
            // A store that has nothing yet: every block is compressed and written.
            .env("BAKEHOUSE_STORE", work.join("store"))
            .output()
            .unwrap();
        let seconds = start.elapsed().as_secs_f64();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (seconds, json)
    };
    let (seconds, json) = bake(&[]);
    let stages_of = |json: &serde_json::Value, name: &str| {
        json["stages"].as_array().is_some_and(|stages| stages.iter().any(|stage| stage["name"] == name))
    };
    let (again, json_again) = bake(&[]);
    assert!(stages_of(&json_again, "outputs"), "the outputs were made again");
    let (line, json_line) = bake(&["--set", "greeting=Another line"]);
    assert!(stages_of(&json_line, "write"), "the outputs were not made again");
    let stages = json["stages"].as_array().expect("stages");
    let mut run: Run = stages
        .iter()
        .map(|stage| (stage["name"].as_str().unwrap().to_owned(), stage["seconds"].as_f64().unwrap()))
        .collect();
    let told: f64 = run.iter().map(|(_, seconds)| seconds).sum();
    run.push(("start, end, cleaning up".to_owned(), seconds - told));
    fs::remove_dir_all(out).unwrap();
    fs::remove_dir_all(work.join("store")).unwrap();
    (run, [again, line])
}

/// A root by mmdebstrap, a file system by mke2fs, a partition table by sgdisk, a FAT by mkfs.vfat, all in one file.
fn run_theirs(ingredients: &Ingredients, peers: &Peers, work: &Path) -> Run {
    let volume = ingredients.recipe.root_volume().expect("a root volume");
    assert_eq!(volume.size, 4 * GIB, "the partitions of this bench are those of a disk of 4 GiB");
    let mut run = Run::new();
    let mut stage = |name: &str, work: &dyn Fn()| {
        let start = Instant::now();
        work();
        run.push((name.to_owned(), start.elapsed().as_secs_f64()));
    };
    stage("mmdebstrap", &|| {
        peers.mmdebstrap("theirs");
    });
    let [root, disk] = ["theirs", "disk.raw"].map(|name| format!("{WORK}/{name}"));
    stage("sgdisk, mkfs.vfat", &|| {
        peers.run(&["truncate", "-s", "4G", &disk]);
        let mut argv = vec!["sgdisk".to_owned(), "--set-alignment=1".to_owned()];
        for (number, (range, kind)) in SECTORS.iter().enumerate() {
            argv.extend([
                format!("--new={}:{range}", number + 1),
                format!("--typecode={}:{kind}", number + 1),
            ]);
        }
        argv.push(disk.clone());
        peers.run(&argv.iter().map(String::as_str).collect::<Vec<_>>());
        // 64 MiB from 2 MiB on: the EFI system partition's place.
        peers.run(&["mkfs.vfat", "-F", "32", "-s", "1", "--offset", "4096", &disk, "65536"]);
    });
    // Straight into its partition, at 66 MiB: the quickest way that e2fsprogs has.
    stage("mke2fs -d", &|| {
        let size = format!("{}k", ROOT_SECTORS / 2);
        peers.run(&["mke2fs", "-q", "-F", "-t", "ext4", "-d", &root, "-E", "offset=69206016", &disk, &size]);
    });
    let vmdk = work.join("disk.vmdk");
    stage("qemu-img convert to VMDK", &|| {
        let path = std::env::var_os("BAKEHOUSE_TOOLS_PATH").expect("BAKEHOUSE_TOOLS_PATH, as xtask sets it");
        let status = Command::new("qemu-img")
            .env("PATH", path)
            .args(["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"])
            .args([&work.join("disk.raw"), &vmdk])
            .status();
        assert!(status.unwrap().success());
    });
    fs::remove_dir_all(work.join("theirs")).unwrap();
    fs::remove_file(vmdk).unwrap();
    fs::remove_file(work.join("disk.raw")).unwrap();
    run
}

fn total(run: &Run) -> f64 {
    run.iter().map(|(_, seconds)| seconds).sum()
}

fn report(ours: &[Run], foreign: &[Run], theirs: &[Run], again: &[[f64; 2]]) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("\n{cores} cores, Linux {}, {} runs of each, in turns\n", kernel.trim(), ours.len());
    println!("| stage | median s | min-max s |\n| --- | ---: | ---: |");
    for (who, runs) in [("bakehouse", ours), (FOREIGN, foreign), ("others", theirs)] {
        let mut stages: BTreeMap<usize, (String, Vec<f64>)> = BTreeMap::new();
        for run in runs {
            for (number, (name, seconds)) in run.iter().enumerate() {
                stages.entry(number).or_insert_with(|| (name.clone(), Vec::new())).1.push(*seconds);
            }
        }
        for (name, seconds) in stages.into_values() {
            line(&format!("{who}: {name}"), seconds);
        }
        line(&format!("**{who}: total**"), runs.iter().map(total).collect());
    }
    line("**bakehouse: again, nothing changed**", again.iter().map(|seconds| seconds[0]).collect());
    line("**bakehouse: again, one line changed**", again.iter().map(|seconds| seconds[1]).collect());
    let pairs: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| total(theirs) / total(ours)).collect();
    let beside: Vec<f64> =
        ours.iter().zip(foreign).map(|(ours, foreign)| total(foreign) / total(ours)).collect();
    let totals = |runs: &[Run]| median(runs.iter().map(total).collect());
    let shown: Vec<_> = pairs.iter().map(|ratio| format!("{ratio:.2}")).collect();
    println!(
        "\nothers / bakehouse: {:.2} by medians; by pairs {}",
        totals(theirs) / totals(ours),
        shown.join(", ")
    );
    let shown: Vec<_> = beside.iter().map(|ratio| format!("{ratio:.2}")).collect();
    println!(
        "{FOREIGN} / {NATIVE}: {:.2} by medians; by turns {}",
        totals(foreign) / totals(ours),
        shown.join(", ")
    );
}

fn line(name: &str, mut seconds: Vec<f64>) {
    seconds.sort_by(f64::total_cmp);
    let (least, most) = (seconds[0], seconds[seconds.len() - 1]);
    println!("| {name} | {:.2} | {least:.2}-{most:.2} |", median(seconds));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}
