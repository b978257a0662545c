//! The mistakes that people make, each tried with the real program. What it says, and its exit code, are in
//! docs/mistakes.md, which this test compares letter by letter. `UPDATE_MESSAGES=1 cargo test` writes what is said now;
//! the change is then there to be read. Nothing is baked; the cases about packages read the mirror's indexes, which the
//! cache of the user has when anything was baked today.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/mistakes.md");
/// What stands in the page for the folder that a case is tried in.
const HOME: &str = "/home/me";

struct Mistake {
    title: &'static str,
    files: &'static [(&'static str, &'static str)],
    /// What the program is given. `HOME` in it and in the files is the folder of the case.
    run: &'static str,
    /// Environment variables beside those of every case.
    set: &'static [(&'static str, &'static str)],
    /// Whether it needs the mirror.
    packages: bool,
}

const fn mistake(
    title: &'static str,
    files: &'static [(&'static str, &'static str)],
    run: &'static str,
) -> Mistake {
    Mistake { title, files, run, set: &[], packages: false }
}

/// A recipe that is only looked at.
macro_rules! recipe {
    ($title:literal, $text:literal $(, $name:literal: $content:literal)*) => {
        mistake($title, &[("web.yaml", $text) $(, ($name, $content))*], "validate web.yaml")
    };
}

/// A recipe whose packages are asked for.
macro_rules! packages {
    ($title:literal, $text:literal) => {
        Mistake {
            packages: true,
            ..mistake($title, &[("web.yaml", $text)], "bake web.yaml --arch x86_64 --no-check")
        }
    };
}

const LOCK: &str = "\
version = 1
time = \"2026-11-20T02:11:10Z\"

[writers]
\"disk\" = 1

