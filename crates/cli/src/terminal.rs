//! What people see. Results go to standard output, all else to standard error: a live bar on a terminal, plain lines
//! with times elsewhere.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anyhow::Result;
use bake::{Report, Stage, Unit};
use block::without_escapes;
pub(crate) use diff::size as bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use recipe::Diagnostics;
use serde::Serialize;

/// In a pipe, how often a running stage says how far it is.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The colours that this program uses, and the end of one.
const COLOURS: [&str; 7] =
    ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[1;31m", "\x1b[1;33m", "\x1b[1;34m"];

/// What a terminal is shown: all of a text but what it would obey, our own colours excepted. Names, recipes, packages and
/// guests are strangers'; whichever way their words came here, they are only words.
fn shown(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    let mut from = 0;
    while let Some(at) = rest[from..].find('\x1b').map(|at| from + at) {
        match COLOURS.iter().find(|colour| rest[at..].starts_with(**colour)) {
            Some(colour) => {
                clean += &without_escapes(&rest[..at]);
                clean += colour;
                (rest, from) = (&rest[at + colour.len()..], 0);
            }
            None => from = at + 1,
        }
    }
    clean + &without_escapes(rest)
}

/// A line on standard error. Nobody is left to be told when that is closed.
pub(crate) fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{}", shown(&text.to_string()));
}

/// Standard output takes no more.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written: {0}")]
pub(crate) struct StandardOutput(std::io::Error);

/// A line on standard output. A reader that has seen enough, as `head` does, is no failure.
pub(crate) fn print(line: impl Display) -> Result<()> {
    print_as_it_is(shown(&line.to_string()))
}

/// The same for what another program is to read: nothing is left out.
pub(crate) fn print_as_it_is(line: impl Display) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{line}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(StandardOutput(error).into()),
        _ => Ok(()),
    }
}

/// A value on standard output, as `--json` has it.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    print_as_it_is(serde_json::to_string_pretty(value)?)
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    /// For standard error: colours on a terminal, unless NO_COLOR, CLICOLOR or TERM say otherwise; elsewhere when
    /// CLICOLOR_FORCE says so.
    pub(crate) fn on_stderr() -> Self {
        Self::on(&std::io::stderr())
    }

    /// The same for standard output.
    pub(crate) fn on_stdout() -> Self {
        Self::on(&std::io::stdout())
    }

    fn on(stream: &(impl RawStream + IsTerminal)) -> Self {
        // `0` means no more than if it were not there.
        let forced =
            std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
        Self((forced || IsTerminal::is_terminal(stream)) && AutoStream::choice(stream) != ColorChoice::Never)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(crate) fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Tells a person on standard error how the work is getting on.
pub(crate) struct Terminal {
    started: Instant,
    bar: Option<ProgressBar>,
    paint: Paint,
    last_line: Mutex<(Instant, String)>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        // A terminal that cannot move its cursor gets lines.
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let bar = (std::io::stderr().is_terminal() && !dumb).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let now = Instant::now();
        Self { started: now, bar, paint: Paint::on_stderr(), last_line: Mutex::new((now, String::new())) }
    }

    /// Takes the bar away before something else is printed.
    pub(crate) fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(shown(text)),
            None => {
                let seconds = self.started.elapsed().as_secs_f64();
                for line in text.lines() {
                    say(format!("[{seconds:7.1} s] {line}"));
                }
            }
        }
    }

    /// A bar's looks; `counts` is how far it is, of how much.
    fn style(&self, counts: Option<&str>) -> ProgressStyle {
        let paint = |part: &str, colour: &str| {
            if self.paint.0 { format!("{{{part}:{colour}}}") } else { format!("{{{part}}}") }
        };
        let (spinner, stage) = (paint("spinner", ".cyan"), paint("prefix", ".bold"));
        let bar = if self.paint.0 { "{bar:20.cyan/dim}" } else { "{bar:20}" };
        let template = match counts {
            Some(counts) => format!("{spinner} {stage} {bar} {counts} {{wide_msg}} {{elapsed}}"),
            None => format!("{spinner} {stage} {{wide_msg}} {{elapsed}}"),
        };
        ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_spinner())
            .progress_chars("━╸─")
    }
}

impl Report for Terminal {
    fn started(&self, stage: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_style(self.style(None));
                bar.reset();
                bar.set_prefix(stage.to_owned());
                bar.set_message("");
            }
            None => self.print(&format!("{stage} …")),
        }
        *lock(&self.last_line) = (Instant::now(), stage.to_owned());
    }

    fn progress(&self, done: u64, total: Option<u64>, unit: Unit, what: &str) {
        // It may be a stranger's word.
        let what = without_escapes(what);
        if let Some(bar) = &self.bar {
            match (total, unit) {
                (Some(total), unit) => {
                    bar.set_style(self.style(Some(match unit {
                        Unit::Bytes => "{bytes}/{total_bytes} {binary_bytes_per_sec} eta {eta}",
                        Unit::Things => "{pos}/{len}",
                    })));
                    bar.set_length(total);
                }
                (None, _) => bar.set_style(self.style(None)),
            }
            bar.set_position(done);
            bar.set_message(what);
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
        self.print(&without_escapes(text));
    }

    fn diagnostics(&self, diagnostics: &Diagnostics) {
        let text = diagnostics.render(self.paint.0);
        match &self.bar {
            Some(bar) => bar.println(shown(text.trim_end())),
            None => say(text.trim_end()),
        }
    }

    fn finished(&self, stage: &Stage) {
        let size = stage.bytes.filter(|count| *count > 0);
        let size = size.map(|count| format!(", {}", bytes(count))).unwrap_or_default();
        let cached = if stage.cached { ", cached" } else { "" };
        let (name, details) = (&stage.name, format!("{:.1} s{size}{cached}", stage.seconds));
        match &self.bar {
            Some(bar) => {
                bar.println(format!("{} {name} {}", self.paint.good("✓"), self.paint.faint(&details)))
            }
            None => self.print(&format!("{name}: done in {details}")),
        }
    }
}

/// The table at the end: time and bytes of each stage.
pub(crate) fn summary(stages: &[Stage], paint: Paint) -> String {
    let width = stages.iter().map(|stage| stage.name.len()).max().unwrap_or(0).max(5);
    let mut text = String::new();
    for stage in stages {
        let size = stage.bytes.filter(|count| *count > 0).map(bytes).unwrap_or_default();
        let cached = if stage.cached { paint.faint("  cached") } else { String::new() };
        let line = format!("  {:width$} {:8.1} s {size:>10}{cached}", stage.name, stage.seconds);
        text += &format!("{}\n", line.trim_end());
    }
    let total: f64 = stages.iter().map(|stage| stage.seconds).sum();
    text + &paint.strong(&format!("  {:width$} {total:8.1} s", "total")) + "\n"
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_words_are_shown_and_not_obeyed() {
        let paint = Paint(true);
        let hostile = "id\u{1b}]0;owned\u{7}\u{9b}2J\u{1b}[8mhidden\u{202e}drow\u{1b}";
        let text = format!("{} {hostile}\n\t{}", paint.bad("error:"), paint.faint(hostile));
        assert_eq!(shown(&text), "\x1b[1;31merror:\x1b[0m idhiddendrow\n\t\x1b[2midhiddendrow\x1b[0m");
        let every = [paint.good("a"), paint.bad("b"), paint.strong("c"), paint.faint("d")].concat();
        assert_eq!(shown(&every), every);
    }
}
