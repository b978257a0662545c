use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::{Ebs, VirtualName};

fn device(text: &str) -> DeviceName {
    DeviceName::new(text).unwrap()
}

fn snapshot() -> SnapshotId {
    "snap-0123456789abcdef0".parse().unwrap()
}

/// A registration that breaks no rule, with all that one may hold.
fn good() -> RegisterImage {
    let gp3 = Some(VolumeType::Gp3);
    let root = Ebs {
        snapshot_id: Some(snapshot()),
        volume_size: Some(8),
        volume_type: gp3,
        delete_on_termination: Some(true),
        ..Ebs::default()
    };
    let blank = Ebs { volume_size: Some(100), volume_type: gp3, encrypted: Some(true), ..Ebs::default() };
    let tags = BTreeMap::from([("Team".to_owned(), "web".to_owned()), ("Empty".to_owned(), String::new())]);
    RegisterImage::new(
        "hello-web-1.0.0".to_owned(),
        Architecture::X86_64,
        device("/dev/xvda"),
        vec![
            BlockDeviceMapping::ebs(device("/dev/xvda"), root),
            BlockDeviceMapping::ebs(device("/dev/xvdf"), blank),
            BlockDeviceMapping::instance_store(device("/dev/sdb"), VirtualName::new(0).unwrap()),
            BlockDeviceMapping::without(device("/dev/sdc")),
        ],
    )
    .with_tags(&tags)
}

/// What is said about the good registration with one value of its JSON changed.
fn said(pointer: &str, value: Value) -> Vec<String> {
    let mut json = serde_json::to_value(good()).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match json.pointer_mut(parent).unwrap() {
        Value::Object(fields) if value.is_null() => drop(fields.remove(key)),
        Value::Object(fields) => drop(fields.insert(key.to_owned(), value)),
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        other => panic!("{other}"),
    }
    let request: RegisterImage = serde_json::from_value(json).unwrap();
    match request.check() {
        Ok(()) => Vec::new(),
        Err(broken) => broken.iter().map(ToString::to_string).collect(),
    }
}

const DATA: &str = "/BlockDeviceMappings/1/Ebs";

#[test]
fn a_good_registration_breaks_no_rule_and_reads_back() {
    assert_eq!(good().check(), Ok(()));
    let text = serde_json::to_string(&good()).unwrap();
    assert_eq!(serde_json::from_str::<RegisterImage>(&text).unwrap(), good());
}

#[test]
fn names_are_of_the_given_length_and_characters() {
    assert_eq!(image_name_rules("a (b) [c] ./-'@_9"), []);
    assert_eq!(image_name_rules(&"a".repeat(128)), []);
    assert_eq!(said("/Name", json!("ab")), ["Name: `ab` has 2 characters; an image's name has 3 to 128"]);
    assert_eq!(image_name_rules(&"a".repeat(129)).len(), 1);
    assert_eq!(
        said("/Name", json!("web+1")),
        [
            "Name: `web+1` has a `+`; an image's name is of ASCII letters, digits, spaces and ( ) [ ] . / - ' @ _"
        ]
    );
    assert_eq!(image_name_rules("müll").len(), 1);
    assert_eq!(image_name_rules("web\n").len(), 1);
}

#[test]
fn the_root_is_in_the_mapping_with_a_snapshot() {
    assert_eq!(
        said("/RootDeviceName", json!("/dev/sda1")),
        ["RootDeviceName: `/dev/sda1` is no entry of the mapping; the root device must be one"]
    );
    for other in ["/dev/xvdf", "/dev/sdb", "/dev/sdc"] {
        assert_eq!(
            said("/RootDeviceName", json!(other)),
            [format!("RootDeviceName: `{other}` has no snapshot; the root device must come from one")]
        );
    }
    assert_eq!(
        said("/BlockDeviceMappings/0/Ebs/VolumeType", json!("st1")),
        [
            "BlockDeviceMappings[0].Ebs.VolumeSize: 8 GiB; a volume of type st1 has 125 to 16384 GiB",
            "BlockDeviceMappings[0].Ebs.VolumeType: st1; no machine boots from a volume of this type"
        ]
    );
}

#[test]
fn an_entry_is_one_thing_at_one_device() {
    assert_eq!(
        said("/BlockDeviceMappings/1/VirtualName", json!("ephemeral1")),
        [
            "BlockDeviceMappings[1]: `/dev/xvdf` has 2 of Ebs, VirtualName and NoDevice; an entry has exactly one"
        ]
    );
    assert_eq!(
        said("/BlockDeviceMappings/1", json!({"DeviceName": "/dev/xvdf"})),
        [
            "BlockDeviceMappings[1]: `/dev/xvdf` has 0 of Ebs, VirtualName and NoDevice; an entry has exactly one"
        ]
    );
    assert_eq!(
        said("/BlockDeviceMappings/2/DeviceName", json!("/dev/sdf")),
        [
            "BlockDeviceMappings[2].DeviceName: `/dev/sdf` and `/dev/xvdf` are the same device; each has one entry"
        ]
    );
}

