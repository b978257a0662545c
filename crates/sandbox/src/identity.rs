use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, getegid, geteuid, waitpid};
use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};

use crate::owners;
use crate::sys;

/// How many ids a root file system needs: 0 to 65,535, the last two for `nobody` and the overflow id.
const IDS: u32 = 65_536;

static ENTERED: OnceLock<Identity> = OnceLock::new();

/// Who the process is after [`enter`]: uid 0 of a user namespace of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It was root before. Every id means what it meant before; what is gone is power over the host's devices,
    /// modules and mounts.
    AlreadyRoot,
    /// It was an ordinary user. Id 0 inside is this user; 1 and above are the user's subordinate ids.
    Subordinate {
        /// The user's id outside.
        uid: u32,
        /// The user's group outside.
        gid: u32,
    },
    /// It was an ordinary user who has one id only, which is 0 inside. Files that are given to others belong to this
    /// user on the disk; a second process knows their owners for as long as this one lives, and tells them to this one
    /// and all that it starts.
    Pretended {
        /// The user's id outside.
        uid: u32,
        /// The user's group outside.
        gid: u32,
        /// Why there are no other ids.
        lack: Lack,
    },
}

/// Why a process has one id only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// A program of the host is missing, or cannot do what it is for.
    #[error("there is no `{program}` (package uidmap)")]
    Program {
        /// Its name.
        program: &'static str,
    },
    /// The host's administrator gave the user no subordinate ids, or too few.
    #[error("{file} gives the user `{user}` {count} subordinate ids of 65535")]
    SubordinateIds {
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// The user's name, or id when it has no name.
        user: String,
        /// How many ids there are.
        count: u64,
    },
    /// The present user namespace itself has too few ids.
    #[error("{file} maps {count} of the ids 0 to 65535")]
    Ids {
        /// The map that was read.
        file: &'static str,
        /// How many of them it maps.
        count: u64,
    },
    /// The ids are there, but the map of them was refused.
    #[error("{message}")]
    Refused {
        /// What refused it, and why.
        message: String,
    },
}

/// Why the process could not enter a user namespace. Each is a matter of how the machine or the account is set up.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The kernel moves single-threaded processes only.
    #[error("the process has {threads} threads; the sandbox must be entered before any thread is started")]
    Threads {
        /// How many there are.
        threads: usize,
    },
    /// The kernel, or what guards it, forbids user namespaces.
    #[error("this machine refuses {what} ({source}): {advice}")]
    Forbidden {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
        /// The setting in the way, and how to change it.
        advice: String,
    },
    /// The map of ids was refused.
    #[error("the map of user and group ids was refused: {message}")]
    MapRefused {
        /// What refused it, and why.
        message: String,
    },
    /// There is one id only, and no process can be had that keeps the owners.
    #[error(
        "{lack}, and the owners of files cannot be kept without: {source}. As root, install the package `uidmap` and run \
         usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER; or run as root"
    )]
    NoKeeper {
        /// Why there are no other ids.
        lack: Lack,
        /// The kernel's answer to a filter of system calls that hands them over (Linux 5.14), or to a look into another
        /// process of ours.
        source: io::Error,
    },
    /// A system call failed that does not fail on a machine that is well.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Moves the process into a user namespace of its own in which it is root over the ids 0 to 65535 at least; or, where
