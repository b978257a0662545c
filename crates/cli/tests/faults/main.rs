//! What can go wrong with mirrors, disks and machines, done to the real program: it says what, where and what to do, and
//! nothing is lost or left half-made.
//!
//! Mirrors are played by `testdata/lying-mirror`; full and read-only disks are small ones in memory, in a mount namespace of
//! the suite's own. So the suite must enter its namespaces before any thread is started, and has a runner of its own.
//! Whole bakes take their packages from the cache of the user. Arguments choose cases by a part of their names.
#![allow(clippy::print_stdout, reason = "a test runner tells its results there")]

mod disks;
mod ends;
mod house;
mod mirrors;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

type Case = (&'static str, fn());

fn main() -> ExitCode {
    let all: usize = [mirrors::CASES, disks::CASES, ends::CASES].iter().map(|cases| cases.len()).sum();
    if let Err(problem) = house::own_mounts() {
        println!("the suite cannot have mounts of its own: {problem}\n0 passed, {all} failed");
        return ExitCode::FAILURE;
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let told = Mutex::new((0, 0));
    let run = |(name, case): &Case| {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            return;
        }
        let started = Instant::now();
        let ok = catch_unwind(AssertUnwindSafe(case)).is_ok();
        let verdict = if ok { "ok" } else { "FAILED" };
        let mut told = told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        println!("test {name} ... {verdict} ({:.1} s)", started.elapsed().as_secs_f64());
        if ok { told.0 += 1 } else { told.1 += 1 }
    };
    // Those that wait for a mirror leave the processors to those that bake.
    std::thread::scope(|scope| {
        scope.spawn(|| mirrors::CASES.iter().chain(disks::CASES).for_each(run));
        ends::CASES.iter().for_each(run);
    });
    ends::tidy();
    let (passed, failed) = told.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