#[test]
fn volumes_say_size_and_type_and_leave_encryption_to_their_snapshot() {
    assert_eq!(
        said("/BlockDeviceMappings/1/Ebs", json!({"VolumeType": "gp2"})),
        [
            "BlockDeviceMappings[1].Ebs.VolumeSize: `/dev/xvdf` has neither SnapshotId nor VolumeSize; a volume needs one of them"
        ]
    );
    assert_eq!(said("/BlockDeviceMappings/0/Ebs/VolumeSize", Value::Null), Vec::<String>::new());
    assert_eq!(
        said("/BlockDeviceMappings/1/Ebs/VolumeType", Value::Null),
        [
            "BlockDeviceMappings[1].Ebs.VolumeType: `/dev/xvdf` has no type; write it, the default is not the same everywhere"
        ]
    );
    assert_eq!(
        said("/BlockDeviceMappings/0/Ebs/Encrypted", json!(false)),
        [
            "BlockDeviceMappings[0].Ebs.Encrypted: false for a volume from snap-0123456789abcdef0; it is as its snapshot is: leave Encrypted out"
        ]
    );
    assert_eq!(
        said("/BlockDeviceMappings/1/Ebs/KmsKeyId", json!("alias/mine")),
        [
            "BlockDeviceMappings[1].Ebs.KmsKeyId: `alias/mine` does not belong into a registration; name the key when the image is copied or launched"
        ]
    );
}

#[test]
fn each_type_has_its_limits() {
    let settings = |volume_type, gib| VolumeSettings {
        volume_type,
        gib: Some(gib),
        iops: None,
        throughput: None,
        boots: false,
    };
    for (volume_type, least, most) in [
        (VolumeType::Gp3, 1, 65_536),
        (VolumeType::Gp2, 1, 16_384),
        (VolumeType::Io1, 4, 16_384),
        (VolumeType::Io2, 4, 65_536),
        (VolumeType::St1, 125, 16_384),
        (VolumeType::Sc1, 125, 16_384),
        (VolumeType::Standard, 1, 1_024),
    ] {
        for (gib, good) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
            let broken = settings(volume_type, gib).broken_rules();
            let size = broken.iter().any(|rule| matches!(rule, VolumeRule::Size { .. }));
            assert_eq!(size, !good, "{volume_type} of {gib} GiB: {broken:?}");
        }
        let needed = matches!(volume_type, VolumeType::Io1 | VolumeType::Io2);
        let broken = settings(volume_type, most).broken_rules();
        assert_eq!(broken.contains(&VolumeRule::IopsNeeded { volume_type }), needed);
        let boots = VolumeSettings { boots: true, ..settings(volume_type, most) }.broken_rules();
        let slow = matches!(volume_type, VolumeType::St1 | VolumeType::Sc1);
        assert_eq!(boots.contains(&VolumeRule::Boot { volume_type }), slow);
    }
}

#[test]
fn iops_are_within_the_types_range_and_the_volumes_size() {
    let iops = |volume_type, gib, iops| {
        VolumeSettings { volume_type, gib: Some(gib), iops: Some(iops), throughput: None, boots: false }
            .broken_rules()
    };
    let range = |broken: Vec<VolumeRule>| match broken[..] {
        [] => None,
        [VolumeRule::Iops { least, most, .. }] => Some((least, most)),
        _ => panic!("{broken:?}"),
    };
    assert_eq!(range(iops(VolumeType::Gp3, 1, 3_000)), None);
    assert_eq!(range(iops(VolumeType::Gp3, 1, 3_001)), Some((3_000, 3_000)));
    assert_eq!(range(iops(VolumeType::Gp3, 8, 4_000)), None);
    assert_eq!(range(iops(VolumeType::Gp3, 8, 4_001)), Some((3_000, 4_000)));
    assert_eq!(range(iops(VolumeType::Gp3, 1_000, 80_001)), Some((3_000, 80_000)));
    assert_eq!(range(iops(VolumeType::Io1, 4, 200)), None);
    assert_eq!(range(iops(VolumeType::Io1, 4, 201)), Some((100, 200)));
    assert_eq!(range(iops(VolumeType::Io2, 4, 4_000)), None);
    assert_eq!(range(iops(VolumeType::Io2, 4, 99)), Some((100, 4_000)));
    for volume_type in [VolumeType::Gp2, VolumeType::St1, VolumeType::Sc1, VolumeType::Standard] {
        assert_eq!(iops(volume_type, 500, 3_000), [VolumeRule::IopsNotTaken { volume_type, iops: 3_000 }]);
    }
    assert_eq!(
        said(&format!("{DATA}/Iops"), json!(100)),
        ["BlockDeviceMappings[1].Ebs.Iops: 100; a volume of type gp3 and this size takes 3000 to 50000"]
    );
}

