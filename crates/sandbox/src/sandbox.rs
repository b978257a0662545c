use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::mount::MountFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use rustix::thread::CapabilitySet;

use crate::filter::{self, Rules};
use crate::identity;
use crate::inside::{self, Descriptors, Filter, Plan, Program, Report, Stage, UNAME_FIELD, UNAME_LENGTH};
use crate::mount_points::{Kind, MountPoints};
use crate::proc::{self, Cover, Text};
use crate::steps::{HANDLER_DESCRIPTOR, Step};
use crate::sys::{self, Fork, StringArray};

/// The kernel release that programs see unless the builder says otherwise: one that C libraries of the last years
/// take, and that no host has.
pub const DEFAULT_KERNEL_RELEASE: &str = "6.1.0-bakehouse";

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the program reads.
#[derive(Clone, Debug, Default)]
pub enum Input {
    /// Nothing: `/dev/null`.
    #[default]
    Null,
    /// These bytes, as a file.
    Bytes(Vec<u8>),
}

/// Programs of another architecture, and who starts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What uname calls the machine: `aarch64`.
    pub machine: &'static str,
    /// The `e_machine` of its ELF files: 183. They are 64 bits wide and little-endian.
    pub elf_machine: u16,
    /// A static program of the host's architecture. The kernel starts it as `handler PATH ARGV0 ARGUMENT…`, with the
    /// program open at AT_EXECFD. One handler for each machine: a process that gives two gets either.
    pub handler: &'static [u8],
}

impl Foreign {
    /// The line that registers it: 64-bit little-endian programs and static-pie ones of this machine.
    fn registration(&self) -> Vec<u8> {
        let machine = self.elf_machine.to_le_bytes();
        let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        // Identification without ABI and its version, then ET_EXEC or ET_DYN (2 or 3), then the machine.
        let mut magic = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\0\0";
        let mut mask = [0xff; 20];
        (magic[18], magic[19]) = (machine[0], machine[1]);
        (mask[7], mask[8]) = (0, 0);
        mask[16] = 0xfe;
        format!(
            ":bakehouse-{}:M::{}:{}:/proc/self/fd/{HANDLER_DESCRIPTOR}:POCF",
            self.machine,
            escaped(&magic),
            escaped(&mask)
        )
        .into_bytes()
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What the sandbox could not hide on this machine, one sentence each; empty when all was as promised.
    pub notes: Vec<String>,
}

impl Exit {
    /// Whether it ended with exit code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code @ 126), _) => write!(f, "exit code {code} (in a shell: a command is no program)"),
            (Some(code @ 127), _) => write!(f, "exit code {code} (in a shell: there is no such command)"),
            (Some(code @ 129..160), _) => match signal_name(code - 128) {
                Some(name) => write!(f, "exit code {code} (in a shell: {name} ended a command)"),
                None => write!(f, "exit code {code}"),
            },
            (Some(code), _) => write!(f, "exit code {code}"),
            (_, Some(signal)) => match signal_name(signal) {
                Some(name) => write!(f, "killed by signal {signal} ({name})"),
                None => write!(f, "killed by signal {signal}"),
            },
            _ => write!(f, "ended without a status"),
        }
    }
}

