//! What is laid into the root file system: login scripts, web files, files, accounts, units and run steps.

use std::collections::BTreeMap;

use super::names::{is_file_name, is_key_type, is_user_name, runnable_name, runs_as_part};
use super::{Decoder, depth, first_line, items, others, same_file};
use crate::language;
use crate::model::{FileSpec, MotdScript, Payload, RunStep, Services, Unit, User, Web, WebEntry};
use crate::yaml::Node;
use crate::{Code, Span};

impl Decoder<'_> {
    pub(super) fn motd(&mut self, root: &Node) -> Vec<MotdScript> {
        let mut scripts = Vec::new();
        for (key, node) in others(root.get("motd"), &[]) {
            let Some(scalar) = node.scalar() else { continue };
            if !runs_as_part(&key.text) {
                let fixed = runnable_name(&key.text);
                let help = if fixed.is_empty() {
                    "use letters, digits, dashes and _".to_owned()
                } else {
                    format!("call it `{fixed}`")
                };
                self.error(
                    Code::LoginScript,
                    &key.span,
                    format!("the login script `{}` would never run", key.text),
                    "run-parts --lsbsysinit passes over this name",
                    help,
                );
            }
            if !scalar.text.starts_with("#!") || !scalar.text[2..].trim_start().starts_with('/') {
                let first = first_line(&node.span);
                self.error(
                    Code::LoginScript,
                    &first,
                    format!("the login script `{}` does not say what runs it", key.text),
                    "its first line is not `#!` and a program",
                    "begin it with `#!/bin/sh`",
                );
            }
            scripts.push(MotdScript { key: key.text.clone(), script: scalar.text.clone() });
        }
        scripts.sort_by(|a, b| a.key.cmp(&b.key));
        scripts
    }

    pub(super) fn web(&mut self, root: &Node) -> Option<Web> {
        let node = root.get("web")?;
        let folder = match self.text(node, "root") {
            Some((text, span)) => self.image_path(&text, &span, "`root`")?,
            None => "/var/www/html".to_owned(),
        };
        let mut entries = Vec::new();
        if let Some((text, span)) = self.text(node, "source")
            && let Some(path) = self.source(&text, &span, true)
        {
            entries.push(WebEntry { path: String::new(), payload: Payload::Source(path) });
        }
        for (key, value) in others(Some(node), &["root", "source"]) {
            let Some(scalar) = value.scalar() else { continue };
            if key.text.is_empty() || !key.text.split('/').all(is_file_name) {
                self.error(
                    Code::Path,
                    &key.span,
                    format!("`{}` is not a path below the web root", key.text),
                    "",
                    "write it relative to the root, without `.` and `..`: css/main.css",
                );
                continue;
            }
            entries.push(WebEntry { path: key.text.clone(), payload: Payload::Content(scalar.text.clone()) });
        }
        Some(Web { root: folder, entries })
    }

    pub(super) fn files(&mut self, root: &Node) -> Vec<FileSpec> {
        let mut files: Vec<FileSpec> = Vec::new();
        for node in items(root, "files") {
            self.required(node, &language::FILE);
            let content = self.text(node, "content");
            let source = self.text(node, "source");
            let payload = match (content, source) {
                (Some((content, _)), None) => Some(Payload::Content(content)),
                (None, Some((text, span))) => self.source(&text, &span, false).map(Payload::Source),
                (Some(_), Some((_, span))) => {
                    let span = node.key("source").map_or(span, |key| key.span.clone());
                    self.error(
                        Code::Contradiction,
                        &span,
                        "a file has `content` or `source`, not both",
                        "one too many",
                        "take one of them away",
                    );
                    None
                }
                (None, None)
                    if node.get("content").or(node.get("source")).is_some() || self.has_problem(node) =>
                {
                    None
                }
                (None, None) => {
                    self.error(
                        Code::MissingKey,
                        &node.span,
                        "a file without content",
                        "has neither `content` nor `source`",
                        "add `content: \"…\"`, or `source:` with a file or folder beside the recipe",
                    );
                    None
                }
            };
            let mode = match self.text(node, "mode") {
                None => None,
                Some((text, span)) => match u16::from_str_radix(&text, 8) {
                    Ok(mode) if (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) => {
                        if matches!(&payload, Some(Payload::Source(path)) if path.is_dir()) {
                            self.error(
                                Code::FileMode,
                                &span,
                                "a folder's files keep their own modes",
                                "one mode for a whole folder",
                                "take `mode` away, or list the files one by one",
                            );
                        }
                        Some(mode)
                    }
                    _ => {
                        self.error(
                            Code::FileMode,
                            &span,
                            format!("`{text}` is not a file's mode"),
                            "not octal",
                            "write three or four octal digits in quotes: \"0644\"",
                        );
                        None
                    }
                },
            };
            let mut name = |key: &str| match self.text(node, key) {
                Some((text, span)) => {
                    if !is_user_name(&text) {
                        self.error(
                            Code::Account,
                            &span,
                            format!("`{text}` cannot be a user or group"),
                            "",
                            "write a name such as `www-data`",
                        );
                    }
                    text
                }
                None => "root".to_owned(),
            };
            let (owner, group) = (name("owner"), name("group"));
            let Some((path, span)) = self.text(node, "path") else { continue };
            let Some(path) = self.image_path(&path, &span, "`path`") else { continue };
            if path == "/" && matches!(payload, Some(Payload::Content(_))) {
                self.error(
                    Code::Path,
                    &span,
                    "`/` is a folder, not a file",
                    "",
                    "write the file's whole path",
                );
                continue;
            }
            let Some(payload) = payload else { continue };
            let file = FileSpec { path, payload, mode, owner, group, span };
            match files.iter().position(|other| other.path == file.path) {
                Some(at) if same_file(&files[at].span, &file.span) => {
                    let first = files[at].span.position().0;
                    self.error(
                        Code::Repeated,
                        &file.span,
                        format!("`{}` stands here twice", file.path),
                        "the second time",
                        format!("its first place is line {first}: keep one of them"),
                    );
                }
                Some(at) => files[at] = file,
                None => files.push(file),
            }
        }
        let is_folder = |payload: &Payload| matches!(payload, Payload::Source(path) if path.is_dir());
        let plain: BTreeMap<&str, &FileSpec> = files
            .iter()
            .filter(|file| !is_folder(&file.payload))
            .map(|file| (file.path.as_str(), file))
            .collect();
        for file in &files {
            let mut above = file.path.match_indices('/').filter_map(|(at, _)| plain.get(&file.path[..at]));
            if let Some(above) = above.next() {
                let line = above.span.position().0;
                let place = if same_file(&above.span, &file.span) {
                    format!("line {line}")
                } else {
                    format!("line {line} of {}", above.span.file().display())
                };
                self.error(
                    Code::Path,
                    &file.span,
                    format!("`{}` is a file of this recipe, not a folder", above.path),
                    "is to lie below it",
                    format!("{place} makes it a file: choose another path for one of them"),
                );
            }
        }
        files
    }

    pub(super) fn users(&mut self, root: &Node) -> Vec<User> {
        let mut users: Vec<User> = Vec::new();
        for node in items(root, "users") {
            self.required(node, &language::USER);
            let mut groups = Vec::new();
            for (group, span) in self.texts(node, "groups") {
                if !is_user_name(&group) {
                    self.error(
                        Code::Account,
                        &span,
                        format!("`{group}` cannot be a group's name"),
                        "",
                        "small letters, digits, - and _, 32 characters at most, a letter first",
                    );
                } else if !groups.contains(&group) {
                    groups.push(group);
                }
            }
            let sudo = self.truth(node, "sudo").unwrap_or(false);
            let shell = match self.text(node, "shell") {
                Some((text, span)) => self.image_path(&text, &span, "`shell`").unwrap_or_default(),
                None => "/bin/bash".to_owned(),
            };
            let mut keys = Vec::new();
            for (key, span) in self.texts(node, "authorized_keys") {
                let key = key.trim().to_owned();
                if key.contains("PRIVATE KEY") {
                    self.error(Code::Secret, &first_line(&span), "this is a private key", "whoever has the image would have it", "put in the public half, the file that ends in .pub; the private one is no secret any more");
                } else if key.contains('\n') || !key.split_whitespace().any(is_key_type) {
                    self.error(
                        Code::Account,
                        &first_line(&span),
                        "this is not a public SSH key",
                        "",
                        "one line, as in a .pub file: ssh-ed25519 AAAA… name",
                    );
                } else {
                    self.problems.push(
                        span.warning(Code::Secret, "this key can log in to every machine started from the image", "stays in the image")
                            .help("EC2 gives each instance its launch key; leave keys out of images that others use"),
                    );
                    keys.push(key);
                }
            }
            let Some((name, span)) = self.text(node, "name") else { continue };
            if name == "root" {
                self.error(
                    Code::Account,
                    &span,
                    "root cannot be listed as a user",
                    "root has no login",
                    "give a user `sudo: true` instead",
                );
                continue;
            }
            if !is_user_name(&name) {
                self.error(
                    Code::Account,
                    &span,
                    format!("`{name}` cannot be a user's name"),
                    "",
                    "small letters, digits, - and _, 32 characters at most, a letter first",
                );
                continue;
            }
            let user = User { name, groups, sudo, shell, authorized_keys: keys, span };
            match users.iter().position(|other| other.name == user.name) {
                Some(at) if same_file(&users[at].span, &user.span) => {
                    let first = users[at].span.position().0;
                    self.error(
                        Code::Repeated,
                        &user.span,
                        format!("the user `{}` stands here twice", user.name),
                        "the second time",
                        format!("the first place is line {first}: keep one of them"),
                    );
                }
                Some(at) => users[at] = user,
                None => users.push(user),
            }
        }
        users
    }

    pub(super) fn services(&mut self, root: &Node) -> Services {
        let Some(node) = root.get("services") else { return Services::default() };
        let mut listed: Vec<(String, Span, bool)> = Vec::new();
        for (key, on) in [("enable", true), ("disable", false)] {
            for (text, span) in self.texts(node, key) {
                let good = !text.is_empty()
                    && text.len() <= 255
                    && text.chars().all(|c| {
                        c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '@' | '-' | '\\')
                    });
                if !good {
                    self.error(
                        Code::Service,
                        &span,
                        format!("`{text}` is not a unit's name"),
                        "",
                        "write a name such as `apache2` or `backup.timer`",
                    );
                    continue;
                }
                let known = [
                    ".service",
                    ".socket",
                    ".timer",
                    ".path",
                    ".target",
                    ".mount",
                    ".automount",
                    ".swap",
                    ".slice",
                ];
                let unit = if known.iter().any(|suffix| text.ends_with(suffix)) {
                    text
                } else {
                    format!("{text}.service")
                };
                listed.push((unit, span, on));
            }
        }
        let mut services = Services::default();
        for (index, (unit, span, on)) in listed.iter().enumerate() {
            if services.enable.iter().chain(&services.disable).any(|known| known.name == *unit) {
                continue;
            }
            // What a recipe says of a unit counts more than what its base says.
            let mut says = *on;
            let mut by = span;
            for (other, place, on) in &listed[index + 1..] {
                if other != unit || *on == says {
                    continue;
                }
                if same_file(place, by) {
                    self.error(
                        Code::Contradiction,
                        place,
                        format!("`{unit}` is switched on and off"),
                        "the second time",
                        format!("the other place is line {}: keep one of them", by.position().0),
                    );
                } else if depth(place) < depth(by) {
                    (says, by) = (*on, place);
                }
            }
            let unit = Unit { name: unit.clone(), span: by.clone() };
            if says { services.enable.push(unit) } else { services.disable.push(unit) }
        }
        services
    }

    pub(super) fn run(&mut self, root: &Node) -> Vec<RunStep> {
        let mut steps: Vec<RunStep> = Vec::new();
        for node in items(root, "run") {
            self.required(node, &language::RUN);
            let (Some((name, span)), Some((script, script_span))) =
                (self.text(node, "name"), self.text(node, "script"))
            else {
                continue;
            };
            if name.trim().is_empty() || name.chars().any(char::is_control) {
                self.error(
                    Code::RunStep,
                    &span,
                    "a run step's name is one line of text",
                    "",
                    "call it by what it does: tune",
                );
            }
            if script.trim().is_empty() {
                self.error(
                    Code::RunStep,
                    &script_span,
                    format!("the script of `{name}` is empty"),
                    "",
                    "write what is to run, or take the step away",
                );
            }
            let step = RunStep { name, script, span };
            match steps.iter().position(|other| other.name == step.name) {
                Some(at) if same_file(&steps[at].span, &step.span) => {
                    let first = steps[at].span.position().0;
                    self.error(
                        Code::Repeated,
                        &step.span,
                        format!("two run steps are called `{}`", step.name),
                        "the second",
                        format!("the first is in line {first}: give one another name"),
                    );
                }
                Some(at) => steps[at] = step,
                None => steps.push(step),
            }
        }
        steps
    }
}
