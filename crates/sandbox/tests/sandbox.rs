//! Runs real programs in real namespaces. The namespace must be entered before any thread is started, which the usual
//! test harness does not allow; so this one has its own. Arguments choose tests by a part of their names.
//!
//! The same binary serves as the program inside (`--inside WHAT`), as a baker that gets killed (`--baker ROOT`), as one
//! whose input and output a program gets (`--attach ROOT PROGRAM…`) and as the test of an ordinary user (`--ordinary`).
#![allow(clippy::print_stdout, reason = "a test runner tells its results there")]

mod owners;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::mount::MountFlags;
use rustix::net::{AddressFamily, SocketType};
use sandbox::{Exit, Identity, Input, Sandbox, SandboxError};

#[path = "sandbox/hostile.rs"]
mod hostile;

/// What a test ends with when the machine lacks something that it needs.
struct Skipped(String);

type Outcome = Result<(), Skipped>;
type Test = (&'static str, fn() -> Outcome);

const TESTS: [Test; 29] = [
    ("programs_run_as_root_in_a_fixed_environment", programs_run_as_root_in_a_fixed_environment),
    ("files_can_be_given_to_any_id", files_can_be_given_to_any_id),
    ("the_network_ends_at_the_loopback", the_network_ends_at_the_loopback),
    ("no_file_of_the_host_is_visible", no_file_of_the_host_is_visible),
    ("a_second_chroot_is_no_way_out", a_second_chroot_is_no_way_out),
    ("no_descriptor_leaks", no_descriptor_leaks),
    ("the_first_process_tells_nothing", the_first_process_tells_nothing),
    ("proc_tells_nothing_of_the_host", proc_tells_nothing_of_the_host),
    ("sys_is_empty", sys_is_empty),
    ("devices_are_few_and_their_nodes_cannot_be_changed", devices_are_few_and_their_nodes_cannot_be_changed),
    ("calls_that_reach_the_host_are_refused", calls_that_reach_the_host_are_refused),
    ("mounts_are_allowed_on_demand_only", mounts_are_allowed_on_demand_only),
    ("uname_and_host_name_are_fixed", uname_and_host_name_are_fixed),
    ("sync_is_suppressed_on_demand", sync_is_suppressed_on_demand),
    ("exit_codes_and_signals_come_back", exit_codes_and_signals_come_back),
    ("output_comes_while_the_program_runs", output_comes_while_the_program_runs),
    ("a_program_reads_the_bytes_that_it_is_given", a_program_reads_the_bytes_that_it_is_given),
    ("somebody_can_talk_to_a_program_by_pipes", somebody_can_talk_to_a_program_by_pipes),
    ("somebody_can_talk_to_a_program_by_a_terminal", somebody_can_talk_to_a_program_by_a_terminal),
    (
        "what_stays_in_the_background_dies_with_the_program",
        what_stays_in_the_background_dies_with_the_program,
    ),
    ("orphans_are_buried", orphans_are_buried),
    ("a_killed_baker_takes_its_sandbox_along", a_killed_baker_takes_its_sandbox_along),
    ("a_panic_in_the_output_kills_the_sandbox", a_panic_in_the_output_kills_the_sandbox),
    (
        "nothing_stays_mounted_and_nothing_stays_in_the_root",
        nothing_stays_mounted_and_nothing_stays_in_the_root,
    ),
    ("binds_and_hidden_files_lie_where_they_should", binds_and_hidden_files_lie_where_they_should),
    ("another_user_can_be_chosen", another_user_can_be_chosen),
    ("mistakes_are_named", mistakes_are_named),
    ("sandboxes_run_side_by_side", sandboxes_run_side_by_side),
    ("file_capabilities_read_as_they_were_written", file_capabilities_read_as_they_were_written),
];

/// What lies beside `/usr` on a host where it is not a part of it.
const FOLDERS: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Whether such a folder is one of its own here; else it is a link into `/usr`, or not there.
fn is_folder(name: &str) -> bool {
    fs::symlink_metadata(format!("/{name}")).is_ok_and(|stat| stat.is_dir())
}

/// A sandbox with the host's programs. They need not have the locale of a sandbox's environment, and a shell would say so.
fn borrowing(root: &Path) -> Sandbox {
    lent(root).env("LC_ALL", "C")
}

/// The same with a sandbox's own environment.
fn lent(root: &Path) -> Sandbox {
    let sandbox = Sandbox::new(root).bind(Path::new("/usr"), "/usr", true);
    FOLDERS.iter().filter(|name| is_folder(name)).fold(sandbox, |sandbox, name| {
        let folder = format!("/{name}");
        sandbox.bind(Path::new(&folder), &folder, true)
    })
}

/// A root folder that borrows the host's programs.
struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["usr", "etc", "root", "var", "proc", "sys", "dev", "tmp", "run"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in FOLDERS {
            let place = folder.path().join(name);
            match is_folder(name) {
                true => fs::create_dir(place).unwrap(),
                false => symlink(format!("usr/{name}"), place).unwrap(),
            }
        }
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn sandbox(&self) -> Sandbox {
        let program = std::env::current_exe().unwrap();
        borrowing(self.path()).bind(&program, "/run/probe", true)
    }

    /// A named pipe: whoever reads it sees its end when the last process inside that has it open is dead.
    fn pipe(&self) -> PathBuf {
        let path = self.path().join("pipe");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        path
    }
}

fn run(sandbox: &Sandbox, argv: &[&str]) -> (Result<Exit, SandboxError>, String) {
    let mut output = Vec::new();
    let exit = sandbox.run(argv, Input::Null, &mut |bytes| output.extend_from_slice(bytes));
    (exit, String::from_utf8_lossy(&output).into_owned())
}

/// Runs a program that must succeed.
fn succeed(sandbox: &Sandbox, argv: &[&str]) -> String {
    let (exit, output) = run(sandbox, argv);
    let exit = exit.unwrap();
    assert!(exit.success(), "{exit}: {output}");
    assert_eq!(exit.notes, Vec::<String>::new());
    output
}

fn shell(sandbox: &Sandbox, script: &str) -> String {
    succeed(sandbox, &["sh", "-ec", script])
}

fn inside(sandbox: &Sandbox, what: &str) -> String {
    succeed(sandbox, &["/run/probe", "--inside", what])
}

fn programs_run_as_root_in_a_fixed_environment() -> Outcome {
    let root = Root::new();
    let sandbox = root.sandbox().env("SOURCE_DATE_EPOCH", "1");
    assert_eq!(shell(&sandbox, "id -u; id -g; id -G; umask; pwd; echo $$"), "0\n0\n0\n0022\n/\n2\n");
    assert_eq!(
        succeed(&lent(root.path()).env("SOURCE_DATE_EPOCH", "1"), &["env"]),
        "HOME=/root\nLC_ALL=C.UTF-8\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         SOURCE_DATE_EPOCH=1\nTERM=dumb\n"
    );
    assert_eq!(succeed(&sandbox.clone().env_clear().env("A", "b=c"), &["/usr/bin/env"]), "A=b=c\n");
    assert_eq!(shell(&sandbox.clone().workdir("/usr"), "pwd"), "/usr\n");
    assert_eq!(shell(&sandbox, "ulimit -Sn; ulimit -Hn; ulimit -c"), "1024\n4096\n0\n");
    Ok(())
}

fn files_can_be_given_to_any_id() -> Outcome {
    let root = Root::new();
    let script =
        "cd /etc; for id in 0 1 1000 65533 65535; do touch $id; chown $id:$id $id; stat -c %u:%g $id; done";
    assert_eq!(shell(&root.sandbox(), script), "0:0\n1:1\n1000:1000\n65533:65533\n65535:65535\n");
    for id in [0, 1, 1000, 65533, 65535] {
        let meta = fs::metadata(root.path().join(format!("etc/{id}"))).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (id, id), "as the baker sees it");
    }
    Ok(())
}

