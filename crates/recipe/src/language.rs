//! The language as data: which keys there are, what they take, what they mean. The check of a file's structure, the
//! JSON Schema and the reference page (`reference`) all read this table.

use serde_json::{Map, Value, json};

use crate::Code;
use crate::diagnostic::Diagnostic;
use crate::nearest::advice;
use crate::yaml::{self, Key, Node};

/// Releases that an image can be of, the default first.
pub const SUITES: [&str; 2] = ["trixie", "bookworm"];
pub(crate) const FAMILIES: &[&str] = &["debian"];
/// Parts of the archive.
pub const COMPONENTS: [&str; 4] = ["main", "contrib", "non-free", "non-free-firmware"];
pub(crate) const ARCHITECTURES: &[&str] = &["x86_64", "aarch64"];
pub(crate) const VOLUME_TYPES: &[&str] = &["gp3", "gp2", "io1", "io2", "st1", "sc1", "standard"];
pub(crate) const FILESYSTEMS: &[&str] = &["ext4"];
pub(crate) const BOOT_MODES: &[&str] = &["uefi-preferred", "uefi", "legacy-bios"];
pub(crate) const IMDS: &[&str] = &["v2.0", "optional"];

/// What a value may be.
pub(crate) enum Shape {
    /// Text; numbers are taken as they are written.
    Text(&'static str),
    /// A whole number between two others.
    Number(u64, u64),
    /// `true` or `false`.
    Truth,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// A mapping with keys of the language.
    Keys(&'static Keys),
}

/// A mapping's keys.
pub(crate) struct Keys {
    /// What the mapping is, with its article.
    pub(crate) what: &'static str,
    pub(crate) fields: &'static [Field],
    /// What further keys hold, when people choose them.
    pub(crate) others: Option<(&'static Shape, &'static str)>,
    /// Exactly one of the keys is there, and says what kind the mapping is.
    pub(crate) one_of: bool,
}

pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    /// What holds when it is left out, in words; empty when it is required, or when nothing holds.
    pub(crate) default: &'static str,
    /// What stands after the key and its colon, in one line or, after a line break, in several.
    pub(crate) example: &'static str,
    pub(crate) doc: &'static str,
}

const fn field(
    name: &'static str,
    shape: Shape,
    default: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Field {
    Field { name, shape, required: false, default, example, doc }
}

const fn required(name: &'static str, shape: Shape, example: &'static str, doc: &'static str) -> Field {
    Field { name, shape, required: true, default: "", example, doc }
}

const fn keys(what: &'static str, fields: &'static [Field]) -> Keys {
    Keys { what, fields, others: None, one_of: false }
}

const ANY: Shape = Shape::Text("");
const ABSOLUTE: Shape = Shape::Text("^/");

pub(crate) const RECIPE: Keys = keys(
    "a recipe",
    &[
        required(
            "name",
            Shape::Text("^[a-z0-9][a-z0-9.-]*$"),
            "hello-web",
            "The image's name: small letters, digits, dots and dashes.",
        ),
        field(
            "version",
            Shape::Text("^[A-Za-z0-9][A-Za-z0-9._-]*$"),
            "",
            "1.10.0",
            "Added to the image's name: hello-web-1.10.0.",
        ),
        field("description", ANY, "", "A web server with one page", "What the image is, in a sentence."),
        field(
            "extends",
            ANY,
            "no base",
            "builtin:debian-13",
            "The recipe to build on: a path relative to this file, or builtin:debian-13, or builtin:debian-12. Mappings merge, lists append (but not architectures), all else is replaced.",
        ),
        field(
            "architectures",
            Shape::List(&Shape::Choice(ARCHITECTURES)),
            "both",
            "[x86_64]",
            "The architectures to bake for. Unlike other lists, a recipe's own takes the place of its base's, so that it can be for fewer.",
        ),
        field(
            "vars",
            Shape::Keys(&Keys {
                what: "the variables",
                fields: &[],
                others: Some((&ANY, "^[a-z_][a-z0-9_]*$")),
                one_of: false,
            }),
            "",
            "{greeting: Hello}",
            "Variables, used in any text as ${{ name }}, overridden by --set name=…. Built in: name, version, arch, debian_arch.",
        ),
        field(
            "distribution",
            Shape::Keys(&DISTRIBUTION),
            "Debian 13",
            "{suite: bookworm}",
            "Where packages come from.",
        ),
        field(
            "kernel",
            ANY,
            "cloud",
            "generic",
            "Which kernel boots: cloud, generic, or the name of a linux-image package.",
        ),
        field(
            "packages",
            Shape::List(&ANY),
            "",
            "[apache2, cowsay=3.03+dfsg2-8]",
            "Packages to install: name, or name=version; -name drops one that the base asks for.",
        ),
        field("recommends", Shape::Truth, "false", "true", "Whether recommended packages are installed too."),
        field(
            "motd",
            Shape::Keys(&Keys {
                what: "the login messages",
                fields: &[],
                others: Some((&ANY, "^[A-Za-z0-9_.-]+$")),
                one_of: false,
            }),
            "",
            "\n  40-cow: |\n    #!/bin/sh\n    /usr/games/cowsay \"${{ greeting }}\"",
            "Scripts that greet at login: /etc/update-motd.d/<key>, mode 0755. A key has no dot; a script begins with #!.",
        ),
        field(
            "web",
            Shape::Keys(&WEB),
            "",
            "{index.html: <h1>Hello</h1>}",
            "Files of a web site: root, source, and any other key is a file's path with its content.",
        ),
        field(
            "files",
            Shape::List(&Shape::Keys(&FILE)),
            "",
            "\n  - {path: /etc/app.conf, content: \"port=80\", mode: \"0640\", group: www-data}",
            "Files and folders to put into the image.",
        ),
        field(
            "users",
            Shape::List(&Shape::Keys(&USER)),
            "",
            "\n  - {name: ec2-user, groups: [adm], sudo: true}",
            "Accounts. The first with sudo is the image's default user.",
        ),
        field(
            "services",
            Shape::Keys(&SERVICES),
            "",
            "{enable: [apache2], disable: [apt-daily.timer]}",
            "systemd units to switch on and off.",
        ),
        field(
            "run",
            Shape::List(&Shape::Keys(&RUN)),
            "",
            "\n  - {name: tune, script: \"sysctl --system || true\"}",
            "Scripts that run in the image's root file system while it is baked, in order, after all else.",
        ),
        field(
            "volumes",
            Shape::List(&Shape::Keys(&VOLUME)),
            "a root of 4GiB at /dev/xvda",
            "\n  - {device: /dev/xvda, root: true, size: 8GiB}\n  - {device: /dev/xvdf, size: 20GiB, filesystem: ext4, mount: /srv/data}",
            "The disks.",
        ),
        field(
            "image",
            Shape::Keys(&IMAGE),
            "",
            "{tags: {Team: web}, boot_mode: uefi-preferred}",
            "How the image is registered.",
        ),
        field(
            "checks",
            Shape::List(&Shape::Keys(&CHECK)),
            "",
            "\n  - http: {port: 80, contains: Hello}\n  - login: {contains: Hello}",
            "What must be true of the booted machine. That it boots, that cloud-init ends well and that no unit has failed is checked of each.",
        ),
        field(
            "allow",
            Shape::List(&Shape::Keys(&ALLOW)),
            "",
            "\n  - {finding: authorized-keys, file: /home/ec2-user/.ssh/authorized_keys, reason: the team's own key}",
            "Findings of the look at the finished image that are meant. Its messages name the entry to write.",
        ),
    ],
);

pub(crate) const ALLOW: Keys = keys(
    "an allowed finding",
    &[
        required(
            "finding",
            Shape::Text("^[a-z0-9-]+$"),
            "private-key",
            "The finding's name, in brackets in its message.",
        ),
        field(
            "file",
            ABSOLUTE,
            "findings about no file",
            "/etc/ssl/private/site.key",
            "The file that it is about.",
        ),
        required(
            "reason",
            ANY,
            "a test key that nothing trusts",
            "Why it is meant, for whoever reads the recipe or the image's manifest.",
        ),
    ],
);

pub(crate) const DISTRIBUTION: Keys = keys(
    "a distribution",
    &[
        field("family", Shape::Choice(FAMILIES), "debian", "debian", "The family of distributions."),
        field("suite", Shape::Choice(&SUITES), "trixie", "bookworm", "The release, by its code name."),
        field(
            "components",
            Shape::List(&Shape::Choice(&COMPONENTS)),
            "[main]",
            "[main, non-free-firmware]",
            "Parts of the archive.",
        ),
        field(
            "mirror",
            Shape::Text("^(https?|file)://"),
            "BAKEHOUSE_DEBIAN_MIRROR, else the host's apt sources, else a public mirror",
            "http://ftp.debian.org/debian",
            "A mirror's address, written into the image's apt sources too.",
        ),
        field(
            "signed_by",
            ANY,
            "Debian's own keys",
            "own-mirror.asc",
            "A file beside the recipe with the public keys (ASCII-armoured) that may sign the mirror's index, besides Debian's.",
        ),
        field("updates", Shape::Truth, "true", "false", "Whether the updates suite is used."),
        field("security", Shape::Truth, "true", "false", "Whether the security suite is used."),
    ],
);

pub(crate) const WEB: Keys = Keys {
    what: "the web files",
    fields: &[
        field("root", ABSOLUTE, "/var/www/html", "/srv/www", "The folder in the image."),
        field("source", ANY, "", "site/", "A folder beside the recipe whose files are laid under root."),
    ],
    others: Some((&ANY, "^[^/].*$")),
    one_of: false,
};

pub(crate) const FILE: Keys = keys(
    "a file",
    &[
        required("path", ABSOLUTE, "/etc/app.conf", "Where it goes in the image."),
        field("content", ANY, "", "\"port=80\"", "What is in it."),
        field(
            "source",
            ANY,
            "",
            "app/",
            "A file or folder beside the recipe to copy, in place of content. Of its modes only whether a file is executable counts.",
        ),
        field(
            "mode",
            Shape::Text("^[0-7]{3,4}$"),
            "0644, 0755 for an executable source",
            "\"0640\"",
            "Octal permissions of a file, in quotes.",
        ),
        field("owner", ANY, "root", "www-data", "The user it belongs to."),
        field("group", ANY, "root", "www-data", "The group it belongs to."),
    ],
);

pub(crate) const USER: Keys = keys(
    "a user",
    &[
        required("name", Shape::Text("^[a-z_][a-z0-9_-]{0,31}$"), "ec2-user", "The account's name."),
        field("groups", Shape::List(&ANY), "", "[adm, docker]", "Further groups."),
        field(
            "sudo",
            Shape::Truth,
            "false",
            "true",
            "Whether the user may do all things with sudo, without a password.",
        ),
        field("shell", ABSOLUTE, "/bin/bash", "/usr/sbin/nologin", "The login shell."),
        field(
            "authorized_keys",
            Shape::List(&ANY),
            "",
            "[ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2i me@example]",
            "Public SSH keys put into the image. EC2 brings the launch key without this.",
        ),
    ],
);

pub(crate) const SERVICES: Keys = keys(
    "the services",
    &[
        field("enable", Shape::List(&ANY), "", "[apache2]", "Units that start at boot."),
        field(
            "disable",
            Shape::List(&ANY),
            "",
            "[apt-daily.timer]",
            "Units that do not, though a package or base enables them.",
        ),
    ],
);

pub(crate) const RUN: Keys = keys(
    "a run step",
    &[
        required("name", ANY, "tune", "What the step is called in messages."),
        required(
            "script",
            ANY,
            "\"sysctl --system || true\"",
            "A script for sh -e, or any script that begins with #!.",
        ),
    ],
);

pub(crate) const VOLUME: Keys = keys(
    "a volume",
    &[
        required(
            "device",
            Shape::Text("^/dev/(xvd|sd)"),
            "/dev/xvdf",
            "The name that it is attached under: /dev/xvda or /dev/sda1 for the root, /dev/xvdf and on for data, /dev/sdb and on for instance store.",
        ),
        field("root", Shape::Truth, "false", "true", "Whether this is the disk that boots."),
        field(
            "size",
            Shape::Text("^[1-9][0-9]*(MiB|GiB)$"),
            "4GiB for the root, 1GiB for instance store; others need one",
            "20GiB",
            "Whole MiB or GiB. EC2 counts in GiB, rounded up.",
        ),
        field("type", Shape::Choice(VOLUME_TYPES), "gp3", "io2", "The EBS volume type."),
        field(
            "iops",
            Shape::Number(1, 1_000_000),
            "EC2's own",
            "3000",
            "Provisioned IOPS (gp3, io1, io2; the last two need it).",
        ),
        field("throughput", Shape::Number(1, 100_000), "EC2's own", "250", "MiB/s (gp3)."),
        field(
            "encrypted",
            Shape::Truth,
            "the account's own",
            "true",
            "Only for a volume without content: one that comes from a snapshot is as its snapshot is.",
        ),
        field(
            "filesystem",
            Shape::Choice(FILESYSTEMS),
            "none: the volume is blank",
            "ext4",
            "What a data volume is formatted with. A blank one takes no label, mount or source.",
        ),
        field(
            "label",
            Shape::Text("^[^/\\s]{1,16}$"),
            "",
            "data",
            "The file system's label, 16 bytes at most.",
        ),
        field("mount", ABSOLUTE, "not mounted", "/srv/data", "Where the file system is mounted."),
        field("source", ANY, "", "data/", "A folder beside the recipe whose files fill the file system."),
        field(
            "delete_on_termination",
            Shape::Truth,
            "true for the root, false for others",
            "true",
            "Whether it goes when the instance does.",
        ),
        field(
            "ephemeral",
            Shape::Number(0, catalog::MAX_EPHEMERAL as u64),
            "an EBS volume",
            "0",
            "The number of an instance store volume: blank at each start. It takes device and size only.",
        ),
    ],
);

pub(crate) const IMAGE: Keys = keys(
    "the image's options",
    &[
        field(
            "tags",
            Shape::Keys(&Keys {
                what: "the tags",
                fields: &[],
                others: Some((&ANY, "^.{1,128}$")),
                one_of: false,
            }),
            "",
            "{Team: web}",
            "Tags of the image.",
        ),
        field(
            "boot_mode",
            Shape::Choice(BOOT_MODES),
            "uefi-preferred",
            "uefi",
            "How firmware starts it; aarch64 always boots with uefi.",
        ),
        field(
            "imds",
            Shape::Choice(IMDS),
            "v2.0",
            "optional",
            "v2.0: the metadata service asks for a token; optional: it answers without too.",
        ),
        field("ena", Shape::Truth, "true", "false", "Whether the image drives Elastic Network Adapters."),
    ],
);

pub(crate) const CHECK: Keys = Keys {
    what: "a check",
    fields: &[
        field(
            "http",
            Shape::Keys(&HTTP),
            "",
            "{port: 80, contains: Hello}",
            "A page that the machine serves.",
        ),
        field("login", Shape::Keys(&LOGIN), "", "{contains: Hello}", "What a person sees at login."),
        field("ssh", Shape::Keys(&SSH), "", "{run: systemctl is-active apache2}", "A command run as a user."),
        field(
            "mount",
            Shape::Keys(&MOUNT),
            "",
            "{path: /srv/data, device: /dev/xvdf}",
            "A volume that is mounted.",
        ),
        field("console", Shape::Keys(&CONSOLE), "", "{contains: \"login:\"}", "A text on the console."),
    ],
    others: None,
    one_of: true,
};

pub(crate) const HTTP: Keys = keys(
    "an http check",
    &[
        field("port", Shape::Number(1, 65_535), "80", "8080", "TCP port in the machine."),
        field("path", ABSOLUTE, "/", "/health", "The page's path."),
        field("status", Shape::Number(100, 599), "200", "404", "The status it must answer with."),
        field("contains", ANY, "any", "Hello", "A text that the page must hold."),
    ],
);

pub(crate) const LOGIN: Keys = keys(
    "a login check",
    &[
        field("user", ANY, "the default user", "ec2-user", "Who logs in."),
        required("contains", ANY, "Hello", "A text that the greeting must hold."),
    ],
);

pub(crate) const SSH: Keys = keys(
    "an ssh check",
    &[
        field("user", ANY, "the default user", "ec2-user", "Who runs it."),
        required(
            "run",
            ANY,
            "systemctl is-active apache2",
            "The command, for the user's shell. It must succeed.",
        ),
        field("contains", ANY, "any", "active", "A text that its output must hold."),
    ],
);

pub(crate) const MOUNT: Keys = keys(
    "a mount check",
    &[
        required("path", ABSOLUTE, "/srv/data", "Where the volume is mounted."),
        required("device", Shape::Text("^/dev/"), "/dev/xvdf", "The volume's device name."),
    ],
);

pub(crate) const CONSOLE: Keys =
    keys("a console check", &[required("contains", ANY, "\"login:\"", "A text that the console must show.")]);

impl Keys {
    /// The names of its keys.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.fields.iter().map(|field| field.name).collect()
    }
}

/// Takes out of a file's tree what cannot belong to a recipe (unknown keys, lists where text belongs and so on) and
/// says so. Whether text says something sensible is for later, when bases are merged and variables are known.
pub(crate) fn check_structure(
    node: Node,
    shape: &Shape,
    what: &str,
    problems: &mut Vec<Diagnostic>,
) -> Option<Node> {
    let expected = match shape {
        Shape::Text(_) => "text",
        Shape::Number(..) => "a whole number",
        Shape::Truth => "true or false",
        Shape::Choice(_) => "a word",
        Shape::List(_) => "a list",
        Shape::Keys(_) => "a mapping",
    };
    if node.is_null() {
        return Some(node);
    }
    let yaml::Node { span, value } = node;
    let value = match (value, shape) {
        (yaml::Value::List(items), Shape::List(shape)) => yaml::Value::List(
            items
                .into_iter()
                .filter_map(|item| {
                    if item.is_null() {
                        problems.push(
                            item.span
                                .error(
                                    Code::WrongType,
                                    format!("an empty entry in the list of {what}"),
                                    "nothing stands here",
                                )
                                .help("write the entry, or take its dash away"),
                        );
                        return None;
                    }
                    check_structure(item, shape, &format!("an entry of {what}"), problems)
                })
                .collect(),
        ),
        (yaml::Value::Map(entries), Shape::Keys(keys)) => {
            let mut kept = Vec::new();
            let wrong = |key: &Key| Node { span: key.span.clone(), value: yaml::Value::Wrong };
            for (key, node) in entries {
                if key.text.contains("${{") {
                    problems.push(
                        key.span
                            .error(Code::Variable, "a key cannot hold a variable", "variables are for values")
                            .help("write the key out"),
                    );
                } else if let Some(field) = keys.fields.iter().find(|field| field.name == key.text) {
                    let what = format!("`{}`", field.name);
                    let node =
                        check_structure(node, &field.shape, &what, problems).unwrap_or_else(|| wrong(&key));
                    kept.push((key, node));
                } else if let Some((shape, _)) = keys.others {
                    let what = format!("`{}`", key.text);
                    let node = check_structure(node, shape, &what, problems).unwrap_or_else(|| wrong(&key));
                    kept.push((key, node));
                } else {
                    let help = match key.text.as_str() {
                        "<<" => {
                            Some("YAML 1.2 has no merge key: use `extends`, or write the keys out".to_owned())
                        }
                        text => foreign_key(keys.what, text)
                            .or_else(|| advice(text, &keys.names(), "its keys are")),
                    };
                    problems.push(
                        key.span
                            .error(
                                Code::UnknownKey,
                                format!("unknown key `{}`", key.text),
                                format!("not a key of {}", keys.what),
                            )
                            .maybe_help(help),
                    );
                }
            }
            yaml::Value::Map(kept)
        }
        (
            value @ yaml::Value::Scalar(_),
            Shape::Text(_) | Shape::Number(..) | Shape::Truth | Shape::Choice(_),
        ) => value,
        (value, _) => {
            let node = yaml::Node { span, value };
            let found = node.describe();
            problems.push(
                node.span
                    .error(
                        Code::WrongType,
                        format!("{what} takes {expected}, not {found}"),
                        format!("this is {found}"),
                    )
                    .maybe_help(match shape {
                        Shape::List(_) => {
                            Some("write [one, two], or one entry a line, each after a dash".to_owned())
                        }
                        Shape::Keys(keys) if !keys.fields.is_empty() => {
                            Some(format!("its keys are: {}", keys.names().join(", ")))
                        }
                        Shape::Keys(_) => Some("write {key: value}, or one `key: value` a line".to_owned()),
                        _ => None,
                    }),
            );
            return None;
        }
    };
    Some(yaml::Node { span, value })
}

/// What to write for a key that EC2 has for the same thing, or does not take in an image.
fn foreign_key(what: &str, key: &str) -> Option<String> {
    let plain: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    let instead = match (what, plain.to_ascii_lowercase().as_str()) {
        ("a volume", "devicename") => "device",
        ("a volume", "volumesize") => "size",
        ("a volume", "volumetype") => "type",
        ("a volume", "virtualname") => "ephemeral",
        ("a volume", "fs" | "fstype" | "format") => "filesystem",
        ("a volume", "mountpoint" | "path") => "mount",
        ("a volume", "deleteontermination") => "delete_on_termination",
        ("a volume", "kmskeyid" | "kmskey" | "kms") => {
            return Some("an image names no key: give it when the image is copied or launched".to_owned());
        }
        ("a volume", "snapshotid" | "snapshot") => {
            return Some("volumes are made from the recipe: fill one with `source`".to_owned());
        }
        ("the image's options", "imdssupport") => "imds",
        ("the image's options", "enasupport") => "ena",
        ("the image's options", "bootmode") => "boot_mode",
        _ => return None,
    };
    Some(format!("did you mean `{instead}`?"))
}

/// The JSON Schema (draft 2020-12) of a recipe file, for editors. Every text may hold `${{ variables }}`, so numbers
/// and words may be texts with one as well.
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Bakehouse recipe",
        "description": "What to bake into a machine image.",
    });
    if let (Value::Object(all), Value::Object(recipe)) = (&mut schema, keys_schema(&RECIPE)) {
        // A base needs no name of its own, so nothing is required of a single file.
        all.extend(recipe.into_iter().filter(|(key, _)| key != "required"));
    }
    schema
}

