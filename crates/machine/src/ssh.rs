use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use block::shell_word;

use crate::boot::KNOWN_HOSTS;
use crate::{BootError, Machine, Output, process};

/// How long sshd may take to greet; a guest under emulation on a busy host is slow.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

impl Machine {
    /// Runs a command in the guest's shell as the default user. A status of 255 is ssh's own failure.
    pub fn ssh(&mut self, command: &str, limit: Duration) -> Result<Output, BootError> {
        let user = self.spec.user.clone();
        self.ssh_as(&user, command, limit)
    }

    /// Runs a command in the guest's shell as `user`.
    pub fn ssh_as(&mut self, user: &str, command: &str, limit: Duration) -> Result<Output, BootError> {
        let ssh = self.ssh_command(user, &["-T"], Some(command))?;
        self.run_ssh(ssh, b"", limit)
    }

    /// Logs in as `user` on a terminal, as a person does, and out again: what is seen is the output.
    pub fn ssh_login(&mut self, user: &str, limit: Duration) -> Result<Output, BootError> {
        let ssh = self.ssh_command(user, &["-tt"], None)?;
        self.run_ssh(ssh, b"exit\n", limit)
    }

    /// Copies bytes into a file of the guest as the default user.
    pub fn write_file(&mut self, path: &str, content: &[u8], limit: Duration) -> Result<Output, BootError> {
        let user = self.spec.user.clone();
        let ssh = self.ssh_command(&user, &["-T"], Some(&format!("cat > {}", shell_word(path))))?;
        self.run_ssh(ssh, content, limit)
    }

    /// The content of a file of the guest, read as the default user; what is not UTF-8 is replaced.
    pub fn read_file(&mut self, path: &str, limit: Duration) -> Result<Output, BootError> {
        self.ssh(&format!("cat {}", shell_word(path)), limit)
    }

    fn run_ssh(&self, command: Command, input: &[u8], limit: Duration) -> Result<Output, BootError> {
        process::run(command, input, limit)
            .map_err(|source| BootError::Start { program: self.ssh.name(), source })
    }

    fn ssh_command(
        &mut self,
        user: &str,
        options: &[&str],
        remote: Option<&str>,
    ) -> Result<Command, BootError> {
        let port = self.port(22)?;
        let mut command = self.ssh.command();
        // Nothing of the host's configuration, keys or agent has a part in this.
        command.args(["-F", "none", "-a", "-x"]).args(options);
        command.arg("-i").arg(self.work.join("key"));
        let known_hosts = option_path("UserKnownHostsFile", &self.work.join(KNOWN_HOSTS))?;
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "PreferredAuthentications=publickey",
            // The first answer names the machine's key; it must be the same after a reboot.
            "StrictHostKeyChecking=accept-new",
            "HostKeyAlias=machine",
            "GlobalKnownHostsFile=none",
            &known_hosts,
            "LogLevel=ERROR",
            "ConnectTimeout=30",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=8",
        ] {
            command.args(["-o", option]);
        }
        command.args(["-p", &port.to_string(), "-l", user, "127.0.0.1"]);
        if let Some(remote) = remote {
            command.arg(remote);
        }
        Ok(command)
    }

    /// Whether sshd greets on the forwarded port. Costs the guest less than a login.
    pub(crate) fn answers_ssh(&mut self) -> Result<bool, BootError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port(22)?));
        let Ok(mut connection) = TcpStream::connect_timeout(&address, GREETING_LIMIT) else {
            return Ok(false);
        };
        let mut greeting = [0; 4];
        Ok(connection.set_read_timeout(Some(GREETING_LIMIT)).is_ok()
            && connection.read_exact(&mut greeting).is_ok()
            && &greeting == b"SSH-")
    }
}

/// A path as the value of one of ssh's options, where quotes keep spaces and `%` begins a token.
fn option_path(option: &str, path: &Path) -> Result<String, BootError> {
    let text = path.to_str().ok_or_else(|| BootError::NotUtf8 { path: path.into() })?;
    Ok(format!("{option}=\"{}\"", text.replace('%', "%%")))
}
