//! Single programs of another architecture.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use dispatch::{Counts, Machine, NativeTree, Table};
use sandbox::{Foreign, Input, Sandbox};

use crate::bakes::{FOREIGN, ingredients, work_folder};

type Test = (&'static str, fn(&Target));

pub(crate) const TESTS: [Test; 1] = [("a_program_runs_either_way", a_program_runs_either_way)];

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
        for name in ["proc", "sys", "dev", "tmp", "run", "etc", "usr/bin", "usr/lib"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["bin", "lib", "sbin", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        const PACKAGES: [&str; 14] = [
            "libc6", "dash", "coreutils", "libselinux1", "libpcre2-8-0", "libacl1", "libattr1", "libgmp10",
            "libssl3t64", "zlib1g", "libzstd1", "perl-base", "libcrypt1", "dpkg",
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
            .foreign(Foreign { machine: MACHINE.name(), elf_machine: MACHINE.elf(), handler: dispatch::HANDLER })
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

fn a_program_runs_either_way(target: &Target) {
    let (output, counts) = target.shell("echo hello; cat /proc/version; ls /usr/bin | wc -l; perl -e 'print \"$^X\\n\"'; uname -m; dpkg --print-architecture; ls -la /.bh /proc/self/; cat /proc/self/mountinfo");
    println!("{output}{counts:#?}");
}
