//! `/etc/fstab`: every file system by a name that is the same on every instance type.

use block::format_uuid;
use tree::TreePath;

use crate::image::{Image, lines};
use crate::{DataFileSystem, Error, Facts, Findings, rules};

/// How disks are called that have other names elsewhere.
const DISKS: [&str; 6] = ["/dev/xvd", "/dev/sd", "/dev/nvme", "/dev/vd", "/dev/hd", "/dev/xbd"];

/// What the rest of the lint wants to know of fstab.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// The root's file system type, as mount(8) names it; `None` where fstab does not say.
    pub(crate) root_type: Option<String>,
}

struct Line<'a> {
    number: usize,
    device: &'a str,
    mount: String,
    kind: &'a str,
    options: &'a str,
}

impl Line<'_> {
    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|other| other == option)
    }

    fn uuid(&self) -> Option<&str> {
        let uuid =
            self.device.strip_prefix("UUID=").or_else(|| self.device.strip_prefix("/dev/disk/by-uuid/"))?;
        Some(uuid.trim_matches('"'))
    }
}

/// Looks at fstab, and tells what is mounted.
pub(crate) fn check(image: &Image<'_>, facts: &Facts<'_>, findings: &mut Findings) -> Result<Mounts, Error> {
    let root_uuid = format_uuid(facts.root_uuid);
    let Some((path, text)) = image.text("/etc/fstab")? else {
        let advice = format!("write `UUID={root_uuid} / ext4 defaults 0 1` into it");
        findings.add(&rules::FSTAB_ROOT, None, "there is no /etc/fstab, so the root stays read-only", advice);
        return Ok(Mounts::default());
    };
    let lines: Vec<Line<'_>> = lines(&text).filter_map(|(number, line)| read(number, line)).collect();
    for (index, line) in lines.iter().enumerate() {
        let number = line.number;
        if DISKS.iter().any(|disk| line.device.starts_with(disk)) {
            let reason = format!("line {number} names the disk {}", line.device);
            findings.add(
                &rules::FSTAB_DEVICE,
                Some(&path),
                reason,
                "name the file system by UUID= or LABEL=",
            );
        }
        let first = lines[..index].iter().find(|other| other.mount == line.mount);
        if let Some(first) = first.filter(|_| line.mount.starts_with('/')) {
            let reason = format!("lines {} and {number} mount on {}", first.number, line.mount);
            findings.add(&rules::FSTAB_DUPLICATE, Some(&path), reason, "keep one of them");
        }
    }
    let root = lines.iter().find(|line| line.mount == "/");
    match root {
        None => {
            let advice = format!("add `UUID={root_uuid} / ext4 defaults 0 1`");
            findings.add(
                &rules::FSTAB_ROOT,
                Some(&path),
                "has no entry for /, so the root stays read-only",
                advice,
            );
        }
        Some(line) => {
            if let Some(uuid) = line.uuid().filter(|uuid| !uuid.eq_ignore_ascii_case(&root_uuid)) {
                let reason = format!(
                    "line {} mounts {uuid} on /, and the root file system is {root_uuid}",
                    line.number
                );
                findings.add(&rules::FSTAB_ROOT, Some(&path), reason, format!("write `UUID={root_uuid}`"));
            }
        }
    }
    for data in facts.data {
        check_data(data, &lines, &path, findings);
    }
    for line in lines.iter().filter(|line| line.mount != "/" && !line.has("nofail") && !line.has("noauto")) {
        let known =
            |uuid: &str| facts.data.iter().any(|data| format_uuid(data.uuid).eq_ignore_ascii_case(uuid));
        // Shorter ones are volume ids of FAT, such as the EFI system partition's.
        if let Some(uuid) = line.uuid().filter(|uuid| uuid.len() == 36 && !known(uuid))
            && !uuid.eq_ignore_ascii_case(&root_uuid)
        {
            let reason =
                format!("line {} waits at boot for {uuid}, which is on no volume of the image", line.number);
            let advice = "correct the UUID, or add nofail if the volume comes later";
            findings.add(&rules::FSTAB_DATA, Some(&path), reason, advice);
        }
    }
    let root_type = root.map(|line| line.kind.to_owned()).filter(|kind| kind != "auto");
    Ok(Mounts { root_type })
}

/// One data volume: mounted where it belongs, and not waited for.
fn check_data(data: &DataFileSystem<'_>, lines: &[Line<'_>], path: &TreePath, findings: &mut Findings) {
    let Some(mount) = data.mount else { return };
    let uuid = format_uuid(data.uuid);
    let advice = format!("write `UUID={uuid} {mount} ext4 defaults,nofail 0 2`");
    let Some(line) = lines.iter().find(|line| line.mount == mount) else {
        let reason = format!("does not mount the data volume {uuid} on {mount}");
        return findings.add(&rules::FSTAB_DATA, Some(path), reason, advice);
    };
    if line.uuid().is_some_and(|other| !other.eq_ignore_ascii_case(&uuid)) {
        let reason = format!("line {} mounts another file system than {uuid} on {mount}", line.number);
        findings.add(&rules::FSTAB_DATA, Some(path), reason, advice);
    } else if !line.has("nofail") && !line.has("noauto") {
        let reason = format!("line {} waits for the data volume on {mount}", line.number);
        findings.add(&rules::FSTAB_NOFAIL, Some(path), reason, "add nofail to its options");
    }
}

