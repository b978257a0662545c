//! The seccomp filter of a sandbox, as a classic BPF program.

use libc::{c_long, sock_filter};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// x86_64's second set of call numbers begins with this bit.
const X32_BIT: u32 = 0x4000_0000;

#[cfg(target_arch = "x86_64")]
const SYNC_FILE_RANGE: c_long = libc::SYS_sync_file_range;
// libc does not name it.
#[cfg(target_arch = "aarch64")]
const SYNC_FILE_RANGE: c_long = 84;

const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// Where the lower half of an argument lies in the data that a filter sees (little-endian machines).
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

const fn fail(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

const SUCCEED: u32 = fail(0);
const REFUSE: u32 = fail(libc::EPERM);
const ABSENT: u32 = fail(libc::ENOSYS);

/// Calls that only make what is written durable.
const SYNC: [c_long; 5] =
    [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync, libc::SYS_syncfs, SYNC_FILE_RANGE];

/// Calls that reach the host, its kernel or its keys.
const REFUSED: [c_long; 21] = [
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_open_by_handle_at,
    libc::SYS_userfaultfd,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_setns,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// Facilities that programs know how to do without.
const ABSENT_CALLS: [c_long; 6] = [
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

#[cfg(target_arch = "x86_64")]
const PORTS: [c_long; 2] = [libc::SYS_iopl, libc::SYS_ioperm];
#[cfg(target_arch = "aarch64")]
const PORTS: [c_long; 0] = [];

const MOUNTS: [c_long; 9] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
];

/// The families of sockets that a network namespace encloses. Others (vsock, the kernel's cryptography) reach the host.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// What a filter is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Calls that make writes durable succeed at once.
    pub(crate) suppress_sync: bool,
    /// Mounts and nested user namespaces are allowed.
    pub(crate) may_mount: bool,
    /// uname is handed over to the sandbox's first process.
    pub(crate) hand_over_uname: bool,
}

/// The filter: the first rule that fits decides, what fits none is allowed.
pub(crate) fn program(rules: Rules) -> Vec<sock_filter> {
    let mut program = Program(Vec::new());
    program.load(ARCH);
    program.unless_equal(ARCHITECTURE, ABSENT);
    program.load(NUMBER);
    if cfg!(target_arch = "x86_64") {
        program.when_any_bit(X32_BIT, ABSENT);
    }
    for call in REFUSED.into_iter().chain(PORTS) {
        program.when_call(call, REFUSE);
    }
    for call in ABSENT_CALLS {
        program.when_call(call, ABSENT);
    }
    if rules.suppress_sync {
        for call in SYNC {
            program.when_call(call, SUCCEED);
        }
        program.within_call(libc::SYS_msync, |program| {
            program.load(argument(2));
            program.when_any_bit(libc::MS_SYNC as u32, SUCCEED);
        });
    }
    if rules.hand_over_uname {
        program.when_call(libc::SYS_uname, libc::SECCOMP_RET_USER_NOTIF);
    }
    program.within_call(libc::SYS_socket, |program| {
        program.load(argument(0));
        program.unless_any(&FAMILIES.map(|family| family as u32), fail(libc::EAFNOSUPPORT));
    });
    if !rules.may_mount {
        for call in MOUNTS {
            program.when_call(call, REFUSE);
        }
        // Its flags lie in memory, where a filter cannot look; C libraries then take clone.
        program.when_call(libc::SYS_clone3, ABSENT);
        for call in [libc::SYS_clone, libc::SYS_unshare] {
            program.within_call(call, |program| {
                program.load(argument(0));
                program.when_any_bit(libc::CLONE_NEWUSER as u32, REFUSE);
            });
        }
    }
    program.answer(libc::SECCOMP_RET_ALLOW);
    program.0
}

/// Calls that tell owners, change owners or tell and change identities, on both architectures.
const OWNERS: [c_long; 42] = [
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_fchownat,
    libc::SYS_fchown,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_openat2,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_getuid,
    libc::SYS_getgid,
    libc::SYS_geteuid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_uname,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];

/// Their older forms.
#[cfg(target_arch = "x86_64")]
const OLD_OWNERS: [c_long; 8] = [
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_symlink,
    libc::SYS_creat,
];
#[cfg(target_arch = "aarch64")]
const OLD_OWNERS: [c_long; 0] = [];

/// Calls that open files, and which of their arguments has the flags.
#[cfg(target_arch = "x86_64")]
const OPENS: [(c_long, u32); 2] = [(libc::SYS_openat, 2), (libc::SYS_open, 1)];
#[cfg(target_arch = "aarch64")]
const OPENS: [(c_long, u32); 1] = [(libc::SYS_openat, 2)];

/// What of O_TMPFILE is not O_DIRECTORY.
pub(crate) const UNNAMED_FILE: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;

/// The filter that hands over all calls that have to do with owners, see [`crate::owners`]. Programs for another
/// instruction set are not looked at.
pub(crate) fn owners() -> Vec<sock_filter> {
    let mut program = Program(Vec::new());
    program.load(ARCH);
    program.unless_equal(ARCHITECTURE, libc::SECCOMP_RET_ALLOW);
    program.load(NUMBER);
    for (call, flags) in OPENS {
        program.within_call(call, |program| {
            program.load(argument(flags));
            program.when_any_bit((libc::O_CREAT | UNNAMED_FILE) as u32, libc::SECCOMP_RET_USER_NOTIF);
        });
    }
    for call in OWNERS.into_iter().chain(OLD_OWNERS) {
        program.when_call(call, libc::SECCOMP_RET_USER_NOTIF);
    }
    // The timer slack says who a thread is.
    program.within_call(libc::SYS_prctl, |program| {
        program.load(argument(0));
        program.when_equal(libc::PR_SET_TIMERSLACK as u32, SUCCEED);
        program.when_equal(libc::PR_SET_KEEPCAPS as u32, libc::SECCOMP_RET_USER_NOTIF);
    });
    program.answer(libc::SECCOMP_RET_ALLOW);
    program.0
}

/// Instructions of a classic BPF program. Unless said otherwise, the accumulator holds the call's number.
struct Program(Vec<sock_filter>);

impl Program {
    fn push(&mut self, code: u32, k: u32, jt: u8, jf: u8) {
        self.0.push(sock_filter { code: code as u16, jt, jf, k });
    }

    fn load(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    }

    fn answer(&mut self, answer: u32) {
        self.push(libc::BPF_RET | libc::BPF_K, answer, 0, 0);
    }

    fn jump_if_equal(&mut self, value: u32, then: u8, otherwise: u8) {
        self.push(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, then, otherwise);
    }

    fn when_call(&mut self, call: c_long, answer: u32) {
        self.jump_if_equal(call as u32, 0, 1);
        self.answer(answer);
    }

    fn unless_equal(&mut self, value: u32, answer: u32) {
        self.jump_if_equal(value, 1, 0);
        self.answer(answer);
    }

    fn when_any_bit(&mut self, bits: u32, answer: u32) {
        self.push(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, bits, 0, 1);
        self.answer(answer);
    }

    fn when_equal(&mut self, value: u32, answer: u32) {
        self.jump_if_equal(value, 0, 1);
        self.answer(answer);
    }

    fn unless_any(&mut self, values: &[u32], answer: u32) {
        for (index, value) in values.iter().enumerate() {
            self.jump_if_equal(*value, (values.len() - index) as u8, 0);
        }
        self.answer(answer);
    }

    /// Rules for one call, which may load other words; the call is allowed when none of them answers.
    fn within_call(&mut self, call: c_long, rules: impl FnOnce(&mut Self)) {
        let mut inner = Self(Vec::new());
        rules(&mut inner);
        inner.answer(libc::SECCOMP_RET_ALLOW);
        self.jump_if_equal(call as u32, 0, inner.0.len() as u8);
        self.0.append(&mut inner.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does, on the words that ours look at.
    fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u32; 3]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                accumulator = match step.k {
                    0 => number,
                    4 => arch,
                    offset => arguments[(offset as usize - 16) / 8],
                };
            } else if code == libc::BPF_RET | libc::BPF_K {
                return step.k;
            } else {
                let equal = code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
                let holds = if equal { accumulator == step.k } else { accumulator & step.k != 0 };
                at += usize::from(if holds { step.jt } else { step.jf });
            }
        }
    }

    fn answer(rules: Rules, call: c_long, arguments: [u32; 3]) -> u32 {
        run(&program(rules), ARCHITECTURE, call as u32, arguments)
    }

    const STRICT: Rules = Rules { suppress_sync: true, may_mount: false, hand_over_uname: true };

    #[test]
    fn what_is_not_named_is_allowed() {
        for call in
            [libc::SYS_read, libc::SYS_execve, libc::SYS_mknodat, libc::SYS_ptrace, libc::SYS_exit_group]
        {
            assert_eq!(answer(STRICT, call, [0; 3]), libc::SECCOMP_RET_ALLOW);
        }
    }

    #[test]
    fn another_architecture_is_absent() {
        assert_eq!(run(&program(STRICT), 0x4000_0003, libc::SYS_read as u32, [0; 3]), ABSENT);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(run(&program(STRICT), ARCHITECTURE, X32_BIT | libc::SYS_read as u32, [0; 3]), ABSENT);
        }
    }

    #[test]
    fn arguments_decide_on_msync_sockets_and_new_namespaces() {
        let allow = libc::SECCOMP_RET_ALLOW;
        assert_eq!(answer(STRICT, libc::SYS_msync, [0, 0, libc::MS_SYNC as u32]), SUCCEED);
        assert_eq!(answer(STRICT, libc::SYS_msync, [0, 0, libc::MS_ASYNC as u32]), allow);
        for (family, expected) in [
            (libc::AF_UNIX, allow),
            (libc::AF_INET, allow),
            (libc::AF_INET6, allow),
            (libc::AF_NETLINK, allow),
            (libc::AF_VSOCK, fail(libc::EAFNOSUPPORT)),
            (libc::AF_ALG, fail(libc::EAFNOSUPPORT)),
        ] {
            assert_eq!(answer(STRICT, libc::SYS_socket, [family as u32, 0, 0]), expected, "family {family}");
        }
        assert_eq!(answer(STRICT, libc::SYS_clone, [libc::CLONE_NEWUSER as u32 | 17, 0, 0]), REFUSE);
        assert_eq!(answer(STRICT, libc::SYS_clone, [17, 0, 0]), allow);
        assert_eq!(answer(STRICT, libc::SYS_unshare, [libc::CLONE_NEWUSER as u32, 0, 0]), REFUSE);
        assert_eq!(answer(STRICT, libc::SYS_clone3, [0; 3]), ABSENT);
    }

    #[test]
    fn switches_take_their_rules_away() {
        let loose = Rules { suppress_sync: false, may_mount: true, hand_over_uname: false };
        for call in [libc::SYS_fsync, libc::SYS_mount, libc::SYS_uname, libc::SYS_clone3] {
            assert_eq!(answer(loose, call, [0; 3]), libc::SECCOMP_RET_ALLOW);
            assert_ne!(answer(STRICT, call, [0; 3]), libc::SECCOMP_RET_ALLOW);
        }
        assert_eq!(answer(loose, libc::SYS_bpf, [0; 3]), REFUSE);
    }
}
