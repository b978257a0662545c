//! The system calls that no safe wrapper offers. All `unsafe` of this library is here.
#![allow(unsafe_code, reason = "clone, execve, seccomp and mount_setattr have no safe wrapper")]

use std::ffi::{CStr, CString, c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};

use libc::{c_char, c_long, c_ulong};

/// What [`fork_into`] returned, and in which process.
pub(crate) enum Fork {
    /// The calling process, with the child's id and a descriptor of it.
    Parent(OwnedFd),
    /// The new process.
    Child,
}

/// The kinds of namespace that each sandbox has for itself.
pub(crate) const NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

fn check(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Forks into the new namespaces that `flags` (CLONE_NEW*) name. The child is a copy of the calling thread alone:
/// it must not allocate, lock or unwind, because other threads may have held locks at this moment.
pub(crate) fn fork_into(flags: c_int) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    let flags = c_long::from(flags | libc::SIGCHLD | libc::CLONE_PIDFD);
    // SAFETY: without CLONE_VM and with a null stack this is fork: the child runs on a copy of the memory. The
    // third argument is the address for the pidfd on every architecture that is supported.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone, flags, 0 as c_long, &raw mut pidfd, null_mut::<c_int>(), 0 as c_long)
    })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: the kernel has just opened it for us.
    Ok(Fork::Parent(unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Forks within the same namespaces; the child's id in the parent, `None` in the child. The rules of
/// [`fork_into`] hold.
pub(crate) fn fork() -> io::Result<Option<c_int>> {
    // SAFETY: as in `fork_into`.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone,
            c_long::from(libc::SIGCHLD),
            0 as c_long,
            null_mut::<c_int>(),
            null_mut::<c_int>(),
            0 as c_long,
        )
    })?;
    Ok((pid != 0).then_some(pid as c_int))
}

/// Forks a process of one thread; both go on as whole processes. The child's id in the parent, `None` in the child.
pub(crate) fn fork_whole() -> io::Result<Option<c_int>> {
    // SAFETY: there are no other threads that could hold locks; the caller has made sure of it.
    let pid = check(c_long::from(unsafe { libc::fork() }))?;
    Ok((pid != 0).then_some(pid as c_int))
}

/// Moves the calling thread into the new namespaces that `flags` (CLONE_NEW*) name.
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: only namespaces are asked for, not the table of descriptors, on whose sharing other code relies.
    check(c_long::from(unsafe { libc::unshare(flags) })).map(drop)
}

/// Ends the process at once, without running anything.
pub(crate) fn exit(code: c_int) -> ! {
    // SAFETY: never returns, touches nothing.
    unsafe { libc::_exit(code) }
}

/// Puts copies of three descriptors at 0, 1 and 2 and one at 3, and closes all others.
pub(crate) fn keep_only(descriptors: [BorrowedFd<'_>; 4]) -> io::Result<()> {
    let mut safe = [-1; 4];
    for (copy, descriptor) in safe.iter_mut().zip(descriptors) {
        // SAFETY: plain integers.
        *copy =
            check(c_long::from(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD, 10) }))? as c_int;
    }
    for (place, copy) in safe.into_iter().enumerate() {
        let flags = if place == 3 { libc::O_CLOEXEC } else { 0 };
        // SAFETY: plain integers; the process has one thread, nobody else uses these numbers.
        check(c_long::from(unsafe { libc::dup3(copy, place as c_int, flags) }))?;
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_close_range, 4 as c_long, c_long::from(u32::MAX), 0 as c_long) })?;
    Ok(())
}

