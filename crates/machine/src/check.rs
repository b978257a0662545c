use std::path::Path;
use std::time::{Duration, Instant};

use block::{shell_word, without_escapes};
use serde::{Deserialize, Serialize};

use crate::boot::{Log, start};
use crate::{Accel, BootError, Disk, Machine, MachineSpec, Output, Programs, cause, console, http};

/// Between two tries of a check.
const PAUSE: Duration = Duration::from_secs(1);
/// The most that a detail quotes of what was seen.
const SEEN_LINES: usize = 12;
const SEEN_WIDTH: usize = 200;
/// The most that a check's name quotes of a command.
const NAME_WIDTH: usize = 60;

/// Something that must hold of a running machine. As JSON: one key that says the kind, with its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// A page that the machine serves.
    Http {
        /// TCP port in the machine.
        port: u16,
        /// Path, beginning with `/`.
        path: String,
        /// The status it must answer with.
        status: u16,
        /// A text that the page must hold.
        contains: Option<String>,
    },
    /// What a person sees at login, on a terminal.
    Login {
        /// Who logs in.
        user: String,
        /// A text that must be seen.
        contains: String,
    },
    /// A command that must succeed.
    Ssh {
        /// Who runs it.
        user: String,
        /// The command, for the user's shell.
        run: String,
        /// A text that its output must hold.
        contains: Option<String>,
    },
    /// A volume that must be mounted: the disk below the mount has the serial number of the volume that is attached
    /// under the device name, and in the guest the name leads to it.
    Mount {
        /// Where.
        path: String,
        /// The EC2 device name, which the guest must have.
        device: String,
    },
    /// A text that the console must show.
    Console {
        /// The text.
        contains: String,
    },
}