/// The name of a signal that ends programs: numbers that are the same on every architecture we know.
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL, as when memory runs out",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// Why a program could not be run; how a program itself ended is an [`Exit`].
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// [`crate::enter`] was not called, or failed.
    #[error("the process has not entered its user namespace: call sandbox::enter() first in main")]
    NotEntered,
    /// No program was named.
    #[error("no program was named")]
    NoProgram,
    /// The root is not a folder that can be opened, or is the host's own root.
    #[error("{} cannot be the root of a sandbox: {source}", path.display())]
    Root {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A path inside is not absolute, has `..` or a NUL byte in it, or is not where the call wants it.
    #[error("the path {path:?} cannot be used inside the sandbox: {reason}")]
    BadPath {
        /// The path.
        path: OsString,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An argument, a variable or a name has a NUL byte in it or is too long.
    #[error("{what} cannot be passed to a program: {reason}")]
    BadText {
        /// What it is.
        what: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What is to be bound into the sandbox is not there.
    #[error("cannot bind {} into the sandbox: {source}", path.display())]
    Bind {
        /// The path outside.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A mount point is missing in the root and could not be made.
    #[error("cannot make the mount point {} in the root: {source}", path.display())]
    MountPoint {
        /// The path inside.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a step on the way into the sandbox.
    #[error("the sandbox could not {step}: {source}{advice}")]
    SetUp {
        /// What was to be done.
        step: String,
        /// The kernel's answer.
        source: io::Error,
        /// What to do about it, when that is known.
        advice: &'static str,
    },
    /// The program is not there, or is nothing that can be executed.
    #[error("cannot execute {program:?} in the sandbox: {source}")]
    Execute {
        /// The program, as it was named.
        program: OsString,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The sandbox was killed from outside.
    #[error("the sandbox was killed from outside before its program had ended")]
    Lost,
    /// What the program started was too much.
    #[error("{program:?} was ended: it had started more than {most} processes, which ran all at once")]
    TooManyProcesses {
        /// The program, as it was named.
        program: OsString,
        /// How many may run at once.
        most: u32,
    },
    /// A system call of the baker failed.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |source| SandboxError::System { what, source: source.into() }
}

#[derive(Clone, Debug)]
struct Bind {
    host: PathBuf,
    inside: PathBuf,
    read_only: bool,
}

#[derive(Clone, Debug)]
struct Hidden {
    inside: PathBuf,
    bytes: Vec<u8>,
    mode: u32,
}

/// A root folder and how programs see the world in it. Nothing happens before [`Sandbox::run`], and each run has
/// namespaces of its own: what stays between two runs is what was written into the root and the writable binds.
#[derive(Clone, Debug)]
pub struct Sandbox {
    root: PathBuf,
    binds: Vec<Bind>,
    hidden: Vec<Hidden>,
    device_links: Vec<(PathBuf, PathBuf)>,
    environment: BTreeMap<OsString, OsString>,
    host_name: String,
    kernel_release: String,
    suppress_sync: bool,
    may_mount: bool,
    foreign: Option<Foreign>,
    work_folder: PathBuf,
    user: u32,
    group: u32,
}

impl Sandbox {
    /// A sandbox in a root folder. Programs run as root, in `/`, with PATH, HOME, LC_ALL and TERM in their
    /// environment.
    pub fn new(root: &Path) -> Self {
        let environment =
            [("PATH", DEFAULT_PATH), ("HOME", "/root"), ("LC_ALL", "C.UTF-8"), ("TERM", "dumb")];
        Self {
            root: root.to_owned(),
            binds: Vec::new(),
            hidden: Vec::new(),
            device_links: Vec::new(),
            environment: environment.map(|(key, value)| (key.into(), value.into())).into(),
            host_name: "localhost".into(),
            kernel_release: DEFAULT_KERNEL_RELEASE.into(),
            suppress_sync: true,
            may_mount: false,
            foreign: None,
            work_folder: "/".into(),
            user: 0,
            group: 0,
        }
    }

    /// Shows a file or folder of the host at `inside`, with all that is mounted below it. A mount point that is
    /// missing is made, and taken away after the run; one below an earlier bind must be there already. Device nodes work only when they are bound themselves.
    #[must_use]
    pub fn bind(mut self, host: &Path, inside: &str, read_only: bool) -> Self {
        self.binds.push(Bind { host: host.to_owned(), inside: inside.into(), read_only });
        self
    }

    /// Lays a read-only file over the one at `inside` for the time of a run; the file itself is neither read nor
    /// changed. While it lies there, the name cannot be renamed or removed. A name that is missing is made, and taken
    /// away after the run.
    #[must_use]
    pub fn hide_with(mut self, inside: &str, bytes: &[u8], mode: u32) -> Self {
        self.hidden.push(Hidden { inside: inside.into(), bytes: bytes.to_owned(), mode });
        self
    }

    /// A symbolic link in the private `/dev`, as `/dev/disk/by-uuid/…`.
    #[must_use]
    pub fn device_link(mut self, inside: &str, target: &str) -> Self {
        self.device_links.push((inside.into(), target.into()));
        self
    }

    /// Sets a variable of the program's environment.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(key.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Empties the program's environment. Nothing of the baker's own is ever in it.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.environment.clear();
        self
    }

    /// The machine's name; `localhost` unless set. At most 64 bytes.
    #[must_use]
    pub fn hostname(mut self, name: &str) -> Self {
        self.host_name = name.into();
        self
    }

    /// The kernel release that uname and /proc tell; [`DEFAULT_KERNEL_RELEASE`] unless set. At most 64 bytes.
    #[must_use]
    pub fn kernel_release(mut self, release: &str) -> Self {
        self.kernel_release = release.into();
        self
    }

    /// Whether fsync and its like succeed at once without writing anything to the disk. They do unless this says
    /// no: a build that is interrupted is begun anew.
    #[must_use]
    pub fn suppress_sync(mut self, suppress: bool) -> Self {
        self.suppress_sync = suppress;
        self
    }

    /// Whether programs may mount, within the sandbox, and make user namespaces. They may not unless this says so:
    /// with it they can also take away what covers the host's entries of /proc.
    #[must_use]
    pub fn may_mount(mut self, may: bool) -> Self {
        self.may_mount = may;
        self
    }

    /// Lets programs of another architecture run, by a handler that is given with it. Needs Linux 6.7.
    #[must_use]
    pub fn foreign(mut self, foreign: Foreign) -> Self {
        self.foreign = Some(foreign);
        self
    }

    /// The folder inside in which the program starts; `/` unless set.
    #[must_use]
    pub fn workdir(mut self, inside: &str) -> Self {
        self.work_folder = inside.into();
        self
    }

    /// The user and group that the program runs as; root unless set. No other groups.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        (self.user, self.group) = (uid, gid);
        self
    }

    /// Runs a program and waits for its end; everything that it has left running is killed then. A program without a
    /// slash in its name is looked up in the sandbox's PATH. Its standard output and error come to `output`
    /// together, in the order in which they were written. Any number of threads may run sandboxes at once, each in
    /// a root of its own; several in one root where [`Sandbox::places`] holds their mount points.
    pub fn run(
        &self,
        argv: &[impl AsRef<OsStr>],
        stdin: Input,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Exit, SandboxError> {
        let input = open_input(stdin).map_err(system("prepare the standard input"))?;
        let (output_end, inner_output) = pipe_with(PipeFlags::CLOEXEC).map_err(system("make a pipe"))?;
        rustix::fs::fcntl_setfl(&output_end, OFlags::NONBLOCK).map_err(system("set up a pipe"))?;
        self.own(&inner_output)?;
        let ends = [input.as_fd(), inner_output.as_fd(), inner_output.as_fd()];
        self.execute(argv, ends, false, |process| listen(process, &output_end, output))
    }

    /// Makes the mount points that are missing in the root and holds them until the value is dropped. Without it a sandbox that
    /// ends takes away what it made, and with it what another one has mounted there.
    pub fn places(&self) -> Result<Places, SandboxError> {
        let (_, _, points) = self.steps()?;
        Ok(Places { _points: points })
    }

    /// Gives one end of a pipe or a terminal to the program's user, so that the program can open /dev/stdout.
    pub(crate) fn own(&self, end: &OwnedFd) -> Result<(), SandboxError> {
        if self.user != 0 {
            let owner = (rustix::fs::Uid::from_raw(self.user), rustix::fs::Gid::from_raw(self.group));
            rustix::fs::fchown(end, Some(owner.0), Some(owner.1))
                .map_err(system("give a pipe to the program's user"))?;
        }
        Ok(())
    }

    /// Runs a program with these as its standard input, output and errors; `attend` is called with the first process and
    /// returns when that has ended. With `terminal` the input becomes the terminal of the program's session.
    pub(crate) fn execute(
        &self,
        argv: &[impl AsRef<OsStr>],
        [input, output, errors]: [BorrowedFd<'_>; 3],
        terminal: bool,
        attend: impl FnOnce(BorrowedFd<'_>) -> Result<(), SandboxError>,
    ) -> Result<Exit, SandboxError> {
        if !identity::entered() {
            return Err(SandboxError::NotEntered);
        }
        let program = Program { terminal, ..self.program(argv)? };
        let (steps, slots, mount_points) = self.steps()?;
        let lasting = steps.iter().find_map(|step| match step {
            Step::ForeignPrograms { slot, .. } => Some(*slot),
            _ => None,
        });
        let rules =
            Rules { suppress_sync: self.suppress_sync, may_mount: self.may_mount, hand_over_uname: true };
        let mut plan = Plan {
            steps,
            held: (0..slots).map(|_| None).collect(),
            lasting,
            filter: Filter {
                listening: (!identity::pretended()).then(|| filter::program(rules)),
                plain: filter::program(Rules { hand_over_uname: false, ..rules }),
                uname: self.uname()?,
            },
            program,
            command_line: sys::command_line(),
        };
        let (reports_end, inner_reports) = pipe_with(PipeFlags::CLOEXEC).map_err(system("make a pipe"))?;
        let descriptors = Descriptors { input, output, errors, reports: inner_reports.as_fd() };
        let process = FirstProcess::start(&mut plan, &descriptors)?;
        drop(inner_reports);
        attend(process.process.as_fd())?;
        process.wait()?;
        // Its mounts are gone now, and so the mount points can go.
        drop(mount_points);
        let mut reports = Vec::new();
        File::from(reports_end).read_to_end(&mut reports).map_err(system("read what the sandbox reports"))?;
        self.judge(&plan.steps, &reports, argv[0].as_ref())
    }

    fn judge(&self, steps: &[Step], reports: &[u8], program: &OsStr) -> Result<Exit, SandboxError> {
        let mut exit = None;
        let mut notes = Vec::new();
        for report in reports.as_chunks().0.iter().filter_map(Report::decode) {
            match report {
                Report::Step(number, errno) => {
                    let step = steps.get(number as usize);
                    return Err(SandboxError::SetUp {
                        step: step.map(ToString::to_string).unwrap_or_default(),
                        source: io::Error::from_raw_os_error(errno),
                        advice: advice(step, errno),
                    });
                }
                Report::Stage(stage, errno) => {
                    return Err(SandboxError::SetUp {
                        step: match stage {
                            Stage::Descriptors => "set up its descriptors".into(),
                            Stage::Session => "start its session".into(),
                            Stage::Limits => "set its limits".into(),
                            Stage::Filter => "install its filter of system calls".into(),
                            Stage::Fork => "start a process".into(),
                            Stage::Capabilities => "drop its capabilities".into(),
                            Stage::User => format!("become user {} of group {}", self.user, self.group),
                            Stage::WorkFolder => format!("enter the folder {}", self.work_folder.display()),
                        },
                        source: io::Error::from_raw_os_error(errno),
                        advice: "",
                    });
                }
                Report::Execute(errno) => {
                    return Err(SandboxError::Execute {
                        program: program.to_owned(),
                        source: io::Error::from_raw_os_error(errno),
                    });
                }
                Report::TooMany(_) => {
                    return Err(SandboxError::TooManyProcesses {
                        program: program.to_owned(),
                        most: inside::MOST_PROCESSES,
                    });
                }
                Report::Ended(status) => {
                    exit = Some(if libc::WIFSIGNALED(status) {
                        (None, Some(libc::WTERMSIG(status)))
                    } else {
                        (Some(libc::WEXITSTATUS(status)), None)
                    });
                }
                Report::RealUname(errno) => notes.push(format!(
                    "programs in the sandbox saw the host's own kernel release: {}",
                    io::Error::from_raw_os_error(errno)
                )),
            }
        }
        let (code, signal) = exit.ok_or(SandboxError::Lost)?;
        Ok(Exit { code, signal, notes })
    }

    fn program(&self, argv: &[impl AsRef<OsStr>]) -> Result<Program, SandboxError> {
        let name = argv.first().ok_or(SandboxError::NoProgram)?.as_ref();
        let candidates = if name.as_bytes().contains(&b'/') {
            vec![text(name, "the program's name")?]
        } else {
            let path = self
                .environment
                .get(OsStr::new("PATH"))
                .map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
            path.as_bytes()
                .split(|byte| *byte == b':')
                .map(|folder| {
                    let folder = if folder.is_empty() { b"." } else { folder };
                    text(OsStr::from_bytes(&[folder, b"/", name.as_bytes()].concat()), "the program's name")
                })
                .collect::<Result<_, _>>()?
        };
        let arguments = argv
            .iter()
            .map(|argument| text(argument.as_ref(), &format!("the argument {:?}", argument.as_ref())))
            .collect::<Result<_, _>>()?;
        let environment = self
            .environment
            .iter()
            .map(|(key, value)| {
                let pair = [key.as_bytes(), b"=", value.as_bytes()].concat();
                text(OsStr::from_bytes(&pair), &format!("the variable {key:?}"))
            })
            .collect::<Result<_, _>>()?;
        let mut capabilities = CapabilitySet::CHOWN
            | CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::FOWNER
            | CapabilitySet::FSETID
            | CapabilitySet::KILL
            | CapabilitySet::SETGID
            | CapabilitySet::SETUID
            | CapabilitySet::SETPCAP
            | CapabilitySet::NET_BIND_SERVICE
            | CapabilitySet::SYS_CHROOT
            | CapabilitySet::MKNOD
            | CapabilitySet::AUDIT_WRITE
            | CapabilitySet::SETFCAP;
        if self.may_mount {
            capabilities |= CapabilitySet::SYS_ADMIN;
        }
        Ok(Program {
            candidates,
            arguments: StringArray::new(arguments),
            environment: StringArray::new(environment),
            work_folder: inside_path(&self.work_folder)?,
            user: self.user,
            group: self.group,
            capabilities,
            terminal: false,
        })
    }

    fn uname(&self) -> Result<[u8; UNAME_LENGTH], SandboxError> {
        let host = rustix::system::uname();
        let machine = self.foreign.map_or(host.machine().to_bytes(), |foreign| foreign.machine.as_bytes());
        let fields: [(&str, &[u8]); 6] = [
            ("the system's name", b"Linux"),
            ("the host name", self.host_name.as_bytes()),
            ("the kernel release", self.kernel_release.as_bytes()),
            ("the kernel version", b"#1 SMP"),
            ("the machine", machine),
            ("the domain name", b"(none)"),
        ];
        let mut uname = [0; UNAME_LENGTH];
        for (place, (what, field)) in uname.chunks_exact_mut(UNAME_FIELD).zip(fields) {
            let bad = |reason| SandboxError::BadText { what: what.into(), reason };
            if field.contains(&0) {
                return Err(bad("it has a NUL byte in it"));
            }
            let place =
                place[..UNAME_FIELD - 1].get_mut(..field.len()).ok_or(bad("it is longer than 64 bytes"))?;
            place.copy_from_slice(field);
        }
        Ok(uname)
    }

    /// All that is done before the program starts, how many slots it takes, and the mount points made for it.
    fn steps(&self) -> Result<(Vec<Step>, usize, MountPoints), SandboxError> {
        let root_error = |source: io::Error| SandboxError::Root { path: self.root.clone(), source };
        let root = fs::canonicalize(&self.root).map_err(root_error)?;
        if root == Path::new("/") {
            return Err(root_error(io::ErrorKind::InvalidInput.into()));
        }
        let mut points = MountPoints::new(&root).map_err(|errno| root_error(errno.into()))?;
        for folder in ["/dev", "/proc", "/run", "/tmp"].map(Path::new) {
            points.ensure(folder, Kind::Folder).map_err(mount_point_error(folder))?;
        }
        let has_sys = points.has(Path::new("sys"));
        let mut builder = Builder::default();
        builder.steps.push(Step::PrivateMounts);
        if let Some(foreign) = self.foreign {
            builder.foreign(foreign);
        }
        let root_copy = builder.hold(text(root.as_os_str(), "the root")?, libc::MOUNT_ATTR_NODEV);
        // Devices can be written to on a read-only mount, but their nodes, which are the host's, cannot be changed.
        let device_attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
        let mut devices = Vec::new();
        for name in ["null", "zero", "full", "random", "urandom", "tty"] {
            let host = Path::new("/dev").join(name);
            match fs::metadata(&host) {
                Ok(_) => {
                    devices.push((name, builder.hold(text(host.as_os_str(), "a device")?, device_attributes)))
                }
                // A container without terminals.
                Err(_) if name == "tty" => {}
                Err(source) => return Err(SandboxError::Bind { path: host, source }),
            }
        }
        let mut binds = Vec::new();
        for bind in &self.binds {
            let bind_error = |source| SandboxError::Bind { path: bind.host.clone(), source };
            let host = fs::canonicalize(&bind.host).map_err(bind_error)?;
            let kind = fs::metadata(&host).map_err(bind_error)?.file_type();
            let mut attributes = 0;
            if bind.read_only {
                attributes |= libc::MOUNT_ATTR_RDONLY;
            }
            if !kind.is_char_device() && !kind.is_block_device() {
                attributes |= libc::MOUNT_ATTR_NODEV;
            }
            let slot = builder.hold(text(host.as_os_str(), "a path to bind")?, attributes);
            let kind = if kind.is_dir() { Kind::Folder } else { Kind::File };
            binds.push((slot, bind.inside.as_path(), kind));
        }
        let root_path = text(root.as_os_str(), "the root")?;
        builder.put(root_copy, root_path.clone());
        builder.steps.push(Step::PivotInto(root_path));
        builder.steps.push(Step::HostName(text(OsStr::new(&self.host_name), "the host name")?));
        builder.steps.push(Step::Loopback);
        let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        builder.mount(c"proc", c"/proc", quiet, c"");
        let laid = self.lay(&mut builder)?;
        builder.mount(c"tmpfs", c"/dev", MountFlags::NOSUID, c"mode=0755,size=64m");
        builder.device_folder(&devices)?;
        for (path, target) in &self.device_links {
            let link = inside_path(path)?;
            if !path.starts_with("/dev") {
                return Err(SandboxError::BadPath { path: path.into(), reason: "it is not below /dev" });
            }
            builder.folders_above(path)?;
            builder
                .steps
                .push(Step::Link { path: link, target: text(target.as_os_str(), "a link's target")? });
        }
        builder.mount(c"tmpfs", c"/tmp", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777");
        builder.mount(c"tmpfs", c"/run", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755");
        builder.mirror_folders(&root.join("run"), Path::new("/run"))?;
        builder.steps.push(Step::Folder { path: c"/run/lock".into(), mode: 0o1777, owner: None });
        for (slot, target, on_link) in laid.proc {
            builder.steps.push(Step::Put { slot, target, on_link });
        }
        if has_sys {
            builder.put(laid.sys, c"/sys".into());
        }
        let hidden =
            self.hidden.iter().zip(laid.hidden).map(|(file, slot)| (slot, file.inside.as_path(), Kind::File));
        let mut bound: Vec<&Path> = Vec::new();
        for (slot, inside, kind) in binds.into_iter().chain(hidden) {
            let target = inside_path(inside)?;
            if bound.iter().any(|above| inside.starts_with(above)) {
                // Its mount point is in what lies there.
            } else if ["/dev", "/tmp", "/run"].iter().any(|private| inside.starts_with(private)) {
                builder.folders_above(inside)?;
                builder.mount_point(&target, kind);
            } else {
                points.ensure(inside, kind).map_err(mount_point_error(inside))?;
            }
            bound.push(inside);
            builder.put(slot, target);
        }
        builder.steps.push(Step::LeaveOldRoot);
        Ok((builder.steps, builder.slots, points))
    }

    /// Writes all files that cover others into a file system of their own, and holds each of them.
    fn lay(&self, builder: &mut Builder) -> Result<Laid, SandboxError> {
        let version = format!("Linux version {} (bakehouse) #1 SMP\n", self.kernel_release).into_bytes();
        let bytes = |text: Text| match text {
            Text::Fixed(text) => text.as_bytes().to_vec(),
            Text::Version => version.clone(),
        };
        let uuid = builder.hold(c"/proc/sys/kernel/random/uuid".into(), libc::MOUNT_ATTR_RDONLY);
        // The place is free until the sandbox's own /tmp is mounted.
        builder.mount(c"tmpfs", c"/tmp", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0700");
        builder.folder(c"/tmp/empty", 0o555);
        builder.folder(c"/tmp/settings", 0o755);
        let release = format!("{}\n", self.kernel_release);
        let named = [
            ("kernel/hostname", format!("{}\n", self.host_name)),
            ("kernel/osrelease", release),
            ("kernel/version", "#1 SMP\n".into()),
            ("kernel/random/uuid", String::new()),
        ];
        let fixed = proc::SETTINGS.map(|(path, text)| (path, bytes(text)));
        for (path, bytes) in fixed.into_iter().chain(named.map(|(path, text)| (path, text.into_bytes()))) {
            let path = Path::new("/tmp/settings").join(path);
            builder.folders_above(&path)?;
            builder.file(text(path.as_os_str(), "a path")?, 0o444, bytes);
        }
        builder.put(uuid, c"/tmp/settings/kernel/random/uuid".into());
        let settings = builder.hold(c"/tmp/settings".into(), libc::MOUNT_ATTR_RDONLY);
        let mut laid = Laid {
            sys: builder.hold(c"/tmp/empty".into(), libc::MOUNT_ATTR_RDONLY),
            proc: Vec::new(),
            hidden: Vec::new(),
        };
        for (number, (name, cover)) in
            proc::covers().map_err(system("read the folder /proc"))?.into_iter().enumerate()
        {
            let target = text(Path::new("/proc").join(name).as_os_str(), "a name in /proc")?;
            let slot = match cover {
                Cover::Settings => settings,
                Cover::Folder => builder.hold(c"/tmp/empty".into(), libc::MOUNT_ATTR_RDONLY),
                Cover::Text(text) | Cover::Link(text) => {
                    builder.laid_file(&format!("proc-{number}"), 0o444, bytes(text))?
                }
            };
            laid.proc.push((slot, target, matches!(cover, Cover::Link(_))));
        }
        for (number, file) in self.hidden.iter().enumerate() {
            laid.hidden.push(builder.laid_file(
                &format!("hidden-{number}"),
                file.mode,
                file.bytes.clone(),
            )?);
        }
        // The random uuid's mount is below it: detach what is there, the held copies live on.
        builder.steps.push(Step::Unmount(c"/tmp".into()));
        Ok(laid)
    }
}

/// Mount points in a root, held for sandboxes that run there at once. Drop it when they have ended.
pub struct Places {
    _points: MountPoints,
}

/// Slots of what lies over other files.
struct Laid {
    /// With the place in /proc, and whether that is a link.
    proc: Vec<(usize, CString, bool)>,
    /// In the order of the caller's files.
    hidden: Vec<usize>,
    sys: usize,
}

/// Gathers steps.
#[derive(Default)]
struct Builder {
    steps: Vec<Step>,
    slots: usize,
}

impl Builder {
    fn hold(&mut self, source: CString, attributes: u64) -> usize {
        self.steps.push(Step::Hold { slot: self.slots, source, attributes });
        self.slots += 1;
        self.slots - 1
    }

    fn foreign(&mut self, foreign: Foreign) {
        let registration = foreign.registration();
        self.steps.push(Step::ForeignPrograms { slot: self.slots, handler: foreign.handler, registration });
        self.slots += 1;
    }

    fn put(&mut self, slot: usize, target: CString) {
        self.steps.push(Step::Put { slot, target, on_link: false });
    }

    fn mount(&mut self, kind: &'static CStr, target: &CStr, flags: MountFlags, data: &'static CStr) {
        self.steps.push(Step::Mount { kind, target: target.into(), flags, data });
    }

    fn folder(&mut self, path: &CStr, mode: u32) {
        self.steps.push(Step::Folder { path: path.into(), mode, owner: None });
    }

    fn file(&mut self, path: CString, mode: u32, bytes: Vec<u8>) {
        self.steps.push(Step::File { path, mode, bytes });
    }

    fn laid_file(&mut self, name: &str, mode: u32, bytes: Vec<u8>) -> Result<usize, SandboxError> {
        let path = text(OsStr::new(&format!("/tmp/{name}")), "a path")?;
        self.file(path.clone(), mode, bytes);
        Ok(self.hold(path, libc::MOUNT_ATTR_RDONLY))
    }

    /// Makes the folders above a path in one of the sandbox's own file systems.
    fn folders_above(&mut self, path: &Path) -> Result<(), SandboxError> {
        let mut above: Vec<&Path> =
            path.ancestors().skip(1).filter(|folder| folder.components().count() > 2).collect();
        above.reverse();
        for folder in above {
            let folder = inside_path(folder)?;
            self.folder(&folder, 0o755);
        }
        Ok(())
    }

    fn mount_point(&mut self, target: &CStr, kind: Kind) {
        match kind {
            Kind::Folder => self.folder(target, 0o755),
            Kind::File => self.file(target.into(), 0o644, Vec::new()),
        }
    }

    /// Fills the private /dev.
    fn device_folder(&mut self, devices: &[(&str, usize)]) -> Result<(), SandboxError> {
        for (name, slot) in devices {
            let path = text(Path::new("/dev").join(name).as_os_str(), "a device")?;
            self.file(path.clone(), 0o666, Vec::new());
            self.put(*slot, path);
        }
        self.folder(c"/dev/shm", 0o1777);
        self.folder(c"/dev/pts", 0o755);
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        // Without a second id there is no such group.
        let options = if identity::pretended() {
            c"newinstance,ptmxmode=0666,mode=0620"
        } else {
            c"newinstance,ptmxmode=0666,mode=0620,gid=5"
        };
        self.mount(c"devpts", c"/dev/pts", flags, options);
        for (path, target) in [
            (c"/dev/ptmx", c"pts/ptmx"),
            (c"/dev/fd", c"/proc/self/fd"),
            (c"/dev/stdin", c"/proc/self/fd/0"),
            (c"/dev/stdout", c"/proc/self/fd/1"),
            (c"/dev/stderr", c"/proc/self/fd/2"),
        ] {
            self.steps.push(Step::Link { path: path.into(), target: target.into() });
        }
        Ok(())
    }

    /// Makes folders with the owners and modes of those in the root's own `from`, which the private file system at
    /// `to` covers.
    fn mirror_folders(&mut self, from: &Path, to: &Path) -> Result<(), SandboxError> {
        let unreadable = |source| SandboxError::Root { path: from.to_owned(), source };
        if !fs::symlink_metadata(from).map_err(unreadable)?.is_dir() {
            return Ok(());
        }
        let mut entries =
            fs::read_dir(from).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(unreadable)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let meta = entry.metadata().map_err(unreadable)?;
            if meta.is_dir() {
                let inside = to.join(entry.file_name());
                self.steps.push(Step::Folder {
                    path: inside_path(&inside)?,
                    mode: meta.mode() & 0o7777,
                    owner: Some((meta.uid(), meta.gid())),
                });
                self.mirror_folders(&entry.path(), &inside)?;
            }
        }
        Ok(())
    }
}

fn mount_point_error(path: &Path) -> impl Fn(rustix::io::Errno) -> SandboxError + '_ {
    |errno| SandboxError::MountPoint { path: path.to_owned(), source: errno.into() }
}

/// What to do about a step that was refused, when that is known.
fn advice(step: Option<&Step>, errno: i32) -> &'static str {
    match (step, errno) {
        (Some(Step::Mount { kind, .. }), libc::EPERM) if *kind == c"proc" => {
            ". The host hides parts of its own /proc, as containers do, and so the kernel gives no new one: run \
             bakehouse outside of the container, or let the container have the whole /proc \
             (--security-opt systempaths=unconfined)"
        }
        (Some(Step::ForeignPrograms { .. }), libc::EPERM | libc::ENODEV | libc::ENOSYS) => {
            ". This needs Linux 6.7 or newer, with binfmt_misc built in or loaded: bake on a newer kernel, or on a \
             machine of the image's own architecture"
        }
        (Some(Step::Hold { .. } | Step::Put { .. }), libc::ENOSYS) => ". Linux 5.12 or newer is needed",
        (_, libc::EACCES | libc::EPERM) => {
            ". A security module (AppArmor, SELinux) or a container may forbid it"
        }
        _ => "",
    }
}

/// A text for the kernel, which takes none with a NUL byte in it.
fn text(text: &OsStr, what: &str) -> Result<CString, SandboxError> {
    CString::new(text.as_bytes())
        .map_err(|_| SandboxError::BadText { what: what.into(), reason: "it has a NUL byte in it" })
}

/// A path inside: absolute and without `..`.
fn inside_path(path: &Path) -> Result<CString, SandboxError> {
    let bad = |reason| SandboxError::BadPath { path: path.into(), reason };
    if !path.is_absolute() {
        return Err(bad("it is not absolute"));
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(bad("it has `..` in it"));
    }
    CString::new(path.as_os_str().as_bytes()).map_err(|_| bad("it has a NUL byte in it"))
}

fn open_input(input: Input) -> io::Result<OwnedFd> {
    match input {
        // Not /dev/null: the descriptor would be of the host's own file system, and root inside might change the file's mode.
        Input::Null => {
            let file = rustix::fs::memfd_create(c"stdin", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
            let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
            rustix::fs::fcntl_add_seals(&file, all)?;
            Ok(file)
        }
        Input::Bytes(bytes) => {
            let mut file = File::from(rustix::fs::memfd_create(c"stdin", MemfdFlags::CLOEXEC)?);
            file.write_all(&bytes)?;
            file.rewind()?;
            Ok(file.into())
        }
    }
}

/// Hands on what the programs write until the first process has ended, which is after all others.
fn listen(
    process: BorrowedFd<'_>,
    output_end: &OwnedFd,
    output: &mut dyn FnMut(&[u8]),
) -> Result<(), SandboxError> {
    let mut buffer = vec![0; 64 << 10];
    let mut open = true;
    loop {
        let mut events = [
            PollFd::from_borrowed_fd(process, PollFlags::IN),
            PollFd::new(output_end, if open { PollFlags::IN } else { PollFlags::empty() }),
        ];
        // A pipe that was closed would be reported for ever.
        let watched = if open { &mut events[..] } else { &mut events[..1] };
        rustix::io::retry_on_intr(|| poll(watched, None)).map_err(system("wait for the sandbox"))?;
        let ended = events[0].revents().contains(PollFlags::IN);
        while open {
            match rustix::io::read(output_end, &mut buffer) {
                Ok(0) => open = false,
                Ok(length) => output(&buffer[..length]),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(system("read the program's output")(errno)),
            }
        }
        if ended {
            return Ok(());
        }
    }
}

/// Process 1 of a sandbox, seen from outside. Dropped, it is killed, and with it all that runs in there.
struct FirstProcess {
    process: OwnedFd,
    waited: bool,
}

impl FirstProcess {
    fn start(plan: &mut Plan, descriptors: &Descriptors<'_>) -> Result<Self, SandboxError> {
        let before = sys::block_signals();
        let forked = sys::fork_into(sys::NAMESPACES);
        if let Ok(Fork::Child) = forked {
            inside::first_process(plan, descriptors)
        }
        sys::restore_signals(&before);
        match forked.map_err(system("start a process in new namespaces"))? {
            Fork::Parent(process) => Ok(Self { process, waited: false }),
            Fork::Child => Err(SandboxError::Lost),
        }
    }

    fn wait(mut self) -> Result<(), SandboxError> {
        self.reap().map_err(system("wait for the sandbox"))
    }

    fn reap(&mut self) -> rustix::io::Result<()> {
        rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED)
        })?;
        self.waited = true;
        Ok(())
    }
}

impl Drop for FirstProcess {
    fn drop(&mut self) {
        if !self.waited {
            // Both fail only when it is gone already.
            let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
            let _ = self.reap();
        }
    }
}
