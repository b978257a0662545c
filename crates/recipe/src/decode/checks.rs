//! How the image is registered, and what must be true of the machine.

use std::collections::BTreeMap;

use catalog::{MAX_TAG_KEY, MAX_TAG_VALUE, MAX_TAGS, Rule};

use super::{Decoder, count, items, others, same_file};
use crate::language::{self, Shape};
use crate::model::{AllowedFinding, Check, ImageOptions, User, Volume};
use crate::nearest::advice;
use crate::yaml::Node;
use crate::{Arch, BootMode, Code, DeviceName, Span};

impl Decoder<'_> {
    pub(super) fn image(&mut self, root: &Node) -> ImageOptions {
        let default_mode = match self.arch {
            Arch::X86_64 => BootMode::UefiPreferred,
            Arch::Aarch64 => BootMode::Uefi,
        };
        let mut image = ImageOptions {
            tags: BTreeMap::new(),
            boot_mode: default_mode,
            imds: Some("v2.0".to_owned()),
            ena: true,
        };
        let Some(node) = root.get("image") else { return image };
        if let Some((index, span)) = self.choice(node, "boot_mode", language::BOOT_MODES) {
            image.boot_mode = [BootMode::UefiPreferred, BootMode::Uefi, BootMode::LegacyBios][index];
            if self.arch == Arch::Aarch64 {
                if image.boot_mode == BootMode::LegacyBios {
                    self.error(
                        Code::Architecture,
                        &span,
                        "aarch64 machines have no BIOS",
                        "the recipe is for aarch64 too",
                        "use uefi-preferred, or take aarch64 out of `architectures`",
                    );
                }
                image.boot_mode = BootMode::Uefi;
            }
        }
        if let Some((index, _)) = self.choice(node, "imds", language::IMDS) {
            image.imds = (index == 0).then(|| "v2.0".to_owned());
        }
        image.ena = self.truth(node, "ena").unwrap_or(true);
        let tags = others(node.get("tags"), &[]);
        if let Some((key, _)) = tags.get(MAX_TAGS) {
            self.error(
                Code::Ec2Rule,
                &key.span,
                format!("an image has {MAX_TAGS} tags at most"),
                "one too many",
                "take some away",
            );
        }
        for (key, value) in tags {
            let Some(scalar) = value.scalar() else { continue };
            for rule in catalog::tag_rules(&key.text, &scalar.text) {
                let (span, message, label, help) = match rule {
                    Rule::TagKeyLength { length, .. } => (
                        &key.span,
                        "a tag's key is too long or empty",
                        count(length, "character"),
                        format!("EC2 takes 1 to {MAX_TAG_KEY}"),
                    ),
                    Rule::TagKeyReserved { .. } => (
                        &key.span,
                        "a tag's key begins with aws:",
                        "such keys are AWS's own".to_owned(),
                        "choose another key".to_owned(),
                    ),
                    Rule::TagValueLength { length, .. } => (
                        &value.span,
                        "a tag's value is too long",
                        count(length, "character"),
                        format!("EC2 takes {MAX_TAG_VALUE} at most"),
                    ),
                    _ => (&key.span, "EC2 does not take this tag", String::new(), rule.to_string()),
                };
                self.error(Code::Ec2Rule, span, message, label, help);
            }
            image.tags.insert(key.text.clone(), scalar.text.clone());
        }
        image
    }

    pub(super) fn checks(&mut self, root: &Node, users: &[User], volumes: &[Volume]) -> Vec<Check> {
        items(root, "checks").iter().filter_map(|node| self.check(node, users, volumes)).collect()
    }

    pub(super) fn allow(&mut self, root: &Node) -> Vec<AllowedFinding> {
        let mut allowed: Vec<AllowedFinding> = Vec::new();
        for node in items(root, "allow") {
            self.required(node, &language::ALLOW);
            let file = match self.text(node, "file") {
                Some((text, span)) => match self.image_path(&text, &span, "`file`") {
                    Some(path) => Some(path),
                    None => continue,
                },
                None => None,
            };
            let (Some((finding, span)), Some((reason, reason_span))) =
                (self.text(node, "finding"), self.text(node, "reason"))
            else {
                continue;
            };
            if reason.trim().is_empty() {
                self.error(
                    Code::AllowedFinding,
                    &reason_span,
                    "an allowed finding without a reason",
                    "says nothing",
                    "write why it is meant, for whoever reads the recipe later",
                );
            }
            let entry = AllowedFinding { finding, file, reason, span };
            match allowed
                .iter()
                .position(|other| (&other.finding, &other.file) == (&entry.finding, &entry.file))
            {
                Some(at) if same_file(&allowed[at].span, &entry.span) => {
                    let first = allowed[at].span.position().0;
                    self.error(
                        Code::Repeated,
                        &entry.span,
                        format!("the finding `{}` is allowed twice", entry.finding),
                        "the second time",
                        format!("its first place is line {first}: keep one of them"),
                    );
                }
                Some(at) => allowed[at] = entry,
                None => allowed.push(entry),
            }
        }
        allowed
    }

    fn check(&mut self, node: &Node, users: &[User], volumes: &[Volume]) -> Option<Check> {
        let [(kind, body)] = node.entries() else {
            if !self.has_problem(node) {
                self.error(
                    Code::Check,
                    &node.span,
                    "a check is one of http, login, ssh, mount, console",
                    format!("this has {} of them", node.entries().len()),
                    "one check an entry: - http: {port: 80}",
                );
            }
            return None;
        };
        let keys = language::CHECK.fields.iter().find_map(|field| match field.shape {
            Shape::Keys(keys) if field.name == kind.text => Some(keys),
            _ => None,
        })?;
        self.required(body, keys);
        let contains = self.text(body, "contains");
        if let Some((text, span)) = &contains
            && text.is_empty()
        {
            self.error(
                Code::Check,
                span,
                "`contains` is empty",
                "every answer holds this",
                "write a text that proves something",
            );
        }
        let contains = contains.map(|(text, _)| text);
        match kind.text.as_str() {
            "http" => {
                let port = self.number(body, keys, "port").unwrap_or(80);
                let status = self.number(body, keys, "status").unwrap_or(200);
                let path = match self.text(body, "path") {
                    Some((path, span)) => {
                        if !path.starts_with('/') || path.chars().any(|c| c.is_whitespace() || c.is_control())
                        {
                            self.error(
                                Code::Path,
                                &span,
                                format!("`{path}` is not a page's path"),
                                "",
                                "it begins with / and has no spaces",
                            );
                        }
                        path
                    }
                    None => "/".to_owned(),
                };
                Some(Check::Http {
                    port: u16::try_from(port).ok()?,
                    path,
                    status: u16::try_from(status).ok()?,
                    contains,
                })
            }
            "login" => {
                Some(Check::Login { user: self.check_user(&kind.span, body, users)?, contains: contains? })
            }
            "ssh" => Some(Check::Ssh {
                user: self.check_user(&kind.span, body, users)?,
                run: self.text(body, "run")?.0,
                contains,
            }),
            "mount" => {
                let (path, path_span) = self.text(body, "path")?;
                let (device, span) = self.text(body, "device")?;
                let path = self.image_path(&path, &path_span, "`path`")?;
                let device = match DeviceName::new(&device) {
                    Ok(device) => device,
                    Err(bad) => {
                        self.error(
                            Code::Device,
                            &span,
                            format!("`{device}` is not a device name"),
                            "",
                            bad.help,
                        );
                        return None;
                    }
                };
                match volumes.iter().find(|volume| volume.device.same_device(&device)) {
                    None => {
                        let names: Vec<&str> = volumes.iter().map(|volume| volume.device.as_str()).collect();
                        let help = format!("the recipe's volumes are: {}", names.join(", "));
                        self.error(
                            Code::Check,
                            &span,
                            format!("no volume is attached as `{device}`"),
                            "",
                            help,
                        );
                    }
                    Some(volume) if volume.mount.as_deref() != Some(path.as_str()) => {
                        let help = match &volume.mount {
                            Some(mount) => format!("`{}` is mounted at `{mount}`", volume.device),
                            None => format!("add `mount: {path}` to the volume `{}`", volume.device),
                        };
                        self.error(
                            Code::Check,
                            &path_span,
                            format!("no volume `{device}` is mounted at `{path}`"),
                            "",
                            help,
                        );
                    }
                    Some(_) => {}
                }
                Some(Check::Mount { path, device })
            }
            _ => Some(Check::Console { contains: contains? }),
        }
    }

    fn check_user(&mut self, kind: &Span, body: &Node, users: &[User]) -> Option<String> {
        match self.text(body, "user") {
            Some((name, span)) => {
                if !users.iter().any(|user| user.name == name) {
                    let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
                    let help = advice(&name, &names, "the recipe's users are")
                        .unwrap_or_else(|| format!("add {{name: {name}}} to `users`"));
                    self.error(Code::Check, &span, format!("no user is called `{name}`"), "", help);
                }
                Some(name)
            }
            None => match users.iter().find(|user| user.sudo) {
                Some(user) => Some(user.name.clone()),
                None => {
                    self.error(
                        Code::MissingKey,
                        kind,
                        "this check needs a `user`",
                        "the recipe has no default user",
                        "add `user:`, or a user with `sudo: true`",
                    );
                    None
                }
            },
        }
    }
}