fn read(number: usize, line: &str) -> Option<Line<'_>> {
    let mut fields = line.split_ascii_whitespace();
    let device = fields.next()?;
    let mount = unescaped(fields.next()?);
    let mount = if mount.len() > 1 { mount.trim_end_matches('/').to_owned() } else { mount };
    let kind = fields.next().unwrap_or("auto");
    Some(Line { number, device, mount, kind, options: fields.next().unwrap_or("defaults") })
}

/// A field with its `\040` and the like as the bytes they stand for.
fn unescaped(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        let digits =
            rest.get(at + 1..at + 4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        let Some(byte) = byte else {
            text.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            continue;
        };
        text.push_str(&rest[..at]);
        text.push(char::from(byte));
        rest = &rest[at + 4..];
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_image::{ROOT_UUID, Sample};

    const DATA_UUID: [u8; 16] = [0x11; 16];

    fn found(fstab: &str, data: &[DataFileSystem<'_>]) -> Vec<String> {
        let mut sample = Sample::new();
        sample.text("etc/fstab", fstab);
        let facts = Facts { data, ..sample.facts() };
        sample.lint(&facts).iter().map(|finding| format!("{}: {}", finding.rule, finding.reason)).collect()
    }

    fn root_line() -> String {
        format!("UUID={} / ext4 defaults 0 1\n", format_uuid(ROOT_UUID))
    }

    #[test]
    fn names_that_last_are_fine() {
        let data = [DataFileSystem { uuid: DATA_UUID, mount: Some("/srv/my data") }];
        let text = format!(
            "# comment\n\n{}UUID=1197-B5B9 /boot/efi vfat umask=0077 0 0\ntmpfs /tmp tmpfs defaults\n\
             UUID={} /srv/my\\040data/ ext4 defaults,nofail 0 2\nLABEL=x /x ext4 nofail\n/swapfile none swap sw\n\
             /dev/mapper/a /a ext4 nofail\nUUID=22222222-2222-2222-2222-222222222222 /late ext4 nofail\n",
            root_line(),
            format_uuid(DATA_UUID)
        );
        assert_eq!(found(&text, &data), [""; 0]);
        assert_eq!(found("PARTUUID=1234 / ext4 defaults 0 1\n", &[]), [""; 0]);
    }

    #[test]
    fn device_names_differ_by_instance_type() {
        let text = format!("{}/dev/xvdf /srv ext4 nofail\n/dev/nvme1n1p1 none swap sw\n", root_line());
        assert_eq!(
            found(&text, &[]),
            [
                "fstab-device: line 2 names the disk /dev/xvdf",
                "fstab-device: line 3 names the disk /dev/nvme1n1p1"
            ]
        );
    }

    #[test]
    fn the_root_is_mounted_by_its_own_uuid() {
        assert_eq!(
            found("UUID=22222222-2222-2222-2222-222222222222 / ext4\n", &[]),
            [
                "fstab-root: line 1 mounts 22222222-2222-2222-2222-222222222222 on /, and the root file system is \
              abababab-abab-abab-abab-abababababab"
            ]
        );
        assert_eq!(
            found("UUID=1-2 /boot/efi vfat\n", &[]),
            ["fstab-root: has no entry for /, so the root stays read-only"]
        );
        let mut sample = Sample::new();
        sample.remove("etc/fstab");
        assert_eq!(sample.rules(), ["fstab-root"]);
    }

    #[test]
    fn data_is_mounted_once_and_not_waited_for() {
        let data = [DataFileSystem { uuid: DATA_UUID, mount: Some("/srv") }];
        let uuid = format_uuid(DATA_UUID);
        let with = |line: &str| found(&format!("{}{line}\n", root_line()), &data);
        assert_eq!(with(""), [format!("fstab-data: does not mount the data volume {uuid} on /srv")]);
        assert_eq!(
            with("UUID=22222222-2222-2222-2222-222222222222 /srv ext4 nofail"),
            [format!("fstab-data: line 2 mounts another file system than {uuid} on /srv")]
        );
        assert_eq!(
            with(&format!("UUID={uuid} /srv ext4 defaults 0 2")),
            ["fstab-nofail: line 2 waits for the data volume on /srv"]
        );
        assert_eq!(
            with(&format!("UUID={uuid} /srv ext4 nofail\nUUID={uuid} /srv ext4 nofail")),
            ["fstab-duplicate: lines 2 and 3 mount on /srv"]
        );
        assert_eq!(
            with(&format!(
                "UUID={uuid} /srv ext4 nofail\nUUID=22222222-2222-2222-2222-222222222222 none swap sw"
            )),
            [
                "fstab-data: line 3 waits at boot for 22222222-2222-2222-2222-222222222222, which is on no volume of \
              the image"
            ]
        );
    }
}