fn the_network_ends_at_the_loopback() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{}", listener.local_addr().unwrap().port());
    let Ok(outside) = Command::new("bash").args(["-c", &connect]).stderr(Stdio::null()).status() else {
        return Err(Skipped("there is no bash".into()));
    };
    assert!(outside.success(), "the listener can be reached from outside");
    let root = Root::new();
    let (exit, output) = run(&root.sandbox(), &["bash", "-c", &connect]);
    assert!(!exit.unwrap().success());
    assert!(output.contains("Connection refused"), "{output}");
    let interfaces = shell(&root.sandbox(), "cat /proc/net/dev");
    let names: Vec<_> =
        interfaces.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    assert_eq!(names, ["lo"]);
    assert_eq!(inside(&root.sandbox(), "loopback"), "hello\n", "the loopback is up");
    let (exit, output) = run(&root.sandbox(), &["bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/80"]);
    assert!(!exit.unwrap().success());
    assert!(output.contains("Network is unreachable"), "{output}");
    Ok(())
}

fn no_file_of_the_host_is_visible() -> Outcome {
    let root = Root::new();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "of the host").unwrap();
    symlink(&secret, root.path().join("link")).unwrap();
    symlink("../../../../../../../../etc", root.path().join("up")).unwrap();
    fs::write(root.path().join("etc/hostname"), "of the root\n").unwrap();
    let sandbox = root.sandbox();
    assert_eq!(
        shell(&sandbox, "ls -A / | tr '\\n' ' '"),
        "bin dev etc lib lib64 link proc root run sbin sys tmp up usr var "
    );
    assert_eq!(shell(&sandbox, "cat /../../etc/hostname /up/hostname"), "of the root\nof the root\n");
    assert_eq!(shell(&sandbox, "ls -A /proc/1/root/ 2>/dev/null || echo refused"), "refused\n");
    for path in [format!("/../../../../..{}", secret.display()), secret.display().to_string(), "/link".into()]
    {
        let (exit, output) = run(&sandbox, &["cat", &path]);
        assert!(!exit.unwrap().success());
        assert!(output.contains("No such file or directory"), "{output}");
    }
    Ok(())
}

fn a_second_chroot_is_no_way_out() -> Outcome {
    let root = Root::new();
    assert_eq!(
        inside(&root.sandbox(), "chroot"),
        "bin dev etc jail lib lib64 proc root run sbin sys tmp usr var\n"
    );
    Ok(())
}

fn no_descriptor_leaks() -> Outcome {
    let root = Root::new();
    let leak = File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    assert_eq!(shell(&root.sandbox(), "readlink /proc/1/fd/3 || echo refused"), "refused\n");
    assert_eq!(inside(&root.sandbox(), "descriptors"), "0 1 2\n");
    Ok(())
}

fn the_first_process_tells_nothing() -> Outcome {
    let root = Root::new();
    let script = "tr -d '\\0' </proc/1/cmdline; echo; cat /proc/1/comm; cat /proc/1/environ 2>/dev/null || echo refused; \
                  readlink /proc/1/exe || echo refused; kill -9 1; kill -TERM 1; echo alive";
    assert_eq!(shell(&root.sandbox(), script), "init\ninit\nrefused\nrefused\nalive\n");
    Ok(())
}

