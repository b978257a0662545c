use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use block::without_escapes;

use crate::spec::{Places, qemu_arguments};
use crate::{
    Accel, BootError, Disk, Firmware, Launcher, MachineSpec, MetadataService, Programs, Qmp, Stage, cause,
    console, process,
};

/// qemu-img and ssh-keygen are done within a second; one that takes so long hangs.
const HELPER_LIMIT: Duration = Duration::from_secs(120);
/// QEMU opens its monitor within a second, on a very busy host within some.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at something that is not there yet.
const POLL: Duration = Duration::from_millis(500);
/// A system that is all started may take so long until it accepts the key; then it never will.
const REFUSAL_LIMIT: Duration = Duration::from_secs(90);
/// Between two lines of progress while waiting.
const PROGRESS: Duration = Duration::from_secs(10);
/// How often a machine that a busy host held up at the wrong moment is started again.
const FRESH_STARTS: u32 = 3;
/// The longest path that a unix socket may have, less the names that are added.
const LONGEST_SOCKET_FOLDER: usize = 90;
/// The file with the machine's host keys, beside the user's key.
pub(crate) const KNOWN_HOSTS: &str = "known_hosts";
/// A machine that says more on its console is ended: a boot says some 100 KiB, and a disk can be filled with words.
const LONGEST_CONSOLE: u64 = 64 << 20;
/// How many lines of the console a failure shows, of either kind.
const TELLING_LINES: usize = 15;
/// SeaBIOS says a few lines; a guest may go on through the same port.
const LONGEST_FIRMWARE_LOG: u64 = 64 << 10;

/// Where lines of progress go.
pub type Log<'a> = &'a mut dyn FnMut(&str);

/// A machine that runs. Dropping it ends QEMU at once.
#[derive(Debug)]
pub struct Machine {
    pub(crate) spec: MachineSpec,
    pub(crate) ssh: Launcher,
    pub(crate) work: PathBuf,
    places: Places,
    child: Child,
    guard: Option<Child>,
    watch: Option<Watch>,
    qmp: Qmp,
    up_after: Option<Duration>,
    boot_id: String,
    /// Where in the console's file this boot begins.
    console_from: u64,
    ports: BTreeMap<u16, u16>,
    _metadata: MetadataService,
    _sockets: tempfile::TempDir,
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// The guest powered itself off.
    Clean,
    /// The guest did not, so QEMU was ended.
    Forced,
}

/// Starts a machine and waits until it is up: the default user can log in with the key from the metadata service.
///
/// `work` is a folder of this machine alone; it gets the overlays, the key and the logs. The volumes' bases are only
/// read.
pub fn boot(
    spec: &MachineSpec,
    programs: &Programs,
    work: &Path,
    log: Log<'_>,
) -> Result<Machine, BootError> {
    let mut machine = start(spec, programs, work, log)?;
    machine.wait_until_up(log)?;
    Ok(machine)
}

