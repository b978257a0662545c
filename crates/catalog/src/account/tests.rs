use super::*;
use crate::time::years_after;
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
    let mut account = Account::new(Home::ACCOUNT, NOW);
    let request = request("web-1", &[snapshot('a'), snapshot('b')]);
    let id = account.register_image(HOME, request, NOW, gib).unwrap();
    (account, id)
}

/// A copy from the home region, begun and finished.
fn copy_of(
    account: &mut Account,
    id: AmiId,
    region: &str,
    name: Option<&str>,
    with_tags: bool,
) -> Result<Copied, ApiError> {
    let copied = account.begin_copy((HOME, id), region, name, None, with_tags, NOW)?;
    account.finish_copy(region, &copied)?;
    Ok(copied)
}

fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> &'static str {
    result.unwrap_err().code()
}

#[test]
fn an_account_comes_back_as_it_went_and_other_versions_are_refused() {
    let (mut account, id) = with_image();
    copy_of(&mut account, id, "eu-west-1", None, true).unwrap();
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
    let mut account = Account::new(Home::ACCOUNT, NOW);
    let unknown = request("web-1", &[snapshot('d')]);
    assert_eq!(code(account.register_image(HOME, unknown, NOW, gib)), "InvalidSnapshot.NotFound");
    let nameless = request("w", &[snapshot('a')]);
    assert_eq!(code(account.register_image(HOME, nameless, NOW, gib)), "InvalidAMIName.Malformed");
    // A snapshot of another region.
    let elsewhere = request("web-1", &[snapshot('a')]);
    assert_eq!(code(account.register_image("eu-west-1", elsewhere, NOW, gib)), "InvalidSnapshot.NotFound");
    let wordy = RegisterImage { description: Some("x".repeat(256)), ..request("web-1", &[snapshot('a')]) };
    assert_eq!(code(account.register_image(HOME, wordy, NOW, gib)), "InvalidParameterValue");
    assert_eq!(account, Account::new(Home::ACCOUNT, NOW));
}

#[test]
fn a_copy_has_snapshots_of_its_own_and_no_permissions() {
    let (mut account, id) = with_image();
    account
        .modify_launch_permission(HOME, id, PermissionChange::Add, &["123456789012".parse().unwrap()])
        .unwrap();
    let copied = account.begin_copy((HOME, id), "eu-west-1", None, Some("there"), false, NOW + 1).unwrap();
    assert_eq!(code(account.image("eu-west-1", "web-1").map(drop)), "InvalidAMIID.NotFound");
    account.finish_copy("eu-west-1", &copied).unwrap();
    let copy = account.image("eu-west-1", "web-1").unwrap().clone();
    assert_eq!(copy, copied.image);
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
    assert_eq!(code(copy_of(&mut account, id, "eu-west-1", None, false)), "InvalidAMIName.Duplicate");
    let second = copy_of(&mut account, id, "eu-west-1", Some("web-2"), true).unwrap();
    assert_eq!(second.image.tags.len(), 1);
    // Two that are begun at once have no id in common, and the slower one of a name is refused.
    let [one, other] =
        [(); 2].map(|()| account.begin_copy((HOME, id), "us-east-1", None, None, false, NOW).unwrap());
    assert!(one.snapshots.iter().all(|(_, new)| other.snapshots.iter().all(|(_, theirs)| new != theirs)));
    account.finish_copy("us-east-1", &other).unwrap();
    assert_eq!(code(account.finish_copy("us-east-1", &one)), "InvalidAMIName.Duplicate");
    account.set_enabled(HOME, id, false).unwrap();
    assert_eq!(
        code(account.begin_copy((HOME, id), "us-east-2", None, None, false, NOW)),
        "InvalidAMIID.Unavailable"
    );
}

#[test]
fn two_volumes_of_one_snapshot_are_copied_from_one_copy() {
    let mut account = Account::new(Home::ACCOUNT, NOW);
    let request = request("web-1", &[snapshot('a'), snapshot('a')]);
    let id = account.register_image(HOME, request, NOW, gib).unwrap();
    let copied = copy_of(&mut account, id, "eu-west-1", None, false).unwrap();
    assert_eq!(copied.snapshots.len(), 1);
    let copy = account.image("eu-west-1", "web-1").unwrap();
    assert_eq!(copy.snapshots().collect::<Vec<_>>(), [copied.snapshots[0].1; 2]);
}