fn shape_schema(shape: &Shape) -> Value {
    const VARIABLE: &str = "\\$\\{\\{";
    let or_variable = |plain: Value| json!({"anyOf": [plain, {"type": "string", "pattern": VARIABLE}]});
    match shape {
        Shape::Text("") => json!({"type": ["string", "number", "boolean", "null"]}),
        Shape::Text(pattern) => {
            json!({"type": ["string", "number", "null"], "pattern": format!("{pattern}|{VARIABLE}")})
        }
        Shape::Number(least, most) => {
            or_variable(json!({"type": ["integer", "null"], "minimum": least, "maximum": most}))
        }
        Shape::Truth => or_variable(json!({"type": ["boolean", "null"]})),
        Shape::Choice(words) => or_variable(json!({"enum": words})),
        Shape::List(shape) => json!({"type": ["array", "null"], "items": shape_schema(shape)}),
        Shape::Keys(keys) => keys_schema(keys),
    }
}

fn keys_schema(keys: &Keys) -> Value {
    let mut properties = Map::new();
    for field in keys.fields {
        let mut schema = shape_schema(&field.shape);
        schema["description"] = json!(match field.default {
            "" => field.doc.to_owned(),
            default => format!("{} Default: {default}.", field.doc),
        });
        properties.insert(field.name.to_owned(), schema);
    }
    let required: Vec<_> =
        keys.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({"type": if keys.one_of { json!("object") } else { json!(["object", "null"]) }});
    if !properties.is_empty() {
        schema["properties"] = Value::Object(properties);
    }
    match keys.others {
        Some((shape, pattern)) => {
            schema["additionalProperties"] = shape_schema(shape);
            if keys.fields.is_empty() {
                schema["propertyNames"] = json!({"pattern": pattern});
            }
        }
        None => schema["additionalProperties"] = json!(false),
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if keys.one_of {
        schema["minProperties"] = json!(1);
        schema["maxProperties"] = json!(1);
    }
    schema
}
