//! `/boot/grub/grub.cfg` as far as it says what boots: the menu's entries with their kernels.

use block::format_uuid;
use tree::TreePath;

use crate::image::{Image, lines, unquoted};
use crate::{Error, Facts, Findings, rules};

/// The place of the menu.
const CONFIG: &str = "/boot/grub/grub.cfg";

/// What GRUB offers.
#[derive(Debug, Default)]
pub(crate) struct Menu {
    /// The file behind all links; `None`: there is no menu.
    pub(crate) path: Option<TreePath>,
    /// Every entry that starts a Linux, in the file's order.
    pub(crate) boots: Vec<Boot>,
    /// The place in `boots` of what starts when nobody chooses; `None`: the file does not say it plainly.
    pub(crate) default: Option<usize>,
    /// UUIDs that GRUB looks for, with the line.
    searches: Vec<(usize, String)>,
}

/// A Linux with its command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Boot {
    /// The line of the `linux` command.
    pub(crate) line: usize,
    /// The kernel's path in the root file system.
    pub(crate) kernel: String,
    /// The words behind it.
    pub(crate) arguments: Vec<String>,
    /// The initrds' paths.
    pub(crate) initrds: Vec<String>,
}

impl Menu {
    /// Reads the menu; empty where there is none.
    pub(crate) fn read(image: &Image<'_>) -> Result<Self, Error> {
        Ok(match image.text(CONFIG)? {
            Some((path, text)) => Self { path: Some(path), ..parse(&text) },
            None => Self::default(),
        })
    }

    /// The entry that starts when nobody chooses, or the first where that is not plain.
    pub(crate) fn usual(&self) -> Option<&Boot> {
        self.boots.get(self.default.unwrap_or(0))
    }
}

/// What a `{` opened.
enum Block {
    /// A `menuentry` or `submenu`; the names by which it can be chosen.
    Item {
        names: Vec<String>,
    },
    Other,
}

fn parse(text: &str) -> Menu {
    let mut menu = Menu::default();
    let mut open: Vec<Block> = Vec::new();
    let mut wanted: Option<String> = None;
    // Of every boot, by what it can be chosen: names, and its number in the outermost menu.
    let mut chosen_by: Vec<(Vec<String>, Option<usize>)> = Vec::new();
    let mut outermost = 0;
    for (number, line) in lines(text) {
        let words = words(line);
        let command = words.first().map(String::as_str).unwrap_or_default();
        match command {
            "menuentry" | "submenu" => {
                let top = !open.iter().any(|block| matches!(block, Block::Item { .. }));
                outermost += usize::from(top);
                let id = words.iter().position(|word| word == "--id" || word == "$menuentry_id_option");
                let id = id.and_then(|at| words.get(at + 1));
                open.push(Block::Item { names: words.get(1).into_iter().chain(id).cloned().collect() });
                continue;
            }
            "linux" | "linux16" | "linuxefi" => {
                let items: Vec<_> = open
                    .iter()
                    .filter_map(|block| match block {
                        Block::Item { names } => Some(names),
                        Block::Other => None,
                    })
                    .collect();
                let place = (items.len() == 1).then(|| outermost - 1);
                chosen_by.push((items.last().map(|names| (*names).clone()).unwrap_or_default(), place));
                menu.boots.push(Boot {
                    line: number,
                    kernel: words.get(1).map(|path| in_root(path)).unwrap_or_default(),
                    arguments: words.get(2..).unwrap_or_default().to_vec(),
                    initrds: Vec::new(),
                });
            }
            "initrd" | "initrd16" | "initrdefi" => {
                if let Some(boot) = menu.boots.last_mut() {
                    boot.initrds.extend(words[1..].iter().map(|path| in_root(path)));
                }
            }
            "search" | "search.fs_uuid" => menu.searches.extend(searched(&words).map(|uuid| (number, uuid))),
            "set" => {
                if let Some(value) = line.split_once("default=").map(|(_, value)| unquoted(value))
                    && line.starts_with("set default=")
                    && !value.contains('$')
                {
                    wanted = Some(value.to_owned());
                }
            }
            _ => {}
        }
        if line.ends_with('{') {
            open.push(Block::Other);
        } else if line == "}" {
            open.pop();
        }
    }
    // The last part of `a>b` names the entry, in whatever menu it is.
    let wanted = wanted.unwrap_or_else(|| "0".into());
    let place: Option<usize> = wanted.parse().ok();
    let name = wanted.rsplit('>').next().unwrap_or_default();
    menu.default = chosen_by.iter().position(|(names, number)| match place {
        Some(_) => *number == place,
        None => names.iter().any(|other| other == name),
    });
    menu
}

/// The UUID that a search is for.
pub(crate) fn searched(words: &[String]) -> Option<String> {
    let by_uuid = words[0] == "search.fs_uuid"
        || words.iter().any(|word| word == "--fs-uuid" || word == "-u" || word.starts_with("--fs-uuid="));
    let uuid = words[1..]
        .iter()
        .find(|word| word.len() == 36 && word.bytes().filter(|byte| *byte == b'-').count() == 4);
    uuid.filter(|_| by_uuid).cloned()
}

/// A path without the `($root)` before it.
fn in_root(path: &str) -> String {
    path.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(path, |(_, path)| path).to_owned()
}

