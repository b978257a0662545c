//! Running the root's own programs in the sandbox, and remembering what they said and how long they took.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Instant;

use sandbox::{Input, Sandbox};

use crate::error::Error;

/// Who is told what happens while a root is made.
pub trait Progress: Sync {
    /// A stage begins.
    fn stage(&self, name: &str);
    /// A program in the sandbox printed a line.
    fn line(&self, line: &str);
}

/// Tells nobody.
impl Progress for () {
    fn stage(&self, _: &str) {}
    fn line(&self, _: &str) {}
}

/// How long something took. Never part of the result's bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Took {
    /// What.
    pub name: String,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Starts programs in one root.
pub(crate) struct Programs<'a> {
    root: PathBuf,
    time: i64,
    progress: &'a dyn Progress,
    pub(crate) scripts: Vec<Took>,
    pub(crate) notes: Vec<String>,
}

/// What stands in for a program while others run.
pub(crate) struct StandIn {
    pub(crate) path: &'static str,
    pub(crate) script: String,
    /// Whether it is there even where the program is not.
    pub(crate) always: bool,
}

const TAIL_LINES: usize = 25;

impl<'a> Programs<'a> {
    /// `time` becomes SOURCE_DATE_EPOCH.
    pub(crate) fn new(root: PathBuf, time: i64, progress: &'a dyn Progress) -> Self {
        Self { root, time, progress, scripts: Vec::new(), notes: Vec::new() }
    }

    /// The environment in which maintainer scripts and all else run.
    pub(crate) fn sandbox(&self) -> Sandbox {
        Sandbox::new(&self.root)
            .env("SOURCE_DATE_EPOCH", self.time.to_string())
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("DEBCONF_NONINTERACTIVE_SEEN", "true")
            .env("DEBCONF_NOWARNINGS", "yes")
            .env("PERL_HASH_SEED", "0")
            .env("PYTHONHASHSEED", "0")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("LC_ALL", "C.UTF-8")
            .env("SYSTEMD_OFFLINE", "1")
    }

    /// Runs a program; every line that it prints goes to `on_line` and to the progress.
    pub(crate) fn run(
        &mut self,
        what: &str,
        sandbox: &Sandbox,
        argv: &[impl AsRef<OsStr>],
        input: Input,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        let mut tail: std::collections::VecDeque<String> = std::collections::VecDeque::new();
        let mut open = Vec::new();
        let progress = self.progress;
        let mut take = |line: &[u8]| {
            let line = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
            progress.line(&line);
            on_line(&line);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        };
        let exit = sandbox.run(argv, input, &mut |bytes| {
            open.extend_from_slice(bytes);
            while let Some(end) = open.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = open.drain(..=end).collect();
                take(&line[..end]);
            }
        });
        let exit = exit.map_err(|source| Error::Sandbox { what: what.into(), source })?;
        if !open.is_empty() {
            take(&open);
        }
        for note in &exit.notes {
            if !self.notes.contains(note) {
                self.notes.push(note.clone());
            }
        }
        if exit.success() {
            return Ok(());
        }
        let tail: Vec<_> = tail.into_iter().collect();
        Err(Error::Program { what: what.into(), status: exit.to_string(), tail: tail.join("\n") })
    }

    /// As [`Programs::run`], noting how long it took.
    pub(crate) fn run_timed(
        &mut self,
        what: &str,
        sandbox: &Sandbox,
        argv: &[impl AsRef<OsStr>],
        input: Input,
    ) -> Result<(), Error> {
        let start = Instant::now();
        let result = self.run(what, sandbox, argv, input, &mut |_| {});
        self.scripts.push(Took { name: what.into(), seconds: start.elapsed().as_secs_f64() });
        result
    }

    /// Runs dpkg, noting how long each package's scripts took: from its line to the next one.
    pub(crate) fn dpkg(
        &mut self,
        what: &str,
        sandbox: &Sandbox,
        argv: &[impl AsRef<OsStr>],
    ) -> Result<(), Error> {
        let mut took: Vec<(String, Instant)> = Vec::new();
        let result = self.run(what, sandbox, argv, Input::Null, &mut |line| {
            for (words, verb) in [("Setting up ", "configure"), ("Processing triggers for ", "triggers of")] {
                if let Some(rest) = line.strip_prefix(words) {
                    let package = rest.split(' ').next().unwrap_or_default();
                    took.push((format!("{verb} {package}"), Instant::now()));
                }
            }
        });
        let ends: Vec<_> = took.iter().skip(1).map(|(_, start)| *start).chain([Instant::now()]).collect();
        for ((name, start), end) in took.into_iter().zip(ends) {
            self.scripts.push(Took { name, seconds: (end - start).as_secs_f64() });
        }
        result
    }
}
