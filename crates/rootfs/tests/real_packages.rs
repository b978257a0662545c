//! Bakes a root file system from real packages, twice, and looks whether it is the same and fit to be shared.
//!
//! `BAKEHOUSE_TEST_DEBS` names a folder with the .deb files of a whole amd64 image: the essential packages,
//! `rootfs::boot_packages` and what the recipe below asks for, with all that they depend on. Without it the test says
//! that it is skipped. `BAKEHOUSE_TEST_REFERENCE` may name a folder into which mmdebstrap has installed the same
//! files: the differences to it are printed, and one that is not explained below fails the test.
#![allow(clippy::print_stderr, reason = "a test program without a harness reports by itself")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use block::derived_uuid;
use rootfs::{Boot, Built, DifferenceKind, PackageFile, Request};
use tree::{Node, Tree, TreePath};

const RECIPE: &str = r#"
name: hello-web
architectures: [x86_64]
distribution: {family: debian, suite: trixie}
packages: [apache2, cowsay, cloud-init, cloud-guest-utils, openssh-server, sudo, amazon-ec2-utils, systemd-resolved, iproute2]
motd:
  40-cow: |
    #!/bin/sh
    /usr/games/cowsay Hello
web:
  root: /var/www/html
  index.html: <h1>Hello</h1>
files:
  - {path: /etc/app.conf, content: "x = 1\n", mode: "0640", owner: root, group: adm}
users:
  - {name: ec2-user, groups: [adm], sudo: true, shell: /bin/bash, authorized_keys: []}
services: {enable: [apache2], disable: []}
run:
  - {name: note, script: "date -u -d @$SOURCE_DATE_EPOCH > /etc/baked"}
volumes:
  - {device: /dev/xvda, root: true, size: 4GiB, type: gp3}
"#;

/// Later than every package: the tree must not depend on it.
const TIME: i64 = 4_000_000_000;

/// Paths at and below which the reference may differ, and why.
const EXPLAINED: [(&str, &str); 34] = [
    ("boot/efi", "mount point of the EFI system partition"),
    ("boot/grub", "mmdebstrap installs no boot loader"),
    ("boot/initrd.img-", "its time is the kernel's"),
    ("dev", "mmdebstrap makes device nodes; udev makes them at boot"),
    ("etc/.pwd.lock", "left by account tools"),
    ("etc/.resolv.conf.systemd-resolved.bak", "the baking machine's resolv.conf"),
    ("etc/app.conf", "the recipe's"),
    ("etc/apt/sources.list.d", "other mirror, other file name"),
    ("etc/baked", "the recipe's"),
    ("etc/cloud/cloud.cfg.d/90_default-user.cfg", "the recipe's user"),
    ("etc/default/grub.d/50_bakehouse.cfg", "the image's boot loader settings"),
    ("etc/fstab", "the image's"),
    ("etc/group", "the recipe's user; a backup is not kept"),
    ("etc/grub.d/enable_cloud", "grub-cloud's switch"),
    ("etc/gshadow", "the recipe's user; a backup is not kept"),
    ("etc/hostname", "the baking machine's"),
    ("etc/hosts", "the baking machine's"),
    ("etc/passwd", "the recipe's user; a backup is not kept"),
    ("etc/shadow", "the recipe's user, the day of the last change; a backup is not kept"),
    ("etc/ssh/ssh_host_", "keys are made at first boot"),
    ("etc/subgid", "the recipe's user"),
    ("etc/subuid", "the recipe's user"),
    ("etc/sudoers.d/90-ec2-user", "the recipe's user"),
    ("etc/systemd/system/default.target", "the image's"),
    ("etc/update-motd.d/40-cow", "the recipe's"),
    ("home/ec2-user", "the recipe's user"),
    ("run", "empty before boot"),
    ("var/cache/apt", "apt's lock"),
    ("var/cache/debconf", "backups are not kept"),
    ("var/lib/apt", "apt's lock; the order of the auto marks"),
    ("var/lib/dpkg/diversions-old", "backups are not kept"),
    ("var/lib/dpkg/status-old", "backups are not kept"),
    ("var/lib/dpkg/triggers/File", "the order in which packages were unpacked"),
    ("var/www/html/index.html", "the recipe's"),
];

