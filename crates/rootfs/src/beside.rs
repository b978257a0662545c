//! What maintainer scripts ask for and nothing waits for, done beside the scripts that come after: compiled Python, the
//! kernel's list of modules, the database of hardware. A stand-in notes each call instead of doing it; here the calls are done, in
//! the order in which they were noted, while dpkg goes on. Who needs their results waits for them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use recipe::Recipe;
use sandbox::{Input, Places, Sandbox};

use crate::dpkg;
use crate::error::{Error, OnFile};
use crate::late::is_below;
use crate::lines::Lines;
use crate::programs::{Programs, StandIn, Took};
use crate::root::Root;
use crate::stage::BEHIND_SCRIPTS;

/// Calls that are done one after the other, beside all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Nothing that comes with a package needs its compiled Python files before the last package is configured.
    Python,
    /// What is known of modules and hardware: the initrd needs it.
    Hardware,
}

pub(crate) const LANES: [Lane; 2] = [Lane::Hardware, Lane::Python];

impl Lane {
    /// Where its calls are noted, as a shell script.
    const fn notes(self) -> &'static str {
        match self {
            Lane::Python => "/var/lib/dpkg/bakehouse-python",
            Lane::Hardware => "/var/lib/dpkg/bakehouse-hardware",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Lane::Python => "compiling python files",
            Lane::Hardware => "listing modules and hardware",
        }
    }

    /// A stand-in's script that notes calls of `program` whose words match `pattern`, with `after` behind them; for any other
    /// call `otherwise` is run.
    fn note(self, program: &str, pattern: &str, after: &str, otherwise: &str) -> String {
        let notes = self.notes();
        format!(
            "#!/bin/sh\ncase \"$*\" in\n{pattern}) ;;\n*) {otherwise} ;;\nesac\nline={program}\n\
             for rest; do\n\
             \x20 word=\n\
             \x20 while case $rest in *\\'*) ;; *) false ;; esac; do\n\
             \x20   word=\"$word${{rest%%\\'*}}'\\\\''\" rest=${{rest#*\\'}}\n\
             \x20 done\n\
             \x20 line=\"$line '$word$rest'\"\n\
             done\nprintf '%s\\n' \"$line{after}\" >> {notes}\n"
        )
    }
}

/// Folders in which nothing that is done beside looks; but for [`LOOKED_AT`].
const ASIDE: [&str; 9] =
    ["/boot", "/etc", "/home", "/opt", "/root", "/srv", "/usr/lib/bakehouse", "/usr/lib/systemd", "/var/www"];

/// How paths begin that are looked at all the same: by the calls themselves, or by whatever program starts.
const LOOKED_AT: [&str; 8] = [
    "/etc/alternatives",
    "/etc/depmod",
    "/etc/group",
    "/etc/ld.so",
    "/etc/nsswitch",
    "/etc/passwd",
    "/etc/python",
    "/etc/udev/hwdb",
];

/// Whether all that a recipe lays down lies where no call that is done beside looks. What one of them makes of a file would be
/// a matter of chance otherwise.
pub(crate) fn nothing_looks_at(recipe: &Recipe) -> bool {
    let web = recipe.web.iter().map(|web| web.root.as_str());
    recipe.files.iter().map(|file| file.path.as_str()).chain(web).all(is_aside)
}

fn is_aside(path: &str) -> bool {
    !path.split('/').any(|name| matches!(name, "." | ".."))
        && ASIDE.iter().any(|folder| is_below(path, folder))
        && !LOOKED_AT.iter().any(|start| path.starts_with(start) || is_below(start, path))
}

/// What notes calls while packages are configured.
pub(crate) fn stand_ins() -> Vec<StandIn> {
    // The programs themselves stay: depmod is one of many names of its program. This folder comes first in a script's PATH.
    let before = |program: &str, pattern: &str, after: &str, real: &'static str| StandIn {
        path: format!("/usr/local/sbin/{program}"),
        script: Lane::Hardware.note(program, pattern, after, &format!("exec {real} \"$@\"")),
        beside: Some(real),
    };
    let compile = "/usr/bin/py3compile";
    vec![
        StandIn {
            path: compile.into(),
            script: Lane::Python.note("py3compile", "*", "", ":"),
            beside: Some(compile),
        },
        before("depmod", "[0-9]*|'-a '[0-9]*", "", "/usr/sbin/depmod"),
        // Packages go on without the database.
        before("systemd-hwdb", "update|'--usr update'", " || :", "/usr/bin/systemd-hwdb"),
    ]
}

/// What notes the calls by which the packages of Python itself compile their files; elsewhere the module is as it was.
pub(crate) fn python_stand_ins(root: &Root) -> Result<Vec<StandIn>, Error> {
    let mut stand_ins = Vec::new();
    for name in root.list(b"usr/lib")? {
        let Some(name) = std::str::from_utf8(&name).ok().filter(|name| name.starts_with("python3.")) else {
            continue;
        };
        let path = format!("/usr/lib/{name}/py_compile.py");
        let module = root.read(path.as_bytes())?.and_then(|bytes| String::from_utf8(bytes).ok());
        // Such a line would have to be the first.
        if let Some(module) = module.filter(|module| !module.contains("from __future__")) {
            stand_ins.push(StandIn { path, script: noting_module(&module), beside: None });
        }
    }
    Ok(stand_ins)
}

