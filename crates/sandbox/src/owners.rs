//! Owners without subordinate ids: a process that keeps a table of whose files they are.
//!
//! An ordinary user without subordinate ids has one id only, his own. In a user namespace that maps it to 0 he may do
//! all that root may, except give files to others or become somebody else: the kernel has no number to write down. So
//! [`keep`] divides the process in two. One part goes on as the program, under a filter of system calls that its
//! children inherit; the other, its parent, is handed the calls that have to do with owners and identities:
//!
//! | calls | what the keeper does |
//! | --- | --- |
//! | chown and its like | has the kernel give the file to root, with all that follows (times, set-user-id bits, capabilities), and writes down whose it is |
//! | stat and its like | answers for files that it has written down; all others are the kernel's |
//! | setuid and its like, getuid and its like, capset, execve | plays the kernel's rules over ids that it keeps for each thread |
//! | calls that make files | for one who is not root, or in a folder that hands its group down: makes the file and writes down whose it is |
//! | attributes with access lists | keeps those that name others than root |
//! | uname | answers what the sandbox ordered, for a process has one listening filter at most |
//!
//! A file is known by device, inode, birth and the handle that its file system has for it. Who a thread is stands in
//! its timer slack, by number: the kernel hands it down to children and through execve, and only the keeper writes it.
//!
//! This is no security boundary. A program that is not root here is root to the kernel, in the namespaces that are
//! the boundary: it can do what its owner could not, such as read another user's file. It is only asked not to make
//! files where it may not. Sockets in the file system and `/proc/*/status` show root, and a folder's
//! default access list is not handed down when it names others.

use std::collections::HashMap;
use std::fs::File as StdFile;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use libc::c_long;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, WaitOptions};

use crate::access_list::{AccessList, Which};
use crate::caller::{Caller, Named, ROOTS_SLACK, stat};
use crate::credentials::{CHOWN, Change, Credentials, DAC_OVERRIDE, Kind, Known};
use crate::filter;
use crate::inside::UNAME_LENGTH;
use crate::sys::{self, Answer, HeldCall};
use crate::table::{File, Owner, Place, Table};

/// The highest id that can be given; the same as in the mode with subordinate ids.
const LAST_ID: u32 = 65_535;

/// Divides the process in two. The part that returns is the program, under the keeper's eyes. The other part, its
/// parent, never returns: it keeps the owners, hands signals on, and ends as the program ends. Below another keeper,
/// which looks after this process already, nothing is done.
pub(crate) fn keep() -> io::Result<()> {
    if sys::has_keeper() {
        return Ok(());
    }
    let (mut told, tell) = pipe_with(PipeFlags::CLOEXEC).map(|(read, write)| (StdFile::from(read), write))?;
    let (go, mut send) = pipe_with(PipeFlags::CLOEXEC).map(|(read, write)| (read, StdFile::from(write)))?;
    let before = sys::block_signals();
    let parent = rustix::process::getpid();
    match sys::fork_whole() {
        Ok(None) => {
            drop((told, send));
            sys::restore_signals(&before);
            be_kept(parent, tell, go)
        }
        Ok(Some(program)) => {
            drop((tell, go));
            let listener = listener_of(program, &mut told);
            // What cannot be kept is told to the program, which says it to people.
            let message =
                listener.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
            // When the program is gone already, waiting for it ends at once.
            let _ = send.write_all(&message.to_le_bytes());
            drop((told, send));
            if let Ok(listener) = listener {
                serve_in_threads(listener);
            }
            end_with(program)
        }
        Err(error) => {
            sys::restore_signals(&before);
            Err(error)
        }
    }
}

/// The program's part: takes on the filter and waits until the keeper has the listener.
fn be_kept(keeper: Pid, tell: OwnedFd, go: OwnedFd) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(keeper) {
        sys::exit(1);
    }
    sys::set_timer_slack(ROOTS_SLACK)?;
    let listener = sys::install_filter(&filter::owners(), true)?;
    let number = listener.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    StdFile::from(tell).write_all(&number.to_le_bytes())?;
    let mut answer = [0; 4];
    StdFile::from(go).read_exact(&mut answer)?;
    match i32::from_le_bytes(answer) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Fetches the listener out of the program, and sees whether the program's memory and mark can be reached.
fn listener_of(program: i32, told: &mut StdFile) -> io::Result<OwnedFd> {
    let mut number = [0; 4];
    told.read_exact(&mut number)?;
    let pid = Pid::from_raw(program).ok_or(Errno::SRCH)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let number = i32::from_le_bytes(number);
    let listener = rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
    let caller = Caller { thread: program.unsigned_abs() };
    let here = 0x5ca1_ab1e_u32;
    let mut there = [0; 4];
    // The program is a copy of this process, so the value lies at the same place of it.
    caller.read((&raw const here).expose_provenance() as u64, &mut there).or(Err(Errno::PERM))?;
    caller.mark(caller.number()?)?;
    Ok(listener)
}

