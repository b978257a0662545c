//! Two small disks, made by the house's own writers, and what is said of them, held against `tests/golden` letter by letter.
//! `UPDATE_GOLDEN=1 cargo test` writes what is said now; the change is then there to be read.

use std::collections::BTreeSet;
use std::path::Path;

use block::{BLOCK_SIZE, BlockMap, BlockMapBuilder, Content, MIB, Origin};
use diff::{Aspect, Difference, FileChange, Image, Package, Step, Volume, compare};
use disk::{Partition, PartitionKind, Plan};
use ext4::{Options, SimplePlacement};
use tree::{Entry, Node, Timestamp, Tree, TreePath};

const TIME: i64 = 1_700_000_000;

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

/// Bytes that no block has twice.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

fn file(mode: u16, bytes: impl Into<Vec<u8>>) -> Entry {
    let mut entry = Entry::file(mode, bytes, Origin::Configured);
    entry.meta.mtime = Timestamp::from_seconds(TIME);
    entry
}

fn root(entries: Vec<(&str, Entry)>) -> Tree {
    let mut tree = Tree::new(Entry::directory(0o755));
    for folder in ["app", "etc", "opt", "srv", "dev"] {
        tree.insert(path(folder), Entry::directory(0o755));
    }
    for (name, entry) in entries {
        tree.insert(path(name), entry);
    }
    tree
}

fn file_system(tree: &Tree, size: u64) -> BlockMap {
    let options = Options { time: TIME, ..Options::new(size, [3; 16]) };
    ext4::write(tree, &options, &SimplePlacement).unwrap()
}

/// A disk as a bake makes them: an EFI partition that is not ext4, and a root.
fn root_disk(tree: &Tree, esp: &[u8], size: u64) -> BlockMap {
    let mut builder = BlockMapBuilder::new();
    let mut bytes = vec![0; 4096];
    bytes[54..59].copy_from_slice(b"FAT16");
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes.extend(esp);
    builder.push_all(0, Content::from_bytes(bytes), Origin::Structure("test"));
    let esp = builder.finish(4 * MIB).unwrap();
    let partition = |number, kind, name: &str, size, content| Partition {
        number,
        kind,
        name: name.to_owned(),
        uuid: [number as u8; 16],
        size,
        content,
    };
    let content = file_system(tree, size - 6 * MIB);
    let plan = Plan {
        size,
        disk_uuid: [9; 16],
        partitions: vec![
            partition(15, PartitionKind::EfiSystem, "esp", Some(4 * MIB), esp),
            partition(1, PartitionKind::LinuxRootX86_64, "root", None, content),
        ],
    };
    disk::gpt(&plan, None).unwrap()
}

fn image(name: &str, arch: &str, packages: &[(&str, &str)], volumes: Vec<(&str, BlockMap)>) -> Image {
    let package = |(name, version): &(&str, &str)| Package {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        architecture: "amd64".to_owned(),
    };
    let volume =
        |(device, disk): (&str, BlockMap)| Volume::read(Some(device.to_owned()), Box::new(disk)).unwrap();
    Image {
        given: format!("out/{name}/{arch}"),
        name: Some(name.to_owned()),
        arch: Some(arch.to_owned()),
        packages: Some(packages.iter().map(package).collect()),
        volumes: volumes.into_iter().map(volume).collect(),
        remarks: Vec::new(),
    }
}

fn order(one: &str, other: &str) -> std::cmp::Ordering {
    (one.len(), one).cmp(&(other.len(), other))
}

