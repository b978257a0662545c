use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

/// Runs cases and counts what came of them.
pub(crate) struct Tally {
    /// Parts of names; none means all.
    wanted: Vec<String>,
    started: Instant,
    /// How many passed and failed.
    counts: Mutex<(u32, u32)>,
}

impl Tally {
    /// Arguments that begin with a dash are meant for another test runner.
    pub(crate) fn new(arguments: impl Iterator<Item = String>) -> Self {
        let wanted = arguments.filter(|argument| !argument.starts_with('-')).collect();
        Self { wanted, started: Instant::now(), counts: Mutex::default() }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|part| name.contains(part))
    }

    /// Runs one case if it is wanted.
    pub(crate) fn test<T>(&self, name: &str, case: impl FnOnce() -> T) -> Option<T> {
        if self.wants(name) { self.need(name, case) } else { None }
    }

    /// Runs one case of those that take long and show what shorter ones show in another way, where that is asked for.
    pub(crate) fn thorough(&self, name: &str, case: impl FnOnce()) {
        if std::env::var_os("BAKEHOUSE_THOROUGH").is_some() {
            self.test(name, case);
        } else if self.wants(name) {
            println!("test {name} ... left to `cargo xtask test --thorough`");
        }
    }

    /// Runs one case, which others need. A case fails by a panic; what it gives is `None` then.
    pub(crate) fn need<T>(&self, name: &str, case: impl FnOnce() -> T) -> Option<T> {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(case)).ok();
        println!("      {name} took {:.0} s", started.elapsed().as_secs_f64());
        println!("test {name} ... {}", if result.is_some() { "ok" } else { "FAILED" });
        let mut counts = self.counts.lock().unwrap();
        *if result.is_some() { &mut counts.0 } else { &mut counts.1 } += 1;
        result
    }

    pub(crate) fn end(self) -> ExitCode {
        let (passed, failed) = *self.counts.lock().unwrap();
        println!("      everything took {:.0} s", self.started.elapsed().as_secs_f64());
        println!("{passed} passed, {failed} failed");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
