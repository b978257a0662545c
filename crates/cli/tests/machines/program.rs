//! The program as a user meets it: outputs, messages, exit codes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use block::Hasher;
use serde_json::{Value, json};

use crate::house::{ESP, House, Image, ROOT, partition, succeeds, text, within};
use crate::shapes::assert_documented;

pub(crate) fn bake(house: &House) {
    let image = house.hello(&[]);
    let told: Value = serde_json::from_str(&image.json).unwrap();
    assert_documented("bakehouse bake", &told);
    assert_eq!((&told["name"], &told["arch"]), (&"hello-web-1.0.0".into(), &"x86_64".into()));
    let volume = &told["volumes"][0];
    assert_eq!(volume["device"], "/dev/xvda");
    let size = fs::metadata(volume["raw"].as_str().unwrap()).unwrap().len();
    assert_eq!(volume["size"], size);
    assert_eq!(size, 4 << 30);
    let checks = told["checks"].as_array().unwrap();
    for firmware in ["bios", "uefi", "nitro"] {
        let names = checks.iter().filter(|check| check["firmware"] == firmware).map(|check| {
            assert_eq!(check["ok"], true, "{check:#}");
            if check["name"] == "boot" {
                println!(
                    "      {firmware}: {} after {:.0} s",
                    check["detail"],
                    check["seconds"].as_f64().unwrap()
                );
            }
            check["name"].as_str().unwrap()
        });
        let expected = [
            "boot",
            "cloud-init",
            "system",
            "http :80/",
            "login ec2-user",
            "ssh systemctl is-active apache2",
        ];
        assert_eq!(names.collect::<Vec<_>>(), expected, "{firmware}");
    }
    let logs = ["console-bios.log", "console-uefi.log", "console-nitro.log"];
    for file in ["image.json", "checks.json"].into_iter().chain(logs) {
        assert!(image.out.join(file).is_file(), "{file}");
    }
    // In a pipe there are plain lines with times, without anything that moves a cursor.
    assert!(
        image.progress.lines().any(|line| line.starts_with("[ ") && line.contains(" s] root file system"))
    );
    assert!(!image.progress.contains(['\u{1b}', '\r']), "{}", image.progress);
}

pub(crate) fn in_store(house: &House) {
    let image = house.hello(&["--no-check"]);
    let told: Value = serde_json::from_str(&image.json).unwrap();
    let volume = &told["volumes"][0];
    let registration: Value =
        serde_json::from_slice(&fs::read(image.out.join("register-image.json")).unwrap()).unwrap();
    let id = volume["snapshot_id"].as_str().unwrap();
    assert_eq!(registration["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"], id);
    let told = |command: &str, arguments: &[&OsStr]| -> Value {
        let all: Vec<&OsStr> = [&[command.as_ref(), "--json".as_ref()], arguments].concat();
        let output = house.bakehouse(&all).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let store = |arguments: &[&str]| told("store", &arguments.iter().map(OsStr::new).collect::<Vec<_>>());
    let listed = store(&["ls"]);
    let ours =
        listed["snapshots"].as_array().unwrap().iter().find(|entry| entry["snapshot_id"] == id).unwrap();
    assert_eq!(ours["name"], "hello-web-1.0.0/x86_64/xvda");
    assert_eq!((&ours["size"], &ours["blocks"]), (&volume["size"], &volume["blocks"]));
    let file = house.folder("from the store").join("disk.raw");
    store(&["get", id, file.to_str().unwrap()]);
    assert_eq!(digest(&file), digest(&image.disk()));
    let verified = store(&["verify"]);
    assert_eq!((&verified["damaged"], &verified["lies"]), (&json!([]), &json!([])), "{verified:#}");
    fs::remove_file(file).unwrap();

    // What it left can be registered as it stands.
    let name: &OsStr = "a registered web".as_ref();
    let image_id = told("image", &["register".as_ref(), image.out.as_ref(), "--name".as_ref(), name]);
    let shown = told("image", &["show".as_ref(), name]);
    assert_eq!(shown["Images"][0]["ImageId"], image_id["ImageId"]);
    assert_eq!(shown["Images"][0]["BlockDeviceMappings"], registration["BlockDeviceMappings"]);
    told("image", &["deregister".as_ref(), name]);
}

pub(crate) fn same_bytes(house: &House) {
    let first = house.hello(&["--no-check"]);
    let elsewhere = house.recipes("another place/with other names");
    fs::copy(first.recipe.with_extension("lock"), elsewhere.join("hello-web.lock")).unwrap();
    let cache = house.folder("another cache");
    symlink(house.cache.join("downloads"), cache.join("downloads")).unwrap();
    let out = house.folder("another out");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "umask 077; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_bakehouse"), "bake", "--locked"]);
    command.args(["--no-check", "--out"]).arg(&out).arg("hello-web.yaml").current_dir(&elsewhere);
    command.env("BAKEHOUSE_STORE", house.folder("another store"));
    command.env("BAKEHOUSE_CACHE", &cache).env("TZ", "Asia/Tokyo").env("LC_ALL", "de_DE.UTF-8");
    let started = Instant::now();
    let output = command.env("RAYON_NUM_THREADS", "1").output().unwrap();
    println!("      the second bake took {:.0} s", started.elapsed().as_secs_f64());
    assert!(output.status.success(), "{}", text(&output.stderr));

    let (one, other) = (first.disk(), out.join("xvda.raw"));
    if let Some(offset) = first_difference(&one, &other) {
        panic!("the disks differ from byte {offset} on: {}", owner(&one, offset));
    }
    let manifest = |folder: &Path| fs::read_to_string(folder.join("image.json")).unwrap();
    assert_eq!(manifest(&first.out), manifest(&out));
}