/// The descriptor at a number that [`keep_only`] filled.
pub(crate) fn kept(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: `keep_only` opened 0 to 3, and nothing in the child closes them.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Moves a descriptor to a number that nothing uses; it closes on exec.
pub(crate) fn at_number(descriptor: OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain integers; in the forked process `keep_only` left this number free.
    check(c_long::from(unsafe { libc::dup3(descriptor.as_raw_fd(), number, libc::O_CLOEXEC) }))?;
    // SAFETY: the call above has just opened it, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A path of memory of its own on the stack: `/proc/self/fd/<number>`.
pub(crate) struct DescriptorPath([u8; 32]);

impl DescriptorPath {
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// The path by which /proc names an open descriptor of this process. Does not allocate.
pub(crate) fn descriptor_path(descriptor: impl AsFd) -> DescriptorPath {
    let mut path = [0; 32];
    let prefix = b"/proc/self/fd/";
    path[..prefix.len()].copy_from_slice(prefix);
    let mut number = descriptor.as_fd().as_raw_fd().unsigned_abs();
    let mut digits = [0; 10];
    let mut count = 0;
    while count == 0 || number > 0 {
        digits[count] = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
    }
    for (at, digit) in digits[..count].iter().rev().enumerate() {
        path[prefix.len() + at] = *digit;
    }
    DescriptorPath(path)
}

/// Sets attributes (MOUNT_ATTR_*) on a mount and all below it.
pub(crate) fn mount_setattr(mount: impl AsFd, set: u64) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr { set, clear: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is an empty C string, the structure and its size are those of the kernel's first version.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            c_long::from(mount.as_fd().as_raw_fd()),
            c"".as_ptr(),
            c_long::from(libc::AT_EMPTY_PATH | libc::AT_RECURSIVE),
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Blocks every signal in this thread; returns what was blocked before.
pub(crate) fn block_signals() -> libc::sigset_t {
    let mut before = MaybeUninit::uninit();
    let mut all = MaybeUninit::uninit();
    // SAFETY: both sets are written by the calls before they are read; pthread_sigmask cannot fail here.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigemptyset(before.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

/// A signal that has come for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signalled {
    /// Which.
    pub(crate) number: c_int,
    /// Whether another process sent it to this one, and not the kernel to all processes of a terminal.
    pub(crate) sent: bool,
}

/// Waits for a signal; all must be blocked, in every thread.
pub(crate) fn wait_for_signal() -> io::Result<Signalled> {
    let mut all = MaybeUninit::uninit();
    // SAFETY: plain data that the call fills.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    // SAFETY: the set is written before it is read.
    let number = check(c_long::from(unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigwaitinfo(all.as_ptr(), &raw mut info)
    }))?;
    let sent = [libc::SI_USER, libc::SI_QUEUE, libc::SI_TKILL].contains(&info.si_code);
    Ok(Signalled { number: number as c_int, sent })
}

/// Ends this process by a signal, as another one was ended by it.
pub(crate) fn end_by(signal: c_int) -> ! {
    // SAFETY: gives the signal its default effect in this thread, which ends the process.
    unsafe {
        let mut set = MaybeUninit::uninit();
        libc::signal(signal, libc::SIG_DFL);
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::raise(signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), null_mut());
    }
    exit(128 + signal)
}

/// Blocks exactly the given signals in this thread.
pub(crate) fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: the set is a valid one.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, null_mut()) };
}

/// Gives every signal its default effect and blocks none.
pub(crate) fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: the default disposition is valid for every signal; those that have another meaning are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: the set is written before it is read.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), null_mut());
    }
}

/// A descriptor that becomes readable when a child has ended. SIGCHLD must be blocked.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is written before it is read; the descriptor is new and ours.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(c_long::from(fd))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The signals by which a process is asked to end, and the one that tells of a child's end; blocked until
/// [`Asked::unblock`].
pub(crate) struct Asked {
    set: libc::sigset_t,
    before: libc::sigset_t,
    ask: Vec<c_int>,
}

impl Asked {
    /// Blocks them, less those that the process ignores since its start (`nohup`, shells' background jobs).
    pub(crate) fn block() -> io::Result<Self> {
        let (mut set, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        let mut ask = Vec::new();
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let mut action = MaybeUninit::<libc::sigaction>::uninit();
            // SAFETY: asks only; the structure is written when the call succeeds.
            let ignored = unsafe {
                check(c_long::from(libc::sigaction(signal, null(), action.as_mut_ptr())))?;
                action.assume_init().sa_sigaction == libc::SIG_IGN
            };
            if !ignored {
                ask.push(signal);
            }
        }
        // SAFETY: both sets are written by the calls before they are read; the signals are valid.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in ask.iter().chain(&[libc::SIGCHLD]) {
                libc::sigaddset(set.as_mut_ptr(), *signal);
            }
            libc::sigemptyset(before.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
            Ok(Self { set: set.assume_init(), before: before.assume_init(), ask })
        }
    }

    /// Waits for one of them.
    pub(crate) fn wait(&self) -> c_int {
        let mut signal = 0;
        // SAFETY: the set is valid; the call fails for an invalid set only.
        while unsafe { libc::sigwait(&raw const self.set, &raw mut signal) } != 0 {}
        signal
    }

    /// A signal that asks to end and came meanwhile.
    pub(crate) fn pending(&self) -> Option<c_int> {
        let mut pending = MaybeUninit::uninit();
        // SAFETY: the set is written before it is read.
        let pending = unsafe {
            libc::sigemptyset(pending.as_mut_ptr());
            libc::sigpending(pending.as_mut_ptr());
            pending.assume_init()
        };
        // SAFETY: the set and the signals are valid.
        self.ask.iter().copied().find(|signal| unsafe { libc::sigismember(&raw const pending, *signal) } == 1)
    }

    /// Whether this is a signal that asks to end.
    pub(crate) fn has(&self, signal: c_int) -> bool {
        self.ask.contains(&signal)
    }

    /// Blocks what was blocked before, and no more.
    pub(crate) fn unblock(&self) {
        restore_signals(&self.before);
    }
}

