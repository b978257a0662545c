//! The language as data: which keys there are, what they take, what they mean. The check of a file's structure and
//! the JSON Schema both read this table.

use serde_json::{Map, Value, json};

use crate::Code;
use crate::diagnostic::Diagnostic;
use crate::nearest::advice;
use crate::yaml::{self, Key, Node};

pub(crate) const SUITES: &[&str] = &["trixie", "bookworm"];
pub(crate) const FAMILIES: &[&str] = &["debian"];
pub(crate) const COMPONENTS: &[&str] = &["main", "contrib", "non-free", "non-free-firmware"];
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
    pub(crate) doc: &'static str,
}

const fn field(name: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { name, shape, required: false, doc }
}

const fn required(name: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { name, shape, required: true, doc }
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
            "The image's name: small letters, digits, dots and dashes.",
        ),
        field(
            "version",
            Shape::Text("^[A-Za-z0-9][A-Za-z0-9._-]*$"),
            "Added to the image's name: hello-web-1.0.0.",
        ),
        field("description", ANY, "What the image is, in a sentence."),
        field(
            "extends",
            ANY,
            "The recipe to build on: a path relative to this file, or builtin:debian-13, or builtin:debian-12. Mappings merge, lists append (but not architectures), all else is replaced.",
        ),
        field(
            "architectures",
            Shape::List(&Shape::Choice(ARCHITECTURES)),
            "The architectures to bake for; both when left out. Unlike other lists, a recipe's own takes the place of its base's, so that it can be for fewer.",
        ),
        field(
            "vars",
            Shape::Keys(&Keys {
                what: "the variables",
                fields: &[],
                others: Some((&ANY, "^[a-z_][a-z0-9_]*$")),
                one_of: false,
            }),
            "Variables, used in any text as ${{ name }}, overridden by --set name=…. Built in: name, version, arch, debian_arch.",
        ),
        field("distribution", Shape::Keys(&DISTRIBUTION), "Where packages come from."),
        field("kernel", ANY, "cloud (the default), generic, or the name of a linux-image package."),
        field(
            "packages",
            Shape::List(&ANY),
            "Packages to install: name, or name=version; -name drops one that the base asks for.",
        ),
        field(
            "recommends",
            Shape::Truth,
            "Whether recommended packages are installed too; off when left out.",
        ),
        field(
            "motd",
            Shape::Keys(&Keys {
                what: "the login messages",
                fields: &[],
                others: Some((&ANY, "^[A-Za-z0-9_.-]+$")),
                one_of: false,
            }),
            "Scripts that greet at login: /etc/update-motd.d/<key>, mode 0755.",
        ),
        field(
            "web",
            Shape::Keys(&WEB),
            "Files of a web site: root, source, and any other key is a file's path with its content.",
        ),
        field("files", Shape::List(&Shape::Keys(&FILE)), "Files and folders to put into the image."),
        field(
            "users",
            Shape::List(&Shape::Keys(&USER)),
            "Accounts. The first with sudo is the image's default user.",
        ),
        field("services", Shape::Keys(&SERVICES), "systemd units to switch on and off."),
        field(
            "run",
            Shape::List(&Shape::Keys(&RUN)),
            "Scripts that run in the image's root file system while it is baked, in order, after all else.",
        ),
        field(
            "volumes",
            Shape::List(&Shape::Keys(&VOLUME)),
            "The disks. Without any: a root of 4GiB at /dev/xvda.",
        ),
        field("image", Shape::Keys(&IMAGE), "How the image is registered."),
        field("checks", Shape::List(&Shape::Keys(&CHECK)), "What must be true of the booted machine."),
    ],
);

pub(crate) const DISTRIBUTION: Keys = keys(
    "a distribution",
    &[
        field("family", Shape::Choice(FAMILIES), "debian, the default."),
        field("suite", Shape::Choice(SUITES), "The release; trixie when left out."),
        field(
            "components",
            Shape::List(&Shape::Choice(COMPONENTS)),
            "Parts of the archive; main when left out.",
        ),
        field(
            "mirror",
            Shape::Text("^(https?|file)://"),
            "A mirror's address; else the host's apt sources, BAKEHOUSE_DEBIAN_MIRROR or the built-in default.",
        ),
        field("updates", Shape::Truth, "Whether the updates suite is used; on when left out."),
        field("security", Shape::Truth, "Whether the security suite is used; on when left out."),
    ],
);

pub(crate) const WEB: Keys = Keys {
    what: "the web files",
    fields: &[
        field("root", ABSOLUTE, "The folder in the image; /var/www/html when left out."),
        field("source", ANY, "A folder beside the recipe whose files are laid under root."),
    ],
    others: Some((&ANY, "^[^/].*$")),
    one_of: false,
};

pub(crate) const FILE: Keys = keys(
    "a file",
    &[
        required("path", ABSOLUTE, "Where it goes in the image."),
        field("content", ANY, "What is in it."),
        field("source", ANY, "A file or folder beside the recipe to copy, in place of content."),
        field("mode", Shape::Text("^[0-7]{3,4}$"), "Octal permissions, in quotes: \"0644\"."),
        field("owner", ANY, "The user it belongs to; root when left out."),
        field("group", ANY, "The group it belongs to; root when left out."),
    ],
);

