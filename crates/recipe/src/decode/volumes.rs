//! The disks, and what EC2 takes of them.

use std::path::{Path, PathBuf};

use block::{GIB, KIB, MIB};
use catalog::{IOPS_PER_THROUGHPUT, VolumeRule, VolumeSettings};

use super::{Decoder, items, same_file};
use crate::model::{FileSpec, Filesystem, Payload, Volume, Web};
use crate::yaml::Node;
use crate::{Code, DeviceName, Span, VolumeType, language};

/// Folders that a machine needs before other volumes are mounted, with all below them.
const TAKEN: [&str; 10] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys"];
/// Folders that it needs too, though something below them may well be mounted.
const TAKEN_THEMSELVES: [&str; 8] =
    ["/", "/usr", "/usr/bin", "/usr/lib", "/usr/sbin", "/usr/share", "/var", "/var/lib"];

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
                    self.error(Code::Repeated, &volume.span, message, "the second", help);
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
        let roots: Vec<&Volume> = volumes.iter().filter(|volume| volume.root).collect();
        match roots[..] {
            // A volume that could not be read may have been the root.
            [] if unreadable => {}
            [] => {
                let span = root.key("volumes").map_or_else(|| root.span.clone(), |key| key.span.clone());
                self.error(
                    Code::RootVolume,
                    &span,
                    "no volume is the root",
                    "none has `root: true`",
                    "add {device: /dev/xvda, root: true, size: 4GiB}",
                );
            }
            [only] if !only.device.is_for_root() => self.error(
                Code::RootVolume,
                &only.span,
                format!("the root cannot be `{}`", only.device),
                "",
                "the root is /dev/xvda or /dev/sda1",
            ),
            [_] => {}
            [first, ref others @ ..] => {
                for second in others {
                    self.error(
                        Code::RootVolume,
                        &second.span,
                        "two volumes are the root",
                        "the second",
                        format!("the first is `{}`: take `root: true` away from one of them", first.device),
                    );
                }
            }
        }
        for volume in volumes.iter().filter(|volume| !volume.root && volume.device.disk() == "xvda") {
            self.error(
                Code::RootVolume,
                &volume.span,
                format!("`{}` is kept for the root", volume.device),
                "no root",
                "add `root: true`, or take /dev/xvdf for data",
            );
        }
        for (index, volume) in volumes.iter().enumerate() {
            for earlier in &volumes[..index] {
                if volume.ephemeral.is_some() && volume.ephemeral == earlier.ephemeral {
                    let message = format!(
                        "`{}` and `{}` are the same instance store volume",
                        earlier.device, volume.device
                    );
                    self.error(
                        Code::Repeated,
                        &volume.span,
                        message,
                        "the second",
                        "give each its own number: ephemeral: 1",
                    );
                }
                self.mounts(earlier, volume);
                if volume.label.is_some() && volume.label == earlier.label {
                    let message = format!("`{}` and `{}` have the same label", earlier.device, volume.device);
                    self.error(
                        Code::Repeated,
                        &volume.span,
                        message,
                        "the second",
                        "give each its own `label`",
                    );
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
        let source_span = node.get("source").map(|node| node.span.clone());
        let label = self.text(node, "label");
        let filesystem = self.choice(node, "filesystem", language::FILESYSTEMS).map(|_| Filesystem::Ext4);
        let deleted = self.truth(node, "delete_on_termination");
        let (device, span) = self.text(node, "device")?;
        let device = match DeviceName::new(&device) {
            Ok(device) => device,
            Err(bad) => {
                self.error(Code::Device, &span, format!("`{device}` is not a device name"), "", bad.help);
                return None;
            }
        };
        let blank_store = node.get("ephemeral").is_some();
        self.device_rules(&device, &span, root, blank_store);
        if let Some((label, span)) = &label {
            self.label(label, span);
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
                        Code::Contradiction,
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
                self.error(Code::Mount, span, "the root is mounted at /", "", "take `mount` away");
            }
            if let Some(at) = node.get("source").and(node.key("source")) {
                self.error(
                    Code::RootVolume,
                    &at.span,
                    "the root is filled by packages and files",
                    "a source for the root",
                    "lay the folder down with `files:`",
                );
            }
        } else if let Some((path, span)) = &mount {
            self.mount_point(path, span);
        }
        if !blank_store && !root && node.get("filesystem").is_none() {
            self.no_filesystem(node);
        }
        if let (Some(true | false), Some(at)) = (encrypted, node.key("encrypted"))
            && !blank_store
            && (root || filesystem.is_some())
        {
            self.error(
                Code::Ec2Rule,
                &at.span,
                "EC2 refuses `encrypted` for a volume that comes from a snapshot",
                "this one does",
                "take it away: encrypt when you copy or launch the image",
            );
        }
        let (size, size_span) = match size {
            Some(Some(size)) => size,
            Some(None) if root => (4 * GIB, span.clone()),
            Some(None) if blank_store => (GIB, span.clone()),
            Some(None) => {
                self.error(
                    Code::MissingKey,
                    &node.span,
                    "a volume needs a `size`",
                    "has no `size`",
                    "add `size: 1GiB`",
                );
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
            filesystem: if root { Some(Filesystem::Ext4) } else { filesystem },
            label: label.map(|(text, _)| text),
            mount: if root { Some("/".to_owned()) } else { mount.map(|(path, _)| path) },
            source,
            delete_on_termination: deleted.unwrap_or(root),
            ephemeral,
            device,
            span,
            size_span,
        };
        if !blank_store {
            self.limits(node, &volume);
            self.file_system_limit(&volume);
            if let (Some(source), Some(span)) = (&volume.source, source_span) {
                self.content(&volume, source, &span);
            }
        }
        Some(volume)
    }

    /// The names that a volume other than the root should have.
    fn device_rules(&mut self, device: &DeviceName, span: &Span, root: bool, ephemeral: bool) {
        if root || device.disk() == "xvda" {
            return;
        }
        let (good, what, range) = if ephemeral {
            (device.is_for_instance_store(), "instance store", "/dev/sdb to /dev/sde")
        } else {
            (device.is_for_data(), "data volumes", "/dev/xvdf to /dev/xvdp, or /dev/sdf to /dev/sdp")
        };
        if device.is_undocumented() && (ephemeral || !good) {
            self.problems.push(
                span.warning(
                    Code::Device,
                    format!("`{device}` is not among the names that EC2 documents"),
                    "widely used, and works on most instance types",
                )
                .help(format!("use {range}")),
            );
        } else if !good {
            self.problems.push(
                span.warning(
                    Code::Device,
                    format!("`{device}` is not among the names that EC2 recommends for {what}"),
                    "works on most instance types",
                )
                .help(format!("use {range}")),
            );
        }
    }

    fn label(&mut self, label: &str, span: &Span) {
        let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
        if label.len() > MAX_LABEL {
            self.error(
                Code::Label,
                span,
                format!("the label `{label}` is too long"),
                format!("{} bytes", label.len()),
                format!("an ext4 label has {MAX_LABEL} bytes at most: choose a shorter one"),
            );
        } else if label.is_empty() || label.contains(bad) {
            self.error(
                Code::Label,
                span,
                format!("`{label}` cannot be a label"),
                "",
                format!("{MAX_LABEL} bytes at most, without spaces and slashes"),
            );
        }
    }

    fn mount_point(&mut self, path: &str, span: &Span) {
        let needed = TAKEN_THEMSELVES.contains(&path) || TAKEN.iter().any(|folder| is_below(path, folder));
        if needed {
            let label = if path == "/" { "the root is there" } else { "the machine needs its own" };
            self.error(
                Code::Mount,
                span,
                format!("nothing can be mounted at `{path}`"),
                label,
                "choose a folder such as /srv/data",
            );
        } else if path.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            self.error(
                Code::Mount,
                span,
                format!("nothing can be mounted at `{path}`"),
                "not a plain path",
                "a mount point has no spaces and backslashes",
            );
        }
    }

    /// What belongs to a file system, and there is none.
    fn no_filesystem(&mut self, node: &Node) {
        let asked = [("source", "filled"), ("mount", "mounted"), ("label", "labelled")]
            .into_iter()
            .find_map(|(key, what)| node.get(key).and(node.key(key)).map(|at| (at, key, what)));
        if let Some((at, key, what)) = asked {
            self.error(
                Code::MissingKey,
                &at.span,
                format!("a volume without a file system cannot be {what}"),
                "has no `filesystem`",
                format!("add `filesystem: ext4`, or take `{key}` away for a blank volume"),
            );
        }
    }

    /// What two volumes may not have in common.
    fn mounts(&mut self, earlier: &Volume, volume: &Volume) {
        let (Some(first), Some(second)) = (&earlier.mount, &volume.mount) else { return };
        if earlier.root || volume.root {
            return;
        }
        if first == second {
            let message =
                format!("`{}` and `{}` are mounted at the same place", earlier.device, volume.device);
            self.error(Code::Mount, &volume.span, message, "the second", "give each its own `mount`");
            return;
        }
        let (inner, outer) = match (is_below(second, first), is_below(first, second)) {
            (true, _) => (volume, earlier),
            (_, true) => (earlier, volume),
            _ => return,
        };
        let (inside, around) = if inner.device == volume.device { (second, first) } else { (first, second) };
        self.error(
            Code::Mount,
            &inner.span,
            format!("`{inside}` is inside `{around}`, where another volume is mounted"),
            format!("`{}` is mounted first", outer.device),
            format!("mount it beside `{around}`, not inside"),
        );
    }

    /// Whether the folder that fills a volume is certainly too large for it, or holds what no file system can.
    fn content(&mut self, volume: &Volume, source: &Path, span: &Span) {
        let mut special = None;
        let least = Least::of(source, &mut special);
        if let Some(path) = special {
            let shown = path.strip_prefix(source).unwrap_or(&path).display().to_string();
            self.error(
                Code::Source,
                span,
                format!("`{shown}` in the source is neither a file, a folder nor a link"),
                "holds it",
                "a device, a pipe or a socket cannot go into an image: take it out",
            );
        }
        let message = format!("the source of `{}` does not fit the volume", volume.device);
        if least.bytes > volume.size {
            self.error(
                Code::Size,
                span,
                message,
                format!("{} MiB at least, the volume has {}", least.bytes.div_ceil(MIB), volume.size / MIB),
                format!("make the volume larger: size: {}GiB", (least.bytes + least.bytes / 8).div_ceil(GIB)),
            );
        } else if least.too_many(volume.size) {
            self.too_many_files(span, &message, least);
        }
    }

    /// Whether the recipe's own files are certainly too large for the root, all packages apart.
    pub(super) fn root_content(&mut self, volumes: &[Volume], files: &[FileSpec], web: Option<&Web>) {
        let Some(root) = volumes.iter().find(|volume| volume.root) else { return };
        let laid = files.iter().map(|file| &file.payload);
        let laid = laid.chain(web.into_iter().flat_map(|web| web.entries.iter().map(|entry| &entry.payload)));
        let least = laid
            .map(|payload| match payload {
                Payload::Content(text) => Least { bytes: text.len() as u64, entries: 1 },
                Payload::Source(path) => Least::of(path, &mut None),
            })
            .fold(Least::default(), Least::and);
        let message = "the recipe's files do not fit the root";
        if least.bytes > root.size {
            self.error(
                Code::Size,
                &root.size_span,
                message,
                format!("the files alone take {} MiB", least.bytes.div_ceil(MIB)),
                "make the root larger, or put the files on a data volume with `source`",
            );
        } else if least.too_many(root.size) {
            self.too_many_files(&root.size_span, message, least);
        }
    }

    fn too_many_files(&mut self, span: &Span, message: &str, least: Least) {
        let wanted = (least.entries * 16 * KIB).div_ceil(GIB);
        self.error(
            Code::Size,
            span,
            message,
            format!("there are {} files and folders", least.entries),
            format!("a volume has room for one in each 16 KiB of its size: write `size: {wanted}GiB`, or lay an archive down"),
        );
    }

    /// Warns of what the recipe lays into the root's file system where a volume will be mounted over it.
    pub(super) fn hidden_files(
        &mut self,
        root: &Node,
        volumes: &[Volume],
        files: &[FileSpec],
        web: Option<&Web>,
    ) {
        let web = web.zip(root.key("web")).map(|(web, key)| (web.root.as_str(), key.span.clone()));
        let laid = files.iter().map(|file| (file.path.as_str(), file.span.clone())).chain(web);
        for (path, span) in laid {
            for volume in volumes.iter().filter(|volume| !volume.root) {
                if let Some(mount) = volume.mount.as_deref().filter(|mount| is_below(path, mount)) {
                    self.problems.push(
                        span.warning(
                            Code::Mount,
                            format!(
                                "`{path}` is on the root volume, and `{}` is mounted over it",
                                volume.device
                            ),
                            format!("nobody sees it below `{mount}`"),
                        )
                        .help("put it into the volume's `source` folder"),
                    );
                }
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
                self.error(
                    Code::Size,
                    &span,
                    format!("`{text}` is not a size"),
                    "not whole MiB or GiB",
                    help,
                );
                return None;
            }
        };
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)) {
            Some(size) if size > 0 => Some(Some((size, span))),
            _ => {
                self.error(
                    Code::Size,
                    &span,
                    format!("`{text}` is not a size"),
                    "out of range",
                    "write a size such as 4GiB",
                );
                None
            }
        }
    }

    /// What a file system can be. Where EC2's volume type is not larger, its own rule tells.
    fn file_system_limit(&mut self, volume: &Volume) {
        let (least, why) = match volume.root {
            true => (MIN_ROOT, "no system with a kernel and its boot loader is smaller"),
            false => (MIN_FILE_SYSTEM, "no ext4 file system with a journal is smaller"),
        };
        if volume.filesystem.is_some() && volume.size < least {
            let (device, least) = (&volume.device, least / MIB);
            self.error(
                Code::Size,
                &volume.size_span,
                format!("`{device}` is smaller than its file system can be"),
                format!("{least} MiB at least"),
                format!(
                    "{why}: write `size: {}GiB`, EC2 counts in GiB anyway",
                    if volume.root { 4 } else { 1 }
                ),
            );
        }
        let larger_type = volume.volume_type.limits().size.1 > MAX_FILE_SYSTEM / GIB;
        if volume.filesystem.is_some() && volume.size > MAX_FILE_SYSTEM && larger_type {
            let most = MAX_FILE_SYSTEM / GIB;
            let blank = if volume.root { "" } else { ", or take `filesystem` away for a blank volume" };
            self.error(
                Code::Size,
                &volume.size_span,
                format!("`{}` is larger than its file system can be", volume.device),
                format!("ext4 takes {most} GiB at most"),
                format!("write `size: {most}GiB` or less{blank}"),
            );
        }
    }

    /// What EC2 takes for the volume's type.
    fn limits(&mut self, node: &Node, volume: &Volume) {
        let asked = |key: &str| node.get(key).map_or_else(|| volume.span.clone(), |value| value.span.clone());
        let gib = volume.size_gib();
        let settings = VolumeSettings {
            volume_type: volume.volume_type,
            gib: Some(gib),
            iops: volume.iops.map(u64::from),
            throughput: volume.throughput.map(u64::from),
            boots: volume.root,
        };
        for rule in settings.broken_rules() {
            let (span, message, label, help) = match rule {
                VolumeRule::Size { volume_type, gib, least, most } => (
                    volume.size_span.clone(),
                    format!("a volume of type {volume_type} cannot have {gib} GiB"),
                    format!("{volume_type} takes {least} to {most} GiB"),
                    "change the size or the type".to_owned(),
                ),
                VolumeRule::Boot { volume_type } => (
                    asked("type"),
                    format!("no machine boots from a volume of type {volume_type}"),
                    "the root's type".to_owned(),
                    "use gp3 for the root".to_owned(),
                ),
                VolumeRule::IopsNotTaken { volume_type, .. } => (
                    asked("iops"),
                    format!("a volume of type {volume_type} takes no `iops`"),
                    String::new(),
                    "take it away, or use gp3, io1 or io2".to_owned(),
                ),
                VolumeRule::IopsNeeded { volume_type } => {
                    let (least, most, each) = volume_type.limits().iops.unwrap_or((1, u64::MAX, 1));
                    let some = (each * gib).min(1_000).clamp(least, most);
                    (
                        asked("type"),
                        format!("a volume of type {volume_type} needs `iops`"),
                        "has none".to_owned(),
                        format!("add `iops: {some}`, or use gp3"),
                    )
                }
                VolumeRule::Iops { volume_type, iops, least, most } => (
                    asked("iops"),
                    format!("{iops} IOPS are out of range"),
                    format!("{volume_type} of {gib} GiB takes {least} to {most}"),
                    "change `iops`, or the size".to_owned(),
                ),
                VolumeRule::ThroughputNotTaken { volume_type, .. } => (
                    asked("throughput"),
                    format!("a volume of type {volume_type} takes no `throughput`"),
                    String::new(),
                    "take it away, or use gp3".to_owned(),
                ),
                VolumeRule::Throughput { volume_type, throughput, least, most } => (
                    asked("throughput"),
                    format!("{throughput} MiB/s are out of range"),
                    format!("{volume_type} takes {least} to {most}"),
                    "change `throughput`".to_owned(),
                ),
                VolumeRule::ThroughputPerIops { throughput, iops, needed } => (
                    asked("throughput"),
                    format!("{throughput} MiB/s need {needed} IOPS"),
                    format!("the volume has {iops}"),
                    format!("add `iops: {needed}`, or ask for {} MiB/s", iops / IOPS_PER_THROUGHPUT),
                ),
            };
            self.error(Code::Ec2Rule, &span, message, label, help);
        }
    }
}