/// A write past the user's limit of file sizes shall be an error, not the process's end.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: ignoring is valid for this signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Waits for the end of any child; returns at once when there is none.
pub(crate) fn reap_next() {
    // SAFETY: the status may be null.
    unsafe { libc::waitpid(-1, null_mut(), 0) };
}

/// One child that has ended, and its wait status; `None` when none has.
pub(crate) fn reap() -> Option<(c_int, c_int)> {
    let mut status = 0;
    // SAFETY: writes the status only.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Brings the network namespace's loopback interface up.
pub(crate) fn loopback_up(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: ifreq is plain data; the name is shorter than its array and ends with a zero.
    unsafe {
        let mut request: libc::ifreq = zeroed();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        check(c_long::from(libc::ioctl(
            socket.as_fd().as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw mut request,
        )))?;
    }
    Ok(())
}

/// Zero-terminated strings and the null-terminated array of pointers to them that execve takes.
pub(crate) struct StringArray {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl StringArray {
    /// Keeps the strings; their bytes do not move any more.
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|text| text.as_ptr()).chain([null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// Replaces the process by a program; returns only to say why not.
pub(crate) fn execute(program: &CStr, arguments: &StringArray, environment: &StringArray) -> io::Error {
    // SAFETY: all pointers are to C strings that live in the arguments, the arrays end with a null pointer.
    unsafe { libc::execve(program.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Puts a filter on this process and its children to be. With `listen`, the descriptor on which the calls that the
/// filter hands over arrive; a process has one such filter at most.
pub(crate) fn install_filter(program: &[libc::sock_filter], listen: bool) -> io::Result<Option<OwnedFd>> {
    if listen {
        let patient = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        // Signals do not interrupt a call that is being looked at; before Linux 5.19 they do.
        match install_with(program, patient) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            result => return result,
        }
        return install_with(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    }
    install_with(program, 0)
}

fn install_with(program: &[libc::sock_filter], flags: c_ulong) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let listen = flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0;
    // SAFETY: the kernel copies the program and does not write to it.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_long::from(libc::SECCOMP_SET_MODE_FILTER),
            flags,
            (&raw const program).cast::<c_void>(),
        )
    })?;
    // SAFETY: with the flag, the result is a new descriptor that is ours.
    Ok(listen.then(|| unsafe { OwnedFd::from_raw_fd(result as RawFd) }))
}

/// A call that a filter has handed over and that waits for its answer.
pub(crate) struct HeldCall {
    id: u64,
    /// The caller's thread id, in our pid namespace.
    pub(crate) pid: u32,
    /// The call's number.
    pub(crate) number: c_long,
    /// The call's arguments.
    pub(crate) arguments: [u64; 6],
}

/// What the caller of a [`HeldCall`] gets.
pub(crate) enum Answer {
    /// The call's result.
    Value(u32),
    /// The call fails with this errno.
    Errno(i32),
    /// The kernel executes the call after all.
    Continue,
}

/// Takes the next held call; fails with ENOENT when its caller is gone.
pub(crate) fn receive_call(listener: impl AsFd) -> io::Result<HeldCall> {
    // SAFETY: plain data that must be zero; the kernel fills it.
    let mut call: libc::seccomp_notif = unsafe { zeroed() };
    // SAFETY: the structure is the one that this ioctl's number encodes the size of.
    check(c_long::from(unsafe {
        libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut call)
    }))?;
    let number = c_long::from(call.data.nr);
    Ok(HeldCall { id: call.id, pid: call.pid, number, arguments: call.data.args })
}

/// Whether the caller still waits, so that its process id still means the same process.
pub(crate) fn still_held(listener: impl AsFd, call: &HeldCall) -> bool {
    // SAFETY: the kernel reads the id.
    unsafe {
        libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, &raw const call.id)
            == 0
    }
}

/// Lets the caller go on. That it is gone meanwhile is no error.
pub(crate) fn answer_call(listener: impl AsFd, call: &HeldCall, answer: &Answer) {
    let (val, error, flags) = match answer {
        Answer::Value(value) => (i64::from(*value), 0, 0),
        Answer::Errno(errno) => (0, -errno, 0),
        Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
    };
    let mut response = libc::seccomp_notif_resp { id: call.id, val, error, flags };
    // SAFETY: the structure is the one that this ioctl's number encodes the size of.
    unsafe {
        libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut response)
    };
}