/// it is given one id only, in which it and all that it starts believe so ([`Identity::Pretended`]).
///
/// Call it first in `main`: it fails when the process has more than one thread. A second call answers what the
/// first did. Supplementary groups stay, so what the user may open (`/dev/kvm`) stays open to programs of the host.
/// When it pretends, what returns is a child of the process that called it, which hands signals on and ends as the
/// child does.
pub fn enter() -> Result<Identity, EnterError> {
    if let Some(identity) = ENTERED.get() {
        return Ok(identity.clone());
    }
    let threads = fs::read_dir("/proc/self/task").map_err(system("look at /proc/self/task"))?.count();
    if threads != 1 {
        return Err(EnterError::Threads { threads });
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let root = uid == 0;
    let maps = if root { Maps::identity()? } else { Maps::subordinate() };
    let lack = match maps {
        Ok(maps) => {
            let lent = maps.are_lent();
            let helper = Helper::start(maps)?;
            unshare()?;
            match helper.map() {
                // A set-user-id program that is none, on a file system without them.
                Err(EnterError::MapRefused { message }) if lent => Some(Lack::Refused { message }),
                result => result.map(|()| None)?,
            }
        }
        Err(lack) => {
            unshare()?;
            Some(lack)
        }
    };
    if lack.is_some() {
        map_one_id(uid, gid)?;
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .map_err(|errno| system("become group 0")(errno.into()))?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
        .map_err(|errno| system("become user 0")(errno.into()))?;
    try_namespaces()?;
    let identity = match lack {
        Some(lack) => {
            owners::keep().map_err(|source| EnterError::NoKeeper { lack: lack.clone(), source })?;
            Identity::Pretended { uid, gid, lack }
        }
        None if root => Identity::AlreadyRoot,
        None => Identity::Subordinate { uid, gid },
    };
    Ok(ENTERED.get_or_init(|| identity).clone())
}

fn unshare() -> Result<(), EnterError> {
    sys::unshare(libc::CLONE_NEWUSER).map_err(|error| forbidden("a user namespace", error))
}

/// Maps 0 to the id that this process has, in the namespace that it has just made; what is mapped already stays so.
fn map_one_id(uid: u32, gid: u32) -> Result<(), EnterError> {
    let write = |file: &str, text: String| {
        let path = format!("/proc/self/{file}");
        if !fs::read_to_string(&path).unwrap_or_default().trim().is_empty() {
            return Ok(());
        }
        fs::write(&path, text)
            .map_err(|error| EnterError::MapRefused { message: format!("writing {path}: {error}") })
    };
    // Groups cannot be mapped before setgroups is given up; where it is already, writing it again changes nothing.
    let _ = fs::write("/proc/self/setgroups", "deny");
    write("gid_map", format!("0 {gid} 1\n"))?;
    write("uid_map", format!("0 {uid} 1\n"))
}

/// Whether owners are kept by a process of ours.
pub(crate) fn pretended() -> bool {
    matches!(ENTERED.get(), Some(Identity::Pretended { .. }))
}

/// Whether [`enter`] has succeeded in this process.
pub(crate) fn entered() -> bool {
    ENTERED.get().is_some()
}

fn system(what: &'static str) -> impl Fn(io::Error) -> EnterError {
    move |source| EnterError::System { what, source }
}

fn forbidden(what: &'static str, source: io::Error) -> EnterError {
    EnterError::Forbidden { what, advice: advice(&source), source }
}

/// One sentence on which setting makes the kernel refuse, and what to do about it.
fn advice(error: &io::Error) -> String {
    let setting =
        |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    match error.raw_os_error() {
        Some(libc::ENOSPC) => format!(
            "the limit user.max_user_namespaces is {} (or the limit of nested ones is reached); as root, run: \
             sysctl user.max_user_namespaces=10000",
            setting("/proc/sys/user/max_user_namespaces")
        ),
        Some(libc::ENOSYS | libc::EINVAL) => {
            "the kernel was built without user namespaces (CONFIG_USER_NS); use another kernel".into()
        }
        _ if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" => {
            "the setting kernel.unprivileged_userns_clone is 0; as root, run: \
             sysctl kernel.unprivileged_userns_clone=1"
                .into()
        }
        _ if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" => {
            "AppArmor allows user namespaces to listed programs only; add a profile with `userns,` for bakehouse, \
             or as root, run: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
                .into()
        }
        _ if setting("/proc/self/status").lines().any(|line| line == "Seccomp:\t2") => {
            "a seccomp filter of the container is in the way; start the container with \
             --security-opt seccomp=unconfined, or with a profile that allows unshare, clone, mount and pivot_root"
                .into()
        }
        _ => "no setting that is known explains it; a chroot or a security module may forbid it. Run bakehouse outside \
              of the chroot or container"
            .into(),
    }
}

/// Sees whether the other kinds of namespace can be had, in a child, so that what is wrong is said once and early.
fn try_namespaces() -> Result<(), EnterError> {
    let Some(child) = sys::fork().map_err(system("start a process"))? else {
        let result = sys::unshare(sys::NAMESPACES);
        sys::exit(result.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0))
    };
    match wait_for(child)? {
        0 => Ok(()),
        errno => Err(forbidden(
            "mount, pid, ipc, uts, net and cgroup namespaces",
            io::Error::from_raw_os_error(errno),
        )),
    }
}