/// The words of a command: quotes hold words together and are taken away.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Looks whether what the menu boots is there, and is found by UUID.
pub(crate) fn check(image: &Image<'_>, menu: &Menu, facts: &Facts<'_>, findings: &mut Findings) {
    let Some(path) = menu.path.as_ref() else {
        let reason = format!("there is no {CONFIG}");
        return findings.add(&rules::KERNEL, None, reason, "run update-grub in a step, or lay the file down");
    };
    if menu.boots.is_empty() {
        findings.add(&rules::KERNEL, Some(path), "boots no Linux", "install a kernel and run update-grub");
    }
    let uuid = format_uuid(facts.root_uuid);
    for boot in &menu.boots {
        let line = boot.line;
        for file in std::iter::once(&boot.kernel).chain(&boot.initrds) {
            if image.file(file).is_none() {
                let reason = format!("line {line}: the entry boots {file}, which is not there");
                findings.add(&rules::KERNEL, Some(path), reason, "run update-grub after kernels come or go");
            }
        }
        let root = boot.arguments.iter().rev().find_map(|argument| argument.strip_prefix("root="));
        let wrong = match root {
            None => Some("has no root=".to_owned()),
            Some(root) => match root.split_once('=') {
                Some(("UUID", value)) if unquoted(value).eq_ignore_ascii_case(&uuid) => None,
                Some(("UUID", value)) => {
                    Some(format!("has root=UUID={value}, and the root file system is {uuid}"))
                }
                Some(("PARTUUID" | "LABEL" | "PARTLABEL", _)) => None,
                _ => Some(format!("has root={root}, a name that differs by instance type")),
            },
        };
        if let Some(wrong) = wrong {
            let reason = format!("line {line}: the command line {wrong}");
            findings.add(&rules::ROOT_BY_UUID, Some(path), reason, format!("write root=UUID={uuid}"));
        }
    }
    for (line, other) in menu.searches.iter().filter(|(_, other)| !other.eq_ignore_ascii_case(&uuid)) {
        let reason = format!("line {line}: GRUB looks for {other}, and the root file system is {uuid}");
        findings.add(&rules::ROOT_BY_UUID, Some(path), reason, "run update-grub with the root's own UUID");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_image::Sample;

    fn menu(default: &str) -> Menu {
        parse(&format!(
            "if [ \"${{next_entry}}\" ] ; then\n   set default=\"${{next_entry}}\"\nelse\n   set default=\"{default}\"\nfi\n\
             function load_video {{\n  if [ x = y ]; then\n    insmod all_video\n  fi\n}}\n\
             menuentry 'Debian' --class os $menuentry_id_option 'simple' {{\n\
             \tlinux\t/boot/vmlinuz-2 root=UUID=x ro console=ttyS0,115200n8 \n\tinitrd\t/boot/initrd.img-2\n}}\n\
             submenu 'More' $menuentry_id_option 'more' {{\n\tmenuentry 'Old one' --id old {{\n\
             \t\tlinux ($root)/boot/vmlinuz-1 \"quoted words\"\n\t}}\n}}\nmenuentry Memtest {{\n linux16 /m\n}}\n"
        ))
    }

    #[test]
    fn entries_are_found_by_number_title_and_id() {
        let kernel = |default: &str| {
            let menu = menu(default);
            menu.default.map(|index| menu.boots[index].kernel.clone())
        };
        assert_eq!(kernel("0").as_deref(), Some("/boot/vmlinuz-2"));
        assert_eq!(kernel("1"), None, "a submenu opens and boots nothing");
        assert_eq!(kernel("2").as_deref(), Some("/m"));
        assert_eq!(kernel("more>old").as_deref(), Some("/boot/vmlinuz-1"));
        assert_eq!(kernel("Old one").as_deref(), Some("/boot/vmlinuz-1"));
        assert_eq!(kernel("gone"), None);
        let menu = menu("0");
        assert_eq!(menu.boots[0].arguments, ["root=UUID=x", "ro", "console=ttyS0,115200n8"]);
        assert_eq!(menu.boots[0].initrds, ["/boot/initrd.img-2"]);
        assert_eq!(menu.boots[1].arguments, ["quoted words"]);
    }

    #[test]
    fn a_root_by_device_name_or_by_another_uuid_is_an_error() {
        let with = |old: &str, new: &str| {
            let mut sample = Sample::new();
            sample.replace("boot/grub/grub.cfg", old, new);
            sample.rules()
        };
        assert_eq!(with("root=UUID=abababab", "root=UUID=12121212"), ["root-by-uuid"]);
        assert_eq!(
            with("root=UUID=abababab-abab-abab-abab-abababababab", "root=/dev/xvda1"),
            ["root-by-uuid"]
        );
        assert_eq!(with("root=UUID=abababab-abab-abab-abab-abababababab", ""), ["root-by-uuid"]);
        assert_eq!(with("root=UUID=abababab-abab-abab-abab-abababababab", "root=PARTUUID=12"), [""; 0]);
        assert_eq!(with("--set=root abababab", "--set=root 12121212"), ["root-by-uuid"]);
    }

    #[test]
    fn the_menu_boots_what_is_there() {
        let mut sample = Sample::new();
        sample.replace("boot/grub/grub.cfg", "initrd.img-6.12.9", "initrd.img-6.12.8");
        assert_eq!(sample.rules(), ["kernel"]);
        let mut sample = Sample::new();
        sample.text("boot/grub/grub.cfg", "set timeout=0\n");
        assert!(sample.rules().contains(&"kernel"));
        let mut sample = Sample::new();
        sample.remove("boot/grub/grub.cfg");
        assert!(sample.rules().contains(&"kernel"));
    }
}
