use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// QEMU answers its monitor within milliseconds; one that takes so long hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Why QEMU's monitor did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed, or QEMU went away.
    #[error("QEMU's monitor does not answer `{command}`")]
    Io {
        /// The command.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// QEMU refused.
    #[error("QEMU refuses `{command}`: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's own words.
        reason: String,
    },
}

/// A connection to QEMU's machine protocol (QMP).
#[derive(Debug)]
pub struct Qmp {
    input: BufReader<UnixStream>,
    output: UnixStream,
}

impl Qmp {
    /// Connects to the socket and leaves the negotiation behind.
    pub fn connect(socket: &Path) -> Result<Self, QmpError> {
        let connect = || -> io::Result<Self> {
            let output = UnixStream::connect(socket)?;
            output.set_read_timeout(Some(ANSWER_LIMIT))?;
            output.set_write_timeout(Some(ANSWER_LIMIT))?;
            let mut input = BufReader::new(output.try_clone()?);
            // The greeting.
            input.read_line(&mut String::new())?;
            Ok(Self { input, output })
        };
        let mut qmp = connect().map_err(|source| QmpError::Io { command: "connect".into(), source })?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and gives what it returns. Events that come in between are skipped.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let io_error = |source| QmpError::Io { command: command.into(), source };
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        self.output.write_all(line.as_bytes()).map_err(io_error)?;
        loop {
            let mut answer = String::new();
            if self.input.read_line(&mut answer).map_err(io_error)? == 0 {
                return Err(io_error(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut answer: Value =
                serde_json::from_str(&answer).map_err(|error| io_error(io::Error::from(error)))?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let reason =
                    error.get("desc").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
                return Err(QmpError::Refused { command: command.into(), reason });
            }
        }
    }

    /// Executes a command of the human monitor and gives its text.
    pub fn human(&mut self, command: &str) -> Result<String, QmpError> {
        let text = self.execute("human-monitor-command", json!({"command-line": command}))?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// What the machine does: `running`, `paused`, `shutdown`, …
    pub fn status(&mut self) -> Result<String, QmpError> {
        let answer = self.execute("query-status", json!({}))?;
        Ok(answer.get("status").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Presses the power button.
    pub fn power_down(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown", json!({})).map(|_| ())
    }

    /// Presses the reset button.
    pub fn reset(&mut self) -> Result<(), QmpError> {
        self.execute("system_reset", json!({})).map(|_| ())
    }

    /// Ends QEMU.
    pub fn quit(&mut self) -> Result<(), QmpError> {
        self.execute("quit", json!({})).map(|_| ())
    }

    /// Forwards a free port of 127.0.0.1 to the guest's TCP port and gives its number. The kernel picks the port
    /// when QEMU binds it, so nothing else can have taken it.
    pub fn forward_port(&mut self, guest_port: u16) -> Result<u16, QmpError> {
        let command = format!("hostfwd_add {NETWORK} tcp:127.0.0.1:0-:{guest_port}");
        let refused = |reason: String| QmpError::Refused { command: command.clone(), reason };
        let reply = self.human(&command)?;
        if !reply.trim().is_empty() {
            return Err(refused(reply.trim().to_owned()));
        }
        let listing = self.human("info usernet")?;
        forwarded_port(&listing, guest_port).ok_or_else(|| refused(listing))
    }
}

/// The name of the network back end.
pub(crate) const NETWORK: &str = "net0";

/// The host port that `info usernet` shows as forwarded to the guest's port.
fn forwarded_port(listing: &str, guest_port: u16) -> Option<u16> {
    listing.lines().find_map(|line| {
        let words = line.split_whitespace().collect::<Vec<_>>();
        let &["TCP[HOST_FORWARD]", _, "127.0.0.1", host, _, guest, ..] = words.as_slice() else {
            return None;
        };
        (guest.parse() == Ok(guest_port)).then(|| host.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_ports_are_read_from_the_listing() {
        let listing = "Hub -1 (net0):\r\n  \
            Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
            TCP[HOST_FORWARD]  22       127.0.0.1 39139     172.31.0.15    80     0     0\r\n  \
            TCP[ESTABLISHED]   23       127.0.0.1 40000     172.31.0.15    22     0     0\r\n  \
            TCP[HOST_FORWARD]  12       127.0.0.1 42577     172.31.0.15    22     0     0\r\n";
        assert_eq!(forwarded_port(listing, 80), Some(39139));
        assert_eq!(forwarded_port(listing, 22), Some(42577));
        assert_eq!(forwarded_port(listing, 443), None);
    }

    #[test]
    fn events_are_skipped_and_refusals_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut output, _) = listener.accept().unwrap();
            let mut input = BufReader::new(output.try_clone().unwrap());
            output.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n").unwrap();
            let answers: [&[u8]; 3] = [
                b"{\"return\": {}}\r\n",
                b"{\"event\": \"RESUME\", \"data\": {}}\r\n{\"return\": {\"status\": \"running\"}}\r\n",
                b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\r\n",
            ];
            for answer in answers {
                input.read_line(&mut String::new()).unwrap();
                output.write_all(answer).unwrap();
            }
        });
        let mut qmp = Qmp::connect(&socket).unwrap();
        assert_eq!(qmp.status().unwrap(), "running");
        assert!(matches!(qmp.power_down(), Err(QmpError::Refused { reason, .. }) if reason == "no"));
        server.join().unwrap();
        assert!(matches!(qmp.quit(), Err(QmpError::Io { .. })));
    }
}
