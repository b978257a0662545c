use std::fs;
use std::io;

use rustix::process::{Pid, Signal};

use crate::sys;

/// How a [`supervise`]d job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Code(u8),
    /// Because this process was asked to end, by this signal (SIGINT, SIGTERM or SIGHUP).
    Interrupted(i32),
    /// By a signal that it got itself, such as SIGKILL when the machine is short of memory.
    Killed(i32),
}

/// Runs a job in a child of this process and waits for its end. The job's value is its exit code.
///
/// When this process is told to end (Ctrl-C, SIGTERM, SIGHUP, unless it was started with these ignored) the job is killed
/// at once, and with it everything it started: what survives the job, here and in sandboxes, becomes a child of this
/// process and is killed too. All of it is gone when the function returns, so that what it left half-done can be taken
/// away; until [`die_of`] further such signals wait. When this process itself is killed, so is the job. A file larger than the user's limit is an error of the job's
/// write, not its end (SIGXFSZ).
/// After [`crate::enter`] the job has mounts of its own, for [`crate::InMemory`].
///
/// The process must have one thread, as for [`crate::enter`], which comes first.
pub fn supervise(job: impl FnOnce() -> u8) -> io::Result<Ended> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "the process has {threads} threads, and a job is started from one"
        )));
    }
    let signals = sys::Asked::block()?;
    // Where it cannot be had, orphans of a killed job end by their own means.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let parent = rustix::process::getpid();
    let Some(child) = sys::fork()? else {
        signals.unblock();
        let dies_along = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        // The parent may have gone before it was asked for.
        if dies_along.is_err() || rustix::process::getppid() != Some(parent) {
            sys::exit(1);
        }
        sys::ignore_file_size_signal();
        crate::memory::take_own_mounts();
        let code = job();
        std::process::exit(i32::from(code));
    };
    let mut interrupted = None;
    let status = 'waiting: loop {
        let signal = signals.wait();
        if signal != libc::SIGCHLD {
            interrupted.get_or_insert(signal);
            kill(child);
        }
        while let Some((pid, status)) = sys::reap() {
            if pid == child {
                break 'waiting status;
            }
        }
    };
    // Whatever came along with it. When one goes, its own children become this process's.
    loop {
        let left = children();
        if left.is_empty() {
            break;
        }
        left.into_iter().for_each(kill);
        sys::reap_next();
    }
    // At a terminal the job gets the signal as well, and may be faster.
    let interrupted = interrupted.or_else(|| signals.pending());
    let killed = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
    let ended = match (interrupted, killed) {
        (Some(signal), Some(_)) => Ended::Interrupted(signal),
        (None, Some(signal)) if signals.has(signal) => Ended::Interrupted(signal),
        (None, Some(signal)) => Ended::Killed(signal),
        (_, None) => Ended::Code(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(1)),
    };
    // After an interruption they stay blocked: what was left half-done can be taken away before [`die_of`].
    if !matches!(ended, Ended::Interrupted(_)) {
        signals.unblock();
    }
    Ok(ended)
}

/// Ends this process by a signal, as if it had never been caught, so that shells know.
pub fn die_of(signal: i32) -> ! {
    sys::default_signals();
    kill_with(rustix::process::getpid().as_raw_nonzero().get(), signal);
    sys::exit(128 + signal)
}

fn kill(pid: i32) {
    kill_with(pid, libc::SIGKILL);
}

fn kill_with(pid: i32, signal: i32) {
    if let (Some(pid), Some(signal)) = (Pid::from_raw(pid), Signal::from_named_raw(signal)) {
        // One that has just gone need not be killed.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The processes whose parent this one is, as /proc tells; those that have ended and wait to be reaped too.
fn children() -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        // After the program's name, which may hold anything: a letter for its state, then the parent.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok());
        parent == Some(own)
    };
    pids.filter(is_child).collect()
}
