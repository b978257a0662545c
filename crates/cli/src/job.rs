//! Work that may be interrupted at any moment: it runs in a process of its own, and what it leaves when it is killed is
//! taken away.

use std::io::{self, IsTerminal};

use serde_json::json;

use crate::surroundings::cache_folder;
use crate::terminal::{Paint, StandardOutput, say};
use crate::{FAILED, tell_json, told};

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
            Err(error) => return told(Err(error.into()), json, Place::Bake),
        }
    }
    let terminal = sandbox::TerminalModes::now();
    let ended = match sandbox::supervise(work) {
        Ok(ended) => ended,
        Err(error) => {
            return told(Err(anyhow::Error::new(error).context("cannot start a process")), json, Place::Bake);
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
        say("interrupted: nothing was left half-made but the logs; what was there before is as it was");
        sandbox::die_of(signal)
    }
    let why = if signal == 9 {
        ", as the kernel does when memory runs out (see `dmesg`; BAKEHOUSE_MEMORY=0 has roots made on the disk)"
    } else {
        ""
    };
    let error = Paint::on_stderr().bad("error:");
    let message =
        format!("the work was killed by signal {signal}{why}; nothing was left half-made but the logs");
    say(format!("{error} {message}"));
    if json {
        tell_json("failure", &message, None, json!([]));
    }
    FAILED
}

/// Which folders a command writes to, and how they are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Outputs, lock, cache, store.
    Bake,
    /// The cache.
    Cache,
    /// The store, and files that are named.
    Store,
    /// Files that are named.
    Named,
}

/// What to do when the system said no, for messages that do not say so themselves.
pub(crate) fn advice(error: &anyhow::Error, text: &str, place: Place) -> Option<String> {
    // A permission, but no folder's.
    if error.is::<sandbox::EnterError>() || error.is::<StandardOutput>() {
        return None;
    }
    // Of a file in the image, not of a folder on this machine.
    let in_image = matches!(error.downcast_ref(), Some(bake::Error::Root(_)));
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    // A program inside the sandbox only has words.
    let full = text.contains("No space left on device") || text.contains("Disk quota exceeded");
    // It says what to do already.
    let said = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let (advice, elsewhere) = match kind {
        _ if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) || full => {
            if said(&["ake room"]) {
                return None;
            }
            let full = match place {
                Place::Bake => {
                    "the disk is full, or the user's share of it: make room there (a root that was made in memory goes to the \
                     disk with BAKEHOUSE_MEMORY=0)"
                }
                _ => "the disk is full, or the user's share of it: make room there",
            };
            (full, true)
        }
        Some(io::ErrorKind::FileTooLarge) if !said(&["limit"]) => {
            ("the file system or this user's limit (`ulimit -f`) allows no file so large: raise it", true)
        }
        Some(io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) if said(&["another"]) => {
            return None;
        }
        Some(io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) if in_image => {
            ("in the image a file stands where a folder is to be: choose another path in the recipe", false)
        }
        Some(io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) => {
            ("a file stands where a folder is to be: move it away", true)
        }
        Some(io::ErrorKind::IsADirectory) if !said(&["another"]) => ("a folder is there: name a file", false),
        Some(io::ErrorKind::ReadOnlyFilesystem) if !said(&["writable", "another"]) => {
            ("that file system is read-only: make it writable", true)
        }
        Some(io::ErrorKind::PermissionDenied) if !said(&["writable", "permission", "another"]) => {
            ("this user may not do that there: make the file or its folder readable and writable", true)
        }
        _ => return None,
    };
    let elsewhere = elsewhere.then_some(match place {
        Place::Bake => {
            "; or choose another place (outputs: --out DIR, lock: --lock FILE, store: --store STORE, cache and work: \
             BAKEHOUSE_CACHE=FOLDER)"
        }
        Place::Cache => "; or choose another place with BAKEHOUSE_CACHE=FOLDER",
        Place::Store => "; or choose another place (the store: --store STORE)",
        Place::Named => "; or name another place",
    });
    Some(format!("help: {advice}{}", elsewhere.unwrap_or_default()))
}
