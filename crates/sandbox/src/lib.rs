//! Linux namespaces: a root file system in which programs run without network, host files or identity.
//!
//! *What comes in:* a folder that is a root file system, and a program in it to run. *What goes out:* the program's
//! output and how it ended, and its changes in the folder. *What it may not know:* distributions, packages, images.
//!
//! # One user namespace, many sandboxes
//! [`enter`] moves the whole process into a user namespace, once, first thing in `main`. From then on it is root over
//! the ids 0 to 65535: it can give files to any of them and read what they own, as root or as an ordinary user with
//! subordinate ids (then ids on the disk are the user's own and the subordinate ones). A user without any has one id
//! inside; then a second process keeps the owners and answers for them ([`Identity::Pretended`]), here and in sandboxes.
//! Programs of the host that it starts are in there with it. [`Sandbox::run`] then forks a child into fresh mount, pid, ipc, uts, net and cgroup
//! namespaces, which builds the inside, starts the program as process 2, buries orphans as process 1, and ends with
//! the program; the kernel then kills what is left. When the baker dies, or the thread that runs the sandbox, the
//! sandbox dies with it.
//!
//! # What a program sees
//! | where | what |
//! | --- | --- |
//! | `/` | the root folder, writable; device nodes in it do not work |
//! | `/dev` | private: null, zero, full, random, urandom, tty, pts, shm, fd, and the links that were asked for |
//! | `/proc` | the sandbox's own processes and network; every other entry of the kernel's is covered with fixed text or emptiness, so that neither the kernel, its settings, command line and modules nor CPU, memory, disks or mounts of the host can be read from there |
//! | `/sys` | an empty folder, if the root has one |
//! | `/tmp`, `/run` | private and gone afterwards; `/run` has the folders of the root's own, and `/run/lock` |
//! | network | a loopback interface that is up; sockets other than local, IP and netlink ones do not exist |
//! | uname | Linux, the sandbox's host name, a fixed release and version, the host's machine |
//! | environment | PATH, HOME, LC_ALL, TERM, and what the caller set; umask 022, no input unless given, 1024 (at most 4096) descriptors, the same memory layout in each run |
//!
//! Programs have the capabilities that installing software needs, and not those to mount, trace others or set up
//! networks. A filter of system calls refuses what reaches the host's kernel (modules, clocks, keys, BPF, io_uring,
//! handles, foreign namespaces) and lets fsync and its like succeed at once. Programs for another instruction set of
//! the host's CPU (32-bit ones) find no system calls; those that an emulator runs do.
//!
//! # Programs of another architecture
//! With [`Sandbox::foreign`] the kernel hands programs of one other architecture to a handler: a static program of the
//! host that is registered with the user namespace's own binfmt_misc (Linux 6.7), which is mounted nowhere and ends with
//! the sandboxes that use it; the host's is neither used nor changed. uname names the other machine then. The handler
//! is called with the program's path, its argv\[0\] and its arguments, with the program open at AT_EXECFD; it works in
//! any root and any folder, because the kernel opened it when it was registered.
//!
//! # What a program can use up
//! At most 4096 processes run at once: a program that starts more is ended with all of them (threads count too where
//! the baker is an ordinary user). When memory runs out, the kernel ends programs in sandboxes before others. `/tmp` and `/run`
//! hold half of the memory each, the root and writable binds as much as the disk below them has. Output is handed on as
//! it comes. There is no limit of time.
//!
//! # Programs that somebody talks to
//! [`Sandbox::attach`] hands on this process's standard input, output and errors through a pseudo-terminal with job control,
//! or through pipes: no descriptor of the host's own is open inside.
//!
//! # What it leaves behind
//! Mount points that are missing in the root (`/dev`, `/proc`, `/run`, `/tmp`, targets of binds and hidden files) are
//! made before a run and taken away after it, and their folders get their times back. Only a baker that is killed
//! leaves them: empty folders and files.
//!
//! # Files in memory
//! A job that [`supervise`] runs has mounts of its own, so that [`InMemory`] can let a folder's files lie in memory: a root in the
//! making is written and thrown away at once, and disks differ in how long that takes. The sandboxes of the job see them, nobody else does.
//!
//! # What cannot be hidden
//! `/proc/self/mountinfo` and `/proc/self/mounts` name the folder and the file system of the root on the host, and
//! `/proc/self/uid_map` the subordinate ids (`/proc/mounts` is fixed text). The number of CPUs, the instructions that
//! they know, sizes of file systems and the time of day are the host's.
//!
//! # File capabilities
//! Inside a namespace the kernel stores `security.capability` with the namespace's root id in it (revision 3). Read
//! from inside, by this process after [`enter`] as by programs in the sandbox, the attribute has the plain form
//! (revision 2) that belongs into an image; read it there and nowhere else.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("the sandbox is made of Linux namespaces and knows the system calls of x86_64 and aarch64");

mod access_list;
mod attach;
mod caller;
mod credentials;
mod filter;
mod identity;
mod inside;
mod job;
mod lookup;
mod memory;
mod mount_points;
mod owners;
mod proc;
mod sandbox;
mod steps;
mod sys;
mod table;

pub use attach::TerminalModes;
pub use identity::{EnterError, Identity, Lack, enter};
pub use job::{Ended, die_of, supervise};
pub use lookup::open_below;
pub use memory::InMemory;
pub use sandbox::{DEFAULT_KERNEL_RELEASE, Exit, Foreign, Input, Places, Sandbox, SandboxError};