fn main() -> ExitCode {
    let Some(debs) = std::env::var_os("BAKEHOUSE_TEST_DEBS") else {
        eprintln!("SKIPPED: real_packages: BAKEHOUSE_TEST_DEBS names no folder of .deb files");
        return ExitCode::SUCCESS;
    };
    match sandbox::enter().map_err(|error| error.to_string()).and_then(|_| run(Path::new(&debs))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("FAILED: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(debs: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let folder = tempfile::tempdir().map_err(|error| text(&error))?;
    let recipe_path = folder.path().join("hello-web.yaml");
    std::fs::write(&recipe_path, RECIPE).map_err(|error| text(&error))?;
    let recipe =
        recipe::load(&recipe_path, &recipe::LoadOptions::default()).map_err(|error| format!("{error:?}"))?;
    let recipe = recipe.for_arch(recipe::Arch::X86_64).map_err(|error| format!("{error:?}"))?;
    let packages = packages(debs, &recipe)?;
    let bake = |name: &str| -> Result<(PathBuf, Built), String> {
        let work = folder.path().join(name);
        std::fs::create_dir(&work).map_err(|error| text(&error))?;
        let root_uuid = derived_uuid(&recipe.name, "/dev/xvda", "root");
        let boot = Boot { root_uuid, esp_id: 0x1234_abcd, mounts: Vec::new() };
        let request =
            Request { recipe: &recipe, packages: &packages, time: TIME, work: &work, boot, progress: &() };
        let built = rootfs::build(&request).map_err(|error| text(&error))?;
        for stage in &built.report.stages {
            eprintln!("{name}: {:7.2} s {}", stage.seconds, stage.name);
        }
        Ok((work.join("root"), built))
    };
    let (root, first) = bake("first")?;
    let (_, second) = bake("a-second-folder-with-a-longer-name")?;
    let differences = rootfs::compare(&first.tree, &second.tree);
    if !differences.is_empty() || first.esp != second.esp || first.bios != second.bios {
        let shown: Vec<_> = differences.iter().take(20).map(ToString::to_string).collect();
        return Err(format!("two bakes differ:\n{}", shown.join("\n")));
    }
    eprintln!("ok: two bakes in two folders are the same: {} entries", first.tree.len());
    fit_to_share(&first.tree)?;
    eprintln!("ok: nothing in it that must not be shared");
    if let Some(reference) = std::env::var_os("BAKEHOUSE_TEST_REFERENCE") {
        let baked = rootfs::scan(&root).map_err(|error| text(&error))?;
        let reference = rootfs::scan(Path::new(&reference)).map_err(|error| text(&error))?;
        compare_with(&baked, &reference)?;
    }
    Ok(())
}

fn packages(debs: &Path, recipe: &recipe::Recipe) -> Result<Vec<PackageFile>, String> {
    let mut wanted = rootfs::boot_packages(recipe.arch, &recipe.kernel);
    wanted.extend(recipe.packages.iter().map(|package| package.name.clone()));
    let mut packages = Vec::new();
    for entry in std::fs::read_dir(debs).map_err(|error| format!("{}: {error}", debs.display()))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.extension().is_none_or(|extension| extension != "deb") {
            continue;
        }
        let control =
            debian::deb::open(&path).and_then(|mut deb| deb.control()).map_err(|error| error.to_string())?;
        let field = |name: &str| control.fields.get(name).unwrap_or_default().trim().to_owned();
        let name = field("Package");
        packages.push(PackageFile {
            auto: !wanted.contains(&name),
            name,
            version: field("Version"),
            architecture: field("Architecture"),
            path,
        });
    }
    Ok(packages)
}

fn fit_to_share(tree: &Tree) -> Result<(), String> {
    let get = |path: &str| TreePath::new(path.as_bytes()).ok().and_then(|path| tree.get(&path).cloned());
    match get("etc/machine-id").map(|entry| entry.node) {
        Some(Node::File(content)) if content.is_empty() => {}
        other => return Err(format!("/etc/machine-id is not empty: {other:?}")),
    }
    for (path, entry) in tree.iter() {
        let name = path.to_string();
        let bad = name.starts_with("etc/ssh/ssh_host_")
            || name.ends_with(".dpkg-new")
            || name.ends_with("-old") && name.starts_with("var/lib/dpkg/")
            || name.starts_with("usr/sbin/policy-rc.d")
            || matches!(entry.node, Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Socket);
        if bad {
            return Err(format!("/{name} must not be in an image"));
        }
    }
    let status = read(tree, "var/lib/dpkg/status")?;
    if let Some(line) =
        status.lines().find(|line| line.starts_with("Status: ") && *line != "Status: install ok installed")
    {
        return Err(format!("a package is left half way: {line}"));
    }
    let grub = read(tree, "boot/grub/grub.cfg")?;
    if !grub.contains("linux\t/boot/vmlinuz-") || !grub.contains("initrd\t/boot/initrd.img-") {
        return Err("grub.cfg does not name kernel and initrd as the machine sees them".into());
    }
    let shadow = read(tree, "etc/shadow")?;
    match shadow.lines().find(|line| line.starts_with("root:")).and_then(|line| line.split(':').nth(1)) {
        Some("*" | "!" | "!*") => Ok(()),
        other => Err(format!("root has a password: {other:?}")),
    }
}

fn read(tree: &Tree, path: &str) -> Result<String, String> {
    match TreePath::new(path.as_bytes()).ok().and_then(|path| tree.get(&path)).map(|entry| &entry.node) {
        Some(Node::File(content)) => {
            let bytes = content.read_all().map_err(|error| error.to_string())?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        other => Err(format!("/{path} is no file: {other:?}")),
    }
}

fn compare_with(baked: &Tree, reference: &Tree) -> Result<(), String> {
    let mut unexplained = 0;
    for difference in rootfs::compare(baked, reference) {
        if matches!(difference.kind, DifferenceKind::Time(..)) {
            continue;
        }
        let path = difference.path.to_string();
        let why = EXPLAINED.iter().find(|(prefix, _)| path.starts_with(prefix)).map(|(_, why)| *why);
        unexplained += usize::from(why.is_none());
        eprintln!("{}{difference}", why.map_or("UNEXPLAINED ".to_owned(), |why| format!("({why}) ")));
    }
    if unexplained > 0 {
        Err(format!("{unexplained} differences to the reference are not explained"))
    } else {
        Ok(())
    }
}
