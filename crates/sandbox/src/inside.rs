//! What runs in the forked processes: the sandbox's first process, and the program's until it is executed. Nothing
//! here allocates, locks or panics.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};

use crate::steps::Step;
use crate::sys::{self, Answer, CommandLine, StringArray};

/// All that the forked processes need, ready made.
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// As many empty places as the steps use slots.
    pub(crate) held: Vec<Option<OwnedFd>>,
    /// The slot that is held for as long as the sandbox lives.
    pub(crate) lasting: Option<usize>,
    pub(crate) filter: Filter,
    pub(crate) program: Program,
    /// Where the baker's command line lies in memory, which everybody in the sandbox could read otherwise.
    pub(crate) command_line: Option<CommandLine>,
}

/// The two forms of the seccomp filter.
pub(crate) struct Filter {
    /// Hands uname over to the first process. Not where a keeper of owners listens to all processes: there can be one
    /// listener only, and so it answers uname too.
    pub(crate) listening: Option<Vec<libc::sock_filter>>,
    /// Leaves it to the kernel, where that cannot be had.
    pub(crate) plain: Vec<libc::sock_filter>,
    /// What uname answers: six fields of 65 bytes.
    pub(crate) uname: [u8; UNAME_LENGTH],
}

pub(crate) const UNAME_FIELD: usize = 65;
pub(crate) const UNAME_LENGTH: usize = 6 * UNAME_FIELD;

/// The program to execute.
pub(crate) struct Program {
    /// Where it may be; the first that can be executed is.
    pub(crate) candidates: Vec<CString>,
    pub(crate) arguments: StringArray,
    pub(crate) environment: StringArray,
    pub(crate) work_folder: CString,
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) capabilities: CapabilitySet,
    /// Whether its standard input is a terminal that becomes its session's.
    pub(crate) terminal: bool,
}

/// Standard input, output and error, and where [`Report`]s go.
pub(crate) struct Descriptors<'fd> {
    pub(crate) input: BorrowedFd<'fd>,
    pub(crate) output: BorrowedFd<'fd>,
    pub(crate) errors: BorrowedFd<'fd>,
    pub(crate) reports: BorrowedFd<'fd>,
}

/// What the sandbox's processes tell the baker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The step of this number failed.
    Step(u32, i32),
    /// Something else failed on the way to the program.
    Stage(Stage, i32),
    /// The program could not be executed.
    Execute(i32),
    /// The program has ended, with this wait status.
    Ended(i32),
    /// uname answers what the kernel says.
    RealUname(i32),
    /// So many processes ran at once that the sandbox was ended.
    TooMany(u32),
}

/// More processes at once end the sandbox: no package needs a hundredth, and a fork bomb must not take the host along.
pub(crate) const MOST_PROCESSES: u32 = 4096;

/// How often they are counted.
const COUNT_EVERY: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// And after how many signals and calls at the latest.
const COUNT_ROUNDS: u32 = 64;

/// Where a [`Report::Stage`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Descriptors,
    Session,
    Limits,
    Filter,
    Fork,
    Capabilities,
    User,
    WorkFolder,
}

const STAGES: [Stage; 8] = [
    Stage::Descriptors,
    Stage::Session,
    Stage::Limits,
    Stage::Filter,
    Stage::Fork,
    Stage::Capabilities,
    Stage::User,
    Stage::WorkFolder,
];

impl Report {
    /// Its form in the pipe: a kind, a number, an errno or status, little-endian.
    pub(crate) const LENGTH: usize = 12;

    fn encode(self) -> [u8; Self::LENGTH] {
        let (kind, number, value) = match self {
            Report::Step(number, errno) => (0_u32, number, errno),
            Report::Stage(stage, errno) => (1, stage as u32, errno),
            Report::Execute(errno) => (2, 0, errno),
            Report::Ended(status) => (3, 0, status),
            Report::RealUname(errno) => (4, 0, errno),
            Report::TooMany(processes) => (5, processes, 0),
        };
        let mut bytes = [0; Self::LENGTH];
        let words = [kind.to_le_bytes(), number.to_le_bytes(), value.to_le_bytes()];
        for (place, byte) in bytes.iter_mut().zip(words.as_flattened()) {
            *place = *byte;
        }
        bytes
    }

    /// Reads it back.
    pub(crate) fn decode(bytes: &[u8; Self::LENGTH]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let value = word(8) as i32;
        Some(match word(0) {
            0 => Report::Step(word(4), value),
            1 => Report::Stage(*STAGES.get(word(4) as usize)?, value),
            2 => Report::Execute(value),
            3 => Report::Ended(value),
            4 => Report::RealUname(value),
            5 => Report::TooMany(word(4)),
            _ => return None,
        })
    }
}

