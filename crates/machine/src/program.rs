use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use block::shell_word;

/// How one program is started: the program, the arguments that come before its own, and its environment.
///
/// A program of the host is just its name. One of a private tree that is run by that tree's own dynamic loader is
/// the loader with `--library-path … --argv0 … program` as leading arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launcher {
    /// What is executed: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Arguments before the program's own.
    pub arguments: Vec<OsString>,
    /// Variables added to the environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Launcher {
    /// A program that needs nothing before its own arguments.
    pub fn plain(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new(), env: Vec::new() }
    }

    /// A program at `program` inside a private tree, run by the tree's dynamic loader with the tree's libraries.
    pub fn through_loader(loader: &Path, libraries: &[PathBuf], program: &Path) -> Self {
        let path = libraries.iter().map(|folder| folder.as_os_str()).collect::<Vec<_>>().join(":".as_ref());
        let name = program.file_name().unwrap_or(program.as_os_str());
        let arguments = ["--library-path".into(), path, "--argv0".into(), name.into(), program.into()];
        Self { program: loader.into(), arguments: arguments.into(), env: Vec::new() }
    }

    /// A command with the leading arguments and the environment set.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The program's own name, for messages.
    pub fn name(&self) -> String {
        let program = self.arguments.last().map(Path::new).unwrap_or(&self.program);
        program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
    }

    /// All words as one shell command line, the environment set by `env`; `None` if a word is not UTF-8.
    pub(crate) fn shell_words(&self, more: &[&str]) -> Option<String> {
        let mut words = Vec::new();
        if !self.env.is_empty() {
            words.push(shell_word("env"));
            for (name, value) in &self.env {
                words.push(shell_word(&format!("{}={}", name.to_str()?, value.to_str()?)));
            }
        }
        words.push(shell_word(self.program.to_str()?));
        for word in &self.arguments {
            words.push(shell_word(word.to_str()?));
        }
        words.extend(more.iter().map(|word| shell_word(word)));
        Some(words.join(" "))
    }
}

/// Where firmware lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirmwareDirs {
    /// Folders that QEMU searches for SeaBIOS and option ROMs (`-L`); empty if QEMU finds them by itself.
    pub qemu_data: Vec<PathBuf>,
    /// Folders that are searched for the UEFI images which profiles name, such as `OVMF_CODE_4M.fd`.
    pub uefi: Vec<PathBuf>,
}

impl FirmwareDirs {
    /// The folders of Debian's packages seabios, qemu-system-data, ovmf and qemu-efi-aarch64 below `root`.
    pub fn below(root: &Path) -> Self {
        let folders = |names: &[&str]| names.iter().map(|name| root.join("usr/share").join(name)).collect();
        Self { qemu_data: folders(&["seabios", "qemu"]), uefi: folders(&["OVMF", "AAVMF"]) }
    }

    /// The first of the UEFI folders that holds `file`.
    pub fn find_uefi(&self, file: &str) -> Option<PathBuf> {
        self.uefi.iter().map(|folder| folder.join(file)).find(|path| path.is_file())
    }
}

/// The programs of others that a machine needs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `qemu-system-x86_64`, or that of the profile's architecture.
    pub qemu: Launcher,
    /// `qemu-img`.
    pub qemu_img: Launcher,
    /// OpenSSH's client.
    pub ssh: Launcher,
    /// OpenSSH's `ssh-keygen`.
    pub ssh_keygen: Launcher,
    /// `socat`, which carries the guest's requests to the metadata service.
    pub socat: Launcher,
    /// Where firmware lies.
    pub firmware: FirmwareDirs,
}

impl Programs {
    /// The programs in one folder; `qemu` is the name of QEMU's program for the architecture.
    pub fn in_folder(folder: &Path, qemu: &str, firmware: FirmwareDirs) -> Self {
        let launcher = |name: &str| Launcher::plain(folder.join(name));
        Self {
            qemu: launcher(qemu),
            qemu_img: launcher("qemu-img"),
            ssh: launcher("ssh"),
            ssh_keygen: launcher("ssh-keygen"),
            socat: launcher("socat"),
            firmware,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_becomes_one_shell_line() {
        let mut launcher = Launcher::through_loader(
            Path::new("/t/ld.so"),
            &["/t/lib".into(), "/t/my lib".into()],
            Path::new("/t/bin/socat"),
        );
        assert_eq!(
            launcher.shell_words(&["-", "it's"]).as_deref(),
            Some(r"/t/ld.so --library-path '/t/lib:/t/my lib' --argv0 socat /t/bin/socat - 'it'\''s'")
        );
        launcher.env.push(("HOME".into(), "/".into()));
        assert!(launcher.shell_words(&[]).is_some_and(|line| line.starts_with("env HOME=/ /t/ld.so")));
        assert_eq!(launcher.name(), "socat");
    }
}