#[test]
fn snapshots_go_when_no_image_uses_them() {
    let (mut account, first) = with_image();
    let second = request("web-2", &[snapshot('b'), snapshot('c')]);
    let second = account.register_image(HOME, second, NOW, gib).unwrap();
    assert_eq!(code(account.check_deletion(snapshot('b'))), "InvalidSnapshot.InUse");
    let done = account.deregister_image(HOME, first, true, NOW).unwrap();
    assert_eq!((done.deleted, done.left), (vec![snapshot('a')], vec![snapshot('b')]));
    let done = account.deregister_image(HOME, second, false, NOW).unwrap();
    assert_eq!((done.deleted, done.left), (vec![], vec![snapshot('b'), snapshot('c')]));
    account.check_deletion(snapshot('b')).unwrap();
    // What is said of a snapshot stays until it is gone.
    let tag = Tag { key: "k".into(), value: String::new() };
    account.create_tags(HOME, ResourceId::Snapshot(snapshot('b')), &[tag]).unwrap();
    assert!(account.notes(snapshot('b')).is_some());
    account.forget_snapshots(&[snapshot('b')]);
    assert!(account.notes(snapshot('b')).is_none());
}

#[test]
fn volumes_are_checked_at_the_size_that_they_get() {
    let mut account = Account::new(Home::ACCOUNT, NOW);
    let mut small = request("web-1", &[snapshot('a')]);
    let ebs = small.block_device_mappings[0].ebs.as_mut().unwrap();
    (ebs.volume_type, ebs.iops) = (Some(VolumeType::Io2), Some(100));
    assert_eq!(code(account.register_image(HOME, small, NOW, |_| Some(1))), "InvalidParameterValue");
    let empty = request("web-1", &[snapshot('a')]);
    assert_eq!(code(account.register_image(HOME, empty, NOW, |_| Some(0))), "InvalidParameterValue");
}

#[test]
fn an_account_that_is_begun_anew_draws_other_ids() {
    let (_, first) = with_image();
    let mut account = Account::new(Home::ACCOUNT, NOW + 1);
    let again = account.register_image(HOME, request("web-1", &[snapshot('a')]), NOW, gib).unwrap();
    assert_ne!(again, first);
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
    // Neither ending it again nor beginning it anew makes it shorter.
    account.protect(HOME, id, false).unwrap();
    account.unprotect(HOME, id, NOW).unwrap();
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
    account.create_tags(HOME, on, &[tag("a=b", "c=d")]).unwrap();
    let keys = ["Team=web".to_owned(), "Stage".to_owned(), "a".to_owned()];
    assert_eq!(account.delete_tags(HOME, on, &keys).unwrap(), 1);
    assert_eq!(account.image(HOME, "web-1").unwrap().tags.keys().collect::<Vec<_>>(), ["Team", "a=b"]);
    assert_eq!(account.delete_tags(HOME, on, &["a=b=c=d".to_owned()]).unwrap(), 1);
    account.create_tags(HOME, on, &[tag("a=b", "c=d")]).unwrap();
    assert_eq!(account.delete_tags(HOME, on, &["a=b".to_owned()]).unwrap(), 1);
}

#[test]
fn an_image_is_deprecated_at_a_minute_to_come() {
    let (mut account, id) = with_image();
    assert_eq!(code(account.set_deprecation(HOME, id, Some(NOW), NOW)), "InvalidParameterValue");
    account.set_deprecation(HOME, id, Some(NOW + 3629), NOW).unwrap();
    assert_eq!(account.image(HOME, "web-1").unwrap().deprecation_time, Some(NOW + 3600));
    account.set_deprecation(HOME, id, None, NOW).unwrap();
    assert_eq!(account.image(HOME, "web-1").unwrap().deprecation_time, None);
    let in_years = |years| Some(years_after(NOW, years));
    account.set_deprecation(HOME, id, in_years(10), NOW).unwrap();
    let late = in_years(10).map(|at| at + 60);
    assert_eq!(code(account.set_deprecation(HOME, id, late, NOW)), "InvalidParameterValue");
    assert_eq!(code(account.set_deprecation(HOME, id, Some(i64::MAX), NOW)), "InvalidParameterValue");
    // A public image is deprecated two years after its creation, or earlier, and no later than was said once.
    let all = [LaunchPermission::everybody()];
    account.modify_launch_permission(HOME, id, PermissionChange::Add, &all).unwrap();
    assert_eq!(account.image(HOME, "web-1").unwrap().deprecation_time, in_years(2));
    account.set_deprecation(HOME, id, in_years(1), NOW).unwrap();
    assert_eq!(code(account.set_deprecation(HOME, id, in_years(2), NOW)), "InvalidParameterValue");
    assert_eq!(code(account.set_deprecation(HOME, id, None, NOW)), "OperationNotPermitted");
    account.modify_launch_permission(HOME, id, PermissionChange::Remove, &all).unwrap();
    account.set_deprecation(HOME, id, None, NOW).unwrap();
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