fn proc_tells_nothing_of_the_host() -> Outcome {
    let root = Root::new();
    let shown = shell(&root.sandbox(), "cd /proc; for file in *; do [ -f $file ] && cat $file; done; true");
    for what in [
        "/proc/cpuinfo",
        "/proc/modules",
        "/proc/mounts",
        "/proc/sys/kernel/osrelease",
        "/proc/sys/kernel/random/boot_id",
    ] {
        let Ok(host) = fs::read_to_string(what) else { continue };
        for line in host.lines().filter(|line| line.len() > 15 && !line.starts_with("proc /proc")) {
            assert!(!shown.contains(line), "{what}: {line}");
        }
    }
    let release = rustix::system::uname();
    assert!(!shown.contains(release.release().to_str().unwrap()));
    assert_eq!(
        shell(
            &root.sandbox(),
            "cat /proc/version /proc/cmdline /proc/sys/kernel/osrelease; wc -l </proc/mounts"
        ),
        "Linux version 6.1.0-bakehouse (bakehouse) #1 SMP\n\n6.1.0-bakehouse\n6\n"
    );
    // What is shown is the listed entries, and those are covered by files and folders that cannot be written.
    let uncovered = shell(
        &root.sandbox(),
        "cd /proc; covered=$(cat self/mountinfo); for name in [a-z]*; do \
         case $covered in *\" /proc/$name ro\"*) ;; *) echo $name ;; esac; done",
    );
    assert_eq!(uncovered, "net\nself\nthread-self\n");
    let uuids = shell(&root.sandbox(), "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/uuid");
    let (one, other) = uuids.trim().split_once('\n').unwrap();
    assert!(one.len() == 36 && other.len() == 36 && one != other);
    let (exit, _) = run(&root.sandbox(), &["sh", "-c", "echo x > /proc/sys/kernel/hostname"]);
    assert!(!exit.unwrap().success());
    Ok(())
}

fn sys_is_empty() -> Outcome {
    let root = Root::new();
    fs::create_dir(root.path().join("sys/class")).unwrap();
    assert_eq!(shell(&root.sandbox(), "ls -A /sys; mkdir /sys/x 2>/dev/null || echo refused"), "refused\n");
    fs::remove_dir_all(root.path().join("sys")).unwrap();
    assert_eq!(shell(&root.sandbox(), "[ -e /sys ] || echo none"), "none\n");
    Ok(())
}

fn devices_are_few_and_their_nodes_cannot_be_changed() -> Outcome {
    let root = Root::new();
    let stat = || {
        let stat = fs::metadata("/dev/null").unwrap();
        (stat.mode(), stat.uid(), stat.ctime(), stat.ctime_nsec())
    };
    let before = stat();
    // Nor through what a program reads, which is nothing.
    assert_eq!(
        shell(
            &root.sandbox(),
            "chmod 600 /proc/self/fd/0 2>/dev/null; wc -c; (echo x >&0) 2>/dev/null || wc -c"
        ),
        "0\n0\n"
    );
    assert_eq!(stat(), before);
    let sandbox = root.sandbox().device_link("/dev/disk/by-uuid/1234-ABCD", "../../vda1");
    let script = "ls -A /dev | tr '\\n' ' '; echo; readlink /dev/disk/by-uuid/*; chmod 600 /dev/null 2>/dev/null || echo refused; \
                  rm -f /dev/null 2>/dev/null || echo refused; echo gone >/dev/null; head -c 4 /dev/zero | wc -c; \
                  head -c 4 /dev/urandom | wc -c; echo x 2>/dev/null >/dev/full || echo full; echo out >/dev/stdout; touch /dev/shm/x";
    assert_eq!(
        shell(&sandbox, script),
        "disk fd full null ptmx pts random shm stderr stdin stdout tty urandom zero \n../../vda1\nrefused\nrefused\n4\n4\nfull\nout\n"
    );
    assert_eq!(stat(), before);
    Ok(())
}

fn calls_that_reach_the_host_are_refused() -> Outcome {
    let root = Root::new();
    assert_eq!(
        inside(&root.sandbox(), "forbidden"),
        "mknod of a disk: EPERM\nmknod of null: EPERM\nmount: EPERM\nhost name: EPERM\nuser namespace: EPERM\n\
         mount namespace: EPERM\nvsock: EAFNOSUPPORT\ncrypto socket: EAFNOSUPPORT\nraw socket: EPERM\nfifo: ok\nlocal socket: ok\n"
    );
    Ok(())
}

fn mounts_are_allowed_on_demand_only() -> Outcome {
    let root = Root::new();
    fs::create_dir(root.path().join("mnt")).unwrap();
    assert_eq!(inside(&root.sandbox(), "mount"), "mount: EPERM\n");
    assert_eq!(inside(&root.sandbox().may_mount(true), "mount"), "mount: ok\nunmount: ok\n");
    assert_eq!(fs::read_dir(root.path().join("mnt")).unwrap().count(), 0);
    Ok(())
}