/// Two versions of an image.
fn pair() -> (Image, Image) {
    let large = noise(1, 3 * BLOCK_SIZE as usize);
    let kept = |name: &'static str, seed| (name, file(0o644, noise(seed, 1_700_000)));
    let attributed = |value: &[u8]| {
        let mut entry = file(0o755, "ping");
        entry.meta.xattrs.insert(b"security.capability".to_vec(), value.to_vec());
        entry
    };
    let owned = |uid| {
        let mut entry = file(0o600, "secret");
        entry.meta.uid = uid;
        entry
    };
    let later = || {
        let mut entry = file(0o644, "time");
        entry.meta.mtime.seconds += 60;
        entry
    };
    let device = |minor| Entry { node: Node::CharDevice { major: 1, minor }, ..file(0o666, "") };
    let link = |target: &str| Entry::symlink(target, Origin::Configured);
    let a = root(vec![
        kept("app/kept", 10),
        kept("srv/kept", 11),
        ("opt/large", file(0o644, large.clone())),
        ("opt/gone", file(0o644, noise(2, 900_000))),
        ("etc/app.conf", file(0o644, "port = 80\n")),
        ("etc/key", owned(0)),
        ("etc/script", file(0o644, "#!/bin/sh\n")),
        ("etc/ping", attributed(b"one")),
        ("etc/localtime", link("/usr/share/zoneinfo/UTC")),
        ("etc/time", file(0o644, "time")),
        ("etc/was-file", file(0o644, "text")),
        ("dev/null", device(3)),
    ]);
    let b = root(vec![
        kept("app/kept", 10),
        kept("srv/kept", 11),
        ("opt/large", file(0o644, [&noise(3, 600_000), &large[..]].concat())),
        ("opt/fresh", file(0o644, noise(4, 1_200_000))),
        ("etc/app.conf", file(0o644, "port = 8080\n")),
        ("etc/key", owned(1000)),
        ("etc/script", file(0o755, "#!/bin/sh\n")),
        ("etc/ping", attributed(b"two")),
        ("etc/localtime", link("/usr/share/zoneinfo/Europe/Zurich")),
        ("etc/time", later()),
        ("etc/was-file", link("script")),
        ("etc/also", Entry { node: Node::HardLink(path("etc/app.conf")), ..file(0, "") }),
        ("dev/null", device(5)),
    ]);
    let data = |seed| file_system(&root(vec![("srv/data", file(0o644, noise(seed, 300_000)))]), 8 * MIB);
    let a = image(
        "shop-1.0",
        "x86_64",
        &[("apache2", "2.4.65"), ("curl", "8.14.1"), ("nano", "8.4"), ("tzdata", "2026b")],
        vec![("/dev/xvda", root_disk(&a, b"one", 40 * MIB)), ("/dev/xvdf", data(7))],
    );
    let b = image(
        "shop-1.1",
        "x86_64",
        &[("apache2", "2.4.66"), ("curl", "8.14.1"), ("tzdata", "2026a"), ("vim", "9.1")],
        vec![("/dev/xvda", root_disk(&b, b"two", 48 * MIB)), ("/dev/xvdg", data(7))],
    );
    (a, b)
}

fn files(difference: &Difference) -> Vec<&FileChange> {
    let partitions = difference.volumes.iter().flat_map(|volume| &volume.partitions);
    partitions.flat_map(|partition| partition.files.iter().flat_map(|files| &files.changes)).collect()
}

#[test]
fn every_file_differs_in_what_it_differs_in() {
    let (a, b) = pair();
    let difference = compare(&a, &b, &order).unwrap();
    let of_root = difference.volumes[0].partitions.iter().find(|partition| partition.number == 1).unwrap();
    let changes = of_root.files.as_ref().unwrap();
    let told: Vec<_> = changes
        .changes
        .iter()
        .map(|change| (change.path.to_string(), change.word(), change.detail()))
        .collect();
    let told: Vec<_> =
        told.iter().map(|(path, word, detail)| (path.as_str(), *word, detail.as_str())).collect();
    assert_eq!(
        told,
        [
            ("dev/null", "changed", "1:3 → 1:5"),
            ("etc/also", "added", "file"),
            ("etc/app.conf", "changed", "content, 10 B → 12 B, names 1 → 2"),
            ("etc/key", "changed", "owner 0:0 → 1000:0"),
            ("etc/localtime", "changed", "/usr/share/zoneinfo/UTC → /usr/share/zoneinfo/Europe/Zurich"),
            ("etc/ping", "changed", "attributes security.capability"),
            ("etc/script", "changed", "mode 0644 → 0755"),
            ("etc/was-file", "changed", "file → link, mode 0644 → 0777"),
            ("opt/fresh", "added", "file"),
            ("opt/gone", "removed", "file"),
            ("opt/large", "changed", "content, 1.5 MiB → 2.1 MiB"),
        ]
    );
    // Seven folders, the two that are kept, and the one whose time alone differs.
    assert_eq!((changes.same, changes.times), (10, 1));
    let steps: Vec<_> =
        difference.packages.as_ref().unwrap().changes.iter().map(|change| &change.step).collect();
    let text = |text: &str| text.to_owned();
    assert_eq!(
        steps,
        [
            &Step::Upgraded(text("2.4.65"), text("2.4.66")),
            &Step::Removed(text("8.4")),
            &Step::Downgraded(text("2026b"), text("2026a")),
            &Step::Added(text("9.1")),
        ]
    );
    let blocks = &difference.volumes[0].blocks;
    assert!(blocks.same.blocks > 0 && blocks.new.blocks > 0 && blocks.gone.blocks > 0);
    let esp = difference.volumes[0].partitions.iter().find(|partition| partition.number == 15).unwrap();
    assert_eq!((esp.differing_blocks, esp.files.is_err()), (1, true));
    // The data volume goes by another name: all of it is gone here and there, moved in the pool.
    assert_eq!(difference.volumes[1].sizes, (Some(8 * MIB), None));
    assert_eq!(difference.volumes[2].sizes, (None, Some(8 * MIB)));
    assert_eq!(difference.volumes[2].blocks.new.blocks, 0);
    assert!(difference.remarks.iter().any(|remark| remark == "the volume /dev/xvdf is in A only"));
}

