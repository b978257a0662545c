//! `diff` on small images that the house's own writers made.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use block::{BlockMap, BlockSource, MIB, Origin};
use disk::{Partition, PartitionKind, Plan};
use ext4::{Options, SimplePlacement};
use serde_json::{Value, json as value};
use tree::{Entry, Tree, TreePath};

use crate::shapes::assert_documented;
use crate::{json, run, text};

/// A disk of one root partition with dpkg's database and a page.
fn disk(page: &str, curl: &str) -> BlockMap {
    let path = |text: &str| TreePath::new(text.as_bytes()).unwrap();
    let mut tree = Tree::new(Entry::directory(0o755));
    for folder in ["var", "var/lib", "var/lib/dpkg", "var/www"] {
        tree.insert(path(folder), Entry::directory(0o755));
    }
    let status = format!(
        "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: {curl}\n\n\
         Package: tzdata\nStatus: install ok installed\nArchitecture: all\nVersion: 2026b-0\n"
    );
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, bytes) in [
        ("var/lib/dpkg/status", status.into_bytes()),
        ("var/www/index.html", page.into()),
        ("var/large", large),
    ] {
        tree.insert(path(name), Entry::file(0o644, bytes, Origin::Configured));
    }
    let options = Options { time: 1_700_000_000, ..Options::new(30 * MIB, [1; 16]) };
    let content = ext4::write(&tree, &options, &SimplePlacement).unwrap();
    let root = Partition {
        number: 1,
        kind: PartitionKind::LinuxRootX86_64,
        name: "root".to_owned(),
        uuid: [2; 16],
        size: None,
        content,
    };
    disk::gpt(&Plan { size: 32 * MIB, disk_uuid: [3; 16], partitions: vec![root] }, None).unwrap()
}

fn write_raw(disk: &BlockMap, path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(disk.len()).unwrap();
    for extent in disk.extents() {
        let mut bytes = vec![0; extent.len as usize];
        extent.content.read_at(extent.content_offset, &mut bytes).unwrap();
        file.write_all_at(&bytes, extent.offset).unwrap();
    }
}

/// A folder as a bake leaves it.
fn write_image(folder: &Path, name: &str, arch: &str, page: &str, curl: &str) {
    fs::create_dir_all(folder).unwrap();
    let disk = disk(page, curl);
    write_raw(&disk, &folder.join("xvda.raw"));
    let blocks = block::block_ids(&disk).unwrap();
    let digest = block::snapshot_digest(disk.len(), blocks.iter().copied()).to_hex();
    let volume = |device: &str, raw: Option<&str>, digest: Option<&str>| {
        value!({
            "device": device, "root": raw.is_some(), "raw": raw, "vmdk": null, "size": disk.len(), "data_bytes": 1,
            "blocks": blocks.len(), "digest": digest, "checksum": null, "filesystem": null, "label": null, "mount": null,
        })
    };
    let packages = [("curl", curl), ("tzdata", "2026b-0")]
        .map(|(name, version)| value!({"name": name, "version": version, "architecture": "all"}));
    let manifest = value!({
        "format": 2, "name": name, "arch": arch, "description": null, "account": "000000000000", "region": "local",
        "default_user": null, "boot_mode": "uefi", "firmware": ["uefi"], "lock": "", "time": 0, "writers": {},
        "deflate": {"library": "a", "version": "1", "level": 1}, "packages": packages, "checks": [],
        "volumes": [volume("/dev/xvda", Some("xvda.raw"), Some(&digest)), volume("/dev/xvdb", None, None)],
    });
    fs::write(folder.join("image.json"), manifest.to_string()).unwrap();
}

fn pair() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_image(&folder.path().join("out/web-1/x86_64"), "web-1", "x86_64", "<h1>One</h1>", "8.14.1-2");
    write_image(&folder.path().join("out/web-2/x86_64"), "web-2", "x86_64", "<h1>Two</h1>", "8.14.1-10");
    folder
}

const A: &str = "out/web-1/x86_64";
const B: &str = "out/web-2/x86_64";

fn told(folder: &Path, arguments: &[&str]) -> Value {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    json(&output)
}

#[test]
fn two_bakes_differ_in_what_was_changed_between_them() {
    let folder = pair();
    let told = told(folder.path(), &["diff", A, B, "--json"]);
    assert_documented("bakehouse diff", &told);
    assert_eq!(
        told["packages"]["changes"],
        value!([{"name": "curl", "change": "upgraded", "version_a": "8.14.1-2", "version_b": "8.14.1-10"}])
    );
    let changes = told["volumes"][0]["partitions"][0]["changes"].as_array().unwrap();
    let paths: Vec<_> = changes.iter().map(|change| change["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/var/lib/dpkg/status", "/var/www/index.html"]);
    assert_eq!(told["files"]["changed"], 2);
    let blocks = &told["blocks"];
    assert!(blocks["same"]["blocks"].as_u64().unwrap() >= 5);
    assert_eq!(blocks["new"], blocks["gone"]);
    assert_eq!(blocks["increment"], blocks["new"]);
    assert_eq!((&told["same"], &told["remarks"]), (&value!(false), &value!([])));

    let output = run(folder.path(), &["diff", A, B]);
    let shown = text(&output.stdout);
    assert!(shown.contains("packages   1 upgraded, 1 the same"), "{shown}");
    assert!(shown.contains("  upgraded    curl  8.14.1-2 → 8.14.1-10"), "{shown}");
    assert!(shown.contains("/var/www/index.html  content"), "{shown}");
    assert_eq!(run(folder.path(), &["diff", A, B, "--exit-code"]).status.code(), Some(1));
    assert_eq!(run(folder.path(), &["diff", A, A, "--exit-code"]).status.code(), Some(0));
}