/// Gives the caller a copy of a descriptor; its number is the call's result.
pub(crate) fn answer_with_descriptor(
    listener: impl AsFd,
    call: &HeldCall,
    descriptor: impl AsFd,
    close_on_exec: bool,
) -> io::Result<()> {
    let mut request = libc::seccomp_notif_addfd {
        id: call.id,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: descriptor.as_fd().as_raw_fd().unsigned_abs(),
        newfd: 0,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
    };
    // SAFETY: the structure is the one that this ioctl's number encodes the size of.
    let mut add = || unsafe {
        check(c_long::from(libc::ioctl(
            listener.as_fd().as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ADDFD as _,
            &raw mut request,
        )))
    };
    add().map(drop)
}

/// Has the kernel run the listener on the caller's CPU and back, where it can (Linux 6.6).
pub(crate) fn wake_in_turns(listener: impl AsFd) {
    // SECCOMP_IOCTL_NOTIF_SET_FLAGS and SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, which libc does not name.
    const SET_FLAGS: u64 = 0x4008_2104;
    const SYNC_WAKE_UP: c_ulong = 1;
    // SAFETY: the argument is a plain integer.
    unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) };
}

/// Reads another process's memory, as far as it can be read; the number of bytes.
pub(crate) fn read_memory(pid: u32, address: u64, bytes: &mut [u8]) -> io::Result<usize> {
    const PAGE: u64 = 4096;
    // Parts end at pages, for a part is read whole or not at all.
    let first = ((PAGE - address % PAGE) as usize).min(bytes.len());
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let part = |start: usize, length: usize| libc::iovec {
        iov_base: address.wrapping_add(start as u64) as *mut c_void,
        iov_len: length,
    };
    let rest = (bytes.len() - first).min(PAGE as usize);
    let remote = [part(0, first), part(first, rest)];
    let count = if rest == 0 { 1 } else { 2 };
    // SAFETY: writes our own bytes only, as many as there are; the addresses are those of the other process, and the
    // kernel checks them there.
    let read =
        unsafe { libc::process_vm_readv(pid as libc::pid_t, &raw const local, 1, remote.as_ptr(), count, 0) };
    Ok(check(read as c_long)? as usize)
}

/// What stat tells of an open file, in the form of the system call, with another owner in it.
pub(crate) fn stat_as(file: impl AsFd, uid: u32, gid: u32) -> io::Result<[u8; size_of::<libc::stat>()]> {
    // SAFETY: plain data, for which zeroes are valid; the kernel's own form is the C library's here.
    let mut stat: libc::stat = unsafe { zeroed() };
    // SAFETY: the path is an empty C string, the structure is the one that the call fills.
    check(unsafe {
        libc::syscall(
            libc::SYS_newfstatat,
            c_long::from(file.as_fd().as_raw_fd()),
            c"".as_ptr(),
            &raw mut stat,
            c_long::from(libc::AT_EMPTY_PATH),
        )
    })?;
    (stat.st_uid, stat.st_gid) = (uid, gid);
    // SAFETY: an array of bytes of the structure's size; what lies between its fields was zeroed.
    Ok(unsafe { std::mem::transmute::<libc::stat, [u8; size_of::<libc::stat>()]>(stat) })
}

/// The length of what statx writes.
pub(crate) const STATX_LENGTH: usize = 256;

/// What statx tells of an open file, in the form of the system call, with another owner in it.
pub(crate) fn statx_as(
    file: impl AsFd,
    flags: u32,
    mask: u32,
    uid: u32,
    gid: u32,
) -> io::Result<[u8; STATX_LENGTH]> {
    let mut bytes = [0_u8; STATX_LENGTH];
    // SAFETY: the path is an empty C string, the kernel writes as many bytes as there are.
    check(unsafe {
        libc::syscall(
            libc::SYS_statx,
            c_long::from(file.as_fd().as_raw_fd()),
            c"".as_ptr(),
            c_long::from(flags) | c_long::from(libc::AT_EMPTY_PATH),
            c_long::from(mask),
            bytes.as_mut_ptr(),
        )
    })?;
    // Mask, block size, attributes and number of links come first.
    bytes[20..24].copy_from_slice(&uid.to_ne_bytes());
    bytes[24..28].copy_from_slice(&gid.to_ne_bytes());
    Ok(bytes)
}

