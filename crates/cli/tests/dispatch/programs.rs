//! Single programs of another architecture.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use dispatch::{Counts, Machine, Table};
use sandbox::{Foreign, Input, Sandbox};

use crate::bakes::{FOREIGN, ingredients, work_folder};

type Test = (&'static str, fn(&Target));

pub(crate) const TESTS: [Test; 12] = [
    ("a_program_runs_either_way", a_program_runs_either_way),
    ("everybody_answers_for_the_target", everybody_answers_for_the_target),
    ("versions_are_compared_natively", versions_are_compared_natively),
    ("links_and_descriptors_lead_to_the_program", links_and_descriptors_lead_to_the_program),
    ("a_program_keeps_the_name_that_it_is_called_by", a_program_keeps_the_name_that_it_is_called_by),
    ("scripts_run_by_their_interpreters", scripts_run_by_their_interpreters),
    ("the_environment_is_the_callers", the_environment_is_the_callers),
    ("what_is_meant_for_the_loader_reaches_the_targets", what_is_meant_for_the_loader_reaches_the_targets),
    ("another_file_in_its_place_is_emulated", another_file_in_its_place_is_emulated),
    ("without_a_table_all_is_emulated", without_a_table_all_is_emulated),
    ("another_root_has_no_emulator", another_root_has_no_emulator),
    ("sandboxes_share_nothing_but_the_kernel", sandboxes_share_nothing_but_the_kernel),
];

const MACHINE: Machine = match Machine::HOST {
    Machine::X86_64 => Machine::Aarch64,
    Machine::Aarch64 => Machine::X86_64,
};

/// A small root of the other architecture: the packages of a shell, unpacked.
pub(crate) struct Target {
    work: tempfile::TempDir,
}

impl Target {
    pub(crate) fn make() -> Self {
        let work = work_folder();
        let ingredients = ingredients(work.path(), FOREIGN, true);
        let foreign = ingredients.foreign.expect("it is another architecture");
        let native = foreign.native.expect("native dispatch was asked for");
        let (root, folder) = (work.path().join("root"), work.path().join("dispatch"));
        fs::create_dir(&root).unwrap();
        dispatch::lay_out(&folder, &foreign.emulator).unwrap();
        symlink(native.usr(), work.path().join("usr")).unwrap();
        let mut table = Table::new(&native);
        // Mount points stay: sandboxes run side by side.
        for name in ["proc", "sys", "dev", "tmp", "run", "etc", ".bh", "usr/bin", "usr/lib"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["bin", "lib", "sbin", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        const PACKAGES: [&str; 16] = [
            "libc6",
            "dash",
            "coreutils",
            "libselinux1",
            "libpcre2-8-0",
            "libacl1",
            "libattr1",
            "libgmp10",
            "libssl3t64",
            "zlib1g",
            "libzstd1",
            "perl-base",
            "libcrypt1",
            "dpkg",
            "libmd0",
            "libc-bin",
        ];
        for file in ingredients.files.iter().filter(|file| PACKAGES.contains(&file.name.as_str())) {
            unpack(&root, file, &mut table);
        }
        fs::write(folder.join(dispatch::TABLE), table.bytes()).unwrap();
        Self { work }
    }

    fn sandbox(&self) -> Sandbox {
        let folder = self.work.path().join("dispatch");
        Sandbox::new(&self.work.path().join("root"))
            .foreign(Foreign {
                machine: MACHINE.name(),
                elf_machine: MACHINE.elf(),
                handler: dispatch::HANDLER,
            })
            .bind(&folder, dispatch::FOLDER, true)
            .bind(&folder.join(dispatch::COUNT), "/.bh/count", false)
            .bind(&self.work.path().join("usr"), "/.bh/tree", true)
    }

    /// Runs a program that must succeed; its output, and what was started how.
    fn run(&self, sandbox: &Sandbox, argv: &[&str]) -> (String, Counts) {
        let count = self.work.path().join("dispatch").join(dispatch::COUNT);
        fs::write(&count, []).unwrap();
        let mut output = Vec::new();
        let exit = sandbox.run(argv, Input::Null, &mut |bytes| output.extend_from_slice(bytes));
        let output = String::from_utf8_lossy(&output).into_owned();
        let exit = exit.unwrap_or_else(|error| panic!("{error}"));
        assert!(exit.success(), "{argv:?}: {exit}: {output}");
        (output, Counts::read(&fs::read(&count).unwrap()))
    }

    fn shell(&self, script: &str) -> (String, Counts) {
        self.run(&self.sandbox(), &["sh", "-ec", script])
    }
}

fn unpack(root: &Path, package: &rootfs::PackageFile, table: &mut Table) {
    use debian::tar::Kind;
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    let mut deb = debian::deb::open(&package.path).unwrap();
    let mut data = deb.data().unwrap();
    while let Some(mut member) = data.next().unwrap() {
        let path = member.clean_path();
        let at = root.join(std::ffi::OsStr::from_bytes(&path));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        match member.kind.clone() {
            Kind::Dir => fs::create_dir_all(&at).unwrap(),
            Kind::File { size } => {
                let mut bytes = Vec::new();
                member.read_to_end(&mut bytes).unwrap();
                fs::write(&at, bytes).unwrap();
                fs::set_permissions(&at, fs::Permissions::from_mode(member.mode)).unwrap();
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(member.mtime as u64);
                fs::File::options().write(true).open(&at).unwrap().set_modified(time).unwrap();
                table.laid(&package.name, &package.version, &path, size, member.mtime);
            }
            Kind::Symlink(to) => symlink(std::ffi::OsStr::from_bytes(&to), &at).unwrap(),
            _ => {}
        }
    }
}

/// A variable that begins so makes the handler emulate: it might be meant for the target's loader.
const EMULATE: &str = "LD_BIND_NOW";

fn a_program_runs_either_way(target: &Target) {
    let (output, counts) = target.shell("echo one two | cat | wc -w");
    assert_eq!((output.as_str(), counts.totals()), ("2\n", (3, 0)), "{counts:?}");
    let emulated = target.sandbox().env(EMULATE, "1");
    let (output, counts) = target.run(&emulated, &["sh", "-ec", "echo one two | cat | wc -w"]);
    assert_eq!((output.as_str(), counts.totals()), ("2\n", (0, 3)), "{counts:?}");
}

fn everybody_answers_for_the_target(target: &Target) {
    let script = "uname -m; arch; perl -MPOSIX -e 'print +(uname)[4], \"\\n\"'; dpkg --print-architecture";
    let (output, counts) = target.shell(script);
    let (name, debian) = (MACHINE.name(), FOREIGN.debian());
    assert_eq!(output, format!("{name}\n{name}\n{name}\n{debian}\n"));
    assert_eq!(counts.native.get("/usr/bin/perl"), Some(&1));
    for program in ["/usr/bin/uname", "/usr/bin/arch", "/usr/bin/dpkg"] {
        assert_eq!(counts.emulated.get(program), Some(&1), "{program}");
    }
    let (output, _) = target.shell("perl -MConfig -e 'print $Config{archname}'");
    assert!(output.starts_with(MACHINE.triplet()), "{output}");
}

fn versions_are_compared_natively(target: &Target) {
    let (output, counts) = target.shell(
        "dpkg --compare-versions 1.2~rc1 lt 1.2 && echo older; dpkg --compare-versions 2:1 lt 1:2 || echo newer
         dpkg --validate-version -- 1:2-3 && echo valid
         mkdir /tmp/db
         dpkg-divert --admindir /tmp/db --package tool --divert /tmp/other --no-rename /tmp/one
         dpkg-divert --admindir /tmp/db --truename /tmp/one",
    );
    assert!(output.starts_with("older\nnewer\nvalid\n") && output.ends_with("\n/tmp/other\n"), "{output}");
    assert_eq!(counts.native.get("/usr/bin/dpkg"), Some(&3), "{counts:?}");
    assert_eq!(counts.native.get("/usr/bin/dpkg-divert"), Some(&2), "{counts:?}");
    assert_eq!(counts.totals().1, 0, "{counts:?}");
}

fn links_and_descriptors_lead_to_the_program(target: &Target) {
    let (output, counts) = target.shell(
        "ln -s /bin/cat /tmp/one; ln -s one /tmp/two; echo a | /tmp/two; cd /usr/bin; echo b | ./cat
         cd /tmp; echo c | ../usr/bin/cat
         echo d | perl -e 'use Fcntl; open my $f, \"<\", \"/usr/bin/cat\"; fcntl $f, F_SETFD, 0;
           exec \"/proc/self/fd/\" . fileno $f'",
    );
    assert_eq!(output, "a\nb\nc\nd\n");
    assert_eq!(counts.native.get("/usr/bin/cat"), Some(&4), "{counts:?}");
    assert_eq!(counts.totals().1, 0, "{counts:?}");
}

fn a_program_keeps_the_name_that_it_is_called_by(target: &Target) {
    let script = "perl -e 'exec {\"/usr/bin/dash\"} \"another name\", \"-c\", q(echo \"$0\")'";
    assert_eq!(target.shell(script).0, "another name\n");
    let emulated = target.sandbox().env(EMULATE, "1");
    assert_eq!(target.run(&emulated, &["sh", "-ec", script]).0, "another name\n");
}

fn scripts_run_by_their_interpreters(target: &Target) {
    let (output, counts) = target.shell(
        "printf '#!/usr/bin/perl -Tw\\nuse POSIX; print \"${^TAINT} @ARGV\\\\n\"' > /tmp/script; chmod +x /tmp/script
         /tmp/script a 'b c'; perl -e 'print `$^X -e \"print 7\"`'",
    );
    assert_eq!(output, "1 a b c\n7");
    assert_eq!(counts.totals().1, 0, "{counts:?}");
    let (output, _) = target.shell("/usr/bin/none 2>/dev/null || echo $?; printf '#!/none\\n' > /tmp/no; chmod +x /tmp/no; /tmp/no 2>/dev/null || echo $?");
    assert_eq!(output, "127\n127\n");
}

fn the_environment_is_the_callers(target: &Target) {
    let (native, _) = target.run(&target.sandbox().env("LE", "1"), &["env"]);
    let (emulated, _) = target.run(&target.sandbox().env("LD_", "1"), &["env"]);
    assert_eq!(native.replace("LE=1\n", ""), emulated.replace("LD_=1\n", ""));
    assert!(!native.contains("/.bh"), "{native}");
    for (given, kept) in [
        ("/.bh/tree/python:/.bh/x:/mine:/.bh/y", Some("PYTHONPATH=/mine:/.bh/y\n")),
        ("/.bh/tree/python", None),
    ] {
        for emulate in ["PLAIN", EMULATE] {
            let sandbox = target.sandbox().env("PYTHONPATH", given).env(emulate, "1");
            let (output, _) = target.run(&sandbox, &["env"]);
            assert_eq!(output.contains("PYTHONPATH"), kept.is_some(), "{output}");
            assert!(output.contains(kept.unwrap_or_default()), "{output}");
        }
    }
}

/// ldd asks the loader that a program names what it would load: that must be the target's libraries.
fn what_is_meant_for_the_loader_reaches_the_targets(target: &Target) {
    let (output, counts) = target.shell("LD_TRACE_LOADED_OBJECTS=1 /usr/bin/dash");
    assert!(output.contains(&format!("/lib/{}/libc.so.6", MACHINE.triplet())), "{output}");
    assert_eq!(counts.emulated.get("/usr/bin/dash"), Some(&1), "{counts:?}");
}

fn another_file_in_its_place_is_emulated(target: &Target) {
    let (output, counts) = target.shell(
        "cp /usr/bin/paste /tmp/paste; echo a | /tmp/paste; cp -p /usr/bin/paste /usr/bin/nl; echo b | nl
         touch /usr/bin/paste; echo c | paste",
    );
    assert_eq!(output, "a\nb\nc\n");
    for program in ["/tmp/paste", "/usr/bin/nl", "/usr/bin/paste"] {
        assert_eq!(counts.emulated.get(program), Some(&1), "{program}: {counts:?}");
    }
}

fn without_a_table_all_is_emulated(target: &Target) {
    let table = target.work.path().join("dispatch").join(dispatch::TABLE);
    let bytes = fs::read(&table).unwrap();
    // Cut anywhere, it is only shorter.
    for length in [0, 10, 23, 40] {
        fs::write(&table, &bytes[..length]).unwrap();
        let (output, counts) = target.shell("echo a | cat");
        assert_eq!((output.as_str(), counts.totals()), ("a\n", (0, 2)), "{length}");
    }
    fs::write(&table, bytes).unwrap();
}

fn another_root_has_no_emulator(target: &Target) {
    let (output, _) =
        target.shell("mkdir /tmp/root; cp /usr/bin/dash /tmp/root; chroot /tmp/root /dash 2>&1 || echo $?");
    assert_eq!(output, "bakehouse: the emulator is not within reach (another root?) of /dash\n126\n");
}

fn sandboxes_share_nothing_but_the_kernel(target: &Target) {
    let inside = |_| {
        let mut output = Vec::new();
        let argv =
            ["sh", "-ec", "ls /proc/sys /dev /proc/self/fd 2>/dev/null || :; cat /proc/filesystems; echo ok"];
        let exit = target.sandbox().run(&argv, Input::Null, &mut |bytes| output.extend_from_slice(bytes));
        assert!(exit.unwrap().success());
        let output = String::from_utf8(output).unwrap();
        assert!(output.ends_with("ok\n") && !output.contains("binfmt"), "{output}");
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|number| drop(scope.spawn(move || (0..3).for_each(|_| inside(number)))))
    });
    let host = Path::new("/proc/sys/fs/binfmt_misc").join(format!("bakehouse-{}", MACHINE.name()));
    assert!(!host.exists(), "the host's own binfmt_misc was used");
}
