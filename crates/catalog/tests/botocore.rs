//! Registrations held against AWS's own client: botocore's model of the API, its validator, its serializer.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use catalog::{
    Account, Architecture, BlockDeviceMapping, BootMode, DeviceName, Ebs, Home, RegisterImage, SnapshotId,
    TpmSupport, VirtualName, VolumeType,
};
use serde_json::{Value, json};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/register_image.py");

/// Python with botocore, from BAKEHOUSE_TOOLS_PATH; none when that is not set.
fn python() -> Option<PathBuf> {
    let Some(folders) = std::env::var_os("BAKEHOUSE_TOOLS_PATH") else {
        workbench::left_out(
            "registrations were not held against botocore: run `cargo xtask test`, which provides it",
        );
        return None;
    };
    let found =
        std::env::split_paths(&folders).map(|folder| folder.join("python3")).find(|path| path.is_file());
    Some(found.unwrap_or_else(|| panic!("BAKEHOUSE_TOOLS_PATH has no python3: {}", folders.display())))
}

/// What botocore says of each request.
fn asked(python: PathBuf, requests: &[Value]) -> Vec<Value> {
    let mut child =
        Command::new(python).arg(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(requests).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "botocore could not be asked: {}", output.status);
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.len(), requests.len());
    said
}

fn device(text: &str) -> DeviceName {
    DeviceName::new(text).unwrap()
}

/// One registration with all that there is, and one for each architecture and type of volume.
fn registrations() -> Vec<RegisterImage> {
    let snapshot: SnapshotId = "snap-0123456789abcdef0".parse().unwrap();
    let root = |volume_type: VolumeType| {
        let iops = volume_type.limits().iops.map(|(least, _, _)| least);
        let ebs = Ebs {
            snapshot_id: Some(snapshot),
            volume_size: Some(volume_type.limits().size.0.max(8)),
            volume_type: Some(volume_type),
            iops,
            throughput: volume_type.limits().throughput.map(|(least, _)| least),
            delete_on_termination: Some(true),
            ..Ebs::default()
        };
        BlockDeviceMapping::ebs(device("/dev/xvda"), ebs)
    };
    let mut all = Vec::new();
    for architecture in [Architecture::X86_64, Architecture::Arm64] {
        for volume_type in VolumeType::ALL.into_iter().filter(|volume_type| volume_type.limits().boot) {
            let blank = Ebs {
                volume_size: Some(125),
                volume_type: Some(VolumeType::St1),
                encrypted: Some(true),
                delete_on_termination: Some(false),
                ..Ebs::default()
            };
            let mapping = vec![
                root(volume_type),
                BlockDeviceMapping::ebs(device("/dev/xvdf"), blank),
                BlockDeviceMapping::instance_store(device("/dev/sdb"), VirtualName::new(23).unwrap()),
                BlockDeviceMapping::without(device("/dev/sdc")),
            ];
            let name = format!("hello-web-1.0.0 ({volume_type})");
            let tags = BTreeMap::from([
                ("Team".to_owned(), "web".to_owned()),
                ("Nothing".to_owned(), String::new()),
            ]);
            let mut image =
                RegisterImage::new(name, architecture, device("/dev/xvda"), mapping).with_tags(&tags);
            image.description = Some("A web server with one page".to_owned());
            all.push(image.clone());
            image.boot_mode = Some(BootMode::Uefi);
            image.tpm_support = Some(TpmSupport::V2);
            all.push(image);
        }
    }
    all
}

#[test]
fn awss_own_client_takes_every_registration() {
    let Some(python) = python() else { return };
    let registrations = registrations();
    for registration in &registrations {
        assert_eq!(registration.check(), Ok(()));
    }
    let requests: Vec<Value> =
        registrations.iter().map(|registration| serde_json::to_value(registration).unwrap()).collect();
    for (request, said) in requests.iter().zip(asked(python, &requests)) {
        assert_eq!(said["complaints"], json!([]), "{request:#}");
        let query = said["query"].as_object().unwrap();
        for (key, value) in [
            ("Action", "RegisterImage"),
            ("VirtualizationType", "hvm"),
            ("RootDeviceName", "/dev/xvda"),
            ("BlockDeviceMapping.1.Ebs.SnapshotId", "snap-0123456789abcdef0"),
            ("BlockDeviceMapping.2.Ebs.Encrypted", "true"),
            ("BlockDeviceMapping.3.VirtualName", "ephemeral23"),
            ("BlockDeviceMapping.4.NoDevice", ""),
            ("ImdsSupport", "v2.0"),
            ("TagSpecification.1.ResourceType", "image"),
            ("TagSpecification.1.Tag.2.Value", "web"),
        ] {
            assert_eq!(query.get(key).and_then(Value::as_str), Some(value), "{key} in {query:#?}");
        }
    }
}

/// Shows that the client looks: each of these is wrong in one place.
#[test]
fn awss_own_client_refuses_what_the_api_does_not_have() {
    let Some(python) = python() else { return };
    let good = serde_json::to_value(&registrations()[0]).unwrap();
    let wrong = [
        ("/Name", json!(null)),
        ("/Nmae", json!("web")),
        ("/Architecture", json!("aarch64")),
        ("/BootMode", json!("bios")),
        ("/EnaSupport", json!("yes")),
        ("/BlockDeviceMappings/0/Ebs/VolumeSize", json!("8")),
        ("/BlockDeviceMappings/0/Ebs/VolumeType", json!("gp4")),
        ("/BlockDeviceMappings/0/Ebs/Size", json!(8)),
        ("/TagSpecifications/0/ResourceType", json!("picture")),
    ];
    let requests: Vec<Value> = wrong
        .iter()
        .map(|(pointer, value)| {
            let mut request = good.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            request.pointer_mut(parent).unwrap()[key] = value.clone();
            request
        })
        .collect();
    for ((pointer, _), said) in wrong.iter().zip(asked(python, &requests)) {
        assert_ne!(said["complaints"], json!([]), "{pointer}");
    }
}

/// Images with all that there is about them, as DescribeImages has them.
#[test]
fn awss_own_client_understands_what_images_are_said_to_be() {
    let Some(python) = python() else { return };
    let mut account = Account::new(Home::ACCOUNT, 0);
    let now = 1_767_225_600;
    for (number, request) in registrations().into_iter().enumerate() {
        let request = RegisterImage { name: format!("image {number}"), ..request };
        let id = account.register_image("local", request, now, |_| Some(8)).unwrap();
        account.set_deprecation("local", id, Some(now + 60), now).unwrap();
        account.protect("local", id, number % 2 == 0).unwrap();
        let copied = account.begin_copy(("local", id), "eu-west-1", None, None, true, now).unwrap();
        account.finish_copy("eu-west-1", &copied).unwrap();
        account.set_enabled("local", id, number % 3 > 0).unwrap();
    }
    let of = |region: &str| -> Vec<Value> {
        account.images(region).map(|image| account.describe(image, now)).collect()
    };
    let mut wrong = of("local");
    wrong[0]["Sate"] = json!("available");
    let answers =
        [of("local"), of("eu-west-1"), wrong].map(|images| json!({"DescribeImages": {"Images": images}}));
    let said = asked(python, &answers);
    assert_eq!((&said[0]["complaints"], &said[1]["complaints"]), (&json!([]), &json!([])));
    // It looks.
    assert_ne!(said[2]["complaints"], json!([]));
}