/// What a file system calls an open file for as long as it exists, and nothing else after it; `None` where it has no
/// such name.
pub(crate) fn file_handle(file: impl AsFd) -> Option<Vec<u8>> {
    const MOST: usize = 128;
    #[repr(C)]
    struct Handle {
        length: u32,
        kind: c_int,
        bytes: [u8; MOST],
    }
    let mut handle = Handle { length: MOST as u32, kind: 0, bytes: [0; MOST] };
    let mut mount: c_int = 0;
    // SAFETY: the path is an empty C string, the structure has room for as many bytes as it says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            c_long::from(file.as_fd().as_raw_fd()),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount,
            c_long::from(libc::AT_EMPTY_PATH),
        )
    };
    let length = handle.length as usize;
    (result == 0).then(|| handle.bytes.get(..length).unwrap_or_default().to_vec())
}

/// What uname answers from now on to all processes of this one's name namespace. Works below [`crate::owners`] only.
pub(crate) fn order_uname(fields: &[u8]) -> io::Result<()> {
    // SAFETY: the call is handed over to the process that keeps the owners, which reads the bytes. The kernel itself
    // would write there; so nobody calls this without that process.
    check(unsafe { libc::syscall(libc::SYS_uname, fields.as_ptr(), UNAME_ORDER) }).map(drop)
}

/// Whether a process that keeps the owners listens to this one's calls.
pub(crate) fn has_keeper() -> bool {
    // SAFETY: the kernel itself finds no address to write to, and says so.
    unsafe { libc::syscall(libc::SYS_uname, null_mut::<c_void>(), UNAME_ORDER) == 0 }
}

/// The second argument, which uname does not have, of a call that tells what uname is to answer.
pub(crate) const UNAME_ORDER: u64 = 0x6261_6b65_686f_7573;

/// Writes bytes into another process's memory.
pub(crate) fn write_memory(pid: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: bytes.len() };
    // SAFETY: reads our own bytes only; the address is one of the other process, and the kernel checks it there.
    let written =
        unsafe { libc::process_vm_writev(pid as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0) };
    if check(written as c_long)? as usize == bytes.len() {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EFAULT))
    }
}

/// Executing programs gives user 0 no capabilities from now on.
pub(crate) fn no_power_for_root() -> io::Result<()> {
    // SECBIT_NOROOT and its lock, which libc does not name.
    const NO_ROOT: c_ulong = 1 | 2;
    // SAFETY: plain integers.
    check(c_long::from(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NO_ROOT) })).map(drop)
}

/// Sets this thread's timer slack, in nanoseconds.
pub(crate) fn set_timer_slack(nanoseconds: u64) -> io::Result<()> {
    // SAFETY: plain integers.
    check(c_long::from(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, nanoseconds) })).map(drop)
}

/// Gives the programs to come the same memory layout in every run, where that is allowed.
pub(crate) fn fix_personality() {
    // SAFETY: has an effect on the next execve only.
    unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as c_ulong) };
}

/// Where this process's command line lies in its memory.
#[derive(Debug)]
pub(crate) struct CommandLine {
    start: usize,
    length: usize,
}

/// Finds this process's command line; `None` where the kernel does not tell.
pub(crate) fn command_line() -> Option<CommandLine> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, a name in parentheses, may hold spaces; after it the third is the first.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(45);
    let (start, end): (usize, usize) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (start != 0 && end > start).then(|| CommandLine { start, length: end - start })
}

impl CommandLine {
    /// Puts another text there. Only for a process that does not look at its arguments any more.
    pub(crate) fn overwrite(self, text: &[u8]) {
        for at in 0..self.length {
            // The last byte stays zero, or the kernel would look for more behind it.
            let byte = if at + 1 == self.length { 0 } else { text.get(at).copied().unwrap_or(0) };
            // SAFETY: the kernel put the arguments at this place of the stack, which is writable and stays mapped;
            // nothing in this process holds a reference to them, because it never returns to the caller's code.
            unsafe { std::ptr::with_exposed_provenance_mut::<u8>(self.start + at).write_volatile(byte) };
        }
    }
}

/// The name that the host's user database gives a user id. Single-threaded callers only.
pub(crate) fn user_name(uid: u32) -> Option<Vec<u8>> {
    // SAFETY: the result is null or points to static data, copied before anything else can change it.
    unsafe {
        let entry = libc::getpwuid(uid);
        (!entry.is_null()).then(|| CStr::from_ptr((*entry).pw_name).to_bytes().to_vec())
    }
}