#[test]
fn an_image_does_not_differ_from_itself() {
    let (a, _) = pair();
    let same = compare(&a, &a, &order).unwrap();
    assert!(same.is_empty() && files(&same).is_empty());
    assert!(diff::text(&same, false).contains("sends nothing; a store that has A keeps nothing more"));
    assert!(diff::html(&same, false).contains("all the same"));
    assert_eq!(diff::json(&same)["same"], true);
    let (_, b) = pair();
    assert!(!compare(&a, &b, &order).unwrap().is_empty());
}

/// Files lie elsewhere, their bytes are the same: nobody is told of them.
#[test]
fn files_that_lie_elsewhere_are_the_same() {
    let entries = |first: bool| {
        let mut all =
            vec![("srv/one", file(0o644, noise(5, 700_001))), ("srv/two", file(0o644, noise(6, 70_000)))];
        if first {
            all.push(("etc/aaa", file(0o644, noise(8, 123_456))));
        }
        root(all)
    };
    let of = |tree: &Tree| image("a", "x86_64", &[], vec![("/dev/xvda", file_system(tree, 16 * MIB))]);
    let difference = compare(&of(&entries(false)), &of(&entries(true)), &order).unwrap();
    let changes = files(&difference);
    assert_eq!(changes.iter().map(|change| change.path.to_string()).collect::<Vec<_>>(), ["etc/aaa"]);
    assert!(difference.volumes[0].blocks.new.blocks > 0);
}

#[test]
fn one_byte_is_found_wherever_it_is() {
    let bytes = noise(9, 2 * BLOCK_SIZE as usize + 5);
    let of = |bytes: Vec<u8>| {
        let tree = root(vec![("srv/file", file(0o644, bytes))]);
        image("a", "x86_64", &[], vec![("/dev/xvda", file_system(&tree, 16 * MIB))])
    };
    let a = of(bytes.clone());
    for at in [0, 4095, 4096, BLOCK_SIZE as usize, bytes.len() - 1] {
        let mut other = bytes.clone();
        other[at] ^= 1;
        let difference = compare(&a, &of(other), &order).unwrap();
        let changes = files(&difference);
        assert_eq!(changes.len(), 1, "byte {at}");
        assert_eq!(changes[0].aspects, [Aspect::Content]);
    }
}

#[test]
fn a_disk_without_a_name_is_held_against_the_first_volume() {
    let (a, b) = pair();
    let mut disk = vec![0; b.volumes[0].disk.len() as usize];
    b.volumes[0].disk.read_at(0, &mut disk).unwrap();
    let mut builder = BlockMapBuilder::new();
    builder.push_sparse(0, &disk, &Origin::Structure("test"));
    let disk = builder.finish(disk.len() as u64).unwrap();
    let raw = Image {
        given: "disk.raw".to_owned(),
        name: None,
        arch: Some("aarch64".to_owned()),
        packages: None,
        volumes: vec![Volume::read(None, Box::new(disk)).unwrap()],
        remarks: vec!["it was found".to_owned()],
    };
    let difference = compare(&a, &raw, &order).unwrap();
    assert_eq!(difference.volumes.len(), 1);
    assert_eq!(difference.volumes[0].device, "/dev/xvda");
    assert_eq!(
        difference.remarks,
        [
            "B: it was found",
            "A is for x86_64 and B for aarch64: almost every program differs",
            "B does not say which packages it has: they are not compared",
            "the other image is one disk: only the first volume of A is compared",
        ]
    );
    assert!(compare(&raw, &raw, &order).unwrap().is_empty());
}