pub(crate) const USER: Keys = keys(
    "a user",
    &[
        required("name", Shape::Text("^[a-z_][a-z0-9_-]{0,31}$"), "The account's name."),
        field("groups", Shape::List(&ANY), "Further groups."),
        field("sudo", Shape::Truth, "Whether the user may do all things with sudo, without a password."),
        field("shell", ABSOLUTE, "The login shell; /bin/bash when left out."),
        field(
            "authorized_keys",
            Shape::List(&ANY),
            "Public SSH keys put into the image. EC2 brings the launch key without this.",
        ),
    ],
);

pub(crate) const SERVICES: Keys = keys(
    "the services",
    &[
        field("enable", Shape::List(&ANY), "Units that start at boot."),
        field("disable", Shape::List(&ANY), "Units that do not, though a package or base enables them."),
    ],
);

pub(crate) const RUN: Keys = keys(
    "a run step",
    &[
        required("name", ANY, "What the step is called in messages."),
        required("script", ANY, "A shell script, or any script that begins with #!."),
    ],
);

pub(crate) const VOLUME: Keys = keys(
    "a volume",
    &[
        required(
            "device",
            Shape::Text("^/dev/(xvd|sd)"),
            "The name that it is attached under: /dev/xvda, /dev/xvdf.",
        ),
        field("root", Shape::Truth, "Whether this is the disk that boots."),
        field(
            "size",
            Shape::Text("^[1-9][0-9]*(MiB|GiB)$"),
            "Whole MiB or GiB: 4GiB. For the root 4GiB, for instance store 1GiB when left out.",
        ),
        field("type", Shape::Choice(VOLUME_TYPES), "The EBS volume type; gp3 when left out."),
        field("iops", Shape::Number(1, 1_000_000), "Provisioned IOPS (gp3, io1, io2)."),
        field("throughput", Shape::Number(1, 100_000), "MiB/s (gp3)."),
        field(
            "encrypted",
            Shape::Truth,
            "Only for a volume without content: one that comes from a snapshot is as its snapshot is.",
        ),
        field(
            "filesystem",
            Shape::Choice(FILESYSTEMS),
            "ext4; when left out, a data volume is blank, and takes no label, mount or source.",
        ),
        field("label", Shape::Text("^[^/\\s]{1,16}$"), "The file system's label, 16 bytes at most."),
        field("mount", ABSOLUTE, "Where the file system is mounted."),
        field("source", ANY, "A folder beside the recipe whose files fill the file system."),
        field(
            "delete_on_termination",
            Shape::Truth,
            "Whether it goes when the instance does; true for the root, false for others when left out.",
        ),
        field(
            "ephemeral",
            Shape::Number(0, catalog::MAX_EPHEMERAL as u64),
            "The number of an instance store volume: blank at each start.",
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
            "Tags of the image.",
        ),
        field(
            "boot_mode",
            Shape::Choice(BOOT_MODES),
            "uefi-preferred when left out; aarch64 always boots with uefi.",
        ),
        field(
            "imds",
            Shape::Choice(IMDS),
            "v2.0 (the default): the metadata service asks for a token; optional: it answers without too.",
        ),
        field("ena", Shape::Truth, "Whether the image drives Elastic Network Adapters; true when left out."),
    ],
);

pub(crate) const CHECK: Keys = Keys {
    what: "a check",
    fields: &[
        field("http", Shape::Keys(&HTTP), "A page that the machine serves."),
        field("login", Shape::Keys(&LOGIN), "What a person sees at login."),
        field("ssh", Shape::Keys(&SSH), "A command run as a user."),
        field("mount", Shape::Keys(&MOUNT), "A volume that is mounted."),
        field("console", Shape::Keys(&CONSOLE), "A text on the console."),
    ],
    others: None,
    one_of: true,
};

pub(crate) const HTTP: Keys = keys(
    "an http check",
    &[
        field("port", Shape::Number(1, 65_535), "80 when left out."),
        field("path", ABSOLUTE, "/ when left out."),
        field("status", Shape::Number(100, 599), "200 when left out."),
        field("contains", ANY, "A text that the page must hold."),
    ],
);

pub(crate) const LOGIN: Keys = keys(
    "a login check",
    &[
        field("user", ANY, "Who logs in; the default user when left out."),
        required("contains", ANY, "A text that the greeting must hold."),
    ],
);

pub(crate) const SSH: Keys = keys(
    "an ssh check",
    &[
        field("user", ANY, "Who runs it; the default user when left out."),
        required("run", ANY, "The command, for the user's shell. It must succeed."),
        field("contains", ANY, "A text that its output must hold."),
    ],
);

pub(crate) const MOUNT: Keys = keys(
    "a mount check",
    &[
        required("path", ABSOLUTE, "Where the volume is mounted."),
        required("device", Shape::Text("^/dev/"), "The volume's device name."),
    ],
);

pub(crate) const CONSOLE: Keys =
    keys("a console check", &[required("contains", ANY, "A text that the console must show.")]);

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
        schema["description"] = json!(field.doc);
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