[[source]]
role = \"main\"
suite = \"trixie\"
components = [\"main\"]
date = \"2026-09-12T07:55:41Z\"
sha256 = \"0584fba32e13e0ab8285fb16c27adea1ec03a73669c18702821094fd6ca86675\"

[arch.x86_64]
request = \"8ba21704688f761fce7e9d313772ebb406f6f09730e5b035265c53fe1974f928\"
packages = []
";

/// It fits [`PLAIN`], and names a parent.
const CHILD: &str = "\
version = 1
time = \"2026-11-20T02:11:10Z\"

[writers]

[[source]]
role = \"main\"
suite = \"trixie\"
components = [\"main\"]
date = \"2026-09-12T07:55:41Z\"
sha256 = \"0584fba32e13e0ab8285fb16c27adea1ec03a73669c18702821094fd6ca86675\"

[arch.x86_64]
request = \"01adc9acc2ef824e089d0ef4633775def42c054dae25e1930de68d35b75265f2\"
parent = \"1c3c7255c6043cc93098c65f8a1ba952130e1c779743ad826513b80323b88b49\"
layout = \"25aaa8735abaa0a132f3c10cb3db0dddbb05f50141c6bfcba9900bf2b82b45d4\"
packages = []
";

const PLAIN: &str = "name: web\narchitectures: [x86_64]\n";

const RECIPES: &[Mistake] = &[
    recipe!("A key that does not exist", "name: web\npakages: [apache2]\nnetwork: dhcp\n"),
    recipe!("Tabs", "name: web\npackages:\n\t- apache2\n"),
    recipe!(
        "A variable without quotes inside brackets",
        "name: web\nvars: {who: me}\npackages: [${{ who }}]\n"
    ),
    recipe!("A list where the recipe should be", "- name: web\n- packages: [apache2]\n"),
    recipe!("A key twice", "name: web\npackages: [apache2]\npackages: [cowsay]\n"),
    recipe!("No name", "packages: [apache2]\n"),
    recipe!("A key with a capital", "Name: web\n"),
    recipe!("A name with capitals and spaces", "name: My Web Server\n"),
    recipe!("A text where a list belongs", "name: web\npackages: apache2 cowsay\n"),
    recipe!("Yes and no", "name: web\nrecommends: yes\nimage: {ena: \"true\"}\n"),
    recipe!("An empty file", "# nothing yet\n"),
    recipe!("Two documents in one file", "name: web\n---\nname: db\n"),
    recipe!(
        "A misspelled variable",
        "name: web\nvars: {greeting: Hello}\ndescription: ${{ greting }} there\n"
    ),
    recipe!("Variables that need each other", "name: web\nvars: {a: \"${{ b }}\", b: \"${{ a }}\"}\n"),
    recipe!("A base that is elsewhere", "name: web\nextends: base/debian-13.yaml\n", "bases/debian-13.yaml": "name: base\n"),
    recipe!("A base that the program does not carry", "name: web\nextends: builtin:debian-11\n"),
    recipe!("A base that leads back", "name: web\nextends: base.yaml\n", "base.yaml": "name: base\nextends: web.yaml\n"),
    recipe!(
        "A mistake in a base, and one in the recipe",
        "name: web\nextends: base.yaml\nkernel: tiny\n",
        "base.yaml": "distribution: {suite: stable}\n"
    ),
    recipe!("Debian's names of architectures", "name: web\narchitectures: [amd64, arm64]\n"),
    recipe!("A release that is not there", "name: web\ndistribution: {suite: sid, components: [universe]}\n"),
    recipe!(
        "Package names of other package managers",
        "name: web\npackages: [Apache2, \"libc6:arm64\", httpd php, \"nginx=>1.2\"]\n"
    ),
    recipe!(
        "A package twice, and one dropped that nobody asked for",
        "name: web\npackages: [nginx=1.2, nginx=1.4, -apache2]\n"
    ),
    recipe!(
        "A login script that never runs",
        "name: web\nmotd:\n  40-cow.sh: |\n    /usr/games/cowsay moo\n"
    ),
    recipe!("A source that is not there", "name: web\nweb: {source: stie}\n", "site/index.html": "<h1>Hello</h1>\n"),
    recipe!(
        "A source outside the recipe's folder",
        "name: web\nfiles:\n  - {path: /etc/passwd, source: ../../etc/passwd}\n"
    ),
    recipe!(
        "Files with modes, paths and contents that cannot be",
        "name: web\nfiles:\n  - {path: etc/app.conf, content: a}\n  - {path: /a, content: a, mode: rw-r--r--}\n  - {path: /b}\n  - {path: /c, content: c, source: web.yaml}\n"
    ),
    recipe!(
        "A file below a file",
        "name: web\nfiles:\n  - {path: /etc/app, content: a}\n  - {path: /etc/app/app.conf, content: b}\n"
    ),
    recipe!(
        "A private key for a user",
        "name: web\nusers:\n  - name: me\n    authorized_keys: [\"-----BEGIN OPENSSH PRIVATE KEY-----\"]\n"
    ),
    recipe!(
        "Root, and a user with capitals",
        "name: web\nusers: [{name: root, sudo: true}, {name: Admin}]\n"
    ),
    recipe!(
        "A unit switched on and off",
        "name: web\nservices: {enable: [apache2], disable: [apache2.service]}\n"
    ),
    recipe!("A step without a script", "name: web\nrun:\n  - {name: tune}\n  - {name: \"\", script: \"\"}\n"),
    recipe!("Sizes in other units", "name: web\nvolumes: [{device: /dev/xvda, root: true, size: 8GB}]\n"),
    recipe!(
        "EC2's own words for a volume",
        "name: web\nvolumes:\n  - {DeviceName: /dev/xvda, VolumeSize: 8, VolumeType: gp3}\n"
    ),
    recipe!(
        "An NVMe device name",
        "name: web\nvolumes:\n  - {device: /dev/xvda, root: true}\n  - {device: /dev/nvme1n1, size: 1GiB}\n"
    ),
    recipe!(
        "Two roots",
        "name: web\nvolumes:\n  - {device: /dev/xvda, root: true}\n  - {device: /dev/sda1, root: true}\n"
    ),
    recipe!(
        "What EC2 refuses of volumes",
        "name: web\nvolumes:\n  - {device: /dev/xvda, root: true, type: st1, size: 200GiB}\n  - {device: /dev/xvdf, size: 10GiB, iops: 90000}\n  - {device: /dev/xvdg, size: 10GiB, type: io2}\n"
    ),
    recipe!(
        "A mounted volume without a file system",
        "name: web\nvolumes:\n  - {device: /dev/xvda, root: true}\n  - {device: /dev/xvdf, size: 1GiB, mount: /srv/data}\n"
    ),
    recipe!(
        "A volume that is too small for a file system",
        "name: web\nvolumes:\n  - {device: /dev/xvda, root: true, size: 64MiB}\n  - {device: /dev/xvdf, size: 4MiB, filesystem: ext4}\n"
    ),
    recipe!(
        "A volume over a folder that the machine needs",
        "name: web\nvolumes:\n  - {device: /dev/xvda, root: true}\n  - {device: /dev/xvdf, size: 1GiB, filesystem: ext4, mount: /usr}\n"
    ),
    recipe!(
        "Checks of what is not there",
        "name: web\nusers: [{name: me, sudo: true}]\nchecks:\n  - login: {user: ec2-user, contains: Hello}\n  - mount: {path: /data, device: /dev/xvdf}\n  - http: {port: 80000, contains: \"\"}\n"
    ),
    recipe!(
        "A login in a mirror's address",
        "name: web\ndistribution: {mirror: \"http://me:secret@mirror.example/debian\"}\n"
    ),
    recipe!("A tag that is AWS's own", "name: web\nimage: {tags: {\"aws:owner\": me}}\n"),
    recipe!(
        "A finding that is allowed without a reason",
        "name: web\nallow:\n  - {finding: private-key, file: /etc/ssl/private/site.key}\n"
    ),
    recipe!(
        "A finding that there is not",
        "name: web\nallow:\n  - {finding: privatekey, file: /etc/ssl/private/site.key, reason: a test key}\n"
    ),
];

const COMMANDS: &[Mistake] = &[
    mistake("A command that there is not", &[], "bkae web.yaml"),
    mistake("No recipe", &[], "bake"),
    mistake("A recipe that is not there", &[("hello-web.yaml", PLAIN)], "validate helo-web.yaml"),
    mistake("A folder for a recipe", &[("web/web.yaml", PLAIN)], "validate web"),
    mistake("An architecture that there is not", &[("web.yaml", PLAIN)], "bake web.yaml --arch arm64"),
    mistake(
        "An architecture that the recipe is not for",
        &[("web.yaml", PLAIN)],
        "bake web.yaml --arch aarch64",
    ),
    mistake("An option that there is not", &[("web.yaml", PLAIN)], "bake web.yaml --achr x86_64"),
    mistake("A variable without its value", &[("web.yaml", PLAIN)], "bake web.yaml --set greeting"),
    mistake(
        "A variable that the recipe does not have",
        &[("web.yaml", "name: web\nvars: {greeting: Hello}\n")],
        "validate web.yaml --set greting=Hi",
    ),
    mistake("The lock as it is, and renewed", &[("web.yaml", PLAIN)], "bake web.yaml --locked --update"),
    mistake("A firmware that there is not", &[("web.yaml", PLAIN)], "bake web.yaml --firmware efi"),
    mistake("A recipe to check, not what was baked", &[("web.yaml", PLAIN)], "check web.yaml"),
    mistake("A folder that holds no image", &[("out/notes.txt", "later\n")], "check out"),
    mistake("A manifest that is none", &[("out/image.json", "{\"format\": 2")], "verify out"),
    mistake("Images to compare that are nowhere", &[], "diff out/web/x86_64 web-1.0/x86_64/xvda"),
    mistake("Recipes to compare, not images", &[("web.yaml", PLAIN)], "diff web.yaml web.yaml"),
    mistake(
        "The folder above the images to compare",
        &[("out/web/x86_64/image.json", "{}\n"), ("out/web/aarch64/image.json", "{}\n")],
        "diff out/web out/web",
    ),
    mistake("A page in a folder that is not there", &[], "diff a.raw b.raw --html pages/diff.html"),
    mistake("A set of tools that there is not", &[], "tools --set qemu"),
];

const PLACES: &[Mistake] = &[
    mistake("No lock, and --locked", &[("web.yaml", PLAIN)], "bake web.yaml --arch x86_64 --locked"),
    mistake(
        "A lock that somebody edited",
        &[("web.yaml", PLAIN), ("web.lock", "version = 1\ntime = yesterday\n")],
        "bake web.yaml --arch x86_64",
    ),
    mistake(
        "A lock of a later program",
        &[("web.yaml", PLAIN), ("web.lock", "version = 9\n")],
        "bake web.yaml --arch x86_64",
    ),
    mistake(
        "A lock that does not fit the recipe",
        &[("web.yaml", PLAIN), ("web.lock", LOCK)],
        "bake web.yaml --arch x86_64 --locked",
    ),
    mistake(
        "A lock without the layout of its parent",
        &[("web.yaml", PLAIN), ("web.lock", CHILD)],
        "bake web.yaml --arch x86_64",
    ),
    mistake(
        "A parent that is nowhere",
        &[("web.yaml", PLAIN)],
        "bake web.yaml --arch x86_64 --parent out/web/x86_64",
    ),
    mistake(
        "A mirror that is not there",
        &[(
            "web.yaml",
            "name: web\narchitectures: [x86_64]\ndistribution: {mirror: \"file:///nowhere/debian\"}\n",
        )],
        "bake web.yaml --arch x86_64",
    ),
    mistake(
        "A mirror that nobody signed for",
        &[
            (
                "web.yaml",
                "name: web\narchitectures: [x86_64]\ndistribution: {mirror: \"file://HOME/debian\"}\n",
            ),
            ("debian/dists/trixie/InRelease", "Origin: Debian\nSuite: stable\nCodename: trixie\n"),
            ("debian/dists/trixie-updates/InRelease", "Origin: Debian\nSuite: stable\nCodename: trixie\n"),
            ("debian/dists/trixie-security/InRelease", "Origin: Debian\nSuite: stable\nCodename: trixie\n"),
        ],
        "bake web.yaml --arch x86_64",
    ),
    Mistake {
        set: &[("BAKEHOUSE_CACHE", "HOME/notes")],
        ..mistake(
            "A file where the cache should be",
            &[("web.yaml", PLAIN), ("notes", "later\n")],
            "bake web.yaml --arch x86_64",
        )
    },
    Mistake {
        set: &[("BAKEHOUSE_CACHE", ""), ("HOME", ""), ("XDG_CACHE_HOME", "")],
        ..mistake("Nowhere for the cache", &[("web.yaml", PLAIN)], "bake web.yaml --arch x86_64")
    },
];

const PACKAGES: &[Mistake] = &[
    packages!("Packages that do not exist", "name: web\npackages:\n  - apahce2\n  - httpd-tools-extra\n"),
    packages!(
        "A package of another component",
        "name: web\narchitectures: [x86_64]\npackages: [intel-microcode]\n"
    ),
    packages!("A version that is not there", "name: web\narchitectures: [x86_64]\npackages: [cowsay=1.0]\n"),
    packages!("A virtual package", "name: web\narchitectures: [x86_64]\npackages: [mail-transport-agent]\n"),
    packages!(
        "Packages that exclude each other",
        "name: web\narchitectures: [x86_64]\npackages: [postfix, exim4-daemon-light]\n"
    ),
    packages!(
        "A kernel that does not exist",
        "name: web\narchitectures: [x86_64]\nkernel: linux-image-clod-amd64\n"
    ),
];

/// What a case is and what came of it, as a part of the page.
fn tried(mistake: &Mistake, number: usize, cache: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().canonicalize().unwrap();
    let here = |text: &str| text.replace("HOME", home.to_str().unwrap());
    let mut part = format!("## {number}. {}\n\n", mistake.title);
    for (name, text) in mistake.files {
        let path = home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, here(text)).unwrap();
        let kind = if name.ends_with(".yaml") { "yaml" } else { "" };
        let shown = text.replace("HOME", HOME);
        let (name, end) = (format!("`{name}`:"), if text.ends_with('\n') { "" } else { "\n" });
        writeln!(part, "{name}\n\n```{kind}\n{shown}{end}```\n").unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
    command.args(mistake.run.split(' ')).current_dir(&home);
    for name in ["BAKEHOUSE_DEBIAN_MIRROR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "CLICOLOR_FORCE"] {
        if !mistake.packages {
            command.env_remove(name);
        }
    }
    let own = home.join("cache");
    command.env("BAKEHOUSE_STORE", home.join("store"));
    command.env("BAKEHOUSE_CACHE", if mistake.packages { cache } else { &own }).env("NO_COLOR", "1");
    command.envs(mistake.set.iter().map(|(name, value)| (name, here(value))));
    let output = command.output().unwrap();
    let mut said = String::from_utf8(output.stdout).unwrap();
    said += &String::from_utf8(output.stderr).unwrap();
    let said: String = said
        .lines()
        .filter(|line| !is_progress(line) && !is_of_the_user(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut said = said.replace(home.to_str().unwrap(), HOME);
    if mistake.packages {
        said = without_versions(&said);
    }
    let code = output.status.code().unwrap();
    let set: String =
        mistake.set.iter().map(|(name, value)| format!("{name}={} ", value.replace("HOME", HOME))).collect();
    writeln!(
        part,
        "```console\n$ {set}bakehouse {}\n{}\n```\n\nExit code {code}.\n",
        mistake.run,
        said.trim_end()
    )
    .unwrap();
    assert!(code == 1 || code == 2, "{}: exit code {code}\n{said}", mistake.title);
    assert!(!said.contains("panicked"), "{}: {said}", mistake.title);
    part
}

/// What a user with one id is told, whatever the mistake is.
fn is_of_the_user(line: &str) -> bool {
    line.starts_with("note: this user has one id only")
}

/// A line such as `[    0.0 s] lock …`.
fn is_progress(line: &str) -> bool {
    line.strip_prefix('[')
        .and_then(|rest| rest.split_once(" s] "))
        .is_some_and(|(time, _)| time.trim().bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// A text with `…` in place of versions of packages, which are others every week.
fn without_versions(text: &str) -> String {
    let version = |word: &str| {
        let word = word.trim_end_matches([',', ')', ';', ':']);
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.contains(['.', '-'])
            && !word.starts_with("1.0")
    };
    let word = |word: &str| match version(word) {
        true => format!("…{}", &word[word.trim_end_matches([',', ')', ';', ':']).len()..]),
        false => word.to_owned(),
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(|text| line(text) + "\n").collect()
}

/// What of a page is compared: where packages are asked for, advice about names and places is the archive's, which
/// changes; the program's own words about it are compared by the tests of the room that says them.
fn comparable(page: &str) -> String {
    let packages = PACKAGES.iter().map(|mistake| mistake.title).collect::<Vec<_>>();
    let mut archive = false;
    let mut kept = String::new();
    for line in page.lines() {
        if let Some((_, title)) = line.strip_prefix("## ").and_then(|line| line.split_once(". ")) {
            archive = packages.contains(&title);
        }
        if !(archive && line.trim_start().starts_with("= ")) {
            writeln!(kept, "{line}").unwrap();
        }
    }
    kept
}

/// The cache of the user, so that nothing is fetched twice.
fn user_cache() -> PathBuf {
    let named = |name, below| {
        std::env::var_os(name).filter(|value| !value.is_empty()).map(|folder| Path::new(&folder).join(below))
    };
    named("BAKEHOUSE_CACHE", "")
        .or(named("XDG_CACHE_HOME", "bakehouse"))
        .or(named("HOME", ".cache/bakehouse"))
        .expect("HOME or BAKEHOUSE_CACHE")
}

#[test]
fn every_mistake_is_told_as_the_page_shows() {
    let cache = user_cache();
    let all: Vec<&Mistake> = [RECIPES, COMMANDS, PLACES, PACKAGES].into_iter().flatten().collect();
    assert!(all.len() >= 40);
    let mut page = format!(
        "# {} mistakes, and what the program says\n\nWritten by `crates/cli/tests/mistakes.rs`, which tries each of them with \
         the real program and compares. Versions of\npackages are left out. Exit code 2 is a mistake of whoever calls it, 1 a \
         job that failed.\n\n",
        all.len()
    );
    for (number, mistake) in (1..).zip(all) {
        page += &tried(mistake, number, &cache);
    }
    let page = page.trim_end().to_owned() + "\n";
    if std::env::var_os("UPDATE_MESSAGES").is_some() {
        fs::write(PAGE, &page).unwrap();
        return;
    }
    let committed = comparable(&fs::read_to_string(PAGE).unwrap_or_default());
    let page = comparable(&page);
    let differs = page.lines().zip(committed.lines()).position(|(now, before)| now != before);
    let at = differs.unwrap_or_else(|| page.lines().count().min(committed.lines().count()));
    let around = |text: &str| text.lines().skip(at.saturating_sub(8)).take(24).collect::<Vec<_>>().join("\n");
    assert!(
        page == committed,
        "docs/mistakes.md is old from line {}: run `cargo xtask generate` and read the change\n--- page\n{}\n--- said\n{}",
        at + 1,
        around(&committed),
        around(&page)
    );
}