fn report(report: Report) {
    // When nobody listens any more, there is nobody to tell that either.
    let _ = rustix::io::write(sys::kept(3), &report.encode());
}

fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Ends the process with a report unless the result is good.
fn must<T>(stage: Stage, result: std::io::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            report(Report::Stage(stage, errno(&error)));
            sys::exit(1)
        }
    }
}

/// Unwinding would run the baker's code in its copy; end instead.
struct NoUnwinding;

impl Drop for NoUnwinding {
    fn drop(&mut self) {
        sys::exit(1)
    }
}

/// The life of process 1: builds the sandbox, starts the program, answers uname, buries orphans, and takes all that
/// is left with it when the program has ended.
pub(crate) fn first_process(plan: &mut Plan, descriptors: &Descriptors<'_>) -> ! {
    let _guard = NoUnwinding;
    let kept = [descriptors.input, descriptors.output, descriptors.errors, descriptors.reports];
    if let Err(error) = sys::keep_only(kept) {
        let report = Report::Stage(Stage::Descriptors, errno(&error));
        let _ = rustix::io::write(descriptors.reports, &report.encode());
        sys::exit(1);
    }
    live_and_die_with_the_baker();
    rustix::process::umask(Mode::empty());
    for (number, step) in plan.steps.iter().enumerate() {
        if let Err(errno) = step.take(&mut plan.held) {
            report(Report::Step(number as u32, errno.raw_os_error()));
            sys::exit(1);
        }
    }
    for (slot, place) in plan.held.iter_mut().enumerate() {
        if plan.lasting != Some(slot) {
            *place = None;
        }
    }
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    limits();
    be_first_to_go();
    let ended = must(Stage::Session, sys::child_signals());
    if plan.filter.listening.is_none()
        && let Err(error) = sys::order_uname(&plan.filter.uname)
    {
        report(Report::RealUname(errno(&error)));
    }
    // From now on nobody may look into this process, which is a copy of the baker's memory.
    must(
        Stage::Session,
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Into::into),
    );
    must(Stage::Session, rustix::thread::set_name(c"init").map_err(Into::into));
    if let Some(command_line) = plan.command_line.take() {
        command_line.overwrite(b"init");
    }
    sys::fix_personality();
    let listener = install(&plan.filter);
    match must(Stage::Fork, sys::fork()) {
        None => {
            drop(listener);
            drop(ended);
            become_program(&plan.program, plan.filter.listening.is_none())
        }
        Some(program) => serve(program, &ended, listener.as_ref(), &plan.filter.uname),
    }
}

fn live_and_die_with_the_baker() {
    must(
        Stage::Session,
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into),
    );
    // The baker may have died before: then nobody reads the reports.
    let mut reports = [PollFd::from_borrowed_fd(sys::kept(3), PollFlags::empty())];
    let _ = poll(&mut reports, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }));
    if reports[0].revents().contains(PollFlags::ERR) {
        sys::exit(1);
    }
    must(Stage::Session, rustix::process::setsid().map_err(Into::into));
}

/// The same for everybody, where the host's hard limits allow it: programs that close or count all descriptors take
/// the same time and path everywhere, and no core is written.
fn limits() {
    for (resource, soft, hard) in [
        (Resource::Nofile, Some(1024), Some(4096)),
        (Resource::Core, Some(0), Some(0)),
        (Resource::Stack, Some(8 << 20), None),
        // The kernel holds this against ordinary users only; root's processes are counted by `serve`.
        (Resource::Nproc, Some(2 * MOST_PROCESSES as u64), Some(2 * MOST_PROCESSES as u64)),
    ] {
        let least = |wanted: Option<u64>, allowed: Option<u64>| match (wanted, allowed) {
            (Some(wanted), Some(allowed)) => Some(wanted.min(allowed)),
            (wanted, allowed) => wanted.or(allowed),
        };
        let most = rustix::process::getrlimit(resource).maximum;
        let maximum = least(hard, most);
        let limit = Rlimit { current: least(soft, maximum), maximum };
        must(Stage::Limits, rustix::process::setrlimit(resource, limit).map_err(Into::into));
    }
}

/// When the machine runs out of memory, what runs in here is ended before anything of the host's.
fn be_first_to_go() {
    if let Ok(file) =
        rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
    {
        // A host that does not let us has its own rules.
        let _ = rustix::io::write(&file, b"500");
    }
}

fn install(filter: &Filter) -> Option<OwnedFd> {
    if let Some(listening) = &filter.listening {
        match sys::install_filter(listening, true) {
            Ok(listener) => return listener,
            Err(error) => report(Report::RealUname(errno(&error))),
        }
    }
    must(Stage::Filter, sys::install_filter(&filter.plain, false))
}