fn noting_module(module: &str) -> String {
    let notes = Lane::Python.notes();
    format!(
        "import sys as _sys\n\
         if (__name__ == '__main__' and _sys.flags.no_site and _sys.flags.ignore_environment and len(_sys.argv) > 1\n\
         \x20       and all(_word.startswith('/') and _word.endswith('.py') and \"'\" not in _word for _word in _sys.argv[1:])):\n\
         \x20   with open('{notes}', 'a') as _notes:\n\
         \x20       _words = [_sys.executable, '-E', '-S'] + ['-O'] * _sys.flags.optimize + _sys.argv\n\
         \x20       _notes.write(' '.join(\"'\" + _word + \"'\" for _word in _words) + '\\n')\n\
         \x20   _sys.exit(0)\n\
         {module}"
    )
}

/// The file, beside the calls, that keeps those from being begun that are left.
const STOP: &str = "stop";

/// Does the noted calls of one lane. Dropped, it ends after the call that it is at.
pub(crate) struct Beside {
    lane: Lane,
    /// How much of the notes has been handed on.
    seen: usize,
    calls: Option<Sender<String>>,
    stop: Arc<AtomicBool>,
    /// Where [`STOP`] is looked for.
    work: PathBuf,
    thread: Option<JoinHandle<Result<Done, Error>>>,
    /// Of this and all other sandboxes that run in the root meanwhile.
    _places: Arc<Places>,
}

#[derive(Default)]
struct Done {
    seconds: f64,
    notes: Vec<String>,
}

impl Beside {
    /// `work` is a new folder on the host. All packages have been laid down, and `sandbox` is one without stand-ins.
    pub(crate) fn start(
        lane: Lane,
        root: &Root,
        work: PathBuf,
        sandbox: &Sandbox,
        places: Arc<Places>,
    ) -> Result<Self, Error> {
        let database = Database { root: root.path().to_owned(), copy: work.clone() };
        database.begin(root)?;
        let sandbox = sandbox.clone().bind(&database.copy, &format!("/{}", dpkg::FOLDER), true);
        let (calls, received) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            // This thread's programs have it from the thread.
            let _ = rustix::process::nice(BEHIND_SCRIPTS);
            let mut done = Done::default();
            while let Some(script) = next(&received) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                do_calls(lane, &script, &database, &sandbox, &mut done)?;
            }
            Ok(done)
        });
        Ok(Self { lane, seen: 0, calls: Some(calls), stop, work, thread: Some(thread), _places: places })
    }

    /// Whether initrds are made of what it does.
    pub(crate) fn is_for_initrds(&self) -> bool {
        self.lane == Lane::Hardware
    }

    /// Hands on what was noted since it looked last.
    pub(crate) fn look(&mut self, root: &Root) -> Result<(), Error> {
        let notes = root.read(self.lane.notes().as_bytes())?.unwrap_or_default();
        let new = notes.get(self.seen..).unwrap_or_default();
        // The last line may be in the middle of being written.
        if let Some(end) = new.iter().rposition(|byte| *byte == b'\n') {
            let lines = String::from_utf8_lossy(&new[..=end]).into_owned();
            self.seen += end + 1;
            if let Some(calls) = &self.calls {
                // It has ended only after a failure, which is told when it is waited for.
                let _ = calls.send(lines);
            }
        }
        Ok(())
    }

    /// Waits until all is done that was noted.
    pub(crate) fn finish(mut self, root: &Root, programs: &mut Programs<'_>) -> Result<(), Error> {
        self.look(root)?;
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            programs.note_all(done.notes);
            programs
                .scripts
                .push(Took { name: format!("{}, beside", self.lane.what()), seconds: done.seconds });
        }
        root.forget();
        root.remove(self.lane.notes().as_bytes())?;
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.calls = None;
        // Without it, only this takes longer.
        let _ = std::fs::write(self.work.join(STOP), "");
        if let Some(thread) = self.thread.take() {
            // Whatever it says, something else has failed before.
            let _ = thread.join();
        }
    }
}

/// All calls that wait, as one script; `None` when no more will come.
fn next(received: &Receiver<String>) -> Option<String> {
    let mut script = received.recv().ok()?;
    script.extend(received.try_iter());
    Some(script)
}

/// A copy of dpkg's records: dpkg rewrites them while it configures, and a reader must not see them half-way.
struct Database {
    root: PathBuf,
    copy: PathBuf,
}

impl Database {
    /// The lists of files stay as they are once all packages have been laid down.
    fn begin(&self, root: &Root) -> Result<(), Error> {
        for folder in [self.copy.clone(), self.copy.join("info"), self.copy.join("updates")] {
            std::fs::create_dir(&folder).on("cannot make the folder", &folder)?;
        }
        let names = root.list(format!("{}/info", dpkg::FOLDER).as_bytes())?;
        let names = names.iter().filter_map(|name| std::str::from_utf8(name).ok());
        names
            .filter(|name| *name == "format" || name.ends_with(".list"))
            .try_for_each(|name| self.copy(root, &format!("info/{name}")))
    }