/// A root that the store keeps gives the same bytes as one that is made anew; a changed line costs its blocks alone; outputs
/// that are in their places stay there, and are made again when somebody touched one.
pub(crate) fn kept_from_bake_to_bake(house: &House) {
    let first = house.hello(&["--no-check"]);
    let folder = house.recipes("kept");
    let recipe = folder.join("hello-web.yaml");
    fs::copy(first.recipe.with_extension("lock"), folder.join("hello-web.lock")).unwrap();
    let bake = |options: &[&str]| {
        let image = house.bake(&recipe, &[&["--no-check", "--locked"], options].concat());
        let told: serde_json::Value = serde_json::from_str(&image.json).unwrap();
        let stages = told["stages"].as_array().unwrap().clone();
        let cached = |name: &str| {
            let stage = stages.iter().find(|stage| stage["name"] == name);
            stage.map(|stage| stage["cached"].as_bool().unwrap())
        };
        let root = cached("root file system");
        (image, root, cached("outputs"), told["volumes"][0]["new_blocks"].as_u64().unwrap())
    };
    let (changed, root, outputs, new) = bake(&["--set", "greeting=Another greeting"]);
    assert_eq!((root, outputs), (Some(true), None), "{}", changed.progress);
    assert!((1..=4).contains(&new), "{new} blocks are new");
    assert!(first_difference(&first.disk(), &changed.disk()).is_some());
    // Most of this one is copied from the one before it.
    let (again, root, outputs, new) = bake(&[]);
    assert_eq!((root, outputs, new), (Some(true), None, 0), "{}", again.progress);
    if let Some(offset) = first_difference(&first.disk(), &again.disk()) {
        panic!("kept and made anew differ from byte {offset} on: {}", owner(&again.disk(), offset));
    }
    assert_eq!(
        fs::read(first.out.join("xvda.vmdk")).unwrap(),
        fs::read(again.out.join("xvda.vmdk")).unwrap()
    );
    let (_, root, outputs, _) = bake(&[]);
    assert_eq!((root, outputs), (None, Some(true)));
    let disk = File::options().write(true).open(again.disk()).unwrap();
    disk.write_all_at(b"touched", 3 << 30).unwrap();
    drop(disk);
    let (mended, _, outputs, _) = bake(&[]);
    assert_eq!(outputs, None);
    assert_eq!(first_difference(&first.disk(), &mended.disk()), None);
}