/// Starts a machine and does not wait for anything in it.
pub fn start(
    spec: &MachineSpec,
    programs: &Programs,
    work: &Path,
    log: Log<'_>,
) -> Result<Machine, BootError> {
    if spec.disks.is_empty() {
        return Err(BootError::NoDisks);
    }
    std::fs::create_dir_all(work).map_err(|source| file_error("create the folder", work, source))?;
    let work = work.canonicalize().map_err(|source| file_error("find", work, source))?;
    let sockets = socket_folder(&work)?;

    let mut overlays = Vec::new();
    for (index, disk) in spec.disks.iter().enumerate() {
        let overlay = work.join(format!("disk{index}.qcow2"));
        create_overlay(&programs.qemu_img, disk, &overlay)?;
        overlays.push(overlay);
    }
    let vars = match &spec.profile.firmware {
        Firmware::Bios => None,
        Firmware::Uefi { vars, .. } => {
            let from = match &spec.vars {
                Some(path) => path.clone(),
                None => programs.firmware.find_uefi(vars).ok_or_else(|| BootError::MissingFirmware {
                    file: vars.clone(),
                    searched: programs.firmware.uefi.clone(),
                })?,
            };
            let copy = work.join("firmware-vars.fd");
            // Written anew, so that the copy is writable however its source is.
            let bytes = std::fs::read(&from).map_err(|source| file_error("read", &from, source))?;
            std::fs::write(&copy, bytes).map_err(|source| file_error("write", &copy, source))?;
            Some(copy)
        }
    };
    let public_key = create_key(&programs.ssh_keygen, &work.join("key"))?;
    let places = Places {
        overlays,
        vars,
        console: spec.console.clone().unwrap_or_else(|| work.join("console.log")),
        firmware_log: work.join("firmware.log"),
        qmp: sockets.path().join("qmp"),
        metadata: sockets.path().join("metadata"),
    };
    let metadata = MetadataService::start(&places.metadata, spec.instance(&public_key))
        .map_err(|source| file_error("listen on the socket", &places.metadata, source))?;

    // QEMU would write through a link that lies in the log's place.
    match std::fs::remove_file(&places.console) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(file_error("remove", &places.console, source));
        }
        _ => {}
    }
    let arguments = qemu_arguments(spec, programs, &places)?;
    let errors_path = work.join("qemu.log");
    let errors = File::create(&errors_path).map_err(|source| file_error("create", &errors_path, source))?;
    let mut child = programs
        .qemu
        .command()
        .args(arguments)
        .current_dir(&work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .map_err(|source| BootError::Start { program: programs.qemu.name(), source })?;
    let mut guard = guard(&child);
    let qmp = match connect(&mut child, &places.qmp, &errors_path) {
        Ok(qmp) => qmp,
        Err(error) => {
            end(&mut child, guard);
            return Err(error);
        }
    };
    log(&format!("{} runs under {}", spec.profile.description, spec.accel.name()));
    let trigger = guard.as_mut().and_then(|guard| guard.stdin.take());
    let watch = trigger.map(|trigger| Watch::begin(&places, trigger));
    Ok(Machine {
        spec: spec.clone(),
        ssh: programs.ssh.clone(),
        work,
        places,
        child,
        guard,
        watch,
        qmp,
        up_after: None,
        boot_id: String::new(),
        console_from: 0,
        ports: BTreeMap::new(),
        _metadata: metadata,
        _sockets: sockets,
    })
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> BootError {
    BootError::File { action, path: path.into(), source }
}

/// A new folder with a path that is short enough for unix sockets, open to its owner alone: in the work folder where that
/// can be, so that it goes with it when the process is killed.
fn socket_folder(work: &Path) -> Result<tempfile::TempDir, BootError> {
    let longest = LONGEST_SOCKET_FOLDER - "/bakehouse-123456".len();
    let parent = [work.to_owned(), std::env::temp_dir()]
        .into_iter()
        .find(|parent| parent.is_absolute() && parent.as_os_str().len() <= longest)
        .unwrap_or_else(|| PathBuf::from("/tmp"));
    tempfile::Builder::new()
        .prefix("bakehouse-")
        .tempdir_in(&parent)
        .map_err(|source| file_error("create a folder in", &parent, source))
}

fn helper(launcher: &Launcher, command: Command) -> Result<(), BootError> {
    let output = process::run(command, b"", HELPER_LIMIT)
        .map_err(|source| BootError::Start { program: launcher.name(), source })?;
    if output.success() {
        return Ok(());
    }
    let message = if output.timed_out { "it hangs".into() } else { output.stderr.trim().to_owned() };
    Err(BootError::Helper { program: launcher.name(), message })
}

fn create_overlay(qemu_img: &Launcher, disk: &Disk, overlay: &Path) -> Result<(), BootError> {
    let mut command = qemu_img.command();
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some(base) = &disk.base {
        let base = base.canonicalize().map_err(|source| file_error("find the disk", base, source))?;
        command.args(["-F", "raw", "-b"]).arg(base);
    }
    command.arg(overlay);
    if let Some(size) = disk.size {
        command.arg(size.to_string());
    } else if disk.base.is_none() {
        return Err(BootError::Helper {
            program: qemu_img.name(),
            message: format!("the blank volume {} has no size", disk.device),
        });
    }
    helper(qemu_img, command)
}

/// Makes a key pair for this machine and gives its public line.
fn create_key(ssh_keygen: &Launcher, key: &Path) -> Result<String, BootError> {
    let public = key.with_extension("pub");
    // The folder may be that of a machine before: this one has host keys of its own.
    for old in [key, &public, &key.with_file_name(KNOWN_HOSTS)] {
        match std::fs::remove_file(old) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(file_error("remove", old, source));
            }
            _ => {}
        }
    }
    let mut command = ssh_keygen.command();
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "bakehouse", "-f"]).arg(key);
    helper(ssh_keygen, command)?;
    std::fs::read_to_string(&public).map_err(|source| file_error("read", &public, source))
}

