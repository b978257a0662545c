//! What a stranger's script may try. Each attempt is made for real, by a program inside.
#![allow(
    unsafe_code,
    reason = "system calls by their numbers, as a stranger makes them; no safe crate has them all"
)]

use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use super::{Outcome, Root, inside, run, shell};
use sandbox::SandboxError;

pub(super) const TESTS: [super::Test; 9] = [
    ("doors_of_the_kernel_are_shut", doors_of_the_kernel_are_shut),
    ("no_file_of_the_kernels_tells_or_takes_anything", no_file_of_the_kernels_tells_or_takes_anything),
    ("no_device_of_the_host_is_there", no_device_of_the_host_is_there),
    ("no_way_of_the_network_leads_out", no_way_of_the_network_leads_out),
    ("the_hosts_sockets_and_shared_memory_are_not_there", the_hosts_sockets_and_shared_memory_are_not_there),
    ("no_process_of_the_host_can_be_reached", no_process_of_the_host_can_be_reached),
    ("nothing_can_be_typed_into_a_terminal", nothing_can_be_typed_into_a_terminal),
    ("a_fork_bomb_ends", a_fork_bomb_ends),
    ("no_link_leads_a_mount_out_of_the_root", no_link_leads_a_mount_out_of_the_root),
];

/// A system call; its error's number, or 0.
fn call(number: libc::c_long, arguments: [usize; 6]) -> i32 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the calls below are given no pointer or one to a static text; whatever they do, they do it to this
    // process, which is about to end.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer == -1 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
}

fn text(text: &'static std::ffi::CStr) -> usize {
    text.as_ptr() as usize
}

/// Structures of zeros, which the kernel takes for empty ones.
static ZEROS: [u64; 64] = [0; 64];
/// A scheduling priority.
static ONE: [u32; 1] = [1];