fn uname_and_host_name_are_fixed() -> Outcome {
    let root = Root::new();
    let machine = rustix::system::uname().machine().to_str().unwrap().to_owned();
    let names = "uname -s -n -r -v -m; cat /proc/sys/kernel/hostname";
    assert_eq!(
        shell(&root.sandbox(), names),
        format!("Linux localhost 6.1.0-bakehouse #1 SMP {machine}\nlocalhost\n")
    );
    let other = root.sandbox().hostname("oven").kernel_release("6.12.0-x");
    assert_eq!(shell(&other, names), format!("Linux oven 6.12.0-x #1 SMP {machine}\noven\n"));
    assert_eq!(shell(&other.clone().user(1000, 1000), "uname -r"), "6.12.0-x\n");
    assert_eq!(shell(&other, "cat /proc/sys/kernel/hostname /proc/sys/kernel/osrelease"), "oven\n6.12.0-x\n");
    // Many callers at once.
    let crowd = "for n in 1 2 3 4 5 6 7 8; do (for m in 1 2 3 4 5; do uname -r; done) & done; wait";
    assert_eq!(shell(&other, crowd), "6.12.0-x\n".repeat(40));
    Ok(())
}

fn sync_is_suppressed_on_demand() -> Outcome {
    let root = Root::new();
    // On a pipe the kernel itself answers EINVAL.
    assert_eq!(inside(&root.sandbox(), "sync"), "fsync: ok\nfdatasync: ok\n");
    assert_eq!(inside(&root.sandbox().suppress_sync(false), "sync"), "fsync: EINVAL\nfdatasync: EINVAL\n");
    Ok(())
}

fn exit_codes_and_signals_come_back() -> Outcome {
    let root = Root::new();
    for (script, code, signal, text) in [
        ("exit 0", Some(0), None, "exit code 0"),
        ("exit 3", Some(3), None, "exit code 3"),
        ("exit 255", Some(255), None, "exit code 255"),
        ("kill -9 $$", None, Some(9), "killed by signal 9 (SIGKILL, as when memory runs out)"),
        ("kill -TERM $$", None, Some(15), "killed by signal 15 (SIGTERM)"),
        ("kill -PIPE $$", None, Some(13), "killed by signal 13 (SIGPIPE)"),
    ] {
        let exit = run(&root.sandbox(), &["sh", "-c", script]).0.unwrap();
        assert_eq!((exit.code, exit.signal), (code, signal), "{script}");
        assert_eq!(exit.to_string(), text);
        assert_eq!(exit.success(), code == Some(0));
    }
    Ok(())
}

fn output_comes_while_the_program_runs() -> Outcome {
    let root = Root::new();
    let answer = root.path().join("etc/answer");
    let mut output = Vec::new();
    let script = "echo question; until [ -e /etc/answer ]; do sleep 0.02; done; echo end >&2";
    let exit = root.sandbox().run(&["sh", "-c", script], Input::Null, &mut |bytes| {
        output.extend_from_slice(bytes);
        if output.ends_with(b"question\n") {
            fs::write(&answer, "").unwrap();
        }
    });
    assert!(exit.unwrap().success());
    assert_eq!(output, b"question\nend\n");
    let many = shell(&root.sandbox(), "head -c 3000000 /dev/zero");
    assert_eq!(many.len(), 3_000_000);
    Ok(())
}

fn a_program_reads_the_bytes_that_it_is_given() -> Outcome {
    let root = Root::new();
    let bytes = b"line\n".repeat(50_000);
    let mut output = Vec::new();
    let exit =
        root.sandbox().run(&["cat"], Input::Bytes(bytes.clone()), &mut |part| output.extend_from_slice(part));
    assert!(exit.unwrap().success());
    assert!(output == bytes);
    assert_eq!(shell(&root.sandbox(), "cat | wc -c"), "0\n");
    Ok(())
}

fn what_stays_in_the_background_dies_with_the_program() -> Outcome {
    let root = Root::new();
    let pipe = root.pipe();
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).unwrap());
    // The daemon keeps the output open, as careless ones do, and lives in a session of its own.
    let script = "/run/probe --inside daemon & \
                  until [ -e /etc/go ]; do sleep 0.02; done; echo done";
    let mut output = Vec::new();
    let exit = root.sandbox().run(&["sh", "-c", script], Input::Null, &mut |bytes| {
        output.extend_from_slice(bytes);
        if output == b"ready\n" {
            fs::write(root.path().join("etc/go"), "").unwrap();
        }
    });
    assert!(exit.unwrap().success());
    assert_eq!(output, b"ready\ndone\n");
    assert_eq!(reader.join().unwrap(), "up\n", "the pipe has come to its end");
    Ok(())
}

fn orphans_are_buried() -> Outcome {
    let root = Root::new();
    let script = "for n in 1 2 3 4 5; do sh -c 'sleep 0 & sleep 0 &' ; done; \
                  until [ $(ls -d /proc/[0-9]* 2>/dev/null | wc -l) -le 4 ]; do sleep 0.02; done; echo buried";
    assert_eq!(shell(&root.sandbox(), script), "buried\n");
    Ok(())
}

fn a_killed_baker_takes_its_sandbox_along() -> Outcome {
    let root = Root::new();
    let pipe = root.pipe();
    let mut baker =
        Command::new(std::env::current_exe().unwrap()).arg("--baker").arg(root.path()).spawn().unwrap();
    let mut reader = BufReader::new(File::open(pipe).unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    baker.kill().unwrap();
    baker.wait().unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "the pipe has come to its end");
    Ok(())
}