fn wait_for(child: i32) -> Result<i32, EnterError> {
    let status = rustix::io::retry_on_intr(|| waitpid(Pid::from_raw(child), WaitOptions::empty()))
        .map_err(|errno| system("wait for a helper process")(errno.into()))?;
    Ok(status.and_then(|(_, status)| status.exit_status()).unwrap_or(libc::ECHILD))
}

/// A range of ids: `count` of them, from `inside` in the new namespace and from `outside` in the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

/// What is written into the new namespace, and how.
enum Maps {
    /// By root, straight into the files of /proc.
    Direct { uids: Vec<Range>, gids: Vec<Range> },
    /// By the set-user-id programs.
    Helped { newuidmap: PathBuf, newgidmap: PathBuf, uids: Vec<Range>, gids: Vec<Range> },
}

impl Maps {
    /// All ids that the present namespace has; whether those are enough.
    fn identity() -> Result<Result<Self, Lack>, EnterError> {
        let read = |file: &'static str| {
            let text = fs::read_to_string(file).map_err(system("read the present map of ids"))?;
            let ranges = identity_of(&text);
            let count = ranges
                .iter()
                .map(|range| {
                    u64::from(range.inside.saturating_add(range.count).min(IDS).saturating_sub(range.inside))
                })
                .sum();
            Ok(if count < u64::from(IDS) { Err(Lack::Ids { file, count }) } else { Ok(ranges) })
        };
        Ok(match (read("/proc/self/uid_map")?, read("/proc/self/gid_map")?) {
            (Ok(uids), Ok(gids)) => Ok(Self::Direct { uids, gids }),
            (Err(lack), _) | (_, Err(lack)) => Err(lack),
        })
    }

    fn subordinate() -> Result<Self, Lack> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let name = sys::user_name(uid).map(|name| String::from_utf8_lossy(&name).into_owned());
        let newuidmap = find_program("newuidmap")?;
        let newgidmap = find_program("newgidmap")?;
        let ranges = |file: &'static str, own: u32| {
            let text = fs::read_to_string(file).unwrap_or_default();
            subordinate_of(&text, uid, name.as_deref(), own).map_err(|count| Lack::SubordinateIds {
                file,
                user: name.clone().unwrap_or_else(|| uid.to_string()),
                count,
            })
        };
        let (uids, gids) = (ranges("/etc/subuid", uid)?, ranges("/etc/subgid", gid)?);
        Ok(Self::Helped { newuidmap, newgidmap, uids, gids })
    }

    /// Whether they are lent by the host's programs.
    fn are_lent(&self) -> bool {
        matches!(self, Self::Helped { .. })
    }

    /// Maps the ids of the process `pid`; says what was wrong otherwise.
    fn write(&self, pid: u32) -> Result<(), String> {
        match self {
            Self::Direct { uids, gids } => {
                for (file, ranges) in [("gid_map", gids), ("uid_map", uids)] {
                    let path = format!("/proc/{pid}/{file}");
                    let mut text = String::new();
                    for range in ranges {
                        let _ = writeln!(text, "{} {} {}", range.inside, range.outside, range.count);
                    }
                    fs::write(&path, text).map_err(|error| {
                        format!(
                            "writing {path}: {error}; the process needs CAP_SETUID, CAP_SETGID and CAP_SETFCAP \
                             (a container may have dropped them)"
                        )
                    })?;
                }
                Ok(())
            }
            Self::Helped { newuidmap, newgidmap, uids, gids } => {
                for (program, ranges) in [(newgidmap, gids), (newuidmap, uids)] {
                    let mut command = Command::new(program);
                    command.arg(pid.to_string());
                    for range in ranges {
                        command.args(
                            [range.inside, range.outside, range.count].map(|number| number.to_string()),
                        );
                    }
                    let output =
                        command.output().map_err(|error| format!("{}: {error}", program.display()))?;
                    if !output.status.success() {
                        let text = String::from_utf8_lossy(&output.stderr);
                        return Err(format!(
                            "{}: {} ({}); the program must be set-user-id root, on a file system without nosuid",
                            program.display(),
                            text.trim(),
                            output.status
                        ));
                    }
                }
                Ok(())
            }
        }
    }
}

/// The ids that a namespace has, mapped to themselves.
fn identity_of(uid_map: &str) -> Vec<Range> {
    let mut ranges: Vec<Range> = uid_map
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse);
            let (inside, _, count) = (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
            Some(Range { inside, outside: inside, count })
        })
        .collect();
    ranges.sort_by_key(|range| range.inside);
    ranges
}