    fn renew(&self) -> Result<(), Error> {
        let root = Root::open(&self.root)?;
        ["arch", "diversions", "status"].into_iter().try_for_each(|name| self.copy(&root, name))
    }

    fn copy(&self, root: &Root, name: &str) -> Result<(), Error> {
        let bytes = root.read(format!("{}/{name}", dpkg::FOLDER).as_bytes())?.unwrap_or_default();
        self.write(name, &bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.copy.join(name);
        std::fs::write(&path, bytes).on("cannot write", path)
    }
}

fn do_calls(
    lane: Lane,
    script: &str,
    database: &Database,
    sandbox: &Sandbox,
    done: &mut Done,
) -> Result<(), Error> {
    let start = Instant::now();
    database.renew()?;
    let stop = format!("[ ! -e /{}/{STOP} ] || exit 0\n", dpkg::FOLDER);
    let script: String = script.lines().map(|call| format!("{stop}{call}\n")).collect();
    database.write("calls", script.as_bytes())?;
    let (mut tail, mut lines) = (Vec::new(), Lines::default());
    let calls = format!("/{}/calls", dpkg::FOLDER);
    let exit = sandbox
        // After a failure the last call that is told is the one that failed.
        .run(&["sh", "-ex", &calls], Input::Null, &mut |bytes| {
            lines.push(bytes, &mut |line| {
                tail.push(line);
                if tail.len() > 2 * crate::programs::TAIL_LINES {
                    tail.drain(..crate::programs::TAIL_LINES);
                }
            })
        });
    let exit = exit.map_err(|source| Error::Sandbox { what: lane.what().into(), source })?;
    lines.finish(&mut |line| tail.push(line));
    done.seconds += start.elapsed().as_secs_f64();
    done.notes.extend(exit.notes.iter().cloned());
    if exit.success() {
        return Ok(());
    }
    let tail = tail.split_off(tail.len().saturating_sub(crate::programs::TAIL_LINES));
    Err(Error::Program { what: lane.what().into(), status: exit.to_string(), place: None, tail })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs a stand-in that writes its notes into `folder`; its exit code, and the notes.
    fn run(stand_in: &str, lane: Lane, arguments: &[&str]) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().unwrap();
        let (script, notes) = (folder.path().join("tool"), folder.path().join("notes"));
        std::fs::write(&script, stand_in.replace(lane.notes(), notes.to_str().unwrap())).unwrap();
        let status = Command::new("/bin/sh").arg(&script).args(arguments).status().unwrap();
        (status.code(), std::fs::read_to_string(&notes).unwrap_or_default())
    }

    #[test]
    fn a_call_is_noted_as_it_was_made() {
        let note = Lane::Python.note("tool", "*", "", ":");
        for (arguments, line) in [
            (["-p", "python3-yaml"], "tool '-p' 'python3-yaml'\n"),
            (["-V", "3.13- x"], "tool '-V' '3.13- x'\n"),
            (["-X", "it's 'so'"], "tool '-X' 'it'\\''s '\\''so'\\'''\n"),
        ] {
            assert_eq!(run(&note, Lane::Python, &arguments), (Some(0), line.to_owned()));
        }
    }

    #[test]
    fn only_calls_that_nothing_waits_for_are_noted() {
        let note = Lane::Hardware.note("tool", "[0-9]*|'-a '[0-9]*", " || :", "exec false");
        let noted = |line: &str| (Some(0), format!("{line} || :\n"));
        assert_eq!(run(&note, Lane::Hardware, &["6.12-cloud"]), noted("tool '6.12-cloud'"));
        assert_eq!(run(&note, Lane::Hardware, &["-a", "6.12-cloud"]), noted("tool '-a' '6.12-cloud'"));
        assert_eq!(run(&note, Lane::Hardware, &["-n"]), (Some(1), String::new()));
        assert_eq!(run(&note, Lane::Hardware, &[]), (Some(1), String::new()));
    }

    #[test]
    fn files_that_calls_may_look_at_are_known() {
        for aside in
            ["/etc/app.conf", "/etc/udev/rules.d/70-a.rules", "/opt/app", "/usr/lib/systemd/system/a.service"]
        {
            assert!(is_aside(aside), "{aside}");
        }
        for looked_at in [
            "/",
            "/etc",
            "/etc/udev",
            "/etc/depmod.d/a.conf",
            "/etc/udev/hwdb.d/60-a.hwdb",
            "/etc/python3.13/sitecustomize.py",
            "/opt/../etc/depmod.d/a.conf",
            "/optional/a",
            "/usr/lib",
            "/usr/lib/modules/6.12-cloud/updates/a.ko",
            "/usr/lib/python3/dist-packages/cloudinit/util.py",
            "/usr/local/sbin/depmod",
        ] {
            assert!(!is_aside(looked_at), "{looked_at}");
        }
    }
}