#[test]
fn throughput_is_for_gp3_and_needs_iops() {
    let said = |throughput| said(&format!("{DATA}/Throughput"), json!(throughput));
    assert_eq!(said(125), Vec::<String>::new());
    assert_eq!(said(750), Vec::<String>::new());
    assert_eq!(
        said(751),
        [
            "BlockDeviceMappings[1].Ebs.Throughput: 751 MiB/s with 3000 IOPS; 4 IOPS are needed for each MiB/s: 3004"
        ]
    );
    assert_eq!(
        said(124),
        ["BlockDeviceMappings[1].Ebs.Throughput: 124; a volume of type gp3 takes 125 to 2000 MiB/s"]
    );
    let gp2 = VolumeSettings {
        volume_type: VolumeType::Gp2,
        gib: Some(8),
        iops: None,
        throughput: Some(125),
        boots: false,
    };
    assert_eq!(
        gp2.broken_rules(),
        [VolumeRule::ThroughputNotTaken { volume_type: VolumeType::Gp2, throughput: 125 }]
    );
}

#[test]
fn machines_boot_as_they_can() {
    let mut request = good();
    request.architecture = Architecture::Arm64;
    assert_eq!(request.check(), Ok(()));
    request.boot_mode = Some(BootMode::LegacyBios);
    assert_eq!(
        request.check().unwrap_err()[0].to_string(),
        "BootMode: legacy-bios for arm64; such machines boot by UEFI"
    );
    assert_eq!(
        said("/TpmSupport", json!("v2.0")),
        ["TpmSupport: v2.0 for an image that boots by uefi-preferred; a TPM needs uefi"]
    );
}

#[test]
fn tags_are_few_short_and_not_awss_own() {
    let tags = "/TagSpecifications/0/Tags/0";
    let key = |key: &str| said(&format!("{tags}/Key"), json!(key));
    assert_eq!(key(&"ü".repeat(127)), Vec::<String>::new());
    assert_eq!(key("")[0], "TagSpecifications[0].Tags[0].Key: `` has 0 characters; a tag's key has 1 to 127");
    assert_eq!(key(&"a".repeat(128)).len(), 1);
    assert_eq!(
        key("AWS:x"),
        ["TagSpecifications[0].Tags[0].Key: `AWS:x` begins with aws:; such keys are AWS's own"]
    );
    assert_eq!(
        key("Team"),
        ["TagSpecifications[0].Tags[1].Key: `Team` is given twice; a resource has one tag of each key"]
    );
    assert_eq!(
        said(&format!("{tags}/Value"), json!("x".repeat(257))),
        [
            "TagSpecifications[0].Tags[0].Value: the value of `Empty` has 257 characters; a tag's value has 256 at most"
        ]
    );
    let many: Vec<Value> = (0..51).map(|n| json!({"Key": format!("k{n}"), "Value": ""})).collect();
    assert_eq!(
        said("/TagSpecifications/0/Tags", json!(many)),
        ["TagSpecifications[0].Tags: 51 tags; a resource has 50 at most"]
    );
    let one = json!({"ResourceType": "image", "Tags": []});
    assert_eq!(
        said("/TagSpecifications", json!([one, one])),
        ["TagSpecifications: 2 entries for the image's tags; put them into one"]
    );
}

#[test]
fn a_volume_is_at_least_as_large_as_its_snapshot() {
    let said = |size| match good().check_snapshots(|_| size) {
        Ok(()) => Vec::new(),
        Err(broken) => broken.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(said(Some(8)), Vec::<String>::new());
    assert_eq!(
        said(Some(9)),
        [
            "BlockDeviceMappings[0].Ebs.VolumeSize: 8 GiB for snap-0123456789abcdef0 of 9 GiB; a volume is at least as large as its snapshot"
        ]
    );
    assert_eq!(
        said(None),
        [
            "BlockDeviceMappings[0].Ebs.SnapshotId: snap-0123456789abcdef0 is not there; a volume comes from a snapshot of the same region"
        ]
    );
}

#[test]
fn what_the_shape_cannot_say_is_not_read() {
    for (key, bad) in [
        ("Architecture", "i386"),
        ("VirtualizationType", "paravirtual"),
        ("BootMode", "bios"),
        ("ImdsSupport", "v1.0"),
        ("SriovNetSupport", "on"),
        ("KernelId", "aki-1"),
    ] {
        let mut json = serde_json::to_value(good()).unwrap();
        json[key] = json!(bad);
        assert!(serde_json::from_value::<RegisterImage>(json).is_err(), "{key}");
    }
}
