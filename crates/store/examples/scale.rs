//! How a store grows: snapshots of synthetic blocks, and at each step the time to put, open, look up, list, mark and sweep, and the
//! most memory so far. `scale FOLDER SNAPSHOTS NEW_BLOCKS_EACH`.
#![allow(clippy::print_stdout, reason = "an example for a terminal")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::Digest;
use store::{GcOptions, LocalBackend, MemoryBackend, Options, Store};

/// Blocks that each snapshot has in common with earlier ones.
const SHARED: u64 = 200;

fn id(number: u64) -> Digest {
    Digest::of(&number.to_le_bytes())
}

/// What a process used at most, in MiB.
fn peak() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, snapshots, new] = &arguments[..] else {
        return Err("scale FOLDER SNAPSHOTS NEW_BLOCKS_EACH".into());
    };
    let (snapshots, new): (u64, u64) = (snapshots.parse()?, new.parse()?);
    let backend: Arc<dyn store::Backend> = match folder.as_str() {
        "memory" => Arc::new(MemoryBackend::new()),
        folder => Arc::new(LocalBackend::new(Path::new(folder))),
    };
    let store = Store::create(backend.clone())?;
    println!(
        "snapshots |     blocks | put ms, mean | slowest | open ms | 1000 lookups ms | list ms | mark s | peak MiB"
    );
    let mut next = 1;
    let (mut puts, mut slowest, mut since) = (Duration::ZERO, Duration::ZERO, 0);
    for at in 0..snapshots {
        let first = at * new;
        let ids: Vec<Digest> = (first..first + new).map(id).collect();
        let known: Vec<Digest> = (first.saturating_sub(SHARED)..first).map(id).collect();
        let begin = Instant::now();
        store.simulate(&format!("snapshot-{at}"), &known, &ids)?;
        let put = begin.elapsed();
        (puts, slowest, since) = (puts + put, slowest.max(put), since + 1);
        if at + 1 == next || at + 1 == snapshots {
            // 1, 3, 10, 30, 100, …
            next = if next.to_string().starts_with('3') { next / 3 * 10 } else { next * 3 };
            let begin = Instant::now();
            let fresh = Store::open_with(backend.clone(), Options::default())?;
            let open = begin.elapsed();
            let begin = Instant::now();
            let known = (0..1000u64)
                .filter(|n| fresh.has_block(&id(n * (at + 1) * new / 1000)).unwrap_or(false))
                .count();
            let look = begin.elapsed();
            let begin = Instant::now();
            let listed = fresh.list()?.len();
            let list = begin.elapsed();
            let begin = Instant::now();
            let plan = fresh.plan_gc(&())?;
            let mark = begin.elapsed();
            assert_eq!((known, listed as u64, plan.needed_blocks), (1000, at + 1, (at + 1) * new));
            println!(
                "{:9} | {:10} | {:12.1} | {:7.1} | {:7.2} | {:15.2} | {:7.2} | {:6.2} | {:8}",
                at + 1,
                plan.needed_blocks,
                puts.as_secs_f64() * 1e3 / f64::from(since),
                slowest.as_secs_f64() * 1e3,
                open.as_secs_f64() * 1e3,
                look.as_secs_f64() * 1e3,
                list.as_secs_f64() * 1e3,
                mark.as_secs_f64(),
                peak()?
            );
            (puts, slowest, since) = (Duration::ZERO, Duration::ZERO, 0);
        }
    }
    // The first half: of packs that are partly needed there is but one, whose blocks have no bytes to copy.
    let half: Vec<_> = store.list()?.iter().take(snapshots as usize / 2).map(|record| record.id).collect();
    let begin = Instant::now();
    store.forget(&half)?;
    println!("forgot {} in {:.2} s", half.len(), begin.elapsed().as_secs_f64());
    let begin = Instant::now();
    store.plan_gc(&())?;
    let planned = begin.elapsed();
    let begin = Instant::now();
    let report = store.execute_gc(&GcOptions { wait: true, progress: &() })?;
    println!(
        "planned in {:.2} s, swept {} packs in {:.2} s, peak {} MiB",
        planned.as_secs_f64(),
        report.deleted_packs + report.condemned_packs,
        begin.elapsed().as_secs_f64(),
        peak()?
    );
    Ok(())
}