impl Check {
    /// A short name for people, such as `http :80/`.
    pub fn name(&self) -> String {
        match self {
            Self::Http { port, path, .. } => format!("http :{port}{path}"),
            Self::Login { user, .. } => format!("login {user}"),
            Self::Ssh { run, .. } => {
                let first = run.lines().next().unwrap_or_default();
                match first.char_indices().nth(NAME_WIDTH) {
                    Some((end, _)) => format!("ssh {}…", &first[..end]),
                    None => format!("ssh {first}"),
                }
            }
            Self::Mount { path, device } => format!("mount {device} at {path}"),
            Self::Console { contains } => format!("console {contains}"),
        }
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckResult {
    /// The check's name.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// How long it took, retries included.
    pub seconds: f64,
    /// What was seen; when the check failed, what was seen instead.
    pub detail: String,
}

/// How long a check is retried and how long one try may take.
struct Patience {
    retry: Duration,
    one_try: Duration,
}

impl Patience {
    fn of(accel: Accel) -> Self {
        let (retry, one_try) = match accel {
            Accel::Kvm => (15, 30),
            Accel::Tcg => (30, 120),
        };
        Self { retry: Duration::from_secs(retry), one_try: Duration::from_secs(one_try) }
    }
}

/// Boots a machine, runs the checks on it and ends it.
///
/// A machine that does not come up is a failed check `boot`, whose detail tells where it stopped and what its console
/// said; an error is what kept the machine from being started at all.
pub fn boot_and_check(
    spec: &MachineSpec,
    programs: &Programs,
    work: &Path,
    checks: &[Check],
    log: Log<'_>,
) -> Result<Vec<CheckResult>, BootError> {
    let mut machine = start(spec, programs, work, log)?;
    match machine.wait_until_up(log) {
        Ok(()) => Ok(run_checks(&mut machine, checks, log)),
        Err(error @ BootError::NotUp { seconds, .. }) => {
            let detail = error.to_string();
            log(&format!("boot FAILS: {detail}"));
            Ok(vec![CheckResult { name: "boot".into(), ok: false, seconds: seconds as f64, detail }])
        }
        Err(error) => Err(error),
    }
}

/// Runs the checks on a machine that is up: first those that hold for every machine (`boot`, `cloud-init` where it is
/// installed, `system`), then `checks` in their order. Every check is tried again until it
/// holds or its time is over; none stops the others.
pub fn run_checks(machine: &mut Machine, checks: &[Check], log: Log<'_>) -> Vec<CheckResult> {
    let mut patience = Patience::of(machine.accel());
    patience.retry = machine.spec().check_limit.unwrap_or(patience.retry);
    let mut results = Vec::new();
    if let Some(up) = machine.up_after() {
        let detail = match machine.spec().logs_in {
            true => format!("{} can log in", machine.spec().user),
            false => "the console asks for a login".to_owned(),
        };
        results.push(CheckResult { name: "boot".into(), ok: true, seconds: up.as_secs_f64(), detail });
    }
    let boot_limit = machine.boot_limit();
    if machine.spec().logs_in {
        results.extend(timed("cloud-init", log, || cloud_init(machine, boot_limit)));
        results.extend(timed("system", log, || system(machine, boot_limit).map(Some)));
    }
    for check in checks {
        results.extend(timed(&check.name(), log, || {
            let seen = retried(machine, check, &patience)?;
            let blamed = match (&seen, check) {
                (Err(_), Check::Http { .. }) => blame(machine),
                _ => None,
            };
            Ok(Some(seen.map_err(|seen| match blamed {
                Some(units) => format!("{seen}\n{units}"),
                None => seen,
            })))
        }));
    }
    if let Some(detail) = machine.flooded() {
        results.push(CheckResult { name: "console".into(), ok: false, seconds: 0.0, detail });
    }
    results
}

/// What one try saw: that the check holds, or not.
type Seen = Result<String, String>;

/// Runs one check; `None` from it means that it does not apply.
fn timed(
    name: &str,
    log: Log<'_>,
    check: impl FnOnce() -> Result<Option<Seen>, BootError>,
) -> Option<CheckResult> {
    let start = Instant::now();
    let seen = match check() {
        Ok(None) => return None,
        Ok(Some(seen)) => seen,
        Err(error) => Err(error.to_string()),
    };
    let seconds = start.elapsed().as_secs_f64();
    let (ok, detail) = match seen {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    // Some of it is the guest's own words.
    let detail = without_escapes(&detail);
    let verdict = if ok { "holds" } else { "FAILS" };
    log(&format!("{name} {verdict} ({seconds:.1} s): {}", detail.lines().next().unwrap_or_default()));
    Some(CheckResult { name: name.into(), ok, seconds, detail })
}

fn retried(machine: &mut Machine, check: &Check, patience: &Patience) -> Result<Seen, BootError> {
    let start = Instant::now();
    loop {
        let seen = attempt(machine, check, patience.one_try)?;
        if seen.is_ok() || start.elapsed() > patience.retry {
            return Ok(seen);
        }
        if !machine.is_running() {
            return Ok(Err("the machine has stopped running".into()));
        }
        std::thread::sleep(PAUSE);
    }
}

fn attempt(machine: &mut Machine, check: &Check, limit: Duration) -> Result<Seen, BootError> {
    match check {
        Check::Http { port, path, status, contains } => {
            let host = machine.port(*port)?;
            Ok(judge_page(http::get(host, "localhost", path, limit), *status, contains.as_deref()))
        }
        Check::Login { user, contains } => {
            let output = machine.ssh_login(user, limit)?;
            Ok(judge_text(&output, contains, &failure(&output)))
        }
        Check::Ssh { user, run, contains } => {
            let output = machine.ssh_as(user, run, limit)?;
            Ok(judge_command(&output, contains.as_deref()))
        }
        Check::Mount { path, device } => {
            let script = mount_script(path, device);
            let output = machine.ssh(&script, limit)?;
            Ok(judge_mount(&output, path, device, machine.spec()))
        }
        Check::Console { contains } => {
            let said = machine.console();
            if said.contains(contains) || without_escapes(&said).contains(contains) {
                return Ok(Ok(format!("shows `{contains}`")));
            }
            let last = console::telling_lines(&said, SEEN_LINES).join("\n");
            Ok(Err(format!("the console does not show `{contains}`; its telling lines:\n{last}")))
        }
    }
}

fn judge_page(answer: std::io::Result<http::Page>, status: u16, contains: Option<&str>) -> Seen {
    let page = answer.map_err(|error| format!("no answer: {error}"))?;
    let body = String::from_utf8_lossy(&page.body);
    if page.status != status {
        return Err(format!("answered with status {}, not {status}:\n{}", page.status, excerpt(&body)));
    }
    match contains {
        Some(text) if !body.contains(text) => {
            Err(format!("status {status}, but the page does not hold `{text}`:\n{}", excerpt(&body)))
        }
        Some(text) => Ok(format!("status {status}, the page holds `{text}`")),
        None => Ok(format!("status {status}")),
    }
}

fn judge_text(output: &Output, contains: &str, failure: &str) -> Seen {
    if output.stdout.contains(contains) {
        return Ok(format!("shows `{contains}`"));
    }
    if output.stdout.trim().is_empty() {
        return Err(format!("nothing was seen: {failure}"));
    }
    Err(format!("`{contains}` was not seen, but:\n{}", excerpt(&output.stdout)))
}

fn judge_command(output: &Output, contains: Option<&str>) -> Seen {
    if !output.success() {
        return Err(format!("{}\n{}", failure(output), excerpt(&output.stdout)).trim_end().to_owned());
    }
    match contains {
        Some(text) if !output.stdout.contains(text) => {
            Err(format!("the output does not hold `{text}`:\n{}", excerpt(&output.stdout)))
        }
        Some(text) => Ok(format!("the output holds `{text}`")),
        None => Ok("ended with status 0".into()),
    }
}

/// Prints the mounted device, what the device name leads to, then each device from the mounted one down to its disk, with
/// the serial number where it has one. An empty line stands for what is not there.
fn mount_script(path: &str, device: &str) -> String {
    format!(
        "source=$(findmnt --noheadings --nofsroot --output SOURCE --mountpoint {path} | tail -n 1)\n\
         echo \"$source\"\n\
         readlink -e {device} || echo\n\
         [ -n \"$source\" ] || exit 0\n\
         for name in $(lsblk --inverse --list --noheadings --output KNAME \"$source\"); do\n\
         cd \"/sys/class/block/$name\" || continue\n\
         echo \"/dev/$name $(cat serial device/serial 2>/dev/null)\"\n\
         done",
        path = shell_word(path),
        device = shell_word(device),
    )
}

fn judge_mount(output: &Output, path: &str, device: &str, spec: &MachineSpec) -> Seen {
    let mut lines = output.stdout.lines().map(str::trim);
    let (mounted, named) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let below: Vec<(&str, &str)> = lines
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
        .map(|(name, serial)| (name, serial.trim()))
        .collect();
    if output.stdout.is_empty() {
        return Err(failure(output));
    }
    if mounted.is_empty() {
        return Err(format!("nothing is mounted at {path}"));
    }
    if named.is_empty() {
        return Err(format!("the machine has no {device}; {path} is {mounted}"));
    }
    let Some(disk) = spec.disk(device) else {
        let attached: Vec<_> = spec.disks.iter().map(|disk| disk.device.as_str()).collect();
        return Err(format!("no volume is attached as {device}; there are {}", attached.join(", ")));
    };
    let is_below = |disk: &Disk| below.iter().any(|(_, serial)| *serial == disk.serial());
    if !is_below(disk) {
        let other = match spec.disks.iter().find(|disk| is_below(disk)) {
            Some(other) => format!("the volume attached as {}", other.device),
            None => "on no volume of the image".to_owned(),
        };
        return Err(format!("{path} is {mounted}, {other}, but {device} is {named}"));
    }
    if named != mounted && !below.iter().any(|(name, _)| *name == named) {
        return Err(format!(
            "{path} is {mounted}, the volume attached as {device}, but in the machine {device} is {named}"
        ));
    }
    Ok(format!("{path} is {mounted}, and {device} is {named}, serial number {}", disk.serial()))
}

/// Why a command did not end well, in one or some lines.
fn failure(output: &Output) -> String {
    let error = excerpt(&output.stderr);
    match (output.timed_out, output.status) {
        (true, _) => format!("no end within the time limit; {error}"),
        (_, Some(255)) => format!("ssh failed: {error}"),
        (_, Some(status)) => format!("ended with status {status}; {error}"),
        (_, None) => format!("was killed; {error}"),
    }
    .trim_end_matches("; ")
    .to_owned()
}

/// The first lines of a text, shortened, without colours.
fn excerpt(text: &str) -> String {
    let lines = text.lines().map(without_escapes).filter(|line| !line.trim().is_empty());
    let short = |line: String| match line.char_indices().nth(SEEN_WIDTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    };
    lines.take(SEEN_LINES).map(short).collect::<Vec<_>>().join("\n")
}

/// Waits until cloud-init is done and prints what it says of itself. Its own command says as much, but is a Python
/// program of some seconds where every instruction is emulated.
const RESULT: &str = "command -v cloud-init >/dev/null || exit 99; cd /run/cloud-init && \
    while ! [ -e result.json ]; do \
        for unit in cloud-init-main cloud-init-local cloud-init-network cloud-init cloud-config cloud-final; do \
            if systemctl is-failed --quiet $unit; then exit 98; fi; \
        done; \
        if [ -e disabled ]; then exit 98; fi; \
        sleep 0.5; \
    done && cat result.json status.json";

/// cloud-init has finished without an error, where it is installed.
fn cloud_init(machine: &mut Machine, limit: Duration) -> Result<Option<Seen>, BootError> {
    let output = machine.ssh(RESULT, limit)?;
    if output.status == Some(99) {
        return Ok(None);
    }
    if output.status == Some(0)
        && let Some(source) = untroubled(&output.stdout)
    {
        return Ok(Some(Ok(format!("done; {source}"))));
    }
    // Anything else is for cloud-init to tell. Status 1 is an error, 2 one from which cloud-init recovered.
    let output = machine.ssh(
        "cloud-init status --wait --long 2>&1 | tr -d '\\0'; cloud-init status >/dev/null 2>&1",
        limit,
    )?;
    let text = output.stdout.trim_start_matches(['.', '\n']);
    // Older versions give the detail a line of its own.
    let source = text.split_once("detail:").map_or("", |(_, rest)| rest.trim_start());
    let source = source.lines().next().unwrap_or_default().to_owned();
    Ok(Some(match output.status {
        Some(0) => Ok(format!("done; {source}")),
        Some(2) => Ok(format!("done, with remarks:\n{}", excerpt(text))),
        _ => Err(format!("{}\n{}", failure(&output), excerpt(text))),
    }))
}

/// The data source that cloud-init took, when its `result.json` and `status.json`, in this order, know of no trouble.
fn untroubled(files: &str) -> Option<String> {
    let mut files = serde_json::Deserializer::from_str(files).into_iter::<serde_json::Value>();
    let (result, status) = (files.next()?.ok()?, files.next()?.ok()?);
    let (result, stages) = (result.get("v1")?, status.get("v1")?.as_object()?);
    let is_empty = |value: &serde_json::Value| match value {
        serde_json::Value::Array(list) => list.is_empty(),
        serde_json::Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let quiet = |of: &serde_json::Value| {
        ["errors", "recoverable_errors"].iter().all(|key| of.get(key).is_none_or(is_empty))
    };
    let trouble = !quiet(result) || !stages.values().all(quiet);
    (!trouble).then(|| result.get("datasource")?.as_str().map(str::to_owned)).flatten()
}

/// systemd has started everything, and nothing failed.
fn system(machine: &mut Machine, limit: Duration) -> Result<Seen, BootError> {
    let output = machine.ssh("systemctl is-system-running --wait", limit)?;
    let state = output.stdout.trim().to_owned();
    if state == "running" {
        return Ok(Ok("running".into()));
    }
    let short = Duration::from_secs(60);
    if state.is_empty() {
        let jobs = machine.ssh("systemctl --no-legend --plain list-jobs", short)?;
        return Ok(Err(format!("{}; waiting for:\n{}", failure(&output), excerpt(&jobs.stdout))));
    }
    let failed = failed_in(machine)?.unwrap_or_else(|| "no unit has failed".to_owned());
    Ok(Err(format!("{state}; {failed}")))
}

/// The units that failed in a running machine, the first of them with the end of their journals; `None`: none has.
fn failed_in(machine: &mut Machine) -> Result<Option<String>, BootError> {
    let short = Duration::from_secs(60);
    let failed = machine.ssh("systemctl --failed --no-legend --plain", short)?;
    let units = failed.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>();
    if units.is_empty() {
        return Ok(None);
    }
    let mut detail = format!("failed units: {}", units.join(", "));
    for unit in units.iter().take(3) {
        let journal = machine.ssh(
            &format!(
                "sudo -n journalctl --no-pager --output=cat --lines={SEEN_LINES} --unit={}",
                shell_word(unit)
            ),
            short,
        )?;
        detail.push_str(&format!("\n{unit}:\n{}", excerpt(&journal.stdout)));
    }
    Ok(Some(detail))
}

/// What to add to the failure of a check that talks to a service of the machine: which units failed, as the machine
/// says, or else its console.
fn blame(machine: &mut Machine) -> Option<String> {
    if machine.spec().logs_in
        && let Ok(failed) = failed_in(machine)
    {
        return failed;
    }
    cause::failed_line(&cause::failed_units(&machine.console()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloud_inits_own_files_tell_of_trouble() {
        let result = r#"{"v1": {"datasource": "DataSourceEc2Local", "errors": []}}"#;
        let stages = |init: &str| {
            format!(
                "{{\"v1\": {{\"datasource\": \"DataSourceEc2Local\", \"init\": {init}, \"stage\": null, \
                 \"modules-final\": {{\"errors\": [], \"recoverable_errors\": {{}}, \"start\": 1.5, \
                 \"finished\": 2.5}}}}}}"
            )
        };
        let fine = stages(r#"{"errors": [], "recoverable_errors": {}}"#);
        // One behind the other, with and without a line break between them; older versions know no recoverable errors.
        assert_eq!(untroubled(&format!("{result}{fine}")).as_deref(), Some("DataSourceEc2Local"));
        let older = stages(r#"{"errors": [], "finished": 1.5}"#);
        assert_eq!(untroubled(&format!("{result}\n{older}\n")).as_deref(), Some("DataSourceEc2Local"));
        let remarks = stages(r#"{"errors": [], "recoverable_errors": {"WARNING": ["a"]}}"#);
        assert_eq!(untroubled(&format!("{result}{remarks}")), None);
        let failed = stages(r#"{"errors": ["a"]}"#);
        assert_eq!(untroubled(&format!("{result}{failed}")), None);
        let bad = r#"{"v1": {"datasource": "DataSourceNone", "errors": ["b"]}}"#;
        assert_eq!(untroubled(&format!("{bad}{fine}")), None);
        for cut in [0, 1, result.len() - 1, result.len(), result.len() + fine.len() - 1] {
            assert_eq!(untroubled(&format!("{result}{fine}")[..cut]), None);
        }
    }

    fn output(status: i32, stdout: &str, stderr: &str) -> Output {
        Output { status: Some(status), timed_out: false, stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn a_page_needs_its_status_and_its_text() {
        let page = |status, body: &str| Ok(http::Page { status, body: body.into() });
        assert!(judge_page(page(200, "<h1>Hello</h1>"), 200, Some("Hello")).is_ok());
        assert!(judge_page(page(404, "gone"), 404, None).is_ok());
        let seen = judge_page(page(200, "Apache2 Default Page"), 200, Some("Hello")).unwrap_err();
        assert!(seen.contains("`Hello`") && seen.contains("Apache2 Default Page"), "{seen}");
        let seen = judge_page(page(503, "later"), 200, Some("later")).unwrap_err();
        assert!(seen.contains("503") && seen.contains("not 200"), "{seen}");
        let closed = Err(std::io::Error::other("closed"));
        assert_eq!(judge_page(closed, 200, None).unwrap_err(), "no answer: closed");
    }

    #[test]
    fn a_command_must_succeed_and_say_its_text() {
        assert!(judge_command(&output(0, "active\n", ""), Some("active")).is_ok());
        assert!(judge_command(&output(0, "", ""), None).is_ok());
        let seen = judge_command(&output(3, "inactive\n", "no unit"), Some("active")).unwrap_err();
        assert_eq!(seen, "ended with status 3; no unit\ninactive");
        let late = Output { status: None, timed_out: true, ..output(0, "", "") };
        assert_eq!(judge_command(&late, None).unwrap_err(), "no end within the time limit");
    }

    #[test]
    fn a_mount_is_on_the_volume_that_is_attached_under_the_name() {
        let profile = crate::Profile::load("x86_64-nitro", None).unwrap();
        let disks = ["/dev/xvda", "/dev/xvdf", "/dev/sdg"].map(|device| Disk::volume(device, "x"));
        let [_, f, g] = disks.each_ref().map(Disk::serial);
        let spec = MachineSpec::new(profile, Accel::Tcg, "x", disks.into());
        let judge =
            |device: &str, lines: &str| judge_mount(&output(0, lines, ""), "/srv/data", device, &spec);
        let fails = |device, lines: &str| judge(device, lines).unwrap_err();

        assert!(judge("/dev/xvdf", &format!("/dev/vdb\n/dev/vdb\n/dev/vdb {f}\n")).is_ok());
        assert!(judge("/dev/sdf", &format!("/dev/vdb\n/dev/vdb\n/dev/vdb {f}\n")).is_ok());
        let partition = format!("/dev/nvme1n1p1\n/dev/nvme1n1\n/dev/nvme1n1p1 \n/dev/nvme1n1 {f}\n");
        assert!(judge("/dev/xvdf", &partition).is_ok());

        let other = format!("/dev/vdc\n/dev/vdb\n/dev/vdc {g}\n");
        let expected = "/srv/data is /dev/vdc, the volume attached as /dev/sdg, but /dev/xvdf is /dev/vdb";
        assert_eq!(fails("/dev/xvdf", &other), expected);
        assert!(fails("/dev/xvdf", "tmpfs\n/dev/vdb\n").contains("on no volume of the image"));
        let misnamed = format!("/dev/vdb\n/dev/vdc\n/dev/vdb {f}\n");
        assert!(fails("/dev/xvdf", &misnamed).contains("but in the machine /dev/xvdf is /dev/vdc"));
        assert!(fails("/dev/xvdf", "/dev/vdb\n\n").contains("the machine has no /dev/xvdf"));
        assert!(
            fails("/dev/xvdh", "/dev/vdb\n/dev/x\n").contains("there are /dev/xvda, /dev/xvdf, /dev/sdg")
        );
        assert!(fails("/dev/xvdf", "\n/dev/vdb\n").contains("nothing is mounted at /srv/data"));
        let lost = judge_mount(&output(255, "", "Connection refused"), "/srv/data", "/dev/xvdf", &spec);
        assert_eq!(lost.unwrap_err(), "ssh failed: Connection refused");
    }

    #[test]
    fn excerpts_are_short_and_plain() {
        let long = format!("\u{1b}[1mbold\u{1b}[0m\n\n{}\n{}", "ä".repeat(300), "line\n".repeat(50));
        let short = excerpt(&long);
        assert_eq!(short.lines().count(), SEEN_LINES);
        assert!(short.starts_with("bold\nä") && short.lines().nth(1).unwrap().ends_with('…'));
    }
}