/// Largest ext4 file system that is made here, in bytes: 2^32 blocks of 4 KiB.
const MAX_FILE_SYSTEM: u64 = 16_384 * GIB;
/// Smallest file system of a data volume, in bytes: that of a journal with some files beside it.
const MIN_FILE_SYSTEM: u64 = 8 * MIB;
/// Smaller than any root, in bytes.
const MIN_ROOT: u64 = 256 * MIB;
/// Longest label of an ext4 file system, in bytes.
const MAX_LABEL: usize = 16;

/// Whether a path is `folder` or below it.
fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The least that something takes in any ext4 file system.
#[derive(Clone, Copy, Default)]
struct Least {
    /// Files in blocks of 4 KiB, holes too, which an image does not keep; one block for each folder.
    bytes: u64,
    /// Files, folders and links.
    entries: u64,
}

impl Least {
    /// Of a file or folder. Notes the first thing that is neither file, folder nor link. What cannot be read
    /// counts nothing: the bake tells.
    fn of(path: &Path, special: &mut Option<PathBuf>) -> Self {
        const PAGE: u64 = 4 * KIB;
        let Ok(metadata) = path.symlink_metadata() else { return Self::default() };
        if metadata.is_dir() {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            paths.sort();
            let folder = Self { bytes: PAGE, entries: 1 };
            return paths.iter().map(|path| Self::of(path, special)).fold(folder, Self::and);
        }
        if !metadata.is_file() && !metadata.is_symlink() && special.is_none() {
            *special = Some(path.to_owned());
        }
        let bytes = if metadata.is_file() { metadata.len().next_multiple_of(PAGE) } else { 0 };
        Self { bytes, entries: 1 }
    }

    fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), entries: self.entries + other.entries }
    }

    /// Whether there are certainly more than a volume has inodes for: it has one for each 16 KiB, and some more where its groups
    /// are made up to whole blocks.
    fn too_many(self, size: u64) -> bool {
        self.entries > size / (16 * KIB) * 5 / 4 + 16 * KIB
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