fn a_panic_in_the_output_kills_the_sandbox() -> Outcome {
    let root = Root::new();
    let pipe = root.pipe();
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).unwrap());
    let sandbox = root.sandbox();
    let panic = std::panic::catch_unwind(|| {
        let script = "exec 3>/pipe; echo up >&3; echo up; sleep 100000";
        sandbox.run(&["sh", "-c", script], Input::Null, &mut |_| std::panic::resume_unwind(Box::new(())))
    });
    assert!(panic.is_err());
    assert_eq!(reader.join().unwrap(), "up\n");
    Ok(())
}

fn nothing_stays_mounted_and_nothing_stays_in_the_root() -> Outcome {
    let root = Root::new();
    for folder in ["proc", "dev", "tmp", "run", "sys"] {
        fs::remove_dir(root.path().join(folder)).unwrap();
    }
    let listing = || {
        let mut names: Vec<_> = ["", "etc", "usr"]
            .into_iter()
            .flat_map(|folder| {
                let folder = root.path().join(folder);
                let meta = fs::metadata(&folder).unwrap();
                let own = (folder.clone(), meta.mtime(), meta.mtime_nsec());
                let entries = fs::read_dir(folder).unwrap().map(|entry| (entry.unwrap().path(), 0, 0));
                entries.chain([own]).collect::<Vec<_>>()
            })
            .collect();
        names.sort();
        names
    };
    let (files, mounts) = (listing(), fs::read_to_string("/proc/self/mountinfo").unwrap());
    let sandbox = root
        .sandbox()
        .bind(Path::new("/usr"), "/etc/a/b", true)
        .bind(Path::new("/etc/passwd"), "/etc/file", true)
        .hide_with("/usr/share/../nothing", b"", 0o644);
    assert!(matches!(run(&sandbox, &["true"]).0, Err(SandboxError::BadPath { .. })));
    let sandbox =
        root.sandbox().bind(Path::new("/usr"), "/etc/a/b", true).hide_with("/etc/hidden", b"x", 0o644);
    assert_eq!(shell(&sandbox, "touch /tmp/x /run/y /dev/shm/z; ls /etc; cat /etc/hidden"), "a\nhidden\nx");
    assert!(run(&sandbox, &["sh", "-c", "kill -9 $$"]).0.unwrap().signal.is_some());
    assert_eq!(listing(), files);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    Ok(())
}

fn binds_and_hidden_files_lie_where_they_should() -> Outcome {
    let root = Root::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "outside").unwrap();
    fs::write(root.path().join("etc/tool"), "real").unwrap();
    symlink("tool", root.path().join("etc/alias")).unwrap();
    fs::create_dir(root.path().join("run/service")).unwrap();
    fs::set_permissions(root.path().join("run/service"), fs::Permissions::from_mode(0o2750)).unwrap();
    let sandbox = root
        .sandbox()
        .bind(outside.path(), "/var/deep/writable", false)
        .bind(outside.path(), "/tmp/fixed/folder", true)
        .hide_with("/etc/alias", b"fake", 0o755)
        .hide_with("/run/fake", b"#!/bin/sh\necho fake\n", 0o755);
    let script = "cat /var/deep/writable/file /tmp/fixed/folder/file; echo; echo more >>/var/deep/writable/file; \
                  touch /tmp/fixed/folder/x 2>/dev/null || echo refused; cat /etc/tool; stat -c ' %a' /etc/tool; /run/fake; \
                  stat -c %a /run/service /run/lock /tmp";
    assert_eq!(shell(&sandbox, script), "outsideoutside\nrefused\nfake 755\nfake\n2750\n1777\n1777\n");
    assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "outsidemore\n");
    assert_eq!(fs::read_to_string(root.path().join("etc/tool")).unwrap(), "real");
    Ok(())
}

fn another_user_can_be_chosen() -> Outcome {
    let root = Root::new();
    let sandbox = root.sandbox().user(1000, 65533);
    let script = "id -u; id -g; id -G; echo open >/dev/stdout; touch /etc/x 2>/dev/null || echo refused; \
                  while read -r name value; do case $name in CapBnd:) ;; Cap*) echo $value ;; esac; done </proc/self/status | uniq -c";
    let said = shell(&sandbox, script);
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    assert_eq!(lines, ["1000", "65533", "65533", "open", "refused", "4 0000000000000000"]);
    Ok(())
}

