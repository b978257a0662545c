use super::*;
use crate::{Architecture, BlockDeviceMapping, DeviceName, Ebs, VolumeType};

const NOW: i64 = 1_767_225_600;
const HOME: &str = Home::REGION;

fn snapshot(digit: char) -> SnapshotId {
    format!("snap-{}", digit.to_string().repeat(17)).parse().unwrap()
}

/// Snapshots a to c are there, of 8 GiB each.
fn gib(id: SnapshotId) -> Option<u64> {
    ['a', 'b', 'c'].map(snapshot).contains(&id).then_some(8)
}

fn request(name: &str, snapshots: &[SnapshotId]) -> RegisterImage {
    let devices = ["/dev/xvda", "/dev/xvdf", "/dev/xvdg"].map(|name| DeviceName::new(name).unwrap());
    let volume = |snapshot: &SnapshotId| Ebs {
        snapshot_id: Some(*snapshot),
        volume_type: Some(VolumeType::Gp3),
        ..Ebs::default()
    };
    let mapping = devices
        .iter()
        .zip(snapshots)
        .map(|(device, snapshot)| BlockDeviceMapping::ebs(device.clone(), volume(snapshot)));
    RegisterImage::new(name.to_owned(), Architecture::X86_64, devices[0].clone(), mapping.collect())
        .with_tags(&BTreeMap::from([("Team".to_owned(), "web".to_owned())]))
}

/// An account with one image, of two snapshots.
fn with_image() -> (Account, AmiId) {
    let mut account = Account::new(Home::ACCOUNT);
    let request = request("web-1", &[snapshot('a'), snapshot('b')]);
    let id = account.register_image(HOME, request, NOW, gib).unwrap();
    (account, id)
}

fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> &'static str {
    result.unwrap_err().code()
}

