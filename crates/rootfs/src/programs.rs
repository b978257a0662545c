//! Running the root's own programs in the sandbox, and remembering what they said and how long they took.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Instant;

use dispatch::{Counts, Machine, NativeTree, Table};
use sandbox::{Input, Sandbox};

use crate::error::{Error, OnFile};
use crate::lines::Lines;

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

/// What runs the programs of a root whose architecture is not the host's.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// The emulator of its programs: a static program of the host.
    pub emulator: PathBuf,
    /// The host's own programs in the root's versions, to be run in place of the root's; `None`: all are emulated.
    pub native: Option<NativeTree>,
}

/// Where the programs of a foreign root are told how to run.
pub(crate) struct Dispatch {
    machine: Machine,
    /// What programs see at [`dispatch::FOLDER`].
    folder: PathBuf,
    tree: Option<PathBuf>,
    table: Table,
    changed: bool,
}

impl Dispatch {
    /// Lays out an empty folder.
    pub(crate) fn new(machine: Machine, folder: PathBuf, foreign: &Foreign) -> Result<Self, Error> {
        dispatch::lay_out(&folder, &foreign.emulator)?;
        let native = foreign.native.as_ref();
        let table = native.map(Table::new).unwrap_or_default();
        Ok(Self { machine, folder, tree: native.map(NativeTree::usr), table, changed: false })
    }

    /// Whether a package may have programs that the host's can stand for.
    pub(crate) fn knows(&self, package: &str) -> bool {
        self.table.knows(package)
    }

    /// Tells of a package's file that was laid down.
    pub(crate) fn laid(&mut self, package: &str, version: &str, path: &[u8], size: u64, mtime: i64) {
        self.table.laid(package, version, path, size, mtime);
        self.changed = true;
    }

    fn write(&mut self) -> Result<(), Error> {
        if self.changed {
            let path = self.folder.join(dispatch::TABLE);
            std::fs::write(&path, self.table.bytes()).on("cannot write", &path)?;
            self.changed = false;
        }
        Ok(())
    }

    fn enter(&self, sandbox: Sandbox) -> Sandbox {
        let inside = |name: &str| format!("{}/{name}", dispatch::FOLDER);
        let foreign = sandbox::Foreign {
            machine: self.machine.name(),
            elf_machine: self.machine.elf(),
            handler: dispatch::HANDLER,
        };
        let sandbox = sandbox.foreign(foreign).bind(&self.folder, dispatch::FOLDER, true).bind(
            &self.folder.join(dispatch::COUNT),
            &inside(dispatch::COUNT),
            false,
        );
        match &self.tree {
            Some(tree) => sandbox.bind(tree, &inside(dispatch::TREE), true),
            None => sandbox,
        }
    }

    fn counts(&self) -> Result<Counts, Error> {
        let path = self.folder.join(dispatch::COUNT);
        Ok(Counts::read(&std::fs::read(&path).on("cannot read", &path)?))
    }
}

/// Starts programs in one root.
pub(crate) struct Programs<'a> {
    root: PathBuf,
    pub(crate) dispatch: Option<Dispatch>,
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
        Self { root, dispatch: None, time, progress, scripts: Vec::new(), notes: Vec::new() }
    }

    /// The environment in which maintainer scripts and all else run.
    pub(crate) fn sandbox(&self) -> Sandbox {
        let sandbox = Sandbox::new(&self.root);
        let sandbox = match &self.dispatch {
            Some(dispatch) => dispatch.enter(sandbox),
            None => sandbox,
        };
        sandbox
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
        if let Some(dispatch) = &mut self.dispatch {
            dispatch.write()?;
        }
        let mut tail: std::collections::VecDeque<String> = std::collections::VecDeque::new();
        let mut lines = Lines::default();
        let progress = self.progress;
        let mut take = |line: String| {
            progress.line(&line);
            on_line(&line);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        };
        let exit = sandbox.run(argv, input, &mut |bytes| lines.push(bytes, &mut take));
        let exit = exit.map_err(|source| Error::Sandbox { what: what.into(), source })?;
        lines.finish(&mut take);
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

    /// How often the programs of a foreign root ran natively or emulated; `None` for a root of the host's own kind.
    pub(crate) fn counts(&self) -> Result<Option<Counts>, Error> {
        self.dispatch.as_ref().map(Dispatch::counts).transpose()
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
