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
    pub(crate) path: String,
    pub(crate) script: String,
    /// It is there only where this is, and the folder that it lies in.
    pub(crate) beside: Option<&'static str>,
}

pub(crate) const TAIL_LINES: usize = 25;

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

    /// [`Programs::sandbox`] for somebody who starts programs by himself: all that they need is in its place.
    pub(crate) fn ready(&mut self) -> Result<Sandbox, Error> {
        if let Some(dispatch) = &mut self.dispatch {
            dispatch.write()?;
        }
        Ok(self.sandbox())
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
        self.note_all(exit.notes.iter().cloned());
        if exit.success() {
            return Ok(());
        }
        let tail = tail.into_iter().collect();
        Err(Error::Program { what: what.into(), status: exit.to_string(), place: None, tail })
    }

    /// Takes up what the sandbox could not hide.
    pub(crate) fn note_all(&mut self, notes: impl IntoIterator<Item = String>) {
        for note in notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
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

    /// Runs dpkg, noting how long each package's scripts took: from its line to the next one. `on_package` is called at each.
    pub(crate) fn dpkg(
        &mut self,
        what: &str,
        sandbox: &Sandbox,
        argv: &[impl AsRef<OsStr>],
        on_package: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        let mut took: Vec<(String, Instant)> = Vec::new();
        let mut words = DpkgWords::default();
        let result = self.run(what, sandbox, argv, Input::Null, &mut |line| {
            words.line(line);
            // A script may print such lines, too.
            if let Some((verb, package)) = DpkgWords::begins(line).filter(|_| took.len() < MOST_PACKAGES) {
                took.push((format!("{verb} {package}"), Instant::now()));
                on_package();
            }
        });
        let result = result.map_err(|error| match error {
            Error::Program { what, status, place, tail } => words.explain(what, status, place, tail),
            other => other,
        });
        let ends: Vec<_> = took.iter().skip(1).map(|(_, start)| *start).chain([Instant::now()]).collect();
        for ((name, start), end) in took.into_iter().zip(ends) {
            self.scripts.push(Took { name, seconds: (end - start).as_secs_f64() });
        }
        result
    }
}

/// More packages than any image has: beyond it their times are not noted one by one.
const MOST_PACKAGES: usize = 1 << 16;

/// What dpkg said of the first package that failed. It goes on with others, and has more to say of those that need it.
#[derive(Default)]
struct DpkgWords {
    /// Since a package's configuration began.
    said: Vec<String>,
    /// The package that failed, and the line that tells how.
    failed: Option<(String, Option<String>)>,
}

impl DpkgWords {
    /// What dpkg begins in this line, and with which package.
    fn begins(line: &str) -> Option<(&'static str, &str)> {
        [("Setting up ", "configure"), ("Processing triggers for ", "triggers of")].into_iter().find_map(
            |(words, verb)| {
                let rest = line.strip_prefix(words)?;
                Some((verb, rest.split(' ').next().unwrap_or_default()))
            },
        )
    }

    fn line(&mut self, line: &str) {
        match &mut self.failed {
            Some((_, how @ None)) => *how = Some(line.trim().to_owned()),
            Some(_) => {}
            None => {
                if let Some(rest) = line.strip_prefix("dpkg: error processing package ") {
                    let package = rest.split(' ').next().unwrap_or_default();
                    self.failed = Some((package.to_owned(), None));
                    return;
                }
                if Self::begins(line).is_some() {
                    self.said.clear();
                } else if self.said.len() == TAIL_LINES {
                    self.said.remove(0);
                }
                self.said.push(line.to_owned());
            }
        }
    }

    /// The failure of the script that failed first, where dpkg named it; else what is known of dpkg itself.
    fn explain(self, what: String, status: String, place: Option<String>, tail: Vec<String>) -> Error {
        let Some((package, how)) = self.failed else {
            return Error::Program { what, status, place, tail };
        };
        // `installed p package post-installation script subprocess returned error exit status 3`
        let how = how.unwrap_or_default();
        let script = [
            ("post-installation script", "postinst"),
            ("pre-installation script", "preinst"),
            ("post-removal script", "postrm"),
            ("pre-removal script", "prerm"),
        ];
        let Some((_, script)) = script.into_iter().find(|(words, _)| how.contains(words)) else {
            let what = format!("{what}: package {package}");
            let status = if how.is_empty() { status } else { how };
            return Error::Program { what, status, place, tail: self.said };
        };
        let status = match how.split_once("error exit status ") {
            Some((_, code)) => format!("exit code {code}"),
            None => how.split_once("subprocess ").map_or(how.as_str(), |(_, rest)| rest).to_owned(),
        };
        Error::Program { what: format!("{script} of package {package}"), status, place, tail: self.said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &str) -> String {
        let mut words = DpkgWords::default();
        lines.lines().for_each(|line| words.line(line));
        let tail = lines.lines().map(str::to_owned).collect();
        words.explain("configuring the packages".into(), "exit code 1".into(), None, tail).to_string()
    }

    #[test]
    fn the_script_that_failed_first_is_named_with_its_own_lines() {
        assert_eq!(
            told(
                "Setting up libc6:amd64 (2.41-12) ...\nfine\nSetting up tomcat (10.1) ...\nchecking\nno room for \
                 users\ndpkg: error processing package tomcat (--configure):\n installed tomcat package \
                 post-installation script subprocess returned error exit status 82\ndpkg: dependency problems \
                 prevent configuration of site:\n site depends on tomcat; however:\ndpkg: error processing \
                 package site (--configure):\n dependency problems - leaving unconfigured\nErrors were \
                 encountered while processing:\n tomcat\n site"
            ),
            "postinst of package tomcat failed: exit code 82\n  | Setting up tomcat (10.1) ...\n  | checking\n  | no \
             room for users"
        );
        assert_eq!(
            told(
                "Setting up a (1) ...\ndpkg: error processing package a (--configure):\n installed a package \
                 post-installation script subprocess was killed by signal (Killed)"
            ),
            "postinst of package a failed: was killed by signal (Killed)\n  | Setting up a (1) ..."
        );
        assert_eq!(
            told(
                "dpkg: error processing package b (--configure):\n package is in a very bad inconsistent state"
            ),
            "configuring the packages: package b failed: package is in a very bad inconsistent state\n  = note: it \
             printed nothing"
        );
        assert_eq!(
            told("dpkg: error: cannot open its lock"),
            "configuring the packages failed: exit code 1\n  | dpkg: error: cannot open its lock"
        );
    }
}