#[test]
fn an_account_comes_back_as_it_went_and_other_versions_are_refused() {
    let (mut account, id) = with_image();
    account.copy_image((HOME, id), "eu-west-1", None, None, true, NOW).unwrap();
    account
        .modify_launch_permission(HOME, id, PermissionChange::Add, &[LaunchPermission::everybody()])
        .unwrap();
    account.protect(HOME, id, true).unwrap();
    account.set_deprecation(HOME, id, Some(NOW + 3600), NOW).unwrap();
    account
        .create_tags(
            HOME,
            ResourceId::Snapshot(snapshot('a')),
            &[Tag { key: "k".into(), value: String::new() }],
        )
        .unwrap();
    let bytes = account.to_bytes();
    assert_eq!(Account::from_bytes(&bytes).unwrap(), account);
    assert_eq!(Account::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    let newer =
        String::from_utf8(bytes).unwrap().replacen("\"version\": 1", "\"version\": 2, \"more\": 1", 1);
    assert!(matches!(Account::from_bytes(newer.as_bytes()), Err(NotAnAccount::Version { version: 2 })));
    assert!(matches!(Account::from_bytes(b"{"), Err(NotAnAccount::Damaged(_))));
}

#[test]
fn an_image_is_registered_once_under_a_name_with_ids_that_do_not_come_again() {
    let (mut account, id) = with_image();
    let image = account.image(HOME, "web-1").unwrap();
    assert_eq!((image.image_id, image.creation_date, image.state), (id, NOW, ImageState::Available));
    assert_eq!(image.tags, BTreeMap::from([("Team".to_owned(), "web".to_owned())]));
    // As large as its snapshot.
    assert_eq!(image.registration.block_device_mappings[0].ebs.as_ref().unwrap().volume_size, Some(8));
    let again = request("web-1", &[snapshot('c')]);
    assert_eq!(code(account.register_image(HOME, again.clone(), NOW, gib)), "InvalidAMIName.Duplicate");
    account.deregister_image(HOME, id, false, NOW).unwrap();
    let second = account.register_image(HOME, again, NOW, gib).unwrap();
    assert_ne!(second, id);
    assert_eq!(
        code(account.image(HOME, &id.to_string()).map(|image| image.image_id)),
        "InvalidAMIID.NotFound"
    );
}

#[test]
fn what_ec2_refuses_is_refused_and_changes_nothing() {
    let mut account = Account::new(Home::ACCOUNT);
    let unknown = request("web-1", &[snapshot('d')]);
    assert_eq!(code(account.register_image(HOME, unknown, NOW, gib)), "InvalidParameterValue");
    let nameless = request("w", &[snapshot('a')]);
    assert_eq!(code(account.register_image(HOME, nameless, NOW, gib)), "InvalidParameterValue");
    // A snapshot of another region.
    let elsewhere = request("web-1", &[snapshot('a')]);
    assert_eq!(code(account.register_image("eu-west-1", elsewhere, NOW, gib)), "InvalidParameterValue");
    let wordy = RegisterImage { description: Some("x".repeat(256)), ..request("web-1", &[snapshot('a')]) };
    assert_eq!(code(account.register_image(HOME, wordy, NOW, gib)), "InvalidParameterValue");
    assert_eq!(account, Account::new(Home::ACCOUNT));
}

#[test]
fn a_copy_has_snapshots_of_its_own_and_no_permissions() {
    let (mut account, id) = with_image();
    account
        .modify_launch_permission(HOME, id, PermissionChange::Add, &["123456789012".parse().unwrap()])
        .unwrap();
    let copied = account.copy_image((HOME, id), "eu-west-1", None, Some("there"), false, NOW + 1).unwrap();
    let copy = account.image("eu-west-1", "web-1").unwrap().clone();
    assert_eq!(copy.image_id, copied.image_id);
    assert_eq!(copy.source, Some((HOME.to_owned(), id)));
    assert!(copy.launch_permissions.is_empty() && copy.tags.is_empty());
    assert_eq!(copy.registration.description.as_deref(), Some("there"));
    let old: Vec<SnapshotId> = copied.snapshots.iter().map(|(old, _)| *old).collect();
    assert_eq!(old, [snapshot('a'), snapshot('b')]);
    let new: Vec<SnapshotId> = copied.snapshots.iter().map(|(_, new)| *new).collect();
    assert_eq!(copy.snapshots().collect::<Vec<_>>(), new);
    assert!(new.iter().all(|id| account.region_of(*id) == "eu-west-1"));
    let said = account.notes(new[0]).unwrap().description.clone().unwrap();
    assert_eq!(
        said,
        format!(
            "Copied for DestinationAmi {} from SourceAmi {id} for SourceSnapshot {}",
            copy.image_id, old[0]
        )
    );
    // A second copy needs another name; with tags it has them.
    assert_eq!(
        code(account.copy_image((HOME, id), "eu-west-1", None, None, false, NOW)),
        "InvalidAMIName.Duplicate"
    );
    let second = account.copy_image((HOME, id), "eu-west-1", Some("web-2"), None, true, NOW).unwrap();
    assert_eq!(account.image("eu-west-1", &second.image_id.to_string()).unwrap().tags.len(), 1);
    account.set_enabled(HOME, id, false).unwrap();
    assert_eq!(
        code(account.copy_image((HOME, id), "us-east-1", None, None, false, NOW)),
        "InvalidAMIID.Unavailable"
    );
}

#[test]
fn two_volumes_of_one_snapshot_are_copied_from_one_copy() {
    let mut account = Account::new(Home::ACCOUNT);
    let request = request("web-1", &[snapshot('a'), snapshot('a')]);
    let id = account.register_image(HOME, request, NOW, gib).unwrap();
    let copied = account.copy_image((HOME, id), "eu-west-1", None, None, false, NOW).unwrap();
    assert_eq!(copied.snapshots.len(), 1);
    let copy = account.image("eu-west-1", "web-1").unwrap();
    assert_eq!(copy.snapshots().collect::<Vec<_>>(), [copied.snapshots[0].1; 2]);
}

#[test]
fn snapshots_go_when_no_image_uses_them() {
    let (mut account, first) = with_image();
    let second =
        account.register_image(HOME, request("web-2", &[snapshot('b'), snapshot('c')]), NOW, gib).unwrap();
    assert_eq!(code(account.delete_snapshot(HOME, snapshot('b'), true)), "InvalidSnapshot.InUse");
    assert_eq!(code(account.delete_snapshot("eu-west-1", snapshot('b'), true)), "InvalidSnapshot.NotFound");
    assert_eq!(code(account.delete_snapshot(HOME, snapshot('d'), false)), "InvalidSnapshot.NotFound");
    let done = account.deregister_image(HOME, first, true, NOW).unwrap();
    assert_eq!((done.deleted, done.left), (vec![snapshot('a')], vec![snapshot('b')]));
    let done = account.deregister_image(HOME, second, false, NOW).unwrap();
    assert_eq!((done.deleted, done.left), (vec![], vec![snapshot('b'), snapshot('c')]));
    account.delete_snapshot(HOME, snapshot('b'), true).unwrap();
}

#[test]
fn protection_lasts_and_with_a_cooldown_a_day_more() {
    const DAY: i64 = 24 * 3600;
    let (mut account, id) = with_image();
    account.protect(HOME, id, false).unwrap();
    assert_eq!(code(account.deregister_image(HOME, id, false, NOW)), "OperationNotPermitted");
    account.unprotect(HOME, id, NOW).unwrap();
    assert!(!account.image(HOME, "web-1").unwrap().is_protected(NOW));
    account.protect(HOME, id, true).unwrap();
    account.unprotect(HOME, id, NOW).unwrap();
    let image = account.image(HOME, "web-1").unwrap();
    assert_eq!(image.protected_until(NOW), Some(NOW + DAY));
    // Ending it again does not make it shorter.
    account.unprotect(HOME, id, NOW + 1).unwrap();
    let refused = account.deregister_image(HOME, id, false, NOW + DAY - 1).unwrap_err();
    assert!(refused.to_string().contains("until 2026-01-02T00:00:00Z"), "{refused}");
    account.deregister_image(HOME, id, false, NOW + DAY).unwrap();
}

#[test]
fn permissions_are_a_set_and_end_when_an_image_is_disabled() {
    let (mut account, id) = with_image();
    let all = LaunchPermission::everybody();
    assert!(
        account
            .modify_launch_permission(HOME, id, PermissionChange::Add, std::slice::from_ref(&all))
            .unwrap()
    );
    assert!(
        !account
            .modify_launch_permission(HOME, id, PermissionChange::Add, std::slice::from_ref(&all))
            .unwrap()
    );
    assert!(account.image(HOME, "web-1").unwrap().is_public());
    account.set_enabled(HOME, id, false).unwrap();
    let image = account.image(HOME, "web-1").unwrap();
    assert!(!image.is_public() && image.state == ImageState::Disabled);
    let again = account.modify_launch_permission(HOME, id, PermissionChange::Add, std::slice::from_ref(&all));
    assert_eq!(code(again), "InvalidAMIID.Unavailable");
    account.set_enabled(HOME, id, true).unwrap();
    assert!(!account.modify_launch_permission(HOME, id, PermissionChange::Remove, &[all]).unwrap());
}

#[test]
fn tags_are_replaced_by_key_and_their_rules_are_ec2s() {
    let (mut account, id) = with_image();
    let on = ResourceId::Image(id);
    let tag = |key: &str, value: &str| Tag { key: key.to_owned(), value: value.to_owned() };
    account.create_tags(HOME, on, &[tag("Team", "shop"), tag("Stage", "")]).unwrap();
    assert_eq!(account.image(HOME, "web-1").unwrap().tags["Team"], "shop");
    assert_eq!(code(account.create_tags(HOME, on, &[tag("aws:x", "")])), "InvalidParameterValue");
    let many: Vec<Tag> = (0..50).map(|number| tag(&number.to_string(), "")).collect();
    assert_eq!(code(account.create_tags(HOME, on, &many)), "TagLimitExceeded");
    let keys = [("Team".to_owned(), Some("web".to_owned())), ("Stage".to_owned(), None)];
    account.delete_tags(HOME, on, &keys).unwrap();
    assert_eq!(account.image(HOME, "web-1").unwrap().tags.keys().collect::<Vec<_>>(), ["Team"]);
}

#[test]
fn an_image_is_deprecated_at_a_minute_to_come() {
    let (mut account, id) = with_image();
    assert_eq!(code(account.set_deprecation(HOME, id, Some(NOW), NOW)), "InvalidParameterValue");
    account.set_deprecation(HOME, id, Some(NOW + 3629), NOW).unwrap();
    assert_eq!(account.image(HOME, "web-1").unwrap().deprecation_time, Some(NOW + 3600));
    account.set_deprecation(HOME, id, None, NOW).unwrap();
    assert_eq!(account.image(HOME, "web-1").unwrap().deprecation_time, None);
    let years = |number: i64| Some(NOW + number * 365 * 24 * 3600);
    account.set_deprecation(HOME, id, years(10), NOW).unwrap();
    assert_eq!(
        code(account.set_deprecation(HOME, id, years(10).map(|at| at + 60), NOW)),
        "InvalidParameterValue"
    );
    account
        .modify_launch_permission(HOME, id, PermissionChange::Add, &[LaunchPermission::everybody()])
        .unwrap();
    assert_eq!(code(account.set_deprecation(HOME, id, years(3), NOW)), "InvalidParameterValue");
    account.set_deprecation(HOME, id, years(2), NOW).unwrap();
    assert_eq!(code(account.set_deprecation(HOME, id, Some(i64::MAX), NOW)), "InvalidParameterValue");
}

#[test]
fn an_image_elsewhere_is_told() {
    let (account, id) = with_image();
    let error = account.image("eu-west-1", &id.to_string()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("there is no image `{id}` in region `eu-west-1`; region `local` has it")
    );
}