fn become_program(program: &Program, pretended: bool) -> ! {
    let _ = rustix::process::setsid();
    if program.terminal {
        must(Stage::Session, rustix::process::ioctl_tiocsctty(sys::kept(0)).map_err(Into::into));
    }
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if program.capabilities.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel knows no capability of this number, nor of a higher one.
            Err(Errno::INVAL) => break,
            result => must(Stage::Capabilities, result.map_err(Into::into)),
        }
    }
    let (user, group) = (Uid::from_raw(program.user), Gid::from_raw(program.group));
    must(Stage::User, rustix::thread::set_thread_groups(&[]).map_err(Into::into));
    must(Stage::User, rustix::thread::set_thread_res_gid(group, group, group).map_err(Into::into));
    must(Stage::User, rustix::thread::set_thread_res_uid(user, user, user).map_err(Into::into));
    if program.user != 0 && pretended {
        // To the kernel it is root, to whom it would give capabilities again.
        must(Stage::Capabilities, sys::no_power_for_root());
    }
    let kept = if program.user == 0 { program.capabilities } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    must(Stage::Capabilities, rustix::thread::set_capabilities(None, sets).map_err(Into::into));
    must(Stage::WorkFolder, rustix::process::chdir(program.work_folder.as_c_str()).map_err(Into::into));
    sys::default_signals();
    let mut answer = libc::ENOENT;
    for candidate in &program.candidates {
        match errno(&sys::execute(candidate, &program.arguments, &program.environment)) {
            libc::ENOENT | libc::ENOTDIR => {}
            // Keep looking, as a shell does, but remember that something of that name was there.
            libc::EACCES => answer = libc::EACCES,
            other => {
                answer = other;
                break;
            }
        }
    }
    report(Report::Execute(answer));
    sys::exit(127)
}

fn serve(program: i32, ended: &OwnedFd, listener: Option<&OwnedFd>, uname: &[u8]) -> ! {
    let mut told = false;
    let mut rounds = 0_u32;
    loop {
        let mut events = [
            PollFd::new(ended, PollFlags::IN),
            // Without a listener, the same descriptor twice.
            PollFd::new(listener.unwrap_or(ended), PollFlags::IN),
        ];
        let happened = match poll(&mut events, Some(&COUNT_EVERY)) {
            Ok(happened) => happened,
            Err(Errno::INTR) => 1,
            Err(_) => sys::exit(1),
        };
        // A crowd may be silent, or make so much noise that no silence comes.
        rounds = rounds.wrapping_add(1);
        if happened == 0 || rounds.is_multiple_of(COUNT_ROUNDS) {
            let processes = count_processes();
            if processes > MOST_PROCESSES {
                report(Report::TooMany(processes));
                sys::exit(1);
            }
        }
        if let Some(listener) = listener
            && events[1].revents().contains(PollFlags::IN)
        {
            answer_uname(listener, uname, &mut told);
        }
        if events[0].revents().contains(PollFlags::IN) {
            let mut drained = [0_u8; 128];
            let _ = rustix::io::read(ended, &mut drained);
            while let Some((pid, status)) = sys::reap() {
                if pid == program {
                    report(Report::Ended(status));
                    sys::exit(0);
                }
            }
        }
    }
}

/// How many processes there are in here; counting ends soon after the limit.
fn count_processes() -> u32 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(c"/proc", flags, Mode::empty()) else { return 0 };
    let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
    let mut entries = rustix::fs::RawDir::new(folder, &mut buffer);
    let mut processes = 0;
    while let Some(Ok(entry)) = entries.next() {
        let number = entry.file_name().to_bytes().iter().all(u8::is_ascii_digit);
        processes += u32::from(number);
        if processes > MOST_PROCESSES {
            break;
        }
    }
    processes
}

fn answer_uname(listener: impl AsFd, uname: &[u8], told: &mut bool) {
    let Ok(call) = sys::receive_call(&listener) else { return };
    // The caller may have died and its id been given to another: look before and the kernel looks again on answering.
    if !sys::still_held(&listener, &call) {
        return;
    }
    let answer = match sys::write_memory(call.pid, call.arguments[0], uname) {
        Ok(()) => Answer::Value(0),
        Err(error) if errno(&error) == libc::EFAULT => Answer::Errno(libc::EFAULT),
        Err(error) => {
            if !*told {
                report(Report::RealUname(errno(&error)));
                *told = true;
            }
            Answer::Continue
        }
    };
    sys::answer_call(&listener, &call, &answer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_pipe() {
        let stages = STAGES.map(|stage| Report::Stage(stage, -7));
        let others = [
            Report::Step(99, 1),
            Report::Execute(2),
            Report::Ended(0x7f00),
            Report::RealUname(libc::EBUSY),
            Report::TooMany(5000),
        ];
        for report in stages.into_iter().chain(others) {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        assert_eq!(Report::decode(&[9; Report::LENGTH]), None);
    }
}
