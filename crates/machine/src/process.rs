use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a child is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// More of what a program says is not kept.
const LONGEST_OUTPUT: u64 = 16 << 20;

/// What a finished program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit status; `None` if the program was killed, by a signal or because its time was over.
    pub status: Option<i32>,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
    /// Standard output, its first 16 MiB, anything that is not UTF-8 replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl Output {
    /// Whether the program ended by itself with status 0.
    pub fn success(&self) -> bool {
        self.status == Some(0)
    }
}

/// Runs a command to its end with `input` on its standard input, or kills it after `limit`.
pub(crate) fn run(mut command: Command, input: &[u8], limit: Duration) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input to the end has its reasons.
                let _ = stdin.write_all(input);
            }
        });
        let stdout = scope.spawn(move || drain(stdout));
        let stderr = scope.spawn(move || drain(stderr));
        let status = wait(&mut child, limit);
        if !matches!(status, Ok(Some(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let status = status?;
        Ok(Output {
            status: status.and_then(|status| status.code()),
            timed_out: status.is_none(),
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        })
    })
}

/// Waits for a child's end; `None` if it still runs after `limit`.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// How long a process wanted to run and was not let, as the thread that waited longest counts it; zero where the kernel
/// does not tell.
pub(crate) fn held_up(pid: u32) -> Duration {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let waited = threads.flatten().filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().nth(1)?.parse().ok()
    });
    Duration::from_nanos(waited.max().unwrap_or(0))
}

fn drain(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before an error is all there is.
        let _ = pipe.by_ref().take(LONGEST_OUTPUT).read_to_end(&mut bytes);
        // The rest is let go, so that the program is not held up.
        let _ = io::copy(&mut pipe, &mut io::sink());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_processor_is_counted() {
        // This very process has waited for something by now, and not for longer than it lives.
        let held_up = held_up(std::process::id());
        assert!(held_up < Duration::from_secs(3600), "{held_up:?}");
        let text = std::fs::read_to_string("/proc/self/schedstat").unwrap();
        assert_eq!(text.split_ascii_whitespace().count(), 3, "{text}");
        assert_eq!(super::held_up(u32::MAX), Duration::ZERO);
    }

    #[test]
    fn a_command_gets_its_input_and_its_time() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "cat; echo bad >&2; exit 3"]);
        let output = run(command, b"hello", Duration::from_secs(60)).unwrap();
        assert_eq!(
            (output.status, output.stdout.as_str(), output.stderr.as_str()),
            (Some(3), "hello", "bad\n")
        );

        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec sleep 600"]);
        let output = run(command, b"", Duration::from_millis(50)).unwrap();
        assert!(output.timed_out && output.status.is_none());
    }

    #[test]
    fn of_an_endless_output_the_beginning_is_kept() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "head -c 20000000 /dev/zero; echo end >&2"]);
        let output = run(command, b"", Duration::from_secs(60)).unwrap();
        assert_eq!((output.stdout.len() as u64, output.stderr.as_str()), (LONGEST_OUTPUT, "end\n"));
    }
}
