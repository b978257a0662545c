//! `image …` from registration to the last snapshot.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::shapes::assert_documented;
use crate::{json as parsed, run, text};

fn told(folder: &Path, command: &str, arguments: &[&str]) -> Value {
    let output = run(folder, &[&["image", command], arguments, &["--json"]].concat());
    assert!(output.status.success(), "{command} {arguments:?}: {}", text(&output.stderr));
    parsed(&output)
}

/// The same of an image that has all that the example in docs/json.md has, and no more.
fn as_documented(folder: &Path, command: &str, arguments: &[&str]) -> Value {
    let told = told(folder, command, arguments);
    assert_documented(&format!("bakehouse image {command}"), &told);
    told
}

/// What a refused command said, and EC2's code for it.
fn refused(folder: &Path, arguments: &[&str]) -> (String, String) {
    let output = run(folder, &[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
    let told = parsed(&output);
    assert_documented("When it fails", &told);
    (text(&output.stderr), told["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// A store with a disk of 1 GiB, and a registration that names it: what a bake leaves, made small.
fn baked(folder: &Path) -> String {
    let disk = File::create(folder.join("disk.raw")).unwrap();
    disk.set_len(1 << 30).unwrap();
    disk.write_all_at(b"a disk", 0).unwrap();
    let put = parsed(&run(folder, &["store", "put", "disk.raw", "--name", "web/xvda", "--json"]));
    let snapshot = put["snapshot_id"].as_str().unwrap().to_owned();
    fs::create_dir(folder.join("outputs")).unwrap();
    let registration = json!({
        "Name": "web-1.0.0", "Description": "One page", "Architecture": "x86_64", "VirtualizationType": "hvm",
        "BootMode": "uefi-preferred", "RootDeviceName": "/dev/xvda", "EnaSupport": true, "SriovNetSupport": "simple",
        "ImdsSupport": "v2.0",
        "BlockDeviceMappings": [{
            "DeviceName": "/dev/xvda",
            "Ebs": {"SnapshotId": snapshot, "VolumeSize": 8, "VolumeType": "gp3", "DeleteOnTermination": true},
        }],
        "TagSpecifications": [{"ResourceType": "image", "Tags": [{"Key": "Team", "Value": "web"}]}],
    });
    fs::write(folder.join("outputs/register-image.json"), registration.to_string()).unwrap();
    snapshot
}

#[test]
fn an_image_lives_from_registration_to_the_last_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let snapshot = baked(folder);
    let id = as_documented(folder, "register", &["outputs"])["ImageId"].as_str().unwrap().to_owned();
    let copy = as_documented(folder, "copy", &["web-1.0.0", "--region", "eu-west-1", "--copy-tags"]);
    let copy = copy["ImageId"].as_str().unwrap();
    assert_ne!(copy, id);
    as_documented(folder, "ls", &[]);
    let snapshots = as_documented(folder, "snapshots", &["--region", "eu-west-1"]);
    assert_eq!(snapshots["Snapshots"][0]["VolumeSize"], 1);
    let listed = told(folder, "ls", &["--region", "eu-west-1"]);
    assert_eq!(listed["Images"][0]["SourceImageId"], *id);
    assert_eq!(listed["Images"][0]["Tags"][0]["Value"], "web");

    told(folder, "share", &["web-1.0.0", "123456789012"]);
    let shown = as_documented(folder, "show", &[&id]);
    assert_eq!(shown["LaunchPermissions"], json!([{"UserId": "123456789012"}]));
    told(folder, "share", &["web-1.0.0", "all"]);
    let shown = told(folder, "show", &[&id]);
    assert_eq!(shown["LaunchPermissions"], json!([{"Group": "all"}, {"UserId": "123456789012"}]));
    assert_eq!(shown["Images"][0]["Public"], true);
    // Two years after it was made.
    assert!(shown["Images"][0]["DeprecationTime"].is_string());
    assert_eq!(told(folder, "unshare", &["web-1.0.0", "all"])["Images"][0]["Public"], false);
    as_documented(folder, "tag", &[&id, "Team=shop", "Stage="]);
    told(folder, "tag", &[&snapshot, "Team=shop"]);
    as_documented(folder, "untag", &[&id, "Stage", "Team=web"]);
    assert_eq!(told(folder, "show", &[&id])["Images"][0]["Tags"], json!([{"Key": "Team", "Value": "shop"}]));
    let day = 24 * 3600;
    let soon = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
        / day
        + 2;
    let late = catalog::format_time(soon * day + 20);
    let late = told(folder, "deprecate", &[&id, "--at", &late]);
    assert_eq!(late["Images"][0]["DeprecationTime"], catalog::format_time(soon * day).replace('Z', ".000Z"));
    told(folder, "deprecate", &[&id, "--never"]);
    assert_eq!(told(folder, "disable", &[&id])["Images"][0]["State"], "disabled");
    assert_eq!(told(folder, "ls", &[])["Images"], json!([]));
    assert_eq!(told(folder, "ls", &["--include-disabled"])["Images"][0]["ImageId"], *id);
    told(folder, "enable", &[&id]);
    told(folder, "protect", &[&id]);
    let (said, code) = refused(folder, &["image", "deregister", &id]);
    assert!(said.contains("is protected") && code == "OperationNotPermitted", "{said}{code}");
    told(folder, "unprotect", &[&id]);

    // Whoever forgets a snapshot by the store's own command is kept from it, too.
    let (said, code) = refused(folder, &["store", "forget", "web/xvda"]);
    assert!(
        said.contains(&format!("{snapshot} is in use by {id}")) && code == "InvalidSnapshot.InUse",
        "{said}{code}"
    );
    let gone = as_documented(folder, "deregister", &["web-1.0.0", "--delete-snapshots"]);
    assert_eq!(gone["DeleteSnapshotResults"][0]["SnapshotId"], *snapshot);
    assert_eq!(told(folder, "ls", &[])["Images"], json!([]));
    // The copy still has its disk.
    let listed = parsed(&run(folder, &["store", "ls", "--json"]));
    assert_eq!(listed["snapshots"][0]["name"], "eu-west-1/web/xvda");
    assert!(run(folder, &["store", "get", "eu-west-1/web/xvda", "again.raw"]).status.success());
    assert!(fs::read(folder.join("again.raw")).unwrap() == fs::read(folder.join("disk.raw")).unwrap());
    told(folder, "deregister", &["web-1.0.0", "--region", "eu-west-1"]);
    assert!(run(folder, &["store", "forget", "eu-west-1/web/xvda"]).status.success());
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    baked(folder);
    told(folder, "register", &["outputs/register-image.json"]);
    for (arguments, words, code) in [
        (
            &["image", "register", "outputs"][..],
            "has the name `web-1.0.0` already",
            "InvalidAMIName.Duplicate",
        ),
        (
            &["image", "register", "outputs", "--name", "w"],
            "an image's name has 3 to 128",
            "InvalidAMIName.Malformed",
        ),
        (&["image", "register", "nowhere"], "name the folder that a bake wrote", ""),
        (&["image", "register", "."], "register-image.json in it (out/NAME/ARCH)", ""),
        (&["image", "register", "disk.raw"], "disk.raw: is larger than 1 MiB: it is no registration", ""),
        (&["image", "show", "web-2"], "there is no image `web-2` in region `local`", "InvalidAMIID.NotFound"),
        (
            &["image", "show", "web-1.0.0", "--region", "eu-west-1"],
            "in region `eu-west-1`; region `local` has it",
            "InvalidAMIID.NotFound",
        ),
        (&["image", "ls", "--region", "Europe"], "as in eu-west-1", ""),
        (&["image", "copy", "web-1.0.0"], "has the name `web-1.0.0` already", "InvalidAMIName.Duplicate"),
        (
            &["image", "tag", "snap-0123456789abcdef0", "a=b"],
            "there is no snapshot",
            "InvalidSnapshot.NotFound",
        ),
        (&["image", "tag", "web-1.0.0", "aws:a=b"], "AWS's own", "InvalidParameterValue"),
        (
            &["image", "deprecate", "web-1.0.0", "--at", "2020-01-01T00:00:00Z"],
            "has passed",
            "InvalidParameterValue",
        ),
        (&["image", "ls", "--store", "elsewhere"], "elsewhere", ""),
    ] {
        let (said, found) = refused(folder, arguments);
        assert!(said.contains(words) && found == code, "{arguments:?}: {said}{found}");
    }
    for arguments in [
        &["image", "share", "web-1.0.0", "ann"][..],
        &["image", "tag", "web-1.0.0", "Team"],
        &["image", "deprecate", "web-1.0.0"],
        &["image", "deprecate", "web-1.0.0", "--at", "tomorrow"],
    ] {
        assert_eq!(run(folder, arguments).status.code(), Some(2), "{arguments:?}");
    }
    let other = run(folder, &["image", "register", "outputs", "--store", "other", "--name", "other"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(!folder.join("other").exists());
    // An account that nobody can read is told by everybody, and by `verify` after all it has to say.
    let account = folder.join("store/account");
    let kept = fs::read(&account).unwrap();
    fs::write(&account, "rubbish").unwrap();
    let listed = run(folder, &["image", "ls"]);
    assert_eq!(listed.status.code(), Some(1));
    assert!(text(&listed.stderr).contains("store/account: it is damaged"), "{}", text(&listed.stderr));
    let verified = run(folder, &["store", "verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1));
    let report = parsed(&verified);
    assert_documented("bakehouse store verify", &report);
    assert!(
        report["whole"] == true && report["account"].as_str().unwrap().contains("it is damaged"),
        "{report:#}"
    );
    // So is an image whose snapshot another program took away.
    let account = String::from_utf8(kept).unwrap();
    let snapshot = parsed(&run(folder, &["store", "ls", "--json"]))["snapshots"][0]["snapshot_id"].clone();
    let lost = account.replace(snapshot.as_str().unwrap(), "snap-0123456789abcdef0");
    fs::write(folder.join("store/account"), lost).unwrap();
    let verified = run(folder, &["store", "verify"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified.stdout).contains("has lost snap-0123456789abcdef0"), "{}", text(&verified.stdout));
    let shown = text(&run(folder, &["image", "show", "web-1.0.0"]).stdout);
    assert!(shown.contains("snap-0123456789abcdef0 is not in the store any more"), "{shown}");
    fs::write(folder.join("store/account"), account).unwrap();
    // A store that has not its snapshots.
    fs::write(folder.join("small.raw"), [1; 512]).unwrap();
    assert!(run(folder, &["store", "put", "small.raw", "--store", "other"]).status.success());
    let other = run(folder, &["image", "register", "outputs", "--store", "other"]);
    assert_eq!(other.status.code(), Some(2));
    let said = text(&other.stderr);
    assert!(said.contains("SnapshotId: snap-") && said.contains("with --store"), "{said}");
    fs::write(folder.join("outputs/register-image.json"), "{\"Name\": \"web-3\", \"Nmae\": 1}").unwrap();
    let (said, _) = refused(folder, &["image", "register", "outputs"]);
    assert!(said.contains("register-image.json: it is no registration: unknown field `Nmae`"), "{said}");
}

#[test]
fn people_get_lines() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let snapshot = baked(folder);
    let registered = text(&run(folder, &["image", "register", "outputs"]).stdout);
    let id = registered.split(':').next().unwrap();
    assert_eq!(registered, format!("{id}: registered web-1.0.0\n"));
    let row = text(&run(folder, &["image", "ls"]).stdout);
    assert!(row.starts_with(&format!("{id}  x86_64  2")) && row.ends_with("Z  web-1.0.0\n"), "{row}");
    assert!(run(folder, &["image", "share", id, "all"]).status.success());
    assert!(text(&run(folder, &["image", "ls"]).stdout).ends_with("  web-1.0.0  public\n"));
    let sheet = text(&run(folder, &["image", "show", id]).stdout);
    for part in [
        "owner         000000000000",
        "boot mode     uefi-preferred",
        "shared with   all",
        "tag           Team=web",
        &format!("/dev/xvda     8 GiB gp3 from {snapshot}, root"),
    ] {
        assert!(sheet.contains(part), "no `{part}` in:\n{sheet}");
    }
    let row = text(&run(folder, &["image", "snapshots"]).stdout);
    assert!(row.starts_with(&snapshot) && row.ends_with(&format!("Z  web/xvda  of {id}\n")), "{row}");
    let copied = text(&run(folder, &["image", "copy", id, "--region", "eu-west-1"]).stdout);
    assert!(copied.contains(": copied from local to eu-west-1\n  snap-"), "{copied}");
    let gone = text(&run(folder, &["image", "deregister", "web-1.0.0"]).stdout);
    assert_eq!(gone, format!("web-1.0.0: deregistered\n  {snapshot}: stays\n"));
}