fn first_difference(one: &Path, other: &Path) -> Option<u64> {
    let (one, other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let len = one.metadata().unwrap().len();
    assert_eq!(len, other.metadata().unwrap().len());
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for offset in (0..len).step_by(1 << 20) {
        let count = (len - offset).min(1 << 20) as usize;
        one.read_exact_at(&mut left[..count], offset).unwrap();
        other.read_exact_at(&mut right[..count], offset).unwrap();
        if left[..count] != right[..count] {
            let at = left.iter().zip(&right).position(|(left, right)| left != right).unwrap();
            return Some(offset + at as u64);
        }
    }
    None
}

/// Who has this byte of a disk.
fn owner(disk: &Path, offset: u64) -> String {
    let inside = |number| {
        let part = partition(disk, number);
        (part.offset..part.offset + part.len).contains(&offset)
    };
    if inside(ESP) {
        return "in the EFI system partition".into();
    }
    if !inside(ROOT) {
        return "outside the file systems".into();
    }
    let start = partition(disk, ROOT).offset;
    let debugfs = |request: &str| succeeds("debugfs", &["-R", request, &within(disk, start)]);
    let found = debugfs(&format!("icheck {}", (offset - start) / 4096));
    let inode = found.lines().last().and_then(|line| line.split_whitespace().last()).unwrap_or_default();
    format!("in the root file system: {found}{}", debugfs(&format!("ncheck {inode}")))
}

fn digest(path: &Path) -> String {
    let (mut file, mut hasher, mut buffer) = (File::open(path).unwrap(), Hasher::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hasher.finish().to_hex(),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// A copy of the example's disk that takes no room where the disk has holes.
fn copy_disk(house: &House, name: &str) -> PathBuf {
    copy_image(house, house.hello(&["--no-check"]), name)
}

/// A folder with a copy of an image's root disk and manifest.
pub(crate) fn copy_image(house: &House, image: &Image, name: &str) -> PathBuf {
    let copy = house.folder(name);
    fs::copy(image.out.join("image.json"), copy.join("image.json")).unwrap();
    let disk = formats::RawFile::open(&image.disk()).unwrap();
    formats::write_raw(&disk, &copy.join("xvda.raw"), &|_| {}).unwrap();
    copy
}

fn check(house: &House, folder: &Path, firmware: &str) -> (Output, Value) {
    let arguments =
        ["check".as_ref(), folder.as_os_str(), "--firmware".as_ref(), firmware.as_ref(), "--json".as_ref()];
    let started = Instant::now();
    let output = house.bakehouse(&arguments).output().unwrap();
    println!(
        "      {} boots by {firmware}, {:.0} s in all",
        folder.display(),
        started.elapsed().as_secs_f64()
    );
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", text(&output.stdout), text(&output.stderr)));
    assert_documented("bakehouse check", &told);
    (output, told)
}

pub(crate) fn failing_check(house: &House) {
    let copy = copy_disk(house, "other words");
    let manifest = copy.join("image.json");
    let changed =
        fs::read_to_string(&manifest).unwrap().replace("<h1>Hello from My Custom AMI!</h1>", "<h1>Moin</h1>");
    fs::write(&manifest, changed).unwrap();
    let before = digest(&copy.join("xvda.raw"));
    let (output, told) = check(house, &copy, "bios");
    assert_eq!(output.status.code(), Some(1));
    for check in told["checks"].as_array().unwrap() {
        let wrong = check["name"] == "http :80/";
        assert_eq!(check["ok"], !wrong, "{check:#}");
        let detail = check["detail"].as_str().unwrap();
        assert!(
            !wrong || detail.contains("<h1>Moin</h1>") && detail.contains("Hello from My Custom AMI!"),
            "{detail}"
        );
    }
    assert!(text(&output.stderr).contains("FAIL bios  http :80/"), "{}", text(&output.stderr));
    assert_eq!(digest(&copy.join("xvda.raw")), before);
}

/// A volume ten times as large as the image: what boots fills it, before anybody logs in.
pub(crate) fn grows(house: &House, arch: &str) {
    let recipe = house.recipes("grows").join(format!("grows-{arch}.yaml"));
    let size = "df --output=size --block-size=MiB / | tail -n 1 | tr -dc 0-9";
    let lines = format!(
        "name: grows\nextends: base/debian-13.yaml\narchitectures: [{arch}]\n\
         volumes: [{{device: /dev/xvda, root: true, size: 4GiB, type: gp3}}]\n\
         checks: [{{ssh: {{user: ec2-user, run: 'test $({size}) -gt 39000 && echo grown', contains: grown}}}}]\n"
    );
    fs::write(&recipe, lines).unwrap();
    let image = house.bake(&recipe, &["--arch", arch, "--no-check"]);
    File::options().write(true).open(image.disk()).unwrap().set_len(40 << 30).unwrap();
    let (output, told) = check(house, &image.out, "nitro");
    assert!(output.status.success(), "{told:#}\n{}", text(&output.stderr));
}

pub(crate) fn no_boot(house: &House) {
    let copy = copy_disk(house, "no kernel");
    let disk = copy.join("xvda.raw");
    let root = within(&disk, partition(&disk, ROOT).offset);
    let kernel = succeeds("debugfs", &["-R", "ls -p /boot", &root]);
    let kernel = kernel.split('/').find(|name| name.starts_with("vmlinuz-")).unwrap();
    succeeds("debugfs", &["-w", "-R", &format!("rm /boot/{kernel}"), &root]);
    let before = digest(&disk);
    let (output, told) = check(house, &copy, "bios");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(digest(&disk), before);
    let [boot] = &told["checks"].as_array().unwrap()[..] else { panic!("{told:#}") };
    let detail = boot["detail"].as_str().unwrap();
    assert_eq!((&boot["name"], &boot["ok"]), (&"boot".into(), &false.into()), "{boot:#}");
    println!("      {}", detail.replace('\n', "\n      "));
    assert!(detail.contains("stopped at the boot loader") && detail.contains(kernel), "{detail}");
    assert!(text(&output.stderr).contains(detail.lines().next().unwrap()), "{}", text(&output.stderr));
}

/// What the program says to a user's mistake; nothing may be left in the folder of outputs.
fn mistake(house: &House, folder: &Path, recipe: &str, options: &[&str]) -> String {
    let (out, recipe) = (folder.join("out"), folder.join(recipe));
    let mut arguments: Vec<&OsStr> = vec!["bake".as_ref(), recipe.as_ref(), "--out".as_ref(), out.as_ref()];
    arguments.extend(options.iter().map(OsStr::new));
    let output = house.bakehouse(&arguments).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty() && !said.contains("panicked"), "{said}");
    assert!(!out.exists(), "{:?}", fs::read_dir(&out).unwrap().collect::<Vec<_>>());
    said
}

pub(crate) fn mistakes(house: &House) {
    let folder = house.recipes("mistakes");
    let write =
        |name: &str, rest: &str| fs::write(folder.join(name), format!("name: wrong\n{rest}")).unwrap();
    write("key.yaml", "extends: hello-web.yaml\npakages: [vim]\n");
    write("package.yaml", "extends: hello-web.yaml\npackages:\n  - apache22\n");
    write("kernel.yaml", "extends: hello-web.yaml\nkernel: linux-image-6.12.1-nowhere\n");
    for (recipe, options, expected) in [
        ("key.yaml", &[][..], &["key.yaml:3:1", "pakages", "packages"][..]),
        ("package.yaml", &[], &["package.yaml:4:5", "apache22", "did you mean apache2"]),
        ("kernel.yaml", &[], &["linux-image-6.12.1-nowhere"]),
        ("hello-web.yaml", &["--locked"], &["hello-web.lock", "there is no lock yet"]),
        ("gone.yaml", &[], &["gone.yaml"]),
    ] {
        let said = mistake(house, &folder, recipe, options);
        let message = said.lines().skip_while(|line| line.starts_with('['));
        message.for_each(|line| println!("      {line}"));
        for text in expected {
            assert!(said.contains(text), "{recipe}: no `{text}` in:\n{said}");
        }
    }
    let output = house.bakehouse(&["check".as_ref(), folder.as_os_str()]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("bakehouse bake"), "{said}");
    assert!(!folder.join("checks.json").exists());
}

pub(crate) fn too_small(house: &House) {
    let folder = house.folder("too small");
    let recipe = "name: small\narchitectures: [x86_64]\ndistribution: {family: debian, suite: trixie}\n\
                  volumes:\n  - {device: /dev/xvda, root: true, size: 300MiB}\n";
    fs::write(folder.join("small.yaml"), recipe).unwrap();
    let said = mistake(house, &folder, "small.yaml", &[]);
    for text in ["small.yaml:5:", "/dev/xvda is too small for its content", "300 MiB", "MiB are needed"] {
        assert!(said.contains(text), "no `{text}` in:\n{said}");
    }
}