fn mistakes_are_named() -> Outcome {
    let root = Root::new();
    let sandbox = root.sandbox();
    fs::write(root.path().join("etc/plain"), "no program").unwrap();
    fs::set_permissions(root.path().join("etc/plain"), fs::Permissions::from_mode(0o755)).unwrap();
    let error = |sandbox: &Sandbox, argv: &[&str]| run(sandbox, argv).0.unwrap_err().to_string();
    assert_eq!(
        error(&sandbox, &["no-such-program"]),
        "cannot execute \"no-such-program\" in the sandbox: No such file or directory (os error 2)"
    );
    assert_eq!(
        error(&sandbox, &["/etc/plain"]),
        "cannot execute \"/etc/plain\" in the sandbox: Exec format error (os error 8)"
    );
    assert_eq!(
        error(&sandbox, &["/usr/share"]),
        "cannot execute \"/usr/share\" in the sandbox: Permission denied (os error 13)"
    );
    assert_eq!(
        error(&sandbox.clone().workdir("/nowhere"), &["true"]),
        "the sandbox could not enter the folder /nowhere: No such file or directory (os error 2)"
    );
    assert_eq!(
        error(&sandbox, &["true", "a\0b"]),
        "the argument \"a\\0b\" cannot be passed to a program: it has a NUL byte in it"
    );
    assert!(matches!(run(&sandbox, &[]).0, Err(SandboxError::NoProgram)));
    assert!(matches!(run(&Sandbox::new(Path::new("/")), &["true"]).0, Err(SandboxError::Root { .. })));
    assert!(matches!(
        run(&Sandbox::new(&root.path().join("none")), &["true"]).0,
        Err(SandboxError::Root { .. })
    ));
    let bind = sandbox.clone().bind(Path::new("/no/such/path"), "/etc/x", true);
    assert_eq!(
        error(&bind, &["true"]),
        "cannot bind /no/such/path into the sandbox: No such file or directory (os error 2)"
    );
    let long = sandbox.clone().hostname(&"n".repeat(65));
    assert_eq!(
        error(&long, &["true"]),
        "the host name cannot be passed to a program: it is longer than 64 bytes"
    );
    let link = sandbox.clone().device_link("/etc/x", "y");
    assert!(matches!(run(&link, &["true"]).0, Err(SandboxError::BadPath { .. })));
    // A file cannot be laid over a folder.
    let hidden = sandbox.clone().hide_with("/etc", b"", 0o644);
    assert_eq!(
        error(&hidden, &["true"]),
        "cannot make the mount point /etc in the root: Is a directory (os error 21)"
    );
    let bind = sandbox.clone().bind(Path::new("/usr"), "/etc/plain", true);
    assert_eq!(
        error(&bind, &["true"]),
        "cannot make the mount point /etc/plain in the root: Not a directory (os error 20)"
    );
    Ok(())
}

fn sandboxes_run_side_by_side() -> Outcome {
    std::thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || {
                let root = Root::new();
                for round in 0..5 {
                    let echo = format!("echo {number}.{round}; uname -r");
                    assert_eq!(shell(&root.sandbox(), &echo), format!("{number}.{round}\n6.1.0-bakehouse\n"));
                }
            });
        }
    });
    Ok(())
}

fn file_capabilities_read_as_they_were_written() -> Outcome {
    let root = Root::new();
    let file = root.path().join("etc/file");
    fs::write(&file, "").unwrap();
    // cap_net_raw=ep, in the form that belongs into an image: revision 2, effective; permitted, inheritable; upper halves.
    let plain: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    rustix::fs::setxattr(&file, "security.capability", &plain, XattrFlags::empty()).unwrap();
    let mut read = [0; 64];
    let length = rustix::fs::getxattr(&file, "security.capability", &mut read).unwrap();
    assert_eq!(read[..length], plain);
    Ok(())
}