/// Calls that would reach the host, with arguments that a privileged process could use.
fn doors() -> Vec<(&'static str, libc::c_long, [usize; 6])> {
    const NONE: usize = usize::MAX;
    let zeros = ZEROS.as_ptr() as usize;
    let init = 1;
    let mut doors = vec![
        ("bpf", libc::SYS_bpf, [0, zeros, 48, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [zeros, 0, NONE, NONE, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0, 0, 0]),
        ("kexec_file_load", libc::SYS_kexec_file_load, [0, 0, 0, 0, 4, 0]),
        ("init_module", libc::SYS_init_module, [zeros, 8, zeros, 0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [0, zeros, 0, 0, 0, 0]),
        ("delete_module", libc::SYS_delete_module, [text(c"ext4"), 0, 0, 0, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [NONE, zeros, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0; 6]),
        ("reboot", libc::SYS_reboot, [0xfee1_dead, 0x2812_1969, 0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [text(c"/etc"), 0, 0, 0, 0, 0]),
        ("swapoff", libc::SYS_swapoff, [text(c"/etc"), 0, 0, 0, 0, 0]),
        ("settimeofday", libc::SYS_settimeofday, [zeros, 0, 0, 0, 0, 0]),
        ("clock_settime", libc::SYS_clock_settime, [0, zeros, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [0; 6]),
        ("sethostname", libc::SYS_sethostname, [text(c"other"), 5, 0, 0, 0, 0]),
        ("setdomainname", libc::SYS_setdomainname, [text(c"other"), 5, 0, 0, 0, 0]),
        ("acct", libc::SYS_acct, [text(c"/etc/acct"), 0, 0, 0, 0, 0]),
        ("quotactl", libc::SYS_quotactl, [0x80_0002 << 8, text(c"/"), 0, 0, 0, 0]),
        ("syslog", libc::SYS_syslog, [3, zeros, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, NONE - 2, 0, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [text(c"user"), text(c"a"), zeros, 1, NONE - 2, 0]),
        ("request_key", libc::SYS_request_key, [text(c"user"), text(c"a"), 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, zeros, 0, 0, 0, 0]),
        ("vhangup", libc::SYS_vhangup, [0; 6]),
        ("mount", libc::SYS_mount, [text(c"none"), text(c"/etc"), text(c"tmpfs"), 0, 0, 0]),
        ("remount", libc::SYS_mount, [text(c"none"), text(c"/usr"), 0, libc::MS_REMOUNT as usize, 0, 0]),
        ("umount", libc::SYS_umount2, [text(c"/proc/sys"), 2, 0, 0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [text(c"/etc"), text(c"/etc"), 0, 0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [text(c"binfmt_misc"), 0, 0, 0, 0, 0]),
        ("fspick", libc::SYS_fspick, [NONE, text(c"/proc"), 0, 0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [NONE, text(c"/"), 1, 0, 0, 0]),
        ("move_mount", libc::SYS_move_mount, [NONE, text(c"/proc/sys"), NONE, text(c"/etc"), 0, 0]),
        ("mount_setattr", libc::SYS_mount_setattr, [NONE, text(c"/usr"), 0, zeros, 32, 0]),
        ("fanotify_init", libc::SYS_fanotify_init, [0; 6]),
        ("ptrace init", libc::SYS_ptrace, [0x4206, init, 0, 0, 0, 0]),
        ("kcmp with init", libc::SYS_kcmp, [init, init, 0, 0, 1, 0]),
        ("priority", libc::SYS_setpriority, [0, 0, NONE - 19, 0, 0, 0]),
        ("real time", libc::SYS_sched_setscheduler, [0, 1, ONE.as_ptr() as usize, 0, 0, 0]),
        ("real-time disk", libc::SYS_ioprio_set, [1, 0, 1 << 13, 0, 0, 0]),
    ];
    for (name, flag) in [
        ("a user namespace", libc::CLONE_NEWUSER),
        ("a mount namespace", libc::CLONE_NEWNS),
        ("a pid namespace", libc::CLONE_NEWPID),
        ("a network namespace", libc::CLONE_NEWNET),
        ("a cgroup namespace", libc::CLONE_NEWCGROUP),
        ("an ipc namespace", libc::CLONE_NEWIPC),
        ("a time namespace", 0x80),
    ] {
        doors.push((name, libc::SYS_unshare, [flag as usize, 0, 0, 0, 0, 0]));
    }
    #[cfg(target_arch = "x86_64")]
    doors.extend([
        ("iopl", libc::SYS_iopl, [3, 0, 0, 0, 0, 0]),
        ("ioperm", libc::SYS_ioperm, [0x70, 1, 1, 0, 0, 0]),
    ]);
    doors
}

fn doors_of_the_kernel_are_shut() -> Outcome {
    let root = Root::new();
    assert_eq!(inside(&root.sandbox(), "doors"), "all shut\n");
    Ok(())
}

fn no_file_of_the_kernels_tells_or_takes_anything() -> Outcome {
    let root = Root::new();
    assert_eq!(inside(&root.sandbox(), "kernel files"), "nothing\n");
    Ok(())
}

fn no_device_of_the_host_is_there() -> Outcome {
    let root = Root::new();
    // Nodes that were there before, as in a root that somebody else has made, do not work either. Only the host's root can
    // make them, and only outside of a user namespace; a FIFO and a link stand for them here.
    std::os::unix::fs::symlink("/proc/1/root/dev/sda", root.path().join("etc/disk")).unwrap();
    let script = "for name in kmsg mem port kvm fuse loop0 loop-control sda vda nvme0n1 net/tun uinput vhost-net vhost-vsock \
                  hpet rtc0 mapper/control snapshot ttyS0 tty0 tty1 console vcs input/event0 dri/card0; do \
                  [ ! -e /dev/$name ] || echo $name; done; cat /etc/disk 2>/dev/null || echo refused; \
                  mknod /etc/sda b 8 0 2>/dev/null || echo refused; mknod /dev/shm/mem c 1 1 2>/dev/null || echo refused";
    assert_eq!(shell(&root.sandbox(), script), "refused\nrefused\nrefused\n");
    Ok(())
}

fn no_way_of_the_network_leads_out() -> Outcome {
    let root = Root::new();
    assert_eq!(inside(&root.sandbox(), "network"), "nowhere\n");
    Ok(())
}

fn the_hosts_sockets_and_shared_memory_are_not_there() -> Outcome {
    let name = format!("bakehouse-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    assert!(UnixStream::connect_addr(&address).is_ok(), "the socket can be reached from outside");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _other = UnixListener::bind(&path).unwrap();
    // SAFETY: makes a segment of shared memory for this user alone; nothing is mapped.
    let segment = unsafe { libc::shmget(SHARED_KEY, 4096, libc::IPC_CREAT | 0o600) };
    assert!(segment >= 0);
    let root = Root::new();
    let sandbox = root.sandbox().env("ABSTRACT", &name).env("SOCKET", &path);
    let found = run(&sandbox, &["/run/probe", "--inside", "hostile: shared"]).1;
    // SAFETY: takes the segment away again.
    unsafe { libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()) };
    assert_eq!(found, "nothing\n");
    Ok(())
}

/// The name of the segment that the test makes outside.
const SHARED_KEY: libc::key_t = 0x6261_6b65;

fn no_process_of_the_host_can_be_reached() -> Outcome {
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    let root = Root::new();
    let sandbox =
        root.sandbox().env("HOST", sleeper.id().to_string()).env("BAKER", std::process::id().to_string());
    let script = "for id in $HOST $BAKER; do kill -0 $id 2>/dev/null && echo reached; ls /proc/$id 2>/dev/null || true; done; \
                  kill -9 -1 2>/dev/null || true; echo alive; ls -d /proc/[0-9]* | wc -l";
    let seen = shell(&sandbox, script);
    let alive = sleeper.try_wait().unwrap().is_none();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(alive, "a process of the host was killed");
    // init, the shell, ls, wc and perhaps a copy of the shell.
    let (word, count) = seen.trim().split_once('\n').unwrap();
    assert_eq!(word, "alive");
    assert!(count.parse::<u32>().unwrap() <= 5, "{count} processes");
    Ok(())
}

fn nothing_can_be_typed_into_a_terminal() -> Outcome {
    let root = Root::new();
    assert_eq!(inside(&root.sandbox(), "terminal"), "nothing\n");
    Ok(())
}

fn a_fork_bomb_ends() -> Outcome {
    let root = Root::new();
    // Each of them waits, so that a machine that is slow to count does not choke on them.
    let script = "n=0; while [ $n -lt 100000 ]; do sleep 1000 & n=$((n + 1)); done; wait";
    let (exit, _) = run(&root.sandbox(), &["sh", "-c", script]);
    match exit {
        Err(SandboxError::TooManyProcesses { most: 4096, .. }) => {}
        // The kernel refused before we had counted.
        Ok(exit) if !exit.success() => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(shell(&root.sandbox(), "echo alive"), "alive\n");
    Ok(())
}

fn no_link_leads_a_mount_out_of_the_root() -> Outcome {
    // A script of one run can make links where the next run mounts.
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(outside.path().join("mine"), "of the host").unwrap();
    for name in ["dev", "proc", "run", "tmp", "sys"] {
        let root = Root::new();
        fs::remove_dir(root.path().join(name)).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join(name)).unwrap();
        let before = fs::metadata(outside.path()).unwrap();
        let (exit, output) =
            run(&root.sandbox(), &["sh", "-c", "cat /dev/mine /proc/mine /run/mine /tmp/mine /sys/mine"]);
        assert!(!output.contains("of the host"), "{name}: {output}");
        assert!(!exit.is_ok_and(|exit| exit.success()), "{name}");
        let after = fs::metadata(outside.path()).unwrap();
        assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()), "{name}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{name}");
    }
    Ok(())
}

/// What the program inside does; false when the word is not known here.
pub(super) fn act(what: &str) -> bool {
    match what {
        "doors" => {
            let mut open = false;
            for (name, number, arguments) in doors() {
                let errno = call(number, arguments);
                if ![libc::EPERM, libc::EACCES, libc::ENOSYS].contains(&errno) {
                    println!("{name}: {}", std::io::Error::from_raw_os_error(errno));
                    open = true;
                }
            }
            if !open {
                println!("all shut");
            }
        }
        "kernel files" => try_kernel_files(),
        "network" => try_network(),
        "hostile: shared" => {
            let name = std::env::var("ABSTRACT").unwrap_or_default();
            let address = SocketAddr::from_abstract_name(name).unwrap();
            if UnixStream::connect_addr(&address).is_ok() {
                println!("the abstract socket answers");
            }
            if UnixStream::connect(std::env::var_os("SOCKET").unwrap_or_default()).is_ok() {
                println!("the socket in a folder answers");
            }
            if call(libc::SYS_shmget, [SHARED_KEY as usize, 0, 0, 0, 0, 0]) != libc::ENOENT {
                println!("the shared memory is there");
            }
            println!("nothing");
        }
        "terminal" => {
            if fs::File::open("/dev/tty").is_ok() {
                println!("there is a terminal");
            }
            for descriptor in 0..3 {
                // SAFETY: puts one character into a terminal, where there is one.
                let typed = unsafe { libc::ioctl(descriptor, libc::TIOCSTI, c"x".as_ptr()) };
                if typed == 0 {
                    println!("descriptor {descriptor} takes what is typed");
                }
            }
            println!("nothing");
        }
        _ => return false,
    }
    true
}

fn try_kernel_files() {
    // Telling: each must be missing, refused or empty.
    for path in [
        "/proc/kmsg",
        "/proc/kcore",
        "/proc/kallsyms",
        "/proc/keys",
        "/proc/key-users",
        "/proc/config.gz",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/iomem",
        "/proc/slabinfo",
        "/proc/1/environ",
        "/proc/1/maps",
        "/proc/1/mem",
        "/proc/1/root/etc/passwd",
        "/proc/1/cwd/etc/passwd",
        "/proc/1/exe",
        "/proc/1/stack",
        "/proc/1/fd/0",
        "/proc/1/task/1/environ",
        "/proc/bus/pci/devices",
        "/proc/fs/ext4",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/fs/binfmt_misc/status",
        "/sys/kernel/uevent_seqnum",
        "/sys/class/net",
    ] {
        let mut bytes = [0; 64];
        if fs::File::open(path).and_then(|mut file| file.read(&mut bytes)).is_ok_and(|read| read > 0) {
            println!("{path} can be read");
        }
    }
    // Taking: none must let itself be written.
    for (path, text) in [
        ("/proc/sysrq-trigger", "h"),
        ("/proc/sys/kernel/core_pattern", "|/etc/x"),
        ("/proc/sys/kernel/modprobe", "/etc/x"),
        ("/proc/sys/kernel/pid_max", "301"),
        ("/proc/sys/vm/drop_caches", "1"),
        ("/proc/sys/net/ipv4/ip_forward", "1"),
        ("/proc/sys/fs/binfmt_misc/register", ":x:M::x::/etc/x:"),
        ("/proc/self/oom_score_adj", "-1000"),
        ("/proc/self/uid_map", "0 0 1"),
        ("/proc/self/setgroups", "deny"),
        ("/proc/1/mem", "x"),
        ("/proc/scsi/scsi", "x"),
        ("/proc/acpi/wakeup", "x"),
        ("/proc/mtrr", "x"),
    ] {
        let file = fs::OpenOptions::new().write(true).open(path);
        if file.and_then(|mut file| file.write_all(text.as_bytes())).is_ok() {
            println!("{path} can be written");
        }
    }
    if Path::new("/proc/1/root").read_dir().is_ok() || Path::new("/proc/1/cwd").read_dir().is_ok() {
        println!("the first process's folders can be listed");
    }
    println!("nothing");
}

fn try_network() {
    use std::net::{TcpStream, UdpSocket};
    let addresses = [
        "169.254.169.254:80",
        "192.0.2.1:53",
        "10.0.2.2:22",
        "[2001:db8::1]:80",
        "[fe80::1]:80",
        "224.0.0.251:5353",
        "255.255.255.255:67",
    ];
    for address in addresses {
        let address: std::net::SocketAddr = address.parse().unwrap();
        if TcpStream::connect(address).is_ok() {
            println!("{address} answers");
        }
        let own = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let sent = UdpSocket::bind(own).and_then(|socket| {
            socket.set_broadcast(true)?;
            socket.send_to(b"x", address)
        });
        if sent.is_ok() {
            println!("a datagram to {address} leaves");
        }
    }
    // Sockets below IP, and an interface or a route of one's own.
    for (name, family, kind) in [
        ("packet", libc::AF_PACKET, libc::SOCK_RAW),
        ("raw", libc::AF_INET, libc::SOCK_RAW),
        ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM),
        ("bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW),
        ("can", libc::AF_CAN, libc::SOCK_RAW),
        ("tipc", libc::AF_TIPC, libc::SOCK_STREAM),
        ("rds", libc::AF_RDS, libc::SOCK_SEQPACKET),
        ("kernel cryptography", libc::AF_ALG, libc::SOCK_SEQPACKET),
    ] {
        if call(libc::SYS_socket, [family as usize, kind as usize, 0, 0, 0, 0]) == 0 {
            println!("there is a {name} socket");
        }
    }
    println!("nowhere");
}