/// A shell that ends QEMU if this process goes without doing so: its standard input closes when we are gone.
fn guard(child: &Child) -> Option<Child> {
    Command::new("/bin/sh")
        .args(["-c", "read -r line; kill -9 \"$1\"", "guard", &child.id().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

/// Ends a machine whose logs grow without end: a guest writes to them as fast as it likes.
#[derive(Debug)]
struct Watch {
    flooded: Arc<AtomicBool>,
    /// Its end is heard when it is dropped.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// `trigger`: what the guard reads. It ends QEMU at a line, or when this process is gone.
    fn begin(places: &Places, mut trigger: ChildStdin) -> Self {
        let flooded = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = channel();
        let (logs, told) = ([places.console.clone(), places.firmware_log.clone()], Arc::clone(&flooded));
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                let size = |path: &PathBuf| std::fs::metadata(path).map(|meta| meta.len()).unwrap_or(0);
                if !told.load(Ordering::Relaxed) && logs.iter().map(size).sum::<u64>() >= LONGEST_CONSOLE {
                    told.store(true, Ordering::Relaxed);
                    // It has ended by itself, then.
                    let _ = trigger.write_all(b"\n");
                }
            }
        });
        Self { flooded, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn end(child: &mut Child, guard: Option<Child>) {
    // The guard goes first: once QEMU is waited for, its number may belong to another process.
    if let Some(mut guard) = guard {
        let _ = guard.kill();
        let _ = guard.wait();
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn connect(child: &mut Child, socket: &Path, errors: &Path) -> Result<Qmp, BootError> {
    let start = Instant::now();
    loop {
        let exited = child.try_wait().is_ok_and(|status| status.is_some());
        if exited || start.elapsed() > START_LIMIT {
            let said = std::fs::read_to_string(errors).unwrap_or_default();
            let message = match said.trim() {
                "" if exited => "it ended without a word".into(),
                "" => "its monitor does not open".into(),
                text => text.to_owned(),
            };
            return Err(BootError::Qemu { message });
        }
        // The socket appears when QEMU is ready to answer.
        if socket.exists()
            && let Ok(qmp) = Qmp::connect(socket)
        {
            return Ok(qmp);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Machine {
    /// What was booted.
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    /// The file that the serial console is written to.
    pub fn console_path(&self) -> &Path {
        &self.places.console
    }

    /// What the machine has said on its serial console since it was switched on; 64 MiB of it at most.
    pub fn console(&self) -> String {
        self.console_since(0)
    }

    fn console_since(&self, from: u64) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.places.console)
            && file.seek(SeekFrom::Start(from)).is_ok()
        {
            // The log is only ever appended to; a failed read shows less of it.
            let _ = file.take(LONGEST_CONSOLE).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The overlay that holds what the machine wrote to the volume at `device`: a qcow2 over the base.
    pub fn overlay(&self, device: &str) -> Option<&Path> {
        let index = self.spec.disks.iter().position(|disk| disk.device == device)?;
        self.places.overlays.get(index).map(PathBuf::as_path)
    }

    /// The machine's firmware variables; `None` under BIOS.
    pub fn vars(&self) -> Option<&Path> {
        self.places.vars.as_deref()
    }

    /// QEMU's monitor.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// Time from power-on until the user could log in; `None` before that.
    pub fn up_after(&self) -> Option<Duration> {
        self.up_after
    }

    /// The port of 127.0.0.1 behind which the guest's TCP port is.
    pub fn port(&mut self, guest_port: u16) -> Result<u16, BootError> {
        if let Some(port) = self.ports.get(&guest_port) {
            return Ok(*port);
        }
        let port = self.qmp.forward_port(guest_port)?;
        self.ports.insert(guest_port, port);
        Ok(port)
    }

    /// Waits until the default user can log in with the key from the metadata service, or until the boot fails.
    pub fn wait_until_up(&mut self, log: Log<'_>) -> Result<(), BootError> {
        let limit = self.boot_limit();
        let up = self.wait_for_boot(Instant::now(), limit, log)?;
        self.up_after = Some(up);
        Ok(())
    }

    pub(crate) fn boot_limit(&self) -> Duration {
        self.spec.boot_limit.unwrap_or_else(|| self.spec.profile.boot_limit(self.spec.accel))
    }

    pub(crate) fn accel(&self) -> Accel {
        self.spec.accel
    }

    /// The limit holds for time in which the machine could run: what it waited for a busy host's processors is added.
    fn wait_for_boot(&mut self, from: Instant, limit: Duration, log: Log<'_>) -> Result<Duration, BootError> {
        let held_up_before = process::held_up(self.child.id());
        let mut fresh_starts = 0;
        let mut said = Instant::now();
        let mut refused = String::new();
        let mut refused_since = None;
        loop {
            let console = self.console_since(self.console_from);
            if let Some(reason) = self.flooded() {
                return Err(self.not_up(from, reason));
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.not_up(from, format!("QEMU ended with {status}{}", self.qemu_words())));
            }
            if self.qmp.status().is_ok_and(|status| status == "io-error") {
                let folder = self.work.display();
                return Err(self.not_up(from, format!(
                    "QEMU stopped it because what it writes cannot be kept in {folder}: is the disk full? Make room there, or \
                     name a cache folder on another disk in BAKEHOUSE_CACHE"
                )));
            }
            // SeaBIOS says elsewhere that it found nothing to boot.
            let firmware = if console.is_empty() { self.firmware_log() } else { String::new() };
            if let Some(line) = console::fatal_line(&console).or_else(|| console::fatal_line(&firmware)) {
                // What comes after it is part of the story.
                std::thread::sleep(Duration::from_secs(2));
                if self.spec.accel == Accel::Tcg && console::is_held_up(&line) && fresh_starts < FRESH_STARTS
                {
                    fresh_starts += 1;
                    log(&format!(
                        "the host was too busy while the kernel measured the machine's timer, and the kernel gave up \
                         (`{line}`): the machine starts again, {fresh_starts} of {FRESH_STARTS} times at most"
                    ));
                    self.console_from =
                        std::fs::metadata(&self.places.console).map(|meta| meta.len()).unwrap_or(0);
                    self.qmp.reset()?;
                    continue;
                }
                return Err(self.not_up(from, format!("the console says `{line}`")));
            }
            if !self.spec.logs_in && console::stage(&console) == Stage::Services {
                let up = from.elapsed();
                log(&format!("the machine is up after {:.0} s", up.as_secs_f64()));
                return Ok(up);
            }
            let login = if self.spec.logs_in { self.try_login()? } else { Login::NoAnswer };
            match login {
                // Neither a network nor an ssh server that failed is tried again.
                Login::NoAnswer
                    if console::stage(&console) == Stage::Services && cause::is_unreachable(&console) =>
                {
                    refused_since.get_or_insert_with(Instant::now);
                }
                Login::NoAnswer => {}
                Login::In { boot_id } if boot_id == self.boot_id => {}
                Login::In { boot_id } => {
                    self.boot_id = boot_id;
                    let up = from.elapsed();
                    log(&format!("{} can log in after {:.0} s", self.spec.user, up.as_secs_f64()));
                    return Ok(up);
                }
                Login::Refused { words } => {
                    refused = format!("; ssh says: {words}");
                    if console::stage(&console) == Stage::Services {
                        refused_since.get_or_insert_with(Instant::now);
                    }
                }
            }
            let held_up = process::held_up(self.child.id()).saturating_sub(held_up_before);
            if from.elapsed() > limit + held_up
                || refused_since.is_some_and(|since| since.elapsed() > REFUSAL_LIMIT)
            {
                let seconds = from.elapsed().as_secs();
                let wanted = match self.spec.logs_in {
                    true => format!("{} cannot log in after {seconds} s{refused}", self.spec.user),
                    false => format!("the console asks for no login after {seconds} s"),
                };
                return Err(self.not_up(from, wanted));
            }
            if said.elapsed() > PROGRESS {
                said = Instant::now();
                let wanted = match self.spec.logs_in {
                    true => format!("{} to log in", self.spec.user),
                    false => "the console to ask for a login".to_owned(),
                };
                log(&format!(
                    "waiting for {wanted}, {:.0} s so far; the machine has come to {}",
                    from.elapsed().as_secs_f64(),
                    console::stage(&console)
                ));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Why the machine was ended, when it was for what it said.
    pub(crate) fn flooded(&self) -> Option<String> {
        let flooded = self.watch.as_ref().is_some_and(|watch| watch.flooded.load(Ordering::Relaxed));
        flooded.then(|| {
            format!(
                "its console does not come to an end: {LONGEST_CONSOLE} bytes so far; the machine was ended"
            )
        })
    }

    /// What SeaBIOS said about its own doings; empty under UEFI, which speaks on the console.
    fn firmware_log(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(file) = File::open(&self.places.firmware_log) {
            let _ = file.take(LONGEST_FIRMWARE_LOG).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn qemu_words(&self) -> String {
        match std::fs::read_to_string(self.work.join("qemu.log")).unwrap_or_default().trim() {
            "" => String::new(),
            text => format!(": {text}"),
        }
    }

    /// The failure of a boot that began at `from`, with what the console tells.
    fn not_up(&self, from: Instant, reason: String) -> BootError {
        let console = self.console_since(self.console_from);
        let stage = console::stage(&console);
        let mut lines = console::telling_lines(&console, TELLING_LINES);
        if stage == Stage::Firmware {
            lines.extend(console::telling_lines(&self.firmware_log(), TELLING_LINES));
        }
        let failed = cause::failed_line(&cause::failed_units(&console));
        let (place, cause) = (cause::stopped_at(stage, &console), cause::likely_cause(stage, &console));
        BootError::NotUp {
            stage,
            place,
            seconds: from.elapsed().as_secs(),
            reason,
            failed,
            cause,
            console: lines,
        }
    }

    /// Reboots through the guest's own init and waits until the user can log in again.
    pub fn reboot(&mut self, log: Log<'_>) -> Result<Duration, BootError> {
        let from = Instant::now();
        let limit = self.boot_limit();
        self.console_from = std::fs::metadata(&self.places.console).map(|meta| meta.len()).unwrap_or(0);
        let output = self.ssh("sudo -n systemctl reboot || sudo -n reboot", Duration::from_secs(60))?;
        // The connection may well break before the command's status comes back.
        if !matches!(output.status, Some(0 | 255)) {
            return Err(BootError::Helper { program: "reboot in the guest".into(), message: output.stderr });
        }
        self.wait_for_boot(from, limit + Duration::from_secs(60), log)
    }

    /// Presses the power button, gives the guest `limit` to go, then ends QEMU.
    pub fn shutdown(mut self, limit: Duration) -> Shutdown {
        if self.qmp.power_down().is_ok() && matches!(process::wait(&mut self.child, limit), Ok(Some(_))) {
            return Shutdown::Clean;
        }
        Shutdown::Forced
    }

    /// Whether the guest can open a TCP connection to an address. Of all there are, it should reach only the metadata
    /// service's port 80.
    pub fn guest_can_connect(&mut self, address: Ipv4Addr, port: u16) -> Result<bool, BootError> {
        let script = format!("timeout 10 bash -c '</dev/tcp/{address}/{port}'");
        Ok(self.ssh(&script, Duration::from_secs(120))?.success())
    }

    /// Whether QEMU still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn try_login(&mut self) -> Result<Login, BootError> {
        if !self.answers_ssh()? {
            return Ok(Login::NoAnswer);
        }
        let output = self.ssh("cat /proc/sys/kernel/random/boot_id", Duration::from_secs(60))?;
        let boot_id = output.stdout.trim();
        Ok(if output.success() && !boot_id.is_empty() {
            Login::In { boot_id: boot_id.to_owned() }
        } else {
            let words = if output.timed_out { "nothing for 60 s" } else { output.stderr.trim() };
            Login::Refused { words: without_escapes(words) }
        })
    }
}

/// What came of an attempt to log in.
enum Login {
    /// No sshd greets.
    NoAnswer,
    /// sshd is there, but the login failed.
    Refused { words: String },
    /// The login worked, in the boot that the kernel gave this id.
    In { boot_id: String },
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.watch = None;
        end(&mut self.child, self.guard.take());
    }
}