/// What the binary does as the program in a sandbox.
fn act_inside(what: &str) {
    if hostile::act(what) {
        return;
    }
    fn tell<T>(what: &str, result: rustix::io::Result<T>) {
        match result {
            Ok(_) => println!("{what}: ok"),
            Err(errno) => println!("{what}: {}", name(errno)),
        }
    }
    fn name(errno: rustix::io::Errno) -> String {
        use rustix::io::Errno;
        match errno {
            Errno::PERM => "EPERM".into(),
            Errno::AFNOSUPPORT => "EAFNOSUPPORT".into(),
            Errno::INVAL => "EINVAL".into(),
            Errno::FAULT => "EFAULT".into(),
            other => format!("{other:?}"),
        }
    }
    match what {
        "mount" => {
            let mounted = rustix::mount::mount("none", "/mnt", "tmpfs", MountFlags::empty(), None);
            tell("mount", mounted);
            if mounted.is_ok() {
                fs::write("/mnt/x", "").unwrap();
                tell("unmount", rustix::mount::unmount("/mnt", rustix::mount::UnmountFlags::empty()));
            }
        }
        "daemon" => {
            use std::os::unix::process::CommandExt;
            rustix::process::setsid().unwrap();
            let script = "trap '' TERM HUP; exec 3>/pipe; echo up >&3; echo ready; sleep 100000";
            panic!("{}", Command::new("sh").args(["-c", script]).exec());
        }
        "sync" => {
            let (read, _write) = rustix::pipe::pipe().unwrap();
            tell("fsync", rustix::fs::fsync(&read));
            tell("fdatasync", rustix::fs::fdatasync(&read));
        }
        "forbidden" => {
            let mode = Mode::from_raw_mode(0o600);
            let node = |path: &str, kind, device| rustix::fs::mknodat(CWD, path, kind, mode, device);
            tell("mknod of a disk", node("/etc/disk", FileType::BlockDevice, rustix::fs::makedev(8, 0)));
            tell("mknod of null", node("/etc/null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)));
            tell("mount", rustix::mount::mount("none", "/etc", "tmpfs", MountFlags::empty(), None));
            tell("host name", rustix::system::sethostname(b"other"));
            let unshare = |flag| {
                // The deprecated form is the one without unsafe code, and the process has one thread.
                #[expect(deprecated, reason = "its successor is unsafe")]
                rustix::thread::unshare(flag)
            };
            tell("user namespace", unshare(rustix::thread::UnshareFlags::NEWUSER));
            tell("mount namespace", unshare(rustix::thread::UnshareFlags::NEWNS));
            let socket = |family, kind| rustix::net::socket(family, kind, None);
            let ping =
                rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(rustix::net::ipproto::ICMP));
            tell("vsock", socket(AddressFamily::VSOCK, SocketType::STREAM));
            tell("crypto socket", socket(AddressFamily::from_raw(38), SocketType::SEQPACKET));
            tell("raw socket", ping);
            tell("fifo", node("/etc/fifo", FileType::Fifo, 0));
            tell("local socket", socket(AddressFamily::UNIX, SocketType::STREAM));
        }
        "descriptors" => {
            let flags = OFlags::RDONLY;
            let folder = rustix::fs::open("/proc/self/fd", flags | OFlags::DIRECTORY, Mode::empty()).unwrap();
            let own = std::os::fd::AsRawFd::as_raw_fd(&folder).to_string();
            let mut names: Vec<String> = rustix::fs::Dir::new(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .filter(|name| !name.starts_with('.') && *name != own)
                .collect();
            names.sort();
            println!("{}", names.join(" "));
        }
        "loopback" => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            server.write_all(b"hello").unwrap();
            drop(server);
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            println!("{text}");
        }
        "crowd" => owners::crowd(),
        "lists" => owners::lists(),
        "chroot" => {
            // The classic: a folder that was opened before stays outside of the new root.
            fs::create_dir("/jail").unwrap();
            let before = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            rustix::process::chroot("/jail").unwrap();
            rustix::process::fchdir(&before).unwrap();
            for _ in 0..64 {
                rustix::process::chdir("..").unwrap();
            }
            rustix::process::chroot(".").unwrap();
            let mut names: Vec<_> = fs::read_dir("/")
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            println!("{}", names.join(" "));
        }
        other => panic!("{other}: not known"),
    }
}

/// The part of a process that hands its own standard input and output to a program in a sandbox.
fn attach(root: &str, argv: &[&str]) -> ExitCode {
    sandbox::enter().unwrap();
    let sandbox = borrowing(Path::new(root));
    let exit = sandbox.attach(argv).unwrap();
    ExitCode::from(exit.code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

fn attached(root: &Root, argv: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--attach").arg(root.path()).args(argv);
    command
}

fn somebody_can_talk_to_a_program_by_pipes() -> Outcome {
    let root = Root::new();
    // A file of the host as standard input is no way to that file.
    let path = root.path().with_extension("input");
    fs::write(&path, "hello\n").unwrap();
    let script =
        "readlink /proc/self/fd/0 /proc/self/fd/1 | cut -d: -f1; read x; echo out $x; echo err >&2; exit 3";
    let mut command = attached(&root, &["sh", "-c", script]);
    let output = command.stdin(File::open(&path).unwrap()).output().unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "pipe\npipe\nout hello\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");
    assert_eq!(output.status.code(), Some(3));

    // More than pipes hold, in both directions, to its end.
    let mut child = attached(&root, &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut to, written) = (child.stdin.take().unwrap(), bytes.clone());
    let writer = std::thread::spawn(move || to.write_all(&written).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.stdout == bytes && output.status.success());

    // A reader who goes ends the program that writes without end.
    let mut child = attached(&root, &["yes"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert!(!child.wait().unwrap().success());
    Ok(())
}

fn somebody_can_talk_to_a_program_by_a_terminal() -> Outcome {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

    let root = Root::new();
    let person = match openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC) {
        Ok(person) => person,
        Err(error) => return Err(Skipped(format!("this machine gives no terminals: {error}"))),
    };
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = || ioctl_tiocgptpeer(&person, flags).unwrap();
    let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&person, size).unwrap();
    let held = terminal();
    let before = tcgetattr(&held).unwrap().local_modes;
    assert!(before.contains(LocalModes::ECHO));
    // Control-C goes to the program, in a session of its own, and the window has the person's size.
    let script = "trap 'echo caught; exit 9' INT; stty size; echo ready; while :; do sleep 0.1; done";
    let mut command = attached(&root, &["sh", "-c", script]);
    let mut child = command.stdin(terminal()).stdout(terminal()).stderr(terminal()).spawn().unwrap();
    drop(command);
    let mut person = File::from(person);
    let mut shown = String::new();
    let mut wait_for = |person: &mut File, text: &str| {
        let mut buffer = [0; 1024];
        while !shown.contains(text) {
            let length = person.read(&mut buffer).unwrap();
            shown += &String::from_utf8_lossy(&buffer[..length]);
        }
        shown.clone()
    };
    assert!(wait_for(&mut person, "ready").contains("33 77"));
    assert!(!tcgetattr(&held).unwrap().local_modes.contains(LocalModes::ECHO));
    person.write_all(&[3]).unwrap();
    wait_for(&mut person, "caught");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert_eq!(tcgetattr(&held).unwrap().local_modes, before);
    Ok(())
}

/// A baker that is killed while its sandbox runs.
fn bake_until_killed(root: &str) {
    sandbox::enter().unwrap();
    let sandbox = borrowing(Path::new(root));
    let script = "trap '' TERM HUP INT; exec 3>/pipe; echo up >&3; sleep 100000";
    let _ = sandbox.run(&["sh", "-c", script], Input::Null, &mut |_| {});
}

/// Runs the tests as an ordinary user with subordinate ids, in mounts of its own that lend it a user database.
fn an_ordinary_user_can_do_all_that() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Err(Skipped("only root can become another user".into()));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| folder.path().join(name);
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    fs::write(path("passwd"), format!("{passwd}baker:x:4242:4242::/:/bin/sh\n")).unwrap();
    fs::write(path("subuid"), "baker:100000:65536\n").unwrap();
    fs::write(path("subgid"), "baker:100000:65536\n").unwrap();
    fs::copy(std::env::current_exe().unwrap(), path("test")).unwrap();
    for file in ["/etc/subuid", "/etc/subgid"] {
        if !Path::new(file).exists() {
            return Err(Skipped(format!(
                "the ordinary user was not tested: there is no {file} to lay another over"
            )));
        }
    }
    let script = "for file in passwd subuid subgid; do mount --bind $0/$file /etc/$file; done; \
                  exec setpriv --reuid 4242 --regid 4242 --clear-groups $0/test --ordinary";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script]).arg(folder.path()).current_dir("/").env("TMPDIR", "/tmp");
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => return Err(Skipped(format!("the ordinary user was not tested: unshare: {error}"))),
    };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if text.contains("lack: Program") {
        return Err(Skipped("the ordinary user was not tested: there is no newuidmap".into()));
    }
    for line in text.lines() {
        println!("    as an ordinary user: {line}");
    }
    assert!(output.status.success());
    Ok(())
}

