//! Work that may be interrupted at any moment: it runs in a process of its own, and what it leaves when it is killed is
//! taken away.

use std::io::{self, IsTerminal};

use crate::surroundings::cache_folder;
use crate::terminal::{Paint, say};
use crate::{FAILED, told};

/// Runs work and gives its exit code, with `contained` as root of a user namespace. Interrupted, this process ends by the
/// same signal when all is gone that was begun.
pub(crate) fn run(contained: bool, json: bool, work: impl FnOnce() -> u8) -> u8 {
    // Before anything else: the kernel moves single-threaded processes only. The work's files are then this process's too,
    // so that it can take them away.
    if contained {
        match sandbox::enter() {
            Ok(sandbox::Identity::Pretended { lack, .. }) => say(format!(
                "note: this user has one id only ({lack}); a process of bakehouse's own keeps the owners of files"
            )),
            Ok(_) => {}
            Err(error) => return told(Err(error.into()), json),
        }
    }
    let terminal = sandbox::TerminalModes::now();
    let ended = match sandbox::supervise(work) {
        Ok(ended) => ended,
        Err(error) => {
            return told(Err(anyhow::Error::new(error).context("cannot start a process")), json);
        }
    };
    let signal = match ended {
        sandbox::Ended::Code(code) => return code,
        sandbox::Ended::Interrupted(signal) | sandbox::Ended::Killed(signal) => signal,
    };
    // A shell may have made it raw.
    terminal.restore();
    // A progress bar may still be there.
    if io::stderr().is_terminal() {
        say("");
    }
    if let Ok(cache) = cache_folder() {
        bake::sweep(&cache);
    }
    if matches!(ended, sandbox::Ended::Interrupted(_)) {
        say("interrupted: nothing was left half-made; what was there before is as it was");
        sandbox::die_of(signal)
    }
    let why = if signal == 9 {
        ", as the kernel does when memory runs out (see `dmesg`; BAKEHOUSE_MEMORY=0 has roots made on the disk)"
    } else {
        ""
    };
    let error = Paint::on_stderr().bad("error:");
    say(format!("{error} the work was killed by signal {signal}{why}; nothing was left half-made"));
    FAILED
}

/// What to do when the system said no, for messages that do not say so themselves.
pub(crate) fn advice(error: &anyhow::Error, text: &str) -> Option<&'static str> {
    // A permission, but no folder's.
    if error.is::<sandbox::EnterError>() {
        return None;
    }
    // Of a file in the image, not of a folder on this machine.
    let in_image = matches!(error.downcast_ref(), Some(bake::Error::Root(_)));
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    // A program inside the sandbox only has words.
    let full = text.contains("No space left on device") || text.contains("Disk quota exceeded");
    let (advice, said) = match kind {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => (FULL, "ake room"),
        _ if full => (FULL, "ake room"),
        Some(io::ErrorKind::FileTooLarge) => (LIMIT, "limit"),
        Some(io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) if in_image => {
            (NO_FOLDER_INSIDE, "another")
        }
        Some(io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) => (NO_FOLDER, "another"),
        Some(io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => (READ_ONLY, "writable"),
        _ => return None,
    };
    (!text.contains(said)).then_some(advice)
}

const FULL: &str = "help: the disk is full, or the user's share of it. Make room there; work and downloads go to another disk \
                    with BAKEHOUSE_CACHE=FOLDER, outputs with --out DIR, the lock with --lock FILE. A root that was made in memory goes to \
                    the disk with BAKEHOUSE_MEMORY=0";
const LIMIT: &str = "help: the file system or this user's limit (`ulimit -f`) allows no file so large: raise it, or choose \
                     another disk with --out DIR or BAKEHOUSE_CACHE=FOLDER";
const NO_FOLDER: &str = "help: a file stands where a folder is to be: move it away, or name another folder (outputs: --out DIR, \
                         cache: BAKEHOUSE_CACHE=FOLDER)";
const NO_FOLDER_INSIDE: &str =
    "help: in the image a file stands where a folder is to be: choose another path in the recipe";
const READ_ONLY: &str = "help: the folder must be writable for this user: change that, or choose another one (outputs: --out \
                         DIR, lock: --lock FILE, cache: BAKEHOUSE_CACHE=FOLDER)";