/// Names that would like to be markup, commands or other names.
fn hostile() -> Difference {
    let names: [&[u8]; 7] = [
        b"<script>alert(1)<\\script>",
        b"\"onmouseover=\"alert(2)",
        b"'><img src=x onerror=alert(3)>",
        b"\x1b]0;title\x07\x1b[2J",
        b"new\nline\ttab",
        b"\xff\xfe invalid \xc3",
        "\u{202e}gpj.exe\u{2066} & &amp; &lt;".as_bytes(),
    ];
    let tree = |fill: u8| {
        let mut tree = Tree::new(Entry::directory(0o755));
        for name in names {
            tree.insert(TreePath::new(name).unwrap(), file(0o644, vec![fill; 600_000]));
            let link = TreePath::new(&[b"link-", name].concat()).unwrap();
            tree.insert(link, Entry::symlink([&[fill], name].concat(), Origin::Configured));
        }
        tree
    };
    let text = |at: usize| String::from_utf8_lossy(names[at]).into_owned();
    let of = |fill| {
        let mut image = image("a", "x86_64", &[], vec![("/dev/<b>", file_system(&tree(fill), 24 * MIB))]);
        image.given = text(0);
        image.name = Some(text(2));
        image.arch = Some(text(3));
        let package = Package { name: text(1), version: format!("{fill}{}", text(6)), architecture: text(4) };
        image.packages = Some(vec![package]);
        image
    };
    compare(&of(1), &of(2), &order).unwrap()
}

#[test]
fn strangers_names_are_shown_and_obeyed_nowhere() {
    let difference = hostile();
    assert_eq!(files(&difference).len(), 14);
    let text = diff::text(&difference, true);
    let page = diff::html(&difference, true);
    let unseen = |c: char| {
        (c.is_control() && c != '\n') || ('\u{2000}'..='\u{206f}').contains(&c) && c != '’' && c != '…'
    };
    for shown in [&text, &page] {
        assert!(
            !shown.contains(unseen),
            "{:?}",
            shown.chars().filter(|c| unseen(*c)).collect::<BTreeSet<_>>()
        );
        assert!(shown.contains("\\xff\\xfe invalid \\xc3"));
        assert!(shown.contains("\\xe2\\x80\\xae"));
    }
    // Every tag of the page is one of ours, with attributes of ours.
    let body = &page[page.find("</style>").unwrap()..];
    let mut tags = BTreeSet::new();
    for tag in body.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("a tag without an end: {tag}"));
        tags.insert(tag.split([' ', '\n']).next().unwrap().trim_start_matches('/').to_owned());
        assert!(!tag.contains("onerror") && !tag.contains("onmouseover"), "{tag}");
    }
    let known = [
        "b", "body", "code", "dd", "defs", "details", "div", "dl", "dt", "h1", "h2", "h3", "head", "html",
        "li", "p", "path", "pattern", "rect", "section", "span", "strong", "style", "summary", "svg",
        "table", "td", "th", "title", "tr", "ul",
    ];
    let strange: Vec<_> = tags.iter().filter(|tag| !known.contains(&tag.as_str())).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(page.contains("&lt;script&gt;alert(1)"));
    // JSON quotes for itself; its texts are the shown ones.
    let json = diff::json(&difference).to_string();
    assert!(json.contains("\\\\xff\\\\xfe invalid"), "{json}");
}

#[test]
fn what_is_said_of_two_images_is_what_the_goldens_hold() {
    let (a, b) = pair();
    let difference = compare(&a, &b, &order).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let json = serde_json::to_string_pretty(&diff::json(&difference)).unwrap() + "\n";
    for (name, said) in [
        ("pair.txt", diff::text(&difference, false)),
        ("pair.all.txt", diff::text(&difference, true)),
        ("pair.json", json),
        ("pair.html", diff::html(&difference, false)),
    ] {
        let path = folder.join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &said).unwrap();
            continue;
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = golden.lines().zip(said.lines()).position(|(before, now)| before != now);
        let at = differs.unwrap_or(golden.lines().count().min(said.lines().count()));
        let line = |text: &str| text.lines().nth(at).unwrap_or_default().to_owned();
        assert!(
            golden == said,
            "tests/golden/{name} is old from line {}: read the change, UPDATE_GOLDEN=1 writes it\n  {}\n  {}",
            at + 1,
            line(&golden),
            line(&said)
        );
    }
}