/// Runs the tests as an ordinary user who has no other ids.
fn an_ordinary_user_without_ids_can_do_all_that() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Err(Skipped("only root can become another user".into()));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "4243", "--regid", "4243", "--clear-groups"]).arg(&copy).arg("--alone");
    command.args(std::env::args().skip(1)).current_dir("/").env("TMPDIR", "/tmp");
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => return Err(Skipped(format!("setpriv: {error}"))),
    };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for line in text.lines() {
        println!("    as a user alone: {line}");
    }
    assert!(output.status.success());
    Ok(())
}

/// Signals that somebody sends to the process that keeps the owners reach the program, and both end by them.
fn the_keeper_of_owners_ends_as_its_program_does() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Err(Skipped("only root can become another user".into()));
    }
    let root = Root::new();
    let pipe = root.pipe();
    let copy = root.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    for path in [root.path().to_owned(), pipe.clone()] {
        std::os::unix::fs::chown(path, Some(4243), Some(4243)).unwrap();
    }
    for signal in ["TERM", "INT", "KILL"] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "4243", "--regid", "4243", "--clear-groups"]).arg(&copy).arg("--baker");
        let mut keeper = match command.arg(root.path()).current_dir("/").spawn() {
            Ok(keeper) => keeper,
            Err(error) => return Err(Skipped(format!("setpriv: {error}"))),
        };
        let mut reader = BufReader::new(File::open(&pipe).unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        let own = keeper.id().to_string();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        let program = children.split_whitespace().next().map(str::to_owned);
        let status = Command::new("kill").args([&format!("-{signal}"), &own]).status().unwrap();
        assert!(status.success());
        let status = keeper.wait().unwrap();
        let number = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(
            number,
            [("TERM", 15), ("INT", 2), ("KILL", 9)]
                .into_iter()
                .find(|(name, _)| *name == signal)
                .map(|(_, number)| number)
        );
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "the sandbox is gone");
        // Killed, the keeper cannot wait for the program, which follows by itself.
        if let Some(program) = program.filter(|_| signal != "KILL") {
            assert!(!Path::new("/proc").join(program).exists(), "and so is the program");
        }
    }
    Ok(())
}

fn entering_twice_changes_nothing() -> Outcome {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    assert_eq!(sandbox::enter().unwrap(), sandbox::enter().unwrap());
    assert_eq!(fs::read_to_string("/proc/self/uid_map").unwrap(), map);
    Ok(())
}

#[derive(Default)]
struct Tally {
    wanted: Vec<String>,
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Tally {
    fn test(&mut self, (name, test): Test) {
        if !self.wanted.is_empty() && !self.wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            return;
        }
        match std::panic::catch_unwind(test) {
            Ok(Ok(())) => {
                self.passed += 1;
                println!("test {name} ... ok");
            }
            Ok(Err(Skipped(reason))) => {
                self.skipped += 1;
                println!("test {name} ... SKIPPED: {reason}");
            }
            Err(_) => {
                self.failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--inside", what] => {
            act_inside(what);
            return ExitCode::SUCCESS;
        }
        ["--baker", root] => {
            bake_until_killed(root);
            return ExitCode::FAILURE;
        }
        ["--attach", root, argv @ ..] => return attach(root, argv),
        _ => {}
    }
    let user = match arguments.first().map(String::as_str) {
        Some("--ordinary") => Some(4242),
        Some("--alone") => Some(4243),
        _ => None,
    };
    let wanted = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut tally = Tally { wanted, ..Tally::default() };
    if user.is_none() {
        // Before this process enters a namespace of its own.
        tally.test(("an_ordinary_user_can_do_all_that", an_ordinary_user_can_do_all_that));
        tally.test((
            "an_ordinary_user_without_ids_can_do_all_that",
            an_ordinary_user_without_ids_can_do_all_that,
        ));
        tally.test((
            "the_keeper_of_owners_ends_as_its_program_does",
            the_keeper_of_owners_ends_as_its_program_does,
        ));
    }
    match sandbox::enter() {
        Ok(identity) => {
            match user {
                Some(4242) => assert_eq!(identity, Identity::Subordinate { uid: 4242, gid: 4242 }),
                Some(_) => {
                    assert!(
                        matches!(&identity, Identity::Pretended { uid: 4243, gid: 4243, .. }),
                        "{identity:?}"
                    );
                }
                None => {}
            }
            tally.test(("entering_twice_changes_nothing", entering_twice_changes_nothing));
            for test in TESTS.into_iter().chain(hostile::TESTS).chain(owners::TESTS) {
                tally.test(test);
            }
        }
        Err(error) => {
            println!("cannot enter a user namespace: {error}");
            tally.failed += 1;
        }
    }
    if tally.skipped > 0 {
        println!("{} skipped", tally.skipped);
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