#[test]
fn files_snapshots_and_folders_can_be_held_against_each_other() {
    let folder = pair();
    let (raw_a, raw_b) = (format!("{A}/xvda.raw"), format!("{B}/xvda.raw"));
    // Two files: the packages are those of the disks.
    let files = told(folder.path(), &["diff", &raw_a, &raw_b, "--json"]);
    assert_eq!(files["packages"]["changes"][0]["change"], "upgraded");
    assert_eq!(files["a"]["arch"], "x86_64");
    assert_eq!(files["files"]["changed"], 2);
    // A snapshot and the file that it is of.
    assert!(run(folder.path(), &["store", "put", &raw_b, "--name", "web-2/x86_64/xvda"]).status.success());
    let same = told(folder.path(), &["diff", "web-2/x86_64/xvda", &raw_b, "--json"]);
    assert_eq!(same["same"], true, "{same}");
    let snapshot = told(folder.path(), &["diff", A, "web-2/x86_64/xvda", "--json"]);
    assert_eq!(snapshot["volumes"][0]["blocks"], files["volumes"][0]["blocks"]);
    assert_eq!(snapshot["volumes"][0]["device"], "/dev/xvda");
    // Who keeps the store need not keep the file.
    fs::remove_file(folder.path().join(&raw_b)).unwrap();
    let kept = told(folder.path(), &["diff", A, B, "--json"]);
    assert_eq!(kept["volumes"][0]["blocks"], files["volumes"][0]["blocks"]);
    assert_eq!(kept["files"], files["files"]);
    let output = run(folder.path(), &["diff", A, B, "--store", "nowhere"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("/dev/xvda has no file here (xvda.raw)"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_disk_that_was_changed_since_is_told_of() {
    let folder = pair();
    let changed = disk("<h1>Two</h1>", "9.9");
    write_raw(&changed, &folder.path().join(B).join("xvda.raw"));
    let told = told(folder.path(), &["diff", A, B, "--json"]);
    assert_eq!(
        told["remarks"],
        value!(["B: xvda.raw is not what image.json says: it was changed after the bake"])
    );
    assert_eq!(told["packages"]["changes"][0]["version_b"], "9.9");
}

#[test]
fn another_architecture_is_a_remark() {
    let folder = pair();
    write_image(&folder.path().join("out/web-1/aarch64"), "web-1", "aarch64", "<h1>One</h1>", "8.14.1-2");
    let told = told(folder.path(), &["diff", A, "out/web-1/aarch64", "--json"]);
    assert_eq!(told["remarks"], value!(["A is for x86_64 and B for aarch64: almost every program differs"]));
    assert_eq!(told["same"], true);
}

#[test]
fn the_page_appears_whole_or_not_at_all() {
    let folder = pair();
    let output = run(folder.path(), &["diff", A, B, "--html", "page.html"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let page = fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for part in ["web-1 → web-2", "index.html", "8.14.1-10", "<svg", "/dev/xvda"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("://") && !page.contains("<script"), "nothing from elsewhere");
    run(folder.path(), &["diff", A, B, "--html", "again.html"]);
    assert_eq!(page, fs::read_to_string(folder.path().join("again.html")).unwrap());
    // What fails leaves the page that was there, and nothing beside it.
    let failed = run(folder.path(), &["diff", A, "nothing", "--html", "page.html"]);
    assert_eq!(failed.status.code(), Some(2));
    assert_eq!(page, fs::read_to_string(folder.path().join("page.html")).unwrap());
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["again.html", "out", "page.html"]);
    // One of the images is no page.
    let disk = fs::read_dir(folder.path().join(A)).unwrap().map(|entry| entry.unwrap().path());
    let disk = disk.into_iter().find(|path| path.extension().is_some_and(|end| end == "raw")).unwrap();
    let before = fs::metadata(&disk).unwrap().len();
    let slip = run(folder.path(), &["diff", A, B, "--html", disk.to_str().unwrap()]);
    assert_eq!(slip.status.code(), Some(2), "{}", text(&slip.stderr));
    assert!(text(&slip.stderr).contains("is no HTML page"), "{}", text(&slip.stderr));
    assert_eq!(fs::metadata(&disk).unwrap().len(), before);
    let nowhere = run(folder.path(), &["diff", A, B, "--html", "pages/page.html"]);
    assert_eq!(nowhere.status.code(), Some(2), "{}", text(&nowhere.stderr));
}

#[test]
fn a_folder_that_is_being_baked_is_not_looked_at() {
    let folder = pair();
    let held = File::open(folder.path().join(B)).unwrap();
    held.lock().unwrap();
    let output = run(folder.path(), &["diff", A, B]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("a bake is writing here: wait for its end"),
        "{}",
        text(&output.stderr)
    );
    held.unlock().unwrap();
    assert_eq!(run(folder.path(), &["diff", A, B]).status.code(), Some(0));
}
