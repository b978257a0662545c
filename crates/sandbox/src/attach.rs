//! Programs that somebody talks to. What they read and write goes through a pseudo-terminal or pipes of their own, so
//! that neither the host's terminal nor a file of the host is ever open in a sandbox.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::sandbox::{Exit, Sandbox, SandboxError, system};

/// How often the size of a person's window is looked at.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

impl Sandbox {
    /// Runs a program that somebody talks to: it reads this process's standard input, and what it writes comes out of
    /// this process's standard output and standard error. When input and output are terminals it has a terminal of its
    /// own, with job control and the window's size, and the person's terminal is raw meanwhile. Otherwise as
    /// [`Sandbox::run`].
    pub fn attach(&self, argv: &[impl AsRef<OsStr>]) -> Result<Exit, SandboxError> {
        let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
        let (input, output, errors) = (input.as_fd(), output.as_fd(), errors.as_fd());
        if isatty(input) && isatty(output) {
            self.attach_terminal(argv, input, output)
        } else {
            self.attach_pipes(argv, input, output, errors)
        }
    }

    fn attach_terminal(
        &self,
        argv: &[impl AsRef<OsStr>],
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
    ) -> Result<Exit, SandboxError> {
        let cannot = || system("make a terminal for the program");
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(cannot())?;
        grantpt(&master).and_then(|()| unlockpt(&master)).map_err(cannot())?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags).map_err(cannot())?;
        self.own(&slave)?;
        let mut size = None;
        fit(input, &master, &mut size);
        let raw = Raw::new(input).map_err(cannot())?;
        let reader = rustix::io::fcntl_dupfd_cloexec(&master, 3).map_err(cannot())?;
        let outside = Relay {
            input: Flow::new(input, master)?,
            outputs: vec![Flow::out(reader, output)?],
            window: Some((input, size)),
        };
        let exit = self.session(argv, [slave.as_fd(), slave.as_fd(), slave.as_fd()], true, outside);
        drop(raw);
        exit
    }

    fn attach_pipes(
        &self,
        argv: &[impl AsRef<OsStr>],
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        errors: BorrowedFd<'_>,
    ) -> Result<Exit, SandboxError> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(system("make a pipe"));
        let ((inner_input, to), (from, inner_output), (from_errors, inner_errors)) =
            (pipe()?, pipe()?, pipe()?);
        for end in [&inner_input, &inner_output, &inner_errors] {
            self.own(end)?;
        }
        let outside = Relay {
            input: Flow::new(input, to)?,
            outputs: vec![Flow::out(from, output)?, Flow::out(from_errors, errors)?],
            window: None,
        };
        let inside = [inner_input.as_fd(), inner_output.as_fd(), inner_errors.as_fd()];
        self.session(argv, inside, false, outside)
    }

    fn session(
        &self,
        argv: &[impl AsRef<OsStr>],
        inside: [BorrowedFd<'_>; 3],
        terminal: bool,
        mut relay: Relay<'_>,
    ) -> Result<Exit, SandboxError> {
        self.execute(argv, inside, terminal, |process| {
            relay.run(process).map_err(system("hand on what the program reads and writes"))
        })
    }
}

/// The modes of the terminal that is this process's standard input, if that is one.
#[derive(Clone, Debug)]
pub struct TerminalModes(Option<Termios>);

impl TerminalModes {
    /// As they are now.
    pub fn now() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }

    /// Makes them so again, where a process that was killed in [`Sandbox::attach`] could not.
    pub fn restore(&self) {
        // A job in the background would be stopped for it; whoever has the terminal then sees to its modes.
        let is_ours = || tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp());
        if let Some(modes) = self.0.as_ref().filter(|_| is_ours()) {
            // A terminal that has gone needs no mending.
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, modes);
        }
    }
}

/// A terminal that hands on each key as it is pressed, until this is dropped.
struct Raw<'fd> {
    terminal: BorrowedFd<'fd>,
    before: Termios,
}

