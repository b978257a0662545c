//! How progress looks: a live bar on a terminal, plain lines with times elsewhere. All of it goes to standard error.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bake::{Report, Stage, Unit};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// In a pipe, how often a running stage says how far it is.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Tells a person on standard error how the work is getting on.
pub(crate) struct Terminal {
    started: Instant,
    bar: Option<ProgressBar>,
    last_line: Mutex<(Instant, String)>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { started: Instant::now(), bar, last_line: Mutex::new((Instant::now(), String::new())) }
    }

    /// Takes the bar away before something else is printed.
    pub(crate) fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                let seconds = self.started.elapsed().as_secs_f64();
                // Nobody is left to be told when standard error is closed.
                let _ = writeln!(std::io::stderr(), "[{seconds:7.1} s] {text}");
            }
        }
    }
}

impl Report for Terminal {
    fn started(&self, stage: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_style(style("{spinner} {prefix}: {wide_msg} {elapsed}"));
                bar.reset_elapsed();
                bar.set_prefix(stage.to_owned());
                bar.set_message("");
            }
            None => self.print(&format!("{stage} …")),
        }
        *lock(&self.last_line) = (Instant::now(), stage.to_owned());
    }

    fn progress(&self, done: u64, total: Option<u64>, unit: Unit, what: &str) {
        if let Some(bar) = &self.bar {
            match total {
                Some(total) => {
                    let counts = match unit {
                        Unit::Bytes => "{bytes}/{total_bytes}",
                        Unit::Things => "{pos}/{len}",
                    };
                    bar.set_style(style(&format!(
                        "{{spinner}} {{prefix}}: [{{bar:30}}] {counts} {{wide_msg}} {{elapsed}}"
                    )));
                    bar.set_length(total);
                }
                None => bar.set_style(style("{spinner} {prefix}: {wide_msg} {elapsed}")),
            }
            bar.set_position(done);
            bar.set_message(what.to_owned());
            return;
        }
        let mut last = lock(&self.last_line);
        if last.0.elapsed() < LINE_EVERY {
            return;
        }
        last.0 = Instant::now();
        let stage = last.1.clone();
        drop(last);
        let amount = |count: u64| match unit {
            Unit::Bytes => bytes(count),
            Unit::Things => count.to_string(),
        };
        self.print(&match (total, done) {
            (Some(total), _) => format!("{stage}: {} of {} {what}", amount(done), amount(total)),
            (None, 0) => format!("{stage}: {what}"),
            (None, _) => format!("{stage}: {} {what}", amount(done)),
        });
    }

    fn line(&self, text: &str) {
        self.print(text);
    }

    fn finished(&self, stage: &Stage) {
        self.print(&format!("{}: done{}", stage.name, details(stage)));
    }
}

/// The table at the end: time and bytes of each stage.
pub(crate) fn summary(stages: &[Stage]) -> String {
    let width = stages.iter().map(|stage| stage.name.len()).max().unwrap_or(0).max(5);
    let mut text = String::new();
    for stage in stages {
        let size = stage.bytes.map(bytes).unwrap_or_default();
        let cached = if stage.cached { "  cached" } else { "" };
        text += &format!("  {:width$} {:8.1} s {size:>10}{cached}\n", stage.name, stage.seconds);
    }
    let total: f64 = stages.iter().map(|stage| stage.seconds).sum();
    text + &format!("  {:width$} {total:8.1} s\n", "total")
}

/// A number of bytes as people write it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

fn details(stage: &Stage) -> String {
    let size = stage.bytes.map(|count| format!(", {}", bytes(count))).unwrap_or_default();
    let cached = if stage.cached { ", cached" } else { "" };
    format!(" in {:.1} s{size}{cached}", stage.seconds)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
