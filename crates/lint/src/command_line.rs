//! What the kernel is told at boot: where its console is, how long to wait for a disk.

use std::collections::BTreeMap;

use tree::{Node, TreePath};

use crate::grub::{Menu, words};
use crate::image::{Image, lines};
use crate::{Error, Findings, rules};

const CONSOLE: &str = "console=ttyS0,115200n8";
const TIMEOUT: &str = "nvme_core.io_timeout=4294967295";

/// Looks at the default entry's command line, at the settings that the next one is made from, and at the login on the
/// serial line.
pub(crate) fn check(image: &Image<'_>, menu: &Menu, findings: &mut Findings) -> Result<(), Error> {
    let Some(boot) = menu.usual() else { return Ok(()) };
    let has_console = boot.arguments.iter().any(|word| is_console(word));
    let has_timeout = boot.arguments.iter().any(|word| word == TIMEOUT);
    let path = menu.path.as_ref();
    let advice =
        |word: &str| format!("add {word} to GRUB_CMDLINE_LINUX in /etc/default/grub, and run update-grub");
    if !has_console {
        let reason = format!("line {}: the kernel writes nothing to the serial console", boot.line);
        findings.add(&rules::CONSOLE, path, reason, advice(CONSOLE));
    }
    if !has_timeout {
        let reason = format!("line {}: the kernel's time-out for NVMe disks is 30 seconds", boot.line);
        findings.add(&rules::NVME_TIMEOUT, path, reason, advice(TIMEOUT));
    }
    if let Some((path, kept)) = settings(image)? {
        let lost = |word: &str| format!("does not have the {word} of the command line in grub.cfg");
        if has_console && !kept.iter().any(|word| is_console(word)) {
            findings.add(&rules::COMMAND_LINE_KEPT, Some(&path), lost("console=ttyS0"), advice(CONSOLE));
        }
        if has_timeout && !kept.iter().any(|word| word == TIMEOUT) {
            findings.add(
                &rules::COMMAND_LINE_KEPT,
                Some(&path),
                lost("nvme_core.io_timeout"),
                advice(TIMEOUT),
            );
        }
    }
    if has_console {
        login(image, findings);
    }
    Ok(())
}

fn is_console(word: &str) -> bool {
    word == "console=ttyS0" || word.starts_with("console=ttyS0,")
}

/// What update-grub will make a command line from, and the file that says it last; `None` without such files.
fn settings(image: &Image<'_>) -> Result<Option<(TreePath, Vec<String>)>, Error> {
    let mut files: Vec<_> = image.text("/etc/default/grub")?.into_iter().collect();
    files.extend(image.texts("/etc/default/grub.d", ".cfg")?);
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    let mut last = None;
    for (path, text) in &files {
        last = last.or(Some(path));
        for (_, line) in lines(text) {
            let Some((name, value)) = line.trim_start_matches("export ").split_once('=') else { continue };
            if !matches!(name, "GRUB_CMDLINE_LINUX" | "GRUB_CMDLINE_LINUX_DEFAULT") {
                continue;
            }
            let mut value = words(value).into_iter().next().unwrap_or_default();
            for (name, old) in &values {
                value = value.replace(&format!("${{{name}}}"), old);
            }
            // The longer name first: `$A_B` is not `$A` and `_B`.
            for (name, old) in values.iter().rev() {
                value = value.replace(&format!("${name}"), old);
            }
            values.insert(name, value);
            last = Some(path);
        }
    }
    let words = values.values().flat_map(|value| value.split_ascii_whitespace().map(str::to_owned)).collect();
    Ok(last.map(|path| (path.clone(), words)))
}

/// systemd starts a login on every console of the kernel, unless told otherwise.
fn login(image: &Image<'_>, findings: &mut Findings) {
    let units = ["serial-getty@.service", "serial-getty@ttyS0.service"];
    for unit in units {
        let path = format!("/etc/systemd/system/{unit}");
        let Some(entry) = image.entry(&path) else { continue };
        if matches!(&entry.node, Node::Symlink(target) if target == b"/dev/null") {
            let file = TreePath::new(path.as_bytes()).ok();
            let reason = "is masked, so nobody can log in on the serial console";
            findings.add(&rules::CONSOLE, file.as_ref(), reason, format!("run `systemctl unmask {unit}`"));
        }
    }
    let folders = ["/usr/lib/systemd/system-generators", "/etc/systemd/system/getty.target.wants"];
    let started = ["systemd-getty-generator", "serial-getty@ttyS0.service"];
    let starts = folders
        .iter()
        .zip(started)
        .any(|(folder, name)| image.list(folder).iter().any(|other| other == name));
    if !starts {
        let reason = "nothing starts a login on ttyS0";
        findings.add(&rules::CONSOLE, None, reason, "have systemd in the image, or start a getty there");
    }
}

#[cfg(test)]
mod tests {
    use block::Origin;
    use tree::Entry;

    use crate::test_image::Sample;

    #[test]
    fn the_serial_console_is_a_console() {
        let mut sample = Sample::new();
        sample.replace("boot/grub/grub.cfg", "console=ttyS0,115200n8", "console=ttyS1");
        assert_eq!(sample.rules(), ["console"]);
        let mut sample = Sample::new();
        sample
            .put("etc/systemd/system/serial-getty@.service", Entry::symlink("/dev/null", Origin::Configured));
        assert_eq!(sample.rules(), ["console"]);
        let mut sample = Sample::new();
        sample.remove("usr/lib/systemd/system-generators/systemd-getty-generator");
        assert_eq!(sample.rules(), ["console"]);
    }

    #[test]
    fn disks_have_time() {
        let mut sample = Sample::new();
        sample.replace("boot/grub/grub.cfg", "nvme_core.io_timeout=4294967295", "");
        assert_eq!(sample.rules(), ["nvme-timeout"]);
    }

    #[test]
    fn an_update_of_the_kernel_keeps_the_command_line() {
        let kept = |text: &str| {
            let mut sample = Sample::new();
            sample.text("etc/default/grub.d/50_image.cfg", text);
            let said = sample.lint(&sample.facts());
            assert!(said.iter().all(|finding| finding.rule == "command-line-kept"), "{said:?}");
            said.len()
        };
        assert_eq!(kept("GRUB_CMDLINE_LINUX=\"console=ttyS0\""), 1);
        assert_eq!(kept("GRUB_CMDLINE_LINUX='quiet'\n"), 2);
        assert_eq!(kept("# GRUB_CMDLINE_LINUX=\n"), 0, "/etc/default/grub has both");
        assert_eq!(kept("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX quiet\"\n"), 0);
        assert_eq!(kept("GRUB_CMDLINE_LINUX=\"${GRUB_CMDLINE_LINUX} quiet\"\n"), 0);
    }
}