impl<'fd> Raw<'fd> {
    fn new(terminal: BorrowedFd<'fd>) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Drain, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // A terminal that has gone needs no mending.
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// Gives the inner terminal the size of the person's window.
fn fit(window: BorrowedFd<'_>, terminal: impl AsFd, known: &mut Option<(u16, u16)>) {
    if let Ok(size) = tcgetwinsize(window)
        && *known != Some((size.ws_row, size.ws_col))
        && tcsetwinsize(terminal, size).is_ok()
    {
        *known = Some((size.ws_row, size.ws_col));
    }
}

/// One direction: what was read and not yet written.
struct Flow<From, To> {
    from: Option<From>,
    to: Option<To>,
    waiting: Vec<u8>,
}

impl<'fd> Flow<BorrowedFd<'fd>, OwnedFd> {
    /// Into the sandbox.
    fn new(from: BorrowedFd<'fd>, to: OwnedFd) -> Result<Self, SandboxError> {
        unblocked(&to)?;
        Ok(Self { from: Some(from), to: Some(to), waiting: Vec::new() })
    }
}

impl<'fd> Flow<OwnedFd, BorrowedFd<'fd>> {
    /// Out of the sandbox.
    fn out(from: OwnedFd, to: BorrowedFd<'fd>) -> Result<Self, SandboxError> {
        unblocked(&from)?;
        Ok(Self { from: Some(from), to: Some(to), waiting: Vec::new() })
    }
}

fn unblocked(descriptor: &OwnedFd) -> Result<(), SandboxError> {
    rustix::fs::fcntl_setfl(descriptor, OFlags::NONBLOCK).map_err(system("set up a pipe"))
}

impl<From: AsFd, To: AsFd> Flow<From, To> {
    /// Reads once; an end of input, or a terminal that has gone, ends this direction.
    fn read(&mut self) -> rustix::io::Result<()> {
        let Some(from) = &self.from else { return Ok(()) };
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(from, &mut buffer) {
            Ok(0) | Err(Errno::IO) => self.from = None,
            Ok(length) => self.waiting.extend_from_slice(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Writes what it can. When nobody reads any more, nothing more is read either.
    fn write(&mut self) -> rustix::io::Result<()> {
        while !self.waiting.is_empty() {
            let Some(to) = &self.to else { break };
            match rustix::io::write(to, &self.waiting) {
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::IO) => {
                    (self.from, self.to) = (None, None);
                    self.waiting.clear();
                }
                Err(errno) => return Err(errno),
            }
        }
        if self.from.is_none() && self.waiting.is_empty() {
            self.to = None;
        }
        Ok(())
    }
}

/// All directions of a session.
struct Relay<'fd> {
    input: Flow<BorrowedFd<'fd>, OwnedFd>,
    outputs: Vec<Flow<OwnedFd, BorrowedFd<'fd>>>,
    /// A person's window, and its size as the inner terminal knows it.
    window: Option<(BorrowedFd<'fd>, Option<(u16, u16)>)>,
}

impl Relay<'_> {
    /// Hands on until the first process of the sandbox has ended, and then what is left of its output.
    fn run(&mut self, process: BorrowedFd<'_>) -> rustix::io::Result<()> {
        loop {
            let mut events = vec![PollFd::from_borrowed_fd(process, PollFlags::IN)];
            let reading = self.input.from.filter(|_| self.input.waiting.is_empty());
            let writing = self.input.to.as_ref().filter(|_| !self.input.waiting.is_empty());
            let input = reading.map(|from| PollFd::from_borrowed_fd(from, PollFlags::IN));
            let input = input.or(writing.map(|to| PollFd::new(to, PollFlags::OUT)));
            let has_input = input.is_some();
            events.extend(input);
            let open = self.outputs.iter().filter_map(|flow| flow.from.as_ref());
            events.extend(open.map(|from| PollFd::new(from, PollFlags::IN)));
            match poll(&mut events, self.window.is_some().then_some(&LOOK)) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            let ended = events[0].revents().contains(PollFlags::IN);
            let talked = has_input && !events[1].revents().is_empty();
            drop(events);
            if talked && self.input.waiting.is_empty() {
                self.input.read()?;
            }
            self.input.write()?;
            for flow in &mut self.outputs {
                loop {
                    flow.read()?;
                    if flow.waiting.is_empty() {
                        break;
                    }
                    flow.write()?;
                }
            }
            if ended {
                return Ok(());
            }
            if let (Some((window, size)), Some(terminal)) = (&mut self.window, &self.input.to) {
                fit(*window, terminal, size);
            }
        }
    }
}