/// Waits for the program to end, handing on what other processes send here, and ends in the same way.
fn end_with(program: i32) -> ! {
    let Some(pid) = Pid::from_raw(program) else { sys::exit(1) };
    loop {
        let Ok(signalled) = sys::wait_for_signal() else { continue };
        if signalled.number == libc::SIGCHLD {
            let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
            while let Ok(Some((_, status))) = rustix::process::waitpid(Some(pid), options) {
                if let Some(code) = status.exit_status() {
                    sys::exit(code);
                }
                if let Some(signal) = status.terminating_signal() {
                    sys::end_by(signal);
                }
                if status.stopped() {
                    // Whoever waits for this process shall see it, and continues both.
                    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
                }
            }
        } else if signalled.sent
            && let Some(signal) = Signal::from_named_raw(signalled.number)
        {
            // A terminal's signals go to both; those that somebody sent to this process are meant for the program.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

fn serve_in_threads(listener: OwnedFd) {
    sys::wake_in_turns(&listener);
    // What is made for a caller has the caller's bits.
    rustix::process::umask(Mode::empty());
    let keeper: &'static Keeper = Box::leak(Box::new(Keeper::new(listener)));
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8));
    for _ in 0..threads {
        if std::thread::Builder::new().spawn(|| keeper.serve()).is_err() {
            break;
        }
    }
}

/// All that is known of owners and identities.
struct Keeper {
    listener: OwnedFd,
    table: RwLock<Table>,
    known: RwLock<Known>,
    unames: Mutex<HashMap<Place, [u8; UNAME_LENGTH]>>,
}

/// Without a thread to answer, a held call would be held for ever; the program must not outlive one.
struct LastBreath;

impl Drop for LastBreath {
    fn drop(&mut self) {
        sys::exit(1)
    }
}

/// What is to be done with a held call.
enum Reply {
    Value(u32),
    Errno(Errno),
    /// The kernel does it, as if nobody had looked.
    Kernel,
    Descriptor {
        file: OwnedFd,
        close_on_exec: bool,
    },
}

impl From<Errno> for Reply {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// A new owner's ids, `None` where it stays.
type NewOwner = (Option<u32>, Option<u32>);

fn lower(argument: u64) -> i32 {
    argument as u32 as i32
}

/// An id that may be -1, for none.
fn id(argument: u64) -> Option<u32> {
    let id = argument as u32;
    (id != u32::MAX).then_some(id)
}

impl Keeper {
    fn new(listener: OwnedFd) -> Self {
        Self {
            listener,
            table: RwLock::default(),
            known: RwLock::new(Known::new()),
            unames: Mutex::default(),
        }
    }

    fn serve(&self) {
        let _guard = LastBreath;
        loop {
            match sys::receive_call(&self.listener) {
                Ok(call) => self.answer(&call),
                // The caller died, or a signal came.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
                Err(_) => return,
            }
        }
    }

    fn answer(&self, call: &HeldCall) {
        let answer = match self.reply(call) {
            Reply::Value(value) => Answer::Value(value),
            Reply::Errno(errno) => Answer::Errno(errno.raw_os_error()),
            Reply::Kernel => Answer::Continue,
            Reply::Descriptor { file, close_on_exec } => {
                match sys::answer_with_descriptor(&self.listener, call, &file, close_on_exec) {
                    Ok(()) => return,
                    Err(error) => Answer::Errno(error.raw_os_error().unwrap_or(libc::EIO)),
                }
            }
        };
        sys::answer_call(&self.listener, call, &answer);
    }

    fn table(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_owner(&self, file: &File, owner: Owner) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).set(file, owner);
    }

    fn unames(&self) -> MutexGuard<'_, HashMap<Place, [u8; UNAME_LENGTH]>> {
        self.unames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, call: &HeldCall) -> bool {
        sys::still_held(&self.listener, call)
    }

    fn reply(&self, call: &HeldCall) -> Reply {
        let a = call.arguments;
        let caller = Caller { thread: call.pid };
        match call.number {
            libc::SYS_newfstatat => self.stat(call, lower(a[0]), a[1], lower(a[3]), a[2], None),
            libc::SYS_statx => self.stat(call, lower(a[0]), a[1], lower(a[2]), a[4], Some(a[3] as u32)),
            libc::SYS_fstat => self.stat_file(call, lower(a[0]), a[1]),
            libc::SYS_fchownat => self.chown_at(call, lower(a[0]), a[1], (id(a[2]), id(a[3])), lower(a[4])),
            libc::SYS_fchown => {
                let named = Named { folder: lower(a[0]), path: Vec::new(), follow: true };
                self.chown(call, &named, (id(a[1]), id(a[2])))
            }
            libc::SYS_mkdirat => self.make(call, lower(a[0]), a[1], &Make::Folder { mode: a[2] as u32 }),
            libc::SYS_mknodat => {
                let make = Make::Node { mode: a[2] as u32, device: u64::from(a[3] as u32) };
                self.make(call, lower(a[0]), a[1], &make)
            }
            libc::SYS_symlinkat => self.make(call, lower(a[1]), a[2], &Make::Link { target: a[0] }),
            libc::SYS_openat => self.open(call, lower(a[0]), a[1], lower(a[2]), a[3] as u32),
            libc::SYS_openat2 => self.open2(call),
            libc::SYS_uname => self.uname(call),
            libc::SYS_setuid => self.change(caller, Kind::User, Change::All(a[0] as u32)),
            libc::SYS_setgid => self.change(caller, Kind::Group, Change::All(a[0] as u32)),
            libc::SYS_setreuid => self.change(caller, Kind::User, Change::RealEffective(id(a[0]), id(a[1]))),
            libc::SYS_setregid => self.change(caller, Kind::Group, Change::RealEffective(id(a[0]), id(a[1]))),
            libc::SYS_setresuid => {
                self.change(caller, Kind::User, Change::Each(id(a[0]), id(a[1]), id(a[2])))
            }
            libc::SYS_setresgid => {
                self.change(caller, Kind::Group, Change::Each(id(a[0]), id(a[1]), id(a[2])))
            }
            libc::SYS_setfsuid => self.set_files(caller, Kind::User, a[0] as u32),
            libc::SYS_setfsgid => self.set_files(caller, Kind::Group, a[0] as u32),
            libc::SYS_setgroups => self.set_groups(caller, a[0] as u32, a[1]),
            libc::SYS_getgroups => self.get_groups(call, lower(a[0]), a[1]),
            libc::SYS_getresuid => self.get_all(call, Kind::User),
            libc::SYS_getresgid => self.get_all(call, Kind::Group),
            libc::SYS_getuid => self.get(caller, |who| who.user.real),
            libc::SYS_geteuid => self.get(caller, |who| who.user.effective),
            libc::SYS_getgid => self.get(caller, |who| who.group.real),
            libc::SYS_getegid => self.get(caller, |who| who.group.effective),
            libc::SYS_prctl => {
                let keeps = a[1] != 0;
                let known = self.who(caller).and_then(|who| self.become_that(caller, who.keeping(keeps)));
                known.map_or_else(Reply::Errno, |()| Reply::Kernel)
            }
            libc::SYS_capset => self.capset(caller, a[0], a[1]),
            libc::SYS_capget => self.capget(call, a[0], a[1]),
            libc::SYS_execve => self.execute(caller, libc::AT_FDCWD, a[0]),
            libc::SYS_execveat => self.execute(caller, lower(a[0]), a[1]),
            libc::SYS_setxattr => self.attribute(call, By::Path { follow: true }, Attribute::Set),
            libc::SYS_lsetxattr => self.attribute(call, By::Path { follow: false }, Attribute::Set),
            libc::SYS_fsetxattr => self.attribute(call, By::Number, Attribute::Set),
            libc::SYS_getxattr => self.attribute(call, By::Path { follow: true }, Attribute::Get),
            libc::SYS_lgetxattr => self.attribute(call, By::Path { follow: false }, Attribute::Get),
            libc::SYS_fgetxattr => self.attribute(call, By::Number, Attribute::Get),
            libc::SYS_listxattr => self.attribute(call, By::Path { follow: true }, Attribute::List),
            libc::SYS_llistxattr => self.attribute(call, By::Path { follow: false }, Attribute::List),
            libc::SYS_flistxattr => self.attribute(call, By::Number, Attribute::List),
            libc::SYS_removexattr => self.attribute(call, By::Path { follow: true }, Attribute::Remove),
            libc::SYS_lremovexattr => self.attribute(call, By::Path { follow: false }, Attribute::Remove),
            libc::SYS_fremovexattr => self.attribute(call, By::Number, Attribute::Remove),
            number => self.reply_to_old(call, number),
        }
    }

    /// Forms of calls that newer architectures do not have.
    #[cfg(target_arch = "x86_64")]
    fn reply_to_old(&self, call: &HeldCall, number: c_long) -> Reply {
        const HERE: i32 = libc::AT_FDCWD;
        let a = call.arguments;
        match number {
            libc::SYS_stat => self.stat(call, HERE, a[0], 0, a[1], None),
            libc::SYS_lstat => self.stat(call, HERE, a[0], libc::AT_SYMLINK_NOFOLLOW, a[1], None),
            libc::SYS_chown => self.chown_at(call, HERE, a[0], (id(a[1]), id(a[2])), 0),
            libc::SYS_lchown => {
                self.chown_at(call, HERE, a[0], (id(a[1]), id(a[2])), libc::AT_SYMLINK_NOFOLLOW)
            }
            libc::SYS_mkdir => self.make(call, HERE, a[0], &Make::Folder { mode: a[1] as u32 }),
            libc::SYS_mknod => {
                let make = Make::Node { mode: a[1] as u32, device: u64::from(a[2] as u32) };
                self.make(call, HERE, a[0], &make)
            }
            libc::SYS_symlink => self.make(call, HERE, a[1], &Make::Link { target: a[0] }),
            libc::SYS_open => self.open(call, HERE, a[0], lower(a[1]), a[2] as u32),
            libc::SYS_creat => {
                self.open(call, HERE, a[0], libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, a[1] as u32)
            }
            _ => Reply::Kernel,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn reply_to_old(&self, _: &HeldCall, _: c_long) -> Reply {
        Reply::Kernel
    }

    /// stat, lstat, newfstatat, and with a mask statx. What goes wrong is for the kernel to say.
    fn stat(
        &self,
        call: &HeldCall,
        folder: i32,
        path: u64,
        flags: i32,
        buffer: u64,
        mask: Option<u32>,
    ) -> Reply {
        if self.table().is_empty() {
            return Reply::Kernel;
        }
        let caller = Caller { thread: call.pid };
        // Newer kernels take no path at all for an empty one.
        let path = if path == 0 { Ok(Vec::new()) } else { caller.path(path) };
        let Ok(path) = path else { return Reply::Kernel };
        if path.is_empty() && flags & libc::AT_EMPTY_PATH == 0 {
            return Reply::Kernel;
        }
        let named = Named { folder, path, follow: flags & libc::AT_SYMLINK_NOFOLLOW == 0 };
        let form = mask.map(|mask| (flags as u32 & libc::AT_STATX_SYNC_TYPE as u32, mask));
        self.tell(call, &named, buffer, form)
    }

    fn stat_file(&self, call: &HeldCall, number: i32, buffer: u64) -> Reply {
        if self.table().is_empty() {
            return Reply::Kernel;
        }
        self.tell(call, &Named { folder: number, path: Vec::new(), follow: true }, buffer, None)
    }

    /// Writes what stat or, with flags and mask, statx tells of a file in the table.
    fn tell(&self, call: &HeldCall, named: &Named, buffer: u64, form: Option<(u32, u32)>) -> Reply {
        let caller = Caller { thread: call.pid };
        let Ok(place) = caller.place(named) else { return Reply::Kernel };
        if !self.table().may_have(place) {
            return Reply::Kernel;
        }
        let Ok(fd) = caller.open(named) else { return Reply::Kernel };
        let Ok(file) = File::of(&fd) else { return Reply::Kernel };
        let Some(Owner { uid, gid }) = self.table().get(&file) else { return Reply::Kernel };
        if !self.held(call) {
            return Reply::Kernel;
        }
        let written = match form {
            None => sys::stat_as(&fd, uid, gid).map(|bytes| sys::write_memory(call.pid, buffer, &bytes)),
            Some((flags, mask)) => sys::statx_as(&fd, flags, mask, uid, gid)
                .map(|bytes| sys::write_memory(call.pid, buffer, &bytes)),
        };
        match written {
            Ok(Ok(())) => Reply::Value(0),
            Ok(Err(_)) => Reply::Errno(Errno::FAULT),
            Err(_) => Reply::Kernel,
        }
    }

    fn chown_at(&self, call: &HeldCall, folder: i32, path: u64, new: NewOwner, flags: i32) -> Reply {
        if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
            return Reply::Kernel;
        }
        let path = match (Caller { thread: call.pid }).path(path) {
            Ok(path) => path,
            Err(errno) => return Reply::Errno(errno),
        };
        if path.is_empty() && flags & libc::AT_EMPTY_PATH == 0 {
            return Reply::Errno(Errno::NOENT);
        }
        let named = Named { folder, path, follow: flags & libc::AT_SYMLINK_NOFOLLOW == 0 };
        self.chown(call, &named, new)
    }

    fn chown(&self, call: &HeldCall, named: &Named, new: NewOwner) -> Reply {
        let caller = Caller { thread: call.pid };
        let done = || -> Result<(), Errno> {
            if [new.0, new.1].into_iter().flatten().any(|id| id > LAST_ID) {
                return Err(Errno::INVAL);
            }
            let fd = caller.open(named).map_err(|errno| match errno {
                Errno::NOENT if named.path.is_empty() => Errno::BADF,
                errno => errno,
            })?;
            let file = File::of(&fd).map_err(errno)?;
            let owner = self.table().owner(&file);
            let new_owner = Owner { uid: new.0.unwrap_or(owner.uid), gid: new.1.unwrap_or(owner.gid) };
            if !may_give(&self.who(caller)?, owner, new) {
                return Err(Errno::PERM);
            }
            if !self.held(call) {
                return Err(Errno::INTR);
            }
            let (uid, gid) = (new.0.map(|_| Uid::ROOT), new.1.map(|_| Gid::ROOT));
            rustix::fs::chownat(&fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
            self.set_owner(&File::of(&fd).map_err(errno)?, new_owner);
            Ok(())
        };
        match done() {
            Ok(()) => Reply::Value(0),
            Err(errno) => Reply::Errno(errno),
        }
    }

    /// Who a thread is.
    fn who(&self, caller: Caller) -> Result<Credentials, Errno> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.root_only() {
            return Ok(Credentials::default());
        }
        Ok(known.get(caller.number()?))
    }

    fn become_that(&self, caller: Caller, who: Credentials) -> Result<(), Errno> {
        caller.mark(self.known.write().unwrap_or_else(PoisonError::into_inner).number(who))
    }

    fn change(&self, caller: Caller, kind: Kind, change: Change) -> Reply {
        let done = || {
            let who = self.who(caller)?.changed(kind, change).map_err(Errno::from_raw_os_error)?;
            self.become_that(caller, who)
        };
        done().map_or_else(Reply::Errno, |()| Reply::Value(0))
    }

    fn set_files(&self, caller: Caller, kind: Kind, id: u32) -> Reply {
        let done = || {
            let who = self.who(caller)?;
            let before = if kind == Kind::User { who.user.files } else { who.group.files };
            self.become_that(caller, who.with_files(kind, id))?;
            Ok(before)
        };
        done().map_or_else(Reply::Errno, Reply::Value)
    }

    fn set_groups(&self, caller: Caller, count: u32, list: u64) -> Reply {
        let done = || {
            if count > 1 << 16 {
                return Err(Errno::INVAL);
            }
            let mut bytes = vec![0; count as usize * 4];
            caller.read(list, &mut bytes)?;
            let groups = bytes.as_chunks().0.iter().map(|id| u32::from_ne_bytes(*id)).collect();
            let who = self.who(caller)?.with_groups(groups).map_err(Errno::from_raw_os_error)?;
            self.become_that(caller, who)
        };
        done().map_or_else(Reply::Errno, |()| Reply::Value(0))
    }

    fn get(&self, caller: Caller, which: impl FnOnce(&Credentials) -> u32) -> Reply {
        self.who(caller).map_or_else(Reply::Errno, |who| Reply::Value(which(&who)))
    }

    fn get_all(&self, call: &HeldCall, kind: Kind) -> Reply {
        let who = match self.who(Caller { thread: call.pid }) {
            Ok(who) => who,
            Err(errno) => return Reply::Errno(errno),
        };
        let ids = if kind == Kind::User { who.user } else { who.group };
        let places = call.arguments.iter().zip([ids.real, ids.effective, ids.saved]);
        for (place, id) in places {
            if !self.held(call) || sys::write_memory(call.pid, *place, &id.to_ne_bytes()).is_err() {
                return Reply::Errno(Errno::FAULT);
            }
        }
        Reply::Value(0)
    }

    fn get_groups(&self, call: &HeldCall, room: i32, list: u64) -> Reply {
        let groups = match self.who(Caller { thread: call.pid }) {
            Ok(who) => who.groups,
            Err(errno) => return Reply::Errno(errno),
        };
        let count = groups.len();
        if room != 0 {
            if usize::try_from(room).is_ok_and(|room| room < count) || room < 0 {
                return Reply::Errno(Errno::INVAL);
            }
            let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
            if count > 0 && (!self.held(call) || sys::write_memory(call.pid, list, &bytes).is_err()) {
                return Reply::Errno(Errno::FAULT);
            }
        }
        Reply::Value(count as u32)
    }

    /// Attributes with access lists. All others are the kernel's, and so is what goes wrong.
    fn attribute(&self, call: &HeldCall, by: By, what: Attribute) -> Reply {
        if what != Attribute::Set && !self.table().has_lists() {
            return Reply::Kernel;
        }
        self.attribute_of(call, by, what).unwrap_or_else(|reply| reply)
    }

    fn attribute_of(&self, call: &HeldCall, by: By, what: Attribute) -> Result<Reply, Reply> {
        let caller = Caller { thread: call.pid };
        let a = call.arguments;
        let kernel = |_| Reply::Kernel;
        let which = match what {
            Attribute::List => None,
            _ => Some(Which::of(&caller.path(a[1]).map_err(kernel)?).ok_or(Reply::Kernel)?),
        };
        let named = match by {
            By::Path { follow } => {
                Named { folder: libc::AT_FDCWD, path: caller.path(a[0]).map_err(kernel)?, follow }
            }
            By::Number => Named { folder: lower(a[0]), path: Vec::new(), follow: true },
        };
        let place = caller.place(&named).map_err(kernel)?;
        if what != Attribute::Set && !self.table().may_have(place) {
            return Err(Reply::Kernel);
        }
        let fd = caller.open(&named).map_err(kernel)?;
        let file = File::of(&fd).map_err(|_| Reply::Kernel)?;
        let own = sys::descriptor_path(&fd);
        let listed = |which| self.table().list(&file, which).cloned();
        match (what, which) {
            (Attribute::Set, Some(which)) => {
                let mut bytes =
                    vec![0; usize::try_from(a[3]).ok().filter(|size| *size <= 1 << 16).ok_or(Reply::Kernel)?];
                caller.read(a[2], &mut bytes)?;
                let list = AccessList::read(&bytes, LAST_ID).ok_or(Reply::Kernel)?;
                if !list.names_others() {
                    // The kernel can keep this one.
                    self.set_list(&file, which, None);
                    return Err(Reply::Kernel);
                }
                let who = self.who(caller)?;
                if who.is_limited() && who.user.files != self.table().owner(&file).uid {
                    return Err(Reply::Errno(Errno::PERM));
                }
                if !self.held(call) {
                    return Err(Reply::Errno(Errno::INTR));
                }
                if which == Which::Access {
                    let mode = Mode::from_raw_mode(list.mode(file.mode));
                    rustix::fs::chmodat(rustix::fs::CWD, own.as_c_str(), mode, AtFlags::empty())?;
                }
                // That there was none is as good.
                let _ = rustix::fs::removexattr(own.as_c_str(), which.attribute());
                self.set_list(&file, which, Some(list));
                Ok(Reply::Value(0))
            }
            (Attribute::Get, Some(which)) => {
                let mode = (which == Which::Access).then_some(file.mode);
                let bytes = listed(which).ok_or(Reply::Kernel)?.write(mode);
                Ok(self.hand_over(call, a[2], a[3], &bytes))
            }
            (Attribute::Remove, Some(which)) => {
                listed(which).ok_or(Reply::Kernel)?;
                self.set_list(&file, which, None);
                Ok(Reply::Value(0))
            }
            _ => {
                let own_names = Which::BOTH.into_iter().filter(|which| listed(*which).is_some());
                let own_names: Vec<u8> =
                    own_names.flat_map(|which| [which.attribute().as_bytes(), b"\0"].concat()).collect();
                if own_names.is_empty() {
                    return Err(Reply::Kernel);
                }
                let mut names = vec![0; 1 << 16];
                let length = rustix::fs::listxattr(own.as_c_str(), &mut names[..])?;
                names.truncate(length);
                names.extend(own_names);
                Ok(self.hand_over(call, a[1], a[2], &names))
            }
        }
    }

    fn set_list(&self, file: &File, which: Which, list: Option<AccessList>) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).set_list(file, which, list);
    }

    /// Answers with bytes, or with their number where the caller has no room for any.
    fn hand_over(&self, call: &HeldCall, buffer: u64, room: u64, bytes: &[u8]) -> Reply {
        if room != 0 {
            if room < bytes.len() as u64 {
                return Reply::Errno(Errno::RANGE);
            }
            if !self.held(call) || sys::write_memory(call.pid, buffer, bytes).is_err() {
                return Reply::Errno(Errno::FAULT);
            }
        }
        Reply::Value(bytes.len() as u32)
    }

    /// The kernel has the last word on what is asked for.
    fn capset(&self, caller: Caller, header: u64, data: u64) -> Reply {
        let done = || {
            let who = self.who(caller)?;
            if !self.is_of_now(caller, header)? {
                return Ok(());
            }
            let mut words = [0; 12];
            caller.read(data, &mut words)?;
            let word = |at: usize| words.as_chunks().0.get(at).map_or(0, |word| u32::from_ne_bytes(*word));
            self.become_that(caller, who.with_capabilities(word(1), word(0)))
        };
        done().map_or_else(|_: Errno| Reply::Kernel, |()| Reply::Kernel)
    }

    /// Tells what of its capabilities somebody who is not root any more believes to have.
    fn capget(&self, call: &HeldCall, header: u64, data: u64) -> Reply {
        let caller = Caller { thread: call.pid };
        let done = || {
            let who = self.who(caller)?;
            if !who.is_limited() || data == 0 || !self.is_of_now(caller, header)? {
                return Ok(Reply::Kernel);
            }
            let [inheritable, permitted, effective] = caller.capabilities()?;
            let (permitted, effective) = who.of_these(permitted, effective);
            let half = |shift: u32| [effective, permitted, inheritable].map(|set| (set >> shift) as u32);
            let words = [half(0), half(32)].concat();
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            if !self.held(call) {
                return Err(Errno::INTR);
            }
            sys::write_memory(call.pid, data, &bytes).map_err(|_| Errno::FAULT)?;
            Ok(Reply::Value(0))
        };
        done().unwrap_or_else(Reply::Errno)
    }

    /// Whether a capability call is in the present form and about the caller itself.
    fn is_of_now(&self, caller: Caller, header: u64) -> Result<bool, Errno> {
        const PRESENT: u32 = 0x2008_0522;
        let mut bytes = [0; 8];
        caller.read(header, &mut bytes)?;
        let words = bytes.as_chunks().0;
        let word = |at: usize| words.get(at).map_or(0, |word| u32::from_ne_bytes(*word));
        Ok(word(0) == PRESENT && (word(1) == 0 || word(1) == caller.own_id()?))
    }

    /// Somebody who is not root becomes what the program makes of him.
    fn execute(&self, caller: Caller, folder: i32, path: u64) -> Reply {
        let done = || -> Result<(), Errno> {
            let who = self.who(caller)?;
            if who == Credentials::default() {
                return Ok(());
            }
            let named = Named { folder, path: caller.path(path)?, follow: true };
            let file = File::of(caller.open(&named)?).map_err(errno)?;
            let owner = self.table().owner(&file);
            let runs_as = |bit: u32, id: u32| (file.mode & bit == bit).then_some(id);
            let user = runs_as(libc::S_ISUID, owner.uid);
            let group = runs_as(libc::S_ISGID | libc::S_IXGRP, owner.gid);
            self.become_that(caller, who.executing(user, group))
        };
        // What cannot be looked at cannot be executed either.
        done().map_or_else(|_| Reply::Kernel, |()| Reply::Kernel)
    }

    fn uname(&self, call: &HeldCall) -> Reply {
        let caller = Caller { thread: call.pid };
        let [buffer, order, ..] = call.arguments;
        if order == sys::UNAME_ORDER {
            // Without fields, it was only asked whether there is a keeper.
            if buffer == 0 {
                return Reply::Value(0);
            }
            let mut fields = [0; UNAME_LENGTH];
            return match (caller.name_space(), caller.read(buffer, &mut fields)) {
                (Ok(space), Ok(())) if self.held(call) => {
                    self.unames().insert(space, fields);
                    Reply::Value(0)
                }
                _ => Reply::Errno(Errno::PERM),
            };
        }
        let Ok(space) = caller.name_space() else { return Reply::Kernel };
        let Some(fields) = self.unames().get(&space).copied() else { return Reply::Kernel };
        if self.held(call) && sys::write_memory(call.pid, buffer, &fields).is_ok() {
            Reply::Value(0)
        } else {
            Reply::Errno(Errno::FAULT)
        }
    }

    /// Where something is to be made, when it will not belong to root: otherwise, and when it cannot be made, that is
    /// the kernel's affair.
    fn making(&self, caller: Caller, folder: i32, path: &[u8]) -> Result<Making, Reply> {
        let who = self.who(caller)?;
        if who.makes_files_of_root() && !self.table().has_grouped_folders() {
            return Err(Reply::Kernel);
        }
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(0) => (&path[..1], &path[1..]),
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b"."[..], path),
        };
        if name.is_empty() || name == b"." || name == b".." {
            return Err(Reply::Kernel);
        }
        let making = self.making_in(caller, &who, &Named { folder, path: above.to_vec(), follow: true })?;
        Ok(Making { name: name.to_vec(), ..making })
    }

    fn making_in(&self, caller: Caller, who: &Credentials, folder: &Named) -> Result<Making, Reply> {
        let folder = caller.open(folder).map_err(|_| Reply::Kernel)?;
        let file = File::of(&folder).map_err(|_| Reply::Kernel)?;
        let above = self.table().owner(&file);
        let hands_down = file.mode & libc::S_ISGID != 0;
        let gid = if hands_down { above.gid } else { who.group.files };
        let owner = Owner { uid: who.user.files, gid };
        let allowed = who.may(DAC_OVERRIDE) || may_change(who, above, file.mode);
        if owner == Owner::default() && allowed {
            return Err(Reply::Kernel);
        }
        Ok(Making { folder, owner, allowed, name: Vec::new() })
    }

    /// mkdir, mknod, symlink.
    fn make(&self, call: &HeldCall, folder: i32, path: u64, what: &Make) -> Reply {
        let caller = Caller { thread: call.pid };
        let done = || -> Result<(), Reply> {
            let path = caller.path(path).map_err(|_| Reply::Kernel)?;
            let making = self.making(caller, folder, &path)?;
            let Making { folder, name, owner, allowed } = &making;
            if stat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                return Err(Reply::Kernel);
            }
            if !*allowed {
                return Err(Reply::Errno(Errno::ACCESS));
            }
            let bits = !caller.umask()?;
            let target = match what {
                Make::Link { target } => Some(caller.path(*target)?),
                _ => None,
            };
            if !self.held(call) {
                return Err(Reply::Errno(Errno::INTR));
            }
            match what {
                Make::Folder { mode } => {
                    rustix::fs::mkdirat(folder, &name[..], Mode::from_raw_mode(mode & bits))?;
                }
                Make::Node { mode, device } => {
                    let kind = match FileType::from_raw_mode(*mode) {
                        FileType::Unknown => FileType::RegularFile,
                        kind => kind,
                    };
                    let mode = Mode::from_raw_mode(mode & bits);
                    rustix::fs::mknodat(folder, &name[..], kind, mode, *device)?;
                }
                Make::Link { .. } => {
                    rustix::fs::symlinkat(&target.unwrap_or_default()[..], folder, &name[..])?;
                }
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(folder, &name[..], flags, Mode::empty())?;
            self.set_owner(&File::of(&made).map_err(errno)?, *owner);
            Ok(())
        };
        done().map_or_else(|reply| reply, |()| Reply::Value(0))
    }

    fn open2(&self, call: &HeldCall) -> Reply {
        let caller = Caller { thread: call.pid };
        let [folder, path, how, length, ..] = call.arguments;
        let mut words = [0; 24];
        if length < 24 || caller.read(how, &mut words).is_err() {
            return Reply::Kernel;
        }
        let word = |at: usize| words.as_chunks().0.get(at).map_or(0, |word| u64::from_ne_bytes(*word));
        let (flags, mode, resolve) = (word(0) as i32, word(1) as u32, word(2));
        // A call that sets bounds to the way has a root of its own, in which nothing is made for another.
        if flags & (libc::O_CREAT | filter::UNNAMED_FILE) == 0 || resolve != 0 {
            return Reply::Kernel;
        }
        self.open(call, lower(folder), path, flags, mode)
    }

    /// open and openat with O_CREAT or O_TMPFILE.
    fn open(&self, call: &HeldCall, folder: i32, path: u64, flags: i32, mode: u32) -> Reply {
        let caller = Caller { thread: call.pid };
        let unnamed = flags & filter::UNNAMED_FILE != 0;
        let done = || -> Result<Reply, Reply> {
            let who = self.who(caller)?;
            if who.makes_files_of_root() && !self.table().has_grouped_folders() {
                return Ok(Reply::Kernel);
            }
            let path = caller.path(path).map_err(|_| Reply::Kernel)?;
            let making = if unnamed {
                let named = Named { folder, path, follow: true };
                Making { name: b".".to_vec(), ..self.making_in(caller, &who, &named)? }
            } else {
                self.making(caller, folder, &path)?
            };
            let Making { folder, name, owner, allowed } = &making;
            // What is there is opened by the kernel, or refused.
            if !unnamed && stat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                return Ok(Reply::Kernel);
            }
            if !*allowed {
                return Err(Reply::Errno(Errno::ACCESS));
            }
            let bits = !caller.umask()? & 0o7777;
            if !self.held(call) {
                return Err(Reply::Errno(Errno::INTR));
            }
            let own = OFlags::CLOEXEC | if unnamed { OFlags::empty() } else { OFlags::EXCL };
            let how = OFlags::from_bits_retain(flags as u32) | own;
            let file = match rustix::fs::openat(folder, &name[..], how, Mode::from_raw_mode(mode & bits)) {
                // Somebody was quicker.
                Err(Errno::EXIST) => return Ok(Reply::Kernel),
                result => result?,
            };
            self.set_owner(&File::of(&file).map_err(errno)?, *owner);
            Ok(Reply::Descriptor { file, close_on_exec: flags & libc::O_CLOEXEC != 0 })
        };
        done().unwrap_or_else(|reply| reply)
    }
}

