//! The disks, and what EC2 takes of them.

use block::{GIB, MIB};

use super::{Decoder, items, same_file};
use crate::model::{Filesystem, Volume, VolumeType};
use crate::yaml::Node;
use crate::{DeviceName, Span, language, limits};

impl Decoder<'_> {
    pub(super) fn volumes(&mut self, root: &Node) -> Vec<Volume> {
        let listed = items(root, "volumes");
        if listed.is_empty() {
            let span = root.key("name").map_or_else(|| root.span.clone(), |key| key.span.clone());
            return DeviceName::new("/dev/xvda")
                .map(|device| vec![root_volume(device, span)])
                .unwrap_or_default();
        }
        let mut volumes: Vec<Volume> = Vec::new();
        let mut unreadable = false;
        for node in listed {
            self.required(node, &language::VOLUME);
            let Some(volume) = self.volume(node) else {
                unreadable = true;
                continue;
            };
            match volumes.iter().position(|other| other.device.same_device(&volume.device)) {
                Some(at) if same_file(&volumes[at].span, &volume.span) => {
                    let first = &volumes[at];
                    let message = if first.device == volume.device {
                        format!("two volumes are attached as `{}`", volume.device)
                    } else {
                        format!("`{}` and `{}` are the same device", first.device, volume.device)
                    };
                    let help =
                        format!("the first is in line {}: give one another name", first.span.position().0);
                    self.error(&volume.span, message, "the second", help);
                }
                Some(at) => volumes[at] = volume,
                None => volumes.push(volume),
            }
        }
        self.across_volumes(root, &volumes, unreadable);
        volumes
    }

    /// The rules that look at several volumes.
    fn across_volumes(&mut self, root: &Node, volumes: &[Volume], unreadable: bool) {
        let mut roots = volumes.iter().filter(|volume| volume.root);
        match roots.next() {
            None => {
                // A volume that could not be read may have been the root.
                if !unreadable {
                    let span = root.key("volumes").map_or_else(|| root.span.clone(), |key| key.span.clone());
                    self.error(
                        &span,
                        "no volume is the root",
                        "none has `root: true`",
                        "add {device: /dev/xvda, root: true, size: 4GiB}",
                    );
                }
            }
            Some(first) => {
                for second in roots {
                    self.error(
                        &second.span,
                        "two volumes are the root",
                        "the second",
                        format!("the first is `{}`: take `root: true` away from one of them", first.device),
                    );
                }
            }
        }
        for (index, volume) in volumes.iter().enumerate() {
            for earlier in &volumes[..index] {
                if volume.ephemeral.is_some() && volume.ephemeral == earlier.ephemeral {
                    let message = format!(
                        "`{}` and `{}` are the same instance store volume",
                        earlier.device, volume.device
                    );
                    self.error(&volume.span, message, "the second", "give each its own number: ephemeral: 1");
                }
                if volume.mount.is_some() && volume.mount == earlier.mount {
                    let message =
                        format!("`{}` and `{}` are mounted at the same place", earlier.device, volume.device);
                    self.error(&volume.span, message, "the second", "give each its own `mount`");
                }
                if volume.label.is_some() && volume.label == earlier.label {
                    let message = format!("`{}` and `{}` have the same label", earlier.device, volume.device);
                    self.error(&volume.span, message, "the second", "give each its own `label`");
                }
            }
        }
    }

    fn volume(&mut self, node: &Node) -> Option<Volume> {
        let root = self.truth(node, "root").unwrap_or(false);
        let ephemeral =
            self.number(node, &language::VOLUME, "ephemeral").and_then(|number| u8::try_from(number).ok());
        let size = self.size(node);
        let volume_type = self
            .choice(node, "type", language::VOLUME_TYPES)
            .map_or(VolumeType::Gp3, |(index, _)| VolumeType::ALL[index]);
        let encrypted = self.truth(node, "encrypted");
        let mount = match self.text(node, "mount") {
            Some((text, span)) => self.image_path(&text, &span, "`mount`").map(|path| (path, span)),
            None => None,
        };
        let source = match self.text(node, "source") {
            Some((text, span)) => self.source(&text, &span, true),
            None => None,
        };
        let label = self.text(node, "label");
        let filesystem = self.choice(node, "filesystem", language::FILESYSTEMS).map(|_| Filesystem::Ext4);
        let has_content =
            node.get("source").is_some() || label.is_some() || mount.is_some() || filesystem.is_some();
        let deleted = self.truth(node, "delete_on_termination");
        let (device, span) = self.text(node, "device")?;
        let device = match DeviceName::new(&device) {
            Ok(device) => device,
            Err(help) => {
                self.error(&span, format!("`{device}` is not a device name"), "", help);
                return None;
            }
        };
        self.device_rules(&device, &span, root, ephemeral.is_some());
        if let Some((label, span)) = &label
            && (label.is_empty()
                || label.len() > 16
                || label.contains('/')
                || label.contains(char::is_whitespace)
                || label.contains(char::is_control))
        {
            self.error(
                span,
                format!("`{label}` cannot be a label"),
                "",
                "16 bytes at most, without spaces and slashes",
            );
        }
        if let Some(number) = ephemeral {
            for key in [
                "root",
                "type",
                "iops",
                "throughput",
                "encrypted",
                "filesystem",
                "label",
                "mount",
                "source",
                "delete_on_termination",
            ] {
                if let (Some(_), Some(at)) = (node.get(key), node.key(key))
                    && (key != "root" || root)
                {
                    self.error(
                        &at.span,
                        format!("instance store has no `{key}`"),
                        format!("this is ephemeral{number}"),
                        "an instance store volume is blank at each start: take this key away",
                    );
                }
            }
        }
        if root {
            if let Some((path, span)) = &mount
                && path != "/"
            {
                self.error(span, "the root is mounted at /", "", "take `mount` away");
            }
            if let Some(at) = node.get("source").and(node.key("source")) {
                self.error(
                    &at.span,
                    "the root is filled by packages and files",
                    "a source for the root",
                    "lay the folder down with `files:`",
                );
            }
        } else if let Some((path, span)) = &mount
            && (path == "/"
                || ["/proc", "/sys", "/dev", "/run"]
                    .iter()
                    .any(|taken| path == taken || path.starts_with(&format!("{taken}/"))))
        {
            self.error(
                span,
                format!("nothing can be mounted at `{path}`"),
                "",
                "choose a folder such as /srv/data",
            );
        }
        if let (Some(true | false), Some(at)) = (encrypted, node.key("encrypted"))
            && ephemeral.is_none()
            && (root || has_content)
        {
            self.error(
                &at.span,
                "EC2 refuses `encrypted` for a volume that comes from a snapshot",
                "this one does",
                "take it away: encrypt when you copy or launch the image",
            );
        }
        let (size, size_span) = match size {
            Some(Some(size)) => size,
            Some(None) if root => (4 * GIB, span.clone()),
            Some(None) if ephemeral.is_some() => (GIB, span.clone()),
            Some(None) => {
                self.error(&node.span, "a volume needs a `size`", "has no `size`", "add `size: 1GiB`");
                return None;
            }
            None => return None,
        };
        let volume = Volume {
            root,
            size,
            volume_type,
            iops: self.number(node, &language::VOLUME, "iops").and_then(|number| u32::try_from(number).ok()),
            throughput: self
                .number(node, &language::VOLUME, "throughput")
                .and_then(|number| u32::try_from(number).ok()),
            encrypted,
            filesystem: (root || has_content).then_some(Filesystem::Ext4),
            label: label.map(|(text, _)| text),
            mount: if root { Some("/".to_owned()) } else { mount.map(|(path, _)| path) },
            source,
            delete_on_termination: deleted.unwrap_or(root),
            ephemeral,
            device,
            span,
            size_span,
        };
        if ephemeral.is_none() {
            self.limits(node, &volume);
        }
        Some(volume)
    }

    fn device_rules(&mut self, device: &DeviceName, span: &Span, root: bool, ephemeral: bool) {
        let disk = device.disk();
        if root && !matches!(device.as_str(), "/dev/xvda" | "/dev/sda1") {
            self.error(
                span,
                format!("the root cannot be `{device}`"),
                "",
                "the root is /dev/xvda or /dev/sda1",
            );
        } else if !root && disk == "xvda" {
            self.error(
                span,
                format!("`{device}` is kept for the root"),
                "no root",
                "add `root: true`, or take /dev/xvdf for data",
            );
        } else if !root {
            let letter = disk.strip_prefix("xvd").unwrap_or_default();
            let (good, range) = if ephemeral {
                (matches!(letter, "b" | "c" | "d" | "e"), "/dev/sdb to /dev/sde")
            } else {
                (
                    letter.len() == 1 && ("f"..="p").contains(&letter),
                    "/dev/xvdf to /dev/xvdp, or /dev/sdf to /dev/sdp",
                )
            };
            if !good {
                let what = if ephemeral { "instance store" } else { "data volumes" };
                self.problems.push(
                    span.warning(
                        format!("`{device}` is not among the names that EC2 recommends for {what}"),
                        "works on most instance types",
                    )
                    .help(format!("use {range}")),
                );
            }
        }
    }

    /// `None` when the size is wrong, `Some(None)` when there is none.
    #[expect(clippy::option_option, reason = "wrong and absent are different")]
    fn size(&mut self, node: &Node) -> Option<Option<(u64, Span)>> {
        let Some((text, span)) = self.text(node, "size") else { return Some(None) };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "GiB" => GIB,
            "MiB" => MIB,
            _ => {
                let help = match unit.trim().to_lowercase().as_str() {
                    _ if number.is_empty() => "write whole GiB or MiB: 4GiB".to_owned(),
                    "m" | "mb" | "mib" => format!("write `{number}MiB`"),
                    "" | "g" | "gb" | "gib" => format!("write `{number}GiB`"),
                    "t" | "tb" | "tib" => {
                        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(1024)) {
                            Some(number) => format!("write `{number}GiB`"),
                            None => "write whole GiB or MiB: 4GiB".to_owned(),
                        }
                    }
                    _ => "write whole GiB or MiB: 4GiB, 512MiB".to_owned(),
                };
                self.error(&span, format!("`{text}` is not a size"), "not whole MiB or GiB", help);
                return None;
            }
        };
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)) {
            Some(size) if size > 0 => Some(Some((size, span))),
            _ => {
                self.error(
                    &span,
                    format!("`{text}` is not a size"),
                    "out of range",
                    "write a size such as 4GiB",
                );
                None
            }
        }
    }

    /// What EC2 takes for the volume's type.
    fn limits(&mut self, node: &Node, volume: &Volume) {
        let limits = &limits::VOLUMES[volume.volume_type as usize];
        let name = limits.name;
        let asked = |key: &str| node.get(key).map_or_else(|| volume.span.clone(), |value| value.span.clone());
        let gib = volume.size_gib();
        let (least, most) = limits.size;
        if !(least..=most).contains(&gib) {
            self.error(
                &volume.size_span,
                format!("a volume of type {name} cannot have {gib} GiB"),
                format!("{name} takes {least} to {most} GiB"),
                "change the size or the type",
            );
        }
        if volume.root && !limits.boot {
            self.error(
                &asked("type"),
                format!("no machine boots from a volume of type {name}"),
                "the root's type",
                "use gp3 for the root",
            );
        }
        match (limits.iops, volume.iops.map(u64::from)) {
            (None, Some(_)) => self.error(
                &asked("iops"),
                format!("a volume of type {name} takes no `iops`"),
                "",
                "take it away, or use gp3, io1 or io2",
            ),
            (Some(_), None) if limits.iops_required => {
                self.error(
                    &asked("type"),
                    format!("a volume of type {name} needs `iops`"),
                    "has none",
                    "add `iops: 1000`, or use gp3",
                );
            }
            (Some((least, most, each)), Some(iops)) => {
                let most_here =
                    most.min(each * gib).max(if limits.iops_required { least } else { limits::GP3_IOPS });
                if !(least..=most_here).contains(&iops) {
                    let label = format!("{name} of {gib} GiB takes {least} to {most_here}");
                    self.error(
                        &asked("iops"),
                        format!("{iops} IOPS are out of range"),
                        label,
                        "change `iops`, or the size",
                    );
                }
            }
            _ => {}
        }
        match (limits.throughput, volume.throughput.map(u64::from)) {
            (None, Some(_)) => self.error(
                &asked("throughput"),
                format!("a volume of type {name} takes no `throughput`"),
                "",
                "take it away, or use gp3",
            ),
            (Some((least, most)), Some(throughput)) => {
                let iops = volume.iops.map_or(limits::GP3_IOPS, u64::from);
                if !(least..=most).contains(&throughput) {
                    self.error(
                        &asked("throughput"),
                        format!("{throughput} MiB/s are out of range"),
                        format!("{name} takes {least} to {most}"),
                        "change `throughput`",
                    );
                } else if throughput * limits::IOPS_PER_THROUGHPUT > iops {
                    let needed = throughput * limits::IOPS_PER_THROUGHPUT;
                    self.error(
                        &asked("throughput"),
                        format!("{throughput} MiB/s need {needed} IOPS"),
                        format!("the volume has {iops}"),
                        format!(
                            "add `iops: {needed}`, or ask for {} MiB/s",
                            iops / limits::IOPS_PER_THROUGHPUT
                        ),
                    );
                }
            }
            _ => {}
        }
    }
}

fn root_volume(device: DeviceName, span: Span) -> Volume {
    Volume {
        device,
        root: true,
        size: 4 * GIB,
        volume_type: VolumeType::Gp3,
        iops: None,
        throughput: None,
        encrypted: None,
        filesystem: Some(Filesystem::Ext4),
        label: None,
        mount: Some("/".to_owned()),
        source: None,
        delete_on_termination: true,
        ephemeral: None,
        size_span: span.clone(),
        span,
    }
}
