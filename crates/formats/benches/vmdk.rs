//! Our VMDK writer against `qemu-img convert -o subformat=streamOptimized`: the same raw disk, in turns, in one run.
//!
//! `cargo bench -p bakehouse-formats --bench vmdk -- DISK.raw [--runs N]`. qemu-img comes from the folders in
//! BAKEHOUSE_TOOLS_PATH (`bakehouse tools --print-path`), then from PATH. Both files are compared with the disk at the end.
#![allow(clippy::print_stdout, reason = "a bench tells its results there")]

use std::path::Path;
use std::time::Instant;

use block::{BLOCK_SIZE, BlockSource, Digest, GIB};
use formats::vmdk::{DEFLATE, FileGrainCache};
use formats::{RawFile, VmdkFile, VmdkOptions, write_raw, write_raw_and_vmdk, write_vmdk};

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let mut runs = 3;
    if let Some(at) = arguments.iter().position(|word| word == "--runs") {
        runs = arguments.get(at + 1).and_then(|number| number.parse().ok()).expect("--runs wants a number");
        arguments.drain(at..at + 2);
    }
    let [disk] = &arguments[..] else {
        println!(
            "no disk given, nothing measured: cargo bench -p bakehouse-formats --bench vmdk -- DISK.raw"
        );
        return;
    };
    let disk = Path::new(disk);
    let source = RawFile::open(disk).unwrap_or_else(|error| panic!("{error}"));
    let data: u64 = source.data().map(|(_, len)| len).sum();
    let (library, version, level) = DEFLATE;
    println!("{}: {} MB of data; {library} {version} level {level}", disk.display(), data / 1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (ours, theirs) = (path("ours.vmdk"), path("theirs.vmdk"));
    let quiet = |_| {};
    let digests: Vec<Digest> =
        (0..source.len().div_ceil(BLOCK_SIZE)).map(|number| digest(&source, number)).collect();
    let known = |number: u64| Some(digests[number as usize]);
    let mut rows: Vec<(&str, Vec<[f64; 2]>)> = Vec::new();
    for run in 0..runs {
        // In turns, so that what else the machine does falls on all.
        let mut measure = |name: &'static str, work: &dyn Fn()| {
            let (started, cpu) = (Instant::now(), cpu_seconds());
            work();
            let seconds = [started.elapsed().as_secs_f64(), cpu_seconds() - cpu];
            match rows.iter_mut().find(|row| row.0 == name) {
                Some(row) => row.1.push(seconds),
                None => rows.push((name, vec![seconds])),
            }
        };
        let cache = FileGrainCache::open(&path(&format!("grains{run}")), 10 * GIB).unwrap();
        let plain = VmdkOptions::default();
        let cached = VmdkOptions { cache: Some(&cache), digests: None, earlier: None };
        let told = VmdkOptions { cache: Some(&cache), digests: Some(&known), earlier: None };
        measure("vmdk", &|| _ = write_vmdk(&source, &ours, &plain, &quiet).unwrap());
        measure("qemu-img convert", &|| {
            qemu_img(&[
                "convert",
                "-f",
                "raw",
                "-O",
                "vmdk",
                "-o",
                "subformat=streamOptimized",
                text(disk),
                text(&theirs),
            ])
        });
        measure("vmdk, cache empty", &|| _ = write_vmdk(&source, &ours, &cached, &quiet).unwrap());
        measure("vmdk, cache full", &|| _ = write_vmdk(&source, &ours, &cached, &quiet).unwrap());
        measure("vmdk, cache full, digests known", &|| {
            _ = write_vmdk(&source, &ours, &told, &quiet).unwrap()
        });
        measure("raw", &|| _ = write_raw(&source, &path("ours.raw"), &quiet).unwrap());
        measure("raw and vmdk", &|| {
            _ = write_raw_and_vmdk(&source, &path("ours.raw"), &ours, &plain, &quiet).unwrap();
        });
        let vmdk = VmdkFile::open(&ours).unwrap();
        measure("raw from vmdk", &|| _ = write_raw(&vmdk, &path("again.raw"), &quiet).unwrap());
    }
    let medians: Vec<(&str, [f64; 2])> = rows.iter().map(|(name, runs)| (*name, medians(runs))).collect();
    println!("{:32} {:>9} {:>9} {:>9}", "medians", "wall s", "CPU s", "MB/s");
    for (name, [wall, cpu]) in &medians {
        println!("{name:32} {wall:9.2} {cpu:9.2} {:9.0}", data as f64 / 1e6 / wall);
    }
    let of = |name: &str| medians.iter().find(|row| row.0 == name).map_or([f64::NAN; 2], |row| row.1);
    let (ours_takes, theirs_takes) = (of("vmdk"), of("qemu-img convert"));
    let ratio = |index: usize| theirs_takes[index] / ours_takes[index];
    println!("qemu-img takes {:.2} times as long and {:.2} times the CPU time", ratio(0), ratio(1));
    let size = |path: &Path| path.metadata().unwrap().len();
    println!("ours {} bytes, theirs {} bytes ({:+.1} %)", size(&ours), size(&theirs), {
        (size(&theirs) as f64 / size(&ours) as f64 - 1.0) * 100.0
    });
    for file in [&ours, &theirs] {
        qemu_img(&["compare", "-q", "-f", "raw", "-F", "vmdk", text(disk), text(file)]);
    }
    qemu_img(&["compare", "-q", "-f", "raw", "-F", "raw", text(disk), text(&path("again.raw"))]);
    println!("qemu-img finds them all identical to the disk");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of a bench are text")
}

/// The medians of wall and CPU time, each for itself.
fn medians(runs: &[[f64; 2]]) -> [f64; 2] {
    [0, 1].map(|index| {
        let mut seconds: Vec<f64> = runs.iter().map(|run| run[index]).collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    })
}

/// CPU time of this process and of the programs that it ran, in hundredths of a second as Linux counts it.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    fields.skip(11).take(4).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// The digest of a block, zero-padded.
fn digest(source: &RawFile, number: u64) -> Digest {
    let mut block = vec![0; BLOCK_SIZE as usize];
    let len = BLOCK_SIZE.min(source.len() - number * BLOCK_SIZE) as usize;
    source.read_at(number * BLOCK_SIZE, &mut block[..len]).unwrap();
    Digest::of(&block)
}

fn qemu_img(arguments: &[&str]) {
    let status = workbench::tool("qemu-img").args(arguments).status().unwrap();
    assert!(status.success(), "qemu-img {arguments:?} failed");
}