/// How a call for attributes names its file.
#[derive(Clone, Copy)]
enum By {
    Path { follow: bool },
    Number,
}

/// What is done with attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attribute {
    Set,
    Get,
    List,
    Remove,
}

/// What mkdir, mknod and symlink make.
enum Make {
    Folder { mode: u32 },
    Node { mode: u32, device: u64 },
    Link { target: u64 },
}

/// Something that is to be made.
struct Making {
    folder: OwnedFd,
    name: Vec<u8>,
    owner: Owner,
    /// Whether the maker may write into the folder.
    allowed: bool,
}

/// Whether somebody may give a file away: root always; others their own, to groups that they are in.
fn may_give(who: &Credentials, owner: Owner, new: NewOwner) -> bool {
    let own = who.user.files == owner.uid;
    let uid_stays = new.0.is_none_or(|uid| own && uid == owner.uid);
    let group_is_own = new.1.is_none_or(|gid| own && (gid == owner.gid || who.is_in(gid)));
    who.may(CHOWN) || uid_stays && group_is_own
}

/// Whether somebody may change what is in a folder, by its mode alone.
fn may_change(who: &Credentials, owner: Owner, mode: u32) -> bool {
    let bits = if who.user.files == owner.uid {
        mode >> 6
    } else if who.is_in(owner.gid) {
        mode >> 3
    } else {
        mode
    };
    bits & 3 == 3
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