/// The user's own id as 0, and the ids that a subuid(5) file gives it as 1 to 65535; else how many there were.
fn subordinate_of(file: &str, uid: u32, name: Option<&str>, own: u32) -> Result<Vec<Range>, u64> {
    let mut ranges = vec![Range { inside: 0, outside: own, count: 1 }];
    let (mut next, mut found) = (1, 0);
    for line in file.lines() {
        let mut fields = line.trim().split(':');
        let (Some(owner), Some(start), Some(count)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (Ok(start), Ok(count)) = (start.parse::<u32>(), count.parse::<u32>()) else { continue };
        if Some(owner) != name && owner.parse() != Ok(uid) {
            continue;
        }
        found += u64::from(count);
        let count = count.min(IDS - next).min(u32::MAX - start);
        if count > 0 {
            ranges.push(Range { inside: next, outside: start, count });
            next += count;
        }
    }
    if next == IDS { Ok(ranges) } else { Err(found) }
}

fn find_program(program: &'static str) -> Result<PathBuf, Lack> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/bin", "/bin"].map(PathBuf::from));
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|file| Path::is_file(file))
        .ok_or(Lack::Program { program })
}

/// A process that stays in the present namespace, because only from there can all ids be mapped.
struct Helper {
    pid: i32,
    go: fs::File,
    done: fs::File,
}

impl Helper {
    fn start(maps: Maps) -> Result<Self, EnterError> {
        let pipe = || -> Result<(fs::File, fs::File), EnterError> {
            let (read, write): (OwnedFd, OwnedFd) =
                pipe_with(PipeFlags::CLOEXEC).map_err(|errno| system("make a pipe")(errno.into()))?;
            Ok((read.into(), write.into()))
        };
        let ((mut wait, go), (done, mut answer)) = (pipe()?, pipe()?);
        let target = std::process::id();
        match sys::fork().map_err(system("start a process"))? {
            Some(pid) => Ok(Self { pid, go, done }),
            None => {
                drop((go, done));
                let mut byte = [0];
                if wait.read_exact(&mut byte).is_ok() {
                    let message = maps.write(target).err().unwrap_or_default();
                    // When the parent is gone, nobody is left to be told.
                    let _ = answer.write_all(message.as_bytes());
                }
                sys::exit(0)
            }
        }
    }

    /// Has the ids mapped, now that this process is in its new namespace.
    fn map(mut self) -> Result<(), EnterError> {
        let mut message = String::new();
        self.go
            .write_all(b"m")
            .and_then(|()| self.done.read_to_string(&mut message))
            .map_err(system("talk to the helper process"))?;
        wait_for(self.pid)?;
        if message.is_empty() { Ok(()) } else { Err(EnterError::MapRefused { message }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_maps_to_itself_in_order() {
        let ranges = identity_of("      1001     101000      64535\n         0       1000          1\n");
        assert_eq!(
            ranges,
            [Range { inside: 0, outside: 0, count: 1 }, Range { inside: 1001, outside: 1001, count: 64535 },]
        );
    }

    #[test]
    fn subordinate_ids_by_name_or_number_fill_1_to_65535() {
        let whole = "other:1:70000\nme:100000:65536\n";
        let expected = [
            Range { inside: 0, outside: 1000, count: 1 },
            Range { inside: 1, outside: 100_000, count: 65_535 },
        ];
        assert_eq!(subordinate_of(whole, 1000, Some("me"), 1000).unwrap(), expected);
        assert_eq!(subordinate_of("1000:100000:65535", 1000, None, 1000).unwrap(), expected);
        let split = subordinate_of("me:5000:1000\nme:200000:65536", 1000, Some("me"), 100).unwrap();
        assert_eq!(
            split,
            [
                Range { inside: 0, outside: 100, count: 1 },
                Range { inside: 1, outside: 5000, count: 1000 },
                Range { inside: 1001, outside: 200_000, count: 64_535 },
            ]
        );
    }

    #[test]
    fn too_few_subordinate_ids_are_counted() {
        assert_eq!(subordinate_of("me:5000:1000\nyou:1:70000\nrubbish\n", 1000, Some("me"), 1000), Err(1000));
        assert_eq!(subordinate_of("", 1000, Some("me"), 1000), Err(0));
    }

    #[test]
    fn a_process_with_threads_cannot_enter() {
        let started = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| started.wait());
            assert!(matches!(enter(), Err(EnterError::Threads { threads }) if threads >= 2));
            started.wait();
        });
    }
}
